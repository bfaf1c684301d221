package bolt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/aggregator/store/storetest"
	"github.com/httpctl/httpctl/pkg/bucket"
)

// readable is what these tests keep in the state.
func readable(key string, value []byte) error {
	if !strings.HasPrefix(string(value), "{") {
		return fmt.Errorf("%q is no JSON", key)
	}
	return nil
}

// filled makes a store with 60 hosts in intervals 0 to 9 (3 and 7 of a size that takes several pages),
// one before them of which only roll-ups are left, free pages, and state. Each bucket counts one request.
func filled(t *testing.T) string {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "store.db"), Options{Now: early, allocSize: 4096})
	if err != nil {
		t.Fatal(err)
	}
	old := storetest.Header(1, 0)
	old.Start, old.ClosedThrough, old.Incarnation, old.ObservedFrom = storetest.At(-6), storetest.At(-5), storetest.ID(99), storetest.At(-6)
	appendAll(t, s, storetest.Item(t, storetest.Bucket(old, func(tb *bucket.Table) uint64 {
		tb.Add([]string{"0", "server", "GET", "200"}, []int64{1, 1, storetest.At(-6), 1e6})
		return 1
	})))
	for i := range 10 {
		hosts := 3
		if i == 3 || i == 7 {
			hosts = 60
		}
		for host := range hosts {
			appendAll(t, s, item(t, host, i, 1))
		}
	}
	for _, key := range []string{"baseline/fleet", "verdict/fleet/1", "verdict/fleet/2"} {
		if _, err := s.CompareAndSwap(ctx, key, 0, []byte(`{"v":1}`)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Purge(ctx, storetest.At(0)); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return s.path
}

// filledRequests is what the store of filled counts: of intervals 0 to 9, and of the roll-ups before.
const filledRequests = 8*3 + 2*60 + 1

// checked runs Check and returns what it found.
func checked(t *testing.T, path string) (*Report, []Damage) {
	t.Helper()
	var found []Damage
	r, err := Check(ctx, path, CheckOptions{State: readable, Found: func(d Damage) { found = append(found, d) }})
	if err != nil {
		t.Fatalf("Check = %v", err)
	}
	if r.Damages != len(found) {
		t.Errorf("Check tells of %d damages, counts %d", len(found), r.Damages)
	}
	return r, found
}

func TestCheckSound(t *testing.T) {
	path := filled(t)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	r, found := checked(t, path)
	if found != nil {
		t.Errorf("Check of a sound store finds %v", found)
	}
	want := Report{Path: path, Bytes: int64(len(before)), PageSize: os.Getpagesize(), Pages: r.Pages, Free: r.Free,
		Intervals: 10, Buckets: filledRequests - 1, Rollups: 3 + 2 + 2, Hosts: 60, State: 3,
		OldestStart: storetest.At(0), NewestEnd: storetest.At(10), SealedThrough: storetest.At(0)}
	if *r != want || r.Free == 0 || r.Pages*uint64(r.PageSize) > uint64(r.Bytes) {
		t.Errorf("Check = %+v, want %+v with free pages", *r, want)
	}
	if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
		t.Error("Check has changed the file")
	}
}

