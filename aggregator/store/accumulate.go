package store

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/exchange"
	"github.com/httpctl/httpctl/pkg/sketch"
)

// maxSumRows bounds the rows that an Accumulator holds. 131,072 rows of the
// widest built-in table take about 100 MB; 10 hosts with 1000 distinct keys
// each stay below it even when no key repeats among hosts.
const maxSumRows = 1 << 17

// An Accumulator adds up tables of one name as a plan asks: rows that match
// its conditions, projected to its columns.
//
// The bounds of bucket.Table hold for the result, in any order of adding: a
// row's first value is a lower bound and Err says how much more it may be,
// Floor bounds an absent key, and without conditions rows + Other = total.
// When a projection drops columns, a row may hide what was folded of several
// rows, and errors say so. With conditions nobody knows which folded rows match,
// and what was folded is left out of Other; but for a condition on "mirror"
// only, which all rows of a table satisfy, it is taken that those folded did
// too, as most hosts never see mirrored traffic. It is not safe for concurrent use.
type Accumulator struct {
	where   []Condition
	by      []string
	numbers bool           // without latencies
	want    *bucket.Schema // nil: the newest version

	schema     bucket.Schema // of the tables; the newest version seen
	out        bucket.Schema // of the result
	columns    []int         // of by
	filters    []filter
	whole      bool // by is all key columns in order
	spread     int  // rows of a table that can make one of the result; 0 is no bound
	anyMirror  int  // the column mirror, if it is dropped and no condition is on it; -1 if not
	mirrorOnly bool // every condition is on the column mirror
	latencies  int  // measures of that kind

	limit   int // of rows; maxSumRows but in tests
	rows    sumRows
	other   bucket.Row
	floor   int64 // sum of the floors of the tables added
	pruned  int64 // bound on what a key dropped by prune had, relative to floor
	folded  uint64
	added   int    // buckets whose table is in it
	skipped int    // buckets whose table is not
	next    int    // the row that the next one of a table may be: tables are sorted by their keys, and most have the same again
	key     []byte // scratch
	spare   *spare // memory to be used again; nil keeps none
}

// spare is the memory of an Accumulator that was reset, and of the table that it has returned.
type spare struct {
	old  sumRows
	rows []bucket.Row
	list []*bucket.Row
	keys []string
}

// filter is a condition bound to a column.
type filter struct {
	column  int
	matches func(value string) bool
}

// NewAccumulator returns an empty Accumulator; see Plan for where and by.
func NewAccumulator(where []Condition, by []string) *Accumulator {
	return &Accumulator{where: where, by: by, limit: maxSumRows}
}

// newAccumulator returns an empty one for a plan.
func newAccumulator(p *Plan) *Accumulator {
	a := NewAccumulator(p.Where, p.By)
	a.numbers, a.want = p.Numbers, p.Schema
	return a
}

// reset makes a ready for another sum of whole tables, in the memory of the one before: what table has returned must not be used any more.
func (a *Accumulator) reset() {
	s := a.spare
	if s == nil {
		s = new(spare)
	}
	s.old = a.rows
	clear(s.rows)
	clear(s.list)
	clear(s.keys)
	*a = Accumulator{limit: maxSumRows, key: a.key, spare: s}
}

// Add adds a table, of which it keeps no memory but the schema. A table whose
// version or columns differ is counted as skipped; of two versions the newer
// wins, if the plan names none. The error wraps ErrColumn when the table lacks a column of the plan.
func (a *Accumulator) Add(t *bucket.Table) error { return a.AddSum(t, 1, 0) }

