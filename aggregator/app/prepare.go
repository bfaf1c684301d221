package app

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/httpctl/httpctl/pkg/lifecycle"
)

const (
	// prepareEvery is how often sums are made for the next questions: a span is needed a minute after the last bucket of it came. prepareRest
	// is how much longer than making them the pause after it is at least: at most a fifth of a core goes to it.
	prepareEvery = time.Second
	prepareRest  = 4
	// refreshEvery is how often it is looked which statistics there are. The query service uses what it knows for twice as long.
	refreshEvery = 5 * time.Second
	// warmFor is how long it may take to make the sums of dashboards before anybody asks. What would take longer is left to the first question.
	warmFor = 10 * time.Second
	// warmEvery is how often that is done: sums are fed for two minutes after a question. warmRest is as prepareRest: of a time without
	// roll-ups sums take seconds, and go before they are used again.
	warmEvery = time.Minute
	warmRest  = 60
)

// prepareAnswers makes ahead what the next questions will need, while somebody asks, until ctx ends. An error of either is told once, until
// it succeeds again: a question meets it too, and tells who asks. warm is told whether it is called for
// the first time.
func prepareAnswers(ctx context.Context, warm func(ctx context.Context, first bool) error, refresh, prepare func(context.Context) error, log *slog.Logger) error {
	var warmAt time.Time
	warming := failing{log: log}
	doWarm := func(first bool) {
		short, cancel := context.WithTimeout(ctx, warmFor)
		defer cancel()
		begin := time.Now()
		err := lifecycle.Guard(func() error { return warm(short, first) })
		if !errors.Is(err, lifecycle.ErrPanic) {
			err = nil // whoever asks meets the same error, and is told
		}
		warming.tell(ctx, err, warmEvery)
		warmAt = time.Now().Add(max(warmEvery, warmRest*time.Since(begin)))
	}
	doWarm(true)
	preparing, refreshing := failing{log: log}, failing{log: log}
	refreshAt := time.Now().Add(refreshEvery)
	rest := prepareEvery
	for {
		pause := time.NewTimer(rest)
		select {
		case <-ctx.Done():
			pause.Stop()
			return nil
		case <-pause.C:
		}
		if !time.Now().Before(warmAt) {
			doWarm(false)
		}
		begin := time.Now()
		err := lifecycle.Guard(func() error { return prepare(ctx) })
		preparing.tell(ctx, err, prepareEvery)
		if err == nil && !begin.Before(refreshAt) {
			refreshAt = begin.Add(refreshEvery)
			refreshing.tell(ctx, lifecycle.Guard(func() error { return refresh(ctx) }), refreshEvery)
		}
		rest = max(prepareEvery, prepareRest*time.Since(begin))
	}
}

// failing is whether the last try of something failed.
type failing struct {
	log *slog.Logger
	is  bool
}

// tell logs the first failure of several.
func (f *failing) tell(ctx context.Context, err error, every time.Duration) {
	if err != nil && ctx.Err() == nil && !f.is {
		f.log.Error("preparing answers fails and is tried again", "every", every, "err", err)
	}
	f.is = err != nil
}
