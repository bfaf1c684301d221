package bolt

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/aggregator/store/storetest"
)

// early is a time of making before all test buckets.
func early() time.Time { return time.Unix(0, storetest.T0).Add(-time.Hour) }

func open(t testing.TB, dir string) *DB {
	t.Helper()
	s, err := Open(filepath.Join(dir, "store.db"), Options{Now: early})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestConformance(t *testing.T) {
	storetest.Run(t, func(dir string) store.Store { return preparing{open(t, dir)} })
}
