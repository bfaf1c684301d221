package bolt

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"

	"go.etcd.io/bbolt"

	"github.com/httpctl/httpctl/aggregator/store"
)

// maxStateKey bounds the keys of the state, in bytes.
const maxStateKey = 1024

// state reads one value of the state and verifies it.
func (s *DB) state(key, value []byte) (version uint64, payload []byte, err error) {
	p, err := unseal(key, value)
	if err == nil && len(p) < 8 {
		err = fmt.Errorf("state of %d bytes: %w", len(p), store.ErrCorrupt)
	}
	if err != nil {
		s.checksumErrors.Add(1)
		return 0, nil, fmt.Errorf("state %q: %w", key, err)
	}
	return binary.BigEndian.Uint64(p), p[8:], nil
}

func checkStateKey(key string) error {
	if len(key) == 0 || len(key) > maxStateKey {
		return fmt.Errorf("state key of %d bytes, want 1 to %d", len(key), maxStateKey)
	}
	return nil
}

// Get implements store.Store.
func (s *DB) Get(ctx context.Context, key string) (value []byte, version uint64, err error) {
	if err := checkStateKey(key); err != nil {
		return nil, 0, err
	}
	if err := ctx.Err(); err != nil {
		return nil, 0, err
	}
	err = s.view(func(tx *bbolt.Tx) error {
		v := tx.Bucket(bucketState).Get([]byte(key))
		if v == nil {
			return nil
		}
		n, p, err := s.state([]byte(key), v)
		value, version = append([]byte{}, p...), n
		return err
	})
	if err != nil {
		return nil, 0, err
	}
	return value, version, nil
}

// CompareAndSwap implements store.Store.
func (s *DB) CompareAndSwap(ctx context.Context, key string, version uint64, value []byte) (uint64, error) {
	if err := checkStateKey(key); err != nil {
		return 0, err
	}
	next := uint64(0)
	err := s.update(ctx, func(tx *bbolt.Tx) (bool, error) {
		b, k := tx.Bucket(bucketState), []byte(key)
		have := uint64(0)
		if v := b.Get(k); v != nil {
			var err error
			if have, _, err = s.state(k, v); err != nil {
				return false, err
			}
		}
		if have != version {
			return false, fmt.Errorf("state %q is at version %d, not %d: %w", key, have, version, store.ErrConflict)
		}
		if value == nil {
			return have != 0, b.Delete(k)
		}
		var err error
		if next, err = b.NextSequence(); err != nil {
			return false, err
		}
		return true, b.Put(k, sealedValue(k, binary.BigEndian.AppendUint64(nil, next), value))
	}, nil)
	if err != nil {
		return 0, err
	}
	return next, nil
}

// List implements store.Store. It copies entries out in portions, so that no
// transaction is open while f runs.
func (s *DB) List(ctx context.Context, from, to string, f func(key string, value []byte, version uint64) error) error {
	type entry struct {
		key     string
		value   []byte
		version uint64
	}
	const most, mostBytes = 256, 1 << 20
	seek := []byte(from)
	for done := false; !done; {
		var page []entry
		err := s.view(func(tx *bbolt.Tx) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			c, size := tx.Bucket(bucketState).Cursor(), 0
			k, v := c.Seek(seek)
			for ; k != nil && (to == "" || string(k) < to); k, v = c.Next() {
				if len(page) == most || size > mostBytes {
					seek = bytes.Clone(k)
					return nil
				}
				version, p, err := s.state(k, v)
				if err != nil {
					return err
				}
				page = append(page, entry{string(k), bytes.Clone(p), version})
				size += len(p)
			}
			done = true
			return nil
		})
		if err != nil {
			return fmt.Errorf("list state: %w", err)
		}
		for i := range page {
			if err := f(page[i].key, page[i].value, page[i].version); err != nil {
				return err
			}
		}
	}
	return nil
}
