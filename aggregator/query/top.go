package query

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/exchange"
	"github.com/httpctl/httpctl/pkg/stat"
	httpctlv1 "github.com/httpctl/httpctl/proto/httpctl/v1"
)

// watchFactor times `timeout` is how long agents go on sending provisional
// buckets after the last question of a live view.
const watchFactor = 5

// liveRows is how many rows of each table agents send at least while someone
// watches. With the first max_top_hits alone, which is what the design asks
// for, every row of a live list could be more by what the cut left out; 64 hold
// most sites' sections whole, so that the list is exact, for about 5 KB every timeout.
const liveRows = 64

// GetTop implements QueryService.
func (s *Service) GetTop(ctx context.Context, r *httpctlv1.GetTopRequest) (*httpctlv1.GetTopResponse, error) {
	leave, err := s.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	rng, err := s.rangeOf(r.GetRange(), DefaultRange)
	if err != nil {
		return nil, err
	}
	limit, err := s.limitOf(r.GetLimit())
	if err != nil {
		return nil, err
	}
	d, sel, err := s.listOf(ctx, rng, r.GetDimension(), r.GetFilters())
	if err != nil {
		return nil, err
	}
	if r.GetLive() {
		s.watch(limit)
	}
	var o *others
	if sel.fleetWide() {
		if o, err = s.others(ctx, d, rng); err != nil {
			return nil, err
		}
	}
	return s.top(ctx, d, rng, &sel, o, limit, r.GetLive())
}

// listOf is the top list that is asked for, and what is chosen of it. The error says which list has the filters, if one has.
func (s *Service) listOf(ctx context.Context, rng span, name string, filters []*httpctlv1.Filter) (*dimension, selection, error) {
	sel, err := s.selectionOf(ctx, filters)
	if err != nil {
		return nil, selection{}, err
	}
	dims, err := s.dimensions(ctx)
	if err != nil {
		return nil, selection{}, err
	}
	d, err := find(dims, name)
	if sel.hosts != nil && (err != nil || !slices.Contains(stat.Builtin, d.schema.Name)) {
		if dims, err = s.dimensionsOf(ctx, rng, &sel); err != nil {
			return nil, selection{}, err
		}
		d, err = find(dims, name)
	}
	if err != nil {
		return nil, selection{}, err
	}
	if column := d.refuses(&sel); column != "" {
		msg := d.refusal(column)
		if d.name != drillDown && slices.ContainsFunc(dims, func(x dimension) bool { return x.name == drillDown && x.refuses(&sel) == "" }) {
			msg += "; the top list " + drillDown + " takes all of these filters"
		}
		return nil, selection{}, invalid("%s", msg)
	}
	return d, sel, nil
}

func (s *Service) watch(rows int) {
	set := s.Settings()
	s.Live.Watch(max(watchFactor*set.Timeout, time.Second), max(rows, set.MaxTopHits, liveRows))
}

// others finds what counts in fleet totals of a range besides what no other host counts. Where totals are not kept,
// the dimension's own table says which hosts counted what of each other.
func (s *Service) others(ctx context.Context, d *dimension, rng span) (*others, error) {
	known, err := s.Store.Hosts(ctx)
	if err != nil {
		return nil, failed("read hosts", err)
	}
	open := s.Live.Provisional()
	o := newOthers(open, known)
	o.absences, err = store.FindAbsences(ctx, s.Store, []string{totals, d.schema.Name}, rng.from, rng.to, 0, spans(open))
	if err != nil {
		return nil, failed("top list "+d.name, err)
	}
	return o, nil
}

// rowsWhere returns the conditions on rows of a table: those asked for, and
// without mirrored traffic when every host is asked, as another host counts it.
func rowsWhere(schema *bucket.Schema, sel *selection) []bucket.Condition {
	where := slices.Clip(sel.where)
	if sel.fleetWide() && !sel.has("mirror") && schema.Key("mirror") >= 0 {
		where = append(where, bucket.Condition{Column: "mirror", Values: []string{own}})
	}
	return where
}

// topPlan asks for one top list.
func topPlan(d *dimension, rng span, sel *selection) store.Plan {
	return store.Plan{Table: d.schema.Name, Schema: &d.schema, From: rng.from, To: rng.to, Hosts: sel.hosts, Where: rowsWhere(&d.schema, sel), By: d.view.By, Sum: true}
}

