package live

import (
	"slices"
	"strings"

	tea "charm.land/bubbletea/v2"

	"github.com/httpctl/httpctl/pkg/view"
)

// binding is a key, or several with a space between, what it does, and that in one word for the last line.
type binding struct {
	keys, ascii, long, short string
	hint                     func(*Model) bool // whether the last line names it
}

func never(*Model) bool      { return false }
func inPast(m *Model) bool   { return m.screen == overview && m.when.past() }
func always(*Model) bool     { return true }
func onPanels(m *Model) bool { return m.screen == overview }
func onList(m *Model) bool   { return m.screen == overview || m.screen == single }
func deeper(m *Model) bool {
	return m.screen != overview || len(m.path) > 0 || m.when != stretch{} || m.list(m.focus).pattern.text != ""
}

// bindings are the keys, in the order in which the screen of keys names them.
var bindings = []binding{
	{"Tab ←→", "Tab", "the next list, the list beside (Shift-Tab goes back)", "list", onPanels},
	{"↑↓", "Up Down", "a row up, down; also k and j, PgUp and PgDn, Home and End", "row", onList},
	{"Enter", "", "into the row: all lists show only what belongs to it", "into", onList},
	{"Esc", "", "one step back; also Backspace", "back", deeper},
	{"?", "", "these keys", "keys", always},
	{"q", "", "end; also Ctrl-C. Ctrl-Z stops it until fg", "end", always},
	{"/", "", "only rows with the text or regular expression; !text: those without", "filter", onList},
	{"s", "", "sort by the next column; S turns the order around", "sort", onList},
	{"z", "", "this list in all of the screen, with all columns and more rows", "zoom", onPanels},
	{"a", "", "the alert history on a time line", "alerts", always},
	{"h", "", "the hosts with their health", "hosts", always},
	{"t", "", "another time: 90m, 10:00..11:00, yesterday..today; nothing is now", "time", onPanels},
	{"Space", "", "stop the clock, to look at what there was; go on", "pause", onPanels},
	{"[ ]", "", "back and forth by half of the time that is shown; { } by all of it", "earlier, later", inPast},
	{":", "", "commands, Tab completes; KEY=VALUE goes into any value; see below", "command", never},
}

func (m *Model) hints() (out []binding) {
	for _, b := range bindings {
		if b.hint(m) {
			out = append(out, m.letters(b))
		}
	}
	return out
}

// letters are the keys as the terminal can show them.
func (m *Model) letters(b binding) binding {
	if m.o.Style.ASCII && b.ascii != "" {
		b.keys = b.ascii
	}
	return b
}

// key does what a key means where the person is.
func (m *Model) key(k tea.KeyPressMsg) tea.Cmd {
	m.say = ""
	name := k.String()
	switch name {
	case "ctrl+c":
		return tea.Quit
	case "ctrl+z":
		return m.o.Suspend
	}
	if m.input != nil {
		return m.typeKey(k)
	}
	p := m.panel(m.current())
	switch name {
	case "q", "Q":
		return tea.Quit
	case "?":
		m.toggle(help)
	case "a":
		m.toggle(alerts)
	case "h":
		if m.focus != hostsName {
			m.screen, m.focus = overview, hostsName
		}
		m.toggle(single)
		return m.ask()
	case "z":
		if m.screen == overview || m.screen == single {
			m.toggle(single)
			return m.ask()
		}
	case "esc", "backspace":
		return m.back()
	case "alt+esc": // which is what a terminal sends for Esc twice, quickly
		return tea.Batch(m.back(), m.back())
	case "tab", "right", "shift+tab", "left":
		if m.screen == overview {
			m.turn(map[string]int{"tab": 1, "right": 1, "shift+tab": -1, "left": -1}[name])
		}
	case "enter":
		if p != nil && m.screen != help {
			return m.enter(p)
		}
	case "/":
		if p != nil && m.screen != alerts && m.screen != help {
			text := m.list(p.name).pattern.text
			m.input = &input{prompt: "/", text: text, before: text}
		}
	case ":":
		m.input = &input{prompt: ":"}
	case "t":
		m.input = &input{prompt: "time: "}
	case "space":
		m.pause()
		return m.ask()
	case "[", "]", "{", "}":
		m.shift(map[string]float64{"[": -0.5, "]": 0.5, "{": -1, "}": 1}[name])
		return m.ask()
	case "s", "S":
		if p != nil && m.screen != help {
			l := m.list(p.name)
			if name == "s" {
				p.sortNext(l)
			} else {
				l.ascends = !l.ascends
			}
			m.arrange(p)
			m.tell("in the order of the aggregator")
			if l.sort != "" {
				m.tell("sorted by " + l.sort)
			}
		}
	default:
		if p != nil && m.screen != help {
			m.scroll(p, name)
		}
	}
	return nil
}

// scroll moves the selected row.
func (m *Model) scroll(p *panel, name string) {
	l := m.list(p.name)
	switch name {
	case "down", "j":
		l.move(p, 1)
	case "up", "k":
		l.move(p, -1)
	case "pgdown":
		l.move(p, max(l.page, 1))
	case "pgup":
		l.move(p, -max(l.page, 1))
	case "home", "g":
		l.move(p, -len(p.rows))
	case "end", "G":
		l.move(p, len(p.rows))
	}
}

// toggle shows a screen, or, where it is shown already, the panels again.
func (m *Model) toggle(s screen) {
	if m.screen == s {
		s = overview
	}
	m.screen = s
}

