package report

import (
	"fmt"
	"html/template"
	"math"
	"strings"
	"time"

	"github.com/httpctl/httpctl/pkg/view"
)

// plot is an SVG element, "" without one. Its texts are escaped.
type plot = template.HTML

// Of a plot, in its own units: it is scaled to the width of the page.
const (
	plotWidth  = 960
	plotLeft   = 64 // for the values
	plotRight  = 22
	plotTop    = 10
	plotBottom = 24 // for the times
)

// canvas collects the elements of a plot of a stretch of time.
type canvas struct {
	b            strings.Builder
	since, until time.Time
	height       float64
	top          float64 // the value at the upper edge
	location     *time.Location
}

// newCanvas begins a plot of values up to most; label says in words what it shows.
func newCanvas(since, until time.Time, most, height float64, location *time.Location, label string) *canvas {
	if location == nil {
		location = time.UTC
	}
	c := &canvas{since: since, until: until, height: height, top: max(most, 1e-9) * 1.08, location: location}
	fmt.Fprintf(&c.b, `<svg viewBox="0 0 %d %g" role="img" aria-label="%s">`, plotWidth, height, escape(label))
	return c
}

func escape(text string) string { return template.HTMLEscapeString(text) }

func (c *canvas) x(t time.Time) float64 {
	share := float64(t.Sub(c.since)) / float64(max(c.until.Sub(c.since), 1))
	return plotLeft + min(max(share, 0), 1)*(plotWidth-plotLeft-plotRight)
}

func (c *canvas) y(v float64) float64 {
	return plotTop + (1-min(max(v/c.top, 0), 1))*(c.height-plotTop-plotBottom)
}

func (c *canvas) text(x, y float64, anchor, class, text string) {
	fmt.Fprintf(&c.b, `<text x="%.1f" y="%.1f" text-anchor="%s" class="%s">%s</text>`, x, y, anchor, class, escape(text))
}

func (c *canvas) line(x1, y1, x2, y2 float64, class string) {
	fmt.Fprintf(&c.b, `<path d="M%.1f %.1fL%.1f %.1f" class="%s"/>`, x1, y1, x2, y2, class)
}

func (c *canvas) box(x1, y1, x2, y2 float64, class, title string) {
	if title != "" {
		title = "<title>" + escape(title) + "</title>"
	}
	fmt.Fprintf(&c.b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" class="%s">%s</rect>`, x1, y1, max(x2-x1, 0), max(y2-y1, 0), class, title)
}

// axes draws lines at round values, written by value, and marks round times.
func (c *canvas) axes(value func(float64) string) {
	for v := step(c.top / 4); v < c.top; v += step(c.top / 4) {
		c.line(plotLeft, c.y(v), plotWidth-plotRight, c.y(v), "grid")
		c.text(plotLeft-6, c.y(v)+4, "end", "tick", value(v))
	}
	c.text(plotLeft-6, c.y(0)+4, "end", "tick", "0")
	c.line(plotLeft, c.y(0), plotWidth-plotRight, c.y(0), "axis")
	for _, t := range times(c.since, c.until, c.location) {
		x := c.x(t)
		c.line(x, c.y(0), x, c.y(0)+4, "axis")
		layout := "15:04"
		if t.Hour() == 0 && t.Minute() == 0 {
			layout = "Jan 2"
		}
		c.text(x, c.height-6, "middle", "tick", t.Format(layout))
	}
}

// step is the next round number: 1, 2, 2.5 or 5 times a power of ten.
func step(v float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(v)))
	for _, m := range []float64{1, 2, 2.5, 5} {
		if v <= m*power*1.0001 {
			return m * power
		}
	}
	return 10 * power
}

