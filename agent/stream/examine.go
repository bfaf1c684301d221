package stream

import "github.com/httpctl/httpctl/agent/decode"

// maxLength is beyond what an IP packet can carry; a larger claim is a lie.
const maxLength = 1 << 16

// farLimit segments with data in a row far from the expected numbers are
// a new connection whose SYN was not captured, or an old one of which a forged
// number made the table lose its place.
const farLimit = 8

// examine takes any segment of a known flow: handshakes, ends, what is out of
// order, and what is not to be believed.
func (t *Table) examine(n uint32, e *entry, dir uint8, s *decode.Segment) {
	length := len(s.Payload)
	if s.Length > length && s.Length <= maxLength {
		length = s.Length
	}
	switch {
	case e.state == closed:
		if !t.revive(n, e, dir, s, length) {
			return
		}
	case s.Flags&decode.SYN != 0:
		if !t.synchronize(n, e, dir, s, length) {
			return
		}
	case e.from != nobody:
		t.confirm(n, e, dir, s)
	case s.Flags&(decode.ACK|decode.RST) == decode.ACK && e.side[dir^1].rivalled(&e.side[dir], s.Ack):
		e.first, e.from, e.rival = s.Ack, dir^1, true
	}
	me, peer := &e.side[dir], &e.side[dir^1]
	seq := s.Seq
	if s.Flags&decode.SYN != 0 {
		seq++
	}
	if s.Flags&decode.RST != 0 {
		t.reset(n, e, dir, s)
		return
	}
	if !me.has(known) {
		me.next = seq
		me.is |= known
	}
	ahead := int32(seq - me.next)
	if ahead < 0 && ahead > -near && !me.has(started|synced|finished) && length > 1 {
		// The first packets of a connection that was joined in its middle came out of
		// order. (A single byte would be a keep-alive.)
		me.next, ahead = seq, 0
	}
	if ahead == 1 && (length > 0 || s.Flags&decode.FIN != 0) && !me.has(started|synced|finished) && !e.holdsNext(dir) {
		// The first packet was a keep-alive, one below the next byte.
		me.next, ahead = seq, 0
	}
	if ahead > window || ahead < -near && !(length > 0 && e.resent(dir, seq)) {
		t.strange++
		if length > 0 {
			if e.far++; e.far >= farLimit {
				t.restart(n, e)
				t.examine(n, e, dir, s)
			}
		}
		return
	}
	e.far = 0
	me.is |= seen
	if s.Flags&decode.ACK != 0 && !peer.has(known) {
		peer.next = s.Ack
		peer.is |= known
	}
	hasAck := s.Flags&decode.ACK != 0 && !(e.rival && e.from == dir^1 && s.Ack == e.first)
	if hasAck && s.Ack-peer.next == 1 && length == 0 && !peer.has(started|synced|finished) && e.conn == nil {
		peer.next = s.Ack // the answer to such a keep-alive
	}
	if hasAck && (!me.has(acked) || int32(s.Ack-me.ack) > 0) && int32(s.Ack-peer.next) <= window {
		me.ack = s.Ack
		me.is |= acked
	}
	if e.state == half && (length > 0 || me.has(acked) && peer.has(acked)) {
		t.move(n, e, live)
	}
	if e.state == quiet {
		t.touch(n, e)
		t.passOver(n, e, dir, seq, length, s)
		return
	}
	if e.state == suspect {
		if length == 0 || ahead < 0 {
			return
		}
		t.move(n, e, live) // the RST was ignored: its receiver goes on, or is still sent to
	}
	t.touch(n, e)
	t.take(n, e, dir, seq, length, hasAck, s)
}

// holdsNext reports whether the next byte of a direction waits to be delivered.
func (e *entry) holdsNext(dir uint8) bool {
	if e.conn == nil || e.conn.state.held == nil {
		return false
	}
	m := e.conn.state.held.head(dir)
	return m != nil && int32(m.seq-e.side[dir].next) <= 0
}

