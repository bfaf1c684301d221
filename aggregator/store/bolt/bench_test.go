package bolt

import (
	"fmt"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/aggregator/store/storetest"
	"github.com/httpctl/httpctl/pkg/bucket"
)

// wide is a bucket of 200 rows with latency sketches, as a busy host sends.
func wide(b testing.TB, host, interval int) store.Item {
	schema := bucket.Schema{Name: "routes", Version: 1, Keys: []string{"mirror", "role", "section", "status"},
		Measures: []bucket.Measure{{Name: "hits", Kind: bucket.Sum}, {Name: "bytes", Kind: bucket.Sum}, {Name: "ttfb", Kind: bucket.Latency}}}
	t := bucket.NewTable(schema, 1000)
	for i := range 1000 {
		t.Add([]string{"0", "server", fmt.Sprintf("www.example.org/section-%d", i%100), []string{"200", "404"}[i%2]},
			[]int64{1, int64(i), int64(1+i%37) * 1e5})
	}
	bk := &bucket.Bucket{Header: storetest.Header(host, interval), Tables: []*bucket.Table{t}}
	return storetest.Item(b, bk)
}

func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{1, 50} {
		b.Run(fmt.Sprintf("batch=%d", size), func(b *testing.B) {
			s := open(b, b.TempDir())
			defer s.Close()
			var pool []store.Item
			for i := range size {
				pool = append(pool, wide(b, i, 0))
			}
			n := 0
			start := time.Now()
			for b.Loop() {
				// New names for the same bytes: encoding is not what is measured.
				batch := make([]store.Item, size)
				for i := range batch {
					h := *pool[i].Header
					h.Start, h.Ordinal = storetest.At(n), uint64(n)
					h.ClosedThrough = storetest.At(n + 1)
					batch[i] = store.Item{Header: &h, Data: pool[i].Data}
				}
				n++
				if _, err := s.Append(ctx, batch); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(n*size)/time.Since(start).Seconds(), "buckets/s")
		})
	}
}

func BenchmarkQuery(b *testing.B) {
	s := open(b, b.TempDir())
	defer s.Close()
	const hosts, intervals = 10, 360
	for i := range intervals {
		var batch []store.Item
		for host := range hosts {
			batch = append(batch, wide(b, host, i))
		}
		if _, err := s.Append(ctx, batch); err != nil {
			b.Fatal(err)
		}
	}
	top := store.Plan{Table: "routes", By: []string{"section"}, Where: []store.Condition{{Column: "mirror", Values: []string{"0"}}}}
	for _, q := range []struct {
		name string
		plan store.Plan
		cold bool
	}{{"headers", store.Plan{}, true}, {"top/cold", top, true}, {"top/again", top, false}} {
		b.Run("1h/hosts=10/"+q.name, func(b *testing.B) {
			plan := q.plan
			plan.From, plan.To = storetest.At(0), storetest.At(intervals)
			for b.Loop() {
				if q.cold {
					s.sums.changeAll()
				}
				a, err := s.Query(ctx, plan)
				if err != nil || a.Slices[0].Buckets != hosts*intervals {
					b.Fatal(err, len(a.Slices))
				}
			}
		})
	}
}

// BenchmarkJudged asks as the judge does for two minutes of 20 busy hosts: of outlines, and of buckets that must be inflated. The ratio counts.
func BenchmarkJudged(b *testing.B) {
	const hosts, intervals = 20, 12
	s := open(b, b.TempDir())
	defer s.Close()
	for i := range intervals {
		var batch []store.Item
		for host := range hosts {
			bk, err := bucket.Decode(wide(b, host, i).Data)
			if err != nil {
				b.Fatal(err)
			}
			tb := bucket.NewTable(storetest.Totals(), 1000)
			for k := range 1000 {
				tb.Add([]string{"0", "server", []string{"GET", "POST"}[k%2], []string{"200", "304", "404"}[k%3]}, []int64{1, 1, storetest.At(i), int64(1+k%37) * 1e5})
			}
			bk.Tables = append(bk.Tables, tb)
			batch = append(batch, outlinedItem(b, bk))
		}
		if _, err := s.Append(ctx, batch); err != nil {
			b.Fatal(err)
		}
	}
	plan := store.Plan{Table: "totals", From: storetest.At(0), To: storetest.At(intervals), Step: intervals * storetest.Width, PerHost: true, Judged: true, By: []string{"mirror"}, Numbers: true}
	for _, forget := range []bool{false, true} {
		b.Run(map[bool]string{false: "outlines", true: "buckets"}[forget], func(b *testing.B) {
			for b.Loop() {
				if forget {
					s.outlines.forget(storetest.At(intervals))
				}
				a, err := s.Query(ctx, plan)
				if err != nil || len(a.Slices) != hosts || a.Slices[0].Table.Rows[0].Values[0] != 1000*intervals {
					b.Fatal(err, len(a.Slices))
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*hosts*intervals), "µs/bucket")
		})
	}
}

// BenchmarkRollup rolls up a minute of a host, six buckets of 200 rows with latencies, and the fleet's of 50 such.
func BenchmarkRollup(b *testing.B) {
	s := open(b, b.TempDir())
	defer s.Close()
	const hosts = 50
	n := 0
	var items []store.Item
	for host := range hosts {
		for i := range 6 {
			items = append(items, wide(b, host, i))
		}
	}
	for b.Loop() {
		b.StopTimer()
		batch := make([]store.Item, len(items))
		for i := range items { // another part of each, so that all is dirty
			bk, err := bucket.Decode(items[i].Data)
			if err != nil {
				b.Fatal(err)
			}
			bk.Start += int64(n) * 60e9
			batch[i] = storetest.Item(b, bk)
		}
		n++
		if _, err := s.Append(ctx, batch); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		done, err := s.Rollup(ctx, storetest.At(6*n))
		if err != nil || done.Rebuilt != hosts+1 {
			b.Fatal(done, err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*hosts), "µs/host")
	st := map[byte]float64{}
	count := 0.0
	if err := s.view(func(tx *bbolt.Tx) error {
		key := newStepKey(store.Minute, storetest.At(0))
		return tx.Bucket(bucketRollups).Bucket(key[:]).ForEach(func(k, v []byte) error {
			st[k[0]] += float64(len(v))
			if k[0] == entryHost {
				count++
			}
			return nil
		})
	}); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(st[entryHost]/count, "bytes/host")
	b.ReportMetric(st[entryFleet], "bytes/fleet")
}
