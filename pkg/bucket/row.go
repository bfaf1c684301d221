package bucket

import (
	"unsafe"

	"github.com/httpctl/httpctl/pkg/sketch"
)

// Row is one row of a table.
type Row struct {
	Keys []string
	// Values holds the Sum and Max measures by position; the position of a
	// Latency measure is unused here.
	Values []int64
	// Err bounds how much larger than Values[0] the true value may be.
	Err int64
	// Latency holds the sketches of the Latency measures, by order among them.
	// An entry is nil when nothing was observed, and all are missing where they
	// were left out when the row was made.
	Latency []*sketch.Latency
}

// Upper is the largest value that Values[0] may have in truth.
func (r *Row) Upper() int64 { return AddSaturating(r.Values[0], r.Err) }

// What a row takes: itself, its pointer, its places in index and heap, and for each value, key
// and sketch. From a heap profile of a million rows.
const (
	rowBytes     = 80 + 8 + 48 + 16
	valueBytes   = 8
	keyBytes     = 16 + 3 // and the key itself, with its length
	latencyBytes = 8 + 64
	binBytes     = 16
)

// bytes is what r counts for in Table.Bytes.
func (r *Row) bytes() int64 {
	n := rowBytes + valueBytes*len(r.Values) + keyBytes*len(r.Keys)
	for _, k := range r.Keys {
		n += len(k)
	}
	for _, l := range r.Latency {
		if l != nil {
			n += latencyBytes + binBytes*cap(l.Bins)
		}
	}
	return int64(n)
}

// newRow returns a row whose values and keys are next to it in memory: who adds to it reads all of them, and with many rows, or
// seldom, from no cache of the processor. The sizes are those of what agents count.
func (t *Table) newRow() *Row {
	r, keys, values := (*Row)(nil), []string(nil), []int64(nil)
	switch k, v := len(t.Schema.Keys), len(t.Schema.Measures); {
	case k <= 3 && v <= 3:
		b := new(struct {
			Row
			values [3]int64
			keys   [3]string
		})
		r, keys, values = &b.Row, b.keys[:k:k], b.values[:v:v]
	case k <= 4 && v <= 5:
		b := new(struct {
			Row
			values [5]int64
			keys   [4]string
		})
		r, keys, values = &b.Row, b.keys[:k:k], b.values[:v:v]
	case k <= 6 && v <= 5:
		b := new(struct {
			Row
			values [5]int64
			keys   [6]string
		})
		r, keys, values = &b.Row, b.keys[:k:k], b.values[:v:v]
	case k <= 4 && v <= 12:
		b := new(struct {
			Row
			values [12]int64
			keys   [4]string
		})
		r, keys, values = &b.Row, b.keys[:k:k], b.values[:v:v]
	default:
		return new(Row)
	}
	r.Keys, r.Values = keys, values
	return r
}

// has reports whether keys are those of r, in the same places of memory.
func (r *Row) has(keys []string) bool {
	own := r.Keys[:len(keys)]
	for i, k := range keys {
		if len(own[i]) != len(k) || unsafe.StringData(own[i]) != unsafe.StringData(k) {
			return false
		}
	}
	return true
}
