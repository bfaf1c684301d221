//go:build linux && (amd64 || arm64)

package confine

import (
	"errors"
	"fmt"
	"runtime"
	"syscall"
	"unsafe"

	"github.com/landlock-lsm/go-landlock/landlock"
	landlocksys "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// newestLandlock is the version that the rules are made for and tested with: a newer one may forbid
// what they do not speak of.
const newestLandlock = 7

// Apply confines all threads of the process, for good. It does as much as the kernel can: parts that
// are not in force are seen in the result, and the errors of those that failed are joined. It needs a program without cgo.
func Apply(needs Needs) (r Result, err error) {
	// The order matters: Landlock and the filter need no_new_privs when there is no capability, and
	// the filter forbids the other two.
	if e := setNoNewPrivileges(); e != nil {
		return r, e
	}
	var errs []error
	if version, e := landlocksys.LandlockGetABIVersion(); e == nil && version > 0 {
		if e := restrict(needs); e != nil {
			errs = append(errs, fmt.Errorf("landlock: %w", e))
		} else {
			r.Landlock = min(version, newestLandlock)
		}
	}
	if e := dropCapabilities(); errors.Is(e, unix.EPERM) {
		// A filter that the process was started with, such as systemd's, forbids capset.
	} else if e != nil {
		errs = append(errs, e)
	} else {
		r.Capabilities = true
	}
	if e := filterCalls(); e != nil {
		errs = append(errs, e)
	} else {
		r.Seccomp = true
	}
	return r, errors.Join(errs...)
}

// restrict takes all files and ports away but those that are needed.
func restrict(needs Needs) error {
	rules := []landlock.Rule{
		landlock.RWDirs(needs.Write...),
		landlock.BindTCP(0), // of the kernel's choice: no service can be imitated from it
	}
	for _, path := range needs.Read {
		var st unix.Stat_t
		if unix.Stat(path, &st) != nil {
			continue
		}
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			rules = append(rules, landlock.PathAccess(landlock.AccessFSSet(landlocksys.AccessFSReadFile|landlocksys.AccessFSReadDir), path))
		} else {
			rules = append(rules, landlock.PathAccess(landlock.AccessFSSet(landlocksys.AccessFSReadFile), path))
		}
	}
	for _, port := range needs.Ports {
		rules = append(rules, landlock.ConnectTCP(port))
	}
	return landlock.V7.BestEffort().Restrict(rules...)
}

func setNoNewPrivileges() error {
	_, _, errno := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0)
	if errno == unix.ENOTSUP {
		return fmt.Errorf("no new privileges: a program with cgo does not reach all its threads; build it with CGO_ENABLED=0: %w", errno)
	}
	if errno != 0 {
		return fmt.Errorf("no new privileges: %w", errno)
	}
	return nil
}

// dropCapabilities empties all sets of all threads. The bounding set needs CAP_SETPCAP; without it nothing
// can come from there either, as there are no new privileges.
func dropCapabilities() error {
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
		if _, _, errno := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, c, 0, 0, 0, 0); errno != 0 {
			break
		}
	}
	// Kernels before 4.3 have no ambient set.
	_, _, _ = syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0, 0)
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&none[0])), 0)
	runtime.KeepAlive(&header)
	runtime.KeepAlive(&none)
	if errno != 0 {
		return fmt.Errorf("give up capabilities: %w", errno)
	}
	return nil
}
