package stream

import (
	"cmp"
	"fmt"
	"runtime/debug"
	"slices"
	"unsafe"

	"github.com/httpctl/httpctl/agent/decode"
	"github.com/httpctl/httpctl/pkg/exchange"
)

// Table keeps the flows of one pipeline. It is used by one goroutine.
type Table struct {
	index
	handler  Handler
	counters *exchange.Counters
	pool     pool
	holes    holes
	out      *item // taken from a queue, being delivered

	maxFlows, maxFlowBuffer     int
	idle, halfOpen, holeTimeout int64
	grain                       int64 // how stale the order of a list may be

	time   int64  // of the newest packet, or as told by Advance
	high   int64  // time when it last stepped back
	packet uint64 // newest
	due    int64  // when the lists are looked at next, by the clock

	few   int // fewFlows
	ahead ahead
	chunk Chunk // handed to the handler, so that it is not allocated

	conns     []*Conn // to be used again
	ids       uint64
	carrying  int // connections that carry bytes
	late      uint64
	duplicate uint64
	ignored   uint64
	strange   uint64
	guesses   uint64
	fault     string
}

// window is how far from the expected sequence number a segment may be: the largest
// that window scaling can announce (RFC 7323 section 2.3).
const window = 1 << 30

// near is how far out of place an RST or a late packet of a closed connection may be, and how
// far behind any segment that is not known to be sent again (see resent): a usual window. A random
// number is within by 1 in 2,048.
const near = 1 << 20

// linger is how long a closed connection is remembered after its last packet
// with data: the pauses between retransmissions double, and one after 26 s is the eighth.
const linger = 30e9

// silence is what has to follow an RST that may have been ignored: four
// retransmissions of Linux (0.2 + 0.4 + 0.8 + 1.6 s) fit into it.
const silence = 5e9

// disorder is how far in time packets come out of their order; a longer step is the clock's.
const disorder = 10e9

// spareConns bounds the Conns that are kept to be used again.
const spareConns = 4096

// New returns an empty table. cfg is valid; counters are added to and belong to
// the pipeline.
func New(cfg Config, h Handler, counters *exchange.Counters) *Table {
	t := &Table{
		handler: h, counters: counters,
		few: fewFlows, maxFlows: cfg.MaxFlows, maxFlowBuffer: int(cfg.MaxFlowBuffer),
	}
	t.SetTimeouts(cfg)
	t.pool.limit = int(cfg.MaxBuffer)
	t.index.init()
	return t
}

// SetTimeouts changes the timeouts to those of cfg. Holes that are waited for already keep their deadline.
func (t *Table) SetTimeouts(cfg Config) {
	t.idle, t.halfOpen, t.holeTimeout = int64(cfg.FlowIdleTimeout), int64(cfg.HalfOpenTimeout), int64(cfg.HoleTimeout)
	t.grain = min(int64(1e9), t.idle/16, t.halfOpen/16)
}

// tick advances the clock. The clock starts with the first packet and goes with
// packet time; when that steps back by more than disorder, it goes on from where it was. When it then steps
// forward as far, as for a packet out of its order in a file, only what is beyond the newest time counts.
func (t *Table) tick(time int64) {
	d := time - t.time
	switch {
	case t.now == 0:
		t.time, t.now = time, 1
	case (time > t.time) != (d > 0) || d < -disorder:
		t.high = max(t.high, t.time)
		t.time = time // a step back, or too far to tell
	case d > 0 && t.now < 1<<62:
		t.time = time
		switch beyond := time - t.high; {
		case time < t.high && d > disorder:
			d = 0
		case time >= t.high && beyond >= 0:
			d = min(d, beyond)
			t.high = 0
		}
		t.now += min(d, int64(25*3600e9)) // longer than any timeout
	}
}

// Segment takes the next segment. What the handler is given is borrowed from it.
func (t *Table) Segment(s *decode.Segment) { t.segment(s, t.sum(&s.Flow)) }

func (t *Table) segment(s *decode.Segment, hash uint32) {
	t.tick(s.Time)
	t.packet = s.Packet
	if t.now >= t.due || len(t.holes) > 0 && t.holes[0].deadline <= t.now {
		t.expire()
	}
	n, e, dir := t.find(hash, &s.Flow)
	if e == nil {
		if s.Flags&decode.RST != 0 || s.Flags&(decode.SYN|decode.ACK) == 0 && len(s.Payload) == 0 || s.Flags&(decode.SYN|decode.FIN) == decode.FIN && s.Length <= 0 {
			return // nothing to follow
		}
		if t.used >= t.maxFlows {
			t.evict()
		}
		n, e = t.add(hash, &s.Flow)
		e.last = t.now
		t.link(n, e, half)
	}
	t.handle(n, e, dir, s)
	for t.pool.lent > t.pool.limit && len(t.holes) > 0 {
		t.relieve()
	}
}

