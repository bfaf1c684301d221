package bucket

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"unsafe"

	"github.com/httpctl/httpctl/pkg/sketch"
)

// Table counts by key in bounded memory.
//
// Values[0] of a row is a lower bound and Err says how much more it may be.
// A row that is folded adds its values to Other, so rows + Other = total,
// exactly, for every measure. Floor bounds Values[0] of any key that has no
// row; 0 means that the table is exact. Every key whose share of Values[0]
// is above 1/max rows has a row (Space-Saving, Metwally et al. 2005).
// Merging keeps all of this in any order of merging.
//
// A Table is not safe for concurrent use.
type Table struct {
	Schema Schema
	// Max is the bound on rows.
	Max   int
	Rows  []*Row // in no particular order
	Other Row    // Keys is nil, Err is 0
	Floor int64
	// Folded counts the rows that were folded into Other.
	Folded uint64

	state tableState
}

// ErrSchema is returned when tables that differ in more than rows are merged.
var ErrSchema = errors.New("tables differ in name, version or columns")

// exactFactor is how many times Max an exact table may hold before it folds
// rows after all: a bound for keys that turn out not to be few.
const exactFactor = 16

// unbounded is the Max of a table without a bound.
const unbounded = math.MaxInt

// tableState is what a table needs to be added to, made on first use, so that
// decoded tables that are only read do without.
type tableState struct {
	index   map[string]*Row // by appendKey of the row's keys
	bytes   int64           // see Table.Bytes
	sum     *int64          // see Table.Account; may be nil
	kinds   []MeasureKind   // of the measures, close together
	moves   uint64          // see Table.Moves
	scratch []byte
	// recent are rows that were added to, by recentSlot of the keys they were added with: what is busy is
	// found without its key being written out and hashed.
	recent []*Row
	// heap finds the row with the smallest upper bound. Bounds only rise, so
	// an entry may be stale, which is mended when it comes to the top. It is
	// nil until a row has to go, and after a merge.
	heap []heapEntry
}

type heapEntry struct {
	upper    int64
	position int // in Rows
}

// NewTable returns an empty table of at most maxRows rows (maxRows < 1 is 1).
// Nothing is allocated ahead, so math.MaxInt is a table without a bound.
// s must be valid; see [Schema.Validate].
func NewTable(s Schema, maxRows int) *Table {
	t := &Table{Schema: s, Max: max(maxRows, 1)}
	t.Other.Values = make([]int64, len(s.Measures))
	if n := s.latencies(); n > 0 {
		t.Other.Latency = make([]*sketch.Latency, n)
	}
	return t
}

// bound is how many rows t may have.
func (t *Table) bound() int {
	if !t.Schema.Exact {
		return t.Max
	}
	if t.Max > math.MaxInt/exactFactor {
		return math.MaxInt
	}
	return t.Max * exactFactor
}

// prepare makes the index of a table that has none yet.
func (t *Table) prepare() {
	if t.state.index != nil {
		return
	}
	t.state.index = make(map[string]*Row, len(t.Rows))
	t.state.recent = make([]*Row, 1<<recentBits)
	t.state.kinds = make([]MeasureKind, len(t.Schema.Measures))
	for i, m := range t.Schema.Measures {
		t.state.kinds[i] = m.Kind
	}
	for _, r := range t.Rows {
		t.state.scratch = appendKey(t.state.scratch[:0], r.Keys)
		t.state.index[string(t.state.scratch)] = r
		t.took(r.bytes())
	}
}

// Account has what Bytes returns, and how it changes from now on, added to sum, too.
func (t *Table) Account(sum *int64) {
	t.state.sum = sum
	*sum += t.state.bytes
}

// took notes that the rows take n bytes more.
func (t *Table) took(n int64) {
	t.state.bytes += n
	if t.state.sum != nil {
		*t.state.sum += n
	}
}

// Bytes estimates the memory of the rows of a table that is added to: their keys, values and
// sketches, and what finds them.
func (t *Table) Bytes() int64 { return t.state.bytes }

