package app

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/httpctl/httpctl/agent/capture"
	"github.com/httpctl/httpctl/pkg/exchange"
	"github.com/httpctl/httpctl/pkg/testkit"
)

// A message of a trap's conversation, in the order in which things were said.
type message struct {
	up   bool
	text string
}

func up(text string) message   { return message{true, text} }
func down(text string) message { return message{false, text} }

// A trap is a conversation in which an observer is easily misled.
type trap struct {
	name string
	say  []message
	// want has a line for each exchange, see lines; count what is counted
	// besides what the lines show.
	want  []string
	count map[exchange.Counter]uint64
	// whole: HTTP/0.9 and what looks like it is believed in one piece only, so the
	// bytes are not split.
	whole bool
	// handshake: what this is shows only from a connection's first byte.
	handshake bool
	// pipelined: how many messages a gap held is not known, nor, until the connection is known
	// to pipeline, where the next one begins. What was passed over is counted.
	pipelined bool
	// oneSided: how many responses the server's direction shows by itself, if not all.
	oneSided int
}

// frame is a packet of a conversation that knows what it carries.
type frame struct {
	testkit.Frame
	length int // on the wire, if it is cut
	link   uint16
	up     bool
	from   int // offset in the conversation of its payload
	size   int // length of its payload
	syn    bool
	fin    bool
}

// frames gives the conversation in segments of at most mss bytes. A message
// begins a segment of its own, unless merged.
func (tr *trap) frames(mss int, merged bool) (out []frame) {
	var turns []message
	for _, m := range tr.say {
		if k := len(turns) - 1; merged && k >= 0 && turns[k].up == m.up {
			turns[k].text += m.text
			continue
		}
		turns = append(turns, m)
	}
	var sizes []message // pieces
	for _, m := range turns {
		for b := m.text; len(b) > 0; b = b[min(mss, len(b)):] {
			sizes = append(sizes, message{m.up, b[:min(mss, len(b))]})
		}
	}
	return segments(sizes)
}

// segments makes a connection that carries these pieces, a segment each.
func segments(pieces []message) (out []frame) {
	c := testkit.NewConversation("192.0.2.1:40000", "192.0.2.2:80")
	// Both directions wrap within the conversation.
	c.ClientSeq, c.ServerSeq = 1<<32-60, 1<<32-90
	c.Open()
	for i, f := range c.Frames {
		out = append(out, frame{Frame: f, up: i != 1, syn: i < 2})
	}
	at := 0
	for _, p := range pieces {
		c.Frames = nil
		c.MSS = len(p.text)
		if p.up {
			c.ToServer(p.text)
		} else {
			c.ToClient(p.text)
		}
		out = append(out, frame{Frame: c.Frames[0], up: p.up, from: at, size: len(p.text)})
		at += len(p.text)
	}
	c.Frames = nil
	c.Close()
	for i, f := range c.Frames {
		out = append(out, frame{Frame: f, up: i != 1, fin: i != 2})
	}
	return out
}

// linkNull stands for link type 0, as 0 stands for Ethernet.
const linkNull = 0xffff

// frameSource gives frames at even times in the order they have.
type frameSource struct {
	frames []frame
	number int
}

func (s *frameSource) Next(p *capture.Packet) error {
	if s.number == len(s.frames) {
		return io.EOF
	}
	f := &s.frames[s.number]
	s.number++
	*p = capture.Packet{
		Number: uint64(s.number), Time: testkit.Start.UnixNano() + int64(s.number)*1e6,
		Data: f.Data, Length: max(f.length, len(f.Data)), Link: f.link,
	}
	switch f.link {
	case 0:
		p.Link = 1
	case linkNull:
		p.Link = 0
	}
	return nil
}

func (*frameSource) Stats() capture.Stats { return capture.Stats{} }
func (*frameSource) Close() error         { return nil }

// seen is what a pipeline made of frames.
type seen struct {
	exchanges []exchange.Exchange
	count     exchange.Counters
	ignored   uint64
}

func (s *seen) Observe(o *exchange.Observation) {
	if o.Event == exchange.Outcome {
		s.exchanges = append(s.exchanges, *o.Exchange)
	}
}

