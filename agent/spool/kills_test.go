package spool

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/httpctl/httpctl/pkg/bucket"
)

// TestKillsAtAnyMoment kills an agent at random moments: in the middle of an interval, again while it starts, while its disk fails, and what failed
// to be written may be on disk all the same. Whatever is neither in a bucket on disk nor declared is lost without a word: nothing may be. And
// what is declared is no more than from the last interval on disk to the next start: with a sound disk an interval and the time away, of kills
// that follow each other before anything could be closed that of all of them.
func TestKillsAtAnyMoment(t *testing.T) {
	for seed := range uint64(4) {
		rng := rand.New(rand.NewPCG(seed, 12))
		dir := t.TempDir()
		now := sec(1000) + rng.Int64N(sec(10))
		first := now
		var stored, allowed, declared []bucket.Span // allowed is what kills may take
		begun := int64(0)
		var away []string
		for life := range 12 {
			s := open(t, dir, DefaultConfig())
			if life > 0 && rng.IntN(4) == 0 {
				s.fault = func() error { return syscall.EIO }
			}
			s.tried = time.Time{}
			incarnation := bucket.ID{byte(life + 1)}
			if err := s.Begin(incarnation, now, width); err != nil && s.fault == nil {
				t.Fatal(err)
			}
			sound := s.fault == nil // since the last bucket that is on disk
			closed := begun         // through which it is on disk
			if begun = now; life == 0 {
				closed = now
			}
			onDisk := closed
			if sound {
				onDisk = now
			}
			if life > 0 {
				allowed = append(allowed, bucket.Span{From: closed, To: now})
			}
			n := now / int64(width)
			for range rng.IntN(4) { // intervals that it closes
				now = (n + 1) * int64(width)
				b := &bucket.Bucket{}
				b.Incarnation, b.Start, b.Width, b.Ordinal, b.Final, b.ClosedThrough = incarnation, n*int64(width), width, uint64(n), true, now
				s.tried = time.Time{} // the next try is not too soon
				err := s.Add(b)
				switch {
				case err == nil:
					onDisk = now
					s.fault = nil
				case !errors.Is(err, ErrKept):
					t.Fatal(err)
				}
				if rng.IntN(3) == 0 {
					s.fault = nil
				}
				n++
			}
			now += rng.Int64N(int64(width)) // within the open interval
			away = append(away, fmt.Sprintf("life %d from %v, on disk up to %v, killed at %v", life, time.Duration(begun), time.Duration(onDisk), time.Duration(now)))
			begun = onDisk
			dir = killed(t, s, dir)
			now += rng.Int64N(sec(25))
		}
		s := open(t, dir, DefaultConfig())
		if err := s.Begin(bucket.ID{99}, now, width); err != nil {
			t.Fatal(err)
		}
		allowed = append(allowed, bucket.Span{From: begun, To: now})
		for seq, _, err := s.Next(0); seq != 0; seq, _, err = s.Next(seq) {
			e, lerr := s.lookup(seq)
			if err != nil || lerr != nil || e == nil {
				t.Fatal(err, lerr)
			}
			stored = append(stored, e.span())
			declared = append(declared, e.unobserved...)
		}
		declared = mergeSpans(append(declared, s.lost.spans...))
		allowed = bucket.MergeSpans(allowed)
		for _, d := range declared {
			if !slices.ContainsFunc(allowed, func(a bucket.Span) bool { return d.From >= a.From && d.To <= a.To }) {
				t.Errorf("seed %d: %v to %v is declared, want no more than %v\n%q", seed, time.Duration(d.From), time.Duration(d.To), allowed, away)
			}
		}
		all := bucket.MergeSpans(append(stored, declared...))
		if len(all) != 1 || all[0].From > first || all[0].To < now {
			t.Errorf("seed %d: stored or declared is %v, want all from %v to %v\n%q", seed, all, time.Duration(first), time.Duration(now), away)
		}
	}
}

// killed returns a state directory as a kill leaves it: what was written, without Close.
func killed(t *testing.T, s *Spool, dir string) string {
	t.Helper()
	next := t.TempDir()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err == nil {
			err = os.WriteFile(filepath.Join(next, f.Name()), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	s.Close()
	return next
}
