package alert

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/httpctl/httpctl/aggregator/baseline"
	"github.com/httpctl/httpctl/pkg/bucket"
)

const (
	sec      = int64(time.Second)
	interval = 10 * time.Second
	width    = 60 * sec
)

// window makes the n-th window (from 1) with a baseline of 100 and a threshold of 10%.
func window(n, count int64) Window {
	return Window{From: (n - 1) * width, To: n * width, Count: count, Baseline: 100, Threshold: 10, Interval: interval,
		Hosts: []bucket.ID{{1}}}
}

func without(w Window) Window { w.Missing = []bucket.ID{{2}}; return w }

// machines are states of each kind, all through 60 s.
func machines() map[Status]State {
	var s State
	out := map[Status]State{}
	s, _ = Learned(s, width)
	out[Learning] = s
	out[Normal] = Advance(s, width)
	a, _ := Judge(s, window(1, 200))
	out[Alert] = a
	d, _ := Judge(a, window(1, 100))
	out[Dismissed] = d
	return out
}

func TestTransitions(t *testing.T) {
	from := machines()
	for _, c := range []struct {
		from  Status
		w     Window
		want  Status
		since int64 // seconds
	}{
		{Learning, window(2, 0), Normal, 60},
		{Learning, window(2, 110), Normal, 60},
		{Learning, window(2, 111), Alert, 120},
		{Learning, without(window(2, 5)), Normal, 60},
		{Learning, without(window(2, 111)), Alert, 120},
		{Normal, window(2, 110), Normal, 60},
		{Normal, window(2, 111), Alert, 120},
		{Normal, without(window(2, 110)), Normal, 60},
		{Normal, without(window(2, 111)), Alert, 120},
		{Alert, window(2, 111), Alert, 60},
		{Alert, window(2, 110), Dismissed, 120},
		{Alert, without(window(2, 111)), Alert, 60},
		{Alert, without(window(2, 110)), Alert, 60}, // never dismisses
		{Alert, without(window(2, 0)), Alert, 60},
		{Dismissed, window(2, 111), Alert, 120},
		{Dismissed, window(2, 110), Normal, 70}, // since the boundary
		{Dismissed, without(window(2, 110)), Normal, 70},
		{Dismissed, without(window(2, 111)), Alert, 120},
	} {
		before := fmt.Sprint(from[c.from])
		s, r := Judge(from[c.from], c.w)
		name := fmt.Sprintf("%v, %d of 100, incomplete %v", c.from, c.w.Count, c.w.Incomplete())
		if s.Status != c.want || s.Since != c.since*sec {
			t.Errorf("%s: %v since %d, want %v since %d", name, s.Status, s.Since/sec, c.want, c.since)
		}
		if r.Above != (c.w.Count > 110) || r.After.Status != s.Status || r.After.Since != s.Since || s.Through != c.w.To {
			t.Errorf("%s: record %+v of state %+v", name, r, s)
		}
		if now := fmt.Sprint(from[c.from]); now != before {
			t.Errorf("%s: Judge changed its argument from %s to %s", name, before, now)
		}
		if (s.Status == Alert) != (s.Open.Start != 0) {
			t.Errorf("%s: open episode %+v in state %v", name, s.Open, s.Status)
		}
	}
}

// Event time alone ends learning and dismissal, and nothing else.
func TestAdvance(t *testing.T) {
	m := machines()
	if m[Dismissed].Until != 70*sec {
		t.Fatalf("dismissed at 60s: until %d, want the next boundary, 70s", m[Dismissed].Until/sec)
	}
	learning, _ := Relearn(m[Normal], 60*sec)
	for _, c := range []struct {
		s    State
		at   int64
		want Status
	}{
		{m[Learning], 59, Learning}, {m[Learning], 60, Normal},
		{learning, 1e6, Learning}, // not enforced: it has no end
		{m[Normal], 1e6, Normal}, {m[Alert], 1e6, Alert},
		{m[Dismissed], 69, Dismissed}, {m[Dismissed], 70, Normal}, {m[Dismissed], 1e6, Normal},
	} {
		if got := Advance(c.s, c.at*sec); got.Status != c.want || got.Until != 0 && got.Status == Normal {
			t.Errorf("Advance(%v, %ds) = %v until %d, want %v", c.s.Status, c.at, got.Status, got.Until, c.want)
		}
	}
	if got := NextBoundary(65*sec, interval); got != 70*sec {
		t.Errorf("NextBoundary(65s) = %ds, want 70s", got/sec)
	}
}

