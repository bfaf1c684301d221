package live

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/httpctl/httpctl/pkg/view"
)

// tall is the height from which the rate is drawn as a chart of several lines.
const tall = 36

// label heads a line of the header.
const label = 10

// header draws what stands above the panels, each line of at most w columns.
func (m *Model) header(w int) (lines []string) {
	s := m.style()
	sep := "   "
	d := *m.d // as it is now: clocks go on between the answers
	d.Status.Time = m.clock()
	st, a := &d.Status, &d.Status.Alert
	add := func(t view.Tone, name, text string) {
		if name != "" {
			text = view.Pad(name, label) + text
		}
		lines = append(lines, m.ink.paint(ink(t), view.Cut(text, w, m.ellipsis())))
	}
	value := func(k view.Kind, cell any) string { return s.Human(k, cell) }
	lines = append(lines, m.title(m.pathText(), false, w))
	if text := m.whenText(); text != "" {
		add(view.Warn, "", text)
	}
	word, tone := view.StateWord(a.State, s)
	if a.State == view.Learning {
		lines = append(lines, m.learning(&d, w)...)
	} else {
		text := word + view.StateText(&d, s)
		if a.Baseline != nil {
			text += sep + "baseline " + value(view.Number, *a.Baseline) + " per " + view.Compact(st.Window)
		}
		add(tone, "", text)
	}
	width := st.Interval.Seconds()
	b := band{}
	if a.Baseline != nil && st.Window > 0 && m.ofFleet() { // one host's rate is not held against that of all
		b.baseline = float64(*a.Baseline) * width / st.Window.Seconds()
	}
	if a.ThresholdRequests != nil && st.Window > 0 && m.ofFleet() {
		b.threshold = float64(*a.ThresholdRequests) * width / st.Window.Seconds()
	}
	average, none := value(view.Rate, st.RateAverage), view.NoData(&d, s)
	if none != "" {
		average = "-"
	}
	text := view.Pad("rate", label) + "now " + value(view.Rate, st.RateNow) + sep + "average " + average
	if b.threshold > 0 && width > 0 {
		text += sep + "alert above " + value(view.Rate, b.threshold/width)
	}
	text = view.Cut(text, w, m.ellipsis())
	if s.Height >= tall {
		lines = append(lines, text)
		values, length := m.lately(w - label)
		rows := m.chart(values, b, w-label, 4)
		for i, r := range rows {
			name := ""
			switch {
			case i == 0 && len(values) > 0 && width > 0:
				name = value(view.Rate, max(float64(slices.Max(values)), b.threshold*1.15)/width)
			case i == len(rows)-1:
				name = view.Compact(length)
			}
			lines = append(lines, m.ink.paint(ink(view.Faint), view.Pad(view.Cut(name, label-1, ""), label))+r)
		}
	} else {
		left := w - view.Width(text) - len(sep)
		if values, _ := m.lately(min(left, 60)); left >= 5 && len(values) >= 5 {
			text += sep + m.chart(values, b, min(left, len(values)), 1)[0]
		}
		lines = append(lines, text)
	}
	n := value(view.Number, int64(a.WindowRequests))
	text = n + " requests"
	if a.ThresholdRequests != nil {
		limit := ", alert above " + value(view.Number, *a.ThresholdRequests)
		text += limit
		n += limit
	}
	short := len(text)
	if !a.WindowEnd.IsZero() {
		text += sep + "next check in " + value(view.Span, max(a.WindowEnd.Sub(st.Time.Truncate(time.Second)), 0))
	}
	if a.LastRequests != nil {
		text += sep + "last " + value(view.Number, *a.LastRequests)
		if a.LastIncomplete {
			text += " (incomplete)"
		}
	}
	text += sep + fmt.Sprintf("%s since %s", value(view.Number, int64(st.Requests)), value(view.Moment, st.Since))
	if view.Width(text) > w-label {
		text = strings.Replace(strings.ReplaceAll(n+text[short:], sep, "  "), "next check in", "check in", 1)
	}
	add(view.Plain, "window", text)
	tone, text, known := view.OutcomesText(&d, s, sep, w-label)
	if !known {
		text = "no outcomes yet"
	}
	add(tone, "outcomes", text)
	tone, text = view.FleetText(&d, sep)
	add(tone, "hosts", text)
	tone, text = notSeen(&d, s)
	if none != "" {
		tone, text = view.Warn, none
	}
	if unread := view.UnreadText(st); unread != "" {
		text += sep + unread
	}
	add(tone, "not seen", text)
	if why := view.WhyNothing(&d); why != "" {
		add(view.Warn, "no HTTP", why)
	}
	if len(a.JoinedHosts) > 0 {
		add(view.Warn, "joined", view.Clean(strings.Join(a.JoinedHosts, ", "))+" since the baseline was learned")
	}
	for _, t := range st.Warnings {
		name := "warning"
		for _, line := range view.Wrap(view.Clean(t), w-label, view.WarningLines, m.ellipsis()) {
			add(view.Warn, name, line)
			name = " "
		}
	}
	if notes := m.fleetNotes(); len(notes) > 0 {
		add(view.Faint, "note", view.Clean(strings.Join(notes, "; ")))
	}
	return lines
}

