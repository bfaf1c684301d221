package stat

import (
	"net/netip"

	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/exchange"
)

// Names of columns that the built-in tables share, for those who read them.
const (
	KeyMirror = "mirror" // see [exchange.Exchange.MirrorKey]
	KeyRole   = "role"   // server, client, transit
	Absent    = "-"      // the key of what an exchange does not have

	MeasureHits     = "hits"
	MeasureBytes    = "bytes"     // wire bytes, both directions
	MeasureLastSeen = "last_seen" // nanoseconds since the epoch, in whole milliseconds
	MeasureTTFB     = "ttfb"
)

// Measures of the table "totals", besides last_seen and ttfb.
const (
	TotalRequests           = "requests"
	TotalResponses          = "responses"
	TotalOutcomes           = "outcomes"
	TotalUnmatchedRequests  = "unmatched_requests"
	TotalUnmatchedResponses = "unmatched_responses"
	TotalEarlyResponses     = "early_responses"
	TotalRequestBytes       = "request_bytes"
	TotalResponseBytes      = "response_bytes"
	TotalRequestWireBytes   = "request_wire_bytes"
	TotalResponseWireBytes  = "response_wire_bytes"
)

func init() {
	Register("totals", func() Module { return new(totals) })
	Register("section", func() Module {
		return newRequests("section", "Sections", []string{"domain", "section"}, func(x *exchange.Exchange, keys []string) {
			keys[0], keys[1] = orAbsent(x.Domain), orAbsent(x.Section)
		})
	})
	Register("domain", func() Module {
		return newRequests("domain", "Domains", []string{"domain"}, func(x *exchange.Exchange, keys []string) {
			keys[0] = orAbsent(x.Domain)
		})
	})
	Register("user_agent", func() Module {
		return newRequests("user_agent", "User agents", []string{"user_agent"}, func(x *exchange.Exchange, keys []string) {
			keys[0] = orAbsent(x.UserAgent)
		})
	})
	Register("client_ip", func() Module {
		var names texts[netip.Addr]
		return newRequests("client_ip", "Clients", []string{"client_ip"}, func(x *exchange.Exchange, keys []string) {
			if keys[0] = x.ClientName; keys[0] == "" {
				keys[0] = names.of(x.Client.Addr().Unmap(), netip.Addr.String)
			}
		})
	})
	Register("domain_bytes", func() Module { return new(domainBytes) })
	Register("server", func() Module { return new(server) })
	Register("routes", func() Module { return new(routes) })
}

// Measures that several tables have.
var (
	hits     = bucket.Measure{Name: MeasureHits, Kind: bucket.Sum, Unit: "{request}"}
	volume   = bucket.Measure{Name: MeasureBytes, Kind: bucket.Sum, Unit: "By"}
	ttfb     = bucket.Measure{Name: MeasureTTFB, Kind: bucket.Latency, Unit: "ns"}
	lastSeen = bucket.Measure{Name: MeasureLastSeen, Kind: bucket.Max, Unit: "ns"}
)

func orAbsent(s string) string {
	if s == "" {
		return Absent
	}
	return s
}

// prefix fills in the two key columns that every built-in table begins with.
func prefix(keys []string, x *exchange.Exchange) {
	keys[0] = x.MirrorKey()
	keys[1] = x.Role.String()
}

// method is the bounded method, or Absent without a request.
func method(x *exchange.Exchange) string {
	if !x.HasRequest {
		return Absent
	}
	return exchange.MethodAttribute(x.Method)
}

// status is the final status, or Absent without a response.
func status(x *exchange.Exchange) string {
	if !x.HasResponse {
		return Absent
	}
	return exchange.StatusText(x.Status)
}

// seen is the time of the event in whole milliseconds, which is as much as a
// top list shows and takes a third of the bytes in a bucket.
func seen(o *exchange.Observation) int64 { return o.Time - o.Time%1_000_000 }

// wire is the number of new wire bytes, both directions.
func wire(o *exchange.Observation) int64 {
	return int64(o.NewRequestWireBytes + o.NewResponseWireBytes)
}

// firstByte is the time to first byte for a Latency measure: negative, which
// is no observation, if it is not known.
func firstByte(x *exchange.Exchange) int64 {
	if d, _, ok := x.TTFB(); ok {
		return d
	}
	return -1
}

// texts remembers the text of addresses, so that a busy one is formatted once, and the last one of
// all apart: most hosts have one server.
type texts[K comparable] struct {
	known map[K]string
	last  K
	text  string
}

// maxTexts bounds the memory; beyond it everything is forgotten. It is a few
// times the rows that a table has by default.
const maxTexts = 4096

func (t *texts[K]) of(k K, format func(K) string) string {
	if k == t.last && t.text != "" {
		return t.text
	}
	s, ok := t.known[k]
	if !ok {
		if t.known == nil || len(t.known) >= maxTexts {
			t.known = make(map[K]string)
		}
		s = format(k)
		t.known[k] = s
	}
	t.last, t.text = k, s
	return s
}

