package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/lifecycle"
)

// Rollups says how long roll-ups are kept. None goes before what it is made of has, so a value
// below that of a finer one, or of max_retention_length and max_late, has the effect of that.
type Rollups struct {
	// Minutes are kept for so long: they answer for ranges and steps of whole minutes. Default 2d, as
	// long as the intervals: beyond it a minute of a busy host costs as much as two of its intervals.
	Minutes time.Duration `yaml:"minutes" reload:"at once"`
	// Hours are kept for so long: rates and top lists of any hour. Default 90d.
	Hours time.Duration `yaml:"hours" reload:"at once"`
	// Days, of UTC, are kept for so long; weeks and months are made of them. Default 730d.
	Days time.Duration `yaml:"days" reload:"at once"`
}

// DefaultRollups returns the defaults.
func DefaultRollups() Rollups {
	const day = 24 * time.Hour
	return Rollups{Minutes: 2 * day, Hours: 90 * day, Days: 730 * day}
}

// Validate returns nil or config.Faults.
func (r *Rollups) Validate() error {
	const most = 3650 * 24 * time.Hour
	var check config.Check
	for _, f := range []struct {
		key string
		d   time.Duration
	}{{"minutes", r.Minutes}, {"hours", r.Hours}, {"days", r.Days}} {
		check.That(f.d >= time.Hour && f.d <= most, f.key, f.d, fmt.Sprintf("%s to %s", config.FormatDuration(time.Hour), config.FormatDuration(most)))
	}
	return check.Err()
}

// keep returns how long those of a resolution are kept.
func (r *Rollups) keep(res store.Resolution) time.Duration {
	return [...]time.Duration{store.Minute: r.Minutes, store.Hour: r.Hours, store.Day: r.Days}[res]
}

// purge drops the intervals that are older than keep at a time (nanoseconds), and roll-ups past their own.
func (r *Rollups) purge(ctx context.Context, st store.Store, now int64, keep time.Duration) error {
	_, err := st.Purge(ctx, now-int64(keep))
	for res := store.Minute; res <= store.Day && err == nil; res++ {
		_, err = st.PurgeRollups(ctx, res, now-int64(r.keep(res)))
	}
	return err
}

const (
	// rollupEvery is the pause between two passes. A minute is rolled up at most this
	// and rollupGrace after its end, and is read from raw intervals until then.
	rollupEvery = 5 * time.Second
	// rollupGrace is how long after the end of a minute most hosts' buckets of it have
	// come: they close 2 s after it and are sent at once. One that comes later has its minute made again.
	rollupGrace = 10 * time.Second
	// rollupSlice is how long one pass may take, and rollupRest how much longer than it the
	// pause after it is at least: at most a fifth of a core goes to catching up, and what is appended meanwhile is not held up.
	rollupSlice = 2 * time.Second
	rollupRest  = 4
)

// roller is the part of the store that the worker uses.
type roller interface {
	Rollup(ctx context.Context, ended int64) (store.Progress, error)
}

// rollups is the worker that keeps roll-ups up to date, and what it tells of itself.
type rollups struct {
	store  roller
	log    *slog.Logger
	rounds *lifecycle.Rounds

	mu       sync.Mutex
	rebuilt  uint64
	failures uint64
	spent    time.Duration
	pending  int
	oldest   int64 // start of the oldest that is pending, 0 if none is
}

// run works until ctx ends.
func (r *rollups) run(ctx context.Context) error {
	failing := false
	for {
		begin := time.Now()
		err := r.rounds.Do(func() error { return r.pass(ctx, begin) })
		if errors.Is(err, lifecycle.ErrPanic) {
			r.mu.Lock()
			r.failures++
			r.mu.Unlock()
		}
		if err != nil && ctx.Err() == nil && !failing && !errors.Is(err, lifecycle.ErrPanic) { // which is logged already
			r.log.Error("rolling up fails and is tried again", "every", rollupEvery, "err", err)
		}
		failing = err != nil
		pause := time.NewTimer(max(r.rounds.Pause(rollupEvery), rollupRest*time.Since(begin)))
		select {
		case <-ctx.Done():
			pause.Stop()
			return nil
		case <-pause.C:
		}
	}
}

// pass rolls up what it can in its time.
func (r *rollups) pass(ctx context.Context, now time.Time) error {
	short, cancel := context.WithTimeout(ctx, rollupSlice)
	defer cancel()
	done, err := r.store.Rollup(short, now.Add(-rollupGrace).UnixNano())
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		err = nil // there is more to do, next time
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rebuilt += uint64(done.Rebuilt)
	r.spent += time.Since(now)
	r.pending, r.oldest = done.Pending, done.Oldest
	if err != nil && ctx.Err() == nil {
		r.failures++
	}
	return err
}

// lag is how long ago the oldest roll-up that is pending began; 0 if none is.
func (r *rollups) lag() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.oldest == 0 {
		return 0
	}
	return time.Since(time.Unix(0, r.oldest))
}

// register lets Prometheus see the worker.
func (r *rollups) register(registry prometheus.Registerer) {
	read := func(f func() float64) func() float64 {
		return func() float64 {
			r.mu.Lock()
			defer r.mu.Unlock()
			return f()
		}
	}
	registry.MustRegister(
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "httpctl_rollup_rebuilt_total", Help: "Roll-ups of hosts and of the fleet that were made, again where something came late."},
			read(func() float64 { return float64(r.rebuilt) })),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "httpctl_rollup_seconds_total", Help: "Time spent rolling up."},
			read(func() float64 { return r.spent.Seconds() })),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "httpctl_rollup_errors_total", Help: "Passes of the roll-up worker that failed and were tried again."},
			read(func() float64 { return float64(r.failures) })),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "httpctl_rollup_pending", Help: "Roll-ups whose time has ended and that are still to be made; until then finer ones or raw intervals answer."},
			read(func() float64 { return float64(r.pending) })),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "httpctl_rollup_lag_seconds", Help: "How long ago the oldest roll-up that is pending began; 0 if none is."},
			func() float64 { return r.lag().Seconds() }),
	)
}
