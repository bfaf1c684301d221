package bolt

import (
	"context"
	"encoding/binary"
	"errors"
	"runtime"
	"sync"

	"go.etcd.io/bbolt"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/pkg/lifecycle"
)

// Who asks a dozen questions of the same time, as a dashboard does, has each minute without roll-ups read a dozen times: to inflate a bucket
// takes longer than to add it up. Expect reads such a minute once, for all.

// maxExpected bounds the minutes that Expect reads: the sums of more are gone before they are asked for.
const maxExpected = 20

// expected is a plan of which sums are made.
type expected struct {
	plan  *store.Plan
	shape *shape
	slot  int64
}

// Expect implements store.Expecter: of plans that nobody has asked in the last minutes it makes the sums of the last minutes without roll-ups, and of
// steps of less than a minute.
func (s *DB) Expect(ctx context.Context, plans []store.Plan) error {
	var all []expected
	for i := range plans {
		p := &plans[i]
		slot := slotOf(p)
		if p.Table == "" || p.From < 0 || p.Step > 0 && slot == 0 {
			continue
		}
		if sh := s.sums.shape(p); !s.sums.isFed(sh) {
			all = append(all, expected{p, sh, slot})
		}
	}
	if len(all) == 0 {
		return nil
	}
	minutes, err := s.unrolled(all)
	if err != nil || len(minutes) == 0 {
		return err
	}
	// They do not depend on each other, and whoever asks first after a start waits for them.
	next := make(chan stepKey)
	var workers sync.WaitGroup
	failures := make([]error, min(len(minutes), runtime.GOMAXPROCS(0)))
	for i := range failures {
		workers.Go(func() {
			for minute := range next {
				if failures[i] == nil {
					failures[i] = lifecycle.Guard(func() error { return s.expectMinute(ctx, minute, all) })
				}
			}
		})
	}
	for _, minute := range minutes {
		next <- minute
	}
	close(next)
	workers.Wait()
	return errors.Join(failures...)
}

// isFed reports whether what is appended is added to sums of a shape.
func (c *sums) isFed(sh *shape) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key := range sh.pieces {
		if key.fed() {
			return true
		}
	}
	return false
}

// unrolled lists the last minutes that are to be read: those without a roll-up of the fleet, and those with steps that are asked for.
func (s *DB) unrolled(all []expected) (minutes []stepKey, err error) {
	from, to, steps := int64(1)<<62, int64(0), int64(1)<<62
	for _, e := range all {
		from, to = min(from, e.plan.From), max(to, e.plan.To)
		if e.slot > 0 {
			steps = min(steps, e.plan.From)
		}
	}
	err = s.view(func(tx *bbolt.Tx) error {
		intervals := tx.Bucket(bucketIntervals).Cursor()
		key, _ := intervals.Seek(startKey(to))
		if key == nil {
			key, _ = intervals.Last()
		} else {
			key, _ = intervals.Prev()
		}
		for len(key) == 8 && len(minutes) < maxExpected {
			at := int64(binary.BigEndian.Uint64(key))
			minute := newStepKey(store.Minute, store.Minute.Floor(at))
			if at < from || minute.end() <= steps && s.rolled(tx, minute) {
				return nil
			}
			minutes = append(minutes, minute)
			intervals.Seek(startKey(minute.start()))
			key, _ = intervals.Prev()
		}
		return nil
	})
	return minutes, err
}

// rolled reports whether there is a roll-up of the fleet that is up to date.
func (s *DB) rolled(tx *bbolt.Tx, key stepKey) bool {
	entries, err := s.entries(tx, key)
	if err != nil || entries == nil {
		return false
	}
	value := entries.Get(fleetHeader)
	return value != nil && !isDirty(value)
}

// making is a sum that is being made.
type making struct {
	reader
	k *kept
}

// expectMinute makes the sums of a minute that are not there yet.
func (s *DB) expectMinute(ctx context.Context, minute stepKey, all []expected) error {
	rolled := false
	if err := s.view(func(tx *bbolt.Tx) error {
		rolled = s.rolled(tx, minute)
		return nil
	}); err != nil {
		return err
	}
	var under []making
	defer func() {
		for _, m := range under {
			s.sums.abandon(m.k)
		}
	}()
	claim := func(e expected, p piece) {
		if k, mine := s.sums.claim(e.shape, p, false); mine {
			plan := *e.plan
			plan.From, plan.To, plan.Step = p.start, p.end(), 0
			under = append(under, making{reader{plan: &plan, c: store.NewCollector(plan)}, k})
		}
	}
	for _, e := range all {
		if e.slot == 0 && !rolled && e.plan.Fits(minute.start(), minute.end()) {
			claim(e, piece{minute.start(), minuteLength})
		}
		for at := minute.start(); e.slot > 0 && at < minute.end(); at += e.slot {
			if at >= e.plan.From && at+e.slot <= e.plan.To {
				claim(e, piece{at, e.slot})
			}
		}
	}
	if len(under) == 0 {
		return ctx.Err()
	}
	txid := 0
	err := s.view(func(tx *bbolt.Tx) error {
		txid = tx.ID()
		next := s.starts(tx, minute.start(), minute.end())
		for key := next(); key != nil; key = next() {
			if err := ctx.Err(); err != nil {
				return err
			}
			start := int64(binary.BigEndian.Uint64(key))
			var readers []reader
			for _, m := range under {
				if start >= m.plan.From && start < m.plan.To {
					readers = append(readers, m.reader)
				}
			}
			if len(readers) == 0 {
				continue
			}
			if err := s.readInterval(tx, key, start, readers...); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for len(under) > 0 {
		m := under[0]
		var sum *store.Part
		if m.c.Whole() {
			sum = m.c.Part(m.k.shape.dict.Load())
		}
		under = under[1:]
		if sum == nil { // so that damage is reported each time
			s.sums.abandon(m.k)
			continue
		}
		s.sums.finish(m.k, sum, txid)
	}
	return nil
}
