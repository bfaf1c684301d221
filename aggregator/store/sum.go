package store

import (
	"cmp"
	"slices"

	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/sketch"
)

// A Sum is the table of a slice under way: what was found is not yet put together, so that a list of its first rows
// costs no table of all of them, and more can be added. It is not safe for concurrent use.
type Sum struct {
	plan  *Plan
	acc   *Accumulator // nil until something is added: see accumulator
	parts []*sealed
	dict  *Dictionary // of the parts
}

// Ranked are the first rows of a sum.
type Ranked struct {
	Schema bucket.Schema
	// Rows are in order, as bucket.Table.Top has them.
	Rows []*bucket.Row
	// Rest is what all other rows hold, and what was folded; Folded is the latter alone.
	Rest, Folded bucket.Row
	// Floor bounds the first value of any key without a row, as bucket.Table.Floor does.
	Floor int64
}

// NewSum returns an empty sum of what a plan asks for. The plan must not be changed as long as it is used.
func NewSum(p *Plan) *Sum { return &Sum{plan: p} }

func (s *Sum) accumulator() *Accumulator {
	if s.acc == nil {
		s.acc = newAccumulator(s.plan)
	}
	return s.acc
}

// Add adds a table as the plan of the sum asks, but with the given conditions. It keeps no memory of t but the schema. Errors are those of
// Accumulator.Add.
func (s *Sum) Add(t *bucket.Table, where []Condition) error {
	a := s.accumulator()
	a.where = where
	if a.added > 0 {
		if err := a.bind(&a.schema); err != nil {
			return err
		}
	}
	return a.Add(t)
}

// Merge adds what another sum holds, of a plan that differs in its conditions only; o must not be used afterwards.
func (s *Sum) Merge(o *Sum) {
	o.flatten()
	s.flatten()
	s.accumulator().merge(o.accumulator())
}

// Skipped is that of the slice.
func (s *Sum) Skipped() int {
	n := 0
	if parts, same := s.added(); !same || len(parts) > 0 && s.acc != nil && s.acc.added > 0 && (s.acc.schema.Version != parts[0].schema.Version || !sameColumns(&s.acc.schema, &parts[0].schema)) {
		s.flatten()
	}
	for _, p := range s.parts {
		n += p.skipped
	}
	if s.acc != nil {
		n += s.acc.skipped
	}
	return n
}

// added returns the parts with a table, and whether all of these have the same columns.
func (s *Sum) added() (parts []*sealed, same bool) {
	parts, same = make([]*sealed, 0, len(s.parts)+1), true
	for _, p := range s.parts {
		if p.added > 0 {
			parts = append(parts, p)
			same = same && p.like(parts[0])
		}
	}
	return parts, same
}

// like reports whether both are sums of tables with the same columns.
func (s *sealed) like(o *sealed) bool {
	return s.schema.Version == o.schema.Version && sameColumns(&s.schema, &o.schema) && slices.Equal(s.out.Keys, o.out.Keys)
}

// Table returns the sum as Slice.Table has it. The Sum must not be used afterwards.
func (s *Sum) Table(maxRows int) *bucket.Table {
	if parts, same := s.added(); same && len(parts) > 0 && parts[0].latencies == 0 && (s.acc == nil || s.acc.added == 0) {
		keys := s.dict.names()
		if sum := addUp(parts, keys.len()); len(sum.ids) <= maxSumRows {
			return sum.table(keys, maxRows)
		}
	}
	s.flatten()
	if s.acc == nil {
		return nil
	}
	return s.acc.Table(maxRows)
}

func (s *Sum) flatten() {
	for _, p := range s.parts {
		s.accumulator().mergeSealed(p, s.dict)
	}
	s.parts = nil
}

// Top returns the n first rows (n < 1: all) by a Sum or Max measure, the largest first and equal ones by their keys; those in which it
// is 0 are left out. It returns nil if there is no table, or none with that measure. The Sum must not be used afterwards.
func (s *Sum) Top(n int, measure string) *Ranked {
	if r, ok := s.top(n, measure); ok {
		return r
	}
	t := s.Table(0)
	if t == nil || t.Schema.Measure(measure) < 0 {
		return nil
	}
	return rank(t, n, t.Schema.Measure(measure))
}

// rank is Top for a table.
func rank(t *bucket.Table, n, measure int) *Ranked {
	r := &Ranked{Schema: t.Schema, Rows: t.Top(n, measure), Floor: t.Floor}
	first := make(map[*bucket.Row]bool, len(r.Rows))
	for _, row := range r.Rows {
		first[row] = true
	}
	r.begin()
	addRow(t.Schema.Measures, &r.Folded, &t.Other)
	addRow(t.Schema.Measures, &r.Rest, &t.Other)
	for _, row := range t.Rows {
		if !first[row] {
			addRow(t.Schema.Measures, &r.Rest, row)
		}
	}
	return r
}

