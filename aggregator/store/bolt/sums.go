package bolt

import (
	"fmt"
	"maps"
	"sync"

	"github.com/httpctl/httpctl/aggregator/store"
)

const (
	// chunkLength is the time whose sums are kept, 5 minutes: an hour's query then
	// reads a tenth of its intervals and adds up 11 sums.
	chunkLength = int64(300e9)
	// maxSumRows bounds the rows of all sums kept: about 50 MB of them with
	// latencies. The nine built-in top lists of an hour and 10 hosts with 200 keys
	// each take 20,000.
	maxSumRows = 100_000
)

// sums keeps sums of chunks of time. The zero value is empty and ready to use.
// A sum belongs to the state of its chunk when its reader began, which tag names.
type sums struct {
	most    int // rows; 0 is maxSumRows
	mu      sync.Mutex
	kept    map[sumKey]*keptSum
	rows    int
	clock   uint64           // counts uses and changes
	base    uint64           // the tag of chunks not in changed
	changed map[piece]uint64 // its tag
	floor   int64            // of chunks before it nothing is kept
}

// piece is a span of time of which sums are kept.
type piece struct{ start, length int64 }

type sumKey struct {
	start, length int64
	shape         string
}

func (k *sumKey) piece() piece { return piece{k.start, k.length} }

// pieceLengths are those of the pieces, chunks, hours and days.
var pieceLengths = [...]int64{chunkLength, int64(store.Hour.Length()), int64(store.Day.Length())}

type keptSum struct {
	sum       *store.Collector
	tag, used uint64
	rows      int
}

// shapeOf names what plans that can share sums have in common.
func shapeOf(p *store.Plan) string {
	return fmt.Sprintf("%q %#v %t %q %v %t %t", p.Table, p.Where, p.By == nil, p.By, p.Hosts, p.PerHost, p.Judged)
}

func (c *sums) tag(p piece) uint64 {
	if t, ok := c.changed[p]; ok {
		return t
	}
	return c.base
}

// get returns the sum of a piece, or nil and the tag to put one under. It must
// be called before the piece is read.
func (c *sums) get(key sumKey) (*store.Collector, uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	tag := c.tag(key.piece())
	k := c.kept[key]
	if k == nil || k.tag != tag || c.passed(key.piece()) {
		return nil, tag
	}
	c.clock++
	k.used = c.clock
	return k.sum, tag
}

// put keeps a sum, unless its piece has changed; the least used go for it.
func (c *sums) put(key sumKey, sum *store.Collector, tag uint64) {
	rows, most := sum.Rows(), c.most
	if most == 0 {
		most = maxSumRows
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if rows > most/4 || c.tag(key.piece()) != tag || c.passed(key.piece()) {
		return
	}
	if c.kept == nil {
		c.kept = map[sumKey]*keptSum{}
	}
	c.drop(key)
	for c.rows+rows > most {
		var oldest sumKey
		var found *keptSum
		for k, v := range c.kept {
			if found == nil || v.used < found.used {
				oldest, found = k, v
			}
		}
		c.drop(oldest)
	}
	c.clock++
	c.kept[key] = &keptSum{sum, tag, c.clock, rows}
	c.rows += rows
}

func (c *sums) drop(key sumKey) {
	if k := c.kept[key]; k != nil {
		c.rows -= k.rows
		delete(c.kept, key)
	}
}

// change forgets the pieces of intervals that a commit has changed. It must be
// called before the change is reported.
func (c *sums) change(starts []int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.changed == nil {
		c.changed = map[piece]uint64{}
	}
	for _, s := range starts {
		c.clock++
		for _, length := range pieceLengths {
			if p := (piece{s - s%length, length}); !c.passed(p) {
				c.changed[p] = c.clock
			}
		}
	}
}

// passed reports whether a piece is a chunk of which intervals may be gone: hours and
// days are in roll-ups then.
func (c *sums) passed(p piece) bool { return p.length == chunkLength && p.start < c.floor }

// purge forgets the chunks with intervals that end at or before t. It must be called
// before they go. What is known of hours and days, two dozen a day, stays: what is sealed changes no more.
func (c *sums) purge(t int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.floor = max(c.floor, t+(chunkLength-t%chunkLength)%chunkLength)
	for key := range c.kept {
		if c.passed(key.piece()) {
			c.drop(key)
		}
	}
	maps.DeleteFunc(c.changed, func(p piece, _ uint64) bool { return c.passed(p) })
}

// forget drops what is kept of the time before t.
func (c *sums) forget(t int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key := range c.kept {
		if key.start < t {
			c.drop(key)
		}
	}
}

// changeAll forgets everything.
func (c *sums) changeAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.clock++
	c.base = c.clock
	c.kept, c.changed, c.rows = nil, nil, 0
}
