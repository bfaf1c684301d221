package store

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/sketch"
)

func tableOf(name string, key string, l *sketch.Latency) *bucket.Table {
	t := bucket.NewTable(bucket.Schema{Name: name, Version: 1, Keys: []string{"k"},
		Measures: []bucket.Measure{{Name: "hits", Kind: bucket.Sum}, {Name: "time", Kind: bucket.Latency}}}, 10)
	t.Add([]string{key}, []int64{1, 5})
	if l != nil {
		t.Rows[0].Latency[0] = l
	}
	return t
}

// TestRollupLeavesOutWhatCannotBeEncoded: the rest is kept, and what is gone is told, then and in what the roll-up is added to.
func TestRollupLeavesOutWhatCannotBeEncoded(t *testing.T) {
	contradicts := &sketch.Latency{Count: 3, Min: 5, Max: 5, Sum: 15, Bins: []sketch.Bin{{Index: sketch.Index(5), Count: 1}}}
	var many []*bucket.Table
	for i := range 40 { // more than 32 MiB, and not a row to cut
		many = append(many, tableOf(fmt.Sprintf("t%04d", i), strings.Repeat("x", 1_000_000)+fmt.Sprint(i), nil))
	}
	for name, test := range map[string]struct {
		tables []*bucket.Table
		gone   string
		most   int // tables left out
	}{
		"a sketch that contradicts itself": {[]*bucket.Table{tableOf("bad", "a", contradicts), tableOf("zgood", "b", nil)}, "bad", 1},
		"many tables of one row":           {append(many, tableOf("zgood", "b", nil)), "t0010", 21},
		"one key too long":                 {[]*bucket.Table{tableOf("long", strings.Repeat("x", 33<<20), nil), tableOf("zgood", "b", nil)}, "long", 1},
	} {
		t.Run(name, func(t *testing.T) {
			b := NewRollupBuilder(bucket.ID{1}, Minute, 60e9)
			if err := b.Add(&bucket.Bucket{Header: bucket.Header{Name: bucket.Name{Host: bucket.ID{1}, Start: 70e9}, Width: 10e9}, Tables: test.tables}); err != nil {
				t.Fatal(err)
			}
			data, err := b.Rollup().AppendBinary([]byte("before"))
			if err != nil || string(data[:6]) != "before" {
				t.Fatalf("AppendBinary = %.10q, %v", data, err)
			}
			r, err := UnmarshalRollup(new(bucket.Decoder), data[6:])
			if err != nil {
				t.Fatal(err)
			}
			check := func(r *Rollup) {
				t.Helper()
				if r.Table("zgood") == nil || *r.Sum("zgood") != (TableSum{"zgood", 1, 0}) {
					t.Errorf("the sound table = %v, %v, want it kept", r.Table("zgood"), r.Sum("zgood"))
				}
				if r.Table(test.gone) != nil || r.Sum(test.gone) == nil || *r.Sum(test.gone) != (TableSum{test.gone, 0, 1}) {
					t.Errorf("%s = %v, %v, want it skipped", test.gone, r.Table(test.gone), r.Sum(test.gone))
				}
				if n := len(test.tables) - len(r.Tables); n < 1 || n > test.most {
					t.Errorf("%d tables are left out, want 1 to %d", n, test.most)
				}
				if !slices.Equal(r.Damaged, []int64{60e9}) {
					t.Errorf("Damaged = %v, want the step's start", r.Damaged)
				}
			}
			check(r)
			hour := NewRollupBuilder(bucket.ID{1}, Hour, 0)
			if err := hour.AddRollup(r); err != nil {
				t.Fatal(err)
			}
			if test.most == 1 { // of many, only some are remembered
				check(hour.Rollup())
			}
			c := NewCollector(Plan{To: 1e12, Table: test.gone})
			if err := c.AddRollup(r, nil); err != nil {
				t.Fatal(err)
			}
			a := c.Answer()
			if sl := a.Slices[0]; sl.Table != nil || sl.Skipped != 1 || len(a.Damaged) != 1 {
				t.Errorf("the answer = %v, skipped %d, damaged %v; want no table, 1, 1", sl.Table, sl.Skipped, a.Damaged)
			}
		})
	}
}

// TestRollupOfOverflowingSketches: what adds up to more than can be counted rests at the most, and is kept.
func TestRollupOfOverflowingSketches(t *testing.T) {
	b := NewRollupBuilder(bucket.ID{1}, Minute, 0)
	for i := range 3 {
		l := &sketch.Latency{Count: 1 << 63, Min: 5 << i, Max: 5 << i, Sum: math.MaxUint64, Bins: []sketch.Bin{{Index: sketch.Index(5 << i), Count: 1 << 63}}}
		if err := b.Add(&bucket.Bucket{Header: bucket.Header{Width: 10e9}, Tables: []*bucket.Table{tableOf("t", "a", l)}}); err != nil {
			t.Fatal(err)
		}
	}
	r := b.Rollup()
	if _, err := r.AppendBinary(nil); err != nil || len(r.Tables) != 1 || r.Damaged != nil {
		t.Fatalf("AppendBinary = %v, %d tables, damaged %v; want all kept", err, len(r.Tables), r.Damaged)
	}
	if got := r.Tables[0].Rows[0].Latency[0]; got.Count != math.MaxUint64 || len(got.Bins) != 3 || got.Quantile(0.01) > 6 || got.Quantile(0.99) < 19 {
		t.Errorf("the sum = %+v", got)
	}
}

