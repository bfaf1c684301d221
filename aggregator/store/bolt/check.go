package bolt

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/pkg/boltfile"
	"github.com/httpctl/httpctl/pkg/bucket"
)

// Remedy is what helps against a damage.
type Remedy uint8

// What helps.
const (
	// Rewrite: nothing is lost; Compact writes a file without it.
	Rewrite Remedy = iota
	// Drop: what is damaged is lost; Compact leaves it out if it is told to.
	Drop
	// Replace: Compact cannot help, only another file.
	Replace
)

// Damage is something wrong with the file of a store.
type Damage struct {
	// Where it is, in words.
	Where string
	Err   error
	// Costs says what it costs, and what helps.
	Costs  string
	Remedy Remedy

	part  string // the top-level bucket, "" for the file as a whole
	start int64  // in intervals: of the interval
	key   string // in others: of the value
}

func (d *Damage) Error() string { return fmt.Sprintf("%s: %v", d.Where, d.Err) }

// Report says what is in the file of a store.
type Report struct {
	Path                     string
	Bytes                    int64
	PageSize                 int
	Pages, Free, Unaccounted uint64 // pages; unaccounted are neither in use nor free, and do no harm
	Intervals                int
	Buckets                  uint64
	Rollups                  int // minutes, hours and days of them
	Hosts, State             int
	OldestStart, NewestEnd   int64 // 0 when there are no intervals
	SealedThrough            int64
	// Damages is how many were found, and Worst what helps against the worst.
	Damages int
	Worst   Remedy
}

// CheckOptions adjust Check and Compact.
type CheckOptions struct {
	// State is asked whether a value of the state can be read, and may be nil. The store
	// does not know what is in there.
	State func(key string, value []byte) error
	// Found is told of each damage as it is found.
	Found func(Damage)
}

// Check reads all of a store's file, which no aggregator may have open, and looks whether it is sound:
// every page, every checksum, every manifest, every record. It changes nothing. Its error says
// that the file cannot be opened or read, wraps ErrLocked or store.ErrVersion where that is the reason, and is
// not about damage. Its memory does not grow with the file but by an eighth of a byte for each page, and by some
// bytes for each damaged interval.
//
// bbolt's own check is not run: it keeps two maps of all pages, and what it finds boltfile finds too
// (TestPassedIsSafe).
func Check(ctx context.Context, path string, opts CheckOptions) (*Report, error) {
	o, err := openOffline("check store", path, false)
	if errors.Is(err, store.ErrCorrupt) {
		c := &checker{opts: opts, report: &Report{Path: path}}
		c.found(Damage{Where: "the file", Err: errors.Unwrap(err), Costs: "the aggregator does not start on it; " + toRestore, Remedy: Replace})
		return c.report, nil
	}
	if err != nil {
		return nil, err
	}
	defer o.close()
	return o.check(ctx, opts)
}

const (
	toRestore = "restore a backup, or move the file aside: an empty store is made, and agents send what was not acknowledged"
	toDrop    = "restore a backup, or leave it out with `store compact --drop-damaged`"
	toRewrite = "nothing is lost; `store compact` mends it"
)

// checker is one Check.
type checker struct {
	*offline
	ctx    context.Context
	opts   CheckOptions
	report *Report
	// unsound holds the intervals in which Walk found damage: whether it is only a page with two owners.
	unsound      map[int64]*unsound
	unsoundSteps map[stepKey]*unsound
	version      uint32          // of the format; 0 when it cannot be told
	skip         map[string]bool // top-level buckets whose pages are damaged
}

type unsound struct {
	err    error
	shared bool
}

func (c *checker) found(d Damage) {
	c.report.Damages++
	c.report.Worst = max(c.report.Worst, d.Remedy)
	if c.opts.Found != nil {
		c.opts.Found(d)
	}
}

