package view

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// Explanation is the account of one number of a top list, host by host.
type Explanation struct {
	Dimension    Dimension
	Keys         []string // of the row; none is the list's total
	Since, Until time.Time
	// Hits of closed buckets are a lower bound, and may be Error more. Pending are those of the
	// intervals under way, which a live list adds.
	Hits, Error, Pending int64
	Hosts                []ExplainedHost
	// DamagedIntervals failed a checksum and are left out; Damaged are the first of them.
	DamagedIntervals uint32
	Damaged          []time.Time
	// MirroredLeftOut says that what another monitored host counts too is not counted twice.
	MirroredLeftOut bool
}

// ExplainedHost is what one host gives to a number.
type ExplainedHost struct {
	Name, ID             string
	Health               Health
	Hits, Error, Pending int64
	Buckets, Skipped     uint64
	// Covered and Unobserved add up spans of the range; the spans are the first hundred.
	Covered, Unobserved           time.Duration
	CoveredSpans, UnobservedSpans []TimeSpan
	Loss                          []Count
}

// TimeSpan is a stretch of time.
type TimeSpan struct{ Since, Until time.Time }

// ExplainGrid lays the hosts out.
func ExplainGrid(e *Explanation) *Grid {
	g := &Grid{Columns: []Column{
		{Name: "host", Head: "HOST"}, {Name: "id", Head: "ID", Wide: true}, {Name: "health", Head: "HEALTH", Kind: Word, Drop: 4},
		{Name: "hits", Head: "HITS", Kind: Number}, {Name: "error", Head: "ERROR", Kind: Number, Drop: 2},
		{Name: "share", Head: "SHARE", Kind: Share, Drop: 5}, {Name: "pending", Head: "UNDER WAY", Kind: Number, Drop: 6},
		{Name: "buckets", Head: "BUCKETS", Kind: Number, Drop: 3}, {Name: "skipped", Head: "SKIPPED", Kind: Number, Wide: true},
		{Name: "covered_seconds", Head: "COVERED", Kind: Span, Drop: 1}, {Name: "unobserved_seconds", Head: "UNOBSERVED", Kind: Span, Drop: 7},
		{Name: "loss", Head: "NOT SEEN", Kind: List},
	}}
	for _, h := range e.Hosts {
		var share any
		if e.Hits > 0 {
			share = float64(h.Hits) / float64(e.Hits)
		}
		tone := Plain
		if h.Health == Gone || len(h.Loss) > 0 {
			tone = Warn
		}
		g.Rows = append(g.Rows, Row{Tone: tone, Cells: []any{
			h.Name, h.ID, string(h.Health), h.Hits, h.Error, share, h.Pending, int64(h.Buckets), int64(h.Skipped), h.Covered, h.Unobserved, Loss(h.Loss),
		}})
	}
	return g
}

// WriteExplanation writes the account of a number.
func WriteExplanation(w io.Writer, f Format, s Style, e *Explanation) error {
	g := ExplainGrid(e)
	what := "all of it"
	if len(e.Keys) > 0 {
		what = strings.Join(e.Keys, " ")
	}
	g.Title = fmt.Sprintf("%s, %s, %s: %s", e.Dimension.Title, Clean(what), s.stretch(e.Since, e.Until), plural(e.Hits, "hit"))
	note := func(format string, args ...any) { g.Notes = append(g.Notes, fmt.Sprintf(format, args...)) }
	if e.Error > 0 {
		note("There may be up to %s more: hosts whose lists were full folded this key into the rest for a while.", number(e.Error))
	} else {
		note("The number is exact for what was seen.")
	}
	if e.Pending > 0 {
		note("A live list shows %s more: of intervals that are under way.", plural(e.Pending, "hit"))
	}
	if e.MirroredLeftOut {
		note("What another monitored host counts too is counted once.")
	}
	if e.DamagedIntervals > 0 {
		note("%s failed their checksum and are left out, the first at %s.", plural(e.DamagedIntervals, "interval"), s.clock(first(e.Damaged)))
	}
	for _, h := range e.Hosts {
		if h.Skipped > 0 {
			note("%s: %s with another version of this statistic are left out.", h.Name, plural(h.Skipped, "bucket"))
		}
	}
	if len(e.Hosts) == 0 {
		note("No host has anything of this range.")
	}
	return write(w, f, s, g, func() any { return explanationObject(e, g) })
}

func first(times []time.Time) time.Time {
	if len(times) == 0 {
		return time.Time{}
	}
	return times[0]
}

func explanationObject(e *Explanation, g *Grid) object {
	spans := func(list []TimeSpan) []object {
		out := []object{}
		for _, x := range list {
			out = append(out, object{{"since", machine(x.Since)}, {"until", machine(x.Until)}})
		}
		return out
	}
	of := []object{}
	for _, h := range e.Hosts {
		of = append(of, object{{"id", h.ID}, {"covered", spans(h.CoveredSpans)}, {"unobserved", spans(h.UnobservedSpans)}})
	}
	damaged := []any{}
	for _, t := range e.Damaged {
		damaged = append(damaged, machine(t))
	}
	return object{
		{"dimension", machine(e.Dimension.Name)}, {"keys", valid(e.Keys)}, {"since", machine(e.Since)}, {"until", machine(e.Until)},
		{"hits", e.Hits}, {"error", e.Error}, {"pending", e.Pending}, {"mirrored_left_out", e.MirroredLeftOut},
		{"damaged_intervals", e.DamagedIntervals}, {"damaged", damaged}, {"hosts", g.objects(g.Rows)}, {"spans", of},
	}
}
