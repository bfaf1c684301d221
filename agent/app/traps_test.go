package app

import (
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/httpctl/httpctl/agent/capture"
	"github.com/httpctl/httpctl/agent/decode"
	"github.com/httpctl/httpctl/pkg/exchange"
	"github.com/httpctl/httpctl/pkg/testkit"
)

// A message of a trap's conversation, in the order in which things were said.
type message struct {
	up   bool
	text string
	conn int
	// more goes on with the last one in its direction. wrong is not as RFC 9112 has it, so
	// that it is taken in its place only.
	more, wrong bool
}

func up(text string) message   { return message{up: true, text: text} }
func down(text string) message { return message{text: text} }

func (m message) on() message  { m.more = true; return m }
func (m message) bad() message { m.wrong = true; return m }

// on gives messages to another connection of the trap.
func on(conn int, say ...message) []message {
	for i := range say {
		say[i].conn = conn
	}
	return say
}

// A trap is a capture in which an observer is easily misled.
type trap struct {
	name string
	// of is the part of the README that it belongs to, what it is a trap for.
	of   int
	what string
	// say is what the connections carry. do says it in other segments than one a message,
	// wrap puts something around the packets, raw makes packets of no connection, packets are
	// those of a recording.
	say     []message
	do      func(c *testkit.Conversation)
	wrap    *wrapping
	raw     func() []frame
	packets [][]byte
	// want has a line for each exchange, see lines; count what is counted
	// besides what the lines show.
	want  []string
	count counts
	// but has what is shown in the place of what was said, when another copy comes first.
	but *strings.Replacer
	// not says which mutations have no meaning here, and why.
	not map[mutation]string
}

// frame is a packet of a trap that knows what it carries.
type frame struct {
	testkit.Frame
	length int // on the wire, if it is cut
	link   uint16

	conn  int
	up    bool
	flags uint8
	// The TCP payload: where it begins in its direction, its length, and the length
	// of what is before it in the frame, TCP options apart. acked is how much of the other direction
	// the segment acknowledges.
	from, size, acked   int
	header, options     int
	number, part, parts int // of the packet, and of its fragments
}

// captured is how much of the payload is in the frame; ok says whether the TCP header is.
func (f *frame) captured() (n int, ok bool) {
	n = len(f.Data) - f.header
	return max(0, min(n-f.options, f.size)), n >= 0 && (f.parts == 1 || f.length == 0)
}

// frames gives the trap's packets with segments of at most mss bytes, and as its file has
// them if that is 0.
func (tr *trap) frames(mss int) []frame {
	if tr.raw != nil {
		return tr.raw()
	}
	var ips [][]byte
	for _, ip := range tr.ips() {
		ips = append(ips, cutSegment(ip, mss)...)
	}
	return tr.dress(ips)
}

// ips makes the IP packets.
func (tr *trap) ips() (ips [][]byte) {
	if tr.packets != nil {
		return tr.packets
	}
	for _, f := range testkit.Merge(tr.conversations()...) {
		ips = append(ips, f.Data)
	}
	return ips
}

func (tr *trap) conversations() []*testkit.Conversation {
	c := testkit.NewConversation("192.0.2.1:40000", "192.0.2.2:80")
	c.Wrap = func(ip []byte) []byte { return ip }
	// Both directions wrap within the conversation.
	c.ClientSeq, c.ServerSeq = 1<<32-60, 1<<32-90
	if tr.do != nil {
		tr.do(c)
		return []*testkit.Conversation{c}
	}
	all := []*testkit.Conversation{c}
	if tr.say[len(tr.say)-1].conn > 0 {
		d := testkit.NewConversation("[2001:db8::1]:40000", "[2001:db8::2]:80")
		d.Wrap = c.Wrap
		all = append(all, d)
	}
	for i, c := range all {
		c.Open()
		for _, m := range tr.say {
			switch {
			case m.conn != i:
			case m.up:
				c.ToServer(m.text)
			default:
				c.ToClient(m.text)
			}
		}
		c.Close()
	}
	return all
}

// ipHeader returns the lengths of the IP and of the TCP header, and the ends.
func ipHeader(ip []byte) (network, transport int, src, dst netip.AddrPort) {
	var a, b netip.Addr
	if ip[0]>>4 == 4 {
		network = int(ip[0]&15) * 4
		a, b = netip.AddrFrom4([4]byte(ip[12:])), netip.AddrFrom4([4]byte(ip[16:]))
	} else {
		network = 40
		a, b = netip.AddrFrom16([16]byte(ip[8:])), netip.AddrFrom16([16]byte(ip[24:]))
	}
	tcp := ip[network:]
	return network, int(tcp[12]>>4) * 4, netip.AddrPortFrom(a, binary.BigEndian.Uint16(tcp)), netip.AddrPortFrom(b, binary.BigEndian.Uint16(tcp[2:]))
}

