package bolt

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"
	"time"

	"go.etcd.io/bbolt"
)

// A backup is the file of a store, as a transaction sees it, and a trailer of 64 bytes:
// magic and version (16), when it was made, the length of the file (8 each, big-endian), and the
// SHA-256 of all bytes before it (32). docs/formats.md has it, too.
const (
	backupMagic = "httpctl backup\n\x01"
	trailerSize = len(backupMagic) + 8 + 8 + sha256.Size
)

// ErrCut is wrapped by errors about a backup that lacks its end, or is not as it was written.
var ErrCut = errors.New("the backup is cut off or changed")

// A ContextWriter is a writer that also gives up, with the cause, when a context ends.
type ContextWriter interface {
	io.Writer
	WriteContext(ctx context.Context, p []byte) (int, error)
}

// Backup writes a copy of the store as it is now, in the form of a backup, and returns its size.
// Appends go on meanwhile, but no page that they free is used again until it ends: the file may
// grow by what is appended. It ends early when the store is closed, or reopened after a failed commit: at once if w
// is a ContextWriter, else when the Write that is under way returns.
func (s *DB) Backup(ctx context.Context, w io.Writer) (int64, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	forget := s.copies.add(cancel)
	defer forget()
	now := time.Now
	if s.opts.Now != nil {
		now = s.opts.Now
	}
	out := newBackupWriter(ctx, w)
	err := s.view(func(tx *bbolt.Tx) error {
		if _, err := tx.WriteTo(out); err != nil {
			return err
		}
		return out.finish(now())
	})
	if err != nil {
		err = &Error{Op: "back up store", Path: s.path, Err: errors.Join(err, context.Cause(ctx)), Hint: systemHint(err)}
	}
	return out.size, err
}

var errAway = errors.New("the store is being closed")

// copies are the backups under way.
type copies struct {
	mu     sync.Mutex
	cancel map[int]context.CancelCauseFunc
	next   int
	away   bool // none may begin
}

// add enters a backup, until the function that it returns is called.
func (c *copies) add(cancel context.CancelCauseFunc) (forget func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cancel == nil {
		c.cancel = map[int]context.CancelCauseFunc{}
	}
	id := c.next
	c.next++
	c.cancel[id] = cancel
	if c.away {
		cancel(errAway)
	}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.cancel, id)
	}
}

// end ends those under way, which hold the file open, and lets none begin until begin is called.
func (c *copies) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.away = true
	for _, cancel := range c.cancel {
		cancel(errAway)
	}
}

func (c *copies) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.away = false
}

// BackupFile writes a backup of a store that no aggregator has open.
func BackupFile(ctx context.Context, path string, w io.Writer) (int64, error) {
	o, err := openOffline("back up store", path, false)
	if err != nil {
		return 0, err
	}
	defer o.close()
	return o.Backup(ctx, w)
}

// backupWriter adds up what is written, and ends it with the trailer.
type backupWriter struct {
	ctx  context.Context
	w    io.Writer
	sum  hash.Hash
	size int64
}

func newBackupWriter(ctx context.Context, w io.Writer) *backupWriter {
	return &backupWriter{ctx: ctx, w: w, sum: sha256.New()}
}

func (b *backupWriter) Write(p []byte) (int, error) {
	if b.ctx.Err() != nil {
		return 0, context.Cause(b.ctx)
	}
	b.sum.Write(p)
	n, err := b.write(p)
	b.size += int64(n)
	return n, err
}

func (b *backupWriter) write(p []byte) (int, error) {
	if w, ok := b.w.(ContextWriter); ok {
		return w.WriteContext(b.ctx, p)
	}
	return b.w.Write(p)
}

func (b *backupWriter) finish(now time.Time) error {
	t := []byte(backupMagic)
	t = binary.BigEndian.AppendUint64(t, uint64(now.UnixNano()))
	t = binary.BigEndian.AppendUint64(t, uint64(b.size))
	if _, err := b.Write(t); err != nil {
		return err
	}
	_, err := b.write(b.sum.Sum(nil))
	b.size += sha256.Size
	return err
}

// backup is what the trailer of one says.
type backup struct {
	// made is when it was made; zero for a plain copy of a store's file, which has no trailer.
	made time.Time
	// size is the length of the store's file, which comes first.
	size int64
}

// readBackup verifies a backup from its first to its last byte. A file without a trailer must be a plain copy of a
// store's file, which Check can tell to be whole.
func readBackup(ctx context.Context, f io.ReaderAt, size int64) (backup, error) {
	t := make([]byte, trailerSize)
	if size >= int64(trailerSize) {
		if _, err := f.ReadAt(t, size-int64(trailerSize)); err != nil {
			return backup{}, err
		}
	}
	if !bytes.HasPrefix(t, []byte(backupMagic)) {
		// bbolt's files have whole pages, of at least 1024 bytes.
		if size == 0 || size%1024 != 0 {
			return backup{}, fmt.Errorf("%w: it does not end as one", ErrCut)
		}
		return backup{size: size}, nil
	}
	b := backup{
		made: time.Unix(0, int64(binary.BigEndian.Uint64(t[len(backupMagic):]))),
		size: int64(binary.BigEndian.Uint64(t[len(backupMagic)+8:])),
	}
	sum := sha256.New()
	if _, err := copyContext(ctx, sum, io.NewSectionReader(f, 0, size-sha256.Size)); err != nil {
		return backup{}, err
	}
	if b.size != size-int64(trailerSize) || !bytes.Equal(sum.Sum(nil), t[trailerSize-sha256.Size:]) {
		return backup{}, fmt.Errorf("%w: its checksum does not fit", ErrCut)
	}
	return b, nil
}

// copyContext is io.Copy until ctx ends.
func copyContext(ctx context.Context, w io.Writer, r io.Reader) (int64, error) {
	return io.CopyBuffer(struct{ io.Writer }{w}, readerFunc(func(p []byte) (int, error) {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		return r.Read(p)
	}), make([]byte, 256<<10))
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
