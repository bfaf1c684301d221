package uplink

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// announcing returns a dialer that tells the two ends of a connection before it sends anything. Its socket
// is bound to a port of the kernel's choice first; which address it has is seen when it connects.
func announcing(tell func(remote netip.AddrPort, localPort uint16)) *net.Dialer {
	return &net.Dialer{
		KeepAlive: -1, // gRPC's own pings find a dead connection
		Control: func(network, address string, conn syscall.RawConn) error {
			remote, err := netip.ParseAddrPort(address)
			if err != nil {
				return fmt.Errorf("address of the aggregator: %w", err)
			}
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
			if err != nil {
				return err
			}
			if failed != nil {
				return fmt.Errorf("bind a port: %w", failed)
			}
			port := 0
			switch b := bound.(type) {
			case *unix.SockaddrInet4:
				port = b.Port
			case *unix.SockaddrInet6:
				port = b.Port
			}
			tell(netip.AddrPortFrom(remote.Addr().WithZone("").Unmap(), remote.Port()), uint16(port))
			return nil
		},
	}
}
