package authority

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

const host = "0123456789abcdef0123456789abcdef"

func create(t *testing.T) (*Authority, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "ca")
	a, err := Create(dir, "fleet.example.org", Owner{}, noon)
	if err != nil {
		t.Fatal(err)
	}
	return a, dir
}

func key(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	k, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestCreate(t *testing.T) {
	a, dir := create(t)
	again, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := again.Fingerprint(), a.Fingerprint(); got != want {
		t.Errorf("Open(dir).Fingerprint() = %s, want %s", got, want)
	}
	if got, want := again.TrustDomain(), "fleet.example.org"; got != want {
		t.Errorf("TrustDomain() = %q, want %q", got, want)
	}
	if _, err := Create(dir, DefaultTrustDomain, Owner{}, noon); !errors.Is(err, ErrExists) {
		t.Errorf("a second Create() = %v, want ErrExists", err)
	}
	if third, err := Open(dir); err != nil || third.Fingerprint() != a.Fingerprint() {
		t.Errorf("after a second Create the authority is another: %v", err)
	}
	entries, err := os.ReadDir(filepath.Dir(dir))
	if err != nil || len(entries) != 1 {
		t.Errorf("beside the authority there is %v, %v, want nothing", entries, err)
	}
	if fi, err := os.Stat(filepath.Join(dir, keyFile)); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode of the key = %v, %v, want 0600", fi.Mode(), err)
	}
	for _, domain := range []string{"", "Fleet", "a/b", "a b", strings.Repeat("a", 256)} {
		if _, err := Create(filepath.Join(t.TempDir(), "ca"), domain, Owner{}, noon); err == nil {
			t.Errorf("Create with trust domain %q = nil, want an error", domain)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	other, otherDir := create(t)
	_ = other
	for name, c := range map[string]struct {
		change func(dir string) error
		want   string
	}{
		"a key for everyone": {func(dir string) error { return os.Chmod(filepath.Join(dir, keyFile), 0o644) }, "chmod 600"},
		"no key":             {func(dir string) error { return os.Remove(filepath.Join(dir, keyFile)) }, "no such file"},
		"no certificate":     {func(dir string) error { return os.WriteFile(filepath.Join(dir, certFile), nil, 0o644) }, "no certificate in PEM"},
		"a key of somebody else": {func(dir string) error {
			return os.Rename(filepath.Join(otherDir, keyFile), filepath.Join(dir, keyFile))
		}, "is not the key of"},
		"half a key": {func(dir string) error {
			return os.WriteFile(filepath.Join(dir, keyFile), []byte("-----BEGIN PRIVATE KEY-----"), 0o600)
		}, "no key in PEM"},
	} {
		_, dir := create(t)
		if err := c.change(dir); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Open with %s = %v, want %q", name, err, c.want)
		}
	}
}

// TestSign has the standard library judge what each role's certificate is good for.
func TestSign(t *testing.T) {
	a, _ := create(t)
	for _, c := range []struct {
		subject Subject
		usage   x509.ExtKeyUsage
		uri     string
	}{
		{Subject{Role: Agent, Name: host}, x509.ExtKeyUsageClientAuth, "spiffe://fleet.example.org/agent/" + host},
		{Subject{Role: Viewer, Name: "alice"}, x509.ExtKeyUsageClientAuth, "spiffe://fleet.example.org/viewer/alice"},
		{Subject{Role: Admin, Name: "bob.b"}, x509.ExtKeyUsageClientAuth, "spiffe://fleet.example.org/admin/bob.b"},
		{Subject{Role: Aggregator, Name: "main", Hosts: []string{"center.example.org", "192.0.2.1"}}, x509.ExtKeyUsageServerAuth, "spiffe://fleet.example.org/aggregator/main"},
	} {
		der, err := a.Sign(key(t).Public(), c.subject, time.Hour, noon)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth} {
			_, err := cert.Verify(x509.VerifyOptions{Roots: a.Roots(), CurrentTime: noon, KeyUsages: []x509.ExtKeyUsage{usage}})
			if got, want := err == nil, usage == c.usage; got != want {
				t.Errorf("%s: verified for usage %d = %v, want %v (%v)", c.uri, usage, got, want, err)
			}
		}
		if got := cert.URIs[0].String(); got != c.uri {
			t.Errorf("URI = %s, want %s", got, c.uri)
		}
		if role, name, err := Identity(cert); role != c.subject.Role || name != c.subject.Name || err != nil {
			t.Errorf("Identity(%s) = %s, %s, %v", c.uri, role, name, err)
		}
		for at, want := range map[time.Time]bool{noon.Add(-Skew): true, noon.Add(-Skew - time.Second): false, noon.Add(time.Hour): true, noon.Add(time.Hour + time.Second): false} {
			_, err := cert.Verify(x509.VerifyOptions{Roots: a.Roots(), CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{c.usage}})
			if got := err == nil; got != want && !at.Before(noon) { // the authority itself begins Skew before noon
				t.Errorf("%s: valid at %s = %v, want %v", c.uri, at, got, want)
			}
		}
		for h, want := range map[string]bool{"center.example.org": true, "192.0.2.1": true, "other.example.org": false} {
			if got := cert.VerifyHostname(h) == nil; got != (want && c.subject.Role == Aggregator) {
				t.Errorf("%s: VerifyHostname(%s) = %v", c.uri, h, got)
			}
		}
		if got, want := RenewAt(cert), noon.Add(40*time.Minute); !got.Equal(want) {
			t.Errorf("RenewAt of an hour = %s, want %s", got, want)
		}
	}
}

