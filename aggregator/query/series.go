package query

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/exchange"
	httpctlv1 "github.com/httpctl/httpctl/proto/httpctl/v1"
)

const (
	// maxPoints bounds a series: a week of minutes, ten years of days.
	maxPoints = 10_080
	// maxFine bounds the points of a series by interval: as many as a chart has room for.
	maxFine = 720
	// maxBuckets bounds those that are read for a series by interval: they take two seconds of a core the first
	// time, and then some milliseconds. Of minutes, roll-ups have the sum of a fleet.
	maxBuckets = 20_000
	// DefaultSeries is how far back a series reaches when the reader does not say.
	DefaultSeries = 24 * time.Hour
)

// chosenSteps are the steps that are chosen for ranges of at most a length, so that a series has some
// dozens of points.
var chosenSteps = []struct {
	most time.Duration
	step httpctlv1.SeriesStep
}{
	{2 * time.Hour, httpctlv1.SeriesStep_SERIES_STEP_MINUTE},
	{3 * day, httpctlv1.SeriesStep_SERIES_STEP_HOUR},
	{92 * day, httpctlv1.SeriesStep_SERIES_STEP_DAY},
	{366 * day, httpctlv1.SeriesStep_SERIES_STEP_WEEK},
	{1 << 62, httpctlv1.SeriesStep_SERIES_STEP_MONTH},
}

// calendar says how a step tiles time: length is that of the store's steps that it is made of, since the epoch. The step in which a
// time lies begins at begin, and the one after the one that begins then at then; both nil are the store's steps themselves.
type calendar struct {
	length      time.Duration
	begin, then func(time.Time) time.Time
}

const day = 24 * time.Hour

var calendars = map[httpctlv1.SeriesStep]calendar{
	httpctlv1.SeriesStep_SERIES_STEP_MINUTE: {length: time.Minute},
	httpctlv1.SeriesStep_SERIES_STEP_TEN_MINUTES: {time.Minute,
		func(t time.Time) time.Time { return t.Truncate(10 * time.Minute) },
		func(t time.Time) time.Time { return t.Add(10 * time.Minute) }},
	httpctlv1.SeriesStep_SERIES_STEP_HOUR: {length: time.Hour},
	httpctlv1.SeriesStep_SERIES_STEP_DAY:  {length: day},
	httpctlv1.SeriesStep_SERIES_STEP_WEEK: {day,
		func(t time.Time) time.Time { return date(t.Year(), t.Month(), t.Day()-(int(t.Weekday())+6)%7) },
		func(t time.Time) time.Time { return t.AddDate(0, 0, 7) }},
	httpctlv1.SeriesStep_SERIES_STEP_MONTH: {day,
		func(t time.Time) time.Time { return date(t.Year(), t.Month(), 1) },
		func(t time.Time) time.Time { return t.AddDate(0, 1, 0) }},
}

func date(year int, month time.Month, day int) time.Time {
	return time.Date(year, month, day, 0, 0, 0, 0, time.UTC)
}

// floor is the begin of the step in which a time lies.
func (c calendar) floor(t int64) int64 {
	if c.begin == nil {
		return t - t%int64(c.length)
	}
	return c.begin(time.Unix(0, t).UTC()).UnixNano()
}

// next is the begin of the step after the one that begins at t.
func (c calendar) next(t int64) int64 {
	if c.begin == nil {
		return t + int64(c.length)
	}
	return c.then(time.Unix(0, t).UTC()).UnixNano()
}

// GetSeries implements QueryService.
func (s *Service) GetSeries(ctx context.Context, r *httpctlv1.GetSeriesRequest) (*httpctlv1.GetSeriesResponse, error) {
	leave, err := s.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	rng, err := s.rangeOf(r.GetRange(), DefaultSeries)
	if err != nil {
		return nil, err
	}
	step := r.GetStep()
	if step == httpctlv1.SeriesStep_SERIES_STEP_UNSPECIFIED {
		for _, c := range chosenSteps {
			if time.Duration(rng.until-rng.from) <= c.most {
				step = c.step
				break
			}
		}
	}
	sel, err := s.selectionOf(ctx, r.GetFilters())
	if err != nil {
		return nil, err
	}
	if step == httpctlv1.SeriesStep_SERIES_STEP_INTERVAL {
		little, err := s.fewBuckets(ctx, rng, &sel)
		if err != nil {
			return nil, err
		}
		if !little {
			step = httpctlv1.SeriesStep_SERIES_STEP_MINUTE
		}
	}
	out, err := s.seriesOf(ctx, rng, &sel, step, r.GetOutcomes())
	if errors.Is(err, errWider) {
		return s.seriesOf(ctx, rng, &sel, httpctlv1.SeriesStep_SERIES_STEP_MINUTE, r.GetOutcomes())
	}
	return out, err
}

