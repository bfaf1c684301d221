package ingest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/lifecycle"
	"github.com/httpctl/httpctl/pkg/security"
	"github.com/httpctl/httpctl/pkg/telemetry"
	httpctlv1 "github.com/httpctl/httpctl/proto/httpctl/v1"
)

// Appender is what the service needs of a store.Store.
type Appender interface {
	Append(ctx context.Context, batch []store.Item) ([]store.Result, error)
}

// Deps are what the service needs from outside. Only Store is required.
type Deps struct {
	Store Appender
	// State keeps the addresses of hosts over a restart. Without it they are known anew as agents connect.
	State    State
	Log      *slog.Logger
	Registry prometheus.Registerer
	// Admit says which certificate speaks for a host on a stream, and whether it is certain that it is this
	// host's, or returns the error of gRPC with which the stream is refused. Nil admits everybody.
	Admit func(ctx context.Context, host bucket.ID) (identity string, certain bool, err error)
	// Version of the aggregator, told to agents.
	Version string
	// Extract takes from a final bucket, while it is decoded to be checked, what OnStored is to get of it. The
	// bucket's memory is borrowed for the call; several goroutines call it. Nil takes nothing.
	Extract func(*bucket.Bucket) Extract
	// OnStored is called with buckets that were just stored, each of them once. It is called by one
	// goroutine at a time, which stores nothing more until it returns.
	OnStored func([]Stored)
	// OnSamples is called with the live exchanges that an agent sent, OnTailedGone when a stream has ended; both by any
	// goroutine. They must not block. May be nil.
	OnSamples    func(Tailed, *httpctlv1.Samples)
	OnTailedGone func(Tailed)
}

// Extract is what [Deps.Extract] took from a bucket.
type Extract interface {
	// Size is about how many bytes of memory it takes; they are part of max_pending.
	Size() int
}

// Stored is a bucket that was stored.
type Stored struct {
	Header  *bucket.Header
	Extract Extract // nil without [Deps.Extract]
}

// Service implements the gRPC IngestService. New is inert; Start runs it.
type Service struct {
	httpctlv1.UnimplementedIngestServiceServer

	cfg     Config
	deps    Deps
	log     *slog.Logger
	metrics *metrics
	queue   chan *delivery
	budget  *budget
	writing telemetry.Beat // begins with a transaction, rests between two
	changed chan struct{}  // settings or watchers have changed
	moved   chan struct{}  // the directory has changed
	// kept is what is stored of the directory; it belongs to tellFleet.
	kept        []byte
	keptVersion uint64
	// unsure names the buckets that were new to a transaction that failed, and may be on disk all the same: one
	// that turns out to be a duplicate was stored then. It belongs to commit.
	unsure  map[bucket.Name]struct{}
	changes atomic.Uint64
	// What refusals were logged: of streams and of buckets.
	rejections, refusals limiter
	faults               limiter

	mu        sync.Mutex
	tails     func(host bucket.ID, name string) *httpctlv1.Tails // nil: nobody tails
	streams   uint64                                             // that were admitted
	group     *lifecycle.Group                                   // nil before Start
	agents    map[bucket.ID]*agent
	settings  Settings
	maxAgents int
	watch     time.Time // someone watches until then
	rows      int
	current   *httpctlv1.Settings // what the agents were told
	directory *directory
	fleet     *httpctlv1.Fleet // what they were told of each other
	failing   time.Time        // since when the store fails; zero: it does not
	failure   error            // why
}

// New checks the settings and returns a service that is not running.
func New(cfg Config, settings Settings, deps Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if deps.Store == nil {
		return nil, errors.New("ingest needs a store")
	}
	s := &Service{
		cfg: cfg, deps: deps, log: deps.Log,
		queue: make(chan *delivery, batchItems), changed: make(chan struct{}, 1), moved: make(chan struct{}, 1),
		directory: newDirectory(), fleet: &httpctlv1.Fleet{}, unsure: map[bucket.Name]struct{}{},
		agents: map[bucket.ID]*agent{}, settings: settings, maxAgents: cfg.MaxAgents,
	}
	s.metrics = newMetrics(deps.Registry, func() float64 { return float64(len(s.Clones())) })
	s.budget = newBudget(int64(cfg.MaxPending), s.metrics.pending)
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.current = s.effective(time.Now())
	return s, nil
}

// ServerOptions returns what the gRPC server must be made with for this service: the message
// bound, the finding of dead connections, and buffers that suit thousands of connections of which each
// brings a bucket every ten seconds.
func (s *Service) ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(int(s.cfg.MaxMessageSize) + 64), // the envelope around a bucket
		grpc.ReadBufferSize(readBuffer), grpc.WriteBufferSize(writeBuffer),
		grpc.StaticStreamWindowSize(receiveWindow), grpc.StaticConnWindowSize(receiveWindow),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 20 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	}
}

