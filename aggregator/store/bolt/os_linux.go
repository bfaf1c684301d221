package bolt

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// dropCache asks the kernel to forget the clean pages that it holds of a file.
func dropCache(path string) {
	f, err := os.Open(path)
	if err != nil {
		return
	}
	defer f.Close()
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
}

// unmapPages lets go of mapped pages of a file; the kernel keeps them in its cache and maps each again when it is read.
func unmapPages(address uintptr, size int64) {
	_, _, _ = unix.Syscall(unix.SYS_MADVISE, address, uintptr(size), unix.MADV_DONTNEED) // advice; nothing depends on it
}

// inodeOf returns the inode number of a file, or 0.
func inodeOf(path string) uint64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Ino
	}
	return 0
}
