// Package bolt is the default store: one bbolt file, read and written by one
// process. docs/formats.md describes the file byte by byte.
//
// bbolt is safe against power failure and checks only its two meta pages, so
// every value here carries a CRC32C over its key and itself, and every interval
// a manifest kept apart from it; reads verify both, and look over pages before
// bbolt follows them. Reads run on a snapshot and
// hold up no append.
package bolt

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/pkg/boltfile"
)

// Options adjust Open. The zero value is the default.
type Options struct {
	// LockTimeout is how long to wait for another process to let go of the
	// file; 0 is one second, enough for a predecessor that is being stopped.
	LockTimeout time.Duration
	// Now tells when a new store is made, and which buckets are ahead of their time; nil is time.Now. Nothing else in this
	// package reads a clock, but to tell how long work took.
	Now func() time.Time
	// Rest is called by Rollup between two pieces of its work, with how long the one before took: what else there is to do need not wait
	// for all of it. Nil goes on at once.
	Rest func(worked time.Duration)

	// allocSize is by how much the file grows at a time; 0 is 4 MiB: small for
	// a single host, and a growth (truncate and fsync) is rare for a fleet.
	allocSize int
	// mostPurged is how many buckets one transaction of Purge drops before the minute under way ends it; 0 is 16,384. Appends
	// wait for it, and a bucket of a busy host has four or five pages to be freed.
	mostPurged uint64
}

// DB is a store in a bbolt file.
type DB struct {
	path string
	opts Options

	// writing serialises writers, before mu is taken.
	writing sync.Mutex
	// mu guards db and pages: readers and the writer hold it shared for the length of a
	// transaction, and whoever reopens the file exclusively.
	mu     sync.RWMutex
	db     *bbolt.DB // nil when closed, or when reopening failed
	pages  *boltfile.File
	closed bool
	broken error // why db is nil

	// looked holds the intervals whose pages were looked over, or made, since the file was
	// opened: start -> the transaction (int) from which on that is so. An earlier snapshot may
	// hold a damaged one that was set aside.
	looked sync.Map
	// proven holds the intervals, and provenSteps the steps, whose pages are their own (see own) or were made, since the file was opened.
	proven, provenSteps sync.Map
	purged              int64 // what Purge was last called with; guarded by writing
	// lookedSteps is the same for the steps of roll-ups: stepKey -> transaction.
	lookedSteps sync.Map

	// rolling is held by who rebuilds or drops roll-ups, before writing and mu are taken.
	rolling    sync.Mutex
	rests      bool        // whether who holds rolling rests between pieces of the work
	roller     roller      // guarded by rolling
	begun      stepKey     // in which a pass of Rollup ended; guarded by rolling
	rebuilding *rebuilding // nil when none is; guarded by writing

	// unproven is set once a commit has failed and until one succeeds: what is
	// in the file may then be in memory only, so nothing is called a duplicate
	// without a commit. Guarded by writing.
	unproven bool

	sums sums // of chunks of time, for queries

	outlines outlines // of the newest buckets, for the judge

	copies copies

	checksumErrors atomic.Uint64
	reopened       atomic.Uint64

	// commit is (*bbolt.Tx).Commit, but in tests of its failure.
	commit func(*bbolt.Tx) error
}

var (
	_ store.Store    = (*DB)(nil)
	_ store.Expecter = (*DB)(nil)
)

// Error is a failure of the file as a whole. Hint tells an operator what to do.
type Error struct {
	Op, Path string
	Err      error
	Hint     string
}

