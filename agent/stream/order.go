package stream

import (
	"math"

	"github.com/httpctl/httpctl/pkg/exchange"
)

// holePackets is how many packets of a connection may follow before a hole
// that the receiver has acknowledged is given up. Batches of a multi-queue NIC are
// 64 packets; two taps merged into one capture drift by some tens.
const holePackets = 256

// conn is the table's part of a Conn.
type conn struct {
	offset [2]uint64
	solid  [2]uint32 // bytes that were delivered since the last gap, up to 2^31
	held   *held
}

// resent reports whether a segment far behind is one that was delivered and is sent
// again: the other end has not acknowledged it, and no byte since was missing, so that
// next is not where a forged number has put it. After a timeout with more than near
// in flight all of it is sent again.
func (e *entry) resent(dir uint8, seq uint32) bool {
	me, peer := &e.side[dir], &e.side[dir^1]
	return e.conn != nil && me.has(started) && peer.has(acked) && int32(seq-peer.ack) >= 0 &&
		me.next-seq <= e.conn.state.solid[dir]
}

// met reports whether bytes of a direction below ack were all delivered.
func met(s *side, ack uint32) bool {
	d := int32(ack - s.next)
	return d <= 0 || s.has(finished) || d > window || d == 1 && s.has(finGuess)
}

// ready reports whether a queue's head can be delivered.
func (e *entry) ready(h *held, dir uint8, m *item) bool {
	if m == nil || int32(m.seq-e.side[dir].next) > 0 || m.hasAck && !met(&e.side[dir^1], m.ack) {
		return false
	}
	// An RST ends both directions, so the other one goes first.
	return !m.rst || h.head(dir^1) == nil
}

// choose returns the direction whose head is to be delivered next.
func (t *Table) choose(e *entry, h *held) (uint8, bool) {
	a, b := h.head(0), h.head(1)
	readyA, readyB := e.ready(h, 0, a), e.ready(h, 1, b)
	switch {
	case readyA && readyB:
		return pick(a.nth > b.nth), true
	case readyA || readyB:
		return pick(readyB), true
	case a != nil && b != nil && int32(a.seq-e.side[0].next) <= 0 && int32(b.seq-e.side[1].next) <= 0:
		// Each waits for the other: one is a retransmission, sent again with a newer
		// acknowledgement than its bytes had. That is the one which repeats delivered
		// bytes, else the one which came later.
		t.guesses++
		behindA, behindB := a.seq != e.side[0].next, b.seq != e.side[1].next
		if behindA != behindB {
			return pick(behindB), true
		}
		return pick(b.nth > a.nth), true
	}
	return 0, false
}

func pick(second bool) uint8 {
	if second {
		return 1
	}
	return 0
}

// missing describes the hole of a direction: where the next known byte is and
// which item shows it, nil if there is no hole.
func (e *entry) missing(h *held, dir uint8) (target uint32, by *item) {
	me := &e.side[dir]
	own, other := h.head(dir), h.head(dir^1)
	if own != nil {
		if int32(own.seq-me.next) <= 0 {
			return 0, nil
		}
		target, by = own.seq, own
	}
	if other != nil && other.hasAck && !met(me, other.ack) && (by == nil || int32(other.ack-target) < 0) {
		target, by = other.ack, other
	}
	return target, by
}

// patience is how long a hole of this direction is waited for.
func (t *Table) patience(s *side) int64 {
	switch {
	case s.has(seen):
		return t.holeTimeout
	case s.has(blind):
		return 0
	}
	return t.holeTimeout / 8
}

