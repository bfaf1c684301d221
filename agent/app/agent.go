// Package app wires the agent: capture, decode, stream, http1, pairing,
// statistics, accumulate, spool and uplink. It also reads capture files offline,
// through the same rooms.
package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/httpctl/httpctl/agent/accumulate"
	"github.com/httpctl/httpctl/agent/capture"
	"github.com/httpctl/httpctl/agent/spool"
	"github.com/httpctl/httpctl/agent/tail"
	"github.com/httpctl/httpctl/agent/uplink"
	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/confine"
	"github.com/httpctl/httpctl/pkg/daemon"
	"github.com/httpctl/httpctl/pkg/exchange"
	"github.com/httpctl/httpctl/pkg/lifecycle"
	"github.com/httpctl/httpctl/pkg/stat"
	"github.com/httpctl/httpctl/pkg/telemetry"
)

const (
	// settingsWait is how long a first start waits for the aggregator to say
	// how wide intervals are before it begins with what the configuration says.
	settingsWait = 2 * time.Second
	// deliverWait is how long a stop waits for a bucket to be acknowledged, and deliverMost for all of them, or half of
	// the time that it has. What is not stays in the spool.
	deliverWait = 2 * time.Second
	deliverMost = 10 * time.Second
	// unwrittenBuckets is how many closed buckets may wait for a slow disk before
	// the pipelines wait too, and packets in the rings: at an interval of 10 s, 40 s. Each may take a
	// share of table_memory.
	unwrittenBuckets = 4
	// clockCheck is how often the wall clock is compared with the monotonic one.
	clockCheck = 250 * time.Millisecond
	// clockStep is the step of the wall clock that begins a new incarnation.
	clockStep = time.Second
)

// Agent is a running agent.
type Agent struct {
	cfg      Config
	settings config.Settings
	log      *slog.Logger

	spool     *spool.Spool
	local     *localAddresses
	fleets    chan map[bucket.ID][]netip.Addr // to be kept; one at most
	acc       *accumulate.Accumulator
	uplink    *uplink.Uplink
	tails     *tail.Tailer
	pipelines []*pipeline
	running   atomic.Pointer[[]*pipeline]    // the same, for whoever may come before them
	confined  atomic.Pointer[confine.Result] // nil while it is not
	stopping  atomic.Bool                    // sources end because they are closed
	rings     []*capture.Live
	reloads   *telemetry.Reloads
	ports     []uint16 // that the rings pass
	group     *lifecycle.Group
	teardown  lifecycle.Stack

	write     chan func() error     // what the disk has still to do, in order
	unwritten atomic.Pointer[error] // why the last write failed; nil if it did not
	timers    telemetry.Beat        // of the wall clock's
	width     atomic.Int64          // step at which long exchanges report
	steps     atomic.Int64          // of the wall clock
	told      chan struct{}         // closed when the aggregator's settings came
	toldOnce  sync.Once

	mu          sync.Mutex
	incarnation bucket.ID
	interval    time.Duration   // as last set
	planned     uplink.Settings // as told before there was an accumulator
	addresses   []netip.Prefix  // as told to the aggregator last, and when
	toldAt      time.Time
}

// Main is the program httpctl-agent.
func Main() int { return daemon.Main(Program()) }

// Program describes the program httpctl-agent.
func Program() daemon.Program {
	cfg := DefaultConfig()
	return daemon.Program{
		Name: "httpctl-agent", Short: "watch the HTTP traffic of a host, and deliver what is counted",
		Long: `Captures the packets of this host, rebuilds HTTP requests and responses, counts them in intervals of
time, and delivers the counts to the aggregator of the fleet. Applications are not touched. What could
not be seen is counted too. It runs until SIGTERM or Ctrl-C, and keeps on disk what the aggregator has
not taken yet.`,
		Example: `sudo httpctl-agent --check-capture -i eth0             # can this host capture, and what to change?
sudo httpctl-agent enroll --token-file web1.token     # let this host into a fleet
sudo httpctl-agent --config /etc/httpctl/agent.yaml
sudo httpctl-agent -i eth0 --dump                     # the settings that would be in force, and why`,
		Protocols: Protocols(), Formats: Formats(),
		Section: config.Section{Name: "agent", Into: &cfg}, Statistics: stat.Names(),
		Fresh: func() any { again := DefaultConfig(); return &again },
		Settings: []daemon.Setting{
			{Flag: "i", Key: "agent.capture.interfaces", Usage: "capture on `IFACE`; may be given several times; any is all"},
			{Flag: "netns", Key: "agent.capture.namespaces", Usage: "capture in network namespace `NAME`, of /run/netns or a path; may be given several times"},
		},
		Tasks: []daemon.Task{
			{Flag: "check-capture", Usage: "say in ten seconds whether this host can capture, at which rate, and what to change",
				Run: func(ctx context.Context, f *config.File, stdout io.Writer) error {
					return checkCapture(ctx, f.Settings, cfg, stdout)
				}},
		},
		Commands: []daemon.Command{{Name: "enroll", Help: enrollHelp, Run: enrollCommand}},
		Start: func(ctx context.Context, f *config.File, log *slog.Logger) (daemon.Running, error) {
			cfg.LimitMemory()
			a, err := Start(ctx, f.Settings, cfg, "", log)
			if err != nil {
				return nil, err
			}
			a.GiveUp()
			a.Confine(f.Path)
			return a, nil
		},
	}
}

