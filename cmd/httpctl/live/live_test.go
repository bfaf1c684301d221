package live

import (
	"errors"
	"fmt"
	"image/color"
	"slices"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"github.com/httpctl/httpctl/pkg/testkit/golden"
	"github.com/httpctl/httpctl/pkg/view"
)

// looks compares a picture with the one that was looked at. Escapes are shown, as a file of them would act on a terminal.
func looks(t *testing.T, name string, lines []string) {
	t.Helper()
	golden.Check(t, name, strings.ReplaceAll(strings.Join(lines, "\n"), "\x1b", "␛")+"\n")
}

// press types keys: names with spaces between, or letters.
func press(m *Model, keys ...string) (cmd tea.Cmd) {
	for _, k := range keys {
		msg := tea.KeyPressMsg{Text: k, Code: []rune(k)[0]}
		switch k {
		case "tab":
			msg = tea.KeyPressMsg{Code: tea.KeyTab}
		case "enter":
			msg = tea.KeyPressMsg{Code: tea.KeyEnter}
		case "esc":
			msg = tea.KeyPressMsg{Code: tea.KeyEsc}
		case "down":
			msg = tea.KeyPressMsg{Code: tea.KeyDown}
		case "up":
			msg = tea.KeyPressMsg{Code: tea.KeyUp}
		case "end":
			msg = tea.KeyPressMsg{Code: tea.KeyEnd}
		case "backspace":
			msg = tea.KeyPressMsg{Code: tea.KeyBackspace}
		case "shift+tab":
			msg = tea.KeyPressMsg{Code: tea.KeyTab, Mod: tea.ModShift}
		case "space":
			msg = tea.KeyPressMsg{Text: " ", Code: tea.KeySpace}
		case "ctrl+c":
			msg = tea.KeyPressMsg{Code: 'c', Mod: tea.ModCtrl}
		}
		_, cmd = m.Update(msg)
	}
	return cmd
}

var sizes = []struct{ w, h int }{{80, 24}, {120, 40}, {200, 60}}

var styles = []struct {
	name  string
	style view.Style
}{
	{"colour", view.Style{Color: true}}, {"nocolor", view.Style{}}, {"ascii", view.Style{ASCII: true}},
}

func TestScreens(t *testing.T) {
	for _, size := range sizes {
		for _, st := range styles {
			style := st.style
			style.Width, style.Height = size.w, size.h
			name := fmt.Sprintf("%s-%dx%d", st.name, size.w, size.h)
			looks(t, "overview-"+name, at(fixture(), style).Lines())
			if st.name != "nocolor" {
				continue
			}
			looks(t, "learning-"+name, at(learningFixture(), style).Lines())
			for _, s := range []struct{ name, keys string }{{"alerts", "a"}, {"hosts", "h"}, {"keys", "?"}} {
				m := at(fixture(), style)
				press(m, s.keys)
				looks(t, s.name+"-"+name, m.Lines())
			}
		}
	}
}

// TestDumb: a dumb terminal gets what a pipe gets, as wide as it is.
func TestDumb(t *testing.T) {
	for _, size := range sizes {
		var b strings.Builder
		if err := view.WriteDashboard(&b, view.FormatTable, view.Style{Width: size.w, Height: size.h}, fixture()); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(b.String(), "\x1b") {
			t.Errorf("%v: an escape: %q", size, b.String())
		}
		lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
		for _, line := range lines {
			if n := view.Columns(line); n > size.w {
				t.Errorf("%v: %d columns: %q", size, n, line)
			}
		}
		looks(t, fmt.Sprintf("dumb-%dx%d", size.w, size.h), lines)
	}
}

