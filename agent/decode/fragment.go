package decode

import (
	"bytes"
	"slices"
	"time"

	"github.com/httpctl/httpctl/pkg/exchange"
)

const (
	// maxDatagram is the longest payload of an IP datagram.
	maxDatagram = 65535
	// maxRanges bounds the separate stretches of an incomplete datagram. In
	// order or in reverse there is one; 64 KiB in frames of 1500 make at most 22. Those who hide cut
	// 1500 bytes into 188 fragments and shuffle them: 47 on average when half are there.
	maxRanges = 64
	// maxRecent is how many complete datagrams are remembered for the copies of their
	// fragments: a capture on several interfaces shows each within some tens of packets.
	maxRecent = 32
)

// fragmentKey names a datagram (RFC 791 section 3.2, RFC 8200 section 4.5).
type fragmentKey struct {
	src, dst  [16]byte
	id        uint32
	tunnel    uint32
	namespace uint32
	proto     uint8 // IPv4 only
	v6        bool
}

// datagram is one that is being put together.
type datagram struct {
	key     fragmentKey
	started int64
	count   uint64 // of fragments
	buf     []byte
	length  int // 0 until the last fragment is there
	proto   uint8
	refused bool // stays to swallow the fragments to come
	again   bool // a datagram of this name was complete shortly before
	ranges  [maxRanges]struct{ start, end int }
	n       int // of ranges

	older, newer *datagram
}

func (g *datagram) payload() []byte { return g.buf[:g.length] }

// fragments puts datagrams together from copies of their fragments.
// Fragments that overlap with other content make the datagram refused (RFC 5722,
// for IPv4 too); exact copies are passed over. Time is that of packets.
type fragments struct {
	n        *exchange.Counters
	timeout  int64
	limit    int
	memory   int
	used     int                       // bytes of all buffers, those of free included
	table    map[fragmentKey]*datagram // what is linked from oldest to newest
	oldest   *datagram
	newest   *datagram
	free     *datagram // linked by older
	complete *datagram // borrowed by the current packet, linked by older
	now      int64
	recent   [maxRecent]fragmentKey // complete ones, in a ring
	last     int
}

func newFragments(cfg Config, n *exchange.Counters) fragments {
	return fragments{
		n: n, timeout: int64(cfg.FragmentTimeout / time.Nanosecond), limit: cfg.FragmentedDatagrams,
		memory: int(cfg.FragmentMemory), table: map[fragmentKey]*datagram{},
	}
}

// begin starts a packet: what the last one borrowed is free again, and what has waited too long
// is given up.
func (f *fragments) begin(now int64) {
	f.now = max(f.now, now)
	if f.oldest == nil && f.complete == nil {
		return
	}
	for g := f.complete; g != nil; g = f.complete {
		f.complete = g.older
		f.release(g)
	}
	for f.oldest != nil && f.now-f.oldest.started > f.timeout {
		f.giveUp(f.oldest)
	}
}

// add puts one fragment in its place. It returns the datagram if that is now complete.
func (f *fragments) add(k *fragmentKey, offset int, more bool, b []byte, proto uint8) (*datagram, bool) {
	g := f.datagram(k)
	if g.refused {
		return nil, false
	}
	end := offset + len(b)
	switch {
	case end > maxDatagram, len(b) == 0, more && len(b)%8 != 0,
		g.length != 0 && (end > g.length || !more && end != g.length),
		!more && g.n > 0 && g.ranges[g.n-1].end > end:
		f.drop(g)
		return nil, false
	}
	if !g.insert(offset, end, b) {
		f.drop(g)
		return nil, false
	}
	f.grow(g, end)
	copy(g.buf[offset:end], b)
	if offset == 0 {
		g.proto = proto
	}
	if !more {
		g.length = end
	}
	f.shrink(g)
	if g.length == 0 || g.n != 1 || g.ranges[0].start != 0 || g.ranges[0].end != g.length {
		return nil, false
	}
	f.remove(g)
	f.last = (f.last + 1) % maxRecent
	f.recent[f.last] = g.key
	g.older = f.complete
	f.complete = g
	return g, true
}

