package export

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/exchange"
	"github.com/httpctl/httpctl/pkg/sketch"
	"github.com/httpctl/httpctl/pkg/stat"
)

const start = int64(1_700_000_000) * 1e9

var (
	began = time.Unix(0, start)
	web   = bucket.ID{1}
)

// seen is one exchange as these tests draw it.
type seen struct {
	domain, method string
	status         int // 0: no response
	ttfb           int64
	up, down       uint64
	role           exchange.Role
	mirror         string
}

func (s *seen) exchange() *exchange.Exchange {
	x := &exchange.Exchange{
		Role: s.role, Mirror: s.mirror, Protocol: "http/1.1", Scheme: "http", HasRequest: true, HasResponse: s.status > 0,
		Method: s.method, Domain: s.domain, Section: s.domain + "/", Status: s.status,
		RequestStart: start, RequestHead: start, RequestEnd: start, RequestWireBytes: s.up, RequestBytes: s.up / 2,
	}
	if s.status > 0 {
		x.ResponseStart, x.ResponseEnd, x.ResponseWireBytes, x.ResponseBytes = start+s.ttfb, start+s.ttfb, s.down, s.down/2
	}
	return x
}

// bucketOf is what an agent makes of exchanges, but for the statistics without.
func bucketOf(t *testing.T, host bucket.ID, maxKeys int, list []seen, without ...string) *bucket.Bucket {
	t.Helper()
	b := &bucket.Bucket{Header: bucket.Header{
		Name: bucket.Name{Host: host, Incarnation: bucket.ID{9}, Start: start}, HostName: fmt.Sprintf("host-%d", host[0]), Width: 10 * time.Second, Final: true,
	}}
	for _, name := range []string{"totals", "section", "domain", "domain_bytes", "routes"} {
		m, err := stat.New(name)
		if err != nil {
			t.Fatal(err)
		}
		tables := []*bucket.Table{bucket.NewTable(m.Tables()[0], maxKeys)}
		for i := range list {
			x := list[i].exchange()
			m.Observe(&exchange.Observation{Event: exchange.RequestSeen, Time: start, Exchange: x}, tables)
			m.Observe(&exchange.Observation{Event: exchange.Outcome, Time: start, Exchange: x, NewRequestBytes: x.RequestBytes, NewRequestWireBytes: x.RequestWireBytes,
				NewResponseBytes: x.ResponseBytes, NewResponseWireBytes: x.ResponseWireBytes}, tables)
		}
		if !slices.Contains(without, name) {
			b.Tables = append(b.Tables, tables[0])
		}
	}
	b.Counters[exchange.Requests], b.Counters[exchange.Outcomes] = uint64(len(list)), uint64(len(list))
	b.Counters[exchange.KernelDrops] = 3
	return b
}

var spoiler []byte

