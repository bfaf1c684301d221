package http1

import (
	"bytes"
	"math"

	"github.com/httpctl/httpctl/pkg/exchange"
)

const (
	malformed      = exchange.Malformed
	resyncs        = exchange.Resyncs
	oversizedHeads = exchange.OversizedHeads
	evictedBytes   = exchange.EvictedBytes
)

// frameRequest decides where the body of a request ends (RFC 9112 section 6.3).
func (p *Parser) frameRequest(h *Message) {
	p.suspect(h.Suspect)
	p.expects = h.expects
	switch {
	case h.coded && h.chunked:
		p.state = atSize
	case h.coded, h.badLength:
		// Rule 4 and 5: the server answers 400 and closes. How much follows is
		// not known.
		p.env.count[malformed]++
		p.state = atCut
	case h.lengths > 0 && h.length > 0:
		p.state, p.rem = inBody, h.length
	default:
		p.state = atEnd
	}
}

// Answer gives the method of the request that the response just found answers,
// "" if it is not known (a body is then taken as absent when the next response
// stands in its place). It decides where the response ends (RFC 9112 section
// 6.3). The message must be the one that Env.Message still holds.
func (p *Parser) Answer(method string) {
	if p.state != atAnswer {
		return
	}
	h := &p.env.Message
	switch {
	case h.Partial:
		p.state = atCut
	case h.IsSimple():
		p.state = inRest
	case method == "HEAD", h.Status < 200, h.Status == 204, h.Status == 304,
		method == "CONNECT" && h.Status < 300:
		p.state = atEnd
	case h.coded && h.chunked:
		p.state = atSize
	case h.coded:
		p.state = inRest
	case h.badLength:
		// Rule 5: an unrecoverable error.
		p.env.count[malformed]++
		p.state = atCut
	case h.lengths > 0 && h.length == 0:
		p.state = atEnd
	case h.lengths > 0:
		p.state, p.rem = inBody, h.length
	default:
		p.state = inRest
	}
	p.passedBy = false
	p.unsure = method == "" && p.state != atEnd && p.state != atCut && !h.IsSimple()
}

// suspect counts the current request as ambiguous, once for each reason.
func (p *Parser) suspect(why exchange.Suspicion) {
	if p.kind == Request {
		p.env.count.Suspect(why, p.suspected)
		p.suspected |= why
	}
}

// chunked reads chunked framing (RFC 9112 section 7.1).
func (p *Parser) chunked(data []byte) (int, Event) {
	for i := 0; i < len(data); {
		c := data[i]
		switch p.state {
		case atSize:
			d, ok := hexDigit(c)
			if !ok {
				return p.broken(i, len(data))
			}
			p.rem, p.state = d, inSize
		case inSize:
			d, ok := hexDigit(c)
			switch {
			case ok && p.rem > math.MaxUint64>>4:
				return p.broken(i, len(data)) // over 64 bits
			case ok:
				p.rem = p.rem<<4 | d
			case c == '\r':
				p.state = atSizeLF
			case c == '\n':
				p.suspect(exchange.ChunkFraming)
				p.sized()
			case c == ';', c == ' ', c == '\t':
				p.state = inExtension
			default:
				return p.broken(i, len(data))
			}
		case inExtension:
			// Nothing in an extension matters but its end.
			n := bytes.IndexAny(data[i:], "\r\n")
			if n < 0 {
				p.wire += uint64(len(data) - i)
				return len(data), Nothing
			}
			p.wire += uint64(n)
			i += n
			if data[i] == '\n' {
				p.suspect(exchange.ChunkFraming)
				p.sized()
			} else {
				p.state = atSizeLF
			}
		case atSizeLF:
			if c != '\n' {
				return p.broken(i, len(data))
			}
			p.sized()
		case inChunk:
			n := min(uint64(len(data)-i), p.rem)
			p.take(n)
			if p.rem -= n; p.rem == 0 {
				p.state = afterChunk
			}
			i += int(n)
			continue
		case afterChunk:
			switch c {
			case '\r':
				p.state = afterChunkLF
			case '\n':
				p.suspect(exchange.ChunkFraming)
				p.state = atSize
			default:
				return p.broken(i, len(data))
			}
		case afterChunkLF:
			if c != '\n' {
				return p.broken(i, len(data))
			}
			p.state = atSize
		case atTrailer:
			switch c {
			case '\r':
				p.state = atTrailerLF
			case '\n':
				p.wire++
				p.state = atStart
				return i + 1, End
			default:
				p.state = inTrailer
			}
		case inTrailer:
			n := bytes.IndexByte(data[i:], '\n')
			if n < 0 {
				p.wire += uint64(len(data) - i)
				return len(data), Nothing
			}
			p.wire += uint64(n)
			i += n
			p.state = atTrailer
		case atTrailerLF:
			if c != '\n' {
				return p.broken(i, len(data))
			}
			p.wire++
			p.state = atStart
			return i + 1, End
		}
		p.wire++
		i++
	}
	return len(data), Nothing
}

