// Package tail shows live exchanges to readers: it asks the agents for those that match, merges what they send in the order in which it
// arrives, and says how complete it is. A tail is bounded in time, rate and memory, and costs nobody else anything.
package tail

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/lifecycle"
	"github.com/httpctl/httpctl/pkg/match"
	"github.com/httpctl/httpctl/pkg/security"
	httpctlv1 "github.com/httpctl/httpctl/proto/httpctl/v1"
)

const (
	// maxTails bounds the tails at a time: more than that many people do not look at once, and an agent has no more.
	maxTails = 8
	// maxPerSecond bounds the exchanges of a tail; about 300 KB/s.
	maxPerSecond = 1000
	// defaultDuration is how long a tail lasts that says nothing else, maxDuration the longest: a forgotten one ends.
	defaultDuration = 10 * time.Minute
	maxDuration     = 24 * time.Hour
	// queueLength bounds the exchanges that wait for a reader, some 600 bytes each and at most 25 KiB.
	queueLength = 1024
	// batch bounds those of one message.
	batch = 64
	// maxHosts bounds the hosts of a request, maxMissing those that a summary names.
	maxHosts   = 256
	maxMissing = 20
	// checkEvery is how often it is asked whether the reader may still tail, summaryEvery how often a changed summary is sent.
	checkEvery   = time.Second
	summaryEvery = time.Second
	// lastWait is how long a reader may take to accept the end.
	lastWait = 5 * time.Second
)

// Agent is one that is connected.
type Agent struct {
	Host bucket.ID
	Name string
	// Allows says that it shows live exchanges.
	Allows bool
}

// Deps are what a Service needs from outside. Ask and Agents are required.
type Deps struct {
	// Ask has each agent that shows live exchanges asked for what of gives, now and as they connect.
	Ask func(of func(host bucket.ID, name string) *httpctlv1.Tails)
	// Agents returns those that are connected.
	Agents func() []Agent
	// Who returns who calls, for the log; Still returns an error once that peer may not tail any more. May be nil.
	Who      func(context.Context) string
	Still    func(context.Context) error
	Log      *slog.Logger
	Registry prometheus.Registerer
}

// Service implements the TailService. It is safe for concurrent use.
type Service struct {
	httpctlv1.UnimplementedTailServiceServer
	deps    Deps
	log     *slog.Logger
	results map[string]prometheus.Counter
	group   *lifecycle.Group // of senders

	mu    sync.Mutex
	last  uint64
	tails map[uint64]*tail
}

// New returns a service, which runs until Stop.
func New(d Deps) *Service {
	s := &Service{deps: d, log: d.Log, tails: map[uint64]*tail{}, results: map[string]prometheus.Counter{}, group: lifecycle.NewGroup(context.Background())}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	exchanges := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "httpctl", Subsystem: "tail", Name: "exchanges_total",
		Help: "Live exchanges that agents sent, by what became of them."}, []string{"result"})
	for _, r := range []string{resultShown, resultOverRate, resultSlow, resultLate} {
		s.results[r] = exchanges.WithLabelValues(r)
	}
	if d.Registry != nil {
		d.Registry.MustRegister(exchanges, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "httpctl", Subsystem: "tail", Name: "tails",
			Help: "Readers that tail live exchanges."}, func() float64 {
			s.mu.Lock()
			defer s.mu.Unlock()
			return float64(len(s.tails))
		}))
	}
	return s
}

// What became of an exchange, as a label.
const (
	resultShown    = "shown"
	resultOverRate = "over_rate"
	resultSlow     = "slow_reader"
	resultLate     = "late" // its tail has ended
)

// Stop ends all tails, and returns when their goroutines are gone.
func (s *Service) Stop(ctx context.Context) error { return s.group.Stop(ctx) }

// Failed gives the error by which a tail's goroutine died, after which there are none.
func (s *Service) Failed() <-chan error { return s.group.Failed() }

