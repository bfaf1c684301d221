package query

import (
	"context"
	"math"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/sketch"
	"github.com/httpctl/httpctl/pkg/stat"
	httpctlv1 "github.com/httpctl/httpctl/proto/httpctl/v1"
)

// latencyBounds divide response times for a histogram: five to a decade from 10 µs to 100 s, which keeps
// a heat map of the usual three decades at fifteen rows.
var latencyBounds = func() (out []int64) {
	for k := range 36 {
		out = append(out, int64(math.Round(1e4*math.Pow(10, float64(k)/5))))
	}
	return out
}()

// ended adds up how the exchanges of one step ended.
type ended struct {
	total   uint64
	classes [6]uint64 // 0 is without a response
	latency sketch.Latency
}

// add takes the rows of a table by status. hits is the measure that counts exchanges, ttfb the index of the one of response times, or -1.
func (e *ended) add(t *bucket.Table, hits, ttfb int) {
	row := func(r *bucket.Row, class int) {
		n := uint64(max(r.Values[hits], 0))
		e.total += n
		if class >= 0 {
			e.classes[class] += n
		}
		if ttfb >= 0 && ttfb < len(r.Latency) {
			e.latency.Merge(r.Latency[ttfb])
		}
	}
	for _, r := range t.Rows {
		row(r, classOf(r.Keys[0]))
	}
	row(&t.Other, -1)
}

func (e *ended) message() *httpctlv1.Outcomes {
	out := &httpctlv1.Outcomes{Total: e.total, Latency: summary(&e.latency), Classes: classCounts(&e.classes)}
	counts := make([]uint64, len(latencyBounds))
	e.latency.Spread(latencyBounds[:len(latencyBounds)-1], counts) // what took longer is in the last
	for i, n := range counts {
		if n > 0 {
			out.Histogram = append(out.Histogram, &httpctlv1.LatencyBin{UpToNs: latencyBounds[i], Count: n})
		}
	}
	return out
}

// addOutcomes fills in how the exchanges of each point ended: from the totals, where the filters are by what they have,
// else from the drill-down table. Where neither has all columns the points stay without.
func (s *Service) addOutcomes(ctx context.Context, to *httpctlv1.GetSeriesResponse, rng span, sel *selection, cal calendar, absences absencesOf) error {
	dims, err := s.dimensions(ctx)
	if err != nil {
		return err
	}
	for _, name := range []string{"status", drillDown} {
		d, err := find(dims, name)
		if err != nil || d.refuses(sel) != "" {
			continue
		}
		of, err := s.endedBySteps(ctx, d, rng, sel, cal, absences)
		if err != nil {
			return err
		}
		for _, p := range to.Points {
			e := of[p.StartUnixNs]
			if e == nil {
				e = new(ended)
			}
			p.Outcomes = e.message()
		}
		return nil
	}
	return nil
}

// stepsAtOnce bounds the memory of a question: each step of an answer has rows by status, with their latency sketches.
const stepsAtOnce = 256

// endedBySteps adds up a table with a status by the steps of a calendar.
func (s *Service) endedBySteps(ctx context.Context, d *dimension, rng span, sel *selection, cal calendar, absences absencesOf) (map[int64]*ended, error) {
	measure := d.view.Hits
	if d.schema.Name == totals {
		measure = stat.TotalOutcomes // its responses are not all: some exchanges end without one
	}
	out := map[int64]*ended{}
	add := func(a *store.Answer) {
		for i := range a.Slices {
			t := a.Slices[i].Table
			if t == nil {
				continue
			}
			hits := t.Schema.Measure(measure)
			if hits < 0 {
				continue // only a version that the schemas found a moment ago do not have
			}
			at := cal.floor(a.Slices[i].Start)
			if out[at] == nil {
				out[at] = new(ended)
			}
			ttfb := -1
			if m := t.Schema.Measure(stat.MeasureTTFB); m >= 0 {
				ttfb = t.Schema.LatencyIndex(m)
			}
			out[at].add(t, hits, ttfb)
		}
	}
	plan := store.Plan{Table: d.schema.Name, Schema: &d.schema, Hosts: sel.hosts, Step: cal.length, Where: rowsWhere(&d.schema, sel), By: []string{"status"}}
	for plan.From = rng.from; plan.From < rng.to; plan.From = plan.To {
		plan.To = min(plan.From+stepsAtOnce*int64(plan.Step), rng.to)
		answer, err := s.Store.Query(ctx, plan)
		if err != nil {
			return nil, failed("series", err)
		}
		add(answer)
	}
	if len(plan.Where) == len(sel.where) {
		return out, nil
	}
	away, err := absences()
	if err != nil {
		return nil, failed("series", err)
	}
	for i := range away { // what only those counted who asked a host that was away
		for _, piece := range away[i].Pieces(stepsAtOnce) {
			more, err := s.Store.Query(ctx, piece.Plan(store.Plan{Table: d.schema.Name, Schema: &d.schema, Where: sel.where, By: []string{"status"}}))
			if err != nil {
				return nil, failed("series", err)
			}
			add(more)
		}
	}
	return out, nil
}

// summary writes a latency sketch, summed up; that of an empty one has zeros.
func summary(k *sketch.Latency) *httpctlv1.LatencySummary {
	if k == nil || k.Count == 0 {
		return &httpctlv1.LatencySummary{}
	}
	return &httpctlv1.LatencySummary{Count: k.Count, AverageNs: k.Mean(),
		P50Ns: k.Quantile(0.5), P95Ns: k.Quantile(0.95), P99Ns: k.Quantile(0.99), MaxNs: k.Max}
}
