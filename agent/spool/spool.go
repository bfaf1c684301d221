package spool

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/bbolt"

	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/exchange"
)

// Spool is the durable queue. It is safe for concurrent use: Add never waits for
// delivery, only for the disk.
type Spool struct {
	dir, path string
	cfg       Config
	log       *slog.Logger
	metrics   *metrics
	host      bucket.ID
	ready     chan struct{}

	// Set by tests only, before use.
	encode func(dst []byte, b *bucket.Bucket) ([]byte, error)
	fault  func() error // an error that a commit returns although it did its work

	mu     sync.Mutex
	closed bool
	db     *bbolt.DB // nil while the file is out of service
	file   *os.File  // the file under db
	// tried is when opening the file again was last tried, why what has put it out of service.
	tried time.Time
	why   error

	disk     usage // what is in the file
	seq      uint64
	mem      []*entry // not yet in the file, oldest first; their data is owned
	memBytes int64
	settled  map[uint64]bool // done with, but still in the file; true: as far as is known, it is there
	lost     declaration     // to be told by the next bucket
	state    State
	hasState bool
	begun    bool  // an incarnation has begun since the spool was opened
	from     int64 // since when it observes
	restored bool  // state and lost were read from the file
	dirty    bool  // lost or state differ from the file
}

type usage struct {
	count int
	bytes int64
}

// Deps are what a Spool needs from outside; both may be nil.
type Deps struct {
	Log      *slog.Logger
	Registry prometheus.Registerer
}

// Open opens the spool of a state directory, which it creates, and locks it: a second agent
// gets ErrLocked. Every entry is read and checked; a damaged one is reported, counted and
// declared. A file whose structure is damaged is refused with ErrCorrupt.
func Open(dir string, cfg Config, deps Deps) (*Spool, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Spool{
		dir: dir, path: filepath.Join(dir, fileName), cfg: cfg, log: deps.Log, metrics: newMetrics(deps.Registry),
		ready: make(chan struct{}, 1), settled: map[uint64]bool{}, encode: bucket.Encode,
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, &Error{Op: "make state directory", Path: dir, Err: err, Hint: hint(dir, err)}
	}
	if err := s.open(); err != nil {
		return nil, err
	}
	var err error
	if s.host, err = HostID(dir, nil); err == nil {
		err = s.flush() // what the check found
	}
	if err != nil {
		s.closeFile()
		return nil, err
	}
	s.report()
	s.signal()
	return s, nil
}

// SetLimits changes the bounds. What is beyond new ones is given up, and declared, with the next Add.
func (s *Spool) SetLimits(cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cfg = cfg
	return nil
}

// Host returns the identity of this host.
func (s *Spool) Host() bucket.ID { return s.host }

// Previous returns the state that the incarnation before left, until Begin replaces it. ok is
// false on the first start.
func (s *Spool) Previous() (state State, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state, s.hasState
}

// Begin starts an incarnation that observes from the given time (nanoseconds) on. The time
// since the previous one had last closed its intervals is declared unobserved: at least one
// open bucket's worth after a kill, and the time away. Where the clock is now behind what was closed,
// that one bucket is declared: how long the agent was away is not known; and of what was to be declared before, only
// what lies before from, as the rest was dated by a clock that was ahead. An error means that this
// isn't durable yet; it is written with the next Add.
func (s *Spool) Begin(incarnation bucket.ID, from int64, width time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	if s.hasState {
		closed := s.state.ClosedThrough
		if closed > from {
			s.lost.spans = before(s.lost.spans, from)
		}
		switch {
		case closed < from:
			s.lost.spans = mergeSpans(append(slices.Clone(s.lost.spans), bucket.Span{From: closed, To: from}))
		case !s.begun && s.state.Width > 0: // not after a clock step, before which everything was closed
			s.lost.spans = mergeSpans(append(slices.Clone(s.lost.spans), bucket.Span{From: closed, To: closed + int64(s.state.Width)}))
		}
	}
	s.begun, s.from = true, from
	s.state, s.hasState, s.dirty = State{Incarnation: incarnation, ClosedThrough: from, Width: width}, true, true
	return s.flush()
}

