package decode

import "encoding/binary"

// link reads the first header of a packet, by its LINKTYPE_ number
// (https://www.tcpdump.org/linktypes.html).
func (d *Decoder) link(kind uint16, b []byte, n int) bool {
	switch kind {
	case 1:
		return d.ethernet(b, n)
	case 0, 108: // BSD loopback, in the byte order of the writer or of the network
		if len(b) < 4 {
			return d.short(n, 4)
		}
		family := binary.BigEndian.Uint32(b)
		if family > 0xffff {
			family = binary.LittleEndian.Uint32(b)
		}
		switch family {
		case 2:
			return d.ipv4(b[4:], n-4)
		case 10, 24, 28, 30: // AF_INET6 of Linux, the BSDs and macOS
			return d.ipv6(b[4:], n-4)
		}
		return false
	case 12, 14, 101: // raw IP
		return d.rawIP(b, n)
	case 228:
		return d.ipv4(b, n)
	case 229:
		return d.ipv6(b, n)
	case 113: // Linux cooked
		if len(b) < 16 {
			return d.short(n, 16)
		}
		return d.cooked(binary.BigEndian.Uint16(b[2:]), binary.BigEndian.Uint16(b[14:]), b[16:], n-16)
	case 276: // Linux cooked v2
		if len(b) < 20 {
			return d.short(n, 20)
		}
		return d.cooked(binary.BigEndian.Uint16(b[8:]), binary.BigEndian.Uint16(b), b[20:], n-20)
	case 9, 50: // PPP, with or without HDLC framing
		if len(b) >= 4 && b[0] == 0x0f || len(b) >= 4 && b[0] == 0x8f { // Cisco HDLC
			return d.ether(binary.BigEndian.Uint16(b[2:]), b[4:], n-4)
		}
		return d.ppp(b, n)
	case 51:
		return d.pppoe(b, n)
	case 104: // Cisco HDLC
		if len(b) < 4 {
			return d.short(n, 4)
		}
		return d.ether(binary.BigEndian.Uint16(b[2:]), b[4:], n-4)
	case 166, 204: // PPP with a direction before it
		if len(b) < 1 {
			return d.short(n, 1)
		}
		return d.ppp(b[1:], n-1)
	case 105:
		return d.wifi(b, n, false)
	case 119, 163: // Prism or AVS header before 802.11
		return d.prism(b, n)
	case 127:
		return d.radiotap(b, n)
	case 192: // per-packet information: its own link type inside
		if len(b) < 8 {
			return d.short(n, 8)
		}
		size, inner := int(binary.LittleEndian.Uint16(b[2:])), binary.LittleEndian.Uint32(b[4:])
		if size < 8 {
			return d.fail(malformed)
		}
		if len(b) < size {
			return d.short(n, size)
		}
		if inner > 0xffff || inner == 192 {
			return d.fail(undecoded)
		}
		return d.link(uint16(inner), b[size:], n-size)
	case 219:
		return d.mpls(b, n)
	case 239:
		return d.nflog(b, n)
	}
	return d.linkRare(kind, b, n)
}

// rawIP reads an IP packet of either version.
func (d *Decoder) rawIP(b []byte, n int) bool {
	if len(b) < 1 {
		return d.short(n, 1)
	}
	switch b[0] >> 4 {
	case 4:
		return d.ipv4(b, n)
	case 6:
		return d.ipv6(b, n)
	}
	return d.fail(malformed)
}

// cooked reads what follows a Linux cooked header, which names the device's type (linux/if_arp.h) and a
// protocol. Values below 1536 are not EtherTypes.
func (d *Decoder) cooked(device, proto uint16, b []byte, n int) bool {
	switch device {
	case 801:
		return d.wifi(b, n, false)
	case 802:
		return d.prism(b, n)
	case 803:
		return d.radiotap(b, n)
	}
	switch {
	case proto >= 1536:
		return d.ether(proto, b, n)
	case proto == 4:
		return d.llc(b, n)
	}
	return false // CAN, 802.3 without LLC and the like
}

// llc reads an 802.2 header, and the SNAP header that announces an EtherType (RFC 1042).
func (d *Decoder) llc(b []byte, n int) bool {
	if len(b) < 8 {
		if len(b) >= 3 && b[0] != 0xaa {
			return false
		}
		return d.short(n, 8)
	}
	switch {
	case b[0] == 0xaa && b[1] == 0xaa && b[2] == 3:
		if oui := uint32(b[3])<<16 | uint32(b[4])<<8 | uint32(b[5]); oui == 0 || oui == 0xf8 {
			return d.ether(binary.BigEndian.Uint16(b[6:]), b[8:], n-8)
		}
	case b[0] == 6 && b[1] == 6 && b[2] == 3:
		return d.ipv4(b[3:], n-3)
	}
	return false // spanning tree, OSI, discovery protocols
}

