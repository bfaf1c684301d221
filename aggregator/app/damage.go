package app

import (
	"context"
	"log/slog"
	"time"
)

const (
	// damageEvery is how often it is looked whether the store has met damage.
	damageEvery = 10 * time.Second
	// damageTold is the least time between two lines about it.
	damageTold = time.Hour
)

// tellDamage logs that stored values fail their checksums, whoever met them: a query, an append, or the roll-up worker. met
// counts them since the start. It works until ctx ends.
func tellDamage(ctx context.Context, met func() uint64, log *slog.Logger) error {
	return tellMore(ctx, met, func(more, all uint64) {
		log.Error("stored values fail their checksums: answers leave them out, and say so; httpctl-aggregator store check names them, and what to do",
			"times", more, "times_since_start", all)
	})
}

// tellFaults logs that sums were given up for faults of this program. met counts them, and has the newest with its stack. It works until ctx ends.
func tellFaults(ctx context.Context, met func() (uint64, string), log *slog.Logger) error {
	return tellMore(ctx, func() uint64 { n, _ := met(); return n }, func(more, all uint64) {
		_, newest := met()
		log.Error("sums that are kept for the next question were given up for a fault of this program: please report it, with this line; answers are right, and take longer",
			"times", more, "times_since_start", all, "panic", newest)
	})
}

// tellMore has tell say that there is more of what met counts: soon after it was met, and once an hour after that.
func tellMore(ctx context.Context, met func() uint64, tell func(more, all uint64)) error {
	var said uint64
	var at time.Time
	tick := time.NewTicker(damageEvery)
	defer tick.Stop()
	for {
		if n := met(); n > said && (at.IsZero() || time.Since(at) >= damageTold) {
			tell(n-said, n)
			said, at = n, time.Now()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
