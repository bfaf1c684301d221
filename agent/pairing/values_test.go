package pairing

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/httpctl/httpctl/agent/stream"
	"github.com/httpctl/httpctl/pkg/exchange"
)

func TestExchangeValues(t *testing.T) {
	r := newRig(t)
	r.p.local = func(a netip.Addr) bool { return a == serverEnd.Addr() }
	r.close(stream.ByFIN).open(true)
	reqHead := "POST /Api/v1?q=1 HTTP/1.1\r\nHost: Example.ORG:80\r\nUser-Agent: curl/8\r\nTransfer-Encoding: chunked\r\n\r\n"
	r.now = 10e9
	r.up(reqHead[:20]).up(reqHead[20:]).up("3\r\nabc\r\n").up("0\r\n\r\n")
	r.down("HTTP/1.1 100 Continue\r\n\r\n").down("HTTP/1.1 200").down(" OK\r\nContent-Length: 5\r\n\r\nhe").down("llo").close(stream.ByFIN)
	want := exchange.Exchange{
		Connection: 1, Stream: 0, Client: clientEnd, Server: serverEnd, Role: exchange.Server,
		Protocol: "http/1.1", Scheme: "http", HasRequest: true, HasResponse: true,
		Method: "POST", Host: "Example.ORG:80", Domain: "example.org", Target: "/Api/v1?q=1", Section: "example.org/Api", UserAgent: "curl/8",
		RequestStart: 10.001e9, RequestHead: 10.002e9, RequestEnd: 10.004e9,
		RequestBytes: 3, RequestWireBytes: uint64(len(reqHead)) + 13,
		Status: 200, Interim: 1, ResponseStart: 10.006e9, ResponseHead: 10.007e9, ResponseEnd: 10.008e9,
		ResponseBytes: 5, ResponseWireBytes: 43 + 25, FirstPacket: 10001, End: exchange.Complete,
	}
	if len(r.done) != 1 || r.done[0] != want {
		t.Errorf("got %+v\nwant %+v", r.done, want)
	}
	if r.last.Time != 10.008e9 {
		t.Errorf("outcome at %d, want the time of the last byte", r.last.Time)
	}
	seen := r.seen[0]
	if seen.HasResponse || seen.Method != "POST" || seen.RequestHead != 10.002e9 || seen.End != exchange.Open {
		t.Errorf("request seen as %+v, want the request alone", seen)
	}
	if r.newReqWire != want.RequestWireBytes || r.newResp != 5 {
		t.Errorf("new bytes %d, %d; want %d, 5", r.newReqWire, r.newResp, want.RequestWireBytes)
	}
}

// TestDirections: whoever sends requests is the client, whatever stream guessed.
func TestDirections(t *testing.T) {
	for _, first := range []string{"request", "response"} {
		r := newRig(t)
		r.p.local = func(a netip.Addr) bool { return a == clientEnd.Addr() }
		r.close(stream.ByFIN).open(false)
		if first == "response" {
			r.up(okay(200, ""))
		}
		r.down(getting("/1")).up(okay(200, "")).close(stream.ByFIN)
		x := r.done[len(r.done)-1]
		if x.Client != serverEnd || x.Server != clientEnd || x.Role != exchange.Server {
			t.Errorf("%s first: client %v, server %v, role %v; want them swapped, and role server", first, x.Client, x.Server, x.Role)
		}
	}
}

func TestRoles(t *testing.T) {
	for _, tt := range []struct {
		local []netip.Addr
		want  exchange.Role
	}{
		{nil, exchange.Transit},
		{[]netip.Addr{clientEnd.Addr()}, exchange.Client},
		{[]netip.Addr{serverEnd.Addr()}, exchange.Server},
		{[]netip.Addr{clientEnd.Addr(), serverEnd.Addr()}, exchange.Server},
	} {
		r := newRig(t)
		r.p.local = func(a netip.Addr) bool {
			for _, l := range tt.local {
				if l == a {
					return true
				}
			}
			return false
		}
		r.close(stream.ByFIN).open(true).get("/").close(stream.ByFIN)
		if got := r.done[0].Role; got != tt.want {
			t.Errorf("role with local addresses %v = %v, want %v", tt.local, got, tt.want)
		}
	}
}

