package enroll

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/httpctl/httpctl/pkg/authority"
	"github.com/httpctl/httpctl/pkg/bucket"
	httpctlv1 "github.com/httpctl/httpctl/proto/httpctl/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	hostA = bucket.ID{0xa}
	hostB = bucket.ID{0xb}
	hostC = bucket.ID{0xc}
)

// TestEnroll: as many hosts as the token has uses, each with a certificate of its own id and key, whatever else it asks for.
func TestEnroll(t *testing.T) {
	f := newFleet(t)
	made := f.token(t, &httpctlv1.CreateTokenRequest{TtlNs: int64(time.Hour), Uses: 2})
	if made.Authority != f.ca.Fingerprint() || made.Addresses[0] != "127.0.0.1:7420" {
		t.Errorf("the token names %s at %q", made.Authority, made.Addresses)
	}
	key := newKey(t)
	greedy, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "admin"}, DNSNames: []string{"center.example.org"}, IPAddresses: []net.IP{{192, 0, 2, 1}},
		URIs: []*url.URL{{Scheme: "spiffe", Host: "fleet.example.org", Path: "/admin/eve"}},
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := f.ask(t, made, hostA, greedy)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(cert.URIs, cert.DNSNames, cert.IPAddresses), "[spiffe://fleet.example.org/agent/"+hostA.String()+"] [] []"; got != want {
		t.Errorf("the certificate names %s, want %s", got, want)
	}
	if !key.PublicKey.Equal(cert.PublicKey) {
		t.Error("the certificate is of another key")
	}
	if _, err := f.ask(t, made, hostB, csr(t, newKey(t))); err != nil {
		t.Errorf("the second host: %v", err)
	}
	if got := f.left(t, made); got != -1 {
		t.Errorf("a token that is used up is listed with %d uses", got)
	}
	if _, err := f.ask(t, made, hostC, csr(t, newKey(t))); status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), "used up") {
		t.Errorf("the third host: %v, want used up", err)
	}
	if got := f.value("httpctl_enroll_hosts_total", ""); got != 2 {
		t.Errorf("enrolled %v, want 2", got)
	}
}

// TestLostAnswer: who asks again with the same key gets its certificate, and that costs no use.
func TestLostAnswer(t *testing.T) {
	f := newFleet(t)
	made := f.token(t, &httpctlv1.CreateTokenRequest{TtlNs: int64(time.Hour), Uses: 1})
	key := newKey(t)
	for try := range 3 {
		if _, err := f.ask(t, made, hostA, csr(t, key)); err != nil {
			t.Errorf("try %d: %v", try, err)
		}
		f.restart(t)
	}
	if _, err := f.ask(t, made, hostA, csr(t, newKey(t))); status.Code(err) != codes.AlreadyExists {
		t.Errorf("the same host with another key: %v, want that it is taken", err)
	}
}

// TestLostAnswersAreLimited: each costs a certificate and an fsync, and no use; who asks all the time gets a few, then one a
// minute, also over restarts. What was kept before they were counted is read.
func TestLostAnswersAreLimited(t *testing.T) {
	f := newFleet(t)
	made := f.token(t, &httpctlv1.CreateTokenRequest{TtlNs: int64(time.Hour), Uses: 2})
	key := newKey(t)
	ask := func(want codes.Code, what string) {
		t.Helper()
		if _, err := f.ask(t, made, hostA, csr(t, key)); status.Code(err) != want {
			t.Errorf("%s: %v, want %s", what, err, want)
		}
	}
	for try := range 1 + freeAnswers {
		ask(codes.OK, fmt.Sprint("try ", try))
	}
	ask(codes.ResourceExhausted, "one more")
	f.restart(t)
	ask(codes.ResourceExhausted, "after a restart")
	if got := f.refusals(tooMany); got != 1 {
		t.Errorf("refused_total{reason=%q} = %v since the restart, want 1", tooMany, got)
	}
	f.pass(renewPause - time.Second)
	ask(codes.ResourceExhausted, "in the pause")
	f.pass(time.Second)
	ask(codes.OK, "after the pause")
	ask(codes.ResourceExhausted, "at once after that")
	if _, err := f.ask(t, made, hostB, csr(t, key)); err != nil {
		t.Errorf("another host: %v", err)
	}

	value, version, err := f.db.Get(t.Context(), hostKey(hostA))
	old := bytes.Replace(value, []byte(`"again":5,`), nil, 1)
	if err != nil || len(old) == len(value) {
		t.Fatalf("kept is %s, %v, want a count", value, err)
	}
	if _, err := f.db.CompareAndSwap(t.Context(), hostKey(hostA), version, old); err != nil {
		t.Fatal(err)
	}
	ask(codes.OK, "with a record that counts none")
}

