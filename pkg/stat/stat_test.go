package stat

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/exchange"
)

const start = int64(1_700_000_000) * 1e9

// set is every built-in statistic with its tables.
type set struct {
	modules []Module
	tables  [][]*bucket.Table
}

func newSet(tb testing.TB, maxKeys int) *set {
	s := &set{}
	for _, n := range Builtin {
		m, err := New(n)
		if err != nil {
			tb.Fatal(err)
		}
		var tables []*bucket.Table
		for _, schema := range m.Tables() {
			if err := schema.Validate(); err != nil {
				tb.Fatal(err)
			}
			tables = append(tables, bucket.NewTable(schema, maxKeys))
		}
		s.modules = append(s.modules, m)
		s.tables = append(s.tables, tables)
	}
	return s
}

func (s *set) Observe(o *exchange.Observation) {
	for i, m := range s.modules {
		m.Observe(o, s.tables[i])
	}
}

func (s *set) bucket() *bucket.Bucket {
	b := &bucket.Bucket{Header: bucket.Header{
		Name: bucket.Name{Host: bucket.ID{1}, Incarnation: bucket.ID{2}, Start: start}, HostName: "web-1",
		Width: 10 * time.Second, Final: true, ClosedThrough: start + 1e10,
	}}
	for _, t := range s.tables {
		b.Tables = append(b.Tables, t...)
	}
	return b
}

func (s *set) table(name string) *bucket.Table { return s.bucket().Table(name) }

// exchanges draws n exchanges with the skew that web traffic has: few
// sections, agents and servers make most of it.
func exchanges(r *rand.Rand, n int) []*exchange.Exchange {
	zipf := rand.NewZipf(r, 1.2, 1, 150)
	agents := rand.NewZipf(r, 1.3, 1, 60)
	list := make([]*exchange.Exchange, n)
	for i := range list {
		site := int(zipf.Uint64())
		x := &exchange.Exchange{
			Client: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(agents.Uint64() * 3)}), 40000),
			Server: netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(site % 5)}), 80),
			Role:   exchange.Server, Protocol: "http/1.1", Scheme: "http",
			HasRequest: r.IntN(200) > 0, HasResponse: r.IntN(100) > 0,
			RequestWireBytes: 300 + r.Uint64N(400), ResponseWireBytes: 200 + r.Uint64N(20000),
		}
		x.RequestStart = start + r.Int64N(9e9)
		x.RequestHead, x.RequestEnd = x.RequestStart, x.RequestStart
		if x.HasRequest {
			x.Method = []string{"GET", "GET", "GET", "GET", "POST", "PUT", "BREW"}[r.IntN(7)]
			x.Domain = fmt.Sprintf("site%d.example.org", site%20)
			x.Section = fmt.Sprintf("%s/section%d", x.Domain, site)
			if a := agents.Uint64(); a > 0 {
				x.UserAgent = fmt.Sprintf("Mozilla/5.0 (X11; Linux x86_64; rv:%d.0) Gecko/20100101 Firefox/%d.0", a+90, a+90)
			}
			x.RequestBytes = r.Uint64N(200)
		} else {
			x.HasResponse, x.RequestWireBytes, x.RequestStart, x.RequestEnd = true, 0, 0, 0
		}
		if x.HasResponse {
			x.Status = []int{200, 200, 200, 200, 200, 200, 304, 404, 302, 500}[r.IntN(10)]
			x.ResponseStart = start + r.Int64N(9e9)
			if x.HasRequest {
				x.ResponseStart = x.RequestEnd + int64(r.ExpFloat64()*20e6)
			}
			x.ResponseEnd = x.ResponseStart + r.Int64N(1e7)
			x.ResponseBytes = x.ResponseWireBytes - 150
		} else {
			x.ResponseWireBytes = 0
		}
		list[i] = x
	}
	return list
}

