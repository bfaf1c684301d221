package bolt

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"

	"go.etcd.io/bbolt"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/pkg/bucket"
)

// Append implements store.Store: one transaction, one fsync for the batch.
func (s *DB) Append(ctx context.Context, batch []store.Item) ([]store.Result, error) {
	starts := make([]int64, 0, len(batch))
	for i := range batch {
		h := batch[i].Header
		switch {
		case h == nil || len(batch[i].Data) == 0:
			return nil, fmt.Errorf("append item %d: no header or no data", i)
		case !h.Final:
			return nil, fmt.Errorf("append bucket of host %s at %d: it is provisional", h.Host, h.Start)
		case h.Start < 0 || h.Width <= 0 || h.End() < h.Start:
			return nil, fmt.Errorf("append bucket of host %s: impossible interval (start %d, width %d)", h.Host, h.Start, h.Width)
		}
		starts = append(starts, h.Start)
	}
	slices.Sort(starts)
	starts = slices.Compact(starts)
	var results []store.Result
	var made []int64
	var marked *steps
	complete := false
	var added appended
	err := s.updateThen(ctx, func(tx *bbolt.Tx) (bool, error) {
		added = appended{}
		a := appender{s: s, tx: tx, made: &made, added: &added, steps: s.newSteps(tx), intervals: map[int64]*openInterval{}, hosts: map[bucket.ID]*store.HostRecord{},
			sealed: getInt(tx, keySealed)}
		marked = a.steps
		a.floor = max(a.sealed, getInt(tx, keyCreated))
		results = make([]store.Result, len(batch))
		for i := range batch {
			r, err := a.add(&batch[i])
			if err != nil {
				return false, fmt.Errorf("append bucket of host %s at %d: %w", batch[i].Header.Host, batch[i].Header.Start, err)
			}
			results[i] = r
		}
		added.empty(s, tx)
		err := a.finish()
		complete = err == nil
		return a.changed, err
	}, starts, func() {
		now := s.opts.Now().UnixNano()
		s.outlines.stored(now, added.outlines)
		s.sums.replaced(added.replaced)
		s.sums.feed(now, added.buckets, added.fresh)
	})
	if err != nil {
		s.unmake(made)
		if marked != nil {
			marked.undone()
		}
		if complete {
			return results, err
		}
		return nil, err
	}
	return results, nil
}

// appended is what the sums and outlines that are kept must know of a transaction.
type appended struct {
	buckets  []fedBucket
	fresh    []piece // intervals, and minutes, without a bucket before
	replaced []int64 // intervals in which a damaged bucket was replaced
	outlines []outlined
}

// empty keeps of the fresh intervals those in whose time there was no bucket before, also none of shorter intervals in it, and adds the minutes of which
// that is so.
func (a *appended) empty(s *DB, tx *bbolt.Tx) {
	intervals, seen := make(map[int64]bool, len(a.fresh)), make(map[piece]bool, len(a.fresh))
	for _, p := range a.fresh {
		intervals[p.start] = true
	}
	var pieces []piece
	for _, p := range a.fresh {
		for _, p := range []piece{p, {store.Minute.Floor(p.start), minuteLength}} {
			if seen[p] {
				continue
			}
			seen[p] = true
			next, fresh := s.starts(tx, p.start, p.end()), true
			for k := next(); k != nil && fresh; k = next() {
				fresh = intervals[int64(binary.BigEndian.Uint64(k))]
			}
			if fresh {
				pieces = append(pieces, p)
			}
		}
	}
	a.fresh = pieces
}

// appender is one transaction of Append.
type appender struct {
	s             *DB
	tx            *bbolt.Tx
	added         *appended
	made          *[]int64 // intervals
	intervals     map[int64]*openInterval
	steps         *steps
	hosts         map[bucket.ID]*store.HostRecord
	sealed, floor int64
	expired       int64
	changed       bool
}

type openInterval struct {
	key     []byte
	blobs   *bbolt.Bucket
	m       manifest
	damaged bool // the manifest cannot be told any more; it stays as it is
	changed bool
	fresh   bool              // there was nothing of it before
	buckets map[bucket.ID]int // those of hosts of which something is appended, as far as MaxBuckets
}

