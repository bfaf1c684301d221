package app

import (
	"context"
	"log/slog"
	"time"
)

const (
	// prepareEvery is how often sums are made for the next questions: a span is needed a minute after the last bucket of it came.
	prepareEvery = time.Second
	// refreshEvery is how often it is looked which statistics there are. The query service uses what it knows for twice as long.
	refreshEvery = 5 * time.Second
)

const (
	// warmFor is how long it may take to make the sums of dashboards before anybody asks. What would take longer is left to the first question.
	warmFor = 10 * time.Second
	// warmEvery is how often that is done: sums are fed for two minutes after a question.
	warmEvery = time.Minute
)

// prepareAnswers makes ahead what the next questions will need, while somebody asks, until ctx ends. An error is told once, until both
// succeed again: a question meets it too, and tells who asks. warm is told whether it is called for
// the first time.
func prepareAnswers(ctx context.Context, warm func(ctx context.Context, first bool) error, refresh, prepare func(context.Context) error, log *slog.Logger) error {
	warmed := time.Now()
	doWarm := func(first bool) {
		short, cancel := context.WithTimeout(ctx, warmFor)
		defer cancel()
		_ = warm(short, first) // whoever asks meets the same error, and is told
	}
	doWarm(true)
	ticker := time.NewTicker(prepareEvery)
	defer ticker.Stop()
	failing, refreshed := false, time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-ticker.C:
			if now.Sub(warmed) >= warmEvery {
				warmed = now
				doWarm(false)
			}
			err := prepare(ctx)
			if err == nil && now.Sub(refreshed) >= refreshEvery {
				refreshed = now
				err = refresh(ctx)
			}
			if err != nil && ctx.Err() == nil && !failing {
				log.Error("preparing answers fails and is tried again", "every", prepareEvery, "err", err)
			}
			failing = err != nil
		}
	}
}
