package capture

import (
	"net/netip"
	"testing"

	"github.com/httpctl/httpctl/pkg/testkit"
	"golang.org/x/net/bpf"
)

// meta is what the kernel knows of a packet and the VM does not.
type meta struct {
	index, hatype, kind, proto uint32
}

// accepts runs a filter on a frame in the VM of x/net/bpf, with the kernel's
// metadata put in as constants.
func accepts(t *testing.T, indexes []int, ports []uint16, m meta, frame []byte) bool {
	t.Helper()
	program, err := filterProgram(indexes, ports)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bpf.Assemble(program); err != nil {
		t.Fatal(err)
	}
	for i, ins := range program {
		switch ins := ins.(type) {
		case bpf.LoadExtension:
			v := map[bpf.Extension]uint32{bpf.ExtInterfaceIndex: m.index, bpf.ExtLinkLayerType: m.hatype, bpf.ExtType: m.kind, bpf.ExtProto: m.proto}
			program[i] = bpf.LoadConstant{Dst: bpf.RegA, Val: v[ins.Num]}
		case bpf.LoadConstant:
			if ins.Val == networkOffset {
				program[i] = bpf.LoadConstant{Dst: ins.Dst, Val: 0} // the frame begins with IP
			}
		}
	}
	vm, err := bpf.NewVM(program)
	if err != nil {
		t.Fatal(err)
	}
	n, err := vm.Run(frame)
	if err != nil {
		t.Fatal(err)
	}
	return n > 0
}

