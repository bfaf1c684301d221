package store

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/httpctl/httpctl/pkg/bucket"
)

// Bounds of a HostRecord. Agents send in order, so more than one run of
// ordinals is rare, and a host with 8 incarnations whose buckets still arrive
// restarts every few minutes.
const (
	maxIncarnations = 8
	maxRuns         = 256
	maxDeclared     = 64
	maxHostName     = 1024
)

// A HostRecord is a Host and what is needed to tell its coverage, kept by an
// engine for each host and updated with each bucket. The zero value, with an
// ID, is a host not seen yet. It is not safe for concurrent use.
//
// Ordinals are dense within an incarnation, so coverage is the ClosedThrough
// of the highest ordinal below which none is missing. Three things fill a hole
// without its bucket: a declared unobserved span that reaches over it (the
// agent's spool was full), the sealed floor passing it (it can only expire),
// and, for an incarnation that began before the store did or before the
// sealed floor, everything before its first bucket to arrive (an agent sends
// oldest first, so those were acknowledged by an earlier store). While an
// earlier incarnation has a hole that is known, coverage rests too.
type HostRecord struct {
	Host
	incarnations []incarnation // by ObservedFrom
	declared     []bucket.Span // merged
}

type incarnation struct {
	id           bucket.ID
	observedFrom int64
	next         uint64 // all ordinals below have arrived, or are forgiven
	top          uint64 // highest ordinal seen + 1
	closed       int64  // ClosedThrough of ordinal next-1; 0 if there is none
	runs         []run  // arrived beyond a hole, sorted, apart
}

// run is ordinals [from, to) that arrived beyond a hole.
type run struct {
	from, to uint64
	start    int64 // of the interval of ordinal from
	closed   int64 // ClosedThrough of ordinal to-1
}

// Note enters a final bucket of the host; entering one twice is harmless.
// stored is false for one that expired. floor is the later of the store's
// making and sealed, the sealed floor, both in nanoseconds.
func (r *HostRecord) Note(h *bucket.Header, stored bool, floor, sealed int64) {
	if stored {
		if r.FirstStart == 0 || h.Start < r.FirstStart {
			r.FirstStart = h.Start
		}
		r.LastEnd = max(r.LastEnd, h.End())
	}
	for _, u := range h.Unobserved {
		if u.From < u.To {
			r.declared = append(r.declared, u)
		}
	}
	r.declared = MergeSpans(r.declared)
	if n := len(r.declared); n > maxDeclared {
		r.declared = slices.Clone(r.declared[n-maxDeclared:])
	}

	inc := r.incarnation(h, floor)
	if inc == nil {
		return // older than all that are remembered
	}
	newest := inc == &r.incarnations[len(r.incarnations)-1]
	if h.Ordinal >= inc.top {
		if newest {
			r.Name, r.LastOpen, r.Incarnation = h.HostName, h.Open, h.Incarnation
			if len(r.Name) > maxHostName {
				r.Name = r.Name[:maxHostName]
			}
		}
		if h.Ordinal < math.MaxUint64 {
			inc.top = h.Ordinal + 1
		}
	}
	inc.insert(h)
	r.advance(sealed)
}

// advance moves every incarnation over the holes that are filled.
func (r *HostRecord) advance(sealed int64) {
	held := false
	for i := range r.incarnations {
		inc := &r.incarnations[i]
		for len(inc.runs) > 0 {
			first := inc.runs[0]
			if first.from > inc.next && !r.forgiven(max(inc.closed, inc.observedFrom), first.start, sealed) {
				break
			}
			inc.next = max(inc.next, first.to)
			inc.closed = max(inc.closed, first.closed)
			inc.runs = inc.runs[1:]
		}
		if i == len(r.incarnations)-1 && !held {
			r.CoveredThrough = max(r.CoveredThrough, inc.closed)
		}
		held = held || len(inc.runs) > 0
	}
}

// forgiven reports whether a hole between a closed time and the start of the
// next interval that arrived needs no bucket to be accounted for.
func (r *HostRecord) forgiven(from, to, sealed int64) bool {
	if to <= sealed {
		return true
	}
	for _, d := range r.declared {
		// from >= to: only late parts of intervals before it are missing.
		if d.From <= from && (d.To >= to || from >= to) {
			return true
		}
	}
	return false
}

// incarnation returns the bucket's incarnation, made if need be; nil when it
// is older than all those remembered.
func (r *HostRecord) incarnation(h *bucket.Header, floor int64) *incarnation {
	for i := range r.incarnations {
		if r.incarnations[i].id == h.Incarnation {
			return &r.incarnations[i]
		}
	}
	i := len(r.incarnations)
	for i > 0 && r.incarnations[i-1].observedFrom > h.ObservedFrom {
		i--
	}
	if len(r.incarnations) == maxIncarnations {
		if i == 0 {
			return nil
		}
		r.incarnations = slices.Delete(r.incarnations, 0, 1)
		i--
	}
	inc := incarnation{id: h.Incarnation, observedFrom: h.ObservedFrom}
	if h.ObservedFrom < floor {
		inc.next = h.Ordinal
	}
	r.incarnations = slices.Insert(r.incarnations, i, inc)
	return &r.incarnations[i]
}

