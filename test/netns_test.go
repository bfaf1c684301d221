package test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"testing"

	"github.com/httpctl/httpctl/pkg/testkit"
)

// givesUp waits for a program to have given up CAP_SYS_ADMIN, and nothing more than that.
func givesUp(t *testing.T, b *background) {
	t.Helper()
	eventually(t, "CAP_SYS_ADMIN is given up", func() error {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", b.cmd.Process.Pid))
		if err != nil {
			return err
		}
		m := regexp.MustCompile(`CapEff:\s*([0-9a-f]+)`).FindSubmatch(status)
		if m == nil {
			return errors.New("the capabilities are not known")
		}
		if caps, err := strconv.ParseUint(string(m[1]), 16, 64); err != nil || caps>>21&1 != 0 {
			return fmt.Errorf("the capabilities are %s", m[1])
		}
		return nil
	})
}

// TestUpInNamespace: `httpctl up` gives up what it needed to enter a network namespace, too.
func TestUpInNamespace(t *testing.T) {
	need(t, "ip")
	t.Parallel()
	lab, err := testkit.NewLab("up")
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { lab.Close() })
	up := launch(t, "httpctl", "up", "--netns", lab.Namespace("up"), "--data", t.TempDir())
	givesUp(t, up)
	if code := up.stop(t, syscall.SIGTERM); code != 0 {
		t.Errorf("httpctl up ended with exit code %d:\n%s", code, up.out.String())
	}
}

// TestNetworkNamespaces runs an agent outside two hosts of a lab that captures inside both. When the
// first goes it counts what was open there and goes on with the second in time; when that goes, too, it stops.
func TestNetworkNamespaces(t *testing.T) {
	need(t, "ip", "nginx", "curl")
	t.Parallel()
	lab, err := testkit.NewLab("blue", "green")
	if err != nil {
		t.Skip(err)
	}
	defer lab.Close()
	site := worldReadable(t)
	conf, err := testkit.WriteNginx(site, 80)
	if err != nil {
		t.Fatal(err)
	}
	// One that is ended before the test ends: its namespace is to go.
	nginx := lab.Command(t.Context(), "blue", "nginx", "-c", conf)
	if err := nginx.Start(); err != nil {
		t.Fatal(err)
	}
	data := t.TempDir()
	socket := filepath.Join(data, "httpctl.sock")
	metrics := freePort(t)
	aggregator := launch(t, "httpctl-aggregator", "--config", write(t, "aggregator.yaml",
		"dashboard_bucket_size: 2s\naverage_bucket_size: 10s\naggregator:\n  data: "+data+"\n  listen: []\n"))
	aggregator.says(t, "serving")
	agent := launch(t, "httpctl-agent", "--netns", lab.Namespace("blue"), "--netns", lab.Namespace("green"), "--config", write(t, "agent.yaml",
		"dashboard_bucket_size: 2s\nagent:\n  state: "+t.TempDir()+"\n  aggregator: unix:"+socket+"\n  metrics: "+metrics+"\n  capture: {rings: 2}\n"))
	agent.says(t, "connected")
	givesUp(t, agent)

	curl := func(host string, args ...string) {
		t.Helper()
		// Of several requests whose first are refused, as nginx does not listen yet, it would tell how the last one went.
		args = append([]string{"-sS", "-o", "/dev/null", "--max-time", "120", "--fail-early"}, args...)
		eventually(t, "curl", func() error {
			out, err := lab.Command(t.Context(), host, "curl", args...).CombinedOutput()
			if err != nil {
				err = fmt.Errorf("%w: %s", err, out)
			}
			return err
		})
	}
	hits := func(dimension, key string, args ...string) (n int64) {
		t.Helper()
		said := try(t, nil, append([]string{"httpctl", "top", dimension, "-o", "json", "--since", "1h", "--aggregator", "unix:" + socket}, args...)...)
		var answer top
		if err := json.Unmarshal([]byte(said.stdout), &answer); err != nil {
			return 0
		}
		for _, row := range answer.Rows {
			if row.Key == key {
				n += row.Hits
			}
		}
		return n
	}
	counted := func(what string, want int64, dimension, key string, args ...string) {
		t.Helper()
		eventually(t, what, func() error {
			if got := hits(dimension, key, args...); got != want {
				return fmt.Errorf("%d requests, want %d", got, want)
			}
			return nil
		})
	}
	// On the lo of blue, which nothing outside sees; and from green to blue, which is seen in both.
	curl("blue", "http://127.0.0.1/small/[1-20].txt", "-H", "Host: inside.example.org")
	curl("green", "http://"+lab.Address("blue").String()+"/small/[1-10].txt", "-H", "Host: between.example.org")
	counted("requests on the namespace's own lo", 20, "domain", "inside.example.org")
	counted("requests between two namespaces, once in each", 20, "domain", "between.example.org")
	counted("both ends are addresses of captured namespaces", 20, "domain", "between.example.org", "--role", "server")

	// An exchange that is open when blue goes.
	hold := lab.Command(t.Context(), "green", "bash", "-c", "exec 3<>/dev/tcp/"+lab.Address("blue").String()+"/80; printf 'POST /form HTTP/1.1\\r\\nHost: open.example.org\\r\\nContent-Length: 100\\r\\n\\r\\n' >&3; exec sleep 600")
	if err := hold.Start(); err != nil {
		t.Fatal(err)
	}
	counted("the open request, once in each", 2, "domain", "open.example.org")
	_ = nginx.Process.Signal(syscall.SIGTERM)
	_ = nginx.Wait()
	if err := lab.Delete("blue"); err != nil {
		t.Fatal(err)
	}
	agent.says(t, "a network namespace has gone")
	eventually(t, "the namespace's devices are gone", func() error {
		if out, err := exec.Command("ip", "-n", lab.Namespace("switch"), "link", "show", "port0").CombinedOutput(); err == nil {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	_ = hold.Process.Kill()
	_ = hold.Wait()

	// green goes on, its intervals close in time.
	server := lab.Command(t.Context(), "green", "nginx", "-c", conf)
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	curl("green", "http://127.0.0.1/small/[1-15].txt", "-H", "Host: later.example.org")
	counted("requests in the namespace that is left", 15, "domain", "later.example.org")
	showsMetric(t, metrics, "httpctl_agent_requests_total 57")
	page := fetch(t, metrics)
	for name, want := range map[string]string{"kernel_drops": "0", "gap_bytes": "0", "late_events": "0", "requests": "57"} {
		if m := regexp.MustCompile(`(?m)^httpctl_agent_` + name + `_total (\S+)$`).FindStringSubmatch(page); m == nil || m[1] != want {
			t.Errorf("%s = %v, want %s", name, m, want)
		}
	}
	_ = server.Process.Signal(syscall.SIGTERM)
	_ = server.Wait()
	if err := lab.Delete("green"); err != nil {
		t.Fatal(err)
	}
	agent.says(t, "nothing is left to capture")
	if code := agent.stop(t, 0); code != 1 {
		t.Errorf("with nothing left to capture the agent ended with exit code %d, want 1", code)
	}
	counted("nothing is lost at the end", 15, "domain", "later.example.org")
}
