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
var twoGets = []string{"GET /1 example.org 0/38 = 201 3/40 complete", "GET /2 example.org 0/38 = 202 3/40 complete"}

// tcpTraps are connections that TCP makes hard to follow.
var tcpTraps = []struct {
	name string
	do   func(c *testkit.Conversation)
	want []string
	// moved: packets that were exchanged stand for something else.
	moved bool
	count counts
}{
	{name: "retransmissions with other content", moved: true, want: twoGets, do: func(c *testkit.Conversation) {
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
	{name: "overlaps with other content", moved: true, want: twoGets, do: func(c *testkit.Conversation) {
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
	{name: "zero-window probes", want: twoGets, do: func(c *testkit.Conversation) {
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
	{name: "keep-alives", want: twoGets, do: func(c *testkit.Conversation) {
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
	{name: "acknowledged before it was seen", want: twoGets, do: func(c *testkit.Conversation) {
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
	{name: "reset after the last response", want: twoGets, moved: true, do: func(c *testkit.Conversation) {
		c.Open()
		c.ToServer(get("/1"))
		c.ToClient(answer(201, "one"))
		c.ToServer(get("/2"))
		c.ToClient(answer(202, "two"))
		c.Reset()
		c.FromServer(testkit.ACK|testkit.FIN, nil)
	}},
	{name: "reset that its receiver ignores", want: twoGets, moved: true, do: func(c *testkit.Conversation) {
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
	{name: "ports used again", want: twoGets, moved: true, count: counts{exchange.Connections: 2}, do: func(c *testkit.Conversation) {
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
	{name: "ports used again, without an end", want: twoGets, moved: true, count: counts{exchange.Connections: 2}, do: func(c *testkit.Conversation) {
		c.Open()
		c.ToServer(get("/1"))
		c.ToClient(answer(201, "one"))
		c.ClientSeq, c.ServerSeq = 0x7654_3210, 0x89ab_cdef
		c.Open()
		c.ToServer(get("/2"))
		c.ToClient(answer(202, "two"))
		c.Close()
	}},
	{name: "simultaneous open", want: twoGets, do: func(c *testkit.Conversation) {
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
	{name: "data with the SYN", want: twoGets, do: func(c *testkit.Conversation) {
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
	{name: "on port 22", want: twoGets, do: func(c *testkit.Conversation) {
		c.Server = netip.MustParseAddrPort("192.0.2.2:22")
		c.Open()
		c.ToServer(get("/1"))
		c.ToClient(answer(201, "one"))
		c.ToServer(get("/2"))
		c.ToClient(answer(202, "two"))
		c.Close()
	}},
}

func TestTrapsTCP(t *testing.T) {
	for i := range tcpTraps {
		tt := &tcpTraps[i]
		t.Run(tt.name, func(t *testing.T) {
			c := testkit.NewConversation("192.0.2.1:40000", "192.0.2.2:80")
			c.ClientSeq, c.ServerSeq = 1<<32-30, 1<<32-50
			tt.do(c)
			var frames []frame
			for _, f := range c.Frames {
				frames = append(frames, frame{Frame: f})
			}
			whole := watch(t, frames)
			whole.count[exchange.EarlyResponses] = 0 // by the time of capture
			if got := whole.lines(); !slices.Equal(got, tt.want) {
				t.Fatalf("exchanges:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
			}
			(&trap{count: tt.count}).checkCounters(t, whole)
			var twice []frame
			for _, f := range frames {
				twice = append(twice, f, f)
			}
			same := func(how string, i int, frames []frame) {
				t.Helper()
				got := watch(t, frames)
				got.count[exchange.EarlyResponses] = 0
				if got.String() != whole.String() {
					t.Errorf("%s %d:\n%s\nwant\n%s", how, i+1, got, whole)
				}
			}
			same("every packet twice", 0, twice)
			for i := range frames {
				same("again later, packet", i, slices.Insert(slices.Clone(frames), min(i+2, len(frames)), frames[i]))
				if i > 0 && !tt.moved {
					swapped := slices.Clone(frames)
					swapped[i-1], swapped[i] = swapped[i], swapped[i-1]
					same("before the one before it, packet", i, swapped)
				}
				if !tt.moved {
					if err := watch(t, slices.Delete(slices.Clone(frames), i, i+1)).within(whole, false, false); err != nil {
						t.Errorf("without packet %d: %v", i+1, err)
					}
					if err := watch(t, frames[i:]).within(whole, true, false); err != nil {
						t.Errorf("from packet %d on: %v", i+1, err)
					}
				}
			}
		})
	}
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
		one("ERSPAN", 1, func(ip []byte) []byte {
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
		one("BSD loopback", 0, func(ip []byte) []byte { return cat([]byte{byte(family(ip, 2, 30)), 0, 0, 0}, ip) }),
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

// TestTrapsEncapsulated reads two connections inside everything that may be around
// them: what is seen is the same, and so is what is lost.
func TestTrapsEncapsulated(t *testing.T) {
	var plain [][]byte
	conversation := func(client, server string) *testkit.Conversation {
		c := testkit.NewConversation(client, server)
		c.Wrap = func(ip []byte) []byte { return ip }
		c.MSS = 60
		c.Open()
		c.ToServer(post("/1", "Content-Length: 80\r\n", strings.Repeat("b", 80)))
		c.ToClient(inChunks(201, likeResponse))
		c.ToServer(get("/2"))
		c.ToClient(answer(202, "two"))
		c.Close()
		return c
	}
	for _, f := range testkit.Merge(conversation("192.0.2.1:40000", "192.0.2.2:80"), conversation("[2001:db8::1]:40000", "[2001:db8::2]:80")) {
		plain = append(plain, f.Data)
	}
	var reference *seen
	var lost []string
	for _, w := range wrappings {
		wrap := func(packets [][]byte) (out []frame) {
			for i, ip := range packets {
				for _, b := range w.f(ip, i) {
					out = append(out, frame{Frame: testkit.Frame{Data: b}, link: w.link})
				}
			}
			return out
		}
		frames := wrap(plain)
		if w.link == 0 {
			for i := range frames {
				frames[i].link = linkNull
			}
		}
		got := watch(t, frames)
		if reference == nil {
			reference = got
			if n := got.count; n[exchange.Requests] != 4 || n[exchange.Responses] != 4 || n[exchange.UnmatchedRequests]+n[exchange.GapBytes] != 0 {
				t.Fatalf("plain:\n%s", got)
			}
		}
		same := func(how string, got *seen) {
			t.Helper()
			got.count[exchange.EarlyResponses] = 0
			if got.String() != reference.String() {
				t.Errorf("%s, %s:\n%s\nwant\n%s", w.name, how, got, reference)
			}
		}
		same("as said", got)
		var twice []frame
		for _, f := range frames {
			twice = append(twice, f, f)
		}
		same("every packet twice", watch(t, twice))
		for i := 1; i < len(frames); i++ {
			swapped := slices.Clone(frames)
			swapped[i-1], swapped[i] = swapped[i], swapped[i-1]
			same("swapped", watch(t, swapped))
		}
		for i := range frames {
			got := watch(t, slices.Delete(slices.Clone(frames), i, i+1))
			if err := got.within(reference, false, false); err != nil {
				t.Errorf("%s, without packet %d: %v", w.name, i+1, err)
			}
			if w.name == "fragments" {
				if got.String() != reference.String() && got.count[exchange.FragmentsDropped] == 0 {
					t.Errorf("without fragment %d: %s", i+1, got)
				}
				continue
			}
			// What is lost does not depend on what is around it.
			if w.name == wrappings[0].name {
				lost = append(lost, got.String())
			} else if got.String() != lost[i] {
				t.Errorf("%s, without packet %d:\n%s\nwant\n%s", w.name, i+1, got, lost[i])
			}
		}
	}
}

// TestTrapSSDP: HTTP's form over UDP is counted by its name, and nothing of it is
// a message.
func TestTrapSSDP(t *testing.T) {
	client, group := netip.MustParseAddrPort("192.0.2.1:50000"), netip.MustParseAddrPort("239.255.255.250:1900")
	var frames []frame
	for _, d := range []struct {
		src, dst netip.AddrPort
		text     string
	}{
		{client, group, "M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: \"ssdp:discover\"\r\n\r\n"},
		{netip.MustParseAddrPort("192.0.2.2:1900"), client, "HTTP/1.1 200 OK\r\nLOCATION: http://192.0.2.2/\r\n\r\n"},
		{client, group, "NOTIFY * HTTP/1.1\r\nNTS: ssdp:alive\r\n\r\n"},
		{client, group, "something else"},
		{client, netip.MustParseAddrPort("192.0.2.2:53"), "NOTIFY * HTTP/1.1\r\n\r\n"},
	} {
		frames = append(frames, frame{Frame: testkit.Frame{Data: testkit.Ethernet(testkit.EtherIPv4, testkit.UDPIP(d.src, d.dst, []byte(d.text)))}})
	}
	if got, want := watch(t, frames).String(), "\nssdp 3, "; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
