package bolt

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/aggregator/store/storetest"
)

// TestSumsAreFed: while somebody asks, what is appended is in the sums that are kept, and no query reads it again: new intervals,
// new minutes, and what is late.
func TestSumsAreFed(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	plans := []store.Plan{
		{Table: "totals", By: []string{"method"}, From: storetest.At(0), To: storetest.At(600)},
		{Table: "totals", By: []string{"mirror"}, From: storetest.At(0), To: storetest.At(600), PerHost: true},
		{Table: "totals", By: []string{"mirror"}, From: storetest.At(0), To: storetest.At(600), Step: storetest.Width},
	}
	ask := func() (out [3]int64) {
		t.Helper()
		for i, p := range plans {
			a, err := s.Query(ctx, p)
			if err != nil {
				t.Fatal(err)
			}
			for k := range a.Slices {
				out[i] += a.Slices[k].Table.Total(0)
			}
		}
		return out
	}
	sum := int64(0)
	for i := range 40 {
		appendAll(t, s, item(t, 1, i, 1))
		sum++
		if got := ask(); got != [3]int64{sum, sum, sum} {
			t.Fatalf("after interval %d: %d, want %d each", i, got, sum)
		}
	}
	_, _, _, before := s.sums.total()
	for i := 40; i < 68; i++ {
		appendAll(t, s, item(t, 1, i, 1), item(t, 2, i, 10))
		appendAll(t, s, item(t, 3, i-3, 100))
		sum += 111
		if got := ask(); got != [3]int64{sum, sum, sum} {
			t.Fatalf("after interval %d: %d, want %d each", i, got, sum)
		}
	}
	// One chunk of two plans is over meanwhile, and made of its minutes.
	if _, _, _, made := s.sums.total(); made != before+2 {
		t.Errorf("%d sums were made, want 2, of a chunk", made-before)
	}
	// Names are numbered anew, and sums stay.
	_, _, _, before = s.sums.total()
	for _, sh := range s.sums.shapes {
		sh.renumber()
	}
	appendAll(t, s, item(t, 4, 67, 1000))
	sum += 1000
	if got := ask(); got != [3]int64{sum, sum, sum} {
		t.Errorf("with names numbered anew: %d, want %d each", got, sum)
	}
	if _, _, _, made := s.sums.total(); made != before {
		t.Errorf("%d sums were made after names were numbered anew, want none", made-before)
	}
	// Nobody asks: nothing is fed, and nothing is missing later.
	for i := 68; i < 96; i++ {
		appendAll(t, s, item(t, 1, i, 1))
		sum++
	}
	s.sums.mu.Lock()
	for _, sh := range s.sums.shapes {
		for key := range sh.pieces {
			if key.fed() {
				t.Errorf("a sum of %v from %d is fed, and nobody has asked for three minutes", time.Duration(key.length), key.start)
			}
		}
	}
	s.sums.mu.Unlock()
	if got := ask(); got != [3]int64{sum, sum, sum} {
		t.Errorf("later: %d, want %d each", got, sum)
	}
}

// TestFedOnce: a sum that was made from a snapshot after a commit, and before the commit was fed, counts its buckets once.
func TestFedOnce(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	plan := store.Plan{Table: "totals", By: []string{"method"}, From: storetest.At(0), To: storetest.At(6)}
	total := func() int64 {
		a, err := s.Query(ctx, plan)
		if err != nil {
			t.Fatal(err)
		}
		return a.Slices[0].Table.Total(0)
	}
	it := item(t, 1, 0, 7)
	appendAll(t, s, it)
	if got := total(); got != 7 {
		t.Fatalf("%d requests, want 7", got)
	}
	var last int
	if err := s.view(func(tx *bbolt.Tx) error { last = tx.ID(); return nil }); err != nil {
		t.Fatal(err)
	}
	s.sums.feed(storetest.At(1), []fedBucket{{start: storetest.At(0), data: it.Data, txid: last}}, nil)
	if got := total(); got != 7 {
		t.Errorf("%d requests once the commit is fed, want 7", got)
	}
}

