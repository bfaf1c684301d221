package enroll

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/httpctl/httpctl/pkg/authority"
	httpctlv1 "github.com/httpctl/httpctl/proto/httpctl/v1"
)

// dial connects to the service with a certificate, or none, and the name asked for.
func (f *fleet) dial(t *testing.T, name string, cert *tls.Certificate) httpctlv1.EnrollServiceClient {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.Creds(f.deps.Own.Credentials()))
	f.Register(server)
	var served sync.WaitGroup
	served.Go(func() { _ = server.Serve(l) })
	t.Cleanup(func() { server.Stop(); served.Wait() })
	cfg := &tls.Config{ServerName: name, InsecureSkipVerify: true}
	if cert != nil {
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(credentials.NewTLS(cfg)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return httpctlv1.NewEnrollServiceClient(conn)
}

// certificate has an authority sign for somebody.
func certificate(t *testing.T, ca *authority.Authority, s authority.Subject, life time.Duration, now time.Time) *tls.Certificate {
	t.Helper()
	key := newKey(t)
	der, err := ca.Sign(key.Public(), s, life, now)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// TestRenew makes connections with every kind of certificate, over real TLS.
func TestRenew(t *testing.T) {
	f := newFleet(t)
	elsewhere, err := authority.Create(filepath.Join(t.TempDir(), "ca"), "fleet.example.org", authority.Owner{}, f.at.Add(-24*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	agent := authority.Subject{Role: authority.Agent, Name: hostA.String()}
	now := f.at
	f.SetConfig(Config{CertificateLife: time.Hour, RenewGrace: 2 * time.Hour})
	for _, c := range []struct {
		what   string
		cert   *tls.Certificate
		pass   time.Duration
		code   codes.Code
		reason string
		want   string
	}{
		{"in force", certificate(t, f.ca, agent, time.Hour, now), 0, codes.OK, "", ""},
		{"ended a minute ago", certificate(t, f.ca, agent, time.Hour, now), time.Hour + time.Minute, codes.OK, "", ""},
		{"ended as long ago as is let pass", certificate(t, f.ca, agent, time.Hour, now), 3*time.Hour - time.Minute, codes.OK, "", ""},
		{"ended longer ago", certificate(t, f.ca, agent, time.Hour, now), 3*time.Hour + time.Minute, codes.PermissionDenied, ended, "httpctl enroll create"},
		{"to come", certificate(t, f.ca, agent, time.Hour, now.Add(time.Hour)), 0, codes.PermissionDenied, badCert, "not one of this fleet"},
		{"of another authority", certificate(t, elsewhere, agent, 48*time.Hour, now), 0, codes.PermissionDenied, badCert, "not one of this fleet"},
		{"of a reader", certificate(t, f.ca, authority.Subject{Role: authority.Admin, Name: "alice"}, time.Hour, now), 0, codes.PermissionDenied, badCert, "only an agent's"},
		{"of an aggregator", certificate(t, f.ca, authority.Subject{Role: authority.Aggregator, Name: "main"}, time.Hour, now), 0, codes.PermissionDenied, badCert, "not one of this fleet"},
		{"of host zero", certificate(t, f.ca, authority.Subject{Role: authority.Agent, Name: strings.Repeat("0", 32)}, time.Hour, now), 0, codes.PermissionDenied, badCert, "only an agent's"},
		{"none", nil, 0, codes.Unauthenticated, badCert, "httpctl-agent enroll"},
	} {
		f.mu.Lock()
		f.at = now.Add(c.pass)
		f.mu.Unlock()
		key := newKey(t)
		before := 0.0
		if c.reason != "" {
			before = f.refusals(c.reason)
		}
		a, err := f.dial(t, authority.ServerName, c.cert).Renew(t.Context(), &httpctlv1.RenewRequest{Csr: csr(t, key)})
		if status.Code(err) != c.code || !strings.Contains(fmt.Sprint(err), c.want) {
			t.Errorf("%s: %v, want %s and %q", c.what, err, c.code, c.want)
		}
		if c.reason != "" && f.refusals(c.reason) != before+1 {
			t.Errorf("%s: refused_total{reason=%q} did not move", c.what, c.reason)
		}
		if err != nil {
			continue
		}
		cert, err := x509.ParseCertificate(a.GetCertificate())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := cert.Verify(x509.VerifyOptions{Roots: f.ca.Roots(), CurrentTime: f.clock(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
			t.Errorf("%s: the new certificate: %v", c.what, err)
		}
		if role, name, _ := authority.Identity(cert); role != authority.Agent || name != hostA.String() || !key.PublicKey.Equal(cert.PublicKey) {
			t.Errorf("%s: the new certificate is of %s %s", c.what, role, name)
		}
	}
}

// TestNoOtherDoor: without a certificate, or with one that has ended, there is no connection but the one to get another.
func TestNoOtherDoor(t *testing.T) {
	f := newFleet(t)
	agent := authority.Subject{Role: authority.Agent, Name: hostA.String()}
	over := certificate(t, f.ca, agent, time.Minute, f.at)
	good := certificate(t, f.ca, agent, 24*time.Hour, f.at)
	f.pass(time.Hour)
	for name, c := range map[string]struct {
		cert *tls.Certificate
		want codes.Code
	}{"none": {nil, codes.Unavailable}, "ended": {over, codes.Unavailable}, "in force": {good, codes.OK}} {
		_, err := f.dial(t, "127.0.0.1", c.cert).Renew(t.Context(), &httpctlv1.RenewRequest{Csr: csr(t, newKey(t))})
		if status.Code(err) != c.want {
			t.Errorf("a certificate that is %s: %v, want %s", name, err, c.want)
		}
	}
}

// TestCloneIsNamed: two that renew the same certificate in turns are noticed.
func TestCloneIsNamed(t *testing.T) {
	f := newFleet(t)
	key := newKey(t)
	made := f.token(t, &httpctlv1.CreateTokenRequest{TtlNs: int64(time.Hour), Uses: 1})
	first, err := f.ask(t, made, hostA, csr(t, key))
	if err != nil {
		t.Fatal(err)
	}
	renew := func(c *tls.Certificate) *tls.Certificate {
		t.Helper()
		f.pass(renewPause)
		key := newKey(t)
		a, err := f.dial(t, authority.ServerName, c).Renew(t.Context(), &httpctlv1.RenewRequest{Csr: csr(t, key)})
		if err != nil {
			t.Fatal(err)
		}
		return &tls.Certificate{Certificate: [][]byte{a.GetCertificate()}, PrivateKey: key}
	}
	original := &tls.Certificate{Certificate: [][]byte{first.Raw}, PrivateKey: key}
	clone := original
	renew(renew(original))
	if strings.Contains(f.log.String(), "cloned") {
		t.Errorf("a host that renews twice is taken for a clone:\n%s", f.log)
	}
	renew(clone)
	if !strings.Contains(f.log.String(), "cloned") || !strings.Contains(f.log.String(), hostA.String()) {
		t.Errorf("a clone that renews is not named:\n%s", f.log)
	}
}

// TestRenewalsAreLimited: each costs an fsync, and a host that asks all the time gets one a minute.
func TestRenewalsAreLimited(t *testing.T) {
	f := newFleet(t)
	cert := certificate(t, f.ca, authority.Subject{Role: authority.Agent, Name: hostA.String()}, time.Hour, f.at)
	other := certificate(t, f.ca, authority.Subject{Role: authority.Agent, Name: hostB.String()}, time.Hour, f.at)
	for _, c := range []struct {
		cert *tls.Certificate
		pass time.Duration
		want codes.Code
	}{
		{cert, 0, codes.OK}, {cert, 0, codes.ResourceExhausted}, {other, 0, codes.OK},
		{cert, renewPause - time.Second, codes.ResourceExhausted}, {cert, time.Second, codes.OK},
	} {
		f.pass(c.pass)
		if _, err := f.dial(t, authority.ServerName, c.cert).Renew(t.Context(), &httpctlv1.RenewRequest{Csr: csr(t, newKey(t))}); status.Code(err) != c.want {
			t.Errorf("%s later: %v, want %s", c.pass, err, c.want)
		}
	}
}

// TestChangedSettings are in force with the next certificate.
func TestChangedSettings(t *testing.T) {
	f := newFleet(t)
	key := newKey(t)
	first, err := f.ask(t, f.token(t, &httpctlv1.CreateTokenRequest{TtlNs: int64(time.Hour), Uses: 1}), hostA, csr(t, key))
	if err != nil {
		t.Fatal(err)
	}
	shown := &tls.Certificate{Certificate: [][]byte{first.Raw}, PrivateKey: key}
	renew := func() (*x509.Certificate, error) {
		a, err := f.dial(t, authority.ServerName, shown).Renew(t.Context(), &httpctlv1.RenewRequest{Csr: csr(t, newKey(t))})
		if err != nil {
			return nil, err
		}
		return x509.ParseCertificate(a.GetCertificate())
	}
	f.SetConfig(Config{CertificateLife: 30 * time.Minute, RenewGrace: time.Minute})
	f.pass(50 * time.Minute)
	next, err := renew()
	if err != nil {
		t.Fatal(err)
	}
	if life := next.NotAfter.Sub(f.clock()).Round(time.Minute); life != 30*time.Minute {
		t.Errorf("a certificate lives %s after the setting was changed to 30m", life)
	}
	own, _, err := f.deps.Own.current()
	if err != nil {
		t.Fatal(err)
	}
	if life := own.Leaf.NotAfter.Sub(f.clock()).Round(time.Minute); life != 30*time.Minute {
		t.Errorf("the aggregator's own certificate, made anew, lives %s", life)
	}
	f.pass(12 * time.Minute) // the first one has ended two minutes ago
	if _, err := renew(); status.Code(err) != codes.PermissionDenied {
		t.Errorf("beyond the changed grace: %v, want a refusal", err)
	}
	f.SetConfig(Config{CertificateLife: 30 * time.Minute, RenewGrace: time.Hour})
	if _, err := renew(); err != nil {
		t.Errorf("within a longer grace: %v", err)
	}
}
