package decode

import (
	"encoding/binary"

	"github.com/httpctl/httpctl/pkg/exchange"
)

// Kinds of tunnels whose ids are part of a flow. The ids of the others are not:
// GTP's, PPTP's and MPLS's differ between the directions, those of ERSPAN may, and
// IP in IP has none.
const (
	tunnelVXLAN = 1 + iota
	tunnelGENEVE
	tunnelGRE
)

// ip reads what an IP protocol other than TCP announces.
func (d *Decoder) ip(proto uint8, b []byte, n int) bool {
	if !d.enter() {
		return false
	}
	switch proto {
	case 17:
		return d.udp(b, n)
	case 4:
		return d.ipv4(b, n)
	case 41:
		return d.ipv6(b, n)
	case 47:
		return d.gre(b, n)
	case 137:
		return d.mpls(b, n)
	case 97: // EtherIP (RFC 3378)
		if len(b) < 2 {
			return d.short(n, 2)
		}
		return d.ethernet(b[2:], n-2)
	case 50, 108, 115: // ESP, compressed, L2TPv3
		return d.fail(undecoded)
	}
	return false // ICMP, SCTP, OSPF, ...
}

// gre reads GRE (RFC 2784, 2890), its PPTP version (RFC 2637) and ERSPAN in it.
func (d *Decoder) gre(b []byte, n int) bool {
	if len(b) < 4 {
		return d.short(n, 4)
	}
	flags, version, proto := b[0], b[1]&7, binary.BigEndian.Uint16(b[2:])
	if version == 1 {
		return d.pptp(b, n)
	}
	if version != 0 || flags&0x40 != 0 { // source routes
		return d.fail(undecoded)
	}
	size := 4
	if flags&0x80 != 0 {
		size += 4 // checksum
	}
	key := size
	if flags&0x20 != 0 {
		size += 4
	}
	if flags&0x10 != 0 {
		size += 4 // sequence number
	}
	if len(b) < size {
		return d.short(n, size)
	}
	if flags&0x20 != 0 {
		d.within(tunnelGRE, binary.BigEndian.Uint32(b[key:]))
	}
	sequence := flags&0x10 != 0
	b, n = b[size:], n-size
	switch proto {
	case 0x88be: // ERSPAN I, without a header, or II
		if !sequence {
			return d.ethernet(b, n)
		}
		if len(b) < 8 {
			return d.short(n, 8)
		}
		return d.ethernet(b[8:], n-8)
	case 0x22eb: // ERSPAN III
		if len(b) < 12 {
			return d.short(n, 12)
		}
		size = 12
		if b[11]&1 != 0 {
			size = 20 // platform-specific subheader
		}
		if len(b) < size {
			return d.short(n, size)
		}
		if b[10]&0x7c == 2<<2 { // frame type: IP
			return d.rawIP(b[size:], n-size)
		}
		return d.ethernet(b[size:], n-size)
	case 0x883e: // WCCP, whose second version has a header of 4 bytes
		if len(b) > 4 && b[0]>>4 != 4 {
			b, n = b[4:], n-4
		}
		return d.ipv4(b, n)
	case 0x6559:
		return d.frameRelay(b, n)
	}
	switch {
	case proto < 1536:
		return false // keepalive, OSI
	case proto >= 0x8200 && proto < 0x8400, proto == 0x9000: // Aruba: 802.11 from access points
		return d.wifi(b, n, false)
	}
	return d.ether(proto, b, n)
}

// pptp reads GRE version 1. Its call id differs between the directions.
func (d *Decoder) pptp(b []byte, n int) bool {
	if len(b) < 8 {
		return d.short(n, 8)
	}
	size, length := 8, int(binary.BigEndian.Uint16(b[4:]))
	if b[0]&0x10 == 0 {
		return false // an acknowledgement without payload
	}
	size += 4
	if b[1]&0x80 != 0 {
		size += 4
	}
	if len(b) < size {
		return d.short(n, size)
	}
	b, n = b[size:], min(n-size, length)
	return d.ppp(b[:min(len(b), n)], n)
}

