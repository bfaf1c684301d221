package bolt

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/httpctl/httpctl/aggregator/store/storetest"
)

// TestForeignPages: interval 3 comes to have pages of interval 10, by its root page or by one below. Whether it
// is appended to or purged: interval 10 stays whole, and what of 3 can be read does, too.
func TestForeignPages(t *testing.T) {
	s, err := Open(filepath.Join(t.TempDir(), "store.db"), Options{Now: early, allocSize: 4096})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 12 {
		for host := range 60 {
			appendAll(t, s, item(t, host, i, 1))
		}
	}
	s.Close()
	sound, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	child := func(b []byte, page uint64, i int) []byte { // where a branch names the page below
		at := int(page)*os.Getpagesize() + 16 + 16*i + 8
		return b[at : at+8]
	}
	for name, damage := range map[string]func(t *testing.T, path string){
		"root": func(t *testing.T, path string) { misdirect(t, path, 3, rootOf(t, path, 10)) },
		"branch": func(t *testing.T, path string) {
			b, from, to := sound, rootOf(t, path, 10), rootOf(t, path, 3)
			if binary.NativeEndian.Uint16(b[int(to)*os.Getpagesize()+10:]) < 2 {
				t.Fatal("the interval has one page")
			}
			b = slices.Clone(b)
			copy(child(b, to, 1), child(b, from, 1))
			write(t, path, b)
		},
	} {
		for _, purge := range []bool{false, true} {
			path := filepath.Join(t.TempDir(), "store.db")
			write(t, path, sound)
			damage(t, path)
			s, err := Open(path, Options{Now: early})
			if err != nil {
				t.Fatal(err)
			}
			want := uint64(12*60 - 60) // without interval 3
			got, damaged := sum(t, s)
			if !slices.Equal(damaged, []int64{storetest.At(3)}) || got < want {
				t.Fatalf("%s: %d requests, damaged %v, want interval 3", name, got, damaged)
			}
			kept := got - want
			if purge {
				if n, err := s.Purge(ctx, storetest.At(6)); err != nil || n != 6 {
					t.Errorf("%s: Purge = %d, %v", name, n, err)
				}
			} else {
				appendAll(t, s, item(t, 70, 3, 1), item(t, 5, 3, 1))
				want++
			}
			for i := range 30 { // which takes pages that were freed
				appendAll(t, s, item(t, 1, 20+i, 1), item(t, 2, 20+i, 1))
			}
			want += 60
			got, damaged = sum(t, s)
			if got < want+kept || got > want+60 || !slices.Equal(damaged, []int64{storetest.At(3)}) { // roll-ups keep what was purged
				t.Errorf("%s, purge %t: then %d requests, damaged %v, want %d and what is left of interval 3 (%d)", name, purge, got, damaged, want, kept)
			}
			s.Close()
			if _, found := checked(t, path); slices.ContainsFunc(found, func(d Damage) bool { return d.Remedy > Rewrite && d.start != storetest.At(3) }) {
				t.Errorf("%s, purge %t: Check finds %v", name, purge, found)
			}
		}
	}
}
