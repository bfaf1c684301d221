package command

import (
	"bytes"
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	pb "github.com/httpctl/httpctl/proto/httpctl/v1"
)

var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

func ns(d time.Duration) int64 { return noon.Add(d).UnixNano() }

// fake is an aggregator with fixed answers. It remembers the last questions.
type fake struct {
	pb.UnimplementedQueryServiceServer
	pb.UnimplementedTailServiceServer
	mu        sync.Mutex
	tail      *pb.TailRequest
	endless   bool // a tail goes on after its answers
	top       *pb.GetTopRequest
	series    *pb.GetSeriesRequest
	dashboard *pb.GetDashboardRequest
	alerts    *pb.ListAlertsRequest
	relearned int
	fresh     bool // no agent has delivered yet
	calm      bool // no alert lasts
	peer      bool // there is a second host
	young     bool // there is data of three minutes only
	silent    bool // it has no answer to questions about lists
}

func (f *fake) GetTop(ctx context.Context, q *pb.GetTopRequest) (*pb.GetTopResponse, error) {
	if f.silent {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.top = q
	for _, filter := range q.Filters {
		if filter.Column == "method" {
			return nil, status.Error(codes.InvalidArgument, "section has no filter method; it has: host, section")
		}
	}
	top := sectionTop()
	if q.Range.UntilUnixNs > 0 && q.Range.UntilUnixNs < ns(-20*time.Hour) || slices.ContainsFunc(q.Filters, func(x *pb.Filter) bool { return slices.Contains(x.Values, "0b") }) {
		top.Rows, top.Total = top.Rows[:1], 20 // less happened yesterday, and on the peer
	}
	if q.Range.UntilUnixNs > 0 {
		top.Range = q.Range
	}
	return top, nil
}

func (f *fake) GetSeries(_ context.Context, q *pb.GetSeriesRequest) (*pb.GetSeriesResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.series = q
	at := func(d int) int64 { return time.Date(2026, 3, d, 0, 0, 0, 0, time.UTC).UnixNano() }
	a := &pb.GetSeriesResponse{
		Step: pb.SeriesStep_SERIES_STEP_DAY, Range: &pb.Range{SinceUnixNs: at(1), UntilUnixNs: ns(0)}, DamagedIntervals: 1,
		Points: []*pb.SeriesPoint{
			{StartUnixNs: at(1), EndUnixNs: at(2)},
			{StartUnixNs: at(2), EndUnixNs: at(3), Requests: 864_000, Rate: 10, CoveredNs: int64(24 * time.Hour), Hosts: 2, Loss: []*pb.Count{{Name: "kernel_drops", Value: 7}}},
			{StartUnixNs: at(3), EndUnixNs: at(4), Requests: 36_000, Error: 12, Rate: 5, CoveredNs: int64(2 * time.Hour), Hosts: 1},
			{StartUnixNs: at(4), EndUnixNs: ns(0), Requests: 432_000, Rate: 10, CoveredNs: int64(12 * time.Hour), Hosts: 2},
		},
		Dimension: "routes", Loss: []*pb.Count{{Name: "kernel_drops", Value: 7}},
		Coverage: &pb.Coverage{CoveredNs: int64(38 * time.Hour), FirstUnixNs: at(2), LastUnixNs: ns(0), GapCount: 1,
			Gaps: []*pb.Range{{SinceUnixNs: at(3) + 2*int64(time.Hour), UntilUnixNs: at(4)}}},
	}
	if f.young {
		a.Coverage.FirstUnixNs = ns(-3 * time.Minute)
	}
	if q.Outcomes {
		a.Points[0].Outcomes = &pb.Outcomes{Latency: &pb.LatencySummary{}}
		a.Points[1].Outcomes = &pb.Outcomes{Total: 863_000, Classes: []*pb.Count{{Name: "-", Value: 12}, {Name: "2xx", Value: 860_000}, {Name: "4xx", Value: 2000}, {Name: "5xx", Value: 988}},
			Latency:   &pb.LatencySummary{Count: 862_988, AverageNs: 4e6, P50Ns: 2e6, P95Ns: 40e6, P99Ns: 310e6, MaxNs: 2e9},
			Histogram: []*pb.LatencyBin{{UpToNs: 1e6, Count: 862_988}}}
	}
	return a, nil
}

func (f *fake) Explain(_ context.Context, q *pb.ExplainRequest) (*pb.ExplainResponse, error) {
	return &pb.ExplainResponse{
		Dimension: sectionDimension(), Range: &pb.Range{SinceUnixNs: ns(-time.Hour), UntilUnixNs: ns(0)}, Hits: 1234, Error: 20, Pending: 5, DamagedIntervals: 1, DamagedUnixNs: []int64{ns(-time.Minute)}, MirroredLeftOut: true,
		Hosts: []*pb.ExplainedHost{
			{Id: "0a", Name: "web-1", Health: pb.HostHealth_HOST_HEALTH_REPORTING, Hits: 1000, Error: 20, Pending: 5, Buckets: 360, CoveredNs: int64(time.Hour),
				Covered: []*pb.Range{{SinceUnixNs: ns(-time.Hour), UntilUnixNs: ns(0)}}, Loss: []*pb.Count{{Name: "kernel_drops", Value: 7}}},
			{Id: "0b", Name: "web-2\x1b[2J", Health: pb.HostHealth_HOST_HEALTH_GONE, Hits: 234, Buckets: 100, Skipped: 2, CoveredNs: int64(1000 * time.Second), UnobservedNs: int64(90 * time.Second),
				Unobserved: []*pb.Range{{SinceUnixNs: ns(-30 * time.Minute), UntilUnixNs: ns(-30*time.Minute + 90*time.Second)}}},
		},
	}, nil
}

func sectionTop() *pb.GetTopResponse {
	return &pb.GetTopResponse{
		Dimension: sectionDimension(), Total: 30, Range: &pb.Range{SinceUnixNs: ns(-time.Hour), UntilUnixNs: ns(0)},
		Rows: []*pb.TopRow{
			{Keys: []string{"example.org/a"}, Cells: []*pb.Cell{{Number: 20}, {Number: ns(-time.Second)}}},
			{Keys: []string{"example.org/\x1b[31m"}, Cells: []*pb.Cell{{Number: 10}, {Number: ns(-time.Minute)}}},
		},
		Other: &pb.TopRow{Cells: []*pb.Cell{{}, {}}},
	}
}

func sectionDimension() *pb.Dimension {
	return &pb.Dimension{Name: "section", Title: "Sections", Keys: []string{"section"}, Filters: []string{"section"}, Columns: []*pb.Column{
		{Name: "hits", Unit: "{request}", Kind: pb.ColumnKind_COLUMN_KIND_SUM}, {Name: "last_seen", Unit: "ns", Kind: pb.ColumnKind_COLUMN_KIND_MAX}}}
}

func (f *fake) ListDimensions(context.Context, *pb.ListDimensionsRequest) (*pb.ListDimensionsResponse, error) {
	if f.fresh {
		return &pb.ListDimensionsResponse{}, nil
	}
	return &pb.ListDimensionsResponse{Dimensions: []*pb.Dimension{sectionDimension(),
		{Name: "server", Title: "Response time", Keys: []string{"server"}, Columns: []*pb.Column{{Name: "hits"}, {Name: "ttfb", Unit: "ns", Kind: pb.ColumnKind_COLUMN_KIND_LATENCY}}}}}, nil
}

func (f *fake) ListAlerts(_ context.Context, q *pb.ListAlertsRequest) (*pb.ListAlertsResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.alerts = q
	all := &pb.ListAlertsResponse{TimeUnixNs: ns(0), MaxDurationNs: int64(4 * time.Minute), AverageDurationNs: int64(4 * time.Minute), Alerts: []*pb.Alert{
		{Scope: "fleet", State: pb.AlertState_ALERT_STATE_ALERT, StartUnixNs: ns(-3*time.Minute) + 5, Baseline: 100, ThresholdPercent: 10,
			Entries: []*pb.AlertEntry{{TimeUnixNs: ns(-3*time.Minute) + 5, Hits: 111}, {TimeUnixNs: ns(-time.Minute) + 5, Hits: 150, Incomplete: true, LateHits: 3}}},
		{Scope: "fleet", State: pb.AlertState_ALERT_STATE_DISMISSED, StartUnixNs: ns(-time.Hour), EndUnixNs: ns(-56 * time.Minute), Baseline: 100, ThresholdPercent: 10,
			Entries: []*pb.AlertEntry{{TimeUnixNs: ns(-time.Hour), Hits: 200}}, JoinedHosts: []string{"web-9"}},
	}}
	if f.calm {
		all.Alerts = all.Alerts[1:]
	}
	return all, nil
}

func fakeStatus() *pb.GetStatusResponse {
	baseline, threshold, last := int64(100), int64(110), int64(90)
	return &pb.GetStatusResponse{
		TimeUnixNs: ns(0), Version: "v1", IntervalWidthNs: int64(10 * time.Second), WindowWidthNs: int64(2 * time.Minute), RefreshNs: int64(2 * time.Second),
		RateNow: 1.5, RateAverage: 0.75, IntervalRequests: 15, IntervalStartUnixNs: ns(-10 * time.Second), Requests: 64800,
		RangeSinceUnixNs: ns(-24 * time.Hour), RangeUntilUnixNs: ns(0), Fleet: &pb.FleetHealth{Reporting: 1},
		Loss: []*pb.Count{{Name: "kernel_drops", Value: 3}},
		Alert: &pb.AlertStatus{Scope: "fleet", State: pb.AlertState_ALERT_STATE_NORMAL, SinceUnixNs: ns(-time.Hour), Baseline: &baseline,
			ThresholdPercent: 10, ThresholdRequests: &threshold, WindowStartUnixNs: ns(-time.Minute), WindowEndUnixNs: ns(time.Minute), WindowRequests: 44, LastRequests: &last},
	}
}

func (f *fake) GetStatus(context.Context, *pb.GetStatusRequest) (*pb.GetStatusResponse, error) {
	return fakeStatus(), nil
}

func (f *fake) GetDashboard(ctx context.Context, q *pb.GetDashboardRequest) (*pb.GetDashboardResponse, error) {
	if f.silent {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dashboard = q
	alerts := &pb.ListAlertsResponse{}
	return &pb.GetDashboardResponse{Status: fakeStatus(), Tops: []*pb.GetTopResponse{sectionTop()}, Alerts: alerts,
		Hosts: fakeHosts(), RateHistory: []uint64{10, 20, 15}}, nil
}

func fakeHosts() []*pb.Host {
	return []*pb.Host{{Id: "0a", Name: "web-1", Health: pb.HostHealth_HOST_HEALTH_REPORTING, CoveredThroughUnixNs: ns(0), FirstSeenUnixNs: ns(-48 * time.Hour),
		Version: "v1", Connected: true, Requests: 64800, Rate: 0.75, Counters: []*pb.Count{{Name: "packets", Value: 9}, {Name: "kernel_drops", Value: 3}}}}
}

func (f *fake) ListHosts(context.Context, *pb.ListHostsRequest) (*pb.ListHostsResponse, error) {
	hosts := fakeHosts()
	if f.peer {
		hosts = append(hosts, &pb.Host{Id: "0b", Name: "web-2", Health: pb.HostHealth_HOST_HEALTH_REPORTING, CoveredThroughUnixNs: ns(-10 * time.Second)},
			&pb.Host{Id: "0c", Name: "web-3", Health: pb.HostHealth_HOST_HEALTH_GONE})
	}
	return &pb.ListHostsResponse{Hosts: hosts}, nil
}

func (f *fake) GetBaseline(context.Context, *pb.GetBaselineRequest) (*pb.GetBaselineResponse, error) {
	return &pb.GetBaselineResponse{Alert: fakeStatus().Alert, LearnedFromUnixNs: ns(-time.Hour), LearnedUntilUnixNs: ns(-58 * time.Minute),
		LearnedRequests: 100, CoveredSeconds: 120, LearnedHosts: []string{"web-1"}}, nil
}

func (f *fake) Relearn(context.Context, *pb.RelearnRequest) (*pb.RelearnResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.relearned++
	return &pb.RelearnResponse{LearningEndUnixNs: ns(2 * time.Minute)}, nil
}

// Tail shows four exchanges.
func (f *fake) Tail(q *pb.TailRequest, stream pb.TailService_TailServer) error {
	f.mu.Lock()
	f.tail = q
	f.mu.Unlock()
	ttfb, duration := int64(12*time.Millisecond), int64(34*time.Millisecond)
	summary := func(shown uint64, end string) *pb.TailSummary {
		return &pb.TailSummary{Counts: &pb.TailCounts{Matched: 1234, SampledOut: 1000, OverRate: 200, Overflowed: 10, KernelDrops: 7}, OverTotalRate: 15, SlowReader: 5,
			Shown: shown, HostsAsked: 2, HostsAnswering: 1, MissingCount: 2, End: end}
	}
	first := summary(0, "")
	first.Missing = []*pb.TailMissing{{Host: "web-2\x1b[2J", Reason: "its agent does not allow it"}}
	for _, m := range []*pb.TailResponse{
		{Summary: first},
		{Summary: summary(2, ""), Samples: []*pb.Sample{
			{Host: "web-1", HostId: "0a", TimeUnixNs: ns(0), Client: "192.0.2.1:40000", Server: "192.0.2.2:80", Role: "server", Protocol: "http/1.1", HasRequest: true, HasResponse: true,
				Method: "GET", Domain: "shop.example.org", Section: "shop.example.org/cart", Path: "/cart/1", UserAgent: "curl/8", Status: 200, RequestWireBytes: 100, ResponseWireBytes: 2048,
				TtfbNs: &ttfb, DurationNs: &duration, End: "complete"},
			{Host: "web-1", HostId: "0a", TimeUnixNs: ns(time.Second), Client: "c-0123456789abcdef", Server: "[2001:db8::1]:80", Role: "client", Protocol: "http/1.1", HasRequest: true,
				Method: "BREW\x1b[31m", Domain: "d-0123456789abcdef", Section: "d-0123456789abcdef/s-1", End: "timeout"}}},
		{Summary: summary(4, "it has lasted 10m0s"), Samples: []*pb.Sample{
			{Host: "web-3", HostId: "0c", TimeUnixNs: ns(2 * time.Second), Client: "192.0.2.1:40001", Server: "192.0.2.2:80", Role: "server", HasResponse: true, Status: 503, ResponseWireBytes: 10, End: "closed"},
			{Host: "web-3", HostId: "0c", TimeUnixNs: ns(2 * time.Second), Client: "192.0.2.1:40001", Server: "192.0.2.2:80", Role: "server", HasRequest: true, HasResponse: true,
				Method: "GET", Domain: "example.org", Section: "example.org/", Path: "/\u202etxt.exe", Status: 404, End: "complete"}}},
	} {
		if f.endless && m.GetSummary().GetEnd() != "" {
			<-stream.Context().Done()
			return nil
		}
		if err := stream.Send(m); err != nil {
			return err
		}
	}
	return nil
}

// bench runs command lines against a fake aggregator.
type bench struct {
	fake  *fake
	world *world
	env   map[string]string
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{fake: &fake{}, env: map[string]string{"HTTPCTL_AGGREGATOR": "127.0.0.1:7420", "LANG": "C.UTF-8"}}
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer()
	pb.RegisterQueryServiceServer(server, b.fake)
	pb.RegisterTailServiceServer(server, b.fake)
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-done; err != nil && !errors.Is(err, grpc.ErrServerStopped) { // stopped before it began
			t.Errorf("Serve: %v", err)
		}
	})
	b.world = &world{
		in: strings.NewReader(""), getenv: func(k string) string { return b.env[k] }, uid: 1000,
		now: func() time.Time { return noon }, location: time.UTC,
		size: func() (int, int, bool) { return 0, 0, false },
		dial: func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) },
	}
	return b
}

// run runs one command line.
func (b *bench) run(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, err bytes.Buffer
	w := *b.world
	w.out, w.err = &out, &err
	code = run(t.Context(), args, &w)
	return out.String(), err.String(), code
}
