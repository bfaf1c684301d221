package stream

import "math/bits"

// held is what a connection keeps while bytes are missing.
type held struct {
	n       uint32 // the entry's number
	bytes   int    // what its items count for
	packets uint64 // packets of the connection since held was made
	queue   [2][]*item
	hole    [2]hole
}

// A hole is a direction that cannot go on: the bytes at its next are missing,
// and later ones, or an acknowledgement of them, are there.
type hole struct {
	n        uint32
	dir      uint8
	pos      int // in the heap from 1, 0 for outside
	deadline int64
}

// An item is a segment that waits.
type item struct {
	seq     uint32
	length  int    // on the wire
	ack     uint32 // bytes of the other direction below it go first
	hasAck  bool
	fin     bool
	rst     bool
	data    []byte // captured, in block
	block   []byte
	time    int64
	packet  uint64
	arrived int64  // by the table's clock
	nth     uint64 // held.packets when it came
}

func (m *item) end() uint32 { return m.seq + uint32(m.length) }

// itemCost is what an item counts for beside its block.
const itemCost = 128

func (m *item) cost() int { return itemCost + cap(m.block) }

// insert puts m in order of sequence into the queue. Bytes that were sent
// first carry the acknowledgement of their first sending, so a retransmission waits for no more
// than what comes behind it does.
func (h *held) insert(dir uint8, m *item) {
	at := h.search(dir, m.seq)
	q := append(h.queue[dir], nil)
	copy(q[at+1:], q[at:])
	q[at] = m
	h.queue[dir] = q
	if at+1 < len(q) {
		m.yield(q[at+1])
	}
	for i := at - 1; i >= 0 && q[i].yield(m); i-- {
	}
}

// search returns where in the queue a segment that starts at seq belongs:
// after those that start there or before.
func (h *held) search(dir uint8, seq uint32) int {
	q := h.queue[dir]
	low, high := 0, len(q)
	if high > 0 && int32(seq-q[high-1].seq) >= 0 {
		return high
	}
	for low < high {
		if mid := (low + high) / 2; int32(q[mid].seq-seq) <= 0 {
			low = mid + 1
		} else {
			high = mid
		}
	}
	return low
}

// yield lowers m's acknowledgement to that of a later item, if it is lower
// and no byte of m is behind it.
func (m *item) yield(later *item) bool {
	if m.hasAck && int32(later.end()-m.end()) >= 0 && (!later.hasAck || int32(m.ack-later.ack) > 0) {
		m.ack, m.hasAck = later.ack, later.hasAck
		return true
	}
	return false
}

func (h *held) head(dir uint8) *item {
	if len(h.queue[dir]) == 0 {
		return nil
	}
	return h.queue[dir][0]
}

// pop removes the head. Queues are bounded by max_flow_buffer / itemCost, and
// usually hold a few items.
func (h *held) pop(dir uint8) *item {
	q := h.queue[dir]
	m := q[0]
	copy(q, q[1:])
	q[len(q)-1] = nil
	h.queue[dir] = q[:len(q)-1]
	return m
}

// pool lends the memory of held segments. What is lent and what is spare
// together stay within limit, plus one segment.
type pool struct {
	limit  int
	lent   int // cost of the items that are out
	spare  int // bytes in blocks
	blocks [classes][][]byte
	items  []*item
	helds  []*held
}

// Blocks are powers of two from 256 bytes, so that an MTU-sized
// segment takes 2 KiB, to 64 KiB, the longest that offloads make.
const (
	smallest  = 256
	classes   = 9
	maxSpares = 1024 // of items and helds
)

func class(n int) int { return bits.Len(uint(max(n, smallest)-1)) - 8 }

func (p *pool) get(data []byte) *item {
	var m *item
	if n := len(p.items); n > 0 {
		m, p.items = p.items[n-1], p.items[:n-1]
	} else {
		m = new(item)
	}
	if len(data) > 0 {
		m.block = p.block(len(data))
		m.data = m.block[:copy(m.block[:len(data)], data)]
	}
	p.lent += m.cost()
	return m
}

func (p *pool) block(n int) []byte {
	c := class(n)
	if c >= classes {
		return make([]byte, n)
	}
	if k := len(p.blocks[c]); k > 0 {
		b := p.blocks[c][k-1]
		p.blocks[c] = p.blocks[c][:k-1]
		p.spare -= cap(b)
		return b
	}
	size := smallest << c
	if p.spare > 0 && p.lent+p.spare+size > p.limit {
		p.blocks, p.spare = [classes][][]byte{}, 0
	}
	return make([]byte, size)
}

func (p *pool) put(m *item) {
	p.lent -= m.cost()
	if size := cap(m.block); size > 0 && size <= smallest<<(classes-1) && p.lent+p.spare+size <= p.limit {
		c := class(size)
		p.blocks[c] = append(p.blocks[c], m.block)
		p.spare += size
	}
	if *m = (item{}); len(p.items) < maxSpares {
		p.items = append(p.items, m)
	}
}

func (p *pool) getHeld(n uint32) *held {
	var h *held
	if k := len(p.helds); k > 0 {
		h, p.helds = p.helds[k-1], p.helds[:k-1]
	} else {
		h = new(held)
	}
	h.n = n
	for dir := range h.hole {
		h.hole[dir] = hole{n: n, dir: uint8(dir)}
	}
	return h
}

func (p *pool) putHeld(h *held) {
	// Long queues are left to the collector.
	if len(p.helds) < maxSpares && cap(h.queue[0])+cap(h.queue[1]) <= 256 {
		*h = held{queue: [2][]*item{h.queue[0][:0], h.queue[1][:0]}}
		p.helds = append(p.helds, h)
	}
}

// holes is a binary heap: the hole whose time is up first is first.
type holes []*hole

// set puts a hole in, or moves it to its new deadline.
func (hs *holes) set(o *hole, deadline int64) {
	if o.pos != 0 && o.deadline == deadline {
		return
	}
	o.deadline = deadline
	if o.pos == 0 {
		*hs = append(*hs, o)
		o.pos = len(*hs)
	}
	hs.down(hs.up(o.pos - 1))
}

func (hs *holes) remove(o *hole) {
	if o.pos == 0 {
		return
	}
	i, last := o.pos-1, len(*hs)-1
	hs.swap(i, last)
	(*hs)[last] = nil
	*hs = (*hs)[:last]
	o.pos = 0
	if i < last {
		hs.down(hs.up(i))
	}
}

func (hs holes) swap(i, j int) {
	hs[i], hs[j] = hs[j], hs[i]
	hs[i].pos, hs[j].pos = i+1, j+1
}

func (hs holes) up(i int) int {
	for i > 0 && hs[i].deadline < hs[(i-1)/2].deadline {
		hs.swap(i, (i-1)/2)
		i = (i - 1) / 2
	}
	return i
}

func (hs holes) down(i int) {
	for {
		least := i
		for c := 2*i + 1; c <= 2*i+2 && c < len(hs); c++ {
			if hs[c].deadline < hs[least].deadline {
				least = c
			}
		}
		if least == i {
			return
		}
		hs.swap(i, least)
		i = least
	}
}
