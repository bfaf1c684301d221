package app

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// While the garbage collector marks, it has one of two processors, and who asks for a dashboard then waits. So it comes less often than
// Go has it come by itself, as far as that takes little memory.
const (
	// usualGrowth is how far the heap grows, in percent of what lives, until the garbage is collected: Go's own.
	usualGrowth = 100
	// mostGrowth is how far it may while little lives.
	mostGrowth = 300
	// spareHeap bounds what that takes beyond what lives, where usualGrowth takes less.
	spareHeap = 96 << 20
)

// heapGrowth is how far the heap may grow, in percent, where so many bytes of it live.
func heapGrowth(live uint64) int {
	return int(min(mostGrowth, max(usualGrowth, spareHeap*100/max(live, 1))))
}

// collected returns a channel that is closed soon after the garbage was collected for the next time.
func collected() <-chan struct{} {
	done := make(chan struct{})
	runtime.AddCleanup(new([64]byte), func(done chan struct{}) { close(done) }, done) // large enough for an allocation of its own
	return done
}

// paceCollector adapts to what lives how often the garbage collector of this process runs, until ctx ends. It is for a program that is the aggregator;
// how often the environment (GOGC) has it run goes first.
func paceCollector(ctx context.Context) error {
	if os.Getenv("GOGC") != "" {
		return nil
	}
	growth := heapGrowth(0)
	defer debug.SetGCPercent(debug.SetGCPercent(growth))
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	for {
		select {
		case <-collected():
		case <-ctx.Done():
			return nil
		}
		metrics.Read(sample)
		// Each change stops the world for a moment.
		if next := heapGrowth(sample[0].Value.Uint64()); 10*max(next-growth, growth-next) > growth {
			growth = next
			debug.SetGCPercent(growth)
		}
	}
}
