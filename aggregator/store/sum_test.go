package store

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/sketch"
)

// TestSumOfParts adds up tables in one Accumulator, and in parts that are sealed: rows, errors, response times and first rows are the same.
func TestSumOfParts(t *testing.T) {
	schema := bucket.Schema{Name: "t", Version: 1, Keys: []string{"mirror", "section", "status"},
		Measures: []bucket.Measure{{Name: "hits", Kind: bucket.Sum}, {Name: "bytes", Kind: bucket.Sum}, {Name: "ttfb", Kind: bucket.Latency}, {Name: "last", Kind: bucket.Max}}}
	for _, limit := range []int{maxSumRows, 40} {
		for seed := range uint64(20) {
			rng := rand.New(rand.NewPCG(seed, 7))
			plan := Plan{Table: "t", From: 0, To: 1000, By: [][]string{nil, {"section"}, {"status", "section"}, {}}[seed%4],
				Where: []Condition{{Column: "mirror", Values: []string{"0"}}}, Sum: true}
			one, parts := NewCollector(plan), NewCollector(plan)
			dict := &Dictionary{}
			for p := range 6 {
				part := plan
				part.From, part.To = int64(100*p), int64(100*p+100)
				c := NewCollector(part)
				if p == 5 { // as one of which no sum is kept
					c = parts
				}
				for i := range 3 {
					tb := bucket.NewTable(schema, 5+rng.IntN(40))
					for range rng.IntN(60) {
						ttfb := int64(rng.ExpFloat64() * 1e6)
						if rng.IntN(9) == 0 {
							ttfb = -1
						}
						tb.Add([]string{fmt.Sprint(rng.IntN(8) / 7), fmt.Sprint("s", rng.IntN(50)), fmt.Sprint(200 + rng.IntN(2))},
							[]int64{int64(rng.IntN(3)), int64(rng.IntN(1000)), ttfb, int64(100*p + i)})
					}
					b := &bucket.Bucket{Header: bucket.Header{Name: bucket.Name{Host: bucket.ID{byte(i)}, Start: part.From + int64(10*i)}, Width: 10}, Tables: []*bucket.Table{tb}}
					for _, to := range []*Collector{one, c} {
						if err := to.Add(b); err != nil {
							t.Fatal(err)
						}
					}
				}
				if p == 5 {
					continue
				}
				sealed := c.Part(dict)
				if p%2 == 0 {
					sealed = MergeParts(dict, []*Part{sealed}, true)
				}
				if p == 3 { // as after the dictionary was made anew
					dict = &Dictionary{}
				}
				parts.AddPart(part.From, sealed)
			}
			answer := func(c *Collector) *Slice { return &c.Answer().Slices[0] }
			x, y := answer(one), answer(parts)
			x.Sum.accumulator().limit, y.Sum.accumulator().limit = limit, limit
			if x.Buckets != 18 || y.Buckets != 18 || !reflect.DeepEqual(x.Covered, y.Covered) || !reflect.DeepEqual(x.Hosts, y.Hosts) {
				t.Errorf("slices %+v and %+v, want the same 18 buckets", x, y)
			}
			more := bucket.NewTable(schema, 10)
			more.Add([]string{"1", "s1", "200"}, []int64{7, 7, 7, 7})
			more.Add([]string{"0", "new", "200"}, []int64{70, 7, 7, 7})
			for _, s := range []*Sum{x.Sum, y.Sum} {
				if err := s.Add(more, nil); err != nil {
					t.Fatal(err)
				}
			}
			want := rank(x.Sum.Table(0), 5, schema.Measure("hits"))
			got := y.Sum.Top(5, "hits")
			for _, r := range []*Ranked{want, got} {
				r.Schema = bucket.Schema{}
				for _, row := range append(r.Rows, &r.Rest, &r.Folded) {
					for i, l := range row.Latency {
						if l == nil || l.Count == 0 {
							row.Latency[i] = new(sketch.Latency)
						}
					}
				}
			}
			if limit == maxSumRows && !reflect.DeepEqual(got, want) {
				t.Fatalf("seed %d, by %q: Top of parts =\n%+v\nof one sum\n%+v", seed, plan.By, tell(got), tell(want))
			}
			if limit < maxSumRows && !reflect.DeepEqual(got.Total(), want.Total()) {
				t.Errorf("seed %d: %+v in all of a sum that is cut, want %+v", seed, got.Total(), want.Total())
			}
		}
	}
}

