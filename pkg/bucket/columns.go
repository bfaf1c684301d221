package bucket

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"unsafe"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"

	"github.com/httpctl/httpctl/pkg/sketch"
)

// What decoded things take in memory, for maxCost.
const (
	costString = 32 // itself, and its lengths while it is read
	costTable  = 512
	costRow    = 160
	costKey    = 16
	costValue  = 8
	costSketch = 80
	costBin    = 16
)

// encoder is the memory in which a bucket is encoded.
type encoder struct {
	w       *flate.Writer // this and the next are made when they are first needed, and take a megabyte or two each
	z       *zstd.Encoder
	size    int // of all texts, in bytes
	body    []byte
	met     map[string]uint32 // strings of the bucket, numbered as they were met
	texts   []numberedText    // the same, in order
	ranks   []uint32          // of a string in texts, by the number in met
	keys    []uint32          // of all rows, by the number in met, from sort on by rank
	section []byte            // of a table
	rows    []*Row            // of a table, by keys, and its Other
	order   []numberedRow
	shared  []int // of each text, the bytes that are those of the text before
	origin  int64 // start of the bucket, to which Max columns are relative
	cost    int   // of the table
}

// release makes the memory ready for the next bucket, unless it is much. What this one has is forgotten.
func (e *encoder) release() {
	const most = 1 << 20
	if cap(e.body) > most || cap(e.order) > most/64 || cap(e.texts) > most/64 || cap(e.keys) > most/16 {
		*e = encoder{} // with w and z, which have grown, too
	}
	clear(e.met)
	clear(e.texts)
	clear(e.rows[:cap(e.rows)]) // of each table
	clear(e.order[:cap(e.order)])
}

// encode makes the body: the dictionary and the tables of b, whose strings are numbered.
func (e *encoder) encode(b *Bucket, version byte) error {
	e.origin = b.Start
	keys := e.keys
	cost := len(e.texts) * costString
	dst := binary.AppendUvarint(e.body[:0], uint64(len(e.texts)))
	e.shared = slices.Grow(e.shared[:0], len(e.texts))[:len(e.texts)]
	clear(e.shared)
	if version != version1 {
		if e.size > maxBody {
			return fmt.Errorf("%d bytes of strings: %w; lower max_keys", e.size, ErrTooLarge)
		}
		cost += e.size
		before := ""
		for i, t := range e.texts {
			e.shared[i] = sharedPrefix(before, t.text)
			dst = binary.AppendUvarint(dst, uint64(e.shared[i]))
			before = t.text
		}
	}
	for i, t := range e.texts {
		dst = binary.AppendUvarint(dst, uint64(len(t.text)-e.shared[i]))
	}
	for i, t := range e.texts {
		dst = append(dst, t.text[e.shared[i]:]...)
	}
	dst = binary.AppendUvarint(dst, uint64(len(b.Tables)))
	e.body = dst
	for i, t := range b.Tables {
		if err := t.Schema.Validate(); err != nil {
			return err
		}
		for _, u := range b.Tables[:i] {
			if u.Schema.Name == t.Schema.Name {
				return fmt.Errorf("table %s is there twice", t.Schema.Name)
			}
		}
		e.section, e.cost = e.section[:0], 0
		e.schema(&t.Schema)
		n := 0
		for _, r := range t.Rows {
			n += len(r.Keys)
		}
		e.sort(t, keys[:n])
		keys = keys[n:]
		if err := e.table(t); err != nil {
			return fmt.Errorf("table %s: %w", t.Schema.Name, err)
		}
		cost += e.cost
		dst = binary.AppendUvarint(dst, uint64(len(e.section)))
		dst = append(dst, e.section...)
		if e.body = dst; len(dst) > maxBody || cost > maxCost {
			return fmt.Errorf("table %s, %d rows: %w; lower max_keys", t.Schema.Name, len(t.Rows), ErrTooLarge)
		}
	}
	return nil
}

