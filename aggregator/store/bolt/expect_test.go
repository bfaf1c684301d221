package bolt

import (
	"reflect"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/aggregator/store/storetest"
)

// TestExpect: what was expected is answered of sums that are there, as it is without; and what is damaged is told.
func TestExpect(t *testing.T) {
	plans := []store.Plan{
		{Table: "totals", By: []string{"method"}, Sum: false},
		{Table: "totals", By: []string{"mirror"}, PerHost: true, Numbers: true},
		{Table: "totals", By: []string{"mirror"}, Step: storetest.Width},
		{Table: "totals", Where: []store.Condition{{Column: "status", Values: []string{"404"}}}},
	}
	for i := range plans {
		plans[i].From, plans[i].To = storetest.At(0), storetest.At(60)
	}
	dir := t.TempDir()
	s := open(t, dir)
	for i := range 40 {
		appendAll(t, s, item(t, 1, i, 1), item(t, 2, i, 10))
	}
	if _, err := s.Rollup(ctx, storetest.At(12)); err != nil { // the others' are not made yet
		t.Fatal(err)
	}
	answers := func() (out []*store.Answer, made uint64) {
		t.Helper()
		_, _, _, before := s.sums.total()
		for _, p := range plans {
			a, err := s.Query(ctx, p)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, a)
		}
		_, _, _, after := s.sums.total()
		return out, after - before
	}
	again := func() {
		t.Helper()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t, dir)
	}
	again()
	want, _ := answers()
	again()
	if err := s.Expect(ctx, plans); err != nil {
		t.Fatal(err)
	}
	got, made := answers()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("answers that were expected are %+v, want %+v", got, want)
	}
	if most := uint64(3 * (2 + 2 + 3)); made > most { // of three plans two minutes with roll-ups, two chunks, three minutes without anything
		t.Errorf("%d sums had to be made for what was expected, want at most %d", made, most)
	}
	// What comes meanwhile is in them.
	appendAll(t, s, item(t, 3, 39, 1000))
	if got, _ := answers(); got[0].Slices[0].Table.Total(0) != want[0].Slices[0].Table.Total(0)+1000 {
		t.Errorf("after another bucket %d requests, want 1000 more than %d", got[0].Slices[0].Table.Total(0), want[0].Slices[0].Table.Total(0))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	one := item(t, 1, 35, 1)
	raw(t, s.path, func(tx *bbolt.Tx) error {
		return flipValue(tx.Bucket(bucketIntervals).Bucket(startKey(storetest.At(35))), blobKey(&one.Header.Name), 30)
	})
	s = open(t, dir)
	defer s.Close()
	if err := s.Expect(ctx, plans); err != nil {
		t.Fatal(err)
	}
	got, _ = answers()
	for i, a := range got {
		if len(a.Damaged) != 1 || a.Damaged[0] != storetest.At(35) {
			t.Errorf("plan %d: damaged %v, want the interval", i, a.Damaged)
		}
	}
}
