package bolt

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/pkg/bucket"
)

// Sums of pieces of time are kept for the next query. A piece of a minute, or of less, is fed: what is appended is added to it, so that
// a query decodes no bucket that came while somebody asked. A longer one is made of minutes or roll-ups once its time is
// over, and forgotten when something is appended there.

const (
	minuteLength = int64(60e9)
	// chunkLength is the time whose sums are kept when it is over, 5 minutes: an hour's query then adds up
	// 11 of them and at most 10 minutes.
	chunkLength = int64(300e9)
	// maxSumBytes bounds the memory of all sums kept. A minute of the top lists of busy hosts with 3,200 names in each list
	// takes about 1.5 MiB once it is over, and 20 MiB while it is fed.
	maxSumBytes = 128 << 20
	// settleTime after its end, by the newest bucket, a piece is taken to be complete.
	settleTime = int64(60e9)
	// closeTime after its end, by the newest bucket, nearly all of a minute has come: what is later costs more.
	closeTime = int64(20e9)
	// fedTime and shapeTime after the last question, by the newest bucket, a shape is not fed any more, and forgotten.
	fedTime, shapeTime = int64(120e9), int64(900e9)
	// maxShapes bounds the kinds of questions of which sums are kept.
	maxShapes = 256
	// maxPlanBytes bounds what their names, conditions and hosts take. A question of a fleet names the hosts that others
	// have counted: 10,000 of them take 1 MiB.
	maxPlanBytes = 16 << 20
	// maxAhead is how far a clock may be ahead and what it dates be judged: aggregator/ingest says so.
	maxAhead = int64(300e9)
	// maxBacklog bounds the bytes of buckets that are appended to a piece while it is made.
	maxBacklog = 4 << 20
)

// sums keeps sums. The zero value is empty and ready to use.
type sums struct {
	most    int64 // bytes; 0 is maxSumBytes
	mu      sync.Mutex
	shapes  map[string]*shape
	bytes   int64
	plans   int64            // bytes of the shapes' own
	clock   uint64           // counts uses and changes
	base    uint64           // the tag of pieces not in changed
	changed map[piece]uint64 // minutes, chunks and hours: its tag
	floor   int64            // of chunks before it nothing is kept
	newest  int64            // start of the newest bucket appended since the file was opened
	used    uint64           // pieces that were there when they were asked for
	made    uint64           // and that were not
	faults  faults
	passes  int // of due
}

// shape is what plans have in common that can share sums.
type shape struct {
	name   string
	plan   store.Plan
	dict   atomic.Pointer[store.Dictionary]
	own    int64 // bytes of name and plan
	names  int64 // bytes of dict when it was made anew
	pieces map[piece]*kept
	asked  int64    // sums.newest when it was last asked for
	asks   []asking // from when on it was lately asked for
	spans  []piece  // those of pieces that are spans
}

// piece is a span of time of which sums are kept.
type piece struct{ start, length int64 }

func (p piece) end() int64 { return p.start + p.length }

// fed reports whether what is appended is added to the sum of the piece.
func (p piece) fed() bool { return p.length <= minuteLength }

// kept is the sum of a piece, or one that is being made. key, shape and tag never change; used and bytes are guarded by sums.mu.
type kept struct {
	key   piece
	shape *shape
	// tag names the state of a piece that is not fed when it began to be made.
	tag   uint64
	used  uint64
	bytes int64
	done  chan struct{} // closed once it is made, or given up

	mu      sync.Mutex
	made    bool
	gone    bool // given up
	txid    int  // of the snapshot it was made from
	backlog []fedBucket
	waiting int // bytes of backlog
	// parts are what it is put together of, but for what collector has, which is what came since somebody asked; nil if that is nothing.
	// What parts refers to is never changed.
	parts     []*store.Part
	packed    bool // parts were all put together when its time was over, and what came since is more of them
	collector *store.Collector
}

// fedBucket is a bucket that was appended in a transaction.
type fedBucket struct {
	start  int64
	data   []byte
	skewed bool
	txid   int
}

// shapeOf names what plans that can share sums have in common.
func shapeOf(p *store.Plan) string {
	return fmt.Sprintf("%q %#v %t %q %v %t %t %t %s", p.Table, p.Where, p.By == nil, p.By, p.Hosts, p.PerHost, p.Judged, p.Numbers, p.Schema.Columns())
}

