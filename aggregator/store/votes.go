package store

import (
	"cmp"
	"fmt"

	"github.com/httpctl/httpctl/pkg/bucket"
)

// Votes find the schema of each table that most hosts have: one host that brings another, by mistake, by an upgrade that has only begun, or to
// have its numbers shown in place of all others', does not change it. The zero value must be made by Votes{}.
type Votes map[string]*ballot

// ballot is of the tables of one name.
type ballot struct {
	schemas map[string]*candidate
	voted   map[bucket.ID]bool
}

type candidate struct {
	schema bucket.Schema
	hosts  int
}

// Add notes a schema that a host has. Of each table the first that comes of a host counts.
func (v Votes) Add(host bucket.ID, s *bucket.Schema) {
	b := v[s.Name]
	if b == nil {
		b = &ballot{map[string]*candidate{}, map[bucket.ID]bool{}}
		v[s.Name] = b
	}
	if b.voted[host] {
		return
	}
	b.voted[host] = true
	key := fmt.Sprintf("%s %q %t", s.Columns(), fmt.Sprint(s.Measures, s.Views), s.Exact)
	c := b.schemas[key]
	if c == nil {
		c = &candidate{schema: *s}
		b.schemas[key] = c
	}
	c.hosts++
}

// Elected returns for each name the schema that most hosts have; of equally many the older version.
func (v Votes) Elected() map[string]bucket.Schema {
	out := make(map[string]bucket.Schema, len(v))
	for name, b := range v {
		var best *candidate
		first := ""
		for key, c := range b.schemas {
			if best == nil || cmp.Or(cmp.Compare(c.hosts, best.hosts), cmp.Compare(best.schema.Version, c.schema.Version), cmp.Compare(first, key)) > 0 {
				best, first = c, key
			}
		}
		out[name] = best.schema
	}
	return out
}
