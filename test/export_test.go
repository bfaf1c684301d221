package test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
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
	ctx, cancel := context.WithTimeout(context.Background(), 8*patience)
	t.Cleanup(cancel)
	data, site, metrics, address, collector := t.TempDir(), worldReadable(t), freePort(t), freePort(t), startCollector(t, "")
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
    instance: center
    remote_write: {url: "http://%s/api/v1/write", every: 1s}
    otlp: {url: "grpc://%s", every: 1s}
`, data, metrics, address, collector.grpc))))
	aggregator.says(t, "serving")
	conf, err := testkit.WriteNginx(site, 80)
	if err != nil {
		t.Fatal(err)
	}
	start(t, lab.Command(ctx, "web", "nginx", "-c", conf))
	for _, host := range []string{"web", "shop"} {
		launchCommand(t, lab.Command(ctx, host, program(t, "httpctl-agent"), "-i", "eth0", "--config", write(t, "agent.yaml",
			"dashboard_bucket_size: 1s\nagent:\n  host_name: "+host+"\n  state: "+t.TempDir()+"\n  aggregator: "+socket+"\n  capture: {poll_timeout: 50ms, block_size: 128KiB}\n"))).says(t, "connected to the aggregator")
	}
	server := startPrometheus(t, mustFind(t, "prometheus"), address, fmt.Sprintf(`