// Limit moves all but the n first rows to Rest.
func (r *Ranked) Limit(n int) {
	for _, row := range r.Rows[min(n, len(r.Rows)):] {
		addRow(r.Schema.Measures, &r.Rest, row)
	}
	r.Rows = r.Rows[:min(n, len(r.Rows))]
}

// Total returns what all rows hold, and what was folded.
func (r *Ranked) Total() *bucket.Row {
	all := &bucket.Row{}
	addRow(r.Schema.Measures, all, &r.Rest)
	for _, row := range r.Rows {
		addRow(r.Schema.Measures, all, row)
	}
	return all
}

// begin makes the columns of Rest and Folded.
func (r *Ranked) begin() {
	for _, row := range []*bucket.Row{&r.Rest, &r.Folded} {
		row.Values = make([]int64, len(r.Schema.Measures))
		for range latenciesOf(r.Schema.Measures) {
			row.Latency = append(row.Latency, new(sketch.Latency))
		}
	}
}

// top adds up parts by the numbers of their keys. It returns false where only their tables can be added up: of several versions, or of more
// rows than are kept, or by a latency.
func (s *Sum) top(n int, measure string) (*Ranked, bool) {
	parts, same := s.added()
	if !same || s.acc != nil && s.acc.pruned > 0 {
		return nil, false
	}
	if s.acc != nil && s.acc.added > 0 {
		if s.dict == nil {
			s.dict = new(Dictionary)
		}
		more := s.acc.seal(s.dict)
		if len(parts) > 0 && !more.like(parts[0]) {
			return nil, false
		}
		parts = append(parts, more)
	}
	if len(parts) == 0 {
		return nil, true
	}
	first := parts[0]
	column := first.schema.Measure(measure)
	if column < 0 {
		return nil, true
	}
	if first.schema.Measures[column].Kind == bucket.Latency {
		return nil, false
	}
	memory, keys := scratches.Get().(*scratch), s.dict.names()
	memory.fit(keys.len())
	r := ranking{parts, keys, column, memory.values[:keys.len()], memory.place, &memory.bins}
	out, whole := r.rank(n)
	scratches.Put(memory) // not after a panic, which leaves something in it
	return out, whole
}

// addNumbers adds those of a row, as sealed has them.
func addNumbers(to, from []int64, measures []bucket.Measure) {
	for c := range measures {
		switch measures[c].Kind {
		case bucket.Sum:
			to[c] = add(to[c], from[c])
		case bucket.Max:
			to[c] = max(to[c], from[c])
		}
	}
	to[len(measures)] += from[len(measures)]
	for c := len(measures) + 1; c < len(from); c += latencyNumbers {
		addLatency(to[c:c+latencyNumbers], from[c:c+latencyNumbers])
	}
}

// addLatency adds count, sum, least and most.
func addLatency(to, from []int64) {
	if from[0] == 0 {
		return
	}
	if to[0] == 0 || from[2] < to[2] {
		to[2] = from[2]
	}
	to[0], to[1], to[3] = addUnsigned(to[0], from[0]), addUnsigned(to[1], from[1]), max(to[3], from[3])
}

// addUnsigned adds numbers that stand for uint64, and rests at the largest.
func addUnsigned(x, y int64) int64 {
	if s := uint64(x) + uint64(y); s >= uint64(x) {
		return int64(s)
	}
	return -1
}

// compareKeys compares what Accumulator.row wrote key by key.
func compareKeys(x, y string) int {
	for x != "" && y != "" {
		var kx, ky string
		kx, x = cutKey(x)
		ky, y = cutKey(y)
		if c := cmp.Compare(kx, ky); c != 0 {
			return c
		}
	}
	return 0
}

// latenciesOf counts the measures of that kind.
func latenciesOf(measures []bucket.Measure) (n int) {
	for i := range measures {
		if measures[i].Kind == bucket.Latency {
			n++
		}
	}
	return n
}

// addRow adds the values of src to dst as their measures say. It takes no memory of src.
func addRow(m []bucket.Measure, dst, src *bucket.Row) {
	if dst.Values == nil {
		dst.Values = make([]int64, len(m))
	}
	sketches := 0
	for i := range m {
		if m[i].Kind == bucket.Latency {
			if sketches < len(src.Latency) && src.Latency[sketches] != nil {
				if dst.Latency == nil {
					dst.Latency = make([]*sketch.Latency, latenciesOf(m))
				}
				if dst.Latency[sketches] == nil {
					dst.Latency[sketches] = new(sketch.Latency)
				}
				dst.Latency[sketches].Merge(src.Latency[sketches])
			}
			sketches++
			continue
		}
		if i >= len(src.Values) {
			continue
		}
		if m[i].Kind == bucket.Max {
			dst.Values[i] = max(dst.Values[i], src.Values[i])
		} else {
			dst.Values[i] = add(dst.Values[i], src.Values[i])
		}
	}
}