func TestEnrollRefuses(t *testing.T) {
	f := newFleet(t)
	ttl := int64(time.Hour)
	good := f.token(t, &httpctlv1.CreateTokenRequest{TtlNs: ttl, Uses: 10})
	forB := f.token(t, &httpctlv1.CreateTokenRequest{TtlNs: ttl, Uses: 1, HostId: hostB[:]})
	revoked := f.token(t, &httpctlv1.CreateTokenRequest{TtlNs: ttl, Uses: 1})
	if _, err := f.RevokeToken(t.Context(), &httpctlv1.RevokeTokenRequest{Id: revoked.ID}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.ask(t, good, hostA, csr(t, newKey(t))); err != nil {
		t.Fatal(err)
	}
	old, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	forged := csr(t, newKey(t))
	forged[len(forged)-1] ^= 1
	valid := csr(t, newKey(t))
	other := good
	other.Secret = bytes.Repeat([]byte{1}, 32)
	guess := good
	guess.ID = "000000000000"
	path := good
	path.ID = "../host/" + hostA.String()
	for name, c := range map[string]struct {
		token  authority.Token
		host   []byte
		csr    []byte
		name   string
		code   codes.Code
		reason string
		want   string
	}{
		"another secret":         {other, hostB[:], valid, "", codes.PermissionDenied, badToken, "not known here"},
		"no secret":              {authority.Token{ID: good.ID}, hostB[:], valid, "", codes.PermissionDenied, badToken, "not known here"},
		"another id":             {guess, hostB[:], valid, "", codes.PermissionDenied, badToken, "not known here"},
		"an id of another key":   {path, hostB[:], valid, "", codes.PermissionDenied, badToken, "not known here"},
		"a revoked token":        {revoked, hostB[:], valid, "", codes.PermissionDenied, badToken, "revoked"},
		"a token of another":     {forB, hostC[:], valid, "", codes.PermissionDenied, badToken, "httpctl enroll create --host " + hostC.String()},
		"a host that is there":   {good, hostA[:], valid, "", codes.AlreadyExists, taken, "remove the file host-id"},
		"no host":                {good, nil, valid, "", codes.InvalidArgument, badRequest, "16 bytes"},
		"host zero":              {good, make([]byte, 16), valid, "", codes.InvalidArgument, badRequest, "not be zero"},
		"a long host":            {good, make([]byte, 17), valid, "", codes.InvalidArgument, badRequest, "16 bytes"},
		"a long name":            {good, hostB[:], valid, strings.Repeat("x", 256), codes.InvalidArgument, badRequest, "at most 255"},
		"a name that is no text": {good, hostB[:], valid, "\xff", codes.InvalidArgument, badRequest, "UTF-8"},
		"no request":             {good, hostB[:], nil, "", codes.InvalidArgument, badRequest, "0 bytes"},
		"a long request":         {good, hostB[:], make([]byte, authority.MaxRequest+1), "", codes.InvalidArgument, badRequest, "4097 bytes"},
		"a request of noise":     {good, hostB[:], []byte("0123456789"), "", codes.InvalidArgument, badRequest, "cannot be read"},
		"a request of a thief":   {good, hostB[:], forged, "", codes.InvalidArgument, badRequest, "not signed by its key"},
		"an RSA key":             {good, hostB[:], csr(t, old), "", codes.InvalidArgument, badRequest, "ECDSA P-256"},
	} {
		before, bad := f.refusals(c.reason), f.left(t, good)
		_, err := f.Enroll(from(t, "192.0.2.1"), &httpctlv1.EnrollRequest{TokenId: c.token.ID, Secret: c.token.Secret, Csr: c.csr, HostId: c.host, HostName: c.name})
		if status.Code(err) != c.code || !strings.Contains(fmt.Sprint(err), c.want) {
			t.Errorf("%s: %v, want %s and %q", name, err, c.code, c.want)
		}
		if got := f.refusals(c.reason); got != before+1 {
			t.Errorf("%s: refused_total{reason=%q} = %v, want %v", name, c.reason, got, before+1)
		}
		if got := f.left(t, good); got != bad {
			t.Errorf("%s: the token has %d uses left, want %d as before", name, got, bad)
		}
		f.pass(time.Minute) // so that not too many bad tokens come in a row
	}
	f.pass(time.Hour)
	if _, err := f.ask(t, good, hostB, valid); status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), "the token ended at") {
		t.Errorf("an ended token: %v", err)
	}
	if _, err := f.ask(t, other, hostB, valid); err == nil || strings.Contains(err.Error(), "ended at") {
		t.Errorf("an ended token with another secret: %v, want nothing said of its end", err)
	}
	if strings.Contains(f.log.String(), "\x1b") {
		t.Error("the log holds escapes")
	}
}

