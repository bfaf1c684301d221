package bucket

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func testSchema() Schema {
	return Schema{
		Name: "t", Version: 1, Keys: []string{"role", "domain"},
		Measures: []Measure{{"hits", Sum, "{request}"}, {"bytes", Sum, "By"}, {"ttfb", Latency, "ns"}, {"last_seen", Max, "ns"}},
		Views:    []View{{Name: "domain", Title: "Domains", By: []string{"domain"}, Hits: "hits", Show: []string{"ttfb", "last_seen"}}},
	}
}

// exact is the naive model: every key, nothing folded.
type exact map[[2]string]*[4]int64 // hits, bytes, observations, last

func (m exact) add(k [2]string, v [4]int64) {
	if m[k] == nil {
		m[k] = new([4]int64)
	}
	e := m[k]
	e[0] += v[0]
	e[1] += v[1]
	e[2] += v[2]
	e[3] = max(e[3], v[3])
}

// check holds t against the truth.
func check(t *testing.T, table *Table, truth exact, smallestMax int) {
	t.Helper()
	if len(table.Rows) > table.Max {
		t.Fatalf("%d rows, want at most %d", len(table.Rows), table.Max)
	}
	var total [4]int64
	for _, v := range truth {
		total[0] += v[0]
		total[1] += v[1]
		total[2] += v[2]
		total[3] = max(total[3], v[3])
	}
	rows, sum := map[[2]string]*Row{}, [4]int64{}
	count := func(r *Row) {
		sum[0] += r.Values[0]
		sum[1] += r.Values[1]
		if l := r.Latency[0]; l != nil {
			sum[2] += int64(l.Count)
		}
		sum[3] = max(sum[3], r.Values[3])
	}
	for _, r := range table.Rows {
		k := [2]string(r.Keys)
		if rows[k] != nil {
			t.Fatalf("two rows of %v", k)
		}
		rows[k] = r
		count(r)
		want := truth[k]
		if want == nil {
			t.Fatalf("row %v was never added", k)
		}
		if r.Values[0] > want[0] || r.Upper() < want[0] {
			t.Fatalf("row %v says [%d, %d], want %d inside", k, r.Values[0], r.Upper(), want[0])
		}
		if r.Err == 0 && r.Values[1] > want[1] {
			t.Fatalf("row %v has %d bytes, want at most %d", k, r.Values[1], want[1])
		}
	}
	count(&table.Other)
	if sum != total {
		t.Fatalf("rows + other = %v, want %v", sum, total)
	}
	for k, v := range truth {
		if rows[k] == nil && v[0] > table.Floor {
			t.Fatalf("key %v has no row and %d hits, above the floor %d", k, v[0], table.Floor)
		}
		if rows[k] == nil && v[0]*int64(smallestMax) > total[0] {
			t.Fatalf("key %v has no row and %d of %d hits, above 1/%d", k, v[0], total[0], smallestMax)
		}
	}
	if table.Floor == 0 && len(rows) != len(truth) {
		// A key without hits may go to Other in a full table.
		for k, v := range truth {
			if rows[k] == nil && v[0] > 0 {
				t.Fatalf("floor is 0 and key %v with %d hits has no row", k, v[0])
			}
		}
	}
}

func draw(r *rand.Rand, skew float64, keys int) ([2]string, [4]int64) {
	n := int(math.Pow(r.Float64(), skew) * float64(keys))
	k := [2]string{[]string{"server", "client"}[n%2], "host" + strconv.Itoa(n)}
	v := [4]int64{1, r.Int64N(5000), int64(r.IntN(2)), r.Int64N(1e12)}
	switch r.IntN(8) {
	case 0:
		v[0] = 0
	case 1:
		v[0] = r.Int64N(20)
	}
	return k, v
}

func add(table *Table, truth exact, k [2]string, v [4]int64) {
	latency := int64(-1)
	if v[2] == 1 {
		latency = v[1] * 1000
	}
	table.Add(k[:], []int64{v[0], v[1], latency, v[3]})
	truth.add(k, v)
}

func TestAddKeepsItsBounds(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 1))
		table, truth := NewTable(testSchema(), 1+r.IntN(40)), exact{}
		skew := 1 + r.Float64()*4
		for i := range 2000 {
			k, v := draw(r, skew, 200)
			add(table, truth, k, v)
			if i%100 == 0 {
				check(t, table, truth, table.Max)
			}
		}
		check(t, table, truth, table.Max)
	}
}

