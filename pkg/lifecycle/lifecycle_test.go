package lifecycle

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestGroupStopWaits(t *testing.T) {
	g := NewGroup(t.Context())
	ended := false
	g.Go("worker", func(ctx context.Context) error {
		<-ctx.Done()
		ended = true
		return errors.New("an error of stopping is not a failure")
	})
	for range 2 {
		if err := g.Stop(t.Context()); err != nil {
			t.Fatalf("Stop() = %v", err)
		}
	}
	if !ended {
		t.Error("Stop returned before the goroutine had ended")
	}
	select {
	case err := <-g.Failed():
		t.Errorf("Failed() gave %v after an ordinary stop", err)
	default:
	}
}

func TestGroupFailureEndsAll(t *testing.T) {
	for name, f := range map[string]func(context.Context) error{
		"error": func(context.Context) error { return errors.New("boom") },
		"panic": func(context.Context) error { panic("boom") },
	} {
		t.Run(name, func(t *testing.T) {
			g := NewGroup(t.Context())
			g.Go("waits", func(ctx context.Context) error { <-ctx.Done(); return nil })
			g.Go("fails", f)
			err := <-g.Failed()
			if !strings.HasPrefix(err.Error(), "fails: ") || !strings.Contains(err.Error(), "boom") {
				t.Errorf("Failed() = %q, want the goroutine's name and boom", err)
			}
			<-g.Context().Done()
			if err := g.Stop(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestGroupStopIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGroup(context.Background())
		release := make(chan struct{})
		g.Go("stubborn", func(context.Context) error { <-release; return nil })
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := g.Stop(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Stop() = %v, want a deadline exceeded", err)
		}
		close(release)
		if err := g.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

func TestNilGroup(t *testing.T) {
	if err := (*Group)(nil).Stop(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestStackStopsInReverseAndGoesOn(t *testing.T) {
	var s Stack
	var got []string
	broken := errors.New("broken")
	for _, name := range []string{"a", "b", "c"} {
		s.Push(name, func(context.Context) error {
			got = append(got, name)
			if name == "b" {
				return broken
			}
			return nil
		})
	}
	err := s.Stop(t.Context())
	if !errors.Is(err, broken) || !strings.Contains(err.Error(), "stop b") {
		t.Errorf("Stop() = %v, want b's error under its name", err)
	}
	if err := s.Stop(t.Context()); err != nil {
		t.Errorf("second Stop() = %v", err)
	}
	if want := []string{"c", "b", "a"}; !slices.Equal(got, want) {
		t.Errorf("order %v, want %v", got, want)
	}
}
