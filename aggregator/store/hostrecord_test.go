package store

import (
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/httpctl/httpctl/pkg/bucket"
)

const second = int64(time.Second)

// header is ordinal n of an incarnation that began at 100 s, in 10 s intervals.
func header(incarnation byte, n int) *bucket.Header {
	start := 100*second + int64(n)*10*second
	return &bucket.Header{Name: bucket.Name{Host: bucket.ID{1}, Incarnation: bucket.ID{incarnation}, Start: start},
		Width: 10 * time.Second, Ordinal: uint64(n), Final: true, ClosedThrough: start + 10*second, ObservedFrom: 100 * second}
}

// TestAnyOrder: whatever the order of arrival, coverage is the end of the
// ordinals without a hole, and survives encoding at any moment.
func TestAnyOrder(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	for range 50 {
		r := &HostRecord{}
		arrived := map[int]bool{}
		for _, n := range rng.Perm(30) {
			for range 1 + rng.IntN(2) {
				r.Note(header(1, n), true, false, 0, 0)
			}
			arrived[n] = true
			want := int64(0)
			for i := 0; arrived[i]; i++ {
				want = header(1, i).ClosedThrough
			}
			if r.CoveredThrough != want {
				t.Fatalf("after %v: CoveredThrough = %d, want %d", arrived, r.CoveredThrough, want)
			}
			b, _ := r.AppendBinary(nil)
			again := &HostRecord{}
			if err := again.UnmarshalBinary(b); err != nil {
				t.Fatal(err)
			}
			r = again
		}
	}
}

func TestHoles(t *testing.T) {
	end := func(n int) int64 { return header(1, n).ClosedThrough }
	t.Run("a store made while the agent ran", func(t *testing.T) {
		r := &HostRecord{}
		r.Note(header(1, 500), true, false, 4000*second, 0)
		if r.CoveredThrough != end(500) {
			t.Errorf("CoveredThrough = %d, want %d: what came before was another store's", r.CoveredThrough, end(500))
		}
		r.Note(header(1, 502), true, false, 4000*second, 0)
		if r.CoveredThrough != end(500) {
			t.Errorf("CoveredThrough = %d, want it to rest at %d", r.CoveredThrough, end(500))
		}
	})
	t.Run("expired buckets have arrived", func(t *testing.T) {
		r := &HostRecord{}
		r.Note(header(1, 0), false, false, 0, 0)
		if r.FirstStart != 0 || r.LastEnd != 0 {
			t.Errorf("an expired bucket is remembered as stored: %+v", r.Host)
		}
		r.Note(header(1, 1), true, false, 0, 0)
		if r.CoveredThrough != end(1) {
			t.Errorf("CoveredThrough = %d, want %d", r.CoveredThrough, end(1))
		}
	})
	t.Run("the sealed floor passes", func(t *testing.T) {
		r := &HostRecord{}
		r.Note(header(1, 0), true, false, 0, 0)
		r.Note(header(1, 2), true, false, 0, 0)
		r.Note(header(1, 3), true, false, 0, header(1, 2).Start)
		if r.CoveredThrough != end(3) {
			t.Errorf("CoveredThrough = %d, want %d: ordinal 1 can only expire", r.CoveredThrough, end(3))
		}
	})
	t.Run("declared too short", func(t *testing.T) {
		r := &HostRecord{}
		r.Note(header(1, 0), true, false, 0, 0)
		h := header(1, 3)
		h.Unobserved = []bucket.Span{{From: end(0), To: end(1)}}
		r.Note(h, true, false, 0, 0)
		if r.CoveredThrough != end(0) {
			t.Errorf("CoveredThrough = %d, want %d: ordinal 2 is missing and not declared", r.CoveredThrough, end(0))
		}
		h = header(1, 4)
		h.Unobserved = []bucket.Span{{From: end(1), To: end(2)}}
		r.Note(h, true, false, 0, 0)
		if r.CoveredThrough != end(4) {
			t.Errorf("CoveredThrough = %d, want %d", r.CoveredThrough, end(4))
		}
	})
	t.Run("an earlier incarnation has a known hole", func(t *testing.T) {
		r := &HostRecord{}
		r.Note(header(1, 0), true, false, 0, 0)
		r.Note(header(1, 2), true, false, 0, 0)
		h := header(2, 5)
		h.ObservedFrom, h.Ordinal = h.Start, 0
		r.Note(h, true, false, 0, 0)
		if r.CoveredThrough != end(0) || r.Incarnation != (bucket.ID{2}) {
			t.Errorf("CoveredThrough = %d, incarnation %s; want %d, the newer one", r.CoveredThrough, r.Incarnation, end(0))
		}
		r.Note(header(1, 1), true, false, 0, 0)
		if r.CoveredThrough != end(5) {
			t.Errorf("CoveredThrough = %d, want %d once it is filled", r.CoveredThrough, end(5))
		}
	})
}

