package sketch

import (
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/DataDog/sketches-go/ddsketch"
)

var quantiles = []float64{0, 0.01, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1}

func TestIndexHoldsItsAccuracy(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	check := func(ns int64) {
		t.Helper()
		i := Index(ns)
		if i < 0 || i > MaxIndex {
			t.Fatalf("Index(%d) = %d, want within [0, %d]", ns, i, MaxIndex)
		}
		// Half a nanosecond is what rounding to integers may add.
		if d := math.Abs(float64(binValue(i)) - float64(ns)); d > accuracy*float64(ns)*(1+1e-9)+0.5 {
			t.Fatalf("bin %d of %d stands for %d: off by %.2f%%", i, ns, binValue(i), 100*d/float64(ns))
		}
		if i > 0 && (bounds[i-1] >= uint64(ns) || bounds[i] < uint64(ns)) {
			t.Fatalf("Index(%d) = %d, which holds (%d, %d]", ns, i, bounds[i-1], bounds[i])
		}
	}
	for ns := int64(1); ns < 5000; ns++ {
		check(ns)
	}
	for n := range 63 {
		for d := int64(-2); d <= 2; d++ { // around powers of two
			if v := int64(1)<<n + d; v > 0 {
				check(v)
			}
		}
		for range 200 {
			check(1<<n + r.Int64N(1<<n))
		}
	}
	check(math.MaxInt64)
	if got := Index(0); got != MinIndex {
		t.Errorf("Index(0) = %d, want %d", got, MinIndex)
	}
	if got := Index(math.MinInt64); got != MinIndex {
		t.Errorf("Index(MinInt64) = %d, want %d", got, MinIndex)
	}
	if got := Index(math.MaxInt64); got != MaxIndex {
		t.Errorf("Index(MaxInt64) = %d, want %d", got, MaxIndex)
	}
}

// TestQuantileAgainstReference compares with the exact order statistics and
// with DataDog's sketch of the same accuracy.
func TestQuantileAgainstReference(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for name, draw := range map[string]func() int64{
		"lognormal": func() int64 { return int64(math.Exp(r.NormFloat64()*1.5 + 14)) },
		"uniform":   func() int64 { return r.Int64N(1e9) },
		"bimodal":   func() int64 { return []int64{200_000, 3_000_000_000}[r.IntN(2)] + r.Int64N(1000) },
		"constant":  func() int64 { return 5_000_000 },
		"zeros":     func() int64 { return int64(r.IntN(3)) },
	} {
		t.Run(name, func(t *testing.T) {
			var l Latency
			reference, err := ddsketch.NewDefaultDDSketch(accuracy)
			if err != nil {
				t.Fatal(err)
			}
			var all []int64
			sum := uint64(0)
			for range 20_000 {
				v := draw()
				all = append(all, v)
				sum += uint64(v)
				l.Add(v)
				if err := reference.Add(float64(v)); err != nil {
					t.Fatal(err)
				}
			}
			slices.Sort(all)
			if l.Count != 20_000 || l.Sum != sum || l.Min != all[0] || l.Max != all[len(all)-1] {
				t.Errorf("count, sum, min, max = %d, %d, %d, %d, want 20000, %d, %d, %d",
					l.Count, l.Sum, l.Min, l.Max, sum, all[0], all[len(all)-1])
			}
			if got, want := l.Mean(), int64(sum/20_000); got != want {
				t.Errorf("Mean() = %d, want %d", got, want)
			}
			for _, q := range quantiles {
				rank := int(max(math.Ceil(q*float64(len(all))), 1)) // from 1
				exact := float64(all[rank-1])
				got := float64(l.Quantile(q))
				if math.Abs(got-exact) > accuracy*exact+0.5 {
					t.Errorf("Quantile(%v) = %v, want %v within 1%%", q, got, exact)
				}
				other, err := reference.GetValueAtQuantile(min((float64(rank-1)+0.5)/float64(len(all)-1), 1)) // its ranks are from 0, rounded down
				if err != nil {
					t.Fatal(err)
				}
				if math.Abs(got-other) > 2*accuracy*other+1 {
					t.Errorf("Quantile(%v) = %v, the reference says %v", q, got, other)
				}
			}
		})
	}
}

func TestMergeEqualsTheWhole(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 200 {
		var whole Latency
		parts := make([]Latency, 1+r.IntN(6))
		for range r.IntN(300) {
			v := int64(math.Exp(r.Float64() * 30))
			whole.Add(v)
			parts[r.IntN(len(parts))].Add(v)
		}
		before := parts[len(parts)-1].Clone()
		var merged Latency
		for _, i := range r.Perm(len(parts)) {
			merged.Merge(&parts[i])
		}
		if len(whole.Bins) == 0 {
			whole.Bins, merged.Bins = nil, nil
		}
		if !reflect.DeepEqual(merged, whole) {
			t.Fatalf("merge of parts = %+v, want %+v", merged, whole)
		}
		// What was merged shares no memory.
		for i := range merged.Bins {
			merged.Bins[i].Count += 7
		}
		if !reflect.DeepEqual(before, &parts[len(parts)-1]) {
			t.Fatal("changing a merged sketch changed its part")
		}
	}
}

