package test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/httpctl/httpctl/pkg/testkit"
)

// tailLine is a line of `httpctl tail -o json`.
type tailLine struct {
	Host, Client, Role, Method, Path, Section string
	UserAgent                                 string `json:"user_agent"`
	Status                                    int
	TTFB                                      *float64 `json:"ttfb_seconds"`
	Summary                                   *struct {
		Matched, Shown, Dropped, Waiting int
		OverRate                         int `json:"over_rate"`
		KernelDrops                      int `json:"kernel_drops"`
		End                              *string
		Missing                          []struct{ Host, Reason string }
	}
}

// tailLines reads what a tail has written, but for a last line that is not whole.
func tailLines(t *testing.T, text string) (shown []tailLine, last tailLine) {
	t.Helper()
	for line := range strings.Lines(text) {
		var l tailLine
		if !strings.HasSuffix(line, "\n") {
			break
		}
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if l.Summary != nil {
			last = l
		} else {
			shown = append(shown, l)
		}
	}
	return shown, last
}

// TestTail tails two web servers' hosts of a lab, of which one allows it: every request of a slow series is shown once with what nginx logs;
// in a flood, what is shown and what is dropped are together what nginx logs; and who may not sees nothing.
func TestTail(t *testing.T) {
	need(t, "ip", "nginx", "curl")
	t.Parallel()
	lab, err := testkit.NewLab("client", "web1", "web2")
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { lab.Close() })
	data := worldReadable(t)
	socket := filepath.Join(data, "httpctl.sock")
	aggregator := launch(t, "httpctl-aggregator", "--config", write(t, "aggregator.yaml",
		"dashboard_bucket_size: 1s\naverage_bucket_size: 10s\naggregator:\n  data: "+data+"\n  listen: []\n"))
	aggregator.says(t, "serving")
	site := worldReadable(t)
	conf, err := testkit.WriteNginx(site, 80)
	if err != nil {
		t.Fatal(err)
	}
	launchCommand(t, lab.Command(t.Context(), "web1", "nginx", "-c", conf))
	agents, files, states := map[string]*background{}, map[string]string{}, map[string]string{}
	allow := func(host, allow string) {
		t.Helper()
		if err := os.WriteFile(files[host], []byte("dashboard_bucket_size: 1s\nagent:\n  host_name: "+host+"\n  state: "+states[host]+"\n  aggregator: unix:"+socket+
			"\n  capture: {interfaces: [eth0], poll_timeout: 50ms, block_size: 128KiB}\n  tail: {allow: "+allow+"}\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for host, allowed := range map[string]string{"web1": "true", "web2": "false"} {
		files[host], states[host] = filepath.Join(t.TempDir(), "agent.yaml"), t.TempDir()
		allow(host, allowed)
		agents[host] = launchCommand(t, lab.Command(t.Context(), host, program(t, "httpctl-agent"), "--config", files[host]))
		agents[host].says(t, "connected")
	}
	base := "http://" + lab.Address("web1").String()
	curl := func(args ...string) {
		t.Helper()
		args = append([]string{"-sS", "-o", "/dev/null", "--max-time", "120"}, args...)
		if out, err := lab.Command(t.Context(), "client", "curl", args...).CombinedOutput(); err != nil {
			t.Fatalf("curl %v: %v: %s", args, err, out)
		}
	}
	curl("--retry", "20", "--retry-connrefused", "--retry-delay", "1", "-H", "Host: before.example.org", base+"/small/1.txt") // nginx is there

	// Who may not: the host that does not allow it, and a reader who is no admin, which is logged once.
	if said := try(t, nil, "httpctl", "tail", "--host", "web2", "--aggregator", "unix:"+socket); said.code != 1 || !strings.Contains(said.stderr, "agent.tail.allow: true") {
		t.Errorf("of a host that does not allow it: exit %d, %s", said.code, said.stderr)
	}
	if err := os.Chmod(socket, 0o666); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		said := try(t, func(c *exec.Cmd) {
			c.Dir, c.SysProcAttr = "/", &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534, NoSetGroups: true}}
		}, "httpctl", "tail", "--aggregator", "unix:"+socket)
		if said.code != 1 || !strings.Contains(said.stderr, "Tail needs the role admin") || said.stdout != "" {
			t.Errorf("of a reader: exit %d, %s%s", said.code, said.stdout, said.stderr)
		}
	}
	if n := strings.Count(aggregator.out.String(), "a call is refused"); n != 1 {
		t.Errorf("the refusals are logged %d times, want once:\n%s", n, aggregator.out.String())
	}
	if strings.Contains(agents["web1"].out.String()+agents["web2"].out.String(), "live exchanges") {
		t.Errorf("an agent was asked by who may not:\n%s%s", agents["web1"].out.String(), agents["web2"].out.String())
	}

	start := func(args ...string) (cmd *exec.Cmd, out, errs *output) {
		t.Helper()
		before := strings.Count(agents["web1"].out.String(), "live exchanges are shown")
		cmd = exec.Command(program(t, "httpctl"), append([]string{"tail", "-o", "json", "--for", "30m", "--aggregator", "unix:" + socket}, args...)...)
		out, errs = new(output), new(output)
		cmd.Stdout, cmd.Stderr, cmd.Env = out, errs, []string{"HOME=/nonexistent"}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
		eventually(t, "the agent is asked", func() error {
			if n := strings.Count(agents["web1"].out.String(), "live exchanges are shown"); n <= before {
				return fmt.Errorf("%d tails: %s", n, errs.String())
			}
			return nil
		})
		return cmd, out, errs
	}

	// A slow series, each request a path of its own.
	const slow = 12
	cmd, out, errs := start("--domain", "slow.example.org", "--method", "GET", "--user-agent", "curl", "-n", fmt.Sprint(slow))
	want := map[string]int{}
	for i := range slow {
		path, status := fmt.Sprintf("/small/%d.txt", i+1), 200
		switch i % 3 {
		case 1:
			path, status = fmt.Sprintf("/missing/%d", i), 404
		case 2:
			path, status = fmt.Sprintf("/broken/%d", i), 500
		}
		want[path] = status
		curl("-H", "Host: slow.example.org", base+path+"?token=secret")
		curl("-I", "-H", "Host: slow.example.org", base+path) // does not match
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("after %d exchanges the tail ends with %v, %s", slow, err, errs.String())
	}
	shown, last := tailLines(t, out.String())
	client := lab.Address("client").String() + ":"
	for _, x := range shown {
		if want[x.Path] != x.Status || x.Host != "web1" || x.Method != "GET" || !strings.HasPrefix(x.Client, client) || x.Role != "server" || x.TTFB == nil || !strings.HasPrefix(x.UserAgent, "curl/") ||
			!strings.HasPrefix(x.Section, "slow.example.org/") {
			t.Errorf("shown %+v, want status %d", x, want[x.Path])
		}
		delete(want, x.Path)
	}
	if len(want) > 0 || len(shown) != slow {
		t.Errorf("%d shown, of which were not: %v", len(shown), want)
	}
	if s := last.Summary; s == nil || s.Matched != slow || s.Shown != slow || s.Dropped != 0 || s.End == nil || len(s.Missing) != 1 || s.Missing[0].Host != "web2" {
		t.Errorf("the last summary is %+v", s)
	}
	if strings.Contains(out.String(), "secret") {
		t.Error("a query is shown")
	}

	// A flood: two thousand in some seconds, of which a host shows a hundred each. What was captured last is told within a
	// second and poll_timeout; where that is not enough, or the flood is too slow, another one has more time.
	const total = 2000
	floods := 0
	flood := func(wait time.Duration) error {
		t.Helper()
		floods++
		domain := fmt.Sprintf("flood%d.example.org", floods)
		cmd, out, errs := start("--domain", domain)
		curl("-H", "Host: "+domain, base+"/small/[1-100].txt?n=[1-20]")
		eventually(t, "nginx has written its log", func() error {
			log, err := testkit.ReadAccessLog(site)
			if err == nil && log.Tops["domain"][domain] != total {
				err = fmt.Errorf("%d requests so far", log.Tops["domain"][domain])
			}
			return err
		})
		time.Sleep(wait)
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("Ctrl-C ends the tail with %v, %s", err, errs.String())
		}
		shown, last := tailLines(t, out.String())
		s := last.Summary
		if s == nil || s.Matched != total || s.Shown+s.Dropped != total || s.Shown != len(shown) || s.OverRate == 0 || s.Waiting != 0 || s.KernelDrops != 0 {
			return fmt.Errorf("nginx logs %d requests, %d are shown, the last summary is %+v", total, len(shown), s)
		}
		t.Logf("of %d requests %d were shown and %d dropped", total, s.Shown, s.Dropped)
		return nil
	}
	err = flood(1500 * time.Millisecond)
	for wait := 5 * time.Second; err != nil && wait <= 40*time.Second; wait *= 2 {
		t.Log(err)
		err = flood(wait)
	}
	if err != nil {
		t.Error(err)
	}
	for _, b := range []*background{aggregator, agents["web1"]} {
		if said := b.out.String(); !strings.Contains(said, "user 0 of the socket") || strings.Count(said, "a tail of live exchanges has ended") < 1 {
			t.Errorf("the log does not have who tailed, and until when:\n%s", said)
		}
	}
	if said := agents["web2"].out.String(); strings.Contains(said, "live exchanges") {
		t.Errorf("the agent that allows nothing was asked:\n%s", said)
	}
	// The buckets went on.
	eventually(t, "the flood is counted", func() error {
		said := try(t, nil, "httpctl", "top", "domain", "-o", "json", "--since", "1h", "--aggregator", "unix:"+socket)
		if !strings.Contains(said.stdout, fmt.Sprintf(`"hits": %d,`, total)) {
			return fmt.Errorf("not %d yet: %s", total, said.stdout)
		}
		return nil
	})

	// Both, once the other allows it too; and one again, when it does not any more.
	other := worldReadable(t)
	if conf, err = testkit.WriteNginx(other, 80); err != nil {
		t.Fatal(err)
	}
	launchCommand(t, lab.Command(t.Context(), "web2", "nginx", "-c", conf))
	second := "http://" + lab.Address("web2").String() + "/small/2.txt"
	curl("--retry", "20", "--retry-connrefused", "--retry-delay", "1", second)
	allow("web2", "true")
	hangup(t, agents["web2"])
	eventually(t, "the other host may be asked", func() error {
		if said := try(t, nil, "httpctl", "tail", "--host", "web2", "--for", "1s", "--aggregator", "unix:"+socket); said.code != 0 {
			return fmt.Errorf("exit %d, %s", said.code, said.stderr)
		}
		return nil
	})
	cmd, out, errs = start("--domain", "both.example.org")
	eventually(t, "the other agent is asked, too", func() error {
		if !strings.Contains(agents["web2"].out.String(), `filter="domain=both.example.org"`) {
			return fmt.Errorf("%s", agents["web2"].out.String())
		}
		return nil
	})
	curl("-H", "Host: both.example.org", base+"/small/1.txt", second)
	eventually(t, "both are shown", func() error {
		shown, _ := tailLines(t, out.String())
		got := map[string]string{}
		for _, x := range shown {
			got[x.Host] = x.Path
		}
		if len(shown) != 2 || got["web1"] != "/small/1.txt" || got["web2"] != "/small/2.txt" { // in the order in which they arrive
			return fmt.Errorf("%s", out.String())
		}
		return nil
	})
	allow("web2", "false")
	hangup(t, agents["web2"])
	agents["web2"].says(t, "the settings have changed")
	curl("-H", "Host: both.example.org", second, base+"/small/3.txt")
	eventually(t, "the first one goes on", func() error {
		if shown, _ := tailLines(t, out.String()); len(shown) != 3 || shown[2].Path != "/small/3.txt" {
			return fmt.Errorf("%s", out.String())
		}
		return nil
	})
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("Ctrl-C ends the tail with %v, %s", err, errs.String())
	}
	if _, last = tailLines(t, out.String()); last.Summary == nil || len(last.Summary.Missing) != 1 || last.Summary.Missing[0].Host != "web2" {
		t.Errorf("the last summary is %+v, want web2 missing", last.Summary)
	}
}