func (e *Error) Error() string {
	// The system's errors name the file again.
	why := strings.Replace(e.Err.Error(), " "+e.Path+": ", ": ", 1)
	s := fmt.Sprintf("%s %s: %s", e.Op, e.Path, why)
	if e.Hint != "" {
		s += "; " + e.Hint
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// systemHint says what to do about an error of the file system, "" for others.
func systemHint(err error) string {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return "free space on that file system"
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return "the user of this program must be able to write there"
	case errors.Is(err, syscall.EIO):
		return "the disk reports a fault: see dmesg"
	}
	return ""
}

// ErrLocked is wrapped by Open's error when another process has the file open.
var ErrLocked = errors.New("another process has it open")

// initialMap is how much address space to map at once. bbolt must wait for all
// readers whenever it maps more, so this keeps queries and appends apart up to a
// file of this size; it costs no memory.
func initialMap() int {
	if strconv.IntSize == 64 {
		return 64 << 30
	}
	return 512 << 20
}

// Open opens the store at path, making it (and its directory) if it is not
// there. The error wraps ErrLocked, store.ErrCorrupt or store.ErrVersion where
// that is the reason, and then says what to do.
func Open(path string, opts Options) (*DB, error) {
	if opts.LockTimeout <= 0 {
		opts.LockTimeout = time.Second
	}
	if opts.allocSize == 0 {
		opts.allocSize = 4 << 20
	}
	if opts.mostPurged == 0 {
		opts.mostPurged = 16 << 10
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	s := &DB{path: path, opts: opts, commit: (*bbolt.Tx).Commit}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	var err error
	if s.db, s.pages, err = s.open(); err != nil {
		return nil, err
	}
	if err := s.upgrade(); err != nil {
		_ = s.Close()
		return nil, err
	}
	return s, nil
}

// open opens and checks the file.
func (s *DB) open() (*bbolt.DB, *boltfile.File, error) {
	fail := func(err error) error {
		e := &Error{Op: "open store", Path: s.path, Err: err}
		switch {
		case errors.Is(err, store.ErrCorrupt):
			e.Hint = fmt.Sprintf("stop all programs that use it, move it aside (mv %[1]s %[1]s.damaged) and start again: "+
				"an empty store is made, and agents send what was not yet acknowledged", s.path)
		case errors.Is(err, store.ErrVersion):
			e.Hint = "run the newer program, or move the file aside"
		case errors.Is(err, ErrLocked):
			e.Hint = "stop that process, or give this one another path"
		default:
			e.Hint = systemHint(err)
		}
		return e
	}
	if err := boltfile.Create(s.path); err != nil {
		return nil, nil, fail(err)
	}
	if err := preflight(s.path); err != nil {
		return nil, nil, fail(err)
	}
	var file *os.File
	var db *bbolt.DB
	var pages *boltfile.File
	err := guard(func() (err error) {
		db, err = bbolt.Open(s.path, 0o600, &bbolt.Options{
			Timeout:         s.opts.LockTimeout,
			FreelistType:    bbolt.FreelistMapType,
			InitialMmapSize: initialMap(),
			NoStatistics:    true,
			OpenFile: func(name string, flag int, mode os.FileMode) (f *os.File, err error) {
				f, err = os.OpenFile(name, flag, mode)
				file = f
				return f, err
			},
		})
		return err
	})
	if err != nil {
		if file != nil {
			_ = file.Close() // bbolt leaves it open when it panics
		}
		return nil, nil, fail(s.explain(err))
	}
	if info, err := file.Stat(); err == nil && !isStill(s.path, info) {
		// Compact or Restore has put another file in its place while this waited for the lock.
		_ = guard(db.Close)
		return s.open()
	}
	db.AllocSize = s.opts.allocSize
	if pages, err = s.lookOver(file); err == nil {
		err = guard(func() error { return s.check(db) })
	}
	if err == nil {
		// The file may be new to its directory: bbolt syncs what is in it, not its name.
		err = boltfile.SyncDir(filepath.Dir(s.path))
	}
	if err != nil {
		_ = guard(db.Close)
		return nil, nil, fail(err)
	}
	return db, pages, nil
}

// explain turns an error of bbolt.Open into one of ours.
func (s *DB) explain(err error) error {
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		if holder := lockHolder(s.path); holder != "" {
			return fmt.Errorf("%w: %s", ErrLocked, holder)
		}
		return ErrLocked
	case errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrChecksum), errors.Is(err, berrors.ErrVersionMismatch):
		return fmt.Errorf("%w: %v", store.ErrCorrupt, err)
	}
	return err
}