// Start runs an agent until Stop. settings and cfg must be valid. With
// replay, the name of a capture file, that is shown to the fleet as if it happened now, and
// nothing is captured. When something cannot be set up, what was is torn down.
func Start(ctx context.Context, settings config.Settings, cfg Config, replay string, log *slog.Logger) (_ *Agent, err error) {
	a := &Agent{
		cfg: cfg, settings: settings, log: log,
		group:  lifecycle.NewGroup(context.WithoutCancel(ctx)),
		write:  make(chan func() error, unwrittenBuckets),
		fleets: make(chan map[bucket.ID][]netip.Addr, 1),
		told:   make(chan struct{}), ports: cfg.Capture.Ports,
	}
	defer func() {
		if err != nil {
			_ = a.Stop(ctx) // the first error is the one to tell
		}
	}()
	a.teardown.Push("timers", a.group.Stop)
	if a.local, err = newLocalAddresses(cfg.LocalNetworks); err != nil {
		return nil, err
	}
	sources, err := a.open(replay)
	if err != nil {
		return nil, err
	}
	registry := telemetry.NewRegistry()
	a.reloads = telemetry.NewReloads(registry)
	if err := a.openSpool(registry); err != nil {
		closeAll(sources)
		return nil, err
	}
	a.startRenewal(registry)
	if err := a.startUplink(ctx, registry); err != nil {
		closeAll(sources)
		return nil, err
	}
	if err := a.startPipelines(sources); err != nil {
		closeAll(sources)
		return nil, err
	}
	if cfg.Metrics != "" {
		registry.MustRegister(pipelineCollector{a.pipelines})
		registerConfined(registry, &a.confined)
		page, err := telemetry.Serve(ctx, cfg.Metrics, registry, telemetry.Health{Live: a.live, Ready: a.ready})
		if err != nil {
			return nil, err
		}
		a.teardown.Push("metrics page", page.Stop)
	}
	return a, nil
}

// GiveUp has the whole process give up the capability that only the start of a needed, if it captures in
// other network namespaces. It is for a program that needs it for nothing else.
func (a *Agent) GiveUp() {
	if len(a.cfg.Capture.Namespaces) == 0 {
		return
	}
	if err := capture.ForgetNamespaces(); err != nil {
		a.log.Warn("the agent keeps a capability that it does not need any more", "err", err)
	}
}

// open opens the rings, or the capture file to replay.
func (a *Agent) open(replay string) ([]capture.Source, error) {
	if replay != "" {
		files, err := capture.OpenFile(replay)
		if err != nil {
			return nil, err
		}
		return []capture.Source{newReplay(files, a.cfg.Capture.PollTimeout)}, nil
	}
	rings, err := capture.OpenLive(a.cfg.Capture)
	if err != nil {
		return nil, err
	}
	c := a.cfg.Capture
	a.log.Info("capturing", "iface", c.Interfaces, "netns", c.Namespaces, "rings", c.Rings, "ring_size", c.RingSize, "block_size", c.BlockSize, "poll_timeout", c.PollTimeout, "chosen", a.cfg.Reason("capture.rings"))
	a.rings = rings
	var sources []capture.Source
	for _, r := range rings {
		sources = append(sources, r)
	}
	namespaces := namespacesOf(rings)
	for n := range namespaces {
		a.local.others = append(a.local.others, n)
	}
	if err := a.local.refresh(); err != nil {
		closeAll(sources)
		return nil, err
	}
	a.group.Go("interfaces", func(ctx context.Context) error { return a.watchInterfaces(ctx, rings[0], namespaces) })
	return sources, nil
}

