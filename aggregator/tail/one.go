package tail

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"github.com/httpctl/httpctl/pkg/bucket"
	httpctlv1 "github.com/httpctl/httpctl/proto/httpctl/v1"
)

// tail is one reader's.
type tail struct {
	id        uint64
	who       string
	since     time.Time
	hosts     []string // names and ids; none is all
	limit     uint64   // of exchanges; 0 is none
	duration  time.Duration
	perSecond uint32
	asked     *httpctlv1.Tail
	results   map[string]prometheus.Counter
	wake      chan struct{} // the sender has something to do

	mu       sync.Mutex
	from     map[bucket.ID]*host
	queue    []*httpctlv1.Sample // queueLength at most
	second   int64               // of the clock, and how many came in it
	inSecond uint32
	summary  httpctlv1.TailSummary // but for what follows from hosts
	why      string                // why it ends; "" while it goes on
}

// host is one that the tail is asked of.
type host struct {
	name     string
	stream   uint64 // on which it counts
	answered bool
	counts   *httpctlv1.TailCounts // on that stream
	before   httpctlv1.TailCounts  // on those before
	away     bool
	missed   bool // it is counted as missing
}

// most bounds a count of a host, so that no sum of them wraps.
const most = 1 << 48

// ask notes that a host is asked.
func (t *tail) ask(id bucket.ID, name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.from[id] == nil {
		t.from[id] = &host{name: name, counts: &httpctlv1.TailCounts{}}
	}
}

// take takes what a host sent, and reports whether it was asked.
func (t *tail) take(id bucket.ID, stream uint64, m *httpctlv1.Samples) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.from[id]
	if h == nil || t.why != "" {
		return false
	}
	if h.stream != stream {
		add(&h.before, h.counts)
		h.stream, h.away = stream, false
	}
	if !h.answered {
		h.answered = true
		t.summary.HostsAnswering++
		if m.GetRefused() != "" {
			t.missAsked(h, m.GetRefused())
			t.summary.HostsAnswering--
		}
	}
	h.counts = m.GetCounts()
	if now := time.Now().Unix(); now != t.second {
		t.second, t.inSecond = now, 0
	}
	for _, x := range m.GetSamples() {
		switch {
		case t.inSecond >= t.perSecond:
			t.summary.OverTotalRate++
			t.results[resultOverRate].Inc()
		case len(t.queue) >= queueLength:
			t.summary.SlowReader++
			t.results[resultSlow].Inc()
		default:
			t.inSecond++
			x.Host, x.HostId = h.name, id.String()
			t.queue = append(t.queue, x)
		}
	}
	if len(t.queue) > 0 {
		t.notify()
	}
	return true
}

func (t *tail) notify() {
	select {
	case t.wake <- struct{}{}:
	default: // the sender is awake already
	}
}

// gone notes that a host's stream has ended.
func (t *tail) gone(id bucket.ID, stream uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if h := t.from[id]; h != nil && h.answered && h.stream == stream && !h.away {
		h.away = true
		t.missAsked(h, "its connection was interrupted: what passed meanwhile is not shown and not counted")
	}
}

// missAsked notes that a host which was asked is missing, once, however often it comes and goes. The caller holds mu.
func (t *tail) missAsked(h *host, reason string) {
	if !h.missed {
		h.missed = true
		t.miss(h.name, reason)
	}
}

// miss notes that a host is missing. The caller holds mu, or nobody else has t.
func (t *tail) miss(name, reason string) {
	if slices.ContainsFunc(t.summary.Missing, func(m *httpctlv1.TailMissing) bool { return m.GetHost() == name && m.GetReason() == reason }) {
		return
	}
	if t.summary.MissingCount++; len(t.summary.Missing) < maxMissing {
		t.summary.Missing = append(t.summary.Missing, &httpctlv1.TailMissing{Host: name, Reason: reason})
	}
}

func (t *tail) names() (names []string) {
	for _, m := range t.summary.Missing {
		names = append(names, m.GetHost())
	}
	return names
}

// finish has the sender send what waits, and end.
func (t *tail) finish(why string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.why == "" {
		t.why = why
	}
	t.notify()
}

// ended says why the tail ends, "" if it does not.
func (t *tail) ended() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.why
}

// now returns the summary as it is.
func (t *tail) now() *httpctlv1.TailSummary {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sum()
}

// sum adds up what the hosts count. The caller holds mu.
func (t *tail) sum() *httpctlv1.TailSummary {
	m := proto.CloneOf(&t.summary)
	m.Counts = &httpctlv1.TailCounts{}
	for _, h := range t.from {
		add(m.Counts, &h.before)
		add(m.Counts, h.counts)
	}
	m.HostsAsked = max(m.HostsAsked, uint32(len(t.from)))
	return m
}

func add(to, c *httpctlv1.TailCounts) {
	to.Matched += min(c.GetMatched(), most)
	to.SampledOut += min(c.GetSampledOut(), most)
	to.OverRate += min(c.GetOverRate(), most)
	to.Overflowed += min(c.GetOverflowed(), most)
	to.KernelDrops += min(c.GetKernelDrops(), most)
}

// next takes the next message to send; nil if there is nothing. With always, a summary without exchanges is sent if it has changed since
// told. last reports that nothing follows.
func (t *tail) next(always bool, told *httpctlv1.TailSummary) (m *httpctlv1.TailResponse, last bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := min(len(t.queue), batch)
	if left := t.limit - t.summary.Shown; t.limit > 0 && uint64(n) >= left {
		n = int(left)
		t.queue = t.queue[:n]
		t.why = limitReached(t.limit)
	}
	m = &httpctlv1.TailResponse{Samples: t.queue[:n:n]}
	if t.queue = t.queue[n:]; len(t.queue) == 0 {
		t.queue = nil // or what was sent would stay
	}
	t.summary.Shown += uint64(n)
	t.results[resultShown].Add(float64(n))
	last = t.why != "" && len(t.queue) == 0
	if n == 0 && !last && !always {
		return nil, false
	}
	if m.Summary = t.sum(); last {
		m.Summary.End = t.why
	} else if n == 0 && proto.Equal(m.Summary, told) {
		return nil, false
	}
	return m, last
}

// send sends what there is until the tail ends.
func (t *tail) send(ctx context.Context, send func(*httpctlv1.TailResponse) error) error {
	tick := time.NewTicker(summaryEvery)
	defer tick.Stop()
	var told *httpctlv1.TailSummary
	for always := true; ; {
		m, last := t.next(always, told)
		always = false
		if m != nil {
			// The hosts that are missing go with it when there are others.
			changed := told.GetMissingCount() != m.Summary.GetMissingCount()
			if told = m.Summary; !changed {
				m = &httpctlv1.TailResponse{Samples: m.Samples, Summary: proto.CloneOf(told)}
				m.Summary.Missing = nil
			}
			if err := send(m); err != nil {
				return err
			}
			if last {
				return nil
			}
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.wake:
		case <-tick.C:
			always = true
		}
	}
}
