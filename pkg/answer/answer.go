// Package answer turns answers of the query service into the plain structs of package view, for whoever
// asked over a connection or in the same process. Generated types stop here.
package answer

import (
	"time"

	"github.com/httpctl/httpctl/pkg/view"
	pb "github.com/httpctl/httpctl/proto/httpctl/v1"
)

// Moment is the time of Unix nanoseconds; 0 is no time.
func Moment(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns)
}

// Dashboard is all of the dashboard.
func Dashboard(a *pb.GetDashboardResponse) *view.Dashboard {
	d := &view.Dashboard{
		Status: Status(a.GetStatus()), Alerts: Alerts(a.GetAlerts()), Hosts: Hosts(a.GetHosts()),
		RateHistory: a.GetRateHistory(), Notes: a.GetNotes(),
	}
	for _, t := range a.GetTops() {
		d.Tops = append(d.Tops, Top(t))
	}
	return d
}

// Status is the header of the dashboard.
func Status(a *pb.GetStatusResponse) view.Status {
	return view.Status{
		Time: Moment(a.GetTimeUnixNs()), Version: a.GetVersion(),
		Interval: time.Duration(a.GetIntervalWidthNs()), Window: time.Duration(a.GetWindowWidthNs()),
		Alert: AlertStatus(a.GetAlert()), RateNow: a.GetRateNow(), RateAverage: a.GetRateAverage(),
		IntervalRequests: a.GetIntervalRequests(), IntervalStart: Moment(a.GetIntervalStartUnixNs()),
		Fleet: view.Fleet{Reporting: a.GetFleet().GetReporting(), Late: a.GetFleet().GetLate(), Gone: a.GetFleet().GetGone()},
		Loss:  counts(a.GetLoss()), Refresh: time.Duration(a.GetRefreshNs()), Requests: a.GetRequests(),
		Since: Moment(a.GetRangeSinceUnixNs()), Until: Moment(a.GetRangeUntilUnixNs()), Warnings: a.GetWarnings(),
		Packets: a.Packets, OtherProtocols: counts(a.GetOtherProtocols()),
	}
}

var states = map[pb.AlertState]view.State{
	pb.AlertState_ALERT_STATE_LEARNING: view.Learning, pb.AlertState_ALERT_STATE_NORMAL: view.Normal,
	pb.AlertState_ALERT_STATE_ALERT: view.Alerting, pb.AlertState_ALERT_STATE_DISMISSED: view.Dismissed,
}

func state(s pb.AlertState) view.State {
	if v, ok := states[s]; ok {
		return v
	}
	return view.Unknown
}

// AlertStatus is where the rule stands; nil is unknown.
func AlertStatus(a *pb.AlertStatus) view.AlertStatus {
	if a == nil {
		a = &pb.AlertStatus{}
	}
	return view.AlertStatus{
		Scope: a.Scope, State: state(a.State), Since: Moment(a.SinceUnixNs),
		Baseline: a.Baseline, ThresholdPercent: a.ThresholdPercent, ThresholdRequests: a.ThresholdRequests,
		WindowStart: Moment(a.WindowStartUnixNs), WindowEnd: Moment(a.WindowEndUnixNs), WindowRequests: a.WindowRequests,
		LearningStart: Moment(a.LearningStartUnixNs), LearningEnd: Moment(a.LearningEndUnixNs), EstimatedBaseline: a.EstimatedBaseline,
		LastRequests: a.LastRequests, LastWindowEnd: Moment(a.LastWindowEndUnixNs), LastIncomplete: a.LastIncomplete,
		JoinedHosts: a.JoinedHosts,
	}
}

func counts(list []*pb.Count) []view.Count {
	var out []view.Count
	for _, c := range list {
		out = append(out, view.Count{Name: c.GetName(), Value: c.GetValue()})
	}
	return out
}

// Dimension describes a top list.
func Dimension(d *pb.Dimension) view.Dimension {
	out := view.Dimension{Name: d.GetName(), Title: d.GetTitle(), Keys: d.GetKeys(), Filters: d.GetFilters()}
	for _, c := range d.GetColumns() {
		m := view.Measure{Name: c.GetName(), Unit: c.GetUnit()}
		switch c.GetKind() {
		case pb.ColumnKind_COLUMN_KIND_MAX:
			m.Kind = view.Max
		case pb.ColumnKind_COLUMN_KIND_LATENCY:
			m.Kind = view.LatencyColumn
		}
		out.Columns = append(out.Columns, m)
	}
	return out
}

func topRow(r *pb.TopRow) view.TopRow {
	out := view.TopRow{Keys: r.GetKeys(), Error: r.GetError()}
	for _, c := range r.GetCells() {
		v := view.Value{Number: c.GetNumber()}
		v.Latency = latency(c.GetLatency())
		out.Values = append(out.Values, v)
	}
	return out
}

func latency(l *pb.LatencySummary) *view.Latency {
	if l == nil {
		return nil
	}
	return &view.Latency{Count: l.Count, Average: time.Duration(l.AverageNs), P50: time.Duration(l.P50Ns),
		P95: time.Duration(l.P95Ns), P99: time.Duration(l.P99Ns), Peak: time.Duration(l.MaxNs)}
}

