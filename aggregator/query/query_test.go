package query

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/aggregator/store/bolt"
	"github.com/httpctl/httpctl/aggregator/store/storetest"
	"github.com/httpctl/httpctl/pkg/ask"
	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/exchange"
	"github.com/httpctl/httpctl/pkg/stat"
	httpctlv1 "github.com/httpctl/httpctl/proto/httpctl/v1"
)

var ctx = context.Background()

// world is a service over a real store, with the rest made up.
type world struct {
	clones map[bucket.ID][]string
	*Service
	t           *testing.T
	now         time.Time
	provisional []Provisional
	agents      []Agent
	watched     []int
	status      Status
	alerts      []Alert
	health      map[bucket.ID]Health
}

func (w *world) Provisional() []Provisional        { return w.provisional }
func (w *world) Clones() map[bucket.ID][]string    { return w.clones }
func (w *world) Agents() []Agent                   { return w.agents }
func (w *world) Watch(ttl time.Duration, rows int) { w.watched = append(w.watched, rows) }

// judge is the world's Judge; its Status would clash with the service's.
type judge struct{ *world }

func (j judge) Status() Status { return j.status }
func (j judge) Alerts(from, to int64) (out []Alert) {
	for _, a := range j.alerts {
		if a.Start < to && (a.End == 0 || a.End > from) {
			out = append(out, a)
		}
	}
	return out
}
func (j judge) Baseline() Baseline {
	return Baseline{From: 1, Until: 2, Requests: 3, CoveredSeconds: 4, Hosts: []string{"hostb"}, Restarts: 5}
}
func (j judge) Relearn(context.Context) (time.Time, error) { return j.now.Add(2 * time.Minute), nil }
func (j judge) Health(hosts []store.Host) []Health {
	out := make([]Health, len(hosts))
	for i, h := range hosts {
		out[i] = j.health[h.ID]
	}
	return out
}

