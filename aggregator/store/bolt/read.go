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

// Query implements store.Store. It goes through the plan's time in pieces, each
// in a read transaction of its own, as one keeps the pages of its snapshot from
// being used again: the coarsest step of roll-ups that lies within the plan and is up to date,
// else the intervals of a minute. Where the plan has no steps, sums of pieces
// are kept for the next time it is asked.
func (s *DB) Query(ctx context.Context, plan store.Plan) (*store.Answer, error) {
	q := question{s: s, plan: &plan, c: store.NewCollector(plan)}
	if plan.Step == 0 && plan.Table != "" {
		q.shape = shapeOf(&plan)
	}
	for at := max(plan.From, 0); at < plan.To; {
		var err error
		if err = ctx.Err(); err == nil {
			at, err = q.next(at)
		}
		if err != nil {
			return nil, fmt.Errorf("query store: %w", err)
		}
	}
	return q.c.Answer(), nil
}

// question is a query under way.
type question struct {
	s     *DB
	plan  *store.Plan
	c     *store.Collector
	shape string // of the sums that are kept; "" keeps none
}

// next adds the next piece from at on, and returns where it ends.
func (q *question) next(at int64) (int64, error) {
	err := q.s.view(func(tx *bbolt.Tx) error {
		at = q.s.nextStart(tx, at, q.plan.To)
		return nil
	})
	if err != nil || at >= q.plan.To {
		return q.plan.To, err
	}
	for r := store.Day; r > store.Minute; r-- {
		end := at + int64(r.Length())
		if r.Floor(at) != at || !q.plan.Fits(at, end) {
			continue
		}
		used, err := q.kept(at, end, func(o *question) (bool, error) { return o.step(newStepKey(r, at)) })
		if used || err != nil {
			return end, err
		}
	}
	if end := at + chunkLength; q.shape != "" && at%chunkLength == 0 && q.plan.Fits(at, end) {
		_, err := q.kept(at, end, func(o *question) (bool, error) {
			for from := at; from < end; {
				if from, err = o.minute(from); err != nil {
					return false, err
				}
			}
			return true, nil
		})
		return end, err
	}
	return q.minute(at)
}

// nextStart returns the first start, from at on, of an interval or of a step of any
// resolution; to if there is none before it.
func (s *DB) nextStart(tx *bbolt.Tx, at, to int64) int64 {
	if key := s.starts(tx, at, to)(); key != nil {
		to = int64(binary.BigEndian.Uint64(key))
	}
	for r := store.Day; r >= store.Minute && to > at; r-- {
		if key, ok := s.stepsOf(tx, r, at, to)(); ok {
			to = key.start()
		}
	}
	return to
}

// kept adds the sum of [at, end), which is kept, or which add makes and may refuse to.
func (q *question) kept(at, end int64, add func(*question) (bool, error)) (bool, error) {
	if q.shape == "" {
		return add(q)
	}
	key := sumKey{at, end - at, q.shape}
	sum, tag := q.s.sums.get(key)
	if sum == nil {
		part := *q.plan
		part.From, part.To = at, end
		sum = store.NewCollector(part)
		used, err := add(&question{s: q.s, plan: &part, c: sum})
		if !used || err != nil {
			return false, err
		}
		if !sum.Whole() { // so that damage is reported each time
			return add(q)
		}
		q.s.sums.put(key, sum, tag)
	}
	q.c.Merge(sum)
	return true, nil
}

// minute adds what there is from at to the end of its minute, or of the plan.
func (q *question) minute(at int64) (int64, error) {
	start := store.Minute.Floor(at)
	end := min(start+int64(store.Minute.Length()), q.plan.To)
	if start == at && q.plan.Fits(start, start+int64(store.Minute.Length())) {
		if used, err := q.step(newStepKey(store.Minute, at)); used || err != nil {
			return end, err
		}
	}
	return end, q.s.view(func(tx *bbolt.Tx) error { return q.raw(tx, at, end, nil) })
}

