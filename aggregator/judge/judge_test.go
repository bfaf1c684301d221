package judge

import (
	"bytes"
	"context"
	"log/slog"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"github.com/httpctl/httpctl/aggregator/alert"
	"github.com/httpctl/httpctl/pkg/config"
)

const (
	width  = 10 * time.Second
	window = time.Minute
	lag    = time.Second // from the end of an interval to its bucket's arrival
)

func settings() config.Settings {
	s := config.DefaultSettings()
	s.AverageBucketSize, s.AverageLearningDuration = window, 2*time.Minute
	return s
}

// sim is an aggregator whose agents send a bucket for each interval. Its time
// is that of the synctest bubble, which begins on a whole minute.
type sim struct {
	*testing.T
	cfg   config.Settings
	st    *fake
	j     *Judge
	begin time.Time
	rates map[string]int64 // requests per interval, by host
	log   bytes.Buffer     // to be read while nothing runs
}

func newSim(t *testing.T) *sim {
	s := &sim{T: t, cfg: settings(), st: newFake(), begin: time.Now(), rates: map[string]int64{}}
	time.Sleep(2 * lag) // no interval ends before the hosts begin
	s.start()
	return s
}

func (s *sim) start() {
	s.Helper()
	j, err := New(s.cfg, s.st, time.Now, slog.New(slog.NewTextHandler(&s.log, nil)))
	if err != nil {
		s.Fatal(err)
	}
	if err := j.Start(s.Context()); err != nil {
		s.Fatal(err)
	}
	s.j = j
}

func (s *sim) stop() {
	s.Helper()
	if err := s.j.Stop(context.Background()); err != nil {
		s.Fatal(err)
	}
}

func (s *sim) restart() { s.stop(); s.start(); synctest.Wait() }

// run lets time pass to at (since the begin) plus lag, while the hosts deliver.
func (s *sim) run(at time.Duration) {
	for {
		next := time.Now().Add(-lag).Truncate(width).Add(width).Add(lag)
		if next.Sub(s.begin) > at+lag {
			break
		}
		time.Sleep(time.Until(next))
		for name, rate := range s.rates {
			s.st.add(name, next.Add(-lag-width), width, rate)
		}
		s.j.Notify()
	}
	time.Sleep(time.Until(s.begin.Add(at + lag + 2*time.Second)))
	synctest.Wait()
}

func (s *sim) want(at time.Duration, status alert.Status) Status {
	s.Helper()
	s.run(at)
	got := s.j.Status()
	if got.Status != status {
		s.Fatalf("at %v: %v, want %v (%+v)", at, got.Status, status, got)
	}
	return got
}

func (s *sim) at(d time.Duration) int64 { return s.begin.Add(d).UnixNano() }

func inBubble(t *testing.T, f func(s *sim)) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t)
		defer s.stop()
		f(s)
	})
}

// T0 is 10s, as the first interval is not whole; T1 is 130s; windows end at 190s, 250s, ...
const t1 = 130 * time.Second

func end(n int) time.Duration { return t1 + time.Duration(n)*window }

func TestLife(t *testing.T) {
	inBubble(t, func(s *sim) {
		if got := s.j.Status(); got.Status != alert.Learning || got.LearningEnd != 0 {
			t.Errorf("without hosts: %+v, want learning without end", got)
		}
		s.rates["a"] = 10
		got := s.want(70*time.Second, alert.Learning)
		if got.LearningStart != s.at(10*time.Second) || got.LearningEnd != s.at(t1) || got.Estimate != 60 || got.Baseline != 0 || got.WindowRequests != 60 {
			t.Errorf("while learning: %+v, want T0 10s, T1 130s, estimate 60", got)
		}
		got = s.want(t1, alert.Normal)
		if got.Baseline != 60 || got.Limit != 66 || got.Since != s.at(t1) || got.Estimate != 0 {
			t.Errorf("learned: %+v, want baseline 60, limit 66", got)
		}
		s.rates["a"] = 11 // 66: at the threshold
		got = s.want(end(1), alert.Normal)
		if !got.Judged || got.Last.Requests != 66 || got.Last.Incomplete || got.Last.To != s.at(end(1)) {
			t.Errorf("first window: %+v, want 66 requests, complete", got)
		}
		got = s.want(end(1)+30*time.Second, alert.Normal)
		if got.WindowRequests != 33 || got.WindowEnd != s.at(end(2)) {
			t.Errorf("half a window later: %+v, want 33 requests so far", got)
		}
		s.rates["a"] = 12
		s.want(end(2), alert.Alert) // 3*11 + 3*12 = 69
		s.want(end(3), alert.Alert)
		s.rates["a"] = 10
		s.want(end(4), alert.Dismissed)
		time.Sleep(width - lag - 3*time.Second)
		if got := s.j.Status(); got.Status != alert.Dismissed {
			t.Errorf("just before the boundary: %v, want dismissed", got.Status)
		}
		got = s.want(end(4)+width, alert.Normal)
		if got.Since != s.at(end(4)+width) {
			t.Errorf("normal since %v, want the boundary", time.Unix(0, got.Since).Sub(s.begin))
		}
		alerts, longest, average := s.j.History(0, 0)
		if len(alerts) != 1 || longest != 2*time.Minute || average != 2*time.Minute {
			t.Fatalf("History = %+v, %v, %v", alerts, longest, average)
		}
		a := alerts[0]
		if a.Start != s.at(end(2)) || a.End != s.at(end(4)) || len(a.Entries) != 2 || a.Entries[0].Hits != 69 ||
			a.Entries[1].Hits != 72 || a.Baseline != 60 || a.Threshold != 10 || a.Status != alert.Dismissed {
			t.Errorf("episode = %+v", a)
		}
		if b := s.j.Baseline(); !reflect.DeepEqual(b.Hosts, []string{"a"}) || b.Result.Covered != 2*time.Minute || b.Result.Requests != 120 {
			t.Errorf("Baseline = %+v", b)
		}
	})
}