// planBytes is about what the lists of a plan take in memory.
func planBytes(p *store.Plan) int64 {
	const text = 16
	n := int64(16*len(p.Hosts) + text*len(p.By))
	if p.Schema != nil {
		n += int64(len(fmt.Sprint(*p.Schema)))
	}
	for _, w := range p.Where {
		for _, v := range w.Values {
			n += int64(text + len(v))
		}
	}
	return n
}

func (c *sums) limit() int64 {
	if c.most == 0 {
		return maxSumBytes
	}
	return c.most
}

// shape returns that of a plan.
func (c *sums) shape(p *store.Plan) *shape {
	name := shapeOf(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	sh := c.shapes[name]
	if sh != nil && sh.dict.Load().Bytes() > max(c.limit()/16, 2*sh.names) {
		sh.renumber() // without names that nobody has any more
	}
	if sh == nil {
		own := int64(len(name)) + planBytes(p)
		for len(c.shapes) >= maxShapes || len(c.shapes) > 0 && c.plans+own > maxPlanBytes {
			c.forgetShape(c.oldestShape())
		}
		sh = &shape{name: name, own: own, pieces: map[piece]*kept{},
			plan: store.Plan{Table: p.Table, Schema: p.Schema, Where: p.Where, By: p.By, Hosts: p.Hosts, PerHost: p.PerHost, Judged: p.Judged, Numbers: p.Numbers}}
		sh.dict.Store(&store.Dictionary{})
		if c.shapes == nil {
			c.shapes = map[string]*shape{}
		}
		c.shapes[name] = sh
		c.plans += own
	}
	sh.asked = c.newest
	return sh
}

// renumber makes the dictionary anew from the parts that are kept. Whoever has one goes on with the dictionary that it has.
func (sh *shape) renumber() {
	d := &store.Dictionary{}
	sh.dict.Store(d)
	for _, k := range sh.pieces {
		k.mu.Lock()
		k.parts = slices.Clone(k.parts)
		for i, p := range k.parts {
			k.parts[i] = p.Renumbered(d)
		}
		k.mu.Unlock()
	}
	sh.names = d.Bytes()
}

func (c *sums) oldestShape() (oldest *shape) {
	last := uint64(0)
	for _, sh := range c.shapes {
		used := uint64(0)
		for _, k := range sh.pieces {
			used = max(used, k.used)
		}
		if oldest == nil || used < last {
			oldest, last = sh, used
		}
	}
	return oldest
}

func (c *sums) forgetShape(sh *shape) {
	for key := range sh.pieces {
		c.drop(sh, key)
	}
	if c.shapes[sh.name] == sh {
		delete(c.shapes, sh.name)
		c.plans -= sh.own
	}
}

func (c *sums) drop(sh *shape, key piece) {
	if k := sh.pieces[key]; k != nil {
		c.bytes -= k.bytes
		k.bytes = 0
		delete(sh.pieces, key)
	}
}

// tag names the state of a piece.
func (c *sums) tag(p piece) uint64 {
	tag := c.base
	if p.fed() {
		return tag
	}
	for at := p.start - p.start%minuteLength; at < p.end(); {
		unit := minuteLength
		for _, longer := range []int64{chunkLength, int64(store.Hour.Length())} {
			if at%longer == 0 && at+longer <= p.end() {
				unit = longer
			}
		}
		known := piece{at, unit}
		if c.passed(known) { // of which nothing is noted but the hour
			hour := int64(store.Hour.Length())
			known = piece{at - at%hour, hour}
		}
		tag = max(tag, c.changed[known])
		at += unit
	}
	return tag
}

// find returns the first of the pieces that there is a sum of, nil if there is none.
func (c *sums) find(sh *shape, pieces ...piece) *kept {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range pieces {
		if k := sh.pieces[p]; k != nil && k.tag == c.tag(p) && !c.passed(p) {
			c.use(k)
			return k
		}
	}
	return nil
}

func (c *sums) use(k *kept) {
	c.clock++
	k.used = c.clock
	c.used++
}

// claim returns the sum of a piece, and whether the caller is to make it. It must be called before the piece is read. It returns
// nil where none is to be kept. ahead says that no question waits for it.
func (c *sums) claim(sh *shape, p piece, ahead bool) (k *kept, mine bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	tag := c.tag(p)
	if c.passed(p) || c.shapes[sh.name] != sh {
		return nil, false
	}
	if k := sh.pieces[p]; k != nil {
		if k.tag == tag {
			c.use(k)
			return k, false
		}
		c.drop(sh, p)
	}
	c.clock++
	if !ahead {
		c.made++
	}
	k = &kept{key: p, shape: sh, tag: tag, used: c.clock, done: make(chan struct{})}
	sh.pieces[p] = k
	return k, true
}

// abandon gives up a sum that could not be made.
func (c *sums) abandon(k *kept) {
	k.mu.Lock()
	k.gone = true
	k.mu.Unlock()
	c.mu.Lock()
	if k.shape.pieces[k.key] == k {
		c.drop(k.shape, k.key)
	}
	c.mu.Unlock()
	close(k.done)
}

// finish keeps what was collected from a snapshot, with what was appended since, unless a piece that is not fed has changed; the least
// used go for it.
func (c *sums) finish(k *kept, part *store.Part, txid int) {
	c.mu.Lock()
	open := k.key.fed() && c.newest > 0 && k.key.end()+closeTime > c.newest
	c.mu.Unlock()
	k.mu.Lock()
	k.made, k.txid = true, txid
	k.parts = []*store.Part{part.Renumbered(k.shape.dict.Load())}
	k.guard(&c.faults, func() {
		for i := range k.backlog {
			if b := &k.backlog[i]; !k.gone && b.txid > txid {
				k.addEncoded(b)
			}
		}
	})
	k.backlog = nil
	k.mu.Unlock()
	if !open {
		c.condense(k, everything)
	}
	k.mu.Lock()
	gone, bytes := k.gone, k.size()
	k.mu.Unlock()
	c.mu.Lock()
	if sh := k.shape; sh.pieces[k.key] == k {
		if gone || k.tag != c.tag(k.key) || c.passed(k.key) || bytes > c.limit()/4 || c.shapes[sh.name] != sh {
			c.drop(sh, k.key)
		} else {
			c.bytes += bytes - k.bytes // which may be more than none: what was fed meanwhile is accounted for
			k.bytes = bytes
			c.evict()
		}
	}
	c.mu.Unlock()
	close(k.done)
}

// seal makes a part of what has come since somebody asked, of which nothing is copied. The caller holds k.mu.
func (k *kept) seal() {
	if k.collector != nil {
		k.parts = append(slices.Clip(k.parts), k.collector.Part(k.shape.dict.Load()))
		k.collector = nil
	}
}

// maxParts is how many parts a sum may have: a question goes through all of them, and what comes between two questions is one.
const maxParts = 8

// tail returns where the last parts begin that are to be put together when there are too many. Each is then half of the one before it at most, so
// that no row is put together again and again.
func (k *kept) tail() int {
	at := len(k.parts) - 1
	if at < maxParts {
		return at
	}
	for rows := k.parts[at].Rows(); at > 0 && (at == len(k.parts)-1 || k.parts[at-1].Rows() < 2*rows); at-- {
		rows += k.parts[at-1].Rows()
	}
	return at
}

// effort is how much of a sum is put together.
type effort int

const (
	lastParts  effort = iota // so many of the last that few are left
	allParts                 // but not what has come since somebody asked
	everything               // in little memory, as the time of the sum is over
)

// condense puts together parts of a sum while questions go on, and buckets come.
func (c *sums) condense(k *kept, how effort) {
	over := how == everything
	var parts []*store.Part
	var d *store.Dictionary
	from := 0
	k.mu.Lock()
	if k.made && !k.gone {
		k.guard(&c.faults, func() {
			switch d = k.shape.dict.Load(); how {
			case lastParts:
				from = k.tail()
			case everything:
				k.seal()
			}
			if parts = k.parts; over && k.packed && len(parts) == 1 {
				parts = nil // nothing has come since
			}
		})
	}
	k.mu.Unlock()
	if len(parts) == 0 || !over && from == len(parts)-1 {
		return
	}
	var sum *store.Part
	whole := c.faults.guard(func() { sum = store.MergeParts(d, parts[from:], over) }) && sum != nil
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case !whole:
		k.gone, k.parts, k.collector = true, nil, nil
	case len(k.parts) >= len(parts) && slices.Equal(k.parts[:len(parts)], parts): // not if the names got other numbers
		k.parts, k.packed = slices.Concat(parts[:from], []*store.Part{sum}, k.parts[len(parts):]), over
	}
}

