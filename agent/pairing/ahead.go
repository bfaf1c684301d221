package pairing

import "github.com/httpctl/httpctl/agent/stream"

// maxAhead is how many segments Coming looks at.
const maxAhead = 32

// lookAhead is what was found of the segments that come next.
type lookAhead struct {
	conns   [maxAhead]coming
	pairs   [maxAhead]*pair
	touched uint64 // a use for what is loaded, or the compiler would leave it out
}

type coming struct {
	conn   *conn
	length int
}

// Coming implements stream.Handler. It loads what any bytes of these connections need, then the
// rest of those where it is more than bytes of a body, and their exchanges. A step
// takes one line of memory of all of them before the next step, as stream does.
func (p *Pairer) Coming(next []stream.Coming) {
	look := &p.look
	conns := look.conns[:0]
	for i := range next[:min(len(next), maxAhead)] {
		n := &next[i]
		if c, ok := n.Conn.User.(*conn); ok && n.Length > 0 {
			conns = append(conns, coming{c, n.Length})
		}
	}
	touched := look.touched
	for i := range conns {
		c := conns[i].conn
		touched += c.parsers[0].PeekSkipped() + c.parsers[1].PeekSkipped() + c.parsers[1].Wire() + uint64(c.last[0]) + uint64(c.guessed)
	}
	rest, pairs := conns[:0], look.pairs[:0]
	for _, n := range conns {
		c, e := n.conn, n.conn.answering
		switch {
		case e != nil && c.parsers[1-c.req].Within(n.length), e == nil && c.asking != nil && c.parsers[c.req].Within(n.length):
			continue
		case e == nil && len(c.queue) > 0:
			e = c.queue[0].pair
		}
		if rest = append(rest, n); e != nil {
			pairs = append(pairs, e)
		}
	}
	for i := range rest {
		c := rest[i].conn
		touched += c.parsers[0].Wire() + c.id + uint64(c.server.Port())
	}
	for _, e := range pairs {
		x := &e.x
		touched += x.Connection + uint64(x.Role) + uint64(len(x.Method)) + uint64(x.RequestStart) + uint64(x.ResponseStart) + e.interim + e.reqBytes
	}
	look.touched = touched
}
