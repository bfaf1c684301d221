package judge

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/httpctl/httpctl/aggregator/alert"
	"github.com/httpctl/httpctl/aggregator/baseline"
	"github.com/httpctl/httpctl/pkg/bucket"
)

// Of two hosts one goes away during an alert: windows without it do not
// dismiss until it is gone.
func TestHostGoesAway(t *testing.T) {
	inBubble(t, func(s *sim) {
		s.rates["a"], s.rates["b"] = 10, 10
		s.want(end(1), alert.Normal)
		s.rates["a"] = 30
		s.want(end(2), alert.Alert)
		s.rates["a"] = 10
		delete(s.rates, "b")
		s.run(end(3))
		if got := s.j.Status(); got.Last.To != s.at(end(2)) {
			t.Errorf("before two widths after the window's end: %+v, want it not judged yet", got.Last)
		}
		got := s.want(end(3)+2*width, alert.Alert)
		if got.Last.To != s.at(end(3)) || !got.Last.Incomplete || got.Last.Requests != 60 || !reflect.DeepEqual(got.Last.Missing, []string{"b"}) {
			t.Errorf("two widths after: %+v, want it judged without b", got.Last)
		}
		hosts, _ := s.st.Hosts(s.Context())
		if h := s.j.Health(hosts); h[0] != Reporting || h[1] != Late {
			t.Errorf("Health = %v, want reporting, late", h)
		}
		s.want(end(6)+2*width, alert.Alert)
		got = s.want(end(7), alert.Dismissed) // b was last heard of at end(2): it is gone five minutes later
		if got.Last.Incomplete || got.Last.Requests != 60 {
			t.Errorf("without the gone host: %+v, want a complete window", got.Last)
		}
		if h := s.j.Health(hosts); h[0] != Reporting || h[1] != Gone {
			t.Errorf("Health = %v, want reporting, gone", h)
		}
		s.restart() // it stays gone
		if h := s.j.Health(hosts); h[1] != Gone {
			t.Errorf("after restart, Health = %v, want b gone", h)
		}
		s.want(end(9), alert.Normal)
		alerts, _, _ := s.j.History(0, 0)
		if len(alerts) != 1 || len(alerts[0].Entries) != 5 || !alerts[0].Entries[1].Incomplete || alerts[0].Entries[0].Incomplete {
			t.Errorf("History = %+v, want one alert that four incomplete windows continued", alerts)
		}
		if st := s.j.Stats(); st.Verdicts == 0 || st.Errors != 0 {
			t.Errorf("Stats = %+v", st)
		}
	})
}

// What a asks of b is counted by b, and by a alone while b is not there: the rule does not see b's agent go.
func TestAskedHostGoesAway(t *testing.T) {
	inBubble(t, func(s *sim) {
		s.st.asker, s.st.asks = "a", 4
		copy(s.st.of[:], "b")
		s.rates["a"], s.rates["b"] = 10, 4
		if got := s.want(end(1), alert.Normal); got.Last.Requests != 6*14 || got.Baseline != 6*14 {
			t.Errorf("with both: %+v, want 84 requests and a baseline of as many", got)
		}
		delete(s.rates, "b")
		if got := s.want(end(2)+2*width, alert.Normal); got.Last.To != s.at(end(2)) || got.Last.Requests != 6*14 {
			t.Errorf("without b: %+v, want what a counted of it, 84", got.Last)
		}
		s.restart()
		if got := s.want(end(3)+2*width, alert.Normal); got.Last.To != s.at(end(3)) || got.Last.Requests != 6*14 || !got.Last.Incomplete {
			t.Errorf("after a restart without b: %+v, want 84, incomplete", got.Last)
		}
		s.stop()
		f, err := s.j.census(s.Context())
		var ts []tally
		if err == nil { // of which b was there in the first
			ts, err = s.j.read(s.Context(), &f, s.at(end(0)), window, 3)
		}
		if err != nil || len(ts) != 3 || ts[0].requests != 6*14 || ts[1].requests != 6*14 || ts[2].requests != 6*14 {
			t.Errorf("three windows at once are %+v, %v, want 84 requests in each", ts, err)
		}
		s.st.mu.Lock()
		defer s.st.mu.Unlock()
		if s.st.kept > 0 {
			t.Errorf("%d questions without steps, of which a store would keep sums that nobody asks for again", s.st.kept)
		}
	})
}

