package spool

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/exchange"
)

// spooled is what a spool's file gives back.
type spooled struct {
	buckets  map[int64][]byte
	previous State
	has      bool
	next     *bucket.Bucket // added, with what it declares
}

// drain opens a spool and takes everything out. said is what was logged as an error.
func drain(t *testing.T, dir string) (got spooled, said string, err error) {
	t.Helper()
	var log bytes.Buffer
	s, err := Open(dir, DefaultConfig(), Deps{Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelError}))})
	if err != nil {
		return got, "", err
	}
	defer s.Close()
	s.encode = testEncode
	got.buckets = map[int64][]byte{}
	got.previous, got.has = s.Previous()
	for after := uint64(0); ; {
		seq, data, err := s.Next(after)
		if err != nil {
			return got, log.String(), err
		}
		if seq == 0 {
			break
		}
		n := int64(-1)
		if len(data) >= 16 {
			n = int64(binary.BigEndian.Uint64(data[8:]))
		}
		if got.buckets[n] != nil {
			t.Errorf("bucket %d comes twice", n)
		}
		got.buckets[n], after = data, seq
	}
	got.next = make1(1000, 1)
	if err := s.Add(got.next); err != nil {
		return got, log.String(), fmt.Errorf("add: %w", err)
	}
	return got, log.String(), nil
}

// TestFlips flips one bit at a time at places all over a spool's file: each bucket comes back as it was, or
// is declared unobserved and counted by the next one, or the file is refused. Nothing is silent.
func TestFlips(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, DefaultConfig())
	add(t, s, 0, 20, 50)
	for n := int64(20); n < 90; n++ {
		add(t, s, n, n+1, int(n%7)*int(n%7)*150) // up to several pages
	}
	if err := s.Settle([]uint64{1, 2, 3, 4, 5, 30}, nil, []uint64{6}); err != nil { // and number 6 is to be declared
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	sound, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	used := len(bytes.TrimRight(sound, "\x00")) // bbolt makes the file larger than it needs

	fresh := func(b []byte) string {
		d := t.TempDir()
		if err := os.WriteFile(filepath.Join(d, fileName), b, 0o600); err != nil {
			t.Fatal(err)
		}
		return d
	}
	want, said, err := drain(t, fresh(sound))
	if err != nil || said != "" || len(want.buckets) != 90-7 || !want.has || len(want.next.Unobserved) != 1 || want.next.Counters[exchange.SpoolDropped] != 1 {
		t.Fatalf("the sound file gives %d buckets, %v, declares %v, %v, %q", len(want.buckets), want.has, want.next.Unobserved, err, said)
	}
	for name, key := range map[string][]byte{"state": keyState, "lost": keyLost} {
		dir := fresh(sound)
		db, err := bbolt.Open(filepath.Join(dir, fileName), 0o600, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := db.Update(func(tx *bbolt.Tx) error {
			meta := tx.Bucket(bucketMeta)
			v := bytes.Clone(meta.Get(key))
			return errors.Join(meta.Delete(key), meta.Put(append(bytes.Clone(key[:len(key)-1]), key[len(key)-1]^1), v))
		}); err != nil {
			t.Fatal(err)
		}
		db.Close()
		if _, said, err := drain(t, dir); err != nil || !strings.Contains(said, "does not know") {
			t.Errorf("the key of %s is damaged: %v, and said %q", name, err, said)
		}
	}

	flips := 200
	if os.Getenv("HTTPCTL_TORTURE") != "" {
		flips = 1000
	}
	if testing.Short() {
		flips = 60
	}
	rng := rand.New(rand.NewPCG(3, 4))
	count := map[string]int{}
	for n := range flips {
		at := rng.IntN(used)
		if n%2 == 0 { // where the structure is
			at = min(at&^4095+rng.IntN(200), used-1)
		}
		b := bytes.Clone(sound)
		b[at] ^= 1 << rng.IntN(8)
		what := fmt.Sprintf("flip %d, page %d, offset %d", n, at/4096, at%4096)
		got, said, err := drain(t, fresh(b))
		if err != nil {
			count["refused"]++
			var e *Error
			if !errors.As(err, &e) || e.Hint == "" {
				t.Errorf("%s: refused with %v, want one that says what to do", what, err)
			}
			continue
		}
		missing := uint64(0)
		for k, data := range want.buckets {
			switch {
			case got.buckets[k] == nil:
				missing++
				covered := false
				for _, u := range got.next.Unobserved {
					covered = covered || u.From <= sec(10*k) && u.To >= sec(10*k+10)
				}
				if !covered {
					t.Errorf("%s: bucket %d is gone and declared nowhere in %v", what, k, got.next.Unobserved)
				}
			case !bytes.Equal(got.buckets[k], data):
				t.Errorf("%s: bucket %d has other bytes", what, k)
			}
		}
		undone := strings.Contains(said, "meta pages") // then those that were settled come again
		if len(got.buckets)+int(missing) != len(want.buckets) && !undone {
			t.Errorf("%s: there are %d buckets and %d missing, want %d in all", what, len(got.buckets), missing, len(want.buckets))
		}
		same := got.has == want.has && got.previous == want.previous && got.next.Counters == want.next.Counters &&
			fmt.Sprint(got.next.Unobserved) == fmt.Sprint(want.next.Unobserved)
		switch {
		case same && missing == 0:
			count["unchanged"]++
		case said == "":
			t.Errorf("%s: nothing is said, and state is %v, declared %v with %d dropped; want %v, %v, %d", what, got.previous, got.next.Unobserved,
				got.next.Counters[exchange.SpoolDropped], want.previous, want.next.Unobserved, want.next.Counters[exchange.SpoolDropped])
		case missing > 0 && !undone && got.next.Counters[exchange.SpoolDropped] < missing:
			t.Errorf("%s: %d buckets are gone, %d counted", what, missing, got.next.Counters[exchange.SpoolDropped])
		default:
			count["told"]++
		}
	}
	t.Logf("%d flips: %v", flips, count)
	if count["unchanged"] == 0 || count["told"] == 0 || count["refused"] == 0 {
		t.Errorf("%v, want some of each", count)
	}
}
