package query

import (
	"cmp"
	"slices"

	"github.com/httpctl/httpctl/pkg/bucket"
	httpctlv1 "github.com/httpctl/httpctl/proto/httpctl/v1"
)

// coverage tells for which part of a range there is data. covered is merged.
func coverage(covered []bucket.Span) *httpctlv1.Coverage {
	out := &httpctlv1.Coverage{CoveredNs: int64(length(covered))}
	if len(covered) == 0 {
		return out
	}
	out.FirstUnixNs, out.LastUnixNs = covered[0].From, covered[len(covered)-1].To
	gaps := make([]bucket.Span, 0, len(covered)-1)
	for i := range covered[1:] {
		gaps = append(gaps, bucket.Span{From: covered[i].To, To: covered[i+1].From})
	}
	out.GapCount = uint32(len(gaps))
	if len(gaps) > maxSpans {
		slices.SortStableFunc(gaps, func(x, y bucket.Span) int { return cmp.Compare(y.To-y.From, x.To-x.From) })
		gaps = gaps[:maxSpans]
		slices.SortFunc(gaps, func(x, y bucket.Span) int { return cmp.Compare(x.From, y.From) })
	}
	out.Gaps = ranges(gaps)
	return out
}
