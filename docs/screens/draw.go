package main

import (
	"encoding/xml"
	"fmt"
	"strings"
	"time"
)

// Of a cell, and of what is around the screen, in the picture's units.
const (
	cellWidth  = 8
	cellHeight = 17
	baseline   = 13 // of the text, from the top of its cell; rows are drawn from it
	margin     = 14
	bar        = 30 // the frame's upper part
)

const (
	foreground = "#c9d1d9"
	background = "#0d1117"
	chrome     = "#161b22"
	edge       = "#30363d"
)

// draw makes one picture of the screens, one after another, over and over.
func draw(title string, film []screen, still int) string {
	columns, rows := 0, 0
	for _, s := range film {
		rows = max(rows, len(s.lines))
		for _, l := range s.lines {
			n := 0
			for _, c := range l {
				n += c.width
			}
			columns = max(columns, n)
		}
	}
	d := &drawing{rows: map[string]int{}, styles: map[style]int{}}
	var frames strings.Builder
	width, height := columns*cellWidth, rows*cellHeight
	pitch := width + 2*margin // so that no screen shows beside another
	for i, s := range film {
		fmt.Fprintf(&frames, `<g transform="translate(%d)">`, i*pitch)
		for y, l := range s.lines {
			if n, ok := d.row(l); ok {
				fmt.Fprintf(&frames, `<use href="#r%d" y="%d"/>`, n, y*cellHeight+baseline)
			}
		}
		frames.WriteString("</g>\n")
	}

	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %[1]d %[2]d" width="%[1]d" height="%[2]d" role="img"><title>%[3]s</title>`+"\n",
		width+2*margin, height+bar+2*margin, escaped(title))
	fmt.Fprintf(&b, "<style>text{font:13.3px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono','Liberation Mono',monospace;white-space:pre}text,path{fill:%s}", foreground)
	b.WriteString(d.css.String())
	if len(film) > 1 {
		b.WriteString(motion(film, still, pitch))
	}
	b.WriteString("</style>\n")
	fmt.Fprintf(&b, `<rect x=".5" y=".5" width="%d" height="%d" rx="8" fill="%s" stroke="%s"/>`, width+2*margin-1, height+bar+2*margin-1, background, edge)
	fmt.Fprintf(&b, `<path d="M1 9a8 8 0 0 1 8-8h%da8 8 0 0 1 8 8v%dH1z" style="fill:%s"/>`, width+2*margin-18, bar-9, chrome)
	for i, c := range []string{"#ff5f56", "#ffbd2e", "#27c93f"} {
		fmt.Fprintf(&b, `<circle cx="%d" cy="%d" r="5.5" fill="%s"/>`, margin+6+i*18, bar/2, c)
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle" style="fill:#8b949e">%s</text>`+"\n", width/2+margin, bar/2+4, escaped(title))
	fmt.Fprintf(&b, "<defs>\n%s</defs>\n", d.defs.String())
	fmt.Fprintf(&b, `<svg x="%d" y="%d" width="%d" height="%d" overflow="hidden"><g class="film">`+"\n%s</g></svg>\n</svg>\n",
		margin, bar+margin, width, height, frames.String())
	return b.String()
}

// motion moves the strip of screens by one at a time.
func motion(film []screen, still, pitch int) string {
	var whole, at time.Duration
	for _, s := range film {
		whole += s.shown
	}
	var b strings.Builder
	fmt.Fprintf(&b, ".film{animation:film %gs steps(1,end) infinite}@keyframes film{", whole.Seconds())
	for i, s := range film {
		fmt.Fprintf(&b, "%.3g%%{transform:translateX(%dpx)}", 100*at.Seconds()/whole.Seconds(), -i*pitch)
		at += s.shown
	}
	fmt.Fprintf(&b, "}@media(prefers-reduced-motion:reduce){.film{animation:none;transform:translateX(%dpx)}}", -max(still-1, 0)*pitch)
	return b.String()
}

// drawing keeps what several screens share: rows and styles.
type drawing struct {
	rows      map[string]int
	styles    map[style]int
	defs, css strings.Builder
}

// row returns the number of the row with these cells, drawing it if it is new; ok is false for an empty one.
func (d *drawing) row(cells []cell) (n int, ok bool) {
	var b strings.Builder
	for x, i := 0, 0; i < len(cells); {
		j, w := i, 0
		for j < len(cells) && cells[j].style == cells[i].style && shape(cells[j].text) == shape(cells[i].text) {
			w += cells[j].width
			j++
		}
		d.run(&b, cells[i:j], x, w)
		x, i = x+w, j
	}
	if b.Len() == 0 {
		return 0, false
	}
	if n, ok = d.rows[b.String()]; ok {
		return n, true
	}
	n = len(d.rows)
	d.rows[b.String()] = n
	fmt.Fprintf(&d.defs, `<g id="r%d">%s</g>`+"\n", n, b.String())
	return n, true
}