// gather puts together the parts of sums that were asked for while buckets came, so that the next questions go through few.
func (c *sums) gather() {
	c.mu.Lock()
	var fed []*kept
	for _, sh := range c.shapes {
		for key, k := range sh.pieces {
			if key.fed() && c.newest-sh.asked <= fedTime {
				fed = append(fed, k)
			}
		}
	}
	c.mu.Unlock()
	for _, k := range fed {
		c.condense(k, allParts)
		c.grown(k)
	}
}

// size is about what the sum takes. The caller holds k.mu.
func (k *kept) size() (n int64) {
	if k.collector != nil {
		n += k.collector.Bytes()
	}
	for _, p := range k.parts {
		n += p.Bytes()
	}
	return n
}

// addEncoded adds a bucket, or gives up the sum. The caller holds k.mu.
func (k *kept) addEncoded(b *fedBucket) {
	d := decoders.Get().(*bucket.Decoder)
	defer decoders.Put(d)
	x, err := d.Decode(b.data, k.shape.plan.Table)
	if err != nil {
		k.gone = true
		return
	}
	k.add(x, b)
}

// add adds a bucket that was decoded. The caller holds k.mu.
func (k *kept) add(x *bucket.Bucket, b *fedBucket) {
	if b.skewed && k.shape.plan.Judged {
		return
	}
	if k.collector == nil {
		plan := k.shape.plan
		plan.From, plan.To = k.key.start, k.key.end()
		k.collector = store.NewCollector(plan)
	}
	if k.collector.Add(x) != nil || !k.collector.Whole() {
		k.gone = true
	}
}

