package stream

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/httpctl/httpctl/agent/decode"
	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/exchange"
)

const (
	fin = decode.FIN
	syn = decode.SYN
	rst = decode.RST
	ack = decode.ACK
)

const ms = int64(time.Millisecond)

// A recorder is a handler that checks what every handler may rely on, and
// writes down what it is told.
type recorder struct {
	t     testing.TB
	conns map[uint64]*recorded
	order []uint64
	log   []string
	quiet bool // do not keep the log
	stop  func(c *Conn, ch *Chunk) bool
}

type recorded struct {
	data     [2][]byte // gaps as zeros
	gaps     [2][][2]uint64
	finished [2]bool
	closed   bool
	stopped  bool
	reason   CloseReason
	conn     Conn
}

func (r *recorder) note(format string, args ...any) {
	if !r.quiet {
		r.log = append(r.log, fmt.Sprintf(format, args...))
	}
}

func (r *recorder) Coming([]Coming) {}

func (r *recorder) Opened(c *Conn, _ int64) {
	if r.conns == nil {
		r.conns = map[uint64]*recorded{}
	}
	if r.conns[c.ID] != nil || c.ID == 0 {
		r.t.Errorf("Opened(%d) twice", c.ID)
	}
	r.conns[c.ID] = &recorded{conn: *c}
	r.order = append(r.order, c.ID)
	c.User = r.conns[c.ID]
	r.note("open")
}

func (r *recorder) Data(c *Conn, ch *Chunk) bool {
	k, ok := c.User.(*recorded)
	if !ok || k.closed || k.stopped || k.finished[ch.Dir] {
		r.t.Fatalf("Data(%d, %+v) of a connection in state %+v", c.ID, ch, k)
	}
	if (len(ch.Data) > 0) == (ch.Gap > 0) {
		r.t.Errorf("Data(%d): %d bytes and a gap of %d, want one of them", c.ID, len(ch.Data), ch.Gap)
	}
	end := uint64(len(k.data[ch.Dir]))
	for _, g := range k.gaps[ch.Dir] {
		end += g[1]
	}
	if ch.Offset != end {
		r.t.Errorf("Data(%d, dir %d): offset %d, want %d", c.ID, ch.Dir, ch.Offset, end)
	}
	if ch.Gap > 0 {
		k.gaps[ch.Dir] = append(k.gaps[ch.Dir], [2]uint64{ch.Offset, ch.Gap})
		r.note("%s gap %d", arrow(ch.Dir), ch.Gap)
	} else {
		k.data[ch.Dir] = append(k.data[ch.Dir], ch.Data...)
		if !r.quiet {
			r.note("%s %s", arrow(ch.Dir), ch.Data)
		}
	}
	if r.stop != nil && !r.stop(c, ch) {
		k.stopped = true
		return false
	}
	return true
}

func (r *recorder) Finished(c *Conn, dir Direction, _ int64) {
	k := c.User.(*recorded)
	if k.closed || k.stopped || k.finished[dir] {
		r.t.Errorf("Finished(%d, %d) of %+v", c.ID, dir, k)
	}
	k.finished[dir] = true
	r.note("%s fin", arrow(dir))
}

func (r *recorder) Closed(c *Conn, reason CloseReason, _ int64) {
	k := c.User.(*recorded)
	if k.closed {
		r.t.Errorf("Closed(%d) twice", c.ID)
	}
	k.closed, k.reason = true, reason
	r.note("close %v", reason)
}

func arrow(d Direction) string { return [...]string{">", "<"}[d] }

// A rig is one table and one pair of ends: 192.0.2.1:40000 and 192.0.2.2:80.
type rig struct {
	*Table
	rec      *recorder
	counters exchange.Counters
	flow     decode.Flow
	packet   uint64
	now      int64
}

func newRig(t testing.TB, change ...func(*Config)) *rig {
	cfg := DefaultConfig()
	for _, f := range change {
		f(&cfg)
	}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	r := &rig{rec: &recorder{t: t}, flow: flowOf(1), now: 1e18}
	r.Table = New(cfg, r.rec, &r.counters)
	return r
}

func flowOf(i int) decode.Flow {
	f := decode.Flow{SrcPort: 40000, DstPort: 80}
	copy(f.Src[10:], []byte{0xff, 0xff, 10, byte(i >> 16), byte(i >> 8), byte(i)})
	copy(f.Dst[10:], []byte{0xff, 0xff, 192, 0, 2, 2})
	return f
}

// c sends from the client, s from the server. Numbers are relative to 1000 and 5000.
func (r *rig) c(flags uint8, seq, ackn int, data string) {
	r.send(r.flow, flags, 1000+uint32(seq), 5000+uint32(ackn), data)
}
func (r *rig) s(flags uint8, seq, ackn int, data string) {
	r.send(r.flow.Reverse(), flags, 5000+uint32(seq), 1000+uint32(ackn), data)
}