// A host that is away and comes back delivers what it kept: verdicts are
// annotated, never changed.
func TestLateData(t *testing.T) {
	inBubble(t, func(s *sim) {
		s.rates["a"], s.rates["b"] = 10, 10
		s.want(end(1), alert.Normal)
		s.rates["a"] = 40
		s.want(end(2)-30*time.Second, alert.Normal)
		delete(s.rates, "b")
		got := s.want(end(2)+3*width, alert.Alert)
		if got.Last.Requests != 6*40+3*10 || !got.Last.Incomplete {
			t.Errorf("window without b: %+v, want 270 requests, incomplete", got.Last)
		}
		for at := end(2) - 30*time.Second; at < end(2)+3*width; at += width {
			s.st.add("b", s.begin.Add(at), width, 5)
		}
		s.rates["b"] = 10
		s.run(end(2) + 4*width)
		check := func() {
			t.Helper()
			alerts, _, _ := s.j.History(0, 0)
			if len(alerts) != 1 || alerts[0].Entries[0].Hits != 270 || alerts[0].Entries[0].LateHits != 15 || !alerts[0].Entries[0].Incomplete {
				t.Fatalf("History = %+v, want 270 hits, 15 late", alerts)
			}
		}
		check()
		s.restart()
		check()

		// A late part of an interval that was complete.
		s.st.add("a", s.begin.Add(end(2)-30*time.Second), width, 4)
		s.rates["a"] = 10
		s.want(end(4), alert.Dismissed)
		alerts, _, _ := s.j.History(0, 0)
		if e := alerts[0].Entries[0]; e.Hits != 270 || e.LateHits != 19 {
			t.Errorf("entry = %+v, want 270 hits, 19 late", e)
		}
		// Late data that would have alerted does not.
		s.st.add("a", s.begin.Add(end(4)-30*time.Second), width, 1000)
		got = s.want(end(5), alert.Normal)
		if alerts, _, _ := s.j.History(0, 0); len(alerts) != 1 {
			t.Errorf("late data raised an alert: %+v", alerts)
		}
	})
}

func TestHostJoins(t *testing.T) {
	inBubble(t, func(s *sim) {
		s.rates["a"] = 10
		s.want(end(1), alert.Normal)
		s.rates["new"] = 5
		got := s.want(end(2), alert.Alert)
		if !reflect.DeepEqual(got.Joined, []string{"new"}) {
			t.Errorf("Joined = %v, want the new host", got.Joined)
		}
		alerts, _, _ := s.j.History(0, 0)
		if len(alerts) != 1 || !reflect.DeepEqual(alerts[0].JoinedHosts, []string{"new"}) {
			t.Errorf("History = %+v, want the new host named", alerts)
		}
		until, err := s.j.Relearn(s.Context())
		if err != nil || !until.Equal(s.begin.Add(end(2)+width+2*time.Minute)) {
			t.Errorf("Relearn = %v, %v, want the end of learning from the next interval on", until.Sub(s.begin), err)
		}
		got = s.want(end(2)+width, alert.Learning)
		if got.Judged || got.Baseline != 0 || len(got.Joined) != 0 {
			t.Errorf("relearning: %+v, want nothing of the old baseline", got)
		}
		s.restart()
		s.want(end(4)+width, alert.Normal)
		b := s.j.Baseline()
		if b.Result.Baseline != 90 || !reflect.DeepEqual(b.Hosts, []string{"a", "new"}) || b.Restarts != 0 {
			t.Errorf("relearned: %+v, want 90 from a and new", b)
		}
		s.want(end(7), alert.Normal)
		alerts, _, _ = s.j.History(0, 0)
		if len(alerts) != 1 || alerts[0].Status != alert.Dismissed || alerts[0].End != s.at(end(2)+width) {
			t.Errorf("History = %+v, want the alert closed when relearning began", alerts)
		}
	})
}

