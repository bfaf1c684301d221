package query

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/httpctl/httpctl/aggregator/baseline"
	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/exchange"
	httpctlv1 "github.com/httpctl/httpctl/proto/httpctl/v1"
)

// totals is the table that says how many requests there were; where the
// statistic is not kept, the counter of request heads stands in.
const totals = "totals"

// unobservedSeconds is the name under which declared unobserved time is counted
// among the losses, rounded up to seconds.
const unobservedSeconds = "unobserved_seconds"

// fleet is what the store, the agents and the judge say of the hosts over a
// range.
type fleet struct {
	hosts   []hostState // by name
	damaged int
	others  *others // nil where not all hosts are asked
}

type hostState struct {
	store.Host
	health    Health
	agent     *Agent // nil when not connected
	sameID    []string
	requests  uint64             // over the range, mirrored ones too
	own       uint64             // those that fleet totals take
	counters  *exchange.Counters // not to be changed
	lost      []bucket.Span
	covered   []bucket.Span
	unbegun   bucket.Span
	hasStored bool
}

// surveyPlan asks what each host has counted.
func surveyPlan(rng span, sel *selection) store.Plan {
	return store.Plan{Table: totals, From: rng.from, To: rng.to, Hosts: sel.hosts, By: []string{"mirror"}, PerHost: true, Numbers: true}
}

// ratesPlan asks for the requests of each interval.
func ratesPlan(from, to, width int64, sel *selection) store.Plan {
	return store.Plan{Table: totals, From: from, To: to, Hosts: sel.hosts, By: []string{"mirror"}, Step: time.Duration(width), Numbers: true}
}

// survey asks the store about the hosts of the selection over a range.
func (s *Service) survey(ctx context.Context, rng span, sel *selection) (*fleet, error) {
	known, err := s.Store.Hosts(ctx)
	if err != nil {
		return nil, failed("read hosts", err)
	}
	now := s.Now().UnixNano()
	for i := range known {
		known[i].CoveredThrough = known[i].Covered(now)
	}
	stored := make(map[bucket.ID]bool, len(known))
	for _, h := range known {
		stored[h.ID] = true
	}
	agents := map[bucket.ID]*Agent{}
	for _, a := range s.Live.Agents() {
		agents[a.Host] = &a
		if !stored[a.Host] {
			known = append(known, store.Host{ID: a.Host, Name: a.Name}) // nothing closed yet
		}
	}
	if sel.hosts != nil {
		known = slices.DeleteFunc(known, func(h store.Host) bool { return !slices.Contains(sel.hosts, h.ID) })
	}
	answer, err := s.Store.Query(ctx, surveyPlan(rng, sel))
	if err != nil {
		return nil, failed("read totals", err)
	}
	f := &fleet{damaged: len(answer.Damaged)}
	if sel.fleetWide() {
		open := s.Live.Provisional()
		f.others = newOthers(open, known)
		var named []bucket.ID
		for i := range answer.Slices {
			named = append(named, store.Mirrored(answer.Slices[i].Table)...)
		}
		slices.SortFunc(named, bucket.ID.Compare)
		f.others.absences = store.Absences(slices.Compact(named), store.Coverage(answer, spans(open)), rng.from, rng.to, 0)
	}
	of := make(map[bucket.ID]*store.Slice, len(answer.Slices))
	for i := range answer.Slices {
		of[answer.Slices[i].Host] = &answer.Slices[i]
	}
	clones, width := s.Live.Clones(), s.Settings().DashboardBucketSize
	f.hosts = make([]hostState, 0, len(known))
	nothing := &exchange.Counters{}
	for i, health := range s.Judge.Health(known) {
		h := hostState{Host: known[i], health: health, counters: nothing, agent: agents[known[i].ID], sameID: clones[known[i].ID], hasStored: known[i].LastEnd > 0}
		h.unbegun = unbegun(&h.Host, h.agent, width)
		if sl := of[h.ID]; sl != nil {
			h.requests, h.own = requestsOf(sl.Table, &sl.Counters, nil)
			h.counters, h.lost, h.covered = &sl.Counters, sl.Unobserved, sl.Covered
		}
		f.hosts = append(f.hosts, h)
	}
	slices.SortFunc(f.hosts, func(x, y hostState) int {
		return cmp.Or(cmp.Compare(x.Name, y.Name), x.ID.Compare(y.ID))
	})
	if f.others == nil {
		return f, nil
	}
	for i := range f.others.absences {
		answer, err := s.Store.Query(ctx, f.others.absences[i].Plan(store.Plan{Table: totals, By: []string{"mirror"}, PerHost: true, Numbers: true}))
		if err != nil {
			return nil, failed("read totals", err)
		}
		for k := range answer.Slices {
			sl := &answer.Slices[k]
			if at := slices.IndexFunc(f.hosts, func(h hostState) bool { return h.ID == sl.Host }); at >= 0 && sl.Table != nil {
				n, _ := requestsOf(sl.Table, &sl.Counters, nil)
				f.hosts[at].own += n
			}
		}
	}
	return f, nil
}

