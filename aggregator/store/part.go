package store

import (
	"encoding/binary"
	"slices"
	"sync"

	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/exchange"
	"github.com/httpctl/httpctl/pkg/sketch"
)

// A Dictionary numbers the keys of the rows that the parts of one plan have, so that adding up parts
// compares no strings. It only grows. The zero value is empty and ready. It is safe for concurrent use.
type Dictionary struct {
	mu    sync.RWMutex
	ids   map[string]uint32
	keys  []string // as Accumulator.row writes them
	bytes int64
}

// keyCost is what a key takes besides its bytes: a string and its place in the map.
const keyCost = 16 + 48

// Bytes is about what the dictionary takes in memory.
func (d *Dictionary) Bytes() int64 {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.bytes
}

// all returns the keys by number. The result is not changed any more.
func (d *Dictionary) all() []string {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.keys[:len(d.keys):len(d.keys)]
}

// number appends the numbers of keys to ids.
func (d *Dictionary) number(ids []uint32, keys []string) []uint32 {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, key := range keys {
		ids = append(ids, d.enter(key))
	}
	return ids
}

// A Part is the sum of what a plan without Step and PerHost asks for over a piece of its time. It is never
// changed, takes a quarter of the memory of a Collector, and is added up many times faster.
type Part struct {
	Slice  // without Table
	sealed *sealed
	dict   *Dictionary
}

// Renumbered returns the part with its keys numbered in another dictionary. It shares all other memory.
func (p *Part) Renumbered(d *Dictionary) *Part {
	if p.dict == d || p.sealed == nil {
		return p
	}
	out, s := *p, *p.sealed
	out.dict, out.sealed = d, &s
	s.ids = d.translate(p.sealed.ids, p.dict.all())
	return &out
}

// translate numbers keys that another dictionary has.
func (d *Dictionary) translate(ids []uint32, keys []string) []uint32 {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make([]uint32, len(ids))
	for i, id := range ids {
		out[i] = d.enter(keys[id])
	}
	return out
}

// enter returns the number of a key. The caller holds the lock.
func (d *Dictionary) enter(key string) uint32 {
	id, ok := d.ids[key]
	if !ok {
		if d.ids == nil {
			d.ids = map[string]uint32{}
		}
		id = uint32(len(d.keys))
		d.ids[key] = id
		d.keys = append(d.keys, key)
		d.bytes += keyCost + int64(len(key))
	}
	return id
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
		other: a.other, floor: a.floor, folded: a.folded, added: a.added, skipped: a.skipped}
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
	b := s.bins[s.offsets[i*s.latencies+l]:]
	next := func() uint64 {
		v, n := binary.Uvarint(b)
		b = b[n:]
		return v
	}
	out.Bins = make([]sketch.Bin, next())
	last := int32(sketch.MinIndex) - 1
	for k := range out.Bins {
		last += int32(next())
		out.Bins[k] = sketch.Bin{Index: last, Count: next()}
	}
	return out
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
	keys := d.all()
	measures := len(b.schema.Measures)
	latencies := make([]*sketch.Latency, b.latencies)
	for k, id := range b.ids {
		i := a.rows.at(keys[id], a.pruned)
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
	n := int64(1024+16*len(p.Hosts)+16*len(p.Covered)+16*len(p.Unobserved)) + 8*int64(exchange.NumCounters)
	if s := p.sealed; s != nil {
		n += s.held + int64(4*cap(s.ids)+8*cap(s.numbers)+cap(s.bins)+4*cap(s.offsets)+8*cap(s.sketches))
		for _, h := range s.total {
			n += int64(8 * cap(h))
		}
		for _, l := range s.other.Latency {
			n += sketchBytes(l)
		}
	}
	return n
}

// Rows counts the rows.
func (p *Part) Rows() int {
	if p.sealed == nil {
		return 0
	}
	return len(p.sealed.ids)
}

// Part returns what the Collector has collected, which must be Whole and of a plan without Step and PerHost. It has the memory
// of the Collector, which must not be used afterwards. Its rows are numbered in d, which is that of all parts that it is to be added up with.
func (c *Collector) Part(d *Dictionary) *Part {
	p := &Part{dict: d}
	for _, s := range c.slices { // one at most
		s.flatten()
		p.Slice = s.Slice
		p.Covered, p.Unobserved = bucket.MergeSpans(s.Covered), bucket.MergeSpans(s.Unobserved)
		p.Hosts = s.sortedHosts()
		p.sealed = s.sum.seal(d)
	}
	return p
}

// AddPart adds a part that begins at start, and must fit the plan: see Plan.Fits. It keeps the part.
func (c *Collector) AddPart(start int64, p *Part) {
	if p.Buckets == 0 {
		return
	}
	s := c.slice(&bucket.Header{Name: bucket.Name{Start: start}})
	s.Buckets += p.Buckets
	s.Counters.Add(&p.Counters)
	s.lists = append(s.lists, p.Hosts)
	for _, span := range p.Covered {
		s.Covered = extend(s.Covered, span)
	}
	s.declare(p.Unobserved)
	if s.dict == nil {
		s.dict = p.dict
	}
	s.parts = append(s.parts, p.Renumbered(s.dict).sealed)
}

// flatten adds the parts to the sum.
func (s *collected) flatten() {
	for _, p := range s.parts {
		s.sum.mergeSealed(p, s.dict)
	}
	s.parts = nil
}
