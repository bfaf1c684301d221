package query

import (
	"testing"
	"time"

	"github.com/httpctl/httpctl/aggregator/store/storetest"
	httpctlv1 "github.com/httpctl/httpctl/proto/httpctl/v1"
)

// TestWarm: after it the usual dashboards find all of their sums; of a large fleet it asks at the start only.
func TestWarm(t *testing.T) {
	w := newWorld(t)
	w.now = time.Unix(0, storetest.At(100))
	for i := range 100 {
		w.put(made(t, storetest.Header(1, i), 10, hit{n: 1, domain: "example.org", path: "/", method: "GET", status: 200}))
	}
	warm := func(first bool) uint64 {
		t.Helper()
		before := w.Store.Stats().SumsMade
		if err := w.Warm(ctx, first); err != nil {
			t.Fatal(err)
		}
		return w.Store.Stats().SumsMade - before
	}
	if warm(false) == 0 {
		t.Error("no sum was made of a small fleet")
	}
	before := w.Store.Stats().SumsMade
	for _, back := range []time.Duration{time.Hour, 24 * time.Hour} {
		r := &httpctlv1.GetDashboardRequest{Range: &httpctlv1.Range{SinceUnixNs: w.now.Add(-back).UnixNano()}}
		if d, err := w.GetDashboard(ctx, r); err != nil || d.GetStatus().GetRequests() != 100 {
			t.Errorf("the last %s has %d requests, %v, want 100", back, d.GetStatus().GetRequests(), err)
		}
	}
	if made := w.Store.Stats().SumsMade - before; made != 0 {
		t.Errorf("%d sums were made for dashboards that are warm, want none", made)
	}
	for host := 2; host < 2+keptWarm; host++ {
		w.put(made(t, storetest.Header(host, 20), 10, hit{n: 1, domain: "example.org", path: "/", method: "GET", status: 200}))
	}
	if made := warm(false); made != 0 {
		t.Errorf("%d sums were made of a large fleet though nobody asked, want none", made)
	}
	if warm(true) == 0 {
		t.Error("no sum was made of a large fleet at the start")
	}
}
