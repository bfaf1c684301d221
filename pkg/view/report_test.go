package view

import (
	"testing"

	"github.com/httpctl/httpctl/pkg/bucket"
)

// TestOtherAddsUpEveryMeasure shows one row of three, of a table that folded a fourth.
func TestOtherAddsUpEveryMeasure(t *testing.T) {
	table := bucket.NewTable(bucket.Schema{
		Name: "server", Version: 1, Keys: []string{"server"},
		Measures: []bucket.Measure{
			{Name: "hits", Kind: bucket.Sum}, {Name: "bytes", Kind: bucket.Sum, Unit: "By"},
			{Name: "ttfb", Kind: bucket.Latency, Unit: "ns"}, {Name: "last_seen", Kind: bucket.Max, Unit: "ns"},
		},
		Views: []bucket.View{{Name: "server", By: []string{"server"}, Hits: "hits", Show: []string{"bytes", "ttfb", "last_seen"}}},
	}, 10)
	for i, key := range []string{"a", "b", "c", "d"} {
		n := int64(i + 1)
		table.Add([]string{key}, []int64{10 * n, 100 * n, 1000 * n, n})
	}
	table.Cut(3) // folds a
	top := topOf(table, &table.Schema.Views[0], 1)
	if len(top.Rows) != 1 || top.Rows[0].Keys[0] != "d" {
		t.Fatalf("rows = %v, want d alone", top.Rows)
	}
	o := top.Other
	if o == nil {
		t.Fatal("no other row")
	}
	if o.Values[0].Number != 60 || o.Values[1].Number != 600 || o.Values[3].Number != 3 {
		t.Errorf("other = %v, want 60 hits, 600 bytes, seen at 3", o.Values)
	}
	if l := o.Values[2].Latency; l == nil || l.Count != 3 || l.Average != 2000 {
		t.Errorf("other's latency = %v, want 3 of 2000 ns on average", l)
	}
	if top := topOf(table, &table.Schema.Views[0], 3); top.Other == nil || top.Other.Values[1].Number != 100 {
		t.Errorf("other = %v, want the 100 bytes of the folded row", top.Other)
	}
}
