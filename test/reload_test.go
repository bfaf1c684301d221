package test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	agent "github.com/httpctl/httpctl/agent/app"
	aggregator "github.com/httpctl/httpctl/aggregator/app"
	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/testkit"
)

// hangup has a program read its configuration again, and returns what it says until it is done.
func hangup(t *testing.T, b *background) string {
	t.Helper()
	before := len(b.out.String())
	if err := b.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		said := b.out.String()[before:]
		if strings.Contains(said, "the configuration is ") {
			return said
		}
		if time.Now().After(deadline) {
			t.Fatalf("no reload within %v of SIGHUP:\n%s", patience, b.out.String())
		}
	}
}

// configMap is a folder as Kubernetes fills it from a ConfigMap: the file is a link to one in a folder that a link
// names, which is replaced.
type configMap struct {
	dir string
	n   int
}

func (m *configMap) set(t *testing.T, name, text string) {
	t.Helper()
	m.n++
	version := fmt.Sprintf("..%d", m.n)
	steps := []error{
		os.Mkdir(filepath.Join(m.dir, version), 0o755),
		os.WriteFile(filepath.Join(m.dir, version, name), []byte(text), 0o644),
		os.Symlink(version, filepath.Join(m.dir, "..next")),
		os.Rename(filepath.Join(m.dir, "..next"), filepath.Join(m.dir, "..data")),
	}
	if m.n == 1 {
		steps = append(steps, os.Symlink("..data/"+name, filepath.Join(m.dir, name)))
	} else {
		steps = append(steps, os.RemoveAll(filepath.Join(m.dir, fmt.Sprintf("..%d", m.n-1))))
	}
	for _, err := range steps {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestReload has both daemons reload while requests are counted: settings change, wrong ones change nothing, and at
// the end every request was counted once.
func TestReload(t *testing.T) {
	t.Parallel()
	mayCapture(t)
	var served atomic.Int64
	site := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { served.Add(1) }))
	defer site.Close()
	_, port, _ := strings.Cut(strings.TrimPrefix(site.URL, "http://"), ":")
	domain := fmt.Sprintf("reload-%d.example.org", os.Getpid())
	certs := testkit.Certificates(t, map[string]netip.Addr{"center": netip.MustParseAddr("127.0.0.1"), "web": {}, "reader": {}})
	for _, kind := range []string{"pem", "key"} {
		data, err := os.ReadFile(certs + "/web." + kind)
		if err == nil {
			err = os.WriteFile(certs+"/renewed."+kind, data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	tls := func(name string) string {
		return fmt.Sprintf("tls: {cert_file: %[1]s/%[2]s.pem, key_file: %[1]s/%[2]s.key, ca_file: %[1]s/ca.pem}", certs, name)
	}

	data, state, address, centerPage, watcherPage := t.TempDir(), t.TempDir(), freePort(t), freePort(t), freePort(t)
	centerFile := filepath.Join(t.TempDir(), "aggregator.yaml")
	setCenter := func(more string) {
		t.Helper()
		text := more + "\ndashboard_bucket_size: 1s\nhost_gone_after: 1m\naggregator:\n  data: " + data + "\n  listen: [" + address + "]\n  metrics: " + centerPage + "\n  " + tls("center") + "\n  roles: {agent: [web]}\n"
		if err := os.WriteFile(centerFile+".new", []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(centerFile+".new", centerFile); err != nil {
			t.Fatal(err)
		}
	}
	setCenter("average_bucket_size: 10s")
	center := launch(t, "httpctl-aggregator", "--config", centerFile)
	center.says(t, "serving")
	watcherFile := configMap{dir: t.TempDir()}
	setWatcher := func(cert, more string) {
		t.Helper()
		watcherFile.set(t, "agent.yaml", "agent:\n  state: "+state+"\n  aggregator: "+address+"\n  metrics: "+watcherPage+"\n  "+tls(cert)+"\n  "+more+"\n")
	}
	setWatcher("web", "capture: {poll_timeout: 50ms, block_size: 128KiB}")
	watcher := launch(t, "httpctl-agent", "-i", "lo", "--config", watcherFile.dir+"/agent.yaml")
	watcher.says(t, "connected")
	watcher.says(t, "the agent is confined")

	request := func() {
		r, err := http.NewRequest("GET", site.URL+"/", nil)
		if err != nil {
			t.Error(err)
			return
		}
		r.Host = domain
		if response, err := http.DefaultClient.Do(r); err != nil {
			t.Error(err)
		} else {
			response.Body.Close()
		}
	}
	done := make(chan struct{})
	var flow sync.WaitGroup
	stop := sync.OnceFunc(func() { close(done); flow.Wait() })
	defer stop()
	flow.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(2 * time.Millisecond):
				request()
			}
		}
	})
	says := func(b *background, parts ...string) {
		t.Helper()
		said := hangup(t, b)
		for _, part := range parts {
			if !strings.Contains(said, part) {
				t.Errorf("after SIGHUP %s says\n%swant %s in it", filepath.Base(b.cmd.Path), said, part)
			}
		}
	}
	ask := func(args ...string) said {
		return try(t, nil, append(append([]string{"httpctl"}, args...), "-o", "json", "--aggregator", "unix:"+data+"/httpctl.sock")...)
	}
	metric := func(page, want string) {
		t.Helper()
		if text := fetch(t, page); !strings.Contains(text, "\n"+want+"\n") {
			t.Errorf("the page has no %q", want)
		}
	}

	setCenter("average_bucket_size: 10s\naverage_threshold: 77\nmax_top_hits: 3\ntimeout: 500ms")
	says(center, "key=average_threshold was=10 is=77", "key=max_top_hits was=10 is=3", "key=timeout was=2s is=500ms", "changed=3 need_restart=0")
	if got := ask("baseline"); !strings.Contains(got.stdout, `"threshold_percent": 77`) {
		t.Errorf("the threshold is not in force: %s%s", got.stdout, got.stderr)
	}
	setCenter("average_bucket_size: 10s\naverage_threshold: 50\nmax_tops: 3")
	says(center, "all settings stay as they were", "max_tops: there is no such key")
	metric(centerPage, "httpctl_config_last_reload_successful 0")
	checked := try(t, nil, "httpctl-aggregator", "--check", "--config", centerFile)
	if checked.code != 2 || !strings.Contains(checked.stderr, "max_tops: there is no such key") {
		t.Errorf("--check = %d, %s, want the same fault", checked.code, checked.stderr)
	}
	if got := ask("baseline"); !strings.Contains(got.stdout, `"threshold_percent": 77`) {
		t.Errorf("a wrong file has changed the threshold: %s%s", got.stdout, got.stderr)
	}
	eventually(t, "learning has begun", func() error {
		if got := ask("baseline"); strings.Contains(got.stdout, `"learning_end": null`) || !strings.Contains(got.stdout, `"learning_end"`) {
			return fmt.Errorf("%s%s", got.stdout, got.stderr)
		}
		return nil
	})
	setCenter("average_bucket_size: 15s\naverage_threshold: 60")
	says(center, "key=average_bucket_size was=10s is=15s", "average_bucket_size changed, learning a new baseline", "key=average_threshold was=77 is=60")
	metric(centerPage, "httpctl_config_last_reload_successful 1")

	setWatcher("web", "host_name: other\n  backoff_max: 1s\n  capture: {poll_timeout: 50ms, block_size: 128KiB, ports: ["+port+"]}\nlog: {level: warn}")
	says(watcher, `key=agent.host_name`, "a changed setting needs a restart", "key=agent.backoff_max was=30s is=1s", "key=agent.capture.ports was=[] is=["+port+"]", "key=log.level", "changed=3 need_restart=1")
	setWatcher("renewed", "backoff_max: 1s\n  capture: {poll_timeout: 50ms, block_size: 128KiB, ports: ["+port+"]}\nlog: {level: info}")
	says(watcher, "key=agent.tls.cert_file", "renewed.pem", "from=\"at once: the agent connects anew\"", `key=log.level was="\"warn\"" is="\"info\""`)
	showsMetric(t, watcherPage, "httpctl_uplink_connected 1") // with the other certificate
	setWatcher("none", "capture: {poll_timeout: 50ms, block_size: 128KiB}")
	says(watcher, "all settings stay as they were", "none.pem")
	metric(watcherPage, "httpctl_config_last_reload_successful 0")
	setWatcher("renewed", "local_networks: [203.0.113.0/24]\n  spool: {max_size: 32MiB}\n  stream: {flow_idle_timeout: 5m}\n  capture: {poll_timeout: 50ms, block_size: 128KiB}")
	says(watcher, "key=agent.local_networks", "key=agent.spool.max_size was=256MiB is=32MiB", "key=agent.stream.flow_idle_timeout was=10m is=5m", "key=agent.capture.ports was=["+port+"] is=[]")

	stop()
	counted := func() (n int64) {
		got := ask("top", "domain", "--since", "1h", "--limit", "1000")
		var answer top
		if err := json.Unmarshal([]byte(got.stdout), &answer); err != nil {
			t.Fatalf("%v: %s", err, got.stderr)
		}
		for _, row := range answer.Rows {
			if row.Key == domain {
				n = row.Hits
			}
		}
		return n
	}
	eventually(t, "every request is counted", func() error {
		if n := counted(); n != served.Load() {
			return fmt.Errorf("%d requests counted, %d served", n, served.Load())
		}
		return nil
	})
	n := served.Load()

	// The kernel passes other ports only from here on.
	setWatcher("renewed", "capture: {poll_timeout: 50ms, block_size: 128KiB, ports: [1]}")
	says(watcher, "key=agent.capture.ports was=[] is=[1]")
	for range 20 {
		request()
	}
	setWatcher("renewed", "capture: {poll_timeout: 50ms, block_size: 128KiB}")
	says(watcher, "key=agent.capture.ports was=[1] is=[]")
	asked := int64(0)
	eventually(t, "what is asked of the port again is counted", func() error {
		request() // one may pass before the kernel has the new filter
		asked++
		if got := counted(); got <= n || got > n+asked {
			return fmt.Errorf("%d requests counted, want %d and some of %d", got, n, asked)
		}
		return nil
	})
	t.Logf("%d requests over 9 reloads: each counted once", n)
	for _, b := range []*background{watcher, center} {
		if code := b.stop(t, syscall.SIGTERM); code != 0 {
			t.Errorf("%s ends with %d, want 0:\n%s", b.cmd.Path, code, b.out.String())
		}
	}
}

// TestDocsReload writes the table of docs/configuration.md that says what a reload changes, and compares. With
// -update it writes the page.
func TestDocsReload(t *testing.T) {
	a, g := agent.DefaultConfig(), aggregator.DefaultConfig()
	f, err := config.Load("", nil, config.Section{Name: "agent", Into: &a}, config.Section{Name: "aggregator", Into: &g})
	if err != nil {
		t.Fatal(err)
	}
	var table strings.Builder
	table.WriteString("| a changed value is in force | of |\n|---|---|\n")
	keys, restart := f.Keys(), 0
	for _, k := range keys { // a line for each, so that changes to several merge
		if k.Reload == "" {
			k.Reload = "after a restart"
			restart++
		}
		fmt.Fprintf(&table, "| %s | `%s` |\n", k.Reload, k.Path)
	}
	if len(keys) < 60 || restart < 20 || len(keys)-restart < 20 {
		t.Fatalf("%d keys found, %d of them without reload", len(keys), restart)
	}
	generated(t, "docs/configuration.md", map[string]string{"reload": table.String()})
}
