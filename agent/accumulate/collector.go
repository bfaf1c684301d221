package accumulate

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/exchange"
	"github.com/httpctl/httpctl/pkg/stat"
)

// Collector shows observations to statistics and keeps their tables, without
// intervals: one table from the first observation to the last. It is an
// exchange.Sink and not safe for concurrent use.
type Collector struct {
	modules []module
	schemas []bucket.Schema // of all tables, in the order of the statistics
	maxKeys int
	memory  int64 // of the tables of an interval; 0 is without bound
	current *tables
}

// module is one statistic; its tables are first to last among all.
type module struct {
	stat.Module
	first, last int
}

// tables is what the modules add to: an interval's, or everything's.
type tables struct {
	list   []*bucket.Table
	bytes  int64 // of their rows
	panics uint64
}

var _ exchange.Sink = (*Collector)(nil)

// NewCollector returns a Collector of the named statistics (none: the built-in ones) with at
// most maxKeys rows a table, and memory bytes for all tables together (0: whatever the rows
// take), beyond which the largest table folds its smallest rows. It fails for an unknown statistic, one that is named twice, a
// schema that is not valid, and two tables or two views of one name.
func NewCollector(statistics []string, maxKeys int, memory int64) (*Collector, error) {
	if maxKeys < 1 {
		return nil, fmt.Errorf("max_keys is %d: want at least 1", maxKeys)
	}
	if len(statistics) == 0 {
		statistics = stat.Builtin
	}
	c := &Collector{maxKeys: maxKeys, memory: memory}
	var faults []error
	named, owner, viewed := map[string]bool{}, map[string]string{}, map[string]string{}
	var modules []stat.Module
	var at []int // the position of the first table of each
	for _, name := range statistics {
		if named[name] {
			faults = append(faults, fmt.Errorf("statistics: %q is listed twice", name))
			continue
		}
		named[name] = true
		m, err := stat.New(name)
		if err != nil {
			faults = append(faults, fmt.Errorf("statistics: %w", err))
			continue
		}
		schemas := m.Tables()
		for i := range schemas {
			s := &schemas[i]
			if err := s.Validate(); err != nil {
				faults = append(faults, fmt.Errorf("statistic %q: %w", name, err))
			}
			if other, taken := owner[s.Name]; taken {
				faults = append(faults, fmt.Errorf("statistics %q and %q both have a table %q", other, name, s.Name))
			}
			owner[s.Name] = name
			for _, v := range s.Views {
				if other, taken := viewed[v.Name]; taken {
					faults = append(faults, fmt.Errorf("statistics %q and %q both have a view %q", other, name, v.Name))
				}
				viewed[v.Name] = name
			}
		}
		modules, at = append(modules, m), append(at, len(c.schemas))
		c.schemas = append(c.schemas, schemas...)
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	common, of := stat.NewCommon(modules, at)
	at = append(at, len(c.schemas))
	if common != nil {
		c.modules = append(c.modules, module{common, 0, len(c.schemas)})
	}
	for i, m := range modules {
		if !of[i] {
			c.modules = append(c.modules, module{m, at[i], at[i+1]})
		}
	}
	c.current = c.fresh()
	return c, nil
}

// fresh returns empty tables.
func (c *Collector) fresh() *tables {
	t := &tables{}
	for _, s := range c.schemas {
		table := bucket.NewTable(s, c.maxKeys)
		table.Account(&t.bytes)
		t.list = append(t.list, table)
	}
	return t
}

// Observe shows o to every statistic. One that panics loses this observation
// and nothing else; see Panics.
func (c *Collector) Observe(o *exchange.Observation) { c.observe(o, c.current) }

func (c *Collector) observe(o *exchange.Observation, t *tables) {
	for i := 0; i < len(c.modules); {
		i = c.show(i, o, t)
	}
	c.bound(t)
}

// bound keeps t within the memory for one interval's tables: long keys and many-binned
// sketches make rows that are a hundred times the usual.
func (c *Collector) bound(t *tables) {
	for c.memory > 0 && t.bytes > c.memory {
		largest := slices.MaxFunc(t.list, func(a, b *bucket.Table) int { return cmp.Compare(a.Bytes(), b.Bytes()) })
		if len(largest.Rows) < 2 {
			return
		}
		largest.Shed()
	}
}

// show shows o to the statistics from number i on, up to one that panics. It returns the number of that
// which is next.
func (c *Collector) show(i int, o *exchange.Observation, t *tables) (next int) {
	defer func() {
		if next < len(c.modules) {
			_ = recover()
			t.panics++
			next++
		}
	}()
	for next = i; next < len(c.modules); next++ {
		m := &c.modules[next]
		m.Observe(o, t.list[m.first:m.last:m.last])
	}
	return next
}

// Tables returns the tables, in the order of the statistics. They are the
// Collector's own: read them when nothing is observed.
func (c *Collector) Tables() []*bucket.Table { return c.current.list }

// Panics counts the observations that a statistic lost to its own fault.
func (c *Collector) Panics() uint64 { return c.current.panics }
