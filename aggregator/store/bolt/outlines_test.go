package bolt

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/aggregator/store/storetest"
	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/exchange"
)

// outlinedItem is the item of a bucket as ingest hands it on.
func outlinedItem(t testing.TB, b *bucket.Bucket) store.Item {
	t.Helper()
	it := storetest.Item(t, b)
	full, err := bucket.Decode(it.Data)
	if err != nil {
		t.Fatal(err)
	}
	it.Outline = store.WholeOutlineOf(full, it.Data)
	return it
}

// randomTotals returns a table named totals: mostly as the built-in one, sometimes an odd one, or one of which there is no outline.
func randomTotals(rng *rand.Rand, odd bool) *bucket.Table {
	s := storetest.Totals()
	rows, bound, kind := rng.IntN(12), 1000, rng.IntN(12)
	if !odd && kind < 4 {
		kind = 12
	}
	switch kind {
	case 0:
		s.Version = 2
	case 1:
		s.Keys = []string{"mirror", "server", "method", "status"} // the same version with other columns
	case 2:
		s.Exact, bound = false, 3 // folds
	case 3:
		s.Keys, s.Views = []string{"mirror"}, nil
	case 4:
		rows = 300 // more mirrors than an outline has
	}
	tb := bucket.NewTable(s, bound)
	for range rows {
		mirror := "0"
		switch rng.IntN(3) {
		case 0:
			mirror = storetest.ID(rng.IntN(3 + rows)).String()
		case 1:
			mirror = []string{"0", "", "1", "a host that is none, with a name longer than an id has"}[rng.IntN(4)]
		}
		keys := []string{mirror, []string{"server", "client"}[rng.IntN(2)], []string{"GET", "POST"}[rng.IntN(2)], fmt.Sprint(200 + rng.IntN(3))}
		tb.Add(keys[:len(s.Keys)], []int64{rng.Int64N(100), rng.Int64N(100), storetest.T0 + rng.Int64N(1e9), 1 + rng.Int64N(1e9)})
	}
	return tb
}

