package config

import (
	"net"
	"testing"
)

// listen makes a Unix socket that lasts for the test.
func listen(t *testing.T, path string) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
}