// TestTakenHost: a host that is enrolled comes again with a token of its own, or once its certificate cannot be renewed any more.
func TestTakenHost(t *testing.T) {
	f := newFleet(t)
	any := f.token(t, &httpctlv1.CreateTokenRequest{TtlNs: int64(24 * time.Hour), Uses: 10})
	own := f.token(t, &httpctlv1.CreateTokenRequest{TtlNs: int64(time.Hour), Uses: 1, HostId: hostA[:]})
	for _, c := range []struct {
		what  string
		token authority.Token
		pass  time.Duration
		want  codes.Code
	}{
		{"first", any, 0, codes.OK},
		{"again", any, 0, codes.AlreadyExists},
		{"again with its own token", own, 0, codes.OK},
		{"after its end", any, 2 * time.Hour, codes.AlreadyExists},
		{"after the grace", any, time.Hour + time.Second, codes.OK},
	} {
		f.pass(c.pass)
		if _, err := f.ask(t, c.token, hostA, csr(t, newKey(t))); status.Code(err) != c.want {
			t.Errorf("%s: %v, want %s", c.what, err, c.want)
		}
	}
}

// TestReportedHost: the id of a host that delivers without having enrolled is not had with a token for any host, and nothing is
// used up; a token of its own enrols it.
func TestReportedHost(t *testing.T) {
	f := newFleet(t)
	any := f.token(t, &httpctlv1.CreateTokenRequest{TtlNs: int64(time.Hour), Uses: 2})
	own := f.token(t, &httpctlv1.CreateTokenRequest{TtlNs: int64(time.Hour), Uses: 1, HostId: hostA[:]})
	var broken error
	reported := map[bucket.ID]bool{hostA: true}
	f.deps.Reported = func(_ context.Context, id bucket.ID) (bool, error) { return reported[id], broken }
	key := newKey(t)
	for _, c := range []struct {
		what  string
		token authority.Token
		host  bucket.ID
		key   *ecdsa.PrivateKey
		err   error
		want  codes.Code
		left  int
	}{
		{"one that delivers", any, hostA, newKey(t), nil, codes.AlreadyExists, 2},
		{"a new one, which cannot be looked up", any, hostB, key, errors.New("it broke"), codes.Unavailable, 2},
		{"a new one", any, hostB, key, nil, codes.OK, 1},
		{"that one, which delivers now and has lost the answer", any, hostB, key, nil, codes.OK, 1},
		{"one that delivers, with a token of its own", own, hostA, newKey(t), nil, codes.OK, 1},
	} {
		broken = c.err
		_, err := f.ask(t, c.token, c.host, csr(t, c.key))
		if status.Code(err) != c.want || f.left(t, any) != c.left {
			t.Errorf("%s: %v and %d uses left, want %s and %d", c.what, err, f.left(t, any), c.want, c.left)
		}
		if c.want == codes.AlreadyExists && !strings.Contains(err.Error(), "httpctl enroll create --host "+c.host.String()) {
			t.Errorf("%s: %v, want what to do", c.what, err)
		}
		reported[hostB] = err == nil
	}
	if got := f.refusals(taken); got != 1 {
		t.Errorf("refused_total{reason=%q} = %v, want 1", taken, got)
	}
}

