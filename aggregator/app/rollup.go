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
	// rollupEvery is the pause between two passes. The rolling up of a minute begins at most this
	// and rollupGrace after its end; it is read from raw intervals until it is done.
	rollupEvery = 5 * time.Second
	// rollupGrace is how long after the end of a minute most hosts' buckets of it have
	// come: they close 2 s after it and are sent at once. One that comes later has its minute made again.
	rollupGrace = 10 * time.Second
	// rollupSlice is how long one pass may take, or longer where a minute that it has begun is not made yet (of more than 2,048 hosts it ends
	// before that). rollupRest is how much longer than its work the pauses in it and after it are at least: at most a fifth of a core
	// goes to catching up, and what is appended meanwhile is not held up.
	rollupSlice = 8 * time.Second
	rollupRest  = 4
	// rollupYield is how much longer than a piece of work in a pass, some milliseconds, the pause after it is: who asks meanwhile need not wait for a pass.
	rollupYield = 3
	// maxYield bounds that pause where a piece took very long, as on a machine that stood still.
	maxYield = time.Second
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
	stop   <-chan struct{} // closed when the worker is to end; set by run

	mu       sync.Mutex
	rebuilt  uint64
	failures uint64
	spent    time.Duration // without rests
	rested   time.Duration // in the pass under way
	pending  int
	oldest   int64 // start of the oldest that is pending, 0 if none is
}

// run works until ctx ends.
func (r *rollups) run(ctx context.Context) error {
	r.stop = ctx.Done()
	failing := false
	for {
		var pause time.Duration
		err := r.rounds.Do(func() (err error) {
			pause, err = r.pass(ctx)
			return err
		})
		if errors.Is(err, lifecycle.ErrPanic) {
			r.mu.Lock()
			r.failures++
			r.mu.Unlock()
		}
		if err != nil && ctx.Err() == nil && !failing && !errors.Is(err, lifecycle.ErrPanic) { // which is logged already
			r.log.Error("rolling up fails and is tried again", "every", rollupEvery, "err", err)
		}
		failing = err != nil
		if err != nil {
			pause = max(pause, r.rounds.Pause(rollupEvery))
		}
		if !sleep(r.stop, pause) {
			return nil
		}
	}
}

// pass rolls up what it can in its time, and returns how long to wait for the next.
func (r *rollups) pass(ctx context.Context) (pause time.Duration, err error) {
	begin := time.Now()
	r.mu.Lock()
	r.rested = 0
	r.mu.Unlock()
	short, cancel := context.WithTimeout(ctx, rollupSlice)
	defer cancel()
	done, err := r.store.Rollup(short, begin.Add(-rollupGrace).UnixNano())
	more := errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil
	if more {
		err = nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	worked := time.Since(begin) - r.rested
	r.rebuilt += uint64(done.Rebuilt)
	r.spent += worked
	r.pending, r.oldest = done.Pending, done.Oldest
	if err != nil && ctx.Err() == nil {
		r.failures++
	}
	if pause = rollupRest*worked - r.rested; !more {
		pause = max(pause, rollupEvery)
	}
	return pause, err
}

// rest is what the store calls between two pieces of a pass, also of those that go on after its time.
func (r *rollups) rest(worked time.Duration) {
	begin := time.Now()
	sleep(r.stop, min(rollupYield*worked, maxYield))
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rested += time.Since(begin)
}

// sleep returns after d, or with false when stop is closed.
func sleep(stop <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-stop:
		return false
	case <-timer.C:
		return true
	}
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
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "httpctl_rollup_seconds_total", Help: "Time spent rolling up, without pauses."},
			read(func() float64 { return r.spent.Seconds() })),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "httpctl_rollup_errors_total", Help: "Passes of the roll-up worker that failed and were tried again."},
			read(func() float64 { return float64(r.failures) })),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "httpctl_rollup_pending", Help: "Roll-ups whose time has ended and that are still to be made; until then finer ones or raw intervals answer."},
			read(func() float64 { return float64(r.pending) })),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "httpctl_rollup_lag_seconds", Help: "How long ago the oldest roll-up that is pending began; 0 if none is."},
			func() float64 { return r.lag().Seconds() }),
	)
}
