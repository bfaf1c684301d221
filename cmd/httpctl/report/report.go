// Package report writes what happened in a stretch of time as one file, to attach to an incident: HTML with plots, or
// Markdown. It is pure: it reads no clock and does no I/O but to the writer it is given. The HTML holds no script
// and asks for nothing from anywhere; every string from the network is cleaned and escaped.
package report

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/httpctl/httpctl/pkg/view"
)

// Input is what a report is made of. It is not changed.
type Input struct {
	// Dashboard has the status, alerts, hosts and top lists of the range.
	Dashboard *view.Dashboard
	// Series are the requests over the range; Errors those of them that ended with 5xx, nil where that is not known.
	Series, Errors *view.Series
	// Failing are routes with status 5xx; nil where that is not known.
	Failing *view.Top
	// Baseline is that of all that is shown; nil where the filters leave only a part of it.
	Baseline *view.AlertStatus
	// Filter says the filters in words, Command how the report was asked for, Version by what it was made.
	Filter, Command, Version string
	// Made is when.
	Made time.Time
	// Style has the time zone.
	Style view.Style
}

// section is a part of a report, whatever its form.
type section struct {
	ID, Title string
	// Facts are lines of which each stands for itself.
	Facts []fact
	// Plot draws the section's numbers; Spark is the same in a line of text. Legend stands below either.
	Plot   plot
	Spark  string
	Legend string
	Grid   *view.Grid
	Bars   int // the grid's column that is drawn as bars, -1 none
	Notes  []string
}

// fact is one statement, the more important the stronger its tone.
type fact struct {
	Name, Text string
	Tone       view.Tone
}

// sections makes the report.
func (in *Input) sections() []section {
	out := []section{in.summary(), in.rate(), in.notSeen(), in.alerts(), in.errors()}
	servers := -1
	for i := range in.Dashboard.Tops {
		if in.Dashboard.Tops[i].Name == "server" {
			servers = i
			out = append(out, in.latency(&in.Dashboard.Tops[i]))
		}
	}
	for i := range in.Dashboard.Tops {
		if i != servers {
			out = append(out, in.top(&in.Dashboard.Tops[i]))
		}
	}
	return append(out, in.hosts())
}

// style is how values are written: with the date, as a report is read on other days.
func (in *Input) style() view.Style {
	return view.Style{Location: in.Style.Location}
}

func (in *Input) human(k view.Kind, cell any) string { return in.style().Human(k, cell) }

// span is the range that the report is about.
func (in *Input) span() (since, until time.Time) {
	st := &in.Dashboard.Status
	since, until = st.Since, st.Until
	if until.IsZero() {
		until = st.Time
	}
	return since, until
}

// moment writes a time with its zone.
func (in *Input) moment(t time.Time) string {
	location := in.Style.Location
	if location == nil {
		location = time.UTC
	}
	return t.In(location).Format("2006-01-02 15:04:05 MST")
}