// check looks over the file.
func (o *offline) check(ctx context.Context, opts CheckOptions) (*Report, error) {
	c := &checker{offline: o, ctx: ctx, opts: opts, report: &Report{Path: o.path, Bytes: o.info.Size()},
		unsound: map[int64]*unsound{}, unsoundSteps: map[stepKey]*unsound{}, skip: map[string]bool{}}
	u := o.pages.Walk(c.page)
	c.report.PageSize, c.report.Pages, c.report.Free, c.report.Unaccounted = u.PageSize, u.Pages, u.Free, u.Unaccounted
	if c.skip[""] {
		return c.report, nil
	}
	// With a failed transaction none of it was looked at; a panic of a part is told there.
	err := guard(func() error { return o.db.View(c.content) })
	if errors.Is(err, store.ErrCorrupt) {
		c.found(Damage{Where: "the file", Err: err, Costs: toRestore, Remedy: Replace})
		err = nil
	}
	if err != nil && ctx.Err() == nil {
		err = &Error{Op: "check store", Path: o.path, Err: err, Hint: "run the newer program"}
	}
	return c.report, err
}

// page is told of damaged pages by Walk.
func (c *checker) page(path [][]byte, err error) {
	shared := errors.Is(err, boltfile.ErrShared)
	switch {
	case path == nil:
		c.found(Damage{Where: "the file", Err: err, Costs: toRewrite})
	case len(path) == 0:
		c.skip[""] = true
		c.found(Damage{Where: "the pages of the file", Err: err, Costs: "the aggregator does not start on it; " + toRestore, Remedy: Replace})
	case len(path) == 2 && string(path[0]) == string(bucketIntervals) && len(path[1]) == 8:
		note(c.unsound, int64(binary.BigEndian.Uint64(path[1])), err, shared)
	case len(path) == 2 && string(path[0]) == string(bucketRollups) && len(path[1]) == len(stepKey{}):
		note(c.unsoundSteps, stepKey(path[1]), err, shared)
	case len(path) >= 2 && string(path[0]) == string(bucketAside): // told when its content is looked at
	case shared:
		c.found(Damage{Where: fmt.Sprintf("the pages of %q", path[0]), Err: err, Costs: toRewrite, part: string(path[0])})
	default:
		if !c.skip[string(path[0])] {
			c.found(Damage{Where: fmt.Sprintf("the pages of %q", path[0]), Err: err, part: string(path[0]),
				Costs: "the aggregator does not start on it; " + toRestore, Remedy: Replace})
		}
		c.skip[string(path[0])] = true
	}
}

// note enters damaged pages of an interval or a step.
func note[K comparable](all map[K]*unsound, key K, err error, shared bool) {
	if u := all[key]; u != nil {
		u.shared = u.shared && shared
	} else {
		all[key] = &unsound{err, shared}
	}
}

// content looks at what the sound pages hold.
func (c *checker) content(tx *bbolt.Tx) error {
	if k, _ := tx.Cursor().First(); k == nil && !c.skip[""] {
		return nil // a file in which no store was made yet
	}
	if err := c.format(tx); err != nil {
		return err
	}
	type part struct {
		name  []byte
		check func(*bbolt.Tx) error
	}
	parts := []part{{bucketMeta, c.meta}, {bucketIntervals, c.intervals}, {bucketHosts, c.hosts}, {bucketState, c.state}}
	if c.version != 1 {
		parts = append(parts, part{bucketRollups, c.rollups}, part{bucketPast, c.past})
	}
	for _, part := range parts {
		if tx.Bucket(part.name) == nil && !c.skip[string(part.name)] {
			c.skip[string(part.name)] = true
			c.found(Damage{Where: "the file", Err: fmt.Errorf("it has no %q: %w", part.name, store.ErrCorrupt), Costs: toRestore, Remedy: Replace})
		}
		if c.skip[string(part.name)] {
			continue
		}
		err := guard(func() error { return part.check(tx) })
		if errors.Is(err, store.ErrCorrupt) && !errors.Is(err, store.ErrVersion) {
			c.found(Damage{Where: fmt.Sprintf("%q", part.name), Err: err, Costs: toRestore, Remedy: Replace})
			err = nil
		}
		if err != nil {
			return err
		}
	}
	return c.others(tx)
}

// format refuses a file of a newer program.
func (c *checker) format(tx *bbolt.Tx) error {
	meta := tx.Bucket(bucketMeta)
	if meta == nil || c.skip[string(bucketMeta)] {
		return nil
	}
	version, err := formatOf(meta.Get(keyFormat))
	c.version = version
	if err != nil && !errors.Is(err, store.ErrVersion) {
		c.found(Damage{Where: "the file", Err: err, Costs: "the aggregator does not start on it; " + toRestore, Remedy: Replace})
		return nil
	}
	return err
}

