package bucket

import (
	"github.com/httpctl/httpctl/pkg/sketch"
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
	// asks for another, and of which it shows the share.
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
	// Exact says that the keys are few by construction, so max_keys does not
	// apply and the table never folds rows. (It still has a hard bound, 16 times max_keys.)
	Exact bool
}

// Row is one row of a table.
type Row struct {
	Keys []string
	// Values holds the Sum and Max measures by position; the position of a
	// Latency measure is unused here.
	Values []int64
	// Err bounds how much larger than Values[0] the true value may be.
	Err int64
	// Latency holds the sketches of the Latency measures, by order among them.
	// An entry is nil when nothing was observed.
	Latency []*sketch.Latency
}

// Table counts by key in bounded memory.
//
// Values[0] of a row is a lower bound and Err says how much more it may be.
// A row that is folded adds its values to Other, so rows + Other = total,
// exactly, for every measure. Floor bounds Values[0] of any key that has no
// row; 0 means that the table is exact. Every key whose share of Values[0]
// is above 1/max rows has a row (Space-Saving, Metwally et al. 2005).
// Merging keeps all of this in any order of merging.
//
// A Table is not safe for concurrent use.
type Table struct {
	Schema Schema
	// Max is the bound on rows.
	Max   int
	Rows  []*Row // in no particular order
	Other Row    // Keys is nil, Err is 0
	Floor int64
	// Folded counts the rows that were folded into Other.
	Folded uint64

	state tableState
}