// AddSum is Add for a table that is the sum of those of n buckets, of which
// skipped more were left out.
func (a *Accumulator) AddSum(t *bucket.Table, n, skipped int) error {
	a.skipped += skipped
	switch {
	case len(t.Schema.Measures) == 0, a.want != nil && !sameTable(a.want, &t.Schema):
		a.skipped += n
		return nil
	case a.added == 0 || a.want == nil && t.Schema.Version > a.schema.Version:
		if err := a.begin(&t.Schema); err != nil {
			return err
		}
	case a.want == nil && !sameTable(&a.schema, &t.Schema):
		a.skipped += n
		return nil
	}
	a.added += n
	folded := firstValue(&t.Other)
	// floor bounds what a row of the result may miss of this table. With only
	// columns of few values dropped it is the floors of as many rows; present
	// ones know better.
	floor, known := folded, false
	if a.whole {
		floor, known = min(folded, t.Floor), true
	} else if f := t.Floor * int64(a.spread); a.spread > 0 && !a.namesHosts(t) && f/int64(a.spread) == t.Floor && f <= folded {
		floor, known = f, true
	}
	a.floor = add(a.floor, floor)
	excluded := false
	a.next = 0
	for _, r := range t.Rows {
		if !a.match(r.Keys) {
			excluded = true
			continue
		}
		i := a.row(r.Keys)
		a.rows.add(i, r.Values, r.Latency)
		if known {
			*a.rows.err(i) += min(r.Err, folded) - min(t.Floor, folded)
		} // Otherwise all that a row may miss is in Other, so floor says it.
	}
	if len(a.filters) == 0 || a.mirrorOnly && !excluded {
		a.addValues(&a.other, &t.Other)
	}
	a.folded += t.Folded
	if a.rows.len() > a.limit {
		a.prune()
	}
	return nil
}

// namesHosts reports whether the rows that make one of the result may differ in a column mirror that names
// hosts, so that nobody knows how many they are.
func (a *Accumulator) namesHosts(t *bucket.Table) bool {
	return a.anyMirror >= 0 && slices.ContainsFunc(t.Rows, func(r *bucket.Row) bool {
		return a.anyMirror < len(r.Keys) && len(r.Keys[a.anyMirror]) > 1
	})
}

// merge adds what b has added up, of the same plan, or one with other conditions. b is only read.
func (a *Accumulator) merge(b *Accumulator) {
	a.skipped += b.skipped
	if b.added == 0 || !a.admit(&b.schema, b.added) {
		return
	}
	a.added += b.added
	// A row that b lacks may have been pruned there.
	a.floor = add(a.floor, add(b.floor, b.pruned))
	a.folded += b.folded
	a.addValues(&a.other, &b.other)
	for k, key := range b.rows.keys {
		i := a.rows.at(key, a.pruned)
		a.rows.add(i, b.rows.values(k), b.rows.latencies(k))
		*a.rows.err(i) += *b.rows.err(k)
	}
	if a.rows.len() > a.limit {
		a.prune()
	}
}

// admit makes ready for a sum of n buckets with tables of a schema, of the same plan. It returns false, and counts them as skipped, where
// that cannot be added up with what is there.
func (a *Accumulator) admit(s *bucket.Schema, n int) bool {
	switch {
	case a.added == 0 || s.Version > a.schema.Version:
		_ = a.begin(s) // cannot fail: who added it up has bound the same columns
	case s.Version < a.schema.Version || !sameColumns(&a.schema, s):
		a.skipped += n
		return false
	}
	return true
}

// Skipped counts the buckets whose table was left out for its version or columns.
func (a *Accumulator) Skipped() int { return a.skipped }

// Table returns the sum, cut to maxRows rows (0: all), sorted by the first
// measure, the largest first, then by keys. It returns nil when nothing was
// added. The Accumulator must not be used afterwards.
func (a *Accumulator) Table(maxRows int) *bucket.Table {
	if a.added == 0 {
		return nil
	}
	t, _ := a.table()
	first(t, maxRows)
	return t
}

// first sorts the rows of a sum, and folds all but the first of them (0: keeps all).
func first(t *bucket.Table, maxRows int) {
	sortRows(t.Rows)
	if maxRows <= 0 {
		return
	}
	if t.Max = maxRows; len(t.Rows) > maxRows {
		for _, r := range t.Rows[maxRows:] {
			addRow(t.Schema.Measures, &t.Other, r)
			t.Floor = max(t.Floor, r.Upper())
			t.Folded++
		}
		t.Rows = slices.Clip(t.Rows[:maxRows])
	}
}

