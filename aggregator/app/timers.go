package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/httpctl/httpctl/aggregator/ingest"
	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/lifecycle"
)

// widthKey is where the interval width in force is kept.
const widthKey = "settings/interval-width"

// width is the interval width in force, and the one to come. A change takes
// effect at an hour, where intervals of any width begin.
type width struct {
	Current  time.Duration `json:"current_ns"`
	Next     time.Duration `json:"next_ns,omitempty"`
	NextFrom int64         `json:"next_from_unix_ns,omitempty"`
}

// loadWidth reads the width that was in force before, and plans the change to
// the configured one if that is another.
func loadWidth(ctx context.Context, st store.Store, configured time.Duration, now time.Time) (width, error) {
	data, version, err := st.Get(ctx, widthKey)
	if err != nil {
		return width{}, fmt.Errorf("read the interval width in force: %w", err)
	}
	w := width{Current: configured}
	if data != nil {
		if err := json.Unmarshal(data, &w); err != nil {
			return width{}, fmt.Errorf("read the interval width in force: %w", err)
		}
	}
	before := w
	if w.Next != 0 && now.UnixNano() >= w.NextFrom {
		w = width{Current: w.Next}
	}
	switch {
	case configured == w.Current:
		w.Next, w.NextFrom = 0, 0
	case configured != w.Next:
		w.Next = configured
		w.NextFrom = now.Truncate(time.Hour).Add(time.Hour).UnixNano()
	}
	if data != nil && w == before {
		return w, nil
	}
	return w, saveWidth(ctx, st, w, version)
}

func saveWidth(ctx context.Context, st store.Store, w width, version uint64) error {
	data, err := json.Marshal(w)
	if err == nil {
		_, err = st.CompareAndSwap(ctx, widthKey, version, data)
	}
	if err != nil {
		return fmt.Errorf("keep the interval width in force: %w", err)
	}
	return nil
}

// settings is what agents are told.
func (w width) settings(timeout time.Duration) ingest.Settings {
	return ingest.Settings{IntervalWidth: w.Current, NextWidth: w.Next, NextFrom: w.NextFrom, ProvisionalEvery: timeout}
}

// currentSettings are the settings with the interval width in force.
func (a *App) currentSettings() config.Settings {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.settings
}

// inForce returns the configured settings as they apply with the width in
// force. Where they were made for the width to come, windows and learning are
// lengthened to whole intervals, and hosts waited for as long as the least allowed.
func (w width) inForce(configured config.Settings) config.Settings {
	s := configured
	s.DashboardBucketSize = w.Current
	whole := func(d time.Duration) time.Duration { return (d + w.Current - 1) / w.Current * w.Current }
	s.AverageBucketSize = whole(s.AverageBucketSize)
	s.AverageLearningDuration = whole(s.AverageLearningDuration)
	s.HostGoneAfter = max(s.HostGoneAfter, 3*w.Current)
	return s
}

// clockLook is how often a long wait looks at the wall clock, which may be set meanwhile.
const clockLook = 10 * time.Second

// waitUntil waits until the wall clock has reached t. It returns false if ctx ended first.
func waitUntil(ctx context.Context, t int64) bool {
	for {
		left := time.Duration(t - time.Now().UnixNano())
		if left <= 0 {
			return true
		}
		timer := time.NewTimer(min(left, clockLook))
		select {
		case <-ctx.Done():
			timer.Stop()
			return false
		case <-timer.C:
		}
	}
}

// changeWidth waits for the planned hour and puts the new width, and with it the
// configured settings, in force: for agents, for readers, and for the judge.
func (a *App) changeWidth(ctx context.Context, w width) error {
	if !waitUntil(ctx, w.NextFrom) {
		return nil
	}
	next := width{Current: w.Next}
	_, version, err := a.store.Get(ctx, widthKey)
	if err != nil {
		return err
	}
	if err := saveWidth(ctx, a.store, next, version); err != nil {
		return err
	}
	a.changing.Lock()
	defer a.changing.Unlock()
	if err := a.apply(ctx, next, a.wanted); err != nil {
		return err
	}
	a.log.Info("dashboard_bucket_size is now in force", "width", next.Current)
	return nil
}

// purgeEvery is how often intervals past retention are dropped: often enough
// that a purge is small and little more is kept than asked for, seldom enough
// that its fsync does not matter.
func purgeEvery(keep, width time.Duration) time.Duration {
	return max(width, min(keep/10, 30*time.Second))
}

// maxAhead is how far ahead of the wall clock coverage is believed (DESIGN section 6).
const maxAhead = 5 * time.Minute

// purgeClock is the newest coverage plus the monotonic time since, never past
// wall time: a wall clock that jumps ahead purges nothing that it should not.
// The zero value has seen no coverage.
type purgeClock struct {
	newest int64
	since  time.Time // has a monotonic reading
}

// read tells the time, 0 before there is coverage. A host whose clock is ahead
// says nothing about it.
func (c *purgeClock) read(hosts []store.Host, now time.Time) int64 {
	for _, h := range hosts {
		if t := h.Covered(now.UnixNano()); t > c.newest && t <= now.Add(maxAhead).UnixNano() {
			c.newest, c.since = t, now
		}
	}
	if c.newest == 0 {
		return 0
	}
	return min(c.newest+int64(now.Sub(c.since)), now.UnixNano())
}

// purgeRounds has once drop what is older than keep, max_retention_length + max_late, until ctx ends.
func purgeRounds(ctx context.Context, rounds *lifecycle.Rounds, settings func() config.Settings, once func(ctx context.Context, keep time.Duration) error, log *slog.Logger) error {
	failing := false
	for {
		now := settings() // a reload changes them
		keep := now.MaxRetentionLength + now.MaxLate
		every := purgeEvery(keep, now.DashboardBucketSize)
		err := rounds.Do(func() error { return once(ctx, keep) })
		if err != nil && ctx.Err() == nil && !failing && !errors.Is(err, lifecycle.ErrPanic) { // which is logged already
			log.Error("purging old intervals fails and is tried again", "every", every, "err", err)
		}
		failing = err != nil
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(rounds.Pause(every)):
		}
	}
}

// purge drops what is older than max_retention_length + max_late, and roll-ups that are older than aggregator.rollups says, until ctx ends.
func (a *App) purge(ctx context.Context) error {
	var clock purgeClock
	return purgeRounds(ctx, a.purging, a.currentSettings, func(ctx context.Context, keep time.Duration) error {
		return a.purgeOnce(ctx, &clock, keep)
	}, a.log)
}

// purgeOnce purges what is older than keep.
func (a *App) purgeOnce(ctx context.Context, clock *purgeClock, keep time.Duration) error {
	hosts, err := a.store.Hosts(ctx)
	if err != nil {
		return err
	}
	if now := clock.read(hosts, time.Now()); now > 0 {
		err = a.currentRollups().purge(ctx, a.store, now, keep)
	}
	if err = errors.Join(err, a.hosts.Prune(ctx, hosts)); err != nil {
		return err
	}
	stored := make(map[bucket.ID]bool, len(hosts))
	for _, h := range hosts {
		stored[h.ID] = true
	}
	a.ingest.Retain(func(id bucket.ID) bool { return stored[id] })
	return nil
}

// releaseEvery: what 1,000 agents send in a second, and what their roll-ups read meanwhile, are some 20 MB at most.
const releaseEvery = time.Second

// releasePages keeps the mapped pages of the database from adding up.
func releasePages(ctx context.Context, release func() error) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(releaseEvery):
		}
		_ = release() // when the file is out of use, whoever stores and asks says so
	}
}