func (r *rig) send(f decode.Flow, flags uint8, seq, ackn uint32, data string) {
	r.packet++
	r.now += ms
	// The payload is overwritten afterwards: it is borrowed.
	b := []byte(data)
	r.Segment(&decode.Segment{Flow: f, Packet: r.packet, Time: r.now, Seq: seq, Ack: ackn, Flags: flags, Payload: b, Length: len(b)})
	for i := range b {
		b[i] = '!'
	}
}

// open is the handshake: data starts at 1 on both sides.
func (r *rig) open() {
	r.c(syn, 0, 0, "")
	r.s(syn|ack, 0, 1, "")
	r.c(ack, 1, 1, "")
}

func (r *rig) wait(d time.Duration) {
	r.now += int64(d)
	r.Advance(r.now)
}

// expect compares the calls so far, and forgets them.
func (r *rig) expect(t testing.TB, want ...string) {
	t.Helper()
	if got := strings.Join(r.rec.log, ", "); got != strings.Join(want, ", ") {
		t.Errorf("calls:\n got %s\nwant %s", got, strings.Join(want, ", "))
	}
	r.rec.log = nil
}

// drained ends the source and checks that nothing is left.
func (r *rig) drained(t testing.TB) {
	t.Helper()
	r.Drain(r.now)
	st := r.Stats()
	if r.Flows() != 0 || r.used != 0 || st.Held != 0 || st.Connections != 0 || len(r.holes) != 0 {
		t.Errorf("after Drain: %d flows, %d entries, %+v, %d holes, want none", r.Flows(), r.used, st, len(r.holes))
	}
	for id, k := range r.rec.conns {
		if !k.closed {
			t.Errorf("connection %d is not closed", id)
		}
	}
}

