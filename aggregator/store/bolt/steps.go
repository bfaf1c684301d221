package bolt

import (
	"encoding/binary"
	"errors"
	"fmt"

	"go.etcd.io/bbolt"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/pkg/bucket"
)

// A step is a minute, hour or day of roll-ups: a nested bucket with an entry for
// each host that has data there and some for the fleet, and a manifest. An
// entry is dirty, or a roll-up.

// stepKey is the key of a step: its resolution and start.
type stepKey [9]byte

func newStepKey(r store.Resolution, start int64) (k stepKey) {
	k[0] = byte(r)
	binary.BigEndian.PutUint64(k[1:], uint64(start))
	return k
}

func (k *stepKey) resolution() store.Resolution { return store.Resolution(k[0]) }
func (k *stepKey) start() int64                 { return int64(binary.BigEndian.Uint64(k[1:])) }
func (k *stepKey) end() int64                   { return k.start() + int64(k.resolution().Length()) }

// parseStepKey returns false for what is no key of a step.
func parseStepKey(b []byte) (k stepKey, ok bool) {
	if len(b) != len(k) || b[0] < byte(store.Minute) || b[0] > byte(store.Day) || b[1]&0x80 != 0 {
		return k, false
	}
	copy(k[:], b)
	return k, true
}

// The first byte of an entry's key.
const (
	entryFleet = 0 // then the table's name, or what briefEntry says; none is the header
	entryHost  = 1 // then the host id
)

var fleetHeader = []byte{entryFleet}

func fleetTable(name string) []byte { return append([]byte{entryFleet}, name...) }

func hostEntry(id bucket.ID) []byte { return append([]byte{entryHost}, id[:]...) }

// hostOf returns the host of an entry, false for one of the fleet.
func hostOf(key []byte) (id bucket.ID, ok bool) {
	if len(key) != 1+len(id) || key[0] != entryHost {
		return id, false
	}
	copy(id[:], key[1:])
	return id, true
}

// dirtyEntry is the payload of an entry that is to be rebuilt; that of a roll-up
// begins with its version, which is not 0.
var dirtyEntry = []byte{0}

// isDirty reports whether a value says that it is dirty, without verifying it.
func isDirty(value []byte) bool { return len(value) == 5 && value[4] == 0 }

// unsealEntry returns a roll-up's encoding, nil if the entry is dirty.
func unsealEntry(step stepKey, key, value []byte) ([]byte, error) {
	p, err := unseal(crcKey(step[:], key), value)
	if err == nil && len(p) == 0 {
		err = fmt.Errorf("roll-up of key %x is empty: %w", key, store.ErrCorrupt)
	}
	if err != nil || p[0] == 0 {
		return nil, err
	}
	return p, nil
}

// stepManifest says what a step holds.
type stepManifest struct {
	count uint64 // of entries
	xor   uint64 // of the hashes of their keys
	dirty uint64 // of them
}

func (m *stepManifest) value(key []byte) []byte {
	var b [24]byte
	binary.BigEndian.PutUint64(b[0:], m.count)
	binary.BigEndian.PutUint64(b[8:], m.xor)
	binary.BigEndian.PutUint64(b[16:], m.dirty)
	return sealedValue(key, b[:])
}

func parseStepManifest(key, value []byte) (m stepManifest, err error) {
	p, err := unseal(key, value)
	if err != nil {
		return m, err
	}
	if len(p) != 24 {
		return m, fmt.Errorf("manifest of %d bytes: %w", len(p), store.ErrCorrupt)
	}
	m.count = binary.BigEndian.Uint64(p[0:])
	m.xor = binary.BigEndian.Uint64(p[8:])
	m.dirty = binary.BigEndian.Uint64(p[16:])
	return m, nil
}

// steps changes steps within one write transaction.
type steps struct {
	s    *DB
	tx   *bbolt.Tx
	open map[stepKey]*openStep
	made []stepKey
}

type openStep struct {
	key     stepKey
	entries *bbolt.Bucket
	m       stepManifest
	damaged bool // it cannot be told what it holds; the manifest stays as it is, and who settles it makes it anew
	changed bool
	marked  map[bucket.ID]bool // dirty for sure
}

func (s *DB) newSteps(tx *bbolt.Tx) *steps {
	return &steps{s: s, tx: tx, open: map[stepKey]*openStep{}}
}

// step opens a step, making it if it is not there.
func (w *steps) step(key stepKey) (*openStep, error) {
	if st := w.open[key]; st != nil {
		return st, nil
	}
	st := &openStep{key: key, marked: map[bucket.ID]bool{}}
	var err error
	if st.entries, err = w.s.entries(w.tx, key); err == nil && st.entries != nil {
		err = w.s.ownOnce(w.tx, &w.s.provenSteps, key, bucketRollups, key[:])
	}
	if errors.Is(err, store.ErrCorrupt) {
		st.entries = nil
		w.s.checksumErrors.Add(1)
		err = setAside(w.tx, bucketRollups, key[:])
	}
	if err != nil {
		return nil, err
	}
	value := w.tx.Bucket(bucketRollupManifests).Get(key[:])
	switch {
	case value != nil:
		if st.m, err = parseStepManifest(key[:], value); err != nil {
			w.s.checksumErrors.Add(1)
			st.damaged = true
		}
	case st.entries != nil:
		st.damaged = true // a manifest made now would hide that one was lost
	}
	if st.entries == nil {
		if st.entries, err = w.tx.Bucket(bucketRollups).CreateBucket(key[:]); err != nil {
			return nil, err
		}
		w.s.lookedSteps.Store(key, w.tx.ID())
		w.s.provenSteps.Store(key, true)
		w.made = append(w.made, key)
	}
	w.open[key] = st
	return st, nil
}

