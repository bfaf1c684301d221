package http1

import (
	"bytes"
	"math"

	"github.com/httpctl/httpctl/pkg/exchange"
)

// Kind tells requests from responses.
type Kind uint8

// The kinds of message. None is a direction of which nothing is known yet.
const (
	None Kind = iota
	Request
	Response
)

// Message is what one message head says. Its slices are borrowed: they are
// valid until the next call on any parser of the same [Env].
type Message struct {
	Kind Kind
	// Version is 11 for HTTP/1.1, 10 for 1.0, 9 for a message without version.
	Version uint8
	// Resynced says that the parser had lost its place before this message. AfterLoss says so of the first message, too.
	Resynced, AfterLoss bool
	// Partial says that a gap or the connection's end took the rest of the head: the start line is
	// whole, fields may be missing, and the message is Cut.
	Partial bool
	// Suspect holds the reasons that the head gives. Chunk framing can make a
	// request suspect later: see Parser.Suspect.
	Suspect exchange.Suspicion

	Method, Target []byte
	Status         int

	// Host is the first Host field's value, trimmed; Hosts how many there are.
	Host      []byte
	Hosts     int
	UserAgent []byte

	expects   bool   // has Expect
	coded     bool   // has Transfer-Encoding, other than identity alone
	identity  bool   // has it with identity alone, which leaves the body as it is (RFC 2616 section 3.6)
	chunked   bool   // whose last coding is chunked
	lengths   int    // number of Content-Length values
	length    uint64 // the first one
	badLength bool   // they differ or one is no number

	crlf, bareLF bool // line ends seen
	anyBare      bool
	odd          bool // read strictly, and bytes of the target or of values are none that may stand there
	badLines     bool
	fields       int
}

// IsSimple reports whether the message is of HTTP/0.9.
func (h *Message) IsSimple() bool { return h.Version == 9 }

// Interim reports whether the message is a 1xx response other than 101, which
// ends HTTP on its connection and is therefore final.
func (h *Message) Interim() bool {
	return h.Kind == Response && h.Status >= 100 && h.Status < 200 && h.Status != 101
}

// maxCRs is how many CRs a LF may follow to end a line. RFC 9112 section 2.2
// wants one and allows none; senders that write two are known.
const maxCRs = 4

// headEnd finds the end of a head: the empty line. It scans from offset from,
// which must not be past the first LF that could end it, and returns the
// length of the head, or -1 and where to resume when more bytes have come.
func headEnd(b []byte, from int) (end, resume int) {
	for {
		i := bytes.IndexByte(b[from:], '\n')
		if i < 0 {
			return -1, len(b)
		}
		i += from
		rest := b[i+1:]
		n := 0 // CRs of the empty line
		for n < len(rest) && n < maxCRs && rest[n] == '\r' {
			n++
		}
		switch {
		case n == len(rest):
			return -1, i
		case rest[n] == '\n':
			return i + n + 2, 0
		}
		from = i + 1
	}
}

// headers reads the field lines of a head; b starts after the start line and
// ends with the empty line. It returns false when strict is asked and a line
// is not a field line as RFC 9112 section 5 has it; of values it then says by h.odd what is wrong with their bytes.
func (h *Message) headers(b []byte, strict bool) bool {
	for len(b) > 0 {
		eol := bytes.IndexByte(b, '\n')
		if eol < 0 {
			eol = len(b) - 1
		}
		line := b[:eol]
		if n := len(line); n > 0 && line[n-1] == '\r' {
			line = line[:n-1]
			h.crlf = true
			for n := len(line); n > 0 && line[n-1] == '\r'; n-- {
				if strict {
					return false
				}
				line, h.anyBare = line[:n-1], true
			}
		} else {
			h.bareLF = true
		}
		if len(line) == 0 {
			b = b[eol+1:]
			continue
		}
		// A value goes on in the lines that begin with white space (obs-fold).
		next, folded := eol+1, false
		for next < len(b) && (b[next] == ' ' || b[next] == '\t') {
			i := bytes.IndexByte(b[next:], '\n')
			if i < 0 {
				i = len(b) - next - 1
			}
			next += i + 1
			line, folded = bytes.TrimRight(b[:next-1], "\r"), true
		}
		b = b[next:]
		if !h.field(line, folded, strict) {
			return false
		}
	}
	h.conclude()
	return true
}

// field reads one field line, without its line end.
func (h *Message) field(line []byte, folded, strict bool) bool {
	colon := bytes.IndexByte(line, ':')
	if colon <= 0 || line[0] == ' ' || line[0] == '\t' {
		h.badLines = true
		return !strict
	}
	name, value := line[:colon], line[colon+1:]
	if strict {
		for _, c := range name {
			if !isToken[c] {
				return false
			}
		}
		for _, c := range value {
			if c < ' ' && c != '\t' && !(folded && (c == '\r' || c == '\n')) || c == 0x7f {
				h.odd = true
				break
			}
		}
	}
	if !folded && bytes.IndexByte(line, '\r') >= 0 {
		h.anyBare = true
	}
	h.fields++
	spaced := false
	if c := name[len(name)-1]; c == ' ' || c == '\t' {
		name, spaced = bytes.TrimRight(name, " \t"), true
	}
	h.named(name, value, spaced, folded)
	return true
}