// raw adds the buckets of the intervals that start in [from, to), of the hosts in only (nil: all).
func (q *question) raw(tx *bbolt.Tx, from, to int64, only map[bucket.ID]bool) error {
	next := q.s.starts(tx, from, to)
	for key := next(); key != nil; key = next() {
		if err := q.s.readInterval(tx, key, int64(binary.BigEndian.Uint64(key)), q.plan, only, q.c); err != nil {
			return err
		}
	}
	return nil
}

// step adds a step of roll-ups. It returns false where it is not there or does not
// pay, and finer ones are to be taken.
func (q *question) step(key stepKey) (used bool, err error) {
	err = q.s.view(func(tx *bbolt.Tx) error {
		used, err = q.readStep(tx, key, nil, false)
		return err
	})
	return used, err
}

// few: a step in which more than one of so many hosts is dirty is left to finer ones.
const few = 8

// readStep is step within a transaction, for the hosts in only (nil: all). With all, it
// returns false only when the step is damaged or not there.
func (q *question) readStep(tx *bbolt.Tx, key stepKey, only map[bucket.ID]bool, all bool) (bool, error) {
	damage := func() {
		q.s.checksumErrors.Add(1)
		q.c.Damage(key.start())
	}
	entries, err := q.s.entries(tx, key)
	value := tx.Bucket(bucketRollupManifests).Get(key[:])
	if entries == nil && value == nil && err == nil {
		return false, nil
	}
	want, merr := parseStepManifest(key[:], value)
	if err != nil || merr != nil || entries == nil {
		if err != nil && !errors.Is(err, store.ErrCorrupt) {
			return false, err
		}
		damage()
		return false, nil
	}
	var got stepManifest
	var hosts []bucket.ID
	var clean [][2][]byte // key and value of entries
	dirty := map[bucket.ID]bool{}
	c := entries.Cursor()
	for k, v := c.First(); k != nil; k, v = c.Next() {
		got.count++
		got.xor ^= nameHash(k)
		host, ok := hostOf(k)
		if !ok || !q.c.Wants(host) || only != nil && !only[host] {
			continue
		}
		hosts = append(hosts, host)
		if isDirty(v) {
			dirty[host] = true
		} else {
			clean = append(clean, [2][]byte{k, v})
		}
	}
	if got.count != want.count || got.xor != want.xor {
		damage()
		return false, nil
	}
	if only == nil && len(q.plan.Hosts) == 0 && !q.plan.PerHost && !isDirty(entries.Get(fleetHeader)) {
		d := decoders.Get().(*bucket.Decoder)
		defer decoders.Put(d)
		r, err := q.fleet(d, key, entries)
		if err == nil {
			return true, q.c.AddRollup(r, hosts)
		}
		if errors.Is(err, store.ErrVersion) {
			return false, err
		}
		damage() // and hosts' own are taken
	}
	if !all && key.resolution() > store.Minute && len(dirty)*few > len(clean) {
		return false, nil
	}
	d := decoders.Get().(*bucket.Decoder)
	defer decoders.Put(d)
	for _, e := range clean {
		host, _ := hostOf(e[0])
		p, err := unsealEntry(key, e[0], e[1])
		var r *store.Rollup
		if err == nil && p == nil {
			err = store.ErrCorrupt
		}
		if err == nil {
			r, err = q.unmarshal(d, p)
		}
		switch {
		case errors.Is(err, store.ErrVersion):
			return false, err
		case err != nil:
			damage()
			dirty[host] = true
		default:
			if err := q.c.AddRollup(r, []bucket.ID{host}); err != nil {
				return false, err
			}
		}
	}
	if len(dirty) == 0 {
		return true, nil
	}
	if key.resolution() == store.Minute {
		return true, q.raw(tx, key.start(), key.end(), dirty)
	}
	next := q.s.stepsOf(tx, key.resolution()-1, key.start(), key.end())
	for child, ok := next(); ok; child, ok = next() {
		used, err := q.readStep(tx, child, dirty, true)
		if err == nil && !used {
			err = q.raw(tx, child.start(), child.end(), dirty)
		}
		if err != nil {
			return false, err
		}
	}
	return true, nil
}

