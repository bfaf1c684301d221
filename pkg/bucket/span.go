package bucket

import (
	"cmp"
	"slices"
	"time"
)

// MaxTime is the latest time that a bucket may speak of, 2200-01-01 in nanoseconds since the epoch. Nanoseconds end in
// 2262; until here the end of a day, or of a window, can be added up to. An aggregator refuses what is beyond.
const MaxTime = 7258118400 * int64(time.Second)

// Span is a half-open stretch of time [From, To), nanoseconds since the epoch.
type Span struct{ From, To int64 }

// MergeSpans sorts spans and joins those that touch or overlap; empty ones go.
// The result takes the argument's memory.
func MergeSpans(spans []Span) []Span {
	slices.SortFunc(spans, func(x, y Span) int { return cmp.Compare(x.From, y.From) })
	out := spans[:0]
	for _, s := range spans {
		switch n := len(out); {
		case s.From >= s.To:
		case n > 0 && s.From <= out[n-1].To:
			out[n-1].To = max(out[n-1].To, s.To)
		default:
			out = append(out, s)
		}
	}
	return out
}