// number finds the strings of a bucket and numbers them in their order.
func (e *encoder) number(b *Bucket) {
	if e.met == nil {
		e.met = map[string]uint32{}
	}
	clear(e.met)
	e.texts, e.keys, e.size = e.texts[:0], e.keys[:0], 0
	number := func(s string) uint32 {
		n, ok := e.met[s]
		if !ok {
			n = uint32(len(e.texts))
			e.met[s] = n
			e.size += len(s)
			e.texts = append(e.texts, numberedText{s, n})
		}
		return n
	}
	add := func(list ...string) {
		for _, s := range list {
			number(s)
		}
	}
	for _, t := range b.Tables {
		add(t.Schema.Name)
		add(t.Schema.Keys...)
		for _, m := range t.Schema.Measures {
			add(m.Name, m.Unit)
		}
		for _, v := range t.Schema.Views {
			add(v.Name, v.Title)
		}
		for _, r := range t.Rows {
			for _, k := range r.Keys {
				e.keys = append(e.keys, number(k))
			}
		}
	}
	slices.SortFunc(e.texts, func(x, y numberedText) int { return strings.Compare(x.text, y.text) })
	e.ranks = slices.Grow(e.ranks[:0], len(e.texts))[:len(e.texts)]
	for i, t := range e.texts {
		e.ranks[t.number] = uint32(i)
	}
}

// numberedText is a string with its number in met.
type numberedText struct {
	text   string
	number uint32
}

func (e *encoder) uvarint(v uint64) { e.section = binary.AppendUvarint(e.section, v) }
func (e *encoder) varint(v int64)   { e.section = binary.AppendVarint(e.section, v) }
func (e *encoder) text(s string)    { e.uvarint(uint64(e.ranks[e.met[s]])) }

// schema comes with its name first, so that a reader can skip the table.
func (e *encoder) schema(s *Schema) {
	e.text(s.Name)
	e.uvarint(uint64(s.Version))
	if s.Exact {
		e.uvarint(1)
	} else {
		e.uvarint(0)
	}
	e.uvarint(uint64(len(s.Keys)))
	for _, k := range s.Keys {
		e.text(k)
	}
	e.uvarint(uint64(len(s.Measures)))
	for _, m := range s.Measures {
		e.text(m.Name)
		e.uvarint(uint64(m.Kind))
		e.text(m.Unit)
	}
	e.uvarint(uint64(len(s.Views)))
	for _, v := range s.Views {
		e.text(v.Name)
		e.text(v.Title)
		e.uvarint(uint64(len(v.By)))
		for _, k := range v.By {
			e.uvarint(uint64(s.Key(k)))
		}
		e.uvarint(uint64(s.Measure(v.Hits)))
		e.uvarint(uint64(len(v.Show)))
		for _, m := range v.Show {
			e.uvarint(uint64(s.Measure(m)))
		}
	}
}

func (e *encoder) table(t *Table) error {
	rows := e.order
	e.cost += costTable + len(rows)*(costRow+len(t.Schema.Keys)*costKey+len(t.Schema.Measures)*costValue)
	e.uvarint(uint64(t.Max))
	e.uvarint(uint64(t.Floor))
	e.uvarint(t.Folded)
	e.uvarint(uint64(len(rows)))
	for k := range t.Schema.Keys {
		last := int64(0)
		for _, r := range rows {
			n := int64(r.keys[k])
			e.varint(n - last)
			last = n
		}
	}
	e.rows = e.rows[:0]
	for i := range rows {
		r := rows[i].row
		e.rows = append(e.rows, r)
		if r.Err < 0 || slices.ContainsFunc(r.Values, func(v int64) bool { return v < 0 }) {
			return fmt.Errorf("row %q has a negative value", r.Keys)
		}
		e.uvarint(uint64(r.Err))
	}
	e.rows = append(e.rows, &t.Other)
	latency := 0
	for i, m := range t.Schema.Measures {
		switch m.Kind {
		case Sum:
			for _, r := range e.rows {
				e.uvarint(uint64(r.Values[i]))
			}
		case Max:
			e.maxima(e.rows, i)
		case Latency:
			if err := e.latencies(e.rows, latency); err != nil {
				return err
			}
			latency++
		}
	}
	return nil
}