func TestMergeKeepsItsBoundsInAnyOrder(t *testing.T) {
	for seed := range uint64(80) {
		r := rand.New(rand.NewPCG(seed, 2))
		limit, truth := 1+r.IntN(30), exact{}
		parts := make([]*Table, 2+r.IntN(5))
		for i := range parts {
			parts[i] = NewTable(testSchema(), limit)
			skew := 1 + r.Float64()*4
			for range r.IntN(800) {
				k, v := draw(r, skew, 150)
				add(parts[i], truth, k, v)
			}
		}
		// Merge two at random until one is left, adding in between.
		for len(parts) > 1 {
			i := r.IntN(len(parts) - 1)
			if r.IntN(2) == 0 {
				parts[i], parts[i+1] = parts[i+1], parts[i]
			}
			before := len(parts[i+1].Rows)
			if err := parts[i].Merge(parts[i+1]); err != nil {
				t.Fatal(err)
			}
			if len(parts[i+1].Rows) != before {
				t.Fatal("Merge changed its argument")
			}
			for range r.IntN(50) {
				k, v := draw(r, 2, 150)
				add(parts[i], truth, k, v)
			}
			parts = slices.Delete(parts, i+1, i+2)
		}
		check(t, parts[0], truth, limit)

		head := parts[0].Head(5)
		check(t, head, truth, min(limit, 5))
		if !head.Schema.Exact && len(head.Rows) > 5 {
			t.Fatalf("Head(5) has %d rows", len(head.Rows))
		}
	}
}

func TestMergeTakesNoMemory(t *testing.T) {
	a, b := NewTable(testSchema(), 10), NewTable(testSchema(), 10)
	b.Add([]string{"server", "a"}, []int64{1, 2, 3, 4})
	if err := a.Merge(b); err != nil {
		t.Fatal(err)
	}
	a.Add([]string{"server", "a"}, []int64{10, 20, 30, 40})
	r := b.Rows[0]
	if r.Values[0] != 1 || r.Latency[0].Count != 1 {
		t.Errorf("adding to the sum changed what was merged: %+v", r)
	}
}

func TestMergeRefusesOtherSchemas(t *testing.T) {
	change := map[string]func(*Schema){
		"version": func(s *Schema) { s.Version++ },
		"keys":    func(s *Schema) { s.Keys = []string{"role", "section"} },
		"kind":    func(s *Schema) { s.Measures = slices.Clone(s.Measures); s.Measures[1].Kind = Max },
		"name":    func(s *Schema) { s.Name = "u" },
	}
	for name, f := range change {
		s := testSchema()
		f(&s)
		a, b := NewTable(testSchema(), 1), NewTable(s, 1)
		if err := a.Merge(b); !errors.Is(err, ErrSchema) {
			t.Errorf("%s: Merge = %v, want ErrSchema", name, err)
		}
	}
	s := testSchema()
	s.Views = nil
	if err := NewTable(testSchema(), 1).Merge(NewTable(s, 1)); err != nil {
		t.Errorf("other views: Merge = %v, want nil", err)
	}
}

func TestExactTableFoldsLate(t *testing.T) {
	s := testSchema()
	s.Exact = true
	table := NewTable(s, 2)
	for i := range 33 {
		table.Add([]string{"server", strconv.Itoa(i)}, []int64{1, 1, -1, 1})
		if want := min(i+1, 32); len(table.Rows) != want {
			t.Fatalf("after %d keys: %d rows, want %d", i+1, len(table.Rows), want)
		}
	}
	if table.Folded != 1 || table.Floor != 1 {
		t.Errorf("folded %d, floor %d, want 1 and 1", table.Folded, table.Floor)
	}
	table.Add([]string{"server", "absent"}, []int64{0, 5, -1, 1})
	if table.Folded != 1 || table.Other.Values[1] != 1+5 {
		t.Errorf("after more of a key without a row: folded %d, other %d, want 1 and 6", table.Folded, table.Other.Values[1])
	}
	if NewTable(s, math.MaxInt).bound() != math.MaxInt {
		t.Error("an unbounded exact table has a bound")
	}
}

func TestAddRefusesOtherLengths(t *testing.T) {
	table := NewTable(testSchema(), 2)
	for _, f := range []func(){
		func() { table.Add([]string{"a"}, []int64{1, 2, 3, 4}) },
		func() { table.Add([]string{"a", "b"}, []int64{1}) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Error("Add with a wrong length did not panic")
				}
			}()
			f()
		}()
	}
	if len(table.Rows) != 0 {
		t.Errorf("a refused Add left %d rows", len(table.Rows))
	}
}

