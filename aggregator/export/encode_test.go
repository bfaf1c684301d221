package export

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	metricsservice "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
	metricsv1 "go.opentelemetry.io/proto/otlp/metrics/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/httpctl/httpctl/pkg/exchange"
)

// busy is an Accumulator with much in it, of several hosts.
func busy(t *testing.T) *Accumulator {
	t.Helper()
	a := New(DefaultConfig(), began)
	r := rand.New(rand.NewPCG(4, 4))
	for i := range 4 {
		a.Add(began.Add(time.Second), digest(t, a, bucketOf(t, web, 50, draw(r, 300, 40))))
		a.Add(began.Add(2*time.Second), digest(t, a, bucketOf(t, [16]byte{byte(i + 2)}, 50, draw(r, 300, 40))))
	}
	return a
}

// flat are all values of families, as Prometheus names them.
func flat(list []Family) map[string]float64 {
	out := map[string]float64{}
	for _, f := range list {
		for _, p := range f.Points {
			labels := make([]string, len(p.Attributes))
			for i, a := range p.Attributes {
				labels[i] = label(a.Key) + "=" + a.Value
			}
			add := func(suffix string, v float64, more ...string) {
				all := slices.Sorted(slices.Values(append(slices.Clone(labels), more...)))
				out[f.Prometheus()+suffix+" "+strings.Join(all, " ")] = v
			}
			if p.Times == nil {
				add("", p.Value)
				continue
			}
			add("_count", float64(p.Times.Count))
			add("_sum", float64(p.Times.Sum)/1e9)
			below := uint64(0)
			for i, n := range p.Times.Buckets {
				below += n
				add("_bucket", float64(below), "le="+boundText[i])
			}
		}
	}
	return out
}

func compare(t *testing.T, got, want map[string]float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%d series, want %d", len(got), len(want))
	}
	for _, k := range slices.Sorted(maps.Keys(want)) {
		if v, ok := got[k]; !ok || v != want[k] {
			t.Fatalf("%s = %v, %v; want %v", k, v, ok, want[k])
		}
	}
}

// parts are the fields of a message, by number.
func parts(t *testing.T, data []byte) map[protowire.Number][][]byte {
	t.Helper()
	out := map[protowire.Number][][]byte{}
	for len(data) > 0 {
		n, kind, size := protowire.ConsumeTag(data)
		if size < 0 {
			t.Fatalf("no message: %q", data)
		}
		data = data[size:]
		value := protowire.ConsumeFieldValue(n, kind, data)
		if value < 0 {
			t.Fatalf("no message: %q", data)
		}
		field := data[:value]
		if kind == protowire.BytesType {
			field, _ = protowire.ConsumeBytes(data)
		}
		out[n] = append(out[n], field)
		data = data[value:]
	}
	return out
}

