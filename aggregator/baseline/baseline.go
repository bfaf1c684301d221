package baseline

import (
	"math"
	"math/bits"
	"slices"
	"time"

	"github.com/httpctl/httpctl/pkg/bucket"
)

// Learning is where the learning of one scope stands. It is a value: its
// methods return the next one. The zero value has not begun.
type Learning struct {
	Scope Scope
	// Origin is the T0 that was asked for; From is the T0 in force, which
	// moves on when learning restarts. Restarts counts how often.
	Origin, From int64
	Restarts     uint32
	// Duration is T1 - T0; Window is the width of the windows to be judged.
	Duration, Window time.Duration
	// Enforced says that learning ended and Result holds.
	Enforced bool
	Result   Result
}

// Result is what was learned.
type Result struct {
	// Baseline is the number of requests a window normally has, 1 or more.
	Baseline int64
	// Requests were counted while Covered was observed.
	Requests int64
	Covered  time.Duration
	// Hosts are those that it was learned from, sorted.
	Hosts []bucket.ID
}

// Observed is what the fleet saw in a stretch of time.
type Observed struct {
	// Requests counts request events.
	Requests int64
	// Covered is how long at least one host was observed; see [Covered].
	Covered time.Duration
	// Hosts are those with coverage in it, in any order.
	Hosts []bucket.ID
}

// Begin starts learning at t0, which must be the start of an interval.
func Begin(scope Scope, t0 int64, duration, window time.Duration) Learning {
	return Learning{Scope: scope, Origin: t0, From: t0, Duration: duration, Window: window}
}

// Begun reports whether T0 is known.
func (l Learning) Begun() bool { return l.Duration > 0 }

// Until is T1: the end of learning, from where windows tile.
func (l Learning) Until() int64 { return l.From + int64(l.Duration) }

// Close ends learning with what was observed in [From, Until). It enforces the
// baseline, or, if that is zero or nothing was covered, starts again with
// T0 := T1. A Learning that is enforced is returned unchanged.
func (l Learning) Close(o Observed) Learning {
	if l.Enforced {
		return l
	}
	b := Rate(o.Requests, l.Window, o.Covered)
	if b == 0 {
		l.From, l.Restarts = l.Until(), l.Restarts+1
		return l
	}
	hosts := slices.Clone(o.Hosts)
	slices.SortFunc(hosts, bucket.ID.Compare)
	l.Enforced = true
	l.Result = Result{Baseline: b, Requests: o.Requests, Covered: o.Covered, Hosts: slices.Compact(hosts)}
	return l
}

// Skip is as many Close(Observed{}) as it takes for Until to pass t: it restarts
// through a time of which it is known that nothing was covered.
func (l Learning) Skip(t int64) Learning {
	if l.Enforced || l.Duration <= 0 || t < l.Until() {
		return l
	}
	n := (t - l.From) / int64(l.Duration)
	l.From += n * int64(l.Duration)
	l.Restarts = uint32(min(int64(l.Restarts)+n, math.MaxUint32))
	return l
}

// Knows reports whether the baseline was learned from the host.
func (l Learning) Knows(host bucket.ID) bool {
	_, ok := slices.BinarySearchFunc(l.Result.Hosts, host, bucket.ID.Compare)
	return ok
}

// Rate returns requests * window / covered, half rounded up, in integers: the
// number of requests expected in a window. It is 0 when nothing was covered
// and saturates at the largest int64.
func Rate(requests int64, window, covered time.Duration) int64 {
	if requests <= 0 || window <= 0 || covered <= 0 {
		return 0
	}
	c := uint64(covered)
	hi, lo := bits.Mul64(uint64(requests), uint64(window))
	if hi >= c {
		return math.MaxInt64
	}
	q, r := bits.Div64(hi, lo, c)
	if q >= math.MaxInt64 {
		return math.MaxInt64
	}
	if r >= c-r {
		q++
	}
	return int64(q)
}

// FirstWhole returns the start of the first whole interval at or after t.
func FirstWhole(t int64, width time.Duration) int64 {
	w := int64(width)
	r := t % w
	if r < 0 {
		r += w
	}
	if r == 0 {
		return t
	}
	return t - r + w
}
