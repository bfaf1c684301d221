package test

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	aggregator "github.com/httpctl/httpctl/aggregator/app"
	"github.com/httpctl/httpctl/cmd/httpctl/client"
	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/security"
	"github.com/httpctl/httpctl/pkg/testkit"
	httpctlv1 "github.com/httpctl/httpctl/proto/httpctl/v1"
)

// showRoles: a certificate of one's own authority may do what the lists say, and nothing else.
func showRoles(t *testing.T) {
	certs := testkit.Certificates(t, map[string]netip.Addr{"center": netip.MustParseAddr("127.0.0.1"), "somebody": {}})
	files := func(name string) security.TLS {
		return security.TLS{CertFile: certs + "/" + name + ".pem", KeyFile: certs + "/" + name + ".key", CAFile: certs + "/ca.pem"}
	}
	for role, want := range map[string][]string{"": nil, "agent": {"agent"}, "viewer": {"viewer"}, "admin": {"viewer", "admin"}} {
		settings, center := quick(), aggregator.DefaultConfig()
		center.Data, center.Listen, center.TLS = t.TempDir(), []string{freePort(t)}, files("center")
		switch role {
		case "agent":
			center.Roles.Agent = []string{"somebody"}
		case "viewer":
			center.Roles.Viewer = []string{"some*"}
		case "admin":
			center.Roles.Admin = []string{"somebody"}
		}
		app, err := aggregator.Start(t.Context(), settings, center, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		c, err := client.New(client.Options{Address: center.Listen[0], TLS: files("somebody")})
		if err != nil {
			t.Fatal(err)
		}
		creds, err := security.ClientCredentials(files("somebody"))
		if err != nil {
			t.Fatal(err)
		}
		conn, err := grpc.NewClient(center.Listen[0], grpc.WithTransportCredentials(creds))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		may := func(name string, err error) {
			switch {
			case err == nil:
				got = append(got, name)
			case !strings.Contains(err.Error(), "aggregator.roles."+name):
				t.Errorf("the refusal does not say what to set: %v", err)
			}
		}
		stream, err := httpctlv1.NewIngestServiceClient(conn).Deliver(t.Context())
		if err == nil {
			_ = stream.CloseSend() // an agent that says nothing is done
			if _, err = stream.Recv(); status.Code(err) != codes.PermissionDenied {
				err = nil
			}
		}
		may("agent", err)
		_, err = c.Hosts(t.Context(), client.Question{})
		may("viewer", err)
		_, err = c.Relearn(t.Context())
		may("admin", err)
		if !slices.Equal(got, want) {
			t.Errorf("in the list %q it may do what %v may, want %v", role, got, want)
		}
		_, _ = c.Close(), conn.Close()
		if err := app.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// TestWhoMayRelearn asks the programs, as root, as another user, over the socket, loopback and TLS.
func TestWhoMayRelearn(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to be another user")
	}
	dir := worldReadable(t)
	data, secure := filepath.Join(dir, "httpctl"), filepath.Join(dir, "secure")
	if err := os.Mkdir(data, 0o755); err != nil { // as it is for the members of its group
		t.Fatal(err)
	}
	listen, listenTLS := freePort(t), freePort(t)
	serve := func(data, listen string) {
		a := launch(t, "httpctl-aggregator", "--config", write(t, "aggregator.yaml", fmt.Sprintf("aggregator:\n  data: %s\n  listen: ['%s']\n", data, listen)))
		a.says(t, "address="+listen)
	}
	serve(data, listen)
	commanded(t, "httpctl", "ca", "init", "--data", secure, "--name", "127.0.0.1")
	for _, role := range []string{"viewer", "admin"} {
		commanded(t, "httpctl", "ca", "issue", "--data", secure, "--role", role, role, "-o", dir)
	}
	serve(secure, listenTLS)

	token := filepath.Join(data, "admin-token")
	if fi, err := os.Stat(token); err != nil || fi.Mode() != 0o600 {
		t.Fatalf("the token's file: %v, %v, want mode 0600", fi.Mode(), err)
	}
	copied := write(t, "token", page(t, "docs/README.md"))
	root := func(*exec.Cmd) {}
	member := func(c *exec.Cmd) { // of the group of the socket
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 4711, Gid: 0}}
	}
	home := func(c *exec.Cmd) { c.Env = append(c.Env, "XDG_STATE_HOME="+dir) } // DIR/httpctl is its data directory
	both := func(f, g func(*exec.Cmd)) func(*exec.Cmd) { return func(c *exec.Cmd) { f(c); g(c) } }
	owner := both(home, func(c *exec.Cmd) { // who may read what is in its home, and is not root
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 4712, Gid: 4712}, AmbientCaps: []uintptr{capDACReadSearch}}
	})
	tls := func(who string) string {
		return fmt.Sprintf(" --tls-ca %[1]s/ca.pem --tls-cert %[1]s/%[2]s.pem --tls-key %[1]s/%[2]s.key", dir, who)
	}
	for _, c := range []struct {
		name, args string
		as         func(*exec.Cmd)
		code       int
		want       string
	}{
		{"root at the socket", "baseline relearn --aggregator unix:" + data + "/httpctl.sock", root, 0, ""},
		{"a member reads", "hosts --aggregator unix:" + data + "/httpctl.sock", member, 0, ""},
		{"a member at the socket", "baseline relearn --aggregator unix:" + data + "/httpctl.sock", member, 1, "user 4711 of the socket is not root nor the aggregator's user"},
		{"loopback, reading", "hosts --aggregator " + listen, member, 0, ""},
		{"loopback", "baseline relearn --aggregator " + listen, member, 1, "takes the token in " + token},
		{"loopback with the token's file", "baseline relearn --aggregator " + listen + " --token-file " + token, root, 0, ""},
		{"loopback, finding the token", "baseline relearn --aggregator " + listen, owner, 0, ""},
		{"a file without token", "baseline relearn --aggregator " + listen + " --token-file " + copied, root, 2, "there is none in it"},
		{"no file", "baseline relearn --aggregator " + listen + " --token-file /nonexistent", root, 2, "no such file"},
		{"the token of another", "baseline relearn --aggregator " + listen + " --token-file " + filepath.Join(secure, "admin-token"), root, 1, "the token is not this aggregator's"},
		{"not to a name", "baseline relearn --aggregator localhost:7420 --token-file " + token, root, 2, "127.0.0.1 without TLS"},
		{"not over TLS", "baseline relearn --aggregator " + listenTLS + tls("admin") + " --token-file " + token, root, 2, "the certificate says what one may do"},
		{"TLS, admin", "baseline relearn --aggregator " + listenTLS + tls("admin"), root, 0, ""},
		{"TLS, viewer", "baseline relearn --aggregator " + listenTLS + tls("viewer"), root, 1, `certificate "spiffe://httpctl.internal/viewer/viewer" is viewer`},
		{"TLS, viewer reads", "hosts --aggregator " + listenTLS + tls("viewer"), root, 0, ""},
	} {
		if s := try(t, c.as, append([]string{"httpctl"}, strings.Fields(c.args)...)...); s.code != c.code || !strings.Contains(s.stderr, c.want) {
			t.Errorf("%s: exit %d, %q; want %d and %q", c.name, s.code, s.stderr, c.code, c.want)
		}
	}
}

