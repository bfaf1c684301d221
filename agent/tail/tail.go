package tail

import (
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/httpctl/httpctl/pkg/exchange"
	"github.com/httpctl/httpctl/pkg/match"
	"github.com/httpctl/httpctl/pkg/security"
)

// Want is a tail that the aggregator asks for.
type Want struct {
	ID         uint64
	Columns    []match.Column
	SlowerThan time.Duration
	// Sample shows one in so many that match; 0 and 1 are all.
	Sample uint32
	// PerSecond bounds what is shown; 0 is MaxPerSecond.
	PerSecond uint32
	// Who asked, and when; for the log.
	Who   string
	Since time.Time
}

// Counts is what became of the exchanges that match, since the tail was set.
type Counts struct {
	Matched    uint64
	SampledOut uint64 // left out by sampling
	OverRate   uint64 // beyond the tail's bound, or that of all
	Overflowed uint64 // too many waited for the uplink
	// KernelDrops are packets that the kernel dropped meanwhile; what was in them is not known.
	KernelDrops uint64
}

// Report is what is to be told of one tail.
type Report struct {
	ID uint64
	// Exchanges are what is shown, without what is not to be. They belong to the caller.
	Exchanges []exchange.Exchange
	// Counts have the exchanges of this report and of those before, and what waits for the next.
	Counts Counts
	// Refused says why nothing is shown; "" if something is.
	Refused string
}

// Deps are what a Tailer needs from outside. All may be nil.
type Deps struct {
	// Drops returns how many packets the kernel had no room for since the start. It must not block.
	Drops    func() uint64
	Log      *slog.Logger
	Registry prometheus.Registerer
}

// Tailer keeps the tails of an agent. It is safe for concurrent use.
type Tailer struct {
	deps Deps
	log  *slog.Logger
	all  limiter // of all tails
	shown,
	sampledOut, overRate, overflowed prometheus.Counter

	// plan is nil while nobody tails, which is what every exchange looks at.
	plan atomic.Pointer[[]*tail]

	mu    sync.Mutex
	cfg   Config
	tails []*tail // those refused, too
	turn  int     // of whom Next asks first
}

// New returns a Tailer without tails. cfg must be valid.
func New(cfg Config, d Deps) *Tailer {
	t := &Tailer{deps: d, log: d.Log, cfg: cfg}
	if t.log == nil {
		t.log = slog.New(slog.DiscardHandler)
	}
	t.all.set(uint32(cfg.MaxPerSecond))
	result := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "httpctl", Subsystem: "tail", Name: "exchanges_total",
		Help: "Exchanges that matched a tail, by what became of them: shown is on its way to the aggregator."}, []string{"result"})
	t.shown, t.sampledOut = result.WithLabelValues("shown"), result.WithLabelValues("sampled_out")
	t.overRate, t.overflowed = result.WithLabelValues("over_rate"), result.WithLabelValues("overflowed")
	if d.Registry != nil {
		d.Registry.MustRegister(result, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "httpctl", Subsystem: "tail", Name: "tails",
			Help: "Tails that the agent shows exchanges to."}, func() float64 { return float64(t.running()) }))
	}
	return t
}

func (t *Tailer) running() int {
	if plan := t.plan.Load(); plan != nil {
		return len(*plan)
	}
	return 0
}

// Allowed reports whether tails are let see anything.
func (t *Tailer) Allowed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.cfg.Allow
}

// Configure changes the settings, which must be valid. Tails end; the caller has the agent introduce itself again, after which they are
// asked for anew. It reports whether anything has changed.
func (t *Tailer) Configure(cfg Config) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.cfg.Allow == cfg.Allow && t.cfg.MaxPerSecond == cfg.MaxPerSecond && slices.Equal(t.cfg.Fields, cfg.Fields) {
		return false
	}
	t.set(nil, "the settings have changed")
	t.cfg = cfg
	t.all.set(uint32(cfg.MaxPerSecond))
	return true
}