// TestColumns: whatever a host or a section is called, a line is as wide as the screen at most, and a list
// exactly as wide as it was told to be.
func TestColumns(t *testing.T) {
	for _, ascii := range []bool{false, true} {
		for w := 1; w < 210; w += 7 {
			for h := 1; h < 64; h += 3 {
				for _, keys := range []string{"", "a", "h", "?", "z", "/"} {
					m := at(fixture(), view.Style{Width: w, Height: h, ASCII: ascii})
					if keys != "" {
						press(m, keys)
					}
					lines := m.Lines()
					if len(lines) != h {
						t.Fatalf("%dx%d after %q has %d lines", w, h, keys, len(lines))
					}
					for i, line := range lines {
						if n := view.Columns(line); n > w {
							t.Fatalf("%dx%d after %q: line %d has %d columns: %q", w, h, keys, i, n, line)
						}
						if strings.ContainsAny(line, "\x1b\x07\n") {
							t.Fatalf("%dx%d after %q: line %d carries a control: %q", w, h, keys, i, line)
						}
					}
				}
			}
			m := at(fixture(), view.Style{Width: w, Height: 24, ASCII: ascii})
			for _, p := range m.panels {
				if w < leastWidth {
					continue
				}
				for i, line := range m.drawList(p, w, 9, w > 100) {
					if n := view.Columns(line); n != w {
						t.Errorf("list %s in %d columns: line %d has %d: %q", p.name, w, i, n, line)
					}
				}
			}
		}
	}
}

// TestColourSaysNothingAlone: without its colours a picture is that of NO_COLOR.
func TestColourSaysNothingAlone(t *testing.T) {
	for _, size := range sizes {
		plain, painted := at(fixture(), view.Style{Width: size.w, Height: size.h}), at(fixture(), view.Style{Width: size.w, Height: size.h, Color: true})
		for _, keys := range []string{"tab", "down", "a", "a", "h", "?"} {
			press(plain, keys)
			press(painted, keys)
			if got, want := ansi.Strip(strings.Join(painted.Lines(), "\n")), strings.Join(plain.Lines(), "\n"); got != want {
				t.Fatalf("%v after %s, in colour:\n%s\nwant\n%s", size, keys, got, want)
			}
		}
		if painted.Update(tea.BackgroundColorMsg{Color: color.White}); strings.Contains(strings.Join(painted.Lines(), "\n"), "\x1b[33m") {
			t.Errorf("on a light background there is yellow")
		}
	}
}

// answers runs a command, and those that come of it, and gives the model what came, but for ticks.
func answers(m *Model, cmd tea.Cmd) {
	if cmd == nil {
		return
	}
	switch msg := cmd().(type) {
	case tea.BatchMsg:
		for _, c := range msg {
			answers(m, c)
		}
	case answer:
		m.Update(msg)
	}
}

// pass lets time pass, since noon, and answers what is asked then.
func pass(m *Model, d time.Duration) {
	_, cmd := m.Update(tick(noon.Add(d)))
	if m.waits { // else there is only the next tick, which would be waited for
		answers(m, cmd().(tea.BatchMsg)[0])
	}
}

// asker returns a model that asks, and the requests that it made.
func asker(t *testing.T) (*Model, func() string) {
	t.Helper()
	var asked []string
	m := at(fixture(), view.Style{Width: 120, Height: 40})
	m.o.Ask = func(r Request) (*view.Dashboard, error) {
		asked = append(asked, fmt.Sprintf("{%v %d}", r.Filters, r.Rows))
		return fixture(), nil
	}
	return m, func() string {
		text := fmt.Sprint(asked)
		asked = nil
		return text
	}
}