// sized is called at the end of a chunk-size line.
func (p *Parser) sized() {
	if p.rem == 0 {
		p.state = atTrailer
	} else {
		p.state = inChunk
	}
}

// broken gives up a message whose chunk framing is wrong at data[i]; n is the
// length of data.
func (p *Parser) broken(i, n int) (int, Event) {
	p.env.count[malformed]++
	p.suspect(exchange.ChunkFraming)
	p.skipped += uint64(n - i)
	p.state, p.lost, p.edge = atStart, true, false
	return n, Cut
}

// salvage reads the held part of a head whose rest is lost: its start line is
// whole, and so are some of its fields. It is what remains of most heads in a
// capture with a short snaplen.
func (p *Parser) salvage() bool {
	h, b := &p.env.Message, p.buf
	strict := p.lost || p.first && !p.whole
	v, _, n := startLine(b, h, strict)
	if v != isRequest && v != isResponse {
		return false
	}
	end := bytes.LastIndexByte(b, '\n') + 1
	if !h.headers(b[n:end], false) || strict && h.badLines {
		return false
	}
	if strict && h.fields == 0 {
		// The beginning of a field will do.
		name, _, _ := bytes.Cut(b[end:], []byte{':'})
		if len(name) == 0 {
			return false
		}
		for _, c := range name {
			if !isToken[c] {
				return false
			}
		}
	}
	h.Partial = true
	p.recognise(h)
	p.wire = uint64(len(b))
	p.stale = true
	if h.Kind == Response {
		p.state = atAnswer
	} else {
		// What is lost may name chunked.
		p.suspect(h.Suspect &^ exchange.ChunkedNotLast)
		p.state = atCut
	}
	return true
}

// Peek puts into Env.Message what is there of a request whose head has not ended; reading it goes on. It
// reports whether there is enough: the start line.
func (p *Parser) Peek() bool {
	if !p.Begun() || p.stale || p.peeked != unread {
		return false
	}
	h, b := &p.env.Message, p.buf
	strict := p.lost || p.first && !p.whole
	v, _, n := startLine(b, h, strict)
	end := bytes.LastIndexByte(b, '\n') + 1
	h.Partial = true
	// In the other cases it is not read again for each response, until there is more of it or at all.
	switch {
	case v != isRequest || !h.headers(b[n:end], strict) || h.odd:
		p.peeked = unfit
	case strict && h.fields == 0:
		p.peeked = tooShort
	default:
		return true
	}
	return false
}

// salvageStatus reads the held beginning of a response whose direction has
// ended: the server has closed within a head, or ends its lines as nobody else.
func (p *Parser) salvageStatus() bool {
	if p.kind != Response || len(p.buf) == 0 || p.stale {
		return false
	}
	h, b := &p.env.Message, p.buf
	if bytes.IndexByte(b, '\n') < 0 {
		b = append(b[:len(b):len(b)], '\n')
	}
	v, _, n := startLine(b, h, false)
	if v != isResponse {
		v, n = looseStatusLine(b, h)
	}
	if v != isResponse {
		return false
	}
	h.headers(b[n:bytes.LastIndexByte(b, '\n')+1], false)
	h.Partial = true
	p.env.count[malformed]++
	p.recognise(h)
	p.wire = uint64(len(p.buf))
	p.stale = true
	p.state = atAnswer
	return true
}

