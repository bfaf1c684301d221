package live

import (
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/httpctl/httpctl/pkg/view"
)

const (
	// chartSpan is how far back the chart of the rate reaches, if there is data for it.
	chartSpan = time.Hour
	// hourEvery is how often its older part is asked for; the newest minutes come with each answer.
	hourEvery = 30 * time.Second
)

// hourAnswer is a message: what came of asking for the last hour.
type hourAnswer struct {
	asked int
	x     *view.Series
}

// askHour asks for the last hour by the minute, of the hosts that are shown: as the newest minutes are.
func (m *Model) askHour() tea.Cmd {
	m.nextHour = m.now.Add(hourEvery)
	n, f := m.turned, m.o.Hour
	r := Request{Since: m.clock().Add(-chartSpan)}
	for _, f := range m.request().Filters {
		if f.Column == "host" {
			r.Filters = append(r.Filters, f)
		}
	}
	return func() tea.Msg {
		x, err := f(r)
		if err != nil { // the main question says so
			x = nil
		}
		return hourAnswer{n, x}
	}
}

// wantsHour reports whether it is time to ask.
func (m *Model) wantsHour() bool { return m.o.Hour != nil && !m.now.Before(m.nextHour) }

// lately returns the values of a chart of the rate with at most w columns, and the time that they span: the last hour
// where it is known, else the newest minutes.
func (m *Model) lately(w int) (values []uint64, length time.Duration) {
	if values, length = m.pastHour(w); len(values) > 0 {
		return values, length.Round(time.Minute)
	}
	values = m.d.RateHistory
	values = values[max(0, len(values)-max(w, 0)):]
	return values, time.Duration(len(values)) * m.d.Status.Interval
}

// pastHour makes the chart's values of the last hour: requests for each interval, on average of each of at most w columns,
// and the time that they span. There are none where nothing is known of before the newest minutes.
func (m *Model) pastHour(w int) (values []uint64, length time.Duration) {
	width := m.d.Status.Interval
	if m.hour == nil || width <= 0 || w <= 0 {
		return nil, 0
	}
	// The answer does not say when its newest interval ends: it is the last or the one before, which is less than a column.
	end := m.clock().Truncate(width)
	begin := end.Add(-time.Duration(len(m.d.RateHistory)) * width) // of what the answer has
	from := time.Time{}
	for _, p := range m.hour.Points {
		if p.Covered > 0 && p.Start.Before(begin) && p.End.After(end.Add(-chartSpan)) {
			from = p.Start
			break
		}
	}
	if from.IsZero() {
		return nil, 0
	}
	// Columns begin at fixed times, so that none changes but the newest.
	each := (end.Sub(from) + time.Duration(w) - 1) / time.Duration(w)
	each = max((each + time.Second - 1).Truncate(time.Second), width)
	first := from.Truncate(each)
	sums := make([]float64, min(int((end.Sub(first)+each-1)/each), w+1))
	known := make([]float64, len(sums)) // seconds
	add := func(a, b time.Time, rate float64) {
		for i := max(int(a.Sub(first)/each), 0); i < len(sums); i++ {
			at := first.Add(time.Duration(i) * each)
			if !at.Before(b) {
				break
			}
			overlap := earlier(b, at.Add(each)).Sub(later(a, at)).Seconds()
			sums[i] += rate * max(overlap, 0)
			known[i] += max(overlap, 0)
		}
	}
	for _, p := range m.hour.Points {
		if p.Covered > 0 {
			add(p.Start, earlier(p.End, begin), p.Rate)
		}
	}
	for i, n := range m.d.RateHistory {
		at := begin.Add(time.Duration(i) * width)
		add(at, at.Add(width), float64(n)/width.Seconds())
	}
	values = make([]uint64, len(sums))
	for i := range sums {
		if known[i] > 0 {
			values[i] = uint64(sums[i]/known[i]*width.Seconds() + 0.5)
		}
	}
	if len(values) > w {
		values = values[len(values)-w:]
	}
	return values, end.Sub(from)
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