// times are round times of a stretch, at most a dozen.
func times(since, until time.Time, location *time.Location) (out []time.Time) {
	const day = 24 * time.Hour
	length := until.Sub(since)
	each := 365 * day
	for _, s := range []time.Duration{time.Minute, 5 * time.Minute, 10 * time.Minute, 30 * time.Minute, time.Hour, 2 * time.Hour, 3 * time.Hour, 6 * time.Hour, 12 * time.Hour, day, 2 * day, 7 * day, 28 * day} {
		if length/s <= 12 {
			each = s
			break
		}
	}
	local := since.In(location)
	midnight := time.Date(local.Year(), local.Month(), local.Day(), 0, 0, 0, 0, location)
	for i := 0; ; i++ {
		t := midnight.Add(time.Duration(i) * each)
		if each >= day { // days of 23 and 25 hours begin at midnight, too
			t = midnight.AddDate(0, 0, i*int(each/day))
		}
		if t.After(until) {
			return out
		}
		if !t.Before(since) {
			out = append(out, t)
		}
	}
}

// value is a point of a line; there says whether it is known.
type value struct {
	at    time.Time
	until time.Time
	v     float64
	there bool
}

// area draws values as steps filled to the ground, with gaps where they are not known.
func (c *canvas) area(values []value, class string) {
	var fill, line strings.Builder
	open := false
	end := func() {
		if open {
			fmt.Fprintf(&fill, "V%.1fz", c.y(0))
		}
		open = false
	}
	for i, p := range values {
		if !p.there {
			end()
			continue
		}
		x1, x2, y := c.x(p.at), c.x(p.until), c.y(p.v)
		if !open || i > 0 && values[i-1].until.Before(p.at) {
			end()
			fmt.Fprintf(&fill, "M%.1f %.1f", x1, c.y(0))
			fmt.Fprintf(&line, "M%.1f %.1f", x1, y)
			open = true
		}
		fmt.Fprintf(&fill, "L%.1f %.1fH%.1f", x1, y, x2)
		fmt.Fprintf(&line, "L%.1f %.1fH%.1f", x1, y, x2)
	}
	end()
	fmt.Fprintf(&c.b, `<path d="%s" class="%s area"/><path d="%s" class="%s line"/>`, fill.String(), class, line.String(), class)
}

func (c *canvas) done() plot { return plot(c.b.String() + "</svg>") }

// ratePlot draws the rate, what is normal, the alerts, and where there was no data.
func (in *Input) ratePlot(baseline, threshold float64) plot {
	since, until := in.span()
	c := newCanvas(since, until, max(peak(in.Series).Rate, threshold), 260, in.Style.Location, "Requests per second over the range")
	var values []value
	for _, p := range in.Series.Points {
		values = append(values, value{p.Start, p.End, p.Rate, p.Covered > 0})
		if p.Covered == 0 {
			c.box(c.x(p.Start), plotTop, c.x(p.End), c.y(0), "nodata", "no data from "+in.human(view.Moment, p.Start))
		}
	}
	for i := range in.Dashboard.Alerts.Alerts {
		a := &in.Dashboard.Alerts.Alerts[i]
		end := a.End
		if end.IsZero() {
			end = until
		}
		if end.Before(since) || a.Start.After(until) {
			continue
		}
		x1, x2 := c.x(a.Start), c.x(end)
		c.box(x1, plotTop, max(x2, x1+2), c.y(0), "alert", fmt.Sprintf("alert from %s, %s", in.human(view.Moment, a.Start), in.human(view.Span, a.Duration(in.Dashboard.Alerts.Time))))
	}
	left := float64(plotLeft) // where the baseline was learned
	if in.Baseline != nil && in.Baseline.LearningEnd.After(since) {
		left = c.x(in.Baseline.LearningEnd)
	}
	if threshold > 0 {
		c.box(left, c.y(threshold), plotWidth-plotRight, c.y(baseline), "band", "baseline to threshold")
	}
	c.axes(func(v float64) string { return in.human(view.Rate, v) })
	c.area(values, "rate")
	if threshold > 0 {
		c.line(left, c.y(threshold), plotWidth-plotRight, c.y(threshold), "threshold")
		c.text(plotWidth-plotRight-2, c.y(threshold)-4, "end", "mark", "alert above "+in.human(view.Rate, threshold))
	}
	if baseline > 0 {
		c.line(left, c.y(baseline), plotWidth-plotRight, c.y(baseline), "baseline")
		c.text(plotWidth-plotRight-2, c.y(baseline)+12, "end", "mark", "baseline "+in.human(view.Rate, baseline))
	}
	return c.done()
}

