package test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/httpctl/httpctl/pkg/testkit"
)

// TestExport has curl on one monitored host ask nginx on another, and Prometheus get to know: every path says what nginx's log and
// `httpctl top` say, to the unit.
func TestExport(t *testing.T) {
	need(t, "ip", "nginx", "curl", "prometheus")
	lab, err := testkit.NewLab("web", "shop")
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { lab.Close() })
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(cancel)
	data, site, metrics := t.TempDir(), worldReadable(t), freePort(t)
	socket := "unix:" + data + "/httpctl.sock"
	aggregator := launchCommand(t, exec.CommandContext(ctx, program(t, "httpctl-aggregator"), "--config", write(t, "aggregator.yaml", fmt.Sprintf(`
dashboard_bucket_size: 1s
average_bucket_size: 5s
aggregator:
  data: %s
  listen: []
  metrics: %s
  export:
    scrape: true
`, data, metrics))))
	aggregator.says(t, "serving")
	conf, err := testkit.WriteNginx(site, 80)
	if err != nil {
		t.Fatal(err)
	}
	start(t, lab.Command(ctx, "web", "nginx", "-c", conf))
	for _, host := range []string{"web", "shop"} {
		launchCommand(t, lab.Command(ctx, host, program(t, "httpctl-agent"), "-i", "eth0", "--config", write(t, "agent.yaml",
			"agent:\n  host_name: "+host+"\n  state: "+t.TempDir()+"\n  aggregator: "+socket+"\n  capture: {ring_size: 4MiB, poll_timeout: 50ms}\n"))).says(t, "connected to the aggregator")
	}
	scraping := startPrometheus(t, mustFind(t, "prometheus"), fmt.Sprintf(`
global: {scrape_interval: 2s, scrape_timeout: 2s}
scrape_configs:
- {job_name: traffic, metrics_path: /metrics/traffic, static_configs: [{targets: [%q]}]}
`, metrics))

	asked := 0
	visit := func(n int) {
		t.Helper()
		base := "http://" + lab.Address("web").String()
		for site := range 2 {
			curl := lab.Command(ctx, "shop", "curl", "-sS", "--max-time", "60", "--rate", "100/s", "-H", fmt.Sprintf("Host: site%d.example.org", site),
				"-o", "/dev/null", fmt.Sprintf("%s/small/[1-%d].txt", base, n/3), "-o", "/dev/null", fmt.Sprintf("%s/missing/[1-%d]", base, n/6))
			if out, err := curl.CombinedOutput(); err != nil {
				t.Fatalf("curl: %v: %s", err, out)
			}
			asked += n/3 + n/6
		}
		for _, more := range [][]string{{"-X", "POST", base + "/small/1.txt"}, {"-X", "BREW", base + "/small/2.txt"}} { // 405
			if out, err := lab.Command(ctx, "shop", "curl", append([]string{"-sS", "-o", "/dev/null"}, more...)...).CombinedOutput(); err != nil {
				t.Fatalf("curl: %v: %s", err, out)
			}
			asked++
		}
	}
	top := func(dimension string, more ...string) (answer top) {
		t.Helper()
		args := append([]string{"top", dimension, "-o", "json", "--since", "1h", "--limit", "1000", "--aggregator", socket}, more...)
		out, err := exec.CommandContext(ctx, program(t, "httpctl"), args...).Output()
		if err != nil {
			t.Fatalf("httpctl %s: %v", strings.Join(args, " "), err)
		}
		if err := json.Unmarshal(out, &answer); err != nil {
			t.Fatal(err)
		}
		return answer
	}
	visit(60)
	t.Cleanup(func() {
		if t.Failed() {
			_, text := ask(t, "http://"+metrics+"/metrics/traffic")
			up, err := scraping.query("up")
			t.Logf("up is %v, %v; the page has\n%s", up, err, regexp.MustCompile(`(?m)^.*(_bucket|_losses_total)\{.*\n`).ReplaceAllString(text, ""))
		}
	})

	// What counts once: on the host of the server, not on that of the client, which it names as mirrored.
	const fleet = `{httpctl_mirror="0"}`
	same := func(path string, values func(expression, label string) map[string]int64) {
		t.Helper()
		eventually(t, path, func() error {
			log, err := testkit.ReadAccessLog(site)
			if err != nil {
				return err
			}
			if log.Requests != int64(asked) {
				return fmt.Errorf("nginx has logged %d of %d requests", log.Requests, asked)
			}
			other := log.Tops["method"]
			other["_OTHER"] += other["BREW"]
			delete(other, "BREW")
			for _, c := range []struct {
				expression, label string
				want              map[string]int64
			}{
				{"httpctl_traffic_requests_total" + fleet, "server_address", log.Tops["domain"]},
				{"httpctl_traffic_method_requests_total" + fleet, "http_request_method", other},
				{"httpctl_traffic_outcomes_total" + fleet, "http_response_status_code", log.Tops["status"]},
				{"http_server_request_duration_seconds_count" + fleet, "http_response_status_code", log.Tops["status"]},
				{`http_server_request_duration_seconds_bucket{httpctl_mirror="0",le="+Inf"}`, "server_address", log.Tops["domain"]},
				{"httpctl_traffic_request_wire_bytes_total" + fleet, "server_address", log.Upload},
				{"httpctl_traffic_response_wire_bytes_total" + fleet, "server_address", log.Download},
				{`httpctl_traffic_requests_total`, "host_name", map[string]int64{"web": int64(asked), "shop": int64(asked)}},
				{`http_client_request_duration_seconds_count{httpctl_mirror="1"}`, "host_name", map[string]int64{"shop": int64(asked)}},
				{`httpctl_traffic_losses_total{reason="kernel_drops"}`, "host_name", map[string]int64{"web": 0, "shop": 0}},
				{`httpctl_traffic_hosts`, "state", map[string]int64{"reporting": 2, "late": 0, "gone": 0}},
			} {
				if got := values(c.expression, c.label); !maps.Equal(got, c.want) {
					return fmt.Errorf("%s by %s = %v, want %v", c.expression, c.label, got, c.want)
				}
			}
			for dimension, by := range map[string]string{"domain": "server_address", "method": "http_request_method"} {
				name := map[string]string{"domain": "httpctl_traffic_requests_total", "method": "httpctl_traffic_method_requests_total"}[dimension]
				got := values(name+fleet, by)
				for _, row := range top(dimension).Rows {
					if got[row.Key] != row.Hits {
						return fmt.Errorf("%s by %s = %v, httpctl top says %d of %s", name, by, got, row.Hits, row.Key)
					}
				}
			}
			return nil
		})
		t.Logf("%s: %d requests, as nginx and httpctl top have them", path, asked)
	}
	same("scrape", scraping.sums(t))
}

// mustFind returns where a program is.
func mustFind(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("needs %s, which is not installed", name)
	}
	return path
}

// sums evaluates sums of an expression by a label, whole numbers all of them.
func (p *prometheus) sums(t *testing.T) func(expression, label string) map[string]int64 {
	return func(expression, label string) map[string]int64 {
		t.Helper()
		results, err := p.query("sum by (" + label + ") (" + expression + ")")
		if err != nil {
			t.Log(err)
			return nil
		}
		out := map[string]int64{}
		for _, r := range results {
			v, err := strconv.ParseFloat(r.value, 64)
			if err != nil || v != float64(int64(v)) {
				t.Errorf("%s: %s = %s, want a whole number", expression, r.labels[label], r.value)
			}
			out[r.labels[label]] = int64(v)
		}
		return out
	}
}
