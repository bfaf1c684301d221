package bolt

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"go.etcd.io/bbolt"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/pkg/boltfile"
)

// ErrNotEmpty is returned by Restore where a store with buckets is in the way.
var ErrNotEmpty = errors.New("it holds buckets, or cannot be read")

// RestoreOptions adjust Restore.
type RestoreOptions struct {
	CheckOptions
	// Force has a store that holds buckets replaced; it is kept beside.
	Force bool
	// Carry is asked what becomes of each value of the state under CarryPrefix that the backup (restored) or the store that is
	// replaced has, nil where one has none; nil leaves it out. It is not asked where the latter cannot be read. It may be nil.
	Carry       func(key string, restored, replaced []byte) []byte
	CarryPrefix string
	// Now tells the time, nil is time.Now.
	Now func() time.Time
}

// Restored says what Restore has done.
type Restored struct {
	Report Report    // on the new file
	Made   time.Time // when the backup was made; zero for a plain copy of a file
	Aside  string    // where the old file is kept, "" if it held nothing
	// OldNewest is the end of the newest interval of the old file, 0 if that held none or cannot be read.
	OldNewest int64
	// Carried says that Carry was asked.
	Carried bool
}

// Restore puts a store in the place of the one at path, from a backup or a plain copy of a store's file, which are verified
// whole first. No aggregator may have the old one open.
//
// What agents delivered after the backup is gone, as they have deleted it. What they still have arrives as ever, and is told from what
// the backup has by its name, so nothing is stored twice. As the ordinals between will never come, the coverage of hosts goes on
// with what arrives first: the store counts as made at the restore.
func Restore(ctx context.Context, path string, from io.Reader, opts RestoreOptions) (*Restored, error) {
	const op = "restore store"
	fail := func(err error, hint string) (*Restored, error) {
		var e *Error
		if errors.As(err, &e) {
			return nil, err
		}
		if hint == "" {
			hint = systemHint(err)
		}
		return nil, &Error{Op: op, Path: path, Err: err, Hint: hint}
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return fail(err, "")
	}
	// An empty file is a store that is not made yet. It has the lock, so that no aggregator begins one.
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o600)
	if err != nil {
		return fail(err, "")
	}
	_ = f.Close()
	file, info, err := lockFile(path, true)
	if errors.Is(err, ErrLocked) {
		return fail(err, hintRunning)
	}
	if err != nil {
		return fail(err, "")
	}
	r := &Restored{}
	held := info.Size() > 0
	var carried map[string][]byte // nil if the old state cannot be read
	if held {
		old, err := openLocked(op, path, file, info, true)
		if err == nil {
			defer old.close()
			var st store.Stats
			if guard(func() error { st = old.Stats(); return nil }) == nil {
				held, r.OldNewest = st.Intervals > 0 || st.ChecksumErrors > 0, st.NewestEnd
			}
			if opts.Carry != nil {
				carried = old.stateUnder(ctx, opts.CarryPrefix)
			}
		} else if file, info, err = lockFile(path, true); err != nil { // damaged; openLocked has closed it
			return fail(err, "")
		} else {
			defer file.Close()
		}
	} else {
		defer file.Close()
	}
	if held && !opts.Force {
		return fail(ErrNotEmpty, "say --force to have it replaced; it is kept beside")
	}

	made := path + ".restore"
	defer os.Remove(made) // and what a killed one has left; nobody else makes one, the old file is locked
	b, err := stage(ctx, made, from)
	if err != nil {
		return fail(err, "")
	}
	report, err := Check(ctx, made, opts.CheckOptions)
	if err != nil {
		return fail(err, "")
	}
	r.Made = b.made
	if report.Worst > Rewrite {
		return fail(fmt.Errorf("the backup: %w, in %d places", ErrUnsound, report.Damages),
			"nothing was changed. Take another one; or put it in place by hand and leave out what is damaged (`store compact --drop-damaged`)")
	}
	r.Report = *report
	if err := adopt(made, opts, carried); err != nil {
		return fail(err, "")
	}
	r.Carried = carried != nil
	owner := info
	if info.Size() == 0 { // made by this call
		if owner, err = os.Stat(dir); err != nil {
			return fail(err, "")
		}
	}
	if _, err := finish(made, owner, info.Mode().Perm()); err != nil {
		return fail(err, "")
	}
	if held {
		r.Aside = path + ".before-restore-" + opts.Now().UTC().Format("20060102T150405Z")
		// The name goes to the new file in one step, so that there is never none.
		if err := os.Link(path, r.Aside); errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EOPNOTSUPP) {
			err = os.Rename(path, r.Aside) // a file system without links
			if err != nil {
				return fail(err, "")
			}
		} else if err != nil {
			return fail(err, "")
		}
	}
	if err := os.Rename(made, path); err != nil {
		return fail(err, "")
	}
	if err := boltfile.SyncDir(dir); err != nil {
		return fail(err, "")
	}
	return r, nil
}

