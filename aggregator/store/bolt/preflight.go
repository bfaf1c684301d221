package bolt

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/pkg/boltfile"
)

// preflight reads the meta pages before bbolt maps the file. A file that
// is shorter than its newest meta page says would make every later access to
// the missing part a memory fault.
func preflight(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("it is not a regular file (%s)", info.Mode().Type())
	}
	if _, err = boltfile.Read(f, info.Size()); err == nil {
		return nil
	}
	// Another process may just have made it longer; if so, its lock stops us next.
	if info, err = f.Stat(); err == nil {
		_, err = boltfile.Read(f, info.Size())
	}
	return corrupt(err)
}

// corrupt makes an error about what the file holds one of this store's.
func corrupt(err error) error {
	if errors.Is(err, boltfile.ErrDamaged) {
		return fmt.Errorf("%w: %v", store.ErrCorrupt, err)
	}
	return err
}

// lookOver looks over the pages that every transaction goes through, once,
// before the first; those of the intervals are looked over when they are read.
func (s *DB) lookOver(file *os.File) (*boltfile.File, error) {
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	pages, err := boltfile.Read(file, info.Size())
	if err == nil {
		err = pages.Top()
	}
	if err == nil && pages.OneMeta {
		// bbolt goes on with the other one. If that is the older, the buckets of the
		// last commit are gone: their ordinals are missing, so coverage tells which.
		s.checksumErrors.Add(1)
	}
	return pages, corrupt(err)
}

// lockHolder tells which process holds the lock on a file, where the system
// says so (Linux: /proc/locks), or "".
func lockHolder(path string) string {
	inode := inodeOf(path)
	f, err := os.Open("/proc/locks")
	if err != nil || inode == 0 {
		return ""
	}
	defer f.Close()
	suffix := fmt.Sprintf(":%d", inode)
	for lines := bufio.NewScanner(f); lines.Scan(); {
		// 1: FLOCK  ADVISORY  WRITE 1234 08:01:5678 0 EOF
		w := strings.Fields(lines.Text())
		if len(w) < 6 || w[1] != "FLOCK" || !strings.HasSuffix(w[5], suffix) {
			continue
		}
		if name, err := os.ReadFile("/proc/" + w[4] + "/comm"); err == nil {
			return fmt.Sprintf("%s (process %s)", strings.TrimSpace(string(name)), w[4])
		}
		return "process " + w[4]
	}
	return ""
}
