package enroll

import (
	"log/slog"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/httpctl/httpctl/pkg/authority"
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
	serial := func() string {
		t.Helper()
		c, err := o.certificate()
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
	cert, _ := o.certificate()
	if got, want := cert.Leaf.DNSNames, []string{"other.example.org", "localhost"}; !slices.Equal(got, want) {
		t.Errorf("DNS names = %q, want %q", got, want)
	}
	if len(cert.Leaf.IPAddresses) != 3 {
		t.Errorf("addresses = %v, want 192.0.2.9 and loopback", cert.Leaf.IPAddresses)
	}
}
