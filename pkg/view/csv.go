package view

import (
	"encoding/csv"
	"fmt"
	"io"
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
	_ = v.c.Write([]string{list, row, key, column, csvText(value)}) // kept by c.Error
}

// object writes the members of an object, those of objects in it as outer.inner.
func (v values) object(list string, o object) { v.members(list, "", o) }

func (v values) members(list, prefix string, o object) {
	for _, m := range o {
		if inner, ok := m.value.(object); ok {
			v.members(list, prefix+m.key+".", inner)
			continue
		}
		v.put(list, "", "", prefix+m.key, m.value)
	}
}

// top writes a top list, and how much an absent key can have.
func (v values) top(t *Top) {
	v.grid(t.Name, len(t.Keys), TopGrid(t))
	v.put(t.Name, "", "", "floor", t.Floor)
	if len(t.Classes) > 0 {
		v.members(t.Name, "classes.", counts(t.Classes))
	}
	if t.Latency != nil {
		v.members(t.Name, "latency.", latencyObject(t.Latency))
	}
}

// grid writes a grid whose first columns are the keys, after the rank if there is one.
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
		for j := first + keys; j < len(row.Cells); j++ {
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