// damages are ways to damage the file of filled, and what becomes of it.
var damages = []struct {
	name   string
	change func(t *testing.T, path string)
	where  string // of a damage that is found
	remedy Remedy // the worst that is needed
	want   uint64 // requests after Compact has dropped what is damaged
}{
	{"a flipped bit in a bucket", inBolt(func(tx *bbolt.Tx) error { return flipIn(tx, 3, 5, 40) }), "2026-01-01T00:00:30Z: the bucket of host", Drop, filledRequests - 60},
	{"in two intervals", inBolt(func(tx *bbolt.Tx) error { return errors.Join(flipIn(tx, 3, 5, 40), flipIn(tx, 7, 1, 0)) }), "the interval", Drop, filledRequests - 120},
	{"a missing bucket", inBolt(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketIntervals).Bucket(startKey(storetest.At(4)))
		k, _ := b.Cursor().First()
		return b.Delete(k)
	}), "2026-01-01T00:00:40Z", Drop, filledRequests - 3},
	{"a missing interval", inBolt(func(tx *bbolt.Tx) error { return tx.Bucket(bucketIntervals).DeleteBucket(startKey(storetest.At(4))) }), "2026-01-01T00:00:40Z", Drop, filledRequests - 3},
	{"a missing manifest", inBolt(func(tx *bbolt.Tx) error { return tx.Bucket(bucketManifests).Delete(startKey(storetest.At(4))) }), "2026-01-01T00:00:40Z", Drop, filledRequests - 3},
	{"a manifest", inBolt(func(tx *bbolt.Tx) error { return flipValue(tx.Bucket(bucketManifests), startKey(storetest.At(4)), 9) }), "its manifest", Drop, filledRequests - 3},
	{"a roll-up that is to be made", inBolt(func(tx *bbolt.Tx) error {
		key := newStepKey(store.Minute, storetest.At(0))
		return flipValue(tx.Bucket(bucketRollups).Bucket(key[:]), hostEntry(storetest.ID(1)), 2)
	}), "the roll-ups of the minute of 2026-01-01T00:00:00Z", Drop, filledRequests},
	{"a roll-up of the fleet", inBolt(func(tx *bbolt.Tx) error {
		key := newStepKey(store.Minute, storetest.At(-6))
		return flipValue(tx.Bucket(bucketRollups).Bucket(key[:]), fleetTable("totals"), 30)
	}), "the roll-ups of the minute of 2025-12-31T23:59:00Z", Drop, filledRequests},
	{"a manifest of roll-ups", inBolt(func(tx *bbolt.Tx) error {
		key := newStepKey(store.Hour, storetest.At(0))
		return flipValue(tx.Bucket(bucketRollupManifests), key[:], 9)
	}), "the roll-ups of the hour of 2026-01-01T00:00:00Z", Drop, filledRequests},
	{"missing roll-ups", inBolt(func(tx *bbolt.Tx) error {
		key := newStepKey(store.Day, storetest.At(0))
		return tx.Bucket(bucketRollups).DeleteBucket(key[:])
	}), "the roll-ups of the day of 2026-01-01T00:00:00Z", Drop, filledRequests},
	{"a past host", inBolt(func(tx *bbolt.Tx) error { return tx.Bucket(bucketPast).Put([]byte("x"), []byte("y")) }), "the record of past host", Drop, filledRequests},
	{"no roll-ups at all", inBolt(func(tx *bbolt.Tx) error { return tx.DeleteBucket(bucketRollups) }), "the file", Replace, 0},
	{"a host record", inBolt(func(tx *bbolt.Tx) error {
		id := storetest.ID(1)
		return flipValue(tx.Bucket(bucketHosts), id[:], 30)
	}), "the record of host", Drop, filledRequests},
	{"a state", inBolt(func(tx *bbolt.Tx) error { return flipValue(tx.Bucket(bucketState), []byte("verdict/fleet/1"), 14) }), `the state "verdict/fleet/1"`, Drop, filledRequests},
	{"a state that says nothing", inBolt(func(tx *bbolt.Tx) error {
		k := []byte("verdict/fleet/1")
		return tx.Bucket(bucketState).Put(k, sealedValue(k, make([]byte, 8), []byte("???")))
	}), `the state "verdict/fleet/1"`, Drop, filledRequests},
	{"the sealed floor", inBolt(func(tx *bbolt.Tx) error { return flipValue(tx.Bucket(bucketMeta), keySealed, 5) }), `the number "sealed"`, Replace, 0},
	{"the format", inBolt(func(tx *bbolt.Tx) error { return flipValue(tx.Bucket(bucketMeta), keyFormat, 5) }), "the file", Replace, 0},
	{"no state at all", inBolt(func(tx *bbolt.Tx) error { return tx.DeleteBucket(bucketState) }), "the file", Replace, 0},
	{"an unknown part", inBolt(func(tx *bbolt.Tx) error { _, err := tx.CreateBucket([]byte("stave")); return err }), `"stave"`, Replace, 0},
	{"a page of an interval", inPages(func(b []byte, root func(interval int) int) { b[root(3)+9] ^= 1 }), "2026-01-01T00:00:30Z", Drop, filledRequests - 60},
	{"a length in a page of an interval", inPages(func(b []byte, root func(interval int) int) { b[root(3)+16+4] ^= 1 }), "2026-01-01T00:00:30Z", Drop, filledRequests - 60},
	// The commit before the last is in force again, which has still the buckets that were purged.
	{"the newer meta page", inPages(func(b []byte, _ func(int) int) {
		newer := 0
		if binary.NativeEndian.Uint64(b[os.Getpagesize()+64:]) > binary.NativeEndian.Uint64(b[64:]) {
			newer = os.Getpagesize()
		}
		b[newer+20] ^= 1
	}), "the file", Rewrite, filledRequests},
	{"both meta pages", inPages(func(b []byte, _ func(int) int) { b[20] ^= 1; b[os.Getpagesize()+20] ^= 1 }), "the file", Replace, 0},
}

