package decode

import (
	"encoding/binary"

	"github.com/httpctl/httpctl/agent/capture"
	"github.com/httpctl/httpctl/pkg/exchange"
)

// maxDepth bounds the headers around a segment: link layers, tags, tunnels, IP
// headers. VXLAN over VLAN over MPLS counts 6; a frame has room for over a thousand.
const maxDepth = 24

// A Decoder finds the TCP segment in packets. It keeps incomplete IP datagrams
// within the bounds of its Config and nothing else. It is not safe for
// concurrent use.
//
// Checksums are not validated: those of local traffic are not filled in
// before the hardware does it. The counters it adds to are Packets, PacketBytes,
// Segments, TruncatedPackets, MalformedPackets, UndecodedPackets, FragmentsDropped and OtherSSDP.
type Decoder struct {
	n         *exchange.Counters
	ports     map[uint16]bool
	fragments fragments

	// Of the current packet.
	p      *capture.Packet
	s      *Segment
	depth  int
	tunnel uint32
	fault  fault
	// What is left of an aggregated frame.
	rest       []byte
	restLength int
}

// fault says why a packet gave no segment although it may hold one.
type fault uint8

const (
	none fault = iota
	truncated
	malformed
	undecoded
)

// New returns a decoder that adds to n. cfg must be valid.
func New(cfg Config, n *exchange.Counters) *Decoder {
	d := &Decoder{n: n, fragments: newFragments(cfg, n)}
	d.SetPorts(cfg.Ports)
	return d
}

// SetPorts changes what [Config] calls Ports.
func (d *Decoder) SetPorts(ports []uint16) {
	d.ports = nil
	for _, port := range ports {
		if d.ports == nil {
			d.ports = make(map[uint16]bool, len(ports))
		}
		d.ports[port] = true
	}
}

// Decode reports whether p holds a TCP segment, and fills s with it. What it
// borrows is that of p, and of the decoder until the next call if [Decoder.Lends].
//
// A packet with several segments (an aggregated 802.11 frame) gives the first; call
// [Decoder.More] until it returns false for the others.
func (d *Decoder) Decode(p *capture.Packet, s *Segment) bool {
	d.n[exchange.Packets]++
	d.n[exchange.PacketBytes] += uint64(p.Length)
	if p.Length > len(p.Data) {
		d.n[exchange.TruncatedPackets]++
	}
	d.p, d.s, d.depth, d.tunnel, d.fault, d.rest = p, s, 0, 0, none, nil
	d.fragments.begin(p.Time)
	return d.count(d.link(p.Link, p.Data, max(p.Length, len(p.Data))))
}

// Lends reports whether a segment of the packet that Decode was last called with may be
// borrowed from the decoder: it came in IP fragments.
func (d *Decoder) Lends() bool { return d.fragments.complete != nil }

// count adds to the counters what was wrong with the packet. An IP header may
// claim more than the frame has: then the frame was cut before it was captured.
func (d *Decoder) count(found bool) bool {
	whole := d.p.Length <= len(d.p.Data)
	if found {
		if whole && d.s.Length > len(d.s.Payload) {
			d.n[exchange.TruncatedPackets]++
		}
		return true
	}
	switch d.fault {
	case truncated:
		if whole {
			d.n[exchange.MalformedPackets]++
		}
	case malformed:
		d.n[exchange.MalformedPackets]++
	case undecoded:
		d.n[exchange.UndecodedPackets]++
	}
	return false
}

// Drain gives up the incomplete datagrams, counting their fragments. Call it
// at the end of the source.
func (d *Decoder) Drain() { d.fragments.drain() }

// fail remembers the first fault of a packet and returns false.
func (d *Decoder) fail(f fault) bool {
	if d.fault == none {
		d.fault = f
	}
	return false
}

// short fails because less was captured than a header of need bytes. If n, what
// was there on the wire, has room for it, the packet is truncated; else it contradicts itself.
func (d *Decoder) short(n, need int) bool {
	if n >= need {
		return d.fail(truncated)
	}
	return d.fail(malformed)
}

// enter counts one more header.
func (d *Decoder) enter() bool {
	d.depth++
	if d.depth > maxDepth {
		return d.fail(undecoded)
	}
	return true
}

// within mixes the id of a tunnel into the current tunnel. Only ids that are
// the same in both directions may go in.
func (d *Decoder) within(kind uint8, id uint32) {
	h := uint64(d.tunnel)<<40 ^ uint64(kind)<<32 ^ uint64(id)
	h = (h ^ h>>29 ^ 0x9e3779b97f4a7c15) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>32) * 0x94d049bb133111eb
	d.tunnel = uint32(h>>32) | 1 // never 0, which is outside any tunnel
}

// In every method below b is what was captured of a layer and n >= len(b) how
// long it was.

// ethernet reads an Ethernet II or 802.3 frame.
func (d *Decoder) ethernet(b []byte, n int) bool {
	if len(b) < 14 {
		return d.short(n, 14)
	}
	return d.ether(binary.BigEndian.Uint16(b[12:]), b[14:], n-14)
}

// ether reads what an EtherType (or an 802.3 length) announces.
func (d *Decoder) ether(kind uint16, b []byte, n int) bool {
	for {
		if !d.enter() {
			return false
		}
		switch kind {
		case 0x0800:
			return d.ipv4(b, n)
		case 0x86dd:
			return d.ipv6(b, n)
		case 0x8100, 0x88a8, 0x9100, 0x9200: // VLAN tags
			if len(b) < 4 {
				return d.short(n, 4)
			}
			kind, b, n = binary.BigEndian.Uint16(b[2:]), b[4:], n-4
			continue
		}
		return d.etherRare(kind, b, n)
	}
}

