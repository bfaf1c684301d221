package export

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/exchange"
)

// Accumulator adds up digests. It is safe for concurrent use.
type Accumulator struct {
	cfg   Config
	start time.Time

	mu     sync.RWMutex
	places map[string]*place // domains
	hosts  map[bucket.ID]*host
	rest   *host // what has no place among the hosts
	rows   int
	stats  Stats
	newest time.Time // when something was added
	// When a place may be free at the earliest, as far as is known, and the domains that were idle when it was last looked for one, those that
	// were idle the longest last: looking for one takes time.
	freeDomain, freeHost time.Time
	idle                 []*place
}

// Stats are what an Accumulator says of itself.
type Stats struct {
	Buckets              uint64 // added up
	Domains, Hosts, Rows int    // that have a place
	// What counted under Other for want of a place: domains and hosts, once for each bucket, and rows.
	FoldedDomains, FoldedHosts, FoldedRows uint64
	// Ended counts the domains and hosts whose place was given to others.
	Ended uint64
}

// place is that of a domain.
type place struct {
	domain string
	last   time.Time          // when something was counted there
	on     map[*host]struct{} // where it has groups
}

// host is what was counted on one host, or on all that have no place.
type host struct {
	id         bucket.ID
	name       string
	named      time.Time // when it had the first of its last names, of which there were so many
	names      int
	created    time.Time
	last       time.Time
	newest     int64 // start of the newest bucket
	open       uint64
	losses     exchange.Counters
	unobserved uint64 // nanoseconds
	buckets    uint64
	traffic
}

func newHost(id bucket.ID, now time.Time) *host {
	return &host{id: id, created: now, traffic: traffic{groups: map[groupKey]*group{}, methods: map[methodKey]*tally{}, bodies: map[side]*body{}}}
}

// New returns an Accumulator that counts from now on. cfg must be valid.
func New(cfg Config, now time.Time) *Accumulator {
	return &Accumulator{cfg: cfg, start: now, places: map[string]*place{}, hosts: map[bucket.ID]*host{}, rest: newHost(bucket.ID{}, now)}
}

// Add counts the digests of buckets that the store has newly taken, and takes their memory. What is counted later never begins earlier,
// whoever asked the clock first.
func (a *Accumulator) Add(now time.Time, digests ...*Digest) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !now.After(a.newest) {
		now = a.newest.Add(1)
	}
	a.newest = now
	for _, d := range digests {
		a.add(now, d)
	}
}

// Stats returns what a says of itself.
func (a *Accumulator) Stats() Stats {
	a.mu.RLock()
	defer a.mu.RUnlock()
	s := a.stats
	s.Domains, s.Hosts, s.Rows = len(a.places), len(a.hosts), a.rows
	return s
}

func (a *Accumulator) add(now time.Time, d *Digest) {
	a.stats.Buckets++
	h := a.host(now, d)
	h.last = now
	h.buckets++
	h.losses.Add(&d.counters)
	h.unobserved = plus(h.unobserved, d.unobserved)
	if d.start >= h.newest {
		h.newest, h.open = d.start, d.open
	}
	// The busiest first, as places may be few.
	for _, k := range sorted(d.groups, func(x, y groupKey) int {
		return cmp.Or(cmp.Compare(d.groups[y].requests, d.groups[x].requests), x.compare(y.side), strings.Compare(x.domain, y.domain))
	}) {
		a.addGroup(now, h, k, d.groups[k])
	}
	for k, t := range d.methods {
		to := h
		if to.methods[k] == nil && !a.room(1) {
			to = a.others(now)
		}
		m := to.methods[k]
		if m == nil {
			m = &tally{created: now}
			to.methods[k] = m
			a.rows++
		}
		m.n = plus(m.n, t.n)
	}
	for s, b := range d.bodies {
		if h.bodies[s] == nil {
			h.bodies[s] = &body{created: now}
		}
		to := h.bodies[s]
		to.request, to.response = plus(to.request, b.request), plus(to.response, b.response)
	}
}

// others returns where what has no room counts, which begins with what is first counted there: its 0 is told, as that of any series.
func (a *Accumulator) others(now time.Time) *host {
	if a.cfg.MaxHosts > 0 && !a.rest.used() {
		a.rest.created = now
	}
	return a.rest
}

// used reports whether anything was counted for the host.
func (h *host) used() bool { return h.buckets > 0 || len(h.groups) > 0 || len(h.methods) > 0 }

// host returns where the bucket of a host counts.
func (a *Accumulator) host(now time.Time, d *Digest) *host {
	if a.cfg.MaxHosts == 0 {
		return a.rest
	}
	h := a.hosts[d.host]
	if h == nil {
		if len(a.hosts) >= a.cfg.MaxHosts && !a.endHost(now) {
			a.stats.FoldedHosts++
			return a.others(now)
		}
		h = newHost(d.host, now)
		h.name, h.named, h.names = d.name, now, 1
		a.hosts[d.host] = h
	}
	if d.name != h.name && d.name != "" && d.start >= h.newest {
		h = a.rename(now, h, d.name)
	}
	return h
}

