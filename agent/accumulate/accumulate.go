// Package accumulate turns the events of exchanges into buckets, by the
// clocks of the pipelines (DESIGN sections 4 and 5). It reads no other clock.
//
// Each [Pipeline] counts into a part of its own. When the clocks of all have
// passed the end of an interval, the parts are merged into one final bucket,
// which is emitted; so one bucket leaves per interval, with its tables, or as a
// header only when the interval was idle.
//
// What arrives for an interval already closed is counted (late_events) and leaves as
// its next part with the next close.
//
// A silence longer than [maxIdle] intervals, such as a sleeping host or a hole in a
// capture file, is not filled with buckets: it is declared unobserved. A
// pipeline more than [maxSkew] intervals behind the others is not waited for;
// its events are then late.
package accumulate

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/exchange"
)

const (
	// maxIdle is how many idle intervals in a row are sent as headers: one
	// hour at the default width, so a quiet night of a live host, whose clock
	// advances every timeout, is never near it.
	maxIdle = 360
	// maxSkew bounds the parts kept for a pipeline that lags.
	maxSkew = 8
	// maxLate bounds the late parts that are open at a time; the oldest is emitted.
	maxLate = 16
	// maxNumbered bounds the intervals whose next part number is remembered.
	maxNumbered = 1024
)

// Config says how to accumulate.
type Config struct {
	// Width of an interval: a divisor of one minute, at least 1s (dashboard_bucket_size).
	Width time.Duration
	// MaxKeys bounds the rows of each table.
	MaxKeys int
	// Memory bounds the tables of one interval, in bytes; 0 is without bound. So many
	// exist at a time: one for each pipeline, those merged of them, and what Emit keeps.
	Memory int64
	// Statistics lists the statistics by name; empty is the built-in ones.
	Statistics []string
}

// Validate reports every fault of c.
func (c Config) Validate() error {
	_, err := NewCollector(c.Statistics, c.MaxKeys, c.Memory)
	return errors.Join(validWidth(c.Width), err)
}

func validWidth(w time.Duration) error {
	if w < time.Second || time.Minute%w != 0 {
		return fmt.Errorf("dashboard_bucket_size is %v: want a divisor of 1m, at least 1s", w)
	}
	return nil
}

// Deps says whose buckets these are and where they go.
type Deps struct {
	Host        bucket.ID
	HostName    string
	Incarnation bucket.ID
	// Emit takes each final bucket, which is then its own, in the order of
	// their ordinals, one call at a time, on the goroutine that closed the
	// interval (of a pipeline, or of Close). It must not
	// call the Accumulator, and pipelines wait while it runs.
	Emit func(*bucket.Bucket)
}

// Accumulator makes the buckets of one host. Its methods are safe for
// concurrent use.
type Accumulator struct {
	cfg       Config
	pipelines []*Pipeline

	mu   sync.Mutex
	deps Deps
	// regimes are the widths, each valid from a time on; by rising time.
	regimes  []regime
	pending  map[int64]*part // handed over by pipelines, not closed yet; by start
	lateOnes map[int64]*part // for intervals closed already; by start
	lateKeep *Collector      // makes the tables of parts
	closed   bool

	next          int64 // start of the oldest interval not closed
	begun         bool  // every pipeline's clock has begun, and next is known
	observedFrom  int64
	closedThrough int64
	ordinal       uint64
	revision      uint32
	open          int64         // exchanges that all buckets so far leave open
	declared      []bucket.Span // jumps, which the next bucket tells
	// numbers is the next part number of intervals that had late events;
	// numberFloor is one that no forgotten interval has reached.
	numbers     map[int64]uint32
	numberFloor uint32
}

type regime struct {
	from  int64
	width int64
}

// New returns an Accumulator for the given number of pipelines (at least 1).
func New(cfg Config, deps Deps, pipelines int) (*Accumulator, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if deps.Emit == nil || pipelines < 1 {
		return nil, errors.New("accumulate: Emit is nil, or no pipeline")
	}
	a := &Accumulator{cfg: cfg, regimes: []regime{{math.MinInt64, int64(cfg.Width)}}, deps: deps}
	for i := range pipelines + 1 {
		c, err := NewCollector(cfg.Statistics, cfg.MaxKeys, cfg.Memory)
		if err != nil {
			return nil, err
		}
		if i == pipelines {
			a.lateKeep = c
			break
		}
		a.pipelines = append(a.pipelines, &Pipeline{owner: a, collector: c})
	}
	a.reset()
	return a, nil
}

