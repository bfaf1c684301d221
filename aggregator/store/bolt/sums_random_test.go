package bolt

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/aggregator/store/storetest"
	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/exchange"
)

// TestSumsOfMixedWidths: what is added up of sums that are kept, fed, made ahead, evicted, forgotten and made again is what the buckets say, also while hosts
// have intervals of several widths, as they do where dashboard_bucket_size has changed and some of them were away: questions as those of
// dashboards, asked over and over while buckets come in any order, in time and late.
func TestSumsOfMixedWidths(t *testing.T) {
	for _, seed := range []uint64{1, 3} {
		rng := rand.New(rand.NewPCG(seed, 17))
		dir := t.TempDir()
		s := open(t, dir)
		all := map[string]store.Item{}
		now, purged := storetest.At(60), int64(0) // ten minutes after T0
		ask := func(op int, p store.Plan) {
			got, want := askedBoth(t, s, all, p)
			if got != want {
				g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
				for i := 0; i < len(g) && i < len(w); i++ {
					if g[i] != w[i] {
						t.Fatalf("seed %d, op %d: Query(%+v), line %d of %d =\n%s\nwant, of %d,\n%s", seed, op, p, i, len(g), g[i], len(w), w[i])
					}
				}
				t.Fatalf("seed %d, op %d: Query(%+v) has %d lines, want %d", seed, op, p, len(g), len(w))
			}
		}
		plans := []store.Plan{
			{Table: "totals", By: []string{"method"}, Where: []store.Condition{{Column: "mirror", Values: []string{"0"}}}},
			{Table: "totals", By: []string{"mirror"}, PerHost: true, Numbers: true},
			{Table: "totals", By: []string{"mirror"}, Step: 10 * time.Second, Numbers: true},
			{Table: "totals", By: []string{"mirror"}, Step: 20 * time.Second, Numbers: true},
			{Table: "totals", By: []string{}, Step: 30 * time.Second},
			{Table: "totals", By: []string{"status"}, Judged: true},
		}
		for op := range 180 {
			if op%20 == 0 {
				s.sums.mu.Lock()
				s.sums.most = []int64{0, 60 << 10}[rng.IntN(2)]
				s.sums.mu.Unlock()
			}
			switch r := rng.IntN(100); {
			case r < 45:
				var batch []store.Item
				for range 1 + rng.IntN(5) {
					width := []time.Duration{10 * time.Second, 20 * time.Second, 30 * time.Second, time.Minute}[rng.IntN(4)]
					at := now - rng.Int64N(90e9)
					if rng.IntN(8) == 0 {
						at = now - rng.Int64N(600e9) // late
					}
					host := 1 + rng.IntN(4)
					h := storetest.Header(host, 0)
					h.Start, h.Width, h.Incarnation = at-at%int64(width), width, storetest.ID(100*host+int(width/time.Second))
					h.Part = uint32(rng.IntN(3))
					b := storetest.Bucket(h, func(tb *bucket.Table) uint64 {
						n := 1 + rng.Int64N(50)
						for k := range 1 + rng.Int64N(3) {
							tb.Add([]string{[]string{"0", "1"}[k%2], "server", []string{"GET", "POST"}[rng.IntN(2)], "200"}, []int64{n, n, at + k, n})
						}
						return uint64(n)
					})
					b.Counters[exchange.GapBytes] = uint64(rng.IntN(2))
					it := storetest.Item(t, b)
					it.Skewed = rng.IntN(12) == 0
					batch = append(batch, it)
				}
				got, err := s.Append(t.Context(), batch)
				if err != nil {
					t.Fatal(err)
				}
				for i, r := range got {
					if h := batch[i].Header; r == store.Stored {
						all[string(startKey(h.Start))+string(blobKey(&h.Name))] = batch[i]
					}
				}
				now += rng.Int64N(12e9)
			case r < 88:
				p := plans[rng.IntN(len(plans))]
				from := now - rng.Int64N(8)*60e9
				from -= from % 60e9
				p.From = max(from, purged)
				switch p.To = now; rng.IntN(3) {
				case 0:
					p.To = now + 300e9
				case 1:
					p.To -= now % 60e9
				case 2:
					p.To -= now % 10e9
				}
				if rng.IntN(4) == 0 {
					if err := s.Expect(t.Context(), []store.Plan{p}); err != nil {
						t.Fatal(err)
					}
				}
				ask(op, p)
			case r < 92:
				if _, err := s.Rollup(t.Context(), now-60e9); err != nil {
					t.Fatal(err)
				}
			case r < 96:
				if err := s.Prepare(t.Context()); err != nil {
					t.Fatal(err)
				}
			case r < 98:
				if at := now - 600e9; rng.IntN(2) == 0 && at > 0 {
					purged = max(purged, at-at%60e9)
					if _, err := s.Purge(t.Context(), at); err != nil {
						t.Fatal(err)
					}
				}
			default:
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				s = open(t, dir)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
