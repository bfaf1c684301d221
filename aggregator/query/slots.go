package query

import (
	"context"
	"net"
	"sync"

	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

const (
	// maxConcurrent bounds the questions answered at once; more wait. Each may
	// hold a top list of every key of the fleet in memory.
	maxConcurrent = 4
	// maxPerViewer bounds those from one address, so that nobody keeps all others waiting.
	maxPerViewer = maxConcurrent - 1
)

// slots admits questions. Those of one viewer wait for each other before they wait for a slot.
type slots struct {
	all chan struct{}

	mu      sync.Mutex
	viewers map[string]*viewer // with a question under way or waiting
}

type viewer struct {
	slots     chan struct{}
	questions int
}

func newSlots() *slots {
	return &slots{all: make(chan struct{}, maxConcurrent), viewers: map[string]*viewer{}}
}

// viewerOf names who asks: the address without its port; all who come by Unix sockets are one.
func viewerOf(ctx context.Context) string {
	p, ok := peer.FromContext(ctx)
	if !ok || p.Addr == nil {
		return ""
	}
	if host, _, err := net.SplitHostPort(p.Addr.String()); err == nil {
		return host
	}
	return ""
}

// enter waits for a slot; leave must be called when it returns nil.
func (s *slots) enter(ctx context.Context) (leave func(), err error) {
	name := viewerOf(ctx)
	s.mu.Lock()
	v := s.viewers[name]
	if v == nil {
		v = &viewer{slots: make(chan struct{}, maxPerViewer)}
		s.viewers[name] = v
	}
	v.questions++
	s.mu.Unlock()
	forget := func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if v.questions--; v.questions == 0 {
			delete(s.viewers, name)
		}
	}
	select {
	case v.slots <- struct{}{}:
	case <-ctx.Done():
		forget()
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	select {
	case s.all <- struct{}{}:
	case <-ctx.Done():
		<-v.slots
		forget()
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	return func() {
		<-s.all
		<-v.slots
		forget()
	}, nil
}
