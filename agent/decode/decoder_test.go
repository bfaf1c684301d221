package decode

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/httpctl/httpctl/agent/capture"
	"github.com/httpctl/httpctl/pkg/exchange"
	"github.com/httpctl/httpctl/pkg/testkit"
)

var (
	client  = netip.MustParseAddrPort("192.0.2.1:40000")
	server  = netip.MustParseAddrPort("192.0.2.2:80")
	client6 = netip.MustParseAddrPort("[2001:db8::1]:40000")
	server6 = netip.MustParseAddrPort("[2001:db8::2]:80")
	// The ends of tunnels.
	left, right = netip.MustParseAddrPort("198.51.100.1:50000"), netip.MustParseAddrPort("198.51.100.2:50001")
)

const payload = "GET / HTTP/1.1\r\nHost: example.org\r\n\r\n"

func segment4() testkit.TCP {
	return testkit.TCP{Src: client, Dst: server, Seq: 7, Ack: 9, Flags: testkit.ACK, Window: 300, Payload: []byte(payload)}
}

func segment6() testkit.TCP {
	s := segment4()
	s.Src, s.Dst = client6, server6
	return s
}

func port(a netip.AddrPort, p uint16) netip.AddrPort { return netip.AddrPortFrom(a.Addr(), p) }

func be16(v uint16) []byte { return binary.BigEndian.AppendUint16(nil, v) }
func be32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }
func join(parts ...[]byte) []byte {
	return bytes.Join(parts, nil)
}

// udp4 is a tunnel over UDP between left and right, to a port.
func udp4(to uint16, payload []byte) []byte {
	return testkit.Ethernet(testkit.EtherIPv4, testkit.UDPIP(left, port(right, to), payload))
}

func ip4(proto uint8, payload []byte) []byte {
	return testkit.Ethernet(testkit.EtherIPv4, testkit.IPv4(left.Addr(), right.Addr(), proto, payload))
}

func decodeOne(link uint16, frame []byte) (s Segment, ok bool, n exchange.Counters) {
	d := New(DefaultConfig(), &n)
	p := capture.Packet{Number: 3, Time: 5, Data: frame, Length: len(frame), Link: link, Namespace: 11}
	ok = d.Decode(&p, &s)
	return s, ok, n
}

// snap says that IPv4 follows.
var snap = []byte{0xaa, 0xaa, 3, 0, 0, 0, 8, 0}

