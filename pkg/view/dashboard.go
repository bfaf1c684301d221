package view

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// StateWord returns the symbol and word of a state, and its tone.
func StateWord(st State, s Style) (string, Tone) {
	switch st {
	case Learning:
		return s.pick("◌ ", "~ ") + "LEARNING", Warn
	case Normal:
		return s.pick("● ", "= ") + "NORMAL", Good
	case Alerting:
		return s.pick("▲ ", "! ") + "ALERT", Bad
	case Dismissed:
		return s.pick("✔ ", "+ ") + "DISMISSED", Good
	}
	return "? " + strings.ToUpper(Clean(string(st))), Warn
}

// twoColumns is the width from which lists stand side by side: two of 53
// columns, in which a section, hits, share and last seen fit, and a gutter.
const (
	twoColumns = 110
	gutter     = 3
)

// WriteDashboard writes one dashboard of any height, as long as it needs.
func WriteDashboard(w io.Writer, f Format, s Style, d *Dashboard) error {
	s.Now, s.Height = d.Status.Time, 0
	switch f {
	case FormatJSON:
		return writeJSON(w, dashboardObject(d))
	case FormatYAML:
		return writeYAML(w, dashboardObject(d))
	case FormatMarkdown:
		return dashboardMarkdown(w, s, d)
	case FormatCSV:
		return dashboardCSV(w, d)
	case FormatWide:
		s.Width = 0
	}
	return writeLines(w, frame(d, s, f == FormatWide))
}

func writeLines(w io.Writer, lines []string) error {
	_, err := io.WriteString(w, strings.Join(lines, "\n")+"\n")
	return err
}

// Frame draws the dashboard into at most s.Height lines of at most s.Width columns.
// trouble, when not empty, is lines about why the picture is old.
func Frame(d *Dashboard, s Style, trouble string) []string {
	s.Now = d.Status.Time
	height, above := s.Height, troubleLines(s, trouble)
	if len(above) > 0 {
		s.Height = max(s.Height-len(above), min(s.Height, 1)) // 0 stays no limit
	}
	lines := append(above, frame(d, s, false)...)
	if height > 0 && len(lines) > height {
		lines = lines[:height]
	}
	return lines
}

// troubleLines draws the lines about why a picture is old.
func troubleLines(s Style, trouble string) (lines []string) {
	if trouble == "" {
		return nil
	}
	for i, text := range strings.Split(trouble, "\n") {
		mark := s.pick("✖ ", "X ")
		if i > 0 {
			mark = "  "
		}
		lines = append(lines, s.line(Bad, mark+Clean(text)))
	}
	return lines
}

// ListFrame draws a list that is watched into at most s.Height lines, under a line that says how often and
// when it was asked for. list is what one of the Write functions wrote with this style.
func ListFrame(list string, s Style, every time.Duration, at time.Time, trouble string) []string {
	head := "every " + Compact(every) + "   " + at.In(s.location()).Format("2006-01-02 15:04:05 MST") + "   q ends"
	lines := append(troubleLines(s, trouble), s.line(Faint, head), "")
	lines = append(lines, strings.Split(strings.TrimSuffix(list, "\n"), "\n")...)
	if more := len(lines) - s.Height + 1; s.Height > 1 && more > 1 {
		lines = append(lines[:s.Height-1], s.line(Faint, "and "+plural(more, "line")+" in a taller terminal"))
	}
	return lines
}

// line cuts text to the width and paints it. text must be clean and uncoloured.
func (s Style) line(t Tone, text string) string {
	if s.Width > 0 {
		text = Cut(text, s.Width, s.ellipsis())
	}
	return s.Paint(t, text)
}