// check verifies the format marker, or writes it into a new file, and that
// all top-level buckets are there.
func (s *DB) check(db *bbolt.DB) error {
	fresh, empty := false, false
	err := db.View(func(tx *bbolt.Tx) error {
		meta := tx.Bucket(bucketMeta)
		if meta == nil {
			k, _ := tx.Cursor().First()
			fresh, empty = true, k == nil
			return nil
		}
		version, err := formatOf(meta.Get(keyFormat))
		if err != nil {
			return err
		}
		for _, name := range bucketsOf(version) {
			if tx.Bucket(name) == nil {
				return fmt.Errorf("it has no %q: %w", name, store.ErrCorrupt)
			}
		}
		// A value whose key is damaged is found by nobody who asks for it, so these are looked at once.
		for _, name := range [][]byte{bucketHosts, bucketState} {
			if err := tx.Bucket(name).ForEach(func(k, v []byte) error {
				if _, err := unseal(k, v); err != nil {
					s.checksumErrors.Add(1)
				}
				return nil
			}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil || !fresh {
		return err
	}
	if !empty {
		return fmt.Errorf("it is a database of another program: %w", store.ErrCorrupt)
	}
	return db.Update(func(tx *bbolt.Tx) error {
		for _, name := range bucketsOf(formatVersion) {
			if _, err := tx.CreateBucket(name); err != nil {
				return err
			}
		}
		return errors.Join(
			tx.Bucket(bucketMeta).Put(keyFormat, formatValue(formatVersion)),
			putInt(tx, keyCreated, s.opts.Now().UnixNano()))
	})
}

// ReleasePages lets go of the pages of the file that were mapped by reading it. They count as resident memory of this process
// until someone else needs it, which looks like a leak as large as the file.
func (s *DB) ReleasePages() error {
	return s.view(func(tx *bbolt.Tx) error { // during which the file is not mapped anew
		unmapPages(tx.DB().Info().Data, tx.Size())
		return nil
	})
}

// Close releases the file. It waits for the transactions under way.
func (s *DB) Close() error {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.copies.end()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.db == nil {
		return nil
	}
	db := s.db
	s.db, s.broken = nil, nil
	if err := guard(db.Close); err != nil {
		return fmt.Errorf("close store %q: %w", s.path, err)
	}
	return nil
}

// guard runs f and turns the panics and memory faults that a damaged file
// makes bbolt meet into errors.
func guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", store.ErrCorrupt, p)
		}
	}()
	return f()
}

// view runs f in a read transaction.
func (s *DB) view(f func(*bbolt.Tx) error) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.db == nil {
		return s.whyClosed()
	}
	return guard(func() error { return s.db.View(f) })
}

func (s *DB) whyClosed() error {
	if s.closed {
		return &Error{Op: "use store", Path: s.path, Err: os.ErrClosed}
	}
	return s.broken
}

// update runs f in a write transaction and commits it, if f changed something.
// When the commit fails, nobody knows what reached the disk: update then opens
// the file anew and has the given intervals verified, and returns the error; the
// caller finds out what became of its change by asking.
func (s *DB) update(ctx context.Context, f func(*bbolt.Tx) (changed bool, err error), touched []int64) error {
	return s.updateThen(ctx, f, touched, func() {})
}