// encapsulations are ways to carry the same segment. inner is segment4 or segment6.
var encapsulations = []struct {
	name   string
	link   uint16
	frame  []byte
	tunnel bool // has an id that is part of the flow
}{
	{"ethernet", 1, segment4().Ethernet(), false},
	{"ethernet ipv6", 1, segment6().Ethernet(), false},
	{"ethernet padding", 1, append(segment4().Ethernet(), make([]byte, 20)...), false},
	{"vlan", 1, testkit.Ethernet(0x8100, testkit.VLAN(1, 0x0800, segment4().IP())), false},
	{"three vlan tags", 1, testkit.Ethernet(0x88a8, testkit.VLAN(1, 0x9100, testkit.VLAN(2, 0x8100, testkit.VLAN(3, 0x86dd, segment6().IP())))), false},
	{"llc snap", 1, testkit.Ethernet(uint16(8+len(segment4().IP())), join([]byte{0xaa, 0xaa, 3, 0, 0, 0, 8, 0}, segment4().IP(), make([]byte, 9))), false},
	{"raw ip", 101, segment4().IP(), false},
	{"raw ip, number of Linux", 12, segment6().IP(), false},
	{"raw ip, number of OpenBSD", 14, segment6().IP(), false},
	{"ipv4", 228, segment4().IP(), false},
	{"ipv6", 229, segment6().IP(), false},
	{"null, little endian", 0, join([]byte{2, 0, 0, 0}, segment4().IP()), false},
	{"null, big endian", 0, join([]byte{0, 0, 0, 30}, segment6().IP()), false},
	{"loop", 108, join([]byte{0, 0, 0, 24}, segment6().IP()), false},
	{"cooked", 113, join(make([]byte, 14), be16(0x0800), segment4().IP()), false},
	{"cooked vlan", 113, join(make([]byte, 14), be16(0x8100), testkit.VLAN(1, 0x0800, segment4().IP())), false},
	{"cooked 2", 276, join(be16(0x86dd), make([]byte, 18), segment6().IP()), false},
	{"ppp", 9, join([]byte{0xff, 3, 0, 0x21}, segment4().IP()), false},
	{"ppp, compressed", 9, join([]byte{0x57}, segment6().IP()), false},
	{"cisco hdlc", 104, join([]byte{0x0f, 0, 8, 0}, segment4().IP()), false},
	{"pppoe", 1, testkit.Ethernet(0x8864, join([]byte{0x11, 0, 0, 9}, be16(uint16(2+len(segment4().IP()))), []byte{0, 0x21}, segment4().IP())), false},
	{"mpls", 1, testkit.Ethernet(0x8847, join(be32(16<<12|255), be32(17<<12|1<<8|255), segment4().IP())), false},
	{"mpls ethernet", 1, testkit.Ethernet(0x8847, join(be32(17<<12|1<<8|255), segment4().Ethernet())), false},
	{"mpls control word", 1, testkit.Ethernet(0x8847, join(be32(17<<12|1<<8|255), be32(0), segment4().Ethernet())), false},
	{"802.11", 105, join([]byte{8, 1}, make([]byte, 22), []byte{0xaa, 0xaa, 3, 0, 0, 0, 8, 0}, segment4().IP()), false},
	{"802.11 qos", 105, join([]byte{0x88, 1}, make([]byte, 24), []byte{0xaa, 0xaa, 3, 0, 0, 0, 8, 0}, segment4().IP(), make([]byte, 4)), false},
	{"802.11 between access points", 105, join([]byte{0x88, 3}, make([]byte, 30), []byte{0xaa, 0xaa, 3, 0, 0, 0, 8, 0}, segment4().IP()), false},
	{"radiotap", 127, join([]byte{0, 0, 9, 0, 2, 0, 0, 0, 0, 8, 1}, make([]byte, 22), []byte{0xaa, 0xaa, 3, 0, 0, 0, 8, 0}, segment4().IP()), false},
	{"radiotap padded", 127, join([]byte{0, 0, 9, 0, 2, 0, 0, 0, 0x20, 0x88, 1}, make([]byte, 26), []byte{0xaa, 0xaa, 3, 0, 0, 0, 8, 0}, segment4().IP()), false},
	{"prism", 119, join([]byte{0x44, 0, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0, 8, 1}, make([]byte, 22), []byte{0xaa, 0xaa, 3, 0, 0, 0, 8, 0}, segment4().IP()), false},
	{"avs", 163, join([]byte{0x80, 0x21, 0x10, 1, 0, 0, 0, 12, 0, 0, 0, 0, 8, 1}, make([]byte, 22), []byte{0xaa, 0xaa, 3, 0, 0, 0, 8, 0}, segment4().IP()), false},
	{"ppi", 192, join([]byte{0, 0, 8, 0, 1, 0, 0, 0}, segment4().Ethernet()), false},
	{"nflog", 239, join([]byte{2, 0, 0, 0, 5, 0, 10, 0, 1, 0, 0, 0}, []byte{byte(4 + len(segment4().IP())), 0, 9, 0}, segment4().IP()), false},
	{"ip options", 101, func() []byte {
		b := segment4().IP()
		b = join([]byte{0x46}, b[1:20], []byte{1, 1, 1, 1}, b[20:])
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
		return b
	}(), false},
	{"tcp options", 101, func() []byte {
		s := segment4()
		s.Options = []byte{1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2}
		return s.IP()
	}(), false},
	{"ip length left to the hardware", 101, func() []byte {
		b := segment4().IP()
		b[2], b[3] = 0, 0
		return b
	}(), false},
	{"ipv4 authentication", 101, testkit.IPv4(client.Addr(), server.Addr(), 51, join([]byte{6, 4}, make([]byte, 22), segment4().Segment())), false},
	{"ipv6 extensions", 101, testkit.IPv6(client6.Addr(), server6.Addr(), 0, join(
		[]byte{43, 0, 0, 0, 0, 0, 0, 0}, []byte{60, 1}, make([]byte, 14), []byte{51, 0, 0, 0, 0, 0, 0, 0},
		[]byte{44, 4}, make([]byte, 22), []byte{6, 0, 0, 0, 0, 0, 0, 1}, segment6().Segment())), false},
	{"ip in ip", 1, ip4(4, segment4().IP()), false},
	{"6in4", 1, ip4(41, segment6().IP()), false},
	{"4in6", 101, testkit.IPv6(client6.Addr(), server6.Addr(), 4, segment4().IP()), false},
	{"etherip", 1, ip4(97, join([]byte{0x30, 0}, segment4().Ethernet())), false},
	{"mpls in ip", 1, ip4(137, join(be32(17<<12|1<<8|255), segment4().IP())), false},
	{"gre", 1, ip4(47, join([]byte{0, 0, 8, 0}, segment4().IP())), false},
	{"gre checksum, key, sequence", 1, ip4(47, join([]byte{0xb0, 0, 0x86, 0xdd}, make([]byte, 4), be32(77), be32(1), segment6().IP())), true},
	{"gre ethernet", 1, ip4(47, join([]byte{0x20, 0, 0x65, 0x58}, be32(77), segment4().Ethernet())), true},
	{"gre of aruba", 1, ip4(47, join([]byte{0, 0, 0x82, 0, 0x88, 1}, make([]byte, 24), snap, segment4().IP())), false},
	{"gre frame relay", 1, ip4(47, join([]byte{0, 0, 0x65, 0x59, 0x18, 0x41, 3, 0xcc}, segment4().IP())), false},
	{"pptp", 1, ip4(47, join([]byte{0x30, 0x81, 0x88, 0x0b}, be16(uint16(4+len(segment4().IP()))), be16(5), be32(1), be32(2), []byte{0xff, 3, 0, 0x21}, segment4().IP())), false},
	{"erspan 1", 1, ip4(47, join([]byte{0, 0, 0x88, 0xbe}, segment4().Ethernet())), false},
	{"erspan 2", 1, ip4(47, join([]byte{0x10, 0, 0x88, 0xbe}, be32(1), []byte{0x10, 0, 0, 5, 0, 0, 0, 0}, segment4().Ethernet())), false},
	{"erspan 3", 1, ip4(47, join([]byte{0x10, 0, 0x22, 0xeb}, be32(1), []byte{0x20, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 1}, make([]byte, 8), segment4().Ethernet())), false},
	{"vxlan", 1, udp4(4789, join([]byte{8, 0, 0, 0}, be32(42<<8), segment4().Ethernet())), true},
	{"vxlan, port of Linux", 1, udp4(8472, join([]byte{8, 0, 0, 0}, be32(42<<8), segment4().Ethernet())), true},
	{"vxlan gpe", 1, udp4(4790, join([]byte{0x0c, 0, 0, 2}, be32(42<<8), segment6().IP())), true},
	{"vxlan gpe nsh", 1, udp4(4790, join([]byte{0x0c, 0, 0, 4}, be32(42<<8), []byte{0, 2, 1, 3}, be32(0), segment4().Ethernet())), true},
	{"geneve", 1, udp4(6081, join([]byte{1, 0, 0x65, 0x58}, be32(42<<8), make([]byte, 4), segment4().Ethernet())), true},
	{"gtp", 1, udp4(2152, join([]byte{0x30, 0xff}, be16(uint16(len(segment4().IP()))), be32(9), segment4().IP())), false},
	{"gtp extension, other port", 1, udp4(2345, join([]byte{0x34, 0xff}, be16(uint16(8+len(segment4().IP()))), be32(9), []byte{0, 0, 0, 0x85, 1, 0, 9, 0}, segment4().IP())), false},
	{"teredo", 1, udp4(3544, func() []byte {
		s := segment6()
		s.Src = netip.MustParseAddrPort("[2001:0:c633:6402::1]:40000")
		return join([]byte{0, 0, 1, 2, 3, 4, 5, 6}, s.IP())
	}()), false},
	{"teredo, native addresses", 1, udp4(3544, segment6().IP()), false},
	{"teredo with a trailer", 1, udp4(3544, join(segment6().IP(), []byte{4, 4, 1, 2, 3, 4})), false},
	{"l2tp", 1, udp4(1701, join([]byte{0x00, 2, 0, 1, 0, 1, 0xff, 3, 0, 0x21}, segment4().IP())), false},
	{"l2tp, all fields", 1, udp4(1701, join([]byte{0x4a, 2}, be16(uint16(20+len(segment4().IP()))), []byte{0, 1, 0, 1, 0, 1, 0, 0, 0, 2, 9, 9, 0xff, 3, 0, 0x21}, segment4().IP())), false},
	{"tzsp", 1, udp4(37008, join([]byte{1, 0, 0, 1, 0, 10, 1, 7, 1}, segment4().Ethernet())), false},
	{"lisp", 1, udp4(4341, join([]byte{0x80, 0, 0, 0, 0, 0, 0, 0}, segment4().IP())), false},
	{"cisco metadata", 1, testkit.Ethernet(0x8909, join([]byte{1, 1, 0, 1, 0, 5, 8, 0}, segment4().IP())), false},
	{"fabricpath", 1, testkit.Ethernet(0x8903, join([]byte{0, 0x20}, testkit.Ethernet(0x8100, testkit.VLAN(3, 0x0800, segment4().IP())))), false},
	{"trill", 1, testkit.Ethernet(0x22f3, join([]byte{0, 0x7f, 0, 1, 0, 2, 9, 9, 9, 9}, segment4().Ethernet())), false},
	{"jumbo llc", 1, testkit.Ethernet(0x8870, join(snap, segment4().IP())), false},
	{"hsr", 1, testkit.Ethernet(0x892f, join([]byte{0, 99, 0, 1, 8, 0}, segment4().IP())), false},
	{"switch port, 8 octets", 1, testkit.Ethernet(0xdada, join([]byte{0, 0, 0xc0, 1, 0, 0, 8, 0}, segment4().IP())), false},
	{"token ring", 6, join([]byte{0x10, 0x40}, make([]byte, 12), snap, segment4().IP()), false},
	{"token ring with a route", 6, join([]byte{0x10, 0x40}, make([]byte, 6), []byte{0x80, 0, 0, 0, 0, 0, 4, 0, 1, 2}, snap, segment4().IP()), false},
	{"slip", 8, join(make([]byte, 16), segment4().IP()), false},
	{"fddi", 10, join([]byte{0x57}, make([]byte, 12), snap, segment4().IP()), false},
	{"atm llc", 100, join(snap, segment4().IP()), false},
	{"atm ip", 100, segment4().IP(), false},
	{"frame relay", 107, join([]byte{0x18, 0x41, 3, 0xcc}, segment4().IP()), false},
	{"frame relay ipv6", 107, join([]byte{0x18, 0x40, 0x41, 3, 0, 0x8e}, segment6().IP()), false},
	{"frame relay snap", 107, join([]byte{0x18, 0x41, 3, 0, 0x80, 0, 0, 0, 8, 0}, segment4().IP()), false},
	{"frame relay ethernet", 107, join([]byte{0x18, 0x41, 3, 0, 0x80, 0, 0x80, 0xc2, 0, 7}, segment4().Ethernet()), false},
	{"frame relay of cisco", 107, join([]byte{0x18, 0x41, 8, 0}, segment4().IP()), false},
	{"enc", 109, join([]byte{2, 0, 0, 0}, make([]byte, 8), segment4().IP()), false},
	{"pflog", 117, join([]byte{61, 2}, make([]byte, 62), segment4().IP()), false},
	{"fibre channel", 122, join(make([]byte, 16), snap, segment4().IP()), false},
	{"ieee 1394", 138, join(make([]byte, 16), []byte{8, 0}, segment4().IP()), false},
	{"junos", 178, join([]byte{'M', 'G', 'C', 0x81, 0, 4, 1, 2, 3, 4}, segment4().Ethernet()), false},
	{"junos without a link layer", 178, join([]byte{'M', 'G', 'C', 2, 2, 0, 0, 0}, segment4().IP()), false},
	{"ip over infiniband", 242, join([]byte{8, 0, 0, 0}, segment4().IP()), false},
	{"ip over infiniband, routed", 242, join([]byte{0x60}, make([]byte, 39), []byte{8, 0, 0, 0}, segment4().IP()), false},
	{"cisco hdlc with direction", 205, join([]byte{1, 0x0f, 0, 8, 0}, segment4().IP()), false},
	{"frame relay with direction", 206, join([]byte{1, 0x18, 0x41, 3, 0xcc}, segment4().IP()), false},
	{"netanalyzer", 240, join(make([]byte, 4), segment4().Ethernet()), false},
	{"netanalyzer with preamble", 241, join(make([]byte, 12), segment4().Ethernet()), false},
	{"pktap", 258, join([]byte{16, 0, 0, 0, 1, 0, 0, 0, 12, 0, 0, 0, 9, 9, 9, 9}, segment6().IP()), false},
	{"mpacket", 274, join(make([]byte, 8), segment4().Ethernet()), false},
	{"switch port of broadcom", 281, join(make([]byte, 16), []byte{8, 0}, segment4().IP()), false},
	{"switch port of broadcom, before the frame", 282, join(make([]byte, 4), segment4().Ethernet()), false},
	{"switch port of marvell", 284, join(make([]byte, 16), []byte{8, 0}, segment4().IP()), false},
	{"switch port of marvell, 8 octets", 285, join(make([]byte, 20), []byte{8, 0}, segment4().IP()), false},
	{"cooked radiotap", 113, join([]byte{0, 3, 3, 0x23}, make([]byte, 12), []byte{0, 0, 9, 0, 2, 0, 0, 0, 0, 8, 1}, make([]byte, 22), snap, segment4().IP()), false},
	{"cooked 2 radiotap", 276, join([]byte{0, 0, 0, 0, 0, 0, 0, 3, 3, 0x23}, make([]byte, 10), []byte{0, 0, 9, 0, 2, 0, 0, 0, 0, 8, 1}, make([]byte, 22), snap, segment4().IP()), false},
	{"ayiya", 1, udp4(5072, join([]byte{0x44, 0x52, 1, 41}, be32(1), make([]byte, 16+20), segment6().IP())), false},
	{"vxlan in vlan in mpls", 1, testkit.Ethernet(0x8847, join(be32(17<<12|1<<8|255), testkit.Ethernet(0x8100, testkit.VLAN(3, 0x0800,
		testkit.UDPIP(left, port(right, 4789), join([]byte{8, 0, 0, 0}, be32(42<<8), segment4().Ethernet())))))), true},
}

