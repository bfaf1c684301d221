package bolt

import (
	"slices"
	"testing"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/aggregator/store/storetest"
	"github.com/httpctl/httpctl/pkg/bucket"
)

// TestSchemasOfFewHosts: of a fleet of few hosts the schemas are found in the newest intervals, not in all that is stored; and those of a
// host that has a bucket for each second, and more ahead of its clock, do not keep the others' from being looked at.
func TestSchemasOfFewHosts(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	add := func(items ...store.Item) {
		t.Helper()
		if _, err := s.Append(t.Context(), items); err != nil {
			t.Fatal(err)
		}
	}
	of := func(h bucket.Header, version uint32) store.Item {
		b := storetest.Bucket(h, func(tb *bucket.Table) uint64 {
			tb.Add([]string{"0", "server", "GET", "200"}, []int64{1, 1, 1, 1})
			return 1
		})
		b.Tables[0].Schema.Version = version
		return storetest.Item(t, b)
	}
	const many = 6 * store.MaxSchemaBuckets
	var items []store.Item
	for i := range many {
		items = append(items, of(storetest.Header(1, i), 1))
	}
	add(items...)
	s = reopened(t, s, dir)
	defer s.Close()
	got, looked, err := schemasOf(t, s, many)
	if err != nil || len(got) != 1 || looked > 5*store.MaxSchemaBuckets {
		t.Errorf("Schemas = %+v, %v, of %d intervals of %d; want one schema of few", got, err, looked, many)
	}
	items = nil
	for _, host := range []int{2, 3} {
		items = append(items, of(storetest.Header(host, many-1), 1))
	}
	for i := range 600 { // half of them ahead
		h := storetest.Header(4, 0)
		h.Start, h.Width = storetest.At(many)-300e9+int64(i)*1e9, 1e9
		items = append(items, of(h, 9))
	}
	add(items...)
	if got, err := s.Schemas(t.Context(), 0, storetest.At(many)+300e9); err != nil || len(got) != 1 || got[0].Version != 1 {
		t.Errorf("Schemas = %+v, %v, want the version of three hosts, not that of one", got, err)
	}
}

// reopened is a store that has looked at no interval yet.
func reopened(t *testing.T, s *DB, dir string) *DB {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return open(t, dir)
}

// schemasOf returns the schemas of the first intervals, and at how many of these the store has looked since it was opened.
func schemasOf(t *testing.T, s *DB, intervals int) (schemas []bucket.Schema, looked int, err error) {
	schemas, err = s.Schemas(t.Context(), 0, storetest.At(intervals))
	s.looked.Range(func(_, _ any) bool { looked++; return true })
	return schemas, looked, err
}

// TestSchemasOfIdleHosts: where hosts have seen nothing for hours, what there is from before is found without reading all that came since.
func TestSchemasOfIdleHosts(t *testing.T) {
	for _, tt := range []struct{ hosts, intervals, most int }{{4, 6 * store.MaxSchemaBuckets, maxPassed / 4}, {40, 100, 26}} {
		testIdleHosts(t, tt.hosts, tt.intervals, tt.most)
	}
}

func testIdleHosts(t *testing.T, idle, many, most int) {
	const busy = 12
	dir := t.TempDir()
	s := open(t, dir)
	var items []store.Item
	for i := range many {
		for host := range idle {
			b := storetest.Bucket(storetest.Header(1+host, i), nil)
			if i < busy {
				b = storetest.Bucket(b.Header, func(tb *bucket.Table) uint64 {
					tb.Add([]string{"0", "server", "GET", "200"}, []int64{1, 1, 1, 1})
					return 1
				})
			}
			items = append(items, storetest.Item(t, b))
		}
	}
	for part := range slices.Chunk(items, 1000) {
		if _, err := s.Append(t.Context(), part); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Rollup(t.Context(), storetest.At(busy)); err != nil {
		t.Fatal(err)
	}
	s = reopened(t, s, dir)
	defer s.Close()
	got, looked, err := schemasOf(t, s, many)
	if err != nil || len(got) != 1 || got[0].Name != "totals" || looked > most {
		t.Errorf("Schemas = %+v, %v, of %d intervals of %d; want one schema, of %d", got, err, looked, many, most)
	}
}
