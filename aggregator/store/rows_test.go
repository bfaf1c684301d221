package store

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/sketch"
)

// viewed is a view, and what was added up when it was made.
type viewed struct {
	sum    *sealed
	dict   *Dictionary
	tables []*bucket.Table
}

// check holds a view against its tables added up alone: rows, errors, response times and their bins.
func (v *viewed) check(t *testing.T) {
	t.Helper()
	want, got := NewAccumulator(nil, nil), NewAccumulator(nil, nil)
	for _, tb := range v.tables {
		if err := want.Add(tb); err != nil {
			t.Fatal(err)
		}
	}
	got.mergeSealed(v.sum, v.dict)
	for l, total := range v.sum.total {
		all := &sketch.Latency{}
		for i := range want.rows.len() {
			all.Merge(want.rows.latencies(i)[l])
		}
		var bins []sketch.Bin
		for i, n := range total {
			if n > 0 {
				bins = append(bins, sketch.Bin{Index: int32(i) + sketch.MinIndex, Count: n})
			}
		}
		if !reflect.DeepEqual(bins, all.Bins) {
			t.Fatalf("the bins of all rows of a view of %d tables are %v, want %v", len(v.tables), bins, all.Bins)
		}
	}
	if x, y := got.Table(0), want.Table(0); !reflect.DeepEqual(x, y) {
		t.Fatalf("a view of %d tables became %d rows of %d, want %d of %d", len(v.tables), len(x.Rows), x.Total(0), len(y.Rows), y.Total(0))
	}
}

// TestViewStays: a view is what was there when it was made, however often the sum is added to, viewed, sealed and cut afterwards.
func TestViewStays(t *testing.T) {
	schema := bucket.Schema{Name: "t", Version: 1, Keys: []string{"section"},
		Measures: []bucket.Measure{{Name: "hits", Kind: bucket.Sum}, {Name: "ttfb", Kind: bucket.Latency}, {Name: "last", Kind: bucket.Max}, {Name: "body", Kind: bucket.Latency}}}
	for seed := range uint64(5) {
		rng := rand.New(rand.NewPCG(seed, 3))
		a, d := NewAccumulator(nil, nil), &Dictionary{}
		var tables []*bucket.Table
		var views []viewed
		for range 40 {
			tb := bucket.NewTable(schema, 30)
			for range rng.IntN(40) {
				tb.Add([]string{fmt.Sprint("s", int(rng.ExpFloat64()*15))}, []int64{1, int64(rng.IntN(3)) - 1 + int64(rng.ExpFloat64()*1e6), rng.Int64N(100), int64(rng.ExpFloat64() * 1e3)})
			}
			tables = append(tables, tb)
			if err := a.Add(tb); err != nil {
				t.Fatal(err)
			}
			switch rng.IntN(4) {
			case 0:
				views = append(views, viewed{a.view(d), d, tables[:len(tables):len(tables)]})
			case 1:
				views = append(views, viewed{a.seal(d), d, tables[:len(tables):len(tables)]})
			case 2:
				if rng.IntN(5) == 0 { // as when it is made anew
					d = &Dictionary{}
				}
			}
		}
		a.cut(10)
		if err := a.Add(tables[0]); err != nil {
			t.Fatal(err)
		}
		cut := NewAccumulator(nil, nil)
		cut.mergeSealed(a.view(d), d)
		if got, want := cut.Table(0), a.Table(0); !reflect.DeepEqual(got, want) {
			t.Errorf("after a cut, a view has %d rows of %d, want %d of %d", len(got.Rows), got.Total(0), len(want.Rows), want.Total(0))
		}
		for i := range views {
			views[i].check(t)
		}
	}
}

// BenchmarkOpenSum is a minute of 100 hosts, with 200 of 3,200 names each: what a bucket costs to add, and what a question needs of it.
func BenchmarkOpenSum(b *testing.B) {
	schema := bucket.Schema{Name: "t", Version: 1, Keys: []string{"route"},
		Measures: []bucket.Measure{{Name: "hits", Kind: bucket.Sum}, {Name: "bytes", Kind: bucket.Sum}, {Name: "ttfb", Kind: bucket.Latency}}}
	rng := rand.New(rand.NewPCG(1, 1))
	tables := make([]*bucket.Table, 100)
	for i := range tables {
		tables[i] = bucket.NewTable(schema, 1000)
		for range 1000 {
			tables[i].Add([]string{fmt.Sprint("GET /section/", int(min(rng.ExpFloat64()*400, 3199)))}, []int64{1, rng.Int64N(1e5), int64(rng.ExpFloat64() * 1e7)})
		}
	}
	d := &Dictionary{}
	fill := func() *Accumulator {
		a := NewAccumulator(nil, nil)
		for _, tb := range tables {
			if err := a.Add(tb); err != nil {
				b.Fatal(err)
			}
		}
		return a
	}
	b.Run("add", func(b *testing.B) {
		for range b.N {
			fill()
		}
	})
	a := fill()
	b.Run("seal", func(b *testing.B) {
		for range b.N {
			a.seal(d)
		}
	})
	b.Run("view", func(b *testing.B) {
		for range b.N {
			a.view(d)
		}
	})
}
