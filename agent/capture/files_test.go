package capture

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/httpctl/httpctl/pkg/testkit"
)

// ng builds pcapng blocks in one byte order.
type ng struct {
	bytes.Buffer
	order binary.ByteOrder
}

func (n *ng) u16(v uint16) []byte { b := make([]byte, 2); n.order.PutUint16(b, v); return b }
func (n *ng) u32(v uint32) []byte { b := make([]byte, 4); n.order.PutUint32(b, v); return b }

func (n *ng) block(kind uint32, body ...[]byte) {
	b := bytes.Join(body, nil)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	n.Write(n.u32(kind))
	n.Write(n.u32(uint32(12 + len(b))))
	n.Write(b)
	n.Write(n.u32(uint32(12 + len(b))))
}

func (n *ng) section(order binary.ByteOrder) {
	n.order = order
	n.block(blockSection, n.u32(byteOrderMagic), n.u16(1), n.u16(0), bytes.Repeat([]byte{0xff}, 8))
}

func (n *ng) iface(link uint16, snaplen uint32, options ...[]byte) {
	n.block(blockInterface, append([][]byte{n.u16(link), n.u16(0), n.u32(snaplen)}, options...)...)
}

func (n *ng) option(code uint16, v []byte) []byte {
	b := append(n.u16(code), n.u16(uint16(len(v)))...)
	b = append(b, v...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func (n *ng) packet(id uint32, stamp uint64, length uint32, data []byte, options ...[]byte) {
	padded := append(bytes.Clone(data), make([]byte, (4-len(data)%4)%4)...)
	n.block(blockEnhanced, append([][]byte{n.u32(id), n.u32(uint32(stamp >> 32)), n.u32(uint32(stamp)), n.u32(uint32(len(data))), n.u32(length), padded}, options...)...)
}

// pcapngSample has two sections of different byte order, several interfaces,
// and a block of each kind that is read or passed over.
func pcapngSample() ([]byte, []Packet) {
	var n ng
	n.section(binary.LittleEndian)
	n.iface(1, 0)
	n.iface(113, 0, n.option(2, []byte("eth1")), n.option(9, []byte{9}), n.option(0, nil))
	n.block(0xbad, []byte("unknown"))
	n.packet(0, 1_000_000, 5, []byte("micro"), n.option(1, []byte("a comment")))
	n.packet(1, 2_000_000_001, 9, []byte("nano"))
	n.block(blockPacket, n.u16(1), n.u16(3), n.u32(0), n.u32(7), n.u32(3), n.u32(3), []byte("old"))
	n.block(5, n.u32(1), make([]byte, 8)) // statistics
	n.section(binary.BigEndian)
	n.iface(101, 4, n.option(9, []byte{0x80 | 4}), n.option(14, []byte{0, 0, 0, 0, 0, 0, 0, 10}))
	n.packet(0, 24, 2, []byte("hi"))               // 24/16 s, 10 s later
	n.block(blockSimple, n.u32(6), []byte("simp")) // cut to 4 by the snapshot length
	return n.Bytes(), []Packet{
		{Number: 1, Time: 1e9, Data: []byte("micro"), Length: 5, Link: 1},
		{Number: 2, Time: 2e9 + 1, Data: []byte("nano"), Length: 9, Link: 113, Interface: 1},
		{Number: 3, Time: 7, Data: []byte("old"), Length: 3, Link: 113, Interface: 1},
		{Number: 4, Time: 11.5e9, Data: []byte("hi"), Length: 2, Link: 101},
		{Number: 5, Time: 11.5e9, Data: []byte("simp"), Length: 6, Link: 101},
	}
}

func checkPackets(t *testing.T, what string, got, want []Packet) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: %d packets, want %d", what, len(got), len(want))
		return
	}
	for i := range got {
		if !samePacket(got[i], want[i]) {
			t.Errorf("%s: packet %d = %+v, want %+v", what, i+1, got[i], want[i])
		}
	}
}

func TestPcapng(t *testing.T) {
	data, want := pcapngSample()
	f, err := OpenFile(write(t, "x.pcapng", data))
	if err != nil {
		t.Fatal(err)
	}
	checkPackets(t, "pcapng", readAll(t, f), want)
	if w := f.Warnings(); len(w) > 0 {
		t.Errorf("Warnings() = %q, want none", w)
	}
	if s := f.Stats(); s.Truncated != 2 {
		t.Errorf("Stats() = %+v, want 2 truncated", s)
	}
}

