package query

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/httpctl/httpctl/pkg/lifecycle"
)

// TestTogether: each part runs once; an error of one is returned and ends the others; a panic of one is the caller's.
func TestTogether(t *testing.T) {
	var ran [50]atomic.Int32
	if err := together(ctx, len(ran), func(_ context.Context, i int) error { ran[i].Add(1); return nil }); err != nil {
		t.Fatal(err)
	}
	for i := range ran {
		if n := ran[i].Load(); n != 1 {
			t.Errorf("part %d ran %d times, want once", i, n)
		}
	}
	wrong := errors.New("wrong")
	var after atomic.Int32
	err := together(ctx, 1000, func(ctx context.Context, i int) error {
		if i == 3 {
			return fmt.Errorf("part: %w", wrong)
		}
		if i > 3 {
			<-ctx.Done() // or the part is the last that runs
			after.Add(1)
		}
		return nil
	})
	if !errors.Is(err, wrong) {
		t.Errorf("an error of a part gives %v", err)
	}
	if n := after.Load(); n > 100 {
		t.Errorf("%d parts ran after an error", n)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if err := together(ended, 3, func(context.Context, int) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("a question that nobody waits for gives %v", err)
	}
	defer func() {
		if err, ok := recover().(error); !ok || !errors.Is(err, lifecycle.ErrPanic) {
			t.Errorf("recovered %v, want the panic of the part", err)
		}
	}()
	_ = together(ctx, 3, func(_ context.Context, i int) error {
		if i == 1 {
			panic("a fault")
		}
		return nil
	})
}
