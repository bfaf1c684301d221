package query

import (
	"fmt"
	"testing"
	"time"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/aggregator/store/storetest"
	"github.com/httpctl/httpctl/pkg/bucket"
	httpctlv1 "github.com/httpctl/httpctl/proto/httpctl/v1"
)

// teapots is a statistic that nobody here knows, of which a host counts n pours.
func teapots(h bucket.Header, n int64, change func(*bucket.Schema)) *bucket.Bucket {
	s := bucket.Schema{Name: "teapots", Version: 1, Keys: []string{"spout"}, Measures: []bucket.Measure{{Name: "pours", Kind: bucket.Sum}},
		Views: []bucket.View{{Name: "teapots", Title: "Teapots", By: []string{"spout"}, Hits: "pours"}}}
	if change != nil {
		change(&s)
	}
	t := bucket.NewTable(s, 10)
	keys := make([]string, len(s.Keys))
	for i := range keys {
		keys[i] = "left"
	}
	t.Add(keys, []int64{n})
	return &bucket.Bucket{Header: h, Tables: []*bucket.Table{t}}
}

// TestOneHostHasAnotherVersion: one host that has a statistic in another version than the rest, in however many buckets, is left out of its list, its
// series and its roll-ups, and breaks none of them.
func TestOneHostHasAnotherVersion(t *testing.T) {
	for name, change := range map[string]func(*bucket.Schema){
		"a newer one":         func(s *bucket.Schema) { s.Version = 1 << 31 },
		"without the columns": func(s *bucket.Schema) { s.Version, s.Keys, s.Views = 1<<31, []string{"handle"}, nil },
		"older, without them": func(s *bucket.Schema) { s.Version, s.Keys, s.Views = 0, []string{"handle"}, nil },
		"of the same version": func(s *bucket.Schema) { s.Keys = []string{"spout", "handle"} },
		"with another list":   func(s *bucket.Schema) { s.Views[0].Name = "kettles"; s.Version = 2 },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			const last = 12
			flood := func(interval int) (batch []store.Item) {
				for n := range 2 * store.MaxSchemaBuckets {
					h := storetest.Header(0, interval+n%2)
					h.Incarnation = bucket.ID{1, byte(n >> 8), byte(n)}
					batch = append(batch, storetest.Item(t, teapots(h, 1000, change)))
				}
				return batch
			}
			batch := append(flood(0), flood(last-2)...)
			for i := range last {
				for host := 1; host <= 3; host++ {
					batch = append(batch, storetest.Item(t, teapots(storetest.Header(host, i), 5, nil)))
				}
			}
			if _, err := w.Store.Append(ctx, batch); err != nil {
				t.Fatal(err)
			}
			w.now = time.Unix(0, storetest.At(last))
			other := teapots(storetest.Header(0, last), 1000, change)
			mine := teapots(storetest.Header(1, last), 5, nil)
			w.provisional = []Provisional{{other, w.now}, {mine, w.now}}
			check := func(what string) {
				t.Helper()
				r, err := w.GetTop(ctx, &httpctlv1.GetTopRequest{Dimension: "teapots"})
				if want := fmt.Sprintf("left=%d other=0 total=%[1]d", 3*5*last); err != nil || show(r) != want || r.SkippedBuckets == 0 {
					t.Errorf("%s: the list is %v, %v, want %s", what, r, err, want)
				}
				if live, err := w.GetTop(ctx, &httpctlv1.GetTopRequest{Dimension: "teapots", Live: true}); err != nil || live.Total != 3*5*last+5 {
					t.Errorf("%s: the live list is %v, %v, want a total of %d", what, live, err, 3*5*last+5)
				}
				s, err := w.GetSeries(ctx, &httpctlv1.GetSeriesRequest{Step: httpctlv1.SeriesStep_SERIES_STEP_MINUTE, Range: &httpctlv1.Range{SinceUnixNs: storetest.T0},
					Filters: []*httpctlv1.Filter{{Column: "spout", Values: []string{"left"}}}})
				if err != nil || len(s.Points) != 2 || s.Points[0].Requests != 3*5*6 || s.Points[1].Requests != 3*5*6 {
					t.Errorf("%s: the series is %v, %v, want 90 in each of two minutes", what, s, err)
				}
				e, err := w.Explain(ctx, &httpctlv1.ExplainRequest{Dimension: "teapots"})
				if err != nil || e.Hits != 3*5*last || len(e.Hosts) != 4 || e.Hosts[0].Hits != 0 || e.Hosts[0].Skipped == 0 {
					t.Errorf("%s: explained as %v, %v, want %d hits, all but those of the first host", what, e, err, 3*5*last)
				}
			}
			check("at first")
			if _, err := w.Store.Rollup(ctx, storetest.At(last)); err != nil {
				t.Fatal(err)
			}
			check("with roll-ups")
			w.schemaAt = time.Time{}
			if _, err := w.Store.Purge(ctx, storetest.At(6)); err != nil {
				t.Fatal(err)
			}
			check("with roll-ups alone of the first minute")
		})
	}
}

// TestStatisticIsUpgraded: as its hosts get a new version of a statistic one by one, its list is of the version that most of them have.
func TestStatisticIsUpgraded(t *testing.T) {
	w := newWorld(t)
	const hosts = 5
	for upgraded := range hosts + 1 {
		interval := 10 + upgraded
		for host := range hosts {
			var change func(*bucket.Schema)
			if host < upgraded {
				change = func(s *bucket.Schema) { s.Version = 2 }
			}
			w.put(teapots(storetest.Header(host, interval), 1, change))
		}
		w.now, w.schemaAt = time.Unix(0, storetest.At(interval+1)), time.Time{}
		r, err := w.GetTop(ctx, &httpctlv1.GetTopRequest{Dimension: "teapots", Range: &httpctlv1.Range{SinceUnixNs: storetest.At(interval)}})
		if want := int64(max(upgraded, hosts-upgraded)); err != nil || r.Total != want || r.SkippedBuckets != uint64(hosts-want) {
			t.Errorf("%d of %d hosts are upgraded: %v, %v, want %d, and the buckets of the others left out", upgraded, hosts, r, err, want)
		}
	}
}
