package view

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Coverage says for which part of a range there is data.
type Coverage struct {
	Covered time.Duration
	// First and Last are where it begins and ends; zero when there is none.
	First, Last time.Time
	// Gaps are parts between those without data, the longest hundred of GapCount, by time.
	Gaps     []TimeSpan
	GapCount uint32
}

// Series is requests over time.
type Series struct {
	// Step is "interval", "minute", "ten_minutes", "hour", "day", "week" or "month"; from day on those of UTC.
	Step         string
	Since, Until time.Time
	// Dimension is the top list whose hits are counted, "" for all requests.
	Dimension        string
	Points           []SeriesPoint
	Coverage         *Coverage // nil: not told
	Loss             []Count
	DamagedIntervals uint32
}

// SeriesPoint is one step.
type SeriesPoint struct {
	Start, End time.Time
	Requests   uint64
	Error      int64 // how much more it may be
	Covered    time.Duration
	Rate       float64 // per second of Covered
	Hosts      uint32  // that have data
	Loss       []Count
	Outcomes   *Outcomes // nil: not asked for, or no statistic has all of the filters' columns
}

// Outcomes is how exchanges ended.
type Outcomes struct {
	Total uint64
	// Classes are counts by class of the status: "5xx", and "-" without a response.
	Classes []Count
	Latency *Latency
	// Histogram counts responses by the time that they took.
	Histogram []LatencyBin
}

// LatencyBin counts the responses that took at most UpTo, and more than a fifth of a decade less.
type LatencyBin struct {
	UpTo  time.Duration
	Count uint64
}

// class is the count of a class of status codes.
func (o *Outcomes) class(name string) int64 {
	for _, c := range o.Classes {
		if c.Name == name {
			return int64(c.Value)
		}
	}
	return 0
}

// histogram names each bin by its bound, in seconds.
func (o *Outcomes) histogram() []Count {
	out := []Count{}
	for _, b := range o.Histogram {
		out = append(out, Count{strconv.FormatFloat(b.UpTo.Seconds(), 'f', -1, 64), b.Count})
	}
	return out
}

// outcomeColumns are what a series has of outcomes.
var outcomeColumns = []Column{
	{Name: "outcomes", Head: "ENDED", Kind: Number, Drop: 6}, {Name: "errors_5xx", Head: "5XX", Kind: Number}, {Name: "errors_4xx", Head: "4XX", Kind: Number},
	{Name: "no_answer", Head: "NO ANSWER", Kind: Number, Drop: 4}, {Name: "ttfb_average_seconds", Head: "AVG", Kind: Duration, Wide: true},
	{Name: "ttfb_p50_seconds", Head: "P50", Kind: Duration}, {Name: "ttfb_p95_seconds", Head: "P95", Kind: Duration}, {Name: "ttfb_p99_seconds", Head: "P99", Kind: Duration},
	{Name: "ttfb_max_seconds", Head: "MAX", Kind: Duration, Wide: true}, {Name: "ttfb_count", Head: "MEASURED", Kind: Number, Wide: true},
	{Name: "ttfb_histogram_seconds", Head: "RESPONSES BY SECONDS", Kind: List, Wide: true},
}

// cells are parallel to outcomeColumns; those of nil are absent.
func (o *Outcomes) cells() []any {
	out := make([]any, len(outcomeColumns))
	if o == nil {
		return out
	}
	out[0], out[1], out[2], out[3] = int64(o.Total), o.class("5xx"), o.class("4xx"), o.class("-")
	out[9], out[10] = int64(0), o.histogram()
	if l := o.Latency; l != nil && l.Count > 0 {
		out[4], out[5], out[6], out[7], out[8], out[9] = l.Average, l.P50, l.P95, l.P99, l.Peak, int64(l.Count)
	}
	return out
}

// SeriesGrid lays a series out. A step without data has neither requests nor a rate.
func SeriesGrid(x *Series) *Grid {
	bounded, outcomes := false, false
	for i := range x.Points {
		bounded = bounded || x.Points[i].Error > 0
		outcomes = outcomes || x.Points[i].Outcomes != nil
	}
	g := &Grid{Columns: []Column{
		{Name: "start", Head: "START", Kind: Moment}, {Name: "end", Head: "END", Kind: Moment, Wide: true},
		{Name: "requests", Head: "REQUESTS", Kind: Number}, {Name: "error", Head: "ERROR", Kind: Number, Drop: 5, Wide: !bounded},
		{Name: "rate", Head: "RATE", Kind: Rate}, {Name: "covered_seconds", Head: "COVERED", Kind: Span, Drop: 2},
		{Name: "hosts", Head: "HOSTS", Kind: Number, Drop: 3}, {Name: "loss", Head: "NOT SEEN", Kind: List, Drop: 1},
	}}
	if outcomes {
		g.Columns = append(g.Columns, outcomeColumns...)
	}
	for i := range x.Points {
		p := &x.Points[i]
		row := Row{Cells: []any{p.Start, p.End, int64(p.Requests), p.Error, p.Rate, p.Covered, int64(p.Hosts), Loss(p.Loss)}}
		if p.Covered == 0 {
			row.Cells[2], row.Cells[3], row.Cells[4], row.Tone = nil, nil, nil, Faint
		}
		if outcomes {
			row.Cells = append(row.Cells, p.Outcomes.cells()...)
		}
		g.Rows = append(g.Rows, row)
	}
	return g
}