// classic writes a file of three packets in any of the classic formats.
func classic(order binary.ByteOrder, magic uint32, minor uint16, link uint32) []byte {
	h := make([]byte, 24)
	order.PutUint32(h, magic)
	order.PutUint16(h[4:], 2)
	order.PutUint16(h[6:], minor)
	order.PutUint32(h[16:], 65535)
	order.PutUint32(h[20:], link)
	for i := range uint32(3) {
		record := make([]byte, 16)
		order.PutUint32(record, 1<<31+i) // beyond 2038
		order.PutUint32(record[4:], 999_999)
		captured, length := i+1, i+10
		if minor < 3 {
			captured, length = length, captured
		}
		order.PutUint32(record[8:], captured)
		order.PutUint32(record[12:], length)
		if magic == magicModified {
			record = append(record, 0, 0, 0, 1, 8, 0, 0, 0)
		}
		h = append(h, record...)
		h = append(h, "abc"[:i+1]...)
	}
	return h
}

func TestClassicFormats(t *testing.T) {
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		for _, c := range []struct {
			name  string
			magic uint32
			minor uint16
			frac  int64
		}{
			{"microseconds", magicMicro, 4, 999_999_000}, {"nanoseconds", magicNano, 4, 999_999},
			{"modified", magicModified, 4, 999_999_000}, {"version 2.2", magicMicro, 2, 999_999_000},
		} {
			for _, packed := range []bool{false, true} {
				data := classic(order, c.magic, c.minor, 0x24000071) // with a frame check sequence of 4 bytes
				if packed {
					data = pack(t, data)
				}
				f, err := OpenFile(write(t, "x", data))
				if err != nil {
					t.Fatal(err)
				}
				var want []Packet
				for i := range 3 {
					want = append(want, Packet{Number: uint64(i + 1), Time: int64(1<<31+i)*1e9 + c.frac, Data: []byte("abc"[:i+1]), Length: i + 10, Link: 113})
				}
				checkPackets(t, fmt.Sprintf("%s, %v, gzip %v", c.name, order, packed), readAll(t, f), want)
			}
		}
	}
}

// Several files are one source: classic, packed pcapng and standard input.
func TestOpenFiles(t *testing.T) {
	one := testkit.Pcap(1, frames(3)...)
	two, want := pcapngSample()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	stdin := os.Stdin
	os.Stdin = r
	defer func() { os.Stdin = stdin; r.Close() }()
	go func() {
		w.Write(one)
		w.Close()
	}()
	f, err := OpenFiles([]string{write(t, "one", one), write(t, "two.gz", pack(t, two)), Stdin})
	if err != nil {
		t.Fatal(err)
	}
	got := readAll(t, f)
	if len(got) != 3+len(want)+3 {
		t.Fatalf("%d packets, want %d; warnings %q", len(got), 6+len(want), f.Warnings())
	}
	for i, p := range got {
		if p.Number != uint64(i+1) {
			t.Errorf("packet %d has number %d", i+1, p.Number)
		}
	}
	if !bytes.Equal(got[8].Data, got[0].Data) || !bytes.Equal(got[4].Data, want[1].Data) {
		t.Error("the files are not in order")
	}
	if _, total := f.Progress(); total != 0 {
		t.Errorf("Progress() with a pipe has total %d, want 0", total)
	}
}

func TestNotACapture(t *testing.T) {
	for _, c := range []struct{ name, content, hint string }{
		{"empty", "", "it is empty"},
		{"text", "GET / HTTP/1.1\r\nHost: grün.example.org\r\n\r\n", "it is text"},
		{"snoop", "snoop\x00\x00\x00\x00\x00\x00\x02", "editcap -F pcap"},
		{"zstd", "\x28\xb5\x2f\xfd....", "zstd -dc"},
		{"program", "\x7fELF\x02\x01", "a program"},
		{"packed text", string(pack(t, []byte("hello"))), "gzip with text"},
		{"broken gzip", "\x1f\x8b\x08\xff", "can't be unpacked"},
		{"cut header", "\xd4\xc3\xb2\xa1\x02\x00", "cut within its header"},
		{"unknown", "\x00\x01\x02\x03\x04\x05\x06\x07\x08", "00 01 02 03 04 05 06 07"},
	} {
		path := write(t, "file", []byte(c.content))
		_, err := OpenFile(path)
		var e *Error
		if !errors.As(err, &e) || !errors.Is(err, ErrNotCapture) || e.Path != path || !strings.Contains(e.Hint, c.hint) {
			t.Errorf("OpenFile(%s) = %v, want an *Error with %q in its hint", c.name, err, c.hint)
		}
	}
	good := write(t, "good", testkit.Pcap(1))
	for path, want := range map[string]error{filepath.Join(t.TempDir(), "absent"): os.ErrNotExist, write(t, "text", []byte("text")): ErrNotCapture} {
		// A wrong name at the end is told before the first file is read.
		if _, err := OpenFiles([]string{good, path}); !errors.Is(err, want) {
			t.Errorf("OpenFiles(good, %s) = %v, want %v", path, err, want)
		}
	}
	if _, err := OpenFile(t.TempDir()); err == nil || !strings.Contains(err.Error(), "directory") {
		t.Errorf("OpenFile(directory) = %v", err)
	}
}