// digest takes a bucket as the ingest service does, and spoils the memory that it borrowed.
func digest(t *testing.T, a *Accumulator, b *bucket.Bucket) *Digest {
	t.Helper()
	data, err := bucket.Encode(nil, b)
	if err != nil {
		t.Fatal(err)
	}
	var d bucket.Decoder
	decoded, err := d.Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	out := a.Digest(decoded)
	if spoiler == nil {
		if spoiler, err = bucket.Encode(nil, bucketOf(t, bucket.ID{8}, 1000, draw(rand.New(rand.NewPCG(9, 9)), 300, 100))); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.Decode(spoiler); err != nil {
		t.Fatal(err)
	}
	return out
}

func draw(r *rand.Rand, n, domains int) []seen {
	list := make([]seen, n)
	for i := range list {
		list[i] = seen{
			domain: fmt.Sprintf("site%d.example.org", int(float64(domains)*r.Float64()*r.Float64())),
			method: []string{"GET", "GET", "POST", "BREW"}[r.IntN(4)], status: []int{200, 200, 200, 404, 503, 0}[r.IntN(6)],
			ttfb: int64(r.ExpFloat64() * 200e6), up: 100 + r.Uint64N(100), down: r.Uint64N(9000), role: exchange.Server,
		}
		switch r.IntN(4) {
		case 0:
			list[i].role = exchange.Client
		case 1:
			list[i].role, list[i].mirror = exchange.Client, bucket.ID{7}.String()
		}
		if list[i].status == 0 {
			list[i].down = 0
		}
	}
	return list
}

// values sums the points of a family by some attributes.
func values(list []Family, name string, by ...string) map[string]float64 {
	out := map[string]float64{}
	for _, f := range list {
		if f.Prometheus() != name {
			continue
		}
		for _, p := range f.Points {
			var key []string
			for _, want := range by {
				i := slices.IndexFunc(p.Attributes, func(a Attribute) bool { return label(a.Key) == want })
				if i < 0 {
					key = append(key, "")
				} else {
					key = append(key, p.Attributes[i].Value)
				}
			}
			v := p.Value
			if p.Times != nil {
				v = float64(p.Times.Count)
			}
			out[strings.Join(key, " ")] += v
		}
	}
	return out
}

func equal(t *testing.T, what string, got, want map[string]float64) {
	t.Helper()
	if !maps.Equal(got, want) {
		t.Errorf("%s = %v, want %v", what, got, want)
	}
}

// expect compares what was counted with the exchanges themselves. exact: domains too, and not only sums.
func expect(t *testing.T, list []Family, all []seen, exact bool) {
	t.Helper()
	domains, methods, outcomes, up, down, answered := map[string]float64{}, map[string]float64{}, map[string]float64{}, map[string]float64{}, map[string]float64{}, map[string]float64{}
	for _, s := range all {
		side := s.role.String() + " 0"
		if s.mirror != "" {
			side = s.role.String() + " 1"
		}
		status, domain := "", ""
		if s.status > 0 {
			status = fmt.Sprint(s.status)
		}
		if exact {
			domain = " " + s.domain
		}
		domains[side+domain]++
		methods[side+" "+exchange.MethodAttribute(s.method)]++
		outcomes[side+" "+exchange.MethodAttribute(s.method)+" "+status+domain]++
		up[side+domain] += float64(s.up)
		if down[side+domain] += float64(s.down); s.status > 0 {
			answered[status+domain]++
		}
	}
	by := []string{"httpctl_role", "httpctl_mirror"}
	with := func(more ...string) []string {
		if exact {
			more = append(more, "server_address")
		}
		return more
	}
	equal(t, "requests", values(list, "httpctl_traffic_requests_total", with(by...)...), domains)
	equal(t, "requests by method", values(list, "httpctl_traffic_method_requests_total", append(by, "http_request_method")...), methods)
	equal(t, "outcomes", values(list, "httpctl_traffic_outcomes_total", with(append(by, "http_request_method", "http_response_status_code")...)...), outcomes)
	equal(t, "upload", values(list, "httpctl_traffic_request_wire_bytes_total", with(by...)...), up)
	equal(t, "download", values(list, "httpctl_traffic_response_wire_bytes_total", with(by...)...), down)
	times := values(list, "http_server_request_duration_seconds", with("http_response_status_code")...)
	for k, v := range values(list, "http_client_request_duration_seconds", with("http_response_status_code")...) {
		times[k] += v
	}
	equal(t, "response times", times, answered)
}

// TestCounts adds up buckets of two hosts, whole and folded, and compares with what was in them.
func TestCounts(t *testing.T) {
	for _, maxKeys := range []int{1000, 8} {
		t.Run(fmt.Sprint("max_keys=", maxKeys), func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, uint64(maxKeys)))
			a := New(DefaultConfig(), began)
			var all []seen
			for i := range 8 {
				list := draw(r, 200, 30)
				all = append(all, list...)
				a.Add(began.Add(time.Duration(i)*time.Second), digest(t, a, bucketOf(t, bucket.ID{byte(1 + i%2)}, maxKeys, list)))
			}
			list := a.Snapshot(nil)
			expect(t, list, all, maxKeys == 1000)
			equal(t, "losses", values(list, "httpctl_traffic_losses_total", "host_name", "reason"), func() map[string]float64 {
				want := map[string]float64{}
				for c := range exchange.NumCounters {
					for _, host := range []string{"host-1 ", "host-2 "} {
						if c.Loss() {
							want[host+c.String()] = 0
						}
						if c == exchange.KernelDrops {
							want[host+c.String()] = 12
						}
					}
				}
				return want
			}())
			if s := a.Stats(); s.Buckets != 8 || s.Hosts != 2 || s.FoldedRows > 0 || s.FoldedDomains > 0 {
				t.Errorf("Stats = %+v, want 8 buckets of 2 hosts and nothing folded", s)
			}
		})
	}
}