// counted is a statistic of one table to which an event adds one row at most: under names, amounts, which is nil if it adds nothing. Both
// are valid until the next event.
type counted interface {
	names(o *exchange.Observation) []string
	amounts(o *exchange.Observation) []int64
}

func count[M counted](m M, o *exchange.Observation, t *bucket.Table) {
	if amounts := m.amounts(o); amounts != nil {
		t.Add(m.names(o), amounts)
	}
}

// totals counts everything, by role, method and status. A request counts
// under status "-", as its outcome is not known yet; the outcome counts under
// its own. Bytes count when they are known, at Progress and Outcome.
type totals struct {
	keys   [4]string
	values [12]int64
}

func (*totals) Tables() []bucket.Schema {
	by := func(name, unit string) bucket.Measure {
		return bucket.Measure{Name: name, Kind: bucket.Sum, Unit: unit}
	}
	return []bucket.Schema{{
		Name: "totals", Version: 1, Exact: true,
		Keys: []string{KeyMirror, KeyRole, "method", "status"},
		Measures: []bucket.Measure{
			by(TotalRequests, "{request}"), by(TotalResponses, "{response}"), by(TotalOutcomes, "{exchange}"),
			by(TotalUnmatchedRequests, "{request}"), by(TotalUnmatchedResponses, "{response}"),
			by(TotalEarlyResponses, "{response}"),
			by(TotalRequestBytes, "By"), by(TotalResponseBytes, "By"),
			by(TotalRequestWireBytes, "By"), by(TotalResponseWireBytes, "By"),
			ttfb, lastSeen,
		},
		Views: []bucket.View{
			{Name: "method", Title: "Methods", By: []string{"method"}, Hits: TotalRequests, Show: []string{MeasureLastSeen}},
			{Name: "status", Title: "Status codes", By: []string{"status"}, Hits: TotalResponses, Show: []string{MeasureTTFB, MeasureLastSeen}},
		},
	}}
}

func (m *totals) Observe(o *exchange.Observation, tables []*bucket.Table) { count(m, o, tables[0]) }

func (m *totals) names(o *exchange.Observation) []string {
	prefix(m.keys[:], o.Exchange)
	m.keys[2], m.keys[3] = method(o.Exchange), Absent
	if o.Event != exchange.RequestSeen {
		m.keys[3] = status(o.Exchange)
	}
	return m.keys[:]
}

func (m *totals) amounts(o *exchange.Observation) []int64 {
	x, v := o.Exchange, &m.values
	clear(v[:])
	v[10], v[11] = -1, seen(o)
	switch o.Event {
	case exchange.RequestSeen:
		v[0] = 1
	case exchange.Outcome:
		v[2] = 1
		if x.Status != 0 { // HTTP/0.9 answers without one, and counts as Responses does
			v[1] = 1
		}
		switch x.Unmatched() {
		case "request":
			v[3] = 1
		case "response":
			v[4] = 1
		}
		if _, early, _ := x.TTFB(); early {
			v[5] = 1
		}
		v[10] = firstByte(x)
		fallthrough
	case exchange.Progress:
		v[6], v[7] = int64(o.NewRequestBytes), int64(o.NewResponseBytes)
		v[8], v[9] = int64(o.NewRequestWireBytes), int64(o.NewResponseWireBytes)
	default:
		return nil
	}
	return v[:]
}

// requests counts requests by some of their fields, and adds the wire bytes
// of the exchange when they are known. A response whose request was not seen
// has none of the fields; its bytes are in totals and domain_bytes.
type requests struct {
	schema bucket.Schema
	fill   func(x *exchange.Exchange, keys []string)
	keys   []string
	values [3]int64
}

func newRequests(name, title string, keys []string, fill func(*exchange.Exchange, []string)) *requests {
	return &requests{
		schema: bucket.Schema{
			Name: name, Version: 1,
			Keys:     append([]string{KeyMirror, KeyRole}, keys...),
			Measures: []bucket.Measure{hits, volume, lastSeen},
			Views: []bucket.View{{
				Name: name, Title: title, By: keys[len(keys)-1:], Hits: MeasureHits, Show: []string{MeasureBytes, MeasureLastSeen},
			}},
		},
		fill: fill,
		keys: make([]string, 2+len(keys)),
	}
}

func (m *requests) Tables() []bucket.Schema { return []bucket.Schema{m.schema} }

func (m *requests) Observe(o *exchange.Observation, tables []*bucket.Table) { count(m, o, tables[0]) }

func (m *requests) names(o *exchange.Observation) []string {
	prefix(m.keys, o.Exchange)
	m.fill(o.Exchange, m.keys[2:])
	return m.keys
}

