//go:build linux && (amd64 || arm64)

package confine

import (
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// calls are what Go's runtime, its net and os packages, bbolt and a packet ring still need, the
// frequent ones first. Not among them: execve, ptrace, mount, setns, unshare, bpf, open_by_handle_at, io_uring.
var calls = append([]uint32{
	unix.SYS_FUTEX, unix.SYS_PPOLL, unix.SYS_EPOLL_PWAIT, unix.SYS_NANOSLEEP, unix.SYS_READ, unix.SYS_WRITE,
	unix.SYS_RECVMSG, unix.SYS_RECVFROM, unix.SYS_SENDMSG, unix.SYS_SENDTO, unix.SYS_MADVISE,
	unix.SYS_CLOCK_GETTIME, unix.SYS_CLOCK_NANOSLEEP, unix.SYS_SCHED_YIELD, unix.SYS_SCHED_GETAFFINITY, unix.SYS_GETRANDOM,
	// memory; mmap and mprotect have rules of their own
	unix.SYS_MUNMAP, unix.SYS_MREMAP, unix.SYS_MINCORE, unix.SYS_MSYNC, unix.SYS_MLOCK, unix.SYS_MUNLOCK, unix.SYS_BRK,
	// threads and signals
	unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGRETURN, unix.SYS_SIGALTSTACK, unix.SYS_GETTID, unix.SYS_GETPID,
	unix.SYS_SET_ROBUST_LIST, unix.SYS_RSEQ, unix.SYS_EXIT, unix.SYS_EXIT_GROUP, unix.SYS_RESTART_SYSCALL,
	unix.SYS_TIMER_CREATE, unix.SYS_TIMER_SETTIME, unix.SYS_TIMER_DELETE, unix.SYS_SETITIMER,
	// files
	unix.SYS_OPENAT, unix.SYS_CLOSE, unix.SYS_PREAD64, unix.SYS_PWRITE64, unix.SYS_READV, unix.SYS_WRITEV, unix.SYS_LSEEK,
	unix.SYS_FSTAT, unix.SYS_NEWFSTATAT, unix.SYS_STATX, unix.SYS_STATFS, unix.SYS_FSTATFS, unix.SYS_GETDENTS64, unix.SYS_READLINKAT,
	unix.SYS_FACCESSAT, unix.SYS_FACCESSAT2, unix.SYS_FSYNC, unix.SYS_FDATASYNC, unix.SYS_FTRUNCATE, unix.SYS_FALLOCATE, unix.SYS_FADVISE64,
	unix.SYS_FLOCK, unix.SYS_FCNTL, unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2, unix.SYS_UNLINKAT, unix.SYS_MKDIRAT, unix.SYS_FCHMOD, unix.SYS_FCHMODAT,
	unix.SYS_UMASK, unix.SYS_DUP, unix.SYS_DUP3, unix.SYS_PIPE2, unix.SYS_EVENTFD2, unix.SYS_GETCWD,
	// network; socket has a rule of its own
	unix.SYS_EPOLL_CREATE1, unix.SYS_EPOLL_CTL, unix.SYS_CONNECT, unix.SYS_BIND, unix.SYS_LISTEN, unix.SYS_ACCEPT4, unix.SYS_SHUTDOWN,
	unix.SYS_GETSOCKNAME, unix.SYS_GETPEERNAME, unix.SYS_SETSOCKOPT, unix.SYS_GETSOCKOPT,
	// who and where
	unix.SYS_UNAME, unix.SYS_SYSINFO, unix.SYS_GETUID, unix.SYS_GETEUID, unix.SYS_GETGID, unix.SYS_GETEGID, unix.SYS_GETPPID, unix.SYS_GETRUSAGE,
	unix.SYS_PRLIMIT64, unix.SYS_CAPGET,
}, archCalls...)

// Offsets in struct seccomp_data (linux/seccomp.h); the arguments' low words, as both machines are little-endian.
const (
	offsetCall = 0
	offsetArch = 4
	offsetArgs = 16
)

// socketTypes are the bits of a socket's type that are not flags (SOCK_TYPE_MASK, linux/net.h).
const socketTypes = 0xf

// setVMAName is PR_SET_VMA (linux/prctl.h), by which Go's runtime names its memory.
const setVMAName = 0x53564d41

// filter builds the program: calls on the list pass, others fail with EPERM. An error and not the end of
// the process: what a library tries without need then costs a log line, and not the host's numbers.
func filter() ([]bpf.RawInstruction, error) {
	allow := bpf.RetConstant{Val: 0x7fff0000}                         // SECCOMP_RET_ALLOW
	deny := bpf.RetConstant{Val: 0x00050000 | uint32(unix.EPERM)}     // SECCOMP_RET_ERRNO
	unknown := bpf.RetConstant{Val: 0x00050000 | uint32(unix.ENOSYS)} // callers then use an older call
	program := []bpf.Instruction{
		bpf.LoadAbsolute{Off: offsetArch, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: arch, SkipTrue: 1},
		deny,
		bpf.LoadAbsolute{Off: offsetCall, Size: 4},
	}
	for _, call := range calls {
		program = append(program, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: call, SkipTrue: 1}, allow)
	}
	// rule judges a call by the low word of an argument.
	rule := func(call uint32, argument uint32, test ...bpf.Instruction) {
		program = append(program,
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: call, SkipTrue: uint8(len(test) + 1)},
			bpf.LoadAbsolute{Off: offsetArgs + 8*argument, Size: 4})
		program = append(program, test...)
	}
	equal := func(values ...uint32) (test []bpf.Instruction) {
		for _, v := range values {
			test = append(test, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: v, SkipTrue: 1}, allow)
		}
		return append(test, deny)
	}
	unset := []bpf.Instruction{bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: unix.PROT_EXEC, SkipTrue: 1}, allow, deny}
	rule(unix.SYS_MMAP, 2, unset...)
	rule(unix.SYS_MPROTECT, 2, unset...)
	rule(unix.SYS_CLONE, 0, bpf.JumpIf{Cond: bpf.JumpBitsNotSet, Val: unix.CLONE_THREAD, SkipTrue: 1}, allow, deny)
	// No packets, also where a capability for them could not be given up.
	rule(unix.SYS_SOCKET, 0,
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.AF_UNIX, SkipTrue: 1}, allow,
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.AF_NETLINK, SkipTrue: 1}, allow,
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.AF_INET, SkipTrue: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.AF_INET6, SkipTrue: 1}, deny,
		bpf.LoadAbsolute{Off: offsetArgs + 8, Size: 4},
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: socketTypes},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.SOCK_STREAM, SkipTrue: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.SOCK_DGRAM, SkipTrue: 1}, deny, allow)
	rule(unix.SYS_IOCTL, 1, equal(unix.SIOCGIFINDEX)...) // by which the capture sees an interface go and return
	rule(unix.SYS_PRCTL, 0, equal(setVMAName)...)
	rule(unix.SYS_TGKILL, 0, equal(uint32(os.Getpid()))...) // the runtime interrupts its own threads
	rule(unix.SYS_CLONE3, 0, unknown)
	return bpf.Assemble(append(program, deny))
}

// filterCalls puts the filter before all threads.
func filterCalls() error {
	program, err := filter()
	if err != nil {
		return fmt.Errorf("seccomp: %w", err)
	}
	raw := make([]unix.SockFilter, len(program))
	for i, p := range program {
		raw[i] = unix.SockFilter{Code: p.Op, Jt: p.Jt, Jf: p.Jf, K: p.K}
	}
	fprog := unix.SockFprog{Len: uint16(len(raw)), Filter: &raw[0]}
	thread, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&fprog)))
	runtime.KeepAlive(&fprog)
	runtime.KeepAlive(raw)
	if errno != 0 {
		return fmt.Errorf("seccomp: %w", errno)
	}
	if thread != 0 {
		return fmt.Errorf("seccomp: thread %d has a filter of its own", thread)
	}
	return nil
}