func TestEncapsulations(t *testing.T) {
	for _, c := range encapsulations {
		s, ok, n := decodeOne(c.link, c.frame)
		if !ok {
			t.Errorf("%s: no segment found; malformed %d, undecoded %d", c.name, n[exchange.MalformedPackets], n[exchange.UndecodedPackets])
			continue
		}
		if s.SrcPort != 40000 || s.DstPort != 80 || s.Seq != 7 || s.Ack != 9 || s.Flags != ACK || s.Window != 300 ||
			string(s.Payload) != payload || s.Length != len(payload) {
			t.Errorf("%s: segment = %+v, payload %q", c.name, s, s.Payload)
		}
		src, dst := s.Source(), s.Destination()
		if !(src == client && dst == server) && !(dst == server6 && (src == client6 || c.name == "teredo")) {
			t.Errorf("%s: from %v to %v", c.name, src, dst)
		}
		if s.Packet != 3 || s.Time != 5 || s.Namespace != 11 || (s.Tunnel != 0) != c.tunnel {
			t.Errorf("%s: packet %d, time %d, namespace %d, tunnel %d", c.name, s.Packet, s.Time, s.Namespace, s.Tunnel)
		}
		if n[exchange.Segments] != 1 || n[exchange.Packets] != 1 || n[exchange.PacketBytes] != uint64(len(c.frame)) || n[exchange.MalformedPackets]+n[exchange.UndecodedPackets]+n[exchange.TruncatedPackets] != 0 {
			t.Errorf("%s: counters %v", c.name, n)
		}
	}
}