// TestHistogram compares the buckets of a histogram with the durations themselves.
func TestHistogram(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	list := draw(r, 3000, 3)
	a := New(DefaultConfig(), began)
	a.Add(began, digest(t, a, bucketOf(t, web, 2, list))) // most of it folded
	var got Histogram
	for _, f := range a.Snapshot(nil) {
		for _, p := range f.Points {
			if p.Times != nil {
				got.add(p.Times)
			}
		}
	}
	var all sketch.Latency
	var want Histogram
	for _, s := range list {
		if s.status > 0 {
			all.Add(s.ttfb)
			want.Count++
			want.Sum += uint64(s.ttfb)
			i, _ := slices.BinarySearch(Bounds[:], s.ttfb)
			want.Buckets[i]++
		}
	}
	if got.Count != want.Count || got.Sum != want.Sum {
		t.Errorf("count and sum are %d and %d ns, want %d and %d", got.Count, got.Sum, want.Count, want.Sum)
	}
	// What is within 1% of a bound may be on the other side of it.
	var near, total uint64
	for i, n := range got.Buckets {
		total += n
		near += max(n, want.Buckets[i]) - min(n, want.Buckets[i])
	}
	if total != want.Count || near > want.Count/20 {
		t.Errorf("buckets %v add up to %d, want %d as in %v", got.Buckets, total, want.Count, want.Buckets)
	}
}

// TestWithoutStatistics counts as much as there is to count when agents leave statistics out.
func TestWithoutStatistics(t *testing.T) {
	list := draw(rand.New(rand.NewPCG(5, 5)), 500, 20)
	for _, without := range [][]string{{"totals"}, {"domain"}, {"routes"}, {"domain_bytes"}, {"totals", "domain", "routes", "domain_bytes"}} {
		for _, maxKeys := range []int{1000, 5} {
			a := New(DefaultConfig(), began)
			a.Add(began, digest(t, a, bucketOf(t, web, maxKeys, list, without...)))
			for _, name := range []string{"httpctl_traffic_requests_total", "httpctl_traffic_outcomes_total"} {
				if got := values(a.Snapshot(nil), name)[""]; got != float64(len(list)) {
					t.Errorf("without %v, of %d rows: %s = %v, want %d", without, maxKeys, name, got, len(list))
				}
			}
		}
	}
}

// one is a bucket with a request to each domain.
func one(t *testing.T, a *Accumulator, host bucket.ID, domains ...string) *Digest {
	t.Helper()
	var list []seen
	for _, d := range domains {
		list = append(list, seen{domain: d, method: "GET", status: 200, ttfb: 1e6, role: exchange.Server})
	}
	return digest(t, a, bucketOf(t, host, 1000, list))
}

