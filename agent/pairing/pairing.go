package pairing

import (
	"net/netip"

	"github.com/httpctl/httpctl/agent/http1"
	"github.com/httpctl/httpctl/agent/stream"
	"github.com/httpctl/httpctl/pkg/exchange"
)

// Deps is what a Pairer works with.
type Deps struct {
	// Sink is shown every event. It is called from the Pairer's goroutine.
	Sink exchange.Sink
	// Counters is the pipeline's.
	Counters *exchange.Counters
	// Local reports whether an address is one of this host's; it decides the
	// role of an exchange. nil means that none is.
	Local func(netip.Addr) bool
	// Mirror names the monitored host, another one, that has an address; "" if there is none. It is asked
	// of the server of each exchange. nil knows no hosts.
	Mirror func(netip.Addr) string
}

// Pairer makes exchanges from the connections of one pipeline. It is not safe
// for concurrent use: all calls come from the pipeline's goroutine.
type Pairer struct {
	cfg    Config
	sink   exchange.Sink
	count  *exchange.Counters
	local  func(netip.Addr) bool
	mirror func(netip.Addr) string

	env   *http1.Env
	names *names
	obs   exchange.Observation

	open           int
	memory         int   // of the open exchanges, see pair.cost
	ahead          int   // requests that wait behind another one of their connection
	oldest, newest *pair // open exchanges, in the order in which they began
	conns          []*conn
	pairs          []*pair
	look           lookAhead
}

var _ stream.Handler = (*Pairer)(nil)

// New makes a Pairer. cfg must be valid.
func New(cfg Config, deps Deps) *Pairer {
	if deps.Local == nil {
		deps.Local = func(netip.Addr) bool { return false }
	}
	if deps.Mirror == nil {
		deps.Mirror = func(netip.Addr) string { return "" }
	}
	return &Pairer{
		cfg: cfg, sink: deps.Sink, count: deps.Counters, local: deps.Local, mirror: deps.Mirror,
		env: http1.NewEnv(cfg.Config, deps.Counters), names: newNames(cfg.MaxStrLength),
	}
}

// SetLimits changes what bounds a connection to what cfg says: MaxPipelined, SniffBytes and SniffStarts. What is
// beyond them already stays until it ends.
func (p *Pairer) SetLimits(cfg Config) {
	p.cfg.MaxPipelined, p.cfg.SniffBytes, p.cfg.SniffStarts = cfg.MaxPipelined, cfg.SniffBytes, cfg.SniffStarts
}

// Open is the number of exchanges that have begun and not ended. At any time
// Requests + UnmatchedResponses = Outcomes + Open.
func (p *Pairer) Open() int { return p.open }

// A conn is what the Pairer keeps of one connection: 512 bytes, whole cache lines. What most
// segments need comes first.
type conn struct {
	parsers [2]http1.Parser
	turns   [2]turn
	// finished directions have no more bytes (stream's contract, held here too,
	// as a parser that has finished can begin a message that nobody ends).
	finished [2]bool
	// req is the direction that carries requests; sided says that it is known,
	// which is as soon as one message was recognised.
	req   stream.Direction
	sided bool
	// off: nothing more is of interest. tunnel: HTTP has ended in a CONNECT,
	// and no message has been recognised since.
	off, tunnel bool
	// pipelined: a request was sent while another waited for its response.
	pipelined bool
	// deep: while it waited for the beginning of its response, so that no short body explains it.
	deep bool
	// replied: a response was read, and nothing of the other direction since.
	replied bool
	// answered and interim: a final and an interim response was read in this chunk.
	answered, interim bool
	handshake         bool
	// headless: of the request that is asking the head has not ended, see unfinished.
	headless bool
	role     exchange.Role
	// gapped, see missed.
	gapped bool
	// Of a pipelined connection, see surplus: doubt says that of its responses more may have been lost than
	// are known; turned, that the client speaks after the server, until its next request; sliding, that it has
	// done so while it waited for more.
	doubt, turned, sliding bool
	// early marks directions with a gap while the other one had begun the first
	// message of the connection and not ended its head.
	early [2]bool
	// astray: of a connection that pipelines requests were lost, more of them perhaps than have a place in the queue, see
	// shortage.
	astray bool
	// depth is the most that waited while there was no doubt, burst since the client last spoke after the server, usual in
	// the turn before that. least is the length of the shortest request so far, 65535 for longer ones, 0 if there is none.
	depth, usual, burst, least uint16

	last [2]int64 // time of the newest bytes of each direction
	// queue holds the requests whose responses have not begun, oldest first; the first is in room.
	queue []slot
	room  [1]slot
	// ahead is how many of them Pairer.ahead counts.
	ahead int
	// guessed is how many lost requests were noted since the last bytes of either
	// direction.
	guessed uint32
	// varies is how irregular the number of requests is that the client has ahead from turn to turn, see surplus: up by two
	// for one that is not like that before it, down by one for one that is. blind says that requests or responses were lost
	// while it was, see blindly.
	varies uint8
	blind  bool
	// crowded: the overflow is beyond max_waiting, not max_pipelined.
	crowded bool
	// asking and answering are the exchanges whose messages are being read.
	asking, answering *pair

	// sent counts requests, and those known to be lost; seen counts exchanges.
	sent, seen uint64
	// overflow counts requests beyond the queue, which follow it in order.
	overflow int
	words    words
	passed   uint32 // bytes of requests that were lost or passed over since astray was set
	// Since the last response: missed counts those whose beginning was certainly
	// lost; gapped says that some may have been, missedAt is the value of sent
	// at the latest such time.
	missed   int
	missedAt uint64
	strayed  uint64 // the value of sent when astray was set

	id             uint64
	client, server netip.AddrPort // as of req, or as stream guessed
}