// turn gives the keys to another panel.
func (m *Model) turn(n int) {
	i := slices.IndexFunc(m.panels, func(p *panel) bool { return p.name == m.focus })
	if len(m.panels) > 0 {
		m.focus = m.panels[(i+n+len(m.panels))%len(m.panels)].name
	}
}

// enter does what Enter means on the selected row.
func (m *Model) enter(p *panel) tea.Cmd {
	if m.screen != alerts {
		return m.into(p)
	}
	l := m.list(p.name)
	if l.index >= len(p.rows) {
		return nil
	}
	if a := m.alert(p.rows[l.index].id); a != nil {
		m.toAlert(a)
		return m.ask()
	}
	return nil
}

// into follows the selected row.
func (m *Model) into(p *panel) tea.Cmd {
	l := m.list(p.name)
	if l.index >= len(p.rows) {
		return nil
	}
	if p.keys == nil {
		m.tell("this list is not one to go into")
		return nil
	}
	r := p.rows[l.index]
	st := step{from: p.name}
	for i, column := range p.keys {
		switch value := r.keys[i]; {
		case value == "":
			m.tell("an empty " + column + " cannot be asked for")
			return nil
		case !m.has(column, value):
			st.filters = append(st.filters, Filter{column, value})
		}
	}
	if len(st.filters) == 0 {
		m.tell("that is where you are")
		return nil
	}
	m.path = append(m.path, st)
	m.forget()
	m.screen = overview
	m.focus = m.onward(p.name)
	return m.ask()
}

// onward is the list to look at after one step into another: the next of the way in that is not decided yet.
func (m *Model) onward(from string) string {
	for _, name := range wayIn[max(slices.Index(wayIn, from), 0):] {
		if !m.has(name, "") && m.panel(name) != nil {
			return name
		}
	}
	return from
}

// back undoes the last thing.
func (m *Model) back() tea.Cmd {
	l := m.list(m.focus)
	switch {
	case m.screen == single:
		m.screen = overview
		return m.ask()
	case m.screen != overview:
		m.screen = overview
	case l.pattern.text != "":
		l.pattern = pattern{}
		if p := m.panel(m.focus); p != nil {
			m.arrange(p)
		}
	case len(m.path) > 0:
		last := m.path[len(m.path)-1]
		m.path = m.path[:len(m.path)-1]
		m.forget()
		m.focus = last.from
		return m.ask()
	case m.when != stretch{}:
		m.look(stretch{})
		return m.ask()
	default:
		m.tell("this is the whole fleet; q ends")
	}
	return nil
}

// typeKey takes a key into the line that is typed.
func (m *Model) typeKey(k tea.KeyPressMsg) tea.Cmd {
	i := m.input
	i.why = ""
	switch k.String() {
	case "enter":
		return m.done()
	case "tab":
		if i.prompt == ":" {
			m.complete()
		}
		return nil
	case "esc":
		i.text = i.before
		m.typed()
		m.input = nil
		return nil
	case "backspace":
		if i.text == "" {
			m.input = nil
			return nil
		}
		i.back()
	case "ctrl+u":
		i.text = ""
	default:
		i.add(k.Text)
	}
	m.typed()
	return nil
}

// typed filters by what is typed so far.
func (m *Model) typed() {
	if m.input.prompt != "/" {
		return
	}
	m.list(m.focus).pattern = newPattern(m.input.text)
	if p := m.panel(m.focus); p != nil {
		m.arrange(p)
	}
}

// done does what the typed line says. One that cannot be done stays, with why.
func (m *Model) done() (cmd tea.Cmd) {
	i := m.input
	var err error
	switch i.prompt {
	case "/":
		if m.list(m.focus).pattern.text != "" {
			cmd = m.ask() // with more rows to find in
		}
	case ":":
		cmd, err = m.command(i.text)
	default:
		if err = m.read(i.text); err == nil {
			cmd = m.ask()
		}
	}
	if i.why = ""; err != nil {
		i.why = err.Error()
		return nil
	}
	m.input = nil
	return cmd
}

// help is the screen of keys.
func (m *Model) help(w, h int) []string {
	lines := []string{m.title("keys", true, w), ""}
	for _, b := range bindings {
		b = m.letters(b)
		lines = append(lines, "  "+m.ink.paint(key, view.Pad(b.keys, 10))+view.Cut(b.long, max(w-12, 0), m.ellipsis()))
	}
	lines = append(lines, "")
	if h >= len(lines)+len(commands)+4 {
		for _, c := range commands {
			lines = append(lines, "  "+m.ink.paint(key, view.Cut(view.Pad(":"+c.name+c.argument, 21), w-2, ""))+view.Cut(c.long, max(w-23, 0), m.ellipsis()))
		}
	} else { // their names, as many in a line as there is room for
		line := " "
		for _, c := range commands {
			text := " :" + c.name + c.argument
			if view.Width(line+text) > w && line != " " {
				lines = append(lines, view.Cut(line, w, m.ellipsis()))
				line = " "
			}
			line += text
		}
		lines = append(lines, view.Cut(line, w, m.ellipsis()))
	}
	lines = append(lines, "")
	for _, text := range strings.Split(helpText, "\n") {
		lines = append(lines, m.ink.paint(ink(view.Faint), view.Cut("  "+text, w, m.ellipsis())))
	}
	return lines[:min(len(lines), h)]
}

const helpText = `ERROR is how much more hits may be. Arrows: more or less of the last five
minutes than of all. Lists are of the last hour, or of --since and --until.`