// inBolt changes a file through bbolt.
func inBolt(f func(tx *bbolt.Tx) error) func(*testing.T, string) {
	return func(t *testing.T, path string) { t.Helper(); raw(t, path, f) }
}

// inPages changes the bytes of a file; root gives the place of the first page of an interval.
func inPages(f func(b []byte, root func(interval int) int)) func(*testing.T, string) {
	return func(t *testing.T, path string) {
		t.Helper()
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		f(b, func(interval int) int { return int(rootOf(t, path, interval)) * os.Getpagesize() })
		write(t, path, b)
	}
}

// rootOf returns the first page of an interval.
func rootOf(t *testing.T, path string, interval int) (root uint64) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	_ = db.View(func(tx *bbolt.Tx) error {
		root = uint64(tx.Bucket(bucketIntervals).Bucket(startKey(storetest.At(interval))).Root())
		return nil
	})
	if root == 0 {
		t.Fatalf("interval %d has no page of its own: the test misses its point", interval)
	}
	return root
}

func flipValue(b *bbolt.Bucket, key []byte, at int) error {
	v := bytes.Clone(b.Get(key))
	v[at] ^= 4
	return b.Put(key, v)
}

func flipIn(tx *bbolt.Tx, interval, host, at int) error {
	b := tx.Bucket(bucketIntervals).Bucket(startKey(storetest.At(interval)))
	id := storetest.ID(host)
	k, _ := b.Cursor().Seek(id[:])
	return flipValue(b, bytes.Clone(k), at)
}

