package bolt

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/aggregator/store/storetest"
	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/exchange"
)

var ctx = context.Background()

// item is a bucket of n requests.
func item(t testing.TB, host, interval int, n int64) store.Item {
	return storetest.Item(t, storetest.Bucket(storetest.Header(host, interval), func(tb *bucket.Table) uint64 {
		tb.Add([]string{"0", "server", "GET", "200"}, []int64{n, n, storetest.At(interval), 1e6})
		return uint64(n)
	}))
}

func appendAll(t testing.TB, s *DB, items ...store.Item) {
	t.Helper()
	if _, err := s.Append(ctx, items); err != nil {
		t.Fatal(err)
	}
}

// raw changes the file behind the store's back.
func raw(t *testing.T, path string, f func(tx *bbolt.Tx) error) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.Update(f); err != nil {
		t.Fatal(err)
	}
}

// sum returns the requests of all intervals and the damaged ones.
func sum(t *testing.T, s *DB) (uint64, []int64) {
	t.Helper()
	a, err := s.Query(ctx, store.Plan{From: 0, To: storetest.At(1 << 20)})
	if err != nil {
		t.Fatal(err)
	}
	n := uint64(0)
	for _, sl := range a.Slices {
		n += sl.Counters[exchange.Requests]
	}
	return n, a.Damaged
}

func TestDamageIsReported(t *testing.T) {
	at := storetest.At(1)
	key := startKey(at)
	one := item(t, 1, 1, 10)
	blob := blobKey(&one.Header.Name)
	flip := func(b []byte, i int) []byte {
		b = bytes.Clone(b)
		b[i] ^= 4
		return b
	}
	tests := []struct {
		name   string
		change func(tx *bbolt.Tx) error
		want   uint64 // of 1 + 10 + 100 requests in intervals 0, 1, 1
	}{
		{"flipped bit in a value", func(tx *bbolt.Tx) error {
			b := tx.Bucket(bucketIntervals).Bucket(key)
			return b.Put(blob, flip(b.Get(blob), 30))
		}, 101},
		{"flipped bit in a checksum", func(tx *bbolt.Tx) error {
			b := tx.Bucket(bucketIntervals).Bucket(key)
			return b.Put(blob, flip(b.Get(blob), 0))
		}, 101},
		{"flipped bit in a key", func(tx *bbolt.Tx) error {
			b := tx.Bucket(bucketIntervals).Bucket(key)
			v := b.Get(blob)
			return errors.Join(b.Put(flip(blob, 20), v), b.Delete(blob))
		}, 101},
		{"missing entry", func(tx *bbolt.Tx) error {
			return tx.Bucket(bucketIntervals).Bucket(key).Delete(blob)
		}, 101},
		{"entry of another interval", func(tx *bbolt.Tx) error {
			v := tx.Bucket(bucketIntervals).Bucket(startKey(storetest.At(0))).Get(blob)
			return tx.Bucket(bucketIntervals).Bucket(key).Put(blob, v)
		}, 101},
		{"missing interval", func(tx *bbolt.Tx) error {
			return tx.Bucket(bucketIntervals).DeleteBucket(key)
		}, 1},
		{"missing manifest", func(tx *bbolt.Tx) error {
			return tx.Bucket(bucketManifests).Delete(key)
		}, 111},
		{"flipped bit in a manifest", func(tx *bbolt.Tx) error {
			b := tx.Bucket(bucketManifests)
			return b.Put(key, flip(b.Get(key), 8))
		}, 111},
		{"truncated value", func(tx *bbolt.Tx) error {
			return tx.Bucket(bucketIntervals).Bucket(key).Put(blob, []byte{1, 2})
		}, 101},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir)
			appendAll(t, s, item(t, 1, 0, 1), one, item(t, 2, 1, 100))
			s.Close()
			raw(t, s.path, tt.change)
			s = open(t, dir)
			defer s.Close()
			got, damaged := sum(t, s)
			if got != tt.want || len(damaged) != 1 || damaged[0] != at {
				t.Errorf("requests = %d, damaged %v, want %d, [%d]", got, damaged, tt.want, at)
			}
			if st := s.Stats(); st.ChecksumErrors == 0 {
				t.Error("ChecksumErrors = 0")
			}
			// The store goes on, and does not forget the damage.
			appendAll(t, s, item(t, 3, 1, 1000))
			if got, damaged = sum(t, s); got != tt.want+1000 || len(damaged) != 1 {
				t.Errorf("after another append: requests = %d, damaged %v, want %d and damage", got, damaged, tt.want+1000)
			}
			if n, err := s.Purge(ctx, storetest.At(10)); err != nil || n != 2 {
				t.Errorf("Purge = %d, %v, want 2", n, err)
			}
			// Roll-ups tell what could be read, and that something could not.
			if got, damaged = sum(t, s); got != tt.want+1000 || len(damaged) != 1 || damaged[0] != at {
				t.Errorf("after the purge: requests = %d, damaged %v, want %d, [%d]", got, damaged, tt.want+1000, at)
			}
		})
	}
}

