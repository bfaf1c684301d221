package app

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestPrepareAnswers: dashboards are asked for at the start, for no longer than that may take, and each minute; meanwhile sums are made every second, and every five
// the statistics are looked for. What fails is told once, until it works again.
func TestPrepareAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var warmed, again, prepared, refreshed int
		var failure, refreshFailure error
		var log bytes.Buffer
		done := make(chan error, 1)
		go func() {
			done <- prepareAnswers(ctx, func(ctx context.Context, first bool) error {
				if !first {
					again++
					return nil
				}
				warmed++
				<-ctx.Done() // more than it has time for
				return ctx.Err()
			}, func(context.Context) error {
				refreshed++
				return refreshFailure
			}, func(context.Context) error {
				prepared++
				return failure
			}, slog.New(slog.NewTextHandler(&log, nil)))
		}()
		time.Sleep(warmFor + 20*time.Second + time.Millisecond)
		synctest.Wait()
		if warmed != 1 || prepared != 20 || refreshed < 3 || refreshed > 4 {
			t.Errorf("warm, prepare and refresh were called %d, %d and %d times, want 1, 20 and 3 or 4", warmed, prepared, refreshed)
		}
		for range 2 {
			failure = errors.New("as a test wants")
			time.Sleep(10 * time.Second)
			synctest.Wait()
			failure = nil
			time.Sleep(10 * time.Second)
			synctest.Wait()
		}
		if warmed != 1 || again != 0 { // after 70 s
			t.Errorf("warm was called %d times for the first time and %d times again, want once, as it took ten seconds", warmed, again)
		}
		time.Sleep(warmRest*warmFor - warmEvery/2)
		if again != 1 {
			t.Errorf("ten minutes later warm was called %d times again, want once", again)
		}
		refreshFailure = errors.New("looks in vain")
		time.Sleep(10 * warmEvery)
		if again < 10 || again > 12 {
			t.Errorf("after ten times as long as it rests, warm was called %d times again, want about 11", again)
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("prepareAnswers = %v at its end", err)
		}
		if n := strings.Count(log.String(), "looks in vain"); n != 1 {
			t.Errorf("that looking for statistics fails for minutes is told %d times:\n%s", n, &log)
		}
		if n := strings.Count(log.String(), "as a test wants"); n != 2 {
			t.Errorf("two times that preparing failed are told %d times:\n%s", n, &log)
		}
	})
}
