package enroll

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/httpctl/httpctl/pkg/authority"
	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/security"
	httpctlv1 "github.com/httpctl/httpctl/proto/httpctl/v1"
)

const (
	// maxRevoked bounds the identities that are revoked at a time: at some 200 bytes each, 20 MB.
	maxRevoked = 100_000
	// maxIdentity bounds an identity, as the gate does.
	maxIdentity = 2048
)

// Load reads what is revoked. It is called once, before anything is served.
func (s *Service) Load(ctx context.Context) error {
	revoked := map[string]revocation{}
	err := each(ctx, s.deps.Store, revokedKeys, func(_ string, r revocation, _ uint64) error {
		revoked[r.Identity] = r
		return nil
	})
	if err != nil {
		return fmt.Errorf("read what is revoked: %w", err)
	}
	s.mu.Lock()
	s.revoked = revoked
	s.mu.Unlock()
	return nil
}

// check says whether a certificate is revoked: the error that tells its holder, if so.
func (s *Service) check(c *x509.Certificate) error {
	identity := security.PeerIdentity(c)
	s.mu.Lock()
	r, ok := s.revoked[identity]
	s.mu.Unlock()
	if !ok || r.From != 0 && c.NotBefore.Unix() >= r.From {
		return nil
	}
	return status.Errorf(codes.PermissionDenied, "the certificate of %s was revoked at %s", security.CleanText(identity), moment(r.Revoked).Format(time.RFC3339))
}

// Verify refuses connections with a revoked certificate. It is for the handshake.
func (s *Service) Verify(c tls.ConnectionState) error {
	if len(c.PeerCertificates) == 0 {
		return nil
	}
	err := s.check(c.PeerCertificates[0])
	if err != nil {
		s.metrics.refused.WithLabelValues(revoked).Inc()
		s.warnEvery(time.Hour, revoked+" "+security.PeerIdentity(c.PeerCertificates[0]), "a connection with a revoked certificate is refused",
			"identity", security.CleanText(security.PeerIdentity(c.PeerCertificates[0])))
	}
	return err
}

// open is a call under way with a certificate.
type open struct {
	cert *x509.Certificate
	end  context.CancelCauseFunc
}

// ServerOptions returns what a gRPC server must be made with, so that what is open ends with its certificate:
// when that is revoked, and when its time is over.
func (s *Service) ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(func(ctx context.Context, q any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			ctx, leave, err := s.Enter(ctx)
			if err != nil {
				return nil, err
			}
			defer leave()
			return next(ctx, q)
		}),
		grpc.ChainStreamInterceptor(func(srv any, g grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			ctx, leave, err := s.Enter(g.Context())
			if err != nil {
				return err
			}
			defer leave()
			return next(srv, watched{g, ctx})
		}),
	}
}

// watched is a stream whose context ends with its certificate.
type watched struct {
	grpc.ServerStream
	ctx context.Context
}

func (w watched) Context() context.Context { return w.ctx }

// Enter notes a call with a verified certificate, and returns the context that ends with it. Calls without
// one are not its concern. gRPC's pass it by [Service.ServerOptions].
func (s *Service) Enter(ctx context.Context) (_ context.Context, leave func(), err error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return ctx, func() {}, nil
	}
	t, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(t.State.VerifiedChains) == 0 {
		return ctx, func() {}, nil
	}
	cert := t.State.VerifiedChains[0][0]
	left := cert.NotAfter.Sub(s.now())
	if left <= 0 {
		return ctx, nil, errOver
	}
	ctx, end := context.WithCancelCause(ctx)
	o := &open{cert, end}
	// Noted before it is checked: a revocation in between ends it.
	s.mu.Lock()
	s.open[o] = struct{}{}
	s.mu.Unlock()
	timer := time.AfterFunc(left, func() {
		s.metrics.ended.WithLabelValues(over).Inc()
		end(errOver)
	})
	leave = func() {
		timer.Stop()
		s.mu.Lock()
		delete(s.open, o)
		s.mu.Unlock()
		end(nil)
	}
	if err := s.check(cert); err != nil {
		leave()
		return ctx, nil, err
	}
	return ctx, leave, nil
}

// errOver ends what is open with a certificate whose time is over. An agent that has renewed it comes again at once.
var errOver = status.Error(codes.Unavailable, "the certificate with which this connection was opened has ended")

// drop ends what is open with revoked certificates, and returns how many that were.
func (s *Service) drop() (ended int) {
	s.mu.Lock()
	all := make([]*open, 0, len(s.open))
	for o := range s.open {
		all = append(all, o)
	}
	s.mu.Unlock()
	for _, o := range all {
		if err := s.check(o.cert); err != nil {
			o.end(err)
			ended++
		}
	}
	s.metrics.ended.WithLabelValues(revoked).Add(float64(ended))
	return ended
}

