package judge

import (
	"context"
	"slices"
	"time"

	"github.com/httpctl/httpctl/aggregator/alert"
	"github.com/httpctl/httpctl/aggregator/baseline"
	"github.com/httpctl/httpctl/pkg/bucket"
)

// Status is where the rule stands. Times are nanoseconds since the epoch, 0 when not known yet.
type Status struct {
	Scope  baseline.Scope
	Status alert.Status
	// Since is when Status began.
	Since int64
	// Baseline is requests per window, Limit the most that do not alert; both
	// are 0 while learning.
	Baseline, Limit int64
	// ThresholdPercent is average_threshold.
	ThresholdPercent int64
	// WindowStart, WindowEnd and WindowRequests are the window under way, and what
	// arrived of it so far; while learning, all of the learning.
	WindowStart, WindowEnd, WindowRequests int64
	// LearningStart and LearningEnd are T0 and T1; Estimate is what the
	// baseline would be by what was learned so far, 0 once it is enforced.
	LearningStart, LearningEnd, Estimate int64
	// Judged says that there is a last judged window, and Last is it.
	Judged bool
	Last   LastWindow
	// Joined names the hosts that contributed to the last judged window or the open
	// alert and that the baseline was not learned from.
	Joined []string
	// EventTime is the time up to which everything is known or was given up.
	EventTime int64
}

// LastWindow is the last window that was judged.
type LastWindow struct {
	From, To, Requests, LateRequests int64
	Incomplete                       bool
	// Missing names the hosts that it was judged without.
	Missing []string
}

// Alert is an episode with the names of its hosts.
type Alert struct {
	alert.Episode
	Scope baseline.Scope
	// Status is Alert while open, Dismissed when closed.
	Status alert.Status
	// JoinedHosts names the hosts of Episode.Joined.
	JoinedHosts []string
}

// Learned is what the baseline was learned from.
type Learned struct {
	baseline.Learning
	// Hosts are the names of Result.Hosts, sorted.
	Hosts []string
}

// view is what readers see: a moment of the machine after it became durable.
// It is replaced and never changed.
type view struct {
	state    alert.State
	learning baseline.Learning
	last     *alert.Record
	live     live
	event    int64
	names    map[bucket.ID]string
}

// live is what was counted of the window under way.
type live struct {
	from, to, requests, estimate, event int64
	names                               map[bucket.ID]string
}

// measure counts the window under way, or learning. What is before the event
// time is counted once and kept; the rest is counted anew.
func (j *Judge) measure(ctx context.Context, f fleet, fresh bool) error {
	m := live{event: j.eventTime(f), names: make(map[bucket.ID]string, len(f.hosts))}
	for _, h := range f.hosts {
		m.names[h.ID] = h.Name
	}
	defer func() { j.moment = m }()
	if !j.learning.Begun() {
		return nil
	}
	m.from, m.to = j.underWay()
	if m.from == j.moment.from && m.to == j.moment.to && !fresh {
		m.requests, m.estimate = j.moment.requests, j.moment.estimate
		return nil
	}
	width := int64(j.cfg.DashboardBucketSize)
	if j.settled.from != m.from {
		j.settled = tally{from: m.from, to: m.from}
	}
	if safe := min(m.event-m.event%width, m.to); safe > j.settled.to {
		ts, err := j.read(ctx, &f, j.settled.to, time.Duration(safe-j.settled.to), 1)
		if err != nil {
			return err
		}
		j.settled.to = safe
		j.settled.requests = add(j.settled.requests, ts[0].requests)
		j.settled.covered += ts[0].covered
	}
	m.requests = j.settled.requests
	if j.settled.to < m.to {
		ts, err := j.read(ctx, &f, j.settled.to, time.Duration(m.to-j.settled.to), 1)
		if err != nil {
			return err
		}
		m.requests = add(m.requests, ts[0].requests)
	}
	if !j.learning.Enforced {
		m.estimate = baseline.Rate(j.settled.requests, j.learning.Window, j.settled.covered)
	}
	return nil
}

// underWay bounds the window under way: the next to be judged, or learning.
func (j *Judge) underWay() (from, to int64) {
	switch {
	case !j.learning.Begun():
		return 0, 0
	case !j.learning.Enforced:
		return j.learning.From, j.learning.Until()
	}
	return j.state.Through, j.state.Through + int64(j.learning.Window)
}

// publish shows the machine as it is now; all of it is durable.
func (j *Judge) publish() {
	v := view{state: j.state, learning: j.learning, live: j.moment, event: j.moment.event, names: j.moment.names}
	if v.live.from, v.live.to = j.underWay(); v.live.from != j.moment.from {
		v.live.requests, v.live.estimate = 0, 0 // another window: not counted yet
	}
	for i := len(j.journal) - 1; i >= 0 && v.last == nil; i-- {
		switch l := j.journal[i]; l.Kind {
		case alert.KindVerdict:
			v.last = &l.Record
		case alert.KindLearned, alert.KindRelearn: // what is before was judged by another baseline
			i = 0
		}
	}
	j.mu.Lock()
	j.shown = v
	j.mu.Unlock()
}

func (j *Judge) view() view {
	j.mu.RLock()
	defer j.mu.RUnlock()
	return j.shown
}

// Status tells where the rule stands.
func (j *Judge) Status() Status {
	v := j.view()
	s := Status{Scope: j.scope, Status: v.state.Status, Since: v.state.Since, ThresholdPercent: j.cfg.AverageThreshold,
		WindowStart: v.live.from, WindowEnd: v.live.to, WindowRequests: v.live.requests, EventTime: v.event}
	if l := v.learning; l.Begun() {
		s.LearningStart, s.LearningEnd = l.From, l.Until()
		if l.Enforced {
			s.Baseline = l.Result.Baseline
			s.Limit = alert.Limit(s.Baseline, s.ThresholdPercent)
		} else {
			s.Since, s.Estimate = l.Origin, v.live.estimate
		}
	}
	joined := v.state.Open.Joined()
	if r := v.last; r != nil {
		s.Judged = true
		s.Last = LastWindow{From: r.From, To: r.To, Requests: r.Count, LateRequests: r.LateHits,
			Incomplete: r.Incomplete(), Missing: v.nameAll(r.Missing)}
		joined = append(joined, r.Joined...)
	}
	s.Joined = v.nameAll(joined)
	return s
}

// History returns the alerts that overlap [from, to) (nanoseconds; a to of 0 is no bound),
// newest first, with the longest and the average duration of the closed ones among them.
func (j *Judge) History(from, to int64) (alerts []Alert, longest, average time.Duration) {
	v := j.view()
	episodes := v.state.History(from, to)
	for _, e := range episodes {
		a := Alert{Episode: e, Scope: j.scope, Status: alert.Alert, JoinedHosts: v.nameAll(e.Joined())}
		if e.End != 0 {
			a.Status = alert.Dismissed
		}
		alerts = append(alerts, a)
	}
	longest, average = alert.Durations(episodes)
	return alerts, longest, average
}

// Baseline tells what was learned, or how far learning is.
func (j *Judge) Baseline() Learned {
	v := j.view()
	return Learned{Learning: v.learning, Hosts: v.nameAll(v.learning.Result.Hosts)}
}

// nameAll names hosts for people, sorted; one that the store forgot keeps its id.
func (v *view) nameAll(ids []bucket.ID) []string {
	ids = slices.Clone(ids)
	sortIDs(ids)
	var out []string
	for _, id := range slices.Compact(ids) {
		name := v.names[id]
		if name == "" {
			name = id.String()
		}
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}
