package bolt

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/pkg/bucket"
)

const (
	// hostsPerCommit is how many hosts' roll-ups are written in one commit: some 100 KB. hostsPerView is how many of them are added to that of the
	// fleet in one read transaction, some milliseconds of work.
	hostsPerCommit, hostsPerView = 32, 4
	// leastOfMinute is how many hosts' roll-ups of a minute a pass makes at least, whatever its time: what it makes goes to the fleet's from
	// memory, and what passes before it have made is read again.
	leastOfMinute = 2048
	// dayLength in nanoseconds.
	dayLength = int64(86400e9)
)

// rebuilding is the step that is being rebuilt. What is appended to it meanwhile
// stays dirty. It is guarded by DB.writing.
type rebuilding struct {
	key     stepKey
	touched map[bucket.ID]bool
}

// Rollup implements store.Store.
func (s *DB) Rollup(ctx context.Context, ended int64) (store.Progress, error) {
	defer s.roll()()
	s.rests = true
	defer func() { s.rests = false }()
	rebuilt, err := s.rollup(ctx, ended)
	out := store.Progress{Rebuilt: rebuilt}
	verr := s.view(func(tx *bbolt.Tx) error {
		for r := store.Minute; r <= store.Day; r++ {
			s.eachManifest(tx, r, func(key stepKey, m stepManifest, err error) {
				if err == nil && m.dirty > 0 && key.end() <= ended {
					out.Pending += int(m.dirty)
					if out.Oldest == 0 || key.start() < out.Oldest {
						out.Oldest = key.start()
					}
				}
			})
		}
		return nil
	})
	if err == nil {
		err = verr
	}
	return out, err
}

// roll locks rolling until done is called, which also lets go of the memory in which roll-ups were made.
func (s *DB) roll() (done func()) {
	s.rolling.Lock()
	return func() {
		s.roller = roller{}
		s.rolling.Unlock()
	}
}

// rollup rebuilds what it can, and returns how many roll-ups it made. The newest steps come first, but for one that was begun: where there
// are more hosts than can be kept up with, none would be made to its end. A step that fails stops no other, and
// its error is told rather than that the time was over.
func (s *DB) rollup(ctx context.Context, ended int64) (rebuilt int, err error) {
	const most = 8 // errors that are told
	var errs []error
	for r := store.Minute; r <= store.Day; r++ {
		pending, err := s.dirtySteps(r, ended)
		if err != nil {
			return rebuilt, errors.Join(append(errs, err)...)
		}
		slices.Reverse(pending) // what was lately is asked for most
		if i := slices.Index(pending, s.begun); i > 0 {
			copy(pending[1:i+1], pending[:i])
			pending[0] = s.begun
		}
		for _, key := range pending {
			if err := ctx.Err(); err != nil {
				if errs != nil {
					err = errors.Join(errs...)
				}
				return rebuilt, err
			}
			n, err := s.rebuild(ctx, key)
			rebuilt += n
			if err != nil {
				err = fmt.Errorf("roll up the %s at %d: %w", r, key.start(), err)
				over := errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
				if over {
					s.begun = key
				}
				if over && errs == nil {
					return rebuilt, err
				}
				if !over && len(errs) < most {
					errs = append(errs, err)
				}
			}
		}
	}
	return rebuilt, errors.Join(errs...)
}

// eachManifest calls f for the manifests of a resolution, sorted by start.
func (s *DB) eachManifest(tx *bbolt.Tx, r store.Resolution, f func(stepKey, stepManifest, error)) {
	manifests := tx.Bucket(bucketRollupManifests)
	if manifests == nil { // a file of version 1, which is only looked at
		return
	}
	c := manifests.Cursor()
	first := newStepKey(r, 0)
	for k, v := c.Seek(first[:]); len(k) > 0 && k[0] == byte(r); k, v = c.Next() {
		if key, ok := parseStepKey(k); ok {
			m, err := parseStepManifest(k, v)
			f(key, m, err)
		}
	}
}

