package query

import (
	"context"
	"testing"
	"time"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/aggregator/store/storetest"
	"github.com/httpctl/httpctl/pkg/bucket"
)

// counting counts how often the store is asked for schemas.
type counting struct {
	store.Store
	asked int
}

func (c *counting) Schemas(ctx context.Context, from, to int64) ([]bucket.Schema, error) {
	c.asked++
	return c.Store.Schemas(ctx, from, to)
}

// TestRefresh: while somebody asks, and Refresh is called often enough, no question reads schemas but the first; while nobody does, Refresh reads none.
func TestRefresh(t *testing.T) {
	w := newWorld(t)
	st := &counting{Store: w.Store}
	w.Store = st
	w.put(made(t, storetest.Header(1, 1), 10, hit{n: 1, domain: "example.org", path: "/", method: "GET", status: 200}))
	ask := func(want int) {
		t.Helper()
		dims, err := w.dimensions(ctx)
		if err != nil || len(dims) == 0 {
			t.Fatalf("dimensions = %v, %v, want some", dims, err)
		}
		if st.asked != want {
			t.Errorf("schemas were read %d times, want %d", st.asked, want)
		}
	}
	later := func(d time.Duration, want int) {
		t.Helper()
		w.now = w.now.Add(d)
		if err := w.Refresh(ctx); err != nil || st.asked != want {
			t.Errorf("Refresh = %v, schemas were read %d times, want %d", err, st.asked, want)
		}
	}
	ask(1)
	for n := 2; n < 6; n++ {
		later(schemaTTL-time.Second, n)
		ask(n)
	}
	later(schemaTTL-time.Second, 6)
	later(schemaTTL-time.Second, 6) // nobody has asked since
	later(schemaTTL-time.Second, 6)
	ask(7)
}