func TestValuesRest(t *testing.T) {
	table := NewTable(testSchema(), 2)
	for range 3 {
		table.Add([]string{"a", "b"}, []int64{math.MaxInt64, -5, -1, -5})
	}
	if r := table.Rows[0]; r.Values[0] != math.MaxInt64 || r.Values[1] != 0 || r.Values[3] != 0 || r.Latency[0] != nil {
		t.Errorf("row = %+v, want the largest value, and nothing for negative ones", r)
	}
}

func TestSplitKey(t *testing.T) {
	long := string(make([]byte, 300))
	for _, keys := range [][]string{{}, {""}, {"", "a", ""}, {long, "x", long + long}} {
		got := make([]string, len(keys))
		splitKey(string(appendKey(nil, keys)), got)
		if !slices.Equal(got, keys) {
			t.Errorf("splitKey(appendKey(%q)) = %q", keys, got)
		}
	}
}

// TestMatcherIsMatches: of few values and of many, patterns among them, Matcher says what Matches does.
func TestMatcherIsMatches(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	words := []string{"", "*", "1", "0", "5xx", "4XX", "Xx", "200", "503", "a*", "A.example.org", "a.example.org", "Server", "server", "cart/*", "cart/", "c", "1*", "xx"}
	matched := 0
	for i := range 4000 {
		c := Condition{Column: []string{"domain", "role", "mirror", "status", "section"}[i%5], Exact: i%3 == 0}
		for range r.IntN(20) {
			c.Values = append(c.Values, words[r.IntN(len(words))])
			if r.IntN(2) == 0 {
				c.Values = append(c.Values, fmt.Sprint(r.IntN(1000)))
			}
		}
		matches := c.Matcher()
		for _, v := range append(words, "777", "507", "cart/x", "b.example.org") {
			if got, want := matches(v), c.Matches(v); got != want {
				t.Fatalf("%+v: Matcher says %t of %q, Matches %t", c, got, v, want)
			} else if got && len(c.Values) > 8 {
				matched++
			}
		}
	}
	if matched == 0 {
		t.Error("no value matched many")
	}
}

// BenchmarkMatcher: what a value costs a condition on 20,000 hosts.
func BenchmarkMatcher(b *testing.B) {
	c := Condition{Column: "mirror"}
	for i := range 20_000 {
		c.Values = append(c.Values, fmt.Sprintf("%032x", i))
	}
	matches := c.Matcher()
	for b.Loop() {
		matches("0")
	}
}

func TestProject(t *testing.T) {
	table := NewTable(testSchema(), 100)
	for i := range 10 {
		for _, role := range []string{"server", "client"} {
			table.Add([]string{role, fmt.Sprintf("h%d.example.org", i)}, []int64{int64(i), 10, 5, int64(i)})
		}
	}
	p, err := table.Project([]string{"domain"})
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Rows) != 10 || p.Floor != 0 || p.Total(0) != 90 || len(p.Schema.Views) != 1 {
		t.Errorf("by domain: %d rows, floor %d, total %d, %d views, want 10, 0, 90, 1",
			len(p.Rows), p.Floor, p.Total(0), len(p.Schema.Views))
	}
	top := p.Top(3, 0)
	if len(top) != 3 || top[0].Keys[0] != "h9.example.org" || top[0].Values[0] != 18 || top[0].Latency[0].Count != 2 {
		t.Errorf("Top(3) = %+v, want h9 with 18 hits first", top)
	}
	p, err = table.Project([]string{"role"})
	if err != nil || len(p.Rows) != 2 || p.Rows[0].Values[0] != 45 || p.Schema.Views != nil {
		t.Errorf("by role: %+v, %v; want two rows of 45 hits and no view", p, err)
	}
	if _, err := table.Project([]string{"nope"}); !errors.Is(err, ErrColumn) {
		t.Errorf("Project(nope) = %v, want ErrColumn", err)
	}
}