func TestTraps(t *testing.T) {
	tests := []struct {
		name string
		do   func(r *rig)
		want string
		// gap bytes and gaps counted, late and duplicate bytes
		gapBytes, gaps, late, duplicate uint64
	}{
		{name: "in order", do: func(r *rig) {
			r.open()
			r.c(ack, 1, 1, "GET")
			r.s(ack, 1, 4, "200")
			r.c(fin|ack, 4, 4, "")
			r.s(fin|ack, 4, 5, "")
			r.c(ack, 5, 5, "")
		}, want: "open, > GET, < 200, > fin, < fin, close fin"},
		{name: "swapped segments", do: func(r *rig) {
			r.open()
			r.c(ack, 4, 1, "def")
			r.c(ack, 1, 1, "abc")
		}, want: "open, > abc, > def, close drain"},
		{name: "answer before its question", do: func(r *rig) {
			r.open()
			r.s(ack, 1, 4, "200")
			r.c(ack, 1, 1, "GET")
		}, want: "open, > GET, < 200, close drain"},
		{name: "acknowledgement before its data", do: func(r *rig) {
			r.open()
			r.s(ack, 1, 4, "")
			r.c(ack, 1, 1, "GET")
		}, want: "open, > GET, close drain"},
		{name: "handshake seen backwards", do: func(r *rig) {
			r.s(syn|ack, 0, 1, "")
			r.c(syn, 0, 0, "")
			r.c(ack, 1, 1, "GET")
			r.s(ack, 1, 4, "200")
		}, want: "open, > GET, < 200, close drain"},
		{name: "data before its SYN", do: func(r *rig) {
			r.c(ack, 1, 1, "GET")
			r.c(syn, 0, 0, "")
			r.s(syn|ack, 0, 1, "")
			r.s(ack, 1, 4, "200")
		}, want: "open, > GET, < 200, close drain"},
		{name: "retransmission with other content", do: func(r *rig) {
			r.open()
			r.c(ack, 1, 1, "abc")
			r.c(ack, 1, 1, "xyz")
			r.c(ack, 4, 1, "d")
		}, want: "open, > abc, > d, close drain", duplicate: 3},
		{name: "overlap partly new", do: func(r *rig) {
			r.open()
			r.c(ack, 1, 1, "abc")
			r.c(ack, 2, 1, "XYde")
		}, want: "open, > abc, > de, close drain", duplicate: 2},
		{name: "overlaps while held", do: func(r *rig) {
			r.open()
			r.c(ack, 4, 1, "def")
			r.c(ack, 4, 1, "XYZ")
			r.c(ack, 5, 1, "XYgh")
			r.c(ack, 1, 1, "abcD")
		}, want: "open, > abcD, > ef, > gh, close drain", duplicate: 6},
		{name: "retransmission that acknowledges what waits for it", do: func(r *rig) {
			r.open()
			r.s(ack, 1, 4, "200")
			r.c(ack, 1, 4, "GET")
		}, want: "open, > GET, < 200, close drain"},
		{name: "zero-window probe", do: func(r *rig) {
			r.open()
			r.c(ack, 1, 1, "abc")
			r.c(ack, 4, 1, "d")
			r.c(ack, 4, 1, "def")
		}, want: "open, > abc, > d, > ef, close drain", duplicate: 1},
		{name: "keep-alives", do: func(r *rig) {
			r.open()
			r.c(ack, 1, 1, "abc")
			r.c(ack, 3, 1, "")
			r.c(ack, 3, 1, "\x00")
			r.s(ack, 1, 4, "")
			r.c(ack, 4, 1, "def")
		}, want: "open, > abc, > def, close drain", duplicate: 1},
		{name: "keep-alive first in a capture", do: func(r *rig) {
			r.c(ack, 1, 1, "")
			r.c(ack, 0, 1, "\x00")
			r.s(ack, 1, 1, "")
			r.c(ack, 1, 1, "abc")
		}, want: "open, > abc, close drain", duplicate: 1},
		{name: "empty keep-alive first in a capture", do: func(r *rig) {
			r.c(ack, 0, 1, "")
			r.s(ack, 1, 1, "")
			r.c(ack, 1, 1, "abc")
			r.s(ack, 1, 4, "def")
		}, want: "open, > abc, < def, close drain"},
		{name: "first byte alone, held", do: func(r *rig) {
			r.c(syn, 0, 0, "")
			r.c(ack, 4, 1, "d") // what is before it is missing
			r.s(ack, 1, 5, "H")
			r.s(ack, 2, 5, "TTP")
		}, want: "open, > gap 3, > d, < H, < TTP, close drain", gapBytes: 3, gaps: 1},
		{name: "FIN with data", do: func(r *rig) {
			r.open()
			r.c(fin|ack, 1, 1, "abc")
			r.s(fin|ack, 1, 5, "def")
		}, want: "open, > abc, > fin, < def, < fin, close fin"},
		{name: "FIN before the last data", do: func(r *rig) {
			r.open()
			r.c(fin|ack, 4, 1, "")
			r.c(ack, 1, 1, "abc")
		}, want: "open, > abc, > fin, close drain"},
		{name: "FIN acknowledges data that comes later", do: func(r *rig) {
			r.open()
			r.c(ack, 1, 1, "GET")
			r.c(fin|ack, 4, 4, "")
			r.s(fin|ack, 1, 4, "200")
			r.s(ack, 5, 5, "")
		}, want: "open, > GET, < 200, < fin, > fin, close fin"},
		{name: "FIN sent again with data before it", do: func(r *rig) {
			r.open()
			r.c(fin|ack, 1, 1, "abc")
			r.c(fin|ack, 1, 1, "abc")
			r.c(fin|ack, 4, 1, "")
		}, want: "open, > abc, > fin, close drain", duplicate: 3},
		{name: "data after FIN", do: func(r *rig) {
			r.open()
			r.c(fin|ack, 1, 1, "abc")
			r.c(ack, 5, 1, "more")
		}, want: "open, > abc, > fin, close drain", late: 4},
		{name: "FIN not captured", do: func(r *rig) {
			r.open()
			r.c(ack, 1, 1, "GET")
			r.s(fin|ack, 1, 5, "200") // acknowledges the FIN
		}, want: "open, > GET, < 200, < fin, close drain"},
		{name: "one byte lost is no FIN when more follows", do: func(r *rig) {
			r.open()
			r.c(ack, 1, 1, "GET")
			r.s(ack, 1, 5, "200")
			r.wait(3 * time.Second)
			r.c(ack, 5, 4, "more")
		}, want: "open, > GET, < 200, > gap 1, > more, close drain", gapBytes: 1, gaps: 1},
		{name: "late packets of a closed connection", do: func(r *rig) {
			r.open()
			r.c(fin|ack, 1, 1, "abc")
			r.s(fin|ack, 1, 5, "def")
			r.c(ack, 5, 5, "")
			r.c(ack, 1, 1, "abc")
			r.s(fin|ack, 4, 5, "")
			r.s(syn|ack, 0, 1, "")
			r.c(syn, 0, 0, "")
		}, want: "open, > abc, > fin, < def, < fin, close fin", late: 3},
		{name: "data sent again long after the end", do: func(r *rig) {
			r.open()
			r.s(fin|ack, 1, 1, "200")
			r.c(fin|ack, 1, 5, "GET")
			for pause := 200 * time.Millisecond; pause < 28*time.Second; pause *= 2 {
				r.wait(pause)
				r.c(fin|ack, 1, 5, "GET")
			}
		}, want: "open, < 200, < fin, > GET, > fin, close fin", late: 24},
		{name: "RST in order", do: func(r *rig) {
			r.open()
			r.c(ack, 1, 1, "abc")
			r.c(rst, 4, 0, "")
			r.c(ack, 4, 1, "def")
			r.s(ack, 1, 4, "ghi")
		}, want: "open, > abc, close rst", late: 6},
		{name: "RST before the last data", do: func(r *rig) {
			r.open()
			r.c(rst|ack, 4, 4, "")
			r.c(ack, 1, 1, "abc")
			r.s(ack, 1, 4, "200")
		}, want: "open, > abc, < 200, close rst"},
		{name: "RST delivers what is held", do: func(r *rig) {
			r.open()
			r.c(ack, 1, 1, "abc")
			r.s(ack, 3, 4, "def")
			r.c(rst, 4, 0, "")
			r.wait(3 * time.Second)
		}, want: "open, > abc, < gap 2, < def, close rst", gapBytes: 2, gaps: 1},
		{name: "RST with a guessed number invents no gap", do: func(r *rig) {
			r.open()
			r.c(ack, 1, 1, "abc")
			r.c(rst, 1464, 0, "")
			r.wait(3 * time.Second)
		}, want: "open, > abc, close rst"},
		{name: "RST far out of the window", do: func(r *rig) {
			r.open()
			r.c(ack, 1, 1, "abc")
			r.c(rst, 5_000_000, 0, "")
			r.c(rst, -5_000_000, 0, "")
			r.c(ack, 4, 1, "def")
		}, want: "open, > abc, > def, close drain"},
		{name: "RST behind, ignored by its receiver", do: func(r *rig) {
			r.open()
			r.c(ack, 1, 1, "abc")
			r.c(rst, 2, 0, "")
			r.c(ack, 4, 1, "def")
			r.wait(10 * time.Second)
		}, want: "open, > abc, > def, close drain"},
		{name: "RST behind, then silence", do: func(r *rig) {
			r.open()
			r.c(ack, 1, 1, "abc")
			r.c(rst, 2, 0, "")
			r.wait(10 * time.Second)
		}, want: "open, > abc, close rst"},
		{name: "refused", do: func(r *rig) {
			r.c(syn, 0, 0, "")
			r.s(rst|ack, -5000, 1, "")
		}},
		{name: "ports used again", do: func(r *rig) {
			r.open()
			r.c(ack, 1, 1, "abc")
			r.c(syn, 777777, 0, "")
			r.s(syn|ack, 888888, 777778, "")
			r.c(ack, 777778, 888889, "def")
			r.s(ack, 888889, 777781, "ghi")
		}, want: "open, > abc, close reuse, open, > def, < ghi, close drain"},
		{name: "ports used again, only the client captured", do: func(r *rig) {
			r.open()
			r.c(ack, 1, 1, "abc")
			r.c(syn, 777777, 0, "")
			r.c(ack, 777778, 888889, "def")
		}, want: "open, > abc, close reuse, open, > def, close drain"},
		{name: "ports used again without the SYN", do: func(r *rig) {
			r.open()
			r.c(ack, 1, 1, "abc")
			r.s(syn|ack, 888888, 777778, "")
			r.c(ack, 777778, 888889, "def")
		}, want: "open, > abc, close reuse, open, > def, close drain"},
		{name: "ports used again after the end", do: func(r *rig) {
			r.open()
			r.c(fin|ack, 1, 1, "abc")
			r.s(fin|ack, 1, 5, "")
			r.c(syn, 777777, 0, "")
			r.s(syn|ack, 888888, 777778, "")
			r.c(ack, 777778, 888889, "def")
		}, want: "open, > abc, > fin, < fin, close fin, open, > def, close drain"},
		{name: "ports used again after the end, joined in the middle", do: func(r *rig) {
			r.open()
			r.c(fin|ack, 1, 1, "abc")
			r.s(fin|ack, 1, 5, "")
			r.c(ack, 50_000_000, 60_000_000, "def")
		}, want: "open, > abc, > fin, < fin, close fin, open, > def, close drain"},
		{name: "ports used again, nothing of it captured but data", do: func(r *rig) {
			r.open()
			r.c(ack, 1, 1, "abc")
			for i := range 9 {
				r.c(ack, -1_500_000_000+i, 1, string(rune('0'+i)))
			}
		}, want: "open, > abc, close reuse, open, > 7, > 8, close drain"},
		{name: "forged SYN", do: func(r *rig) {
			r.open()
			r.c(ack, 1, 1, "abc")
			r.c(syn, 777777, 0, "")
			r.s(ack, 1, 4, "") // challenge
			r.c(ack, 4, 1, "def")
		}, want: "open, > abc, > def, close drain"},
		{name: "SYN sent again", do: func(r *rig) {
			r.c(syn, 0, 0, "")
			r.c(syn, 0, 0, "")
			r.s(syn|ack, 0, 1, "")
			r.s(syn|ack, 0, 1, "")
			r.c(ack, 1, 1, "abc")
			r.s(syn|ack, 0, 1, "")
			r.c(ack, 4, 1, "def")
		}, want: "open, > abc, > def, close drain"},
		{name: "two answers to a SYN, the first is taken", do: func(r *rig) {
			r.c(syn, 0, 0, "")
			r.s(syn|ack, 0, 1, "")
			r.s(syn|ack, 888888, 1, "")
			r.c(ack, 1, 1, "")
			r.c(ack, 1, 1, "GET")
			r.s(ack, 1, 4, "200")
		}, want: "open, > GET, < 200, close drain"},
		{name: "two answers to a SYN, the second is taken", do: func(r *rig) {
			r.c(syn, 0, 0, "")
			r.s(syn|ack, 0, 1, "")
			r.s(syn|ack, 888888, 1, "")
			r.c(ack, 1, 888889, "GET")
			r.s(ack, 888889, 4, "200")
		}, want: "open, > GET, < 200, close drain"},
		{name: "two answers to a SYN, the second goes on", do: func(r *rig) {
			r.c(syn, 0, 0, "")
			r.s(syn|ack, 0, 1, "")
			r.s(syn|ack, 888888, 1, "")
			r.s(ack, 888889, 1, "hello")
			r.c(ack, 1, 888894, "hi")
		}, want: "open, < hello, > hi, close drain"},
		{name: "two answers to a SYN that was not captured", do: func(r *rig) {
			r.s(syn|ack, 0, 1, "")
			r.s(syn|ack, 888888, 1, "")
			r.c(ack, 1, 1, "GET")
			r.s(ack, 1, 4, "200")
		}, want: "open, > GET, < 200, close drain"},
		{name: "two answers to a SYN, only the second captured, the first is taken", do: func(r *rig) {
			r.c(syn, 0, 0, "")
			r.s(syn|ack, 888888, 1, "")
			r.c(ack, 1, 1, "")
			r.c(ack, 1, 1, "GET")
			r.s(ack, 1, 4, "200")
		}, want: "open, > GET, < 200, close drain"},
		{name: "two answers to a SYN, only the second captured, nothing of the client but data", do: func(r *rig) {
			r.s(syn|ack, 500_000_000, 1, "")
			r.c(ack, 1, 1, "GET")
			r.s(ack, 1, 4, "200")
		}, want: "open, > GET, < 200, close drain"},
		{name: "a forged acknowledgement in the handshake", do: func(r *rig) {
			r.c(syn, 0, 0, "")
			r.s(syn|ack, 0, 1, "")
			r.c(ack, 1, 500_000_000, "")
			r.c(ack, 1, 1, "GET")
			r.s(ack, 1, 4, "200")
		}, want: "open, > GET, < 200, close drain"},
		{name: "a second answer to a SYN after the question", do: func(r *rig) {
			r.open()
			r.c(ack, 1, 1, "GET")
			r.s(syn|ack, 888888, 1, "")
			r.c(ack, 4, 1, "") // says again where it is
			r.s(ack, 1, 4, "200")
			r.s(syn|ack, 888888, 1, "")
			r.s(ack, 4, 4, "OK")
		}, want: "open, > GET, < 200, < OK, close drain"},
		{name: "SYN with data", do: func(r *rig) {
			r.c(syn, 0, 0, "GET")
			r.s(syn|ack, 0, 4, "")
			r.s(ack, 1, 4, "200")
		}, want: "open, > GET, < 200, close drain"},
		{name: "SYN with data, refused and sent again", do: func(r *rig) {
			r.c(syn, 0, 0, "GET")
			r.s(syn|ack, 0, 1, "")
			r.c(ack, 1, 1, "GET")
			r.s(ack, 1, 4, "200")
		}, want: "open, > GET, < 200, close drain", duplicate: 3},
		{name: "simultaneous open", do: func(r *rig) {
			r.c(syn, 0, 0, "")
			r.s(syn, 0, 0, "")
			r.c(syn|ack, 0, 1, "")
			r.s(syn|ack, 0, 1, "")
			r.s(ack, 1, 1, "hello")
			r.c(ack, 1, 6, "hi")
		}, want: "open, < hello, > hi, close drain"},
		{name: "joined at an acknowledgement", do: func(r *rig) {
			r.c(ack, 1000, 2000, "")
			r.s(ack, 2000, 1000, "abc")
		}, want: "open, < abc, close drain"},
		{name: "joined out of order", do: func(r *rig) {
			r.c(ack, 1000, 2006, "")
			r.s(ack, 2000, 1000, "abc")
			r.s(ack, 2003, 1000, "def")
			r.s(ack, 2006, 1000, "ghi")
		}, want: "open, < abc, < def, < ghi, close drain"},
		{name: "hole with nothing but time", do: func(r *rig) {
			r.open()
			r.c(ack, 1, 1, "abc")
			r.c(ack, 14, 1, "def")
			r.wait(1900 * time.Millisecond)
			r.rec.note("still")
			r.wait(200 * time.Millisecond)
		}, want: "open, > abc, still, > gap 10, > def, close drain", gapBytes: 10, gaps: 1},
		{name: "late bytes of a gap", do: func(r *rig) {
			r.open()
			r.c(ack, 4, 1, "def")
			r.wait(3 * time.Second)
			r.c(ack, 1, 1, "abc")
			r.c(ack, 7, 1, "ghi")
		}, want: "open, > gap 3, > def, > ghi, close drain", gapBytes: 3, gaps: 1, duplicate: 3},
		{name: "request lost", do: func(r *rig) {
			r.open()
			r.s(ack, 1, 101, "200")
			r.c(ack, 101, 4, "GET")
			r.wait(3 * time.Second)
		}, want: "open, > gap 100, < 200, > GET, close drain", gapBytes: 100, gaps: 1},
		{name: "end lost, and acknowledged", do: func(r *rig) {
			r.open()
			r.c(ack, 1, 1, "GET")
			r.c(ack, 4, 101, "")
		}, want: "open, > GET, < gap 100, close drain", gapBytes: 100, gaps: 1},
		{name: "everything lost, and acknowledged", do: func(r *rig) {
			r.open()
			r.c(ack, 1, 101, "")
		}, gapBytes: 100, gaps: 1},
		{name: "only the server captured", do: func(r *rig) {
			r.s(syn|ack, 0, 1, "")
			r.s(ack, 1, 101, "one")
			r.wait(300 * time.Millisecond)
			r.s(ack, 4, 201, "two")
			r.s(ack, 7, 301, "three")
			r.s(fin|ack, 12, 302, "")
		}, want: "open, > gap 100, < one, > gap 100, < two, > gap 100, < three, < fin, close drain", gapBytes: 300, gaps: 3},
		{name: "truncated packet", do: func(r *rig) {
			r.open()
			r.truncated(1, "ab", 10)
			r.c(ack, 11, 1, "cd")
			r.c(ack, 1, 1, "abABABABAB")
		}, want: "open, > ab, > gap 8, > cd, close drain", gapBytes: 8, gaps: 1, duplicate: 10},
		{name: "truncated packet held", do: func(r *rig) {
			r.open()
			r.truncated(4, "de", 10)
			r.c(ack, 14, 1, "fg")
			r.c(ack, 1, 1, "abc")
		}, want: "open, > abc, > de, > gap 8, > fg, close drain", gapBytes: 8, gaps: 1},
		{name: "nothing of a packet captured", do: func(r *rig) {
			r.open()
			r.truncated(1, "", 10)
			r.c(ack, 11, 1, "cd")
		}, want: "open, > gap 10, > cd, close drain", gapBytes: 10, gaps: 1},
		{name: "sequence wrap", do: func(r *rig) {
			r.c(syn, -1003, 0, "") // 2^32 - 3
			r.s(syn|ack, -5002, -1002, "")
			r.c(ack, -999, -5001, "def")
			r.c(ack, -1002, -5001, "abc")
			r.s(ack, -5001, -996, "ghi")
			r.c(fin|ack, -996, -4998, "")
		}, want: "open, > abc, > def, < ghi, > fin, close drain"},
		{name: "old acknowledgement number with a segment from elsewhere", do: func(r *rig) {
			r.open()
			r.c(ack, 1, 1, "abc")
			r.c(ack, -50_000_000, 900_000_000, "x")
			r.s(ack, 1, 4, "def")
		}, want: "open, > abc, < def, close drain"},
		{name: "forged number, and the way back", do: func(r *rig) {
			r.open()
			r.c(ack, 1, 1, "abc")
			r.c(ack, 9_000_004, 1, "!")
			r.wait(3 * time.Second)
			for i := range 9 {
				r.c(ack, 4+i, 1, string(rune('0'+i)))
			}
		}, want: "open, > abc, > gap 9000000, > !, close reuse, open, > 7, > 8, close drain", gapBytes: 9_000_000, gaps: 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t)
			test.do(r)
			r.Drain(r.now)
			if test.want == "" {
				r.expect(t)
			} else {
				r.expect(t, test.want)
			}
			r.drained(t)
			st := r.Stats()
			got := [4]uint64{r.counters[exchange.GapBytes], r.counters[exchange.Gaps], st.LateBytes, st.DuplicateBytes}
			if want := [4]uint64{test.gapBytes, test.gaps, test.late, test.duplicate}; got != want {
				t.Errorf("gap bytes, gaps, late, duplicate = %v, want %v", got, want)
			}
		})
	}
}