// mpls reads a label stack (RFC 3032). Nothing says what is below it, so the
// content is judged: IP by its header, else Ethernet with or without a control
// word (RFC 4385).
func (d *Decoder) mpls(b []byte, n int) bool {
	for {
		if !d.enter() {
			return false
		}
		if len(b) < 4 {
			return d.short(n, 4)
		}
		bottom := b[2]&1 != 0
		b, n = b[4:], n-4
		if bottom {
			break
		}
	}
	if len(b) < 1 {
		return d.short(n, 1)
	}
	switch {
	case plausibleIP(b, n):
		return d.rawIP(b, n)
	case len(b) >= 18 && b[0]>>4 == 0 && plausibleEther(b[16:]):
		return d.ethernet(b[4:], n-4)
	}
	return d.ethernet(b, n)
}

// plausibleIP reports whether b of n bytes starts with an IP header whose
// length fits, padding allowed.
func plausibleIP(b []byte, n int) bool {
	if len(b) < 20 {
		return false
	}
	switch b[0] >> 4 {
	case 4:
		total := int(binary.BigEndian.Uint16(b[2:]))
		return b[0]&0x0f >= 5 && total <= n && (total >= 20 || total == 0)
	case 6:
		return len(b) >= 40 && int(binary.BigEndian.Uint16(b[4:]))+40 <= n
	}
	return false
}

// exactIP is plausibleIP without padding: for guesses where a port says nothing.
func exactIP(b []byte, n int) bool {
	if !plausibleIP(b, n) {
		return false
	}
	if b[0]>>4 == 4 {
		return int(binary.BigEndian.Uint16(b[2:])) == n
	}
	return int(binary.BigEndian.Uint16(b[4:]))+40 == n
}

// plausibleEther reports whether b starts with an EtherType that can lead to TCP.
func plausibleEther(b []byte) bool {
	switch binary.BigEndian.Uint16(b) {
	case 0x0800, 0x86dd, 0x8100, 0x88a8, 0x9100, 0x8847, 0x8864, 0x0806:
		return true
	}
	return false
}

// nsh reads a Network Service Header (RFC 8300).
func (d *Decoder) nsh(b []byte, n int) bool {
	if len(b) < 8 {
		return d.short(n, 8)
	}
	size := int(b[1]&0x3f) * 4
	if size < 8 {
		return d.fail(malformed)
	}
	if len(b) < size {
		return d.short(n, size)
	}
	return d.gpe(b[3], b[size:], n-size)
}

// gpe reads what the protocol numbers of NSH and VXLAN-GPE announce.
func (d *Decoder) gpe(proto uint8, b []byte, n int) bool {
	if !d.enter() {
		return false
	}
	switch proto {
	case 1:
		return d.ipv4(b, n)
	case 2:
		return d.ipv6(b, n)
	case 3:
		return d.ethernet(b, n)
	case 4:
		return d.nsh(b, n)
	case 5:
		return d.mpls(b, n)
	}
	return d.fail(undecoded)
}

// UDP ports of tunnels. Linux took 8472 for VXLAN before there was 4789.
const (
	portVXLAN      = 4789
	portVXLANLinux = 8472
	portVXLANGPE   = 4790
	portGENEVE     = 6081
	portGTP        = 2152
	portTeredo     = 3544
	portAYIYA      = 5072
	portMPLS       = 6635
	portL2TP       = 1701
	portTZSP       = 37008
	portLISP       = 4341
	// portSSDP is no tunnel's: its datagrams are counted.
	portSSDP = 1900
)

