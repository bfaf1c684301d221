package decode

import "encoding/binary"

// linkRare reads the link types that are seldom met: other networks than Ethernet, what
// firewalls log, and frames with something of the hardware's before them.
func (d *Decoder) linkRare(kind uint16, b []byte, n int) bool {
	if !d.enter() {
		return false
	}
	size := 0
	switch kind {
	case 6:
		return d.tokenRing(b, n)
	case 8: // SLIP: a direction and a compressed header
		size = 16
	case 10: // FDDI: frame control and two addresses
		size = 13
	case 100: // LLC on ATM (RFC 2684), or IP alone
		if len(b) > 0 && b[0] != 0xaa {
			return d.rawIP(b, n)
		}
		return d.llc(b, n)
	case 107:
		return d.frameRelay(b, n)
	case 109: // OpenBSD's IPsec: family, parameter index, flags
		size = 12
	case 117: // the log of OpenBSD's firewall: its first octet is the header's length, without padding
		if len(b) < 4 {
			return d.short(n, 4)
		}
		size = (int(b[0]) + 3) &^ 3
		if size < 4 {
			return d.fail(malformed)
		}
	case 122: // IP over Fibre Channel: two addresses (RFC 2625)
		size = 16
	case 138: // IP over IEEE 1394: two addresses of 8 octets, and an EtherType
		size = 18
	case 178:
		return d.juniper(b, n)
	case 205, 206: // Cisco HDLC and Frame Relay with a direction before them
		size = 1
	case 240: // netANALYZER: a header of its own
		size = 4
	case 241: // and the preamble
		size = 12
	case 242: // IP over InfiniBand: an EtherType and 2 octets (RFC 4391), often behind the global route header
		if size = 4; len(b) > 0 && b[0]>>4 == 6 {
			size = 44
		}
	case 258: // macOS: length, kind and link type of what follows
		return d.pktap(b, n)
	case 274: // IEEE 802.3br: the preamble
		size = 8
	case 281: // a switch's port in a tag of 4 octets behind the addresses (Broadcom)
		size = 16
	case 282: // before them
		size = 4
	case 284: // of 4 (Marvell), of which an EtherType follows
		size = 16
	case 285: // of 8
		size = 20
	default:
		return d.fail(undecoded)
	}
	if kind == 281 || kind == 284 || kind == 285 {
		if len(b) < size+2 {
			return d.short(n, size+2)
		}
		return d.ether(binary.BigEndian.Uint16(b[size:]), b[size+2:], n-size-2)
	}
	if len(b) < size {
		return d.short(n, size)
	}
	rest, left := b[size:], n-size
	switch kind {
	case 10, 122:
		return d.llc(rest, left)
	case 138:
		return d.ether(binary.BigEndian.Uint16(b[16:]), rest, left)
	case 242:
		return d.ether(binary.BigEndian.Uint16(b[size-4:]), rest, left)
	case 205:
		return d.link(104, rest, left)
	case 206:
		return d.frameRelay(rest, left)
	case 240, 241, 274, 282:
		return d.ethernet(rest, left)
	}
	return d.rawIP(rest, left)
}

// tokenRing reads a frame of IEEE 802.5: two octets of control, the addresses, and a
// route if the source's first bit says so.
func (d *Decoder) tokenRing(b []byte, n int) bool {
	size := 14
	if len(b) < size+1 {
		return d.short(n, size+1)
	}
	if b[1]&0xc0 != 0x40 {
		return false // no data: the ring's own
	}
	if b[8]&0x80 != 0 {
		size += int(b[14] & 0x1f)
	}
	if len(b) < size {
		return d.short(n, size)
	}
	return d.llc(b[size:], n-size)
}

// frameRelay reads an address of 2 to 4 octets and what follows it: the protocol's number
// of RFC 2427, or Cisco's EtherType.
func (d *Decoder) frameRelay(b []byte, n int) bool {
	size := 0
	for last := false; !last; size++ {
		if size == 4 {
			return d.fail(malformed)
		}
		if len(b) <= size {
			return d.short(n, size+1)
		}
		last = b[size]&1 != 0
	}
	b, n = b[size:], n-size
	if len(b) < 2 {
		return d.short(n, 2)
	}
	if b[0] != 3 {
		return d.ether(binary.BigEndian.Uint16(b), b[2:], n-2)
	}
	b, n = b[1:], n-1
	if b[0] == 0 && len(b) > 1 { // padding
		b, n = b[1:], n-1
	}
	switch b[0] {
	case 0xcc:
		return d.ipv4(b[1:], n-1)
	case 0x8e:
		return d.ipv6(b[1:], n-1)
	case 0x80: // SNAP
		if len(b) < 6 {
			return d.short(n, 6)
		}
		if b[1]|b[2]|b[3] == 0 {
			return d.ether(binary.BigEndian.Uint16(b[4:]), b[6:], n-6)
		}
		if b[1] == 0 && b[2] == 0x80 && b[3] == 0xc2 && (b[5] == 1 || b[5] == 7) { // bridged Ethernet
			return d.ethernet(b[6:], n-6)
		}
	}
	return false // management and the like
}

// pktap reads what macOS's tcpdump writes for several interfaces at once.
func (d *Decoder) pktap(b []byte, n int) bool {
	if len(b) < 12 {
		return d.short(n, 12)
	}
	size, kind, inner := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:]), binary.LittleEndian.Uint32(b[8:])
	switch {
	case size < 12 || size > 1<<16:
		return d.fail(malformed)
	case len(b) < int(size):
		return d.short(n, int(size))
	case kind != 1:
		return false // no packet
	case inner > 0xffff || inner == 258:
		return d.fail(undecoded)
	}
	return d.link(uint16(inner), b[size:], n-int(size))
}

// juniper reads what Junos writes of an Ethernet port: a magic number, flags, perhaps a length and fields of that
// length, and a frame, or without its header a protocol family and an IP packet.
func (d *Decoder) juniper(b []byte, n int) bool {
	if len(b) < 4 {
		return d.short(n, 4)
	}
	if b[0] != 'M' || b[1] != 'G' || b[2] != 'C' {
		return d.fail(malformed)
	}
	size, flags := 4, b[3]
	if flags&0x80 != 0 {
		if len(b) < 6 {
			return d.short(n, 6)
		}
		size = 6 + int(binary.BigEndian.Uint16(b[4:]))
	}
	if flags&2 != 0 {
		size += 4
	}
	if len(b) < size {
		return d.short(n, size)
	}
	if flags&2 != 0 {
		return d.rawIP(b[size:], n-size)
	}
	return d.ethernet(b[size:], n-size)
}

// trill reads TRILL (RFC 6325 section 3): an Ethernet frame behind options.
func (d *Decoder) trill(b []byte, n int) bool {
	if len(b) < 6 {
		return d.short(n, 6)
	}
	size := 6 + int(binary.BigEndian.Uint16(b)>>6&0x1f)*4
	if len(b) < size {
		return d.short(n, size)
	}
	return d.ethernet(b[size:], n-size)
}
