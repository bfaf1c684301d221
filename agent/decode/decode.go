// Package decode strips link layers and tunnels off a packet, down to its TCP
// segment.
package decode

import "net/netip"

// Flow names one direction of a TCP connection. It is comparable and has no
// pointers, so that it makes a cheap map key. IPv4 addresses are in their
// IPv4-mapped form (::ffff:192.0.2.1).
type Flow struct {
	Src, Dst         [16]byte
	SrcPort, DstPort uint16
	// Tunnel tells apart equal addresses inside different tunnels (a hash of the
	// tunnels' ids, such as a VXLAN VNI), 0 outside any. VLAN ids are not part of it.
	Tunnel uint32
	// Namespace is that of the packet.
	Namespace uint32
}

// Reverse returns the other direction.
func (f Flow) Reverse() Flow {
	f.Src, f.Dst, f.SrcPort, f.DstPort = f.Dst, f.Src, f.DstPort, f.SrcPort
	return f
}

// Source and Destination return the ends as address and port, IPv4 unmapped.
func (f *Flow) Source() netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16(f.Src).Unmap(), f.SrcPort)
}

// Destination is the end that the segment was sent to.
func (f *Flow) Destination() netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16(f.Dst).Unmap(), f.DstPort)
}

// TCP flags, as in the header (RFC 9293 section 3.1).
const (
	FIN = 1 << iota
	SYN
	RST
	PSH
	ACK
)

// Segment is one TCP segment. Payload is borrowed from the packet, or from the decoder
// until the next call of Decode (see [Decoder.Lends]).
type Segment struct {
	Flow
	// Packet and Time are those of the packet that carried the segment's last byte.
	Packet uint64
	Time   int64
	Seq    uint32
	Ack    uint32
	Window uint16
	Flags  uint8
	// Payload is what was captured of the payload, Length how long it was on
	// the wire: Length > len(Payload) for a truncated packet.
	Payload []byte
	Length  int
}
