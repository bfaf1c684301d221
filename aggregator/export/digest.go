package export

import (
	"cmp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/exchange"
	"github.com/httpctl/httpctl/pkg/sketch"
	"github.com/httpctl/httpctl/pkg/stat"
)

// Bounds are the upper bounds, in nanoseconds, of the histogram of response times: those that OpenTelemetry's
// semantic conventions advise for http.server.request.duration.
var Bounds = [...]int64{5e6, 10e6, 25e6, 50e6, 75e6, 100e6, 250e6, 500e6, 750e6, 1e9, 2500e6, 5e9, 7500e6, 10e9}

// role is the part that a host had in an exchange; the zero value stands for one that is not known.
type role uint8

const (
	otherRole role = iota
	server
	client
	transit
	roles
)

var roleNames = [roles]string{otherRole: Other, server: "server", client: "client", transit: "transit"}

// side says from where an exchange was seen. mirror: another monitored host counts it, too.
type side struct {
	role   role
	mirror bool
}

// sides are all that there are.
var sides = func() (all []side) {
	for r := range roles {
		all = append(all, side{r, false}, side{r, true})
	}
	return all
}()

type groupKey struct {
	side
	domain string // "" is not known
}

// answer is how an exchange ended; "" is a request or response that was not seen.
type answer struct{ method, status string }

type methodKey struct {
	side
	method string
}

// traffic is what was counted, of one bucket or of one host since the start.
type traffic struct {
	groups  map[groupKey]*group
	methods map[methodKey]*tally // requests
	bodies  map[side]*body
}

type tally struct {
	created time.Time
	n       uint64
}

type body struct {
	created           time.Time
	request, response uint64
}

type group struct {
	created                    time.Time
	requests, upload, download uint64
	answers                    map[answer]*outcome
}

type outcome struct {
	created, timed time.Time // when the first exchange counted, and when the first response time did
	ended          uint64
	times          Histogram
}

// Histogram is a distribution of response times.
type Histogram struct {
	Count uint64
	// Sum is in nanoseconds.
	Sum uint64
	// Buckets count what lies above the bound before, up to the one of the same position in Bounds; the last what
	// is above all of them.
	Buckets [len(Bounds) + 1]uint64
}

func (h *Histogram) addLatency(l *sketch.Latency) {
	if l == nil || l.Count == 0 {
		return
	}
	h.Count, h.Sum = plus(h.Count, l.Count), plus(h.Sum, l.Sum)
	l.Spread(Bounds[:], h.Buckets[:])
}

func (h *Histogram) add(o *Histogram) {
	h.Count, h.Sum = plus(h.Count, o.Count), plus(h.Sum, o.Sum)
	for i, n := range o.Buckets {
		h.Buckets[i] = plus(h.Buckets[i], n)
	}
}

func (h *Histogram) subtract(o *Histogram) {
	h.Count, h.Sum = minus(h.Count, o.Count), minus(h.Sum, o.Sum)
	for i, n := range o.Buckets {
		h.Buckets[i] = minus(h.Buckets[i], n)
	}
}

// fit makes the buckets hold what Count says, as receivers refuse all that comes with others. They do not where tables of an agent
// contradict each other.
func (h *Histogram) fit() {
	left := h.Count
	for i, n := range h.Buckets {
		h.Buckets[i] = min(n, left)
		left -= h.Buckets[i]
	}
	h.Buckets[len(h.Buckets)-1] += left
}

// plus and minus stay within what a counter can say: an agent may send any number, and a counter never falls.
func plus(a, b uint64) uint64 {
	if s := a + b; s >= a {
		return s
	}
	return 1<<64 - 1
}

func minus(a, b uint64) uint64 { return a - min(a, b) }

func positive(v int64) uint64 { return uint64(max(v, 0)) }

// Digest is what the export takes of one bucket. It shares no memory with it.
type Digest struct {
	host       bucket.ID
	name       string
	start      int64
	open       uint64
	counters   exchange.Counters
	unobserved uint64 // nanoseconds
	traffic
}

