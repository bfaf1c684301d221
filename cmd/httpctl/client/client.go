// Package client asks an aggregator over a connection, and makes the calls that only the command line makes.
package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/httpctl/httpctl/pkg/answer"
	"github.com/httpctl/httpctl/pkg/ask"
	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/security"
	pb "github.com/httpctl/httpctl/proto/httpctl/v1"
)

// UnreachableError says that no aggregator answered.
type UnreachableError struct {
	// Address is what was dialled.
	Address string
	// Reason is the last step that failed.
	Reason string
	// Hidden is a data directory that was not searched for a socket, as in Options.
	Hidden string
	// Slow says that the aggregator is there, and that the time for its answer was over.
	Slow bool
}

// Error implements error. It says what was tried, why it failed and what to do.
func (e *UnreachableError) Error() string {
	if e.Slow {
		return fmt.Sprintf("the aggregator at %s is there: %s\n", e.Address, e.Reason) +
			"What has no roll-ups yet, as after an absence, it reads bucket by bucket. Ask again, as it keeps what it has read, or for less time."
	}
	text := fmt.Sprintf("cannot reach the aggregator at %s: %s\n", e.Address, e.Reason)
	if e.Hidden != "" {
		text += fmt.Sprintf("One may run on %s, which this user may not search: try again with sudo, or as a member of its group.\n", e.Hidden)
	}
	if strings.Contains(e.Reason, "connect: connection refused") || strings.Contains(e.Reason, "connect: no such file") {
		text += "Start one (httpctl-aggregator, or sudo httpctl up -i IFACE), or name"
	} else { // something is there
		text += "Name"
	}
	return text + " another with --aggregator ADDR or HTTPCTL_AGGREGATOR."
}

// ErrRefused is wrapped by errors about a question that the aggregator
// understood and will not answer, such as an unknown dimension or a filter that a list does not have.
var ErrRefused = errors.New("refused")

type refused struct{ message string }

func (r refused) Error() string        { return r.message }
func (r refused) Is(target error) bool { return target == ErrRefused }

// Options say how to reach an aggregator.
type Options struct {
	// Address is host:port or unix:path.
	Address string
	// TLS names the files of mutual TLS, for host:port. Without it, addresses
	// that are not local are refused.
	TLS security.TLS
	// Token is shown with calls that change something. New refuses it where it could be read on the way, or
	// is of no use: it is for Unix sockets, and loopback addresses without TLS.
	Token string
	// Hidden is a data directory in which a socket could be that this user
	// cannot see; "" if all could be searched.
	Hidden string
	// Timeout bounds each call; 0 is 10 s. First bounds those before Hurry is called; 0 is Timeout.
	Timeout, First time.Duration
	// Waiting, if not nil, is called when an answer takes longer than a twentieth of its time, for the first that does.
	Waiting func()
	// Dial replaces the network, for tests; nil is the network.
	Dial func(ctx context.Context, address string) (net.Conn, error)
}

// Client asks one aggregator. It is safe for concurrent use.
type Client struct {
	ask.Reader
	address string
	hidden  string
	token   string
	timeout time.Duration
	first   time.Duration
	hurries atomic.Bool
	waiting func()
	conn    *grpc.ClientConn
	query   pb.QueryServiceClient
}

// New checks the address and returns a client, which connects at its first
// call, and again after the aggregator was away.
func New(o Options) (*Client, error) {
	network, address, err := security.SplitAddress(o.Address)
	if err != nil {
		return nil, fmt.Errorf("--aggregator: %w", err)
	}
	target := "dns:///" + address
	if network == "unix" {
		path, err := filepath.Abs(address)
		if err != nil {
			return nil, fmt.Errorf("--aggregator %s: %w", o.Address, err)
		}
		target = "unix://" + path
		o.TLS = security.TLS{}
	} else if o.TLS.IsZero() && !security.IsLocal(o.Address) {
		return nil, fmt.Errorf("--aggregator %s: plain text is for loopback addresses and Unix sockets only: give --tls-ca, --tls-cert and --tls-key", o.Address)
	}
	if o.Token != "" && network != "unix" && !(o.TLS.IsZero() && security.IsLoopback(o.Address)) {
		return nil, fmt.Errorf("--aggregator %s: the token is for Unix sockets, and for loopback addresses such as 127.0.0.1 without TLS; "+
			"with TLS, the certificate says what one may do", o.Address)
	}
	creds, err := security.ClientCredentials(o.TLS)
	if err != nil {
		return nil, err
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithNoProxy(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64 << 20)),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 200 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 5 * time.Second},
			MinConnectTimeout: 5 * time.Second,
		}),
	}
	if o.Dial != nil {
		target = "passthrough:" + o.Address
		options = append(options, grpc.WithContextDialer(o.Dial))
	}
	conn, err := grpc.NewClient(target, options...)
	if err != nil {
		return nil, fmt.Errorf("--aggregator %s: %w", o.Address, err)
	}
	timeout := o.Timeout
	if timeout == 0 {
		timeout = 10 * time.Second
	}
	c := &Client{address: o.Address, hidden: o.Hidden, token: o.Token, timeout: timeout, first: cmp.Or(o.First, timeout), waiting: func() {}, conn: conn, query: pb.NewQueryServiceClient(conn)}
	if o.Waiting != nil {
		c.waiting = sync.OnceFunc(o.Waiting)
	}
	c.Reader.Service = remote{c}
	return c, nil
}

