package bolt

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"time"

	"go.etcd.io/bbolt"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/pkg/bucket"
)

// roller is the memory in which roll-ups of hosts are made, one after the other.
type roller struct {
	builder store.RollupBuilder
	decoder bucket.Decoder
}

// build makes the roll-up of a host, nil if something that it is made of is dirty. It also returns which
// of the steps below have an entry of the host that is damaged. What it returns is valid until it is called again. The caller holds rolling.
func (s *DB) build(tx *bbolt.Tx, key stepKey, host bucket.ID, damaged []int64) (made *store.Rollup, bad []int64, err error) {
	b, d := &s.roller.builder, &s.roller.decoder
	b.Reset(host, key.resolution(), key.start())
	for _, start := range damaged {
		b.Damage(start)
	}
	if key.resolution() == store.Minute {
		next := s.starts(tx, key.start(), key.end())
		for k := next(); k != nil; k = next() {
			if err := s.addRaw(tx, d, k, host, b); err != nil {
				return nil, nil, err
			}
		}
		return b.Rollup(), nil, nil
	}
	next := s.stepsOf(tx, key.resolution()-1, key.start(), key.end())
	entry := hostEntry(host)
	for child, ok := next(); ok; child, ok = next() {
		entries, err := s.entries(tx, child)
		if err != nil || entries == nil {
			continue // which is among the damaged
		}
		value := entries.Get(entry)
		if value == nil {
			continue
		}
		p, err := unsealEntry(child, entry, value)
		if err == nil && p == nil {
			return nil, bad, nil
		}
		r, err := s.addStep(d, b, child.start(), p, err)
		if err != nil {
			return nil, nil, err
		}
		if r == nil {
			bad = append(bad, child.start())
		}
	}
	return b.Rollup(), bad, nil
}

// addRaw adds the buckets that a host has in an interval.
func (s *DB) addRaw(tx *bbolt.Tx, d *bucket.Decoder, k []byte, host bucket.ID, b *store.RollupBuilder) error {
	blobs, err := s.blobs(tx, k)
	if err != nil || blobs == nil {
		return nil // which is among the damaged
	}
	start := int64(binary.BigEndian.Uint64(k))
	c := blobs.Cursor()
	for name, v := c.Seek(host[:]); bytes.HasPrefix(name, host[:]); name, v = c.Next() {
		x, _, err := decode(d, k, name, v, allTables)
		switch {
		case errors.Is(err, bucket.ErrVersion):
			return fmt.Errorf("bucket of host %s at %d: %w", host, start, err)
		case err != nil:
			s.checksumErrors.Add(1)
			b.Damage(start)
		default:
			if err := b.Add(x); err != nil {
				return err
			}
		}
	}
	return nil
}

// addStep adds a roll-up whose payload could be read or not, and returns it, nil if it is not sound. Its tables are
// valid until d is used again.
func (s *DB) addStep(d *bucket.Decoder, b *store.RollupBuilder, start int64, payload []byte, err error) (*store.Rollup, error) {
	var r *store.Rollup
	if err == nil {
		r, err = store.UnmarshalRollup(d, payload)
	}
	switch {
	case errors.Is(err, store.ErrVersion):
		return nil, err
	case err != nil:
		s.checksumErrors.Add(1)
		b.Damage(start)
		return nil, nil
	}
	return r, b.AddRollup(r)
}

// fleetSum is the roll-up of the fleet while it is made. Those of hosts are added as they are made, and need not be read again.
type fleetSum struct {
	b      *store.RollupBuilder
	briefs map[string][]byte
	added  map[bucket.ID]bool
}

func newFleetSum(key stepKey) *fleetSum {
	return &fleetSum{store.NewRollupBuilder(bucket.ID{}, key.resolution(), key.start()), map[string][]byte{}, map[bucket.ID]bool{}}
}

// add adds the roll-up of a host, as it was or will be stored.
func (f *fleetSum) add(host bucket.ID, r *store.Rollup) error {
	if err := f.b.AddRollup(r); err != nil {
		return err
	}
	return f.brief(host, r)
}

// brief makes what dashboards want of a host.
func (f *fleetSum) brief(host bucket.ID, r *store.Rollup) error {
	brief, err := r.Brief(briefTable).AppendBinary(nil)
	if err == nil && len(brief) <= maxBrief {
		f.briefs[string(briefEntry(host))] = brief
	}
	f.added[host] = true
	return err
}

