package decode

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/httpctl/httpctl/agent/capture"
	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/exchange"
	"github.com/httpctl/httpctl/pkg/testkit"
)

// piece is a fragment of a datagram's payload.
type piece struct {
	offset, end int
}

// cutUp returns a datagram with a segment of size bytes as fragments.
func cutUp(v6 bool, id uint16, size int, pieces []piece) (frames [][]byte, payload []byte) {
	payload = make([]byte, size)
	for i := range payload {
		payload[i] = byte(i) ^ byte(i>>8)
	}
	s := segment4()
	if v6 {
		s = segment6()
	}
	s.Payload = payload
	whole := s.Segment()
	for _, f := range pieces {
		end := min(f.end, len(whole))
		more := end < len(whole)
		if !v6 {
			frames = append(frames, testkit.Ethernet(0x0800, testkit.IPv4Fragment(s.Src.Addr(), s.Dst.Addr(), 6, id, f.offset, more, whole[f.offset:end])))
			continue
		}
		flags := uint16(f.offset)
		if more {
			flags |= 1
		}
		frames = append(frames, testkit.Ethernet(0x86dd, testkit.IPv6(s.Src.Addr(), s.Dst.Addr(), 44,
			join([]byte{6, 0}, be16(flags), be32(uint32(id)), whole[f.offset:end]))))
	}
	return frames, payload
}

func TestFragments(t *testing.T) {
	for _, c := range []struct {
		name    string
		pieces  []piece
		size    int
		found   bool
		dropped uint64
	}{
		{"in order", []piece{{0, 1000}, {1000, 2000}, {2000, 9999}}, 3000, true, 0},
		{"in reverse", []piece{{2000, 9999}, {1000, 2000}, {0, 1000}}, 3000, true, 0},
		{"the middle last", []piece{{0, 1000}, {2000, 9999}, {1000, 2000}}, 3000, true, 0},
		{"a copy", []piece{{0, 1000}, {0, 1000}, {1000, 9999}}, 3000, true, 0},
		{"the header in two", []piece{{0, 8}, {8, 9999}}, 100, true, 0},
		{"largest", []piece{{0, 32000}, {32000, 65536}}, 65515, true, 0},
		{"every one twice", []piece{{0, 1000}, {0, 1000}, {1000, 2000}, {1000, 2000}, {2000, 9999}, {2000, 9999}}, 3000, true, 0},
		{"the smallest, shuffled", func() (all []piece) {
			for _, i := range rand.New(rand.NewPCG(1, 2)).Perm(187) {
				all = append(all, piece{8 * i, 8*i + 8})
			}
			return all
		}(), 187*8 - 20, true, 0},
		{"one missing", []piece{{0, 1000}, {2000, 9999}}, 3000, false, 2},
		{"the last missing", []piece{{0, 1000}, {1000, 2000}}, 3000, false, 2},
		{"overlap", []piece{{0, 1000}, {992, 2000}, {1000, 2000}, {2000, 9999}}, 3000, false, 4},
		{"overlap with a later one", []piece{{1000, 2000}, {0, 1008}, {2000, 9999}}, 3000, false, 3},
		{"empty", []piece{{0, 1000}, {1000, 1000}}, 3000, false, 2},
		{"not a multiple of eight", []piece{{0, 1001}}, 3000, false, 1},
	} {
		for _, v6 := range []bool{false, true} {
			frames, want := cutUp(v6, 77, c.size, c.pieces)
			var n exchange.Counters
			d := New(DefaultConfig(), &n)
			var s Segment
			found := 0
			for i, frame := range frames {
				p := capture.Packet{Number: uint64(i + 1), Data: frame, Length: len(frame), Link: 1}
				if d.Decode(&p, &s) {
					found++
					if !bytes.Equal(s.Payload, want) || s.Length != len(want) || s.Packet != uint64(i+1) || s.DstPort != 80 {
						t.Errorf("%s, v6 %v: packet %d gives %d bytes of payload of %d", c.name, v6, i+1, len(s.Payload), len(want))
					}
				}
			}
			d.Drain()
			if found > 1 || (found == 1) != c.found || n[exchange.FragmentsDropped] != c.dropped {
				t.Errorf("%s, v6 %v: %d segments, fragments_dropped %d, want %v and %d", c.name, v6, found, n[exchange.FragmentsDropped], c.found, c.dropped)
			}
		}
	}
}

