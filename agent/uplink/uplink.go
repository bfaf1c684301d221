package uplink

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/lifecycle"
	"github.com/httpctl/httpctl/pkg/security"
)

// Queue is where final buckets wait: a spool.Spool, whose methods say more.
type Queue interface {
	Next(after uint64) (seq uint64, data []byte, err error)
	Settle(stored, expired, refused []uint64) error
	Replace(seq uint64, data []byte) error
	Ready() <-chan struct{}
	Len() int
	Newest() uint64
}

// Deps are what the uplink needs from outside. Queue and Identity are required.
type Deps struct {
	Queue Queue
	// Identity is asked at each connection, since a clock step makes a new incarnation.
	Identity func() Identity
	// Provisional returns the provisional bucket of the open interval with so many rows of each
	// table, or nil. It is called by one goroutine at a time while someone watches. May be nil.
	Provisional func(rows int) *bucket.Bucket
	// OnSettings is called by one goroutine at a time with the aggregator's settings, at each
	// connection and change. It must not block. May be nil.
	OnSettings func(Settings)
	// OnFleet is called like OnSettings with the addresses of monitored hosts, this one too. May be nil.
	OnFleet func(map[bucket.ID][]netip.Addr)
	// Tails shows live exchanges to who asks for them, if it allows it at the time of a connection. May be nil.
	Tails    Tails
	Log      *slog.Logger
	Registry prometheus.Registerer
	// Connecting is called before the first packet of each TCP connection to the aggregator, or before its first
	// byte where no local port is free, by any goroutine. May be nil.
	Connecting func(remote netip.AddrPort, localPort uint16)
	// Dial replaces connecting to the configured address, for an aggregator in the same
	// process; the connection is then in plain text. May be nil.
	Dial func(context.Context) (net.Conn, error)
}

// Uplink is the agent's end of the stream. New is inert; Start runs it.
type Uplink struct {
	deps    Deps
	log     *slog.Logger
	metrics *metrics
	group   *lifecycle.Group

	// single says that one bucket is sent at a time, to find the one that is too large for the
	// aggregator.
	single bool
	// logged is when an absence of the aggregator was last logged; told says that the present
	// one was.
	logged time.Time
	told   bool
	// last is closed by the first Drain: what is refused for now is soon sent again.
	last     chan struct{}
	lastOnce sync.Once

	mu     sync.Mutex
	cfg    Config
	renew  context.CancelFunc // ends the session under way
	status Status
}

// Status tells how the uplink fares.
type Status struct {
	Connected bool
	// Since is when Connected became what it is.
	Since time.Time
	// Err is why the aggregator is away; nil when it is there.
	Err error
	// Version of the aggregator, as it said last.
	Version string
}

// New checks the settings and returns an uplink that is not running.
func New(cfg Config, deps Deps) (*Uplink, error) {
	if deps.Dial != nil {
		cfg.TLS = security.TLS{}
	} else if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if deps.Queue == nil || deps.Identity == nil {
		return nil, errors.New("uplink needs a queue and an identity")
	}
	u := &Uplink{cfg: cfg, deps: deps, log: deps.Log, metrics: newMetrics(deps.Registry), last: make(chan struct{})}
	if u.log == nil {
		u.log = slog.New(slog.DiscardHandler)
	}
	return u, nil
}

// Start begins to deliver. The TLS files are read, so that a mistake in them is told at once;
// that the aggregator is away is no error.
func (u *Uplink) Start(ctx context.Context) error {
	if u.group != nil {
		return errors.New("uplink is running")
	}
	if _, err := security.ClientCredentials(u.config().TLS); err != nil {
		return err
	}
	u.mu.Lock()
	u.status = Status{Since: time.Now()}
	u.mu.Unlock()
	u.group = lifecycle.NewGroup(context.WithoutCancel(ctx)) // ended by Stop
	u.group.Go("uplink", u.run)
	return nil
}

// Configure changes the settings, all but the aggregator's address. Other files of TLS are read, so that a mistake
// in them is told and nothing changes, and the agent connects anew with them: what was not answered is
// sent again, and stored once.
func (u *Uplink) Configure(cfg Config) error {
	before := u.config()
	if u.deps.Dial != nil {
		cfg.TLS = before.TLS
	}
	cfg.Aggregator = before.Aggregator
	if err := cfg.Validate(); err != nil {
		return err
	}
	if _, err := security.ClientCredentials(cfg.TLS); err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.cfg = cfg
	if u.renew != nil && cfg.TLS != before.TLS {
		u.renew()
	}
	return nil
}

// Renew has the agent connect anew, and so introduce itself again.
func (u *Uplink) Renew() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.renew != nil {
		u.renew()
	}
}

func (u *Uplink) config() Config {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.cfg
}

// Stop ends the stream and returns when the goroutines are gone. What was not answered stays in the
// queue; see Drain.
func (u *Uplink) Stop(ctx context.Context) error {
	if u.group == nil {
		return nil
	}
	return u.group.Stop(ctx)
}

// Failed gives the error by which the uplink died. It is nil before Start.
func (u *Uplink) Failed() <-chan error {
	if u.group == nil {
		return nil
	}
	return u.group.Failed()
}

// Status returns how the uplink fares. It is safe for concurrent use.
func (u *Uplink) Status() Status {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.status
}