func (m *requests) amounts(o *exchange.Observation) []int64 {
	if !o.HasRequest {
		return nil
	}
	m.values = [3]int64{0, wire(o), seen(o)}
	if o.Event == exchange.RequestSeen {
		m.values[0], m.values[1] = 1, 0
	}
	return m.values[:]
}

// domainBytes adds up volume: wire bytes by domain, upload and download apart.
type domainBytes struct {
	keys   [3]string
	values [5]int64
}

func (*domainBytes) Tables() []bucket.Schema {
	return []bucket.Schema{{
		Name: "domain_bytes", Version: 1,
		Keys: []string{KeyMirror, KeyRole, "domain"},
		Measures: []bucket.Measure{
			{Name: "volume", Kind: bucket.Sum, Unit: "By"},
			{Name: "upload", Kind: bucket.Sum, Unit: "By"},
			{Name: "download", Kind: bucket.Sum, Unit: "By"},
			hits, lastSeen,
		},
		Views: []bucket.View{{
			Name: "volume", Title: "Volume by domain", By: []string{"domain"}, Hits: "volume",
			Show: []string{MeasureHits, "upload", "download", MeasureLastSeen},
		}},
	}}
}

func (m *domainBytes) Observe(o *exchange.Observation, tables []*bucket.Table) {
	count(m, o, tables[0])
}

func (m *domainBytes) names(o *exchange.Observation) []string {
	prefix(m.keys[:], o.Exchange)
	m.keys[2] = orAbsent(o.Domain)
	return m.keys[:]
}

func (m *domainBytes) amounts(o *exchange.Observation) []int64 {
	if o.Event == exchange.RequestSeen {
		return nil
	}
	m.values = [5]int64{wire(o), int64(o.NewRequestWireBytes), int64(o.NewResponseWireBytes), 0, seen(o)}
	if o.Event == exchange.Outcome && o.HasRequest {
		m.values[3] = 1
	}
	return m.values[:]
}

// server counts responses by the address that gave them, with their ttfb.
type server struct {
	texts  texts[netip.AddrPort]
	keys   [3]string
	values [4]int64
}

func (*server) Tables() []bucket.Schema {
	return []bucket.Schema{{
		Name: "server", Version: 1,
		Keys:     []string{KeyMirror, KeyRole, "server"},
		Measures: []bucket.Measure{{Name: MeasureHits, Kind: bucket.Sum, Unit: "{response}"}, volume, ttfb, lastSeen},
		Views: []bucket.View{{
			Name: "server", Title: "Response times by server", By: []string{"server"}, Hits: MeasureHits,
			Show: []string{MeasureTTFB, MeasureLastSeen},
		}},
	}}
}

func (m *server) Observe(o *exchange.Observation, tables []*bucket.Table) { count(m, o, tables[0]) }

func (m *server) names(o *exchange.Observation) []string {
	prefix(m.keys[:], o.Exchange)
	m.keys[2] = m.texts.of(o.Server, netip.AddrPort.String)
	return m.keys[:]
}

func (m *server) amounts(o *exchange.Observation) []int64 {
	if o.Event == exchange.RequestSeen {
		return nil
	}
	m.values = [4]int64{0, wire(o), -1, seen(o)}
	if o.Event == exchange.Outcome && o.HasResponse {
		m.values[0], m.values[2] = 1, firstByte(o.Exchange)
	}
	return m.values[:]
}

// routes counts outcomes by everything that a drill-down asks for.
type routes struct {
	keys   [6]string
	values [4]int64
}

func (*routes) Tables() []bucket.Schema {
	return []bucket.Schema{{
		Name: "routes", Version: 1,
		Keys:     []string{KeyMirror, KeyRole, "domain", "section", "method", "status"},
		Measures: []bucket.Measure{{Name: MeasureHits, Kind: bucket.Sum, Unit: "{exchange}"}, volume, ttfb, lastSeen},
		Views: []bucket.View{{
			Name: "routes", Title: "Routes", By: []string{"section", "method", "status"}, Hits: MeasureHits,
			Show: []string{MeasureBytes, MeasureTTFB, MeasureLastSeen},
		}},
	}}
}

func (m *routes) Observe(o *exchange.Observation, tables []*bucket.Table) { count(m, o, tables[0]) }

func (m *routes) names(o *exchange.Observation) []string {
	x := o.Exchange
	prefix(m.keys[:], x)
	m.keys[2], m.keys[3], m.keys[4], m.keys[5] = orAbsent(x.Domain), orAbsent(x.Section), method(x), status(x)
	return m.keys[:]
}

func (m *routes) amounts(o *exchange.Observation) []int64 {
	if o.Event == exchange.RequestSeen {
		return nil
	}
	m.values = [4]int64{0, wire(o), -1, seen(o)}
	if o.Event == exchange.Outcome {
		m.values[0], m.values[2] = 1, firstByte(o.Exchange)
	}
	return m.values[:]
}
