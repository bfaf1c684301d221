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
	dims, err := s.dimensions(ctx)
	if err != nil {
		return nil, err
	}
	d, err := find(dims, r.GetDimension())
	if err != nil {
		return nil, err
	}
	sel, err := s.selectionOf(ctx, r.GetFilters())
	if err != nil {
		return nil, err
	}
	if column := d.refuses(&sel); column != "" {
		return nil, invalid("top list %s cannot be filtered by %s; it takes: host, %s", d.name, column, strings.Join(d.filters(), ", "))
	}
	where, err := d.whereKeys(rowsWhere(&d.schema, &sel), r.GetKeys())
	if err != nil {
		return nil, err
	}
	some := len(r.GetKeys())+len(sel.where) > 0
	f, err := s.survey(ctx, rng, &sel)
	if err != nil {
		return nil, err
	}
	answer, err := s.Store.Query(ctx, store.Plan{
		Table: d.schema.Name, From: rng.from, To: rng.to, Hosts: sel.hosts, Where: where, By: []string{}, PerHost: true,
	})
	if err != nil {
		return nil, failed("explain "+d.name, err)
	}
	pending := map[bucket.ID]int64{}
	for _, p := range s.provisional(rng, &sel) { // after the store: see Live
		t := p.Table(d.schema.Name)
		if t == nil {
			continue
		}
		sum := store.NewAccumulator(where, []string{})
		if err := sum.Add(t); err != nil {
			return nil, failed("explain "+d.name, err)
		}
		n, _ := d.sum(sum.Table(0), some)
		pending[p.Host] += n
	}
	out := &httpctlv1.ExplainResponse{
		Dimension: d.message(), Range: rng.message(), DamagedIntervals: uint32(len(answer.Damaged)),
		DamagedUnixNs:   answer.Damaged[:min(len(answer.Damaged), maxDamaged)],
		MirroredLeftOut: sel.fleetWide() && !sel.has("mirror"),
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
		return nil, invalid("top list %s has the keys %s; got %d values", d.name, strings.Join(d.view.By, ", "), len(keys))
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
	var one httpctlv1.GetTopResponse
	fill(&one, t, d, 1)
	if len(one.Rows) == 0 {
		return 0, one.Floor
	}
	return one.Rows[0].Cells[0].Number, one.Rows[0].Error
}

// ranges writes the first spans.
func ranges(spans []bucket.Span) (out []*httpctlv1.Range) {
	for _, s := range spans[:min(len(spans), maxSpans)] {
		out = append(out, &httpctlv1.Range{SinceUnixNs: s.From, UntilUnixNs: s.To})
	}
	return out
}
