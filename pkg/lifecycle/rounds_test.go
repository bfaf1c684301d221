package lifecycle

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestRounds: a fault costs its round and is logged once an hour; the pause grows with those in a row, and any round that ends makes it what it was.
func TestRounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		r := NewRounds("potter", slog.New(slog.NewTextHandler(&log, nil)))
		fault := func() error { panic("the wheel\nbroke") }
		if since, err := r.Failing(); err != nil || !since.IsZero() || r.Pause(time.Second) != time.Second {
			t.Errorf("before the first round: failing since %v, %v, pause %v", since, err, r.Pause(time.Second))
		}
		begin := time.Now()
		var pauses []time.Duration
		for range 12 {
			if err := r.Do(fault); !errors.Is(err, ErrPanic) || !strings.Contains(err.Error(), "the wheel") || strings.Contains(err.Error(), "goroutine") {
				t.Fatalf("Do of a fault = %v, want it without a stack", err)
			}
			pauses = append(pauses, r.Pause(time.Second))
			time.Sleep(r.Pause(time.Second))
		}
		if pauses[0] != 2*time.Second || pauses[1] != 4*time.Second || pauses[7] != 256*time.Second || pauses[8] != maxPause || pauses[11] != maxPause {
			t.Errorf("pauses after faults = %v", pauses)
		}
		if since, err := r.Failing(); err == nil || !since.Equal(begin) || r.Faults() != 12 {
			t.Errorf("failing since %v, %v, %d faults, want 12 since %v", since, err, r.Faults(), begin)
		}
		if n := strings.Count(log.String(), "worker=potter"); n != 1 || !strings.Contains(log.String(), "rounds_test.go") {
			t.Errorf("12 faults within an hour are logged %d times, want once with the stack:\n%s", n, &log)
		}
		if r.Pause(10*time.Minute) != 10*time.Minute {
			t.Error("a pause that is long anyway became shorter")
		}
		disk := errors.New("disk on fire")
		if err := r.Do(func() error { return disk }); !errors.Is(err, disk) || r.Pause(time.Second) != time.Second || r.Faults() != 12 {
			t.Errorf("a round that fails: %v, pause %v, %d faults", err, r.Pause(time.Second), r.Faults())
		}
		if since, err := r.Failing(); !errors.Is(err, disk) || !since.Equal(begin) {
			t.Errorf("failing since %v, %v, want since the first", since, err)
		}
		if err := r.Do(func() error { return nil }); err != nil {
			t.Error(err)
		}
		if since, err := r.Failing(); err != nil || !since.IsZero() {
			t.Errorf("after a round that ended well: failing since %v, %v", since, err)
		}
		time.Sleep(faultTold)
		_ = r.Do(fault)
		if n := strings.Count(log.String(), "others_since_last_logged=11"); n != 1 {
			t.Errorf("an hour later the log says:\n%s", &log)
		}
	})
}
