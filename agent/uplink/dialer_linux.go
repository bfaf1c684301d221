package uplink

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Announcing returns a function that connects, and tells the two ends of a connection before it sends anything. Its
// socket is bound to a port of the kernel's choice first; which address it has is seen when it connects. Where no
// port is free, as on a proxy with tens of thousands of connections, the socket shares one with connections to
// elsewhere: the kernel chooses it when it connects, and it is told after the handshake.
func Announcing(tell func(remote netip.AddrPort, localPort uint16)) func(ctx context.Context, address string) (net.Conn, error) {
	return func(ctx context.Context, address string) (net.Conn, error) {
		remote, err := netip.ParseAddrPort(address)
		if err != nil {
			return nil, fmt.Errorf("address of the aggregator: %w", err)
		}
		remote = netip.AddrPortFrom(remote.Addr().WithZone("").Unmap(), remote.Port())
		told := false
		dialer := net.Dialer{
			KeepAlive: -1, // gRPC's own pings find a dead connection
			Control: func(network, _ string, conn syscall.RawConn) error {
				port, err := bindPort(network, conn)
				switch {
				case errors.Is(err, unix.EADDRINUSE):
					return nil
				case err != nil:
					return fmt.Errorf("bind a port: %w", err)
				}
				tell(remote, port)
				told = true
				return nil
			},
		}
		conn, err := dialer.DialContext(ctx, "tcp", address)
		if err != nil {
			return nil, err
		}
		if local, ok := conn.LocalAddr().(*net.TCPAddr); ok && !told {
			tell(remote, uint16(local.Port))
		}
		return conn, nil
	}
}

// bindPort binds a socket to a port that no other has, and returns it.
func bindPort(network string, conn syscall.RawConn) (port uint16, err error) {
	var local unix.Sockaddr = &unix.SockaddrInet4{}
	if strings.HasSuffix(network, "6") {
		local = &unix.SockaddrInet6{}
	}
	var bound unix.Sockaddr
	var failed error
	err = conn.Control(func(fd uintptr) {
		if failed = unix.Bind(int(fd), local); failed == nil {
			bound, failed = unix.Getsockname(int(fd))
		}
	})
	switch b := bound.(type) {
	case *unix.SockaddrInet4:
		port = uint16(b.Port)
	case *unix.SockaddrInet6:
		port = uint16(b.Port)
	}
	return port, errors.Join(err, failed)
}
