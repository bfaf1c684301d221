package test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	client "github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"

	"github.com/httpctl/httpctl/aggregator/export"
	"github.com/httpctl/httpctl/aggregator/export/push"
	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/exchange"
	"github.com/httpctl/httpctl/pkg/stat"
	"github.com/httpctl/httpctl/pkg/testkit"
)

// collectorDir is where it is, once somebody asked for it; TestMain removes it.
var collectorDir string

// collectorProgram compiles the OpenTelemetry Collector in test/receivers once. The error is noModules when what it is made of is not to be had.
var collectorProgram = sync.OnceValues(func() (path string, err error) {
	dir, err := os.MkdirTemp("", "httpctl-collector-")
	if err != nil {
		return "", err
	}
	collectorDir = dir
	run := func(args ...string) error {
		cmd := exec.Command("go", args...)
		cmd.Dir = "receivers"
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=readonly", "GOWORK=off")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("go %s in test/receivers: %w\n%s", args[0], err, out)
		}
		return nil
	}
	if err := run("list", "-deps", "./collector"); err != nil {
		return dir, noModules{err}
	}
	return filepath.Join(dir, "collector"), run("build", "-ldflags=-s -w", "-o", dir+"/", "./collector")
})

type noModules struct{ error }

// collector is a real OpenTelemetry Collector, with a page for Prometheus of all that it took.
type collector struct {
	grpc, http, page, record string
	flags                    []string
	process                  *background
}

// startCollector runs one. tls, if it is not empty, is a certificate and its key, without extension.
func startCollector(t *testing.T, tls string) *collector {
	t.Helper()
	if _, err := collectorProgram(); err != nil {
		if _, ok := err.(noModules); ok {
			t.Skipf("needs the modules of test/receivers: %v", err)
		}
		t.Fatal(err)
	}
	c := &collector{grpc: freePort(t), http: freePort(t), page: freePort(t), record: filepath.Join(t.TempDir(), "record")}
	c.flags = []string{"-grpc", c.grpc, "-http", c.http, "-page", c.page, "-record", c.record}
	if tls != "" {
		c.flags = append(c.flags, "-cert", tls+".pem", "-key", tls+".key")
	}
	c.start(t, 1000)
	return c
}

// start runs the collector with a limit of its memory, in MiB. Below what it needs itself it refuses all.
func (c *collector) start(t *testing.T, limit int) {
	t.Helper()
	path, _ := collectorProgram()
	c.process = launchCommand(t, exec.Command(path, append(c.flags, "-limit", strconv.Itoa(limit))...))
	eventually(t, "the collector serves its page", func() error {
		response, err := http.Get("http://" + c.page)
		if err == nil {
			_ = response.Body.Close()
		}
		return err
	})
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the collector said\n%s", c.process.out.String())
		}
	})
}

var (
	lineOfPage  = regexp.MustCompile(`(?m)^([a-z_]+)(?:\{(.*)\})? (\S+)$`)
	labelOfPage = regexp.MustCompile(`(\w+)="((?:[^"\\]|\\.)*)"`)
)

// seriesOf are those of a page for Prometheus: by name and labels.
func seriesOf(text string) []point {
	var out []point
	for _, m := range lineOfPage.FindAllStringSubmatch(text, -1) {
		p := point{m[1], map[string]string{}, 0}
		p.value, _ = strconv.ParseFloat(m[3], 64)
		for _, l := range labelOfPage.FindAllStringSubmatch(m[2], -1) {
			p.labels[l[1]] = l[2]
		}
		out = append(out, p)
	}
	return out
}

type point struct {
	name   string
	labels map[string]string
	value  float64
}

// series are those of its page.
func (c *collector) series(t *testing.T) []point {
	t.Helper()
	_, text := ask(t, "http://"+c.page)
	return seriesOf(text)
}

// sums adds up the newest values by a label: whole numbers all of them.
func (c *collector) sums(t *testing.T) func(name, label string, where map[string]string) map[string]int64 {
	return func(name, label string, where map[string]string) map[string]int64 {
		t.Helper()
		out := map[string]int64{}
	next:
		for _, p := range c.series(t) {
			for k, v := range where {
				if p.labels[k] != v {
					continue next
				}
			}
			if p.name == name {
				out[p.labels[label]] += int64(p.value)
			}
		}
		return out
	}
}

// texts are series as one text each.
func texts(list []point) map[string]float64 {
	out := map[string]float64{}
	for _, p := range list {
		key := p.name
		for _, k := range slices.Sorted(maps.Keys(p.labels)) {
			key += fmt.Sprintf(" %s=%s", k, p.labels[k])
		}
		out[key] = p.value
	}
	return out
}