// Add encodes a closed, final bucket and returns once it is on stable storage. What was given
// up before is declared in it: b.Unobserved and the counter spool_dropped_buckets are added to.
//
// An error that wraps [ErrKept] means that the bucket is not on disk but safe in memory: it is
// delivered from there, and written with the next Add that succeeds. With any other error the
// bucket is lost, counted and declared by the next one. Either way, never Add it again.
func (s *Spool) Add(b *bucket.Bucket) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	if b.ClosedThrough <= bucket.MaxTime && slices.ContainsFunc(s.lost.spans, func(u bucket.Span) bool { return u.To > bucket.MaxTime }) {
		// No aggregator takes such a bucket, nor the next one that would declare it again.
		s.lost.spans = before(s.lost.spans, b.ClosedThrough)
	}
	b.Unobserved = mergeSpans(append(slices.Clone(b.Unobserved), s.lost.spans...))
	b.Counters[exchange.SpoolDropped] += s.lost.dropped
	e := &entry{
		seq: s.seq + 1, incarnation: b.Incarnation, start: b.Start, width: b.Width, part: b.Part, ordinal: b.Ordinal,
		closed: b.ClosedThrough, dropped: b.Counters[exchange.SpoolDropped], unobserved: b.Unobserved,
	}
	s.lost = declaration{} // e carries it now
	s.dirty = true
	var err error
	if e.data, err = s.encode(nil, b); err == nil && s.cost(e) > int64(min(s.cfg.MaxMemory, s.cfg.MaxSize)) {
		err = fmt.Errorf("it takes %d bytes, more than the spool may hold", len(e.data))
	}
	s.state, s.hasState = State{Incarnation: e.incarnation, ClosedThrough: e.closed, Width: e.width}, true
	if err != nil {
		s.giveUp(e, "oversized")
		return fmt.Errorf("spool bucket %d of incarnation %s: %w", e.ordinal, e.incarnation, err)
	}
	s.seq++
	s.mem = append(s.mem, e)
	s.memBytes += s.cost(e)
	s.metrics.added.Inc()
	err = s.flush()
	for s.memBytes > int64(s.cfg.MaxMemory) {
		s.giveUp(s.mem[0], "memory_full")
		s.memBytes -= s.cost(s.mem[0])
		s.mem = slices.Delete(s.mem, 0, 1)
	}
	s.report()
	s.signal()
	if err != nil {
		return fmt.Errorf("%w (%d there now): %w", ErrKept, len(s.mem), err)
	}
	return nil
}

// ErrKept is wrapped by Add's error when the bucket is safe in memory, but not on disk.
var ErrKept = errors.New("the bucket is kept in memory")

// Next returns a copy of the oldest bucket after the given sequence number, and its number; 0
// means that there is none. A damaged entry is passed over, reported, counted and declared. An
// error says that the file is out of service; the caller tries again later.
func (s *Spool) Next(after uint64) (seq uint64, data []byte, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, nil, ErrClosed
	}
	if s.db == nil {
		err = s.reopen(false)
	}
	if s.db != nil {
		seq, data, err = s.nextOnDisk(after)
	}
	if seq != 0 {
		return seq, data, nil
	}
	for _, e := range s.mem {
		if e.seq > after {
			return e.seq, slices.Clone(e.data), nil
		}
	}
	return 0, nil, err
}

// Newest returns the sequence number of the newest bucket that was added, 0 if there was none.
func (s *Spool) Newest() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seq
}

// Settle forgets the buckets that the aggregator has, those whose interval was sealed
// (expired), and those it will never take (refused). What a settled bucket would have declared,
// and of a refused one its interval too, is declared again by the next one; of a refused one that a clock has dated
// that was ahead and is set right, only the time that has come. An error means that
// the file was not updated: after a restart the buckets are sent again, and the aggregator
// tells that it has them. An expired or refused bucket that cannot be looked up stays, as nobody
// would declare it: it is sent and answered again.
func (s *Spool) Settle(stored, expired, refused []uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	for _, seq := range stored {
		s.forget(seq)
	}
	if s.db == nil && len(expired)+len(refused) > 0 {
		_ = s.reopen(false) // flush tells the error
	}
	for _, seq := range expired {
		e, err := s.lookup(seq)
		if err != nil {
			continue
		}
		if e != nil && (len(e.unobserved) > 0 || e.dropped > 0) {
			s.lost.spans = mergeSpans(append(slices.Clone(s.lost.spans), e.unobserved...))
			s.lost.dropped += e.dropped
			s.dirty = true
		}
		s.forget(seq)
	}
	for _, seq := range refused {
		e, err := s.lookup(seq)
		if err != nil {
			continue
		}
		if e != nil {
			s.giveUp(e, "refused")
		}
		s.forget(seq)
	}
	err := s.flush()
	s.report()
	return err
}

