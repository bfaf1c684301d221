package app

import (
	"runtime"
	"testing"
	"time"

	"github.com/httpctl/httpctl/agent/accumulate"
	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/exchange"
)

// TestSample: what is measured with is whole exchanges, nothing of them missing, and a pipeline's most work.
func TestSample(t *testing.T) {
	collector, err := accumulate.NewCollector(nil, 1000, 0)
	if err != nil {
		t.Fatal(err)
	}
	local, err := newLocalAddresses(nil)
	if err != nil {
		t.Fatal(err)
	}
	s := newSample(100 * time.Millisecond)
	runtime.LockOSThread() // whose time the sample takes
	defer runtime.UnlockOSThread()
	p := newPipeline(s, DefaultConfig(), 1024, &readSink{collector: collector}, local)
	if err := p.run(); err != nil {
		t.Fatal(err)
	}
	c := p.counters
	// The last exchange may have been cut.
	if n := c[exchange.Outcomes]; n < 3*sampleFlows || c[exchange.Requests] != n || c[exchange.UnmatchedRequests]+c[exchange.UnmatchedResponses] > 1 || c[exchange.Connections] != sampleFlows {
		t.Errorf("%d exchanges, %d requests, %d and %d halves, %d connections", n, c[exchange.Requests], c[exchange.UnmatchedRequests], c[exchange.UnmatchedResponses], c[exchange.Connections])
	}
	for i, n := range c {
		if k := exchange.Counter(i); n > 0 && (k.Loss() || k.OtherProtocol() || k.Suspicion()) {
			t.Errorf("%v: %d", k, n)
		}
	}
	sections := 0
	for _, table := range collector.Tables() {
		if table.Schema.Name == "section" {
			sections = len(table.Rows)
		}
	}
	if sections != 100 {
		t.Errorf("%d sections, want 100", sections)
	}
	if s.result.Packets < sampleFlows || s.result.Bytes < 500*s.result.Packets || s.result.Time <= 0 {
		t.Errorf("measured %+v", s.result)
	}
	got, err := measure(config.DefaultSettings(), DefaultConfig(), 50*time.Millisecond)
	if err != nil || got.Packets == 0 || got.Time <= 0 {
		t.Errorf("measure() = %+v, %v", got, err)
	}
}