// title is the first line of each screen: what is shown, and when; on those without the header the state, too.
func (m *Model) title(text string, state bool, w int) string {
	s := m.o.Style
	now := m.clock()
	if s.Location != nil {
		now = now.In(s.Location)
	} else {
		now = now.UTC()
	}
	right := now.Format("2006-01-02 15:04:05 MST")
	if w < 100 {
		right = now.Format("15:04:05 MST")
	}
	tone := view.Strong
	if state {
		var word string
		word, tone = view.StateWord(m.d.Status.Alert.State, s)
		right = word + "  " + right
	}
	text = view.Cut("httpctl  "+text, max(w-view.Width(right)-2, 0), m.ellipsis())
	text = view.Pad(text, w-view.Width(right))
	return m.ink.paint(ink(view.Strong), text) + m.ink.paint(ink(tone), view.Cut(right, w, ""))
}

// learning is the screen's upper part as long as it is not known what is normal.
func (m *Model) learning(d *view.Dashboard, w int) (lines []string) {
	s, a := m.style(), &d.Status.Alert
	word, tone := view.StateWord(a.State, s)
	add := func(i ink, text string) { lines = append(lines, m.ink.paint(i, view.Cut(text, w, m.ellipsis()))) }
	add(ink(view.Plain), "")
	add(ink(tone), "  "+word+view.StateText(d, s))
	whole := a.LearningEnd.Sub(a.LearningStart)
	if done := d.Status.Time.Sub(a.LearningStart); !a.LearningEnd.IsZero() && !a.LearningStart.IsZero() && whole > 0 {
		share := min(max(float64(done)/float64(whole), 0), 1)
		n := max(min(w-label-10, 60), 1)
		left, right := "│", "│"
		if s.ASCII {
			left, right = "[", "]"
		}
		lines = append(lines, "  "+left+m.ink.paint(bar, horizontal(share, n, s.ASCII))+right+fmt.Sprintf(" %d%%", int(share*100)))
	}
	text := "-"
	if a.EstimatedBaseline > 0 && d.Status.Window > 0 {
		rate := float64(a.EstimatedBaseline) / d.Status.Window.Seconds()
		text = fmt.Sprintf("%s per %s, which is %s", s.Human(view.Number, a.EstimatedBaseline), view.Compact(d.Status.Window), s.Human(view.Rate, rate))
		text += fmt.Sprintf("; alerts would begin above %s", s.Human(view.Rate, rate*float64(100+a.ThresholdPercent)/100))
	}
	add(ink(view.Plain), "  Estimate so far: "+text)
	add(ink(view.Faint), "  What is normal here is being learned. Until then nothing alerts.")
	add(ink(view.Plain), "")
	return lines
}

// notSeen says which share of the packets the kernel had no room for, and counts all that was not seen.
func notSeen(d *view.Dashboard, s view.Style) (view.Tone, string) {
	loss := view.Loss(d.Status.Loss)
	if len(loss) == 0 {
		return view.Plain, "nothing"
	}
	var packets, drops uint64
	for _, h := range d.Hosts {
		for _, c := range h.Counters {
			switch c.Name {
			case "packets":
				packets += c.Value
			case "kernel_drops":
				drops += c.Value
			}
		}
	}
	text := s.Human(view.List, loss)
	if drops > 0 {
		share := float64(drops) / float64(packets+drops)
		part := s.Human(view.Share, share)
		if share < 0.001 {
			part = "less than 0.1%"
		}
		text = part + " of the packets: " + text
	}
	if s.ASCII {
		return view.Warn, "! " + text
	}
	return view.Warn, "⚠ " + text
}