// rebuildFleet makes the roll-up of the fleet from those of the hosts, if it is
// dirty and none of theirs is. What was just made of them is in sum.
func (s *DB) rebuildFleet(ctx context.Context, key stepKey, watch *rebuilding, sum *fleetSum) (bool, error) {
	d := decoders.Get().(*bucket.Decoder)
	defer decoders.Put(d)
	ready, done := true, false
	seek := []byte{entryHost}
	for first := true; ready && !done; first = false {
		begin := time.Now()
		err := s.view(func(tx *bbolt.Tx) error {
			entries, err := s.entries(tx, key)
			if err != nil || entries == nil {
				ready = false
				return nil
			}
			if first && !isDirty(entries.Get(fleetHeader)) {
				ready = false
				return nil
			}
			if first { // once, so that it is in the fleet's whichever hosts were rebuilt now
				damaged, _ := s.sources(tx, key)
				for _, start := range damaged {
					sum.b.Damage(start)
				}
			}
			read := 0
			c := entries.Cursor()
			k, v := c.Seek(seek)
			for ; k != nil && read < hostsPerView; k, v = c.Next() {
				host, ok := hostOf(k)
				if ok && sum.added[host] && !isDirty(v) {
					continue
				}
				if err := interrupted(ctx); err != nil {
					return err
				}
				p, err := unsealEntry(key, k, v)
				if err == nil && p == nil {
					ready = false
					return nil
				}
				r, err := s.addStep(d, sum.b, key.start(), p, err)
				if err == nil && ok && r != nil {
					err = sum.brief(host, r)
				}
				if err != nil {
					return err
				}
				read++
			}
			done = k == nil
			seek = bytes.Clone(k)
			return nil
		})
		if err != nil {
			return false, err
		}
		s.rest(begin)
		if s.touched(watch) { // what is made of it now would be thrown away
			return false, nil
		}
	}
	if !ready {
		return false, nil
	}
	values, err := fleetEntries(sum.b.Rollup())
	if err != nil {
		return false, err
	}
	maps.Copy(values, sum.briefs)
	made := false
	err = s.change(context.WithoutCancel(ctx), func(w *steps) error {
		if len(watch.touched) > 0 {
			return nil
		}
		st, err := w.step(key)
		if err != nil {
			return err
		}
		made = true
		return st.setFleet(values)
	})
	return made && err == nil, err
}

// touched reports whether something was appended to the step that is being rebuilt.
func (s *DB) touched(watch *rebuilding) bool {
	s.writing.Lock()
	defer s.writing.Unlock()
	return len(watch.touched) > 0
}

// fleetEntries encodes the roll-up of the fleet: a header without tables, and each
// table by itself, as a query reads one. One that cannot be encoded is left out, and the header says so.
func fleetEntries(r *store.Rollup) (map[string][]byte, error) {
	values := map[string][]byte{}
	tables := r.Tables
	var lost []string
	for i := range tables {
		one := store.Rollup{Bucket: bucket.Bucket{Header: bucket.Header{Name: r.Name, Width: r.Width, Final: true}, Tables: tables[i : i+1]}}
		v, err := one.AppendBinary(nil)
		if err != nil {
			return nil, err
		}
		if len(one.Tables) == 0 {
			lost = append(lost, tables[i].Schema.Name)
			continue
		}
		values[string(fleetTable(tables[i].Schema.Name))] = v
	}
	if lost != nil {
		r.LeaveOut(lost...)
	}
	r.Tables = nil
	v, err := r.AppendBinary(nil)
	values[string(fleetHeader)] = v
	return values, err
}

// setFleet replaces the fleet's entries.
func (st *openStep) setFleet(values map[string][]byte) error {
	var gone [][]byte
	c := st.entries.Cursor()
	for k, _ := c.First(); len(k) > 0 && k[0] == entryFleet; k, _ = c.Next() {
		if values[string(k)] == nil {
			gone = append(gone, bytes.Clone(k))
		}
	}
	for _, k := range gone {
		st.m.count--
		st.m.xor ^= nameHash(k)
		if err := st.entries.Delete(k); err != nil {
			return err
		}
	}
	for k, v := range values {
		if err := st.clean([]byte(k), v); err != nil {
			return err
		}
	}
	return nil
}