// cutSegment makes several IP packets of one, with at most mss bytes of payload each, or
// with the lengths that are given.
func cutSegment(ip []byte, mss int, first ...int) (out [][]byte) {
	network, transport, src, dst := ipHeader(ip)
	tcp := ip[network:]
	payload := tcp[transport:]
	s := testkit.TCP{
		Src: src, Dst: dst, Seq: binary.BigEndian.Uint32(tcp[4:]), Ack: binary.BigEndian.Uint32(tcp[8:]),
		Flags: tcp[13], Window: binary.BigEndian.Uint16(tcp[14:]), Options: tcp[20:transport],
	}
	if len(first) == 0 && (mss == 0 || len(payload) <= mss) || s.Flags&testkit.SYN != 0 {
		return [][]byte{ip} // nor does a SYN come in two
	}
	for len(payload) > 0 {
		n := len(payload)
		if len(first) > 0 {
			n, first = first[0], first[1:]
		} else if mss > 0 {
			n = min(n, mss)
		}
		part := s
		part.Payload = payload[:n]
		payload = payload[n:]
		if len(payload) > 0 {
			part.Flags &^= testkit.FIN | testkit.RST
		}
		out = append(out, part.IP())
		s.Seq += uint32(n)
	}
	return out
}

// flow is what dress keeps of a connection.
type flow struct {
	conn   int
	client netip.AddrPort
	first  [2]uint32 // sequence number of the first byte, up and down
	known  [2]bool
}

// dress puts around the packets what the trap has there, and notes what they carry.
func (tr *trap) dress(ips [][]byte) (out []frame) {
	flows, conns := map[[2]netip.AddrPort]*flow{}, 0
	for i, ip := range ips {
		network, transport, src, dst := ipHeader(ip)
		tcp := ip[network:]
		seq, ack, flags := binary.BigEndian.Uint32(tcp[4:]), binary.BigEndian.Uint32(tcp[8:]), tcp[13]
		f := flows[[2]netip.AddrPort{src, dst}]
		syn := flags&testkit.SYN != 0
		if syn {
			seq++
		}
		if f == nil || syn && flags&testkit.ACK == 0 && f.known[pick(src == f.client)] && f.first[pick(src == f.client)] != seq {
			f = &flow{conn: conns, client: src}
			conns++
			flows[[2]netip.AddrPort{src, dst}], flows[[2]netip.AddrPort{dst, src}] = f, f
		}
		up := src == f.client
		me, other := pick(up), pick(!up)
		if !f.known[me] {
			f.first[me], f.known[me] = seq, true
		}
		x := frame{
			conn: f.conn, up: up, flags: flags, from: int(int32(seq - f.first[me])), size: len(tcp) - transport,
			options: transport - 20, number: i,
		}
		if flags&testkit.ACK != 0 && f.known[other] {
			x.acked = int(int32(ack - f.first[other]))
		}
		wrap := &wrappings[0]
		if tr.wrap != nil {
			wrap = tr.wrap
		}
		parts := wrap.f(ip, i)
		x.link, x.parts = wrap.link, len(parts)
		for k, b := range parts {
			x.Data, x.part = b, k
			x.header = len(b) - x.size - x.options
			out = append(out, x)
		}
	}
	return out
}

func pick(up bool) int {
	if up {
		return 0
	}
	return 1
}

// linkNull stands for link type 0, as 0 stands for Ethernet.
const linkNull = 0xffff

// frameSource gives frames at even times in the order they have.
type frameSource struct {
	frames []frame
	number int
	begin  int64
}

func (s *frameSource) Next(ps []capture.Packet) (n int, err error) {
	if s.number == len(s.frames) {
		return 0, io.EOF
	}
	for ; n < len(ps) && s.number < len(s.frames); n++ {
		f := &s.frames[s.number]
		ps[n] = capture.Packet{
			Number: uint64(s.number) + 1, Time: s.begin + int64(s.number)*1e6,
			Data: f.Data, Length: max(f.length, len(f.Data)), Link: linkType(f.link),
		}
		s.number++
	}
	return n, nil
}