// play shows o the events of x, one of them Progress for some.
func play(s exchange.Sink, x *exchange.Exchange, progress bool) {
	if x.HasRequest {
		half := *x
		half.HasResponse, half.Status = false, 0
		s.Observe(&exchange.Observation{Event: exchange.RequestSeen, Time: x.RequestHead, Exchange: &half})
	}
	o := exchange.Observation{
		Event: exchange.Outcome, Time: max(x.ResponseEnd, x.RequestEnd), Exchange: x,
		NewRequestBytes: x.RequestBytes, NewRequestWireBytes: x.RequestWireBytes,
		NewResponseBytes: x.ResponseBytes, NewResponseWireBytes: x.ResponseWireBytes,
	}
	if progress {
		first := o
		first.Event = exchange.Progress
		first.NewRequestBytes, first.NewRequestWireBytes = 0, x.RequestWireBytes/2
		first.NewResponseBytes, first.NewResponseWireBytes = x.ResponseBytes/3, x.ResponseWireBytes/3
		s.Observe(&first)
		o.NewRequestWireBytes -= first.NewRequestWireBytes
		o.NewResponseBytes -= first.NewResponseBytes
		o.NewResponseWireBytes -= first.NewResponseWireBytes
	}
	s.Observe(&o)
}

// TestConservation: what went in is what the tables say, to the unit, with
// and without folding.
func TestConservation(t *testing.T) {
	for _, maxKeys := range []int{1000, 7} {
		r := rand.New(rand.NewPCG(1, 2))
		s := newSet(t, maxKeys)
		var requests, responses, outcomes, matched, up, down, requestUp, requestDown, lonely, alone, answered int64
		for _, x := range exchanges(r, 3000) {
			play(s, x, r.IntN(10) == 0)
			outcomes++
			up += int64(x.RequestWireBytes)
			down += int64(x.ResponseWireBytes)
			if x.HasRequest {
				requests++
				requestUp += int64(x.RequestWireBytes)
				requestDown += int64(x.ResponseWireBytes)
			}
			if x.HasResponse {
				responses++
			}
			switch x.Unmatched() {
			case "request":
				lonely++
			case "response":
				alone++
			case "":
				matched++
			}
			if _, _, ok := x.TTFB(); ok {
				answered++
			}
		}
		for _, c := range []struct {
			table, measure string
			want           int64
		}{
			{"totals", TotalRequests, requests}, {"totals", TotalResponses, responses}, {"totals", TotalOutcomes, outcomes},
			{"totals", TotalUnmatchedRequests, lonely}, {"totals", TotalUnmatchedResponses, alone},
			{"totals", TotalRequestWireBytes, up}, {"totals", TotalResponseWireBytes, down},
			{"section", MeasureHits, requests}, {"section", MeasureBytes, requestUp + requestDown},
			{"domain", MeasureHits, requests}, {"user_agent", MeasureHits, requests}, {"client_ip", MeasureHits, requests},
			{"domain_bytes", "volume", up + down}, {"domain_bytes", "upload", up}, {"domain_bytes", "download", down},
			{"domain_bytes", MeasureHits, requests},
			{"server", MeasureHits, responses}, {"server", MeasureBytes, up + down},
			{"routes", MeasureHits, outcomes}, {"routes", MeasureBytes, up + down},
		} {
			table := s.table(c.table)
			if got := table.Total(table.Schema.Measure(c.measure)); got != c.want {
				t.Errorf("max_keys %d: %s of %s = %d, want %d", maxKeys, c.measure, c.table, got, c.want)
			}
		}
		if requests+alone != outcomes || matched+lonely+alone != outcomes {
			t.Errorf("requests %d + responses alone %d != outcomes %d", requests, alone, outcomes)
		}
		for _, name := range []string{"totals", "server", "routes"} {
			table := s.table(name)
			n := uint64(0)
			for _, row := range append(slices.Clone(table.Rows), &table.Other) {
				if l := row.Latency[0]; l != nil {
					n += l.Count
				}
			}
			if n != uint64(answered) {
				t.Errorf("max_keys %d: %s has %d latencies, want %d", maxKeys, name, n, answered)
			}
		}
	}
}