// TestProjectIsATable: what Project returns can be added to and knows its memory, as any table.
func TestProjectIsATable(t *testing.T) {
	table := NewTable(testSchema(), 100)
	add := func(n int, keys ...string) { table.Add(keys, []int64{int64(n), 10, 5, 7}) }
	add(1, "server", "a.example.org")
	add(2, "client", "a.example.org")
	add(4, "server", "b.example.org")
	want := NewTable(testSchema(), 100)
	if err := want.Merge(table); err != nil {
		t.Fatal(err)
	}
	p, err := table.Project(nil)
	if err != nil {
		t.Fatal(err)
	}
	if p.Bytes() != want.Bytes() {
		t.Errorf("a projected table takes %d bytes, one that was merged %d", p.Bytes(), want.Bytes())
	}
	if p, err = table.Project([]string{"domain"}); err != nil {
		t.Fatal(err)
	}
	table = p
	add(8, "a.example.org")
	add(16, "c.example.org")
	got := map[string]int64{}
	for _, r := range p.Rows {
		got[r.Keys[0]] = r.Values[0]
	}
	if w := map[string]int64{"a.example.org": 11, "b.example.org": 4, "c.example.org": 16}; !maps.Equal(got, w) || p.Total(1) != 50 {
		t.Errorf("added to a projected table: %v, %d in all, want %v, 50", got, p.Total(1), w)
	}
}

// TestProjectKeepsItsBounds folds and groups, and holds the result
// against the same question asked of the naive map.
func TestProjectKeepsItsBounds(t *testing.T) {
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 3))
		sum := NewTable(testSchema(), 1)
		truth := map[string]int64{}
		total := int64(0)
		for range 4 {
			table, part := NewTable(testSchema(), 20), exact{}
			for range 500 {
				k, v := draw(r, 3, 100)
				add(table, part, k, v)
			}
			for k, v := range part {
				total += v[0]
				truth[k[1]] += v[0]
			}
			p, err := table.Project([]string{"domain"})
			if err != nil {
				t.Fatal(err)
			}
			if sum.Schema.Name == "t" && len(sum.Rows) == 0 && len(sum.Schema.Keys) == 2 {
				sum = NewTable(p.Schema, math.MaxInt)
			}
			if err := sum.Merge(p); err != nil {
				t.Fatal(err)
			}
		}
		sum.Cut(10)
		seen := map[string]bool{}
		for _, row := range sum.Rows {
			seen[row.Keys[0]] = true
			if want := truth[row.Keys[0]]; row.Values[0] > want || row.Upper() < want {
				t.Fatalf("%v says [%d, %d], want %d inside", row.Keys, row.Values[0], row.Upper(), want)
			}
		}
		for k, v := range truth {
			if !seen[k] && v > sum.Floor {
				t.Fatalf("%s has no row and %d hits, above the floor %d", k, v, sum.Floor)
			}
		}
		if sum.Total(0) != total {
			t.Fatalf("total %d, want %d", sum.Total(0), total)
		}
	}
}

func TestConditionMatches(t *testing.T) {
	for _, c := range []struct {
		column, pattern, value string
		want                   bool
	}{
		{"status", "503", "503", true},
		{"status", "5xx", "503", true},
		{"status", "5XX", "599", true},
		{"status", "5xx", "404", false},
		{"status", "5xx", "-", false},
		{"status", "-", "-", true},
		{"section", "5xx", "503", false},
		{"section", "example.org/a*", "example.org/abc", true},
		{"section", "example.org/a*", "example.org/b", false},
		{"section", "*", "anything", true},
		{"section", "example.org/*", "example.org/*", true},
		{"domain", "EXAMPLE.org", "example.org", true},
		{"method", "get", "GET", false},
		{"method", "", "GET", false},
	} {
		if got := (Condition{Column: c.column, Values: []string{"zzz", c.pattern}}).Matches(c.value); got != c.want {
			t.Errorf("%s %q matches %q = %v, want %v", c.column, c.pattern, c.value, got, c.want)
		}
	}
}

// TestExactCondition: a whole key is no pattern.
func TestExactCondition(t *testing.T) {
	for _, c := range []struct {
		column, value, key string
		want               bool
	}{
		{"section", "example.org/*", "example.org/*", true}, {"section", "example.org/*", "example.org/a", false},
		{"status", "5xx", "503", false}, {"domain", "EXAMPLE.org", "example.org", false},
	} {
		if got := (Condition{Column: c.column, Values: []string{c.value}, Exact: true}).Matches(c.key); got != c.want {
			t.Errorf("exactly %s %q matches %q = %v, want %v", c.column, c.value, c.key, got, c.want)
		}
	}
}