func linkType(link uint16) uint16 {
	switch link {
	case 0:
		return 1
	case linkNull:
		return 0
	}
	return link
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

// A reader is one pipeline for many readings: most of what one reading costs is making it.
// When the source ends everything is closed and forgotten, and the next reading is an hour later.
type reader struct {
	*pipeline
	frameSource
	*seen
	ignored uint64
	watched func() // called at each event
}

var theReader = func() *reader {
	local, err := newLocalAddresses(nil)
	if err != nil {
		panic(err)
	}
	r := &reader{frameSource: frameSource{begin: testkit.Start.UnixNano()}}
	r.pipeline = newPipeline(&r.frameSource, DefaultConfig(), 1024, r, local)
	return r
}()

func (r *reader) Observe(o *exchange.Observation) {
	r.seen.Observe(o)
	if r.watched != nil {
		r.watched()
	}
}

// watch reads frames.
func watch(t testing.TB, frames []frame) *seen {
	t.Helper()
	r := theReader
	r.seen, *r.pipeline.counters = &seen{}, exchange.Counters{}
	r.pipeline.decoder = decode.New(DefaultConfig().Decode, r.pipeline.counters)
	r.frameSource.frames, r.number, r.begin = frames, 0, r.begin+3600e9
	if err := r.pipeline.run(); err != nil {
		t.Fatal(err)
	}
	s := r.seen
	stats := r.table.Stats()
	s.count, s.ignored = *r.pipeline.counters, stats.IgnoredBytes-r.ignored
	r.ignored = stats.IgnoredBytes
	n := &s.count
	if n[exchange.Requests]+n[exchange.UnmatchedResponses] != n[exchange.Outcomes] || r.pairer.Open() != 0 {
		t.Errorf("requests %d + responses without request %d, outcomes %d, open %d", n[exchange.Requests], n[exchange.UnmatchedResponses], n[exchange.Outcomes], r.pairer.Open())
	}
	if n[exchange.FlowPanics] > 0 {
		t.Fatalf("panic: %s", stats.Fault)
	}
	if stats.Flows != 0 || stats.Held != 0 || stats.Connections != 0 {
		t.Fatalf("after the end the table holds %+v", stats)
	}
	return s
}

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

// TestTrapHalfDuplex: of a connection of which one direction is captured, no more is kept than
// of a full pipeline, and everything is counted.
func TestTrapHalfDuplex(t *testing.T) {
	const n = 2000
	for _, up := range []bool{true, false} {
		tr := &trap{}
		for range n {
			tr.say = append(tr.say, message{up: true, text: get("/1")}, message{text: answer(201, "one")})
		}
		half := slices.DeleteFunc(tr.frames(0), func(f frame) bool { return f.up != up })
		most := 0
		theReader.watched = func() { most = max(most, theReader.pairer.Open()) }
		s := watch(t, half)
		theReader.watched = nil
		var want exchange.Counters
		want[exchange.Connections], want[exchange.Outcomes] = 1, n
		if up {
			limit := DefaultConfig().HTTP.MaxPipelined
			want[exchange.Requests], want[exchange.UnmatchedRequests], want[exchange.PipelineOverflows] = n, n, uint64(n-limit)
			if most > limit+1 {
				t.Errorf("%d exchanges were open at once, want at most %d", most, limit)
			}
		} else {
			want[exchange.Responses], want[exchange.UnmatchedResponses] = n, n
			if most > 1 {
				t.Errorf("%d exchanges were open at once, want 1", most)
			}
		}
		// Each message of the other direction was acknowledged.
		size := map[bool]uint64{true: uint64(len(answer(201, "one"))), false: uint64(len(get("/1")))}[up]
		want[exchange.GapBytes], want[exchange.Gaps] = n*size, s.count[exchange.Gaps]
		clear(s.count[:exchange.Connections])
		// The FIN of the other end, where it alone was left to acknowledge, counts as a byte or not at all.
		if d := s.count[exchange.GapBytes] - want[exchange.GapBytes]; d <= 1 {
			want[exchange.GapBytes] += d
		}
		if s.count != want {
			t.Errorf("up %t: got %s, want %s", up, s.counters(), (&seen{count: want}).counters())
		}
	}
}

// TestTrapDeepPipeline: a client that sends a thousand requests ahead gets a pair for each; of what is beyond the limit every
// message is counted, by its reason, and paired with nothing.
func TestTrapDeepPipeline(t *testing.T) {
	limit := DefaultConfig().HTTP.MaxPipelined
	for _, beyond := range []int{0, 76} {
		tr, n := &trap{}, 1000
		if beyond > 0 {
			n = limit + beyond
		}
		for i := range n {
			tr.say = append(tr.say, up(get(fmt.Sprint("/", i))))
		}
		for i := range n {
			tr.say = append(tr.say, down(answer(400+i%100, strings.Repeat("x", i))))
		}
		tr.say = append(tr.say, up(get("/last")), down(answer(200, "")))
		s := watch(t, tr.frames(0))
		right := 0
		for _, l := range s.lines() {
			var i, status, body int
			if n, _ := fmt.Sscanf(l, "GET /%d example.org 0/%d = %d %d/", &i, new(int), &status, &body); n == 4 {
				if right++; i >= limit || status != 400+i%100 || body != i {
					t.Errorf("a wrong pair: %s", l)
				}
			}
		}
		if !slices.Contains(s.lines(), "GET /last example.org 0/41 = 200 0/37 complete") || right != n-beyond {
			t.Errorf("%d requests ahead: %d pairs and the last one, want %d:\n%s", n, right, n-beyond, s.counters())
		}
		want := counts{exchange.Requests: uint64(n + 1), exchange.Responses: uint64(n + 1), exchange.PipelineOverflows: uint64(beyond),
			exchange.UnmatchedRequests: uint64(beyond), exchange.UnmatchedResponses: uint64(beyond)}
		for c, v := range want {
			if s.count[c] != v {
				t.Errorf("%d requests ahead: %s = %d, want %d", n, c, s.count[c], v)
			}
		}
	}
}
