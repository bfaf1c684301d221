package access

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/security"
	"github.com/httpctl/httpctl/pkg/testkit"
	httpctlv1 "github.com/httpctl/httpctl/proto/httpctl/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var hostA = bucket.ID{0xa}

// TestEveryMethodHasARole: the table and the contracts name the same methods.
func TestEveryMethodHasARole(t *testing.T) {
	found := map[string]bool{}
	protoregistry.GlobalFiles.RangeFilesByPackage("httpctl.v1", func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			s := f.Services().Get(i)
			for j := range s.Methods().Len() {
				name := fmt.Sprintf("/%s/%s", s.FullName(), s.Methods().Get(j).Name())
				found[name] = true
				if _, ok := methods[name]; !ok {
					t.Errorf("%s has no role: nobody can call it", name)
				}
			}
		}
		return true
	})
	for name := range methods {
		if !found[name] {
			t.Errorf("the table has %s, which is in no contract", name)
		}
	}
	if len(found) < 9 {
		t.Errorf("%d methods found in the contracts, want at least 9", len(found))
	}
}

func TestRoles(t *testing.T) {
	for _, c := range []struct {
		have, need Role
		want       bool
	}{
		{Agent, Agent, true}, {Agent, Viewer, false}, {Agent, Admin, false},
		{Viewer, Agent, false}, {Viewer, Viewer, true}, {Viewer, Admin, false},
		{Admin, Agent, false}, {Admin, Viewer, true}, {Admin, Admin, true},
		{0, Agent, false}, {0, Viewer, false}, {0, Admin, false}, {0, Anyone, true},
		{Agent | Viewer, Viewer, true}, {Agent | Admin, Agent, true},
	} {
		if got := c.have.Allows(c.need); got != c.want {
			t.Errorf("%s Allows(%s) = %v, want %v", c.have, c.need, got, c.want)
		}
	}
}

func TestEntries(t *testing.T) {
	for _, c := range []struct {
		entry, identity string
		want            bool
	}{
		{"web1.example.org", "web1.example.org", true},
		{"web1.example.org", "web1.example.org.evil.example", false},
		{"web1.example.org", "WEB1.example.org", false},
		{"*.example.org", "web1.example.org", true},
		{"*.example.org", ".example.org", false},
		{"*.example.org", "web1.example.org.evil.example", false},
		{"*.example.org", "spiffe://evil.example/web1.example.org", false},
		{"spiffe://corp/ns/*", "spiffe://corp/ns/web/sa/agent", true},
		{"spiffe://corp/ns/*", "spiffe://corp/ns/", false},
		{"spiffe://corp/ns/*/sa/httpctl", "spiffe://corp/ns/web/sa/httpctl", true},
		{"spiffe://corp/ns/*/sa/httpctl", "spiffe://corp/ns/web/sa/other/sa/httpctl", false},
		{"spiffe://corp/ns/*/sa/httpctl", "spiffe://corp/ns//sa/httpctl", false},
		{"*", "anything", true},
	} {
		p, _, err := parseEntry(c.entry)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.matches(c.identity); got != c.want {
			t.Errorf("%q matches %q = %v, want %v", c.entry, c.identity, got, c.want)
		}
	}
}

func TestRolesValidate(t *testing.T) {
	good := Roles{Agent: []string{"web1 = " + hostA.String(), "*"}, Viewer: []string{"*"}, Admin: []string{"alice", "spiffe://corp/admins/*"}}
	if err := good.Validate(); err != nil {
		t.Errorf("Validate() = %v, want nil", err)
	}
	for _, c := range []struct {
		roles Roles
		want  string
	}{
		{Roles{Admin: []string{"*"}}, "everybody"},
		{Roles{Agent: []string{"a*b*"}}, "agent[0]"},
		{Roles{Agent: []string{"web1 = 12"}}, "32 hexadecimal digits"},
		{Roles{Agent: []string{"web* = " + hostA.String()}}, "without *"},
		{Roles{Viewer: []string{"alice", "web1 = " + hostA.String()}}, "viewer[1]"},
		{Roles{Agent: []string{"a = " + hostA.String(), "b = " + hostA.String()}}, "each host once"},
		{Roles{Viewer: []string{""}}, "viewer[0]"},
		{Roles{Viewer: []string{" alice"}}, "viewer[0]"},
	} {
		if err := c.roles.Validate(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: Validate() = %v, want %q", c.roles, err, c.want)
		}
	}
}