// frame draws the header, and as many lists as fit.
func frame(d *Dashboard, s Style, wide bool) []string {
	lines := header(d, s, wide)
	// The alerts take the whole width; lists stand in pairs if there is room.
	inner, each := s, 1
	if s.Width >= twoColumns {
		inner.Width, each = (s.Width-gutter)/2, 2
	}
	var groups [][]*panel
	for i := range d.Tops {
		if i%each == 0 {
			groups = append(groups, nil)
		}
		last := &groups[len(groups)-1]
		*last = append(*last, topPanel(&d.Tops[i], s, wide))
	}
	if alerts := []*panel{alertPanel(d, s)}; len(d.Alerts.Alerts) > 0 {
		groups = slices.Insert(groups, 0, alerts)
	} else {
		groups = append(groups, alerts)
	}
	if wide {
		hosts := HostsGrid(d.Hosts)
		groups = append(groups, []*panel{{name: "hosts", grid: hosts, empty: "none", rows: len(hosts.Rows)}})
	}
	shown, cutRows := len(groups), false
	if s.Height > 0 {
		shown, cutRows = allot(groups, s.Height-len(lines))
	}
	for _, group := range groups[:shown] {
		lines = append(lines, "")
		switch {
		case len(group) == 2:
			lines = append(lines, beside(group[0].draw(inner, wide), group[1].draw(inner, wide), inner.Width)...)
		case group[0].name == alertsName:
			lines = append(lines, group[0].draw(s, wide)...)
		default:
			lines = append(lines, group[0].draw(inner, wide)...)
		}
	}
	var rest []string
	if cutRows {
		rest = append(rest, "more rows")
	}
	for _, group := range groups[shown:] {
		for _, p := range group {
			rest = append(rest, p.name)
		}
	}
	if len(rest) > 0 {
		names := strings.Join(rest, ", ")
		text := "In a taller terminal: " + names
		if s.Width > 0 && Width(text) > s.Width {
			text = "Not shown: " + names
		}
		lines = append(lines, s.line(Faint, text))
	}
	return lines
}

// WarningLines is how many lines a warning of the aggregator has at most.
const WarningLines = 3

// header draws what stands above the lists: what is looked at first, or all of it.
func header(d *Dashboard, s Style, all bool) []string {
	st, a := &d.Status, &d.Status.Alert
	now := st.Time.Truncate(time.Second) // as the title says it, so that the numbers agree
	var lines []string
	add := func(t Tone, label, text string) {
		if label != "" {
			text = Pad(label, 10) + text
		}
		lines = append(lines, s.line(t, text))
	}
	sep := "   "
	title := "httpctl  " + Clean(a.Scope)
	if d.Filter != "" {
		title += "  " + Clean(d.Filter)
	}
	title += "  " + st.Time.In(s.location()).Format("2006-01-02 15:04:05 MST")
	if st.Refresh > 0 && (all || s.Height > 0) { // what is written once is not drawn again
		title += "  every " + Compact(st.Refresh)
	}
	add(Strong, "", title)
	word, tone := StateWord(a.State, s)
	add(tone, "", word+StateText(d, s))

	average, none := rate(st.RateAverage), NoData(d, s)
	if st.RateAverage == 0 && (st.Requests > 0 || none != "") {
		average = "-" // no interval of the range is over, or none was watched
	}
	since, until := s.clock(st.Since), ""
	if !st.Until.IsZero() && st.Time.Sub(st.Until) > 2*time.Second { // an answer takes a moment; the bars, like now, are of the present
		since, until, _ = strings.Cut(s.stretch(st.Since, st.Until), " to ")
		until = " until " + until
	}
	text := fmt.Sprintf("now %s%saverage %s%s%s requests since %s%s", rate(st.RateNow), sep, average, sep, number(st.Requests), since, until)
	bars := 30
	if all {
		bars = max(bars, len(d.RateHistory))
	}
	if s.Width > 0 {
		bars = min(bars, s.Width-Width(text)-10-len(sep)) // 10 is the label's
	}
	if spark := sparkline(d.RateHistory, bars, s); spark != "" {
		text += sep + spark
	}
	add(Plain, "rate", text)

	text = "not begun" + sep
	if !a.WindowEnd.IsZero() {
		text = fmt.Sprintf("%s to %s", s.clock(a.WindowStart), s.clock(a.WindowEnd)) + sep
	}
	text += plural(a.WindowRequests, "request")
	if a.ThresholdRequests != nil {
		text += ", alert above " + number(*a.ThresholdRequests)
	}
	if !a.WindowEnd.IsZero() {
		text += sep + "next check in " + span(max(a.WindowEnd.Sub(now), 0))
	}
	if s.Width > 0 && Width(text) > s.Width-10 {
		text = strings.NewReplacer(sep, "  ", " requests,", ",", "next check in", "check in").Replace(text)
	}
	add(Plain, "window", text)

	if a.Baseline != nil {
		text = fmt.Sprintf("%s per %s%sthreshold +%d%%", number(*a.Baseline), Compact(st.Window), sep, a.ThresholdPercent)
		if a.LastRequests != nil {
			text += sep + "last " + number(*a.LastRequests)
			if a.LastIncomplete {
				text += " (incomplete)"
			}
		}
	} else {
		estimate := fmt.Sprintf("estimate so far %s per %s", number(a.EstimatedBaseline), Compact(st.Window))
		if a.EstimatedBaseline == 0 {
			estimate = "no estimate yet" // no interval of the learning is over, or none had a request
		}
		text = fmt.Sprintf("being learned%s%s%sthreshold +%d%%", sep, estimate, sep, a.ThresholdPercent)
	}
	add(Plain, "baseline", text)

	if all {
		add(Plain, "state", fmt.Sprintf("%s since %s%swindow %s%sthreshold +%d%%, %s requests", Clean(string(a.State)), s.clock(a.Since),
			sep, Compact(st.Window), sep, a.ThresholdPercent, s.Human(Number, optional(a.ThresholdRequests))))
		add(Plain, "learning", fmt.Sprintf("%s to %s%sestimated %s", s.clock(a.LearningStart), s.clock(a.LearningEnd), sep, number(a.EstimatedBaseline)))
		last := fmt.Sprintf("%s requests until %s", s.Human(Number, optional(a.LastRequests)), s.clock(a.LastWindowEnd))
		if a.LastIncomplete {
			last += " (incomplete)"
		}
		add(Plain, "last", last)
		add(Plain, "interval", fmt.Sprintf("%s%s%s in that of %s%srange %s to %s%shttpctl %s", Compact(st.Interval), sep,
			plural(st.IntervalRequests, "request"), s.clock(st.IntervalStart), sep, s.clock(st.Since), s.clock(st.Until), sep, Clean(st.Version)))
	}
	if tone, text, known := OutcomesText(d, s, sep, s.Width-10); known {
		add(tone, "outcomes", text)
	}
	tone, text = FleetText(d, sep)
	add(tone, "hosts", text)
	tone, text = Plain, countsText(Loss(st.Loss))
	if text != "nothing" {
		tone, text = Warn, s.pick("⚠ ", "! ")+text
	}
	if none != "" {
		tone, text = Warn, none
	}
	if unread := UnreadText(st); unread != "" {
		text += sep + unread
	}
	add(tone, "not seen", text)
	if all {
		captured := "-"
		if st.Packets != nil {
			captured = number(*st.Packets)
		}
		add(Plain, "packets", captured+sep+"other protocols "+countsText(st.OtherProtocols))
	}
	if why := WhyNothing(d); why != "" {
		add(Warn, "no HTTP", why)
	}
	if len(a.JoinedHosts) > 0 {
		add(Warn, "joined", Clean(strings.Join(a.JoinedHosts, ", "))+" since the baseline was learned")
	}
	for _, w := range st.Warnings { // which end in the reason, and what to do
		label := "warning"
		for _, line := range Wrap(Clean(w), max(s.Width-10, 0), WarningLines, s.ellipsis()) {
			add(Warn, label, line)
			label = " "
		}
	}
	for _, n := range d.Notes {
		add(Faint, "note", Clean(n))
	}
	return lines
}