// Tail implements the TailService.
func (s *Service) Tail(q *httpctlv1.TailRequest, stream httpctlv1.TailService_TailServer) error {
	ctx := stream.Context()
	if s.group.Context().Err() != nil {
		return status.Error(codes.Unavailable, "the aggregator is stopping")
	}
	t, err := s.begin(ctx, q)
	if err != nil {
		return err
	}
	end := time.NewTimer(t.duration)
	defer end.Stop()
	check := time.NewTicker(checkEvery)
	defer check.Stop()
	sent := make(chan error, 1)
	// It ends when this handler returns, since that ends the stream: also a Send to a reader that accepts nothing.
	s.group.Go("tail: send", func(context.Context) error {
		sent <- t.send(ctx, stream.Send)
		return nil
	})
	reason := "the reader has gone"
	defer func() { s.end(t, reason) }()
	late := make(<-chan time.Time)
	for {
		select {
		case <-s.group.Context().Done():
			reason = "the aggregator is stopping"
			return status.Error(codes.Unavailable, reason)
		case err := <-sent:
			if why := t.ended(); why != "" {
				reason = why
			}
			return err
		case <-end.C:
			t.finish(fmt.Sprintf("it has lasted %s", t.duration))
			late = time.After(lastWait)
		case <-late:
			reason = t.ended()
			return status.Error(codes.DeadlineExceeded, "the time is over, and the reader has accepted nothing for too long")
		case <-check.C:
			if s.deps.Still == nil {
				continue
			}
			if err := s.deps.Still(ctx); err != nil {
				reason = "the reader may not tail any more"
				return err
			}
		}
	}
}

// begin checks a request and asks the agents.
func (s *Service) begin(ctx context.Context, q *httpctlv1.TailRequest) (*tail, error) {
	var columns []match.Column
	for _, f := range q.GetFilter().GetFilters() {
		columns = append(columns, match.Column{Name: f.GetColumn(), Values: f.GetValues()})
	}
	slower := time.Duration(q.GetFilter().GetSlowerThanNs())
	t := &tail{
		hosts: q.GetHosts(), limit: q.GetLimit(), duration: time.Duration(q.GetDurationNs()), perSecond: q.GetPerSecond(),
		wake: make(chan struct{}, 1), from: map[bucket.ID]*host{}, results: s.results, since: time.Now(),
	}
	if t.duration == 0 {
		t.duration = defaultDuration
	}
	if t.perSecond == 0 || t.perSecond > maxPerSecond {
		t.perSecond = maxPerSecond
	}
	_, err := match.New(columns, slower)
	switch {
	case err != nil:
		return nil, status.Error(codes.InvalidArgument, err.Error())
	case t.duration < 0 || t.duration > maxDuration:
		return nil, status.Errorf(codes.InvalidArgument, "a tail of %s: want at most %s", t.duration, maxDuration)
	case len(t.hosts) > maxHosts:
		return nil, status.Errorf(codes.InvalidArgument, "%d hosts: name at most %d, or none for all", len(t.hosts), maxHosts)
	}
	if err := t.look(s.deps.Agents()); err != nil {
		return nil, err
	}
	who := "somebody"
	if s.deps.Who != nil {
		who = security.CleanText(s.deps.Who(ctx))
	}
	t.who = who
	s.mu.Lock()
	if len(s.tails) >= maxTails {
		s.mu.Unlock()
		return nil, status.Errorf(codes.ResourceExhausted, "%d tails are under way, the most that there may be: try again when one has ended", maxTails)
	}
	s.last++
	t.id = s.last
	t.asked = &httpctlv1.Tail{Id: t.id, Filter: q.GetFilter(), Sample: q.GetSample(), PerSecond: t.perSecond, Who: who, SinceUnixNs: t.since.UnixNano()}
	s.tails[t.id] = t
	s.mu.Unlock()
	text := match.Text(columns, slower)
	s.log.Info("live exchanges are tailed", "tail", t.id, "who", who, "filter", security.CleanText(text), "hosts", security.CleanText(strings.Join(t.hosts, ",")),
		"asked", t.summary.GetHostsAsked(), "sample", max(q.GetSample(), 1), "per_second", t.perSecond, "for", t.duration)
	s.deps.Ask(s.of)
	return t, nil
}

