package view

import (
	"strings"
	"time"
)

// Style says how text is drawn. The zero value draws plain text of any width,
// without colour, in UTC.
type Style struct {
	Color bool
	// ASCII draws with ASCII only, for terminals whose locale is not UTF-8.
	// What comes from the network is drawn as it is.
	ASCII bool
	// Width and Height are those of the terminal; 0 is no limit.
	Width, Height int
	// Location is the time zone; nil is UTC.
	Location *time.Location
	// Now is the time of the answer: times of its day are drawn without a date.
	Now time.Time
	// Columns, if there are any, are the names of a list's columns to show, in order. SortBy is
	// that of the column to sort its rows by, largest first behind a minus sign; "" leaves them in the
	// order of the answer. All forms of output follow both; dashboards and reports ignore them.
	Columns []string
	SortBy  string
}

func (s Style) location() *time.Location {
	if s.Location == nil {
		return time.UTC
	}
	return s.Location
}

// Tone is the meaning of a colour. It never stands alone: a word or symbol
// says the same.
type Tone uint8

// The tones.
const (
	Plain  Tone = iota
	Good        // green
	Warn        // yellow
	Bad         // red, bold
	Strong      // bold
	Faint       // dim
)

var toneCodes = [...]string{Good: "32", Warn: "33", Bad: "1;31", Strong: "1", Faint: "2"}

// Paint colours text, if the style has colour.
func (s Style) Paint(t Tone, text string) string {
	if !s.Color || t == Plain || text == "" {
		return text
	}
	return "\x1b[" + toneCodes[t] + "m" + text + "\x1b[0m"
}

// pick returns the ASCII form where the style wants it.
func (s Style) pick(unicode, ascii string) string {
	if s.ASCII {
		return ascii
	}
	return unicode
}

// ellipsis marks what was cut.
func (s Style) ellipsis() string { return s.pick("…", "~") }

// Colors decides whether to colour output: FORCE_COLOR (not empty, not 0)
// colours always; NO_COLOR (not empty) never; a dumb terminal and a pipe never.
// See https://no-color.org and https://force-color.org.
func Colors(getenv func(string) string, terminal bool) bool {
	if f := getenv("FORCE_COLOR"); f != "" {
		return f != "0" && f != "false"
	}
	return getenv("NO_COLOR") == "" && terminal && getenv("TERM") != "dumb"
}

// ASCIIOnly decides from the locale's variables whether to draw with ASCII.
func ASCIIOnly(getenv func(string) string) bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := strings.ToUpper(getenv(name)); v != "" {
			return !strings.Contains(v, "UTF-8") && !strings.Contains(v, "UTF8")
		}
	}
	return false
}