// Replace gives a bucket other bytes, which are the same bucket in another format: from now on Next returns these. One that
// is no longer there stays so. After an error Next returns the ones or the others.
func (s *Spool) Replace(seq uint64, data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	e, err := s.lookup(seq)
	if e == nil || err != nil {
		return err
	}
	at := func() (int, bool) {
		return slices.BinarySearchFunc(s.mem, seq, func(e *entry, seq uint64) int { return cmp.Compare(e.seq, seq) })
	}
	i, inMemory := at()
	if inMemory {
		s.memBytes -= s.cost(e)
	} else {
		s.mem = slices.Insert(s.mem, i, e) // which flush writes
	}
	e.data = slices.Clone(data)
	s.memBytes += s.cost(e)
	err = s.flush()
	if i, there := at(); err != nil && there && !inMemory {
		s.mem = slices.Delete(s.mem, i, i+1)
		s.memBytes -= s.cost(e)
	}
	s.report()
	return err
}

// forget takes a bucket out of memory, and out of the file with the next flush.
func (s *Spool) forget(seq uint64) {
	i := slices.IndexFunc(s.mem, func(e *entry) bool { return e.seq == seq })
	if i >= 0 {
		s.memBytes -= s.cost(s.mem[i])
		s.mem = slices.Delete(s.mem, i, i+1)
	}
	if _, done := s.settled[seq]; !done {
		s.settled[seq] = i < 0 // it may be in the file all the same, after a commit that failed late
	}
}

// giveUp counts an entry as lost and notes what is to be declared.
func (s *Spool) giveUp(e *entry, reason string) {
	s.lost = s.lost.with(s.datedRight(e))
	s.dirty = true
	s.metrics.dropped.WithLabelValues(reason).Inc()
}

// datedRight returns e as it is to be declared: of what a clock that was ahead has dated, only the time before it was set
// right, which an incarnation began with.
func (s *Spool) datedRight(e *entry) *entry {
	now := s.state.ClosedThrough
	if !s.hasState || e.start <= now {
		return e
	}
	if s.begun {
		now = min(now, s.from)
	}
	own := *e
	own.start, own.width = now, 0 // the interval lies ahead: nothing is known of it
	own.unobserved = before(e.unobserved, now)
	return &own
}

// before returns what of spans lies before t.
func before(spans []bucket.Span, t int64) []bucket.Span {
	var out []bucket.Span
	for _, u := range spans {
		if u.To = min(u.To, t); u.From < u.To {
			out = append(out, u)
		}
	}
	return out
}

// Ready gives a value when there may be a bucket that Next has not returned yet.
func (s *Spool) Ready() <-chan struct{} { return s.ready }

func (s *Spool) signal() {
	select {
	case s.ready <- struct{}{}:
	default: // the reader has not taken the last one yet
	}
}

// Len returns how many buckets wait.
func (s *Spool) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.waiting()
}

func (s *Spool) waiting() int {
	n := s.disk.count + len(s.mem)
	for _, inFile := range s.settled {
		if inFile {
			n--
		}
	}
	return max(0, n)
}

// Close writes what is still in memory and closes the file. An error tells how many buckets
// could not be saved.
func (s *Spool) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	err := s.flush()
	s.closeFile()
	if err != nil && len(s.mem) > 0 {
		err = fmt.Errorf("%d buckets could not be saved; the next start declares their intervals: %w", len(s.mem), err)
	}
	return err
}

// cost is what an entry counts against the bounds.
func (s *Spool) cost(e *entry) int64 {
	return int64(crcSize + metaFixed + len(e.unobserved)*spanSize + len(e.data) + entryOverhead)
}

func (s *Spool) report() {
	s.metrics.buckets.Set(float64(s.waiting()))
	s.metrics.bytes.Set(float64(s.disk.bytes + s.memBytes))
	s.metrics.memory.Set(float64(len(s.mem)))
}