// TestRemoteWrite reads the messages with a decoder of its own: series, labels in order, samples, the zero with which a series begins.
func TestRemoteWrite(t *testing.T) {
	a := busy(t)
	now := began.Add(10 * time.Second)
	for _, since := range []time.Time{{}, began.Add(1500 * time.Millisecond), began.Add(5 * time.Second)} {
		got, zeros, points := map[string]float64{}, 0, 0
		requests := RemoteWrite(a.Snapshot(nil), now, since, "here")
		for i, r := range requests {
			if r.Begins && i > 0 && !requests[i-1].Begins {
				t.Fatal("a request with which series begin is after one with values")
			}
			body, err := snappy.Decode(nil, r.Body)
			if err != nil {
				t.Fatal(err)
			}
			samples := 0
			for _, series := range parts(t, body)[1] {
				m := parts(t, series)
				var labels []string
				name := ""
				for _, l := range m[1] {
					p := parts(t, l)
					labels = append(labels, string(p[1][0])+"="+string(p[2][0]))
				}
				if !slices.IsSortedFunc(labels, func(x, y string) int {
					return cmp.Compare(x[:strings.Index(x, "=")], y[:strings.Index(y, "=")])
				}) {
					t.Fatalf("labels %q are not in order", labels)
				}
				labels = slices.DeleteFunc(labels, func(l string) bool {
					if v, ok := strings.CutPrefix(l, "__name__="); ok {
						name = v
					}
					return l == "job=httpctl" || l == "instance=here" || strings.HasPrefix(l, "__name__=")
				})
				slices.Sort(labels)
				samples += len(m[2])
				key := name + " " + strings.Join(labels, " ")
				for _, s := range m[2] {
					p := parts(t, s)
					bits, _ := protowire.ConsumeFixed64(p[1][0])
					at, _ := protowire.ConsumeVarint(p[2][0])
					switch v := math.Float64frombits(bits); {
					case !r.Begins:
						if _, twice := got[key]; twice || int64(at) != now.UnixMilli() {
							t.Fatalf("sample at %d, want one at %d", at, now.UnixMilli())
						}
						got[key] = v
					case v != 0 || int64(at) > began.Add(2*time.Second).UnixMilli() || time.UnixMilli(int64(at)).Before(since):
						t.Fatalf("%s %q begins with %v at %d", name, labels, v, at)
					default:
						zeros++
					}
				}
			}
			if samples != r.Points || samples > maxSamples {
				t.Errorf("a request of %d samples says %d, want at most %d", samples, r.Points, maxSamples)
			}
			points += samples
		}
		want := flat(a.Snapshot(nil))
		compare(t, got, want)
		gauges := 5
		switch {
		case since.IsZero() && zeros != len(want)-gauges, since.After(began.Add(2*time.Second)) && zeros != 0, zeros == 0 && since.Before(began.Add(2*time.Second)):
			t.Errorf("since %v: %d series begin with 0, of %d", since, zeros, len(want))
		}
		if len(requests) < 3 {
			t.Errorf("%d requests, want several", len(requests))
		}
	}
}

// TestOTLP reads the messages with OpenTelemetry's own types.
func TestOTLP(t *testing.T) {
	a := busy(t)
	for i := range 60 { // more than fits into one request
		a.Add(began, digest(t, a, bucketOf(t, [16]byte{99, byte(i)}, 50, draw(rand.New(rand.NewPCG(4, uint64(i))), 60, 40))))
	}
	now := began.Add(10 * time.Second)
	got := map[string]float64{}
	requests := OTLP(a.Snapshot(nil), now, "here", "1.2")
	for _, r := range requests {
		var m metricsservice.ExportMetricsServiceRequest
		if err := proto.Unmarshal(r.Body, &m); err != nil {
			t.Fatal(err)
		}
		if len(m.ProtoReflect().GetUnknown()) > 0 || len(m.GetResourceMetrics()) != 1 || len(m.GetResourceMetrics()[0].GetScopeMetrics()) != 1 {
			t.Fatalf("request %v, want one resource and scope", &m)
		}
		resource := text(m.GetResourceMetrics()[0].GetResource().GetAttributes())
		if want := "service.instance.id=here service.name=httpctl service.version=1.2"; resource != want {
			t.Errorf("resource %q, want %q", resource, want)
		}
		points := 0
		for _, metric := range m.GetResourceMetrics()[0].GetScopeMetrics()[0].GetMetrics() {
			points += readOTLP(t, metric, now, got)
		}
		if points != r.Points || points > maxDataPoints {
			t.Errorf("a request of %d points says %d, want at most %d", points, r.Points, maxDataPoints)
		}
	}
	compare(t, got, flat(a.Snapshot(nil)))
	if len(requests) < 2 {
		t.Errorf("%d requests, want several", len(requests))
	}
}