func (inc *incarnation) insert(h *bucket.Header) {
	n := h.Ordinal
	if n < inc.next || n == math.MaxUint64 {
		return
	}
	i := 0
	for i < len(inc.runs) && inc.runs[i].to < n {
		i++
	}
	if i == len(inc.runs) || n+1 < inc.runs[i].from { // touches none
		if len(inc.runs) < maxRuns {
			inc.runs = slices.Insert(inc.runs, i, run{n, n + 1, h.Start, h.ClosedThrough})
		}
		return
	}
	r := &inc.runs[i]
	switch {
	case n >= r.from && n < r.to:
		return
	case n+1 == r.from:
		r.from, r.start = n, h.Start
	default: // n == r.to
		r.to, r.closed = n+1, max(r.closed, h.ClosedThrough)
		if i+1 < len(inc.runs) && inc.runs[i+1].from == r.to {
			r.to, r.closed = inc.runs[i+1].to, max(r.closed, inc.runs[i+1].closed)
			inc.runs = slices.Delete(inc.runs, i+1, i+2)
		}
	}
}

// recordVersion is the first byte of an encoded HostRecord.
const recordVersion = 1

// AppendBinary appends the encoding of r, described in docs/formats.md.
func (r *HostRecord) AppendBinary(b []byte) ([]byte, error) {
	b = append(b, recordVersion)
	b = append(b, r.ID[:]...)
	b = append(b, r.Incarnation[:]...)
	b = binary.AppendUvarint(b, uint64(len(r.Name)))
	b = append(b, r.Name...)
	b = binary.AppendVarint(b, r.FirstStart)
	b = binary.AppendVarint(b, r.LastEnd)
	b = binary.AppendVarint(b, r.CoveredThrough)
	b = binary.AppendUvarint(b, r.LastOpen)
	b = binary.AppendUvarint(b, uint64(len(r.declared)))
	for _, d := range r.declared {
		b = binary.AppendVarint(b, d.From)
		b = binary.AppendVarint(b, d.To)
	}
	b = binary.AppendUvarint(b, uint64(len(r.incarnations)))
	for i := range r.incarnations {
		inc := &r.incarnations[i]
		b = append(b, inc.id[:]...)
		b = binary.AppendVarint(b, inc.observedFrom)
		b = binary.AppendUvarint(b, inc.next)
		b = binary.AppendUvarint(b, inc.top)
		b = binary.AppendVarint(b, inc.closed)
		b = binary.AppendUvarint(b, uint64(len(inc.runs)))
		for _, n := range inc.runs {
			b = binary.AppendUvarint(b, n.from)
			b = binary.AppendUvarint(b, n.to)
			b = binary.AppendVarint(b, n.start)
			b = binary.AppendVarint(b, n.closed)
		}
	}
	return b, nil
}

// UnmarshalBinary reads what AppendBinary wrote. Its error wraps ErrCorrupt.
func (r *HostRecord) UnmarshalBinary(data []byte) error {
	d := recordReader{b: data}
	*r = HostRecord{}
	if v := d.take(1); len(v) == 1 && v[0] != recordVersion {
		return fmt.Errorf("host record of version %d, this program knows %d: %w", v[0], recordVersion, ErrVersion)
	}
	copy(r.ID[:], d.take(16))
	copy(r.Incarnation[:], d.take(16))
	r.Name = string(d.take(d.count(maxHostName)))
	r.FirstStart, r.LastEnd, r.CoveredThrough, r.LastOpen = d.varint(), d.varint(), d.varint(), d.uvarint()
	for range d.count(maxDeclared) {
		r.declared = append(r.declared, bucket.Span{From: d.varint(), To: d.varint()})
	}
	for range d.count(maxIncarnations) {
		var inc incarnation
		copy(inc.id[:], d.take(16))
		inc.observedFrom, inc.next, inc.top, inc.closed = d.varint(), d.uvarint(), d.uvarint(), d.varint()
		for range d.count(maxRuns) {
			inc.runs = append(inc.runs, run{d.uvarint(), d.uvarint(), d.varint(), d.varint()})
		}
		r.incarnations = append(r.incarnations, inc)
	}
	if d.bad || len(d.b) != 0 {
		return fmt.Errorf("host record of %d bytes cannot be read: %w", len(data), ErrCorrupt)
	}
	return nil
}

// recordReader reads fields until one is bad; then all are zero.
type recordReader struct {
	b   []byte
	bad bool
}

func (d *recordReader) take(n int) []byte {
	if d.bad || n > len(d.b) {
		d.bad = true
		return nil
	}
	v := d.b[:n]
	d.b = d.b[n:]
	return v
}

func (d *recordReader) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.bad = true
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *recordReader) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.bad = true
		return 0
	}
	d.b = d.b[n:]
	return v
}

// count reads a length that must not exceed limit.
func (d *recordReader) count(limit int) int {
	v := d.uvarint()
	if v > uint64(limit) {
		d.bad = true
		return 0
	}
	return int(v)
}