// counted is the number of requests that the selection takes from the host.
func (h *hostState) counted(sel *selection) uint64 {
	if sel.fleetWide() {
		return h.own
	}
	return h.requests
}

// watched is the time over which averages are: that of the baseline, without that in which the agent had not begun.
func (h *hostState) watched() baseline.HostCoverage {
	return baseline.HostCoverage{Covered: h.covered, Unobserved: append(slices.Clip(h.lost), h.unbegun)}
}

// begins are those of the hosts.
func (f *fleet) begins() (b begins) {
	for i := range f.hosts {
		b.add(f.hosts[i].FirstStart, f.hosts[i].unbegun)
	}
	return b
}

// counts returns the non-zero loss counters and the declared unobserved time.
func counts(c *exchange.Counters, lost time.Duration, keep func(exchange.Counter) bool) (out []*httpctlv1.Count) {
	for i := range exchange.NumCounters {
		if c[i] > 0 && keep(i) {
			out = append(out, &httpctlv1.Count{Name: i.String(), Value: c[i]})
		}
	}
	if lost > 0 {
		out = append(out, &httpctlv1.Count{Name: unobservedSeconds, Value: uint64((lost + time.Second - 1) / time.Second)})
	}
	return out
}

func length(spans []bucket.Span) (d time.Duration) {
	for _, s := range spans {
		d += time.Duration(s.To - s.From)
	}
	return d
}

// GetStatus implements QueryService, over the last DefaultRange.
func (s *Service) GetStatus(ctx context.Context, _ *httpctlv1.GetStatusRequest) (*httpctlv1.GetStatusResponse, error) {
	leave, err := s.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	rng, err := s.rangeOf(nil, DefaultRange)
	if err != nil {
		return nil, err
	}
	f, err := s.survey(ctx, rng, &selection{})
	if err != nil {
		return nil, err
	}
	out, _, err := s.status(ctx, f, rng, &selection{}, true, s.provisional(rng, &selection{}))
	return out, err
}

// status fills in the dashboard's header and its rate history. With live, open is
// what was not closed yet; the store was asked before: see Live.
func (s *Service) status(ctx context.Context, f *fleet, rng span, sel *selection, live bool, open []Provisional) (*httpctlv1.GetStatusResponse, []uint64, error) {
	set := s.Settings()
	out := &httpctlv1.GetStatusResponse{
		TimeUnixNs: s.Now().UnixNano(), Version: s.Version,
		IntervalWidthNs: int64(set.DashboardBucketSize), WindowWidthNs: int64(set.AverageBucketSize), RefreshNs: int64(set.Timeout),
		Alert: s.alertStatus(f.others, live), Fleet: &httpctlv1.FleetHealth{},
		RangeSinceUnixNs: rng.from, RangeUntilUnixNs: rng.until,
	}
	if s.Warnings != nil {
		out.Warnings = sendables(s.Warnings())
	}
	if f.damaged > 0 {
		out.Warnings = append(out.Warnings, fmt.Sprintf("stored data of %d intervals of the range failed its checksum and is left out", f.damaged))
	}
	var counters exchange.Counters
	var lost time.Duration
	var cover []baseline.HostCoverage
	for i := range f.hosts {
		h := &f.hosts[i]
		switch h.health {
		case Reporting:
			out.Fleet.Reporting++
		case Late:
			out.Fleet.Late++
		default:
			out.Fleet.Gone++
		}
		counters.Add(h.counters)
		lost += length(h.lost)
		cover = append(cover, h.watched())
		out.Requests += h.counted(sel)
	}
	out.Loss = counts(&counters, lost, exchange.Counter.Loss)
	// Over the time that somebody watched.
	if d := baseline.Covered(cover, rng.from, rng.to); d > 0 {
		out.RateAverage = float64(out.Requests) / d.Seconds()
	}
	for i := range open { // as the top lists below it do
		out.Requests += f.others.requests(&open[i], sel.fleetWide())
		counters.Add(&open[i].Counters)
	}
	out.Packets = &counters[exchange.Packets]
	out.OtherProtocols = counts(&counters, 0, exchange.Counter.OtherProtocol)
	history, err := s.rates(ctx, f, sel, live, out)
	return out, history, err
}