// Shed folds an eighth of the rows, at least one, those with the smallest upper bounds, to
// free their memory; one always stays. Keys whose share is above one in as many as are left
// still have a row.
func (t *Table) Shed() {
	t.prepare()
	n := min(max(len(t.Rows)/8, 1), len(t.Rows)-1)
	if n < 1 {
		return
	}
	// Not cut, which compares keys: this may come after every eighth of a table of new keys.
	order := t.state.heap[:0]
	for i, r := range t.Rows {
		order = append(order, heapEntry{r.Upper(), i})
	}
	slices.SortFunc(order, func(a, b heapEntry) int {
		return cmp.Or(cmp.Compare(a.upper, b.upper), cmp.Compare(a.position, b.position))
	})
	for _, e := range order[:n] {
		r := t.Rows[e.position]
		t.state.scratch = appendKey(t.state.scratch[:0], r.Keys)
		delete(t.state.index, string(t.state.scratch))
		t.took(-r.bytes())
		t.fold(r)
		t.Rows[e.position] = nil
	}
	t.Rows = slices.DeleteFunc(t.Rows, func(r *Row) bool { return r == nil })
	t.state.moves++
	t.state.heap = nil
	clear(t.state.recent)
}

// appendKey appends the keys, each after its length, which no two rows share.
func appendKey(dst []byte, keys []string) []byte {
	for _, k := range keys {
		dst = binary.AppendUvarint(dst, uint64(len(k)))
		dst = append(dst, k...)
	}
	return dst
}

// splitKey points keys into what appendKey wrote.
func splitKey(key string, keys []string) {
	for i := range keys {
		// A length is at most 2^31 here, so this is binary.Uvarint for strings.
		n, shift, p := 0, 0, 0
		for key[p] >= 0x80 {
			n |= int(key[p]&0x7f) << shift
			shift += 7
			p++
		}
		n |= int(key[p]) << shift
		p++
		keys[i] = key[p : p+n]
		key = key[p+n:]
	}
}

// Add adds values, parallel to Schema.Measures, to the row of keys, parallel to
// Schema.Keys. For a Latency measure the value is one observation in
// nanoseconds; a negative value is no observation. A negative value of a Sum
// or Max counts as 0. Both slices are borrowed; the strings in keys may be
// kept. It allocates only for a new row. It panics if keys or values are of another length than the schema.
//
// In a full table a new key takes the place of the row with the smallest
// upper bound; one that adds nothing to the first measure goes to Other.
func (t *Table) Add(keys []string, values []int64) { t.AddRow(keys, values) }

// AddRow is Add, and returns the row of keys, for [Table.AddTo]; nil if the values went to Other.
func (t *Table) AddRow(keys []string, values []int64) *Row {
	if len(keys) != len(t.Schema.Keys) || len(values) != len(t.Schema.Measures) {
		panic(fmt.Sprintf("table %s: Add of %d keys and %d values, want %d and %d",
			t.Schema.Name, len(keys), len(values), len(t.Schema.Keys), len(t.Schema.Measures)))
	}
	t.prepare()
	recent := &t.state.recent[recentSlot(keys)]
	r := *recent
	if r == nil || !r.has(keys) && !t.take(r, keys) {
		if r = t.row(keys, values); r == &t.Other {
			t.AddTo(r, values)
			return nil
		}
		*recent = r
	}
	t.AddTo(r, values)
	return r
}

// Moves changes whenever a row may have become that of other keys, or none: what AddRow returned before is not valid any more then.
func (t *Table) Moves() uint64 { return t.state.moves }

// AddTo adds values as Add does to the row r of t, which AddRow returned when Moves was what it is now.
func (t *Table) AddTo(r *Row, values []int64) {
	into, latency := r.Values[:len(values)], 0
	for i, kind := range t.state.kinds[:len(values)] {
		switch v := values[i]; {
		case kind == Latency:
			if v >= 0 {
				t.observe(r, latency, v)
			}
			latency++
		case v <= 0:
		case kind == Sum:
			into[i] = AddSaturating(into[i], v)
		default:
			into[i] = max(into[i], v)
		}
	}
}

// take reports whether r is the row of keys, which stand in other places of memory than its own. One that is busy takes them over, as who counts
// keeps one copy of each: the next time they need not be read. Of few keys all do; of others, of which there may be any number, those
// that come and go do not.
func (t *Table) take(r *Row, keys []string) bool {
	if !slices.Equal(r.Keys, keys) {
		return false
	}
	if t.Schema.Exact || r.Values[0] >= busy {
		copy(r.Keys, keys)
	}
	return true
}

// busy is from which value of its first measure a row is.
const busy = 16