func TestTopBreaksTiesByKey(t *testing.T) {
	table := NewTable(testSchema(), 10)
	for _, d := range []string{"c", "a", "b", "zero"} {
		hits := int64(5)
		if d == "zero" {
			hits = 0
		}
		table.Add([]string{"server", d}, []int64{hits, 1, -1, 0})
	}
	var got []string
	for _, r := range table.Top(0, 0) {
		got = append(got, r.Keys[1])
	}
	if want := []string{"a", "b", "c"}; !slices.Equal(got, want) {
		t.Errorf("Top = %v, want %v", got, want)
	}
	if got := table.Top(0, 2); len(got) != 0 {
		t.Errorf("Top by latency = %v, want none: nothing was observed", got)
	}
}

func TestValidate(t *testing.T) {
	s := testSchema()
	if err := s.Validate(); err != nil {
		t.Errorf("Validate() = %v, want nil", err)
	}
	for name, f := range map[string]func(*Schema){
		"empty name": func(s *Schema) { s.Name = "" },
		"upper case": func(s *Schema) { s.Name = "Top" },
		"twice":      func(s *Schema) { s.Keys = []string{"a", "a"} },
		"no measure": func(s *Schema) { s.Measures = nil; s.Views = nil },
		"first max":  func(s *Schema) { s.Measures = []Measure{{"m", Max, ""}}; s.Views = nil },
		"kind":       func(s *Schema) { s.Measures = append(slices.Clone(s.Measures), Measure{"x", 9, ""}) },
		"view key":   func(s *Schema) { s.Views = []View{{Name: "v", By: []string{"x"}, Hits: "hits"}} },
		"view hits":  func(s *Schema) { s.Views = []View{{Name: "v", By: []string{"role"}, Hits: "ttfb"}} },
		"view show": func(s *Schema) {
			s.Views = []View{{Name: "v", By: []string{"role"}, Hits: "hits", Show: []string{"x"}}}
		},
		"view no key": func(s *Schema) { s.Views = []View{{Name: "v", Hits: "hits"}} },
	} {
		s := testSchema()
		f(&s)
		if s.Validate() == nil {
			t.Errorf("%s: Validate() = nil, want an error", name)
		}
	}
}

func TestBucketMerge(t *testing.T) {
	a, b := &Bucket{}, &Bucket{}
	x := NewTable(testSchema(), 5)
	x.Add([]string{"server", "a"}, []int64{1, 1, 1, 1})
	b.Tables = []*Table{x}
	b.Counters[0] = 3
	for range 2 {
		if err := a.Merge(b); err != nil {
			t.Fatal(err)
		}
	}
	if a.Counters[0] != 6 || a.Table("t").Total(0) != 2 || a.Table("t") == x {
		t.Errorf("merged: counter %d, hits %d, want 6 and 2 in a table of its own", a.Counters[0], a.Table("t").Total(0))
	}
	s := testSchema()
	s.Version = 2
	b.Tables = []*Table{NewTable(s, 5)}
	if err := a.Merge(b); !errors.Is(err, ErrSchema) {
		t.Errorf("Merge of another version = %v, want ErrSchema", err)
	}
}

func TestParseID(t *testing.T) {
	id := ID{1, 2, 0xff}
	if got, err := ParseID(id.String()); err != nil || got != id {
		t.Errorf("ParseID(%s) = %v, %v", id, got, err)
	}
	for _, s := range []string{"", "00", "zz" + id.String()[2:], id.String() + "00"} {
		if _, err := ParseID(s); err == nil {
			t.Errorf("ParseID(%q) = nil error", s)
		}
	}
	if !(ID{}).IsZero() || id.IsZero() {
		t.Error("IsZero is wrong")
	}
}

func TestAddDoesNotAllocate(t *testing.T) {
	table := NewTable(testSchema(), 100)
	keys := make([][]string, 100)
	values := []int64{1, 100, 5_000_000, 1}
	for i := range keys {
		keys[i] = []string{"server", "host" + strconv.Itoa(i)}
		table.Add(keys[i], values)
	}
	i := 0
	if n := testing.AllocsPerRun(1000, func() { table.Add(keys[i%100], values); i++ }); n != 0 {
		t.Errorf("Add to a row that is there allocates %v times, want 0", n)
	}
}

func TestSameAdditionsSameTable(t *testing.T) {
	build := func() *Table {
		r := rand.New(rand.NewPCG(8, 8))
		table, truth := NewTable(testSchema(), 20), exact{}
		for range 3000 {
			k, v := draw(r, 2, 100)
			add(table, truth, k, v)
		}
		return table
	}
	a, b := build(), build()
	if !reflect.DeepEqual(a.Top(0, 0), b.Top(0, 0)) || a.Floor != b.Floor {
		t.Error("the same additions gave two tables")
	}
}