// of counts the buckets of a host, as far as MaxBuckets.
func (iv *openInterval) of(host bucket.ID) int {
	n, ok := iv.buckets[host]
	if ok {
		return n
	}
	c := iv.blobs.Cursor()
	for k, _ := c.Seek(host[:]); bytes.HasPrefix(k, host[:]) && n < store.MaxBuckets; k, _ = c.Next() {
		n++
	}
	iv.buckets[host] = n
	return n
}

func (a *appender) add(it *store.Item) (store.Result, error) {
	h := it.Header
	if h.Start < a.sealed {
		a.expired++
		a.changed = true
		return store.Expired, a.note(h, false, it.Ahead)
	}
	iv, err := a.interval(h.Start)
	if err != nil {
		return 0, err
	}
	key := blobKey(&h.Name)
	old := iv.blobs.Get(key)
	if old == nil && iv.of(h.Host) >= store.MaxBuckets {
		return store.Crowded, nil
	}
	if old != nil {
		data, _, err := unsealBlob(iv.key, key, old)
		switch {
		case err != nil:
			a.s.checksumErrors.Add(1) // and what arrives again heals it
		case bytes.Equal(data, it.Data):
			return store.Duplicate, nil
		default:
			return store.Mismatch, nil
		}
	}
	if err := iv.blobs.Put(key, blobValue(iv.key, key, it)); err != nil {
		return 0, err
	}
	if old == nil {
		iv.buckets[h.Host]++
		iv.m.count++
		iv.m.xor ^= nameHash(key)
		a.added.buckets = append(a.added.buckets, fedBucket{h.Start, it.Data, it.Skewed, a.tx.ID()})
	} else {
		a.added.replaced = append(a.added.replaced, h.Start)
	}
	outline := it.Outline
	if it.Skewed {
		outline = nil
	}
	a.added.outlines = append(a.added.outlines, outlined{h.Start, blobName(key), outline})
	if iv.fresh {
		a.added.fresh = append(a.added.fresh, piece{h.Start, int64(h.Width)})
		iv.fresh = false
	}
	iv.m.end = max(iv.m.end, h.End())
	iv.changed, a.changed = true, true
	if err := a.steps.mark(h.Host, h.Start); err != nil {
		return 0, err
	}
	return store.Stored, a.note(h, true, it.Ahead)
}

// interval opens an interval, making it if it is not there.
func (a *appender) interval(start int64) (*openInterval, error) {
	if iv := a.intervals[start]; iv != nil {
		return iv, nil
	}
	iv := &openInterval{key: startKey(start), buckets: map[bucket.ID]int{}}
	intervals := a.tx.Bucket(bucketIntervals)
	value := a.tx.Bucket(bucketManifests).Get(iv.key)
	var err error
	var sound []saved
	if iv.blobs, err = a.s.blobs(a.tx, iv.key); err == nil && iv.blobs != nil {
		err = a.s.ownOnce(a.tx, &a.s.proven, start, bucketIntervals, iv.key)
	}
	if errors.Is(err, store.ErrCorrupt) {
		// The manifest stays, so that queries go on reporting what was lost.
		a.s.checksumErrors.Add(1)
		iv.blobs = nil
		sound, err = a.s.salvage(a.tx, iv.key)
	}
	if err != nil {
		return nil, err
	}
	if value != nil {
		if iv.m, err = parseManifest(iv.key, value); err != nil {
			a.s.checksumErrors.Add(1)
			iv.damaged = true
		}
	} else if iv.blobs != nil {
		iv.damaged = true // a manifest made now would hide that one was lost
	}
	if iv.blobs == nil {
		if iv.blobs, err = intervals.CreateBucket(iv.key); err != nil {
			return nil, err
		}
		iv.fresh = value == nil && len(sound) == 0
		a.s.looked.Store(start, a.tx.ID())
		a.s.proven.Store(start, true)
		*a.made = append(*a.made, start)
		for _, e := range sound {
			if err := iv.blobs.Put(e.key, e.value); err != nil {
				return nil, err
			}
		}
	}
	a.intervals[start] = iv
	return iv, nil
}

