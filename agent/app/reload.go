package app

import (
	"context"
	"fmt"

	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/daemon"
	"github.com/httpctl/httpctl/pkg/telemetry"
)

var _ daemon.Running = (*Agent)(nil)

// Reload implements [daemon.Running]: it takes over what has a tag `reload` in [Config]. Connections that are
// followed stay so, and what was counted stays counted.
func (a *Agent) Reload(_ context.Context, f *config.File) error {
	section, ok := f.Section("agent").(*Config)
	if !ok {
		return fmt.Errorf("reload: %q has no section agent", f.Path)
	}
	cfg := *section
	// What can fail goes first, and can be undone.
	for i, r := range a.rings {
		if err := r.SetPorts(cfg.Capture.Ports); err != nil {
			a.restorePorts(i)
			return fmt.Errorf("agent.capture.ports: %w", err)
		}
	}
	err := a.uplink.Configure(cfg.Config)
	if err != nil {
		a.restorePorts(len(a.rings))
		return fmt.Errorf("agent.tls: %w", err)
	}
	// The rest was validated, which is all that can be wrong with it.
	if err := a.spool.SetLimits(cfg.Spool); err != nil {
		return fmt.Errorf("agent.spool: %w", err)
	}
	if err := a.local.setNetworks(cfg.LocalNetworks); err != nil {
		return fmt.Errorf("agent.local_networks: %w", err)
	}
	if a.tails.Configure(cfg.Tail) {
		a.uplink.Renew() // the aggregator is told anew whether it may ask
	}
	for _, p := range a.pipelines {
		p.changed.Store(&cfg)
	}
	a.ports = cfg.Capture.Ports
	return nil
}

// restorePorts gives the first n rings the ports back that they had.
func (a *Agent) restorePorts(n int) {
	for _, r := range a.rings[:n] {
		if err := r.SetPorts(a.ports); err != nil {
			a.log.Error("the ports to capture cannot be set back", "err", err)
		}
	}
}

// Reloads implements [daemon.Running].
func (a *Agent) Reloads() *telemetry.Reloads { return a.reloads }
