package live

import (
	"image/color"
	"strings"

	"charm.land/lipgloss/v2"

	"github.com/httpctl/httpctl/pkg/view"
)

// ink is the meaning of a colour; the first are the tones of package view. As there, none stands alone: a
// word, a symbol or a place says the same.
type ink uint8

const (
	selected ink = ink(view.Faint) + 1 + iota
	focused      // heading of the panel that has the keys
	bar
	key // of the keyboard
	inks
)

// reset ends what a palette began.
const reset = "\x1b[m"

// palette holds the sequence that begins each ink: a frame has hundreds of texts, and to make each through a
// lipgloss.Style costs more than to draw it.
type palette [inks]string

// newPalette returns the inks for a dark background or a light one: without colour all are empty.
func newPalette(colour, dark bool) *palette {
	p := &palette{}
	if !colour {
		return p
	}
	pick := lipgloss.LightDark(dark)
	// On dark, the terminal's own colours; yellow and cyan cannot be read on white, so there darker ones.
	of := func(light, dark string) color.Color { return pick(lipgloss.Color(light), lipgloss.Color(dark)) }
	s := lipgloss.NewStyle()
	for i, style := range map[ink]lipgloss.Style{
		ink(view.Good):   s.Foreground(of("28", "2")),
		ink(view.Warn):   s.Foreground(of("130", "3")),
		ink(view.Bad):    s.Foreground(of("160", "9")).Bold(true),
		ink(view.Strong): s.Bold(true),
		ink(view.Faint):  s.Faint(true),
		selected:         s.Reverse(true),
		focused:          s.Bold(true).Foreground(of("25", "14")),
		bar:              s.Foreground(of("25", "6")),
		key:              s.Bold(true),
	} {
		p[i], _, _ = strings.Cut(style.Render("x"), "x")
	}
	return p
}

func (p *palette) paint(i ink, text string) string {
	if p[i] == "" || text == "" {
		return text
	}
	return p[i] + text + reset
}
