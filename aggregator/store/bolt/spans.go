package bolt

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"go.etcd.io/bbolt"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/pkg/lifecycle"
)

// A dashboard asks for the time from a minute until now again and again, and its minute moves on with the clock. So for what was
// asked lately there is a sum, a span, from where it began to the last minute that is over, and one from a minute later, which the next
// minute's questions take: each adds two or three minutes to it. Spans are made ahead, by Prepare, so that no question has to.

const (
	// maxAsks bounds the beginnings per shape of which spans are made: a handful of viewers, each with its own range.
	maxAsks = 4
	// leastSpan is the least time of which one is made: what is less has few pieces anyway.
	leastSpan = 2 * chunkLength
	// maxSpan is the most time of which one is made, 32 days: each time it is looked for, its hours are gone through. What is more
	// has a sum of each day.
	maxSpan = 32 * 24 * 60 * minuteLength
	// staleSpan is how old one from a beginning that does not move may become: to be made anew each minute it costs more than
	// adding as many minutes to it.
	staleSpan = chunkLength
	// restTime after it was first asked for, by the newest bucket, a beginning is taken not to move.
	restTime = 3 * minuteLength
	// mostWait bounds for how many passes a span that cannot be made is left alone, some five minutes: twice as many each time, as damage stays
	// and what has no room today may have some tomorrow.
	mostWait = 300
	// askPasses after it was last asked for a beginning is forgotten, also when nothing is appended, some ten minutes.
	askPasses = 600
)

// asking is a beginning that was asked for. Its other times are those of sums.newest.
type asking struct {
	from      int64
	first, at int64 // when it was asked for first, and last
	again     bool  // more than once
	pass      int   // when it was asked for last
	// next is the pass in which spans of it may be made again after one could not be, wait how many it was left alone for, and
	// failure why, if that was an error.
	next, wait int
	failure    error
}

// asked notes that a shape was asked for from a time on.
func (c *sums) asked(sh *shape, from int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var oldest, before *asking
	for i := range sh.asks {
		a := &sh.asks[i]
		if a.from == from {
			a.at, a.again, a.pass = c.newest, true, c.passes
			return
		}
		if moved := from - a.from; moved > 0 && moved <= chunkLength && moved%minuteLength == 0 && (before == nil || a.from > before.from) {
			before = a
		}
		if oldest == nil || a.at < oldest.at {
			oldest = a
		}
	}
	now := asking{from: from, first: c.newest, at: c.newest, pass: c.passes}
	switch {
	case before != nil:
		oldest = before
		now.next, now.wait, now.failure = before.next, before.wait, before.failure
	case len(sh.asks) < maxAsks:
		sh.asks = append(sh.asks, asking{})
		oldest = &sh.asks[len(sh.asks)-1]
	}
	*oldest = now
}

// span returns the longest one that is made and begins at from, nil if there is none that ends at or before to.
func (c *sums) span(sh *shape, from, to int64) *kept {
	c.mu.Lock()
	defer c.mu.Unlock()
	var best *kept
	for _, p := range sh.spans {
		if k := sh.pieces[p]; p.start == from && p.end() <= to && k != nil && k.tag == c.tag(p) && (best == nil || best.key.length < p.length) {
			best = k
		}
	}
	if best != nil {
		c.use(best)
	}
	return best
}

// spanJob is a span that is to be made.
type spanJob struct {
	shape *shape
	piece piece
	from  int64 // of the question
}

// due lists the spans to be made, and drops those that nobody will ask for.
// failures are those of spans that are left alone for a while.
func (c *sums) due() (jobs []spanJob, failures []error) {
	c.mu.Lock()
	c.passes++
	shapes := slices.Collect(maps.Values(c.shapes))
	c.mu.Unlock()
	for _, sh := range shapes {
		more, failed := c.dueOf(sh)
		jobs, failures = append(jobs, more...), append(failures, failed...)
	}
	return jobs, failures
}

