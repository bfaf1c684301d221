package app

import (
	"slices"
	"strconv"
	"strings"

	"github.com/httpctl/httpctl/pkg/exchange"
)

// This file is the rule by which the traps' mutations are judged: what packets show, given what
// was said. It knows the messages beforehand and so reads nothing; it says which of them a missing
// byte touches, and where the place is found again. What TCP shows of the bytes is in traps_order_test.go.

// A part is a message as it lies in its direction.
type part struct {
	message
	from, line, head, to int      // its first byte, the end of its start line, of its head, its end
	name                 string   // "GET /1", "201"
	data                 [][2]int // where chunks have their data and the line end behind it
	opaque               bool     // no HTTP
	simple               bool     // HTTP/0.9
	interim, upgrade     bool
	bad                  int  // the end of the first line that is wrong, the head's if it lacks fields
	sure                 bool // it is wrong only by bytes that are no framing, and so a message once its head has ended
	until                bool // as long as the connection
	chunked              bool
	exchange             int // that it belongs to, of its connection

	// What became of it.
	seen, partial, cut, missed bool
	stop                       int  // from where on it is passed over, if it is cut
	early                      bool // a response that was shown before its request
}

// layout lays the messages of a trap into their directions.
func layout(tr *trap) (parts []*part) {
	at, last, exchanges := map[[2]int]int{}, map[[2]int]*part{}, map[[2]int]int{}
	off := map[int]bool{}
	for _, m := range tr.say {
		key := [2]int{m.conn, pick(m.up)}
		p := &part{message: m, from: at[key]}
		p.to = p.from + len(m.text)
		at[key] = p.to
		if q := last[key]; m.more {
			q.text, q.to = q.text+m.text, p.to
			continue
		}
		p.measure(off[m.conn] || len(tr.want) == 0)
		p.exchange = exchanges[key]
		if !p.opaque && !p.interim {
			exchanges[key]++
		}
		off[m.conn] = off[m.conn] || p.name == "101"
		parts = append(parts, p)
		last[key] = p
	}
	return parts
}

// measure finds the lines of a message.
func (p *part) measure(off bool) {
	text := strings.TrimLeft(p.text, "\r\n")
	blank := len(p.text) - len(text)
	line, _, _ := strings.Cut(text, "\n")
	words := strings.Fields(line)
	p.line = p.from + blank + len(line) + 1
	switch {
	case off, len(words) < 2:
		p.opaque = true
	case strings.HasPrefix(line, "HTTP/1."):
		p.name = words[1]
	case len(words) == 2 && words[0] == "GET":
		p.name, p.simple = line[:len(line)-1], true
		p.head = p.to
		return
	case strings.Contains(line, " HTTP/1."):
		p.name = words[0] + " " + words[1]
	case !p.up && strings.HasPrefix(line, "<"):
		p.name, p.simple = exchange.StatusText(0), true
		p.head, p.line, p.until = p.from, p.from, true
		return
	default:
		p.opaque = true
	}
	if p.opaque {
		return
	}
	end := 0
	for _, blank := range []string{"\n\r\n", "\n\n"} {
		if i := strings.Index(text, blank); i >= 0 && (end == 0 || i+len(blank) < end) {
			end = i + len(blank)
		}
	}
	head := strings.ToLower(text[:end])
	p.head = p.from + blank + end
	status, _ := strconv.Atoi(p.name)
	p.interim = status >= 100 && status < 200 && status != 101
	p.upgrade = status == 101
	coding := head[strings.LastIndex(head, "\ntransfer-encoding")+1:]
	coding, _, _ = strings.Cut(coding, "\n")
	p.chunked = strings.HasPrefix(coding, "transfer-encoding") && strings.Contains(coding+head, " chunked") && !strings.Contains(coding, "\x0b")
	for rest := p.text[blank:]; p.wrong && p.bad == 0; {
		line, after, _ := strings.Cut(rest, "\r\n")
		if strings.ContainsAny(line, "\x00\x01\x02\x08\x0b\x7f\r") || strings.Contains(line, " :") || line == "" {
			p.bad = p.to - len(after)
			p.sure = line != "" && !strings.Contains(line, " :") && !strings.ContainsAny(line, "\x0b\r")
		}
		rest = after
	}
	p.until = strings.Contains(head, ": 18446744073709551615") || !p.up && !p.chunked && !strings.Contains(head, "content-length")
	if _, after, ok := strings.Cut(head, "\ncontent-length: "); ok && p.up {
		length, _, _ := strings.Cut(after, "\r")
		n, err := strconv.Atoi(length)
		p.until = p.until || err == nil && n > p.to-p.head // the server wanted no more of it
	}
	if p.to == p.head {
		return
	}
	if p.chunked {
		at := p.head
		for at < p.to {
			size, after, _ := strings.Cut(p.text[at-p.from:], "\n")
			n, err := strconv.ParseUint(strings.TrimSpace(strings.SplitN(size, ";", 2)[0]), 16, 64)
			if err != nil || n == 0 {
				break
			}
			from := p.to - len(after)
			to := p.to
			p.until = n > uint64(len(after))
			if n < uint64(len(after)) {
				to = from + int(n)
				to += 1 + strings.IndexByte(p.text[to-p.from:], '\n')
			}
			p.data = append(p.data, [2]int{from, to})
			at = to
		}
	}
}

