package stream

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/httpctl/httpctl/agent/decode"
	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/exchange"
)

// A counter is the cheapest handler.
type counter struct{ bytes, gaps, opened, closed uint64 }

func (c *counter) Coming([]Coming)     {}
func (c *counter) Opened(*Conn, int64) { c.opened++ }
func (c *counter) Data(_ *Conn, ch *Chunk) bool {
	c.bytes += uint64(len(ch.Data))
	c.gaps += ch.Gap
	return true
}
func (c *counter) Finished(*Conn, Direction, int64) {}
func (c *counter) Closed(*Conn, CloseReason, int64) { c.closed++ }

// A traffic makes endless segments of many flows: one in five from the client,
// of 200 bytes, the others from the server, of 1460.
type traffic struct {
	flows   []decode.Flow
	back    []decode.Flow
	next    [][2]uint32
	s       decode.Segment
	payload []byte
	r       *rand.Rand
	i       int
	delayed []decode.Segment
}

func newTraffic(flows int) *traffic {
	g := &traffic{payload: make([]byte, 1460), r: rand.New(rand.NewPCG(1, 1)), s: decode.Segment{Time: 1e18}}
	for i := range flows {
		g.flows = append(g.flows, flowOf(i))
		g.back = append(g.back, flowOf(i).Reverse())
		g.next = append(g.next, [2]uint32{1, 1})
	}
	return g
}

func (g *traffic) open(t *Table) {
	for i := range g.flows {
		t.Segment(&decode.Segment{Flow: g.flows[i], Time: g.s.Time, Flags: syn})
		t.Segment(&decode.Segment{Flow: g.back[i], Time: g.s.Time, Flags: syn | ack, Ack: 1})
		t.Segment(&decode.Segment{Flow: g.flows[i], Time: g.s.Time, Flags: ack, Seq: 1, Ack: 1})
	}
}

// step makes the next segment: 5 in a row of one flow, then another, so that
// the next flow is never in the cache when there are many.
func (g *traffic) step() *decode.Segment {
	i := g.i / 5 % len(g.flows)
	s := &g.s
	s.Packet++
	s.Time += 2000
	s.Flags = ack
	if g.i%5 == 0 {
		s.Flow, s.Seq, s.Ack, s.Payload = g.flows[i], g.next[i][0], g.next[i][1], g.payload[:200]
		g.next[i][0] += 200
	} else {
		s.Flow, s.Seq, s.Ack, s.Payload = g.back[i], g.next[i][1], g.next[i][0], g.payload
		g.next[i][1] += 1460
	}
	s.Length = len(s.Payload)
	g.i++
	return s
}

func BenchmarkSegment(b *testing.B) {
	bench := func(name string, flows, loss, reorder int) {
		b.Run(name, func(b *testing.B) {
			cfg := DefaultConfig()
			cfg.MaxFlows = max(cfg.MaxFlows, flows)
			var counters exchange.Counters
			t := New(cfg, &counter{}, &counters)
			g := newTraffic(flows)
			g.open(t)
			for range 5 * flows {
				t.Segment(g.step())
			}
			b.ReportAllocs()
			var bytes int64
			for b.Loop() {
				s := g.step()
				switch p := g.r.IntN(100); {
				case p < loss:
					continue
				case p < loss+reorder && len(g.delayed) < 64:
					g.delayed = append(g.delayed, *s)
					continue
				}
				bytes += int64(s.Length)
				t.Segment(s)
				if n := len(g.delayed); n > 0 && g.i%3 == 0 {
					g.delayed[n-1].Time = s.Time
					t.Segment(&g.delayed[n-1])
					g.delayed = g.delayed[:n-1]
				}
			}
			b.SetBytes(bytes / int64(b.N))
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "packets/s")
		})
	}
	for _, flows := range []int{1, 100, 10_000, 100_000, 500_000} {
		bench(fmt.Sprintf("flows=%d", flows), flows, 0, 0)
	}
	bench("flows=10000/loss=1%", 10_000, 1, 0)
	bench("flows=100/loss=1%", 100, 1, 0)
	bench("flows=100/reorder=5%", 100, 0, 5)
}

func BenchmarkSYNFlood(b *testing.B) {
	var counters exchange.Counters
	t := New(DefaultConfig(), &counter{}, &counters)
	s := decode.Segment{Flags: syn, Time: 1e18}
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		i++
		s.Flow = flowOf(i & 0xffffff)
		s.Time += 1000
		t.Segment(&s)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "packets/s")
}

