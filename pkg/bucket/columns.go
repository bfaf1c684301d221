package bucket

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/httpctl/httpctl/pkg/sketch"
)

// What decoded things take in memory, for maxCost.
const (
	costString = 24
	costTable  = 512
	costRow    = 160
	costKey    = 16
	costValue  = 8
	costSketch = 80
	costBin    = 16
)

// appendBody appends the dictionary and the tables of b.
func appendBody(dst []byte, b *Bucket) ([]byte, error) {
	d := newDictionary(b)
	cost := len(d.strings) * costString
	dst = binary.AppendUvarint(dst, uint64(len(d.strings)))
	for _, s := range d.strings {
		dst = binary.AppendUvarint(dst, uint64(len(s)))
	}
	for _, s := range d.strings {
		dst = append(dst, s...)
	}
	dst = binary.AppendUvarint(dst, uint64(len(b.Tables)))
	var section []byte
	for i, t := range b.Tables {
		if err := t.Schema.Validate(); err != nil {
			return nil, err
		}
		for _, u := range b.Tables[:i] {
			if u.Schema.Name == t.Schema.Name {
				return nil, fmt.Errorf("table %s is there twice", t.Schema.Name)
			}
		}
		e := tableEncoder{dictionary: d, origin: b.Start, dst: section[:0]}
		e.schema(&t.Schema)
		if err := e.rows(t); err != nil {
			return nil, fmt.Errorf("table %s: %w", t.Schema.Name, err)
		}
		cost += e.cost
		section = e.dst
		dst = binary.AppendUvarint(dst, uint64(len(section)))
		dst = append(dst, section...)
		if len(dst) > maxBody || cost > maxCost {
			return nil, fmt.Errorf("table %s, %d rows: %w; lower max_keys", t.Schema.Name, len(t.Rows), ErrTooLarge)
		}
	}
	return dst, nil
}

// dictionary numbers the strings of a bucket in their order.
type dictionary struct {
	strings []string
	numbers map[string]int
}

func newDictionary(b *Bucket) *dictionary {
	d := &dictionary{numbers: map[string]int{}}
	add := func(list ...string) {
		for _, s := range list {
			d.numbers[s] = 0
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
			add(r.Keys...)
		}
	}
	d.strings = make([]string, 0, len(d.numbers))
	for s := range d.numbers {
		d.strings = append(d.strings, s)
	}
	slices.Sort(d.strings)
	for i, s := range d.strings {
		d.numbers[s] = i
	}
	return d
}

type tableEncoder struct {
	*dictionary
	origin int64 // start of the bucket, to which Max columns are relative
	dst    []byte
	cost   int
}

func (e *tableEncoder) uvarint(v uint64) { e.dst = binary.AppendUvarint(e.dst, v) }
func (e *tableEncoder) varint(v int64)   { e.dst = binary.AppendVarint(e.dst, v) }
func (e *tableEncoder) text(s string)    { e.uvarint(uint64(e.numbers[s])) }

// schema comes with its name first, so that a reader can skip the table.
func (e *tableEncoder) schema(s *Schema) {
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

func (e *tableEncoder) rows(t *Table) error {
	rows := slices.Clone(t.Rows)
	slices.SortFunc(rows, func(a, b *Row) int { return slices.Compare(a.Keys, b.Keys) })
	e.cost += costTable + len(rows)*(costRow+len(t.Schema.Keys)*costKey+len(t.Schema.Measures)*costValue)
	e.uvarint(uint64(t.Max))
	e.uvarint(uint64(t.Floor))
	e.uvarint(t.Folded)
	e.uvarint(uint64(len(rows)))
	for k := range t.Schema.Keys {
		last := 0
		for _, r := range rows {
			n := e.numbers[r.Keys[k]]
			e.varint(int64(n - last))
			last = n
		}
	}
	for _, r := range rows {
		if r.Err < 0 || slices.ContainsFunc(r.Values, func(v int64) bool { return v < 0 }) {
			return fmt.Errorf("row %q has a negative value", r.Keys)
		}
		e.uvarint(uint64(r.Err))
	}
	rows = append(rows, &t.Other)
	latency := 0
	for i, m := range t.Schema.Measures {
		switch m.Kind {
		case Sum:
			for _, r := range rows {
				e.uvarint(uint64(r.Values[i]))
			}
		case Max:
			e.maxima(rows, i)
		case Latency:
			if err := e.latencies(rows, latency); err != nil {
				return err
			}
			latency++
		}
	}
	return nil
}

// maxima writes a Max column relative to its smallest value and divided by
// what all the differences have in common: times in milliseconds cost two
// bytes, whatever their unit.
func (e *tableEncoder) maxima(rows []*Row, i int) {
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
func (e *tableEncoder) latencies(rows []*Row, n int) error {
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

// parseBody reads what appendBody wrote.
func parseBody(body []byte, h *Header, m *memory, names []string) ([]*Table, error) {
	r := reader{rest: body}
	d := tableDecoder{origin: h.Start, m: m}
	n := r.count(1)
	lengths := take(m, &m.numbers, n)
	total := 0
	for i := range lengths {
		lengths[i] = r.bounded(len(body))
		if total += lengths[i]; total > len(body) {
			r.fail()
			break
		}
	}
	// One copy, of which the strings are parts.
	text := m.stringOf(r.bytes(total))
	if r.failed {
		return nil, corrupt("dictionary")
	}
	d.cost = n * (costString + 8)
	d.strings = take(m, &m.strings, n)
	for i, size := range lengths {
		d.strings[i], text = text[:size], text[size:]
		if i > 0 && d.strings[i] <= d.strings[i-1] {
			return nil, corrupt("dictionary out of order")
		}
	}
	var tables []*Table
	seen := map[string]bool{}
	for n := r.count(2); n > 0; n-- {
		d.reader = reader{rest: r.bytes(r.bounded(len(r.rest)))}
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
	if r.failed || len(r.rest) > 0 {
		return nil, corrupt("tables")
	}
	return tables, nil
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
	for k := range s.Keys {
		number := 0
		for _, r := range t.Rows {
			number += int(d.varint())
			if number < 0 || number >= len(d.strings) {
				return nil, errTruncated
			}
			r.Keys[k] = d.strings[number]
		}
	}
	for i, r := range t.Rows {
		if i > 0 && slices.Compare(r.Keys, t.Rows[i-1].Keys) <= 0 {
			return nil, errors.New("rows out of order")
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
	if d.failed || len(d.rest) > 0 {
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
		case tag-2 > len(d.rest)+1:
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
