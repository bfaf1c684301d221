package http1

import (
	"github.com/httpctl/httpctl/pkg/exchange"
)

// Event is what Next, Gap and Finish found.
type Event uint8

const (
	// Nothing: all of the input was read.
	Nothing Event = iota
	// Head: a head is complete and is in Env.Message. For a response, Answer
	// must be called before the next call of Next.
	Head
	// End: the message whose head was read last has ended as its framing says, or its body is not sent after all (see Parser.Due).
	End
	// Cut: the message whose head was read last has lost its framing, by a gap or
	// because it is wrong; how much followed is not known.
	Cut
	// Missed: one or more messages were lost before their heads were read.
	Missed
	// Other: the direction speaks another protocol; see Parser.Protocol.
	Other
)

// At is where bytes come from: the time (nanoseconds since the Unix epoch) and
// the number of the packet that brought them.
type At struct {
	Time   int64
	Packet uint64
}

// Env is what the parsers of one pipeline share. It is not safe for concurrent use.
type Env struct {
	// Message is the head found last.
	Message Message

	maxHead   int
	maxMemory int
	count     *exchange.Counters
	spans     [maxPlain]span // see plain

	held           int     // capacity of all buffers in use
	oldest, newest *Parser // the parsers that hold one, in order of taking it
	free           [][]byte
}

// NewEnv makes the shared part of a pipeline's parsers. Malformed,
// OversizedHeads, EvictedBytes, Resyncs, SmugglingSuspects and its reasons are added to count.
func NewEnv(cfg Config, count *exchange.Counters) *Env {
	return &Env{maxHead: int(cfg.MaxHeaderBytes), maxMemory: int(cfg.MaxHeadMemory), count: count}
}

type state uint8

const (
	atStart state = iota
	atAnswer
	inBody
	inRest // until the direction ends
	atSize
	inSize
	inExtension
	atSizeLF
	inChunk
	afterChunk
	afterChunkLF
	atTrailer
	inTrailer
	atTrailerLF
	atEnd
	atCut
	inPrefix
)

// peeked is what Peek knows of a head that has not ended: nothing, that too little of it is there, or that it is
// no request whatever comes.
type peeked uint8

const (
	unread peeked = iota
	tooShort
	unfit
)

// Parser frames the messages of one direction. Make one with [Env.Init].
type Parser struct {
	env   *Env
	state state
	kind  Kind // of all messages here; None until one was read

	// fresh: nothing was recognised yet. first: no byte was read yet.
	fresh, first bool
	// whole says that the direction's first byte is the connection's.
	whole bool
	// lost: out of place; found out by a gap or by bytes that are no message.
	lost bool
	// edge: at the start of a stretch. may: a message may start there though lost.
	edge, may bool
	due       bool // see Due
	framed    bool // see Due
	expects   bool // the request was to be sent on only after an interim response
	lined     bool // buf's first line is a start line
	simple    bool // a response without head is due (HTTP/0.9)
	unsure    bool // the body may be absent: the request is not known
	passedBy  bool // see PassBy
	alone     bool // see Alone
	stale     bool // buf was read and is to be freed
	peeked    peeked
	proto     Protocol
	evicted   bool // what was held was given up for another parser, which is to be told
	misses    uint16
	suspected exchange.Suspicion // reasons for which the current request was counted

	rem     uint64 // bytes left in the body, chunk or prefix
	skipped uint64

	// Of the current message, from its first byte.
	start At
	wire  uint64
	body  uint64

	buf        []byte
	scan       int
	prev, next *Parser
}

// Init prepares p for the first byte of a direction. whole says that this is
// the first byte of the connection, so that a message starts there.
func (e *Env) Init(p *Parser, whole bool) {
	p.drop()
	*p = Parser{env: e, fresh: true, first: true, whole: whole}
}

// Expect fixes the kind of the direction's messages.
func (p *Parser) Expect(k Kind) { p.kind = k }

