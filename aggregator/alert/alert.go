package alert

import (
	"cmp"
	"math/bits"
	"slices"
	"time"

	"github.com/httpctl/httpctl/aggregator/baseline"
	"github.com/httpctl/httpctl/pkg/bucket"
)

// Status is a state of the rule.
type Status uint8

// The states. The zero value is Learning.
const (
	Learning Status = iota
	Normal
	Alert
	Dismissed
)

var statusNames = [...]string{"learning", "normal", "alert", "dismissed"}

// String returns "learning", "normal", "alert" or "dismissed".
func (s Status) String() string {
	if int(s) < len(statusNames) {
		return statusNames[s]
	}
	return "unknown"
}

// State is the machine of one scope. It is a value: functions return the next
// one and change nothing that the given one shows. The zero value learns.
type State struct {
	Scope  baseline.Scope
	Status Status
	// Since is when Status began: the end of the window, the end of learning,
	// or the boundary that made it. 0 for the first learning.
	Since int64
	// Until is when event time alone ends Status: the boundary for Dismissed,
	// the end of learning once the baseline is enforced. Otherwise 0.
	Until int64
	// Through is the end of the last window judged or skipped, 0 if none.
	Through int64
	// Open is the alert under way; its End is 0. It is zero unless Status is Alert.
	Open Episode
	// Closed are the episodes that ended, oldest first.
	Closed []Episode
}

// Episode is one alert, from the end of its first alerting window to the end
// of the dismissing one.
type Episode struct {
	Start int64
	End   int64 // 0 while open
	// Baseline and Threshold (percent) that raised it.
	Baseline, Threshold int64
	// Entries are the windows that raised and continued it, oldest first, as
	// far as history reaches.
	Entries []Entry
}

// Entry is one window of an episode.
type Entry struct {
	Time int64 // end of the window
	Hits int64
	// LateHits arrived after the verdict, and are not in Hits.
	LateHits int64
	// Incomplete: judged without a host that was waited for.
	Incomplete bool
	// Joined are the hosts that contributed and that the baseline was not learned from.
	Joined []bucket.ID
}

// Duration is End - Start, 0 while open.
func (e Episode) Duration() time.Duration {
	if e.End == 0 {
		return 0
	}
	return time.Duration(e.End - e.Start)
}

// Joined names the hosts, sorted, that contributed to any entry and that the
// baseline was not learned from.
func (e Episode) Joined() []bucket.ID {
	var out []bucket.ID
	for _, x := range e.Entries {
		out = append(out, x.Joined...)
	}
	slices.SortFunc(out, bucket.ID.Compare)
	return slices.Compact(out)
}

// Window is what the rule judges.
type Window struct {
	From, To int64
	// Count is the number of requests in it.
	Count int64
	// Baseline is what is normal, Threshold how many percent more are allowed.
	Baseline, Threshold int64
	// Interval is the width of an interval (dashboard_bucket_size); Dismissed lasts to its next
	// boundary.
	Interval time.Duration
	// Hosts are those whose coverage contained the window, Missing those
	// waited for in vain, Joined those counted that the baseline was not learned from. Sorted.
	Hosts, Missing, Joined []bucket.ID
	// Damaged says that stored data of the window could not be read.
	Damaged bool
}

// Incomplete reports whether the window is judged without something that
// should be in it. Such a window may raise or continue an alert and never
// dismisses one.
func (w Window) Incomplete() bool { return len(w.Missing) > 0 || w.Damaged }

// Above reports whether count is more than threshold percent above baseline:
// (count - baseline) * 100 > threshold * baseline, computed without overflow.
// At the threshold it is false. Negative arguments count as 0.
func Above(count, base, threshold int64) bool {
	count, base, threshold = max(count, 0), max(base, 0), max(threshold, 0)
	if count <= base {
		return false // the left side is not positive, the right side not negative
	}
	lh, ll := bits.Mul64(uint64(count-base), 100)
	rh, rl := bits.Mul64(uint64(threshold), uint64(base))
	return lh > rh || lh == rh && ll > rl
}

