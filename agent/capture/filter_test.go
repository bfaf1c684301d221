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
func accepts(t *testing.T, s selection, m meta, frame []byte) bool {
	t.Helper()
	program, err := filterProgram(s)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bpf.Assemble(program); err != nil {
		t.Fatal(err)
	}
	for i, ins := range program {
		switch ins := ins.(type) {
		case bpf.LoadExtension:
			if ins.Num == bpf.ExtLen {
				continue
			}
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
		if got := accepts(t, selection{indexes: c.indexes, ports: c.ports}, c.m, c.frame); got != c.want {
			t.Errorf("%s: filter(%v, %v) accepts = %v, want %v", c.name, c.indexes, c.ports, got, c.want)
		}
	}
}

// TestFilterOwn: exactly the packets of own connections are left out, whatever else is selected.
func TestFilterOwn(t *testing.T) {
	at := netip.MustParseAddrPort
	remote, local := at("192.0.2.9:7420"), at("192.0.2.1:40000")
	remote6, local6 := at("[2001:db8::9]:7420"), at("[2001:db8::1]:40001")
	own := []Connection{
		{Remote: at("192.0.2.8:7420"), LocalPort: 40002},
		{Remote: remote, LocalPort: 40000},
		{Remote: netip.AddrPortFrom(netip.AddrFrom16(at("[::ffff:198.51.100.1]:1").Addr().As16()), 7421), LocalPort: 40003},
		{Remote: remote6, LocalPort: 40001},
	}
	tcp := func(src, dst netip.AddrPort) []byte { return testkit.TCP{Src: src, Dst: dst}.IP() }
	ether := func(frame []byte) []byte {
		if frame[0]>>4 == 6 {
			return testkit.Ethernet(0x86dd, frame)
		}
		return testkit.Ethernet(0x0800, frame)
	}
	var cut []byte
	for _, c := range []struct {
		name string
		ip   []byte
		want bool
	}{
		{"sent", tcp(local, remote), false},
		{"received", tcp(remote, local), false},
		{"sent, first of the list", tcp(at("192.0.2.1:40002"), at("192.0.2.8:7420")), false},
		{"sent, mapped address", tcp(at("192.0.2.1:40003"), at("198.51.100.1:7421")), false},
		{"sent from another address", tcp(at("192.0.2.77:40000"), remote), false},
		{"another local port", tcp(at("192.0.2.1:40001"), remote), true},
		{"ports of another connection", tcp(at("192.0.2.1:40002"), remote), true},
		{"another remote port", tcp(local, at("192.0.2.9:7421")), true},
		{"another remote address", tcp(local, at("192.0.2.7:7420")), true},
		{"the ports the other way round", tcp(at("192.0.2.1:7420"), at("192.0.2.9:40000")), true},
		{"from the remote address, ports as sent", tcp(at("192.0.2.9:40000"), at("192.0.2.1:7420")), true},
		{"udp", testkit.UDPIP(local, remote, []byte("x")), true},
		{"sent, IPv6", tcp(local6, remote6), false},
		{"received, IPv6", tcp(remote6, local6), false},
		{"IPv6, another local port", tcp(at("[2001:db8::1]:40000"), remote6), true},
		{"IPv6, another address in its last bytes", tcp(local6, at("[2001:db8::8]:7420")), true},
		{"IPv6, another address in its first bytes", tcp(local6, at("[2001:db9::9]:7420")), true},
		{"IPv6, udp", testkit.UDPIP(local6, remote6, []byte("x")), true},
		{"a later fragment", testkit.IPv4Fragment(local.Addr(), remote.Addr(), 6, 1, 8, false, tcp(local, remote)[20:]), true},
		{"cut in the ports", tcp(local, remote)[:23], true},
		{"cut in the ports, IPv6", tcp(local6, remote6)[:43], true},
		{"no header", cut, true},
	} {
		frames := map[string]struct {
			m     meta
			frame []byte
		}{"raw": {meta{index: 2, hatype: 65534, proto: 0x0800}, c.ip}}
		if len(c.ip) > 0 {
			frames["ethernet"] = struct {
				m     meta
				frame []byte
			}{meta{index: 2, hatype: arphrdEther}, ether(c.ip)}
			proto := uint16(0x0800)
			if c.ip[0]>>4 == 6 {
				proto = 0x86dd
				raw := frames["raw"]
				raw.m.proto = 0x86dd
				frames["raw"] = raw
			}
			frames["vlan"] = struct {
				m     meta
				frame []byte
			}{meta{index: 2, hatype: arphrdEther}, testkit.Ethernet(0x88a8, testkit.VLAN(7, proto, c.ip))}
		}
		for kind, f := range frames {
			for _, indexes := range [][]int{nil, {1, 2}} {
				if got := accepts(t, selection{indexes: indexes, own: own}, f.m, f.frame); got != c.want {
					t.Errorf("%s, %s, interfaces %v: accepts = %v, want %v", c.name, kind, indexes, got, c.want)
				}
			}
			// With ports, what the one or the other drops.
			for _, ports := range [][]uint16{{7420, 7421}, {80}} {
				want := c.want && accepts(t, selection{ports: ports}, f.m, f.frame)
				if got := accepts(t, selection{ports: ports, own: own}, f.m, f.frame); got != want {
					t.Errorf("%s, %s, ports %v: accepts = %v, want %v", c.name, kind, ports, got, want)
				}
			}
		}
	}
}

// TestFilterLists: every one of many interfaces and ports passes, and nothing else.
func TestFilterLists(t *testing.T) {
	var s selection
	for i := range 600 {
		s.indexes = append(s.indexes, 2*i)
	}
	for i := range maxPorts {
		s.ports = append(s.ports, uint16(1000+2*i))
	}
	at := netip.AddrPortFrom
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	check := func(index int, src, dst uint16, want bool) {
		t.Helper()
		frame := testkit.Ethernet(0x0800, testkit.TCP{Src: at(a, src), Dst: at(b, dst)}.IP())
		if got := accepts(t, s, meta{index: uint32(index), hatype: arphrdEther}, frame); got != want {
			t.Errorf("interface %d, port %d to %d: accepts = %v, want %v", index, src, dst, got, want)
		}
	}
	for _, index := range s.indexes {
		check(index, 40000, 1000, true)
		check(index+1, 40000, 1000, false)
	}
	for _, port := range s.ports {
		check(2, port, 40000, true)
		check(2, 40000, port, true)
		check(2, 40000, port+1, false)
	}
}

// The longest filter that the settings allow is one that the kernel takes.
func TestFilterSize(t *testing.T) {
	ports := make([]uint16, maxPorts)
	own := make([]Connection, maxOwn)
	for i := range own {
		own[i].Remote = netip.MustParseAddrPort("[2001:db8::1]:7420")
	}
	raw, err := filterFor(selection{indexes: make([]int, 500), ports: ports, own: own})
	if err != nil {
		t.Fatal(err)
	}
	if len(raw) > 4096 {
		t.Errorf("the longest filter has %d instructions, want at most 4096", len(raw))
	}
}