// Register adds the service to a gRPC server.
func (s *Service) Register(r grpc.ServiceRegistrar) { httpctlv1.RegisterIngestServiceServer(r, s) }

// Start begins to take buckets.
func (s *Service) Start(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.group != nil {
		return errors.New("ingest is running")
	}
	if err := s.loadFleet(ctx); err != nil {
		return err
	}
	s.group = lifecycle.NewGroup(context.WithoutCancel(ctx)) // ended by Stop
	s.group.Go("ingest: store buckets", s.commit)
	s.group.Go("ingest: tell settings", s.tell)
	s.group.Go("ingest: tell of the fleet", s.tellFleet)
	return nil
}

// Stop ends every agent's stream and returns when the service's goroutines are gone. What was
// not acknowledged stays with the agents. Call it before stopping the gRPC server.
func (s *Service) Stop(ctx context.Context) error {
	s.mu.Lock()
	group := s.group
	s.mu.Unlock()
	return group.Stop(ctx)
}

// Failed gives the error by which the service died, after which it takes no more buckets. It is
// nil before Start.
func (s *Service) Failed() <-chan error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.group == nil {
		return nil
	}
	return s.group.Failed()
}

// SetSettings changes what agents are told, at once.
func (s *Service) SetSettings(settings Settings) {
	s.mu.Lock()
	s.settings = settings
	s.mu.Unlock()
	s.wake()
}

// SetLimits changes max_pending and max_agents. Agents beyond a lower max_agents stay until their streams end.
func (s *Service) SetLimits(cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.maxAgents = cfg.MaxAgents
	s.budget.setLimit(int64(cfg.MaxPending))
	return nil
}

// Watch asks agents for provisional buckets of so many rows a table, for that long from now.
// Calls add up: the longest time and, while it lasts, the most rows count.
func (s *Service) Watch(ttl time.Duration, rows int) {
	now := time.Now()
	s.mu.Lock()
	if now.After(s.watch) {
		s.rows = 0
	}
	s.rows = max(s.rows, rows)
	if until := now.Add(ttl); until.After(s.watch) {
		s.watch = until
	}
	s.mu.Unlock()
	s.wake()
}

func (s *Service) wake() {
	select {
	case s.changed <- struct{}{}:
	default: // it is awake already
	}
}

// effective returns the settings as agents are told them. The caller holds the lock, or nobody
// else has s.
func (s *Service) effective(now time.Time) *httpctlv1.Settings {
	m := &httpctlv1.Settings{
		IntervalWidthNs:     int64(s.settings.IntervalWidth),
		NextIntervalWidthNs: int64(s.settings.NextWidth),
		NextFromUnixNs:      s.settings.NextFrom,
		ProvisionalEveryNs:  int64(s.settings.ProvisionalEvery),
	}
	if now.Before(s.watch) {
		m.Watched, m.ProvisionalRows = true, uint32(max(0, s.rows))
	}
	return m
}

// tell sends settings to every agent when they change, or when nobody watches any more.
func (s *Service) tell(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.changed:
		case <-timer.C:
		}
		now := time.Now()
		s.mu.Lock()
		if m := s.effective(now); !proto.Equal(m, s.current) {
			s.current = m
			for _, a := range s.agents {
				if a.stream != nil {
					a.stream.setSettings(m)
				}
			}
		}
		if now.Before(s.watch) {
			timer.Reset(s.watch.Sub(now))
		}
		s.mu.Unlock()
	}
}

// Agent is what is known of an agent's connection.
type Agent struct {
	Host          bucket.ID
	Name, Version string // as the agent says: clean them before showing
	Peer          string // address it connects from
	Identity      string // its certificate's; "" where it needs none
	Incarnation   bucket.ID
	Connected     bool
	Since         time.Time // of the connection, or of its end
	LastMessage   time.Time
	// Backlog is how many final buckets its spool held when it connected, less those that came
	// since, but for what is of the future, or too new.
	Backlog uint64
	// ObservedFrom is the earliest time (nanoseconds) since when buckets that came on this connection, or before from the same
	// incarnation, say that they were watched; 0 before the first of them.
	ObservedFrom int64
	// Tails says that it shows live exchanges.
	Tails bool
}

