package store

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/httpctl/httpctl/pkg/bucket"
)

// columnMirror is the key column whose values are "0", or the id of the host that counts the same exchanges too: see
// exchange.MirrorKey.
const columnMirror = "mirror"

// Absence is a time for which there are no buckets of some hosts. What other hosts counted of what they asked these
// is then the only count of it: fleet totals take it as if the hosts were not monitored.
type Absence struct {
	bucket.Span
	Hosts []string // as the column mirror names them, sorted
}

// Plan returns p for what was counted of the hosts of the absence. p must not have steps.
func (x *Absence) Plan(p Plan) Plan {
	p.From, p.To = x.From, x.To
	p.Where = append(slices.Clip(p.Where), Condition{Column: columnMirror, Values: x.Hosts})
	return p
}

// Mirrored lists the hosts that a table names in its column mirror, sorted. A nil table names none.
func Mirrored(t *bucket.Table) (hosts []bucket.ID) {
	if t == nil {
		return nil
	}
	column := t.Schema.Key(columnMirror)
	for _, r := range t.Rows {
		if column < 0 || column >= len(r.Keys) || len(r.Keys[column]) < 2 {
			continue
		}
		if id, err := bucket.ParseID(r.Keys[column]); err == nil {
			hosts = append(hosts, id)
		}
	}
	slices.SortFunc(hosts, bucket.ID.Compare)
	return slices.Compact(hosts)
}

// Absences finds the times of [from, to) in which not all of the hosts have buckets. covered says in which they have.
// With a step, none goes over a boundary of the steps that tile from from.
func Absences(hosts []bucket.ID, covered map[bucket.ID][]bucket.Span, from, to, step int64) []Absence {
	type edge struct {
		at   int64
		host int
		away bool
	}
	var edges []edge
	for i, h := range hosts {
		at := from
		for _, s := range bucket.MergeSpans(slices.Clone(covered[h])) {
			if s.To <= at {
				continue
			}
			if s.From >= to {
				break
			}
			if s.From > at {
				edges = append(edges, edge{at, i, true}, edge{s.From, i, false})
			}
			at = s.To
		}
		if at < to {
			edges = append(edges, edge{at, i, true}, edge{to, i, false})
		}
	}
	slices.SortFunc(edges, func(x, y edge) int { return int(min(max(x.at-y.at, -1), 1)) })
	away, written := make([]bool, len(hosts)), make([]string, len(hosts))
	for i, h := range hosts {
		written[i] = h.String()
	}
	var out []Absence
	for i := 0; i < len(edges); {
		at := edges[i].at
		for ; i < len(edges) && edges[i].at == at; i++ {
			away[edges[i].host] = edges[i].away
		}
		if i == len(edges) {
			break
		}
		var names []string
		for k, name := range written {
			if away[k] {
				names = append(names, name)
			}
		}
		if names == nil {
			continue
		}
		for end := edges[i].at; at < end; {
			cut := end
			if step > 0 {
				cut = min(cut, at-(at-from)%step+step)
			}
			out = append(out, Absence{bucket.Span{From: at, To: cut}, names})
			at = cut
		}
	}
	return out
}

// Querier is the part of a Store that answers.
type Querier interface {
	Query(ctx context.Context, plan Plan) (*Answer, error)
}

// FindAbsences is AbsencesOf for the hosts that the first of the tables that is kept names. A table without the
// column mirror names none.
func FindAbsences(ctx context.Context, st Querier, tables []string, from, to, step int64, more map[bucket.ID][]bucket.Span) ([]Absence, error) {
	var hosts []bucket.ID
	for _, table := range tables {
		answer, err := st.Query(ctx, Plan{Table: table, From: from, To: to, By: []string{columnMirror}, Numbers: true})
		if errors.Is(err, ErrColumn) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("find what hosts counted of each other: %w", err)
		}
		if len(answer.Slices) > 0 && answer.Slices[0].Table != nil {
			hosts = Mirrored(answer.Slices[0].Table)
			break
		}
	}
	return AbsencesOf(ctx, st, hosts, from, to, step, more)
}

// AbsencesOf is Absences for the hosts that tables name within a time, as far as the store knows; more is what is covered besides. It
// asks for headers only where hosts are named.
func AbsencesOf(ctx context.Context, st Querier, hosts []bucket.ID, from, to, step int64, more map[bucket.ID][]bucket.Span) ([]Absence, error) {
	hosts = slices.Clone(hosts)
	slices.SortFunc(hosts, bucket.ID.Compare)
	hosts = slices.Compact(hosts)
	if len(hosts) == 0 {
		return nil, nil
	}
	answer, err := st.Query(ctx, Plan{From: from, To: to, Hosts: hosts, PerHost: true})
	if err != nil {
		return nil, fmt.Errorf("find when hosts were away: %w", err)
	}
	return Absences(hosts, Coverage(answer, more), from, to, step), nil
}

// Coverage is what the slices of an answer with PerHost say of each host, and more.
func Coverage(answer *Answer, more map[bucket.ID][]bucket.Span) map[bucket.ID][]bucket.Span {
	covered := map[bucket.ID][]bucket.Span{}
	for i := range answer.Slices {
		s := &answer.Slices[i]
		covered[s.Host] = append(covered[s.Host], s.Covered...)
	}
	for h, spans := range more {
		covered[h] = append(covered[h], spans...)
	}
	return covered
}
