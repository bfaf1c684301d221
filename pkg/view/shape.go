package view

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// ColumnError says that a list has no column of the name asked for.
type ColumnError struct {
	Column string
	There  []string // the columns that it has
}

func (e *ColumnError) Error() string {
	return fmt.Sprintf("there is no column %q; there are: %s", e.Column, strings.Join(e.There, ", "))
}

// shape sorts the rows and chooses the columns that the style asks for. The row of the rest
// stays below. It returns a *ColumnError for a name that is no column's.
func (g *Grid) shape(s Style) error {
	find := func(name string) (int, error) {
		if i := g.Column(name); i >= 0 {
			return i, nil
		}
		e := &ColumnError{Column: name}
		for _, c := range g.Columns {
			e.There = append(e.There, c.Name)
		}
		return 0, e
	}
	if name := s.SortBy; name != "" {
		name, down := strings.CutPrefix(name, "-")
		i, err := find(name)
		if err != nil {
			return err
		}
		rows := make([]Row, len(g.Rows))
		for k, from := range Order(len(rows), func(k int) any { return g.Rows[k].Cells[i] }, down) {
			rows[k] = g.Rows[from]
		}
		g.Rows = rows
	}
	if len(s.Columns) == 0 {
		return nil
	}
	chosen := make([]int, len(s.Columns))
	columns := make([]Column, len(s.Columns))
	for k, name := range s.Columns {
		i, err := find(name)
		if err != nil {
			return err
		}
		chosen[k], columns[k] = i, g.Columns[i]
		columns[k].Wide, columns[k].Drop = false, 0 // who asks for it sees it
	}
	pick := func(r *Row) {
		cells := make([]any, len(chosen))
		for k, i := range chosen {
			cells[k] = r.Cells[i]
		}
		r.Cells = cells
	}
	for i := range g.Rows {
		pick(&g.Rows[i])
	}
	if g.Other != nil {
		pick(g.Other)
	}
	g.Columns = columns
	return nil
}

// Order returns the places of n rows in the order of their cells of one column, the largest first where down says so. Absent cells
// come last either way, and equal ones as they stand.
func Order(n int, cell func(int) any, down bool) []int32 {
	var kind any // of the first cell: a column has one
	for i := 0; i < n && kind == nil; i++ {
		kind = cell(i)
	}
	switch kind.(type) {
	case int64:
		return order(n, cell, down, func(c any) (int64, int) { return c.(int64), 0 })
	case float64:
		return order(n, cell, down, func(c any) (float64, int) { return c.(float64), 0 })
	case time.Duration:
		return order(n, cell, down, func(c any) (time.Duration, int) { return c.(time.Duration), 0 })
	case time.Time:
		return order(n, cell, down, func(c any) (int64, int) { t := c.(time.Time); return t.Unix(), t.Nanosecond() })
	case bool:
		return order(n, cell, down, func(c any) (int64, int) {
			if c.(bool) {
				return 1, 0
			}
			return 0, 0
		})
	case []Count:
		return order(n, cell, down, func(c any) (uint64, int) { return sum(c.([]Count)), 0 })
	}
	return order(n, cell, down, func(c any) (string, int) { return csvText(c), 0 })
}

// order makes a key of each cell once, with a second one for what it does not tell apart, and sorts those: a comparison of cells costs
// several times as much, and there are many.
func order[K cmp.Ordered](n int, cell func(int) any, down bool, key func(any) (K, int)) []int32 {
	type entry struct {
		key    K
		second int
		at     int32
	}
	entries, absent := make([]entry, 0, n), []int32(nil)
	for i := range n {
		c := cell(i)
		if c == nil {
			absent = append(absent, int32(i))
			continue
		}
		k, second := key(c)
		entries = append(entries, entry{k, second, int32(i)})
	}
	slices.SortFunc(entries, func(a, b entry) int {
		c := cmp.Compare(a.key, b.key)
		if c == 0 {
			c = cmp.Compare(a.second, b.second)
		}
		switch {
		case c == 0:
			return cmp.Compare(a.at, b.at)
		case down:
			return -c
		}
		return c
	})
	places := make([]int32, 0, n)
	for _, e := range entries {
		places = append(places, e.at)
	}
	return append(places, absent...)
}

// sum adds counters up: who sorts by what was not seen looks for the host with most of it.
func sum(list []Count) (n uint64) {
	for _, c := range list {
		n += c.Value
	}
	return n
}
