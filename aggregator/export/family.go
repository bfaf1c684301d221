package export

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/exchange"
)

// Kind says how a family's values are to be read.
type Kind uint8

// The kinds of families.
const (
	Counter Kind = iota
	Gauge
	Times // a histogram of response times
)

// Description is what is the same for all points of a family.
type Description struct {
	// Name is OpenTelemetry's, with dots. Unit is a UCUM unit.
	Name, Unit string
	Kind       Kind
	Help       string
	// Attributes are those that its points may have, with dots.
	Attributes []string
}

// Family is one metric and its points.
type Family struct {
	Description
	Points []Point
}

// Point is one value of a family.
type Point struct {
	// Attributes have no empty values.
	Attributes []Attribute
	// Start is from when on a counter or histogram counts.
	Start time.Time
	Value float64
	Times *Histogram // instead of Value, for the kind Times; nobody changes it
}

// Attribute is one of OpenTelemetry's.
type Attribute struct{ Key, Value string }

// Names of attributes: those of the semantic conventions, and own ones where there is none.
const (
	attrHostID     = "host.id"
	attrHostName   = "host.name"
	attrRole       = "httpctl.role"
	attrMirror     = "httpctl.mirror"
	attrDomain     = "server.address"
	attrMethod     = "http.request.method"
	attrStatus     = "http.response.status_code"
	attrError      = "error.type"
	attrScheme     = "url.scheme"
	attrReason     = "reason"
	attrState      = "state"
	schemeOfHTTP   = "http" // all that is counted today was read from plain text
	mirrored       = "1"    // as the filters of httpctl have it
	notMirrored    = "0"
	nanoPerSecond  = 1e9
	stateReporting = "reporting"
)

// HostState is what the store and the judge say of a host.
type HostState struct {
	ID   bucket.ID
	Name string
	// CoveredThrough: all that happened on the host before it has arrived or is declared unobserved (nanoseconds).
	CoveredThrough int64
	// State is "reporting", "late" or "gone".
	State string
}

var byHost = []string{attrHostID, attrHostName}

func attributes(more ...string) []string { return append(slices.Clip(byHost), more...) }

// The families, in the order of Descriptions.
const (
	serverDuration = iota
	clientDuration
	requests
	methodRequests
	outcomes
	requestWire
	responseWire
	requestBody
	responseBody
	losses
	unobserved
	buckets
	openExchanges
	covered
	hostStates
	families
)

// Descriptions describes all families.
var Descriptions = [families]Description{
	serverDuration: {"http.server.request.duration", "s", Times,
		"Time from the last byte of a request to the first of its response, as seen on the server's host or in transit.",
		attributes(attrRole, attrMirror, attrScheme, attrDomain, attrMethod, attrStatus, attrError)},
	clientDuration: {"http.client.request.duration", "s", Times,
		"Time from the last byte of a request to the first of its response, as seen on the client's host.",
		attributes(attrRole, attrMirror, attrScheme, attrDomain, attrMethod, attrStatus, attrError)},
	requests: {"httpctl.traffic.requests", "{request}", Counter,
		"Requests, by domain: httpctl top domain.", attributes(attrRole, attrMirror, attrDomain)},
	methodRequests: {"httpctl.traffic.method.requests", "{request}", Counter,
		"The same requests, by method: httpctl top method.", attributes(attrRole, attrMirror, attrMethod)},
	outcomes: {"httpctl.traffic.outcomes", "{exchange}", Counter,
		"Exchanges that ended; without a status no response was seen, without a method no request.",
		attributes(attrRole, attrMirror, attrDomain, attrMethod, attrStatus)},
	requestWire: {"httpctl.traffic.request.wire", "By", Counter,
		"Octets of requests in the TCP stream, heads and framing included: upload of httpctl top volume.", attributes(attrRole, attrMirror, attrDomain)},
	responseWire: {"httpctl.traffic.response.wire", "By", Counter,
		"Octets of responses in the TCP stream, heads and framing included: download of httpctl top volume.", attributes(attrRole, attrMirror, attrDomain)},
	requestBody: {"httpctl.traffic.request.body", "By", Counter,
		"Content of requests, after transfer decoding and before content decoding.", attributes(attrRole, attrMirror)},
	responseBody: {"httpctl.traffic.response.body", "By", Counter,
		"Content of responses, after transfer decoding and before content decoding.", attributes(attrRole, attrMirror)},
	losses: {"httpctl.traffic.losses", "1", Counter,
		"What was not seen or not understood, by reason: packets, bytes, connections or messages, as the reason says.", attributes(attrReason)},
	unobserved: {"httpctl.traffic.unobserved", "s", Counter,
		"Time that agents declare they did not watch, or can no longer account for.", attributes()},
	buckets: {"httpctl.traffic.buckets", "{bucket}", Counter,
		"Intervals, or parts of them, that are in these counters.", attributes()},
	openExchanges: {"httpctl.traffic.open.exchanges", "{exchange}", Gauge,
		"Exchanges whose outcome was still to come at the end of the newest interval.", attributes()},
	covered: {"httpctl.traffic.covered.timestamp", "s", Gauge,
		"The time up to which all that happened on a host has arrived, or is declared unobserved.", attributes()},
	hostStates: {"httpctl.traffic.hosts", "{host}", Gauge,
		"Hosts by state; nothing arrives at present from those that are late or gone.", []string{attrState}},
}

