package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/httpctl/httpctl/agent/accumulate"
	"github.com/httpctl/httpctl/agent/capture"
	"github.com/httpctl/httpctl/agent/inspect"
	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/daemon"
	"github.com/httpctl/httpctl/pkg/exchange"
	"github.com/httpctl/httpctl/pkg/security"
)

// How long `httpctl-agent --check-capture` takes: long enough for a figure, and ten seconds in all.
const (
	checkListen = 8 * time.Second
	checkSample = 1200 * time.Millisecond
)

// checkCapture writes to stdout whether and how well this host can capture as cfg says. When ctx ends it writes what
// it has by then. It returns daemon.ErrAnswered if the host cannot.
func checkCapture(ctx context.Context, settings config.Settings, cfg Config, stdout io.Writer) error {
	cfg.LimitMemory()
	if where := slices.Concat(cfg.Capture.Interfaces, cfg.Capture.Namespaces); len(where) > 0 {
		fmt.Fprintf(stdout, "Looking at %s for ten seconds; Ctrl-C ends it early.\n\n", security.CleanText(strings.Join(where, ", ")))
	}
	findings, err := Inspect(ctx, settings, cfg, checkSample, checkListen)
	if err != nil {
		return err
	}
	if _, err := io.WriteString(stdout, findings.Text()); err != nil {
		return err
	}
	if !findings.Judge().Can {
		return daemon.ErrAnswered
	}
	return nil
}

// Inspect finds out how well this host can capture as cfg says: it measures for as long as sample how fast one core
// is, and listens with the pipelines of an agent, that keep nothing, until listen is over or ctx ends. What a host
// cannot do is among the findings, and no error.
func Inspect(ctx context.Context, settings config.Settings, cfg Config, sample, listen time.Duration) (*inspect.Findings, error) {
	c := cfg.Capture
	machine := capture.ThisMachine(c.Interfaces)
	f := &inspect.Findings{
		Host: cfg.HostName, Release: kernelRelease(), Cores: machine.Cores, Interfaces: c.Interfaces, Namespaces: c.Namespaces,
		Rings: c.Rings, RingsReason: cfg.Reason("capture.rings"), RingSize: c.RingSize, BlockSize: c.BlockSize, PollTimeout: c.PollTimeout,
		Ports: len(c.Ports), LocalNetworks: len(cfg.LocalNetworks), Memory: cfg.Memory, Available: availableMemory(),
		Speed: machine.Speed(), Guessed: !slices.ContainsFunc(machine.Hardware, func(h capture.Hardware) bool { return h.Speed > 0 }),
	}
	var err error
	if f.Program, err = os.Executable(); err != nil {
		f.Program = os.Args[0]
	}
	before := capture.ReadLinks(nil)
	f.Links, f.Elsewhere = chooseLinks(before, c.Interfaces)
	if err := Check(cfg, ""); err != nil {
		f.Failure, f.Reason = failureOf(err, f)
		return f, nil
	}
	if !f.Judge().Can {
		return f, nil // nothing is to be heard
	}
	if f.Sample, err = measure(settings, cfg, sample); err != nil {
		return nil, err
	}
	runtime.GC() // what the sample took
	before = capture.ReadLinks(nil)
	if ctx.Err() == nil {
		if err := listenTo(ctx, settings, cfg, listen, f); err != nil {
			return nil, err
		}
	}
	f.Links, f.Elsewhere = chooseLinks(capture.ReadLinks(nil), c.Interfaces)
	for _, list := range [][]inspect.Link{f.Links, f.Elsewhere} {
		for i := range list {
			for _, was := range before {
				if l := &list[i]; was.Name == l.Name {
					l.NewPackets, l.NewMissed = max(l.Packets, was.Packets)-was.Packets, max(l.Missed, was.Missed)-was.Missed
				}
			}
		}
	}
	return f, nil
}

// chooseLinks divides interfaces into those that are named and the others. "any" names those with hardware, or
// all but the loopback device where none has, that are up: a port that is not used is no fault.
func chooseLinks(all []capture.Link, names []string) (named, others []inspect.Link) {
	anything := slices.Contains(names, capture.Any)
	hardware := slices.ContainsFunc(all, func(l capture.Link) bool { return l.Hardware })
	for _, l := range all {
		if slices.Contains(names, l.Name) || anything && l.Up && (l.Hardware || !hardware && !l.Loopback) {
			named = append(named, inspect.Link{Link: l})
		} else if !anything {
			others = append(others, inspect.Link{Link: l})
		}
	}
	for _, name := range names {
		if name != capture.Any && !slices.ContainsFunc(all, func(l capture.Link) bool { return l.Name == name }) {
			named = append(named, inspect.Link{Link: capture.Link{Name: name}})
		}
	}
	return named, others
}