// ExpectSimple says that the response to a HTTP/0.9 request is due: everything
// to the end of the direction, unless it begins with a status line.
func (p *Parser) ExpectSimple() { p.simple = true }

// Stretch announces that the next bytes begin a stretch (a chunk). may says
// whether a message may start there even though the parser is lost.
func (p *Parser) Stretch(may bool) { p.edge, p.may, p.due = true, may, false }

// Due says, after Stretch, that the next message is due although the current
// one has not ended: the other end has gone on to the next exchange. A start
// line at the beginning of the stretch then ends the current message. So go on
// a response without length on a connection that is not closed, a body that is shorter than
// announced, and a request whose body was refused before it was sent, as it was to wait for
// 100 Continue (RFC 9110 section 10.1.1). Any other request goes on with its body, whatever that looks
// like; so does a response whose end is known if framed says that the other end has its reasons
// to go on, as it pipelines.
func (p *Parser) Due(framed bool) { p.due, p.framed = true, framed }

// PassBy says that the other end has sent its next message. If it is not known whether the current one, of whose body
// nothing has come, has a body, then it has none, unless what comes next is something else than a message. PassBy
// reports whether that is so.
func (p *Parser) PassBy() bool {
	p.passedBy = p.unsure
	return p.unsure
}

// Alone says whether messages may follow each other in this direction without
// a word of the other one: it is not captured, or they are pipelined.
func (p *Parser) Alone(yes bool) { p.alone = yes }

// Lost reports whether the parser has lost its place.
func (p *Parser) Lost() bool { return p.lost }

// Begun reports whether the start line of a message was read and the rest of
// its head not yet.
func (p *Parser) Begun() bool { return p.lined }

// Misses is how many possible starts were no message since the last one that was.
func (p *Parser) Misses() int { return int(p.misses) }

// Protocol is the protocol that an Other event has found.
func (p *Parser) Protocol() Protocol { return p.proto }

// Start is where the current message began.
func (p *Parser) Start() At { return p.start }

// Wire and Content are the octets of the current message so far: all, and
// those of its content.
func (p *Parser) Wire() uint64    { return p.wire }
func (p *Parser) Content() uint64 { return p.body }

// Suspect is why two servers might frame the current request differently, as
// far as it was read.
func (p *Parser) Suspect() exchange.Suspicion { return p.suspected }

// Contradicts reports whether data begins with a start line of the other kind than is expected, in a direction
// where no message was recognised yet.
func (p *Parser) Contradicts(data []byte) bool {
	if !p.fresh || p.kind == None || len(p.buf) > 0 || len(data) == 0 {
		return false
	}
	v, _, _ := startLine(data, &p.env.Message, true)
	return v == isRequest && p.kind == Response || v == isResponse && p.kind == Request
}

// Within reports whether the next n bytes are all of the body that is being read.
func (p *Parser) Within(n int) bool {
	return p.state == inBody && uint64(n) < p.rem || p.state == inChunk && uint64(n) <= p.rem || p.state == inRest
}

// Pass reads n bytes, as Next does after Stretch, if all of them are of the body that is being read, and not its last, and nothing is
// to be looked at in them. Else it reads nothing and returns false.
func (p *Parser) Pass(n int) bool {
	switch {
	case p.stale, p.evicted, p.unsure, n == 0:
		return false
	case (p.state == inBody || p.state == inChunk) && uint64(n) < p.rem:
		p.rem -= uint64(n)
	case p.state != inRest:
		return false
	}
	p.take(uint64(n))
	return true
}

// Skipped returns the number of bytes passed over since it was last called.
func (p *Parser) Skipped() uint64 {
	n := p.skipped
	p.skipped = 0
	return n
}

// PeekSkipped is Skipped without taking them.
func (p *Parser) PeekSkipped() uint64 { return p.skipped }

// Unread is how many bytes are held of a message whose head has not ended.
func (p *Parser) Unread() uint64 {
	if p.stale {
		return 0
	}
	return uint64(len(p.buf))
}

