//go:build !linux

package capture

import (
	"errors"
	"net/netip"
	"runtime"
	"strings"
	"time"
)

// Live is a live source. There are none on this system.
type Live struct{ Source }

// OpenLive fails: live capture needs Linux.
func OpenLive(cfg Config) ([]*Live, error) {
	return nil, &Error{Op: "capture on", Path: strings.Join(cfg.Interfaces, ","),
		Err: errors.New("live capture is not supported on " + runtime.GOOS), Hint: "capture files can be read"}
}

// Discard does nothing.
func (*Live) Discard() {}

// Exclude does nothing.
func (*Live) Exclude(Connection) error { return nil }

// SetPorts does nothing.
func (*Live) SetPorts([]uint16) error { return nil }

// Missing returns nil.
func (*Live) Missing() []string { return nil }

// ThisMachine knows the cores only.
func ThisMachine([]string) Machine { return Machine{Cores: runtime.GOMAXPROCS(0)} }

// ReadLinks finds none.
func ReadLinks([]string) []Link { return nil }

// Namespace returns nil.
func (*Live) Namespace() *Namespace { return nil }

// Namespace is a network namespace. There are none on this system.
type Namespace struct{}

// ForgetNamespaces does nothing.
func ForgetNamespaces() error { return nil }

// Name returns nothing.
func (*Namespace) Name() string { return "" }

// Gone returns true.
func (*Namespace) Gone() bool { return true }

// Addresses returns none.
func (*Namespace) Addresses() ([]netip.Addr, error) { return nil, nil }

// Looked returns no time.
func (*Live) Looked() time.Time { return time.Time{} }

// Ahead does nothing.
func (*Live) Ahead() {}
