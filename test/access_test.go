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

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	aggregator "github.com/httpctl/httpctl/aggregator/app"
	"github.com/httpctl/httpctl/cmd/httpctl/client"
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