// TestMaxDomains: the first domains have a place, the others count under _OTHER until one was idle for an hour.
func TestMaxDomains(t *testing.T) {
	cfg := DefaultConfig()
	cfg.MaxDomains = 2
	a := New(cfg, began)
	want := func(what string, want map[string]float64) {
		t.Helper()
		equal(t, what, values(a.Snapshot(nil), "httpctl_traffic_requests_total", "server_address"), want)
		equal(t, what+", outcomes", values(a.Snapshot(nil), "httpctl_traffic_outcomes_total", "server_address"), want)
	}
	a.Add(began, one(t, a, web, "a.example.org", "a.example.org", "b.example.org"))
	a.Add(began, one(t, a, web, "c.example.org", "a.example.org"))
	want("three domains", map[string]float64{"a.example.org": 3, "b.example.org": 1, Other: 1})
	a.Add(began.Add(idleAfter-1), one(t, a, web, "a.example.org", "c.example.org"))
	want("nearly an hour later", map[string]float64{"a.example.org": 4, "b.example.org": 1, Other: 2})
	a.Add(began.Add(idleAfter), one(t, a, web, "c.example.org"))
	want("b was idle for an hour", map[string]float64{"a.example.org": 4, "c.example.org": 1, Other: 2})
	// One bucket with more domains than places keeps those that have one, else the largest.
	a = New(cfg, began)
	a.Add(began, one(t, a, web, "small.example.org"))
	a.Add(began, one(t, a, web, "a.example.org", "b.example.org", "b.example.org", "c.example.org", "small.example.org"))
	want("more at once than places", map[string]float64{"small.example.org": 2, "b.example.org": 2, Other: 2})
	if s := a.Stats(); s.Domains != 2 {
		t.Errorf("Stats = %+v, want 2 domains", s)
	}
}

// TestMaxHosts: hosts without a place count together, and nothing is lost.
func TestMaxHosts(t *testing.T) {
	cfg := DefaultConfig()
	cfg.MaxHosts = 1
	a := New(cfg, began)
	of := func() map[string]float64 {
		return values(a.Snapshot(nil), "httpctl_traffic_requests_total", "host_name")
	}
	a.Add(began, one(t, a, bucket.ID{1}, "a.example.org"), one(t, a, bucket.ID{2}, "a.example.org"))
	equal(t, "two hosts", of(), map[string]float64{"host-1": 1, Other: 1})
	a.Add(began.Add(idleAfter), one(t, a, bucket.ID{2}, "a.example.org"))
	equal(t, "the first was idle for an hour", of(), map[string]float64{"host-2": 1, Other: 1})
	cfg.MaxHosts = 0
	a = New(cfg, began)
	a.Add(began, one(t, a, bucket.ID{1}, "a.example.org"), one(t, a, bucket.ID{2}, "a.example.org"))
	equal(t, "no host by name", of(), map[string]float64{"": 2})
}

// TestOtherHostsBegin: what is counted of hosts without a place begins when the first of them comes, not when the aggregator was started,
// so that its 0 is told.
func TestOtherHostsBegin(t *testing.T) {
	cfg := DefaultConfig()
	cfg.MaxHosts = 1
	a := New(cfg, began)
	a.Add(began.Add(time.Minute), one(t, a, web, "a.example.org"))
	second := began.Add(2 * time.Minute)
	a.Add(second, one(t, a, bucket.ID{2}, "b.example.org"))
	a.Add(began.Add(3*time.Minute), one(t, a, bucket.ID{3}, "c.example.org"))
	points := 0
	for _, f := range a.Snapshot(nil) {
		for _, p := range f.Points {
			if slices.Contains(p.Attributes, Attribute{attrHostID, Other}) {
				points++
				if p.Start.Before(second) {
					t.Errorf("%s %v begins at %v, before anything was counted there", f.Name, p.Attributes, p.Start)
				}
			}
		}
	}
	if points == 0 {
		t.Error("nothing is counted of hosts without a place")
	}
}

