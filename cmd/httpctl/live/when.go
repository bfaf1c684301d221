package live

import (
	"strings"
	"time"

	"github.com/httpctl/httpctl/pkg/view"
)

// stretch is the time that is looked at. The zero value is what the command line says, up to now.
type stretch struct {
	// text is a begin in words that moves on, such as 90m; then the end is now.
	text         string
	since, until time.Time
}

// slow is how often a stretch of the past is asked for again: it changes only by what arrives late, but the
// state above it is that of now.
const slow = 10 * time.Second

// past reports whether the stretch has an end.
func (s stretch) past() bool { return !s.until.IsZero() }

// spanNow is the stretch that is shown, with both ends.
func (m *Model) spanNow() (since, until time.Time) {
	since, until = m.d.Status.Since, m.d.Status.Until
	if m.when.past() {
		return m.when.since, m.when.until
	}
	if until.IsZero() {
		until = m.clock()
	}
	return since, until
}

// look changes the stretch of time.
func (m *Model) look(s stretch) {
	if s.past() && !s.until.Before(m.clock()) { // the future is now
		s = stretch{}
	}
	m.set(s)
}

// set shows a stretch of time.
func (m *Model) set(s stretch) {
	m.forget()
	if m.when = s; m.screen != single {
		m.screen = overview
	}
}

// pause keeps the stretch as it is, or goes on.
func (m *Model) pause() {
	if m.when.past() {
		m.look(stretch{})
		return
	}
	since, until := m.spanNow()
	m.set(stretch{since: since, until: until})
}

// shift goes back or forth by the length of the stretch; by parts of it, if n is less than all.
func (m *Model) shift(n float64) {
	since, until := m.spanNow()
	by := time.Duration(n * float64(until.Sub(since)))
	m.look(stretch{since: since.Add(by), until: until.Add(by)})
}

// toAlert looks at an alert, from one window before it to one after it.
func (m *Model) toAlert(a *view.Alert) {
	around := max(m.d.Status.Window, time.Minute)
	end := a.End
	if end.IsZero() {
		end = m.clock()
	}
	m.look(stretch{since: a.Start.Add(-around), until: end.Add(around)})
	if !m.when.past() { // it lasts
		m.set(stretch{since: a.Start.Add(-around), until: m.clock()})
	}
}

// read reads a stretch as people write it: SINCE, or SINCE..UNTIL with each as --since takes it; nothing, or
// now, is the present.
func (m *Model) read(text string) error {
	text = strings.TrimSpace(text)
	since, until, two := strings.Cut(text, "..")
	if !two {
		since, until, two = strings.Cut(text, " until ")
	}
	since, until = strings.TrimSpace(since), strings.TrimSpace(until)
	if since == "" || since == "now" {
		m.look(stretch{})
		return nil
	}
	begin, err := m.o.When(since, m.clock())
	if err != nil {
		return err
	}
	if !begin.Before(m.clock()) {
		return failure("that is not in the past: " + since)
	}
	if !two || until == "" || until == "now" {
		m.set(stretch{text: since})
		return nil
	}
	end, err := m.o.When(until, m.clock())
	if err != nil {
		return err
	}
	if !begin.Before(end) {
		return failure(since + " is not before " + until)
	}
	m.set(stretch{since: begin, until: end})
	return nil
}

type failure string

func (f failure) Error() string { return string(f) }

// whenText says which time is looked at, "" if that is the present.
func (m *Model) whenText() string {
	s := m.style()
	sign := "◷ "
	if s.ASCII {
		sign = "@ "
	}
	switch {
	case m.when.past():
		return sign + "PAST " + s.Human(view.Moment, m.when.since) + " to " + s.Human(view.Moment, m.when.until) +
			"   state, rate now and window are of now   Space: to now"
	case m.when.text != "":
		return sign + "since " + view.Clean(m.when.text) + "   Esc: as before"
	}
	return ""
}
