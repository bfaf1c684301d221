package test

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/exchange"
	"github.com/httpctl/httpctl/pkg/stat"
	httpctlv1 "github.com/httpctl/httpctl/proto/httpctl/v1"
)

// known is one exchange of the buckets of TestTop.
type known struct {
	host, domain, section, method, status, role, server, client, agent string
	at                                                                 int64
	up, down                                                           int64
}

// column is what a filter compares.
func (k *known) column(name string) string {
	return map[string]string{"host": k.host, "domain": k.domain, "section": k.section, "method": k.method, "status": k.status, "role": k.role, "server": k.server}[name]
}

// key is the exchange's row in a top list, as CSV shows it.
func (k *known) key(dimension string) string {
	return map[string]string{"section": k.section, "domain": k.domain, "user_agent": strings.ReplaceAll(k.agent, "\x1b", `\x1b`), "method": k.method, "status": k.status,
		"volume": k.domain, "server": k.server, "client_ip": k.client, "routes": k.section + " " + k.method + " " + k.status}[dimension]
}

var topFilters = map[string][]string{
	"section": {"host", "domain", "section", "role"}, "domain": {"host", "domain", "role"}, "user_agent": {"host", "role"},
	"method": {"host", "method", "role"}, "status": {"host", "method", "status", "role"}, "volume": {"host", "domain", "role"},
	"server": {"host", "role", "server"}, "client_ip": {"host", "role"}, "routes": {"host", "domain", "section", "method", "status", "role"},
}

// TestTop asks for every top list with every filter and range, and compares
// the answers with the exchanges that the buckets were made of, and the forms
// of output with each other.
func TestTop(t *testing.T) {
	t.Parallel()
	c := newCenter(t, nil)
	var all []known
	// Two hosts, each with an interval of this hour and one before it.
	for h := byte(1); h <= 2; h++ {
		f := feed(t, c, h)
		for i, start := range []int64{f.ago(2 * time.Hour), f.ago(10 * time.Minute)} {
			var list []known
			for n := range 40 + 17*i + 5*int(h) {
				k := known{
					host: fmt.Sprintf("web-%d", h), domain: fmt.Sprintf("site%d.example.org", n%3), method: []string{"GET", "POST"}[n%7/5],
					status: []string{"200", "200", "404", "503", "500"}[n%5], role: []string{"server", "server", "client", "transit"}[n%4],
					server: fmt.Sprintf("192.0.2.%d:80", n%2+1), client: fmt.Sprintf("198.51.100.%d", n%4), agent: fmt.Sprintf("walker/%d (of many\x1b)", n%6),
					at: start + int64(n)*int64(time.Millisecond), up: int64(100 + n), down: int64(1000 + 97*n),
				}
				k.section = k.domain + []string{"/", "/cart", "/a b"}[n%11%3]
				list = append(list, k)
			}
			b := f.make(start, 0)
			b.Counters[exchange.Requests] = uint64(len(list))
			fill(t, b, list)
			if got := f.send(b); got != httpctlv1.BucketStatus_BUCKET_STATUS_STORED {
				t.Fatalf("a bucket is %v", got)
			}
			all = append(all, list...)
		}
	}
	hourAgo := time.Now().Add(-time.Hour).UnixNano()
	recent := func(k *known) bool { return k.at >= hourAgo }
	by := func(column string, values ...string) func(*known) bool {
		return func(k *known) bool { return recent(k) && slices.Contains(values, k.column(column)) }
	}
	cases := []struct {
		args   string
		column string // that must be among the filters
		keep   func(*known) bool
	}{
		{"", "host", recent},
		{"--host web-1", "host", by("host", "web-1")},
		{"--host web-1,web-2", "host", recent},
		{"--domain SITE1.example.org", "domain", by("domain", "site1.example.org")},
		{"--section site0.example.org/cart --section site2.example.org/", "section", by("section", "site0.example.org/cart", "site2.example.org/")},
		{"--method POST", "method", by("method", "POST")},
		{"--status 503", "status", by("status", "503")},
		{"--status 5xx", "status", by("status", "503", "500")},
		{"--role client,transit", "role", by("role", "client", "transit")},
		{"--filter method=POST", "method", by("method", "POST")},
		{"--status 503 --filter status=404", "status", by("status", "503", "404")},
		{"--filter server=192.0.2.2:80", "server", by("server", "192.0.2.2:80")},
		{"--since 3h", "host", func(*known) bool { return true }},
		{"--since 3h --until 1h", "host", func(k *known) bool { return !recent(k) }},
		{"--until 90m", "host", func(k *known) bool { return !recent(k) }}, // the hour before
		{"--until 5h", "host", func(*known) bool { return false }},
	}
	run := func(args ...string) said {
		return try(t, func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, "TZ=UTC") }, slices.Concat([]string{"httpctl"}, args, []string{"--aggregator", c.address()})...)
	}
	for dimension, filters := range topFilters {
		t.Run(dimension, func(t *testing.T) {
			for _, x := range cases {
				args := append([]string{"top", dimension, "-n", "1000"}, strings.Fields(x.args)...)
				got := run(append(args, "-o", "json")...)
				if !slices.Contains(filters, x.column) {
					if want := "cannot be filtered by " + x.column + "; it takes: host, "; got.code != 2 || !strings.Contains(got.stderr, want) || got.stdout != "" {
						t.Errorf("%s: exit code %d, %q; want 2 and %q", strings.Join(args, " "), got.code, got.stderr, want)
					}
					continue
				}
				if got.code != 0 {
					t.Errorf("%s: exit code %d: %s", strings.Join(args, " "), got.code, got.stderr)
					continue
				}
				hits, bytes, total := map[string]int64{}, map[string]int64{}, int64(0)
				for i := range all {
					if k := &all[i]; x.keep(k) {
						hits[k.key(dimension)]++
						bytes[k.key(dimension)] += k.up + k.down
						total++
						if dimension == "volume" {
							total += k.up + k.down - 1
						}
					}
				}
				rows := sameForms(t, args, got.stdout, run)
				if want := slices.Collect(maps.Keys(hits)); len(rows) != len(want) {
					t.Errorf("%s: %d rows, want %d: %q", strings.Join(args, " "), len(rows), len(want), want)
				}
				sum := int64(0)
				for _, row := range rows {
					key := row["key"]
					if dimension == "routes" {
						key = row["section"] + " " + row["method"] + " " + row["status"]
					}
					first := row["hits"]
					if dimension == "volume" {
						first = row["volume_bytes"]
						if want := fmt.Sprint(bytes[key]); first != want {
							t.Errorf("%s: %q has a volume of %s, want %s", strings.Join(args, " "), key, first, want)
						}
					}
					if row["hits"] != fmt.Sprint(hits[key]) || row["error"] != "0" {
						t.Errorf("%s: %q = %s ± %s, want %d", strings.Join(args, " "), key, row["hits"], row["error"], hits[key])
					}
					if b, ok := row["bytes"]; ok && b != fmt.Sprint(bytes[key]) {
						t.Errorf("%s: %q has %s bytes, want %d", strings.Join(args, " "), key, b, bytes[key])
					}
					n, _ := strconv.ParseInt(first, 10, 64)
					sum += n
				}
				if sum != total {
					t.Errorf("%s: the rows add up to %d, want %d", strings.Join(args, " "), sum, total)
				}
			}
		})
	}
}