// dueOf is due for one shape: what is appended waits for no more.
func (c *sums) dueOf(sh *shape) (jobs []spanJob, failures []error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shapes[sh.name] == sh {
		sh.asks = slices.DeleteFunc(sh.asks, func(a asking) bool { return c.newest-a.at > fedTime || c.passes-a.pass > askPasses })
		var keep []piece
		look := func(a *asking, from, stale int64) {
			end := store.Minute.Floor(max(c.newest-settleTime, 0))
			if hour := int64(store.Hour.Length()); from%hour == 0 && end%hour == 0 {
				end -= minuteLength // of whole hours there are other sums
			}
			there := piece{start: from}
			for _, p := range sh.spans {
				if k := sh.pieces[p]; p.start == from && p.length > there.length && k != nil && k.tag == c.tag(p) {
					there = p
				}
			}
			if there.length > 0 {
				keep = append(keep, there)
			}
			if end-from >= leastSpan && end-from <= maxSpan && end > there.end() && (there.length == 0 || end-there.end() >= stale) {
				if a.next > c.passes {
					if a.failure != nil {
						failures = append(failures, a.failure)
					}
					return
				}
				jobs = append(jobs, spanJob{sh, piece{from, end - from}, a.from})
			}
		}
		for i := range sh.asks {
			a := &sh.asks[i]
			whole := a.from%minuteLength == 0
			if whole || a.again {
				look(a, a.from, staleSpan)
			}
			if whole && c.newest-a.first <= restTime {
				look(a, a.from+minuteLength, minuteLength)
			}
		}
		for _, p := range sh.spans {
			if !slices.Contains(keep, p) {
				c.drop(sh, p)
			}
		}
		sh.spans = keep
	}
	return jobs, failures
}

// tried notes whether there is a sum of a span that was to be made, or why not; one that could not be kept, or is of damaged data, has no error.
func (c *sums) tried(job spanJob, failure error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	sh, p := job.shape, job.piece
	made := failure == nil && sh.pieces[p] != nil
	if made && !slices.Contains(sh.spans, p) {
		sh.spans = append(sh.spans, p)
	}
	for i := range sh.asks {
		switch a := &sh.asks[i]; {
		case a.from != job.from || !made && a.next > c.passes+1: // another's, or noted in this pass
		case made:
			a.next, a.wait, a.failure = 0, 0, nil
		default:
			a.wait = min(max(2*a.wait, 1), mostWait)
			a.next, a.failure = c.passes+1+a.wait, failure
		}
	}
}

// Prepare makes sums that the next questions will need, of what was asked for in the last minutes, and returns when there is no more to make. It
// holds up neither Append nor Query, and costs nothing while nobody asks. It is to be called every second or so, by one at a time.
// What cannot be made is left alone for a while, longer each time, and holds up nothing else; its error is returned until it is made.
func (s *DB) Prepare(ctx context.Context) error {
	s.sums.gather()
	jobs, failures := s.sums.due()
	for _, job := range jobs {
		err := lifecycle.Guard(func() error { return s.prepare(ctx, job) })
		if ctx.Err() != nil {
			return fmt.Errorf("prepare sums: %w", ctx.Err())
		}
		s.sums.tried(job, err)
		if err != nil {
			failures = append(failures, err)
		}
	}
	if len(failures) > 0 { // the others are likely the same
		return fmt.Errorf("prepare sums: %w", failures[0])
	}
	return nil
}

// cuts reports whether a time lies within an hour, or a day, of which nothing shorter is left: a question goes over it in one piece, or says nothing
// of it.
func (s *DB) cuts(at int64) (cut bool, err error) {
	err = s.view(func(tx *bbolt.Tx) error {
		for _, r := range []store.Resolution{store.Hour, store.Day} {
			begin := r.Floor(at)
			cut = cut || begin != at && begin < getInt(tx, floorKey(r-1))
		}
		return nil
	})
	return cut, err
}

func (s *DB) prepare(ctx context.Context, job spanJob) error {
	p := job.piece
	if cut, err := s.cuts(p.end()); cut || err != nil {
		return err
	}
	k, mine := s.sums.claim(job.shape, p, true)
	if !mine {
		return nil
	}
	settled := false
	defer func() {
		if !settled {
			s.sums.abandon(k)
		}
	}()
	plan := job.shape.plan
	plan.From, plan.To = p.start, p.end()
	q := &question{ctx: ctx, s: s, plan: &plan, c: store.NewCollector(plan), shape: job.shape, under: p.length, ahead: true}
	if err := q.span(p.start, p.end(), q.next); err != nil {
		return err
	}
	if !q.c.Whole() { // so that damage is reported each time
		return nil
	}
	sum := q.c.Part(job.shape.dict.Load())
	settled = true
	s.sums.finish(k, sum, q.txid)
	return nil
}
