package app

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/httpctl/httpctl/pkg/config"
	"golang.org/x/sys/unix"
)

// threadTime is the processor time that this thread has had, processTime that of all.
func threadTime() time.Duration  { return usage(unix.RUSAGE_THREAD) }
func processTime() time.Duration { return usage(unix.RUSAGE_SELF) }

func usage(who int) time.Duration {
	var u unix.Rusage
	if unix.Getrusage(who, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// kernelRelease is what `uname -r` says.
func kernelRelease() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "of unknown release"
	}
	return unix.ByteSliceToString(u.Release[:])
}

// availableMemory is what the host can give, or the control group of this process if that is less; 0 if that is
// not known.
func availableMemory() config.Size {
	available := config.Size(0)
	text, _ := os.ReadFile("/proc/meminfo")
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == "MemAvailable:" {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			available = config.Size(n) * config.KiB
		}
	}
	text, _ = os.ReadFile("/proc/self/cgroup")
	for line := range strings.Lines(string(text)) {
		group, ok := strings.CutPrefix(strings.TrimSpace(line), "0::")
		if !ok {
			continue
		}
		for dir := filepath.Join("/sys/fs/cgroup", group); strings.HasPrefix(dir, "/sys/fs/cgroup"); dir = filepath.Dir(dir) {
			most, err1 := readSize(filepath.Join(dir, "memory.max"))
			now, err2 := readSize(filepath.Join(dir, "memory.current"))
			if err1 == nil && err2 == nil {
				available = min(available, max(most-now, config.KiB))
			}
		}
	}
	return available
}

func readSize(path string) (config.Size, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	return config.Size(n), err
}
