package live

import (
	"fmt"
	"slices"
	"strings"

	"github.com/httpctl/httpctl/pkg/view"
)

// gap is the space between columns, and mark that before each row for the sign of the selected one.
const (
	gap  = 2
	mark = 2
)

// table is the columns of a list as they fit.
type table struct {
	columns []int // of panel.columns, in order
	widths  []int // parallel
	bar     int   // width of the bars behind the keys; 0: none
	trend   bool  // a sign of it stands behind the bar
}

// drawList draws a panel in h lines of w columns: the heading and rows. Every line is filled up to w. wide
// offers the columns that short lists leave out.
func (m *Model) drawList(p *panel, w, h int, wide bool) []string {
	s := m.style()
	l := m.list(p.name)
	space := max(h-1, 0)
	foot := ""
	if wide && p.note != "" && space > 3 {
		foot = p.note
		space--
	}
	l.show(space)
	rows := p.rows[min(l.top, len(p.rows)):]
	rows = rows[:min(len(rows), space)]
	texts := make([][]string, len(rows))
	for i, r := range rows {
		texts[i] = make([]string, len(r.cells))
		for j, c := range p.columns {
			if wide || !c.Wide {
				texts[i][j] = s.Human(c.Kind, r.cells[j])
			}
		}
	}
	room := w - mark
	trend := m.trends[p.name] != nil && room >= 36
	if trend {
		room -= 2
	}
	title := p.heads(l)
	most := room / 3
	if l.pattern.text != "" { // how many rows are left is what one looks for
		most = room / 2
	}
	t := p.fit(texts, room, wide, min(view.Width(title), most))
	t.trend = trend
	has := p.name == m.current()
	lines := append(make([]string, 0, h), m.heading(p, l, &t, title, w, has))
	longest := 0.0
	if p.value >= 0 {
		for _, r := range p.rows {
			longest = max(longest, amount(r.cells[p.value]))
		}
	}
	for i, r := range rows {
		lines = append(lines, m.drawRow(p, &t, r, texts[i], longest, w, has && l.top+i == l.index))
	}
	if len(rows) == 0 && space > 0 {
		text := p.empty
		if l.pattern.text != "" && len(p.all) > 0 {
			text = "none of " + fmt.Sprint(len(p.all)) + " matches"
		}
		lines = append(lines, m.ink.paint(ink(view.Faint), m.fill("  "+text, w)))
	}
	for len(lines) < space+1 {
		lines = append(lines, strings.Repeat(" ", w))
	}
	if foot != "" {
		lines = append(lines, m.ink.paint(ink(view.Faint), m.fill("  "+view.Clean(foot), w)))
	}
	return lines
}

// fill cuts or pads text to w columns.
func (m *Model) fill(text string, w int) string {
	return view.Pad(view.Cut(text, w, m.ellipsis()), w)
}

func (m *Model) ellipsis() string {
	if m.o.Style.ASCII {
		return "~"
	}
	return "…"
}

// fit chooses columns for a width: the keys and the value always, the share as long as there is room for it
// beside a key of a third of the width, others beside one of three fifths: which row it is tells more than when it was last seen. What is left over is the bar's. title is what the
// title above the first key needs at least.
func (p *panel) fit(texts [][]string, w int, wide bool, title int) (t table) {
	natural := make([]int, len(p.columns))
	for j, c := range p.columns {
		if j >= p.shown {
			natural[j] = view.Width(c.Head)
		}
		for i := range texts {
			natural[j] = max(natural[j], view.Width(texts[i][j]))
		}
		if c.Kind == view.List && !wide {
			natural[j] = min(natural[j], 24)
		}
	}
	if p.shown == 1 {
		natural[0] = max(natural[0], title)
	}
	keys := 0
	for j := range p.shown {
		keys += natural[j] + gap
	}
	least := 0 // the bar's, with a space before
	if p.value >= 0 && w >= 36 {
		least = 6 + 1
	}
	chosen := map[int]bool{}
	room := w - min(keys, max(w/3, 12)) - least // for what stands beside them
	longer := min(keys, max(w*3/5, 12)) - min(keys, max(w/3, 12))
	for j := range p.shown {
		chosen[j] = true
	}
	var rest []int
	for j, c := range p.columns {
		switch {
		case j < p.shown || c.Wide && !wide:
		case j == p.value || c.Kind == view.Word: // a host's health is more than its colour
			chosen[j] = true
			room -= natural[j] + gap
		default:
			rest = append(rest, j)
		}
	}
	// The share tells most in the least space; then as the columns say themselves.
	order := func(j int) int {
		if p.columns[j].Name == "share" {
			return 0
		}
		if p.columns[j].Wide {
			return 100
		}
		return 1 + p.columns[j].Drop
	}
	slices.SortStableFunc(rest, func(a, b int) int { return order(a) - order(b) })
	for _, j := range rest {
		n := natural[j]
		if p.columns[j].Kind == view.List {
			n = min(n, max(room-gap, 10)) // it may be cut
		}
		if order(j) > 0 {
			room, longer = room-longer, 0
		}
		if room -= n + gap; room < 0 {
			break
		}
		natural[j] = n
		chosen[j] = true
	}
	used := 0
	for j := range p.columns {
		if chosen[j] {
			t.columns = append(t.columns, j)
			t.widths = append(t.widths, natural[j])
			if j >= p.shown {
				used += natural[j] + gap
			}
		}
	}
	// The keys share what is left; the widest is cut first.
	free := w - used
	if free-least < min(keys-gap, 14) {
		least = 0
	}
	for keys-gap > free-least {
		widest := 0
		for k := range p.shown {
			if t.widths[k] > t.widths[widest] {
				widest = k
			}
		}
		if t.widths[widest] <= 1 {
			break
		}
		t.widths[widest]--
		keys--
	}
	if left := free - (keys - gap) - 1; left >= 4 && p.value >= 0 {
		t.bar = min(left, max(w/4, 8))
		if t.bar < left && p.shown > 0 { // what the bar does not need stays the keys', so that numbers stand at the edge
			t.widths[p.shown-1] += left - t.bar
		}
	} else if left >= 0 && p.shown > 0 { // or the heads, which end at the edge, would not stand above their columns
		left++
		if last := len(t.columns) - 1; p.value < 0 && p.columns[t.columns[last]].Kind == view.List { // without a bar, the list is what has more to say
			key := min(left, max(20-t.widths[p.shown-1], 0)) // the title stands there, too
			t.widths[last] += left - key
			left = key
		}
		t.widths[p.shown-1] += left
	}
	return t
}

