package command

import (
	"reflect"
	"time"

	tea "charm.land/bubbletea/v2"
)

// Bubble Tea looks by a ticker whether there is a picture to draw, as often for a view that changes twice a second as
// for a game: at 70 times a second that was two thirds of what an idle view cost. So the ticker goes fast only
// while there is something to draw.
const (
	drawSoon = 3 * time.Millisecond   // after a picture was made
	drawn    = 10 * time.Millisecond  // since then it has been looked at
	drawIdle = 250 * time.Millisecond // the longest that a picture waits, should it have been missed
)

// paced is a model whose program looks for pictures when there may be some. It is used as the model is.
type paced struct {
	tea.Model
	ticker func() resetter // of the program that runs; nil: there is none
	now    func() time.Time
	fresh  bool      // there will be a picture that was not looked at
	made   time.Time // when the last one was
	asked  bool      // whether an idle is under way
}

// resetter is a time.Ticker.
type resetter interface{ Reset(time.Duration) }

// idle is a message: perhaps there is nothing to draw any more.
type idle struct{}

func (m *paced) pace(d time.Duration) {
	if t := m.ticker(); t != nil {
		t.Reset(d)
	}
}

// Update implements tea.Model.
func (m *paced) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	if _, ok := msg.(idle); !ok {
		_, cmd := m.Model.Update(msg)
		m.fresh = true
		if m.asked {
			return m, cmd
		}
		m.asked = true
		return m, tea.Batch(cmd, m.later())
	}
	if m.now().Sub(m.made) < drawn {
		return m, m.later()
	}
	m.asked = false
	m.pace(drawIdle)
	return m, nil
}

func (m *paced) later() tea.Cmd {
	return tea.Tick(drawn, func(time.Time) tea.Msg { return idle{} })
}

// View implements tea.Model.
func (m *paced) View() tea.View {
	v := m.Model.View()
	if m.fresh {
		m.fresh, m.made = false, m.now()
		m.pace(drawSoon)
	}
	return v
}

// tickerOf returns the ticker of a program that runs, nil if this version has none: then it looks as often as
// tea.WithFPS says. It is to be called by the model only, in whose goroutine the program makes the ticker.
func tickerOf(p *tea.Program) resetter {
	f := reflect.ValueOf(p).Elem().FieldByName("ticker")
	if !f.IsValid() || f.Type() != reflect.TypeFor[*time.Ticker]() {
		return nil
	}
	if t := *(**time.Ticker)(f.Addr().UnsafePointer()); t != nil {
		return t
	}
	return nil
}