func (r *rig) truncated(seq int, data string, length int) {
	r.packet++
	r.now += ms
	r.Segment(&decode.Segment{Flow: r.flow, Packet: r.packet, Time: r.now, Seq: 1000 + uint32(seq), Ack: 5001,
		Flags: ack, Payload: []byte(data), Length: length})
}

func TestClient(t *testing.T) {
	tests := []struct {
		name     string
		src, dst uint16
		flags    uint8
		server   uint16
	}{
		{"SYN", 80, 50000, syn, 50000},
		{"SYN-ACK", 50000, 80, syn | ack, 50000},
		{"system port", 80, 50000, ack, 80},
		{"system port, other way", 50000, 80, ack, 80},
		{"ephemeral port", 8080, 50000, ack, 8080},
		{"ephemeral port, other way", 50000, 8080, ack, 8080},
		{"first sender", 8080, 9090, ack, 9090},
		{"first sender, other way", 9090, 8080, ack, 8080},
	}
	for _, test := range tests {
		r := newRig(t)
		f := r.flow
		f.SrcPort, f.DstPort = test.src, test.dst
		r.send(f, test.flags, 1, 1, "x")
		for _, k := range r.rec.conns {
			if k.conn.Server.Port() != test.server {
				t.Errorf("%s %d -> %d: server port %d, want %d", test.name, test.src, test.dst, k.conn.Server.Port(), test.server)
			}
			if want := test.flags&syn != 0; k.conn.Handshake != want {
				t.Errorf("%s: Handshake = %v, want %v", test.name, k.conn.Handshake, want)
			}
		}
		if len(r.rec.conns) != 1 {
			t.Errorf("%s: %d connections, want 1", test.name, len(r.rec.conns))
		}
	}
}

