package test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	agent "github.com/httpctl/httpctl/agent/app"
	aggregator "github.com/httpctl/httpctl/aggregator/app"
	"github.com/httpctl/httpctl/aggregator/export"
	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/testkit"
)

// pair is one agent and its aggregator, with the pages that they serve.
type pair struct {
	watcher, center string // addresses
	socket          string
	stopCenter      func()
}

// startPair starts both until the test ends. The agent replays a connection.
func startPair(t *testing.T) pair {
	t.Helper()
	ctx, dir, log := context.Background(), t.TempDir(), slog.New(slog.DiscardHandler)
	settings, g, a := config.DefaultSettings(), aggregator.DefaultConfig(), agent.DefaultConfig()
	g.Data, g.Listen, g.Metrics, g.Export.Scrape, g.Web.Listen = filepath.Join(dir, "data"), nil, freePort(t), true, []string{freePort(t)}
	g.Export.OTLP.URL, g.Export.RemoteWrite.URL = "grpc://127.0.0.1:1", "http://127.0.0.1:1/none"
	center, err := aggregator.Start(ctx, settings, g, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = center.Stop(ctx) })
	c := testkit.NewConversation("192.0.2.1:40000", "192.0.2.2:80")
	c.Open()
	c.Close()
	socket := config.SocketPath(g.Data)
	a.Aggregator, a.State, a.Metrics = "unix:"+socket, filepath.Join(dir, "agent"), freePort(t)
	watcher, err := agent.Start(ctx, settings, a, testkit.WriteFile(t, c.Frames...), log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = watcher.Stop(ctx) })
	return pair{watcher: a.Metrics, center: g.Metrics, socket: socket, stopCenter: func() { _ = center.Stop(ctx) }}
}

