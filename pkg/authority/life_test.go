package authority

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestRotateWaitsForLife: a step waits as long as certificates live, those too that were made to live longer than those of today.
func TestRotateWaitsForLife(t *testing.T) {
	const day = 24 * time.Hour
	dir := filepath.Join(t.TempDir(), "ca")
	now := time.Now()
	if _, err := Create(dir, DefaultTrustDomain, Owner{}, now); err != nil {
		t.Fatal(err)
	}
	if got, err := Rotate(dir, Owner{}, now, nil); err != nil || got != Begun {
		t.Fatalf("Rotate() = %d, %v, want %d", got, err, Begun)
	}
	at := now.Add(1000 * day)
	if _, err := Rotate(dir, Owner{}, at, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Rotate() where nobody has said how long certificates live = %v, want fs.ErrNotExist", err)
	}
	live := func(length time.Duration, at time.Time) {
		t.Helper()
		if err := WriteLife(dir, length, Owner{}, at); err != nil {
			t.Fatal(err)
		}
	}
	refused := func(at, until time.Time) {
		t.Helper()
		var soon *TooSoon
		if got, err := Rotate(dir, Owner{}, at, nil); !errors.As(err, &soon) || soon.Until.Sub(until).Abs() > time.Minute {
			t.Errorf("Rotate() at %s = %d, %v, want a TooSoon until %s", at, got, err, until)
		}
	}
	live(7*day, now)
	refused(now.Add(6*day), now.Add(7*day))
	live(day, now.Add(2*day)) // what was made before that lives on
	refused(now.Add(8*day), now.Add(9*day))
	live(day, now.Add(3*day))
	live(2*day, now.Add(3*day))
	refused(now.Add(8*day), now.Add(9*day))
	live(30*day, now.Add(4*day))
	refused(now.Add(29*day), now.Add(30*day))

	path := filepath.Join(dir, lifeFile)
	for _, text := range []string{"", "a day\n", "-1h\n", "0s\n", "900000h\n", "24h\nlater\n"} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if l, err := ReadLife(dir); err == nil {
			t.Errorf("ReadLife() of %q = %v, want an error", text, l)
		}
		if _, err := Rotate(dir, Owner{}, at, nil); err == nil {
			t.Fatalf("with the file %q a step is taken", text)
		}
	}
	live(day, now)
	if got, err := Rotate(dir, Owner{}, now.Add(day+time.Minute), nil); err != nil || got != Switched {
		t.Errorf("Rotate() = %d, %v, want %d", got, err, Switched)
	}
}
