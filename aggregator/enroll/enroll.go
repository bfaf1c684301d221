package enroll

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/httpctl/httpctl/pkg/authority"
	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/security"
	httpctlv1 "github.com/httpctl/httpctl/proto/httpctl/v1"
)

// Deps are what the service needs from outside. Store is required.
type Deps struct {
	Store State
	// Own is the aggregator's certificate. Without it there is no authority, and every call is refused.
	Own *Own
	// Connected tells the agents that are connected, or were; may be nil.
	Connected func() []Connected
	// Reported says whether a host delivers here, or something of it is stored, enrolled or not; may be nil.
	Reported func(context.Context, bucket.ID) (bool, error)
	// Addresses says where agents reach the aggregator, host:port, as it is configured.
	Addresses func() ([]string, error)
	Log       *slog.Logger
	Registry  prometheus.Registerer
	// Now is time.Now where it is nil.
	Now func() time.Time
}

// Connected is an agent as its stream says.
type Connected struct {
	Host     bucket.ID
	Name     string
	Identity string // its certificate's; "" without TLS
}

// Service implements the gRPC EnrollService. It runs nothing by itself and is safe for concurrent use.
type Service struct {
	httpctlv1.UnimplementedEnrollServiceServer

	cfg     atomic.Pointer[Config]
	deps    Deps
	log     *slog.Logger
	now     func() time.Time
	metrics *metrics
	bad     limiter

	// issuing is held from the check of a token to the end of its use. The store's versions guard the
	// records all the same, should another write them.
	issuing sync.Mutex

	mu      sync.Mutex
	logged  map[string]time.Time // by kind
	revoked map[string]revocation
	open    map[*open]struct{} // calls under way with a certificate
}

// New checks the settings, which are not used without an authority, and returns the service.
func New(cfg Config, deps Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil && deps.Own != nil {
		return nil, err
	}
	if deps.Store == nil {
		return nil, errors.New("enroll needs a store")
	}
	s := &Service{deps: deps, log: deps.Log, now: deps.Now, logged: map[string]time.Time{},
		revoked: map[string]revocation{}, open: map[*open]struct{}{}}
	s.SetConfig(cfg)
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.now == nil {
		s.now = time.Now
	}
	s.metrics = newMetrics(deps.Registry, func() time.Time {
		if deps.Own == nil {
			return time.Time{}
		}
		return deps.Own.NotAfter()
	}, s.now)
	return s, nil
}

// SetConfig changes the settings, which must be valid, for what is signed from now on.
func (s *Service) SetConfig(cfg Config) {
	s.cfg.Store(&cfg)
	if s.deps.Own != nil {
		s.deps.Own.setLife(cfg.CertificateLife)
	}
}

// Register adds the service to a gRPC server.
func (s *Service) Register(r grpc.ServiceRegistrar) { httpctlv1.RegisterEnrollServiceServer(r, s) }

// authority returns the authority, or the error that there is none.
func (s *Service) authority() (*authority.Authority, error) {
	if s.deps.Own == nil {
		return nil, status.Error(codes.FailedPrecondition, "this aggregator has no authority of its own, or uses the certificates of aggregator.tls: see httpctl ca init")
	}
	return s.deps.Own.Authority(), nil
}

