package enroll

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/httpctl/httpctl/pkg/authority"
	"github.com/httpctl/httpctl/pkg/bucket"
	httpctlv1 "github.com/httpctl/httpctl/proto/httpctl/v1"
)

func (f *fleet) revoke(t *testing.T, q *httpctlv1.RevokeRequest) (string, error) {
	t.Helper()
	a, err := f.Revoke(from(t, "127.0.0.1"), q)
	return a.GetIdentity(), err
}

// holder is a context of a call with a verified certificate.
func holder(ctx context.Context, c *x509.Certificate) context.Context {
	return peer.NewContext(ctx, &peer.Peer{Addr: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1)}, AuthInfo: credentials.TLSInfo{
		State: tls.ConnectionState{PeerCertificates: []*x509.Certificate{c}, VerifiedChains: [][]*x509.Certificate{{c}}}}})
}

// TestRevokeHost: its certificates are refused at the handshake, for calls and for renewal, over a restart; other
// tokens do not let it in; one of its own does, and its old certificates stay refused.
func TestRevokeHost(t *testing.T) {
	f := newFleet(t)
	any := f.token(t, &httpctlv1.CreateTokenRequest{TtlNs: int64(time.Hour), Uses: 10})
	key := newKey(t)
	old, err := f.ask(t, any, hostA, csr(t, key))
	if err != nil {
		t.Fatal(err)
	}
	other, err := f.ask(t, any, hostB, csr(t, newKey(t)))
	if err != nil {
		t.Fatal(err)
	}
	verify := func(c *x509.Certificate) error {
		return f.Verify(tls.ConnectionState{PeerCertificates: []*x509.Certificate{c}})
	}
	if err := verify(old); err != nil {
		t.Fatalf("before it is revoked: %v", err)
	}
	if got, err := f.revoke(t, &httpctlv1.RevokeRequest{Who: hostA.String()}); err != nil || got != "spiffe://fleet.example.org/agent/"+hostA.String() {
		t.Fatalf("Revoke() = %q, %v", got, err)
	}
	for _, when := range []string{"at once", "after a restart"} {
		if err := verify(old); status.Code(err) != codes.PermissionDenied {
			t.Errorf("%s, the handshake: %v, want a refusal", when, err)
		}
		if err := verify(other); err != nil {
			t.Errorf("%s, another host: %v", when, err)
		}
		if _, _, err := f.Enter(holder(t.Context(), old)); status.Code(err) != codes.PermissionDenied {
			t.Errorf("%s, a call: %v, want a refusal", when, err)
		}
		shown := &tls.Certificate{Certificate: [][]byte{old.Raw}, PrivateKey: key}
		if _, err := f.dial(t, authority.ServerName, shown).Renew(t.Context(), &httpctlv1.RenewRequest{Csr: csr(t, newKey(t))}); status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), "was revoked at") {
			t.Errorf("%s, a renewal: %v, want a refusal", when, err)
		}
		for name, k := range map[string]*ecdsa.PrivateKey{"another key": newKey(t), "the key of before": key} {
			if _, err := f.ask(t, any, hostA, csr(t, k)); status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), "enroll create --host") {
				t.Errorf("%s, with a token for any host and %s: %v, want a refusal", when, name, err)
			}
		}
		f.restart(t)
		if err := f.Load(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	own := f.token(t, &httpctlv1.CreateTokenRequest{TtlNs: int64(time.Hour), Uses: 2, HostId: hostA[:]})
	fresh, err := f.ask(t, own, hostA, csr(t, key))
	if err != nil {
		t.Fatal(err)
	}
	renewed, err := f.dial(t, authority.ServerName, &tls.Certificate{Certificate: [][]byte{fresh.Raw}, PrivateKey: key}).Renew(t.Context(), &httpctlv1.RenewRequest{Csr: csr(t, newKey(t))})
	if err != nil {
		t.Fatal(err)
	}
	next, err := x509.ParseCertificate(renewed.GetCertificate())
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		cert *x509.Certificate
		want codes.Code
	}{"old": {old, codes.PermissionDenied}, "new": {fresh, codes.OK}, "renewed": {next, codes.OK}} {
		if err := verify(c.cert); status.Code(err) != c.want {
			t.Errorf("let in again, the %s certificate: %v, want %s", name, err, c.want)
		}
	}
	// Revoked once more, the key of its own token does not bring it back.
	if _, err := f.revoke(t, &httpctlv1.RevokeRequest{Who: hostA.String()}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.ask(t, own, hostA, csr(t, key)); status.Code(err) != codes.PermissionDenied {
		t.Errorf("revoked again, asked again: %v, want a refusal", err)
	}
	if err := verify(next); err == nil {
		t.Error("revoked again, the renewed certificate is accepted")
	}
	if _, err := f.revoke(t, &httpctlv1.RevokeRequest{Who: hostA.String(), Undo: true}); err != nil {
		t.Fatal(err)
	}
	if err := verify(next); err != nil {
		t.Errorf("accepted again: %v", err)
	}
}

