package test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/httpctl/httpctl/pkg/testkit"
)

// TestCheckCapture asks a host with web traffic whether it can capture: where both directions are seen, where one is, and
// where nothing comes.
func TestCheckCapture(t *testing.T) {
	t.Parallel()
	need(t, "ip", "nginx", "curl", "sysctl")
	bin := filepath.Dir(program(t, "httpctl-agent"))
	lab, err := testkit.NewLab("web", "client")
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithCancel(context.Background()) // the parts below wait for other tests, however long
	t.Cleanup(cancel)
	soon := func(t *testing.T) context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		t.Cleanup(cancel)
		return ctx
	}
	run := func(host, name string, args ...string) {
		t.Helper()
		if out, err := lab.Command(ctx, host, name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s %v: %v: %s", name, args, err, out)
		}
	}
	// Responses go back another way.
	run("web", "ip", "link", "add", "back0", "type", "veth", "peer", "name", "back1", "netns", lab.Namespace("client"))
	run("web", "ip", "link", "set", "back0", "up")
	run("client", "ip", "link", "set", "back1", "up")
	run("client", "sysctl", "-q", "-w", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.back1.rp_filter=0")
	run("web", "ip", "route", "add", lab.Address("client").String()+"/32", "dev", "back0")
	run("web", "ip", "link", "add", "down0", "type", "veth", "peer", "name", "down1")
	conf, err := testkit.WriteNginx(worldReadable(t), 80)
	if err != nil {
		t.Fatal(err)
	}
	start(t, lab.Command(ctx, "web", "nginx", "-c", conf))
	run("client", "curl", "-sS", "-o", "/dev/null", "--retry", "60", "--retry-connrefused", "--retry-delay", "1", fmt.Sprintf("http://%s/small/1.txt", lab.Address("web")))
	var client sync.WaitGroup
	stop := make(chan struct{})
	client.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			_ = lab.Command(ctx, "client", "curl", "-sS", "-o", "/dev/null", "--rate", "100/s", fmt.Sprintf("http://%s/medium/[1-100].bin", lab.Address("web"))).Run()
		}
	})
	t.Cleanup(func() { close(stop); client.Wait() })

	state := filepath.Join(t.TempDir(), "state")
	for _, c := range []struct {
		args []string
		code int
		want []string
	}{
		{[]string{"-i", "eth0", "-i", "back0"}, 0, []string{"Interface eth0\n  link        veth, up, ", `  HTTP        (\S+) requests/s`, "lost        nothing", "one core    .* million packets/s", "This host can capture on eth0, back0: ok\nNothing to change.\n$"}},
		{[]string{"-i", "eth0"}, 0, []string{"0 responses/s", "This host can capture on eth0, but: only requests are seen", "(?m)^  capture on both ports"}},
		{[]string{"-i", "lo"}, 0, []string{"packets     none", "but: nothing came in", "-i (?:eth0|back0)\n      it had .* packets meanwhile"}},
		{[]string{"-i", "eth0", "-i", "down0"}, 0, []string{"Interface down0", "but: down0 is down", "ip link set down0 up"}},
		{[]string{"-i", "down0"}, 1, []string{"cannot capture on down0: down0 is down"}},
		{[]string{"-i", "nosuch0"}, 1, []string{"cannot capture on nosuch0: there is no interface nosuch0", "down0.*eth0.*any"}},
		{nil, 1, []string{"cannot capture: no interface is given"}},
	} {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			t.Parallel()
			cmd := lab.Command(soon(t), "web", filepath.Join(bin, "httpctl-agent"), append([]string{"--check-capture"}, c.args...)...)
			cmd.Env = append(os.Environ(), "HTTPCTL_AGENT_STATE="+state)
			out, err := cmd.Output()
			if code := cmd.ProcessState.ExitCode(); code != c.code {
				t.Errorf("exit code %d, %v, want %d", code, err, c.code)
			}
			for _, want := range c.want {
				m := regexp.MustCompile(want).FindSubmatch(out)
				if m == nil {
					t.Errorf("%s is not in\n%s", want, out)
				} else if len(m) > 1 {
					if rate, err := strconv.ParseFloat(string(m[1]), 64); err != nil || rate < 1 {
						t.Errorf("%s requests/s", m[1])
					}
				}
			}
			for line := range strings.Lines(string(out)) {
				if len(line) > 81 || strings.Contains(line, "\x1b") {
					t.Errorf("a line of %d bytes: %q", len(line)-1, line)
				}
			}
			if _, err := os.Stat(state); err == nil {
				t.Error("it made a state directory")
			}
		})
	}

	t.Run("without privilege", func(t *testing.T) {
		t.Parallel()
		need(t, "setpriv")
		cmd := exec.CommandContext(soon(t), "setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", filepath.Join(bin, "httpctl-agent"), "--check-capture", "-i", "lo")
		out, _ := cmd.Output()
		if code := cmd.ProcessState.ExitCode(); code == 126 || code == 127 {
			t.Skip("needs a directory for programs that nobody may enter")
		} else if code != 1 || !strings.Contains(string(out), "cannot capture on lo") || !strings.Contains(string(out), "sudo setcap cap_net_raw+ep ") {
			t.Errorf("exit code %d:\n%s", code, out)
		}
	})

	t.Run("interrupted", func(t *testing.T) {
		t.Parallel()
		cmd := lab.Command(soon(t), "web", filepath.Join(bin, "httpctl-agent"), "--check-capture", "-i", "eth0")
		var out output
		cmd.Stdout = &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it looks", func() error {
			if !strings.Contains(out.String(), "Ctrl-C ends it early") {
				return fmt.Errorf("it says %q", out.String())
			}
			return nil
		})
		time.Sleep(3 * time.Second) // in the middle of it, or sooner where it is slow
		_ = cmd.Process.Signal(os.Interrupt)
		if err := cmd.Wait(); err != nil || !strings.Contains(out.String(), "This host can capture on eth0") {
			t.Errorf("%v:\n%s", err, out.String())
		}
	})
}