// TestResentBucketHeals: an agent that was not acknowledged sends again, and
// the good bytes replace the damaged ones.
func TestResentBucketHeals(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	it := item(t, 1, 0, 7)
	appendAll(t, s, it)
	s.Close()
	raw(t, s.path, func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketIntervals).Bucket(startKey(storetest.At(0))).Put(blobKey(&it.Header.Name), []byte("broken"))
	})
	s = open(t, dir)
	defer s.Close()
	if r, err := s.Append(ctx, []store.Item{it}); err != nil || r[0] != store.Stored {
		t.Errorf("Append = %v, %v, want Stored", r, err)
	}
	if got, damaged := sum(t, s); got != 7 || damaged != nil {
		t.Errorf("requests = %d, damaged %v, want 7 and none", got, damaged)
	}
}

// TestDamagedHostRecord: the record of a host is made again from its buckets.
func TestDamagedHostRecord(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	for i := range 5 {
		appendAll(t, s, item(t, 1, i, 1))
	}
	want, err := s.Hosts(ctx)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	raw(t, s.path, func(tx *bbolt.Tx) error {
		id := storetest.ID(1)
		v := bytes.Clone(tx.Bucket(bucketHosts).Get(id[:]))
		v[len(v)-1] ^= 1
		return tx.Bucket(bucketHosts).Put(id[:], v)
	})
	s = open(t, dir)
	defer s.Close()
	got, err := s.Hosts(ctx)
	if err != nil || len(got) != 1 || got[0] != want[0] {
		t.Errorf("Hosts = %+v, %v, want %+v", got, err, want)
	}
	appendAll(t, s, item(t, 1, 5, 1))
	if got, _ = s.Hosts(ctx); got[0].CoveredThrough != storetest.At(6) {
		t.Errorf("CoveredThrough = %d, want %d", got[0].CoveredThrough, storetest.At(6))
	}
}

func TestDamagedState(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	if _, err := s.CompareAndSwap(ctx, "k", 0, []byte("value")); err != nil {
		t.Fatal(err)
	}
	s.Close()
	raw(t, s.path, func(tx *bbolt.Tx) error { return tx.Bucket(bucketState).Put([]byte("k"), []byte("0123456789abcdef")) })
	s = open(t, dir)
	defer s.Close()
	if v, _, err := s.Get(ctx, "k"); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("Get = %q, %v, want ErrCorrupt", v, err)
	}
}

