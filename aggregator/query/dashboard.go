package query

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/pkg/lifecycle"
	httpctlv1 "github.com/httpctl/httpctl/proto/httpctl/v1"
)

// GetDashboard implements QueryService. The judge's status and the alert
// history are of the whole fleet, whatever the filters; rates, losses and hosts
// are of the hosts asked for; the top lists follow all filters that they can.
func (s *Service) GetDashboard(ctx context.Context, r *httpctlv1.GetDashboardRequest) (*httpctlv1.GetDashboardResponse, error) {
	leave, err := s.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	rng, err := s.rangeOf(r.GetRange(), DefaultRange)
	if err != nil {
		return nil, err
	}
	history := rng
	if r.GetRange().GetSinceUnixNs() == 0 {
		if history, err = s.rangeOf(r.GetRange(), s.Settings().MaxRetentionLength); err != nil {
			return nil, err
		}
	}
	limit, err := s.limitOf(r.GetLimit())
	if err != nil {
		return nil, err
	}
	sel, err := s.selectionOf(ctx, r.GetFilters())
	if err != nil {
		return nil, err
	}
	dims, err := s.dimensions(ctx)
	if err != nil {
		return nil, err
	}
	if r.GetLive() {
		s.watch(limit)
	}
	out := &httpctlv1.GetDashboardResponse{}
	if len(sel.where) > 0 {
		what := "rates, baseline, alerts and losses"
		if sel.hosts != nil {
			what = "rates and losses" // and the next note is of the others
		}
		out.Notes = append(out.Notes, what+" are not filtered by "+strings.Join(columns(&sel), ", "))
	}
	if sel.hosts != nil {
		out.Notes = append(out.Notes, "baseline and alerts are those of the whole fleet")
	}
	var lists []*dimension
	for i := range dims {
		d := &dims[i]
		if column := d.refuses(&sel); column != "" {
			stand := standIn(dims, d, &sel)
			if stand == nil {
				out.Notes = append(out.Notes, fmt.Sprintf("%s: cannot be filtered by %s", d.name, column))
				continue
			}
			out.Notes = append(out.Notes, fmt.Sprintf("%s: from %s, which counts ended exchanges", d.name, drillDown))
			d = stand
		}
		lists = append(lists, d)
	}
	s.expect(ctx, lists, rng, &sel)
	out.Tops = make([]*httpctlv1.GetTopResponse, len(lists))
	top := func(ctx context.Context, i int, o *others) (err error) {
		out.Tops[i], err = s.top(ctx, lists[i], rng, &sel, o, limit, r.GetLive())
		return err
	}
	// Lists are nearly always the same whatever the survey finds, so that they need not wait for it.
	early := 0
	if !r.GetLive() && !s.absent.Load() {
		early = len(lists)
	}
	var f *fleet
	err = together(ctx, 1+early, func(ctx context.Context, i int) (err error) {
		if i == 0 {
			f, err = s.survey(ctx, rng, &sel)
			return err
		}
		return top(ctx, i-1, nil)
	})
	if err != nil {
		return nil, failed("dashboard", err)
	}
	if f.others != nil {
		absent := len(f.others.absences) > 0
		if s.absent.Store(absent); absent {
			early = 0
		}
	}
	var open []Provisional
	if r.GetLive() {
		open = s.provisional(rng, &sel)
	}
	err = together(ctx, 2+len(lists)-early, func(ctx context.Context, i int) (err error) {
		switch i {
		case 0:
			out.Status, out.RateHistory, err = s.status(ctx, f, rng, &sel, r.GetLive(), open)
			return err
		case 1:
			out.Hosts = f.messages(rng, open)
			return nil
		}
		return top(ctx, early+i-2, f.others)
	})
	if err != nil {
		return nil, failed("dashboard", err)
	}
	out.Alerts = s.alerts(history)
	return out, nil
}

// together runs the parts 0 to n-1 of a question, as many at a time as there are processors, and returns the first error, which ends
// the others' ctx. A panic in a part is one of the caller.
func together(ctx context.Context, n int, part func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	work := func() {
		for ctx.Err() == nil {
			i := int(next.Add(1)) - 1
			if i >= n {
				return
			}
			if err := lifecycle.Guard(func() error { return part(ctx, i) }); err != nil {
				cancel(err)
			}
		}
	}
	var group sync.WaitGroup
	for range min(n, runtime.GOMAXPROCS(0)) - 1 {
		group.Go(work)
	}
	work()
	group.Wait()
	err := context.Cause(ctx)
	if errors.Is(err, lifecycle.ErrPanic) {
		panic(err)
	}
	return err
}

// keptWarm is how many hosts a fleet may have whose sums are kept up to date though nobody asks: each bucket takes about a millisecond for
// that, so a fortieth of a core goes to it at ten seconds a bucket. Larger ones have their first dashboard made when it is asked for.
const keptWarm = 250

// Warm has the store make the sums of the usual dashboards, of the last hour and of the last day, so that the next ones find them; unless first is set only
// where it costs little. They are questions of its own.
func (s *Service) Warm(ctx context.Context, first bool) error {
	hosts, err := s.Store.Hosts(ctx)
	if err != nil {
		return failed("read hosts", err)
	}
	if !first && len(hosts) > keptWarm {
		return nil
	}
	for _, back := range []time.Duration{DefaultRange, day} {
		r := &httpctlv1.GetDashboardRequest{Range: &httpctlv1.Range{SinceUnixNs: s.Now().Add(-back).UnixNano()}}
		if _, err := s.GetDashboard(ctx, r); err != nil {
			return err
		}
	}
	return nil
}

// expect tells the store what a dashboard will ask. What fails there fails again where it is asked.
func (s *Service) expect(ctx context.Context, lists []*dimension, rng span, sel *selection) {
	st, ok := s.Store.(store.Expecter)
	if !ok {
		return
	}
	plans := []store.Plan{surveyPlan(rng, sel)}
	if width := int64(s.Settings().DashboardBucketSize); width > 0 { // where the rates end is known once hosts were asked
		now := s.Now().UnixNano()
		end := now - now%width
		plans = append(plans, ratesPlan(max(0, end-(HistoryIntervals+lateIntervals)*width), end, width, sel))
	}
	for _, d := range lists {
		plans = append(plans, topPlan(d, rng, sel))
	}
	_ = st.Expect(ctx, plans)
}

// lateIntervals are those that the rates may end before now.
const lateIntervals = 3

func columns(sel *selection) (out []string) {
	for _, c := range sel.where {
		out = append(out, c.Column)
	}
	return out
}
