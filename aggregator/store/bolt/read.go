package bolt

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"go.etcd.io/bbolt"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/pkg/bucket"
)

// perView is how many intervals one read transaction covers. A transaction
// keeps the pages of its snapshot from being used again, so a query over days
// in one would make the file grow.
const perView = 64

// Query implements store.Store. Where the plan has no steps, sums of whole
// chunks of time are kept for the next time it is asked.
func (s *DB) Query(ctx context.Context, plan store.Plan) (*store.Answer, error) {
	c := store.NewCollector(plan)
	cached := plan.Step == 0 && plan.Table != ""
	shape := ""
	if cached {
		shape = shapeOf(&plan)
	}
	for from := max(plan.From, 0); from < plan.To; {
		to := plan.To
		if cached {
			// To the next interval that there is, so that a range may be wide.
			err := s.view(func(tx *bbolt.Tx) error {
				if key := s.starts(tx, from, plan.To)(); key != nil {
					from = int64(binary.BigEndian.Uint64(key))
				} else {
					from = plan.To
				}
				return nil
			})
			if err != nil {
				return nil, fmt.Errorf("query store: %w", err)
			}
			if from >= plan.To {
				break
			}
			chunk := from - from%chunkLength
			to = min(plan.To, chunk+chunkLength)
			if chunk >= plan.From && to == chunk+chunkLength {
				if err := s.chunk(ctx, &plan, shape, chunk, c); err != nil {
					return nil, fmt.Errorf("query store: %w", err)
				}
				from = to
				continue
			}
		}
		if err := s.collect(ctx, &plan, from, to, c); err != nil {
			return nil, fmt.Errorf("query store: %w", err)
		}
		from = to
	}
	return c.Answer(), nil
}

// chunk adds the sum of one chunk, from the cache if it is there.
func (s *DB) chunk(ctx context.Context, plan *store.Plan, shape string, start int64, c *store.Collector) error {
	sum, tag := s.sums.get(start, shape)
	if sum == nil {
		part := *plan
		part.From, part.To = start, start+chunkLength
		sum = store.NewCollector(part)
		if err := s.collect(ctx, &part, part.From, part.To, sum); err != nil {
			return err
		}
		if !sum.Whole() { // so that damage is reported each time
			return s.collect(ctx, plan, part.From, part.To, c)
		}
		s.sums.put(start, shape, sum, tag)
	}
	c.Merge(sum)
	return nil
}

