package test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	agent "github.com/httpctl/httpctl/agent/app"
)

// threadsOf returns the values of a field of /proc/PID/status, of all threads of a program.
func threadsOf(t *testing.T, b *background, field string) map[string]int {
	t.Helper()
	paths, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", b.cmd.Process.Pid))
	if err != nil || len(paths) == 0 {
		t.Fatalf("threads of %s: %v, %v", b.cmd.Path, paths, err)
	}
	values := map[string]int{}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		if m := regexp.MustCompile(`(?m)^` + field + `:\s*(\S+)$`).FindSubmatch(text); m != nil {
			values[string(m[1])]++
		}
	}
	return values
}

// mayCapture skips a test where nothing can be captured.
func mayCapture(t *testing.T) {
	t.Helper()
	cfg := agent.DefaultConfig()
	cfg.Capture.Interfaces = []string{"lo"}
	if err := agent.Check(cfg, ""); err != nil {
		t.Skipf("needs CAP_NET_RAW: %v", err)
	}
}

// showConfine starts an agent with and without its confinement.
func showConfine(t *testing.T) {
	mayCapture(t)
	for _, on := range []bool{true, false} {
		watcher := launch(t, "httpctl-agent", "-i", "lo", "--config", write(t, "agent.yaml",
			fmt.Sprintf("agent:\n  state: %s\n  aggregator: unix:/nonexistent/socket\n  confine: %v\n", t.TempDir(), on)))
		want := "0"
		if on {
			watcher.says(t, "the agent is confined")
			want = "2"
		} else {
			watcher.says(t, "the agent is not confined, as agent.confine is off")
		}
		if got := threadsOf(t, watcher, "Seccomp"); len(got) != 1 || got[want] == 0 {
			t.Errorf("with confine: %v the threads' Seccomp is %v, want %s for all", on, got, want)
		}
		if code := watcher.stop(t, syscall.SIGTERM); code != 0 {
			t.Errorf("with confine: %v the agent ends with %d, want 0:\n%s", on, code, watcher.out.String())
		}
	}
}

// TestConfinedAgent has a confined agent lose its aggregator, and find it again by name,
// while it counts and spools.
func TestConfinedAgent(t *testing.T) {
	t.Parallel()
	mayCapture(t)
	site := httptest.NewServer(http.NotFoundHandler())
	defer site.Close()
	data, state, address, metrics := t.TempDir(), t.TempDir(), freePort(t), freePort(t)
	_, port, _ := strings.Cut(address, ":")
	center := write(t, "aggregator.yaml", "dashboard_bucket_size: 1s\naverage_bucket_size: 10s\naggregator:\n  data: "+data+"\n  listen: ["+address+"]\n")
	first := launch(t, "httpctl-aggregator", "--config", center)
	first.says(t, "serving")
	watcher := launch(t, "httpctl-agent", "-i", "lo", "--config", write(t, "agent.yaml",
		"agent:\n  state: "+state+"\n  aggregator: localhost:"+port+"\n  backoff_max: 1s\n  metrics: "+metrics+"\n"))
	watcher.says(t, "the agent is confined")
	for field, want := range map[string]string{"Seccomp": "2", "NoNewPrivs": "1", "CapEff": "0000000000000000", "CapPrm": "0000000000000000", "CapAmb": "0000000000000000"} {
		if got := threadsOf(t, watcher, field); len(got) != 1 || got[want] == 0 {
			t.Errorf("the threads' %s is %v, want %s for all", field, got, want)
		}
	}
	showsMetric(t, metrics, "httpctl_uplink_connected 1")
	showsMetric(t, metrics, `httpctl_confined{part="seccomp"} 1`)
	showsMetric(t, metrics, `httpctl_confined{part="capabilities"} 1`)
	if text := fetch(t, metrics); !strings.Contains(text, "\nprocess_resident_memory_bytes ") || !strings.Contains(text, "\nprocess_start_time_seconds ") {
		t.Error("the confined agent does not know its own memory or start any more")
	}
	// It counts, and spools while the aggregator is away.
	first.stop(t, syscall.SIGKILL)
	showsMetric(t, metrics, "httpctl_uplink_connected 0")
	if response, err := http.Get(site.URL + "/away"); err != nil {
		t.Fatal(err)
	} else {
		response.Body.Close()
	}
	again := launch(t, "httpctl-aggregator", "--config", center)
	again.says(t, "serving")
	showsMetric(t, metrics, "httpctl_uplink_connected 1")
	eventually(t, "what was counted meanwhile is stored", func() error {
		said := try(t, nil, "httpctl", "top", "section", "-o", "json", "--since", "1h", "--aggregator", address)
		if !strings.Contains(said.stdout, "/away") {
			return fmt.Errorf("%s%s", said.stdout, said.stderr)
		}
		return nil
	})
	for _, trouble := range []string{"permission denied", "operation not permitted", "not confined"} {
		if strings.Contains(watcher.out.String(), trouble) {
			t.Errorf("the confined agent says %q:\n%s", trouble, watcher.out.String())
		}
	}
	if code := watcher.stop(t, syscall.SIGTERM); code != 0 {
		t.Errorf("the confined agent ends with %d, want 0:\n%s", code, watcher.out.String())
	}
}