// The aggregator is away for minutes. Agents keep their buckets and send them
// when it is back: all windows are judged, in order, none incomplete.
func TestAggregatorAbsent(t *testing.T) {
	inBubble(t, func(s *sim) {
		s.rates["a"], s.rates["b"] = 10, 10
		s.want(end(1), alert.Normal)
		s.stop()
		time.Sleep(10 * time.Minute)
		s.start()
		time.Sleep(width)
		if got := s.j.Status(); got.Last.To != s.at(end(1)) || s.j.Stats().Gaps != 0 {
			t.Fatalf("back, no agent yet: %+v, want nothing judged or skipped", got)
		}
		// The agents take longer than two widths to come back, and all their buckets come between two
		// looks of the judge.
		time.Sleep(2*width + 700*time.Millisecond)
		now := time.Since(s.begin).Truncate(width)
		for at := end(1); at < now; at += width {
			rate := int64(10)
			if at >= end(4) && at < end(6) {
				rate = 20
			}
			s.st.add("a", s.begin.Add(at), width, rate)
			s.st.add("b", s.begin.Add(at), width, rate)
		}
		s.j.Notify()
		s.want(now+width, alert.Normal)
		st := s.j.Stats()
		if st.Verdicts != 10 || st.Incomplete != 0 || st.Gaps != 0 || st.Late != 0 {
			t.Errorf("Stats = %+v, want 10 verdicts, all complete", st)
		}
		alerts, longest, _ := s.j.History(0, 0)
		if len(alerts) != 1 || alerts[0].Start != s.at(end(5)) || alerts[0].End != s.at(end(7)) || longest != 2*time.Minute {
			t.Errorf("History = %+v, want the alert of the absence", alerts)
		}
	})
}

// Everything is off for a month: one gap, and an alert that was open stays open.
func TestLongGap(t *testing.T) {
	inBubble(t, func(s *sim) {
		s.rates["a"] = 10
		s.want(end(1), alert.Normal)
		s.rates["a"] = 30
		s.want(end(2), alert.Alert)
		s.stop()
		time.Sleep(30 * 24 * time.Hour)
		s.start()
		_, queries := s.st.state()
		back := time.Since(s.begin).Truncate(width)
		s.run(back + 10*time.Minute)
		if got := s.j.Status(); got.Status != alert.Alert || got.Last.Requests != 180 {
			t.Errorf("back after a month: %+v, want the alert continued", got)
		}
		s.rates["a"] = 10
		s.run(back + 12*time.Minute)
		if got := s.j.Status(); got.Status == alert.Alert {
			t.Errorf("and calm: %+v", got)
		}
		if st := s.j.Stats(); st.Gaps > 3 {
			t.Errorf("Stats = %+v, want the gap journalled as one", st)
		}
		keys, now := s.st.state()
		if n := now - queries; n > 1000 {
			t.Errorf("%d queries to catch up with 43,200 windows", n)
		}
		for _, k := range keys {
			if strings.Contains(k, "learned") {
				t.Errorf("the journal still holds %q", k)
			}
		}
	})
}

