package app

import (
	"context"
	"log/slog"
	"math"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/aggregator/store/bolt"
	"github.com/httpctl/httpctl/pkg/config"
)

func openStore(t *testing.T, dir string) store.Store {
	t.Helper()
	db, err := bolt.Open(filepath.Join(dir, databaseName), bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

// TestLoadWidth restarts the aggregator again and again with the configured
// width and the time of each row.
func TestLoadWidth(t *testing.T) {
	const s = time.Second
	at := func(hour, minute int) time.Time { return time.Date(2026, 1, 1, hour, minute, 0, 0, time.UTC) }
	st := openStore(t, t.TempDir())
	for _, c := range []struct {
		what       string
		now        time.Time
		configured time.Duration
		want       width
	}{
		{"a new store takes what is configured", at(9, 10), 10 * s, width{Current: 10 * s}},
		{"the same again", at(9, 20), 10 * s, width{Current: 10 * s}},
		{"a change waits for the hour", at(9, 30), 5 * s, width{10 * s, 5 * s, at(10, 0).UnixNano()}},
		{"a restart before the hour keeps the plan", at(9, 59), 5 * s, width{10 * s, 5 * s, at(10, 0).UnixNano()}},
		{"another change before the hour replaces the plan", at(9, 59), 2 * s, width{10 * s, 2 * s, at(10, 0).UnixNano()}},
		{"a change taken back leaves no plan", at(9, 59), 10 * s, width{Current: 10 * s}},
		{"planned again", at(9, 59), 5 * s, width{10 * s, 5 * s, at(10, 0).UnixNano()}},
		{"an absence over the hour: it is in force", at(10, 0), 5 * s, width{Current: 5 * s}},
		{"planned for eleven", at(10, 30), 10 * s, width{5 * s, 10 * s, at(11, 0).UnixNano()}},
		{"at noon eleven's is in force, and another is planned", at(12, 5), 30 * s, width{10 * s, 30 * s, at(13, 0).UnixNano()}},
		{"at the hour itself the next one is meant", at(13, 0), 5 * s, width{30 * s, 5 * s, at(14, 0).UnixNano()}},
	} {
		got, err := loadWidth(t.Context(), st, c.configured, c.now)
		if err != nil || got != c.want {
			t.Errorf("%s: loadWidth(%v, %v) = %+v, %v, want %+v", c.what, c.configured, c.now, got, err, c.want)
		}
	}
	if _, err := st.CompareAndSwap(t.Context(), "other", 0, []byte("x")); err != nil {
		t.Fatal(err)
	}
	_, version, err := st.Get(t.Context(), widthKey)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := st.CompareAndSwap(t.Context(), widthKey, version, []byte("{")); err != nil {
		t.Fatal(err)
	}
	if _, err := loadWidth(t.Context(), st, 10*s, at(14, 0)); err == nil {
		t.Error("loadWidth of a damaged record gave no error")
	}
}

func TestInForce(t *testing.T) {
	configured := config.DefaultSettings()
	configured.DashboardBucketSize, configured.AverageBucketSize = time.Second, 15*time.Second
	configured.AverageLearningDuration, configured.HostGoneAfter = 21*time.Second, 3*time.Second
	got := width{Current: 10 * time.Second}.inForce(configured)
	want := configured
	want.DashboardBucketSize, want.AverageBucketSize = 10*time.Second, 20*time.Second
	want.AverageLearningDuration, want.HostGoneAfter = 30*time.Second, 30*time.Second
	if got.AverageBucketSize != want.AverageBucketSize || got.AverageLearningDuration != want.AverageLearningDuration ||
		got.HostGoneAfter != want.HostGoneAfter || got.DashboardBucketSize != want.DashboardBucketSize {
		t.Errorf("inForce(%+v) = %+v, want %+v", configured, got, want)
	}
	if err := got.Validate(nil); err != nil {
		t.Errorf("the settings in force are not valid: %v", err)
	}
	configured.AverageLearningDuration = 0
	if got := (width{Current: 10 * time.Second}).inForce(configured); got.Learning() != 20*time.Second {
		t.Errorf("learning takes %v, want the window's 20s", got.Learning())
	}
	if got := (width{Current: time.Second}).inForce(configured); got.AverageBucketSize != 15*time.Second || got.HostGoneAfter != 3*time.Second {
		t.Errorf("inForce with the configured width = %+v, want it unchanged", got)
	}
}

func TestWaitUntil(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		if !waitUntil(t.Context(), begin.Add(47*time.Minute).UnixNano()) || time.Since(begin) != 47*time.Minute {
			t.Errorf("waited %v, want 47m", time.Since(begin))
		}
		if !waitUntil(t.Context(), begin.UnixNano()) || time.Since(begin) != 47*time.Minute {
			t.Error("waited for what is past")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if waitUntil(ctx, begin.Add(2*time.Hour).UnixNano()) {
			t.Error("waitUntil = true though its context ended first")
		}
	})
}

// TestChangeWidth puts a planned width in force under a running aggregator.
func TestChangeWidth(t *testing.T) {
	settings, cfg := testSettings(), Config{Data: t.TempDir(), Ingest: DefaultConfig().Ingest}
	settings.AverageBucketSize, settings.HostGoneAfter = 15*time.Second, 3*time.Second
	st := openStore(t, cfg.Data)
	if err := saveWidth(t.Context(), st, width{Current: 10 * time.Second}, 0); err != nil {
		t.Fatal(err)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	a, err := Start(t.Context(), settings, cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, a) })
	if got := a.currentSettings(); got.DashboardBucketSize != 10*time.Second || got.AverageBucketSize != 20*time.Second {
		t.Errorf("before the hour: width %v, window %v, want 10s and 20s", got.DashboardBucketSize, got.AverageBucketSize)
	}
	before := a.judge.get()
	if err := a.changeWidth(t.Context(), width{10 * time.Second, time.Second, time.Now().UnixNano()}); err != nil {
		t.Fatal(err)
	}
	if got := a.currentSettings(); got.DashboardBucketSize != time.Second || got.AverageBucketSize != 15*time.Second || got.HostGoneAfter != 3*time.Second {
		t.Errorf("in force are %+v, want those configured", got)
	}
	if a.judge.get() == before {
		t.Error("the judge is still the old one")
	}
	if w, err := loadWidth(t.Context(), a.store, time.Second, time.Now()); err != nil || w != (width{Current: time.Second}) {
		t.Errorf("kept: %+v, %v", w, err)
	}
}