// TestRollupBoundsTables: an agent that names other tables in each bucket does not make its roll-ups, and those of the fleet, grow
// with time, and puts no table out that others have. What is left out is told.
func TestRollupBoundsTables(t *testing.T) {
	made := 0
	hostile := func(b *RollupBuilder, buckets int) {
		t.Helper()
		for range buckets {
			x := bucket.Bucket{Header: bucket.Header{Name: bucket.Name{Start: 60e9}, Width: 10e9}, Tables: []*bucket.Table{tableOf("totals", "a", nil)}}
			for range 10 {
				x.Tables = append(x.Tables, tableOf(fmt.Sprintf("a%06d", made), "a", nil))
				made++
			}
			if err := b.Add(&x); err != nil {
				t.Fatal(err)
			}
		}
	}
	host := NewRollupBuilder(bucket.ID{1}, Minute, 60e9)
	hostile(host, 500)
	r := host.Rollup()
	if len(r.Tables) != 1+maxRollupTables || *r.Sum("totals") != (TableSum{"totals", 500, 0}) || !slices.Equal(r.Damaged, []int64{60e9}) {
		t.Errorf("%d tables, totals %v, damaged %v; want %d, of all 500 buckets, and the start", len(r.Tables), r.Sum("totals"), r.Damaged, 1+maxRollupTables)
	}
	left := 0
	for _, s := range r.Sums {
		left += s.Skipped
	}
	if left != maxRollupAbsent {
		t.Errorf("%d buckets are told as left out, want %d", left, maxRollupAbsent)
	}

	fleet := NewRollupBuilder(bucket.ID{}, Minute, 60e9)
	const honest = 20
	for i := range honest {
		hostile(fleet, 100)
		one := Rollup{Bucket: bucket.Bucket{Header: bucket.Header{Name: bucket.Name{Host: bucket.ID{byte(i + 1)}}}, Tables: []*bucket.Table{tableOf("theirs", "a", nil)}},
			Buckets: 6, Sums: []TableSum{{"theirs", 6, 0}}}
		if err := fleet.AddRollup(&one); err != nil {
			t.Fatal(err)
		}
	}
	r = fleet.Rollup()
	if s := r.Sum("theirs"); len(r.Tables) != 1+maxRollupTables || s == nil || *s != (TableSum{"theirs", 6 * honest, 0}) {
		t.Errorf("of the fleet: %d tables, theirs %v; want %d, of all %d buckets", len(r.Tables), s, 1+maxRollupTables, 6*honest)
	}

	// One host whose tables are in many more buckets, and come first.
	for _, name := range []string{"a", "z"} {
		fleet = NewRollupBuilder(bucket.ID{}, Minute, 60e9)
		one := Rollup{Buckets: 60 * MaxBuckets}
		for i := range maxRollupTables {
			one.Tables = append(one.Tables, tableOf(fmt.Sprintf("%s%06d", name, i), "a", nil))
			one.Sums = append(one.Sums, TableSum{one.Tables[i].Schema.Name, one.Buckets, 0})
		}
		if err := fleet.AddRollup(&one); err != nil {
			t.Fatal(err)
		}
		for range honest {
			one := Rollup{Bucket: bucket.Bucket{Tables: []*bucket.Table{tableOf("theirs", "a", nil)}}, Buckets: 6, Sums: []TableSum{{"theirs", 6, 0}}}
			if err := fleet.AddRollup(&one); err != nil {
				t.Fatal(err)
			}
		}
		if s := fleet.Rollup().Sum("theirs"); s == nil || *s != (TableSum{"theirs", 6 * honest, 0}) {
			t.Errorf("beside tables of one host, of %d buckets: theirs %v; want all %d buckets", one.Buckets, s, 6*honest)
		}
	}
}

