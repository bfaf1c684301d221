package bolt

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/aggregator/store/storetest"
)

func later() time.Time { return time.Unix(0, storetest.At(50)) }

// restored puts a backup in a place of its own and opens it.
func restored(t *testing.T, backup []byte) *DB {
	t.Helper()
	path := filepath.Join(t.TempDir(), "store.db")
	if _, err := Restore(ctx, path, bytes.NewReader(backup), RestoreOptions{Now: later}); err != nil {
		t.Fatal(err)
	}
	s, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// paused is a writer that, once so many bytes have come, lets a function run.
type paused struct {
	bytes.Buffer
	after int
	run   func()
}

func (p *paused) Write(b []byte) (int, error) {
	if p.run != nil && p.Len() >= p.after {
		p.run()
		p.run = nil
	}
	return p.Buffer.Write(b)
}

// TestBackupWhileAppending: a backup is of one moment, and what is appended, replaced and purged
// in its middle is not held up.
func TestBackupWhileAppending(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	for i := range 10 {
		for host := range 40 {
			appendAll(t, s, item(t, host, i, 1))
		}
	}
	w := &paused{after: 100 << 10}
	w.run = func() {
		for i := range 10 {
			for host := range 40 {
				appendAll(t, s, item(t, host, 10+i, 1000))
			}
		}
		if n, err := s.Purge(ctx, storetest.At(6)); n != 6 || err != nil {
			t.Errorf("Purge = %d, %v", n, err)
		}
		appendAll(t, s, item(t, 1, 30, 1))
	}
	n, err := s.Backup(ctx, w)
	if err != nil || n != int64(w.Len()) {
		t.Fatalf("Backup = %d, %v, want %d", n, err, w.Len())
	}
	if w.run != nil {
		t.Fatal("the backup was too short to do anything in its middle")
	}
	if got, damaged := sum(t, restored(t, w.Bytes())); got != 400 || damaged != nil {
		t.Errorf("the backup has %d requests, damaged %v, want 400", got, damaged)
	}
	if got, _ := sum(t, s); got != 400_000+400+1 { // what was purged is in roll-ups
		t.Errorf("the store has %d requests, want 400401", got)
	}
	if st := s.Stats(); st.OldestStart != storetest.At(6) {
		t.Errorf("the oldest interval starts at %d, want %d", st.OldestStart, storetest.At(6))
	}
}

// TestBackupIsWhole: a backup that lacks its end, or has another bit, is refused.
func TestBackupIsWhole(t *testing.T) {
	path := filled(t)
	var b bytes.Buffer
	if _, err := BackupFile(ctx, path, &b); err != nil {
		t.Fatal(err)
	}
	whole := b.Bytes()
	refused := func(what string, data []byte, want error) {
		t.Helper()
		dir := t.TempDir()
		if _, err := Restore(ctx, filepath.Join(dir, "store.db"), bytes.NewReader(data), RestoreOptions{}); !errors.Is(err, want) {
			t.Errorf("%s: Restore = %v, want %v", what, err, want)
		}
		names, _ := os.ReadDir(dir)
		for _, n := range names {
			if info, _ := n.Info(); n.Name() != "store.db" || info.Size() != 0 {
				t.Errorf("%s: Restore leaves %s of %d bytes", what, n.Name(), info.Size())
			}
		}
		file := filepath.Join(dir, "backup")
		write(t, file, data)
		if r, err := CheckBackup(ctx, file, CheckOptions{}); err != nil || r.Worst != Replace {
			t.Errorf("%s: CheckBackup = %+v, %v, want damage", what, r, err)
		}
	}
	for _, missing := range []int{1, 31, 32, 63, 65, 1000, len(whole) / 2, len(whole)} {
		refused("cut off", whole[:len(whole)-missing], ErrCut)
	}
	// Where the cut leaves whole pages it reads as a copy of a file, whose meta page tells.
	refused("cut off at the trailer's page", whole[:len(whole)-64-os.Getpagesize()], store.ErrCorrupt)
	for _, at := range []int{0, 100, len(whole) / 3, len(whole) - 60, len(whole) - 40, len(whole) - 1} {
		data := bytes.Clone(whole)
		data[at] ^= 1
		refused("changed", data, ErrCut)
	}
	if got, damaged := sum(t, restored(t, whole)); got != filledRequests || damaged != nil {
		t.Errorf("the whole one has %d requests, damaged %v", got, damaged)
	}
	plain, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, damaged := sum(t, restored(t, plain)); got != filledRequests || damaged != nil {
		t.Errorf("a copy of the file has %d requests, damaged %v", got, damaged)
	}
	file := filepath.Join(t.TempDir(), "backup")
	write(t, file, whole)
	if r, err := CheckBackup(ctx, file, CheckOptions{}); err != nil || r.Damages != 0 || r.Buckets != filledRequests-1 {
		t.Errorf("CheckBackup of a whole one = %+v, %v", r, err)
	}
}

// TestBackupEnds: a backup under way ends when the store is closed, or opened again after a commit failed.
func TestBackupEnds(t *testing.T) {
	for name, end := range map[string]func(*DB){
		"closed": func(s *DB) { s.Close() },
		"reopened": func(s *DB) {
			s.writing.Lock()
			defer s.writing.Unlock()
			_ = s.reopen(nil)
		},
	} {
		s := open(t, t.TempDir())
		for i := range 20 {
			appendAll(t, s, item(t, 1, i, 1))
		}
		ended := make(chan struct{})
		w := &paused{}
		w.run = func() {
			go func() { end(s); close(ended) }()
			for s.copies.underWay() { // until it was asked to end
				time.Sleep(time.Millisecond)
			}
		}
		if _, err := s.Backup(ctx, w); !errors.Is(err, errAway) {
			t.Errorf("%s: Backup = %v, want errAway", name, err)
		}
		<-ended
		s.Close()
	}
}

// standing is a writer that stands still.
type standing struct{ begun chan struct{} }

func (standing) Write([]byte) (int, error) { return 0, errors.New("written to without a context") }

func (w standing) WriteContext(ctx context.Context, _ []byte) (int, error) {
	close(w.begun)
	<-ctx.Done()
	return 0, context.Cause(ctx)
}

// TestStandingBackupEnds: a backup of which nobody reads does not hold up that the store is closed.
func TestStandingBackupEnds(t *testing.T) {
	s := open(t, t.TempDir())
	appendAll(t, s, item(t, 1, 0, 1))
	w := standing{make(chan struct{})}
	closed := make(chan error)
	go func() {
		<-w.begun
		closed <- s.Close()
	}()
	if _, err := s.Backup(ctx, w); !errors.Is(err, errAway) {
		t.Fatalf("Backup = %v, want errAway", err)
	}
	if err := <-closed; err != nil {
		t.Errorf("Close = %v", err)
	}
}

// underWay reports whether backups may begin.
func (c *copies) underWay() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.away
}