func TestPurgeEvery(t *testing.T) {
	for _, c := range []struct{ keep, width, want time.Duration }{
		{48 * time.Hour, 10 * time.Second, 30 * time.Second},
		{time.Minute, time.Second, 6 * time.Second},
		{5 * time.Second, time.Second, time.Second},
		{time.Minute, time.Minute, time.Minute},
	} {
		if got := purgeEvery(c.keep, c.width); got != c.want {
			t.Errorf("purgeEvery(%v, %v) = %v, want %v", c.keep, c.width, got, c.want)
		}
	}
}

// TestPurgeClock: neither a wall clock that jumps nor a host whose clock is wrong
// makes the purge run ahead, or stop.
func TestPurgeClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		at := func(d time.Duration) int64 { return begin.Add(d).UnixNano() }
		var c purgeClock
		check := func(what string, want int64, covered ...int64) {
			t.Helper()
			var hosts []store.Host
			for _, through := range covered {
				hosts = append(hosts, store.Host{CoveredThrough: through})
			}
			if got := c.read(hosts, time.Now()); got != want {
				t.Errorf("%s: the clock is %d, want %d", what, got, want)
			}
		}
		check("no host", 0)
		check("a host far ahead", 0, math.MaxInt64)
		check("three days behind", at(-72*time.Hour), at(-72*time.Hour), math.MaxInt64, at(time.Hour))
		time.Sleep(time.Hour)
		check("an hour later, no progress", at(-71*time.Hour), at(-72*time.Hour), math.MaxInt64)
		check("caught up", at(time.Hour-time.Second), at(time.Hour-time.Second))
		check("a little ahead", at(time.Hour), at(time.Hour+time.Minute))
		c = purgeClock{}
		set := store.Host{CoveredThrough: math.MaxInt64, CurrentThrough: at(time.Minute)}
		if got := c.read([]store.Host{set}, time.Now()); got != at(time.Minute) {
			t.Errorf("a host whose clock was set right: the clock is %d, want what it covers now, %d", got, at(time.Minute))
		}
	})
}
