package test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/httpctl/httpctl/pkg/config"
)

// TestDocsDebug runs the commands of docs/operations.md for who looks for a fault, as they stand there but for interface, paths and ports,
// beside an agent that sees requests, and an aggregator. Those of systemd are tried by the packages' test.
func TestDocsDebug(t *testing.T) {
	t.Parallel()
	mayCapture(t)
	installed(t, "curl", "tcpdump")
	commands := commandsOf(t, "docs/operations.md", "## Debug")
	web := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(web.Close)
	var asking sync.WaitGroup
	t.Cleanup(asking.Wait)
	asking.Go(func() {
		for t.Context().Err() == nil {
			if r, err := http.Get(web.URL + "/page"); err == nil {
				r.Body.Close()
			}
			time.Sleep(20 * time.Millisecond)
		}
	})
	dir, metrics := t.TempDir(), freePort(t)
	data := filepath.Join(dir, "data")
	socket := "unix:" + config.SocketPath(data)
	center := launch(t, "httpctl-aggregator", "--config", write(t, "aggregator.yaml", "dashboard_bucket_size: 1s\naverage_bucket_size: 10s\naggregator:\n  data: "+data+"\n  listen: []\n"))
	center.says(t, "address="+socket)
	settings := write(t, "agent.yaml", "agent:\n  state: "+filepath.Join(dir, "state")+"\n  aggregator: "+socket+"\n  metrics: "+metrics+"\n  capture: {interfaces: [lo]}\n")
	launch(t, "httpctl-agent", "--config", settings).says(t, "connected to the aggregator")

	path := strings.Join([]string{filepath.Dir(program(t, "httpctl")), filepath.Dir(program(t, "httpctl-agent")), os.Getenv("PATH")}, ":")
	says := map[string]string{
		"httpctl config check ": "agent.yaml", "httpctl config dump ": "interfaces:", "httpctl-agent --config ": "This host can capture on lo", "httpctl hosts ": "reporting",
		"curl -s http://127.0.0.1:7422/metrics": "httpctl_uplink_connected 1", "curl -s http://127.0.0.1:7422/readyz": "ok",
		"tcpdump ": "packets captured", "httpctl read sample.pcap": "/page", "httpctl read --exchanges ": "GET",
	}
	for _, command := range commands {
		if strings.HasPrefix(command, "systemctl ") || strings.HasPrefix(command, "journalctl ") {
			continue
		}
		plain := strings.TrimPrefix(command, "sudo ")
		want, found := "", false
		for begin, text := range says {
			if strings.HasPrefix(plain, begin) {
				want, found = text, true
				delete(says, begin)
			}
		}
		if !found {
			t.Errorf("the page has the command %q, of which this test does not know what it says", command)
			continue
		}
		script := strings.NewReplacer("/etc/httpctl/agent.yaml", settings, "127.0.0.1:7422", metrics, "eth0", "lo", "-c 100000", "-c 200").Replace(plain)
		if strings.HasPrefix(plain, "httpctl hosts") {
			script += " --aggregator " + socket
		}
		eventually(t, script, func() error { // that a host reports, say, may take a moment
			cmd := exec.Command("bash", "-c", script)
			cmd.Dir, cmd.Env = dir, []string{"HOME=/nonexistent", "LANG=C.UTF-8", "PATH=" + path}
			if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(strings.ToLower(string(out)), strings.ToLower(want)) {
				return fmt.Errorf("%v, want %q in\n%s", err, want, out)
			}
			return nil
		})
	}
	if len(says) > 0 {
		t.Errorf("the page lacks commands that begin with %v", says)
	}
}
