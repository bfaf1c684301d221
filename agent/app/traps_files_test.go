package app

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/httpctl/httpctl/agent/capture"
	"github.com/httpctl/httpctl/pkg/exchange"
	"github.com/httpctl/httpctl/pkg/testkit"
)

var update = flag.Bool("update", false, "write the captures of the traps anew")

const trapFiles = "testdata/traps"

// trapParts are the kinds of traps, as the README groups them.
var trapParts = [...]string{
	1: "Loss", 2: "What TCP does", 3: "Bodies that need the request", 4: "Pairing",
	5: "Grammar", 6: "What only resembles HTTP", 7: "What packets are in",
}

// file is the name of the trap's capture.
func (tr *trap) file() string {
	var b strings.Builder
	for _, c := range strings.ToLower(tr.name) {
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
			b.WriteRune(c)
		case b.Len() > 0 && !strings.HasSuffix(b.String(), "-"):
			b.WriteByte('-')
		}
	}
	return b.String() + ".pcap"
}

// pcap is the content of the trap's capture.
func pcap(frames []frame) []byte {
	out := make([]testkit.Frame, len(frames))
	for i, f := range frames {
		out[i] = testkit.Frame{Time: testkit.Start.UnixNano() + int64(i)*1e6, Data: f.Data}
	}
	return testkit.Pcap(uint32(linkType(frames[0].link)), out...)
}

// readFile reads the trap's capture, and wants the frames that the builder makes in it.
func (tr *trap) readFile(t *testing.T, frames []frame) *seen {
	t.Helper()
	path := filepath.Join(trapFiles, tr.file())
	if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, pcap(frames)) {
		t.Fatalf("%s is not what its builder makes (%v): go test ./agent/app -run Traps -update", path, err)
	}
	source, err := capture.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	local, err := newLocalAddresses(nil)
	if err != nil {
		t.Fatal(err)
	}
	s := &seen{}
	p := newPipeline(source, DefaultConfig(), 1024, s, local)
	if err := p.run(); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	s.count, s.ignored = *p.counters, p.table.Stats().IgnoredBytes
	return s
}

// writeTraps wants the folder to hold a capture of each trap, what is said of them, and nothing
// else; -update writes it.
func writeTraps(t *testing.T) {
	t.Helper()
	files := map[string][]byte{"README.md": []byte(trapsReadme()), "expected.txt": []byte(trapsExpected())}
	for _, tr := range trapsWithFiles() {
		if _, twice := files[tr.file()]; twice {
			t.Fatalf("two traps of the name %s", tr.file())
		}
		files[tr.file()] = pcap(tr.frames(0))
	}
	if *update {
		if err := os.RemoveAll(trapFiles); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(trapFiles, 0o755); err != nil {
			t.Fatal(err)
		}
		for name, b := range files {
			if err := os.WriteFile(filepath.Join(trapFiles, name), b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	there, err := os.ReadDir(trapFiles)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range there {
		want, known := files[e.Name()]
		delete(files, e.Name())
		if b, err := os.ReadFile(filepath.Join(trapFiles, e.Name())); err != nil || !known || !bytes.Equal(b, want) {
			t.Errorf("%s is not as the traps are (%v): go test ./agent/app -run Traps -update", e.Name(), err)
		}
	}
	for name := range files {
		t.Errorf("%s is missing: go test ./agent/app -run Traps -update", name)
	}
}

func trapsWithFiles() []*trap { return append(allTraps(), &ssdpTrap) }

// trapsReadme says of each capture what it is a trap for.
func trapsReadme() string {
	var b strings.Builder
	b.WriteString(`# Traps

Captures in which an observer of HTTP is easily misled, one each. Read one with ` + "`httpctl read FILE`" + `, or with ` + "`--exchanges`" + ` for what
answers what; ` + "`expected.txt`" + ` has what is right. All are made by the packet builder of ` + "`pkg/testkit`" + ` from the tables in
` + "`traps_table_test.go` and `traps_packets_test.go`" + `, a message a segment, so that every byte of them is known:
` + "`go test ./agent/app -run Traps -update`" + ` writes this folder, and the test fails where it is not what the tables say. Captures of real programs are in
` + "`test/testdata/captures`, and `TestTrapsRecorded`" + ` mutates them in the same ways.

` + "`TestTraps`" + ` reads each as it is, in segments of 23 bytes, and as a worse capture shows it: `)
	names := slices.Sorted(maps.Keys(mutations))
	for i, m := range names {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(string(m))
	}
	b.WriteString(`.
What shows every byte must change nothing; what does not is judged by the rule in ` + "`traps_rule_test.go`" + `, which knows what was said
and which packets are missing. Where a mutation has no meaning, the list says so.
`)
	for of, title := range trapParts {
		if of == 0 {
			continue
		}
		fmt.Fprintf(&b, "\n## %s\n\n", title)
		for _, tr := range trapsWithFiles() {
			if tr.of != of {
				continue
			}
			fmt.Fprintf(&b, "- `%s`: %s.", tr.file(), tr.what)
			for _, m := range names {
				if why := tr.not[m]; why != "" {
					fmt.Fprintf(&b, " Not %s: %s.", m, why)
				}
			}
			b.WriteByte('\n')
		}
	}
	return b.String()
}

// trapsExpected lists the exchanges of each capture and what is counted besides packets.
func trapsExpected() string {
	var b strings.Builder
	b.WriteString("# Of each capture its exchanges: method, target, Host, content/wire bytes = status, content/wire bytes, end;\n# then what is counted.\n")
	for _, tr := range trapsWithFiles() {
		fmt.Fprintf(&b, "\n%s\n", tr.file())
		for _, l := range tr.want {
			fmt.Fprintf(&b, "\t%s\n", strings.Trim(fmt.Sprintf("%q", l), `"`))
		}
		s := seen{count: tr.counters()}
		fmt.Fprintf(&b, "\t%s\n", strings.TrimSuffix(s.counters(), ", "))
	}
	return b.String()
}

// TestTrapFiles: what the README says of each is said of a trap that is there.
func TestTrapFiles(t *testing.T) {
	var total int64
	for _, tr := range trapsWithFiles() {
		if tr.what == "" || tr.of == 0 {
			t.Errorf("%s: nothing says what it is a trap for", tr.name)
		}
		for m := range tr.not {
			if mutations[m] == nil {
				t.Errorf("%s: there is no mutation %q", tr.name, m)
			}
		}
		for c := range tr.count {
			if c >= exchange.NumCounters {
				t.Errorf("%s: counter %d", tr.name, c)
			}
		}
		if info, err := os.Stat(filepath.Join(trapFiles, tr.file())); err == nil {
			total += info.Size()
		}
	}
	if total > 400<<10 {
		t.Errorf("the captures have %d bytes, want at most 400 KiB", total)
	}
}
