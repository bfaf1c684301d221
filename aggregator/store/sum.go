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
	keys := s.dict.all()
	rows := 0
	for _, p := range parts {
		rows += len(p.ids)
	}
	u := newUnion(first, len(keys), min(rows, len(keys)))
	defer u.done()
	for _, p := range parts {
		u.add(p)
	}
	if len(u.ids) > s.acc.limit || u.saturated() {
		return nil, false
	}
	return u.rank(parts, keys, n, column), true
}

// union adds up sealed sums of one schema.
type union struct {
	*sealed          // ids, numbers, floor and other; without bins
	position []int32 // of a key's row, plus 1
	sums     []int   // columns that add up, but for err
	maxima   []int
	err      int // its column
	memory   *unionMemory
}

// unionMemory is used again: a list of some thousand rows is a few hundred KB, and to get those anew takes longer than to add them up.
type unionMemory struct {
	positions []int32 // all 0
	ids       []uint32
	numbers   []int64
}

var unions = sync.Pool{New: func() any { return new(unionMemory) }}

// keptNumbers bounds the memory that is kept of a union, 8 MiB.
const keptNumbers = 1 << 20

// newUnion returns an empty one, for at most so many rows.
func newUnion(like *sealed, keys, rows int) *union {
	u := &union{sealed: &sealed{schema: like.schema, out: like.out, stride: like.stride, latencies: like.latencies}, err: len(like.schema.Measures)}
	for i, m := range like.schema.Measures {
		switch m.Kind {
		case bucket.Sum:
			u.sums = append(u.sums, i)
		case bucket.Max:
			u.maxima = append(u.maxima, i)
		}
	}
	u.other.Values = make([]int64, len(like.schema.Measures))
	m := unions.Get().(*unionMemory)
	if cap(m.positions) < keys {
		m.positions = make([]int32, keys+keys/8)
	}
	if cap(m.ids) < rows {
		m.ids = make([]uint32, 0, rows+rows/8)
	}
	if cap(m.numbers) < rows*u.stride {
		m.numbers = make([]int64, 0, (rows+rows/8)*u.stride)
	}
	u.memory, u.position, u.ids, u.numbers = m, m.positions[:keys], m.ids[:0], m.numbers[:0]
	return u
}

// done gives back memory.
func (u *union) done() {
	for _, id := range u.ids {
		u.position[id] = 0
	}
	if cap(u.numbers) <= keptNumbers {
		u.memory.ids, u.memory.numbers = u.ids[:0], u.numbers[:0]
		unions.Put(u.memory)
	}
}

func (u *union) row(k int) []int64 { return u.numbers[k*u.stride : (k+1)*u.stride] }

