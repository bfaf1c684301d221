package view

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/httpctl/httpctl/pkg/exchange"
)

// Format is a form of output.
type Format string

// The forms of output. All show the same values; Table leaves columns out and
// cuts text where the terminal is narrow.
const (
	FormatTable    Format = "table"
	FormatWide     Format = "wide"
	FormatJSON     Format = "json"
	FormatYAML     Format = "yaml"
	FormatCSV      Format = "csv"
	FormatMarkdown Format = "markdown"
)

// Formats lists the forms.
var Formats = []string{string(FormatTable), string(FormatWide), string(FormatJSON), string(FormatYAML), string(FormatCSV), string(FormatMarkdown)}

// write shapes a grid and writes it; object makes what JSON and YAML carry of the shaped grid.
func write(w io.Writer, f Format, s Style, g *Grid, object func() any) error {
	if err := g.shape(s); err != nil {
		return err
	}
	switch f {
	case FormatJSON:
		return writeJSON(w, object())
	case FormatYAML:
		return writeYAML(w, object())
	case FormatCSV:
		return g.CSV(w)
	case FormatMarkdown:
		return g.Markdown(w, s)
	}
	return g.Table(w, s, f == FormatWide)
}

// WriteTop writes a top list.
func WriteTop(w io.Writer, f Format, s Style, t *Top) error {
	g := TopGrid(t)
	g.Title = fmt.Sprintf("%s, %s", t.Title, s.stretch(t.Since, t.Until))
	switch {
	case t.Since.IsZero() && t.Until.IsZero():
		g.Title = t.Title
		g.Notes = append(g.Notes, "Nothing yet: no agent has delivered statistics.")
	case len(t.Rows) == 0:
		g.Notes = append(g.Notes, "Nothing was seen.")
	}
	g.Notes = append(g.Notes, topNotes(s, t)...)
	return write(w, f, s, g, func() any { return topObject(t, g) })
}

// topNotes says what is of a list as a whole.
func topNotes(s Style, t *Top) (notes []string) {
	if len(t.Rows) > 0 {
		notes = allNotes(s, t)
	}
	notes = append(notes, CoverageNotes(s, t.Since, t.Until, t.Coverage, Loss(t.Loss), true)...)
	if t.Floor > 0 {
		notes = append(notes, fmt.Sprintf("Hits may be larger by the error bound; a key not shown has at most %s.", number(t.Floor)))
	}
	if t.DamagedIntervals > 0 {
		notes = append(notes, "Left out, as their checksum failed: "+plural(t.DamagedIntervals, "interval")+".")
	}
	if t.Skipped > 0 {
		notes = append(notes, SkippedText(t.Skipped)+"; whose says `httpctl explain`.")
	}
	return notes
}

// ClassTotal is how many exchanges ended.
func ClassTotal(classes []Count) (n uint64) {
	for _, c := range classes {
		n += c.Value
	}
	return n
}

// allNotes says of a list what its rows have together: how responses ended, and how long they took.
func allNotes(s Style, t *Top) (notes []string) {
	if all := ClassTotal(t.Classes); all > 0 {
		var parts []string
		for _, c := range t.Classes {
			parts = append(parts, fmt.Sprintf("%s %s", strings.Replace(c.Name, "-", "no answer", 1), percent(float64(c.Value)/float64(all))))
		}
		notes = append(notes, fmt.Sprintf("In all: %s.", strings.Join(parts, ", ")))
	}
	if l := t.Latency; l != nil && l.Count > 0 {
		notes = append(notes, fmt.Sprintf("Response time of all: %s on average, p50 %s, p95 %s, p99 %s, at most %s.",
			s.latency(l.Average), s.latency(l.P50), s.latency(l.P95), s.latency(l.P99), s.latency(l.Peak)))
	}
	return notes
}