// BenchmarkConnection is a whole short one: handshake, two messages, FINs.
func BenchmarkConnection(b *testing.B) {
	var counters exchange.Counters
	t := New(DefaultConfig(), &counter{}, &counters)
	s := decode.Segment{Time: 1e18}
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		i++
		s.Time += 50_000
		connect(t, &s, flowOf(i&0xffffff))
	}
}

var message = make([]byte, 100)

func connect(t *Table, s *decode.Segment, f decode.Flow) {
	back := f.Reverse()
	put := func(f decode.Flow, flags uint8, seq, a uint32, data []byte) {
		s.Flow, s.Flags, s.Seq, s.Ack, s.Payload, s.Length = f, flags, seq, a, data, len(data)
		t.Segment(s)
	}
	put(f, syn, 0, 0, nil)
	put(back, syn|ack, 0, 1, nil)
	put(f, ack, 1, 1, nil)
	put(f, ack, 1, 1, message)
	put(back, ack, 1, 101, message)
	put(f, fin|ack, 101, 101, nil)
	put(back, fin|ack, 101, 102, nil)
	put(f, ack, 102, 102, nil)
}

// TestAllocations: in steady state neither packets in order, nor
// reordered ones, nor connections that come and go, nor SYNs allocate.
func TestAllocations(t *testing.T) {
	var counters exchange.Counters
	h := &counter{}
	newTable := func() *Table {
		cfg := DefaultConfig()
		cfg.MaxFlows = 2048
		return New(cfg, h, &counters)
	}
	pin := func(name string, warm int, f func()) {
		for range warm {
			f()
		}
		if got := testing.AllocsPerRun(1000, f); got != 0 {
			t.Errorf("%s: %v allocations, want 0", name, got)
		}
	}
	tab := newTable()
	g := newTraffic(100)
	g.open(tab)
	pin("in order", 5000, func() { tab.Segment(g.step()) })

	pin("reordered", 5000, func() {
		first := *g.step()
		second := *g.step()
		tab.Segment(&second)
		tab.Segment(&first)
	})
	tab = newTable()
	s := decode.Segment{Time: 1e18}
	i := 0
	pin("connections", 5000, func() { i++; s.Time += 1e6; connect(tab, &s, flowOf(i)) })
	tab = newTable()
	pin("SYNs", 5000, func() {
		i++
		s = decode.Segment{Flow: flowOf(i), Flags: syn, Time: s.Time + 1000}
		tab.Segment(&s)
	})
}

// TestFlood: a million half-open connections leave a legitimate client's
// exchanges whole, in bounded memory.
func TestFlood(t *testing.T) {
	var counters exchange.Counters
	h := &counter{}
	cfg := DefaultConfig()
	cfg.MaxFlows = 16384
	tab := New(cfg, h, &counters)
	s := decode.Segment{Time: 1e18}
	const exchanges = 1000
	for i := range 1_000_000 {
		s = decode.Segment{Flow: flowOf(i), Flags: syn, Time: s.Time + 1000, Seq: uint32(i)}
		s.DstPort = 81
		tab.Segment(&s)
		s.Flow, s.Flags, s.Seq, s.Ack = s.Flow.Reverse(), syn|ack, 7, s.Seq+1
		tab.Segment(&s) // a listener answers
		if i%1000 == 0 {
			connect(tab, &s, flowOf(i))
		}
	}
	if h.opened != exchanges || h.bytes != exchanges*200 || h.gaps != 0 {
		t.Errorf("opened %d, %d bytes, %d in gaps, want %d, %d, 0", h.opened, h.bytes, h.gaps, exchanges, exchanges*200)
	}
	st := tab.Stats()
	if tab.used > cfg.MaxFlows || st.Memory > 4<<20 {
		t.Errorf("%d entries in %d bytes, want at most %d in 4 MiB", tab.used, st.Memory, cfg.MaxFlows)
	}
	if counters[exchange.EvictedFlows] == 0 {
		t.Error("no eviction was counted")
	}
	tab.Advance(s.Time + int64(10*time.Second))
	if tab.used != 0 {
		t.Errorf("%d entries after half_open_timeout, want 0", tab.used)
	}
}

