package judge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/httpctl/httpctl/aggregator/alert"
	"github.com/httpctl/httpctl/aggregator/baseline"
	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/lifecycle"
	"github.com/httpctl/httpctl/pkg/telemetry"
)

const (
	// maxAhead is how far ahead of the wall clock a bucket may be and still be judged (DESIGN
	// section 6).
	maxAhead = 5 * time.Minute
	// graceWidths: two widths after its end a window is judged without those
	// still missing; lateWidths without progress make a host late (DESIGN section 7).
	graceWidths, lateWidths = 2, 3
	// maxBatch is how many windows one query reads, and maxSlices how many of all hosts together, each some 2 KB: they bound the memory of
	// catching up.
	maxBatch, maxSlices = 64, 16 << 10
	// recentWindows are looked at again for late requests whenever a window is judged.
	recentWindows = 4
)

// Messages of the log that say what became of a window.
const (
	MessageRaised     = "alert raised"
	MessageDismissed  = "alert dismissed"
	MessageUnobserved = "no host was observed, nothing to judge"
)

// Judge drives the rule of the fleet. Its methods are safe for concurrent use.
type Judge struct {
	cfg   config.Settings
	st    store.Store
	clock func() time.Time
	log   *slog.Logger
	scope baseline.Scope

	wake   chan struct{}
	cancel context.CancelFunc
	done   chan struct{}

	// work is held by whoever steps the machine: a pass, or Relearn.
	work            sync.Mutex
	started         time.Time
	loaded          bool
	learning        baseline.Learning
	learningVersion uint64
	state           alert.State
	journal         []line              // what the store holds, oldest first
	swept           map[bucket.ID]int64 // coverage up to which late data was looked for
	recent          bool                // a window was judged since late data was looked for
	settled         tally               // of the window under way
	moment          live
	appended        atomic.Bool
	beat            telemetry.Beat
	rounds          *lifecycle.Rounds
	slices          int // maxSlices but in tests

	// mu guards what readers see.
	mu       sync.RWMutex
	shown    view
	progress map[bucket.ID]progress
	surveyed bool // the hosts were read at least once
	stats    Stats
	lastErr  error
}

// line is a record and where it is stored.
type line struct {
	key     string
	version uint64
	alert.Record
}

// Stats counts what the judge did since it was made.
type Stats struct {
	Verdicts   uint64 // windows judged
	Incomplete uint64 // of them, without a host or with damaged data
	Gaps       uint64 // gaps begun or extended
	Late       uint64 // verdicts annotated with late requests
	Errors     uint64 // passes that failed and will be tried again
	Faults     uint64 // of them, those that ended in a fault of this program
}

// New returns a Judge that does nothing before Start. clock is time.Now but in tests.
// It returns an error for settings under which windows do not tile intervals.
func New(cfg config.Settings, st store.Store, clock func() time.Time, log *slog.Logger) (*Judge, error) {
	width := cfg.DashboardBucketSize
	switch {
	case width <= 0:
		return nil, fmt.Errorf("dashboard_bucket_size %v: want more than 0", width)
	case cfg.AverageBucketSize <= 0 || cfg.AverageBucketSize%width != 0:
		return nil, fmt.Errorf("average_bucket_size %v: want a multiple of dashboard_bucket_size %v", cfg.AverageBucketSize, width)
	case cfg.Learning() <= 0 || cfg.Learning()%width != 0:
		return nil, fmt.Errorf("average_learning_duration %v: want a multiple of dashboard_bucket_size %v", cfg.Learning(), width)
	}
	return &Judge{
		cfg: cfg, st: st, clock: clock, log: log, scope: baseline.Fleet,
		wake:     make(chan struct{}, 1),
		rounds:   lifecycle.NewRounds("judge", log),
		slices:   maxSlices,
		progress: map[bucket.ID]progress{},
	}, nil
}

