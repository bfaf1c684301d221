package pairing

import (
	"testing"

	"github.com/httpctl/httpctl/agent/stream"
	"github.com/httpctl/httpctl/pkg/exchange"
)

// FuzzPairing plays a script: each step is an operation byte, a length byte and,
// for bytes, what follows. It checks the sum of DESIGN section 5 after each
// step, and that no byte is counted twice.
func FuzzPairing(f *testing.F) {
	bytesOf := func(d byte, s string) []byte { return append([]byte{d, byte(len(s))}, s...) }
	seed := func(steps ...[]byte) {
		var b []byte
		for _, s := range steps {
			b = append(b, s...)
		}
		f.Add(b)
	}
	seed(bytesOf(0, getting("/1")), bytesOf(1, okay(200, "a")), bytesOf(0, getting("/2")), []byte{3, 50}, bytesOf(0, getting("/3")), bytesOf(1, okay(200, "")))
	seed(bytesOf(0, "CONNECT a:1 HTTP/1.1\r\n\r\n"), bytesOf(1, connected), bytesOf(0, getting("/in")), bytesOf(1, okay(200, "")))
	seed(bytesOf(1, okay(200, "")), bytesOf(0, getting("/1")), []byte{2, 9, 4, 0, 6, 0}, bytesOf(0, getting("/2")))
	seed(bytesOf(0, "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"), []byte{2, 5}, bytesOf(1, okay(400, "")), []byte{5, 0, 7, 3})
	seed(bytesOf(0, "GET /old\r\n"), bytesOf(1, "HTT"), bytesOf(1, "plain"), []byte{5, 0, 6, 1})
	f.Fuzz(func(t *testing.T, script []byte) {
		r := newRig(t)
		r.p.cfg.MaxPipelined = 3
		var carried uint64
		for len(script) >= 2 {
			op, n := script[0]&7, int(script[1])
			script = script[2:]
			switch op {
			case 0, 1:
				n = min(n, len(script))
				if n > 0 && r.more {
					carried += uint64(n)
					r.chunk(stream.Direction(op), script[:n:n], 0)
				}
				script = script[n:]
			case 2, 3:
				if n > 0 && r.more {
					carried += uint64(n)
					r.chunk(stream.Direction(op-2), nil, uint64(n))
				}
			case 4, 5:
				r.fin(stream.Direction(op - 4))
			case 6:
				r.close(stream.CloseReason(n % 6))
				r.open(n >= 128)
			case 7:
				r.now += int64(n) * 1e9
				r.p.Progress(r.now)
			}
			r.balance()
		}
		r.close(stream.ByDrain)
		if got := r.newReqWire + r.newRespWire; got > carried {
			t.Fatalf("%d wire bytes in events, %d in the stream", got, carried)
		}
		var wire, newWire uint64
		for _, x := range r.done {
			if x.RequestBytes > x.RequestWireBytes || x.ResponseBytes > x.ResponseWireBytes {
				t.Fatalf("content exceeds wire bytes: %+v", x)
			}
			if !x.HasRequest && !x.HasResponse || x.End == exchange.Open {
				t.Fatalf("an exchange without halves or end: %+v", x)
			}
			wire += x.RequestWireBytes + x.ResponseWireBytes
		}
		if newWire = r.newReqWire + r.newRespWire; newWire != wire {
			t.Fatalf("new wire bytes sum to %d, totals to %d", newWire, wire)
		}
		if len(r.seen) != int(r.count[exchange.Requests]) {
			t.Fatalf("%d requests seen, %d counted", len(r.seen), r.count[exchange.Requests])
		}
	})
}
