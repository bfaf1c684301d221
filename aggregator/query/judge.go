package query

import (
	"context"
	"time"

	"github.com/httpctl/httpctl/aggregator/store"
	httpctlv1 "github.com/httpctl/httpctl/proto/httpctl/v1"
)

// Judge is what learns and judges. Times are nanoseconds since the epoch, 0
// where there is none.
type Judge interface {
	Status() Status
	// Alerts returns the episodes that overlap [from, to), in any order; a to
	// of 0 is no bound.
	Alerts(from, to int64) []Alert
	Baseline() Baseline
	// Relearn forgets the baseline and returns when the new learning ends.
	Relearn(ctx context.Context) (time.Time, error)
	// Health tells the health of hosts; the result is parallel.
	Health(hosts []store.Host) []Health
}

// State is a state of the rule.
type State uint8

// The states of DESIGN section 7.
const (
	Learning State = iota
	Normal
	Alerting
	Dismissed
)

var states = [...]httpctlv1.AlertState{
	Learning:  httpctlv1.AlertState_ALERT_STATE_LEARNING,
	Normal:    httpctlv1.AlertState_ALERT_STATE_NORMAL,
	Alerting:  httpctlv1.AlertState_ALERT_STATE_ALERT,
	Dismissed: httpctlv1.AlertState_ALERT_STATE_DISMISSED,
}

// Health says how current a host is.
type Health uint8

// The healths of DESIGN section 7.
const (
	Reporting Health = iota
	Late
	Gone
)

var healths = [...]httpctlv1.HostHealth{
	Reporting: httpctlv1.HostHealth_HOST_HEALTH_REPORTING,
	Late:      httpctlv1.HostHealth_HOST_HEALTH_LATE,
	Gone:      httpctlv1.HostHealth_HOST_HEALTH_GONE,
}

// Status is where the rule stands.
type Status struct {
	Scope string
	State State
	Since int64
	// Baseline and Limit (the most requests per window that do not alert)
	// are shown unless State is Learning.
	Baseline, Limit  int64
	ThresholdPercent int64
	// The window under way, or while learning all of the learning, and its
	// requests in final buckets that have arrived.
	WindowStart, WindowEnd, WindowRequests int64
	LearningStart, LearningEnd             int64
	// Estimate is what the baseline would be now, while learning.
	Estimate int64
	// Last is the last judged window, nil if there is none.
	Last *Last
	// Joined names the hosts that contribute and that the baseline was not learned from.
	Joined []string
}

// Last is the last judged window.
type Last struct {
	Requests, End int64
	Incomplete    bool
}

// Alert is one episode.
type Alert struct {
	Scope string
	Start int64
	End   int64 // 0 while open
	// Baseline and ThresholdPercent that its first window was judged by.
	Baseline, ThresholdPercent int64
	Entries                    []AlertEntry
	Joined                     []string
}

// AlertEntry is one window above the threshold; Time is its end.
type AlertEntry struct {
	Time, Hits, LateHits int64
	Incomplete           bool
}

// Baseline is what was learned, from when and whom.
type Baseline struct {
	From, Until    int64
	Requests       int64
	CoveredSeconds int64
	Hosts          []string
	Restarts       uint32
}

// ListAlerts implements QueryService.
func (s *Service) ListAlerts(_ context.Context, r *httpctlv1.ListAlertsRequest) (*httpctlv1.ListAlertsResponse, error) {
	rng, err := s.rangeOf(r.GetRange(), s.Settings().MaxRetentionLength)
	if err != nil {
		return nil, err
	}
	return s.alerts(rng), nil
}

func (s *Service) alerts(rng span) *httpctlv1.ListAlertsResponse {
	out := &httpctlv1.ListAlertsResponse{TimeUnixNs: s.Now().UnixNano()}
	closed, total := int64(0), int64(0)
	for _, a := range newestFirst(s.Judge.Alerts(rng.from, rng.to)) {
		p := &httpctlv1.Alert{
			Scope: a.Scope, State: httpctlv1.AlertState_ALERT_STATE_ALERT, StartUnixNs: a.Start, EndUnixNs: a.End,
			Baseline: a.Baseline, ThresholdPercent: a.ThresholdPercent, JoinedHosts: sendables(a.Joined),
		}
		if a.End != 0 {
			p.State = httpctlv1.AlertState_ALERT_STATE_DISMISSED
			d := a.End - a.Start
			closed++
			total += d
			out.MaxDurationNs = max(out.MaxDurationNs, d)
		}
		for _, e := range a.Entries {
			p.Entries = append(p.Entries, &httpctlv1.AlertEntry{TimeUnixNs: e.Time, Hits: e.Hits, Incomplete: e.Incomplete, LateHits: e.LateHits})
		}
		out.Alerts = append(out.Alerts, p)
	}
	if closed > 0 {
		out.AverageDurationNs = total / closed
	}
	return out
}

// GetBaseline implements QueryService.
func (s *Service) GetBaseline(context.Context, *httpctlv1.GetBaselineRequest) (*httpctlv1.GetBaselineResponse, error) {
	b := s.Judge.Baseline()
	return &httpctlv1.GetBaselineResponse{
		Alert:              s.alertStatus(nil, false),
		LearnedFromUnixNs:  b.From,
		LearnedUntilUnixNs: b.Until,
		LearnedRequests:    b.Requests,
		CoveredSeconds:     b.CoveredSeconds,
		LearnedHosts:       sendables(b.Hosts),
		Restarts:           b.Restarts,
	}, nil
}

// Relearn implements QueryService.
func (s *Service) Relearn(ctx context.Context, _ *httpctlv1.RelearnRequest) (*httpctlv1.RelearnResponse, error) {
	end, err := s.Judge.Relearn(ctx)
	if err != nil {
		return nil, failed("relearn", err)
	}
	return &httpctlv1.RelearnResponse{LearningEndUnixNs: end.UnixNano()}, nil
}

// alertStatus tells where the rule stands. With live, what agents have sent of
// the interval under way counts in the window, so that it does not stand
// still for an interval; the rule judges final buckets only. o is of the whole fleet; nil takes nothing that hosts counted of others.
func (s *Service) alertStatus(o *others, live bool) *httpctlv1.AlertStatus {
	st := s.Judge.Status()
	if live && st.WindowEnd > 0 {
		window := span{from: st.WindowStart, to: st.WindowEnd}
		for _, p := range s.provisional(window, &selection{}) { // after the judge was asked: see Live
			st.WindowRequests += int64(o.requests(&p, true))
		}
	}
	out := &httpctlv1.AlertStatus{
		Scope: st.Scope, State: states[min(st.State, Dismissed)], SinceUnixNs: st.Since, ThresholdPercent: st.ThresholdPercent,
		WindowStartUnixNs: st.WindowStart, WindowEndUnixNs: st.WindowEnd, WindowRequests: uint64(max(st.WindowRequests, 0)),
		LearningStartUnixNs: st.LearningStart, LearningEndUnixNs: st.LearningEnd, EstimatedBaseline: st.Estimate,
		JoinedHosts: sendables(st.Joined),
	}
	if st.State != Learning {
		out.Baseline, out.ThresholdRequests = &st.Baseline, &st.Limit
	}
	if st.Last != nil {
		out.LastRequests, out.LastWindowEndUnixNs, out.LastIncomplete = &st.Last.Requests, st.Last.End, st.Last.Incomplete
	}
	return out
}