// take delivers or holds what a segment brings.
func (t *Table) take(n uint32, e *entry, dir uint8, seq uint32, length int, hasAck bool, s *decode.Segment) {
	me, peer := &e.side[dir], &e.side[dir^1]
	var h *held
	if e.conn != nil {
		h = e.conn.state.held
	}
	if h != nil {
		h.packets++
	}
	fin := s.Flags&decode.FIN != 0
	if length == 0 && !fin {
		t.settle(n, e, false, false)
		return
	}
	switch past := int32(me.next - seq - uint32(length)); {
	case me.has(finished):
		if past < 1 && length > 0 {
			t.late += uint64(length)
		} else {
			t.duplicate += uint64(length)
		}
		return
	case past > 0 || past == 0 && !fin:
		t.duplicate += uint64(length)
		t.settle(n, e, false, false)
		return
	}
	wait := hasAck && !met(peer, s.Ack)
	if wait && h == nil && peer.has(blind) && !peer.has(seen) {
		// Nothing of the other direction is captured.
		if lost := s.Ack - peer.next; lost == 1 {
			peer.is |= finGuess
		} else if !t.gap(n, e, dir^1, lost, s.Time, s.Packet) {
			return
		}
		wait = false
	}
	if wait || int32(seq-me.next) > 0 {
		t.hold(n, e, dir, item{seq: seq, length: length, ack: s.Ack, hasAck: hasAck, fin: fin, time: s.Time, packet: s.Packet}, s.Payload)
		return
	}
	if t.deliver(n, e, dir, seq, length, s.Payload, fin, s.Time, s.Packet) {
		t.settle(n, e, false, false)
	}
}

// passOver follows a connection of no interest, for its end.
func (t *Table) passOver(n uint32, e *entry, dir uint8, seq uint32, length int, s *decode.Segment) {
	me := &e.side[dir]
	t.ignored += uint64(length)
	if end := seq + uint32(length); int32(end-me.next) > 0 {
		me.next = end
	}
	if s.Flags&decode.FIN != 0 {
		me.is |= finished
		if e.side[dir^1].has(finished) {
			t.end(n, e, ByFIN)
		}
	}
}

// reset takes an RST.
func (t *Table) reset(n uint32, e *entry, dir uint8, s *decode.Segment) {
	me, peer := &e.side[dir], &e.side[dir^1]
	ahead := int32(s.Seq - me.next)
	if me.has(finished) && ahead == -1 {
		ahead = 0 // does not count its FIN
	}
	hasAck := s.Flags&decode.ACK != 0
	if !me.has(known) {
		// A refused SYN is answered by an RST that acknowledges it.
		if !hasAck || !peer.has(known) || int32(s.Ack-peer.next) >= 0 && int32(s.Ack-peer.next) < near {
			ahead = 0
		} else {
			ahead = near + 1
		}
		hasAck = false
	}
	switch {
	case ahead < -near || ahead > near:
		t.strange++
	case e.state == half:
		t.drop(n, ByRST)
	case e.state == quiet, e.conn == nil && ahead == 0:
		t.end(n, e, ByRST)
	case ahead < 0:
		if e.state == live {
			e.last = t.now
			t.move(n, e, suspect)
		}
	case ahead == 0 && (e.conn == nil || e.conn.state.held == nil) && (!hasAck || met(peer, s.Ack)):
		t.end(n, e, ByRST)
	default:
		if e.state == suspect {
			t.move(n, e, live)
		}
		t.hold(n, e, dir, item{seq: s.Seq, ack: s.Ack, hasAck: hasAck, rst: true, time: s.Time, packet: s.Packet}, nil)
	}
}

