package bolt

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/aggregator/store/storetest"
	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/exchange"
)

// unpackV1 writes testdata/v1.db.gz to a file. It was made by the version before roll-ups: 12
// intervals of 1 and 10 requests of hosts 1 and 2, one of 100 of host 1 a day later, and
// the state baseline/fleet.
func unpackV1(t *testing.T) string {
	t.Helper()
	f, err := os.Open("testdata/v1.db.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "store.db")
	write(t, path, b)
	return path
}

// TestUpgrade: a file of version 1 loses nothing, and gets roll-ups. An upgrade that was
// cut short is done again.
func TestUpgrade(t *testing.T) {
	path := unpackV1(t)
	if r, err := Check(ctx, path, CheckOptions{}); err != nil || r.Damages != 0 || r.Buckets != 25 {
		t.Errorf("Check of version 1 = %+v, %v, want 25 sound buckets", r, err)
	}
	raw(t, path, func(tx *bbolt.Tx) error { // as if it had been killed on the way
		_, err := tx.CreateBucket(bucketRollups)
		return err
	})
	s, err := Open(path, Options{Now: early})
	if err != nil {
		t.Fatal(err)
	}
	check := func(what string) {
		t.Helper()
		if got, damaged := sum(t, s); got != 12*11+100 || damaged != nil {
			t.Errorf("%s: requests = %d, damaged %v, want 232", what, got, damaged)
		}
		if v, _, err := s.Get(ctx, "baseline/fleet"); string(v) != "kept" || err != nil {
			t.Errorf("%s: state = %q, %v", what, v, err)
		}
	}
	check("upgraded")
	// Of host 1 three minutes, two hours and days, of host 2 two, one, one; as many of the fleet as of host 1.
	if st := s.Stats(); st.Dirty != 3*(1+1)+2*(1+1)+2*(1+1)+2+1+1 || st.Buckets != 25 || st.ChecksumErrors != 0 {
		t.Errorf("Stats = %+v, want 18 dirty roll-ups of 25 buckets", st)
	}
	if done, err := s.Rollup(ctx, storetest.At(3*8640)); err != nil || done.Rebuilt != 18 || done.Pending != 0 {
		t.Errorf("Rollup = %+v, %v, want 18 rebuilt", done, err)
	}
	if n, err := s.Purge(ctx, storetest.At(3*8640)); err != nil || n != 13 {
		t.Errorf("Purge = %d, %v, want 13", n, err)
	}
	check("purged")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(path, Options{}); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	check("opened again")
	if n, err := s.Rollup(ctx, storetest.At(3*8640)); err != nil || n.Rebuilt != 0 {
		t.Errorf("Rollup after opening again = %+v, %v: it was upgraded twice", n, err)
	}
}

// TestUpgradeFrom2: nothing but the version changes in a file of version 2.
func TestUpgradeFrom2(t *testing.T) {
	path := unpackV1(t)
	s, err := Open(path, Options{Now: early})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Rollup(ctx, storetest.At(3*8640)); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	raw(t, path, func(tx *bbolt.Tx) error { return tx.Bucket(bucketMeta).Put(keyFormat, formatValue(2)) })
	if r, err := Check(ctx, path, CheckOptions{}); err != nil || r.Damages != 0 || r.Buckets != 25 {
		t.Errorf("Check of version 2 = %+v, %v, want 25 sound buckets", r, err)
	}
	if s, err = Open(path, Options{Now: early}); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if st := s.Stats(); st.Dirty != 0 || st.Buckets != 25 || st.ChecksumErrors != 0 {
		t.Errorf("Stats = %+v, want 25 buckets and no roll-up dirty", st)
	}
	_ = s.view(func(tx *bbolt.Tx) error {
		if v, err := formatOf(tx.Bucket(bucketMeta).Get(keyFormat)); v != formatVersion || err != nil {
			t.Errorf("the file has version %d, %v, want %d", v, err, formatVersion)
		}
		return nil
	})
}

// TestDamagedRollups: damage to roll-ups is reported where it changes an answer, and while
// the raw buckets are there, it changes none and is mended.
func TestDamagedRollups(t *testing.T) {
	minute := newStepKey(store.Minute, storetest.At(0))
	hour := newStepKey(store.Hour, storetest.At(0))
	host := hostEntry(storetest.ID(1))
	flip := func(b []byte, i int) []byte {
		b = bytes.Clone(b)
		b[i] ^= 4
		return b
	}
	entries := func(tx *bbolt.Tx, key stepKey) *bbolt.Bucket { return tx.Bucket(bucketRollups).Bucket(key[:]) }
	tests := []struct {
		name   string
		change func(tx *bbolt.Tx) error
	}{
		{"flipped bit of the fleet", func(tx *bbolt.Tx) error {
			b := entries(tx, hour)
			return b.Put(fleetHeader, flip(b.Get(fleetHeader), 20))
		}},
		{"flipped bit of a table of the fleet", func(tx *bbolt.Tx) error {
			b := entries(tx, hour)
			return b.Put(fleetTable("totals"), flip(b.Get(fleetTable("totals")), 50))
		}},
		{"table of the fleet missing", func(tx *bbolt.Tx) error { return entries(tx, hour).Delete(fleetTable("totals")) }},
		{"flipped bit of a host", func(tx *bbolt.Tx) error {
			b := entries(tx, hour)
			return b.Put(host, flip(b.Get(host), 20))
		}},
		{"flipped bit in a key", func(tx *bbolt.Tx) error {
			b := entries(tx, minute)
			v := b.Get(host)
			return errors.Join(b.Put(flip(host, 9), v), b.Delete(host))
		}},
		{"missing host", func(tx *bbolt.Tx) error { return entries(tx, hour).Delete(host) }},
		{"roll-up of another step", func(tx *bbolt.Tx) error { return entries(tx, hour).Put(host, entries(tx, minute).Get(host)) }},
		{"missing step", func(tx *bbolt.Tx) error { return tx.Bucket(bucketRollups).DeleteBucket(hour[:]) }},
		{"missing manifest", func(tx *bbolt.Tx) error { return tx.Bucket(bucketRollupManifests).Delete(hour[:]) }},
		{"flipped bit in a manifest", func(tx *bbolt.Tx) error {
			b := tx.Bucket(bucketRollupManifests)
			return b.Put(hour[:], flip(b.Get(hour[:]), 8))
		}},
		{"flipped bit in a key of a step", func(tx *bbolt.Tx) error {
			other := newStepKey(store.Hour, storetest.At(720))
			b, err := tx.Bucket(bucketRollups).CreateBucket(other[:])
			if err != nil {
				return err
			}
			if err := entries(tx, hour).ForEach(func(k, v []byte) error { return b.Put(k, v) }); err != nil {
				return err
			}
			return tx.Bucket(bucketRollups).DeleteBucket(hour[:])
		}},
	}
	plans := map[string]store.Plan{
		"fleet":    {Table: "totals", From: 0, To: storetest.At(8639)},
		"hosts":    {Table: "totals", From: 0, To: storetest.At(8639), PerHost: true},
		"minutes":  {Table: "totals", From: 0, To: storetest.At(8639), Step: time.Minute},
		"counters": {From: 0, To: storetest.At(8639)},
	}
	for _, tt := range tests {
		for _, purged := range []bool{false, true} {
			t.Run(tt.name+map[bool]string{false: "", true: ", raw buckets purged"}[purged], func(t *testing.T) {
				dir := t.TempDir()
				s := open(t, dir)
				for i := range 12 {
					appendAll(t, s, item(t, 1, i, 1), item(t, 2, i, 10))
				}
				if _, err := s.Rollup(ctx, storetest.At(8640)); err != nil {
					t.Fatal(err)
				}
				if purged {
					if _, err := s.Purge(ctx, storetest.At(12)); err != nil {
						t.Fatal(err)
					}
				}
				s.Close()
				raw(t, s.path, tt.change)
				s = open(t, dir)
				defer s.Close()
				reported := false
				ask := func(what string) {
					t.Helper()
					for name, p := range plans {
						a, err := s.Query(ctx, p)
						if err != nil {
							t.Fatal(err)
						}
						n := uint64(0)
						for _, sl := range a.Slices {
							n += sl.Counters[exchange.Requests]
							if p.Table != "" && (sl.Table == nil || uint64(sl.Table.Total(0)) != sl.Counters[exchange.Requests]) {
								t.Errorf("%s, %s: the table and the counters differ", what, name)
							}
						}
						reported = reported || len(a.Damaged) > 0
						if n != 12*11 && len(a.Damaged) == 0 {
							t.Errorf("%s, %s: requests = %d and nothing reported, want 132", what, name, n)
						}
						if n != 12*11 && !purged {
							t.Errorf("%s, %s: requests = %d, want 132: all of it is there", what, name, n)
						}
					}
				}
				ask("damaged")
				if !reported {
					t.Error("no answer reports damage")
				}
				if s.Stats().ChecksumErrors == 0 {
					t.Error("ChecksumErrors = 0")
				}
				if purged {
					return
				}
				// Before the raw buckets go, their minutes are mended, and with them the hours.
				if _, err := s.Purge(ctx, storetest.At(360)); err != nil {
					t.Errorf("Purge = %v", err)
				}
				if _, err := s.PurgeRollups(ctx, store.Minute, storetest.At(360)); err != nil {
					t.Errorf("PurgeRollups = %v", err)
				}
				a, err := s.Query(ctx, store.Plan{Table: "totals", From: 0, To: storetest.At(360)})
				if err != nil || len(a.Damaged) > 0 || a.Slices[0].Table.Total(0) != 12*11 {
					t.Errorf("after the purges: %+v, %v, want 132 requests and nothing damaged", a, err)
				}
			})
		}
	}
}

// TestRollupKeepsDamage: what could not be read when it was rolled up is told of for ever.
func TestRollupKeepsDamage(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	var batch []store.Item
	for i := range 720 {
		batch = append(batch, item(t, 1, i, 1))
	}
	appendAll(t, s, batch...)
	at := storetest.At(100)
	s.Close()
	raw(t, s.path, func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketIntervals).Bucket(startKey(at))
		k, v := b.Cursor().First()
		v = bytes.Clone(v)
		v[10] ^= 1
		return b.Put(bytes.Clone(k), v)
	})
	s = open(t, dir)
	defer s.Close()
	for range 2 {
		if _, err := s.Rollup(ctx, storetest.At(8640)); err != nil {
			t.Fatal(err)
		}
		a, err := s.Query(ctx, store.Plan{Table: "totals", From: 0, To: storetest.At(8640)})
		if err != nil || !slices.Equal(a.Damaged, []int64{at}) || a.Slices[0].Table.Total(0) != 719 {
			t.Errorf("Query = damaged %v, %v, want %d, and the 719 requests that are left", a.Damaged, err, at)
		}
		if _, err := s.Purge(ctx, storetest.At(720)); err != nil {
			t.Fatal(err)
		}
		if _, err := s.PurgeRollups(ctx, store.Minute, storetest.At(720)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRollupSpans: spans beyond what a roll-up holds are told of less, never wrongly.
func TestRollupSpans(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	// Every second interval of a day has a bucket: far more gaps than a roll-up has room for.
	var batch []store.Item
	for i := 0; i < 8640; i += 2 {
		h := storetest.Header(1, i)
		h.Unobserved = []bucket.Span{{From: storetest.At(i), To: storetest.At(i) + 1e9}}
		batch = append(batch, storetest.Item(t, storetest.Bucket(h, nil)))
	}
	appendAll(t, s, batch...)
	if _, err := s.Rollup(ctx, storetest.At(8640)); err != nil {
		t.Fatal(err)
	}
	a, err := s.Query(ctx, store.Plan{From: 0, To: storetest.At(8640)})
	if err != nil || len(a.Slices) != 1 || a.Slices[0].Buckets != 4320 {
		t.Fatalf("Query = %+v, %v", a, err)
	}
	length := func(spans []bucket.Span) (n int64) {
		for _, s := range spans {
			n += (s.To - s.From) / 1e9
		}
		return n
	}
	covered, lost := length(a.Slices[0].Covered), length(a.Slices[0].Unobserved)
	if covered == 0 || covered > 43200 || lost < 4320 || lost > 86400 {
		t.Errorf("covered %d s, unobserved %d s, want at most 43200 and at least 4320", covered, lost)
	}
}

// TestUnionGoesOn: whoever goes on from the key that he got gets further, also in a damaged file in
// which keys are out of order.
func TestUnionGoesOn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "some.db")
	const keys = 300
	key := func(i int) []byte { k := newStepKey(store.Minute, storetest.At(6*i)); return k[:] }
	raw(t, path, func(tx *bbolt.Tx) error {
		a, err := tx.CreateBucket([]byte("a"))
		if err != nil {
			return err
		}
		if _, err := tx.CreateBucket([]byte("b")); err != nil {
			return err
		}
		for i := range keys {
			if err := a.Put(key(i), make([]byte, 28)); err != nil {
				return err
			}
		}
		return nil
	})
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s := &DB{}
	for i := 1; i < keys; i += 7 {
		b := bytes.ReplaceAll(whole, key(i), key(-60)) // with it, what a branch of the tree says
		write(t, path, b)
		db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		err = db.View(func(tx *bbolt.Tx) error {
			for from := range keys {
				first := key(from)
				next := s.union(tx.Bucket([]byte("a")), tx.Bucket([]byte("b")), first)
				last := []byte(nil)
				for k := next(); k != nil; k = next() {
					if bytes.Compare(k, first) < 0 || last != nil && bytes.Compare(k, last) <= 0 {
						t.Fatalf("key %d changed: from %x on comes %x after %x", i, first, k, last)
					}
					last = k
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		db.Close()
	}
	if s.checksumErrors.Load() == 0 {
		t.Error("no key was passed over: the test misses its point")
	}
}

// TestMonthStaysFlat: over a simulated month, with the default retention of everything, the file grows by no more than
// the roll-ups of hours and days that it gains. A day has one hour here, an interval ten seconds.
func TestMonthStaysFlat(t *testing.T) {
	s, err := Open(filepath.Join(t.TempDir(), "store.db"), Options{Now: early, allocSize: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.db.NoSync = true // what is on stable storage is not the question
	const day, hosts = 24 * time.Hour, 3
	keep := []time.Duration{store.Raw: 2 * day, store.Minute: 2 * day, store.Hour: 90 * day, store.Day: 730 * day}
	var sizes []int64
	want := uint64(0)
	for d := range 30 {
		for minute := range 60 {
			start := storetest.T0 + int64(d)*int64(day) + int64(minute)*60e9
			var batch []store.Item
			for i := range 6 * hosts {
				h := storetest.Header(i%hosts, d*8640+6*minute+i/hosts)
				h.Ordinal = uint64(d*360 + 6*minute + i/hosts)
				batch = append(batch, storetest.Item(t, storetest.Bucket(h, func(tb *bucket.Table) uint64 {
					for i := range 20 { // as many bytes in a day as in any other
						tb.Add([]string{"0", "server", "GET", fmt.Sprint(200 + i)}, []int64{10, 10, start, int64(1+(minute*7+i)%50) * 1e5})
					}
					return 200
				})))
				want += 200
			}
			appendAll(t, s, batch...)
			if minute%10 != 9 {
				continue
			}
			now := start + 60e9
			if _, err := s.Rollup(ctx, now); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Purge(ctx, now-int64(keep[store.Raw])); err != nil {
				t.Fatal(err)
			}
			for r := store.Minute; r <= store.Day; r++ {
				if _, err := s.PurgeRollups(ctx, r, now-int64(keep[r])); err != nil {
					t.Fatal(err)
				}
			}
		}
		if d%10 == 9 {
			sizes = append(sizes, s.Stats().Bytes)
		}
	}
	st := s.Stats()
	t.Logf("bytes after 10, 20 and 30 days: %v; %d intervals, %v roll-ups", sizes, st.Intervals, st.Rollups)
	if last, first := sizes[2], sizes[0]; last > first+first/20 {
		t.Errorf("bytes after 10, 20 and 30 days = %v, want them equal to 5%%", sizes)
	}
	if st.Intervals > 3*360 || st.Rollups[store.Minute] > 3*60+60 || st.Rollups[store.Day] != 30 {
		t.Errorf("%d intervals, %v roll-ups are kept", st.Intervals, st.Rollups)
	}
	if got, damaged := sum(t, s); got != want || damaged != nil {
		t.Errorf("requests of the month = %d, damaged %v, want %d", got, damaged, want)
	}
}
