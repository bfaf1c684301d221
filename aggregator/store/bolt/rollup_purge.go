package bolt

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/bbolt"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/pkg/bucket"
)

// remake makes a damaged step anew, with all hosts dirty that have something in what
// it is made of. It returns false, and leaves the step, if nothing of that is there any more:
// it goes as a whole, so what is there is all of it.
func (s *DB) remake(ctx context.Context, key stepKey) (bool, error) {
	made := false
	err := s.change(ctx, func(w *steps) error {
		hosts, err := s.hostsBelow(w.tx, key)
		if err != nil || len(hosts) == 0 {
			return err
		}
		made = true
		if err := s.drop(w.tx, key); err != nil {
			return err
		}
		st, err := w.step(key)
		if err != nil {
			return err
		}
		for host := range hosts {
			if err := st.soil(hostEntry(host)); err != nil {
				return err
			}
		}
		return st.soil(fleetHeader)
	})
	return made && err == nil, err
}

// hostsBelow returns the hosts that have something in what a step is made of, as far as that can be read.
func (s *DB) hostsBelow(tx *bbolt.Tx, key stepKey) (map[bucket.ID]bool, error) {
	hosts := map[bucket.ID]bool{}
	if key.resolution() == store.Minute {
		next := s.starts(tx, key.start(), key.end())
		for k := next(); k != nil; k = next() {
			blobs, err := s.blobs(tx, k)
			switch {
			case errors.Is(err, store.ErrCorrupt):
			case err != nil:
				return nil, err
			case blobs != nil:
				hostsOf(blobs, hosts)
			}
		}
		return hosts, nil
	}
	next := s.stepsOf(tx, key.resolution()-1, key.start(), key.end())
	for child, ok := next(); ok; child, ok = next() {
		entries, err := s.entries(tx, child)
		switch {
		case errors.Is(err, store.ErrCorrupt):
			continue
		case err != nil:
			return nil, err
		case entries == nil:
			continue
		}
		c := entries.Cursor()
		for k, _ := c.First(); k != nil; k, _ = c.Next() {
			if host, ok := hostOf(k); ok {
				hosts[host] = true
			}
		}
	}
	return hosts, nil
}

// hostsOf adds the hosts that have buckets in an interval.
func hostsOf(blobs *bbolt.Bucket, hosts map[bucket.ID]bool) {
	var host bucket.ID
	c := blobs.Cursor()
	for k, _ := c.First(); len(k) == blobKeyLen; k, _ = c.Next() {
		copy(host[:], k)
		hosts[host] = true
	}
}

// settle brings a step up to date, and what it is made of, so that the latter
// can go: where nothing of that can be read, nothing is lost with it. The caller holds rolling.
func (s *DB) settle(ctx context.Context, key stepKey) error {
	done := false
	look := func() error {
		return s.view(func(tx *bbolt.Tx) error {
			_, sound := s.dirtyHosts(tx, key)
			m, err := parseStepManifest(key[:], tx.Bucket(bucketRollupManifests).Get(key[:]))
			done = sound && err == nil && m.dirty == 0
			return nil
		})
	}
	if err := look(); err != nil || done {
		return err
	}
	if r := key.resolution() - 1; r > store.Raw {
		var children []stepKey
		err := s.view(func(tx *bbolt.Tx) error {
			next := s.stepsOf(tx, r, key.start(), key.end())
			for child, ok := next(); ok; child, ok = next() {
				children = append(children, child)
			}
			return nil
		})
		if err != nil {
			return err
		}
		for _, child := range children {
			if err := s.settle(ctx, child); err != nil {
				return err
			}
		}
	}
	if _, err := s.rebuild(ctx, key); err != nil {
		return err
	}
	if err := look(); err != nil || done {
		return err
	}
	var hosts map[bucket.ID]bool
	err := s.view(func(tx *bbolt.Tx) (err error) {
		hosts, err = s.hostsBelow(tx, key)
		return err
	})
	if err != nil || len(hosts) == 0 { // rebuild has counted it
		return err
	}
	return fmt.Errorf("the %s at %d cannot be summed up: %w", key.resolution(), key.start(), store.ErrCorrupt)
}

// PurgeRollups implements store.Store.
func (s *DB) PurgeRollups(ctx context.Context, r store.Resolution, t int64) (int, error) {
	if r < store.Minute || r > store.Day {
		return 0, fmt.Errorf("purge roll-ups: there are none of resolution %d", r)
	}
	defer s.roll()()
	coarser := min(r+1, store.Day)
	finer := keySealed
	if r > store.Minute {
		finer = floorKey(r - 1)
	}
	// first is the first step to go, floor that of the finer resolution.
	var first stepKey
	var found bool
	find := func() error {
		return s.view(func(tx *bbolt.Tx) error {
			t = coarser.Floor(max(min(t, getInt(tx, finer)), 0))
			first, found = s.stepsOf(tx, r, 0, t)()
			return nil
		})
	}
	total := 0
	for {
		if err := find(); err != nil {
			return total, fmt.Errorf("purge roll-ups: %w", err)
		}
		end := t
		if found {
			whole := newStepKey(coarser, coarser.Floor(first.start()))
			if coarser > r {
				if err := s.settle(ctx, whole); err != nil {
					return total, fmt.Errorf("purge roll-ups: %w", err)
				}
			}
			end = whole.end()
		}
		n := 0
		err := s.update(ctx, func(tx *bbolt.Tx) (bool, error) {
			var doomed []stepKey
			next := s.stepsOf(tx, r, 0, end)
			for key, ok := next(); ok; key, ok = next() {
				doomed = append(doomed, key)
			}
			for _, key := range doomed {
				if err := s.drop(tx, key); err != nil {
					return false, err
				}
			}
			n = len(doomed)
			changed := n > 0
			if r == store.Day {
				forgot, err := s.forgetPast(tx, end)
				if err != nil {
					return false, err
				}
				changed = changed || forgot
			}
			if end > getInt(tx, floorKey(r)) {
				return true, putInt(tx, floorKey(r), end)
			}
			return changed, nil
		}, nil)
		if err != nil {
			return total, fmt.Errorf("purge roll-ups: %w", err)
		}
		for k := range s.lookedSteps.Range {
			if key := k.(stepKey); key.resolution() == r && key.start() < end-dayLength {
				s.lookedSteps.Delete(k) // of a snapshot that nobody reads any more
				s.provenSteps.Delete(k)
			}
		}
		if n > 0 {
			s.sums.forget(end)
		}
		total += n
		if !found {
			return total, nil
		}
	}
}
