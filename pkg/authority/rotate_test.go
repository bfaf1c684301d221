package authority

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// TestRotate: three steps, in each of which certificates of both, or of the one that is left, are accepted; a step that was killed is
// done again; and each waits for the one before.
func TestRotate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	first, err := Create(dir, DefaultTrustDomain, Owner{}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	read := func() *Authority {
		t.Helper()
		a, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	step := func(wait time.Duration, want Step, accepted int) *Authority {
		t.Helper()
		if got, err := Rotate(dir, Owner{}, time.Now(), &Life{Length: wait}); err != nil || got != want {
			t.Fatalf("Rotate() = %d, %v, want %d", got, err, want)
		}
		a := read()
		if got := a.Accepted(); len(got) != accepted || a.TrustDomain() != DefaultTrustDomain {
			t.Errorf("after step %d %d authorities are accepted, of %s, want %d", want, len(got), a.TrustDomain(), accepted)
		}
		return a
	}
	tooSoon := func() {
		t.Helper()
		before := read()
		var soon *TooSoon
		if _, err := Rotate(dir, Owner{}, time.Now(), &Life{Length: time.Hour}); !errors.As(err, &soon) || soon.Until.Sub(soon.Since) != time.Hour || soon.Until.Before(time.Now().Add(time.Minute)) {
			t.Errorf("Rotate() at once = %v, want a TooSoon", err)
		}
		if after := read(); after.Fingerprint() != before.Fingerprint() || len(after.Accepted()) != len(before.Accepted()) {
			t.Error("a step that was refused has changed the authority")
		}
	}
	next, key := filepath.Join(dir, nextKeyFile), filepath.Join(dir, keyFile)
	write := func(path string, data []byte) {
		t.Helper()
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// Killed between the key and the certificate.
	_, lost, err := newPair(DefaultTrustDomain, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	write(next, lost)
	if a := step(0, Begun, 2); a.Fingerprint() != first.Fingerprint() {
		t.Error("after the first step another one signs")
	}
	tooSoon()
	coming, err := os.ReadFile(next)
	if err != nil {
		t.Fatal(err)
	}
	second := step(0, Switched, 2)
	if second.Fingerprint() == first.Fingerprint() {
		t.Error("after the second step the old one signs")
	}
	if _, err := os.Stat(next); !os.IsNotExist(err) {
		t.Errorf("the key that signs is left beside: %v", err)
	}
	tooSoon()
	// Killed before that was removed.
	write(next, coming)
	third := step(0, Ended, 1)
	if third.Fingerprint() != second.Fingerprint() || third.Accepted()[0].Equal(first.Certificate()) {
		t.Error("after the third step the new one is not the one that is left")
	}
	if fi, err := os.Stat(key); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("the key's mode is %v, %v, want 0600", fi.Mode(), err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
		t.Errorf("%v are left, %v, want ca.key and ca.pem", entries, err)
	}
	// What else is accepted stays.
	other, _, err := newPair("partner.example.org", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(filepath.Join(dir, certFile), append(other, third.PEM()...), 0o644, Owner{}); err != nil {
		t.Fatal(err)
	}
	if a := read(); a.Fingerprint() != third.Fingerprint() {
		t.Error("the authority that signs is not found by its key")
	}
	for i, want := range []Step{Begun, Switched, Ended} {
		step(0, want, []int{3, 3, 2}[i])
	}
}

// TestRotateKeepsWhatWasPutBeside: an authority of the same domain that somebody put into the file is no old one: a rotation begins with the
// first step, and ends only the one that it replaced.
func TestRotateKeepsWhatWasPutBeside(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	first, err := Create(dir, DefaultTrustDomain, Owner{}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	beside, _, err := newPair(DefaultTrustDomain, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(filepath.Join(dir, certFile), append(first.PEM(), beside...), 0o644, Owner{}); err != nil {
		t.Fatal(err)
	}
	kept, err := ParseCertificates(beside)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []Step{Begun, Switched, Ended} {
		got, err := Rotate(dir, Owner{}, time.Now(), &Life{})
		if err != nil || got != want {
			t.Fatalf("Rotate() = %d, %v, want %d", got, err, want)
		}
		a, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		all := a.Accepted()
		if n := []int{3, 3, 2}[i]; len(all) != n || !slices.ContainsFunc(all, kept[0].Equal) || slices.ContainsFunc(all, first.Certificate().Equal) != (want != Ended) {
			t.Errorf("after step %d %d authorities are accepted, want %d, the one put beside among them, and the first until the last step", want, len(all), n)
		}
	}
}