// Limit is the largest count that does not alert: baseline plus threshold
// percent, rounded down. It saturates at the largest int64.
func Limit(base, threshold int64) int64 {
	base, threshold = max(base, 0), max(threshold, 0)
	const most = 1<<63 - 1
	hi, lo := bits.Mul64(uint64(threshold), uint64(base))
	if hi >= 100 {
		return most
	}
	extra, _ := bits.Div64(hi, lo, 100)
	if extra > uint64(most-base) {
		return most
	}
	return base + int64(extra)
}

// Judge takes s over a window and returns the next State and its Record for
// the journal. The caller sees to it that windows come in order, and only
// once the baseline is enforced.
func Judge(s State, w Window) (State, Record) {
	r := Record{Kind: KindVerdict, Scope: s.Scope, Window: w, Above: Above(w.Count, w.Baseline, w.Threshold)}
	return step(s, r)
}

// Skip takes s over [from, to), in which no host was observed: nothing is
// judged, so an alert stays, and the next window begins at to.
func Skip(s State, from, to int64) (State, Record) {
	r := Record{Kind: KindGap, Scope: s.Scope, Window: Window{From: from, To: to}}
	return step(s, r)
}

// Learned tells s that the baseline is enforced from t1 on.
func Learned(s State, t1 int64) (State, Record) {
	r := Record{Kind: KindLearned, Scope: s.Scope, Window: Window{From: t1, To: t1}}
	return step(s, r)
}

// Relearn starts a new machine that learns from t0 on. An open episode ends at
// t0, or where it began if that is later; history stays.
func Relearn(s State, t0 int64) (State, Record) {
	r := Record{Kind: KindRelearn, Scope: s.Scope, Window: Window{From: t0, To: t0}}
	return step(s, r)
}

func step(s State, r Record) (State, Record) {
	s = s.clone()
	s.apply(&r)
	r.After = s.snapshot()
	return s, r
}

// Advance returns what s is when event time has come to t: learning that is
// enforced, or a dismissal, turns normal at Until.
func Advance(s State, t int64) State {
	if s.Until != 0 && t >= s.Until && (s.Status == Learning || s.Status == Dismissed) {
		s.Status, s.Since, s.Until = Normal, s.Until, 0
	}
	return s
}

// Annotate notes that late requests arrived for the window that ended at to,
// after its verdict. It changes nothing else.
func Annotate(s State, to, late int64) State {
	s = s.clone()
	note := func(e *Episode) {
		i, ok := slices.BinarySearchFunc(e.Entries, to, func(x Entry, t int64) int { return cmp.Compare(x.Time, t) })
		if ok && e.Entries[i].LateHits != late {
			e.Entries = slices.Clone(e.Entries)
			e.Entries[i].LateHits = late
		}
	}
	for i := range s.Closed {
		note(&s.Closed[i])
	}
	note(&s.Open)
	return s
}

// Trim forgets the episodes that ended, and the entries of windows that ended, at or before t.
func Trim(s State, t int64) State {
	s = s.clone()
	s.Closed = slices.DeleteFunc(s.Closed, func(e Episode) bool { return e.End <= t })
	trim := func(e *Episode) {
		n, _ := slices.BinarySearchFunc(e.Entries, t+1, func(x Entry, t int64) int { return cmp.Compare(x.Time, t) })
		if e.Entries = slices.Clone(e.Entries[n:]); len(e.Entries) == 0 {
			e.Entries = nil
		}
	}
	for i := range s.Closed {
		trim(&s.Closed[i])
	}
	trim(&s.Open)
	return s
}

// History returns the episodes of s that overlap [from, to), newest first; an
// open one lasts. A to of 0 is no bound.
func (s State) History(from, to int64) []Episode {
	var out []Episode
	for _, e := range append(slices.Clip(s.Closed), s.Open) {
		if e.Start != 0 && (to == 0 || e.Start < to) && (e.End == 0 || e.End > from) {
			out = append(out, e)
		}
	}
	slices.Reverse(out)
	return out
}

// Durations returns the longest and the average duration of the closed
// episodes; both are 0 when there is none.
func Durations(episodes []Episode) (longest, average time.Duration) {
	var sum, n int64
	for _, e := range episodes {
		if e.End != 0 {
			longest = max(longest, e.Duration())
			sum += int64(e.Duration()) // of episodes that do not overlap: no more than the time that passed
			n++
		}
	}
	if n > 0 {
		average = time.Duration(sum / n)
	}
	return longest, average
}
