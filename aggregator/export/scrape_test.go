package export

import (
	"math/rand/v2"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// page is what Prometheus gets to read.
func page(t *testing.T, a *Accumulator, states []HostState) string {
	t.Helper()
	w := httptest.NewRecorder()
	promhttp.HandlerFor(Gatherer(func() []Family { return a.Snapshot(states) }), promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest("GET", "/metrics/traffic", nil))
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