// numberedRow is a row with the ranks of its keys.
type numberedRow struct {
	row  *Row
	keys []uint32
}

// sort puts the rows of a table in the order of their keys, given by their numbers in met. Ranks are compared sooner than texts.
func (e *encoder) sort(t *Table, keys []uint32) {
	e.order = e.order[:0]
	for _, r := range t.Rows {
		own := keys[:len(r.Keys)]
		keys = keys[len(r.Keys):]
		for i, n := range own {
			own[i] = e.ranks[n]
		}
		e.order = append(e.order, numberedRow{r, own})
	}
	slices.SortFunc(e.order, func(a, b numberedRow) int { return slices.Compare(a.keys, b.keys) })
}

// maxima writes a Max column relative to its smallest value and divided by
// what all the differences have in common: times in milliseconds cost two
// bytes, whatever their unit.
func (e *encoder) maxima(rows []*Row, i int) {
	base := int64(math.MaxInt64)
	for _, r := range rows {
		if v := r.Values[i]; v != 0 {
			base = min(base, v)
		}
	}
	if base == math.MaxInt64 {
		base = e.origin
	}
	common := uint64(0)
	for _, r := range rows {
		if v := r.Values[i]; v != 0 {
			common = gcd(common, uint64(v-base))
		}
	}
	common = max(common, 1)
	e.varint(base - e.origin)
	e.uvarint(common)
	for _, r := range rows {
		if v := r.Values[i]; v != 0 {
			e.uvarint(1 + uint64(v-base)/common)
		} else {
			e.uvarint(0)
		}
	}
}

// latencies writes the sketches of one measure as four runs: tags, durations,
// bin gaps, bin counts. One and two observations need no bins: the durations
// say which they are in.
func (e *encoder) latencies(rows []*Row, n int) error {
	common := uint64(0)
	for _, r := range rows {
		l := r.Latency[n]
		if l == nil || l.Count == 0 {
			continue
		}
		if err := checkSketch(l); err != nil {
			return fmt.Errorf("row %q: %w", r.Keys, err)
		}
		e.cost += costSketch + len(l.Bins)*costBin
		common = gcd(gcd(gcd(common, uint64(l.Min)), uint64(l.Max)), l.Sum)
	}
	common = max(common, 1)
	each := func(f func(l *sketch.Latency)) {
		for _, r := range rows {
			if l := r.Latency[n]; l != nil && l.Count > 0 {
				f(l)
			}
		}
	}
	for _, r := range rows {
		switch l := r.Latency[n]; {
		case l == nil || l.Count == 0:
			e.uvarint(0)
		case l.Count <= 2:
			e.uvarint(l.Count)
		default:
			e.uvarint(2 + uint64(len(l.Bins)))
		}
	}
	e.uvarint(common)
	each(func(l *sketch.Latency) {
		e.uvarint(uint64(l.Min) / common)
		if l.Count > 1 {
			e.uvarint(uint64(l.Max-l.Min) / common)
		}
		if l.Count > 2 {
			e.uvarint((l.Sum - uint64(l.Min) - uint64(l.Max)) / common)
		}
	})
	each(func(l *sketch.Latency) {
		if l.Count > 2 {
			for i := 1; i < len(l.Bins); i++ {
				e.uvarint(uint64(l.Bins[i].Index - l.Bins[i-1].Index - 1))
			}
		}
	})
	each(func(l *sketch.Latency) {
		if l.Count > 2 {
			for _, b := range l.Bins {
				e.uvarint(b.Count - 1)
			}
		}
	})
	return nil
}

var errSketch = errors.New("a latency sketch contradicts itself")

