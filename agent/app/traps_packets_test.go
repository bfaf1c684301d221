package app

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/httpctl/httpctl/pkg/exchange"
	"github.com/httpctl/httpctl/pkg/testkit"
)

// twoGets is what most traps of this file carry, whatever happens to the packets.
var sayTwoGets = []message{up(get("/1")), down(answer(201, "one")), up(get("/2")), down(answer(202, "two"))}

var twoGets = []string{"GET /1 example.org 0/38 = 201 3/40 complete", "GET /2 example.org 0/38 = 202 3/40 complete"}

// inPlace says why packets cannot change places.
func inPlace(why string) map[mutation]string {
	return map[mutation]string{swapped: why, delayed: why}
}

// tcpTraps are connections that TCP makes hard to follow.
var tcpTraps = []trap{
	{name: "retransmissions with other content", what: "a request and a response sent again with other content: the first copy counts", but: strings.NewReplacer("GET /x", "GET /1", "= 299", "= 201"), of: 2, say: sayTwoGets, want: twoGets, do: func(c *testkit.Conversation) {
		c.Open()
		c.ToServer(get("/1"))
		c.ClientSeq -= 38
		c.ToServer(get("/x"))
		c.ToClient(answer(201, "one"))
		c.ServerSeq -= 40
		c.ToClient(answer(299, "two"))
		c.ToServer(get("/2"))
		c.ToClient(answer(202, "two"))
		c.Close()
	}},
	{name: "methods in two segments", what: "methods of which the first letters may be lost, or were there before the capture: what is left is none", of: 1, say: []message{
		up("HEAD /1 HTTP/1.1\r\nHost: example.org\r\n\r\n"), down(answer(201, "")), up(get("/2")), down(answer(202, "")),
		up(post("/3", "Content-Length: 4\r\n", "body")), down(answer(203, "")),
	}, want: []string{
		"GET /2 example.org 0/38 = 202 0/37 complete",
		"HEAD /1 example.org 0/39 = 201 0/37 complete",
		"POST /3 example.org 4/62 = 203 0/37 complete",
	}, do: func(c *testkit.Conversation) {
		c.Open()
		c.ToServer("HEA")
		c.ToServer("D /1 HTTP/1.1\r\nHost: example.org\r\n\r\n")
		c.ToClient(answer(201, ""))
		c.ToServer("GE")
		c.ToServer("T /2 HTTP/1.1\r\nHost: example.org\r\n\r\n")
		c.ToClient(answer(202, ""))
		c.ToServer("P")
		c.ToServer(post("/3", "Content-Length: 4\r\n", "body")[1:])
		c.ToClient(answer(203, ""))
		c.Close()
	}},
	{name: "overlaps with other content", what: "segments that overlap, with other content where they do: the first copy counts", not: inPlace("the copy that comes first is believed, and of two that differ one is garbage"), of: 2, say: sayTwoGets, want: twoGets, do: func(c *testkit.Conversation) {
		c.Open()
		a, b := get("/1"), answer(201, "one")
		c.ToServer(a[:10])
		c.ClientSeq -= 5
		c.ToServer("xxxxx" + a[10:20])
		c.ClientSeq -= 20
		c.ToServer(strings.Repeat("y", 20) + a[20:])
		c.ToClient(b[:20])
		c.ServerSeq -= 1
		c.ToClient("z" + b[20:])
		c.ToServer(get("/2"))
		c.ToClient(answer(202, "two"))
		c.Close()
	}},
	{name: "zero-window probes", what: "probes of one byte into a closed window, in both directions", of: 2, say: sayTwoGets, want: twoGets, do: func(c *testkit.Conversation) {
		c.Open()
		a, b := get("/1"), answer(201, "one")
		c.ToServer(a[:20])
		for range 3 {
			c.ToServer(a[20:21])
			c.ClientSeq--
			c.FromServer(testkit.ACK, nil)
		}
		c.ToServer(a[20:])
		c.ToClient(b[:1])
		for range 3 {
			c.ServerSeq--
			c.FromServer(testkit.ACK, []byte(b[:1]))
			c.FromClient(testkit.ACK, nil)
		}
		c.ToClient(b[1:])
		c.ToServer(get("/2"))
		c.ToClient(answer(202, "two"))
		c.Close()
	}},
	{name: "keep-alives", what: "keep-alives, empty and with a byte of garbage, before and between messages", of: 2, say: sayTwoGets, want: twoGets, do: func(c *testkit.Conversation) {
		c.Open()
		alive := func(garbage string) {
			c.ClientSeq--
			c.FromClient(testkit.ACK, []byte(garbage))
			if garbage == "" {
				c.ClientSeq++
			}
			c.FromServer(testkit.ACK, nil)
			c.ServerSeq--
			c.FromServer(testkit.ACK, []byte(garbage))
			if garbage == "" {
				c.ServerSeq++
			}
			c.FromClient(testkit.ACK, nil)
		}
		c.ToServer(get("/1"))
		c.ToClient(answer(201, "one"))
		alive("")
		alive("\x00")
		c.ToServer(get("/2"))
		alive("\x00")
		c.ToClient(answer(202, "two"))
		alive("")
		c.Close()
	}},
	{name: "acknowledged before it was seen", what: "acknowledgements captured before what they acknowledge", of: 2, say: sayTwoGets, want: twoGets, do: func(c *testkit.Conversation) {
		c.Open()
		late := func(say func(string), text string, ack func()) {
			k := len(c.Frames)
			say(text)
			ack()
			f := c.Frames[k].Data
			c.Frames[k].Data, c.Frames[k+1].Data = c.Frames[k+1].Data, f
		}
		late(c.ToServer, get("/1"), func() { c.FromServer(testkit.ACK, nil) })
		late(c.ToClient, answer(201, "one"), func() { c.FromClient(testkit.ACK, nil) })
		late(c.ToServer, get("/2"), func() { c.ToClient(answer(202, "two")) })
		c.Close()
	}},
	{name: "reset after the last response", what: "an RST, and a FIN behind it", of: 2, say: sayTwoGets, want: twoGets, do: func(c *testkit.Conversation) {
		c.Open()
		c.ToServer(get("/1"))
		c.ToClient(answer(201, "one"))
		c.ToServer(get("/2"))
		c.ToClient(answer(202, "two"))
		c.Reset()
		c.FromServer(testkit.ACK|testkit.FIN, nil)
	}},
	{name: "reset that its receiver ignores", what: "an RST behind the window, after which the connection goes on", not: inPlace("in another place the RST is one that its receiver obeys"), of: 2, say: sayTwoGets, want: twoGets, do: func(c *testkit.Conversation) {
		c.Open()
		c.ToServer(get("/1"))
		c.ClientSeq -= 10
		c.FromClient(testkit.RST, nil)
		c.ClientSeq += 10
		c.ToClient(answer(201, "one"))
		c.ToServer(get("/2"))
		c.ToClient(answer(202, "two"))
		c.Close()
	}},
	{name: "ports used again", what: "two connections on the same ports", of: 2, say: slices.Concat(sayTwoGets[:2], on(1, slices.Clone(sayTwoGets[2:])...)), want: twoGets, count: counts{exchange.Connections: 2}, do: func(c *testkit.Conversation) {
		c.Open()
		c.ToServer(get("/1"))
		c.ToClient(answer(201, "one"))
		c.Close()
		c.ClientSeq, c.ServerSeq = 0x7654_3210, 0x89ab_cdef
		c.Open()
		c.ToServer(get("/2"))
		c.ToClient(answer(202, "two"))
		c.Close()
	}},
	{name: "ports used again, without an end", what: "a second connection on the ports of one whose end was not seen", of: 2, say: slices.Concat(sayTwoGets[:2], on(1, slices.Clone(sayTwoGets[2:])...)), want: twoGets, count: counts{exchange.Connections: 2}, do: func(c *testkit.Conversation) {
		c.Open()
		c.ToServer(get("/1"))
		c.ToClient(answer(201, "one"))
		c.ClientSeq, c.ServerSeq = 0x7654_3210, 0x89ab_cdef
		c.Open()
		c.ToServer(get("/2"))
		c.ToClient(answer(202, "two"))
		c.Close()
	}},
	{name: "simultaneous open", what: "both ends send a SYN (RFC 9293 section 3.5)", of: 2, say: sayTwoGets, want: twoGets, do: func(c *testkit.Conversation) {
		c.FromClient(testkit.SYN, nil)
		c.FromServer(testkit.SYN, nil)
		client, server := c.ClientSeq, c.ServerSeq
		c.ServerSeq++
		c.FromClient(testkit.SYN|testkit.ACK, nil)
		c.ClientSeq, c.ServerSeq = client+1, server
		c.FromServer(testkit.SYN|testkit.ACK, nil)
		c.ServerSeq++
		c.ToServer(get("/1"))
		c.ToClient(answer(201, "one"))
		c.ToServer(get("/2"))
		c.ToClient(answer(202, "two"))
		c.Close()
	}},
	{name: "two answers to a SYN", what: "a second SYN-ACK with another number, as of two servers behind one address: the client stays with the first", of: 2, say: sayTwoGets, want: twoGets, do: func(c *testkit.Conversation) {
		c.FromClient(testkit.SYN, nil)
		c.ClientSeq++
		c.FromServer(testkit.SYN|testkit.ACK, nil)
		first := c.ServerSeq + 1
		c.ServerSeq = 0x89ab_cdef
		c.FromServer(testkit.SYN|testkit.ACK, nil)
		c.ServerSeq = first
		c.FromClient(testkit.ACK, nil)
		c.ToServer(get("/1"))
		c.ToClient(answer(201, "one"))
		c.ToServer(get("/2"))
		c.ToClient(answer(202, "two"))
		c.Close()
	}},
	{name: "data with the SYN", what: "a request in the SYN (TCP Fast Open)", of: 2, say: sayTwoGets, want: twoGets, do: func(c *testkit.Conversation) {
		a := get("/1")
		c.FromClient(testkit.SYN, []byte(a))
		c.ClientSeq++
		c.FromServer(testkit.SYN|testkit.ACK, nil)
		c.ServerSeq++
		c.ToClient(answer(201, "one"))
		c.ToServer(get("/2"))
		c.ToClient(answer(202, "two"))
		c.Close()
	}},
	{name: "numbers wrap", what: "the sequence numbers of both directions wrap, within a head and within a body", of: 2, say: []message{
		up(get("/1")), down(answer(201, strings.Repeat("one ", 30))), up(get("/2")), down(answer(202, "two")),
	}, want: []string{
		"GET /1 example.org 0/38 = 201 120/159 complete", "GET /2 example.org 0/38 = 202 3/40 complete",
	}, do: func(c *testkit.Conversation) {
		c.ClientSeq, c.ServerSeq = 1<<32-21, 1<<32-100
		c.Open()
		c.ToServer(get("/1"))
		c.MSS = 50
		c.ToClient(answer(201, strings.Repeat("one ", 30)))
		c.ToServer(get("/2"))
		c.ToClient(answer(202, "two"))
		c.Close()
	}},
	{name: "client closes first", what: "a FIN of the client behind its last request, then the responses", of: 2, say: sayTwoGets, want: twoGets, do: func(c *testkit.Conversation) {
		c.Open()
		c.ToServer(get("/1"))
		c.ToClient(answer(201, "one"))
		c.ToServer(get("/2"))
		c.FromClient(testkit.FIN|testkit.ACK, nil)
		c.ToClient(answer(202, "two"))
		c.FromServer(testkit.FIN|testkit.ACK, nil)
		c.FromClient(testkit.ACK, nil)
	}},
	{name: "reset within a body", what: "an RST of the server after 3 of 9 bytes", of: 2, say: []message{
		up(get("/1")), down(answer(201, "one")), up(get("/2")), down("HTTP/1.1 202 X\r\nContent-Length: 9\r\n\r\ntwo"),
	}, want: []string{
		"GET /1 example.org 0/38 = 201 3/40 complete", "GET /2 example.org 0/38 = 202 3/40 closed",
	}, not: inPlace("an RST ends what comes after it"), do: func(c *testkit.Conversation) {
		c.Open()
		c.ToServer(get("/1"))
		c.ToClient(answer(201, "one"))
		c.ToServer(get("/2"))
		c.ToClient("HTTP/1.1 202 X\r\nContent-Length: 9\r\n\r\ntwo")
		c.FromServer(testkit.RST|testkit.ACK, nil)
	}},
	{name: "on port 22", what: "HTTP where SSH is expected", of: 6, say: sayTwoGets, want: twoGets, do: func(c *testkit.Conversation) {
		c.Server = netip.MustParseAddrPort("192.0.2.2:22")
		c.Open()
		c.ToServer(get("/1"))
		c.ToClient(answer(201, "one"))
		c.ToServer(get("/2"))
		c.ToClient(answer(202, "two"))
		c.Close()
	}},
}