// rates fills in the rate of now, and returns the requests of each of the last
// intervals that are complete.
func (s *Service) rates(ctx context.Context, f *fleet, sel *selection, live bool, out *httpctlv1.GetStatusResponse) ([]uint64, error) {
	width := out.IntervalWidthNs
	if width <= 0 {
		return nil, nil
	}
	// The last interval of which every reporting host has sent all; if none
	// reports, the last that there is.
	end, newest := int64(0), int64(0)
	for i := range f.hosts {
		h := &f.hosts[i]
		if !h.hasStored {
			continue
		}
		newest = max(newest, h.CoveredThrough)
		if h.health == Reporting && h.CoveredThrough > 0 && (end == 0 || h.CoveredThrough < end) {
			end = h.CoveredThrough
		}
	}
	if end == 0 {
		end = newest
	}
	end -= end % width
	var history []uint64
	if end > 0 {
		from := max(0, end-HistoryIntervals*width)
		answer, err := s.Store.Query(ctx, ratesPlan(from, end, width, sel))
		if err != nil {
			return nil, failed("read rates", err)
		}
		history = make([]uint64, (end-from)/width)
		first, newer := int64(-1), int64(-1)
		last := int64(len(history)) - 1 // where the newest interval begins
		for i := range answer.Slices {
			sl := &answer.Slices[i]
			n := (sl.Start - from) / width
			if first < 0 {
				first = n
			}
			for _, c := range sl.Covered {
				if c.To > sl.Start+width {
					newer = max(newer, min((c.To-from)/width, int64(len(history))))
					if c.To >= end && n < last {
						last = n
					}
				}
			}
			all, own := requestsOf(sl.Table, &sl.Counters, nil)
			history[n] = all
			if sel.fleetWide() {
				history[n] = own
			}
		}
		if sel.fleetWide() {
			if err := s.addAbsent(ctx, answer, history, from, end, width); err != nil {
				return nil, failed("read rates", err)
			}
		}
		// Before the first bucket there was no zero, but nobody who counted. And where intervals were longer than now, one of them
		// would stand there with all that it has, and zeros after it.
		if first >= 0 {
			for _, n := range history[last:] {
				out.IntervalRequests += n
			}
			out.IntervalStartUnixNs = from + last*width
			begins := f.begins()
			d := time.Duration(end-out.IntervalStartUnixNs) - begins.cut(out.IntervalStartUnixNs, end)
			out.RateNow = float64(out.IntervalRequests) / max(d, enough(time.Duration(width))).Seconds()
			history = history[max(first, newer):]
		} else {
			history = nil
		}
	}
	if live {
		s.liveRate(f, sel, out)
	}
	return history, nil
}