// table returns the sum, and the rows of its Rows as they are in a.rows, whose memory they have.
func (a *Accumulator) table() (*bucket.Table, []bucket.Row) {
	t := &bucket.Table{Schema: a.out, Max: a.limit, Other: a.other, Floor: add(a.pruned, a.floor), Folded: a.folded}
	n := a.rows.len()
	s := a.spare
	if s == nil {
		s = new(spare)
	}
	s.rows, s.list, s.keys = sized(s.rows, n), sized(s.list, n), sized(s.keys, n*len(a.columns))
	rows, keys := s.rows, s.keys
	t.Rows = s.list
	for i := range rows {
		r := &rows[i]
		r.Keys, keys = splitKey(keys[:len(a.columns):len(a.columns)], a.rows.keys[i]), keys[len(a.columns):]
		r.Values, r.Latency, r.Err = a.rows.values(i), a.rows.latencies(i), max(0, add(*a.rows.err(i), a.floor))
		t.Rows[i] = r
	}
	return t, rows
}

// sized returns n elements, in the memory of s where that is enough. They are to be set.
func sized[T any](s []T, n int) []T {
	if s == nil || cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}

// sortRows sorts by the first measure, the largest first, then by keys.
func sortRows(rows []*bucket.Row) {
	slices.SortFunc(rows, func(x, y *bucket.Row) int {
		if c := cmp.Compare(y.Values[0], x.Values[0]); c != 0 {
			return c
		}
		return slices.Compare(x.Keys, y.Keys)
	})
}

// begin starts a sum of tables of a schema; what was added of an older one is skipped.
func (a *Accumulator) begin(s *bucket.Schema) error {
	if err := a.bind(s); err != nil {
		return err
	}
	a.skipped += a.added
	a.added, a.floor, a.pruned, a.folded = 0, 0, 0, 0
	if a.spare != nil && a.spare.old.index != nil {
		a.rows = a.spare.old.again(s.Measures, a.latencies)
		a.spare.old = sumRows{}
	} else {
		a.rows = newRows(s.Measures, a.latencies)
	}
	a.other = bucket.Row{}
	a.addValues(&a.other, &a.other) // makes its columns
	return nil
}

// bind finds the plan's columns in s.
func (a *Accumulator) bind(s *bucket.Schema) error {
	by := a.by
	if by == nil {
		by = s.Keys
	}
	column := func(name string) (int, error) {
		if i := slices.Index(s.Keys, name); i >= 0 {
			return i, nil
		}
		return 0, fmt.Errorf("column %q of table %s, which has %s: %w", name, s.Name, strings.Join(s.Keys, ", "), ErrColumn)
	}
	var columns []int
	var filters []filter
	for _, name := range by {
		i, err := column(name)
		if err != nil {
			return err
		}
		columns = append(columns, i)
	}
	for _, c := range a.where {
		i, err := column(c.Column)
		if err != nil {
			return err
		}
		filters = append(filters, filter{i, c.Matcher()})
	}
	a.schema = *s
	a.out = *s
	a.out.Keys = by
	a.columns, a.filters = columns, filters
	a.whole = slices.Equal(by, s.Keys)
	a.spread, a.mirrorOnly = 1, true
	for _, c := range a.where {
		a.mirrorOnly = a.mirrorOnly && c.Column == columnMirror
	}
	a.anyMirror = -1
	for i, k := range s.Keys {
		if slices.Contains(by, k) {
			continue
		}
		a.spread *= matching(k, a.where)
		if k == columnMirror && !slices.ContainsFunc(a.where, func(c Condition) bool { return c.Column == k }) {
			a.anyMirror = i
		}
	}
	a.latencies = 0
	if !a.numbers {
		a.latencies = latenciesOf(s.Measures)
	}
	a.out.Views = nil
	for _, v := range s.Views {
		if !slices.ContainsFunc(v.By, func(k string) bool { return !slices.Contains(by, k) }) {
			a.out.Views = append(a.out.Views, v)
		}
	}
	return nil
}

// fewValues are the values of the columns that have few by their definition.
var fewValues = map[string][]string{
	"mirror": {"0", "1"}, // or hosts, see namesHosts
	"role":   {exchange.Server.String(), exchange.Client.String(), exchange.Transit.String()},
}

