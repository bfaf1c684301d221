package stream

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/httpctl/httpctl/agent/decode"
	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/exchange"
)

// A sent segment, with what the model needs to judge the delivery.
type sent struct {
	decode.Segment
	dir Direction
}

// A talk is a conversation as both ends saw it.
type talk struct {
	bytes    [2][]byte
	base     [2]uint32 // sequence number of the first byte
	segments []sent
	// after[d][i] is how many bytes of the other direction had been received
	// when byte i of d was sent for the first time.
	after [2][]int
}

// newTalk scripts a conversation without loss: both ends speak in turns of
// random length, cut at random, and acknowledge all that they have.
func newTalk(r *rand.Rand, i int) *talk {
	k := &talk{base: [2]uint32{r.Uint32(), r.Uint32()}}
	flow := flowOf(i)
	add := func(dir Direction, flags uint8, seq uint32, data []byte) {
		f := flow
		if dir == ToClient {
			f = flow.Reverse()
		}
		a := k.base[dir^1] + uint32(len(k.bytes[dir^1]))
		if flags&syn != 0 && dir == ToServer {
			a = 0
		}
		k.segments = append(k.segments, sent{decode.Segment{Flow: f, Seq: seq, Ack: a, Flags: flags, Payload: data, Length: len(data)}, dir})
	}
	add(ToServer, syn, k.base[0]-1, nil)
	add(ToClient, syn|ack, k.base[1]-1, nil)
	add(ToServer, ack, k.base[0], nil)
	for range 1 + r.IntN(8) {
		dir := Direction(r.IntN(2))
		for range 1 + r.IntN(5) {
			data := make([]byte, 1+r.IntN(40))
			for j := range data {
				data[j] = byte(r.Uint32())
			}
			seq := k.base[dir] + uint32(len(k.bytes[dir]))
			add(dir, ack, seq, data)
			for range data {
				k.after[dir] = append(k.after[dir], len(k.bytes[dir^1]))
			}
			k.bytes[dir] = append(k.bytes[dir], data...)
			if r.IntN(4) == 0 {
				add(dir^1, ack, k.base[dir^1]+uint32(len(k.bytes[dir^1])), nil)
			}
			if r.IntN(6) == 0 { // sent again, cut elsewhere, with the newest acknowledgement
				all := k.bytes[dir]
				from := r.IntN(len(all))
				to := from + 1 + r.IntN(len(all)-from)
				add(dir, ack, k.base[dir]+uint32(from), all[from:to])
			}
		}
	}
	for dir := range Direction(2) {
		add(dir, fin|ack, k.base[dir]+uint32(len(k.bytes[dir])), nil)
	}
	return k
}

// A witness checks every delivery against the talk.
type witness struct {
	*recorder
	talks map[uint16]*talk
	have  map[uint64]*[2]int
	slack int
	early string // a breach of causal order
}

func (w *witness) Data(c *Conn, ch *Chunk) bool {
	k := w.talks[c.Client.Port()]
	have := w.have[c.ID]
	if have == nil {
		have = new([2]int)
		w.have[c.ID] = have
	}
	from, n := have[ch.Dir], max(len(ch.Data), int(ch.Gap))
	if from+n > len(k.bytes[ch.Dir]) {
		w.t.Fatalf("%d bytes at %d of dir %d, which has %d", n, from, ch.Dir, len(k.bytes[ch.Dir]))
	}
	if ch.Gap == 0 {
		if !bytes.Equal(ch.Data, k.bytes[ch.Dir][from:from+n]) {
			w.t.Errorf("dir %d, offset %d: got %x, want %x", ch.Dir, from, ch.Data, k.bytes[ch.Dir][from:from+n])
		}
		// One byte that is lost and the last of what is known is taken for a FIN.
		if need := k.after[ch.Dir][from]; have[ch.Dir^1] < need-w.slack {
			w.early = fmt.Sprintf("dir %d, offset %d came when the other had %d, it was sent after %d", ch.Dir, from, have[ch.Dir^1], need)
		}
	}
	have[ch.Dir] += n
	return w.recorder.Data(c, ch)
}

// TestModel plays conversations through a capture that reorders, doubles and
// drops, and holds what comes out against what was said.
func TestModel(t *testing.T) {
	rounds := 3000
	if testing.Short() {
		rounds = 300
	}
	for seed := range rounds {
		for _, drop := range []int{0, 1, 5} {
			t.Run(fmt.Sprintf("seed=%d/drop=%d", seed, drop), func(t *testing.T) { playModel(t, uint64(seed), drop) })
			if t.Failed() {
				return
			}
		}
	}
}