// askedBoth returns what a store says to a plan, and what the items that are in it say when each is decoded and added up.
func askedBoth(t *testing.T, s *DB, all map[string]store.Item, p store.Plan) (got, want string) {
	t.Helper()
	sum := store.NewCollector(p)
	for _, key := range slices.Sorted(maps.Keys(all)) {
		it := all[key]
		if it.Skewed && p.Judged {
			continue
		}
		b, err := bucket.Decode(it.Data)
		if err == nil {
			err = sum.Add(b)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	answer, err := s.Query(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	return said(answer), said(sum.Answer())
}

// What is answered from outlines is what the buckets say, whatever is remembered: random buckets of ten minutes, with and without outlines,
// appended in any order, purged, reopened. Tables of several versions, and those that fold, depend on the order in which they are added, so they
// are asked for as the judge does.
func TestOutlinesAnswerAsBuckets(t *testing.T) {
	for _, odd := range []bool{false, true} {
		t.Run(fmt.Sprintf("odd=%t", odd), func(t *testing.T) { answersAsBuckets(t, odd) })
	}
}

func answersAsBuckets(t *testing.T, odd bool) {
	rng := rand.New(rand.NewPCG(21, 4))
	dir := t.TempDir()
	s := open(t, dir)
	defer func() { s.Close() }()
	const hosts, intervals = 4, 60
	all := map[string]store.Item{}
	purged, used := int64(0), uint64(0)
	for op := range 160 {
		s.outlines.most = []int64{0, 8 << 10}[op/40%2] // sometimes few are remembered
		switch r := rng.IntN(100); {
		case r < 50:
			var batch []store.Item
			for range 1 + rng.IntN(6) {
				b := &bucket.Bucket{Header: storetest.Header(1+rng.IntN(hosts), rng.IntN(intervals))}
				b.Part = uint32(rng.IntN(3))
				b.Counters[exchange.Requests] = rng.Uint64N(1000)
				if rng.IntN(8) > 0 {
					b.Tables = append(b.Tables, randomTotals(rng, odd))
				}
				it := storetest.Item(t, b)
				if rng.IntN(3) > 0 {
					it = outlinedItem(t, b)
				}
				it.Skewed = rng.IntN(10) == 0
				batch = append(batch, it)
			}
			got, err := s.Append(t.Context(), batch)
			if err != nil {
				t.Fatal(err)
			}
			for i, r := range got {
				if h := batch[i].Header; r == store.Stored {
					all[string(startKey(h.Start))+string(blobKey(&h.Name))] = batch[i]
				}
			}
		case r < 96:
			p := store.Plan{Table: "totals", Numbers: true, Judged: rng.IntN(2) == 0, PerHost: odd || rng.IntN(2) == 0, By: []string{"mirror"}[:rng.IntN(2)],
				From: max(purged, storetest.At(rng.IntN(intervals)))}
			p.To = p.From + rng.Int64N(intervals)*int64(storetest.Width)
			if odd || rng.IntN(2) == 0 {
				p.Step = time.Duration(1+rng.IntN(12)) * storetest.Width
			}
			if rng.IntN(3) == 0 {
				p.Where = []store.Condition{{Column: "mirror", Values: []string{"0", storetest.ID(1).String()}[rng.IntN(2):]}}
			}
			if rng.IntN(3) == 0 {
				p.Hosts = []bucket.ID{storetest.ID(1 + rng.IntN(hosts))}
			}
			got, want := askedBoth(t, s, all, p)
			if got != want {
				t.Fatalf("op %d: Query(%+v) =\n%s\nwant\n%s", op, p, got, want)
			}
		case r < 98:
			if purged = max(purged, storetest.At(0)); rng.IntN(2) == 0 {
				purged += 60e9
			}
			if _, err := s.Purge(t.Context(), purged); err != nil {
				t.Fatal(err)
			}
		default:
			used += s.outlines.used
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = open(t, dir)
		}
		checkOutlines(t, s)
	}
	if used += s.outlines.used; used < 300 {
		t.Errorf("%d outlines were used, want most", used)
	}
}

// said writes an answer out.
func said(a *store.Answer) string {
	var out strings.Builder
	for _, s := range a.Slices {
		fmt.Fprintln(&out, s.Start, s.End, s.Host, s.Skipped, s.Counters, s.Hosts, s.Covered, s.Unobserved, s.Buckets)
		if s.Table == nil {
			continue
		}
		t := s.Table
		fmt.Fprintln(&out, t.Schema, t.Floor, t.Folded, t.Other.Values)
		for _, r := range t.Rows {
			fmt.Fprintln(&out, r.Keys, r.Values, r.Err)
		}
	}
	return out.String() + fmt.Sprint(a.Damaged)
}

// checkOutlines compares the memory that outlines say they take with what they take, and their bound.
func checkOutlines(t *testing.T, s *DB) {
	t.Helper()
	x := &s.outlines
	bytes, schemas, tables := int64(0), map[*bucket.Schema]int{}, map[*store.Schemas]int{}
	for start, names := range x.intervals {
		if start < x.newest-outlineTime || len(names) == 0 {
			t.Fatalf("an interval of %v with %d outlines is remembered", time.Unix(0, start), len(names))
		}
		for _, o := range names {
			bytes += o.Bytes() + outlineCost
			if s := o.Schema(); s != nil {
				schemas[s]++
			}
			if s := o.Tables(); s != nil {
				tables[s]++
			}
		}
	}
	if bytes != x.bytes || len(schemas) > maxOutlineSchemas || len(x.schemas) > maxOutlineSchemas {
		t.Fatalf("outlines take %d bytes, and say %d; %d schemas, of them %d in use", bytes, x.bytes, len(x.schemas), len(schemas))
	}
	for _, s := range x.schemas {
		if s.outlines != schemas[s.value] {
			t.Fatalf("%d outlines have a schema, it is said to be of %d", schemas[s.value], s.outlines)
		}
	}
	for _, s := range x.tables {
		if s.outlines != tables[s.value] {
			t.Fatalf("%d outlines have a set of tables, it is said to be of %d", tables[s.value], s.outlines)
		}
		delete(tables, s.value)
	}
	if len(tables) > 0 || len(x.tables) > maxOutlineSchemas {
		t.Fatalf("%d sets of tables are not shared, %d are", len(tables), len(x.tables))
	}
}

// TestOutlinesOfManySchemas: whoever has a schema of his own in each bucket has few of them remembered, in an interval and over many, and others
// go on to be.
func TestOutlinesOfManySchemas(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	s.opts.Now = func() time.Time { return time.Unix(0, storetest.At(1000)) }
	made := func(host, i, part int, title string) store.Item {
		b := &bucket.Bucket{Header: storetest.Header(host, i)}
		b.Part = uint32(part)
		schema := storetest.Totals()
		schema.Views = append(slices.Clone(schema.Views), bucket.View{Name: "more", Title: title, By: schema.Keys[:1], Hits: schema.Measures[0].Name})
		b.Tables = append(b.Tables, bucket.NewTable(schema, 10))
		return outlinedItem(t, b)
	}
	for i := range 120 { // over more than what is remembered
		items := []store.Item{made(2, i, 0, "one")}
		for k := range 3 {
			items = append(items, made(1, i, k, fmt.Sprint(i, k)))
		}
		if _, err := s.Append(t.Context(), items); err != nil {
			t.Fatal(err)
		}
		checkOutlines(t, s)
	}
	n := 0
	for _, names := range s.outlines.intervals {
		for name := range names {
			if id := storetest.ID(2); bytes.HasPrefix(name[:], id[:]) {
				n++
			}
		}
	}
	if n != int(outlineTime/10e9)+1 {
		t.Errorf("%d outlines of a host that has one schema are remembered, want all of the time that there are any of", n)
	}
}

// An outline is of the bytes that are stored: where a damaged bucket is replaced by another of its name, that one's counts.
func TestOutlineOfReplaced(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	ask := func() int64 {
		t.Helper()
		a, err := s.Query(context.Background(), store.Plan{Table: "totals", From: storetest.At(0), To: storetest.At(1), Step: storetest.Width, PerHost: true, By: []string{"mirror"}, Numbers: true, Judged: true})
		if err != nil || len(a.Slices) > 1 {
			t.Fatal(err, a)
		}
		if len(a.Damaged) > 0 {
			return -1
		}
		return a.Slices[0].Table.Rows[0].Values[0]
	}
	item := func(n int64) store.Item {
		return outlinedItem(t, storetest.Bucket(storetest.Header(1, 0), func(tb *bucket.Table) uint64 {
			tb.Add([]string{"0", "server", "GET", "200"}, []int64{n, n, 1, 1})
			return uint64(n)
		}))
	}
	first, second := item(5), item(7)
	append1 := func(it store.Item, want store.Result) {
		t.Helper()
		if got, err := s.Append(context.Background(), []store.Item{it}); err != nil || got[0] != want {
			t.Fatalf("Append = %v, %v, want %v", got, err, want)
		}
	}
	append1(first, store.Stored)
	if n := ask(); n != 5 || s.outlines.used != 1 {
		t.Fatalf("%d requests, %d outlines used, want 5 of 1", n, s.outlines.used)
	}
	append1(second, store.Mismatch)
	if n := ask(); n != 5 {
		t.Fatalf("after a mismatch %d requests, want 5", n)
	}
	if err := s.db.Update(func(tx *bbolt.Tx) error {
		blobs, key := tx.Bucket(bucketIntervals).Bucket(startKey(first.Header.Start)), blobKey(&first.Header.Name)
		value := bytes.Clone(blobs.Get(key))
		value[len(value)/2] ^= 1
		return blobs.Put(key, value)
	}); err != nil {
		t.Fatal(err)
	}
	if n := ask(); n != -1 {
		t.Fatalf("a damaged bucket: %d requests, want it reported", n)
	}
	second.Outline = nil
	append1(second, store.Stored)
	if n := ask(); n != 7 {
		t.Fatalf("after it was replaced: %d requests, want 7", n)
	}
}

// What a host sends whose clock is far ahead takes no room from what is judged, neither when it comes nor when it is read.
func TestOutlinesOfFastClock(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	const ahead = 1 << 25 // intervals, ten years
	cost := int64(0)
	send := func(i int) {
		t.Helper()
		b := &bucket.Bucket{Header: storetest.Header(1, i)}
		b.Tables = append(b.Tables, bucket.NewTable(storetest.Totals(), 10))
		it := outlinedItem(t, b)
		it.Skewed = i >= ahead
		cost = it.Outline.Bytes() + outlineCost
		if _, err := s.Append(t.Context(), []store.Item{it}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 6 {
		send(ahead + i)
	}
	s.outlines.most = 3 * cost
	for i := range 2 {
		send(i)
		send(ahead + 6 + i)
	}
	p := store.Plan{Table: "totals", Numbers: true, PerHost: true, By: []string{"mirror"}, From: storetest.At(ahead), To: storetest.At(ahead + 8)}
	if a, err := s.Query(t.Context(), p); err != nil || len(a.Slices) != 1 || a.Slices[0].Buckets != 8 {
		t.Fatalf("Query = %+v, %v, want 8 buckets of one host", a, err)
	}
	checkOutlines(t, s)
	for start := range s.outlines.intervals {
		if start >= storetest.At(ahead) {
			t.Errorf("interval %d is remembered, of a clock that is ahead", start)
		}
	}
	if n := len(s.outlines.intervals); n != 2 {
		t.Errorf("%d intervals are remembered, want the two that were not ahead", n)
	}
}
