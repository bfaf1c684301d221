package baseline

import (
	"slices"
	"time"

	"github.com/httpctl/httpctl/pkg/bucket"
)

// HostCoverage is what one host's buckets say of a stretch of time.
type HostCoverage struct {
	// Covered are the intervals for which there are buckets; Unobserved is
	// what those buckets say was not watched. In any order, overlaps allowed.
	Covered, Unobserved []bucket.Span
}

// Covered returns for how much of [from, to) at least one host watched: the
// union of the hosts' intervals without what every one of them declares unobserved.
func Covered(hosts []HostCoverage, from, to int64) time.Duration {
	var all []bucket.Span
	for _, h := range hosts {
		all = append(all, subtract(union(h.Covered), union(h.Unobserved))...)
	}
	var sum int64
	for _, s := range bucket.MergeSpans(all) {
		s.From, s.To = max(s.From, from), min(s.To, to)
		if s.From < s.To {
			sum += s.To - s.From
		}
	}
	return time.Duration(sum)
}

// union joins spans in new memory.
func union(spans []bucket.Span) []bucket.Span { return bucket.MergeSpans(slices.Clone(spans)) }

// subtract returns a without b; both are unions.
func subtract(a, b []bucket.Span) []bucket.Span {
	var out []bucket.Span
	for _, s := range a {
		for len(b) > 0 && b[0].To <= s.From {
			b = b[1:]
		}
		for _, cut := range b {
			if cut.From >= s.To {
				break
			}
			if cut.From > s.From {
				out = append(out, bucket.Span{From: s.From, To: cut.From})
			}
			s.From = max(s.From, cut.To)
		}
		if s.From < s.To {
			out = append(out, s)
		}
	}
	return out
}