// StateText says in words what the state means.
func StateText(d *Dashboard, s Style) string {
	a := &d.Status.Alert
	now := d.Status.Time.Truncate(time.Second) // as the title says it
	since := " since " + s.clock(a.Since) + " (" + span(max(now.Sub(a.Since), 0)) + ")"
	if a.Since.IsZero() {
		since = ""
	}
	switch a.State {
	case Learning:
		if a.LearningEnd.IsZero() {
			return "  waits for the first buckets of an agent"
		}
		return fmt.Sprintf("  %s left, until %s", span(max(a.LearningEnd.Sub(now), 0)), s.clock(a.LearningEnd))
	case Alerting:
		text := since
		if a.LastRequests != nil && a.Baseline != nil && *a.Baseline > 0 {
			above := float64(*a.LastRequests-*a.Baseline) / float64(*a.Baseline)
			text += fmt.Sprintf(": %s in the last window, %s above baseline", number(*a.LastRequests), percent(above))
		}
		return text
	case Dismissed:
		return since + ": requests are back within the threshold"
	}
	return since
}

// OutcomesText says how the exchanges ended and how long responses took, from the list of status codes; known is false without. Where it
// is longer than room columns, if that is positive, it is said more tightly, and without their number.
func OutcomesText(d *Dashboard, s Style, sep string, room int) (_ Tone, text string, known bool) {
	i := slices.IndexFunc(d.Tops, func(t Top) bool { return len(t.Keys) == 1 && t.Keys[0] == "status" })
	if i < 0 || ClassTotal(d.Tops[i].Classes) == 0 {
		return Plain, "", false
	}
	t := &d.Tops[i]
	all := ClassTotal(t.Classes)
	of := map[string]uint64{}
	for _, c := range t.Classes {
		of[c.Name] = c.Value
	}
	share := func(class string) string { return s.Human(Share, float64(of[class])/float64(all)) }
	parts := []string{"5xx " + share("5xx"), "4xx " + share("4xx"), "no answer " + share("-"), "of " + s.Human(Number, int64(all))}
	between := "  "
	say := func() string {
		text := strings.Join(parts, sep)
		if l := t.Latency; l != nil && l.Count > 0 {
			text += sep + "p50 " + s.Human(Duration, l.P50) + between + "p95 " + s.Human(Duration, l.P95) + between + "p99 " + s.Human(Duration, l.P99)
		}
		return text
	}
	if text = say(); room > 0 && Width(text) > room {
		sep, between, parts = "  ", " ", parts[:3]
		text = say()
	}
	if of["5xx"]*100 > all {
		return Warn, text, true
	}
	return Plain, text, true
}

