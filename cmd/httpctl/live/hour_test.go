package live

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/httpctl/httpctl/pkg/view"
)

// hourFixture is 55 minutes before noon, of which those before the newest ten have 50/s, and 100/s for five of them.
func hourFixture() *view.Series {
	x := &view.Series{Step: "minute"}
	for i := range 60 {
		start := noon.Truncate(time.Minute).Add(time.Duration(i-60) * time.Minute)
		p := view.SeriesPoint{Start: start, End: start.Add(time.Minute), Rate: 50, Covered: time.Minute}
		switch {
		case i < 5:
			p.Rate, p.Covered = 0, 0
		case i >= 30 && i < 35:
			p.Rate = 180
		}
		p.Requests = uint64(p.Rate * 60)
		x.Points = append(x.Points, p)
	}
	return x
}

// TestLastHour: the chart reaches back an hour, whatever its width, and nothing is added or lost on the way.
func TestLastHour(t *testing.T) {
	m := at(fixture(), view.Style{Width: 120, Height: 40})
	if values, length := m.lately(100); len(values) != 60 || length != 10*time.Minute {
		t.Errorf("without the hour: %d values of %s, want those of the answer", len(values), length)
	}
	m.Update(hourAnswer{asked: m.turned, x: hourFixture()})
	for _, w := range []int{1, 7, 20, 60, 100, 190, 500} {
		values, length := m.lately(w)
		if length != 55*time.Minute || len(values) > w || len(values) < min(w, 275)*2/3 {
			t.Errorf("of %d columns: %d values of %s, want 55m0s", w, len(values), length)
		}
		if w < 20 {
			continue
		}
		// Columns are whole seconds long, at least an interval, and the first may begin before the data.
		sum, high := uint64(0), uint64(0)
		for i, v := range values {
			sum += v
			if i < len(values)/2+len(values)/10 {
				high = max(high, v)
			}
		}
		if w >= 60 && high != 1800 { // wider columns are of other minutes, too
			t.Errorf("of %d columns: the five minutes of 180/s are %d an interval, want 1800", w, high)
		}
		want := uint64(0)
		for _, n := range m.d.RateHistory {
			want += n
		}
		want = (want + 40*60*50 + 5*60*180) / (55 * 6) // of an interval, on average
		if got := sum / uint64(len(values)); got < want*95/100 || got > want*105/100 {
			t.Errorf("of %d columns: %d requests an interval on average, want %d", w, got, want)
		}
	}
	looks(t, "hour-nocolor-120x40", strings.Split(m.View().Content, "\n"))

	m.forget()
	if _, length := m.lately(100); length != 10*time.Minute {
		t.Errorf("after going elsewhere the chart still is that of before, of %s", length)
	}
	m.Update(hourAnswer{asked: m.turned - 1, x: hourFixture()})
	if m.hour != nil {
		t.Error("an answer of elsewhere was taken")
	}
}

// TestHourIsAskedSeldom: at once, then each half minute, with the host that one went into and nothing else.
func TestHourIsAskedSeldom(t *testing.T) {
	m := at(fixture(), view.Style{Width: 120, Height: 40})
	var asked []Request
	m.o.Hour = func(r Request) (*view.Series, error) {
		asked = append(asked, r)
		return nil, errors.New("away")
	}
	if !m.wantsHour() {
		t.Error("it does not ask at once")
	}
	m.path = []step{{filters: []Filter{{"host", "web-1"}, {"domain", "example.org"}}}}
	if msg := m.askHour()(); msg.(hourAnswer).x != nil {
		t.Errorf("an error is %v", msg)
	}
	if m.wantsHour() {
		t.Error("it asks again at once")
	}
	m.now = m.now.Add(hourEvery)
	if !m.wantsHour() {
		t.Error("it does not ask again")
	}
	if len(asked) != 1 || len(asked[0].Filters) != 1 || asked[0].Filters[0].Value != "web-1" || !asked[0].Since.Equal(noon.Add(-time.Hour)) {
		t.Errorf("it asked for %+v", asked)
	}
}
