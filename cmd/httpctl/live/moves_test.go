package live

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/httpctl/httpctl/pkg/view"
)

// timed returns a model that asks, and the stretches of time that it asked for, from noon.
func timed(t *testing.T) (*Model, func() string) {
	t.Helper()
	m := at(fixture(), view.Style{Width: 120, Height: 40})
	var asked []string
	m.o.Ask = func(r Request) (*view.Dashboard, error) {
		text := "now"
		if !r.Since.IsZero() {
			text = r.Since.Sub(noon).String()
		}
		if !r.Until.IsZero() {
			text += ".." + r.Until.Sub(noon).String()
		}
		asked = append(asked, text)
		return fixture(), nil
	}
	m.o.When = func(text string, now time.Time) (time.Time, error) {
		d, err := time.ParseDuration(text)
		if err != nil {
			return time.Time{}, errors.New("want a time")
		}
		return now.Add(-d), nil
	}
	return m, func() string {
		text := strings.Join(asked, " ")
		asked = nil
		return text
	}
}

// enterLine types a line behind a key that asks for one.
func enterLine(m *Model, key, text string) {
	press(m, key)
	m.Update(tea.PasteMsg{Content: text})
	answers(m, press(m, "enter"))
}

func TestTime(t *testing.T) {
	m, asked := timed(t)
	for _, c := range []struct{ keys, want, line string }{
		{"space", "-1h0m0s..0s", "PAST 11:00:05 to 12:00:05"},
		{"[", "-1h30m0s..-30m0s", "PAST 10:30:05 to 11:30:05"},
		{"{", "-2h30m0s..-1h30m0s", "PAST 09:30:05 to 10:30:05"},
		{"]", "-2h0m0s..-1h0m0s", "PAST 10:00:05 to 11:00:05"},
		{"}", "now", ""}, // it would end now
		{"[", "-1h30m0s..-30m0s", "PAST 10:30:05"},
		{"space", "now", ""},
		{"t 90m", "-1h30m0s", "since 90m"},
		{"esc", "now", ""},
		{"t 3h..2h", "-3h0m0s..-2h0m0s", "PAST 09:00:05 to 10:00:05"},
		{": since 3h until 1h", "-3h0m0s..-1h0m0s", "PAST 09:00:05 to 11:00:05"},
		{"t now", "now", ""},
	} {
		switch key, text, line := strings.Cut(c.keys, " "); {
		case line:
			enterLine(m, key, text)
		default:
			answers(m, press(m, key))
		}
		if got := asked(); got != c.want {
			t.Errorf("%s asks for %q, want %q", c.keys, got, c.want)
		}
		picture := strings.Join(m.Lines(), "\n")
		if !strings.Contains(picture, c.line) || (c.line == "") != (m.whenText() == "") {
			t.Errorf("%s: want a line with %q in\n%s", c.keys, c.line, picture)
		}
	}
	for _, text := range []string{"1h..2h", "xyz", "1h..xyz", "-1h"} {
		enterLine(m, "t", text)
		if last := m.Lines()[39]; m.input == nil || asked() != "" || !strings.HasPrefix(last, "time: "+text+"   ") {
			t.Errorf("t %s is taken: %q", text, last)
		}
		press(m, "esc")
	}
	// A stretch that begins so long ago moves on with time; one of the past is asked for rarely.
	enterLine(m, "t", "90m")
	asked()
	m.take(fixture())
	m.now = noon.Add(time.Second)
	m.next = m.now
	pass(m, 2*time.Second)
	if got := asked(); got != "-1h29m58s" {
		t.Errorf("2 s later, 90m ago is %s", got)
	}
	enterLine(m, "t", "3h..2h")
	asked()
	for i := range 30 {
		pass(m, time.Duration(10+i)*time.Second)
	}
	if n := len(strings.Fields(asked())); n < 2 || n > 4 {
		t.Errorf("the past was asked for %d times in 30 s", n)
	}
}

func TestToAlert(t *testing.T) {
	m, asked := timed(t)
	press(m, "a")
	answers(m, press(m, "enter"))
	if got, want := asked(), "-6m5s..0s"; got != want || m.screen != overview {
		t.Errorf("to the alert that lasts: asked for %s, want %s", got, want)
	}
	press(m, "a", "down")
	answers(m, press(m, "enter"))
	if got, want := asked(), "-5h2m0s..-4h52m0s"; got != want {
		t.Errorf("to an old alert: asked for %s, want %s", got, want)
	}
	looks(t, "past-nocolor-120x40", m.Lines())
}

