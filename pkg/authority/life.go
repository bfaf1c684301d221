package authority

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// lifeFile holds a [Life]: how long certificates live, and in a second line, if there is one, until when some live longer.
const lifeFile = "life"

// maxLife bounds what is read from lifeFile: no authority outlives it.
const maxLife = caLife

// Life is how long the certificates of members live, which renew them before. The zero value is no time at all.
type Life struct {
	Length time.Duration
	// Longer is until when certificates may be valid that were made to live longer than Length; zero if there are none.
	Longer time.Time
}

// Out returns when all certificates that were made until at have lived out.
func (l Life) Out(at time.Time) time.Time {
	if at = at.Add(l.Length); at.Before(l.Longer) {
		return l.Longer
	}
	return at
}

// ReadLife reads what WriteLife has kept. It is [fs.ErrNotExist] where no aggregator has run yet.
func ReadLife(dir string) (l Life, err error) {
	path := filepath.Join(dir, lifeFile)
	text, err := os.ReadFile(path)
	if err != nil {
		return l, fmt.Errorf("read how long certificates live: %w", err)
	}
	first, second, longer := strings.Cut(strings.TrimSpace(string(text)), "\n")
	if l.Length, err = time.ParseDuration(first); err == nil && (l.Length <= 0 || l.Length > maxLife) {
		err = fmt.Errorf("%s is no life of a certificate", l.Length)
	}
	if err == nil && longer {
		l.Longer, err = time.Parse(time.RFC3339, second)
	}
	if err != nil {
		return Life{}, fmt.Errorf("%s: %w", path, err)
	}
	return l, nil
}

// WriteLife keeps how long the certificates live that are made from now on, and until when those of before may live.
func WriteLife(dir string, length time.Duration, owner Owner, now time.Time) error {
	was, err := ReadLife(dir)
	switch {
	case err == nil && was.Length == length:
		return nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		was = Life{} // it cannot be read; this one can
	}
	text := length.String() + "\n"
	if out := was.Out(now).Add(time.Second); was.Length > length { // a second, as parts of one are not written
		text += out.UTC().Format(time.RFC3339) + "\n"
	} else if was.Longer.After(now.Add(length)) {
		text += was.Longer.UTC().Format(time.RFC3339) + "\n"
	}
	return WriteFile(filepath.Join(dir, lifeFile), []byte(text), 0o644, owner)
}
