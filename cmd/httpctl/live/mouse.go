package live

import tea "charm.land/bubbletea/v2"

// zone is where a list was drawn: its heading in the first line, then rows from the first one on.
type zone struct {
	x, y, w, h int
	panel      string
	first      int // index of the row in the second line
}

// mouse does what the mouse means: a click gives a list the keys and selects a row, one on the selected row
// goes into it, the right button goes back, the wheel moves the row.
func (m *Model) mouse(msg tea.MouseMsg) tea.Cmd {
	at := msg.Mouse()
	var z *zone
	for i := range m.zones {
		if c := &m.zones[i]; at.X >= c.x && at.X < c.x+c.w && at.Y >= c.y && at.Y < c.y+c.h {
			z = c
		}
	}
	switch msg.(type) {
	case tea.MouseWheelMsg:
		if z == nil {
			return nil
		}
		switch at.Button {
		case tea.MouseWheelUp:
			m.list(z.panel).move(m.panel(z.panel), -1)
		case tea.MouseWheelDown:
			m.list(z.panel).move(m.panel(z.panel), 1)
		}
	case tea.MouseClickMsg:
		m.say = ""
		switch {
		case at.Button == tea.MouseRight:
			return m.back()
		case at.Button != tea.MouseLeft || z == nil:
			return nil
		}
		p, l := m.panel(z.panel), m.list(z.panel)
		had := m.current() == z.panel
		if m.screen != alerts {
			m.focus = z.panel
		}
		row := z.first + at.Y - z.y - 1
		switch {
		case at.Y == z.y || row >= len(p.rows):
		case had && row == l.index:
			return m.enter(p)
		default:
			l.move(p, row-l.index)
		}
	}
	return nil
}