// spareQueue is the room of a queue that is kept whatever is in it. Above, it is at most four times as long as what it holds.
const spareQueue = 16

// A slot is a place in the queue; pair is nil for a request that was lost.
type slot struct {
	pair *pair
	n    uint64 // the value of sent
}

// turn is what has happened since a direction's last bytes, and whether it
// was seen at all (bytes or gaps) and has had a gap.
type turn struct{ seen, holed, ownGap, otherData, otherGap bool }

// mine reports whether the other end has spoken since: whether a new message may
// begin here. A gap of this direction may hold the beginning of the message,
// unless the other direction has a gap too, whose order is not known.
func (t *turn) mine() bool {
	if t.ownGap {
		return t.otherGap
	}
	return t.otherData || t.otherGap
}

// A pair is an exchange that has not ended.
type pair struct {
	x    exchange.Exchange
	conn *conn
	// asked and answered say that the messages have ended or were given up;
	// cut, that one of them was given up; short, that the client had ended its direction
	// within the request when the response came. begun is the time of the first head.
	asked, answered, cut, short bool
	begun                       int64  // time of the first head
	interim                     uint64 // octets of the interim responses
	cost                        int    // bytes that it counts for in Pairer.memory
	// What Progress events have carried.
	reqBytes, reqWire, respBytes, respWire uint64
	prev, next                             *pair
}

// Opened implements stream.Handler.
func (p *Pairer) Opened(sc *stream.Conn, _ int64) {
	var c *conn
	if n := len(p.conns); n > 0 {
		c, p.conns = p.conns[n-1], p.conns[:n-1]
		*c = conn{queue: c.queue[:0]}
	} else {
		c = &conn{}
	}
	if c.queue == nil {
		c.queue = c.room[:0]
	}
	c.id, c.client, c.server, c.handshake = sc.ID, sc.Client, sc.Server, sc.Handshake
	c.role = p.roleOf(c.client, c.server)
	p.restart(c, sc.Handshake)
	sc.User = c
}

// restart makes both directions ready for the first bytes of a connection, or
// of a tunnel.
func (p *Pairer) restart(c *conn, whole bool) {
	for i := range c.parsers {
		p.env.Init(&c.parsers[i], whole)
		c.turns[i].otherData = true
	}
	c.sided, c.early, c.headless = false, [2]bool{}, false
}

