package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
)

// Block types (draft-ietf-opsawg-pcapng section 11.1).
const (
	blockSection   = 0x0a0d0d0a // the same in both byte orders
	blockInterface = 1
	blockPacket    = 2 // obsolete
	blockSimple    = 3
	blockEnhanced  = 6

	byteOrderMagic = 0x1a2b3c4d
)

// maxInterfaces bounds what is remembered of one section.
const maxInterfaces = 1 << 16

// pcapngFile reads a capture in blocks. One section may follow another, each
// with its own byte order and interfaces.
type pcapngFile struct {
	order      binary.ByteOrder
	interfaces []ngInterface
	// last is the time of the newest packet: that of simple packets, which have none.
	last int64
	warn func(string)
}

// ngInterface is what an Interface Description Block says.
type ngInterface struct {
	link    uint16
	snaplen uint32
	units   uint64 // of a time stamp, per second
	offset  int64  // seconds
}

// isPcapng reports whether the first 12 bytes of a file open a section.
func isPcapng(h []byte) bool {
	if len(h) < 12 || binary.BigEndian.Uint32(h) != blockSection {
		return false
	}
	return binary.BigEndian.Uint32(h[8:]) == byteOrderMagic || binary.LittleEndian.Uint32(h[8:]) == byteOrderMagic
}

// next passes over blocks up to the next packet.
func (f *pcapngFile) next(w *window, p *Packet) error {
	for {
		h, err := w.peek(8)
		if err != nil {
			return err
		}
		if binary.BigEndian.Uint32(h) == blockSection {
			if err := f.section(w); err != nil {
				return cut(err)
			}
			continue
		}
		if f.order == nil {
			return damage("no section header")
		}
		kind, total := f.order.Uint32(h), int64(f.order.Uint32(h[4:]))
		if total < 12 {
			return damage(fmt.Sprintf("a block claims %d bytes", total))
		}
		body := total - 12
		found := false
		switch {
		case kind == blockInterface && body >= 8:
			err = f.describe(w, body)
		case kind == blockEnhanced && body >= 20, kind == blockPacket && body >= 20:
			found, err = f.packet(w, p, kind, body)
		case kind == blockSimple && body >= 4:
			found, err = f.simple(w, p, body)
		default:
			err = w.skip(8 + body)
		}
		if err != nil {
			return cut(err)
		}
		if found {
			// The closing length was passed over with the frame. It says nothing new.
			return nil
		}
		if kind != blockEnhanced && kind != blockPacket && kind != blockSimple {
			if err := f.closing(w, total); err != nil {
				return err
			}
		}
	}
}

// whole looks for Enhanced Packet Blocks only: all others are rare.
func (f *pcapngFile) whole(w *window) bool {
	b := w.there()
	if len(b) < 28 || f.order == nil || f.order.Uint32(b) != blockEnhanced {
		return false
	}
	total, captured := uint64(f.order.Uint32(b[4:])), uint64(f.order.Uint32(b[20:]))
	return total >= 32 && total <= uint64(len(b)) && captured <= total-32 &&
		uint64(f.order.Uint32(b[8:])) < uint64(len(f.interfaces))
}

// closing reads the length that a block repeats at its end.
func (f *pcapngFile) closing(w *window, total int64) error {
	b, err := w.take(4)
	if err != nil {
		return cut(err)
	}
	if again := f.order.Uint32(b); int64(again) != total {
		return damage(fmt.Sprintf("a block of %d bytes closes as one of %d", total, again))
	}
	return nil
}

// section reads a Section Header Block: a new byte order and no interfaces.
func (f *pcapngFile) section(w *window) error {
	h, err := w.take(12)
	if err != nil {
		return err
	}
	switch {
	case binary.LittleEndian.Uint32(h[8:]) == byteOrderMagic:
		f.order = binary.LittleEndian
	case binary.BigEndian.Uint32(h[8:]) == byteOrderMagic:
		f.order = binary.BigEndian
	default:
		return damage("a section header without byte-order magic")
	}
	total := int64(f.order.Uint32(h[4:]))
	if total < 28 {
		return damage(fmt.Sprintf("a section header claims %d bytes", total))
	}
	f.interfaces = f.interfaces[:0]
	if err := w.skip(total - 16); err != nil {
		return err
	}
	return f.closing(w, total)
}