// fill puts exchanges into a bucket as the statistics count them.
func fill(t *testing.T, b *bucket.Bucket, list []known) {
	t.Helper()
	b.Tables = nil
	for _, name := range stat.Builtin {
		m, err := stat.New(name)
		if err != nil {
			t.Fatal(err)
		}
		var tables []*bucket.Table
		for _, s := range m.Tables() {
			tables = append(tables, bucket.NewTable(s, 1000))
		}
		for i := range list {
			k := &list[i]
			status, _ := strconv.Atoi(k.status)
			x := &exchange.Exchange{
				Role:   map[string]exchange.Role{"server": exchange.Server, "client": exchange.Client, "transit": exchange.Transit}[k.role],
				Server: netip.MustParseAddrPort(k.server), Client: netip.AddrPortFrom(netip.MustParseAddr(k.client), 4000),
				HasRequest: true, HasResponse: true, Method: k.method, Domain: k.domain, Section: k.section, UserAgent: k.agent, Status: status,
				RequestStart: k.at, RequestHead: k.at, RequestEnd: k.at, ResponseStart: k.at + int64(i+1)*1234567, ResponseHead: k.at + int64(i+1)*1234567, ResponseEnd: k.at + int64(i+1)*1234567,
				RequestBytes: uint64(k.up), RequestWireBytes: uint64(k.up), ResponseBytes: uint64(k.down), ResponseWireBytes: uint64(k.down), End: exchange.Complete,
			}
			m.Observe(&exchange.Observation{Event: exchange.RequestSeen, Time: k.at, Exchange: x}, tables)
			m.Observe(&exchange.Observation{Event: exchange.Outcome, Time: k.at, Exchange: x, NewRequestBytes: uint64(k.up), NewRequestWireBytes: uint64(k.up),
				NewResponseBytes: uint64(k.down), NewResponseWireBytes: uint64(k.down)}, tables)
		}
		b.Tables = append(b.Tables, tables...)
	}
}

// columnsApart is what separates the columns of a table.
var columnsApart = regexp.MustCompile(` {2,}`)

