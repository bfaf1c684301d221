package tld

import (
	"strings"
	"testing"

	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/exchange"
	"github.com/httpctl/httpctl/pkg/stat"
)

func TestOf(t *testing.T) {
	for domain, want := range map[string]string{
		"www.example.org": "org",
		"example.com":     "com",
		"localhost":       "(local)",
		"192.0.2.1":       "(address)",
		"[2001:db8::1]":   "(address)",
		"(invalid)":       "(invalid)",
		"":                "(invalid)",
	} {
		if got := Of(domain); got != want {
			t.Errorf("Of(%q) = %q, want %q", domain, got, want)
		}
	}
}

// TestObserve uses the statistic as the program does: by its registered name.
func TestObserve(t *testing.T) {
	m, err := stat.New(Name)
	if err != nil {
		t.Fatal(err)
	}
	schema := m.Tables()[0]
	if err := schema.Validate(); err != nil {
		t.Fatal(err)
	}
	table := bucket.NewTable(schema, 100)
	observe := func(e exchange.Event, domain string, bytes uint64) {
		m.Observe(&exchange.Observation{
			Event: e, Time: 5, NewResponseWireBytes: bytes,
			Exchange: &exchange.Exchange{HasRequest: domain != "", Domain: domain, Role: exchange.Server},
		}, []*bucket.Table{table})
	}
	for _, d := range []string{"a.example.org", "b.example.org", "example.com"} {
		observe(exchange.RequestSeen, d, 0)
		observe(exchange.Progress, d, 40)
		observe(exchange.Outcome, d, 60)
	}
	observe(exchange.Outcome, "", 1000) // a response alone

	top := table.Top(10, schema.Measure(stat.MeasureHits))
	if len(top) != 2 {
		t.Fatalf("%d rows, want 2", len(top))
	}
	if r := top[0]; strings.Join(r.Keys, " ") != "0 server org" || r.Values[0] != 2 || r.Values[1] != 200 || r.Values[2] != 5 {
		t.Errorf("first row = %v %v, want org with 2 hits and 200 bytes", r.Keys, r.Values)
	}
}

func TestObserveDoesNotAllocate(t *testing.T) {
	m := new(module)
	tables := []*bucket.Table{bucket.NewTable(m.Tables()[0], 10)}
	o := &exchange.Observation{Time: 1, Exchange: &exchange.Exchange{HasRequest: true, Domain: "www.example.org"}}
	if n := testing.AllocsPerRun(100, func() { m.Observe(o, tables) }); n != 0 {
		t.Errorf("Observe allocates %v times, want 0", n)
	}
}
