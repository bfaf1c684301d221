package bolt

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	"go.etcd.io/bbolt"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/pkg/boltfile"
)

// hintRunning says what to do where an aggregator has the store open.
const hintRunning = "stop the aggregator first (systemctl stop httpctl-aggregator); agents keep what they count meanwhile, and `store backup` works while it runs"

// offline is the file of a store that no aggregator has open, locked against one.
type offline struct {
	*DB
	file *os.File
	info os.FileInfo
}

// lockFile opens a file and locks it: alone, or together with others that only read. ErrLocked
// is wrapped when another process is in the way. It is the file at path that is locked, not
// one that was replaced meanwhile.
func lockFile(path string, alone bool) (*os.File, os.FileInfo, error) {
	how := syscall.LOCK_SH
	if alone {
		how = syscall.LOCK_EX
	}
	for deadline := time.Now().Add(time.Second); ; {
		f, err := os.Open(path)
		if err != nil {
			return nil, nil, err
		}
		info, err := f.Stat()
		if err == nil && !info.Mode().IsRegular() {
			err = fmt.Errorf("it is not a regular file (%s)", info.Mode().Type())
		}
		if err == nil {
			err = syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB)
		}
		if err == nil && isStill(path, info) {
			return f, info, nil
		}
		_ = f.Close()
		switch {
		case err != nil && !errors.Is(err, syscall.EWOULDBLOCK):
			return nil, nil, err
		case time.Now().Before(deadline):
			time.Sleep(20 * time.Millisecond)
		default:
			if holder := lockHolder(path); holder != "" {
				return nil, nil, fmt.Errorf("%w: %s", ErrLocked, holder)
			}
			return nil, nil, ErrLocked
		}
	}
}

// isStill reports whether the file at path is the one that info is of.
func isStill(path string, info os.FileInfo) bool {
	now, err := os.Stat(path)
	return err == nil && os.SameFile(now, info)
}

// openOffline locks and opens the file of a store for reading. Of what can be wrong with the file only
// its meta pages are looked at, which is ErrCorrupt.
func openOffline(op, path string, alone bool) (*offline, error) {
	fail := func(err error) (*offline, error) {
		e := &Error{Op: op, Path: path, Err: err, Hint: systemHint(err)}
		switch {
		case errors.Is(err, ErrLocked):
			e.Hint = hintRunning
		case errors.Is(err, fs.ErrNotExist):
			e.Err = fmt.Errorf("no database is there: %w", fs.ErrNotExist)
			e.Hint = "name the aggregator's data directory with --data, or its configuration with --config"
		}
		return nil, e
	}
	file, info, err := lockFile(path, alone)
	if err != nil {
		return fail(err)
	}
	return openLocked(op, path, file, info, alone)
}

// openLocked opens the file of a store that lockFile has locked, and closes it when it is none.
func openLocked(op, path string, file *os.File, info os.FileInfo, alone bool) (*offline, error) {
	o := &offline{DB: &DB{path: path}, file: file, info: info}
	var err error
	if o.pages, err = boltfile.Read(file, info.Size()); err == nil && o.pages == nil {
		err = fmt.Errorf("it is empty: %w", store.ErrCorrupt)
	}
	if err == nil {
		err = guard(func() (err error) {
			// bbolt locks the same open file again, which makes a lock that is held alone one that is shared.
			o.db, err = bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, NoStatistics: true,
				OpenFile: func(string, int, os.FileMode) (*os.File, error) { return file, nil }})
			if err == nil && alone {
				err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
			}
			return err
		})
		err = o.explain(err)
	}
	if err != nil {
		o.close()
		return nil, &Error{Op: op, Path: path, Err: corrupt(err), Hint: systemHint(err)}
	}
	return o, nil
}

// close lets go of the file and of its lock.
func (o *offline) close() {
	if o.db != nil {
		_ = guard(o.db.Close) // nothing was written
	}
	_ = o.file.Close() // closed already, unless opening failed
}
