package app

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/aggregator/store/storetest"
	"github.com/httpctl/httpctl/pkg/lifecycle"
)

// fakeRoller rolls up as its function says, and notes when it was asked for what.
type fakeRoller struct {
	mu    sync.Mutex // of asked and ended
	asked []time.Time
	ended []time.Time
	f     func(ctx context.Context, n int) (store.Progress, error)
}

func (r *fakeRoller) Rollup(ctx context.Context, ended int64) (store.Progress, error) {
	r.mu.Lock()
	r.asked = append(r.asked, time.Now())
	r.ended = append(r.ended, time.Unix(0, ended))
	n := len(r.asked)
	r.mu.Unlock()
	return r.f(ctx, n)
}

// notes returns when it was asked, and for what that had ended.
func (r *fakeRoller) notes() (asked, ended []time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.asked), slices.Clone(r.ended)
}

func TestRollupWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		fake := &fakeRoller{f: func(ctx context.Context, n int) (store.Progress, error) {
			switch n {
			case 1: // more than fits into a pass
				<-ctx.Done()
				return store.Progress{Rebuilt: 10, Pending: 5, Oldest: begin.Add(-time.Hour).UnixNano()}, ctx.Err()
			case 2, 3:
				return store.Progress{Pending: 5, Oldest: begin.Add(-time.Hour).UnixNano()}, errors.New("disk on fire")
			}
			return store.Progress{Rebuilt: 1}, nil
		}}
		var log strings.Builder
		logger := slog.New(slog.NewTextHandler(&log, nil))
		w := &rollups{store: fake, log: logger, rounds: lifecycle.NewRounds("roll-ups", logger)}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- w.run(ctx) }()
		time.Sleep(time.Second)
		synctest.Wait()
		asked, ended := fake.notes()
		if len(asked) != 1 || !asked[0].Equal(begin) || !ended[0].Equal(begin.Add(-rollupGrace)) {
			t.Errorf("asked at %v for what ended %v, want at once and %v before", asked, ended, rollupGrace)
		}
		// The first pass takes its whole slice and is paid for with a longer pause.
		time.Sleep(rollupSlice + rollupRest*rollupSlice + 20*time.Second - time.Second)
		synctest.Wait()
		var at []time.Duration
		asked, _ = fake.notes()
		for _, a := range asked {
			at = append(at, a.Sub(begin))
		}
		want := []time.Duration{0, rollupSlice + rollupRest*rollupSlice}
		for len(want) < 6 {
			want = append(want, want[len(want)-1]+rollupEvery)
		}
		for i := range want[:5] {
			if i >= len(at) || at[i] != want[i] {
				t.Fatalf("asked at %v, want %v", at, want)
			}
		}
		if w.failures != 2 || w.rebuilt != 10+uint64(len(at)-3) || w.pending != 0 || w.lag() != 0 || w.spent != rollupSlice {
			t.Errorf("failures %d, rebuilt %d, pending %d, lag %v, spent %v", w.failures, w.rebuilt, w.pending, w.lag(), w.spent)
		}
		if n := strings.Count(log.String(), "disk on fire"); n != 1 {
			t.Errorf("a failure that lasts is logged %d times, want once:\n%s", n, &log)
		}
		w.oldest = begin.UnixNano()
		if got, want := w.lag(), time.Since(begin); got != want {
			t.Errorf("lag = %v, want %v", got, want)
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run = %v", err)
		}
	})
}

// TestRollupRests: between pieces of a pass there are pauses, which are no work, and the one after it is shorter for them.
func TestRollupRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin, w := time.Now(), &rollups{log: slog.New(slog.DiscardHandler), rounds: lifecycle.NewRounds("roll-ups", slog.New(slog.DiscardHandler))}
		fake := &fakeRoller{f: func(ctx context.Context, _ int) (store.Progress, error) {
			for ctx.Err() == nil {
				piece := time.Now()
				time.Sleep(20 * time.Millisecond)
				w.rest(time.Since(piece))
			}
			return store.Progress{}, ctx.Err()
		}}
		w.store = fake
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- w.run(ctx) }()
		time.Sleep(time.Minute)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run = %v", err)
		}
		asked, _ := fake.notes()
		if got, want := w.spent, time.Since(begin)/(1+rollupRest); got < want*9/10 || got > want*11/10 || len(asked) != 6 {
			t.Errorf("worked for %v in %d passes, want a fifth of a minute in 6", got, len(asked))
		}
	})
}

// TestRollupStops: a pass under way ends with the worker, and counts as no failure.
func TestRollupStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &rollups{log: slog.New(slog.DiscardHandler), rounds: lifecycle.NewRounds("roll-ups", slog.New(slog.DiscardHandler)), store: &fakeRoller{f: func(ctx context.Context, _ int) (store.Progress, error) {
			<-ctx.Done()
			return store.Progress{}, ctx.Err()
		}}}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- w.run(ctx) }()
		synctest.Wait()
		cancel()
		if err := <-done; err != nil || w.failures != 0 {
			t.Errorf("run = %v, %d failures, want none", err, w.failures)
		}
	})
}

func TestRollupsValidate(t *testing.T) {
	good := DefaultRollups()
	if err := good.Validate(); err != nil {
		t.Errorf("the defaults are not valid: %v", err)
	}
	bad := Rollups{Minutes: time.Minute, Hours: 90 * 24 * time.Hour, Days: 10_000 * 24 * time.Hour}
	err := bad.Validate()
	if err == nil || !strings.Contains(err.Error(), "minutes") || !strings.Contains(err.Error(), "days") || strings.Contains(err.Error(), "hours:") {
		t.Errorf("Validate(%+v) = %v, want faults of minutes and days", bad, err)
	}
}

// TestRollupsKeep: each setting decides how much of its resolution is left.
func TestRollupsKeep(t *testing.T) {
	const day = 24 * time.Hour
	now := time.Unix(0, storetest.T0).Add(1000 * day)
	for _, c := range []struct {
		change func(*Rollups)
		want   [store.Day + 1]int
	}{
		// Of 4 times of an hour each: 1, 5, 50 and 800 days ago.
		{func(*Rollups) {}, [...]int{0, 60, 3, 3}},
		{func(r *Rollups) { r.Minutes = 7 * day }, [...]int{0, 120, 3, 3}},
		{func(r *Rollups) { r.Hours = 10 * day }, [...]int{0, 60, 2, 3}},
		{func(r *Rollups) { r.Days = 900 * day }, [...]int{0, 60, 3, 4}},
		// Days are not kept shorter than what they are made of.
		{func(r *Rollups) { r.Days = day }, [...]int{0, 60, 3, 3}},
	} {
		keeps := DefaultRollups()
		c.change(&keeps)
		st := openStore(t, t.TempDir())
		for _, ago := range []time.Duration{day, 5 * day, 50 * day, 800 * day} {
			first := now.Add(-ago)
			var batch []store.Item
			for minute := range 60 {
				h := storetest.Header(1, 0)
				h.Start = first.Add(time.Duration(minute) * time.Minute).UnixNano()
				batch = append(batch, storetest.Item(t, storetest.Bucket(h, nil)))
			}
			if _, err := st.Append(t.Context(), batch); err != nil {
				t.Fatal(err)
			}
		}
		if err := keeps.purge(t.Context(), st, now.UnixNano(), time.Hour); err != nil {
			t.Fatal(err)
		}
		if got := st.Stats(); got.Rollups != c.want || got.Intervals != 0 {
			t.Errorf("with %+v: %v roll-ups and %d intervals are left, want %v and none", keeps, got.Rollups, got.Intervals, c.want)
		}
	}
}