// A hole that the receiver has acknowledged is waited for by packets too, one
// that it has not only by time and bytes.
// TestResentFlight: after a timeout with more than 1 MiB in flight the sender begins
// again far behind, with more than a handful of segments at once.
func TestResentFlight(t *testing.T) {
	const size, flight = 1460, 2000
	r := newRig(t)
	r.rec.quiet = true
	segment := strings.Repeat("x", size)
	r.open()
	r.c(ack, 1, 1, "GET")
	for i := range flight {
		r.s(ack, 1+i*size, 4, segment)
	}
	r.c(ack, 4, 1+100*size, "")
	for i := range 3 * farLimit {
		r.s(ack, 1+(100+i)*size, 4, segment)
	}
	r.c(ack, 4, 1+flight*size, "")
	r.s(ack, 1+flight*size, 4, segment)
	r.drained(t)
	k := r.rec.conns[1]
	if len(r.rec.conns) != 1 || len(k.data[1]) != (flight+1)*size || len(k.gaps[1]) != 0 || k.reason != ByDrain {
		t.Errorf("%d connections; the first has %d bytes, gaps %v, ended by %v, want 1 with %d and none, by the end",
			len(r.rec.conns), len(k.data[1]), k.gaps[1], k.reason, (flight+1)*size)
	}
	if st := r.Stats(); st.Strange != 0 || st.DuplicateBytes != 3*farLimit*size {
		t.Errorf("%d strange, %d bytes duplicate, want 0 and %d", st.Strange, st.DuplicateBytes, 3*farLimit*size)
	}
}

