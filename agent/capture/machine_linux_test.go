package capture

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/httpctl/httpctl/pkg/config"
)

// fakeSys makes a tree like that of the kernel.
func fakeSys(t *testing.T, files map[string]string) string {
	t.Helper()
	sys := t.TempDir()
	for name, text := range files {
		path := filepath.Join(sys, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return sys
}

func TestHardwareOf(t *testing.T) {
	files := map[string]string{
		"eth0/device": "", "eth0/speed": "25000\n", "eth1/device": "", "eth1/speed": "25000\n",
		"bond0/speed": "50000\n", "bond0/lower_eth0": "", "bond0/lower_eth1": "", "bond0.7/lower_bond0": "",
		"virtio0/device": "", "virtio0/speed": "-1\n", "lo/mtu": "65536", "br0/speed": "10000", "br0/lower_veth0": "", "br0/lower_eth1": "",
		"loop/lower_loop": "",
	}
	for i := range 40 {
		files[fmt.Sprintf("veth%d/speed", i)] = "10000\n"
	}
	sys := fakeSys(t, files)
	eth0, eth1, none := Hardware{"eth0", 25_000}, Hardware{"eth1", 25_000}, Hardware{}
	for _, c := range []struct {
		interfaces []string
		want       []Hardware
	}{
		{[]string{"eth0"}, []Hardware{eth0}},
		{[]string{"eth0", "eth0"}, []Hardware{eth0}},
		{[]string{"bond0.7", "eth1"}, []Hardware{eth0, eth1}},
		{[]string{"br0"}, []Hardware{eth1, none}},
		{[]string{"veth1", "veth2", "lo", "absent"}, []Hardware{none}},
		{[]string{"virtio0"}, []Hardware{{"virtio0", 0}}},
		{[]string{"any"}, []Hardware{eth0, eth1, {"virtio0", 0}}},
		{[]string{"loop"}, []Hardware{none}},
		{[]string{"../sys", "*", "."}, nil},
		{nil, nil},
	} {
		if got := hardwareOf(sys, c.interfaces); !reflect.DeepEqual(got, c.want) {
			t.Errorf("hardwareOf(%q) = %v, want %v", c.interfaces, got, c.want)
		}
	}
	bare := fakeSys(t, map[string]string{"lo/mtu": "", "veth0/mtu": ""})
	if got := hardwareOf(bare, []string{"any"}); !reflect.DeepEqual(got, []Hardware{none}) {
		t.Errorf("hardwareOf(any) without hardware = %v, want one unknown link", got)
	}
}

// The loopback device makes frames of 64 KiB and more.
func TestThisMachine(t *testing.T) {
	m := ThisMachine([]string{"lo"})
	if m.Cores < 1 || !reflect.DeepEqual(m.Hardware, []Hardware{{}}) || m.MaxFrame < 64*config.KiB {
		t.Errorf("ThisMachine(lo) = %+v", m)
	}
}

func TestReadLinks(t *testing.T) {
	sys := fakeSys(t, map[string]string{
		"eth0/ifindex": "2", "eth0/flags": "0x1103\n", "eth0/carrier": "1\n", "eth0/device/vendor": "", "eth0/speed": "25000\n", "eth0/mtu": "9000\n",
		"eth0/queues/rx-0/x": "", "eth0/queues/rx-1/x": "", "eth0/queues/tx-0/x": "",
		"eth0/statistics/rx_packets": "7\n", "eth0/statistics/tx_packets": "5\n", "eth0/statistics/rx_missed_errors": "3\n",
		"veth0/ifindex": "3", "veth0/flags": "0x1002", "bonding_masters": "",
	})
	want := Link{Name: "eth0", There: true, Up: true, Carrier: true, Hardware: true, Promiscuous: true, Speed: 25_000, MTU: 9000, RxQueues: 2, TxQueues: 1, Packets: 12, Missed: 3}
	if got := readLink(sys, "eth0"); !reflect.DeepEqual(got, want) {
		t.Errorf("readLink(eth0) = %+v, want %+v", got, want)
	}
	if got, want := readLink(sys, "veth0"), (Link{Name: "veth0", There: true}); !reflect.DeepEqual(got, want) {
		t.Errorf("readLink(veth0) = %+v, want %+v", got, want)
	}
	for _, name := range []string{"absent", "bonding_masters", "", "..", "../" + filepath.Base(sys) + "/eth0"} {
		if got := readLink(sys, name); got.There {
			t.Errorf("readLink(%q) is there", name)
		}
	}
	// What the kernel says of a loopback device is the same everywhere.
	links := ReadLinks([]string{"nosuch0", "lo"})
	if len(links) != 2 || links[0].Name != "lo" || !links[0].There || !links[0].Loopback || links[1].There {
		t.Fatalf("ReadLinks(lo, nosuch0) = %+v", links)
	}
	if lo := links[0]; lo.MaxFrame < 64*config.KiB || len(lo.Offloads) < 20 || !lo.Offloads[TxChecksum[0]] || lo.Offloads[LRO] {
		t.Errorf("ReadLinks(lo) = %+v", lo)
	}
}