func be16(v int) []byte { return binary.BigEndian.AppendUint16(nil, uint16(v)) }
func be32(v int) []byte { return binary.BigEndian.AppendUint32(nil, uint32(v)) }

// wrappings are the encapsulations in which a packet may be seen. ip is an
// IPv4 or IPv6 packet without options; n counts them.
var wrappings = func() []wrapping {
	left, right := netip.MustParseAddrPort("198.51.100.1:50000"), netip.MustParseAddr("198.51.100.2")
	family := func(ip []byte, v4, v6 int) int {
		if ip[0]>>4 == 4 {
			return v4
		}
		return v6
	}
	kind := func(ip []byte) []byte { return be16(family(ip, testkit.EtherIPv4, testkit.EtherIPv6)) }
	ether := func(ip []byte) []byte {
		return testkit.Ethernet(uint16(family(ip, testkit.EtherIPv4, testkit.EtherIPv6)), ip)
	}
	cat := func(parts ...[]byte) []byte { return slices.Concat(parts...) }
	in4 := func(proto uint8, payload ...[]byte) []byte {
		return testkit.Ethernet(testkit.EtherIPv4, testkit.IPv4(left.Addr(), right, proto, cat(payload...)))
	}
	udp := func(port uint16, payload ...[]byte) []byte {
		return testkit.Ethernet(testkit.EtherIPv4, testkit.UDPIP(left, netip.AddrPortFrom(right, port), cat(payload...)))
	}
	ends := func(ip []byte) (src, dst netip.Addr, payload []byte) {
		if ip[0]>>4 == 4 {
			return netip.AddrFrom4([4]byte(ip[12:])), netip.AddrFrom4([4]byte(ip[16:])), ip[20:]
		}
		return netip.AddrFrom16([16]byte(ip[8:])), netip.AddrFrom16([16]byte(ip[24:])), ip[40:]
	}
	snap := func(ip []byte) []byte { return cat([]byte{0xaa, 0xaa, 3, 0, 0, 0}, kind(ip), ip) }
	one := func(name string, link uint16, f func(ip []byte) []byte) wrapping {
		return wrapping{name, link, func(ip []byte, _ int) [][]byte { return [][]byte{f(ip)} }}
	}
	return []wrapping{
		one("ethernet", 1, ether),
		one("VLAN", 1, func(ip []byte) []byte { return testkit.Ethernet(0x8100, cat(be16(5), kind(ip), ip)) }),
		one("QinQ", 1, func(ip []byte) []byte {
			return testkit.Ethernet(0x88a8, cat(be16(5), be16(0x8100), be16(6), kind(ip), ip))
		}),
		one("MPLS", 1, func(ip []byte) []byte {
			return testkit.Ethernet(0x8847, cat(be32(16<<12|64), be32(17<<12|1<<8|64), ip))
		}),
		one("PPPoE", 1, func(ip []byte) []byte {
			return testkit.Ethernet(0x8864, cat([]byte{0x11, 0, 0, 9}, be16(2+len(ip)), be16(family(ip, 0x21, 0x57)), ip))
		}),
		one("GRE", 1, func(ip []byte) []byte { return in4(47, be16(0), kind(ip), ip) }),
		one("GRE with a key", 1, func(ip []byte) []byte { return in4(47, be16(0x2000), kind(ip), be32(7), ip) }),
		one("ERSPAN I", 1, func(ip []byte) []byte { return in4(47, be16(0), be16(0x88be), ether(ip)) }),
		one("ERSPAN III", 1, func(ip []byte) []byte {
			return in4(47, be16(0x1000), be16(0x22eb), be32(1), be32(0x20050007), make([]byte, 8), ether(ip))
		}),
		one("ERSPAN II", 1, func(ip []byte) []byte {
			return in4(47, be16(0x1000), be16(0x88be), be32(1), be32(0x10050007), be32(0), ether(ip))
		}),
		one("IP in IP, 6in4", 1, func(ip []byte) []byte { return in4(uint8(family(ip, 4, 41)), ip) }),
		one("IP in IPv6", 1, func(ip []byte) []byte {
			src, dst := netip.MustParseAddr("2001:db8:1::1"), netip.MustParseAddr("2001:db8:1::2")
			return testkit.Ethernet(testkit.EtherIPv6, testkit.IPv6(src, dst, uint8(family(ip, 4, 41)), ip))
		}),
		one("Teredo", 1, func(ip []byte) []byte {
			if ip[0]>>4 == 4 {
				return ether(ip) // it carries IPv6 only
			}
			return udp(3544, ip)
		}),
		one("AYIYA", 1, func(ip []byte) []byte {
			return udp(5072, []byte{0x44, 0x52, 1, byte(family(ip, 4, 41))}, be32(1), make([]byte, 36), ip)
		}),
		one("VXLAN", 1, func(ip []byte) []byte { return udp(4789, be32(0x0800_0000), be32(42<<8), ether(ip)) }),
		one("GENEVE", 1, func(ip []byte) []byte { return udp(6081, be16(0), be16(0x6558), be32(42<<8), ether(ip)) }),
		one("GTP-U", 1, func(ip []byte) []byte { return udp(2152, []byte{0x30, 0xff}, be16(len(ip)), be32(9), ip) }),
		one("Linux cooked", 113, func(ip []byte) []byte { return cat(make([]byte, 14), kind(ip), ip) }),
		one("Linux cooked 2", 276, func(ip []byte) []byte { return cat(kind(ip), make([]byte, 18), ip) }),
		one("raw IP", 101, func(ip []byte) []byte { return ip }),
		one("BSD loopback", linkNull, func(ip []byte) []byte { return cat([]byte{byte(family(ip, 2, 30)), 0, 0, 0}, ip) }),
		one("OpenBSD loopback", 108, func(ip []byte) []byte { return cat(be32(family(ip, 2, 24)), ip) }),
		one("802.11", 105, func(ip []byte) []byte { return cat([]byte{8, 1}, make([]byte, 22), snap(ip)) }),
		one("radiotap", 127, func(ip []byte) []byte {
			return cat([]byte{0, 0, 9, 0, 2, 0, 0, 0, 0, 8, 1}, make([]byte, 22), snap(ip))
		}),
		one("IPv6 extension headers", 1, func(ip []byte) []byte {
			if ip[0]>>4 == 4 {
				return ether(ip)
			}
			src, dst, payload := ends(ip)
			return testkit.Ethernet(testkit.EtherIPv6, testkit.IPv6(src, dst, 0, cat([]byte{60, 0, 1, 4, 0, 0, 0, 0}, []byte{testkit.ProtoTCP, 0, 1, 4, 0, 0, 0, 0}, payload)))
		}),
		{"fragments", 1, func(ip []byte, n int) (out [][]byte) {
			src, dst, payload := ends(ip)
			for at := 0; at < len(payload); at += 24 {
				part := payload[at:min(at+24, len(payload))]
				more := at+24 < len(payload)
				if ip[0]>>4 == 4 {
					out = append(out, testkit.Ethernet(testkit.EtherIPv4, testkit.IPv4Fragment(src, dst, testkit.ProtoTCP, uint16(n), at, more, part)))
					continue
				}
				offset := at
				if more {
					offset++
				}
				out = append(out, testkit.Ethernet(testkit.EtherIPv6, testkit.IPv6(src, dst, 44, cat([]byte{testkit.ProtoTCP, 0}, be16(offset), be32(n), part))))
			}
			if n%2 == 1 {
				slices.Reverse(out)
			}
			return out
		}},
	}
}()