// A file cut anywhere behind its header gives the packets before the cut and
// then, unless it ends between two records, a warning.
func TestCut(t *testing.T) {
	ngData, _ := pcapngSample()
	for name, data := range map[string][]byte{"pcap": testkit.Pcap(1, frames(5)...), "pcapng": ngData} {
		whole, err := OpenFile(write(t, name, data))
		if err != nil {
			t.Fatal(err)
		}
		all := readAll(t, whole)
		path := write(t, name, nil)
		for cut := 28; cut < len(data); cut++ {
			if err := os.WriteFile(path, data[:cut], 0o600); err != nil {
				t.Fatal(err)
			}
			f, err := OpenFile(path)
			if err != nil {
				t.Fatalf("%s cut to %d: %v", name, cut, err)
			}
			got := readAll(t, f)
			checkPackets(t, fmt.Sprintf("%s cut to %d", name, cut), got, all[:min(len(got), len(all))])
			if len(got) == len(all) && cut < len(data)-4 {
				t.Errorf("%s cut to %d of %d still gives all packets", name, cut, len(data))
			}
			if w := f.Warnings(); len(w) > 1 || len(w) == 1 && (!strings.Contains(w[0], path) || !strings.Contains(w[0], fmt.Sprintf("after packet %d", len(got)))) {
				t.Errorf("%s cut to %d: Warnings() = %q", name, cut, w)
			}
		}
	}
}

// Damage is warned about, with its place, and what came before is kept.
func TestDamage(t *testing.T) {
	pcap := testkit.Pcap(1, frames(3)...)
	huge := bytes.Clone(pcap)
	binary.LittleEndian.PutUint32(huge[24+16+len(frames(3)[0].Data)+8:], 1<<31)
	packedCut := pack(t, testkit.Pcap(1, frames(400)...))
	packedCut = packedCut[:len(packedCut)-8]
	packedSum := pack(t, pcap)
	packedSum[len(packedSum)-6] ^= 1
	block := func(total uint32) []byte {
		var n ng
		n.section(binary.LittleEndian)
		n.iface(1, 0)
		n.packet(0, 1, 1, []byte("x"))
		n.Write(n.u32(9))
		n.Write(n.u32(total))
		n.Write(make([]byte, 64))
		return n.Bytes()
	}
	var strange ng
	strange.section(binary.BigEndian)
	strange.packet(3, 1, 1, []byte("x"))
	strange.packet(3, 1, 1, []byte("y"))
	strange.iface(1, 0, strange.option(9, []byte{127}))
	strange.packet(0, 1, 1, []byte("z"))
	for _, c := range []struct {
		name     string
		data     []byte
		packets  int
		warnings []string
	}{
		{"length", huge, 1, []string{"a record claims 2147483648 bytes at byte "}},
		{"gzip cut", packedCut, 400, []string{"ends in the middle"}},
		{"gzip checksum", packedSum, 3, []string{"checksum"}},
		{"block too short", block(8), 1, []string{"a block claims 8 bytes"}},
		{"block that closes otherwise", block(16), 1, []string{"a block of 16 bytes closes as one of 0"}},
		{"block too long", block(1 << 31), 1, []string{"ends in the middle"}},
		{"no such interface, no such time unit", strange.Bytes(), 1, []string{"interface 3, which was not described", "if_tsresol"}},
	} {
		f, err := OpenFiles([]string{write(t, "damaged", c.data), write(t, "next", pcap)})
		if err != nil {
			t.Fatal(err)
		}
		if got := len(readAll(t, f)); got != c.packets+3 {
			t.Errorf("%s: %d packets, want %d, and 3 of the next file", c.name, got, c.packets)
		}
		w := f.Warnings()
		if len(w) != len(c.warnings) {
			t.Errorf("%s: Warnings() = %q, want %q", c.name, w, c.warnings)
			continue
		}
		for i := range w {
			if !strings.Contains(w[i], c.warnings[i]) || !strings.Contains(w[i], "damaged") {
				t.Errorf("%s: warning %q, want the file and %q", c.name, w[i], c.warnings[i])
			}
		}
	}
}