// Drain waits until every bucket that is in the queue now was answered, the aggregator is found
// away, or ctx ends. It reports whether the queue is empty. Use it between the last Add and
// Stop: from now on the uplink does not wait long before it sends again what was to be sent again.
func (u *Uplink) Drain(ctx context.Context) bool {
	u.lastOnce.Do(func() { close(u.last) })
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if u.deps.Queue.Len() == 0 {
			return true
		}
		if s := u.Status(); !s.Connected && s.Err != nil {
			return false
		}
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
}

// run connects, delivers until the stream breaks, and begins again, until ctx ends.
func (u *Uplink) run(ctx context.Context) error {
	for tries := 0; ; tries++ {
		begin := time.Now()
		sessionCtx, end := context.WithCancel(ctx)
		u.mu.Lock()
		u.renew = end
		u.mu.Unlock()
		err := u.session(sessionCtx)
		renewed := sessionCtx.Err() != nil
		end()
		if ctx.Err() != nil {
			u.metrics.connected.Set(0)
			return nil
		}
		if renewed || errors.Is(err, errTurned) {
			tries = -1
			continue
		}
		if time.Since(begin) > steady {
			tries = 0
		}
		u.away(err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(u.pause(tries)):
		}
	}
}

// pause draws the pause after so many failures in a row: full jitter, from 0 to a bound that
// doubles.
func (u *Uplink) pause(tries int) time.Duration {
	return rand.N(min(u.config().BackoffMax, backoffMin<<min(tries, 20)) + 1)
}

// away notes that the aggregator is not there. Each absence is logged once: when it begins or,
// if that is within logEvery of the one before, when it has lasted that long, so that a
// connection that comes and goes does not fill the log.
func (u *Uplink) away(err error) {
	u.metrics.connected.Set(0)
	u.metrics.disconnects.Inc()
	u.mu.Lock()
	if u.status.Connected || u.status.Err == nil {
		u.status.Connected, u.status.Since = false, time.Now()
		u.told = false
	}
	u.status.Err = err
	since := u.status.Since
	u.mu.Unlock()
	if !u.told && (u.logged.IsZero() || time.Since(u.logged) >= logEvery) {
		u.told, u.logged = true, time.Now()
		u.log.Warn("the aggregator is away; buckets are kept in the spool and sent when it is back",
			"aggregator", u.config().Aggregator, "since", since.Round(time.Millisecond), "err", err, "waiting", u.deps.Queue.Len())
	}
}

// back notes that the aggregator is there; logged if its absence was.
func (u *Uplink) back(version string) {
	u.metrics.connected.Set(1)
	u.mu.Lock()
	was := u.status
	u.status = Status{Connected: true, Since: time.Now(), Version: version}
	u.mu.Unlock()
	switch {
	case was.Err == nil:
		u.log.Info("connected to the aggregator", "aggregator", u.config().Aggregator, "version", security.CleanText(version), "waiting", u.deps.Queue.Len())
	case u.told:
		u.log.Info("the aggregator is back", "aggregator", u.config().Aggregator, "away", time.Since(was.Since).Round(time.Millisecond),
			"version", security.CleanText(version), "waiting", u.deps.Queue.Len())
	}
}

// dial returns a connection that makes one try to connect, and the certificate it will show, if any.
func (u *Uplink) dial() (conn *grpc.ClientConn, shown *x509.Certificate, err error) {
	cfg := u.config()
	files := cfg.TLS.At(cfg.Aggregator)
	creds, err := security.ClientCredentials(files) // read again: certificates are renewed
	if err != nil {
		return nil, nil, err
	}
	if !files.IsZero() {
		if shown, err = files.Leaf(); err != nil {
			return nil, nil, err
		}
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingEvery, Timeout: pingWait, PermitWithoutStream: true}),
		grpc.WithDisableServiceConfig(),
		// Answers are short, and buckets rare: gRPC's 32 KiB would be a good part
		// of what a connection takes.
		grpc.WithReadBufferSize(4 << 10),
	}
	target := ""
	if u.deps.Dial != nil {
		target = "passthrough:aggregator"
		options = append(options, grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return u.deps.Dial(ctx) }))
	} else {
		network, address, err := security.SplitAddress(cfg.Aggregator)
		if err != nil {
			return nil, nil, err
		}
		// Never through an HTTP proxy of the environment: the address is the aggregator's.
		options = append(options, grpc.WithNoProxy())
		if network == "unix" {
			options = append(options, grpc.WithAuthority("localhost"))
			target = "unix:" + address
		} else {
			target = "dns:///" + address
			if u.deps.Connecting != nil {
				options = append(options, grpc.WithContextDialer(Announcing(u.deps.Connecting)))
			}
		}
	}
	conn, err = grpc.NewClient(target, options...)
	return conn, shown, err
}

// tooLarge reports whether a stream ended because a bucket exceeds what the aggregator takes.
// gRPC knows this by text only; the code alone also means other limits.
func tooLarge(err error) bool {
	s, ok := status.FromError(err)
	return ok && s.Code() == codes.ResourceExhausted && containsFold(s.Message(), "larger than max")
}

// explain turns an error of gRPC into one for people.
func explain(err error) error {
	s, ok := status.FromError(err)
	if errors.Is(err, io.EOF) {
		return errors.New("it closed the stream")
	}
	if !ok {
		return err
	}
	text := security.ConnectionReason(s.Message())
	switch s.Code() {
	case codes.Unimplemented:
		return fmt.Errorf("what answers there is no aggregator, or one of another age: %s", text)
	case codes.PermissionDenied, codes.Unauthenticated:
		return fmt.Errorf("the aggregator refuses this agent: %s", text)
	}
	return errors.New(text)
}
