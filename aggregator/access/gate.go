package access

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/lifecycle"
	"github.com/httpctl/httpctl/pkg/security"
)

// Deps are what a Gate needs from outside.
type Deps struct {
	Log      *slog.Logger
	Registry prometheus.Registerer
	// UID is the user of this program.
	UID uint32
	// Token is what whoever changes something over loopback has to show, and TokenFile where it stands.
	Token     security.Token
	TokenFile string
	// TrustDomain is that of the aggregator's own certificate, if `httpctl ca` has made it; else "", and no
	// identity has a role by itself.
	TrustDomain string
	// Doors, if set, end connections whose calls are refused again and again.
	Doors *Doors
}

// Gate lets calls through or refuses them. It is safe for concurrent use.
type Gate struct {
	log       *slog.Logger
	uid       uint32
	token     security.Token
	tokenFile string
	domain    string
	entries   atomic.Pointer[[]entry]
	metrics   *metrics
	refusals  refusals
	faults    refusals // by method
	busy      busy
	doors     *Doors
}

// maxHeader bounds the header of a call, in bytes.
const maxHeader = 16 << 10

// entry is one of the setting's.
type entry struct {
	pattern
	role Role
	host bucket.ID
}

// New returns a Gate. roles must be valid.
func New(roles Roles, d Deps) *Gate {
	g := &Gate{
		log: d.Log, uid: d.UID, token: d.Token, tokenFile: d.TokenFile, domain: d.TrustDomain,
		doors: d.Doors, metrics: newMetrics(d.Registry),
	}
	if g.log == nil {
		g.log = slog.New(slog.DiscardHandler)
	}
	g.SetRoles(roles)
	return g
}

// SetRoles changes which certificates may do what, for calls from now on. roles must be valid.
func (g *Gate) SetRoles(roles Roles) {
	var entries []entry
	for _, l := range roles.lists() {
		for _, text := range l.entries {
			if p, host, err := parseEntry(text); err == nil {
				entries = append(entries, entry{p, l.role, host})
			}
		}
	}
	g.entries.Store(&entries)
}

// ServerOptions returns what a gRPC server must be made with, so that each call passes the gate.
func (g *Gate) ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.StatsHandler(ended{}),
		// gRPC lets a header grow to 16 MiB before it asks anybody; ours are of some hundred bytes.
		grpc.MaxHeaderListSize(maxHeader),
		// Before anything of a message is read, or a goroutine runs for it.
		grpc.InTapHandle(g.tap),
		grpc.ChainUnaryInterceptor(func(ctx context.Context, q any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			ctx, err := g.enter(ctx, info.FullMethod)
			if err != nil {
				return nil, err
			}
			var answer any
			err = g.guard(info.FullMethod, func() (err error) { answer, err = next(ctx, q); return err })
			return answer, err
		}),
		grpc.ChainStreamInterceptor(func(srv any, s grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			ctx, err := g.enter(s.Context(), info.FullMethod)
			if err != nil {
				return err
			}
			return g.guard(info.FullMethod, func() error { return next(srv, stream{s, ctx}) })
		}),
	}
}

// guard answers a call. A fault of this program costs the call, and is counted and logged.
func (g *Gate) guard(method string, answer func() error) error {
	err := lifecycle.Guard(answer)
	if !errors.Is(err, lifecycle.ErrPanic) {
		return err
	}
	g.metrics.faults.Inc()
	if held, ok := g.faults.pass(time.Now(), method); ok {
		g.log.Error("answering a call failed for a fault of this program: please report it, with this line", "method", path.Base(method), "err", err, "others_since_last_logged", held)
	}
	return status.Error(codes.Internal, "the aggregator failed to answer: please report it, with what it has logged")
}

// stream is a stream whose context says who is at its other end.
type stream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s stream) Context() context.Context { return s.ctx }

type peerKey struct{}

// From returns who calls, for a call that has passed the gate.
func From(ctx context.Context) (Peer, bool) {
	p, ok := ctx.Value(peerKey{}).(Peer)
	return p, ok
}

// tap checks a call of which the header has come.
func (g *Gate) tap(ctx context.Context, info *tap.Info) (context.Context, error) {
	ctx, err := g.enter(ctx, info.FullMethodName)
	if err == nil {
		p, _ := From(ctx)
		if most := g.busy.enter(ctx, &p); most > 0 {
			err = g.refuse(&p, info.FullMethodName, tooBusy, fmt.Sprintf("%d calls of %s are under way, the most that there may be: try again later", most, p.Who))
		}
	}
	if err != nil && g.doors != nil {
		if p, ok := peer.FromContext(ctx); ok {
			g.doors.strike(p)
		}
	}
	return ctx, err
}

// enter checks a call.
func (g *Gate) enter(ctx context.Context, method string) (context.Context, error) {
	p, passed := From(ctx)
	if !passed {
		p = g.peerOf(ctx)
	}
	need, known := methods[method]
	if !known {
		return ctx, g.refuse(&p, method, unknownMethod, "this aggregator lets nobody call "+method)
	}
	if !p.Roles.Allows(need) {
		reason, text := g.missing(&p, path.Base(method), need)
		return ctx, g.refuse(&p, method, reason, text)
	}
	return context.WithValue(ctx, peerKey{}, p), nil
}

// Still returns the error of gRPC with which a call that has passed the gate would be refused now: roles change while a long
// one goes on.
func (g *Gate) Still(ctx context.Context, method string) error {
	p, need := g.peerOf(ctx), methods[method]
	if p.Roles.Allows(need) {
		return nil
	}
	reason, text := g.missing(&p, path.Base(method), need)
	return g.refuse(&p, method, reason, text)
}

// missing says what a peer lacks, and what to do.
func (g *Gate) missing(p *Peer, method string, need Role) (reason, text string) {
	text = fmt.Sprintf("%s needs the role %s, ", method, need)
	switch {
	case p.token == wrongToken:
		return badToken, text + fmt.Sprintf("and the token is not this aggregator's, which makes a new one at each start: it is in %s", g.tokenFile)
	case p.way == socket:
		return lacksRole, text + fmt.Sprintf("and %s is not root nor the aggregator's user (try sudo); or show the token in %s with --token-file", p.Who, g.tokenFile)
	case p.way == loopback:
		return noTokenShown, text + fmt.Sprintf("which over loopback takes the token in %s: run httpctl as root or as the aggregator's user, which find it, or give --token-file FILE", g.tokenFile)
	case p.way == certificate && p.Roles == 0:
		return noRole, text + fmt.Sprintf("and %s has none: show one that httpctl ca has made for it, or name it in the aggregator's setting aggregator.roles.%s", p.Who, need)
	case p.way == certificate:
		return lacksRole, text + fmt.Sprintf("and %s is %s: show another one, or name it in the aggregator's setting aggregator.roles.%s", p.Who, p.Roles, need)
	}
	return noRole, text + "and " + p.Who + " has none"
}

// refuse counts and logs a refusal, and returns the error that tells the peer.
func (g *Gate) refuse(p *Peer, method, reason, text string) error {
	g.metrics.refused.WithLabelValues(reason).Inc()
	if held, ok := g.refusals.pass(time.Now(), reason+" "+method+" "+p.Who); ok {
		g.log.Warn("a call is refused", "who", security.CleanText(p.Who), "peer", security.CleanText(p.Address), "method", security.CleanText(method),
			"reason", security.CleanText(text), "others_since_last_logged", held)
	}
	code := codes.PermissionDenied
	if reason == tooBusy {
		code = codes.Unavailable
	}
	return status.Error(code, security.CleanText(text))
}