// TestForgedAhead: bytes with a forged number, for which what lies before was given up, do
// not make the true ones look like those of a flight that is sent again.
func TestForgedAhead(t *testing.T) {
	r := newRig(t)
	r.open()
	r.c(ack, 1, 1, "GET")
	r.s(ack, 1, 4, "abc")
	r.c(ack, 4, 4, "")
	r.s(ack, 5_000_000, 4, "forged")
	r.wait(3 * time.Second)
	r.rec.log = nil
	for i := range farLimit {
		r.s(ack, 4+i, 4, "d")
	}
	r.expect(t, "close reuse", "open", "< d")
}

func TestHolePackets(t *testing.T) {
	for _, acknowledged := range []bool{true, false} {
		r := newRig(t)
		r.open()
		r.c(ack, 1, 1, "a")
		sent := 0
		for ; sent < 2*holePackets && r.counters[exchange.Gaps] == 0; sent++ {
			r.packet++
			a := 2
			if acknowledged {
				a = 12 + sent
			}
			r.now -= ms
			r.c(ack, 12+sent, 1, "x")
			r.now -= ms
			r.s(ack, 1, a, "")
		}
		if got, want := sent <= holePackets, acknowledged; got != want {
			t.Errorf("acknowledged %v: gap declared after %d segments", acknowledged, sent)
		}
		r.drained(t)
	}
}

