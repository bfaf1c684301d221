package live

import (
	"strings"

	"github.com/httpctl/httpctl/pkg/view"
)

var (
	eighthsUp   = []rune(" ▁▂▃▄▅▆▇█")
	eighthsLeft = []rune(" ▏▎▍▌▋▊▉█")
	// Without Unicode a character stands for each eighth, darker for more.
	rampASCII = []rune(" .:-=+*##")
)

// amount is a cell as a number, for bars.
func amount(cell any) float64 {
	switch v := cell.(type) {
	case int64:
		return float64(v)
	case float64:
		return v
	}
	return 0
}

// horizontal draws a share of n columns, filled up with spaces. Something is never nothing.
func horizontal(share float64, n int, ascii bool) string {
	eighths := int(min(max(share, 0), 1)*float64(n*8) + 0.5)
	if share > 0 {
		eighths = max(eighths, 1)
	}
	full, part := eighths/8, eighths%8
	if ascii {
		full = (eighths + 4) / 8
		if share > 0 {
			full = max(full, 1)
		}
		return strings.Repeat("#", full) + strings.Repeat(" ", n-full)
	}
	text := strings.Repeat("█", full)
	if full < n {
		text += string(eighthsLeft[part])
		full++
	}
	return text + strings.Repeat(" ", n-full)
}

// band is what is normal, in the unit of the values of a chart. Zero is unknown.
type band struct{ baseline, threshold float64 }

// chart draws the newest values as columns in rows lines of w columns. Where nothing else is drawn,
// lines stand at the baseline and the threshold; values above the threshold are red, and in a chart of several rows stand
// above its line. newest is at the right.
func (m *Model) chart(values []uint64, b band, w, rows int) []string {
	values = values[max(0, len(values)-w):]
	if times := w / max(len(values), 1); times > 1 { // each as wide as there is room for
		wide := make([]uint64, 0, len(values)*times)
		for _, v := range values {
			for range times {
				wide = append(wide, v)
			}
		}
		values = wide
	}
	top := b.threshold * 1.15
	for _, v := range values {
		top = max(top, float64(v))
	}
	lines := make([]string, rows)
	if top <= 0 {
		for i := range lines {
			lines[i] = strings.Repeat(" ", w)
		}
		return lines
	}
	ramp, dash, dots := eighthsUp, '╌', '·'
	if m.o.Style.ASCII {
		ramp, dash, dots = rampASCII, '-', '.'
	}
	level := func(v float64) int { return int(v / top * float64(rows*8)) } // in eighths from below
	for i := range rows {
		low := (rows - 1 - i) * 8
		within := func(v float64) bool {
			return rows > 1 && v > 0 && level(v) >= low && level(v) < low+8
		}
		empty := ' '
		switch {
		case within(b.threshold):
			empty = dash
		case within(b.baseline):
			empty = dots
		}
		var line, run strings.Builder
		last := ink(view.Plain)
		put := func(k ink, r rune) {
			if k != last {
				line.WriteString(m.ink.paint(last, run.String()))
				run.Reset()
				last = k
			}
			run.WriteRune(r)
		}
		for range w - len(values) {
			put(ink(view.Faint), empty)
		}
		for _, v := range values {
			n := level(float64(v))
			if v > 0 {
				n = max(n, 1)
			}
			n = min(max(n-low, 0), 8)
			switch {
			case n == 0:
				put(ink(view.Faint), empty)
			case b.threshold > 0 && float64(v) > b.threshold:
				put(ink(view.Bad), ramp[n])
			default:
				put(bar, ramp[n])
			}
		}
		line.WriteString(m.ink.paint(last, run.String()))
		lines[i] = line.String()
	}
	return lines
}