// From every state but alert, a window as wide as the interval may alert in the step
// in which event time would have made it normal.
func TestAlertAtBoundary(t *testing.T) {
	w := Window{From: 60 * sec, To: 70 * sec, Count: 111, Baseline: 100, Threshold: 10, Interval: interval}
	if s, _ := Judge(machines()[Dismissed], w); s.Status != Alert || s.Since != 70*sec {
		t.Errorf("dismissed, window to the boundary above: %v since %d, want alert since 70s", s.Status, s.Since/sec)
	}
}

func TestEpisode(t *testing.T) {
	s := machines()[Normal]
	for n, count := range []int64{150, 130, 100} {
		w := window(int64(n)+2, count)
		if n == 1 {
			w.Joined = []bucket.ID{{9}}
		}
		s, _ = Judge(s, w)
	}
	h := s.History(0, 0)
	if len(h) != 1 {
		t.Fatalf("History = %+v, want one episode", h)
	}
	e := h[0]
	if e.Start != 120*sec || e.End != 240*sec || e.Duration() != 2*time.Minute || len(e.Entries) != 2 ||
		e.Entries[0].Time != 120*sec || e.Entries[0].Hits != 150 || e.Entries[1].Time != 180*sec || e.Entries[1].Hits != 130 {
		t.Errorf("episode = %+v, want 120s to 240s with 150 at 120s and 130 at 180s", e)
	}
	if j := e.Joined(); !reflect.DeepEqual(j, []bucket.ID{{9}}) {
		t.Errorf("Joined = %v, want host 9", j)
	}

	late := Annotate(s, 180*sec, 7)
	if got := late.Closed[0].Entries[1]; got.LateHits != 7 || got.Hits != 130 || late.Status != s.Status {
		t.Errorf("annotated entry = %+v, want 7 late hits and 130 hits", got)
	}
	if s.Closed[0].Entries[1].LateHits != 0 {
		t.Error("Annotate changed its argument")
	}

	for _, c := range []struct {
		from, to int64
		want     int
	}{{0, 0, 1}, {240, 0, 0}, {239, 0, 1}, {0, 120, 0}, {0, 121, 1}, {130, 140, 1}} {
		if got := s.History(c.from*sec, c.to*sec); len(got) != c.want {
			t.Errorf("History(%ds, %ds) has %d episodes, want %d", c.from, c.to, len(got), c.want)
		}
	}
}

func TestSkipKeepsAlert(t *testing.T) {
	for from, want := range map[Status]Status{Learning: Normal, Normal: Normal, Alert: Alert, Dismissed: Normal} {
		s, r := Skip(machines()[from], 60*sec, 600*sec)
		if s.Status != want || s.Through != 600*sec || len(s.Open.Entries) != len(machines()[from].Open.Entries) || r.Kind != KindGap {
			t.Errorf("Skip in %v = %+v, want %v and no entry", from, s, want)
		}
	}
}

func TestRelearn(t *testing.T) {
	for from, m := range machines() {
		s, r := Relearn(m, 300*sec)
		if s.Status != Learning || s.Since != 300*sec || s.Until != 0 || s.Open.Start != 0 || r.Kind != KindRelearn {
			t.Errorf("Relearn in %v = %+v", from, s)
		}
		if from == Alert && (len(s.Closed) != 1 || s.Closed[0].End != 300*sec) {
			t.Errorf("Relearn in alert: history %+v, want the episode closed at 300s", s.Closed)
		}
	}
}

func TestDurations(t *testing.T) {
	eps := []Episode{{Start: 10 * sec, End: 70 * sec}, {Start: 100 * sec, End: 130 * sec}, {Start: 200 * sec}}
	if longest, average := Durations(eps); longest != time.Minute || average != 45*time.Second {
		t.Errorf("Durations = %v, %v, want 1m, 45s over the closed ones", longest, average)
	}
	if longest, average := Durations(eps[2:]); longest != 0 || average != 0 {
		t.Errorf("Durations of an open episode = %v, %v, want 0, 0", longest, average)
	}
}

