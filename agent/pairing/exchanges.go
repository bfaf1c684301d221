package pairing

import (
	"math"
	"slices"

	"github.com/httpctl/httpctl/agent/http1"
	"github.com/httpctl/httpctl/agent/stream"
	"github.com/httpctl/httpctl/pkg/exchange"
)

// longOpen is the age from which the bytes of an open exchange are reported in
// each bucket, in nanoseconds (DESIGN section 5).
const longOpen = 60e9

// request begins the exchange of the request head in env.Message, of which begun says that it has not ended.
func (p *Pairer) request(c *conn, d stream.Direction, at http1.At, begun bool) {
	h := &p.env.Message
	q := &c.parsers[d]
	if c.headless && c.asking == nil {
		c.headless = false // of one that was given up to free its memory, and is counted
		return
	}
	if e := c.asking; c.headless {
		if s := q.Start(); e.x.FirstPacket == s.Packet && e.x.RequestStart == s.Time {
			c.headless = false // its head has ended after all
			e.x.RequestHead = at.Time
			c.sync(e)
			return
		}
		p.asked(c, true, c.last[d], at.Time)
	}
	if c.waiting() {
		c.pipelined, c.deep = true, true
	}
	if !c.pipelined && c.answering != nil {
		// Or the response is to HEAD, which was lost, and the client waits for no more of it.
		c.pipelined = !c.parsers[1-d].PassBy()
	}
	if h.AfterLoss && !c.pipelined {
		// The client has sent this one after the answers to those that were lost.
		c.dropLost()
	}
	p.surplus(c, at.Time)
	e := p.begin(c, at.Time)
	x := &e.x
	x.HasRequest = true
	x.Protocol = protocol(h.Version)
	x.Method = p.names.method(h.Method)
	target, place := p.names.target(h.Target)
	x.Target = target
	x.Host = p.names.again(h.Host, &c.words.host)
	x.UserAgent = p.names.again(h.UserAgent, &c.words.agent)
	x.Domain = p.names.domain(x.Method, x.Target, x.Host, c.words.host, c.server.Addr())
	x.Section = p.names.section(x.Domain, x.Method, x.Target, place)
	s := q.Start()
	x.RequestStart, x.RequestHead, x.FirstPacket = s.Time, at.Time, s.Packet
	if x.RequestWireBytes, x.Suspect = q.Wire(), q.Suspect(); begun {
		x.RequestHead, x.RequestWireBytes, x.Suspect = c.last[d], q.Unread(), 0
	}
	c.asking, c.headless = e, begun
	if h.IsSimple() {
		c.parsers[1-d].ExpectSimple()
	}
	c.sent++
	p.count[exchange.Requests]++
	p.observe(exchange.RequestSeen, e, at.Time)
	if beyond, limit := p.beyond(c); beyond {
		c.overflow++
		c.asking = nil
		p.count[limit]++
		p.finish(e, exchange.Evicted, at.Time)
		return
	}
	if c.blind {
		e.answered, e.cut = true, true // by what cannot be told: it ends with its request
	} else {
		c.push(slot{e, c.sent})
	}
	if !c.doubt && !c.gapped {
		n := uint16(min(len(c.queue), math.MaxUint16))
		c.depth, c.burst = max(c.depth, n), max(c.burst, n)
	}
	p.measure(c)
	text := len(x.Method) + len(x.Target) + len(x.Host) + len(x.UserAgent) + len(x.Domain) + len(x.Section)
	e.cost += text
	p.memory += text
	p.makeRoom(e, at.Time)
}

// beyond reports whether a request has no place in the queue of its connection, and what counts it. Those behind one
// that has none have none either, for the same reason.
func (p *Pairer) beyond(c *conn) (bool, exchange.Counter) {
	if c.blind {
		return false, 0
	}
	if c.overflow == 0 {
		pipelined := len(c.queue) >= p.cfg.MaxPipelined
		c.crowded = !pipelined && len(c.queue) > 0 && p.ahead >= p.cfg.MaxWaiting
		if !pipelined && !c.crowded {
			return false, 0
		}
	}
	if c.crowded {
		return true, exchange.WaitingOverflows
	}
	return true, exchange.PipelineOverflows
}

