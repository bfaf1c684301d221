package security

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestToken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin-token")
	if err := os.WriteFile(path, []byte("left behind"), 0o644); err != nil {
		t.Fatal(err)
	}
	var before string
	for range 2 {
		token, err := MakeToken(path)
		if err != nil {
			t.Fatal(err)
		}
		fi, err := os.Stat(path)
		if err != nil || fi.Mode() != 0o600 {
			t.Errorf("the file has mode %v, %v, want 0600", fi.Mode(), err)
		}
		text, err := ReadToken(path)
		if err != nil {
			t.Fatal(err)
		}
		if !token.Is(text) || token.Is(text[1:]) || token.Is("") || token.Is(before) {
			t.Errorf("Is: the token %v, cut %v, empty %v, the one before %v; want only the first", token.Is(text), token.Is(text[1:]), token.Is(""), token.Is(before))
		}
		before = text
	}
	if names, err := os.ReadDir(filepath.Dir(path)); err != nil || len(names) != 1 {
		t.Errorf("the directory has %v, %v, want the token alone", names, err)
	}
	if (Token{}).Is("") {
		t.Error("no token is equal to an empty one")
	}
	for _, text := range []string{"", "secret", strings.Repeat("g", 64), strings.Repeat("0", 4096)} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := ReadToken(path); err == nil {
			t.Errorf("ReadToken of %.10q = %q, want an error", text, got)
		}
	}
}

func TestIsLoopback(t *testing.T) {
	for address, want := range map[string]bool{
		"127.0.0.1:7420": true, "127.8.9.1:1": true, "[::1]:7420": true,
		"localhost:7420": false, "192.0.2.1:7420": false, ":7420": false, "unix:/x": false, "nonsense": false,
	} {
		if got := IsLoopback(address); got != want {
			t.Errorf("IsLoopback(%s) = %v, want %v", address, got, want)
		}
	}
}