// Gap passes over n bytes that were not captured. Like Next it returns how many
// it took and must be called again with the rest until it returns Nothing.
func (p *Parser) Gap(n uint64, at At) (uint64, Event) {
	if p.stale {
		p.drop()
	}
	if p.evicted {
		p.evicted = false
		return 0, Missed
	}
	if n == 0 {
		return 0, Nothing
	}
	if p.unsure {
		if p.unsure = false; p.passedBy {
			p.state = atStart
			return 0, End
		}
	}
	switch p.state {
	case atStart:
		if p.lined && p.salvage() {
			return 0, Head
		}
		p.skipped += uint64(len(p.buf))
		p.drop()
		p.lost, p.first, p.simple = true, false, false
		return n, Missed
	case atEnd, atAnswer, atCut:
		_, ev := p.Next(nil, at)
		return 0, ev
	case inBody:
		t := min(n, p.rem)
		p.take(t)
		if p.rem -= t; p.rem == 0 {
			p.state = atStart
			return t, End
		}
		return t, Nothing
	case inRest:
		p.take(n)
		return n, Nothing
	case inPrefix:
		t := min(n, p.rem)
		if p.rem -= t; p.rem == 0 {
			p.state = atStart
		}
		if t == n {
			return t, Nothing
		}
		m, ev := p.Gap(n-t, at)
		return t + m, ev
	case inChunk:
		if t := min(n, p.rem); t > 0 {
			p.take(t)
			n -= t
			if p.rem -= t; p.rem == 0 {
				p.state = afterChunk
			}
			// The CRLF after the data is known even when it was not seen.
			if p.rem > 0 || n == 0 {
				return t, Nothing
			}
			if n <= 2 {
				p.wire += n
				p.state = afterChunkLF
				if n == 2 {
					p.state = atSize
				}
				return t + n, Nothing
			}
			n += t
		}
	case afterChunk:
		if n <= 2 {
			p.wire += n
			p.state = afterChunkLF
			if n == 2 {
				p.state = atSize
			}
			return n, Nothing
		}
	case afterChunkLF:
		if n == 1 {
			p.wire++
			p.state = atSize
			return n, Nothing
		}
	case atSizeLF:
		if n == 1 {
			p.wire++
			p.sized()
			return n, Nothing
		}
	}
	p.state, p.lost = atStart, true
	return n, Cut
}

// Finish says that the direction has ended in order (FIN). It returns End for
// a message that lasts until then, Cut for one that is not complete, Missed
// for a head that is not, and Nothing between messages. It returns Head for a
// response whose status can be read although its head did not end, and must be
// called again then, after Answer.
func (p *Parser) Finish() Event {
	if p.unsure && p.passedBy {
		p.state = atEnd
	}
	p.unsure = false
	if p.evicted {
		p.evicted = false
		return Missed
	}
	if p.state == atStart && p.salvageStatus() {
		return Head
	}
	held := len(p.buf) > 0 && !p.stale
	if held {
		p.skipped += uint64(len(p.buf))
	}
	p.drop()
	s := p.state
	p.state = atStart
	switch s {
	case atStart, inPrefix:
		if held && !p.fresh {
			p.lost = true
			return Missed
		}
		return Nothing
	case inRest, atEnd:
		return End
	}
	p.lost = true
	return Cut
}

func hexDigit(c byte) (uint64, bool) {
	switch {
	case '0' <= c && c <= '9':
		return uint64(c - '0'), true
	case 'a' <= c && c <= 'f':
		return uint64(c-'a') + 10, true
	case 'A' <= c && c <= 'F':
		return uint64(c-'A') + 10, true
	}
	return 0, false
}