// errWider says that intervals are longer than the steps of a series, as dashboard_bucket_size has become less since: what such an interval has
// would stand in its first step, and the others would be empty. All divide a minute.
var errWider = errors.New("intervals are longer than the steps")

// seriesOf is the series of the given step.
func (s *Service) seriesOf(ctx context.Context, rng span, sel *selection, step httpctlv1.SeriesStep, outcomes bool) (*httpctlv1.GetSeriesResponse, error) {
	cal, ok := calendars[step]
	switch {
	case step == httpctlv1.SeriesStep_SERIES_STEP_INTERVAL:
		cal.length = s.Settings().DashboardBucketSize
	case !ok:
		return nil, invalid("series: there is no step %d", step)
	}
	rng.from = cal.floor(rng.from)
	if n := (rng.until - rng.from) / int64(cal.length); n > maxPoints {
		return nil, invalid("series: %d steps of %s: the most is %d; take a longer step or a shorter range", n, cal.length, maxPoints)
	}
	d, err := s.counting(ctx, rng, sel)
	if err != nil {
		return nil, err
	}
	tables := []string{totals}
	if d != nil {
		tables = append(tables, d.schema.Name)
	}
	absences := sync.OnceValues(func() ([]store.Absence, error) {
		return store.FindAbsences(ctx, s.Store, append(tables, drillDown), rng.from, rng.to, cal.length, spans(s.Live.Provisional()))
	})
	out, err := s.series(ctx, d, rng, sel, step, cal, absences)
	if err != nil || !outcomes {
		return out, err
	}
	return out, s.addOutcomes(ctx, out, rng, sel, cal, absences)
}

// fewBuckets reports whether a range has at most maxFine intervals, and maxBuckets of all hosts, or with filters of names an eighth of
// that, which are kept one by one.
func (s *Service) fewBuckets(ctx context.Context, rng span, sel *selection) (bool, error) {
	settings := s.Settings()
	if rng.from < s.Now().Add(-settings.MaxRetentionLength).UnixNano() {
		return false, nil // roll-ups are left
	}
	steps := (rng.until - rng.from) / int64(settings.DashboardBucketSize)
	if steps > maxFine {
		return false, nil
	}
	n := int64(len(sel.hosts))
	if sel.hosts == nil {
		hosts, err := s.Store.Hosts(ctx)
		if err != nil {
			return false, failed("series", err)
		}
		for i := range hosts {
			if hosts[i].LastEnd > rng.from {
				n++
			}
		}
	}
	most := int64(maxBuckets)
	if len(sel.where) > 0 {
		most /= 8 // lists by name have many more rows than the totals
	}
	return n*steps <= most, nil
}

// counting finds the top list whose hits, added up, answer the selection: all requests where that can be, else those
// of the first list that has the columns.
func (s *Service) counting(ctx context.Context, rng span, sel *selection) (*dimension, error) {
	dims, err := s.dimensions(ctx)
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"method", "domain", "section", "user_agent", "client_ip", drillDown} {
		if d, err := find(dims, name); err == nil && d.refuses(sel) == "" {
			return d, nil
		}
	}
	if len(sel.where) == 0 {
		return nil, nil // of the counters, then
	}
	if dims, err = s.dimensionsOf(ctx, rng, sel); err != nil {
		return nil, err
	}
	for i := range dims { // of a plug-in
		if dims[i].refuses(sel) == "" {
			return &dims[i], nil
		}
	}
	var names, there []string
	for i := range dims {
		there = append(there, dims[i].filters()...)
	}
	hint := ""
	for _, c := range sel.where {
		names = append(names, c.Column)
		if hint == "" && !slices.Contains(there, c.Column) {
			hint = meant(c.Column, there)
		}
	}
	return nil, invalid("series: no statistic has all of the columns %s%s", strings.Join(names, ", "), hint)
}

// absencesOf finds, once, when hosts were away of whom others counted something.
type absencesOf func() ([]store.Absence, error)