// Silence is journalled as one growing gap, and never dismisses.
func TestSilence(t *testing.T) {
	inBubble(t, func(s *sim) {
		s.rates["a"] = 30
		s.want(t1, alert.Normal)
		s.rates["a"] = 60
		s.want(end(1), alert.Alert)
		keys, _ := s.st.state()
		delete(s.rates, "a")
		s.want(time.Hour, alert.Alert)
		if now, _ := s.st.state(); len(now) != len(keys)+1 {
			t.Errorf("%d keys, want %d: one gap", len(now), len(keys)+1)
		}
		if n := strings.Count(s.log.String(), MessageUnobserved); n < 2 || n > 8 {
			t.Errorf("%d lines in the log of an hour's silence, want one each time it has doubled", n)
		}
		if got := s.j.Status(); got.WindowEnd < s.at(time.Hour-window) {
			t.Errorf("window under way ends at %v", time.Unix(0, got.WindowEnd).Sub(s.begin))
		}
		s.restart()
		s.rates["a"] = 30
		s.run(time.Hour + 3*time.Minute)
		if got := s.j.Status(); got.Status == alert.Alert {
			t.Errorf("back and calm: %+v", got)
		}
	})
}

// A host whose clock is more than five minutes ahead is neither counted nor waited for.
func TestSkewedHost(t *testing.T) {
	inBubble(t, func(s *sim) {
		s.rates["a"] = 10
		s.st.add("ahead", s.begin.Add(10*time.Minute), width, 7)
		s.want(t1, alert.Normal)
		for at := time.Duration(0); at < 10*time.Minute; at += width {
			s.st.add("ahead", s.begin.Add(t1+at+6*time.Minute+30*time.Second), width, 500)
			s.run(t1 + at + width)
		}
		if got := s.j.Status(); got.Status != alert.Normal || got.Last.Requests != 60 || got.Last.To != s.at(end(10)) || got.Last.Incomplete {
			t.Errorf("with a host ahead: %+v, want 60 requests", got)
		}
	})
}

// What a clock that was ahead had dated wrongly is not judged either when that time comes.
func TestSkewedBucketIsNeverJudged(t *testing.T) {
	inBubble(t, func(s *sim) {
		s.rates["a"] = 10
		s.want(t1, alert.Normal)
		for at := time.Duration(0); at < 5*time.Minute; at += width {
			s.st.add("b", s.begin.Add(t1+20*time.Minute+at), width, 5000)
		}
		for n := 1; n < 30; n++ {
			s.rates["a"] = 10
			s.want(end(n), alert.Normal)
		}
	})
}

// A host whose clock was hours ahead for a moment is waited for and counted again once it is set
// right, and not when those hours have passed.
func TestClockSetRight(t *testing.T) {
	inBubble(t, func(s *sim) {
		s.rates["a"], s.rates["b"] = 10, 10
		s.want(end(1), alert.Normal)
		s.st.add("b", s.begin.Add(end(1)+5*time.Hour), width, 1)
		for n := 2; n < 12; n++ {
			s.rates["b"] = 100
			s.want(end(n)-2*width, map[bool]alert.Status{true: alert.Normal, false: alert.Alert}[n == 2])
			delete(s.rates, "b") // the last two of the window come late
			s.run(end(n))
			if got := s.j.Status(); got.Last.To == s.at(end(n)) {
				t.Fatalf("window %d was judged without b: %+v", n, got.Last)
			}
			for at := end(n) - 2*width; at < end(n); at += width {
				s.st.add("b", s.begin.Add(at), width, 100)
			}
			s.j.Notify()
			time.Sleep(2 * time.Second)
			synctest.Wait()
			hosts, _ := s.st.Hosts(t.Context())
			got := s.j.Status()
			if health := s.j.Health(hosts); got.Last.Requests != 660 || got.Last.Incomplete || health[1] != Reporting {
				t.Fatalf("window %d: %+v, b is %v; want 660 requests of both, reporting", n, got.Last, health[1])
			}
		}
	})
}