type wrapping struct {
	name string
	link uint16
	f    func(ip []byte, n int) [][]byte
}

// encapsulated are two connections inside a wrapping: what is seen is the same, and so is what
// is lost.
func encapsulated(w *wrapping) *trap {
	say := []message{
		up(post("/1", "Content-Length: 80\r\n", strings.Repeat("b", 80))), down(inChunks(201, likeResponse)),
		up(get("/2")), down(answer(202, "two")),
	}
	line := []string{
		"GET /2 example.org 0/38 = 202 3/40 complete",
		"POST /1 example.org 80/139 = 201 37/94 complete",
	}
	return &trap{
		name: "in " + w.name, of: 7, what: "two connections, over IPv4 and over IPv6, inside " + w.name, wrap: w, want: []string{line[0], line[0], line[1], line[1]},
		say: append(on(0, slices.Clone(say)...), on(1, say...)...), count: counts{exchange.Connections: 2},
	}
}

// ssdpTrap is HTTP's form over UDP.
var ssdpTrap = trap{
	name: "SSDP", of: 6, what: "HTTP's form in datagrams: three of SSDP, one of nothing, one on DNS's port",
	count: counts{exchange.OtherSSDP: 3, exchange.Connections: 0},
	not:   map[mutation]string{split: "datagrams come in one piece"},
	raw: func() (frames []frame) {
		client, group := netip.MustParseAddrPort("192.0.2.1:50000"), netip.MustParseAddrPort("239.255.255.250:1900")
		server := netip.MustParseAddrPort("192.0.2.2:1900")
		for _, d := range []struct {
			src, dst netip.AddrPort
			text     string
			ssdp     int
		}{
			{client, group, "M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: \"ssdp:discover\"\r\n\r\n", 1},
			{server, client, "HTTP/1.1 200 OK\r\nLOCATION: http://192.0.2.2/\r\n\r\n", 1},
			{client, group, "NOTIFY * HTTP/1.1\r\nNTS: ssdp:alive\r\n\r\n", 1},
			{client, group, "something else", 0},
			{client, netip.MustParseAddrPort("192.0.2.2:53"), "NOTIFY * HTTP/1.1\r\n\r\n", 0},
		} {
			frames = append(frames, frame{
				Frame: testkit.Frame{Data: testkit.Ethernet(testkit.EtherIPv4, testkit.UDPIP(d.src, d.dst, []byte(d.text)))},
				up:    d.src == client, size: d.ssdp, parts: 1,
			})
		}
		return frames
	},
}

