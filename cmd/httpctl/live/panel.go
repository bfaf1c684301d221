package live

import (
	"cmp"
	"slices"
	"strings"

	"github.com/httpctl/httpctl/pkg/view"
)

// panel is one list: the hosts, the alerts, or a top list, whether this program knows its dimension or not.
type panel struct {
	name, title string
	columns     []view.Column
	rows        []*row // those that are shown, in order
	all         []*row
	keys        []string // the columns of the API that Enter filters by, parallel to row.keys; nil: it cannot
	shown       int      // how many of the columns are the list's keys, from the first one
	value       int      // the column that bars are of
	total       float64  // of that column, over all of the list
	note        string   // of the answer, about this list
	empty       string
	other       *view.Row // what the rows do not show
}

// row is one row of a panel.
type row struct {
	id    string // of the same thing in the next answer
	keys  []string
	cells []any
	tone  view.Tone
	text  string // what patterns are matched against, once one was
}

// names of the panels that are no top lists.
const (
	hostsName  = "host"
	alertsName = "alerts"
)

// wayIn is the order in which one goes from the fleet to what is wrong; other lists follow as they came.
var wayIn = []string{hostsName, "domain", "section", "status"}

// panelsOf makes the panels of an answer.
func panelsOf(d *view.Dashboard, s view.Style) []*panel {
	out := []*panel{hostPanel(d.Hosts)}
	for i := range d.Tops {
		out = append(out, topPanel(&d.Tops[i]))
	}
	if len(d.Alerts.Alerts) > 0 {
		out = append(out, alertPanel(&d.Alerts, s))
	}
	rank := func(p *panel) int {
		if i := slices.Index(wayIn, p.name); i >= 0 {
			return i
		}
		if p.name == alertsName {
			return len(wayIn)
		}
		return len(wayIn) + 1
	}
	slices.SortStableFunc(out, func(a, b *panel) int { return cmp.Compare(rank(a), rank(b)) })
	for _, n := range d.Notes {
		if name, text, ok := strings.Cut(n, ": "); ok {
			if i := slices.IndexFunc(out, func(p *panel) bool { return p.name == name }); i >= 0 {
				out[i].note = text
			}
		}
	}
	return out
}

// fleetNotes are the notes that are about no list that is shown.
func (m *Model) fleetNotes() (out []string) {
	for _, n := range m.d.Notes {
		if name, _, ok := strings.Cut(n, ": "); !ok || m.panel(name) == nil {
			out = append(out, n)
		}
	}
	return out
}

func hostPanel(hosts []view.Host) *panel {
	g := view.HostsGrid(hosts)
	p := &panel{name: hostsName, title: "HOSTS", columns: g.Columns, keys: []string{"host"}, shown: 1, value: g.Column("rate"),
		empty: "no agent has reported yet"}
	names := map[string]int{}
	for _, h := range hosts {
		names[h.Name]++
	}
	for i, r := range g.Rows {
		name := hosts[i].Name
		if names[name] > 1 || name == "" {
			name = hosts[i].ID
		}
		p.all = append(p.all, &row{id: hosts[i].ID, keys: []string{name}, cells: r.Cells, tone: r.Tone})
		p.total += amount(r.Cells[p.value])
	}
	// Who is in trouble comes first, then who has most to do.
	slices.SortStableFunc(p.all, func(a, b *row) int {
		return cmp.Or(cmp.Compare(b.trouble(), a.trouble()), cmp.Compare(amount(b.cells[p.value]), amount(a.cells[p.value])))
	})
	return p
}

func (r *row) trouble() int {
	switch r.tone {
	case view.Bad:
		return 2
	case view.Warn:
		return 1
	}
	return 0
}

func topPanel(t *view.Top) *panel {
	g := view.TopGrid(t)
	p := &panel{name: t.Name, title: strings.ToUpper(view.Clean(cmp.Or(t.Title, t.Name))), columns: g.Columns[1:], shown: len(t.Keys),
		value: len(t.Keys), total: float64(t.Total), empty: "nothing yet"}
	p.columns[p.value].Drop = 0
	filters := true
	for _, k := range t.Keys {
		filters = filters && slices.Contains(t.Filters, k)
	}
	if filters && len(t.Keys) > 0 {
		p.keys = t.Keys
	}
	rows := make([]row, len(g.Rows)) // in one piece
	p.all = make([]*row, len(rows))
	for i, r := range g.Rows {
		rows[i] = row{id: strings.Join(t.Rows[i].Keys, "\x00"), keys: t.Rows[i].Keys, cells: r.Cells[1:], tone: r.Tone}
		p.all[i] = &rows[i]
	}
	if g.Other != nil {
		p.other = &view.Row{Cells: g.Other.Cells[1:]}
	}
	return p
}

func alertPanel(a *view.Alerts, s view.Style) *panel {
	g := view.AlertsGrid(a, s)
	p := &panel{name: alertsName, title: "ALERTS", columns: g.Columns, shown: 1, value: -1, empty: "none"}
	for i, r := range g.Rows {
		p.all = append(p.all, &row{id: alertID(&a.Alerts[i]), cells: r.Cells, tone: r.Tone})
	}
	return p
}

// arrange filters and sorts the rows.
func (p *panel) arrange(l *listState) {
	p.rows = p.all
	if l.pattern.re != nil {
		p.rows = nil
		for _, r := range p.all {
			if r.text == "" {
				r.text = r.texts(p)
			}
			if l.pattern.keeps(r.text) {
				p.rows = append(p.rows, r)
			}
		}
	}
	i := slices.IndexFunc(p.columns, func(c view.Column) bool { return c.Name == l.sort })
	if l.sort == "" || i < 0 {
		return
	}
	rows := make([]*row, len(p.rows))
	for k, from := range view.Order(len(p.rows), func(k int) any { return p.rows[k].cells[i] }, !l.ascends) {
		rows[k] = p.rows[from]
	}
	p.rows = rows
}

// texts are what a pattern is matched against: the keys, and words such as a host's health.
func (r *row) texts(p *panel) string {
	var out []string
	for i, c := range p.columns {
		if text, ok := r.cells[i].(string); ok && (i < p.shown || c.Kind == view.Word || !c.Wide) {
			out = append(out, view.Clean(text))
		}
	}
	return strings.Join(out, " ")
}

// sortNext chooses the next column to sort by, after the last one the order in which the rows came.
func (p *panel) sortNext(l *listState) {
	next := 0
	if l.sort != "" {
		next = 1 + slices.IndexFunc(p.columns, func(c view.Column) bool { return c.Name == l.sort })
	}
	for next < len(p.columns) && p.columns[next].Wide {
		next++
	}
	if next >= len(p.columns) {
		l.sort = ""
		return
	}
	p.sortAs(l, next)
}

// sortAs sorts by a column: the largest first, but words by the alphabet.
func (p *panel) sortAs(l *listState, column int) {
	l.sort = p.columns[column].Name
	kind := p.columns[column].Kind
	l.ascends = kind == view.Text || kind == view.Word
}

func alertID(a *view.Alert) string { return a.Scope + " " + a.Start.String() }
