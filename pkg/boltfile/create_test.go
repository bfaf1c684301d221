package boltfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"go.etcd.io/bbolt"
)

func TestCreate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a[b]*")
	path := filepath.Join(dir, "x.db")
	if err := Create(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Create in no directory = %v, want ErrNotExist", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".new", []byte("left by a power cut"), 0o600); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := Create(path); err != nil {
				t.Errorf("Create = %v", err)
			}
		})
	}
	wg.Wait()
	if names, err := os.ReadDir(dir); err != nil || len(names) != 1 {
		t.Errorf("Create leaves %v, %v, want one file", names, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("Create makes %v, %v, want mode 0600", info, err)
	}
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Update(func(tx *bbolt.Tx) error { _, err := tx.CreateBucket([]byte("b")); return err }); err != nil {
		t.Fatal(err)
	}
	db.Close()
	if err := Create(path); err != nil {
		t.Errorf("Create of a file that is there = %v", err)
	}
	if db, err = bbolt.Open(path, 0o600, nil); err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.View(func(tx *bbolt.Tx) error {
		if tx.Bucket([]byte("b")) == nil {
			t.Error("Create has replaced a file")
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}
