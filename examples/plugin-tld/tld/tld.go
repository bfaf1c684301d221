// Package tld is a worked example of a statistic made outside httpctl: it
// counts requests and wire bytes by top-level domain ("org", "com").
//
// Linking the package into a program makes the statistic available; listing
// "tld" under `statistics` in the configuration keeps it.
package tld

import (
	"strings"

	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/exchange"
	"github.com/httpctl/httpctl/pkg/stat"
)

// Name is what the configuration lists, the name of the table, and what
// `httpctl top` takes.
const Name = "tld"

func init() { stat.Register(Name, func() stat.Module { return new(module) }) }

// module is one instance of the statistic: each pipeline has its own, so it
// needs no lock. The arrays are scratch memory, so that Observe does not
// allocate; Add copies what it keeps.
type module struct {
	keys   [3]string
	values [3]int64
}

var _ stat.Module = (*module)(nil)

// Tables describes the table. The description travels with the numbers: the
// aggregator and httpctl can merge, filter and show the table without having
// this package linked in.
func (*module) Tables() []bucket.Schema {
	return []bucket.Schema{{
		Name:    Name,
		Version: 1, // to be raised when a column changes its meaning
		// "mirror" and "role" make fleet totals and --role work.
		Keys: []string{stat.KeyMirror, stat.KeyRole, "tld"},
		Measures: []bucket.Measure{
			{Name: stat.MeasureHits, Kind: bucket.Sum, Unit: "{request}"}, // the first ranks the rows
			{Name: stat.MeasureBytes, Kind: bucket.Sum, Unit: "By"},
			{Name: stat.MeasureLastSeen, Kind: bucket.Max, Unit: "ns"},
		},
		Views: []bucket.View{{
			Name: Name, Title: "Top-level domains", By: []string{"tld"},
			Hits: stat.MeasureHits, Show: []string{stat.MeasureBytes, stat.MeasureLastSeen},
		}},
	}}
}

// Observe counts a request when its head is complete, which is what rates are
// made of, and its bytes as they become known.
func (m *module) Observe(o *exchange.Observation, tables []*bucket.Table) {
	if !o.HasRequest {
		return // a response alone has no domain
	}
	m.keys = [3]string{o.MirrorKey(), o.Role.String(), Of(o.Domain)}
	switch o.Event {
	case exchange.RequestSeen:
		m.values = [3]int64{1, 0, o.Time}
	case exchange.Progress, exchange.Outcome:
		m.values = [3]int64{0, int64(o.NewRequestWireBytes + o.NewResponseWireBytes), o.Time}
	}
	tables[0].Add(m.keys[:], m.values[:])
}

// Of returns the top-level domain: the last label of a name, "(address)" for
// an IP literal, and "(local)" for a name of one label.
func Of(domain string) string {
	if domain == "" || domain == exchange.Invalid {
		return exchange.Invalid
	}
	if strings.HasPrefix(domain, "[") {
		return "(address)"
	}
	i := strings.LastIndexByte(domain, '.')
	if i < 0 {
		return "(local)"
	}
	last := domain[i+1:]
	if strings.Trim(last, "0123456789") == "" {
		return "(address)" // no top-level domain is all digits (RFC 3696 section 2)
	}
	return last
}