// reset begins an incarnation.
func (a *Accumulator) reset() {
	a.pending, a.lateOnes = map[int64]*part{}, map[int64]*part{}
	a.numbers, a.numberFloor = map[int64]uint32{}, 1
	a.begun, a.ordinal, a.revision = false, 0, 0
	for _, p := range a.pipelines {
		p.mu.Lock()
		p.current, p.clock, p.began, p.synced = nil, math.MinInt64, math.MinInt64, math.MinInt64
		p.mu.Unlock()
	}
}

// Pipeline returns the i-th pipeline, which reads counters on its own goroutine; they
// may be nil. Call it once for each, before anything is observed.
func (a *Accumulator) Pipeline(i int, counters *exchange.Counters) *Pipeline {
	p := a.pipelines[i]
	p.counters = counters
	return p
}

// opened is how many exchanges began and did not end in what n counts. The gauge of a
// bucket is the sum over it and all before it, so that it speaks of the same packets as
// they do, however far each pipeline was when it was emitted.
func opened(n *exchange.Counters) int64 {
	return int64(n[exchange.Requests] + n[exchange.UnmatchedResponses] - n[exchange.Outcomes])
}

// SetWidth changes the width of the intervals from a time on, which must be
// after the interval under way and a multiple of both widths; 0 is the next
// hour, or at once while nothing was observed. An earlier change that has not
// come yet is replaced.
func (a *Accumulator) SetWidth(width time.Duration, from int64) error {
	if err := validWidth(width); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	reached, started := int64(math.MinInt64), false
	for _, p := range a.pipelines {
		p.mu.Lock()
		if p.current != nil {
			reached, started = max(reached, p.current.end), true
		}
		p.mu.Unlock()
	}
	if !started && from == 0 {
		a.regimes = []regime{{math.MinInt64, int64(width)}}
		return nil
	}
	if from == 0 {
		from = ceil(reached, int64(time.Hour))
	}
	if from < reached || from%int64(width) != 0 || from%a.widthAt(reached) != 0 {
		return fmt.Errorf("interval width %v from %v: want a boundary of both widths after %v",
			width, time.Unix(0, from).UTC(), time.Unix(0, reached).UTC())
	}
	a.regimes = slices.DeleteFunc(a.regimes, func(r regime) bool { return r.from > math.MinInt64 && r.from >= reached })
	if a.regimes[len(a.regimes)-1].width != int64(width) {
		a.regimes = append(a.regimes, regime{from, int64(width)})
	}
	if len(a.regimes) > 8 {
		a.regimes = slices.Delete(a.regimes, 0, 1)
		a.regimes[0].from = math.MinInt64
	}
	return nil
}

func (a *Accumulator) widthAt(t int64) int64 {
	for i := len(a.regimes) - 1; i > 0; i-- {
		if t >= a.regimes[i].from {
			return a.regimes[i].width
		}
	}
	return a.regimes[0].width
}

func (a *Accumulator) intervalOf(t int64) interval {
	w := a.widthAt(t)
	start := floor(t, w)
	return interval{start, start + w}
}

// floor and ceil round to a multiple of w, also before 1970.
func floor(t, w int64) int64 {
	r := t % w
	if r < 0 {
		r += w
	}
	return t - r
}

func ceil(t, w int64) int64 { return floor(t+w-1, w) }

// add takes a pipeline's part of an interval that the pipeline has left.
func (a *Accumulator) add(p *part) {
	if a.begun && p.start < a.next {
		// Closed without this pipeline, which lagged too far behind.
		t := a.latePart(p.interval)
		t.absorb(p)
		a.lateKeep.bound(t.tables)
		return
	}
	if t := a.pending[p.start]; t != nil {
		t.absorb(p)
		a.lateKeep.bound(t.tables)
		return
	}
	a.pending[p.start] = p
}

