package enroll

import (
	"bytes"
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/httpctl/httpctl/pkg/authority"
	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/security"
	httpctlv1 "github.com/httpctl/httpctl/proto/httpctl/v1"
)

const (
	// callWait is how long one aggregator may take to answer.
	callWait = 10 * time.Second
	// tries is how often an answer that got lost is asked for again: with the same key, that costs no use of the token.
	tries = 3
	// tryPause is between them.
	tryPause = time.Second
)

// Host is who enrols.
type Host struct {
	ID            bucket.ID
	Name, Version string
}

// Result is what came of enrolling.
type Result struct {
	// Already says that the host was enrolled before with the same authority, and that the token was not used.
	Already bool
	// Aggregator is where it was enrolled.
	Aggregator string
	Identity   string
	Until      time.Time
}

// Already returns how the host is enrolled with the token's authority; nil if it is not. Its certificate may
// have ended.
func (f Files) Already(t authority.Token) *Result {
	cert, cas, err := f.read()
	if err != nil {
		return nil
	}
	for _, c := range cas {
		if authority.FingerprintOf(c) == t.Authority && cert.Leaf.CheckSignatureFrom(c) == nil {
			return &Result{Already: true, Aggregator: f.Aggregator(), Identity: security.PeerIdentity(cert.Leaf), Until: cert.Leaf.NotAfter}
		}
	}
	return nil
}

// Enroll gets the host's first certificate from the aggregator that the token names, at the first of its addresses that
// answers, and keeps it. The key is made here and never leaves the host. Nothing is sent to whom the
// token does not name, and nothing is kept when it fails.
func (f Files) Enroll(ctx context.Context, t authority.Token, h Host, owner authority.Owner) (*Result, error) {
	if now := time.Now(); !now.Before(t.Expires) {
		return nil, fmt.Errorf("the token ended at %s, and by this host's clock it is %s: make another with httpctl enroll create, or set the clock",
			t.Expires.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	key, err := authority.NewKey()
	if err != nil {
		return nil, err
	}
	csr, err := authority.NewRequest(key)
	if err != nil {
		return nil, err
	}
	q := &httpctlv1.EnrollRequest{TokenId: t.ID, Secret: t.Secret, Csr: csr, HostId: h.ID[:], HostName: h.Name, Version: h.Version}
	var errs []error
	reached := false
	for _, address := range t.Addresses {
		answer, err := enrollAt(ctx, address, t, q)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", address, err))
			reached = reached || errors.As(err, new(answered)) || errors.As(err, new(untrusted))
			if final(err) || ctx.Err() != nil {
				break
			}
			continue
		}
		leaf, err := check(answer.GetCertificate(), answer.GetAuthorities(), key, h.ID)
		if err != nil {
			return nil, fmt.Errorf("%s: its answer cannot be used: %w", address, err)
		}
		pair, err := authority.EncodePair(key, leaf.Raw)
		if err == nil {
			err = f.write(pair, answer.GetAuthorities(), address, owner)
		}
		if err != nil {
			return nil, fmt.Errorf("keep the certificate: %w", err)
		}
		return &Result{Aggregator: address, Identity: security.PeerIdentity(leaf), Until: leaf.NotAfter}, nil
	}
	if !reached && ctx.Err() == nil {
		errs = append(errs, errors.New("where the aggregator is stands in the token: if it is reached under another name, make one with httpctl enroll create --address HOST:PORT"))
	}
	return nil, errors.Join(errs...)
}

// enrollAt asks one aggregator.
func enrollAt(ctx context.Context, address string, t authority.Token, q *httpctlv1.EnrollRequest) (answer *httpctlv1.EnrollResponse, err error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	for try := range tries {
		if try > 0 {
			select {
			case <-ctx.Done():
				return nil, err
			case <-time.After(tryPause):
			}
		}
		err = call(ctx, address, authority.Pinned(t.Authority, host), nil, func(ctx context.Context, c httpctlv1.EnrollServiceClient) error {
			answer, err = c.Enroll(ctx, q)
			return err
		})
		if err == nil || final(err) || errors.As(err, new(untrusted)) {
			break
		}
	}
	return answer, err
}

// untrusted is an error about an aggregator to which nothing was sent.
type untrusted struct{ error }

// answered is an error with which an aggregator of the right authority answered.
type answered struct {
	code    codes.Code
	message string
}

func (a answered) Error() string { return a.message }

// Taken reports whether an error says that the host is enrolled already, as the aggregator knows it.
func Taken(err error) bool {
	var a answered
	return errors.As(err, &a) && a.code == codes.AlreadyExists
}

// final reports whether asking elsewhere, or again, will not help.
func final(err error) bool {
	var a answered
	return errors.As(err, &a) && a.code != codes.Unavailable
}

// call makes one call to an aggregator.
func call(ctx context.Context, address string, cfg *tls.Config, dial func(context.Context, string) (net.Conn, error), f func(context.Context, httpctlv1.EnrollServiceClient) error) error {
	// What the handshake found is told as it is: gRPC would make one text of it and of all else.
	var refused atomic.Pointer[untrusted]
	verify := cfg.VerifyConnection
	cfg.VerifyConnection = func(s tls.ConnectionState) error {
		err := verify(s)
		if err != nil {
			refused.Store(&untrusted{err})
		}
		return err
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(credentials.NewTLS(cfg)),
		grpc.WithNoProxy(), grpc.WithDisableServiceConfig(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(256 << 10)),
	}
	if dial != nil {
		options = append(options, grpc.WithContextDialer(dial))
	}
	conn, err := grpc.NewClient("dns:///"+address, options...)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callWait)
	defer cancel()
	err = f(ctx, httpctlv1.NewEnrollServiceClient(conn))
	closed := conn.Close()
	if err == nil {
		return closed
	}
	if r := refused.Load(); r != nil {
		return *r
	}
	s := status.Convert(err)
	switch s.Code() {
	case codes.DeadlineExceeded, codes.Canceled:
		return fmt.Errorf("no answer within %s", callWait)
	case codes.Unimplemented:
		return answered{s.Code(), "the aggregator there cannot enrol hosts, it is too old: " + security.CleanText(s.Message())}
	case codes.Unavailable:
		return errors.New(security.ConnectionReason(s.Message()))
	}
	return answered{s.Code(), security.CleanText(s.Message())}
}

// check says whether a certificate is what was asked for.
func check(der, authorities []byte, key crypto.Signer, host bucket.ID) (*x509.Certificate, error) {
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	cas, err := authority.ParseCertificates(authorities)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	for _, c := range cas {
		roots.AddCert(c)
	}
	if now := time.Now(); now.Before(leaf.NotBefore) || now.After(leaf.NotAfter) {
		return nil, fmt.Errorf("the certificate is valid from %s to %s, and by this host's clock it is %s: set the clock",
			leaf.NotBefore.UTC().Format(time.RFC3339), leaf.NotAfter.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		return nil, err
	}
	have, err := x509.MarshalPKIXPublicKey(leaf.PublicKey)
	if err != nil {
		return nil, err
	}
	want, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, err
	}
	if role, name, err := authority.Identity(leaf); err != nil || role != authority.Agent || !strings.EqualFold(name, host.String()) || !bytes.Equal(have, want) {
		return nil, errors.New("the certificate is of another host or key")
	}
	return leaf, nil
}