// makeRoom gives up spare pairs, then the oldest open exchanges, but not e, until the others fit
// into memory.
func (p *Pairer) makeRoom(e *pair, time int64) {
	for n := len(p.pairs); n > 0 && p.memory+n*pairBytes > int(p.cfg.MaxOpenMemory); n = len(p.pairs) {
		p.pairs[n-1] = nil
		p.pairs = p.pairs[:n-1]
	}
	for p.memory > int(p.cfg.MaxOpenMemory) && p.oldest != e {
		p.giveUp(p.oldest, time)
	}
}

// pairBytes is what an open exchange takes beside its strings: the pair, in the
// allocator's size. The first place in the queue is the connection's.
const pairBytes = 448

// giveUp ends an exchange to free its memory. Its place in the queue stays, so that the responses
// after its own still find their requests.
func (p *Pairer) giveUp(e *pair, time int64) {
	for i := range e.conn.queue {
		if s := &e.conn.queue[i]; s.pair == e {
			s.pair = nil
		}
	}
	p.count[exchange.EvictedExchanges]++
	p.finish(e, exchange.Evicted, time)
}

// measure brings the number of requests that wait behind others up to date.
func (p *Pairer) measure(c *conn) {
	n := max(len(c.queue)-1, 0)
	p.ahead += n - c.ahead
	c.ahead = n
}

// waiting reports whether a request that was read waits for its response.
func (c *conn) waiting() bool {
	for _, s := range c.queue {
		// One whose response was lost in a gap does not wait.
		if s.pair != nil && (!c.gapped || s.n > c.missedAt) {
			return true
		}
	}
	return false
}

// dropLost takes the places of lost requests out of the queue.
func (c *conn) dropLost() {
	c.queue = slices.DeleteFunc(c.queue, func(s slot) bool { return s.pair == nil })
}

// asked ends the request that is being read: last is the time of the last byte
// of it that was seen, time that of the event.
func (p *Pairer) asked(c *conn, cut bool, last, time int64) {
	e := c.asking
	if e == nil {
		return
	}
	c.sync(e)
	c.asking, c.headless = nil, false
	e.asked = true
	e.cut = e.cut || cut
	e.x.RequestEnd = last
	if n := uint16(min(e.x.RequestWireBytes, math.MaxUint16)); !cut && (n < c.least || c.least == 0) {
		c.least = n
	}
	if e.answered {
		p.finish(e, e.end(), time)
	}
}

// response begins or completes, with the response head in env.Message, an
// exchange.
func (p *Pairer) response(c *conn, d stream.Direction, at http1.At) {
	h := &p.env.Message
	q := &c.parsers[d]
	if h.Interim() {
		c.interim = true
		p.count[exchange.InterimResponses]++
		// It is no part of an earlier answer that was lost.
		p.resolve(c, at.Time)
		if len(c.queue) > 0 && c.queue[0].pair != nil {
			e := c.queue[0].pair
			e.x.Interim++
			e.interim += q.Wire()
		}
		q.Answer("")
		return
	}
	if c.replied && c.turns[c.req].seen {
		c.pipelined = true // its request and the one before were sent ahead of both
	}
	c.replied = true
	if c.astray {
		p.shortage(c)
	}
	p.unfinished(c, at)
	e := p.match(c, at.Time)
	if e == nil {
		e = p.begin(c, at.Time)
		e.asked = true
		e.x.Protocol = protocol(h.Version)
		e.x.FirstPacket = q.Start().Packet
		p.count[exchange.UnmatchedResponses]++
		p.makeRoom(e, at.Time)
	}
	x := &e.x
	x.HasResponse = true
	x.Status = h.Status
	x.ResponseStart, x.ResponseHead = q.Start().Time, at.Time
	x.ResponseWireBytes = e.interim + q.Wire()
	if !h.IsSimple() {
		p.count[exchange.Responses]++
	}
	if e.cut && e.asked && !c.pipelined {
		// How much followed is not known, but all that came since was of this request.
		x.RequestEnd = max(x.RequestEnd, c.last[c.req])
	}
	if x.HasRequest && (!e.asked || x.ResponseStart < x.RequestEnd) {
		p.count[exchange.EarlyResponses]++
	}
	c.answering, c.answered = e, true
	e.short = c.asking == e && c.finished[c.req]
	q.Answer(x.Method)
	q.Alone(!c.turns[c.req].seen || c.pipelined)
	connect := x.Method == "CONNECT" && h.Status >= 200 && h.Status < 300
	if h.Status != 101 && !connect {
		return
	}
	c.sync(e)
	x.ResponseEnd = at.Time
	if c.asking == e {
		c.asking = nil
	}
	c.answering = nil
	p.count[exchange.Upgrades]++
	p.finish(e, exchange.Upgraded, at.Time)
	if !connect {
		p.count[exchange.OtherUpgraded]++
		p.turnOff(c)
		return
	}
	c.tunnel = true
	c.missed, c.gapped, c.overflow, c.astray = 0, false, 0, false
	c.dropLost()
	if len(c.queue) == 0 && c.asking == nil {
		p.restart(c, true)
		return
	}
	// Requests were sent into the tunnel before it was there.
	p.env.Init(q, true)
	q.Expect(http1.Response)
}

