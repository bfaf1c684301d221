package stream

import "github.com/httpctl/httpctl/agent/decode"

// With many connections, what is kept of one is in no cache of the processor when its next segment
// comes: the index names the entry, the entry the Conn, the Conn what the handler keeps, and
// each is waited for in turn, 100 ns and more. The same steps of several segments do not depend on each
// other, and a processor loads a dozen lines of memory at the same time if it finds the loads close
// together. So of a batch of segments, each step is taken for all before the next. What is loaded
// is a hint only: the segments are then handled one after another as ever, each looks
// everything up again, and finds it in the cache.

// maxAhead is how many segments are looked at together: with 16 more of the waiting was left, and
// what 64 load is more than the first cache holds.
const maxAhead = 32

// fewFlows is up to how many flows all of it stays in the caches, and is not worth a look.
const fewFlows = 1024

// ahead is what was found of the segments that come next.
type ahead struct {
	hashes  [maxAhead]uint32
	slots   [maxAhead]uint64
	found   [maxAhead]found
	coming  [maxAhead]Coming
	touched uint64 // a use for what is loaded, or the compiler would leave it out
}

type found struct {
	entry  *entry
	length int // of the payload and the FIN, of all its segments in a row
}

// Segments takes the next segments in order, as Segment does one by one, and calls between, unless it is nil, after each.
func (t *Table) Segments(ss []decode.Segment, between func()) {
	for len(ss) > 0 {
		n := min(len(ss), maxAhead)
		if n < 4 || t.used <= t.few {
			for i := range ss[:n] {
				t.Segment(&ss[i])
				if between != nil {
					between()
				}
			}
		} else {
			t.lookAhead(ss[:n])
			for i := range ss[:n] {
				t.segment(&ss[i], t.ahead.hashes[i])
				if between != nil {
					between()
				}
			}
		}
		ss = ss[n:]
	}
}

// lookAhead loads what the segments need. The loops are short on purpose, see above.
func (t *Table) lookAhead(ss []decode.Segment) {
	a := &t.ahead
	hashes, slots := a.hashes[:len(ss)], a.slots[:len(ss)]
	for i := range hashes {
		hashes[i] = t.sum(&ss[i].Flow)
	}
	mask := uint32(len(t.slots) - 1)
	for i, hash := range hashes {
		slots[i] = t.slots[hash&mask]
	}
	all := a.found[:0]
	for i, hash := range hashes {
		slot := slots[i]
		for at := hash; slot != 0 && uint32(slot) != hash; {
			at++
			slot = t.slots[at&mask]
		}
		if slot == 0 {
			continue
		}
		length := len(ss[i].Payload) + int(ss[i].Flags&decode.FIN)
		if i > 0 && hash == hashes[i-1] {
			all[len(all)-1].length += length
			continue
		}
		all = append(all, found{t.at(uint32(slot >> 32)), length})
	}
	touched := a.touched
	for i := range all {
		e := all[i].entry
		touched += uint64(e.hash) + uint64(e.first) // its two lines
	}
	next := a.coming[:0]
	for i := range all {
		if c := all[i].entry.conn; c != nil {
			next = append(next, Coming{c, all[i].length})
		}
	}
	for i := range next {
		touched += next[i].Conn.state.offset[0]
	}
	a.touched = touched
	t.handler.Coming(next)
}