func playModel(t *testing.T, seed uint64, drop int) {
	r := rand.New(rand.NewPCG(seed, uint64(drop)))
	cfg := DefaultConfig()
	cfg.MaxBuffer = 128 * config.KiB
	w := &witness{recorder: &recorder{t: t, quiet: true}, talks: map[uint16]*talk{}, have: map[uint64]*[2]int{}}
	if drop > 0 {
		w.slack = 1
	}
	var counters exchange.Counters
	tab := New(cfg, w, &counters)

	// Several conversations at once; each segment is displaced by up to span places.
	span := r.IntN(12)
	type placed struct {
		at int
		sent
	}
	var all []placed
	arrived := map[uint16]*[2][]bool{}
	for i := range 1 + r.IntN(3) {
		k := newTalk(r, 1)
		port := uint16(40000 + i)
		w.talks[port] = k
		arrived[port] = &[2][]bool{make([]bool, len(k.bytes[0])), make([]bool, len(k.bytes[1]))}
		for j, s := range k.segments {
			if s.dir == ToServer {
				s.SrcPort = port
			} else {
				s.DstPort = port
			}
			handshake := j < 3
			if !handshake && r.IntN(100) < drop {
				continue
			}
			at := j * 4
			if !handshake {
				at += r.IntN(4*span + 1)
			}
			all = append(all, placed{at, s})
			if r.IntN(10) == 0 {
				all = append(all, placed{at + r.IntN(20), s})
			}
			for b := range s.Payload {
				arrived[port][s.dir][int(s.Seq-k.base[s.dir])+b] = true
			}
		}
	}
	slices.SortStableFunc(all, func(a, b placed) int { return a.at - b.at })
	now := int64(1e18)
	for i, p := range all {
		now += int64(r.IntN(3)-1) * ms // backwards too
		s := p.Segment
		s.Time, s.Packet = now, uint64(i+1)
		s.Payload = bytes.Clone(s.Payload)
		tab.Segment(&s)
		clear(s.Payload)
		if held := tab.Stats().Held; held > int64(cfg.MaxBuffer) {
			t.Fatalf("%d bytes held, limit %d", held, cfg.MaxBuffer)
		}
	}
	tab.Advance(now + int64(3*time.Second))
	tab.Drain(now + int64(3*time.Second))

	if w.early != "" && tab.Stats().Guesses == 0 {
		t.Error(w.early)
	}
	if drop == 0 && w.early != "" {
		t.Errorf("nothing was lost, yet %s", w.early)
	}
	var gaps, gapBytes uint64
	for _, id := range w.order {
		c := w.conns[id]
		port := c.conn.Client.Port()
		k := w.talks[port]
		if !c.closed {
			t.Errorf("connection %d not closed", id)
		}
		for dir := range 2 {
			for _, g := range c.gaps[dir] {
				gaps++
				gapBytes += g[1]
				for i := range g[1] {
					if arrived[port][dir][g[0]+i] {
						t.Errorf("port %d, dir %d: byte %d declared a gap, but it was captured", port, dir, g[0]+i)
					}
				}
			}
			missing := 0
			for _, ok := range arrived[port][dir] {
				if !ok {
					missing++
				}
			}
			have := w.have[id][dir]
			// Only a lost end that nothing shows can be absent.
			if tail := len(k.bytes[dir]) - have; tail > 0 && !c.closed || drop == 0 && (tail != 0 || missing != 0 || len(c.gaps[dir]) != 0) {
				t.Errorf("port %d, dir %d: %d of %d bytes accounted for, gaps %v", port, dir, have, len(k.bytes[dir]), c.gaps[dir])
			}
			for i := have; i < len(k.bytes[dir]); i++ {
				if arrived[port][dir][i] {
					t.Errorf("port %d, dir %d: captured byte %d was not delivered", port, dir, i)
				}
			}
		}
		if drop == 0 && c.reason != ByFIN {
			t.Errorf("port %d: closed by %v, want fin", port, c.reason)
		}
	}
	if drop == 0 && len(w.order) != countTalking(w.talks) {
		t.Errorf("%d connections, want %d", len(w.order), countTalking(w.talks))
	}
	if counters[exchange.Gaps] != gaps || counters[exchange.GapBytes] != gapBytes {
		t.Errorf("counted %d gaps of %d bytes, delivered %d of %d", counters[exchange.Gaps], counters[exchange.GapBytes], gaps, gapBytes)
	}
	if st := tab.Stats(); st.Held != 0 || st.Connections != 0 || tab.used != 0 || len(tab.holes) != 0 || counters[exchange.FlowPanics] != 0 {
		t.Errorf("left: %+v, %d entries, %d holes, %d panics\n%s", st, tab.used, len(tab.holes), counters[exchange.FlowPanics], st.Fault)
	}
}

func countTalking(talks map[uint16]*talk) (n int) {
	for _, k := range talks {
		if len(k.bytes[0])+len(k.bytes[1]) > 0 {
			n++
		}
	}
	return n
}

// TestDeterminism: the same packets give the same calls.
func TestDeterminism(t *testing.T) {
	var logs [2]string
	for run := range logs {
		r := rand.New(rand.NewPCG(7, 7))
		g := newRig(t, func(c *Config) { c.MaxFlows = 8; c.MaxBuffer = 64 * config.KiB; c.MaxFlowBuffer = 8 * config.KiB })
		for range 20000 {
			g.flow = flowOf(r.IntN(30))
			flags := uint8(ack)
			if r.IntN(50) == 0 {
				flags = uint8(r.Uint32())
			}
			send := g.c
			if r.IntN(2) == 0 {
				send = g.s
			}
			send(flags, r.IntN(300), r.IntN(300), strings.Repeat("x", r.IntN(30)))
		}
		g.drained(t)
		logs[run] = strings.Join(g.rec.log, "\n")
	}
	if logs[0] != logs[1] {
		t.Error("two runs over the same packets made different calls")
	}
	if strings.Count(logs[0], "close eviction") == 0 || strings.Count(logs[0], "gap") == 0 {
		t.Error("the packets exercise no eviction or no gap")
	}
}
