package bolt

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"go.etcd.io/bbolt"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/pkg/boltfile"
)

// ErrUnsound is wrapped by the errors of Compact and Restore about a file that Check finds damaged.
var ErrUnsound = errors.New("it is damaged")

// CompactOptions adjust Compact.
type CompactOptions struct {
	CheckOptions
	// DropDamaged leaves damaged intervals and values out. Otherwise they are a reason to refuse.
	DropDamaged bool
	// Dropped is told what was left out, and what will be made again, before the new file takes the place of the old one.
	Dropped func(what string)
}

// Compact writes a store's file anew, without free pages, verifies the new one, and puts it in the place of the
// old one, which stays as it is until then. No aggregator may have it open. It returns the
// sizes before and after. A damaged file is refused with ErrUnsound, unless what is damaged may be and can be dropped.
func Compact(ctx context.Context, path string, opts CompactOptions) (before, after int64, err error) {
	const op = "compact store"
	fail := func(err error, hint string) (int64, int64, error) {
		var e *Error
		if errors.As(err, &e) || ctx.Err() != nil {
			return 0, 0, err
		}
		if hint == "" {
			hint = systemHint(err)
		}
		return 0, 0, &Error{Op: op, Path: path, Err: err, Hint: hint}
	}
	o, err := openOffline(op, path, true)
	if errors.Is(err, store.ErrCorrupt) {
		return fail(fmt.Errorf("%w: %v", ErrUnsound, errors.Unwrap(err)), toRestore)
	}
	if err != nil {
		return 0, 0, err
	}
	defer o.close()
	c := compactor{offline: o, ctx: ctx, intervals: map[int64]bool{}, keys: map[string]bool{}, dropped: opts.Dropped}
	found := opts.Found
	opts.Found = func(d Damage) {
		if found != nil {
			found(d)
		}
		switch {
		case d.Remedy != Drop:
		case d.key != "":
			c.keys[d.part+"/"+d.key] = true
		default:
			c.intervals[d.start] = true
		}
	}
	report, err := o.check(ctx, opts.CheckOptions)
	switch {
	case err != nil:
		return fail(err, "")
	case report.Worst == Replace:
		return fail(fmt.Errorf("%w, in %d places", ErrUnsound, report.Damages), "this cannot be left out: "+toRestore)
	case report.Worst == Drop && !opts.DropDamaged:
		return fail(fmt.Errorf("%w, in %d places", ErrUnsound, report.Damages), "restore a backup, or leave out what is damaged with --drop-damaged")
	}

	made := path + ".compact"
	// What a compaction that was killed has left. Nobody else makes one: the old file is locked.
	if err := os.Remove(made); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fail(err, "")
	}
	done := false
	defer func() {
		if !done {
			_ = os.Remove(made)
		}
	}()
	if err := guard(func() error { return o.db.View(func(tx *bbolt.Tx) error { return c.copy(tx, made) }) }); err != nil {
		return fail(err, "")
	}
	if after, err = finish(made, o.info, o.info.Mode().Perm()); err != nil {
		return fail(err, "")
	}
	var unsound error
	again, err := Check(ctx, made, CheckOptions{State: opts.State, Found: func(d Damage) {
		if unsound == nil {
			unsound = fmt.Errorf("the new file is not sound, the old one stays: %w", &d)
		}
	}})
	if err = cmp.Or(err, unsound); err != nil {
		return fail(err, "")
	}
	if again.Buckets != c.buckets || again.Hosts != c.hosts || again.State != c.states {
		return fail(fmt.Errorf("the new file has %d buckets, %d hosts and %d states, want %d, %d and %d: the old one stays",
			again.Buckets, again.Hosts, again.State, c.buckets, c.hosts, c.states), "")
	}
	if !isStill(path, o.info) {
		return fail(errors.New("another file has taken its place meanwhile"), "try again")
	}
	if err := os.Rename(made, path); err != nil {
		return fail(err, "")
	}
	done = true
	return o.info.Size(), after, boltfile.SyncDir(filepath.Dir(path))
}

// compactor copies a store.
type compactor struct {
	*offline
	ctx            context.Context
	intervals      map[int64]bool  // to be left out
	keys           map[string]bool // part/key, to be left out
	dropped        func(string)
	buckets        uint64 // copied
	hosts, states  int
	dst            *bbolt.DB
	tx             *bbolt.Tx // of dst
	pending, since int       // bytes and keys in it
}

// mostPending bounds what one transaction of the copy keeps in memory, in bytes.
const mostPending = 16 << 20

// fillPercent of pages: what is copied is in order, and mostly never changes again.
const fillPercent = 0.95