// failureOf says why rings could not be opened.
func failureOf(err error, f *inspect.Findings) (inspect.Failure, string) {
	reason := err.Error()
	var e *capture.Error
	if errors.As(err, &e) {
		reason = e.Err.Error()
	}
	missing := slices.IndexFunc(f.Links, func(l inspect.Link) bool { return !l.There })
	switch {
	case len(f.Interfaces) == 0 && len(f.Namespaces) == 0:
		return inspect.NoInterface, reason
	case missing >= 0:
		return inspect.NoSuchInterface, "there is no interface " + f.Links[missing].Name
	case errors.Is(err, fs.ErrPermission):
		return inspect.NoPrivilege, reason
	case errors.Is(err, syscall.ENOMEM):
		return inspect.NoMemory, reason
	case e != nil && slices.Contains(f.Namespaces, e.Path):
		return inspect.BadNamespace, e.Path + ": " + reason
	}
	return inspect.OtherFailure, reason
}

// listenTo runs pipelines as an agent does, and adds what they saw to f.
func listenTo(ctx context.Context, settings config.Settings, cfg Config, length time.Duration, f *inspect.Findings) error {
	local, err := newLocalAddresses(cfg.LocalNetworks)
	if err != nil {
		return err
	}
	var sinks []*heardSink
	for range cfg.Capture.AllRings() {
		collector, err := accumulate.NewCollector(settings.Statistics, settings.MaxKeys, cfg.tableMemory(cfg.Capture.AllRings()))
		if err != nil {
			return err
		}
		sinks = append(sinks, &heardSink{collector: collector})
	}
	rings, err := capture.OpenLive(cfg.Capture)
	if err != nil {
		return err
	}
	for n := range namespacesOf(rings) {
		local.others = append(local.others, n)
	}
	if err := local.refresh(); err != nil {
		for _, r := range rings {
			r.Discard()
		}
		return err
	}
	begun, used := time.Now(), processTime()
	var width, steps atomic.Int64
	width.Store(int64(settings.DashboardBucketSize))
	var pipelines []*pipeline
	var running sync.WaitGroup
	failed := make(chan error, len(rings))
	for i, ring := range rings {
		p := newPipeline(ring, cfg, settings.MaxStrLength, sinks[i], local)
		p.live = &liveClock{
			idle:    idleClock(ring, cfg.Capture.PollTimeout),
			wall:    func() int64 { return time.Now().UnixNano() },
			advance: func(int64) {}, width: &width, steps: &steps, stepped: func(int64) {},
		}
		pipelines = append(pipelines, p)
		running.Go(func() {
			if err := p.run(); err != nil {
				failed <- err
			}
		})
	}
	timer := time.NewTimer(length)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	case err = <-failed:
	}
	f.Heard, f.CPU = time.Since(begun), processTime()-used
	// Before the pipelines end what is open: that is no loss.
	for _, p := range pipelines {
		if c := p.snapshot.Load(); c != nil {
			f.Counters.Add(c)
		}
	}
	for _, r := range rings {
		err = errors.Join(err, r.Close())
	}
	running.Wait()
	f.Counters[exchange.KernelDrops] = 0
	for i := range pipelines {
		s := rings[i].Stats()
		f.Counters[exchange.KernelDrops] += s.Drops
		f.Freezes += s.Freezes
		f.Ended += sinks[i].ended
		f.Transit += sinks[i].transit
		f.HTTPBytes += sinks[i].bytes
	}
	return err
}

// heardSink is a sink that also counts what is not in the counters.
type heardSink struct {
	collector             *accumulate.Collector
	ended, transit, bytes uint64
}

// Observe shows o to the statistics.
func (s *heardSink) Observe(o *exchange.Observation) {
	s.collector.Observe(o)
	s.bytes += o.NewRequestWireBytes + o.NewResponseWireBytes
	if o.Event == exchange.Outcome {
		s.ended++
		if o.Role == exchange.Transit {
			s.transit++
		}
	}
}