func TestOpenRefuses(t *testing.T) {
	tests := []struct {
		name   string
		change func(t *testing.T, path string)
		want   error
		hint   string
	}{
		{"not a database", func(t *testing.T, path string) { write(t, path, bytes.Repeat([]byte("text "), 5000)) }, store.ErrCorrupt, "mv "},
		{"short file", func(t *testing.T, path string) { write(t, path, []byte("x")) }, store.ErrCorrupt, "mv "},
		{"cut off", func(t *testing.T, path string) {
			if err := os.Truncate(path, 12<<10); err != nil {
				t.Fatal(err)
			}
		}, store.ErrCorrupt, "mv "},
		{"zeroed pages", func(t *testing.T, path string) {
			b, _ := os.ReadFile(path)
			clear(b[8<<10:])
			write(t, path, b)
		}, store.ErrCorrupt, "mv "},
		{"both meta pages", func(t *testing.T, path string) {
			b, _ := os.ReadFile(path)
			b[30] ^= 1
			b[4096+30] ^= 1
			write(t, path, b)
		}, store.ErrCorrupt, "mv "},
		{"newer format", func(t *testing.T, path string) {
			raw(t, path, func(tx *bbolt.Tx) error { return tx.Bucket(bucketMeta).Put(keyFormat, formatValue(99)) })
		}, store.ErrVersion, "newer program"},
		{"another program's", func(t *testing.T, path string) {
			os.Remove(path)
			raw(t, path, func(tx *bbolt.Tx) error { _, err := tx.CreateBucket([]byte("theirs")); return err })
		}, store.ErrCorrupt, "mv "},
		{"format marker", func(t *testing.T, path string) {
			raw(t, path, func(tx *bbolt.Tx) error { return tx.Bucket(bucketMeta).Put(keyFormat, []byte("????what")) })
		}, store.ErrCorrupt, "mv "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := open(t, t.TempDir())
			for i := range 50 {
				appendAll(t, s, item(t, 1, i, 1))
			}
			s.Close()
			tt.change(t, s.path)
			again, err := Open(s.path, Options{})
			if err == nil {
				again.Close()
				t.Fatal("Open succeeded")
			}
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), s.path) || !strings.Contains(err.Error(), tt.hint) {
				t.Errorf("Open = %v, want %v, naming %s and %q", err, tt.want, s.path, tt.hint)
			}
			// Nothing holds on to the file: it can be moved aside.
			if err := os.Rename(s.path, s.path+".damaged"); err != nil {
				t.Fatal(err)
			}
			if s, err = Open(s.path, Options{}); err != nil {
				t.Fatalf("Open after moving the file aside: %v", err)
			}
			s.Close()
		})
	}
}

func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestRandomDamage flips bits anywhere in the file. Whatever happens must be
// an error or a report of damage, never a crash or a cursor that goes round, and
// never another sum that is not reported.
func TestRandomDamage(t *testing.T) {
	t.Run("raw", func(t *testing.T) { randomDamage(t, func(*DB) error { return nil }) })
	t.Run("rolled up", func(t *testing.T) {
		randomDamage(t, func(s *DB) error {
			_, err := s.Rollup(ctx, storetest.At(8640))
			return err
		})
	})
	t.Run("purged", func(t *testing.T) {
		randomDamage(t, func(s *DB) error {
			_, err := s.Purge(ctx, storetest.At(36))
			return err
		})
	})
}

// randomDamage flips bits of a store that was prepared.
func randomDamage(t *testing.T, prepare func(*DB) error) {
	s, err := Open(filepath.Join(t.TempDir(), "store.db"), Options{Now: early, allocSize: 4096})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 40 {
		appendAll(t, s, item(t, 1, i, 3), item(t, 2, i, 5))
	}
	for host := 10; host < 60; host++ { // an interval with a tree of its own
		appendAll(t, s, item(t, host, 7, 1))
	}
	if err := prepare(s); err != nil {
		t.Fatal(err)
	}
	s.Close()
	const want = 40*8 + 50
	whole, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	refused, reported, harmless := 0, 0, 0
	path := filepath.Join(t.TempDir(), "damaged.db")
	for round := range 250 {
		b := bytes.Clone(whole)
		for range 1 + rng.IntN(3) {
			at := rng.IntN(len(b))
			if round%2 == 0 { // where the pages' structure is
				at = at&^4095 + rng.IntN(256)
			}
			b[at] ^= byte(1 << rng.IntN(8))
		}
		write(t, path, b)
		d, err := Open(path, Options{})
		if err != nil {
			refused++
			continue
		}
		a, err := d.Query(ctx, store.Plan{Table: "totals", From: 0, To: storetest.At(1000)})
		n := int64(0)
		if err == nil {
			for _, sl := range a.Slices {
				if sl.Table != nil {
					n += sl.Table.Rows[0].Values[0]
				}
			}
		}
		switch {
		case err != nil || len(a.Damaged) > 0 || d.Stats().ChecksumErrors > 0:
			reported++
		case n == want:
			harmless++
		default:
			t.Errorf("requests = %d and nothing reported, want %d", n, want)
		}
		_ = guard(d.Close)
	}
	if refused == 0 || reported == 0 {
		t.Errorf("refused %d, reported %d: want some of both", refused, reported)
	}
	t.Logf("refused %d, reported %d, harmless %d", refused, reported, harmless)
}

