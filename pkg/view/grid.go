package view

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/olekukonko/tablewriter"
	"github.com/olekukonko/tablewriter/renderer"
	"github.com/olekukonko/tablewriter/tw"
)

// Kind says what the cells of a column hold, and so how they are written.
type Kind uint8

// The kinds of cells, with the Go type that a cell of the kind holds. A nil
// cell of any kind is absent: "-" in tables, null in JSON, empty in CSV.
const (
	Text        Kind = iota // string, cut where the width is short
	Word                    // string of few letters, never cut
	Number                  // int64: 1,234
	Bytes                   // int64: 1.2 KiB
	Rate                    // float64, per second: 12.3/s
	Share                   // float64, 1 is all: 12.3%
	Duration                // time.Duration: seconds in JSON and CSV
	Span                    // the same, of minutes and hours
	Moment                  // time.Time: RFC 3339 in JSON and CSV
	Instant                 // the same, to the millisecond in tables
	Flag                    // bool: yes, no
	List                    // []string, []Count or []AlertEntry
	Signed                  // int64: +1,234
	SignedShare             // float64: +12.3%
	SignedBytes             // int64: +1.2 KiB
)

// Column is one column of a Grid.
type Column struct {
	// Name is the key in JSON and the heading in CSV; it is stable.
	Name string
	// Head is the heading in tables, and Short, if there is one, stands for it
	// where Head would be cut.
	Head, Short string
	Kind        Kind
	// Wide columns are not in the form table.
	Wide bool
	// Drop orders the columns that go first when the terminal is too narrow:
	// the highest first; 0 never goes.
	Drop int
}

// flexible reports whether the column's texts may be cut.
func (c Column) flexible() bool { return c.Kind == Text || c.Kind == List }

// left reports whether the column is aligned to the left: texts are, numbers are not.
func (c Column) left() bool {
	return c.Kind == Text || c.Kind == Word || c.Kind == Flag || c.Kind == List
}

// Row is one row of a Grid: a cell for each column.
type Row struct {
	Cells []any
	Tone  Tone
}

// Grid is rows of values, ready for any form of output: all forms write these
// same cells.
type Grid struct {
	Title   string
	Columns []Column
	Rows    []Row
	// Other, if there is one, is the row below the others that adds up the rest.
	Other *Row
	// Notes are lines below the table, and only there: JSON says the same otherwise.
	Notes []string
}

// Human writes a cell for people.
func (s Style) Human(k Kind, cell any) string {
	switch v := cell.(type) {
	case nil:
		return "-"
	case string:
		return Clean(v)
	case int64:
		switch {
		case k == Bytes:
			return byteSize(v)
		case k == SignedBytes && v > 0:
			return "+" + byteSize(v)
		case k == SignedBytes:
			return byteSize(v)
		case k == Signed && v > 0:
			return "+" + number(v)
		}
		return number(v)
	case float64:
		switch {
		case k == Rate:
			return rate(v)
		case k == SignedShare && v > 0:
			return "+" + percent(v)
		}
		return percent(v)
	case time.Duration:
		if k == Span {
			return span(v)
		}
		return s.latency(v)
	case time.Time:
		if k == Instant && !v.IsZero() {
			return s.clock(v) + v.In(s.location()).Format(".000")
		}
		return s.clock(v)
	case bool:
		if v {
			return "yes"
		}
		return "no"
	case []string:
		return Clean(strings.Join(v, " "))
	case []Count:
		return countsText(v)
	case []AlertEntry:
		return entriesText(v)
	}
	panic(fmt.Sprintf("view: a cell of type %T", cell))
}

// machine returns a cell as JSON carries it: nil, string, number, bool, list or object.
func machine(cell any) any {
	switch v := cell.(type) {
	case string:
		return strings.ToValidUTF8(v, "\uFFFD")
	case time.Duration:
		return v.Seconds()
	case time.Time:
		if v.IsZero() {
			return nil
		}
		return v.UTC().Format(time.RFC3339Nano)
	case []string:
		return valid(v)
	case []Count:
		return counts(v)
	case []AlertEntry:
		return entries(v)
	}
	return cell
}

