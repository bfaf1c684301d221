package app

import (
	"context"
	"net/netip"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/httpctl/httpctl/aggregator/access"
	"github.com/httpctl/httpctl/aggregator/tail"
	httpctlv1 "github.com/httpctl/httpctl/proto/httpctl/v1"
)

// newTails makes what shows live exchanges. The agents are those of ingest, which hands on what they send.
func (a *App) newTails(registry prometheus.Registerer) {
	a.tails = tail.New(tail.Deps{
		Ask: a.ingest.SetTails,
		Agents: func() (out []tail.Agent) {
			for _, one := range a.ingest.Agents() {
				if one.Connected {
					out = append(out, tail.Agent{Host: one.Host, Name: one.Name, Allows: one.Tails})
				}
			}
			return out
		},
		Who: func(ctx context.Context) string {
			p, _ := access.From(ctx)
			if _, err := netip.ParseAddrPort(p.Address); err != nil {
				return p.Who // at a socket, which has no address
			}
			return p.Who + " at " + p.Address
		},
		Still: func(ctx context.Context) error { return a.gate.Still(ctx, httpctlv1.TailService_Tail_FullMethodName) },
		Log:   a.log, Registry: registry,
	})
	a.teardown.Push("tails", a.tails.Stop)
}