// A fragment that tells other bytes for a stretch already there spoils the datagram.
func TestFragmentContradiction(t *testing.T) {
	frames, _ := cutUp(false, 1, 3000, []piece{{0, 1000}, {0, 1000}, {1000, 9999}})
	frames[1][100] ^= 1
	var n exchange.Counters
	d := New(DefaultConfig(), &n)
	for _, frame := range frames {
		if d.Decode(&capture.Packet{Data: frame, Length: len(frame), Link: 1}, new(Segment)) {
			t.Error("a segment was made of fragments that contradict each other")
		}
	}
	d.Drain()
	if n[exchange.FragmentsDropped] != 3 {
		t.Errorf("fragments_dropped = %d, want 3", n[exchange.FragmentsDropped])
	}
}

func TestFragmentTimeout(t *testing.T) {
	frames, _ := cutUp(false, 1, 3000, []piece{{0, 1000}, {1000, 9999}})
	for _, c := range []struct {
		wait time.Duration
		want bool
	}{{30 * time.Second, true}, {30*time.Second + 1, false}} {
		var n exchange.Counters
		d := New(DefaultConfig(), &n)
		d.Decode(&capture.Packet{Time: 1, Data: frames[0], Length: len(frames[0]), Link: 1}, new(Segment))
		if got := d.Decode(&capture.Packet{Time: 1 + int64(c.wait), Data: frames[1], Length: len(frames[1]), Link: 1}, new(Segment)); got != c.want {
			t.Errorf("second fragment after %v gives a segment: %v, want %v", c.wait, got, c.want)
		}
	}
}

// Whatever comes, memory and the number of datagrams stay within their
// bounds, and every fragment is counted as lost or is part of a segment.
func TestFragmentBounds(t *testing.T) {
	cfg := DefaultConfig()
	cfg.FragmentedDatagrams = 50
	cfg.FragmentMemory = 128 * config.KiB
	var n exchange.Counters
	d := New(cfg, &n)
	r := rand.New(rand.NewPCG(1, 2))
	whole := make([]byte, 65535)
	src, dst := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	total := uint64(0)
	for range 20000 {
		offset := r.IntN(8000) * 8
		size := min(8+r.IntN(200)*8, len(whole)-offset)
		frame := testkit.Ethernet(0x0800, testkit.IPv4Fragment(src, dst, 17, uint16(r.IntN(100)), offset, r.IntN(10) > 0, whole[offset:offset+size]))
		d.Decode(&capture.Packet{Time: int64(total) * 1e6, Data: frame, Length: len(frame), Link: 1}, new(Segment))
		total++
		if f := &d.fragments; f.used > int(cfg.FragmentMemory) || len(f.table) > cfg.FragmentedDatagrams {
			t.Fatalf("%d bytes in %d datagrams, want at most %d in %d", f.used, len(f.table), cfg.FragmentMemory, cfg.FragmentedDatagrams)
		}
	}
	d.Drain()
	used := 0
	for g := d.fragments.free; g != nil; g = g.older {
		used += cap(g.buf)
	}
	if used != d.fragments.used {
		t.Errorf("%d bytes accounted for, %d held", d.fragments.used, used)
	}
	if n[exchange.FragmentsDropped] == 0 || n[exchange.FragmentsDropped] > total {
		t.Errorf("fragments_dropped = %d of %d", n[exchange.FragmentsDropped], total)
	}
}

// In steady state fragments don't allocate either.
func TestFragmentAllocations(t *testing.T) {
	frames, _ := cutUp(false, 1, 3000, []piece{{0, 1000}, {1000, 9999}})
	var n exchange.Counters
	d := New(DefaultConfig(), &n)
	var s Segment
	id := uint16(0)
	p := capture.Packet{Link: 1}
	if got := testing.AllocsPerRun(1000, func() {
		id++
		for _, frame := range frames {
			binary.BigEndian.PutUint16(frame[14+4:], id)
			p.Data, p.Length = frame, len(frame)
			d.Decode(&p, &s)
		}
	}); got != 0 {
		t.Errorf("%v allocations for a datagram in two fragments, want 0", got)
	}
}

func TestValidate(t *testing.T) {
	good := DefaultConfig()
	if err := good.Validate(); err != nil {
		t.Errorf("DefaultConfig().Validate() = %v", err)
	}
	bad := Config{}
	err := bad.Validate()
	for _, key := range []string{"fragment_timeout", "fragmented_datagrams", "fragment_memory"} {
		if err == nil || !bytes.Contains([]byte(err.Error()), []byte(key)) {
			t.Errorf("Config{}.Validate() = %v, want it to name %s", err, key)
		}
	}
}
