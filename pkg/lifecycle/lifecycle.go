// Package lifecycle holds the few small things that every long-lived part of
// the programs needs: goroutines that have an owner, rounds that a fault does not end, and tearing down in the
// reverse order of setting up.
package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
)

// Group owns goroutines: it gives them a context, stops them together, and
// waits for them. The zero value is not usable; see [NewGroup]. It is safe for
// concurrent use.
type Group struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup
	failed chan error
}

// errStopped is the cause by which a group's context ends when it is stopped.
var errStopped = errors.New("stopped")

// NewGroup returns a group whose goroutines end with parent at the latest.
func NewGroup(parent context.Context) *Group {
	ctx, cancel := context.WithCancelCause(parent)
	return &Group{ctx: ctx, cancel: cancel, failed: make(chan error, 1)}
}

// Go runs f in a goroutine. If f returns an error or panics before the group
// is stopped, the whole group is cancelled and the error, with name in front, is
// sent to Failed: a daemon is never half alive.
func (g *Group) Go(name string, f func(context.Context) error) {
	g.wg.Go(func() {
		err := Guard(func() error { return f(g.ctx) })
		if err == nil || g.ctx.Err() != nil {
			return
		}
		err = fmt.Errorf("%s: %w", name, err)
		select {
		case g.failed <- err:
		default: // an earlier failure is the one to tell
		}
		g.cancel(err)
	})
}

// ErrPanic is wrapped by the error of [Guard] when what it ran has panicked.
var ErrPanic = errors.New("panic")

// Guard runs f and turns a panic in it into an error, which wraps ErrPanic and has the stack. It is for what is done with
// content that others have made, which may cost them their part and nobody else anything.
func Guard(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v\n%s", ErrPanic, r, debug.Stack())
		}
	}()
	return f()
}

// Failed gives the first error by which a goroutine ended unasked.
func (g *Group) Failed() <-chan error { return g.failed }

// Context is the context of the goroutines.
func (g *Group) Context() context.Context { return g.ctx }

// Stop cancels the goroutines and waits for them, until ctx ends. It may be
// called more than once. A nil group has nothing to stop.
func (g *Group) Stop(ctx context.Context) error {
	if g == nil {
		return nil
	}
	g.cancel(errStopped)
	done := make(chan struct{})
	go func() { g.wg.Wait(); close(done) }() // ends with the last goroutine of the group
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("goroutines still running: %w", context.Cause(ctx))
	}
}

// Stack remembers how to undo what was set up. The zero value is ready. It is
// safe for concurrent use.
type Stack struct {
	mu    sync.Mutex
	steps []step
}

type step struct {
	name string
	stop func(context.Context) error
}

// Push registers the teardown of something that was just set up.
func (s *Stack) Push(name string, stop func(context.Context) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.steps = append(s.steps, step{name, stop})
}

// Stop runs the teardowns, newest first, each once and all of them, whatever
// the earlier ones return; it joins their errors. A second call does nothing.
func (s *Stack) Stop(ctx context.Context) error {
	s.mu.Lock()
	steps := s.steps
	s.steps = nil
	s.mu.Unlock()
	var errs []error
	for _, st := range slices.Backward(steps) {
		if err := st.stop(ctx); err != nil {
			errs = append(errs, fmt.Errorf("stop %s: %w", st.name, err))
		}
	}
	return errors.Join(errs...)
}
