package test

import (
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
)

// TestBuildsAreEqual builds the same commit in two directories as a release is built, and wants
// equal bytes that name the commit and no directory. With HTTPCTL_RELEASE=full it makes two whole
// releases, each with a build cache of its own.
func TestBuildsAreEqual(t *testing.T) {
	installed(t, "go", "git")
	full := os.Getenv("HTTPCTL_RELEASE") == "full"
	if testing.Short() && !full {
		t.Skip("compiles; left out with -short")
	}
	first, second := checkout(t, "a"), checkout(t, "another/and/longer")
	build := func(dir string) string {
		cache := ""
		cmd := exec.Command("scripts/program", "linux/"+runtime.GOARCH, "out/httpctl-agent", "httpctl-agent")
		if full {
			cmd = exec.Command("scripts/release")
			cache = filepath.Join(t.TempDir(), "cache")
			cmd.Env = append(os.Environ(), "GOCACHE="+cache, "DIST=out", "PLATFORMS=linux/amd64 darwin/arm64")
		}
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
		}
		if cache != "" {
			_ = os.RemoveAll(cache)
		}
		return filepath.Join(dir, "out")
	}
	one, other := build(first), build(second)
	files := names(t, one)
	if !slices.Equal(files, names(t, other)) || len(files) == 0 {
		t.Fatalf("one build makes %v, the other %v", files, names(t, other))
	}
	for _, name := range files {
		a, b := read(t, filepath.Join(one, name)), read(t, filepath.Join(other, name))
		if !bytes.Equal(a, b) {
			t.Errorf("%s differs from one directory to the other", name)
		}
		for _, dir := range []string{first, second} {
			if bytes.Contains(a, []byte(dir)) {
				t.Errorf("%s names the directory in which it was built", name)
			}
		}
		if info, err := buildinfo.Read(bytes.NewReader(a)); err == nil {
			if !slices.ContainsFunc(info.Settings, func(s debug.BuildSetting) bool { return s.Key == "vcs.revision" && len(s.Value) == 40 }) {
				t.Errorf("%s does not name its commit", name)
			}
			if full {
				bill(t, filepath.Join(one, name+".cdx.json"), info.Deps)
			}
		} else if !strings.Contains(name, ".") && name != "SHA256SUMS" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// checkout copies this tree's files into a directory and commits them there, each time alike.
func checkout(t *testing.T, name string) string {
	t.Helper()
	list := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	list.Dir = ".."
	out, err := list.Output()
	if err != nil {
		t.Skipf("needs the git repository: %v", err)
	}
	dir := filepath.Join(t.TempDir(), name)
	for _, file := range strings.Split(strings.Trim(string(out), "\x00"), "\x00") {
		info, err := os.Stat(filepath.Join("..", file))
		if err != nil || info.IsDir() {
			continue // removed, and not yet committed
		}
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(file)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, file), read(t, filepath.Join("..", file)), info.Mode().Perm()); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{{"init", "-q"}, {"add", "-A"}, {"commit", "-q", "-m", "a tree"}} {
		cmd := exec.Command("git", args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null",
			"GIT_AUTHOR_NAME=test", "GIT_AUTHOR_EMAIL=test@example.org", "GIT_AUTHOR_DATE=2026-01-02T03:04:05Z",
			"GIT_COMMITTER_NAME=test", "GIT_COMMITTER_EMAIL=test@example.org", "GIT_COMMITTER_DATE=2026-01-02T03:04:05Z")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	return dir
}

// bill wants every module that is in a program in its bill of materials.
func bill(t *testing.T, path string, deps []*debug.Module) {
	t.Helper()
	var b struct {
		Components []struct{ Name, Version string }
	}
	if err := json.Unmarshal(read(t, path), &b); err != nil {
		t.Errorf("%s: %v", path, err)
	}
	for _, d := range deps {
		if !slices.Contains(b.Components, struct{ Name, Version string }{d.Path, d.Version}) {
			t.Errorf("%s lacks %s %s", filepath.Base(path), d.Path, d.Version)
		}
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func names(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