// TestNames: the remembered forms equal exchange's own.
func TestNames(t *testing.T) {
	n := newNames(64)
	var last [3]words      // of three connections, between which requests change
	for round := range 6 { // all but the first from memory
		last := &last[round%3]
		for _, method := range []string{"GET", "CONNECT"} {
			for _, host := range []string{"", "a", "A.b:8", "[2001:DB8::1]:80", "bad host", strings.Repeat("h", 100)} {
				for _, target := range []string{"", "/", "//", "/a", "//a//b", "/a/b?c", "/?a", "/#a", "/a#b", "/%41%2f/b", "*", "http://X:1/y/z", "a:1", "/" + strings.Repeat("s", 100), "?q", "/a?b/c"} {
					server := serverEnd.Addr()
					kept := n.again([]byte(host), &last.host)
					if want := exchange.Bound(host, 64); kept != want || n.again([]byte(host), &last.host) != want || n.method([]byte(method)) != method {
						t.Fatalf("again(%q) = %q", host, kept)
					}
					host := kept
					sent, place := n.target([]byte(target))
					if want := exchange.Bound(target, 64); sent != want {
						t.Fatalf("target(%q) = %q", target, sent)
					}
					target := sent
					d := n.domain(method, target, host, last.host, server)
					if want := exchange.Bound(exchange.Domain(method, target, host, server), 64); d != want {
						t.Fatalf("domain(%q, %q, %q) = %q, want %q", method, target, host, d, want)
					}
					got := n.section(d, method, target, place)
					if want := exchange.Bound(exchange.Section(d, method, target), 64); got != want {
						t.Fatalf("section(%q, %q, %q) = %q, want %q", d, method, target, got, want)
					}
				}
			}
		}
	}
	if got, want := n.get([]byte("a\r\n\t b")), "a b"; got != want {
		t.Errorf("get of a folded value = %q, want %q", got, want)
	}
	long := strings.Repeat("x", 65)
	if got, want := n.get([]byte(long)), exchange.Bound(long, 64); got != want {
		t.Errorf("get of a long value = %q, want %q", got, want)
	}
}

func TestPipelineOverflow(t *testing.T) {
	r := newRig(t)
	r.p.cfg.MaxPipelined = 2
	r.get("/1").get("/2").get("/3").get("/4")
	for i := range 4 {
		r.down(okay(201+i, ""))
	}
	r.get("/5").ok("").close(stream.ByFIN)
	want := "GET /3 = - evicted\nGET /4 = - evicted\nGET /1 = 201 complete\nGET /2 = 202 complete\n- = 203 complete\n- = 204 complete\nGET /5 = 200 complete"
	if got := r.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := r.count[exchange.PipelineOverflows]; got != 2 {
		t.Errorf("pipeline overflows = %d, want 2", got)
	}
}