// observe adds a duration to one of the sketches of r.
func (t *Table) observe(r *Row, latency int, ns int64) {
	l := r.Latency[latency]
	if l == nil {
		l = new(sketch.Latency)
		r.Latency[latency] = l
		t.took(latencyBytes)
	}
	before := cap(l.Bins)
	if l.Add(ns); cap(l.Bins) != before {
		t.took(int64(binBytes * (cap(l.Bins) - before)))
	}
}

// recentBits is the size of tableState.recent, 2 KiB: the first level of caches has room for it.
const recentBits = 8

// recentSlot goes by where the keys are in memory, as who counts keeps one copy of each: equal keys in
// other places are in other slots, which costs time and nothing else.
func recentSlot(keys []string) uint64 {
	h := uint64(0)
	for _, k := range keys {
		h = bits.RotateLeft64(h, 9) ^ uint64(uintptr(unsafe.Pointer(unsafe.StringData(k))))
	}
	return h * 0x9e3779b97f4a7c15 >> (64 - recentBits) // Fibonacci hashing
}

// row finds or makes the row that values are to be added to.
func (t *Table) row(keys []string, values []int64) *Row {
	t.state.scratch = appendKey(t.state.scratch[:0], keys)
	r := t.state.index[string(t.state.scratch)]
	switch {
	case r != nil:
	case len(t.Rows) < t.bound():
		r = t.insert(string(t.state.scratch), t.newRow())
		r.Err = t.Floor
		if t.state.heap != nil {
			t.push(heapEntry{AddSaturating(r.Err, values[0]), len(t.Rows) - 1})
		}
	case values[0] <= 0:
		r = &t.Other // its row, if there was one, is counted as folded already
	default:
		r = t.replace(string(t.state.scratch), values[0])
	}
	return r
}

// insert appends r, made empty but for its keys.
func (t *Table) insert(key string, r *Row) *Row {
	t.reset(key, r)
	t.Rows = append(t.Rows, r)
	t.took(r.bytes())
	return r
}

// reset makes r the empty row of a key and enters it into the index.
func (t *Table) reset(key string, r *Row) {
	if r.Keys == nil {
		r.Keys = make([]string, len(t.Schema.Keys))
		r.Values = make([]int64, len(t.Schema.Measures))
	}
	if n := len(t.Other.Latency); n > 0 && r.Latency == nil {
		r.Latency = make([]*sketch.Latency, n)
	}
	splitKey(key, r.Keys)
	clear(r.Values)
	r.Err = 0
	for _, l := range r.Latency {
		if l != nil {
			l.Reset()
		}
	}
	t.state.index[key] = r
}

// replace folds the row with the smallest upper bound and gives its place to
// key, which is about to have the given value.
func (t *Table) replace(key string, value int64) *Row {
	if t.state.heap == nil {
		t.state.heap = make([]heapEntry, 0, len(t.Rows))
		for i, r := range t.Rows {
			t.push(heapEntry{r.Upper(), i})
		}
	}
	h := t.state.heap
	for {
		if upper := t.Rows[h[0].position].Upper(); upper != h[0].upper {
			h[0].upper = upper
			t.down()
			continue
		}
		break
	}
	r := t.Rows[h[0].position]
	t.state.scratch = appendKey(t.state.scratch[:0], r.Keys)
	delete(t.state.index, string(t.state.scratch))
	t.fold(r)
	t.took(-r.bytes())
	t.state.moves++
	t.reset(key, r)
	t.took(r.bytes())
	r.Err = t.Floor
	h[0].upper = AddSaturating(r.Err, value)
	t.down()
	return r
}

// fold adds a row's values to Other. The caller removes the row.
func (t *Table) fold(r *Row) {
	t.Floor = max(t.Floor, r.Upper())
	t.Folded++
	t.combine(&t.Other, r)
}

// combine adds the values of o, which keeps its memory, to r.
func (t *Table) combine(r, o *Row) {
	latency := 0
	for i, m := range t.Schema.Measures {
		switch m.Kind {
		case Sum:
			r.Values[i] = AddSaturating(r.Values[i], o.Values[i])
		case Max:
			r.Values[i] = max(r.Values[i], o.Values[i])
		case Latency:
			if latency >= len(o.Latency) { // left out
				continue
			}
			if l := o.Latency[latency]; l != nil && l.Count > 0 {
				if r.Latency[latency] == nil {
					r.Latency[latency] = new(sketch.Latency)
				}
				r.Latency[latency].Merge(l)
			}
			latency++
		}
	}
}