// checkSketch reports whether l, not empty, is what Add and Merge make.
func checkSketch(l *sketch.Latency) error {
	total := uint64(0)
	for i, b := range l.Bins {
		if b.Count == 0 || i > 0 && b.Index <= l.Bins[i-1].Index || total+b.Count < total {
			return errSketch
		}
		total += b.Count
	}
	ok := total == l.Count && l.Min >= 0 && l.Min <= l.Max &&
		l.Bins[0].Index == sketch.Index(l.Min) && l.Bins[len(l.Bins)-1].Index == sketch.Index(l.Max)
	switch {
	case !ok:
	case l.Count == 1:
		ok = l.Min == l.Max && l.Sum == uint64(l.Min)
	case l.Count == 2:
		ok = l.Sum == uint64(l.Min)+uint64(l.Max)
	default:
		ok = l.Sum >= uint64(l.Min)+uint64(l.Max)
	}
	if !ok {
		return errSketch
	}
	return nil
}

func gcd(a, b uint64) uint64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// parseBody reads what an encoder wrote.
func parseBody(body []byte, version byte, h *Header, m *memory, names []string) ([]*Table, error) {
	r := reader{data: body}
	d := tableDecoder{origin: h.Start}
	if d.strings, d.cost, d.m = r.dictionary(m, version); r.failed {
		return nil, corrupt("dictionary")
	}
	for i := range d.strings {
		if i > 0 && d.strings[i] <= d.strings[i-1] {
			return nil, corrupt("dictionary out of order")
		}
	}
	var tables []*Table
	seen := map[string]bool{}
	for n := r.count(2); n > 0; n-- {
		d.reader = reader{data: r.bytes(r.bounded(r.left()))}
		name := d.text()
		if d.failed || r.failed || seen[name] {
			return nil, corrupt("tables")
		}
		seen[name] = true
		if len(names) > 0 && !slices.Contains(names, name) {
			continue
		}
		t, err := d.table(name)
		if err != nil {
			return nil, corrupt(fmt.Sprintf("table %.*q: %v", maxName, name, err))
		}
		tables = append(tables, t)
	}
	if r.failed || r.left() > 0 {
		return nil, corrupt("tables")
	}
	return tables, nil
}

// dictionary reads the strings, and returns what they take in memory besides the body, and where what follows is to lie: in memory of its
// own where they are many, as they would else be kept with m.
func (r *reader) dictionary(m *memory, version byte) (list []string, cost int, _ *memory) {
	n := r.count(1)
	if n > maxCost/costString {
		r.fail()
		return nil, 0, nil
	}
	shared := take(m, &m.numbers, n) // with the string before, of each
	if version != version1 {
		for i := range shared {
			shared[i] = r.bounded(maxBody)
		}
	}
	lengths := take(m, &m.numbers, n) // of the rest
	kept, total, last := 0, 0, 0
	for i := range lengths {
		lengths[i] = r.bounded(r.left())
		kept += lengths[i]
		if shared[i] > last || kept > r.left() {
			r.fail()
			return nil, 0, nil
		}
		last = shared[i] + lengths[i]
		if total += last; total > maxBody {
			r.fail()
			return nil, 0, nil
		}
	}
	rest := r.bytes(kept)
	if r.failed {
		return nil, 0, nil
	}
	if total > keptBody {
		m = new(memory)
	}
	list = take(m, &m.strings, n)
	cost = n * costString
	if version == version1 {
		text := m.stringOf(rest)
		for i, size := range lengths {
			list[i], text = text[:size], text[size:]
		}
		return list, cost, m
	}
	text := take(m, &m.joined, total)[:0]
	before := ""
	for i, size := range lengths {
		from := len(text)
		text = append(append(text, before[:shared[i]]...), rest[:size]...)
		rest = rest[size:]
		before = unsafe.String(unsafe.SliceData(text[from:]), len(text)-from) // text does not grow, and is written once
		list[i] = before
	}
	return list, cost + total, m
}

// sharedPrefix is how many bytes two strings have in common from their beginning on.
func sharedPrefix(x, y string) int {
	n := 0
	for n < len(x) && n < len(y) && x[n] == y[n] {
		n++
	}
	return n
}

type tableDecoder struct {
	reader
	m       *memory
	strings []string
	origin  int64
	cost    int
}

// text reads the number of a string.
func (d *tableDecoder) text() string {
	v := d.uvarint()
	if v >= uint64(len(d.strings)) {
		d.fail()
		return ""
	}
	return d.strings[v]
}