func (u *union) add(p *sealed) {
	for i, id := range p.ids {
		from := p.numbers[i*u.stride : (i+1)*u.stride]
		k := u.position[id]
		if k == 0 {
			u.ids = append(u.ids, id)
			u.numbers = append(u.numbers, from...)
			u.position[id] = int32(len(u.ids))
			continue
		}
		to := u.row(int(k) - 1)
		for _, c := range u.sums {
			to[c] = add(to[c], from[c])
		}
		for _, c := range u.maxima {
			to[c] = max(to[c], from[c])
		}
		to[u.err] += from[u.err]
		for c := u.err + 1; c < u.stride; c += latencyNumbers {
			addLatency(to[c:c+latencyNumbers], from[c:c+latencyNumbers])
		}
	}
	u.floor = add(u.floor, p.floor)
	addRow(u.schema.Measures, &u.other, &p.other)
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

// saturated reports whether there are so many observations that bins do not add up any more.
func (u *union) saturated() bool {
	for c := u.err + 1; c < u.stride; c += latencyNumbers {
		all := uint64(0)
		for k := range u.ids {
			n := uint64(u.row(k)[c])
			if all+n < all {
				return true
			}
			all += n
		}
		if all == math.MaxUint64 {
			return true
		}
	}
	return false
}

// first returns the n first rows by a column.
func (u *union) first(keys []string, n, column int) []int {
	order := func(x, y int) int {
		return cmp.Or(cmp.Compare(u.row(y)[column], u.row(x)[column]), compareKeys(keys[u.ids[x]], keys[u.ids[y]]))
	}
	var rows []int
	for k := range u.ids {
		switch value := u.row(k)[column]; {
		case value <= 0:
		case n < 1 || n > 100 || len(rows) < n:
			rows = append(rows, k)
			if len(rows) == n {
				slices.SortFunc(rows, order)
			}
		case value >= u.row(rows[n-1])[column]:
			if at, _ := slices.BinarySearchFunc(rows, k, order); at < n {
				copy(rows[at+1:], rows[at:n-1])
				rows[at] = k
			}
		}
	}
	if len(rows) != n || n > 100 {
		slices.SortFunc(rows, order)
	}
	if n >= 1 && len(rows) > n {
		rows = rows[:n]
	}
	return rows
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

// rank returns the n first rows, and what the others hold. The bins of the latter are those of all but
// those of the first, so only these are read.
func (u *union) rank(parts []*sealed, keys []string, n, column int) *Ranked {
	r := &Ranked{Schema: u.out, Floor: u.floor}
	r.begin()
	addRow(u.schema.Measures, &r.Folded, &u.other)
	place := make([]int32, len(u.ids)) // among the first, plus 1
	for i, k := range u.first(keys, n, column) {
		place[k] = int32(i + 1)
		row := &bucket.Row{Keys: splitKey(make([]string, len(u.out.Keys)), keys[u.ids[k]]), Values: slices.Clone(u.row(k)[:u.err]), Err: max(0, add(u.row(k)[u.err], u.floor))}
		if u.latencies > 0 {
			row.Latency = make([]*sketch.Latency, u.latencies)
		}
		r.Rows = append(r.Rows, row)
	}
	rest := make([]int64, u.stride)
	for k := range u.ids {
		if place[k] > 0 {
			continue
		}
		from := u.row(k)
		for _, c := range u.sums {
			rest[c] = add(rest[c], from[c])
		}
		for _, c := range u.maxima {
			rest[c] = max(rest[c], from[c])
		}
		for c := u.err + 1; c < u.stride; c += latencyNumbers {
			addLatency(rest[c:c+latencyNumbers], from[c:c+latencyNumbers])
		}
	}
	copy(r.Rest.Values, rest[:u.err])
	if u.latencies > 0 {
		u.latency(parts, r, place, rest[u.err+1:])
	}
	addRow(u.schema.Measures, &r.Rest, &u.other)
	return r
}

// latency fills in the sketches.
func (u *union) latency(parts []*sealed, r *Ranked, place []int32, rest []int64) {
	bins := make([]histogram, u.latencies)
	for _, p := range parts {
		for l := range bins {
			for i, n := range p.total[l] {
				if n > 0 {
					bins[l].count(int32(i)+sketch.MinIndex, n)
				}
			}
		}
		for i, id := range p.ids {
			at := place[u.position[id]-1]
			if at == 0 {
				continue
			}
			row := r.Rows[at-1]
			for l := range bins {
				if k := p.sketch(i, l); k != nil {
					if row.Latency[l] == nil {
						row.Latency[l] = new(sketch.Latency)
					}
					row.Latency[l].Merge(k)
				}
			}
		}
	}
	for l := range bins {
		for _, row := range r.Rows {
			if row.Latency[l] != nil {
				for _, b := range row.Latency[l].Bins {
					bins[l][b.Index-sketch.MinIndex] -= b.Count
				}
			}
		}
		n := rest[l*latencyNumbers:]
		k := &sketch.Latency{Count: uint64(n[0]), Sum: uint64(n[1]), Min: n[2], Max: n[3]}
		for i, n := range bins[l] {
			if n > 0 {
				k.Bins = append(k.Bins, sketch.Bin{Index: int32(i) + sketch.MinIndex, Count: n})
			}
		}
		r.Rest.Latency[l] = k
	}
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
