package store

import (
	"cmp"
	"math"
	"slices"
	"sync"

	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/sketch"
)

// A Sum is the table of a slice under way: what was found is not yet put together, so that a list of its first rows
// costs no table of all of them, and more can be added. It is not safe for concurrent use.
type Sum struct {
	acc   *Accumulator
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

// NewSum returns an empty sum of what a plan asks for.
func NewSum(p *Plan) *Sum { return &Sum{acc: newAccumulator(p)} }

// Add adds a table as the plan of the sum asks, but with the given conditions. It keeps no memory of t but the schema. Errors are those of
// Accumulator.Add.
func (s *Sum) Add(t *bucket.Table, where []Condition) error {
	a := s.acc
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
	s.acc.merge(o.acc)
}

// Skipped is that of the slice.
func (s *Sum) Skipped() int {
	parts, same := s.added()
	n := s.acc.Skipped()
	if len(parts) > 0 && (!same || s.acc.added > 0 && (s.acc.schema.Version != parts[0].schema.Version || !sameColumns(&s.acc.schema, &parts[0].schema))) {
		s.flatten()
		return s.acc.Skipped()
	}
	for _, p := range s.parts {
		n += p.skipped
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
	s.flatten()
	return s.acc.Table(maxRows)
}

func (s *Sum) flatten() {
	for _, p := range s.parts {
		s.acc.mergeSealed(p, s.dict)
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
	if !same || s.acc.pruned > 0 {
		return nil, false
	}
	if s.acc.added > 0 {
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
	memory, keys := scratches.Get().(*scratch), s.dict.all()
	memory.fit(len(keys))
	r := ranking{parts, keys, column, memory.values[:len(keys)], memory.place}
	out, whole := r.rank(n)
	scratches.Put(memory) // not after a panic, which leaves something in it
	return out, whole
}

// ranking finds the first rows of parts of one schema, and what the others hold, without a row for each of these: it goes through
// the parts twice, once for what it ranks by, and then for what the first rows hold, and all others together.
type ranking struct {
	parts  []*sealed
	keys   []string
	column int
	values []int64 // of column, by key
	place  []int32 // among the first, plus 1, by key
}

// scratch is used again, as it is a few hundred KB of some ten thousand names. It is all 0.
type scratch struct {
	values []int64
	place  []int32
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// fit makes room for so many keys.
func (m *scratch) fit(keys int) {
	if len(m.values) < keys {
		m.values, m.place = make([]int64, keys+keys/8), make([]int32, keys+keys/8)
	}
}

// first returns the keys of the n first rows. It clears values.
func (r *ranking) first(n int) []uint32 {
	largest := r.parts[0].schema.Measures[r.column].Kind == bucket.Max
	for _, p := range r.parts {
		for i, id := range p.ids {
			if v := p.numbers[i*p.stride+r.column]; largest {
				r.values[id] = max(r.values[id], v)
			} else {
				r.values[id] = add(r.values[id], v)
			}
		}
	}
	order := func(x, y uint32) int {
		return cmp.Or(cmp.Compare(r.values[y], r.values[x]), compareKeys(r.keys[x], r.keys[y]))
	}
	var ids []uint32
	least := int64(1) // of what can be among the first
	for id, v := range r.values {
		if v < least {
			continue
		}
		if ids = append(ids, uint32(id)); n > 0 && len(ids) >= 2*n {
			slices.SortFunc(ids, order)
			ids = ids[:n]
			least = r.values[ids[n-1]]
		}
	}
	slices.SortFunc(ids, order)
	if n > 0 && len(ids) > n {
		ids = ids[:n]
	}
	clear(r.values)
	return ids
}

// rank is Sum.top.
func (r *ranking) rank(n int) (*Ranked, bool) {
	like := r.parts[0]
	measures := like.schema.Measures
	out := &Ranked{Schema: like.out}
	out.begin()
	ids := r.first(n)
	numbers := make([]int64, (1+len(ids))*like.stride) // of the first, behind those of all others
	sketches := make([]*sketch.Latency, len(ids)*like.latencies)
	for k, id := range ids {
		r.place[id] = int32(k + 1)
	}
	for _, p := range r.parts {
		for i, id := range p.ids {
			from := p.numbers[i*p.stride : (i+1)*p.stride]
			at := int(r.place[id])
			addNumbers(numbers[at*p.stride:(at+1)*p.stride], from, measures)
			if at == 0 {
				continue
			}
			for l := range p.latencies {
				if k := p.sketch(i, l); k != nil {
					to := &sketches[(at-1)*p.latencies+l]
					if *to == nil {
						*to = new(sketch.Latency)
					}
					(*to).Merge(k)
				}
			}
		}
		out.Floor = add(out.Floor, p.floor)
		addRow(measures, &out.Folded, &p.other)
	}
	for _, id := range ids {
		r.place[id] = 0
	}
	for c := len(measures) + 1; c < like.stride; c += latencyNumbers {
		all := uint64(0)
		for k := range 1 + len(ids) {
			n := uint64(numbers[k*like.stride+c])
			if all += n; all < n || all == math.MaxUint64 {
				return nil, false // so many observations that bins do not add up any more
			}
		}
	}
	for k, id := range ids {
		n := numbers[(k+1)*like.stride:]
		row := &bucket.Row{Keys: splitKey(make([]string, len(like.out.Keys)), r.keys[id]), Values: slices.Clone(n[:len(measures)]), Err: max(0, add(n[len(measures)], out.Floor))}
		if like.latencies > 0 {
			row.Latency = sketches[k*like.latencies : (k+1)*like.latencies : (k+1)*like.latencies]
		}
		out.Rows = append(out.Rows, row)
	}
	copy(out.Rest.Values, numbers[:len(measures)])
	if like.latencies > 0 {
		r.restOfLatency(out, numbers[len(measures)+1:like.stride])
	}
	addRow(measures, &out.Rest, &out.Folded)
	return out, true
}

// restOfLatency fills in the sketches of all but the first rows, whose bins are those of all but those of the first; rest are their numbers.
func (r *ranking) restOfLatency(out *Ranked, rest []int64) {
	for l := range r.parts[0].latencies {
		var bins histogram
		for _, p := range r.parts {
			for i, n := range p.total[l] {
				if n > 0 {
					bins.count(int32(i)+sketch.MinIndex, n)
				}
			}
		}
		for _, row := range out.Rows {
			if row.Latency[l] != nil {
				for _, b := range row.Latency[l].Bins {
					bins[b.Index-sketch.MinIndex] -= b.Count
				}
			}
		}
		n := rest[l*latencyNumbers:]
		k := &sketch.Latency{Count: uint64(n[0]), Sum: uint64(n[1]), Min: n[2], Max: n[3]}
		for i, n := range bins {
			if n > 0 {
				k.Bins = append(k.Bins, sketch.Bin{Index: int32(i) + sketch.MinIndex, Count: n})
			}
		}
		out.Rest.Latency[l] = k
	}
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