// TestAhead: while an agent sends a long backlog, what it closes goes ahead of that. Its
// coverage rests where the backlog has come to, the host is what the newest bucket says, and in the end nothing is missing.
func TestAhead(t *testing.T) {
	const backlog, live = 2000, 300
	note := func(r *HostRecord, h *bucket.Header, ahead bool, floor int64) {
		t.Helper()
		r.Note(h, true, ahead, floor, 0)
		b, _ := r.AppendBinary(nil)
		if err := r.UnmarshalBinary(b); err != nil {
			t.Fatal(err)
		}
	}
	end := func(n int) int64 { return header(1, n).ClosedThrough }

	r := &HostRecord{}
	next := backlog
	for n := range backlog {
		if n%(backlog/live) == 0 && next < backlog+live {
			h := header(1, next)
			h.Open = uint64(next)
			note(r, h, true, 0)
			next++
		}
		note(r, header(1, n), false, 0)
		if want := end(n); n < backlog-1 && r.CoveredThrough != want {
			t.Fatalf("with %d of the backlog and %d ahead of it CoveredThrough = %d, want %d", n+1, next-backlog, r.CoveredThrough, want)
		}
		if r.LastOpen != uint64(next-1) {
			t.Fatalf("with %d of the backlog LastOpen = %d, want %d of the newest bucket", n+1, r.LastOpen, next-1)
		}
	}
	if want := end(next - 1); r.CoveredThrough != want {
		t.Errorf("with all of the backlog CoveredThrough = %d, want %d", r.CoveredThrough, want)
	}

	// The agent was started again while it could not deliver: its backlog is of two incarnations.
	r = &HostRecord{}
	later := func(n int) *bucket.Header {
		h := header(2, 10+n)
		h.Ordinal, h.ObservedFrom, h.HostName = uint64(n), header(2, 10).Start, "new"
		return h
	}
	note(r, later(5), true, 0)
	for n := range 10 {
		note(r, header(1, n), false, 0)
		if want := end(n); r.CoveredThrough != want || r.Incarnation != (bucket.ID{2}) || r.Name != "new" {
			t.Fatalf("with %d of the first run the host is %+v, want it covered through %d and the second", n+1, r.Host, want)
		}
	}
	for n := range 5 {
		note(r, later(n), false, 0)
	}
	if want := later(5).ClosedThrough; r.CoveredThrough != want || r.CurrentThrough != want {
		t.Errorf("with both runs the host is %+v, want it covered through %d", r.Host, want)
	}

	// The store was made while the agent ran: what came before the first in order was another store's.
	r = &HostRecord{}
	note(r, header(1, 900), true, 4000*second)
	if r.CoveredThrough != 0 {
		t.Errorf("CoveredThrough = %d, want 0: older ones will follow", r.CoveredThrough)
	}
	for n := 500; n < 900; n++ {
		note(r, header(1, n), false, 4000*second)
	}
	if r.CoveredThrough != end(900) {
		t.Errorf("CoveredThrough = %d, want %d", r.CoveredThrough, end(900))
	}
}

