package capture

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/httpctl/httpctl/pkg/testkit"
)

// A file is not read to its end to find out when it begins: one without packets may unpack to any size.
func TestLookEnds(t *testing.T) {
	var n ng
	n.section(binary.LittleEndian)
	n.iface(1, 0)
	var packed bytes.Buffer
	z, _ := gzip.NewWriterLevel(&packed, gzip.BestSpeed)
	z.Write(n.Bytes())
	block := append(append(n.u32(0xbad), n.u32(1<<20)...), make([]byte, 1<<20-8)...)
	copy(block[1<<20-4:], n.u32(1<<20))
	for range 4 * maxLook >> 20 {
		z.Write(block)
	}
	var late ng
	late.order = n.order
	late.packet(0, uint64(testkit.Start.UnixMicro()), 4, []byte("late"))
	z.Write(late.Bytes())
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	path := write(t, "late", packed.Bytes())
	f := &Files{warned: map[string]bool{}}
	if _, err := f.look(path); err != nil || f.window.offset < maxLook || f.window.offset > maxLook+2<<20 {
		t.Errorf("look has read %d bytes, %v, want %d and a little", f.window.offset, err, maxLook)
	}

	// What it has comes in its place all the same.
	frame := func(us int64, text string) []byte {
		return testkit.Pcap(1, testkit.Frame{Time: testkit.Start.UnixNano() + us*1000, Data: []byte(text)})
	}
	f, err := OpenFiles([]string{write(t, "before", frame(-5, "before")), path, write(t, "behind", frame(5, "behind"))})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var got []string
	var ps [4]Packet
	for {
		n, err := f.Next(ps[:])
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range ps[:n] {
			got = append(got, string(p.Data))
		}
	}
	if want := "before late behind"; strings.Join(got, " ") != want {
		t.Errorf("packets %q, want %q", got, want)
	}
}

// Files that are read at once take a window each, packed or not.
func TestPackedFilesAtOnce(t *testing.T) {
	f, err := OpenFiles(dealt(t, numbered(16*maxMerged), 2*maxMerged, func(i int) int { return i % (2 * maxMerged) }))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var ps [8]Packet
	for len(f.merge.open) < maxMerged {
		if _, err := f.Next(ps[:]); err != nil {
			t.Fatal(err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if took := int64(after.HeapAlloc) - int64(before.HeapAlloc); took > maxMerged*(windowSize+200<<10) {
		t.Errorf("%d files, half of them packed, took %d bytes", maxMerged, took)
	}
	runtime.KeepAlive(f)
}

// Files of the usual magic numbers whose records have longer headers.
func TestRecordHeaders(t *testing.T) {
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		for _, c := range []struct {
			name  string
			magic uint32
			more  int
		}{
			{"usual", magicMicro, 0}, {"nanoseconds", magicNano, 0}, {"Nokia", magicMicro, 4}, {"Red Hat 6.1", magicMicro, 8},
			{"Kuznetzov's", magicModified, 8}, {"SuSE 6.3", magicModified, 12},
		} {
			for frames := range 12 {
				b := make([]byte, 24)
				order.PutUint32(b, c.magic)
				order.PutUint16(b[4:], 2)
				order.PutUint16(b[6:], 4)
				order.PutUint32(b[20:], 1)
				want := []string{}
				for i := range frames {
					text := strings.Repeat(string(rune('a'+i)), 40*(i%5)+i)
					record := make([]byte, 16+c.more)
					order.PutUint32(record, uint32(testkit.Start.Unix()))
					order.PutUint32(record[4:], uint32(i))
					order.PutUint32(record[8:], uint32(len(text)))
					order.PutUint32(record[12:], uint32(len(text)+i))
					for k := range c.more {
						record[16+k] = byte(k) // the interface and the like
					}
					b = append(append(b, record...), text...)
					want = append(want, text)
				}
				if frames == 1 && slices.Contains([]string{"Nokia", "Red Hat 6.1", "SuSE 6.3"}, c.name) {
					continue // one alone could be either
				}
				f, err := OpenFile(write(t, "x", b))
				if err != nil {
					t.Fatal(err)
				}
				got := []string{}
				for _, p := range readAll(t, f) {
					got = append(got, string(p.Data))
				}
				if w := f.Warnings(); !slices.Equal(got, want) || len(w) > 0 {
					t.Errorf("%s, %v: %d frames %q, want %q; warnings %q", c.name, order, frames, got, want, w)
				}
				f.Close()
			}
		}
	}
}

func TestWarningsLeftOut(t *testing.T) {
	f := &Files{warned: map[string]bool{}}
	for i := range maxWarnings + 7 {
		f.warn("file %d: damaged", i)
		f.warn("file 0: damaged")
	}
	w := f.Warnings()
	if len(w) != maxWarnings+1 || w[maxWarnings-1] != fmt.Sprintf("file %d: damaged", maxWarnings-1) || !strings.HasPrefix(w[maxWarnings], "7 more warnings") {
		t.Errorf("%d warnings, the last two %q", len(w), w[len(w)-2:])
	}
}