// TestOverflowBody: the body of a request beyond the limit is still framed.
func TestOverflowBody(t *testing.T) {
	r := newRig(t)
	r.p.cfg.MaxPipelined = 1
	r.get("/1").up("POST /2 HTTP/1.1\r\nContent-Length: 4\r\n\r\nab").up("cd").ok("").ok("").get("/3").ok("").close(stream.ByFIN)
	want := "POST /2 = - evicted\nGET /1 = 200 complete\n- = 200 complete\nGET /3 = 200 complete"
	if got := r.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestProgress: bytes of long exchanges are reported as they come, each once.
func TestProgress(t *testing.T) {
	r := newRig(t)
	r.get("/big").down("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + strings.Repeat("x", 100))
	r.p.Progress(r.now + 59e9)
	if r.progress != 0 {
		t.Error("an exchange open for 59 s made a progress event")
	}
	r.p.Progress(r.now + 61e9)
	if r.progress != 1 || r.last.NewResponseBytes != 100 || r.last.Event != exchange.Progress || r.last.Time != r.now+61e9 {
		t.Errorf("progress events = %d, the last %+v; want one with 100 new bytes", r.progress, r.last)
	}
	r.p.Progress(r.now + 71e9)
	if r.progress != 1 {
		t.Error("a progress event without new bytes")
	}
	r.down(strings.Repeat("x", 200))
	r.p.Progress(r.now + 81e9)
	if r.progress != 2 || r.last.NewResponseBytes != 200 || r.last.NewRequestWireBytes != 0 {
		t.Errorf("progress events = %d, the last %+v; want 200 new bytes", r.progress, r.last)
	}
	r.down(strings.Repeat("x", 700)).close(stream.ByFIN)
	if r.last.Event != exchange.Outcome || r.last.NewResponseBytes != 700 || r.last.ResponseBytes != 1000 {
		t.Errorf("outcome %+v, want 700 new bytes of 1000", r.last)
	}
	x := r.done[0]
	if r.newResp != x.ResponseBytes || r.newRespWire != x.ResponseWireBytes || r.newReqWire != x.RequestWireBytes {
		t.Errorf("new bytes sum to %d, %d, %d; want %d, %d, %d", r.newResp, r.newRespWire, r.newReqWire, x.ResponseBytes, x.ResponseWireBytes, x.RequestWireBytes)
	}
}

// TestTTFB: a request cut short by a gap does not make its response early.
func TestTTFB(t *testing.T) {
	r := newRig(t)
	r.up("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab").gapUp(100).ok("").close(stream.ByFIN)
	ttfb, early, ok := r.done[0].TTFB()
	if ttfb != 1e6 || early || !ok {
		t.Errorf("TTFB() = %d, %v, %v; want 1 ms, not early", ttfb, early, ok)
	}
}

// TestSplits: a conversation gives the same exchanges however its turns are cut.
func TestSplits(t *testing.T) {
	turns := []struct {
		d stream.Direction
		s string
	}{
		{up, "CONNECT example.org:80 HTTP/1.1\r\nHost: example.org\r\n\r\n"}, {down, connected},
		{up, getting("/1") + "POST /2 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\nT: 1\r\n\r\n"},
		{down, okay(200, "body") + "HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\nA\r\n0123456789\r\n0\r\n\r\n"},
		{up, "HEAD /3 HTTP/1.0\n\n"}, {down, "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n"},
		{up, "GET /4 HTTP/1.0\r\n\r\n"}, {down, "HTTP/1.0 200 OK\r\n\r\nuntil the end"},
	}
	run := func(cut func(s string) []string) string {
		r := newRig(t)
		for _, turn := range turns {
			for _, s := range cut(turn.s) {
				r.chunk(turn.d, []byte(s), 0)
			}
		}
		r.fin(down).close(stream.ByFIN)
		var b strings.Builder
		for _, x := range r.done {
			fmt.Fprintf(&b, "%s %s %d %d/%d %d/%d %d %s\n", x.Method, x.Target, x.Status, x.RequestBytes, x.RequestWireBytes, x.ResponseBytes, x.ResponseWireBytes, x.Interim, x.End)
		}
		return b.String()
	}
	want := run(func(s string) []string { return []string{s} })
	if strings.Count(want, "\n") != 5 {
		t.Fatalf("in one piece: got\n%s", want)
	}
	for i := 1; i < 200; i++ {
		got := run(func(s string) []string {
			if i >= len(s) {
				return []string{s}
			}
			return []string{s[:i], s[i:]}
		})
		if got != want {
			t.Fatalf("cut at %d: got\n%s\nwant\n%s", i, got, want)
		}
		got = run(func(s string) (parts []string) {
			for len(s) > i {
				parts = append(parts, s[:i])
				s = s[i:]
			}
			return append(parts, s)
		})
		if got != want {
			t.Fatalf("in pieces of %d: got\n%s\nwant\n%s", i, got, want)
		}
	}
}

// TestLossAnywhere drops each segment of a conversation in turn: only the
// exchange it belongs to may be harmed, and no other pair may shift.
func TestLossAnywhere(t *testing.T) {
	type segment struct {
		d stream.Direction
		s string
	}
	var all []segment
	const n = 6
	for i := range n {
		req := fmt.Sprintf("POST /%d HTTP/1.1\r\nHost: example.org\r\nContent-Length: 40\r\n\r\n%s", i, "GET /inner HTTP/1.1\r\nHost: a\r\nX: 12345\r\n\r\n"[:40])
		resp := fmt.Sprintf("HTTP/1.1 %d OK\r\nTransfer-Encoding: chunked\r\n\r\n2a\r\n%s\r\n0\r\n\r\n", 200+i, "HTTP/1.1 599 inner\r\nContent-Length: 0\r\n\r\n1")
		all = append(all, segment{up, req[:20]}, segment{up, req[20 : len(req)-40]}, segment{up, req[len(req)-40:]},
			segment{down, resp[:47]}, segment{down, resp[47:51]}, segment{down, resp[51 : len(resp)-5]}, segment{down, resp[len(resp)-5:]})
	}
	for lost := range all {
		r := newRig(t)
		for i, s := range all {
			if i == lost {
				r.chunk(s.d, nil, uint64(len(s.s)))
			} else {
				r.chunk(s.d, []byte(s.s), 0)
			}
		}
		r.close(stream.ByFIN)
		good := 0
		for _, x := range r.done {
			if x.Target == "/inner" || x.Status == 599 {
				t.Fatalf("segment %d (%q) lost: body text taken for a message:\n%s", lost, all[lost].s, r)
			}
			if x.HasRequest && x.HasResponse {
				if x.Target != fmt.Sprintf("/%d", x.Status-200) {
					t.Fatalf("segment %d (%q) lost: shifted pairs:\n%s", lost, all[lost].s, r)
				}
				if x.End == exchange.Complete {
					good++
				}
			}
		}
		if good < n-1 {
			t.Fatalf("segment %d (%q) lost: %d whole exchanges, want %d at least:\n%s", lost, all[lost].s, good, n-1, r)
		}
	}
}

// TestHalfDuplex: a long capture of one direction keeps nothing.
func TestHalfDuplex(t *testing.T) {
	r := newRig(t)
	for range 2000 {
		r.get("/")
	}
	if got, want := r.p.Open(), r.p.cfg.MaxPipelined; got != want {
		t.Errorf("%d exchanges open, want %d", got, want)
	}
	r.close(stream.ByFIN)
	if got := r.count[exchange.Requests]; got != 2000 {
		t.Errorf("requests = %d, want 2000", got)
	}
}

// TestGreeting: a protocol in which the server speaks first has no HTTP/0.9.
func TestGreeting(t *testing.T) {
	r := newRig(t)
	r.down("220 ready\r\n").up("GET /pub/file\r\n").down("150 here it comes\r\n").close(stream.ByFIN)
	if r.String() != "" || r.count[exchange.Requests] != 0 || r.count[exchange.OtherUnknown] != 1 {
		t.Errorf("got %q, %d requests, %d unknown, want none but 1 unknown", r, r.count[exchange.Requests], r.count[exchange.OtherUnknown])
	}
}

// TestLostTail: when the last bytes of a message are lost, which shows only with the
// next packet, it ends with the last that was seen.
func TestLostTail(t *testing.T) {
	r := newRig(t)
	r.get("/1").down("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345")
	r.now += 30e9
	r.gapDown(5).up("POST /2 HTTP/1.1\r\nContent-Length: 10\r\n\r\n12345")
	r.now += 500e6
	r.gapUp(5).ok("").close(stream.ByFIN)
	if d, ok := r.done[0].Duration(); d != 1e6 || !ok || r.done[0].ResponseBytes != 10 {
		t.Errorf("Duration() = %d, %v, with %d bytes, want 1 ms and 10", d, ok, r.done[0].ResponseBytes)
	}
	if ttfb, early, ok := r.done[1].TTFB(); ttfb != 502e6 || early || !ok || r.done[1].RequestBytes != 10 {
		t.Errorf("TTFB() = %d, %v, %v, after %d bytes, want 502 ms and 10", ttfb, early, ok, r.done[1].RequestBytes)
	}
}

// TestCutRequest: the time to first byte is counted from the last byte of a request,
// also when a gap took its framing long before.
func TestCutRequest(t *testing.T) {
	r := newRig(t)
	r.up("POST /u HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab").gapUp(100)
	r.now += 2e9
	r.up("cd\r\n0\r\n\r\n").ok("").close(stream.ByFIN)
	if ttfb, early, ok := r.done[0].TTFB(); ttfb != 1e6 || early || !ok {
		t.Errorf("TTFB() = %d, %v, %v, want 1 ms", ttfb, early, ok)
	}
}

// TestWaitingIsBounded: connections that pipeline share what they may keep, and
// the first request of each is kept in any case.
func TestWaitingIsBounded(t *testing.T) {
	r := newRig(t)
	r.p.cfg.MaxWaiting = 5
	conns := make([]*stream.Conn, 10)
	for i := range conns {
		r.open(true)
		conns[i] = r.conn
		r.get("/1").get("/2").get("/3")
	}
	if got := r.p.Open(); got != 10+5 {
		t.Errorf("%d exchanges open, want the first of each of 10 connections and 5 more", got)
	}
	if got, other := r.count[exchange.WaitingOverflows], r.count[exchange.PipelineOverflows]; got != 15 || other != 0 {
		t.Errorf("waiting overflows = %d, pipeline overflows = %d, want 15 and 0", got, other)
	}
	// Whoever is answered makes room for others.
	r.conn = conns[0]
	r.ok("").ok("").ok("")
	if r.p.ahead != 3 {
		t.Errorf("%d requests wait behind others, want 3", r.p.ahead)
	}
	for _, c := range conns {
		r.p.Closed(c, stream.ByFIN, r.now)
		r.balance()
	}
	if r.p.ahead != 0 || r.p.Open() != 0 {
		t.Errorf("after the connections: %d requests wait, %d exchanges are open", r.p.ahead, r.p.Open())
	}
}

// TestNoRoomAfterLostResponse: the response to a request that had no place in the queue is not given to the request before it, of which
// the response was lost; nor is the next request taken for one that has no place.
func TestNoRoomAfterLostResponse(t *testing.T) {
	for name, tt := range map[string]struct {
		second func(r *rig)
		want   string
	}{
		"answered":    {func(r *rig) { r.get("/2").down(okay(402, "")) }, "GET /2 = - evicted, GET /1 = - lost, - = 402 complete, GET /4 = 404 complete"},
		"in its head": {func(r *rig) { r.up("GET /2 HTTP/1.1\r\nHost: a\r\n").down(okay(408, "")).up("\r\n") }, "GET /2 = - evicted, GET /1 = - lost, - = 408 complete, GET /4 = 404 complete"},
		"lost as well": {func(r *rig) { r.get("/2").gapDown(len(okay(402, ""))).get("/3").down(okay(403, "")) },
			"GET /2 = - evicted, GET /3 = - evicted, GET /1 = - lost, - = 403 complete, GET /4 = 404 complete"},
	} {
		r := newRig(t)
		r.p.cfg.MaxWaiting = 0
		r.get("/1").gapDown(len(okay(401, "")))
		tt.second(r)
		r.get("/4").down(okay(404, "")).close(stream.ByFIN)
		if got := strings.ReplaceAll(strings.TrimSpace(r.String()), "\n", ", "); got != tt.want {
			t.Errorf("%s: %s, want %s", name, got, tt.want)
		}
	}
}

// TestOpenMemory: the oldest open exchanges give way, with whatever they hold, and what is answered
// in time does not, nor are answers shifted to other requests.
func TestOpenMemory(t *testing.T) {
	r := newRig(t)
	r.p.cfg.MaxOpenMemory = 64 << 10
	r.open(true)
	pipelined := r.conn
	r.get("/first").get("/second")
	for range 1000 {
		r.open(true)
		r.get("/" + strings.Repeat("x", 900))
		if n := r.p.memory + len(r.p.pairs)*pairBytes; n > 64<<10 {
			t.Fatalf("%d bytes held, want at most 64 KiB", n)
		}
	}
	if open, lost := r.p.Open(), r.count[exchange.EvictedExchanges]; open > 100 || uint64(open)+lost != 1002 {
		t.Errorf("%d exchanges open, %d given up, want at most 100, 1002 together", open, lost)
	}
	r.open(true)
	r.get("/honest").ok("")
	if x := r.done[len(r.done)-1]; x.Target != "/honest" || !x.HasResponse || x.End != exchange.Complete {
		t.Errorf("an exchange answered in time: %+v", x)
	}
	r.conn = pipelined
	r.get("/third").ok("").ok("").ok("")
	if x := r.done[len(r.done)-1]; x.Target != "/third" || !x.HasResponse {
		t.Errorf("the third response after two requests were given up: %+v, want it to answer /third", x)
	}
	r.balance()
}

// TestBurst: a connection does not keep the room that a burst of requests took, nor does one whose last
// request is never answered.
func TestBurst(t *testing.T) {
	r := newRig(t)
	r.open(true)
	for i := range 100 {
		r.get(fmt.Sprint("/", i))
	}
	c := r.conn.User.(*conn)
	for left := 99; left >= 0; left-- {
		r.ok("")
		if cap(c.queue) > max(spareQueue, 4*left) || len(c.queue) != left {
			t.Errorf("room for %d requests after a burst, and %d wait, want %d and at most four times as much room, or %d", cap(c.queue), len(c.queue), left, spareQueue)
		}
	}
	for i, x := range r.done {
		if x.Target != fmt.Sprint("/", i) || !x.HasResponse {
			t.Errorf("response %d is of %q (%t)", i, x.Target, x.HasResponse)
		}
	}
}

func TestConfig(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Errorf("DefaultConfig().Validate() = %v", err)
	}
	err := Config{}.Validate()
	for _, key := range []string{"max_header_bytes", "max_pipelined", "max_waiting", "sniff_bytes", "sniff_starts", "max_str_length"} {
		if err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("Config{}.Validate() = %v, want %s named", err, key)
		}
	}
}

