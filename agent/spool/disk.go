package spool

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"slices"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/httpctl/httpctl/pkg/boltfile"
)

const (
	fileName = "spool.db"
	// lockWait is how long Open waits for the file's lock: long enough for an agent that is
	// just ending.
	lockWait = time.Second
	// reopenWait is the least time between two tries to open a file that failed, each of which
	// reads all of it.
	reopenWait = 5 * time.Second
	// format is the version of the file, kept in it.
	format = 1
)

// FormatVersion is the version of the spool's file that this program reads and writes.
const FormatVersion = format

// Names inside the file.
var (
	bucketQueue = []byte("queue")
	bucketMeta  = []byte("meta")
	keyFormat   = []byte("format")
	keyState    = []byte("state")
	keyLost     = []byte("lost")
)

// open opens and verifies the file.
func (s *Spool) open() error {
	err := s.guard(func() error {
		if err := boltfile.Create(s.path); err != nil {
			return err
		}
		db, err := bbolt.Open(s.path, 0o600, &bbolt.Options{
			Timeout:      lockWait,
			FreelistType: bbolt.FreelistMapType,
			OpenFile: func(name string, flag int, mode os.FileMode) (*os.File, error) {
				f, err := os.OpenFile(name, flag, mode)
				if err == nil {
					// After a failed fsync the cache may hold what the disk does not: let the
					// check read the disk.
					dropCache(f)
					s.file = f
				}
				return f, err
			},
		})
		if err != nil {
			return err
		}
		s.db = db
		return s.verify()
	})
	if err == nil {
		err = boltfile.SyncDir(s.dir) // of a file that another program has made
	}
	if err == nil {
		return nil
	}
	s.closeFile()
	for _, e := range []error{berrors.ErrInvalid, berrors.ErrChecksum, berrors.ErrVersionMismatch, berrors.ErrInvalidMapping} {
		if errors.Is(err, e) {
			err = fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
	}
	if errors.Is(err, berrors.ErrTimeout) {
		err = ErrLocked
	}
	return &Error{Op: "open spool", Path: s.path, Err: err, Hint: hint(s.path, err)}
}

// verify checks the structure of the file and every record in it, and takes stock.
func (s *Spool) verify() error {
	var disk usage
	last := s.seq
	err := s.db.View(func(tx *bbolt.Tx) error {
		if err := s.lookOver(); err != nil {
			return err
		}
		var first error
		for err := range tx.Check() { // to its end: it is a goroutine
			if first == nil {
				first = fmt.Errorf("%w: %w", ErrCorrupt, err)
			}
		}
		if first != nil {
			return first
		}
		meta, queue := tx.Bucket(bucketMeta), tx.Bucket(bucketQueue)
		if meta == nil && queue == nil {
			return nil // a new file
		}
		if meta == nil || queue == nil {
			return fmt.Errorf("%w: a part of it is missing", ErrCorrupt)
		}
		if f := meta.Get(keyFormat); len(f) != 4 || binary.BigEndian.Uint32(f) != format {
			return fmt.Errorf("its format is %x, this program knows %d", f, format)
		}
		if !s.restored {
			s.restore(meta)
			s.restored = true
		}
		c := queue.Cursor()
		for k, v := c.First(); k != nil; k, v = c.Next() {
			if len(k) != 8 || v == nil {
				return fmt.Errorf("%w: key %x in the queue", ErrCorrupt, k)
			}
			disk.count++
			disk.bytes += int64(len(v) + entryOverhead)
			seq := binary.BigEndian.Uint64(k)
			last = max(last, seq)
			if e, err := decodeEntry(seq, v); err != nil {
				s.damaged(queue, seq, e)
			}
		}
		return nil
	})
	if err == nil {
		s.disk, s.seq = disk, last
	}
	return err
}

// lookOver looks over all pages before the library follows them.
func (s *Spool) lookOver() error {
	fi, err := s.file.Stat()
	if err != nil {
		return err
	}
	pages, err := boltfile.Read(s.file, fi.Size())
	if err == nil {
		err = pages.All()
	}
	if err == nil && pages.OneMeta {
		// The library goes on with the other one. What the last commit settled is sent again, and told to be
		// there; what it added is in the time since closed_through, which Begin declares.
		s.log.Error("one of the two meta pages of the spool is damaged: its last change may be undone", "path", s.path)
	}
	if errors.Is(err, boltfile.ErrDamaged) {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return err
}

// restore reads state and declaration, on the first opening only: later those in memory are newer.
func (s *Spool) restore(meta *bbolt.Bucket) {
	c := meta.Cursor()
	for k, _ := c.First(); k != nil; k, _ = c.Next() {
		if !slices.ContainsFunc([][]byte{keyFormat, keyState, keyLost}, func(known []byte) bool { return bytes.Equal(k, known) }) {
			// A record whose key is damaged reads as one that is missing.
			s.log.Error("the spool has a record that this program does not know: that of the last run, or of dropped buckets, may be damaged and not declared",
				"path", s.path, "key", string(k))
		}
	}
	var err error
	if b := meta.Get(keyState); b != nil {
		if s.state, err = decodeState(b); err == nil {
			s.hasState = true
		} else {
			s.log.Error("the record of the agent's last run is damaged: the time since is not declared unobserved", "path", s.path)
		}
	}
	if b := meta.Get(keyLost); b != nil {
		if s.lost, err = decodeDeclaration(b); err != nil {
			s.log.Error("the record of dropped buckets is damaged: they are not declared", "path", s.path)
		}
	}
}

// damaged gives up an entry that fails its checksum. e is nil when even its interval is
// unknown; its readable neighbours then tell from when to when it can have been.
func (s *Spool) damaged(queue *bbolt.Bucket, seq uint64, e *entry) {
	if _, done := s.settled[seq]; done {
		return
	}
	if e == nil {
		e = &entry{seq: seq}
		from, to := s.neighbours(queue, seq)
		e.start, e.width = from, time.Duration(to-from)
	}
	s.log.Error("a bucket in the spool is damaged; it is dropped and its interval declared unobserved",
		"path", s.path, "sequence", seq, "from", time.Unix(0, e.start).UTC(), "to", time.Unix(0, e.span().To).UTC())
	s.giveUp(e, "damaged")
	s.settled[seq] = true
}

// neighbours returns a stretch that the bucket seq lies in: from the start of the nearest
// readable entry before it, to the end of the nearest after it.
func (s *Spool) neighbours(queue *bbolt.Bucket, seq uint64) (from, to int64) {
	var before, after *entry
	c := queue.Cursor()
	for k, v := c.Seek(key(seq)); k != nil && before == nil; k, v = c.Prev() {
		if q := binary.BigEndian.Uint64(k); q < seq {
			before, _ = decodeEntry(q, v)
		}
	}
	for k, v := c.Seek(key(seq + 1)); k != nil && after == nil; k, v = c.Next() {
		after, _ = decodeEntry(binary.BigEndian.Uint64(k), v)
	}
	switch {
	case before != nil && after != nil:
		return min(before.start, after.start), max(before.span().To, after.span().To)
	case before != nil:
		return before.start, max(before.span().To, s.state.ClosedThrough)
	case after != nil:
		return after.start - int64(after.width), after.span().To
	}
	return s.state.ClosedThrough - int64(s.state.Width), s.state.ClosedThrough
}

// nextOnDisk finds the first sound entry after a sequence number.
func (s *Spool) nextOnDisk(after uint64) (seq uint64, data []byte, err error) {
	err = s.guard(func() error {
		return s.db.View(func(tx *bbolt.Tx) error {
			queue := tx.Bucket(bucketQueue)
			if queue == nil {
				return nil
			}
			c := queue.Cursor()
			for k, v := c.Seek(key(after + 1)); k != nil; k, v = c.Next() {
				q := binary.BigEndian.Uint64(k)
				if _, done := s.settled[q]; done {
					continue
				}
				e, err := decodeEntry(q, v)
				if err == nil {
					seq, data = q, slices.Clone(e.data)
					return nil
				}
				s.damaged(queue, q, e)
			}
			return nil
		})
	})
	return seq, data, err
}

// lookup returns a bucket's entry without its data; nil when it is in neither queue. An error
// says that the file is out of service, so nobody knows.
func (s *Spool) lookup(seq uint64) (e *entry, err error) {
	if i := slices.IndexFunc(s.mem, func(e *entry) bool { return e.seq == seq }); i >= 0 {
		return s.mem[i], nil
	}
	if _, done := s.settled[seq]; done {
		return nil, nil
	}
	if s.db == nil {
		return nil, s.why
	}
	err = s.guard(func() error {
		return s.db.View(func(tx *bbolt.Tx) error {
			if queue := tx.Bucket(bucketQueue); queue != nil {
				if v := queue.Get(key(seq)); v != nil {
					e, _ = decodeEntry(seq, v)
				}
			}
			if e != nil {
				e.data = nil
			}
			return nil
		})
	})
	return e, err
}

// flush brings the file up to date in one transaction: settled entries go, the oldest go if
// there is no room, entries from memory are written, and with them state and declaration. If it
// fails, nothing has changed, in the file or here, and the next flush tries all of it again.
func (s *Spool) flush() error {
	if len(s.mem) == 0 && len(s.settled) == 0 && !s.dirty {
		return nil
	}
	if s.db == nil {
		if err := s.reopen(s.closed); err != nil {
			return err
		}
	}
	disk, lost, full := s.disk, s.lost, 0
	err := s.guard(func() error {
		err := s.db.Update(func(tx *bbolt.Tx) error {
			meta, err := tx.CreateBucketIfNotExists(bucketMeta)
			if err != nil {
				return err
			}
			queue, err := tx.CreateBucketIfNotExists(bucketQueue)
			if err != nil {
				return err
			}
			queue.FillPercent = 0.9 // keys only grow
			drop := func(k, v []byte) error {
				disk.count--
				disk.bytes -= int64(len(v) + entryOverhead)
				return queue.Delete(k)
			}
			for seq := range s.settled {
				if v := queue.Get(key(seq)); v != nil {
					if err := drop(key(seq), v); err != nil {
						return err
					}
				}
			}
			for _, e := range s.mem {
				if v := queue.Get(key(e.seq)); v != nil { // a commit that failed late has written it, or it has other bytes now
					if err := drop(key(e.seq), v); err != nil {
						return err
					}
				}
			}
			for disk.count > 0 && disk.bytes+s.memBytes > int64(s.cfg.MaxSize) {
				k, v := queue.Cursor().First()
				seq := binary.BigEndian.Uint64(k)
				e, _ := decodeEntry(seq, v)
				if e == nil {
					from, to := s.neighbours(queue, seq)
					e = &entry{start: from, width: time.Duration(to - from)}
				}
				lost = lost.with(s.datedRight(e))
				full++
				if err := drop(slices.Clone(k), v); err != nil {
					return err
				}
			}
			for _, e := range s.mem {
				if err := queue.Put(key(e.seq), e.encode()); err != nil {
					return err
				}
				disk.count++
				disk.bytes += s.cost(e)
			}
			return errors.Join(
				meta.Put(keyFormat, binary.BigEndian.AppendUint32(nil, format)),
				meta.Put(keyLost, lost.encode()),
				s.putState(meta),
			)
		})
		if err == nil && s.fault != nil {
			err = s.fault()
		}
		return err
	})
	if err != nil {
		s.metrics.errors.Inc()
		if s.db != nil && !isUnwritten(err) {
			// Whether the disk has it is unknown. The file is read back before it is used again.
			s.closeFile()
		}
		err = &Error{Op: "write spool", Path: s.path, Err: err, Hint: hint(s.path, err)}
		if s.db == nil {
			s.why = err
		}
		return err
	}
	s.disk, s.lost = disk, lost
	s.mem, s.memBytes, s.dirty = nil, 0, false
	clear(s.settled)
	s.metrics.dropped.WithLabelValues("full").Add(float64(full))
	return nil
}

func (s *Spool) putState(meta *bbolt.Bucket) error {
	if !s.hasState {
		return nil
	}
	return meta.Put(keyState, s.state.encode())
}

// reopen puts a file that failed back into service, if reading it back shows that it is sound.
// Tries have a least distance, unless now is set. If it returns nil, the file is there.
func (s *Spool) reopen(now bool) error {
	if !now && time.Since(s.tried) < reopenWait {
		return s.why
	}
	if _, err := os.Stat(s.path); errors.Is(err, fs.ErrNotExist) {
		// Moved aside under a running agent: what it held is with whoever moved it.
		s.log.Warn("the spool's file is gone; a new one is made", "path", s.path)
	}
	s.why = s.open()
	s.tried = time.Now()
	return s.why
}

func (s *Spool) closeFile() {
	if s.db != nil {
		_ = s.db.Close() // nothing is pending: every transaction has ended
	}
	if s.file != nil {
		_ = s.file.Close() // closed already unless opening failed; gives up the lock
	}
	s.db, s.file = nil, nil
}

// guard runs f, which reads the mapped file: damage that makes the library panic, or a read
// that the disk fails (a memory fault), becomes an error, and the file is out of service.
func (s *Spool) guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", ErrCorrupt, r)
			if s.file != nil {
				_ = s.file.Close() // gives up the lock; the library's own state can no longer be trusted
			}
			s.db, s.file = nil, nil
			s.why = &Error{Op: "use spool", Path: s.path, Err: err, Hint: hint(s.path, err)}
		}
	}()
	return f()
}
