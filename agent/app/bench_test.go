package app

import (
	"context"
	"os"
	"runtime"
	"testing"

	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/exchange"
)

// BenchmarkRead reads a whole capture file, which HTTPCTL_BENCH_CAPTURE names,
// as `httpctl read` does; `make bench` records one.
func BenchmarkRead(b *testing.B) {
	path := os.Getenv("HTTPCTL_BENCH_CAPTURE")
	if path == "" {
		b.Skip("HTTPCTL_BENCH_CAPTURE does not name a capture file; see make bench")
	}
	var before, after runtime.MemStats
	var packets, exchanges uint64
	runtime.ReadMemStats(&before)
	for b.Loop() {
		r, err := Read(context.Background(), []string{path}, ReadOptions{
			Settings: config.DefaultSettings(), Config: DefaultConfig(),
		})
		if err != nil {
			b.Fatal(err)
		}
		packets += r.Counters[exchange.Packets]
		exchanges += r.Counters[exchange.Outcomes]
		b.SetBytes(int64(r.Counters[exchange.PacketBytes]))
	}
	runtime.ReadMemStats(&after)
	allocs := float64(after.Mallocs - before.Mallocs)
	b.ReportMetric(float64(packets)/b.Elapsed().Seconds(), "packets/s")
	b.ReportMetric(allocs/float64(exchanges), "allocs/exchange")
	b.ReportMetric(allocs/float64(packets), "allocs/packet")
}