// errorPlot draws which share of the requests of each step ended with 5xx.
func (in *Input) errorPlot() plot {
	since, until := in.span()
	all := map[time.Time]uint64{}
	for _, p := range in.Series.Points {
		all[p.Start.UTC()] = p.Requests
	}
	var values []value
	most := 0.0
	for _, p := range in.Errors.Points {
		n := all[p.Start.UTC()]
		share := float64(p.Requests) / float64(max(n, p.Requests, 1))
		most = max(most, share)
		values = append(values, value{p.Start, p.End, share, n > 0 && p.Covered > 0})
	}
	if most == 0 {
		return ""
	}
	c := newCanvas(since, until, max(most, 0.01), 150, in.Style.Location, "Share of requests that ended with 5xx")
	c.axes(func(v float64) string { return in.human(view.Share, v) })
	c.area(values, "bad")
	return c.done()
}

// latencyPlot draws, for each row of a list with response times, from the median to the 95th and 99th percentile,
// on a logarithmic scale.
func (in *Input) latencyPlot(t *view.Top) plot {
	type span struct {
		name          string
		p50, p95, p99 float64
	}
	var rows []span
	low, high := math.Inf(1), 0.0
	for i := range t.Rows {
		for k, m := range t.Columns {
			if m.Kind != view.LatencyColumn || k >= len(t.Rows[i].Values) || t.Rows[i].Values[k].Latency == nil {
				continue
			}
			l := t.Rows[i].Values[k].Latency
			if l.Count == 0 || l.P50 <= 0 {
				continue
			}
			rows = append(rows, span{view.Clean(strings.Join(t.Rows[i].Keys, " ")), float64(l.P50), float64(max(l.P95, l.P50)), float64(max(l.P99, l.P95, l.P50))})
			low, high = min(low, float64(l.P50)), max(high, float64(l.P99))
		}
	}
	if len(rows) == 0 || len(rows) > 40 {
		return ""
	}
	low, high = math.Pow(10, math.Floor(math.Log10(low))), math.Pow(10, math.Ceil(math.Log10(high*1.0001)))
	const each, names = 20, 240
	height := float64(len(rows)*each + plotTop + plotBottom)
	c := &canvas{height: height}
	fmt.Fprintf(&c.b, `<svg viewBox="0 0 %d %g" role="img" aria-label="Response times: from the median to the 95th and 99th percentile">`, plotWidth, height)
	x := func(v float64) float64 {
		return names + math.Log(v/low)/math.Log(high/low)*(plotWidth-names-plotRight-20)
	}
	for v := low; v <= high*1.0001; v *= 10 {
		c.line(x(v), plotTop, x(v), height-plotBottom, "grid")
		c.text(x(v), height-6, "middle", "tick", in.human(view.Duration, time.Duration(v)))
	}
	for i, r := range rows {
		y := float64(plotTop + i*each)
		c.text(names-8, y+14, "end", "tick", view.Cut(r.name, 36, "…"))
		title := fmt.Sprintf("%s: p50 %s, p95 %s, p99 %s", r.name, in.human(view.Duration, time.Duration(r.p50)), in.human(view.Duration, time.Duration(r.p95)), in.human(view.Duration, time.Duration(r.p99)))
		c.line(x(r.p50), y+each/2, x(r.p99), y+each/2, "whisker")
		c.box(x(r.p50), y+4, max(x(r.p95), x(r.p50)+2), y+each-4, "range", title)
		c.line(x(r.p99), y+4, x(r.p99), y+each-4, "whisker")
	}
	return c.done()
}

// Legends of the plots, for those who see them the first time.
const (
	errorLegend   = "The share of the requests that ended with 5xx."
	latencyLegend = "The bar reaches from the median to the 95th percentile, the line to the 99th; the scale is logarithmic."
)
