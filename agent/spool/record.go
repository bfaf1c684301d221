package spool

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"slices"
	"time"

	"github.com/httpctl/httpctl/pkg/bucket"
)

// The byte-level format of what is described here is in docs/formats.md.

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errDamaged says that a record fails its checksum.
var errDamaged = errors.New("checksum mismatch")

// entry is one closed bucket in the queue: the encoding, and what must be known of
// it without decoding it, should it have to be given up.
type entry struct {
	seq         uint64
	incarnation bucket.ID
	start       int64
	width       time.Duration
	part        uint32
	ordinal     uint64
	closed      int64         // closed_through
	dropped     uint64        // dropped buckets that it tells of
	unobserved  []bucket.Span // spans that it declares
	data        []byte        // borrowed when read from the file
}

const (
	entryVersion = 1
	// metaFixed is what precedes the spans: version, reserved, number of spans (2),
	// incarnation, start, width, part, ordinal, closed, dropped, CRC of data, length of data.
	metaFixed = 1 + 1 + 2 + 16 + 8 + 8 + 4 + 8 + 8 + 8 + 4 + 4
	spanSize  = 16
	crcSize   = 4
	// entryOverhead is what the file needs for an entry besides its value: key and page element.
	entryOverhead = 8 + 16
)

func key(seq uint64) []byte { return binary.BigEndian.AppendUint64(nil, seq) }

// encode returns the value of an entry: CRC over key and meta, meta, data.
func (e *entry) encode() []byte {
	size := crcSize + metaFixed + len(e.unobserved)*spanSize + len(e.data)
	b := make([]byte, crcSize, size)
	b = append(b, entryVersion, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(len(e.unobserved)))
	b = append(b, e.incarnation[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(e.start))
	b = binary.BigEndian.AppendUint64(b, uint64(e.width))
	b = binary.BigEndian.AppendUint32(b, e.part)
	b = binary.BigEndian.AppendUint64(b, e.ordinal)
	b = binary.BigEndian.AppendUint64(b, uint64(e.closed))
	b = binary.BigEndian.AppendUint64(b, e.dropped)
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(e.data, castagnoli))
	b = binary.BigEndian.AppendUint32(b, uint32(len(e.data)))
	b = appendSpans(b, e.unobserved)
	binary.BigEndian.PutUint32(b, metaSum(e.seq, b[crcSize:]))
	return append(b, e.data...)
}

func metaSum(seq uint64, meta []byte) uint32 {
	return crc32.Update(crc32.Checksum(key(seq), castagnoli), castagnoli, meta)
}

// decodeEntry reads a value. Meta and data have checksums of their own: with damaged data, err
// is errDamaged and e is complete but for data; with damaged meta, e is nil.
func decodeEntry(seq uint64, value []byte) (e *entry, err error) {
	if len(value) < crcSize+metaFixed {
		return nil, errDamaged
	}
	m := value[crcSize:]
	spans := int(binary.BigEndian.Uint16(m[2:]))
	end := metaFixed + spans*spanSize
	if len(m) < end || metaSum(seq, m[:end]) != binary.BigEndian.Uint32(value) || m[0] != entryVersion {
		return nil, errDamaged
	}
	e = &entry{
		seq:     seq,
		start:   int64(binary.BigEndian.Uint64(m[20:])),
		width:   time.Duration(binary.BigEndian.Uint64(m[28:])),
		part:    binary.BigEndian.Uint32(m[36:]),
		ordinal: binary.BigEndian.Uint64(m[40:]),
		closed:  int64(binary.BigEndian.Uint64(m[48:])),
		dropped: binary.BigEndian.Uint64(m[56:]),
	}
	copy(e.incarnation[:], m[4:])
	e.unobserved = readSpans(m[metaFixed:end])
	data := m[end:]
	if uint64(len(data)) != uint64(binary.BigEndian.Uint32(m[68:])) || crc32.Checksum(data, castagnoli) != binary.BigEndian.Uint32(m[64:]) {
		return e, errDamaged
	}
	e.data = data
	return e, nil
}