// rename ends the series of a host and begins those under its new name, unless it had too many names lately.
func (a *Accumulator) rename(now time.Time, h *host, name string) *host {
	named, names := h.named, h.names
	if !now.Before(named.Add(idleAfter)) {
		named, names = now, 0
	}
	if names > maxRenames {
		return h
	}
	a.forget(h)
	to := newHost(h.id, now)
	to.name, to.named, to.names = name, named, names+1
	a.hosts[h.id] = to
	return to
}

// forget takes the rows of a host away.
func (a *Accumulator) forget(h *host) {
	for k, g := range h.groups {
		a.rows -= rowsOf(g)
		if p := a.places[k.domain]; p != nil {
			delete(p.on, h)
		}
	}
	a.rows -= len(h.methods)
	delete(a.hosts, h.id)
}

// endHost gives the place up of the host that was idle the longest, if that is long enough.
func (a *Accumulator) endHost(now time.Time) bool {
	if now.Before(a.freeHost) {
		return false
	}
	var oldest *host
	for _, h := range a.hosts {
		if oldest == nil || h.last.Before(oldest.last) {
			oldest = h
		}
	}
	if a.freeHost = oldest.last.Add(idleAfter); now.Before(a.freeHost) {
		return false
	}
	a.forget(oldest)
	a.stats.Ended++
	return true
}

// hasPlace reports whether a domain has a place of its own, and gives it one if there is one.
func (a *Accumulator) hasPlace(now time.Time, domain string) bool {
	if domain == Other || domain == "" {
		return true
	}
	p := a.places[domain]
	if p == nil {
		if len(a.places) >= a.cfg.MaxDomains && !a.endDomain(now) {
			a.stats.FoldedDomains++
			return false
		}
		p = &place{domain: domain, on: map[*host]struct{}{}}
		a.places[domain] = p
	}
	p.last = now
	return true
}

// endDomain gives the place up of the domain that was idle the longest, if that is long enough.
func (a *Accumulator) endDomain(now time.Time) bool {
	oldest := a.idleDomain(now)
	if oldest == nil {
		return false
	}
	for h := range oldest.on {
		for _, s := range sides {
			k := groupKey{s, oldest.domain}
			if g := h.groups[k]; g != nil {
				a.rows -= rowsOf(g)
				delete(h.groups, k)
			}
		}
	}
	delete(a.places, oldest.domain)
	a.stats.Ended++
	return true
}

// idleDomain returns the place of the domain that was idle the longest, if that is long enough.
func (a *Accumulator) idleDomain(now time.Time) *place {
	isIdle := func(p *place) bool { return !now.Before(p.last.Add(idleAfter)) }
	for {
		for len(a.idle) > 0 {
			p := a.idle[len(a.idle)-1]
			a.idle[len(a.idle)-1] = nil
			a.idle = a.idle[:len(a.idle)-1]
			if isIdle(p) {
				return p
			}
		}
		if now.Before(a.freeDomain) {
			return nil
		}
		first := now
		for _, p := range a.places {
			if isIdle(p) {
				a.idle = append(a.idle, p)
			} else if p.last.Before(first) {
				first = p.last
			}
		}
		slices.SortFunc(a.idle, func(x, y *place) int { return cmp.Or(y.last.Compare(x.last), strings.Compare(y.domain, x.domain)) })
		if len(a.idle) == 0 {
			a.freeDomain = first.Add(idleAfter)
			return nil
		}
	}
}

// rowsOf is what a group and its answers count for. One more is kept for the answer that takes those without a place.
func rowsOf(g *group) int {
	n := 2 + len(g.answers)
	if g.answers[answer{Other, Other}] != nil {
		n--
	}
	return n
}

// room reports whether n more rows may be, and counts it if they may not.
func (a *Accumulator) room(n int) bool {
	if a.rows+n <= a.cfg.MaxRows {
		return true
	}
	a.stats.FoldedRows++
	return false
}

func (a *Accumulator) addGroup(now time.Time, h *host, k groupKey, from *group) {
	if !a.hasPlace(now, k.domain) {
		k.domain = Other
	}
	to := h.groups[k]
	if to == nil && !a.room(2) {
		// Under Other of the host, else of all: those are as many as there are sides.
		if k.domain = Other; h.groups[k] == nil {
			h = a.others(now)
		}
		to = h.groups[k]
	}
	if to == nil {
		to = &group{created: now, answers: map[answer]*outcome{}}
		h.groups[k] = to
		a.rows += 2
		if p := a.places[k.domain]; p != nil {
			p.on[h] = struct{}{}
		}
	}
	to.requests, to.upload, to.download = plus(to.requests, from.requests), plus(to.upload, from.upload), plus(to.download, from.download)
	for w, o := range from.answers {
		into := to.answers[w]
		if other := (answer{Other, Other}); into == nil && w != other && (len(to.answers) >= maxAnswers || !a.room(1)) {
			w, into = other, to.answers[other]
		}
		if into == nil {
			into = &outcome{created: now}
			to.answers[w] = into
			if (w != answer{Other, Other}) {
				a.rows++
			}
		}
		into.ended = plus(into.ended, o.ended)
		if into.times.Count == 0 {
			into.timed = now
		}
		into.times.add(&o.times)
	}
}