func TestNoInterest(t *testing.T) {
	r := newRig(t)
	r.rec.stop = func(*Conn, *Chunk) bool { return false }
	r.open()
	r.c(ack, 4, 1, "def")
	r.c(ack, 1, 1, "abc")
	r.c(ack, 7, 1, "ghi")
	r.s(ack, 1, 4, "jkl")
	st := r.Stats()
	if st.IgnoredBytes != 6 || st.Held != 0 || st.Ignored != 1 {
		t.Errorf("Stats = %+v, want 6 bytes ignored and nothing held", st)
	}
	r.c(fin|ack, 10, 4, "")
	r.s(fin|ack, 4, 11, "")
	r.expect(t, "open", "> abc", "close fin")
	r.drained(t)

	r.flow = flowOf(2)
	r.open()
	r.c(ack, 1, 1, "abc")
	r.s(rst, 1, 0, "")
	r.expect(t, "open", "> abc", "close rst")

	r.flow = flowOf(3)
	r.open()
	r.c(ack, 1, 1, "abc")
	r.wait(11 * time.Minute)
	r.expect(t, "open", "> abc", "close timeout")
	r.drained(t)
}

func TestPanicCostsOneFlow(t *testing.T) {
	for _, when := range []string{"at once", "from the queue", "at the end"} {
		r := newRig(t)
		r.rec.stop = func(c *Conn, ch *Chunk) bool {
			if bytes.Contains(ch.Data, []byte("boom")) {
				panic("boom")
			}
			return true
		}
		r.open()
		switch when {
		case "at once":
			r.c(ack, 1, 1, "boom")
		case "from the queue":
			r.c(ack, 4, 1, "boom")
			r.c(ack, 8, 1, "more")
			r.c(ack, 1, 1, "abc")
		case "at the end":
			r.c(ack, 4, 1, "boom")
			r.Drain(r.now)
		}
		r.c(ack, 40, 1, "boom again")
		if got := r.counters[exchange.FlowPanics]; when != "at the end" && got != 1 {
			t.Errorf("%s: %d panics, want 1", when, got)
		}
		if st := r.Stats(); st.Held != 0 || !strings.HasPrefix(st.Fault, "boom") {
			t.Errorf("%s: Stats = %+v, want nothing held, and the fault", when, st)
		}
		if k := r.rec.conns[r.rec.order[0]]; !k.closed || k.reason != ByEviction {
			t.Errorf("%s: %+v, want closed by eviction", when, k)
		}
		r.flow = flowOf(2)
		r.rec.log = nil
		r.open()
		r.c(ack, 1, 1, "other")
		r.expect(t, "open", "> other")
		r.drained(t)
	}
}