// TestRevokedWhileClockRanAhead: a certificate that was signed by a clock that ran ahead begins after those that let the host in
// again, and stays refused.
func TestRevokedWhileClockRanAhead(t *testing.T) {
	f := newFleet(t)
	own := func() authority.Token {
		return f.token(t, &httpctlv1.CreateTokenRequest{TtlNs: int64(time.Hour), Uses: 1, HostId: hostA[:]})
	}
	key := newKey(t)
	first, err := f.ask(t, own(), hostA, csr(t, key))
	if err != nil {
		t.Fatal(err)
	}
	f.pass(50 * time.Minute) // ahead
	renewed, err := f.dial(t, authority.ServerName, &tls.Certificate{Certificate: [][]byte{first.Raw}, PrivateKey: key}).Renew(t.Context(), &httpctlv1.RenewRequest{Csr: csr(t, newKey(t))})
	if err != nil {
		t.Fatal(err)
	}
	old, err := x509.ParseCertificate(renewed.GetCertificate())
	if err != nil {
		t.Fatal(err)
	}
	f.pass(-49 * time.Minute)
	if _, err := f.revoke(t, &httpctlv1.RevokeRequest{Who: hostA.String()}); err != nil {
		t.Fatal(err)
	}
	verify := func(c *x509.Certificate) error {
		return f.Verify(tls.ConnectionState{PeerCertificates: []*x509.Certificate{c}})
	}
	made := own()
	if _, err := f.ask(t, made, hostA, csr(t, newKey(t))); status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), old.NotBefore.UTC().Format(time.RFC3339)) {
		t.Errorf("let in again before its certificate of before begins: %v, want a refusal that says from when on", err)
	}
	if left := f.left(t, made); left != 1 {
		t.Errorf("the refusal has left %d uses of the token, want 1", left)
	}
	f.pass(45 * time.Minute) // it has begun, not long ago
	fresh, err := f.ask(t, made, hostA, csr(t, newKey(t)))
	if err != nil {
		t.Fatal(err)
	}
	if !fresh.NotBefore.After(old.NotBefore) || fresh.NotBefore.After(f.clock()) {
		t.Errorf("the new certificate begins at %s, the old one at %s; want it later, and not after %s", fresh.NotBefore, old.NotBefore, f.clock())
	}
	for name, c := range map[string]struct {
		cert *x509.Certificate
		want codes.Code
	}{"first": {first, codes.PermissionDenied}, "old": {old, codes.PermissionDenied}, "new": {fresh, codes.OK}} {
		if err := verify(c.cert); status.Code(err) != c.want {
			t.Errorf("let in again, the %s certificate: %v, want %s", name, err, c.want)
		}
	}
}

