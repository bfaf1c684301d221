package ingest

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/stat"
)

// ownTables are the tables of the statistics that this program has, by name.
var ownTables = sync.OnceValue(func() map[string]bucket.Schema {
	tables := map[string]bucket.Schema{}
	for _, name := range stat.Names() {
		m, err := stat.New(name)
		if err != nil {
			continue // nothing but Names has it
		}
		for _, s := range m.Tables() {
			tables[s.Name] = s
		}
	}
	return tables
})

// errTooNew is wrapped by the error of checkTables for a bucket that a newer version of this program could store.
var errTooNew = errors.New("upgrade the aggregator first")

// checkTables refuses tables that would be added up in place of this program's own: of versions, or columns that do not fit, the newest
// counts, or the first, and all others are left out, whoever they are of.
func checkTables(tables []*bucket.Table) error {
	for _, t := range tables {
		own, ok := ownTables()[t.Schema.Name]
		switch {
		case ok && t.Schema.Version == 0: // without the columns that questions name, they would fail
			return fmt.Errorf("its table %s has version 0, which there never was", own.Name)
		case !ok || t.Schema.Version < own.Version:
			continue
		}
		if t.Schema.Version > own.Version {
			return fmt.Errorf("its table %s has version %d, this aggregator knows version %d: %w", own.Name, t.Schema.Version, own.Version, errTooNew)
		}
		same := slices.Equal(t.Schema.Keys, own.Keys) && slices.EqualFunc(t.Schema.Measures, own.Measures, func(a, b bucket.Measure) bool {
			return a.Name == b.Name && a.Kind == b.Kind
		})
		if !same {
			return fmt.Errorf("its table %s has other columns than version %d has", own.Name, own.Version)
		}
	}
	return nil
}
