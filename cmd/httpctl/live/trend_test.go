package live

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/httpctl/httpctl/pkg/view"
)

// TestTrend: a row that has more of the last five minutes than of the hour, or less, says so.
func TestTrend(t *testing.T) {
	m, _ := asker(t)
	m.o.Style.Width, m.o.Style.Height = 120, 40
	var asked []string
	m.o.Ask = func(r Request) (*view.Dashboard, error) {
		d := fixture()
		if !r.Beside {
			return d, nil
		}
		asked = append(asked, fmt.Sprint(r.Filters, r.Since.Sub(noon), r.Until.Sub(noon), r.Rows))
		d.Tops[0] = list("section", "Sections", 8000, "example.org/", "new.example.org/", "example.org/cart")
		d.Tops[1].Rows[2].Values[0].Number, d.Tops[1].Other = 1, &view.TopRow{Values: []view.Value{{Number: 5}, {}}}
		d.Tops[1].Rows = d.Tops[1].Rows[:2] // the third may be among the others
		d.Hosts[0].Rate = 5
		return d, nil
	}
	// all answers what a tick asks, the trends too.
	all := func(d time.Duration) {
		_, cmd := m.Update(tick(noon.Add(d)))
		if !m.waits {
			return
		}
		for i, c := range cmd().(tea.BatchMsg) {
			if i != 1 { // the next tick, which would be waited for
				m.Update(c())
			}
		}
	}
	row := func(text string) string {
		for _, line := range m.Lines() {
			if _, after, ok := strings.Cut(line, text); ok {
				return after
			}
		}
		return ""
	}
	all(time.Second)
	if got, want := strings.Join(asked, ";"), "[] -4m59s 1s 500"; got != want {
		t.Errorf("asked for %s, want %s", got, want)
	}
	for _, c := range []struct{ row, want string }{
		{"example.org/cart ", "↓"}, {"example.org/ ", "↑"}, {"例え.テスト/買い物", "↓"}, // not there any more
		{"例え.テスト  ", ""}, // of the domains, which are cut
		{"web-1 ", "↓"}, {"web-2 ", "↑"}, {"cafe\u0301-5  ", "↑"}, {"GET ", ""},
	} {
		got := row(c.row)
		got = got[:min(len(got), 60)]
		if has := strings.ContainsAny(got, "↑↓"); has != (c.want != "") || !strings.Contains(got, c.want) {
			t.Errorf("%s has %q behind it, want %q", c.row, got, c.want)
		}
	}
	looks(t, "trend-nocolor-120x40", m.Lines())
	m.o.Style.ASCII = true
	if got := row("web-1 "); !strings.Contains(got, " v ") {
		t.Errorf("in ASCII: %q", got)
	}
	// It is asked for rarely, and at once after the path has changed; an answer about another path is dropped.
	for i := range 29 {
		all(time.Duration(i+2) * time.Second)
	}
	if len(asked) != 1 {
		t.Errorf("asked for %d times in half a minute", len(asked))
	}
	old := m.askTrends()
	answers(m, press(m, "enter"))
	if m.Update(old()); m.trends != nil {
		t.Error("trends of another path are shown")
	}
	all(40 * time.Second)
	if n := len(asked); n < 3 || !strings.Contains(asked[n-1], "{host ") || m.trends == nil {
		t.Errorf("after a step: %q", asked)
	}
	// Of a stretch of the past, and of one that is short, there is none.
	answers(m, press(m, "space"))
	asked = nil
	all(100 * time.Second)
	if asked != nil || m.trends != nil {
		t.Errorf("in the past: %q", asked)
	}
}

// TestBandIsTheFleets: what one host does is not held against the baseline of all.
func TestBandIsTheFleets(t *testing.T) {
	m, _ := asker(t)
	if text := strings.Join(m.Lines(), "\n"); !strings.Contains(text, "alert above 105/s") {
		t.Error("no threshold of the fleet")
	}
	answers(m, press(m, "enter"))
	if text := strings.Join(m.Lines(), "\n"); strings.Contains(text, "alert above 105/s") {
		t.Errorf("the threshold of the fleet stands at one host:\n%s", text)
	}
	m = at(fixture(), view.Style{Width: 120, Height: 40})
	if m.o.Filters = []string{"host"}; m.ofFleet() {
		t.Error("--host is the fleet")
	}
}

// TestNoTrendOfNothing: where the newest part had hardly a request, no host has less of it than of all.
func TestNoTrendOfNothing(t *testing.T) {
	m, _ := asker(t)
	d := fixture()
	for _, c := range []struct {
		requests uint64
		want     int
	}{{0, 0}, {trendLeast - 1, 0}, {trendLeast, -1}} {
		for i := range d.Hosts {
			d.Hosts[i].Rate = 0
		}
		d.Status.Requests = c.requests
		m.takeTrends(trendAnswer{m.turned, d})
		p := m.panel(hostsName)
		if got := m.trend(p, p.rows[slices.IndexFunc(p.rows, func(r *row) bool { return p.share(r) > trendShare })]); got != c.want {
			t.Errorf("%d requests: trend %d, want %d", c.requests, got, c.want)
		}
	}
}
