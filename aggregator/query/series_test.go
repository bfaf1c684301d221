package query

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/aggregator/store/storetest"
	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/exchange"
	httpctlv1 "github.com/httpctl/httpctl/proto/httpctl/v1"
)

const perDay = 8640 // intervals

// month fills 40 days from T0, 2026-01-01, a Thursday: three intervals at five o'clock of host 1, with 12 requests each, and
// on the first ten days as much of host 2, which counts 5 more that host 1 counts too. Then only days are left of it.
func (w *world) month() {
	w.t.Helper()
	var batch []store.Item
	for day := range 40 {
		for i := range 3 {
			shop := hit{n: 8, domain: "shop.example.org", path: "/cart/1", method: "GET", agent: "curl", status: 200}
			fail := hit{n: 4, domain: "api.example.org", path: "/v1/x", method: "POST", agent: "go", status: 503}
			h := storetest.Header(1, day*perDay+5*360+i)
			one := made(w.t, h, 1000, shop, fail)
			one.Counters[exchange.KernelDrops] = 3
			batch = append(batch, storetest.Item(w.t, one))
			if day < 10 {
				mirror := shop
				mirror.n, mirror.mirror = 5, 1
				h := storetest.Header(2, day*perDay+5*360+i)
				batch = append(batch, storetest.Item(w.t, made(w.t, h, 1000, shop, fail, mirror)))
			}
		}
	}
	if _, err := w.Store.Append(ctx, batch); err != nil {
		w.t.Fatal(err)
	}
	end := storetest.At(40 * perDay)
	_, err := w.Store.Rollup(ctx, end)
	if err == nil {
		_, err = w.Store.Purge(ctx, end)
	}
	for _, r := range []store.Resolution{store.Minute, store.Hour} {
		if err == nil {
			_, err = w.Store.PurgeRollups(ctx, r, end)
		}
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.now = time.Unix(0, end)
}

// points writes points as "begin requests hosts".
func points(a *httpctlv1.GetSeriesResponse) string {
	var out []string
	for _, p := range a.Points {
		if p.CoveredNs == 0 {
			out = append(out, time.Unix(0, p.StartUnixNs).UTC().Format("01-02")+" -")
			continue
		}
		out = append(out, fmt.Sprintf("%s %d %d", time.Unix(0, p.StartUnixNs).UTC().Format("01-02"), p.Requests, p.Hosts))
	}
	return strings.Join(out, ", ")
}

func TestSeries(t *testing.T) {
	w := newWorld(t)
	w.month()
	ask := func(step httpctlv1.SeriesStep, back time.Duration, filters ...*httpctlv1.Filter) *httpctlv1.GetSeriesResponse {
		t.Helper()
		a, err := w.GetSeries(ctx, &httpctlv1.GetSeriesRequest{Step: step, Filters: filters, Range: &httpctlv1.Range{SinceUnixNs: w.now.Add(-back).UnixNano()}})
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	filter := func(column string, values ...string) *httpctlv1.Filter {
		return &httpctlv1.Filter{Column: column, Values: values}
	}
	const (
		days  = httpctlv1.SeriesStep_SERIES_STEP_DAY
		weeks = httpctlv1.SeriesStep_SERIES_STEP_WEEK
	)
	for _, c := range []struct {
		what string
		got  *httpctlv1.GetSeriesResponse
		want string
	}{
		// What host 2 counts of host 1 is in none but its own: host 1 has buckets of that time.
		{"months", ask(httpctlv1.SeriesStep_SERIES_STEP_MONTH, 40*day), "01-01 1476 2, 02-01 324 1"},
		{"weeks", ask(weeks, 40*day), "12-29 288 2, 01-05 468 2, 01-12 252 1, 01-19 252 1, 01-26 252 1, 02-02 252 1, 02-09 36 1"},
		{"days", ask(days, 3*day), "02-07 36 1, 02-08 36 1, 02-09 36 1"},
		{"a past host", ask(weeks, 40*day, filter("host", "hostc")), "12-29 204 1, 01-05 306 1, 01-12 -, 01-19 -, 01-26 -, 02-02 -, 02-09 -"},
		{"a domain", ask(days, 2*day, filter("domain", "shop.example.org")), "02-08 24 1, 02-09 24 1"},
		{"a status", ask(days, 2*day, filter("status", "5xx")), "02-08 12 1, 02-09 12 1"},
		{"hours, which are gone", ask(httpctlv1.SeriesStep_SERIES_STEP_HOUR, 2*time.Hour), "02-09 -, 02-09 -"},
	} {
		if got := points(c.got); got != c.want {
			t.Errorf("%s: %s, want %s", c.what, got, c.want)
		}
	}
	a := ask(days, 40*day)
	if n := a.Coverage.GapCount; len(a.Points) != 40 || a.Coverage.CoveredNs != int64(40*30*time.Second) || n != 39 || len(a.Coverage.Gaps) != 39 {
		t.Errorf("%d points, coverage %v, want 40 with 20 minutes in 40 pieces", len(a.Points), a.Coverage)
	}
	if i := slices.IndexFunc(a.Loss, func(c *httpctlv1.Count) bool { return c.Name == "kernel_drops" }); i < 0 || a.Loss[i].Value != 360 {
		t.Errorf("Loss = %v, want 360 kernel_drops", a.Loss)
	}
	if p := a.Points[0]; p.Rate != 72.0/30 || p.CoveredNs != 30e9 || p.Error != 0 {
		t.Errorf("first point = %v, want 72 requests in 30 s", p)
	}
	if a := ask(days, 2*day, filter("status", "5xx")); a.Dimension != "routes" {
		t.Errorf("requests of a status are counted by %q, want routes, as it is said", a.Dimension)
	}
	if a := ask(httpctlv1.SeriesStep_SERIES_STEP_UNSPECIFIED, 40*day); a.Step != days {
		t.Errorf("the step chosen for 40 days is %v, want days", a.Step)
	}
	for what, r := range map[string]*httpctlv1.GetSeriesRequest{
		"no step": {Step: 99}, "too many steps": {Step: httpctlv1.SeriesStep_SERIES_STEP_MINUTE, Range: &httpctlv1.Range{SinceUnixNs: storetest.T0}},
		"no such column": {Filters: []*httpctlv1.Filter{filter("colour", "red")}}, "no such host": {Filters: []*httpctlv1.Filter{filter("host", "hostz")}},
	} {
		if a, err := w.GetSeries(ctx, r); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v, %v, want InvalidArgument", what, a, err)
		}
	}
}

// TestSeriesByInterval: points are of intervals where that is little to read, else of minutes.
func TestSeriesByInterval(t *testing.T) {
	w := newWorld(t)
	var batch []store.Item
	for i := range 12 {
		batch = append(batch, storetest.Item(t, made(t, storetest.Header(1, i), 1000, hit{n: i + 1, domain: "api.example.org", path: "/v1/x", method: "POST", agent: "go", status: 503})))
	}
	if _, err := w.Store.Append(ctx, batch); err != nil {
		t.Fatal(err)
	}
	w.now = time.Unix(0, storetest.At(12))
	ask := func(since, until int64, filters ...*httpctlv1.Filter) *httpctlv1.GetSeriesResponse {
		t.Helper()
		a, err := w.GetSeries(ctx, &httpctlv1.GetSeriesRequest{Step: httpctlv1.SeriesStep_SERIES_STEP_INTERVAL, Filters: filters, Outcomes: true, Range: &httpctlv1.Range{SinceUnixNs: since, UntilUnixNs: until}})
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	a := ask(storetest.At(0)+3, 0) // within the first
	if a.Step != httpctlv1.SeriesStep_SERIES_STEP_INTERVAL || len(a.Points) != 12 {
		t.Fatalf("%d points by %v, want 12 by interval", len(a.Points), a.Step)
	}
	for i, p := range a.Points {
		n := uint64(i + 1)
		if p.StartUnixNs != storetest.At(i) || p.EndUnixNs != storetest.At(i+1) || p.Requests != n || p.Outcomes.GetTotal() != n || p.Outcomes.GetLatency().GetCount() != n {
			t.Errorf("point %d is %v, want %d requests of one interval, and as many outcomes", i, p, n)
		}
	}
	byMinute := func(what string, since, until int64) {
		t.Helper()
		if a := ask(since, until); a.Step != httpctlv1.SeriesStep_SERIES_STEP_MINUTE {
			t.Errorf("%s: points by %v, want by the minute", what, a.Step)
		}
	}
	byMinute("more points than a chart has room for", w.now.Add(-121*time.Minute).UnixNano(), 0)
	batch = nil
	for host := range 1700 {
		h := storetest.Header(1, 0)
		h.Host = bucket.ID{9, byte(host >> 8), byte(host)}
		batch = append(batch, storetest.Item(t, made(t, h, 1000)))
	}
	if _, err := w.Store.Append(ctx, batch); err != nil {
		t.Fatal(err)
	}
	byMinute("1,701 hosts for two minutes", storetest.At(0), 0)
	of := &httpctlv1.Filter{Column: "domain", Values: []string{"api.example.org"}}
	if all, some := ask(storetest.At(0), storetest.At(2)), ask(storetest.At(0), storetest.At(2), of); all.Step == some.Step {
		t.Errorf("1,701 hosts for two intervals: all by %v, one domain by %v, want that by the minute", all.Step, some.Step)
	}
	w.now = w.now.Add(48 * time.Hour)
	byMinute("what may only be in roll-ups", storetest.At(0), storetest.At(2))
}

// TestSeriesEndsWithWhatCanHaveCome: a step that is under way, or whose buckets are on their way, is no point before there is something of it. One
// that nothing came of is, an interval after its end.
func TestSeriesEndsWithWhatCanHaveCome(t *testing.T) {
	w := newWorld(t)
	put := func(interval int) {
		w.put(made(t, storetest.Header(1, interval), 10, hit{n: 1, domain: "a.example.org", path: "/", method: "GET", status: 200}))
	}
	for i := range 6 {
		put(i)
	}
	check := func(what string, after time.Duration, step httpctlv1.SeriesStep, until int64, want string) {
		t.Helper()
		w.now = time.Unix(0, storetest.At(6)).Add(after)
		a, err := w.GetSeries(ctx, &httpctlv1.GetSeriesRequest{Step: step, Range: &httpctlv1.Range{SinceUnixNs: storetest.At(3), UntilUnixNs: until}, Outcomes: true})
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, p := range a.Points {
			got += fmt.Sprintf(" %d", p.Requests)
			if p.CoveredNs == 0 {
				got += "?"
			}
		}
		if got != want {
			t.Errorf("%s: points are%s, want%s", what, got, want)
		}
	}
	const interval, minute = httpctlv1.SeriesStep_SERIES_STEP_INTERVAL, httpctlv1.SeriesStep_SERIES_STEP_MINUTE
	check("under way", 4*time.Second, interval, 0, " 1 1 1")
	check("a minute under way", 4*time.Second, minute, 0, " 6")
	check("not come yet, and another under way", 14*time.Second, interval, 0, " 1 1 1")
	check("nothing came", 20*time.Second, interval, 0, " 1 1 1 0?")
	check("nothing came for a while", 45*time.Second, interval, 0, " 1 1 1 0? 0? 0?")
	check("nothing came, in a minute", 75*time.Second, minute, 0, " 6 0?")
	check("nothing came yet of the next minute", 79*time.Second, minute, 0, " 6 0?")
	check("nothing came of the next minute", 80*time.Second, minute, 0, " 6 0? 0?")
	check("what is over", 75*time.Second, interval, storetest.At(7), " 1 1 1 0?")
	check("until now", 4*time.Second, interval, storetest.At(6)+4e9, " 1 1 1")
	put(6)
	check("has come", 14*time.Second, interval, 0, " 1 1 1 1")
	check("of the minute", 14*time.Second, minute, 0, " 6 1")
}

// TestSeriesAcrossWidths: where dashboard_bucket_size became less within the range, points are of minutes: an interval from before is none
// that has all requests, with others after it that have none. Where it became more, shorter ones add up.
func TestSeriesAcrossWidths(t *testing.T) {
	w := newWorld(t)
	some := func(interval int, width time.Duration, n int) {
		h := storetest.Header(1, interval)
		h.Width, h.ClosedThrough = width, h.Start+int64(width)
		w.put(made(t, h, 1000, hit{n: n, domain: "a.example.org", path: "/", method: "GET", status: 200}))
	}
	for m := range 3 {
		some(6*m, time.Minute, 60)
	}
	for i := range 12 {
		some(18+i, 10*time.Second, 10)
	}
	for i := range 6 { // less than the present width
		h := storetest.Header(1, 30)
		h.Start += int64(i) * 5e9
		h.Width, h.ClosedThrough, h.Ordinal = 5*time.Second, h.Start+5e9, uint64(30+i)
		w.put(made(t, h, 1000, hit{n: 5, domain: "a.example.org", path: "/", method: "GET", status: 200}))
	}
	w.now = time.Unix(0, storetest.At(33))
	for _, c := range []struct {
		from int
		step httpctlv1.SeriesStep
		want []uint64
	}{
		{0, httpctlv1.SeriesStep_SERIES_STEP_MINUTE, []uint64{60, 60, 60, 60, 60, 30}},
		{13, httpctlv1.SeriesStep_SERIES_STEP_INTERVAL, []uint64{0, 0, 0, 0, 0, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10}},
		{18, httpctlv1.SeriesStep_SERIES_STEP_INTERVAL, []uint64{10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10}},
	} {
		for again := range 2 { // of sums that are kept
			a, err := w.GetSeries(ctx, &httpctlv1.GetSeriesRequest{Step: httpctlv1.SeriesStep_SERIES_STEP_INTERVAL, Outcomes: true, Range: &httpctlv1.Range{SinceUnixNs: storetest.At(c.from)}})
			if err != nil {
				t.Fatal(err)
			}
			var got []uint64
			for _, p := range a.Points {
				got = append(got, p.Requests)
				if p.CoveredNs > p.EndUnixNs-p.StartUnixNs || p.Outcomes.GetTotal() != p.Requests {
					t.Errorf("from %d on: point %v covers more than itself, or has other outcomes", c.from, p)
				}
			}
			if a.Step != c.step || !slices.Equal(got, c.want) {
				t.Errorf("from interval %d on, time %d: by %v %v, want by %v %v", c.from, again, a.Step, got, c.step, c.want)
			}
		}
	}
}

// TestRatesAcrossWidths: the rates of a dashboard begin with the intervals that are as long as now. Before the first of these is
// there, the rate of now is that of the newest longer one.
func TestRatesAcrossWidths(t *testing.T) {
	w := newWorld(t)
	ordinal := uint64(0)
	some := func(interval int, width time.Duration, n int) {
		h := storetest.Header(1, interval)
		h.Width, h.ClosedThrough, h.Ordinal = width, h.Start+int64(width), ordinal
		ordinal++
		w.put(made(t, h, 1000, hit{n: n, domain: "a.example.org", path: "/", method: "GET", status: 200}))
	}
	for m := range 3 {
		some(6*m, time.Minute, 60)
	}
	w.now = time.Unix(0, storetest.At(19))
	for range 2 {
		a, err := w.GetDashboard(ctx, &httpctlv1.GetDashboardRequest{})
		if err != nil || len(a.RateHistory) != 0 || a.Status.RateNow != 1 || a.Status.IntervalRequests != 60 || a.Status.IntervalStartUnixNs != storetest.At(12) {
			t.Errorf("with intervals of a minute only: rate %v, %v, requests by shorter ones %v, %v; want 1, of 60 in the newest", a.GetStatus().GetRateNow(), a.GetStatus(), a.GetRateHistory(), err)
		}
	}
	for i := range 4 {
		some(18+i, 10*time.Second, 10+i)
	}
	w.now = time.Unix(0, storetest.At(22))
	for range 2 { // of sums that are kept
		a, err := w.GetDashboard(ctx, &httpctlv1.GetDashboardRequest{})
		if err != nil || !slices.Equal(a.RateHistory, []uint64{10, 11, 12, 13}) || a.Status.IntervalRequests != 13 || a.Status.Requests != 226 {
			t.Errorf("requests by interval are %v, %d of the newest, %d in all, %v; want 10, 11, 12 and 13, of 226", a.GetRateHistory(), a.GetStatus().GetIntervalRequests(), a.GetStatus().GetRequests(), err)
		}
	}
}

// TestSeriesOfAway: what a host counts of another counts for the fleet as long as that one is away.
func TestSeriesOfAway(t *testing.T) {
	w := newWorld(t)
	for i := range 12 {
		w.put(made(t, storetest.Header(2, i), 1000, hit{n: 5, mirror: 1, domain: "a.example.org", path: "/", method: "GET", status: 200}))
		if i < 6 {
			w.put(made(t, storetest.Header(1, i), 1000, hit{n: 7, domain: "a.example.org", path: "/", method: "GET", status: 200}))
		}
	}
	w.now = time.Unix(0, storetest.At(12))
	for range 2 {
		a, err := w.GetSeries(ctx, &httpctlv1.GetSeriesRequest{Step: httpctlv1.SeriesStep_SERIES_STEP_MINUTE, Range: &httpctlv1.Range{SinceUnixNs: storetest.T0}})
		if err != nil || len(a.Points) != 2 || a.Points[0].Requests != 42 || a.Points[1].Requests != 30 {
			t.Errorf("GetSeries = %v, %v, want 42 of host 1, then 30 that host 2 asked of it", a, err)
		}
		if _, err := w.Store.Rollup(ctx, storetest.At(12)); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Store.Purge(ctx, storetest.At(12)); err != nil {
			t.Fatal(err)
		}
	}
}

// asked is a store that counts the questions.
type asked struct {
	store.Store
	n int
}

func (a *asked) Query(ctx context.Context, p store.Plan) (*store.Answer, error) {
	a.n++
	return a.Store.Query(ctx, p)
}

// TestSeriesOfManyAway: hosts that are away for long cost a series some questions more, not one for each step, however many names of them there are.
func TestSeriesOfManyAway(t *testing.T) {
	w := newWorld(t)
	var batch []store.Item
	for i := range 1000 { // 3 requests to hosts of which two were there at first, the others never, and 5 of its own
		var hits []hit
		for k := range 3 {
			hits = append(hits, hit{n: 1, mirror: 10 + (3*i+k)%90, domain: "a.example.org", path: "/", method: "GET", status: 200})
		}
		hits = append(hits, hit{n: 5, domain: "a.example.org", path: "/", method: "GET", status: 200})
		batch = append(batch, storetest.Item(t, made(t, storetest.Header(2, i), 1000, hits...)))
		if i < 100 {
			batch = append(batch, storetest.Item(t, made(t, storetest.Header(10, i), 1000)), storetest.Item(t, made(t, storetest.Header(11, i), 1000)))
		}
	}
	if _, err := w.Service.Store.Append(ctx, batch); err != nil {
		t.Fatal(err)
	}
	w.now = time.Unix(0, storetest.At(1000))
	seen := &asked{Store: w.Service.Store}
	w.Service.Store = seen
	for name, d := range map[string]struct {
		step httpctlv1.SeriesStep
		most int
	}{"minutes": {httpctlv1.SeriesStep_SERIES_STEP_MINUTE, 10}, "ten minutes": {httpctlv1.SeriesStep_SERIES_STEP_TEN_MINUTES, 10}, "hours": {httpctlv1.SeriesStep_SERIES_STEP_HOUR, 10}} {
		seen.n = 0
		a, err := w.GetSeries(ctx, &httpctlv1.GetSeriesRequest{Step: d.step, Outcomes: true, Range: &httpctlv1.Range{SinceUnixNs: storetest.T0}})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range a.Points {
			want := uint64(0)
			for i := range 1000 {
				if at := storetest.At(i); at < p.StartUnixNs || at >= p.EndUnixNs {
					continue
				}
				want += 8
				for k := range 3 {
					if i < 100 && (3*i+k)%90 < 2 {
						want-- // it has counted that itself
					}
				}
			}
			if p.Requests != want || p.Outcomes.GetTotal() != want {
				t.Errorf("%s: %d requests from %d on, %d outcomes, want %d", name, p.Requests, p.StartUnixNs, p.Outcomes.GetTotal(), want)
			}
		}
		if seen.n > d.most {
			t.Errorf("a series by %s takes %d questions, want at most %d", name, seen.n, d.most)
		}
	}
}

// TestTopOfAMonth: top lists reach as far back as roll-ups do, and say for which part there is data.
func TestTopOfAMonth(t *testing.T) {
	w := newWorld(t)
	w.month()
	a, err := w.GetTop(ctx, &httpctlv1.GetTopRequest{Dimension: "section", Range: &httpctlv1.Range{SinceUnixNs: storetest.T0}})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := show(a), "shop.example.org/cart=1200 api.example.org/v1=600 other=0 total=1800"; got != want {
		t.Errorf("top section = %s, want %s", got, want)
	}
	if a.Coverage.CoveredNs != int64(40*30*time.Second) || a.Coverage.FirstUnixNs != storetest.At(1800) || len(a.Loss) != 1 {
		t.Errorf("coverage = %v, loss %v, want 20 minutes from %d, and kernel drops", a.Coverage, a.Loss, storetest.At(1800))
	}
	// A range begins with a whole hour, or day, as what is that old is kept as such.
	for back, want := range map[time.Duration]time.Duration{time.Hour: 0, 3 * day: 30 * time.Minute, 90 * day: 90 * time.Minute} {
		w.now = time.Unix(0, storetest.At(200*perDay)).Add(90 * time.Minute)
		a, err := w.GetTop(ctx, &httpctlv1.GetTopRequest{Dimension: "section", Range: &httpctlv1.Range{SinceUnixNs: w.now.Add(-back).UnixNano()}})
		if got := w.now.Add(-back).Sub(time.Unix(0, a.GetRange().GetSinceUnixNs())); err != nil || got != want {
			t.Errorf("a range of %v begins %v earlier, %v, want %v", back, got, err, want)
		}
	}
}

func TestCoverage(t *testing.T) {
	if c := coverage(nil); c.CoveredNs != 0 || c.FirstUnixNs != 0 || c.GapCount != 0 {
		t.Errorf("coverage of nothing = %v", c)
	}
	var spans []bucket.Span
	for i := range int64(300) {
		spans = append(spans, bucket.Span{From: 1000 * i, To: 1000*i + 500 + i})
	}
	c := coverage(spans)
	if c.GapCount != 299 || len(c.Gaps) != maxSpans || c.LastUnixNs != 299*1000+500+299 {
		t.Errorf("coverage = %d gaps, %d named, to %d", c.GapCount, len(c.Gaps), c.LastUnixNs)
	}
	for i, g := range c.Gaps { // the longest come first in time here
		if g.SinceUnixNs != spans[i].To {
			t.Fatalf("gap %d begins at %d, want %d", i, g.SinceUnixNs, spans[i].To)
		}
	}
}

// TestSeriesOutcomes: how exchanges ended and how long they took, of the totals, of the drill-down table where the filters
// need it, and of a host that is away.
func TestSeriesOutcomes(t *testing.T) {
	w := newWorld(t)
	fast, slow := 900*time.Microsecond, 300*time.Millisecond
	for i := range 12 {
		w.put(made(t, storetest.Header(2, i), 1000, hit{n: 5, mirror: 1, domain: "a.example.org", path: "/", method: "GET", status: 404, wait: fast}))
		if i < 6 {
			w.put(made(t, storetest.Header(1, i), 1000,
				hit{n: 7, domain: "a.example.org", path: "/", method: "GET", status: 200, wait: fast},
				hit{n: 3, domain: "b.example.org", path: "/", method: "GET", status: 503, wait: slow}))
		}
	}
	w.now = time.Unix(0, storetest.At(12))
	ask := func(step httpctlv1.SeriesStep, filters ...*httpctlv1.Filter) (out []string) {
		t.Helper()
		a, err := w.GetSeries(ctx, &httpctlv1.GetSeriesRequest{Step: step, Filters: filters, Outcomes: true, Range: &httpctlv1.Range{SinceUnixNs: storetest.T0}})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range a.Points {
			o := p.Outcomes
			if o == nil {
				out = append(out, "-")
				continue
			}
			text := fmt.Sprint(o.Total)
			for _, c := range o.Classes {
				text += fmt.Sprintf(" %s=%d", c.Name, c.Value)
			}
			for _, b := range o.Histogram {
				text += fmt.Sprintf(" %s:%d", time.Duration(b.UpToNs), b.Count)
			}
			out = append(out, text)
		}
		return out
	}
	const minute, ten = httpctlv1.SeriesStep_SERIES_STEP_MINUTE, httpctlv1.SeriesStep_SERIES_STEP_TEN_MINUTES
	for _, c := range []struct {
		what string
		got  []string
		want string
	}{
		{"minutes", ask(minute), "[60 2xx=42 5xx=18 1ms:42 398.107171ms:18 30 4xx=30 1ms:30]"},
		{"ten minutes", ask(ten), "[90 2xx=42 4xx=30 5xx=18 1ms:72 398.107171ms:18]"},
		{"a domain", ask(minute, &httpctlv1.Filter{Column: "domain", Values: []string{"b.example.org"}}), "[18 5xx=18 398.107171ms:18 0]"},
		{"a status", ask(minute, &httpctlv1.Filter{Column: "status", Values: []string{"404"}}), "[0 30 4xx=30 1ms:30]"},
		{"what has no status", ask(minute, &httpctlv1.Filter{Column: "user_agent", Values: []string{"x"}}), "[- -]"},
	} {
		if got := fmt.Sprint(c.got); got != c.want {
			t.Errorf("%s: %s, want %s", c.what, got, c.want)
		}
	}
	a, err := w.GetSeries(ctx, &httpctlv1.GetSeriesRequest{Step: minute, Range: &httpctlv1.Range{SinceUnixNs: storetest.T0}})
	if err != nil || a.Points[0].Outcomes != nil {
		t.Errorf("not asked for: %v, %v", a.Points[0].Outcomes, err)
	}
}

// widest is a store that notes how many steps a question by status asks for at once.
type widest struct {
	store.Store
	steps int64
}

func (w *widest) Query(ctx context.Context, p store.Plan) (*store.Answer, error) {
	if slices.Contains(p.By, "status") {
		w.steps = max(w.steps, (p.To-p.From)/int64(p.Step))
	}
	return w.Store.Query(ctx, p)
}

// TestSeriesOutcomesInPieces: a day of minutes is not in memory at once, and each is where it belongs.
func TestSeriesOutcomesInPieces(t *testing.T) {
	w := newWorld(t)
	at := []int{0, 255 * 6, 256*6 + 5, 1000 * 6}
	for _, i := range at {
		w.put(made(t, storetest.Header(1, i), 1000, hit{n: 1 + i, domain: "a.example.org", path: "/", method: "GET", status: 200, wait: time.Millisecond}))
	}
	w.now = time.Unix(0, storetest.At(1440*6))
	seen := &widest{Store: w.Service.Store}
	w.Service.Store = seen
	a, err := w.GetSeries(ctx, &httpctlv1.GetSeriesRequest{Step: httpctlv1.SeriesStep_SERIES_STEP_MINUTE, Outcomes: true, Range: &httpctlv1.Range{SinceUnixNs: storetest.T0}})
	if err != nil {
		t.Fatal(err)
	}
	got, want := map[int64]uint64{}, map[int64]uint64{}
	for _, p := range a.Points {
		if n := p.Outcomes.GetTotal(); n > 0 {
			got[p.StartUnixNs] = n
		}
	}
	for _, i := range at {
		want[storetest.At(i-i%6)] = uint64(1 + i)
	}
	if !maps.Equal(got, want) || seen.steps > 256 || seen.steps == 0 {
		t.Errorf("%v, at most %d minutes asked for at once; want %v and at most 256", got, seen.steps, want)
	}
}
