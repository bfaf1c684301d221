package bolt

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"slices"

	"go.etcd.io/bbolt"

	"github.com/httpctl/httpctl/aggregator/store"
)

// pastValue is what is kept of a host of which only roll-ups are left.
func pastValue(h *store.Host) []byte {
	b := binary.AppendVarint(nil, h.FirstStart)
	b = binary.AppendVarint(b, h.LastEnd)
	return sealedValue(h.ID[:], b, []byte(h.Name))
}

func parsePast(key, value []byte) (h store.Host, err error) {
	p, err := unseal(key, value)
	if err != nil {
		return h, err
	}
	first, n := binary.Varint(p)
	last, m := binary.Varint(p[max(n, 0):])
	if n <= 0 || m <= 0 || len(key) != len(h.ID) {
		return h, fmt.Errorf("past host %x: %w", key, store.ErrCorrupt)
	}
	copy(h.ID[:], key)
	h.FirstStart, h.LastEnd, h.Name = first, last, string(p[n+m:])
	return h, nil
}

// PastHosts implements store.Store.
func (s *DB) PastHosts(ctx context.Context) ([]store.Host, error) {
	var hosts []store.Host
	err := s.view(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketPast).ForEach(func(k, v []byte) error {
			if tx.Bucket(bucketHosts).Get(k) != nil {
				return ctx.Err() // it came back
			}
			h, err := parsePast(k, v)
			if err != nil {
				s.checksumErrors.Add(1)
				return nil // its roll-ups have its name, too
			}
			hosts = append(hosts, h)
			return ctx.Err()
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read past hosts: %w", err)
	}
	slices.SortFunc(hosts, func(x, y store.Host) int {
		return cmp.Or(cmp.Compare(x.Name, y.Name), x.ID.Compare(y.ID))
	})
	return hosts, nil
}

// forgetPast drops the past hosts whose last bucket ended at or before t, and
// those whose record cannot be read.
func (s *DB) forgetPast(tx *bbolt.Tx, t int64) (bool, error) {
	var doomed [][]byte
	err := tx.Bucket(bucketPast).ForEach(func(k, v []byte) error {
		if h, err := parsePast(k, v); err != nil || h.LastEnd <= t {
			doomed = append(doomed, bytes.Clone(k))
		}
		return nil
	})
	for _, k := range doomed {
		if err == nil {
			err = tx.Bucket(bucketPast).Delete(k)
		}
	}
	return len(doomed) > 0, err
}