// TestDamagedPages: the pages of one interval are damaged in a way that would make
// bbolt go round for ever. The rest is told, the interval reported, and what
// arrives for it stored.
func TestDamagedPages(t *testing.T) {
	s := open(t, t.TempDir())
	for host := range 60 {
		appendAll(t, s, item(t, host, 0, 1), item(t, host, 1, 1))
	}
	root := uint64(0)
	if err := s.view(func(tx *bbolt.Tx) error {
		root = uint64(tx.Bucket(bucketIntervals).Bucket(startKey(storetest.At(1))).Root())
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	s.Close()
	b, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	page := b[int(root)*os.Getpagesize():]
	if binary.NativeEndian.Uint16(page[8:]) != 1 {
		t.Fatal("the interval is one page: the test misses its point")
	}
	for i := range int(binary.NativeEndian.Uint16(page[10:])) {
		binary.NativeEndian.PutUint64(page[16+16*i+8:], root)
	}
	write(t, s.path, b)

	if s, err = Open(s.path, Options{Now: early}); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	at := []int64{storetest.At(1)}
	if got, damaged := sum(t, s); got != 60 || !slices.Equal(damaged, at) {
		t.Errorf("requests = %d, damaged %v, want 60, %v", got, damaged, at)
	}
	// An append that sets it aside and is not kept changes nothing.
	bad := item(t, 70, 2, 1)
	host := bad.Header.Host
	raise := func(value []byte) {
		t.Helper()
		if err := s.update(ctx, func(tx *bbolt.Tx) (bool, error) { return true, tx.Bucket(bucketHosts).Put(host[:], value) }, nil); err != nil {
			t.Fatal(err)
		}
	}
	raise(sealedValue(host[:], []byte{99})) // a host record of a newer program
	if _, err := s.Append(ctx, []store.Item{item(t, 71, 1, 7), bad}); !errors.Is(err, store.ErrVersion) {
		t.Fatalf("Append beside a newer host record = %v, want ErrVersion", err)
	}
	if got, damaged := sum(t, s); got != 60 || !slices.Equal(damaged, at) {
		t.Errorf("after an append that failed: requests = %d, damaged %v, want 60, %v", got, damaged, at)
	}
	if err := s.update(ctx, func(tx *bbolt.Tx) (bool, error) { return true, tx.Bucket(bucketHosts).Delete(host[:]) }, nil); err != nil {
		t.Fatal(err)
	}
	// A reader that began before it is set aside still meets the damaged pages.
	if err := s.view(func(tx *bbolt.Tx) error {
		done := make(chan error)
		go func() {
			_, err := s.Append(ctx, []store.Item{item(t, 70, 1, 100), item(t, 70, 2, 1000)})
			done <- err
		}()
		if err := <-done; err != nil {
			return err
		}
		if _, err := s.blobs(tx, startKey(at[0])); !errors.Is(err, store.ErrCorrupt) {
			t.Errorf("an older snapshot's interval = %v, want ErrCorrupt", err)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if got, damaged := sum(t, s); got != 1160 || !slices.Equal(damaged, at) {
		t.Errorf("after an append: requests = %d, damaged %v, want 1160, %v", got, damaged, at)
	}
	if _, err := s.Schemas(ctx, 0, storetest.At(10)); err != nil {
		t.Errorf("Schemas = %v", err)
	}
	if n, err := s.Purge(ctx, storetest.At(6)); err != nil || n != 3 {
		t.Errorf("Purge = %d, %v, want 3", n, err)
	}
	if got, damaged := sum(t, s); got != 1160 || !slices.Equal(damaged, at) {
		t.Errorf("after a purge: requests = %d, damaged %v, want 1160, %v", got, damaged, at)
	}
	if st := s.Stats(); st.ChecksumErrors == 0 {
		t.Error("ChecksumErrors = 0")
	}

	// And with nothing appended: a purge alone gets past it.
	write(t, s.path+".2", b)
	u, err := Open(s.path+".2", Options{Now: early})
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	if n, err := u.Purge(ctx, storetest.At(6)); err != nil || n != 2 {
		t.Errorf("Purge = %d, %v, want 2", n, err)
	}
}

func TestLockedNamesHolder(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	_, err := Open(s.path, Options{LockTimeout: 50 * time.Millisecond})
	if !errors.Is(err, ErrLocked) {
		t.Fatalf("Open of an open store = %v, want ErrLocked", err)
	}
	if lockHolder(s.path) == "" {
		t.Skip("this system does not tell who holds a lock")
	}
	if !strings.Contains(err.Error(), "process ") {
		t.Errorf("Open = %v, want it to name the process", err)
	}
}

// TestFailedCommit: after a commit that failed, in any of three ways, the
// store opens its file again, and what it says then is what is in the file.
func TestFailedCommit(t *testing.T) {
	boom := errors.New("input/output error")
	tests := []struct {
		name   string
		commit func(tx *bbolt.Tx) error
		landed bool
	}{
		{"before anything was written", func(tx *bbolt.Tx) error { _ = tx.Rollback(); return boom }, false},
		{"after all was written", func(tx *bbolt.Tx) error { return errors.Join(tx.Commit(), boom) }, true},
		{"by a panic", func(tx *bbolt.Tx) error { panic(boom) }, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := open(t, t.TempDir())
			defer s.Close()
			appendAll(t, s, item(t, 1, 0, 1))
			commit := s.commit
			s.commit = tt.commit
			it := item(t, 1, 1, 10)
			if r, err := s.Append(ctx, []store.Item{it}); err == nil || !strings.Contains(err.Error(), boom.Error()) {
				t.Fatalf("Append = %v, %v, want the error of the commit", r, err)
			}
			want := uint64(1)
			if tt.landed {
				want = 11
			}
			if got, damaged := sum(t, s); got != want || damaged != nil {
				t.Errorf("requests = %d, damaged %v, want %d: reads go on", got, damaged, want)
			}
			if st := s.Stats(); st.Reopened != 1 {
				t.Errorf("Reopened = %d, want 1", st.Reopened)
			}
			commits := 0
			s.commit = func(tx *bbolt.Tx) error { commits++; return commit(tx) }
			r, err := s.Append(ctx, []store.Item{it})
			wantResult := store.Stored
			if tt.landed {
				wantResult = store.Duplicate
			}
			if err != nil || r[0] != wantResult {
				t.Errorf("Append again = %v, %v, want %d", r, err, wantResult)
			}
			if commits != 1 {
				t.Errorf("commits = %d, want 1: a duplicate of a failed commit needs one that succeeds", commits)
			}
			if got, _ := sum(t, s); got != 11 {
				t.Errorf("requests = %d, want 11", got)
			}
			if _, err := s.Append(ctx, []store.Item{it}); err != nil || commits != 1 {
				t.Errorf("another duplicate: %v, %d commits, want none more", err, commits)
			}
		})
	}
}

// TestUnopenableAfterFailedCommit: the file is gone bad for good; the store says
// so at each call, and works again once the file is mended.
func TestUnopenableAfterFailedCommit(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	appendAll(t, s, item(t, 1, 0, 1))
	commit := s.commit
	s.commit = func(tx *bbolt.Tx) error {
		_ = tx.Rollback()
		if err := os.Rename(s.path, s.path+".good"); err != nil {
			t.Fatal(err)
		}
		write(t, s.path, []byte("garbage"))
		return syscall.EIO
	}
	if _, err := s.Append(ctx, []store.Item{item(t, 1, 1, 10)}); !errors.Is(err, syscall.EIO) || !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("Append = %v, want EIO and ErrCorrupt", err)
	}
	s.commit = commit
	if _, err := s.Query(ctx, store.Plan{To: 1}); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("Query = %v, want ErrCorrupt", err)
	}
	if _, err := s.Append(ctx, []store.Item{item(t, 1, 1, 10)}); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("Append = %v, want ErrCorrupt", err)
	}
	if err := os.Rename(s.path+".good", s.path); err != nil {
		t.Fatal(err)
	}
	appendAll(t, s, item(t, 1, 1, 10))
	if got, damaged := sum(t, s); got != 11 || damaged != nil {
		t.Errorf("requests = %d, damaged %v, want 11", got, damaged)
	}
}

// TestDiskFull fills a small file system: appends fail with ENOSPC, reads go
// on, and appends go on once there is room.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=2m"); err != nil {
		t.Skipf("mounting a tmpfs takes CAP_SYS_ADMIN: %v", err)
	}
	defer func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	}()
	s := open(t, dir)
	defer s.Close()
	var err error
	stored := 0
	for err == nil && stored < 100_000 {
		batch := make([]store.Item, 50)
		for i := range batch {
			batch[i] = item(t, i, stored/50, 1)
		}
		if _, err = s.Append(ctx, batch); err == nil {
			stored += len(batch)
		}
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("Append = %v after %d buckets, want ENOSPC", err, stored)
	}
	if got, damaged := sum(t, s); got != uint64(stored) || damaged != nil {
		t.Errorf("requests = %d, damaged %v, want the %d stored", got, damaged, stored)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=16m"); err != nil {
		t.Fatal(err)
	}
	appendAll(t, s, item(t, 1, 999, 1))
	if got, _ := sum(t, s); got != uint64(stored)+1 {
		t.Errorf("requests = %d, want %d", got, stored+1)
	}
}