// udp looks for a tunnel in a UDP datagram: by port, else by content that is
// unlikely to be anything else.
func (d *Decoder) udp(b []byte, n int) bool {
	if len(b) < 8 {
		return d.short(n, 8)
	}
	src, dst := binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	if length := int(binary.BigEndian.Uint16(b[4:])); length >= 8 {
		n = min(n, length)
		b = b[:min(len(b), n)]
	}
	b, n = b[8:], n-8
	if dst == portMPLS { // RFC 7510
		return d.mpls(b, n)
	}
	for _, port := range [2]uint16{dst, src} {
		switch port {
		case portVXLAN, portVXLANLinux, portVXLANGPE:
			if len(b) >= 8 && b[0]&0x08 != 0 {
				return d.vxlan(b, n)
			}
		case portGENEVE:
			if len(b) >= 8 && b[0]>>6 == 0 {
				return d.geneve(b, n)
			}
		case portAYIYA:
			return d.ayiya(b, n)
		case portL2TP:
			if inner, length, ok := l2tp(b, n); ok {
				return d.ppp(inner, length)
			}
		case portTZSP:
			if inner, length, ok := tzsp(b, n); ok {
				return d.ethernet(inner, length)
			}
		case portLISP: // RFC 9300 section 5.3
			if len(b) > 8 && exactIP(b[8:], n-8) {
				return d.rawIP(b[8:], n-8)
			}
		}
	}
	if inner, length, ok := gtp(b, n, src == portGTP || dst == portGTP); ok {
		return d.rawIP(inner, length)
	}
	if inner, length, ok := teredo(b, n, src == portTeredo || dst == portTeredo); ok {
		return d.ipv6(inner, length)
	}
	if (src == portSSDP || dst == portSSDP) && isSSDP(b) {
		d.n[exchange.OtherSSDP]++
	}
	return false
}

// isSSDP reports whether a datagram is of SSDP, the discovery of UPnP, which looks
// like HTTP and is not (UPnP Device Architecture 2.0 section 1).
func isSSDP(b []byte) bool {
	for _, start := range [...]string{"NOTIFY * HTTP/1.", "M-SEARCH * HTTP/1.", "HTTP/1.1 200 OK"} {
		if len(b) >= len(start) && string(b[:len(start)]) == start {
			return true
		}
	}
	return false
}

// vxlan reads VXLAN (RFC 7348) and its generic protocol extension.
func (d *Decoder) vxlan(b []byte, n int) bool {
	d.within(tunnelVXLAN, binary.BigEndian.Uint32(b[4:])>>8)
	if b[0]&0x04 != 0 { // a next protocol is given
		return d.gpe(b[3], b[8:], n-8)
	}
	return d.ethernet(b[8:], n-8)
}

// geneve reads GENEVE (RFC 8926).
func (d *Decoder) geneve(b []byte, n int) bool {
	size := 8 + int(b[0]&0x3f)*4
	if len(b) < size {
		return d.short(n, size)
	}
	d.within(tunnelGENEVE, binary.BigEndian.Uint32(b[4:])>>8)
	return d.ether(binary.BigEndian.Uint16(b[2:]), b[size:], n-size)
}

// gtp finds the IP packet in a GTPv1-U message (3GPP TS 29.281 section 5). On
// a port other than GTP's, all lengths have to fit exactly.
func gtp(b []byte, n int, known bool) ([]byte, int, bool) {
	if len(b) < 8 || b[0]&0xf0 != 0x30 || b[1] != 0xff {
		return nil, 0, false
	}
	length := int(binary.BigEndian.Uint16(b[2:]))
	if length > n-8 || !known && length != n-8 {
		return nil, 0, false
	}
	n = 8 + length
	b = b[:min(len(b), n)]
	size := 8
	if b[0]&7 != 0 {
		if len(b) < 12 {
			return nil, 0, false
		}
		next := b[11]
		if b[0]&4 == 0 {
			next = 0
		}
		for size = 12; next != 0; {
			if size >= len(b) || b[size] == 0 {
				return nil, 0, false
			}
			size += int(b[size]) * 4
			if size > len(b) {
				return nil, 0, false
			}
			next = b[size-1]
		}
	}
	b, n = b[size:], n-size
	if known && plausibleIP(b, n) || exactIP(b, n) {
		return b, n, true
	}
	return nil, 0, false
}