// handle takes a segment of a known flow. Data in order, and an acknowledgement without any, take the short way.
func (t *Table) handle(n uint32, e *entry, dir uint8, s *decode.Segment) {
	defer t.rescue(n, e)
	me, peer := &e.side[dir], &e.side[dir^1]
	if e.state == live && s.Flags&(decode.FIN|decode.SYN|decode.RST|decode.ACK) == decode.ACK && s.Seq == me.next &&
		s.Length == len(s.Payload) && int32(s.Ack-peer.next) <= 0 && e.conn != nil && e.conn.state.held == nil &&
		me.is&(known|seen|acked|finished) == known|seen|acked && e.from == nobody && e.far == 0 {
		if int32(s.Ack-me.ack) > 0 {
			me.ack = s.Ack
		}
		t.touch(n, e)
		if len(s.Payload) > 0 {
			t.bytes(n, e, dir, s.Payload, s.Time, s.Packet)
		}
		return
	}
	t.examine(n, e, dir, s)
}

func (t *Table) touch(n uint32, e *entry) {
	e.last = t.now
	if t.now-e.moved >= t.grain {
		t.move(n, e, e.state)
	}
}

// connection returns the flow's Conn, making it before its first bytes.
func (t *Table) connection(e *entry, dir uint8) *Conn {
	if e.conn != nil {
		return e.conn
	}
	var c *Conn
	if k := len(t.conns); k > 0 {
		c, t.conns = t.conns[k-1], t.conns[:k-1]
	} else {
		c = new(Conn)
	}
	if e.client == nobody {
		e.client = guessClient(&e.key, dir)
	}
	t.ids++
	c.ID = t.ids
	c.Client, c.Server = e.key.Source(), e.key.Destination()
	if e.client == 1 {
		c.Client, c.Server = c.Server, c.Client
	}
	c.Handshake = e.side[0].has(synced) || e.side[1].has(synced)
	e.conn = c
	t.carrying++
	t.count(e)
	return c
}

// guessClient decides without a handshake: a system port belongs to the server, an
// ephemeral one (Linux's range) to the client if only one is; else the first sender asks.
func guessClient(f *decode.Flow, sender uint8) uint8 {
	const system, ephemeral = 1024, 32768
	src, dst := f.SrcPort, f.DstPort
	switch {
	case src < system && dst >= system:
		return 1
	case dst < system && src >= system:
		return 0
	case src < ephemeral && dst >= ephemeral:
		return 1
	case dst < ephemeral && src >= ephemeral:
		return 0
	}
	return sender
}

// count counts a flow once, when it is known to be a connection.
func (t *Table) count(e *entry) {
	if !e.counted {
		e.counted = true
		t.counters[exchange.Connections]++
	}
}

// open tells the handler of a connection before its first chunk.
func (t *Table) open(e *entry, dir uint8, time int64) *Conn {
	c := t.connection(e, dir)
	if !c.opened {
		c.opened = true
		t.handler.Opened(c, time)
		for d := range uint8(2) {
			if e.side[d].has(finished) {
				t.handler.Finished(c, e.direction(d), time)
			}
		}
	}
	return c
}

// end closes a connection and leaves a tombstone. What is held is delivered first.
func (t *Table) end(n uint32, e *entry, reason CloseReason) {
	if e.state != quiet {
		if c := e.conn; c != nil && reason != ByFIN {
			t.settle(n, e, false, true)
			if e.conn != c || e.state == closed {
				return // ended by what was held
			}
		}
		if e.state != quiet {
			for dir := range uint8(2) {
				t.tail(n, e, dir)
			}
		}
	}
	e.last = t.now
	t.move(n, e, closed)
	t.discard(e, reason)
}

// tail declares what the other end acknowledged and never came, at the end.
func (t *Table) tail(n uint32, e *entry, dir uint8) {
	me, peer := &e.side[dir], &e.side[dir^1]
	lost := peer.ack - me.next
	if !me.has(known) || me.has(finished) || !peer.has(acked) || e.state == quiet || lost < 2 || lost > window {
		return // one more than expected is a FIN that was not captured
	}
	if e.conn != nil && e.conn.opened {
		t.gap(n, e, dir, lost, t.time, t.packet)
		return
	}
	t.counters[exchange.Gaps]++
	t.counters[exchange.GapBytes] += uint64(lost)
	me.next += lost
}

// discard says farewell to the handler.
func (t *Table) discard(e *entry, reason CloseReason) {
	c := e.conn
	if c == nil {
		return
	}
	t.release(e)
	e.conn = nil
	t.carrying--
	if c.opened {
		t.close(c, reason)
	}
	if len(t.conns) < spareConns {
		*c = Conn{}
		t.conns = append(t.conns, c)
	}
}

func (t *Table) close(c *Conn, reason CloseReason) {
	defer t.caught()
	t.handler.Closed(c, reason, t.time)
}

// endSafely is end for a flow other than the one whose segment is handled.
func (t *Table) endSafely(n uint32, e *entry, reason CloseReason) {
	defer t.rescue(n, e)
	t.end(n, e, reason)
}

// caught counts a panic, as a deferred call.
func (t *Table) caught() {
	if r := recover(); r != nil {
		t.note(r)
	}
}