// TestKilled kills a process that appends, again and again: every batch that it
// reported as stored is there, whole.
func TestKilled(t *testing.T) {
	if path := os.Getenv("STORE_TEST_VICTIM"); path != "" {
		s, err := Open(path, Options{Now: early})
		if err != nil {
			os.Stdout.WriteString("failed: " + err.Error() + "\n")
			os.Exit(3)
		}
		n, _ := sum(t, s)
		for i := int(n / 2); ; i++ {
			if _, err := s.Append(ctx, []store.Item{item(t, 1, i, 1), item(t, 2, i, 1)}); err != nil {
				os.Exit(3)
			}
			os.Stdout.WriteString(".")
		}
	}
	path := filepath.Join(t.TempDir(), "store.db")
	acknowledged := 0
	for round := range 4 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilled$")
		cmd.Env = append(os.Environ(), "STORE_TEST_VICTIM="+path)
		pipe, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		first := make([]byte, 1)
		_, _ = io.ReadFull(pipe, first) // however long the process takes to start
		time.Sleep(time.Duration(20+round*37) * time.Millisecond)
		_ = cmd.Process.Kill()
		rest, _ := io.ReadAll(pipe)
		_ = cmd.Wait()
		out := string(first) + string(rest)
		if strings.Contains(out, "failed") {
			t.Fatal(out)
		}
		acknowledged += strings.Count(out, ".")
		s, err := Open(path, Options{})
		if err != nil {
			t.Fatal(err)
		}
		got, damaged := sum(t, s)
		if got%2 != 0 || int(got) < 2*acknowledged || damaged != nil {
			t.Errorf("round %d: requests = %d, damaged %v, want an even number of at least %d", round, got, damaged, 2*acknowledged)
		}
		acknowledged = int(got) / 2
		s.Close()
	}
	if acknowledged == 0 {
		t.Error("nothing was appended")
	}
}

