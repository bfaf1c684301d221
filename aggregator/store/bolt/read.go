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
// else the intervals of a minute. Sums of pieces are kept for the next time it is asked.
func (s *DB) Query(ctx context.Context, plan store.Plan) (*store.Answer, error) {
	plan.From = max(plan.From, 0)
	q := question{ctx: ctx, s: s, plan: &plan, c: store.NewCollector(plan)}
	q.slot = slotOf(&plan)
	if plan.Table != "" && (plan.Step == 0 || q.slot > 0) {
		q.shape = s.sums.shape(&plan)
	}
	from, err := q.prepared()
	if err == nil {
		err = q.span(from, plan.To, q.next)
	}
	if err != nil {
		return nil, fmt.Errorf("query store: %w", err)
	}
	return q.c.Answer(), nil
}

// prepared adds the sum that was made for this question, if there is one, and returns where it ends, else where the question begins.
func (q *question) prepared() (int64, error) {
	from, to := q.plan.From, q.plan.To
	if q.shape == nil || q.slot > 0 || q.plan.Judged || to-from < leastSpan {
		return from, nil
	}
	q.s.sums.asked(q.shape, from)
	if k := q.s.sums.span(q.shape, from, to); k != nil {
		if added, err := q.take(k); added || err != nil {
			return k.key.end(), err
		}
	}
	return from, nil
}

// slotOf returns the length of the plan's steps if these tile minutes and their sums are kept, else 0.
func slotOf(p *store.Plan) int64 {
	if step := int64(p.Step); step > 0 && step < minuteLength && minuteLength%step == 0 && p.From%step == 0 && !p.PerHost {
		return step
	}
	return 0
}

// question is a query under way.
type question struct {
	ctx   context.Context
	s     *DB
	plan  *store.Plan
	c     *store.Collector
	slot  int64  // see slotOf
	shape *shape // of the sums that are kept; nil keeps none
	ahead bool   // nobody waits for it: it makes sums for later
	under int64  // pieces are shorter, as it makes the sum of one of this length; 0 is any
	txid  int    // of the snapshot from which minute has read last
}

// span adds all from from to to, in pieces that next adds.
func (q *question) span(from, to int64, next func(at, to int64) (int64, error)) error {
	for at := from; at < to; {
		if err := q.ctx.Err(); err != nil {
			return err
		}
		var err error
		if at, err = next(at, to); err != nil {
			return err
		}
	}
	return nil
}

// next adds the next piece from at on, and returns where it ends.
func (q *question) next(at, to int64) (int64, error) {
	if end, err := q.again(at, to); end > 0 || err != nil {
		return end, err
	}
	err := q.s.view(func(tx *bbolt.Tx) error {
		at = q.s.nextStart(tx, at, to)
		return nil
	})
	if err != nil || at >= to {
		return to, err
	}
	day, hour := int64(store.Day.Length()), int64(store.Hour.Length())
	if at%day == 0 && q.plan.Fits(at, at+day) {
		used, err := q.kept(at, at+day, func(o *question) (bool, error) { return o.step(newStepKey(store.Day, at)) })
		if used || err != nil {
			return at + day, err
		}
	}
	if q.shape != nil && q.slot == 0 {
		if end := q.hours(at, to); end > at {
			_, err := q.kept(at, end, func(o *question) (bool, error) { return true, o.span(at, end, o.hour) })
			return end, err
		}
	}
	if at%hour == 0 && q.plan.Fits(at, at+hour) {
		if used, err := q.step(newStepKey(store.Hour, at)); used || err != nil {
			return at + hour, err
		}
	}
	return q.fine(at, to)
}

// hours returns where the hours from at on end of which one sum is kept: those that are over, to the end of the day; at or less if there are none.
func (q *question) hours(at, to int64) int64 {
	day := int64(store.Day.Length())
	if at%int64(store.Hour.Length()) != 0 || q.plan.Judged {
		return at
	}
	return min(q.s.sums.hourEnd(to), at-at%day+day)
}