var trapLocal = func() *localAddresses {
	l, err := newLocalAddresses(nil)
	if err != nil {
		panic(err)
	}
	return l
}()

func watch(t testing.TB, frames []frame) *seen {
	t.Helper()
	s := &seen{}
	p := newPipeline(&frameSource{frames: frames}, trapConfig, 1024, s, trapLocal)
	if err := p.run(); err != nil {
		t.Fatal(err)
	}
	s.count, s.ignored = *p.counters, p.table.Stats().IgnoredBytes
	n := &s.count
	if n[exchange.Requests]+n[exchange.UnmatchedResponses] != n[exchange.Outcomes] || p.pairer.Open() != 0 {
		t.Errorf("requests %d + responses without request %d, outcomes %d, open %d", n[exchange.Requests], n[exchange.UnmatchedResponses], n[exchange.Outcomes], p.pairer.Open())
	}
	if n[exchange.FlowPanics] > 0 {
		t.Fatalf("panic: %s", p.table.Stats().Fault)
	}
	return s
}

var trapConfig = DefaultConfig()

// lines has an exchange a line, sorted: request, response, content and wire
// bytes, interim responses, end.
func (s *seen) lines() []string {
	var out []string
	for i := range s.exchanges {
		x := &s.exchanges[i]
		req, resp := "-", "-"
		if x.HasRequest {
			req = fmt.Sprintf("%s %s %s %d/%d", x.Method, x.Target, x.Host, x.RequestBytes, x.RequestWireBytes)
		}
		if x.HasResponse {
			resp = fmt.Sprintf("%s %d/%d", exchange.StatusText(x.Status), x.ResponseBytes, x.ResponseWireBytes)
		}
		interim := ""
		if x.Interim > 0 {
			interim = fmt.Sprintf(" after %d", x.Interim)
		}
		out = append(out, fmt.Sprintf("%s = %s%s %s", req, resp, interim, x.End))
	}
	slices.Sort(out)
	return out
}

// counters lists those that differ from zero, without what counts packets.
func (s *seen) counters() string {
	var b strings.Builder
	for c, n := range s.count {
		if c := exchange.Counter(c); n > 0 && c > exchange.Segments {
			fmt.Fprintf(&b, "%s %d, ", c, n)
		}
	}
	return b.String()
}

func (s *seen) String() string { return strings.Join(s.lines(), "\n") + "\n" + s.counters() }

// messages counts what was seen by what names it.
func (s *seen) messages() (requests, responses map[string]int, pairs map[string]bool) {
	requests, responses, pairs = map[string]int{}, map[string]int{}, map[string]bool{}
	for i := range s.exchanges {
		x := &s.exchanges[i]
		if x.HasRequest {
			requests[x.Method+" "+x.Target]++
		}
		if x.HasResponse {
			responses[exchange.StatusText(x.Status)]++
		}
		if x.HasRequest && x.HasResponse {
			pairs[x.Method+" "+x.Target+" "+exchange.StatusText(x.Status)] = true
		}
	}
	return requests, responses, pairs
}

// within reports what s has that whole has not: a message that was invented, a
// pair that was shifted.
func (s *seen) within(whole *seen, joined, pipelined bool) error {

	req, resp, pairs := s.messages()
	allReq, allResp, allPairs := whole.messages()
	// Where a capture begins with body text, or within a method, nothing shows that it does.
	inside := func(m string) bool {
		known := strings.Contains(m, "/inside") || strings.Contains(m, "299")
		for whole := range allReq {
			known = known || strings.HasSuffix(whole, m)
		}
		return joined && known
	}
	for m, n := range req {
		if n > allReq[m] && !inside(m) {
			return fmt.Errorf("request %q %d times, of %d", m, n, allReq[m])
		}
	}
	for m, n := range resp {
		if n > allResp[m] && !inside(m) {
			return fmt.Errorf("response %q %d times, of %d", m, n, allResp[m])
		}
	}
	for p := range pairs {
		if method, _, _ := strings.Cut(p, " "); !allPairs[p] && !(joined && (pipelined || inside(p) || exchange.MethodAttribute(method) == exchange.Other)) {
			return fmt.Errorf("pair %q, which is none", p)
		}
	}
	return nil
}
