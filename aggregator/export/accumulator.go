package export

import (
	"cmp"
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
	// When a place may be free at the earliest, as far as is known: looking for one takes time.
	freeDomain, freeHost time.Time
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
	last   time.Time // when something was counted there
}

// host is what was counted on one host, or on all that have no place.
type host struct {
	id         bucket.ID
	name       string
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

// Add counts the digests of buckets that the store has newly taken, and takes their memory. now never goes back.
func (a *Accumulator) Add(now time.Time, digests ...*Digest) {
	a.mu.Lock()
	defer a.mu.Unlock()
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
		if d.name != "" {
			h.name = d.name
		}
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
			to = a.rest
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

// host returns where the bucket of a host counts.
func (a *Accumulator) host(now time.Time, d *Digest) *host {
	if a.cfg.MaxHosts == 0 {
		return a.rest
	}
	h := a.hosts[d.host]
	if h == nil {
		if len(a.hosts) >= a.cfg.MaxHosts && !a.endHost(now) {
			a.stats.FoldedHosts++
			return a.rest
		}
		h = newHost(d.host, now)
		a.hosts[d.host] = h
	}
	return h
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
	for _, g := range oldest.groups {
		a.rows -= rowsOf(g)
	}
	a.rows -= len(oldest.methods)
	delete(a.hosts, oldest.id)
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
		p = &place{domain: domain}
		a.places[domain] = p
	}
	p.last = now
	return true
}

// endDomain gives the place up of the domain that was idle the longest, if that is long enough.
func (a *Accumulator) endDomain(now time.Time) bool {
	if now.Before(a.freeDomain) {
		return false
	}
	var oldest *place
	for _, p := range a.places {
		if oldest == nil || p.last.Before(oldest.last) {
			oldest = p
		}
	}
	if a.freeDomain = oldest.last.Add(idleAfter); now.Before(a.freeDomain) {
		return false
	}
	end := func(h *host) {
		for k, g := range h.groups {
			if k.domain == oldest.domain {
				a.rows -= rowsOf(g)
				delete(h.groups, k)
			}
		}
	}
	end(a.rest)
	for _, h := range a.hosts {
		end(h)
	}
	delete(a.places, oldest.domain)
	a.stats.Ended++
	return true
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
			h = a.rest
		}
		to = h.groups[k]
	}
	if to == nil {
		to = &group{created: now, answers: map[answer]*outcome{}}
		h.groups[k] = to
		a.rows += 2
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
		into.times.add(&o.times)
	}
}
