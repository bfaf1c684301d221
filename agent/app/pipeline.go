package app

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/httpctl/httpctl/agent/capture"
	"github.com/httpctl/httpctl/agent/decode"
	"github.com/httpctl/httpctl/agent/pairing"
	"github.com/httpctl/httpctl/agent/stream"
	"github.com/httpctl/httpctl/pkg/exchange"
	"github.com/httpctl/httpctl/pkg/telemetry"
)

// tick is the step of packet time in which timers run: short against any
// interval and timeout, long against the time between two packets. Every
// interval is a multiple of it.
const tick = int64(100 * time.Millisecond)

// batch is how many packets are handled together at most, see stream.Table.Segments.
const batch = 32

// pipeline takes packets from one source to one sink, on one goroutine.
type pipeline struct {
	source   capture.Source
	counters *exchange.Counters
	decoder  *decode.Decoder
	table    *stream.Table
	pairer   *pairing.Pairer

	// live is nil for files, whose packets are the only clock there is.
	live *liveClock
	// beat is that of a pipeline with a live source.
	beat telemetry.Beat
	// changed are settings to take over, with the next step of time.
	changed atomic.Pointer[Config]
	// snapshot is a copy of the counters for other goroutines.
	snapshot atomic.Pointer[exchange.Counters]

	// first and now are the times of the oldest and the newest packet; next is
	// when the timers run again.
	first, now, next int64
	drops            uint64

	ahead    func() // called between segments, see capture.Live.Ahead; may be nil
	packets  [batch]capture.Packet
	segments [batch]decode.Segment
	waiting  int // segments that were decoded and not handled
}

// liveClock is what a pipeline of an agent does with time.
type liveClock struct {
	// idle returns the clock when the source has nothing, wall that of the wall.
	idle, wall func() int64
	// advance closes intervals.
	advance func(now int64)
	// release, unless it is nil, is called when what was at hand has been handled.
	release func()
	// width is the step at whose multiples long exchanges report their bytes.
	width *atomic.Int64
	// steps counts the steps of the wall clock; stepped is called once for each
	// by each pipeline, on its goroutine.
	steps   *atomic.Int64
	stepped func(step int64)

	seen int64
}

// idleClock is the clock of a source that has nothing: it is behind the moment at which the source was looked at by what the kernel keeps packets
// back, and not behind now, which may be later by as long as other programs had the processor.
func idleClock(source capture.Source, timeout time.Duration) func() int64 {
	looked := time.Now
	if l, ok := source.(interface{ Looked() time.Time }); ok { // a ring, and a replay
		looked = l.Looked
	}
	return func() int64 { return looked().Add(-timeout).UnixNano() }
}

// newPipeline wires the rooms from decode to pairing.
func newPipeline(source capture.Source, cfg Config, maxStrLength int, sink exchange.Sink, local *localAddresses) *pipeline {
	p := &pipeline{source: source, counters: new(exchange.Counters)}
	d := cfg.Decode
	d.Ports = cfg.Capture.Ports
	p.decoder = decode.New(d, p.counters)
	h := cfg.HTTP
	h.MaxStrLength = maxStrLength
	p.pairer = pairing.New(h, pairing.Deps{Sink: sink, Counters: p.counters, Local: local.contains, Mirror: local.fleet.hostAt})
	p.table = stream.New(cfg.Stream, p.pairer, p.counters)
	if l, ok := source.(*capture.Live); ok {
		p.ahead = l.Ahead
	}
	return p
}

// run ends with the source, or with its error.
func (p *pipeline) run() error {
	for {
		switch n, err := p.source.Next(p.packets[:]); {
		case err == nil:
			p.take(p.packets[:n])
		case errors.Is(err, capture.ErrIdle):
			now := p.live.idle()
			p.beat.Round()
			if p.live.steps.Load() != p.live.seen {
				now = min(now, p.live.wall()) // it may be of before
				p.clockStepped(now)
			}
			if now > p.now {
				p.now = now
				p.step()
			}
		case errors.Is(err, io.EOF):
			p.drain()
			return nil
		default:
			p.drain()
			return fmt.Errorf("read packets: %w", err)
		}
	}
}

// take decodes packets, and then has their segments handled together. What was decoded is
// handled before the clock goes on: counters and tables of a bucket speak of the same packets.
func (p *pipeline) take(packets []capture.Packet) {
	for i := range packets {
		packet := &packets[i]
		if p.live != nil && packet.Time >= p.next {
			// Not later than now: after the clock was set back, packets that
			// waited in the ring would stop this one for as long as it was.
			packet.Time = min(packet.Time, p.live.wall())
		}
		if p.first == 0 || packet.Time < p.first {
			p.first = packet.Time
		}
		if l := p.live; l != nil && l.steps.Load() != l.seen {
			p.handle()
			p.clockStepped(packet.Time)
		}
		if packet.Time > p.now {
			if packet.Time >= p.next {
				p.handle()
				p.now = packet.Time
				p.step()
			}
			p.now = packet.Time
		}
		for ok := p.decoder.Decode(packet, &p.segments[p.waiting]); ok; ok = p.decoder.More(&p.segments[p.waiting]) {
			if p.waiting++; p.waiting == batch || p.decoder.Lends() {
				p.handle()
			}
		}
	}
	p.handle()
}

// handle takes the segments that wait.
func (p *pipeline) handle() {
	p.table.Segments(p.segments[:p.waiting], p.ahead)
	p.waiting = 0
	p.release()
}

// release lets others know what the events so far have come to.
func (p *pipeline) release() {
	if l := p.live; l != nil && l.release != nil {
		l.release()
	}
}

// clockStepped begins anew at now, which may be before the time reached: every
// timer looks at it next.
func (p *pipeline) clockStepped(now int64) {
	l := p.live
	l.seen = l.steps.Load()
	l.stepped(l.seen)
	p.now, p.next = now-1, 0
}

// step runs the timers.
func (p *pipeline) step() {
	before := p.next
	p.next = (p.now/tick + 1) * tick
	if cfg := p.changed.Swap(nil); cfg != nil {
		p.decoder.SetPorts(cfg.Capture.Ports)
		p.table.SetTimeouts(cfg.Stream)
		p.pairer.SetLimits(cfg.HTTP)
	}
	if l := p.live; l != nil {
		p.beat.Round()
		if width := l.width.Load(); before > 0 && (before-1)/width != p.now/width {
			// What was due before the interval ended belongs to it, in its counters as in its
			// tables; what is due now belongs to the next.
			end := p.now/width*width - 1
			p.table.Advance(end)
			p.pairer.Progress(end)
		}
		p.count()
		l.advance(p.now)
	}
	p.table.Advance(p.now)
	p.release()
}

// count takes over what the source counts itself, and shows all counters to
// other goroutines.
func (p *pipeline) count() {
	drops := p.source.Stats().Drops
	p.counters[exchange.KernelDrops] += drops - p.drops
	p.drops = drops
	if p.live != nil {
		c := *p.counters
		p.snapshot.Store(&c)
	}
}

// drain ends everything that is still open.
func (p *pipeline) drain() {
	p.decoder.Drain()
	p.table.Drain(p.now)
	p.release()
	p.count()
}
