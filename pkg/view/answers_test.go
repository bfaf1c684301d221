package view

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/httpctl/httpctl/pkg/exchange"
	"github.com/httpctl/httpctl/pkg/stat"
)

// answer is what a command writes, made of random values.
type answer struct {
	write func(io.Writer, Format) error
	// check compares the forms; nil compares the rows of the one list, whose key in JSON is rows.
	check func(t *testing.T, texts map[Format]string)
	rows  string
}

// answers are the commands that have -o, by the name of their part of docs/json.md. TestEveryCommandIsDocumented
// of httpctl's commands holds those parts against the commands, so that none can be left out here.
var answers = map[string]func(r *rand.Rand) answer{
	"httpctl alerts": func(r *rand.Rand) answer {
		a := random[Alerts](r)
		return answer{rows: "alerts", write: func(w io.Writer, f Format) error { return WriteAlerts(w, f, plain, a) }}
	},
	"httpctl hosts": func(r *rand.Rand) answer {
		hosts := randomHosts(r)
		return answer{rows: "hosts", write: func(w io.Writer, f Format) error { return WriteHosts(w, f, plain, hosts) }}
	},
	"httpctl series": func(r *rand.Rand) answer {
		x := random[Series](r)
		x.Step, x.Loss = "hour", distinct(x.Loss) // whole days are written without a time for people
		for i := range x.Points {
			p := &x.Points[i]
			p.Loss = distinct(p.Loss)
			if p.Outcomes != nil {
				p.Outcomes.Classes = []Count{{"5xx", r.Uint64N(9)}, {"-", r.Uint64N(9)}}
				for k := range p.Outcomes.Histogram {
					p.Outcomes.Histogram[k].UpTo = time.Duration(k + 1)
				}
			}
		}
		return answer{rows: "points", write: func(w io.Writer, f Format) error { return WriteSeries(w, f, plain, x) }}
	},
	"httpctl explain": func(r *rand.Rand) answer {
		x := random[Explanation](r)
		for i := range x.Hosts {
			x.Hosts[i].Loss = distinct(x.Hosts[i].Loss)
		}
		return answer{rows: "hosts", write: func(w io.Writer, f Format) error { return WriteExplanation(w, f, plain, x) }}
	},
	"httpctl top": func(r *rand.Rand) answer {
		list := *random[[]Dimension](r)
		return answer{rows: "dimensions", write: func(w io.Writer, f Format) error { return WriteDimensions(w, f, plain, list) }}
	},
	"httpctl top DIMENSION": func(r *rand.Rand) answer {
		t := randomBuiltin(r)
		return answer{rows: "rows", write: func(w io.Writer, f Format) error { return WriteTop(w, f, plain, t) }}
	},
	"httpctl context": func(r *rand.Rand) answer {
		list := *random[[]Context](r)
		return answer{rows: "contexts", write: func(w io.Writer, f Format) error { return WriteContexts(w, f, plain, list) }}
	},
	"httpctl enroll list": func(r *rand.Rand) answer {
		list := *random[[]Token](r)
		return answer{rows: "tokens", write: func(w io.Writer, f Format) error { return WriteTokens(w, f, plain, list) }}
	},
	"httpctl enroll hosts": func(r *rand.Rand) answer {
		list := *random[[]Certificate](r)
		return answer{rows: "certificates", write: func(w io.Writer, f Format) error { return WriteCertificates(w, f, plain, list) }}
	},
	"httpctl baseline": func(r *rand.Rand) answer {
		b, window := random[Baseline](r), time.Duration(r.Int64N(1e15))
		b.CoveredSeconds %= 1e9 // within what a duration can be
		return answer{check: checkBaseline, write: func(w io.Writer, f Format) error { return WriteBaseline(w, f, plain, b, window) }}
	},
	"httpctl dashboard": func(r *rand.Rand) answer {
		d := randomDashboard(r)
		return answer{check: func(t *testing.T, texts map[Format]string) { checkDashboard(t, d, texts) },
			write: func(w io.Writer, f Format) error { return WriteDashboard(w, f, plain, d) }}
	},
	"httpctl compare": func(r *rand.Rand) answer {
		list, notes := *random[[]*Comparison](r), *random[[]string](r)
		for i, c := range list {
			if c == nil {
				list[i] = random[Comparison](r)
			}
			list[i].Dimension = builtin[r.IntN(len(builtin))]
			list[i].Dimension.Name = fmt.Sprintf("list%d", i)
			for k := range list[i].Rows {
				x := &list[i].Rows[k]
				x.Keys = []string{"a b", "\x1b é", "-"}[:len(list[i].Dimension.Keys)]
				x.Hits, x.Error = x.Hits>>13, x.Error>>13 // so that floats hold them
			}
		}
		return answer{check: func(t *testing.T, texts map[Format]string) { checkComparisons(t, list, texts) },
			write: func(w io.Writer, f Format) error { return WriteComparisons(w, f, plain, list, notes) }}
	},
	"httpctl read": func(r *rand.Rand) answer {
		x := &Report{First: noon, Last: noon.Add(time.Duration(r.Int64N(1e12))), Tops: randomTops(r), Warnings: *random[[]string](r)}
		if r.IntN(4) == 0 {
			x.First, x.Last = time.Time{}, time.Time{}
		}
		for i := range x.Counters {
			x.Counters[i] = r.Uint64N(3) * r.Uint64N(1e6)
		}
		for i := range x.Tops { // a file has no coverage of its lists, and each has the bytes
			t := &x.Tops[i]
			t.Classes, t.Latency, t.Coverage = nil, nil, nil
			if slices.ContainsFunc(t.Columns, func(m Measure) bool { return m.Name == "bytes" }) {
				continue
			}
			t.Columns = append(slices.Clip(t.Columns), Measure{Name: "bytes", Unit: "By"})
			for k := range t.Rows {
				t.Rows[k].Values = append(t.Rows[k].Values, Value{Number: r.Int64N(1e12)})
			}
			if t.Other != nil {
				t.Other.Values = append(t.Other.Values, Value{Number: r.Int64N(1e12)})
			}
		}
		return answer{check: func(t *testing.T, texts map[Format]string) { checkReport(t, x, texts) },
			write: func(w io.Writer, f Format) error { return WriteReport(w, f, plain, x) }}
	},
	"httpctl read --exchanges": func(r *rand.Rand) answer {
		var list []*exchange.Exchange
		for range 1 + r.IntN(4) {
			list = append(list, randomExchange(r))
		}
		return answer{check: checkRecords(exchangeColumns), write: func(w io.Writer, f Format) error {
			records, lines := NewRecords(w, f, plain), TailLines{Wide: f == FormatWide}
			for _, x := range list {
				var err error
				if f == FormatTable || f == FormatWide {
					_, err = fmt.Fprintln(w, lines.Exchange(plain, x))
				} else {
					err = records.Exchange(x)
				}
				if err != nil {
					return err
				}
			}
			return nil
		}}
	},
	"httpctl tail": func(r *rand.Rand) answer {
		var list []*Sample
		for range 1 + r.IntN(4) {
			list = append(list, random[Sample](r))
		}
		m := random[TailSummary](r)
		return answer{check: checkRecords(sampleColumns), write: func(w io.Writer, f Format) error {
			records, lines := NewRecords(w, f, plain), TailLines{Wide: f == FormatWide}
			for _, x := range list {
				var err error
				if f == FormatTable || f == FormatWide {
					_, err = fmt.Fprintln(w, lines.Line(plain, x))
				} else {
					err = records.Sample(x)
				}
				if err != nil {
					return err
				}
			}
			_, err := records.TailSummary(m)
			return err
		}}
	},
}