// A restart in any state goes on as if nothing had been.
func TestRestartInEachState(t *testing.T) {
	inBubble(t, func(s *sim) {
		s.rates["a"] = 10
		check := func(at time.Duration, status alert.Status) {
			t.Helper()
			before := s.want(at, status)
			h, _, _ := s.j.History(0, 0)
			s.restart()
			if got := s.j.Status(); !reflect.DeepEqual(got, before) {
				t.Errorf("after restart at %v: %+v\nwant %+v", at, got, before)
			}
			if got, _, _ := s.j.History(0, 0); !reflect.DeepEqual(got, h) {
				t.Errorf("after restart at %v: history %+v\nwant %+v", at, got, h)
			}
		}
		check(50*time.Second, alert.Learning)
		check(t1, alert.Normal)
		check(end(1), alert.Normal)
		s.rates["a"] = 30
		check(end(2), alert.Alert)
		check(end(3)-20*time.Second, alert.Alert)
		check(end(3), alert.Alert)
		s.rates["a"] = 10
		check(end(4), alert.Dismissed)
		check(end(4)+width, alert.Normal)
		check(end(6), alert.Normal)
	})
}

// The process dies at each of its writes in turn. The history is always the same in the end.
func TestKillAtEachWrite(t *testing.T) {
	scenario := func(t *testing.T, killAt int) (history []Alert, keys []string, died bool) {
		synctest.Test(t, func(t *testing.T) {
			s := newSim(t)
			s.st.fail(killAt)
			s.rates["a"] = 0
			step := func(at time.Duration) {
				s.run(at)
				if s.j.Err() != nil { // it shows nothing that is not durable, and is killed
					died = true
					s.st.fail(-1)
					s.restart()
				}
			}
			step(t1) // nothing to learn from: starts again
			s.rates["a"] = 10
			step(t1 + 2*time.Minute)
			for n, rate := range []int64{10, 30, 30, 10, 10} {
				s.rates["a"] = rate
				step(t1 + 2*time.Minute + time.Duration(n+1)*window)
			}
			if _, err := s.j.Relearn(t.Context()); err != nil {
				died = true
				s.st.fail(-1)
				s.restart()
				if _, err := s.j.Relearn(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			step(20 * time.Minute)
			history, _, _ = s.j.History(0, 0)
			keys, _ = s.st.state()
			s.stop()
			if s.j.Status().Baseline != 60 {
				t.Errorf("kill at write %d: %+v", killAt, s.j.Status())
			}
		})
		return history, keys, died
	}
	want, wantKeys, _ := scenario(t, -1)
	if len(want) != 1 || len(want[0].Entries) != 2 {
		t.Fatalf("undisturbed history: %+v", want)
	}
	for n := 0; ; n++ {
		got, keys, died := scenario(t, n)
		if !died {
			if n < 10 {
				t.Errorf("only %d writes: the test is too weak", n)
			}
			return
		}
		if !reflect.DeepEqual(got, want) || len(keys) != len(wantKeys) {
			t.Errorf("kill at write %d: history %+v, %d keys\nwant %+v, %d keys", n, got, len(keys), want, len(wantKeys))
		}
	}
}

func TestNothingToLearnFrom(t *testing.T) {
	inBubble(t, func(s *sim) {
		s.rates["a"] = 0
		s.want(t1+5*time.Minute, alert.Learning)
		if b := s.j.Baseline(); b.Restarts != 3 || b.From != s.at(10*time.Second+6*time.Minute) || b.Origin != s.at(10*time.Second) {
			t.Errorf("idle fleet: %+v, want 3 restarts", b.Learning)
		}
		s.restart()
		delete(s.rates, "a") // silence: nothing is covered either
		s.want(30*time.Minute, alert.Learning)
		s.rates["b"] = 10
		s.want(40*time.Minute, alert.Normal)
		if b := s.j.Baseline(); b.Restarts < 12 || b.Result.Baseline != 60 || !reflect.DeepEqual(b.Hosts, []string{"b"}) {
			t.Errorf("after silence: %+v, want it learned from b", b)
		}
	})
}