// Start loads the journal, replays it and begins to judge. It returns an error
// when the journal cannot be read, or was written by a newer program. Call it once.
func (j *Judge) Start(ctx context.Context) error {
	j.work.Lock()
	defer j.work.Unlock()
	j.started = j.clock()
	if err := j.load(ctx); err != nil {
		return fmt.Errorf("load baseline and verdicts: %w", err)
	}
	j.publish()
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	j.cancel, j.done = cancel, make(chan struct{})
	go j.loop(run)
	return nil
}

// Stop ends judging and returns when the goroutine is gone, or with the
// context's error. It is idempotent and safe before Start.
func (j *Judge) Stop(ctx context.Context) error {
	j.work.Lock()
	cancel, done := j.cancel, j.done
	j.work.Unlock()
	if cancel == nil {
		return nil
	}
	cancel()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop judging: %w", ctx.Err())
	}
}

// Notify says that buckets were appended. It never blocks.
func (j *Judge) Notify() {
	j.appended.Store(true)
	select {
	case j.wake <- struct{}{}:
	default:
	}
}

// Stats returns the counters.
func (j *Judge) Stats() Stats {
	j.mu.RLock()
	defer j.mu.RUnlock()
	stats := j.stats
	stats.Faults = j.rounds.Faults()
	return stats
}

// Err returns why the last pass failed, nil if it did not. It is retried every second, after a fault of this program later each time.
func (j *Judge) Err() error {
	j.mu.RLock()
	defer j.mu.RUnlock()
	return j.lastErr
}

// Progress returns an error when the judge has stood still for too long, be it while it catches up.
func (j *Judge) Progress() error { return j.beat.Check(telemetry.Stuck) }

func (j *Judge) count(f func(*Stats)) {
	j.mu.Lock()
	f(&j.stats)
	j.mu.Unlock()
}

// loop passes whenever buckets arrive, at most ten times an interval, and once
// a second or twice an interval, for what only time brings.
func (j *Judge) loop(ctx context.Context) {
	defer close(j.done)
	width := j.cfg.DashboardBucketSize
	pause, tick := min(width/10, 500*time.Millisecond), min(width/2, time.Second)
	j.appended.Store(true) // what the store holds is new to this process
	defer j.beat.Rest()
	for {
		j.beat.Round()
		if err := j.rounds.Do(func() error { return j.pass(ctx) }); err != nil && ctx.Err() == nil {
			j.failed(err)
		}
		if more := j.rounds.Pause(tick) - tick; more > 0 {
			j.beat.Rest()
			if !sleep(ctx, more, nil) {
				return
			}
		}
		if !sleep(ctx, pause, nil) || !sleep(ctx, tick-pause, j.wake) {
			return
		}
	}
}

// failed notes an error of a pass, and logs it unless it is the one before again.
func (j *Judge) failed(err error) {
	j.mu.Lock()
	again := j.lastErr != nil && j.lastErr.Error() == err.Error()
	j.lastErr = err
	j.stats.Errors++
	j.mu.Unlock()
	if !again && !errors.Is(err, lifecycle.ErrPanic) { // which is logged already
		j.log.Error("judging failed, trying again", "err", err)
	}
}

// sleep waits for d, or for wake; it returns false when ctx ended.
func sleep(ctx context.Context, d time.Duration, wake <-chan struct{}) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
	case <-wake:
	}
	return true
}

// exclusively runs what steps the machine. After a fault in it, what is in memory may be half of a step: the next pass begins, as after a
// crash, with what is in the store.
func (j *Judge) exclusively(f func() error) error {
	j.work.Lock()
	defer j.work.Unlock()
	over := false
	defer func() {
		if !over {
			j.loaded = false
			j.appended.Store(true)
		}
	}()
	err := f()
	over = true
	return err
}

