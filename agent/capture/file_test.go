package capture

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/pcapgo"
	"github.com/httpctl/httpctl/pkg/testkit"
)

// reference reads packets with gopacket's readers.
func reference(t *testing.T, data []byte) (out []Packet) {
	t.Helper()
	var r interface {
		ReadPacketData() ([]byte, gopacket.CaptureInfo, error)
	}
	var err error
	var link func(gopacket.CaptureInfo) uint16
	if isPcapng(data) {
		ng, ngErr := pcapgo.NewNgReader(bufio.NewReader(bytes.NewReader(data)), pcapgo.NgReaderOptions{WantMixedLinkType: true, SkipUnknownVersion: true})
		r, err = ng, ngErr
		link = func(ci gopacket.CaptureInfo) uint16 {
			i, _ := ng.Interface(ci.InterfaceIndex)
			return uint16(i.LinkType)
		}
	} else {
		classic, cErr := pcapgo.NewReader(bytes.NewReader(data))
		r, err = classic, cErr
		link = func(gopacket.CaptureInfo) uint16 { return uint16(classic.LinkType()) }
	}
	if err != nil {
		t.Fatal(err)
	}
	for {
		b, ci, err := r.ReadPacketData()
		if err != nil {
			return out
		}
		out = append(out, Packet{Number: uint64(len(out) + 1), Time: ci.Timestamp.UnixNano(), Data: b, Length: ci.Length, Link: link(ci), Interface: ci.InterfaceIndex})
	}
}

// readAll reads a source to its end, copying what it borrows: all that a call gave, after the call.
func readAll(t testing.TB, s Source) (out []Packet) {
	t.Helper()
	var ps [32]Packet
	for {
		n, err := s.Next(ps[:])
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatalf("Next after %d packets: %v", len(out), err)
		}
		for _, p := range ps[:n] {
			p.Data = bytes.Clone(p.Data)
			out = append(out, p)
		}
	}
}

func samePacket(a, b Packet) bool {
	return a.Number == b.Number && a.Time == b.Time && a.Length == b.Length && a.Link == b.Link &&
		a.Interface == b.Interface && bytes.Equal(a.Data, b.Data)
}

// Every shared capture opens and gives the packets that gopacket's readers give.
func TestSharedCaptures(t *testing.T) {
	dir := testkit.SharedCaptures(t)
	paths, _ := filepath.Glob(filepath.Join(dir, "*.pcap*"))
	if len(paths) < 63 {
		t.Fatalf("%d captures in %s, want 63 or more", len(paths), dir)
	}
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			f, err := OpenFile(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			got, want := readAll(t, f), reference(t, data)
			if len(got) != len(want) {
				t.Errorf("%d packets, gopacket reads %d; warnings %q", len(got), len(want), f.Warnings())
			}
			for i := range min(len(got), len(want)) {
				if !samePacket(got[i], want[i]) {
					t.Fatalf("packet %d = %+v, gopacket reads %+v", i+1, got[i], want[i])
				}
			}
			if s := f.Stats(); s.Packets != uint64(len(got)) {
				t.Errorf("Stats().Packets = %d, want %d", s.Packets, len(got))
			}
			if read, total := f.Progress(); len(f.Warnings()) == 0 && (read != total || total != int64(len(data))) {
				t.Errorf("Progress() = %d, %d, want the size %d twice", read, total, len(data))
			}
		})
	}
}

func write(t testing.TB, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func pack(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write(data)
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func frames(n int) []testkit.Frame {
	c := testkit.NewConversation("192.0.2.1:40000", "192.0.2.2:80")
	for len(c.Frames) < n {
		c.ToServer(strings.Repeat("x", 1+len(c.Frames)%1000))
	}
	return c.Frames
}