// settle delivers what can be, gives up holes whose time is up, and sets the
// deadlines of the others. With force the hole that is due first is given up in
// any case; with flush all are. It ends with nothing held, or a deadline set.
func (t *Table) settle(n uint32, e *entry, force, flush bool) {
	for {
		c := e.conn
		if c == nil || c.state.held == nil {
			return
		}
		h := c.state.held
		if dir, ok := t.choose(e, h); ok {
			m := h.pop(dir)
			h.bytes -= m.cost()
			if m.rst {
				t.pool.put(m)
				t.end(n, e, ByRST)
				return
			}
			t.out = m
			alive := t.deliver(n, e, dir, m.seq, m.length, m.data, m.fin, m.time, m.packet)
			t.out = nil
			t.pool.put(m)
			if !alive {
				return
			}
			continue
		}
		if h.head(0) == nil && h.head(1) == nil {
			t.release(e)
			return
		}
		first, due := uint8(nobody), int64(math.MaxInt64)
		for dir := range uint8(2) {
			target, by := e.missing(h, dir)
			if by == nil {
				t.holes.remove(&h.hole[dir])
				continue
			}
			me, peer := &e.side[dir], &e.side[dir^1]
			deadline := by.arrived + t.patience(me)
			if peer.has(acked) && int32(peer.ack-target) >= 0 && h.packets-by.nth > holePackets {
				deadline = min(deadline, t.now)
			}
			t.holes.set(&h.hole[dir], deadline)
			if deadline < due {
				first, due = dir, deadline
			}
		}
		if !force && !flush && due > t.now {
			return
		}
		force = false
		if !t.giveUp(n, e, h, first) {
			return
		}
	}
}

// giveUp declares the bytes of a hole a gap. It reports whether the
// connection goes on.
func (t *Table) giveUp(n uint32, e *entry, h *held, dir uint8) bool {
	me := &e.side[dir]
	target, by := e.missing(h, dir)
	if !me.has(seen) {
		me.is |= blind
	}
	if by.rst && by == h.head(dir) && target == by.seq {
		// Not evidence of bytes: its sender may have guessed the number.
		m := h.pop(dir)
		h.bytes -= m.cost()
		t.pool.put(m)
		t.end(n, e, ByRST)
		return false
	}
	if target-me.next == 1 && h.head(dir) == nil {
		// Nothing follows it, so it may as well have been a FIN. A byte would show
		// itself by what comes after.
		me.is |= finGuess
		return true
	}
	return t.gap(n, e, dir, target-me.next, by.time, by.packet)
}

// release frees what is held for a connection.
func (t *Table) release(e *entry) {
	h := e.conn.state.held
	if h == nil {
		return
	}
	for dir := range h.queue {
		t.holes.remove(&h.hole[dir])
		for i, m := range h.queue[dir] {
			t.pool.put(m)
			h.queue[dir][i] = nil
		}
	}
	e.conn.state.held = nil
	t.pool.putHeld(h)
}

// cut drops what is held behind a FIN, other than an RST, and returns its length.
func (t *Table) cut(h *held, dir uint8) (length uint64) {
	kept := h.queue[dir][:0]
	for _, m := range h.queue[dir] {
		if m.rst {
			kept = append(kept, m)
			continue
		}
		length += uint64(m.length)
		h.bytes -= m.cost()
		t.pool.put(m)
	}
	clear(h.queue[dir][len(kept):])
	h.queue[dir] = kept
	return length
}

// hold keeps a segment that cannot be delivered yet.
func (t *Table) hold(n uint32, e *entry, dir uint8, m item, data []byte) {
	c := t.connection(e, dir)
	h := c.state.held
	if h == nil {
		h = t.pool.getHeld(n)
		c.state.held = h
	}
	if i := h.search(dir, m.seq); i > 0 {
		p := h.queue[dir][i-1]
		if int32(m.end()-p.end()) <= 0 && (!m.fin || p.fin) && (!m.rst || p.rst) {
			// A copy of what is held already, as a retransmission usually is.
			t.duplicate += uint64(m.length)
			return
		}
	}
	p := t.pool.get(data)
	p.seq, p.length, p.ack, p.hasAck = m.seq, m.length, m.ack, m.hasAck
	p.fin, p.rst, p.time, p.packet = m.fin, m.rst, m.time, m.packet
	p.arrived, p.nth = t.now, h.packets
	h.bytes += p.cost()
	h.insert(dir, p)
	for t.settle(n, e, false, false); t.holding(e) > t.maxFlowBuffer; {
		t.force(n, e)
	}
}

