package query

import (
	"fmt"
	"testing"
	"time"

	"github.com/httpctl/httpctl/aggregator/store/storetest"
	"github.com/httpctl/httpctl/pkg/bucket"
	httpctlv1 "github.com/httpctl/httpctl/proto/httpctl/v1"
)

// figures are the rates that the fleet, its hosts and the first step of its series have.
func (w *world) figures(filters ...*httpctlv1.Filter) string {
	w.t.Helper()
	d, err := w.GetDashboard(ctx, &httpctlv1.GetDashboardRequest{Filters: filters})
	if err != nil {
		w.t.Fatal(err)
	}
	hosts, err := w.ListHosts(ctx, &httpctlv1.ListHostsRequest{})
	if err != nil {
		w.t.Fatal(err)
	}
	out := fmt.Sprintf("average %v now %v hosts", d.Status.RateAverage, d.Status.RateNow)
	for _, h := range hosts.Hosts {
		out += fmt.Sprintf(" %v", h.Rate)
	}
	s, err := w.GetSeries(ctx, &httpctlv1.GetSeriesRequest{Step: httpctlv1.SeriesStep_SERIES_STEP_MINUTE, Range: &httpctlv1.Range{SinceUnixNs: storetest.At(6)}, Filters: filters})
	if err != nil {
		w.t.Fatal(err)
	}
	return out + fmt.Sprintf(" series %v from %s", s.Points[0].Rate, time.Duration(s.Coverage.FirstUnixNs-storetest.At(0)))
}

// TestNobodyWatchedYet: the part of its first interval before an agent was started is in no average, whether buckets, kept sums or roll-ups are asked.
func TestNobodyWatchedYet(t *testing.T) {
	w := newWorld(t)
	begin := func(host int, watched time.Duration) {
		h := storetest.Header(host, 9)
		h.ObservedFrom, h.Ordinal = h.End()-int64(watched), 0
		w.put(made(t, h, 10, hit{n: 12, domain: "a.example.org", path: "/", method: "GET", status: 200}))
		w.agents = append(w.agents, Agent{Host: h.Host, ObservedFrom: h.ObservedFrom})
	}
	check := func(what, want string, filters ...*httpctlv1.Filter) {
		t.Helper()
		for _, again := range []string{"", ", again"} { // from sums that were kept
			if got := w.figures(filters...); got != want {
				t.Errorf("%s%s: %s, want %s", what, again, got, want)
			}
		}
	}
	begin(1, 2*time.Second)
	check("one host", "average 6 now 6 hosts 6 series 6 from 1m38s")

	begin(2, 5*time.Second)
	check("two hosts", "average 4.8 now 4.8 hosts 6 2.4 series 4.8 from 1m35s")
	one := &httpctlv1.Filter{Column: "host", Values: []string{"hostb"}}
	check("one of two hosts", "average 6 now 6 hosts 6 2.4 series 6 from 1m38s", one)

	agents := w.agents
	w.agents = agents[:1] // nobody knows since when the other watched
	check("one agent is away", "average 2.4 now 2.4 hosts 6 1.2 series 2.4 from 1m30s")
	w.agents = append(agents[:1:1], Agent{Host: storetest.ID(2), ObservedFrom: storetest.At(11)})
	check("one agent was started anew", "average 2.4 now 2.4 hosts 6 1.2 series 2.4 from 1m30s")
	w.agents = agents

	for host := 1; host <= 2; host++ { // an idle interval
		h := storetest.Header(host, 12)
		h.ObservedFrom, h.Ordinal = agents[host-1].ObservedFrom, 1
		w.put(&bucket.Bucket{Header: h})
	}
	w.now = time.Unix(0, storetest.At(13))
	want := "average 1.6 now 0 hosts 1 0.8 series 4.8 from 1m35s"
	check("before there are roll-ups", want)
	if _, err := w.Store.Rollup(ctx, storetest.At(12)); err != nil {
		t.Fatal(err)
	}
	check("with roll-ups", want)
	if _, err := w.Store.Purge(ctx, storetest.At(12)); err != nil {
		t.Fatal(err)
	}
	check("with roll-ups alone", want)
}

// TestRateOfAMoment: an interval of which next to nothing was watched has no rate of thousands.
func TestRateOfAMoment(t *testing.T) {
	w := newWorld(t)
	h := storetest.Header(1, 9)
	h.ObservedFrom, h.Ordinal = h.End()-1e6, 0
	w.put(made(t, h, 10, hit{n: 12, domain: "a.example.org", path: "/", method: "GET", status: 200}))
	w.agents = []Agent{{Host: h.Host, ObservedFrom: h.ObservedFrom}}
	if r, err := w.GetStatus(ctx, &httpctlv1.GetStatusRequest{}); err != nil || r.RateNow != 6 {
		t.Errorf("12 requests in a millisecond: rate %v, %v, want them over the 2 s that a rate takes", r.GetRateNow(), err)
	}
}

// TestLiveRateOfWhatWasWatched: of the interval in which an agent was started the rate is over what it has seen of it.
func TestLiveRateOfWhatWasWatched(t *testing.T) {
	w := newWorld(t)
	h := storetest.Header(1, 10)
	h.Final, h.ObservedFrom = false, storetest.At(10)+5e9
	b := made(t, h, 10, hit{n: 12, domain: "a.example.org", path: "/", method: "GET", status: 200})
	w.agents = []Agent{{Host: h.Host, ObservedFrom: h.ObservedFrom}}
	for _, c := range []struct {
		after time.Duration
		want  float64
	}{{6 * time.Second, 0}, {8 * time.Second, 4}} {
		w.now = time.Unix(0, storetest.At(10)).Add(c.after)
		w.provisional = []Provisional{{b, w.now}}
		r, err := w.GetDashboard(ctx, &httpctlv1.GetDashboardRequest{Live: true})
		if err != nil || r.Status.RateNow != c.want {
			t.Errorf("%s after the interval began: rate %v, %v, want %v", c.after, r.GetStatus().GetRateNow(), err, c.want)
		}
	}
}

func TestWithoutWhatNobodyWatched(t *testing.T) {
	var b begins
	b.add(0, bucket.Span{}) // a host without a bucket
	b.add(100, bucket.Span{From: 100, To: 108})
	b.add(110, bucket.Span{From: 110, To: 111})
	got := fmt.Sprint(b.without([]bucket.Span{{From: 90, To: 104}, {From: 106, To: 107}, {From: 107, To: 120}}), b.cut(90, 103), b.cut(104, 200), b.cut(0, 50))
	if want := "[{90 100} {108 120}] 3ns 4ns 0s"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	b.add(90, bucket.Span{})
	if got := b.without([]bucket.Span{{From: 90, To: 120}}); len(got) != 1 || got[0].From != 90 {
		t.Errorf("with a host that was there before: %v, want all", got)
	}
}