// TestMergeRestsAtTheLargestCount: bins add up to the count whatever is merged.
func TestMergeRestsAtTheLargestCount(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 11))
	for range 200 {
		var merged Latency
		for range 1 + r.IntN(5) {
			var l Latency
			for range 1 + r.IntN(50) {
				l.Add(r.Int64N(1 << (1 + r.IntN(62))))
			}
			big := &l.Bins[r.IntN(len(l.Bins))]
			more := (math.MaxUint64 - l.Count) >> r.IntN(3)
			big.Count += more
			l.Count += more
			merged.Merge(&l)
			total := uint64(0)
			for _, b := range merged.Bins {
				if b.Count == 0 || total+b.Count < total {
					t.Fatalf("bins of %d wrap or are empty: %v", merged.Count, merged.Bins)
				}
				total += b.Count
			}
			if total != merged.Count || merged.Bins[0].Index != Index(merged.Min) || merged.Bins[len(merged.Bins)-1].Index != Index(merged.Max) {
				t.Fatalf("bins add up to %d from %d to %d, want %d from %d to %d", total, merged.Bins[0].Index,
					merged.Bins[len(merged.Bins)-1].Index, merged.Count, Index(merged.Min), Index(merged.Max))
			}
		}
	}
}

func TestEmpty(t *testing.T) {
	var none *Latency
	var zero Latency
	for _, l := range []*Latency{none, &zero} {
		if l.Quantile(0.5) != 0 || l.Mean() != 0 {
			t.Errorf("an empty sketch has median %d and mean %d, want 0 and 0", l.Quantile(0.5), l.Mean())
		}
	}
	zero.Merge(nil)
	zero.Add(-5)
	if zero.Count != 1 || zero.Min != 0 || zero.Max != 0 || zero.Quantile(0.5) != 0 {
		t.Errorf("after Add(-5): %+v, want one observation of 0", zero)
	}
	zero.Reset()
	if zero.Count != 0 || len(zero.Bins) != 0 {
		t.Errorf("after Reset: %+v, want empty", zero)
	}
}

func TestBinsAreBounded(t *testing.T) {
	var l Latency
	for i := range bounds {
		l.Add(int64(bounds[i]))
	}
	r := rand.New(rand.NewPCG(7, 8))
	for range 100_000 {
		l.Add(r.Int64N(math.MaxInt64) >> r.IntN(63))
	}
	l.Add(0)
	if len(l.Bins) > MaxBins {
		t.Errorf("%d bins, want at most %d", len(l.Bins), MaxBins)
	}
	if l.Sum != math.MaxUint64 {
		t.Errorf("sum wrapped to %d, want it to rest at the largest value", l.Sum)
	}
}

// TestSpread compares with the durations themselves, none of which is near a bound.
func TestSpread(t *testing.T) {
	bounds := []int64{1000, 5000, 1e6}
	f := func(want []uint64, durations ...int64) {
		t.Helper()
		var l Latency
		for _, d := range durations {
			l.Add(d)
		}
		got := make([]uint64, len(bounds)+1)
		if l.Spread(bounds, got); !slices.Equal(got, want) {
			t.Errorf("Spread of %v = %v, want %v", durations, got, want)
		}
	}
	f([]uint64{0, 0, 0, 0})
	f([]uint64{3, 1, 2, 1}, 0, 1, 900, 1100, 5100, 900_000, 1_100_000)
	f([]uint64{0, 0, 0, 2}, 1<<62, 1<<62)
	var none *Latency
	counts := []uint64{1, 2, 3, 4}
	if none.Spread(bounds, counts); !slices.Equal(counts, []uint64{1, 2, 3, 4}) {
		t.Errorf("Spread of nil changed the counts to %v", counts)
	}
}

func TestAddDoesNotAllocate(t *testing.T) {
	var l Latency
	for v := int64(1); v < 1e10; v += v/100 + 1 {
		l.Add(v)
	}
	v := int64(1)
	if n := testing.AllocsPerRun(1000, func() { v = v*7%9_999_999_937 + 1; l.Add(v) }); n != 0 {
		t.Errorf("Add allocates %v times, want 0", n)
	}
}

func BenchmarkLatencyAdd(b *testing.B) {
	r := rand.New(rand.NewPCG(9, 10))
	values := make([]int64, 1<<20) // more than a processor learns
	for i := range values {
		values[i] = int64(math.Exp(r.NormFloat64() + 14))
	}
	var l Latency
	i := 0
	for b.Loop() {
		l.Add(values[i&(1<<20-1)])
		i++
	}
	b.ReportMetric(float64(len(l.Bins)), "bins")
}