// TestTrapSSDP: datagrams are counted by their name, each by itself, and nothing of them
// is a message.
func TestTrapSSDP(t *testing.T) {
	frames := ssdpTrap.frames(0)
	if got, want := ssdpTrap.readFile(t, frames).String(), "\nssdp 3, "; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	check := func(frames []frame) {
		t.Helper()
		var want exchange.Counters
		for _, f := range frames {
			want[exchange.OtherSSDP] += uint64(f.size)
			if f.length > 0 {
				want[exchange.TruncatedPackets]++
			}
		}
		s := watch(t, frames)
		clear(s.count[:exchange.Connections])
		if s.count != want || len(s.exchanges) > 0 {
			t.Errorf("%d packets: got %s, want %s", len(frames), s, (&seen{count: want}).counters())
		}
	}
	check(slices.Concat(frames, frames))
	for i := range frames {
		check(slices.Delete(slices.Clone(frames), i, i+1))
		check(slices.Concat(frames[i:], frames[:i]))
		check(frames[i:])
	}
	for _, up := range []bool{true, false} {
		check(slices.DeleteFunc(slices.Clone(frames), func(f frame) bool { return f.up != up }))
	}
	for _, n := range []int{72, 96, 256} {
		cut := slices.Clone(frames)
		for i := range cut {
			if f := &cut[i]; len(f.Data) > n {
				f.length, f.Data = len(f.Data), f.Data[:n]
			}
		}
		check(cut)
	}
}