// ipv4 reads an IPv4 packet (RFC 791).
func (d *Decoder) ipv4(b []byte, n int) bool {
	if len(b) < 20 {
		return d.short(n, 20)
	}
	header := int(b[0]&0x0f) * 4
	total := int(binary.BigEndian.Uint16(b[2:]))
	if b[0]>>4 != 4 || header < 20 {
		return d.fail(malformed)
	}
	if total == 0 {
		// Segmentation offload leaves it to the hardware.
		total = n
	}
	if total < header {
		return d.fail(malformed)
	}
	if len(b) > total {
		b = b[:total] // the rest is padding, or a checksum of the link layer
	}
	if len(b) < header {
		return d.short(total, header)
	}
	payload, length := b[header:], total-header
	proto := b[9]
	if fragment := binary.BigEndian.Uint16(b[6:]); fragment&0x3fff != 0 {
		k := fragmentKey{id: uint32(binary.BigEndian.Uint16(b[4:])), proto: proto, tunnel: d.tunnel, namespace: d.p.Namespace}
		copy(k.src[:], b[12:16])
		copy(k.dst[:], b[16:20])
		if len(payload) < length {
			d.fragments.refuse(&k)
			return d.fail(truncated)
		}
		done, ok := d.fragments.add(&k, int(fragment&0x1fff)*8, fragment&0x2000 != 0, payload, proto)
		if !ok {
			return false
		}
		payload, length, proto = done.payload(), done.length, done.proto
	}
	for proto == 51 { // authentication (RFC 4302)
		if len(payload) < 8 {
			return d.short(length, 8)
		}
		size := int(payload[1])*4 + 8
		if len(payload) < size {
			return d.short(length, size)
		}
		proto = payload[0]
		payload, length = payload[size:], length-size
		if !d.enter() {
			return false
		}
	}
	if proto == 6 {
		if !d.tcp(payload, length) {
			return false
		}
		s := &d.s.Flow
		s.Src, s.Dst = mapped, mapped
		copy(s.Src[12:], b[12:16])
		copy(s.Dst[12:], b[16:20])
		return true
	}
	return d.ip(proto, payload, length)
}

// mapped is the start of an IPv4-mapped address.
var mapped = [16]byte{10: 0xff, 11: 0xff}

// ipv6 reads an IPv6 packet and its extension headers (RFC 8200).
func (d *Decoder) ipv6(b []byte, n int) bool {
	if len(b) < 40 {
		return d.short(n, 40)
	}
	if b[0]>>4 != 6 {
		return d.fail(malformed)
	}
	header, next := b[:40], b[6]
	length := int(binary.BigEndian.Uint16(b[4:]))
	if length == 0 {
		// A jumbogram, or segmentation offload (BIG TCP).
		length = n - 40
	}
	b = b[40:]
	if len(b) > length {
		b = b[:length]
	}
	n = length
	for {
		var size int
		switch next {
		case 6:
			if !d.tcp(b, n) {
				return false
			}
			copy(d.s.Src[:], header[8:24])
			copy(d.s.Dst[:], header[24:40])
			return true
		case 0, 43, 60, 135, 139, 140: // hop-by-hop, routing, destination, mobility, HIP, shim6
			if len(b) < 8 {
				return d.short(n, 8)
			}
			size = int(b[1])*8 + 8
		case 51: // authentication (RFC 4302)
			if len(b) < 8 {
				return d.short(n, 8)
			}
			size = int(b[1])*4 + 8
		case 44: // fragment
			if len(b) < 8 {
				return d.short(n, 8)
			}
			next = b[0]
			offset := binary.BigEndian.Uint16(b[2:])
			id := binary.BigEndian.Uint32(b[4:])
			b, n = b[8:], n-8
			if offset&0xfff9 != 0 { // else it is atomic (RFC 6946)
				k := fragmentKey{id: id, v6: true, tunnel: d.tunnel, namespace: d.p.Namespace}
				copy(k.src[:], header[8:24])
				copy(k.dst[:], header[24:40])
				if len(b) < n {
					d.fragments.refuse(&k)
					return d.fail(truncated)
				}
				done, ok := d.fragments.add(&k, int(offset&0xfff8), offset&1 != 0, b, next)
				if !ok {
					return false
				}
				b, n, next = done.payload(), done.length, done.proto
			}
			if !d.enter() {
				return false
			}
			continue
		default:
			return d.ip(next, b, n)
		}
		if len(b) < size {
			return d.short(n, size)
		}
		next = b[0]
		b, n = b[size:], n-size
		if !d.enter() {
			return false
		}
	}
}

// tcp reads a TCP segment (RFC 9293 section 3.1). The caller adds the addresses.
func (d *Decoder) tcp(b []byte, n int) bool {
	if len(b) < 20 {
		return d.short(n, 20)
	}
	header := int(b[12]>>4) * 4
	if header < 20 || header > n {
		return d.fail(malformed)
	}
	s := d.s
	s.SrcPort, s.DstPort = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	if d.ports != nil && !d.ports[s.SrcPort] && !d.ports[s.DstPort] {
		return false
	}
	s.Tunnel, s.Namespace = d.tunnel, d.p.Namespace
	s.Packet, s.Time = d.p.Number, d.p.Time
	s.Seq, s.Ack = binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint32(b[8:])
	s.Flags = b[13]
	s.Window = binary.BigEndian.Uint16(b[14:])
	s.Payload = b[min(header, len(b)):]
	s.Length = n - header
	d.n[exchange.Segments]++
	return true
}
