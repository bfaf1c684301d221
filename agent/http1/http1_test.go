package http1

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/httpctl/httpctl/pkg/exchange"
)

// rig runs one parser and writes down what it finds.
type rig struct {
	env    *Env
	p      Parser
	count  exchange.Counters
	method string // of every request, for responses
	out    []string
	packet uint64
}

func newRig(whole bool) *rig {
	r := &rig{method: "GET"}
	r.env = NewEnv(DefaultConfig(), &r.count)
	r.env.Init(&r.p, whole)
	return r
}

// asks sets the method of the requests that responses answer, GET for "".
func (r *rig) asks(method string) {
	if method != "" {
		r.method = method
	}
}

func (r *rig) event(ev Event) {
	switch ev {
	case Head:
		h := &r.env.Message
		if h.Kind == Request {
			r.out = append(r.out, fmt.Sprintf("%s %s %d host=%s ua=%s", h.Method, h.Target, h.Version, h.Host, h.UserAgent))
		} else {
			r.out = append(r.out, fmt.Sprintf("%d %d", h.Status, h.Version))
			r.p.Answer(r.method)
		}
	case End:
		r.out = append(r.out, fmt.Sprintf("end wire=%d body=%d", r.p.Wire(), r.p.Content()))
	case Cut:
		r.out = append(r.out, "cut")
	case Missed:
		r.out = append(r.out, "missed")
	case Other:
		r.out = append(r.out, fmt.Sprintf("other %d", r.p.Protocol()))
	}
}

func (r *rig) feed(data string) *rig { return r.stretch(data, true) }

func (r *rig) stretch(data string, may bool) *rig {
	r.packet++
	r.p.Stretch(may)
	b := []byte(data)
	at := At{Time: int64(r.packet), Packet: r.packet}
	for {
		n, ev := r.p.Next(b, at)
		b = b[n:]
		if ev == Nothing {
			if len(b) != 0 {
				panic(fmt.Sprintf("Next returned Nothing with %d bytes left", len(b)))
			}
			return r
		}
		r.event(ev)
		if ev == Other {
			return r
		}
	}
}

func (r *rig) gap(n uint64) *rig {
	r.packet++
	for {
		took, ev := r.p.Gap(n, At{Time: int64(r.packet), Packet: r.packet})
		n -= took
		if ev == Nothing {
			return r
		}
		r.event(ev)
	}
}

func (r *rig) finish() *rig {
	ev := r.p.Finish()
	if ev == Head {
		r.event(ev)
		ev = r.p.Finish()
	}
	r.event(ev)
	return r
}

func (r *rig) String() string { return strings.Join(r.out, "\n") }