// WriteAlerts writes the alert history.
func WriteAlerts(w io.Writer, f Format, s Style, a *Alerts) error {
	g := AlertsGrid(a, s)
	if len(a.Alerts) == 0 {
		g.Notes = []string{"No alert in this range."}
		if a.Active {
			g.Notes = []string{"No alert is active."}
		}
	} else {
		g.Notes = []string{AlertSummary(a)}
	}
	if f == FormatCSV { // which has no place for what is of all of them
		g.Columns = append(g.Columns, Column{Name: "max_duration_seconds"}, Column{Name: "average_duration_seconds"})
		for i := range g.Rows {
			g.Rows[i].Cells = append(g.Rows[i].Cells, a.MaxDuration, a.AverageDuration)
		}
	}
	return write(w, f, s, g, func() any {
		if s.SortBy == "" && len(s.Columns) == 0 {
			return alertsObject(a, alertObjects(a))
		}
		return alertsObject(a, g.objects(g.Rows))
	})
}

// AlertSummary says how long the dismissed ones lasted.
func AlertSummary(a *Alerts) string {
	for i := range a.Alerts {
		if a.Alerts[i].State == Dismissed {
			return fmt.Sprintf("Dismissed alerts lasted %s at most, %s on average.", span(a.MaxDuration), span(a.AverageDuration))
		}
	}
	return "None was dismissed yet."
}

// WriteHosts writes the hosts.
func WriteHosts(w io.Writer, f Format, s Style, hosts []Host) error {
	g := HostsGrid(hosts)
	if len(hosts) == 0 {
		g.Notes = []string{"No agent has reported yet."}
	}
	for _, h := range hosts {
		if len(h.SameID) > 0 {
			g.Notes = append(g.Notes, fmt.Sprintf("%s: several agents have its host id: %s. On the copy, stop the agent, remove its state directory, and start it.",
				Clean(h.Name), Clean(strings.Join(h.SameID, ", "))))
		}
	}
	return write(w, f, s, g, func() any { return object{{"hosts", g.objects(g.Rows)}} })
}

// WriteDimensions writes the top lists that there are.
func WriteDimensions(w io.Writer, f Format, s Style, dims []Dimension) error {
	g := &Grid{Columns: []Column{
		{Name: "dimension", Head: "DIMENSION"}, {Name: "title", Head: "TITLE"}, {Name: "keys", Head: "KEYS", Kind: List, Drop: 2},
		{Name: "columns", Head: "COLUMNS", Kind: List, Wide: true}, {Name: "filters", Head: "FILTERS", Kind: List, Drop: 1},
	}}
	for _, d := range dims {
		var columns []string
		for _, c := range d.Columns {
			columns = append(columns, c.Name)
		}
		filters := append([]string{"host"}, d.Filters...)
		g.Rows = append(g.Rows, Row{Cells: []any{d.Name, d.Title, d.Keys, columns, filters}})
	}
	if len(dims) == 0 {
		g.Notes = []string{"No agent has delivered statistics yet."}
	}
	return write(w, f, s, g, func() any { return object{{"dimensions", g.objects(g.Rows)}} })
}

// Context is a named aggregator.
type Context struct {
	Name, Aggregator string
	Certificate      string // the file; "" is plain text
	Current          bool
}

// WriteContexts writes the named aggregators.
func WriteContexts(w io.Writer, f Format, s Style, list []Context) error {
	g := &Grid{Columns: []Column{
		{Name: "name", Head: "CONTEXT"}, {Name: "current", Head: "CURRENT", Kind: Flag},
		{Name: "aggregator", Head: "AGGREGATOR"}, {Name: "certificate", Head: "CERTIFICATE", Drop: 1},
	}}
	for _, c := range list {
		row := Row{Cells: []any{c.Name, c.Current, c.Aggregator, nil}}
		if c.Certificate != "" {
			row.Cells[3] = c.Certificate
		}
		if c.Current {
			row.Tone = Strong
		}
		g.Rows = append(g.Rows, row)
	}
	if len(list) == 0 {
		g.Notes = []string{"No context yet: make one with httpctl context set NAME --aggregator ADDR."}
	}
	return write(w, f, s, g, func() any { return object{{"contexts", g.objects(g.Rows)}} })
}