func (c *compactor) copy(src *bbolt.Tx, path string) (err error) {
	c.dst, err = bbolt.Open(path, 0o600, &bbolt.Options{NoSync: true, NoStatistics: true, FreelistType: bbolt.FreelistMapType,
		OpenFile: func(name string, flag int, mode os.FileMode) (*os.File, error) {
			return os.OpenFile(name, flag|os.O_EXCL, mode)
		}})
	if err != nil {
		return err
	}
	defer func() {
		if c.tx != nil {
			_ = c.tx.Rollback()
		}
		err = errors.Join(err, c.dst.Close())
	}()
	c.dst.AllocSize = 1 << 20
	if c.tx, err = c.dst.Begin(true); err != nil {
		return err
	}
	cursor := src.Cursor()
	for name, value := cursor.First(); name != nil; name, value = cursor.Next() {
		from := src.Bucket(name)
		if value != nil || from == nil || string(name) == string(bucketAside) {
			continue
		}
		to, err := c.tx.CreateBucket(name)
		if err == nil {
			err = to.SetSequence(from.Sequence())
		}
		if err == nil {
			err = c.part(src, string(name), from)
		}
		if err != nil {
			return fmt.Errorf("copy %q: %w", name, err)
		}
	}
	if err := c.mendSteps(src); err != nil {
		return err
	}
	if err := c.tx.Commit(); err != nil {
		return err
	}
	c.tx = nil
	return c.dst.Sync()
}

// part copies a top-level bucket.
func (c *compactor) part(src *bbolt.Tx, name string, from *bbolt.Bucket) error {
	return from.ForEach(func(k, v []byte) error {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		start, interval := int64(0), false
		if (name == string(bucketIntervals) || name == string(bucketManifests)) && len(k) == 8 {
			start, interval = int64(binary.BigEndian.Uint64(k)), true
		}
		switch {
		case interval && c.intervals[start]:
			if name == string(bucketManifests) || from.Tx().Bucket(bucketManifests).Get(k) == nil {
				c.tell("the interval " + tell(start))
			}
			return nil
		case name == string(bucketHosts) && c.keys[name+"/"+string(k)]:
			r, err := c.hostRecord(src, k, v)
			if err == nil && r.LastEnd == 0 {
				c.tell(fmt.Sprintf("the record of host %x, which has no buckets", k))
				return nil
			}
			if err == nil {
				v, err = r.AppendBinary(nil)
			}
			if err != nil {
				return err
			}
			v = sealedValue(k, v)
		case c.isDamagedStep(name, k):
			return nil // mendSteps makes what can be
		case c.keys[name+"/"+string(k)]:
			c.tell(fmt.Sprintf("%s %q", name, k))
			return nil
		}
		switch name {
		case string(bucketHosts):
			c.hosts++
		case string(bucketState):
			c.states++
		}
		if v != nil {
			if err := c.put(c.tx.Bucket([]byte(name)), k, v); err != nil {
				return err
			}
			return c.commit()
		}
		return c.nested(name, k, from.Bucket(k))
	})
}

// nested copies a bucket within a top-level one, in as many transactions as it takes.
func (c *compactor) nested(part string, name []byte, from *bbolt.Bucket) error {
	to, err := c.tx.Bucket([]byte(part)).CreateBucket(name)
	if err == nil {
		err = to.SetSequence(from.Sequence())
	}
	if err != nil {
		return err
	}
	if err := from.ForEach(func(k, v []byte) error {
		if v == nil {
			return fmt.Errorf("a bucket in a nested bucket: %w", store.ErrCorrupt)
		}
		if part == string(bucketIntervals) {
			c.buckets++
		}
		return c.put(to, k, v)
	}); err != nil {
		return err
	}
	return c.commit()
}

func (c *compactor) put(to *bbolt.Bucket, k, v []byte) error {
	to.FillPercent = fillPercent
	c.pending += len(k) + len(v)
	c.since++
	return to.Put(k, v)
}

// commit begins a new transaction if the one under way has become large. The caller opens buckets anew.
func (c *compactor) commit() (err error) {
	if c.pending < mostPending && c.since < 1<<16 {
		return nil
	}
	c.pending, c.since = 0, 0
	err = c.tx.Commit()
	c.tx = nil
	if err == nil {
		c.tx, err = c.dst.Begin(true)
	}
	return err
}

func (c *compactor) tell(what string) {
	if c.dropped != nil {
		c.dropped(what)
	}
}

// finish cuts a new file of a store to its size, gives it an owner, that of what is like it, and a mode, and
// has it written to stable storage.
func finish(path string, like os.FileInfo, mode os.FileMode) (int64, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	pages, err := boltfile.Read(f, info.Size())
	if err != nil {
		return 0, err
	}
	if err := f.Truncate(pages.Size()); err != nil {
		return 0, err
	}
	if st, ok := like.Sys().(*syscall.Stat_t); ok {
		if err := f.Chown(int(st.Uid), int(st.Gid)); err != nil && os.Getuid() == 0 {
			return 0, err
		}
	}
	if err := f.Chmod(mode); err != nil {
		return 0, err
	}
	return pages.Size(), f.Sync()
}
