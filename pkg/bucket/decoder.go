package bucket

import (
	"slices"
	"strings"
	"unsafe"

	"github.com/httpctl/httpctl/pkg/sketch"
)

// A Decoder decodes as Decode does, into memory that it uses again: for those who look at bucket after
// bucket and keep none. The memory of an unusually large one is not kept. The zero value is ready. It is not
// safe for concurrent use.
type Decoder struct {
	m memory
}

// Decode is the function Decode, but that rows with their keys, values and sketches are valid until the next call only.
// The header and the schemas may be kept.
func (d *Decoder) Decode(data []byte, names ...string) (*Bucket, error) {
	d.m.again = true
	d.m.reset()
	return decode(data, &d.m, names)
}

// memory is where decoded things lie. The zero value takes each from the heap; with again set, the
// next bucket gets the same memory.
type memory struct {
	again   bool
	body    []byte
	joined  []byte // strings of which the body has parts
	strings []string
	numbers []int
	rows    []Row
	list    []*Row
	values  []int64
	sketch  []sketch.Latency
	results []*sketch.Latency
	bins    []sketch.Bin
	text    []string
	schemas map[string]*Schema // that were met, by name
	scratch Schema
}

const (
	// keptBody is the largest body whose memory is kept, six times that of a busy host. One that is made to decodes to 60
	// times as much.
	keptBody = 256 << 10
	// keptSchemas bounds the schemas that are remembered; the built-in ones are 8.
	keptSchemas = 64
)

func (m *memory) reset() {
	if len(m.schemas) > keptSchemas {
		m.schemas = nil
	}
	m.body, m.joined, m.strings, m.numbers, m.rows, m.list = m.body[:0], m.joined[:0], m.strings[:0], m.numbers[:0], m.rows[:0], m.list[:0]
	m.values, m.sketch, m.results, m.bins, m.text = m.values[:0], m.sketch[:0], m.results[:0], m.bins[:0], m.text[:0]
}

// take returns n zero values of pool, the memory of m for one kind of thing.
func take[T any](m *memory, pool *[]T, n int) []T {
	if !m.again {
		return make([]T, n)
	}
	if cap(*pool)-len(*pool) < n {
		// What was taken before stays with whoever has it.
		*pool = make([]T, 0, max(n, 2*cap(*pool), 64))
	}
	from := len(*pool)
	*pool = (*pool)[:from+n]
	s := (*pool)[from : from+n : from+n]
	clear(s)
	return s
}

// stringOf returns b, which lies in the body, as a string.
func (m *memory) stringOf(b []byte) string {
	if !m.again {
		return string(b)
	}
	return unsafe.String(unsafe.SliceData(b), len(b)) // as valid as the body; see Decoder.Decode
}

// schema returns one that is equal to s and may be kept, and whether it was met before and so is valid.
func (m *memory) schema(s *Schema) (kept Schema, known bool) {
	if !m.again {
		return *s, false
	}
	if k := m.schemas[s.Name]; k != nil && k.Equal(s) {
		return *k, true
	}
	return s.clone(), false
}

// remember keeps a valid schema.
func (m *memory) remember(s *Schema) {
	if !m.again {
		return
	}
	if m.schemas == nil {
		m.schemas = map[string]*Schema{}
	}
	m.schemas[s.Name] = s
}

// Equal reports whether two schemas are the same in all.
func (s *Schema) Equal(o *Schema) bool {
	return s.Exact == o.Exact && s.Name == o.Name && s.Version == o.Version && slices.Equal(s.Keys, o.Keys) && slices.Equal(s.Measures, o.Measures) &&
		slices.EqualFunc(s.Views, o.Views, func(a, b View) bool {
			return a.Name == b.Name && a.Title == b.Title && a.Hits == b.Hits && slices.Equal(a.By, b.By) && slices.Equal(a.Show, b.Show)
		})
}

// clone returns a copy that shares no memory with s.
func (s *Schema) clone() Schema {
	texts := func(list []string) (out []string) {
		for _, t := range list {
			out = append(out, strings.Clone(t))
		}
		return out
	}
	c := Schema{Name: strings.Clone(s.Name), Version: s.Version, Exact: s.Exact, Keys: texts(s.Keys)}
	for _, m := range s.Measures {
		c.Measures = append(c.Measures, Measure{strings.Clone(m.Name), m.Kind, strings.Clone(m.Unit)})
	}
	for _, v := range s.Views {
		c.Views = append(c.Views, View{Name: strings.Clone(v.Name), Title: strings.Clone(v.Title), By: texts(v.By), Hits: strings.Clone(v.Hits), Show: texts(v.Show)})
	}
	return c
}