// FleetText counts hosts by health and names those late or gone.
func FleetText(d *Dashboard, sep string) (Tone, string) {
	f := d.Status.Fleet
	text := fmt.Sprintf("%d reporting%s%d late%s%d gone", f.Reporting, sep, f.Late, sep, f.Gone)
	var names []string
	for _, h := range d.Hosts {
		if h.Health == Late || h.Health == Gone {
			names = append(names, Clean(h.Name)+" is "+string(h.Health))
		}
	}
	if len(names) > 0 {
		text += sep + strings.Join(names, ", ")
	}
	switch {
	case f.Gone > 0:
		return Bad, text
	case f.Late > 0 || f.Reporting == 0:
		return Warn, text
	}
	return Plain, text
}

// sparkline draws the newest values, at most so many, as bars of eighths, the
// largest one full. It draws nothing where few would show nothing.
func sparkline(values []uint64, most int, s Style) string {
	if most < 5 {
		return ""
	}
	values = values[max(0, len(values)-most):]
	var top uint64
	for _, v := range values {
		top = max(top, v)
	}
	if s.ASCII || top == 0 {
		return ""
	}
	bars := []rune("▁▂▃▄▅▆▇█")
	var b strings.Builder
	for _, v := range values {
		b.WriteRune(bars[int(float64(v)/float64(top)*float64(len(bars)-1)+0.5)])
	}
	return b.String()
}

// panel is one list of the dashboard.
type panel struct {
	name  string
	grid  *Grid
	empty string   // instead of rows
	foot  []string // below the rows
	rows  int      // how many may be drawn
}

// alertsName is the name of the panel of alerts.
const alertsName = "alerts"

// topPanel shows a list: its rows, or all that the answer has of it.
func topPanel(t *Top, s Style, all bool) *panel {
	g := TopGrid(t)
	if !all {
		g.Other = nil
	}
	if len(t.Keys) > 0 && t.Title != "" { // the title heads the key, which saves a line
		g.Columns[1].Head, g.Columns[1].Short = strings.ToUpper(Clean(t.Title)), g.Columns[1].Head
	}
	p := &panel{name: Clean(t.Name), grid: g, empty: "nothing yet", rows: len(g.Rows)}
	switch {
	case all:
		p.foot = append(topNotes(s, t), totalNote(s, t))
	case t.DamagedIntervals > 0:
		p.foot = []string{plural(t.DamagedIntervals, "damaged interval") + " left out"}
	case t.Skipped > 0:
		p.foot = []string{plural(t.Skipped, "bucket") + " of another version left out"}
	}
	return p
}

// totalNote says what the shares of a list are of.
func totalNote(s Style, t *Top) string {
	return fmt.Sprintf("%s: %s, %s.", Clean(t.Title), plural(t.Total, "hit"), s.stretch(t.Since, t.Until))
}

func alertPanel(d *Dashboard, s Style) *panel {
	shown := d.Alerts
	shown.Time = shown.Time.Truncate(time.Second) // as in the header, that an open alert is as old here
	g := AlertsGrid(&shown, s)
	g.Columns[0].Head = "ALERTS"
	g.Columns[1].Wide = true // the scope
	for i := range g.Columns {
		if n := g.Columns[i].Name; n == "baseline" || n == "threshold_percent" {
			g.Columns[i].Wide = true
		}
	}
	p := &panel{name: alertsName, grid: g, empty: "none", rows: len(g.Rows)}
	if len(g.Rows) > 0 {
		p.foot = []string{AlertSummary(&d.Alerts)}
	}
	return p
}

// height is the panel's lines, without the empty line above it.
func (p *panel) height() int { return 1 + max(p.rows, 1) + len(p.foot) }