// dirtySteps lists those of a resolution that ended and are to be rebuilt, the oldest first.
func (s *DB) dirtySteps(r store.Resolution, ended int64) (keys []stepKey, err error) {
	err = s.view(func(tx *bbolt.Tx) error {
		s.eachManifest(tx, r, func(key stepKey, m stepManifest, err error) {
			if key.end() <= ended && (err != nil || m.dirty > 0) {
				keys = append(keys, key)
			}
		})
		return nil
	})
	return keys, err
}

// rebuild makes what is dirty in a step anew, and returns how many roll-ups it
// made. A step of which something that it is made of is dirty is left for
// later. What it is made of is made anew first where that is damaged and can be. The caller holds rolling.
func (s *DB) rebuild(ctx context.Context, key stepKey) (int, error) {
	n, bad, err := s.rebuildOnce(ctx, key, true)
	if err != nil || bad == nil {
		return n, err
	}
	for _, start := range bad {
		// What cannot be mended is told by what is made of it.
		if err := s.settle(ctx, newStepKey(key.resolution()-1, start)); err != nil && !errors.Is(err, store.ErrCorrupt) {
			return n, err
		}
	}
	more, _, err := s.rebuildOnce(ctx, key, false)
	return n + more, err
}

// rebuildOnce is rebuild as the steps below are now. If mend, it stops at the first that are damaged and returns
// their starts.
func (s *DB) rebuildOnce(ctx context.Context, key stepKey, mend bool) (n int, bad []int64, err error) {
	watch := &rebuilding{key: key, touched: map[bucket.ID]bool{}}
	s.watch(watch)
	defer s.watch(nil)
	mend = mend && key.resolution() > store.Minute // a bucket is made by its agent only
	var sound, ready bool
	var hosts []bucket.ID
	var damaged []int64
	look := func() error {
		return s.view(func(tx *bbolt.Tx) error {
			hosts, sound = s.dirtyHosts(tx, key)
			damaged, ready = s.sources(tx, key)
			return nil
		})
	}
	if err := look(); err != nil || !ready {
		return 0, nil, err
	}
	if mend && damaged != nil {
		return 0, damaged, nil
	}
	if !sound {
		s.checksumErrors.Add(1)
		made, err := s.remake(ctx, key)
		if err != nil || !made {
			return 0, nil, err
		}
		if err := look(); err != nil || !ready {
			return 0, nil, err
		}
	}
	sum := newFleetSum(key)
	least := 1 // roll-ups that a pass makes of a step, whatever its time
	if key.resolution() == store.Minute {
		least = leastOfMinute
	}
	for len(hosts) > 0 {
		if n >= least && ctx.Err() != nil {
			return n, nil, ctx.Err()
		}
		group := hosts[:min(len(hosts), hostsPerCommit)]
		hosts = hosts[len(group):]
		built := make([][]byte, len(group))
		for i, host := range group {
			if err := interrupted(ctx); err != nil {
				return n, nil, err
			}
			var met []int64
			begin := time.Now()
			err := s.view(func(tx *bbolt.Tx) (err error) {
				var made *store.Rollup
				if made, met, err = s.build(tx, key, host, damaged); err != nil || made == nil {
					return err
				}
				if built[i], err = made.AppendBinary(nil); err != nil { // which may cut it
					return err
				}
				return sum.add(host, made)
			})
			if err != nil {
				return n, nil, err
			}
			bad = append(bad, met...)
			s.rest(begin)
		}
		if mend && bad != nil {
			slices.Sort(bad)
			return n, slices.Compact(bad), nil
		}
		err := s.change(context.WithoutCancel(ctx), func(w *steps) error {
			st, err := w.step(key)
			if err != nil {
				return err
			}
			for i, host := range group {
				if watch.touched[host] || built[i] == nil {
					continue
				}
				if err := st.clean(hostEntry(host), built[i]); err != nil {
					return err
				}
				n++
			}
			return nil
		})
		if err != nil {
			return n, nil, err
		}
	}
	if n >= least && ctx.Err() != nil {
		return n, nil, ctx.Err()
	}
	made, err := s.rebuildFleet(ctx, key, watch, sum)
	if made {
		n++
	}
	return n, nil, err
}