// TestClockSetBack: an agent that started on a clock that ran ahead, which was
// then set right, begins an incarnation before the one that it ends. Coverage goes
// on once it has passed what the first one claimed.
func TestClockSetBack(t *testing.T) {
	r := &HostRecord{}
	ahead := header(1, 10)
	ahead.ObservedFrom, ahead.Ordinal, ahead.HostName = ahead.Start, 0, "old"
	r.Note(ahead, true, false, 0, 0)
	for n := range 13 {
		h := header(2, n)
		h.HostName, h.Open = "new", uint64(n)
		r.Note(h, true, false, 0, 0)
		if want := max(h.ClosedThrough, ahead.ClosedThrough); r.CoveredThrough != want {
			t.Fatalf("after ordinal %d: CoveredThrough = %d, want %d", n, r.CoveredThrough, want)
		}
		b, _ := r.AppendBinary(nil)
		if err := r.UnmarshalBinary(b); err != nil {
			t.Fatal(err)
		}
		// What it said of times that had not come is not believed.
		if got := r.Covered(h.ClosedThrough); got != h.ClosedThrough {
			t.Fatalf("after ordinal %d, at its end: covered through %d, want %d", n, got, h.ClosedThrough)
		}
		if got := r.Covered(ahead.ClosedThrough); got != r.CoveredThrough {
			t.Fatalf("after ordinal %d, later: covered through %d, want %d", n, got, r.CoveredThrough)
		}
	}
	if r.Incarnation != (bucket.ID{2}) || r.Name != "new" || r.LastOpen != 12 {
		t.Errorf("the host is %+v, want what the incarnation that began last says", r.Host)
	}
	// A hole in either stops it.
	r.Note(header(2, 14), true, false, 0, 0)
	if want := header(2, 12).ClosedThrough; r.CoveredThrough != want {
		t.Errorf("with a hole CoveredThrough = %d, want %d", r.CoveredThrough, want)
	}
}

// TestCoverageIsNeverStuck: a hole that nobody declares, such as of buckets that a
// store acknowledged that was lost since, ends when it can only be one.
func TestCoverageIsNeverStuck(t *testing.T) {
	r := &HostRecord{}
	for n := 1; n < 2*maxReorder; n++ {
		r.Note(header(1, n), true, false, 0, 0)
		want := int64(0)
		if n >= maxReorder {
			want = header(1, n).ClosedThrough
		}
		if r.CoveredThrough != want {
			t.Fatalf("ordinal 0 missing, after ordinal %d: CoveredThrough = %d, want %d", n, r.CoveredThrough, want)
		}
	}
	// One of an incarnation that has ended.
	r = &HostRecord{}
	r.Note(header(1, 0), true, false, 0, 0)
	r.Note(header(1, 2), true, false, 0, 0)
	for n := range 2 * maxReorder {
		h := header(2, n+3)
		h.Ordinal, h.ObservedFrom = uint64(n), header(2, 3).Start
		r.Note(h, true, false, 0, 0)
		want := header(1, 0).ClosedThrough
		if n >= maxReorder {
			want = h.ClosedThrough
		}
		if r.CoveredThrough != want {
			t.Fatalf("after ordinal %d of the next incarnation: CoveredThrough = %d, want %d", n, r.CoveredThrough, want)
		}
	}
}

// TestRecordIsBounded: no order of arrival makes a record grow without bound.
func TestRecordIsBounded(t *testing.T) {
	r := &HostRecord{}
	for n := range 3000 {
		h := header(byte(n%100), 2*n+1)
		h.ObservedFrom += int64(n % 100)
		h.Unobserved = []bucket.Span{{From: h.Start, To: h.Start + 1}}
		r.Note(h, true, false, 0, 0)
	}
	if b, _ := r.AppendBinary(nil); len(b) > 80<<10 {
		t.Errorf("record of %d bytes", len(b))
	}
}

func FuzzHostRecord(f *testing.F) {
	r := &HostRecord{}
	for _, n := range []int{0, 1, 5, 7} {
		h := header(1, n)
		h.HostName = "web1"
		h.Unobserved = []bucket.Span{{From: 1, To: 2}}
		r.Note(h, true, false, 0, 0)
	}
	b, _ := r.AppendBinary(nil)
	f.Add(b)
	f.Add([]byte{})
	f.Add([]byte{99})
	f.Fuzz(func(t *testing.T, data []byte) {
		r := &HostRecord{}
		if err := r.UnmarshalBinary(data); err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) {
				t.Errorf("UnmarshalBinary(%x) = %v, want ErrCorrupt or ErrVersion", data, err)
			}
			return
		}
		r.Note(header(1, 3), true, false, 0, 0)
		if _, err := r.AppendBinary(nil); err != nil {
			t.Error(err)
		}
	})
}