// Release gives back what p holds. Call it when the direction is given up.
func (p *Parser) Release() { p.drop() }

// Next reads data up to the next event and returns how many bytes it took.
// After any event but Nothing it must be called again, even with no bytes
// left. data is borrowed.
func (p *Parser) Next(data []byte, at At) (int, Event) {
	if p.stale {
		p.drop()
	}
	if p.evicted {
		p.evicted = false
		return 0, Missed
	}
	if p.unsure && len(data) > 0 {
		p.unsure = false
		if p.passedBy && opensResponse(data) || (p.alone || p.edge && p.may) && p.absent(data) {
			p.state = atStart
			return 0, End
		}
	}
	if p.due && len(data) > 0 {
		p.due = false
		if ev := p.overtaken(data); ev != Nothing {
			return 0, ev
		}
	}
	switch p.state {
	case atStart:
		return p.begin(data, at)
	case atAnswer:
		p.Answer("")
		return p.Next(data, at)
	case atCut:
		p.state, p.lost, p.edge = atStart, true, false
		return 0, Cut
	case atEnd:
		p.state = atStart
		return 0, End
	case inBody:
		n := uint64(len(data))
		if n < p.rem {
			p.rem -= n
			p.take(n)
			return len(data), Nothing
		}
		n = p.rem
		p.take(n)
		p.state = atStart
		return int(n), End
	case inRest:
		p.take(uint64(len(data)))
		return len(data), Nothing
	case inPrefix:
		n := min(uint64(len(data)), p.rem)
		if p.rem -= n; p.rem == 0 {
			p.state = atStart
		}
		m, ev := 0, Nothing
		if int(n) < len(data) {
			p.edge = false
			m, ev = p.try(data[n:], 0, at)
		}
		return int(n) + m, ev
	}
	return p.chunked(data)
}

// opensResponse reports whether data begins as responses do, as far as it goes.
func opensResponse(data []byte) bool {
	whole, partly := matches(data, "HTTP/1.")
	return whole || partly
}

// absent reports whether data, where a response's body should begin, begins
// the next response: the unknown request must have been HEAD then.
func (p *Parser) absent(data []byte) bool {
	if len(data) <= len("HTTP/1.1 200") {
		return false
	}
	if v, _, _ := statusLine(data, &p.env.Message, true); v != isResponse {
		return false
	}
	// Where the announced length leads to the end of what there is, or to another
	// response, it is a body that looks like one.
	n := uint64(len(data))
	return p.state != inBody || p.rem > n || p.rem < n && !p.starts(data[p.rem:])
}

// overtaken ends the current message if data, which the other end has
// answered or asked for already, begins the next one.
func (p *Parser) overtaken(data []byte) Event {
	switch p.state {
	case atStart, atAnswer, atCut, atEnd, inPrefix:
		return Nothing
	}
	if p.state != inRest && (p.framed || p.kind == Request && !p.unsent()) {
		return Nothing
	}
	n := uint64(len(data))
	if !p.starts(data) || p.state == inBody && (p.rem == n || p.rem < n && p.starts(data[p.rem:])) {
		// In the second case the body is as long as announced, and what begins it
		// looks like a message or was taken for the method.
		return Nothing
	}
	ended := p.state == inRest
	p.state = atStart
	if !ended {
		p.env.count[malformed]++
	}
	if ended || p.kind == Request {
		return End // nobody waits for more of it
	}
	return Cut
}

// unsent reports whether the current request is one whose body may never come: it was to wait for 100 Continue, and
// nothing of the body was read.
func (p *Parser) unsent() bool {
	return p.expects && p.body == 0 && (p.state == inBody || p.state == atSize)
}

// starts reports whether b begins with a start line of the direction's kind.
func (p *Parser) starts(b []byte) bool {
	v, _, _ := startLine(b, &p.env.Message, true)
	return (v == isRequest || v == isResponse) && p.kind == p.env.Message.Kind
}

func (p *Parser) take(n uint64) { p.wire += n; p.body += n }
