package judge

import (
	"log/slog"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/httpctl/httpctl/aggregator/alert"
)

// journalOf returns what the store holds of a judge's state.
func (s *sim) journalOf() map[string]string {
	s.st.mu.Lock()
	defer s.st.mu.Unlock()
	out := map[string]string{}
	for k, v := range s.st.keys {
		out[k] = string(v.value)
	}
	return out
}

// TestFaultsChangeNoVerdict: faults of this program at any call of the store, before and after a write, cost time, and no verdict is another, left out,
// or taken twice.
func TestFaultsChangeNoVerdict(t *testing.T) {
	var want map[string]string
	for seed := range uint64(6) {
		inBubble(t, func(s *sim) {
			rng, faults := rand.New(rand.NewPCG(seed, 3)), 0
			if seed > 0 { // the first goes without
				s.st.setFault(func() {
					if rng.IntN(12) == 0 {
						faults++
						panic("as a test wants")
					}
				})
			}
			for n := range 14 {
				if n == 10 {
					s.st.setFault(nil)
				}
				s.rates["a"], s.rates["b"] = 10, []int64{10, 10, 40, 40, 10}[n%5]
				s.run(end(n))
			}
			s.run(end(13) + 40*time.Second) // the longest pause here
			got := s.journalOf()
			switch {
			case seed == 0:
				want = got
			case !reflect.DeepEqual(got, want):
				s.Errorf("seed %d, %d faults: the journal is\n%q\nwant\n%q", seed, faults, got, want)
			case faults < 10 || s.j.Stats().Faults != uint64(faults):
				s.Errorf("seed %d: %d faults, %d counted", seed, faults, s.j.Stats().Faults)
			}
			if seed > 0 {
				if n := strings.Count(s.log.String(), "worker=judge"); n != 1 {
					s.Errorf("seed %d: faults are logged %d times in a quarter of an hour, want once", seed, n)
				}
			}
			if err := s.j.Err(); err != nil {
				s.Errorf("seed %d: at the end: %v", seed, err)
			}
		})
	}
}

// TestFaultThatLasts: a judge whose every pass ends in a fault tries seldom, says so, is not taken for one that hangs, and answers; once the fault has
// gone it goes on.
func TestFaultThatLasts(t *testing.T) {
	inBubble(t, func(s *sim) {
		s.rates["a"] = 10
		s.want(t1, alert.Normal)
		tries := 0
		s.st.setFault(func() { tries++; panic("as a test wants\nfor long") })
		s.run(end(9))
		if tries < 4 || tries > 12 {
			t.Errorf("in nine minutes a judge that cannot judge tried %d times", tries)
		}
		if err := s.j.Err(); err == nil || !strings.Contains(err.Error(), "as a test wants") || strings.Contains(err.Error(), "goroutine") {
			t.Errorf("Err = %v, want the fault, without its stack", err)
		}
		if err := s.j.Progress(); err != nil {
			t.Errorf("Progress = %v, want nil: its loop goes round", err)
		}
		if _, err := s.j.Relearn(t.Context()); err == nil {
			t.Error("Relearn of what is not known gave no error")
		}
		if got := s.j.Status(); got.Status != alert.Normal || got.Judged {
			t.Errorf("Status = %+v, want what was before", got)
		}
		s.st.setFault(nil)
		s.run(end(15))
		if got := s.j.Status(); got.Last.To != s.at(end(15)) || s.j.Stats().Verdicts != 15 || s.j.Err() != nil {
			t.Errorf("after it: %+v, %+v, %v; want 15 verdicts", got, s.j.Stats(), s.j.Err())
		}
	})
}

// TestBatchesChangeNoVerdict: how many windows are read at once, which depends on how many hosts there are, changes nothing: neither while an aggregator that
// was away catches up with what its agents kept, nor in a gap of hours.
func TestBatchesChangeNoVerdict(t *testing.T) {
	var want map[string]string
	for _, slices := range []int{maxSlices, 2} {
		inBubble(t, func(s *sim) {
			s.j.work.Lock()
			s.j.slices = slices
			s.j.work.Unlock()
			again := func() {
				s.Helper()
				j, err := New(s.cfg, s.st, time.Now, slog.New(slog.DiscardHandler))
				if err != nil {
					s.Fatal(err)
				}
				j.slices = slices
				if err := j.Start(s.Context()); err != nil {
					s.Fatal(err)
				}
				s.j = j
			}
			s.rates["a"], s.rates["b"] = 10, 10
			s.run(end(3))
			s.stop()
			for n := 3; n < 75; n++ { // while it is away
				for at := end(n); at < end(n+1); at += width {
					time.Sleep(width)
					s.st.add("a", s.begin.Add(at), width, int64(10+10*(n%3)))
					s.st.add("b", s.begin.Add(at), width, 10)
				}
			}
			again()
			s.run(end(77))
			s.rates = map[string]int64{} // nobody, for hours
			s.run(end(150))
			s.rates["a"] = 10
			s.run(end(153))
			got := s.journalOf()
			if want == nil {
				want = got
			}
			if !reflect.DeepEqual(got, want) {
				s.Errorf("with %d slices at once the journal is\n%q\nwant\n%q", slices, got, want)
			}
			if n := s.j.Stats().Verdicts; n < 70 {
				s.Errorf("%d verdicts after it came back, want one for each window", n)
			}
		})
	}
}