// TestFileStaysFlat: days of purged intervals do not make the file grow.
func TestFileStaysFlat(t *testing.T) {
	s, err := Open(filepath.Join(t.TempDir(), "store.db"), Options{Now: early, allocSize: 4096})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	const perDay, days = 300, 6 // a shortened day of intervals, each with 10 hosts
	var sizes []int64
	for day := range days {
		for i := day * perDay; i < (day+1)*perDay; i += 10 {
			var batch []store.Item
			for j := i; j < i+10; j++ {
				for host := range 10 {
					batch = append(batch, item(t, host, j, 1))
				}
			}
			appendAll(t, s, batch...)
			if _, err := s.Purge(ctx, storetest.At(i-perDay)); err != nil {
				t.Fatal(err)
			}
			for r := store.Minute; r <= store.Day; r++ {
				if _, err := s.PurgeRollups(ctx, r, storetest.At(i-perDay)); err != nil {
					t.Fatal(err)
				}
			}
		}
		sizes = append(sizes, s.Stats().Bytes)
	}
	if st := s.Stats(); st.Intervals > perDay+20 {
		t.Errorf("%d intervals are there, want at most %d", st.Intervals, perDay+20)
	}
	if last, second := sizes[days-1], sizes[1]; last > second+second/4 {
		t.Errorf("file sizes by day = %v, want them flat from the second on", sizes)
	}
	t.Logf("file sizes by day: %v", sizes)
}

