package test

import (
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/httpctl/httpctl/pkg/authority"
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

	center := launch(t, "httpctl-aggregator", "--config", settings)
	center.says(t, "address="+listen)
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
	if err != nil || len(entries) != 3 {
		t.Errorf("the authority's directory has %v, %v, want ca.key, ca.pem and names", entries, err)
	}
}
