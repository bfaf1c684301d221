// Package plugin tests the programs that the example makes, from a capture
// to the dashboard.
package plugin

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	agent "github.com/httpctl/httpctl/agent/app"
	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/stat"
	"github.com/httpctl/httpctl/pkg/testkit"

	"example.org/httpctl-plugin-tld/tld"
)

const settings = `
timeout: 200ms
dashboard_bucket_size: 1s
average_bucket_size: 1s
statistics: [totals, section, domain, tld]
`

// build compiles a program and returns its path.
func build(t *testing.T, dir, pkg string) string {
	t.Helper()
	path := filepath.Join(dir, strings.NewReplacer("/", "-", ".", "").Replace(pkg))
	cmd := exec.Command("go", "build", "-o", path, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build %s: %v\n%s", pkg, err, out)
	}
	return path
}

// capture holds 3 requests for .org and 2 for .com.
func capture(t *testing.T) string {
	c := testkit.NewConversation("192.0.2.1:40000", "192.0.2.2:80")
	c.Open()
	for _, host := range []string{"www.example.org", "example.com", "example.org", "shop.example.org", "www.example.com"} {
		c.ToServer("GET /cart HTTP/1.1\r\nHost: " + host + "\r\n\r\n")
		c.ToClient("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	}
	c.Close()
	return testkit.WriteFile(t, c.Frames...)
}

func run(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Logf("%s %s: %v\n%s", name, strings.Join(args, " "), err, stderr.Bytes())
	}
	return string(out), err
}

// row is a line of a top list.
type row struct {
	Key  string `json:"key"`
	Hits int64  `json:"hits"`
}

var want = []row{{"org", 3}, {"com", 2}}

// TestRead reads a capture with the example's own httpctl, as a file and as if it happened now.
func TestRead(t *testing.T) {
	dir, file := t.TempDir(), capture(t)
	httpctl := build(t, dir, "./cmd/httpctl")
	cfg := filepath.Join(dir, "up.yaml")
	if err := os.WriteFile(cfg, []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := run(t, httpctl, "read", "-o", "json", "--config", cfg, file)
	if err != nil {
		t.Fatal(err)
	}
	var report struct {
		Tops map[string][]row `json:"tops"`
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatal(err)
	}
	if got := report.Tops[tld.Name]; !slices.Equal(got, want) {
		t.Errorf("tops.tld = %v, want %v", got, want)
	}

	cmd := exec.CommandContext(t.Context(), httpctl, "up", "--replay", file, "--data", filepath.Join(dir, "data"), "--config", cfg)
	screen := &screen{wants: "org", under: "TOP-LEVEL DOMAINS", seen: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = screen, screen
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-screen.seen:
	case <-time.After(3 * time.Minute):
		t.Error("the dashboard never showed the list")
	}
	_ = cmd.Process.Signal(syscall.SIGINT)
	if err := cmd.Wait(); err != nil || t.Failed() {
		t.Errorf("httpctl up: %v\n%s", err, screen.text.String())
	}
}

// TestAgent checks the same settings with the example's agent and with the
// core's, which does not have the statistic.
func TestAgent(t *testing.T) {
	dir := t.TempDir()
	cfg := filepath.Join(dir, "agent.yaml")
	if err := os.WriteFile(cfg, []byte(settings+"agent: {capture: {interfaces: [lo]}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := run(t, build(t, dir, "./cmd/httpctl-agent"), "--config", cfg, "--check"); err != nil {
		t.Errorf("the example's agent: %v %s", err, out)
	}
	out, err := exec.Command(build(t, dir, "github.com/httpctl/httpctl/cmd/httpctl-agent"), "--config", cfg, "--check").CombinedOutput()
	if err == nil || !strings.Contains(string(out), `statistics[3]: "tld" is not allowed`) {
		t.Errorf("the core's agent: %v, %s; want it to name the statistic that it does not have", err, out)
	}
}

// screen collects output until one text has followed another.
type screen struct {
	text         bytes.Buffer
	under, wants string
	seen         chan struct{}
	done         bool
}

func (s *screen) Write(p []byte) (int, error) {
	s.text.Write(p)
	_, after, ok := strings.Cut(s.text.String(), s.under)
	if ok && strings.Contains(after, s.wants) && !s.done {
		s.done = true
		close(s.seen)
	}
	return len(p), nil
}

// TestFleet links the statistic into an agent only. The aggregator and the
// httpctl that asks are those of the core, which do not know it.
func TestFleet(t *testing.T) {
	if !slices.Contains(stat.Names(), tld.Name) {
		t.Fatal("the statistic is not linked into the agent of this test")
	}
	dir := t.TempDir()
	httpctl := build(t, dir, "github.com/httpctl/httpctl/cmd/httpctl")
	cfgFile := filepath.Join(dir, "fleet.yaml") // one for the whole fleet: the aggregator need not know its statistics
	if err := os.WriteFile(cfgFile, []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	center := exec.Command(build(t, dir, "github.com/httpctl/httpctl/cmd/httpctl-aggregator"), "--config", cfgFile)
	data := filepath.Join(dir, "data")
	center.Env = append(os.Environ(), "HTTPCTL_AGGREGATOR_DATA="+data, "HTTPCTL_AGGREGATOR_LISTEN=")
	var log bytes.Buffer
	center.Stderr = &log
	if err := center.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = center.Process.Signal(syscall.SIGTERM)
		if err := center.Wait(); err != nil || t.Failed() {
			t.Errorf("httpctl-aggregator: %v\n%s", err, log.String())
		}
	})
	address := "unix:" + config.SocketPath(data)

	set, cfg := config.DefaultSettings(), agent.DefaultConfig()
	set.DashboardBucketSize, set.Statistics = time.Second, []string{"totals", "section", "domain", tld.Name}
	cfg.State, cfg.Aggregator = filepath.Join(dir, "agent"), address
	a, err := agent.Start(t.Context(), set, cfg, capture(t), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})

	var rows []row
	for deadline := time.Now().Add(3 * time.Minute); !slices.Equal(rows, want); time.Sleep(200 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("httpctl top tld gave %v, want %v", rows, want)
		}
		out, err := run(t, httpctl, "top", tld.Name, "-o", "json", "--aggregator", address)
		if err != nil {
			continue // nothing has arrived yet, so there is no such list yet
		}
		var top struct {
			Rows []row `json:"rows"`
		}
		if err := json.Unmarshal([]byte(out), &top); err != nil {
			t.Fatal(err)
		}
		rows = top.Rows
	}
	out, err := run(t, httpctl, "dashboard", "--once", "--aggregator", address)
	if err != nil {
		t.Fatal(err)
	}
	if _, after, ok := strings.Cut(out, "TOP-LEVEL DOMAINS"); !ok || !strings.Contains(after, "org") {
		t.Errorf("the dashboard does not show the list:\n%s", out)
	}
}