// harmless says whether the loss of [x, y) of the message's body loses only bytes: where the
// next framing is, is known.
func (p *part) harmless(x, y int) bool {
	if !p.chunked {
		return true
	}
	for _, d := range p.data {
		if x >= d[0] && x < d[1] && y <= d[1] || y == d[0] && x == y-1 {
			return true
		}
	}
	return false
}

// side is what the rule keeps of one direction of a connection.
type side struct {
	parts []*part

	// TCP
	next, ack    int
	known, acked bool
	started, fin bool

	// HTTP
	lost, fresh         bool
	strict              bool
	shown               bool
	at                  int // how far it was read
	ownGap              bool
	otherData, otherGap bool
	open                bool
	again, any          bool
	doubt               *part // found where only what is right is taken, and is wrong
}

// mine says whether a message may begin here (package pairing, "Whose turn it is").
func (s *side) mine() bool {
	if s.ownGap {
		return s.otherGap
	}
	return s.otherData || s.otherGap
}

// told is what packets show.
type told struct {
	parts []*part
	// gaps is how many runs of bytes are missing, gapBytes how many bytes.
	gaps, gapBytes uint64
	truncated      uint64
	missing        uint64 // with that of connections which are left alone
	// carries: there are bytes, or gaps. first: the first line of a direction is there.
	carries, first bool
	resyncs        uint64
	read           []stretch // what was not left alone
	// skipped is what was passed over of messages. Not counted may be as many of its bytes as aside[0],
	// empty lines where a message may begin, and counted as many others as aside[1], of no message.
	skipped   uint64
	aside     [2]uint64
	fragments uint64
	// vague: where the capture begins, or both directions have gaps and nothing between, there is body
	// text that looks like a message, and nothing shows that it is none.
	vague bool
	// unordered: both directions have gaps and nothing between them, so that it is not known whether
	// a response was lost before a request or after it.
	unordered   bool
	connections map[int]*link
	sides       map[[2]int]*side
}

// A link is what the rule keeps of a connection.
type link struct {
	handshake bool
	answered  bool // its SYN was
	live      bool // both ends acknowledge, or send data
	sided     bool // a message was seen
	pipelined bool
	replied   bool // a response was seen, and nothing of the other side since
	tunnel    bool
	off       bool // left alone
	several   bool // messages were touched by one gap
}

// rule tells what frames show of what was said. Where both directions lose something at once, or the capture
// begins in text that looks like a message, there is more than one answer: then it is vague or unordered.
func rule(tr *trap, frames []frame) *told {
	w := &told{parts: layout(tr), connections: map[int]*link{}, sides: map[[2]int]*side{}}
	var segments []frame
	whole := map[int]int{}
	for i := range frames {
		if f := &frames[i]; f.length > 0 {
			w.truncated++
		} else {
			whole[f.number]++
		}
	}
	for _, f := range frames {
		if f.parts > 1 {
			if whole[f.number] < f.parts {
				w.fragments++
				continue
			}
			if f.part != f.parts-1 {
				continue
			}
		}
		if _, ok := f.captured(); ok {
			segments = append(segments, f)
		}
	}
	stretches := w.order(tr, segments)
	// A connection on the ports of one that did not end is another one by a SYN that is answered.
	if c := w.connections; tr.do != nil && len(c) > 1 && !c[1].answered {
		w.vague = true
	}
	for _, s := range stretches {
		w.carries = true
		if p := w.side(s.conn, s.up).part(s.from); !s.gap && p != nil && p.from == 0 && s.from == 0 && s.to >= p.line {
			w.first = true
		}
		if s.gap {
			w.missing += uint64(s.to - s.from)
		}
		w.take(s)
	}
	for _, s := range w.read {
		for _, p := range w.side(s.conn, s.up).parts {
			from := p.from
			switch {
			case p.opaque:
				w.aside[1] += uint64(max(0, min(s.to, p.to)-max(s.from, from)))
				continue
			case p.seen:
				from = p.to
				if p.cut || p.partial {
					from = p.stop
				}
				if p.up && tr.count[exchange.Malformed] > 0 {
					from = min(from, p.to-int(tr.count[exchange.SkippedBytes]))
				}
			}
			if a, b := max(s.from, from), min(s.to, p.to); w.connections[s.conn].sided && b > a {
				w.skipped += uint64(b - a)
				text := p.text[a-p.from : b-p.from]
				w.aside[0] += uint64(len(text) - len(strings.TrimLeft(text, "\r\n")))
				if w.connections[s.conn].off {
					w.aside[0] += uint64(b - a) // before it was HTTP, perhaps
				}
			}
		}
	}
	for _, c := range w.connections {
		w.unordered = w.unordered || c.pipelined && (c.several || !c.handshake)
	}
	return w
}