// run draws neighbouring cells of one style, all letters or all shapes.
func (d *drawing) run(b *strings.Builder, cells []cell, x, width int) {
	s := cells[0].style
	fore, back := s.fore, s.back
	if s.reversed {
		fore, back = or(back, background), or(fore, foreground)
	}
	if back != "" {
		fmt.Fprintf(b, `<path style="fill:%s" d="M%d %dh%dv%dh-%dz"/>`, back, x*cellWidth, -baseline, width*cellWidth, cellHeight, width*cellWidth)
	}
	class := d.class(style{fore: fore, bold: s.bold, faint: s.faint, italic: s.italic, underlined: s.underlined})
	if shape(cells[0].text) {
		var path strings.Builder
		for i := 0; i < len(cells); {
			j := i
			for j < len(cells) && cells[j].text == cells[i].text {
				j++
			}
			path.WriteString(outline(cells[i].text, x*cellWidth, j-i))
			x, i = x+j-i, j
		}
		fmt.Fprintf(b, `<path%s d="%s"/>`, class, path.String())
		return
	}
	// Words that stand apart are placed apart: another font's spaces must not move them.
	for i := 0; i < len(cells); {
		for i < len(cells) && cells[i].text == " " {
			x, i = x+cells[i].width, i+1
		}
		j, w, spaces := i, 0, 0
		var text strings.Builder
		for ; j < len(cells) && spaces < 2; j++ {
			if cells[j].text == " " {
				spaces++
			} else {
				spaces = 0
			}
			text.WriteString(cells[j].text)
			w += cells[j].width
		}
		words := strings.TrimRight(text.String(), " ")
		if words == "" {
			return
		}
		length := w - (len(text.String()) - len(words))
		fmt.Fprintf(b, `<text%s x="%d"`, class, x*cellWidth)
		if length > 1 {
			fmt.Fprintf(b, ` textLength="%d"`, length*cellWidth)
		}
		b.WriteString(">" + escaped(words) + "</text>")
		x, i = x+w, j
	}
}

// class returns the attribute of a style, "" for that of plain text.
func (d *drawing) class(s style) string {
	if s == (style{}) {
		return ""
	}
	n, ok := d.styles[s]
	if !ok {
		n = len(d.styles)
		d.styles[s] = n
		fmt.Fprintf(&d.css, ".s%d{fill:%s", n, or(s.fore, foreground))
		if s.bold {
			d.css.WriteString(";font-weight:bold")
		}
		if s.faint {
			d.css.WriteString(";opacity:.6")
		}
		if s.italic {
			d.css.WriteString(";font-style:italic")
		}
		if s.underlined {
			d.css.WriteString(";text-decoration:underline")
		}
		d.css.WriteString("}")
	}
	return fmt.Sprintf(` class="s%d"`, n)
}

// shape reports whether a character is drawn as a shape: blocks of eighths and lines.
func shape(text string) bool { return outline(text, 0, 1) != "" }

// outline is the path of a character n times from x on, "" for one that is text.
func outline(text string, x, n int) string {
	r := []rune(text)
	if len(r) != 1 {
		return ""
	}
	box := func(x, y, w, h float64) string { return fmt.Sprintf("M%g %gh%gv%gh%gz", x, y-baseline, w, h, -w) }
	left, whole := float64(x), float64(n*cellWidth)
	each := func(f func(x float64) string) (out string) {
		for i := range n {
			out += f(float64(x + i*cellWidth))
		}
		return out
	}
	switch c := r[0]; {
	case c >= '▁' && c <= '█':
		h := float64(cellHeight) * float64(c-'▁'+1) / 8
		return box(left, cellHeight-h, whole, h)
	case c >= '▉' && c <= '▏':
		w := float64(cellWidth) * float64('▏'-c+1) / 8
		return each(func(x float64) string { return box(x, 0, w, cellHeight) })
	case c == '─':
		return box(left, cellHeight/2, whole, 1)
	case c == '│':
		return each(func(x float64) string { return box(x+3.5, 0, 1, cellHeight) })
	case c == '╌':
		return each(func(x float64) string { return box(x+0.5, cellHeight/2, 3, 1) + box(x+4.5, cellHeight/2, 3, 1) })
	}
	return ""
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func escaped(text string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(text)) // a builder takes everything
	return b.String()
}