// capDACReadSearch is CAP_DAC_READ_SEARCH of linux/capability.h.
const capDACReadSearch = 2

// TestHostBelongsToItsCertificate: with certificates of one's own authority, the first that speaks for a host keeps
// it, over a restart, until the settings say otherwise; its program on the host itself does not get it either.
func TestHostBelongsToItsCertificate(t *testing.T) {
	t.Parallel()
	certs := testkit.Certificates(t, map[string]netip.Addr{"center": netip.MustParseAddr("127.0.0.1"), "web1": {}, "web2": {}})
	files := func(name string) security.TLS {
		return security.TLS{CertFile: certs + "/" + name + ".pem", KeyFile: certs + "/" + name + ".key", CAFile: certs + "/ca.pem"}
	}
	host := bucket.ID{7}
	center := aggregator.DefaultConfig()
	center.Data, center.Listen, center.TLS = t.TempDir(), []string{freePort(t)}, files("center")
	hello := func(tls security.TLS) error {
		address := center.Listen[0]
		if tls.IsZero() {
			address = "unix:" + config.SocketPath(center.Data)
		}
		creds, err := security.ClientCredentials(tls)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(creds))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		stream, err := httpctlv1.NewIngestServiceClient(conn).Deliver(t.Context())
		if err != nil {
			return err
		}
		incarnation := bucket.ID{1}
		if err := stream.Send(&httpctlv1.DeliverRequest{Message: &httpctlv1.DeliverRequest_Hello{Hello: &httpctlv1.Hello{HostId: host[:], Incarnation: incarnation[:], HostName: "web"}}}); err != nil {
			return err
		}
		_, err = stream.Recv()
		return err
	}
	for _, run := range []struct {
		agents []string
		owner  string // who may speak for the host
	}{
		{[]string{"web1", "web2"}, "web1"}, // it comes first
		{[]string{"web1", "web2"}, "web1"},
		{[]string{"web1", "web2 = " + host.String()}, "web2"}, // as the settings say
	} {
		center.Roles.Agent = run.agents
		app, err := aggregator.Start(t.Context(), quick(), center, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		for _, who := range []string{"web1", "web2", ""} {
			tls := security.TLS{}
			if who != "" {
				tls = files(who)
			}
			err := hello(tls)
			if got := err == nil; got != (who == run.owner) || !got && (status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), run.owner)) {
				t.Errorf("with roles.agent %q, %q speaks for the host: %v, want only %s", run.agents, who, err, run.owner)
			}
		}
		if err := app.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// TestClonedHost: two agents with copies of one state directory are named, and what they counted is all there, once.