func (c *checker) meta(tx *bbolt.Tx) error {
	return tx.Bucket(bucketMeta).ForEach(func(k, v []byte) error {
		p, err := unseal(k, v)
		if err == nil && string(k) != string(keyFormat) && len(p) != 8 {
			err = fmt.Errorf("a number of %d bytes: %w", len(p), store.ErrCorrupt)
		}
		switch {
		case string(k) == string(keyFormat): // looked at before
		case err != nil:
			c.found(Damage{Where: fmt.Sprintf("the number %q of the store", k), Err: err, Costs: toRestore, Remedy: Replace})
		case string(k) == string(keySealed):
			c.report.SealedThrough = int64(binary.BigEndian.Uint64(p))
		}
		return nil
	})
}

// intervals looks at each interval and manifest.
func (c *checker) intervals(tx *bbolt.Tx) error {
	if c.skip[string(bucketManifests)] || tx.Bucket(bucketManifests) == nil {
		if !c.skip[string(bucketManifests)] {
			c.found(Damage{Where: "the file", Err: fmt.Errorf("it has no %q: %w", bucketManifests, store.ErrCorrupt), Costs: toRestore, Remedy: Replace})
		}
		return nil
	}
	if err := c.keys(tx, bucketIntervals, 8); err != nil {
		return err
	}
	if err := c.keys(tx, bucketManifests, 8); err != nil {
		return err
	}
	next := c.starts(tx, 0, 1<<63-1)
	for key := next(); key != nil; key = next() {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		if err := c.interval(tx, key); err != nil {
			return err
		}
	}
	return nil
}

// keys tells of keys of a length that none has; readers pass over them.
func (c *checker) keys(tx *bbolt.Tx, name []byte, length int) error {
	return tx.Bucket(name).ForEach(func(k, _ []byte) error {
		if len(k) != length {
			c.found(Damage{Where: fmt.Sprintf("the key %x of %q", k, name), Err: fmt.Errorf("it has %d bytes, want %d: %w", len(k), length, store.ErrCorrupt),
				Costs: "it is passed over; " + toDrop, Remedy: Drop, part: string(name), key: string(k)})
		}
		return nil
	})
}

// interval looks at one interval. What is wrong with it is one or more damages.
func (c *checker) interval(tx *bbolt.Tx, key []byte) error {
	start := int64(binary.BigEndian.Uint64(key))
	c.report.Intervals++
	if c.report.Intervals == 1 {
		c.report.OldestStart = start
	}
	before, newest := c.report.Damages, start
	damage := func(what string, err error) {
		c.found(Damage{Where: fmt.Sprintf("the interval %s%s", tell(start), what), Err: err, part: string(bucketIntervals), start: start,
			Costs: "answers leave it out and say so; " + toDrop, Remedy: Drop})
	}
	u := c.unsound[start]
	if u != nil && !u.shared {
		damage("", u.err)
		return nil
	}
	err := guard(func() error {
		if u != nil {
			// Walk has not followed what another has, too.
			if b := tx.Bucket(bucketIntervals).Bucket(key); b != nil {
				if err := c.pages.Tree(uint64(b.Root())); err != nil {
					return corrupt(err)
				}
			}
		}
		blobs, value := tx.Bucket(bucketIntervals).Bucket(key), tx.Bucket(bucketManifests).Get(key)
		if value == nil {
			damage("", fmt.Errorf("its manifest is missing: %w", store.ErrCorrupt))
		}
		want, err := parseManifest(key, value)
		if value != nil && err != nil {
			damage(": its manifest", err)
		}
		if blobs == nil {
			damage("", fmt.Errorf("its %d buckets are missing: %w", want.count, store.ErrCorrupt))
			return nil
		}
		newest = max(newest, want.end)
		var got manifest
		cursor := blobs.Cursor()
		for k, v := cursor.First(); k != nil; k, v = cursor.Next() {
			got.count++
			got.xor ^= nameHash(k)
			if len(k) != blobKeyLen || v == nil {
				damage("", fmt.Errorf("a key of %d bytes, want %d: %w", len(k), blobKeyLen, store.ErrCorrupt))
				continue
			}
			b, _, err := decode(nil, key, k, v)
			if errors.Is(err, bucket.ErrVersion) {
				return fmt.Errorf("%w: the bucket of host %x at %s: %v", store.ErrVersion, k[:16], tell(start), err)
			}
			if err != nil {
				damage(fmt.Sprintf(": the bucket of host %x", k[:16]), err)
				continue
			}
			c.report.Buckets++
			if err == nil && value != nil && b.End() > want.end && want.end != 0 {
				damage("", fmt.Errorf("a bucket ends at %s, after its manifest's end %s: %w", tell(b.End()), tell(want.end), store.ErrCorrupt))
			}
		}
		if err == nil && (got.count != want.count || got.xor != want.xor) {
			damage("", fmt.Errorf("its manifest names %d buckets, there are %d: %w", want.count, got.count, store.ErrCorrupt))
		}
		return nil
	})
	if errors.Is(err, store.ErrCorrupt) {
		damage("", err)
		err = nil
	}
	if u != nil && c.report.Damages == before {
		c.found(Damage{Where: "the interval " + tell(start), Err: u.err, Costs: toRewrite, part: string(bucketIntervals), start: start})
	}
	c.report.NewestEnd = max(c.report.NewestEnd, newest)
	return err
}

