package app

import (
	"context"
	"time"

	"github.com/httpctl/httpctl/agent/accumulate"
	"github.com/httpctl/httpctl/agent/capture"
	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/exchange"
)

// ReadOptions say how capture files are read.
type ReadOptions struct {
	Settings config.Settings
	// Config bounds the rooms. Ports filter, LocalNetworks decide the role; the
	// rest of what a live agent needs is not used.
	Config Config
	// MaxKeys bounds the rows of each table; 0 is Settings.MaxKeys.
	MaxKeys int
	// Exchange, if set, is shown each exchange when it ends. The exchange is
	// borrowed for the call. An error ends the reading.
	Exchange func(*exchange.Exchange) error
	// Progress, if set, is told a few times a second how many bytes were read
	// of how many; total is 0 when that is not known.
	Progress func(read, total int64)
}

// Report is what capture files hold.
type Report struct {
	// First and Last are the times of the oldest and the newest packet,
	// nanoseconds since the epoch, 0 if there is none.
	First, Last int64
	Counters    exchange.Counters
	Tables      []*bucket.Table
	// Warnings are about damage in the files, one sentence each.
	Warnings []string
}

// Read reads capture files as one capture, as capture.Files says, through the
// rooms that a live agent has. "-" is standard input. When ctx ends, it
// returns what was read until then together with the context's error.
func Read(ctx context.Context, paths []string, o ReadOptions) (*Report, error) {
	local, err := newLocalAddresses(o.Config.LocalNetworks)
	if err != nil {
		return nil, err
	}
	if o.MaxKeys == 0 {
		o.MaxKeys = o.Settings.MaxKeys
	}
	collector, err := accumulate.NewCollector(o.Settings.Statistics, o.MaxKeys, int64(o.Config.TableMemory))
	if err != nil {
		return nil, err
	}
	files, err := capture.OpenFiles(paths)
	if err != nil {
		return nil, err
	}
	defer files.Close()
	key, err := privacyKey(o.Config.Privacy, o.Config.State, false)
	if err != nil {
		return nil, err
	}
	sink := &readSink{collector: collector, exchange: o.Exchange}
	p := newPipeline(&guarded{Files: files, ctx: ctx, sink: sink}, o.Config, o.Settings.MaxStrLength, veiled(o.Config.Privacy, key, sink), local)
	if o.Progress != nil {
		stop := showProgress(files, o.Progress)
		defer stop()
	}
	err = p.run()
	if err == nil {
		err = sink.err
	}
	if err == nil {
		err = ctx.Err()
	}
	p.counters[exchange.StatisticPanics] += collector.Panics()
	r := &Report{First: p.first, Last: p.now, Counters: *p.counters, Tables: collector.Tables(), Warnings: files.Warnings()}
	for _, t := range r.Tables {
		r.Counters[exchange.EvictedKeys] += t.Folded
	}
	return r, err
}

// showProgress calls f until the function that it returns is called.
func showProgress(files *capture.Files, f func(read, total int64)) (stop func()) {
	done, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		tick := time.NewTicker(250 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				f(files.Progress())
			}
		}
	}()
	return func() {
		close(done)
		<-gone
	}
}

// readSink hands events to the statistics, and ended exchanges to the reader.
type readSink struct {
	collector *accumulate.Collector
	exchange  func(*exchange.Exchange) error
	err       error
}

func (s *readSink) Observe(o *exchange.Observation) {
	s.collector.Observe(o)
	if o.Event == exchange.Outcome && s.exchange != nil && s.err == nil {
		s.err = s.exchange(o.Exchange)
	}
}

// guarded ends the source early when the context or the reader has.
type guarded struct {
	*capture.Files
	ctx   context.Context
	sink  *readSink
	count int // packets since the context was asked
}

func (g *guarded) Next(ps []capture.Packet) (int, error) {
	// After 4,096 packets, a millisecond or so, as asking costs more than a packet.
	if g.count >= 4096 || g.sink.err != nil {
		g.count = 0
		if g.ctx.Err() != nil || g.sink.err != nil {
			_ = g.Close() // Next then returns io.EOF
		}
	}
	n, err := g.Files.Next(ps)
	g.count += n
	return n, err
}