// describe reads an Interface Description Block up to its closing length.
func (f *pcapngFile) describe(w *window, body int64) error {
	h, err := w.take(16)
	if err != nil {
		return err
	}
	in := ngInterface{link: f.order.Uint16(h[8:]), snaplen: f.order.Uint32(h[12:]), units: 1e6}
	left := body - 8
	for left >= 4 {
		o, err := w.take(4)
		if err != nil {
			return err
		}
		left -= 4
		code, length := f.order.Uint16(o), int64(f.order.Uint16(o[2:]))
		padded := (length + 3) &^ 3
		if code == 0 || padded > left {
			break
		}
		v, err := w.take(int(padded))
		if err != nil {
			return err
		}
		left -= padded
		switch {
		case code == 9 && length >= 1: // if_tsresol
			if in.units = unitsPerSecond(v[0]); in.units == 0 {
				f.warn(fmt.Sprintf("interface %d has time units that are too small (if_tsresol %#x); its times are not known", len(f.interfaces), v[0]))
			}
		case code == 14 && length >= 8: // if_tsoffset
			in.offset = int64(f.order.Uint64(v))
			if in.offset > 1<<32 || in.offset < -1<<32 {
				f.warn(fmt.Sprintf("interface %d has an impossible if_tsoffset (%d s), taken as 0", len(f.interfaces), in.offset))
				in.offset = 0
			}
		}
	}
	if len(f.interfaces) < maxInterfaces {
		f.interfaces = append(f.interfaces, in)
	} else {
		f.warn(fmt.Sprintf("more than %d interfaces in one section; the packets of the others are left out", maxInterfaces))
	}
	return w.skip(left)
}

// unitsPerSecond reads an if_tsresol: a negative power of 10, or of 2 if the
// top bit is set. It returns 0 for units beyond 64 bits.
func unitsPerSecond(resolution byte) uint64 {
	n := resolution & 0x7f
	if resolution&0x80 != 0 {
		if n > 63 {
			return 0
		}
		return 1 << n
	}
	if n > 19 {
		return 0
	}
	units := uint64(1)
	for range n {
		units *= 10
	}
	return units
}

// time turns a time stamp into nanoseconds since the Unix epoch; one that does
// not fit is 0. Some writers extend the sign of a broken clock: a stamp with the top
// bit set is read as negative, which keeps the distances between packets.
func (in *ngInterface) time(stamp uint64) int64 {
	if stamp >= 1<<63 {
		return -in.nanoseconds(-stamp) + in.offset*1e9
	}
	return in.nanoseconds(stamp) + in.offset*1e9
}

// nanoseconds returns n units in nanoseconds, 0 if that is above 2^62.
func (in *ngInterface) nanoseconds(n uint64) int64 {
	if in.units == 1e6 && n < 1<<52 { // the default needs no division
		return int64(n) * 1000
	}
	hi, lo := bits.Mul64(n, 1e9)
	if hi >= in.units {
		return 0
	}
	ns, _ := bits.Div64(hi, lo, in.units)
	if ns > 1<<62 {
		return 0
	}
	return int64(ns)
}

// packet reads an Enhanced Packet Block or an obsolete Packet Block, to its end.
func (f *pcapngFile) packet(w *window, p *Packet, kind uint32, body int64) (bool, error) {
	h, err := w.take(28)
	if err != nil {
		return false, err
	}
	id := int(f.order.Uint32(h[8:]))
	if kind == blockPacket {
		id = int(f.order.Uint16(h[8:]))
	}
	stamp := uint64(f.order.Uint32(h[12:]))<<32 | uint64(f.order.Uint32(h[16:]))
	captured, length := int64(f.order.Uint32(h[20:])), int64(f.order.Uint32(h[24:]))
	left := body - 20
	if captured > left {
		return false, damage(fmt.Sprintf("a packet of %d bytes in a block with room for %d", captured, left))
	}
	if captured > longestRecord {
		return false, damage(fmt.Sprintf("a packet claims %d bytes", captured))
	}
	if id >= len(f.interfaces) {
		f.warn(fmt.Sprintf("a packet of interface %d, which was not described, is left out (and others like it)", id))
		return false, w.skip(left + 4)
	}
	in := &f.interfaces[id]
	p.Time = in.time(stamp)
	f.last = p.Time
	p.Length = int(max(length, captured))
	p.Link = in.link
	p.Interface = id
	return true, takeFrame(w, p, int(captured), left-captured+4)
}

// simple reads a Simple Packet Block, to its end. Its packet is of the first
// interface and has no time: it is given that of the packet before.
func (f *pcapngFile) simple(w *window, p *Packet, body int64) (bool, error) {
	h, err := w.take(12)
	if err != nil {
		return false, err
	}
	length := int64(f.order.Uint32(h[8:]))
	left := body - 4
	if len(f.interfaces) == 0 {
		f.warn("a packet of interface 0, which was not described, is left out (and others like it)")
		return false, w.skip(left + 4)
	}
	in := &f.interfaces[0]
	captured := min(length, left)
	if in.snaplen > 0 {
		captured = min(captured, int64(in.snaplen))
	}
	if captured > longestRecord {
		return false, damage(fmt.Sprintf("a packet claims %d bytes", captured))
	}
	p.Time = f.last
	p.Length = int(length)
	p.Link = in.link
	p.Interface = 0
	return true, takeFrame(w, p, int(captured), left-captured+4)
}

// damage is what makes the rest of a file unreadable.
type damage string

func (d damage) Error() string { return string(d) }

// cut turns the end of a file in the middle of something into damage.
func cut(err error) error {
	if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) {
		return damage("the file ends in the middle of a record")
	}
	return err
}