// Size estimates the memory of d in bytes.
func (d *Digest) Size() int {
	const fixed, perGroup, perOutcome, perOther = 700, 160, 330, 100 // from a heap profile
	n := fixed + perOther*(len(d.methods)+len(d.bodies))
	for k, g := range d.groups {
		n += perGroup + len(k.domain) + perOutcome*len(g.answers)
	}
	return n
}

func (t *traffic) group(k groupKey) *group {
	g := t.groups[k]
	if g == nil {
		g = &group{answers: map[answer]*outcome{}}
		t.groups[k] = g
	}
	return g
}

func (g *group) outcome(a answer) *outcome {
	o := g.answers[a]
	if o == nil {
		o = new(outcome)
		g.answers[a] = o
	}
	return o
}

// Digest makes what counts of a final bucket, whose memory is borrowed for the call: rows as the bucket has them, and under
// Other what it has folded, so that sums are those of its exact table "totals". It is safe for concurrent use.
func (a *Accumulator) Digest(b *bucket.Bucket) *Digest {
	d := &Digest{
		host: b.Host, name: labelOf(b.HostName), start: b.Start, open: b.Open, counters: b.Counters,
		traffic: traffic{groups: map[groupKey]*group{}, methods: map[methodKey]*tally{}, bodies: map[side]*body{}},
	}
	for _, s := range b.Unobserved {
		if s.To > s.From {
			d.unobserved = plus(d.unobserved, uint64(s.To)-uint64(s.From)) // however far apart they are
		}
	}
	totals := columnsOf(b.Table("totals"), stat.KeyMirror, stat.KeyRole, "method", "status")
	domains := columnsOf(b.Table("domain"), stat.KeyMirror, stat.KeyRole, "domain")
	volume := columnsOf(b.Table("domain_bytes"), stat.KeyMirror, stat.KeyRole, "domain")
	routes := columnsOf(b.Table("routes"), stat.KeyMirror, stat.KeyRole, "domain", "method", "status")
	names := a.choose(domains, volume, routes)
	d.addRequests(totals, domains, names)
	d.addVolume(totals, volume, names)
	d.addOutcomes(totals, routes, names)
	return d
}

// addRequests takes the requests of each domain from the table "domain", and of each method from "totals".
func (d *Digest) addRequests(totals, domains *columns, names map[string]string) {
	left := map[side]uint64{}
	if totals.ok() {
		totals.each(func(r *bucket.Row) {
			n := totals.value(r, stat.TotalRequests)
			if n == 0 {
				return
			}
			s := totals.side(r)
			left[s] = plus(left[s], n)
			k := methodKey{s, totals.method(r)}
			if d.methods[k] == nil {
				d.methods[k] = new(tally)
			}
			d.methods[k].n = plus(d.methods[k].n, n)
		})
	} else if !domains.ok() {
		left[side{}] = d.counters[exchange.Requests]
	}
	domains.each(func(r *bucket.Row) {
		n := domains.value(r, stat.MeasureHits)
		if n == 0 {
			return
		}
		s, domain := domains.side(r), Other
		if r.Keys != nil {
			domain = names[domains.key(r, "domain")]
		} else if totals.ok() {
			return // what totals have above the rows
		}
		g := d.group(groupKey{s, domain})
		g.requests = plus(g.requests, n)
		left[s] = minus(left[s], n)
	})
	for s, n := range left {
		if n > 0 {
			g := d.group(groupKey{s, Other})
			g.requests = plus(g.requests, n)
		}
	}
}

