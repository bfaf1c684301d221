package store

import (
	"hash/maphash"
	"math"
	"slices"
	"strings"
	"sync"
)

// A Dictionary numbers the keys of the rows that the parts of one plan have, so that adding up parts
// compares no strings. It only grows. The zero value is empty and ready. It is safe for concurrent use.
//
// All keys are one text: as strings of their own they would be most of what the garbage collector has to follow.
type Dictionary struct {
	mu   sync.RWMutex
	text strings.Builder
	ends []uint32 // in text, by number
	// slots are numbers plus 1 by hash, with linear probing, a power of two of them; 0 is free.
	slots []uint32
}

var dictionarySeed = maphash.MakeSeed()

// Bytes is about what the dictionary takes in memory.
func (d *Dictionary) Bytes() int64 {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return int64(d.text.Cap() + 4*cap(d.ends) + 4*len(d.slots))
}

// names are keys by number, as Accumulator.row writes them. They never change.
type names struct {
	text string
	ends []uint32
}

func (n names) len() int { return len(n.ends) }

// at returns the key with that number. Whoever keeps it keeps the memory of all.
func (n names) at(id uint32) string {
	begin := uint32(0)
	if id > 0 {
		begin = n.ends[id-1]
	}
	return n.text[begin:n.ends[id]]
}

// names returns all keys so far.
func (d *Dictionary) names() names {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.all()
}

// all is names for a caller that holds the lock.
func (d *Dictionary) all() names { return names{d.text.String(), slices.Clip(d.ends)} }

// number appends the numbers of keys to ids.
func (d *Dictionary) number(ids []uint32, keys []string) []uint32 {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, key := range keys {
		ids = append(ids, d.enter(key))
	}
	return ids
}

// translate numbers keys that another dictionary has.
func (d *Dictionary) translate(ids []uint32, keys names) []uint32 {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make([]uint32, len(ids))
	for i, id := range ids {
		out[i] = d.enter(keys.at(id))
	}
	return out
}

// enter returns the number of a key, of which it keeps no memory. The caller holds the lock.
func (d *Dictionary) enter(key string) uint32 {
	if 4*(len(d.ends)+1) > 3*len(d.slots) {
		d.grow()
	}
	at := d.place(key)
	if d.slots[at] == 0 {
		if int64(d.text.Len())+int64(len(key)) > math.MaxUint32 { // far beyond what is kept
			panic("names of more than 4 GiB in a sum")
		}
		d.text.WriteString(key)
		d.ends = append(d.ends, uint32(d.text.Len()))
		d.slots[at] = uint32(len(d.ends))
	}
	return d.slots[at] - 1
}

// place returns the slot of a key, or the one where it belongs.
func (d *Dictionary) place(key string) int {
	all, mask := d.all(), len(d.slots)-1
	at := int(maphash.String(dictionarySeed, key)) & mask
	for d.slots[at] != 0 && all.at(d.slots[at]-1) != key {
		at = (at + 1) & mask
	}
	return at
}

func (d *Dictionary) grow() {
	d.slots = make([]uint32, max(64, 2*len(d.slots)))
	all, mask := d.all(), len(d.slots)-1
	for id := range d.ends { // no two are the same
		at := int(maphash.String(dictionarySeed, all.at(uint32(id)))) & mask
		for d.slots[at] != 0 {
			at = (at + 1) & mask
		}
		d.slots[at] = uint32(id + 1)
	}
}