// TestAppendDuringQuery: a reader in the middle of its transaction does not hold
// up a writer.
func TestAppendDuringQuery(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	appendAll(t, s, item(t, 1, 0, 1))
	err := s.view(func(*bbolt.Tx) error {
		done := make(chan error, 1)
		go func() {
			for i := 1; i < 200; i++ { // far beyond the file's first size
				if _, err := s.Append(ctx, []store.Item{item(t, 1, i, 1), item(t, 2, i, 1), item(t, 3, i, 1)}); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
		select {
		case err := <-done:
			return err
		case <-time.After(3 * time.Minute):
			return errors.New("append waits for the reader")
		}
	})
	if err != nil {
		t.Error(err)
	}
}

func TestClosed(t *testing.T) {
	s := open(t, t.TempDir())
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("second Close = %v", err)
	}
	if _, err := s.Append(ctx, []store.Item{item(t, 1, 0, 1)}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Append = %v, want ErrClosed", err)
	}
	if _, err := s.Hosts(ctx); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Hosts = %v, want ErrClosed", err)
	}
}

// TestSumsAreForgotten: what is kept for the next query never outlives a change.
func TestSumsAreForgotten(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	plan := store.Plan{Table: "totals", By: []string{"method"}, From: storetest.At(0), To: storetest.At(90)}
	total := func() int64 {
		t.Helper()
		a, err := s.Query(ctx, plan)
		if err != nil {
			t.Fatal(err)
		}
		if len(a.Slices) == 0 {
			return 0
		}
		return a.Slices[0].Table.Total(0)
	}
	for i := range 90 {
		appendAll(t, s, item(t, 1, i, 1))
	}
	for range 2 {
		if got := total(); got != 90 {
			t.Errorf("total = %d, want 90", got)
		}
	}
	lengths := func() map[int64]int {
		n := map[int64]int{}
		for _, sh := range s.sums.shapes {
			for key := range sh.pieces {
				n[key.length/1e9]++
			}
		}
		return n
	}
	if got := lengths(); got[300] != 2 || got[60] != 15 || s.sums.bytes == 0 {
		t.Fatalf("sums are kept of %v, want 2 chunks that are over and 15 minutes", got)
	}
	appendAll(t, s, item(t, 2, 3, 10))
	if got := total(); got != 100 {
		t.Errorf("total after an append to an old interval = %d, want 100", got)
	}
	if _, err := s.Purge(ctx, storetest.At(30)); err != nil {
		t.Fatal(err)
	}
	if got := total(); got != 100 {
		t.Errorf("total after a purge = %d, want 100 with the roll-ups", got)
	}
	if _, err := s.Purge(ctx, storetest.At(29)); err != nil {
		t.Fatal(err)
	}
	if got := lengths(); got[300] != 1 || len(s.sums.changed) != 13 {
		t.Errorf("sums of %v and %d changes are kept after a purge, want those of 1 chunk that is over and stays, of 2, their 10 minutes and the hour", got, len(s.sums.changed))
	}
	if _, err := s.Purge(ctx, storetest.At(36)); err != nil {
		t.Fatal(err)
	}
	if got := total(); got != 100 || lengths()[300] != 0 || lengths()[60] != 5 {
		t.Errorf("total after a purge within a chunk = %d with sums of %v kept, want 100, 5 minutes", got, lengths())
	}
	s.sums.changeAll()
	if got := lengths(); len(got) != 0 || s.sums.bytes != 0 {
		t.Errorf("sums of %v and %d bytes are kept after all have changed", got, s.sums.bytes)
	}
	s.sums.most = 50_000
	for i := range 300 { // many questions
		plan.Where = []store.Condition{{Column: "status", Values: []string{fmt.Sprint(i)}}}
		total()
	}
	sum := int64(0)
	for _, sh := range s.sums.shapes {
		for _, k := range sh.pieces {
			sum += k.bytes
		}
	}
	if sum != s.sums.bytes || sum > 50_000 || sum < 40_000 || len(s.sums.shapes) > maxShapes {
		t.Errorf("%d bytes are kept, counted as %d, of %d shapes, want at most 50000 and no less than fit", sum, s.sums.bytes, len(s.sums.shapes))
	}
}
