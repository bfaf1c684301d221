package store

import (
	"encoding/binary"
	"iter"
	"slices"
	"strings"
	"unsafe"

	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/sketch"
)

// A Part is the sum of what a plan without Step asks for over a piece of its time. It is never
// changed, takes a quarter of the memory of a Collector, and is added up many times faster.
type Part struct {
	Slice  // without Table; with PerHost only Start, End and Buckets, which are those of all hosts
	sealed *sealed
	hosts  []hostPart // with PerHost, instead of sealed: sorted by host
	dict   *Dictionary
}

// hostPart is a Part of one host.
type hostPart struct {
	Slice  // without Table and Hosts
	sealed *sealed
}

// Renumbered returns the part with its keys numbered in another dictionary. It shares all other memory.
func (p *Part) Renumbered(d *Dictionary) *Part {
	if p.dict == d {
		return p
	}
	out := *p
	out.dict, out.sealed, out.hosts = d, p.sealed.renumbered(p.dict, d), slices.Clone(p.hosts)
	for i := range out.hosts {
		out.hosts[i].sealed = out.hosts[i].sealed.renumbered(p.dict, d)
	}
	return &out
}

// renumbered returns s, of keys in from, with those in to.
func (s *sealed) renumbered(from, to *Dictionary) *sealed {
	if s == nil || from == to {
		return s
	}
	out := *s
	out.ids = to.translate(s.ids, from.names())
	return &out
}

// sealed is an Accumulator that did not prune, as it was. It is never changed.
type sealed struct {
	schema, out bucket.Schema
	ids         []uint32 // of rows, in the dictionary
	// numbers of row i begin at i*stride: the values, err, and of each latency measure count, sum, least and most.
	numbers []int64
	stride  int
	// bins of the latencies of all rows, where the l-th of row i begin at offsets[i*latencies+l].
	bins    []byte
	offsets []uint32
	// sketches are the latencies of all rows instead of bins and offsets, where nothing is packed; held is what they take.
	sketches  []*sketch.Latency
	held      int64
	total     []histogram // of the bins of all rows, by latency measure
	latencies int
	columns   *columns // of numbers
	other     bucket.Row
	floor     int64
	folded    uint64
	added     int
	skipped   int
}

// latencyNumbers are count, sum, least and most.
const latencyNumbers = 4

// histogram counts by bin, the bin of zero first.
type histogram []uint64

func (h *histogram) add(l *sketch.Latency) {
	for _, b := range l.Bins {
		h.count(b.Index, b.Count)
	}
}

func (h *histogram) count(index int32, n uint64) {
	i := int(index - sketch.MinIndex)
	if i >= len(*h) {
		*h = append(*h, make([]uint64, i+1-len(*h))...)
	}
	(*h)[i] += n
}

// seal returns what a has added up, which must not have pruned. It has the memory of a, which must not be added to afterwards.
func (a *Accumulator) seal(d *Dictionary) *sealed {
	s := &sealed{schema: a.schema, out: a.out, stride: a.rows.stride, latencies: a.latencies,
		columns: new(columns), other: a.other, floor: a.floor, folded: a.folded, added: a.added, skipped: a.skipped}
	if a.added > 0 {
		s.ids = d.number(make([]uint32, 0, a.rows.len()), a.rows.keys)
		s.numbers, s.sketches, s.held = a.rows.numbers, a.rows.sketches, a.rows.bins
		s.count()
	}
	return s
}

// count makes the total of sketches.
func (s *sealed) count() {
	s.total = make([]histogram, s.latencies)
	for k, l := range s.sketches {
		if l != nil {
			s.total[k%s.latencies].add(l)
		}
	}
}

// pack puts sketches into little memory, which takes as long as to make them anew when they are asked for.
func (s *sealed) pack() {
	s.numbers = fitted(s.numbers)
	if len(s.sketches) == 0 {
		return
	}
	s.offsets = make([]uint32, 0, len(s.sketches))
	for _, l := range s.sketches {
		s.offsets = append(s.offsets, uint32(len(s.bins)))
		if l == nil {
			s.bins = append(s.bins, 0)
			continue
		}
		s.bins = binary.AppendUvarint(s.bins, uint64(len(l.Bins)))
		last := int32(sketch.MinIndex) - 1
		for _, b := range l.Bins {
			s.bins = binary.AppendUvarint(s.bins, uint64(b.Index-last))
			s.bins = binary.AppendUvarint(s.bins, b.Count)
			last = b.Index
		}
	}
	s.bins = fitted(s.bins)
	s.sketches, s.held = nil, 0
}

