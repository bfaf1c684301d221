package stat

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
	"unsafe"

	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/exchange"
)

// Common is the built-in statistics as one module, for who counts all of them: two looks find the rows of all eight, where one by one each
// makes its key and looks for it, as what is asked for and who asks are mostly the same as before. They cost half of that.
type Common struct {
	totals   *totals
	requests [4]*requests // section, domain, user_agent, client_ip
	volume   *domainBytes
	server   *server
	routes   *routes
	at       [partCount]int // the positions of their tables

	first *bucket.Table // of the latest observation
	asked [1 << classBits]asked
	ends  [1 << classBits]ends
}

// classBits is the size of what is remembered: 2 x 40 KiB.
const classBits = 8

// The parts of Common.
const (
	partTotals = iota
	partSection
	partDomain
	partUserAgent
	partClientIP
	partVolume
	partServer
	partRoutes
	partCount
)

// asked is what exchanges have in common that are in the same rows of totals, section, domain, domain_bytes and routes.
type asked struct {
	mirror, domain, section, method string
	status                          int
	role                            exchange.Role

	totals, section_, domain_, volume, routes found
}

// ends is what those have in common that are in the same rows of user_agent, client_ip and server.
type ends struct {
	mirror, agent, name string
	client              netip.Addr
	server              netip.AddrPort
	role                exchange.Role

	agent_, client_, server_ found
}

// found is a row, valid while its table's Moves is what it was.
type found struct {
	row   *bucket.Row
	moves uint64
}

var _ Module = (*Common)(nil)

// NewCommon returns a Common that does the work of the built-in ones of modules, and which these are; nil unless all are there. at
// is the position of each module's table among those that Observe is given.
func NewCommon(modules []Module, at []int) (c *Common, of []bool) {
	c, of = &Common{}, make([]bool, len(modules))
	n := 0
	for i, m := range modules {
		part := -1
		switch m := m.(type) {
		case *totals:
			part, c.totals = partTotals, m
		case *requests:
			for k, name := range []string{"section", "domain", "user_agent", "client_ip"} {
				if m.schema.Name == name {
					part, c.requests[k] = partSection+k, m
				}
			}
		case *domainBytes:
			part, c.volume = partVolume, m
		case *server:
			part, c.server = partServer, m
		case *routes:
			part, c.routes = partRoutes, m
		}
		if part >= 0 {
			c.at[part], of[i] = at[i], true
			n++
		}
	}
	if n < partCount {
		return nil, make([]bool, len(modules))
	}
	return c, of
}

// Tables returns nothing: they are those of the modules.
func (*Common) Tables() []bucket.Schema { return nil }

// Observe adds to the tables of the built-in statistics, which are among all.
func (c *Common) Observe(o *exchange.Observation, all []*bucket.Table) {
	if c.first != all[0] {
		c.first = all[0]
		clear(c.asked[:]) // which are rows of other tables
		clear(c.ends[:])
	}
	k, e := c.find(o)
	if amounts := c.totals.amounts(o); amounts != nil {
		add(&k.totals, all[c.at[partTotals]], c.totals, o, amounts)
	}
	if c.requests[0].amounts(o) != nil { // which are those of all four
		amounts := &c.requests[0].values
		addRequest(&k.section_, all[c.at[partSection]], c.requests[0], o, amounts)
		addRequest(&k.domain_, all[c.at[partDomain]], c.requests[1], o, amounts)
		addRequest(&e.agent_, all[c.at[partUserAgent]], c.requests[2], o, amounts)
		addRequest(&e.client_, all[c.at[partClientIP]], c.requests[3], o, amounts)
	}
	if o.Event == exchange.RequestSeen {
		return
	}
	add(&k.volume, all[c.at[partVolume]], c.volume, o, c.volume.amounts(o))
	add(&k.routes, all[c.at[partRoutes]], c.routes, o, c.routes.amounts(o))
	add(&e.server_, all[c.at[partServer]], c.server, o, c.server.amounts(o))
}

// add adds amounts to the row that was found for o, or that is found now.
func add(f *found, t *bucket.Table, m counted, o *exchange.Observation, amounts []int64) {
	if f.row != nil && f.moves == t.Moves() {
		t.AddTo(f.row, amounts)
		return
	}
	f.row = t.AddRow(m.names(o), amounts)
	f.moves = t.Moves()
}

// addRequest is add for a table of requests: eight of the thirteen rows that an exchange is counted in.
func addRequest(f *found, t *bucket.Table, m *requests, o *exchange.Observation, amounts *[3]int64) {
	if f.row == nil || f.moves != t.Moves() {
		add(f, t, m, o, amounts[:])
		return
	}
	v := (*[3]int64)(f.row.Values)
	v[0], v[1] = bucket.AddSaturating(v[0], amounts[0]), bucket.AddSaturating(v[1], max(amounts[1], 0))
	v[2] = max(v[2], amounts[2])
}

// find returns what is remembered of exchanges like that of o. Strings are told apart by where they are in memory, as who makes exchanges keeps one
// copy of each: equal ones in other places cost time and nothing else.
func (c *Common) find(o *exchange.Observation) (*asked, *ends) {
	x, method, status := o.Exchange, method(o.Exchange), 0
	if o.Event != exchange.RequestSeen && x.HasResponse {
		status = x.Status
	}
	k := &c.asked[slot(place(x.Section)^bits.RotateLeft64(place(x.Domain), 17)^bits.RotateLeft64(place(method), 31), uint64(status))]
	if k.status != status || k.role != x.Role || !same(k.section, x.Section) || !same(k.domain, x.Domain) || !same(k.method, method) || !same(k.mirror, x.Mirror) {
		*k = asked{mirror: x.Mirror, domain: x.Domain, section: x.Section, method: method, status: status, role: x.Role}
	}
	client := x.Client.Addr()
	b := client.As16()
	e := &c.ends[slot(place(x.UserAgent)^bits.RotateLeft64(place(x.ClientName), 17), binary.LittleEndian.Uint64(b[8:]))]
	if e.client != client || e.server != x.Server || e.role != x.Role || !same(e.agent, x.UserAgent) || !same(e.name, x.ClientName) || !same(e.mirror, x.Mirror) {
		*e = ends{mirror: x.Mirror, agent: x.UserAgent, name: x.ClientName, client: client, server: x.Server, role: x.Role}
	}
	return k, e
}

func slot(a, b uint64) uint64 {
	const golden = 0x9e3779b97f4a7c15 // Fibonacci hashing
	return (a*golden ^ b) * golden >> (64 - classBits)
}

func place(s string) uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.StringData(s)))) }

func same(a, b string) bool {
	return len(a) == len(b) && (a == "" || unsafe.StringData(a) == unsafe.StringData(b))
}
