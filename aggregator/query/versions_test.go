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

// TestCanary: where hosts are chosen, lists, accounts and series are of the version of a statistic that most of them have now, with its columns and lists; the
// lists of the fleet stay as they are.
func TestCanary(t *testing.T) {
	const upgraded, last = 6, 12
	newer := func(s *bucket.Schema) {
		s.Version, s.Keys = 2, []string{"handle", "spout"}
		s.Measures = append(s.Measures, bucket.Measure{Name: "spilt", Kind: bucket.Sum})
		s.Views = append(s.Views, bucket.View{Name: "kettles", By: []string{"handle"}, Hits: "pours"})
	}
	canary := func(i int) *bucket.Bucket {
		s := teapots(bucket.Header{}, 0, nil).Tables[0].Schema
		newer(&s)
		table := bucket.NewTable(s, 10)
		table.Add([]string{"red", "left"}, []int64{100, 1})
		return &bucket.Bucket{Header: storetest.Header(0, i), Tables: []*bucket.Table{table}}
	}
	w := newWorld(t)
	var batch []store.Item
	for i := range last {
		if i < upgraded {
			batch = append(batch, storetest.Item(t, teapots(storetest.Header(0, i), 1, nil)))
		} else {
			batch = append(batch, storetest.Item(t, canary(i)))
		}
		for host := 1; host <= 3; host++ {
			batch = append(batch, storetest.Item(t, teapots(storetest.Header(host, i), 5, nil)))
		}
	}
	if _, err := w.Store.Append(ctx, batch); err != nil {
		t.Fatal(err)
	}
	w.now = time.Unix(0, storetest.At(last))
	const name = "host=hosta"
	list := func(what, dimension, want string, filters ...string) {
		t.Helper()
		r, err := w.top(dimension, filters...)
		if err != nil || show(r) != want {
			t.Errorf("%s: top %s %v is %v, %v, want %s", what, dimension, filters, r, err, want)
		}
		if err == nil && (dimension == "kettles" || len(filters) > 0 && filters[0] == name) && r.SkippedBuckets != upgraded {
			t.Errorf("%s: top %s %v leaves out %d buckets, want the first %d", what, dimension, filters, r.SkippedBuckets, upgraded)
		}
	}
	check := func(what string) {
		t.Helper()
		list(what, "teapots", "left=186 other=0 total=186")
		list(what, "teapots", "left=600 other=0 total=600", name)
		list(what, "teapots", "left=600 other=0 total=600", name, "handle=red")
		list(what, "kettles", "red=600 other=0 total=600", name)
		list(what, "teapots", "left=66 other=0 total=66", "host=hosta,hostb") // one each: the older version
		list(what, "teapots", "left=60 other=0 total=60", "host=hostb")
		if r, err := w.top("kettles"); err == nil {
			t.Errorf("%s: the fleet has the canary's list %v", what, r)
		}
		filter := []*httpctlv1.Filter{{Column: "host", Values: []string{"hosta"}}}
		d, err := w.GetDashboard(ctx, &httpctlv1.GetDashboardRequest{Filters: filter})
		if err != nil || len(d.Tops) != 1 || show(d.Tops[0]) != "left=600 other=0 total=600" {
			t.Errorf("%s: the dashboard of the canary is %v, %v", what, d, err)
		}
		filter = append(filter, &httpctlv1.Filter{Column: "handle", Values: []string{"red"}})
		e, err := w.Explain(ctx, &httpctlv1.ExplainRequest{Dimension: "kettles", Keys: []string{"red"}, Filters: filter[:1]})
		if err != nil || e.Hits != 600 || e.Hosts[0].Skipped != upgraded {
			t.Errorf("%s: the canary is explained as %v, %v, want 600 hits, and 6 buckets left out", what, e, err)
		}
		s, err := w.GetSeries(ctx, &httpctlv1.GetSeriesRequest{Step: httpctlv1.SeriesStep_SERIES_STEP_MINUTE, Range: &httpctlv1.Range{SinceUnixNs: storetest.T0}, Filters: filter})
		if err != nil || s.Points[0].Requests != 0 || s.Points[1].Requests != 600 {
			t.Errorf("%s: the series of the canary is %v, %v, want 0 and 600", what, s, err)
		}
	}
	check("at first")
	if _, err := w.Store.Rollup(ctx, storetest.At(last)); err != nil {
		t.Fatal(err)
	}
	check("with roll-ups")
	if _, err := w.Store.Purge(ctx, storetest.At(6)); err != nil {
		t.Fatal(err)
	}
	check("with roll-ups alone of the first minute")

	// It is taken back.
	w.put(teapots(storetest.Header(0, last+6), 7, nil))
	w.now = time.Unix(0, storetest.At(last+7))
	if r, err := w.top("teapots", name); err != nil || show(r) != "left=13 other=0 total=13" || r.SkippedBuckets != last-upgraded {
		t.Errorf("with the old version again: %v, %v, want 13, and 6 buckets left out", r, err)
	}
}