func TestCommands(t *testing.T) {
	m, asked := asker(t)
	for _, c := range []struct{ line, asks, path, focus string }{
		{"status=5xx", "status 5xx", "fleet › status 5xx", "host"},
		{"tld = 公司", "tld 公司", "fleet › status 5xx › tld 公司", "host"},
		{"tld", "", "fleet › status 5xx › tld 公司", "tld"},
		{"top", "[{[] 0}]", "fleet", "tld"},
		{"routes", "", "fleet", "routes"},
		{"", "", "fleet", "routes"},
	} {
		enterLine(m, ":", c.line)
		if got := asked(); !strings.Contains(got, c.asks) || (c.asks == "") != (got == "[]") || m.pathText() != c.path || m.focus != c.focus {
			t.Errorf(":%s: asked %s at %q in %s, want %s at %q in %s", c.line, got, m.pathText(), m.focus, c.asks, c.path, c.focus)
		}
	}
	for _, c := range []struct{ line, why string }{
		{"setcion", "there is no command or list setcion; did you mean section?"}, {"xyzzy=1", "there is no column xyzzy; there are: host, section"},
		{"status=", "which status? Such as status=VALUE"}, {"sort nothing", "there is no column nothing"}, {"since 2026", "want a time"},
	} {
		m.o.When = func(string, time.Time) (time.Time, error) { return time.Time{}, errors.New("want a time") }
		enterLine(m, ":", c.line)
		if last := m.Lines()[39]; m.input == nil || !strings.Contains(last, c.why) {
			t.Errorf(":%s says %q, want %q", c.line, last, c.why)
		}
		press(m, "esc")
	}
	enterLine(m, ":", "section")
	enterLine(m, ":", "sort -share")
	if l := m.list("section"); l.sort != "share" || !l.ascends || m.panel("section").rows[0].keys[0] != "example.org/k" {
		t.Errorf("sorted by %s, %q first", l.sort, m.panel("section").rows[0].keys[0])
	}
	for _, c := range []struct{ typed, want string }{{"us", "user_agent"}, {"s", "s"}, {"al", "alerts"}, {"xyz", "xyz"}, {"", ""}} {
		m.input = &input{prompt: ":", text: c.typed}
		if press(m, "tab"); m.input.text != c.want {
			t.Errorf(":%s and Tab is %q, want %q", c.typed, m.input.text, c.want)
		}
	}
	m.input = nil
	for _, c := range []struct {
		line string
		want screen
	}{{"hosts", single}, {"alerts", alerts}, {"help", help}} {
		if enterLine(m, ":", c.line); m.screen != c.want {
			t.Errorf(":%s shows screen %d, want %d", c.line, m.screen, c.want)
		}
	}
	press(m, ":", "q")
	if cmd := press(m, "enter"); cmd == nil || cmd() != tea.Quit() {
		t.Error(":q does not end it")
	}
	if v := m.View(); v.MouseMode == tea.MouseModeNone {
		t.Error("no mouse")
	}
	if enterLine(m, ":", "mouse"); m.View().MouseMode != tea.MouseModeNone {
		t.Error(":mouse does not leave the mouse to the terminal")
	}
}