// Set makes wants all the tails there are: those that are there already go on, the others end. why says it of those in the log.
func (t *Tailer) Set(wants []Want, why string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.set(wants, why)
}

func (t *Tailer) set(wants []Want, why string) {
	var tails, plan []*tail
	for _, w := range wants {
		i := slices.IndexFunc(t.tails, func(o *tail) bool { return o.want.ID == w.ID })
		if slices.ContainsFunc(tails, func(o *tail) bool { return o.want.ID == w.ID }) {
			continue
		}
		one := (*tail)(nil)
		if i >= 0 {
			one = t.tails[i]
		} else if len(tails) >= 2*maxTails {
			continue // nothing that asks for so many is to be answered
		} else {
			one = t.begin(w, len(plan))
		}
		tails = append(tails, one)
		if one.refused == "" {
			plan = append(plan, one)
		}
	}
	for _, one := range t.tails {
		if !slices.Contains(tails, one) && one.refused == "" {
			c := one.counted()
			t.log.Info("a tail of live exchanges has ended", "who", forLog(one.want.Who), "tail", one.want.ID, "reason", why,
				"matched", c.Matched, "shown", c.Matched-c.SampledOut-c.OverRate-c.Overflowed)
		}
	}
	if t.tails = tails; len(plan) == 0 {
		t.plan.Store(nil)
		return
	}
	t.plan.Store(&plan)
}

// begin makes a tail, beside so many that run. The caller holds mu.
func (t *Tailer) begin(w Want, running int) *tail {
	one := &tail{want: w, owner: t, cfg: t.cfg}
	filter, err := match.New(w.Columns, w.SlowerThan)
	switch {
	case !t.cfg.Allow:
		one.refused = "its agent does not allow it (agent.tail.allow)"
	case running >= maxTails:
		one.refused = fmt.Sprintf("its agent has %d tails, the most that there may be", maxTails)
	case err != nil:
		one.refused = err.Error()
	case filter.NeedsUserAgent() && !t.cfg.shows(FieldUserAgent):
		one.refused = "its agent does not show user agents (agent.tail.fields)"
	}
	who := []any{"who", forLog(w.Who), "tail", w.ID, "since", w.Since.UTC().Format(time.RFC3339), "filter", forLog(match.Text(w.Columns, w.SlowerThan))}
	if one.refused != "" {
		t.log.Warn("a tail of live exchanges is refused", append(who, "reason", one.refused)...)
		return one
	}
	t.log.Info("live exchanges are shown to a tail", append(who, "sample", max(w.Sample, 1), "per_second", one.perSecond())...)
	one.filter, one.ring = filter, make([]exchange.Exchange, waiting)
	one.rate.set(one.perSecond())
	if t.deps.Drops != nil {
		one.drops = t.deps.Drops()
	}
	return one
}

// forLog is what the aggregator says, as a log may have it.
func forLog(s string) string { return security.CleanText(exchange.Bound(s, 512)) }

// Next returns the next report, or ok false if there is none at now: exchanges as soon as there are any, and counts alone
// at first and once a second if they have changed.
func (t *Tailer) Next(now time.Time) (r Report, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for range t.tails {
		t.turn = (t.turn + 1) % len(t.tails)
		if r, ok = t.tails[t.turn].report(now); ok {
			return r, true
		}
	}
	return Report{}, false
}

// Tap returns a sink that hands everything on to next, and lets tails see what has ended. It is as safe for concurrent use as next is.
func (t *Tailer) Tap(next exchange.Sink) exchange.Sink { return &tap{t, next} }

type tap struct {
	owner *Tailer
	next  exchange.Sink
}

func (t *tap) Observe(o *exchange.Observation) {
	t.next.Observe(o)
	if o.Event != exchange.Outcome {
		return
	}
	plan := t.owner.plan.Load()
	if plan == nil {
		return
	}
	for _, one := range *plan {
		if one.filter.Match(o.Exchange) {
			one.take(o)
		}
	}
}