// TestRestoreOverAStore: a store that holds something is not replaced unasked, and is kept.
func TestRestoreOverAStore(t *testing.T) {
	path := filled(t)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	small := open(t, t.TempDir())
	appendAll(t, small, item(t, 1, 0, 5))
	var b bytes.Buffer
	if _, err := small.Backup(ctx, &b); err != nil {
		t.Fatal(err)
	}
	small.Close()
	if _, err := Restore(ctx, path, bytes.NewReader(b.Bytes()), RestoreOptions{}); !errors.Is(err, ErrNotEmpty) || !strings.Contains(err.Error(), "--force") {
		t.Errorf("Restore over a store = %v, want ErrNotEmpty and what to do", err)
	}
	if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
		t.Error("Restore has refused and changed the file")
	}
	for _, damage := range []bool{false, true} {
		if damage {
			before = bytes.Repeat([]byte("text "), 3000)
			write(t, path, before)
			if _, err := Restore(ctx, path, bytes.NewReader(b.Bytes()), RestoreOptions{}); !errors.Is(err, ErrNotEmpty) {
				t.Errorf("Restore over what cannot be read = %v, want ErrNotEmpty", err)
			}
		}
		now := func() time.Time { return later().Add(time.Hour) }
		if damage {
			now = later
		}
		r, err := Restore(ctx, path, bytes.NewReader(b.Bytes()), RestoreOptions{Force: true, Now: now})
		if err != nil {
			t.Fatal(err)
		}
		if kept, err := os.ReadFile(r.Aside); err != nil || !bytes.Equal(kept, before) {
			t.Errorf("the old one is kept as %q: %v, equal: %t", r.Aside, err, bytes.Equal(kept, before))
		}
		if want := map[bool]int64{false: storetest.At(10)}[damage]; r.OldNewest != want || r.Report.NewestEnd != storetest.At(1) || r.Made.IsZero() {
			t.Errorf("Restore = %+v, want the old one to end at %d", r, want)
		}
		s, err := Open(path, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if got, damaged := sum(t, s); got != 5 || damaged != nil {
			t.Errorf("after Restore: %d requests, damaged %v, want 5", got, damaged)
		}
		s.Close()
	}
	held := open(t, t.TempDir())
	defer held.Close()
	if _, err := Restore(ctx, held.path, bytes.NewReader(b.Bytes()), RestoreOptions{Force: true}); !errors.Is(err, ErrLocked) {
		t.Errorf("Restore over an open store = %v, want ErrLocked", err)
	}
}