func TestMouse(t *testing.T) {
	m, asked := asker(t)
	find := func(text string) (x, y int) {
		for y, line := range m.Lines() {
			if before, _, ok := strings.Cut(line, text); ok {
				return view.Width(before), y
			}
		}
		t.Fatalf("no %q on the screen", text)
		return 0, 0
	}
	click := func(text string, button tea.MouseButton) {
		x, y := find(text)
		_, cmd := m.Update(tea.MouseClickMsg{X: x, Y: y, Button: button})
		answers(m, cmd)
	}
	click("shop.example.org ", tea.MouseLeft)
	if l := m.list("domain"); m.focus != "domain" || l.index != 1 || asked() != "[]" {
		t.Errorf("a click selects row %d of %s", l.index, m.focus)
	}
	click("shop.example.org ", tea.MouseLeft)
	if got := asked(); !strings.Contains(got, "{domain shop.example.org}") {
		t.Errorf("a click on the selected row asks %s", got)
	}
	click("METHODS", tea.MouseLeft)
	if m.focus != "method" {
		t.Errorf("a click on a heading gives the keys to %s", m.focus)
	}
	click("METHODS", tea.MouseRight)
	if len(m.path) != 0 {
		t.Errorf("after the right button: %s", m.pathText())
	}
	x, y := find("USER AGENTS")
	for range 5 {
		m.Update(tea.MouseWheelMsg{X: x, Y: y + 1, Button: tea.MouseWheelDown})
	}
	m.Update(tea.MouseWheelMsg{X: x, Y: y + 1, Button: tea.MouseWheelUp})
	if i := m.list("user_agent").index; i != 1 {
		t.Errorf("the wheel moves to row %d, want 1", i)
	}
	// Where no list is, and below the last row, a click does nothing.
	focus := m.focus
	for _, at := range []tea.Mouse{{X: 0, Y: 0}, {X: 500, Y: 500}, {X: x, Y: y + 4}, {X: -1, Y: -1}} {
		at.Button = tea.MouseLeft
		m.Update(tea.MouseClickMsg(at))
		m.Update(tea.MouseWheelMsg(at))
	}
	if m.focus != focus && m.focus != "user_agent" {
		t.Errorf("clicks into nothing give the keys to %s", m.focus)
	}
	press(m, "a")
	click("dismissed", tea.MouseLeft)
	if i := m.list(alertsName).index; i != 1 {
		t.Errorf("a click in the history selects row %d", i)
	}
}

// TestFrameIsSmall: what little changed makes few bytes, so that the view is pleasant over a slow line.
func TestFrameIsSmall(t *testing.T) {
	d := bigFleet()
	out := newCounter()
	m := at(d, view.Style{Width: 120, Height: 40, Color: true})
	p := tea.NewProgram(quiet{m}, tea.WithInput(nil), tea.WithOutput(out), tea.WithWindowSize(120, 40), tea.WithoutSignals(), tea.WithFPS(120))
	done := make(chan error, 1)
	go func() { _, err := p.Run(); done <- err }()
	out.until(t, "host-199")
	before := out.n()
	after := bigFleet()
	after.Status.Time = after.Status.Time.Add(2 * time.Second)
	after.Status.RateNow, after.Status.Requests, after.Status.Alert.WindowRequests = 144.7, 346240, 9281
	for i := range after.Tops {
		for k := range after.Tops[i].Rows {
			after.Tops[i].Rows[k].Values[0].Number += int64(7 / (k + 1))
		}
	}
	p.Send(answer{0, after, nil})
	p.Quit() // which draws the last picture
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if n := out.n() - before; n > 2048 { // and leaving the screen
		t.Errorf("a frame in which little changed and the end take %d bytes, want 2 KiB at most", n)
	} else {
		t.Logf("a frame in which little changed, and the end, take %d bytes; the first took %d", n, before)
	}
}

func bigFleet() *view.Dashboard {
	d := fixture()
	d.Hosts = nil
	for i := range 200 {
		d.Hosts = append(d.Hosts, host(i, fmt.Sprintf("host-%03d", i), float64(i)+0.5, view.Reporting))
	}
	return d
}

// BenchmarkFrame draws the panels of 200 hosts, as after each answer.
func BenchmarkFrame(b *testing.B) {
	for _, size := range sizes {
		b.Run(fmt.Sprintf("hosts=200/%dx%d", size.w, size.h), func(b *testing.B) {
			d := bigFleet()
			m := at(d, view.Style{Width: size.w, Height: size.h, Color: true})
			b.ReportAllocs()
			for b.Loop() {
				m.Update(answer{0, d, nil})
				m.View()
			}
		})
	}
}

// BenchmarkKey is what a key costs in a list of 10,000 rows, with the picture that follows it.
func BenchmarkKey(b *testing.B) {
	d := fixture()
	d.Tops[0].Rows = nil
	for i := range 10_000 {
		d.Tops[0].Rows = append(d.Tops[0].Rows, list("section", "", 1, fmt.Sprintf("example.org/section-%05d", i)).Rows...)
	}
	for _, c := range []struct{ name, key string }{{"down", "down"}, {"sort", "s"}, {"filter", "9"}} {
		b.Run("rows=10000/"+c.name, func(b *testing.B) {
			m := at(d, view.Style{Width: 200, Height: 60, Color: true})
			press(m, "tab", "tab")
			if c.key == "9" {
				press(m, "/")
			}
			var times []time.Duration
			for b.Loop() {
				if m.input != nil {
					m.input.text = ""
				}
				start := time.Now()
				press(m, c.key)
				m.View()
				times = append(times, time.Since(start))
			}
			slices.Sort(times)
			b.ReportMetric(float64(times[len(times)*99/100].Microseconds())/1000, "p99-ms")
		})
	}
}

