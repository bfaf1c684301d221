// Package security holds what keeps the programs' connections and outputs
// safe: TLS from files, the rule of when plain text is allowed, Unix sockets with
// narrow permissions, and the cleaning of strings that came from the network.
package security

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// SplitAddress reads the address of an aggregator: "unix:/path/of/socket", or
// "host:port" with brackets around an IPv6 host. It returns the arguments of
// net.Dial and net.Listen.
func SplitAddress(s string) (network, address string, err error) {
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		path = strings.TrimPrefix(path, "//")
		if path == "" {
			return "", "", fmt.Errorf("address %q: the path of the socket is missing", s)
		}
		return "unix", path, nil
	}
	_, port, err := net.SplitHostPort(s)
	if err != nil || port == "" {
		return "", "", fmt.Errorf("address %q: want host:port or unix:/path", s)
	}
	if _, err := net.LookupPort("tcp", port); err != nil {
		return "", "", fmt.Errorf("address %q: %q is no port", s, port)
	}
	return "tcp", s, nil
}

// IsLocal reports whether what is sent to the address cannot leave the host:
// a Unix socket, a loopback IP address, or the name localhost. Any other name is
// not local, whatever it resolves to today; nor is the empty host of ":7420".
func IsLocal(s string) bool {
	network, address, err := SplitAddress(s)
	if err != nil {
		return false
	}
	if network == "unix" {
		return true
	}
	host, _, _ := net.SplitHostPort(address)
	return strings.EqualFold(host, "localhost") || isLoopback(host)
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// IsLoopback reports whether the address is a loopback IP address with a port. The name localhost is none: of
// the two addresses that it may have, another program may listen on one.
func IsLoopback(s string) bool {
	network, address, err := SplitAddress(s)
	if err != nil || network == "unix" {
		return false
	}
	host, _, _ := net.SplitHostPort(address)
	return isLoopback(host)
}

// CheckAddress enforces the rule that plain text stays on the host: an address
// that is not local needs TLS. setting is the key path of the address in the configuration and
// tlsSetting that of t, so that the error says what to write.
func CheckAddress(setting, address, tlsSetting string, t TLS) error {
	if _, _, err := SplitAddress(address); err != nil {
		return fmt.Errorf("%s: %w", setting, err)
	}
	if t.IsZero() && !IsLocal(address) {
		return fmt.Errorf("%s: %s is not a loopback address or Unix socket, and traffic statistics never cross a network in plain text: "+
			"set %[3]s.cert_file, %[3]s.key_file and %[3]s.ca_file, or use 127.0.0.1 or unix:/path", setting, address, tlsSetting)
	}
	return nil
}

// SocketMode is the permission of Unix sockets: the owner and its group.
const SocketMode = 0o660

// Listen opens the listener of an address. A Unix socket has mode 0660 from
// its first moment, replaces the socket that a killed program left behind, and is removed by Close.
// An address that is in use, or a path that is no socket, is a clear error.
func Listen(ctx context.Context, address string) (net.Listener, error) {
	network, addr, err := SplitAddress(address)
	if err != nil {
		return nil, err
	}
	if network == "unix" {
		return listenUnix(ctx, addr)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, network, addr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("listen on %s: %w: stop the program that has it (ss -ltnp shows which), or choose another port", address, syscall.EADDRINUSE)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("listen on %s: %w: ports below 1024 need the capability CAP_NET_BIND_SERVICE; choose a higher one", address, syscall.EACCES)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("listen on %s: %w: this host does not have that address (ip address shows those it has)", address, syscall.EADDRNOTAVAIL)
	case err != nil:
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	return l, nil
}

// maxSocketPath is what fits sockaddr_un.sun_path with its final NUL (unix(7)).
const maxSocketPath = 107

func listenUnix(ctx context.Context, path string) (net.Listener, error) {
	fail := func(err error) (net.Listener, error) {
		return nil, fmt.Errorf("listen on unix:%s: %w", path, err)
	}
	// The socket is made beside its place and moved there once its mode is right:
	// between bind and chmod it would carry the mode of the umask.
	temp := path + ".new"
	if len(temp) > maxSocketPath {
		return fail(fmt.Errorf("the path is longer than the %d bytes a socket's path may have; choose a shorter directory", maxSocketPath-len(".new")))
	}
	fi, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if _, err := os.Stat(filepath.Dir(path)); err != nil {
			return fail(fmt.Errorf("its directory: %w", err))
		}
	case err != nil:
		return fail(err)
	case fi.Mode().Type() != fs.ModeSocket:
		return fail(errors.New("there is a file of that name that is no socket; move it away or choose another path"))
	default:
		d := net.Dialer{Timeout: time.Second}
		c, err := d.DialContext(ctx, "unix", path)
		if err == nil {
			_ = c.Close() // only asked whether someone is there
			return fail(errors.New("another program answers there; stop it or choose another path"))
		}
		if !errors.Is(err, syscall.ECONNREFUSED) { // refused: its program is gone
			return fail(err)
		}
	}
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fail(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: temp, Net: "unix"})
	if err != nil {
		return fail(err)
	}
	l.SetUnlinkOnClose(false)
	err = os.Chmod(temp, SocketMode)
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err == nil {
		fi, err = os.Lstat(path)
	}
	if err != nil {
		return fail(errors.Join(err, l.Close(), os.Remove(temp)))
	}
	return &unixListener{Listener: l, path: path, made: fi}, nil
}

// unixListener removes its socket when closed, unless someone has put another in its place.
type unixListener struct {
	net.Listener
	path string
	made fs.FileInfo
	once sync.Once
}

func (l *unixListener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

func (l *unixListener) Close() error {
	err := l.Listener.Close()
	l.once.Do(func() {
		if fi, e := os.Lstat(l.path); e == nil && os.SameFile(fi, l.made) {
			err = errors.Join(err, os.Remove(l.path))
		}
	})
	return err
}
