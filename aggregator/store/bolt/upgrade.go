package bolt

import (
	"context"
	"encoding/binary"
	"fmt"

	"go.etcd.io/bbolt"

	"github.com/httpctl/httpctl/pkg/bucket"
)

// bucketsOf lists the top-level buckets that a file of a version has.
func bucketsOf(version uint32) [][]byte {
	names := [][]byte{bucketMeta, bucketIntervals, bucketManifests, bucketHosts, bucketState}
	if version >= 2 {
		names = append(names, bucketRollups, bucketRollupManifests, bucketPast)
	}
	return names
}

// upgrade brings the file to this program's version. From 1: everything that
// is stored is marked as to be rolled up. From 2: nothing but the version, since a program that knows no other does not know
// the second version of a bucket's format either. The version changes with the last
// step, so an upgrade that was cut short begins again.
func (s *DB) upgrade() error {
	ctx := context.Background()
	var version uint32
	err := s.view(func(tx *bbolt.Tx) (err error) {
		version, err = formatOf(tx.Bucket(bucketMeta).Get(keyFormat))
		return err
	})
	if err != nil || version == formatVersion {
		return err
	}
	err = s.update(ctx, func(tx *bbolt.Tx) (bool, error) {
		for _, name := range bucketsOf(formatVersion) {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return false, err
			}
		}
		return true, nil
	}, nil)
	for from, done := int64(0), version > 1; err == nil && !done; {
		err = s.change(ctx, func(w *steps) error {
			next := s.starts(w.tx, from, 1<<62)
			for range 64 { // intervals in one commit
				key := next()
				if key == nil {
					done = true
					return nil
				}
				start := int64(binary.BigEndian.Uint64(key))
				from = start + 1
				blobs, err := s.blobs(w.tx, key)
				if err != nil || blobs == nil {
					continue // Query reports it
				}
				hosts := map[bucket.ID]bool{}
				hostsOf(blobs, hosts)
				for host := range hosts {
					if err := w.mark(host, start); err != nil {
						return err
					}
				}
			}
			return nil
		})
	}
	if err == nil {
		err = s.update(ctx, func(tx *bbolt.Tx) (bool, error) {
			return true, tx.Bucket(bucketMeta).Put(keyFormat, formatValue(formatVersion))
		}, nil)
	}
	if err != nil {
		return fmt.Errorf("upgrade %q from format %d to %d: %w", s.path, version, formatVersion, err)
	}
	return nil
}