// late counts an event for an interval that its pipeline has left.
func (a *Accumulator) late(p *Pipeline, o *exchange.Observation) {
	a.mu.Lock()
	defer a.mu.Unlock()
	v := a.intervalOf(o.Time)
	var t *part
	if !a.begun || v.start >= a.next {
		// Not closed yet: another pipeline is still there.
		if t = a.pending[v.start]; t == nil {
			t = &part{interval: v, tables: a.lateKeep.fresh()}
			a.pending[v.start] = t
		}
	} else {
		t = a.latePart(v)
		t.counters[exchange.LateEvents]++
	}
	p.mu.Lock()
	p.collector.observe(o, t.tables)
	p.mu.Unlock()
}

// latePart returns the open part of a closed interval.
func (a *Accumulator) latePart(v interval) *part {
	t := a.lateOnes[v.start]
	if t == nil {
		if len(a.lateOnes) >= maxLate {
			a.emitLate(slices.Min(keys(a.lateOnes)))
		}
		t = &part{interval: v, tables: a.lateKeep.fresh()}
		a.lateOnes[v.start] = t
	}
	return t
}

func keys(m map[int64]*part) []int64 {
	list := make([]int64, 0, len(m))
	for k := range m {
		list = append(list, k)
	}
	slices.Sort(list)
	return list
}

// emitLate emits the late part of an interval as its next part.
func (a *Accumulator) emitLate(start int64) {
	t := a.lateOnes[start]
	delete(a.lateOnes, start)
	number, ok := a.numbers[start]
	if !ok {
		number = a.numberFloor
	}
	if len(a.numbers) >= maxNumbered && !ok {
		oldest := int64(math.MaxInt64)
		for s := range a.numbers {
			oldest = min(oldest, s)
		}
		a.numberFloor = max(a.numberFloor, a.numbers[oldest])
		delete(a.numbers, oldest)
	}
	a.numbers[start] = number + 1
	a.emit(t, number, a.closedThrough)
}

// closePassed closes every interval that all clocks have passed.
func (a *Accumulator) closePassed() {
	// all is the start of the interval that the slowest pipeline is in.
	slowest, fastest, waiting := int64(math.MaxInt64), int64(math.MinInt64), false
	observed := int64(math.MinInt64)
	for _, p := range a.pipelines {
		if p.ended && p.current == nil {
			continue
		}
		p.mu.Lock()
		if p.current == nil {
			waiting = true
		} else {
			slowest, fastest = min(slowest, p.current.start), max(fastest, p.current.start)
			observed = max(observed, p.began)
		}
		p.mu.Unlock()
	}
	if fastest == math.MinInt64 {
		return // no clock has begun
	}
	limit := fastest - maxSkew*a.widthAt(fastest)
	if !waiting {
		limit = max(limit, slowest)
	}
	if !a.begun {
		oldest := slowest
		for start := range a.pending {
			oldest = min(oldest, start)
		}
		if waiting && limit <= oldest {
			return
		}
		a.begun, a.next, a.observedFrom, a.closedThrough = true, oldest, observed, min(observed, oldest)
	}
	a.closeUntil(limit)
}

// closeUntil closes the intervals that start before limit.
func (a *Accumulator) closeUntil(limit int64) {
	if limit <= a.next {
		return
	}
	for _, start := range keys(a.pending) {
		if start >= limit {
			break
		}
		a.idleUntil(start)
		t := a.pending[start]
		delete(a.pending, start)
		a.next = t.end
		a.emit(t, 0, t.end)
	}
	a.idleUntil(limit)
	for _, start := range keys(a.lateOnes) {
		a.emitLate(start)
	}
}

// idleUntil emits headers for the intervals from next to t, in which nothing
// was seen, or declares them when there are too many.
func (a *Accumulator) idleUntil(t int64) {
	if (t-a.next)/a.widthAt(a.next) > maxIdle {
		a.declared = append(a.declared, bucket.Span{From: a.next, To: t})
		a.next = t
	}
	for a.next < t {
		v := a.intervalOf(a.next)
		a.next = v.end
		a.emit(&part{interval: v, tables: &tables{}}, 0, v.end)
	}
}

// header fills in what all buckets of this incarnation have in common.
func (a *Accumulator) header(b *bucket.Bucket, t *part) {
	b.Name = bucket.Name{Host: a.deps.Host, Start: t.start, Incarnation: a.deps.Incarnation}
	b.HostName = a.deps.HostName
	b.Width = time.Duration(t.end - t.start)
	b.Ordinal = a.ordinal
	b.ObservedFrom = a.observedFrom
}