// TestRestoredAgentsGoOn: after an older backup was restored, what an agent sends again is told from what is there, what it
// had acknowledged since is gone, and its coverage goes on with what it sends next.
func TestRestoredAgentsGoOn(t *testing.T) {
	s := open(t, t.TempDir())
	numbered := func(i int) store.Item {
		b := storetest.Bucket(storetest.Header(1, i), nil)
		b.Ordinal, b.ClosedThrough, b.ObservedFrom = uint64(i), storetest.At(i+1), storetest.At(0)
		return storetest.Item(t, b)
	}
	var b bytes.Buffer
	for i := range 20 {
		if i == 10 {
			if _, err := s.Backup(ctx, &b); err != nil {
				t.Fatal(err)
			}
		}
		appendAll(t, s, numbered(i))
	}
	s.Close()
	s = restored(t, b.Bytes())
	if r, err := s.Append(ctx, []store.Item{numbered(9), numbered(20), numbered(21)}); err != nil || !slices.Equal(r, []store.Result{store.Duplicate, store.Stored, store.Stored}) {
		t.Errorf("Append of buckets 9, 20 and 21 = %v, %v, want Duplicate, Stored, Stored", r, err)
	}
	hosts, err := s.Hosts(ctx)
	if err != nil || len(hosts) != 1 || hosts[0].CoveredThrough != storetest.At(22) || hosts[0].FirstStart != storetest.At(0) {
		t.Errorf("Hosts = %+v, %v, want covered through %d", hosts, err, storetest.At(22))
	}
	a, err := s.Query(ctx, store.Plan{To: storetest.At(100)})
	if err != nil || a.Slices[0].Buckets != 12 {
		t.Errorf("Query = %+v, %v, want 12 buckets", a, err)
	}
	if c := a.Slices[0].Covered; len(c) != 2 || c[0].To != storetest.At(10) || c[1].From != storetest.At(20) {
		t.Errorf("covered %v, want intervals 0 to 9 and 20 to 21", c)
	}
}