// top answers one top list.
func (s *Service) top(ctx context.Context, d *dimension, rng span, sel *selection, o *others, limit int, live bool) (*httpctlv1.GetTopResponse, error) {
	plan := topPlan(d, rng, sel)
	answer, err := s.Store.Query(ctx, plan)
	if err == nil && sel.hosts != nil && leavesOut(answer) { // a dashboard takes the lists as the fleet has them
		var own *dimension
		if own, err = s.versionOf(ctx, d, rng, sel); err == nil && own != d {
			d, plan = own, topPlan(own, rng, sel)
			answer, err = s.Store.Query(ctx, plan)
		}
	}
	if err != nil {
		return nil, failed("top list "+d.name, err)
	}
	where := plan.Where
	sum := store.NewSum(&plan)
	if len(answer.Slices) > 0 {
		sum = answer.Slices[0].Sum
	}
	fleetWide := len(where) > len(sel.where) // without what other hosts count
	if fleetWide {
		if err := o.add(ctx, s.Store, store.Plan{Table: d.schema.Name, Schema: &d.schema, Where: sel.where, By: d.view.By}, sum); err != nil {
			return nil, failed("top list "+d.name, err)
		}
	}
	var pending []Provisional
	if live {
		pending = s.provisional(rng, sel) // after the store: see Live
	}
	for _, p := range pending {
		t := p.Table(d.schema.Name)
		if t == nil {
			continue
		}
		if fleetWide {
			where = append(slices.Clip(sel.where), bucket.Condition{Column: "mirror", Values: o.values(p.Start, t)})
		}
		if err := sum.Add(t, where); err != nil {
			return nil, failed("top list "+d.name, err)
		}
	}
	out := &httpctlv1.GetTopResponse{Dimension: d.message(), Range: rng.message(), DamagedIntervals: uint32(len(answer.Damaged)), Coverage: coverage(nil)}
	if len(answer.Slices) > 0 {
		sl := &answer.Slices[0]
		out.Coverage = coverage(sl.Covered)
		out.SkippedBuckets = uint64(sl.Skipped)
		out.Loss = counts(&sl.Counters, length(sl.Unobserved), exchange.Counter.Loss)
	}
	fill(out, sum, d, limit)
	return out, nil
}

// fill puts the first rows into a response. The sum must not be used afterwards.
func fill(out *httpctlv1.GetTopResponse, sum *store.Sum, d *dimension, limit int) {
	most := limit
	byStatus := len(d.view.By) == 1 && d.view.By[0] == "status"
	if byStatus { // of which there are few, and all are in the classes
		most = 0
	}
	first := sum.Top(most, d.view.Hits)
	if first == nil || len(first.Schema.Measures) != len(d.schema.Measures) {
		// Nothing, or only a version that the schemas found a moment ago do not have.
		out.Other = &httpctlv1.TopRow{Cells: d.cells(&bucket.Row{})}
		return
	}
	hits := first.Schema.Measure(d.view.Hits)
	if byStatus {
		ended := hits
		if d.schema.Name == totals {
			ended = first.Schema.Measure(stat.TotalOutcomes) // those that ended without a response are no responses
		}
		// Rows without a hit are in Rest: what had no response.
		out.Classes = classes(first.Rows, ended, first.Rest.Values[ended]-first.Folded.Values[ended])
		first.Limit(limit)
	}
	// Err and Floor speak of the first measure. Of another, a row may miss
	// whatever of it was folded.
	hidden := int64(0)
	if first.Floor > 0 {
		hidden = first.Folded.Values[hits]
	}
	for _, r := range first.Rows {
		row := &httpctlv1.TopRow{Keys: sendables(r.Keys), Cells: d.cells(r), Error: r.Err}
		if hits != 0 {
			row.Error = hidden
		}
		out.Rows = append(out.Rows, row)
	}
	out.Other = &httpctlv1.TopRow{Cells: d.cells(&first.Rest)}
	all := first.Total()
	for _, c := range d.cells(all) {
		if c.Latency != nil && out.Latency == nil {
			out.Latency = c.Latency
		}
	}
	out.Total = all.Values[hits]
	out.Floor = first.Floor
	if hits != 0 {
		out.Floor = hidden
	}
}

// classes adds up a measure of rows whose key is a status by class; unanswered are exchanges without a response that are in no row.
func classes(rows []*bucket.Row, ended int, unanswered int64) []*httpctlv1.Count {
	by := [6]uint64{uint64(max(unanswered, 0))}
	for _, r := range rows {
		if class := classOf(r.Keys[0]); class >= 0 {
			by[class] += uint64(max(r.Values[ended], 0))
		}
	}
	return classCounts(&by)
}

// classOf is the first digit of a status, 0 of what has no response, -1 of what is no status.
func classOf(status string) int {
	switch first := status[:min(1, len(status))]; {
	case first >= "1" && first <= "5":
		return int(first[0] - '0')
	case status == stat.Absent:
		return 0
	}
	return -1
}

// classCounts lists the classes that have a count.
func classCounts(by *[6]uint64) (out []*httpctlv1.Count) {
	for class, n := range by {
		name := fmt.Sprintf("%dxx", class)
		if class == 0 {
			name = stat.Absent
		}
		if n > 0 {
			out = append(out, &httpctlv1.Count{Name: name, Value: n})
		}
	}
	return out
}

// cells are the values that the dimension shows of a row; an empty row has zeros.
func (d *dimension) cells(r *bucket.Row) []*httpctlv1.Cell {
	var out []*httpctlv1.Cell
	for _, i := range append([]int{d.hits}, d.show...) {
		cell := &httpctlv1.Cell{}
		if l := d.schema.LatencyIndex(i); l >= 0 {
			cell.Latency = &httpctlv1.LatencySummary{}
			if l < len(r.Latency) {
				cell.Latency = summary(r.Latency[l])
			}
		} else if i < len(r.Values) {
			cell.Number = r.Values[i]
		}
		out = append(out, cell)
	}
	return out
}

// provisional returns the provisional buckets of the range and hosts. Call it
// after the store, or the judge, was asked; see Live.
func (s *Service) provisional(rng span, sel *selection) []Provisional {
	return slices.DeleteFunc(slices.Clone(s.Live.Provisional()), func(p Provisional) bool {
		return p.Start < rng.from || p.Start >= rng.to || sel.hosts != nil && !slices.Contains(sel.hosts, p.Host)
	})
}
