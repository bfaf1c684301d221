package app

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/httpctl/httpctl/aggregator/access"
	"github.com/httpctl/httpctl/aggregator/enroll"
	"github.com/httpctl/httpctl/aggregator/query"
	"github.com/httpctl/httpctl/aggregator/web"
	"github.com/httpctl/httpctl/pkg/security"
)

// serveWeb serves the web page, if it has an address. Who asks there passes the same checks as a call of gRPC.
func (a *App) serveWeb(ctx context.Context, cfg Config, queries *query.Service, identity *enroll.Own, registry prometheus.Registerer) error {
	if len(cfg.Web.Listen) == 0 {
		return nil
	}
	secure, err := a.webTLS(cfg, identity)
	if err != nil {
		return fmt.Errorf("aggregator.tls: %w", err)
	}
	s, err := web.New(cfg.Web, web.Deps{
		Log: a.log, Registry: registry, Service: queries, Now: time.Now, Changes: a.ingest.Changes, TLS: secure,
		Interval: func() time.Duration { return a.currentSettings().DashboardBucketSize },
		Admit: func(ctx context.Context, conn net.Conn, state *tls.ConnectionState, method string) (context.Context, func(), error) {
			ctx, err := a.gate.Admit(ctx, conn, state, method)
			if err != nil {
				return ctx, nil, err
			}
			return a.enroll.Enter(ctx) // ends with its certificate
		},
		Still: a.gate.Still, Guard: a.doors.Guard, Greeted: access.Greeted,
	})
	if err != nil {
		return err
	}
	a.web = s
	a.teardown.Push("web page", s.Stop)
	return s.Start(ctx)
}

// webTLS is that of the gRPC server for browsers; nil without certificates.
func (a *App) webTLS(cfg Config, identity *enroll.Own) (*tls.Config, error) {
	protocols := []string{"h2", "http/1.1"}
	switch {
	case !cfg.TLS.IsZero():
		return security.ServerConfig(cfg.TLS, a.enroll.Verify, protocols...)
	case identity != nil:
		return identity.ServerConfig(protocols...), nil
	}
	return nil, nil
}

// WebURLs returns where the web page is served.
func (a *App) WebURLs() []string {
	if a.web == nil {
		return nil
	}
	return a.web.URLs()
}
