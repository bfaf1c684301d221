package store

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/httpctl/httpctl/pkg/bucket"
)

// known are parts, and what was added up in them.
type known struct {
	parts  []*Part
	tables []*bucket.Table
}

// check holds parts against their tables added up alone: rows, errors, response times, what is left, and the first rows.
func (k *known) check(t *testing.T, plan Plan) {
	t.Helper()
	want := NewAccumulator(nil, nil)
	for _, tb := range k.tables {
		if err := want.Add(tb); err != nil {
			t.Fatal(err)
		}
	}
	sum := func() *Slice {
		c := NewCollector(plan)
		for _, p := range k.parts {
			c.AddPart(0, p)
		}
		return &c.Answer().Slices[0]
	}
	if s := sum(); s.Buckets != len(k.tables) || s.Counters[0] != uint64(len(k.tables)) || len(s.Hosts) != min(3, len(k.tables)) || len(s.Covered) != 1 {
		t.Fatalf("%d parts of %d buckets are of %+v", len(k.parts), len(k.tables), s)
	}
	x, y := sum().Sum.Table(0), want.Table(0)
	first := sum().Sum.Top(5, "hits")
	if !reflect.DeepEqual(x, y) {
		t.Fatalf("%d parts of %d tables became %d rows of %d, want %d of %d", len(k.parts), len(k.tables), len(x.Rows), x.Total(0), len(y.Rows), y.Total(0))
	}
	if got, want := tell(first), tell(rank(y, 5, 0)); got != want {
		t.Fatalf("the first rows of %d parts:\n%s\nwant\n%s", len(k.parts), got, want)
	}
}

// TestMergeParts: parts are what was there when they were made, however often they are put together and packed afterwards, and put together they are
// what they were one by one.
func TestMergeParts(t *testing.T) {
	schema := bucket.Schema{Name: "t", Version: 1, Keys: []string{"section"},
		Measures: []bucket.Measure{{Name: "hits", Kind: bucket.Sum}, {Name: "ttfb", Kind: bucket.Latency}, {Name: "last", Kind: bucket.Max}, {Name: "body", Kind: bucket.Latency}}}
	plan := Plan{Table: "t", From: 0, To: 1000, Sum: true}
	for seed := range uint64(10) {
		rng := rand.New(rand.NewPCG(seed, 3))
		c, d := NewCollector(plan), &Dictionary{}
		var tables []*bucket.Table
		var parts []*Part
		var all []known
		note := func() { all = append(all, known{slices.Clone(parts), slices.Clone(tables)}) }
		for i := range 40 {
			tb := bucket.NewTable(schema, 30)
			for range rng.IntN(40) {
				tb.Add([]string{fmt.Sprint("s", int(rng.ExpFloat64()*15))}, []int64{1, int64(rng.IntN(3)) - 1 + int64(rng.ExpFloat64()*1e6), rng.Int64N(100), int64(rng.ExpFloat64() * 1e3)})
			}
			tables = append(tables, tb)
			b := &bucket.Bucket{Header: bucket.Header{Name: bucket.Name{Host: bucket.ID{byte(i % 3)}, Start: int64(10 * i)}, Width: 10}, Tables: []*bucket.Table{tb}}
			b.Counters[0] = 1
			if err := c.Add(b); err != nil {
				t.Fatal(err)
			}
			if rng.IntN(2) == 0 {
				parts, c = append(parts, c.Part(d)), NewCollector(plan)
				note()
				at := rng.IntN(len(parts))
				parts = append(slices.Clone(parts[:at]), MergeParts(d, parts[at:], rng.IntN(3) == 0))
				note()
			}
			if rng.IntN(10) == 0 { // as when it is made anew
				d = &Dictionary{}
			}
		}
		for i := range all {
			all[i].check(t, plan)
		}
	}
}

// TestMergePartsOfVersions: of tables of two versions the newer is what they are put together to, and the other's buckets are counted as left out.
func TestMergePartsOfVersions(t *testing.T) {
	plan, d := Plan{Table: "t", From: 0, To: 1000}, &Dictionary{}
	var parts []*Part
	for i, version := range []int{1, 2, 1, 2} {
		tb := bucket.NewTable(bucket.Schema{Name: "t", Version: uint32(version), Keys: []string{"k"}, Measures: []bucket.Measure{{Name: "hits", Kind: bucket.Sum}}}, 10)
		tb.Add([]string{"a"}, []int64{int64(version)})
		c := NewCollector(plan)
		if err := c.Add(&bucket.Bucket{Header: bucket.Header{Name: bucket.Name{Start: int64(i)}, Width: 1}, Tables: []*bucket.Table{tb}}); err != nil {
			t.Fatal(err)
		}
		parts = append(parts, c.Part(d))
	}
	for _, final := range []bool{false, true} {
		c := NewCollector(plan)
		c.AddPart(0, MergeParts(d, parts, final))
		s := c.Answer().Slices[0]
		if s.Buckets != 4 || s.Skipped != 2 || s.Table.Schema.Version != 2 || s.Table.Total(0) != 4 {
			t.Errorf("%d buckets, %d left out, version %d with %d hits; want 4, 2, version 2 with 4", s.Buckets, s.Skipped, s.Table.Schema.Version, s.Table.Total(0))
		}
	}
}

// TestMergePartsIsBounded: more rows than a Collector keeps are not put together.
func TestMergePartsIsBounded(t *testing.T) {
	plan, d := Plan{Table: "t", From: 0, To: 1000}, &Dictionary{}
	var parts []*Part
	for i := range 2 {
		tb := bucket.NewTable(bucket.Schema{Name: "t", Version: 1, Keys: []string{"k"}, Measures: []bucket.Measure{{Name: "hits", Kind: bucket.Sum}}}, maxSumRows)
		for k := range maxSumRows/2 + 1 {
			tb.Rows = append(tb.Rows, &bucket.Row{Keys: []string{fmt.Sprint(i, k)}, Values: []int64{1}})
		}
		c := NewCollector(plan)
		if err := c.Add(&bucket.Bucket{Header: bucket.Header{Width: 1}, Tables: []*bucket.Table{tb}}); err != nil {
			t.Fatal(err)
		}
		parts = append(parts, c.Part(d))
	}
	if MergeParts(d, parts, true) != nil || MergeParts(d, parts[:1], true) == nil {
		t.Error("parts with too many rows were put together, or one with few was not")
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
	part := func(a *Accumulator) *Part { return &Part{Slice: Slice{Buckets: 1}, sealed: a.seal(d), dict: d} }
	b.Run("part", func(b *testing.B) {
		for range b.N {
			b.StopTimer()
			a := fill()
			b.StartTimer()
			part(a)
		}
	})
	var parts []*Part
	for i := range 10 {
		a := NewAccumulator(nil, nil)
		for _, tb := range tables[10*i : 10*i+10] {
			if err := a.Add(tb); err != nil {
				b.Fatal(err)
			}
		}
		parts = append(parts, part(a))
	}
	for _, final := range []bool{false, true} {
		b.Run(fmt.Sprintf("merge/final=%t", final), func(b *testing.B) {
			for range b.N {
				MergeParts(d, parts, final)
			}
		})
	}
}