// TestWhoIsWho: what a peer is known by, and which roles that gives.
func TestWhoIsWho(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin-token")
	token, err := security.MakeToken(path)
	if err != nil {
		t.Fatal(err)
	}
	shown, err := security.ReadToken(path)
	if err != nil {
		t.Fatal(err)
	}
	g := New(Roles{
		Agent:  []string{"*.agents.example.org", "web9.example.org = " + hostA.String(), "both"},
		Viewer: []string{"spiffe://other/viewer/*", "both"},
		Admin:  []string{"Alice"},
	}, Deps{UID: 990, Token: token, TokenFile: path, TrustDomain: "fleet"})

	cert := func(uri, dns, cn string) credentials.AuthInfo {
		c := &x509.Certificate{Subject: pkix.Name{CommonName: cn}}
		if uri != "" {
			u, err := url.Parse(uri)
			if err != nil {
				t.Fatal(err)
			}
			c.URIs = []*url.URL{u}
		}
		if dns != "" {
			c.DNSNames = []string{dns}
		}
		return credentials.TLSInfo{State: tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{c}}, PeerCertificates: []*x509.Certificate{c}}}
	}
	tcp := func(ip string) net.Addr { return &net.TCPAddr{IP: net.ParseIP(ip), Port: 4711} }
	unix := &net.UnixAddr{Name: "@", Net: "unix"}
	user := func(uid uint32) credentials.AuthInfo { return localInfo{uid: uid, known: true} }
	const far = "192.0.2.7"
	for _, c := range []struct {
		name  string
		addr  net.Addr
		auth  credentials.AuthInfo
		token []string
		want  Role
		host  bucket.ID
	}{
		{"root at the socket", unix, user(0), nil, Agent | Viewer | Admin, bucket.ID{}},
		{"the daemon's user", unix, user(990), nil, Agent | Viewer | Admin, bucket.ID{}},
		{"a member of the group", unix, user(1000), nil, Agent | Viewer, bucket.ID{}},
		{"a member with the token", unix, user(1000), []string{shown}, Agent | Viewer | Admin, bucket.ID{}},
		{"a socket without a name", unix, localInfo{}, nil, 0, bucket.ID{}},
		{"loopback", tcp("127.0.0.1"), localInfo{}, nil, Agent | Viewer, bucket.ID{}},
		{"loopback of IPv6", tcp("::1"), localInfo{}, nil, Agent | Viewer, bucket.ID{}},
		{"loopback, mapped", tcp("::ffff:127.0.0.1"), localInfo{}, nil, Agent | Viewer, bucket.ID{}},
		{"loopback with the token", tcp("127.0.0.1"), localInfo{}, []string{shown}, Agent | Viewer | Admin, bucket.ID{}},
		{"loopback with another token", tcp("127.0.0.1"), localInfo{}, []string{strings.Repeat("0", 64)}, Agent | Viewer, bucket.ID{}},
		{"loopback with an empty token", tcp("127.0.0.1"), localInfo{}, []string{""}, Agent | Viewer, bucket.ID{}},
		{"loopback that tries several", tcp("127.0.0.1"), localInfo{}, []string{"x", shown}, Agent | Viewer, bucket.ID{}},
		{"plain text from afar", tcp(far), localInfo{}, nil, 0, bucket.ID{}},
		{"plain text from afar with the token", tcp(far), localInfo{}, []string{shown}, 0, bucket.ID{}},
		{"another kind of address", &net.IPAddr{IP: net.ParseIP("127.0.0.1")}, localInfo{}, nil, 0, bucket.ID{}},
		{"no credentials", tcp("127.0.0.1"), nil, nil, 0, bucket.ID{}},
		{"TLS without a certificate", tcp(far), credentials.TLSInfo{}, nil, 0, bucket.ID{}},
		{"TLS from loopback is no user of this host", tcp("127.0.0.1"), cert("", "somebody", ""), []string{shown}, 0, bucket.ID{}},
		{"agent", tcp(far), cert("spiffe://fleet/agent/"+hostA.String(), "", ""), nil, Agent, hostA},
		{"agent of no host", tcp(far), cert("spiffe://fleet/agent/web1", "", ""), nil, 0, bucket.ID{}},
		{"agent of host zero", tcp(far), cert("spiffe://fleet/agent/"+strings.Repeat("0", 32), "", ""), nil, 0, bucket.ID{}},
		{"agent in capitals", tcp(far), cert("spiffe://fleet/agent/"+strings.ToUpper(hostA.String()), "", ""), nil, 0, bucket.ID{}},
		{"viewer", tcp(far), cert("spiffe://fleet/viewer/bob", "", ""), nil, Viewer, bucket.ID{}},
		{"admin", tcp(far), cert("spiffe://fleet/admin/bob", "", ""), nil, Admin, bucket.ID{}},
		{"aggregator", tcp(far), cert("spiffe://fleet/aggregator/center", "", ""), nil, 0, bucket.ID{}},
		{"longer path", tcp(far), cert("spiffe://fleet/admin/bob/x", "", ""), nil, 0, bucket.ID{}},
		{"shorter path", tcp(far), cert("spiffe://fleet/admin/", "", ""), nil, 0, bucket.ID{}},
		{"escaped path", tcp(far), cert("spiffe://fleet/admin%2fbob", "", ""), nil, 0, bucket.ID{}},
		{"query", tcp(far), cert("spiffe://fleet/admin/bob?x", "", ""), nil, 0, bucket.ID{}},
		{"another scheme", tcp(far), cert("https://fleet/admin/bob", "", ""), nil, 0, bucket.ID{}},
		{"another trust domain", tcp(far), cert("spiffe://other/admin/bob", "", ""), nil, 0, bucket.ID{}},
		{"another trust domain, named", tcp(far), cert("spiffe://other/viewer/bob", "", ""), nil, Viewer, bucket.ID{}},
		{"a common name like a URI", tcp(far), cert("", "", "spiffe://fleet/admin/bob"), nil, 0, bucket.ID{}},
		{"a common name like a listed URI", tcp(far), cert("", "", "spiffe://other/viewer/bob"), nil, 0, bucket.ID{}},
		{"a DNS name like a URI", tcp(far), cert("", "spiffe://other/viewer/bob", ""), nil, 0, bucket.ID{}},
		{"the URI counts, not the DNS name", tcp(far), cert("spiffe://other/x", "web1.agents.example.org", "Alice"), nil, 0, bucket.ID{}},
		{"the DNS name counts, not the common name", tcp(far), cert("", "web1.agents.example.org", "Alice"), nil, Agent, bucket.ID{}},
		{"a common name", tcp(far), cert("", "", "Alice"), nil, Admin, bucket.ID{}},
		{"an agent with its host", tcp(far), cert("", "web9.example.org", ""), nil, Agent, hostA},
		{"in two lists", tcp(far), cert("", "both", ""), nil, Agent | Viewer, bucket.ID{}},
		{"nameless", tcp(far), cert("", "", ""), nil, 0, bucket.ID{}},
		{"endless", tcp(far), cert("", "", strings.Repeat("x", 3000)), nil, 0, bucket.ID{}},
		{"stranger", tcp(far), cert("", "", "mallory"), nil, 0, bucket.ID{}},
	} {
		ctx := peer.NewContext(t.Context(), &peer.Peer{Addr: c.addr, AuthInfo: c.auth})
		if c.token != nil {
			ctx = metadata.NewIncomingContext(ctx, metadata.MD{security.TokenHeader: c.token})
		}
		got := g.peerOf(ctx)
		if got.Roles != c.want || got.Host != c.host || got.Who == "" {
			t.Errorf("%s: roles %s, host %s, who %q; want %s, %s", c.name, got.Roles, got.Host, got.Who, c.want, c.host)
		}
	}
	g.SetRoles(Roles{Viewer: []string{"Alice"}})
	if got := g.peerOf(peer.NewContext(t.Context(), &peer.Peer{Addr: tcp(far), AuthInfo: cert("", "", "Alice")})); got.Roles != Viewer {
		t.Errorf("after a change of the lists: %s, want viewer", got.Roles)
	}
	// Without an aggregator's certificate of httpctl ca, its identities mean nothing by themselves.
	g = New(Roles{}, Deps{})
	ctx := peer.NewContext(t.Context(), &peer.Peer{Addr: tcp(far), AuthInfo: cert("spiffe:///admin/bob", "", "")})
	if got := g.peerOf(ctx); got.Roles != 0 {
		t.Errorf("a URI without trust domain has the roles %s", got.Roles)
	}
	// Users whom the namespace does not know are all called 65534, and are not this program's user.
	g = New(Roles{}, Deps{UID: overflowUID})
	if got := g.peerOf(peer.NewContext(t.Context(), &peer.Peer{Addr: unix, AuthInfo: user(overflowUID)})); got.Roles != Agent|Viewer {
		t.Errorf("an unknown user has the roles %s", got.Roles)
	}
	// No token was made: none is right.
	if got := g.peerOf(metadata.NewIncomingContext(peer.NewContext(t.Context(), &peer.Peer{Addr: tcp("127.0.0.1"), AuthInfo: localInfo{}}),
		metadata.MD{security.TokenHeader: {""}})); got.Roles != Agent|Viewer {
		t.Errorf("with an empty token where there is none: %s", got.Roles)
	}
}

