package view

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/mattn/go-runewidth"

	"github.com/httpctl/httpctl/pkg/security"
)

// Clean makes a string from the network safe to draw. Every string of the
// model goes through here before it is drawn as text; JSON and CSV carry it as it is.
func Clean(s string) string { return security.CleanText(s) }

// The widths of what is drawn follow the East Asian widths of Unicode, with
// ambiguous characters narrow, whatever the locale is: goldens depend on it.
var widths = &runewidth.Condition{EastAsianWidth: false, StrictEmojiNeutral: true}

func Width(s string) int { return widths.StringWidth(s) }

// Cut shortens s to n columns; a cut string ends in mark.
func Cut(s string, n int, mark string) string {
	if Width(s) <= n {
		return s
	}
	if n < Width(mark) {
		return widths.Truncate(s, max(n, 0), "")
	}
	return widths.Truncate(s, n, mark)
}

// CutPath shortens a key to n columns as Cut does, but of a domain with a path it cuts the domain, as long as a third of the
// width is left for that: "shop.exam…/checkout", so that the sections of one domain can be told apart.
func CutPath(s string, n int, mark string) string {
	if Width(s) <= n {
		return s
	}
	i := strings.IndexByte(s, '/')
	if i <= 0 || strings.ContainsRune(s, ' ') || n < 3*Width(mark) {
		return Cut(s, n, mark)
	}
	domain, path := s[:i], s[i:]
	domain = Cut(domain, max(n-Width(path), n/3), mark)
	return domain + Cut(path, n-Width(domain), mark)
}

// wrap breaks text between words into lines of at most n columns, 0 for no limit; those behind the first are indented. A word
// that is longer has a line of its own, which the terminal breaks.
func wrap(text string, n int) (lines []string) {
	if n <= 0 || Width(text) <= n {
		return []string{text}
	}
	line := ""
	for _, word := range strings.Split(text, " ") {
		switch {
		case line == "":
			line = word
		case Width(line)+1+Width(word) <= n:
			line += " " + word
		default:
			lines = append(lines, line)
			line = "  " + word
		}
	}
	return append(lines, line)
}

// Wrap breaks text into at most most lines of n columns, 0 for no limit; the last one ends in mark where it is cut.
func Wrap(text string, n, most int, mark string) []string {
	lines := wrap(text, n)
	if len(lines) > most {
		rest := strings.Join(lines[most-1:], " ")
		lines = append(lines[:most-1], Cut(rest, n, mark))
	}
	for i := range lines {
		if n > 0 {
			lines[i] = Cut(lines[i], n, mark)
		}
	}
	return lines
}

// Pad fills s with spaces to n columns.
func Pad(s string, n int) string {
	if w := Width(s); w < n {
		return s + strings.Repeat(" ", n-w)
	}
	return s
}

// number groups digits by thousands.
func number[T int64 | uint64 | uint32 | int](n T) string {
	digits := strconv.FormatInt(int64(n), 10)
	if n > 0 {
		digits = strconv.FormatUint(uint64(n), 10)
	}
	sign := ""
	if digits[0] == '-' {
		sign, digits = "-", digits[1:]
	}
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return sign + digits
}

// byteSize writes bytes with three significant digits.
func byteSize(n int64) string {
	units := [...]string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	f, u := float64(n), 0
	for (f >= 1023.5 || f <= -1023.5) && u < len(units)-1 {
		f /= 1024
		u++
	}
	digits := 0
	if abs := max(f, -f); u > 0 && abs < 9.995 {
		digits = 2
	} else if u > 0 && abs < 99.95 {
		digits = 1
	}
	return strconv.FormatFloat(f, 'f', digits, 64) + " " + units[u]
}

// latency writes a short duration with three significant digits.
func (s Style) latency(d time.Duration) string {
	switch {
	case d < 0:
		return "-" + s.latency(opposite(d))
	case d < time.Microsecond:
		return strconv.FormatInt(int64(d), 10) + "ns"
	case d < time.Millisecond:
		return significant(float64(d)/1e3) + s.pick("µs", "us")
	case d < time.Second:
		return significant(float64(d)/1e6) + "ms"
	case d < time.Minute:
		return significant(float64(d)/1e9) + "s"
	}
	return span(d)
}

// opposite is -d, and the longest there is of the one that has none: an answer may hold any number.
func opposite(d time.Duration) time.Duration {
	if d == math.MinInt64 {
		return math.MaxInt64
	}
	return -d
}

func significant(f float64) string {
	switch {
	case f < 9.995:
		return strconv.FormatFloat(f, 'f', 2, 64)
	case f < 99.95:
		return strconv.FormatFloat(f, 'f', 1, 64)
	}
	return strconv.FormatFloat(f, 'f', 0, 64)
}

// span writes a long duration in its two largest units: "1m05s", "2h03m", "3d4h".
func span(d time.Duration) string {
	d = d.Round(time.Second)
	switch {
	case d < 0:
		return "-" + span(opposite(d))
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%dd%dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
}

// Compact writes a setting's duration without zero units: "2m".
func Compact(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}

// rate writes requests per second.
func rate(f float64) string {
	if f >= 100 || f == 0 {
		return number(int64(f+0.5)) + "/s"
	}
	return significant(f) + "/s"
}

// percent writes a share, 1 being all.
func percent(f float64) string { return strconv.FormatFloat(f*100, 'f', 1, 64) + "%" }

// clock writes a time, without the date where it is the day of now.
func (s Style) clock(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	t = t.In(s.location())
	now := s.Now.In(s.location())
	switch {
	case t.YearDay() == now.YearDay() && t.Year() == now.Year():
		return t.Format("15:04:05")
	case t.Year() == now.Year():
		return t.Format("01-02 15:04:05")
	}
	return t.Format("2006-01-02 15:04:05")
}

// stretch writes a range: both ends with the date where they are of two days.
func (s Style) stretch(from, until time.Time) string {
	if a, b := from.In(s.location()), until.In(s.location()); from.IsZero() || until.IsZero() || a.Format(time.DateOnly) == b.Format(time.DateOnly) {
		return s.clock(from) + " to " + s.clock(until)
	}
	layout, year := "01-02 15:04:05", s.Now.In(s.location()).Year()
	if from.In(s.location()).Year() != year || until.In(s.location()).Year() != year {
		layout = "2006-01-02 15:04:05"
	}
	return from.In(s.location()).Format(layout) + " to " + until.In(s.location()).Format(layout)
}

// plural writes a number of things.
func plural[T int64 | uint64 | uint32 | int](n T, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return number(n) + " " + one + "s"
}
