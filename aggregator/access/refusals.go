package access

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// The reasons of refusals, as labels.
const (
	unknownMethod = "unknown_method"
	noRole        = "no_role"
	lacksRole     = "role"
	noTokenShown  = "no_token"
	badToken      = "token"
	tooBusy       = "busy"
)

type metrics struct {
	refused *prometheus.CounterVec
	faults  prometheus.Counter
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "httpctl", Subsystem: "access", Name: "refused_calls_total",
			Help: "Calls refused because of who called, or how many calls of theirs are under way, by reason."}, []string{"reason"}),
		faults: prometheus.NewCounter(prometheus.CounterOpts{Namespace: "httpctl", Subsystem: "access", Name: "faults_total",
			Help: "Calls that ended in a fault of this program, which is in its log."}),
	}
	for _, reason := range []string{unknownMethod, noRole, lacksRole, noTokenShown, badToken, tooBusy} {
		m.refused.WithLabelValues(reason) // shown from the start, as 0
	}
	if r != nil {
		r.MustRegister(m.refused, m.faults)
	}
	return m
}

const (
	// logAgain is when the same refusal is logged again.
	logAgain = time.Hour
	// logBurst and logEvery bound the lines about different ones: so many at once, then one each.
	logBurst = 30
	logEvery = 10 * time.Second
	// maxKinds bounds what is remembered of refusals.
	maxKinds = 1024
)

// refusals decides which refusals are logged: each kind once an hour, and all of them at a bounded rate. The zero
// value is ready.
type refusals struct {
	mu     sync.Mutex
	logged map[string]time.Time
	free   time.Time // the burst is whole again from then on
	held   uint64
}

// pass reports whether to log a refusal of a kind now, and how many were held back since the line before.
func (l *refusals) pass(now time.Time, kind string) (held uint64, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	last, known := l.logged[kind]
	busy := max(l.free.Sub(now), 0)
	if known && now.Sub(last) < logAgain || busy > (logBurst-1)*logEvery {
		l.held++
		return 0, false
	}
	if len(l.logged) >= maxKinds && !known {
		clear(l.logged)
	}
	if l.logged == nil {
		l.logged = map[string]time.Time{}
	}
	l.logged[kind] = now
	l.free = now.Add(busy + logEvery)
	held, l.held = l.held, 0
	return held, true
}