type nowhere struct{}

func (nowhere) Observe(*exchange.Observation) {}

// bench is a connection that carries exchanges without end.
func bench(b testing.TB) func(d stream.Direction, data []byte) {
	var count exchange.Counters
	p := New(DefaultConfig(), Deps{Sink: nowhere{}, Counters: &count})
	conn := &stream.Conn{ID: 1, Client: clientEnd, Server: serverEnd, Handshake: true}
	p.Opened(conn, 0)
	ch := stream.Chunk{}
	return func(d stream.Direction, data []byte) {
		ch.Dir, ch.Data, ch.Time = d, data, ch.Time+1000
		if !p.Data(conn, &ch) {
			b.Fatal("the connection was given up")
		}
	}
}

var benchRequest = []byte("GET /section/page.html?id=1 HTTP/1.1\r\nHost: www.example.org\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101\r\nAccept: */*\r\n\r\n")

func TestAllocations(t *testing.T) {
	data := bench(t)
	response := []byte(okay(200, strings.Repeat("x", 1000)))
	if n := testing.AllocsPerRun(1000, func() {
		data(up, benchRequest)
		data(down, response[:500])
		data(down, response[500:])
	}); n > 0 {
		t.Errorf("%v allocations for an exchange with known strings, want 0", n)
	}
	i := 0
	fresh := append([]byte(nil), benchRequest...)
	if n := testing.AllocsPerRun(1000, func() {
		i++
		copy(fresh[13:], fmt.Appendf(nil, "%04d", i%10000))
		data(up, fresh)
		data(down, response)
	}); n > 3 { // one of them is Appendf's
		t.Errorf("%v allocations for an exchange with a new target, want 2 at most", n-1)
	}
}

func BenchmarkExchange(b *testing.B) {
	for _, targets := range []int{1, 100000} {
		b.Run(fmt.Sprintf("targets=%d", targets), func(b *testing.B) {
			data := bench(b)
			request := append([]byte(nil), benchRequest...)
			response := []byte(okay(200, strings.Repeat("x", 500)))
			i := 0
			b.ReportAllocs()
			for b.Loop() {
				if targets > 1 {
					i = (i + 1) % targets
					for k, n := 0, i; k < 5; k, n = k+1, n/10 {
						request[18-k] = byte('0' + n%10)
					}
				}
				data(up, request)
				data(down, response)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "exchanges/s")
		})
	}
}

func BenchmarkBody(b *testing.B) {
	data := bench(b)
	data(up, benchRequest)
	data(down, []byte("HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\n"))
	body := make([]byte, 1448)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		data(down, body)
	}
}
