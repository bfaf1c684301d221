package command

import (
	"net"

	"golang.org/x/sys/unix"

	"github.com/httpctl/httpctl/pkg/security"
)

// peerPID is the process that serves a Unix socket (unix(7), SO_PEERCRED), or 0.
func peerPID(address string) (pid int) {
	network, path, err := security.SplitAddress(address)
	if err != nil || network != "unix" {
		return 0
	}
	conn, err := net.Dial(network, path)
	if err != nil {
		return 0
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = int(cred.Pid)
		}
	})
	return pid
}