// answering takes every call that passes.
type answering struct {
	httpctlv1.UnimplementedQueryServiceServer
	httpctlv1.UnimplementedIngestServiceServer
	mu  sync.Mutex
	who []Peer
}

func (a *answering) note(ctx context.Context) {
	p, _ := From(ctx)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.who = append(a.who, p)
}

func (a *answering) GetStatus(ctx context.Context, _ *httpctlv1.GetStatusRequest) (*httpctlv1.GetStatusResponse, error) {
	a.note(ctx)
	return &httpctlv1.GetStatusResponse{}, nil
}

func (a *answering) Relearn(ctx context.Context, _ *httpctlv1.RelearnRequest) (*httpctlv1.RelearnResponse, error) {
	a.note(ctx)
	return &httpctlv1.RelearnResponse{}, nil
}

func (a *answering) Deliver(s grpc.BidiStreamingServer[httpctlv1.DeliverRequest, httpctlv1.DeliverResponse]) error {
	a.note(s.Context())
	return nil
}

// lines is a log that tests read.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// TestGate makes every kind of call by every kind of peer, over real sockets and TLS.
func TestGate(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "admin-token")
	token, err := security.MakeToken(path)
	if err != nil {
		t.Fatal(err)
	}
	shown, err := security.ReadToken(path)
	if err != nil {
		t.Fatal(err)
	}
	certs := testkit.NamedCertificates(t, map[string]netip.Addr{
		"center": netip.MustParseAddr("127.0.0.1"), "web1": {}, "bob": {}, "alice": {}, "mallory": {}, "mixed": {},
	}, map[string]string{
		"center": "spiffe://fleet/aggregator/center", "web1": "spiffe://fleet/agent/" + hostA.String(),
		"bob": "spiffe://fleet/viewer/bob", "alice": "spiffe://fleet/admin/alice",
	})
	files := func(name string) security.TLS {
		return security.TLS{CertFile: certs + "/" + name + ".pem", KeyFile: certs + "/" + name + ".key", CAFile: certs + "/ca.pem"}
	}
	var log lines
	g := New(Roles{Agent: []string{"mixed"}, Viewer: []string{"mixed"}}, Deps{
		Log: slog.New(slog.NewTextHandler(&log, nil)), UID: uint32(os.Geteuid()), Token: token, TokenFile: path, TrustDomain: "fleet",
	})
	service := &answering{}
	var served sync.WaitGroup
	t.Cleanup(served.Wait)
	serve := func(address string, creds credentials.TransportCredentials) string {
		t.Helper()
		l, err := security.Listen(t.Context(), address)
		if err != nil {
			t.Fatal(err)
		}
		server := grpc.NewServer(append(g.ServerOptions(), grpc.Creds(creds))...)
		httpctlv1.RegisterQueryServiceServer(server, service)
		httpctlv1.RegisterIngestServiceServer(server, service)
		served.Go(func() { _ = server.Serve(l) })
		t.Cleanup(server.Stop)
		return l.Addr().String()
	}
	secure, err := security.ServerCredentials(files("center"), nil)
	if err != nil {
		t.Fatal(err)
	}
	plain, tlsAddress := serve("127.0.0.1:0", Local()), serve("127.0.0.1:0", secure)
	unix := "unix://" + serve("unix:"+dir+"/s", Local())

	type answer map[string]string // method -> "" or a part of the refusal
	const nobody, agentOnly = "has none: show one that httpctl ca has made", "is agent: show another one"
	for _, c := range []struct {
		name, target, cert, token string
		want                      answer
	}{
		{"the socket", unix, "", "", answer{}},
		{"loopback", plain, "", "", answer{"Relearn": "over loopback takes the token in " + path}},
		{"loopback with the token", plain, "", shown, answer{}},
		{"loopback with another", plain, "", strings.Repeat("a", 64), answer{"Relearn": "the token is not this aggregator's"}},
		{"an agent", tlsAddress, "web1", "", answer{"GetStatus": agentOnly, "Relearn": agentOnly}},
		{"a viewer", tlsAddress, "bob", "", answer{"Deliver": "is viewer", "Relearn": "aggregator.roles.admin"}},
		{"a viewer with the token", tlsAddress, "bob", shown, answer{"Deliver": "is viewer", "Relearn": "aggregator.roles.admin"}},
		{"an admin", tlsAddress, "alice", "", answer{"Deliver": "is admin"}},
		{"a stranger of the authority", tlsAddress, "mallory", "", answer{"Deliver": nobody, "GetStatus": nobody, "Relearn": nobody}},
		{"one in two lists", tlsAddress, "mixed", "", answer{"Relearn": "is agent and viewer"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			tls := security.TLS{}
			if c.cert != "" {
				tls = files(c.cert)
			}
			creds, err := security.ClientCredentials(tls)
			if err != nil {
				t.Fatal(err)
			}
			conn, err := grpc.NewClient(c.target, grpc.WithTransportCredentials(creds))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			defer cancel()
			if c.token != "" {
				ctx = metadata.AppendToOutgoingContext(ctx, security.TokenHeader, c.token)
			}
			query, ingest := httpctlv1.NewQueryServiceClient(conn), httpctlv1.NewIngestServiceClient(conn)
			for method, call := range map[string]func() error{
				"GetStatus": func() error { _, err := query.GetStatus(ctx, &httpctlv1.GetStatusRequest{}); return err },
				"Relearn":   func() error { _, err := query.Relearn(ctx, &httpctlv1.RelearnRequest{}); return err },
				"Deliver": func() error {
					s, err := ingest.Deliver(ctx)
					if err == nil {
						_, err = s.Recv()
					}
					if err != nil && err.Error() == "EOF" {
						return nil
					}
					return err
				},
			} {
				err := call()
				switch want := c.want[method]; {
				case want == "" && err != nil:
					t.Errorf("%s: %v, want it let through", method, err)
				case want != "" && (status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), want)):
					t.Errorf("%s: %v, want it refused with %q", method, err, want)
				}
			}
		})
	}
	service.mu.Lock()
	defer service.mu.Unlock()
	for _, p := range service.who {
		if p.Who == "" || p.way == unknown {
			t.Errorf("the service was told %+v", p)
		}
	}
	for _, want := range []string{"mallory", "/httpctl.v1.QueryService/Relearn", "plain text from loopback"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log does not say %q:\n%s", want, log.String())
		}
	}
	if strings.Contains(log.String(), shown) {
		t.Error("the log has the token")
	}
}

