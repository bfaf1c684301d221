package web

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/httpctl/httpctl/proto/httpctl/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

func ns(d time.Duration) int64 { return noon.Add(d).UnixNano() }

// hostile is what traffic may bring as a name.
const hostile = "</script><img src=x onerror=alert(1)>&\u2028\x07"

// fake is a query service with fixed answers, which hold everything that an answer may hold.
type fake struct {
	asked atomic.Int64
	last  atomic.Pointer[pb.GetDashboardRequest]
	hold  chan struct{} // if set, tops wait for it
	panic atomic.Bool
}

func span() *pb.Range { return &pb.Range{SinceUnixNs: ns(-time.Hour), UntilUnixNs: ns(0)} }

func dimensions() []*pb.Dimension {
	return []*pb.Dimension{
		{Name: "section", Title: "Sections", Keys: []string{"section"}, Filters: []string{"domain", "section"}, Columns: []*pb.Column{
			{Name: "hits", Unit: "{request}", Kind: pb.ColumnKind_COLUMN_KIND_SUM}, {Name: "bytes", Unit: "By", Kind: pb.ColumnKind_COLUMN_KIND_SUM},
			{Name: "ttfb", Unit: "ns", Kind: pb.ColumnKind_COLUMN_KIND_LATENCY}, {Name: "last_seen", Unit: "ns", Kind: pb.ColumnKind_COLUMN_KIND_MAX}}},
		{Name: "routes", Title: "Routes", Keys: []string{"section", "method", "status"}, Filters: []string{"domain", "section", "method", "status", "role"},
			Columns: []*pb.Column{{Name: "hits", Unit: "{exchange}", Kind: pb.ColumnKind_COLUMN_KIND_SUM}}},
	}
}

func loss() []*pb.Count { return []*pb.Count{{Name: "kernel_drops", Value: 3}} }

func (f *fake) top(name string) *pb.GetTopResponse {
	d := dimensions()[0]
	row := func(keys ...string) *pb.TopRow {
		return &pb.TopRow{Keys: keys, Cells: []*pb.Cell{{Number: 4}}, Error: 1}
	}
	full := func(r *pb.TopRow) *pb.TopRow {
		r.Cells = []*pb.Cell{{Number: 7}, {Number: 700}, {Latency: &pb.LatencySummary{Count: 7, AverageNs: 5e6, P50Ns: 4e6, P95Ns: 9e6, P99Ns: 9e6, MaxNs: 1e7}}, {Number: ns(-time.Second)}}
		return r
	}
	rows, other := []*pb.TopRow{full(row(hostile)), full(row("b.example/"))}, full(row())
	if name == "routes" {
		d = dimensions()[1]
		rows, other = []*pb.TopRow{row("b.example/", "GET", "503")}, nil
	}
	return &pb.GetTopResponse{Dimension: d, Rows: rows, Other: other, Total: 21, Floor: 1, Range: span(), DamagedIntervals: 1,
		Latency: &pb.LatencySummary{Count: 7, AverageNs: 5e6}, Classes: []*pb.Count{{Name: "5xx", Value: 4}},
		Coverage: coverage(), Loss: loss()}
}

func coverage() *pb.Coverage {
	return &pb.Coverage{CoveredNs: int64(50 * time.Minute), FirstUnixNs: ns(-time.Hour), LastUnixNs: ns(0), GapCount: 1,
		Gaps: []*pb.Range{{SinceUnixNs: ns(-30 * time.Minute), UntilUnixNs: ns(-20 * time.Minute)}}}
}

func pointer[T any](n T) *T { return &n }

func alertState() *pb.AlertStatus {
	return &pb.AlertStatus{Scope: "fleet", State: pb.AlertState_ALERT_STATE_ALERT, SinceUnixNs: ns(-time.Minute), Baseline: pointer[int64](100), ThresholdPercent: 10,
		ThresholdRequests: pointer[int64](110), WindowStartUnixNs: ns(-time.Minute), WindowEndUnixNs: ns(time.Minute), WindowRequests: 90,
		LearningStartUnixNs: ns(-time.Hour), LearningEndUnixNs: ns(-50 * time.Minute), LastRequests: pointer[int64](140), LastWindowEndUnixNs: ns(-time.Minute), JoinedHosts: []string{"web-2"}}
}

