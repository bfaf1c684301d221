package view

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/httpctl/httpctl/pkg/testkit/golden"
)

func list(total int64, floor int64, other int64, rows ...TopRow) *Top {
	t := &Top{Dimension: Dimension{Name: "section", Title: "Sections", Keys: []string{"section"}, Columns: []Measure{{"hits", "{request}", Sum}}},
		Total: total, Floor: floor, Rows: rows, Since: at(-time.Hour), Until: noon}
	if other > 0 {
		t.Other = &TopRow{Values: []Value{{Number: other}}}
	}
	return t
}

func hits(key string, n, err int64) TopRow {
	return TopRow{Keys: []string{key}, Values: []Value{{Number: n}}, Error: err}
}

// TestCompare: what differs most beyond its error bounds comes first, and what may not differ is left out.
func TestCompare(t *testing.T) {
	for name, c := range map[string]struct {
		now, then *Top
		of, limit int
		want      string
	}{
		"exact": {list(160, 0, 0, hits("a", 100, 0), hits("b", 50, 0), hits("new", 10, 0)), list(170, 0, 0, hits("a", 90, 0), hits("b", 50, 0), hits("gone", 30, 0)), 1, 0,
			"gone 0-30 a 100-90 new 10-0 "},
		"within the bounds": {list(100, 0, 0, hits("a", 100, 0)), list(90, 0, 0, hits("a", 90, 10)), 1, 0, ""},
		"beyond them":       {list(101, 0, 0, hits("a", 101, 0)), list(90, 0, 0, hits("a", 90, 10)), 1, 0, "a 101-90 "},
		"a floor hides":     {list(12, 0, 0, hits("a", 5, 0), hits("b", 7, 0)), list(90, 5, 90), 1, 0, "b 7-0 "},
		"cut off":           {list(30, 0, 0, hits("a", 10, 0), hits("b", 20, 0)), list(100, 0, 60, hits("c", 30, 0), hits("d", 10, 0)), 1, 0, "c 0-30 b 20-0 d 0-10 "},
		"peers":             {list(30, 0, 0, hits("a", 30, 0)), list(60, 0, 0, hits("a", 60, 0)), 3, 0, "a 30-20 "},
		"limited":           {list(3, 0, 0, hits("a", 1, 0), hits("b", 2, 0)), list(0, 0, 0), 1, 1, "b 2-0 "},
	} {
		got := Compare(c.now, c.then, c.of, c.limit)
		text := ""
		for _, r := range got.Rows {
			text += r.Keys[0] + " " + number(r.Hits) + "-" + number(round(r.Then)) + " "
		}
		if text != c.want {
			t.Errorf("%s: Compare = %s, want %s", name, text, c.want)
		}
		if more := map[bool]int{true: 1}[name == "limited"]; got.More != more {
			t.Errorf("%s: More = %d, want %d", name, got.More, more)
		}
	}
}

func TestWriteComparisons(t *testing.T) {
	now := list(13_500, 0, 0, hits("shop.example.org/cart", 12_000, 0), hits("shop.example.org/\x1b[2J", 1_500, 20))
	then := list(9_000, 0, 0, hits("shop.example.org/cart", 3_000, 0), hits("shop.example.org/old", 6_000, 0))
	then.Since, then.Until = at(-25*time.Hour), at(-24*time.Hour)
	c := Compare(now, then, 1, 0)
	c.Now, c.Then = "this range", "yesterday"
	same := Compare(now, now, 1, 0)
	same.Now, same.Then = "this range", "yesterday"
	for _, f := range Formats {
		var b bytes.Buffer
		if err := WriteComparisons(&b, Format(f), Style{Now: noon, Width: 100}, []*Comparison{c, same}, []string{"Not all was seen now by: web-1"}); err != nil {
			t.Fatal(err)
		}
		golden.Check(t, "compare-"+f, b.String())
		if f == string(FormatYAML) {
			var j bytes.Buffer
			if err := WriteComparisons(&j, FormatJSON, Style{Now: noon}, []*Comparison{c, same}, []string{"Not all was seen now by: web-1"}); err != nil {
				t.Fatal(err)
			}
			sameAsJSON(t, b.Bytes(), j.Bytes())
		}
	}
}

// TestVolumesAreComparedInBytes: rows, changes and totals of a list by volume have their unit.
func TestVolumesAreComparedInBytes(t *testing.T) {
	now, then := list(4<<20, 0, 0, hits("a", 3<<20, 0), hits("b", 1<<20, 0)), list(2<<20, 0, 0, hits("b", 2<<20, 0))
	now.Columns = []Measure{{Name: "volume", Unit: "By"}}
	var b bytes.Buffer
	if err := WriteComparisons(&b, FormatTable, Style{Now: noon}, []*Comparison{Compare(now, then, 1, 0)}, nil); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"VOLUME", "  3.00 MiB", "+3.00 MiB", "-1.00 MiB", "In all 4.00 MiB, then 2.00 MiB."} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("want %q in\n%s", want, b.String())
		}
	}
}

// TestUnwatched: where nobody watched then, a table is what the notes say, not pages of rows that are all new; other forms are whole.
func TestUnwatched(t *testing.T) {
	list := []*Comparison{
		{Dimension: Dimension{Name: "method", Title: "Methods", Keys: []string{"method"}}, Total: 3, Unwatched: true, Rows: []ComparisonRow{{Keys: []string{"GET"}, Hits: 3}}},
	}
	f := func(form Format, want bool) {
		t.Helper()
		var b strings.Builder
		if err := WriteComparisons(&b, form, Style{Now: noon}, list, []string{"There is nothing to compare with."}); err != nil {
			t.Fatal(err)
		}
		if got := b.String(); strings.Contains(got, "GET") != want || !strings.Contains(got, "nothing to compare with.") {
			t.Errorf("%s, rows %v:\n%s", form, want, got)
		}
	}
	f(FormatTable, false)
	for _, form := range []Format{FormatWide, FormatMarkdown, FormatJSON, FormatYAML, FormatCSV} {
		f(form, true)
	}
	list = append(list, &Comparison{Dimension: list[0].Dimension})
	f(FormatTable, true)
}

// TestPeers: what is of peers is not said to be of an earlier time.
func TestPeers(t *testing.T) {
	c := &Comparison{Dimension: Dimension{Name: "method", Title: "Methods", Keys: []string{"method"}}, Total: 3, ThenTotal: 5, Peers: true, Rows: []ComparisonRow{{Keys: []string{"GET"}, Hits: 3, Then: 5}}}
	var b strings.Builder
	if err := WriteComparisons(&b, FormatTable, Style{Now: noon}, []*Comparison{c}, nil); err != nil {
		t.Fatal(err)
	}
	if got := strings.ToLower(b.String()); strings.Contains(got, "then") || !strings.Contains(got, "hits  peers") || !strings.Contains(got, "in all 3, peers 5.") {
		t.Errorf("a comparison with peers is written as\n%s", b.String())
	}
}
