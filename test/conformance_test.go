package test

import (
	"bytes"
	"context"
	"encoding/csv"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	agent "github.com/httpctl/httpctl/agent/app"
	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/exchange"
	"github.com/httpctl/httpctl/pkg/testkit"
)

const (
	// fewestCaptures is how many shared captures there are at least; fewer
	// means that the comparison did not happen.
	fewestCaptures = 63
	// agreed is the least mean F1 over captures of which all ways of counting
	// agree.
	agreed = 0.9
	// readDeadline is how long reading one capture may take; the largest takes
	// a tenth of a second.
	readDeadline = 30 * time.Second
)

// A conversation is what a capture holds: the messages by what identifies
// them, each with how often it occurs.
type conversation struct {
	messages map[string]int // request METHOD HOST, response STATUS
	requests map[string]int // method, host, target, user agent
	pairs    map[string]int // method, target, status ("-": none)
	sizes    map[string]int // method, target, status, content length of the response; method, target, that of the request
	waits    map[string]int // method, target, ttfb in nanoseconds
}

func newConversation() *conversation {
	return &conversation{
		messages: map[string]int{}, requests: map[string]int{}, pairs: map[string]int{},
		sizes: map[string]int{}, waits: map[string]int{},
	}
}

// A difference from the truth, by what is compared, and why it is right.
type difference struct {
	parts []string
	why   string
	// proof are packets of the capture that show it, and what they hold.
	proof []proof
}

type proof struct {
	packet int
	holds  string
}

// differs explains, by capture, what is not as the truth has it. An explanation
// that is not needed, or whose packets do not hold what it says, fails the test.
var differs = map[string]difference{
	"pcapplusplus__Pcap++Test__PcapExamples__example.pcap": {
		parts: []string{"pairs"},
		why:   "tshark does not link the 200 to its SUBSCRIBE, though there is nothing else on their connection",
		proof: []proof{{3416, "SUBSCRIBE /evt/CmnIfCfg HTTP/1.1\r\n"}, {3420, "HTTP/1.1 200 OK\r\n"}},
	},
	"suricata__http-evader__http-evader-382__input.pcap": {
		parts: []string{"sizes"},
		why:   "the status line holds a bare CR and `Transfer-Encoding:chunked`, which tshark takes for a field of its own; RFC 9112 section 2.2 has a recipient take a bare CR for a space, and the length is then that up to the end of the connection",
		proof: []proof{{5, "HTTP/1.1 200\rTransfer-Encoding:chunked\r\n"}},
	},
	"zeek__http__http-desync-request-response-5.pcap": {
		parts: []string{"pairs", "sizes", "waits"},
		why:   "the server sends three responses to one request; the first of them answers it, and tshark, which shows that one complete only with the surplus ones, links the request to the last",
		proof: []proof{{6, "GET / HTTP/1.1\r\n"}, {10, "HTTP/1.1 200 OK\r\n"}, {16, "HTTP/1.1 200 OK\r\n"}},
	},
	"zeek__http__methods.pcap": {
		parts: []string{"messages", "requests", "pairs", "sizes", "waits"},
		why:   "a request line without a target is no message; tshark shows two. Their 400 responses are counted, as without request",
		proof: []proof{{14, "OPTIONS HTTP/1.1\nHost: www.google.com\n\n"}, {34, "OPTIONS\nHost: www.google.com\n\n"}},
	},
	"zeek__http__query-method.pcap": {
		parts: []string{"messages", "requests", "pairs"},
		why:   "tshark 4.0 does not know the method QUERY",
		proof: []proof{{4, "QUERY /"}},
	},
}

// mostExcepted is how many captures of which all ways of counting agree may need
// an explanation.
const mostExcepted = 3