func (w *told) side(conn int, up bool) *side {
	key := [2]int{conn, pick(up)}
	s := w.sides[key]
	if s == nil {
		s = &side{fresh: true, otherData: true}
		for _, p := range w.parts {
			if p.conn == conn && p.up == up {
				s.parts = append(s.parts, p)
			}
		}
		w.sides[key] = s
	}
	return s
}

// take follows the messages.
func (w *told) take(s stretch) {
	me, other, conn := w.side(s.conn, s.up), w.side(s.conn, !s.up), w.connections[s.conn]
	defer func() { me.at = s.to }()
	if conn.off {
		return
	}
	conn.replied = conn.replied && !s.up
	if s.gap {
		w.gaps++
		w.gapBytes += uint64(s.to - s.from)
		w.unordered = w.unordered || other.ownGap
		me.ownGap, me.shown, other.otherGap = true, true, true
		conn.several = w.lose(me, s.from, s.to) > 1 || conn.several
		return
	}
	w.read = append(w.read, s)
	may := me.mine() || me.open || !other.shown && (!s.up && conn.sided || !conn.sided && !conn.handshake) ||
		conn.pipelined && (s.up || w.waiting(s.conn) > 0)
	me.shown, me.open = true, false
	before := *other
	other.otherData, other.ownGap = true, false
	me.ownGap, me.otherData, me.otherGap = false, false, false
	if me.fresh {
		me.fresh = false
		me.lost = s.from > 0
	}
	begin := me.part(s.from)
	if begin != nil && begin.wrong && begin.bad < begin.head && !conn.handshake && !me.any {
		me.doubt = begin
	}
	if begin != nil && begin.opaque && begin.from == s.from && (conn.tunnel || !conn.sided) {
		conn.off = true
		return
	}
	if me.lost {
		text := ""
		if begin != nil {
			text = begin.text[s.from-begin.from:]
		}
		switch {
		case !may || begin == nil:
			return
		case begin.from == s.from && !begin.opaque:
			if begin.wrong {
				me.doubt = begin
			}
			me.lost, me.strict, me.again = false, true, true
		case looks(text) && !rest(text):
			w.vague = true
			return
		default:
			me.open = !strings.Contains(text[:min(s.to-s.from, len(text))], "\n") // not a start so far
			return
		}
	}
	final := false
	for _, p := range me.parts {
		if p.to <= s.from || p.from >= s.to {
			continue
		}
		if !p.seen && !p.missed && !p.opaque && p.head <= s.to {
			if p == me.doubt && !p.sure || p.simple && p.up && (s.from > 0 || !conn.handshake || other.shown) || p.simple && !p.up && !w.partner(p).seen {
				p.missed, me.lost = true, true
				continue
			}
			w.found(p)
			me.strict = false
		}
		final = final || p.seen && !p.interim
	}
	if !s.up && !final {
		*other = before
	}
}

// found notes that a message was seen.
func (w *told) found(p *part) {
	me, other, conn := w.side(p.conn, p.up), w.side(p.conn, !p.up), w.connections[p.conn]
	p.seen, conn.sided = true, true
	w.resyncs += uint64(pick(!(me.again && me.any)))
	me.again, me.any = false, true
	q := w.partner(p)
	switch {
	case p.up:
		conn.pipelined = conn.pipelined || w.waiting(p.conn) > 1 || other.within()
	case p.interim:
	default:
		p.early = q != nil && !q.seen
		conn.pipelined = conn.pipelined || conn.replied && other.shown
		conn.replied = true
		conn.off = p.upgrade
		conn.tunnel = q != nil && q.seen && strings.HasPrefix(q.name, "CONNECT ") && p.name[0] == '2'
		if conn.tunnel {
			me.any, other.any = false, false
		}
		if (q == nil || !q.seen) && (p.chunked || p.until) && looks(p.text[p.head-p.from:]) {
			w.vague = true // after an unknown request, which may have been HEAD
		}
	}
}

// waiting is how many requests were seen whose responses did not begin.
func (w *told) waiting(conn int) (n int) {
	for _, p := range w.side(conn, true).parts {
		if q := w.partner(p); p.seen && (q == nil || w.side(conn, false).at <= q.from) {
			n++
		}
	}
	return n
}