// BaselineGrid lays out what was learned, in one row. window is average_bucket_size.
func BaselineGrid(b *Baseline, window time.Duration) *Grid {
	a := &b.Alert
	g := &Grid{Rows: []Row{{}}}
	add := func(name, head string, kind Kind, cell any, wide bool) {
		g.Columns = append(g.Columns, Column{Name: name, Head: head, Kind: kind, Wide: wide})
		g.Rows[0].Cells = append(g.Rows[0].Cells, cell)
	}
	learned := a.State != Learning
	add("state", "state", Text, string(a.State), false)
	add("window_seconds", "window", Span, window, false)
	add("baseline", "baseline (requests per window)", Number, optional(a.Baseline), false)
	add("threshold_percent", "threshold (percent above)", Number, a.ThresholdPercent, false)
	add("threshold_requests", "alerts above (requests per window)", Number, optional(a.ThresholdRequests), false)
	add("learning_end", "learning ends", Moment, moment(a.LearningEnd), learned)
	add("estimated_baseline", "estimated baseline", Number, a.EstimatedBaseline, learned)
	add("learned_from", "learned from", Moment, moment(b.From), false)
	add("learned_until", "learned until", Moment, moment(b.Until), false)
	add("learned_requests", "requests learned from", Number, b.Requests, false)
	add("covered_seconds", "covered", Span, time.Duration(b.CoveredSeconds)*time.Second, false)
	add("learned_hosts", "hosts learned from", List, b.Hosts, false)
	add("restarts", "times learning began again", Number, int64(b.Restarts), false)
	add("scope", "scope", Text, a.Scope, true)
	add("since", "in this state since", Moment, moment(a.Since), true)
	add("window_start", "window now from", Moment, moment(a.WindowStart), true)
	add("window_end", "window now until", Moment, moment(a.WindowEnd), true)
	add("window_requests", "requests in it yet", Number, int64(a.WindowRequests), true)
	add("learning_start", "learning began", Moment, moment(a.LearningStart), true)
	add("last_requests", "requests in the window before", Number, optional(a.LastRequests), true)
	add("last_window_end", "that ended", Moment, moment(a.LastWindowEnd), true)
	add("last_incomplete", "that was incomplete", Flag, a.LastIncomplete, true)
	add("joined_hosts", "hosts that joined since", List, a.JoinedHosts, true)
	return g
}

// WriteBaseline writes what was learned. window is average_bucket_size.
func WriteBaseline(w io.Writer, f Format, s Style, b *Baseline, window time.Duration) error {
	g := BaselineGrid(b, window)
	switch f {
	case FormatJSON:
		return writeJSON(w, baselineObject(b, window))
	case FormatYAML:
		return writeYAML(w, baselineObject(b, window))
	case FormatCSV:
		return g.CSV(w)
	}
	vertical := &Grid{Columns: []Column{{Head: "BASELINE"}, {Head: ""}}}
	for i, c := range g.Columns {
		row := Row{Cells: []any{c.Head, s.Human(c.Kind, g.Rows[0].Cells[i])}}
		if c.Name == "state" {
			row.Cells[1], row.Tone = StateWord(b.Alert.State, s)
		}
		if f == FormatTable && (row.Cells[1] == "" || b.Alert.State == Learning && (c.Name == "learned_requests" || c.Name == "covered_seconds")) {
			row.Cells[1] = "-" // known when it is learned
		}
		if !c.Wide || f != FormatTable {
			vertical.Rows = append(vertical.Rows, row)
		}
	}
	if f == FormatMarkdown {
		return vertical.Markdown(w, s)
	}
	return vertical.Table(w, s, f == FormatWide)
}

// moment is the cell of a time: nil when zero.
func moment(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t
}

