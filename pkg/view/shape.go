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
		slices.SortStableFunc(g.Rows, func(a, b Row) int {
			order := CompareCells(a.Cells[i], b.Cells[i])
			if down && a.Cells[i] != nil && b.Cells[i] != nil { // what is absent comes last, either way
				return -order
			}
			return order
		})
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

// CompareCells orders two cells of a column; absent ones come last.
func CompareCells(a, b any) int {
	switch {
	case a == nil && b == nil:
		return 0
	case a == nil:
		return 1
	case b == nil:
		return -1
	}
	switch a := a.(type) {
	case int64:
		return cmp.Compare(a, b.(int64))
	case float64:
		return cmp.Compare(a, b.(float64))
	case time.Duration:
		return cmp.Compare(a, b.(time.Duration))
	case time.Time:
		return a.Compare(b.(time.Time))
	case bool:
		switch {
		case a == b.(bool):
			return 0
		case a:
			return 1
		}
		return -1
	case []Count:
		return cmp.Compare(sum(a), sum(b.([]Count)))
	}
	return strings.Compare(csvText(a), csvText(b))
}

// sum adds counters up: who sorts by what was not seen looks for the host with most of it.
func sum(list []Count) (n uint64) {
	for _, c := range list {
		n += c.Value
	}
	return n
}
