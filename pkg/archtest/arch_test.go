package archtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/httpctl/httpctl/"

// pkg is what `go list -json` says of a package. Test files are not asked:
// a test may look where it wants.
type pkg struct {
	ImportPath string
	Dir        string
	GoFiles    []string
	CgoFiles   []string
	Imports    []string
}

func list(t *testing.T) []pkg {
	t.Helper()
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("archtest: no go command in PATH")
	}
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Dir,GoFiles,CgoFiles,Imports", module+"...")
	cmd.Dir = "../.."
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	if err := cmd.Run(); err != nil {
		t.Fatalf("go list: %v\n%s", err, problems.Bytes())
	}
	var pkgs []pkg
	for d := json.NewDecoder(&out); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		p.ImportPath = strings.TrimPrefix(p.ImportPath, module)
		pkgs = append(pkgs, p)
	}
	if len(pkgs) < 10 {
		t.Fatalf("go list found %d packages: this test looks in the wrong place", len(pkgs))
	}
	return pkgs
}

// inside reports whether path is one of the folders or below it.
func inside(path string, folders ...string) bool {
	return slices.ContainsFunc(folders, func(f string) bool { return path == f || strings.HasPrefix(path, f+"/") })
}

// own cuts the module's path off an import; ok is false for an import from elsewhere.
func own(path string) (string, bool) { return strings.CutPrefix(path, module) }

func standard(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return !strings.Contains(first, ".")
}

// deciding rooms are functions of what they are given, so that they can be
// fuzzed, replayed and tested without a machine around them.
var deciding = []string{"agent/http1", "agent/pairing", "agent/inspect", "agent/privacy", "aggregator/baseline", "aggregator/alert", "pkg/match", "pkg/view", "cmd/httpctl/live", "cmd/httpctl/report"}

// rules say which imports are wrong, and why.
var rules = []struct {
	name, because string
	wrong         func(from, to string) bool
}{
	{
		"pkg/exchange imports the standard library only",
		"plug-ins bind to it: whatever it imports, every plug-in has to have in the same version",
		func(from, to string) bool { return from == "pkg/exchange" && !standard(to) },
	},
	{
		"agent and aggregator never import each other",
		"they are two programs that speak through proto and pkg/bucket; an import would be a second contract beside those",
		func(from, to string) bool {
			to, ok := own(to)
			return ok && (inside(from, "agent") && inside(to, "aggregator") || inside(from, "aggregator") && inside(to, "agent"))
		},
	},
	{
		"pkg imports no room and no program",
		"arrows point one way, cmd -> app -> rooms -> pkg: what all share must not depend on one of them",
		func(from, to string) bool {
			to, ok := own(to)
			return ok && inside(from, "pkg") && inside(to, "agent", "aggregator", "cmd")
		},
	},
	{
		"rooms import neither an app nor a program",
		"only app knows every room; a room that knows app can't be tested alone",
		func(from, to string) bool {
			to, ok := own(to)
			return ok && inside(from, "agent", "aggregator") && !inside(from, "agent/app", "aggregator/app") &&
				inside(to, "agent/app", "aggregator/app", "cmd")
		},
	},
	{
		"an app imports no program",
		"it can be started inside a test; a main only parses flags and turns signals into a context",
		func(from, to string) bool {
			to, ok := own(to)
			return ok && inside(from, "agent/app", "aggregator/app") && inside(to, "cmd")
		},
	},
	{
		"programs import the apps, never their rooms",
		"the wiring is in one place, so that all programs that hold an agent hold the same one",
		func(from, to string) bool {
			to, ok := own(to)
			return ok && inside(from, "cmd") && inside(to, "agent", "aggregator") && !inside(to, "agent/app", "aggregator/app")
		},
	},
	{
		"generated types stop at uplink, ingest, query, tail, enroll, the client, and the questions and answers of both readers",
		"the wire may change without the rooms, and a room's values keep the types that fit it (app registers the services)",
		func(from, to string) bool {
			to, ok := own(to)
			return ok && inside(to, "proto") && !inside(from, "proto", "agent/uplink", "agent/enroll", "aggregator/ingest", "aggregator/enroll",
				"aggregator/query", "aggregator/tail", "aggregator/admin", "aggregator/app", "cmd/httpctl/client", "pkg/answer", "pkg/ask", "pkg/testkit")
		},
	},
	{
		"rooms that decide do no I/O",
		"parsers are fuzzed, rules are replayed through history, views are compared with goldens",
		func(from, to string) bool {
			return inside(from, deciding...) && (inside(to, "os", "net", "io/fs", "io/ioutil", "log", "syscall") && to != "net/netip" ||
				inside(to, "google.golang.org/grpc", "go.etcd.io/bbolt", "golang.org/x/sys"))
		},
	},
	{
		"no libpcap and no google/gopacket",
		"the one needs cgo and a library on the host; the other is unmaintained, with remote panics in its decoders",
		func(from, to string) bool {
			return inside(to, "github.com/gopacket/gopacket/pcap", "github.com/google/gopacket")
		},
	},
	{
		"gopacket's reassembly is not used",
		"its memory is unlimited by default and its stream pool only grows",
		func(from, to string) bool {
			return inside(to, "github.com/gopacket/gopacket/reassembly", "github.com/gopacket/gopacket/tcpassembly")
		},
	},
	{
		"no cgo",
		"each program is one static binary",
		func(from, to string) bool { return to == "C" },
	},
}

