package spool

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/httpctl/httpctl/pkg/boltfile"
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

// HostID reads the identity of the host whose state directory is dir, or mints it where there is none; give
// then makes the file another user's, if it is not nil. No agent needs to run, nor to be stopped.
func HostID(dir string, give func(*os.File) error) (bucket.ID, error) {
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
	err = writeFile(path, []byte(id.String()+"\n"), give)
	if errors.Is(err, fs.ErrExist) { // someone else minted it just now
		return HostID(dir, give)
	}
	if err != nil {
		return id, &Error{Op: "write host id", Path: path, Err: err, Hint: hint(path, err)}
	}
	return id, nil
}

// writeFile makes a file that is there whole or not at all, even after a power failure. One that is
// there already stays, and is the error fs.ErrExist.
func writeFile(path string, data []byte, give func(*os.File) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.new")
	if err != nil {
		return err
	}
	temp := f.Name()
	defer func() {
		if e := os.Remove(temp); err == nil {
			err = e
		}
	}()
	_, err = f.Write(data)
	if err == nil && give != nil {
		err = give(f)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Link(temp, path)
	}
	if err != nil {
		return err
	}
	return boltfile.SyncDir(filepath.Dir(path))
}