// Top is one top list.
func Top(a *pb.GetTopResponse) view.Top {
	t := view.Top{
		Dimension: Dimension(a.GetDimension()), Total: a.GetTotal(), Floor: a.GetFloor(),
		Since: Moment(a.GetRange().GetSinceUnixNs()), Until: Moment(a.GetRange().GetUntilUnixNs()), DamagedIntervals: a.GetDamagedIntervals(),
		Latency: latency(a.GetLatency()), Classes: counts(a.GetClasses()),
		Coverage: coverage(a.GetCoverage()), Loss: counts(a.GetLoss()), Skipped: a.GetSkippedBuckets(),
	}
	for _, r := range a.GetRows() {
		t.Rows = append(t.Rows, topRow(r))
	}
	if other := a.GetOther(); other != nil {
		for i, c := range other.GetCells() { // a rest that adds up to nothing is no rest
			sum := i < len(t.Columns) && t.Columns[i].Kind == view.Sum
			if sum && c.GetNumber() != 0 || c.GetLatency().GetCount() != 0 {
				r := topRow(other)
				t.Other = &r
				break
			}
		}
	}
	return t
}

// Alerts is the alert history.
func Alerts(a *pb.ListAlertsResponse) view.Alerts {
	out := view.Alerts{MaxDuration: time.Duration(a.GetMaxDurationNs()), AverageDuration: time.Duration(a.GetAverageDurationNs()),
		Time: Moment(a.GetTimeUnixNs())}
	for _, e := range a.GetAlerts() {
		v := view.Alert{Scope: e.GetScope(), State: state(e.GetState()), Start: Moment(e.GetStartUnixNs()), End: Moment(e.GetEndUnixNs()),
			Baseline: e.GetBaseline(), ThresholdPercent: e.GetThresholdPercent(), JoinedHosts: e.GetJoinedHosts()}
		for _, x := range e.GetEntries() {
			v.Entries = append(v.Entries, view.AlertEntry{Time: Moment(x.GetTimeUnixNs()), Hits: x.GetHits(), Incomplete: x.GetIncomplete(), LateHits: x.GetLateHits()})
		}
		out.Alerts = append(out.Alerts, v)
	}
	return out
}

var healths = map[pb.HostHealth]view.Health{
	pb.HostHealth_HOST_HEALTH_REPORTING: view.Reporting, pb.HostHealth_HOST_HEALTH_LATE: view.Late, pb.HostHealth_HOST_HEALTH_GONE: view.Gone,
}

// Hosts are the monitored hosts.
func Hosts(list []*pb.Host) []view.Host {
	var out []view.Host
	for _, h := range list {
		health, ok := healths[h.GetHealth()]
		if !ok {
			health = view.HealthUnknown
		}
		out = append(out, view.Host{
			ID: h.GetId(), Name: h.GetName(), Health: health, CoveredThrough: Moment(h.GetCoveredThroughUnixNs()),
			FirstSeen: Moment(h.GetFirstSeenUnixNs()), Version: h.GetVersion(), Connected: h.GetConnected(), Backlog: h.GetBacklog(),
			Requests: h.GetRequests(), Rate: h.GetRate(), Counters: counts(h.GetCounters()), Open: h.GetOpen(), SameID: h.GetSameId(),
		})
	}
	return out
}

func ranges(list []*pb.Range) []view.TimeSpan {
	var out []view.TimeSpan
	for _, r := range list {
		out = append(out, view.TimeSpan{Since: Moment(r.GetSinceUnixNs()), Until: Moment(r.GetUntilUnixNs())})
	}
	return out
}

// Explanation is the account of one number, that of the row with these keys.
func Explanation(a *pb.ExplainResponse, keys []string) *view.Explanation {
	out := &view.Explanation{
		Dimension: Dimension(a.GetDimension()), Keys: keys, Since: Moment(a.GetRange().GetSinceUnixNs()), Until: Moment(a.GetRange().GetUntilUnixNs()),
		Hits: a.GetHits(), Error: a.GetError(), Pending: a.GetPending(), DamagedIntervals: a.GetDamagedIntervals(), MirroredLeftOut: a.GetMirroredLeftOut(),
	}
	for _, ns := range a.GetDamagedUnixNs() {
		out.Damaged = append(out.Damaged, Moment(ns))
	}
	for _, h := range a.GetHosts() {
		health, ok := healths[h.GetHealth()]
		if !ok {
			health = view.HealthUnknown
		}
		out.Hosts = append(out.Hosts, view.ExplainedHost{
			Name: h.GetName(), ID: h.GetId(), Health: health, Hits: h.GetHits(), Error: h.GetError(), Pending: h.GetPending(),
			Buckets: h.GetBuckets(), Skipped: h.GetSkipped(), Covered: time.Duration(h.GetCoveredNs()), Unobserved: time.Duration(h.GetUnobservedNs()),
			CoveredSpans: ranges(h.GetCovered()), UnobservedSpans: ranges(h.GetUnobserved()), Loss: counts(h.GetLoss()),
		})
	}
	return out
}

// Baseline is what was learned.
func Baseline(a *pb.GetBaselineResponse) *view.Baseline {
	return &view.Baseline{
		Alert: AlertStatus(a.GetAlert()), From: Moment(a.GetLearnedFromUnixNs()), Until: Moment(a.GetLearnedUntilUnixNs()),
		Requests: a.GetLearnedRequests(), CoveredSeconds: a.GetCoveredSeconds(), Hosts: a.GetLearnedHosts(), Restarts: a.GetRestarts(),
	}
}
