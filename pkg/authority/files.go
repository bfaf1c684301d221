package authority

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Owner gives files to the user of a daemon, where root makes them for it. The zero value leaves
// them with who makes them.
type Owner struct {
	uid, gid int
	set      bool
}

// OwnerOf returns the owner of a directory if this process is root's, and may give files away.
func OwnerOf(dir string) Owner {
	if os.Geteuid() != 0 {
		return Owner{}
	}
	return ownerOf(dir)
}

// Give makes an open file or directory the owner's. It takes no path: where the owner can write, that may lead elsewhere by now.
func (o Owner) Give(f *os.File) error {
	if !o.set {
		return nil
	}
	return f.Chown(o.uid, o.gid)
}

// WriteFile makes or replaces a file, which is there whole or not at all, even after a power failure.
func WriteFile(path string, data []byte, mode fs.FileMode, owner Owner) error {
	dir, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(WriteIn(dir, filepath.Base(path), data, mode, owner), dir.Close())
}

// WriteIn is WriteFile in an open directory, whatever its path leads to by now.
func WriteIn(dir *os.Root, name string, data []byte, mode fs.FileMode, owner Owner) error {
	// Of a name of its own: httpctl-agent enroll may write while an agent renews.
	temp := name + "." + rand.Text() + ".new"
	f, err := dir.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = owner.Give(f)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = dir.Rename(temp, name)
	}
	if err != nil {
		return errors.Join(err, dir.Remove(temp))
	}
	d, err := dir.Open(".")
	if err != nil {
		return err
	}
	return synced(d)
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return synced(d)
}

// synced is syncDir of an open one, which it closes.
func synced(d *os.File) error {
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync directory %s: %w", d.Name(), err)
	}
	return nil
}

// maxNames bounds the names of an aggregator.
const maxNames = 64

// CheckHost says whether a name or address can stand in an aggregator's certificate.
func CheckHost(host string) error {
	if net.ParseIP(host) != nil {
		return nil
	}
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_"
	if host == "" || len(host) > 253 || strings.Trim(host, letters) != "" || strings.HasPrefix(host, ".") || strings.Contains(host, "..") {
		return fmt.Errorf("%q is neither a host name nor an IP address", host)
	}
	return nil
}

// WriteNames keeps by which names and addresses the aggregator is reached.
func WriteNames(dir string, hosts []string, owner Owner) error {
	if len(hosts) == 0 || len(hosts) > maxNames {
		return fmt.Errorf("%d names of the aggregator: want 1 to %d", len(hosts), maxNames)
	}
	for _, h := range hosts {
		if err := CheckHost(h); err != nil {
			return err
		}
	}
	return WriteFile(filepath.Join(dir, namesFile), []byte(strings.Join(hosts, "\n")+"\n"), 0o644, owner)
}

// Names reads what WriteNames has kept.
func Names(dir string) (hosts []string, err error) {
	path := NamesPath(dir)
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the aggregator's names: %w", err)
	}
	hosts = strings.Fields(string(text))
	if len(hosts) == 0 || len(hosts) > maxNames {
		return nil, fmt.Errorf("%s: %d names: want 1 to %d, one a line", path, len(hosts), maxNames)
	}
	for _, h := range hosts {
		if err := CheckHost(h); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	return slices.Compact(hosts), nil
}

// NamesPath returns the file that holds the aggregator's names.
func NamesPath(dir string) string { return filepath.Join(dir, namesFile) }
