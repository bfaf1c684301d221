package test

import (
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
	"text/tabwriter"
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
	lengths  map[string]int // method, target, status, content length of the response
	waits    map[string]int // method, target, ttfb in nanoseconds
}

func newConversation() *conversation {
	return &conversation{
		messages: map[string]int{}, requests: map[string]int{}, pairs: map[string]int{},
		lengths: map[string]int{}, waits: map[string]int{},
	}
}

// differs says, by capture and by what is compared, why it is not as the truth
// has it. A capture whose agreement is "all" must never need one for messages.
var differs = map[string]map[string]string{
	"pcapplusplus__Pcap++Test__PcapExamples__example.pcap": {
		"pairs": "tshark does not link the 200 to its SUBSCRIBE, alone on their connection",
	},
	"suricata__http-evader__http-evader-382__input.pcap": {
		"lengths": "the status line holds a bare CR and `Transfer-Encoding: chunked`, which tshark takes for a field; RFC 9112 section 2.2 does not",
	},
	"zeek__http__http-desync-request-response-5.pcap": {
		"pairs":   "a server sent three responses to one request; tshark links the request to the packet that holds the surplus ones",
		"lengths": "as pairs",
		"waits":   "as pairs",
	},
	"zeek__http__methods.pcap": {
		"messages": "a request line without a target is no message; tshark shows two. Their 400 responses are counted, unmatched",
		"requests": "as messages",
		"pairs":    "as messages",
		"lengths":  "as messages",
		"waits":    "as messages",
	},
	"zeek__http__query-method.pcap": {
		"messages": "tshark 4.0 does not know the method QUERY",
		"requests": "as messages",
		"pairs":    "as messages",
	},
}

// TestConformance reads every shared capture and compares what it holds with
// what tshark, corrected by a scan of the raw bytes, saw.
func TestConformance(t *testing.T) {
	dir := testkit.SharedCaptures(t)
	captures := readTable(t, filepath.Join(dir, "truth", "SUMMARY.tsv"))
	if len(captures) < fewestCaptures {
		t.Errorf("%d captures in SUMMARY.tsv, want at least %d", len(captures), fewestCaptures)
	}
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "capture\tagreement\trequests\tof\tresponses\tof\tF1")
	var sum float64
	var scored, read int
	for _, c := range captures {
		name := c["file"]
		got, err := readCapture(filepath.Join(dir, name))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		read++
		want := truthOf(t, filepath.Join(dir, "truth", name+".http.tsv"))
		f1 := score(got.messages, want.messages)
		gotRequests, gotResponses := count(got.messages)
		requests, responses := count(want.messages)
		if requests+responses == 0 {
			if gotRequests+gotResponses > 0 {
				t.Errorf("%s has no HTTP; messages were invented: %v", name, got.messages)
			}
			continue
		}
		if _, excused := differs[name]["messages"]; excused && c["agreement"] == "all" {
			t.Errorf("%s: all agree on its messages; there is no excuse", name)
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%d\t%.4f\n", name, c["agreement"], gotRequests, requests, gotResponses, responses, f1)
		if c["agreement"] == "all" {
			sum += f1
			scored++
		}
		for _, part := range []struct {
			name      string
			got, want map[string]int
		}{
			{"messages", got.messages, want.messages}, {"requests", got.requests, want.requests},
			{"pairs", got.pairs, want.pairs}, {"lengths", overlap(got.lengths, want.lengths), want.lengths},
			{"waits", overlap(got.waits, want.waits), want.waits},
		} {
			_, excused := differs[name][part.name]
			difference := compare(part.got, part.want)
			if (difference != "") != excused {
				t.Errorf("%s: %s differ, excused %t:\n%s", name, part.name, excused, difference)
			}
		}
	}
	w.Flush()
	t.Logf("\n%s", table.String())
	if read < fewestCaptures {
		t.Errorf("%d captures read, want at least %d", read, fewestCaptures)
	}
	if mean := sum / float64(scored); !(mean >= agreed) {
		t.Errorf("mean F1 of %d captures = %.4f, want at least %.2f", scored, mean, agreed)
	} else {
		t.Logf("mean F1 of %d captures whose truth all agree on: %.4f", scored, mean)
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
		if x.HasResponse && x.End != exchange.Lost {
			c.lengths[fmt.Sprint(x.Method, " ", x.Target, " ", status, " ", x.ResponseBytes)]++
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
		key := r["stream"] + " " + r["frame"]
		if len(answers[key]) == 0 {
			c.pairs[method+" "+target+" -"]++
			continue
		}
		a := answers[key][0]
		answers[key] = answers[key][1:]
		c.pairs[method+" "+target+" "+a["status"]]++
		length, known := a["content_length"], method != "HEAD" && a["status"] != "304"
		switch {
		case a["transfer_encoding"] != "":
			length, known = a["decoded_body_len"], a["content_encoding"] == "" && a["decoded_body_len"] != ""
		case strings.HasSuffix(a["reading"], "_hdr"):
			known = false // the body did not complete
		}
		if known && length != "" {
			c.lengths[fmt.Sprint(method, " ", target, " ", a["status"], " ", length)]++
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