// A packet cut anywhere gives no panic, and a segment only if the TCP header is whole;
// Length stays that on the wire.
func TestTruncated(t *testing.T) {
	for _, c := range encapsulations {
		for cut := range len(c.frame) {
			var n exchange.Counters
			var s Segment
			d := New(DefaultConfig(), &n)
			p := capture.Packet{Data: c.frame[:cut:cut], Length: len(c.frame), Link: c.link}
			if d.Decode(&p, &s) && (s.Length != len(payload) || len(s.Payload) >= len(payload) && cut < len(c.frame)-64) {
				t.Fatalf("%s cut to %d bytes: Length %d, %d bytes of payload", c.name, cut, s.Length, len(s.Payload))
			}
			if n[exchange.TruncatedPackets] != 1 {
				t.Fatalf("%s cut to %d bytes: truncated_packets = %d, want 1", c.name, cut, n[exchange.TruncatedPackets])
			}
			// As a whole frame of that length it contradicts itself or is no TCP, but never harms.
			p.Length = cut
			d.Decode(&p, &s)
		}
	}
}

// An IP header that claims more than its frame has: what is there is used, and the rest is missed.
func TestLongerThanFrame(t *testing.T) {
	frame := segment4().Ethernet()
	s, ok, n := decodeOne(1, frame[:len(frame)-10])
	if !ok || s.Length != len(payload) || len(s.Payload) != len(payload)-10 || n[exchange.TruncatedPackets] != 1 {
		t.Errorf("segment %v: %d bytes of %d, truncated_packets %d, want %d of %d and 1", ok, len(s.Payload), s.Length, n[exchange.TruncatedPackets], len(payload)-10, len(payload))
	}
	if _, ok, n = decodeOne(1, frame[:14+20+10]); ok || n[exchange.MalformedPackets] != 1 {
		t.Errorf("half a TCP header: segment %v, malformed_packets %d, want 1", ok, n[exchange.MalformedPackets])
	}
}