func (d *tableDecoder) value() int64 { return int64(d.bounded(math.MaxInt64)) }

var (
	errTruncated = errors.New("a column ends early or holds what it cannot")
	errCost      = errors.New("too large")
	errOrder     = errors.New("rows out of order")
)

func (d *tableDecoder) table(name string) (*Table, error) {
	m := d.m
	s, err := d.schema(name)
	if err != nil {
		return nil, err
	}
	t := NewTable(s, int(d.value()))
	t.Floor = d.value()
	t.Folded = d.uvarint()
	// Each row has a byte in every column at least.
	n := d.count(len(s.Keys) + 1 + len(s.Measures))
	d.cost += costTable + n*(costRow+len(s.Keys)*costKey+len(s.Measures)*costValue)
	if d.cost > maxCost {
		return nil, errCost
	}
	all := take(m, &m.list, n+1)
	all[n] = &t.Other
	t.Rows = all[:n:n]
	rows, keys, values := take(m, &m.rows, n), take(m, &m.text, n*len(s.Keys)), take(m, &m.values, n*len(s.Measures))
	sketches := take(m, &m.results, n*len(t.Other.Latency))
	for i := range rows {
		r := &rows[i]
		t.Rows[i] = r
		r.Keys, keys = keys[:len(s.Keys):len(s.Keys)], keys[len(s.Keys):]
		r.Values, values = values[:len(s.Measures):len(s.Measures)], values[len(s.Measures):]
		if k := len(t.Other.Latency); k > 0 {
			r.Latency, sketches = sketches[:k:k], sketches[k:]
		}
	}
	differs := take(m, &m.numbers, n) // of a row: the column, from 1, in which it comes after the one before, as texts are numbered in their order
	for k := range s.Keys {
		number := 0
		for i, r := range t.Rows {
			more := int(d.varint())
			if number += more; number < 0 || number >= len(d.strings) {
				return nil, errTruncated
			}
			r.Keys[k] = d.strings[number]
			if i > 0 && differs[i] == 0 && more != 0 {
				if differs[i] = k + 1; more < 0 {
					return nil, errOrder
				}
			}
		}
	}
	for i, r := range t.Rows {
		if i > 0 && differs[i] == 0 {
			return nil, errOrder
		}
		r.Err = d.value()
	}
	latency := 0
	for i, m := range s.Measures {
		switch m.Kind {
		case Sum:
			for _, r := range all {
				r.Values[i] = d.value()
			}
		case Max:
			d.maxima(all, i)
		case Latency:
			if err := d.latencies(all, latency); err != nil {
				return nil, err
			}
			latency++
		}
	}
	if d.failed || d.left() > 0 {
		return nil, errTruncated
	}
	return t, nil
}

// schema reads one, and returns it if it is valid.
func (d *tableDecoder) schema(name string) (Schema, error) {
	s := &d.m.scratch
	if d.m.again {
		*s = Schema{Name: name, Keys: s.Keys[:0], Measures: s.Measures[:0], Views: s.Views[:0]}
	} else {
		*s = Schema{Name: name}
	}
	s.Version = uint32(d.bounded(math.MaxUint32))
	s.Exact = d.bounded(1) == 1
	for n := d.bounded(maxColumns); n > 0; n-- {
		s.Keys = append(s.Keys, d.text())
	}
	for n := d.bounded(maxColumns); n > 0; n-- {
		s.Measures = append(s.Measures, Measure{d.text(), MeasureKind(d.bounded(int(Latency))), d.text()})
	}
	key := func() string {
		if i := d.bounded(maxColumns); i < len(s.Keys) {
			return s.Keys[i]
		}
		d.fail()
		return ""
	}
	measure := func() string {
		if i := d.bounded(maxColumns); i < len(s.Measures) {
			return s.Measures[i].Name
		}
		d.fail()
		return ""
	}
	for n := d.bounded(maxColumns); n > 0; n-- {
		v := View{Name: d.text(), Title: d.text()}
		v.By = take(d.m, &d.m.text, d.bounded(maxColumns))
		for i := range v.By {
			v.By[i] = key()
		}
		v.Hits = measure()
		v.Show = take(d.m, &d.m.text, d.bounded(maxColumns))
		for i := range v.Show {
			v.Show[i] = measure()
		}
		s.Views = append(s.Views, v)
	}
	if d.failed {
		return Schema{}, errTruncated
	}
	kept, known := d.m.schema(s)
	if known {
		return kept, nil
	}
	if err := kept.Validate(); err != nil {
		return Schema{}, err
	}
	d.m.remember(&kept)
	return kept, nil
}