func (a *appender) note(h *bucket.Header, stored, ahead bool) error {
	r := a.hosts[h.Host]
	if r == nil {
		r = &store.HostRecord{}
		if value := a.tx.Bucket(bucketHosts).Get(h.Host[:]); value != nil {
			var err error
			if r, err = a.s.hostRecord(a.tx, h.Host[:], value); err != nil {
				return err
			}
		}
		r.ID = h.Host
		a.hosts[h.Host] = r
	}
	r.Note(h, stored, ahead, a.floor, a.sealed)
	return nil
}

func (a *appender) finish() error {
	if !a.changed {
		return nil
	}
	for _, iv := range a.intervals {
		if iv.changed && !iv.damaged {
			if err := a.tx.Bucket(bucketManifests).Put(iv.key, iv.m.value(iv.key)); err != nil {
				return err
			}
		}
	}
	for id, r := range a.hosts {
		b, err := r.AppendBinary(nil)
		if err != nil {
			return err
		}
		if err := a.tx.Bucket(bucketHosts).Put(id[:], sealedValue(id[:], b)); err != nil {
			return err
		}
	}
	if err := a.steps.finish(); err != nil {
		return err
	}
	if a.expired > 0 {
		return putInt(a.tx, keyExpired, getInt(a.tx, keyExpired)+a.expired)
	}
	return nil
}

// hostRecord reads the record of a host. A damaged one is made again from the
// host's buckets.
func (s *DB) hostRecord(tx *bbolt.Tx, key, value []byte) (*store.HostRecord, error) {
	r := &store.HostRecord{}
	payload, err := unseal(key, value)
	if err == nil {
		err = r.UnmarshalBinary(payload)
	}
	if err == nil || errors.Is(err, store.ErrVersion) {
		return r, err
	}
	s.checksumErrors.Add(1)
	r = &store.HostRecord{}
	copy(r.ID[:], key)
	sealed := getInt(tx, keySealed)
	floor := max(sealed, getInt(tx, keyCreated))
	var headers []*bucket.Header
	intervals := tx.Bucket(bucketIntervals).Cursor()
	for start, _ := intervals.First(); start != nil; start, _ = intervals.Next() {
		blobs, err := s.blobs(tx, start)
		if err != nil || blobs == nil {
			continue
		}
		c := blobs.Cursor()
		for k, v := c.Seek(key); k != nil && bytes.HasPrefix(k, key); k, v = c.Next() {
			if data, _, err := unsealBlob(start, k, v); err == nil {
				if h, err := bucket.DecodeHeader(data); err == nil {
					headers = append(headers, h)
				}
			}
		}
	}
	// As they were made: nearly always the order in which they arrived.
	slices.SortFunc(headers, func(x, y *bucket.Header) int {
		return cmp.Or(cmp.Compare(x.ObservedFrom, y.ObservedFrom), x.Incarnation.Compare(y.Incarnation),
			cmp.Compare(x.Ordinal, y.Ordinal))
	})
	for _, h := range headers {
		r.Note(h, true, false, floor, sealed)
	}
	return r, nil
}

// verifyInterval checks an interval and everything in it; one that is not
// there is fine.
func (s *DB) verifyInterval(tx *bbolt.Tx, start int64) error {
	key := startKey(start)
	blobs, err := s.blobs(tx, key)
	if err != nil {
		return fmt.Errorf("interval %d: %w", start, err)
	}
	value := tx.Bucket(bucketManifests).Get(key)
	if blobs == nil && value == nil {
		return nil
	}
	if blobs == nil || value == nil {
		return fmt.Errorf("interval %d has a manifest or buckets, not both: %w", start, store.ErrCorrupt)
	}
	want, err := parseManifest(key, value)
	if err != nil {
		return fmt.Errorf("interval %d: manifest: %w", start, err)
	}
	var got manifest
	c := blobs.Cursor()
	for k, v := c.First(); k != nil; k, v = c.Next() {
		if _, err := unseal(crcKey(key, k), v); err != nil {
			return fmt.Errorf("interval %d: %w", start, err)
		}
		got.count++
		got.xor ^= nameHash(k)
	}
	if got.count != want.count || got.xor != want.xor {
		return fmt.Errorf("interval %d: the manifest names %d buckets, there are %d: %w", start, want.count, got.count, store.ErrCorrupt)
	}
	return nil
}

