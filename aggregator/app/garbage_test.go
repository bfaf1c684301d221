package app

import (
	"context"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"time"
)

func TestHeapGrowth(t *testing.T) {
	for live, want := range map[uint64]int{0: 300, 10 << 20: 300, 48 << 20: 200, 96 << 20: 100, 1 << 40: 100} {
		if got := heapGrowth(live); got != want {
			t.Errorf("heapGrowth(%d) = %d, want %d", live, got, want)
		}
	}
}

// TestPaceCollector has much live, and then little.
func TestPaceCollector(t *testing.T) {
	t.Setenv("GOGC", "")
	before := debug.SetGCPercent(usualGrowth)
	defer debug.SetGCPercent(before)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- paceCollector(ctx) }()
	become := func(want func(percent int) bool) {
		t.Helper()
		for range 1000 {
			runtime.GC()
			if want(growthNow()) {
				return
			}
			time.Sleep(time.Millisecond)
		}
		t.Errorf("the heap may grow by %d%%", growthNow())
	}
	become(func(percent int) bool { return percent > usualGrowth })
	much := make([]byte, 2*spareHeap)
	become(func(percent int) bool { return percent == usualGrowth })
	runtime.KeepAlive(much)
	become(func(percent int) bool { return percent > usualGrowth })
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if got := growthNow(); got != usualGrowth {
		t.Errorf("in the end the heap may grow by %d%%, want what it was before, %d%%", got, usualGrowth)
	}
}

// growthNow is how far the heap of this process may grow, in percent.
func growthNow() int {
	sample := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	metrics.Read(sample)
	return int(sample[0].Value.Uint64())
}
