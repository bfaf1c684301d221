package stream

import (
	"encoding/binary"
	"reflect"
	"testing"

	"github.com/httpctl/httpctl/agent/decode"
	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/exchange"
)

// FuzzSegments makes segments of its input, 12 bytes each, on few flows and with
// small bounds. The recorder checks that offsets are contiguous, that a chunk is
// bytes or a gap, and that calls come in order; the rest is checked here.
func FuzzSegments(f *testing.F) {
	seed := func(segments ...[12]byte) {
		var b []byte
		for _, s := range segments {
			b = append(b, s[:]...)
		}
		f.Add(b)
	}
	// flow and direction, flags, sequence, acknowledgement, payload, length, time
	seed([12]byte{0, syn, 0, 0}, [12]byte{1, syn | ack, 0, 0, 0, 1}, [12]byte{0, ack, 0, 1, 0, 1, 20, 20, 1},
		[12]byte{1, ack, 0, 1, 0, 21, 9, 30, 1}, [12]byte{0, fin | ack, 0, 21, 0, 31}, [12]byte{1, fin | ack, 0, 31, 0, 22})
	seed([12]byte{0, ack, 0, 10, 0, 10, 5, 5}, [12]byte{0, ack, 0, 90, 0, 10, 5, 5}, [12]byte{1, ack, 0, 10, 0, 40, 5, 5}, [12]byte{0, rst, 0, 40})
	seed([12]byte{2, syn, 255, 255}, [12]byte{2, syn, 1, 1}, [12]byte{3, syn | ack, 0, 0, 1, 2}, [12]byte{2, ack, 1, 2, 0, 1, 200, 250, 200, 9})
	f.Fuzz(func(t *testing.T, b []byte) {
		cfg := DefaultConfig()
		cfg.MaxFlows, cfg.MaxBuffer, cfg.MaxFlowBuffer = 5, 64*config.KiB, 4*config.KiB
		rec := &recorder{t: t, quiet: true}
		if len(b) > 0 && b[0]&0x80 != 0 {
			rec.stop = func(_ *Conn, ch *Chunk) bool { return ch.Offset < 1000 }
		}
		var counters exchange.Counters
		tab := New(cfg, rec, &counters)
		payload := make([]byte, 4096)
		var segments []decode.Segment
		now, packet := int64(1e18), uint64(0)
		for ; len(b) >= 12; b = b[12:] {
			packet++
			flow := flowOf(int(b[0]>>1) % 8)
			if b[0]&1 != 0 {
				flow = flow.Reverse()
			}
			seq, a := uint32(int16(binary.BigEndian.Uint16(b[2:]))), uint32(int16(binary.BigEndian.Uint16(b[4:])))
			if b[10]&1 != 0 { // far away
				seq, a = seq<<(b[10]>>3), a<<(b[10]>>3)
			}
			now += int64(int8(b[8])) << (b[9] % 40)
			segments = append(segments, decode.Segment{Flow: flow, Packet: packet, Time: now, Flags: b[1], Seq: seq, Ack: a,
				Payload: payload[:int(b[6])<<(b[11]%4)], Length: int(int8(b[7])) << (b[11] >> 4)})
			tab.Segment(&segments[len(segments)-1])
			if held := tab.Stats().Held; held > int64(cfg.MaxBuffer) {
				t.Fatalf("%d bytes held, limit %d", held, cfg.MaxBuffer)
			}
			if tab.used > cfg.MaxFlows {
				t.Fatalf("%d flows, limit %d", tab.used, cfg.MaxFlows)
			}
		}
		tab.Advance(now)
		tab.Drain(now)
		st := tab.Stats()
		if st.Held != 0 || st.Connections != 0 || tab.used != 0 || len(tab.holes) != 0 || st.Fault != "" {
			t.Fatalf("left: %+v, %d entries, %d holes", st, tab.used, len(tab.holes))
		}
		var gaps, gapBytes uint64
		for id, k := range rec.conns {
			if !k.closed {
				t.Errorf("connection %d is not closed", id)
			}
			for _, g := range append(k.gaps[0], k.gaps[1]...) {
				gaps++
				gapBytes += g[1]
			}
		}
		if counters[exchange.Gaps] < gaps || counters[exchange.GapBytes] < gapBytes {
			t.Errorf("counted %d gaps of %d bytes, delivered %d of %d", counters[exchange.Gaps], counters[exchange.GapBytes], gaps, gapBytes)
		}

		// Looking ahead changes nothing.
		again, recounted := &recorder{t: t, quiet: true, stop: rec.stop}, exchange.Counters{}
		tab = New(cfg, again, &recounted)
		tab.few = -1
		tab.Segments(segments, nil)
		tab.Advance(now)
		tab.Drain(now)
		if counters != recounted || !reflect.DeepEqual(again.conns, rec.conns) {
			t.Error("segments together give something else than one by one")
		}
	})
}