// series adds up the points. A nil d counts request heads.
func (s *Service) series(ctx context.Context, d *dimension, rng span, sel *selection, step httpctlv1.SeriesStep, cal calendar, absences absencesOf) (*httpctlv1.GetSeriesResponse, error) {
	plan := store.Plan{From: rng.from, To: rng.to, Hosts: sel.hosts, Step: cal.length, Numbers: true}
	if d != nil {
		plan.Table, plan.Schema, plan.Where, plan.By = d.schema.Name, &d.schema, rowsWhere(&d.schema, sel), []string{}
	}
	answer, err := s.Store.Query(ctx, plan)
	if err != nil {
		return nil, failed("series", err)
	}
	out := &httpctlv1.GetSeriesResponse{Step: step, Range: rng.message(), DamagedIntervals: uint32(len(answer.Damaged))}
	if d != nil && d.schema.Name != totals {
		out.Dimension = d.name
	}
	type sum struct {
		start              int64
		hits, err          int64
		counters           exchange.Counters
		covered, unwatched []bucket.Span
		hosts              map[bucket.ID]bool
	}
	var points []*sum
	last := min(rng.until, rng.to)
	for at := rng.from; at < last; at = cal.next(at) {
		points = append(points, &sum{start: at, hosts: map[bucket.ID]bool{}})
	}
	find := func(t int64) *sum {
		t = cal.floor(t)
		low, high := 0, len(points)
		for low < high {
			if m := (low + high) / 2; points[m].start < t {
				low = m + 1
			} else {
				high = m
			}
		}
		if low == len(points) || points[low].start != t {
			return nil // ahead of this clock
		}
		return points[low]
	}
	var all sum
	for i := range answer.Slices {
		sl := &answer.Slices[i]
		if step == httpctlv1.SeriesStep_SERIES_STEP_INTERVAL && slices.ContainsFunc(sl.Covered, func(c bucket.Span) bool { return c.To > sl.Start+int64(cal.length) }) {
			return nil, errWider
		}
		p := find(sl.Start)
		if p == nil {
			continue
		}
		if d == nil {
			p.hits += int64(sl.Counters[exchange.Requests])
		} else {
			hits, err := d.sum(sl.Table, len(sel.where) > 0)
			p.hits += hits
			p.err += err
		}
		for _, to := range []*sum{p, &all} {
			to.counters.Add(&sl.Counters)
			to.covered = append(to.covered, sl.Covered...)
			to.unwatched = append(to.unwatched, sl.Unobserved...)
		}
		for _, h := range sl.Hosts {
			p.hosts[h] = true
		}
	}
	if d != nil && len(plan.Where) > len(sel.where) { // without what other hosts count
		away, err := absences()
		if err != nil {
			return nil, failed("series", err)
		}
		for i := range away {
			more, err := s.Store.Query(ctx, away[i].Plan(store.Plan{Table: d.schema.Name, Schema: &d.schema, Where: sel.where, By: []string{}, Numbers: true}))
			if err != nil {
				return nil, failed("series", err)
			}
			for k := range more.Slices {
				if p := find(more.Slices[k].Start); p != nil {
					hits, err := d.sum(more.Slices[k].Table, true)
					p.hits += hits
					p.err += err
				}
			}
		}
	}
	begins, err := s.begins(ctx, sel)
	if err != nil {
		return nil, failed("series", err)
	}
	for _, p := range points {
		covered := begins.without(bucket.MergeSpans(p.covered))
		point := &httpctlv1.SeriesPoint{
			StartUnixNs: p.start, EndUnixNs: min(cal.next(p.start), last), Requests: uint64(max(p.hits, 0)), Error: p.err,
			CoveredNs: int64(length(covered)), Hosts: uint32(len(p.hosts)),
			Loss: counts(&p.counters, length(bucket.MergeSpans(p.unwatched)), exchange.Counter.Loss),
		}
		if point.CoveredNs > 0 {
			point.Rate = float64(point.Requests) / time.Duration(point.CoveredNs).Seconds()
		}
		out.Points = append(out.Points, point)
	}
	out.Points = s.come(out.Points)
	out.Coverage = coverage(begins.without(bucket.MergeSpans(all.covered)))
	out.Loss = counts(&all.counters, length(bucket.MergeSpans(all.unwatched)), exchange.Counter.Loss)
	return out, nil
}

// come leaves the last points out of which nothing can have come yet, as their first interval is under way, or over for less than another:
// without data they are no gaps.
func (s *Service) come(points []*httpctlv1.SeriesPoint) []*httpctlv1.SeriesPoint {
	early := s.Now().Add(-2 * s.Settings().DashboardBucketSize).UnixNano()
	for len(points) > 0 {
		if p := points[len(points)-1]; p.StartUnixNs <= early || p.CoveredNs > 0 || p.Requests > 0 || p.Hosts > 0 || len(p.Loss) > 0 {
			break
		}
		points = points[:len(points)-1]
	}
	return points
}