// pass does all that can be done now.
func (j *Judge) pass(ctx context.Context) error {
	return j.exclusively(func() error {
		if !j.loaded { // another writer was faster, or a pass ended in a fault: the journal in the store is the true one
			if err := j.load(ctx); err != nil {
				return fmt.Errorf("load baseline and verdicts: %w", err)
			}
		}
		fresh := j.appended.Swap(false)
		err := j.advance(ctx, fresh)
		if err != nil && fresh {
			j.appended.Store(true)
		}
		if errors.Is(err, store.ErrConflict) {
			j.loaded = false
		}
		if err != nil {
			return err
		}
		j.mu.Lock()
		j.lastErr = nil
		j.mu.Unlock()
		return nil
	})
}

func (j *Judge) advance(ctx context.Context, fresh bool) error {
	f, err := j.census(ctx)
	if err != nil {
		return err
	}
	if err := j.begin(ctx, f); err != nil {
		return err
	}
	for more := j.learning.Begun(); more; {
		if err := ctx.Err(); err != nil {
			return err
		}
		if j.learning.Enforced {
			more, err = j.judgeBatch(ctx, f)
		} else {
			more, err = j.learn(ctx, f)
		}
		if err != nil {
			return err
		}
		if more {
			j.state = alert.Advance(j.state, j.eventTime(f))
			j.beat.Round()
			j.publish() // catching up is seen while it happens
		}
	}
	if fresh {
		if err := j.late(ctx, f); err != nil {
			return err
		}
	}
	if err := j.purge(ctx, f); err != nil {
		return err
	}
	if err := j.measure(ctx, f, fresh); err != nil {
		return err
	}
	j.state = alert.Advance(j.state, j.eventTime(f))
	j.publish()
	return nil
}

// begin finds T0 once the first bucket ever is there.
func (j *Judge) begin(ctx context.Context, f fleet) error {
	if j.learning.Begun() {
		return nil
	}
	first := int64(0)
	for _, h := range f.hosts {
		if !h.ignored && h.FirstStart > 0 && (first == 0 || h.FirstStart < first) {
			first = h.FirstStart
		}
	}
	if first == 0 {
		return nil
	}
	// The agent began to watch inside its first interval, so the next is the
	// first whole one. What is older than the store keeps is a wrong clock.
	oldest := f.now.Add(-j.cfg.MaxRetentionLength - j.cfg.MaxLate).UnixNano()
	t0 := baseline.FirstWhole(max(first+1, oldest), j.cfg.DashboardBucketSize)
	return j.saveLearning(ctx, baseline.Begin(j.scope, t0, j.cfg.Learning(), j.cfg.AverageBucketSize))
}

// Relearn forgets the baseline and learns a new one from the next whole
// interval on. An alert under way is closed. It returns when learning will end.
func (j *Judge) Relearn(ctx context.Context) (until time.Time, err error) {
	err = j.exclusively(func() error {
		if !j.loaded {
			return errors.Join(errors.New("the journal is not loaded"), j.Err())
		}
		if err := j.relearn(ctx); err != nil {
			if errors.Is(err, store.ErrConflict) {
				j.loaded = false
			}
			return err
		}
		j.publish()
		until = time.Unix(0, j.learning.Until())
		return nil
	})
	if err != nil {
		return time.Time{}, fmt.Errorf("relearn: %w", err)
	}
	return until, nil
}

// relearn journals the wish first: load takes what is then missing from there.
func (j *Judge) relearn(ctx context.Context) error {
	t0 := baseline.FirstWhole(max(j.clock().UnixNano(), j.state.Through), j.cfg.DashboardBucketSize)
	state, r := alert.Relearn(j.state, t0)
	if j.learning.Begun() && !j.learning.Enforced && j.learning.Origin == t0 {
		return nil // asked twice within an interval
	}
	if err := j.write(ctx, r); err != nil {
		return err
	}
	j.state = state
	j.moment, j.settled = live{}, tally{}
	j.appended.Store(true)
	return j.saveLearning(ctx, baseline.Begin(j.scope, t0, j.cfg.Learning(), j.cfg.AverageBucketSize))
}

func sortIDs(ids []bucket.ID) { slices.SortFunc(ids, bucket.ID.Compare) }