// within says whether the direction has stopped within a message.
func (s *side) within() bool {
	p := s.part(s.at)
	return p != nil && p.from < s.at
}

// part is the message at a place of the direction.
func (s *side) part(x int) *part {
	for _, p := range s.parts {
		if p.from <= x && x < p.to {
			return p
		}
	}
	return nil
}

// lose takes [x, y) away, and returns how many messages that touches.
func (w *told) lose(s *side, x, y int) (n int) {
	if s.fresh {
		s.fresh, s.lost, s.strict = false, x > 0, true
	}
	for _, p := range s.parts {
		if p.to <= x || p.from >= y {
			continue
		}
		a, b := max(x, p.from), min(y, p.to)
		switch {
		case p.opaque, a >= p.head && p.seen && !s.lost && p.harmless(a, b):
			continue
		case s.lost:
		case a >= p.head:
			p.cut, p.stop, s.lost = true, a, true
		case (a > p.line && p.text[p.line-p.from] != '\r' || a >= p.line && !s.strict) && !(p == s.doubt && a >= p.bad):
			p.partial, p.stop, s.lost = true, a, true
			w.found(p)
		default:
			s.lost = true
		}
		p.missed = !p.seen
		n++
	}
	return n
}

// looks says whether text begins as a message does.
func looks(text string) bool {
	line, _, ok := strings.Cut(strings.TrimLeft(text, "\r\n"), "\n")
	return ok && (strings.HasPrefix(line, "HTTP/1.") || strings.Contains(line, " HTTP/1."))
}

// rest says whether text begins with the last letters of a method, which are none.
func rest(text string) bool {
	m, _, _ := strings.Cut(text, " ")
	return slices.ContainsFunc([]string{"GET", "HEAD", "POST"}, func(s string) bool { return s != m && strings.HasSuffix(s, m) })
}

// carried is how many connections carry bytes.
func (w *told) carried() uint64 { return uint64(pick(!w.carries)) }

// named says that the name of what is no HTTP is there to be read.
func (w *told) named() bool { return w.first && w.connections[0].handshake }

// names has a line for each exchange that is shown.
func (w *told) names() (out []string) {
	for _, p := range w.parts {
		if !p.seen || p.interim || p.opaque {
			continue
		}
		q := w.partner(p)
		switch both := q != nil && q.seen && !p.early && !q.early; {
		case p.up && both:
			out = append(out, p.name+" = "+q.name)
		case p.up:
			out = append(out, p.name+" = -")
		case !both:
			out = append(out, "- = "+p.name)
		}
	}
	slices.Sort(out)
	return out
}

// untouched are those of the lines of whose exchanges nothing but bytes is lost, without their
// end if it is not told by framing.
func (w *told) untouched(want []string) (out []string) {
	for _, p := range w.parts {
		q := w.partner(p)
		if !p.up || p.opaque || q == nil || q.early || !p.whole() || !q.whole() {
			continue
		}
		interim := slices.ContainsFunc(w.parts, func(i *part) bool {
			return i.interim && i.conn == p.conn && i.exchange == p.exchange && !i.whole()
		})
		lines := slices.DeleteFunc(slices.Clone(want), func(l string) bool {
			req, resp, _ := strings.Cut(l, " = ")
			return !strings.HasPrefix(req, p.name+" ") || !strings.HasPrefix(resp, q.name+" ")
		})
		if slices.ContainsFunc(lines, func(l string) bool { return l != lines[0] }) {
			continue // which of them it is is not told by its name
		}
		for _, l := range lines {
			req, _, _ := strings.Cut(l, " = ")
			if interim {
				continue
			}
			switch i := strings.LastIndexByte(l, ' '); {
			case p.until:
				continue
			case q.until:
				l = req + " = " + q.name // a FIN that was not captured counts as a byte
			case l[i:] != " complete":
				l = l[:i]
			}
			out = append(out, l)
		}
	}
	return out
}

// whole says that at most bytes of a message are lost.
func (p *part) whole() bool { return p.seen && !p.partial && !p.cut }

// pipelined says that requests were sent before the answers to earlier ones.
func (w *told) pipelined() bool {
	for _, c := range w.connections {
		if c.pipelined {
			return true
		}
	}
	return false
}

// interim is how many interim responses are shown.
func (w *told) interim() (n uint64) {
	for _, p := range w.parts {
		if p.interim && p.seen {
			n++
		}
	}
	return n
}

// partner is the other message of an exchange.
func (w *told) partner(p *part) *part {
	for _, q := range w.parts {
		if q.conn == p.conn && q.up != p.up && q.exchange == p.exchange && !q.interim && !q.opaque {
			return q
		}
	}
	return nil
}
