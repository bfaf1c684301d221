package accumulate

import (
	"math"
	"slices"
	"sync"

	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/exchange"
)

// part is what was seen of one interval and is not closed yet.
type part struct {
	interval
	*tables
	counters exchange.Counters
}

// interval is [start, end).
type interval struct{ start, end int64 }

// Pipeline takes the events of one pipeline. Observe and Advance are called
// by the pipeline's goroutine; what Observe does in steady state allocates
// nothing and takes an uncontended lock, see Batch.
type Pipeline struct {
	owner    *Accumulator
	counters *exchange.Counters
	// known is what of counters is in a part already. Only the pipeline's
	// goroutine reads counters.
	known exchange.Counters

	mu        sync.Mutex // taken after owner.mu
	collector *Collector // its own tables are not used
	current   *part      // nil until the clock has begun
	clock     int64
	began     int64 // the first time of the clock in this incarnation
	synced    int64 // clock at the last sync
	step      int64 // of the wall clock, the last one noticed; guarded by owner.mu
	ended     bool  // by End; guarded by owner.mu

	// Of the pipeline's goroutine: batches says that Observe keeps mu until Release, held that it has it.
	batches, held bool
}

var _ exchange.Sink = (*Pipeline)(nil)

// syncEvery is how old, by the clock, the counters of a provisional bucket
// may be. Final buckets have them exact.
const syncEvery = 100_000_000 // 100 ms

// Batch has Observe keep its lock from one event to the next, which costs as much as a table does, until Release. Who calls it calls Release whenever
// the events at hand have been observed: until then whoever wants to know something of the open interval waits.
func (p *Pipeline) Batch() { p.batches = true }

// Release gives back the lock that Observe has kept. Like Observe it is called by the pipeline's goroutine.
func (p *Pipeline) Release() {
	if p.held {
		p.held = false
		p.mu.Unlock()
	}
}

// Observe adds an event to its interval: that of o.Time. An event later than
// the clock advances it; one for an interval that is closed goes into a
// further part of that interval.
func (p *Pipeline) Observe(o *exchange.Observation) {
	for {
		if !p.held {
			p.mu.Lock()
			p.held = true
		}
		c := p.current
		if c != nil && o.Time >= c.start && o.Time < c.end {
			p.collector.observe(o, c.tables)
			if !p.batches {
				p.Release()
			}
			return
		}
		p.Release() // which comes after owner.mu
		if c != nil && o.Time < c.start {
			p.owner.late(p, o)
			return
		}
		p.Advance(o.Time)
	}
}

// Advance tells the pipeline's clock: nanoseconds since the epoch, of the
// newest packet, or of the wall on an idle poll. A time before the clock is
// ignored. Call it before the packet of that time is handled: then counters
// and tables of a bucket speak of the same packets. When every pipeline's
// clock has passed the end of an interval, its bucket is emitted from here.
func (p *Pipeline) Advance(now int64) {
	p.Release()
	p.mu.Lock()
	if c := p.current; c != nil && now < c.end {
		p.clock = max(p.clock, now)
		if p.clock-p.synced >= syncEvery {
			p.sync()
		}
		p.mu.Unlock()
		return
	}
	p.mu.Unlock()

	a := p.owner
	a.mu.Lock()
	defer a.mu.Unlock()
	p.handOver()
	p.mu.Lock()
	if p.began == math.MinInt64 {
		p.began = now
	}
	p.clock = max(p.clock, now)
	p.current = &part{interval: a.intervalOf(p.clock), tables: p.collector.fresh()}
	p.sync()
	p.mu.Unlock()
	a.closePassed()
}

// NewIncarnation says, on the pipeline's goroutine, that it has noticed a step
// of the wall clock, which are counted from 1: what the clock said and will say
// do not belong together. When every pipeline has noticed it, what is open is
// flushed, as Close does, the pipelines' clocks begin anew, and buckets
// are those of the incarnation id, with ordinals from 0. It reports whether
// that happened now.
func (p *Pipeline) NewIncarnation(step int64, id bucket.ID) bool {
	p.Release()
	a := p.owner
	a.mu.Lock()
	defer a.mu.Unlock()
	p.mu.Lock()
	if p.current != nil {
		p.sync()
	}
	p.mu.Unlock()
	p.step = step
	for _, o := range a.pipelines {
		// Until the others have noticed it, too, they tell times of before.
		if o.step < step && !o.ended {
			return false
		}
	}
	a.flush()
	a.deps.Incarnation = id
	a.reset()
	return true
}

// End says, on the pipeline's goroutine, that nothing will follow: from now on the others don't wait
// for its clock, and what it has of the interval under way leaves with theirs. The last one's stays
// for Close, as if it had not ended.
func (p *Pipeline) End() {
	p.Release()
	a := p.owner
	a.mu.Lock()
	defer a.mu.Unlock()
	p.ended = true
	if !slices.ContainsFunc(a.pipelines, func(o *Pipeline) bool { return !o.ended }) {
		return
	}
	p.handOver()
	a.closePassed()
}

// handOver gives the interval under way, if there is one, to the accumulator, whose lock is held.
func (p *Pipeline) handOver() {
	p.mu.Lock()
	left := p.current
	if left != nil {
		p.sync()
		p.current = nil
	}
	p.mu.Unlock()
	if left != nil {
		p.owner.add(left) // which may emit, and that locks the pipelines
	}
}

// sync brings the counters of the current part up to date.
func (p *Pipeline) sync() {
	if p.counters != nil {
		d := p.counters.Sub(&p.known)
		p.current.counters.Add(&d)
		p.known = *p.counters
	}
	p.synced = p.clock
}

// absorb adds o to t. Tables that do not fit, because a statistic gives other
// schemas to each pipeline, are lost as a fault of the statistic.
func (t *part) absorb(o *part) {
	for i, table := range o.list {
		if err := t.list[i].Merge(table); err != nil {
			t.panics++
		}
	}
	t.panics += o.panics
	t.counters.Add(&o.counters)
}

// bucket returns t as a bucket, with the counters that come of its tables.
func (t *part) bucket() *bucket.Bucket {
	b := &bucket.Bucket{}
	b.Start = t.start
	b.Counters = t.counters
	b.Counters[exchange.StatisticPanics] += t.panics
	for _, table := range t.list {
		b.Counters[exchange.EvictedKeys] += table.Folded
		if len(table.Rows) > 0 || table.Folded > 0 {
			b.Tables = append(b.Tables, table)
		}
	}
	return b
}
