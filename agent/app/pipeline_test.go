package app

import (
	"io"
	"sync/atomic"
	"testing"
	"time"

	"github.com/httpctl/httpctl/agent/accumulate"
	"github.com/httpctl/httpctl/agent/capture"
	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/exchange"
	"github.com/httpctl/httpctl/pkg/stat"
	"github.com/httpctl/httpctl/pkg/testkit"
)

// script is a source of frames, with idle polls in between.
type script struct {
	frames []testkit.Frame // one without data is an idle poll
	number uint64
}

func (s *script) Next(ps []capture.Packet) (n int, err error) {
	if len(s.frames) == 0 {
		return 0, io.EOF
	}
	if s.frames[0].Data == nil {
		return 0, capture.ErrIdle
	}
	for n < len(ps) && len(s.frames) > 0 && s.frames[0].Data != nil {
		f := s.frames[0]
		s.frames = s.frames[1:]
		s.number++
		ps[n] = capture.Packet{Number: s.number, Time: f.Time, Data: f.Data, Length: len(f.Data), Link: 1}
		n++
	}
	return n, nil
}

func (s *script) idle() int64 {
	t := s.frames[0].Time
	s.frames = s.frames[1:]
	return t
}

func (*script) Stats() capture.Stats { return capture.Stats{} }
func (*script) Close() error         { return nil }

// TestTimeoutAtBoundary: an exchange that times out where two intervals meet ends in one of
// them, by the counters and the gauge of its bucket as by its tables.
func TestTimeoutAtBoundary(t *testing.T) {
	start := testkit.Start.UnixNano()
	for _, asked := range []time.Duration{8900 * time.Millisecond, 8970 * time.Millisecond, 9020 * time.Millisecond, 9200 * time.Millisecond} {
		c := testkit.NewConversation("192.0.2.1:40000", "192.0.2.2:80")
		c.Now, c.Step = testkit.Start.Add(asked), 0
		c.Open()
		c.ToServer("GET / HTTP/1.1\r\nHost: example.org\r\n\r\n")
		source := &script{frames: c.Frames}
		for ms := 9300; ms < 21000; ms += 130 {
			source.frames = append(source.frames, testkit.Frame{Time: start + int64(ms)*1e6})
		}
		cfg := DefaultConfig()
		cfg.Stream.FlowIdleTimeout = time.Second // within 62 ms of it
		var out []*bucket.Bucket
		acc, err := accumulate.New(accumulate.Config{Width: 10 * time.Second, MaxKeys: 100},
			accumulate.Deps{Emit: func(b *bucket.Bucket) { out = append(out, b) }}, 1)
		if err != nil {
			t.Fatal(err)
		}
		local, _ := newLocalAddresses(nil)
		sink := &exchangeSink{}
		p := newPipeline(source, cfg, 1024, sink, local)
		part := acc.Pipeline(0, p.counters)
		sink.Sink = part
		var steps, width atomic.Int64
		width.Store(int64(10 * time.Second))
		p.live = &liveClock{
			idle: source.idle, wall: func() int64 { return start + int64(time.Hour) },
			advance: part.Advance, width: &width, steps: &steps,
		}
		if err := p.run(); err != nil {
			t.Fatal(err)
		}
		acc.Close()
		for _, b := range out {
			outcomes := int64(0)
			if totals := b.Table("totals"); totals != nil {
				outcomes = totals.Total(totals.Schema.Measure(stat.TotalOutcomes))
			}
			if got := int64(b.Counters[exchange.Outcomes]); got != outcomes {
				t.Errorf("asked at %v: the bucket at %ds counts %d outcomes, its table %d", asked, (b.Start-start)/1e9, got, outcomes)
			}
		}
	}
}

// TestOldestPacket: files may be named in any order.
func TestOldestPacket(t *testing.T) {
	local, _ := newLocalAddresses(nil)
	p := newPipeline(&packets{times: []int64{5e18, 3e18, 6e18, 4e18}, err: io.EOF}, DefaultConfig(), 1024, &exchangeSink{}, local)
	if err := p.run(); err != nil {
		t.Fatal(err)
	}
	if p.first != 3e18 || p.now != 6e18 {
		t.Errorf("oldest %d, newest %d, want 3e18 and 6e18", p.first, p.now)
	}
}