func TestFilter(t *testing.T) {
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	a6, b6 := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
	at := netip.AddrPortFrom
	tcp := func(src, dst netip.AddrPort) []byte { return testkit.TCP{Src: src, Dst: dst}.IP() }
	udp := func(src, dst netip.AddrPort) []byte { return testkit.UDPIP(src, dst, []byte("x")) }
	ether := meta{index: 2, hatype: arphrdEther}
	raw := func(proto uint32) meta { return meta{index: 2, hatype: 65534, proto: proto} }
	options := tcp(at(a, 40000), at(b, 80))
	options = append(append([]byte{0x46}, options[1:20]...), append([]byte{1, 1, 1, 1}, options[20:]...)...)
	tag := func(outer uint16, inner []byte) []byte {
		return testkit.Ethernet(outer, testkit.VLAN(7, testkit.EtherIPv4, inner))
	}
	p80 := []uint16{80}
	for _, c := range []struct {
		name    string
		indexes []int
		ports   []uint16
		m       meta
		frame   []byte
		want    bool
	}{
		{"any interface", nil, nil, ether, testkit.Ethernet(0x0806, nil), true},
		{"this interface", []int{1, 2}, nil, ether, testkit.Ethernet(0x0806, nil), true},
		{"another interface", []int{1, 3}, nil, ether, testkit.Ethernet(0x0806, nil), false},
		{"no interface", []int{}, nil, ether, testkit.Ethernet(0x0806, nil), false},
		{"loopback, arriving", nil, nil, meta{1, arphrdLoopback, 0, 0}, testkit.Ethernet(0x0800, nil), true},
		{"loopback, sent", nil, nil, meta{1, arphrdLoopback, packetOutgoing, 0}, testkit.Ethernet(0x0800, nil), false},
		{"ethernet, sent", nil, nil, meta{2, arphrdEther, packetOutgoing, 0}, testkit.Ethernet(0x0800, nil), true},
		{"to the port", nil, p80, ether, testkit.Ethernet(0x0800, tcp(at(a, 40000), at(b, 80))), true},
		{"from the port", nil, p80, ether, testkit.Ethernet(0x0800, tcp(at(a, 80), at(b, 40000))), true},
		{"the last of many ports", nil, []uint16{1, 2, 3, 4, 5, 80}, ether, testkit.Ethernet(0x0800, tcp(at(a, 80), at(b, 40000))), true},
		{"another port", nil, p80, ether, testkit.Ethernet(0x0800, tcp(at(a, 40000), at(b, 81))), false},
		{"udp to the port", nil, p80, ether, testkit.Ethernet(0x0800, udp(at(a, 40000), at(b, 80))), false},
		{"ip options", nil, p80, ether, testkit.Ethernet(0x0800, options), true},
		{"ip options, another port", nil, []uint16{81}, ether, testkit.Ethernet(0x0800, options), false},
		{"ipv6", nil, p80, ether, testkit.Ethernet(0x86dd, tcp(at(a6, 40000), at(b6, 80))), true},
		{"ipv6, another port", nil, p80, ether, testkit.Ethernet(0x86dd, tcp(at(a6, 40000), at(b6, 81))), false},
		{"ipv6 hop-by-hop", nil, p80, ether, testkit.Ethernet(0x86dd, testkit.IPv6(a6, b6, 0, make([]byte, 8))), true},
		{"icmp", nil, p80, ether, testkit.Ethernet(0x0800, testkit.IPv4(a, b, 1, make([]byte, 8))), false},
		{"icmpv6", nil, p80, ether, testkit.Ethernet(0x86dd, testkit.IPv6(a6, b6, 58, make([]byte, 8))), false},
		{"first fragment", nil, p80, ether, testkit.Ethernet(0x0800, testkit.IPv4Fragment(a, b, 6, 1, 0, true, make([]byte, 8))), true},
		{"last fragment", nil, p80, ether, testkit.Ethernet(0x0800, testkit.IPv4Fragment(a, b, 6, 1, 8, false, make([]byte, 8))), true},
		{"vlan", nil, p80, ether, tag(0x8100, tcp(at(a, 40000), at(b, 80))), true},
		{"vlan, another port", nil, p80, ether, tag(0x88a8, tcp(at(a, 40000), at(b, 81))), false},
		{"two vlan tags", nil, p80, ether, testkit.Ethernet(0x88a8, testkit.VLAN(1, 0x8100, testkit.VLAN(2, 0x0800, nil))), true},
		{"vxlan", nil, p80, ether, testkit.Ethernet(0x0800, udp(at(a, 40000), at(b, 4789))), true},
		{"teredo", nil, p80, ether, testkit.Ethernet(0x0800, udp(at(a, 3544), at(b, 40000))), true},
		{"gre", nil, p80, ether, testkit.Ethernet(0x0800, testkit.IPv4(a, b, 47, make([]byte, 8))), true},
		{"6in4", nil, p80, ether, testkit.Ethernet(0x0800, testkit.IPv4(a, b, 41, make([]byte, 40))), true},
		{"mpls", nil, p80, ether, testkit.Ethernet(0x8847, make([]byte, 30)), true},
		{"pppoe", nil, p80, ether, testkit.Ethernet(0x8864, make([]byte, 30)), true},
		{"arp", nil, p80, ether, testkit.Ethernet(0x0806, make([]byte, 30)), false},
		{"tun", nil, p80, raw(0x0800), tcp(at(a, 40000), at(b, 80)), true},
		{"tun, another port", nil, p80, raw(0x0800), tcp(at(a, 40000), at(b, 81)), false},
		{"tun, ipv6", nil, p80, raw(0x86dd), tcp(at(a6, 40000), at(b6, 80)), true},
		{"too short", nil, p80, ether, testkit.Ethernet(0x0800, []byte{0x45}), false},
	} {
		if got := accepts(t, c.indexes, c.ports, c.m, c.frame); got != c.want {
			t.Errorf("%s: filter(%v, %v) accepts = %v, want %v", c.name, c.indexes, c.ports, got, c.want)
		}
	}
}

// The longest filter that the settings allow is one that the kernel takes.
func TestFilterSize(t *testing.T) {
	ports := make([]uint16, maxPorts)
	raw, err := filterFor(make([]int, 500), ports)
	if err != nil {
		t.Fatal(err)
	}
	if len(raw) > 4096 {
		t.Errorf("the longest filter has %d instructions, want at most 4096", len(raw))
	}
}