// named reads the value of a field that framing or statistics need; see also mayMatter. spaced says that white space followed its name, folded
// that it had several lines.
func (h *Message) named(name, value []byte, spaced, folded bool) {
	switch len(name) {
	case 4:
		if equalFold(name, "host") {
			if h.Hosts == 0 {
				h.Host = trim(value)
			}
			h.Hosts++
			return
		}
	case 6:
		if equalFold(name, "expect") {
			h.expects = true
			return
		}
	case 10:
		if equalFold(name, "user-agent") {
			if h.UserAgent == nil {
				h.UserAgent = trim(value)
			}
			return
		}
	case 14:
		if equalFold(name, "content-length") {
			h.framing(spaced, folded)
			h.contentLength(value)
			return
		}
	case 17:
		if equalFold(name, "transfer-encoding") {
			h.framing(spaced, folded)
			h.transferEncoding(value)
			return
		}
	}
	if len(name) > 14 && len(name) < 24 && disguised(name) {
		h.Suspect |= exchange.DisguisedName
	}
}

func (h *Message) framing(spaced, folded bool) {
	if spaced {
		h.Suspect |= exchange.SpaceBeforeColon
	}
	if folded {
		h.Suspect |= exchange.FoldedFraming
	}
}

// contentLength reads one Content-Length value, which may be a list of equal
// numbers (RFC 9112 section 6.3 rule 5).
func (h *Message) contentLength(value []byte) {
	for more := true; more; {
		var item []byte
		item, value, more = bytes.Cut(value, comma)
		n, ok := decimal(trim(item))
		switch {
		case !ok:
			h.badLength = true
			h.Suspect |= exchange.InvalidLength
		case h.lengths > 0 && n != h.length:
			h.badLength = true
			h.Suspect |= exchange.DifferingLengths
		}
		if h.lengths == 0 {
			h.length = n
		}
		h.lengths++
	}
}

var comma = []byte{','}

// decimal reads 1*DIGIT.
func decimal(b []byte) (n uint64, ok bool) {
	if len(b) == 0 {
		return 0, false
	}
	for _, c := range b {
		d := uint64(c - '0')
		if d > 9 || n > (math.MaxUint64-d)/10 {
			return 0, false
		}
		n = n*10 + d
	}
	return n, true
}

// transferEncoding reads one Transfer-Encoding value; repeated fields make one
// list (RFC 9110 section 5.3).
func (h *Message) transferEncoding(value []byte) {
	if !h.coded && equalFold(trim(value), "identity") {
		// No coding any more, so that there are servers which refuse it. For those that do not, it is none.
		h.identity = true
		h.Suspect |= exchange.UnknownCoding
		return
	}
	h.coded = true
	for more := true; more; {
		var item []byte
		item, value, more = bytes.Cut(value, comma)
		item = trim(item)
		switch {
		case len(item) == 0: // empty list elements are ignored (RFC 9110 section 5.6.1.2)
		case equalFold(item, "chunked"):
			if h.chunked {
				h.Suspect |= exchange.ChunkedTwice
			}
			h.chunked = true
		default:
			if h.chunked {
				h.Suspect |= exchange.ChunkedNotLast
			}
			h.chunked = false
			if name, _, _ := bytes.Cut(item, []byte{';'}); !isCoding(trim(name)) {
				h.Suspect |= exchange.UnknownCoding
			}
		}
	}
}

// isCoding reports whether b is a registered transfer coding besides chunked.
func isCoding(b []byte) bool {
	return equalFold(b, "gzip") || equalFold(b, "x-gzip") || equalFold(b, "deflate") ||
		equalFold(b, "compress") || equalFold(b, "x-compress")
}

// conclude adds the suspicions that need the whole head.
func (h *Message) conclude() {
	if h.crlf && h.bareLF {
		h.Suspect |= exchange.MixedLineEnds
	}
	if h.anyBare {
		h.Suspect |= exchange.BareCR
	}
	if h.lengths > 0 && (h.coded || h.identity) {
		h.Suspect |= exchange.LengthAndCoding
	}
	if !h.coded {
		return
	}
	if !h.chunked {
		h.Suspect |= exchange.ChunkedNotLast
	}
	if h.Version < 11 {
		h.Suspect |= exchange.CodingInOld
	}
}

// disguised reports whether name becomes a framing field's when the octets
// that no name may have are left out.
func disguised(name []byte) bool {
	var b [17]byte
	n, odd := 0, false
	for _, c := range name {
		if !isToken[c] {
			odd = true
			continue
		}
		if n == len(b) {
			return false
		}
		b[n] = c
		n++
	}
	return odd && (equalFold(b[:n], "transfer-encoding") || equalFold(b[:n], "content-length"))
}

// trim takes off white space, and line ends left inside by folding.
func trim(b []byte) []byte {
	for len(b) > 0 && isSpace(b[0]) {
		b = b[1:]
	}
	for len(b) > 0 && isSpace(b[len(b)-1]) {
		b = b[:len(b)-1]
	}
	return b
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

// equalFold reports whether b is lower, which is in lower case, in any case.
func equalFold(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}
