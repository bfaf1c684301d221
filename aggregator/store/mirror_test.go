package store_test

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

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
		step := time.Duration(r.IntN(3)) * 3 * storetest.Width
		last := from
		for _, a := range store.Absences(hosts, covered, from, to, step) {
			if a.From < last || a.From >= a.To || a.To > to {
				t.Fatalf("an absence from %d to %d after %d", a.From, a.To, last)
			}
			last = a.To
			if over := step > 0 && (a.From-from)/int64(step) != (a.To-1-from)/int64(step); over != (a.Step > 0) || over && (a.Step != step || (a.From-from)%int64(step) != 0) {
				t.Fatalf("an absence from %d to %d has steps of %v, where they are of %v", a.From, a.To, a.Step, step)
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

// TestAbsencesOfManyNames: names of hosts that are not there are written once, not again for each hole of a host that is.
func TestAbsencesOfManyNames(t *testing.T) {
	const n, names = 2000, 20_000
	hosts := []bucket.ID{storetest.ID(0)}
	covered := map[bucket.ID][]bucket.Span{}
	for i := 0; i < n; i += 2 {
		covered[hosts[0]] = append(covered[hosts[0]], bucket.Span{From: storetest.At(i), To: storetest.At(i + 1)})
	}
	for i := range names {
		hosts = append(hosts, bucket.ID{1, 2, byte(i >> 8), byte(i)})
	}
	for _, step := range []time.Duration{0, 6 * storetest.Width} {
		written, away := 0, map[string]int64{}
		for _, a := range store.Absences(hosts, covered, storetest.At(0), storetest.At(n), step) {
			written += len(a.Hosts)
			for _, h := range a.Hosts {
				away[h] += a.To - a.From
			}
		}
		if most := names + n; written > most {
			t.Errorf("step %v: %d names are written, want at most %d", step, written, most)
		}
		for i, h := range hosts {
			want := int64(n) * int64(storetest.Width)
			if i == 0 {
				want /= 2
			}
			if got := away[h.String()]; got != want {
				t.Fatalf("step %v: host %d is away for %d ns, want %d", step, i, got, want)
			}
		}
	}
}
