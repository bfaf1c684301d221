package boltfile

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"
)

// TestWhatBboltWritesIsSound: whatever is put and deleted, All finds nothing wrong. It asks
// for more of a file than bbolt's documentation promises: that its entries are packed, and that the first key of a page
// is the one by which the page above names it.
func TestWhatBboltWritesIsSound(t *testing.T) {
	for seed := range uint64(4) {
		rng := rand.New(rand.NewPCG(seed, 5))
		path := filepath.Join(t.TempDir(), "a.db")
		db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoSync: true, FreelistType: bbolt.FreelistMapType})
		if err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		rounds := 60
		if testing.Short() {
			rounds = 20
		}
		for round := range rounds {
			if err := db.Update(func(tx *bbolt.Tx) error {
				for range 1 + rng.IntN(6) {
					top, err := tx.CreateBucketIfNotExists(fmt.Appendf(nil, "top %d", rng.IntN(3)))
					if err != nil {
						return err
					}
					top.FillPercent = []float64{0.1, 0.5, 0.95}[rng.IntN(3)]
					key := func() []byte { return binary.BigEndian.AppendUint64(nil, rng.Uint64N(3000)) }
					for range rng.IntN(60) {
						if k := key(); top.Bucket(k) == nil {
							if err := top.Put(k, make([]byte, rng.IntN(200)*rng.IntN(1+rng.IntN(60)))); err != nil {
								return err
							}
						}
					}
					from := rng.Uint64N(3000) // a stretch of keys goes
					for n := range rng.Uint64N(400) {
						k := binary.BigEndian.AppendUint64(nil, from+n)
						if top.Bucket(k) != nil {
							err = top.DeleteBucket(k)
						} else {
							err = top.Delete(k)
						}
						if err != nil {
							return err
						}
					}
					for range rng.IntN(4) {
						k := key()
						if top.Get(k) != nil {
							continue
						}
						b, err := top.CreateBucketIfNotExists(k)
						if err != nil {
							return err
						}
						for range rng.IntN(100) {
							if err := b.Put(key(), make([]byte, rng.IntN(300))); err != nil {
								return err
							}
						}
						for range rng.IntN(60) {
							if err := b.Delete(key()); err != nil {
								return err
							}
						}
						if c := b.Cursor(); rng.IntN(3) == 0 {
							for k, _ := c.First(); k != nil && rng.IntN(20) > 0; k, _ = c.First() {
								if err := c.Delete(); err != nil {
									return err
								}
							}
						}
					}
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			info, err := f.Stat()
			if err != nil {
				t.Fatal(err)
			}
			g, err := Read(f, info.Size())
			if err == nil {
				err = g.All()
			}
			if err != nil {
				t.Fatalf("seed %d, round %d: %v", seed, round, err)
			}
			g.Walk(func(path [][]byte, err error) {
				t.Errorf("seed %d, round %d: Walk finds at %q: %v", seed, round, path, err)
			})
		}
		f.Close()
		db.Close()
	}
}
