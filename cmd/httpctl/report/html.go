package report

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"

	"github.com/httpctl/httpctl/pkg/view"
)

//go:embed page.html
var pageText string

var page = template.Must(template.New("report").Parse(pageText))

// cell is a cell of a table as the page has it.
type cell struct {
	Text  string
	Class string
	Bar   string // a share as a percentage, for the width of a bar; "" is none
}

// table is a grid as the page has it.
type table struct {
	Head []cell
	Rows []tableRow
}

type tableRow struct {
	Class string
	Cells []cell
}

// HTML writes the report as one page that needs nothing else: no script, no request, no font.
func HTML(w io.Writer, in *Input) error {
	type part struct {
		section
		Table *table
	}
	var parts []part
	for _, s := range in.sections() {
		p := part{section: s}
		if s.Grid != nil {
			p.Table = in.table(s.Grid, s.Bars)
		}
		parts = append(parts, p)
	}
	since, until := in.span()
	return page.Execute(w, map[string]any{
		"Title":   fmt.Sprintf("HTTP traffic, %s to %s", in.moment(since), in.moment(until)),
		"Parts":   parts,
		"Command": in.Command, "Version": view.Clean(in.Version), "Made": in.moment(in.Made),
	})
}

// toneClass is the class of a tone; a word says the same.
func toneClass(t view.Tone) string {
	switch t {
	case view.Good:
		return "good"
	case view.Warn:
		return "warn"
	case view.Bad:
		return "bad"
	case view.Faint:
		return "faint"
	}
	return ""
}

// Class is that of the fact's tone.
func (f fact) Class() string { return toneClass(f.Tone) }

func (in *Input) table(g *view.Grid, bars int) *table {
	t := &table{}
	side := func(c view.Column) string {
		switch c.Kind {
		case view.Text, view.List:
			return "text"
		case view.Word, view.Flag:
			return "word"
		}
		return ""
	}
	for _, c := range g.Columns {
		t.Head = append(t.Head, cell{Text: c.Head, Class: side(c)})
	}
	rows := g.Rows
	if g.Other != nil {
		rows = append(rows[:len(rows):len(rows)], *g.Other)
	}
	for _, r := range rows {
		row := tableRow{Class: toneClass(r.Tone)}
		for i, c := range r.Cells {
			x := cell{Text: in.human(g.Columns[i].Kind, c), Class: side(g.Columns[i])}
			if share, ok := c.(float64); ok && i == bars {
				x.Bar = fmt.Sprintf("%.1f", 100*min(max(share, 0), 1))
			}
			row.Cells = append(row.Cells, x)
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}
