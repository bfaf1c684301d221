// Package ask holds how an aggregator is asked: what a question may say, and the questions that the commands of
// httpctl and the aggregator's web page have in common. The one asks over a connection, the other in the same
// process; both get the same answers. It reads no clock.
package ask

import (
	"context"
	"time"

	"github.com/httpctl/httpctl/pkg/answer"
	"github.com/httpctl/httpctl/pkg/view"
	pb "github.com/httpctl/httpctl/proto/httpctl/v1"
)

// Service answers questions: the query service itself, or a connection to one.
type Service interface {
	GetStatus(context.Context, *pb.GetStatusRequest) (*pb.GetStatusResponse, error)
	GetTop(context.Context, *pb.GetTopRequest) (*pb.GetTopResponse, error)
	GetDashboard(context.Context, *pb.GetDashboardRequest) (*pb.GetDashboardResponse, error)
	GetSeries(context.Context, *pb.GetSeriesRequest) (*pb.GetSeriesResponse, error)
	Explain(context.Context, *pb.ExplainRequest) (*pb.ExplainResponse, error)
	ListAlerts(context.Context, *pb.ListAlertsRequest) (*pb.ListAlertsResponse, error)
	ListHosts(context.Context, *pb.ListHostsRequest) (*pb.ListHostsResponse, error)
	ListDimensions(context.Context, *pb.ListDimensionsRequest) (*pb.ListDimensionsResponse, error)
	GetBaseline(context.Context, *pb.GetBaselineRequest) (*pb.GetBaselineResponse, error)
}

// Reader puts questions to a Service. It is safe for concurrent use. Its errors are those of the service, and *Fault
// for a question that cannot be put.
type Reader struct{ Service Service }

// MaxRows is the most rows of a list that an aggregator answers with.
const MaxRows = 10_000

// Rows is a number of rows as users write it, where 0 is all, as that of a Question.
func Rows(n uint32) uint32 {
	if n == 0 {
		return MaxRows
	}
	return n
}

// Question is what is asked for.
type Question struct {
	Since, Until time.Time // zero is open
	Filters      []Filter
	// Limit is the number of rows, at most MaxRows; 0 is max_top_hits.
	Limit uint32
	// Live adds the interval under way.
	Live bool
	// Outcomes adds to the points of a series how exchanges ended, and how long responses took.
	Outcomes bool
}

// Filter keeps what has one of the values in the column.
type Filter struct {
	Column string
	Values []string
}

func (q *Question) span() *pb.Range {
	r := &pb.Range{}
	if !q.Since.IsZero() {
		r.SinceUnixNs = q.Since.UnixNano()
	}
	if !q.Until.IsZero() {
		r.UntilUnixNs = q.Until.UnixNano()
	}
	return r
}

func (q *Question) filters() []*pb.Filter {
	var out []*pb.Filter
	for _, f := range q.Filters {
		out = append(out, &pb.Filter{Column: f.Column, Values: f.Values})
	}
	return out
}

// Dashboard asks for all of the dashboard.
func (r *Reader) Dashboard(ctx context.Context, q Question) (*view.Dashboard, error) {
	a, err := r.Service.GetDashboard(ctx, &pb.GetDashboardRequest{Range: q.span(), Filters: q.filters(), Limit: q.Limit, Live: q.Live})
	if err != nil {
		return nil, err
	}
	return answer.Dashboard(a), nil
}

// Top asks for one top list.
func (r *Reader) Top(ctx context.Context, dimension string, q Question) (*view.Top, error) {
	a, err := r.Service.GetTop(ctx, &pb.GetTopRequest{Dimension: dimension, Range: q.span(), Filters: q.filters(), Limit: q.Limit, Live: q.Live})
	if err != nil {
		return nil, err
	}
	t := answer.Top(a)
	return &t, nil
}

// Series asks for requests over time; an empty step lets the aggregator choose.
func (r *Reader) Series(ctx context.Context, step string, q Question) (*view.Series, error) {
	a, err := r.Service.GetSeries(ctx, &pb.GetSeriesRequest{Range: q.span(), Filters: q.filters(), Step: answer.SeriesSteps[step], Outcomes: q.Outcomes})
	if err != nil {
		return nil, err
	}
	return answer.Series(a), nil
}

// Explain asks where a number of a top list comes from; without keys, its total.
func (r *Reader) Explain(ctx context.Context, dimension string, keys []string, q Question) (*view.Explanation, error) {
	a, err := r.Service.Explain(ctx, &pb.ExplainRequest{Dimension: dimension, Keys: keys, Range: q.span(), Filters: q.filters()})
	if err != nil {
		return nil, err
	}
	return answer.Explanation(a, keys), nil
}

// Alerts asks for the episodes that overlap the range.
func (r *Reader) Alerts(ctx context.Context, q Question) (*view.Alerts, error) {
	a, err := r.Service.ListAlerts(ctx, &pb.ListAlertsRequest{Range: q.span()})
	if err != nil {
		return nil, err
	}
	alerts := answer.Alerts(a)
	return &alerts, nil
}

// Hosts asks for the hosts.
func (r *Reader) Hosts(ctx context.Context, q Question) ([]view.Host, error) {
	a, err := r.Service.ListHosts(ctx, &pb.ListHostsRequest{Range: q.span()})
	if err != nil {
		return nil, err
	}
	return answer.Hosts(a.GetHosts()), nil
}

// Dimensions asks for the top lists that there are.
func (r *Reader) Dimensions(ctx context.Context) ([]view.Dimension, error) {
	a, err := r.Service.ListDimensions(ctx, &pb.ListDimensionsRequest{})
	if err != nil {
		return nil, err
	}
	var out []view.Dimension
	for _, d := range a.GetDimensions() {
		out = append(out, answer.Dimension(d))
	}
	return out, nil
}

// Status asks for the header of the dashboard.
func (r *Reader) Status(ctx context.Context) (*view.Status, error) {
	a, err := r.Service.GetStatus(ctx, &pb.GetStatusRequest{})
	if err != nil {
		return nil, err
	}
	s := answer.Status(a)
	return &s, nil
}

// Baseline asks for what was learned.
func (r *Reader) Baseline(ctx context.Context) (*view.Baseline, error) {
	a, err := r.Service.GetBaseline(ctx, &pb.GetBaselineRequest{})
	if err != nil {
		return nil, err
	}
	return answer.Baseline(a), nil
}
