package app

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestDamageIsTold: soon after it was met, and then once an hour if there is more.
func TestDamageIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var met atomic.Uint64
		var log bytes.Buffer
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- tellDamage(ctx, met.Load, slog.New(slog.NewTextHandler(&log, nil))) }()
		want := func(lines int, last string) {
			t.Helper()
			synctest.Wait()
			if n := strings.Count(log.String(), "\n"); n != lines || !strings.Contains(log.String(), last) {
				t.Errorf("%d lines, want %d, the last with %q:\n%s", n, lines, last, &log)
			}
		}
		time.Sleep(damageEvery)
		want(0, "")
		met.Add(3)
		time.Sleep(damageEvery)
		want(1, "times=3 times_since_start=3")
		met.Add(4)
		time.Sleep(damageTold - time.Second)
		want(1, "")
		time.Sleep(damageEvery)
		want(2, "times=4 times_since_start=7")
		time.Sleep(24 * time.Hour)
		want(2, "")
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