// TestPlansAreBounded: questions with many values, which whoever has an agent's key can cause, are not remembered without a bound.
func TestPlansAreBounded(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	appendAll(t, s, item(t, 1, 0, 1))
	for i := range 12 {
		where := store.Condition{Column: "mirror"}
		for k := range 20_000 {
			where.Values = append(where.Values, storetest.ID(i<<20+k).String())
		}
		if _, err := s.Query(ctx, store.Plan{Table: "totals", By: []string{}, Where: []store.Condition{where}, From: storetest.At(0), To: storetest.At(1)}); err != nil {
			t.Fatal(err)
		}
		all := int64(0)
		for _, sh := range s.sums.shapes {
			all += int64(len(sh.name)) + planBytes(&sh.plan)
		}
		if all != s.sums.plans || all > maxPlanBytes || len(s.sums.shapes) == 0 {
			t.Fatalf("after %d plans: %d bytes of %d are remembered, counted as %d, want at most %d", i+1, all, len(s.sums.shapes), s.sums.plans, maxPlanBytes)
		}
	}
}

// TestSumsAreAccountedFor: after each question and each append, what is kept is counted as what it takes.
func TestSumsAreAccountedFor(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	plan := store.Plan{Table: "totals", By: []string{"method"}, From: storetest.At(0), To: storetest.At(6)}
	for i := range 4 {
		appendAll(t, s, item(t, 1, i, 1))
		for range 2 {
			if _, err := s.Query(ctx, plan); err != nil {
				t.Fatal(err)
			}
			parts, bytes := 0, int64(0)
			for _, sh := range s.sums.shapes {
				for key, k := range sh.pieces {
					bytes += k.size()
					parts += len(k.parts)
					if k.bytes != k.size() {
						t.Errorf("after %d buckets: the sum of %v is counted as %d bytes, it takes %d", i+1, key, k.bytes, k.size())
					}
				}
			}
			if parts == 0 || s.sums.bytes != bytes {
				t.Errorf("after %d buckets: %d parts, and %d bytes counted of %d: want parts", i+1, parts, s.sums.bytes, bytes)
			}
		}
	}
}

// TestPartsStayFew: however often somebody asks while a minute fills, its sum is of few parts, and of one once its time is over; what comes
// late is in it, too.
func TestPartsStayFew(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	plan := store.Plan{Table: "totals", By: []string{"method"}, From: storetest.At(0), To: storetest.At(6)}
	want := int64(0)
	ask := func(when string) *kept {
		t.Helper()
		a, err := s.Query(ctx, plan)
		if err != nil {
			t.Fatal(err)
		}
		if got := a.Slices[0].Table.Total(0); got != want || len(a.Slices[0].Hosts) != a.Slices[0].Buckets {
			t.Fatalf("%s: %d requests of %d hosts in %d buckets, want %d", when, got, len(a.Slices[0].Hosts), a.Slices[0].Buckets, want)
		}
		for _, sh := range s.sums.shapes {
			if k := sh.pieces[piece{storetest.At(0), minuteLength}]; k != nil {
				return k
			}
		}
		t.Fatalf("%s: no sum is kept", when)
		return nil
	}
	most := 0
	for host := range 60 {
		appendAll(t, s, item(t, host+1, host%6, 3))
		want += 3
		most = max(most, len(ask("while it fills").parts))
	}
	if most > maxParts+1 || most < maxParts {
		t.Errorf("at most %d parts, want %d, one more when somebody has just asked", most, maxParts)
	}
	if err := s.Prepare(ctx); err != nil {
		t.Fatal(err)
	}
	if n := len(ask("after a pause").parts); n != 1 {
		t.Errorf("%d parts after a pause, want 1", n)
	}
	appendAll(t, s, item(t, 1, 9, 1)) // nearly all has come
	k := ask("when it is over")
	if len(k.parts) != 1 || k.collector != nil {
		t.Errorf("%d parts when it is over, want 1", len(k.parts))
	}
	part := k.parts[0]
	appendAll(t, s, item(t, 1, 20, 1)) // of which it has nothing
	if k := ask("later"); len(k.parts) != 1 || k.parts[0] != part {
		t.Errorf("%d parts, put together again though nothing has come", len(k.parts))
	}
	appendAll(t, s, item(t, 99, 2, 1), item(t, 1, 21, 1))
	want++
	if k := ask("after one came late"); len(k.parts) != 1 || k.parts[0] == part {
		t.Errorf("%d parts of what came and one that came late, want 1", len(k.parts))
	}
	for host := range 30 {
		appendAll(t, s, item(t, 100+host, 3, 1))
		want++
		if n := len(ask("what comes late").parts); n > maxParts+1 {
			t.Fatalf("%d parts of what comes late", n)
		}
	}
}