// TestNeverFilled: segments behind a hole that never fills stay within the ceilings,
// what was captured is delivered, and the cut is counted.
func TestNeverFilled(t *testing.T) {
	var counters exchange.Counters
	h := &counter{}
	cfg := DefaultConfig()
	cfg.MaxBuffer, cfg.MaxFlowBuffer = 1*config.MiB, 100*config.KiB
	tab := New(cfg, h, &counters)
	payload := make([]byte, 1000)
	var sent uint64
	s := decode.Segment{Time: 1e18, Flags: ack, Payload: payload, Length: len(payload)}
	for i := range 20_000 {
		s.Flow = flowOf(i % 50)
		s.Seq = 1 + uint32(i/50)*2000 // every other one is missing
		s.Time += 1000
		tab.Segment(&s)
		sent += 1000
		if held := tab.Stats().Held; held > int64(cfg.MaxBuffer) {
			t.Fatalf("%d bytes held, limit %d", held, cfg.MaxBuffer)
		}
	}
	if counters[exchange.EvictedBytes] == 0 {
		t.Error("no cut was counted")
	}
	tab.Drain(s.Time)
	if h.bytes != sent || h.gaps != sent-50*1000 || h.opened != 50 || h.closed != 50 {
		t.Errorf("%d bytes, %d in gaps, %d opened, %d closed, want %d, %d, 50, 50", h.bytes, h.gaps, h.opened, h.closed, sent, sent-50_000)
	}
}

// TestEvictionOrder: closed ones go first, then half-open, then those of no
// interest, then the least recently heard.
func TestEvictionOrder(t *testing.T) {
	r := newRig(t, func(c *Config) { c.MaxFlows = 4 })
	r.rec.stop = func(_ *Conn, ch *Chunk) bool { return string(ch.Data) != "dull" }
	for i, data := range []string{"old", "dull"} {
		r.flow = flowOf(i)
		r.open()
		r.c(ack, 1, 1, data)
	}
	r.flow = flowOf(2)
	r.c(syn, 0, 0, "")
	r.flow = flowOf(3)
	r.open()
	r.c(fin|ack, 1, 1, "done")
	r.s(fin|ack, 1, 6, "")
	r.rec.log = nil
	for i := range 4 {
		r.flow = flowOf(10 + i)
		r.open()
		r.c(ack, 1, 1, "new")
	}
	r.expect(t, "open", "> new", "open", "> new", "close eviction", "open", "> new", "close eviction", "open", "> new")
	if got := r.counters[exchange.EvictedFlows]; got != 3 {
		t.Errorf("%d flows evicted, want 3", got)
	}
	r.drained(t)
}

// TestClock: a clock that jumps, in either direction, breaks nothing.
func TestClock(t *testing.T) {
	r := newRig(t)
	for _, at := range []int64{1e18, 1e18 - 5e9, -9e18, 9e18, 0, 1e18, -1, 9e18, -9e18} {
		r.now = at
		r.open()
		r.c(ack, 1, 1, "x")
	}
	if r.Table.now < 1 {
		t.Errorf("clock %d", r.Table.now)
	}
	r.drained(t)

	// After a step back, time goes on.
	r = newRig(t)
	r.open()
	r.c(ack, 1, 1, "abc")
	r.now -= int64(time.Hour)
	r.c(ack, 14, 1, "def")
	r.wait(3 * time.Second)
	r.expect(t, "open", "> abc", "> gap 10", "> def")

	// Packets out of their order by more than that, as a capture that was damaged while it was made has them, do not
	// make time pass: what waits is waited for as long as ever.
	r = newRig(t)
	r.open()
	r.c(ack, 1, 1, "abc")
	r.c(ack, 14, 1, "def")
	for range 100 {
		r.now -= int64(time.Minute)
		r.c(ack, 1, 1, "abc")
		r.now += int64(20 * time.Second)
		r.c(ack, 1, 1, "abc")
		r.now += int64(40 * time.Second)
		r.c(ack, 1, 1, "abc")
	}
	r.expect(t, "open", "> abc")
	r.c(ack, 4, 1, "0123456789")
	r.expect(t, "> 0123456789", "> def")
}

func TestIdle(t *testing.T) {
	r := newRig(t)
	r.open()
	r.c(ack, 1, 1, "abc")
	r.wait(9 * time.Minute)
	r.c(ack, 4, 1, "def")
	r.wait(9 * time.Minute)
	r.rec.note("still")
	r.wait(2 * time.Minute)
	r.expect(t, "open", "> abc", "> def", "still", "close timeout")
	if r.Flows() != 0 {
		t.Errorf("%d flows, want 0", r.Flows())
	}
}

// BenchmarkHostile is the dearest order of segments: one byte each, backwards,
// with a hole after every one, on one flow whose buffer is always full.
func BenchmarkHostile(b *testing.B) {
	var counters exchange.Counters
	t := New(DefaultConfig(), &counter{}, &counters)
	s := decode.Segment{Flow: flowOf(1), Time: 1e18, Flags: ack, Seq: 1, Payload: []byte("x"), Length: 1}
	t.Segment(&s)
	i := uint32(0)
	b.ReportAllocs()
	for b.Loop() {
		i++
		s.Time += 1000
		s.Seq = 1 + 2*(i/6000*6000+6000-i%6000)
		t.Segment(&s)
	}
}
