package fleet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/httpctl/httpctl/pkg/sketch"
)

// Sample is how it went at the end of an interval, before it is closed: what waits then has waited for nearly one.
type Sample struct {
	At        time.Duration // since the first interval began
	Backlog   int64         // buckets closed and not answered
	Connected int
}

// Host is a simulated host and all that it closed.
type Host struct {
	ID, Name string
	Buckets  []Bucket
	fleet    *fleet
}

// Requests is how many requests the bucket counts.
func (h *Host) Requests(b *Bucket) uint64 { return h.fleet.bodies[b.body].requests }

// Hits is what a bucket adds to the total of each top list.
func (h *Host) Hits(b *Bucket) map[string]int64 { return h.fleet.bodies[b.body].hits }

// Result is what a run has sent, and what became of it.
type Result struct {
	Seed  uint64
	Width time.Duration
	Hosts []Host
	// From and To bound the intervals sent.
	From, To int64
	// Sent counts buckets each time they were; the others by the answers.
	Sent, SentBytes                                        uint64
	Stored, Duplicates, Expired, Refused, Retries, GivenUp uint64
	Disconnects                                            uint64
	Unanswered                                             int64
	// Rows is the mean number of rows of each table, BucketBytes the mean size of a bucket on the wire.
	Rows        map[string]float64
	BucketBytes float64
	// Connect is how long it took until all were connected; Reconnect the same after the cut, and Caught until all that had
	// been closed meanwhile was answered.
	Connect, Reconnect, Caught time.Duration
	// Latency is from the closing of a bucket to its acknowledgement.
	Latency sketch.Latency
	Samples []Sample
	Elapsed time.Duration // from the first interval's begin to the last answer
}

type fleet struct {
	cfg     Config
	bodies  []*body
	members []*member
	backlog atomic.Int64

	mu      sync.Mutex
	latency sketch.Latency
}

func (f *fleet) noteLatency(ns int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.latency.Add(max(ns, 0))
}

const (
	// tick is how often a run looks whether what it waits for is there.
	tick = 200 * time.Millisecond
	// connectWait is how long the fleet may take to connect, with four of the longest pauses between two tries.
	connectWait = time.Minute
)

// Run simulates the fleet until its duration is over and everything is answered, or ctx ends, which is an error.
func Run(ctx context.Context, cfg Config) (*Result, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	f := &fleet{cfg: cfg}
	var err error
	if f.bodies, err = makeBodies(&cfg); err != nil {
		return nil, fmt.Errorf("make content: %w", err)
	}
	for i := range cfg.Agents {
		m, err := newMember(f, i)
		if err != nil {
			return nil, err
		}
		f.members = append(f.members, m)
	}
	slices.SortStableFunc(f.members, func(a, b *member) int { return int(a.offset - b.offset) })
	if cfg.Made != nil {
		cfg.Made()
	}
	r := &Result{Seed: cfg.Seed, Width: cfg.Width}
	err = f.run(ctx, r)
	err = errors.Join(err, f.stop())
	f.sum(r)
	return r, err
}

func (f *fleet) run(parent context.Context, r *Result) error {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	width := int64(f.cfg.Width)
	start := aligned(time.Now(), f.cfg.Width)
	r.From = start - int64(f.cfg.Past/f.cfg.Width)*width
	for _, m := range f.members {
		m.from = r.From
		for s := r.From; s < start; s += width {
			m.add(s, 0)
		}
	}
	begin := time.Unix(0, start)
	var others sync.WaitGroup
	others.Go(func() {
		if err := errors.Join(f.connect(ctx, r), f.cut(ctx, begin, r)); err != nil {
			cancel(err)
		}
	})
	err := f.close(ctx, start, begin, r)
	others.Wait() // which has an end of its own
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err == nil {
		err = f.answered(ctx)
	}
	r.Elapsed = time.Since(begin)
	return err
}

// connect starts the uplinks and waits until all are connected.
func (f *fleet) connect(ctx context.Context, r *Result) error {
	begin := time.Now()
	for i, m := range f.members {
		if err := sleep(ctx, time.Until(begin.Add(f.cfg.ConnectWithin*time.Duration(i)/time.Duration(len(f.members))))); err != nil {
			return err
		}
		if err := m.uplink.Start(ctx); err != nil {
			return err
		}
	}
	err := f.whole(ctx, begin)
	r.Connect = time.Since(begin)
	return err
}

