package store

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/sketch"
)

// heap is what is in use, after what is not was freed.
func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what pools held, too
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestBytes: what a sum says that it takes is what it takes, also of response times of all lengths and long names, as whoever makes
// traffic can have them; as parts, put together and packed.
func TestBytes(t *testing.T) {
	schema := bucket.Schema{Name: "t", Version: 1, Keys: []string{"section", "agent"},
		Measures: []bucket.Measure{{Name: "hits", Kind: bucket.Sum}, {Name: "last", Kind: bucket.Max}, {Name: "ttfb", Kind: bucket.Latency}}}
	for _, tt := range []struct {
		name    string
		rows    int
		bins    int // of each
		letters int // of each name
		numbers bool
		folded  int // bins of what was folded
	}{
		{"few response times", 4000, 2, 10, false, 0},
		{"all response times", 400, sketch.MaxBins, 10, false, 0},
		{"long names", 4000, 2, 1000, false, 0},
		{"folded response times", 1, 2, 10, false, sketch.MaxBins},
		{"no response times", 8000, 100, 10, true, 0},
	} {
		tb := bucket.NewTable(schema, tt.rows)
		for i := range tt.rows {
			row := &bucket.Row{Keys: []string{fmt.Sprintf("example.org/%d", i), fmt.Sprintf("%d-%s", i, strings.Repeat("x", tt.letters))}, Values: []int64{1, 2, 0}, Latency: []*sketch.Latency{{}}}
			for b := range tt.bins {
				row.Latency[0].Bins = append(row.Latency[0].Bins, sketch.Bin{Index: int32(b) - 1, Count: 1})
				row.Latency[0].Count++
			}
			tb.Rows = append(tb.Rows, row)
		}
		tb.Other.Latency = []*sketch.Latency{{}}
		for b := range tt.folded {
			l := tb.Other.Latency[0]
			l.Bins = append(l.Bins, sketch.Bin{Index: int32(b) - 1, Count: 1})
			l.Count++
		}
		b := &bucket.Bucket{Tables: []*bucket.Table{tb}}
		b.Host, b.Width, b.Final = bucket.ID{1}, 10*time.Second, true
		before := heap()
		c, d := NewCollector(Plan{Table: "t", From: 0, To: 1e12, Numbers: tt.numbers}), &Dictionary{} // which has names that c has, too
		check := func(when string, said int64) {
			t.Helper()
			if took := heap() - before; said < took*8/10 || said > took*13/10+d.Bytes() {
				t.Errorf("%s, %s: %d bytes are said, it takes %d", tt.name, when, said, took)
			}
		}
		for range 3 {
			if err := c.Add(b); err != nil {
				t.Fatal(err)
			}
		}
		check("collected", c.Bytes())
		p := c.Part(d)
		c = nil
		ranked := func() { // which makes the columns that are said
			c := NewCollector(Plan{Table: "t", From: 0, To: 1e12, Numbers: tt.numbers, Sum: true})
			c.AddPart(0, p)
			c.Answer().Slices[0].Sum.Top(10, schema.Measures[0].Name)
		}
		ranked()
		check("as a part", p.Bytes()+d.Bytes())
		more := NewCollector(Plan{Table: "t", From: 0, To: 1e12, Numbers: tt.numbers})
		if err := more.Add(b); err != nil {
			t.Fatal(err)
		}
		p = MergeParts(d, []*Part{p, more.Part(d)}, false)
		more = nil
		ranked()
		check("two parts put together", p.Bytes()+d.Bytes())
		p = MergeParts(d, []*Part{p}, true)
		ranked()
		check("packed", p.Bytes()+d.Bytes())
		runtime.KeepAlive(b)
		runtime.KeepAlive(d)
		runtime.KeepAlive(p)
	}
}

// TestBytesOfHosts: also of parts that are split by host.
func TestBytesOfHosts(t *testing.T) {
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	schema := bucket.Schema{Name: "totals", Version: 1, Keys: []string{"mirror"}, Measures: []bucket.Measure{{Name: "requests", Kind: bucket.Sum}, {Name: "bytes", Kind: bucket.Sum}, {Name: "last", Kind: bucket.Max}}}
	tb := bucket.NewTable(schema, 10)
	tb.Add([]string{"0"}, []int64{1, 2, 3})
	d := &Dictionary{}
	var parts []*Part
	before := heap()
	for p := range 3 {
		c := NewCollector(Plan{Table: "totals", From: 0, To: 1e12, PerHost: true, Numbers: true})
		for i := range 2000 {
			b := &bucket.Bucket{Tables: []*bucket.Table{tb}}
			b.Host, b.Start, b.Width, b.Final = bucket.ID{byte(i), byte(i >> 8)}, int64(10*p)*1e9, 10*time.Second, true
			if err := c.Add(b); err != nil {
				t.Fatal(err)
			}
		}
		parts = append(parts, c.Part(d))
	}
	said := func() (n int64) {
		for _, p := range parts {
			n += p.Bytes()
		}
		return n + d.Bytes()
	}
	for _, final := range []bool{false, true} {
		if took := heap() - before; said() < took*7/10 || said() > took*13/10 {
			t.Errorf("%d parts: %d bytes are said, they take %d", len(parts), said(), took)
		}
		parts = []*Part{MergeParts(d, parts, final)}
	}
	if took := heap() - before; said() < took*7/10 || said() > took*13/10 || parts[0].Buckets != 6000 {
		t.Errorf("put together: %d bytes are said, they take %d; %d buckets", said(), took, parts[0].Buckets)
	}
	runtime.KeepAlive(parts)
}
