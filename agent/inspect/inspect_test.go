package inspect

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/httpctl/httpctl/agent/capture"
	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/exchange"
)

var update = flag.Bool("update", false, "write what the tests get to testdata")

// good is a host in order, with web traffic on a link of 10 Gb/s.
func good() *Findings {
	f := &Findings{
		Host: "web1.example.org", Release: "6.1.0-28-amd64", Program: "/usr/local/bin/httpctl-agent", Cores: 8,
		Interfaces: []string{"eth0"},
		Links: []Link{{Link: capture.Link{
			Name: "eth0", Driver: "ixgbe", There: true, Up: true, Carrier: true, Hardware: true, Speed: 10_000, MTU: 1500, RxQueues: 8, TxQueues: 8,
			Offloads:  map[string]bool{capture.GRO: true, capture.GSO: true, capture.TSO: true, capture.RxChecksum: true, "tx-checksum-ip-generic": true, capture.RxVLAN: true},
			MaxFrame:  64 * config.KiB,
			RxBuffers: 512, MostRxBuffers: 4096,
		}, NewPackets: 98_000}},
		Elsewhere: []Link{{Link: capture.Link{Name: "lo", There: true, Up: true, Loopback: true}, NewPackets: 300}},
		Rings:     1, RingsReason: "10 Gb/s, one for each 25 Gb/s", RingSize: 32 * config.MiB, BlockSize: config.MiB, PollTimeout: 100 * time.Millisecond,
		Memory: 256 * config.MiB, Available: 7 * config.GiB, Speed: 10_000,
		Sample: Sample{Packets: 3_600_000, Bytes: 3_600_000 * 1000, Time: 1200 * time.Millisecond},
		Heard:  8 * time.Second,
		Traffic: Traffic{
			Ended: 9_810, HTTPBytes: 70_000_000, CPU: 180 * time.Millisecond,
		},
	}
	c := &f.Counters
	c[exchange.Packets], c[exchange.PacketBytes], c[exchange.Segments], c[exchange.Connections] = 98_000, 98_000*850, 97_000, 412
	c[exchange.Requests], c[exchange.Responses], c[exchange.Outcomes] = 9_800, 9_810, 9_810
	c[exchange.UnmatchedResponses], c[exchange.OtherTLS], c[exchange.OtherSSH] = 14, 31, 2
	return f
}

// failed is a host on which nothing was measured.
func failed(failure Failure, reason string) *Findings {
	f := good()
	f.Failure, f.Reason, f.Sample, f.Heard, f.Traffic = failure, reason, Sample{}, 0, Traffic{}
	return f
}