// end forgets a tail, and has the agents forget it.
func (s *Service) end(t *tail, reason string) {
	s.mu.Lock()
	delete(s.tails, t.id)
	s.mu.Unlock()
	s.deps.Ask(s.of)
	m := t.now()
	s.log.Info("a tail of live exchanges has ended", "tail", t.id, "who", t.who, "reason", reason, "took", time.Since(t.since).Round(time.Millisecond),
		"matched", m.GetCounts().GetMatched(), "shown", m.GetShown())
}

// of gives what a host is asked for.
func (s *Service) of(id bucket.ID, name string) *httpctlv1.Tails {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := &httpctlv1.Tails{}
	for _, t := range s.tails {
		if t.wants(id, name) {
			t.ask(id, name)
			m.Tails = append(m.Tails, t.asked)
		}
	}
	slices.SortFunc(m.Tails, func(a, b *httpctlv1.Tail) int { return int(a.GetId()) - int(b.GetId()) })
	return m
}

// Take takes what an agent sent on a stream: those streams of a host have numbers of their own. It does not block.
func (s *Service) Take(id bucket.ID, stream uint64, m *httpctlv1.Samples) {
	s.mu.Lock()
	t := s.tails[m.GetTail()]
	s.mu.Unlock()
	if t == nil || !t.take(id, stream, m) {
		s.results[resultLate].Add(float64(len(m.GetSamples()))) // it has ended meanwhile, or was never asked of this host
	}
}

// Gone says that a stream of a host has ended.
func (s *Service) Gone(id bucket.ID, stream uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.tails {
		t.gone(id, stream)
	}
}

// look finds the hosts that a tail is about among those that are connected, and notes which of them show nothing.
func (t *tail) look(agents []Agent) error {
	var there []string
	matched := map[string]bool{}
	for _, a := range agents {
		there = append(there, a.Name)
		if !t.wants(a.Host, a.Name) {
			continue
		}
		matched[a.Name], matched[a.Host.String()] = true, true
		if !a.Allows {
			t.miss(a.Name, "its agent does not allow it (agent.tail.allow), or is an older one")
			continue
		}
		t.summary.HostsAsked++
	}
	for _, name := range t.hosts {
		if matched[name] {
			continue
		}
		if len(there) == 0 {
			return status.Errorf(codes.NotFound, "no host %q is connected: no agent is", name)
		}
		slices.Sort(there)
		more := ""
		if len(there) > maxMissing {
			more = fmt.Sprintf(", and %d more", len(there)-maxMissing)
		}
		return status.Errorf(codes.NotFound, "no host %q is connected; there are: %s%s", name, security.CleanText(strings.Join(there[:min(len(there), maxMissing)], ", ")), more)
	}
	switch {
	case len(agents) == 0:
		return status.Error(codes.FailedPrecondition, "no agent is connected")
	case t.summary.HostsAsked == 0:
		return status.Errorf(codes.FailedPrecondition, "no host lets live exchanges be seen: it takes agent.tail.allow: true on the host, and an agent that knows it (%s)",
			security.CleanText(strings.Join(t.names(), ", ")))
	}
	return nil
}

// wants reports whether a host is one that the tail is about.
func (t *tail) wants(id bucket.ID, name string) bool {
	return len(t.hosts) == 0 || slices.Contains(t.hosts, name) || slices.Contains(t.hosts, id.String())
}

func limitReached(n uint64) string {
	if n == 1 {
		return "1 exchange was shown, as many as were asked for"
	}
	return fmt.Sprintf("%d exchanges were shown, as many as were asked for", n)
}