// TestRevokeEndsTokens: a token that was made for a host before it is revoked does not let it in again.
func TestRevokeEndsTokens(t *testing.T) {
	f := newFleet(t)
	for what, uses := range map[string]uint32{"with a use left": 2, "unused": 1} {
		own := f.token(t, &httpctlv1.CreateTokenRequest{TtlNs: int64(time.Hour), Uses: uses, HostId: hostA[:]})
		if uses > 1 {
			if _, err := f.ask(t, own, hostA, csr(t, newKey(t))); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := f.revoke(t, &httpctlv1.RevokeRequest{Who: hostA.String()}); err != nil {
			t.Fatal(err)
		}
		if _, err := f.ask(t, own, hostA, csr(t, newKey(t))); err == nil {
			t.Errorf("%s: a token of before lets the revoked host in", what)
		}
		later := f.token(t, &httpctlv1.CreateTokenRequest{TtlNs: int64(time.Hour), Uses: 1, HostId: hostA[:]})
		if _, err := f.ask(t, later, hostA, csr(t, newKey(t))); err != nil {
			t.Errorf("%s: a token of after: %v", what, err)
		}
	}
}

// TestCarry: a restored database lets in nobody whom the one before did not.
func TestCarry(t *testing.T) {
	for _, c := range []struct{ key, restored, replaced, want string }{
		{revokedKeys + "a", "", "later", "later"},
		{revokedKeys + "b", "backup", "later", "later"},
		{revokedKeys + "c", "backup", "", "backup"},
		{hostKeys + "a", "backup", "later", "later"},
		{hostKeys + "b", "backup", "", "backup"},
		{tokenKeys + "a", "backup", "later", "later"},
		{tokenKeys + "b", "backup", "", ""},
		{tokenKeys + "c", "", "later", "later"},
	} {
		bytesOf := func(s string) []byte {
			if s == "" {
				return nil
			}
			return []byte(s)
		}
		if got := Carry(c.key, bytesOf(c.restored), bytesOf(c.replaced)); string(got) != c.want || !strings.HasPrefix(c.key, StatePrefix) {
			t.Errorf("Carry(%q, %q, %q) = %q, want %q", c.key, c.restored, c.replaced, got, c.want)
		}
	}
}

func TestWhoIsRevoked(t *testing.T) {
	f := newFleet(t)
	f.deps.Connected = func() []Connected {
		return []Connected{{hostC, "db1", "db1.example.org"}, {hostB, "web2", "spiffe://fleet.example.org/agent/" + hostB.String()}, {hostA, "plain", ""}}
	}
	for id, name := range map[bucket.ID]string{hostA: "web1", hostB: "web2", {0xd}: "twin", {0xe}: "twin"} {
		if err := write(t.Context(), f.db, hostKey(id), 0, host{Name: name}); err != nil {
			t.Fatal(err)
		}
	}
	agent := "spiffe://fleet.example.org/agent/"
	for _, c := range []struct {
		q    *httpctlv1.RevokeRequest
		want string
		code codes.Code
	}{
		{&httpctlv1.RevokeRequest{Who: "web1"}, agent + hostA.String(), codes.OK},
		{&httpctlv1.RevokeRequest{Who: "web2"}, agent + hostB.String(), codes.OK},
		{&httpctlv1.RevokeRequest{Who: "db1"}, "db1.example.org", codes.OK},
		{&httpctlv1.RevokeRequest{Who: hostC.String()}, agent + hostC.String(), codes.OK},
		{&httpctlv1.RevokeRequest{Who: "viewer/alice"}, "spiffe://fleet.example.org/viewer/alice", codes.OK},
		{&httpctlv1.RevokeRequest{Who: "spiffe://corp/x"}, "spiffe://corp/x", codes.OK},
		{&httpctlv1.RevokeRequest{Identity: "web9.example.org"}, "web9.example.org", codes.OK},
		{&httpctlv1.RevokeRequest{Who: "twin"}, "2 hosts are called twin", codes.InvalidArgument},
		{&httpctlv1.RevokeRequest{Who: "plain"}, "no host plain", codes.NotFound},
		{&httpctlv1.RevokeRequest{Who: "nobody"}, "no host nobody", codes.NotFound},
		{&httpctlv1.RevokeRequest{Who: "a\x1b[2J"}, `no host a\x1b[2J`, codes.NotFound},
		{&httpctlv1.RevokeRequest{}, "whose certificate", codes.InvalidArgument},
		{&httpctlv1.RevokeRequest{Who: "web1", Identity: "x"}, "one identity", codes.InvalidArgument},
		{&httpctlv1.RevokeRequest{Identity: strings.Repeat("x", maxIdentity+1)}, "one identity", codes.InvalidArgument},
		{&httpctlv1.RevokeRequest{Who: "king/alice"}, "want one of", codes.InvalidArgument},
		{&httpctlv1.RevokeRequest{Who: "web3", Undo: true}, "no host web3", codes.NotFound},
		{&httpctlv1.RevokeRequest{Who: "admin/carol", Undo: true}, "is not revoked", codes.NotFound},
	} {
		got, err := f.revoke(t, c.q)
		if err != nil {
			got = err.Error()
		}
		if status.Code(err) != c.code || !strings.Contains(got, c.want) {
			t.Errorf("Revoke(%v) = %q, want %s and %q", c.q, got, c.code, c.want)
		}
	}
	a, err := f.ListCertificates(t.Context(), &httpctlv1.ListCertificatesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, c := range a.GetCertificates() {
		list = append(list, fmt.Sprint(strings.TrimPrefix(c.GetIdentity(), agent)[:5], " ", c.GetHostName(), " ", c.GetRevokedUnixNs() != 0))
	}
	if got, want := strings.Join(list, ", "), "db1.e  true, spiff  true, 0c000  true, spiff  true, web9.  true, 0d000 twin false, 0e000 twin false, 0a000 web1 true, 0b000 web2 true"; got != want {
		t.Errorf("ListCertificates() = %s, want %s", got, want)
	}
}

// TestOpenCallsEnd: with a revocation, and with the certificate's time; others go on.
func TestOpenCallsEnd(t *testing.T) {
	f := newFleet(t)
	sign := func(name string, life time.Duration) *x509.Certificate {
		t.Helper()
		c, err := x509.ParseCertificate(certificate(t, f.ca, authority.Subject{Role: authority.Admin, Name: name}, life, f.at).Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	alice, bob := sign("alice", time.Hour), sign("bob", 2*time.Hour)
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		f.Service.now = func() time.Time { return f.at.Add(time.Since(begin)) }
		var all sync.WaitGroup
		ended := map[string]error{}
		var mu sync.Mutex
		call := func(name string, c *x509.Certificate) {
			all.Go(func() {
				ctx, leave, err := f.Enter(holder(t.Context(), c))
				if err == nil {
					<-ctx.Done()
					err = context.Cause(ctx)
					leave()
				}
				mu.Lock()
				defer mu.Unlock()
				ended[name] = err
			})
			synctest.Wait()
		}
		gone := func(name string) codes.Code {
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			return status.Code(ended[name])
		}
		call("alice", alice)
		call("bob", bob)
		a, err := f.Revoke(t.Context(), &httpctlv1.RevokeRequest{Who: "admin/alice"})
		if err != nil || a.GetEnded() != 1 {
			t.Fatalf("Revoke() = %v, %v, want one call ended", a, err)
		}
		if gone("alice") != codes.PermissionDenied || gone("bob") != codes.OK {
			t.Errorf("after the revocation of alice: %v", ended)
		}
		time.Sleep(2*time.Hour - time.Second)
		if got := gone("bob"); got != codes.OK {
			t.Errorf("before the end of bob's certificate its call ended: %s", got)
		}
		time.Sleep(time.Second)
		if got := gone("bob"); got != codes.Unavailable {
			t.Errorf("at the end of bob's certificate: %s, want that its call ends", got)
		}
		if _, _, err := f.Enter(holder(t.Context(), bob)); status.Code(err) != codes.Unavailable {
			t.Errorf("a call on a connection whose certificate has ended: %v", err)
		}
		all.Wait()
		if n := len(f.Service.open); n != 0 {
			t.Errorf("%d calls are still noted", n)
		}
	})
	for reason, want := range map[string]float64{over: 1, revoked: 1} {
		if got := f.value("httpctl_enroll_ended_calls_total", reason); got != want {
			t.Errorf("ended_calls_total{reason=%q} = %v, want %v", reason, got, want)
		}
	}
}

// TestCallsWithoutCertificate are not the service's concern.
func TestCallsWithoutCertificate(t *testing.T) {
	f := newFleet(t)
	for _, ctx := range []context.Context{t.Context(), from(t, "127.0.0.1")} {
		got, leave, err := f.Enter(ctx)
		if err != nil || got != ctx {
			t.Errorf("enter() = %v, want the call as it is", err)
		}
		leave()
	}
	if err := f.Verify(tls.ConnectionState{}); err != nil {
		t.Errorf("Verify() without a certificate = %v", err)
	}
}

var _ grpc.ServerStream = watched{}
