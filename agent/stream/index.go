package stream

import (
	"encoding/binary"
	"math/bits"
	"math/rand/v2"

	"github.com/httpctl/httpctl/agent/decode"
)

// state of an entry. Each has its own list, least recently heard first, and
// its own time to live.
type state uint8

const (
	free    state = iota
	half          // no bytes, and not both ends have acknowledged
	live          // established, or bytes
	quiet         // of no interest to the handler, or lost to a panic
	suspect       // an RST that its receiver may have ignored was seen
	closed        // tombstone
	states
)

// What is known of one end.
const (
	known    uint16 = 1 << iota // next is valid
	synced                      // its SYN was seen, isn is valid
	acked                       // ack is valid
	seen                        // it sent at least one packet that was captured
	started                     // bytes of it were delivered
	finished                    // its FIN was delivered
	blind                       // never seen, and waited for in vain
	finGuess                    // the byte at next was acknowledged and never came: its FIN, it seems
)

// A side is one end as a sender.
type side struct {
	next uint32 // sequence number of the next byte to deliver
	ack  uint32 // highest acknowledgement number it sent
	isn  uint32 // sequence number of its first byte
	is   uint16
}

func (s *side) has(what uint16) bool { return s.is&what != 0 }

// An entry is what the table keeps of a flow, bytes or not: 128 bytes on two
// cache lines. Side 0 is the sender of the packet that made the entry.
type entry struct {
	key        decode.Flow
	hash       uint32
	last       int64 // when it was last heard
	moved      int64 // when it last went to the end of its list
	conn       *Conn // nil until it carries bytes, and in a tombstone
	prev, next uint32
	side       [2]side
	first      uint32 // first sequence number of a SYN that may take the ports over
	state      state
	client     uint8 // side of the client, or nobody
	from       uint8 // side that sent that SYN, or nobody
	rival      bool  // that SYN is a second answer to the other side's
	far        uint8 // packets in a row that are far from the expected ones
	counted    bool  // as a connection
}

const nobody = 2

// slabSize entries are allocated at a time: 128 KiB, which are whole pages.
const slabSize = 1024

// index finds entries by flow, in either direction, and lists them by state in
// the order in which they were heard. Entries are named by their number from 1.
// An open-addressing table of (hash, number) pairs is half the cache misses of a map.
type index struct {
	slots []uint64 // number << 32 | hash, 0 for none; a power of two of them
	used  int
	slabs [][]entry // not pointers to arrays: the check for nil reads of the array, a cache miss
	made  uint32    // entries ever taken from slabs
	spare uint32    // list of free entries, by next
	lists [states]struct {
		head, tail uint32
		len        int
	}
	// The keys are random, so that nobody can aim at one slot.
	k [4]uint64
	// now is the table's clock, see Table.tick.
	now int64
}

func (x *index) init() {
	x.slots = make([]uint64, 1024)
	for i := range x.k {
		x.k[i] = rand.Uint64() | 1
	}
}

func (x *index) at(n uint32) *entry { return &x.slabs[(n-1)/slabSize][(n-1)%slabSize] }

func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}

// sum returns the same hash for both directions of a flow.
func (x *index) sum(f *decode.Flow) uint32 {
	le := binary.LittleEndian
	a := mix(mix(le.Uint64(f.Src[0:])^x.k[0], le.Uint64(f.Src[8:])^x.k[1])^uint64(f.SrcPort), x.k[2])
	b := mix(mix(le.Uint64(f.Dst[0:])^x.k[0], le.Uint64(f.Dst[8:])^x.k[1])^uint64(f.DstPort), x.k[2])
	return uint32(mix((a+b)^(uint64(f.Tunnel)<<32|uint64(f.Namespace)), x.k[3]))
}

func reversed(a, b *decode.Flow) bool {
	return a.SrcPort == b.DstPort && a.DstPort == b.SrcPort && a.Src == b.Dst && a.Dst == b.Src &&
		a.Tunnel == b.Tunnel && a.Namespace == b.Namespace
}

// find returns the entry's number (0 for none) and the side that f comes from.
func (x *index) find(hash uint32, f *decode.Flow) (uint32, *entry, uint8) {
	mask := uint32(len(x.slots) - 1)
	for i := hash & mask; ; i = (i + 1) & mask {
		slot := x.slots[i]
		if slot == 0 {
			return 0, nil, 0
		}
		if uint32(slot) != hash {
			continue
		}
		n := uint32(slot >> 32)
		e := x.at(n)
		if e.key == *f {
			return n, e, 0
		}
		if reversed(&e.key, f) {
			return n, e, 1
		}
	}
}

// add takes an entry for a flow that find did not find.
func (x *index) add(hash uint32, f *decode.Flow) (uint32, *entry) {
	if (x.used+1)*4 > len(x.slots)*3 {
		x.grow()
	}
	n := x.spare
	if n != 0 {
		x.spare = x.at(n).next
	} else {
		if int(x.made) == len(x.slabs)*slabSize {
			x.slabs = append(x.slabs, make([]entry, slabSize))
		}
		x.made++
		n = x.made
	}
	e := x.at(n)
	*e = entry{key: *f, hash: hash, client: nobody, from: nobody}
	x.place(uint64(n)<<32 | uint64(hash))
	x.used++
	return n, e
}

func (x *index) place(slot uint64) {
	mask := uint32(len(x.slots) - 1)
	i := uint32(slot) & mask
	for x.slots[i] != 0 {
		i = (i + 1) & mask
	}
	x.slots[i] = slot
}

func (x *index) grow() {
	old := x.slots
	x.slots = make([]uint64, 2*len(old))
	for _, slot := range old {
		if slot != 0 {
			x.place(slot)
		}
	}
}

// remove forgets an entry, which must be in a list.
func (x *index) remove(n uint32, e *entry) {
	x.unlink(n, e)
	mask := uint32(len(x.slots) - 1)
	i := e.hash & mask
	for uint32(x.slots[i]>>32) != n {
		i = (i + 1) & mask
	}
	// Close the hole: move back whatever would no longer be found across it.
	for j := (i + 1) & mask; x.slots[j] != 0; j = (j + 1) & mask {
		if home := uint32(x.slots[j]) & mask; (j-home)&mask >= (j-i)&mask {
			x.slots[i] = x.slots[j]
			i = j
		}
	}
	x.slots[i] = 0
	*e = entry{next: x.spare}
	x.spare = n
	x.used--
}

// link puts an entry at the end of the list of a state.
func (x *index) link(n uint32, e *entry, s state) {
	l := &x.lists[s]
	e.state, e.prev, e.next, e.moved = s, l.tail, 0, x.now
	if l.tail != 0 {
		x.at(l.tail).next = n
	} else {
		l.head = n
	}
	l.tail = n
	l.len++
}

func (x *index) unlink(n uint32, e *entry) {
	l := &x.lists[e.state]
	if e.prev != 0 {
		x.at(e.prev).next = e.next
	} else {
		l.head = e.next
	}
	if e.next != 0 {
		x.at(e.next).prev = e.prev
	} else {
		l.tail = e.prev
	}
	l.len--
}

func (x *index) move(n uint32, e *entry, s state) {
	x.unlink(n, e)
	x.link(n, e, s)
}