// TestUsesAreCountedOnce: of many at once, and after a restart, no more enrol than the token has uses.
func TestUsesAreCountedOnce(t *testing.T) {
	f := newFleet(t)
	made := f.token(t, &httpctlv1.CreateTokenRequest{TtlNs: int64(time.Hour), Uses: 3})
	request := csr(t, newKey(t))
	var in sync.Map
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			id := bucket.ID{1, byte(i)}
			ctx := from(t, fmt.Sprintf("192.0.2.%d", i))
			if _, err := f.Enroll(ctx, &httpctlv1.EnrollRequest{TokenId: made.ID, Secret: made.Secret, Csr: request, HostId: id[:]}); err == nil {
				in.Store(i, true)
			}
		})
	}
	all.Wait()
	n := 0
	in.Range(func(any, any) bool { n++; return true })
	if n != 3 {
		t.Errorf("%d hosts came in with 3 uses", n)
	}
	f.restart(t)
	if _, err := f.ask(t, made, hostB, request); err == nil {
		t.Error("after a restart another host comes in")
	}
}

func TestTokenIsNotKept(t *testing.T) {
	f := newFleet(t)
	made := f.token(t, &httpctlv1.CreateTokenRequest{TtlNs: int64(time.Hour), Uses: 1})
	if err := f.db.List(t.Context(), "", "", func(key string, value []byte, _ uint64) error {
		if bytes.Contains(value, made.Secret) || strings.Contains(string(value), made.Text()) {
			return errors.New("the secret is in " + key)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	if strings.Contains(f.log.String(), made.Text()) {
		t.Error("the token is in the log")
	}
}

func TestCreateTokenRefuses(t *testing.T) {
	f := newFleet(t)
	for name, c := range map[string]struct {
		q    *httpctlv1.CreateTokenRequest
		want string
	}{
		"no time":          {&httpctlv1.CreateTokenRequest{Uses: 1}, "lasts 1m to"},
		"less than none":   {&httpctlv1.CreateTokenRequest{TtlNs: -1, Uses: 1}, "lasts 1m to"},
		"two years":        {&httpctlv1.CreateTokenRequest{TtlNs: int64(2 * maxTTL), Uses: 1}, "lasts 1m to"},
		"no use":           {&httpctlv1.CreateTokenRequest{TtlNs: int64(time.Hour)}, "1 to 100000 uses"},
		"many uses":        {&httpctlv1.CreateTokenRequest{TtlNs: int64(time.Hour), Uses: MaxUses + 1}, "1 to 100000 uses"},
		"half a host":      {&httpctlv1.CreateTokenRequest{TtlNs: int64(time.Hour), Uses: 1, HostId: hostA[:8]}, "16 bytes"},
		"a socket":         {&httpctlv1.CreateTokenRequest{TtlNs: int64(time.Hour), Uses: 1, Addresses: []string{"unix:/x"}}, "want host:port"},
		"no port":          {&httpctlv1.CreateTokenRequest{TtlNs: int64(time.Hour), Uses: 1, Addresses: []string{"center"}}, "want host:port"},
		"a street of them": {&httpctlv1.CreateTokenRequest{TtlNs: int64(time.Hour), Uses: 1, Addresses: make([]string, 17)}, "want 1 to 16"},
	} {
		if _, err := f.CreateToken(t.Context(), c.q); status.Code(err) != codes.InvalidArgument || !strings.Contains(fmt.Sprint(err), c.want) {
			t.Errorf("CreateToken with %s = %v, want %q", name, err, c.want)
		}
	}
	m := memory{} // a thousand fsyncs take long
	f.Service.deps.Store = m
	for i := range maxTokens - 1 {
		if err := write(t.Context(), m, fmt.Sprintf("%s%012x", tokenKeys, i), 0, token{Expires: f.at.Add(time.Hour).UnixNano(), Uses: 1, Left: 1}); err != nil {
			t.Fatal(err)
		}
	}
	f.token(t, &httpctlv1.CreateTokenRequest{TtlNs: int64(time.Hour), Uses: 1})
	if _, err := f.CreateToken(t.Context(), &httpctlv1.CreateTokenRequest{TtlNs: int64(time.Hour), Uses: 1}); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("one more than %d tokens: %v", maxTokens, err)
	}
	// Those that have ended make room, and are forgotten in time.
	f.pass(time.Hour + keepEnded)
	f.token(t, &httpctlv1.CreateTokenRequest{TtlNs: int64(time.Hour), Uses: 1})
	kept := 0
	if err := each(t.Context(), m, tokenKeys, func(string, token, uint64) error { kept++; return nil }); err != nil || kept != 1 {
		t.Errorf("%d tokens are kept, %v, want the new one", kept, err)
	}
}

// TestBadTokensAreLimited: after some bad tokens an address has to wait, also with a good one; others do not.
func TestBadTokensAreLimited(t *testing.T) {
	f := newFleet(t)
	good := f.token(t, &httpctlv1.CreateTokenRequest{TtlNs: int64(time.Hour), Uses: 10})
	try := func(ip string, made authority.Token, id bucket.ID) codes.Code {
		_, err := f.Enroll(from(t, ip), &httpctlv1.EnrollRequest{TokenId: made.ID, Secret: made.Secret, Csr: csr(t, newKey(t)), HostId: id[:]})
		return status.Code(err)
	}
	bad := good
	bad.Secret = make([]byte, 32)
	for i := range burst {
		if got := try("2001:db8::1", bad, hostA); got != codes.PermissionDenied {
			t.Fatalf("bad token %d: %s", i, got)
		}
	}
	for ip, want := range map[string]codes.Code{"2001:db8::1": codes.ResourceExhausted, "2001:db8::ffff": codes.ResourceExhausted, "2001:db8:0:1::1": codes.OK} {
		if got := try(ip, good, hostA); got != want {
			t.Errorf("a good token from %s: %s, want %s", ip, got, want)
		}
	}
	if got := f.refusals(tooMany); got != 2 {
		t.Errorf("refused_total{reason=rate} = %v, want 2", got)
	}
	f.pass(refill)
	if got := try("2001:db8::1", good, hostB); got != codes.OK {
		t.Errorf("after %s: %s", refill, got)
	}
}

func TestLimiterIsBounded(t *testing.T) {
	var l limiter
	now := time.Now()
	for i := range 3 * maxCallers {
		l.failed(&net.TCPAddr{IP: net.IPv4(10, byte(i>>16), byte(i>>8), byte(i))}, now)
	}
	if got := len(l.callers); got > maxCallers {
		t.Errorf("%d addresses are remembered, want at most %d", got, maxCallers)
	}
	l.failed(&net.TCPAddr{IP: net.IPv4(192, 0, 2, 1)}, now.Add(time.Hour))
	if got := len(l.callers); got != 1 {
		t.Errorf("an hour later %d addresses are remembered, want those that came since", got)
	}
	if got := l.wait(&net.UnixAddr{Name: "@"}, now); got != 0 {
		t.Errorf("wait of a socket = %s, want 0", got)
	}
}

func TestWithoutAuthority(t *testing.T) {
	f := newFleet(t)
	s, err := New(DefaultConfig(), Deps{Store: f.db})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.CreateToken(t.Context(), &httpctlv1.CreateTokenRequest{}); status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "httpctl ca init") {
		t.Errorf("CreateToken() = %v, want what to do", err)
	}
}

// TestCheckState: what the service has written is well, and what it could not read is not.
func TestCheckState(t *testing.T) {
	f := newFleet(t)
	made := f.token(t, &httpctlv1.CreateTokenRequest{TtlNs: int64(time.Hour), Uses: 2})
	if _, err := f.ask(t, made, hostA, csr(t, newKey(t))); err != nil {
		t.Fatal(err)
	}
	if _, err := f.revoke(t, &httpctlv1.RevokeRequest{Who: hostA.String()}); err != nil {
		t.Fatal(err)
	}
	kept := 0
	if err := f.db.List(t.Context(), "enroll/", "enroll0", func(key string, value []byte, _ uint64) error {
		kept++
		if err := CheckState(key, []byte("noise")); err == nil {
			t.Errorf("CheckState(%s, noise) = nil, want an error", key)
		}
		return CheckState(key, value)
	}); err != nil || kept != 3 {
		t.Errorf("%d values are kept, %v, want a token, a host and a revocation", kept, err)
	}
	if err := CheckState("baseline/fleet", []byte("noise")); err != nil {
		t.Errorf("CheckState of another's value = %v", err)
	}
}