func (t *Table) note(r any) {
	t.counters[exchange.FlowPanics]++
	if t.fault == "" {
		t.fault = fmt.Sprintf("%v\n%s", r, debug.Stack())
	}
}

// rescue ends a panic at the flow that caused it, as a deferred call: the
// connection is closed, and its later packets are passed over.
func (t *Table) rescue(n uint32, e *entry) {
	r := recover()
	if r == nil {
		return
	}
	t.note(r)
	if t.out != nil {
		t.pool.put(t.out)
		t.out = nil
	}
	t.discard(e, ByEviction)
	if e.state != closed {
		t.move(n, e, quiet)
	}
}

// relieve gives up the hole that is due first, of any flow, to free memory.
func (t *Table) relieve() {
	n := t.holes[0].n
	e := t.at(n)
	defer t.rescue(n, e)
	t.force(n, e)
}

// evict makes room for a flow.
func (t *Table) evict() {
	for _, s := range [...]state{closed, half, quiet, suspect, live} {
		n := t.lists[s].head
		if n == 0 {
			continue
		}
		if s != closed {
			t.counters[exchange.EvictedFlows]++
		}
		t.drop(n, ByEviction)
		return
	}
}

// drop ends a flow and forgets it.
func (t *Table) drop(n uint32, reason CloseReason) {
	e := t.at(n)
	if e.state != closed {
		t.endSafely(n, e, reason)
	}
	t.remove(n, e)
}

// expire gives up holes and ends flows whose time is up.
func (t *Table) expire() {
	for len(t.holes) > 0 && t.holes[0].deadline <= t.now {
		n := t.holes[0].n
		t.settleSafely(n, t.at(n))
	}
	if t.now < t.due {
		return
	}
	t.due = t.now + t.grain
	for s, timeout := range [states]int64{half: t.halfOpen, live: t.idle, quiet: t.idle, suspect: silence, closed: linger} {
		for n := t.lists[s].head; n != 0 && t.now-t.at(n).last >= timeout; n = t.lists[s].head {
			reason := ByTimeout
			if state(s) == suspect {
				reason = ByRST
			}
			t.drop(n, reason)
		}
	}
}

func (t *Table) settleSafely(n uint32, e *entry) {
	defer t.rescue(n, e)
	t.settle(n, e, false, false)
}

// Advance tells the time when no packet did. It expires idle flows and gives
// up holes, as Segment does.
func (t *Table) Advance(now int64) {
	if t.now == 0 {
		return // nothing to expire, and the first packet starts the clock
	}
	t.tick(now)
	t.expire()
}

// Drain ends every connection at the end of the source, oldest first: what is held
// is delivered, with its gaps declared. The table is then empty.
func (t *Table) Drain(now int64) {
	t.Advance(now)
	var open []uint32
	for n := uint32(1); n <= t.made; n++ {
		if e := t.at(n); e.state != free {
			if e.conn == nil {
				t.drop(n, ByDrain)
				continue
			}
			open = append(open, n)
		}
	}
	slices.SortFunc(open, func(a, b uint32) int { return cmp.Compare(t.at(a).conn.ID, t.at(b).conn.ID) })
	for _, n := range open {
		t.drop(n, ByDrain)
	}
}

// Flows returns how many flows are tracked, tombstones excluded.
func (t *Table) Flows() int { return t.used - t.lists[closed].len }

// Stats is what a table holds now, and what it passed over since it was made.
type Stats struct {
	// Flows counts by state: HalfOpen (no handshake completed, no bytes), Ignored (of no
	// interest), Closing (tombstones, and after an RST that may be ignored).
	Flows, HalfOpen, Ignored, Closing int
	// Connections is how many carry bytes.
	Connections int
	// Held is the memory of segments that wait, in bytes; at most max_buffer
	// after each call. Memory estimates all that the table has allocated.
	Held, Memory int64
	// Bytes not delivered because they were before; because their direction or
	// connection had ended; because the handler had no interest.
	DuplicateBytes, LateBytes, IgnoredBytes uint64
	// Strange counts segments far outside the window.
	Strange uint64
	// Guesses counts the times that two segments waited for each other, one of them
	// a retransmission whose first copy was lost: which came first was guessed.
	Guesses uint64
	// Fault is the first panic with its stack, "" if there was none.
	Fault string
}

// Stats returns the current values. It costs nothing.
func (t *Table) Stats() Stats {
	const connMemory = int64(unsafe.Sizeof(Conn{}))
	return Stats{
		Flows: t.Flows(), HalfOpen: t.lists[half].len, Ignored: t.lists[quiet].len,
		Closing: t.lists[closed].len + t.lists[suspect].len, Connections: t.carrying,
		Held: int64(t.pool.lent),
		Memory: int64(len(t.slabs))*int64(unsafe.Sizeof([slabSize]entry{})) + int64(len(t.slots))*8 +
			int64(t.carrying+len(t.conns))*connMemory + int64(t.pool.lent+t.pool.spare),
		DuplicateBytes: t.duplicate, LateBytes: t.late, IgnoredBytes: t.ignored,
		Strange: t.strange, Guesses: t.guesses, Fault: t.fault,
	}
}
