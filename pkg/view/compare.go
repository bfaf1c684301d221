package view

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"time"
)

// Comparison is one top list over two ranges, or of one host and of its peers: what is different?
type Comparison struct {
	Dimension Dimension
	// Since and Until bound what is looked at, ThenSince and ThenUntil what it is held against.
	Since, Until, ThenSince, ThenUntil time.Time
	// What is held against what, in words: "today", "web-1"; "24h before", "2 peers".
	Now, Then string
	// Total and ThenTotal are all hits. Of peers, ThenTotal and the rows' Then are of one of them, on average.
	Total, ThenTotal float64
	Rows             []ComparisonRow
	// More is how many other keys differ.
	More int
	// Peers says that Then is of a host's peers. Unwatched says that nobody watched then, so that there is nothing to compare with.
	Peers, Unwatched bool
}

// ComparisonRow is one key. Hits are lower bounds and may be the error more.
type ComparisonRow struct {
	Keys            []string
	Hits, Error     int64
	Then, ThenError float64
	noHits, noThen  bool // one side does not show the key
}

// change is the difference of the hits.
func (r *ComparisonRow) change() float64 { return float64(r.Hits) - r.Then }

// surely is the part of the difference that no error bound explains.
func (r *ComparisonRow) surely() float64 {
	low, high := float64(r.Hits)-(r.Then+r.ThenError), float64(r.Hits+r.Error)-r.Then
	switch {
	case low > 0:
		return low
	case high < 0:
		return -high
	}
	return 0
}

// Compare joins two answers of one top list, the second divided by of (1, or the number of peers),
// and keeps the limit keys (0: all) that differ most beyond what the error bounds explain.
func Compare(now, then *Top, of int, limit int) *Comparison {
	c := &Comparison{
		Dimension: now.Dimension, Since: now.Since, Until: now.Until, ThenSince: then.Since, ThenUntil: then.Until,
		Total: float64(now.Total), ThenTotal: float64(then.Total) / float64(of),
	}
	if len(c.Dimension.Keys) == 0 {
		c.Dimension = then.Dimension
	}
	index := map[string]int{}
	find := func(keys []string) *ComparisonRow {
		id := fmt.Sprintf("%q", keys)
		i, ok := index[id]
		if !ok {
			i = len(c.Rows)
			index[id] = i
			c.Rows = append(c.Rows, ComparisonRow{Keys: keys, noHits: true, noThen: true})
		}
		return &c.Rows[i]
	}
	for _, r := range now.Rows {
		row := find(r.Keys)
		row.Hits, row.Error, row.noHits = hitsOf(r), r.Error, false
	}
	for _, r := range then.Rows {
		row := find(r.Keys)
		row.Then, row.ThenError, row.noThen = float64(hitsOf(r))/float64(of), float64(r.Error)/float64(of), false
	}
	absentNow, absentThen := absent(now), absent(then)
	for i := range c.Rows {
		row := &c.Rows[i]
		if row.noHits {
			row.Error = absentNow
		}
		if row.noThen {
			row.ThenError = float64(absentThen) / float64(of)
		}
	}
	c.Rows = slices.DeleteFunc(c.Rows, func(r ComparisonRow) bool { return r.surely() == 0 })
	slices.SortStableFunc(c.Rows, func(a, b ComparisonRow) int {
		return cmp.Or(cmp.Compare(b.surely(), a.surely()), slices.Compare(a.Keys, b.Keys))
	})
	if limit > 0 && len(c.Rows) > limit {
		c.More = len(c.Rows) - limit
		c.Rows = c.Rows[:limit]
	}
	return c
}

func hitsOf(r TopRow) int64 {
	if len(r.Values) == 0 {
		return 0
	}
	return r.Values[0].Number
}

// absent is how many hits a key can have that an answer does not show: the list's floor, or, where
// the answer was cut, what its last row may have.
func absent(t *Top) int64 {
	most := t.Floor
	if t.Other != nil && hitsOf(*t.Other) > 0 && len(t.Rows) > 0 {
		last := t.Rows[len(t.Rows)-1]
		most = max(most, min(hitsOf(*t.Other), hitsOf(last)+last.Error))
	}
	return most
}

// ratio is the change in parts of then: nil where then was nothing.
func ratio(now, then float64) any {
	if then == 0 {
		return nil
	}
	return (now - then) / then
}

// inBytes reports whether what is compared is a volume.
func (c *Comparison) inBytes() bool {
	return len(c.Dimension.Columns) > 0 && c.Dimension.Columns[0].Unit == "By"
}

// amount writes a total for people.
func (c *Comparison) amount(n float64) string {
	if c.inBytes() {
		return byteSize(round(n))
	}
	return number(round(n))
}