func TestArrows(t *testing.T) {
	pkgs := list(t)
	for _, r := range rules {
		for _, p := range pkgs {
			for _, to := range p.Imports {
				if r.wrong(p.ImportPath, to) {
					t.Errorf("%s imports %s; rule: %s, because %s", p.ImportPath, to, r.name, r.because)
				}
			}
			if r.name == "no cgo" && len(p.CgoFiles) > 0 {
				t.Errorf("%s has %v; rule: %s, because %s", p.ImportPath, p.CgoFiles, r.name, r.because)
			}
		}
	}
}

// TestRulesCanFail gives each rule an import that it must refuse and one that
// it must let pass, so that a typing error in a rule is seen.
func TestRulesCanFail(t *testing.T) {
	for i, c := range []struct{ from, bad, good string }{
		{"pkg/exchange", module + "pkg/bucket", "net/netip"},
		{"agent/uplink", module + "aggregator/store", module + "pkg/bucket"},
		{"pkg/bucket", module + "agent/spool", module + "pkg/sketch"},
		{"agent/spool", module + "agent/app", module + "pkg/bucket"},
		{"agent/app", module + "cmd/httpctl/live", module + "agent/spool"},
		{"cmd/httpctl/command", module + "agent/capture", module + "agent/app"},
		{"aggregator/store", module + "proto/httpctl/v1", module + "pkg/bucket"},
		{"aggregator/alert", "os", "net/netip"},
		{"agent/capture", "github.com/gopacket/gopacket/pcap", "github.com/gopacket/gopacket/pcapgo"},
		{"agent/stream", "github.com/gopacket/gopacket/reassembly", "github.com/gopacket/gopacket/layers"},
		{"agent/stream", "C", "unsafe"},
	} {
		if !rules[i].wrong(c.from, c.bad) {
			t.Errorf("%q lets %s import %s", rules[i].name, c.from, c.bad)
		}
		for _, r := range rules {
			if r.wrong(c.from, c.good) {
				t.Errorf("%q refuses that %s imports %s", r.name, c.from, c.good)
			}
		}
	}
}

// clocks are the functions of package time that read or wait for a clock.
var clocks = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker"}

// TestNoClock: packet code runs on packet time, rules on event time.
func TestNoClock(t *testing.T) {
	clockless := append([]string{"agent/decode", "agent/stream", "agent/accumulate",
		"pkg/exchange", "pkg/stat", "pkg/bucket", "pkg/sketch"}, deciding...)
	checked := 0
	for _, p := range list(t) {
		if !inside(p.ImportPath, clockless...) {
			continue
		}
		checked++
		for _, name := range p.GoFiles {
			set := token.NewFileSet()
			file, err := parser.ParseFile(set, filepath.Join(p.Dir, name), nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(file, func(n ast.Node) bool {
				s, ok := n.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				if x, ok := s.X.(*ast.Ident); ok && x.Name == "time" && x.Obj == nil && slices.Contains(clocks, s.Sel.Name) {
					t.Errorf("%s calls time.%s: %s reads no clock, so that a replay gives what the first run gave",
						set.Position(n.Pos()), s.Sel.Name, p.ImportPath)
				}
				return true
			})
		}
	}
	if checked < 5 {
		t.Fatalf("only %d packages were checked", checked)
	}
}