func TestKeys(t *testing.T) {
	s := newSet(t, 10)
	x := exchanges(rand.New(rand.NewPCG(1, 1)), 1)[0]
	*x = exchange.Exchange{
		Client: netip.MustParseAddrPort("[::ffff:192.0.2.9]:4000"), Server: netip.MustParseAddrPort("[2001:db8::1]:8080"),
		Role: exchange.Client, Mirror: "0b", HasRequest: true, HasResponse: true, Method: "BREW",
		Domain: "example.org", Section: "example.org/a", Status: 418,
		RequestHead: start + 1_234_567, RequestEnd: start, ResponseStart: start + 5e6, ResponseEnd: start + 7_654_321,
	}
	play(s, x, false)
	for table, want := range map[string][]string{
		"totals": {"0b client _OTHER -", "0b client _OTHER 418"}, "section": {"0b client example.org example.org/a"},
		"domain": {"0b client example.org"}, "domain_bytes": {"0b client example.org"},
		"user_agent": {"0b client -"}, "client_ip": {"0b client 192.0.2.9"}, "server": {"0b client [2001:db8::1]:8080"},
		"routes": {"0b client example.org example.org/a _OTHER 418"},
	} {
		var got []string
		for _, r := range s.table(table).Rows {
			got = append(got, strings.Join(r.Keys, " "))
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s: rows %q, want %q", table, got, want)
		}
	}
	domain := s.table("domain")
	if got, want := domain.Rows[0].Values[2], start+7_000_000; got != want {
		t.Errorf("last_seen = %d, want %d: whole milliseconds", got, want)
	}
	if got := s.table("server").Rows[0].Latency[0].Quantile(0.5); got != 5e6 {
		t.Errorf("median ttfb = %d, want 5ms", got)
	}
}

func TestViewsAreUnique(t *testing.T) {
	views := map[string]string{}
	for _, table := range newSet(t, 1).bucket().Tables {
		for _, v := range table.Schema.Views {
			if views[v.Name] != "" {
				t.Errorf("view %s is in %s and %s", v.Name, views[v.Name], table.Schema.Name)
			}
			views[v.Name] = table.Schema.Name
		}
	}
	for _, want := range []string{"section", "domain", "user_agent", "method", "status", "volume", "server", "client_ip", "routes"} {
		if views[want] == "" {
			t.Errorf("no view %s", want)
		}
	}
}

func TestObserveDoesNotAllocate(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	s, list := newSet(t, 1000), exchanges(r, 500)
	for _, x := range list {
		play(s, x, false)
	}
	var o exchange.Observation
	i := 0
	if n := testing.AllocsPerRun(2000, func() {
		for e := exchange.RequestSeen; e <= exchange.Outcome; e++ {
			o = exchange.Observation{Event: e, Time: start, Exchange: list[i%len(list)]}
			s.Observe(&o)
		}
		i++
	}); n != 0 {
		t.Errorf("Observe allocates %v times, want 0", n)
	}
}

func TestTextsAreBounded(t *testing.T) {
	var names texts[int]
	for i := range 3 * maxTexts {
		if got := names.of(i, func(i int) string { return fmt.Sprint(i) }); got != fmt.Sprint(i) {
			t.Fatalf("of(%d) = %s", i, got)
		}
	}
	if len(names.known) > maxTexts {
		t.Errorf("%d texts kept, want at most %d", len(names.known), maxTexts)
	}
}

func TestRegister(t *testing.T) {
	for _, n := range Builtin {
		if !slices.Contains(Names(), n) {
			t.Errorf("%s is built in and not registered", n)
		}
	}
	if _, err := New("nope"); err == nil || !strings.Contains(err.Error(), "totals") {
		t.Errorf("New(nope) = %v, want an error that lists what there is", err)
	}
	defer func() {
		if recover() == nil {
			t.Error("registering a name twice did not panic")
		}
	}()
	Register("totals", func() Module { return new(totals) })
}

// BenchmarkBucketSize says how many bytes a bucket takes (DESIGN section 10).
func BenchmarkBucketSize(b *testing.B) {
	for _, n := range []int{1000, 20_000} {
		b.Run(fmt.Sprintf("exchanges=%d", n), func(b *testing.B) {
			r := rand.New(rand.NewPCG(3, 3))
			s := newSet(b, 1000)
			for _, x := range exchanges(r, n) {
				play(s, x, false)
			}
			full := s.bucket()
			rows := 0
			for _, t := range full.Tables {
				rows += len(t.Rows)
			}
			var data []byte
			for b.Loop() {
				var err error
				if data, err = bucket.Encode(data[:0], full); err != nil {
					b.Fatal(err)
				}
			}
			if back, err := bucket.Decode(bytes.Clone(data)); err != nil || len(back.Tables) != len(full.Tables) {
				b.Fatal(err)
			}
			b.ReportMetric(float64(len(data)), "bytes/bucket")
			b.ReportMetric(float64(rows), "rows")
		})
	}
}

func BenchmarkObserve(b *testing.B) {
	r := rand.New(rand.NewPCG(4, 4))
	s, list := newSet(b, 1000), exchanges(r, 5000)
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		play(s, list[i%len(list)], false)
		i++
	}
}