func tell(r *Ranked) (s string) {
	for _, row := range append(r.Rows, &r.Rest, &r.Folded) {
		s += fmt.Sprintf("%q %d err %d", row.Keys, row.Values, row.Err)
		for _, l := range row.Latency {
			s += fmt.Sprintf(" %+v", *l)
		}
		s += "\n"
	}
	return s + fmt.Sprint("floor ", r.Floor)
}

// TestCutKeepsBounds: what a cut folds is bounded by the floor, kept rows keep their errors, and no value is lost; it is that of a table.
func TestCutKeepsBounds(t *testing.T) {
	schema := bucket.Schema{Name: "t", Version: 1, Keys: []string{"section"}, Measures: []bucket.Measure{{Name: "hits", Kind: bucket.Sum}, {Name: "ttfb", Kind: bucket.Latency}}}
	truth, total := map[string]int64{}, int64(0)
	rng := rand.New(rand.NewPCG(2, 2))
	d, sum := &Dictionary{}, []*sealed(nil)
	out := func() *Accumulator {
		a := NewAccumulator(nil, nil)
		for _, s := range sum {
			a.mergeSealed(s, d)
		}
		return a
	}
	for range 5 {
		tb := bucket.NewTable(schema, 30)
		for range 300 {
			key := fmt.Sprint("s", int(rng.ExpFloat64()*15))
			tb.Add([]string{key}, []int64{1, 1000})
			truth[key]++
			total++
		}
		a := NewAccumulator(nil, nil)
		if err := a.Add(tb); err != nil {
			t.Fatal(err)
		}
		sum = append(sum, a.seal(d))
		want := out().Table(0)
		want.Cut(20)
		sum = []*sealed{addUp(sum, d.names().len())}
		sum[0].cut(20, d.names())
		got := out().Table(0)
		sortRows(want.Rows)
		if got.Max = want.Max; !reflect.DeepEqual(got.Rows, want.Rows) || !reflect.DeepEqual(got.Other, want.Other) || got.Floor != want.Floor || got.Folded != want.Folded {
			t.Errorf("cut to %d rows, floor %d, %d folded, other %v; as a table %d, %d, %d, %v", len(got.Rows), got.Floor, got.Folded, got.Other.Values, len(want.Rows), want.Floor, want.Folded, want.Other.Values)
		}
	}
	table := out().Table(0)
	seen := map[string]bool{}
	for _, r := range table.Rows {
		seen[r.Keys[0]] = true
		if n := truth[r.Keys[0]]; n < r.Values[0] || n > r.Upper() {
			t.Errorf("%s = %d to %d, in truth %d", r.Keys[0], r.Values[0], r.Upper(), n)
		}
	}
	for key, n := range truth {
		if !seen[key] && n > table.Floor {
			t.Errorf("%s has no row, floor %d, in truth %d", key, table.Floor, n)
		}
	}
	if len(table.Rows) != 20 || table.Total(0) != total {
		t.Errorf("%d rows with %d hits, want 20, %d", len(table.Rows), table.Total(0), total)
	}
}

