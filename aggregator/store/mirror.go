package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/httpctl/httpctl/pkg/bucket"
)

// columnMirror is the key column whose values are "0", or the id of the host that counts the same exchanges too: see
// exchange.MirrorKey.
const columnMirror = "mirror"

// fewNames is how many hosts without any bucket are told with those that were away for a time. More of them are told once: a host is never there
// where it does not exist, but for its name in a bucket, and who sends that can have another host come and go all the time.
const fewNames = 64

// Absence is a time for which there are no buckets of some hosts. What other hosts counted of what they asked these
// is then the only count of it: fleet totals take it as if the hosts were not monitored.
type Absence struct {
	bucket.Span
	Hosts []string // as the column mirror names them, sorted
	// Step is that of the plan if the absence begins with a step and goes on after it, else 0: then it lies within one.
	Step time.Duration
}

// Plan returns p for what was counted of the hosts of the absence, with its steps.
func (x *Absence) Plan(p Plan) Plan {
	p.From, p.To, p.Step = x.From, x.To, x.Step
	p.Where = append(slices.Clip(p.Where), Condition{Column: columnMirror, Values: x.Hosts})
	return p
}

// Pieces divides an absence into those of at most n of its steps.
func (x *Absence) Pieces(n int) (out []Absence) {
	for at := x.From; at < x.To; {
		piece := *x
		piece.From = at
		if x.Step > 0 {
			piece.To = min(x.To, at+int64(n)*int64(x.Step))
		}
		out, at = append(out, piece), piece.To
	}
	return out
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
// What is in several at a time is of different hosts, so that they add up. Steps, if there are, tile from from.
func Absences(hosts []bucket.ID, covered map[bucket.ID][]bucket.Span, from, to int64, step time.Duration) []Absence {
	type edge struct {
		at   int64
		host int
		away bool
	}
	if from >= to {
		return nil
	}
	var edges []edge
	var written, never []string
	for _, h := range hosts {
		at, first := from, len(edges)
		for _, s := range bucket.MergeSpans(slices.Clone(covered[h])) {
			if s.To <= at {
				continue
			}
			if s.From >= to {
				break
			}
			if s.From > at {
				edges = append(edges, edge{at, len(written), true}, edge{s.From, len(written), false})
			}
			at = s.To
		}
		switch {
		case at == from:
			never = append(never, h.String())
			continue
		case at < to:
			edges = append(edges, edge{at, len(written), true}, edge{to, len(written), false})
		}
		if len(edges) > first {
			written = append(written, h.String())
		}
	}
	var out []Absence
	origin := from
	add := func(from, to int64, names []string) {
		if step > 0 {
			if in := (from - origin) % int64(step); in > 0 && from-in+int64(step) < to {
				next := from - in + int64(step)
				out = append(out, Absence{Span: bucket.Span{From: from, To: next}, Hosts: names})
				from = next
			}
		}
		x := Absence{Span: bucket.Span{From: from, To: to}, Hosts: names}
		if to-from > int64(step) {
			x.Step = step
		}
		out = append(out, x)
	}
	if len(never) > fewNames {
		slices.Sort(never)
		add(from, to, never)
	} else {
		for _, name := range never {
			edges = append(edges, edge{from, len(written), true}, edge{to, len(written), false})
			written = append(written, name)
		}
	}
	slices.SortFunc(edges, func(x, y edge) int { return cmp.Compare(x.at, y.at) })
	away := make([]bool, len(written))
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
		if names != nil {
			slices.Sort(names)
			add(at, edges[i].at, names)
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
func FindAbsences(ctx context.Context, st Querier, tables []string, from, to int64, step time.Duration, more map[bucket.ID][]bucket.Span) ([]Absence, error) {
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
func AbsencesOf(ctx context.Context, st Querier, hosts []bucket.ID, from, to int64, step time.Duration, more map[bucket.ID][]bucket.Span) ([]Absence, error) {
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