// Purge implements store.Store. The floor is sealed first, in a transaction of
// its own; intervals follow in transactions of bounded size, so that a purge of
// days does not hold up appends for long. All intervals of a minute go at once:
// of what a roll-up is made of, all is there or nothing.
func (s *DB) Purge(ctx context.Context, t int64) (int, error) {
	defer s.roll()()
	t = store.Minute.Floor(max(t, 0))
	err := s.update(ctx, func(tx *bbolt.Tx) (bool, error) {
		if t <= getInt(tx, keySealed) {
			return false, nil
		}
		return true, putInt(tx, keySealed, t)
	}, nil)
	if err != nil {
		return 0, err
	}
	s.sums.purge(t)
	s.outlines.forget(t)
	s.forgetLooked(t)
	total := 0
	for {
		end, err := s.settleMinutes(ctx, t)
		if err != nil {
			return total, fmt.Errorf("purge: %w", err)
		}
		strangers, err := s.strangers(ctx, end)
		if err != nil {
			return total, fmt.Errorf("purge: %w", err)
		}
		n := 0
		err = s.update(ctx, func(tx *bbolt.Tx) (bool, error) {
			var doomed [][]byte
			next := s.starts(tx, 0, end)
			for key := next(); key != nil; key = next() {
				doomed = append(doomed, bytes.Clone(key))
			}
			for _, key := range doomed {
				blobs, err := s.blobs(tx, key)
				if err == nil && strangers[int64(binary.BigEndian.Uint64(key))] {
					err = store.ErrCorrupt
				}
				switch {
				case errors.Is(err, store.ErrCorrupt): // its pages cannot be told, so they are not freed
					s.checksumErrors.Add(1)
					err = setAside(tx, bucketIntervals, key)
				case err == nil && blobs != nil:
					err = tx.Bucket(bucketIntervals).DeleteBucket(key)
				}
				if err != nil {
					return false, err
				}
				if err := tx.Bucket(bucketManifests).Delete(key); err != nil {
					return false, err
				}
			}
			n = len(doomed)
			if end < t {
				return n > 0, nil
			}
			forgot, err := s.forgetHosts(tx, t)
			return forgot || n > 0, err
		}, nil)
		if err != nil {
			return total, err
		}
		total += n
		if end == t {
			return total, nil
		}
	}
}

// settleMinutes brings the roll-ups of the next minutes with intervals up to date,
// and returns where they end: t after the last. Nothing is appended there any more.
func (s *DB) settleMinutes(ctx context.Context, t int64) (end int64, err error) {
	const perTx = 256 // intervals
	var minutes []stepKey
	err = s.view(func(tx *bbolt.Tx) error {
		end = t
		next, intervals, buckets := s.starts(tx, 0, t), 0, uint64(0)
		for key := next(); key != nil; key = next() {
			minute := newStepKey(store.Minute, store.Minute.Floor(int64(binary.BigEndian.Uint64(key))))
			if len(minutes) == 0 || minutes[len(minutes)-1] != minute {
				if intervals >= perTx || buckets >= s.opts.mostPurged {
					end = minute.start()
					return nil
				}
				minutes = append(minutes, minute)
			}
			intervals++
			if m, err := parseManifest(key, tx.Bucket(bucketManifests).Get(key)); err == nil { // else nobody knows
				buckets += m.count
			}
		}
		return nil
	})
	for _, minute := range minutes {
		if err == nil {
			err = s.settle(ctx, minute)
		}
	}
	return end, err
}

// blobs opens an interval, nil if it is not there, and looks over its pages, unless
// it was looked over or made since the file was opened.
func (s *DB) blobs(tx *bbolt.Tx, key []byte) (*bbolt.Bucket, error) {
	b := tx.Bucket(bucketIntervals).Bucket(key)
	if b == nil && isPlain(tx, bucketIntervals, key) {
		return nil, fmt.Errorf("the interval is a value, not a bucket: %w", store.ErrCorrupt)
	}
	start := int64(binary.BigEndian.Uint64(key))
	if since, ok := s.looked.Load(start); b == nil || ok && tx.ID() >= since.(int) {
		return b, nil
	}
	if err := s.pages.At(tx.Size()).Tree(uint64(b.Root())); err != nil {
		return nil, corrupt(err)
	}
	s.looked.LoadOrStore(start, 0)
	return b, nil
}

