package enroll

import (
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/httpctl/httpctl/pkg/authority"
	httpctlv1 "github.com/httpctl/httpctl/proto/httpctl/v1"
)

// TestOwnIsRenewed: the aggregator's certificate is made anew at two thirds of its life, when its names
// change, and when the clock was set back behind its beginning; else it stays.
func TestOwnIsRenewed(t *testing.T) {
	now := time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)
	dir := filepath.Join(t.TempDir(), "ca")
	a, err := authority.Create(dir, authority.DefaultTrustDomain, authority.Owner{}, now.Add(-48*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	names := func(hosts ...string) {
		t.Helper()
		if err := authority.WriteNames(dir, hosts, authority.Owner{}); err != nil {
			t.Fatal(err)
		}
	}
	names("center.example.org")
	o, err := NewOwn(a, dir, 24*time.Hour, func() time.Time { return now }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	kept := func(want authority.Life) {
		t.Helper()
		if l, err := authority.ReadLife(dir); err != nil || l.Length != want.Length || !l.Longer.Equal(want.Longer) {
			t.Errorf("beside the authority is kept that certificates live %v, %v, want %v", l, err, want)
		}
	}
	kept(authority.Life{Length: 24 * time.Hour})
	o.setLife(time.Hour)
	kept(authority.Life{Length: time.Hour, Longer: now.Add(24*time.Hour + time.Second)})
	o.setLife(24 * time.Hour)
	serial := func() string {
		t.Helper()
		c, _, err := o.current()
		if err != nil {
			t.Fatal(err)
		}
		return c.Leaf.SerialNumber.String()
	}
	last := serial()
	for _, c := range []struct {
		what   string
		change func()
		want   bool // another certificate
	}{
		{"nothing", func() {}, false},
		{"just before two thirds", func() { now = now.Add(16*time.Hour - time.Second) }, false},
		{"two thirds", func() { now = now.Add(time.Second) }, true},
		{"two thirds, asked again", func() {}, false},
		{"other names", func() { names("other.example.org", "192.0.2.9") }, true},
		{"a clock set back by a day", func() { now = now.Add(-24 * time.Hour) }, true},
		{"a file of names that is damaged", func() { _ = authority.WriteFile(authority.NamesPath(dir), []byte("a b:c /"), 0o644, authority.Owner{}) }, false},
	} {
		c.change()
		got := serial()
		if (got != last) != c.want {
			t.Errorf("after %s another certificate = %v, want %v", c.what, got != last, c.want)
		}
		last = got
	}
	cert, _, _ := o.current()
	if got, want := cert.Leaf.DNSNames, []string{"other.example.org", "localhost"}; !slices.Equal(got, want) {
		t.Errorf("DNS names = %q, want %q", got, want)
	}
	if len(cert.Leaf.IPAddresses) != 3 {
		t.Errorf("addresses = %v, want 192.0.2.9 and loopback", cert.Leaf.IPAddresses)
	}
}

// TestRotatedAuthority: while the aggregator serves, its authority is replaced in three steps. A host that renews between them is never
// left out; a certificate that the old one has signed is refused after the last.
func TestRotatedAuthority(t *testing.T) {
	f := newFleet(t)
	first := f.ca
	made := f.token(t, &httpctlv1.CreateTokenRequest{TtlNs: int64(time.Hour), Uses: 10})
	key := newKey(t)
	cert, err := f.ask(t, made, hostA, csr(t, key))
	if err != nil {
		t.Fatal(err)
	}
	member := &tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
	old := member
	renew := func(shown *tls.Certificate) (*x509.Certificate, []byte, error) {
		t.Helper()
		next := newKey(t)
		f.pass(time.Hour / 10) // no renewal is too soon
		a, err := f.dial(t, authority.ServerName, shown).Renew(t.Context(), &httpctlv1.RenewRequest{Csr: csr(t, next)})
		if err != nil {
			return nil, nil, err
		}
		c, err := x509.ParseCertificate(a.GetCertificate())
		if err != nil {
			t.Fatal(err)
		}
		member = &tls.Certificate{Certificate: [][]byte{c.Raw}, PrivateKey: next}
		return c, a.GetAuthorities(), nil
	}
	for _, step := range []struct {
		want     authority.Step
		accepted int
		signs    bool // the first one still does
	}{{authority.Begun, 2, true}, {authority.Switched, 2, false}, {authority.Ended, 1, false}} {
		if got, err := authority.Rotate(authority.Dir(f.dir), authority.Owner{}, time.Now(), &authority.Life{}); err != nil || got != step.want {
			t.Fatalf("Rotate() = %d, %v, want %d", got, err, step.want)
		}
		c, cas, err := renew(member)
		if err != nil {
			t.Fatalf("after step %d: %v", step.want, err)
		}
		roots, err := authority.ParseCertificates(cas)
		if err != nil || len(roots) != step.accepted {
			t.Errorf("after step %d the host is told of %d authorities, %v, want %d", step.want, len(roots), err, step.accepted)
		}
		if by := c.CheckSignatureFrom(first.Certificate()) == nil; by != step.signs {
			t.Errorf("after step %d the first authority signs = %t, want %t", step.want, by, step.signs)
		}
		own, _, err := f.deps.Own.current()
		if err != nil || (own.Leaf.CheckSignatureFrom(first.Certificate()) == nil) != step.signs {
			t.Errorf("after step %d the aggregator's certificate is signed by the first authority = %t, %v, want %t", step.want, !step.signs, err, step.signs)
		}
		now := member
		if _, _, err := renew(old); (err == nil) != (step.want != authority.Ended) {
			t.Errorf("after step %d, a certificate of the first authority: %v", step.want, err)
		}
		member = now
	}
	// Tokens name the authority that signs.
	if _, err := f.ask(t, f.token(t, &httpctlv1.CreateTokenRequest{TtlNs: int64(time.Hour), Uses: 1}), hostB, csr(t, newKey(t))); err != nil {
		t.Errorf("with a token of after the rotation: %v", err)
	}
}

// TestAuthorityOfAnotherDomain does not take the place of the one that was there while the aggregator runs.
func TestAuthorityOfAnotherDomain(t *testing.T) {
	f := newFleet(t)
	dir := authority.Dir(f.dir)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := authority.Create(dir, "other.example.org", authority.Owner{}, f.at); err != nil {
		t.Fatal(err)
	}
	if got := f.deps.Own.Authority(); got.Fingerprint() != f.ca.Fingerprint() || !strings.Contains(f.log.String(), "that takes a restart") {
		t.Errorf("the authority is of %s; the log:\n%s", got.TrustDomain(), f.log.String())
	}
}