// ask returns the status and the body of a page.
func ask(t *testing.T, address string) (status int, text string) {
	t.Helper()
	response, err := http.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

// TestDocsMetrics writes the tables of docs/metrics.md from what both daemons serve, and compares.
// With -update it writes the page.
func TestDocsMetrics(t *testing.T) {
	p := startPair(t)
	meanings := map[string]string{} // of the counters, which docs/formats.md describes
	for _, m := range regexp.MustCompile("(?m)^\\| [0-9]+ \\| `([a-z0-9_]+)` \\| ([a-z]+) \\| (.*) \\|$").FindAllStringSubmatch(page(t, "docs/formats.md"), -1) {
		meanings["httpctl_agent_"+m[1]+"_total"] = m[2] + ": " + m[3]
	}
	tables := map[string]string{}
	for name, address := range map[string]string{"agent": p.watcher, "aggregator": p.center} {
		_, served := ask(t, "http://"+address+"/metrics")
		tables[name] = tableOfMetrics(served, meanings)
	}
	generated(t, "docs/metrics.md", tables)
	generated(t, "docs/export.md", map[string]string{"traffic": tableOfTraffic()})
}

// generated compares the tables of a page with what they are to be. With -update it writes the page.
func generated(t *testing.T, name string, tables map[string]string) {
	t.Helper()
	old := page(t, name)
	text := old
	for table, content := range tables {
		begin, end := "<!-- generated: "+table+" -->\n", "<!-- end -->\n"
		before, rest, ok := strings.Cut(text, begin)
		_, after, closed := strings.Cut(rest, end)
		if !ok || !closed {
			t.Fatalf("%s has no table %q", name, begin)
		}
		text = before + begin + content + end + after
	}
	if text == old {
		return
	}
	if !*update {
		t.Fatal(name + " is old: run make docs")
	}
	if err := os.WriteFile(filepath.Join("..", name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// tableOfTraffic describes what is exported.
func tableOfTraffic() string {
	var b strings.Builder
	b.WriteString("| metric | type | labels | meaning |\n|---|---|---|---|\n")
	for _, d := range export.Descriptions {
		labels := strings.ReplaceAll("`"+strings.Join(d.Attributes, "`, `")+"`", ".", "_")
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", d.Prometheus(), [...]string{export.Counter: "counter", export.Gauge: "gauge", export.Times: "histogram"}[d.Kind], labels, d.Help)
	}
	return b.String()
}

// tableOfMetrics describes a page's own metrics, in their order there.
func tableOfMetrics(served string, meanings map[string]string) string {
	var b strings.Builder
	b.WriteString("| metric | type | labels | meaning |\n|---|---|---|---|\n")
	for _, m := range regexp.MustCompile(`(?m)^# HELP (httpctl_\w+) (.*)\n# TYPE \w+ (\w+)$`).FindAllStringSubmatch(served, -1) {
		name, help, kind := m[1], m[2], m[3]
		if meaning := meanings[name]; meaning != "" {
			help = meaning
		}
		var labels []string
		values := map[string][]string{}
		for _, series := range regexp.MustCompile(`(?m)^`+name+`\{(.*)\}`).FindAllStringSubmatch(served, -1) {
			for _, l := range regexp.MustCompile(`(\w+)="([^"]*)"`).FindAllStringSubmatch(series[1], -1) {
				if values[l[1]] == nil {
					labels = append(labels, l[1])
				}
				if v := "`" + l[2] + "`"; !slices.Contains(values[l[1]], v) {
					values[l[1]] = append(values[l[1]], v)
				}
			}
		}
		for i, l := range labels {
			labels[i] = "`" + l + "`: " + strings.Join(values[l], ", ")
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", name, kind, strings.Join(labels, "; "), help)
	}
	return b.String()
}

// TestHealth asks both daemons how they are, with and without what they need.
func TestHealth(t *testing.T) {
	p := startPair(t)
	want := func(address, path string, status int, parts ...string) {
		t.Helper()
		got, text := ask(t, "http://"+address+path)
		if got != status {
			t.Errorf("%s = %d %q, want %d", path, got, text, status)
		}
		for _, part := range parts {
			if !strings.Contains(text, part) {
				t.Errorf("%s = %q, want %q in it", path, text, part)
			}
		}
	}
	want(p.center, "/healthz", 200, "ok store\n", "ok judge\n")
	want(p.center, "/readyz", 200, "ok store\n", "ok listen\n")
	want(p.watcher, "/healthz", 200, "ok clock\n", "ok pipeline 0\n")
	want(p.watcher, "/readyz", 200, "ok capture\n", "ok spool\n")
	if err := os.Remove(p.socket); err != nil {
		t.Fatal(err)
	}
	want(p.center, "/readyz", 503, "ok store\n", "failed listen: ")
	want(p.center, "/healthz", 200)
	p.stopCenter()
	want(p.watcher, "/readyz", 200) // it counts and keeps
}

// TestPromtool has Prometheus's own tool judge names and help texts of both pages.
func TestPromtool(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("needs promtool, which is not installed (package prometheus)")
	}
	p := startPair(t)
	for _, address := range []string{p.watcher, p.center} {
		_, served := ask(t, "http://"+address+"/metrics")
		check := exec.Command(promtool, "check", "metrics")
		check.Stdin = strings.NewReader(served)
		if out, err := check.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("promtool check metrics: %v\n%s", err, out)
		}
	}
}

// prometheus is one that runs until the test ends.
type prometheus struct{ address string }

// startPrometheus starts it with a configuration, at an address.
func startPrometheus(t *testing.T, program, address, configuration string, flags ...string) *prometheus {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(file, []byte(configuration), 0o600); err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	server := exec.Command(program, append([]string{"--config.file=" + file, "--storage.tsdb.path=" + filepath.Join(dir, "data"), "--web.listen-address=" + address, "--log.level=warn"}, flags...)...)
	server.Stdout, server.Stderr = &said, &said
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Kill()
		_ = server.Wait()
		if t.Failed() {
			t.Log(said.String())
		}
	})
	return &prometheus{address}
}

// result is one series of an answer.
type result struct {
	labels map[string]string
	value  string
}

// query evaluates an expression now, or at a time in seconds since the epoch.
func (p *prometheus) query(expression string, at ...string) ([]result, error) {
	ask := url.Values{"query": {expression}}
	if len(at) > 0 {
		ask.Set("time", at[0])
	}
	response, err := http.Get("http://" + p.address + "/api/v1/query?" + ask.Encode())
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	var answer struct {
		Status, Error string
		Data          struct {
			Result []struct {
				Metric map[string]string
				Value  [2]any
			}
		}
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return nil, err
	}
	if answer.Status != "success" {
		return nil, fmt.Errorf("%s: %s", expression, answer.Error)
	}
	var out []result
	for _, r := range answer.Data.Result {
		out = append(out, result{r.Metric, fmt.Sprint(r.Value[1])})
	}
	return out, nil
}

// TestPrometheus has a real Prometheus read both pages, and evaluate what docs/metrics.md says to
// alert on.
func TestPrometheus(t *testing.T) {
	program, err := exec.LookPath("prometheus")
	if err != nil {
		t.Skip("needs prometheus, which is not installed")
	}
	p := startPair(t)
	server := startPrometheus(t, program, freePort(t), fmt.Sprintf(`
global: {scrape_interval: 2s, scrape_timeout: 2s}
scrape_configs:
- job_name: httpctl
  static_configs: [{targets: [%q, %q]}]
`, p.watcher, p.center))
	// query returns the values of an expression, none while Prometheus does not answer.
	query := func(expression string) (status string, values []string) {
		results, err := server.query(expression)
		for _, r := range results {
			values = append(values, r.value)
		}
		if err != nil {
			return err.Error(), nil
		}
		return "success", values
	}
	// eventually waits for values: a scrape is two seconds away, on a busy machine more.
	eventually := func(expression string, want ...string) {
		t.Helper()
		var status string
		var got []string
		for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
			if status, got = query(expression); slices.Equal(got, want) {
				return
			}
		}
		t.Fatalf("Prometheus: %s = %s %q, want %q", expression, status, got, want)
	}
	eventually("sum(up)", "2")
	eventually("httpctl_ingest_agents", "1")
	eventually("httpctl_uplink_connected", "1")
	_, table, _ := strings.Cut(page(t, "docs/metrics.md"), "\n## What to alert on\n")
	alerts := regexp.MustCompile("(?m)^\\| `([^`]+)`").FindAllStringSubmatch(table, -1)
	if len(alerts) < 5 {
		t.Fatalf("%d expressions to alert on were found in docs/metrics.md, want at least 5", len(alerts))
	}
	for _, m := range alerts {
		if status, _ := query(m[1]); status != "success" {
			t.Errorf("Prometheus: %s: %s", m[1], status)
		}
		eventually(m[1]) // no value, as all is well
		for _, name := range regexp.MustCompile(`httpctl_\w+`).FindAllString(m[1], -1) {
			if _, values := query(name); len(values) == 0 {
				t.Errorf("docs/metrics.md alerts on %s, which nobody serves", name)
			}
		}
	}
}
