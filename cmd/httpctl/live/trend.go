package live

import (
	"slices"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/httpctl/httpctl/pkg/view"
)

const (
	// trendOver is what the stretch that is shown is compared with: its newest part.
	trendOver = 5 * time.Minute
	// trendEvery is how often that is asked for.
	trendEvery = 30 * time.Second
	// Shares that differ by less than a quarter, or are below a percent of either, are noise, and so is any
	// of fewer requests than trendLeast.
	trendFactor = 1.25
	trendShare  = 0.01
	trendLeast  = 100
)

// trends are the shares of rows in the newest part of the stretch, by panel. Shares, as rates differ with
// whatever the stretch has seen of its first minutes.
type trends map[string]*shares

type shares struct {
	of  map[string]float64 // by row
	all bool               // rows that are not there have no share
}

// trendAnswer is a message: what came of asking for the newest part.
type trendAnswer struct {
	asked int
	d     *view.Dashboard
}

// askTrends asks for the newest part of what the path leads to, without the interval under way: agents need
// not send more for it.
func (m *Model) askTrends() tea.Cmd {
	m.nextTrends = m.now.Add(trendEvery)
	n, now, f := m.turned, m.clock(), m.o.Ask
	r := m.request()
	r.Since, r.Until, r.Rows, r.Beside = now.Add(-trendOver), now, singleRows, true
	return func() tea.Msg {
		d, err := f(r)
		if err != nil { // the main question says so
			d = nil
		}
		return trendAnswer{n, d}
	}
}

// wantsTrends reports whether the newest part is one of what is shown.
func (m *Model) wantsTrends() bool {
	since, until := m.spanNow()
	return m.clock().Sub(until) < time.Minute && until.Sub(since) >= 2*trendOver && !m.now.Before(m.nextTrends)
}

// takeTrends keeps the shares of an answer.
func (m *Model) takeTrends(a trendAnswer) {
	if a.asked != m.turned || a.d == nil {
		return
	}
	m.trends = trends{}
	for _, p := range panelsOf(a.d, m.style()) {
		total := p.total
		if p.name == hostsName { // which is of rates
			total = float64(a.d.Status.Requests)
		}
		if p.value < 0 || total < trendLeast {
			continue
		}
		s := &shares{of: map[string]float64{}, all: p.other == nil}
		for _, r := range p.all {
			s.of[r.id] = p.share(r)
		}
		m.trends[p.name] = s
	}
}

// share is the row's part of all of the list, 0 of nothing.
func (p *panel) share(r *row) float64 {
	if p.total <= 0 {
		return 0
	}
	return amount(r.cells[p.value]) / p.total
}

// trend is 1 for a row that has more of the newest part than of all, -1 for one that has less.
func (m *Model) trend(p *panel, r *row) int {
	s := m.trends[p.name]
	if s == nil {
		return 0
	}
	newest, there := s.of[r.id]
	whole := p.share(r)
	switch {
	case !there && !s.all, max(newest, whole) < trendShare:
		return 0
	case newest > whole*trendFactor:
		return 1
	case newest < whole/trendFactor:
		return -1
	}
	return 0
}

// sign draws a trend.
func (m *Model) sign(trend int) string {
	signs := []string{"↓", " ", "↑"}
	if m.o.Style.ASCII {
		signs = []string{"v", " ", "^"}
	}
	return signs[trend+1]
}

// forget forgets what was known of the traffic before the path changed.
func (m *Model) forget() {
	m.turned++
	m.trends, m.nextTrends = nil, time.Time{}
	m.hour, m.nextHour = nil, time.Time{}
}

// ofFleet reports whether what is shown is of all hosts, as the baseline is.
func (m *Model) ofFleet() bool {
	return !m.has("host", "") && !slices.ContainsFunc(m.o.Filters, func(column string) bool { return column == "host" })
}
