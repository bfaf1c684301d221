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
	var said uint64
	var at time.Time
	tick := time.NewTicker(damageEvery)
	defer tick.Stop()
	for {
		if n := met(); n > said && (at.IsZero() || time.Since(at) >= damageTold) {
			log.Error("stored values fail their checksums: answers leave them out, and say so; httpctl-aggregator store check names them, and what to do",
				"times", n-said, "times_since_start", n)
			said, at = n, time.Now()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