// sameForms compares the forms of one answer and returns its rows as CSV has
// them, by column.
func sameForms(t *testing.T, args []string, inJSON string, run func(...string) said) (rows []map[string]string) {
	t.Helper()
	what := strings.Join(args, " ")
	in := func(form string) string {
		got := run(append(slices.Clone(args), "-o", form)...)
		if got.code != 0 || got.stderr != "" {
			t.Fatalf("%s -o %s: exit code %d: %s", what, form, got.code, got.stderr)
		}
		return got.stdout
	}
	records, err := csv.NewReader(strings.NewReader(in("csv"))).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var answer struct{ Rows []map[string]any }
	d := json.NewDecoder(bytes.NewReader([]byte(inJSON)))
	d.UseNumber()
	if err := d.Decode(&answer); err != nil {
		t.Fatal(err)
	}
	names := records[0]
	if len(records)-1 != len(answer.Rows) {
		t.Fatalf("%s: %d rows of CSV, %d of JSON", what, len(records)-1, len(answer.Rows))
	}
	tables := map[string][][]string{}
	for _, form := range []string{"wide", "table"} {
		for i, line := range strings.Split(strings.TrimSpace(in(form)), "\n") {
			note := line == "Nothing was seen." || strings.HasPrefix(line, "There is ") || strings.HasPrefix(line, "Not seen: ") ||
				strings.HasPrefix(line, "In all: ") || strings.HasPrefix(line, "Response time of all: ")
			if i != 0 && !strings.HasPrefix(line, "─") && !note { // the title, the rule
				tables[form] = append(tables[form], columnsApart.Split(strings.TrimSpace(line), -1))
			}
		}
		if len(tables[form]) != len(records) {
			t.Fatalf("%s -o %s: %d lines, %d of CSV", what, form, len(tables[form]), len(records))
		}
	}
	wide, narrow := tables["wide"], tables["table"]
	if len(wide[0]) != len(names) {
		t.Fatalf("%s: headings %q, of CSV %q", what, wide[0], names)
	}
	for i, record := range records[1:] {
		row := map[string]string{}
		if len(answer.Rows[i]) != len(names) {
			t.Errorf("%s: JSON has %d members, CSV %d columns", what, len(answer.Rows[i]), len(names))
		}
		for j, name := range names {
			row[name] = record[j]
			value, ok := answer.Rows[i][name]
			text := fmt.Sprint(value)
			if value == nil {
				text = ""
			}
			if s, isText := value.(string); isText {
				text = strings.ReplaceAll(s, "\x1b", `\x1b`)
			}
			if !ok || text != record[j] && !(value != nil && near(text, record[j], 1e-12)) {
				t.Errorf("%s: row %d has %s = %q in JSON, %q in CSV", what, i+1, name, text, record[j])
			}
		}
		cells := wide[i+1]
		for j, name := range names {
			if len(cells) != len(names) || !shows(cells[j], record[j]) {
				t.Errorf("%s: row %d has %s = %q in the form wide, %q in CSV", what, i+1, name, cells[min(j, len(cells)-1)], record[j])
			}
		}
		k := 0
		for j, head := range wide[0] {
			if k < len(narrow[0]) && narrow[0][k] == head {
				if k >= len(narrow[i+1]) || j >= len(cells) || narrow[i+1][k] != cells[j] {
					t.Errorf("%s: row %d has %s in %q in the form table, in %q in wide", what, i+1, head, narrow[i+1], cells)
				}
				k++
			}
		}
		if k != len(narrow[0]) {
			t.Errorf("%s: headings of the form table %q, of wide %q", what, narrow[0], wide[0])
		}
		rows = append(rows, row)
	}
	return rows
}

func near(a, b string, tolerance float64) bool {
	x, err := strconv.ParseFloat(a, 64)
	y, err2 := strconv.ParseFloat(b, 64)
	return err == nil && err2 == nil && math.Abs(x-y) <= tolerance*math.Max(math.Abs(x), math.Abs(y))
}

var sizes = map[string]float64{"B": 1, "KiB": 1 << 10, "MiB": 1 << 20}

// shows reports whether a cell for people says what CSV says.
func shows(cell, exact string) bool {
	if cell == exact || cell == "-" && exact == "" || strings.ReplaceAll(cell, ",", "") == exact {
		return true
	}
	if n, ok := strings.CutSuffix(cell, "%"); ok {
		p, err := strconv.ParseFloat(n, 64)
		f, err2 := strconv.ParseFloat(exact, 64)
		return err == nil && err2 == nil && math.Abs(p-100*f) <= 0.0501
	}
	if n, unit, ok := strings.Cut(cell, " "); ok && sizes[unit] > 0 {
		f, err := strconv.ParseFloat(n, 64)
		return err == nil && near(fmt.Sprint(f*sizes[unit]), exact, 0.006)
	}
	if at, err := time.Parse(time.RFC3339Nano, exact); err == nil {
		return strings.HasSuffix(cell, at.UTC().Format("15:04:05"))
	}
	if d, err := time.ParseDuration(cell); err == nil {
		return near(fmt.Sprint(d.Seconds()), exact, 0.006)
	}
	return false
}
