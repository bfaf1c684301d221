package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// namedNamespaces is where `ip netns` keeps the namespaces that it makes.
const namedNamespaces = "/run/netns"

// Namespace is a network namespace other than the agent's own, given to [OpenLive] by its name
// or path. What was opened in it at the start stays there, so that nothing of this needs a
// capability later. Its methods may be called by any goroutine.
type Namespace struct {
	name     string // as given
	path     string
	dev, ino uint64
	// process is the directory of the process that a path in /proc names, else -1. It tells whether
	// that process still is, also when one may not look into it any more.
	process int

	mu     sync.Mutex // guards what follows
	routes int        // a netlink socket in the namespace; -1 after close
	seq    uint32
	rings  int // that hold it
}

// openNamespace enters the namespace, has open open its rings there, and returns. What
// open opens stays in the namespace.
func openNamespace(name string, open func() error) (*Namespace, error) {
	n := &Namespace{name: name, path: name, process: -1, routes: -1}
	if !strings.Contains(name, "/") {
		n.path = filepath.Join(namedNamespaces, name)
	}
	opened := make(chan error)
	// A namespace belongs to a thread. If there is no way back, this one ends with its goroutine,
	// which has not unlocked it.
	go func() {
		runtime.LockOSThread()
		err, back := n.inside(open)
		if back {
			runtime.UnlockOSThread()
		}
		opened <- err
	}()
	if err := <-opened; err != nil {
		n.close()
		return nil, err
	}
	return n, nil
}

// inside calls open in the namespace, and reports whether the thread is back where it was.
func (n *Namespace) inside(open func() error) (err error, back bool) {
	own, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open the agent's own network namespace: %w", err), true
	}
	defer unix.Close(own)
	there, err := unix.Open(n.path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ESRCH):
		return n.fail(errors.New("no such network namespace"), "in "+namedNamespaces+" there are: "+namespaceNames()), true
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return n.fail(err, namespaceHint()), true
	case err != nil:
		return n.fail(err, ""), true
	}
	defer unix.Close(there) // it would keep the namespace alive
	var st, mine unix.Stat_t
	if err := errors.Join(unix.Fstat(there, &st), unix.Fstat(own, &mine)); err != nil {
		return n.fail(err, ""), true
	}
	n.dev, n.ino = st.Dev, st.Ino
	if n.dev == mine.Dev && n.ino == mine.Ino {
		return n.fail(errors.New("this is the agent's own network namespace"), "name its interfaces instead; any is all"), true
	}
	if process, ok := strings.CutSuffix(n.path, "/ns/net"); ok && strings.HasPrefix(process, "/proc/") {
		if fd, err := unix.Open(process, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err == nil {
			n.process = fd
		}
	}
	switch err := unix.Setns(there, unix.CLONE_NEWNET); {
	case errors.Is(err, unix.EPERM):
		return n.fail(err, namespaceHint()), true
	case errors.Is(err, unix.EINVAL):
		return n.fail(errors.New("not a network namespace"), "in "+namedNamespaces+" there are: "+namespaceNames()), true
	case err != nil:
		return n.fail(fmt.Errorf("enter it: %w", err), ""), true
	}
	if n.routes, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE); err != nil {
		err = n.fail(fmt.Errorf("open a netlink socket: %w", err), "")
	} else {
		_ = unix.SetsockoptTimeval(n.routes, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1})
		// From now on only the kernel can send to it: root of a container there could, too.
		if err = unix.Connect(n.routes, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			err = n.fail(fmt.Errorf("connect a netlink socket: %w", err), "")
		} else {
			err = open()
		}
	}
	return err, unix.Setns(own, unix.CLONE_NEWNET) == nil
}

func (n *Namespace) fail(err error, hint string) error {
	return &Error{Op: "capture in", Path: n.name, Err: err, Hint: hint}
}

// ForgetNamespaces has the whole process give up the capability to enter namespaces, once they are
// open: nothing here needs it again.
func ForgetNamespaces() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	for _, set := range []*uint32{&data[0].Effective, &data[0].Permitted, &data[0].Inheritable} {
		*set &^= 1 << unix.CAP_SYS_ADMIN
	}
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data[0])), 0)
	runtime.KeepAlive(&header)
	runtime.KeepAlive(&data)
	if errno != 0 {
		return fmt.Errorf("give up CAP_SYS_ADMIN: %w", errno)
	}
	return nil
}