// less orders the heap: by upper bound, then by position, so that the same
// additions in the same order give the same table.
func (e heapEntry) less(o heapEntry) bool {
	return e.upper < o.upper || e.upper == o.upper && e.position < o.position
}

func (t *Table) push(e heapEntry) {
	h := append(t.state.heap, e)
	i := len(h) - 1
	for i > 0 {
		parent := (i - 1) / 2
		if !h[i].less(h[parent]) {
			break
		}
		h[i], h[parent] = h[parent], h[i]
		i = parent
	}
	t.state.heap = h
}

// down lets the heap's top sink to its place.
func (t *Table) down() {
	h := t.state.heap
	for i := 0; ; {
		child := 2*i + 1
		if child >= len(h) {
			return
		}
		if child+1 < len(h) && h[child+1].less(h[child]) {
			child++
		}
		if !h[child].less(h[i]) {
			return
		}
		h[i], h[child] = h[child], h[i]
		i = child
	}
}

// Merge adds o to t, which takes no memory of o. It returns ErrSchema, and
// changes nothing, when the two cannot be added up (another version, other
// columns). A key that one of them lacks may have up to that table's Floor
// there, which goes into its Err; then t is cut to its bound, once.
func (t *Table) Merge(o *Table) error {
	if !t.Schema.compatible(&o.Schema) {
		return fmt.Errorf("merge table %s version %d into %s version %d: %w",
			o.Schema.Name, o.Schema.Version, t.Schema.Name, t.Schema.Version, ErrSchema)
	}
	t.prepare()
	t.state.heap = nil
	if o.Floor > 0 {
		// As if o had none of the keys; for those it has, this is undone below.
		for _, r := range t.Rows {
			r.Err = AddSaturating(r.Err, o.Floor)
		}
	}
	floor := t.Floor
	for _, or := range o.Rows {
		t.state.scratch = appendKey(t.state.scratch[:0], or.Keys)
		r := t.state.index[string(t.state.scratch)]
		if r == nil {
			r = t.insert(string(t.state.scratch), &Row{})
			r.Err = AddSaturating(floor, or.Err)
		} else {
			r.Err = AddSaturating(r.Err-o.Floor, or.Err)
		}
		before := r.bytes()
		t.combine(r, or)
		t.took(r.bytes() - before)
	}
	t.combine(&t.Other, &o.Other)
	t.Floor = AddSaturating(t.Floor, o.Floor)
	t.Folded += o.Folded
	t.cut(t.bound())
	return nil
}

// Cut folds rows until at most maxRows (at least 1) are left, those with the largest
// upper bounds, and makes that the table's Max. It applies to exact tables too.
func (t *Table) Cut(maxRows int) {
	t.Max = max(maxRows, 1)
	t.cut(t.Max)
}

// byUpper orders rows by their upper bounds, the largest first, then by keys, which are compared only where it takes them.
func byUpper(a, b *Row) int {
	if c := cmp.Compare(b.Upper(), a.Upper()); c != 0 {
		return c
	}
	return slices.Compare(a.Keys, b.Keys)
}

func (t *Table) cut(bound int) {
	if len(t.Rows) <= bound {
		return
	}
	slices.SortFunc(t.Rows, byUpper)
	for _, r := range t.Rows[bound:] {
		if t.state.index != nil {
			t.state.scratch = appendKey(t.state.scratch[:0], r.Keys)
			delete(t.state.index, string(t.state.scratch))
			t.took(-r.bytes())
		}
		t.fold(r)
	}
	clear(t.Rows[bound:])
	t.Rows = t.Rows[:bound]
	t.state.moves++
	t.state.heap = nil
	clear(t.state.recent)
}

// Total returns the sum of a Sum measure over all rows and Other: exact,
// whatever was folded. Of a Max measure it returns the largest; of a Latency
// measure 0.
func (t *Table) Total(measure int) int64 {
	total := t.Other.Values[measure]
	for _, r := range t.Rows {
		switch t.Schema.Measures[measure].Kind {
		case Sum:
			total = AddSaturating(total, r.Values[measure])
		case Max:
			total = max(total, r.Values[measure])
		}
	}
	return total
}

// AddSaturating adds two numbers that are not negative, and rests at the
// largest instead of wrapping.
func AddSaturating(a, b int64) int64 {
	if s := a + b; s >= a {
		return s
	}
	return math.MaxInt64
}