// TestUnknownMethod: a method that is registered and not in the table is refused, to everybody.
func TestUnknownMethod(t *testing.T) {
	var log lines
	g := New(Roles{}, Deps{Log: slog.New(slog.NewTextHandler(&log, nil))})
	ctx := peer.NewContext(t.Context(), &peer.Peer{Addr: &net.UnixAddr{}, AuthInfo: localInfo{known: true}})
	for range 3 {
		if _, err := g.enter(ctx, "/httpctl.v1.QueryService/Invented\x1b[2J"); status.Code(err) != codes.PermissionDenied || strings.Contains(err.Error(), "\x1b") {
			t.Errorf("an unknown method: %v, want a clean PermissionDenied", err)
		}
	}
	if n := strings.Count(log.String(), "a call is refused"); n != 1 {
		t.Errorf("logged %d times, want once:\n%s", n, log.String())
	}
}

func TestRefusalsAreLoggedOnce(t *testing.T) {
	var l refusals
	now := time.Unix(1e9, 0)
	pass := func(kind string, held uint64, ok bool) {
		t.Helper()
		if h, o := l.pass(now, kind); h != held || o != ok {
			t.Errorf("pass(%s) = %d, %v, want %d, %v", kind, h, o, held, ok)
		}
	}
	pass("a", 0, true)
	pass("a", 0, false)
	pass("a", 0, false)
	pass("b", 2, true)
	now = now.Add(59 * time.Minute)
	pass("a", 0, false)
	now = now.Add(time.Minute)
	pass("a", 1, true)
	// Different ones, as from a stranger with many names, come at a bounded rate.
	logged := 0
	for i := range 10 * maxKinds {
		if _, ok := l.pass(now, fmt.Sprint(i)); ok {
			logged++
		}
		now = now.Add(10 * time.Millisecond)
	}
	if want := logBurst + int(10*maxKinds*10*time.Millisecond/logEvery); logged > want || logged < want-2 {
		t.Errorf("%d lines, want about %d", logged, want)
	}
	if len(l.logged) > maxKinds {
		t.Errorf("%d kinds are remembered, want at most %d", len(l.logged), maxKinds)
	}
}
