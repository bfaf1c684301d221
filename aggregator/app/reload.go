package app

import (
	"context"
	"errors"
	"fmt"

	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/daemon"
	"github.com/httpctl/httpctl/pkg/telemetry"
)

var _ daemon.Running = (*App)(nil)

// Reload implements [daemon.Running]. Streams of agents and questions of readers go on meanwhile.
func (a *App) Reload(ctx context.Context, f *config.File) error {
	cfg, ok := f.Section("aggregator").(*Config)
	if !ok {
		return fmt.Errorf("reload: %q has no section aggregator", f.Path)
	}
	a.changing.Lock()
	defer a.changing.Unlock()
	if err := a.apply(ctx, a.width, f.Settings); err != nil {
		return err
	}
	a.doors.SetLimits(cfg.Limits)
	a.gate.SetRoles(cfg.Roles)
	a.hosts.SetMost(hostsBound(cfg.Ingest))
	a.enroll.SetConfig(cfg.Enroll)
	a.mu.Lock()
	a.keeps = cfg.Rollups
	a.mu.Unlock()
	return a.ingest.SetLimits(cfg.Ingest) // which are valid
}

// currentRollups returns how long roll-ups are kept now.
func (a *App) currentRollups() *Rollups {
	a.mu.RLock()
	defer a.mu.RUnlock()
	keeps := a.keeps
	return &keeps
}

// apply puts settings in force with an interval width: for the judge, for readers and for agents. The caller
// holds changing.
func (a *App) apply(ctx context.Context, w width, wanted config.Settings) error {
	before, settings := a.currentSettings(), w.inForce(wanted)
	if err := a.renewJudge(ctx, before, settings); err != nil {
		return err
	}
	a.width, a.wanted = w, wanted
	a.mu.Lock()
	a.settings = settings
	a.mu.Unlock()
	a.ingest.SetSettings(w.settings(settings.Timeout))
	return nil
}

// renewJudge has a judge with other settings take the place of the one in force, as after a restart: it
// begins with what is in the store. With an error the one with the settings before goes on; if that
// cannot be, the aggregator ends.
func (a *App) renewJudge(ctx context.Context, before, settings config.Settings) error {
	if judged(before) == judged(settings) {
		return nil
	}
	if err := a.judge.get().Stop(ctx); err != nil {
		return err
	}
	err := a.newJudge(ctx, settings)
	if err == nil {
		return nil
	}
	if again := a.newJudge(ctx, before); again != nil {
		err = errors.Join(err, again)
		a.timers.Go("judge", func(context.Context) error { return err })
	}
	return err
}

// judged are the settings that a judge looks at.
func judged(s config.Settings) [7]int64 {
	return [...]int64{int64(s.DashboardBucketSize), int64(s.AverageBucketSize), s.AverageThreshold, int64(s.AverageLearningDuration),
		int64(s.MaxRetentionLength), int64(s.MaxLate), int64(s.HostGoneAfter)}
}

// Reloads implements [daemon.Running].
func (a *App) Reloads() *telemetry.Reloads { return a.reloads }