// TestIntoAndBack walks from the fleet to a status and back.
func TestIntoAndBack(t *testing.T) {
	m, asked := asker(t)
	press(m, "down", "down")
	for _, c := range []struct{ key, want, path, focus string }{
		{"enter", "[{[{host web-1}] 0}]", "fleet › host web-1", "domain"},
		{"enter", "[{[{host web-1} {domain example.org}] 0}]", "fleet › host web-1 › domain example.org", "section"},
		{"enter", "[{[{host web-1} {domain example.org} {section example.org/cart}] 0}]", "fleet › host web-1 › domain example.org › section example.org/cart", "status"},
		{"enter", "[{[{host web-1} {domain example.org} {section example.org/cart} {status 200}] 0}]", "fleet › host web-1 › domain example.org › section example.org/cart › status 200", "status"},
		{"enter", "[]", "fleet › host web-1 › domain example.org › section example.org/cart › status 200", "status"},
		{"esc", "[{[{host web-1} {domain example.org} {section example.org/cart}] 0}]", "fleet › host web-1 › domain example.org › section example.org/cart", "status"},
		{"backspace", "[{[{host web-1} {domain example.org}] 0}]", "fleet › host web-1 › domain example.org", "section"},
		{"esc", "[{[{host web-1}] 0}]", "fleet › host web-1", "domain"},
		{"esc", "[{[] 0}]", "fleet", "host"},
		{"esc", "[]", "fleet", "host"},
	} {
		answers(m, press(m, c.key))
		if got := asked(); got != c.want || m.pathText() != c.path || m.focus != c.focus {
			t.Errorf("%s: asked %s at %q in %s, want %s at %q in %s", c.key, got, m.pathText(), m.focus, c.want, c.path, c.focus)
		}
	}
	if !strings.Contains(m.Lines()[39], "whole fleet") {
		t.Errorf("Esc at the top says %q", m.Lines()[39])
	}
	// A list of several keys, and one of a plug-in that this program does not know.
	m.focus = "routes"
	answers(m, press(m, "enter"))
	if got, want := asked(), "[{[{domain example.org} {section example.org/cart} {method POST} {status 503}] 0}]"; got != want {
		t.Errorf("into routes: asked %s, want %s", got, want)
	}
	answers(m, press(m, "esc"))
	m.focus = "tld"
	answers(m, press(m, "down", "enter"))
	if got := asked(); !strings.Contains(got, "{tld 公司}") {
		t.Errorf("into a plug-in's list: asked %s", got)
	}
}

// TestOvertaken: the answer to a question before the last one is not shown.
func TestOvertaken(t *testing.T) {
	m, _ := asker(t)
	late := press(m, "enter")
	answers(m, press(m, "esc"))
	other := fixture()
	other.Status.Alert.Scope = "old"
	m.o.Ask = func(Request) (*view.Dashboard, error) { return other, nil }
	answers(m, late)
	if m.d.Status.Alert.Scope != "fleet" || m.waits {
		t.Errorf("after an old answer: scope %q, waits %v", m.d.Status.Alert.Scope, m.waits)
	}
}

func TestFilter(t *testing.T) {
	m, asked := asker(t)
	press(m, "tab", "tab") // sections
	type_ := func(text string) []string {
		m.list(m.focus).pattern = pattern{}
		press(m, "/")
		m.Update(tea.PasteMsg{Content: text})
		var keys []string
		for _, r := range m.panel(m.focus).rows {
			keys = append(keys, r.keys[0])
		}
		return keys
	}
	for _, c := range []struct {
		text string
		want int
	}{{"cart", 1}, {"CART", 0}, {"!cart", 11}, {"^example.org/[e-g]$", 3}, {"!^example", 2}, {"買い物", 1}, {"[e-", 0}, {`\x1b`, 0}, {"!", 12}, {"", 12}} {
		if got := type_(c.text); len(got) != c.want {
			t.Errorf("/%s keeps %q, want %d rows", c.text, got, c.want)
		}
		press(m, "esc")
	}
	type_("[e-")
	if last := m.Lines()[39]; !strings.Contains(last, "/[e-   (no regular expression: looked for as it is)") {
		t.Errorf("while typing: %q", last)
	}
	press(m, "esc")
	press(m, "/", "c", "x", "backspace", "a", "q")
	if m.input == nil || m.input.text != "caq" {
		t.Fatalf("typed %+v, want caq: keys are letters here", m.input)
	}
	press(m, "backspace", "r")
	asked()
	answers(m, press(m, "enter"))
	if got := asked(); got != "[{[] 500}]" || len(m.panel("section").rows) != 1 {
		t.Errorf("a filter asked %s and shows %d rows, want more rows to filter, and one", got, len(m.panel("section").rows))
	}
	if text := strings.Join(m.Lines(), "\n"); !strings.Contains(text, "▸ SECTIONS /car 1 of 12") {
		t.Errorf("no sign of the filter in\n%s", text)
	}
	press(m, "esc")
	if n := len(m.panel("section").rows); n != 12 {
		t.Errorf("Esc leaves %d rows of 12", n)
	}
	m.input = &input{}
	m.input.add(strings.Repeat("日", 200) + "\x1b[31m")
	if n := len(m.input.text); n > maxInput || strings.Contains(m.input.text, "\x1b") {
		t.Errorf("%d bytes were taken, or an escape: %q", n, m.input.text)
	}
}

