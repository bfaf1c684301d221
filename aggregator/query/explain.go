package query

import (
	"context"
	"slices"
	"strings"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/exchange"
	httpctlv1 "github.com/httpctl/httpctl/proto/httpctl/v1"
)

// Limits of an account: what is longer is cut, and its sums are not.
const (
	maxDamaged = 1000
	maxSpans   = 100
)

// Explain implements QueryService: the same sum as GetTop, host by host, with what each host did not see.
func (s *Service) Explain(ctx context.Context, r *httpctlv1.ExplainRequest) (*httpctlv1.ExplainResponse, error) {
	leave, err := s.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	rng, err := s.rangeOf(r.GetRange(), DefaultRange)
	if err != nil {
		return nil, err
	}
	d, sel, err := s.listOf(ctx, rng, r.GetDimension(), r.GetFilters())
	if err != nil {
		return nil, err
	}
	rows := sel
	if rows.where, err = d.whereKeys(sel.where, r.GetKeys()); err != nil {
		return nil, err
	}
	where := rowsWhere(&d.schema, &rows)
	fleetWide := len(where) > len(rows.where) // without what other hosts count
	var o *others
	if fleetWide {
		if o, err = s.others(ctx, d, rng); err != nil {
			return nil, err
		}
	}
	some := len(rows.where) > 0
	f, err := s.survey(ctx, rng, &sel)
	if err != nil {
		return nil, err
	}
	plan := store.Plan{Table: d.schema.Name, Schema: &d.schema, From: rng.from, To: rng.to, Hosts: sel.hosts, Where: where, By: []string{}, PerHost: true, Numbers: true}
	answer, err := s.Store.Query(ctx, plan)
	if err != nil {
		return nil, failed("explain "+d.name, err)
	}
	// What a host counted of one that has no bucket of that time counts, too: see others.
	type part struct{ hits, hidden int64 }
	instead := map[bucket.ID]part{}
	if o != nil {
		plan.Where = rows.where
		for i := range o.absences {
			answer, err := s.Store.Query(ctx, o.absences[i].Plan(plan))
			if err != nil {
				return nil, failed("explain "+d.name, err)
			}
			for k := range answer.Slices {
				n, hidden := d.sum(answer.Slices[k].Table, some)
				p := instead[answer.Slices[k].Host]
				instead[answer.Slices[k].Host] = part{p.hits + n, p.hidden + hidden}
			}
		}
	}
	pending := map[bucket.ID]int64{}
	for _, p := range s.provisional(rng, &sel) { // after the store: see Live
		t := p.Table(d.schema.Name)
		if t == nil {
			continue
		}
		if fleetWide {
			where = append(slices.Clip(rows.where), bucket.Condition{Column: "mirror", Values: o.values(p.Start, t)})
		}
		sum := store.NewSum(&store.Plan{Schema: &d.schema, By: []string{}})
		if err := sum.Add(t, where); err != nil {
			return nil, failed("explain "+d.name, err)
		}
		n, _ := d.sum(sum.Table(0), some)
		pending[p.Host] += n
	}
	out := &httpctlv1.ExplainResponse{
		Dimension: d.message(), Range: rng.message(), DamagedIntervals: uint32(len(answer.Damaged)),
		DamagedUnixNs:   answer.Damaged[:min(len(answer.Damaged), maxDamaged)],
		MirroredLeftOut: fleetWide,
	}
	of := make(map[bucket.ID]*store.Slice, len(answer.Slices))
	for i := range answer.Slices {
		of[answer.Slices[i].Host] = &answer.Slices[i]
	}
	for i := range f.hosts {
		h := &f.hosts[i]
		sl := of[h.ID]
		if sl == nil {
			if pending[h.ID] == 0 {
				continue
			}
			sl = &store.Slice{}
		}
		host := &httpctlv1.ExplainedHost{
			Id: h.ID.String(), Name: sendable(h.Name), Health: healths[min(h.health, Gone)], Pending: pending[h.ID],
			Buckets: uint64(sl.Buckets), Skipped: uint64(sl.Skipped),
			Covered: ranges(sl.Covered), Unobserved: ranges(sl.Unobserved),
			CoveredNs: int64(length(sl.Covered)), UnobservedNs: int64(length(sl.Unobserved)),
			Loss: counts(&sl.Counters, length(sl.Unobserved), exchange.Counter.Loss),
		}
		host.Hits, host.Error = d.sum(sl.Table, some)
		host.Hits += instead[h.ID].hits
		host.Error += instead[h.ID].hidden
		out.Hits += host.Hits
		out.Error += host.Error
		out.Pending += host.Pending
		out.Hosts = append(out.Hosts, host)
	}
	return out, nil
}

// whereKeys adds the conditions that keep one row of the list.
func (d *dimension) whereKeys(where []bucket.Condition, keys []string) ([]bucket.Condition, error) {
	if len(keys) == 0 {
		return where, nil
	}
	if len(keys) != len(d.view.By) {
		return nil, invalid("top list %s has the keys %s: give a value for each, or none; got %d", d.name, strings.Join(d.view.By, ", "), len(keys))
	}
	for i, key := range keys {
		if len(key) > maxValueLength {
			return nil, invalid("a key of %d bytes: the most is %d", len(key), maxValueLength)
		}
		where = append(slices.Clip(where), bucket.Condition{Column: d.view.By[i], Values: []string{key}, Exact: true})
	}
	return where, nil
}

// sum returns the hits of a table of one row, and how much more they may be. Unless only some rows
// were asked for, what was folded counts too, as in the total of GetTop, so the sum is exact.
func (d *dimension) sum(t *bucket.Table, some bool) (hits, hidden int64) {
	if t == nil {
		return 0, 0
	}
	if !some {
		m := t.Schema.Measure(d.view.Hits)
		if m < 0 {
			return 0, 0
		}
		return t.Total(m), 0
	}
	m := t.Schema.Measure(d.view.Hits)
	if m < 0 || len(t.Schema.Measures) != len(d.schema.Measures) {
		return 0, 0
	}
	hidden = t.Floor // of the first measure; of another, whatever was folded may be missing
	if m != 0 && t.Floor > 0 {
		hidden = t.Other.Values[m]
	}
	rows := t.Top(1, m)
	switch {
	case len(rows) == 0:
		return 0, hidden
	case m == 0:
		hidden = rows[0].Err
	}
	if l := t.Schema.LatencyIndex(m); l >= 0 {
		return 0, hidden // counts in no number
	}
	return rows[0].Values[m], hidden
}

// ranges writes the first spans.
func ranges(spans []bucket.Span) (out []*httpctlv1.Range) {
	for _, s := range spans[:min(len(spans), maxSpans)] {
		out = append(out, &httpctlv1.Range{SinceUnixNs: s.From, UntilUnixNs: s.To})
	}
	return out
}
