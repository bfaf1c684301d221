package live

import (
	"slices"
	"strings"

	tea "charm.land/bubbletea/v2"

	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/view"
)

// commands are what can be typed behind a colon, besides KEY=VALUE and the name of a list.
var commands = []struct{ name, argument, long string }{
	{"since", " TIME[..TIME]", "look at another time, as with t"},
	{"now", "", "look at the present"},
	{"sort", " [-]COLUMN", "sort the list; with - the other way around"},
	{"top", "", "back to the whole fleet"},
	{"hosts", "", "as h"},
	{"alerts", "", "as a"},
	{"mouse", "", "leave the mouse to the terminal, which can mark text then, or take it again"},
	{"help", "", "as ?"},
	{"quit", "", "as q"},
}

// command runs what was typed behind a colon.
func (m *Model) command(text string) (tea.Cmd, error) {
	text = strings.TrimSpace(text)
	name, argument, _ := strings.Cut(text, " ")
	argument = strings.TrimSpace(argument)
	if key, value, ok := strings.Cut(text, "="); ok {
		return m.filterBy(strings.TrimSpace(key), strings.TrimSpace(value))
	}
	switch name {
	case "":
	case "q", "quit":
		return tea.Quit, nil
	case "since":
		if err := m.read(argument); err != nil {
			return nil, err
		}
		return m.ask(), nil
	case "now":
		m.look(stretch{})
		return m.ask(), nil
	case "sort":
		return nil, m.sortBy(argument)
	case "top":
		m.path, m.screen = nil, overview
		m.forget()
		return m.ask(), nil
	case "mouse":
		m.noMouse = !m.noMouse
	case "hosts":
		m.screen, m.focus = single, hostsName
		return m.ask(), nil
	case alertsName:
		m.screen = alerts
	case "help", "keys":
		m.screen = help
	default:
		if m.panel(name) == nil {
			return nil, m.unknown("command or list", name, m.names())
		}
		m.focus, m.screen = name, overview
	}
	return nil, nil
}

// unknown is an error about a name, with the nearest one that there is.
func (m *Model) unknown(what, name string, there []string) error {
	if near := config.Nearest(name, there); near != "" {
		return failure("there is no " + what + " " + name + "; did you mean " + near + "?")
	}
	return failure("there is no " + what + " " + name + "; there are: " + strings.Join(there, ", "))
}

// names are those of the commands and of the lists.
func (m *Model) names() (out []string) {
	for _, c := range commands {
		out = append(out, c.name)
	}
	for _, p := range m.panels {
		if !slices.Contains(out, p.name) {
			out = append(out, p.name)
		}
	}
	return out
}

// filterBy goes into what has the value in the column of one of the lists.
func (m *Model) filterBy(column, value string) (tea.Cmd, error) {
	columns := []string{"host"}
	for i := range m.d.Tops {
		for _, c := range m.d.Tops[i].Filters {
			if !slices.Contains(columns, c) {
				columns = append(columns, c)
			}
		}
	}
	switch {
	case !slices.Contains(columns, column):
		return nil, m.unknown("column", column, columns)
	case value == "":
		return nil, failure("which " + column + "? Such as " + column + "=VALUE")
	case m.has(column, value):
		return nil, failure("that is where you are")
	}
	m.path = append(m.path, step{filters: []Filter{{column, value}}, from: m.focus})
	m.forget()
	m.screen = overview
	return m.ask(), nil
}

// sortBy sorts the list that has the keys by a column.
func (m *Model) sortBy(text string) error {
	p := m.panel(m.current())
	if p == nil {
		return nil
	}
	name, other := strings.CutPrefix(strings.ToLower(text), "-")
	i := slices.IndexFunc(p.columns, func(c view.Column) bool { return c.Name == name || strings.EqualFold(c.Head, name) })
	if i < 0 {
		var there []string
		for _, c := range p.columns {
			there = append(there, c.Name)
		}
		return m.unknown("column", name, there)
	}
	p.sortAs(m.list(p.name), i)
	if other {
		m.list(p.name).ascends = !m.list(p.name).ascends
	}
	m.arrange(p)
	return nil
}

// complete completes the command that is typed, as far as it is the only one.
func (m *Model) complete() {
	var found []string
	for _, n := range m.names() {
		if strings.HasPrefix(n, m.input.text) {
			found = append(found, n)
		}
	}
	if len(found) == 0 {
		return
	}
	same := found[0]
	for _, n := range found[1:] {
		for !strings.HasPrefix(n, same) {
			same = same[:len(same)-1]
		}
	}
	m.input.text = same
}