// TestRollupBoundsRows: of all tables together; what is dropped is in other.
func TestRollupBoundsRows(t *testing.T) {
	const tables, rows, most = 6, 1000, 2500
	b := NewRollupBuilder(bucket.ID{1}, Minute, 0)
	b.most = most
	for i := range tables {
		tb := bucket.NewTable(bucket.Schema{Name: fmt.Sprintf("t%d", i), Version: 1, Keys: []string{"k"}, Measures: []bucket.Measure{{Name: "hits", Kind: bucket.Sum}}}, rows)
		for k := range rows {
			tb.Add([]string{strconv.Itoa(k)}, []int64{1})
		}
		if err := b.Add(&bucket.Bucket{Header: bucket.Header{Width: 10e9}, Tables: []*bucket.Table{tb}}); err != nil {
			t.Fatal(err)
		}
		held := 0
		for _, s := range b.tables {
			held += s.sum.rows.len()
		}
		if held != b.rows || held > most {
			t.Errorf("after %d tables %d rows are held, counted as %d; want at most %d", i+1, held, b.rows, most)
		}
	}
	for _, tb := range b.Rollup().Tables {
		sum := tb.Other.Values[0]
		for _, r := range tb.Rows {
			sum += r.Values[0]
		}
		if sum != rows || len(tb.Rows) == 0 {
			t.Errorf("%s has %d requests, %d rows, want %d and some", tb.Schema.Name, sum, len(tb.Rows), rows)
		}
	}
}

// TestRollupInMemoryThatIsUsedAgain: a builder that was reset makes the same as a new one, whatever it has added up before.
func TestRollupInMemoryThatIsUsedAgain(t *testing.T) {
	var again RollupBuilder
	for seed := range uint64(100) {
		rng := rand.New(rand.NewPCG(seed, 1))
		host := bucket.ID{byte(rng.IntN(3))} // 0 is the fleet
		build := func(b *RollupBuilder, seed uint64) []byte {
			rng := rand.New(rand.NewPCG(seed, 2))
			for i := range 1 + rng.IntN(6) {
				x := &bucket.Bucket{Header: bucket.Header{Name: bucket.Name{Host: bucket.ID{1}, Incarnation: bucket.ID{2}, Start: int64(i) * 10e9}, Width: 10 * time.Second, Final: true}}
				for _, name := range []string{"routes", "section", "mine", "domain"}[:1+rng.IntN(4)] {
					tb := bucket.NewTable(bucket.Schema{Name: name, Version: uint32(1 + rng.IntN(2)), Keys: []string{"key"}, Measures: []bucket.Measure{
						{Name: "hits", Kind: bucket.Sum}, {Name: "seen", Kind: bucket.Max}, {Name: "ttfb", Kind: bucket.Latency}}[:2+rng.IntN(2)]}, 1+rng.IntN(40)) // so that some are cut
					for range rng.IntN(2000) {
						tb.Add([]string{fmt.Sprint("k", rng.IntN(50))}, []int64{rng.Int64N(100), rng.Int64N(100), rng.Int64N(1e9)}[:len(tb.Schema.Measures)])
					}
					x.Tables = append(x.Tables, tb)
				}
				if err := b.Add(x); err != nil {
					t.Fatal(err)
				}
			}
			out, err := b.Rollup().AppendBinary(nil)
			if err != nil {
				t.Fatal(err)
			}
			return out
		}
		again.Reset(host, Minute, 0)
		got := build(&again, seed)
		if want := build(NewRollupBuilder(host, Minute, 0), seed); !bytes.Equal(got, want) {
			t.Fatalf("seed %d: %d bytes that are not the %d of a new builder", seed, len(got), len(want))
		}
	}
}

// TestRollupKeepsLittleMemory: what a host makes up, such as a key of megabytes or thousands of rows, is not kept for the next.
func TestRollupKeepsLittleMemory(t *testing.T) {
	for name, fill := range map[string]func(*bucket.Table){
		"a usual one":    func(t *bucket.Table) { t.Add([]string{"key"}, []int64{1, 1}) },
		"a long key":     func(t *bucket.Table) { t.Add([]string{strings.Repeat("k", 2<<20)}, []int64{1, 1}) },
		"many rows":      func(t *bucket.Table) { many(t, 20_000, 1) },
		"many latencies": func(t *bucket.Table) { many(t, 100, 2000) },
	} {
		tb := bucket.NewTable(bucket.Schema{Name: "section", Version: 1, Keys: []string{"k"}, Measures: []bucket.Measure{{Name: "hits", Kind: bucket.Sum}, {Name: "time", Kind: bucket.Latency}}}, 1<<20)
		fill(tb)
		b := NewRollupBuilder(bucket.ID{1}, Minute, 0)
		if err := b.Add(&bucket.Bucket{Header: bucket.Header{Name: bucket.Name{Host: bucket.ID{1}}, Width: 10 * time.Second}, Tables: []*bucket.Table{tb}}); err != nil {
			t.Fatal(err)
		}
		b.Rollup()
		b.Reset(bucket.ID{2}, Minute, 0)
		if kept, want := len(b.spares), name == "a usual one"; (kept == 1) != want {
			t.Errorf("of %s the memory of %d tables is kept", name, kept)
		}
	}
}

func many(t *bucket.Table, rows, latencies int) {
	for i := range rows {
		for l := range latencies {
			t.Add([]string{strconv.Itoa(i)}, []int64{1, int64(1) << (l % 60) * int64(64+l/60) / 64})
		}
	}
}
