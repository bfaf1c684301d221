package store_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/aggregator/store/storetest"
	"github.com/httpctl/httpctl/pkg/bucket"
)

// TestAbsences compares with a look at every host and interval.
func TestAbsences(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		const n = 12
		from, to := storetest.At(0), storetest.At(n)
		var hosts []bucket.ID
		covered := map[bucket.ID][]bucket.Span{}
		away := map[[2]int]bool{}
		for h := range r.IntN(4) {
			hosts = append(hosts, storetest.ID(h))
			for i := -1; i <= n; i++ {
				if r.IntN(3) > 0 {
					covered[storetest.ID(h)] = append(covered[storetest.ID(h)], bucket.Span{From: storetest.At(i), To: storetest.At(i + 1)})
				} else if i >= 0 && i < n {
					away[[2]int{h, i}] = true
				}
			}
		}
		step := int64(r.IntN(3)) * 3 * int64(storetest.Width)
		last := from
		for _, a := range store.Absences(hosts, covered, from, to, step) {
			if a.From < last || a.From >= a.To || a.To > to {
				t.Fatalf("an absence from %d to %d after %d", a.From, a.To, last)
			}
			if last = a.To; step > 0 && (a.From-from)/step != (a.To-1-from)/step {
				t.Fatalf("an absence from %d to %d goes over a boundary of %d", a.From, a.To, step)
			}
			for i := range n {
				for h := range hosts {
					if in := storetest.At(i) >= a.From && storetest.At(i) < a.To; in && slices.Contains(a.Hosts, storetest.ID(h).String()) {
						if !away[[2]int{h, i}] {
							t.Fatalf("host %d is away in interval %d, though it has a bucket", h, i)
						}
						delete(away, [2]int{h, i})
					}
				}
			}
		}
		if len(away) > 0 {
			t.Fatalf("absences were not found: %v", away)
		}
	}
}
