package decode

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/httpctl/httpctl/agent/capture"
	"github.com/httpctl/httpctl/pkg/exchange"
	"github.com/httpctl/httpctl/pkg/testkit"
)

// Every shared capture gives as many segments with payload as tshark sees.
func TestSharedCaptures(t *testing.T) {
	dir := testkit.SharedCaptures(t)
	file, err := os.Open("testdata/segments.tsv")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	rows := bufio.NewScanner(file)
	n := 0
	for rows.Scan() {
		n++
		name, counts, _ := strings.Cut(rows.Text(), "\t")
		t.Run(name, func(t *testing.T) {
			var wantSegments, wantBytes int
			if _, err := fmt.Sscan(counts, &wantSegments, &wantBytes); err != nil {
				t.Fatal(err)
			}
			source, err := capture.OpenFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			defer source.Close()
			var n exchange.Counters
			d := New(DefaultConfig(), &n)
			segments, size := 0, 0
			var p [1]capture.Packet
			var s Segment
			for {
				_, err := source.Next(p[:])
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				for ok := d.Decode(&p[0], &s); ok; ok = d.More(&s) {
					if s.Length > 0 {
						segments++
						size += s.Length
					}
				}
			}
			d.Drain()
			if segments != wantSegments || size != wantBytes {
				t.Errorf("%d segments with %d bytes, want %d with %d; malformed %d, undecoded %d, fragments dropped %d, truncated %d", segments, size, wantSegments, wantBytes,
					n[exchange.MalformedPackets], n[exchange.UndecodedPackets], n[exchange.FragmentsDropped], n[exchange.TruncatedPackets])
			} else if n[exchange.MalformedPackets]+n[exchange.UndecodedPackets]+n[exchange.FragmentsDropped] > 0 {
				t.Logf("malformed %d, undecoded %d, fragments dropped %d", n[exchange.MalformedPackets], n[exchange.UndecodedPackets], n[exchange.FragmentsDropped])
			}
		})
	}
	if n < 63 {
		t.Errorf("%d captures compared, want 63 or more", n)
	}
}