func (f *fake) GetStatus(context.Context, *pb.GetStatusRequest) (*pb.GetStatusResponse, error) {
	return &pb.GetStatusResponse{TimeUnixNs: ns(0), Version: "1.2.3", IntervalWidthNs: 1e10, WindowWidthNs: 12e10, RefreshNs: 2e9, Alert: alertState(), RateNow: 12.5, RateAverage: 11,
		IntervalRequests: 125, IntervalStartUnixNs: ns(-10 * time.Second), Fleet: &pb.FleetHealth{Reporting: 2, Late: 1, Gone: 1}, Loss: loss(), Requests: 39600,
		RangeSinceUnixNs: ns(-time.Hour), RangeUntilUnixNs: ns(0), Warnings: []string{"a warning"}}, nil
}

func (f *fake) GetTop(ctx context.Context, q *pb.GetTopRequest) (*pb.GetTopResponse, error) {
	if f.panic.Load() {
		panic("boom")
	}
	if f.hold != nil {
		select {
		case <-f.hold:
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		}
	}
	if len(q.Filters) > 0 && q.Filters[0].Column == "host" && q.Filters[0].Values[0] == "nobody" {
		return nil, status.Error(codes.InvalidArgument, `no host "nobody"; there are: web-1, web-2`)
	}
	return f.top(q.Dimension), nil
}

func (f *fake) GetDashboard(ctx context.Context, q *pb.GetDashboardRequest) (*pb.GetDashboardResponse, error) {
	f.last.Store(q)
	if f.panic.Load() {
		panic("boom")
	}
	if f.asked.Add(1); q.Limit == 404 {
		return nil, status.Error(codes.Internal, "the store is damaged")
	}
	s, _ := f.GetStatus(ctx, nil)
	return &pb.GetDashboardResponse{Status: s, Tops: []*pb.GetTopResponse{f.top("section"), f.top("routes")}, Alerts: alertHistory(), Hosts: hostList(), RateHistory: []uint64{1, 2, 3}, Notes: []string{"a note"}}, nil
}

func (f *fake) GetSeries(_ context.Context, q *pb.GetSeriesRequest) (*pb.GetSeriesResponse, error) {
	a := &pb.GetSeriesResponse{Step: pb.SeriesStep_SERIES_STEP_MINUTE, Range: span(), Dimension: "routes", Coverage: coverage(), Loss: loss(), Points: []*pb.SeriesPoint{
		{StartUnixNs: ns(-2 * time.Minute), EndUnixNs: ns(-time.Minute), Requests: 60, Error: 2, CoveredNs: 6e10, Rate: 1, Hosts: 2, Loss: loss()},
		{StartUnixNs: ns(-time.Minute), EndUnixNs: ns(0)}}}
	if q.Outcomes {
		a.Points[0].Outcomes = &pb.Outcomes{Total: 50, Classes: []*pb.Count{{Name: "5xx", Value: 4}, {Name: "-", Value: 1}},
			Latency: &pb.LatencySummary{Count: 7, AverageNs: 5e6, P50Ns: 4e6, P95Ns: 9e6, P99Ns: 9e6, MaxNs: 1e7}, Histogram: []*pb.LatencyBin{{UpToNs: 1e7, Count: 7}}}
	}
	return a, nil
}

func (f *fake) Explain(context.Context, *pb.ExplainRequest) (*pb.ExplainResponse, error) {
	return &pb.ExplainResponse{Dimension: dimensions()[0], Range: span(), Hits: 7, Error: 1, Pending: 2, DamagedUnixNs: []int64{ns(-time.Minute)}, DamagedIntervals: 1, MirroredLeftOut: true,
		Hosts: []*pb.ExplainedHost{{Id: "0a", Name: "web-1", Health: pb.HostHealth_HOST_HEALTH_GONE, Hits: 7, Error: 1, Pending: 2, Buckets: 9, Skipped: 1,
			Covered: []*pb.Range{span()}, Unobserved: []*pb.Range{span()}, CoveredNs: 36e11, UnobservedNs: 1e9, Loss: loss()}}}, nil
}

func alertHistory() *pb.ListAlertsResponse {
	entry := &pb.AlertEntry{TimeUnixNs: ns(-time.Minute), Hits: 140, Incomplete: true, LateHits: 3}
	return &pb.ListAlertsResponse{TimeUnixNs: ns(0), MaxDurationNs: 6e10, AverageDurationNs: 6e10, Alerts: []*pb.Alert{
		{Scope: "fleet", State: pb.AlertState_ALERT_STATE_ALERT, StartUnixNs: ns(-time.Minute), Baseline: 100, ThresholdPercent: 10, Entries: []*pb.AlertEntry{entry}, JoinedHosts: []string{"web-2"}},
		{Scope: "fleet", State: pb.AlertState_ALERT_STATE_DISMISSED, StartUnixNs: ns(-time.Hour), EndUnixNs: ns(-59 * time.Minute), Baseline: 100, ThresholdPercent: 10, JoinedHosts: []string{"web-2"}}}}
}