// addAbsent adds what hosts counted of others that were away to the requests of the intervals of [from, end), of which answer has the totals.
func (s *Service) addAbsent(ctx context.Context, answer *store.Answer, history []uint64, from, end, width int64) error {
	var named []bucket.ID
	for i := range answer.Slices {
		named = append(named, store.Mirrored(answer.Slices[i].Table)...)
	}
	absences, err := store.AbsencesOf(ctx, s.Store, named, from, end, time.Duration(width), nil)
	if err != nil {
		return err
	}
	for i := range absences {
		answer, err := s.Store.Query(ctx, absences[i].Plan(store.Plan{Table: totals, By: []string{"mirror"}, Numbers: true}))
		if err != nil {
			return err
		}
		for k := range answer.Slices {
			if sl := &answer.Slices[k]; sl.Table != nil {
				all, _ := requestsOf(sl.Table, &sl.Counters, nil)
				history[(sl.Start-from)/width] += all
			}
		}
	}
	return nil
}

// enough is the time of an interval over which it has a rate: a quarter, at most 2 s. Less than that, and a single request makes the rate jump.
func enough(width time.Duration) time.Duration { return min(width/4, 2*time.Second) }

// liveRate replaces the rate of now by that of the interval under way, if every
// reporting host has sent a fresh provisional bucket of it that has seen enough
// of it.
func (s *Service) liveRate(f *fleet, sel *selection, out *httpctlv1.GetStatusResponse) {
	now := s.Now()
	width := time.Duration(out.IntervalWidthNs)
	start := now.UnixNano() - now.UnixNano()%out.IntervalWidthNs
	stale := 3 * time.Duration(out.RefreshNs)
	type progress struct {
		requests uint64
		elapsed  time.Duration
	}
	byHost := map[bucket.ID]progress{}
	for _, p := range s.Live.Provisional() {
		elapsed := min(p.Received.Sub(time.Unix(0, max(start, p.ObservedFrom))), width)
		if p.Start != start || now.Sub(p.Received) > stale {
			continue
		}
		h := byHost[p.Host]
		byHost[p.Host] = progress{h.requests + f.others.requests(&p, sel.fleetWide()), max(h.elapsed, elapsed)}
	}
	sum, rate, any := uint64(0), 0.0, false
	for i := range f.hosts {
		h := &f.hosts[i]
		p, ok := byHost[h.ID]
		if h.health != Reporting && !ok {
			continue
		}
		if !ok || p.elapsed < enough(width) {
			return
		}
		any = true
		sum += p.requests
		rate += float64(p.requests) / p.elapsed.Seconds()
	}
	if any {
		out.RateNow, out.IntervalRequests, out.IntervalStartUnixNs = rate, sum, start
	}
}

// ListHosts implements QueryService.
func (s *Service) ListHosts(ctx context.Context, r *httpctlv1.ListHostsRequest) (*httpctlv1.ListHostsResponse, error) {
	leave, err := s.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	rng, err := s.rangeOf(r.GetRange(), DefaultRange)
	if err != nil {
		return nil, err
	}
	f, err := s.survey(ctx, rng, &selection{})
	if err != nil {
		return nil, err
	}
	return &httpctlv1.ListHostsResponse{Hosts: f.messages(rng, nil)}, nil
}

// messages tells of each host; open is what was not closed yet and counts, too.
func (f *fleet) messages(rng span, open []Provisional) []*httpctlv1.Host {
	more := map[bucket.ID]uint64{}
	for i := range open {
		all, _ := requestsOf(open[i].Table(totals), &open[i].Counters, nil)
		more[open[i].Host] += all
	}
	var out []*httpctlv1.Host
	for i := range f.hosts {
		h := &f.hosts[i]
		p := &httpctlv1.Host{
			Id: h.ID.String(), Name: sendable(h.Name), Health: healths[min(h.health, Gone)],
			CoveredThroughUnixNs: h.CoveredThrough, FirstSeenUnixNs: h.FirstStart, Open: h.LastOpen,
			Requests: h.requests + more[h.ID], SameId: sendables(h.sameID),
			Counters: counts(h.counters, length(h.lost), func(exchange.Counter) bool { return true }),
		}
		if d := baseline.Covered([]baseline.HostCoverage{h.watched()}, rng.from, rng.to); d > 0 {
			p.Rate = float64(h.requests) / d.Seconds()
		}
		if h.agent != nil {
			p.Connected, p.Version, p.Backlog = true, sendable(h.agent.Version), h.agent.Backlog
		}
		out = append(out, p)
	}
	return out
}