// namespacesOf sorts the rings of other network namespaces than the agent's own.
func namespacesOf(rings []*capture.Live) map[*capture.Namespace][]*capture.Live {
	namespaces := map[*capture.Namespace][]*capture.Live{}
	for _, r := range rings {
		if n := r.Namespace(); n != nil {
			namespaces[n] = append(namespaces[n], r)
		}
	}
	return namespaces
}

// Check says whether this host can capture as cfg wants, or read the capture file to
// replay: it opens the sources as Start does, and closes them.
func Check(cfg Config, replay string) error {
	if replay != "" {
		files, err := capture.OpenFile(replay)
		if err != nil {
			return err
		}
		return files.Close()
	}
	rings, err := capture.OpenLive(cfg.Capture)
	for _, r := range rings {
		r.Discard()
	}
	return err
}

// closeAll closes sources of which nothing was read.
func closeAll(sources []capture.Source) {
	for _, s := range sources {
		if ring, ok := s.(*capture.Live); ok {
			ring.Discard() // as Close leaves that to the reader
		}
		_ = s.Close()
	}
}

// watchInterfaces renews what is known of addresses, tells when an interface
// has gone or come, and gives up the namespaces that have gone: the rings in them would
// keep them alive.
func (a *Agent) watchInterfaces(ctx context.Context, ring *capture.Live, namespaces map[*capture.Namespace][]*capture.Live) error {
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	var missing []string
	failing := false
	for {
		if now := ring.Missing(); !slices.Equal(now, missing) {
			missing = now
			if len(missing) > 0 {
				a.log.Warn("interfaces are missing; they are captured again when they return", "iface", missing)
			} else {
				a.log.Info("all interfaces are there again")
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		for n, rings := range namespaces {
			if !n.Gone() {
				continue
			}
			a.log.Warn("a network namespace has gone, or its name is another's now; it is captured again after a restart of the agent", "netns", n.Name())
			delete(namespaces, n)
			for _, r := range rings {
				_ = r.Close() // its pipeline counts what is open, and ends
			}
		}
		err := a.local.refresh()
		if err != nil && !failing {
			a.log.Warn("local addresses are not renewed", "err", err)
		}
		failing = err != nil
		a.announce()
	}
}

// openSpool opens the state directory and begins an incarnation there.
func (a *Agent) openSpool(registry prometheus.Registerer) error {
	s, err := spool.Open(a.cfg.State, a.cfg.Spool, spool.Deps{Log: a.log, Registry: registry})
	if err != nil {
		return err
	}
	a.spool = s
	a.teardown.Push("spool", func(context.Context) error { return s.Close() })

	a.interval = a.settings.DashboardBucketSize
	if before, ok := s.Previous(); ok && before.Width > 0 {
		a.interval = before.Width
	}
	a.width.Store(int64(a.interval))
	a.incarnation = spool.NewID()
	a.loadFleet()
	a.group.Go("fleet", a.keepFleets)
	registerOthers(registry, &a.local.fleet)
	return nil
}

// startUplink connects to the aggregator, and gives it a moment to say how
// wide intervals are.
func (a *Agent) startUplink(ctx context.Context, registry prometheus.Registerer) error {
	a.tails = tail.New(a.cfg.Tail, tail.Deps{Drops: a.drops, Log: a.log, Registry: registry})
	u, err := uplink.New(a.cfg.Config, uplink.Deps{
		Queue: a.spool, Identity: a.identity, OnSettings: a.onSettings, OnFleet: a.onFleet,
		Connecting: a.connecting, Tails: a.tails,
		Provisional: func(rows int) *bucket.Bucket {
			a.mu.Lock()
			acc := a.acc
			a.mu.Unlock()
			if acc == nil {
				return nil
			}
			return acc.Provisional(rows)
		},
		Log: a.log, Registry: registry,
	})
	if err != nil {
		return err
	}
	a.uplink = u
	if err := u.Start(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	a.teardown.Push("uplink", func(ctx context.Context) error {
		a.delivered(ctx)
		return u.Stop(ctx)
	})
	select {
	case <-a.told:
	case <-time.After(settingsWait):
	case <-ctx.Done():
	}
	return nil
}

// drops is how many packets the kernel had no room for.
func (a *Agent) drops() (n uint64) {
	pipelines := a.running.Load()
	if pipelines == nil {
		return 0
	}
	for _, p := range *pipelines {
		if c := p.snapshot.Load(); c != nil {
			n += c[exchange.KernelDrops]
		}
	}
	return n
}

// connecting leaves the agent's own connection out of what it captures.
func (a *Agent) connecting(remote netip.AddrPort, localPort uint16) {
	for _, r := range a.rings {
		if err := r.Exclude(capture.Connection{Remote: remote, LocalPort: localPort}); err != nil {
			a.log.Warn("the connection to the aggregator will be counted", "err", err)
		}
	}
}

// delivered waits for the spool to be empty, a moment for each time that it has become shorter.
func (a *Agent) delivered(ctx context.Context) {
	most := deliverMost
	if end, ok := ctx.Deadline(); ok {
		most = min(most, time.Until(end)/2)
	}
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	for waiting := a.spool.Len(); ; {
		moment, cancel := context.WithTimeout(ctx, deliverWait)
		all := a.uplink.Drain(moment)
		cancel()
		if all {
			return
		}
		left := a.spool.Len()
		if left >= waiting || ctx.Err() != nil {
			a.log.Info("buckets stay in the spool until the aggregator is back", "buckets", left)
			return
		}
		waiting = left
	}
}

func (a *Agent) identity() uplink.Identity {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.addresses, a.toldAt = a.local.announced(), time.Now()
	return uplink.Identity{
		Host: a.spool.Host(), Incarnation: a.incarnation,
		HostName: a.cfg.HostName, Version: telemetry.Version(), Addresses: a.addresses,
	}
}

// onSettings takes over the aggregator's interval width.
func (a *Agent) onSettings(s uplink.Settings) {
	defer a.toldOnce.Do(func() { close(a.told) })
	a.mu.Lock()
	defer a.mu.Unlock()
	a.follow(s)
}

// follow takes over the interval width of s. The caller holds mu.
func (a *Agent) follow(s uplink.Settings) {
	if a.acc == nil {
		a.planned = s
		if err := (accumulate.Config{Width: s.IntervalWidth, MaxKeys: a.settings.MaxKeys, Statistics: a.settings.Statistics}).Validate(); err != nil {
			a.log.Warn("the aggregator's interval width cannot be followed", "width", s.IntervalWidth, "err", err)
			return
		}
		// Nothing was counted yet, so nothing has to wait for the hour.
		a.interval = s.IntervalWidth
		a.width.Store(int64(a.interval))
		return
	}
	width, from := s.IntervalWidth, int64(0)
	if s.NextWidth != 0 {
		width, from = s.NextWidth, s.NextFrom
	}
	if width == a.interval {
		return
	}
	if err := a.acc.SetWidth(width, from); err != nil {
		a.log.Warn("the aggregator's interval width cannot be followed", "width", width, "err", err)
		return
	}
	// Long exchanges report at boundaries of both widths until the change.
	a.width.Store(gcd(int64(a.interval), int64(width)))
	a.interval = width
	a.log.Info("the interval width changes", "width", width)
}

func gcd(a, b int64) int64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// accumulator begins to count: from now on, changes of the interval width wait
// for the hour.
func (a *Agent) accumulator(pipelines int) (*accumulate.Accumulator, error) {
	a.mu.Lock() // the aggregator's settings may come at this moment
	defer a.mu.Unlock()
	acc, err := accumulate.New(
		accumulate.Config{Width: a.interval, MaxKeys: a.settings.MaxKeys, Memory: a.cfg.tableMemory(pipelines), Statistics: a.settings.Statistics},
		accumulate.Deps{
			Host: a.spool.Host(), HostName: a.cfg.HostName, Incarnation: a.incarnation,
			Emit: func(b *bucket.Bucket) { a.write <- func() error { return a.spool.Add(b) } },
		}, pipelines)
	if err != nil {
		return nil, err
	}
	if err := a.spool.Begin(a.incarnation, time.Now().UnixNano(), a.interval); err != nil {
		a.log.Warn("the start is not on disk yet; it will be with the first bucket", "err", err)
	}
	a.acc = acc
	if a.planned.NextWidth != 0 {
		a.follow(a.planned)
	}
	return acc, nil
}

// startPipelines begins to read packets.
func (a *Agent) startPipelines(sources []capture.Source) error {
	key, err := privacyKey(a.cfg.Privacy, a.cfg.State, true)
	if err != nil {
		return err
	}
	acc, err := a.accumulator(len(sources))
	if err != nil {
		return err
	}

	var writer, running sync.WaitGroup
	writer.Go(a.writeBuckets)
	failed := make(chan error, len(sources))
	var left atomic.Int64 // pipelines that run
	left.Store(int64(len(sources)))
	var parts []*accumulate.Pipeline
	for i, source := range sources {
		sink := &exchangeSink{}
		p := newPipeline(source, a.cfg, a.settings.MaxStrLength, sink, a.local)
		part := acc.Pipeline(i, p.counters)
		part.Batch()
		sink.Sink = veiled(a.cfg.Privacy, key, a.tails.Tap(part))
		parts = append(parts, part)
		p.live = &liveClock{
			idle:    idleClock(source, a.cfg.Capture.PollTimeout),
			wall:    func() int64 { return time.Now().UnixNano() },
			advance: part.Advance, release: part.Release, width: &a.width, steps: &a.steps,
			stepped: func(step int64) { a.clockStepped(part, step) },
		}
		a.pipelines = append(a.pipelines, p)
	}
	a.running.Store(&a.pipelines)
	for i, p := range a.pipelines {
		running.Go(func() {
			if err := p.run(); err != nil {
				failed <- err
				return
			}
			if a.stopping.Load() {
				return
			}
			// Its namespace has gone.
			p.beat.Rest()
			parts[i].End()
			if step := a.steps.Load(); step != p.live.seen {
				a.clockStepped(parts[i], step) // the others may have waited for it
			}
			if left.Add(-1) == 0 {
				failed <- fmt.Errorf("nothing is left to capture: all given network namespaces have gone (%s)", strings.Join(a.cfg.Capture.Namespaces, ", "))
			}
		})
	}
	a.group.Go("capture", func(ctx context.Context) error {
		select {
		case err := <-failed:
			return err
		case <-ctx.Done():
			return nil
		}
	})
	a.group.Go("clock", a.watchClock)
	// In the order of the data: no more packets, then what is still open is
	// counted, written, and (below in the stack) delivered.
	a.teardown.Push("pipelines", func(context.Context) error {
		var errs []error
		a.stopping.Store(true)
		for _, s := range sources {
			errs = append(errs, s.Close())
		}
		running.Wait()
		acc.Close()
		close(a.write)
		writer.Wait()
		return errors.Join(errs...)
	})
	return nil
}

// writeBuckets takes closed buckets to disk, so that a slow disk delays them
// and not the packets.
func (a *Agent) writeBuckets() {
	failing := false
	for write := range a.write {
		err := write()
		if err != nil && !failing {
			if errors.Is(err, spool.ErrKept) {
				a.log.Error("buckets cannot be written and wait in memory", "err", err)
			} else {
				a.log.Error("a bucket is lost, and declared so by the next one", "err", err)
			}
		}
		if err == nil && failing {
			a.log.Info("buckets are written to disk again")
		}
		failing = err != nil
		if a.unwritten.Store(nil); failing {
			a.unwritten.Store(&err)
		}
	}
}

// watchClock looks for steps of the wall clock.
func (a *Agent) watchClock(ctx context.Context) error {
	tick := time.NewTicker(clockCheck)
	defer tick.Stop()
	last := time.Now()
	for {
		a.timers.Round()
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now := time.Now()
		// Sub uses the monotonic clock; Round(0) strips it.
		step := now.Round(0).Sub(last.Round(0)) - now.Sub(last)
		if step.Abs() > clockStep {
			a.log.Warn("the wall clock was set; a new incarnation begins", "step", step.Round(time.Millisecond))
			a.steps.Add(1)
		}
		last = now
	}
}

// clockStepped is called by each pipeline that notices a step of the clock; the
// last begins a new incarnation.
func (a *Agent) clockStepped(part *accumulate.Pipeline, step int64) {
	incarnation := spool.NewID()
	if !part.NewIncarnation(step, incarnation) {
		return
	}
	a.mu.Lock()
	a.incarnation = incarnation
	width := a.interval
	a.mu.Unlock()
	from := time.Now().UnixNano()
	a.write <- func() error { return a.spool.Begin(incarnation, from, width) }
}

// Failed gives the error by which a part of the agent ended unasked.
func (a *Agent) Failed() <-chan error {
	failed := make(chan error, 1)
	a.group.Go("watch", func(ctx context.Context) error {
		select {
		case err := <-a.group.Failed():
			failed <- err
		case err := <-a.uplink.Failed():
			failed <- fmt.Errorf("uplink: %w", err)
		case <-ctx.Done():
			select {
			case err := <-a.group.Failed(): // which has cancelled the group
				failed <- err
			default:
			}
		}
		return nil
	})
	return failed
}

// Stop ends the agent in the order of its data: capture, pipelines, spool,
// uplink. It is idempotent.
func (a *Agent) Stop(ctx context.Context) error { return a.teardown.Stop(ctx) }