// Enroll implements the EnrollService. It is called without a certificate.
func (s *Service) Enroll(ctx context.Context, q *httpctlv1.EnrollRequest) (*httpctlv1.EnrollResponse, error) {
	ca, err := s.authority()
	if err != nil {
		return nil, err
	}
	from := callerOf(ctx)
	if wait := s.bad.wait(from, s.now()); wait > 0 {
		return nil, s.refuse(ctx, tooMany, codes.ResourceExhausted, "too many bad tokens came from this address; the next may come in %s", wait.Round(time.Second))
	}
	var id bucket.ID
	if len(q.GetHostId()) != len(id) || len(q.GetHostName()) > maxName || len(q.GetVersion()) > maxName ||
		!utf8.ValidString(q.GetHostName()) || !utf8.ValidString(q.GetVersion()) {
		return nil, s.refuse(ctx, badRequest, codes.InvalidArgument, "host_id must have 16 bytes, host_name and version be UTF-8 of at most %d bytes", maxName)
	}
	copy(id[:], q.GetHostId())
	if id.IsZero() {
		return nil, s.refuse(ctx, badRequest, codes.InvalidArgument, "host_id must not be zero")
	}
	s.issuing.Lock()
	defer s.issuing.Unlock()
	t, version, err := s.token(ctx, q.GetTokenId(), q.GetSecret())
	if err != nil {
		var refused refusal
		if errors.As(err, &refused) {
			s.bad.failed(from, s.now())
			return nil, s.refuse(ctx, badToken, codes.PermissionDenied, "%s", refused)
		}
		return nil, s.refuse(ctx, failed, codes.Unavailable, "the token cannot be looked up: %v", err)
	}
	pub, err := authority.RequestedKey(q.GetCsr()) // only now: it costs more than the rest
	if err != nil {
		return nil, s.refuse(ctx, badRequest, codes.InvalidArgument, "%v", err)
	}
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil, s.refuse(ctx, badRequest, codes.InvalidArgument, "%v", err)
	}
	sum := sha256.Sum256(der)
	key := hex.EncodeToString(sum[:])

	h, hostVersion, known, err := read[host](ctx, s.deps.Store, hostKey(id))
	if err != nil {
		return nil, s.refuse(ctx, failed, codes.Unavailable, "the host cannot be looked up: %v", err)
	}
	again := known && h.Token == q.GetTokenId() && h.Key == key // the answer was lost
	revokedAt, isRevoked, err := s.revokedHost(ca.TrustDomain(), id)
	if err != nil {
		return nil, s.refuse(ctx, badRequest, codes.InvalidArgument, "%v", err)
	}
	if isRevoked && (again || t.Host == "") {
		return nil, s.refuse(ctx, revoked, codes.PermissionDenied, "host %s was revoked at %s: only a token of its own lets it in again, made with httpctl enroll create --host %s",
			id, revokedAt.Format(time.RFC3339), id)
	}
	// What lets it in is told from its certificates of before by its beginning, and has to be valid now.
	if begins := time.Unix(h.Begins+1, 0); isRevoked && begins.After(s.now()) {
		return nil, s.refuse(ctx, revoked, codes.FailedPrecondition, "host %s was revoked, and has a certificate that begins at %s only, as the clock of this aggregator ran ahead then: it is let in again from that time on, "+
			"or comes as a new host once the file host-id in its state directory is removed", id, begins.Add(-time.Second).UTC().Format(time.RFC3339))
	}
	if since := s.now().Sub(moment(h.Enrolled)); again && h.Again >= freeAnswers && since >= 0 && since < s.pause() {
		return nil, s.refuse(ctx, tooMany, codes.ResourceExhausted, "host %s got the answer to its enrolment %s ago, and has often asked again; the next may come in %s",
			id, since.Round(time.Second), (s.pause() - since).Round(time.Second))
	}
	if !again {
		if t.Host != "" && t.Host != id.String() {
			return nil, s.refuse(ctx, badToken, codes.PermissionDenied, "the token is for host %s, and this is %s: make one for it with httpctl enroll create --host %s", t.Host, id, id)
		}
		if known && t.Host == "" && s.now().Before(moment(h.Until).Add(s.cfg.Load().RenewGrace)) {
			return nil, s.refuse(ctx, taken, codes.AlreadyExists, "host %s is enrolled already, as %q: if this one was cloned from it, remove the file host-id in its state directory; "+
				"if it has lost its certificate, make a token for it with httpctl enroll create --host %s", id, security.CleanText(h.Name), id)
		}
		if !known && t.Host == "" && s.deps.Reported != nil {
			reported, err := s.deps.Reported(ctx, id)
			if err != nil {
				return nil, s.refuse(ctx, failed, codes.Unavailable, "the host cannot be looked up: %v", err)
			}
			if reported {
				return nil, s.refuse(ctx, taken, codes.AlreadyExists, "host %s delivers here, or did, without having enrolled: if this is that host, make a token for it with httpctl enroll create --host %s; "+
					"if this one was cloned from it, remove the file host-id in its state directory", id, id)
			}
		}
		if t.Left == 0 {
			return nil, s.refuse(ctx, badToken, codes.PermissionDenied, "the token is used up: make another with httpctl enroll create")
		}
		t.Left--
		// Before the certificate: a use may be lost when the aggregator is killed now, and never one too many made.
		if err := write(ctx, s.deps.Store, tokenKeys+q.GetTokenId(), version, t); err != nil {
			return nil, s.refuse(ctx, failed, codes.Unavailable, "the use of the token cannot be noted: %v", err)
		}
	}
	cert, err := s.sign(ca, pub, id, h.Begins)
	if err != nil {
		return nil, s.refuse(ctx, failed, codes.Internal, "%v", err)
	}
	if isRevoked {
		if err := s.readmit(ctx, cert); err != nil {
			return nil, s.refuse(ctx, failed, codes.Unavailable, "that the host is let in again cannot be noted: %v", err)
		}
	}
	was := h
	h = host{Name: q.GetHostName(), Enrolled: s.now().UnixNano(), Until: cert.NotAfter.UnixNano(), Token: q.GetTokenId(), Key: key, Serial: serial(cert),
		Begins: max(was.Begins, cert.NotBefore.Unix())}
	if again {
		h.Again = min(was.Again+1, freeAnswers) // from there on each waits
		h.Renewed = was.Renewed                 // and no renewal comes the sooner
	}
	if err := write(ctx, s.deps.Store, hostKey(id), hostVersion, h); err != nil {
		return nil, s.refuse(ctx, failed, codes.Unavailable, "the host cannot be noted: %v", err)
	}
	s.metrics.enrolled.Inc()
	s.log.Info("a host is enrolled", "host", id, "name", security.CleanText(q.GetHostName()), "peer", from, "token", q.GetTokenId(), "uses_left", t.Left,
		"version", security.CleanText(q.GetVersion()), "until", cert.NotAfter)
	return &httpctlv1.EnrollResponse{Certificate: cert.Raw, Authorities: ca.PEM()}, nil
}