// Revoke implements the EnrollService.
func (s *Service) Revoke(ctx context.Context, q *httpctlv1.RevokeRequest) (*httpctlv1.RevokeResponse, error) {
	s.issuing.Lock() // no certificate is made meanwhile
	defer s.issuing.Unlock()
	identity, err := s.named(ctx, q)
	if err != nil {
		return nil, err
	}
	key := revokedKey(identity)
	_, version, known, err := read[revocation](ctx, s.deps.Store, key)
	if err != nil {
		return nil, status.Errorf(codes.Unavailable, "what is revoked cannot be looked up: %v", err)
	}
	if q.GetUndo() {
		if !known {
			return nil, status.Errorf(codes.NotFound, "the certificate of %s is not revoked", security.CleanText(identity))
		}
		if _, err := s.deps.Store.CompareAndSwap(ctx, key, version, nil); err != nil {
			return nil, status.Errorf(codes.Unavailable, "it cannot be noted: %v", err)
		}
		s.mu.Lock()
		delete(s.revoked, identity)
		s.mu.Unlock()
		s.log.Warn("a certificate is accepted again", "identity", security.CleanText(identity), "peer", callerOf(ctx))
		return &httpctlv1.RevokeResponse{Identity: identity}, nil
	}
	s.mu.Lock()
	full := len(s.revoked) >= maxRevoked && !known
	s.mu.Unlock()
	if full {
		return nil, status.Errorf(codes.ResourceExhausted, "%d certificates are revoked, the most there may be: make a new authority, or accept some again", maxRevoked)
	}
	if err := s.endTokensOf(ctx, identity); err != nil {
		return nil, status.Errorf(codes.Unavailable, "the host's tokens cannot be ended: %v", err)
	}
	r := revocation{Identity: identity, Revoked: s.now().UnixNano()}
	if err := s.note(ctx, key, version, r); err != nil {
		return nil, status.Errorf(codes.Unavailable, "it cannot be noted: %v", err)
	}
	ended := s.drop()
	s.log.Warn("a certificate is revoked", "identity", security.CleanText(identity), "ended", ended, "peer", callerOf(ctx))
	return &httpctlv1.RevokeResponse{Identity: identity, Ended: uint32(ended)}, nil
}

// endTokensOf ends the tokens that were made for the host of an identity: one that was made before it is
// revoked must not let it in again.
func (s *Service) endTokensOf(ctx context.Context, identity string) error {
	return each(ctx, s.deps.Store, tokenKeys, func(id string, t token, version uint64) error {
		if t.Host == "" || !strings.HasSuffix(identity, "/"+string(authority.Agent)+"/"+t.Host) {
			return nil
		}
		_, err := s.deps.Store.CompareAndSwap(ctx, tokenKeys+id, version, nil)
		return err
	})
}

// note keeps a revocation, on disk first.
func (s *Service) note(ctx context.Context, key string, version uint64, r revocation) error {
	if err := write(ctx, s.deps.Store, key, version, r); err != nil {
		return err
	}
	s.mu.Lock()
	s.revoked[r.Identity] = r
	s.mu.Unlock()
	return nil
}

// named finds the identity that a request means.
func (s *Service) named(ctx context.Context, q *httpctlv1.RevokeRequest) (string, error) {
	invalid := func(format string, args ...any) (string, error) {
		return "", status.Errorf(codes.InvalidArgument, format, args...)
	}
	if identity := q.GetIdentity(); identity != "" {
		if len(identity) > maxIdentity || q.GetWho() != "" {
			return invalid("want one identity, of at most %d bytes", maxIdentity)
		}
		return identity, nil
	}
	who := q.GetWho()
	if who == "" || len(who) > maxIdentity {
		return invalid("whose certificate? Name a host, ROLE/NAME, or an identity")
	}
	if strings.Contains(who, "://") {
		return who, nil
	}
	domain := ""
	if s.deps.Own != nil {
		domain = s.deps.Own.TrustDomain()
	}
	if role, name, ok := strings.Cut(who, "/"); ok {
		if domain == "" {
			return invalid("this aggregator has no authority of its own, so %s names none of its certificates: name the identity", security.CleanText(who))
		}
		identity, err := authority.NewIdentity(domain, authority.Role(role), name)
		if err != nil {
			return invalid("%v", err)
		}
		return identity, nil
	}
	found, err := s.ofHost(ctx, who, domain)
	if err != nil {
		return "", err
	}
	switch len(found) {
	case 0:
		return "", status.Errorf(codes.NotFound, "there is no host %s with a certificate: name it by its id (httpctl hosts -o wide), or name the identity", security.CleanText(who))
	case 1:
		return found[0], nil
	}
	return invalid("%d hosts are called %s: name one by its id or identity: %s", len(found), security.CleanText(who), security.CleanText(strings.Join(found[:min(len(found), 20)], ", ")))
}