// TestConformance reads every shared capture and compares what it holds with
// what tshark, corrected by a scan of the raw bytes, saw. Its result is
// docs/conformance.md, which -update writes.
func TestConformance(t *testing.T) {
	dir := testkit.SharedCaptures(t)
	captures := readTable(t, filepath.Join(dir, "truth", "SUMMARY.tsv"))
	if len(captures) < fewestCaptures {
		t.Errorf("%d captures in SUMMARY.tsv, want at least %d", len(captures), fewestCaptures)
	}
	var page conformance
	var sum float64
	var scored, read int
	unused := maps.Clone(differs)
	for _, c := range captures {
		name := c["file"]
		got, err := readCapture(filepath.Join(dir, name))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		read++
		want := truthOf(t, filepath.Join(dir, "truth", name+".http.tsv"))
		explained, isExplained := differs[name]
		delete(unused, name)
		if len(want.messages) == 0 {
			if len(got.messages) > 0 {
				t.Errorf("%s has no HTTP; messages were invented: %v", name, got.messages)
			}
			page.without(c)
			continue
		}
		if c["agreement"] == "all" {
			sum += score(got.messages, want.messages)
			scored++
			if isExplained {
				page.excepted++
			}
			if slices.Contains(explained.parts, "messages") {
				t.Errorf("%s: all agree on its messages; there is no excuse", name)
			}
		}
		for _, part := range []struct {
			name      string
			got, want map[string]int
		}{
			{"messages", got.messages, want.messages}, {"requests", got.requests, want.requests},
			{"pairs", got.pairs, want.pairs}, {"sizes", overlap(got.sizes, want.sizes), want.sizes},
			{"waits", overlap(got.waits, want.waits), want.waits},
		} {
			excused := slices.Contains(explained.parts, part.name)
			if difference := compare(part.got, part.want); (difference != "") != excused {
				t.Errorf("%s: %s differ, explained %t:\n%s", name, part.name, excused, difference)
			}
		}
		if isExplained {
			checkProof(t, filepath.Join(dir, name), explained.proof)
		}
		page.with(c, got, want)
	}
	for name := range unused {
		t.Errorf("%s is explained, and is none of the captures", name)
	}
	if page.excepted > mostExcepted {
		t.Errorf("%d captures whose truth all agree on need an explanation, want at most %d", page.excepted, mostExcepted)
	}
	if read < fewestCaptures {
		t.Errorf("%d captures read, want at least %d", read, fewestCaptures)
	}
	if mean := sum / float64(scored); !(mean >= agreed) {
		t.Errorf("mean F1 of %d captures = %.4f, want at least %.2f", scored, mean, agreed)
	}
	path := filepath.Join(testkit.ModuleRoot(t), "docs", "conformance.md")
	if *update && !t.Failed() {
		if err := os.WriteFile(path, []byte(page.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != page.String() {
		t.Errorf("docs/conformance.md is out of date (%v): go test ./test -run Conformance -update", err)
	}
}

// conformance is the page that the comparison makes.
type conformance struct {
	rows, reasons                  strings.Builder
	http, exact, excepted, silent  int
	requests, responses, all, size int
}

// with adds a capture that holds HTTP.
func (p *conformance) with(c map[string]string, got, want *conversation) {
	gotRequests, gotResponses := count(got.messages)
	requests, responses := count(want.messages)
	verdict := "agrees"
	name := c["file"]
	if d, ok := differs[name]; ok {
		verdict = "[differs](#what-differs)"
		var packets []string
		for _, at := range d.proof {
			packets = append(packets, strconv.Itoa(at.packet))
		}
		noun := "packet"
		if len(packets) > 1 {
			noun = "packets"
		}
		fmt.Fprintf(&p.reasons, "- `%s` differs in %s because %s: %s %s.\n", name, strings.Join(d.parts, ", "), d.why, noun, strings.Join(packets, ", "))
	} else {
		p.exact++
	}
	p.http++
	p.requests += gotRequests
	p.responses += gotResponses
	if c["agreement"] == "all" {
		p.all++
	}
	p.size += total(want.sizes)
	of := func(got, want int) string {
		if got == want {
			return strconv.Itoa(got)
		}
		return fmt.Sprintf("%d of %d", got, want)
	}
	fmt.Fprintf(&p.rows, "| `%s` | %s | %s | %s | %s | %d | %s |\n", name, exercises(c), c["agreement"],
		of(gotRequests, requests), of(gotResponses, responses), total(want.sizes), verdict)
}

// without adds one that does not; none was invented there.
func (p *conformance) without(c map[string]string) {
	p.silent++
	fmt.Fprintf(&p.rows, "| `%s` | %s | %s | 0 | 0 | 0 | agrees |\n", c["file"], exercises(c), c["agreement"])
}

// tags are the words for what the truth's SUMMARY.tsv says of a capture; others are
// shown as they are, "" not at all.
var tags = map[string]string{
	"ether": "", "per-packet": "", "http1": "", "null": "BSD loopback", "raw": "raw IP", "rawip": "raw IP", "rawip4": "raw IP",
	"sll": "Linux cooked", "linux-sll": "Linux cooked", "linux-sll2": "Linux cooked 2", "wlan": "802.11", "ieee-802-11-radiotap": "802.11",
	"ip in ip": "IP in IP", "ipfrag": "IP fragments", "gre": "GRE", "geneve": "GENEVE", "gtp": "GTP-U", "vxlan": "VXLAN", "mpls": "MPLS",
	"vlan": "VLAN", "qinq": "QinQ", "ppp": "", "pppoe": "PPPoE", "socks": "SOCKS", "ipv6 and http": "IPv6", "dns": "DNS", "tls": "TLS",
	"quic": "QUIC", "h2": "HTTP/2", "retrans": "retransmissions", "ooo": "out of order", "midstream": "joined in the middle",
	"one sided": "one side only", "odd port": "other ports", "odd method": "other methods", "no http": "no HTTP", "no version": "no version in the request line",
	"content encoding": "content codings", "snaplen cut": "cut packets", "malformed": "malformed packets",
}

// exercises says what is peculiar in a capture.
func exercises(c map[string]string) string {
	var out []string
	for _, tag := range append([]string{c["link"]}, strings.Split(c["features"], ",")...) {
		tag = strings.ReplaceAll(strings.TrimPrefix(tag, "http_"), "_", " ")
		if words, ok := tags[tag]; ok {
			tag = words
		}
		if tag != "" && !slices.Contains(out, tag) {
			out = append(out, tag)
		}
	}
	if len(out) == 0 {
		return "plain requests"
	}
	return strings.Join(out, ", ")
}

func total(m map[string]int) (n int) {
	for _, v := range m {
		n += v
	}
	return n
}

// String is the page.
func (p *conformance) String() string {
	return fmt.Sprintf(`# Conformance

What `+"`httpctl read`"+` makes of captures from the test suites of other projects (Arkime, deepflow, mercury, PcapPlusPlus, Suricata,
Zeek), next to what is known of them. The captures are not part of this tree; with them beside it, a test compares,
fails where a difference is not explained below or an explanation does not hold, and writes this page
(`+"`go test ./test -run Conformance -update`"+`).

Compared are every request with method, host, target and user agent, every final response with its status, which
answers which, the content bytes of both, and the time to the first byte. The truth is that of tshark 4.0,
corrected stream by stream by a scan of the raw bytes. *Truth* says who agrees on the number of messages: tshark, a scan of single
segments (raw) and tcpflow. Sizes are compared where the truth has one: with a content coding that of Content-Length only, as tshark
measures after decompression. Interim responses are counted apart here and are responses there; 101 is final.

- %d captures hold HTTP, with %d requests and %d responses; %d agree in everything, %d are explained.
- Of the %d on whose messages all agree, all messages agree; %d of these are explained for something else.
- %d sizes of bodies were compared.
- %d captures hold no HTTP, and none is seen in them.

## Captures

| capture | exercises | truth | requests | responses | sizes compared | |
|---|---|---|---|---|---|---|
%s
## What differs

%s`, p.http, p.requests, p.responses, p.exact, p.http-p.exact, p.all, p.excepted, p.size, p.silent, p.rows.String(), p.reasons.String())
}

// checkProof wants each packet to hold what an explanation says.
func checkProof(t *testing.T, path string, want []proof) {
	t.Helper()
	if len(want) == 0 {
		t.Errorf("%s: an explanation without a packet", path)
	}
	frames := readFrames(t, path)
	for _, p := range want {
		if p.packet > len(frames) || !bytes.Contains(frames[p.packet-1].Data, []byte(p.holds)) {
			t.Errorf("%s: packet %d does not hold %q", filepath.Base(path), p.packet, p.holds)
		}
	}
}

// readCapture reads a capture as `httpctl read --exchanges` does. It fails when
// that takes too long.
func readCapture(path string) (*conversation, error) {
	c := newConversation()
	options := agent.ReadOptions{Settings: config.DefaultSettings(), Config: agent.DefaultConfig()}
	options.Settings.MaxStrLength = 65536 // whole targets are compared
	options.Exchange = func(x *exchange.Exchange) error {
		status := "-"
		if x.HasResponse && x.Status != 0 {
			status = strconv.Itoa(x.Status)
			c.messages["response "+status]++
		}
		if !x.HasRequest {
			return nil
		}
		c.messages["request "+x.Method+" "+x.Host]++
		c.requests[strings.Join([]string{x.Method, x.Host, x.Target, x.UserAgent}, " ")]++
		c.pairs[x.Method+" "+x.Target+" "+status]++
		if x.RequestEnd != 0 && x.End != exchange.Lost {
			c.sizes[fmt.Sprint(x.Method, " ", x.Target, " sent ", x.RequestBytes)]++
		}
		if x.HasResponse && x.End != exchange.Lost {
			c.sizes[fmt.Sprint(x.Method, " ", x.Target, " ", status, " ", x.ResponseBytes)]++
		}
		if ttfb, _, ok := x.TTFB(); ok {
			c.waits[fmt.Sprint(x.Method, " ", x.Target, " ", ttfb)]++
		}
		return nil
	}
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		_, err := agent.Read(ctx, []string{path}, options)
		done <- err
	}()
	select {
	case err := <-done:
		return c, err
	case <-time.After(readDeadline):
		return nil, fmt.Errorf("was not read within %v", readDeadline)
	}
}

// truthOf reads the truth of a capture; without a file it holds no HTTP.
func truthOf(t *testing.T, path string) *conversation {
	t.Helper()
	c := newConversation()
	if _, err := os.Stat(path); os.IsNotExist(err) {
		return c
	}
	rows := readTable(t, path)
	answers := map[string][]map[string]string{} // by stream and frame of the request
	for _, r := range rows {
		if r["kind"] != "resp" || interim(r) {
			continue
		}
		c.messages["response "+r["status"]]++
		key := r["stream"] + " " + r["peer_frame"]
		answers[key] = append(answers[key], r)
	}
	for _, r := range rows {
		if r["kind"] != "req" {
			continue
		}
		method, host, target, agent := r["method"], unescape(r["host"]), unescape(r["uri"]), unescape(r["user_agent"])
		c.messages["request "+method+" "+host]++
		c.requests[strings.Join([]string{method, host, target, agent}, " ")]++
		if sent, known := bodyOf(r); known {
			c.sizes[fmt.Sprint(method, " ", target, " sent ", sent)]++
		}
		key := r["stream"] + " " + r["frame"]
		if len(answers[key]) == 0 {
			c.pairs[method+" "+target+" -"]++
			continue
		}
		a := answers[key][0]
		answers[key] = answers[key][1:]
		c.pairs[method+" "+target+" "+a["status"]]++
		if length, known := bodyOf(a); known && method != "HEAD" && a["status"] != "304" {
			c.sizes[fmt.Sprint(method, " ", target, " ", a["status"], " ", length)]++
		}
		if seconds := a["wait_s"]; seconds != "" {
			wait, err := time.ParseDuration(seconds + "s")
			if err != nil {
				t.Fatalf("%s: wait_s %q: %v", path, seconds, err)
			}
			c.waits[fmt.Sprint(method, " ", target, " ", max(wait, 0).Nanoseconds())]++
		}
	}
	return c
}

// bodyOf is the content length of a message, if the truth knows it: neither of
// a body that did not complete nor of one that was decompressed.
func bodyOf(r map[string]string) (length string, known bool) {
	switch {
	case r["transfer_encoding"] != "":
		return r["decoded_body_len"], r["content_encoding"] == "" && r["decoded_body_len"] != ""
	case strings.HasSuffix(r["reading"], "_hdr"):
		return "", false
	}
	return r["content_length"], r["content_length"] != ""
}

// interim reports whether a response is 1xx; 101 is final.
func interim(r map[string]string) bool {
	return strings.HasPrefix(r["status"], "1") && r["status"] != "101"
}

// unescape undoes \xNN and \\.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b []byte
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) && s[i+1] == 'x' {
			if n, err := strconv.ParseUint(s[i+2:i+4], 16, 8); err == nil {
				b = append(b, byte(n))
				i += 3
				continue
			}
		}
		if s[i] == '\\' && i+1 < len(s) && s[i+1] == '\\' {
			i++
		}
		b = append(b, s[i])
	}
	return string(b)
}

