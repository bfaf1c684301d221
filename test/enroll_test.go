package test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	aggregator "github.com/httpctl/httpctl/aggregator/app"
	"github.com/httpctl/httpctl/pkg/authority"
	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/testkit"
	httpctlv1 "github.com/httpctl/httpctl/proto/httpctl/v1"
)

// commanded runs a program that must end well and returns what it printed.
func commanded(t *testing.T, args ...string) string {
	t.Helper()
	s := try(t, nil, args...)
	if s.code != 0 {
		t.Fatalf("%s: exit %d\n%s%s", strings.Join(args, " "), s.code, s.stdout, s.stderr)
	}
	return s.stdout
}

// shownBy returns the certificate that a server shows to whom has one of the authority in data.
func shownBy(t *testing.T, data, address string) (tls.ConnectionState, error) {
	t.Helper()
	ca, err := authority.Open(authority.Dir(data))
	if err != nil {
		t.Fatal(err)
	}
	host, _, _ := net.SplitHostPort(address)
	c, err := tls.Dial("tcp", address, &tls.Config{RootCAs: ca.Roots(), ServerName: host, MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"}})
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer c.Close()
	return c.ConnectionState(), nil
}

// showCertificateLife starts an aggregator with an authority, and looks at its certificate.
func showCertificateLife(t *testing.T) {
	for _, life := range []time.Duration{time.Hour, 24 * time.Hour} {
		data, listen := filepath.Join(t.TempDir(), "data"), freePort(t)
		commanded(t, "httpctl", "ca", "init", "--data", data, "--name", "127.0.0.1")
		center := launch(t, "httpctl-aggregator", "--config", write(t, "aggregator.yaml",
			fmt.Sprintf("aggregator:\n  data: %s\n  listen: [%s]\n  enroll: {certificate_life: %s}\n", data, listen, life)))
		center.says(t, "tls=true")
		state, err := shownBy(t, data, listen)
		if err != nil {
			t.Fatal(err)
		}
		leaf := state.PeerCertificates[0]
		if got := leaf.NotAfter.Sub(leaf.NotBefore) - authority.Skew; got != life {
			t.Errorf("with certificate_life %s the aggregator's certificate is valid for %s", life, got)
		}
	}
}

// TestAuthorityServesReaders makes a fleet's authority, has an aggregator serve with it, and readers come
// with certificates that are right and wrong.
func TestAuthorityServesReaders(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	data, listen := filepath.Join(dir, "data"), freePort(t)
	settings := write(t, "aggregator.yaml", fmt.Sprintf("aggregator:\n  data: %s\n  listen: ['%s']\n", data, listen))
	elsewhere := write(t, "elsewhere.yaml", fmt.Sprintf("aggregator:\n  data: %s\n  listen: ['0.0.0.0:0']\n", data))

	// Without one, an address that others reach is refused, and what to do is said.
	if s := try(t, nil, "httpctl-aggregator", "--check", "--config", elsewhere); s.code != 2 || !strings.Contains(s.stderr, "httpctl ca init") {
		t.Errorf("an aggregator without TLS on 0.0.0.0: exit %d, %q, want 2 and ca init", s.code, s.stderr)
	}
	if s := try(t, nil, "httpctl", "ca", "issue", "--data", data, "alice"); s.code != 1 || !strings.Contains(s.stderr, "httpctl ca init makes one") {
		t.Errorf("ca issue without an authority: exit %d, %q", s.code, s.stderr)
	}
	commanded(t, "httpctl", "ca", "init", "--data", data, "--name", "center.example.org")
	commanded(t, "httpctl-aggregator", "--check", "--config", elsewhere)
	commanded(t, "httpctl", "ca", "issue", "--data", data, "alice", "-o", filepath.Join(dir, "alice"))
	commanded(t, "httpctl", "ca", "init", "--data", filepath.Join(dir, "other"), "--name", "center.example.org")
	commanded(t, "httpctl", "ca", "issue", "--data", filepath.Join(dir, "other"), "eve", "-o", filepath.Join(dir, "eve"))

	// Out of the aggregator's container, which says by its environment where the authority is: one file, for all three.
	whole := try(t, func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, "HTTPCTL_AGGREGATOR_DATA="+data) }, "httpctl", "ca", "issue", "bob", "-o", "-")
	if whole.code != 0 || !strings.Contains(whole.stderr, "/viewer/bob, until ") || strings.Contains(whole.stdout, "/viewer/bob") {
		t.Errorf("ca issue -o -: exit %d, says %q", whole.code, whole.stderr)
	}
	bob := write(t, "bob.pem", whole.stdout)

	center := launch(t, "httpctl-aggregator", "--config", settings)
	center.says(t, "address="+listen)
	if s := try(t, nil, "httpctl", "hosts", "--aggregator", listen, "--tls-server-name", "center.example.org", "--tls-ca", bob, "--tls-cert", bob, "--tls-key", bob); s.code != 0 {
		t.Errorf("with one file for all three: exit %d, %q", s.code, s.stderr)
	}
	reader := func(ca, who string) said {
		return try(t, nil, "httpctl", "hosts", "--aggregator", listen, "--tls-server-name", "center.example.org",
			"--tls-ca", filepath.Join(dir, ca, "ca.pem"), "--tls-cert", filepath.Join(dir, who, who+".pem"), "--tls-key", filepath.Join(dir, who, who+".key"))
	}
	for _, c := range []struct {
		ca, who string
		code    int
		want    string
	}{
		{"alice", "alice", 0, ""},
		{"alice", "eve", 3, "certificate"}, // TLS tells why, unless the connection is gone before,
		{"eve", "alice", 3, "authority that this end does not know"},
	} {
		if s := reader(c.ca, c.who); s.code != c.code || !strings.Contains(s.stderr, c.want) {
			t.Errorf("%s, who knows %s's authority: exit %d, %q, want %d and %q", c.who, c.ca, s.code, s.stderr, c.code, c.want)
		}
	}
	if s := try(t, nil, "httpctl", "hosts", "--aggregator", listen); s.code != 3 {
		t.Errorf("a reader in plain text: exit %d, want 3\n%s", s.code, s.stderr)
	}

	// Other names count without a restart; alice's certificate stays good.
	commanded(t, "httpctl", "ca", "init", "--data", data, "--name", "new.example.org")
	if s := reader("alice", "alice"); s.code != 3 || !strings.Contains(s.stderr, "carries another name") {
		t.Errorf("by its old name the aggregator answers exit %d, %q", s.code, s.stderr)
	}
	state, err := shownBy(t, data, strings.Replace(listen, "127.0.0.1", "localhost", 1))
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(state.PeerCertificates[0].DNSNames); got != "[new.example.org localhost]" {
		t.Errorf("the aggregator's names are %s", got)
	}
	// Nothing but the authority's own is ever written.
	entries, err := os.ReadDir(authority.Dir(data))
	if err != nil || len(entries) != 4 {
		t.Errorf("the authority's directory has %v, %v, want ca.key, ca.pem, life and names", entries, err)
	}
}