func (c *checker) hosts(tx *bbolt.Tx) error {
	return tx.Bucket(bucketHosts).ForEach(func(k, v []byte) error {
		c.report.Hosts++
		var r store.HostRecord
		p, err := unseal(k, v)
		if err == nil {
			err = r.UnmarshalBinary(p)
		}
		if err == nil && string(r.ID[:]) != string(k) {
			err = fmt.Errorf("it is of the host %s: %w", r.ID, store.ErrCorrupt)
		}
		if errors.Is(err, store.ErrVersion) {
			return err
		}
		if err != nil {
			c.found(Damage{Where: fmt.Sprintf("the record of host %x", k), Err: err, part: string(bucketHosts), key: string(k),
				Costs: "answers make it again from the host's buckets; `store compact --drop-damaged` does so for good", Remedy: Drop})
		}
		return c.ctx.Err()
	})
}

func (c *checker) state(tx *bbolt.Tx) error {
	return tx.Bucket(bucketState).ForEach(func(k, v []byte) error {
		c.report.State++
		_, p, err := c.DB.state(k, v)
		if err == nil && c.opts.State != nil {
			err = c.opts.State(string(k), p)
		}
		if errors.Is(err, store.ErrVersion) {
			return err
		}
		if err != nil {
			c.found(Damage{Where: fmt.Sprintf("the state %q", k), Err: err, part: string(bucketState), key: string(k),
				Costs: "the aggregator does not start on it; " + toDrop, Remedy: Drop})
		}
		return c.ctx.Err()
	})
}

// others looks at the top-level buckets that are not always there.
func (c *checker) others(tx *bbolt.Tx) error {
	known := map[string]bool{}
	for _, name := range bucketsOf(formatVersion) { // an upgrade from version 1 that was cut short has them, too
		known[string(name)] = true
	}
	cursor := tx.Cursor()
	for name, value := cursor.First(); name != nil; name, value = cursor.Next() {
		switch {
		case known[string(name)]:
		case value != nil || string(name) != string(bucketAside):
			c.found(Damage{Where: fmt.Sprintf("%q", name), Err: fmt.Errorf("this program knows no such part: %w", store.ErrCorrupt),
				Costs: toRestore, Remedy: Replace})
		case !c.skip[string(name)]:
			if err := tx.Bucket(name).ForEach(func(k, _ []byte) error {
				what := fmt.Sprintf("the interval %x", k)
				if len(k) == 8 {
					what = "the interval " + tell(int64(binary.BigEndian.Uint64(k)))
				} else if key, ok := parseStepKey(k); ok {
					what = "the roll-ups of " + tellStep(key)
				}
				c.found(Damage{Where: what, Err: fmt.Errorf("its pages were set aside as damaged: %w", store.ErrCorrupt),
					Costs: "they are out of use; `store compact` leaves them out", part: string(name)})
				return c.ctx.Err()
			}); err != nil {
				return err
			}
		}
	}
	return nil
}

// tell writes a time for people.
func tell(ns int64) string { return time.Unix(0, ns).UTC().Format("2006-01-02T15:04:05.999999999Z") }
