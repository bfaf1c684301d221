package store

import (
	"cmp"
	"slices"

	"github.com/httpctl/httpctl/pkg/bucket"
)

// A Collector sorts buckets into the slices of a plan's answer. Engines feed
// it what they read; it is not safe for concurrent use.
type Collector struct {
	plan    Plan
	hosts   map[bucket.ID]bool
	slices  map[sliceKey]*collected
	damaged []int64
}

type sliceKey struct {
	step int64
	host bucket.ID
}

type collected struct {
	Slice
	perHost bool                   // of Slice.Host alone, and the two below stay empty
	hosts   map[bucket.ID]struct{} // nil until there is one
	lists   [][]bucket.ID          // more hosts, of parts, each sorted and not to be changed
	sum     *Accumulator           // nil until something is added: see accumulator
	parts   []*sealed              // to be added to sum
	dict    *Dictionary
}

// accumulator returns the sum, to add to it.
func (s *collected) accumulator(p *Plan) *Accumulator {
	if s.sum == nil {
		s.sum = newAccumulator(p)
	}
	return s.sum
}

func (s *collected) addHost(h bucket.ID) {
	if s.perHost {
		return
	}
	if s.hosts == nil {
		s.hosts = map[bucket.ID]struct{}{}
	}
	s.hosts[h] = struct{}{}
}

// sortedHosts lists the hosts, in new memory.
func (s *collected) sortedHosts() []bucket.ID {
	if s.perHost {
		return []bucket.ID{s.Host}
	}
	all := make([]bucket.ID, 0, len(s.hosts))
	for h := range s.hosts {
		all = append(all, h)
	}
	slices.SortFunc(all, bucket.ID.Compare)
	for _, more := range s.lists {
		all = mergeIDs(all, more)
	}
	return all
}

// mergeIDs merges sorted lists, of which no id is twice in one. It may return a, and does not return b. That they are the same is usual.
func mergeIDs(a, b []bucket.ID) []bucket.ID {
	switch {
	case len(b) == 0 || slices.Equal(a, b):
		return a
	case len(a) == 0:
		return slices.Clone(b)
	}
	out := make([]bucket.ID, 0, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		c := a[0].Compare(b[0])
		if c <= 0 {
			out, a = append(out, a[0]), a[1:]
		} else {
			out = append(out, b[0])
		}
		if c >= 0 {
			b = b[1:]
		}
	}
	return append(append(out, a...), b...)
}

// NewCollector returns a Collector for the plan.
func NewCollector(p Plan) *Collector {
	p.From = max(p.From, 0) // no interval starts before the epoch
	c := &Collector{plan: p, slices: map[sliceKey]*collected{}}
	if len(p.Hosts) > 0 {
		c.hosts = make(map[bucket.ID]bool, len(p.Hosts))
		for _, h := range p.Hosts {
			c.hosts[h] = true
		}
	}
	return c
}

// Wants reports whether the plan asks for the host.
func (c *Collector) Wants(host bucket.ID) bool { return c.hosts == nil || c.hosts[host] }

// Add adds a bucket, of which only the plan's table needs to be there. Those
// that the plan does not ask for are ignored.
func (c *Collector) Add(b *bucket.Bucket) error {
	if b.Start < c.plan.From || b.Start >= c.plan.To || !c.Wants(b.Host) {
		return nil
	}
	s := c.slice(&b.Header)
	s.Buckets++
	s.addHost(b.Host)
	s.Counters.Add(&b.Counters)
	s.Covered = extend(s.Covered, bucket.Span{From: b.Start, To: b.End()})
	if len(s.Covered) > 4*maxRollupSpans { // of many hosts, nearly all the same
		s.Covered = bucket.MergeSpans(s.Covered)
	}
	s.declare(b.Unobserved)
	if c.plan.Table == "" {
		return nil
	}
	if t := b.Table(c.plan.Table); t != nil {
		return s.accumulator(&c.plan).Add(t)
	}
	return nil
}

