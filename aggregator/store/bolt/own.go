package bolt

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"go.etcd.io/bbolt"

	"github.com/httpctl/httpctl/aggregator/store"
)

// A flipped bit in a page number makes the tree of one interval, or step, be that of another, or a
// page of another one part of it. Reads find that by checksums, which cover the start. But whoever changes or drops such a
// tree frees its pages, and they would be written over though another has them. So a tree is only changed or
// dropped if each page of it proves to hold something of its own.

// own returns nil if every page with entries of the tree of an interval or step (of part, with that
// key) has an entry whose checksum holds under this key. It reads all of it.
func (s *DB) own(tx *bbolt.Tx, part, key []byte) error {
	b := tx.Bucket(part).Bucket(key)
	if b == nil || b.Root() == 0 {
		return nil // not there, or within a value of its parent: it has no pages
	}
	proven := map[uint64]bool{}
	err := s.pages.At(tx.Size()).Leaves(uint64(b.Root()), func(page uint64, k, v []byte) error {
		_, err := unseal(crcKey(key, k), v)
		proven[page] = proven[page] || err == nil
		return nil
	})
	if err != nil {
		return corrupt(err)
	}
	for page, ok := range proven {
		if !ok {
			return fmt.Errorf("nothing on page %d proves to be its own: %w", page, store.ErrCorrupt)
		}
	}
	return nil
}

// ownOnce is own, unless seen has the interval or step: it was proven before, or made, by this process.
func (s *DB) ownOnce(tx *bbolt.Tx, seen *sync.Map, id any, part, key []byte) error {
	if _, ok := seen.Load(id); ok {
		return nil
	}
	err := s.own(tx, part, key)
	if err == nil {
		seen.Store(id, true)
	}
	return err
}

// unmake forgets intervals that were made in a transaction that was not kept.
func (s *DB) unmake(made []int64) {
	for _, start := range made {
		s.looked.Delete(start)
		s.proven.Delete(start)
	}
}

// isPlain reports whether there is a value where a bucket should be.
func isPlain(tx *bbolt.Tx, part, key []byte) bool { return tx.Bucket(part).Get(key) != nil }

// strangers returns the intervals that start before end whose pages do not prove to be their own. The caller has seen to
// it that they are not changed any more.
func (s *DB) strangers(ctx context.Context, end int64) (map[int64]bool, error) {
	found := map[int64]bool{}
	for from := int64(0); ; {
		done := false
		// One at a time: a purge of days reads much, and a transaction keeps pages from being used again.
		err := s.view(func(tx *bbolt.Tx) error {
			key := s.starts(tx, from, end)()
			if key == nil {
				done = true
				return nil
			}
			start := int64(binary.BigEndian.Uint64(key))
			from = start + 1
			err := guard(func() error { return s.own(tx, bucketIntervals, key) })
			if errors.Is(err, store.ErrCorrupt) {
				s.checksumErrors.Add(1)
				found[start] = true
				err = nil
			}
			return errors.Join(err, ctx.Err())
		})
		if err != nil || done {
			return found, err
		}
	}
}

// saved is an entry that was read from an interval.
type saved struct{ key, value []byte }

// salvage takes an interval whose pages are not all its own aside, and returns what of it is sound.
func (s *DB) salvage(tx *bbolt.Tx, key []byte) (sound []saved, err error) {
	b := tx.Bucket(bucketIntervals).Bucket(key)
	if b != nil && b.Root() != 0 {
		// As far as its pages can be followed.
		_ = s.pages.At(tx.Size()).Leaves(uint64(b.Root()), func(_ uint64, k, v []byte) error {
			if _, err := unseal(crcKey(key, k), v); err == nil {
				sound = append(sound, saved{append([]byte{}, k...), append([]byte{}, v...)})
			}
			return nil
		})
	}
	return sound, setAside(tx, bucketIntervals, key)
}
