package bolt

import (
	"slices"
	"strings"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/aggregator/store/storetest"
	"github.com/httpctl/httpctl/pkg/bucket"
)

// damagedMinute is a store of two hosts with 1 and 10 requests in the first minute, whose roll-ups are
// made, and 100 of host 1 in the next; the hour is not made. Then change is made to the first minute. Where purge, the
// first minute's buckets are gone before that.
func damagedMinute(t *testing.T, purge bool, change func(tx *bbolt.Tx, minute stepKey) error) (path string) {
	t.Helper()
	s := open(t, t.TempDir())
	appendAll(t, s, item(t, 1, 0, 1), item(t, 2, 0, 10), item(t, 1, 7, 100))
	done, err := s.Rollup(ctx, storetest.At(12))
	if err != nil || done.Rebuilt != 5 {
		t.Fatalf("Rollup = %+v, %v, want two minutes made", done, err)
	}
	if purge {
		if n, err := s.Purge(ctx, storetest.At(6)); err != nil || n != 1 {
			t.Fatalf("Purge = %d, %v, want 1", n, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	raw(t, s.path, func(tx *bbolt.Tx) error { return change(tx, newStepKey(store.Minute, storetest.At(0))) })
	return s.path
}

// minuteDamages are ways to damage the first minute: whether another host's roll-up stays readable.
var minuteDamages = map[string]struct {
	change func(tx *bbolt.Tx, minute stepKey) error
	rest   uint64
}{
	"a host's entry": {func(tx *bbolt.Tx, minute stepKey) error {
		return flipValue(tx.Bucket(bucketRollups).Bucket(minute[:]), hostEntry(storetest.ID(1)), 30)
	}, 10},
	"a missing entry": {func(tx *bbolt.Tx, minute stepKey) error {
		return tx.Bucket(bucketRollups).Bucket(minute[:]).Delete(hostEntry(storetest.ID(1)))
	}, 10},
	"the manifest": {func(tx *bbolt.Tx, minute stepKey) error {
		return flipValue(tx.Bucket(bucketRollupManifests), minute[:], 9)
	}, 11},
	"all entries": {func(tx *bbolt.Tx, minute stepKey) error {
		return tx.Bucket(bucketRollups).DeleteBucket(minute[:])
	}, 0},
	"a fleet's entry": {func(tx *bbolt.Tx, minute stepKey) error {
		return flipValue(tx.Bucket(bucketRollups).Bucket(minute[:]), fleetTable("totals"), 30)
	}, 11},
}

// hourOnly has the hour made, what it is made of purged, and returns what it says, of the fleet and by host.
func hourOnly(t *testing.T, path string) (fleet uint64, damaged []int64, hosts map[bucket.ID]uint64) {
	t.Helper()
	s, err := Open(path, Options{Now: early})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	end := storetest.At(8640)
	if done, err := s.Rollup(ctx, end); err != nil || done.Pending != 0 {
		t.Errorf("Rollup = %+v, %v, want nothing pending", done, err)
	}
	if _, err := s.Purge(ctx, end); err != nil {
		t.Errorf("Purge = %v", err)
	}
	if _, err := s.PurgeRollups(ctx, store.Minute, end); err != nil {
		t.Errorf("PurgeRollups = %v", err)
	}
	fleet, damaged = sum(t, s)
	hosts = map[bucket.ID]uint64{}
	a, err := s.Query(ctx, store.Plan{To: end, PerHost: true, Table: "totals"})
	if err != nil {
		t.Fatal(err)
	}
	for _, sl := range a.Slices {
		if sl.Table != nil {
			hosts[sl.Host] += uint64(sl.Table.Rows[0].Values[0])
		}
	}
	return fleet, damaged, hosts
}

// TestDamagedMinuteIsMadeAgain: what is damaged of a minute is made again from its buckets before the hour is made of it.
func TestDamagedMinuteIsMadeAgain(t *testing.T) {
	for name, d := range minuteDamages {
		t.Run(name, func(t *testing.T) {
			fleet, damaged, hosts := hourOnly(t, damagedMinute(t, false, d.change))
			if fleet != 111 || damaged != nil || hosts[storetest.ID(1)] != 101 || hosts[storetest.ID(2)] != 10 {
				t.Errorf("the hour has %d requests, by host %v, damaged %v; want 111, 101 and 10, none", fleet, hosts, damaged)
			}
		})
	}
}

// TestDropOfDamagedMinute: what Compact drops of a minute is missing in an hour made later only if there is nothing to make it
// of, and then the hour says so.
func TestDropOfDamagedMinute(t *testing.T) {
	at := []int64{storetest.At(0)}
	for name, d := range minuteDamages {
		for _, purge := range []bool{false, true} {
			t.Run(map[bool]string{false: name, true: name + ", buckets gone"}[purge], func(t *testing.T) {
				path := damagedMinute(t, purge, d.change)
				var dropped []string
				if _, _, err := Compact(ctx, path, CompactOptions{DropDamaged: true, Dropped: func(what string) { dropped = append(dropped, what) }}); err != nil {
					t.Fatal(err)
				}
				if len(dropped) != 1 || !strings.Contains(dropped[0], "the roll-ups of the minute of 2026-01-01T00:00:00Z: ") {
					t.Errorf("dropped %q, want the minute", dropped)
				}
				if _, found := checked(t, path); found != nil {
					t.Errorf("after Compact, Check finds %v", found)
				}
				fleet, damaged, _ := hourOnly(t, path)
				want := uint64(111)
				if purge {
					want = 100 + d.rest
				}
				if fleet != want || slices.Equal(damaged, at) != (want != 111) {
					t.Errorf("the hour has %d requests, damaged %v; dropped %q; want %d, and %v if that is not all", fleet, damaged, dropped, want, at)
				}
			})
		}
	}
}
