package http1

import (
	"bytes"

	"github.com/httpctl/httpctl/pkg/exchange"
)

// begin looks for a message start at data, or goes on collecting a head that
// began in an earlier stretch.
func (p *Parser) begin(data []byte, at At) (int, Event) {
	if len(data) == 0 {
		return 0, Nothing
	}
	edge := p.edge
	p.edge = false
	if len(p.buf) > 0 {
		return p.collect(data, at, edge)
	}
	if p.lost && !(edge && p.may) {
		p.skipped += uint64(len(data))
		return len(data), Nothing
	}
	return p.try(data, 0, at)
}

// collect adds data to the held beginning of a head.
func (p *Parser) collect(data []byte, at At, edge bool) (int, Event) {
	old := len(p.buf)
	if (p.lost || p.fresh && !p.whole) && edge && !p.lined && p.opens(data) {
		// What is held was the end of something that was lost.
		p.skipped += uint64(old)
		p.drop()
		return p.try(data, 0, at)
	}
	add := min(len(data), p.env.maxHead+1-old)
	p.hold(data[:add])
	if len(p.buf) == 0 { // no memory for it
		p.skipped += uint64(len(data))
		return len(data), Missed
	}
	if p.lined {
		end, resume := headEnd(p.buf, p.scan)
		if end < 0 && len(p.buf) <= p.env.maxHead {
			p.scan = resume
			return len(data), Nothing
		}
	} else if old > 128 {
		// The beginning was judged when it was short; the next verdict comes
		// with the end of the line.
		i := bytes.IndexByte(p.buf[p.scan:], '\n')
		if i < 0 && len(p.buf) <= p.env.maxHead {
			p.scan = len(p.buf)
			return len(data), Nothing
		}
		p.scan = 0
	}
	n, ev := p.try(p.buf, old, at)
	if ev == Nothing && len(p.buf) == 0 && p.state == atStart && edge && p.may && n == len(data) && p.lost {
		// What was held was no message after all; data may begin one.
		p.skipped -= uint64(len(data))
		return p.try(data, 0, at)
	}
	return n, ev
}

// try judges b, which begins where a message may start. The first old bytes of
// b were held from earlier stretches: b is p.buf if old is not 0. It returns
// how many bytes after those it took.
func (p *Parser) try(b []byte, old int, at At) (int, Event) {
	all := len(b) - old
	i := 0 // where the candidate begins in b
	for p.fresh && p.kind != Response && !p.lined {
		v, proto, skip := sniff(b[i:])
		switch v {
		case isForeign:
			p.proto = proto
			p.drop()
			return all, Other
		case isMore:
			return all, p.wait(b[i:], old, at)
		case isPrefix:
			p.first = false
			if left := len(b) - i; skip >= left {
				p.drop()
				if p.rem = uint64(skip - left); p.rem > 0 {
					p.state = inPrefix
				}
				return all, Nothing
			}
			i += skip
			continue
		}
		if n := blank(b[i:]); n > 0 {
			i += n
			if i == len(b) {
				p.drop()
				return all, Nothing
			}
			continue
		}
		break
	}
	if n := empty(b[i:]); n > 0 {
		if i += n; i == len(b) {
			p.drop()
			return all, Nothing
		}
	}
	if i > 0 || old == 0 {
		p.start = at
	}
	b = b[i:]
	h := &p.env.Message
	strict := p.lost || p.first && !p.whole
	v, proto, n := startLineOdd(b, h, strict)
	if v == isRequest && h.odd && !h.asks() {
		v = isNot
	}
	if v != isMore && v != isResponse && p.kind == Response && !strict {
		v, n = looseStatusLine(b, h)
	}
	if p.simple && v != isResponse && !(v == isMore && (b[0] == 'H' || b[0] == 'I')) {
		*h = Message{Kind: Response, Version: 9}
		p.found()
		p.wire, p.body = uint64(old), uint64(old)
		p.state = atAnswer
		p.drop()
		return 0, Head
	}
	if p.kind == Response && v == isMore && b[0] != 'H' && b[0] != 'I' {
		return all, p.miss(len(b))
	}
	switch {
	case v == isMore:
		return all, p.wait(b, old, at)
	case v == isForeign && p.fresh:
		p.proto = proto
		p.drop()
		return all, Other
	case v == isBare && p.first && p.whole && p.kind != Response:
		strict = true // its fields must show that this is HTTP
	case v == isSimple && p.first && p.whole && p.kind != Response:
		p.found()
		p.wire = uint64(n)
		p.state = atEnd
		p.stale = old > 0
		return all, Head
	case v == isRequest && p.kind != Response, v == isResponse && p.kind != Request:
	default:
		line, _, _ := bytes.Cut(b, lineFeed)
		if !p.lost && !(p.first && !p.whole) && isToken[b[0]] && bytes.Contains(line, []byte("HTTP/1.")) {
			p.env.count[malformed]++
		}
		return all, p.miss(len(b))
	}

	end := 0
	if old == 0 && !strict {
		end = p.env.plain(h, b[n:])
	}
	read := end > 0
	if read {
		end += n
	} else {
		var resume int
		if end, resume = headEnd(b, max(p.scan, n-1)); end < 0 {
			p.lined, p.scan = true, resume
			return all, p.wait(b, old, at)
		}
	}
	if end > p.env.maxHead {
		return all, p.oversized(len(b))
	}
	// A line alone is not enough where anything may stand.
	bare := h.Kind == Request && p.lost || v == isBare
	if !read && !h.headers(b[n:end], strict) || bare && h.fields == 0 || h.odd && !h.sure() {
		if !p.lost {
			p.env.count[malformed]++
		}
		return all, p.miss(len(b))
	}
	if strict && !h.leads(b[end:]) {
		return all, p.miss(len(b))
	}
	p.recognise(h)
	p.wire = uint64(end)
	p.stale = old > 0
	if h.Kind == Response {
		p.state = atAnswer
	} else {
		p.frameRequest(h)
	}
	return i + end - old, Head
}