// WriteSeries writes a series.
func WriteSeries(w io.Writer, f Format, s Style, x *Series) error {
	zone := ""
	if x.Step != "interval" && x.Step != "minute" && x.Step != "ten_minutes" && x.Step != "hour" {
		s.Location, zone = time.UTC, " (UTC)"
	}
	g := SeriesGrid(x)
	machines := f == FormatJSON || f == FormatYAML || f == FormatCSV
	loss := slices.IndexFunc(g.Columns, func(c Column) bool { return c.Name == "loss" })
	for i := range g.Rows { // who reads that nothing was missed takes the step for a calm one
		if p := &x.Points[i]; !machines && p.Covered == 0 && len(Loss(p.Loss)) == 0 {
			g.Rows[i].Cells[loss] = nil
		}
	}
	if zone != "" && !machines {
		g.Columns[0].Kind, g.Columns[1].Kind = Text, Text
		for i := range g.Rows {
			g.Rows[i].Cells[0], g.Rows[i].Cells[1] = x.Points[i].Start.UTC().Format(time.DateOnly), x.Points[i].End.UTC().Format(time.DateTime)
		}
	}
	g.Title = fmt.Sprintf("Requests by %s%s, %s", strings.ReplaceAll(x.Step, "_", " "), zone, s.stretch(x.Since, x.Until))
	g.Notes = CoverageNotes(s, x.Since, x.Until, x.Coverage, Loss(x.Loss), true)
	if x.Dimension != "" {
		g.Notes = append(g.Notes, fmt.Sprintf("Counted as the hits of the top list %s.", Clean(x.Dimension)))
	}
	if !g.Columns[3].Wide {
		g.Notes = append(g.Notes, "Requests may be more by the error bound: lists that were full folded keys.")
	}
	if x.DamagedIntervals > 0 {
		g.Notes = append(g.Notes, plural(x.DamagedIntervals, "interval")+" failed their checksum and are left out.")
	}
	return write(w, f, s, g, func() any {
		o := object{{"step", x.Step}, {"since", machine(x.Since)}, {"until", machine(x.Until)}}
		if x.Dimension != "" {
			o = append(o, member{"dimension", machine(x.Dimension)})
		}
		return append(o, member{"coverage", coverageObject(x.Coverage)}, member{"loss", counts(Loss(x.Loss))},
			member{"damaged_intervals", x.DamagedIntervals}, member{"points", g.objects(g.Rows)})
	})
}

// CoverageNotes says what part of a range there is data for, unless it is nearly all of it, and what was not seen.
func CoverageNotes(s Style, since, until time.Time, c *Coverage, loss []Count, seen bool) (notes []string) {
	if c == nil {
		return nil
	}
	asked := until.Sub(since)
	switch {
	case c.Covered == 0:
		notes = append(notes, fmt.Sprintf("There is no data for any of the %s asked for.", span(asked)))
	case asked-c.Covered > time.Minute && asked-c.Covered > asked/100:
		text := fmt.Sprintf("There is data for %s of the %s asked for: from %s", span(c.Covered), span(asked), s.stretch(c.First, c.Last))
		if c.GapCount > 0 {
			var gaps []string
			for i, gap := range c.Gaps {
				if i == 3 {
					gaps = append(gaps, "...")
					break
				}
				gaps = append(gaps, s.stretch(gap.Since, gap.Until))
			}
			text += fmt.Sprintf(", with %s: %s", plural(c.GapCount, "gap"), strings.Join(gaps, ", "))
		}
		notes = append(notes, text+".")
	}
	if seen && len(loss) > 0 {
		notes = append(notes, "Not seen: "+countsText(loss)+".")
	}
	return notes
}

func coverageObject(c *Coverage) any {
	if c == nil {
		return nil
	}
	gaps := []object{}
	for _, g := range c.Gaps {
		gaps = append(gaps, object{{"since", machine(g.Since)}, {"until", machine(g.Until)}})
	}
	return object{{"covered_seconds", machine(c.Covered)}, {"first", machine(moment(c.First))}, {"last", machine(moment(c.Last))},
		{"gaps", gaps}, {"gap_count", c.GapCount}}
}
