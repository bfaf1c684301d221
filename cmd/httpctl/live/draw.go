package live

import (
	"fmt"
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"github.com/httpctl/httpctl/pkg/view"
)

// View implements tea.Model.
func (m *Model) View() tea.View {
	if m.stale {
		m.drawn, m.stale = m.draw(), false
	}
	return m.drawn
}

func (m *Model) draw() tea.View {
	v := tea.NewView(strings.Join(m.Lines(), "\n"))
	v.AltScreen = true
	if !m.noMouse {
		v.MouseMode = tea.MouseModeCellMotion
	}
	if m.input != nil {
		v.Cursor = tea.NewCursor(min(view.Width(m.input.prompt+m.input.text), m.o.Style.Width-1), m.o.Style.Height-1)
	}
	return v
}

// A smaller screen has room for the state and no more.
const (
	leastWidth  = 20
	leastHeight = 8
)

// Lines draws the picture: as many lines as the screen has, none wider than it is.
func (m *Model) Lines() []string {
	w, h := m.o.Style.Width, m.o.Style.Height
	if w <= 0 || h <= 0 {
		return nil
	}
	if w < leastWidth || h < leastHeight {
		word, tone := view.StateWord(m.d.Status.Alert.State, m.o.Style)
		lines := make([]string, h)
		lines[0] = m.ink.paint(ink(tone), view.Cut(word, w, ""))
		return lines
	}
	var trouble []string
	if !m.lost.IsZero() {
		trouble = m.trouble(w)
	}
	m.zones = m.zones[:0]
	body := m.body(w, h-len(trouble)-1)
	for i := range m.zones {
		m.zones[i].y += len(trouble)
	}
	if len(trouble) > 0 { // what is old looks old
		for i := range body {
			body[i] = m.ink.paint(ink(view.Faint), ansi.Strip(body[i]))
		}
	}
	lines := append(trouble, body...)
	if len(lines) > h-1 {
		lines = lines[:h-1]
	}
	for len(lines) < h-1 {
		lines = append(lines, "")
	}
	return append(lines, m.footer(w))
}

// trouble says since when and why there is no answer.
func (m *Model) trouble(w int) []string {
	s := m.o.Style
	location := s.Location
	if location == nil {
		location = time.UTC
	}
	sign := "✖ "
	if s.ASCII {
		sign = "X "
	}
	of := func(text string) string {
		return m.ink.paint(ink(view.Bad), view.Cut(text, w, m.ellipsis()))
	}
	return []string{
		of(fmt.Sprintf("%sNO ANSWER since %s (%s); this was seen at %s", sign, m.lost.In(location).Format("15:04:05"),
			m.now.Sub(m.lost).Round(time.Second), m.at.In(location).Format("15:04:05"))),
		of("  " + view.Clean(m.why)),
	}
}

// body draws what is between trouble and the last line, in h lines.
func (m *Model) body(w, h int) []string {
	switch m.screen {
	case help:
		return m.help(w, h)
	case single:
		if p := m.panel(m.focus); p != nil {
			lines := []string{m.title(m.pathText(), true, w), m.ink.paint(ink(view.Warn), view.Cut(m.whenText(), w, m.ellipsis()))}
			list := m.drawList(p, w, h-2, true)
			m.zone(p, 0, len(lines), w, len(list))
			return append(lines, list...)
		}
	case alerts:
		return m.alertsScreen(w, h)
	}
	lines := m.header(w)
	if most := h - 5; len(lines) > most { // a list has the last word
		lines = lines[:max(most, 1)]
	}
	return append(lines, m.grid(w, h-len(lines), len(lines))...)
}

const (
	panelWidth  = 39 // the least width of a panel beside others: two of them in 80 columns
	panelHeight = 5  // the least height: heading and four rows
	between     = 2  // columns between panels
)

// across is how many panels stand side by side.
func (m *Model) across() int {
	n := 1
	switch w := m.o.Style.Width; {
	case w >= 180:
		n = 3
	case w >= 2*panelWidth+between:
		n = 2
	}
	return max(min(n, len(m.panels)), 1)
}

// grid draws the panels side by side in h lines, from the row of panels on that has the focused one.
func (m *Model) grid(w, h, y int) []string {
	if h < 2 || len(m.panels) == 0 {
		return nil
	}
	n := m.across()
	rows := (len(m.panels) + n - 1) / n
	fit := max(min(rows, h/(panelHeight+1)), 1)
	at := max(slices.IndexFunc(m.panels, func(p *panel) bool { return p.name == m.focus }), 0) / n
	m.first = max(min(m.first, at, rows-fit), at-fit+1, 0)
	wide := (w - (n-1)*between) / n
	var lines []string
	for r := range fit {
		tall := (h - len(lines)) / (fit - r)
		lines = append(lines, "")
		var block []string
		for c := range n {
			i := (m.first+r)*n + c
			if i >= len(m.panels) {
				break
			}
			drawn := m.drawList(m.panels[i], wide, tall-1, false)
			m.zone(m.panels[i], c*(wide+between), y+len(lines), wide, tall-1)
			for k, line := range drawn {
				if c == 0 {
					block = append(block, line)
				} else {
					block[k] += strings.Repeat(" ", between) + line
				}
			}
		}
		lines = append(lines, block...)
	}
	return lines
}

// zone notes where a list was drawn.
func (m *Model) zone(p *panel, x, y, w, h int) {
	m.zones = append(m.zones, zone{x, y, w, h, p.name, m.list(p.name).top})
}

// footer is the last line: what is typed, what there is to say, or the keys.
func (m *Model) footer(w int) string {
	if m.input != nil {
		text := m.input.prompt + view.Clean(m.input.text)
		if m.input.why != "" {
			text += "   " + m.ink.paint(ink(view.Warn), view.Cut(view.Clean(m.input.why), max(w-view.Width(text)-3, 0), m.ellipsis()))
			return text
		}
		if m.input.prompt == "time: " && m.input.text == "" {
			return text + m.ink.paint(ink(view.Faint), view.Cut("   90m, yesterday, 10:00..11:00; nothing is now", max(w-view.Width(text), 0), m.ellipsis()))
		}
		if p := m.list(m.focus).pattern; p.plain {
			text += "   (no regular expression: looked for as it is)"
		}
		return view.Cut(text, w, m.ellipsis())
	}
	if m.say != "" {
		return m.ink.paint(ink(view.Warn), view.Cut(view.Clean(m.say), w, m.ellipsis()))
	}
	right := ""
	if m.screen == overview {
		if n, all := m.seen(), len(m.panels); n < all {
			right = fmt.Sprintf("  lists %d-%d/%d", m.first*m.across()+1, m.first*m.across()+n, all)
		}
	}
	if view.Width(right) > w/2 {
		right = ""
	}
	var b strings.Builder
	used := 0
	for _, k := range m.hints() {
		text := k.keys + " " + k.short
		if used+view.Width(text)+gap+view.Width(right) > w {
			break
		}
		b.WriteString(m.ink.paint(key, k.keys) + m.ink.paint(ink(view.Faint), " "+k.short+"  "))
		used += view.Width(text) + gap
	}
	return b.String() + strings.Repeat(" ", max(w-used-view.Width(right), 0)) + m.ink.paint(ink(view.Faint), right)
}

// seen is how many panels the last picture had.
func (m *Model) seen() int {
	h := m.o.Style.Height - 1 - len(m.header(m.o.Style.Width))
	n := m.across()
	rows := (len(m.panels) + n - 1) / n
	fit := max(min(rows, h/(panelHeight+1)), 1)
	return min(fit*n, len(m.panels)-m.first*n)
}
