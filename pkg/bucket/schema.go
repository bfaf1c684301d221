package bucket

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// MeasureKind says how the values of a measure combine.
type MeasureKind uint8

// The kinds of measures.
const (
	Sum     MeasureKind = iota // added
	Max                        // the larger is kept (last seen)
	Latency                    // nanoseconds, into a sketch; see package sketch
)

// Measure is one value column of a table.
type Measure struct {
	Name string
	Kind MeasureKind
	// Unit is a UCUM unit as OpenTelemetry uses them: "By", "ns", "{request}".
	Unit string
}

// View is a top list that a table offers: what `httpctl top NAME` prints.
type View struct {
	// Name is the dimension's name on the command line, Title its heading.
	Name, Title string
	// By lists the key columns that make a row of the list; rows of the table
	// that differ in other key columns only are added up.
	By []string
	// Hits is the Sum measure by which the list is ranked unless the reader
	// asks for another, and of which it shows the share. Rows in which it is
	// 0 are not shown.
	Hits string
	// Show lists the further measures to display, in order.
	Show []string
}

// Schema describes a table. It travels with the table, so that a reader can
// show a statistic that it has never heard of.
type Schema struct {
	// Name is unique among tables: lower-case letters, digits and '_'.
	Name string
	// Version changes with the meaning of a column; tables of different
	// versions are never merged.
	Version uint32
	// Keys names the key columns. The columns "mirror", "role", "domain", "section",
	// "method" and "status" answer the filters of the same name.
	Keys []string
	// Measures names the value columns. The first is a Sum, and ranks rows
	// when the table has too many.
	Measures []Measure
	Views    []View
	// Exact says that the keys are few by construction, so the table folds
	// rows only beyond 16 times max_keys.
	Exact bool
}

// The bounds on a schema, so that a table from the network stays readable.
const (
	maxColumns = 32 // key columns, measures, views, each
	maxName    = 64 // bytes in the name of a table, a column or a view
)

// Columns writes what tables must have in common to be added up: version, keys and measures. It is "" for nil.
func (s *Schema) Columns() string {
	if s == nil {
		return ""
	}
	b := strconv.AppendUint(nil, uint64(s.Version), 10)
	for _, k := range s.Keys { // names have no spaces
		b = append(append(b, ' '), k...)
	}
	for _, m := range s.Measures {
		b = append(append(b, " ="...), m.Name...)
		b = append(b, ' ', '0'+byte(m.Kind))
	}
	return string(b)
}

// Key returns the position of a key column, or -1.
func (s *Schema) Key(name string) int { return slices.Index(s.Keys, name) }

// Measure returns the position of a measure, or -1.
func (s *Schema) Measure(name string) int {
	return slices.IndexFunc(s.Measures, func(m Measure) bool { return m.Name == name })
}

// LatencyIndex returns the position in Row.Latency of the sketches of the
// measure at a position, or -1 if that is not a Latency measure.
func (s *Schema) LatencyIndex(measure int) int {
	if measure < 0 || measure >= len(s.Measures) || s.Measures[measure].Kind != Latency {
		return -1
	}
	n := 0
	for _, m := range s.Measures[:measure] {
		if m.Kind == Latency {
			n++
		}
	}
	return n
}

// latencies counts the Latency measures.
func (s *Schema) latencies() (n int) {
	for _, m := range s.Measures {
		if m.Kind == Latency {
			n++
		}
	}
	return n
}

// View returns the view of that name, or nil.
func (s *Schema) View(name string) *View {
	for i := range s.Views {
		if s.Views[i].Name == name {
			return &s.Views[i]
		}
	}
	return nil
}

// Validate reports every fault of a schema at once: names that are not
// lower-case letters, digits and '_' or that come twice, a first measure that
// is no Sum, a view that names what is not there.
func (s *Schema) Validate() error {
	var faults []error
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("table %q: "+format, append([]any{s.Name}, args...)...))
	}
	names := func(what string, list []string) {
		for i, n := range list {
			if !validName(n) {
				fault("%s %q: want 1 to %d lower-case letters, digits and '_'", what, n, maxName)
			}
			if slices.Contains(list[:i], n) {
				fault("%s %q is there twice", what, n)
			}
		}
		if len(list) > maxColumns {
			fault("%d %ss: want at most %d", len(list), what, maxColumns)
		}
	}
	names("name", []string{s.Name})
	names("key", s.Keys)
	measures := make([]string, len(s.Measures))
	for i, m := range s.Measures {
		measures[i] = m.Name
		if m.Kind > Latency {
			fault("measure %q has the unknown kind %d", m.Name, m.Kind)
		}
		if len(m.Unit) > maxName {
			fault("measure %q: the unit is longer than %d bytes", m.Name, maxName)
		}
	}
	names("measure", measures)
	if len(s.Measures) == 0 || s.Measures[0].Kind != Sum {
		fault("the first measure must be a Sum")
	}
	views := make([]string, len(s.Views))
	for i, v := range s.Views {
		views[i] = v.Name
		if len(v.Title) > maxName {
			fault("view %q: the title is longer than %d bytes", v.Name, maxName)
		}
		if len(v.By) == 0 || len(v.By) > maxColumns || len(v.Show) > maxColumns {
			fault("view %q: want 1 to %d columns in By, and at most as many in Show", v.Name, maxColumns)
		}
		for _, k := range v.By {
			if s.Key(k) < 0 {
				fault("view %q: no key %q; there are %v", v.Name, k, s.Keys)
			}
		}
		if m := s.Measure(v.Hits); m < 0 || s.Measures[m].Kind != Sum {
			fault("view %q: hits %q is no Sum measure; there are %v", v.Name, v.Hits, measures)
		}
		for _, m := range v.Show {
			if s.Measure(m) < 0 {
				fault("view %q: no measure %q; there are %v", v.Name, m, measures)
			}
		}
	}
	names("view", views)
	return errors.Join(faults...)
}

func validName(n string) bool {
	if n == "" || len(n) > maxName {
		return false
	}
	return strings.IndexFunc(n, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '_')
	}) < 0
}

// compatible reports whether tables of the two schemas can be added up.
// Views may differ: they only say how to show a table.
func (s *Schema) compatible(o *Schema) bool {
	return s.Name == o.Name && s.Version == o.Version && slices.Equal(s.Keys, o.Keys) &&
		slices.EqualFunc(s.Measures, o.Measures, func(a, b Measure) bool { return a.Name == b.Name && a.Kind == b.Kind })
}
