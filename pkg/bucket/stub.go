package bucket

import "errors"

type tableState struct{}

// NewTable returns an empty table of at most maxRows rows (maxRows < 1 is 1).
func NewTable(s Schema, maxRows int) *Table { panic("stub") }

// Add adds values, parallel to Schema.Measures, to the row of keys, parallel to
// Schema.Keys. For a Latency measure the value is one observation in
// nanoseconds; a negative value is no observation. keys and values are
// borrowed. It allocates only for a new row.
func (t *Table) Add(keys []string, values []int64) { panic("stub") }

// Merge adds o to t, which takes no memory of o. It returns ErrSchema when the two cannot be
// added up (another version, other columns, unequal latency mapping).
func (t *Table) Merge(o *Table) error { panic("stub") }

// ErrSchema is returned when tables that differ in more than rows are merged.
var ErrSchema = errors.New("tables differ in name, version or columns")

// ErrCorrupt is returned by Decode for bytes that Encode did not write.
var ErrCorrupt = errors.New("bucket is corrupt")

// ErrVersion is returned by Decode for a format newer than this program.
var ErrVersion = errors.New("bucket format is newer than this program")

// Encode appends the encoding of b to dst, with its checksum. Equal buckets encode to equal bytes.
func Encode(dst []byte, b *Bucket) ([]byte, error) { panic("stub") }

// DecodeHeader verifies the checksum of data and decodes its header only.
func DecodeHeader(data []byte) (*Header, error) { panic("stub") }

// Decode verifies the checksum of data and decodes it. With names, only the tables of those names are decoded.
// The result takes no memory of data. Hostile input costs at most a bounded multiple of len(data), and never more than limit bytes...
func Decode(data []byte, names ...string) (*Bucket, error) { panic("stub") }

// Merge adds the tables and counters of o to b (parts, incarnations, pipelines, hosts);
// the caller decides about the header's other fields.
func (b *Bucket) Merge(o *Bucket) error { panic("stub") }