// Data implements stream.Handler.
func (p *Pairer) Data(sc *stream.Conn, ch *stream.Chunk) bool {
	c, ok := sc.User.(*conn)
	if !ok || c.off {
		return false
	}
	d := ch.Dir
	if c.finished[d] {
		return true
	}
	sided, passed := c.sided, false // whether all of it is of a body
	at := http1.At{Time: ch.Time, Packet: ch.Packet}
	own, other := &c.turns[d], &c.turns[1-d]
	if ch.Data == nil {
		own.ownGap, own.seen, own.holed = true, true, true
		c.replied = c.replied && d != c.req
		other.otherGap = true
		p.gap(c, d, ch.Gap, at)
		if d == c.req {
			c.stray(ch.Gap)
		}
	} else {
		if passed = sided && !c.due(d) && c.parsers[d].Pass(len(ch.Data)); !passed {
			if c.sided && !c.handshake && c.req != stream.ToServer && c.parsers[d].Contradicts(ch.Data) {
				p.sideAnew(c, ch.Time)
			}
			c.parsers[d].Stretch(p.mayStart(c, d))
			if c.due(d) {
				c.parsers[d].Due(d != c.req && c.deep && !c.doubt)
			}
		}
		if c.sided && d == c.req {
			c.turned = c.turned || own.otherData || own.otherGap
		}
		*own = turn{seen: true, holed: own.holed}
		c.guessed = 0
		before := *other
		other.otherData, other.ownGap = true, false
		c.last[d] = ch.Time
		c.replied = c.replied && d != c.req
		c.answered, c.interim = c.answering != nil, false
		if !passed {
			p.bytes(c, d, ch.Data, at)
		}
		if c.sided && d != c.req && !c.answered && !c.parsers[d].Lost() {
			// Nothing but interim responses: the client goes on with its request.
			*other = before
			other.otherData = before.otherData && !c.interim
		}
	}
	if passed {
		return true
	}
	p.measure(c)
	if sided {
		p.settle(c, c.parsers[d:d+1]) // the other one has read nothing
	} else {
		p.settle(c, c.parsers[:])
	}
	return !c.off
}

// mayStart reports whether the bytes of d that come now may begin a message
// although d's parser has lost its place.
func (p *Pairer) mayStart(c *conn, d stream.Direction) bool {
	if c.turns[d].mine() {
		return true
	}
	// Perhaps only one direction is captured. That of requests shows it by
	// looking pipelined, below.
	if !c.turns[1-d].seen && (c.sided && d != c.req || !c.sided && !c.handshake) {
		return true
	}
	if !c.sided {
		// A handshake of another protocol before the first message.
		return c.handshake && !c.turns[d].holed && c.parsers[d].PeekSkipped() < 1024
	}
	if !c.pipelined {
		return false
	}
	if d == c.req || c.blind {
		return true
	}
	waiting := len(c.queue)
	if c.missed > 0 {
		waiting--
	}
	return waiting > 0
}

// due reports whether the message after the one that is being read is due: the
// client has asked again since the last bytes of a response, or the server has
// answered a request that goes on, and has not asked for the rest of it before.
func (c *conn) due(d stream.Direction) bool {
	if !c.sided || !c.turns[d].mine() {
		return false
	}
	if d == c.req {
		return c.asking != nil && c.asking.answered && c.asking.x.Interim == 0
	}
	return c.answering != nil && len(c.queue) > 0 && c.queue[0].pair != nil
}

func (p *Pairer) bytes(c *conn, d stream.Direction, data []byte, at http1.At) {
	for {
		n, ev := c.parsers[d].Next(data, at)
		data = data[n:]
		if ev == http1.Nothing {
			return
		}
		p.on(c, d, ev, at)
		if c.off {
			return
		}
	}
}

func (p *Pairer) gap(c *conn, d stream.Direction, n uint64, at http1.At) {
	for {
		wasLost := c.parsers[d].Lost()
		took, ev := c.parsers[d].Gap(n, at)
		n -= took
		switch {
		case ev == http1.Nothing:
			return
		case ev == http1.Missed && wasLost && took > 0:
			// Perhaps only more of a message that was lost before.
			p.missedHead(c, d, false)
		case ev == http1.End:
			// The packet that shows the loss of a message's last bytes may come any time later.
			p.ended(c, d, false, c.last[d], at.Time)
		case ev == http1.Cut && took > 0:
			p.on(c, d, ev, at)
			if c.sided && c.pipelined {
				p.missedHead(c, d, false) // behind the end of chunks the gap may hold whole messages
			}
		default:
			p.on(c, d, ev, at)
		}
		if c.off {
			return
		}
	}
}

// on handles one event of the parser of direction d.
func (p *Pairer) on(c *conn, d stream.Direction, ev http1.Event, at http1.At) {
	switch ev {
	case http1.Head:
		if !c.sided {
			if p.env.Message.IsSimple() && c.turns[1-d].seen {
				// A line such as GET /x after a greeting: in HTTP/0.9 the client speaks first.
				p.leave(c, exchange.OtherUnknown)
				return
			}
			p.side(c, d)
		}
		if d == c.req {
			p.request(c, d, at, false)
		} else {
			p.response(c, d, at)
		}
	case http1.End, http1.Cut:
		p.ended(c, d, ev == http1.Cut, at.Time, at.Time)
	case http1.Missed:
		p.missedHead(c, d, true)
	case http1.Other:
		if c.tunnel || !c.sided {
			p.leave(c, otherCounter[c.parsers[d].Protocol()])
		}
	}
}