// ComparisonGrid lays one comparison out.
func ComparisonGrid(c *Comparison) *Grid {
	g := &Grid{}
	for _, k := range c.Dimension.Keys {
		name := k
		if len(c.Dimension.Keys) == 1 {
			name = "key"
		}
		g.Columns = append(g.Columns, Column{Name: name, Head: heading(k)})
	}
	bounded := false
	for _, r := range c.Rows {
		bounded = bounded || r.Error > 0 || r.ThenError > 0
	}
	then := "THEN"
	if c.Peers {
		then = "PEERS"
	}
	hits, kind, change := "HITS", Number, Signed
	if c.inBytes() {
		hits, kind, change = heading(c.Dimension.Columns[0].Name), Bytes, SignedBytes
	}
	g.Columns = append(g.Columns,
		Column{Name: "hits", Head: hits, Kind: kind}, Column{Name: "error", Head: "ERROR", Kind: kind, Drop: 5, Wide: !bounded},
		Column{Name: "then", Head: then, Kind: kind}, Column{Name: "then_error", Head: then + " ERROR", Kind: kind, Drop: 6, Wide: !bounded},
		Column{Name: "change", Head: "CHANGE", Kind: change}, Column{Name: "change_ratio", Head: "%", Kind: SignedShare, Drop: 1},
		Column{Name: "share", Head: "SHARE", Kind: Share, Drop: 3}, Column{Name: "then_share", Head: then + " SHARE", Kind: Share, Drop: 4})
	row := func(r *ComparisonRow) []any {
		var cells []any
		for i := range c.Dimension.Keys {
			key := ""
			if i < len(r.Keys) {
				key = r.Keys[i]
			}
			cells = append(cells, key)
		}
		share := func(part, all float64) any {
			if all == 0 {
				return nil
			}
			return part / all
		}
		return append(cells, r.Hits, r.Error, round(r.Then), round(r.ThenError), round(r.change()), ratio(float64(r.Hits), r.Then),
			share(float64(r.Hits), c.Total), share(r.Then, c.ThenTotal))
	}
	for i := range c.Rows {
		tone := Plain
		if c.Rows[i].Hits == 0 || c.Rows[i].Then == 0 { // new, or gone
			tone = Strong
		}
		g.Rows = append(g.Rows, Row{Cells: row(&c.Rows[i]), Tone: tone})
	}
	if len(c.Rows) == 0 {
		g.Notes = append(g.Notes, "No difference that is larger than the error bounds.")
	}
	if c.More > 0 {
		differ := " differ less."
		if c.More == 1 {
			differ = " differs less."
		}
		g.Notes = append(g.Notes, plural(c.More, "other key")+differ)
	}
	return g
}

func round(f float64) int64 {
	if f < 0 {
		return -int64(-f + .5)
	}
	return int64(f + .5)
}

// WriteComparisons writes comparisons of the same two sides; notes say what makes these unequal, and come before them for people.
func WriteComparisons(w io.Writer, f Format, s Style, list []*Comparison, notes []string) error {
	objects := []object{}
	records := values{}
	if f == FormatCSV {
		records = newValues(w)
	}
	if f == FormatTable && !slices.ContainsFunc(list, func(c *Comparison) bool { return !c.Unwatched }) {
		list = nil // each line of it would only say that everything is new; the notes say why
	}
	if err := writeRemarks(w, f, s, notes, len(list) > 0); err != nil {
		return err
	}
	for i, c := range list {
		g := ComparisonGrid(c)
		g.Title = fmt.Sprintf("%s: %s, %s, against %s", c.Dimension.Title, Clean(c.Now), s.stretch(c.Since, c.Until), Clean(c.Then))
		if !c.ThenSince.Equal(c.Since) {
			g.Title += ", " + s.stretch(c.ThenSince, c.ThenUntil)
		}
		then := "then"
		if c.Peers {
			then = "peers"
		}
		total := fmt.Sprintf("In all %s, %s %s.", c.amount(c.Total), then, c.amount(c.ThenTotal))
		g.Notes = append(g.Notes, total)
		var err error
		switch f {
		case FormatJSON, FormatYAML:
			objects = append(objects, comparisonObject(c, g))
			continue
		case FormatCSV:
			records.grid(c.Dimension.Name, len(c.Dimension.Keys), g)
			records.object(c.Dimension.Name, comparisonObject(c, g), "dimension", "rows")
			continue
		case FormatMarkdown:
			err = g.Markdown(w, s)
		default:
			err = g.Table(w, s, f == FormatWide)
		}
		if err == nil && i < len(list)-1 {
			_, err = io.WriteString(w, "\n")
		}
		if err != nil {
			return err
		}
	}
	switch f {
	case FormatJSON:
		return writeJSON(w, object{{"comparisons", objects}, {"notes", valid(notes)}})
	case FormatYAML:
		return writeYAML(w, object{{"comparisons", objects}, {"notes", valid(notes)}})
	case FormatCSV:
		records.list("notes", "note", notes)
		return records.end()
	}
	return nil
}

// writeRemarks writes what is to be known of what follows, if something does, where people read it.
func writeRemarks(w io.Writer, f Format, s Style, notes []string, follows bool) error {
	text := ""
	for i, n := range notes {
		switch n = Clean(n); f {
		case FormatMarkdown:
			if text += MarkdownText(n) + "\n"; follows || i < len(notes)-1 {
				text += "\n" // each is a paragraph
			}
		case FormatTable, FormatWide:
			if text += s.Paint(Warn, n) + "\n"; follows && i == len(notes)-1 {
				text += "\n"
			}
		}
	}
	_, err := io.WriteString(w, text)
	return err
}

func comparisonObject(c *Comparison, g *Grid) object {
	return object{
		{"dimension", machine(c.Dimension.Name)}, {"title", machine(c.Dimension.Title)}, {"now", machine(c.Now)}, {"against", machine(c.Then)},
		{"since", machine(c.Since)}, {"until", machine(c.Until)}, {"then_since", machine(c.ThenSince)}, {"then_until", machine(c.ThenUntil)},
		{"total", round(c.Total)}, {"then_total", round(c.ThenTotal)}, {"more", c.More}, {"rows", g.objects(g.Rows)},
	}
}