// csvText writes a cell for CSV: as in JSON, but cleaned, as CSV has no
// escapes and may be read on a terminal; absent is empty. Lists are separated by spaces, and their pairs written name=value.
func csvText(cell any) string {
	var parts []string
	switch v := cell.(type) {
	case []string:
		return Clean(strings.Join(v, " "))
	case []Count:
		for _, c := range v {
			parts = append(parts, fmt.Sprintf("%s=%d", Clean(c.Name), c.Value))
		}
		return strings.Join(parts, " ")
	case []AlertEntry:
		for _, e := range v {
			at, _ := machine(e.Time).(string)
			text := fmt.Sprintf("%s=%d", at, e.Hits)
			if e.LateHits > 0 {
				text += fmt.Sprintf(";late=%d", e.LateHits)
			}
			if e.Incomplete {
				text += ";incomplete"
			}
			parts = append(parts, text)
		}
		return strings.Join(parts, " ")
	}
	if s, ok := cell.(string); ok {
		return Clean(s)
	}
	switch v := machine(cell).(type) {
	case nil:
		return ""
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	default:
		return fmt.Sprint(v)
	}
}

// CSV writes the grid as RFC 4180 with a heading. The row of the rest comes
// last. Whoever opens the file in a spreadsheet should import columns as text,
// as a string from the network may look like a formula.
func (g *Grid) CSV(w io.Writer) error {
	c := csv.NewWriter(w)
	record := make([]string, len(g.Columns))
	for i, col := range g.Columns {
		record[i] = col.Name
	}
	_ = c.Write(record) // kept by c.Error
	for _, row := range g.all() {
		for i, cell := range row.Cells {
			record[i] = csvText(cell)
		}
		_ = c.Write(record)
	}
	c.Flush()
	return c.Error()
}

// Column returns the index of the named column, or -1.
func (g *Grid) Column(name string) int {
	return slices.IndexFunc(g.Columns, func(c Column) bool { return c.Name == name })
}

// remove takes a column out; -1 is none.
func (g *Grid) remove(column int) {
	if column < 0 {
		return
	}
	g.Columns = slices.Delete(g.Columns, column, column+1)
	for i := range g.Rows {
		g.Rows[i].Cells = slices.Delete(g.Rows[i].Cells, column, column+1)
	}
	if g.Other != nil {
		g.Other.Cells = slices.Delete(g.Other.Cells, column, column+1)
	}
}

func (g *Grid) all() []Row {
	if g.Other == nil {
		return g.Rows
	}
	return append(g.Rows[:len(g.Rows):len(g.Rows)], *g.Other)
}

// objects returns the rows as JSON objects.
func (g *Grid) objects(rows []Row) []object {
	out := make([]object, len(rows))
	for i, row := range rows {
		o := make(object, len(row.Cells))
		for j, cell := range row.Cells {
			o[j] = member{g.Columns[j].Name, machine(cell)}
		}
		out[i] = o
	}
	return out
}