// heads is the panel's title, how much of it is shown, and the names of its keys but for the first one, which it is itself.
func (p *panel) heads(l *listState) string {
	title := p.title
	if l.pattern.text != "" {
		title += fmt.Sprintf(" /%s %d of %d", view.Clean(l.pattern.text), len(p.rows), len(p.all))
	}
	if len(p.rows) > l.page && l.page > 0 {
		title += fmt.Sprintf(" %d-%d/%d", l.top+1, min(l.top+l.page, len(p.rows)), len(p.rows))
	}
	for j := 1; j < p.shown; j++ {
		title += " " + strings.ToLower(p.columns[j].Head)
	}
	return title
}

// heading is the title, and the heads of the columns.
func (m *Model) heading(p *panel, l *listState, t *table, title string, w int, has bool) string {
	s := m.o.Style
	var b strings.Builder
	end := 0
	var heads []string
	for k, j := range t.columns {
		if j < p.shown {
			continue
		}
		c := p.columns[j]
		head := c.Head
		if c.Name == l.sort {
			arrow := "↓"
			if l.ascends {
				arrow = "↑"
			}
			if s.ASCII {
				arrow = map[bool]string{true: "^", false: "v"}[l.ascends]
			}
			head = arrow + head
		}
		if view.Width(head) > t.widths[k] && c.Name != l.sort {
			head = view.Cut(head, t.widths[k], m.ellipsis())
		}
		if leftward(c) {
			head = view.Pad(head, t.widths[k])
		} else {
			head = strings.Repeat(" ", max(t.widths[k]-view.Width(head), 0)) + head
		}
		heads = append(heads, strings.Repeat(" ", gap)+head)
		end += gap + t.widths[k]
	}
	right := strings.Join(heads, "")
	sign := "  "
	if has {
		sign = "▸ "
		if s.ASCII {
			sign = "> "
		}
	}
	room := w - end
	if view.Width(right) > end { // a sign of sorting stands before its head
		room -= view.Width(right) - end
	}
	b.WriteString(m.fill(sign+title, max(room, 0)))
	b.WriteString(right)
	i := ink(view.Strong)
	if has {
		i = focused
	}
	return m.ink.paint(i, m.fill(b.String(), w))
}

func leftward(c view.Column) bool {
	return c.Kind == view.Text || c.Kind == view.Word || c.Kind == view.Flag || c.Kind == view.List
}

func (m *Model) drawRow(p *panel, t *table, r *row, texts []string, most float64, w int, is bool) string {
	var b strings.Builder
	sign := "  "
	if is {
		sign = "▸ "
		if m.o.Style.ASCII {
			sign = "> "
		}
	}
	plain := is // a row that is selected is drawn in one colour
	paint := func(i ink, text string) string {
		if plain {
			return text
		}
		return m.ink.paint(i, text)
	}
	b.WriteString(sign)
	used := mark
	for k, j := range t.columns {
		c := p.columns[j]
		if k > 0 {
			b.WriteString("  ")
			used += gap
		}
		text := view.CutPath(texts[j], t.widths[k], m.ellipsis())
		n := view.Width(text)
		space := strings.Repeat(" ", max(t.widths[k]-n, 0))
		if leftward(c) {
			text += space
		} else {
			text = space + text
		}
		used += max(t.widths[k], n)
		b.WriteString(paint(ink(r.tone), text))
		if t.bar > 0 && j == p.shown-1 {
			share := 0.0
			if most > 0 {
				share = amount(r.cells[p.value]) / most
			}
			b.WriteString(" " + paint(bar, horizontal(share, t.bar, m.o.Style.ASCII)))
			used += 1 + t.bar
		}
		if t.trend && j == p.shown-1 {
			b.WriteString(" " + m.sign(m.trend(p, r)))
			used += 2
		}
	}
	if used < w {
		b.WriteString(strings.Repeat(" ", w-used))
	}
	if is {
		return m.ink.paint(selected, b.String())
	}
	return b.String()
}
