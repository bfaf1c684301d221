package bolt

import (
	"context"
	"errors"
	"testing"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/aggregator/store/storetest"
)

// brief is a context whose time is over after Err was called a few times.
type brief struct {
	context.Context
	left int
}

func (b *brief) Err() error {
	if b.left--; b.left < 0 {
		return context.DeadlineExceeded
	}
	return nil
}

// TestRollupIsMadeInShortPasses: what takes longer than a pass is made all the same, step by step, the newest first.
func TestRollupIsMadeInShortPasses(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	const hosts, minutes = 2*hostsPerView + 5, 3
	for i := range 6 * minutes {
		var batch []store.Item
		for host := range hosts {
			batch = append(batch, wide(t, host, i))
		}
		if _, err := s.Append(ctx, batch); err != nil {
			t.Fatal(err)
		}
	}
	ended := storetest.At(6 * minutes)
	for pass := range minutes {
		done, err := s.Rollup(&brief{ctx, 1}, ended)
		if over := errors.Is(err, context.DeadlineExceeded); over != (pass < minutes-1) || err != nil && !over || done.Rebuilt != hosts+1 {
			t.Fatalf("pass %d of %d made %d roll-ups, %v; want those of %d hosts and of the fleet, and that its time is over until the last", pass, minutes, done.Rebuilt, err, hosts)
		}
		left, err := s.dirtySteps(store.Minute, ended)
		if err != nil || len(left) != minutes-pass-1 {
			t.Fatalf("after pass %d, %d minutes are left, %v", pass, len(left), err)
		}
		for i, key := range left {
			if key.start() != storetest.At(6*i) {
				t.Errorf("after pass %d the minute at %d is left, want the oldest", pass, key.start())
			}
		}
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := s.Rollup(cancelled, ended); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("Rollup of a cancelled context = %v", err)
	}
}

// TestHourIsMadeInShortPasses: an hour takes several times as long as a minute, so a pass ends within one. The next goes on with it, whatever is newer.
func TestHourIsMadeInShortPasses(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	const hosts = hostsPerCommit + 5
	const perHour = 360
	add := func(interval int) {
		var batch []store.Item
		for host := range hosts {
			batch = append(batch, wide(t, host, interval))
		}
		if _, err := s.Append(ctx, batch); err != nil {
			t.Fatal(err)
		}
		if done, err := s.Rollup(ctx, storetest.At(interval+6)); err != nil || done.Rebuilt != hosts+1 {
			t.Fatalf("Rollup of the minute = %+v, %v", done, err)
		}
	}
	add(0)
	hour, ended := newStepKey(store.Hour, store.Hour.Floor(storetest.At(0))), storetest.At(perHour)
	for pass, want := range []int{hostsPerCommit, hosts - hostsPerCommit, 1} {
		if pass == 1 {
			ended += int64(store.Hour.Length())
			batch := []store.Item{wide(t, 0, perHour)}
			if _, err := s.Append(ctx, batch); err != nil {
				t.Fatal(err)
			}
			if _, err := s.rebuild(ctx, newStepKey(store.Minute, storetest.At(perHour))); err != nil {
				t.Fatal(err)
			}
		}
		done, err := s.Rollup(&brief{ctx, 1}, ended)
		if done.Rebuilt != want || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("pass %d made %d roll-ups, %v; want %d, and that its time is over", pass, done.Rebuilt, err, want)
		}
	}
	left, err := s.dirtySteps(store.Hour, ended)
	if err != nil || len(left) != 1 || left[0] == hour {
		t.Fatalf("hours left are %v, %v; want the newer one", left, err)
	}
}
