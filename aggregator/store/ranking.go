package store

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"sync"
	"unsafe"

	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/sketch"
)

// ranking finds the first rows of parts of one schema, and what the others hold, without a row for each of these: it goes through
// the column of the parts that it ranks by, and then through their keys for those of the first. All others together are what is left of
// the totals.
type ranking struct {
	parts  []*sealed
	keys   names
	column int
	values []int64 // of column, by key
	place  []int32 // among the first, plus 1, by key
	bins   *bins
}

// scratch is used again, as it is a few hundred KB of some ten thousand names. It is all 0.
type scratch struct {
	values []int64
	place  []int32
	bins   bins
}

// bins add up those of latencies. The zero value is empty.
type bins struct {
	counts    [sketch.MaxBins]uint64
	from, end int // of those that are not 0; both are 0 if there is none
}

func (b *bins) add(index int32, n uint64) {
	i := int(index - sketch.MinIndex)
	if b.counts[i] += n; b.end == 0 {
		b.from = i
	}
	b.from, b.end = min(b.from, i), max(b.end, i+1)
}

// take returns the latency with these bins and those numbers, and empties b.
func (b *bins) take(n []int64) *sketch.Latency {
	out := &sketch.Latency{Count: uint64(n[0]), Sum: uint64(n[1]), Min: n[2], Max: n[3]}
	counts, there := b.counts[b.from:b.end], 0
	for _, n := range counts {
		if n > 0 {
			there++
		}
	}
	if there > 0 {
		out.Bins = make([]sketch.Bin, 0, there)
	}
	for i, n := range counts {
		if n > 0 {
			out.Bins = append(out.Bins, sketch.Bin{Index: int32(b.from+i) + sketch.MinIndex, Count: n})
		}
	}
	clear(counts)
	b.from, b.end = 0, 0
	return out
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
		column := p.column(r.column)
		if largest {
			for i, id := range p.ids {
				r.values[id] = max(r.values[id], column[i])
			}
			continue
		}
		for i, id := range p.ids {
			r.values[id] = add(r.values[id], column[i])
		}
	}
	order := func(x, y uint32) int {
		if c := cmp.Compare(r.values[y], r.values[x]); c != 0 {
			return c
		}
		return compareKeys(r.keys.at(x), r.keys.at(y))
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
	var few keySet
	for k, id := range ids {
		r.place[id] = int32(k + 1)
		few.add(id)
	}
	rest := numbers[:like.stride]
	var found []rowOf
	for _, p := range r.parts {
		of := len(found)
		for i, id := range p.ids {
			if !few.may(id) || r.place[id] == 0 {
				continue
			}
			k := int(r.place[id])
			found = append(found, rowOf{k - 1, p, i})
			addNumbers(numbers[k*p.stride:(k+1)*p.stride], p.numbers[i*p.stride:(i+1)*p.stride], measures)
		}
		p.addRest(rest, found[of:])
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
		row := &bucket.Row{Keys: splitKey(make([]string, len(like.out.Keys)), strings.Clone(r.keys.at(id))), Values: slices.Clone(n[:len(measures)]), Err: max(0, add(n[len(measures)], out.Floor))}
		if like.latencies > 0 {
			row.Latency = make([]*sketch.Latency, like.latencies)
		}
		out.Rows = append(out.Rows, row)
	}
	copy(out.Rest.Values, numbers[:len(measures)])
	if like.latencies > 0 {
		slices.SortStableFunc(found, func(x, y rowOf) int { return cmp.Compare(x.first, y.first) })
		r.latencies(out, found, numbers)
	}
	addRow(measures, &out.Rest, &out.Folded)
	return out, true
}

// rowOf is the row of a part that is one of the first.
type rowOf struct {
	first int
	part  *sealed
	row   int
}

// latencies fills in the latencies of the first rows, of which found are sorted by them, and of all others, whose bins are those of all rows but those. numbers are
// those of rank.
func (r *ranking) latencies(out *Ranked, found []rowOf, numbers []int64) {
	like := r.parts[0]
	for l := range like.latencies {
		at := len(like.schema.Measures) + 1 + l*latencyNumbers
		for i, f := range found {
			f.part.addBins(r.bins, f.row, l)
			if i+1 < len(found) && found[i+1].first == f.first {
				continue
			}
			if k := r.bins.take(numbers[(f.first+1)*like.stride+at:]); k.Count != 0 {
				out.Rows[f.first].Latency[l] = k
			}
		}
		for _, p := range r.parts {
			for i, n := range p.total[l] {
				if n > 0 {
					r.bins.add(int32(i)+sketch.MinIndex, n)
				}
			}
		}
		for _, row := range out.Rows {
			if row.Latency[l] != nil {
				for _, b := range row.Latency[l].Bins {
					r.bins.counts[b.Index-sketch.MinIndex] -= b.Count
				}
			}
		}
		out.Rest.Latency[l] = r.bins.take(numbers[at:])
	}
}

// addBins adds those of the l-th latency of row i.
func (s *sealed) addBins(to *bins, i, l int) {
	if s.sketches != nil {
		if k := s.sketches[i*s.latencies+l]; k != nil {
			for _, b := range k.Bins {
				to.add(b.Index, b.Count)
			}
		}
		return
	}
	for b := range s.packed(i, l) {
		to.add(b.Index, b.Count)
	}
}

