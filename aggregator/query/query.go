// Package query answers readers: the gRPC QueryService over the store, the
// provisional buckets of connected agents, and the judge's verdicts. It decides
// nothing and changes nothing, but for Relearn, which it passes on.
package query

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/config"
	httpctlv1 "github.com/httpctl/httpctl/proto/httpctl/v1"
)

// Defaults and limits of questions.
const (
	// DefaultRange is how far back totals and top lists reach when the reader
	// does not say: far enough to see a trend, near enough that an incident of
	// now is not drowned by yesterday. Alerts reach back max_retention_length.
	DefaultRange = time.Hour
	// HistoryIntervals is the length of the dashboard's rate history: ten
	// minutes at the default width, the columns of a narrow terminal.
	HistoryIntervals = 60

	maxLimit       = 10_000
	maxFilters     = 16
	maxValues      = 64   // of one filter
	maxValueLength = 4096 // bytes; the largest max_str_length is less
	// maxSkew is how far ahead of this clock a range without end reaches, so
	// that a host whose clock runs ahead is seen (DESIGN section 6).
	maxSkew = 5 * time.Minute
)

// Deps are what the service needs. Store, Judge, Now and Settings must be set.
type Deps struct {
	Store store.Store
	Judge Judge
	// Live is nil where no agents connect.
	Live Live
	// Now is time.Now but in tests.
	Now func() time.Time
	// Settings returns those in force.
	Settings func() config.Settings
	// Version of this program.
	Version string
	// Warnings, if set, returns what an operator should know; it is shown above the
	// dashboard.
	Warnings func() []string
}

// Live is what the ingest side knows of connected agents.
type Live interface {
	// Provisional returns the newest provisional bucket of each host. It is
	// gone from here before its final one is appended to the store, and no other of its name
	// follows. So whoever asks the store first and then Provisional counts no
	// request twice: what is here now was not in the store then. A
	// bucket that becomes final in between is missed in that answer. They are not changed any more
	// and may be read after the call.
	Provisional() []Provisional
	// Agents lists the connected agents.
	Agents() []Agent
	// Clones names the agents of each host id that several have.
	Clones() map[bucket.ID][]string
	// Watch asks agents for provisional buckets with that many rows, until ttl has
	// passed without another call.
	Watch(ttl time.Duration, rows int)
}

// Provisional is a provisional bucket and when it arrived, by the aggregator's clock.
type Provisional struct {
	*bucket.Bucket
	Received time.Time
}

// Agent is a connected agent.
type Agent struct {
	Host    bucket.ID
	Name    string
	Version string
	// Backlog counts the closed buckets that wait in its spool.
	Backlog uint64
	// ObservedFrom is the earliest time (nanoseconds) since when the buckets that it has sent on this connection say that
	// it watches, 0 before the first of them.
	ObservedFrom int64
}

// Service implements httpctlv1.QueryServiceServer. It is safe for concurrent use
// and has no goroutines of its own.
type Service struct {
	httpctlv1.UnimplementedQueryServiceServer
	Deps
	slots *slots

	// Schemas change when a statistic is added, so what was found is kept for a moment.
	mu          sync.Mutex
	schemas     []bucket.Schema
	schemaAt    time.Time
	schemaAsked bool // since Refresh was called

	// absent is whether the last dashboard of all hosts took what hosts counted of others that were away.
	absent atomic.Bool
}

var _ httpctlv1.QueryServiceServer = (*Service)(nil)

// New returns a Service; it starts nothing.
func New(d Deps) (*Service, error) {
	if d.Store == nil || d.Judge == nil || d.Now == nil || d.Settings == nil {
		return nil, errors.New("query service: store, judge, clock and settings must be given")
	}
	if d.Live == nil {
		d.Live = nobody{}
	}
	return &Service{Deps: d, slots: newSlots()}, nil
}

// nobody is Live without agents.
type nobody struct{}

func (nobody) Provisional() []Provisional     { return nil }
func (nobody) Agents() []Agent                { return nil }
func (nobody) Clones() map[bucket.ID][]string { return nil }
func (nobody) Watch(time.Duration, int)       {}

// enter waits for a slot; leave must be called when it returns nil.
func (s *Service) enter(ctx context.Context) (leave func(), err error) { return s.slots.enter(ctx) }

// invalid is the error of a question that cannot be answered as it is put.
func invalid(format string, args ...any) error {
	return status.Errorf(codes.InvalidArgument, format, args...)
}

// failed turns an error of the store into one for the reader.
func failed(what string, err error) error {
	if _, ok := status.FromError(err); ok {
		return err
	}
	code := codes.Internal
	switch {
	case errors.Is(err, context.Canceled):
		code = codes.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		code = codes.DeadlineExceeded
	case errors.Is(err, store.ErrCorrupt):
		code = codes.DataLoss
	case errors.Is(err, store.ErrColumn):
		code = codes.InvalidArgument
	}
	return status.Error(code, fmt.Sprintf("%s: %v", what, err))
}