// cut cuts all connections when it is time, and waits until the fleet is back and has caught up.
func (f *fleet) cut(ctx context.Context, begin time.Time, r *Result) error {
	if f.cfg.CutAfter == 0 {
		return nil
	}
	if err := sleep(ctx, time.Until(begin.Add(f.cfg.CutAfter))); err != nil {
		return err
	}
	at := time.Now()
	for _, m := range f.members {
		m.cut()
	}
	if err := f.whole(ctx, at); err != nil {
		return err
	}
	r.Reconnect = time.Since(at)
	err := f.answered(ctx)
	r.Caught = time.Since(at)
	return err
}

// close closes interval after interval of every member.
func (f *fleet) close(ctx context.Context, start int64, begin time.Time, r *Result) error {
	for range int(f.cfg.Duration / f.cfg.Width) {
		end := start + int64(f.cfg.Width)
		if err := sleep(ctx, time.Until(time.Unix(0, end))); err != nil {
			return err
		}
		s := Sample{At: time.Since(begin), Backlog: f.backlog.Load(), Connected: f.connected(time.Time{})}
		r.Samples = append(r.Samples, s)
		if f.cfg.Observe != nil {
			f.cfg.Observe(s)
		}
		for _, m := range f.members {
			due := end + int64(m.offset)
			if err := sleep(ctx, time.Until(time.Unix(0, due))); err != nil {
				return err
			}
			m.add(start, due)
		}
		start = end
	}
	r.To = start
	return nil
}

// connected counts the members that are connected, since a time or later.
func (f *fleet) connected(since time.Time) (n int) {
	for _, m := range f.members {
		if s := m.uplink.Status(); s.Connected && !s.Since.Before(since) {
			n++
		}
	}
	return n
}

// whole waits until all members have connected since a time.
func (f *fleet) whole(ctx context.Context, since time.Time) error {
	return f.await(ctx, connectWait+4*f.cfg.BackoffMax, "connected", func() bool { return f.connected(since) == len(f.members) })
}

// answered waits until nothing waits.
func (f *fleet) answered(ctx context.Context) error {
	return f.await(ctx, f.cfg.Drain, "answered", func() bool { return f.backlog.Load() == 0 })
}

// await waits until done, at most so long.
func (f *fleet) await(ctx context.Context, most time.Duration, what string, done func() bool) error {
	begin := time.Now()
	for !done() {
		if time.Since(begin) > most {
			return fmt.Errorf("after %s not all are %s: %d of %d agents connected, %d buckets unanswered",
				most, what, f.connected(time.Time{}), len(f.members), f.backlog.Load())
		}
		if err := sleep(ctx, tick); err != nil {
			return err
		}
	}
	return nil
}

// stop ends the uplinks, several at a time as each takes a moment.
func (f *fleet) stop() error {
	errs := make([]error, len(f.members))
	var group sync.WaitGroup
	for i, m := range f.members {
		group.Go(func() { errs[i] = m.uplink.Stop(context.Background()) })
	}
	group.Wait()
	return errors.Join(errs...)
}

// sum adds up what the members know.
func (f *fleet) sum(r *Result) {
	r.Latency = *f.latency.Clone()
	r.Unanswered = f.backlog.Load()
	r.Rows = map[string]float64{}
	for _, b := range f.bodies {
		for table, n := range b.rows {
			r.Rows[table] += float64(n) / float64(len(f.bodies))
		}
	}
	for _, m := range f.members {
		r.Hosts = append(r.Hosts, Host{ID: m.host.String(), Name: m.name(), Buckets: m.buckets, fleet: f})
		f.counters(m, r)
	}
	slices.SortFunc(r.Hosts, func(a, b Host) int { return strings.Compare(a.Name, b.Name) })
	if r.Sent > 0 {
		r.BucketBytes = float64(r.SentBytes) / float64(r.Sent)
	}
}

// counters adds the uplink's own counters of a member.
func (f *fleet) counters(m *member, r *Result) {
	families, _ := m.registry.Gather() // counters cannot fail
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			n := uint64(metric.GetCounter().GetValue())
			switch family.GetName() {
			case "httpctl_uplink_sent_buckets_total":
				r.Sent += n
			case "httpctl_uplink_sent_bytes_total":
				r.SentBytes += n
			case "httpctl_uplink_disconnects_total":
				r.Disconnects += n
			case "httpctl_uplink_answers_total":
				for _, label := range metric.GetLabel() {
					if of := map[string]*uint64{"stored": &r.Stored, "duplicate": &r.Duplicates, "expired": &r.Expired,
						"refused": &r.Refused, "retry": &r.Retries, "too_large": &r.GivenUp}[label.GetValue()]; of != nil {
						*of += n
					}
				}
			}
		}
	}
}

// sleep waits, or returns why ctx ended.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