// TestPartsHaveTheNamesOfTheirShape: a sum that was collected while the names were numbered anew is kept with those, and not
// with a list of names of its own that nobody counts.
func TestPartsHaveTheNamesOfTheirShape(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	appendAll(t, s, item(t, 1, 0, 1))
	plan := store.Plan{Table: "totals", By: []string{"method"}, From: storetest.At(0), To: storetest.At(6)}
	sh := s.sums.shape(&plan)
	k, _ := s.sums.claim(sh, piece{storetest.At(0), minuteLength}, false)
	c := store.NewCollector(plan)
	o := &question{ctx: ctx, s: s, plan: &plan, c: c}
	if err := o.minute(storetest.At(0), storetest.At(6)); err != nil {
		t.Fatal(err)
	}
	part := c.Part(sh.dict.Load())
	s.sums.mu.Lock()
	sh.renumber()
	s.sums.mu.Unlock()
	s.sums.finish(k, part, o.txid)
	if len(k.parts) != 1 || k.parts[0].Rows() != 1 || k.parts[0].Renumbered(sh.dict.Load()) != k.parts[0] {
		t.Errorf("%d parts, with names of before, want one with those of the shape", len(k.parts))
	}
	if a, err := s.Query(ctx, plan); err != nil || a.Slices[0].Table.Total(0) != 1 {
		t.Errorf("Query = %+v, %v, want 1 request", a, err)
	}
}

// TestSumIsMadeOnce: of several who ask for the same at once one makes its sum and the others wait for it; what is appended meanwhile is in it, and
// who waits no longer does not hold up the others.
func TestSumIsMadeOnce(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	appendAll(t, s, item(t, 1, 0, 1))
	plan := store.Plan{Table: "totals", By: []string{"method"}, From: storetest.At(0), To: storetest.At(6)}
	total := func(ctx context.Context) (int64, error) {
		a, err := s.Query(ctx, plan)
		if err != nil {
			return 0, err
		}
		return a.Slices[0].Table.Total(0), nil
	}
	sh := s.sums.shape(&plan)
	k, mine := s.sums.claim(sh, piece{storetest.At(0), minuteLength}, false)
	if !mine {
		t.Fatal("there is a sum before anybody has asked")
	}
	// As the one who makes it: a snapshot, and then another appends.
	c := store.NewCollector(plan)
	o := &question{ctx: ctx, s: s, plan: &plan, c: c}
	if err := o.minute(storetest.At(0), storetest.At(6)); err != nil {
		t.Fatal(err)
	}
	appendAll(t, s, item(t, 2, 1, 10))
	short, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := total(short); !errors.Is(err, context.Canceled) {
		t.Errorf("who waits no longer gets %v", err)
	}
	var waiting sync.WaitGroup
	for range 3 {
		waiting.Go(func() {
			if n, err := total(ctx); err != nil || n != 11 {
				t.Errorf("who waits gets %d, %v, want 11", n, err)
			}
		})
	}
	s.sums.finish(k, c.Part(sh.dict.Load()), o.txid)
	waiting.Wait()
	if _, _, _, made := s.sums.total(); made != 1 {
		t.Errorf("%d sums were made, want 1", made)
	}
	// One that is given up is made by who waits.
	plan.From = storetest.At(6)
	plan.To = storetest.At(12)
	appendAll(t, s, item(t, 1, 7, 5))
	k, _ = s.sums.claim(sh, piece{storetest.At(7), storetest.At(12) - storetest.At(7)}, false)
	waiting.Go(func() {
		if n, err := total(ctx); err != nil || n != 5 {
			t.Errorf("after one was given up: %d, %v, want 5", n, err)
		}
	})
	s.sums.abandon(k)
	waiting.Wait()
}