// BenchmarkAppendDuringBackup is how long an append of 50 buckets takes, alone and while backups are made all the time.
func BenchmarkAppendDuringBackup(b *testing.B) {
	for _, name := range []string{"alone", "backup"} {
		b.Run(name, func(b *testing.B) {
			s := open(b, b.TempDir())
			defer s.Close()
			var batch []store.Item
			for host := range 50 {
				batch = append(batch, wide(b, host, 0))
			}
			put := func(n int) {
				for i := range batch {
					h := *batch[i].Header
					h.Start, h.Ordinal, h.ClosedThrough = storetest.At(n), uint64(n), storetest.At(n+1)
					batch[i].Header = &h
				}
				if _, err := s.Append(ctx, batch); err != nil {
					b.Fatal(err)
				}
			}
			for n := range 500 {
				put(n)
			}
			stop, cancel := context.WithCancel(ctx)
			done := make(chan int)
			go func() {
				made := 0
				for name == "backup" && stop.Err() == nil {
					if _, err := s.Backup(stop, io.Discard); err == nil {
						made++
					}
				}
				done <- made
			}()
			n, worst := 500, time.Duration(0)
			for b.Loop() {
				begun := time.Now()
				put(n)
				worst = max(worst, time.Since(begun))
				n++
			}
			cancel()
			b.ReportMetric(float64(<-done), "backups")
			b.ReportMetric(float64(worst.Microseconds())/1000, "worst-ms")
			b.ReportMetric(float64(s.Stats().Bytes)/1e6, "MB")
		})
	}
}

// TestRestoreCarries: what the caller chooses of the state of the store that is replaced is in the new one; nothing is asked where
// that store cannot be read.
func TestRestoreCarries(t *testing.T) {
	put := func(s *DB, state map[string]string) {
		t.Helper()
		for k, v := range state {
			_, version, err := s.Get(ctx, k)
			if err == nil {
				_, err = s.CompareAndSwap(ctx, k, version, []byte(v))
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	s := open(t, t.TempDir())
	put(s, map[string]string{"a": "backup", "x/both": "backup", "x/only": "backup", "x/gone": "backup", "y": "backup"})
	var b bytes.Buffer
	if _, err := s.Backup(ctx, &b); err != nil {
		t.Fatal(err)
	}
	put(s, map[string]string{"a": "later", "x/both": "later", "x/new": "later", "y": "later", "y/new": "later"})
	if _, version, err := s.Get(ctx, "x/only"); err != nil {
		t.Fatal(err)
	} else if _, err := s.CompareAndSwap(ctx, "x/only", version, nil); err != nil {
		t.Fatal(err)
	}
	s.Close()
	choose := func(key string, restored, replaced []byte) []byte {
		if key == "x/gone" {
			return nil
		}
		if replaced != nil {
			return replaced
		}
		return restored
	}
	got := func() (out string, carried bool) {
		t.Helper()
		r, err := Restore(ctx, s.path, bytes.NewReader(b.Bytes()), RestoreOptions{Force: true, Carry: choose, CarryPrefix: "x/"})
		if err != nil {
			t.Fatal(err)
		}
		n, err := Open(s.path, Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		if err := n.List(ctx, "", "", func(key string, value []byte, _ uint64) error {
			out += key + "=" + string(value) + " "
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		// A value can be changed from there on.
		put(n, map[string]string{"x/new": "changed"})
		return out, r.Carried
	}
	if out, carried := got(); out != "a=backup x/both=later x/new=later x/only=backup y=backup " || !carried {
		t.Errorf("restored = %s, carried %t", out, carried)
	}
	raw(t, s.path, func(tx *bbolt.Tx) error { return flipValue(tx.Bucket(bucketState), []byte("y"), 14) })
	if out, carried := got(); out != "a=backup x/both=later x/new=changed x/only=backup y=backup " || !carried {
		t.Errorf("restored over one that is damaged elsewhere = %s, carried %t", out, carried)
	}
	raw(t, s.path, func(tx *bbolt.Tx) error { return flipValue(tx.Bucket(bucketState), []byte("x/both"), 14) })
	if out, carried := got(); out != "a=backup x/both=backup x/gone=backup x/only=backup y=backup " || carried {
		t.Errorf("restored over a damaged one = %s, carried %t", out, carried)
	}
}