func (f *fake) ListAlerts(context.Context, *pb.ListAlertsRequest) (*pb.ListAlertsResponse, error) {
	return alertHistory(), nil
}

func hostList() []*pb.Host {
	host := func(id, name string, health pb.HostHealth) *pb.Host {
		return &pb.Host{Id: id, Name: name, Health: health, CoveredThroughUnixNs: ns(-time.Second), FirstSeenUnixNs: ns(-time.Hour), Version: "1.2.3", Connected: true, Backlog: 1, Requests: 10, Rate: .5, Open: 2}
	}
	lossy := host("0c", "web-3", pb.HostHealth_HOST_HEALTH_REPORTING)
	lossy.Counters = loss()
	return []*pb.Host{host("0a", "web-1", pb.HostHealth_HOST_HEALTH_REPORTING), host("0b", hostile, pb.HostHealth_HOST_HEALTH_REPORTING), lossy,
		host("0d", "web-4", pb.HostHealth_HOST_HEALTH_LATE), host("0e", "web-5", pb.HostHealth_HOST_HEALTH_GONE)}
}

func (f *fake) ListHosts(context.Context, *pb.ListHostsRequest) (*pb.ListHostsResponse, error) {
	return &pb.ListHostsResponse{Hosts: hostList()}, nil
}

func (f *fake) ListDimensions(context.Context, *pb.ListDimensionsRequest) (*pb.ListDimensionsResponse, error) {
	return &pb.ListDimensionsResponse{Dimensions: dimensions()}, nil
}

func (f *fake) GetBaseline(context.Context, *pb.GetBaselineRequest) (*pb.GetBaselineResponse, error) {
	return &pb.GetBaselineResponse{Alert: alertState(), LearnedFromUnixNs: ns(-time.Hour), LearnedUntilUnixNs: ns(-50 * time.Minute), LearnedRequests: 1000, CoveredSeconds: 600, LearnedHosts: []string{"web-1"}, Restarts: 1}, nil
}

// site is a server for tests.
type site struct {
	*Server
	t       *testing.T
	fake    *fake
	url     string
	changes atomic.Uint64
	// refuse, if set, is the answer to who asks; ended ends what was admitted.
	refuse  atomic.Pointer[error]
	ended   context.Context
	end     context.CancelFunc
	greeted atomic.Int64
	client  *http.Client
}

func newSite(t *testing.T, change ...func(*Config, *Deps)) *site {
	t.Helper()
	x := &site{t: t, fake: &fake{}}
	x.ended, x.end = context.WithCancel(context.Background())
	cfg := Config{Listen: []string{"127.0.0.1:0"}, Hosts: []string{"Monitor.example.org"}}
	deps := Deps{Service: x.fake, Now: func() time.Time { return noon }, Changes: x.changes.Load, Interval: func() time.Duration { return time.Hour },
		Admit: func(ctx context.Context, conn net.Conn, state *tls.ConnectionState, method string) (context.Context, func(), error) {
			if err := x.refuse.Load(); err != nil {
				return ctx, nil, *err
			}
			ctx, cancel := context.WithCancel(ctx)
			stop := context.AfterFunc(x.ended, cancel)
			return ctx, func() { stop(); cancel() }, nil
		},
		Guard: func(l net.Listener, _ bool) net.Listener { return l }, Greeted: func(net.Conn, bool) { x.greeted.Add(1) }}
	for _, f := range change {
		f(&cfg, &deps)
	}
	var err error
	if x.Server, err = New(cfg, deps); err != nil {
		t.Fatal(err)
	}
	x.streams.every = 10 * time.Millisecond
	if err := x.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	x.client = &http.Client{Transport: &http.Transport{DisableCompression: true}}
	t.Cleanup(func() {
		x.end()
		x.client.CloseIdleConnections()
		if err := x.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	x.url = x.URLs()[0]
	return x
}

// get asks, with headers as name, value, name, value.
func (x *site) get(path string, header ...string) (*http.Response, string) {
	x.t.Helper()
	r, err := http.NewRequestWithContext(x.t.Context(), http.MethodGet, x.url+path, nil)
	if err != nil {
		x.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		if r.Header.Set(header[i], header[i+1]); header[i] == "Host" {
			r.Host = header[i+1]
		}
	}
	a, err := x.client.Do(r)
	if err != nil {
		x.t.Fatal(err)
	}
	defer a.Body.Close()
	body, err := io.ReadAll(a.Body)
	if err != nil {
		x.t.Fatal(err)
	}
	return a, string(body)
}
