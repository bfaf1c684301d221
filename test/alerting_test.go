package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	aggregator "github.com/httpctl/httpctl/aggregator/app"
	"github.com/httpctl/httpctl/cmd/httpctl/client"
	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/view"
)

// TestAlerting takes the rule through all its states with replayed traffic:
// one host with a steady load, one that joins with a surge and goes away. The
// aggregator is restarted in each state. Every number equals what the captures hold.
func TestAlerting(t *testing.T) {
	t.Parallel()
	// A window is judged two intervals after its end at the latest, which is to be enough for its buckets to come.
	const width, window, learns = 2 * time.Second, 4 * time.Second, 6 * time.Second
	const step, surgeStep = 50 * time.Millisecond, 20 * time.Millisecond
	const steady, surge = 6000, 3000 // requests: more than the test has time for
	c := newCenter(t, func(s *config.Settings, _ *aggregator.Config) {
		s.DashboardBucketSize, s.AverageBucketSize, s.AverageLearningDuration = width, window, learns
		s.HostGoneAfter, s.AverageThreshold = 3*width, 30
	})
	bin := filepath.Dir(program(t, "httpctl"))
	startWatcher(t, c.settings, agentConfig(c.address(), stateDir(t), "web-1"), numbered(t, 0, steady, step))

	status := func() view.AlertStatus {
		t.Helper()
		var got view.AlertStatus
		eventually(t, "the aggregator answers", func() error {
			s, err := c.client.Status(t.Context())
			if err == nil {
				got = s.Alert
			}
			return err
		})
		return got
	}
	wait := func(states ...view.State) view.AlertStatus {
		t.Helper()
		var got view.AlertStatus
		deadline := time.Now().Add(patience)
		for got = status(); !slices.Contains(states, got.State); got = status() {
			if time.Now().After(deadline) {
				t.Fatalf("the state is %s, want %s soon: %+v", got.State, states, got)
			}
			time.Sleep(20 * time.Millisecond)
		}
		return got
	}
	restart := func(want view.AlertStatus, also ...view.State) {
		t.Helper()
		c.stop()
		c.start()
		got := status()
		if got.State != want.State && !slices.Contains(also, got.State) {
			t.Errorf("after a restart in state %s it is %s", want.State, got.State)
		}
		if got.State != want.State {
			return
		}
		if !got.Since.Equal(want.Since) || got.ThresholdPercent != 30 {
			t.Errorf("after a restart %s since %v at %d%%, want since %v at 30%%", got.State, got.Since, got.ThresholdPercent, want.Since)
		}
		if (want.Baseline == nil) != (got.Baseline == nil) || want.Baseline != nil && *got.Baseline != *want.Baseline {
			t.Errorf("after a restart the baseline is %v, want %v", got.Baseline, want.Baseline)
		}
	}

	// Learning. The estimate and the window under way move while it lasts.
	eventually(t, "learning begins", func() error {
		if s := status(); s.LearningEnd.IsZero() {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	learning := status()
	if learning.State != view.Learning || learning.LearningEnd.Sub(learning.LearningStart) != learns || learning.Baseline != nil {
		t.Errorf("learning: %+v", learning)
	}
	restart(learning, view.Normal) // it lasts six seconds

	normal := wait(view.Normal)
	if !normal.Since.Equal(learning.LearningEnd) {
		t.Errorf("normal since %v, want the end of learning, %v", normal.Since, learning.LearningEnd)
	}
	restart(normal)

	// A second host joins with a surge: 50 more a second. It goes away in the middle of a window that is one more entry.
	joined := startWatcher(t, c.settings, agentConfig(c.address(), stateDir(t), "web-2"), numbered(t, 100_000, surge, surgeStep))
	alerting := wait(view.Alerting)
	restart(alerting)
	eventually(t, "the alert goes on", func() error {
		alerts, err := c.client.Alerts(t.Context(), client.Question{})
		if err != nil || len(alerts.Alerts) != 1 || len(alerts.Alerts[0].Entries) < 2 {
			return fmt.Errorf("%+v, %v", alerts, err)
		}
		if s := status(); s.ThresholdRequests == nil || int64(s.WindowRequests) <= *s.ThresholdRequests {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	joined.stop()
	dismissed := wait(view.Dismissed, view.Normal) // it lasts an interval
	restart(dismissed, view.Normal)
	again := wait(view.Normal)
	if again.Since.UnixNano()%int64(width) != 0 {
		t.Errorf("dismissed until %v, want a boundary of intervals", again.Since)
	}
	restart(again)
	eventually(t, "the host that stopped is gone", func() error {
		hosts, err := c.client.Hosts(t.Context(), client.Question{})
		if err != nil {
			return err
		}
		for _, h := range hosts {
			if want := map[string]view.Health{"web-1": view.Reporting, "web-2": view.Gone}[h.Name]; h.Health != want {
				return fmt.Errorf("%s is %s, want %s", h.Name, h.Health, want)
			}
		}
		return nil
	})

	// The form of the answer, and the numbers in it, against the captures: when
	// each request was seen follows from the first of its host.
	first := func(n int, host string) time.Time {
		t.Helper()
		top, err := c.client.Top(t.Context(), "section", client.Question{Limit: 10_000, Filters: []client.Filter{{Column: "section", Values: []string{fmt.Sprintf("example.org/%d", n)}}}})
		if err != nil || len(top.Rows) != 1 {
			t.Fatalf("the first request of %s: %v, %v", host, top, err)
		}
		for i, column := range top.Columns {
			if column.Name == "last_seen" {
				return time.Unix(0, top.Rows[0].Values[i].Number)
			}
		}
		t.Fatal("no column last_seen")
		return time.Time{}
	}
	begin, joins := first(0, "web-1"), first(100_000, "web-2")
	shown := 0 // of the surge, before its agent was stopped
	hosts, err := c.client.Hosts(t.Context(), client.Question{})
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range hosts {
		if h.Name == "web-2" {
			shown = int(h.Requests)
		}
	}
	within := func(begin time.Time, n int, step time.Duration, from, to time.Time) (hits int64) {
		for i := range n {
			if at := begin.Add(time.Duration(i) * step); !at.Before(from) && at.Before(to) {
				hits++
			}
		}
		return hits
	}
	count := func(from, to time.Time) int64 {
		return within(begin, steady, step, from, to) + within(joins, shown, surgeStep, from, to)
	}
	if want := (count(learning.LearningStart, learning.LearningEnd)*int64(window)*2 + int64(learns)) / (int64(learns) * 2); *normal.Baseline != want {
		t.Errorf("baseline %d, want %d: learned in %v, for windows of %v", *normal.Baseline, want, learns, window)
	}

	out, err := exec.Command(filepath.Join(bin, "httpctl"), "alerts", "-o", "json", "--since", "1h", "--aggregator", c.address()).Output()
	if err != nil {
		t.Fatal(err)
	}
	var answer struct {
		Alerts []struct {
			Scope            string    `json:"scope"`
			State            string    `json:"state"`
			Start            time.Time `json:"start"`
			End              time.Time `json:"end"`
			Duration         float64   `json:"duration_seconds"`
			Baseline         int64     `json:"baseline"`
			ThresholdPercent int64     `json:"threshold_percent"`
			Entries          []struct {
				Time       time.Time `json:"time"`
				Hits       int64     `json:"hits"`
				LateHits   int64     `json:"late_hits"`
				Incomplete bool      `json:"incomplete"`
			} `json:"entries"`
			JoinedHosts []string `json:"joined_hosts"`
		} `json:"alerts"`
		Max     float64 `json:"max_duration_seconds"`
		Average float64 `json:"average_duration_seconds"`
	}
	exact := json.NewDecoder(bytes.NewReader(out))
	exact.DisallowUnknownFields()
	if err := exact.Decode(&answer); err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	if len(answer.Alerts) != 1 {
		t.Fatalf("%d alerts, want one episode:\n%s", len(answer.Alerts), out)
	}
	a := answer.Alerts[0]
	if !slices.Equal(a.JoinedHosts, []string{"web-2"}) {
		t.Errorf("joined hosts %v, want web-2", a.JoinedHosts)
	}
	if a.Scope != "fleet" || a.State != "dismissed" || a.Baseline != *normal.Baseline || a.ThresholdPercent != 30 {
		t.Errorf("the episode is %+v, want a dismissed one of the fleet", a)
	}
	for _, r := range []struct {
		since, until time.Time // zero: the flag is left out
		want         int
	}{
		{time.Time{}, a.Start.Add(-time.Millisecond), 0},
		{time.Time{}, a.Start.Add(time.Second), 1},
		{a.Start.Add(time.Second), a.Start.Add(2 * time.Second), 1},
		{a.End.Add(-time.Millisecond), time.Time{}, 1},
		{a.End.Add(time.Millisecond), time.Time{}, 0},
		{a.Start.Add(-time.Minute), a.Start.Add(-time.Second), 0},
	} {
		args := []string{"alerts", "-o", "csv", "--aggregator", c.address()}
		for flag, at := range map[string]time.Time{"--since": r.since, "--until": r.until} {
			if !at.IsZero() {
				args = append(args, flag, at.Format(time.RFC3339Nano))
			}
		}
		out, err := exec.Command(filepath.Join(bin, "httpctl"), args...).Output()
		if got := bytes.Count(out, []byte("\n")) - 1; err != nil || got != r.want {
			t.Errorf("%v: %d alerts, %v; want %d, as it lasted from %v to %v", args, got, err, r.want, a.Start, a.End)
		}
	}
	if alerts, err := c.client.Alerts(t.Context(), client.Question{}); err != nil || !slices.Equal(alerts.Alerts[0].JoinedHosts, []string{"web-2"}) {
		t.Errorf("joined hosts of %+v, %v, want web-2", alerts, err)
	}
	if a.Duration != a.End.Sub(a.Start).Seconds() || answer.Max != a.Duration || answer.Average != a.Duration || len(a.Entries) < 2 {
		t.Errorf("durations %v, %v, %v of %v to %v in %d entries", a.Duration, answer.Max, answer.Average, a.Start, a.End, len(a.Entries))
	}
	if !a.Start.Equal(a.Entries[0].Time) || !a.End.Equal(a.Entries[len(a.Entries)-1].Time.Add(window)) {
		t.Errorf("the episode lasts from %v to %v, want from the end of its first window to that of the one after its last", a.Start, a.End)
	}
	for i, e := range a.Entries {
		from := e.Time.Add(-window)
		if from.Sub(learning.LearningEnd)%window != 0 {
			t.Errorf("window %d ends at %v, which no window from %v on does", i, e.Time, learning.LearningEnd)
		}
		if want := count(from, e.Time); e.Hits+e.LateHits != want || e.LateHits != 0 && !e.Incomplete {
			t.Errorf("window %d has %d requests and %d late, incomplete: %v, want %d", i, e.Hits, e.LateHits, e.Incomplete, want)
		}
		if (e.Hits-a.Baseline)*100 <= 30*a.Baseline {
			t.Errorf("window %d with %d requests is no alert by a baseline of %d", i, e.Hits, a.Baseline)
		}
	}
	if dismissed.State == view.Dismissed && !dismissed.Since.Equal(a.End) {
		t.Errorf("dismissed since %v, want %v", dismissed.Since, a.End)
	}

	until, err := c.client.Relearn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if s := status(); s.State != view.Learning || !s.LearningEnd.Equal(until) || s.Baseline != nil {
		t.Errorf("after relearn: %+v, want learning until %v", s, until)
	}
	restart(status())
	if s := wait(view.Normal); !s.Since.Equal(until) {
		t.Errorf("normal again since %v, want %v", s.Since, until)
	}
}