// Close drops the connection.
func (c *Client) Close() error { return c.conn.Close() }

// Address returns the address that the client dials.
func (c *Client) Address() string { return c.address }

// Hurry says that there is an answer to be shown while the next ones come: these have Timeout from now on.
func (c *Client) Hurry() { c.hurries.Store(true) }

// call runs one call with the client's timeout and turns its error around.
func call[Q, A any](ctx context.Context, c *Client, f func(context.Context, *Q, ...grpc.CallOption) (*A, error), q *Q) (*A, error) {
	timeout := c.timeout
	if !c.hurries.Load() {
		timeout = c.first
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	waiting := time.AfterFunc(timeout/20, c.waiting)
	answer, err := f(ctx, q)
	if !waiting.Stop() {
		c.waiting() // which was called, and is waited for
	}
	if err == nil {
		return answer, nil
	}
	return nil, c.turned(ctx, err, timeout)
}

// turned turns an error of gRPC around, of a call that had so much time.
func (c *Client) turned(ctx context.Context, err error, timeout time.Duration) error {
	s := status.Convert(err)
	switch s.Code() {
	case codes.Unavailable:
		return &UnreachableError{Address: c.address, Reason: security.ConnectionReason(s.Message()), Hidden: c.hidden}
	case codes.DeadlineExceeded:
		return &UnreachableError{Address: c.address, Reason: "no answer within " + config.FormatDuration(timeout), Hidden: c.hidden,
			Slow: c.conn.GetState() == connectivity.Ready}
	case codes.Canceled:
		if ctx.Err() != nil {
			return ctx.Err()
		}
	case codes.PermissionDenied, codes.FailedPrecondition, codes.ResourceExhausted:
		return fmt.Errorf("the aggregator at %s refuses: %s", c.address, s.Message())
	case codes.InvalidArgument, codes.NotFound:
		return refused{s.Message()}
	case codes.Unimplemented:
		return fmt.Errorf("the aggregator at %s is older than this httpctl: %s", c.address, s.Message())
	}
	return fmt.Errorf("the aggregator at %s failed: %s", c.address, s.Message())
}

// changing adds the token, if there is one, to a call that changes something.
func (c *Client) changing(ctx context.Context) context.Context {
	if c.token == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, security.TokenHeader, c.token)
}

// Question and Filter are what is asked for.
type (
	Question = ask.Question
	Filter   = ask.Filter
)

// remote is the aggregator's query service, over the connection.
type remote struct{ c *Client }

var _ ask.Service = remote{}

func (r remote) GetStatus(ctx context.Context, q *pb.GetStatusRequest) (*pb.GetStatusResponse, error) {
	return call(ctx, r.c, r.c.query.GetStatus, q)
}

func (r remote) GetTop(ctx context.Context, q *pb.GetTopRequest) (*pb.GetTopResponse, error) {
	return call(ctx, r.c, r.c.query.GetTop, q)
}

func (r remote) GetDashboard(ctx context.Context, q *pb.GetDashboardRequest) (*pb.GetDashboardResponse, error) {
	return call(ctx, r.c, r.c.query.GetDashboard, q)
}

func (r remote) GetSeries(ctx context.Context, q *pb.GetSeriesRequest) (*pb.GetSeriesResponse, error) {
	return call(ctx, r.c, r.c.query.GetSeries, q)
}

func (r remote) Explain(ctx context.Context, q *pb.ExplainRequest) (*pb.ExplainResponse, error) {
	return call(ctx, r.c, r.c.query.Explain, q)
}

func (r remote) ListAlerts(ctx context.Context, q *pb.ListAlertsRequest) (*pb.ListAlertsResponse, error) {
	return call(ctx, r.c, r.c.query.ListAlerts, q)
}

func (r remote) ListHosts(ctx context.Context, q *pb.ListHostsRequest) (*pb.ListHostsResponse, error) {
	return call(ctx, r.c, r.c.query.ListHosts, q)
}

func (r remote) ListDimensions(ctx context.Context, q *pb.ListDimensionsRequest) (*pb.ListDimensionsResponse, error) {
	return call(ctx, r.c, r.c.query.ListDimensions, q)
}

func (r remote) GetBaseline(ctx context.Context, q *pb.GetBaselineRequest) (*pb.GetBaselineResponse, error) {
	return call(ctx, r.c, r.c.query.GetBaseline, q)
}

// Relearn forgets the baseline and returns when the new one will be learned.
func (c *Client) Relearn(ctx context.Context) (time.Time, error) {
	a, err := call(c.changing(ctx), c, c.query.Relearn, &pb.RelearnRequest{})
	if err != nil {
		return time.Time{}, err
	}
	return answer.Moment(a.GetLearningEndUnixNs()), nil
}