func (in *Input) summary() section {
	st := &in.Dashboard.Status
	since, until := in.span()
	s := section{ID: "summary", Title: "Summary", Bars: -1}
	add := func(tone view.Tone, name, format string, args ...any) {
		s.Facts = append(s.Facts, fact{name, fmt.Sprintf(format, args...), tone})
	}
	add(view.Plain, "range", "%s to %s (%s)", in.moment(since), in.moment(until), view.Compact(until.Sub(since).Round(time.Second)))
	if in.Filter != "" {
		add(view.Plain, "only", "%s", view.Clean(in.Filter))
	}
	word, tone := view.StateWord(st.Alert.State, in.style())
	add(tone, "state", "%s when this was made, since %s", word, in.human(view.Moment, st.Alert.Since))
	add(view.Plain, "requests", "%s, %s on average", in.human(view.Number, int64(st.Requests)), in.human(view.Rate, st.RateAverage))
	if p := peak(in.Series); p != nil {
		add(view.Plain, "peak", "%s in the %s from %s", in.human(view.Rate, p.Rate), in.Series.Step, in.human(view.Moment, p.Start))
	}
	switch n := len(in.Dashboard.Alerts.Alerts); n {
	case 0:
		add(view.Good, "alerts", "none")
	default:
		longest := time.Duration(0)
		for i := range in.Dashboard.Alerts.Alerts {
			longest = max(longest, in.Dashboard.Alerts.Alerts[i].Duration(in.Dashboard.Alerts.Time))
		}
		add(view.Bad, "alerts", "%d, the longest %s", n, in.human(view.Span, longest))
	}
	if t := in.statuses(); t != nil && view.ClassTotal(t.Classes) > 0 {
		share := class(t, "5xx")
		tone := view.Plain
		if share > 0.01 {
			tone = view.Warn
		}
		add(tone, "outcomes", "5xx %s, 4xx %s, no answer %s, of %s", in.human(view.Share, share), in.human(view.Share, class(t, "4xx")), in.human(view.Share, class(t, "-")), in.human(view.Number, int64(view.ClassTotal(t.Classes))))
		if l := t.Latency; l != nil && l.Count > 0 {
			add(view.Plain, "response time", "p50 %s, p95 %s, p99 %s", in.human(view.Duration, l.P50), in.human(view.Duration, l.P95), in.human(view.Duration, l.P99))
		}
	}
	tone, text := view.FleetText(in.Dashboard, ", ")
	add(tone, "hosts", "%s", text)
	if loss := view.Loss(st.Loss); len(loss) > 0 {
		add(view.Warn, "not seen", "%s", in.human(view.List, loss))
	} else {
		add(view.Good, "not seen", "nothing: no counter of losses has moved")
	}
	if text, n := view.Unread(st); n > 0 {
		add(view.Plain, "not read", "%s", text)
	}
	for _, n := range in.Dashboard.Notes {
		s.Notes = append(s.Notes, view.Clean(n))
	}
	return s
}

// statuses is the list by status, nil without one.
func (in *Input) statuses() *view.Top {
	i := slices.IndexFunc(in.Dashboard.Tops, func(t view.Top) bool { return len(t.Keys) == 1 && t.Keys[0] == "status" })
	if i < 0 {
		return nil
	}
	return &in.Dashboard.Tops[i]
}

// class is the share of a class of status.
func class(t *view.Top, name string) float64 {
	for _, c := range t.Classes {
		if c.Name == name {
			return float64(c.Value) / float64(max(view.ClassTotal(t.Classes), 1))
		}
	}
	return 0
}

// peak is the point with the highest rate, nil without data.
func peak(x *view.Series) (best *view.SeriesPoint) {
	if x == nil {
		return nil
	}
	for i := range x.Points {
		if p := &x.Points[i]; p.Covered > 0 && (best == nil || p.Rate > best.Rate) {
			best = p
		}
	}
	return best
}

// normal is the baseline and the threshold as rates, 0 where they are not known, or not yet in what is shown.
func (in *Input) normal() (baseline, threshold float64) {
	window := in.Dashboard.Status.Window.Seconds()
	if in.Baseline == nil || window <= 0 || in.learnedLater() {
		return 0, 0
	}
	if in.Baseline.Baseline != nil {
		baseline = float64(*in.Baseline.Baseline) / window
	}
	if in.Baseline.ThresholdRequests != nil {
		threshold = float64(*in.Baseline.ThresholdRequests) / window
	}
	return baseline, threshold
}

// learnedLater reports whether all that is shown was before the baseline of now was learned.
func (in *Input) learnedLater() bool {
	_, until := in.span()
	return in.Baseline != nil && in.Baseline.Baseline != nil && !in.Baseline.LearningEnd.Before(until)
}

// alertsInRed ends the legend where there are colours.
const alertsInRed = "; alerts in red"