// TopGrid lays a top list out: rank, keys, hits, error bound, share, measures, last seen.
func TopGrid(t *Top) *Grid {
	g := &Grid{Title: t.Title, Columns: []Column{{Name: "rank", Head: "#", Kind: Number, Wide: true}}}
	for _, k := range t.Keys {
		name := k
		if len(t.Keys) == 1 {
			name = "key"
		}
		g.Columns = append(g.Columns, Column{Name: name, Head: heading(k)})
	}
	bounded := t.Floor > 0
	for _, r := range t.Rows {
		bounded = bounded || r.Error > 0
	}
	for i, m := range t.Columns {
		seen := m.Kind == Max && strings.HasSuffix(m.Name, "_seen")
		c := Column{Name: m.Name, Head: heading(m.Name), Kind: Number, Drop: 2}
		switch {
		case m.Kind == LatencyColumn:
			for j, q := range [...]string{"average", "p50", "p95", "p99", "max"} {
				g.Columns = append(g.Columns, Column{Name: m.Name + "_" + q + "_seconds", Head: strings.ToUpper(strings.Replace(q, "average", "avg", 1)),
					Kind: Duration, Drop: [...]int{0, 5, 3, 4, 0}[j], Wide: q == "max"})
			}
			g.Columns = append(g.Columns, Column{Name: m.Name + "_count", Head: "MEASURED", Kind: Number, Wide: true})
			continue
		case seen:
			c.Kind, c.Drop = Moment, 7
		case m.Unit == "By":
			c.Kind, c.Drop = Bytes, 8
			if m.Name != "bytes" && !strings.HasSuffix(m.Name, "_bytes") {
				c.Name = m.Name + "_bytes"
			}
		case m.Unit == "ns":
			c.Kind, c.Name = Duration, m.Name+"_seconds"
		}
		if i == 0 {
			c.Drop = 0
		}
		g.Columns = append(g.Columns, c)
		if i == 0 {
			g.Columns = append(g.Columns,
				Column{Name: "error", Head: "ERROR", Kind: c.Kind, Drop: 9, Wide: !bounded},
				Column{Name: "share", Head: "SHARE", Kind: Share, Drop: 6})
		}
	}
	// All cells are in one piece: a list may have thousands of rows.
	n := len(g.Columns)
	cells := make([]any, 0, n*len(t.Rows))
	g.Rows = make([]Row, len(t.Rows))
	for i, r := range t.Rows {
		cells = topCells(cells, t, int64(i+1), r)
		g.Rows[i].Cells = cells[i*n : (i+1)*n : (i+1)*n]
	}
	if t.Other != nil {
		o := *t.Other
		o.Keys = make([]string, len(t.Keys))
		if len(o.Keys) > 0 {
			o.Keys[0] = "(other)"
		}
		row := Row{Cells: topCells(nil, t, nil, o), Tone: Faint}
		g.Other = &row
	}
	return g
}

// topCells adds the cells of a row.
func topCells(cells []any, t *Top, rank any, r TopRow) []any {
	cells = append(cells, rank)
	for i := range t.Keys {
		if i < len(r.Keys) {
			cells = append(cells, r.Keys[i])
		} else {
			cells = append(cells, nil)
		}
	}
	for i, m := range t.Columns {
		var v Value
		if i < len(r.Values) {
			v = r.Values[i]
		}
		switch {
		case m.Kind == LatencyColumn && (v.Latency == nil || v.Latency.Count == 0):
			cells = append(cells, nil, nil, nil, nil, nil, int64(0))
		case m.Kind == LatencyColumn:
			l := v.Latency
			cells = append(cells, l.Average, l.P50, l.P95, l.P99, l.Peak, int64(l.Count))
		case m.Kind == Max && strings.HasSuffix(m.Name, "_seen"):
			if v.Number == 0 {
				cells = append(cells, nil)
			} else {
				cells = append(cells, time.Unix(0, v.Number))
			}
		case m.Unit == "ns":
			cells = append(cells, time.Duration(v.Number))
		default:
			cells = append(cells, v.Number)
		}
		if i == 0 {
			var share any
			if t.Total > 0 {
				share = float64(v.Number) / float64(t.Total)
			}
			var bound any = r.Error
			if m.Unit == "ns" {
				bound = time.Duration(r.Error)
			}
			cells = append(cells, bound, share)
		}
	}
	return cells
}

// heading makes "last_seen" into "LAST SEEN".
func heading(name string) string {
	return strings.ToUpper(strings.ReplaceAll(Clean(name), "_", " "))
}

// AlertsGrid lays the alert history out, a row for each episode.
func AlertsGrid(a *Alerts, s Style) *Grid {
	g := &Grid{Columns: []Column{
		{Name: "state", Head: "STATE", Kind: Word}, {Name: "scope", Head: "SCOPE", Drop: 7},
		{Name: "start", Head: "START", Kind: Moment}, {Name: "end", Head: "END", Kind: Moment},
		{Name: "duration_seconds", Head: "DURATION", Kind: Span},
		{Name: "baseline", Head: "BASELINE", Kind: Number, Drop: 5}, {Name: "threshold_percent", Head: "THRESHOLD %", Kind: Number, Drop: 6},
		{Name: "entries", Head: "HITS", Kind: List}, {Name: "joined_hosts", Head: "JOINED HOSTS", Kind: List, Wide: true},
	}}
	for i := range a.Alerts {
		e := &a.Alerts[i]
		_, tone := StateWord(e.State, s)
		g.Rows = append(g.Rows, Row{Tone: tone, Cells: []any{
			string(e.State), e.Scope, moment(e.Start), moment(e.End), e.Duration(a.Time), e.Baseline, e.ThresholdPercent,
			e.Entries, e.JoinedHosts,
		}})
	}
	return g
}