func text(attributes []*commonv1.KeyValue) string {
	var out []string
	for _, a := range attributes {
		v := a.GetValue().GetStringValue()
		if a.GetKey() == "http.response.status_code" && v != Other {
			v = fmt.Sprint(a.GetValue().GetIntValue())
		}
		out = append(out, a.GetKey()+"="+v)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func readOTLP(t *testing.T, m *metricsv1.Metric, now time.Time, got map[string]float64) (points int) {
	t.Helper()
	const cumulative = metricsv1.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE
	i := slices.IndexFunc(Descriptions[:], func(d Description) bool { return d.Name == m.GetName() })
	if i < 0 || m.GetUnit() != Descriptions[i].Unit || m.GetDescription() != Descriptions[i].Help {
		t.Fatalf("metric %s %s is not described", m.GetName(), m.GetUnit())
	}
	name := Descriptions[i].Prometheus()
	labels := func(attributes []*commonv1.KeyValue, more ...string) string {
		list := strings.Fields(text(attributes))
		for i, l := range list {
			k, v, _ := strings.Cut(l, "=")
			list[i] = label(k) + "=" + v
		}
		return " " + strings.Join(slices.Sorted(slices.Values(append(list, more...))), " ")
	}
	check := func(start, at uint64) {
		if at != uint64(now.UnixNano()) || start < uint64(began.UnixNano()) || start >= at {
			t.Fatalf("%s is of %d to %d, want from the start to now", name, start, at)
		}
	}
	numbers := m.GetGauge().GetDataPoints()
	if s := m.GetSum(); s != nil {
		if !s.GetIsMonotonic() || s.GetAggregationTemporality() != cumulative {
			t.Fatalf("%s is not monotonic and cumulative", name)
		}
		for _, p := range s.GetDataPoints() {
			check(p.GetStartTimeUnixNano(), p.GetTimeUnixNano())
		}
		numbers = s.GetDataPoints()
	}
	for _, p := range numbers {
		got[name+labels(p.GetAttributes())] = p.GetAsDouble() + float64(p.GetAsInt())
	}
	for _, p := range m.GetHistogram().GetDataPoints() {
		check(p.GetStartTimeUnixNano(), p.GetTimeUnixNano())
		if m.GetHistogram().GetAggregationTemporality() != cumulative || len(p.GetExplicitBounds()) != len(Bounds) || p.GetExplicitBounds()[0] != 0.005 || p.GetExplicitBounds()[13] != 10 {
			t.Fatalf("%s is not cumulative, or has the bounds %v", name, p.GetExplicitBounds())
		}
		got[name+"_count"+labels(p.GetAttributes())], got[name+"_sum"+labels(p.GetAttributes())] = float64(p.GetCount()), p.GetSum()
		below := uint64(0)
		for i, n := range p.GetBucketCounts() {
			below += n
			got[name+"_bucket"+labels(p.GetAttributes(), "le="+boundText[i])] = float64(below)
		}
	}
	return len(numbers) + len(m.GetHistogram().GetDataPoints())
}

// TestReceivers: what is allowed, and what is not.
func TestReceivers(t *testing.T) {
	f := func(want string, change func(*Config)) {
		t.Helper()
		c := DefaultConfig()
		change(&c)
		err := c.Validate()
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("Validate = %v, want %q", err, want)
		}
	}
	rw := func(want string, r Receiver) {
		t.Helper()
		r.Every, r.MaxPending = cmp.Or(r.Every, 15*time.Second), cmp.Or(r.MaxPending, 16<<20)
		f(want, func(c *Config) { c.RemoteWrite = r })
	}
	otlp := func(want, url string) {
		t.Helper()
		f(want, func(c *Config) { c.OTLP.URL = url })
	}
	rw("", Receiver{URL: "http://127.0.0.1:9090/api/v1/write"})
	rw("", Receiver{URL: "http://localhost:9090/api/v1/write", BearerTokenFile: "/token"})
	rw("", Receiver{URL: "https://prometheus.example.org/api/v1/write", Username: "me", PasswordFile: "/password"})
	rw("remote_write.url", Receiver{URL: "http://prometheus.example.org/api/v1/write"})
	rw("", Receiver{URL: "http://prometheus.example.org/api/v1/write", PlainText: true})
	rw("remote_write.url", Receiver{URL: "http://prometheus.example.org/api/v1/write", PlainText: true, BearerTokenFile: "/token"})
	rw("remote_write.url", Receiver{URL: "https://me:secret@prometheus.example.org/"})
	rw("remote_write.url", Receiver{URL: "grpcs://prometheus.example.org"})
	rw("remote_write.url", Receiver{URL: "prometheus.example.org:9090"})
	rw("remote_write.username", Receiver{PasswordFile: "/password"})
	rw("remote_write.bearer_token_file", Receiver{Username: "me", PasswordFile: "/password", BearerTokenFile: "/token"})
	rw("remote_write.every", Receiver{Every: time.Millisecond})
	rw("remote_write.max_pending", Receiver{MaxPending: 1000})
	otlp("", "grpc://127.0.0.1:4317")
	otlp("", "grpcs://otel.example.org")
	otlp("", "https://otel.example.org:4318/v1/metrics")
	otlp("otlp.url", "grpc://otel.example.org:4317")
	otlp("otlp.url", "grpcs://otel.example.org:4317/path")
	otlp("otlp.url", "ftp://otel.example.org")
	f("instance", func(c *Config) { c.Instance = strings.Repeat("x", 300) })
}

// TestBeginsOnce: each series begins with 0 in one list of requests, whatever is counted while they are written, and a histogram begins when
// it has its first response time.
func TestBeginsOnce(t *testing.T) {
	a := New(DefaultConfig(), began)
	begin := func(list []Family, since time.Time) int {
		n := 0
		for _, r := range RemoteWrite(list, began.Add(time.Hour), since, "here") {
			if r.Begins {
				n += r.Points
			}
		}
		return n
	}
	a.Add(began.Add(2*time.Second), digest(t, a, bucketOf(t, web, 50, []seen{{domain: "a.example.org", method: "GET", up: 1, role: exchange.Server}})))
	// An answer whose response times were not told yet.
	d := digest(t, a, bucketOf(t, web, 50, []seen{{domain: "c.example.org", method: "GET", status: 200, ttfb: 1e6, up: 1, role: exchange.Server}}))
	for _, g := range d.groups {
		for _, o := range g.answers {
			o.times = Histogram{}
		}
	}
	a.Add(began.Add(2*time.Second), d)
	first := a.Snapshot(nil)
	since := Newest(first, time.Time{})
	// Another goroutine read the clock before, and comes after.
	a.Add(began.Add(time.Second), digest(t, a, bucketOf(t, web, 50, []seen{{domain: "b.example.org", method: "GET", up: 1, role: exchange.Server}})))
	a.Add(began.Add(3*time.Second), digest(t, a, bucketOf(t, web, 50, []seen{{domain: "a.example.org", method: "GET", status: 200, ttfb: 1e6, up: 1, role: exchange.Server}})))
	a.Add(began.Add(4*time.Second), one(t, a, web, "c.example.org"))
	second := a.Snapshot(nil)
	all, later := begin(first, time.Time{}), begin(second, since)
	if want := len(flat(second)) - 1; all+later != want { // but for the gauge of open exchanges
		t.Errorf("%d and %d series begin with 0, want %d in all", all, later, want)
	}
	if n := begin(second, Newest(second, since)); n != 0 {
		t.Errorf("%d series begin with 0 again", n)
	}
}

// TestLongNames: messages stay within what receivers take, however long names are, and each arrives.
func TestLongNames(t *testing.T) {
	a := New(DefaultConfig(), began)
	var list []seen
	for i := range 100 {
		for _, status := range []int{200, 301, 404, 500, 503} {
			list = append(list, seen{domain: fmt.Sprintf("%0*d.example.org", 4000, i), method: "GET", status: status, ttfb: 1e6, up: 1, down: 1, role: exchange.Server})
		}
	}
	a.Add(began, digest(t, a, bucketOf(t, web, 1000, list)))
	families := a.Snapshot(nil)
	points := 0
	for _, r := range OTLP(families, began.Add(time.Second), "here", "1") {
		if points += r.Points; len(r.Body) > maxBody+70<<10 {
			t.Errorf("a request of OTLP has %d bytes", len(r.Body))
		}
	}
	for _, f := range families {
		points -= len(f.Points)
	}
	samples := 0
	for _, r := range RemoteWrite(families, began.Add(time.Second), began, "here") {
		n, err := snappy.DecodedLen(r.Body)
		if samples += r.Points; err != nil || n > maxBody+70<<10 {
			t.Errorf("a request of remote write has %d bytes, %v", n, err)
		}
	}
	if points != 0 || samples != len(flat(families)) {
		t.Errorf("%d points of OTLP too many, and %d samples of remote write, want %d", points, samples, len(flat(families)))
	}
}