// fitted returns s without much room behind it.
func fitted[T any](s []T) []T {
	if cap(s) > len(s)+len(s)/8 {
		return slices.Clone(s)
	}
	return s
}

// sketch returns the l-th latency of row i, nil if nothing was observed. It must not be changed.
func (s *sealed) sketch(i, l int) *sketch.Latency {
	if s.sketches != nil {
		return s.sketches[i*s.latencies+l]
	}
	n := s.numbers[(i+1)*s.stride-latencyNumbers*(s.latencies-l):]
	if n[0] == 0 {
		return nil
	}
	out := &sketch.Latency{Count: uint64(n[0]), Sum: uint64(n[1]), Min: n[2], Max: n[3]}
	out.Bins = make([]sketch.Bin, 0, s.binsOf(i, l))
	for b := range s.packed(i, l) {
		out.Bins = append(out.Bins, b)
	}
	return out
}

// binsOf counts the bins of the l-th latency of row i, where they are packed.
func (s *sealed) binsOf(i, l int) uint64 {
	n, _ := binary.Uvarint(s.bins[s.offsets[i*s.latencies+l]:])
	return n
}

// packed goes through the bins of the l-th latency of row i, where they are packed.
func (s *sealed) packed(i, l int) iter.Seq[sketch.Bin] {
	return func(yield func(sketch.Bin) bool) {
		b := s.bins[s.offsets[i*s.latencies+l]:]
		next := func() uint64 {
			v, n := binary.Uvarint(b)
			b = b[n:]
			return v
		}
		last := int32(sketch.MinIndex) - 1
		for range next() {
			last += int32(next())
			if !yield(sketch.Bin{Index: last, Count: next()}) {
				return
			}
		}
	}
}

// table returns the sum as Accumulator.Table does. There must be no latencies. s must not be used afterwards.
func (s *sealed) table(keys names, maxRows int) *bucket.Table {
	measures := len(s.schema.Measures)
	t := &bucket.Table{Schema: s.out, Max: maxSumRows, Other: s.other, Floor: s.floor, Folded: s.folded, Rows: make([]*bucket.Row, len(s.ids))}
	rows, texts := make([]bucket.Row, len(s.ids)), make([]string, len(s.ids)*len(s.out.Keys))
	for i, id := range s.ids {
		n := s.numbers[i*s.stride : (i+1)*s.stride]
		k := len(s.out.Keys)
		rows[i] = bucket.Row{Keys: splitKey(texts[i*k:(i+1)*k:(i+1)*k], strings.Clone(keys.at(id))), Values: n[:measures:measures], Err: max(0, add(n[measures], s.floor))}
		t.Rows[i] = &rows[i]
	}
	first(t, maxRows)
	return t
}

// merge adds a sealed sum of the same plan, as merge does one that is not.
func (a *Accumulator) mergeSealed(b *sealed, d *Dictionary) {
	a.skipped += b.skipped
	if b.added == 0 || !a.admit(&b.schema, b.added) {
		return
	}
	a.added += b.added
	a.floor = add(a.floor, b.floor)
	a.folded += b.folded
	a.addValues(&a.other, &b.other)
	keys := d.names()
	measures := len(b.schema.Measures)
	latencies := make([]*sketch.Latency, b.latencies)
	for k, id := range b.ids {
		i := a.rows.at(keys.at(id), a.pruned)
		n := b.numbers[k*b.stride : (k+1)*b.stride]
		for l := range latencies {
			latencies[l] = b.sketch(k, l)
		}
		a.rows.add(i, n[:measures], latencies)
		*a.rows.err(i) += n[measures]
	}
	if a.rows.len() > a.limit {
		a.prune()
	}
}

// cutKey returns the first of the keys that Accumulator.row wrote, and what follows it.
func cutKey(key string) (first, rest string) {
	// A length is one or two bytes here nearly always, so this is binary.Uvarint for strings.
	size, shift, p := 0, 0, 0
	for ; key[p] >= 0x80; p++ {
		size |= int(key[p]&0x7f) << shift
		shift += 7
	}
	size |= int(key[p]) << shift
	return key[p+1 : p+1+size], key[p+1+size:]
}

