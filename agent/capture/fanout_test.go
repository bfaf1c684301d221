package capture

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/httpctl/httpctl/pkg/testkit"
	"golang.org/x/net/bpf"
)

// fanoutHash runs the fanout program in the VM of x/net/bpf, on a frame as the kernel shows it: one that
// arrives without its link layer.
func fanoutHash(t testing.TB, m meta, frame []byte) uint32 {
	t.Helper()
	program, err := fanoutProgram()
	if err != nil {
		t.Fatal(err)
	}
	for i, ins := range program {
		switch ins := ins.(type) {
		case bpf.LoadExtension:
			v := map[bpf.Extension]uint32{bpf.ExtLinkLayerType: m.hatype, bpf.ExtType: m.kind, bpf.ExtProto: m.proto}
			program[i] = bpf.LoadConstant{Dst: bpf.RegA, Val: v[ins.Num]}
		case bpf.LoadConstant:
			if ins.Val == networkOffset {
				program[i] = bpf.LoadConstant{Dst: ins.Dst, Val: m.index} // here: where the IP header is
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
	return uint32(n)
}

// encapsulations are ways in which a flow's packet travels: the EtherType and what follows. random
// is what differs from packet to packet of one flow.
var encapsulations = map[string]func(random uint16, inner []byte) (uint16, []byte){
	"plain": func(_ uint16, p []byte) (uint16, []byte) { return typeOf(p), p },
	"vlan":  func(_ uint16, p []byte) (uint16, []byte) { return 0x8100, testkit.VLAN(7, typeOf(p), p) },
	"two vlans": func(_ uint16, p []byte) (uint16, []byte) {
		return 0x88a8, testkit.VLAN(7, 0x8100, testkit.VLAN(0x500|8, typeOf(p), p))
	},
	"pppoe": func(_ uint16, p []byte) (uint16, []byte) {
		proto := uint16(0x0021)
		if typeOf(p) == 0x86dd {
			proto = 0x0057
		}
		return 0x8864, slices.Concat([]byte{0x11, 0, 0, 1, 0, 0}, be(proto), p)
	},
	"mpls": func(r uint16, p []byte) (uint16, []byte) {
		return 0x8847, slices.Concat([]byte{byte(r), 1, 0, 64}, []byte{byte(r), 1, 1, 64}, p)
	},
	"ip in ip": func(_ uint16, p []byte) (uint16, []byte) {
		proto := uint8(4)
		if typeOf(p) == 0x86dd {
			proto = 41
		}
		return outer4(proto, p)
	},
	"ip in ipv6": func(_ uint16, p []byte) (uint16, []byte) {
		proto := uint8(4)
		if typeOf(p) == 0x86dd {
			proto = 41
		}
		return 0x86dd, testkit.IPv6(outerA6, outerB6, proto, p)
	},
	"gre": func(_ uint16, p []byte) (uint16, []byte) {
		return outer4(47, slices.Concat([]byte{0, 0}, be(typeOf(p)), p))
	},
	"gre with all": func(r uint16, p []byte) (uint16, []byte) {
		return outer4(47, slices.Concat([]byte{0xb0, 0}, be(typeOf(p)), be(r), make([]byte, 10), p))
	},
	"gre with key": func(r uint16, p []byte) (uint16, []byte) {
		return outer4(47, slices.Concat([]byte{0x20, 0}, be(typeOf(p)), be(r), make([]byte, 2), p))
	},
	"ethernet in gre": func(_ uint16, p []byte) (uint16, []byte) {
		return outer4(47, slices.Concat([]byte{0, 0, 0x65, 0x58}, testkit.Ethernet(typeOf(p), p)))
	},
	"erspan": func(r uint16, p []byte) (uint16, []byte) {
		return outer4(47, slices.Concat([]byte{0x10, 0, 0x88, 0xbe}, be(r), make([]byte, 2), make([]byte, 8), testkit.Ethernet(typeOf(p), p)))
	},
	"vxlan": func(r uint16, p []byte) (uint16, []byte) {
		return outerUDP(r, 4789, vxlan(testkit.Ethernet(typeOf(p), p)))
	},
	"vxlan with vlan": func(r uint16, p []byte) (uint16, []byte) {
		return outerUDP(r, 8472, vxlan(testkit.Ethernet(0x8100, testkit.VLAN(9, typeOf(p), p))))
	},
	"vxlan from its port": func(r uint16, p []byte) (uint16, []byte) {
		return outerUDP(4789, r, vxlan(testkit.Ethernet(typeOf(p), p)))
	},
	"vxlan over ipv6": func(r uint16, p []byte) (uint16, []byte) {
		return 0x86dd, testkit.UDPIP(netip.AddrPortFrom(outerA6, r), netip.AddrPortFrom(outerB6, 4789), vxlan(testkit.Ethernet(typeOf(p), p)))
	},
	"vxlan gpe": func(r uint16, p []byte) (uint16, []byte) {
		next := byte(1)
		if typeOf(p) == 0x86dd {
			next = 2
		}
		return outerUDP(r, 4790, slices.Concat([]byte{0x0c, 0, 0, next, 0, 0, 7, 0}, p))
	},
	"geneve": func(r uint16, p []byte) (uint16, []byte) {
		return outerUDP(r, 6081, slices.Concat([]byte{0, 0, 0x65, 0x58, 0, 0, 7, 0}, testkit.Ethernet(typeOf(p), p)))
	},
	"geneve with options": func(r uint16, p []byte) (uint16, []byte) {
		return outerUDP(r, 6081, slices.Concat([]byte{2, 0}, be(typeOf(p)), []byte{0, 0, 7, 0}, make([]byte, 8), p))
	},
	"gtp": func(r uint16, p []byte) (uint16, []byte) {
		return outerUDP(r, 2152, slices.Concat([]byte{0x30, 0xff, 0, 0, 0, 0}, be(r), p))
	},
	"gtp with sequence number": func(r uint16, p []byte) (uint16, []byte) {
		return outerUDP(r, 2152, slices.Concat([]byte{0x32, 0xff, 0, 0, 0, 0}, be(r), be(r), []byte{0, 0}, p))
	},
	"gtp with extensions": func(r uint16, p []byte) (uint16, []byte) {
		return outerUDP(r, 2152, slices.Concat([]byte{0x34, 0xff, 0, 0, 0, 0}, be(r), be(r), []byte{0, 0x85, 1, 0, 0, 0xc0, 2, 0, 0, 0, 0, 0, 0, 0}, p))
	},
	"ip in ip in vxlan": func(r uint16, p []byte) (uint16, []byte) {
		proto := uint8(4)
		if typeOf(p) == 0x86dd {
			proto = 41
		}
		_, between := outer4(proto, p)
		return outerUDP(r, 4789, vxlan(testkit.Ethernet(0x0800, between)))
	},
}

var (
	outerA, outerB   = netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("203.0.113.2")
	outerA6, outerB6 = netip.MustParseAddr("2001:db8:f::1"), netip.MustParseAddr("2001:db8:f::2")
)

func be(v uint16) []byte { return binary.BigEndian.AppendUint16(nil, v) }

func typeOf(ip []byte) uint16 {
	if ip[0]>>4 == 6 {
		return 0x86dd
	}
	return 0x0800
}

func outer4(proto uint8, payload []byte) (uint16, []byte) {
	return 0x0800, testkit.IPv4(outerA, outerB, proto, payload)
}

func outerUDP(src, dst uint16, payload []byte) (uint16, []byte) {
	return 0x0800, testkit.UDPIP(netip.AddrPortFrom(outerA, src), netip.AddrPortFrom(outerB, dst), payload)
}

func vxlan(frame []byte) []byte { return slices.Concat([]byte{8, 0, 0, 0, 0, 0, 7, 0}, frame) }

// TestFanoutInnermost: a flow has one number, whichever way its packets travel, in both directions, as
// they arrive, are sent, and are seen on devices without a link layer.
func TestFanoutInnermost(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		port := uint16(random.Uint32() | 1024)
		for _, ends := range [][2]netip.AddrPort{
			{netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(random.Uint32()), 3, 4}), port), netip.MustParseAddrPort("192.0.2.9:80")},
			{netip.AddrPortFrom(netip.MustParseAddr("2001:db8:1:2:3:4:5:6"), port), netip.MustParseAddrPort("[2001:db8:1:2:3:4:6:5]:8080")},
		} {
			want := fanoutHash(t, meta{proto: uint32(typeOf(testkit.TCP{Src: ends[0], Dst: ends[1]}.IP()))}, testkit.TCP{Src: ends[0], Dst: ends[1]}.IP())
			for name, encapsulate := range encapsulations {
				for way, payload := range map[int]int{0: 0, 1: 100} {
					src, dst := ends[way], ends[1-way]
					kind, p := encapsulate(uint16(random.Uint32()|32768), testkit.TCP{Src: src, Dst: dst, Payload: make([]byte, payload)}.IP())
					forms := map[string]uint32{
						"arrives":                              fanoutHash(t, meta{hatype: arphrdEther, proto: uint32(kind)}, p),
						"is sent":                              fanoutHash(t, meta{hatype: arphrdEther, kind: packetOutgoing, proto: uint32(kind)}, testkit.Ethernet(kind, p)),
						"is sent without a link layer":         fanoutHash(t, meta{hatype: 65534, kind: packetOutgoing, proto: uint32(kind)}, p),
						"is sent with another link layer":      fanoutHash(t, meta{index: 4, hatype: 512, kind: packetOutgoing, proto: uint32(kind)}, slices.Concat(make([]byte, 4), p)),
						"is sent, put together from fragments": fanoutHash(t, meta{hatype: arphrdEther, kind: packetOutgoing, proto: uint32(kind)}, p),
					}
					for form, got := range forms {
						if got != want {
							t.Fatalf("%s -> %s, %s, %s: %#x, want %#x as plain", src, dst, name, form, got, want)
						}
					}
				}
			}
		}
	}
}

