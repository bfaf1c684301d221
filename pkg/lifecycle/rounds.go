package lifecycle

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"
)

const (
	// faultTold is the least time between two lines about the faults of one worker.
	faultTold = time.Hour
	// maxPause bounds the pause after rounds that end in a fault.
	maxPause = 5 * time.Minute
)

// Rounds are those of a worker that does the same again and again. A fault of this program in one of them, a panic, costs that round:
// it is counted, and logged once an hour at most; the next one follows after a pause that grows. It is safe for concurrent use, but that one round
// runs at a time.
type Rounds struct {
	name string
	log  *slog.Logger

	mu     sync.Mutex
	faults uint64
	row    int       // of them, without a round between them that ended
	since  time.Time // when the first round failed of those that have since, zero if the last one did not
	err    error     // of the last round
	told   time.Time // when a fault was logged last
	held   uint64    // faults since then
}

// NewRounds returns those of the worker of that name.
func NewRounds(name string, log *slog.Logger) *Rounds { return &Rounds{name: name, log: log} }

// Do runs a round and returns its error. That of a fault wraps [ErrPanic] and fits into a line.
func (r *Rounds) Do(round func() error) error {
	var stack []byte
	err := func() (err error) {
		defer func() {
			if p := recover(); p != nil {
				stack = debug.Stack()
				err = fmt.Errorf("a fault of this program, which is in its log: %w: %.200v", ErrPanic, p)
			}
		}()
		return round()
	}()
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	switch {
	case err == nil:
		r.since = time.Time{}
	case r.since.IsZero():
		r.since = now
	}
	r.err = err
	if !errors.Is(err, ErrPanic) || stack == nil {
		r.row = 0
		return err
	}
	r.faults++
	r.row++
	if r.told.IsZero() || now.Sub(r.told) >= faultTold {
		r.log.Error("a fault of this program ended a round of a worker, which goes on with the next: please report it, with this line",
			"worker", r.name, "err", err, "others_since_last_logged", r.held, "stack", string(stack))
		r.told, r.held = now, 0
	} else {
		r.held++
	}
	return err
}

// Pause returns how long to wait for the next round where every is usual: twice as long after each fault in a row, up to five minutes.
func (r *Rounds) Pause(every time.Duration) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.row == 0 {
		return every
	}
	return max(every, min(maxPause, every<<min(r.row, 10)))
}

// Faults counts the rounds that ended in a fault.
func (r *Rounds) Faults() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.faults
}

// Failing returns since when each round has failed and why the last one did; nil if it did not.
func (r *Rounds) Failing() (since time.Time, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.since, r.err
}