global: {scrape_interval: 2s, scrape_timeout: 2s}
scrape_configs:
- {job_name: traffic, metrics_path: /metrics/traffic, params: {reader: [prometheus]}, static_configs: [{targets: [%q]}]}
`, metrics), "--web.enable-remote-write-receiver")

	asked := 0
	visit := func(n int) {
		t.Helper()
		base := "http://" + lab.Address("web").String()
		for site := range 2 {
			curl := lab.Command(ctx, "shop", "curl", "-sS", "--max-time", "120", "--rate", "100/s", "-H", fmt.Sprintf("Host: site%d.example.org", site),
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
	top := func(dimension string, more ...string) top {
		t.Helper()
		return topInJSON(ctx, t, socket, dimension, more...)
	}
	visit(60)
	t.Cleanup(func() {
		if t.Failed() {
			_, text := ask(t, "http://"+metrics+"/metrics/traffic")
			up, err := server.query("up")
			t.Logf("up is %v, %v; the page has\n%s", up, err, regexp.MustCompile(`(?m)^.*(_bucket|_losses_total)\{.*\n`).ReplaceAllString(text, ""))
		}
	})

	same := func(path string, values func(name, label string, where map[string]string) map[string]int64) {
		t.Helper()
		eventually(t, path, func() error {
			log, err := testkit.ReadAccessLog(site)
			if err != nil {
				return err
			}
			if log.Requests != int64(asked) {
				return fmt.Errorf("nginx has logged %d of %d requests", log.Requests, asked)
			}
			methods := log.Tops["method"]
			methods["_OTHER"] += methods["BREW"]
			delete(methods, "BREW")
			// What counts once: on the host of the server, not on that of the client, which names the other.
			fleet := map[string]string{"httpctl_mirror": "0"}
			both := map[string]int64{"web": int64(asked), "shop": int64(asked)}
			for _, c := range []struct {
				name, label string
				where       map[string]string
				want        map[string]int64
			}{
				{"httpctl_traffic_requests_total", "server_address", fleet, log.Tops["domain"]},
				{"httpctl_traffic_method_requests_total", "http_request_method", fleet, methods},
				{"httpctl_traffic_outcomes_total", "http_response_status_code", fleet, log.Tops["status"]},
				{"http_server_request_duration_seconds_count", "http_response_status_code", fleet, log.Tops["status"]},
				{"http_server_request_duration_seconds_bucket", "server_address", map[string]string{"httpctl_mirror": "0", "le": "+Inf"}, log.Tops["domain"]},
				{"httpctl_traffic_request_wire_bytes_total", "server_address", fleet, log.Upload},
				{"httpctl_traffic_response_wire_bytes_total", "server_address", fleet, log.Download},
				{"httpctl_traffic_requests_total", "host_name", nil, both},
				{"http_client_request_duration_seconds_count", "host_name", map[string]string{"httpctl_mirror": "1"}, map[string]int64{"shop": int64(asked)}},
				{"httpctl_traffic_losses_total", "host_name", map[string]string{"reason": "kernel_drops"}, map[string]int64{"web": 0, "shop": 0}},
				{"httpctl_traffic_hosts", "state", nil, map[string]int64{"reporting": 2, "late": 0, "gone": 0}},
			} {
				if got := values(c.name, c.label, c.where); !maps.Equal(got, c.want) {
					return fmt.Errorf("%s %v by %s = %v, want %v", c.name, c.where, c.label, got, c.want)
				}
			}
			for dimension, of := range map[string][2]string{"domain": {"httpctl_traffic_requests_total", "server_address"},
				"method": {"httpctl_traffic_method_requests_total", "http_request_method"}, "status": {"httpctl_traffic_outcomes_total", "http_response_status_code"}} {
				got := values(of[0], of[1], fleet)
				for _, row := range top(dimension).Rows {
					if got[row.Key] != row.Hits {
						return fmt.Errorf("%s by %s = %v, httpctl top says %d of %s", of[0], of[1], got, row.Hits, row.Key)
					}
				}
			}
			return nil
		})
		t.Logf("%s: %d requests, as nginx and httpctl top have them", path, asked)
	}
	same("scrape", server.sums(t, "traffic"))
	same("remote write", server.sums(t, "httpctl"))
	same("OTLP", collector.sums(t))
	first := time.Now()
	time.Sleep(1500 * time.Millisecond) // a range is of whole seconds
	visit(18)
	same("scrape, later", server.sums(t, "traffic"))
	same("remote write, later", server.sums(t, "httpctl"))
	same("OTLP, later", collector.sums(t))

	// increase() has all that was counted, from the first on, on both ways: asked at the time of a sample, it is to the unit.
	log, err := testkit.ReadAccessLog(site)
	if err != nil {
		t.Fatal(err)
	}
	for _, job := range []string{"traffic", "httpctl"} {
		eventually(t, "increase() by "+job, func() error {
			of := fmt.Sprintf(`httpctl_traffic_requests_total{job=%q,httpctl_mirror="0"}`, job)
			newest, err := server.query("max(timestamp(" + of + "))")
			if err != nil || len(newest) != 1 {
				return fmt.Errorf("%v, %v", newest, err)
			}
			results, err := server.query("sum by (server_address) (increase("+of+"[10m]))", newest[0].value)
			if err != nil {
				return err
			}
			got := map[string]int64{}
			for _, r := range results {
				v, _ := strconv.ParseFloat(r.value, 64)
				got[r.labels["server_address"]] = int64(math.Round(v * 1000))
			}
			for domain, n := range log.Tops["domain"] {
				if got[domain] != n*1000 {
					return fmt.Errorf("thousandths of requests %v, want %v", got, log.Tops["domain"])
				}
			}
			return nil
		})
	}
	_, own := ask(t, "http://"+address+"/metrics")
	for _, why := range []string{"out_of_order", "duplicate_timestamp", "out_of_bounds"} {
		if want := "prometheus_target_scrapes_sample_" + why + "_total 0\n"; !strings.Contains(own, want) {
			t.Errorf("Prometheus has not %q: it refused samples", want)
		}
	}

	// The dashboard: each panel over all of it, and one over the later part.
	list := func(args ...string) (answer map[string]any) {
		t.Helper()
		args = append(args, "-o", "json", "--since", "1h", "--aggregator", socket)
		out, err := exec.CommandContext(ctx, program(t, "httpctl"), args...).Output()
		if err == nil {
			err = json.Unmarshal(out, &answer)
		}
		if err != nil {
			t.Fatalf("httpctl %s: %v", strings.Join(args, " "), err)
		}
		return answer
	}
	for _, job := range []string{"traffic", "httpctl"} {
		server.grafana(t, job, list)
		for _, panel := range grafanaPanels(t) {
			if panel.Title != "Domains" {
				continue
			}
			now := time.Now()
			got, err := server.answers(panel, job, now.Sub(first).Truncate(time.Second), fmt.Sprintf("%.3f", float64(now.UnixMilli())/1000))
			if want := (map[string]float64{"site0.example.org": 9, "site1.example.org": 9, lab.Address("web").String(): 2}); err != nil || !maps.Equal(got[0], want) {
				t.Errorf("%s: domains since the first requests were %v, %v, want %v", job, got, err, want)
			}
		}
	}
	// The counters come a last time when the aggregator stops.
	if code := aggregator.stop(t, syscall.SIGTERM); code != 0 {
		t.Errorf("the aggregator ended with %d", code)
	}
	if results, err := server.query(`min(count_over_time(httpctl_traffic_requests_total{job="httpctl",instance="center"}[5m]) > 1)`); err != nil || len(results) != 1 {
		t.Errorf("series of remote write begin with %v, %v, want 0 and then what was counted", results, err)
	}
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

// sums returns what evaluates sums over the series of a job, by a label: whole numbers all of them.
func (p *prometheus) sums(t *testing.T, job string) func(name, label string, where map[string]string) map[string]int64 {
	return func(name, label string, where map[string]string) map[string]int64 {
		t.Helper()
		matchers := []string{fmt.Sprintf("job=%q", job)}
		for k, v := range where {
			matchers = append(matchers, fmt.Sprintf("%s=%q", k, v))
		}
		expression := fmt.Sprintf("sum by (%s) (%s{%s})", label, name, strings.Join(matchers, ","))
		results, err := p.query(expression)
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
