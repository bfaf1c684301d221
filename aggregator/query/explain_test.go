package query

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/httpctl/httpctl/aggregator/store/storetest"
	"github.com/httpctl/httpctl/pkg/exchange"
	httpctlv1 "github.com/httpctl/httpctl/proto/httpctl/v1"
)

// TestExplainAddsUp: for every key of every list, the hosts' parts add up to what GetTop says, hits and error;
// without a key, to its total.
func TestExplainAddsUp(t *testing.T) {
	w := newWorld(t)
	w.traffic()
	star := hit{n: 3, domain: "shop.example.org", path: "*", method: "OPTIONS", agent: "x", status: 200}
	w.put(made(t, storetest.Header(3, 4), 2, star, hit{n: 2, domain: "a.example.org", path: "/", method: "GET", agent: "y", status: 200},
		hit{n: 1, domain: "b.example.org", path: "/", method: "PUT", agent: "z", status: 404}))
	rows, bounded := explainsAll(t, w)
	if rows < 20 || bounded == 0 {
		t.Errorf("%d rows, %d with an error: want enough of both", rows, bounded)
	}
}

// explainsAll holds what Explain says of every key of every list, and of its total, to what GetTop says; with
// provisional buckets, what is pending to what a live list has more.
func explainsAll(t *testing.T, w *world) (rows, bounded int) {
	t.Helper()
	dims, err := w.ListDimensions(ctx, &httpctlv1.ListDimensionsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range dims.Dimensions {
		top, err := w.GetTop(ctx, &httpctlv1.GetTopRequest{Dimension: d.Name, Limit: 100})
		if err != nil {
			t.Fatal(err)
		}
		live, err := w.GetTop(ctx, &httpctlv1.GetTopRequest{Dimension: d.Name, Limit: 100, Live: true})
		if err != nil {
			t.Fatal(err)
		}
		explain := func(keys []string) *httpctlv1.ExplainResponse {
			t.Helper()
			got, err := w.Explain(ctx, &httpctlv1.ExplainRequest{Dimension: d.Name, Keys: keys})
			if err != nil {
				t.Fatal(err)
			}
			var hits, hidden int64
			for _, h := range got.Hosts {
				hits += h.Hits
				hidden += h.Error
			}
			if hits != got.Hits || hidden != got.Error {
				t.Errorf("%s %q: hosts have %d and %d more, in all %d and %d", d.Name, keys, hits, hidden, got.Hits, got.Error)
			}
			return got
		}
		if got := explain(nil); got.Hits != top.Total || got.Error != 0 || got.Hits+got.Pending != live.Total {
			t.Errorf("%s: Explain = %d, %d, %d pending, want the total %d, live %d", d.Name, got.Hits, got.Error, got.Pending, top.Total, live.Total)
		}
		for _, r := range top.Rows {
			rows++
			got := explain(r.Keys)
			if got.Hits != r.Cells[0].Number || got.Error != r.Error {
				t.Errorf("%s %q: Explain = %d and %d more, GetTop says %d and %d", d.Name, r.Keys, got.Hits, got.Error, r.Cells[0].Number, r.Error)
			}
			if got.Error > 0 {
				bounded++
			}
		}
	}
	return rows, bounded
}

// TestExplainHost: what one host gives, and what it did not see.
func TestExplainHost(t *testing.T) {
	w := newWorld(t)
	w.traffic()
	got, err := w.Explain(ctx, &httpctlv1.ExplainRequest{Dimension: "section", Keys: []string{"shop.example.org/cart"}})
	if err != nil {
		t.Fatal(err)
	}
	if got.Hits != 160 || len(got.Hosts) != 2 || !got.MirroredLeftOut {
		t.Fatalf("Explain = %v, want 80 hits of each of two hosts", got)
	}
	h := got.Hosts[0]
	if h.Hits != 80 || h.Buckets != 10 || h.CoveredNs != int64(100*time.Second) || len(h.Covered) != 1 || h.UnobservedNs != int64(2500*time.Millisecond) || len(h.Unobserved) != 10 {
		t.Errorf("host = %v, want 80 hits of 10 buckets, 100 s covered and 2.5 s unobserved", h)
	}
	if !slices.ContainsFunc(h.Loss, func(c *httpctlv1.Count) bool {
		return c.Name == exchange.KernelDrops.String() && c.Value == 30
	}) {
		t.Errorf("loss = %v, want 30 kernel drops", h.Loss)
	}
	one, err := w.Explain(ctx, &httpctlv1.ExplainRequest{Dimension: "section", Keys: []string{"shop.example.org/cart"}, Filters: []*httpctlv1.Filter{{Column: "host", Values: []string{got.Hosts[1].Id}}}})
	if err != nil || one.Hits != 130 || len(one.Hosts) != 1 || one.MirroredLeftOut {
		t.Errorf("of one host Explain = %v, %v, want 130 hits with what another host counts too", one, err)
	}
	for want, r := range map[string]*httpctlv1.ExplainRequest{
		"there are: section":    {Dimension: "sektion"},
		"has the keys section":  {Dimension: "section", Keys: []string{"a", "b"}},
		"cannot be filtered by": {Dimension: "section", Filters: []*httpctlv1.Filter{{Column: "method", Values: []string{"GET"}}}},
		"the most is 4096":      {Dimension: "section", Keys: []string{strings.Repeat("x", 4097)}},
		"is not before":         {Dimension: "section", Range: &httpctlv1.Range{SinceUnixNs: 2, UntilUnixNs: 1}},
	} {
		if _, err := w.Explain(ctx, r); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Explain(%v) = %v, want %q", r, err, want)
		}
	}
}