// Agents returns the agents that are connected, and those that were, by name, then id.
func (s *Service) Agents() []Agent {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]Agent, 0, len(s.agents))
	for _, a := range s.agents {
		list = append(list, a.Agent)
	}
	slices.SortFunc(list, func(a, b Agent) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), a.Host.Compare(b.Host))
	})
	return list
}

// Provisional is a provisional bucket, shared: do not change it.
type Provisional struct {
	Bucket   *bucket.Bucket
	Received time.Time
}

// Provisional returns the newest provisional bucket of each host: of its open interval, not in
// the store. It is gone before its final one is appended, and no other of its name follows. So
// who asks the store first and then Provisional counts nothing twice; a bucket that becomes
// final in between is missed for a moment.
func (s *Service) Provisional() []Provisional {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	stale := 3*s.settings.ProvisionalEvery + time.Second
	var list []Provisional
	for _, a := range s.agents {
		if a.provisional == nil {
			continue
		}
		if now.Sub(a.provisionalAt) > stale {
			a.provisional = nil // the agent is away, or nobody watched
			continue
		}
		list = append(list, Provisional{a.provisional, a.provisionalAt})
	}
	slices.SortFunc(list, func(a, b Provisional) int { return a.Bucket.Host.Compare(b.Bucket.Host) })
	return list
}

// delivery is one final bucket on its way to the store.
type delivery struct {
	item     store.Item
	extract  Extract
	size     int64 // of the budget
	sequence uint64
	stream   *stream
}

// commit stores what has come in, as many buckets in one transaction as have queued up while
// the one before was being written: alone a bucket is stored at once, under load the fsync is
// shared.
func (s *Service) commit(ctx context.Context) error {
	var (
		batch    []*delivery
		items    []store.Item
		failures int
	)
	for {
		batch, items = batch[:0], items[:0]
		var first *delivery
		select {
		case <-ctx.Done():
			return nil
		case first = <-s.queue:
		}
		size := 0
		for d := first; d != nil; {
			batch, items = append(batch, d), append(items, d.item)
			size += len(d.item.Data)
			d = nil
			if len(batch) < batchItems && size < batchBytes {
				select {
				case d = <-s.queue:
				default:
				}
			}
		}
		s.replaceProvisional(items)
		begin := time.Now()
		// Not cancelled by Stop: a transaction under way is worth finishing.
		s.writing.Round()
		results, err := s.deps.Store.Append(context.WithoutCancel(ctx), items)
		s.writing.Rest()
		s.metrics.appendSeconds.Observe(time.Since(begin).Seconds())
		s.metrics.batch.Observe(float64(len(batch)))
		if err == nil && len(results) != len(items) {
			return fmt.Errorf("the store answered %d results for %d buckets", len(results), len(items))
		}
		for i, d := range batch {
			r := &httpctlv1.BucketResult{Sequence: d.sequence, Status: httpctlv1.BucketStatus_BUCKET_STATUS_RETRY}
			if err == nil {
				r.Status, r.Reason = fate(results[i])
			}
			s.metrics.buckets.WithLabelValues(label(r.Status)).Inc()
			if err == nil && results[i] == store.Crowded {
				s.metrics.crowded.Inc()
			}
			s.budget.release(d.size)
			d.stream.answer(r)
			if r.Status == httpctlv1.BucketStatus_BUCKET_STATUS_REFUSED {
				s.logRefusal(refusedText, d.item.Header.Host, r.Reason)
			}
		}
		s.noteStore(err)
		if err == nil {
			failures = 0
			s.stored(batch, results)
		} else {
			s.metrics.storeErrors.Inc()
			s.noteUnsure(items, results)
			// Meanwhile the queue fills, streams are not read, and agents keep what they have.
			wait := min(storeWait, 100*time.Millisecond<<min(failures, 10))
			failures++
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(wait):
			}
		}
		clear(batch) // keep no data alive while idle
		clear(items)
	}
}

const refusedText = "a bucket is refused; its agent declares the interval unobserved"

// logRefusal logs that a bucket is not stored.
func (s *Service) logRefusal(text string, host bucket.ID, reason string) {
	quiet, ok := s.refusals.pass(time.Now())
	if !ok {
		return
	}
	var name, peer string
	s.mu.Lock()
	if a := s.agents[host]; a != nil {
		name, peer = a.Name, a.Peer
	}
	s.mu.Unlock()
	s.log.Warn(text, "host", host, "name", security.CleanText(name), "peer", peer, "reason", security.CleanText(reason), "others_since_last_logged", quiet)
}

