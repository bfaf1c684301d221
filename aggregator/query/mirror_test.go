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

// TestMirror: what host 2 asks of host 1 and host 3 counts once in fleet totals, also in the intervals for
// which host 1, or host 3, has no bucket; and again as theirs when their buckets arrive late.
func TestMirror(t *testing.T) {
	w := newWorld(t)
	at := func(n, mirror int, path string) hit {
		return hit{n: n, mirror: mirror, domain: "shop.example.org", path: path, method: "GET", agent: "curl", status: 200, wait: time.Millisecond, up: 1, down: 2}
	}
	w.health[storetest.ID(1)], w.health[storetest.ID(3)] = Gone, Gone // rates are shown without them
	// Host 1 has seen all 7 that it was asked, and 2 of somebody else; host 3 the 3 that it was asked.
	first := func(i int) *bucket.Bucket {
		return made(t, storetest.Header(1, i), 1000, at(7, 0, "/cart"), at(2, 0, "/other"))
	}
	for i := range 10 {
		w.put(made(t, storetest.Header(2, i), 1000, at(7, 1, "/cart"), at(3, 3, "/pay"), at(1, 0, "/own")))
		if i < 4 || i == 9 {
			w.put(first(i))
		}
		if i < 6 {
			w.put(made(t, storetest.Header(3, i), 1000, at(3, 0, "/pay")))
		}
	}
	check := func(what string, cart, other, requests int, last string) {
		t.Helper()
		r, err := w.top("section")
		if err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf("shop.example.org/cart=%d shop.example.org/pay=30 shop.example.org/other=%d shop.example.org/own=10 other=0 total=%d", cart, other, requests)
		if got := show(r); got != want {
			t.Errorf("%s: sections are %s, want %s", what, got, want)
		}
		for dimension, want := range map[string]string{"domain": "shop.example.org", "status": "200", "method": "GET", "user_agent": "curl"} {
			r, err := w.top(dimension)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := show(r), fmt.Sprintf("%s=%d other=0 total=%d", want, requests, requests); got != want {
				t.Errorf("%s: %s is %s, want %s", what, dimension, got, want)
			}
		}
		d, err := w.GetDashboard(ctx, &httpctlv1.GetDashboardRequest{Live: len(w.provisional) > 0})
		if err != nil {
			t.Fatal(err)
		}
		if got := d.Status.Requests; got != uint64(requests) {
			t.Errorf("%s: the dashboard has %d requests, want %d", what, got, requests)
		}
		if got := d.Tops[0].Total; got != int64(requests) {
			t.Errorf("%s: the dashboard's first list has %d requests, want %d", what, got, requests)
		}
		if got := fmt.Sprint(d.RateHistory); got != last {
			t.Errorf("%s: requests by interval are %s, want %s", what, got, last)
		}
		explainsAll(t, w)
		hosts, err := w.ListHosts(ctx, &httpctlv1.ListHostsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if got := hosts.Hosts[1].Requests; got != 110 {
			t.Errorf("%s: host 2 has %d requests, want all 110 that it saw", what, got)
		}
	}
	check("host 1 has no buckets of intervals 4 to 8, host 3 of 6 to 9", 70, 10, 120, "[13 13 13 13 11 11 11 11 11 13]")
	for i := 4; i < 9; i++ {
		w.put(first(i))
	}
	check("host 1's came late", 70, 20, 130, "[13 13 13 13 13 13 13 13 13 13]")

	// Of the interval under way: host 1 has sent it, host 3 has not.
	w.now = w.now.Add(5 * time.Second)
	for _, b := range []*bucket.Bucket{first(10), made(t, storetest.Header(2, 10), 1000, at(7, 1, "/cart"), at(3, 3, "/pay"))} {
		b.Final = false
		w.provisional = append(w.provisional, Provisional{b, w.now})
	}
	d, err := w.GetDashboard(ctx, &httpctlv1.GetDashboardRequest{Live: true})
	if err != nil {
		t.Fatal(err)
	}
	if got := d.Status.Requests; got != 130+9+3 {
		t.Errorf("with the interval under way the dashboard has %d requests, want 142", got)
	}
	if got := d.Tops[0].Total; got != 130+9+3 {
		t.Errorf("with the interval under way the first list has %d, want 142", got)
	}
	explainsAll(t, w)
}

// TestAbsencesOfNobody: where no host counts what another does, nothing is asked but that.
func TestAbsencesOfNobody(t *testing.T) {
	w := newWorld(t)
	w.put(made(t, storetest.Header(1, 0), 1000, hit{n: 3, domain: "a", path: "/", method: "GET", status: 200}))
	if got, err := store.FindAbsences(ctx, w.Store, []string{totals}, storetest.At(0), storetest.At(9), 0, nil); err != nil || got != nil {
		t.Errorf("FindAbsences = %v, %v, want none", got, err)
	}
}