// addVolume takes wire bytes of each domain from "domain_bytes", and the bytes of bodies from "totals".
func (d *Digest) addVolume(totals, volume *columns, names map[string]string) {
	type bytes struct{ up, down uint64 }
	left := map[side]bytes{}
	totals.each(func(r *bucket.Row) {
		s := totals.side(r)
		l := left[s]
		left[s] = bytes{plus(l.up, totals.value(r, stat.TotalRequestWireBytes)), plus(l.down, totals.value(r, stat.TotalResponseWireBytes))}
		if up, down := totals.value(r, stat.TotalRequestBytes), totals.value(r, stat.TotalResponseBytes); up > 0 || down > 0 {
			if d.bodies[s] == nil {
				d.bodies[s] = new(body)
			}
			b := d.bodies[s]
			b.request, b.response = plus(b.request, up), plus(b.response, down)
		}
	})
	add := func(s side, domain string, n bytes) {
		if n.up == 0 && n.down == 0 {
			return
		}
		g := d.group(groupKey{s, domain})
		g.upload, g.download = plus(g.upload, n.up), plus(g.download, n.down)
	}
	volume.each(func(r *bucket.Row) {
		s, domain := volume.side(r), Other
		if r.Keys != nil {
			domain = names[volume.key(r, "domain")]
		} else if totals.ok() {
			return
		}
		n := bytes{volume.value(r, "upload"), volume.value(r, "download")}
		add(s, domain, n)
		left[s] = bytes{minus(left[s].up, n.up), minus(left[s].down, n.down)}
	})
	for s, n := range left {
		add(s, Other, n)
	}
}

// addOutcomes takes how exchanges ended, and their response times, from "routes", without sections.
func (d *Digest) addOutcomes(totals, routes *columns, names map[string]string) {
	type ended struct {
		side
		answer
	}
	left := map[ended]*outcome{}
	if totals.ok() {
		totals.each(func(r *bucket.Row) {
			n, l := totals.value(r, stat.TotalOutcomes), totals.latency(r, stat.MeasureTTFB)
			if n == 0 && l == nil {
				return
			}
			k := ended{totals.side(r), totals.answer(r)}
			if left[k] == nil {
				left[k] = new(outcome)
			}
			left[k].ended = plus(left[k].ended, n)
			left[k].times.addLatency(l)
		})
	} else if !routes.ok() {
		left[ended{side{}, answer{Other, Other}}] = &outcome{ended: d.counters[exchange.Outcomes]}
	}
	routes.each(func(r *bucket.Row) {
		k, domain := ended{routes.side(r), routes.answer(r)}, Other
		if r.Keys != nil {
			domain = names[routes.key(r, "domain")]
		} else if totals.ok() {
			return
		}
		n, l := routes.value(r, stat.MeasureHits), routes.latency(r, stat.MeasureTTFB)
		if n == 0 && (l == nil || l.Count == 0) {
			return
		}
		var times Histogram
		times.addLatency(l)
		to := d.group(groupKey{k.side, domain}).outcome(k.answer)
		to.ended = plus(to.ended, n)
		to.times.add(&times)
		if o := left[k]; o != nil {
			o.ended = minus(o.ended, n)
			o.times.subtract(&times)
		}
	})
	for k, o := range left {
		if o.ended > 0 || o.times.Count > 0 {
			to := d.group(groupKey{k.side, Other}).outcome(k.answer)
			to.ended = plus(to.ended, o.ended)
			to.times.add(&o.times)
		}
	}
	for _, g := range d.groups {
		for _, o := range g.answers {
			o.times.fit()
		}
	}
}

// choose names each domain of the tables as it counts: those that have a place, and of the others as many as there may
// be places, those with the most requests; the rest is Other. The keys are borrowed.
func (a *Accumulator) choose(tables ...*columns) map[string]string {
	names := map[string]string{}
	weights := map[string]uint64{}
	a.mu.RLock()
	for _, t := range tables {
		t.each(func(r *bucket.Row) {
			if r.Keys == nil {
				return
			}
			domain := t.key(r, "domain")
			if _, known := names[domain]; !known {
				switch p := a.places[domain]; {
				case domain == stat.Absent:
					names[domain] = ""
				case p != nil:
					names[domain] = p.domain
				default:
					weights[domain] = plus(weights[domain], t.value(r, stat.MeasureHits))
				}
			}
		})
	}
	a.mu.RUnlock()
	if len(weights) == 0 {
		return names
	}
	order := make([]string, 0, len(weights))
	for domain := range weights {
		order = append(order, domain)
	}
	slices.SortFunc(order, func(x, y string) int {
		return cmp.Or(cmp.Compare(weights[y], weights[x]), strings.Compare(x, y))
	})
	for i, domain := range order {
		names[domain] = Other
		if i < a.cfg.MaxDomains {
			names[domain] = labelOf(strings.Clone(domain))
		}
	}
	return names
}

