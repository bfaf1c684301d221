package bolt

import (
	"bytes"
	"maps"
	"slices"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/aggregator/store/storetest"
	"github.com/httpctl/httpctl/pkg/bucket"
)

// totalsOf returns what each host has counted in the first hour, as a dashboard asks for it.
func totalsOf(t *testing.T, s *DB) (hosts map[bucket.ID]int64, damaged []int64) {
	t.Helper()
	a, err := s.Query(ctx, store.Plan{Table: "totals", By: []string{"mirror"}, From: storetest.At(0), To: storetest.At(360), PerHost: true, Numbers: true})
	if err != nil {
		t.Fatal(err)
	}
	hosts = map[bucket.ID]int64{}
	for i := range a.Slices {
		hosts[a.Slices[i].Host] = a.Slices[i].Table.Total(0)
	}
	return hosts, a.Damaged
}

// TestBriefs: a dashboard takes what hosts have counted from their briefs, which say the same as their roll-ups, and from those where a
// brief is damaged, missing, or not of now.
func TestBriefs(t *testing.T) {
	one, two := storetest.ID(1), storetest.ID(2)
	all := map[bucket.ID]int64{one: 12, two: 120}
	hour := newStepKey(store.Hour, storetest.At(0))
	entries := func(tx *bbolt.Tx) *bbolt.Bucket { return tx.Bucket(bucketRollups).Bucket(hour[:]) }
	without := func(tx *bbolt.Tx) error { // as a program before there were briefs has written it
		m, err := parseStepManifest(hour[:], tx.Bucket(bucketRollupManifests).Get(hour[:]))
		for _, id := range []bucket.ID{one, two} {
			m.count--
			m.xor ^= nameHash(briefEntry(id))
			if err == nil {
				err = entries(tx).Delete(briefEntry(id))
			}
		}
		if err != nil {
			return err
		}
		return tx.Bucket(bucketRollupManifests).Put(hour[:], m.value(hour[:]))
	}
	for name, test := range map[string]struct {
		change  func(tx *bbolt.Tx) error
		late    int64 // requests of host 2 that come afterwards
		damaged bool
	}{
		"sound":                       {func(*bbolt.Tx) error { return nil }, 0, false},
		"what they are of is damaged": {func(tx *bbolt.Tx) error { return flipValue(entries(tx), hostEntry(one), 40) }, 0, false},
		"a brief is damaged":          {func(tx *bbolt.Tx) error { return flipValue(entries(tx), briefEntry(one), 40) }, 0, true},
		"a brief is that of another": {func(tx *bbolt.Tx) error {
			return entries(tx).Put(briefEntry(one), bytes.Clone(entries(tx).Get(briefEntry(two))))
		}, 0, true},
		"there are none":      {without, 0, false},
		"a bucket comes late": {func(*bbolt.Tx) error { return nil }, 1000, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir)
			for i := range 12 {
				appendAll(t, s, item(t, 1, 20*i, 1), item(t, 2, 20*i, 10))
			}
			if done, err := s.Rollup(ctx, storetest.At(8640)); err != nil || done.Pending != 0 {
				t.Fatalf("Rollup = %+v, %v", done, err)
			}
			s.Close()
			raw(t, s.path, test.change)
			s = open(t, dir)
			defer s.Close()
			want := maps.Clone(all)
			if test.late > 0 {
				appendAll(t, s, item(t, 2, 5, test.late))
				want[two] += test.late
			}
			got, damaged := totalsOf(t, s)
			if !maps.Equal(got, want) || (len(damaged) > 0) != test.damaged || test.damaged && !slices.Equal(damaged, []int64{storetest.At(0)}) {
				t.Errorf("hosts have %v, damaged %v; want %v, the hour damaged: %t", got, damaged, want, test.damaged)
			}
			if test.late > 0 { // and the brief is made anew
				if done, err := s.Rollup(ctx, storetest.At(8640)); err != nil || done.Pending != 0 {
					t.Fatalf("Rollup = %+v, %v", done, err)
				}
				s.Close()
				s = open(t, dir)
				if got, damaged := totalsOf(t, s); !maps.Equal(got, want) || damaged != nil {
					t.Errorf("after a roll-up hosts have %v, damaged %v, want %v", got, damaged, want)
				}
			}
		})
	}
}
