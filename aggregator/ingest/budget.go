package ingest

import (
	"context"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// budget bounds the bytes that wait for the store. Whoever asks first is
// served first, so a large bucket is not passed by small ones for ever.
type budget struct {
	turn  chan struct{} // held by who is waiting for room
	gauge prometheus.Gauge

	mu    sync.Mutex
	limit int64
	used  int64
	freed chan struct{} // capacity 1
}

func newBudget(limit int64, gauge prometheus.Gauge) *budget {
	return &budget{limit: limit, gauge: gauge, turn: make(chan struct{}, 1), freed: make(chan struct{}, 1)}
}

// acquire waits until n bytes, at most the limit, are free.
func (b *budget) acquire(ctx context.Context, n int64) error {
	select {
	case b.turn <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-b.turn }()
	for !b.take(n) {
		select {
		case <-b.freed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// setLimit changes the limit; what is under way stays so.
func (b *budget) setLimit(limit int64) {
	b.mu.Lock()
	b.limit = limit
	b.mu.Unlock()
	b.wake()
}

func (b *budget) take(n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.used > 0 && b.used+n > b.limit {
		return false
	}
	b.used += n
	b.gauge.Set(float64(b.used))
	return true
}

func (b *budget) release(n int64) {
	b.mu.Lock()
	b.used -= n
	b.gauge.Set(float64(b.used))
	b.mu.Unlock()
	b.wake()
}

func (b *budget) wake() {
	select {
	case b.freed <- struct{}{}:
	default: // whoever waits is told already
	}
}