func TestTunnelIDs(t *testing.T) {
	vxlan := func(vni uint32, s testkit.TCP) Segment {
		got, ok, _ := decodeOne(1, udp4(4789, join([]byte{8, 0, 0, 0}, be32(vni<<8), s.Ethernet())))
		if !ok {
			t.Fatal("no segment")
		}
		return got
	}
	there, back := segment4(), segment4()
	back.Src, back.Dst = back.Dst, back.Src
	if a, b := vxlan(1, there), vxlan(2, there); a.Flow == b.Flow {
		t.Error("two VNIs give the same flow")
	}
	if a, b := vxlan(1, there), vxlan(1, back); a.Flow != b.Reverse() {
		t.Error("the directions of a flow in one VNI differ")
	}
	teid := func(id uint32, s testkit.TCP) Segment {
		ip := s.IP()
		got, _, _ := decodeOne(1, udp4(2152, join([]byte{0x30, 0xff}, be16(uint16(len(ip))), be32(id), ip)))
		return got
	}
	if a, b := teid(1, there), teid(2, back); a.Flow != b.Reverse() {
		t.Error("the directions of a flow with different TEIDs differ")
	}
}

func TestFaults(t *testing.T) {
	shortTCP := segment4().IP()
	shortTCP[20+12] = 0x40
	longTCP := segment4().IP()
	longTCP[20+12] = 0xf0
	longTCP = longTCP[:40]
	binary.BigEndian.PutUint16(longTCP[2:], 40)
	deep := segment4().IP()
	for range maxDepth + 1 {
		deep = testkit.IPv4(left.Addr(), right.Addr(), 4, deep)
	}
	for _, c := range []struct {
		name  string
		link  uint16
		frame []byte
		want  exchange.Counter
	}{
		{"no frame", 1, nil, exchange.MalformedPackets},
		{"ip version", 228, segment6().IP(), exchange.MalformedPackets},
		{"ip header length", 228, append([]byte{0x44}, segment4().IP()[1:]...), exchange.MalformedPackets},
		{"tcp header too short", 101, shortTCP, exchange.MalformedPackets},
		{"tcp header too long", 101, longTCP, exchange.MalformedPackets},
		{"too deep", 101, deep, exchange.UndecodedPackets},
		{"link type", 147, segment4().IP(), exchange.UndecodedPackets},
		{"esp", 1, ip4(50, make([]byte, 40)), exchange.UndecodedPackets},
		{"macsec", 1, testkit.Ethernet(0x88e5, make([]byte, 40)), exchange.UndecodedPackets},
		{"protected 802.11", 105, join([]byte{8, 0x41}, make([]byte, 60)), exchange.UndecodedPackets},
		{"arp", 1, testkit.Ethernet(0x0806, make([]byte, 28)), exchange.NumCounters},
		{"udp", 1, udp4(53, []byte("not a tunnel")), exchange.NumCounters},
		{"icmp", 1, ip4(1, make([]byte, 8)), exchange.NumCounters},
		{"gtp that does not fit", 1, udp4(2345, join([]byte{0x30, 0xff}, be16(9), be32(9), segment4().IP())), exchange.NumCounters},
	} {
		_, ok, n := decodeOne(c.link, c.frame)
		if ok {
			t.Errorf("%s: a segment was found", c.name)
		}
		for i := range exchange.NumCounters {
			if i == exchange.Packets || i == exchange.PacketBytes {
				continue
			}
			want := uint64(0)
			if i == c.want {
				want = 1
			}
			if n[i] != want {
				t.Errorf("%s: %v = %d, want %d", c.name, i, n[i], want)
			}
		}
	}
}