func (d *tableDecoder) maxima(rows []*Row, i int) {
	base := d.origin + d.varint()
	common := d.uvarint()
	for _, r := range rows {
		v := d.uvarint()
		if v == 0 {
			continue
		}
		if d.failed || base < 0 || common == 0 || v-1 > uint64(math.MaxInt64-base)/common {
			d.fail()
			return
		}
		r.Values[i] = base + int64((v-1)*common)
		if r.Values[i] == 0 {
			d.fail() // zero has a form of its own
			return
		}
	}
}

func (d *tableDecoder) latencies(rows []*Row, n int) error {
	tags := take(d.m, &d.m.numbers, len(rows))
	for i := range rows {
		tags[i] = d.bounded(2 + sketch.MaxBins)
		if tags[i] == 0 {
			continue
		}
		d.cost += costSketch + max(tags[i]-2, 1)*costBin
	}
	if d.cost > maxCost {
		return errCost
	}
	there := 0
	for _, tag := range tags {
		if tag > 0 {
			there++
		}
	}
	made := take(d.m, &d.m.sketch, there)
	for i, r := range rows {
		if tags[i] > 0 {
			r.Latency[n], made = &made[0], made[1:]
		}
	}
	common := d.uvarint()
	if d.failed || common == 0 {
		return errTruncated
	}
	duration := func(base uint64, limit uint64) uint64 {
		v := d.uvarint()
		if v > (limit-base)/common {
			d.fail()
			return base
		}
		return base + v*common
	}
	each := func(f func(l *sketch.Latency, tag int)) {
		for i, r := range rows {
			if tags[i] > 0 && !d.failed {
				f(r.Latency[n], tags[i])
			}
		}
	}
	each(func(l *sketch.Latency, tag int) {
		l.Min = int64(duration(0, math.MaxInt64))
		l.Max, l.Sum = l.Min, uint64(l.Min)
		if tag >= 2 {
			l.Max = int64(duration(uint64(l.Min), math.MaxInt64))
			l.Sum += uint64(l.Max)
		}
		if tag > 2 {
			l.Sum = duration(l.Sum, math.MaxUint64)
		}
	})
	each(func(l *sketch.Latency, tag int) {
		first, last := sketch.Index(l.Min), sketch.Index(l.Max)
		switch {
		case tag <= 2:
			if tag == 2 && last != first {
				l.Bins = take(d.m, &d.m.bins, 2)
				l.Bins[1] = sketch.Bin{Index: last, Count: 1}
				tag = 1
			} else {
				l.Bins = take(d.m, &d.m.bins, 1)
			}
			l.Bins[0] = sketch.Bin{Index: first, Count: uint64(tag)}
		case tag-2 > d.left()+1:
			d.fail()
		default:
			l.Bins = take(d.m, &d.m.bins, tag-2)
			l.Bins[0].Index = first
			for i := 1; i < len(l.Bins); i++ {
				l.Bins[i].Index = l.Bins[i-1].Index + 1 + int32(d.bounded(sketch.MaxBins))
			}
		}
	})
	each(func(l *sketch.Latency, tag int) {
		if tag <= 2 {
			l.Count = uint64(tag)
			return
		}
		for i := range l.Bins {
			l.Bins[i].Count = d.uvarint() + 1
			l.Count += l.Bins[i].Count
		}
		if l.Count <= 2 {
			d.fail() // has a form of its own
		}
	})
	if d.failed {
		return errTruncated
	}
	var err error
	each(func(l *sketch.Latency, _ int) { err = cmp.Or(err, checkSketch(l)) })
	return err
}