// fleetCommands are the three commands that docs/operations.md gives for a fleet from nothing.
func fleetCommands(t *testing.T) (init, create, enroll []string) {
	t.Helper()
	_, text, ok := strings.Cut(page(t, "docs/operations.md"), "\n### With the aggregator's own authority\n")
	if !ok {
		t.Fatal("docs/operations.md has no section on the aggregator's own authority")
	}
	find := func(begin string) []string {
		t.Helper()
		line := regexp.MustCompile(`(?m)^    sudo (` + begin + ` .*)$`).FindStringSubmatch(text)
		if line == nil {
			t.Fatalf("that section of docs/operations.md has no command that begins with sudo %s", begin)
		}
		command, _, _ := strings.Cut(line[1], "#")
		return strings.Fields(command)
	}
	return find("httpctl ca init"), find("httpctl enroll create"), find("httpctl-agent enroll")
}

// TestFleetFromNothing runs the three commands of the documentation on hosts of their own, and then has the aggregator be away for
// longer than certificates live.
func TestFleetFromNothing(t *testing.T) {
	need(t, "ip")
	mayCapture(t)
	t.Parallel()
	lab, err := testkit.NewLab("center", "web1", "web2")
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	})
	dir := t.TempDir()
	data, state := filepath.Join(dir, "data"), filepath.Join(dir, "web1")
	on := func(host string, args ...string) *exec.Cmd {
		t.Helper()
		cmd := lab.Command(t.Context(), host, program(t, args[0]), args[1:]...)
		cmd.Dir = dir
		return cmd
	}
	done := func(host string, args ...string) (string, error) {
		t.Helper()
		out, err := on(host, args...).CombinedOutput()
		return string(out), err
	}
	must := func(host string, args ...string) {
		t.Helper()
		if out, err := done(host, args...); err != nil {
			t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	initial, create, enroll := fleetCommands(t)
	initial[len(initial)-1] = "center.example.org," + lab.Address("center").String() // the names of this fleet
	socket := "unix:" + config.SocketPath(data)

	must("center", append(initial, "--data", data)...)
	settings := write(t, "aggregator.yaml", "dashboard_bucket_size: 1s\naverage_bucket_size: 10s\naggregator:\n  data: "+data+
		"\n  listen: ['0.0.0.0:7420']\n  metrics: 127.0.0.1:7421\n  enroll: {certificate_life: 15s}\n")
	serve := func() *background {
		t.Helper()
		b := launchCommand(t, on("center", "httpctl-aggregator", "--config", settings))
		b.says(t, "address=0.0.0.0:7420 tls=true")
		return b
	}
	center := serve()
	must("center", append(create, "--aggregator", socket)...)
	must("web1", append(enroll, "--state", state)...)

	watcher := on("web1", "httpctl-agent", "-i", "lo")
	web1 := launchCommand(t, watcher, "HTTPCTL_AGENT_STATE="+state, "HTTPCTL_AGENT_METRICS=127.0.0.1:7422", "HTTPCTL_AGENT_HOST_NAME=web1", "HTTPCTL_AGENT_BACKOFF_MAX=1s")
	web1.says(t, "connected to the aggregator")
	web1.says(t, "the agent is confined")
	metric := func(host, port, name string) func() float64 {
		return func() float64 {
			out, err := lab.Command(t.Context(), host, "curl", "-s", "http://127.0.0.1:"+port+"/metrics").Output()
			if err != nil {
				return -1
			}
			m := regexp.MustCompile(`(?m)^` + name + ` (\S+)$`).FindSubmatch(out)
			if m == nil {
				return -1
			}
			v, err := strconv.ParseFloat(string(m[1]), 64)
			if err != nil {
				return -1
			}
			return v
		}
	}
	installed(t, "curl")
	reaches := func(what string, read func() float64, least float64) {
		t.Helper()
		eventually(t, what, func() error {
			if v := read(); v < least {
				return fmt.Errorf("%v, want at least %v", v, least)
			}
			return nil
		})
	}

	// The token is used up: another host stays out, and what it says is in no place but its standard error.
	if out, err := done("web2", append(enroll, "--state", filepath.Join(dir, "web2"))...); err == nil || !strings.Contains(out, "used up") {
		t.Errorf("a second host with a token for one: %v\n%s", err, out)
	}
	// Renewed twice while confined, the stream goes on.
	reaches("renewals", metric("web1", "7422", "httpctl_enroll_renewed_total"), 2)
	if v := metric("web1", "7422", "httpctl_uplink_disconnects_total")(); v != 0 {
		t.Errorf("the agent lost the aggregator %v times while its certificate was renewed, want never:\n%s", v, web1.out.String())
	}
	reaches("renewals at the aggregator", metric("center", "7421", "httpctl_enroll_renewed_total"), 2)

	// Away for longer than a certificate lives, within the grace: it comes back by itself.
	center.stop(t, syscall.SIGTERM)
	eventually(t, "the certificate has ended", func() error {
		if v := metric("web1", "7422", "httpctl_certificate_expiry_seconds")(); v >= 0 {
			return fmt.Errorf("it has %v s left", v)
		}
		return nil
	})
	center = serve()
	reaches("the agent is back", metric("web1", "7422", "httpctl_uplink_connected"), 1)
	eventually(t, "web1 reports", func() error {
		out, err := done("center", "httpctl", "hosts", "-o", "json", "--aggregator", socket)
		if err != nil || !strings.Contains(out, `"connected": true`) || !strings.Contains(out, `"web1"`) {
			return fmt.Errorf("%v\n%s", err, out)
		}
		return nil
	})

	// Revoked, its stream ends at once, and it stays out over a restart.
	connected := metric("web1", "7422", "httpctl_uplink_connected")
	must("center", "httpctl", "revoke", "web1", "--aggregator", socket)
	begin := time.Now()
	out := func() {
		t.Helper()
		eventually(t, "web1 is out", func() error {
			if v := connected(); v != 0 {
				return fmt.Errorf("httpctl_uplink_connected is %v", v)
			}
			return nil
		})
	}
	out()
	if d := time.Since(begin); d > time.Minute {
		t.Errorf("the stream of a revoked host ended after %s", d)
	}
	center.stop(t, syscall.SIGTERM)
	center = serve()
	center.says(t, "a connection with a revoked certificate is refused")
	out()
	// A token of its own lets it in again, and the agent takes the new certificate over as it runs.
	text, err := os.ReadFile(filepath.Join(state, "host-id"))
	if err != nil {
		t.Fatal(err)
	}
	must("center", "httpctl", "enroll", "create", "--host", strings.TrimSpace(string(text)), "-o", "again.token", "--aggregator", socket)
	must("web1", "httpctl-agent", "enroll", "--token-file", "again.token", "--state", state, "--again")
	reaches("the agent is let in again", connected, 1)

	if code := web1.stop(t, syscall.SIGTERM); code != 0 {
		t.Errorf("the agent ends with %d:\n%s", code, web1.out.String())
	}
	if code := center.stop(t, syscall.SIGTERM); code != 0 {
		t.Errorf("the aggregator ends with %d:\n%s", code, center.out.String())
	}
}

// TestEnrolledHostDeliveredBefore: an agent delivers over the Unix socket, without a certificate. Whoever has a token for any host
// and its id does not get its certificate, nor once only the database knows it; the host itself enrols with a token of its own.
func TestEnrolledHostDeliveredBefore(t *testing.T) {
	t.Parallel()
	mayCapture(t)
	dir, listen := t.TempDir(), freePort(t)
	data, state, thief := filepath.Join(dir, "data"), filepath.Join(dir, "state"), filepath.Join(dir, "thief")
	socket := "unix:" + config.SocketPath(data)
	any, own := filepath.Join(dir, "any.token"), filepath.Join(dir, "own.token")
	commanded(t, "httpctl", "ca", "init", "--data", data, "--name", "127.0.0.1")
	settings := write(t, "aggregator.yaml", fmt.Sprintf("dashboard_bucket_size: 1s\naverage_bucket_size: 10s\naggregator:\n  data: %s\n  listen: ['%s']\n", data, listen))
	serve := func() *background {
		t.Helper()
		b := launch(t, "httpctl-aggregator", "--config", settings)
		b.says(t, "address="+listen+" tls=true")
		return b
	}
	center := serve()
	commanded(t, "httpctl", "enroll", "create", "--uses", "3", "-o", any, "--aggregator", socket)
	agent := launch(t, "httpctl-agent", "-i", "lo", "--config", write(t, "agent.yaml", "agent:\n  state: "+state+"\n  aggregator: "+socket+"\n"))
	agent.says(t, "connected to the aggregator")
	id, err := os.ReadFile(filepath.Join(state, "host-id"))
	if err != nil {
		t.Fatal(err)
	}
	host := strings.TrimSpace(string(id))
	if err := errors.Join(os.Mkdir(thief, 0o700), os.WriteFile(filepath.Join(thief, "host-id"), id, 0o600)); err != nil {
		t.Fatal(err)
	}
	refused := func(when string) {
		t.Helper()
		s := try(t, nil, "httpctl-agent", "enroll", "--token-file", any, "--state", thief)
		if s.code == 0 || !strings.Contains(s.stderr, "httpctl enroll create --host "+host) {
			t.Errorf("%s: exit %d, %q, want that the host needs a token of its own", when, s.code, s.stderr)
		}
	}
	refused("while it delivers")
	eventually(t, "something of the host is stored", func() error {
		s := try(t, nil, "httpctl", "hosts", "-o", "json", "--since", "1h", "--aggregator", socket)
		if !regexp.MustCompile(`"covered_through": "2`).MatchString(s.stdout) {
			return errors.New(s.stdout + s.stderr)
		}
		return nil
	})
	agent.stop(t, syscall.SIGTERM)
	center.stop(t, syscall.SIGTERM)
	serve()
	refused("after a restart, while it is away")
	commanded(t, "httpctl", "enroll", "create", "--host", host, "-o", own, "--aggregator", socket)
	commanded(t, "httpctl-agent", "enroll", "--token-file", own, "--state", state)
	commanded(t, "httpctl-agent", "enroll", "--token-file", any, "--state", filepath.Join(dir, "new"))
}

// TestEnrollCommand runs what is wrong, and what is said about it; a token is never repeated.
func TestEnrollCommand(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	made, err := authority.NewToken(authority.Fingerprint{1}, []string{"127.0.0.1:1"}, time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	ended := made
	ended.Expires = time.Now().Add(-time.Hour)
	token, old := write(t, "token", made.Text()+"\n"), write(t, "token", ended.Text())
	for _, c := range []struct {
		args  []string
		stdin string
		code  int
		want  string
	}{
		{nil, "", 2, "--token-file is missing"},
		{[]string{made.Text()}, "", 2, "in no list of processes"},
		{[]string{"--token-file", token, "extra"}, "", 2, "takes no arguments"},
		{[]string{"--token-file", "/nonexistent"}, "", 2, "no such file"},
		{[]string{"--token-file", dir}, "", 2, "is a directory"},
		{[]string{"--token-file", "-"}, "", 2, "standard input: it is empty"},
		{[]string{"--token-file", "-"}, "hunter2", 2, "httpctl enroll create"},
		{[]string{"--token-file", old}, "", 1, "the token ended at"},
		{[]string{"--token-file", token}, "", 1, "nothing listens there"},
		{[]string{"--token-file", "-"}, made.Text(), 1, "nothing listens there"},
		{[]string{"--token-file", token, "--state", "/proc/nonexistent"}, "", 1, "make the state directory"},
		{[]string{"--help"}, "", 0, "Usage:\n  httpctl-agent enroll --token-file FILE"},
		{[]string{"--tokenfile", token}, "", 2, "did you mean --token-file?"},
	} {
		args := append([]string{"httpctl-agent", "enroll"}, c.args...)
		s := try(t, func(cmd *exec.Cmd) {
			cmd.Stdin = strings.NewReader(c.stdin)
			cmd.Env = append(cmd.Env, "HTTPCTL_AGENT_STATE="+filepath.Join(dir, "state"))
		}, args...)
		if s.code != c.code || !strings.Contains(s.stdout+s.stderr, c.want) {
			t.Errorf("%q: exit %d, %q, want %d and %q", c.args, s.code, s.stdout+s.stderr, c.code, c.want)
		}
		if strings.Contains(s.stdout+s.stderr, made.Text()) {
			t.Errorf("%q repeats the token", c.args)
		}
	}
}

// TestEnrolDoorOpensNothingElse: who comes for a certificate, and shows none, or one that has ended or is of another
// authority, can call nothing else.
func TestEnrolDoorOpensNothingElse(t *testing.T) {
	t.Parallel()
	data, listen := filepath.Join(t.TempDir(), "data"), freePort(t)
	commanded(t, "httpctl", "ca", "init", "--data", data, "--name", "127.0.0.1")
	center := aggregator.DefaultConfig()
	center.Data, center.Listen = data, []string{listen}
	app, err := aggregator.Start(t.Context(), quick(), center, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = app.Stop(context.Background()) })
	own, err := authority.Open(authority.Dir(data))
	if err != nil {
		t.Fatal(err)
	}
	other, err := authority.Create(filepath.Join(t.TempDir(), "ca"), authority.DefaultTrustDomain, authority.Owner{}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	admin := authority.Subject{Role: authority.Admin, Name: "alice"}
	certificate := func(ca *authority.Authority, life time.Duration) *tls.Certificate {
		t.Helper()
		key, err := authority.NewKey()
		if err != nil {
			t.Fatal(err)
		}
		der, err := ca.Sign(key.Public(), admin, life, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	}
	over := certificate(own, time.Nanosecond) // ends with the second in which it was made
	time.Sleep(time.Second)
	for name, cert := range map[string]*tls.Certificate{"none": nil, "ended": over, "of another authority": certificate(other, time.Hour), "in force": certificate(own, time.Hour)} {
		cfg := authority.Known(own.Roots(), "127.0.0.1", tls.Certificate{})
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if cert == nil {
				return &tls.Certificate{}, nil
			}
			return cert, nil
		}
		conn, err := grpc.NewClient(listen, grpc.WithTransportCredentials(credentials.NewTLS(cfg)))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		for service, methods := range map[string][]string{
			"IngestService": {"Deliver"}, "AdminService": {"Backup"}, "QueryService": {"GetStatus", "Relearn"}, "EnrollService": {"CreateToken", "ListTokens", "RevokeToken", "Revoke", "ListCertificates"},
		} {
			for _, method := range methods {
				err := conn.Invoke(t.Context(), "/httpctl.v1."+service+"/"+method, &httpctlv1.GetStatusRequest{}, &httpctlv1.GetStatusResponse{})
				if status.Code(err) != codes.PermissionDenied {
					t.Errorf("with a certificate that is %s, %s answers %v, want PermissionDenied", name, method, err)
				}
			}
		}
	}
}

// TestFilesBelongToTheDaemons: what root makes for daemons that run as users of their own, these can use: the aggregator serves with
// the authority, and the agent's user finds key and identity its own.
func TestFilesBelongToTheDaemons(t *testing.T) {
	t.Parallel()
	need(t)
	const aggregatorUser, agentUser = 64001, 64002
	dir, listen := worldReadable(t), freePort(t)
	data, state, token := filepath.Join(dir, "data"), filepath.Join(dir, "state"), filepath.Join(dir, "web1.token")
	for path, user := range map[string]int{data: aggregatorUser, state: agentUser} {
		if err := errors.Join(os.Mkdir(path, 0o700), os.Chown(path, user, user)); err != nil {
			t.Fatal(err)
		}
	}
	commanded(t, "httpctl", "ca", "init", "--data", data, "--name", "127.0.0.1")
	settings := filepath.Join(dir, "aggregator.yaml")
	if err := os.WriteFile(settings, fmt.Appendf(nil, "aggregator:\n  data: %s\n  listen: ['%s']\n", data, listen), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program(t, "httpctl-aggregator"), "--config", settings)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: aggregatorUser, Gid: aggregatorUser}}
	center := launchCommand(t, cmd)
	center.says(t, "address="+listen+" tls=true")
	commanded(t, "httpctl", "enroll", "create", "-o", token, "--aggregator", "unix:"+config.SocketPath(data))
	commanded(t, "httpctl-agent", "enroll", "--token-file", token, "--state", state)
	for root, user := range map[string]uint32{authority.Dir(data): aggregatorUser, state: agentUser} {
		files := 0
		if err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			fi, err := e.Info()
			if err != nil {
				return err
			}
			files++
			if st := fi.Sys().(*syscall.Stat_t); st.Uid != user || st.Gid != user {
				t.Errorf("%s is of %d:%d, want %d", path, st.Uid, st.Gid, user)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if files < 4 {
			t.Errorf("%s holds %d files", root, files)
		}
	}
}