// What cannot be read makes a window incomplete: it does not dismiss.
func TestDamage(t *testing.T) {
	inBubble(t, func(s *sim) {
		s.rates["a"] = 10
		s.want(t1, alert.Normal)
		s.rates["a"] = 30
		s.want(end(1), alert.Alert)
		s.rates["a"] = 10
		s.st.mu.Lock()
		s.st.damaged = []int64{s.at(end(1) + width)}
		s.st.mu.Unlock()
		got := s.want(end(2), alert.Alert)
		if !got.Last.Incomplete {
			t.Errorf("damaged window: %+v, want incomplete", got.Last)
		}
		s.want(end(3), alert.Dismissed)
	})
}

// Records older than the retention go, and nothing else changes.
func TestRetention(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t)
		defer s.stop()
		s.restartWith(func() { s.cfg.MaxRetentionLength = 10 * time.Minute })
		s.rates["a"] = 10
		s.want(end(1), alert.Normal)
		for n := 2; n < 40; n++ {
			s.rates["a"] = 10
			if n%4 < 2 {
				s.rates["a"] = 20
			}
			s.run(end(n))
		}
		if keys, _ := s.st.state(); len(keys) > 13 {
			t.Errorf("%d keys, want 10 minutes of verdicts", len(keys))
		}
		before, longest, average := s.j.History(0, 0)
		if len(before) != 3 || longest != 2*time.Minute || average != 2*time.Minute {
			t.Errorf("History = %d alerts, %v, %v", len(before), longest, average)
		}
		s.restart()
		if after, _, _ := s.j.History(0, 0); !reflect.DeepEqual(after, before) {
			t.Errorf("history after restart = %+v\nwant %+v", after, before)
		}
	})
}

func (s *sim) restartWith(change func()) {
	s.Helper()
	s.stop()
	change()
	s.start()
	synctest.Wait()
}

func TestChangedSettings(t *testing.T) {
	inBubble(t, func(s *sim) {
		s.rates["a"] = 10
		s.want(time.Minute, alert.Learning)
		s.restartWith(func() { s.cfg.AverageLearningDuration = 3 * time.Minute })
		if got := s.j.Status(); got.LearningEnd != s.at(10*time.Second+3*time.Minute) {
			t.Errorf("average_learning_duration: learning ends at %v", time.Unix(0, got.LearningEnd).Sub(s.begin))
		}
		s.want(190*time.Second, alert.Normal)
		s.restartWith(func() { s.cfg.AverageThreshold = 50 })
		if got := s.j.Status(); got.Limit != 90 || got.Status != alert.Normal {
			t.Errorf("average_threshold: %+v, want a limit of 90", got)
		}
		s.rates["a"] = 15
		s.want(250*time.Second, alert.Normal)
		s.restartWith(func() { s.cfg.AverageBucketSize = 2 * time.Minute })
		got := s.want(300*time.Second, alert.Learning)
		if b := s.j.Baseline(); b.Origin < s.at(250*time.Second) || got.Baseline != 0 {
			t.Errorf("average_bucket_size: %+v, want it relearned", b)
		}
		s.restart() // only once
		s.want(10*time.Minute, alert.Normal)
		if b := s.j.Baseline(); b.Result.Baseline != 180 {
			t.Errorf("relearned: %+v, want 180 for two minutes", b)
		}
		s.stop()
		s.cfg.DashboardBucketSize, s.cfg.AverageBucketSize = 7*time.Second, 20*time.Second
		if _, err := New(s.cfg, s.st, time.Now, slog.Default()); err == nil {
			t.Error("New accepted windows that are no multiple of intervals")
		}
	})
}

// Two judges on one store: the slower one takes over what the faster wrote.
func TestConflictReloads(t *testing.T) {
	inBubble(t, func(s *sim) {
		s.rates["a"] = 10
		s.want(t1, alert.Normal)
		other, err := New(s.cfg, s.st, time.Now, slog.New(slog.NewTextHandler(io.Discard, nil)))
		if err != nil {
			t.Fatal(err)
		}
		if err := other.Start(s.Context()); err != nil {
			t.Fatal(err)
		}
		s.rates["a"] = 20
		s.want(end(3), alert.Alert)
		time.Sleep(5 * time.Second)
		if got, want := other.Status(), s.j.Status(); got.Status != want.Status || got.Since != want.Since || got.Last.To != want.Last.To {
			t.Errorf("the other judge: %+v\nwant %+v", got, want)
		}
		if err := other.Stop(s.Context()); err != nil {
			t.Fatal(err)
		}
		if err := other.Stop(s.Context()); err != nil {
			t.Errorf("second Stop: %v", err)
		}
	})
}