// feed adds what a transaction has appended to the sums that are fed. fresh are the intervals, and the minutes, that
// had no bucket before: sums of these begin where those before them are asked for. It must be called after the commit and before change and
// before anything else is appended.
func (c *sums) feed(now int64, appended []fedBucket, fresh []piece) {
	byBucket, tables, over := c.reached(now, appended, fresh)
	touched := map[*kept]bool{}
	d := decoders.Get().(*bucket.Decoder)
	defer decoders.Put(d)
	for i := range appended {
		b := &appended[i]
		if byBucket[b] == nil {
			continue
		}
		x, err := d.Decode(b.data, tables...)
		for _, k := range byBucket[b] {
			k.mu.Lock()
			switch {
			case k.gone:
			case err != nil:
				k.gone = true
			case k.made && b.txid <= k.txid: // the snapshot it was made from had it: readers see a commit before it is fed
			case k.made:
				k.guard(&c.faults, func() { k.add(x, b) })
			case k.waiting+len(b.data) > maxBacklog:
				k.gone = true
			default:
				k.backlog = append(k.backlog, *b)
				k.waiting += len(b.data)
			}
			k.mu.Unlock()
			touched[k] = true
		}
	}
	for k := range touched {
		c.condense(k, lastParts)
	}
	for _, k := range over {
		c.condense(k, everything)
		touched[k] = true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for k := range touched {
		c.account(k)
	}
	c.evict()
}

// reached lists, of what feed is told, the sums of each bucket, as each is decoded once, the tables that these are of, and the sums whose time is over.
func (c *sums) reached(now int64, appended []fedBucket, fresh []piece) (byBucket map[*fedBucket][]*kept, names []string, over []*kept) {
	byBucket = map[*fedBucket][]*kept{}
	first, last := int64(math.MaxInt64), int64(-1)
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.newest
	for i := range appended {
		first, last = min(first, appended[i].start), max(last, appended[i].start)
		// One whose clock is ahead does not end pieces before the others have come.
		if ahead := appended[i].start - now; !appended[i].skewed && (ahead <= 0 || ahead > maxAhead) {
			c.newest = max(c.newest, appended[i].start)
		}
	}
	tables := map[string]bool{}
	for _, sh := range c.shapes {
		if sh.asked == 0 {
			sh.asked = c.newest
		}
		if c.newest-sh.asked > shapeTime {
			c.forgetShape(sh)
			continue
		}
		if c.newest-sh.asked > fedTime {
			for key := range sh.pieces {
				if key.fed() {
					c.drop(sh, key)
				}
			}
			continue
		}
		for _, p := range fresh {
			if sh.pieces[piece{p.start - p.length, p.length}] != nil && sh.pieces[p] == nil {
				c.begin(sh, p, appended[0].txid-1)
			}
		}
		for key, k := range sh.pieces {
			if !key.fed() {
				continue
			}
			if key.start <= last && first < key.end() { // few of them
				for i := range appended {
					if b := &appended[i]; b.start >= key.start && b.start < key.end() {
						byBucket[b] = append(byBucket[b], k)
						tables[sh.plan.Table] = true
					}
				}
			}
			if before != c.newest && key.end()+closeTime <= c.newest {
				over = append(over, k)
			}
		}
	}
	for name := range tables {
		names = append(names, name)
	}
	return byBucket, names, over
}

// account notes what a sum takes now, or drops it. The caller holds c.mu.
func (c *sums) account(k *kept) {
	k.mu.Lock()
	gone, bytes, made := k.gone, k.size(), k.made
	k.mu.Unlock()
	switch {
	case k.shape.pieces[k.key] != k:
	case gone:
		c.drop(k.shape, k.key)
	case made:
		c.bytes += bytes - k.bytes
		k.bytes = bytes
	}
}

// grown notes that a sum takes more than it did.
func (c *sums) grown(k *kept) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.account(k)
	c.evict()
}

