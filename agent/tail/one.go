package tail

import (
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/httpctl/httpctl/pkg/exchange"
	"github.com/httpctl/httpctl/pkg/match"
)

// reportEvery is how often counts are told of which no exchange is shown.
const reportEvery = time.Second

// tail is one that is asked for.
type tail struct {
	want    Want
	owner   *Tailer
	cfg     Config // as it was when it began
	refused string // why nothing is shown
	filter  *match.Filter
	drops   uint64 // of the kernel, when it began

	mu         sync.Mutex // held by pipelines for some hundred instructions, and for the copies of a report
	counts     Counts
	rate       limiter
	ring       []exchange.Exchange // those that wait are the n from first on
	first, n   int
	told       bool // in a report; guarded by the owner's mu, as are the next two
	toldAt     time.Time
	toldCounts Counts
}

func (t *tail) perSecond() uint32 {
	if n := t.want.PerSecond; n > 0 && n < uint32(t.cfg.MaxPerSecond) {
		return n
	}
	return uint32(t.cfg.MaxPerSecond)
}

// take counts an exchange that matches, and keeps it if it is to be shown.
func (t *tail) take(o *exchange.Observation) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts.Matched++
	switch {
	case t.want.Sample > 1 && t.counts.Matched%uint64(t.want.Sample) != 1:
		t.counts.SampledOut++
	case t.n == len(t.ring):
		t.counts.Overflowed++
	case !t.rate.pass(o.Time) || !t.owner.all.pass(o.Time):
		t.counts.OverRate++
	default:
		x := &t.ring[(t.first+t.n)%len(t.ring)]
		*x = *o.Exchange
		t.n++
		t.cfg.redact(x)
	}
}

// redact takes away what is not shown, and bounds the rest.
func (c *Config) redact(x *exchange.Exchange) {
	x.Host = ""
	if x.Target = path(x.Method, x.Target, c.shows(FieldQuery)); !c.shows(FieldPath) {
		x.Target = ""
	}
	if !c.shows(FieldUserAgent) {
		x.UserAgent = ""
	}
	if !c.shows(FieldClient) {
		x.Client, x.ClientName = netip.AddrPort{}, "-"
	}
	for _, s := range [...]*string{&x.Method, &x.Domain, &x.Section, &x.Target, &x.UserAgent} {
		*s = exchange.Bound(*s, maxText)
	}
}

// path is the path of a request target, with or without its query: of the absolute form what follows the
// authority, of CONNECT nothing. A fragment, which no client should send, goes with the query.
func path(method, target string, query bool) string {
	if method == "CONNECT" {
		return ""
	}
	if !strings.HasPrefix(target, "/") && target != "*" {
		if scheme, rest, ok := strings.Cut(target, "://"); ok && !strings.ContainsAny(scheme, "/?#") { // else it is in the query
			if i := strings.IndexAny(rest, "/?#"); i >= 0 {
				target = rest[i:]
			} else {
				target = "/"
			}
		}
	}
	if i := strings.IndexAny(target, "?#"); i >= 0 && !query {
		target = target[:i]
	}
	return target
}

// report returns what is to be told at now, if anything is.
func (t *tail) report(now time.Time) (Report, bool) {
	r := Report{ID: t.want.ID, Refused: t.refused}
	if t.refused != "" {
		first := !t.told
		t.told = true
		return r, first
	}
	drops := uint64(0)
	if t.owner.deps.Drops != nil {
		drops = t.owner.deps.Drops() - t.drops
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts.KernelDrops = drops
	if t.n == 0 && t.told && (t.counts == t.toldCounts || now.Sub(t.toldAt) < reportEvery) {
		return r, false
	}
	n := min(t.n, batch)
	r.Exchanges = make([]exchange.Exchange, n)
	for i := range r.Exchanges {
		k := (t.first + i) % len(t.ring)
		r.Exchanges[i], t.ring[k] = t.ring[k], exchange.Exchange{} // keep no string alive
	}
	t.first, t.n = (t.first+n)%len(t.ring), t.n-n
	r.Counts = t.counts
	o := t.owner
	o.shown.Add(float64(n))
	o.sampledOut.Add(float64(t.counts.SampledOut - t.toldCounts.SampledOut))
	o.overRate.Add(float64(t.counts.OverRate - t.toldCounts.OverRate))
	o.overflowed.Add(float64(t.counts.Overflowed - t.toldCounts.Overflowed))
	t.told, t.toldAt, t.toldCounts = true, now, t.counts
	return r, true
}

// counted returns the counts as they are.
func (t *tail) counted() Counts {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.counts
}

// limiter lets so many pass each second of the packets' clock, and as many at once after a second without any: the generic cell rate
// algorithm. It is safe for concurrent use.
type limiter struct {
	mu    sync.Mutex
	each  int64 // nanoseconds
	until int64 // when what has passed would be over at an even pace
}

func (l *limiter) set(perSecond uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.each = int64(time.Second) / int64(max(perSecond, 1))
}

// pass reports whether one more may pass at now, nanoseconds since the epoch. Pipelines are not at the same time, and the clock may be set
// back: more than two seconds are another time.
func (l *limiter) pass(now int64) bool {
	const burst = int64(time.Second)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.until < now || l.until-now > 2*burst {
		l.until = now
	}
	if l.until+l.each-now > burst {
		return false
	}
	l.until += l.each
	return true
}