// A day of windows: what ended a day ago is forgotten, an alert that lasts keeps its start.
func TestTrimDay(t *testing.T) {
	const day = 24 * 60
	s := machines()[Normal]
	for n := int64(2); n <= 2*day; n++ {
		count := int64(100)
		if n%10 < 3 || n > 2*day-day/2-1 { // short alerts, then one that lasts for 12 hours
			count = 200
		}
		s, _ = Judge(s, window(n, count))
		s = Trim(s, s.Through-24*60*width)
	}
	horizon := s.Through - 24*60*width
	for _, e := range s.Closed {
		if e.End <= horizon || e.Duration() != 3*time.Minute {
			t.Fatalf("episode %+v, horizon %d", e, horizon)
		}
	}
	if len(s.Closed) != 72 || len(s.Open.Entries) != 721 {
		t.Errorf("%d closed episodes and %d open entries, want 72 and 721", len(s.Closed), len(s.Open.Entries))
	}
	longer := s
	for n := int64(2*day + 1); n < 4*day; n++ {
		longer, _ = Judge(longer, window(n, 200))
		longer = Trim(longer, longer.Through-24*60*width)
	}
	if longer.Open.Start != s.Open.Start || len(longer.Open.Entries) != day || len(longer.Closed) != 0 {
		t.Errorf("an alert of days: start %d, %d entries, %d closed; want start %d, %d entries, 0 closed",
			longer.Open.Start, len(longer.Open.Entries), len(longer.Closed), s.Open.Start, day)
	}
}

func TestAbove(t *testing.T) {
	for _, c := range []struct {
		count, base, threshold int64
		want                   bool
	}{
		{110, 100, 10, false}, {111, 100, 10, true}, {100, 100, 0, false}, {101, 100, 0, true}, {0, 100, 10, false},
		{1, 1, 0, false}, {11, 9, 22, true}, {11, 9, 23, false}, {-5, -5, -5, false}, {1, 0, 10, true},
		{math.MaxInt64, 1, 1 << 62, true}, {math.MaxInt64, math.MaxInt64, 10, false}, {math.MaxInt64, math.MaxInt64 / 2, 100, true},
	} {
		if got := Above(c.count, c.base, c.threshold); got != c.want {
			t.Errorf("Above(%d, %d, %d) = %v, want %v", c.count, c.base, c.threshold, got, c.want)
		}
	}
	r := rand.New(rand.NewPCG(3, 4))
	for range 5000 {
		count, base, th := r.Int64()>>r.IntN(62), r.Int64()>>r.IntN(62), r.Int64()>>r.IntN(62)
		left := new(big.Int).Sub(big.NewInt(count), big.NewInt(base))
		left.Mul(left, big.NewInt(100))
		want := left.Cmp(new(big.Int).Mul(big.NewInt(th), big.NewInt(base))) > 0
		if got := Above(count, base, th); got != want {
			t.Fatalf("Above(%d, %d, %d) = %v, want %v", count, base, th, got, want)
		}
		limit := Limit(base, th)
		if Above(limit, base, th) || limit < math.MaxInt64 && !Above(limit+1, base, th) {
			t.Fatalf("Limit(%d, %d) = %d is not the largest count without alert", base, th, limit)
		}
	}
}

func TestCodec(t *testing.T) {
	s := machines()[Alert]
	w := without(window(2, 300))
	w.Joined, w.Damaged = []bucket.ID{{1}, {3}}, true
	_, verdict := Judge(s, w)
	verdict.LateHits, verdict.LateHosts = 5, []bucket.ID{{2}}
	_, gap := Skip(s, 60, 120)
	_, learned := Learned(State{Scope: baseline.Scope{Kind: baseline.ScopeDomain, Name: "example.org"}}, 60)
	_, relearn := Relearn(s, 70)
	for _, want := range []Record{verdict, gap, learned, relearn} {
		if got, err := Decode(Encode(want)); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("Decode(Encode(%+v)) = %+v, %v", want, got, err)
		}
	}
	if _, err := Decode([]byte(`{"v":2}`)); !errors.Is(err, ErrVersion) {
		t.Errorf("Decode of version 2: %v, want ErrVersion", err)
	}
	for _, bad := range []string{``, `{}`, `{"v":1,"kind":9}`, `{"v":1,"status":7}`, `{"v":1,"from":2,"to":1}`,
		`{"v":1,"status":2}`, `{"v":1,"scope":"fleet","hosts":"AAAA"}`, `{"v":1,"scope":"moon"}`} {
		if _, err := Decode([]byte(bad)); err == nil {
			t.Errorf("Decode(%s) succeeded", bad)
		}
	}
}