// unmarshal reads a roll-up as far as the plan needs it; its table lies in d.
func (q *question) unmarshal(d *bucket.Decoder, p []byte) (*store.Rollup, error) {
	if q.plan.Table == "" {
		return store.UnmarshalRollupHeader(p)
	}
	return store.UnmarshalRollup(d, p, q.plan.Table)
}

// fleet reads the roll-up of the fleet with the plan's table, which lies in d.
func (q *question) fleet(d *bucket.Decoder, key stepKey, entries *bbolt.Bucket) (*store.Rollup, error) {
	get := func(entry []byte) (*store.Rollup, error) {
		p, err := unsealEntry(key, entry, entries.Get(entry))
		if err == nil && p == nil {
			err = store.ErrCorrupt
		}
		if err != nil {
			return nil, err
		}
		return q.unmarshal(d, p)
	}
	r, err := get(fleetHeader)
	if err != nil || q.plan.Table == "" {
		return r, err
	}
	if s := r.Sum(q.plan.Table); s == nil || s.Buckets == 0 {
		return r, nil
	}
	t, err := get(fleetTable(q.plan.Table))
	if err != nil {
		return nil, err
	}
	r.Tables = t.Tables
	return r, nil
}

// readInterval adds the buckets of one interval, of the hosts in only (nil: all), and notes what fails a check.
func (s *DB) readInterval(tx *bbolt.Tx, key []byte, start int64, plan *store.Plan, only map[bucket.ID]bool, c *store.Collector) error {
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
		if !c.Wants(host) || only != nil && !only[host] {
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

// allTables has decode decode all tables. No table has this name.
const allTables = "*"

// decode verifies a value and decodes the header and that table, if named. The
// result takes no memory of value, and its table lies in d, which may
// be nil where none is named.
func decode(d *bucket.Decoder, start, key, value []byte, table string) (b *bucket.Bucket, skewed bool, err error) {
	data, skewed, err := unsealBlob(start, key, value)
	if err != nil {
		return nil, false, err
	}
	switch table {
	case "":
		h, err := bucket.DecodeHeader(data)
		if err != nil {
			return nil, false, err
		}
		b = &bucket.Bucket{Header: *h}
	case allTables:
		b, err = d.Decode(data)
	default:
		b, err = d.Decode(data, table)
	}
	if err != nil {
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
		if read == 0 {
			return s.rolledSchemas(ctx, tx, from, to, found)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read schemas: %w", err)
	}
	return slices.SortedFunc(maps.Values(found), func(x, y bucket.Schema) int { return cmp.Compare(x.Name, y.Name) }), nil
}

// rolledSchemas finds the schemas of the newest step of the fleet that has tables, of the
// finest resolution that has one.
func (s *DB) rolledSchemas(ctx context.Context, tx *bbolt.Tx, from, to int64, found map[string]bucket.Schema) error {
	for r := store.Minute; r <= store.Day; r++ {
		c := tx.Bucket(bucketRollups).Cursor()
		past := newStepKey(r, max(to, 0))
		k, _ := c.Seek(past[:])
		if k == nil {
			k, _ = c.Last()
		} else {
			k, _ = c.Prev()
		}
		for ; k != nil && len(found) == 0; k, _ = c.Prev() {
			key, ok := parseStepKey(k)
			if !ok || key.resolution() != r || key.start() < from {
				break
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			entries, err := s.entries(tx, key)
			if err != nil || entries == nil {
				continue // Query reports it
			}
			tables := entries.Cursor()
			for k, v := tables.Seek(fleetHeader); len(k) > 0 && k[0] == entryFleet; k, v = tables.Next() {
				p, err := unsealEntry(key, k, v)
				if err != nil || p == nil || len(k) == 1 {
					continue
				}
				if r, err := store.UnmarshalRollup(new(bucket.Decoder), p); err == nil {
					for _, t := range r.Tables {
						found[t.Schema.Name] = t.Schema
					}
				}
			}
		}
	}
	return nil
}