func BenchmarkTableAdd(b *testing.B) {
	for _, c := range []struct {
		name string
		keys int
		skew float64
	}{{"hot", 500, 1}, {"churn", 100_000, 3}} {
		b.Run(c.name, func(b *testing.B) {
			r := rand.New(rand.NewPCG(1, 1))
			keys := make([][]string, 1<<14)
			for i := range keys {
				k, _ := draw(r, c.skew, c.keys)
				keys[i] = []string{k[0], k[1] + ".example.org"}
			}
			table := NewTable(testSchema(), 1000)
			values := []int64{1, 1000, 5_000_000, 1}
			i := 0
			b.ReportAllocs()
			for b.Loop() {
				table.Add(keys[i&(1<<14-1)], values)
				i++
			}
		})
	}
}

// TestShed: bytes follow what is added, folded, replaced and merged, and shedding keeps the bounds.
func TestShed(t *testing.T) {
	s := Schema{Name: "x", Version: 1, Keys: []string{"k"}, Measures: []Measure{{Name: "hits", Kind: Sum}, {Name: "ttfb", Kind: Latency}}}
	check := func(what string, table *Table, total int64) {
		t.Helper()
		sum := int64(0)
		for _, r := range table.Rows {
			sum += r.bytes()
			if table.state.index[string(appendKey(nil, r.Keys))] != r {
				t.Errorf("%s: %v is not found", what, r.Keys)
			}
		}
		if table.Bytes() != sum || len(table.state.index) != len(table.Rows) {
			t.Errorf("%s: %d bytes, %d in the index; the %d rows have %d", what, table.Bytes(), len(table.state.index), len(table.Rows), sum)
		}
		if got := table.Total(0); got != total {
			t.Errorf("%s: total %d, want %d", what, got, total)
		}
	}
	table, other := NewTable(s, 100), NewTable(s, 100)
	n, account := int64(0), int64(0)
	table.Account(&account)
	for i := range 1000 {
		table.Add([]string{fmt.Sprint(strings.Repeat("k", i%50), i)}, []int64{1, int64(i * i)})
		table.Add([]string{"often"}, []int64{1, int64(i)})
		other.Add([]string{fmt.Sprint(i % 150)}, []int64{1, int64(i)})
		if n += 2; i%37 == 0 {
			table.Shed()
		}
		if i%100 == 0 {
			check(fmt.Sprint("after ", i), table, n)
		}
	}
	if err := table.Merge(other); err != nil {
		t.Fatal(err)
	}
	check("merged", table, n+1000)
	before := len(table.Rows)
	table.Shed()
	check("shed", table, n+1000)
	if len(table.Rows) != before-before/8 {
		t.Errorf("%d rows of %d after shedding an eighth", len(table.Rows), before)
	}
	for range 200 {
		table.Shed()
	}
	check("shed to the last", table, n+1000)
	if account != table.Bytes() {
		t.Errorf("%d bytes are accounted, the rows have %d", account, table.Bytes())
	}
	if len(table.Rows) != 1 || table.Rows[0].Keys[0] != "often" || table.Rows[0].Values[0] != 1000 {
		t.Errorf("the last row is %+v of %d, want the one that was added to most", table.Rows[0], len(table.Rows))
	}
}

// TestKeysInMemory: what a table counts does not depend on where in memory the keys are that it is added to with.
func TestKeysInMemory(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 12))
	same, copied := NewTable(testSchema(), 20), NewTable(testSchema(), 20)
	known := map[string][]string{}
	for i := range 20_000 {
		k, v := draw(r, 2, 100)
		if i%1000 < 500 {
			k[0], k[1] = k[1], k[0] // as long, and others
		}
		id := fmt.Sprintf("%q", k)
		if known[id] == nil {
			known[id] = k[:]
		}
		same.Add(known[id], v[:])
		copied.Add([]string{strings.Clone(k[0]), strings.Clone(k[1])}, v[:])
	}
	if same.Folded < 100 {
		t.Fatalf("%d rows were folded, want many", same.Folded)
	}
	if a, b := same.Top(0, 0), copied.Top(0, 0); !reflect.DeepEqual(a, b) || same.Floor != copied.Floor || !reflect.DeepEqual(same.Other, copied.Other) {
		t.Errorf("keys in the same places and in new ones gave two tables:\n%v\n%v", a, b)
	}
}