// synchronize takes a SYN on a known flow. It reports whether the rest of the
// segment is to be looked at.
func (t *Table) synchronize(n uint32, e *entry, dir uint8, s *decode.Segment, length int) bool {
	me, peer := &e.side[dir], &e.side[dir^1]
	first := s.Seq + 1
	answer := s.Flags&decode.ACK != 0
	before := int32(me.next - first)
	switch {
	case me.has(synced):
		if me.isn == first {
			return true // sent again
		}
	case !me.has(known) || before >= 0 && before < near:
		if !me.has(started) {
			me.next = first
		}
		me.isn = first
		me.is |= known | synced | seen
		if e.client == nobody {
			e.client = dir
			if answer {
				e.client = dir ^ 1
			}
		}
		t.count(e)
		return true
	}
	if answer && me.has(synced) && peer.answered(s.Ack) {
		// A second answer to the same SYN, with a number of its own: of two servers behind one address, or of a
		// proxy that forgets. A client keeps the first that reaches it (RFC 9293 section 3.10.7.4, SYN-SENT), and says
		// which by what it acknowledges.
		if !me.has(started) && !peer.has(acked) {
			e.first, e.from, e.rival = first, dir, true
		}
		return false
	}
	// Another connection on the same ports.
	switch {
	case e.state == half && !peer.has(seen), length > 0 && !answer:
		t.restart(n, e)
	case answer && e.from == dir^1 && s.Ack-e.first < near:
		t.adopt(n, e)
	case answer:
		t.restart(n, e)
	default:
		e.first, e.from, e.rival = first, dir, false
		return false
	}
	return t.synchronize(n, e, dir, s, length)
}

// answered reports whether an acknowledgement number is that of an answer to this side's SYN, with or without
// the data that came with it.
func (s *side) answered(ack uint32) bool {
	if s.has(synced) {
		return ack-s.isn <= min(s.next-s.isn, maxLength)
	}
	return s.has(known) && !s.has(started) && ack == s.next
}

// confirm looks whether the sender of a SYN on a live connection goes on from it, or which of two answers to
// a SYN was taken.
func (t *Table) confirm(n uint32, e *entry, dir uint8, s *decode.Segment) {
	if s.Flags&decode.RST != 0 {
		return
	}
	me := &e.side[e.from]
	taken := e.from == dir && s.Seq == e.first
	if e.rival && e.from != dir && s.Flags&decode.ACK != 0 {
		if taken = s.Ack-e.first < near; !taken && s.Ack-me.isn < near {
			e.from = nobody // the other one was
			return
		}
	}
	switch {
	case !taken:
	case e.rival:
		me.next, me.isn = e.first, e.first
		e.from = nobody
	default:
		t.adopt(n, e)
	}
}

// rivalled reports whether the first acknowledgement that the other side sends is of another answer than the one of this
// side that was seen. That there was one is believed when either goes on from it.
func (s *side) rivalled(other *side, ack uint32) bool {
	return s.has(synced) && !s.has(started) && !other.has(acked) && ack-s.isn > near
}

// adopt starts the connection whose SYN was seen on a live one.
func (t *Table) adopt(n uint32, e *entry) {
	first, from := e.first, e.from
	t.restart(n, e)
	me := &e.side[from]
	me.next, me.isn, me.is = first, first, known|synced|seen
	e.client = from
	t.count(e)
}

// restart ends a flow's connection and makes its entry new.
func (t *Table) restart(n uint32, e *entry) {
	if e.state != closed {
		t.end(n, e, ByReuse)
	}
	e.side = [2]side{}
	e.client, e.from, e.far, e.first, e.rival, e.counted = nobody, nobody, 0, 0, false, false
	e.last = t.now
	t.move(n, e, half)
}

// revive decides whether a segment on a tombstone belongs to a new connection.
func (t *Table) revive(n uint32, e *entry, dir uint8, s *decode.Segment, length int) bool {
	me := &e.side[dir]
	switch {
	case s.Flags&decode.RST != 0:
		return false
	case s.Flags&decode.SYN != 0:
		before := int32(me.next - s.Seq - 1)
		if me.has(synced) && me.isn == s.Seq+1 || !me.has(synced) && me.has(known) && before >= 0 && before < near {
			return false
		}
	case length == 0:
		return false
	default:
		if d := int32(s.Seq - me.next); me.has(known) && d > -near && d < near {
			t.late += uint64(length)
			t.touch(n, e) // its sender does not know that it is over
			return false
		}
	}
	t.restart(n, e)
	return s.Flags&decode.SYN == 0 || t.synchronize(n, e, dir, s, length)
}
