package test

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/httpctl/httpctl/pkg/testkit"
)

// TestCopiesAreCountedOnce has a pod behind a host's bridge serve a client behind the host's eth0. The host sees each packet on
// the pod's veth, on the bridge and on eth0, cut into other frames on each where offloads are on. Four agents there, on
// all interfaces and on these three, with one ring and with several, count what nginx has logged, to the unit.
func TestCopiesAreCountedOnce(t *testing.T) {
	need(t, "ip", "nginx", "curl", "ethtool")
	t.Parallel()
	lab, err := testkit.NewLab("host", "client")
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	})
	ip := func(host, command string) {
		t.Helper()
		if err := lab.IP(host, strings.Fields(command)...); err != nil {
			t.Fatal(err)
		}
	}
	if err := lab.Add("pod"); err != nil {
		t.Fatal(err)
	}
	ip("host", "link add br0 type bridge")
	ip("host", "link set br0 up")
	ip("host", "link add vethpod type veth peer name eth0 netns "+lab.Namespace("pod"))
	ip("host", "link set vethpod master br0 up")
	ip("pod", "link set eth0 up")
	if out, err := lab.Command(t.Context(), "host", "sysctl", "-w", "net.ipv4.ip_forward=1").CombinedOutput(); err != nil {
		t.Skipf("needs forwarding: %v: %s", err, out)
	}
	// The two ways to connect a pod: routed by the host, and bridged with eth0. The pod has an address for each.
	const routed = "198.51.100.2"
	bridged := "192.0.2.100"
	ip("host", "addr add 198.51.100.1/24 dev br0")
	ip("pod", "addr add "+routed+"/24 dev eth0")
	ip("pod", "route add default via 198.51.100.1")
	ip("client", "route add 198.51.100.0/24 via "+lab.Address("host").String())

	site := worldReadable(t)
	conf, err := testkit.WriteNginx(site, 80)
	if err != nil {
		t.Fatal(err)
	}
	start(t, lab.Command(context.Background(), "pod", "nginx", "-c", conf))
	data := t.TempDir()
	socket := "unix:" + filepath.Join(data, "httpctl.sock")
	launch(t, "httpctl-aggregator", "--config", write(t, "aggregator.yaml",
		"dashboard_bucket_size: 1s\naverage_bucket_size: 10s\naggregator:\n  data: "+data+"\n  listen: []\n")).says(t, "serving")
	agents := map[string]string{}
	for i, capture := range []string{
		"{interfaces: [any]}", "{interfaces: [vethpod, br0, eth0]}", "{interfaces: [any], rings: 2}", "{interfaces: [eth0, vethpod, br0], rings: 3}",
	} {
		name := fmt.Sprint("agent", i)
		agents[name] = fmt.Sprintf("127.0.0.1:%d", 7430+i)
		launchCommand(t, lab.Command(t.Context(), "host", program(t, "httpctl-agent"), "--config", write(t, name+".yaml",
			"dashboard_bucket_size: 1s\nagent:\n  host_name: "+name+"\n  state: "+t.TempDir()+"\n  aggregator: "+socket+"\n  metrics: "+agents[name]+"\n  capture: "+capture+"\n"))).says(t, "connected")
	}
	body := write(t, "body", strings.Repeat("field=value&", 40_000))
	offload := func(value string, devices ...string) {
		t.Helper()
		for _, d := range devices {
			host, device, _ := strings.Cut(d, "/")
			if out, err := lab.Command(t.Context(), host, "ethtool", "-K", device, "tso", value, "gso", value, "gro", value, "tx", value).CombinedOutput(); err != nil {
				t.Fatalf("ethtool %s %s: %v: %s", d, value, err, out)
			}
		}
	}
	devices := []string{"pod/eth0", "host/vethpod", "host/br0", "host/eth0", "client/eth0"}
	rounds := []struct {
		name   string
		change func()
	}{
		{"routed, offloads on", func() {}},
		{"routed, frames of one MTU on eth0 only", func() { offload("off", "host/eth0") }},
		{"routed, frames of one MTU on the veth only", func() { offload("on", "host/eth0"); offload("off", "pod/eth0", "host/vethpod") }},
		{"routed, offloads off", func() { offload("off", devices...) }},
		{"bridged, offloads off", func() {
			ip("host", "link set eth0 master br0")
			ip("pod", "addr add "+bridged+"/24 dev eth0")
		}},
		{"bridged, frames of one MTU on eth0 only", func() { offload("on", devices...); offload("off", "host/eth0") }},
		{"bridged, offloads on", func() { offload("on", devices...) }},
	}
	var want int64
	for i, round := range rounds {
		round.change()
		base := "http://" + routed
		if strings.HasPrefix(round.name, "bridged") {
			base = "http://" + bridged
		}
		host := fmt.Sprintf("Host: round%d.example.org", i)
		curl := func(args ...string) {
			t.Helper()
			args = append([]string{"-sS", "-o", "/dev/null", "--max-time", "300", "-H", host}, args...)
			if out, err := lab.Command(t.Context(), "client", "curl", args...).CombinedOutput(); err != nil {
				t.Fatalf("%s: curl %v: %v: %s", round.name, args, err, out)
			}
		}
		curl("--retry", "10", "--retry-connrefused", "--retry-delay", "1", base+"/small/1.txt")
		for n := range 3 {
			curl(base + fmt.Sprintf("/large/[%d-%d].bin", 10*n+1, 10*n+10))
			curl(base+"/small/[1-9].txt", base+"/medium/[1-9].bin")
			curl("--data-binary", "@"+body, base+"/form")
			curl("-H", "Transfer-Encoding: chunked", "--data-binary", "@"+body, base+"/form")
		}
		want += 1 + 3*(10+18+2)
	}
	var log *testkit.AccessLog
	eventually(t, "nginx writes its log", func() error {
		if log, err = testkit.ReadAccessLog(site); err == nil && log.Requests != want {
			err = fmt.Errorf("%d requests, %d were sent", log.Requests, want)
		}
		return err
	})
	query := func(args ...string) (answer top) {
		t.Helper()
		said := try(t, nil, append([]string{"httpctl"}, append(args, "-o", "json", "--since", "1h", "--limit", "1000", "--aggregator", socket)...)...)
		if err := json.Unmarshal([]byte(said.stdout), &answer); err != nil {
			t.Fatalf("httpctl %v: %v\n%s", args, err, said.stderr)
		}
		return answer
	}
	for name := range agents {
		eventually(t, name+" has sent all", func() error {
			if got := query("top", "status", "--host", name).Total; got < want {
				return fmt.Errorf("%d of %d", got, want)
			}
			return nil
		})
		for dimension, keys := range log.Tops {
			got := map[string]int64{}
			for _, row := range query("top", dimension, "--host", name).Rows {
				got[row.Key] = row.Hits
			}
			for key, hits := range keys {
				if got[key] != hits {
					t.Errorf("%s, top %s: %q = %d, want %d", name, dimension, key, got[key], hits)
				}
			}
			if len(got) != len(keys) {
				t.Errorf("%s, top %s: %v, want the %d keys of the log", name, dimension, got, len(keys))
			}
		}
		for _, row := range query("top", "volume", "--host", name).Rows {
			if row.Upload != log.Upload[row.Key] || row.Download != log.Download[row.Key] {
				t.Errorf("%s: %s = %d bytes up, %d down, want %d, %d", name, row.Key, row.Upload, row.Download, log.Upload[row.Key], log.Download[row.Key])
			}
		}
	}
	for name, metrics := range agents { // these questions are HTTP on lo, which some agents see
		out, err := lab.Command(t.Context(), "host", "curl", "-sS", "--max-time", "120", "http://"+metrics+"/metrics").Output()
		if err != nil {
			t.Fatal(err)
		}
		var counters []string
		for _, m := range regexp.MustCompile(`(?m)^httpctl_agent_([a-z0-9_]+)_total (\S+)$`).FindAllStringSubmatch(string(out), -1) {
			if m[2] != "0" {
				counters = append(counters, m[1])
			}
		}
		// 100 Continue is the only thing here beside what was asked for and answered.
		for _, expected := range []string{"packets", "packet_bytes", "segments", "connections", "requests", "responses", "outcomes", "interim_responses"} {
			counters = slices.DeleteFunc(counters, func(c string) bool { return c == expected })
		}
		if len(counters) > 0 {
			t.Errorf("%s: %v are not 0, want no loss and nothing unmatched\n%s", name, counters, out)
		}
	}
	t.Logf("%d requests in %d rounds: four agents' counts and volumes equal nginx's log", want, len(rounds))
}
