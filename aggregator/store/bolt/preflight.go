package bolt

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/httpctl/httpctl/aggregator/store"
)

// preflight reads the two meta pages before bbolt maps the file. A file that
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
	size := info.Size()
	if size == 0 {
		return nil // bbolt fills it
	}
	// The second page's place depends on the page size, which the first tells;
	// where that is damaged, the sizes that there are get tried.
	best, found := metaPage{}, false
	for _, at := range []int64{0, 4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10} {
		m, ok := readMeta(f, at)
		if ok && (!found || m.txid > best.txid) && (at == 0 || at == int64(m.pageSize)) {
			best, found = m, true
		}
	}
	switch {
	case !found:
		return fmt.Errorf("%w: neither of its meta pages can be read", store.ErrCorrupt)
	case best.pages > uint64(size)/uint64(best.pageSize):
		return fmt.Errorf("%w: it is cut off: %d bytes, its newest state needs %d pages of %d", store.ErrCorrupt, size, best.pages, best.pageSize)
	case best.root >= best.pages || best.freelist >= best.pages && best.freelist != ^uint64(0):
		return fmt.Errorf("%w: its meta page points outside the file", store.ErrCorrupt)
	}
	return nil
}

type metaPage struct {
	pageSize              uint32
	root, freelist, pages uint64
	txid                  uint64
}

// readMeta reads bbolt's meta page at an offset: a page header of 16 bytes,
// then magic, version, page size, flags (4 bytes each), root page, sequence,
// free list page, pages in use, transaction, and FNV-1a over all these (8 bytes
// each), in the byte order of the machine.
func readMeta(f io.ReaderAt, at int64) (m metaPage, ok bool) {
	var b [16 + 64]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		return m, false
	}
	p, order := b[16:], binary.NativeEndian
	h := fnv.New64a()
	h.Write(p[:56])
	if order.Uint32(p) != 0xED0CDAED || h.Sum64() != order.Uint64(p[56:]) {
		return m, false
	}
	m = metaPage{order.Uint32(p[8:]), order.Uint64(p[16:]), order.Uint64(p[32:]), order.Uint64(p[40:]), order.Uint64(p[48:])}
	return m, m.pageSize >= 1024
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
