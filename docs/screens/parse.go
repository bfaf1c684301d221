package main

import (
	"strconv"
	"strings"
	"time"

	"github.com/charmbracelet/x/ansi"
)

// screen is what a terminal showed, and for how long.
type screen struct {
	lines [][]cell
	shown time.Duration
}

// cell is one or two columns of a terminal.
type cell struct {
	text  string
	width int
	style style
}

// style is how a cell is drawn. Colours are #rrggbb, "" being the terminal's own.
type style struct {
	fore, back                    string
	bold, faint, italic, reversed bool
	underlined                    bool
}

// basic are the sixteen colours of a terminal with a dark background.
var basic = [16]string{
	"#484f58", "#ff7b72", "#3fb950", "#d29922", "#58a6ff", "#bc8cff", "#39c5cf", "#c9d1d9",
	"#6e7681", "#ff6a69", "#56d364", "#e3b341", "#79c0ff", "#d2a8ff", "#56d4dd", "#ffffff",
}

// parse reads lines of text with colours (ECMA-48 SGR). Other control sequences are left out.
func parse(text string) (lines [][]cell) {
	var now style
	for _, line := range strings.Split(strings.TrimRight(text, "\n"), "\n") {
		var cells []cell
		state := byte(0)
		p := ansi.NewParser()
		for len(line) > 0 {
			seq, width, n, next := ansi.DecodeSequence(line, state, p)
			state = next
			if width > 0 {
				cells = append(cells, cell{text: seq, width: width, style: now})
			} else if strings.HasPrefix(seq, "\x1b[") && strings.HasSuffix(seq, "m") {
				now = now.with(seq[2 : len(seq)-1])
			}
			line = line[n:]
		}
		lines = append(lines, cells)
	}
	return lines
}

// with applies the parameters of one SGR sequence.
func (s style) with(parameters string) style {
	var p []int
	for _, text := range strings.Split(strings.ReplaceAll(parameters, ":", ";"), ";") {
		n, _ := strconv.Atoi(text) // what is no number is 0, as terminals read it
		p = append(p, n)
	}
	for i := 0; i < len(p); i++ {
		switch n := p[i]; {
		case n == 0:
			s = style{}
		case n == 1:
			s.bold = true
		case n == 2:
			s.faint = true
		case n == 3:
			s.italic = true
		case n == 4:
			s.underlined = true
		case n == 7:
			s.reversed = true
		case n == 22:
			s.bold, s.faint = false, false
		case n == 23:
			s.italic = false
		case n == 24:
			s.underlined = false
		case n == 27:
			s.reversed = false
		case n >= 30 && n <= 37:
			s.fore = basic[n-30]
		case n >= 90 && n <= 97:
			s.fore = basic[n-82]
		case n == 39:
			s.fore = ""
		case n >= 40 && n <= 47:
			s.back = basic[n-40]
		case n >= 100 && n <= 107:
			s.back = basic[n-92]
		case n == 49:
			s.back = ""
		case n == 38 || n == 48:
			colour, used := wide(p[i+1:])
			if i += used; n == 38 {
				s.fore = colour
			} else {
				s.back = colour
			}
		}
	}
	return s
}

// wide reads a colour of 256, or of red, green and blue, and says how many parameters that took.
func wide(p []int) (colour string, used int) {
	hex := func(r, g, b int) string {
		text := "#"
		for _, v := range []int{r, g, b} {
			text += string("0123456789abcdef"[v>>4&15]) + string("0123456789abcdef"[v&15])
		}
		return text
	}
	switch {
	case len(p) >= 2 && p[0] == 5:
		n := p[1]
		switch {
		case n < 16:
			return basic[n&15], 2
		case n < 232:
			level := func(v int) int {
				if v == 0 {
					return 0
				}
				return 55 + 40*v
			}
			n -= 16
			return hex(level(n/36), level(n/6%6), level(n%6)), 2
		}
		v := 8 + 10*(n-232)
		return hex(v, v, v), 2
	case len(p) >= 4 && p[0] == 2:
		return hex(p[1], p[2], p[3]), 4
	}
	return "", len(p)
}