// TestFanoutAddresses: what has no ports, or a tunnel that is not known, goes by the addresses, the same
// for both directions and for all fragments.
func TestFanoutAddresses(t *testing.T) {
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	a6, b6 := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
	at := netip.AddrPortFrom
	run := func(ip []byte) uint32 { return fanoutHash(t, meta{proto: uint32(typeOf(ip))}, ip) }
	same := func(name string, packets ...[]byte) {
		t.Helper()
		for _, p := range packets {
			if got, want := run(p), run(packets[0]); got != want {
				t.Errorf("%s: %#x, want %#x", name, got, want)
			}
		}
	}
	same("fragments", testkit.IPv4Fragment(a, b, 6, 1, 0, true, make([]byte, 24)), testkit.IPv4Fragment(b, a, 6, 2, 24, false, []byte{1, 2, 3, 4}))
	same("udp", testkit.UDPIP(at(a, 1000), at(b, 2000), []byte("x")), testkit.UDPIP(at(b, 3000), at(a, 4000), []byte("x")), testkit.IPv4(a, b, 50, make([]byte, 40)))
	same("ipv6 fragments", testkit.IPv6(a6, b6, 44, slices.Concat([]byte{6, 0, 0, 1, 0, 0, 0, 1}, make([]byte, 24))), testkit.IPv6(b6, a6, 44, make([]byte, 40)))
	tcp := testkit.TCP{Src: at(a6, 1000), Dst: at(b6, 80)}
	same("ipv6 extension headers", tcp.IP(),
		testkit.IPv6(a6, b6, 0, slices.Concat([]byte{60, 0, 1, 4, 0, 0, 0, 0}, []byte{6, 1, 1, 12}, make([]byte, 12), tcp.Segment())))
	if run(tcp.IP()) == run(testkit.TCP{Src: at(a6, 1001), Dst: at(b6, 80)}.IP()) {
		t.Error("another port has the same number")
	}
	// Too short, or hostile: a number, no error.
	for name, encapsulate := range encapsulations {
		kind, p := encapsulate(40000, tcp.IP())
		for n := range p {
			fanoutHash(t, meta{hatype: arphrdEther, proto: uint32(kind)}, p[:n])
			q := slices.Clone(p)
			q[n] ^= 0xff
			fanoutHash(t, meta{hatype: arphrdEther, proto: uint32(kind)}, q)
		}
		_ = name
	}
	_, gtp := outerUDP(40000, 2152, slices.Concat([]byte{0x34, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}, make([]byte, 40)))
	if got, want := run(gtp), run(testkit.IPv4(outerA, outerB, 50, nil)); got != want {
		t.Errorf("an endless GTP extension: %#x, want that of the addresses %#x", got, want)
	}
}