func TestSignRefuses(t *testing.T) {
	a, _ := create(t)
	good := Subject{Role: Agent, Name: host}
	for name, c := range map[string]struct {
		subject Subject
		now     time.Time
		want    string
	}{
		"no role":            {Subject{Name: "alice"}, noon, "want one of"},
		"a host id too long": {Subject{Role: Agent, Name: host + "0"}, noon, "32 hexadecimal"},
		"a host id in caps":  {Subject{Role: Agent, Name: strings.ToUpper(host)}, noon, "32 hexadecimal"},
		"a path":             {Subject{Role: Viewer, Name: "../admin/bob"}, noon, "letters, digits"},
		"a slash":            {Subject{Role: Viewer, Name: "a/b"}, noon, "letters, digits"},
		"dots":               {Subject{Role: Viewer, Name: ".."}, noon, "letters, digits"},
		"an escape":          {Subject{Role: Viewer, Name: "a\x1b[2J"}, noon, "letters, digits"},
		"too long":           {Subject{Role: Viewer, Name: strings.Repeat("a", 65)}, noon, "letters, digits"},
		"the clock behind":   {good, noon.Add(-time.Hour), "set the clock"},
		"the authority over": {good, noon.Add(caLife + time.Hour), "has ended"},
	} {
		if _, err := a.Sign(key(t).Public(), c.subject, time.Hour, c.now); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Sign with %s = %v, want %q", name, err, c.want)
		}
	}
	der, err := a.Sign(key(t).Public(), good, 2*caLife, noon)
	if err != nil {
		t.Fatal(err)
	}
	if cert, _ := x509.ParseCertificate(der); !cert.NotAfter.Equal(a.Certificate().NotAfter) {
		t.Errorf("a certificate ends at %s, after its authority at %s", cert.NotAfter, a.Certificate().NotAfter)
	}
}

func TestCheckKey(t *testing.T) {
	curve := func(c elliptic.Curve) crypto.PublicKey {
		k, err := ecdsa.GenerateKey(c, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k.Public()
	}
	edwards, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		key  crypto.PublicKey
		want bool
	}{
		"P-256": {curve(elliptic.P256()), true}, "P-384": {curve(elliptic.P384()), true}, "Ed25519": {edwards, true},
		"P-224": {curve(elliptic.P224()), false}, "P-521": {curve(elliptic.P521()), false}, "RSA": {r.Public(), false}, "nothing": {nil, false},
	} {
		if got := CheckKey(c.key) == nil; got != c.want {
			t.Errorf("CheckKey(%s) passes = %v, want %v", name, got, c.want)
		}
	}
}

func TestEncodePair(t *testing.T) {
	a, _ := create(t)
	k := key(t)
	der, err := a.Sign(k.Public(), Subject{Role: Agent, Name: host}, time.Hour, noon)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := EncodePair(k, der)
	if err != nil {
		t.Fatal(err)
	}
	// One file is both.
	if c, err := tls.X509KeyPair(pair, pair); err != nil || len(c.Certificate) != 1 {
		t.Errorf("X509KeyPair(pair, pair) = %v, %v", c, err)
	}
}

func TestNames(t *testing.T) {
	dir := t.TempDir()
	if err := WriteNames(dir, []string{"center.example.org", "2001:db8::1"}, Owner{}); err != nil {
		t.Fatal(err)
	}
	if got, err := Names(dir); err != nil || strings.Join(got, " ") != "center.example.org 2001:db8::1" {
		t.Errorf("Names() = %v, %v", got, err)
	}
	for _, bad := range [][]string{nil, {"a b"}, {"host:7420"}, {"a..b"}, {"*.example.org"}, {"\x1b"}, make([]string, maxNames+1)} {
		if err := WriteNames(dir, bad, Owner{}); err == nil {
			t.Errorf("WriteNames(%q) = nil, want an error", bad)
		}
	}
	if err := os.WriteFile(NamesPath(dir), []byte("\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Names(dir); err == nil || !strings.Contains(err.Error(), "one a line") {
		t.Errorf("Names() of an empty file = %v", err)
	}
}

// TestWriteFileFollowsNoLink: root writes into a directory of another user.
func TestWriteFileFollowsNoLink(t *testing.T) {
	dir := t.TempDir()
	victim := filepath.Join(dir, "victim")
	if err := os.WriteFile(victim, []byte("safe"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, link := range []string{"target", "target.new"} {
		if err := os.Symlink(victim, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := WriteFile(filepath.Join(dir, "target"), []byte("new"), 0o600, Owner{}); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(victim); string(got) != "safe" {
		t.Errorf("the file behind the link holds %q, want it as it was", got)
	}
}