func TestStartRefusesUnreadableState(t *testing.T) {
	for key, value := range map[string]string{
		baselineKey(baseline.Fleet):                           `{"v":99}`,
		journalPrefix(baseline.Fleet) + "0000000000000000001": `{"v":1,"status":9}`,
	} {
		st := newFake()
		if _, err := st.CompareAndSwap(t.Context(), key, 0, []byte(value)); err != nil {
			t.Fatal(err)
		}
		j, err := New(settings(), st, time.Now, slog.Default())
		if err != nil {
			t.Fatal(err)
		}
		if err := j.Start(t.Context()); err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("Start with bad %q: %v, want an error that names it", key, err)
		}
		if err := j.Stop(t.Context()); err != nil {
			t.Errorf("Stop after a failed Start: %v", err)
		}
		if _, err := j.Relearn(t.Context()); err == nil {
			t.Error("Relearn on unreadable state succeeded")
		}
	}
}

// Keys sort in the order in which the steps happen.
func TestJournalKeysSort(t *testing.T) {
	var s alert.State
	s, learned := alert.Learned(s, 100)
	s, gap := alert.Skip(s, 100, 160)
	s, verdict := alert.Judge(s, alert.Window{From: 160, To: 220})
	_, relearn := alert.Relearn(s, 220)
	last := ""
	for _, r := range []alert.Record{learned, gap, verdict, relearn} {
		if key := journalKey(r); key <= last {
			t.Errorf("key %q of %v does not sort after %q", key, r.Kind, last)
		} else {
			last = key
		}
	}
}

// A store that fails is reported and tried again.
func TestStoreFails(t *testing.T) {
	inBubble(t, func(s *sim) {
		s.rates["a"] = 10
		s.want(t1, alert.Normal)
		s.st.fail(0)
		got := s.want(end(2), alert.Normal)
		if got.Judged || !errors.Is(s.j.Err(), errKilled) || s.j.Stats().Errors == 0 {
			t.Errorf("a verdict that is not durable is shown: %+v, err %v", got, s.j.Err())
		}
		s.st.fail(-1)
		got = s.want(end(3), alert.Normal)
		if got.Last.To != s.at(end(3)) || s.j.Err() != nil {
			t.Errorf("the store is back: %+v, err %v", got, s.j.Err())
		}
	})
}

func TestHealthNames(t *testing.T) {
	if got := fmt.Sprint(Reporting, Late, Gone); got != "reporting late gone" {
		t.Errorf("names = %q", got)
	}
	if id := (bucket.ID{0xab}); (&view{}).nameAll([]bucket.ID{id, id})[0] != id.String() {
		t.Error("a host without a name does not show its id")
	}
}

// TestForgottenHosts: the judge keeps nothing of a host that the store forgot.
func TestForgottenHosts(t *testing.T) {
	inBubble(t, func(s *sim) {
		s.rates["a"], s.rates["b"] = 10, 10
		s.run(time.Minute)
		delete(s.rates, "b")
		s.st.mu.Lock()
		for id, h := range s.st.hosts {
			if h.Name == "b" {
				delete(s.st.hosts, id)
			}
		}
		s.st.mu.Unlock()
		s.run(2 * time.Minute)
		s.j.work.Lock()
		defer s.j.work.Unlock()
		if len(s.j.swept) != 1 || len(s.j.progress) != 1 {
			s.Errorf("the judge remembers %d and %d hosts, want the 1 there is", len(s.j.swept), len(s.j.progress))
		}
	})
}
