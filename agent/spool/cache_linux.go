package spool

import (
	"os"

	"golang.org/x/sys/unix"
)

// dropCache asks the kernel to forget the clean pages that it holds of f. It is advice: what
// it refuses to forget is read from memory.
func dropCache(f *os.File) {
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
}
