package bolt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"strings"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/aggregator/store/storetest"
	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/exchange"
	"github.com/httpctl/httpctl/pkg/sketch"
)

// overflowing is a bucket of 2^63 responses that took the same time, of which two are more than can be counted.
func overflowing(t *testing.T, interval int, ns int64) store.Item {
	return storetest.Item(t, storetest.Bucket(storetest.Header(1, interval), func(tb *bucket.Table) uint64 {
		tb.Add([]string{"0", "server", "GET", "200"}, []int64{1, 1, storetest.At(interval), ns})
		tb.Rows[0].Latency[0] = &sketch.Latency{Count: 1 << 63, Sum: math.MaxUint64, Min: ns, Max: ns,
			Bins: []sketch.Bin{{Index: sketch.Index(ns), Count: 1 << 63}}}
		return 1
	}))
}

// crowded is a bucket of 3,000 tables of one row, 30 MB before compression, beside the usual one.
func crowded(t *testing.T, interval int) store.Item {
	b := storetest.Bucket(storetest.Header(1, interval), func(tb *bucket.Table) uint64 {
		tb.Add([]string{"0", "server", "GET", "200"}, []int64{1, 1, storetest.At(interval), 1e6})
		return 1
	})
	for i := range 3000 {
		one := bucket.NewTable(bucket.Schema{Name: fmt.Sprintf("t%d_%d", interval, i), Version: 1, Keys: []string{"k"},
			Measures: []bucket.Measure{{Name: "hits", Kind: bucket.Sum}}}, 1)
		one.Add([]string{fmt.Sprintf("%d %d %s", interval, i, strings.Repeat("x", 10_000))}, []int64{1})
		b.Tables = append(b.Tables, one)
	}
	return storetest.Item(t, b)
}

// TestNoContentStopsRollups: whatever a host's buckets add up to, its roll-ups and those of others are made, and the buckets can go.
func TestNoContentStopsRollups(t *testing.T) {
	for name, test := range map[string]struct {
		items   []store.Item
		damaged bool
	}{
		"sketches that overflow": {[]store.Item{overflowing(t, 0, 1e6), overflowing(t, 1, 5e6)}, false},
		"too many tables":        {[]store.Item{crowded(t, 0), crowded(t, 1)}, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, t.TempDir())
			defer s.Close()
			appendAll(t, s, test.items...)
			appendAll(t, s, item(t, 2, 0, 10), item(t, 2, 7, 100))
			ended := storetest.At(8640)
			if done, err := s.Rollup(ctx, ended); err != nil || done.Pending != 0 {
				t.Errorf("Rollup = %+v, %v, want nothing pending", done, err)
			}
			if n, err := s.Purge(ctx, ended); err != nil || n != 3 {
				t.Errorf("Purge = %d, %v, want 3 intervals gone", n, err)
			}
			if n, err := s.PurgeRollups(ctx, store.Minute, ended); err != nil || n != 2 {
				t.Errorf("PurgeRollups = %d, %v, want 2", n, err)
			}
			a, err := s.Query(ctx, store.Plan{To: ended, Table: "totals", PerHost: true})
			if err != nil {
				t.Fatal(err)
			}
			got := map[bucket.ID]uint64{}
			for _, sl := range a.Slices {
				got[sl.Host] = sl.Counters[exchange.Requests]
				if sl.Table == nil || sl.Skipped != 0 {
					t.Errorf("host %s: table %v, %d skipped, want it kept", sl.Host, sl.Table, sl.Skipped)
				}
			}
			if got[storetest.ID(1)] != 2 || got[storetest.ID(2)] != 110 {
				t.Errorf("requests = %v, want 2 and 110", got)
			}
			if (len(a.Damaged) > 0) != test.damaged {
				t.Errorf("Damaged = %v, want some: %t", a.Damaged, test.damaged)
			}
		})
	}
}

// TestOneBadStepStopsNoOther: a step that cannot be made is told, and those after it are made.
func TestOneBadStepStopsNoOther(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	appendAll(t, s, item(t, 1, 0, 1), item(t, 1, 7, 10))
	s.Close()
	one := item(t, 1, 0, 1)
	raw(t, s.path, func(tx *bbolt.Tx) error { // of a format that is not known yet
		key, name := startKey(storetest.At(0)), blobKey(&one.Header.Name)
		data := bytes.Clone(one.Data[:len(one.Data)-4])
		data[4] = 99
		data = binary.LittleEndian.AppendUint32(data, crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)))
		return tx.Bucket(bucketIntervals).Bucket(key).Put(name, sealedValue(crcKey(key, name), []byte{0}, data))
	})
	s = open(t, dir)
	defer s.Close()
	done, err := s.Rollup(ctx, storetest.At(12))
	if !errors.Is(err, bucket.ErrVersion) || done.Rebuilt != 2 || done.Pending != 2 {
		t.Errorf("Rollup = %+v, %v, want the error of the first minute, and the second made", done, err)
	}
}

// TestPurgeOfWhatHasNothingBelow: a manifest whose key was changed names an interval that never was. It holds up no purge.
func TestPurgeOfWhatHasNothingBelow(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	appendAll(t, s, item(t, 1, 0, 1), item(t, 1, 7, 10))
	s.Close()
	raw(t, s.path, func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketManifests)
		key, other := startKey(storetest.At(0)), startKey(storetest.At(0)&^(1<<60))
		if err := b.Put(other, b.Get(key)); err != nil {
			return err
		}
		return b.Delete(key)
	})
	s = open(t, dir)
	defer s.Close()
	for range 2 {
		if _, err := s.Purge(ctx, storetest.At(12)); err != nil {
			t.Errorf("Purge = %v", err)
		}
	}
	if st := s.Stats(); st.Intervals != 0 || st.ChecksumErrors == 0 {
		t.Errorf("after Purge: %d intervals, %d checksum errors; want none, and some", st.Intervals, st.ChecksumErrors)
	}
	if got, damaged := sum(t, s); got != 11 || damaged == nil {
		t.Errorf("%d requests, damaged %v, want 11, and the first told", got, damaged)
	}
}