// surplus takes out of the queue of a pipelined connection, before a request is added, those of which it has become
// clear that their responses were among those lost in a gap: how many a gap holds, it does not say, and each
// too many in the queue would give all later responses the requests of others. A client that sends some, waits for all
// answers, and sends the next, has got those answers; another one does not send ever more ahead than it did before.
func (p *Pairer) surplus(c *conn, time int64) {
	turned := c.turned
	c.turned = false
	if turned && !c.doubt && !c.gapped && !c.astray {
		switch {
		case c.usual == 0:
			c.varies = 1 // nothing is known of its habits
		case c.burst == 1: // it has waited for all: of these no number is in doubt
		case c.burst != c.usual:
			c.varies = min(c.varies+2, 2*varied)
		case c.varies > 0:
			c.varies--
		}
		c.usual, c.burst = c.burst, 0
	}
	if !c.pipelined || c.overflow > 0 || c.blind {
		return
	}
	keep := len(c.queue)
	switch {
	case !c.doubt && !c.gapped:
		c.sliding = c.sliding || turned && c.waiting()
	case turned && !c.sliding && c.answering == nil && !c.parsers[1-c.req].Begun():
		keep = 0
		c.missed, c.gapped, c.doubt = 0, false, false
	case c.doubt:
		keep = min(keep, max(int(c.depth)-1, 0))
	}
	for len(c.queue) > keep {
		if e := c.pop(); e != nil {
			p.unanswered(c, e, time)
		}
	}
	c.doubt = c.doubt && keep > 0
}

// varied is the value of varies from which on nothing is concluded from how many requests a client has sent ahead: it has
// sent another number at least once, and not the same often enough since or before.
const varied = 3

// blindly reports, after messages of a connection were lost, whether responses cannot be given to requests any more: it
// pipelines, and how many requests its client sends ahead follows no rule by which surplus and shortage could say how many were
// lost. A wrong pair is worse than none: each request from there on counts as lost, each response as one without request.
func (c *conn) blindly() bool {
	c.blind = c.blind || c.pipelined && c.varies >= varied
	return c.blind
}

// forget gives up the requests that wait.
func (p *Pairer) forget(c *conn) {
	for len(c.queue) > 0 {
		if e := c.pop(); e != nil {
			p.unanswered(c, e, c.last[1-c.req])
		}
	}
	c.overflow = 0
	p.measure(c)
}

// stray adds n bytes to those of requests that may have been lost.
func (c *conn) stray(n uint64) {
	if c.astray {
		c.passed = uint32(min(uint64(c.passed)+n, 1<<31))
		if c.least > 0 && c.passed/uint32(c.least) > 1 {
			c.blindly() // it was more than one, perhaps
		}
	}
}

