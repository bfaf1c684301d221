package access

import (
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// peerUID is the user that has opened the other end (SO_PEERCRED, unix(7)).
func peerUID(conn *net.UnixConn) (uint32, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("who is at the socket: %w", err)
	}
	var cred *unix.Ucred
	var failed error
	if err := raw.Control(func(fd uintptr) { cred, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return 0, fmt.Errorf("who is at the socket: %w", err)
	}
	if failed != nil {
		return 0, fmt.Errorf("who is at the socket: %w", failed)
	}
	return cred.Uid, nil
}