// emit sends a final bucket.
func (a *Accumulator) emit(t *part, number uint32, closedThrough int64) {
	b := t.bucket()
	a.header(b, t)
	a.open += opened(&t.counters)
	b.Open = uint64(max(a.open, 0))
	b.Part = number
	b.Final = true
	a.closedThrough = max(a.closedThrough, closedThrough)
	b.ClosedThrough = a.closedThrough
	b.Unobserved, a.declared = a.declared, nil
	a.ordinal++
	a.revision = 0
	a.deps.Emit(b)
}

// Provisional returns what is known of the oldest interval that is not closed:
// whole exact tables (totals), and the first rows of the others. It is
// cumulative; each has a higher revision. It is nil before the clocks have begun.
// Late events are not in it. The pipelines wait while their tables are copied.
func (a *Accumulator) Provisional(rows int) *bucket.Bucket {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return nil
	}
	start := int64(math.MaxInt64)
	if a.begun {
		start = a.next
	} else {
		for _, p := range a.pipelines {
			p.mu.Lock()
			if p.current != nil {
				start = min(start, p.current.start)
			}
			p.mu.Unlock()
		}
		if start == math.MaxInt64 {
			return nil
		}
	}
	v := a.intervalOf(start)
	sum := &part{interval: v, tables: &tables{}}
	several := len(a.pipelines) > 1 || a.pending[start] != nil
	if several {
		sum.tables = a.lateKeep.fresh()
		if t := a.pending[start]; t != nil {
			sum.absorb(t)
		}
	}
	for _, p := range a.pipelines {
		p.mu.Lock()
		if t := p.current; t != nil && t.start == start {
			if several {
				sum.absorb(t)
			} else {
				sum.counters, sum.panics = t.counters, t.panics
				for _, table := range t.list {
					sum.list = append(sum.list, table.Head(rows))
				}
			}
		}
		p.mu.Unlock()
	}
	b := sum.bucket()
	if several {
		for i, table := range b.Tables {
			b.Tables[i] = table.Head(rows)
		}
	}
	a.header(b, sum)
	b.Open = uint64(max(a.open+opened(&sum.counters), 0))
	a.revision++
	b.Revision = a.revision
	b.ClosedThrough = a.closedThrough
	return b
}

// Close flushes the open intervals as final. Call it when the pipelines have
// stopped, after their last Observe. The last bucket's ClosedThrough is the
// time that the clocks had reached, not the end of the interval: who starts
// again in the same interval adds to it under another incarnation, and
// declares what lies between. Close is idempotent; afterwards nothing may be
// observed.
func (a *Accumulator) Close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return
	}
	a.closed = true
	for _, p := range a.pipelines {
		p.mu.Lock()
		if p.current != nil {
			p.sync()
		}
		p.mu.Unlock()
	}
	a.flush()
}

// flush emits everything that is open. The caller holds mu. What the pipelines
// have counted since their last sync stays for later.
func (a *Accumulator) flush() {
	reached, observed := int64(math.MaxInt64), int64(math.MinInt64)
	last := int64(math.MinInt64)
	for _, p := range a.pipelines {
		p.mu.Lock()
		left := p.current
		p.current = nil
		if left != nil {
			reached, observed = min(reached, p.clock), max(observed, p.began)
			last = max(last, left.start)
		}
		p.mu.Unlock()
		if left != nil {
			a.add(left) // which may emit, and that locks the pipelines
		}
	}
	if last == math.MinInt64 {
		if len(a.pending) == 0 {
			return
		}
		// Those that counted have ended, and the clocks of the others have not begun.
		reached = math.MinInt64
		for _, p := range a.pipelines {
			p.mu.Lock()
			reached, observed = max(reached, p.clock), max(observed, p.began)
			p.mu.Unlock()
		}
	}
	starts := keys(a.pending)
	if !a.begun {
		a.begun, a.next, a.observedFrom, a.closedThrough = true, starts[0], observed, min(observed, starts[0])
	}
	for _, start := range starts {
		a.idleUntil(start)
		t := a.pending[start]
		delete(a.pending, start)
		a.next = t.end
		a.emit(t, 0, min(t.end, reached))
	}
	for _, start := range keys(a.lateOnes) {
		a.emitLate(start)
	}
}
