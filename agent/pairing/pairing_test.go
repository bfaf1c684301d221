package pairing

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/httpctl/httpctl/agent/stream"
	"github.com/httpctl/httpctl/pkg/exchange"
)

var (
	clientEnd = netip.MustParseAddrPort("192.0.2.1:40000")
	serverEnd = netip.MustParseAddrPort("192.0.2.2:80")
)

const (
	up   = stream.ToServer
	down = stream.ToClient
)

// rig drives one connection and keeps what the sink was shown.
type rig struct {
	t     testing.TB
	p     *Pairer
	conn  *stream.Conn
	count exchange.Counters
	now   int64
	seen  []exchange.Exchange // of RequestSeen
	done  []exchange.Exchange // of Outcome
	// Sums of the New fields over all events.
	newReq, newReqWire, newResp, newRespWire uint64
	progress                                 int
	last                                     exchange.Observation
	more                                     bool // what Data returned last
}

func (r *rig) Observe(o *exchange.Observation) {
	r.last = *o
	r.newReq += o.NewRequestBytes
	r.newReqWire += o.NewRequestWireBytes
	r.newResp += o.NewResponseBytes
	r.newRespWire += o.NewResponseWireBytes
	switch o.Event {
	case exchange.RequestSeen:
		r.seen = append(r.seen, *o.Exchange)
	case exchange.Progress:
		r.progress++
	case exchange.Outcome:
		r.done = append(r.done, *o.Exchange)
	}
}

func newRig(t testing.TB) *rig {
	r := &rig{t: t, now: 1e9}
	r.p = New(DefaultConfig(), Deps{Sink: r, Counters: &r.count})
	return r.open(true)
}

func (r *rig) open(handshake bool) *rig {
	r.conn = &stream.Conn{ID: 1, Client: clientEnd, Server: serverEnd, Handshake: handshake}
	r.p.Opened(r.conn, r.now)
	r.more = true
	return r
}

func (r *rig) chunk(d stream.Direction, data []byte, gap uint64) *rig {
	if !r.more {
		return r
	}
	r.now += 1e6
	r.more = r.p.Data(r.conn, &stream.Chunk{Dir: d, Data: data, Gap: gap, Time: r.now, Packet: uint64(r.now / 1e6)})
	r.balance()
	return r
}

func (r *rig) up(s string) *rig     { return r.chunk(up, []byte(s), 0) }
func (r *rig) down(s string) *rig   { return r.chunk(down, []byte(s), 0) }
func (r *rig) gapUp(n int) *rig     { return r.chunk(up, nil, uint64(n)) }
func (r *rig) gapDown(n int) *rig   { return r.chunk(down, nil, uint64(n)) }
func (r *rig) get(path string) *rig { return r.up(getting(path)) }
func (r *rig) ok(body string) *rig  { return r.down(okay(200, body)) }

func getting(path string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: example.org\r\n\r\n"
}

func okay(status int, body string) string {
	return fmt.Sprintf("HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s", status, len(body), body)
}

func (r *rig) fin(d stream.Direction) *rig {
	r.now += 1e6
	r.p.Finished(r.conn, d, r.now)
	r.balance()
	return r
}

func (r *rig) close(why stream.CloseReason) *rig {
	r.now += 1e6
	r.p.Closed(r.conn, why, r.now)
	r.more = false
	r.balance()
	if r.p.Open() != 0 {
		r.t.Errorf("%d exchanges open after the connection has closed", r.p.Open())
	}
	return r
}

// balance checks DESIGN section 5's sum.
func (r *rig) balance() {
	r.t.Helper()
	if a, b := r.count[exchange.Requests]+r.count[exchange.UnmatchedResponses], r.count[exchange.Outcomes]+uint64(r.p.Open()); a != b {
		r.t.Fatalf("requests + responses without request = %d, outcomes + open = %d", a, b)
	}
	if got := uint64(len(r.done)); got != r.count[exchange.Outcomes] {
		r.t.Fatalf("%d outcomes seen, %d counted", got, r.count[exchange.Outcomes])
	}
}

