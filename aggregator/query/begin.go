package query

import (
	"context"
	"slices"
	"time"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/pkg/bucket"
)

// unbegun is the part of a host's first interval in which its agent did not watch yet: its bucket covers all of the interval, and
// what was counted is of the rest. It is empty where an agent is not connected, as only its buckets say since when it watches, or
// was started anew since: its buckets declare what was missed in between. width is that of the intervals.
func unbegun(h *store.Host, a *Agent, width time.Duration) bucket.Span {
	if a == nil || h.FirstStart <= 0 || a.ObservedFrom <= h.FirstStart || a.ObservedFrom-h.FirstStart >= int64(width) {
		return bucket.Span{}
	}
	return bucket.Span{From: h.FirstStart, To: a.ObservedFrom}
}

// begins finds the time before the first of some hosts began to watch. The zero value is of no hosts.
type begins struct {
	first int64 // when one began, 0 before one was added
	none  bucket.Span
}

// add enters a host, which began at the end of what is unbegun of it.
func (b *begins) add(firstStart int64, unbegun bucket.Span) {
	if firstStart <= 0 {
		return // nothing stored of it
	}
	if at := max(firstStart, unbegun.To); b.first == 0 || at < b.first {
		b.first, b.none = at, unbegun
	}
}

// without cuts the time in which nobody watched yet off merged spans.
func (b *begins) without(spans []bucket.Span) []bucket.Span {
	if b.none.From == b.none.To {
		return spans
	}
	var out []bucket.Span
	for _, s := range spans {
		if s.From < b.none.From { // of a host that is gone
			out = append(out, bucket.Span{From: s.From, To: min(s.To, b.none.From)})
		}
		if s.From = max(s.From, b.none.To); s.From < s.To {
			out = append(out, s)
		}
	}
	return out
}

// cut is how much of [from, to) lies before anybody watched.
func (b *begins) cut(from, to int64) time.Duration {
	return time.Duration(max(0, min(to, b.none.To)-max(from, b.none.From)))
}

// begins are those of the hosts of a selection, those included of which only roll-ups are left.
func (s *Service) begins(ctx context.Context, sel *selection) (b begins, err error) {
	hosts, err := s.Store.Hosts(ctx)
	if err != nil {
		return b, err
	}
	agents := map[bucket.ID]*Agent{}
	for _, a := range s.Live.Agents() {
		agents[a.Host] = &a
	}
	width := s.Settings().DashboardBucketSize
	add := func(hosts []store.Host) {
		for i := range hosts {
			if h := &hosts[i]; sel.hosts == nil || slices.Contains(sel.hosts, h.ID) {
				b.add(h.FirstStart, unbegun(h, agents[h.ID], width))
			}
		}
	}
	add(hosts)
	if b.none.From == b.none.To {
		return b, nil
	}
	past, err := s.Store.PastHosts(ctx)
	add(past)
	return b, err
}
