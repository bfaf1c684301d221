package ingest

import (
	"sync"
	"time"
)

// limiter lets one of a kind of log lines through every logEvery. The zero value is ready; it is
// safe for concurrent use.
type limiter struct {
	mu     sync.Mutex
	logged time.Time
	held   uint64
}

// pass reports whether to log now, and how many were held back since the one before.
func (l *limiter) pass(now time.Time) (held uint64, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.logged.IsZero() && now.Sub(l.logged) < logEvery {
		l.held++
		return 0, false
	}
	held, l.held, l.logged = l.held, 0, now
	return held, true
}