// Snapshot returns all counters as they are, and what the hosts say. The order of points is always the same. states may
// be nil, when they are not known.
func (a *Accumulator) Snapshot(states []HostState) []Family {
	s := snapshot{out: make([]Family, families)}
	for i := range s.out {
		s.out[i].Description = Descriptions[i]
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	order := make([]*host, 0, len(a.hosts)+1)
	for _, h := range a.hosts {
		order = append(order, h)
	}
	slices.SortFunc(order, func(x, y *host) int { return x.id.Compare(y.id) })
	for _, h := range order {
		s.host(h, []Attribute{{attrHostID, h.id.String()}, {attrHostName, h.name}})
	}
	switch {
	case a.cfg.MaxHosts == 0:
		s.host(a.rest, nil)
	case a.rest.used():
		s.host(a.rest, []Attribute{{attrHostID, Other}, {attrHostName, Other}})
	}
	s.states(a, states)
	return slices.DeleteFunc(s.out, func(f Family) bool { return len(f.Points) == 0 })
}

// Newest returns when the counter of a list that is the newest began, or since, if that is later. What is not in a snapshot yet begins
// later than the newest that is.
func Newest(list []Family, since time.Time) time.Time {
	for i := range list {
		for k := range list[i].Points {
			if at := list[i].Points[k].Start; at.After(since) {
				since = at
			}
		}
	}
	return since
}

type snapshot struct{ out []Family }

func (s *snapshot) add(family int, start time.Time, value float64, of []Attribute, more ...Attribute) {
	s.out[family].Points = append(s.out[family].Points, Point{Attributes: join(of, more), Start: start, Value: value})
}

// join returns the attributes that have a value.
func join(of, more []Attribute) []Attribute {
	list := make([]Attribute, 0, len(of)+len(more))
	for _, x := range [][]Attribute{of, more} {
		for _, attr := range x {
			if attr.Value != "" {
				list = append(list, attr)
			}
		}
	}
	return list
}

func (s side) attributes(of []Attribute) []Attribute {
	mirror := notMirrored
	if s.mirror {
		mirror = mirrored
	}
	return join(of, []Attribute{{attrRole, roleNames[s.role]}, {attrMirror, mirror}})
}

func (s side) compare(o side) int {
	m := func(b bool) int {
		if b {
			return 1
		}
		return 0
	}
	return cmp.Or(cmp.Compare(s.role, o.role), cmp.Compare(m(s.mirror), m(o.mirror)))
}

func (s *snapshot) host(h *host, of []Attribute) {
	for _, k := range sorted(h.groups, func(x, y groupKey) int { return cmp.Or(x.compare(y.side), strings.Compare(x.domain, y.domain)) }) {
		g, of := h.groups[k], k.attributes(of)
		domain := Attribute{attrDomain, k.domain}
		s.add(requests, g.created, float64(g.requests), of, domain)
		s.add(requestWire, g.created, float64(g.upload), of, domain)
		s.add(responseWire, g.created, float64(g.download), of, domain)
		for _, w := range sorted(g.answers, func(x, y answer) int {
			return cmp.Or(strings.Compare(x.method, y.method), strings.Compare(x.status, y.status))
		}) {
			o, method, status := g.answers[w], Attribute{attrMethod, w.method}, Attribute{attrStatus, w.status}
			s.add(outcomes, o.created, float64(o.ended), of, domain, method, status)
			if o.times.Count == 0 {
				continue
			}
			family, firstError, times := serverDuration, "500", o.times
			if k.role == client {
				family, firstError = clientDuration, "400"
			}
			wrong := Attribute{Key: attrError} // the status, of those that the conventions have as errors
			if w.status >= firstError && w.status != Other {
				wrong.Value = w.status
			}
			s.out[family].Points = append(s.out[family].Points, Point{
				Attributes: join(of, []Attribute{{attrScheme, schemeOfHTTP}, domain, method, status, wrong}), Start: o.timed, Times: &times,
			})
		}
	}
	for _, k := range sorted(h.methods, func(x, y methodKey) int { return cmp.Or(x.compare(y.side), strings.Compare(x.method, y.method)) }) {
		s.add(methodRequests, h.methods[k].created, float64(h.methods[k].n), k.attributes(of), Attribute{attrMethod, k.method})
	}
	for _, k := range sorted(h.bodies, side.compare) {
		b, of := h.bodies[k], k.attributes(of)
		s.add(requestBody, b.created, float64(b.request), of)
		s.add(responseBody, b.created, float64(b.response), of)
	}
	for c := range exchange.NumCounters {
		if c.Loss() {
			s.add(losses, h.created, float64(h.losses[c]), of, Attribute{attrReason, c.String()})
		}
	}
	s.add(unobserved, h.created, float64(h.unobserved)/1e9, of)
	s.add(buckets, h.created, float64(h.buckets), of)
	if len(of) > 0 && h.id != (bucket.ID{}) { // of one host
		s.add(openExchanges, time.Time{}, float64(h.open), of)
	}
}

// states tells how far the hosts that have a place have come, and how many are how.
func (s *snapshot) states(a *Accumulator, states []HostState) {
	if states == nil {
		return
	}
	n := map[string]int{stateReporting: 0, "late": 0, "gone": 0}
	for _, h := range states {
		n[h.State]++
		if known := a.hosts[h.ID]; known != nil {
			s.add(covered, time.Time{}, float64(h.CoveredThrough)/nanoPerSecond, []Attribute{{attrHostID, h.ID.String()}, {attrHostName, known.name}})
		}
	}
	for _, name := range sorted(n, strings.Compare) {
		s.add(hostStates, time.Time{}, float64(n[name]), nil, Attribute{attrState, name})
	}
}

func sorted[K comparable, V any](m map[K]V, compare func(x, y K) int) []K {
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, compare)
	return keys
}

// Prometheus returns the name of a family as Prometheus has it: what OpenTelemetry's rules make of name, unit and kind.
func (d *Description) Prometheus() string {
	name := strings.ReplaceAll(d.Name, ".", "_")
	switch d.Unit {
	case "s":
		name += "_seconds"
	case "By":
		name += "_bytes"
	}
	if d.Kind == Counter {
		name += "_total"
	}
	return name
}

// label returns the name of an attribute as Prometheus has it.
func label(attribute string) string { return strings.ReplaceAll(attribute, ".", "_") }

// boundText are the values of the label le.
var boundText = func() (out [len(Bounds) + 1]string) {
	for i, b := range Bounds {
		out[i] = strconv.FormatFloat(float64(b)/nanoPerSecond, 'g', -1, 64)
	}
	out[len(Bounds)] = "+Inf"
	return out
}()
