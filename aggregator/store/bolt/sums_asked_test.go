package bolt

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/aggregator/store/storetest"
	"github.com/httpctl/httpctl/pkg/bucket"
)

// TestSumsWhileAsked: what is added up of sums to which buckets come, of which parts are put together, evicted and numbered anew while several ask for
// them, is what the buckets say: tables that are not exact, with response times, of two versions, with values at which a sum rests.
func TestSumsWhileAsked(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 23))
	s := open(t, t.TempDir())
	defer s.Close()
	schema := bucket.Schema{Name: "sections", Version: 2, Keys: []string{"mirror", "section", "status"}, Measures: []bucket.Measure{
		{Name: "hits", Kind: bucket.Sum}, {Name: "ttfb", Kind: bucket.Latency}, {Name: "last", Kind: bucket.Max}, {Name: "bytes", Kind: bucket.Sum}}}
	plans := []store.Plan{
		{Schema: &schema, By: []string{"section"}, Where: []store.Condition{{Column: "mirror", Values: []string{"0"}}}},
		{},
		{Schema: &schema, By: []string{"status", "section"}, Numbers: true},
		{Schema: &schema, By: []string{"section"}, PerHost: true},
		{By: []string{"section"}, Judged: true},
		{By: []string{"status"}, Hosts: []bucket.ID{storetest.ID(2), storetest.ID(3)}},
	}
	now := storetest.At(60)
	// during asks for some minutes up to now.
	during := func(rng *rand.Rand, p store.Plan) store.Plan {
		p.Table, p.To = "sections", now-now%60e9+60e9
		p.From = p.To - (1+rng.Int64N(8))*60e9
		return p
	}
	parts := map[string]uint32{}
	some := func() store.Item {
		at := now - rng.Int64N(30e9)
		if rng.IntN(10) == 0 {
			at = now - rng.Int64N(400e9) // late
		}
		h := storetest.Header(1+rng.IntN(12), 0)
		h.Start = at - at%10e9
		name := fmt.Sprint(h.Host, h.Start)
		h.Part = parts[name]
		parts[name]++
		tb := bucket.NewTable(schema, 5+rng.IntN(30))
		if rng.IntN(8) == 0 {
			tb.Schema.Version = 1
		}
		for range rng.IntN(50) {
			hits := rng.Int64N(3)
			if rng.IntN(500) == 0 {
				hits = 1<<62 - 5
			}
			tb.Add([]string{fmt.Sprint(rng.IntN(8) / 7), fmt.Sprint("s", int(rng.ExpFloat64()*12)), fmt.Sprint(200 + rng.IntN(3))},
				[]int64{hits, int64(rng.ExpFloat64()*1e6) - 1, rng.Int64N(1000), rng.Int64N(1e5)})
		}
		it := storetest.Item(t, &bucket.Bucket{Header: h, Tables: []*bucket.Table{tb}})
		it.Skewed = rng.IntN(15) == 0
		return it
	}
	all := map[string]store.Item{}
	for round := range 16 {
		s.sums.mu.Lock()
		s.sums.most = []int64{0, 200 << 10, 1 << 20}[rng.IntN(3)]
		s.sums.mu.Unlock()
		var asking sync.WaitGroup
		for k := range 2 {
			rng := rand.New(rand.NewPCG(uint64(round), uint64(k)))
			asking.Go(func() {
				for range 8 {
					p := during(rng, plans[rng.IntN(len(plans))])
					p.Sum = rng.IntN(2) == 0
					a, err := s.Query(ctx, p)
					if err != nil {
						t.Error(err)
						return
					}
					for i := range a.Slices {
						if sum := a.Slices[i].Sum; sum != nil {
							sum.Top(3, "hits")
						}
					}
				}
			})
		}
		for range 6 {
			var batch []store.Item
			for range 1 + rng.IntN(4) {
				batch = append(batch, some())
			}
			appendAll(t, s, batch...)
			for _, it := range batch {
				all[string(startKey(it.Header.Start))+string(blobKey(&it.Header.Name))] = it
			}
		}
		asking.Wait()
		for k := range plans {
			p := during(rng, plans[k])
			if got, want := askedBoth(t, s, all, p); got != want {
				t.Fatalf("round %d: Query(%+v) =\n%s\nwant\n%s", round, p, got, want)
			}
			if p.PerHost {
				continue
			}
			raw := store.NewCollector(p)
			for _, it := range all {
				if x, err := bucket.Decode(it.Data); err != nil || !(it.Skewed && p.Judged) && raw.Add(x) != nil {
					t.Fatal(err)
				}
			}
			a := raw.Answer()
			p.Sum = true
			b, err := s.Query(ctx, p)
			if err != nil || len(a.Slices) != len(b.Slices) {
				t.Fatalf("round %d: Query(%+v) has not %d slices, or fails: %v", round, p, len(a.Slices), err)
			}
			for i := range a.Slices {
				table := a.Slices[i].Table
				first := b.Slices[i].Sum.Top(4, "hits")
				if table == nil || first == nil {
					continue
				}
				for k, want := range table.Top(4, 0) {
					got := first.Rows[k]
					if !slices.Equal(got.Keys, want.Keys) || !slices.Equal(got.Values, want.Values) || got.Err != want.Err ||
						len(want.Latency) > 0 && want.Latency[0] != nil && fmt.Sprint(*got.Latency[0]) != fmt.Sprint(*want.Latency[0]) {
						t.Fatalf("round %d: row %d of Query(%+v) = %+v, want %+v", round, k, p, got, want)
					}
				}
			}
		}
		now += rng.Int64N(40e9)
	}
}
