package view

import (
	"encoding/csv"
	"io"
)

// Records writes rows one after another, as they come, in every form but those of text, which draw
// lines (see TailLines): JSON a line each, YAML a document each, CSV and Markdown below one heading. The columns are those of the first.
type Records struct {
	w     io.Writer
	form  Format
	style Style
	begun bool
}

// NewRecords returns one that writes to w.
func NewRecords(w io.Writer, f Format, s Style) *Records { return &Records{w: w, form: f, style: s} }

// write writes one row.
func (r *Records) write(columns []Column, cells []any) error {
	g := &Grid{Columns: columns, Rows: []Row{{Cells: cells}}}
	first := !r.begun
	r.begun = true
	switch r.form {
	case FormatYAML:
		return writeYAML(r.w, g.objects(g.Rows)[0])
	case FormatCSV:
		if first {
			return g.CSV(r.w)
		}
		record := make([]string, len(cells))
		for i, cell := range cells {
			record[i] = csvText(cell)
		}
		c := csv.NewWriter(r.w)
		_ = c.Write(record) // kept by c.Error
		c.Flush()
		return c.Error()
	case FormatMarkdown:
		if first {
			return g.Markdown(r.w, r.style)
		}
		_, err := io.WriteString(r.w, g.markdownRow(r.style, cells))
		return err
	}
	return writeLine(r.w, g.objects(g.Rows)[0])
}

// clamp is an unsigned number as a cell.
func clamp(n uint64) int64 { return int64(min(n, 1<<63-1)) }

// half is a cell of one half of an exchange: absent without it.
func half(there bool, cell any) any {
	if !there {
		return nil
	}
	return cell
}