// TestMaxRows: whatever names, methods and statuses come, rows stay within the bound, and all is counted.
func TestMaxRows(t *testing.T) {
	cfg := DefaultConfig()
	cfg.MaxRows = 100
	a := New(cfg, began)
	r := rand.New(rand.NewPCG(6, 6))
	n := 0
	for i := range 20 {
		list := draw(r, 200, 100)
		for k := range list {
			list[k].status = 100 + r.IntN(500)
		}
		n += len(list)
		a.Add(began, digest(t, a, bucketOf(t, bucket.ID{byte(1 + i)}, 1000, list)))
		if s := a.Stats(); s.Rows > cfg.MaxRows+6*3 {
			t.Fatalf("%d rows, want at most %d and those of _OTHER", s.Rows, cfg.MaxRows)
		}
	}
	list := a.Snapshot(nil)
	for _, name := range []string{"httpctl_traffic_requests_total", "httpctl_traffic_method_requests_total", "httpctl_traffic_outcomes_total"} {
		if got := values(list, name)[""]; got != float64(n) {
			t.Errorf("%s = %v, want %d", name, got, n)
		}
	}
	rows := 0
	for _, f := range list {
		if f.Prometheus() == "httpctl_traffic_outcomes_total" {
			rows = len(f.Points)
		}
	}
	if s := a.Stats(); s.FoldedRows == 0 || rows > 2*cfg.MaxRows {
		t.Errorf("%d rows of outcomes, %+v: want at most %d, and the others folded", rows, s, 2*cfg.MaxRows)
	}
}

// TestOneServersStatuses: a server that answers with all numbers there are takes no more rows than others.
func TestOneServersStatuses(t *testing.T) {
	a := New(DefaultConfig(), began)
	var list []seen
	for status := 100; status < 1000; status++ {
		list = append(list, seen{domain: "a.example.org", method: "GET", status: status, role: exchange.Server})
	}
	a.Add(began, digest(t, a, bucketOf(t, web, 1000, list)))
	got := values(a.Snapshot(nil), "httpctl_traffic_outcomes_total", "http_response_status_code")
	sum := 0.0
	for _, v := range got {
		sum += v
	}
	if len(got) > maxAnswers+1 || sum != 900 {
		t.Errorf("%d statuses with %v outcomes, want at most %d with 900", len(got), sum, maxAnswers+1)
	}
}

// TestHostStates: gauges say how far hosts have come.
func TestHostStates(t *testing.T) {
	a := New(DefaultConfig(), began)
	a.Add(began, one(t, a, bucket.ID{1}, "a.example.org"))
	list := a.Snapshot([]HostState{{ID: bucket.ID{1}, Name: "host-1", CoveredThrough: 5e9, State: "reporting"}, {ID: bucket.ID{2}, Name: "old", State: "gone"}})
	equal(t, "hosts", values(list, "httpctl_traffic_hosts", "state"), map[string]float64{"reporting": 1, "late": 0, "gone": 1})
	equal(t, "covered", values(list, "httpctl_traffic_covered_timestamp_seconds", "host_name"), map[string]float64{"host-1": 5})
}

// TestUnobservedNeverFalls: spans of a hostile host, however long and many, end at the most that can be counted.
func TestUnobservedNeverFalls(t *testing.T) {
	a := New(DefaultConfig(), began)
	b := bucketOf(t, web, 1000, nil)
	last := 0.0
	for i := range 4 {
		b.Unobserved = []bucket.Span{{From: math.MinInt64, To: 1 << 62}, {From: 0, To: 1 << 62}, {From: 0, To: 1 << 62}}
		a.Add(began, a.Digest(b))
		for _, v := range values(a.Snapshot(nil), "httpctl_traffic_unobserved_seconds_total") {
			if v < last || v < 1e9 {
				t.Errorf("after %d buckets %v seconds are unobserved, %v before", i+1, v, last)
			}
			last = v
		}
	}
	if last == 0 {
		t.Error("nothing is unobserved")
	}
}
