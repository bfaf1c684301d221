package capture

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/httpctl/httpctl/pkg/testkit"
)

// numbered makes n frames a millisecond apart, which say which they are. Together they do not fit into a window.
func numbered(n int) []testkit.Frame {
	all := make([]testkit.Frame, n)
	for i := range all {
		data := bytes.Repeat([]byte{byte(i)}, 2000+i%7)
		binary.BigEndian.PutUint32(data, uint32(i))
		all[i] = testkit.Frame{Time: testkit.Start.UnixNano() + int64(i)*1e6, Data: data}
	}
	return all
}

// readNumbered reads the files in batches, and says in which order the frames came. It fails if what is lent changes
// before it is given back, or more than most files are open at once.
func readNumbered(t *testing.T, most int, paths ...string) (order []int, warnings []string) {
	t.Helper()
	f, err := OpenFiles(paths)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var ps [32]Packet
	for {
		n, err := f.Next(ps[:])
		if err == io.EOF {
			break
		}
		if err != nil || n == 0 {
			t.Fatalf("Next() = %d, %v", n, err)
		}
		for _, p := range ps[:n] {
			i := int(binary.BigEndian.Uint32(p.Data))
			if len(p.Data) != 2000+i%7 || slices.ContainsFunc(p.Data[4:], func(c byte) bool { return c != byte(i) }) || p.Time != testkit.Start.UnixNano()+int64(i)*1e6 {
				t.Fatalf("frame %d is not as it was: %d bytes, time %d", i, len(p.Data), p.Time)
			}
			if order = append(order, i); p.Number != uint64(len(order)) {
				t.Fatalf("packet %d has number %d", len(order), p.Number)
			}
		}
		if len(f.merge.open) > most {
			t.Fatalf("%d files are open, want at most %d", len(f.merge.open), most)
		}
	}
	if read, total := f.Progress(); read != total {
		t.Errorf("Progress() = %d, %d at the end", read, total)
	}
	return order, f.Warnings()
}

// dealt gives frame i to part of(i), in files named so that their names are in the other order.
func dealt(t *testing.T, all []testkit.Frame, parts int, of func(i int) int) (paths []string) {
	hands := make([][]testkit.Frame, parts)
	for i, f := range all {
		hands[of(i)] = append(hands[of(i)], f)
	}
	for i, hand := range slices.Backward(hands) {
		data := testkit.Pcap(1, hand...)
		if i%2 == 1 {
			data = pack(t, data)
		}
		paths = append(paths, write(t, fmt.Sprintf("part%d", i), data))
	}
	return paths
}

// Several files are one capture, whatever order they are named in.
func TestSeveralFiles(t *testing.T) {
	const n = 3000
	all := numbered(n)
	for _, c := range []struct {
		name        string
		parts, most int
		of          func(i int) int
	}{
		{"parts one after another", 12, 2, func(i int) int { return i * 12 / n }},
		{"both ports of a tap", 2, 2, func(i int) int { return i % 2 }},
		{"three taps, in bursts", 3, 3, func(i int) int { return i / 40 % 3 }},
		{"parts of two taps", 6, 4, func(i int) int { return i*3/n*2 + i%2 }},
	} {
		order, warnings := readNumbered(t, c.most, dealt(t, all, c.parts, c.of)...)
		if len(order) != n || !slices.IsSorted(order) || len(warnings) > 0 {
			t.Errorf("%s: %d packets, want %d in order; warnings %q", c.name, len(order), n, warnings)
		}
	}
}

// Of more files at a time than can be read at once some are read later, which is told.
func TestTooManyFiles(t *testing.T) {
	const n, parts = 400, maxMerged + 8
	order, warnings := readNumbered(t, maxMerged, dealt(t, numbered(n), parts, func(i int) int { return i % parts })...)
	if slices.Sort(order); len(order) != n || order[n-1] != n-1 {
		t.Errorf("%d packets, want %d", len(order), n)
	}
	if len(warnings) != 1 || !strings.Contains(warnings[0], "mergecap") {
		t.Errorf("Warnings() = %q", warnings)
	}
}

// A file without packets, one that is damaged and one that is named twice do no harm to the others.
func TestMergedDamage(t *testing.T) {
	all := numbered(900)
	cut := testkit.Pcap(1, all[300:600]...)
	paths := []string{
		write(t, "last", testkit.Pcap(1, all[600:]...)), write(t, "cut", cut[:len(cut)-1000]), write(t, "none", testkit.Pcap(1)), write(t, "first", testkit.Pcap(1, all[:300]...)),
	}
	order, warnings := readNumbered(t, 2, paths...)
	if len(order) != 899 || !slices.IsSorted(order) {
		t.Errorf("%d packets, want 899 in order", len(order))
	}
	if len(warnings) != 1 || !strings.HasPrefix(warnings[0], paths[1]) || !strings.Contains(warnings[0], "after packet 299") {
		t.Errorf("Warnings() = %q", warnings)
	}
	if order, _ = readNumbered(t, 2, paths[3], paths[3]); len(order) != 600 || order[1] != 0 || !slices.IsSorted(order) {
		t.Errorf("named twice: %d packets, want each twice in a row", len(order))
	}
}

// A file that cannot be opened when its turn has come ends the reading, behind the packets before it.
func TestMergedFileGone(t *testing.T) {
	all := numbered(20)
	paths := []string{write(t, "first", testkit.Pcap(1, slices.Concat(all[:10], all[15:])...)), write(t, "second", testkit.Pcap(1, all[10:15]...))}
	f, err := OpenFiles(paths)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := os.Remove(paths[1]); err != nil {
		t.Fatal(err)
	}
	packets := 0
	for {
		var ps [32]Packet
		n, err := f.Next(ps[:])
		packets += n
		if err == nil {
			continue
		}
		if err == io.EOF || !strings.Contains(err.Error(), paths[1]) || packets != 10 {
			t.Errorf("Next() = %v after %d packets, want an error that names %s after 10", err, packets, paths[1])
		}
		return
	}
}