// span is the interval of the bucket.
func (e *entry) span() bucket.Span {
	return bucket.Span{From: e.start, To: e.start + int64(e.width)}
}

// State is what the next incarnation must know of this one.
type State struct {
	Incarnation bucket.ID
	// ClosedThrough is the time up to which buckets were closed and made durable (nanoseconds).
	ClosedThrough int64
	// Width of the intervals.
	Width time.Duration
}

const stateSize = crcSize + 16 + 8 + 8

func (s State) encode() []byte {
	b := make([]byte, crcSize, stateSize)
	b = append(b, s.Incarnation[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(s.ClosedThrough))
	b = binary.BigEndian.AppendUint64(b, uint64(s.Width))
	binary.BigEndian.PutUint32(b, crc32.Checksum(b[crcSize:], castagnoli))
	return b
}

func decodeState(b []byte) (s State, err error) {
	if len(b) != stateSize || crc32.Checksum(b[crcSize:], castagnoli) != binary.BigEndian.Uint32(b) {
		return s, errDamaged
	}
	copy(s.Incarnation[:], b[crcSize:])
	s.ClosedThrough = int64(binary.BigEndian.Uint64(b[20:]))
	s.Width = time.Duration(binary.BigEndian.Uint64(b[28:]))
	return s, nil
}

// declaration is what the next bucket has to tell of buckets that were given up.
type declaration struct {
	spans   []bucket.Span // merged
	dropped uint64
}

func (d declaration) encode() []byte {
	b := make([]byte, crcSize, crcSize+8+len(d.spans)*spanSize)
	b = binary.BigEndian.AppendUint64(b, d.dropped)
	b = appendSpans(b, d.spans)
	binary.BigEndian.PutUint32(b, crc32.Checksum(b[crcSize:], castagnoli))
	return b
}

func decodeDeclaration(b []byte) (d declaration, err error) {
	if len(b) < crcSize+8 || (len(b)-crcSize-8)%spanSize != 0 || crc32.Checksum(b[crcSize:], castagnoli) != binary.BigEndian.Uint32(b) {
		return d, errDamaged
	}
	return declaration{spans: readSpans(b[crcSize+8:]), dropped: binary.BigEndian.Uint64(b[crcSize:])}, nil
}

// with returns d with a given-up entry added.
func (d declaration) with(e *entry) declaration {
	spans := append(slices.Clone(d.spans), e.span())
	return declaration{spans: mergeSpans(append(spans, e.unobserved...)), dropped: d.dropped + 1 + e.dropped}
}

func appendSpans(b []byte, spans []bucket.Span) []byte {
	for _, s := range spans {
		b = binary.BigEndian.AppendUint64(b, uint64(s.From))
		b = binary.BigEndian.AppendUint64(b, uint64(s.To))
	}
	return b
}

func readSpans(b []byte) []bucket.Span {
	var spans []bucket.Span
	for ; len(b) >= spanSize; b = b[spanSize:] {
		spans = append(spans, bucket.Span{From: int64(binary.BigEndian.Uint64(b)), To: int64(binary.BigEndian.Uint64(b[8:]))})
	}
	return spans
}

// maxSpans bounds what one bucket declares. Spans beyond it are joined across the smallest gaps
// between them, which declares more than was lost and never less.
const maxSpans = 64

// mergeSpans joins the spans that touch, and more if they are too many. It reuses spans.
func mergeSpans(spans []bucket.Span) []bucket.Span {
	out := bucket.MergeSpans(spans)
	for len(out) > maxSpans {
		best := 1
		for i := 2; i < len(out); i++ {
			if out[i].From-out[i-1].To < out[best].From-out[best-1].To {
				best = i
			}
		}
		out[best-1].To = out[best].To
		out = slices.Delete(out, best, best+1)
	}
	return out
}
