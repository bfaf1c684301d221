package bolt

import (
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/aggregator/store/storetest"
)

// TestPurgeInPieces: a purge of much time holds up appends for no more than so many buckets at once, and drops whole minutes.
func TestPurgeInPieces(t *testing.T) {
	s, err := Open(filepath.Join(t.TempDir(), "store.db"), Options{mostPurged: 20})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	const hosts, minutes = 3, 8
	for i := range 6 * minutes {
		var batch []store.Item
		for host := range hosts {
			batch = append(batch, item(t, host, i, 1))
		}
		appendAll(t, s, batch...)
	}
	left := func(tx *bbolt.Tx) (n int) {
		_ = tx.Bucket(bucketManifests).ForEach(func(_, _ []byte) error { n++; return nil })
		return n
	}
	before, gone := 6*minutes, []int{}
	commit := s.commit
	s.commit = func(tx *bbolt.Tx) error {
		if n := left(tx); n < before {
			gone = append(gone, before-n)
			before = n
		}
		return commit(tx)
	}
	n, err := s.Purge(t.Context(), storetest.At(6*minutes))
	if err != nil || n != 6*minutes {
		t.Fatalf("Purge = %d, %v, want %d", n, err, 6*minutes)
	}
	if len(gone) != 4 {
		t.Errorf("transactions dropped %v intervals, want 4 of two minutes each, as one has 18 buckets and 20 are the bound", gone)
	}
	for _, n := range gone {
		if n != 12 {
			t.Errorf("transactions dropped %v intervals, want two minutes each", gone)
		}
	}
}