// noteStore notes and logs that the store has begun to fail, or works again.
func (s *Service) noteStore(err error) {
	s.mu.Lock()
	since := s.failing
	if s.failure = err; err == nil {
		s.failing = time.Time{}
	} else if since.IsZero() {
		s.failing = time.Now()
	}
	s.mu.Unlock()
	switch {
	case err != nil && since.IsZero():
		s.log.Error("the store fails; agents keep their buckets and send them again", "err", err)
	case err == nil && !since.IsZero():
		s.log.Info("buckets are stored again", "after", time.Since(since).Round(time.Millisecond))
	}
}

// StoreFailure returns since when and why buckets cannot be stored; nil when they can, as far
// as is known.
func (s *Service) StoreFailure() (since time.Time, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failing, s.failure
}

// Progress returns an error when the store has not answered a transaction for too long.
func (s *Service) Progress() error { return s.writing.Check(telemetry.Stuck) }

// Changes counts what has come that changes answers: buckets that were stored, and provisional ones. It is for whoever
// looks whether to ask again.
func (s *Service) Changes() uint64 { return s.changes.Load() }

// stored tells whoever wants to know which buckets are new.
func (s *Service) stored(batch []*delivery, results []store.Result) {
	s.changes.Add(1)
	if s.deps.OnStored == nil {
		return
	}
	var fresh []Stored
	for i, d := range batch {
		_, unsure := s.unsure[d.item.Header.Name]
		if results[i] == store.Stored || unsure && results[i] == store.Duplicate {
			fresh = append(fresh, Stored{d.item.Header, d.extract})
		}
		delete(s.unsure, d.item.Header.Name)
	}
	if len(fresh) > 0 {
		_ = s.guard("count what was stored", func() error { s.deps.OnStored(fresh); return nil })
	}
}

// guard runs what takes something that an agent has sent. A fault of this program costs the bucket or the stream that it is met in, and is
// counted and logged; the error is for the agent.
func (s *Service) guard(what string, f func() error) error {
	err := lifecycle.Guard(f)
	if !errors.Is(err, lifecycle.ErrPanic) {
		return err
	}
	s.metrics.faults.Inc()
	if held, ok := s.faults.pass(time.Now()); ok {
		s.log.Error("a fault of this program with what an agent has sent: please report it, with this line", "what", what, "err", err, "others_since_last_logged", held)
	}
	return status.Error(codes.Internal, "the aggregator failed to "+what+": please report it, with what it has logged")
}

// noteUnsure notes which buckets would have been stored by a transaction whose commit failed.
func (s *Service) noteUnsure(items []store.Item, results []store.Result) {
	for i, r := range results {
		if r == store.Stored && len(s.unsure) < maxUnsure {
			s.unsure[items[i].Header.Name] = struct{}{}
		}
	}
}

// replaceProvisional drops provisional buckets whose final ones are about to be stored.
func (s *Service) replaceProvisional(items []store.Item) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, it := range items {
		a := s.agents[it.Header.Host]
		if a == nil || a.provisional == nil {
			continue
		}
		p := &a.provisional.Header
		if p.Name == it.Header.Name || p.Incarnation == it.Header.Incarnation && p.Start < it.Header.Start {
			a.provisional = nil
		}
	}
}

func fate(r store.Result) (httpctlv1.BucketStatus, string) {
	switch r {
	case store.Stored:
		return httpctlv1.BucketStatus_BUCKET_STATUS_STORED, ""
	case store.Duplicate:
		return httpctlv1.BucketStatus_BUCKET_STATUS_DUPLICATE, ""
	case store.Expired:
		return httpctlv1.BucketStatus_BUCKET_STATUS_EXPIRED, "its interval is sealed"
	}
	reason := "another bucket of the same name is stored: a final bucket never changes"
	if r == store.Crowded {
		reason = fmt.Sprintf("%d buckets of its host and interval are stored, of other incarnations and parts: the most there may be", store.MaxBuckets)
	}
	return httpctlv1.BucketStatus_BUCKET_STATUS_REFUSED, reason
}

func label(s httpctlv1.BucketStatus) string {
	switch s {
	case httpctlv1.BucketStatus_BUCKET_STATUS_STORED:
		return "stored"
	case httpctlv1.BucketStatus_BUCKET_STATUS_DUPLICATE:
		return "duplicate"
	case httpctlv1.BucketStatus_BUCKET_STATUS_EXPIRED:
		return "expired"
	case httpctlv1.BucketStatus_BUCKET_STATUS_REFUSED:
		return "refused"
	case httpctlv1.BucketStatus_BUCKET_STATUS_FUTURE:
		return "future"
	case httpctlv1.BucketStatus_BUCKET_STATUS_TOO_NEW:
		return "too_new"
	}
	return "retry"
}