// forgetLooked drops what looked knows of intervals that the purge before this one, of
// t, took away: no snapshot that has them is read any more.
func (s *DB) forgetLooked(t int64) {
	s.writing.Lock()
	gone := s.purged - maxWidth
	s.purged = max(s.purged, t)
	s.writing.Unlock()
	for _, m := range []*sync.Map{&s.looked, &s.proven} {
		m.Range(func(start, _ any) bool {
			if start.(int64) < gone {
				m.Delete(start)
			}
			return true
		})
	}
}

// setAside takes an interval, or a step, whose pages are damaged out of the way. The pages
// stay in the file, out of use: whose they are cannot be told.
func setAside(tx *bbolt.Tx, from, key []byte) error {
	if isPlain(tx, from, key) {
		return tx.Bucket(from).Delete(key) // it has no pages
	}
	aside, err := tx.CreateBucketIfNotExists(bucketAside)
	if err != nil {
		return err
	}
	for aside.Bucket(key) != nil { // it was before, and has been damaged again
		if aside, err = aside.CreateBucketIfNotExists([]byte("again")); err != nil {
			return err
		}
	}
	return tx.Bucket(from).MoveBucket(key, aside)
}

// maxWidth is the widest interval there can be, one minute (DESIGN section 8).
const maxWidth = int64(60e9)

// starts returns a function that returns the keys of the intervals that start
// in [from, to), in order, then nil: of those with buckets, a manifest or both.
func (s *DB) starts(tx *bbolt.Tx, from, to int64) func() []byte {
	next := s.union(tx.Bucket(bucketIntervals), tx.Bucket(bucketManifests), startKey(max(from, 0)))
	return func() []byte {
		for {
			k := next()
			if k != nil && len(k) != 8 {
				s.checksumErrors.Add(1)
				continue
			}
			if k == nil || int64(binary.BigEndian.Uint64(k)) >= to || k[0]&0x80 != 0 {
				return nil
			}
			return k
		}
	}
}

// union returns a function that returns the keys from first on that either bucket has, in
// order, then nil. In a damaged file keys may be out of order, or before first: those are
// passed over, so that whoever goes on from what he got always gets further.
func (s *DB) union(a, b *bbolt.Bucket, first []byte) func() []byte {
	x, y := a.Cursor(), b.Cursor()
	kx, _ := x.Seek(first)
	ky, _ := y.Seek(first)
	var last []byte
	return func() []byte {
		for {
			var k []byte
			switch c := bytes.Compare(kx, ky); {
			case kx == nil && ky == nil:
				return nil
			case ky == nil || kx != nil && c < 0:
				k = kx
				kx, _ = x.Next()
			case kx == nil || c > 0:
				k = ky
				ky, _ = y.Next()
			default:
				k = kx
				kx, _ = x.Next()
				ky, _ = y.Next()
			}
			if bytes.Compare(k, first) < 0 || last != nil && bytes.Compare(k, last) <= 0 {
				s.checksumErrors.Add(1)
				continue
			}
			last = k
			return k
		}
	}
}

// forgetHosts makes the hosts whose last bucket ended at or before t past hosts.
func (s *DB) forgetHosts(tx *bbolt.Tx, t int64) (bool, error) {
	var doomed []*store.HostRecord
	err := tx.Bucket(bucketHosts).ForEach(func(k, v []byte) error {
		r, err := s.hostRecord(tx, k, v)
		if err != nil {
			return err
		}
		if r.LastEnd <= t {
			copy(r.ID[:], k)
			doomed = append(doomed, r)
		}
		return nil
	})
	for _, r := range doomed {
		err = errors.Join(err, tx.Bucket(bucketHosts).Delete(r.ID[:]))
		if r.LastEnd > 0 { // something of it was stored
			if before, perr := parsePast(r.ID[:], tx.Bucket(bucketPast).Get(r.ID[:])); perr == nil { // it was past before, and came back
				r.FirstStart, r.LastEnd = min(r.FirstStart, before.FirstStart), max(r.LastEnd, before.LastEnd)
			}
			err = errors.Join(err, tx.Bucket(bucketPast).Put(r.ID[:], pastValue(&r.Host)))
		}
	}
	return len(doomed) > 0, err
}