// readTable reads a file of tab-separated values as rows by column.
func readTable(t *testing.T, path string) (rows []map[string]string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := csv.NewReader(f)
	r.Comma, r.LazyQuotes, r.FieldsPerRecord = '\t', true, -1
	all, err := r.ReadAll()
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	for _, fields := range all[1:] {
		row := map[string]string{}
		for i, field := range fields {
			row[all[0][i]] = field
		}
		rows = append(rows, row)
	}
	return rows
}

// score is the F1 of two multisets of messages.
func score(got, want map[string]int) float64 {
	var hits, all int
	for key, n := range want {
		hits += min(n, got[key])
		all += n
	}
	for _, n := range got {
		all += n
	}
	if all == 0 {
		return 1
	}
	return 2 * float64(hits) / float64(all)
}

func count(messages map[string]int) (requests, responses int) {
	for key, n := range messages {
		if strings.HasPrefix(key, "request ") {
			requests += n
		} else {
			responses += n
		}
	}
	return requests, responses
}

// overlap is what got has of keys that begin as one of want's does: what the
// truth says something about.
func overlap(got, want map[string]int) map[string]int {
	about := map[string]bool{}
	for key := range want {
		about[key[:strings.LastIndexByte(key, ' ')]] = true
	}
	out := maps.Clone(got)
	maps.DeleteFunc(out, func(key string, _ int) bool { return !about[key[:strings.LastIndexByte(key, ' ')]] })
	return out
}

// compare lists what two multisets do not share, "" if they are equal.
func compare(got, want map[string]int) string {
	var b strings.Builder
	keys := map[string]bool{}
	for key := range got {
		keys[key] = true
	}
	for key := range want {
		keys[key] = true
	}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		if got[key] != want[key] {
			fmt.Fprintf(&b, "\t%q: %d, want %d\n", key, got[key], want[key])
		}
	}
	return b.String()
}
