package bolt

import (
	"strings"
	"testing"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/aggregator/store/storetest"
)

// TestFaultCostsItsSum: a fault of this program with what a host has sent costs the sum that it is met in: no bucket, no question, no
// program, and no end that is waited for.
func TestFaultCostsItsSum(t *testing.T) {
	s := open(t, t.TempDir())
	plan := store.Plan{Table: "totals", By: []string{"method"}, From: storetest.At(0), To: storetest.At(60)}
	sum := int64(0)
	add := func(interval int) {
		t.Helper()
		appendAll(t, s, item(t, 1, interval, 1))
		sum++
		a, err := s.Query(ctx, plan)
		if err != nil {
			t.Fatal(err)
		}
		if got := a.Slices[0].Table.Total(0); got != sum {
			t.Errorf("after interval %d: %d requests, want %d", interval, got, sum)
		}
	}
	spoil := func() {
		t.Helper()
		spoiled := 0
		for _, sh := range s.sums.shapes {
			for key, k := range sh.pieces {
				if key.fed() {
					k.parts, k.collector = make([]*store.Part, maxParts+1), nil // which cannot be put together
					spoiled++
				}
			}
		}
		if spoiled == 0 {
			t.Fatal("no sum is fed")
		}
	}
	add(0)
	add(1)
	spoil()
	add(2) // while it is fed
	if n, newest := s.Faults(); n != 1 || !strings.Contains(newest, "faults_test") && !strings.Contains(newest, "sums.go") {
		t.Errorf("%d faults, the newest %q, want one, with its stack", n, newest)
	}
	spoil()
	add(9) // when its minute is over
	if n := s.Stats().Faults; n != 2 {
		t.Errorf("%d faults, want 2", n)
	}
	// One that leaves nobody knows what.
	fresh := item(t, 2, 9, 1)
	s.sums.shapes["broken"] = &shape{name: "broken"} // without a dictionary
	appendAll(t, s, fresh)
	sum++
	if n := s.Stats().Faults; n != 3 {
		t.Errorf("%d faults, want 3", n)
	}
	add(10)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
