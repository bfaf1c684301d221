package boltfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/bbolt"
)

// made returns a bbolt file: "flat" with 400 entries in several leaves, "big" with values that
// take pages of their own, "nested" with small buckets within values and one with a tree, and
// pages that are free.
func made(t testing.TB) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a.db")
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{FreelistType: bbolt.FreelistMapType, NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	db.AllocSize = 4096
	update := func(f func(tx *bbolt.Tx) error) {
		t.Helper()
		if err := db.Update(f); err != nil {
			t.Fatal(err)
		}
	}
	update(func(tx *bbolt.Tx) error {
		flat, _ := tx.CreateBucket([]byte("flat"))
		big, _ := tx.CreateBucket([]byte("big"))
		nested, _ := tx.CreateBucket([]byte("nested"))
		for i := range 400 {
			if err := flat.Put(fmt.Appendf(nil, "key %04d", i), make([]byte, 40)); err != nil {
				return err
			}
		}
		for i := range 20 {
			if err := big.Put(fmt.Appendf(nil, "key %04d", i), make([]byte, 9000)); err != nil {
				return err
			}
		}
		for i := range 30 {
			b, err := nested.CreateBucket(fmt.Appendf(nil, "bucket %02d", i))
			if err != nil {
				return err
			}
			n := 2
			if i == 7 {
				n = 500
			}
			for j := range n {
				if err := b.Put(fmt.Appendf(nil, "key %04d", j), make([]byte, 30)); err != nil {
					return err
				}
			}
		}
		_, err := tx.CreateBucket([]byte("empty"))
		return err
	})
	update(func(tx *bbolt.Tx) error {
		for i := 5; i < 15; i++ {
			if err := tx.Bucket([]byte("big")).Delete(fmt.Appendf(nil, "key %04d", i)); err != nil {
				return err
			}
		}
		return nil
	})
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func read(b []byte) (*File, error) { return Read(bytes.NewReader(b), int64(len(b))) }

// roots returns the root pages of the buckets, and of the nested one with a tree.
func roots(t testing.TB, b []byte) map[string]uint64 {
	t.Helper()
	path := filepath.Join(t.TempDir(), "b.db")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	m := map[string]uint64{}
	_ = db.View(func(tx *bbolt.Tx) error {
		for _, n := range []string{"flat", "big", "nested", "empty"} {
			m[n] = uint64(tx.Bucket([]byte(n)).Root())
		}
		m["tree"] = uint64(tx.Bucket([]byte("nested")).Bucket([]byte("bucket 07")).Root())
		m["small"] = uint64(tx.Bucket([]byte("nested")).Bucket([]byte("bucket 08")).Root())
		return nil
	})
	return m
}

func TestSoundFile(t *testing.T) {
	b := made(t)
	f, err := read(b)
	if err != nil {
		t.Fatal(err)
	}
	r := roots(t, b)
	for name, err := range map[string]error{
		"All": f.All(), "Top": f.Top(), "Tree(flat)": f.Tree(r["flat"]), "Tree(big)": f.Tree(r["big"]),
		"Tree(tree)": f.Tree(r["tree"]), "Tree(empty)": f.Tree(r["empty"]), "Tree(small)": f.Tree(r["small"]),
		"At": f.At(int64(f.pages) * int64(f.pageSize)).Tree(r["tree"]),
	} {
		if err != nil {
			t.Errorf("%s = %v, want nil", name, err)
		}
	}
	if f.OneMeta {
		t.Error("OneMeta = true")
	}
	if r["small"] != 0 {
		t.Error("no bucket is within a value: the test misses them")
	}
	if err := f.Tree(r["nested"]); !errors.Is(err, ErrDamaged) {
		t.Errorf("Tree of a tree with buckets = %v, want ErrDamaged", err)
	}
	if f, err := Read(bytes.NewReader(nil), 0); f != nil || err != nil {
		t.Errorf("Read of an empty file = %v, %v, want nil, nil", f, err)
	}
}

// TestDamage: one thing wrong in each file, and which looks find it.
func TestDamage(t *testing.T) {
	sound := made(t)
	r := roots(t, sound)
	f, err := read(sound)
	if err != nil {
		t.Fatal(err)
	}
	at := func(page uint64) int { return int(page) * f.pageSize }
	child := func(b []byte, page uint64, i int) uint64 { // the page that a branch's entry names
		return order.Uint64(b[at(page)+pageHeader+i*element+8:])
	}
	if order.Uint16(sound[at(r["tree"])+8:]) != branchPage || order.Uint16(sound[at(r["flat"])+8:]) != branchPage {
		t.Fatal("the trees have one page")
	}
	tests := []struct {
		name           string
		change         func(b []byte)
		all, top, tree bool // found by All, by Top, by Tree of the nested tree
	}{
		{"a branch that names itself", func(b []byte) {
			binary.NativeEndian.PutUint64(b[at(r["tree"])+pageHeader+8:], r["tree"])
		}, true, false, true},
		{"a branch whose second names itself", func(b []byte) {
			binary.NativeEndian.PutUint64(b[at(r["tree"])+pageHeader+element+8:], r["tree"])
		}, true, false, true},
		{"a page in two places", func(b []byte) {
			binary.NativeEndian.PutUint64(b[at(r["tree"])+pageHeader+8:], child(b, r["tree"], 1))
		}, true, false, true},
		{"a branch that names another bucket", func(b []byte) {
			binary.NativeEndian.PutUint64(b[at(r["flat"])+pageHeader+8:], r["big"])
		}, true, true, false},
		{"a page beyond the end", func(b []byte) {
			binary.NativeEndian.PutUint64(b[at(r["tree"])+pageHeader+8:], 1<<40)
		}, true, false, true},
		{"a count", func(b []byte) { b[at(child(b, r["tree"], 0))+11] ^= 0x40 }, true, false, true},
		{"an overflow", func(b []byte) { b[at(child(b, r["tree"], 0))+14] ^= 1 }, true, false, true},
		{"a kind", func(b []byte) { b[at(child(b, r["tree"], 0))+8] ^= 2 }, true, false, true},
		{"a page's number", func(b []byte) { b[at(child(b, r["tree"], 0))] ^= 1 }, true, false, true},
		{"a length", func(b []byte) { b[at(child(b, r["tree"], 0))+pageHeader+15] ^= 0x80 }, true, false, true},
		{"a position", func(b []byte) { b[at(child(b, r["tree"], 0))+pageHeader+6] ^= 0x10 }, true, false, true},
		{"an entry that calls itself a bucket", func(b []byte) { b[at(child(b, r["tree"], 0))+pageHeader] ^= 1 }, true, false, true},
		{"the order of keys", func(b []byte) {
			p := at(child(b, r["tree"], 0))
			e := p + pageHeader + element
			b[e+int(order.Uint32(b[e+4:]))] ^= 0x40
		}, true, false, true},
		{"a bucket within a value", func(b []byte) {
			// "bucket 29" is the last of the nested tree's page: its page's count.
			i := bytes.LastIndex(b, []byte("bucket 29")) + len("bucket 29") + bucketHeader + 11
			b[i] ^= 0x20
		}, true, true, false},
		{"the free list's kind", func(b []byte) { b[at(f.freelist)+8] ^= 1 }, true, true, false},
		{"the free list's count", func(b []byte) { b[at(f.freelist)+11] ^= 0x80 }, true, true, false},
		{"the free list's order", func(b []byte) { b[at(f.freelist)+pageHeader+1] ^= 0x80 }, true, true, false},
		{"a free page of a nested tree", func(b []byte) {
			binary.NativeEndian.PutUint64(b[at(f.freelist)+pageHeader:], r["tree"])
			binary.NativeEndian.PutUint16(b[at(f.freelist)+10:], 1)
		}, true, false, true},
		{"a free page that is in use", func(b []byte) {
			binary.NativeEndian.PutUint64(b[at(f.freelist)+pageHeader:], r["flat"])
			binary.NativeEndian.PutUint16(b[at(f.freelist)+10:], 1)
		}, true, true, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := bytes.Clone(sound)
			tt.change(b)
			f, err := read(b)
			if err != nil {
				t.Fatal(err)
			}
			for _, look := range []struct {
				name string
				err  error
				want bool
			}{
				{"All", f.All(), tt.all}, {"Top", f.Top(), tt.top},
				{"Tree", f.Tree(r["tree"]), tt.tree},
			} {
				if (look.err != nil) != look.want || look.want && !errors.Is(look.err, ErrDamaged) {
					t.Errorf("%s = %v, want damage found: %t", look.name, look.err, look.want)
				}
			}
		})
	}
}