// shortage gives places in the queue to requests that were lost in a gap, as soon as responses come after it. How many a
// gap holds, it does not say; but a client that pipelines keeps as many ahead as lately, or sends as many at once as it ever
// did, and no request is shorter than the shortest so far. If one that sends many at once sent fewer, surplus takes out
// what is too much; with one that keeps some ahead, that would stay.
func (p *Pairer) shortage(c *conn) {
	c.astray = false
	ahead := c.depth
	if c.sliding {
		ahead = max(c.usual, c.burst)
	}
	n := min(int(ahead), p.cfg.MaxPipelined) - len(c.queue)
	if n <= 0 || c.overflow > 0 || c.gapped || c.blind || c.least == 0 {
		return
	}
	i, most := len(c.queue), int(c.passed/uint32(c.least))
	for ; i > 0 && c.queue[i-1].n > c.strayed; i-- {
		if c.queue[i-1].pair == nil {
			most-- // it has a place
		}
	}
	if n = min(n, most, p.cfg.MaxWaiting-p.ahead); n <= 0 {
		return
	}
	for range n {
		c.push(slot{})
	}
	copy(c.queue[i+n:], c.queue[i:])
	for j := range n {
		c.queue[i+j] = slot{n: c.strayed}
	}
	c.doubt = true
}

// resolve takes the requests whose responses were lost before the one just read out of
// the queue.
func (p *Pairer) resolve(c *conn, time int64) {
	if !c.gapped {
		return
	}
	drop := 0
	if c.pipelined {
		drop = min(c.missed, len(c.queue)-1)
		c.doubt = true
	} else {
		i := slices.IndexFunc(c.queue, func(s slot) bool { return s.n > c.missedAt })
		switch {
		case i >= 0:
			drop = i
		case c.overflow > 0: // the one that is answered has no place
			drop = len(c.queue)
			c.overflow = int(min(uint64(c.overflow), c.sent-c.missedAt))
		}
	}
	for ; drop > 0; drop-- {
		if e := c.pop(); e != nil {
			p.unanswered(c, e, time)
		}
	}
	c.missed, c.gapped = 0, false
}

// match takes the request that the response just read answers out of the
// queue, or returns nil when it was not seen.
func (p *Pairer) match(c *conn, time int64) *pair {
	p.resolve(c, time)
	if len(c.queue) == 0 {
		if c.overflow > 0 {
			c.overflow--
		}
		return nil
	}
	return c.pop()
}

// unfinished makes an exchange of a request whose head has not ended, when there is no other one that the response
// in env.Message could answer: the server has waited for the rest long enough (408), or wants no more of it (400, 431).
func (p *Pairer) unfinished(c *conn, at http1.At) {
	// One that has begun since responses were lost is the next request of a client that has got them: those before do not wait.
	next := c.gapped && !c.pipelined && c.sent == c.missedAt
	if c.overflow > 0 || c.blind || c.asking != nil || c.headless || !next && (c.gapped || len(c.queue) > 0) {
		return
	}
	response := p.env.Message
	if c.parsers[c.req].Peek() {
		p.request(c, c.req, at, true)
	}
	p.env.Message = response
}

// unanswered ends a request whose response was lost.
func (p *Pairer) unanswered(c *conn, e *pair, time int64) {
	if c.asking == e {
		c.sync(e)
		c.asking = nil
	}
	p.finish(e, exchange.Lost, time)
}

// push appends to the queue. What it has left behind in room is forgotten: else exchanges that have ended
// stay in memory, uncounted, for the life of the connection.
func (c *conn) push(s slot) {
	if c.queue = append(c.queue, s); len(c.queue) > 1 {
		c.room[0] = slot{}
	}
}

func (c *conn) pop() *pair {
	e := c.queue[0].pair
	n := copy(c.queue, c.queue[1:])
	c.queue[n] = slot{}
	c.queue = c.queue[:n]
	// One burst is no reason to keep so much for the life of a connection, nor for as long as its last request waits.
	switch k := cap(c.queue); {
	case k <= spareQueue || 4*n > k:
	case n == 0:
		c.queue = c.room[:0]
	default:
		c.queue = append(make([]slot, 0, k/2), c.queue...)
	}
	return e
}

// answered ends the response that is being read: last is the time of its last
// byte that was seen, time that of the event.
func (p *Pairer) answered(c *conn, cut bool, last, time int64) {
	e := c.answering
	if e == nil {
		return
	}
	c.sync(e)
	c.answering = nil
	e.answered = true
	if e.cut = e.cut || cut; !cut {
		e.x.ResponseEnd = last
	}
	if e.asked {
		p.finish(e, e.end(), time)
	}
}

func (e *pair) end() exchange.End {
	if e.cut {
		return exchange.Lost
	}
	return exchange.Complete
}