// again adds the next piece if there is a sum of it, and returns its end, else 0.
func (q *question) again(at, to int64) (int64, error) {
	fits := func(p piece) bool { return at%p.length == 0 && p.end() <= to && (q.under == 0 || p.length < q.under) }
	var pieces []piece
	day, chunk, minute := piece{at, int64(store.Day.Length())}, piece{at, chunkLength}, piece{at, minuteLength}
	hours := piece{at, q.hours(at, to) - at}
	switch { // what is to be made next is not put together of less
	case q.shape == nil:
		return 0, nil
	case q.slot > 0:
		pieces = append(pieces, piece{at, q.slot})
	case fits(day):
		pieces = append(pieces, day, hours)
	case hours.length > 0 && (q.under == 0 || hours.length < q.under):
		pieces = append(pieces, hours)
	case fits(chunk) && q.s.sums.settled(chunk.end()):
		pieces = append(pieces, chunk)
	case fits(minute):
		pieces = append(pieces, minute)
	}
	for _, p := range pieces {
		if p.length <= 0 || p.end() > to {
			continue
		}
		if k := q.s.sums.find(q.shape, p); k != nil {
			if added, err := q.take(k); added || err != nil {
				return p.end(), err
			}
		}
	}
	return 0, nil
}

// hour adds the hour that begins at at.
func (q *question) hour(at, _ int64) (int64, error) {
	end := at + int64(store.Hour.Length())
	if used, err := q.step(newStepKey(store.Hour, at)); used || err != nil {
		return end, err
	}
	return end, q.span(at, end, func(at, to int64) (int64, error) {
		if end, err := q.again(at, to); end > 0 || err != nil {
			return end, err
		}
		err := q.s.view(func(tx *bbolt.Tx) error {
			at = q.s.nextStart(tx, at, to)
			return nil
		})
		if err != nil || at >= to {
			return to, err
		}
		return q.fine(at, to)
	})
}

// fine adds the next piece from at on, where something begins, of less than an hour.
func (q *question) fine(at, to int64) (int64, error) {
	if q.slot > 0 {
		from := at - at%q.slot
		end := min(from+q.slot, to)
		_, err := q.kept(from, end, func(o *question) (bool, error) { return true, o.minute(from, end) })
		return end, err
	}
	if end := at + chunkLength; q.shape != nil && at%chunkLength == 0 && end <= to && q.plan.Fits(at, end) && q.s.sums.settled(end) {
		_, err := q.kept(at, end, func(o *question) (bool, error) {
			return true, o.span(at, end, func(at, to int64) (int64, error) {
				if end, err := o.again(at, to); end > 0 || err != nil {
					return end, err
				}
				return o.keptMinute(at, to)
			})
		})
		return end, err
	}
	return q.keptMinute(at, to)
}

// keptMinute adds what there is from at to the end of its minute, or to to.
func (q *question) keptMinute(at, to int64) (int64, error) {
	end := min(store.Minute.Floor(at)+minuteLength, to)
	_, err := q.kept(at, end, func(o *question) (bool, error) { return true, o.minute(at, end) })
	return end, err
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
	if q.shape == nil {
		return add(q)
	}
	alone := *q // to add it without a sum of all of it
	alone.under = end - at
	k, mine := q.s.sums.claim(q.shape, piece{at, end - at}, q.ahead)
	if k == nil {
		return add(&alone)
	}
	if !mine {
		if added, err := q.take(k); added || err != nil {
			return added, err
		}
		return add(&alone)
	}
	part := *q.plan
	part.From, part.To, part.Step = at, end, 0
	c := store.NewCollector(part)
	o := &question{ctx: q.ctx, s: q.s, plan: &part, c: c, shape: q.shape, under: end - at, ahead: q.ahead}
	settled := false
	settle := func(f func()) {
		if !settled {
			settled = true
			f()
		}
	}
	abandon := func() { settle(func() { q.s.sums.abandon(k) }) }
	defer abandon()
	used, err := add(o)
	if !used || err != nil {
		return false, err
	}
	if !c.Whole() { // so that damage is reported each time
		abandon()
		return add(&alone)
	}
	sum := c.Part(q.shape.dict.Load())
	q.c.AddPart(at, sum)
	settle(func() { q.s.sums.finish(k, sum, o.txid) })
	return true, nil
}

