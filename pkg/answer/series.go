package answer

import (
	"time"

	"github.com/httpctl/httpctl/pkg/view"
	pb "github.com/httpctl/httpctl/proto/httpctl/v1"
)

// SeriesSteps are the steps by name; "" lets the aggregator choose.
var SeriesSteps = map[string]pb.SeriesStep{
	"interval":    pb.SeriesStep_SERIES_STEP_INTERVAL,
	"minute":      pb.SeriesStep_SERIES_STEP_MINUTE,
	"ten_minutes": pb.SeriesStep_SERIES_STEP_TEN_MINUTES,
	"hour":        pb.SeriesStep_SERIES_STEP_HOUR,
	"day":         pb.SeriesStep_SERIES_STEP_DAY,
	"week":        pb.SeriesStep_SERIES_STEP_WEEK,
	"month":       pb.SeriesStep_SERIES_STEP_MONTH,
}

// Series is requests over time.
func Series(a *pb.GetSeriesResponse) *view.Series {
	out := &view.Series{
		Since: Moment(a.GetRange().GetSinceUnixNs()), Until: Moment(a.GetRange().GetUntilUnixNs()), Dimension: a.GetDimension(),
		Coverage: coverage(a.GetCoverage()), Loss: counts(a.GetLoss()), DamagedIntervals: a.GetDamagedIntervals(),
	}
	for name, step := range SeriesSteps {
		if step == a.GetStep() {
			out.Step = name
		}
	}
	for _, p := range a.GetPoints() {
		out.Points = append(out.Points, view.SeriesPoint{
			Start: Moment(p.GetStartUnixNs()), End: Moment(p.GetEndUnixNs()), Requests: p.GetRequests(), Error: p.GetError(),
			Covered: time.Duration(p.GetCoveredNs()), Rate: p.GetRate(), Hosts: p.GetHosts(), Loss: counts(p.GetLoss()), Outcomes: outcomes(p.GetOutcomes()),
		})
	}
	return out
}

func outcomes(o *pb.Outcomes) *view.Outcomes {
	if o == nil {
		return nil
	}
	out := &view.Outcomes{Total: o.GetTotal(), Classes: counts(o.GetClasses()), Latency: latency(o.GetLatency())}
	for _, b := range o.GetHistogram() {
		out.Histogram = append(out.Histogram, view.LatencyBin{UpTo: time.Duration(b.GetUpToNs()), Count: b.GetCount()})
	}
	return out
}

func coverage(c *pb.Coverage) *view.Coverage {
	if c == nil {
		return nil // an aggregator that does not tell
	}
	return &view.Coverage{Covered: time.Duration(c.GetCoveredNs()), First: Moment(c.GetFirstUnixNs()), Last: Moment(c.GetLastUnixNs()),
		Gaps: ranges(c.GetGaps()), GapCount: c.GetGapCount()}
}