// ended ends the message of direction d that is being read, see asked and answered.
func (p *Pairer) ended(c *conn, d stream.Direction, cut bool, last, time int64) {
	if d == c.req {
		p.asked(c, cut, last, time)
	} else {
		p.answered(c, cut, last, time)
	}
}

var otherCounter = [...]exchange.Counter{
	http1.Unknown: exchange.OtherUnknown, http1.TLS: exchange.OtherTLS, http1.HTTP2: exchange.OtherHTTP2,
	http1.SSH: exchange.OtherSSH, http1.RTSP: exchange.OtherRTSP, http1.SIP: exchange.OtherSIP,
	http1.ICAP: exchange.OtherICAP,
}

// leave gives up a connection that speaks something else.
func (p *Pairer) leave(c *conn, why exchange.Counter) {
	if c.tunnel {
		why = exchange.OtherUpgraded
	}
	p.count[why]++
	p.turnOff(c)
}

func (p *Pairer) turnOff(c *conn) {
	c.off = true
	for i := range c.parsers {
		c.parsers[i].Release()
	}
}

// side fixes which direction carries requests, from the first message.
func (p *Pairer) side(c *conn, d stream.Direction) {
	c.sided, c.tunnel = true, false
	req := d
	if p.env.Message.Kind == http1.Response {
		req = 1 - d
	}
	if req != c.req {
		c.req = req
		c.client, c.server = c.server, c.client
		c.role = p.roleOf(c.client, c.server)
	}
	if c.early[1-req] {
		c.gapped, c.missedAt = true, c.sent+1
	}
	c.parsers[req].Expect(http1.Request)
	c.parsers[1-req].Expect(http1.Response)
}

// sideAnew forgets which direction carries requests, of a connection that was joined and where the first message was
// the text of a body: it said the opposite of what the ports and numbers of its packets say, and now the
// other direction does.
func (p *Pairer) sideAnew(c *conn, time int64) {
	if c.answering != nil {
		p.finish(c.answering, exchange.Lost, time)
	}
	for len(c.queue) > 0 {
		if e := c.pop(); e != nil {
			p.unanswered(c, e, time)
		}
	}
	if c.asking != nil {
		p.finish(c.asking, exchange.Lost, time)
	}
	for i := range c.parsers {
		p.count[exchange.SkippedBytes] += c.parsers[i].Unread()
	}
	c.missed, c.gapped, c.overflow, c.headless, c.astray, c.blind, c.varies = 0, false, 0, false, false, false, 0
	c.pipelined, c.deep, c.doubt, c.sliding, c.depth, c.usual, c.burst, c.least = false, false, false, false, 0, 0, 0, 0
	p.restart(c, false)
}

func (p *Pairer) roleOf(client, server netip.AddrPort) exchange.Role {
	switch {
	case p.local(server.Addr().Unmap()):
		return exchange.Server
	case p.local(client.Addr().Unmap()):
		return exchange.Client
	}
	return exchange.Transit
}

// missedHead notes that messages of direction d were lost before their heads
// were read; certain says that there was at least one.
func (p *Pairer) missedHead(c *conn, d stream.Direction, certain bool) {
	if !c.sided {
		c.early[d] = c.early[d] || c.parsers[1-d].Begun()
		return
	}
	if d != c.req {
		if certain {
			c.missed++
		}
		if c.blindly() {
			p.forget(c)
		}
		// Of gaps in both directions with nothing between them it is not known which came
		// first. A request that was lost is taken for later than the response, one whose
		// beginning is there for earlier.
		c.gapped, c.missedAt = true, c.sent-uint64(c.guessed)
		if c.parsers[c.req].Begun() {
			c.missedAt++
		}
		return
	}
	if c.headless {
		p.asked(c, true, c.last[d], c.last[d])
		c.headless = false
		return
	}
	if c.blind {
		return
	}
	if c.pipelined && !c.astray {
		c.astray, c.strayed, c.passed = true, c.sent, 0
	}
	if !certain && c.pipelined {
		return
	}
	n := len(c.queue)
	if c.overflow == 0 && n < p.cfg.MaxPipelined && (n == 0 || c.queue[n-1].pair != nil) {
		c.sent++
		c.guessed++
		c.push(slot{n: c.sent})
	}
}