// teredo finds the IPv6 packet in a Teredo datagram (RFC 4380 section 5.1.1),
// on any port: hosts behind a NAT talk to each other on ports of their own. Unless the port is
// Teredo's, where trailers may follow (RFC 6081 section 4), its lengths have to fit exactly, and one end has to
// be a Teredo or a link-local address.
func teredo(b []byte, n int, known bool) ([]byte, int, bool) {
	if len(b) > 4 && b[0] == 0 && b[1] == 1 { // authentication
		size := 13 + int(b[2]) + int(b[3])
		if size > len(b) {
			return nil, 0, false
		}
		b, n = b[size:], n-size
	}
	if len(b) > 8 && b[0] == 0 && b[1] == 0 { // origin
		b, n = b[8:], n-8
	}
	if len(b) < 40 || b[0]>>4 != 6 || !exactIP(b, n) && !(known && plausibleIP(b, n)) {
		return nil, 0, false
	}
	for _, a := range [2][]byte{b[8:24], b[24:40]} {
		if known || binary.BigEndian.Uint32(a) == 0x20010000 || a[0] == 0xfe && a[1]&0xc0 == 0x80 {
			return b, n, true
		}
	}
	return nil, 0, false
}

// l2tp finds the PPP frame in an L2TP data message (RFC 2661 section 3.1).
func l2tp(b []byte, n int) ([]byte, int, bool) {
	if len(b) < 6 || b[0]&0x80 != 0 || b[1]&0x0f != 2 {
		return nil, 0, false // control, or another version
	}
	size, flags := 6, b[0]
	if flags&0x40 != 0 { // has a length
		length := int(binary.BigEndian.Uint16(b[2:]))
		if length > n {
			return nil, 0, false
		}
		n = length
		b = b[:min(len(b), n)]
		size += 2
	}
	if flags&0x08 != 0 { // sequence numbers
		size += 4
	}
	if flags&0x02 != 0 { // an offset, and as many octets
		if len(b) < size+2 {
			return nil, 0, false
		}
		size += 2 + int(binary.BigEndian.Uint16(b[size:]))
	}
	if len(b) < size {
		return nil, 0, false
	}
	return b[size:], n - size, true
}

// tzsp finds the Ethernet frame in a packet of the TaZmen Sniffer Protocol,
// by which routers and access points mirror: version 1, type, the protocol of what is carried,
// and tagged fields up to tag 1.
func tzsp(b []byte, n int) ([]byte, int, bool) {
	if len(b) < 5 || b[0] != 1 || b[2] != 0 || b[3] != 1 {
		return nil, 0, false
	}
	for i := 4; i < len(b); {
		switch b[i] {
		case 0: // padding
			i++
		case 1: // end
			return b[i+1:], n - i - 1, true
		default:
			if i+1 >= len(b) {
				return nil, 0, false
			}
			i += 2 + int(b[i+1])
		}
	}
	return nil, 0, false
}

// ayiya reads Anything in Anything (draft-massar-v6ops-ayiya-02 section 3).
func (d *Decoder) ayiya(b []byte, n int) bool {
	if len(b) < 8 {
		return d.short(n, 8)
	}
	size := 8 + 1<<(b[0]>>4) + int(b[1]>>4)*4
	if len(b) < size {
		return d.short(n, size)
	}
	if b[2]&0x0f != 1 { // opcode: forward
		return false
	}
	switch b[3] {
	case 4:
		return d.ipv4(b[size:], n-size)
	case 41:
		return d.ipv6(b[size:], n-size)
	}
	return false
}