// Table writes the grid as a table of the style's width. wide writes every
// column, nothing cut.
func (g *Grid) Table(w io.Writer, s Style, wide bool) error {
	var b strings.Builder
	if wide {
		s.Width = 0
	}
	if g.Title != "" {
		for _, line := range wrap(Clean(g.Title), s.Width) {
			b.WriteString(s.Paint(Strong, line) + "\n")
		}
	}
	for _, line := range g.lines(s, wide, true) {
		b.WriteString(line + "\n")
	}
	for _, n := range g.Notes {
		for _, line := range wrap(Clean(n), s.Width) {
			b.WriteString(line + "\n")
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// gap is the space between columns.
const gap = 2

// lines draws the heading, a rule if wanted, and the rows, each line at most
// s.Width columns.
func (g *Grid) lines(s Style, wide, rule bool) []string {
	var cols []int
	for i, c := range g.Columns {
		if wide || !c.Wide {
			cols = append(cols, i)
		}
	}
	rows := g.all()
	texts := make([][]string, len(rows))
	for i, row := range rows {
		texts[i] = make([]string, len(row.Cells))
		for _, j := range cols {
			texts[i][j] = s.Human(g.Columns[j].Kind, row.Cells[j])
		}
	}
	natural := func(j int) int {
		w := Width(g.Columns[j].Head)
		for i := range texts {
			w = max(w, Width(texts[i][j]))
		}
		return w
	}
	heads := make([]string, len(g.Columns))
	for j, c := range g.Columns {
		heads[j] = c.Head
	}
	cols = g.fit(s, cols, heads, texts, natural)

	var out bytes.Buffer
	symbols := tw.NewSymbols(tw.StyleLight)
	if s.ASCII {
		symbols = tw.NewSymbols(tw.StyleASCII)
	}
	align := make(tw.Alignment, len(cols))
	padding := make([]tw.Padding, len(cols))
	head := make([]string, len(cols))
	for i, j := range cols {
		align[i] = tw.AlignRight
		if g.Columns[j].left() {
			align[i] = tw.AlignLeft
		}
		padding[i] = tw.Padding{Right: strings.Repeat(" ", gap), Overwrite: true}
		head[i] = heads[j]
	}
	lines := tw.Off
	if rule {
		lines = tw.On
	}
	cell := tw.CellConfig{
		Formatting: tw.CellFormatting{AutoWrap: tw.WrapNone, AutoFormat: tw.Off},
		Alignment:  tw.CellAlignment{PerColumn: align},
		Padding:    tw.CellPadding{PerColumn: padding},
	}
	table := tablewriter.NewTable(&out,
		tablewriter.WithRenderer(renderer.NewBlueprint(tw.Rendition{
			Borders: tw.BorderNone,
			Symbols: symbols,
			Settings: tw.Settings{
				Separators: tw.Separators{BetweenColumns: tw.Off, BetweenRows: tw.Off},
				Lines:      tw.Lines{ShowHeaderLine: lines, ShowTop: tw.Off, ShowBottom: tw.Off, ShowFooterLine: tw.Off},
			},
		})),
		tablewriter.WithConfig(tablewriter.Config{Header: cell, Row: cell, Behavior: tw.Behavior{TrimSpace: tw.Off, TrimLine: tw.Off}}),
	)
	table.Header(head)
	for i := range rows {
		record := make([]string, len(cols))
		for k, j := range cols {
			record[k] = texts[i][j]
		}
		_ = table.Append(record) // strings always append
	}
	if err := table.Render(); err != nil {
		panic("view: " + err.Error()) // only a writer that fails makes it fail
	}
	result := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	first := len(result) - len(rows) // of the rows
	for i := range result {
		result[i] = strings.TrimRight(result[i], " ")
		if i > 0 && i < first && s.Width > 0 { // the rule goes on below the space behind the last column
			result[i] = Cut(result[i], s.Width, "")
		}
		switch {
		case i == 0:
			result[i] = s.Paint(Strong, result[i])
		case i >= first:
			result[i] = s.Paint(rows[i-first].Tone, result[i])
		}
	}
	return result
}

// fit drops columns and cuts heads and texts until a line is at most s.Width wide.
func (g *Grid) fit(s Style, cols []int, heads []string, texts [][]string, natural func(int) int) []int {
	if s.Width == 0 {
		return cols
	}
	const least = 20 // columns a text keeps before others are dropped for it
	for {
		need, flexible := -gap, 0 // with the texts cut to the least
		for _, j := range cols {
			w := natural(j)
			if g.Columns[j].flexible() {
				flexible++
				w = min(w, least)
			}
			need += w + gap
		}
		worst := -1
		for i, j := range cols {
			if g.Columns[j].Drop > 0 && (worst < 0 || g.Columns[j].Drop >= g.Columns[cols[worst]].Drop) {
				worst = i
			}
		}
		if need > s.Width && worst >= 0 {
			cols = append(cols[:worst:worst], cols[worst+1:]...)
			continue
		}
		// Cut the widest text until all fits.
		limits := map[int]int{}
		total := -gap
		for _, j := range cols {
			limits[j] = natural(j)
			total += limits[j] + gap
		}
		for total > s.Width && flexible > 0 {
			widest := -1
			for _, j := range cols {
				if g.Columns[j].flexible() && limits[j] > 1 && (widest < 0 || limits[j] > limits[widest]) {
					widest = j
				}
			}
			if widest < 0 {
				break
			}
			limits[widest]--
			total--
		}
		for _, j := range cols {
			if !g.Columns[j].flexible() {
				continue
			}
			if short := g.Columns[j].Short; short != "" && Width(heads[j]) > limits[j] {
				heads[j] = short
			}
			heads[j] = Cut(heads[j], limits[j], s.ellipsis())
			for i := range texts {
				texts[i][j] = CutPath(texts[i][j], limits[j], s.ellipsis())
			}
		}
		return cols
	}
}