// matching counts the values of a column that satisfy the conditions on it; 0
// is no bound.
func matching(column string, where []Condition) int {
	n := 0
values:
	for _, v := range fewValues[column] {
		for _, c := range where {
			if c.Column == column && !c.Matches(v) {
				continue values
			}
		}
		n++
	}
	for _, c := range where {
		if c.Column != column || column != columnMirror {
			continue
		}
		for _, v := range c.Values { // which may be hosts
			switch {
			case v == "1" || strings.HasSuffix(v, "*"):
				return 0
			case !slices.Contains(fewValues[column], v):
				n++
			}
		}
	}
	if n == 0 && fewValues[column] != nil {
		return 1 // nothing matches, so nothing is missed
	}
	return n
}

func (a *Accumulator) match(keys []string) bool {
	for i := range a.filters {
		if f := &a.filters[i]; f.column >= len(keys) || !f.matches(keys[f.column]) {
			return false
		}
	}
	return true
}

// row returns the number of the row of the projected keys.
func (a *Accumulator) row(keys []string) int {
	a.key = a.key[:0]
	for _, c := range a.columns {
		k := ""
		if c < len(keys) {
			k = keys[c]
		}
		a.key = binary.AppendUvarint(a.key, uint64(len(k)))
		a.key = append(a.key, k...)
	}
	if a.next < a.rows.len() && a.rows.keys[a.next] == string(a.key) {
		a.next++
		return a.next - 1
	}
	if i, ok := a.rows.index[string(a.key)]; ok {
		a.next = int(i) + 1
		return int(i)
	}
	return a.rows.at(string(a.key), a.pruned)
}

// bytes is about what a takes in memory.
func (a *Accumulator) bytes() int64 {
	n := 512 + a.rows.bytes()
	for _, l := range a.other.Latency {
		n += sketchBytes(l)
	}
	return n
}

// addValues adds the values of src to dst as their measures say.
func (a *Accumulator) addValues(dst, src *bucket.Row) {
	if dst.Values == nil && a.latencies > 0 {
		dst.Latency = make([]*sketch.Latency, a.latencies)
	}
	if a.numbers && len(src.Latency) > 0 {
		src = &bucket.Row{Values: src.Values}
	}
	addRow(a.schema.Measures, dst, src)
}

// prune drops the smaller half of the rows into other.
func (a *Accumulator) prune() { a.pruneTo(a.limit / 2) }

// pruneTo drops all but the largest keep rows into other, of equal ones those that came last.
func (a *Accumulator) pruneTo(keep int) {
	n := a.rows.len()
	if keep >= n {
		return
	}
	values := make([]int64, n)
	for i := range values {
		values[i] = a.rows.values(i)[0]
	}
	slices.Sort(values)
	least, equal := int64(math.MaxInt64), 0 // that is kept, and how many of it are
	if keep > 0 {
		least = values[n-keep]
		for _, v := range values[n-keep:] {
			if v == least {
				equal++
			}
		}
	}
	order := make([]int, 0, keep)
	for i := range n {
		v := a.rows.values(i)[0]
		if v == least && equal > 0 {
			equal--
			order = append(order, i)
			continue
		}
		if v > least {
			order = append(order, i)
			continue
		}
		a.pruned = max(a.pruned, add(v, *a.rows.err(i)))
		a.addValues(&a.other, &bucket.Row{Values: a.rows.values(i), Latency: a.rows.latencies(i)})
		a.folded++
	}
	a.rows.keep(order)
}

// add adds y, which is not negative, to x and rests at the largest number.
func add(x, y int64) int64 {
	if y > 0 && x > math.MaxInt64-y {
		return math.MaxInt64
	}
	return x + y
}

func firstValue(r *bucket.Row) int64 {
	if len(r.Values) == 0 {
		return 0
	}
	return r.Values[0]
}

// sameTable reports whether tables of both can be added up.
func sameTable(x, y *bucket.Schema) bool { return x.Version == y.Version && sameColumns(x, y) }

func sameColumns(x, y *bucket.Schema) bool {
	return slices.Equal(x.Keys, y.Keys) && slices.EqualFunc(x.Measures, y.Measures, func(m, n bucket.Measure) bool {
		return m.Name == n.Name && m.Kind == n.Kind
	})
}