// begin makes the sum of a piece in which there is nothing before a transaction. The caller holds c.mu.
func (c *sums) begin(sh *shape, p piece, txid int) {
	plan := sh.plan
	plan.From, plan.To = p.start, p.end()
	c.clock++
	k := &kept{key: p, shape: sh, tag: c.base, used: c.clock, done: make(chan struct{}), made: true, txid: txid, collector: store.NewCollector(plan)}
	close(k.done)
	sh.pieces[p] = k
}

// evict drops the least used until the others fit, names included. The caller holds c.mu.
func (c *sums) evict() {
	names := int64(0)
	for _, sh := range c.shapes {
		names += sh.dict.Load().Bytes()
	}
	for c.bytes+names > c.limit() {
		var oldest *kept
		for _, sh := range c.shapes {
			for _, k := range sh.pieces {
				if k.bytes > 0 && (oldest == nil || k.used < oldest.used) {
					oldest = k
				}
			}
		}
		if oldest == nil {
			return
		}
		sh := oldest.shape
		c.drop(sh, oldest.key)
		if len(sh.pieces) == 0 {
			names -= sh.dict.Load().Bytes()
			c.forgetShape(sh)
		}
	}
}

// settledBy reports whether nothing is expected any more of the time before t. The caller holds c.mu.
func (c *sums) settledBy(t int64) bool { return c.newest == 0 || t+settleTime <= c.newest }

// settled is settledBy for those who do not hold c.mu.
func (c *sums) settled(t int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.settledBy(t)
}

// hourEnd returns the end of the last hour that is over and ends at or before t.
func (c *sums) hourEnd(t int64) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.newest > 0 {
		t = min(t, c.newest-settleTime)
	}
	return store.Hour.Floor(max(t, 0))
}

// change forgets the longer pieces of intervals that a commit has changed. It must be
// called before the change is reported.
func (c *sums) change(starts []int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.changed == nil {
		c.changed = map[piece]uint64{}
	}
	for _, s := range starts {
		c.clock++
		for _, length := range []int64{minuteLength, chunkLength, int64(store.Hour.Length())} {
			if p := (piece{s - s%length, length}); !c.passed(p) {
				c.changed[p] = c.clock
			}
		}
	}
}

// replaced forgets all pieces of intervals in which a bucket has taken the place of a damaged one.
func (c *sums) replaced(starts []int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range starts {
		for _, sh := range c.shapes {
			for key := range sh.pieces {
				if key.start <= s && s < key.end() {
					c.drop(sh, key)
				}
			}
		}
	}
}

// passed reports whether a piece is a chunk, or less, of which intervals may be gone: hours and
// days are in roll-ups then.
func (c *sums) passed(p piece) bool { return p.length <= chunkLength && p.start < c.floor }

// purge forgets the chunks with intervals that end at or before t. It must be called
// before they go. What is known of hours, two dozen a day, stays: what is sealed changes no more.
func (c *sums) purge(t int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.floor = max(c.floor, t+(chunkLength-t%chunkLength)%chunkLength)
	for _, sh := range c.shapes {
		for key := range sh.pieces {
			if c.passed(key) {
				c.drop(sh, key)
			}
		}
	}
	maps.DeleteFunc(c.changed, func(p piece, _ uint64) bool { return c.passed(p) })
}

// forget drops what is kept of the time before t.
func (c *sums) forget(t int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, sh := range c.shapes {
		for key := range sh.pieces {
			if key.start < t {
				c.drop(sh, key)
			}
		}
	}
}

// changeAll forgets everything.
func (c *sums) changeAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.clock++
	c.base = c.clock
	for _, sh := range c.shapes {
		c.forgetShape(sh)
	}
	c.changed = nil
}

// total counts the pieces and their bytes, dictionaries included.
func (c *sums) total() (pieces int, bytes int64, used, made uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, sh := range c.shapes {
		pieces += len(sh.pieces)
		bytes += sh.dict.Load().Bytes()
	}
	return pieces, bytes + c.bytes, c.used, c.made
}