// AddRollup adds a roll-up of a host, or with the hosts that it is made of one of the
// fleet; only the plan's table needs to be there. It must fit the plan: see Plan.Fits.
func (c *Collector) AddRollup(r *Rollup, hosts []bucket.ID) error {
	s := c.slice(&r.Header)
	s.Buckets += r.Buckets
	for _, h := range hosts {
		s.addHost(h)
	}
	s.Counters.Add(&r.Counters)
	for _, span := range r.Covered {
		s.Covered = extend(s.Covered, span)
	}
	s.declare(r.Unobserved)
	c.damaged = append(c.damaged, r.Damaged...)
	if c.plan.Table == "" {
		return nil
	}
	n, skipped := 1, 0
	if sum := r.Sum(c.plan.Table); sum != nil {
		n, skipped = sum.Buckets, sum.Skipped
	}
	if t := r.Table(c.plan.Table); t != nil {
		return s.accumulator(&c.plan).AddSum(t, n, skipped)
	}
	if skipped > 0 {
		s.accumulator(&c.plan).skipped += skipped
	}
	return nil
}

// declare notes unobserved spans; Answer clips them.
func (s *collected) declare(spans []bucket.Span) {
	for _, u := range spans {
		if u.From < u.To {
			s.Unobserved = extend(s.Unobserved, u)
		}
	}
}

// Bytes is about what the Collector takes in memory.
func (c *Collector) Bytes() (n int64) {
	for _, s := range c.slices {
		n += 1024 + int64(64*len(s.hosts)+16*cap(s.Covered)+16*cap(s.Unobserved))
		if s.sum != nil {
			n += s.sum.bytes()
		}
	}
	return n
}

// Whole reports whether nothing was damaged and no row had to be dropped.
func (c *Collector) Whole() bool {
	for _, s := range c.slices {
		s.flatten(&c.plan) // which may have to drop rows
		if s.sum != nil && s.sum.pruned > 0 {
			return false
		}
	}
	return len(c.damaged) == 0
}

// Damage notes that something of the interval was left out.
func (c *Collector) Damage(start int64) { c.damaged = append(c.damaged, start) }

// Answer returns the answer. The Collector must not be used afterwards.
func (c *Collector) Answer() *Answer {
	a := &Answer{}
	a.Slices = slices.Grow(a.Slices, len(c.slices))
	for _, s := range c.slices {
		sum := &Sum{plan: &c.plan, acc: s.sum, parts: s.parts, dict: s.dict}
		if s.Skipped = sum.Skipped(); c.plan.Sum {
			s.Sum = sum
		} else {
			s.Table = sum.Table(c.plan.MaxRows)
		}
		s.Hosts = s.sortedHosts()
		for i := range s.Unobserved {
			u := &s.Unobserved[i]
			u.From, u.To = max(u.From, s.Start), min(u.To, s.End)
		}
		s.Covered, s.Unobserved = bucket.MergeSpans(s.Covered), bucket.MergeSpans(s.Unobserved)
		a.Slices = append(a.Slices, s.Slice)
	}
	slices.SortFunc(a.Slices, func(x, y Slice) int {
		return cmp.Or(cmp.Compare(x.Start, y.Start), x.Host.Compare(y.Host))
	})
	slices.Sort(c.damaged)
	a.Damaged = slices.Compact(c.damaged)
	return a
}

func (c *Collector) slice(h *bucket.Header) *collected {
	key := sliceKey{}
	if c.plan.Step > 0 {
		key.step = (h.Start - c.plan.From) / int64(c.plan.Step)
	}
	if c.plan.PerHost {
		key.host = h.Host
	}
	s := c.slices[key]
	if s == nil {
		s = &collected{perHost: c.plan.PerHost}
		s.Host = key.host
		s.Start, s.End = c.plan.From, c.plan.To
		if c.plan.Step > 0 {
			s.Start += key.step * int64(c.plan.Step)
			s.End = min(s.End, s.Start+int64(c.plan.Step))
		}
		c.slices[key] = s
	}
	return s
}

// extend appends a span, or grows the last one if they touch.
func extend(spans []bucket.Span, s bucket.Span) []bucket.Span {
	if n := len(spans); n > 0 && s.From >= spans[n-1].From && s.From <= spans[n-1].To {
		spans[n-1].To = max(spans[n-1].To, s.To)
		return spans
	}
	return append(spans, s)
}