// plain is a style without a width, of the day of the values.
var plain = Style{Now: noon}

func randomHosts(r *rand.Rand) []Host {
	hosts := *random[[]Host](r)
	for i := range hosts {
		hosts[i].Counters = distinct(hosts[i].Counters)
	}
	return hosts
}

func randomTops(r *rand.Rand) (list []Top) {
	for i := range r.IntN(4) {
		t := randomBuiltin(r)
		t.Name = fmt.Sprintf("list%d", i)
		list = append(list, *t)
	}
	return list
}

// builtin are the top lists that there are without plug-ins.
var builtin = func() (list []Dimension) {
	for _, name := range stat.Builtin {
		module, err := stat.New(name)
		if err != nil {
			panic(err)
		}
		for _, schema := range module.Tables() {
			for i := range schema.Views {
				list = append(list, DimensionOf(&schema, &schema.Views[i]))
			}
		}
	}
	return list
}()

// randomBuiltin is one of them with random rows.
func randomBuiltin(r *rand.Rand) *Top {
	t := random[Top](r)
	t.Dimension, t.Loss, t.Rows, t.Other, t.Classes = builtin[r.IntN(len(builtin))], distinct(t.Loss), nil, nil, nil
	addRows(r, t, words, func() *Latency { return random[Latency](r) })
	if t.Latency != nil && r.IntN(4) == 0 {
		t.Latency.Count = 0
	}
	if r.IntN(2) > 0 {
		t.Classes = []Count{{"2xx", r.Uint64N(1e9)}, {"-", r.Uint64N(9)}}
	}
	return t
}