// take adds a sum that is kept, once it is made. It returns false if it was given up.
func (q *question) take(k *kept) (bool, error) {
	select {
	case <-k.done:
	case <-q.ctx.Done():
		return false, q.ctx.Err()
	}
	added, sealed := q.addKept(k)
	if sealed {
		q.s.sums.grown(k)
	}
	return added, nil
}

// addKept is take for a sum that is made, and reports whether it made a part of what had come.
func (q *question) addKept(k *kept) (added, sealed bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.gone || !k.made:
		return false, false
	case k.collector != nil:
		sealed = true
		if k.guard(&q.s.sums.faults, k.seal); k.gone {
			return false, true
		}
	}
	for _, p := range k.parts {
		q.c.AddPart(k.key.start, p)
	}
	return true, sealed
}

// minute adds what there is from at to end, within a minute, as one snapshot has it.
func (q *question) minute(at, end int64) error {
	return q.s.view(func(tx *bbolt.Tx) error {
		q.txid = tx.ID()
		if start := store.Minute.Floor(at); start == at && q.plan.Fits(start, start+minuteLength) {
			if used, err := q.readStep(tx, newStepKey(store.Minute, at), nil, false); used || err != nil {
				return err
			}
		}
		return q.raw(tx, at, end, nil)
	})
}