func (in *Input) rate() section {
	s := section{ID: "rate", Title: "Rate", Bars: -1}
	if in.Series == nil || peak(in.Series) == nil {
		s.Facts = []fact{{"", "There is no data for this range.", view.Warn}}
		return s
	}
	baseline, threshold := in.normal()
	s.Plot = in.ratePlot(baseline, threshold)
	s.Spark = spark(in.Series, 96)
	s.Legend = fmt.Sprintf("Requests by %s, up to %s", in.Series.Step, in.human(view.Rate, peak(in.Series).Rate))
	if threshold > 0 {
		s.Legend += fmt.Sprintf("; baseline %s, alert above %s", in.human(view.Rate, baseline), in.human(view.Rate, threshold))
	}
	if len(in.Dashboard.Alerts.Alerts) > 0 {
		s.Legend += alertsInRed
	}
	since, _ := in.span()
	switch {
	case in.Baseline == nil:
		s.Notes = append(s.Notes, "The baseline is that of the whole fleet, and so is not shown beside a part of it.")
	case in.learnedLater():
		s.Notes = append(s.Notes, "The baseline of now was learned after this range, at "+in.human(view.Moment, in.Baseline.LearningEnd)+", and so is not shown.")
	case threshold > 0 && in.Baseline.LearningEnd.After(since):
		s.Notes = append(s.Notes, "The baseline is shown from "+in.human(view.Moment, in.Baseline.LearningEnd)+", when it was learned.")
	}
	if d := in.Series.Dimension; d != "" {
		s.Notes = append(s.Notes, "Counted as the hits of the top list "+view.Clean(d)+".")
	}
	return s
}

func (in *Input) notSeen() section {
	s := section{ID: "not-seen", Title: "What was not seen", Bars: -1}
	since, until := in.span()
	if in.Series != nil {
		s.Notes = view.CoverageNotes(in.style(), since, until, in.Series.Coverage, nil, false)
	}
	loss := view.Loss(in.Dashboard.Status.Loss)
	if len(loss) == 0 {
		s.Facts = []fact{{"", "Nothing: no counter of losses has moved.", view.Good}}
		if len(s.Notes) > 0 {
			s.Facts = []fact{{"", "While there was data, nothing was lost.", view.Plain}}
		}
		return s
	}
	s.Grid = &view.Grid{Columns: []view.Column{{Name: "counter", Head: "COUNTER"}, {Name: "count", Head: "COUNT", Kind: view.Number}, {Name: "hosts", Head: "ON HOSTS", Kind: view.List}}}
	for _, c := range loss {
		var on []string
		for _, h := range in.Dashboard.Hosts {
			if slices.ContainsFunc(h.Counters, func(x view.Count) bool { return x.Name == c.Name && x.Value > 0 }) {
				on = append(on, h.Name)
			}
		}
		if more := len(on) - 8; more > 0 {
			on = append(on[:8:8], fmt.Sprintf("and %d more", more))
		}
		s.Grid.Rows = append(s.Grid.Rows, view.Row{Cells: []any{c.Name, int64(c.Value), on}})
	}
	if n := in.Dashboard.Status.Warnings; len(n) > 0 {
		for _, text := range n {
			s.Notes = append(s.Notes, view.Clean(text))
		}
	}
	return s
}

func (in *Input) alerts() section {
	s := section{ID: "alerts", Title: "Alerts", Bars: -1}
	a := &in.Dashboard.Alerts
	if len(a.Alerts) == 0 {
		s.Facts = []fact{{"", "None in this range.", view.Good}}
		return s
	}
	s.Grid = narrow(view.AlertsGrid(a, in.style()))
	s.Notes = append(s.Notes, view.AlertSummary(a))
	return s
}

