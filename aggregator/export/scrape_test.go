package export

import (
	"fmt"
	"math/rand/v2"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
)

// page is what Prometheus gets to read.
func page(t *testing.T, a *Accumulator, states []HostState) string {
	t.Helper()
	return written(t, Scrape(a.Snapshot(states)))
}

func written(t *testing.T, families []*dto.MetricFamily) string {
	t.Helper()
	w := httptest.NewRecorder()
	promhttp.HandlerFor(prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) { return families, nil }), promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest("GET", "/metrics/traffic", nil))
	if w.Code != 200 {
		t.Fatalf("the page = %d %s", w.Code, w.Body)
	}
	return w.Body.String()
}

// TestPage shows all of one request, and has Prometheus's own tool judge names and help texts.
func TestPage(t *testing.T) {
	a := New(DefaultConfig(), began)
	a.Add(began, one(t, a, web, "a.example.org"))
	text := page(t, a, []HostState{{ID: web, CoveredThrough: start, State: "late"}})
	const of = `host_id="01000000000000000000000000000000",host_name="host-1"`
	for _, want := range []string{
		"# TYPE http_server_request_duration_seconds histogram\n",
		`http_server_request_duration_seconds_bucket{` + of + `,httpctl_role="server",httpctl_mirror="0",url_scheme="http",server_address="a.example.org",http_request_method="GET",http_response_status_code="200",le="0.005"} 1` + "\n",
		`http_server_request_duration_seconds_bucket{` + of + `,httpctl_role="server",httpctl_mirror="0",url_scheme="http",server_address="a.example.org",http_request_method="GET",http_response_status_code="200",le="+Inf"} 1` + "\n",
		`http_server_request_duration_seconds_sum{` + of + `,httpctl_role="server",httpctl_mirror="0",url_scheme="http",server_address="a.example.org",http_request_method="GET",http_response_status_code="200"} 0.001` + "\n",
		"# TYPE httpctl_traffic_requests_total counter\n",
		`httpctl_traffic_requests_total{` + of + `,httpctl_role="server",httpctl_mirror="0",server_address="a.example.org"} 1` + "\n",
		`httpctl_traffic_losses_total{` + of + `,reason="kernel_drops"} 3` + "\n",
		`httpctl_traffic_hosts{state="late"} 1` + "\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the page has no %q:\n%s", want, text)
		}
	}
	if n := strings.Count(text, "_bucket{"); n != len(Bounds)+1 {
		t.Errorf("%d buckets, want %d", n, len(Bounds)+1)
	}
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("needs promtool, which is not installed (package prometheus)")
	}
	a.Add(began, digest(t, a, bucketOf(t, web, 20, draw(rand.New(rand.NewPCG(1, 1)), 300, 50))))
	check := exec.Command(promtool, "check", "metrics")
	check.Stdin = strings.NewReader(page(t, a, nil))
	if out, err := check.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

// TestPageSince: what a reader has not seen yet begins with 0, once.
func TestPageSince(t *testing.T) {
	a := New(DefaultConfig(), began)
	a.Add(began.Add(time.Second), one(t, a, web, "a.example.org"))
	first := a.Snapshot(nil)
	a.Add(began.Add(2*time.Second), one(t, a, web, "a.example.org", "b.example.org"))
	second := a.Snapshot(nil)
	text := written(t, ScrapeSince(second, began.Add(10*time.Second), Newest(first, time.Time{})))
	begin, now := fmt.Sprint(began.Add(2*time.Second).UnixMilli()), fmt.Sprint(began.Add(10*time.Second).UnixMilli())
	const of = `{host_id="01000000000000000000000000000000",host_name="host-1",httpctl_role="server",httpctl_mirror="0",`
	for _, want := range []string{
		"httpctl_traffic_requests_total" + of + `server_address="a.example.org"} 2` + "\n",
		"httpctl_traffic_requests_total" + of + `server_address="b.example.org"} 0 ` + begin + "\nhttpctl_traffic_requests_total" + of + `server_address="b.example.org"} 1 ` + now + "\n",
		`server_address="b.example.org",http_request_method="GET",http_response_status_code="200",le="+Inf"} 0 ` + begin + "\n",
		`server_address="b.example.org",http_request_method="GET",http_response_status_code="200",le="+Inf"} 1 ` + now + "\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the page has no %q:\n%s", want, text)
		}
	}
	if got, want := written(t, ScrapeSince(second, began.Add(time.Minute), Newest(second, time.Time{}))), page(t, a, nil); got != want {
		t.Errorf("a page with nothing new is\n%s\nwant\n%s", got, want)
	}
}
