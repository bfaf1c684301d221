package alert

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/httpctl/httpctl/aggregator/baseline"
	"github.com/httpctl/httpctl/pkg/bucket"
)

// allowed are the transitions of DESIGN section 7.
var allowed = map[[2]Status]bool{
	{Learning, Learning}: true, {Learning, Normal}: true, {Learning, Alert}: true,
	{Normal, Normal}: true, {Normal, Alert}: true,
	{Alert, Alert}: true, {Alert, Dismissed}: true,
	{Dismissed, Dismissed}: true, {Dismissed, Alert}: true, {Dismissed, Normal}: true,
}

// run drives a machine with random windows, gaps, late data, relearning and
// the passing of time, and returns its journal. visit is shown each state and what led to it.
func run(seed uint64, steps int, visit func(before, after State, how string)) (State, []Record) {
	r := rand.New(rand.NewPCG(seed, 0))
	s := State{Scope: baseline.Fleet}
	var journal []Record
	enforced, at := false, int64(0)
	for range steps {
		before, how := s, ""
		var rec Record
		switch n := r.IntN(20); {
		case !enforced:
			at += width
			s, rec = Learned(s, at)
			enforced, how = true, "learned"
		case n == 0 && r.IntN(4) == 0:
			at += width * int64(r.IntN(3))
			s, rec = Relearn(s, at)
			enforced, how = false, "relearn"
		case n == 1:
			to := at + width*int64(1+r.IntN(5))
			s, rec = Skip(s, at, to)
			at, how = to, "gap"
		case n < 8:
			s = Advance(s, at+int64(r.IntN(60))*sec)
			visit(before, s, "time")
			continue
		case n == 8 && len(journal) > 0:
			k := len(journal) - 1 - r.IntN(min(len(journal), 5))
			if journal[k].Kind == KindVerdict {
				journal[k].LateHits = int64(r.IntN(50))
				s = Annotate(s, journal[k].To, journal[k].LateHits)
				visit(before, s, "late")
			}
			continue
		default:
			w := Window{From: at, To: at + width, Count: int64(100 + r.IntN(21)), Baseline: 100, Threshold: 10,
				Interval: interval, Damaged: r.IntN(20) == 0}
			if r.IntN(5) == 0 {
				w.Missing = []bucket.ID{{2}}
			}
			if r.IntN(5) == 0 {
				w.Joined = []bucket.ID{{byte(r.IntN(4))}}
			}
			s, rec = Judge(s, w)
			at, how = w.To, "window"
		}
		journal = append(journal, rec)
		visit(before, s, how)
	}
	return s, journal
}

func TestForbiddenTransitionsNeverOccur(t *testing.T) {
	seen := map[[2]Status]bool{}
	for seed := range uint64(200) {
		run(seed, 300, func(before, after State, how string) {
			step := [2]Status{before.Status, after.Status}
			if how == "relearn" {
				if after.Status != Learning {
					t.Fatalf("seed %d: relearn leads to %v", seed, after.Status)
				}
				return
			}
			if !allowed[step] {
				t.Fatalf("seed %d: %v -> %v by %s", seed, before.Status, after.Status, how)
			}
			if how == "window" && before.Status == Learning && after.Status == Learning {
				t.Fatalf("seed %d: a window was judged and the state is still learning", seed)
			}
			if how != "window" && before.Status != Alert && after.Status == Alert {
				t.Fatalf("seed %d: %s raised an alert", seed, how)
			}
			if (after.Status == Alert) != (after.Open.Start != 0) {
				t.Fatalf("seed %d: %v with open episode %+v", seed, after.Status, after.Open)
			}
			seen[step] = true
		})
	}
	for step := range allowed {
		if !seen[step] {
			t.Errorf("%v -> %v never happened: the test is too weak", step[0], step[1])
		}
	}
}

// same compares as people see it: empty and absent lists are the same.
func same(a, b State) bool { return fmt.Sprintf("%+v", a) == fmt.Sprintf("%+v", b) }

func TestReplayIsLive(t *testing.T) {
	const later = 1 << 60
	for seed := range uint64(300) {
		live, journal := run(seed, 200, func(_, _ State, _ string) {})
		coded := make([]Record, len(journal))
		for i := range journal {
			var err error
			if coded[i], err = Decode(Encode(journal[i])); err != nil {
				t.Fatal(err)
			}
		}
		got, want := Advance(Replay(baseline.Fleet, coded), later), Advance(live, later)
		if !same(got, want) {
			t.Fatalf("seed %d: replay = %+v\nlive   = %+v", seed, got, want)
		}
		// Without the records before a horizon, the replay is the live state without what ended before it.
		for cut := 1; cut < len(journal); cut += 7 {
			horizon := journal[cut-1].To
			if journal[cut].To == horizon {
				continue
			}
			got := Trim(Advance(Replay(baseline.Fleet, coded[cut:]), later), horizon)
			want := Trim(want, horizon)
			if !same(got, want) {
				t.Fatalf("seed %d, cut at %d: replay = %+v\nlive   = %+v", seed, cut, got, want)
			}
		}
	}
}

// A journal with holes never panics and ends where its last record says.
func TestReplayWithHoles(t *testing.T) {
	for seed := range uint64(100) {
		_, journal := run(seed, 200, func(_, _ State, _ string) {})
		r := rand.New(rand.NewPCG(seed, 1))
		var kept []Record
		for _, rec := range journal {
			if r.IntN(3) > 0 {
				kept = append(kept, rec)
			}
		}
		s, last := Replay(baseline.Fleet, kept), kept[len(kept)-1]
		if s.Status != last.After.Status || s.Since != last.After.Since || s.Through != last.To ||
			s.Status == Alert && s.Open.Start != last.After.EpisodeStart {
			t.Fatalf("seed %d: state %+v after %+v", seed, s, last)
		}
	}
}