func (t *Table) holding(e *entry) int {
	if e.conn == nil || e.conn.state.held == nil {
		return 0
	}
	return e.conn.state.held.bytes
}

// force gives up the first hole of a connection for want of memory.
func (t *Table) force(n uint32, e *entry) {
	before := t.holding(e)
	t.settle(n, e, true, false)
	t.counters[exchange.EvictedBytes] += uint64(max(0, before-t.holding(e)))
}

// deliver hands over a segment that has its place at next or below. It
// reports whether the connection goes on, with its bytes wanted.
func (t *Table) deliver(n uint32, e *entry, dir uint8, seq uint32, length int, data []byte, fin bool, time int64, packet uint64) bool {
	me := &e.side[dir]
	if me.has(finished) {
		t.late += uint64(length)
		return true
	}
	end := seq + uint32(length)
	if cut := int(int32(me.next - seq)); cut > 0 {
		cut = min(cut, length)
		t.duplicate += uint64(cut)
		length -= cut
		data = data[min(cut, len(data)):]
	}
	if len(data) > 0 && !t.bytes(n, e, dir, data, time, packet) {
		return false
	}
	if lost := length - len(data); lost > 0 && !t.gap(n, e, dir, uint32(lost), time, packet) {
		return false
	}
	if fin && me.next == end {
		return t.finish(n, e, dir, time)
	}
	return true
}

// bytes hands over data.
func (t *Table) bytes(n uint32, e *entry, dir uint8, data []byte, time int64, packet uint64) bool {
	c := t.open(e, dir, time)
	e.side[dir].next += uint32(len(data))
	e.side[dir].is = e.side[dir].is&^finGuess | started
	ch := &t.chunk
	*ch = Chunk{Dir: e.direction(dir), Offset: c.state.offset[dir], Data: data, Time: time, Packet: packet}
	c.state.offset[dir] += uint64(len(data))
	c.state.solid[dir] = min(c.state.solid[dir]+uint32(len(data)), 1<<31)
	if !t.handler.Data(c, ch) {
		t.ignore(n, e)
		return false
	}
	return true
}

// gap hands over a gap.
func (t *Table) gap(n uint32, e *entry, dir uint8, length uint32, time int64, packet uint64) bool {
	c := t.open(e, dir, time)
	e.side[dir].next += length
	e.side[dir].is = e.side[dir].is&^finGuess | started
	t.counters[exchange.Gaps]++
	t.counters[exchange.GapBytes] += uint64(length)
	ch := &t.chunk
	*ch = Chunk{Dir: e.direction(dir), Offset: c.state.offset[dir], Gap: uint64(length), Time: time, Packet: packet}
	c.state.offset[dir] += uint64(length)
	c.state.solid[dir] = 0
	if !t.handler.Data(c, ch) {
		t.ignore(n, e)
		return false
	}
	return true
}

// finish notes that a direction has ended.
func (t *Table) finish(n uint32, e *entry, dir uint8, time int64) bool {
	me := &e.side[dir]
	me.is = me.is&^finGuess | finished
	me.next++
	if c := e.conn; c != nil {
		if h := c.state.held; h != nil {
			t.late += t.cut(h, dir)
		}
		if c.opened {
			t.handler.Finished(c, e.direction(dir), time)
		}
	}
	if e.side[dir^1].has(finished) {
		t.end(n, e, ByFIN)
		return false
	}
	return true
}

// ignore stops ordering and delivery.
func (t *Table) ignore(n uint32, e *entry) {
	t.release(e)
	t.index.move(n, e, quiet)
}

func (e *entry) direction(dir uint8) Direction {
	if dir == e.client {
		return ToServer
	}
	return ToClient
}
