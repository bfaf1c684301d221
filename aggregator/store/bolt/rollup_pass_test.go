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

// TestRollupIsMadeInShortPasses: what takes longer than a pass is made all the same, host by host and for the fleet.
func TestRollupIsMadeInShortPasses(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	const hosts = 2*hostsPerView + 5
	for i := range 12 {
		var batch []store.Item
		for host := range hosts {
			batch = append(batch, wide(t, host, i))
		}
		if _, err := s.Append(ctx, batch); err != nil {
			t.Fatal(err)
		}
	}
	ended := storetest.At(12)
	passes := 0
	for {
		done, err := s.Rollup(&brief{ctx, 2}, ended)
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		if done.Pending == 0 {
			break
		}
		if passes++; done.Rebuilt == 0 || passes > 20 {
			t.Fatalf("pass %d made %d roll-ups, %d are pending", passes, done.Rebuilt, done.Pending)
		}
	}
	if passes < 3 {
		t.Errorf("%d passes, want several: the test's time is too long", passes)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := s.Rollup(cancelled, ended); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("Rollup of a cancelled context = %v", err)
	}
}
