package boltfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"go.etcd.io/bbolt"
)

// Create makes an empty bbolt file, mode 0600, if nothing has that name. bbolt writes a new file's first
// pages in place: a power cut in their middle leaves what no program opens. Here the
// file has its name only when it is on stable storage, and so has the name when Create returns.
func Create(path string) error {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	// One at a time, where the file system can: the loser finds the winner's file.
	_ = syscall.Flock(int(dir.Fd()), syscall.LOCK_EX)
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	name := path + ".new"
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) { // what a power cut, or a kill, has left
		return err
	}
	db, err := bbolt.Open(name, 0o600, nil) // syncs it
	var failed *fs.PathError
	if errors.As(err, &failed) { // whoever reads it knows the file by the name that it is to have
		failed.Path = path
	}
	if err == nil {
		err = db.Close()
	}
	if err == nil {
		err = os.Rename(name, path)
	}
	if err != nil {
		_ = os.Remove(name)
		return err
	}
	return dir.Sync()
}

// SyncDir makes names that were made, changed or removed in a directory durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync directory %s: %w", dir, err)
	}
	return nil
}