func TestSort(t *testing.T) {
	m, _ := asker(t)
	press(m, "tab", "tab")
	first := func() string { return m.panel("section").rows[0].keys[0] }
	var got []string
	for range 6 {
		press(m, "s")
		got = append(got, m.list("section").sort+" "+first())
	}
	want := []string{"key example.org/", "hits example.org/cart", "share example.org/cart", "last_seen example.org/cart", " example.org/cart", "key example.org/"}
	if !slices.Equal(got, want) {
		t.Errorf("s sorts by %q, want %q", got, want)
	}
	if press(m, "S"); first() != "例え.テスト/買い物" {
		t.Errorf("S puts %q first", first())
	}
}

// TestSelectedRowStays: a row stays selected where it moves; who stands on the first, stays on the first.
func TestSelectedRowStays(t *testing.T) {
	m, _ := asker(t)
	press(m, "tab", "down") // shop.example.org
	moved := fixture()
	moved.Tops[1] = list("domain", "Domains", 300000, "new.example.org", "example.org", "x.example.org", "shop.example.org")
	m.take(moved)
	if l := m.list("domain"); m.panel("domain").rows[l.index].keys[0] != "shop.example.org" {
		t.Errorf("the selected row is %d", l.index)
	}
	press(m, "up", "up", "up")
	m.take(fixture())
	if i := m.list("domain").index; i != 0 {
		t.Errorf("who stood on the first row stands on %d", i)
	}
	press(m, "end")
	m.take(moved)
	moved.Tops[1].Rows = nil
	m.take(moved)
	if m.Lines(); m.list("domain").index != 0 {
		t.Errorf("of no rows, the selected one is %d", m.list("domain").index)
	}
}

// TestAway: without an answer the last picture stays, dimmed, with since when, and a new one ends that.
func TestAway(t *testing.T) {
	m, _ := asker(t)
	m.o.Style.Color = true
	m.ink = newPalette(true, true)
	away := errors.New("127.0.0.1:7420: connection\x1b refused")
	var err error = away
	m.o.Ask = func(Request) (*view.Dashboard, error) { return fixture(), err }
	for i := 1; i <= 8; i++ {
		pass(m, time.Duration(i)*time.Second)
	}
	lines := m.Lines()
	if got, want := ansi.Strip(lines[0]), "✖ NO ANSWER since 12:00:06 (7s); this was seen at 12:00:05"; got != want {
		t.Errorf("first line %q, want %q", got, want)
	}
	if got, want := ansi.Strip(lines[1]), `  127.0.0.1:7420: connection\x1b refused`; got != want {
		t.Errorf("second line %q, want %q", got, want)
	}
	for i, line := range lines[2:39] {
		if strings.TrimSpace(line) != "" && (!strings.HasPrefix(line, m.ink[view.Faint]) || strings.Count(line, "\x1b") != 2) {
			t.Errorf("line %d is not dimmed: %q", i+2, line)
		}
	}
	looks(t, "away-colour-120x40", lines)
	err = nil
	pass(m, 20*time.Second)
	if got := m.Lines()[0]; strings.Contains(got, "NO ANSWER") {
		t.Errorf("after an answer: %q", got)
	}
}

// TestOnePictureForAnAnswer: the tick that asks draws nothing by itself, and an answer that nobody waits for neither.
func TestOnePictureForAnAnswer(t *testing.T) {
	m, _ := asker(t)
	first := m.View().Content
	_, cmd := m.Update(tick(noon.Add(time.Second)))
	if m.View().Content != first {
		t.Error("a tick that asks draws")
	}
	m.Update(answer{asked: 17, d: learningFixture()})
	if m.View().Content != first {
		t.Error("an answer to another question draws")
	}
	answers(m, cmd().(tea.BatchMsg)[0])
	m.Update(tick(noon.Add(2 * time.Second))) // asks for nothing
	if got := m.View().Content; !strings.Contains(got, "12:00:06 UTC") {
		t.Errorf("a clock stands still: %s", got)
	}
}