// refusal is why a token is not accepted, for who shows it.
type refusal string

func (r refusal) Error() string { return string(r) }

// token looks up a token and says whether it can be used: a refusal, if not. Only who knows
// the secret learns more than that it is wrong.
func (s *Service) token(ctx context.Context, id string, secret []byte) (t token, version uint64, err error) {
	const unknown = refusal("the token is not known here: it was revoked, has ended some time ago, or is of another aggregator; make another with httpctl enroll create")
	if !authority.IsTokenID(id) {
		return t, 0, unknown
	}
	t, version, ok, err := read[token](ctx, s.deps.Store, tokenKeys+id)
	if err != nil {
		return t, 0, err
	}
	if !ok || !authority.SecretIs(secret, t.Hash) {
		return t, 0, unknown
	}
	if at := moment(t.Expires); !s.now().Before(at) {
		return t, 0, refusal(fmt.Sprintf("the token ended at %s: make another with httpctl enroll create", at.Format(time.RFC3339)))
	}
	return t, version, nil
}

// sign makes an agent's certificate; begins is of its host's record.
func (s *Service) sign(ca *authority.Authority, pub any, id bucket.ID, begins int64) (*x509.Certificate, error) {
	at, err := s.signedAt(ca.TrustDomain(), id, begins)
	if err != nil {
		return nil, err
	}
	der, err := ca.Sign(pub, authority.Subject{Role: authority.Agent, Name: id.String()}, s.cfg.Load().CertificateLife, at)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// pause is the least time between two certificates of a host that cost no use of a token.
func (s *Service) pause() time.Duration { return min(renewPause, s.cfg.Load().CertificateLife/20) }

func serial(c *x509.Certificate) string { return c.SerialNumber.Text(16) }

// Renew implements the EnrollService. The connection shows the certificate that is renewed; it may
// have ended, so it is checked here and not before.
func (s *Service) Renew(ctx context.Context, q *httpctlv1.RenewRequest) (*httpctlv1.RenewResponse, error) {
	ca, err := s.authority()
	if err != nil {
		return nil, err
	}
	shown := shownBy(ctx)
	if shown == nil {
		return nil, s.refuse(ctx, badCert, codes.Unauthenticated, "a certificate is needed to renew it: enroll this host with httpctl-agent enroll and a new token")
	}
	id, refused := s.renewable(ca, shown)
	if refused != nil {
		return nil, s.refuse(ctx, refused.reason, codes.PermissionDenied, "%s", refused.text)
	}
	s.issuing.Lock()
	defer s.issuing.Unlock()
	if err := s.check(shown); err != nil {
		return nil, s.refuse(ctx, revoked, codes.PermissionDenied, "%s: a token made with httpctl enroll create --host %s lets this host in again", status.Convert(err).Message(), id)
	}
	if len(q.GetVersion()) > maxName || !utf8.ValidString(q.GetVersion()) {
		return nil, s.refuse(ctx, badRequest, codes.InvalidArgument, "version must be UTF-8 of at most %d bytes", maxName)
	}
	pub, err := authority.RequestedKey(q.GetCsr())
	if err != nil {
		return nil, s.refuse(ctx, badRequest, codes.InvalidArgument, "%v", err)
	}
	h, version, known, err := read[host](ctx, s.deps.Store, hostKey(id))
	if err != nil {
		return nil, s.refuse(ctx, failed, codes.Unavailable, "the host cannot be looked up: %v", err)
	}
	pause := s.pause()
	if since := s.now().Sub(moment(h.Renewed)); h.Renewed != 0 && since >= 0 && since < pause {
		return nil, s.refuse(ctx, tooMany, codes.ResourceExhausted, "the certificate of host %s was renewed %s ago; again in %s", id, since.Round(time.Second), (pause - since).Round(time.Second))
	}
	was := serial(shown)
	if known && was != h.Serial && was != h.Before {
		s.warn("clone", "a certificate is renewed that was renewed before: if this repeats, the host was cloned with its state directory, or its key was stolen; "+
			"remove the state directory of the clone and enroll it", "host", id, "name", security.CleanText(h.Name), "peer", callerOf(ctx))
	}
	cert, err := s.sign(ca, pub, id, h.Begins)
	if err != nil {
		return nil, s.refuse(ctx, failed, codes.Internal, "%v", err)
	}
	h.Renewed = s.now().UnixNano()
	h.Until, h.Serial, h.Before = cert.NotAfter.UnixNano(), serial(cert), was
	h.Begins = max(h.Begins, cert.NotBefore.Unix())
	if !known {
		h.Begins = max(h.Begins, shown.NotBefore.Unix())
	}
	if !known { // made by httpctl ca issue, or the database is a new one: the certificate says enough
		h.Enrolled = s.now().UnixNano()
	}
	if err := write(ctx, s.deps.Store, hostKey(id), version, h); err != nil {
		return nil, s.refuse(ctx, failed, codes.Unavailable, "the new certificate cannot be noted: %v", err)
	}
	s.metrics.renewed.Inc()
	s.log.Debug("a certificate is renewed", "host", id, "peer", callerOf(ctx), "until", cert.NotAfter)
	return &httpctlv1.RenewResponse{Certificate: cert.Raw, Authorities: ca.PEM()}, nil
}

// unrenewable is why a certificate is not renewed.
type unrenewable struct{ reason, text string }

// renewable says whose certificate it is, if it can be renewed.
func (s *Service) renewable(ca *authority.Authority, shown *x509.Certificate) (id bucket.ID, refused *unrenewable) {
	now, at := s.now(), s.now()
	if now.After(shown.NotAfter) {
		at = shown.NotAfter
	}
	if _, err := shown.Verify(x509.VerifyOptions{Roots: ca.Roots(), CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		return id, &unrenewable{badCert, "the certificate is not one of this fleet: enroll this host with httpctl-agent enroll and a new token"}
	}
	role, name, err := authority.Identity(shown)
	if err == nil && role == authority.Agent && authority.TrustDomain(shown) == ca.TrustDomain() {
		id, err = bucket.ParseID(name)
	}
	if err != nil || id.IsZero() {
		return id, &unrenewable{badCert, "only an agent's certificate is renewed, and this one is of " + security.CleanText(security.PeerIdentity(shown))}
	}
	if end := shown.NotAfter.Add(s.cfg.Load().RenewGrace); now.After(end) {
		return id, &unrenewable{ended, fmt.Sprintf("the certificate of host %s ended at %s, and could be renewed until %s: make a token with httpctl enroll create, and run httpctl-agent enroll on the host",
			id, shown.NotAfter.UTC().Format(time.RFC3339), end.UTC().Format(time.RFC3339))}
	}
	return id, nil
}

// CreateToken implements the EnrollService.
func (s *Service) CreateToken(ctx context.Context, q *httpctlv1.CreateTokenRequest) (*httpctlv1.CreateTokenResponse, error) {
	ca, err := s.authority()
	if err != nil {
		return nil, err
	}
	invalid := func(format string, args ...any) (*httpctlv1.CreateTokenResponse, error) {
		return nil, status.Errorf(codes.InvalidArgument, format, args...)
	}
	ttl := time.Duration(q.GetTtlNs())
	if ttl < minTTL || ttl > maxTTL {
		return invalid("a token lasts %s to %s, not %s", config.FormatDuration(minTTL), config.FormatDuration(maxTTL), config.FormatDuration(ttl))
	}
	if q.GetUses() < 1 || q.GetUses() > MaxUses {
		return invalid("a token has 1 to %d uses, not %d", MaxUses, q.GetUses())
	}
	var id bucket.ID
	if n := len(q.GetHostId()); n != 0 && n != len(id) {
		return invalid("host_id must have 16 bytes, or none")
	}
	copy(id[:], q.GetHostId())
	addresses := q.GetAddresses()
	if len(addresses) == 0 {
		if addresses, err = s.deps.Addresses(); err != nil {
			return nil, status.Error(codes.FailedPrecondition, err.Error())
		}
	}
	now := s.now()
	made, err := authority.NewToken(ca.Fingerprint(), addresses, now.Add(ttl))
	if err != nil {
		return invalid("%v", err)
	}
	t := token{Hash: authority.SecretHash(made.Secret), Created: now.UnixNano(), Expires: made.Expires.UnixNano(), Uses: q.GetUses(), Left: q.GetUses()}
	if !id.IsZero() {
		t.Host = id.String()
	}
	s.issuing.Lock()
	defer s.issuing.Unlock()
	usable, err := s.sweep(ctx)
	if err != nil {
		return nil, status.Errorf(codes.Unavailable, "the tokens cannot be looked up: %v", err)
	}
	if usable >= maxTokens {
		return nil, status.Errorf(codes.ResourceExhausted, "there are %d tokens, the most there may be: revoke some, httpctl enroll list names them", usable)
	}
	if err := write(ctx, s.deps.Store, tokenKeys+made.ID, 0, t); err != nil {
		return nil, status.Errorf(codes.Unavailable, "the token cannot be kept: %v", err)
	}
	s.log.Info("an enrolment token is made", "token", made.ID, "uses", t.Uses, "expires", made.Expires, "for_host", t.Host, "peer", callerOf(ctx))
	return &httpctlv1.CreateTokenResponse{Token: made.Text(), Info: t.info(made.ID), Addresses: addresses}, nil
}

// usable reports whether a host can still enrol with t.
func (t *token) usable(now time.Time) bool { return t.Left > 0 && now.UnixNano() < t.Expires }

func (t *token) info(id string) *httpctlv1.TokenInfo {
	i := &httpctlv1.TokenInfo{Id: id, CreatedUnixNs: t.Created, ExpiresUnixNs: t.Expires, Uses: t.Uses, UsesLeft: t.Left}
	if h, err := bucket.ParseID(t.Host); err == nil && t.Host != "" {
		i.HostId = h[:]
	}
	return i
}

// sweep forgets tokens that ended some time ago, and counts those that can be used.
func (s *Service) sweep(ctx context.Context) (usable int, err error) {
	now := s.now()
	err = each(ctx, s.deps.Store, tokenKeys, func(id string, t token, version uint64) error {
		if t.usable(now) {
			usable++
		}
		if now.UnixNano() < t.Expires+int64(keepEnded) {
			return nil
		}
		_, err := s.deps.Store.CompareAndSwap(ctx, tokenKeys+id, version, nil)
		return err
	})
	return usable, err
}

// ListTokens implements the EnrollService.
func (s *Service) ListTokens(ctx context.Context, _ *httpctlv1.ListTokensRequest) (*httpctlv1.ListTokensResponse, error) {
	a := &httpctlv1.ListTokensResponse{}
	now := s.now()
	err := each(ctx, s.deps.Store, tokenKeys, func(id string, t token, _ uint64) error {
		if t.usable(now) {
			a.Tokens = append(a.Tokens, t.info(id))
		}
		return nil
	})
	if err != nil {
		return nil, status.Errorf(codes.Unavailable, "the tokens cannot be looked up: %v", err)
	}
	slices.SortStableFunc(a.Tokens, func(x, y *httpctlv1.TokenInfo) int { return cmp.Compare(x.CreatedUnixNs, y.CreatedUnixNs) })
	return a, nil
}

// RevokeToken implements the EnrollService.
func (s *Service) RevokeToken(ctx context.Context, q *httpctlv1.RevokeTokenRequest) (*httpctlv1.RevokeTokenResponse, error) {
	if !authority.IsTokenID(q.GetId()) {
		return nil, status.Errorf(codes.InvalidArgument, "%q is no token's id: httpctl enroll list names them", security.CleanText(q.GetId()))
	}
	s.issuing.Lock()
	defer s.issuing.Unlock()
	_, version, ok, err := read[token](ctx, s.deps.Store, tokenKeys+q.GetId())
	if err == nil && !ok {
		return nil, status.Errorf(codes.NotFound, "there is no token %s: httpctl enroll list names them", q.GetId())
	}
	if err == nil {
		_, err = s.deps.Store.CompareAndSwap(ctx, tokenKeys+q.GetId(), version, nil)
	}
	if err != nil {
		return nil, status.Errorf(codes.Unavailable, "the token cannot be removed: %v", err)
	}
	s.log.Info("an enrolment token is revoked", "token", q.GetId(), "peer", callerOf(ctx))
	return &httpctlv1.RevokeTokenResponse{}, nil
}

// refuse counts and logs that a host gets no certificate, and returns the error that says so.
func (s *Service) refuse(ctx context.Context, reason string, code codes.Code, format string, args ...any) error {
	s.metrics.refused.WithLabelValues(reason).Inc()
	err := status.Errorf(code, format, args...)
	s.warn(reason, "a host gets no certificate", "peer", callerOf(ctx), "reason", security.CleanText(status.Convert(err).Message()))
	return err
}

// warn logs one kind of trouble every logEvery; what comes in between is in the metrics.
func (s *Service) warn(kind, message string, args ...any) {
	s.warnEvery(logEvery, kind, message, args...)
}

func (s *Service) warnEvery(pause time.Duration, kind, message string, args ...any) {
	now := s.now()
	s.mu.Lock()
	last, ok := s.logged[kind]
	quiet := ok && now.Sub(last).Abs() < pause
	if !quiet {
		s.logged[kind] = now
	}
	s.mu.Unlock()
	if !quiet {
		s.log.Warn(message, args...)
	}
}

// callerOf is the address that a call comes from, nil if it has none.
func callerOf(ctx context.Context) net.Addr {
	if p, ok := peer.FromContext(ctx); ok {
		return p.Addr
	}
	return nil
}

// shownBy is the certificate that a caller has shown and has the key of, nil if none. It is not verified.
func shownBy(ctx context.Context) *x509.Certificate {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil
	}
	t, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(t.State.PeerCertificates) == 0 {
		return nil
	}
	return t.State.PeerCertificates[0]
}
