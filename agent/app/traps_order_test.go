package app

import (
	"slices"

	"github.com/httpctl/httpctl/pkg/testkit"
)

// This file is the part of the rule that is TCP: in which order the bytes of the segments come, and where gaps are.

// A stretch is what a direction shows next: bytes, or a gap where they should be.
type stretch struct {
	conn     int
	up       bool
	from, to int
	gap      bool
}

// order delivers the segments, each when it has its place, and at the end those before which there are
// gaps. All of a trap takes less time than missing bytes are waited for.
func (w *told) order(tr *trap, segments []frame) (out []stretch) {
	var wait []*frame
	deliver := func(i int) {
		f := wait[i]
		me := w.side(f.conn, f.up)
		wait = slices.Delete(wait, i, i+1)
		if me.fin {
			return
		}
		me.started = true
		n, _ := f.captured()
		if end := f.from + n; end > me.next {
			out = append(out, stretch{f.conn, f.up, me.next, end, false})
			if tr.but == nil {
				w.compare(f, me.next, n)
			}
			me.next = end
		}
		if end := f.from + f.size; end > me.next {
			out = append(out, stretch{f.conn, f.up, me.next, end, true})
			me.next = end
		}
		if f.flags&testkit.FIN != 0 && me.next == f.from+f.size {
			me.fin = true
			me.next++
		}
	}
	ready := func() bool {
		for i, f := range wait {
			if f.from <= w.side(f.conn, f.up).next && w.met(f, wait) {
				deliver(i)
				return true
			}
		}
		return false
	}
	gap := func(conn int, up bool, to int) {
		s := w.side(conn, up)
		for _, f := range wait {
			if f.conn == conn && f.up == up && f.from > s.next {
				to = min(to, f.from)
			}
		}
		out = append(out, stretch{conn, up, s.next, to, true})
		s.next = to
	}
	for i := range segments {
		f := &segments[i]
		w.arrive(f)
		if f.size > 0 || f.flags&testkit.FIN != 0 {
			wait = append(wait, f)
		}
		for ready() {
		}
	}
	for len(wait) > 0 {
		f := wait[0]
		if !w.met(f, wait) {
			// What it waits for may be there and wait itself.
			if i := slices.IndexFunc(wait, func(g *frame) bool {
				return g.conn == f.conn && g.up != f.up && g.from <= w.side(g.conn, g.up).next
			}); i >= 0 {
				f = wait[i]
			}
		}
		switch me := w.side(f.conn, f.up); {
		case !w.met(f, wait):
			w.unordered = w.unordered || f.from > me.next
			gap(f.conn, !f.up, f.acked)
		case f.from > me.next:
			gap(f.conn, f.up, f.from)
		}
		for ready() {
		}
	}
	for conn := range w.connections {
		for _, up := range []bool{true, false} {
			// One byte more is a FIN that was not captured.
			if s, other := w.side(conn, up), w.side(conn, !up); s.known && other.acked && !s.fin && other.ack-s.next > 1 {
				gap(conn, up, other.ack)
			}
		}
	}
	return out
}

// arrive takes from a segment what the numbers of both directions are.
func (w *told) arrive(f *frame) {
	me, other, conn := w.side(f.conn, f.up), w.side(f.conn, !f.up), w.connections[f.conn]
	if conn == nil {
		conn = &link{}
		w.connections[f.conn] = conn
	}
	if f.flags&testkit.RST != 0 && !conn.live {
		// Nothing was there yet that it could end.
		*conn, me.known, me.acked, other.known, other.acked = link{}, false, false, false, false
		return
	}
	syn := f.flags&testkit.SYN != 0
	conn.answered = conn.answered || conn.handshake && f.up && f.from == 0 && f.flags&testkit.ACK != 0 || syn && f.flags&testkit.ACK != 0
	conn.handshake = conn.handshake || syn
	conn.live = conn.live || f.size > 0 || f.flags&testkit.ACK != 0 && other.acked
	// An answer to a SYN that is not the one which was taken says nothing of where its direction begins.
	if rival := syn && f.from < -1; !me.known && !rival {
		w.vague = w.vague || conn.handshake && f.from > 0
		me.next, me.known = f.from, true
	}
	if !conn.handshake && !me.started {
		switch {
		case f.size > 1:
			me.next = min(me.next, f.from) // joined where packets are out of order
		case f.from == me.next+1 && (f.size > 0 || f.flags&testkit.FIN != 0):
			me.next++ // what was seen of it first was a keep-alive
		}
	}
	if f.flags&testkit.ACK == 0 {
		return
	}
	if !other.known || !conn.handshake && !other.started && f.size == 0 && f.acked == other.next+1 && f.flags&testkit.FIN == 0 {
		// Where one end begins may be hidden though the other's SYN is there.
		w.vague = w.vague || conn.handshake && f.acked > 0 && f.size > 0
		other.next, other.known = f.acked, true // or the answer to such a keep-alive
	}
	me.ack, me.acked = max(me.ack, f.acked), true
}

// met says whether what a segment acknowledges was delivered, or is only a FIN that was not captured.
func (w *told) met(f *frame, wait []*frame) bool {
	other := w.side(f.conn, !f.up)
	missing := f.acked - other.next
	return f.flags&testkit.ACK == 0 || missing <= 0 || other.fin ||
		missing == 1 && !slices.ContainsFunc(wait, func(g *frame) bool { return g.conn == f.conn && g.up != f.up })
}

// compare looks whether the bytes of a segment are those that were said.
func (w *told) compare(f *frame, from, n int) {
	for i := from; i < f.from+n && f.parts == 1; i++ {
		p := w.side(f.conn, f.up).part(i)
		if p != nil && f.Data[f.header+f.options+i-f.from] != p.text[i-p.from] {
			w.vague = true
		}
	}
}