// ofHost returns the identities of the hosts with an id or name.
func (s *Service) ofHost(ctx context.Context, who, domain string) (found []string, err error) {
	id, notAnID := bucket.ParseID(who)
	if domain != "" {
		if notAnID == nil { // also one that never enrolled: it is not to
			identity, err := authority.NewIdentity(domain, authority.Agent, id.String())
			return []string{identity}, err
		}
		if err := each(ctx, s.deps.Store, hostKeys, func(host string, h host, _ uint64) error {
			if h.Name != who {
				return nil
			}
			identity, err := authority.NewIdentity(domain, authority.Agent, host)
			found = append(found, identity)
			return err
		}); err != nil {
			return nil, status.Errorf(codes.Unavailable, "the hosts cannot be looked up: %v", err)
		}
	}
	if s.deps.Connected != nil {
		for _, c := range s.deps.Connected() {
			if c.Identity != "" && (c.Name == who || notAnID == nil && c.Host == id) && !slices.Contains(found, c.Identity) {
				found = append(found, c.Identity)
			}
		}
	}
	return found, nil
}

// ListCertificates implements the EnrollService.
func (s *Service) ListCertificates(ctx context.Context, _ *httpctlv1.ListCertificatesRequest) (*httpctlv1.ListCertificatesResponse, error) {
	domain := ""
	if s.deps.Own != nil {
		domain = s.deps.Own.TrustDomain()
	}
	s.mu.Lock()
	revokedAt := map[string]int64{}
	for identity, r := range s.revoked {
		if r.From == 0 {
			revokedAt[identity] = r.Revoked
		}
	}
	s.mu.Unlock()
	a := &httpctlv1.ListCertificatesResponse{}
	err := each(ctx, s.deps.Store, hostKeys, func(id string, h host, _ uint64) error {
		identity, err := authority.NewIdentity(cmp.Or(domain, authority.DefaultTrustDomain), authority.Agent, id)
		if err != nil {
			return err
		}
		a.Certificates = append(a.Certificates, &httpctlv1.CertificateInfo{Identity: identity, HostName: h.Name, EnrolledUnixNs: h.Enrolled, UntilUnixNs: h.Until, RevokedUnixNs: revokedAt[identity]})
		delete(revokedAt, identity)
		return nil
	})
	if err != nil {
		return nil, status.Errorf(codes.Unavailable, "the hosts cannot be looked up: %v", err)
	}
	for identity, at := range revokedAt {
		a.Certificates = append(a.Certificates, &httpctlv1.CertificateInfo{Identity: identity, RevokedUnixNs: at})
	}
	slices.SortFunc(a.Certificates, func(x, y *httpctlv1.CertificateInfo) int {
		return cmp.Or(cmp.Compare(x.HostName, y.HostName), cmp.Compare(x.Identity, y.Identity))
	})
	return a, nil
}

// readmit lets a host that was revoked in again, from a certificate on. The older ones stay refused.
func (s *Service) readmit(ctx context.Context, c *x509.Certificate) error {
	key := revokedKey(security.PeerIdentity(c))
	r, version, known, err := read[revocation](ctx, s.deps.Store, key)
	if err != nil || !known {
		return err
	}
	r.From = c.NotBefore.Unix()
	s.log.Warn("a host that was revoked is let in again", "identity", security.CleanText(r.Identity))
	return s.note(ctx, key, version, r)
}

// revokedHost says whether a host is revoked, and nothing has let it in again.
func (s *Service) revokedHost(domain string, id bucket.ID) (at time.Time, yes bool, err error) {
	identity, err := authority.NewIdentity(domain, authority.Agent, id.String())
	if err != nil {
		return at, false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.revoked[identity]
	return moment(r.Revoked), ok && r.From == 0, nil
}

// signedAt is the time at which a host's next certificate is signed: now but, for a host that was revoked, so
// that it begins after those that it had, one of which may have been signed in this second, or by a clock that ran
// ahead (begins, of the host's record), and once it is let in again not before the first of the new ones, should the clock be set back.
func (s *Service) signedAt(domain string, id bucket.ID, begins int64) (time.Time, error) {
	identity, err := authority.NewIdentity(domain, authority.Agent, id.String())
	if err != nil {
		return time.Time{}, err
	}
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.revoked[identity]
	switch {
	case !ok:
		return now, nil
	case r.From == 0:
		at := now.Add(time.Second)
		if after := time.Unix(begins+1, 0).Add(authority.Skew); begins != 0 && at.Before(after) {
			at = after
		}
		return at, nil
	}
	if least := time.Unix(r.From, 0).Add(authority.Skew); now.Before(least) {
		return least, nil
	}
	return now, nil
}