// raw adds the buckets of the intervals that start in [from, to), of the hosts in only (nil: all).
func (q *question) raw(tx *bbolt.Tx, from, to int64, only map[bucket.ID]bool) error {
	next := q.s.starts(tx, from, to)
	for key := next(); key != nil; key = next() {
		if err := q.s.readInterval(tx, key, int64(binary.BigEndian.Uint64(key)), reader{q.plan, only, q.c}); err != nil {
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
	whole := !isDirty(entries.Get(fleetHeader))
	if only == nil && len(q.plan.Hosts) == 0 && !q.plan.PerHost && whole {
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
		whole = false
	}
	if !all && key.resolution() > store.Minute && len(dirty)*few > len(clean) {
		return false, nil
	}
	d := decoders.Get().(*bucket.Decoder)
	defer decoders.Put(d)
	for _, e := range clean {
		host, _ := hostOf(e[0])
		r, unsound, err := q.hostRollup(d, key, entries, host, whole && briefly(q.plan), e[1])
		if unsound {
			damage()
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

// reader is for whom an interval is read: of the hosts in only (nil: all).
type reader struct {
	plan *store.Plan
	only map[bucket.ID]bool
	c    *store.Collector
}

func (r *reader) wants(host bucket.ID) bool {
	return r.c.Wants(host) && (r.only == nil || r.only[host])
}

// readInterval adds the buckets of one interval for each reader, and notes what fails a check.
func (s *DB) readInterval(tx *bbolt.Tx, key []byte, start int64, readers ...reader) error {
	damage := func() {
		s.checksumErrors.Add(1)
		for _, r := range readers {
			r.c.Damage(start)
		}
	}
	var tables []string
	short := true // outlines say all that is asked for
	for _, r := range readers {
		short = short && r.plan.Outlined()
		if r.plan.Table != "" && !slices.Contains(tables, r.plan.Table) {
			tables = append(tables, r.plan.Table)
		}
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
		if !slices.ContainsFunc(readers, func(r reader) bool { return r.wants(host) }) {
			continue
		}
		var b *bucket.Bucket
		var skewed bool
		var err error
		if short {
			b, skewed, err = s.outlined(d, key, k, v)
		} else {
			b, skewed, err = decode(d, key, k, v, tables...)
		}
		if err != nil {
			if errors.Is(err, bucket.ErrVersion) {
				return fmt.Errorf("bucket of host %s at %d: %w", host, start, err)
			}
			damage()
			continue
		}
		for _, r := range readers {
			if skewed && r.plan.Judged || !r.wants(host) {
				continue
			}
			if err := r.c.Add(b); err != nil {
				return err
			}
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

// decode verifies a value and decodes the header and those tables, if named. The
// result takes no memory of value, and its tables lie in d, which may
// be nil where none is named.
func decode(d *bucket.Decoder, start, key, value []byte, tables ...string) (b *bucket.Bucket, skewed bool, err error) {
	data, skewed, err := unsealBlob(start, key, value)
	if err == nil {
		b, err = decodeData(d, start, key, data, tables...)
	}
	if err != nil {
		return nil, false, err
	}
	return b, skewed, nil
}

// decodeData is decode for what was verified.
func decodeData(d *bucket.Decoder, start, key, data []byte, tables ...string) (b *bucket.Bucket, err error) {
	switch {
	case len(tables) == 0:
		h, err := bucket.DecodeHeader(data)
		if err != nil {
			return nil, err
		}
		b = &bucket.Bucket{Header: *h}
	case tables[0] == allTables:
		b, err = d.Decode(data)
	default:
		b, err = d.Decode(data, tables...)
	}
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(blobKey(&b.Name), key) || b.Start != int64(binary.BigEndian.Uint64(start)) {
		return nil, fmt.Errorf("bucket under another's name: %w", store.ErrCorrupt)
	}
	return b, nil
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

// maxPassed bounds how often Schemas passes over a host in an interval, as it has read enough of it, or finds no table: where hosts are few, or idle, it would go
// through all that is stored. The newest interval is always looked at to its end. One host with an interval for each second, five minutes of them ahead, is passed over 300 times before others are seen.
const maxPassed = 4 * store.MaxSchemaBuckets

// Schemas implements store.Store.
func (s *DB) Schemas(ctx context.Context, from, to int64) ([]bucket.Schema, error) {
	found := map[string]bucket.Schema{}
	votes := store.Votes{}
	d := decoders.Get().(*bucket.Decoder)
	defer decoders.Put(d)
	err := s.view(func(tx *bbolt.Tx) error {
		of := map[bucket.ID]int{} // buckets read
		intervals := tx.Bucket(bucketIntervals)
		c, read, passed := intervals.Cursor(), 0, 0
		key, _ := c.Seek(startKey(max(to, 0)))
		if key == nil {
			key, _ = c.Last()
		} else {
			key, _ = c.Prev()
		}
		for ; key != nil && read < store.MaxSchemaBuckets && passed < maxPassed; key, _ = c.Prev() {
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
			last := bucket.ID{} // of which enough was read
			for k, v := cursor.First(); k != nil && read < store.MaxSchemaBuckets; k, v = cursor.Next() {
				if len(k) == blobKeyLen && of[bucket.ID(k[:16])] >= store.MaxSchemaBuckets/4 {
					if host := bucket.ID(k[:16]); host != last {
						last = host
						passed++
					}
					continue
				}
				data, skewed, err := unsealBlob(key, k, v)
				if err != nil {
					s.checksumErrors.Add(1)
					continue
				}
				schemas, err := s.schemasIn(d, key, k, data, skewed)
				if err != nil {
					continue // Query reports it
				}
				host := bucket.ID(k[:16])
				of[host]++
				if len(*schemas) > 0 {
					read++
				} else {
					passed++
				}
				for i := range *schemas {
					votes.Add(host, &(*schemas)[i])
				}
			}
		}
		if read < store.MaxSchemaBuckets { // few hosts, or little traffic: what there was before
			if err := s.rolledSchemas(ctx, tx, from, to, found); err != nil {
				return err
			}
		}
		maps.Copy(found, votes.Elected())
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read schemas: %w", err)
	}
	return slices.SortedFunc(maps.Values(found), func(x, y bucket.Schema) int { return cmp.Compare(x.Name, y.Name) }), nil
}

// schemasIn returns the schemas of the tables of a bucket that was verified: those that its outline remembers, else those in it, which it
// remembers from then on.
func (s *DB) schemasIn(d *bucket.Decoder, start, key, data []byte, skewed bool) (*store.Schemas, error) {
	at := int64(binary.BigEndian.Uint64(start))
	if len(key) == blobKeyLen {
		if o := s.outlines.find(at, key, data); o != nil && o.Tables() != nil {
			return o.Tables(), nil
		}
	}
	b, err := decodeData(d, start, key, data, allTables)
	if err != nil {
		return nil, err
	}
	if o := store.WholeOutlineOf(b, data); o != nil {
		if !skewed {
			s.outlines.read(at, key, o)
		}
		return o.Tables(), nil
	}
	return store.SchemasOf(b), nil
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
				if len(k) == 1 || isBrief(k) {
					continue
				}
				p, err := unsealEntry(key, k, v)
				if err != nil || p == nil {
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
