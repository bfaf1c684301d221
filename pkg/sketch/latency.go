// Package sketch holds the bounded summaries that tables are made of.
package sketch

import (
	"math"
	"math/bits"
	"slices"
)

// Latency summarises durations in nanoseconds with a relative accuracy of 1%
// (DDSketch, Masson et al. 2019): any quantile it returns is within 1% of an
// observed value. The zero value is empty and ready to use. It is not safe
// for concurrent use.
//
// Sketches add up without loss: merging the sketches of two halves gives the
// sketch of the whole, bin by bin, in any order, up to 2^64-1 observations. A sketch never has more than
// [MaxBins] bins (35 KB); what HTTP servers do in an interval needs a few dozen.
type Latency struct {
	Count uint64
	Sum   uint64 // nanoseconds, exact; it rests at its largest value instead of wrapping
	Min   int64
	Max   int64
	// Bins holds (index, count), by rising index, without zero counts.
	Bins []Bin
}

// Bin is one bin of a Latency sketch.
type Bin struct {
	Index int32
	Count uint64
}

// The mapping of durations to bins. It is part of the bucket format: a change
// needs a new version of every table with a latency measure.
//
// Bin i >= 0 holds the durations in (bounds[i-1], bounds[i]], where bounds[i]
// is gamma^i rounded down; bin -1 holds zero. The bounds are made by repeated
// multiplication, which IEEE 754 rounds alike on every machine, so two
// machines never disagree about a bin.
const (
	accuracy = 0.01
	gamma    = (1 + accuracy) / (1 - accuracy)

	// MinIndex is the index of the bin of zero, MaxIndex that of the longest
	// duration, 2^63-1 ns.
	MinIndex = -1
	MaxIndex = 2184
	// MaxBins is how many bins there are.
	MaxBins = MaxIndex - MinIndex + 1
)

var (
	bounds [MaxIndex + 1]uint64
	// values[i] stands for bin i: at most 1% from either of its ends.
	values [MaxIndex + 1]float64
	// first[n][m] is the bin of the smallest duration of n bits whose six bits after the
	// highest are m: no more than two bins begin with the same seven bits.
	first [64][64]int16
)

func init() {
	b := 1.0
	for i := range bounds {
		values[i] = b * 2 / (1 + gamma)
		bounds[i] = math.MaxInt64
		if b < math.MaxInt64 {
			bounds[i] = uint64(b)
		}
		b *= gamma
	}
	i := int16(0)
	for n := 1; n < len(first); n++ {
		for m := range uint64(64) {
			for bounds[i] < (64+m)<<57>>(64-n) {
				i++
			}
			first[n][m] = i
		}
	}
}

// Index returns the bin of a duration; a negative one counts as 0.
func Index(ns int64) int32 {
	if ns <= 0 {
		return MinIndex
	}
	v := uint64(ns)
	n := bits.Len64(v)
	i := int32(first[n][v<<(64-n)>>57&63])
	for bounds[i] < v {
		i++
	}
	return i
}

// Add records one duration in nanoseconds; a negative one counts as 0. It
// allocates only when a bin is new and there is no room for it.
func (l *Latency) Add(ns int64) {
	ns = max(ns, 0)
	if l.Count == 0 || ns < l.Min {
		l.Min = ns
	}
	l.Max = max(l.Max, ns)
	l.Count = addSaturating(l.Count, 1)
	l.Sum = addSaturating(l.Sum, uint64(ns))
	index := Index(ns)
	i := l.search(index)
	if i < len(l.Bins) && l.Bins[i].Index == index {
		l.Bins[i].Count = addSaturating(l.Bins[i].Count, 1)
		return
	}
	l.Bins = slices.Insert(l.Bins, i, Bin{index, 1})
}

// search returns the position of the first bin whose index is at least index.
func (l *Latency) search(index int32) int {
	bins := l.Bins
	// No branch that depends on what is found, as there is no foreseeing it.
	lo := 0
	for n := len(bins); n > 0; {
		half := (n + 1) / 2
		lo += half & int((bins[lo+half-1].Index-index)>>31) // all ones if it is less
		n -= half
	}
	return lo
}

