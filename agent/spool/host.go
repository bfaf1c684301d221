package spool

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/httpctl/httpctl/pkg/bucket"
)

// hostFile holds the host id as 32 hexadecimal digits. It is a file of its own so that the
// identity survives a spool that had to be moved aside.
const hostFile = "host-id"

// NewID returns a random identity, for a host or an incarnation.
func NewID() (id bucket.ID) {
	_, _ = rand.Read(id[:]) // never fails: crypto/rand ends the program instead
	return id
}

// hostID reads the host's identity, or mints it on the first start. The caller holds the
// spool's lock.
func hostID(dir string) (bucket.ID, error) {
	path := filepath.Join(dir, hostFile)
	text, err := os.ReadFile(path)
	if err == nil {
		id, err := bucket.ParseID(strings.TrimSpace(string(text)))
		if err != nil || id.IsZero() {
			return id, &Error{Op: "read host id", Path: path, Err: errors.New("it does not hold 32 hexadecimal digits"),
				Hint: "restore it, or remove it to report as a new host"}
		}
		return id, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return bucket.ID{}, &Error{Op: "read host id", Path: path, Err: err, Hint: hint(path, err)}
	}
	id := NewID()
	if err := writeFile(path, []byte(id.String()+"\n")); err != nil {
		return id, &Error{Op: "write host id", Path: path, Err: err, Hint: hint(path, err)}
	}
	return id, nil
}

// writeFile makes a file that is there whole or not at all, even after a power failure.
func writeFile(path string, data []byte) (err error) {
	temp := path + ".new"
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync directory %s: %w", dir, err)
	}
	return nil
}