func randomDashboard(r *rand.Rand) *Dashboard {
	d := random[Dashboard](r)
	d.Tops, d.Hosts, d.Filter, d.Status.Loss = randomTops(r), randomHosts(r), "", distinct(d.Status.Loss)
	d.Status.OtherProtocols = distinct(d.Status.OtherProtocols)
	d.Status.Alert.State = []State{Unknown, Learning, Normal, Alerting, Dismissed}[r.IntN(5)]
	d.Status.Time = noon.Add(time.Duration(r.Int64N(1e15)))
	d.Alerts.Time = d.Status.Time.Truncate(time.Second) // to which the table counts
	return d
}

func randomExchange(r *rand.Rand) *exchange.Exchange {
	x := &exchange.Exchange{}
	s := random[Sample](r)
	x.HasRequest, x.HasResponse = s.HasRequest, s.HasResponse || !s.HasRequest
	x.Method, x.Host, x.Domain, x.Target, x.Section, x.UserAgent, x.Protocol = s.Method, s.Domain, s.Domain, s.Path, s.Section, s.UserAgent, s.Protocol
	x.Client, x.Server = netip.MustParseAddrPort("192.0.2.1:4711"), netip.MustParseAddrPort("[2001:db8::1]:80")
	if r.IntN(2) > 0 {
		x.ClientName = s.Client
	}
	x.Status, x.Interim = s.Status%1000, r.IntN(2)
	x.RequestBytes, x.ResponseBytes, x.RequestWireBytes, x.ResponseWireBytes = r.Uint64N(1e12), r.Uint64N(1e12), s.RequestBytes, s.ResponseBytes
	x.FirstPacket, x.Suspect = r.Uint64N(1e9), exchange.Suspicion(r.IntN(8))
	at := noon.UnixNano()
	x.RequestStart, x.RequestEnd, x.ResponseStart, x.ResponseEnd = at, at+r.Int64N(1e9), at+1e9+r.Int64N(1e9), at+3e9
	return x
}

// TestEveryFormIsTested: what the package writes for a command is in answers, so that the property below is proved of it.
func TestEveryFormIsTested(t *testing.T) {
	paths, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	written, used := map[string]bool{}, map[string]bool{}
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") && path != "answers_test.go" {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		if path == "answers_test.go" {
			ast.Inspect(file, func(n ast.Node) bool {
				if id, ok := n.(*ast.Ident); ok {
					used[id.Name] = true
				}
				return true
			})
			continue
		}
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || !f.Name.IsExported() {
				continue
			}
			if f.Recv == nil && strings.HasPrefix(f.Name.Name, "Write") {
				written[f.Name.Name] = true
			}
			if f.Recv != nil && len(f.Recv.List) == 1 {
				if star, ok := f.Recv.List[0].Type.(*ast.StarExpr); ok {
					if id, ok := star.X.(*ast.Ident); ok && id.Name == "Records" {
						written[f.Name.Name] = true
					}
				}
			}
		}
	}
	// The same objects as of a dashboard, for the web's API.
	delete(written, "WriteDashboardLine")
	delete(written, "WriteStatus")
	if len(written) < 14 {
		t.Errorf("found %d functions that write, want at least 14", len(written))
	}
	for name := range written {
		if !used[name] {
			t.Errorf("%s is in no entry of answers: nothing proves that its forms carry the same values", name)
		}
	}
}