func TestMetaPages(t *testing.T) {
	sound := made(t)
	f, err := read(sound)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		change func(b []byte) []byte
		want   bool
	}{
		{"the first", func(b []byte) []byte { clear(b[:f.pageSize]); return b }, true},
		{"the second", func(b []byte) []byte { clear(b[f.pageSize : 2*f.pageSize]); return b }, true},
		{"both", func(b []byte) []byte { clear(b[:2*f.pageSize]); return b }, false},
		{"cut off", func(b []byte) []byte { return b[:3*f.pageSize] }, false},
		{"another file", func([]byte) []byte { return bytes.Repeat([]byte("text "), 5000) }, false},
		{"a byte", func([]byte) []byte { return []byte("x") }, false},
	}
	for _, tt := range tests {
		g, err := read(tt.change(bytes.Clone(sound)))
		if (err == nil) != tt.want || err != nil && !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: Read = %v, %v, want it read: %t", tt.name, g, err, tt.want)
		}
		if g != nil && !g.OneMeta {
			t.Errorf("%s: OneMeta = false", tt.name)
		}
	}
}

// TestPassedIsSafe flips bits; what All passes, bbolt goes through to the end:
// every entry, its own check, and removing everything.
func TestPassedIsSafe(t *testing.T) {
	sound := made(t)
	rng := rand.New(rand.NewPCG(1, 2))
	passed, refused := 0, 0
	rounds := 1000
	if testing.Short() {
		rounds = 300
	}
	path := filepath.Join(t.TempDir(), "c.db")
	for range rounds {
		b := bytes.Clone(sound)
		for range 1 + rng.IntN(3) {
			// Most bytes are values, where nothing can go wrong: aim at the headers.
			page := rng.IntN(len(b) / 4096)
			b[page*4096+rng.IntN(512)] ^= byte(1 << rng.IntN(8))
		}
		f, err := read(b)
		if err == nil {
			err = f.All()
		}
		if err != nil {
			refused++
			continue
		}
		passed++
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		db, err := bbolt.Open(path, 0o600, &bbolt.Options{FreelistType: bbolt.FreelistMapType, NoSync: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := db.View(func(tx *bbolt.Tx) error {
			// What bbolt's own check finds is found here, but pages that nothing names, which do no harm.
			// Walk, which looks at the headers of the meta pages too, finds all of it.
			var found []error
			u := f.Walk(func(_ [][]byte, err error) { found = append(found, err) })
			lost := uint64(0)
			for err := range tx.Check() {
				if strings.Contains(err.Error(), "unreachable unfreed") {
					lost++
				} else if found == nil {
					t.Errorf("Walk finds nothing, bbolt's check finds: %v", err)
				}
			}
			if found == nil && u.Unaccounted != lost {
				t.Errorf("Walk tells of %d pages in no use, bbolt's check of %d", u.Unaccounted, lost)
			}
			return tx.ForEach(func(_ []byte, b *bbolt.Bucket) error {
				if b == nil { // it calls itself a value
					return nil
				}
				return b.ForEach(func(_, _ []byte) error { return nil })
			})
		}); err != nil {
			t.Error(err)
		}
		_ = db.Close()
	}
	if passed == 0 || refused == 0 {
		t.Errorf("passed %d, refused %d: want some of both", passed, refused)
	}
	t.Logf("passed %d, refused %d", passed, refused)
}

// TestWalk: every damage is told, with the buckets that lead to it.
func TestWalk(t *testing.T) {
	sound := made(t)
	r := roots(t, sound)
	f, err := read(sound)
	if err != nil {
		t.Fatal(err)
	}
	at := func(page uint64) int { return int(page) * f.pageSize }
	walk := func(b []byte) (found []string, u Usage) {
		f, err := read(b)
		if err != nil {
			t.Fatal(err)
		}
		u = f.Walk(func(path [][]byte, err error) {
			if !errors.Is(err, ErrDamaged) {
				t.Errorf("found %v, want ErrDamaged", err)
			}
			found = append(found, string(bytes.Join(path, []byte("/"))))
		})
		slices.Sort(found)
		return slices.Compact(found), u
	}
	if found, u := walk(sound); found != nil || u.Pages != f.pages || u.Free == 0 || u.Unaccounted != 0 || u.PageSize != f.pageSize {
		t.Errorf("Walk of a sound file = %q, %+v, want nothing found and pages that are free", found, u)
	}
	tests := []struct {
		name   string
		change func(b []byte)
		want   []string
	}{
		{"three buckets", func(b []byte) {
			b[at(r["big"])+9] ^= 1
			b[at(r["tree"])+9] ^= 1
			b[at(r["flat"])+10] ^= 1
		}, []string{"big", "flat", "nested/bucket 07"}},
		{"pages of another bucket", func(b []byte) {
			copy(b[at(r["tree"])+pageHeader+8:], binary.NativeEndian.AppendUint64(nil, order.Uint64(b[at(r["big"])+pageHeader+8:])))
		}, []string{"big", "nested/bucket 07"}},
		{"a run that is too long", func(b []byte) {
			b[at(order.Uint64(b[at(r["big"])+pageHeader+8:]))+12]++
		}, []string{"big"}},
		{"a bucket within a value", func(b []byte) {
			i := bytes.LastIndex(b, []byte("bucket 08")) + len("bucket 08") + bucketHeader + 11
			b[i] ^= 0x20
		}, []string{"nested/bucket 08"}},
		{"the free list", func(b []byte) { b[at(f.freelist)+8] ^= 1 }, []string{""}},
		{"a free page in use", func(b []byte) {
			binary.NativeEndian.PutUint64(b[at(f.freelist)+pageHeader:], r["tree"])
			binary.NativeEndian.PutUint16(b[at(f.freelist)+10:], 1)
		}, []string{"nested/bucket 07"}},
		{"a run of the free list", func(b []byte) { b[at(f.freelist)+12]++ }, []string{""}},
	}
	for _, tt := range tests {
		b := bytes.Clone(sound)
		tt.change(b)
		found, _ := walk(b)
		// A run that is too long may meet the page behind it in another bucket, too.
		found = slices.DeleteFunc(found, func(s string) bool { return tt.name == "a run that is too long" && s != "big" })
		if !slices.Equal(found, tt.want) {
			t.Errorf("%s: Walk finds damage in %q, want %q", tt.name, found, tt.want)
		}
	}
}

func TestLeaves(t *testing.T) {
	b := made(t)
	f, err := read(b)
	if err != nil {
		t.Fatal(err)
	}
	pages, n := map[uint64]int{}, 0
	if err := f.Leaves(roots(t, b)["tree"], func(page uint64, key, value []byte) error {
		if want := fmt.Sprintf("key %04d", n); string(key) != want || len(value) != 30 {
			t.Fatalf("entry %d = %q with %d bytes, want %q with 30", n, key, len(value), want)
		}
		pages[page]++
		n++
		return nil
	}); err != nil || n != 500 || len(pages) < 2 {
		t.Errorf("Leaves = %v after %d entries on %d pages, want 500 on several", err, n, len(pages))
	}
	stop := errors.New("enough")
	if err := f.Leaves(roots(t, b)["tree"], func(uint64, []byte, []byte) error { return stop }); err != stop {
		t.Errorf("Leaves = %v, want the error of its function", err)
	}
}

func FuzzFile(f *testing.F) {
	b := made(f)
	r := roots(f, b)
	f.Add(b, r["tree"])
	f.Add(b[:len(b)/2], uint64(3))
	f.Fuzz(func(t *testing.T, b []byte, root uint64) {
		g, err := read(b)
		if err != nil || g == nil {
			return
		}
		_ = g.All()
		_ = g.Top()
		_ = g.Tree(root)
		g.Walk(func([][]byte, error) {})
	})
}
