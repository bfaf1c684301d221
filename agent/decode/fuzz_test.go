package decode

import (
	"fmt"
	"testing"

	"github.com/httpctl/httpctl/agent/capture"
	"github.com/httpctl/httpctl/pkg/exchange"
	"github.com/httpctl/httpctl/pkg/testkit"
)

// FuzzDecode gives any bytes as frames of any link type. The input is cut into
// frames at every 0xc5 0x5c, so that fragments can meet.
func FuzzDecode(f *testing.F) {
	for _, c := range encapsulations {
		f.Add(c.link, uint16(0), c.frame)
	}
	frames, _ := cutUp(false, 1, 100, []piece{{0, 40}, {40, 9999}})
	f.Add(uint16(1), uint16(100), join(frames[0], []byte{0xc5, 0x5c}, frames[1]))
	frames, _ = cutUp(true, 1, 100, []piece{{40, 9999}, {0, 40}})
	f.Add(uint16(1), uint16(0), join(frames[0], []byte{0xc5, 0x5c}, frames[1]))
	f.Fuzz(func(t *testing.T, link, more uint16, data []byte) {
		cfg := DefaultConfig()
		cfg.FragmentedDatagrams = 3
		var n exchange.Counters
		d := New(cfg, &n)
		var s Segment
		packets := uint64(0)
		for len(data) > 0 {
			end := len(data)
			for i := 0; i+1 < len(data); i++ {
				if data[i] == 0xc5 && data[i+1] == 0x5c {
					end = i
					break
				}
			}
			packets++
			p := capture.Packet{Number: packets, Time: int64(packets) * 1e9, Data: data[:end:end], Length: end + int(more), Link: link}
			for ok := d.Decode(&p, &s); ok; ok = d.More(&s) {
				if s.Length < 0 || len(s.Payload) > s.Length {
					t.Fatalf("segment with %d bytes of payload and length %d", len(s.Payload), s.Length)
				}
				if s.Packet != packets {
					t.Fatalf("segment of packet %d, want %d", s.Packet, packets)
				}
			}
			data = data[min(len(data), end+2):]
		}
		d.Drain()
		if d.fragments.oldest != nil || len(d.fragments.table) != 0 {
			t.Fatal("datagrams are left after Drain")
		}
		if n[exchange.Packets] != packets {
			t.Fatalf("packets = %d, want %d", n[exchange.Packets], packets)
		}
	})
}

// BenchmarkDecode decodes the frames of a conversation.
func BenchmarkDecode(b *testing.B) {
	for _, family := range []struct{ name, client, server string }{
		{"ipv4", "192.0.2.1:40000", "192.0.2.2:80"},
		{"ipv6", "[2001:db8::1]:40000", "[2001:db8::2]:80"},
	} {
		for _, wrap := range []string{"ethernet", "vxlan"} {
			c := testkit.NewConversation(family.client, family.server)
			c.Open()
			for range 50 {
				c.ToServer(payload)
				c.ToClient(fmt.Sprintf("%020000d", 1))
			}
			var packets []capture.Packet
			size := int64(0)
			for i, f := range c.Frames {
				if wrap == "vxlan" {
					f.Data = udp4(4789, join([]byte{8, 0, 0, 0}, be32(42<<8), f.Data))
				}
				packets = append(packets, capture.Packet{Number: uint64(i), Time: f.Time, Data: f.Data, Length: len(f.Data), Link: 1})
				size += int64(len(f.Data))
			}
			b.Run(family.name+"/"+wrap, func(b *testing.B) {
				var n exchange.Counters
				d := New(DefaultConfig(), &n)
				var s Segment
				i := 0
				b.SetBytes(size / int64(len(packets)))
				b.ReportAllocs()
				for b.Loop() {
					if !d.Decode(&packets[i], &s) {
						b.Fatal("no segment")
					}
					if i++; i == len(packets) {
						i = 0
					}
				}
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "packets/s")
			})
		}
	}
}