func (in *Input) errors() section {
	s := section{ID: "errors", Title: "Errors", Bars: -1}
	t := in.statuses()
	if t == nil || view.ClassTotal(t.Classes) == 0 {
		s.Facts = []fact{{"", "No exchange has ended in this range.", view.Plain}}
		return s
	}
	for _, c := range []struct{ name, text string }{{"5xx", "server errors (5xx)"}, {"4xx", "refused or not found (4xx)"}, {"-", "without an answer"}} {
		tone := view.Plain
		if c.name == "5xx" && class(t, c.name) > 0.01 {
			tone = view.Warn
		}
		s.Facts = append(s.Facts, fact{c.text, in.human(view.Share, class(t, c.name)) + " of " + in.human(view.Number, int64(view.ClassTotal(t.Classes))), tone})
	}
	if in.Errors != nil && in.Series != nil && peak(in.Series) != nil {
		s.Plot, s.Legend = in.errorPlot(), errorLegend
	}
	if in.Failing != nil && len(in.Failing.Rows) > 0 {
		s.Grid = narrow(view.TopGrid(in.Failing))
		s.Bars = s.Grid.Column("share")
		s.Notes = append(s.Notes, "The rows are what ended with 5xx; shares are of all of those.")
	}
	return s
}

func (in *Input) latency(t *view.Top) section {
	s := in.top(t)
	s.ID, s.Bars = "latency", -1
	s.Plot, s.Legend = in.latencyPlot(t), latencyLegend
	return s
}

func (in *Input) top(t *view.Top) section {
	s := section{ID: "top-" + id(t.Name), Title: view.Clean(t.Title), Grid: narrow(view.TopGrid(t))}
	if s.Title == "" {
		s.Title = view.Clean(t.Name)
	}
	s.Bars = s.Grid.Column("share")
	if len(t.Rows) == 0 {
		s.Facts, s.Grid = []fact{{"", "Nothing was seen.", view.Plain}}, nil
	}
	if t.Floor > 0 {
		s.Notes = append(s.Notes, fmt.Sprintf("Hits may be larger by the error bound; a key not shown has at most %s.", in.human(view.Number, t.Floor)))
	}
	if t.DamagedIntervals > 0 {
		s.Notes = append(s.Notes, fmt.Sprintf("%d intervals failed their checksum and are left out.", t.DamagedIntervals))
	}
	if t.Skipped > 0 {
		s.Notes = append(s.Notes, view.SkippedText(t.Skipped)+".")
	}
	return s
}

func (in *Input) hosts() section {
	s := section{ID: "hosts", Title: "Hosts", Bars: -1}
	if len(in.Dashboard.Hosts) == 0 {
		s.Facts = []fact{{"", "No agent has reported yet.", view.Warn}}
		return s
	}
	s.Grid = narrow(view.HostsGrid(in.Dashboard.Hosts))
	return s
}

// narrow leaves out the columns that are for machines.
func narrow(g *view.Grid) *view.Grid {
	out := &view.Grid{}
	var keep []int
	for i, c := range g.Columns {
		if !c.Wide {
			keep = append(keep, i)
			out.Columns = append(out.Columns, c)
		}
	}
	pick := func(r view.Row) view.Row {
		cells := make([]any, len(keep))
		for k, i := range keep {
			cells[k] = r.Cells[i]
		}
		return view.Row{Cells: cells, Tone: r.Tone}
	}
	for _, r := range g.Rows {
		out.Rows = append(out.Rows, pick(r))
	}
	if g.Other != nil {
		other := pick(*g.Other)
		out.Other = &other
	}
	return out
}

// id makes a name one that can stand in a link.
func id(name string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(name))
}

// spark draws a series as a line of at most n characters; a dot is a step without data.
func spark(x *view.Series, n int) string {
	levels := []rune("▁▂▃▄▅▆▇█")
	each := max((len(x.Points)+n-1)/n, 1)
	top := peak(x).Rate
	var b strings.Builder
	for i := 0; i < len(x.Points); i += each {
		high, there := 0.0, false
		for _, p := range x.Points[i:min(i+each, len(x.Points))] {
			if p.Covered > 0 {
				high, there = max(high, p.Rate), true
			}
		}
		switch {
		case !there:
			b.WriteRune('·')
		case top <= 0:
			b.WriteRune(levels[0])
		default:
			b.WriteRune(levels[min(int(high/top*float64(len(levels))), len(levels)-1)])
		}
	}
	return b.String()
}