// keySet is a set of a few keys that may have others, too.
type keySet [64]uint64

func (s *keySet) add(id uint32) { s[id/64%64] |= 1 << (id % 64) }

func (s *keySet) may(id uint32) bool { return s[id/64%64]&(1<<(id%64)) != 0 }

// columns are those of the numbers of a sum, each made when it is first asked for: to go through one takes an eighth of the memory that
// all rows have. It is safe for concurrent use.
type columns struct {
	mu    sync.Mutex
	of    [][]int64 // by place in a row; nil is not made yet
	total []int64   // of all rows, for what adds up; nil is not made yet
	whole bool      // no total has come to rest at the largest number
}

// column returns that of a place in the rows. It must not be changed.
func (s *sealed) column(c int) []int64 {
	s.columns.mu.Lock()
	defer s.columns.mu.Unlock()
	if s.columns.of == nil {
		s.columns.of = make([][]int64, s.stride)
	}
	of := &s.columns.of[c]
	if *of == nil {
		*of = make([]int64, len(s.ids))
		for i := range *of {
			(*of)[i] = s.numbers[i*s.stride+c]
		}
	}
	return *of
}

// columnBytes is what they take in memory once a list is ranked by one of them, whether it was already or not.
func (s *sealed) columnBytes() int64 {
	const list = 24
	columns := 1 + 3*int64(s.latencies)
	for _, m := range s.schema.Measures {
		if m.Kind == bucket.Max {
			columns++
		}
	}
	return int64(unsafe.Sizeof(*s.columns)) + int64(8+list)*int64(s.stride) + 8*columns*int64(len(s.ids))
}

// totals returns the sums of the columns that add up, and false where one has come to rest at the largest number.
func (s *sealed) totals() ([]int64, bool) {
	c := s.columns
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.total == nil {
		c.total, c.whole = make([]int64, s.stride), true
		measures := s.schema.Measures
		for i := range s.ids {
			row := s.numbers[i*s.stride : (i+1)*s.stride]
			for k := range measures {
				if measures[k].Kind == bucket.Sum {
					c.total[k] = add(c.total[k], row[k])
				}
			}
			c.total[len(measures)] += row[len(measures)]
			for k := len(measures) + 1; k < s.stride; k += latencyNumbers {
				c.total[k], c.total[k+1] = addUnsigned(c.total[k], row[k]), addUnsigned(c.total[k+1], row[k+1])
			}
		}
		c.whole = s.fits(c.total)
	}
	return c.total, c.whole
}

// fits reports whether none of the numbers that add up has come to rest.
func (s *sealed) fits(n []int64) bool {
	for k, m := range s.schema.Measures {
		if m.Kind == bucket.Sum && n[k] == math.MaxInt64 {
			return false
		}
	}
	for k := len(s.schema.Measures) + 1; k < s.stride; k += latencyNumbers {
		if n[k] == -1 || n[k+1] == -1 { // of what is unsigned the largest
			return false
		}
	}
	return true
}

// addRest adds all rows but those, which are sorted, to numbers.
func (s *sealed) addRest(to []int64, but []rowOf) {
	total, whole := s.totals()
	if !whole {
		for i := range s.ids {
			if len(but) > 0 && but[0].row == i {
				but = but[1:]
				continue
			}
			addNumbers(to, s.numbers[i*s.stride:(i+1)*s.stride], s.schema.Measures)
		}
		return
	}
	rest := slices.Clone(total)
	measures := len(s.schema.Measures)
	for _, b := range but {
		row := s.numbers[b.row*s.stride : (b.row+1)*s.stride]
		for k, m := range s.schema.Measures {
			if m.Kind == bucket.Sum {
				rest[k] -= row[k]
			}
		}
		rest[measures] -= row[measures]
		for k := measures + 1; k < s.stride; k += latencyNumbers {
			rest[k], rest[k+1] = rest[k]-row[k], rest[k+1]-row[k+1]
		}
	}
	for k := measures + 1; k < s.stride; k += latencyNumbers {
		rest[k+2] = math.MaxInt64 // the least of none
	}
	from := 0
	for at := range len(but) + 1 {
		end := len(s.ids)
		if at < len(but) {
			end = but[at].row
		}
		s.addExtremes(rest, from, end)
		from = end + 1
	}
	addNumbers(to, rest, s.schema.Measures)
}

// addExtremes notes the largest, and of latencies the least, of the rows from one to another.
func (s *sealed) addExtremes(to []int64, from, end int) {
	if from >= end {
		return
	}
	for k, m := range s.schema.Measures {
		if m.Kind == bucket.Max {
			to[k] = max(to[k], slices.Max(s.column(k)[from:end]))
		}
	}
	for k := len(s.schema.Measures) + 1; k < s.stride; k += latencyNumbers {
		count, least, most := s.column(k), s.column(k+2), s.column(k+3)
		for i := from; i < end; i++ {
			if count[i] != 0 {
				to[k+2], to[k+3] = min(to[k+2], least[i]), max(to[k+3], most[i])
			}
		}
	}
}