// HostsGrid lays hosts out.
func HostsGrid(hosts []Host) *Grid {
	g := &Grid{Columns: []Column{
		{Name: "name", Head: "HOST"}, {Name: "id", Head: "ID", Wide: true}, {Name: "health", Head: "HEALTH", Kind: Word},
		{Name: "connected", Head: "CONNECTED", Kind: Flag, Drop: 3}, {Name: "covered_through", Head: "COVERED THROUGH", Kind: Moment, Drop: 2},
		{Name: "rate", Head: "RATE", Kind: Rate}, {Name: "requests", Head: "REQUESTS", Kind: Number},
		{Name: "open", Head: "OPEN", Kind: Number, Drop: 6}, {Name: "backlog", Head: "BACKLOG", Kind: Number, Drop: 4},
		{Name: "loss", Head: "NOT SEEN", Kind: List},
		{Name: "first_seen", Head: "FIRST SEEN", Kind: Moment, Wide: true}, {Name: "version", Head: "VERSION", Wide: true},
		{Name: "same_id", Head: "SAME ID", Kind: List, Wide: true},
	}}
	for _, h := range hosts {
		tone := Plain
		switch h.Health {
		case Late:
			tone = Warn
		case Gone:
			tone = Bad
		}
		g.Rows = append(g.Rows, Row{Tone: tone, Cells: []any{
			h.Name, h.ID, string(h.Health), h.Connected, moment(h.CoveredThrough), h.Rate, int64(h.Requests),
			int64(h.Open), int64(h.Backlog), Loss(h.Counters), moment(h.FirstSeen), h.Version, append([]string{}, h.SameID...),
		}})
	}
	return g
}

// lossNames are the names of the counters of what was not seen.
var lossNames = func() map[string]bool {
	names := map[string]bool{}
	for c := range exchange.NumCounters {
		names[c.String()] = c.Loss()
	}
	return names
}()

// Loss keeps the counters of what was not seen, and those that this program
// does not know, as long as they are not zero.
func Loss(list []Count) []Count {
	out := []Count{}
	for _, c := range list {
		if loss, known := lossNames[c.Name]; c.Value > 0 && (loss || !known) {
			out = append(out, c)
		}
	}
	return out
}

// SkippedText says how many buckets a list leaves out for the version of their statistic, without a full stop.
func SkippedText(n uint64) string {
	return "Left out, as most hosts have another version of this statistic: " + plural(n, "bucket")
}

// countsText lists counters: "12 gap bytes, 1 resync".
func countsText(list []Count) string {
	parts := make([]string, len(list))
	for i, c := range list {
		name := strings.ReplaceAll(Clean(c.Name), "_", " ")
		if c.Value == 1 && (lossNames[c.Name] || c.Name == "unobserved_seconds") { // a protocol's name, such as tls, is no plural
			name = strings.TrimSuffix(name, "s")
		}
		parts[i] = number(c.Value) + " " + name
	}
	if len(parts) == 0 {
		return "nothing"
	}
	return strings.Join(parts, ", ")
}

// entriesText lists the hits of the windows of an episode, newest first, as
// that is what counts when it is cut.
func entriesText(list []AlertEntry) string {
	parts := make([]string, len(list))
	for i, e := range list {
		text := number(e.Hits)
		switch {
		case e.LateHits > 0 && e.Incomplete:
			text += " (+" + number(e.LateHits) + " late, incomplete)"
		case e.LateHits > 0:
			text += " (+" + number(e.LateHits) + " late)"
		case e.Incomplete:
			text += " (incomplete)"
		}
		parts[len(list)-1-i] = text
	}
	return strings.Join(parts, "  ") // no comma: the numbers have some
}