// Merge adds o to l and takes no memory of it. A nil o is empty.
func (l *Latency) Merge(o *Latency) {
	if o == nil || o.Count == 0 {
		return
	}
	if l.Count == 0 || o.Min < l.Min {
		l.Min = o.Min
	}
	l.Max = max(l.Max, o.Max)
	l.Count = addSaturating(l.Count, o.Count)
	l.Sum = addSaturating(l.Sum, o.Sum)

	// Merge from the end, in place, as if all bins were new, and close the gap that is left by those that are not. Where there is no room
	// for as many, it is made for those that are.
	n, m := len(l.Bins), len(o.Bins)
	room := m
	if cap(l.Bins)-n < m {
		room = l.missing(o)
		l.Bins = slices.Grow(l.Bins, room)
	}
	l.Bins = l.Bins[:n+room]
	i, j, k := n-1, m-1, n+room-1
	for ; i >= 0 && j >= 0; k-- {
		x, y := l.Bins[i], o.Bins[j]
		switch {
		case x.Index < y.Index:
			l.Bins[k] = y
			j--
		case x.Index > y.Index:
			l.Bins[k] = x
			i--
		default:
			l.Bins[k] = Bin{x.Index, addSaturating(x.Count, y.Count)}
			i--
			j--
		}
	}
	at := i + 1 + copy(l.Bins[i+1:], o.Bins[:j+1])
	l.Bins = l.Bins[:at+copy(l.Bins[at:], l.Bins[k+1:])]
	if l.Count == math.MaxUint64 {
		l.level()
	}
}

// missing counts the bins that o has and l has not.
func (l *Latency) missing(o *Latency) (n int) {
	for i, j := 0, 0; j < len(o.Bins); j++ {
		for i < len(l.Bins) && l.Bins[i].Index < o.Bins[j].Index {
			i++
		}
		if i == len(l.Bins) || l.Bins[i].Index != o.Bins[j].Index {
			n++
		}
	}
	return n
}

// level makes the bins of a sketch whose Count rests at the largest value add up to it again: each keeps about
// its share, and at least one.
func (l *Latency) level() {
	total := 0.0
	for _, b := range l.Bins {
		total += float64(b.Count)
	}
	// A little less than the share, so that rounding never makes the sum too large.
	share := math.MaxUint64 * (1 - 1e-9) / max(total, math.MaxUint64)
	left, largest := l.Count, 0
	for i := range l.Bins {
		b := &l.Bins[i]
		b.Count = max(1, uint64(float64(b.Count)*share))
		left -= b.Count
		if b.Count > l.Bins[largest].Count {
			largest = i
		}
	}
	l.Bins[largest].Count += left
}

// Reset empties l and keeps its memory.
func (l *Latency) Reset() { *l = Latency{Bins: l.Bins[:0]} }

// Clone returns a copy that shares no memory with l; that of nil is nil.
func (l *Latency) Clone() *Latency {
	if l == nil {
		return nil
	}
	c := *l
	c.Bins = slices.Clone(l.Bins)
	return &c
}

// Quantile returns the q-quantile in nanoseconds, or 0 when empty; q is taken
// into [0, 1]. It is within 1% of the smallest observation that at least that share
// of all do not exceed (the nearest rank): of two, the larger is the 99th percentile.
// A nil sketch is empty.
func (l *Latency) Quantile(q float64) int64 {
	if l == nil || l.Count == 0 {
		return 0
	}
	if !(q > 0) {
		return l.Min
	}
	if q >= 1 {
		return l.Max
	}
	rank := math.Ceil(q * float64(l.Count))
	seen := uint64(0)
	for _, b := range l.Bins {
		seen = addSaturating(seen, b.Count)
		if float64(seen) >= rank {
			return min(max(binValue(b.Index), l.Min), l.Max)
		}
	}
	return l.Max
}

// Spread adds the observations to the counts of a histogram: counts[i] gets those above bounds[i-1] and up to
// bounds[i], in nanoseconds and rising, and the last of counts, which is one longer, those above all bounds. A bin counts as a
// whole, so what lies within 1% of a bound may be on its other side; the sum of several sketches spreads as they
// do. A nil sketch is empty.
func (l *Latency) Spread(bounds []int64, counts []uint64) {
	if l == nil {
		return
	}
	i := 0
	for _, b := range l.Bins { // by rising value
		for v := binValue(b.Index); i < len(bounds) && bounds[i] < v; {
			i++
		}
		counts[i] = addSaturating(counts[i], b.Count)
	}
}

// binValue returns the duration that stands for a bin.
func binValue(index int32) int64 {
	if index < 0 || index > MaxIndex {
		return 0
	}
	if v := math.Round(values[index]); v < math.MaxInt64 {
		return int64(v)
	}
	return math.MaxInt64
}

// Mean returns the exact average in nanoseconds, or 0 when empty or nil.
func (l *Latency) Mean() int64 {
	if l == nil || l.Count == 0 {
		return 0
	}
	return int64(min(l.Sum/l.Count, math.MaxInt64))
}

func addSaturating(a, b uint64) uint64 {
	if s := a + b; s >= a {
		return s
	}
	return math.MaxUint64
}