// String is one line an exchange, in order of completion.
func (r *rig) String() string {
	var b strings.Builder
	for _, x := range r.done {
		req, resp := "-", "-"
		if x.HasRequest {
			req = x.Method + " " + x.Target
		}
		if x.HasResponse {
			resp = exchange.StatusText(x.Status)
			if x.Status == 0 {
				resp = "body"
			}
		}
		fmt.Fprintf(&b, "%s = %s %s\n", req, resp, x.End)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

const chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

const connected = "HTTP/1.1 200 Connection established\r\n\r\n"

// TestInterimAfterLoss: an interim response after a lost one is part of the next exchange.
func TestInterimAfterLoss(t *testing.T) {
	hint := "HTTP/1.1 103 Early Hints\r\n\r\n"
	r := newRig(t)
	r.get("/1").gapDown(90).get("/2").down(hint).ok("").close(stream.ByFIN)
	if got, want := r.String(), "GET /1 = - lost\nGET /2 = 200 complete"; got != want {
		t.Fatalf("exchanges:\n%s\nwant\n%s", got, want)
	}
	if x := r.done[1]; x.Interim != 1 || x.ResponseWireBytes != uint64(len(hint+okay(200, ""))) {
		t.Errorf("GET /2 has %d interim responses and %d bytes, want 1 and %d", x.Interim, x.ResponseWireBytes, len(hint+okay(200, "")))
	}
	if x := r.done[0]; x.Interim != 0 {
		t.Errorf("GET /1, whose response is lost, has %d interim responses", x.Interim)
	}
}

// TestHeadGivenUp: a head that other connections have taken the memory of is a message that was lost, whatever
// comes next of its connection.
func TestHeadGivenUp(t *testing.T) {
	for _, c := range []struct {
		name string
		next func(r *rig)
		want string
	}{
		{"the rest of a response", func(r *rig) { r.get("/1").down("HTTP/1.1 200 OK\r\nSet-C") },
			"GET /1 = - lost\nGET /2 = 202 complete\nGET /3 = 203 complete"},
		{"the rest of a request", func(r *rig) { r.get("/0").ok("").up("GET /1 HTTP/1.1\r\nHost: ") },
			"GET /0 = 200 complete\nGET /2 = 202 complete\nGET /3 = 203 complete"},
	} {
		for _, how := range []string{"read", "gap"} {
			r := newRig(t)
			cfg := DefaultConfig()
			cfg.MaxHeadMemory = 8 << 10
			r.p = New(cfg, Deps{Sink: r, Counters: &r.count})
			r.open(true)
			c.next(r)
			d := down
			if strings.Contains(c.name, "request") {
				d = up
			}
			for i := range 9 {
				other := &stream.Conn{ID: uint64(i + 2), Client: clientEnd, Server: serverEnd, Handshake: true}
				r.p.Opened(other, r.now)
				r.p.Data(other, &stream.Chunk{Dir: up, Data: []byte("GET / HTTP/1.1\r\nCookie: "), Time: r.now})
			}
			if r.count[exchange.EvictedBytes] == 0 {
				t.Fatalf("%s: no head was given up", c.name)
			}
			if how == "gap" {
				r.chunk(d, nil, 9)
			} else {
				r.chunk(d, []byte("ookie: x\r\n\r\n"), 0)
			}
			if d == up {
				r.ok("")
			}
			r.get("/2").down(okay(202, "")).get("/3").down(okay(203, ""))
			want := c.want
			if d == up {
				want = strings.Replace(want, "GET /2", "- = 200 complete\nGET /2", 1)
			}
			if got := r.String(); got != want {
				t.Errorf("%s, %s: exchanges:\n%s\nwant\n%s", c.name, how, got, want)
			}
		}
	}
}

// TestHeadlessGivenUp: a request that was answered before its head had ended is one, also if it was given up meanwhile.
func TestHeadlessGivenUp(t *testing.T) {
	r := newRig(t)
	r.get("/0").down(okay(200, "")).up("POST /1 HTTP/1.1\r\nHost: exam").down(okay(408, ""))
	if r.p.oldest == nil {
		t.Fatal("the request that was answered early has ended")
	}
	r.p.giveUp(r.p.oldest, r.now)
	r.down(okay(400, "")).up("ple.org\r\n\r\n").get("/2").down(okay(202, "")).get("/3").down(okay(203, ""))
	if got, want := r.String(), "GET /0 = 200 complete\nPOST /1 = 408 evicted\n- = 400 complete\nGET /2 = 202 complete\nGET /3 = 203 complete"; got != want {
		t.Errorf("exchanges:\n%s\nwant\n%s", got, want)
	}
}

// TestQueueKeepsNothing: a connection all of whose exchanges have ended holds none of them, neither where
// the queue was before it grew nor behind its end.
func TestQueueKeepsNothing(t *testing.T) {
	for name, do := range map[string]func(r *rig){
		"grown": func(r *rig) { r.get("/1").get("/2").ok("").ok("") },
		"lost":  func(r *rig) { r.get("/1").gapUp(90).get("/3").gapDown(90).get("/4").ok("").get("/5").ok("") },
		"long": func(r *rig) {
			for range 2 * spareQueue {
				r.get("/1")
			}
			for range 2 * spareQueue {
				r.ok("")
			}
		},
	} {
		r := newRig(t)
		do(r)
		c := r.conn.User.(*conn)
		if r.p.Open() != 0 || len(c.queue) != 0 {
			t.Fatalf("%s: %d exchanges open, %d queued", name, r.p.Open(), len(c.queue))
		}
		for _, s := range append(c.queue[:cap(c.queue)], c.room[0]) {
			if s.pair != nil {
				t.Errorf("%s: the exchange of %q is kept", name, s.pair.x.Target)
			}
		}
	}
}

// TestPairing: what answers what.
func TestPairing(t *testing.T) {
	tests := []struct {
		name string
		run  func(r *rig)
		want string
		// counters that are not zero, besides those of the sum
		counts map[exchange.Counter]uint64
	}{
		{"keep-alive", func(r *rig) { r.get("/1").ok("a").get("/2").ok("b").close(stream.ByFIN) },
			"GET /1 = 200 complete\nGET /2 = 200 complete", nil},
		{"pipelined", func(r *rig) {
			r.up(getting("/1") + getting("/2") + getting("/3")).down(okay(200, "a") + okay(404, "") + okay(500, "c")).close(stream.ByFIN)
		}, "GET /1 = 200 complete\nGET /2 = 404 complete\nGET /3 = 500 complete", nil},
		{"unanswered", func(r *rig) { r.get("/1").close(stream.ByRST) }, "GET /1 = - closed", nil},
		{"timed out, evicted, drained", func(r *rig) {
			r.get("/1").close(stream.ByTimeout).open(true).get("/2").close(stream.ByEviction).open(true).get("/3").close(stream.ByDrain)
		}, "GET /1 = - timeout\nGET /2 = - evicted\nGET /3 = - drained", nil},
		{"response only", func(r *rig) { r.ok("a").ok("b").close(stream.ByFIN) }, "- = 200 complete\n- = 200 complete", nil},
		{"responses to unseen HEAD requests", func(r *rig) {
			head := "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"
			r.down(head).down(head + head).down("HTTP/1.1 200 OK\r\n\r\n" + head).down(okay(201, "")).close(stream.ByFIN)
		}, "- = 200 complete\n- = 200 complete\n- = 200 complete\n- = 200 complete\n- = 200 complete\n- = 201 complete", nil},
		{"requests only", func(r *rig) { r.get("/1").get("/2").close(stream.ByFIN) }, "GET /1 = - closed\nGET /2 = - closed", nil},
		{"HEAD, 204, 304", func(r *rig) {
			r.up("HEAD /h HTTP/1.1\r\n\r\n").down("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n").
				get("/n").down("HTTP/1.1 204 No\r\nContent-Length: 9\r\n\r\n").
				get("/m").down("HTTP/1.1 304 Not\r\nContent-Length: 9\r\n\r\n").get("/x").ok("").close(stream.ByFIN)
		}, "HEAD /h = 200 complete\nGET /n = 204 complete\nGET /m = 304 complete\nGET /x = 200 complete", nil},
		{"interim", func(r *rig) {
			r.up("POST /p HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n").down("HTTP/1.1 100 Continue\r\n\r\n").
				up("ab").down("HTTP/1.1 102 P\r\n\r\nHTTP/1.1 103 E\r\n\r\n" + okay(201, "")).close(stream.ByFIN)
		}, "POST /p = 201 complete", map[exchange.Counter]uint64{exchange.InterimResponses: 3}},
		{"early", func(r *rig) {
			r.up("POST /p HTTP/1.1\r\nContent-Length: 4\r\n\r\nab").down(okay(413, "no")).up("cd").get("/2").ok("").close(stream.ByFIN)
		}, "POST /p = 413 complete\nGET /2 = 200 complete", map[exchange.Counter]uint64{exchange.EarlyResponses: 1}},
		{"early and never completed", func(r *rig) {
			r.up("POST /p HTTP/1.1\r\nContent-Length: 4\r\n\r\nab").down(okay(413, "no")).close(stream.ByRST)
		}, "POST /p = 413 complete", map[exchange.Counter]uint64{exchange.EarlyResponses: 1}},
		{"until the end", func(r *rig) {
			r.get("/1").down("HTTP/1.0 200 OK\r\n\r\nabc").down(okay(200, "")).fin(down).close(stream.ByFIN)
		}, "GET /1 = 200 complete", nil},
		{"until a reset", func(r *rig) { r.get("/1").down("HTTP/1.0 200 OK\r\n\r\nabc").close(stream.ByRST) }, "GET /1 = 200 closed", nil},
		{"101", func(r *rig) {
			r.up("GET /ws HTTP/1.1\r\nUpgrade: websocket\r\n\r\n").down("HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n\r\n" + okay(200, "")).up("\x81\x01a").close(stream.ByFIN)
		}, "GET /ws = 101 upgraded", map[exchange.Counter]uint64{exchange.Upgrades: 1, exchange.OtherUpgraded: 1}},
		{"CONNECT with TLS", func(r *rig) {
			r.up("CONNECT example.org:443 HTTP/1.1\r\n\r\n").down(connected).up("\x16\x03\x01\x00\x05hello").close(stream.ByFIN)
		}, "CONNECT example.org:443 = 200 upgraded", map[exchange.Counter]uint64{exchange.Upgrades: 1, exchange.OtherUpgraded: 1}},
		{"CONNECT with HTTP", func(r *rig) {
			r.up("CONNECT example.org:80 HTTP/1.1\r\n\r\n").down(connected).get("/in").ok("").close(stream.ByFIN)
		}, "CONNECT example.org:80 = 200 upgraded\nGET /in = 200 complete", map[exchange.Counter]uint64{exchange.Upgrades: 1}},
		{"CONNECT refused", func(r *rig) {
			r.up("CONNECT example.org:80 HTTP/1.1\r\n\r\n").down(okay(407, "no")).get("/2").ok("").close(stream.ByFIN)
		}, "CONNECT example.org:80 = 407 complete\nGET /2 = 200 complete", nil},
		{"CONNECT and nothing more", func(r *rig) { r.up("CONNECT a:1 HTTP/1.1\r\n\r\n").down(connected).close(stream.ByFIN) },
			"CONNECT a:1 = 200 upgraded", map[exchange.Counter]uint64{exchange.Upgrades: 1, exchange.OtherUpgraded: 1}},
		{"http/0.9", func(r *rig) {
			r.up("GET /old\r\n").down("<html>").down("HTTP/1.1 200 OK\r\n\r\n").fin(down).close(stream.ByFIN)
		},
			"GET /old = body complete", nil},
		{"http/0.9 asked, 1.1 answered", func(r *rig) {
			r.up("GET /old\r\n").down("HTT").down("P/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n").close(stream.ByFIN)
		},
			"GET /old = 400 complete", nil},
		{"http/1.1 asked, 0.9 answered", func(r *rig) { r.get("/1").down("<html>no head</html>").fin(down).close(stream.ByFIN) },
			"GET /1 = - closed", map[exchange.Counter]uint64{exchange.SkippedBytes: 20}},
		{"SOCKS before it", func(r *rig) {
			r.up("\x05\x01\x00").down("\x05\x00").up("\x05\x01\x00\x01\xc0\x00\x02\x01\x00\x50").down("\x05\x00\x00\x01\xc0\x00\x02\x01\x00\x50").get("/1").ok("").close(stream.ByFIN)
		}, "GET /1 = 200 complete", map[exchange.Counter]uint64{exchange.SkippedBytes: 25}},
		{"smuggling attempt", func(r *rig) {
			r.up("POST /s HTTP/1.1\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + getting("/x")).down(okay(200, "") + okay(200, "")).close(stream.ByFIN)
		}, "POST /s = 200 complete\nGET /x = 200 complete", map[exchange.Counter]uint64{exchange.SmugglingSuspects: 1, exchange.SuspectLengthAndCoding: 1}},
		{"unframed request", func(r *rig) {
			r.up("POST /s HTTP/1.1\r\nContent-Length: -6\r\n\r\n" + getting("/x")).down(okay(400, "")).close(stream.ByFIN)
		}, "POST /s = 400 lost", map[exchange.Counter]uint64{exchange.SmugglingSuspects: 1, exchange.SuspectInvalidLength: 1, exchange.Malformed: 1, exchange.SkippedBytes: 38}},

		// Loss.
		{"gap in a body", func(r *rig) {
			r.get("/1").down("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n").gapDown(100).get("/2").ok("").close(stream.ByFIN)
		},
			"GET /1 = 200 complete\nGET /2 = 200 complete", nil},
		{"response lost", func(r *rig) { r.get("/1").gapDown(100).get("/2").ok("").get("/3").ok("").close(stream.ByFIN) },
			"GET /1 = - lost\nGET /2 = 200 complete\nGET /3 = 200 complete", nil},
		{"later response lost", func(r *rig) { r.get("/1").ok("").get("/2").gapDown(100).get("/3").ok("").close(stream.ByFIN) },
			"GET /1 = 200 complete\nGET /2 = - lost\nGET /3 = 200 complete", map[exchange.Counter]uint64{exchange.Resyncs: 1}},
		{"request lost", func(r *rig) { r.get("/1").ok("").gapUp(50).ok("two").get("/3").ok("").close(stream.ByFIN) },
			"GET /1 = 200 complete\n- = 200 complete\nGET /3 = 200 complete", map[exchange.Counter]uint64{exchange.Resyncs: 1}},
		{"request and response lost", func(r *rig) { r.get("/1").ok("").gapDown(50).gapUp(50).get("/3").ok("").close(stream.ByFIN) },
			"GET /1 = 200 complete\nGET /3 = 200 complete", map[exchange.Counter]uint64{exchange.Resyncs: 2}},
		{"the first request lost, and the next exchange", func(r *rig) {
			r.gapUp(50).down(okay(201, "")).gapUp(50).gapDown(50).get("/3").down(okay(203, "")).get("/4").down(okay(204, "")).close(stream.ByFIN)
		}, "- = 201 complete\nGET /3 = 203 complete\nGET /4 = 204 complete", map[exchange.Counter]uint64{exchange.Resyncs: 1}},
		{"request and response lost, the other order", func(r *rig) { r.get("/1").ok("").gapUp(50).gapDown(50).get("/3").ok("").close(stream.ByFIN) },
			"GET /1 = 200 complete\nGET /3 = 200 complete", map[exchange.Counter]uint64{exchange.Resyncs: 2}},
		{"pipelined response lost", func(r *rig) {
			r.up(getting("/1") + getting("/2") + getting("/3")).gapDown(40).down(okay(202, "")).down(okay(203, "")).close(stream.ByFIN)
		}, "GET /1 = - lost\nGET /2 = 202 complete\nGET /3 = 203 complete", nil},
		{"pipelined request lost", func(r *rig) {
			r.up(getting("/1") + getting("/2")).gapUp(40).get("/4").down(okay(201, "")).down(okay(202, "")).down(okay(203, "")).down(okay(204, "")).close(stream.ByFIN)
		}, "GET /1 = 201 complete\nGET /2 = 202 complete\n- = 203 complete\nGET /4 = 204 complete", map[exchange.Counter]uint64{exchange.Resyncs: 1}},
		{"several pipelined responses lost in one gap", func(r *rig) {
			r.up(getting("/1") + getting("/2") + getting("/3") + getting("/4")).gapDown(120).down(okay(204, "")).
				up(getting("/5") + getting("/6")).down(okay(205, "")).down(okay(206, "")).close(stream.ByFIN)
		}, "GET /1 = - lost\nGET /2 = 204 complete\nGET /3 = - lost\nGET /4 = - lost\nGET /5 = 205 complete\nGET /6 = 206 complete", nil},
		{"all pipelined responses lost", func(r *rig) {
			r.up(getting("/1") + getting("/2") + getting("/3")).gapDown(120).
				up(getting("/4") + getting("/5")).down(okay(204, "")).down(okay(205, "")).close(stream.ByFIN)
		}, "GET /1 = - lost\nGET /2 = - lost\nGET /3 = - lost\nGET /4 = 204 complete\nGET /5 = 205 complete", nil},
		{"a client that keeps two ahead, responses lost in one gap", func(r *rig) {
			r.up(getting("/1") + getting("/2")).down(okay(201, "")).get("/3").down(okay(202, "")).get("/4").gapDown(80).
				up(getting("/5") + getting("/6")).down(okay(205, "")).get("/7").down(okay(206, "")).get("/8").down(okay(207, "")).down(okay(208, "")).close(stream.ByFIN)
		}, "GET /1 = 201 complete\nGET /2 = 202 complete\nGET /3 = - lost\nGET /4 = 205 complete\nGET /5 = - lost\n" +
			"GET /6 = 206 complete\nGET /7 = 207 complete\nGET /8 = 208 complete", map[exchange.Counter]uint64{exchange.Resyncs: 1}},
		{"a client that sends now more and now fewer ahead, responses lost in one gap", func(r *rig) {
			r.get("/1").get("/2").ok("").ok("").get("/3").get("/4").get("/5").ok("").ok("").ok("").get("/6").get("/7").get("/8").get("/9").
				down(okay(206, "")).gapDown(74).down(okay(209, "")).get("/10").down(okay(210, "")).close(stream.ByFIN)
		}, "GET /1 = 200 complete\nGET /2 = 200 complete\nGET /3 = 200 complete\nGET /4 = 200 complete\nGET /5 = 200 complete\nGET /6 = 206 complete\n" +
			"GET /7 = - lost\nGET /8 = - lost\nGET /9 = - lost\n- = 209 complete\nGET /10 = - lost\n- = 210 complete", map[exchange.Counter]uint64{exchange.Resyncs: 1}},
		{"the same, requests lost: those before them have their responses", func(r *rig) {
			r.get("/1").get("/2").ok("").ok("").get("/3").get("/4").get("/5").ok("").ok("").ok("").get("/6").gapUp(86).up("POST /9 HTTP/1.1\r\nContent-Length: 4\r\n\r\nbo").up("dy").
				down(okay(206, "")).down(okay(207, "")).down(okay(208, "")).down(okay(209, "")).close(stream.ByFIN)
		}, "GET /1 = 200 complete\nGET /2 = 200 complete\nGET /3 = 200 complete\nGET /4 = 200 complete\nGET /5 = 200 complete\n" +
			"POST /9 = - lost\nGET /6 = 206 complete\n- = 207 complete\n- = 208 complete\n- = 209 complete", map[exchange.Counter]uint64{exchange.Resyncs: 1}},
		{"pipelined responses lost behind the chunks of the first", func(r *rig) {
			r.up(getting("/1") + getting("/2") + getting("/3")).down(chunked + "5\r\nhe").gapDown(9 + len(okay(202, ""))).down(okay(203, "")).
				up(getting("/4") + getting("/5")).down(okay(204, "")).down(okay(205, "")).close(stream.ByFIN)
		}, "GET /1 = 200 lost\nGET /2 = 203 complete\nGET /3 = - lost\nGET /4 = 204 complete\nGET /5 = 205 complete", map[exchange.Counter]uint64{exchange.Resyncs: 1}},
		{"the answer to HEAD after lost ones, whose request is in doubt", func(r *rig) {
			r.up(getting("/1") + getting("/2") + "HEAD /3 HTTP/1.1\r\n\r\n").gapDown(len(okay(201, "") + okay(202, ""))).down("HTTP/1.1 200 X\r\nContent-Length: 1000000\r\n\r\n")
			for i := 4; i < 8; i++ {
				r.get(fmt.Sprint("/", i)).down(okay(200+i, ""))
			}
			r.close(stream.ByFIN)
		}, "GET /1 = - lost\nGET /2 = 200 lost\nHEAD /3 = 204 complete\nGET /4 = - lost\nGET /5 = 205 complete\nGET /6 = 206 complete\nGET /7 = 207 complete",
			map[exchange.Counter]uint64{exchange.Malformed: 1}},
		{"chunked response cut", func(r *rig) {
			r.get("/1").down(chunked + "5\r\nhe").gapDown(9).down("HTTP/1.1 200 not a head\r\nX: y\r\n\r\n").get("/2").ok("").close(stream.ByFIN)
		}, "GET /1 = 200 lost\nGET /2 = 200 complete", map[exchange.Counter]uint64{exchange.Resyncs: 1, exchange.SkippedBytes: 33}},
		{"response head lost, its body looks like a head", func(r *rig) {
			r.get("/1").gapDown(90).down(okay(200, "inner")).get("/2").ok("").close(stream.ByFIN)
		}, "GET /1 = - lost\nGET /2 = 200 complete", map[exchange.Counter]uint64{exchange.SkippedBytes: 42}},
		{"request head lost, its body looks like a head", func(r *rig) {
			r.get("/1").ok("").gapUp(90).get("/inner").ok("two").get("/3").ok("").close(stream.ByFIN)
		}, "GET /1 = 200 complete\n- = 200 complete\nGET /3 = 200 complete", map[exchange.Counter]uint64{exchange.Resyncs: 1, exchange.SkippedBytes: 42}},
		{"beginning of the first response lost, with the server's numbers", func(r *rig) {
			r.get("/1").down("rest of a page\r\n").get("/2").ok("").close(stream.ByFIN)
		}, "GET /1 = - lost\nGET /2 = 200 complete", map[exchange.Counter]uint64{exchange.SkippedBytes: 16}},
		{"reset within a head", func(r *rig) {
			r.get("/1").down("HTTP/1.1 200 OK\r\nContent-").close(stream.ByRST)
		}, "GET /1 = - closed", map[exchange.Counter]uint64{exchange.SkippedBytes: 25}},
		{"interim lost", func(r *rig) {
			r.up("POST /p HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n").gapDown(25).up("ab").ok("").close(stream.ByFIN)
		}, "POST /p = 200 complete", nil},
		{"joined in a body", func(r *rig) {
			r.close(stream.ByFIN).open(false).down("rest of a page\r\n").down(okay(200, "inner")).get("/1").ok("").close(stream.ByFIN)
		}, "- = 200 complete\nGET /1 = 200 complete", map[exchange.Counter]uint64{exchange.SkippedBytes: 16}},
		{"short snaplen", func(r *rig) {
			for i := range 3 {
				r.up(fmt.Sprintf("GET /%d HTTP/1.1\r\nHost: example.org\r\nUser-Ag", i)).gapUp(300).down("HTTP/1.1 200 OK\r\nServer").gapDown(2000).gapDown(3000)
			}
			r.close(stream.ByFIN)
		}, "GET /0 = 200 lost\nGET /1 = 200 lost\nGET /2 = 200 lost", map[exchange.Counter]uint64{exchange.Resyncs: 4}},
		{"garbage between requests", func(r *rig) {
			r.get("/1").ok("").up("garbage\r\n").down(okay(400, "")).get("/2").ok("").close(stream.ByFIN)
		},
			"GET /1 = 200 complete\n- = 400 complete\nGET /2 = 200 complete", map[exchange.Counter]uint64{exchange.Resyncs: 1, exchange.SkippedBytes: 9}},
		{"body longer than its length", func(r *rig) {
			r.get("/1").down(okay(200, "") + "surplus").down("more").get("/2").ok("").close(stream.ByFIN)
		}, "GET /1 = 200 complete\nGET /2 = 200 complete", map[exchange.Counter]uint64{exchange.Resyncs: 1, exchange.SkippedBytes: 11}},

		{"the rest of a refused body and the next request at once", func(r *rig) {
			r.up("POST /p HTTP/1.1\r\nContent-Length: 20\r\n\r\n0123456789").down(okay(413, "")).up("0123456789" + getting("/2")).ok("").close(stream.ByFIN)
		}, "POST /p = 413 complete\nGET /2 = 200 complete", map[exchange.Counter]uint64{exchange.EarlyResponses: 1}},
		{"request lost, the body of its response looks like a response", func(r *rig) {
			r.gapUp(50).down(okay(200, okay(299, ""))).get("/2").ok("").close(stream.ByFIN)
		}, "- = 200 complete\nGET /2 = 200 complete", nil},
		{"joined at a response whose body looks like one", func(r *rig) {
			r.close(stream.ByFIN).open(false).down(okay(200, okay(299, ""))).get("/2").ok("").close(stream.ByFIN)
		}, "- = 200 complete\nGET /2 = 200 complete", nil},
		{"a pipelined request lost, and with it that they are pipelined", func(r *rig) {
			r.get("/0").ok("").gapUp(38).up("HEAD /2 HTTP/1.1\r\nHost: a\r\n\r\n").down(okay(201, "one")).down("HTTP/1.1 202 X\r\nContent-Length: 9\r\n\r\n").down(okay(203, "")).close(stream.ByFIN)
		}, "GET /0 = 200 complete\n- = 201 complete\n- = 202 complete\n- = 203 complete", map[exchange.Counter]uint64{exchange.SkippedBytes: 29}},
		{"HEAD lost, and the next response is as long as the body that it announces", func(r *rig) {
			next := okay(202, "body")
			r.gapUp(50).down(fmt.Sprintf("HTTP/1.1 200 X\r\nContent-Length: %d\r\n\r\n", len(next))).get("/2").down(next).get("/3").down(okay(203, "")).close(stream.ByFIN)
		}, "- = 200 complete\nGET /2 = 202 complete\nGET /3 = 203 complete", nil},
		{"HEAD lost, and the next response comes in pieces", func(r *rig) {
			r.gapUp(50).down("HTTP/1.1 200 X\r\nContent-Length: 1000\r\n\r\n").get("/2").down("HTT").down("P/1.1 2").down("02 X\r\nContent-Length: 0\r\n\r\n").
				get("/3").down(okay(203, "")).close(stream.ByFIN)
		}, "- = 200 complete\nGET /2 = 202 complete\nGET /3 = 203 complete", nil},
		{"HEAD lost, and the beginning of the next response", func(r *rig) {
			r.gapUp(50).down("HTTP/1.1 200 X\r\nContent-Length: 1000\r\n\r\n").get("/2").gapDown(50).down("rest").get("/3").down(okay(203, "")).
				get("/4").down(okay(204, "")).close(stream.ByFIN)
		}, "- = 200 complete\nGET /2 = - lost\nGET /3 = 203 complete\nGET /4 = 204 complete", map[exchange.Counter]uint64{exchange.Resyncs: 1, exchange.SkippedBytes: 4}},
		{"HEAD lost, and a response later", func(r *rig) {
			r.gapUp(50).down("HTTP/1.1 200 X\r\nContent-Length: 1000\r\n\r\n").get("/2").ok("").get("/3").gapDown(90).get("/4").gapDown(80).get("/5").down(okay(205, "")).close(stream.ByFIN)
		}, "- = 200 complete\nGET /2 = 200 complete\nGET /3 = - lost\nGET /4 = - lost\nGET /5 = 205 complete", map[exchange.Counter]uint64{exchange.Resyncs: 1}},
		{"HEAD lost, and the server closes at the next request", func(r *rig) {
			r.gapUp(50).down("HTTP/1.1 200 X\r\nContent-Length: 1000\r\n\r\n").get("/2").fin(down).fin(up).close(stream.ByFIN)
		}, "- = 200 complete\nGET /2 = - closed", nil},
		{"GET lost, and the next request is sent before the body of its response comes", func(r *rig) {
			r.gapUp(50).down("HTTP/1.1 200 X\r\nContent-Length: 4\r\n\r\n").get("/2").down("body").down(okay(202, "")).get("/3").down(okay(203, "")).close(stream.ByFIN)
		}, "- = 200 complete\nGET /2 = 202 complete\nGET /3 = 203 complete", nil},
		{"beginning of a request lost, its body after an interim response looks like one", func(r *rig) {
			r.gapUp(80).down("HTTP/1.1 100 Con").down("tinue\r\n\r\n").get("/inside").ok("").get("/2").ok("").close(stream.ByFIN)
		}, "- = 200 complete\nGET /2 = 200 complete", map[exchange.Counter]uint64{exchange.InterimResponses: 1, exchange.SkippedBytes: 43}},
		{"beginning of a refused request lost, its end before the next", func(r *rig) {
			r.gapUp(80).down(okay(413, "")).up("0123456789").get("/2").ok("").close(stream.ByFIN)
		}, "- = 413 complete\nGET /2 = 200 complete", map[exchange.Counter]uint64{exchange.SkippedBytes: 10}},
		{"end of a request and beginning of its response lost", func(r *rig) {
			r.up("GET /1 HTTP/1.1\r\nHost: ").gapUp(15).gapDown(23).down("h: 0\r\n\r\n").get("/2").ok("").close(stream.ByFIN)
		}, "GET /1 = - lost\nGET /2 = 200 complete", map[exchange.Counter]uint64{exchange.Resyncs: 1, exchange.SkippedBytes: 8}},
		{"end of a request and beginning of its response lost, the other order", func(r *rig) {
			r.up("GET /1 HTTP/1.1\r\nHost: ").gapDown(23).gapUp(15).down("h: 0\r\n\r\n").get("/2").ok("").close(stream.ByFIN)
		}, "GET /1 = - lost\nGET /2 = 200 complete", map[exchange.Counter]uint64{exchange.Resyncs: 1, exchange.SkippedBytes: 8}},
		{"in a tunnel, end of a request and beginning of its response lost", func(r *rig) {
			r.up("CONNECT a:80 HTTP/1.1\r\n\r\n").down(connected).up("GET /1 HTTP/1.1\r\nHost: ").gapDown(23).gapUp(15).down("h: 0\r\n\r\n").get("/2").ok("").close(stream.ByFIN)
		}, "CONNECT a:80 = 200 upgraded\nGET /1 = - lost\nGET /2 = 200 complete", map[exchange.Counter]uint64{exchange.Upgrades: 1, exchange.Resyncs: 1, exchange.SkippedBytes: 8}},
		{"response and next request lost", func(r *rig) {
			r.get("/1").gapDown(40).gapUp(40).down(okay(202, "")).get("/3").ok("").close(stream.ByFIN)
		}, "GET /1 = - lost\n- = 202 complete\nGET /3 = 200 complete", map[exchange.Counter]uint64{exchange.Resyncs: 1}},
		{"response and next request lost, the other order", func(r *rig) {
			r.get("/1").gapUp(40).gapDown(40).down(okay(202, "")).get("/3").ok("").close(stream.ByFIN)
		}, "GET /1 = - lost\n- = 202 complete\nGET /3 = 200 complete", map[exchange.Counter]uint64{exchange.Resyncs: 1}},

		// Other protocols.
		{"tls", func(r *rig) { r.up("\x16\x03\x01\x00\x05hello").get("/1").close(stream.ByFIN) }, "", map[exchange.Counter]uint64{exchange.OtherTLS: 1}},
		{"ssh on port 80", func(r *rig) { r.down("SSH-2.0-x\r\n").up("SSH-2.0-y\r\n").close(stream.ByFIN) }, "", map[exchange.Counter]uint64{exchange.OtherSSH: 1}},
		{"http/2", func(r *rig) { r.up("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").close(stream.ByFIN) }, "", map[exchange.Counter]uint64{exchange.OtherHTTP2: 1}},
		{"rtsp", func(r *rig) { r.up("DESCRIBE rtsp://a/ RTSP/1.0\r\n\r\n").close(stream.ByFIN) }, "", map[exchange.Counter]uint64{exchange.OtherRTSP: 1}},
		{"icap", func(r *rig) { r.up("OPTIONS icap://a/ ICAP/1.0\r\n\r\n").close(stream.ByFIN) }, "", map[exchange.Counter]uint64{exchange.OtherICAP: 1}},
		{"sip", func(r *rig) { r.up("INVITE sip:a SIP/2.0\r\n\r\n").close(stream.ByFIN) }, "", map[exchange.Counter]uint64{exchange.OtherSIP: 1}},
		{"smtp", func(r *rig) {
			r.down("220 a ESMTP\r\n")
			for range 30 {
				r.up("NOOP\r\n").down("250 ok\r\n")
			}
			r.get("/late").close(stream.ByFIN)
		}, "", map[exchange.Counter]uint64{exchange.OtherUnknown: 1}},
		{"short and unknown", func(r *rig) { r.up("hello\r\n").close(stream.ByFIN) }, "", map[exchange.Counter]uint64{exchange.OtherUnknown: 1}},
		{"long and unknown", func(r *rig) {
			for range 80 {
				r.up(strings.Repeat("\x01", 1000))
			}
			if r.more {
				r.t.Error("an unknown protocol is still read after 80,000 bytes")
			}
			r.close(stream.ByFIN)
		}, "", map[exchange.Counter]uint64{exchange.OtherUnknown: 1}},
		{"a response without length, and the connection goes on", func(r *rig) {
			r.get("/1").down("HTTP/1.1 200 OK\r\n\r\nbody").down("more").get("/2").ok("").get("/3").ok("").close(stream.ByFIN)
		}, "GET /1 = 200 complete\nGET /2 = 200 complete\nGET /3 = 200 complete", nil},
		{"a body that is shorter than announced", func(r *rig) {
			r.get("/1").down("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbody").get("/2").ok("").close(stream.ByFIN)
		}, "GET /1 = 200 lost\nGET /2 = 200 complete", map[exchange.Counter]uint64{exchange.Malformed: 1}},
		{"a body without its last chunk", func(r *rig) {
			r.get("/1").down(chunked + "1\r\na\r\n0\r\n").get("/2").ok("").close(stream.ByFIN)
		}, "GET /1 = 200 lost\nGET /2 = 200 complete", map[exchange.Counter]uint64{exchange.Malformed: 1}},
		{"a body that begins like a response, while nothing else is due", func(r *rig) {
			r.get("/1").down("HTTP/1.1 200 OK\r\n\r\n").down(okay(404, "")).get("/2").down("tail").ok("").close(stream.ByFIN)
		}, "GET /1 = 200 closed\nGET /2 = - closed", nil},
		{"a body that was refused before it was sent", func(r *rig) {
			r.up("POST /p HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 99\r\n\r\n").down(okay(417, "")).
				get("/2").ok("").close(stream.ByFIN)
		}, "POST /p = 417 complete\nGET /2 = 200 complete", map[exchange.Counter]uint64{exchange.Malformed: 1, exchange.EarlyResponses: 1}},
		{"a head that the server has waited for long enough", func(r *rig) {
			r.up("GET /1 HTTP/1.1\r\nHost: exam").down(okay(408, "")).fin(down).fin(up).close(stream.ByFIN)
		}, "GET /1 = 408 complete", map[exchange.Counter]uint64{exchange.EarlyResponses: 1, exchange.SkippedBytes: 27}},
		{"the same on a connection that was used", func(r *rig) {
			r.get("/0").ok("").up("GET /1 HTTP/1.1\r\nHost: exam").down(okay(408, "")).fin(down).fin(up).close(stream.ByFIN)
		}, "GET /0 = 200 complete\nGET /1 = 408 complete", map[exchange.Counter]uint64{exchange.EarlyResponses: 1, exchange.SkippedBytes: 27}},
		{"a body that the server has waited for long enough", func(r *rig) {
			r.up("POST /1 HTTP/1.1\r\nContent-Length: 4\r\n\r\nab").down(okay(408, "")).fin(down).fin(up).close(stream.ByFIN)
		}, "POST /1 = 408 complete", map[exchange.Counter]uint64{exchange.EarlyResponses: 1}},
		{"the same, and it comes after all", func(r *rig) {
			r.up("POST /1 HTTP/1.1\r\nContent-Length: 4\r\n\r\nab").down(okay(408, "")).up("cd").fin(down).fin(up).close(stream.ByFIN)
		}, "POST /1 = 408 complete", map[exchange.Counter]uint64{exchange.EarlyResponses: 1}},
		{"the same, and its answer is cut by a reset", func(r *rig) {
			r.up("POST /1 HTTP/1.1\r\nContent-Length: 4\r\n\r\nab").down("HTTP/1.1 408 X\r\nContent-Length: 4\r\n\r\nab").close(stream.ByRST)
		}, "POST /1 = 408 closed", map[exchange.Counter]uint64{exchange.EarlyResponses: 1}},
		{"the same, and a gap has taken some of it", func(r *rig) {
			r.up("POST /1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n4").gapUp(9).down(okay(408, "")).fin(down).close(stream.ByFIN)
		}, "POST /1 = 408 lost", nil},
		{"a body that the server wants no more of, and the client goes on with it", func(r *rig) {
			r.up("POST /1 HTTP/1.1\r\nContent-Length: 9\r\n\r\nab").down(okay(413, "no")).fin(down).up("cd").close(stream.ByTimeout)
		}, "POST /1 = 413 complete", map[exchange.Counter]uint64{exchange.EarlyResponses: 1}},
		{"chunks that the server wants no more of, and resets", func(r *rig) {
			r.up("POST /1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nab").down(okay(400, "no")).up("cd\r\n").close(stream.ByRST)
		}, "POST /1 = 400 complete", map[exchange.Counter]uint64{exchange.EarlyResponses: 1}},
		{"a body that was answered and goes on when nothing more is heard", func(r *rig) {
			r.up("POST /1 HTTP/1.1\r\nContent-Length: 9\r\n\r\nab").down(okay(200, "")).up("cd").close(stream.ByDrain)
		}, "POST /1 = 200 drained", map[exchange.Counter]uint64{exchange.EarlyResponses: 1}},
		{"a body that its client has given up, and the answer", func(r *rig) {
			r.up("POST /1 HTTP/1.1\r\nContent-Length: 9\r\n\r\nab").fin(up).down(okay(400, "")).fin(down).close(stream.ByFIN)
		}, "POST /1 = 400 closed", map[exchange.Counter]uint64{exchange.EarlyResponses: 1}},
		{"a refused body, and a gap has taken some of it", func(r *rig) {
			r.up("POST /1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n4").gapUp(9).down(okay(413, "")).fin(down).close(stream.ByFIN)
		}, "POST /1 = 413 lost", nil},
		{"a refused body, and its answer is cut by a reset", func(r *rig) {
			r.up("POST /1 HTTP/1.1\r\nContent-Length: 4\r\n\r\nab").down("HTTP/1.1 413 X\r\nContent-Length: 4\r\n\r\nab").close(stream.ByRST)
		}, "POST /1 = 413 closed", map[exchange.Counter]uint64{exchange.EarlyResponses: 1}},
		{"a connection without a request that the server has waited for long enough", func(r *rig) {
			r.get("/0").ok("").down(okay(408, "")).fin(down).fin(up).close(stream.ByFIN)
		}, "GET /0 = 200 complete\n- = 408 complete", nil},
		{"a refused head on a connection that was used", func(r *rig) {
			r.get("/0").ok("").up("GET /1 HTTP/1.1\r\nHost: exam").down(okay(431, "")).fin(down).fin(up).close(stream.ByFIN)
		}, "GET /0 = 200 complete\nGET /1 = 431 complete", map[exchange.Counter]uint64{exchange.EarlyResponses: 1, exchange.SkippedBytes: 27}},
		{"a head that its client has ended with its direction, and the answer", func(r *rig) {
			r.up("GET /1 HTTP/1.1\r\nHost: exam").fin(up).down(okay(400, "")).fin(down).close(stream.ByFIN)
		}, "GET /1 = 400 closed", map[exchange.Counter]uint64{exchange.EarlyResponses: 1, exchange.SkippedBytes: 27}},
		{"the same behind other requests", func(r *rig) {
			r.get("/0").get("/1").up("GET /2 HTTP/1.1\r\nHost: exam").fin(up).ok("").ok("").down(okay(400, "")).fin(down).close(stream.ByFIN)
		}, "GET /0 = 200 complete\nGET /1 = 200 complete\nGET /2 = 400 closed", map[exchange.Counter]uint64{exchange.EarlyResponses: 1, exchange.SkippedBytes: 27}},
		{"the same behind a response that was lost", func(r *rig) {
			r.get("/0").gapDown(90).up("GET /1 HTTP/1.1\r\nHost: exam").fin(up).down(okay(400, "")).fin(down).close(stream.ByFIN)
		}, "GET /0 = - lost\nGET /1 = 400 closed", map[exchange.Counter]uint64{exchange.EarlyResponses: 1, exchange.SkippedBytes: 27}},
		{"the same behind it, and its client has not ended", func(r *rig) {
			r.get("/0").gapDown(90).up("GET /1 HTTP/1.1\r\nHost: exam").down(okay(408, "")).fin(down).close(stream.ByFIN)
		}, "GET /0 = - lost\nGET /1 = 408 complete", map[exchange.Counter]uint64{exchange.EarlyResponses: 1, exchange.SkippedBytes: 27}},
		{"the same without an answer", func(r *rig) {
			r.get("/0").ok("").up("GET /1 HTTP/1.1\r\nHost: exam").fin(up).fin(down).close(stream.ByFIN)
		}, "GET /0 = 200 complete", map[exchange.Counter]uint64{exchange.SkippedBytes: 27}},
		{"a head that is too long for the server, of which more comes, and the next request", func(r *rig) {
			r.get("/0").ok("").up("GET /1 HTTP/1.1\r\nHost: a\r\nCookie: aaaa").down(okay(431, "big")).up("aaaaaa\r\n\r\n").get("/2").ok("").close(stream.ByFIN)
		}, "GET /0 = 200 complete\nGET /1 = 431 complete\nGET /2 = 200 complete", map[exchange.Counter]uint64{exchange.EarlyResponses: 1}},
		{"a head that was answered and is lost, and the next request", func(r *rig) {
			r.get("/0").ok("").up("GET /1 HTTP/1.1\r\nHost: a\r\nCookie: aaaa").down(okay(431, "big")).gapUp(10).down(okay(431, "")).get("/2").ok("").close(stream.ByFIN)
		}, "GET /0 = 200 complete\nGET /1 = 431 lost\n- = 431 complete\nGET /2 = 200 complete", map[exchange.Counter]uint64{exchange.EarlyResponses: 1, exchange.Resyncs: 1}},
		{"a head that is sent on after an interim response", func(r *rig) {
			r.up("GET /1 HTTP/1.1\r\nHost: a\r\n").down("HTTP/1.1 103 Early Hints\r\n\r\n").up("\r\n").ok("").close(stream.ByFIN)
		}, "GET /1 = 200 complete", map[exchange.Counter]uint64{exchange.InterimResponses: 1}},
		{"a response while the head of the next request is not complete", func(r *rig) {
			r.get("/1").up("GET /2 HTTP/1.1\r\n").ok("").up("Host: a\r\n\r\n").ok("").close(stream.ByFIN)
		}, "GET /1 = 200 complete\nGET /2 = 200 complete", nil},
		{"a start line that the server finds too long", func(r *rig) {
			r.up("GET /aaaaaaaaaa").down(okay(414, "")).fin(down).fin(up).close(stream.ByFIN)
		}, "- = 414 complete", map[exchange.Counter]uint64{exchange.SkippedBytes: 15}},
		{"a refused body that begins like a request", func(r *rig) {
			r.up("POST /p HTTP/1.1\r\nContent-Length: 198\r\n\r\n").down(okay(401, "")).get("/inside").up(strings.Repeat("x", 198-len(getting("/inside")))).
				get("/2").ok("").close(stream.ByFIN)
		}, "POST /p = 401 complete\nGET /2 = 200 complete", map[exchange.Counter]uint64{exchange.EarlyResponses: 1}},
		{"refused chunks that look like requests", func(r *rig) {
			r.up("POST /p HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n").down(okay(401, "")).up(fmt.Sprintf("%x\r\n", len(getting("/inside")))).
				get("/inside").up("\r\n0\r\n\r\n").get("/2").ok("").close(stream.ByFIN)
		}, "POST /p = 401 complete\nGET /2 = 200 complete", map[exchange.Counter]uint64{exchange.EarlyResponses: 1}},
		{"a refused body that is a request, of which the client was to wait for 100 Continue", func(r *rig) {
			r.up(fmt.Sprintf("POST /p HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n", len(getting("/inside")))).down(okay(401, "")).get("/inside").
				get("/2").ok("").close(stream.ByFIN)
		}, "POST /p = 401 complete\nGET /2 = 200 complete", map[exchange.Counter]uint64{exchange.EarlyResponses: 1}},
		{"a body that was asked for with 100 Continue and refused later, and looks like requests", func(r *rig) {
			r.up("POST /p HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 400\r\n\r\n").down("HTTP/1.1 100 Continue\r\n\r\n").down(okay(413, ""))
			for range 4 {
				r.get("/inside")
			}
			r.up(strings.Repeat("x", 400-4*len(getting("/inside")))).get("/2").ok("").close(stream.ByFIN)
		}, "POST /p = 413 complete\nGET /2 = 200 complete", map[exchange.Counter]uint64{exchange.EarlyResponses: 1, exchange.InterimResponses: 1}},
		{"a body that began without 100 Continue, was refused, and looks like requests", func(r *rig) {
			r.up("POST /p HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 400\r\n\r\n").up("x").down(okay(413, ""))
			for range 4 {
				r.get("/inside")
			}
			r.up(strings.Repeat("x", 399-4*len(getting("/inside")))).get("/2").ok("").close(stream.ByFIN)
		}, "POST /p = 413 complete\nGET /2 = 200 complete", map[exchange.Counter]uint64{exchange.EarlyResponses: 1}},
		{"refused chunks that began without 100 Continue and look like requests", func(r *rig) {
			r.up("POST /p HTTP/1.1\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n").up(fmt.Sprintf("%x\r\n", len(getting("/inside")))).down(okay(413, "")).
				get("/inside").up("\r\n0\r\n\r\n").get("/2").ok("").close(stream.ByFIN)
		}, "POST /p = 413 complete\nGET /2 = 200 complete", map[exchange.Counter]uint64{exchange.EarlyResponses: 1}},
		{"a body that goes on like a response, as the client pipelines", func(r *rig) {
			r.get("/1").get("/2").down("HTTP/1.1 200 OK\r\nContent-Length: 199\r\n\r\nbody").get("/3").down(okay(299, "")).down(strings.Repeat("x", 195-len(okay(299, "")))).
				down(okay(202, "")).down(okay(203, "")).close(stream.ByFIN)
		}, "GET /1 = 200 complete\nGET /2 = 202 complete\nGET /3 = 203 complete", nil},
		{"a body whose end is a response, and the next request before it", func(r *rig) {
			r.get("/1").down(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\nbody", 4+len(okay(299, "")))).get("/2").down(okay(299, "")).
				down(okay(202, "")).close(stream.ByFIN)
		}, "GET /1 = 200 complete\nGET /2 = 202 complete", nil},
		{"two bodies that are shorter than announced", func(r *rig) {
			r.get("/1").down("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbody").get("/2").down("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbody").
				get("/3").ok("").close(stream.ByFIN)
		}, "GET /1 = 200 lost\nGET /2 = 200 lost\nGET /3 = 200 complete", map[exchange.Counter]uint64{exchange.Malformed: 2}},
		{"joined in the text of a capture, at what looks like a request", func(r *rig) {
			r.close(stream.ByFIN).open(false).down(getting("/inside") + okay(299, "") + getting("/inside")).down("\r\n\r\n" + getting("/inside") + okay(299, "")).
				get("/1").ok("").close(stream.ByFIN)
		}, "GET /1 = 200 complete", map[exchange.Counter]uint64{exchange.SkippedBytes: 203}},
		{"joined in the text of a capture, at what looks like a response", func(r *rig) {
			r.close(stream.ByFIN).open(false).down(okay(299, "body") + "\n" + getting("/inside")).get("/1").ok("").close(stream.ByFIN)
		}, "GET /1 = 200 complete", map[exchange.Counter]uint64{exchange.SkippedBytes: 85}},
		{"joined where messages follow each other", func(r *rig) {
			r.close(stream.ByFIN).open(false).up("POST /1 HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody" + "POST /2 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + getting("/3")[:7]).
				up(getting("/3")[7:]).down(okay(201, "one") + chunked + "0\r\n\r\n" + okay(203, "")).close(stream.ByFIN)
		}, "POST /1 = 201 complete\nPOST /2 = 200 complete\nGET /3 = 203 complete", nil},
		{"joined at the answers to HEAD", func(r *rig) {
			r.close(stream.ByFIN).open(false).down("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + okay(203, "")).close(stream.ByFIN)
		}, "- = 200 complete\n- = 200 complete\n- = 203 complete", nil},
		{"joined in a long body", func(r *rig) {
			r.close(stream.ByFIN).open(false)
			for range 100 {
				r.down("a line of the body of a response\n")
			}
			r.get("/1").ok("").close(stream.ByFIN)
		}, "GET /1 = 200 complete", map[exchange.Counter]uint64{exchange.SkippedBytes: 3300}},
		{"joined in a download that holds a request", func(r *rig) {
			r.close(stream.ByFIN).open(false).down("GET /inside HTTP/1.1\r\nHost: a\r\n\r\n").get("/1").ok("").get("/2").ok("").close(stream.ByFIN)
		}, "GET /inside = - lost\nGET /1 = 200 complete\nGET /2 = 200 complete", nil},
		{"joined in an upload that holds responses", func(r *rig) {
			r.close(stream.ByFIN).open(false)
			for range 3 {
				r.up("HTTP/1.1 299 OK\r\nContent-Length: 0\r\n\r\n")
			}
			r.ok("").get("/1").down(okay(201, "")).get("/2").down(okay(202, "")).close(stream.ByFIN)
		}, "- = 299 complete\n- = 299 complete\n- = 299 complete\n- = 200 complete\nGET /1 = 201 complete\nGET /2 = 202 complete", nil},
		{"joined before messages without fields", func(r *rig) {
			r.close(stream.ByFIN).open(false).up("PUT / HTTP/1.1\r\n\r\n").down("HTTP/1.1 100 Continue\r\n\r\n").down("HTTP/1.1 204 No\r\n\r\n").close(stream.ByFIN)
		}, "PUT / = 204 complete", map[exchange.Counter]uint64{exchange.InterimResponses: 1}},
		{"first letters of a method lost", func(r *rig) {
			r.get("/0").gapDown(50).gapUp(3).up("D /1 HTTP/1.1\r\nHost: a\r\n\r\n").ok("").get("/2").ok("").close(stream.ByFIN)
		}, "GET /0 = - lost\n- = 200 complete\nGET /2 = 200 complete", map[exchange.Counter]uint64{exchange.SkippedBytes: 26, exchange.Resyncs: 1}},
		{"the same, and the head is in two segments", func(r *rig) {
			r.get("/0").gapDown(50).gapUp(3).up("D /1 HTTP/1.1\r\nHo").up("st: a\r\n\r\n").ok("").get("/2").ok("").close(stream.ByFIN)
		}, "GET /0 = - lost\n- = 200 complete\nGET /2 = 200 complete", map[exchange.Counter]uint64{exchange.SkippedBytes: 26, exchange.Resyncs: 1}},
		{"the same on a connection that pipelines", func(r *rig) {
			r.get("/0").get("/1").gapUp(3).up("D /2 HTTP/1.1\r\nHost: a\r\n\r\n").get("/3").down(okay(200, "")).down(okay(201, "")).down(okay(202, "")).down(okay(203, "")).close(stream.ByFIN)
		}, "GET /0 = 200 complete\nGET /1 = 201 complete\n- = 202 complete\nGET /3 = 203 complete", map[exchange.Counter]uint64{exchange.SkippedBytes: 26, exchange.Resyncs: 1}},
		{"joined in a method", func(r *rig) {
			r.close(stream.ByFIN).open(false).up("ET /1 HTTP/1.1\r\nHost: a\r\n\r\n").ok("").get("/2").ok("").close(stream.ByFIN)
		}, "- = 200 complete\nGET /2 = 200 complete", map[exchange.Counter]uint64{exchange.SkippedBytes: 27}},
		{"methods that are the end of others, in their place", func(r *rig) {
			r.up("D /1 HTTP/1.1\r\n\r\n").ok("").up("ET /2 HTTP/1.1\r\n\r\n").ok("").close(stream.ByFIN)
		}, "D /1 = 200 complete\nET /2 = 200 complete", nil},
		{"a method that nobody knows, after a gap", func(r *rig) {
			r.get("/0").gapDown(50).gapUp(9).up("BREW /1 HTTP/1.1\r\nHost: a\r\n\r\n").ok("").close(stream.ByFIN)
		}, "GET /0 = - lost\nBREW /1 = 200 complete", map[exchange.Counter]uint64{exchange.Resyncs: 1}},
		{"a method that is the end of another, after a gap", func(r *rig) {
			r.get("/0").gapDown(50).gapUp(9).up("LOCK /1 HTTP/1.1\r\nHost: a\r\n\r\n").ok("").close(stream.ByFIN)
		}, "GET /0 = - lost\nLOCK /1 = 200 complete", map[exchange.Counter]uint64{exchange.Resyncs: 1}},
		{"a head that is not complete", func(r *rig) {
			r.get("/1").down("HTTP/1.1 502 Bad").fin(down).fin(up).close(stream.ByFIN)
		}, "GET /1 = 502 closed", map[exchange.Counter]uint64{exchange.Malformed: 1}},
		{"nothing", func(r *rig) { r.close(stream.ByFIN) }, "", nil},
	}
	ignore := map[exchange.Counter]bool{exchange.Requests: true, exchange.Responses: true, exchange.Outcomes: true,
		exchange.UnmatchedRequests: true, exchange.UnmatchedResponses: true}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			tt.run(r)
			if got := r.String(); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
			for c := range exchange.NumCounters {
				if got := r.count[c]; !ignore[c] && got != tt.counts[c] {
					t.Errorf("%s = %d, want %d", c, got, tt.counts[c])
				}
			}
			var req, resp, noReq, noResp uint64
			for _, x := range r.done {
				if x.HasRequest {
					req++
				}
				if x.HasResponse && x.Status != 0 {
					resp++
				}
				switch x.Unmatched() {
				case "request":
					noResp++
				case "response":
					noReq++
				}
			}
			for c, want := range map[exchange.Counter]uint64{exchange.Requests: req, exchange.Responses: resp,
				exchange.UnmatchedRequests: noResp, exchange.UnmatchedResponses: noReq} {
				if got := r.count[c]; got != want {
					t.Errorf("%s = %d, want %d", c, got, want)
				}
			}
		})
	}
}

// TestPipelinedRecovers: whatever part of the responses to a batch is lost, in one gap, those to the
// batches after it find their own requests; both of a client that waits for all before it sends more, and of one that
// keeps some ahead; both where the gap begins with a response and, each second time, where it begins within chunks.
func TestPipelinedRecovers(t *testing.T) {
	for seed := range uint64(1000) {
		inChunks := seed%2 == 1
		random := rand.New(rand.NewPCG(seed, 7))
		r := newRig(t)
		n, waiting := 0, []string(nil)
		ask := func(k int) {
			var b strings.Builder
			for range k {
				n++
				b.WriteString(getting(fmt.Sprint("/", n)))
				body := strings.Repeat("x", n)
				if inChunks {
					waiting = append(waiting, fmt.Sprintf("%s%x\r\n%s\r\n0\r\n\r\n", chunked, n, body))
				} else {
					waiting = append(waiting, okay(200, body))
				}
			}
			r.up(b.String())
		}
		answer := func(k int) {
			for range k {
				r.down(waiting[0])
				waiting = waiting[1:]
			}
		}
		depth, keep := 2+random.IntN(6), 0
		if random.IntN(2) == 0 {
			keep = 1 + random.IntN(depth-1)
		}
		ask(depth)
		for range 1 + random.IntN(3) {
			answer(depth - keep)
			ask(depth - keep)
		}
		// Of what waits, some are answered, some lost, some answered.
		before := random.IntN(len(waiting))
		lost := 1 + random.IntN(len(waiting)-before)
		answer(before)
		gone := strings.Join(waiting[:lost], "")
		if inChunks {
			n := len(chunked) + 3
			r.down(gone[:n])
			gone = gone[n:]
		}
		r.gapDown(len(gone))
		waiting = waiting[lost:]
		answer(len(waiting))
		ask(depth)
		for range 2 {
			answer(depth - keep)
			ask(depth - keep)
		}
		sound := n // from here on all is expected to be right
		for range 4 {
			answer(depth - keep)
			ask(depth - keep)
		}
		answer(len(waiting))
		r.close(stream.ByFIN)
		right := 0
		for _, x := range r.done {
			var i int
			if _, err := fmt.Sscanf(x.Target, "/%d", &i); err != nil || !x.HasResponse {
				continue
			}
			if x.ResponseBytes == uint64(i) {
				right++
			} else if i > sound {
				t.Errorf("seed %d (%d ahead, %d kept, %d lost after %d): request %d has the response of %d", seed, depth, keep, lost, before, i, x.ResponseBytes)
			}
		}
		if right < n-lost-4*depth {
			t.Errorf("seed %d: %d of %d requests have their responses, %d responses were lost", seed, right, n, lost)
		}
	}
}
