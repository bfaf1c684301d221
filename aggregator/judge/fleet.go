package judge

import (
	"context"
	"fmt"
	"time"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/pkg/bucket"
)

// Health says how current a host is.
type Health uint8

// The healths of DESIGN section 7.
const (
	Reporting Health = iota
	Late             // no progress of its coverage for three widths
	Gone             // none for host_gone_after: no longer waited for
)

// String returns "reporting", "late" or "gone".
func (h Health) String() string { return [...]string{"reporting", "late", "gone"}[min(h, Gone)] }

// progress is when a host's coverage last moved, by the aggregator's clock.
type progress struct {
	covered int64
	at      time.Time
}

// fleet is what a pass knows of the hosts.
type fleet struct {
	now    time.Time
	hosts  []member
	newest int64 // the newest coverage of hosts whose clock is not ahead; 0 if none
	// plan restricts queries to the hosts that count; nil is all of them.
	plan    []bucket.ID
	counted int
}

type member struct {
	store.Host
	live    bool // waited for
	ignored bool // its clock is ahead and running: neither waited for nor counted
}

// census reads the hosts and notes their progress.
func (j *Judge) census(ctx context.Context) (fleet, error) {
	hosts, err := j.st.Hosts(ctx)
	if err != nil {
		return fleet{}, fmt.Errorf("read hosts: %w", err)
	}
	f := fleet{now: j.clock()}
	ahead := f.now.Add(maxAhead).UnixNano()
	for i := range hosts {
		h := &hosts[i]
		h.CoveredThrough = h.Covered(f.now.UnixNano())
		if h.CoveredThrough <= ahead {
			f.newest = max(f.newest, h.CoveredThrough)
		}
	}
	known := j.note(hosts, &f)
	for _, h := range hosts {
		m := member{Host: h}
		gone := j.health(known[h.ID], f.now) == Gone
		skewed := h.CoveredThrough > ahead
		m.ignored = skewed && !gone
		m.live = !skewed && !gone
		f.hosts = append(f.hosts, m)
		if !m.ignored {
			f.plan = append(f.plan, h.ID)
			f.counted++
		}
	}
	if f.counted == len(hosts) {
		f.plan = nil
	}
	return f, nil
}

// note notes the progress of the hosts, and returns it.
func (j *Judge) note(hosts []store.Host, f *fleet) map[bucket.ID]progress {
	j.mu.Lock()
	defer j.mu.Unlock()
	first := !j.surveyed
	j.surveyed = true
	known := make(map[bucket.ID]progress, len(hosts))
	for _, h := range hosts {
		p, ok := j.progress[h.ID]
		switch {
		case ok && p.covered == h.CoveredThrough:
		case first && h.CoveredThrough < f.newest:
			// Found at the start: it has been silent for as long as it is behind
			// the others, so what was gone stays gone.
			p = progress{h.CoveredThrough, f.now.Add(-time.Duration(f.newest - h.CoveredThrough))}
		default:
			p = progress{h.CoveredThrough, f.now}
		}
		known[h.ID] = p
	}
	j.progress = known
	return known
}

func (j *Judge) health(p progress, now time.Time) Health {
	switch silence := now.Sub(p.at); {
	case silence >= j.cfg.HostGoneAfter:
		return Gone
	case silence >= lateWidths*j.cfg.DashboardBucketSize:
		return Late
	}
	return Reporting
}

// Health tells the health of each of the hosts, by when its coverage last made
// progress. A host not seen by a pass yet is reporting.
func (j *Judge) Health(hosts []store.Host) []Health {
	now := j.clock()
	out := make([]Health, len(hosts))
	j.mu.RLock()
	defer j.mu.RUnlock()
	for i, h := range hosts {
		if p, ok := j.progress[h.ID]; ok && p.covered == h.Covered(now.UnixNano()) {
			out[i] = j.health(p, now)
		}
	}
	return out
}

// waiting lists the live hosts whose coverage does not contain what ends at t. some is
// false when no live host has anything to say about it.
func (f *fleet) waiting(t int64) (missing []bucket.ID, some bool) {
	for _, h := range f.hosts {
		if !h.live || h.FirstStart >= t {
			continue
		}
		some = true
		if h.CoveredThrough < t {
			missing = append(missing, h.ID)
		}
	}
	sortIDs(missing)
	return missing, some
}

// ready reports whether what ends at t is to be judged now.
func (j *Judge) ready(f *fleet, t int64) bool {
	if t > f.now.Add(maxAhead).UnixNano() {
		return false
	}
	if missing, some := f.waiting(t); some && len(missing) == 0 {
		return true
	}
	return f.now.UnixNano() >= max(t, j.started.UnixNano())+j.grace()
}

// held reports whether what ends at t, and nobody covered, may still arrive.
func (f *fleet) held(t int64) bool {
	missing, _ := f.waiting(t)
	return len(missing) > 0 && f.newest <= t
}

func (j *Judge) grace() int64 { return graceWidths * int64(j.cfg.DashboardBucketSize) }

// eventTime is the time up to which everything is known or was given up: the
// least coverage of the live hosts, and at least two widths ago.
func (j *Judge) eventTime(f fleet) int64 {
	t := int64(0)
	for _, h := range f.hosts {
		if h.live && (t == 0 || h.CoveredThrough < t) {
			t = h.CoveredThrough
		}
	}
	if now := f.now.UnixNano(); now >= j.started.UnixNano()+j.grace() {
		t = max(t, now-j.grace())
	}
	return max(t, j.state.Through)
}
