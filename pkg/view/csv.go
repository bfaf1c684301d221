package view

import (
	"encoding/csv"
	"fmt"
	"io"
	"slices"
	"strings"
)

// values writes an answer that is no single table as CSV: every value on a line
// of its own, list, row, key, column, value.
type values struct{ c *csv.Writer }

func newValues(w io.Writer) values {
	v := values{csv.NewWriter(w)}
	v.put("list", "row", "key", "column", "value")
	return v
}

func (v values) put(list, row, key, column string, value any) {
	_ = v.c.Write([]string{Clean(list), row, Clean(key), Clean(column), csvText(value)}) // kept by c.Error
}

// object writes the members of an object, those of objects in it as outer.inner, and of lists of
// objects as outer.1.inner. Members named in but are left out: they have lines of their own.
func (v values) object(list string, o object, but ...string) { v.members(list, "", o, but...) }

func (v values) members(list, prefix string, o object, but ...string) {
	for _, m := range o {
		if slices.Contains(but, m.key) {
			continue
		}
		switch inner := m.value.(type) {
		case object:
			v.members(list, prefix+m.key+".", inner)
		case []object:
			for i, x := range inner {
				v.members(list, fmt.Sprintf("%s%s.%d.", prefix, m.key, i+1), x)
			}
		default:
			v.put(list, "", "", prefix+m.key, m.value)
		}
	}
}

// top writes a top list, and what is of the list as a whole.
func (v values) top(t *Top) {
	g := TopGrid(t)
	v.grid(t.Name, len(t.Keys), g)
	v.object(t.Name, topObject(t, g), "dimension", "rows", "other")
}

// grid writes a grid whose first columns are the keys, after the rank if there is one. Of several
// keys each has a line of its own, too, as they cannot be told apart in one.
func (v values) grid(list string, keys int, g *Grid) {
	first := 0
	if g.Columns[0].Name == "rank" {
		first = 1
	}
	for i, row := range g.all() {
		rank := fmt.Sprint(i + 1)
		if i >= len(g.Rows) {
			rank = "other"
		}
		var key []string
		for _, cell := range row.Cells[first : first+keys] {
			key = append(key, csvText(cell))
		}
		from := first + keys
		if keys > 1 {
			from = first
		}
		for j := from; j < len(row.Cells); j++ {
			v.put(list, rank, strings.Join(key, " "), g.Columns[j].Name, row.Cells[j])
		}
	}
}

// list writes texts.
func (v values) list(list, column string, texts []string) {
	for i, text := range texts {
		v.put(list, fmt.Sprint(i+1), "", column, text)
	}
}

func (v values) end() error {
	v.c.Flush()
	return v.c.Error()
}
