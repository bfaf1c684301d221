package stream

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/httpctl/httpctl/agent/capture"
	"github.com/httpctl/httpctl/agent/decode"
	"github.com/httpctl/httpctl/pkg/exchange"
	"github.com/httpctl/httpctl/pkg/testkit"
)

// TestSharedCaptures: on real traffic nothing is strange, every byte captured is
// delivered once or known to be late, and no connection is left.
func TestSharedCaptures(t *testing.T) {
	dir := testkit.SharedCaptures(t)
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		name := file.Name()
		if !strings.HasSuffix(name, ".pcap") && !strings.HasSuffix(name, ".pcapng") {
			continue
		}
		t.Run(name, func(t *testing.T) {
			source, err := capture.OpenFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			defer source.Close()
			var counters exchange.Counters
			d := decode.New(decode.DefaultConfig(), &counters)
			rec := &recorder{t: t, quiet: true}
			tab := New(DefaultConfig(), rec, &counters)
			var p [1]capture.Packet
			var s decode.Segment
			var captured uint64
			for {
				if _, err := source.Next(p[:]); err != nil {
					break
				}
				for ok := d.Decode(&p[0], &s); ok; ok = d.More(&s) {
					captured += uint64(len(s.Payload))
					tab.Segment(&s)
				}
			}
			tab.Drain(p[0].Time)
			var delivered uint64
			for id, k := range rec.conns {
				delivered += uint64(len(k.data[0]) + len(k.data[1]))
				if !k.closed {
					t.Errorf("connection %d is not closed", id)
				}
			}
			st := tab.Stats()
			if known := delivered + st.DuplicateBytes + st.LateBytes; known < captured {
				t.Errorf("%d bytes captured, %d delivered, %d duplicate, %d late", captured, delivered, st.DuplicateBytes, st.LateBytes)
			}
			if st.Strange != 0 || st.Guesses != 0 || st.Held != 0 || st.Fault != "" || tab.used != 0 {
				t.Errorf("%+v", st)
			}
			t.Logf("%d connections, %d of %d bytes, %d gaps of %d, late %d, duplicate %d", len(rec.conns), delivered, captured,
				counters[exchange.Gaps], counters[exchange.GapBytes], st.LateBytes, st.DuplicateBytes)
		})
	}
}