// TestHeadsStandAboveColumns: whatever a list leaves of the width, its numbers end where their heads do.
func TestHeadsStandAboveColumns(t *testing.T) {
	d := fixture()
	d.Alerts.Alerts = d.Alerts.Alerts[:1] // which is short
	d.Alerts.Alerts[0].Entries = d.Alerts.Alerts[0].Entries[:1]
	for _, w := range []int{60, 80, 81, 100, 120, 200} {
		m := at(d, view.Style{Width: w, Height: 40})
		press(m, "a")
		lines := m.Lines()
		i := slices.IndexFunc(lines, func(line string) bool { return strings.Contains(line, "ALERTS") })
		head, row := []rune(lines[i]), []rune(lines[i+1])
		h, r := strings.Index(string(head), "START")+len("START"), strings.Index(string(row), "11:56:00")+len("11:56:00")
		if h, r = len([]rune(string(head)[:h])), len([]rune(string(row)[:r])); h != r {
			t.Errorf("%d columns: START ends at %d, its time at %d:\n%s\n%s", w, h, r, string(head), string(row))
		}
	}
}

// TestWordsPass: what the last line says makes room for the keys again.
func TestWordsPass(t *testing.T) {
	m := at(fixture(), view.Style{Width: 120, Height: 40})
	press(m, "esc")
	last := func() string { return m.Lines()[39] }
	m.Update(tick(noon.Add(told - time.Second)))
	if got := last(); !strings.Contains(got, "whole fleet") {
		t.Errorf("a moment after Esc the last line is %q", got)
	}
	m.Update(tick(noon.Add(told)))
	if got := last(); strings.Contains(got, "whole fleet") || !strings.Contains(got, "keys") {
		t.Errorf("%v after Esc the last line is %q", told, got)
	}
}

// TestWarningsKeepTheirEnd: the reason stands there, and on 80 columns too.
func TestWarningsKeepTheirEnd(t *testing.T) {
	d := fixture()
	d.Status.Warnings = []string{"buckets cannot be stored since 2026-03-04T11:00:00Z, agents keep them: commit to store /var/lib/httpctl/httpctl.db: write: no space left on device; free space on that file system"}
	m := at(d, view.Style{Width: 80, Height: 24})
	if text := strings.Join(m.Lines(), "\n"); !strings.Contains(text, "free space on that file system") {
		t.Errorf("the warning is cut:\n%s", text)
	}
}

// TestTitlesAreWhole: a list of short keys gives its title the room of the columns that tell least, and a filter says how many rows it keeps.
func TestTitlesAreWhole(t *testing.T) {
	d := fixture()
	for i := range d.Tops {
		if top := &d.Tops[i]; top.Name == "status" {
			top.Title = "Status codes"
			top.Columns = append(top.Columns[:1:1], view.Measure{Name: "ttfb", Unit: "ns", Kind: view.LatencyColumn})
			for k := range top.Rows {
				top.Rows[k].Values = append(top.Rows[k].Values[:1:1], view.Value{Latency: &view.Latency{Count: 9, Average: time.Millisecond, P50: time.Millisecond, P95: time.Millisecond, P99: time.Millisecond}})
			}
			top.Other = nil
		}
	}
	m := at(d, view.Style{Width: 80, Height: 30})
	if text := strings.Join(m.Lines(), "\n"); !strings.Contains(text, "STATUS CODES") {
		t.Errorf("the title is cut:\n%s", text)
	}
	m = at(d, view.Style{Width: 100, Height: 30})
	m.focus = "status"
	enterLine(m, "/", "5xx")
	if text := strings.Join(m.Lines(), "\n"); !strings.Contains(text, "STATUS CODES /5xx 0 of ") {
		t.Errorf("the title with a filter is cut:\n%s", text)
	}
}