func TestPanicInClosed(t *testing.T) {
	var counters exchange.Counters
	tab := New(DefaultConfig(), panics{}, &counters)
	f := flowOf(1)
	for i := range uint32(3) {
		tab.Segment(&decode.Segment{Flow: f, Packet: 1, Time: 1e18, Flags: ack, Seq: 1 + i, Payload: []byte("x"), Length: 1})
	}
	tab.Drain(1e18)
	if counters[exchange.FlowPanics] != 1 || tab.Flows() != 0 || tab.Stats().Connections != 0 {
		t.Errorf("%d panics, %d flows, want 1, 0", counters[exchange.FlowPanics], tab.Flows())
	}
}

type panics struct{}

func (panics) Coming([]Coming)                  {}
func (panics) Opened(*Conn, int64)              {}
func (panics) Data(*Conn, *Chunk) bool          { return true }
func (panics) Finished(*Conn, Direction, int64) {}
func (panics) Closed(*Conn, CloseReason, int64) { panic("closed") }

func TestConfigValidate(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Errorf("DefaultConfig().Validate() = %v", err)
	}
	err := Config{MaxFlows: -1, MaxBuffer: 1, MaxFlowBuffer: 2 * config.GiB}.Validate()
	for _, key := range []string{"max_flows", "max_buffer", "max_flow_buffer", "flow_idle_timeout", "half_open_timeout", "hole_timeout"} {
		if err == nil || !strings.Contains(err.Error(), key+": ") {
			t.Errorf("Validate() = %v, want a fault of %s", err, key)
		}
	}
}
