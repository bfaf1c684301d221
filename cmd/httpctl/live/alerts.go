package live

import (
	"strings"
	"time"

	"github.com/httpctl/httpctl/pkg/view"
)

// alertsScreen draws the history: a line of time with the alerts on it, each with its duration in the list
// below, and all of the selected one.
func (m *Model) alertsScreen(w, h int) []string {
	s := m.style()
	title := "alerts of the fleet"
	if m.when != (stretch{}) {
		title += ", in the time that is shown"
	}
	lines := []string{m.title(title, true, w), ""}
	p := m.panel(alertsName)
	if p == nil {
		text := "  No alert in what is kept."
		if m.when != (stretch{}) {
			text = "  No alert in this time."
		}
		return append(lines, m.ink.paint(ink(view.Faint), text))
	}
	lines = append(lines, m.timeline(w)...)
	lines = append(lines, "")
	foot := []string{"", m.ink.paint(ink(view.Faint), view.Cut("  "+view.AlertSummary(&m.d.Alerts), w, m.ellipsis()))}
	l := m.list(alertsName)
	if l.index < len(p.rows) {
		if a := m.alert(p.rows[l.index].id); a != nil { // and Enter looks at its time
			foot = append([]string{"", view.Cut("  hits of its windows, the newest first: "+s.Human(view.List, a.Entries), w, m.ellipsis())}, foot[1:]...)
			if len(a.JoinedHosts) > 0 {
				foot = append(foot, view.Cut("  joined after the baseline was learned: "+view.Clean(strings.Join(a.JoinedHosts, ", ")), w, m.ellipsis()))
			}
		}
	}
	h -= len(lines) + len(foot)
	list := m.drawList(p, w, max(h, 2), false)
	m.zone(p, 0, len(lines), w, len(list))
	return append(append(lines, list...), foot...)
}

func (m *Model) alert(id string) *view.Alert {
	for i := range m.d.Alerts.Alerts {
		if a := &m.d.Alerts.Alerts[i]; alertID(a) == id {
			return a
		}
	}
	return nil
}

// timeline draws when alerts lasted, from the first to now.
func (m *Model) timeline(w int) []string {
	s, now := m.style(), m.clock()
	from := now.Add(-time.Hour)
	for i := range m.d.Alerts.Alerts {
		if start := m.d.Alerts.Alerts[i].Start; start.Before(from) {
			from = start
		}
	}
	n := max(w-4, 1)
	line, full := '─', '█'
	if s.ASCII {
		line, full = '-', '#'
	}
	marks := make([]bool, n)
	place := func(t time.Time) int {
		return min(max(int(float64(t.Sub(from))/float64(now.Sub(from))*float64(n)), 0), n-1)
	}
	for i := range m.d.Alerts.Alerts {
		a := &m.d.Alerts.Alerts[i]
		for k := place(a.Start); k <= place(a.Start.Add(a.Duration(now))); k++ {
			marks[k] = true
		}
	}
	var b, run strings.Builder
	last := false
	flush := func() {
		i := ink(view.Faint)
		if last {
			i = ink(view.Bad)
		}
		b.WriteString(m.ink.paint(i, run.String()))
		run.Reset()
	}
	for _, is := range marks {
		if is != last {
			flush()
			last = is
		}
		if is {
			run.WriteRune(full)
		} else {
			run.WriteRune(line)
		}
	}
	flush()
	begin, end := s.Human(view.Moment, from), "now"
	return []string{"  " + b.String(), m.ink.paint(ink(view.Faint), view.Cut("  "+begin+strings.Repeat(" ", max(n-len(begin)-len(end), 1))+end, w, m.ellipsis()))}
}