// etherRare reads the EtherTypes other than IP and VLAN tags.
func (d *Decoder) etherRare(kind uint16, b []byte, n int) bool {
	if kind <= 1500 { // 802.3: the length of what follows
		n = min(n, int(kind))
		return d.llc(b[:min(len(b), n)], n)
	}
	size := 0
	switch kind {
	case 0x8847, 0x8848:
		return d.mpls(b, n)
	case 0x8864:
		return d.pppoe(b, n)
	case 0x880b:
		return d.ppp(b, n)
	case 0x6558: // transparent Ethernet bridging
		return d.ethernet(b, n)
	case 0x894f:
		return d.nsh(b, n)
	case 0x88e7: // 802.1ah service tag, then an Ethernet frame
		if len(b) < 4 {
			return d.short(n, 4)
		}
		return d.ethernet(b[4:], n-4)
	case 0x8903: // Cisco FabricPath: a tag, then an Ethernet frame
		if len(b) < 2 {
			return d.short(n, 2)
		}
		return d.ethernet(b[2:], n-2)
	case 0x22f3:
		return d.trill(b, n)
	case 0x8870: // LLC in jumbo frames
		return d.llc(b, n)
	case 0x8926, 0x892f: // VN-Tag; HSR
		size = 6
	case 0x893f, 0x8909, 0xdada: // E-Tag; Cisco metadata; a switch's port (Marvell)
		size = 8
	case 0x88e5: // MACsec
		return d.fail(undecoded)
	default:
		return false // ARP, LLDP, ...
	}
	if len(b) < size {
		return d.short(n, size)
	}
	return d.ether(binary.BigEndian.Uint16(b[size-2:]), b[size:], n-size)
}

// pppoe reads a PPPoE session packet (RFC 2516 section 4).
func (d *Decoder) pppoe(b []byte, n int) bool {
	if len(b) < 6 {
		return d.short(n, 6)
	}
	if b[0] != 0x11 {
		return d.fail(malformed)
	}
	if b[1] != 0 {
		return false // discovery
	}
	length := int(binary.BigEndian.Uint16(b[4:]))
	b, n = b[6:], n-6
	n = min(n, length)
	return d.ppp(b[:min(len(b), n)], n)
}

// ppp reads a PPP frame (RFC 1661), whose address, control and the first octet
// of whose protocol may be compressed away.
func (d *Decoder) ppp(b []byte, n int) bool {
	if !d.enter() {
		return false
	}
	if len(b) >= 2 && b[0] == 0xff && b[1] == 3 {
		b, n = b[2:], n-2
	}
	if len(b) < 2 {
		return d.short(n, 2)
	}
	proto := binary.BigEndian.Uint16(b)
	size := 2
	if b[0]&1 != 0 {
		proto, size = uint16(b[0]), 1
	}
	b, n = b[size:], n-size
	switch proto {
	case 0x0021:
		return d.ipv4(b, n)
	case 0x0057:
		return d.ipv6(b, n)
	case 0x0281, 0x0283:
		return d.mpls(b, n)
	case 0x003d, 0x00fd, 0x00fb, 0x0053, 0x0055, 0x002d, 0x002f:
		// multilink, compressed, encrypted, van Jacobson
		return d.fail(undecoded)
	}
	return false // control protocols
}

// nflog reads a packet logged by the firewall: attributes, of which one holds an IP packet.
func (d *Decoder) nflog(b []byte, n int) bool {
	if len(b) < 4 {
		return d.short(n, 4)
	}
	b, n = b[4:], n-4
	for len(b) >= 4 {
		size, kind := int(binary.LittleEndian.Uint16(b)), binary.LittleEndian.Uint16(b[2:])
		if size > 1<<10 && kind > 1<<7 { // written by a machine of the other byte order
			size, kind = int(binary.BigEndian.Uint16(b)), binary.BigEndian.Uint16(b[2:])
		}
		if size < 4 {
			return d.fail(malformed)
		}
		if kind == 9 { // NFULA_PAYLOAD
			n = min(n, size)
			return d.rawIP(b[4:min(len(b), n)], n-4)
		}
		size = (size + 3) &^ 3
		if size > len(b) {
			break
		}
		b, n = b[size:], n-size
	}
	return d.short(n, 4)
}
