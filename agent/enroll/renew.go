package enroll

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/httpctl/httpctl/pkg/authority"
	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/security"
	httpctlv1 "github.com/httpctl/httpctl/proto/httpctl/v1"
)

const (
	// look is how often the wall clock and the files are looked at while there is nothing to renew.
	look = 10 * time.Second
	// firstPause and mostPause bound the pause after a failed try, which doubles; each is drawn at random up
	// to its bound, so that a fleet does not come all at once.
	firstPause = 10 * time.Second
	mostPause  = 15 * time.Minute
	// endedPause is mostPause once the certificate has ended: the aggregator that comes back is
	// to have its agents soon.
	endedPause = 30 * time.Second
)

// Deps are what a Renewer needs from outside; all may be nil or empty.
type Deps struct {
	// Aggregator is where to renew, host:port; ServerName is what its certificate is to carry if
	// that is not the host of the address.
	Aggregator, ServerName string
	// Dial replaces the network's, for an agent that tells its capture of each connection.
	Dial     func(ctx context.Context, address string) (net.Conn, error)
	Version  string
	Log      *slog.Logger
	Registry prometheus.Registerer
}

// Renewer renews the host's certificate when two thirds of its life are over, with a new key each
// time. New is inert; Run runs it.
type Renewer struct {
	files  Files
	host   bucket.ID
	deps   Deps
	log    *slog.Logger
	until  atomic.Int64 // of the certificate in force, Unix nanoseconds; 0: none was read
	done   prometheus.Counter
	failed prometheus.Counter
}

// NewRenewer returns a Renewer of the files, which are a host's.
func NewRenewer(f Files, host bucket.ID, d Deps) *Renewer {
	r := &Renewer{files: f, host: host, deps: d, log: d.Log}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	r.done = prometheus.NewCounter(prometheus.CounterOpts{Name: "httpctl_enroll_renewed_total", Help: "Times that the certificate was renewed."})
	r.failed = prometheus.NewCounter(prometheus.CounterOpts{Name: "httpctl_enroll_failed_total", Help: "Tries to renew the certificate that failed."})
	if d.Registry != nil {
		d.Registry.MustRegister(r.done, r.failed, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "httpctl_certificate_expiry_seconds", Help: "Time until the enrolled certificate ends, negative afterwards; 0 while none was read.",
		}, func() float64 {
			if at := r.until.Load(); at != 0 {
				return time.Until(time.Unix(0, at)).Seconds()
			}
			return 0
		}))
	}
	return r
}

// Run renews until ctx ends. Nothing that fails ends it: the agent counts and spools without a certificate.
func (r *Renewer) Run(ctx context.Context) error {
	var (
		serial string
		at     time.Time // when to renew this one
		fails  int
		told   bool // that it fails
	)
	for {
		pause := look
		cert, roots, err := r.files.read()
		if err == nil {
			r.until.Store(cert.Leaf.NotAfter.UnixNano())
			if s := cert.Leaf.SerialNumber.String(); s != serial { // also one that httpctl-agent enroll has put there
				serial, fails = s, 0
				at = renewAt(cert.Leaf)
			}
			if now := time.Now(); now.Before(at) {
				pause = min(look, at.Sub(now))
			} else if err = r.renew(ctx, cert, roots); err == nil {
				r.done.Inc()
				if told {
					r.log.Info("the certificate is renewed again")
				}
				told = false
				continue
			}
		}
		if err != nil && ctx.Err() == nil {
			r.failed.Inc()
			if !told {
				told = true
				r.tell(err)
			}
			most := mostPause
			if until := r.until.Load(); until != 0 && time.Now().UnixNano() > until {
				most = endedPause
			}
			pause = rand.N(min(most, firstPause<<min(fails, 20))) + time.Second
			fails++
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// tell logs why the certificate is not renewed, and what to do.
func (r *Renewer) tell(err error) {
	var refused answered
	until := time.Unix(0, r.until.Load())
	switch {
	case errors.As(err, &refused):
		r.log.Error("the aggregator does not renew this host's certificate; what is counted waits in the spool once it has ended", "until", until, "err", err)
	case r.until.Load() == 0:
		r.log.Error("the enrolled certificate cannot be read: enroll this host again, with httpctl-agent enroll and a new token", "err", err)
	default:
		r.log.Warn("the certificate cannot be renewed, and is tried again", "until", until, "err", err)
	}
}

// renewAt is when two thirds of a certificate's life are over, and up to a tenth more.
func renewAt(c *x509.Certificate) time.Time {
	at := authority.RenewAt(c)
	return at.Add(rand.N(c.NotAfter.Sub(at)*3/10 + 1))
}

// renew asks for the next certificate and keeps it.
func (r *Renewer) renew(ctx context.Context, cert tls.Certificate, cas []*x509.Certificate) error {
	host, _, err := net.SplitHostPort(r.deps.Aggregator)
	if err != nil {
		return fmt.Errorf("agent.aggregator: %w", err)
	}
	if r.deps.ServerName != "" {
		host = r.deps.ServerName
	}
	roots := x509.NewCertPool()
	for _, c := range cas {
		roots.AddCert(c)
	}
	key, err := authority.NewKey()
	if err != nil {
		return err
	}
	csr, err := authority.NewRequest(key)
	if err != nil {
		return err
	}
	var answer *httpctlv1.RenewResponse
	ask := func(cfg *tls.Config) error {
		return call(ctx, r.deps.Aggregator, cfg, r.deps.Dial, func(ctx context.Context, c httpctlv1.EnrollServiceClient) (err error) {
			answer, err = c.Renew(ctx, &httpctlv1.RenewRequest{Csr: csr, Version: r.deps.Version})
			return err
		})
	}
	// As a member first: whoever asks for the door of strangers shares its room with them.
	member := authority.Known(roots, host, cert)
	member.ServerName = host
	err = ask(member)
	var said answered
	var other untrusted
	if err != nil && !errors.As(err, &said) && !errors.As(err, &other) { // not let in: the certificate may have ended
		err = ask(authority.Known(roots, host, cert))
	}
	if err != nil {
		return err
	}
	leaf, err := check(answer.GetCertificate(), answer.GetAuthorities(), key, r.host)
	if err != nil {
		return fmt.Errorf("the aggregator's answer cannot be used: %w", err)
	}
	pair, err := authority.EncodePair(key, leaf.Raw)
	if err == nil {
		err = r.files.write(pair, answer.GetAuthorities(), "", authority.Owner{})
	}
	if err != nil {
		return fmt.Errorf("keep the renewed certificate: %w", err)
	}
	r.until.Store(leaf.NotAfter.UnixNano())
	r.log.Info("the certificate is renewed", "identity", security.PeerIdentity(leaf), "until", leaf.NotAfter)
	return nil
}
