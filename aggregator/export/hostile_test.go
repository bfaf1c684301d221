package export

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/httpctl/httpctl/pkg/exchange"
)

// TestNewDomainsForHours: who sends another hundred domains in each bucket gets max_domains series an hour and no more, and those that are
// asked for all the time keep theirs.
func TestNewDomainsForHours(t *testing.T) {
	cfg := DefaultConfig()
	cfg.MaxDomains = 20
	a := New(cfg, began)
	ever := map[string]bool{}
	const hours, every = 12, 10 * time.Minute
	next := 0
	for at := time.Duration(0); at < hours*time.Hour; at += every {
		domains := []string{"real.example.org", "real.example.org", "real.example.org"}
		for range 100 {
			next++
			domains = append(domains, fmt.Sprintf("x%d.example.org", next))
		}
		a.Add(began.Add(at), one(t, a, web, domains...))
		now := map[string]bool{}
		for _, f := range a.Snapshot(nil) {
			for _, p := range f.Points {
				for _, attr := range p.Attributes {
					if attr.Key == attrDomain {
						now[attr.Value], ever[attr.Value] = true, true
					}
				}
			}
		}
		if len(now) > cfg.MaxDomains+1 {
			t.Fatalf("after %v there are series of %d domains, want at most %d and %s", at, len(now), cfg.MaxDomains, Other)
		}
	}
	if most := 2 + hours*(cfg.MaxDomains-1); len(ever) > most {
		t.Errorf("in %d hours %d domains had series, want at most %d", hours, len(ever), most)
	}
	if len(ever) < hours*(cfg.MaxDomains-1)/2 {
		t.Errorf("in %d hours %d domains had series, want places to change hands", hours, len(ever))
	}
	if got, want := values(a.Snapshot(nil), "httpctl_traffic_requests_total", "server_address")["real.example.org"], 3.0*hours*6; got != want {
		t.Errorf("the domain that was there all the time has %v requests, want %v", got, want)
	}
	rows := len(a.rest.methods)
	for _, h := range append(slices.Collect(maps.Values(a.hosts)), a.rest) {
		rows += len(h.methods)
		for _, g := range h.groups {
			rows += rowsOf(g)
		}
	}
	if s := a.Stats(); s.Rows != rows {
		t.Errorf("%d rows are said to be in use, there are %d", s.Rows, rows)
	}
}

// TestNames: what an agent says is a label that receivers take, whatever it is.
func TestNames(t *testing.T) {
	a := New(DefaultConfig(), began)
	long := strings.Repeat("\u00fc", 3000)
	names := []string{"a\x00b", "a\nb", "\xff\xfe.example.org", "a\u0085b", `a"b\c{d="e"}`, long + "1", long + "2", "\u202egro.elpmaxe", "a\x7fb"}
	var list []seen
	for _, n := range names {
		list = append(list, seen{domain: n, method: "GET", status: 200, ttfb: 1, role: exchange.Server})
	}
	b := bucketOf(t, web, 1000, list)
	b.HostName = "web\x00\n\xff"
	a.Add(began, digest(t, a, b))
	found := map[string]bool{}
	for _, f := range a.Snapshot(nil) {
		for _, p := range f.Points {
			for _, attr := range p.Attributes {
				if len(attr.Value) > maxLabel || !utf8.ValidString(attr.Value) || strings.ContainsFunc(attr.Value, unicode.IsControl) {
					t.Fatalf("%s has %s = %q", f.Name, attr.Key, attr.Value)
				}
				if attr.Key == attrDomain {
					found[attr.Value] = true
				}
			}
		}
	}
	if len(found) != len(names)-3 { // four differ in a control character only
		t.Errorf("%d domains are %d in the export: %.50q", len(names), len(found), slices.Sorted(maps.Keys(found)))
	}
}