func TestText(t *testing.T) {
	for _, c := range []struct {
		name   string
		f      *Findings
		can    bool
		but    string   // a part of it; "" is none
		change []string // what is to be done
	}{
		{name: "good", f: good(), can: true},
		{name: "quiet", can: true, but: "nothing came", f: func() *Findings {
			f := good()
			f.Traffic = Traffic{CPU: time.Millisecond}
			f.Links[0].NewPackets = 0
			return f
		}(), change: []string{"httpctl-agent --check-capture -i lo", "sudo ip link set eth0 promisc on", "httpctl-agent --check-capture -i eth0"}},
		{name: "drops", can: true, but: "dropped", f: func() *Findings {
			f := good()
			f.Counters[exchange.KernelDrops], f.Freezes, f.Links[0].NewMissed = 1234, 3, 55
			return f
		}(), change: []string{"agent.capture.ring_size: 64MiB", "agent.memory: 512MiB", "sudo ethtool -G eth0 rx 4096"}},
		{name: "drops-busy", can: true, but: "dropped 6.5%", f: func() *Findings {
			f := good()
			f.CPU = 7900 * time.Millisecond
			f.Counters[exchange.KernelDrops], f.Freezes = 1_000_000, 200
			f.Counters[exchange.Packets], f.Counters[exchange.PacketBytes] = 14_400_000, 14_400_000*900
			return f
		}(), change: []string{"agent.capture.rings: 2", "agent.capture.ports: [80, 8080]"}},
		{name: "one-direction", can: true, but: "only requests", f: func() *Findings {
			f := good()
			f.Links[0].Promiscuous = true
			f.Counters[exchange.Responses], f.Counters[exchange.UnmatchedResponses], f.Counters[exchange.UnmatchedRequests] = 0, 0, 9_100
			f.Counters[exchange.Gaps] = 8_000
			f.Ended, f.Transit = 9_800, 9_800
			return f
		}(), change: []string{"capture on both ports of the mirror or tap: -i ONE -i OTHER", "agent.local_networks: [192.0.2.0/24]"}},
		{name: "asymmetric", can: true, but: "one half only", f: func() *Findings {
			f := good()
			f.Counters[exchange.UnmatchedResponses], f.Counters[exchange.UnmatchedRequests], f.Counters[exchange.Gaps] = 2_000, 1_000, 800
			return f
		}(), change: []string{"look at the drops of the switch's port", "capture on both ports of the mirror or tap: -i ONE -i OTHER"}},
		{name: "fast-one-core", can: true, but: "of the 100 Gb/s", f: func() *Findings {
			f := good()
			f.Cores, f.Speed, f.Links[0].Speed, f.Links[0].Driver = 1, 100_000, 100_000, "mlx5_core"
			f.RingsReason = "100 Gb/s is worth 4, 1 core allows 1"
			return f
		}(), change: []string{"agent.capture.ports: [80, 8080]", "give the agent 6 cores"}},
		{name: "fast-little-memory", can: true, but: "of the 100 Gb/s", f: func() *Findings {
			f := good()
			f.Cores, f.Speed, f.Links[0].Speed, f.Memory = 16, 100_000, 100_000, 96*config.MiB
			f.RingsReason = "100 Gb/s is worth 4, memory holds 1"
			return f
		}(), change: []string{"agent.capture.rings: 3", "agent.memory: 192MiB"}},
		{name: "big-tcp", can: true, but: "do not fit", f: func() *Findings {
			f := good()
			f.BlockSize, f.Links[0].MaxFrame = 128*config.KiB, 185_000
			f.Links[0].Offloads[capture.LRO] = true
			return f
		}(), change: []string{"agent.capture.block_size: 1MiB", "sudo ethtool -K eth0 lro off"}},
		{name: "tls", can: true, but: "TLS", f: func() *Findings {
			f := good()
			c := &f.Counters
			c[exchange.Requests], c[exchange.Responses], c[exchange.Outcomes], c[exchange.UnmatchedResponses], c[exchange.OtherTLS] = 0, 0, 0, 0, 380
			f.Ended, f.HTTPBytes = 0, 0
			return f
		}(), change: []string{"httpctl-agent --check-capture -i lo"}},
		{name: "other-traffic", can: true, but: "not HTTP", f: func() *Findings {
			f := good()
			c := &f.Counters
			c[exchange.Packets], c[exchange.PacketBytes], c[exchange.OtherUnknown] = 8_000_000, 8_000_000*1000, 300
			f.CPU = 3 * time.Second
			return f
		}(), change: []string{"agent.capture.ports: [80, 8080]"}},
		{name: "any-down", can: true, but: "eth1 is down", f: func() *Findings {
			f := good()
			f.Interfaces = []string{"eth0", "eth1"}
			down := f.Links[0]
			down.Name, down.Up, down.Carrier, down.Speed, down.NewPackets = "eth1", false, false, 0, 0
			f.Links = append(f.Links, down)
			return f
		}(), change: []string{"sudo ip link set eth1 up"}},
		{name: "down", but: "eth0 is down", f: func() *Findings {
			f := good()
			f.Sample, f.Heard, f.Traffic, f.Links[0].Up, f.Links[0].Carrier = Sample{}, 0, Traffic{}, false, false
			return f
		}(), change: []string{"sudo ip link set eth0 up"}},
		{name: "little-memory", can: true, but: "less memory", f: func() *Findings {
			f := good()
			f.Available = 220 * config.MiB
			return f
		}(), change: []string{"agent.memory: 110MiB"}},
		{name: "no-privilege", but: "not permitted", f: failed(NoPrivilege, "open packet socket: operation not permitted"),
			change: []string{"sudo setcap cap_net_raw+ep /usr/local/bin/httpctl-agent", "sudo /usr/local/bin/httpctl-agent --check-capture -i eth0"}},
		{name: "no-such-interface", but: "no interface eth7", f: func() *Findings {
			f := failed(NoSuchInterface, "there is no interface eth7")
			f.Interfaces, f.Elsewhere, f.Links = []string{"eth7"}, append(f.Links, f.Elsewhere...), []Link{{Link: capture.Link{Name: "eth7"}}}
			return f
		}(), change: []string{"another name, with -i or in agent.capture.interfaces"}},
		{name: "no-interface", but: "no interface is given", f: func() *Findings {
			f := failed(NoInterface, "no interface is given")
			f.Interfaces, f.Elsewhere, f.Links = nil, append(f.Links, f.Elsewhere...), nil
			return f
		}(), change: []string{"httpctl-agent --check-capture -i IFACE"}},
		{name: "no-memory", but: "cannot allocate memory", f: func() *Findings {
			f := failed(NoMemory, "make a ring of 1GiB: cannot allocate memory")
			f.Rings, f.RingSize = 4, config.GiB
			return f
		}(), change: []string{"agent.capture.ring_size: 256MiB", "agent.capture.rings: 1"}},
		{name: "namespaces", can: true, f: func() *Findings {
			f := good()
			f.Namespaces, f.LocalNetworks = []string{"blue", "/proc/1234/ns/net"}, 1
			return f
		}()},
		{name: "namespace-quiet", can: true, but: "nothing came", f: func() *Findings {
			f := good()
			f.Interfaces, f.Links, f.Elsewhere, f.Namespaces, f.RingsReason, f.Speed, f.Guessed = nil, nil, nil, []string{"blue"}, "", 0, true
			f.Traffic = Traffic{CPU: time.Millisecond}
			return f
		}(), change: []string{"httpctl-agent --check-capture --netns blue"}},
		{name: "no-such-namespace", but: "blue: no such network namespace", f: func() *Findings {
			f := failed(BadNamespace, "blue: no such network namespace")
			f.Namespaces = []string{"blue"}
			return f
		}(), change: []string{"another name, with --netns or in agent.capture.namespaces"}},
		{name: "namespace-no-privilege", but: "not permitted", f: func() *Findings {
			f := failed(NoPrivilege, "operation not permitted")
			f.Interfaces, f.Links, f.Namespaces = nil, nil, []string{"blue"}
			return f
		}(), change: []string{"sudo /usr/local/bin/httpctl-agent --check-capture --netns blue"}},
		{name: "hostile-names", can: true, f: func() *Findings {
			f := good()
			f.Host, f.Links[0].Driver, f.Namespaces = "web\x1b[31m", "\x9bdriver\u2028", []string{"blue\x1b[2J\u202etxt.exe"}
			return f
		}()},
	} {
		v := c.f.Judge()
		var changes []string
		for _, change := range v.Changes {
			changes = append(changes, change.Do)
		}
		if but := strings.Join(v.But, "; "); v.Can != c.can || (c.but == "") != (but == "") || !strings.Contains(but, c.but) || strings.Join(changes, "|") != strings.Join(c.change, "|") {
			t.Errorf("%s: Judge() = can %v, but %q, change %q, want %v, %q, %q", c.name, v.Can, but, changes, c.can, c.but, c.change)
		}
		text := c.f.Text()
		for line := range strings.Lines(text) {
			if n := utf8.RuneCountInString(line) - 1; n > width || strings.ContainsFunc(strings.TrimSuffix(line, "\n"), func(r rune) bool { return !unicode.IsPrint(r) }) || strings.TrimRight(line, " \n")+"\n" != line {
				t.Errorf("%s: a line of %d: %q", c.name, n, line)
			}
		}
		golden := filepath.Join("testdata", c.name+".txt")
		if *update {
			if err := os.WriteFile(golden, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil || string(want) != text {
			t.Errorf("%s: Text() is not that of %s (%v; -update writes it):\n%s", c.name, golden, err, text)
		}
	}
}
