// Package spool is the agent's durable memory: the queue of closed buckets that the
// aggregator has not yet acknowledged, the host's identity, and what the next
// incarnation must know of this one (DESIGN sections 5 and 6).
//
// A bucket is on stable storage before the agent forgets it in memory, and stays until
// it is settled. When buckets must be given up (the spool is full, an entry is
// damaged) their intervals are declared unobserved by a later bucket, and the declaration is
// as durable as the buckets are: it lives in the spool until a bucket that carries it
// was stored.
//
// The file's format is described in docs/formats.md.
package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"

	"github.com/httpctl/httpctl/pkg/config"
)

// Config are the settings of the spool.
type Config struct {
	// MaxSize bounds the closed buckets kept on disk while the aggregator is away; beyond it
	// the oldest are dropped, counted and declared unobserved. Default 256MiB: a host with
	// 2,000 requests/s makes about 10 KB every 10 s, so 3 days, and the aggregator refuses what
	// is older than max_late (24h) anyway. The file takes up to 1.5 times as much on disk (it
	// has holes, so its apparent size says more). A larger value costs disk only.
	MaxSize config.Size `yaml:"max_size" reload:"at once"`
	// MaxMemory bounds the closed buckets kept in memory while the disk is full or broken;
	// beyond it the oldest of them are dropped, counted and declared. Default 16MiB: over 4
	// hours of such a host. A larger value costs memory, only then.
	MaxMemory config.Size `yaml:"max_memory" reload:"at once"`
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{MaxSize: 256 * config.MiB, MaxMemory: 16 * config.MiB}
}

// minSize is the lowest bound that holds one bucket of the default tables (8 tables of 1,000
// rows, about 150 KB compressed) several times over.
const minSize = config.MiB

// Validate reports every fault at once.
func (c Config) Validate() error {
	var errs []error
	if c.MaxSize < minSize {
		errs = append(errs, fmt.Errorf("max_size: %d bytes; want at least 1MiB", c.MaxSize))
	}
	if c.MaxMemory < minSize || c.MaxMemory > c.MaxSize {
		errs = append(errs, fmt.Errorf("max_memory: %d bytes; want 1MiB up to max_size (%d bytes)", c.MaxMemory, c.MaxSize))
	}
	return errors.Join(errs...)
}

// ErrCorrupt is wrapped by errors about a spool file whose structure is damaged.
var ErrCorrupt = errors.New("the spool is damaged")

// ErrLocked is wrapped by Open's error when another agent uses the directory.
var ErrLocked = errors.New("another agent uses this state directory")

// ErrClosed is returned by every method after Close.
var ErrClosed = errors.New("the spool is closed")

// Error is an error that an operator can mend.
type Error struct {
	Op, Path string
	Err      error
	// Hint says what to do about it; it may be empty.
	Hint string
}

func (e *Error) Error() string {
	// The system's errors name the file again.
	s := e.Op + " " + e.Path + ": " + strings.Replace(e.Err.Error(), " "+e.Path+": ", ": ", 1)
	if e.Hint != "" {
		s += "; " + e.Hint
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// isNoSpace reports whether there was no room.
func isNoSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// isUnwritten reports whether a write found no room, which leaves what was written before as it
// was. Of a sync that says the same, on file systems that allocate late, that is not known; the library
// returns its error bare, and that of a write with the file's name.
func isUnwritten(err error) bool {
	var write *fs.PathError
	return isNoSpace(err) && errors.As(err, &write)
}

func hint(path string, err error) string {
	switch {
	case errors.Is(err, ErrCorrupt):
		return fmt.Sprintf("move it aside (mv %[1]s %[1]s.damaged) and start again: "+
			"the buckets in it that were not delivered are lost, and their intervals show as not covered", path)
	case errors.Is(err, ErrLocked):
		return "stop the other agent, or give this one a directory of its own"
	case isNoSpace(err):
		return "free space on that file system, or lower agent.spool.max_size"
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return "the agent's user must be able to write there"
	case errors.Is(err, syscall.EIO):
		return "the disk reports a fault: see dmesg"
	}
	return ""
}
