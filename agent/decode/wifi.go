package decode

import "encoding/binary"

// radiotap reads the header that most captures put before 802.11 frames.
func (d *Decoder) radiotap(b []byte, n int) bool {
	if len(b) < 8 {
		return d.short(n, 8)
	}
	size := int(binary.LittleEndian.Uint16(b[2:]))
	if size < 8 {
		return d.fail(malformed)
	}
	if len(b) < size {
		return d.short(n, size)
	}
	// The flags field is the first behind the 8-byte time stamp, if both are
	// there; further presence words (bit 31) come before either.
	present := binary.LittleEndian.Uint32(b[4:])
	at := 8
	for word := present; word&(1<<31) != 0; at += 4 {
		if at+4 > size {
			return d.fail(malformed)
		}
		word = binary.LittleEndian.Uint32(b[at:])
	}
	padded := false
	if present&2 != 0 {
		if present&1 != 0 {
			at = (at+7)&^7 + 8
		}
		if at >= size {
			return d.fail(malformed)
		}
		padded = b[at]&0x20 != 0
	}
	return d.wifi(b[size:], n-size, padded)
}

// prism reads a Prism or an AVS header before an 802.11 frame.
func (d *Decoder) prism(b []byte, n int) bool {
	if len(b) < 8 {
		return d.short(n, 8)
	}
	size := binary.LittleEndian.Uint32(b[4:])
	switch {
	case binary.BigEndian.Uint32(b)&0xfffff000 == 0x80211000: // AVS
		size = binary.BigEndian.Uint32(b[4:])
	case binary.BigEndian.Uint32(b) == 0x44: // Prism, written big endian
		size = binary.BigEndian.Uint32(b[4:])
	}
	if size < 8 || size > 4096 {
		return d.fail(malformed)
	}
	if len(b) < int(size) {
		return d.short(n, int(size))
	}
	return d.wifi(b[size:], n-int(size), false)
}

// wifi reads an 802.11 data frame (IEEE 802.11-2020 section 9.3.2). padded says
// that the header is padded to a multiple of four.
func (d *Decoder) wifi(b []byte, n int, padded bool) bool {
	if len(b) < 2 {
		return d.short(n, 2)
	}
	control, flags := b[0], b[1]
	if control&0x0c != 0x08 || control&0x40 != 0 {
		return false // management, control, or a data frame without data
	}
	size := 24
	if flags&3 == 3 { // between access points: a fourth address
		size += 6
	}
	qos := size
	if control&0x80 != 0 {
		size += 2
		if flags&0x80 != 0 {
			size += 4 // HT control
		}
	}
	if padded {
		size = (size + 3) &^ 3
	}
	if len(b) < size {
		return d.short(n, size)
	}
	if flags&4 != 0 || b[22]&0x0f != 0 {
		return d.fail(undecoded) // a fragment
	}
	aggregate := control&0x80 != 0 && b[qos]&0x80 != 0
	b, n = b[size:], n-size
	if flags&0x40 != 0 && !(len(b) > 2 && b[0] == 0xaa && b[1] == 0xaa && b[2] == 3) {
		// Protected. A capture that was decrypted may still have the 8 bytes of
		// CCMP or TKIP, or the 4 of WEP, before it.
		switch {
		case len(b) > 10 && b[8] == 0xaa && b[9] == 0xaa && b[10] == 3:
			b, n = b[8:], n-8
		case len(b) > 6 && b[4] == 0xaa && b[5] == 0xaa && b[6] == 3:
			b, n = b[4:], n-4
		default:
			return d.fail(undecoded)
		}
	}
	if aggregate {
		d.rest, d.restLength = b, n
		return d.subframe()
	}
	return d.llc(b, n)
}

// subframe reads on in an aggregated frame (A-MSDU) until it meets a segment.
func (d *Decoder) subframe() bool {
	for len(d.rest) >= 14 {
		b, n := d.rest, d.restLength
		size := 14 + int(binary.BigEndian.Uint16(b[12:]))
		d.rest, d.restLength = nil, 0
		if next := (size + 3) &^ 3; next < len(b) {
			d.rest, d.restLength = b[next:], n-next
		}
		n = min(n, size)
		b = b[:min(len(b), n)]
		if len(b) < 14 {
			return d.short(n, 14)
		}
		d.depth = 1
		if d.llc(b[14:], n-14) {
			return true
		}
	}
	return false
}

// More fills s with the next segment of the packet that Decode was last called
// with, if it has one more. Only aggregated 802.11 frames do.
func (d *Decoder) More(s *Segment) bool {
	if len(d.rest) == 0 {
		return false
	}
	d.s, d.tunnel, d.fault = s, 0, none
	return d.count(d.subframe())
}