// TestRenames: a host that is called otherwise begins anew, and one that always is does not fill the receiver with series.
func TestRenames(t *testing.T) {
	a := New(DefaultConfig(), began)
	named := func(at time.Duration, name string) {
		t.Helper()
		b := bucketOf(t, web, 10, []seen{{domain: "a.example.org", method: "GET", status: 200, ttfb: 1, role: exchange.Server}})
		b.HostName = name
		a.Add(began.Add(at), digest(t, a, b))
	}
	of := func() map[string]float64 {
		return values(a.Snapshot(nil), "httpctl_traffic_requests_total", "host_name")
	}
	named(0, "one")
	named(time.Second, "one")
	named(2*time.Second, "two")
	named(3*time.Second, "two")
	named(3*time.Second, "")
	equal(t, "renamed", of(), map[string]float64{"two": 3})
	for i := range 100 {
		named(time.Duration(4+i)*time.Second, fmt.Sprint("x", i))
	}
	equal(t, "renamed all the time", of(), map[string]float64{fmt.Sprint("x", maxRenames-2): 98})
	named(idleAfter, "three")
	named(idleAfter, "four")
	equal(t, "an hour later", of(), map[string]float64{"four": 1})
	if s := a.Stats(); s.Hosts != 1 || s.Rows != 4 { // a domain and the place for its other answers, one answer, and a method
		t.Errorf("Stats = %+v, want 1 host with 4 rows", s)
	}
	if len(a.places["a.example.org"].on) != 1 {
		t.Error("the domain remembers hosts under their old names")
	}
	// A bucket that is late has the name of its time.
	b := bucketOf(t, web, 10, nil)
	b.HostName, b.Start = "old", start-1e9
	a.Add(began.Add(idleAfter+1), digest(t, a, b))
	equal(t, "a late bucket", of(), map[string]float64{"four": 1})
}

// TestManyIdle: thousands of places change hands at once, in the order in which they were idle.
func TestManyIdle(t *testing.T) {
	cfg := DefaultConfig()
	cfg.MaxDomains, cfg.MaxRows = 5000, 100_000
	a := New(cfg, began)
	fill := func(at time.Duration, prefix string, from, to int) {
		t.Helper()
		var list []seen
		for i := from; i < to; i++ {
			list = append(list, seen{domain: fmt.Sprintf("%s%d.example.org", prefix, i), method: "GET", status: 200, ttfb: 1, role: exchange.Server})
		}
		a.Add(began.Add(at), digest(t, a, bucketOf(t, web, 10_000, list)))
	}
	fill(0, "a", 0, 2500)
	fill(time.Second, "a", 2500, 5000)
	fill(idleAfter, "b", 0, 1000) // takes the first's
	fill(idleAfter+time.Second, "a", 4900, 5000)
	fill(idleAfter+time.Second, "b", 1000, 4000)
	left := map[string]int{}
	for d := range a.places {
		left[d[:1]]++
	}
	// The hundred that were asked for again, and what was idle for less long than 4,000 others.
	if left["a"] != 1000 || left["b"] != 4000 || a.places["a4999.example.org"] == nil {
		t.Errorf("places of %v, want 1000 of a, of which 100 are in use, and 4000 of b", left)
	}
}

// TestContradictingTables: histograms hold together whatever the tables of an agent say.
func TestContradictingTables(t *testing.T) {
	a := New(DefaultConfig(), began)
	r := rand.New(rand.NewPCG(4, 4))
	b, other := bucketOf(t, web, 50, draw(r, 300, 10)), bucketOf(t, web, 50, draw(r, 200, 10))
	for i := range b.Tables {
		if b.Tables[i].Schema.Name == "routes" {
			b.Tables[i] = other.Tables[i]
		}
	}
	a.Add(began, digest(t, a, b))
	for _, f := range a.Snapshot(nil) {
		for _, p := range f.Points {
			if p.Times == nil {
				continue
			}
			var all uint64
			for _, n := range p.Times.Buckets {
				all += n
			}
			if all != p.Times.Count {
				t.Errorf("%s %v: %d in buckets, %d counted", f.Name, p.Attributes, all, p.Times.Count)
			}
		}
	}
}
