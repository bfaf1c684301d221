package testkit

import (
	"encoding/binary"
	"net/netip"
)

// EtherTypes and IP protocols that tests build with.
const (
	EtherIPv4 = 0x0800
	EtherIPv6 = 0x86dd
	EtherVLAN = 0x8100
	EtherQinQ = 0x88a8

	ProtoTCP = 6
	ProtoUDP = 17
)

// TCP flags (RFC 9293 section 3.1).
const (
	FIN = 1 << iota
	SYN
	RST
	PSH
	ACK
)

// Ethernet puts an Ethernet header in front of payload.
func Ethernet(etherType uint16, payload []byte) []byte {
	b := make([]byte, 0, 14+len(payload))
	b = append(b, 0x02, 0, 0, 0, 0, 2, 0x02, 0, 0, 0, 0, 1)
	b = binary.BigEndian.AppendUint16(b, etherType)
	return append(b, payload...)
}

// VLAN puts an 802.1Q tag in front of payload, which is of etherType. The
// result goes into Ethernet(EtherVLAN, ...) or into another tag.
func VLAN(id, etherType uint16, payload []byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, id&0x0fff)
	b = binary.BigEndian.AppendUint16(b, etherType)
	return append(b, payload...)
}

// IPv4 puts a header without options in front of payload, with the right checksum.
func IPv4(src, dst netip.Addr, proto uint8, payload []byte) []byte {
	return IPv4Fragment(src, dst, proto, 0, 0, false, payload)
}

// IPv4Fragment is a fragment of the datagram id: offset is in bytes, a multiple of 8.
func IPv4Fragment(src, dst netip.Addr, proto uint8, id uint16, offset int, more bool, payload []byte) []byte {
	b := make([]byte, 20, 20+len(payload))
	b[0] = 0x45
	binary.BigEndian.PutUint16(b[2:], uint16(20+len(payload)))
	binary.BigEndian.PutUint16(b[4:], id)
	frag := uint16(offset / 8)
	if more {
		frag |= 0x2000
	}
	binary.BigEndian.PutUint16(b[6:], frag)
	b[8], b[9] = 64, proto
	s, d := src.Unmap().As4(), dst.Unmap().As4()
	copy(b[12:], s[:])
	copy(b[16:], d[:])
	binary.BigEndian.PutUint16(b[10:], ^fold(sum(0, b)))
	return append(b, payload...)
}

// IPv6 puts an IPv6 header in front of payload; next is the type of payload's
// first header.
func IPv6(src, dst netip.Addr, next uint8, payload []byte) []byte {
	b := make([]byte, 40, 40+len(payload))
	b[0] = 0x60
	binary.BigEndian.PutUint16(b[4:], uint16(len(payload)))
	b[6], b[7] = next, 64
	s, d := src.As16(), dst.As16()
	copy(b[8:], s[:])
	copy(b[24:], d[:])
	return append(b, payload...)
}

// IP puts the header that the family of src asks for in front of payload.
func IP(src, dst netip.Addr, proto uint8, payload []byte) []byte {
	if src.Unmap().Is4() {
		return IPv4(src, dst, proto, payload)
	}
	return IPv6(src, dst, proto, payload)
}

// TCP describes a segment.
type TCP struct {
	Src, Dst netip.AddrPort
	Seq, Ack uint32
	Flags    uint8
	// Window defaults to 65535.
	Window uint16
	// Options are padded to a multiple of 4 bytes.
	Options []byte
	Payload []byte
}

// Segment returns the TCP header and payload, with the right checksum.
func (s TCP) Segment() []byte {
	options := append([]byte(nil), s.Options...)
	for len(options)%4 != 0 {
		options = append(options, 0)
	}
	b := make([]byte, 20, 20+len(options)+len(s.Payload))
	binary.BigEndian.PutUint16(b[0:], s.Src.Port())
	binary.BigEndian.PutUint16(b[2:], s.Dst.Port())
	binary.BigEndian.PutUint32(b[4:], s.Seq)
	binary.BigEndian.PutUint32(b[8:], s.Ack)
	b[12] = uint8(20+len(options)) / 4 << 4
	b[13] = s.Flags
	window := s.Window
	if window == 0 {
		window = 65535
	}
	binary.BigEndian.PutUint16(b[14:], window)
	b = append(append(b, options...), s.Payload...)
	binary.BigEndian.PutUint16(b[16:], checksum(s.Src.Addr(), s.Dst.Addr(), ProtoTCP, b))
	return b
}

// IP returns the segment in an IP packet.
func (s TCP) IP() []byte {
	return IP(s.Src.Addr(), s.Dst.Addr(), ProtoTCP, s.Segment())
}

// Ethernet returns the segment in an Ethernet frame.
func (s TCP) Ethernet() []byte {
	return Ethernet(etherTypeOf(s.Src.Addr()), s.IP())
}

// UDP returns a UDP header and payload.
func UDP(src, dst netip.AddrPort, payload []byte) []byte {
	b := make([]byte, 8, 8+len(payload))
	binary.BigEndian.PutUint16(b[0:], src.Port())
	binary.BigEndian.PutUint16(b[2:], dst.Port())
	binary.BigEndian.PutUint16(b[4:], uint16(8+len(payload)))
	b = append(b, payload...)
	binary.BigEndian.PutUint16(b[6:], checksum(src.Addr(), dst.Addr(), ProtoUDP, b))
	return b
}

// UDPIP returns a UDP datagram in an IP packet.
func UDPIP(src, dst netip.AddrPort, payload []byte) []byte {
	return IP(src.Addr(), dst.Addr(), ProtoUDP, UDP(src, dst, payload))
}

func etherTypeOf(a netip.Addr) uint16 {
	if a.Unmap().Is4() {
		return EtherIPv4
	}
	return EtherIPv6
}

func checksum(src, dst netip.Addr, proto uint8, b []byte) uint16 {
	var s uint32
	if src.Unmap().Is4() {
		x, y := src.Unmap().As4(), dst.Unmap().As4()
		s = sum(sum(0, x[:]), y[:])
	} else {
		x, y := src.As16(), dst.As16()
		s = sum(sum(0, x[:]), y[:])
	}
	return ^fold(sum(s, b) + uint32(proto) + uint32(len(b)))
}

// sum adds the 16-bit words of b to s (RFC 1071); b is at most 64 KiB.
func sum(s uint32, b []byte) uint32 {
	for ; len(b) >= 2; b = b[2:] {
		s += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	return s
}

func fold(s uint32) uint16 {
	for s>>16 != 0 {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}
