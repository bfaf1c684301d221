package test

import (
	"context"
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

// TestMirror has curl on one monitored host ask nginx on another: fleet totals equal nginx's log to the unit, in all top lists,
// and both hosts show what they saw, while both agents are there, while the server's is killed and stays away, when it
// is back, and while the aggregator was away with one of them.
func TestMirror(t *testing.T) {
	need(t, "ip", "nginx", "curl")
	t.Parallel()
	lab, err := testkit.NewLab("web", "shop", "center")
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { lab.Close() })
	ctx, cancel := context.WithTimeout(context.Background(), 5*patience)
	t.Cleanup(cancel)
	run := func(host, name string, args ...string) *background {
		t.Helper()
		return launchCommand(t, lab.Command(ctx, host, program(t, name), args...))
	}
	data, site := t.TempDir(), worldReadable(t)
	socket := "unix:" + data + "/httpctl.sock"
	center := write(t, "aggregator.yaml", "dashboard_bucket_size: 1s\naverage_bucket_size: 5s\nhost_gone_after: 4s\naggregator:\n  data: "+data+"\n  listen: []\n")
	aggregator := run("center", "httpctl-aggregator", "--config", center)
	aggregator.says(t, "serving")
	conf, err := testkit.WriteNginx(site, 80)
	if err != nil {
		t.Fatal(err)
	}
	start(t, lab.Command(ctx, "web", "nginx", "-c", conf))
	states := map[string]string{"web": t.TempDir(), "shop": t.TempDir()}
	launchAgent := func(host string) *background {
		t.Helper()
		return run(host, "httpctl-agent", "-i", "eth0", "--config", write(t, "agent.yaml",
			"dashboard_bucket_size: 1s\nagent:\n  host_name: "+host+"\n  state: "+states[host]+"\n  aggregator: "+socket+"\n  backoff_max: 500ms\n  capture: {poll_timeout: 50ms, block_size: 128KiB}\n"))
	}
	watch := func(host string) *background {
		t.Helper()
		b := launchAgent(host)
		b.says(t, "connected to the aggregator")
		return b
	}
	web := watch("web")
	shop := watch("shop")
	knows := func(host, other string) {
		t.Helper()
		eventually(t, host+" knows the address of "+other, func() error {
			text, err := os.ReadFile(filepath.Join(states[host], "fleet"))
			if err == nil && !strings.Contains(string(text), lab.Address(other).String()) {
				err = fmt.Errorf("it knows\n%s", text)
			}
			return err
		})
	}
	knows("shop", "web")

	asked := 0
	ask := func(n int) {
		t.Helper()
		for site := range 2 {
			base := "http://" + lab.Address("web").String()
			curl := lab.Command(ctx, "shop", "curl", "-sS", "--max-time", "120", "--rate", "50/s", "-H", fmt.Sprintf("Host: site%d.example.org", site),
				"-o", "/dev/null", fmt.Sprintf("%s/small/[1-%d].txt", base, n/3), "-o", "/dev/null", fmt.Sprintf("%s/missing/[1-%d]", base, n/6))
			if out, err := curl.CombinedOutput(); err != nil {
				t.Fatalf("curl: %v: %s", err, out)
			}
			asked += n/3 + n/6
		}
	}
	query := func(dimension string, more ...string) top {
		t.Helper()
		return topInJSON(ctx, t, socket, dimension, more...)
	}
	// equal waits until the fleet's lists are nginx's log, and each host has counted so many.
	equal := func(when string, onWeb, onShop int) {
		t.Helper()
		eventually(t, when, func() error {
			log, err := testkit.ReadAccessLog(site)
			if err != nil {
				return err
			}
			if log.Requests != int64(asked) {
				return fmt.Errorf("nginx has logged %d of %d requests", log.Requests, asked)
			}
			for dimension, want := range log.Tops {
				got := query(dimension)
				if len(got.Rows) != len(want) || got.Total != int64(asked) {
					return fmt.Errorf("top %s has %d rows and %d in all, want %d and %d: %v", dimension, len(got.Rows), got.Total, len(want), asked, got.Rows)
				}
				for _, row := range got.Rows {
					if row.Hits != want[row.Key] {
						return fmt.Errorf("top %s: %q = %d, want %d", dimension, row.Key, row.Hits, want[row.Key])
					}
				}
			}
			for _, row := range query("volume").Rows {
				if row.Upload != log.Upload[row.Key] || row.Download != log.Download[row.Key] {
					return fmt.Errorf("top volume: %s = %d up, %d down, want %d, %d", row.Key, row.Upload, row.Download, log.Upload[row.Key], log.Download[row.Key])
				}
			}
			for host, want := range map[string]int{"web": onWeb, "shop": onShop} {
				if got := query("section", "--host", host).Total; got != int64(want) {
					return fmt.Errorf("top section --host %s has %d, want %d", host, got, want)
				}
			}
			return nil
		})
		t.Logf("%s: %d requests, each counted once; web shows %d, shop %d", when, asked, onWeb, onShop)
	}

	ask(60)
	equal("both agents count", 60, 60)

	// Killed in the middle of an interval, what that held is lost on web; shop has it all.
	ask(30)
	web.stop(t, syscall.SIGKILL)
	ask(30)
	eventually(t, "shop has sent all", func() error {
		if got := query("section", "--host", "shop").Total; got != int64(asked) {
			return fmt.Errorf("%d of %d", got, asked)
		}
		return nil
	})
	time.Sleep(5 * time.Second) // what it last told of the interval that it was killed in is in answers until that is old
	onWeb := int(query("section", "--host", "web").Total)
	if onWeb >= asked-30 {
		t.Logf("web was killed just after an interval: it has all %d", onWeb)
	}
	equal("web's agent is killed", onWeb, asked)
	time.Sleep(5 * time.Second) // longer than host_gone_after
	ask(30)
	equal("web's agent is gone", onWeb, asked)

	web = watch("web")
	time.Sleep(1500 * time.Millisecond) // the rest of an interval of which web's agent saw a part
	back := time.Now()
	eventually(t, "what web's agent had on its disk is delivered", func() error {
		out, err := exec.CommandContext(ctx, program(t, "httpctl"), "hosts", "-o", "json", "--aggregator", socket).Output()
		var answer struct {
			Hosts []struct {
				Name    string
				Through time.Time `json:"covered_through"`
			}
		}
		if err == nil {
			err = json.Unmarshal(out, &answer)
		}
		for _, h := range answer.Hosts {
			if h.Name == "web" && h.Through.After(back) {
				return nil
			}
		}
		return fmt.Errorf("%v: %s", err, out)
	})
	onWeb = int(query("section", "--host", "web").Total)
	ask(30)
	equal("web's agent is back", onWeb+30, asked)

	// The aggregator goes away, and shop's agent is killed and starts again before it is back: what it knows of the fleet
	// is on its disk.
	aggregator.stop(t, syscall.SIGKILL)
	shop.stop(t, syscall.SIGTERM)
	shop = launchAgent("shop")
	shop.says(t, "the agent is confined")
	ask(30)
	aggregator = run("center", "httpctl-aggregator", "--config", center)
	aggregator.says(t, "serving")
	equal("the aggregator was away", onWeb+60, asked)
	for _, b := range []*background{web, shop, aggregator} {
		b.stop(t, syscall.SIGTERM)
	}
}