// stage copies a backup to a file, verifies it, and cuts its trailer off.
func stage(ctx context.Context, path string, from io.Reader) (b backup, err error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return b, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return b, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	n, err := copyContext(ctx, f, from)
	if err != nil {
		return b, err
	}
	if b, err = readBackup(ctx, f, n); err != nil {
		return b, err
	}
	if err := f.Truncate(b.size); err != nil {
		return b, err
	}
	return b, preflight(path)
}

// stateUnder returns all of the state under a prefix, nil if something of it cannot be read.
func (o *offline) stateUnder(ctx context.Context, prefix string) map[string][]byte {
	all := map[string][]byte{}
	end := []byte(prefix)
	end[len(end)-1]++ // prefixes end in a slash
	if err := guard(func() error {
		return o.List(ctx, prefix, string(end), func(key string, value []byte, _ uint64) error {
			all[key] = value
			return nil
		})
	}); err != nil {
		return nil
	}
	return all
}

// adopt makes a copy of a store's file one whose agents have gone on. replaced is what the store before had as state.
func adopt(path string, opts RestoreOptions, replaced map[string][]byte) error {
	s, err := Open(path, Options{Now: opts.Now})
	if err != nil {
		return err
	}
	err = s.update(context.Background(), func(tx *bbolt.Tx) (bool, error) {
		records := map[string][]byte{}
		err := tx.Bucket(bucketHosts).ForEach(func(k, v []byte) error {
			r, err := s.hostRecord(tx, k, v)
			if err != nil {
				return err
			}
			r.Restored()
			b, err := r.AppendBinary(nil)
			records[string(k)] = b
			return err
		})
		for k, b := range records {
			err = errors.Join(err, tx.Bucket(bucketHosts).Put([]byte(k), sealedValue([]byte(k), b)))
		}
		if replaced != nil {
			err = errors.Join(err, s.carry(tx, opts, replaced))
		}
		return true, errors.Join(err, putInt(tx, keyCreated, opts.Now().UnixNano()))
	}, nil)
	return errors.Join(err, s.Close())
}

// carry has the caller of Restore choose between the state of the backup and that of the store that is replaced.
func (s *DB) carry(tx *bbolt.Tx, opts RestoreOptions, replaced map[string][]byte) error {
	b := tx.Bucket(bucketState)
	restored := map[string][]byte{}
	c := b.Cursor()
	for k, v := c.Seek([]byte(opts.CarryPrefix)); bytes.HasPrefix(k, []byte(opts.CarryPrefix)) && k != nil; k, v = c.Next() {
		_, p, err := s.state(k, v)
		if err != nil {
			return err
		}
		restored[string(k)] = bytes.Clone(p)
	}
	all := maps.Clone(replaced)
	maps.Copy(all, restored)
	for _, key := range slices.Sorted(maps.Keys(all)) {
		k, had := []byte(key), restored[key]
		value := opts.Carry(key, had, replaced[key])
		var err error
		switch {
		case value == nil:
			err = b.Delete(k)
		case had == nil || !bytes.Equal(had, value):
			var next uint64
			if next, err = b.NextSequence(); err == nil {
				err = b.Put(k, sealedValue(k, binary.BigEndian.AppendUint64(nil, next), value))
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// CheckBackup is Check for a backup, or a plain copy of a store's file.
func CheckBackup(ctx context.Context, path string, opts CheckOptions) (*Report, error) {
	fail := func(err error) (*Report, error) {
		return nil, &Error{Op: "check backup", Path: path, Err: err, Hint: systemHint(err)}
	}
	f, err := os.Open(path)
	if err != nil {
		return fail(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fail(err)
	}
	if _, err := readBackup(ctx, f, info.Size()); errors.Is(err, ErrCut) {
		c := &checker{opts: opts, report: &Report{Path: path}}
		c.found(Damage{Where: "the file", Err: err, Costs: "it is of no use: take another backup", Remedy: Replace})
		return c.report, nil
	} else if err != nil {
		return fail(err)
	}
	return Check(ctx, path, opts)
}