func TestClonedHost(t *testing.T) {
	t.Parallel()
	c := newCenter(t, nil)
	first, second := stateDir(t), stateDir(t)
	startWatcher(t, c.settings, agentConfig(c.address(), first, "web-1"), testkit.WriteFile(t)).stop() // mints the id
	if err := os.CopyFS(second, os.DirFS(first)); err != nil {
		t.Fatal(err)
	}
	a, of1 := traffic(t, 21, 4*time.Second, 40)
	b, of2 := traffic(t, 22, 4*time.Second, 60)
	startWatcher(t, c.settings, agentConfig(c.address(), first, "web-1"), a)
	startWatcher(t, c.settings, agentConfig(c.address(), second, "web-2\x1b[31m"), b)
	of1.requests += of2.requests
	for _, m := range []struct{ to, more map[string]int64 }{{of1.upload, of2.upload}, {of1.download, of2.download}} {
		for k, n := range m.more {
			m.to[k] += n
		}
	}
	for dimension, more := range of2.tops {
		for k, n := range more {
			of1.tops[dimension][k] += n
		}
	}
	c.settled("all of both is counted, once", of1)
	eventually(t, "the two are named", func() error {
		hosts, err := c.client.Hosts(t.Context(), client.Question{})
		if err != nil || len(hosts) != 1 {
			return fmt.Errorf("%d hosts, %v, want one", len(hosts), err)
		}
		d, err := c.client.Dashboard(t.Context(), client.Question{})
		if err != nil {
			return err
		}
		for where, text := range map[string]string{"hosts": strings.Join(hosts[0].SameID, ", "), "the dashboard": strings.Join(d.Status.Warnings, "\n")} {
			if !strings.Contains(text, "web-1 at ") || !strings.Contains(text, `web-2\x1b[31m at `) {
				return fmt.Errorf("%s: %q does not name both", where, text)
			}
		}
		return nil
	})
}