// asks reports whether a request line whose target has bytes that none may have is more than
// words of a text: it has a method that is known, and what begins as a path or a URI.
func (h *Message) asks() bool {
	t := h.Target
	return h.crlf && bytes.IndexByte(t, '\r') < 0 && (t[0] == '/' || len(t) > 4 && equalFold(t[:4], "http")) &&
		exchange.MethodAttribute(string(h.Method)) != exchange.Other
}

// sure reports whether a head with bytes that none may have is a request all the same, although anything may stand
// here: it is right to its last line but for them, and names a host. What attackers send is so, and of
// text only what quotes a whole request, which is taken for one without such bytes, too.
func (h *Message) sure() bool {
	return h.Kind == Request && h.Hosts > 0 && !h.bareLF && !h.anyBare && h.asks()
}

// leads reports whether rest, the bytes behind a head that was found where anything may stand, can follow
// it: its body, and then nothing or the next message of its kind. Text that has messages of both kinds has not.
func (h *Message) leads(rest []byte) bool {
	n := uint64(0)
	switch {
	case h.Kind == Request && string(h.Method) == "CONNECT", h.coded, h.badLength, len(rest) == 0:
		return true // nobody knows: chunks may be framed wrong on purpose
	case h.Kind == Response && (h.Status == 101 || h.lengths == 0 && h.Status >= 200 && h.Status != 204 && h.Status != 304):
		return true // to the end, or another protocol
	case h.Kind == Response && h.precedes(rest):
		return true // it has no body, whatever it announces
	case h.Kind == Request || h.Status >= 200 && h.Status != 204 && h.Status != 304:
		n = h.length
	}
	return n >= uint64(len(rest)) || h.precedes(rest[n:])
}

// precedes reports whether b begins with a message of the kind of h, as far as it goes.
func (h *Message) precedes(b []byte) bool {
	if b = b[empty(b):]; len(b) == 0 {
		return true
	}
	var next Message
	v, _, _ := startLine(b, &next, false)
	return v == isMore || v != isNot && v != isForeign && (v == isResponse) == (h.Kind == Response)
}

// opens reports whether b begins as only a message does: with a method that is
// known, or a status line.
func (p *Parser) opens(b []byte) bool {
	if i := bytes.IndexByte(b[:min(len(b), maxMethod)], ' '); i > 0 && exchange.MethodAttribute(string(b[:i])) != exchange.Other {
		return true
	}
	v, _, _ := statusLine(b, &p.env.Message, true)
	return v == isResponse
}