// hostile is a bucket of n requests to names that somebody made up to spoil what reads them.
func hostile(t *testing.T, r *rand.Rand, host byte, n int) *bucket.Bucket {
	t.Helper()
	at := time.Now().Truncate(10 * time.Second).UnixNano()
	b := &bucket.Bucket{Header: bucket.Header{
		Name: bucket.Name{Host: bucket.ID{host}, Incarnation: bucket.ID{9}, Start: at}, HostName: fmt.Sprintf("web%d\"\\\x00\n", host), Width: 10 * time.Second, Final: true,
	}}
	names := []string{"a.example.org", "b\nHELP.example.org", `c"} 1e9`, "d\\", "\xff\xfe", "e\x00f", strings.Repeat("long", 900), "\u202eg", "_OTHER", "{h}"}
	list := make([]*exchange.Exchange, n)
	for i := range list {
		x := &exchange.Exchange{
			Role: exchange.Server, Protocol: "http/1.1", Scheme: "http", HasRequest: true, HasResponse: true,
			Method: []string{"GET", "POST", "BREW\n"}[r.IntN(3)], Domain: names[r.IntN(len(names))], Status: []int{200, 404, 503, 999}[r.IntN(4)],
			RequestStart: at, RequestHead: at, RequestEnd: at, RequestWireBytes: r.Uint64N(1000), ResponseStart: at + r.Int64N(3e9), ResponseWireBytes: r.Uint64N(1e6),
		}
		x.Section, x.ResponseEnd = x.Domain+"/", x.ResponseStart
		list[i] = x
	}
	for _, name := range []string{"totals", "section", "domain", "domain_bytes", "routes"} {
		m, err := stat.New(name)
		if err != nil {
			t.Fatal(err)
		}
		tables := []*bucket.Table{bucket.NewTable(m.Tables()[0], 1000)}
		for _, x := range list {
			for _, e := range []exchange.Event{exchange.RequestSeen, exchange.Outcome} {
				m.Observe(&exchange.Observation{Event: e, Time: at, Exchange: x, NewRequestWireBytes: x.RequestWireBytes, NewResponseWireBytes: x.ResponseWireBytes}, tables)
			}
		}
		b.Tables = append(b.Tables, tables[0])
	}
	return b
}

// TestCollector pushes to an OpenTelemetry Collector, over gRPC and HTTP with TLS: what it makes of it for Prometheus is, series by series and
// to the unit, what Prometheus reads here, with names that somebody made up to spoil it; also after it refused, and after it was away.
func TestCollector(t *testing.T) {
	certs := testkit.Certificates(t, map[string]netip.Addr{"collector": netip.MustParseAddr("127.0.0.1")})
	for _, scheme := range []string{"grpcs", "https"} {
		t.Run(scheme, func(t *testing.T) {
			c := startCollector(t, certs+"/collector")
			to := map[string]string{"grpcs": c.grpc, "https": c.http}[scheme]
			counted, registry, r := export.New(export.DefaultConfig(), time.Now()), client.NewRegistry(), rand.New(rand.NewPCG(4, 4))
			p, err := push.New(export.Receiver{URL: scheme + "://" + to, CAFile: certs + "/ca.pem", Every: 500 * time.Millisecond, MaxPending: config.GiB}, push.Deps{
				To: export.ToOTLP, Log: slog.New(slog.DiscardHandler), Metrics: push.NewMetrics(registry), Version: "1",
				Encode: func() []export.Request { return export.OTLP(counted.Snapshot(nil), time.Now(), "center", "1") },
			})
			if err != nil {
				t.Fatal(err)
			}
			more := func() {
				t.Helper()
				for host := range 3 {
					counted.Add(time.Now(), counted.Digest(hostile(t, r, byte(host+1), 100)))
				}
			}
			metric := func(name string) (v float64) {
				t.Helper()
				for _, p := range seriesOf(pageOf(t, registry)) {
					if p.name == "httpctl_export_"+name {
						v += p.value
						if p.value > 0 {
							t.Logf("%s %v = %v", p.name, p.labels, p.value)
						}
					}
				}
				return v
			}
			same := func(what string) {
				t.Helper()
				want := texts(seriesOf(pageOf(t, client.GathererFunc(func() ([]*dto.MetricFamily, error) { return export.Scrape(counted.Snapshot(nil)), nil }))))
				if len(want) < 1000 {
					t.Fatalf("%d series are to be compared, want at least 1000", len(want))
				}
				differ := func() error {
					got := texts(c.series(t))
					if len(got) != len(want) {
						return fmt.Errorf("%d series, want %d", len(got), len(want))
					}
					for k, v := range want {
						if g, ok := got[k]; !ok || g != v {
							return fmt.Errorf("%s = %v, %v; want %v", k, g, ok, v)
						}
					}
					return nil
				}
				// On a busy machine it is away for long, and is tried again after a minute at the latest.
				for deadline := time.Now().Add(3 * time.Minute); differ() != nil && time.Now().Before(deadline); {
					time.Sleep(200 * time.Millisecond)
				}
				if err := differ(); err != nil {
					t.Fatalf("%s: not within 3 minutes: %v", what, err)
				}
				t.Logf("%s: %d series are equal", what, len(want))
			}
			more()
			p.Start(t.Context())
			t.Cleanup(func() { _ = p.Stop(t.Context()) })
			same("at first")
			// It refuses for a while, then is away for a while.
			c.process.stop(t, syscall.SIGTERM)
			c.start(t, 1)
			more()
			eventually(t, "the collector refuses", func() error {
				if !strings.Contains(c.process.out.String(), "emory") || metric("failures_total") == 0 {
					return fmt.Errorf("it says %q, and %v requests failed", c.process.out.String(), metric("failures_total"))
				}
				return nil
			})
			c.process.stop(t, syscall.SIGKILL)
			more()
			c.start(t, 1000)
			more()
			same("after it was away")
			if dropped := metric("dropped_points_total"); dropped != 0 {
				t.Errorf("%v values were dropped, want none", dropped)
			}
			c.recorded(t)
		})
	}
}

