package bolt

import (
	"context"
	"testing"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/aggregator/store/storetest"
)

// preparing is a store of which what is asked is prepared, and asked again.
type preparing struct{ *DB }

func (s preparing) Query(ctx context.Context, plan store.Plan) (*store.Answer, error) {
	if _, err := s.DB.Query(ctx, plan); err != nil {
		return nil, err
	}
	if err := s.Prepare(ctx); err != nil {
		return nil, err
	}
	return s.DB.Query(ctx, plan)
}

// TestSpans: a question that moves on with the clock finds the sum of nearly all of its time, made ahead: it makes none itself, and takes few.
// What comes late is in its answer all the same.
func TestSpans(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	plans := []store.Plan{
		{Table: "totals", By: []string{"method"}},
		{Table: "totals", By: []string{"mirror"}, PerHost: true, Numbers: true},
	}
	const hosts = 2
	counted := map[int]int64{} // by interval
	add := func(host, interval int, n int64) {
		t.Helper()
		appendAll(t, s, item(t, host, interval, n))
		counted[interval] += n
	}
	// minute is that in which a question begins.
	ask := func(minute int) (made, used uint64) {
		t.Helper()
		_, _, u, m := s.sums.total()
		for i, p := range plans {
			p.From, p.To = storetest.At(6*minute), storetest.At(1e5)
			a, err := s.Query(ctx, p)
			if err != nil {
				t.Fatal(err)
			}
			got, want := int64(0), int64(0)
			for k := range a.Slices {
				got += a.Slices[k].Table.Total(0)
			}
			for interval, n := range counted {
				if interval >= 6*minute {
					want += n
				}
			}
			if got != want {
				t.Fatalf("plan %d from minute %d: %d requests, want %d", i, minute, got, want)
			}
		}
		_, _, used, made = s.sums.total()
		return made - m, used - u
	}
	interval := 0
	for ; interval < 6*40; interval++ {
		for host := 1; host <= hosts; host++ {
			add(host, interval, int64(host))
		}
	}
	ask(3)
	if err := s.Prepare(ctx); err != nil {
		t.Fatal(err)
	}
	for minute := 4; minute < 12; minute++ {
		// A minute later: a span to one of the last minutes, and those minutes.
		for range 6 {
			for host := 1; host <= hosts; host++ {
				add(host, interval, int64(host))
			}
			interval++
		}
		if made, used := ask(minute); made != 0 || used > uint64(len(plans))*4 {
			t.Errorf("from minute %d: %d sums were made, want 0, and %d used, want at most 4 of each plan", minute, made, used)
		}
		if err := s.Prepare(ctx); err != nil {
			t.Fatal(err)
		}
		for _, sh := range s.sums.shapes {
			if len(sh.spans) > 3 {
				t.Errorf("%d spans are kept of a question", len(sh.spans))
			}
		}
	}
	add(3, 6*20, 1000) // late
	ask(11)
	if err := s.Prepare(ctx); err != nil {
		t.Fatal(err)
	}
	if _, used := ask(12); used > uint64(len(plans))*4 {
		t.Errorf("after something came late: %d sums used, want at most 4 of each plan", used)
	}
	// One that stays where it is.
	for i := range 6 * 8 {
		add(1, interval, 1)
		interval++
		if i%6 != 0 {
			continue
		}
		if _, used := ask(12); used > uint64(len(plans))*10 {
			t.Errorf("from minute 12 after %d minutes: %d sums used, want at most 10 of each plan", i/6, used)
		}
		if err := s.Prepare(ctx); err != nil {
			t.Fatal(err)
		}
	}
	// Nobody asks for some minutes: no span is made, nor kept.
	for range 6 * 4 {
		add(1, interval, 1)
		interval++
	}
	if err := s.Prepare(ctx); err != nil {
		t.Fatal(err)
	}
	for _, sh := range s.sums.shapes {
		if len(sh.spans) > 0 {
			t.Errorf("spans %v are kept, and nobody has asked for four minutes", sh.spans)
		}
	}
	ask(12)
}

// TestSpanOfEverything: of a question from the beginning of time no span is made, as each look at its hours would hold up who appends.
func TestSpanOfEverything(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	for i := range 6 * 40 {
		appendAll(t, s, item(t, 1, i, 1))
	}
	spans := func(from int64) (n int) {
		t.Helper()
		plan := store.Plan{Table: "totals", By: []string{"method"}, From: from, To: storetest.At(1e5)}
		for range 2 {
			a, err := s.Query(ctx, plan)
			if err != nil {
				t.Fatal(err)
			}
			if got := a.Slices[0].Table.Total(0); got != 6*40 {
				t.Errorf("from %d: %d requests, want %d", from, got, 6*40)
			}
		}
		if err := s.Prepare(ctx); err != nil {
			t.Fatal(err)
		}
		for _, sh := range s.sums.shapes {
			n += len(sh.spans)
		}
		return n
	}
	if n := spans(1); n != 0 {
		t.Errorf("%d spans are kept of all time", n)
	}
	if n := spans(storetest.At(-60)); n == 0 {
		t.Error("no span is kept of the last hour")
	}
}

// TestSpanThatCannotBeKept: what has no room is tried again less and less often, and forgotten when nobody asks, though no time passes in what is appended.
func TestSpanThatCannotBeKept(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	for i := range 6 * 40 {
		appendAll(t, s, item(t, 1, i, 1))
	}
	plan := store.Plan{Table: "totals", By: []string{"method"}, From: storetest.At(0), To: storetest.At(1e5)}
	if _, err := s.Query(ctx, plan); err != nil {
		t.Fatal(err)
	}
	s.sums.most = 4000 // nothing has room
	tries := 0
	for range askPasses + 10 {
		jobs, failures := s.sums.due()
		if len(failures) > 0 {
			t.Fatalf("failures %v of what has merely no room", failures)
		}
		for _, job := range jobs {
			tries++
			if err := s.prepare(ctx, job); err != nil {
				t.Fatal(err)
			}
			s.sums.tried(job, nil)
		}
	}
	if tries < 8 || tries > 24 { // after 1, 2, 4 ... passes, of two spans
		t.Errorf("what cannot be kept is made %d times in %d passes, want some ten", tries, askPasses)
	}
	for _, sh := range s.sums.shapes {
		if len(sh.asks) > 0 {
			t.Errorf("%d questions are remembered that nobody has asked for %d passes", len(sh.asks), askPasses)
		}
	}
}

// TestTagAtTheEdgeOfAPurge: what is appended between what is sealed and the chunk that follows changes spans over it, and what was changed before stays so.
func TestTagAtTheEdgeOfAPurge(t *testing.T) {
	var c sums
	from := storetest.At(0) - storetest.At(0)%int64(store.Hour.Length())
	span := piece{from, 20 * minuteLength}
	before := c.tag(span)
	c.change([]int64{from + minuteLength})
	changed := c.tag(span)
	c.purge(from + minuteLength)
	if purged := c.tag(span); changed == before || purged == before {
		t.Errorf("tags %d, after a change %d, after a purge %d, want others than the first", before, changed, purged)
	}
	again := c.tag(span)
	c.change([]int64{from + 2*minuteLength})
	if c.tag(span) == again {
		t.Error("what is appended after the sealed minute does not change the span")
	}
}
