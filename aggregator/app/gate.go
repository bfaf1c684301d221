package app

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/httpctl/httpctl/aggregator/access"
	"github.com/httpctl/httpctl/aggregator/ingest"
	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/security"
)

// newGate makes the token of this run, and what decides who may do what.
func (a *App) newGate(ctx context.Context, cfg Config, trustDomain string, registry prometheus.Registerer) error {
	path := config.TokenPath(cfg.Data)
	token, err := security.MakeToken(path)
	if err != nil {
		return err
	}
	a.teardown.Push("token", func(context.Context) error {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	})
	if !cfg.TLS.IsZero() && trustDomain == "" && cfg.Roles.IsZero() {
		a.log.Warn("agents and readers with TLS are refused: aggregator.roles names nobody, and the aggregator's certificate is of an authority whose certificates say no role")
	}
	a.doors = access.NewDoors(cfg.Limits, a.log, registry)
	a.gate = access.New(cfg.Roles, access.Deps{
		Log: a.log, Registry: registry, UID: uint32(os.Geteuid()), Token: token, TokenFile: path, TrustDomain: trustDomain, Doors: a.doors,
	})
	a.hosts, err = a.gate.OpenHosts(ctx, a.store, hostsBound(cfg.Ingest))
	return err
}

// hostsBound is how many hosts' certificates are remembered: room for a fleet of which every host is replaced a few
// times while the data of those before is kept.
func hostsBound(cfg ingest.Config) int { return 4 * cfg.MaxAgents }