// A frame longer than the buffer is cut to it, and the next is found.
func TestLongFrame(t *testing.T) {
	long := testkit.Frame{Time: 1, Data: bytes.Repeat([]byte{'x'}, 3<<20)}
	f, err := OpenFile(write(t, "long", testkit.Pcap(1, long, testkit.Frame{Time: 2, Data: []byte("next")})))
	if err != nil {
		t.Fatal(err)
	}
	got := readAll(t, f)
	if len(got) != 2 || len(got[0].Data) != maxFrame || got[0].Length != 3<<20 || string(got[1].Data) != "next" {
		t.Fatalf("packets of %d bytes, want one cut to %d and one of 4", len(got), maxFrame)
	}
	if s := f.Stats(); s.Truncated != 1 {
		t.Errorf("Stats() = %+v, want one truncated", s)
	}
}

func TestFileClose(t *testing.T) {
	f, err := OpenFile(write(t, "x", testkit.Pcap(1, frames(2000)...)))
	if err != nil {
		t.Fatal(err)
	}
	var p [32]Packet
	if _, err := f.Next(p[:]); err != nil {
		t.Fatal(err)
	}
	f.Close()
	f.Close()
	if _, err = f.Next(p[:]); err != io.EOF {
		t.Errorf("Next after Close = %v, want EOF", err)
	}
}

func TestFileAllocations(t *testing.T) {
	for name, data := range map[string][]byte{"pcap": testkit.Pcap(1, frames(5000)...), "gzip": pack(t, testkit.Pcap(1, frames(5000)...))} {
		f, err := OpenFile(write(t, name, data))
		if err != nil {
			t.Fatal(err)
		}
		var p [1]Packet
		if got := testing.AllocsPerRun(4000, func() {
			if _, err := f.Next(p[:]); err != nil {
				t.Fatal(err)
			}
		}); got != 0 {
			t.Errorf("%s: %v allocations a packet, want 0", name, got)
		}
	}
}

// FuzzFile reads any bytes as a file: no panic, no packet longer than the
// file, and an end.
func FuzzFile(f *testing.F) {
	f.Add(testkit.Pcap(1, frames(3)...))
	f.Add(classic(binary.BigEndian, magicModified, 2, 1))
	data, _ := pcapngSample()
	f.Add(data)
	f.Add(pack(f, data))
	path := filepath.Join(f.TempDir(), "capture")
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		source, err := OpenFile(path)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("OpenFile = %v, want an *Error", err)
			}
			return
		}
		// Once many at a time, once one by one.
		packed := len(data) > 1 && data[0] == 0x1f
		var before []Packet
		for _, most := range []int{32, 1} {
			if most == 1 {
				if source, err = OpenFile(path); err != nil {
					t.Fatal(err)
				}
			}
			ps, got := make([]Packet, most), []Packet(nil)
			for {
				k, err := source.Next(ps)
				if err == io.EOF {
					break
				} else if err != nil {
					t.Fatal(err)
				}
				for _, p := range ps[:k] {
					p.Data = bytes.Clone(p.Data)
					got = append(got, p)
					if n := len(got); p.Number != uint64(n) || p.Length < len(p.Data) || !packed && len(p.Data) > len(data) {
						t.Fatalf("packet %d: number %d, %d bytes of %d", n, p.Number, len(p.Data), p.Length)
					}
				}
				if packed && len(got) > 10000 {
					source.Close()
				}
			}
			if len(source.Warnings()) > maxWarnings+1 {
				t.Fatal("too many warnings")
			}
			if most == 1 && len(got) <= 10000 && !slices.EqualFunc(got, before, samePacket) {
				t.Fatalf("%d packets many at a time, %d one by one, or others", len(before), len(got))
			}
			before = got
		}
	})
}

// BenchmarkFile reads a classic capture of full frames.
func BenchmarkFile(b *testing.B) {
	c := testkit.NewConversation("192.0.2.1:40000", "192.0.2.2:80")
	c.ToClient(strings.Repeat("x", 30000*c.MSS))
	data := testkit.Pcap(1, c.Frames...)
	path := write(b, "capture", data)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		f, err := OpenFile(path)
		if err != nil {
			b.Fatal(err)
		}
		var ps [32]Packet
		for err == nil {
			_, err = f.Next(ps[:])
		}
	}
	b.ReportMetric(float64(len(c.Frames))*float64(b.N)/b.Elapsed().Seconds(), "packets/s")
}