// TestCutOfNumbers: a table with response times that an agent says is not exact is cut though none are added up.
func TestCutOfNumbers(t *testing.T) {
	schema := bucket.Schema{Name: "totals", Version: 2, Keys: []string{"mirror"},
		Measures: []bucket.Measure{{Name: "requests", Kind: bucket.Sum}, {Name: "ttfb", Kind: bucket.Latency}}}
	const rows = fleetRows + 100
	tb := bucket.NewTable(schema, rows)
	for i := range rows {
		tb.Add([]string{fmt.Sprint(i)}, []int64{2, 1000})
	}
	b := &bucket.Bucket{Header: bucket.Header{Width: 10}, Tables: []*bucket.Table{tb}}
	plan := Plan{Table: "totals", To: 10, By: []string{"mirror"}, Numbers: true}
	c, sum, d := NewCollector(plan), NewCollector(plan), &Dictionary{}
	if err := c.Add(b); err != nil {
		t.Fatal(err)
	}
	part := MergeParts(d, []*Part{c.Part(d)}, true)
	sum.AddPart(0, part)
	sum.AddPart(0, part)
	table := sum.Answer().Slices[0].Table
	if len(part.sealed.ids) != fleetRows || table.Total(0) != 2*2*rows {
		t.Errorf("%d rows are left and twice %d requests, want %d and %d", len(part.sealed.ids), table.Total(0)/2, fleetRows, 2*rows)
	}
}

// TestWholeAddsPartsUp: rows that had to be dropped when parts were added up are missed before the sum is sealed.
func TestWholeAddsPartsUp(t *testing.T) {
	schema := bucket.Schema{Name: "t", Version: 1, Keys: []string{"section"}, Measures: []bucket.Measure{{Name: "hits", Kind: bucket.Sum}}}
	for _, limit := range []int{maxSumRows, 50} {
		sum, dict := NewCollector(Plan{Table: "t", From: 0, To: 200}), &Dictionary{}
		for p := range 2 {
			part := NewCollector(Plan{Table: "t", From: int64(100 * p), To: int64(100*p + 100)})
			tb := bucket.NewTable(schema, 100)
			for i := range 100 {
				tb.Add([]string{fmt.Sprint(p, i)}, []int64{1})
			}
			if err := part.Add(&bucket.Bucket{Header: bucket.Header{Name: bucket.Name{Start: int64(100 * p)}, Width: 10}, Tables: []*bucket.Table{tb}}); err != nil {
				t.Fatal(err)
			}
			sum.AddPart(int64(100*p), part.Part(dict))
		}
		for _, s := range sum.slices {
			s.accumulator(&sum.plan).limit = limit
		}
		if got, want := sum.Whole(), limit == maxSumRows; got != want {
			t.Errorf("Whole() = %t with room for %d of 200 rows, want %t", got, limit, want)
		}
	}
}

// BenchmarkTop finds the first ten of 20,000 names in a sum and four smaller ones, as a dashboard does for each list.
func BenchmarkTop(b *testing.B) {
	schema := bucket.Schema{Name: "t", Version: 1, Keys: []string{"mirror", "client"}, Measures: []bucket.Measure{
		{Name: "requests", Kind: bucket.Sum}, {Name: "bytes", Kind: bucket.Sum}, {Name: "last", Kind: bucket.Max}}}
	rng := rand.New(rand.NewPCG(1, 2))
	plan := Plan{Table: "t", From: 0, To: 500, By: []string{"client"}, Sum: true}
	dict, parts := &Dictionary{}, []*Part(nil)
	for p := range 5 {
		c := NewCollector(plan)
		for range 1 + 3*(4-p)/4 {
			tb := bucket.NewTable(schema, 20_000)
			for range 10_000 {
				tb.Add([]string{"0", fmt.Sprint("10.0.", rng.IntN(20_000))}, []int64{1, int64(rng.IntN(10_000)), int64(p)})
			}
			if err := c.Add(&bucket.Bucket{Header: bucket.Header{Name: bucket.Name{Start: int64(100 * p)}, Width: 100}, Tables: []*bucket.Table{tb}}); err != nil {
				b.Fatal(err)
			}
		}
		parts = append(parts, c.Part(dict))
	}
	b.ReportAllocs()
	for b.Loop() {
		c := NewCollector(plan)
		for i, p := range parts {
			c.AddPart(int64(100*i), p)
		}
		if r := c.Answer().Slices[0].Sum.Top(10, "requests"); len(r.Rows) != 10 || r.Total().Values[0] == 0 {
			b.Fatalf("%d rows of %v", len(r.Rows), r.Total())
		}
	}
}
