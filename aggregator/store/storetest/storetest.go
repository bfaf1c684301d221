package storetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/exchange"
	"github.com/httpctl/httpctl/pkg/sketch"
)

// Run runs the conformance suite. open opens the store in dir, making it if it
// is not there; the suite closes it and opens it again. A store that is made
// must be made, by its own clock, before T0.
func Run(t *testing.T, open func(dir string) store.Store) {
	tests := []struct {
		name string
		f    func(t *testing.T, open func() store.Store)
	}{
		{"Append", testAppend},
		{"Parts", testParts},
		{"Expired", testExpired},
		{"Refused", testRefused},
		{"Crowded", testCrowded},
		{"Skewed", testSkewed},
		{"State", testState},
		{"Query", testQuery},
		{"Schemas", testSchemas},
		{"Hosts", testHosts},
		{"Concurrent", testConcurrent},
		{"Rollup", testRollup},
		{"RollupBounds", testRollupBounds},
		{"RollupConcurrent", testRollupConcurrent},
		{"PastHosts", testPastHosts},
		{"Random", testRandom},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			tt.f(t, func() store.Store {
				t.Helper()
				s := open(dir)
				if s == nil {
					t.Fatal("open returned nil")
				}
				return s
			})
		})
	}
}

// testCrowded: of one host and interval so many incarnations and parts are stored, in one batch or in many, and no more, also later.
func testCrowded(t *testing.T, open func() store.Store) {
	s := open()
	of := func(host, interval, n int) store.Item {
		h := Header(host, interval)
		if n%2 == 0 {
			h.Incarnation = bucket.ID{7, byte(n >> 8), byte(n)}
		} else {
			h.Part = uint32(n)
		}
		return Item(t, Bucket(h, hits(1)))
	}
	var all []store.Item
	for n := range store.MaxBuckets {
		all = append(all, of(1, 0, n))
	}
	mustAppend(t, s, store.Stored, all[:200]...)
	mustAppend(t, s, store.Stored, all[200:255]...)
	got, err := s.Append(context.Background(), []store.Item{of(1, 0, 300), of(1, 0, 301), of(1, 0, 302), of(1, 1, 0), of(2, 0, 0), of(0, 0, 0)})
	if want := []store.Result{store.Stored, store.Crowded, store.Crowded, store.Stored, store.Stored, store.Stored}; err != nil || !slices.Equal(got, want) {
		t.Errorf("after %d: Append = %v, %v, want %v: one more, and those of another interval and of other hosts", store.MaxBuckets-1, got, err, want)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open()
	defer s.Close()
	mustAppend(t, s, store.Crowded, of(1, 0, 301), of(1, 0, 303))
	mustAppend(t, s, store.Duplicate, all[:255]...)
	if got, want := requests(t, s, 0, 1), uint64(store.MaxBuckets+2); got != want {
		t.Errorf("requests = %d, want %d", got, want)
	}
}

// testSkewed: the mark of a bucket leaves it out where only what is judged is asked for, and stays
// that of the first time.
func testSkewed(t *testing.T, open func() store.Store) {
	s := open()
	defer s.Close()
	marked, plain := Item(t, Bucket(Header(1, 0), hits(1))), Item(t, Bucket(Header(2, 0), hits(10)))
	marked.Skewed = true
	mustAppend(t, s, store.Stored, marked, plain)
	marked.Skewed = false // its time has come, and it is sent again
	mustAppend(t, s, store.Duplicate, marked)
	for _, tt := range []struct {
		judged bool
		want   uint64
	}{{false, 11}, {true, 10}, {false, 11}} {
		for _, table := range []string{"", "totals"} {
			a := mustQuery(t, s, store.Plan{Table: table, From: At(0), To: At(60), Judged: tt.judged})
			if got := a.Slices[0].Counters[exchange.Requests]; got != tt.want || a.Damaged != nil {
				t.Errorf("table %q, judged %t: %d requests, damaged %v, want %d", table, tt.judged, got, a.Damaged, tt.want)
			}
		}
	}
	if a := mustQuery(t, s, store.Plan{From: At(0), To: At(1), Hosts: []bucket.ID{ID(1)}, Judged: true}); len(a.Slices) != 0 {
		t.Errorf("slices of the skewed host alone = %v, want none", a.Slices)
	}
	if hosts, err := s.Hosts(context.Background()); err != nil || len(hosts) != 2 {
		t.Errorf("Hosts = %v, %v, want both", hosts, err)
	}
}

// hits returns a bucket's content: n requests of GET 200, in totals.
func hits(n int64) func(*bucket.Table) uint64 {
	return func(t *bucket.Table) uint64 {
		t.Add([]string{"0", "server", "GET", "200"}, []int64{n, n, T0, 1e6})
		return uint64(n)
	}
}

func mustAppend(t *testing.T, s store.Store, want store.Result, items ...store.Item) {
	t.Helper()
	got, err := s.Append(context.Background(), items)
	if err != nil || len(got) != len(items) {
		t.Fatalf("Append(%d items) = %v, %v", len(items), got, err)
	}
	for i, r := range got {
		if r != want {
			t.Errorf("Append: item %d = %d, want %d", i, r, want)
		}
	}
}

func mustQuery(t *testing.T, s store.Store, p store.Plan) *store.Answer {
	t.Helper()
	a, err := s.Query(context.Background(), p)
	if err != nil {
		t.Fatalf("Query(%+v): %v", p, err)
	}
	return a
}

// requests returns the requests that the counters of [from, to) hold.
func requests(t *testing.T, s store.Store, from, to int) uint64 {
	t.Helper()
	a := mustQuery(t, s, store.Plan{From: At(from), To: At(to)})
	if len(a.Damaged) != 0 {
		t.Errorf("Query: damaged intervals %v", a.Damaged)
	}
	n := uint64(0)
	for _, sl := range a.Slices {
		n += sl.Counters[exchange.Requests]
	}
	return n
}

func testAppend(t *testing.T, open func() store.Store) {
	s := open()
	one, two := Item(t, Bucket(Header(1, 0), hits(3))), Item(t, Bucket(Header(2, 0), hits(4)))
	mustAppend(t, s, store.Stored, one, two)
	mustAppend(t, s, store.Duplicate, one, two, one)
	mustAppend(t, s, store.Mismatch, Item(t, Bucket(Header(1, 0), hits(5))))
	if got, want := requests(t, s, 0, 1), uint64(7); got != want {
		t.Errorf("requests = %d, want %d", got, want)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open()
	defer s.Close()
	mustAppend(t, s, store.Duplicate, one)
	three := Item(t, Bucket(Header(3, 0), hits(8)))
	results, err := s.Append(context.Background(), []store.Item{three, three, one})
	if want := []store.Result{store.Stored, store.Duplicate, store.Duplicate}; err != nil || !slices.Equal(results, want) {
		t.Errorf("Append of a batch that repeats itself = %v, %v, want %v", results, err, want)
	}
	if got, want := requests(t, s, 0, 1), uint64(15); got != want {
		t.Errorf("requests = %d, want %d", got, want)
	}
	if st := s.Stats(); st.Buckets != 3 || st.Intervals != 1 || st.OldestStart != At(0) || st.NewestEnd != At(1) {
		t.Errorf("Stats = %+v, want 3 buckets in 1 interval from %d to %d", st, At(0), At(1))
	}
}

// testParts: an interval is the sum of its parts and incarnations, in any order.
func testParts(t *testing.T, open func() store.Store) {
	s := open()
	defer s.Close()
	part1 := Header(1, 5)
	part1.Part, part1.Ordinal = 1, 6
	other := Header(1, 5)
	other.Incarnation, other.Ordinal = ID(77), 0
	mustAppend(t, s, store.Stored, Item(t, Bucket(part1, hits(1))))
	mustAppend(t, s, store.Stored, Item(t, Bucket(other, hits(20))))
	mustAppend(t, s, store.Stored, Item(t, Bucket(Header(1, 5), hits(300))))
	if got, want := requests(t, s, 5, 6), uint64(321); got != want {
		t.Errorf("requests = %d, want %d", got, want)
	}
}

func testExpired(t *testing.T, open func() store.Store) {
	s := open()
	ctx := context.Background()
	for i := range 10 {
		mustAppend(t, s, store.Stored, Item(t, Bucket(Header(1, i), hits(1))))
	}
	old := Header(2, 1) // a host that is heard of no more
	mustAppend(t, s, store.Stored, Item(t, Bucket(old, hits(1))))
	n, err := s.Purge(ctx, At(8)+1) // in the second minute
	if err != nil || n != 6 {
		t.Errorf("Purge = %d, %v, want 6 intervals", n, err)
	}
	late := Header(1, 5)
	late.Part, late.Ordinal = 1, 10
	mustAppend(t, s, store.Expired, Item(t, Bucket(late, hits(1))))
	mustAppend(t, s, store.Duplicate, Item(t, Bucket(Header(1, 6), hits(1))))
	if n, err := s.Purge(ctx, At(5)); err != nil || n != 0 {
		t.Errorf("Purge below the floor = %d, %v, want 0", n, err)
	}
	for range 2 {
		st := s.Stats()
		if st.Expired != 1 || st.SealedThrough != At(6) || st.Intervals != 4 || st.OldestStart != At(6) {
			t.Errorf("Stats = %+v, want 1 expired, sealed through %d, 4 intervals from %d", st, At(6), At(6))
		}
		// The purged minute is in its roll-up, and only whole.
		if got, want := requests(t, s, 0, 100), uint64(11); got != want {
			t.Errorf("requests = %d, want %d", got, want)
		}
		if got, want := requests(t, s, 1, 100), uint64(4); got != want {
			t.Errorf("requests from within the purged minute = %d, want %d", got, want)
		}
		hosts, err := s.Hosts(ctx)
		if err != nil || len(hosts) != 1 || hosts[0].ID != ID(1) {
			t.Errorf("Hosts = %v, %v, want host 1 only", hosts, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open()
	}
	s.Close()
}

// testRefused: what can never be stored is an error, and nothing of its batch
// is stored.
func testRefused(t *testing.T, open func() store.Store) {
	s := open()
	defer s.Close()
	good := Item(t, Bucket(Header(1, 0), hits(1)))
	change := func(f func(h *bucket.Header)) store.Item {
		it := good
		h := *good.Header
		f(&h)
		it.Header = &h
		return it
	}
	for name, bad := range map[string]store.Item{
		"provisional":   change(func(h *bucket.Header) { h.Final = false }),
		"no width":      change(func(h *bucket.Header) { h.Width = 0 }),
		"negative time": change(func(h *bucket.Header) { h.Start = -1 }),
		"no data":       {Header: good.Header},
		"no header":     {Data: good.Data},
	} {
		if r, err := s.Append(context.Background(), []store.Item{good, bad}); err == nil {
			t.Errorf("Append with %s = %v, want an error", name, r)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := s.Append(ctx, []store.Item{good}); !errors.Is(err, context.Canceled) {
		t.Errorf("Append with a cancelled context = %v", err)
	}
	if got := requests(t, s, 0, 10); got != 0 {
		t.Errorf("requests = %d, want 0", got)
	}
}

func testState(t *testing.T, open func() store.Store) {
	s := open()
	ctx := context.Background()
	cas := func(key string, version uint64, value []byte, want error) uint64 {
		t.Helper()
		v, err := s.CompareAndSwap(ctx, key, version, value)
		if !errors.Is(err, want) {
			t.Fatalf("CompareAndSwap(%q, %d) = %v, want %v", key, version, err, want)
		}
		return v
	}
	if v, n, err := s.Get(ctx, "a"); v != nil || n != 0 || err != nil {
		t.Errorf("Get of a missing key = %q, %d, %v", v, n, err)
	}
	v1 := cas("a", 0, []byte("one"), nil)
	cas("a", 0, []byte("no"), store.ErrConflict)
	cas("a", v1+1, []byte("no"), store.ErrConflict)
	v2 := cas("a", v1, []byte("two"), nil)
	if v1 == 0 || v2 <= v1 {
		t.Errorf("versions = %d, %d, want them to rise from above 0", v1, v2)
	}
	if cas("a", v2, nil, nil) != 0 {
		t.Error("deleting returned a version")
	}
	cas("a", 0, nil, nil) // deleting what is not there
	if v3 := cas("a", 0, []byte{}, nil); v3 <= v2 {
		t.Errorf("version after delete = %d, want above %d", v3, v2)
	}
	if v, n, err := s.Get(ctx, "a"); v == nil || len(v) != 0 || n == 0 || err != nil {
		t.Errorf("Get of an empty value = %v, %d, %v", v, n, err)
	}
	for _, key := range []string{"", strings.Repeat("k", 1025)} {
		if _, err := s.CompareAndSwap(ctx, key, 0, []byte("x")); err == nil {
			t.Errorf("CompareAndSwap with a key of %d bytes succeeded", len(key))
		}
	}
	for i := range 600 {
		cas(fmt.Sprintf("k/%03d", i), 0, []byte(fmt.Sprint(i)), nil)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open()
	defer s.Close()
	list := func(from, to string) (keys []string) {
		t.Helper()
		err := s.List(ctx, from, to, func(key string, value []byte, version uint64) error {
			if v, n, err := s.Get(ctx, key); string(v) != string(value) || n != version || err != nil {
				t.Errorf("List(%q) gives %q, %d; Get gives %q, %d, %v", key, value, version, v, n, err)
			}
			keys = append(keys, key)
			return nil
		})
		if err != nil {
			t.Errorf("List: %v", err)
		}
		if !slices.IsSorted(keys) {
			t.Errorf("List is not sorted: %q", keys)
		}
		return keys
	}
	for _, c := range []struct {
		from, to string
		want     int
	}{{"", "", 601}, {"k/", "k0", 600}, {"k/010", "k/020", 10}, {"k/599", "", 1}, {"z", "", 0}, {"b", "a", 0}} {
		if got := len(list(c.from, c.to)); got != c.want {
			t.Errorf("List(%q, %q) = %d keys, want %d", c.from, c.to, got, c.want)
		}
	}
	stop := errors.New("stop")
	if err := s.List(ctx, "", "", func(string, []byte, uint64) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("List with a failing function = %v, want its error", err)
	}
}

func testQuery(t *testing.T, open func() store.Store) {
	s := open()
	defer s.Close()
	for host := 1; host <= 2; host++ {
		for i := range 6 {
			h := Header(host, i)
			h.Unobserved = []bucket.Span{{From: At(i) - 5e9, To: At(i) + 2e9}}
			mustAppend(t, s, store.Stored, Item(t, Bucket(h, func(tb *bucket.Table) uint64 {
				tb.Add([]string{"0", "server", "GET", "200"}, []int64{10, 10, At(i), 1e6})
				tb.Add([]string{"0", "server", "GET", "503"}, []int64{2, 2, At(i), 2e6})
				tb.Add([]string{"1", "client", "POST", "201"}, []int64{1, 1, At(i), 3e6})
				return 13
			})))
		}
	}
	row := func(sl store.Slice, keys ...string) int64 {
		for _, r := range sl.Table.Rows {
			if slices.Equal(r.Keys, keys) {
				return r.Values[0]
			}
		}
		return -1
	}
	a := mustQuery(t, s, store.Plan{Table: "totals", From: At(0), To: At(6), By: []string{"method"}})
	if len(a.Slices) != 1 {
		t.Fatalf("slices = %d, want 1", len(a.Slices))
	}
	sl := a.Slices[0]
	if got, want := row(sl, "GET"), int64(144); got != want {
		t.Errorf("GET = %d, want %d", got, want)
	}
	if got, want := row(sl, "POST"), int64(12); got != want {
		t.Errorf("POST = %d, want %d", got, want)
	}
	if r := sl.Table.Rows[0]; len(r.Latency) != 1 || r.Latency[0].Count != 24 || r.Latency[0].Max != 2e6 {
		t.Errorf("latency of GET = %+v, want 24 observations up to 2 ms", r.Latency)
	}
	if want := (bucket.Span{From: At(0), To: At(6)}); len(sl.Covered) != 1 || sl.Covered[0] != want {
		t.Errorf("Covered = %v, want %v", sl.Covered, want)
	}
	if sl.Buckets != 12 || !slices.Equal(sl.Hosts, []bucket.ID{ID(1), ID(2)}) {
		t.Errorf("slice has %d buckets of %v, want 12 of hosts 1 and 2", sl.Buckets, sl.Hosts)
	}
	a = mustQuery(t, s, store.Plan{Table: "totals", From: At(0), To: At(6), By: []string{},
		Where: []store.Condition{{Column: "status", Values: []string{"5xx", "201"}}, {Column: "method", Values: []string{"G*"}}}})
	if got, want := row(a.Slices[0]), int64(24); got != want {
		t.Errorf("GET with 5xx or 201 = %d, want %d", got, want)
	}
	a = mustQuery(t, s, store.Plan{Table: "totals", From: At(1), To: At(6), Step: 2 * Width, PerHost: true, Hosts: []bucket.ID{ID(2)}})
	if len(a.Slices) != 3 {
		t.Fatalf("slices = %d, want 3 steps of one host", len(a.Slices))
	}
	for i, want := range []struct{ start, end, n int64 }{{At(1), At(3), 20}, {At(3), At(5), 20}, {At(5), At(6), 10}} {
		sl := a.Slices[i]
		if sl.Start != want.start || sl.End != want.end || sl.Host != ID(2) {
			t.Errorf("slice %d = %d to %d of %s", i, sl.Start, sl.End, sl.Host)
		}
		if got := row(sl, "0", "server", "GET", "200"); got != want.n {
			t.Errorf("slice %d: GET 200 = %d, want %d", i, got, want.n)
		}
	}
	// The declared 7 of each 10 seconds; the first 5 of the first lie before the slice.
	if got, want := a.Slices[0].Unobserved, []bucket.Span{{From: At(1), To: At(1) + 2e9}, {From: At(2) - 5e9, To: At(2) + 2e9}}; !slices.Equal(got, want) {
		t.Errorf("Unobserved = %v, want %v", got, want)
	}
	a = mustQuery(t, s, store.Plan{Table: "totals", From: At(0), To: At(6), MaxRows: 1})
	tb := a.Slices[0].Table
	if len(tb.Rows) != 1 || tb.Rows[0].Values[0] != 120 || tb.Other.Values[0] != 36 || tb.Floor != 24 {
		t.Errorf("MaxRows 1: %d rows, other %v, floor %d; want the row of 120, other 36, floor 24", len(tb.Rows), tb.Other.Values, tb.Floor)
	}
	for _, p := range []store.Plan{
		{Table: "totals", From: 0, To: At(6), By: []string{"domain"}},
		{Table: "totals", From: 0, To: At(6), Where: []store.Condition{{Column: "domain", Values: []string{"x"}}}},
	} {
		if _, err := s.Query(context.Background(), p); !errors.Is(err, store.ErrColumn) {
			t.Errorf("Query with an unknown column = %v, want ErrColumn", err)
		}
	}
	a = mustQuery(t, s, store.Plan{Table: "nothing", From: 0, To: At(6)})
	if len(a.Slices) != 1 || a.Slices[0].Table != nil || a.Slices[0].Buckets != 12 {
		t.Errorf("Query of an unknown table = %+v, want 12 buckets without table", a.Slices)
	}
	if a = mustQuery(t, s, store.Plan{From: At(6), To: At(0)}); len(a.Slices) != 0 {
		t.Errorf("Query of an empty range = %+v", a.Slices)
	}
}

// testSchemas also has two versions of one table meet.
func testSchemas(t *testing.T, open func() store.Store) {
	s := open()
	defer s.Close()
	for i := range 4 {
		b := Bucket(Header(1, i), hits(1))
		if i >= 2 {
			b.Tables[0].Schema.Version = 2
		}
		if i == 1 {
			b.Tables = append(b.Tables, bucket.NewTable(bucket.Schema{Name: "extra", Version: 1, Keys: []string{"k"},
				Measures: []bucket.Measure{{Name: "n", Kind: bucket.Sum}}}, 10))
		}
		mustAppend(t, s, store.Stored, Item(t, b))
	}
	schemas, err := s.Schemas(context.Background(), At(0), At(4))
	if err != nil || len(schemas) != 2 || schemas[0].Name != "extra" || schemas[1].Name != "totals" || schemas[1].Version != 2 {
		t.Errorf("Schemas = %+v, %v, want extra, and totals version 2", schemas, err)
	}
	if schemas, err = s.Schemas(context.Background(), At(0), At(1)); err != nil || len(schemas) != 1 || schemas[0].Version != 1 {
		t.Errorf("Schemas of the first interval = %+v, %v, want totals version 1", schemas, err)
	}
	a := mustQuery(t, s, store.Plan{Table: "totals", From: At(0), To: At(4)})
	if sl := a.Slices[0]; sl.Skipped != 2 || sl.Table.Schema.Version != 2 || sl.Table.Rows[0].Values[0] != 2 {
		t.Errorf("two versions: skipped %d, version %d; want 2 skipped, version 2", sl.Skipped, sl.Table.Schema.Version)
	}
}

func testHosts(t *testing.T, open func() store.Store) {
	s := open()
	host := func() store.Host {
		t.Helper()
		hosts, err := s.Hosts(context.Background())
		if err != nil || len(hosts) != 1 {
			t.Fatalf("Hosts = %v, %v, want one", hosts, err)
		}
		return hosts[0]
	}
	put := func(h bucket.Header) { t.Helper(); mustAppend(t, s, store.Stored, Item(t, Bucket(h, nil))) }
	covered := func(what string, want int64) {
		t.Helper()
		if got := host().CoveredThrough; got != want {
			t.Errorf("%s: CoveredThrough = %d, want %d", what, got, want)
		}
	}
	put(Header(1, 1))
	covered("ordinal 0 missing", 0)
	put(Header(1, 0))
	covered("0 and 1", At(2))
	put(Header(1, 4))
	put(Header(1, 3))
	covered("2 missing", At(2))
	s.Close()
	s = open()
	put(Header(1, 2))
	covered("hole filled", At(5))

	next := Header(1, 7)
	next.Incarnation, next.Ordinal, next.ObservedFrom, next.Open, next.HostName = ID(9), 0, At(6)+1, 5, "renamed"
	put(next)
	covered("new incarnation", At(8))
	late := Header(1, 5)
	late.Open = 99
	put(late)
	h := host()
	if h.Incarnation != ID(9) || h.LastOpen != 5 || h.Name != "renamed" || h.CoveredThrough != At(8) {
		t.Errorf("after a late bucket of the older incarnation: %+v", h)
	}
	if h.FirstStart != At(0) || h.LastEnd != At(8) {
		t.Errorf("host from %d to %d, want %d to %d", h.FirstStart, h.LastEnd, At(0), At(8))
	}
	// The spool was full: ordinals 1 and 2 never come, and bucket 4 says so.
	for i, o := range []int{10, 11} {
		b := next
		b.Start, b.Ordinal, b.ClosedThrough = At(o), uint64(3+i), At(o+1)
		if i == 1 {
			b.Unobserved = []bucket.Span{{From: At(8), To: At(10)}}
		}
		put(b)
		covered("dropped by a full spool", []int64{At(8), At(12)}[i])
	}
	s.Close()
}

// testConcurrent has readers and writers at once.
func testConcurrent(t *testing.T, open func() store.Store) {
	s := open()
	defer s.Close()
	const intervals = 20
	var wg sync.WaitGroup
	for host := 1; host <= 4; host++ {
		wg.Go(func() {
			for i := range intervals {
				items := []store.Item{Item(t, Bucket(Header(host, i), hits(1)))}
				if _, err := s.Append(context.Background(), items); err != nil {
					t.Errorf("Append: %v", err)
				}
				a, err := s.Query(context.Background(), store.Plan{From: At(0), To: At(intervals), Hosts: []bucket.ID{ID(host)}})
				if err != nil || len(a.Damaged) > 0 || len(a.Slices) != 1 || a.Slices[0].Buckets != i+1 {
					t.Errorf("own appends are not seen: %+v, %v, want %d buckets", a, err, i+1)
				}
			}
		})
	}
	wins := make([]int, 4)
	for w := range wins {
		wg.Go(func() {
			for wins[w] < 10 {
				_, v, err := s.Get(context.Background(), "shared")
				if err != nil {
					t.Errorf("Get: %v", err)
					return
				}
				_, err = s.CompareAndSwap(context.Background(), "shared", v, fmt.Append(nil, w))
				if err == nil {
					wins[w]++
				} else if !errors.Is(err, store.ErrConflict) {
					t.Errorf("CompareAndSwap: %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
	if got, want := requests(t, s, 0, intervals), uint64(4*intervals); got != want {
		t.Errorf("requests = %d, want %d", got, want)
	}
	if _, v, _ := s.Get(context.Background(), "shared"); v != 40 {
		t.Errorf("version = %d, want 40 for 40 swaps", v)
	}
}

// testRandom replays random operations against the model, over three days: appends,
// late parts, duplicates, roll-ups, purges of every resolution, and restarts between them.
func testRandom(t *testing.T, open func() store.Store) {
	rng := rand.New(rand.NewPCG(7, 7))
	more := rand.New(rand.NewPCG(8, 8))
	s, m := open(), newModel()
	const hosts, days = 4, 3
	ctx := context.Background()
	// Some minutes of some hours, so that they meet.
	interval := func() int {
		hour := [...]int{0, 1, 2, 23}[rng.IntN(4)]
		return rng.IntN(days)*8640 + hour*360 + [...]int{0, 1, 30, 59}[rng.IntN(4)]*6 + rng.IntN(6)
	}
	random := func() store.Item {
		host, i := 1+rng.IntN(hosts), interval()
		h := Header(host, i)
		if rng.IntN(10) == 0 {
			h.Part, h.Ordinal = 1, uint64(days*8640+i)
		}
		n := int64(1 + (host*31+i*7)%50) // the same name mostly has the same bytes
		if rng.IntN(20) == 0 {
			n++
		}
		return Item(t, Bucket(h, func(tb *bucket.Table) uint64 {
			for k := range n % 5 {
				tb.Add([]string{fmt.Sprint(k % 2), "server", []string{"GET", "POST"}[k%2], fmt.Sprint(200 + 100*k)}, []int64{n + k, n, At(i) + k, n})
			}
			return uint64(n)
		}))
	}
	// What may be gone rises with time, so that most of what is appended is not expired.
	some := func(op int) int64 { return At(rng.IntN(1 + op*days*8640/1200)) }
	for op := range 800 {
		switch r := rng.IntN(100); {
		case r < 40:
			var batch []store.Item
			var want []store.Result
			for range 1 + rng.IntN(8) {
				it := random()
				batch = append(batch, it)
				want = append(want, m.append(it))
			}
			if got, err := s.Append(ctx, batch); err != nil || !slices.Equal(got, want) {
				t.Fatalf("op %d: Append = %v, %v, want %v", op, got, err, want)
			}
		case r < 80:
			p := store.Plan{Table: "totals", From: At(interval()), PerHost: rng.IntN(2) == 0, Judged: rng.IntN(8) == 0}
			p.From -= p.From % []int64{1, 60e9, 3600e9, 86400e9}[rng.IntN(4)]
			p.To = p.From + int64(rng.IntN(2*8640))*int64(Width)
			if rng.IntN(2) == 0 { // all of it, as a dashboard asks again and again
				p.From, p.To = At(-7), At(2*days*8640)
			} else if rng.IntN(2) == 0 {
				p.Step = time.Duration(1+rng.IntN(5)) * [...]time.Duration{100 * Width, time.Hour, 24 * time.Hour}[rng.IntN(3)]
			}
			if rng.IntN(2) == 0 {
				p.Hosts = []bucket.ID{ID(1 + rng.IntN(hosts)), ID(1 + rng.IntN(hosts))}
			}
			if rng.IntN(2) == 0 {
				p.Where = []store.Condition{{Column: "mirror", Values: []string{"0"}}}
			}
			if rng.IntN(2) == 0 {
				p.By = []string{"status", "method"}[:rng.IntN(3)]
			}
			if rng.IntN(8) == 0 {
				p.Table, p.Where, p.By = "", nil, nil
			}
			if more.IntN(4) == 0 { // as the rates of a dashboard
				p.From -= p.From % 60e9
				p.To, p.Step, p.PerHost = p.From+int64(1+more.IntN(40))*int64(Width), []time.Duration{Width, 3 * Width}[more.IntN(2)], false
			}
			answer := mustQuery(t, s, p)
			compare(t, op, p, answer, m.query(p))
			answer = mustQuery(t, s, p) // of what was kept
			p.Numbers = true            // the same but for response times, which may be left out
			compare(t, op, p, mustQuery(t, s, p), m.query(p))
			p.Numbers, p.Sum = false, true
			compareSums(t, op, p, mustQuery(t, s, p), mustQuery(t, s, p), answer)
		case r < 88:
			if _, err := s.Rollup(ctx, At(rng.IntN(days*8640))); err != nil {
				t.Fatalf("op %d: Rollup: %v", op, err)
			}
		case r < 93:
			at := some(op)
			if n, err := s.Purge(ctx, at); err != nil || n != m.purge(0, at) {
				t.Fatalf("op %d: Purge(%d) = %d, %v", op, at, n, err)
			}
		case r < 97:
			at, r := some(op), store.Minute+store.Resolution(rng.IntN(3))
			if r == store.Day { // only at the end, or little is left to ask about
				at = At(0)
			}
			n, err := s.PurgeRollups(ctx, r, at)
			if want := m.purge(int(r), at); err != nil || n != want {
				t.Fatalf("op %d: PurgeRollups(%s, %d) = %d, %v, want %d", op, r, at, n, err, want)
			}
		default:
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = open()
		}
	}
	defer s.Close()
	st := s.Stats()
	if st.Buckets != m.raw() || st.Expired != m.expired || st.SealedThrough != m.floors[0] || st.ChecksumErrors != 0 {
		t.Errorf("Stats = %+v, want %d buckets, %d expired, sealed %d", st, m.raw(), m.expired, m.floors[0])
	}
	now, err := s.Hosts(ctx)
	past, perr := s.PastHosts(ctx)
	wantNow, wantPast := m.hosts()
	if err != nil || perr != nil || len(now) != wantNow || len(past) != wantPast {
		t.Errorf("Hosts = %d, %v, PastHosts = %d, %v, want %d and %d", len(now), err, len(past), perr, wantNow, wantPast)
	}
	// All raw buckets go, then all but days.
	end := At(days * 8640)
	for r := range 3 {
		var n int
		if r == 0 {
			n, err = s.Purge(ctx, end)
		} else {
			n, err = s.PurgeRollups(ctx, store.Resolution(r), end)
		}
		if want := m.purge(r, end); err != nil || n != want {
			t.Errorf("the last purge of resolution %d = %d, %v, want %d", r, n, err, want)
		}
		p := store.Plan{Table: "totals", From: At(0), To: end, Step: 24 * time.Hour}
		compare(t, -r, p, mustQuery(t, s, p), m.query(p))
	}
	if n, err := s.PurgeRollups(ctx, store.Day, end); err != nil || n != m.purge(3, end) {
		t.Errorf("PurgeRollups of all days = %d, %v", n, err)
	}
	if st := s.Stats(); st.Rollups != [store.Day + 1]int{} || st.Dirty != 0 || st.Buckets != 0 {
		t.Errorf("Stats of an empty store = %+v", st)
	}
}

// testRollup: roll-ups answer as the buckets they sum up, also for what comes after
// they were made, and when the buckets are gone.
func testRollup(t *testing.T, open func() store.Store) {
	s := open()
	ctx := context.Background()
	const hosts, intervals = 3, 2 * 360 // two hours
	for i := range intervals {
		var batch []store.Item
		for host := 1; host <= hosts; host++ {
			h := Header(host, i)
			h.Unobserved = []bucket.Span{{From: At(i), To: At(i) + 1e9}}
			batch = append(batch, Item(t, Bucket(h, hits(int64(host)))))
		}
		mustAppend(t, s, store.Stored, batch...)
	}
	ask := func(what string, more uint64) {
		t.Helper()
		for _, p := range []store.Plan{
			{Table: "totals", From: At(0), To: At(intervals)},
			{Table: "totals", From: At(0), To: At(intervals), Hosts: []bucket.ID{ID(1), ID(2), ID(3)}},
			{Table: "totals", From: At(0), To: At(intervals), PerHost: true},
			{Table: "totals", From: At(0), To: At(intervals), Step: time.Hour},
		} {
			n, hits := uint64(0), int64(0)
			for _, sl := range mustQuery(t, s, p).Slices {
				n += sl.Counters[exchange.Requests]
				hits += sl.Table.Total(0)
				if len(sl.Covered) != 1 || sl.Covered[0] != (bucket.Span{From: sl.Start, To: sl.End}) {
					t.Errorf("%s: Covered = %v, want all of the slice", what, sl.Covered)
				}
				if got := len(sl.Unobserved); got != int(sl.End-sl.Start)/int(Width) {
					t.Errorf("%s: %d spans unobserved, want one in each interval", what, got)
				}
			}
			if want := uint64(intervals*6) + more; n != want || uint64(hits) != want {
				t.Errorf("%s: Query(%+v) = %d requests, %d in the table, want %d", what, p, n, hits, want)
			}
		}
	}
	ask("raw", 0)
	if st := s.Stats(); st.Dirty == 0 {
		t.Error("Dirty = 0 after appends")
	}
	done, err := s.Rollup(ctx, At(intervals))
	// Of each host and the fleet: 120 minutes and 2 hours; the day has not ended.
	if want := (hosts + 1) * 122; err != nil || done.Rebuilt != want || done.Pending != 0 {
		t.Errorf("Rollup = %+v, %v, want %d rebuilt", done, err, want)
	}
	if st := s.Stats(); st.Dirty != hosts+1 || st.Rollups != [...]int{0, 120, 2, 1} {
		t.Errorf("Stats = %+v, want the roll-ups of a day dirty, 120 minutes, 2 hours, 1 day", st)
	}
	ask("rolled up", 0)
	late := Header(2, 100)
	late.Part, late.Ordinal = 1, intervals
	late.Unobserved = []bucket.Span{{From: At(100), To: At(100) + 1e9}}
	mustAppend(t, s, store.Stored, Item(t, Bucket(late, hits(1000))))
	ask("late", 1000)
	if done, err = s.Rollup(ctx, At(intervals)); err != nil || done.Rebuilt != 4 { // minute and hour, of host and fleet
		t.Errorf("Rollup after a late part = %+v, %v, want 4 rebuilt", done, err)
	}
	ask("rolled up again", 1000)
	if done, err = s.Rollup(ctx, At(intervals)); err != nil || done.Rebuilt != 0 {
		t.Errorf("Rollup with nothing to do = %+v, %v", done, err)
	}
	if n, err := s.Purge(ctx, At(intervals)); err != nil || n != intervals {
		t.Errorf("Purge = %d, %v, want %d", n, err, intervals)
	}
	ask("without raw buckets", 1000)
	s.Close()
	s = open()
	ask("opened again", 1000)
	schemas, err := s.Schemas(ctx, At(0), At(intervals))
	if err != nil || len(schemas) != 1 || len(schemas[0].Views) != 2 {
		t.Errorf("Schemas without raw buckets = %+v, %v, want totals with its views", schemas, err)
	}
	// A purge does not wait for a Rollup: it rolls up itself.
	for host := 1; host <= hosts; host++ {
		mustAppend(t, s, store.Stored, Item(t, Bucket(Header(host, intervals), hits(1))))
	}
	if _, err := s.Purge(ctx, At(intervals+6)); err != nil {
		t.Error(err)
	}
	if n, err := s.PurgeRollups(ctx, store.Minute, At(3*360)); err != nil || n != 120 {
		t.Errorf("PurgeRollups of minutes = %d, %v, want the 120 of whole hours that are sealed", n, err)
	}
	ask("of hours only", 1000)
	if n := mustQuery(t, s, store.Plan{From: At(0), To: At(intervals), Judged: true}).Slices; len(n) != 0 {
		t.Errorf("what is to be judged comes from roll-ups: %+v", n)
	}
	s.Close()
}

// testRollupBounds: what roll-ups of tables that are not exact say is true.
func testRollupBounds(t *testing.T, open func() store.Store) {
	s := open()
	defer s.Close()
	ctx := context.Background()
	rng := rand.New(rand.NewPCG(3, 3))
	schema := bucket.Schema{Name: "section", Version: 1, Keys: []string{"mirror", "section"},
		Measures: []bucket.Measure{{Name: "hits", Kind: bucket.Sum}, {Name: "bytes", Kind: bucket.Sum}}}
	const hosts, intervals, perTable = 3, 720, 10
	truth, perHost := map[string]int64{}, map[bucket.ID]map[string]int64{}
	total := int64(0)
	for i := range intervals {
		var batch []store.Item
		for host := 1; host <= hosts; host++ {
			b := Bucket(Header(host, i), nil)
			tb := bucket.NewTable(schema, perTable)
			if perHost[ID(host)] == nil {
				perHost[ID(host)] = map[string]int64{}
			}
			for range 40 {
				// A few large keys, and many that come once.
				key := fmt.Sprint("s", rng.IntN(1+rng.IntN(1+rng.IntN(1000))))
				n := int64(1 + rng.IntN(3))
				tb.Add([]string{"0", key}, []int64{n, 10 * n})
				truth[key] += n
				perHost[ID(host)][key] += n
				total += n
			}
			b.Tables = append(b.Tables, tb)
			batch = append(batch, Item(t, b))
		}
		mustAppend(t, s, store.Stored, batch...)
	}
	holds := func(what string, sl *store.Slice, truth map[string]int64) {
		t.Helper()
		seen, sum := map[string]bool{}, int64(0)
		for _, r := range sl.Table.Rows {
			key := r.Keys[len(r.Keys)-1]
			seen[key] = true
			sum += r.Values[0]
			if n := truth[key]; n < r.Values[0] || n > r.Values[0]+r.Err {
				t.Errorf("%s: %s = %d to %d, in truth %d", what, key, r.Values[0], r.Values[0]+r.Err, n)
			}
		}
		all := int64(0)
		for key, n := range truth {
			all += n
			if !seen[key] && n > sl.Table.Floor {
				t.Errorf("%s: %s has no row, floor %d, in truth %d", what, key, sl.Table.Floor, n)
			}
		}
		if got := sum + sl.Table.Other.Values[0]; got != all {
			t.Errorf("%s: rows and other = %d, want %d", what, got, all)
		}
	}
	ask := func(what string) {
		t.Helper()
		for _, by := range [][]string{nil, {"section"}} {
			p := store.Plan{Table: "section", From: At(0), To: At(intervals), By: by}
			holds(what, &mustQuery(t, s, p).Slices[0], truth)
			p.PerHost = true
			for _, sl := range mustQuery(t, s, p).Slices {
				holds(what+", of a host", &sl, perHost[sl.Host])
			}
		}
	}
	ask("raw")
	all := store.Plan{Table: "section", From: At(0), To: At(intervals)}
	first := mustQuery(t, s, all).Slices[0].Table
	if _, err := s.Rollup(ctx, At(intervals)); err != nil {
		t.Fatal(err)
	}
	ask("rolled up")
	if _, err := s.Purge(ctx, At(intervals)); err != nil {
		t.Fatal(err)
	}
	ask("without raw buckets")
	if _, err := s.PurgeRollups(ctx, store.Minute, At(intervals)); err != nil {
		t.Fatal(err)
	}
	ask("of hours")
	last := mustQuery(t, s, all).Slices[0].Table
	if x, y := first.Rows[0], last.Rows[0]; !slices.Equal(x.Keys, y.Keys) || y.Upper() > x.Upper()+x.Upper()/10 {
		t.Errorf("the first row of hours = %v, %d to %d; of raw buckets it is %v, %d to %d", y.Keys, y.Values[0], y.Upper(), x.Keys, x.Values[0], x.Upper())
	}
}

// testRollupConcurrent appends, rolls up, purges and asks at once: what an appender
// has stored it sees, whatever was rolled up meanwhile.
func testRollupConcurrent(t *testing.T, open func() store.Store) {
	s := open()
	defer s.Close()
	ctx, cancel := context.WithCancel(context.Background())
	const hosts, intervals = 3, 120
	var background, appenders sync.WaitGroup
	background.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			if _, err := s.Rollup(context.Background(), At(intervals)); err != nil {
				t.Errorf("Rollup: %v", err)
			}
			if _, err := s.Purge(context.Background(), At(0)); err != nil {
				t.Errorf("Purge: %v", err)
			}
		}
	})
	for host := 1; host <= hosts; host++ {
		appenders.Go(func() {
			for i := range intervals {
				// Back and forth, so that what is rolled up gets dirty again.
				n := i/2 + i%2*intervals/2
				if _, err := s.Append(ctx, []store.Item{Item(t, Bucket(Header(host, n), hits(1)))}); err != nil {
					t.Errorf("Append: %v", err)
				}
				p := store.Plan{Table: "totals", From: At(0), To: At(intervals), Hosts: []bucket.ID{ID(host)}}
				a, err := s.Query(ctx, p)
				if err != nil || len(a.Damaged) > 0 || len(a.Slices) != 1 || a.Slices[0].Buckets != i+1 || a.Slices[0].Table.Total(0) != int64(i+1) {
					t.Errorf("own appends are not seen: %+v, %v, want %d buckets", a, err, i+1)
				}
			}
		})
	}
	appenders.Wait()
	cancel()
	background.Wait()
	if done, err := s.Rollup(context.Background(), At(intervals)); err != nil || done.Pending != 0 {
		t.Errorf("Rollup = %+v, %v, want nothing pending", done, err)
	}
	if _, err := s.Purge(context.Background(), At(intervals)); err != nil {
		t.Error(err)
	}
	if got, want := requests(t, s, 0, intervals), uint64(hosts*intervals); got != want {
		t.Errorf("requests = %d, want %d", got, want)
	}
}

// testPastHosts: the name of a host is known as long as anything of it is.
func testPastHosts(t *testing.T, open func() store.Store) {
	s := open()
	ctx := context.Background()
	last := map[string]int64{"hostb": At(1), "hostc": At(1)}
	past := func(want ...string) {
		t.Helper()
		hosts, err := s.PastHosts(ctx)
		var names []string
		for _, h := range hosts {
			names = append(names, h.Name)
			if h.FirstStart != At(0) || h.LastEnd != last[h.Name] {
				t.Errorf("past host %s from %d to %d, want %d to %d", h.Name, h.FirstStart, h.LastEnd, At(0), last[h.Name])
			}
		}
		if err != nil || !slices.Equal(names, want) {
			t.Errorf("PastHosts = %q, %v, want %q", names, err, want)
		}
	}
	day := 8640
	mustAppend(t, s, store.Stored, Item(t, Bucket(Header(1, 0), hits(1))), Item(t, Bucket(Header(2, 0), hits(1))))
	past()
	if _, err := s.Purge(ctx, At(6)); err != nil {
		t.Error(err)
	}
	past("hostb", "hostc")
	s.Close()
	s = open()
	mustAppend(t, s, store.Stored, Item(t, Bucket(Header(2, 7), hits(1)))) // it is back
	past("hostb")
	for _, r := range []store.Resolution{store.Minute, store.Hour, store.Day} {
		if n, err := s.PurgeRollups(ctx, r, At(day)); err != nil || n != 0 {
			t.Errorf("PurgeRollups(%s) before the raw buckets are sealed = %d, %v, want 0", r, n, err)
		}
	}
	if _, err := s.Purge(ctx, At(day)); err != nil {
		t.Error(err)
	}
	last["hostc"] = At(8)
	past("hostb", "hostc") // and its first life is not forgotten
	for _, r := range []store.Resolution{store.Minute, store.Hour, store.Day} {
		if _, err := s.PurgeRollups(ctx, r, At(day)); err != nil {
			t.Error(err)
		}
	}
	past()
	s.Close()
}

func compare(t *testing.T, op int, p store.Plan, got *store.Answer, want []modelSlice) {
	t.Helper()
	if len(got.Damaged) != 0 || len(got.Slices) != len(want) {
		t.Fatalf("op %d: Query(%+v) = %d slices, damaged %v, want %d slices", op, p, len(got.Slices), got.Damaged, len(want))
	}
	for i, w := range want {
		g := got.Slices[i]
		covered := int64(0)
		for _, c := range g.Covered {
			covered += c.To - c.From
		}
		if g.Start != w.start || g.End != w.end || g.Host != w.host || g.Buckets != w.buckets ||
			g.Counters != w.counters || !slices.Equal(g.Hosts, w.hosts) || covered != w.covered {
			t.Fatalf("op %d: Query(%+v): slice %d = %+v, want %+v", op, p, i, g, w)
		}
		rows := map[string][]int64{}
		if g.Table != nil {
			for _, r := range g.Table.Rows {
				rows[strings.Join(append(r.Keys, ""), "\x00")] = r.Values
				if r.Err != 0 {
					t.Fatalf("op %d: row %q of an exact table has error %d", op, r.Keys, r.Err)
				}
			}
		}
		if !maps.EqualFunc(rows, w.rows, slices.Equal[[]int64]) {
			t.Fatalf("op %d: Query(%+v): slice %d has rows %v, want %v", op, p, i, rows, w.rows)
		}
	}
}

// compareSums holds tables under way, of which tables are made and first rows are taken, against whole tables.
func compareSums(t *testing.T, op int, p store.Plan, tables, tops, want *store.Answer) {
	t.Helper()
	if len(tables.Slices) != len(want.Slices) || len(tops.Slices) != len(want.Slices) {
		t.Fatalf("op %d: Query(%+v) = %d slices, want %d", op, p, len(tables.Slices), len(want.Slices))
	}
	if p.Table == "" {
		return
	}
	for i := range want.Slices {
		w, got := want.Slices[i].Table, tables.Slices[i]
		if got.Table != nil || got.Skipped != want.Slices[i].Skipped {
			t.Fatalf("op %d: slice %d = %+v, want a sum only, %d skipped", op, i, got, want.Slices[i].Skipped)
		}
		if table := got.Sum.Table(0); !reflect.DeepEqual(table, w) {
			t.Fatalf("op %d: Query(%+v): slice %d has the table\n%+v, want\n%+v", op, p, i, table, w)
		}
		top := tops.Slices[i].Sum.Top(2, "responses")
		if w == nil {
			if top != nil {
				t.Fatalf("op %d: slice %d: Top = %+v, want none", op, i, top)
			}
			continue
		}
		if rows := w.Top(2, w.Schema.Measure("responses")); len(rows) != len(top.Rows) || len(rows) > 0 && !reflect.DeepEqual(rows, top.Rows) {
			t.Fatalf("op %d: Query(%+v): slice %d: Top = %+v, want %+v", op, p, i, top.Rows, rows)
		}
		all := top.Total()
		for m := range w.Schema.Measures {
			if w.Schema.LatencyIndex(m) < 0 && all.Values[m] != w.Total(m) {
				t.Fatalf("op %d: Query(%+v): slice %d: %d in all, want %d", op, p, i, all.Values, w.Total(m))
			}
		}
		l := new(sketch.Latency)
		for _, r := range append([]*bucket.Row{&w.Other}, w.Rows...) {
			l.Merge(r.Latency[0])
		}
		if l.Count+all.Latency[0].Count > 0 && !reflect.DeepEqual(l, all.Latency[0]) {
			t.Fatalf("op %d: Query(%+v): slice %d: response times %+v in all, want %+v", op, p, i, all.Latency[0], l)
		}
	}
}
