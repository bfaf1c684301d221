package store

import (
	"encoding/binary"
	"slices"
	"strings"
	"unsafe"

	"github.com/httpctl/httpctl/pkg/bucket"
)

// OutlineTable is the table of which an Outline tells.
const OutlineTable = "totals"

const (
	// maxOutlineRows bounds an outline: the hosts that one host asks. One that asks more, or says so, is read as a whole.
	maxOutlineRows = 64
	// maxMirror is the length of a host's id in the column mirror.
	maxMirror = 2 * len(bucket.ID{})
)

// An Outline is the table "totals" of a bucket with its rows added up by the column mirror and without response times: all that is asked of a
// bucket to judge it. An engine that remembers the outline answers such plans, see [Plan.Outlined], without inflating the bucket
// again, and says the same. It is never changed, and safe for concurrent use.
type Outline struct {
	schema  *bucket.Schema // nil: the bucket has no such table
	mirrors []string       // of the rows; nil is one row, "0"
	values  []int64        // of the rows, one after the other
	sum     uint32         // of the bucket's bytes
	tables  *Schemas       // nil: not known
}

// Schemas are those of all tables of a bucket. They are never changed.
type Schemas []bucket.Schema

// SchemasOf returns those of a bucket of which all tables were decoded.
func SchemasOf(b *bucket.Bucket) *Schemas {
	out := make(Schemas, len(b.Tables))
	for i, t := range b.Tables {
		out[i] = t.Schema
	}
	return &out
}

// Equal reports whether both are the same in the same order.
func (s *Schemas) Equal(o *Schemas) bool {
	return s == o || slices.EqualFunc(*s, *o, func(x, y bucket.Schema) bool { return x.Equal(&y) })
}

// Bytes is about what they take in memory.
func (s *Schemas) Bytes() (n int64) {
	const text = 16
	for i := range *s {
		x := &(*s)[i]
		n += int64(unsafe.Sizeof(*x)) + int64(len(x.Name))
		for _, k := range x.Keys {
			n += text + int64(len(k))
		}
		for _, m := range x.Measures {
			n += int64(unsafe.Sizeof(m)) + int64(len(m.Name)+len(m.Unit))
		}
		for _, v := range x.Views {
			n += int64(unsafe.Sizeof(v)) + int64(len(v.Name)+len(v.Title)+len(v.Hits))
			for _, c := range slices.Concat(v.By, v.Show) {
				n += text + int64(len(c))
			}
		}
	}
	return n
}

// Outlined reports whether the outlines of buckets say all that p asks of them.
func (p *Plan) Outlined() bool {
	if p.Table != OutlineTable || !p.Numbers || p.By == nil {
		return false
	}
	return !slices.ContainsFunc(p.By, func(column string) bool { return column != columnMirror }) &&
		!slices.ContainsFunc(p.Where, func(c Condition) bool { return c.Column != columnMirror })
}

// OutlineOf returns the outline of a bucket that was decoded, at least its table "totals", of data. It keeps no memory of either but the
// schema. It returns nil for a bucket that is to be read as a whole: one with a table of other columns, or that is not
// exact, as what may be missing in it depends on its rows.
func OutlineOf(b *bucket.Bucket, data []byte) *Outline {
	o := &Outline{sum: sumOf(data)}
	t := b.Table(OutlineTable)
	if t == nil {
		return o
	}
	column, n := t.Schema.Key(columnMirror), len(t.Schema.Measures)
	if column < 0 || n == 0 || t.Floor != 0 || t.Folded != 0 || slices.ContainsFunc(t.Other.Values, func(v int64) bool { return v != 0 }) {
		return nil
	}
	schema := t.Schema
	o.schema = &schema
	for _, r := range t.Rows {
		if r.Err != 0 || column >= len(r.Keys) || len(r.Values) != n || len(r.Keys[column]) > maxMirror {
			return nil
		}
		at := slices.Index(o.mirrors, r.Keys[column])
		if at < 0 {
			if at = len(o.mirrors); at == maxOutlineRows {
				return nil
			}
			o.mirrors = append(o.mirrors, strings.Clone(r.Keys[column]))
			o.values = append(o.values, make([]int64, n)...)
		}
		addRow(schema.Measures, &bucket.Row{Values: o.values[at*n : (at+1)*n]}, &bucket.Row{Values: r.Values})
	}
	if len(o.mirrors) == 1 && o.mirrors[0] == "0" {
		o.mirrors = nil
	}
	o.mirrors, o.values = slices.Clip(o.mirrors), slices.Clip(o.values)
	return o
}

// WholeOutlineOf is OutlineOf for a bucket of which all tables were decoded: it notes their schemas, too.
func WholeOutlineOf(b *bucket.Bucket, data []byte) *Outline {
	o := OutlineOf(b, data)
	if o != nil {
		o.tables = SchemasOf(b)
	}
	return o
}

// sumOf returns the checksum at the end of an encoded bucket.
func sumOf(data []byte) uint32 {
	if len(data) < 4 {
		return 0
	}
	return binary.LittleEndian.Uint32(data[len(data)-4:])
}

// Of reports whether the outline is that of these bytes, given that they are of the bucket with that name.
func (o *Outline) Of(data []byte) bool { return o.sum == sumOf(data) }

// Table returns the table that stands for the bucket's in the answer to an [Plan.Outlined] plan, in new memory; nil for a bucket without one.
func (o *Outline) Table() *bucket.Table {
	if o.schema == nil {
		return nil
	}
	t := &bucket.Table{Schema: *o.schema}
	n, column := len(o.schema.Measures), o.schema.Key(columnMirror)
	for at := 0; at*n < len(o.values); at++ {
		r := &bucket.Row{Keys: make([]string, len(o.schema.Keys)), Values: o.values[at*n : (at+1)*n : (at+1)*n]}
		if r.Keys[column] = "0"; o.mirrors != nil {
			r.Keys[column] = o.mirrors[at]
		}
		t.Rows = append(t.Rows, r)
	}
	return t
}

// Schema is that of the table, nil for a bucket without one. Outlines that are kept had better share it: what sends buckets chooses
// it, and it takes up to tens of KB, which Bytes does not count.
func (o *Outline) Schema() *bucket.Schema { return o.schema }

// Tables are the schemas of all tables of the bucket, nil if they are not known. As with Schema, outlines that are kept had better share them.
func (o *Outline) Tables() *Schemas { return o.tables }

// Sharing returns o with a schema that is equal to its own, and tables that are, or nil.
func (o *Outline) Sharing(s *bucket.Schema, tables *Schemas) *Outline {
	own := *o
	own.schema, own.tables = s, tables
	return &own
}

// Bytes is about what the outline takes in memory, without its schema and tables.
func (o *Outline) Bytes() int64 {
	n := int64(unsafe.Sizeof(*o)) + int64(8*cap(o.values))
	for _, m := range o.mirrors {
		n += 16 + int64(len(m))
	}
	return n
}