func (p *panel) draw(s Style, wide bool) []string {
	g := *p.grid
	g.Rows = g.Rows[:p.rows]
	lines := g.lines(s, wide, false)
	if p.rows == 0 {
		lines = append(lines, s.line(Faint, p.empty))
	}
	for _, f := range p.foot {
		lines = append(lines, s.line(Faint, f))
	}
	return lines
}

// allot decides how many groups of panels are shown and how many rows each
// panel has, so that they need at most room lines. It gives each a few rows
// first, then one more to all in turn. cutRows says that some panel has not all of its rows.
func allot(groups [][]*panel, room int) (shown int, cutRows bool) {
	const few = 3
	want := map[*panel]int{}
	for _, group := range groups {
		for _, p := range group {
			want[p] = p.rows
			p.rows = min(p.rows, few)
		}
	}
	need := func() int {
		total := 0
		cutRows = false
		for _, group := range groups[:shown] {
			tallest := 0
			for _, p := range group {
				tallest = max(tallest, p.height())
				cutRows = cutRows || p.rows < want[p]
			}
			total += 1 + tallest
		}
		if shown < len(groups) || cutRows {
			total++ // the line that names the rest
		}
		return total
	}
	shown = len(groups)
	for shown > 0 && need() > room {
		shown--
	}
	for grew := true; grew; {
		grew = false
		for _, group := range groups[:shown] {
			var grown []*panel
			for _, p := range group {
				if p.rows < want[p] {
					p.rows++
					grown = append(grown, p)
				}
			}
			if need() > room {
				for _, p := range grown {
					p.rows--
				}
				continue
			}
			grew = grew || len(grown) > 0
		}
	}
	need() // cutRows, as it is now
	return shown, cutRows
}

// beside joins two blocks of lines, the left of which is n columns wide.
func beside(left, right []string, n int) []string {
	out := make([]string, max(len(left), len(right)))
	for i := range out {
		var l, r string
		if i < len(left) {
			l = left[i]
		}
		if i < len(right) {
			r = right[i]
		}
		if r == "" {
			out[i] = l
			continue
		}
		out[i] = l + strings.Repeat(" ", max(n-Columns(l), 0)+gutter) + r
	}
	return out
}

// Columns is the width of a line of a Frame, without its colours.
func Columns(line string) int {
	for {
		i := strings.Index(line, "\x1b[")
		if i < 0 {
			return Width(line)
		}
		j := strings.IndexByte(line[i:], 'm')
		if j < 0 { // not one of Paint's
			return Width(line)
		}
		line = line[:i] + line[i+j+1:]
	}
}

// dashboardCSV writes every value of the dashboard on a line of its own.
func dashboardCSV(w io.Writer, d *Dashboard) error {
	v := newValues(w)
	v.object("status", statusObject(&d.Status))
	for i := range d.Tops {
		v.top(&d.Tops[i])
	}
	v.grid("alerts", 0, AlertsGrid(&d.Alerts, Style{}))
	v.put("alerts", "", "", "max_duration_seconds", d.Alerts.MaxDuration)
	v.put("alerts", "", "", "average_duration_seconds", d.Alerts.AverageDuration)
	v.grid("hosts", 1, HostsGrid(d.Hosts))
	step := d.Status.Interval
	for i, n := range d.RateHistory {
		v.put("rate_history", fmt.Sprint(i+1), Compact(time.Duration(len(d.RateHistory)-1-i)*step)+" ago", "requests", n)
	}
	v.list("notes", "note", d.Notes)
	return v.end()
}

// dashboardMarkdown writes the header as a list, and every list as a table.
func dashboardMarkdown(w io.Writer, s Style, d *Dashboard) error {
	s.Color, s.Width = false, 0
	lines := header(d, s, true)
	if _, err := io.WriteString(w, "## "+MarkdownText(lines[0])+"\n\n"); err != nil {
		return err
	}
	if err := markdownItems(w, lines[1:]); err != nil {
		return err
	}
	grids := []*Grid{AlertsGrid(&d.Alerts, s), HostsGrid(d.Hosts)}
	grids[0].Title, grids[1].Title = "Alerts", "Hosts"
	if len(d.Alerts.Alerts) > 0 {
		grids[0].Notes = []string{AlertSummary(&d.Alerts)}
	}
	for i := range d.Tops {
		g := TopGrid(&d.Tops[i])
		g.Notes = append(topNotes(s, &d.Tops[i]), totalNote(s, &d.Tops[i]))
		grids = append(grids, g)
	}
	for _, g := range grids {
		if _, err := io.WriteString(w, "\n"); err != nil {
			return err
		}
		if err := g.Markdown(w, s); err != nil {
			return err
		}
	}
	return nil
}