// TestCheckDamage: what is damaged is found, said where, and left out by Compact if it is told to; the rest stays.
func TestCheckDamage(t *testing.T) {
	whole := filled(t)
	sound, err := os.ReadFile(whole)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range damages {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "store.db")
			write(t, path, sound)
			tt.change(t, path)
			before, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			r, found := checked(t, path)
			if !slices.ContainsFunc(found, func(d Damage) bool { return strings.Contains(d.Where, tt.where) && d.Costs != "" }) || r.Worst != tt.remedy {
				t.Errorf("Check finds %v, worst %d, want one at %q, worst %d", found, r.Worst, tt.where, tt.remedy)
			}

			_, _, err = Compact(ctx, path, CompactOptions{CheckOptions: CheckOptions{State: readable}})
			if wantErr := tt.remedy != Rewrite; (err != nil) != wantErr || wantErr && !errors.Is(err, ErrUnsound) {
				t.Errorf("Compact = %v, want it refused: %t", err, wantErr)
			}
			if after, _ := os.ReadFile(path); tt.remedy != Rewrite && !bytes.Equal(before, after) {
				t.Error("Compact has refused the file and changed it")
			}
			if tt.remedy == Replace {
				if _, _, err := Compact(ctx, path, CompactOptions{CheckOptions: CheckOptions{State: readable}, DropDamaged: true}); !errors.Is(err, ErrUnsound) {
					t.Errorf("Compact told to drop = %v, want ErrUnsound", err)
				}
				return
			}
			var dropped []string
			if tt.remedy == Drop {
				_, _, err := Compact(ctx, path, CompactOptions{CheckOptions: CheckOptions{State: readable}, DropDamaged: true,
					Dropped: func(what string) { dropped = append(dropped, what) }})
				if err != nil || len(dropped) == 0 && tt.name != "a host record" {
					t.Fatalf("Compact told to drop = %v, dropped %q", err, dropped)
				}
			}
			if _, found := checked(t, path); found != nil {
				t.Errorf("after Compact, Check finds %v", found)
			}
			s, err := Open(path, Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if got, damaged := sum(t, s); got != tt.want || damaged != nil {
				t.Errorf("after Compact: %d requests, damaged %v, want %d; dropped %q", got, damaged, tt.want, dropped)
			}
			if hosts, err := s.Hosts(ctx); err != nil || len(hosts) != 60 {
				t.Errorf("after Compact: Hosts = %d, %v, want 60", len(hosts), err)
			}
			if names, _ := filepath.Glob(path + "*"); len(names) != 1 {
				t.Errorf("Compact leaves %q", names)
			}
		})
	}
}

// TestCheckSharedPages: a root page points to another interval's. Both are told, and Compact gives the
// sound one pages of its own.
func TestCheckSharedPages(t *testing.T) {
	path := filled(t)
	misdirect(t, path, 7, rootOf(t, path, 3))
	_, found := checked(t, path)
	remedies := map[string]Remedy{}
	for _, d := range found {
		remedies[d.Where[:len("the interval 2026-01-01T00:01:10Z")]] = d.Remedy
	}
	if len(remedies) != 2 || remedies["the interval 2026-01-01T00:01:10Z"] != Drop || remedies["the interval 2026-01-01T00:00:30Z"] != Rewrite {
		t.Errorf("Check finds %v, want intervals 3 and 7", found)
	}
	if _, _, err := Compact(ctx, path, CompactOptions{DropDamaged: true}); err != nil {
		t.Fatal(err)
	}
	if _, found := checked(t, path); found != nil {
		t.Errorf("after Compact, Check finds %v", found)
	}
}

// misdirect makes the root page of an interval another one.
func misdirect(t *testing.T, path string, interval int, root uint64) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// The entry in the leaf: key, then root page and sequence. Older copies of it are changed, too.
	key, n := startKey(storetest.At(interval)), 0
	for i := 0; ; i++ {
		j := bytes.Index(b[i:], key)
		if j < 0 {
			break
		}
		i += j
		if v := b[i+8:]; binary.NativeEndian.Uint64(v) < uint64(len(b)/os.Getpagesize()) && binary.NativeEndian.Uint64(v[8:]) == 0 {
			binary.NativeEndian.PutUint64(v, root)
			n++
		}
	}
	if n == 0 {
		t.Fatal("the interval is nowhere")
	}
	write(t, path, b)
}