// mark notes that a host's bucket was added at a time: its roll-ups and those of
// the fleet are dirty from now on.
func (w *steps) mark(host bucket.ID, start int64) error {
	for r := store.Minute; r <= store.Day; r++ {
		st, err := w.step(newStepKey(r, r.Floor(start)))
		if err != nil {
			return err
		}
		if st.marked[host] {
			continue
		}
		st.marked[host] = true
		if err := errors.Join(st.soil(hostEntry(host)), st.soil(fleetHeader)); err != nil {
			return err
		}
		if b := w.s.rebuilding; b != nil && b.key == st.key {
			b.touched[host] = true
		}
	}
	return nil
}

// soil makes one entry dirty.
func (st *openStep) soil(key []byte) error {
	old := st.entries.Get(key)
	if isDirty(old) {
		return nil
	}
	if old == nil {
		st.m.count++
		st.m.xor ^= nameHash(key)
	}
	st.m.dirty++
	st.changed = true
	return st.entries.Put(key, sealedValue(crcKey(st.key[:], key), dirtyEntry))
}

// clean sets an entry to a roll-up; only the header of the fleet and hosts' entries are ever dirty.
func (st *openStep) clean(key, rollup []byte) error {
	old := st.entries.Get(key)
	if old == nil {
		st.m.count++
		st.m.xor ^= nameHash(key)
	} else if isDirty(old) && st.m.dirty > 0 {
		st.m.dirty--
	}
	st.changed = true
	return st.entries.Put(key, sealedValue(crcKey(st.key[:], key), rollup))
}

// changed reports whether there is something to commit.
func (w *steps) changed() bool {
	for _, st := range w.open {
		if st.changed {
			return true
		}
	}
	return false
}

// undone is to be called when the transaction was not committed.
func (w *steps) undone() {
	for _, key := range w.made {
		w.s.lookedSteps.Delete(key)
		w.s.provenSteps.Delete(key)
	}
}

// finish writes the manifests.
func (w *steps) finish() error {
	for _, st := range w.open {
		if st.changed && !st.damaged {
			if err := w.tx.Bucket(bucketRollupManifests).Put(st.key[:], st.m.value(st.key[:])); err != nil {
				return err
			}
		}
	}
	return nil
}

// drop removes a step.
func (s *DB) drop(tx *bbolt.Tx, key stepKey) error {
	entries, err := s.entries(tx, key)
	if err == nil && entries != nil {
		err = s.own(tx, bucketRollups, key[:])
	}
	switch {
	case errors.Is(err, store.ErrCorrupt): // its pages cannot be told, so they are not freed
		s.checksumErrors.Add(1)
		err = setAside(tx, bucketRollups, key[:])
	case err == nil && entries != nil:
		err = tx.Bucket(bucketRollups).DeleteBucket(key[:])
	}
	if err != nil {
		return err
	}
	return tx.Bucket(bucketRollupManifests).Delete(key[:])
}

// entries opens a step, nil if it is not there, and looks over its pages as blobs does.
func (s *DB) entries(tx *bbolt.Tx, key stepKey) (*bbolt.Bucket, error) {
	b := tx.Bucket(bucketRollups).Bucket(key[:])
	if b == nil && isPlain(tx, bucketRollups, key[:]) {
		return nil, fmt.Errorf("the step is a value, not a bucket: %w", store.ErrCorrupt)
	}
	if since, ok := s.lookedSteps.Load(key); b == nil || ok && tx.ID() >= since.(int) {
		return b, nil
	}
	if err := s.pages.At(tx.Size()).Tree(uint64(b.Root())); err != nil {
		return nil, corrupt(err)
	}
	s.lookedSteps.LoadOrStore(key, 0)
	return b, nil
}

// stepsOf returns a function that returns the steps of a resolution that start in
// [from, to), in order, and false after the last: those with entries, a manifest or both.
func (s *DB) stepsOf(tx *bbolt.Tx, r store.Resolution, from, to int64) func() (stepKey, bool) {
	first := newStepKey(r, max(from, 0))
	next := s.union(tx.Bucket(bucketRollups), tx.Bucket(bucketRollupManifests), first[:])
	return func() (stepKey, bool) {
		for {
			k := next()
			if k == nil {
				return stepKey{}, false
			}
			key, ok := parseStepKey(k)
			if !ok {
				s.checksumErrors.Add(1)
				continue
			}
			if key.resolution() != r || key.start() >= to {
				return stepKey{}, false
			}
			return key, true
		}
	}
}