// settle counts what some of the parsers of c have passed over, and gives up what is not HTTP.
func (p *Pairer) settle(c *conn, parsers []http1.Parser) {
	if c.off {
		return
	}
	if c.sided {
		for i := range parsers {
			n := parsers[i].Skipped()
			p.count[exchange.SkippedBytes] += n
			if c.astray && &parsers[i] == &c.parsers[c.req] {
				c.stray(n)
			}
		}
	}
	limit, starts := uint64(p.cfg.SniffBytes), p.cfg.SniffStarts
	if !c.handshake || c.sided {
		// Each packet of a long body may be a start, if only one end is heard.
		limit, starts = limit*256, starts*256
	}
	for i := range parsers {
		q := &parsers[i]
		if q.Misses() > starts || !c.sided && q.PeekSkipped() > limit {
			p.leave(c, exchange.OtherUnknown)
			return
		}
	}
}

// Finished implements stream.Handler.
func (p *Pairer) Finished(sc *stream.Conn, d stream.Direction, time int64) {
	c, ok := sc.User.(*conn)
	if !ok || c.off || c.finished[d] {
		return
	}
	c.finished[d] = true
	if d == c.req && c.parsers[d].Begun() && !c.headless && !c.finished[1-d] {
		return // the server may answer what there is of the head, see unfinished
	}
	ev := c.parsers[d].Finish()
	if ev == http1.Head {
		p.on(c, d, ev, http1.At{Time: c.last[d]})
		if c.off {
			return
		}
		ev = c.parsers[d].Finish()
	}
	if !c.sided {
		return
	}
	switch {
	case ev == http1.Missed && d == c.req && c.headless: // no gap: it ends with the connection
	case ev == http1.Missed:
		p.missedHead(c, d, true)
	case ev == http1.Nothing:
	case d == c.req:
		if ev == http1.End {
			p.asked(c, false, c.last[d], c.last[d])
		}
	case ev == http1.End:
		p.answered(c, false, c.last[d], time)
	}
	p.settle(c, c.parsers[:])
}

// Closed implements stream.Handler.
func (p *Pairer) Closed(sc *stream.Conn, reason stream.CloseReason, time int64) {
	c, ok := sc.User.(*conn)
	if !ok {
		return
	}
	sc.User = nil
	end := closeEnds[reason]
	if e := c.answering; e != nil {
		p.finish(e, end, time)
	}
	for _, s := range c.queue {
		if s.pair != nil {
			p.finish(s.pair, end, time)
		}
	}
	p.ahead -= c.ahead
	if e := c.asking; e != nil {
		if e.refused(end == exchange.Closed || c.finished[1-c.req]) {
			end = exchange.Complete
		}
		p.finish(e, end, time)
	}
	if !c.off {
		if !c.sided && (c.turns[0].seen || c.turns[1].seen) {
			p.leave(c, exchange.OtherUnknown)
		} else {
			for i := range c.parsers {
				p.count[exchange.SkippedBytes] += c.parsers[i].Unread()
			}
			p.settle(c, c.parsers[:])
			p.turnOff(c)
		}
	}
	if cap(c.queue) > spareQueue {
		c.queue = nil
	}
	if len(p.conns) < 256 {
		clear(c.queue[:cap(c.queue)])
		p.conns = append(p.conns, c)
	}
}

// requestTimeout says that the server has not got all of the request in the time that it waits for one, and closes (RFC 9110
// section 15.5.9): the rest is not to come, even if nobody was seen to close.
const requestTimeout = 408

// refused reports whether nothing is missing of an exchange whose request has not ended: the server has answered, and
// wants no more of it (RFC 9110 section 15.5.14, RFC 9112 section 9.6). closed says that the connection has ended, or the
// server's direction. Where the client had ended its own before the answer, it has given up its request.
func (e *pair) refused(closed bool) bool {
	return e.answered && !e.cut && (e.x.Status == requestTimeout || closed && !e.short)
}

var closeEnds = [...]exchange.End{
	stream.ByFIN: exchange.Closed, stream.ByRST: exchange.Closed, stream.ByReuse: exchange.Closed,
	stream.ByTimeout: exchange.TimedOut, stream.ByEviction: exchange.Evicted, stream.ByDrain: exchange.Drained,
}