// newWorld begins 10 intervals after storetest.T0.
func newWorld(t *testing.T) *world {
	t.Helper()
	st, err := bolt.Open(filepath.Join(t.TempDir(), "store.db"), bolt.Options{Now: func() time.Time { return time.Unix(0, storetest.T0-1e9) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	w := &world{t: t, now: time.Unix(0, storetest.At(10)), health: map[bucket.ID]Health{}}
	w.Service, err = New(Deps{Store: st, Judge: judge{w}, Live: w, Now: func() time.Time { return w.now },
		Settings: config.DefaultSettings, Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// hit is some equal exchanges.
type hit struct {
	n                           int
	mirror                      int // the host that counts it, too
	domain, path, method, agent string
	status                      int
	wait                        time.Duration // ttfb
	up, down                    uint64
	unanswered                  bool
}

// made returns a bucket as the built-in statistics make it of the hits.
func made(t *testing.T, h bucket.Header, maxKeys int, hits ...hit) *bucket.Bucket {
	t.Helper()
	b := &bucket.Bucket{Header: h}
	for _, name := range stat.Builtin {
		m, err := stat.New(name)
		if err != nil {
			t.Fatal(err)
		}
		var tables []*bucket.Table
		for _, s := range m.Tables() {
			tables = append(tables, bucket.NewTable(s, maxKeys))
		}
		for _, x := range hits {
			e := &exchange.Exchange{Role: exchange.Server, HasRequest: true, Method: x.method, Domain: x.domain,
				Section: exchange.Section(x.domain, x.method, x.path), UserAgent: x.agent, RequestStart: h.Start + 1e6, RequestEnd: h.Start + 2e6}
			if x.mirror != 0 {
				e.Mirror = storetest.ID(x.mirror).String()
			}
			for range x.n {
				m.Observe(&exchange.Observation{Event: exchange.RequestSeen, Time: h.Start + 1e6, Exchange: e}, tables)
			}
			done := *e
			done.HasResponse, done.Status, done.ResponseStart, done.ResponseEnd = true, x.status, e.RequestEnd+int64(x.wait), e.RequestEnd+int64(x.wait)+1
			if x.unanswered {
				done = *e
			}
			for range x.n {
				m.Observe(&exchange.Observation{Event: exchange.Outcome, Time: h.Start + 5e6, Exchange: &done,
					NewRequestWireBytes: x.up, NewResponseWireBytes: x.down}, tables)
			}
		}
		b.Tables = append(b.Tables, tables...)
	}
	for _, x := range hits {
		b.Counters[exchange.Requests] += uint64(x.n)
	}
	return b
}

func (w *world) put(b *bucket.Bucket) {
	w.t.Helper()
	if _, err := w.Store.Append(ctx, []store.Item{storetest.Item(w.t, b)}); err != nil {
		w.t.Fatal(err)
	}
}

// traffic fills 10 intervals of two hosts: 12 requests each, and 5 on host 2
// that host 1 counts too.
func (w *world) traffic() {
	for i := range 10 {
		shop := hit{n: 8, domain: "shop.example.org", path: "/cart/1", method: "GET", agent: "curl", status: 200, wait: 10 * time.Millisecond, up: 100, down: 1000}
		fail := hit{n: 4, domain: "api.example.org", path: "/v1/x", method: "POST", agent: "go", status: 503, wait: 100 * time.Millisecond, up: 50, down: 10}
		mirror := shop
		mirror.n, mirror.mirror = 5, 1
		one := made(w.t, storetest.Header(1, i), 1000, shop, fail)
		one.Counters[exchange.KernelDrops] = 3
		one.Unobserved = []bucket.Span{{From: storetest.At(i), To: storetest.At(i) + 25e7}}
		w.put(one)
		w.put(made(w.t, storetest.Header(2, i), 1000, shop, fail, mirror))
	}
}

func (w *world) top(dimension string, filters ...string) (*httpctlv1.GetTopResponse, error) {
	r := &httpctlv1.GetTopRequest{Dimension: dimension}
	for _, f := range filters {
		column, value, _ := strings.Cut(f, "=")
		r.Filters = append(r.Filters, &httpctlv1.Filter{Column: column, Values: strings.Split(value, ",")})
	}
	return w.GetTop(ctx, r)
}

// show writes rows as "key=hits", then other and total.
func show(r *httpctlv1.GetTopResponse) string {
	var out []string
	for _, row := range r.Rows {
		out = append(out, fmt.Sprintf("%s=%d", strings.Join(row.Keys, "|"), row.Cells[0].Number))
	}
	return fmt.Sprintf("%s other=%d total=%d", strings.Join(out, " "), r.Other.Cells[0].Number, r.Total)
}

func TestGetTop(t *testing.T) {
	w := newWorld(t)
	w.traffic()
	tests := []struct{ dimension, filters, want string }{
		{"section", "", "shop.example.org/cart=160 api.example.org/v1=80 other=0 total=240"},
		{"domain", "", "shop.example.org=160 api.example.org=80 other=0 total=240"},
		{"user_agent", "", "curl=160 go=80 other=0 total=240"},
		{"method", "", "GET=160 POST=80 other=0 total=240"},
		{"status", "", "200=160 503=80 other=0 total=240"},
		{"status", "status=5xx", "503=80 other=0 total=80"},
		{"status", "method=GET", "200=160 other=0 total=160"},
		{"volume", "", "shop.example.org=176000 api.example.org=4800 other=0 total=180800"},
		{"section", "host=hostb", "shop.example.org/cart=80 api.example.org/v1=40 other=0 total=120"},
		// A host view has what the host saw, mirrored or not.
		{"section", "host=hostc", "shop.example.org/cart=130 api.example.org/v1=40 other=0 total=170"},
		{"section", "host=hostc mirror=1", "shop.example.org/cart=50 other=0 total=50"},
		{"section", "host=" + storetest.ID(2).String() + " domain=api*", "api.example.org/v1=40 other=0 total=40"},
		{"section", "host=hostb,hostc", "shop.example.org/cart=210 api.example.org/v1=80 other=0 total=290"},
		{"routes", "status=503 domain=api.example.org", "api.example.org/v1|POST|503=80 other=0 total=80"},
		{"section", "role=client", " other=0 total=0"},
	}
	for _, tt := range tests {
		r, err := w.top(tt.dimension, strings.Fields(tt.filters)...)
		if err != nil {
			t.Errorf("top %s %s: %v", tt.dimension, tt.filters, err)
			continue
		}
		if got := show(r); got != tt.want {
			t.Errorf("top %s %s = %s, want %s", tt.dimension, tt.filters, got, tt.want)
		}
		if r.Floor != 0 || r.DamagedIntervals != 0 {
			t.Errorf("top %s: floor %d, damaged %d, want 0", tt.dimension, r.Floor, r.DamagedIntervals)
		}
	}
}

func TestGetTopColumns(t *testing.T) {
	w := newWorld(t)
	w.traffic()
	r, err := w.top("volume")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, c := range r.Dimension.Columns {
		names = append(names, c.Name)
	}
	if want := []string{"volume", "hits", "upload", "download", "last_seen"}; !slices.Equal(names, want) {
		t.Fatalf("columns = %v, want %v", names, want)
	}
	var cells []int64
	for _, c := range r.Rows[0].Cells {
		cells = append(cells, c.Number)
	}
	if want := []int64{176000, 160, 16000, 160000, storetest.At(9) + 5e6}; !slices.Equal(cells, want) {
		t.Errorf("cells = %v, want %v", cells, want)
	}
	if r, err = w.top("status"); err != nil {
		t.Fatal(err)
	}
	l := r.Rows[0].Cells[1].Latency
	if l == nil || l.Count != 160 || l.AverageNs != 10e6 || l.MaxNs != 10e6 || l.P99Ns < 99e5 || l.P99Ns > 101e5 {
		t.Errorf("ttfb of 200 = %+v, want 160 of 10 ms", l)
	}
	// Whatever is cut, latency and classes are of all.
	if r, err = w.GetTop(ctx, &httpctlv1.GetTopRequest{Dimension: "status", Limit: 1}); err != nil {
		t.Fatal(err)
	}
	if l := r.Latency; len(r.Rows) != 1 || l == nil || l.Count != 240 || l.AverageNs != 40e6 || l.MaxNs != 100e6 || l.P50Ns < 99e5 || l.P50Ns > 101e5 {
		t.Errorf("%d rows, ttfb of all = %+v, want one, and 160 of 10 ms with 80 of 100 ms", len(r.Rows), l)
	}
	var classes []string
	for _, c := range r.Classes {
		classes = append(classes, fmt.Sprint(c.Name, " ", c.Value))
	}
	if want := []string{"2xx 160", "5xx 80"}; !slices.Equal(classes, want) {
		t.Errorf("classes = %v, want %v", classes, want)
	}
	if r, err = w.top("method"); err != nil || r.Latency != nil || r.Classes != nil {
		t.Errorf("methods have latency %v and classes %v (%v), want neither", r.Latency, r.Classes, err)
	}
}

// TestClassesSayWhatHadNoAnswer: the list of status codes counts responses, its classes how exchanges ended.
func TestClassesSayWhatHadNoAnswer(t *testing.T) {
	w := newWorld(t)
	w.put(made(t, storetest.Header(1, 0), 1000,
		hit{n: 6, domain: "a.example.org", path: "/", method: "GET", status: 200},
		hit{n: 4, domain: "a.example.org", path: "/", method: "GET", unanswered: true}))
	r, err := w.top("status")
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(r.Classes); r.Total != 6 || len(r.Classes) != 2 || r.Classes[0].Name != "-" || r.Classes[0].Value != 4 || r.Classes[1].Value != 6 {
		t.Errorf("%d responses, classes %s, want 6 and 4 without one", r.Total, got)
	}
}

func TestGetTopLimitAndBounds(t *testing.T) {
	w := newWorld(t)
	var hits []hit
	for i := range 30 {
		hits = append(hits, hit{n: 30 - i, domain: fmt.Sprintf("d%02d.example.org", i), path: "/", method: "GET", status: 200})
	}
	w.put(made(t, storetest.Header(1, 0), 20, hits...)) // total 465, ten keys too many
	r, err := w.GetTop(ctx, &httpctlv1.GetTopRequest{Dimension: "domain", Limit: 3})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Rows) != 3 || r.Rows[0].Cells[0].Number != 30 || r.Total != 465 {
		t.Errorf("top = %s, want 3 rows from 30 on, total 465", show(r))
	}
	sum := r.Other.Cells[0].Number
	for _, row := range r.Rows {
		sum += row.Cells[0].Number
	}
	if sum != r.Total {
		t.Errorf("rows + other = %d, total %d", sum, r.Total)
	}
	if r.Floor == 0 || r.Floor > 465/20*6 {
		t.Errorf("floor = %d, want above 0, as keys were folded, and not vague", r.Floor)
	}
	if r, err = w.GetTop(ctx, &httpctlv1.GetTopRequest{Dimension: "domain", Limit: ask.MaxRows}); err != nil || len(r.Rows) < 20 || maxLimit != ask.MaxRows {
		t.Errorf("all of a list are %d rows, %v, want 20 at least, and as many as are given", len(r.GetRows()), err)
	}
}

func TestGetTopRefuses(t *testing.T) {
	w := newWorld(t)
	w.traffic()
	many := make([]*httpctlv1.Filter, maxFilters+1)
	for i := range many {
		many[i] = &httpctlv1.Filter{Column: "role", Values: []string{"server"}}
	}
	filter := func(column string, values ...string) []*httpctlv1.Filter {
		return []*httpctlv1.Filter{{Column: column, Values: values}}
	}
	tests := []struct {
		name string
		r    *httpctlv1.GetTopRequest
		want string
	}{
		{"dimension, meant", &httpctlv1.GetTopRequest{Dimension: "sektion"}, `client_ip, routes; did you mean "section"?`},
		{"filter, meant", &httpctlv1.GetTopRequest{Dimension: "section", Filters: filter("sektion", "a")}, `domain, section; did you mean "section"?`},
		{"dimension", &httpctlv1.GetTopRequest{Dimension: "sektion"}, "there are: section, domain, user_agent, method, status, volume, server, client_ip, routes"},
		{"host", &httpctlv1.GetTopRequest{Dimension: "section", Filters: filter("host", "web9")}, "there are: hostb, hostc"},
		{"column", &httpctlv1.GetTopRequest{Dimension: "section", Filters: filter("status", "503")}, "it takes: host, mirror, role, domain, section; the top list routes takes"},
		{"status of requests", &httpctlv1.GetTopRequest{Dimension: "method", Filters: filter("status", "503")}, "cannot be filtered by status"},
		{"limit", &httpctlv1.GetTopRequest{Dimension: "section", Limit: maxLimit + 1}, "the most is 10000"},
		{"filters", &httpctlv1.GetTopRequest{Dimension: "section", Filters: many}, "the most is 16"},
		{"no value", &httpctlv1.GetTopRequest{Dimension: "section", Filters: filter("domain")}, "1 to 64 values"},
		{"long value", &httpctlv1.GetTopRequest{Dimension: "section", Filters: filter("domain", strings.Repeat("x", 5000))}, "5000 bytes"},
		{"backwards", &httpctlv1.GetTopRequest{Dimension: "section", Range: &httpctlv1.Range{SinceUnixNs: 20, UntilUnixNs: 10}}, "not before"},
		{"negative", &httpctlv1.GetTopRequest{Dimension: "section", Range: &httpctlv1.Range{SinceUnixNs: -20}}, "not negative"},
		{"future", &httpctlv1.GetTopRequest{Dimension: "section", Range: &httpctlv1.Range{SinceUnixNs: 1 << 62}}, "not before"},
	}
	for _, tt := range tests {
		_, err := w.GetTop(ctx, tt.r)
		if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want InvalidArgument with %q", tt.name, err, tt.want)
		}
	}
}

func TestGetTopRange(t *testing.T) {
	w := newWorld(t)
	w.traffic()
	r, err := w.GetTop(ctx, &httpctlv1.GetTopRequest{Dimension: "method",
		Range: &httpctlv1.Range{SinceUnixNs: storetest.At(2), UntilUnixNs: storetest.At(5)}})
	if err != nil || r.Total != 72 {
		t.Errorf("three intervals: total = %d, %v, want 72", r.GetTotal(), err)
	}
	// An hour begins with the minute, less than that as it is asked for.
	w.now = time.Unix(0, storetest.At(5)).Add(DefaultRange)
	if r, err = w.top("method"); err != nil || r.Total != 240 || r.Range.SinceUnixNs != storetest.At(0) || r.Range.UntilUnixNs != w.now.UnixNano() {
		t.Errorf("an hour later: total = %d of %v, %v, want 240", r.GetTotal(), r.GetRange(), err)
	}
	r, err = w.GetTop(ctx, &httpctlv1.GetTopRequest{Dimension: "method", Range: &httpctlv1.Range{SinceUnixNs: storetest.At(5), UntilUnixNs: storetest.At(5 + 359)}})
	if err != nil || r.Total != 120 || r.Range.SinceUnixNs != storetest.At(5) {
		t.Errorf("less than an hour: total = %d of %v, %v, want 120", r.GetTotal(), r.GetRange(), err)
	}
}

// live adds a provisional bucket of interval 10 of host 1, 4 s into it.
func (w *world) live() {
	h := storetest.Header(1, 10)
	h.Final = false
	w.now = time.Unix(0, storetest.At(10)).Add(4 * time.Second)
	b := made(w.t, h, 1000, hit{n: 6, domain: "new.example.org", path: "/", method: "PUT", status: 201})
	w.provisional = []Provisional{{b, w.now}}
}

func TestLive(t *testing.T) {
	w := newWorld(t)
	w.traffic()
	w.live()
	r, err := w.GetTop(ctx, &httpctlv1.GetTopRequest{Dimension: "domain", Live: true, Limit: 200})
	if want := "shop.example.org=160 api.example.org=80 new.example.org=6 other=0 total=246"; err != nil || show(r) != want {
		t.Errorf("live = %s, %v, want %s", show(r), err, want)
	}
	if _, err := w.GetTop(ctx, &httpctlv1.GetTopRequest{Dimension: "domain", Live: true, Limit: 1}); err != nil {
		t.Fatal(err)
	}
	if want := []int{200, liveRows}; !slices.Equal(w.watched, want) {
		t.Errorf("watched with rows %v, want %v: those asked for, and enough for a list to be exact", w.watched, want)
	}
	if r, err = w.top("domain"); err != nil || r.Total != 240 {
		t.Errorf("not live: total = %d, %v, want 240", r.Total, err)
	}
	r, err = w.GetTop(ctx, &httpctlv1.GetTopRequest{Dimension: "domain", Live: true,
		Filters: []*httpctlv1.Filter{{Column: "host", Values: []string{"hostc"}}}})
	if err != nil || r.Total != 170 {
		t.Errorf("live of another host: total = %d, %v, want 170", r.Total, err)
	}
}

// TestLiveTurnsFinal: a bucket that becomes final while the store is asked is
// not counted twice, whatever the store saw of it.
func TestLiveTurnsFinal(t *testing.T) {
	w := newWorld(t)
	w.traffic()
	w.live()
	w.Store = turning{w.Store, func() { w.provisional = nil }}
	r, err := w.GetTop(ctx, &httpctlv1.GetTopRequest{Dimension: "domain", Live: true})
	if err != nil || r.Total != 240 {
		t.Errorf("total = %d, %v, want the 240 of the store", r.Total, err)
	}
}

// turning is a store that does something while it is asked.
type turning struct {
	store.Store
	during func()
}

func (s turning) Query(ctx context.Context, p store.Plan) (*store.Answer, error) {
	a, err := s.Store.Query(ctx, p)
	s.during()
	return a, err
}

// TestLiveWindow: the window under way counts the interval under way, when live.
func TestLiveWindow(t *testing.T) {
	w := newWorld(t)
	w.traffic()
	w.live()
	p := w.provisional[0]
	w.status.WindowStart, w.status.WindowEnd, w.status.WindowRequests = p.Start-1, p.Start+1, 100
	check := func(what string, live bool, want uint64) {
		t.Helper()
		r, err := w.GetDashboard(ctx, &httpctlv1.GetDashboardRequest{Live: live})
		if err != nil || r.Status.Alert.WindowRequests != want {
			t.Errorf("%s: window has %d requests, %v, want %d", what, r.GetStatus().GetAlert().GetWindowRequests(), err, want)
		}
	}
	check("not live", false, 100)
	check("live", true, 106)
	w.status.WindowEnd = p.Start
	check("the interval under way is of the next window", true, 100)
}

// TestLiveHeader: the header's requests are those of the lists below it, and the
// average is over what is whole.
func TestLiveHeader(t *testing.T) {
	w := newWorld(t)
	w.traffic()
	w.live()
	var average float64
	for _, c := range []struct {
		live bool
		want uint64
	}{{false, 240}, {true, 246}} {
		r, err := w.GetDashboard(ctx, &httpctlv1.GetDashboardRequest{Live: c.live})
		if err != nil || r.Status.Requests != c.want {
			t.Fatalf("live %v: %d requests, %v, want %d", c.live, r.GetStatus().GetRequests(), err, c.want)
		}
		if average == 0 {
			average = r.Status.RateAverage
		} else if r.Status.RateAverage != average {
			t.Errorf("live: average %v, want %v as without", r.Status.RateAverage, average)
		}
	}
}

func TestGetStatus(t *testing.T) {
	w := newWorld(t)
	w.traffic()
	w.health[storetest.ID(2)] = Late
	w.agents = []Agent{{Host: storetest.ID(1), Name: "hostb", Version: "v1", Backlog: 3}, {Host: storetest.ID(7), Name: "fresh"}}
	w.health[storetest.ID(7)] = Late // its first bucket is not there yet
	w.Service.Deps.Warnings = func() []string { return []string{"careful"} }
	w.status = Status{Scope: "fleet", State: Normal, Baseline: 100, Limit: 110, ThresholdPercent: 10, WindowRequests: 7,
		Last: &Last{Requests: 99, End: 5, Incomplete: true}, Joined: []string{"hostc"}}
	r, err := w.GetStatus(ctx, &httpctlv1.GetStatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if r.Requests != 240 || r.RateAverage != 2.4 || r.RateNow != 2.4 || r.IntervalRequests != 24 || r.IntervalStartUnixNs != storetest.At(9) {
		t.Errorf("requests %d, average %v, now %v, interval %d at %d; want 240, 2.4, 2.4, 24 at %d",
			r.Requests, r.RateAverage, r.RateNow, r.IntervalRequests, r.IntervalStartUnixNs, storetest.At(9))
	}
	if r.Fleet.Reporting != 1 || r.Fleet.Late != 2 || r.Fleet.Gone != 0 {
		t.Errorf("fleet = %v, want 1 reporting, 2 late", r.Fleet)
	}
	// 10 x 3 drops, and 10 x 0.25 s rounded up.
	if len(r.Loss) != 2 || r.Loss[0].Name != "kernel_drops" || r.Loss[0].Value != 30 || r.Loss[1].Name != unobservedSeconds || r.Loss[1].Value != 3 {
		t.Errorf("loss = %v, want 30 kernel_drops, 3 %s", r.Loss, unobservedSeconds)
	}
	a := r.Alert
	if a.GetBaseline() != 100 || a.GetThresholdRequests() != 110 || a.State != httpctlv1.AlertState_ALERT_STATE_NORMAL ||
		a.GetLastRequests() != 99 || !a.LastIncomplete || a.WindowRequests != 7 {
		t.Errorf("alert = %v", a)
	}
	if !slices.Equal(r.Warnings, []string{"careful"}) {
		t.Errorf("warnings = %q", r.Warnings)
	}
	w.status = Status{State: Learning, Baseline: 1, Estimate: 42}
	if r, err = w.GetStatus(ctx, &httpctlv1.GetStatusRequest{}); err != nil || r.Alert.Baseline != nil || r.Alert.ThresholdRequests != nil || r.Alert.EstimatedBaseline != 42 {
		t.Errorf("learning: %v, %v, want no baseline and the estimate", r.GetAlert(), err)
	}
}

// TestGetStatusUnread: how many packets were read, and which connections left alone; in a live answer those of the interval under way, too.
func TestGetStatusUnread(t *testing.T) {
	w := newWorld(t)
	b := made(t, storetest.Header(1, 0), 1000)
	b.Counters[exchange.Packets], b.Counters[exchange.OtherTLS], b.Counters[exchange.KernelDrops] = 100, 3, 9
	w.put(b)
	w.live()
	w.provisional[0].Counters[exchange.Packets], w.provisional[0].Counters[exchange.OtherSSH] = 10, 1
	for _, c := range []struct {
		live    bool
		packets uint64
		want    string
	}{{false, 100, "tls 3"}, {true, 110, "tls 3, ssh 1"}} {
		r, err := w.GetDashboard(ctx, &httpctlv1.GetDashboardRequest{Live: c.live})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, n := range r.Status.OtherProtocols {
			got = append(got, fmt.Sprintf("%s %d", n.Name, n.Value))
		}
		if r.Status.Packets == nil || *r.Status.Packets != c.packets || strings.Join(got, ", ") != c.want {
			t.Errorf("live %v: %v packets, %q, want %d, %s", c.live, r.Status.Packets, got, c.packets, c.want)
		}
	}
}

func TestLiveRate(t *testing.T) {
	w := newWorld(t)
	w.traffic()
	w.health[storetest.ID(2)] = Gone
	w.live()
	r, err := w.GetStatus(ctx, &httpctlv1.GetStatusRequest{})
	if err != nil || r.RateNow != 1.5 || r.IntervalRequests != 6 || r.IntervalStartUnixNs != storetest.At(10) {
		t.Errorf("rate %v of %d at %d, %v; want 6 requests in 4 s", r.RateNow, r.IntervalRequests, r.IntervalStartUnixNs, err)
	}
	w.health[storetest.ID(2)] = Reporting // but silent: the last whole interval counts
	if r, err = w.GetStatus(ctx, &httpctlv1.GetStatusRequest{}); err != nil || r.RateNow != 2.4 {
		t.Errorf("rate = %v, %v, want 2.4 of the last whole interval", r.RateNow, err)
	}
	w.health[storetest.ID(2)] = Gone
	w.now = w.now.Add(8 * time.Second)
	if r, err = w.GetStatus(ctx, &httpctlv1.GetStatusRequest{}); err != nil || r.IntervalStartUnixNs == storetest.At(10) {
		t.Errorf("a stale provisional bucket still makes the rate")
	}
}

func TestGetDashboard(t *testing.T) {
	w := newWorld(t)
	w.traffic()
	min := int64(time.Minute)
	w.alerts = []Alert{
		{Scope: "fleet", Start: storetest.T0 - 3*60*min, End: storetest.T0 - 2*60*min, Entries: []AlertEntry{{Time: 1, Hits: 2, LateHits: 3, Incomplete: true}}},
		{Scope: "fleet", Start: storetest.T0},
		{Scope: "fleet", Start: storetest.T0 - 5*min, End: storetest.T0 - 4*min},
	}
	r, err := w.GetDashboard(ctx, &httpctlv1.GetDashboardRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, top := range r.Tops {
		names = append(names, top.Dimension.Name)
	}
	if !slices.Equal(names, builtinOrder) {
		t.Errorf("tops = %v, want %v", names, builtinOrder)
	}
	if len(r.RateHistory) != 10 || r.RateHistory[0] != 24 || r.RateHistory[9] != 24 {
		t.Errorf("rate history = %v, want 10 times 24", r.RateHistory)
	}
	if a := r.Alerts; len(a.Alerts) != 3 || a.Alerts[0].EndUnixNs != 0 || a.Alerts[0].State != httpctlv1.AlertState_ALERT_STATE_ALERT ||
		a.Alerts[2].State != httpctlv1.AlertState_ALERT_STATE_DISMISSED || a.MaxDurationNs != 60*min || a.AverageDurationNs != (60*min+min)/2 {
		t.Errorf("alerts = %v", a)
	}
	if len(r.Hosts) != 2 || r.Hosts[0].Requests != 120 || r.Hosts[1].Requests != 170 || len(r.Notes) != 0 {
		t.Errorf("hosts = %v, notes %q; want 120 and 170 requests and no note", r.Hosts, r.Notes)
	}

	r, err = w.GetDashboard(ctx, &httpctlv1.GetDashboardRequest{Filters: []*httpctlv1.Filter{
		{Column: "status", Values: []string{"5xx"}}, {Column: "host", Values: []string{"hostc"}}}})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, top := range r.Tops {
		got[top.Dimension.Name] = show(top)
	}
	want := map[string]string{
		"section": "api.example.org/v1=40 other=0 total=40",
		"domain":  "api.example.org=40 other=0 total=40",
		"method":  "POST=40 other=0 total=40",
		"status":  "503=40 other=0 total=40",
		"routes":  "api.example.org/v1|POST|503=40 other=0 total=40",
	}
	for name, text := range want {
		if got[name] != text {
			t.Errorf("filtered %s = %q, want %q", name, got[name], text)
		}
	}
	if len(got) != len(want) {
		t.Errorf("filtered dashboard has %v, want the keys of %v", got, want)
	}
	notes := strings.Join(r.Notes, "\n")
	for _, name := range []string{"user_agent", "volume", "server", "client_ip"} {
		if !strings.Contains(notes, name+": cannot be filtered by status") {
			t.Errorf("notes do not explain %s:\n%s", name, notes)
		}
	}
	if r.Status.Requests != 170 {
		t.Errorf("requests of hostc = %d, want 170", r.Status.Requests)
	}
}

// TestPlugin: the table of a statistic that nobody here knows is a dimension
// like any other, and comes after the built-in ones.
func TestPlugin(t *testing.T) {
	w := newWorld(t)
	w.traffic()
	table := bucket.NewTable(bucket.Schema{Name: "teapots", Version: 1, Keys: []string{"spout"},
		Measures: []bucket.Measure{{Name: "pours", Kind: bucket.Sum, Unit: "{pour}"}},
		Views: []bucket.View{
			{Name: "teapots", Title: "Teapots", By: []string{"spout"}, Hits: "pours"},
			{Name: "domain", Title: "A name that is taken", By: []string{"spout"}, Hits: "pours"}}}, 10)
	table.Add([]string{"left"}, []int64{4})
	h := storetest.Header(1, 11)
	h.Ordinal = 10
	w.now = w.now.Add(20 * time.Second)
	taken := bucket.NewTable(bucket.Schema{Name: "method", Version: 1, Keys: []string{"spout"}, Measures: table.Schema.Measures,
		Views: []bucket.View{{Name: "method", Title: "The name of a list that another table has", By: []string{"spout"}, Hits: "pours"}}}, 10)
	taken.Add([]string{"left"}, []int64{4})
	w.put(&bucket.Bucket{Header: h, Tables: []*bucket.Table{table, taken}})
	r, err := w.ListDimensions(ctx, &httpctlv1.ListDimensionsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, d := range r.Dimensions {
		names = append(names, d.Name)
	}
	if want := append(slices.Clone(builtinOrder), "method_method", "teapots", "teapots_domain"); !slices.Equal(names, want) {
		t.Errorf("dimensions = %v, want %v", names, want)
	}
	if r, err := w.top("teapots", "spout=l*"); err != nil || show(r) != "left=4 other=0 total=4" {
		t.Errorf("teapots = %v, %v", r, err)
	}
}

func TestListHostsAndBaseline(t *testing.T) {
	w := newWorld(t)
	w.traffic()
	w.agents = []Agent{{Host: storetest.ID(1), Name: "hostb", Version: "v1", Backlog: 3}}
	r, err := w.ListHosts(ctx, &httpctlv1.ListHostsRequest{})
	if err != nil || len(r.Hosts) != 2 {
		t.Fatalf("ListHosts = %v, %v", r, err)
	}
	h := r.Hosts[0]
	if h.Name != "hostb" || !h.Connected || h.Backlog != 3 || h.Version != "v1" ||
		h.Rate != 120/97.5 || // of 100 s, 2.5 s were not observed
		h.CoveredThroughUnixNs != storetest.At(10) || h.FirstSeenUnixNs != storetest.T0 || h.Id != storetest.ID(1).String() {
		t.Errorf("host = %v", h)
	}
	if r.Hosts[1].Connected {
		t.Error("hostc is not connected")
	}
	b, err := w.GetBaseline(ctx, &httpctlv1.GetBaselineRequest{})
	if err != nil || b.LearnedRequests != 3 || b.CoveredSeconds != 4 || b.Restarts != 5 || !slices.Equal(b.LearnedHosts, []string{"hostb"}) {
		t.Errorf("GetBaseline = %v, %v", b, err)
	}
	l, err := w.Relearn(ctx, &httpctlv1.RelearnRequest{})
	if err != nil || l.LearningEndUnixNs != w.now.Add(2*time.Minute).UnixNano() {
		t.Errorf("Relearn = %v, %v", l, err)
	}
}

// TestEmpty: everything answers before the first bucket.
func TestEmpty(t *testing.T) {
	w := newWorld(t)
	if r, err := w.GetDashboard(ctx, &httpctlv1.GetDashboardRequest{Live: true}); err != nil || len(r.Tops) != 0 || r.Status.RateNow != 0 {
		t.Errorf("GetDashboard = %v, %v", r, err)
	}
	if _, err := w.top("section"); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "before the first bucket") {
		t.Errorf("top = %v", err)
	}
	if _, err := w.top("section", "host=x"); err == nil {
		t.Error("top with an unknown host succeeded")
	}
	done, cancel := context.WithCancel(ctx)
	cancel()
	for range maxPerViewer {
		leave, err := w.enter(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer leave()
	}
	if _, err := w.GetStatus(done, &httpctlv1.GetStatusRequest{}); status.Code(err) != codes.Canceled {
		t.Errorf("GetStatus with all slots of its viewer taken = %v, want Canceled", err)
	}
}
