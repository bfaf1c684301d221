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

// warmFor is how long it may take after a start to make the sums of a dashboard before anybody asks. What took longer than that is
// left to the first question.
const warmFor = 10 * time.Second

// prepareAnswers makes ahead what the next questions will need, while somebody asks, until ctx ends. An error is told once, until both
// succeed again: a question meets it too, and tells who asks. warm is called once, at the beginning.
func prepareAnswers(ctx context.Context, warm, refresh, prepare func(context.Context) error, log *slog.Logger) error {
	short, cancel := context.WithTimeout(ctx, warmFor)
	_ = warm(short) // whoever asks meets the same error, and is told
	cancel()
	ticker := time.NewTicker(prepareEvery)
	defer ticker.Stop()
	failing, refreshed := false, time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-ticker.C:
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