// rest lets others have the processor after work that began then, between two transactions. The caller holds rolling.
func (s *DB) rest(begin time.Time) {
	if s.rests && s.opts.Rest != nil {
		s.opts.Rest(time.Since(begin))
	}
}

// interrupted returns an error when ctx was cancelled. That its time is over is looked at between a group of hosts and the
// next, and before the fleet: else what takes longer than a pass, as an hour of a thousand hosts does, would be begun in each and
// made in none.
func interrupted(ctx context.Context) error {
	if err := ctx.Err(); errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// watch sets the step that is being rebuilt. What was committed before is seen
// by every view that begins later.
func (s *DB) watch(b *rebuilding) {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.rebuilding = b
}

// change runs f, which changes steps, and commits.
func (s *DB) change(ctx context.Context, f func(*steps) error) error {
	var w *steps
	err := s.update(ctx, func(tx *bbolt.Tx) (bool, error) {
		w = s.newSteps(tx)
		if err := f(w); err != nil {
			return false, err
		}
		return w.changed(), w.finish()
	}, nil)
	if err != nil && w != nil {
		w.undone()
	}
	return err
}

// dirtyHosts lists the hosts whose roll-up is to be made, and reports whether the step
// is as its manifest says, and every value of it.
func (s *DB) dirtyHosts(tx *bbolt.Tx, key stepKey) (hosts []bucket.ID, sound bool) {
	entries, err := s.entries(tx, key)
	want, merr := parseStepManifest(key[:], tx.Bucket(bucketRollupManifests).Get(key[:]))
	if err != nil || merr != nil || entries == nil {
		return nil, false
	}
	var got stepManifest
	c := entries.Cursor()
	for k, v := c.First(); k != nil; k, v = c.Next() {
		got.count++
		got.xor ^= nameHash(k)
		p, err := unsealEntry(key, k, v)
		if err != nil {
			return nil, false
		}
		if p == nil {
			got.dirty++
			if host, ok := hostOf(k); ok {
				hosts = append(hosts, host)
			}
		}
	}
	return hosts, got == want
}

// sources looks at what a step is made of: which intervals of it are damaged, and
// whether all of it is there to be summed up.
func (s *DB) sources(tx *bbolt.Tx, key stepKey) (damaged []int64, ready bool) {
	if key.resolution() == store.Minute {
		next := s.starts(tx, key.start(), key.end())
		for k := next(); k != nil; k = next() {
			if start := int64(binary.BigEndian.Uint64(k)); s.manifestOf(tx, start) != nil {
				damaged = append(damaged, start)
			}
		}
		return damaged, true
	}
	next := s.stepsOf(tx, key.resolution()-1, key.start(), key.end())
	for child, ok := next(); ok; child, ok = next() {
		m, err := parseStepManifest(child[:], tx.Bucket(bucketRollupManifests).Get(child[:]))
		if err == nil && m.dirty > 0 {
			return nil, false
		}
		if err == nil {
			var got stepManifest
			var entries *bbolt.Bucket
			if entries, err = s.entries(tx, child); err == nil && entries != nil {
				got.dirty = m.dirty
				c := entries.Cursor()
				for k, _ := c.First(); k != nil; k, _ = c.Next() {
					got.count++
					got.xor ^= nameHash(k)
				}
			}
			if err == nil && got != m {
				err = store.ErrCorrupt
			}
		}
		if err != nil {
			damaged = append(damaged, child.start())
		}
	}
	return damaged, true
}

// manifestOf checks that an interval has the buckets that its manifest names.
func (s *DB) manifestOf(tx *bbolt.Tx, start int64) error {
	key := startKey(start)
	want, err := parseManifest(key, tx.Bucket(bucketManifests).Get(key))
	if err != nil {
		return err
	}
	blobs, err := s.blobs(tx, key)
	if err != nil {
		return err
	}
	if blobs == nil {
		return store.ErrCorrupt
	}
	var got manifest
	c := blobs.Cursor()
	for k, _ := c.First(); k != nil; k, _ = c.Next() {
		got.count++
		got.xor ^= nameHash(k)
	}
	if got.count != want.count || got.xor != want.xor {
		return store.ErrCorrupt
	}
	return nil
}
