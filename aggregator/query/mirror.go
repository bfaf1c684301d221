package query

import (
	"context"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/exchange"
)

// others says what fleet totals take of what hosts counted of one another: that of which the other host has no
// bucket. A nil one takes none of it.
type others struct {
	absences []store.Absence
	open     map[string]map[int64]bool // starts of provisional buckets, by host
	stored   map[string]int64          // where the newest stored bucket ends, by host
}

// newOthers knows provisional buckets and hosts.
func newOthers(open []Provisional, hosts []store.Host) *others {
	o := &others{open: map[string]map[int64]bool{}, stored: make(map[string]int64, len(hosts))}
	for i := range open {
		host := open[i].Host.String()
		if o.open[host] == nil {
			o.open[host] = map[int64]bool{}
		}
		o.open[host][open[i].Start] = true
	}
	for i := range hosts {
		o.stored[hosts[i].ID.String()] = hosts[i].LastEnd
	}
	return o
}

// spans are those of the provisional buckets.
func spans(open []Provisional) map[bucket.ID][]bucket.Span {
	out := map[bucket.ID][]bucket.Span{}
	for i := range open {
		out[open[i].Host] = append(out[open[i].Host], bucket.Span{From: open[i].Start, To: open[i].End()})
	}
	return out
}

// counts reports whether a provisional bucket's rows with that value of the column mirror count in fleet totals.
func (o *others) counts(start int64, mirror string) bool {
	if mirror == own || o == nil || len(mirror) < 2 {
		return mirror == own
	}
	return !o.open[mirror][start] && o.stored[mirror] <= start
}

// own is the value of the column mirror of what no other host counts.
const own = "0"

// values are those of the column mirror that count in fleet totals, of a table of a provisional bucket.
func (o *others) values(start int64, t *bucket.Table) []string {
	out := []string{own}
	for _, h := range store.Mirrored(t) {
		if name := h.String(); o.counts(start, name) {
			out = append(out, name)
		}
	}
	return out
}

// add adds to sum what plan finds of what counts in fleet totals besides the rows that no other host counts.
func (o *others) add(ctx context.Context, st store.Querier, plan store.Plan, sum *store.Sum) error {
	if o == nil {
		return nil
	}
	plan.Sum = true
	for i := range o.absences {
		answer, err := st.Query(ctx, o.absences[i].Plan(plan))
		if err != nil {
			return err
		}
		for k := range answer.Slices {
			sum.Merge(answer.Slices[k].Sum)
		}
	}
	return nil
}

// requests counts those of a provisional bucket: of a host, or as fleet totals take them.
func (o *others) requests(p *Provisional, fleetWide bool) uint64 {
	all, _ := requestsOf(p.Table(totals), &p.Counters, nil)
	if !fleetWide {
		return all
	}
	_, counted := requestsOf(p.Table(totals), &p.Counters, func(mirror string) bool { return o.counts(p.Start, mirror) })
	return counted
}

// requestsOf counts the requests of a totals table, and those of them that fleet totals take; nil takes those that
// no other host counts.
func requestsOf(t *bucket.Table, c *exchange.Counters, counts func(mirror string) bool) (all, counted uint64) {
	if t == nil {
		return c[exchange.Requests], c[exchange.Requests]
	}
	m := t.Schema.Measure("requests")
	mirror := t.Schema.Key("mirror")
	if m < 0 {
		return c[exchange.Requests], c[exchange.Requests]
	}
	if counts == nil {
		counts = func(mirror string) bool { return mirror == own }
	}
	for _, r := range t.Rows {
		n := uint64(max(r.Values[m], 0))
		all += n
		if mirror < 0 || counts(r.Keys[mirror]) {
			counted += n
		}
	}
	n := uint64(max(t.Other.Values[m], 0))
	return all + n, counted + n
}