func pageOf(t *testing.T, g client.Gatherer) string {
	t.Helper()
	w := httptest.NewRecorder()
	promhttp.HandlerFor(g, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	if w.Code != 200 {
		t.Fatalf("the page = %d %s", w.Code, w.Body)
	}
	return w.Body.String()
}

// recorded reads all that ever came: one resource, cumulative counters that never fall and whose time never goes back, and the bounds and
// units of the semantic conventions.
func (c *collector) recorded(t *testing.T) {
	t.Helper()
	file, err := os.Open(c.record)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	type value struct{ StringValue, IntValue *string }
	type attributes []struct {
		Key   string
		Value value
	}
	type data struct {
		AggregationTemporality int
		IsMonotonic            bool
		DataPoints             []struct {
			Attributes                      attributes
			StartTimeUnixNano, TimeUnixNano string
			AsInt, Count                    string
			ExplicitBounds                  []float64
		}
	}
	text := func(a attributes) string {
		var out []string
		for _, a := range a {
			switch v := a.Value; {
			case v.IntValue != nil:
				out = append(out, a.Key+"="+*v.IntValue+"#")
			case v.StringValue != nil:
				out = append(out, a.Key+"="+*v.StringValue)
			}
		}
		return strings.Join(slices.Sorted(slices.Values(out)), " ")
	}
	type last struct{ at, start, value uint64 }
	newest, requests, statuses := map[string]last{}, 0, map[string]bool{}
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var request struct {
			ResourceMetrics []struct {
				Resource     struct{ Attributes attributes }
				ScopeMetrics []struct {
					Metrics []struct {
						Name, Unit     string
						Sum, Histogram *data
					}
				}
			}
		}
		if err := json.Unmarshal(lines.Bytes(), &request); err != nil {
			t.Fatal(err)
		}
		requests++
		for _, resource := range request.ResourceMetrics {
			if got, want := text(resource.Resource.Attributes), "service.instance.id=center service.name=httpctl service.version=1"; got != want {
				t.Fatalf("the resource is %s, want %s", got, want)
			}
			for _, scope := range resource.ScopeMetrics {
				for _, m := range scope.Metrics {
					d := m.Sum
					if m.Histogram != nil {
						d = m.Histogram
						if m.Name != "http.server.request.duration" || m.Unit != "s" {
							t.Fatalf("a histogram is called %s and has the unit %s", m.Name, m.Unit)
						}
					}
					if d == nil {
						continue
					}
					if d.AggregationTemporality != 2 || m.Sum != nil && !d.IsMonotonic {
						t.Fatalf("%s has the temporality %d and monotonic %v, want cumulative", m.Name, d.AggregationTemporality, d.IsMonotonic)
					}
					for _, p := range d.DataPoints {
						number := func(s string) uint64 { n, _ := strconv.ParseUint(s, 10, 64); return n }
						key, now := m.Name+" "+text(p.Attributes), last{number(p.TimeUnixNano), number(p.StartTimeUnixNano), number(p.AsInt) + number(p.Count)}
						if before, ok := newest[key]; ok && (now.at < before.at || now.start != before.start || now.value < before.value) || now.start == 0 || now.start >= now.at {
							t.Fatalf("%s was %+v and is %+v", key, before, now)
						}
						newest[key] = now
						if m.Histogram != nil {
							if want := []float64{0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10}; !slices.Equal(p.ExplicitBounds, want) {
								t.Fatalf("bounds %v, want %v", p.ExplicitBounds, want)
							}
							for _, part := range strings.Split(key, " ") {
								if s, ok := strings.CutPrefix(part, "http.response.status_code="); ok {
									statuses[s] = true
								}
							}
						}
					}
				}
			}
		}
	}
	if err := lines.Err(); err != nil || requests < 3 || len(newest) < 100 {
		t.Errorf("%d requests with %d series were recorded, %v; want more", requests, len(newest), err)
	}
	if got := slices.Sorted(maps.Keys(statuses)); !slices.Equal(got, []string{"200#", "404#", "503#", "_OTHER"}) {
		t.Errorf("statuses %v", got)
	}
}