// splitKey fills in the keys that Accumulator.row wrote.
func splitKey(keys []string, key string) []string {
	for i := range keys {
		keys[i], key = cutKey(key)
	}
	return keys
}

// Bytes is about what the part takes in memory, without its dictionary.
func (p *Part) Bytes() int64 {
	n := int64(unsafe.Sizeof(*p)) + p.Slice.bytes() + p.sealed.bytes() + int64(cap(p.hosts))*int64(unsafe.Sizeof(hostPart{}))
	for i := range p.hosts {
		n += p.hosts[i].Slice.bytes() + p.hosts[i].sealed.bytes()
	}
	return n
}

// bytes is about what the lists of a slice take in memory.
func (s *Slice) bytes() int64 {
	return int64(16*cap(s.Hosts) + 16*cap(s.Covered) + 16*cap(s.Unobserved))
}

func (s *sealed) bytes() int64 {
	if s == nil {
		return 0
	}
	n := int64(unsafe.Sizeof(*s)) + s.held + int64(4*cap(s.ids)+8*cap(s.numbers)+cap(s.bins)+4*cap(s.offsets)+8*cap(s.sketches)+8*cap(s.other.Values))
	for _, h := range s.total {
		n += int64(8 * cap(h))
	}
	for _, l := range s.other.Latency {
		n += sketchBytes(l)
	}
	return n + s.columnBytes()
}

// Rows counts the rows, and the hosts of a plan with PerHost.
func (p *Part) Rows() int {
	n := len(p.hosts)
	for i := range p.hosts {
		n += p.hosts[i].sealed.len()
	}
	return n + p.sealed.len()
}

func (s *sealed) len() int {
	if s == nil {
		return 0
	}
	return len(s.ids)
}

// Part returns what the Collector has collected, which must be Whole and of a plan without Step. It has the memory
// of the Collector, which must not be used afterwards. Its rows are numbered in d, which is that of all parts that it is to be added up with.
func (c *Collector) Part(d *Dictionary) *Part {
	p := &Part{dict: d}
	for _, s := range c.slices { // one at most, or one of each host
		s.flatten(&c.plan)
		h := hostPart{s.Slice, s.seal(d)}
		h.Covered, h.Unobserved = bucket.MergeSpans(s.Covered), bucket.MergeSpans(s.Unobserved)
		if c.plan.PerHost {
			p.Start, p.End = s.Start, s.End
			p.Buckets += s.Buckets
			p.hosts = append(p.hosts, h)
			continue
		}
		p.Slice, p.sealed = h.Slice, h.sealed
		p.Hosts = s.sortedHosts()
	}
	slices.SortFunc(p.hosts, func(x, y hostPart) int { return x.Host.Compare(y.Host) })
	return p
}

func (s *collected) seal(d *Dictionary) *sealed {
	if s.sum == nil {
		return &sealed{columns: new(columns)}
	}
	return s.sum.seal(d)
}

// AddPart adds a part that begins at start, and must fit the plan: see Plan.Fits. It keeps the part.
func (c *Collector) AddPart(start int64, p *Part) {
	switch {
	case p.Buckets == 0:
	case c.plan.PerHost:
		for i := range p.hosts {
			h := &p.hosts[i]
			c.slice(&bucket.Header{Name: bucket.Name{Host: h.Host, Start: start}}).addPart(&h.Slice, h.sealed, p.dict)
		}
	default:
		s := c.slice(&bucket.Header{Name: bucket.Name{Start: start}})
		s.lists = append(s.lists, p.Hosts)
		s.addPart(&p.Slice, p.sealed, p.dict)
	}
}

func (s *collected) addPart(from *Slice, sum *sealed, dict *Dictionary) {
	s.Buckets += from.Buckets
	s.Counters.Add(&from.Counters)
	for _, span := range from.Covered {
		s.Covered = extend(s.Covered, span)
	}
	s.declare(from.Unobserved)
	if s.dict == nil {
		s.dict = dict
	}
	s.parts = append(s.parts, sum.renumbered(dict, s.dict))
}

// flatten adds the parts to the sum.
func (s *collected) flatten(p *Plan) {
	for _, part := range s.parts {
		s.accumulator(p).mergeSealed(part, s.dict)
	}
	s.parts = nil
}