// updateThen is update, which calls done after the commit, before anything else is changed.
func (s *DB) updateThen(ctx context.Context, f func(*bbolt.Tx) (changed bool, err error), touched []int64, done func()) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.RLock()
	if s.db == nil {
		s.mu.RUnlock()
		if err := s.reopen(nil); err != nil {
			return err
		}
		s.mu.RLock()
	}
	if s.db == nil { // closed meanwhile
		defer s.mu.RUnlock()
		return s.whyClosed()
	}
	committing := false
	err := guard(func() error {
		tx, err := s.db.Begin(true)
		if err != nil {
			return err
		}
		defer func() { _ = tx.Rollback() }() // a no-op after commit
		changed, err := f(tx)
		if err != nil {
			return err
		}
		if s.unproven {
			changed = true
			if err := putInt(tx, keyProof, int64(tx.ID())); err != nil {
				return err
			}
		}
		if !changed {
			return nil
		}
		committing = true
		return s.commit(tx)
	})
	if err == nil && committing {
		if !s.sums.faults.guard(done) {
			s.sums.changeAll() // nobody knows what they have
		}
	}
	s.sums.change(touched)
	s.mu.RUnlock()
	switch {
	case err == nil:
		if committing {
			s.unproven = false
		}
		return nil
	case !committing:
		return err
	}
	err = &Error{Op: "commit to store", Path: s.path, Err: err, Hint: systemHint(err)}
	if again := s.reopen(touched); again != nil {
		return errors.Join(err, again)
	}
	return err
}

// reopen closes the file, drops what the kernel has cached of it, opens it and
// verifies the intervals. The caller holds writing.
func (s *DB) reopen(intervals []int64) error {
	s.copies.end()
	defer s.copies.begin()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return s.whyClosed()
	}
	if s.db != nil {
		_ = guard(s.db.Close)
		s.db = nil
	}
	s.unproven = true
	s.sums.changeAll()
	s.looked.Clear()
	s.lookedSteps.Clear()
	s.proven.Clear()
	s.provenSteps.Clear()
	s.reopened.Add(1)
	// After a failed fsync the kernel may call pages clean that never reached
	// the disk. What it serves from now on must come from there.
	dropCache(s.path)
	db, pages, err := s.open()
	if err == nil {
		s.pages = pages
		err = guard(func() error {
			return db.View(func(tx *bbolt.Tx) error {
				for _, start := range intervals {
					if err := s.verifyInterval(tx, start); err != nil {
						return err
					}
				}
				return nil
			})
		})
		if err != nil {
			_ = guard(db.Close)
		}
	}
	if err != nil {
		s.broken = fmt.Errorf("store %q is out of use since a commit failed: %w", s.path, err)
		return s.broken
	}
	s.db, s.broken = db, nil
	return nil
}

// ChecksumErrors is that of Stats, without looking at the store.
func (s *DB) ChecksumErrors() uint64 { return s.checksumErrors.Load() }

// Faults counts the faults of this program that cost it sums that were kept for the next question, since the file was opened, and
// has the newest with its stack, "" without one.
func (s *DB) Faults() (n uint64, newest string) { return s.sums.faults.told() }

// Stats implements store.Store. When the file cannot be read, only the path
// and the counters of this process are set.
func (s *DB) Stats() store.Stats {
	st := store.Stats{Path: s.path}
	_ = s.view(func(tx *bbolt.Tx) error {
		st.SealedThrough = getInt(tx, keySealed)
		st.Expired = uint64(getInt(tx, keyExpired))
		c := tx.Bucket(bucketManifests).Cursor()
		for k, v := c.First(); k != nil; k, v = c.Next() {
			m, err := parseManifest(k, v)
			if err != nil || len(k) != 8 {
				s.checksumErrors.Add(1)
				continue
			}
			if st.Intervals == 0 {
				st.OldestStart = int64(binary.BigEndian.Uint64(k))
			}
			st.Intervals++
			st.Buckets += m.count
			st.NewestEnd = max(st.NewestEnd, m.end)
		}
		for r := store.Minute; r <= store.Day; r++ {
			s.eachManifest(tx, r, func(_ stepKey, m stepManifest, _ error) {
				st.Rollups[r]++
				st.Dirty += int(m.dirty)
			})
		}
		return nil
	})
	if info, err := os.Stat(s.path); err == nil {
		st.Bytes = info.Size()
	}
	_, st.SumBytes, st.SumsUsed, st.SumsMade = s.sums.total()
	st.ChecksumErrors = s.checksumErrors.Load()
	st.Reopened = s.reopened.Load()
	st.Faults, _ = s.Faults()
	return st
}