// begin makes an exchange.
func (p *Pairer) begin(c *conn, time int64) *pair {
	var e *pair
	if n := len(p.pairs); n > 0 {
		e, p.pairs = p.pairs[n-1], p.pairs[:n-1]
		*e = pair{}
	} else {
		e = &pair{}
	}
	e.conn, e.begun, e.cost = c, time, pairBytes
	p.memory += pairBytes
	x := &e.x
	x.Connection, x.Stream = c.id, c.seen
	x.Client, x.Server, x.Role = c.client, c.server, c.role
	if c.role != exchange.Server {
		x.Mirror = p.mirror(c.server.Addr().Unmap()) // each time, as the fleet may have changed since the connection began
	}
	x.Scheme = "http"
	c.seen++
	p.open++
	if e.prev = p.newest; e.prev != nil {
		e.prev.next = e
	} else {
		p.oldest = e
	}
	p.newest = e
	return e
}

// sync brings the byte counts of e up to what its parsers have read.
func (c *conn) sync(e *pair) {
	if e == c.asking && !c.headless {
		q := &c.parsers[c.req]
		e.x.RequestBytes, e.x.RequestWireBytes, e.x.Suspect = q.Content(), q.Wire(), q.Suspect()
	}
	if e == c.answering {
		q := &c.parsers[1-c.req]
		e.x.ResponseBytes, e.x.ResponseWireBytes = q.Content(), e.interim+q.Wire()
	}
}

// finish ends e, which must not be used afterwards.
func (p *Pairer) finish(e *pair, end exchange.End, time int64) {
	c := e.conn
	c.sync(e)
	if c.asking == e {
		c.asking = nil
	}
	if c.answering == e {
		c.answering = nil
	}
	e.x.End = end
	if e.x.HasRequest && !e.x.HasResponse {
		p.count[exchange.UnmatchedRequests]++
	}
	p.count[exchange.Outcomes]++
	p.open--
	p.memory -= e.cost
	if e.prev != nil {
		e.prev.next = e.next
	} else {
		p.oldest = e.next
	}
	if e.next != nil {
		e.next.prev = e.prev
	} else {
		p.newest = e.prev
	}
	p.observe(exchange.Outcome, e, time)
	if p.memory+(len(p.pairs)+1)*pairBytes <= int(p.cfg.MaxOpenMemory) {
		x := &e.x // which is not to keep strings while it is spare
		x.Method, x.Target, x.Host, x.UserAgent, x.Domain, x.Section = "", "", "", "", "", ""
		p.pairs = append(p.pairs, e)
	}
}

// observe shows an event to the sink.
func (p *Pairer) observe(ev exchange.Event, e *pair, time int64) {
	o := &p.obs
	*o = exchange.Observation{Event: ev, Time: time, Exchange: &e.x}
	if ev != exchange.RequestSeen {
		x := &e.x
		o.NewRequestBytes, e.reqBytes = x.RequestBytes-e.reqBytes, x.RequestBytes
		o.NewRequestWireBytes, e.reqWire = x.RequestWireBytes-e.reqWire, x.RequestWireBytes
		o.NewResponseBytes, e.respBytes = x.ResponseBytes-e.respBytes, x.ResponseBytes
		o.NewResponseWireBytes, e.respWire = x.ResponseWireBytes-e.respWire, x.ResponseWireBytes
	}
	p.sink.Observe(o)
	o.Exchange = nil
}

// Progress reports the new bytes of every exchange that has been open for
// longer than 60 s, with events of the time now (nanoseconds since the Unix
// epoch). Call it when a bucket is about to close, with its last nanosecond.
func (p *Pairer) Progress(now int64) {
	for e := p.oldest; e != nil; e = e.next {
		if e.begun > now-longOpen {
			return
		}
		x := &e.x
		e.conn.sync(e)
		if x.RequestWireBytes != e.reqWire || x.ResponseWireBytes != e.respWire {
			p.observe(exchange.Progress, e, now)
		}
	}
}

// protocol names a version as Exchange.Protocol does.
func protocol(version uint8) string {
	switch version {
	case 9:
		return "http/0.9"
	case 10:
		return "http/1.0"
	}
	return "http/1.1"
}
