package bucket

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/httpctl/httpctl/pkg/sketch"
)

// Condition holds when the key column has one of the values. A value ending
// in "*" matches by its start; in the column "status" also "5xx" matches every
// status from 500 to 599, and in "mirror" "1" all but "0". Domains and roles are matched in lower case.
type Condition struct {
	Column string
	Values []string
	// Exact takes the values as whole keys: a section may end in "*".
	Exact bool
}

// ErrColumn is wrapped by errors about a column that a table does not have.
var ErrColumn = errors.New("the table has no such column")

// Matches reports whether a key value satisfies the condition.
func (c Condition) Matches(value string) bool {
	if c.Exact {
		return slices.Contains(c.Values, value)
	}
	for _, pattern := range c.Values {
		if matches(c.Column, pattern, value) {
			return true
		}
	}
	return false
}

// Matcher returns Matches of the condition as it is now, as a function that takes as long for many values as for few,
// patterns apart: each of them is compared.
func (c Condition) Matcher() func(value string) bool {
	const few = 8 // are as soon compared as looked up
	if len(c.Values) <= few {
		return c.Matches
	}
	whole := make(map[string]struct{}, len(c.Values))
	patterns := Condition{Column: c.Column}
	for _, v := range c.Values {
		switch {
		case !c.Exact && isPattern(c.Column, v):
			patterns.Values = append(patterns.Values, v)
		case !c.Exact && foldsCase(c.Column):
			whole[strings.ToLower(v)] = struct{}{}
		default:
			whole[v] = struct{}{}
		}
	}
	return func(value string) bool {
		_, ok := whole[value]
		return ok || patterns.Matches(value)
	}
}

// foldsCase reports whether values of conditions on a column are taken in lower case.
func foldsCase(column string) bool { return column == "domain" || column == "role" }

// isPattern reports whether matches takes a value for more than itself.
func isPattern(column, value string) bool {
	return strings.HasSuffix(value, "*") || column == "mirror" && value == "1" ||
		column == "status" && len(value) == 3 && strings.EqualFold(value[1:], "xx")
}

func matches(column, pattern, value string) bool {
	if foldsCase(column) {
		pattern = strings.ToLower(pattern)
	}
	switch column {
	case "mirror": // "0", or the host that counts it, too
		if pattern == "1" {
			return value != "0"
		}
	case "status":
		if len(pattern) == 3 && len(value) == 3 && pattern[0] >= '1' && pattern[0] <= '9' &&
			strings.EqualFold(pattern[1:], "xx") {
			return pattern[0] == value[0]
		}
	}
	if start, ok := strings.CutSuffix(pattern, "*"); ok && strings.HasPrefix(value, start) {
		return true
	}
	return pattern == value
}

// Project returns a new table with only the key columns by, in that order (nil:
// all), and rows that differ in other columns added up. It takes no memory of t.
// The error wraps ErrColumn, and names the columns that there are.
//
// What t had folded could belong to any row. So Other keeps all of it, and no
// row's Err nor the Floor says less: a row may be larger than shown by what
// Other holds. rows + Other = total still holds, exactly.
//
// Views that the remaining columns cannot answer are left out.
func (t *Table) Project(by []string) (*Table, error) {
	if by == nil {
		by = t.Schema.Keys
	}
	schema := t.Schema
	schema.Keys = slices.Clone(by)
	schema.Views = nil
	columns := make([]int, len(by))
	for i, k := range by {
		if columns[i] = t.Schema.Key(k); columns[i] < 0 {
			return nil, fmt.Errorf("table %s, column %q: %w; there are: %s",
				t.Schema.Name, k, ErrColumn, strings.Join(t.Schema.Keys, ", "))
		}
	}
	for _, v := range t.Schema.Views {
		if !slices.ContainsFunc(v.By, func(k string) bool { return !slices.Contains(by, k) }) {
			schema.Views = append(schema.Views, v)
		}
	}
	p := NewTable(schema, unbounded)
	p.prepare()
	unattributed := t.Other.Values[0]
	// Rows that are not added up keep their own bound, if it is closer.
	whole := len(by) == len(t.Schema.Keys)
	if p.Floor = unattributed; whole {
		p.Floor = min(p.Floor, t.Floor)
	}
	keys := make([]string, len(by))
	for _, tr := range t.Rows {
		for i, c := range columns {
			keys[i] = tr.Keys[c]
		}
		p.state.scratch = appendKey(p.state.scratch[:0], keys)
		r := p.state.index[string(p.state.scratch)]
		if r == nil {
			r = p.insert(string(p.state.scratch), &Row{})
			if r.Err = unattributed; whole {
				r.Err = min(r.Err, tr.Err)
			}
		}
		before := r.bytes()
		p.combine(r, tr)
		p.took(r.bytes() - before)
	}
	p.combine(&p.Other, &t.Other)
	p.Folded = t.Folded
	return p, nil
}

// Top returns the n first rows (n < 1: all) by a measure, which for a Latency
// measure is its number of observations, the largest first and equal ones by
// their keys. Rows in which it is 0 are left out. The rows are those of t.
func (t *Table) Top(n, measure int) []*Row {
	latency := t.Schema.LatencyIndex(measure)
	value := func(r *Row) int64 {
		if latency < 0 {
			return r.Values[measure]
		}
		if l := r.Latency[latency]; l != nil {
			return int64(min(l.Count, 1<<62))
		}
		return 0
	}
	rows := make([]*Row, 0, len(t.Rows))
	for _, r := range t.Rows {
		if value(r) > 0 {
			rows = append(rows, r)
		}
	}
	slices.SortFunc(rows, func(a, b *Row) int {
		if c := cmp.Compare(value(b), value(a)); c != 0 {
			return c
		}
		return slices.Compare(a.Keys, b.Keys)
	})
	if n >= 1 && len(rows) > n {
		rows = rows[:n:n]
	}
	return rows
}

// Head returns a copy of t with at most n rows, those with the largest upper
// bounds, the others folded; an exact table is copied whole. It is what a
// provisional bucket carries, and cheaper than Merge and Cut.
func (t *Table) Head(n int) *Table {
	n = max(n, 1)
	h := NewTable(t.Schema, t.Max)
	h.Floor, h.Folded = t.Floor, t.Folded
	h.combine(&h.Other, &t.Other)
	rows := t.Rows
	if len(rows) > n && !t.Schema.Exact {
		h.Max = n
		rows = slices.Clone(rows)
		slices.SortFunc(rows, byUpper)
		for _, r := range rows[n:] {
			h.fold(r)
		}
		rows = rows[:n]
	}
	h.Rows = make([]*Row, len(rows))
	for i, r := range rows {
		h.Rows[i] = r.clone()
	}
	return h
}

// clone copies a row; the keys are immutable and shared.
func (r *Row) clone() *Row {
	c := &Row{Keys: slices.Clone(r.Keys), Values: slices.Clone(r.Values), Err: r.Err}
	if r.Latency != nil {
		c.Latency = make([]*sketch.Latency, len(r.Latency))
		for i, l := range r.Latency {
			c.Latency[i] = l.Clone()
		}
	}
	return c
}