// TestFanoutSpreads: flows that differ in little are spread evenly over any number of rings.
func TestFanoutSpreads(t *testing.T) {
	b := netip.MustParseAddrPort("10.0.0.1:80")
	flow := map[string]func(i int) netip.AddrPort{
		"ports, one after another": func(i int) netip.AddrPort {
			return netip.AddrPortFrom(netip.MustParseAddr("10.0.0.2"), uint16(32768+i))
		},
		"even ports": func(i int) netip.AddrPort {
			return netip.AddrPortFrom(netip.MustParseAddr("10.0.0.2"), uint16(32768+2*i))
		},
		"addresses": func(i int) netip.AddrPort {
			return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), 40000)
		},
		"networks": func(i int) netip.AddrPort {
			return netip.AddrPortFrom(netip.AddrFrom4([4]byte{byte(i), byte(i >> 8), 7, 7}), 40000)
		},
	}
	for name, client := range flow {
		for _, rings := range []int{2, 3, 4, 8} {
			const n = 2000
			counts := make([]int, rings)
			for i := range n {
				counts[fanoutHash(t, meta{proto: 0x0800}, testkit.TCP{Src: client(i), Dst: b}.IP())%uint32(rings)]++
			}
			for ring, got := range counts {
				if want := n / rings; got < want*4/5 || got > want*6/5 {
					t.Errorf("%s: ring %d of %d has %d of %d flows", name, ring, rings, got, n)
				}
			}
		}
	}
}

// TestFanoutSize: the kernel takes 4096 instructions.
func TestFanoutSize(t *testing.T) {
	program, err := fanoutProgram()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := bpf.Assemble(program)
	if err != nil {
		t.Fatal(err)
	}
	if len(raw) > 4096 {
		t.Errorf("%d instructions", len(raw))
	}
	t.Log(fmt.Sprint(len(raw), " instructions"))
}
