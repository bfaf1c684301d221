package store

import (
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/exchange"
)

// TestPartsOfHosts: parts that are split by host, put together in any way, answer as one Collector of all their buckets, and are not changed by it.
func TestPartsOfHosts(t *testing.T) {
	schema := bucket.Schema{Name: "t", Version: 1, Keys: []string{"mirror", "section"},
		Measures: []bucket.Measure{{Name: "requests", Kind: bucket.Sum}, {Name: "last", Kind: bucket.Max}, {Name: "ttfb", Kind: bucket.Latency}}}
	newer := schema
	newer.Version = 2
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 3))
		plan := Plan{Table: "t", From: 0, To: 1000, By: [][]string{{"mirror"}, nil, {}}[seed%3], PerHost: true, Numbers: seed%2 == 0}
		one, d := NewCollector(plan), &Dictionary{}
		var parts []*Part
		for p := range 6 {
			c := NewCollector(plan)
			for range rng.IntN(12) {
				b := &bucket.Bucket{}
				b.Host, b.Start, b.Width, b.Final = bucket.ID{1 + byte(rng.IntN(5))}, int64(100*p+10*rng.IntN(10)), 10, true
				b.Counters[exchange.Requests] = uint64(rng.IntN(100))
				if rng.IntN(5) > 0 {
					s := schema
					if seed%4 == 3 && rng.IntN(6) == 0 {
						s = newer
					}
					tb := bucket.NewTable(s, 3+rng.IntN(10))
					for range rng.IntN(20) {
						tb.Add([]string{fmt.Sprint(rng.IntN(2)), fmt.Sprint("s", rng.IntN(8))}, []int64{int64(rng.IntN(4)), int64(rng.IntN(1000)), int64(rng.IntN(1e6))})
					}
					b.Tables = append(b.Tables, tb)
				}
				for _, to := range []*Collector{one, c} {
					if err := to.Add(b); err != nil {
						t.Fatal(err)
					}
				}
			}
			if parts = append(parts, c.Part(d)); rng.IntN(4) == 0 { // as after the dictionary was made anew
				d = &Dictionary{}
			}
		}
		want := one.Answer().Slices
		for range 3 {
			got := NewCollector(plan)
			for at := 0; at < len(parts); {
				n := 1 + rng.IntN(len(parts)-at)
				if p := parts[at]; n == 1 {
					got.AddPart(0, p)
				} else {
					got.AddPart(0, MergeParts(d, parts[at:at+n], rng.IntN(2) == 0))
				}
				at += n
			}
			slices := got.Answer().Slices
			if len(slices) != len(want) {
				t.Fatalf("seed %d: %d hosts, want %d", seed, len(slices), len(want))
			}
			for i := range slices {
				x, y := &slices[i], &want[i]
				if x.Host != y.Host || x.Buckets != y.Buckets || x.Counters != y.Counters || !reflect.DeepEqual(x.Covered, y.Covered) || x.Skipped != y.Skipped {
					t.Fatalf("seed %d: host %v has %d buckets, %d skipped, in %v; want %v, %d, %d, %v", seed, x.Host, x.Buckets, x.Skipped, x.Covered, y.Host, y.Buckets, y.Skipped, y.Covered)
				}
				if (x.Table == nil) != (y.Table == nil) || x.Table != nil && (!reflect.DeepEqual(x.Table.Rows, y.Table.Rows) || !reflect.DeepEqual(x.Table.Other, y.Table.Other) || x.Table.Floor != y.Table.Floor || x.Table.Folded != y.Table.Folded) {
					t.Fatalf("seed %d: the table of host %v is\n%+v\nwant\n%+v", seed, x.Host, x.Table, y.Table)
				}
			}
		}
	}
}

// TestDictionary: a name has one number, whatever came before it, and its number has it.
func TestDictionary(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	var d Dictionary
	want := map[string]uint32{}
	for range 5000 {
		key := fmt.Sprint(rng.IntN(2000))[:min(rng.IntN(5), 1)] // often none
		if rng.IntN(3) > 0 {
			key = fmt.Sprint("k", rng.IntN(2000))
		}
		before := d.names()
		id := d.number(nil, []string{key})[0]
		if old, ok := want[key]; ok && old != id || !ok && int(id) != len(want) {
			t.Fatalf("%q has number %d, before %d", key, id, want[key])
		}
		want[key] = id
		if before.len() > 0 && before.at(0) != d.names().at(0) {
			t.Fatal("what was there has changed")
		}
	}
	all := d.names()
	for key, id := range want {
		if all.at(id) != key {
			t.Errorf("number %d is %q, want %q", id, all.at(id), key)
		}
	}
	if all.len() != len(want) || d.Bytes() < int64(len(all.text)) {
		t.Errorf("%d names in %d bytes, want %d", all.len(), d.Bytes(), len(want))
	}
}

// TestTopOfLargestNumbers: where numbers have come to rest at the largest, the first rows and what all others hold are as those of a table.
func TestTopOfLargestNumbers(t *testing.T) {
	schema := bucket.Schema{Name: "t", Version: 1, Keys: []string{"section"},
		Measures: []bucket.Measure{{Name: "requests", Kind: bucket.Sum}, {Name: "last", Kind: bucket.Max}, {Name: "ttfb", Kind: bucket.Latency}}}
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 5))
		plan, d := Plan{Table: "t", From: 0, To: 1000, By: []string{"section"}, Sum: true}, &Dictionary{}
		sums := [2]*Collector{NewCollector(plan), NewCollector(plan)}
		for p := range 4 {
			tb := bucket.NewTable(schema, 100)
			for range 30 {
				n, ttfb := int64(rng.IntN(50)), int64(rng.IntN(1000))
				switch rng.IntN(40) {
				case 0:
					n = math.MaxInt64 - int64(rng.IntN(3))
				case 1:
					ttfb = math.MaxInt64 - int64(rng.IntN(3))
				}
				tb.Add([]string{fmt.Sprint("s", rng.IntN(25))}, []int64{n, int64(rng.IntN(100)), ttfb})
			}
			for _, to := range sums {
				c := NewCollector(plan)
				if err := c.Add(&bucket.Bucket{Header: bucket.Header{Name: bucket.Name{Start: int64(100 * p)}, Width: 100}, Tables: []*bucket.Table{tb}}); err != nil {
					t.Fatal(err)
				}
				to.AddPart(int64(100*p), c.Part(d))
			}
		}
		by := []string{"requests", "last"}[seed%2]
		got, table := sums[0].Answer().Slices[0].Sum.Top(3, by), sums[1].Answer().Slices[0].Sum.Table(0)
		want := rank(table, 3, schema.Measure(by))
		for _, r := range [][2]*bucket.Row{{&got.Rest, &want.Rest}, {got.Total(), want.Total()}} {
			if !reflect.DeepEqual(r[0].Values, r[1].Values) || r[0].Latency[0].Count != r[1].Latency[0].Count || r[0].Latency[0].Max != r[1].Latency[0].Max || r[0].Latency[0].Min != r[1].Latency[0].Min {
				t.Fatalf("seed %d: the others are %v %+v, want %v %+v", seed, r[0].Values, r[0].Latency[0], r[1].Values, r[1].Latency[0])
			}
		}
		for i := range want.Rows {
			if !reflect.DeepEqual(got.Rows[i], want.Rows[i]) {
				t.Fatalf("seed %d: row %d is %+v, want %+v", seed, i, got.Rows[i], want.Rows[i])
			}
		}
	}
}