// messages are the grammar of RFC 9112, and what breaks it. want is what the
// rig writes down after the stream and its end.
var messages = []struct {
	name   string
	in     string
	method string // answered by responses
	want   string
	// suspects and malformed are the counters afterwards.
	suspects, malformed uint64
}{
	{name: "get", in: "GET /a HTTP/1.1\r\nHost: example.org\r\nUser-Agent: x/1\r\n\r\n",
		want: "GET /a 11 host=example.org ua=x/1\nend wire=55 body=0"},
	{name: "two pipelined", in: "GET / HTTP/1.1\r\nHost: a\r\n\r\nHEAD /b HTTP/1.0\r\n\r\n",
		want: "GET / 11 host=a ua=\nend wire=27 body=0\nHEAD /b 10 host= ua=\nend wire=20 body=0"},
	{name: "post", in: "POST / HTTP/1.1\r\ncontent-length:5\r\n\r\nhelloGET / HTTP/1.1\r\n\r\n",
		want: "POST / 11 host= ua=\nend wire=42 body=5\nGET / 11 host= ua=\nend wire=18 body=0"},
	{name: "leading empty lines", in: "\r\n\n\r\nGET / HTTP/1.1\r\n\r\n\r\nGET / HTTP/1.1\r\n\r\n",
		want: "GET / 11 host= ua=\nend wire=18 body=0\nGET / 11 host= ua=\nend wire=18 body=0"},
	{name: "bare LF", in: "GET / HTTP/1.1\nHost: a\n\nGET /2 HTTP/1.1\n\n",
		want: "GET / 11 host=a ua=\nend wire=24 body=0\nGET /2 11 host= ua=\nend wire=17 body=0"},
	{name: "mixed line ends", in: "GET / HTTP/1.1\r\nHost: a\n\r\n", want: "GET / 11 host=a ua=\nend wire=26 body=0", suspects: 1},
	{name: "bare CR in a field", in: "GET / HTTP/1.1\r\nX: a\rContent-Length: 3\r\n\r\n",
		want: "GET / 11 host= ua=\nend wire=42 body=0", suspects: 1},
	{name: "folded host", in: "GET / HTTP/1.1\r\nHost:\r\n a\r\n\r\n", want: "GET / 11 host=a ua=\nend wire=29 body=0"},
	{name: "folded coding", in: "POST / HTTP/1.1\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
		want: "POST / 11 host= ua=\nend wire=54 body=0", suspects: 1},
	{name: "space before colon", in: "POST / HTTP/1.1\r\nContent-Length : 3\r\n\r\nabc",
		want: "POST / 11 host= ua=\nend wire=42 body=3", suspects: 1},
	{name: "disguised coding", in: "GET / HTTP/1.1\r\nTransfer\x0b-Encoding: chunked\r\n\r\n",
		want: "GET / 11 host= ua=\nend wire=47 body=0", suspects: 1},
	{name: "doubled host", in: "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", want: "GET / 11 host=a ua=\nend wire=36 body=0"},
	{name: "absolute, authority, asterisk", in: "GET http://example.org/x HTTP/1.1\r\n\r\nCONNECT [2001:db8::1]:443 HTTP/1.1\r\n\r\nOPTIONS * HTTP/1.1\r\n\r\n",
		want: "GET http://example.org/x 11 host= ua=\nend wire=37 body=0\nCONNECT [2001:db8::1]:443 11 host= ua=\nend wire=38 body=0\nOPTIONS * 11 host= ua=\nend wire=22 body=0"},
	{name: "unknown and small methods", in: "M-SEARCH * HTTP/1.1\r\n\r\nget / HTTP/1.1\r\n\r\nQUERY /q HTTP/1.1\r\n\r\n",
		want: "M-SEARCH * 11 host= ua=\nend wire=23 body=0\nget / 11 host= ua=\nend wire=18 body=0\nQUERY /q 11 host= ua=\nend wire=21 body=0"},
	{name: "tabs for spaces", in: "GET\t/a\tHTTP/1.1\r\nHost: a\r\n\r\nGET \t /b\t HTTP/1.1\t\r\n\r\n",
		want: "GET /a 11 host=a ua=\nend wire=28 body=0\nGET /b 11 host= ua=\nend wire=23 body=0"},
	{name: "vertical tabs, form feeds and bare CRs for spaces", in: "GET\x0b/a\x0cHTTP/1.1\r\n\r\nGET\r/b\rHTTP/1.1\r\n\r\nGET /c\td HTTP/1.1\r\n\r\n",
		want: "GET /a 11 host= ua=\nend wire=19 body=0\nGET /b 11 host= ua=\nend wire=19 body=0\nGET /c\td 11 host= ua=\nend wire=21 body=0", suspects: 1},
	{name: "space and octets in target", in: "GET /a b\xff HTTP/1.1\r\n\r\n", want: "GET /a b\xff 11 host= ua=\nend wire=22 body=0"},
	{name: "http/0.9", in: "GET /old\r\n", want: "GET /old 9 host= ua=\nend wire=10 body=0"},

	{name: "equal lengths", in: "POST / HTTP/1.1\r\nContent-Length: 3, 3\r\nContent-Length: 003\r\n\r\nabc",
		want: "POST / 11 host= ua=\nend wire=65 body=3"},
	{name: "differing lengths", in: "POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
		want: "POST / 11 host= ua=\ncut", suspects: 1, malformed: 1},
	{name: "negative length", in: "POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", want: "POST / 11 host= ua=\ncut", suspects: 1, malformed: 1},
	{name: "length over 64 bits", in: "POST / HTTP/1.1\r\nContent-Length: 18446744073709551616\r\n\r\n",
		want: "POST / 11 host= ua=\ncut", suspects: 1, malformed: 1},
	{name: "length of 64 bits", in: "POST / HTTP/1.1\r\nContent-Length: 18446744073709551615\r\n\r\nab",
		want: "POST / 11 host= ua=\ncut"},
	{name: "length beside coding", in: "POST / HTTP/1.1\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n",
		want: "POST / 11 host= ua=\nend wire=71 body=0\nGET /smuggled 11 host= ua=\nend wire=26 body=0", suspects: 1},
	{name: "gzip, chunked", in: "POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
		want: "POST / 11 host= ua=\nend wire=66 body=3"},
	{name: "codings in two fields", in: "POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n",
		want: "POST / 11 host= ua=\nend wire=77 body=0"},
	{name: "unknown coding", in: "POST / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n", want: "POST / 11 host= ua=\ncut", suspects: 1, malformed: 1},
	{name: "no coding, and a length", in: "POST / HTTP/1.1\r\nTransfer-Encoding: identity\r\nContent-Length: 3\r\n\r\nabcGET /2 HTTP/1.1\r\n\r\n",
		want: "POST / 11 host= ua=\nend wire=70 body=3\nGET /2 11 host= ua=\nend wire=19 body=0", suspects: 1},
	{name: "no coding, and chunked", in: "POST / HTTP/1.1\r\nTransfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		want: "POST / 11 host= ua=\nend wire=81 body=0", suspects: 1},
	{name: "chunked, and no coding behind it", in: "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
		want: "POST / 11 host= ua=\ncut", suspects: 1, malformed: 1},
	{name: "response without coding", in: "HTTP/1.1 200 OK\r\nTransfer-Encoding:  Identity \r\nContent-Length: 2\r\n\r\nokHTTP/1.1 204 No\r\n\r\n",
		want: "200 11\nend wire=71 body=2\n204 11\nend wire=19 body=0"},
	{name: "chunked not last", in: "POST / HTTP/1.1\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", want: "POST / 11 host= ua=\ncut", suspects: 1, malformed: 1},
	{name: "chunked twice", in: "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		want: "POST / 11 host= ua=\nend wire=80 body=0", suspects: 1},
	{name: "chunked in 1.0", in: "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", want: "POST / 10 host= ua=\nend wire=52 body=0", suspects: 1},
	{name: "extensions and trailers", in: "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b;c=\"d\"\r\nabc\r\n0A \r\n0123456789\r\n000;x\r\nT: 1\r\nU: 2\r\n\r\n",
		want: "POST / 11 host= ua=\nend wire=103 body=13"},
	{name: "bare LF in chunks", in: "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\na\n0\n\n", want: "POST / 11 host= ua=\nend wire=54 body=1", suspects: 1},
	{name: "chunk of 64 bits", in: "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nabc", want: "POST / 11 host= ua=\ncut"},
	{name: "chunk over 64 bits", in: "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1ffffffffffffffff\r\nabc",
		want: "POST / 11 host= ua=\ncut", suspects: 1, malformed: 1},
	{name: "chunk size with sign", in: "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n+1\r\na\r\n0\r\n\r\n",
		want: "POST / 11 host= ua=\ncut", suspects: 1, malformed: 1},
	{name: "chunk longer than its size", in: "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
		want: "POST / 11 host= ua=\ncut", suspects: 1, malformed: 1},

	{name: "response with length", in: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.0 404\r\nContent-Length: 0\r\n\r\n",
		want: "200 11\nend wire=40 body=2\n404 10\nend wire=35 body=0"},
	{name: "response until the end", in: "HTTP/1.1 200 OK\r\n\r\nall HTTP/1.1 200 OK\r\n\r\n of this", want: "200 11\nend wire=50 body=31"},
	{name: "response coded but not chunked", in: "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nContent-Length: 1\r\n\r\nabc", want: "200 11\nend wire=66 body=3"},
	{name: "response chunked beats length", in: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0\r\n\r\n", want: "200 11\nend wire=71 body=0"},
	{name: "interim", in: "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\nHTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nHTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
		want: "100 11\nend wire=25 body=0\n103 11\nend wire=39 body=0\n204 11\nend wire=46 body=0\n304 11\nend wire=48 body=0"},
	{name: "head", method: "HEAD", in: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
		want: "200 11\nend wire=38 body=0\n200 11\nend wire=47 body=0"},
	{name: "connect refused", method: "CONNECT", in: "HTTP/1.1 403 No\r\nContent-Length: 1\r\n\r\nx", want: "403 11\nend wire=39 body=1"},
	{name: "bad response length", in: "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", want: "200 11\ncut", malformed: 1},
	{name: "bare CR in status line", in: "HTTP/1.1 200\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", want: "200 11\nend wire=48 body=5"},

	{name: "proxy v1", in: "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nGET / HTTP/1.1\r\n\r\n", want: "GET / 11 host= ua=\nend wire=18 body=0"},
	{name: "proxy v2", in: "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\x01\x02\x03\x04\x01\x02\x03\x04\x00\x01\x00\x02GET / HTTP/1.1\r\n\r\n", want: "GET / 11 host= ua=\nend wire=18 body=0"},
	{name: "leading NUL", in: "\x00GET / HTTP/1.1\r\n\r\n", want: "GET / 11 host= ua=\nend wire=18 body=0"},
	{name: "method PROPFIND", in: "PROPFIND /dav HTTP/1.1\r\nDepth: 1\r\n\r\n", want: "PROPFIND /dav 11 host= ua=\nend wire=36 body=0"},

	{name: "version of no HTTP", in: "GET / HTTP/1.10\r\nHost: a\r\n\r\n", want: "GET / 11 host=a ua=\nend wire=28 body=0"},
	{name: "version in lower case", in: "GET / http/1.1\r\n\r\n", want: "GET / 11 host= ua=\nend wire=18 body=0"},
	{name: "no version, fields", in: "POST /a\r\nHost: a\r\n\r\n", want: "POST /a 9 host=a ua=\nend wire=20 body=0"},
	{name: "no version, no fields", in: "FETCH /a\r\nno field\r\n\r\n", want: "", malformed: 1},
	{name: "CR CR LF", in: "GET / HTTP/1.1\r\r\nHost: a\r\r\n\r\r\nGET /2 HTTP/1.1\r\n\r\n",
		want: "GET / 11 host=a ua=\nend wire=30 body=0\nGET /2 11 host= ua=\nend wire=19 body=0", suspects: 1},
	{name: "tls", in: "\x16\x03\x01\x02\x00\x01", want: "other 1"},
	{name: "http/2", in: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", want: "other 2"},
	{name: "ssh", in: "SSH-2.0-OpenSSH_9.9\r\n", want: "other 3"},
	{name: "rtsp", in: "OPTIONS rtsp://example.org/ RTSP/1.0\r\nCSeq: 1\r\n\r\n", want: "other 4"},
	{name: "rtsp response", in: "RTSP/1.0 200 OK\r\nCSeq: 1\r\n\r\n", want: "other 4"},
	{name: "sip", in: "REGISTER sip:example.org SIP/2.0\r\n\r\n", want: "other 5"},
	{name: "icap", in: "REQMOD icap://example.org/x ICAP/1.0\r\n\r\n", want: "other 6"},
	{name: "smtp", in: "220 example.org ESMTP\r\n250 ok\r\n", want: ""},
	{name: "http/2.0 status", in: "HTTP/2.0 200 OK\r\n\r\n", want: ""},
	{name: "redis", in: "GET key\r\n", want: ""},
	{name: "binary", in: "\x00\x01\x02\x03GET / HTTP/1.1\r\n\r\n", want: ""},
}

func TestMessages(t *testing.T) {
	for _, tt := range messages {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(true)
			r.asks(tt.method)
			if got := r.feed(tt.in).finish().String(); got != tt.want {
				t.Errorf("parse(%q) =\n%s\nwant\n%s", tt.in, got, tt.want)
			}
			if got := r.count[exchange.SmugglingSuspects]; got != tt.suspects {
				t.Errorf("smuggling suspects = %d, want %d", got, tt.suspects)
			}
			if got := r.count[exchange.Malformed]; got != tt.malformed {
				t.Errorf("malformed = %d, want %d", got, tt.malformed)
			}
		})
	}
}

// TestResponsesAsSent: lines that RFC 9112 does not allow and clients take for a
// status line all the same, where a response is due; and how the rest of such
// heads, met in the field and in the tests of intrusion detectors, is read.
func TestResponsesAsSent(t *testing.T) {
	const rest = "\r\nContent-Length: 2\r\n\r\nok"
	tests := []struct{ in, want string }{
		{"HTTP/1.1  200 OK" + rest, "200 11\nend wire=41 body=2"},
		{"HTTP/1.1\t200 OK" + rest, "200 11\nend wire=40 body=2"},
		{"HTTP/1.1 200OK" + rest, "200 11\nend wire=39 body=2"},
		{"HTTP/2.0 200 OK" + rest, "200 11\nend wire=40 body=2"},
		{"HTTP/2 200" + rest, "200 11\nend wire=35 body=2"},
		{"HTTP/1.10 200 OK" + rest, "200 11\nend wire=41 body=2"},
		{"ICY 200 OK" + rest, "200 10\nend wire=35 body=2"},
		{"HTTP/1.1 200 OK\r\nContent-Length: 2\n\r\r\nok", "200 11\nend wire=40 body=2"},
		// The connection ends within the head.
		{"HTTP/1.1 200 OK\rContent-Length: 2\r\rok", "200 11\ncut"},
		{"HTTP/1.1 404 Not Found\r\nContent-Le", "404 11\ncut"},
		{"HTTP/1.1 404", "404 11\ncut"},
		{"ICY 404", "404 10\ncut"},
		// Not even so.
		{"HTTP/1.1 2000 OK" + rest, "missed"}, {"HTTP/1.1 20 OK" + rest, "missed"}, {"HTTP/1.1 020 OK" + rest, "missed"},
		{"http/1.1 200 OK" + rest, "missed"}, {"HTTP/1.1" + rest, "missed"}, {"HTTP/1.1 40", "missed"}, {"ICYCLE 200" + rest, "missed"},
		{"200 OK" + rest, "missed"}, {"IC", "missed"}, {"H", "missed"},
	}
	for _, tt := range tests {
		for _, n := range []int{len(tt.in), 1, 3} {
			r := newRig(true)
			r.p.Expect(Response)
			r.feed("HTTP/1.1 204 No Content\r\n\r\n")
			for b := tt.in; len(b) > 0; b = b[min(n, len(b)):] {
				r.stretch(b[:min(n, len(b))], false)
			}
			got := strings.TrimPrefix(r.finish().String(), "204 11\nend wire=27 body=0\n")
			if got = strings.TrimSuffix(got, "\nmissed"); got != tt.want {
				t.Errorf("response(%q in pieces of %d) =\n%s\nwant\n%s", tt.in, n, got, tt.want)
			}
		}
	}
}

// TestSplits: any split of the bytes gives the same messages, byte by byte too.
func TestSplits(t *testing.T) {
	for _, tt := range messages {
		if tt.name == "http/0.9" || tt.name == "binary" {
			continue // believed only in one piece; a later piece is a new chance
		}
		t.Run(tt.name, func(t *testing.T) {
			run := func(parts ...string) *rig {
				r := newRig(true)
				r.asks(tt.method)
				for _, s := range parts {
					r.stretch(s, false)
					if strings.HasPrefix(tt.want, "other") && len(r.out) > 0 {
						return r
					}
				}
				return r.finish()
			}
			check := func(r *rig, how string) {
				t.Helper()
				if got := r.String(); got != tt.want {
					t.Fatalf("%s: got\n%s\nwant\n%s", how, got, tt.want)
				}
				if r.count[exchange.SmugglingSuspects] != tt.suspects || r.count[exchange.Malformed] != tt.malformed {
					t.Fatalf("%s: suspects, malformed = %d, %d, want %d, %d", how,
						r.count[exchange.SmugglingSuspects], r.count[exchange.Malformed], tt.suspects, tt.malformed)
				}
				r.p.Release()
				if r.env.held != 0 || r.env.oldest != nil || r.env.newest != nil {
					t.Fatalf("%s: %d bytes still held", how, r.env.held)
				}
			}
			for i := 1; i < len(tt.in); i++ {
				check(run(tt.in[:i], tt.in[i:]), fmt.Sprintf("split at %d", i))
			}
			check(run(strings.Split(tt.in, "")...), "byte by byte")
		})
	}
}

// TestAgainstNetHTTP compares with net/http where both take a message.
func TestAgainstNetHTTP(t *testing.T) {
	compared := 0
	for _, tt := range messages {
		r := newRig(true)
		r.asks(tt.method)
		r.feed(tt.in).finish()
		br := bufio.NewReader(strings.NewReader(tt.in))
		var want []string
		complete := true
		for complete {
			if strings.HasPrefix(tt.in, "HTTP/") {
				resp, err := http.ReadResponse(br, &http.Request{Method: tt.method})
				if err != nil {
					complete = err == io.ErrUnexpectedEOF || err == io.EOF
					break
				}
				n, err := io.Copy(io.Discard, resp.Body)
				complete = err == nil
				want = append(want, fmt.Sprintf("%d %d%d", resp.StatusCode, resp.ProtoMajor, resp.ProtoMinor), fmt.Sprint(n))
			} else {
				req, err := http.ReadRequest(br)
				if err != nil {
					complete = err == io.ErrUnexpectedEOF || err == io.EOF
					break
				}
				n, err := io.Copy(io.Discard, req.Body)
				complete = err == nil
				want = append(want, fmt.Sprintf("%s %s %d%d host=%s ua=%s", req.Method, req.RequestURI, req.ProtoMajor, req.ProtoMinor, req.Host, req.UserAgent()), fmt.Sprint(n))
			}
		}
		if !complete || len(want) == 0 || strings.HasPrefix(tt.in, "HTTP/2") {
			continue // net/http refuses it, or takes what is not HTTP/1
		}
		var got []string
		for _, l := range r.out {
			if _, n, ok := strings.Cut(l, "body="); ok && strings.HasPrefix(l, "end") {
				l = n
			}
			got = append(got, l)
		}
		if strings.Contains(tt.in, "http://") || strings.Contains(tt.in, "CONNECT") {
			continue // net/http derives Host from the target
		}
		compared++
		if g, w := strings.Join(got, "\n"), strings.Join(want, "\n"); g != w {
			t.Errorf("%s: got\n%s\nnet/http has\n%s", tt.name, g, w)
		}
	}
	if compared < 15 {
		t.Errorf("compared %d messages, want at least 15", compared)
	}
}

func TestGaps(t *testing.T) {
	const next = "GET /next HTTP/1.1\r\nHost: a\r\n\r\n"
	const nextIs = "GET /next 11 host=a ua=\nend wire=31 body=0"
	chunked := "POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
	sized := "POST /s HTTP/1.1\r\nContent-Length: 100\r\n\r\n"
	tests := []struct {
		name string
		run  func(r *rig)
		want string
	}{
		{"inside a body", func(r *rig) { r.feed(sized + "abc").gap(90).feed("1234567" + next) },
			"POST /s 11 host= ua=\nend wire=141 body=100\n" + nextIs},
		{"to the end of a body", func(r *rig) { r.feed(sized).gap(100).feed(next) },
			"POST /s 11 host= ua=\nend wire=141 body=100\n" + nextIs},
		{"past the end of a body", func(r *rig) { r.feed(sized).gap(101).feed(next) },
			"POST /s 11 host= ua=\nend wire=141 body=100\nmissed\n" + nextIs},
		{"inside a chunk", func(r *rig) { r.feed(chunked + "a\r\n12").gap(7).feed("x\r\n0\r\n\r\n" + next) },
			"POST /c 11 host= ua=\nend wire=68 body=10\n" + nextIs},
		{"to the end of a chunk", func(r *rig) { r.feed(chunked + "a\r\n12").gap(8).feed("\r\n0\r\n\r\n") },
			"POST /c 11 host= ua=\nend wire=68 body=10"},
		{"with the chunk's CRLF", func(r *rig) { r.feed(chunked + "a\r\n12").gap(10).feed("0\r\n\r\n") },
			"POST /c 11 host= ua=\nend wire=68 body=10"},
		{"with the chunk's CR", func(r *rig) { r.feed(chunked + "a\r\n12").gap(9).feed("\n0\r\n\r\n") },
			"POST /c 11 host= ua=\nend wire=68 body=10"},
		{"into chunk framing", func(r *rig) { r.feed(chunked + "a\r\n12").gap(11).feed("\r\n" + next) },
			"POST /c 11 host= ua=\ncut\n" + nextIs},
		{"in a start line", func(r *rig) { r.feed("GET / HTT").gap(5).stretch("x: y\r\n\r\n", false).feed(next) },
			"missed\n" + nextIs},
		{"in a head", func(r *rig) {
			r.feed("GET / HTTP/1.1\r\nHost: a\r\nUser-").gap(5).stretch("x: y\r\n\r\n", false).feed(next)
		},
			"GET / 11 host=a ua=\ncut\nmissed\n" + nextIs},
		{"in a head after a loss", func(r *rig) {
			r.gap(1).feed("GET / HTTP/1.1\r\nno name").gap(1).feed("GET / HTTP/1.1\r\nHost: a").gap(5).feed(next)
		},
			"missed\nmissed\nGET / 11 host= ua=\ncut\nmissed\n" + nextIs},
		{"between messages", func(r *rig) { r.feed(next).gap(31).feed(next) },
			nextIs + "\nmissed\n" + nextIs},
		{"before the first", func(r *rig) { r.gap(31).feed(next) }, "missed\n" + nextIs},
		{"body text that looks like a message", func(r *rig) {
			r.feed(chunked+"5").gap(11).stretch(next, false).stretch("more"+next, false).feed(next)
		}, "POST /c 11 host= ua=\ncut\n" + nextIs},
		{"text that only begins like one", func(r *rig) {
			r.gap(1).feed("GET / HTTP/1.1\r\nno field line\r\n\r\n").feed("GET /\x01 HTTP/1.1\r\nX: a\r\n\r\n").feed("GET / HTTP/1.1\r\n\r\n").feed(next)
		}, "missed\n" + nextIs},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(true)
			tt.run(r)
			if got := r.String(); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}

	r := newRig(true)
	r.feed("HTTP/1.1 200 OK\r\n\r\nab").gap(1 << 40).feed("c").finish()
	if got, want := r.String(), fmt.Sprintf("200 11\nend wire=%d body=%d", 1<<40+22, 1<<40+3); got != want {
		t.Errorf("gap in a body that lasts until the end: got %s, want %s", got, want)
	}
}

// TestGapAnywhere: a gap at every position, of every length up to 64, never
// panics, and never costs messages that it does not touch.
func TestGapAnywhere(t *testing.T) {
	one := "POST /%d HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
	var parts []string
	for i := range 4 {
		parts = append(parts, fmt.Sprintf(one, i))
	}
	all := strings.Join(parts, "")
	for from := range len(all) {
		for _, n := range []int{1, 2, 3, 7, 64} {
			to := min(from+n, len(all))
			r := newRig(true)
			pos := 0
			touched := map[int]bool{}
			for i, part := range parts {
				a, b := pos, pos+len(part)
				pos = b
				if from < b && to > a {
					touched[i] = true
					r.feed(all[a:max(a, from)])
					r.gap(uint64(min(b, to) - max(a, from)))
					r.stretch(all[max(a, min(b, to)):b], false)
					continue
				}
				r.feed(part)
			}
			r.finish()
			ends := 0
			for _, l := range r.out {
				if strings.HasPrefix(l, "end") {
					ends++
				}
			}
			if ends < len(parts)-len(touched) {
				t.Fatalf("gap of %d at %d: %d messages complete, want at least %d:\n%s", n, from, ends, len(parts)-len(touched), r)
			}
		}
	}
}

func TestJoinedInTheMiddle(t *testing.T) {
	r := newRig(false)
	r.feed("tail of a body\r\nGET /inside HTTP/1.1\r\nHost: a\r\n\r\n").stretch("GET /body HTTP/1.1\r\nHost: a\r\n\r\n", false)
	r.feed("GET /real HTTP/1.1\r\nHost: a\r\n\r\n")
	if got, want := r.String(), "GET /real 11 host=a ua=\nend wire=31 body=0"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestJoinedAtAnOddRequest: where anything may stand, a request with bytes that none may have is one if all else is
// right, wherever it is split; text that merely mentions one is not.
func TestJoinedAtAnOddRequest(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", "GET /a b 11 host=a ua=\nend wire=30 body=0"},
		{"GET /a\x7f HTTP/1.1\r\nHost: a\r\n\r\n", "GET /a\x7f 11 host=a ua=\nend wire=29 body=0"},
		{"GET /a HTTP/1.1\r\nHost: a\r\nUser-Agent: \x01\x1b\x00\r\n\r\n", "GET /a 11 host=a ua=\x01\x1b\x00\nend wire=45 body=0"},
		{"POST http://a/ b HTTP/1.0\r\nHost: a\r\nX: \x02\r\nContent-Length: 2\r\n\r\nabGET / HTTP/1.1\r\n\r\n",
			"POST http://a/ b 10 host=a ua=\nend wire=65 body=2\nGET / 11 host= ua=\nend wire=18 body=0"},
		// Text.
		{"GET what /is asked for HTTP/1.1\r\nHost: a\r\n\r\n", ""},
		{"Then /a b HTTP/1.1\r\nHost: a\r\n\r\n", ""},
		{"GET /a b HTTP/1.1\nHost: a\n\n", ""},
		{"GET /a b HTTP/1.1\r\nHost: a\n\r\n", ""},
		{"GET /a b HTTP/1.1\r\nX: a\r\n\r\n", ""},
		{"GET /a b HTTP/1.1\r\nHost: a\r\nAnd so on: b\r\n\r\n", ""},
		{"GET /a b HTTP/1.1\r\nHost: a\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", ""},
		{"GET /a b HTTP/1.1 and more\r\nHost: a\r\n\r\n", ""},
		{"GET /a\rb HTTP/1.1\r\nHost: a\r\n\r\n", ""},
		{"GET /a HTTP/1.1\r\nHost: a\rX: \x01\r\n\r\n", ""},
		{"HTTP/1.1 200 OK\r\nHost: \x01\r\nContent-Length: 0\r\n\r\n", ""},
	} {
		n := len(tt.in) - 1
		if tt.want == "" {
			n = 0 // in pieces, what is no message may hide what shows it
		}
		for split := range n + 1 {
			r := newRig(false)
			if split > 0 {
				r.stretch(tt.in[:split], true).stretch(tt.in[split:], false)
			} else {
				r.feed(tt.in)
			}
			if got := r.String(); got != tt.want {
				t.Errorf("%q split at %d:\n%s\nwant\n%s", tt.in, split, got, tt.want)
			}
		}
	}
}

func TestOversizedHead(t *testing.T) {
	r := newRig(true)
	r.feed("GET / HTTP/1.1\r\nX: "+strings.Repeat("a", 40000)).stretch(strings.Repeat("b", 40000), false).stretch("\r\n\r\n", false)
	r.feed("GET /n HTTP/1.1\r\nHost: a\r\n\r\n")
	if got, want := r.String(), "missed\nGET /n 11 host=a ua=\nend wire=28 body=0"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := r.count[exchange.OversizedHeads]; got != 1 {
		t.Errorf("oversized heads = %d, want 1", got)
	}
}

// TestHeadMemory: slow heads cannot take more than max_head_memory, and do not
// keep a prompt client from being read.
func TestHeadMemory(t *testing.T) {
	cfg := DefaultConfig()
	cfg.MaxHeadMemory = 256 << 10
	var count exchange.Counters
	env := NewEnv(cfg, &count)
	feed := func(p *Parser, s string) (heads int) {
		p.Stretch(false)
		b := []byte(s)
		for {
			n, ev := p.Next(b, At{})
			b = b[n:]
			if ev == Head {
				heads++
			}
			if ev == Nothing {
				return heads
			}
		}
	}
	slow := make([]Parser, 1000)
	for i := range slow {
		env.Init(&slow[i], true)
		feed(&slow[i], "GET / HTTP/1.1\r\nX: a")
	}
	good := 0
	for range 100 {
		for i := range slow {
			feed(&slow[i], strings.Repeat("y", 50))
			if i%100 == 0 {
				var p Parser
				env.Init(&p, true)
				feed(&p, "GET /good HTT")
				good += feed(&p, "P/1.1\r\nHost: a\r\n\r\n")
				p.Release()
			}
			if env.held > int(cfg.MaxHeadMemory) {
				t.Fatalf("%d bytes held, want at most %d", env.held, cfg.MaxHeadMemory)
			}
		}
	}
	if good != 1000 {
		t.Errorf("%d good requests read, want 1000", good)
	}
	if count[exchange.EvictedBytes] == 0 {
		t.Error("no evicted bytes counted")
	}
}

// TestEmptyLinesAreReadOnce: where each of many bytes before the first message may begin a PROXY header, it is
// looked for in time that grows as they do, which ends here in a moment. As their square it took hours.
func TestEmptyLinesAreReadOnce(t *testing.T) {
	for _, blank := range []string{"\r", "\r\n", "\r\n\r\n\x00", "\n"} {
		r := newRig(true).feed(strings.Repeat(blank, 16<<20/len(blank)) + "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		if got, want := strings.Join(r.out, ", "), "GET / 11 host=a ua=, end wire=27 body=0"; got != want {
			t.Errorf("after %q again and again: %s, want %s", blank, got, want)
		}
	}
}

func TestConfig(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Errorf("DefaultConfig().Validate() = %v", err)
	}
	err := Config{MaxHeaderBytes: 1, MaxHeadMemory: 0}.Validate()
	if err == nil || !strings.Contains(err.Error(), "max_header_bytes") || !strings.Contains(err.Error(), "max_head_memory") {
		t.Errorf("Validate() = %v, want both settings named", err)
	}
}

func TestNoAllocation(t *testing.T) {
	var count exchange.Counters
	env := NewEnv(DefaultConfig(), &count)
	var p Parser
	env.Init(&p, true)
	head := []byte("POST /a HTTP/1.1\r\nHost: example.org\r\nUser-Agent: x\r\nContent-Length: 1000\r\n\r\n")
	body := bytes.Repeat([]byte("x"), 1000)
	parts := [][]byte{head[:10], head[10:], body[:400], body[400:]}
	run := func() {
		for _, b := range parts {
			p.Stretch(true)
			for {
				n, ev := p.Next(b, At{})
				b = b[n:]
				if ev == Nothing {
					break
				}
			}
		}
	}
	run()
	if n := testing.AllocsPerRun(100, run); n != 0 {
		t.Errorf("%v allocations a message, want 0", n)
	}
}

func FuzzHTTP1(f *testing.F) {
	for _, m := range messages {
		f.Add([]byte(m.in), uint16(7), uint16(0), uint16(0), m.method, true)
		f.Add([]byte(m.in), uint16(1), uint16(9), uint16(5), m.method, false)
	}
	judge := newRig(false)
	f.Fuzz(func(t *testing.T, in []byte, step, gapAt, gapLen uint16, method string, whole bool) {
		// Where a connection was joined in its middle, a segment that opens a message ends
		// what may have been the rest of another one: then the segments matter.
		matter := false
		run := func(step int, gap bool) *rig {
			r := newRig(whole)
			r.asks(method)
			for i := 0; i < len(in); {
				if gap && i >= int(gapAt) && gapLen > 0 {
					n := min(int(gapLen), len(in)-i)
					r.gap(uint64(n))
					i += n
					gap = false
					continue
				}
				n := min(step, len(in)-i)
				if gap && i < int(gapAt) {
					n = min(n, int(gapAt)-i)
				}
				r.stretch(string(in[i:i+n]), false)
				matter = matter || !whole && i > 0 && judge.p.opens(in[i:i+n])
				i += n
				if k := len(r.out); k > 0 && strings.HasPrefix(r.out[k-1], "other") {
					return r
				}
			}
			r.finish()
			var wire uint64
			for _, l := range r.out {
				var w, b uint64
				if n, _ := fmt.Sscanf(l, "end wire=%d body=%d", &w, &b); n == 2 {
					if b > w {
						t.Fatalf("content %d exceeds wire %d", b, w)
					}
					wire += w
				}
			}
			if wire > uint64(len(in)) {
				t.Fatalf("messages have %d octets, the stream %d", wire, len(in))
			}
			r.p.Release()
			if r.env.held != 0 || r.env.oldest != nil {
				t.Fatal("memory is still held")
			}
			return r
		}
		a := run(max(len(in), 1), false)
		b := run(int(step)+1, false)
		simple := strings.Contains(a.String(), " 9 host=") || strings.Contains(b.String(), " 9 host=")
		if a.String() != b.String() && !simple && !matter {
			t.Fatalf("in one piece:\n%s\nin pieces of %d:\n%s", a, step+1, b)
		}
		run(int(step)+1, true)
	})
}

func BenchmarkHead(b *testing.B) {
	in := []byte("GET /index.html?x=1 HTTP/1.1\r\nHost: www.example.org\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101\r\nAccept: text/html,application/xhtml+xml\r\nAccept-Language: en\r\nAccept-Encoding: gzip, deflate\r\nConnection: keep-alive\r\nCookie: a=0123456789abcdef0123456789abcdef\r\n\r\n")
	var count exchange.Counters
	env := NewEnv(DefaultConfig(), &count)
	var p Parser
	env.Init(&p, true)
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		data := in
		for {
			n, ev := p.Next(data, At{})
			data = data[n:]
			if ev == Nothing {
				break
			}
		}
	}
}

