package capture

import (
	"encoding/binary"
	"fmt"
)

// Magic numbers of classic capture files, as the writer's byte order has them
// (draft-ietf-opsawg-pcap section 4).
const (
	magicMicro    = 0xa1b2c3d4
	magicNano     = 0xa1b23c4d
	magicModified = 0xa1b2cd34 // Alexey Kuznetzov's: 8 more bytes in each record
)

// longestRecord is the length above which a record's header must be damaged:
// more than any snapshot length that capture programs accept, USB's 128 MiB aside.
const longestRecord = 16 << 20

// pcapFile reads a classic capture file.
type pcapFile struct {
	order  binary.ByteOrder
	big    bool
	nanos  int64 // in one unit of the fraction
	record int
	link   uint16
	// swapped: files before version 2.3 have the two lengths the other way round.
	swapped bool
}

// newPcap reads the file header of 24 bytes; ok says that it is one.
func newPcap(h []byte) (*pcapFile, bool) {
	if len(h) < 24 {
		return nil, false
	}
	f := &pcapFile{order: binary.LittleEndian, record: 16}
	for range 2 {
		switch f.order.Uint32(h) {
		case magicMicro:
			f.nanos = 1000
		case magicNano:
			f.nanos = 1
		case magicModified:
			f.nanos, f.record = 1000, 24
		}
		if f.nanos != 0 {
			major, minor := f.order.Uint16(h[4:]), f.order.Uint16(h[6:])
			f.swapped = major < 2 || major == 2 && minor < 3
			// The upper bits say how long a frame check sequence is.
			f.link = uint16(f.order.Uint32(h[20:]))
			return f, true
		}
		f.order, f.big = binary.BigEndian, true
	}
	return nil, false
}

// Lengths of record headers that files of the same magic number have, the usual one first: others are those of Red Hat 6.1 (24 bytes) and of
// Nokia's firewalls (20), and of SuSE 6.3 (28). Nothing but the records tells which it is.
var (
	records         = []int{16, 24, 20}
	recordsModified = []int{24, 28}
)

// vary finds out the length of the records' headers from b, the beginning of the records.
func (f *pcapFile) vary(b []byte) {
	lengths := records
	switch {
	case f.nanos == 1:
		return
	case f.record == recordsModified[0]:
		lengths = recordsModified
	}
	for i, n := range lengths {
		if count, ok := f.chain(b, n); ok && (i == 0 || count > 1) {
			f.record = n
			return
		}
	}
}

// chain follows the first records of b, as if their headers had n bytes. It returns how many there are, and whether they look like ones.
func (f *pcapFile) chain(b []byte, n int) (count int, ok bool) {
	const many, years = 8, 10 * 365 * 86400
	first := int64(0)
	for ; count < many && len(b) >= n; count++ {
		sec, frac, captured, length := int64(f.order.Uint32(b)), f.order.Uint32(b[4:]), f.order.Uint32(b[8:]), f.order.Uint32(b[12:])
		if f.swapped {
			captured, length = length, captured
		}
		if count == 0 {
			first = sec
		}
		if frac >= 1e6 || captured > length || length > longestRecord || sec-first > years || first-sec > years {
			return count, false
		}
		if b = b[n:]; uint64(captured) > uint64(len(b)) {
			return count + 1, true
		}
		b = b[captured:]
	}
	return count, true
}

// next reads one record.
func (f *pcapFile) next(w *window, p *Packet) error {
	h, err := w.take(f.record)
	if err != nil {
		return err
	}
	// Written out for both orders: an interface call for each field is what
	// would cost most here.
	var sec, frac, captured, length uint32
	if f.big {
		sec, frac = binary.BigEndian.Uint32(h), binary.BigEndian.Uint32(h[4:])
		captured, length = binary.BigEndian.Uint32(h[8:]), binary.BigEndian.Uint32(h[12:])
	} else {
		sec, frac = binary.LittleEndian.Uint32(h), binary.LittleEndian.Uint32(h[4:])
		captured, length = binary.LittleEndian.Uint32(h[8:]), binary.LittleEndian.Uint32(h[12:])
	}
	if f.swapped {
		captured, length = length, captured
	}
	if captured > longestRecord {
		return damage(fmt.Sprintf("a record claims %d bytes", captured))
	}
	p.Time = int64(sec)*1e9 + int64(frac)*f.nanos
	p.Length = int(max(length, captured))
	p.Link = f.link
	p.Interface = 0
	return takeFrame(w, p, int(captured), 0)
}

func (f *pcapFile) whole(w *window) bool {
	b := w.there()
	if len(b) < f.record {
		return false
	}
	at := 8
	if f.swapped {
		at = 12
	}
	captured := uint32(0)
	if f.big {
		captured = binary.BigEndian.Uint32(b[at:])
	} else {
		captured = binary.LittleEndian.Uint32(b[at:])
	}
	return uint64(captured) <= uint64(len(b)-f.record)
}

// takeFrame sets p.Data to the next captured bytes, or to their first maxFrame,
// and has the rest and after further bytes passed over.
func takeFrame(w *window, p *Packet, captured int, after int64) error {
	n := min(captured, maxFrame)
	b, err := w.take(n)
	if err != nil {
		return cut(err)
	}
	p.Data = b
	w.skipLater(int64(captured-n) + after)
	return nil
}