// insert adds [start, end) to the ranges. It returns false for an overlap with
// other content and when there are too many ranges.
func (g *datagram) insert(start, end int, b []byte) bool {
	i := 0
	for i < g.n && g.ranges[i].end < start {
		i++
	}
	// Range i is the first that touches or follows.
	if i < g.n && start >= g.ranges[i].start && end <= g.ranges[i].end {
		return bytes.Equal(g.buf[start:end], b) // a copy
	}
	left := i < g.n && g.ranges[i].end == start
	next := i
	if left {
		next++
	}
	if next < g.n && g.ranges[next].start < end {
		return false
	}
	right := next < g.n && g.ranges[next].start == end
	switch {
	case left && right:
		g.ranges[i].end = g.ranges[next].end
		copy(g.ranges[next:], g.ranges[next+1:g.n])
		g.n--
	case left:
		g.ranges[i].end = end
	case right:
		g.ranges[next].start = start
	default:
		if g.n == maxRanges {
			return false
		}
		copy(g.ranges[next+1:], g.ranges[next:g.n])
		g.ranges[next].start, g.ranges[next].end = start, end
		g.n++
	}
	return true
}

// datagram returns the datagram of a further fragment, a new one if need be.
func (f *fragments) datagram(k *fragmentKey) *datagram {
	g := f.table[*k]
	if g == nil {
		if len(f.table) >= f.limit {
			f.giveUp(f.oldest)
		}
		if g = f.free; g != nil {
			f.free = g.older
			*g = datagram{buf: g.buf}
		} else {
			g = &datagram{}
		}
		g.key, g.started = *k, f.now
		g.again = slices.Contains(f.recent[:], *k)
		g.older = f.newest
		if f.newest != nil {
			f.newest.newer = g
		} else {
			f.oldest = g
		}
		f.newest = g
		f.table[*k] = g
	}
	g.count++
	return g
}

// refuse notes a fragment that cannot be placed.
func (f *fragments) refuse(k *fragmentKey) { f.drop(f.datagram(k)) }

// drop forgets the content of a datagram. It stays in the table to swallow the
// fragments to come, which are counted when it is given up.
func (f *fragments) drop(g *datagram) {
	g.refused, g.n = true, 0
	f.used -= cap(g.buf)
	g.buf = nil
}

// grow makes room for end bytes. Buffers grow by doubling, from 4 KiB.
func (f *fragments) grow(g *datagram, end int) {
	if end > cap(g.buf) {
		size := 4096
		for size < end {
			size *= 2
		}
		buf := make([]byte, size)
		copy(buf, g.buf)
		f.used += size - cap(g.buf)
		g.buf = buf
	}
	g.buf = g.buf[:cap(g.buf)]
}

// shrink keeps to the memory limit: first spare buffers go, then the oldest
// datagrams other than g.
func (f *fragments) shrink(g *datagram) {
	for f.used > f.memory && f.free != nil {
		f.used -= cap(f.free.buf)
		f.free = f.free.older
	}
	for f.used > f.memory {
		victim := f.oldest
		if victim == g {
			victim = g.newer
		}
		if victim == nil {
			return // g alone is at most 64 KiB
		}
		f.giveUp(victim)
		for f.free != nil {
			f.used -= cap(f.free.buf)
			f.free = f.free.older
		}
	}
}

// giveUp counts the fragments of a datagram as lost and forgets it. Nothing is
// lost of those that seem to be copies, which came after their datagram was complete.
func (f *fragments) giveUp(g *datagram) {
	if !g.again {
		f.n[exchange.FragmentsDropped] += g.count
	}
	f.remove(g)
	f.release(g)
}

// remove unlinks a datagram from the table.
func (f *fragments) remove(g *datagram) {
	delete(f.table, g.key)
	if g.older != nil {
		g.older.newer = g.newer
	} else {
		f.oldest = g.newer
	}
	if g.newer != nil {
		g.newer.older = g.older
	} else {
		f.newest = g.older
	}
	g.older, g.newer = nil, nil
}

// release keeps a datagram's buffer for the next.
func (f *fragments) release(g *datagram) {
	g.older = f.free
	f.free = g
}

// drain gives up everything.
func (f *fragments) drain() {
	for f.oldest != nil {
		f.giveUp(f.oldest)
	}
}