// collect adds the buckets of the intervals that start in [from, to).
func (s *DB) collect(ctx context.Context, plan *store.Plan, from, to int64, c *store.Collector) error {
	for from < to {
		err := s.view(func(tx *bbolt.Tx) error {
			next := s.starts(tx, from, to)
			for range perView {
				if err := ctx.Err(); err != nil {
					return err
				}
				key := next()
				if key == nil {
					from = to
					return nil
				}
				start := int64(binary.BigEndian.Uint64(key))
				if err := s.readInterval(tx, key, start, plan, c); err != nil {
					return err
				}
				from = start + 1
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// readInterval adds the buckets of one interval, and notes what fails a check.
func (s *DB) readInterval(tx *bbolt.Tx, key []byte, start int64, plan *store.Plan, c *store.Collector) error {
	damage := func() {
		s.checksumErrors.Add(1)
		c.Damage(start)
	}
	want, err := parseManifest(key, tx.Bucket(bucketManifests).Get(key))
	if err != nil {
		damage()
	}
	blobs, unsound := s.blobs(tx, key)
	if unsound != nil && !errors.Is(unsound, store.ErrCorrupt) {
		return unsound
	}
	if blobs == nil {
		damage()
		return nil
	}
	var got manifest
	var host bucket.ID
	d := decoders.Get().(*bucket.Decoder)
	defer decoders.Put(d)
	cursor := blobs.Cursor()
	for k, v := cursor.First(); k != nil; k, v = cursor.Next() {
		got.count++
		got.xor ^= nameHash(k)
		if len(k) != blobKeyLen || v == nil {
			damage()
			continue
		}
		copy(host[:], k)
		if !c.Wants(host) {
			continue
		}
		b, skewed, err := decode(d, key, k, v, plan.Table)
		if err != nil {
			if errors.Is(err, bucket.ErrVersion) {
				return fmt.Errorf("bucket of host %s at %d: %w", host, start, err)
			}
			damage()
			continue
		}
		if skewed && plan.Judged {
			continue
		}
		if err := c.Add(b); err != nil {
			return err
		}
	}
	if err == nil && (got.count != want.count || got.xor != want.xor) {
		damage()
	}
	return nil
}

// decoders are those of the questions under way.
var decoders = sync.Pool{New: func() any { return new(bucket.Decoder) }}

// decode verifies a value and decodes the header and that table, if named. The
// result takes no memory of value, and its table lies in d, which may
// be nil where none is named.
func decode(d *bucket.Decoder, start, key, value []byte, table string) (b *bucket.Bucket, skewed bool, err error) {
	data, skewed, err := unsealBlob(start, key, value)
	if err != nil {
		return nil, false, err
	}
	if table == "" {
		h, err := bucket.DecodeHeader(data)
		if err != nil {
			return nil, false, err
		}
		b = &bucket.Bucket{Header: *h}
	} else if b, err = d.Decode(data, table); err != nil {
		return nil, false, err
	}
	if !bytes.Equal(blobKey(&b.Name), key) || b.Start != int64(binary.BigEndian.Uint64(start)) {
		return nil, false, fmt.Errorf("bucket under another's name: %w", store.ErrCorrupt)
	}
	return b, skewed, nil
}

// Hosts implements store.Store.
func (s *DB) Hosts(ctx context.Context) ([]store.Host, error) {
	var hosts []store.Host
	err := s.view(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketHosts).ForEach(func(k, v []byte) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			r, err := s.hostRecord(tx, k, v)
			if err == nil {
				hosts = append(hosts, r.Host)
			}
			return err
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read hosts: %w", err)
	}
	slices.SortFunc(hosts, func(x, y store.Host) int {
		if c := cmp.Compare(x.Name, y.Name); c != 0 {
			return c
		}
		return x.ID.Compare(y.ID)
	})
	return hosts, nil
}

// Schemas implements store.Store.
func (s *DB) Schemas(ctx context.Context, from, to int64) ([]bucket.Schema, error) {
	found := map[string]bucket.Schema{}
	err := s.view(func(tx *bbolt.Tx) error {
		intervals := tx.Bucket(bucketIntervals)
		c, read := intervals.Cursor(), 0
		key, _ := c.Seek(startKey(max(to, 0)))
		if key == nil {
			key, _ = c.Last()
		} else {
			key, _ = c.Prev()
		}
		for ; key != nil && read < store.MaxSchemaBuckets; key, _ = c.Prev() {
			if len(key) != 8 || int64(binary.BigEndian.Uint64(key)) < from {
				break
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			blobs, err := s.blobs(tx, key)
			if err != nil || blobs == nil {
				continue // Query reports it
			}
			cursor := blobs.Cursor()
			for k, v := cursor.First(); k != nil && read < store.MaxSchemaBuckets; k, v = cursor.Next() {
				data, _, err := unsealBlob(key, k, v)
				if err != nil {
					s.checksumErrors.Add(1)
					continue
				}
				b, err := bucket.Decode(data)
				if err != nil {
					continue // Query reports it
				}
				if len(b.Tables) > 0 {
					read++
				}
				for _, t := range b.Tables {
					if old, ok := found[t.Schema.Name]; !ok || old.Version < t.Schema.Version {
						found[t.Schema.Name] = t.Schema
					}
				}
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read schemas: %w", err)
	}
	return slices.SortedFunc(maps.Values(found), func(x, y bucket.Schema) int { return cmp.Compare(x.Name, y.Name) }), nil
}
