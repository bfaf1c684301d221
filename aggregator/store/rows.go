package store

import (
	"slices"

	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/sketch"
)

// sumRows are those of an Accumulator, by columns: what is added to a row lies together, and all can be copied at once. They are
// numbered as they came. The zero value has no measures.
type sumRows struct {
	index map[string]int32
	keys  []string // as Accumulator.row writes them
	// numbers of row i begin at i*stride, as those of sealed do. An error is relative: the sum of the row's own errors
	// minus the floors of the tables that it was present in, so that the final error is it + the sum of all floors.
	numbers  []int64
	stride   int
	measures int
	sums     []int // measures that add up
	maxima   []int
	// sketches of row i begin at i*latency; nil if nothing was observed.
	sketches []*sketch.Latency
	latency  int
	// What keys, and sketches that are not nil, take.
	names, bins int64
	free        []*sketch.Latency // empty ones, to be used again
}

// bytes is about what the rows take in memory.
func (r *sumRows) bytes() int64 {
	const key, place = 16, 48 // its place is that in the index
	return r.names + r.bins + int64(cap(r.keys)*key+len(r.keys)*place+8*cap(r.numbers)+8*cap(r.sketches))
}

// sketchBytes is what a sketch takes in memory. It may have from no bin to 2,186, whatever its observations are.
func sketchBytes(l *sketch.Latency) int64 {
	if l == nil {
		return 0
	}
	const empty, bin = 56, 16
	return empty + bin*int64(cap(l.Bins))
}

// newRows returns those of tables with measures, without all but the first latencies.
func newRows(measures []bucket.Measure, latencies int) sumRows {
	r := sumRows{index: map[string]int32{}, stride: len(measures) + 1 + latencyNumbers*latencies, measures: len(measures), latency: latencies}
	for i, m := range measures {
		switch m.Kind {
		case bucket.Sum:
			r.sums = append(r.sums, i)
		case bucket.Max:
			r.maxima = append(r.maxima, i)
		}
	}
	return r
}

// again returns no rows, in the memory of r, which must not be used any more.
func (r *sumRows) again(measures []bucket.Measure, latencies int) sumRows {
	const most = 64 // bins of one that is worth keeping
	out := newRows(measures, latencies)
	out.free = r.free
	for _, l := range r.sketches {
		if l != nil && cap(l.Bins) <= most {
			*l = sketch.Latency{Bins: l.Bins[:0]}
			out.free = append(out.free, l)
		}
	}
	clear(r.index)
	clear(r.keys)
	clear(r.sketches)
	out.index, out.keys, out.numbers, out.sketches = r.index, r.keys[:0], r.numbers[:0], r.sketches[:0]
	return out
}

func (r *sumRows) len() int { return len(r.keys) }

// values are those of row i, by measure.
func (r *sumRows) values(i int) []int64 {
	n := r.numbers[i*r.stride:]
	return n[:r.measures:r.measures]
}

// latencies are the sketches of row i, by latency measure. They must not be changed.
func (r *sumRows) latencies(i int) []*sketch.Latency {
	if r.latency == 0 {
		return nil
	}
	return r.sketches[i*r.latency : (i+1)*r.latency : (i+1)*r.latency]
}

func (r *sumRows) err(i int) *int64 { return &r.numbers[i*r.stride+r.measures] }

// at returns the number of the row of a key. It keeps the key. One that is not there begins with an error.
func (r *sumRows) at(key string, err int64) int {
	if i, ok := r.index[key]; ok {
		return int(i)
	}
	i := len(r.keys)
	r.index[key] = int32(i)
	r.keys = append(r.keys, key)
	r.names += int64(len(key))
	r.numbers = slices.Grow(r.numbers, r.stride)[:len(r.numbers)+r.stride]
	clear(r.numbers[i*r.stride:])
	*r.err(i) = err
	for range r.latency {
		r.sketches = append(r.sketches, nil)
	}
	return i
}

// add adds to row i, as the measures say. It takes no memory of what is added.
func (r *sumRows) add(i int, values []int64, latencies []*sketch.Latency) {
	n := r.numbers[i*r.stride : (i+1)*r.stride]
	for _, c := range r.sums {
		if c < len(values) {
			n[c] = add(n[c], values[c])
		}
	}
	for _, c := range r.maxima {
		if c < len(values) {
			n[c] = max(n[c], values[c])
		}
	}
	if r.latency == 0 || len(latencies) == 0 {
		return
	}
	sketches := r.latencies(i)
	for l, k := range latencies[:min(len(latencies), r.latency)] {
		if k == nil || k.Count == 0 {
			continue
		}
		before := sketchBytes(sketches[l])
		if sketches[l] == nil {
			sketches[l] = r.sketch()
		}
		s := sketches[l]
		s.Merge(k)
		r.bins += sketchBytes(s) - before
		copy(n[r.measures+1+l*latencyNumbers:], []int64{int64(s.Count), int64(s.Sum), s.Min, s.Max})
	}
}

// sketch returns an empty one.
func (r *sumRows) sketch() *sketch.Latency {
	last := len(r.free) - 1
	if last < 0 {
		return new(sketch.Latency)
	}
	l := r.free[last]
	r.free = r.free[:last]
	return l
}

// keep drops all rows but those, which it puts in that order.
func (r *sumRows) keep(order []int) {
	old := *r
	r.index = make(map[string]int32, len(order))
	r.keys, r.numbers = make([]string, 0, len(order)), make([]int64, 0, len(order)*r.stride)
	r.sketches = nil
	r.names, r.bins = 0, 0
	for k, i := range order {
		r.index[old.keys[i]] = int32(k)
		r.keys = append(r.keys, old.keys[i])
		r.numbers = append(r.numbers, old.numbers[i*r.stride:(i+1)*r.stride]...)
		r.names += int64(len(old.keys[i]))
		for _, l := range old.latencies(i) {
			r.sketches = append(r.sketches, l)
			r.bins += sketchBytes(l)
		}
	}
}