func TestPorts(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Ports = []uint16{80}
	var n exchange.Counters
	d := New(cfg, &n)
	var s Segment
	for _, c := range []struct {
		src, dst netip.AddrPort
		want     bool
	}{{client, server, true}, {server, client, true}, {client, port(server, 81), false}} {
		frame := testkit.TCP{Src: c.src, Dst: c.dst}.Ethernet()
		if got := d.Decode(&capture.Packet{Data: frame, Length: len(frame), Link: 1}, &s); got != c.want {
			t.Errorf("Decode(%v -> %v) = %v, want %v", c.src, c.dst, got, c.want)
		}
	}
	if n[exchange.Segments] != 2 {
		t.Errorf("segments = %d, want 2", n[exchange.Segments])
	}
}

// An aggregated 802.11 frame holds several segments.
func TestAggregated(t *testing.T) {
	var body []byte
	for i := range 3 {
		s := segment4()
		s.Seq = uint32(i)
		s.Payload = bytes.Repeat([]byte{'x'}, i+1)
		inner := join([]byte{0xaa, 0xaa, 3, 0, 0, 0, 8, 0}, s.IP())
		for len(body)%4 != 0 {
			body = append(body, 0)
		}
		body = join(body, make([]byte, 12), be16(uint16(len(inner))), inner)
	}
	frame := join([]byte{0x88, 1}, make([]byte, 22), []byte{0x80, 0}, body)
	var n exchange.Counters
	d := New(DefaultConfig(), &n)
	var s Segment
	i := 0
	for ok := d.Decode(&capture.Packet{Data: frame, Length: len(frame), Link: 105}, &s); ok; ok = d.More(&s) {
		if s.Seq != uint32(i) || s.Length != i+1 || s.Source() != client {
			t.Errorf("segment %d = %+v", i, s)
		}
		i++
	}
	if i != 3 || n[exchange.Segments] != 3 || n[exchange.Packets] != 1 {
		t.Errorf("%d segments, counters %d of %d packets, want 3 of 1", i, n[exchange.Segments], n[exchange.Packets])
	}
}

func TestAllocations(t *testing.T) {
	var n exchange.Counters
	d := New(DefaultConfig(), &n)
	var s Segment
	for _, c := range encapsulations {
		p := capture.Packet{Data: c.frame, Length: len(c.frame), Link: c.link}
		if got := testing.AllocsPerRun(100, func() { d.Decode(&p, &s) }); got != 0 {
			t.Errorf("%s: %v allocations a packet, want 0", c.name, got)
		}
	}
}