func BenchmarkBody(b *testing.B) {
	for _, framing := range []string{"Content-Length: 18446744073709551615\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n"} {
		b.Run(framing[:14], func(b *testing.B) {
			var count exchange.Counters
			env := NewEnv(DefaultConfig(), &count)
			var p Parser
			env.Init(&p, true)
			data := []byte("PUT / HTTP/1.1\r\n" + framing)
			for {
				n, ev := p.Next(data, At{})
				data = data[n:]
				if ev == Nothing {
					break
				}
			}
			chunk := append(append([]byte("1000\r\n"), bytes.Repeat([]byte("x"), 0x1000)...), "\r\n"...)
			b.SetBytes(int64(len(chunk)))
			b.ReportAllocs()
			for b.Loop() {
				p.Next(chunk, At{})
			}
		})
	}
}

// TestPeekOnce: a head in which no request can be recognised yet is not read again until there is more of it, however many
// responses come meanwhile.
func TestPeekOnce(t *testing.T) {
	r := newRig(false)
	r.p.Next([]byte("GET / HTTP/1.1\r\nHost: exa"), At{Packet: 1})
	if r.p.Peek() || r.p.peeked != tooShort {
		t.Error("half a field is enough, or is read again")
	}
	r.p.Next([]byte("mple\r\nX: "), At{Packet: 2})
	if r.p.peeked != unread || !r.p.Peek() || string(r.env.Message.Host) != "example" {
		t.Errorf("not enough with a whole field: %q", r.env.Message.Host)
	}
	// A line that is wrong stays so: a head that grows by bytes is not read to that line for each response.
	r.p.Next([]byte("y\r\nno field\r\n"), At{Packet: 3})
	if r.p.Peek() {
		t.Error("a line that is no field is one")
	}
	if r.p.Next([]byte("Z: a"), At{Packet: 4}); r.p.peeked != unfit || r.p.Peek() {
		t.Error("a head with a wrong line is read again")
	}
}
