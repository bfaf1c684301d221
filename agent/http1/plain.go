package http1

import "math/bits"

// maxPlain is how many of a head's field lines are kept while it is read, see Env.plain: several times what browsers send.
const maxPlain = 64

// A span is a field line in a head: its name up to the colon, its value up to the CR.
type span struct{ name, colon, end int32 }

// plain reads the field lines of a head as headEnd and headers do, in one pass over it, if every one is as nearly all senders
// write them: a name, a colon, CRLF; no CR elsewhere, no white space before the colon or the name. b begins
// behind the start line. It returns the length up to the end of the head; or 0, and h is as before, when a line is another one or
// the head does not end in b.
func (e *Env) plain(h *Message, b []byte) int {
	n, all, kept := e.split(b)
	if n == 0 {
		return 0
	}
	for i := range e.spans[:kept] {
		s := &e.spans[i]
		h.named(b[s.name:s.colon], b[s.colon+1:s.end], false, false)
	}
	h.fields, h.crlf = all, true
	h.conclude()
	return n
}

// split finds the end of a plain head, how many field lines it has, and, in e.spans, those that named may know.
func (e *Env) split(b []byte) (n, all, kept int) {
	start, colon := 0, -1 // of the line that is being read
	carry := uint64(0)    // whether the byte before the block is a CR
	for base := 0; base < len(b); base += 64 {
		var lf, cr, colons uint64
		if len(b)-base >= 64 {
			lf, cr, colons = marks((*[64]byte)(b[base:]))
		} else {
			var rest [64]byte
			copy(rest[:], b[base:])
			lf, cr, colons = marks(&rest)
		}
		odd := lf ^ (cr<<1 | carry) // a LF without CR, or what follows a CR and is none
		carry = cr >> 63
		for ; lf != 0; lf &= lf - 1 {
			i := bits.TrailingZeros64(lf)
			if odd&(1<<i<<1-1) != 0 {
				return 0, 0, 0
			}
			end := base + i - 1
			if end == start {
				return base + i + 1, all, kept
			}
			if colon < 0 {
				if colons&(1<<i-1) == 0 {
					return 0, 0, 0
				}
				colon = base + bits.TrailingZeros64(colons)
			}
			first, last := b[start], byte(0)
			if colon > start {
				last = b[colon-1]
			}
			if first == ' ' || first == '\t' || last == ' ' || last == '\t' || last == 0 {
				return 0, 0, 0
			}
			if all++; mayMatter(first, colon-start) {
				if kept == maxPlain {
					return 0, 0, 0
				}
				e.spans[kept] = span{int32(start), int32(colon), int32(end)}
				kept++
			}
			start, colon = base+i+1, -1
			colons &^= 1<<i<<1 - 1
		}
		if odd != 0 {
			return 0, 0, 0
		}
		if colon < 0 && colons != 0 {
			colon = base + bits.TrailingZeros64(colons)
		}
	}
	return 0, 0, 0
}

// mayMatter reports whether named may know a name of so many bytes that begins with c.
func mayMatter(c byte, length int) bool {
	switch {
	case length > 14 && length < 24:
		return c|0x20 == 'c' || c|0x20 == 't' || !isToken[c]
	case length == 14:
		return c|0x20 == 'c'
	case length == 10:
		return c|0x20 == 'u'
	case length == 6:
		return c|0x20 == 'e'
	}
	return length == 4 && c|0x20 == 'h'
}
