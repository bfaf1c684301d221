package store

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/httpctl/httpctl/pkg/bucket"
)

// Bounds of a HostRecord. Agents send in order, but for what they say is ahead of it,
// which makes one run more, so more than two runs of ordinals are rare, and a host with 8 incarnations whose buckets still arrive
// restarts every few minutes.
const (
	maxIncarnations = 8
	maxRuns         = 256
	maxDeclared     = 64
	maxHostName     = 1024
	// maxReorder: an agent sends oldest first, but for what it says is ahead, and has at most 64 buckets
	// under way, so one that is missing when 256 later ones have come in order was answered once.
	maxReorder = 256
)

// A HostRecord is a Host and what is needed to tell its coverage, kept by an
// engine for each host and updated with each bucket. The zero value, with an
// ID, is a host not seen yet. It is not safe for concurrent use.
//
// Ordinals are dense within an incarnation, so what it covers ends with the
// ClosedThrough of the highest ordinal below which none is missing. Four things
// fill a hole without its bucket: a declared unobserved span that reaches over
// it (the agent's spool was full), the sealed floor passing it (it can only
// expire), more than maxReorder later buckets, and, for an incarnation that began
// before the store did or before the sealed floor, everything before its first
// bucket to arrive (an agent sends oldest first, so those were acknowledged by an
// earlier store). Of the last two, buckets that came ahead of older ones say nothing.
//
// The host's coverage is that of the incarnation that reached furthest, but
// never beyond a hole that is known, of whichever: an agent whose clock was set
// back begins an incarnation before the one that it ends.
type HostRecord struct {
	Host
	incarnations []incarnation // by ObservedFrom
	declared     []bucket.Span // merged
}

type incarnation struct {
	id           bucket.ID
	observedFrom int64
	next         uint64 // all ordinals below have arrived, or are forgiven
	top          uint64 // highest ordinal + 1 of those that came in order
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
// stored is false for one that expired; ahead tells that older ones will follow it. floor is the later of the store's
// making and sealed, the sealed floor, both in nanoseconds.
func (r *HostRecord) Note(h *bucket.Header, stored, ahead bool, floor, sealed int64) {
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
	r.declared = bucket.MergeSpans(r.declared)
	if n := len(r.declared); n > maxDeclared {
		r.declared = slices.Clone(r.declared[n-maxDeclared:])
	}

	inc, added := r.incarnation(h)
	if inc == nil {
		return // older than all that are remembered
	}
	if !ahead && inc.top == 0 && h.ObservedFrom < floor {
		inc.next = max(inc.next, h.Ordinal)
	}
	if h.Ordinal >= inc.seen() {
		// One that is new and comes in order is older than the present one, if all that came of that was ahead.
		if h.Incarnation == r.Incarnation || added && (ahead || !r.onlyAhead()) {
			r.Name, r.LastOpen, r.Incarnation = h.HostName, h.Open, h.Incarnation
			if len(r.Name) > maxHostName {
				r.Name = r.Name[:maxHostName]
			}
		}
	}
	if !ahead && h.Ordinal >= inc.top && h.Ordinal < math.MaxUint64 {
		inc.top = h.Ordinal + 1
	}
	inc.insert(h)
	r.advance(sealed)
}

// seen is the highest ordinal that has arrived, + 1.
func (inc *incarnation) seen() uint64 {
	n := max(inc.top, inc.next)
	if len(inc.runs) > 0 {
		n = max(n, inc.runs[len(inc.runs)-1].to)
	}
	return n
}

// onlyAhead reports whether nothing of the present incarnation has come in order yet.
func (r *HostRecord) onlyAhead() bool {
	for i := range r.incarnations {
		if inc := &r.incarnations[i]; inc.id == r.Incarnation {
			return inc.top == 0
		}
	}
	return false
}

// advance moves every incarnation over the holes that are filled.
func (r *HostRecord) advance(sealed int64) {
	reached, hole := int64(0), int64(math.MaxInt64)
	for i := range r.incarnations {
		inc := &r.incarnations[i]
		for len(inc.runs) > 0 {
			first, from := inc.runs[0], max(inc.closed, inc.observedFrom)
			if first.from > inc.next && !r.overtaken(inc) && !r.forgiven(from, first.start, sealed) {
				hole = min(hole, from)
				break
			}
			inc.next = max(inc.next, first.to)
			inc.closed = max(inc.closed, first.closed)
			inc.runs = inc.runs[1:]
		}
		reached = max(reached, inc.closed)
	}
	r.CoveredThrough = max(r.CoveredThrough, min(reached, hole))
	r.current()
}

// current finds what the present incarnation has covered.
func (r *HostRecord) current() {
	r.CurrentThrough = 0
	for i := range r.incarnations {
		if inc := &r.incarnations[i]; inc.id == r.Incarnation {
			r.CurrentThrough = inc.closed
		}
	}
}

// overtaken reports whether so many later buckets have arrived that the first
// hole of an incarnation will not be filled any more.
func (r *HostRecord) overtaken(inc *incarnation) bool {
	if inc.top > inc.next && inc.top-inc.next > maxReorder {
		return true
	}
	for i := range r.incarnations {
		if n := &r.incarnations[i]; n.id == r.Incarnation && n.id != inc.id {
			return n.top > maxReorder
		}
	}
	return false
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

// incarnation returns the bucket's incarnation, and whether it was added now;
// nil when it is older than all those remembered.
func (r *HostRecord) incarnation(h *bucket.Header) (inc *incarnation, added bool) {
	for i := range r.incarnations {
		if r.incarnations[i].id == h.Incarnation {
			return &r.incarnations[i], false
		}
	}
	i := len(r.incarnations)
	for i > 0 && r.incarnations[i-1].observedFrom > h.ObservedFrom {
		i--
	}
	if len(r.incarnations) == maxIncarnations {
		if i == 0 {
			return nil, false
		}
		r.incarnations = slices.Delete(r.incarnations, 0, 1)
		i--
	}
	r.incarnations = slices.Insert(r.incarnations, i, incarnation{id: h.Incarnation, observedFrom: h.ObservedFrom})
	return &r.incarnations[i], true
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
	r.current()
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

// Restored makes r one of a store that was put back to an earlier state: what its incarnations delivered since is gone,
// and their ordinals will never be without a hole. Coverage goes on with the next bucket to arrive, as
// long as the store counts as made after that bucket's incarnation began (see Note).
func (r *HostRecord) Restored() { r.incarnations = nil; r.current() }