// namespaceHint says what it takes to enter another namespace.
func namespaceHint() string {
	program, err := os.Executable()
	if err != nil {
		program = os.Args[0]
	}
	return "other network namespaces need the capability CAP_SYS_ADMIN, and CAP_SYS_PTRACE those of other users' processes in /proc: run it as root, or once: sudo setcap cap_net_raw,cap_sys_admin,cap_sys_ptrace+ep " + program
}

// namespaceNames lists the namespaces that have a name.
func namespaceNames() string {
	entries, err := os.ReadDir(namedNamespaces)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
		if len(names) == 50 {
			names = append(names, "...")
			break
		}
	}
	if err != nil || len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// Name returns the namespace's name or path as it was given.
func (n *Namespace) Name() string { return n.name }

// Gone reports whether the name now stands for nothing, or for another namespace. What is
// open in it may then be the last to keep it alive, with all its devices: its rings are to be closed.
func (n *Namespace) Gone() bool {
	var st unix.Stat_t
	err := unix.Stat(n.path, &st)
	if err != nil {
		n.mu.Lock()
		if n.process >= 0 {
			err = unix.Fstatat(n.process, "ns/net", &st, 0)
		}
		n.mu.Unlock()
	}
	if err == nil {
		return st.Dev != n.dev || st.Ino != n.ino
	}
	// When one may not look, it is there.
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ESRCH)
}

// Addresses returns the addresses of the namespace's interfaces; none once its rings are closed.
func (n *Namespace) Addresses() ([]netip.Addr, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.routes < 0 {
		return nil, nil
	}
	addresses, err := n.list()
	if err != nil {
		return nil, fmt.Errorf("list the addresses of network namespace %s: %w", n.name, err)
	}
	return addresses, nil
}

// list asks for all addresses (rtnetlink(7)).
func (n *Namespace) list() (addresses []netip.Addr, err error) {
	n.seq++
	request := make([]byte, unix.SizeofNlMsghdr+unix.SizeofIfAddrmsg)
	binary.NativeEndian.PutUint32(request[0:], uint32(len(request)))
	binary.NativeEndian.PutUint16(request[4:], unix.RTM_GETADDR)
	binary.NativeEndian.PutUint16(request[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	binary.NativeEndian.PutUint32(request[8:], n.seq)
	if err := unix.Sendto(n.routes, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, err
	}
	buffer := make([]byte, 64<<10) // the kernel sends no more at a time
	for {
		size, _, err := unix.Recvfrom(n.routes, buffer, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		messages, err := syscall.ParseNetlinkMessage(buffer[:size])
		if err != nil {
			return nil, err
		}
		for _, m := range messages {
			switch {
			case m.Header.Seq != n.seq: // of a request that was given up
			case m.Header.Type == unix.NLMSG_DONE:
				return addresses, nil
			case m.Header.Type == unix.NLMSG_ERROR:
				if len(m.Data) < 4 {
					return nil, errors.New("short answer")
				}
				return nil, unix.Errno(-int32(binary.NativeEndian.Uint32(m.Data)))
			case m.Header.Type == unix.RTM_NEWADDR:
				attributes, err := syscall.ParseNetlinkRouteAttr(&m)
				if err != nil {
					return nil, err
				}
				// On a point-to-point link IFA_ADDRESS is the other end's.
				own := func(a syscall.NetlinkRouteAttr) bool { return a.Attr.Type == unix.IFA_LOCAL }
				i := slices.IndexFunc(attributes, own)
				if i < 0 {
					i = slices.IndexFunc(attributes, func(a syscall.NetlinkRouteAttr) bool { return a.Attr.Type == unix.IFA_ADDRESS })
				}
				if i < 0 {
					continue
				}
				if addr, ok := netip.AddrFromSlice(attributes[i].Value); ok {
					addresses = append(addresses, addr)
				}
			}
		}
	}
}

// hold and release count the rings; the last takes the namespace's sockets with it.
func (n *Namespace) hold() {
	n.mu.Lock()
	n.rings++
	n.mu.Unlock()
}

func (n *Namespace) release() {
	n.mu.Lock()
	n.rings--
	last := n.rings == 0
	n.mu.Unlock()
	if last {
		n.close()
	}
}

func (n *Namespace) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, fd := range []*int{&n.routes, &n.process} {
		if *fd >= 0 {
			_ = unix.Close(*fd)
		}
		*fd = -1
	}
}
