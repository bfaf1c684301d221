package app

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/lifecycle"
)

// TestWorkersOutliveFaults: a fault in a round of the roll-up or the purge worker costs that round. It is counted, logged once, tried again after pauses that
// grow, and readers are told when it lasts.
func TestWorkersOutliveFaults(t *testing.T) {
	for name, start := range map[string]func(ctx context.Context, rounds *lifecycle.Rounds, log *slog.Logger, round func(n int)) error{
		"roll-ups": func(ctx context.Context, rounds *lifecycle.Rounds, log *slog.Logger, round func(n int)) error {
			w := &rollups{log: log, rounds: rounds, store: &fakeRoller{f: func(_ context.Context, n int) (store.Progress, error) {
				round(n)
				return store.Progress{}, nil
			}}}
			return w.run(ctx)
		},
		"purge": func(ctx context.Context, rounds *lifecycle.Rounds, log *slog.Logger, round func(n int)) error {
			n := 0
			return purgeRounds(ctx, rounds, config.DefaultSettings, func(context.Context, time.Duration) error {
				n++
				round(n)
				return nil
			}, log)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var text strings.Builder
				log := slog.New(slog.NewTextHandler(&text, nil))
				rounds := lifecycle.NewRounds(name, log)
				var at []time.Time
				good := 0
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error)
				go func() {
					done <- start(ctx, rounds, log, func(n int) {
						if n <= 5 {
							at = append(at, time.Now())
							panic("as a test wants")
						}
						good++
					})
				}()
				for synctest.Wait(); len(at) < 5; synctest.Wait() {
					time.Sleep(time.Second)
				}
				for i := 2; i < len(at); i++ {
					if at[i].Sub(at[i-1]) < at[i-1].Sub(at[i-2]) || at[i].Sub(at[i-1]) > 5*time.Minute {
						t.Errorf("rounds that end in a fault at %v, want pauses that grow to five minutes", at)
					}
				}
				if since, err := rounds.Failing(); !errors.Is(err, lifecycle.ErrPanic) || !since.Equal(at[0]) || rounds.Faults() != 5 {
					t.Errorf("failing since %v, %v, %d faults, want 5 since %v", since, err, rounds.Faults(), at[0])
				}
				time.Sleep(20 * time.Minute)
				synctest.Wait()
				if _, err := rounds.Failing(); err != nil || good < 30 {
					t.Errorf("once the fault is gone: %v, %d good rounds in some 20 minutes", err, good)
				}
				if n := strings.Count(text.String(), "level=ERROR"); n != 1 {
					t.Errorf("the log has %d lines, want one:\n%s", n, &text)
				}
				cancel()
				if err := <-done; err != nil {
					t.Errorf("the worker ended with %v", err)
				}
			})
		})
	}
}

// TestWorkerWarnings: readers are told of a worker whose rounds have failed for a minute, and of one that works again no more.
func TestWorkerWarnings(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	a := &App{rolling: lifecycle.NewRounds("roll-ups", log), purging: lifecycle.NewRounds("purge", log)}
	_ = a.rolling.Do(func() error { panic("as a test wants") })
	_ = a.purging.Do(func() error { return errors.New("disk on fire") })
	soon, later := time.Now().Add(workerWait/2), time.Now().Add(2*workerWait)
	if got := a.workerWarnings(soon); len(got) != 0 {
		t.Errorf("at once: %q, want nothing", got)
	}
	got := a.workerWarnings(later)
	if len(got) != 2 || !strings.Contains(got[0], "roll-ups are not made") || !strings.Contains(got[0], "as a test wants") || !strings.Contains(got[1], "disk on fire") {
		t.Errorf("after two minutes: %q", got)
	}
	_ = a.rolling.Do(func() error { return nil })
	if got := a.workerWarnings(later); len(got) != 1 {
		t.Errorf("with one that works again: %q", got)
	}
}
