// Package testkit holds what the tests of several rooms share: where the
// shared captures lie, and a builder of packets and TCP conversations. It
// imports no room, so that every room can use it.
package testkit

import (
	"os"
	"path/filepath"
	"testing"
)

// CapturesEnv names the environment variable that says where the shared
// captures are, when they are not beside the module.
const CapturesEnv = "HTTPCTL_PCAPS"

// SharedCaptures returns the directory of the shared captures: $HTTPCTL_PCAPS,
// or else shared/pcaps beside the module's root. It skips the test, naming what
// is missing, when there is no such directory; a directory that was named by the
// environment and isn't there fails the test.
func SharedCaptures(t testing.TB) string {
	t.Helper()
	if dir := os.Getenv(CapturesEnv); dir != "" {
		if !isDir(dir) {
			t.Fatalf("%s=%s is not a directory", CapturesEnv, dir)
		}
		return dir
	}
	dir := filepath.Join(ModuleRoot(t), "..", "shared", "pcaps")
	if !isDir(dir) {
		t.Skipf("the shared captures are not there: no directory ../shared/pcaps beside the module, and %s is not set", CapturesEnv)
	}
	return dir
}

// ModuleRoot returns the directory of go.mod, found upwards from the working
// directory of the test.
func ModuleRoot(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		up := filepath.Dir(dir)
		if up == dir {
			t.Fatal("no go.mod above the working directory")
		}
		dir = up
	}
}

func isDir(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.IsDir()
}