// maxLabel bounds a name, in bytes. Some receivers refuse all that comes with a longer one: Mimir above 2048.
const maxLabel = 1024

// labelOf makes a name one that all receivers take: UTF-8 without control characters, of at most maxLabel bytes.
func labelOf(name string) string {
	return exchange.Bound(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return utf8.RuneError // longer than what it stands for
		}
		return r
	}, strings.ToValidUTF8(name, "\ufffd")), maxLabel)
}

// columns finds the columns of a table by their names.
type columns struct {
	t        *bucket.Table
	keys     map[string]int
	measures map[string]int
}

// columnsOf returns those of t; of no table, or one that lacks one of the keys, it returns nil, which has no rows.
func columnsOf(t *bucket.Table, keys ...string) *columns {
	if t == nil {
		return nil
	}
	c := &columns{t: t, keys: make(map[string]int, len(keys)), measures: make(map[string]int, len(t.Schema.Measures))}
	for _, k := range keys {
		i := t.Schema.Key(k)
		if i < 0 {
			return nil
		}
		c.keys[k] = i
	}
	for i, m := range t.Schema.Measures {
		if m.Kind != bucket.Max {
			c.measures[m.Name] = i
		}
	}
	return c
}

func (c *columns) ok() bool { return c != nil }

// each calls f for each row, and last for what the table has folded, which has no keys.
func (c *columns) each(f func(*bucket.Row)) {
	if c == nil {
		return
	}
	for _, r := range c.t.Rows {
		f(r)
	}
	f(&c.t.Other)
}

func (c *columns) key(r *bucket.Row, name string) string {
	if i := c.keys[name]; i < len(r.Keys) {
		return r.Keys[i]
	}
	return ""
}

func (c *columns) value(r *bucket.Row, name string) uint64 {
	if i, ok := c.measures[name]; ok && i < len(r.Values) && c.t.Schema.Measures[i].Kind == bucket.Sum {
		return positive(r.Values[i])
	}
	return 0
}

func (c *columns) latency(r *bucket.Row, name string) *sketch.Latency {
	i, ok := c.measures[name]
	if !ok {
		return nil
	}
	if i = c.t.Schema.LatencyIndex(i); i < 0 || i >= len(r.Latency) {
		return nil
	}
	return r.Latency[i]
}

func (c *columns) side(r *bucket.Row) side {
	if r.Keys == nil {
		return side{}
	}
	s := side{mirror: c.key(r, stat.KeyMirror) != "0"}
	name := c.key(r, stat.KeyRole)
	for i := server; i < roles; i++ {
		if roleNames[i] == name {
			s.role = i
		}
	}
	return s
}

// methods are those that stay as they are; the map gives names that may be kept.
var methods = func() map[string]string {
	m := map[string]string{stat.Absent: ""}
	for _, name := range []string{"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"} {
		m[name] = name
	}
	return m
}()

func (c *columns) method(r *bucket.Row) string {
	if r.Keys == nil {
		return Other
	}
	if m, ok := methods[c.key(r, "method")]; ok {
		return m
	}
	return Other
}

// answer of a row. Statuses are those of RFC 9110 section 15, 100 to 599.
func (c *columns) answer(r *bucket.Row) answer {
	a := answer{c.method(r), Other}
	switch s := c.key(r, "status"); {
	case r.Keys == nil:
	case s == stat.Absent:
		a.status = ""
	case len(s) == 3 && s[0] >= '1' && s[0] <= '5' && isDigit(s[1]) && isDigit(s[2]):
		a.status = exchange.StatusText(int(s[0]-'0')*100 + int(s[1]-'0')*10 + int(s[2]-'0'))
	}
	return a
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }
