package app

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/httpctl/httpctl/agent/accumulate"
	"github.com/httpctl/httpctl/agent/capture"
	"github.com/httpctl/httpctl/agent/tail"
	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/exchange"
	"github.com/httpctl/httpctl/pkg/testkit"
)

// crowd makes endless packets of many connections: an exchange is five, a request and a response of four
// segments. All are at the same place in their streams, so that making packets takes no memory, nor
// any cache. They go to the pipeline as from a source that has always a whole batch.
type crowd struct {
	*pipeline
	flows int
	// kinds are the packets of an exchange, of which each place in a batch has its own frames.
	kinds [perExchange]struct {
		up       bool
		seq, ack uint32 // in the exchange
	}
	frames         [batch][perExchange][]byte
	short          [batch][54]byte
	handshake      [3][]byte
	asked, replied uint32 // bytes of an exchange
	ready          int    // packets in the batch
	number         uint64
	time           int64
}

const perExchange = 5

func newCrowd(t testing.TB, flows int) *crowd {
	t.Helper()
	collector, err := accumulate.NewCollector(nil, 1000, 0)
	if err != nil {
		t.Fatal(err)
	}
	cfg := DefaultConfig()
	cfg.Memory = 4 * config.GiB
	cfg.Derive(func(string) bool { return false })
	if cfg.Stream.MaxFlows < flows || int(cfg.HTTP.MaxOpenMemory)/openMemory < flows {
		t.Fatalf("%d connections do not fit", flows)
	}
	local, err := newLocalAddresses(nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &crowd{flows: flows, time: testkit.Start.UnixNano()}
	// As in an agent that nobody tails.
	c.pipeline = newPipeline(&script{}, cfg, 1024, tail.New(cfg.Tail, tail.Deps{}).Tap(&readSink{collector: collector}), local)
	for i := range c.handshake {
		c.handshake[i] = sampleSegmentOf(i == 1, [...]byte{2, 2 | 16, 16}[i], "")
	}
	request := "GET /section/page.html?id=1 HTTP/1.1\r\nHost: www.example.org\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101\r\nAccept: */*\r\n\r\n"
	response := fmt.Sprintf("HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Length: 5600\r\n\r\n%05600d", 0)
	c.asked, c.replied = uint32(len(request)), uint32(len(response))
	for i := range c.kinds {
		k := &c.kinds[i]
		payload := request
		if k.up = i == 0; !k.up {
			from := (i - 1) * 1460
			payload = response[from:min(from+1460, len(response))]
			k.seq, k.ack = uint32(from), c.asked
		}
		for b := range c.frames {
			c.frames[b][i] = sampleSegmentOf(!k.up, 16, payload)
		}
	}
	for i := range flows {
		for k, frame := range c.handshake {
			place(frame, i, uint32(k/2), uint32((k+1)/2), k == 1)
			c.add(frame)
		}
	}
	return c
}

// place fills in what sampleSegmentOf leaves out.
func place(b []byte, flow int, seq, ack uint32, down bool) {
	be := binary.BigEndian
	client, port, server := 26, 34, 30
	if down {
		client, port, server = 30, 36, 26
	}
	be.PutUint32(b[client:], 0x0a000000+uint32(flow/32768))
	be.PutUint16(b[port:], uint16(32768+flow%32768))
	be.PutUint32(b[server:], 0xc0000250)
	be.PutUint32(b[38:], seq)
	be.PutUint32(b[42:], ack)
}

// add takes a packet with the next batch. A frame without payload is copied.
func (c *crowd) add(frame []byte) {
	if short := &c.short[c.ready]; len(frame) == len(short) {
		copy(short[:], frame)
		frame = short[:]
	}
	c.number++
	c.time += 1000
	c.packets[c.ready] = capture.Packet{Link: 1, Number: c.number, Time: c.time, Data: frame, Length: len(frame)}
	if c.ready++; c.ready == batch {
		c.flush()
	}
}

// flush has what was added handled.
func (c *crowd) flush() {
	c.take(c.packets[:c.ready])
	c.ready = 0
}

// send adds a packet of a flow's exchange.
func (c *crowd) send(flow, exchange, i int) {
	k, frame := &c.kinds[i], c.frames[c.ready][i]
	up, down := uint32(exchange)*c.asked+1, uint32(exchange)*c.replied+1
	if k.up {
		place(frame, flow, up, down, false)
	} else {
		place(frame, flow, down+k.seq, up+k.ack, true)
	}
	c.add(frame)
}

// BenchmarkFlows is the cost of a packet, from its frame to the tables, by how many connections
// are open: burst=5 is an exchange of one after that of another, burst=1 never two packets of one in a
// row, so that with many no packet finds its connection in the processor's caches. The connections
// take turns in an order that is not that of their memory.
func BenchmarkFlows(b *testing.B) {
	for _, burst := range []int{5, 1} {
		for _, flows := range []int{100, 1000, 10_000, 100_000, 500_000} {
			b.Run(fmt.Sprintf("burst=%d/flows=%d", burst, flows), func(b *testing.B) {
				c := newCrowd(b, flows)
				stride := flows*618/1000 | 1 // has no divisor in common with flows
				for stride%5 == 0 {
					stride += 2
				}
				turn, flow, n, i := 0, 0, 0, 0
				step := func() {
					if burst == perExchange {
						c.send(flow, turn, i)
						if i++; i < perExchange {
							return
						}
						i = 0
					} else if sent := turn - flow%perExchange; sent >= 0 {
						// At each time, a fifth of the connections is at each place of its exchange.
						c.send(flow, sent/perExchange, sent%perExchange)
					}
					if flow += stride; flow >= flows {
						flow -= flows
					}
					if n++; n == flows {
						n = 0
						turn++
					}
				}
				for range perExchange * flows {
					step()
				}
				b.ReportAllocs()
				for b.Loop() {
					step()
				}
				c.flush()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "packets/s")
				if got := c.counters[exchange.Requests]; got < uint64(flows) || c.counters[exchange.Gaps]+c.counters[exchange.EvictedFlows] > 0 {
					b.Fatalf("%d requests, %d gaps, %d evicted", got, c.counters[exchange.Gaps], c.counters[exchange.EvictedFlows])
				}
			})
		}
	}
}

// TestAllocationsOfPipeline: from frame to tables, no packet allocates, and an exchange not more than
// its two new strings, be its connection new or not.
func TestAllocationsOfPipeline(t *testing.T) {
	c := newCrowd(t, 100)
	turn := 0
	whole := func() {
		for i := range perExchange {
			c.send(turn%100, turn/100, i)
		}
		c.flush()
		turn++
	}
	for range 2000 {
		whole()
	}
	if n := testing.AllocsPerRun(1000, whole); n != 0 {
		t.Errorf("an exchange of known strings: %v allocations, want 0", n)
	}

	// Every target is new.
	fresh := func() {
		for i, n := 0, turn; i < 7; i, n = i+1, n/10 {
			c.frames[0][0][54+len("GET /section/")+i] = byte('0' + n%10)
		}
		whole()
	}
	for range 10_000 {
		fresh()
	}
	if n := testing.AllocsPerRun(1000, fresh); n > 2 {
		t.Errorf("an exchange with a new target: %v allocations, want at most 2", n)
	} else {
		t.Logf("an exchange with a new target: %v allocations", n)
	}

	// Every connection is new, and closed.
	flow := 1000
	fin := [2][]byte{sampleSegmentOf(false, 16|1, ""), sampleSegmentOf(true, 16|1, "")}
	short := func() {
		flow++
		for k, frame := range c.handshake {
			place(frame, flow, uint32(k/2), uint32((k+1)/2), k == 1)
			c.add(frame)
		}
		for i := range perExchange {
			c.send(flow, 0, i)
		}
		place(fin[0], flow, 1+c.asked, 1+c.replied, false)
		c.add(fin[0])
		place(fin[1], flow, 1+c.replied, 2+c.asked, true)
		c.add(fin[1])
		c.flush()
		c.time += 1e6 // tombstones go after 30 s
	}
	for range 60_000 {
		short()
	}
	if n := testing.AllocsPerRun(1000, short); n > 2 {
		t.Errorf("an exchange on a new connection: %v allocations, want at most 2", n)
	} else {
		t.Logf("an exchange on a new connection: %v allocations", n)
	}
	if got := c.counters[exchange.Gaps] + c.counters[exchange.UnmatchedResponses] + c.counters[exchange.Malformed]; got != 0 {
		t.Errorf("the packets are not what they should be: %v", *c.counters)
	}
}
