package app

import (
	"errors"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/httpctl/httpctl/agent/capture"
)

// recordings are captures of real programs, whose counts the tests beside them hold to what their
// clients did. Here they are mutated as the traps are.
var recordings = filepath.Join("..", "..", "test", "testdata", "captures", "*.pcap")

// unruled are those of which the rule does not know what was said.
var unruled = map[string]string{
	"expect-refused":       "a body that is announced and not sent",
	"http09":               "an answer without head to a request with a version, which is none",
	"icy":                  "a status line of another protocol",
	"nginx-proxy-protocol": "what the PROXY protocol says first",
	"nginx-wrong":          "requests that are none",
	"smtp":                 "no HTTP",
	"vxlan":                "its packets are in others",
}

// unmutated are mutations that a recording is not put to.
var unmutated = map[string]map[mutation]string{
	"bytewise": {joined: "the last bytes of a response that come one by one may begin the next, up to the end of a line"},
}

// TestTrapsRecorded mutates the recordings.
func TestTrapsRecorded(t *testing.T) {
	paths, err := filepath.Glob(recordings)
	if err != nil || len(paths) < 20 {
		t.Fatalf("%d recordings, want at least 20; %v", len(paths), err)
	}
	var total, vague, unordered int
	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(path), ".pcap")
		t.Run(name, func(t *testing.T) {
			if why := unruled[name]; why != "" {
				t.Skip(why)
			}
			tr := recorded(t, path)
			tr.not = unmutated[name]
			frames := tr.frames(0)
			m := &mutant{T: t, trap: tr, frames: frames, whole: watch(t, frames)}
			tr.want = m.whole.lines()
			m.shows(frames, "as it is")
			for _, name := range slices.Sorted(maps.Keys(mutations)) {
				if tr.not[name] == "" {
					mutations[name](m)
				}
			}
			total, vague, unordered = total+m.readings, vague+m.vague, unordered+m.unordered
		})
	}
	if !testing.Short() && (vague*100 > total || unordered*50 > total) {
		t.Errorf("of %d readings the rule does not know all of %d and of %d", total, vague, unordered)
	}
	t.Logf("%d readings; of %d the rule knows only bounds, of %d which messages but not which pairs", total, vague, unordered)
}

// recorded is a capture as a trap: what was said in it is read from the numbers of its segments.
func recorded(t *testing.T, path string) *trap {
	t.Helper()
	source, err := capture.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	tr := &trap{name: path}
	for {
		var ps [1]capture.Packet
		if _, err := source.Next(ps[:]); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if ip := slices.Clone(ps[0].Data[14:]); len(ip) > 40 || ip[0]>>4 == 4 && ip[9] == 6 {
			tr.packets = append(tr.packets, ip)
		}
	}
	streams := map[[2]int][]byte{}
	conns := 0
	for _, f := range tr.frames(0) {
		key := [2]int{f.conn, pick(f.up)}
		b := streams[key]
		if end := f.from + f.size; end > len(b) {
			b = append(b, make([]byte, end-len(b))...)
		}
		copy(b[max(0, f.from):], f.Data[len(f.Data)-f.size:])
		streams[key], conns = b, max(conns, f.conn+1)
	}
	for conn := range conns {
		tr.say = append(tr.say, on(conn, spoken(string(streams[[2]int{conn, 0}]), string(streams[[2]int{conn, 1}]))...)...)
	}
	return tr
}

// spoken cuts both directions into messages.
func spoken(requests, responses string) (say []message) {
	for len(requests)+len(responses) > 0 {
		m, rest := cutMessage(requests, "")
		method, _, _ := strings.Cut(m, " ")
		if m != "" {
			say, requests = append(say, up(m)), rest
		}
		var status int
		for responses != "" {
			m, responses = cutMessage(responses, method)
			say = append(say, down(m))
			if status, _ = strconv.Atoi(strings.Fields(m + " x x")[1]); status < 100 || status >= 200 || status == 101 {
				break
			}
		}
		if status == 101 || method == "CONNECT" && status == 200 && !strings.Contains(requests, " HTTP/1.") {
			if requests != "" {
				say = append(say, up(requests))
			}
			if responses != "" {
				say = append(say, down(responses))
			}
			return say
		}
	}
	return say
}

// cutMessage cuts off the first message; method is that of the request which a response answers.
func cutMessage(s, method string) (m, rest string) {
	i := strings.Index(s, "\r\n\r\n")
	if i < 0 {
		return s, ""
	}
	head := strings.ToLower(s[:i+4])
	status, _ := strconv.Atoi(strings.Fields(head + " x x")[1])
	response := strings.HasPrefix(head, "http/")
	end := i + 4
	_, length, hasLength := strings.Cut(head, "\r\ncontent-length:")
	length, _, _ = strings.Cut(length, "\r")
	switch {
	case response && (method == "HEAD" || status < 200 || status == 204 || status == 304 || method == "CONNECT" && status == 200):
	case strings.Contains(head, "\r\ntransfer-encoding: chunked"):
		if j := strings.Index(s[end-2:], "\r\n0\r\n"); j >= 0 {
			end += j + 3
			end += strings.Index(s[end-2:], "\r\n\r\n") + 2
		}
	case hasLength:
		n, _ := strconv.Atoi(strings.TrimSpace(length))
		end = min(len(s), end+n)
	case response:
		end = len(s)
	}
	return s[:end], s[end:]
}