// empty returns the length of the empty lines that may stand before a message (RFC 9112
// section 2.2).
func empty(b []byte) int {
	for i, c := range b {
		if c != '\r' && c != '\n' {
			return i
		}
	}
	return len(b)
}

// blank is empty in front of the first message, where NULs may stand, too. It ends at the next CR, where
// a PROXY protocol header may begin, and reads no further: it is called again there.
func blank(b []byte) int {
	for i, c := range b {
		if c != '\n' && c != 0 && (c != '\r' || i > 0) {
			return i
		}
	}
	return len(b)
}

var lineFeed = []byte{'\n'}

// recognise is found for a head that may have ended a loss.
func (p *Parser) recognise(h *Message) {
	h.AfterLoss = p.lost
	h.Resynced = p.lost && !p.fresh
	if h.Resynced {
		p.env.count[resyncs]++
	}
	p.found()
}

// found notes that a message start was recognised.
func (p *Parser) found() {
	p.kind = p.env.Message.Kind
	p.fresh, p.first, p.lost, p.simple, p.suspected = false, false, false, false, 0
	p.misses = 0
	p.wire, p.body = 0, 0
}

// miss gives up a candidate of n bytes.
func (p *Parser) miss(n int) Event {
	// The first bytes of a server whose client asks are the place of a response.
	inPlace := !p.lost && (!p.fresh || p.kind == Response)
	p.drop()
	p.skipped += uint64(n)
	p.lost, p.first = true, false
	if p.misses < 1<<15 {
		p.misses++
	}
	if inPlace {
		return Missed
	}
	return Nothing
}

// oversized gives up a head that is too long, n bytes of which are here.
func (p *Parser) oversized(n int) Event {
	p.env.count[oversizedHeads]++
	p.drop()
	p.skipped += uint64(n)
	p.lost, p.first = true, false
	return Missed
}

// wait keeps b, the beginning of a head, until more has come.
func (p *Parser) wait(b []byte, old int, at At) Event {
	if len(b) > p.env.maxHead {
		return p.oversized(len(b))
	}
	if old == 0 {
		p.start = at
		p.hold(b)
		if len(p.buf) == 0 {
			return Missed
		}
	} else if len(b) < len(p.buf) {
		p.buf = p.buf[:copy(p.buf, b)] // empty lines that stood before it
	}
	return Nothing
}

// hold appends b to the parser's buffer. When the buffers of all parsers reach
// their bound, the oldest is given up, which may be this one: it is then empty.
func (p *Parser) hold(b []byte) {
	e := p.env
	if p.buf == nil {
		if n := len(e.free); n > 0 {
			p.buf, e.free = e.free[n-1], e.free[:n-1]
		} else {
			p.buf = make([]byte, 0, max(1024, len(b)))
		}
		e.held += cap(p.buf)
		if p.prev = e.newest; p.prev != nil {
			p.prev.next = p
		} else {
			e.oldest = p
		}
		e.newest = p
	}
	before := cap(p.buf)
	if p.buf = append(p.buf, b...); p.peeked != unfit {
		p.peeked = unread
	}
	e.held += cap(p.buf) - before
	for e.held > e.maxMemory {
		o := e.oldest
		e.count[evictedBytes] += uint64(len(o.buf))
		// A head that was one, or in the place of one: its owner learns of it with its next bytes.
		o.evicted = o != p && !o.stale && (o.lined || !o.lost && !o.fresh)
		o.drop()
		o.lost, o.first = true, false
	}
}

// drop gives the buffer back.
func (p *Parser) drop() {
	p.lined, p.stale, p.peeked, p.scan = false, false, unread, 0
	if p.buf == nil {
		return
	}
	e := p.env
	e.held -= cap(p.buf)
	if cap(p.buf) <= 4096 && len(e.free) < 64 {
		e.free = append(e.free, p.buf[:0])
	}
	p.buf = nil
	if p.prev != nil {
		p.prev.next = p.next
	} else {
		e.oldest = p.next
	}
	if p.next != nil {
		p.next.prev = p.prev
	} else {
		e.newest = p.prev
	}
	p.prev, p.next = nil, nil
}
