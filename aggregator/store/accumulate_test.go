package store

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/httpctl/httpctl/pkg/bucket"
)

var testSchema = bucket.Schema{
	Name: "t", Version: 1, Keys: []string{"mirror", "role", "domain", "section"},
	Measures: []bucket.Measure{{Name: "hits", Kind: bucket.Sum}, {Name: "last", Kind: bucket.Max}, {Name: "ttfb", Kind: bucket.Latency}},
	Views:    []bucket.View{{Name: "t", By: []string{"section"}, Hits: "hits"}, {Name: "d", By: []string{"domain"}, Hits: "hits"}},
}

// TestBounds adds tables that folded keys, in several orders, and holds the
// result against the truth: every row is a lower bound, with its error an upper
// one, the floor bounds absent keys, and nothing is lost from the total.
func TestBounds(t *testing.T) {
	plans := []struct {
		name  string
		where []Condition
		by    []string
	}{
		{"whole", nil, nil},
		{"few values dropped", nil, []string{"domain", "section"}},
		{"one role", []Condition{{Column: "role", Values: []string{"server"}}}, []string{"section", "domain"}},
		{"no mirror", []Condition{{Column: "mirror", Values: []string{"0"}}}, []string{"section"}},
		{"many values dropped", nil, []string{"domain"}},
		{"filtered", []Condition{{Column: "domain", Values: []string{"d1", "d2"}}}, []string{"section"}},
		{"one row", nil, []string{}},
	}
	for _, plan := range plans {
		for _, limit := range []int{maxSumRows, 30} {
			t.Run(fmt.Sprintf("%s/limit=%d", plan.name, limit), func(t *testing.T) {
				rng := rand.New(rand.NewPCG(3, uint64(limit)))
				a := NewAccumulator(plan.where, plan.by)
				a.limit = limit
				truth, total := map[string]int64{}, int64(0)
				for range 40 {
					tb := bucket.NewTable(testSchema, 1+rng.IntN(40))
					for range 200 {
						d := rng.IntN(4)
						keys := []string{"0", []string{"server", "client"}[rng.IntN(2)], fmt.Sprint("d", d), fmt.Sprintf("d%d/s%d", d, int(rng.ExpFloat64()*6))}
						tb.Add(keys, []int64{1, 5, 1000})
						total++
						key, match := "", true
						for i, k := range testSchema.Keys {
							for _, c := range plan.where {
								match = match && (c.Column != k || c.Matches(keys[i]))
							}
						}
						by := plan.by
						if by == nil {
							by = testSchema.Keys
						}
						for _, b := range by {
							for i, k := range testSchema.Keys {
								if k == b {
									key += keys[i] + "\x00"
								}
							}
						}
						if match {
							truth[key]++
						}
					}
					if err := a.Add(tb); err != nil {
						t.Fatal(err)
					}
				}
				sum := a.Table(0)
				seen, got := map[string]bool{}, sum.Other.Values[0]
				for _, r := range sum.Rows {
					key := ""
					for _, k := range r.Keys {
						key += k + "\x00"
					}
					seen[key] = true
					got += r.Values[0]
					if v := r.Values[0]; v > truth[key] || v+r.Err < truth[key] {
						t.Errorf("row %q = %d to %d, the truth is %d", key, v, v+r.Err, truth[key])
					}
				}
				for key, n := range truth {
					if !seen[key] && n > sum.Floor {
						t.Errorf("absent key %q has %d, the floor is %d", key, n, sum.Floor)
					}
				}
				if (len(plan.where) == 0 || plan.name == "no mirror") && got != total {
					t.Errorf("rows + other = %d, want %d", got, total)
				}
			})
		}
	}
}

// TestErrorsStayUseful: dropping the columns mirror and role must not make the
// error as large as all that was folded.
func TestErrorsStayUseful(t *testing.T) {
	tb := bucket.NewTable(testSchema, 10)
	for i := range 1000 {
		s := "hot"
		if i%2 == 0 {
			s = fmt.Sprint("cold", i)
		}
		tb.Add([]string{"0", "server", "d", s}, []int64{1, 0, -1})
	}
	a := NewAccumulator([]Condition{{Column: "mirror", Values: []string{"0"}}}, []string{"domain", "section"})
	if err := a.Add(tb); err != nil {
		t.Fatal(err)
	}
	sum := a.Table(0)
	if r := sum.Rows[0]; r.Keys[1] != "hot" || r.Values[0] != 500 || r.Err != 2*tb.Floor {
		t.Errorf("hot = %v, error %d; want 500, and an error of the floors of two absent roles, %d (%d were folded)",
			r.Values[0], r.Err, 2*tb.Floor, tb.Other.Values[0])
	}
}

func TestMaxRows(t *testing.T) {
	tb := bucket.NewTable(testSchema, 100)
	for i := range 10 {
		tb.Add([]string{"0", "server", "d", fmt.Sprint(i)}, []int64{int64(10 * i), int64(i), 5})
	}
	a := NewAccumulator(nil, nil)
	if err := a.Add(tb); err != nil {
		t.Fatal(err)
	}
	sum := a.Table(3)
	if len(sum.Rows) != 3 || sum.Rows[0].Values[0] != 90 || sum.Floor != 60 || sum.Other.Values[0] != 210 || sum.Other.Values[1] != 6 ||
		sum.Other.Latency[0].Count != 7 || sum.Folded != 7 {
		t.Errorf("cut to 3: %d rows, floor %d, other %v, folded %d", len(sum.Rows), sum.Floor, sum.Other.Values, sum.Folded)
	}
}

func TestUnknownColumnAndVersions(t *testing.T) {
	tb := bucket.NewTable(testSchema, 100)
	if err := NewAccumulator(nil, []string{"path"}).Add(tb); !errors.Is(err, ErrColumn) {
		t.Errorf("Add with an unknown column = %v, want ErrColumn", err)
	}
	other := testSchema
	other.Measures = other.Measures[:2]
	a := NewAccumulator(nil, nil)
	for _, s := range []bucket.Schema{testSchema, other, testSchema} {
		if err := a.Add(bucket.NewTable(s, 10)); err != nil {
			t.Fatal(err)
		}
	}
	if a.Skipped() != 1 {
		t.Errorf("Skipped = %d, want the table with other columns", a.Skipped())
	}
	if NewAccumulator(nil, nil).Table(0) != nil {
		t.Error("a sum of nothing is not nil")
	}
	p := NewAccumulator(nil, []string{"section"})
	if err := p.Add(tb); err != nil {
		t.Fatal(err)
	}
	if v := p.Table(0).Schema.Views; len(v) != 1 || v[0].Name != "t" {
		t.Errorf("views = %v, want only that of the column kept", v)
	}
}