func TestCheckRefuses(t *testing.T) {
	if _, err := Check(ctx, filepath.Join(t.TempDir(), "none.db"), CheckOptions{}); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "--data") {
		t.Errorf("Check of no file = %v, want ErrNotExist and what to do", err)
	}
	s := open(t, t.TempDir())
	defer s.Close()
	for name, f := range map[string]func() error{
		"Check":   func() error { _, err := Check(ctx, s.path, CheckOptions{}); return err },
		"Compact": func() error { _, _, err := Compact(ctx, s.path, CompactOptions{}); return err },
	} {
		if err := f(); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), "stop the aggregator") {
			t.Errorf("%s of an open store = %v, want ErrLocked and what to do", name, err)
		}
	}
	path := filled(t)
	raw(t, path, func(tx *bbolt.Tx) error { return tx.Bucket(bucketMeta).Put(keyFormat, formatValue(99)) })
	if _, err := Check(ctx, path, CheckOptions{}); !errors.Is(err, store.ErrVersion) {
		t.Errorf("Check of a newer file = %v, want ErrVersion", err)
	}
}

// TestCompactVerifies: a new file in which something cannot be read does not take the place of the old one.
func TestCompactVerifies(t *testing.T) {
	path := filled(t)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	_, _, err = Compact(ctx, path, CompactOptions{CheckOptions: CheckOptions{State: func(string, []byte) error {
		if asked++; asked > 3 { // the three of the old file
			return errors.New("cannot be read")
		}
		return nil
	}}})
	if err == nil || !strings.Contains(err.Error(), "the new file is not sound") || asked != 6 {
		t.Errorf("Compact = %v, asked %d times, want it refused, 6", err, asked)
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the old file has changed, %v", err)
	}
	if names, err := filepath.Glob(path + "*"); err != nil || len(names) != 1 {
		t.Errorf("Compact leaves %q, %v", names, err)
	}
}

// TestCompact: the file is smaller, and everything is as it was.
func TestCompact(t *testing.T) {
	path := filled(t)
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	write(t, path+".compact", []byte("what a killed one has left"))
	s, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := dump(t, s)
	s.Close()
	before, after, err := Compact(ctx, path, CompactOptions{CheckOptions: CheckOptions{State: readable}})
	info, statErr := os.Stat(path)
	if err != nil || statErr != nil || after >= before || info.Size() != after || info.Mode().Perm() != 0o640 {
		t.Fatalf("Compact = %d, %d, %v; the file: %v, want it smaller, mode 0640", before, after, err, info)
	}
	if r, found := checked(t, path); found != nil || r.Free > 8 {
		t.Errorf("after Compact, Check finds %v, %d free pages", found, r.Free)
	}
	if s, err = Open(path, Options{}); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if got := dump(t, s); got != want {
		t.Errorf("after Compact: %s\nwant: %s", got, want)
	}
	// And it goes on as before: versions do not begin anew.
	_, v, err := s.Get(ctx, "baseline/fleet")
	if err != nil {
		t.Fatal(err)
	}
	if next, err := s.CompareAndSwap(ctx, "baseline/fleet", v, []byte(`{"v":2}`)); err != nil || next != 4 {
		t.Errorf("CompareAndSwap = %d, %v, want version 4", next, err)
	}
}

// dump is all that a store answers.
func dump(t *testing.T, s *DB) string {
	t.Helper()
	a, err := s.Query(ctx, store.Plan{Table: "totals", To: storetest.At(1 << 20), PerHost: true})
	if err != nil {
		t.Fatal(err)
	}
	hosts, err := s.Hosts(ctx)
	if err != nil {
		t.Fatal(err)
	}
	out := fmt.Sprintf("%d slices, damaged %v, %+v\n", len(a.Slices), a.Damaged, hosts)
	for _, sl := range a.Slices {
		out += fmt.Sprint(sl.Host, sl.Buckets, sl.Covered)
		for _, r := range sl.Table.Rows {
			out += fmt.Sprint(" ", r.Keys, r.Values)
		}
		out += "\n"
	}
	if err := s.List(ctx, "", "", func(key string, value []byte, version uint64) error {
		out += fmt.Sprintf("%s %s %d\n", key, value, version)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	st := s.Stats()
	return out + fmt.Sprint(st.Intervals, st.Buckets, st.OldestStart, st.NewestEnd, st.SealedThrough, st.Expired)
}
