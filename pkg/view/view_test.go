package view

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/goccy/go-yaml"

	"github.com/httpctl/httpctl/pkg/testkit/golden"
)

var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

func at(d time.Duration) time.Time { return noon.Add(d) }

func ptr(n int64) *int64 { return &n }

// sample is a dashboard of a fleet of four in the given state.
func sample(state State) *Dashboard {
	d := &Dashboard{
		Status: Status{
			Time: noon, Version: "v1", Interval: 10 * time.Second, Window: 2 * time.Minute, Refresh: 2 * time.Second,
			RateNow: 123.4, RateAverage: 98.76, IntervalRequests: 1234, IntervalStart: at(-10 * time.Second),
			Requests: 8_532_864, Since: at(-24 * time.Hour), Until: noon,
			Fleet: Fleet{Reporting: 2, Late: 1, Gone: 1},
			Loss:  []Count{{"kernel_drops", 12}, {"gap_bytes", 34567}, {"resyncs", 0}},
			Alert: AlertStatus{Scope: "fleet", State: state, Since: at(-6*time.Minute - 5*time.Second),
				Baseline: ptr(12000), ThresholdPercent: 10, ThresholdRequests: ptr(13200),
				WindowStart: at(-22 * time.Second), WindowEnd: at(98 * time.Second), WindowRequests: 2715,
				LastRequests: ptr(15234), LastWindowEnd: at(-22 * time.Second)},
		},
		Hosts: []Host{
			{Name: "web-1", ID: "0a", Health: Reporting, Connected: true, CoveredThrough: noon, Requests: 4000000, Rate: 60, Version: "v1", FirstSeen: at(-48 * time.Hour)},
			{Name: "web-2", ID: "0b", Health: Late, Connected: true, CoveredThrough: at(-time.Minute), Requests: 4000000, Rate: 40.25, Backlog: 6, Counters: []Count{{"packets", 10}, {"kernel_drops", 12}}},
			{Name: "web-3\x1b[31m", ID: "0c", Health: Gone, CoveredThrough: at(-time.Hour)},
		},
		RateHistory: []uint64{1000, 1100, 900, 1200, 0, 1500, 2000, 1234},
		Alerts: Alerts{Time: at(0), MaxDuration: 10 * time.Minute, AverageDuration: 7 * time.Minute, Alerts: []Alert{
			{Scope: "fleet", State: Dismissed, Start: at(-3 * time.Hour), End: at(-3*time.Hour + 4*time.Minute), Baseline: 12000, ThresholdPercent: 10,
				Entries: []AlertEntry{{Time: at(-3 * time.Hour), Hits: 13900}, {Time: at(-3*time.Hour + 2*time.Minute), Hits: 14001, LateHits: 5}}},
			{Scope: "fleet", State: Dismissed, Start: at(-26 * time.Hour), End: at(-26*time.Hour + 10*time.Minute), Baseline: 12000, ThresholdPercent: 10,
				Entries: []AlertEntry{{Time: at(-26 * time.Hour), Hits: 20000, Incomplete: true}}, JoinedHosts: []string{"web-9"}},
		}},
	}
	a := &d.Status.Alert
	switch state {
	case Learning:
		a.Baseline, a.ThresholdRequests, a.LastRequests = nil, nil, nil
		a.LearningStart, a.LearningEnd, a.EstimatedBaseline = at(-time.Minute), at(time.Minute), 11876
		d.Alerts = Alerts{}
	case Alerting:
		d.Alerts.Alerts = append([]Alert{{Scope: "fleet", State: Alerting, Start: at(-6 * time.Minute), Baseline: 12000, ThresholdPercent: 10,
			Entries: []AlertEntry{{Time: at(-6 * time.Minute), Hits: 13201}, {Time: at(-4 * time.Minute), Hits: 14500}, {Time: at(-2 * time.Minute), Hits: 15234}}}}, d.Alerts.Alerts...)
		a.JoinedHosts = []string{"web-4"}
	case Normal:
		a.LastRequests = ptr(11800)
		d.Status.Loss = nil
		d.Status.Fleet = Fleet{Reporting: 4}
		d.Hosts = d.Hosts[:1]
	}
	hits := Measure{Name: "hits", Unit: "{request}"}
	seen := Measure{Name: "last_seen", Unit: "ns", Kind: Max}
	top := func(name, title string, measures []Measure, rows ...TopRow) {
		t := Top{Dimension: Dimension{Name: name, Title: title, Keys: []string{name}, Columns: append([]Measure{hits}, measures...)}, Rows: rows,
			Since: at(-24 * time.Hour), Until: noon}
		for _, r := range rows {
			t.Total += r.Values[0].Number
		}
		d.Tops = append(d.Tops, t)
	}
	n := func(v int64) Value { return Value{Number: v} }
	ago := func(d time.Duration) Value { return n(at(-d).UnixNano()) }
	var sections []TopRow
	for i := range 10 {
		sections = append(sections, TopRow{Keys: []string{fmt.Sprintf("shop.example.org/section-%d", i)}, Values: []Value{n(int64(50000 / (i + 1))), ago(time.Duration(i) * time.Second)}})
	}
	top("section", "Sections", []Measure{seen}, sections...)
	top("domain", "Domains", []Measure{seen},
		TopRow{Keys: []string{"shop.example.org"}, Values: []Value{n(6_000_000), ago(0)}},
		TopRow{Keys: []string{"evil.example.org\x1b]0;owned\a\u202e"}, Values: []Value{n(2_000_000), ago(26 * time.Hour)}, Error: 17},
		TopRow{Keys: []string{"日本語.example.org"}, Values: []Value{n(532_864), ago(time.Minute)}})
	top("user_agent", "User agents", []Measure{seen},
		TopRow{Keys: []string{"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0 and more of it still"}, Values: []Value{n(100), ago(time.Second)}},
		TopRow{Keys: []string{"bad utf8 \xff\xfe"}, Values: []Value{n(3), ago(time.Second)}})
	top("status", "Status", []Measure{seen},
		TopRow{Keys: []string{"200"}, Values: []Value{n(8_000_000), ago(0)}}, TopRow{Keys: []string{"503"}, Values: []Value{n(1200), ago(time.Second)}})
	top("upload", "Upload", []Measure{{Name: "upload", Unit: "By"}, seen},
		TopRow{Keys: []string{"shop.example.org"}, Values: []Value{n(6_000_000), n(7 << 30), ago(0)}})
	top("server", "Response time", []Measure{{Name: "ttfb", Unit: "ns", Kind: LatencyColumn}, seen},
		TopRow{Keys: []string{"192.0.2.10:80"}, Values: []Value{n(4000), {Latency: &Latency{Count: 3990, Average: 12345678, P50: 8 * time.Millisecond, P95: 45 * time.Millisecond, P99: 1200 * time.Millisecond, Peak: 3 * time.Second}}, ago(0)}},
		TopRow{Keys: []string{"[2001:db8::10]:8080"}, Values: []Value{n(1), {}, ago(time.Second)}})
	d.Tops[3].Classes = []Count{{"2xx", 8_000_000}, {"5xx", 1200}}
	d.Tops[3].Latency = &Latency{Count: 8_001_000, Average: 12345678, P50: 8 * time.Millisecond, P95: 45 * time.Millisecond, P99: 1200 * time.Millisecond, Peak: 3 * time.Second}
	d.Tops[1].Floor = 17
	d.Tops[1].Other = &TopRow{Values: []Value{n(77), ago(time.Hour)}}
	return d
}

// TestNoHeadingIsCut: where a title has no room, the name of the key stands for it.
func TestNoHeadingIsCut(t *testing.T) {
	d := sample(Alerting)
	d.Tops[5].Title = "Response times by server"
	d.Tops[5].Rows[0].Values[0].Number = 123_456_789
	strong := regexp.MustCompile("\x1b\\[1m[^\x1b]*")
	short := 0
	for width := 80; width <= 240; width++ {
		for _, head := range strong.FindAllString(strings.Join(Frame(d, Style{Width: width, Height: 60, Color: true}, ""), "\n"), -1) {
			if strings.Contains(head, "…") {
				t.Errorf("at %d columns a heading is cut: %q", width, head)
			}
			if strings.HasPrefix(head, "\x1b[1mSERVER") {
				short++
			}
		}
	}
	if short == 0 {
		t.Error("the title fits everywhere: this test shows nothing")
	}
}

func TestFrame(t *testing.T) {
	for _, state := range []State{Learning, Normal, Alerting, Dismissed} {
		for _, s := range []Style{{Width: 80, Height: 24}, {Width: 120, Height: 40}, {Width: 120, Height: 40, Color: true}, {Width: 80, Height: 24, ASCII: true}} {
			lines := Frame(sample(state), s, "")
			checkLines(t, s, lines)
			name := fmt.Sprintf("dashboard-%s-%dx%d", state, s.Width, s.Height)
			if s.Color {
				name += "-color"
			}
			if s.ASCII {
				name += "-ascii"
				if state != Alerting {
					continue
				}
			}
			golden.Check(t, name, strings.ReplaceAll(strings.Join(lines, "\n"), "\x1b", "␛")+"\n")
		}
	}
}

// checkLines fails when a line is too wide, or holds a control code that Paint did not write.
func checkLines(t *testing.T, s Style, lines []string) {
	t.Helper()
	if s.Height > 0 && len(lines) > s.Height {
		t.Errorf("%+v: %d lines", s, len(lines))
	}
	for _, l := range lines {
		if s.Width > 0 && Columns(l) > s.Width {
			t.Errorf("%+v: a line of %d columns: %q", s, Columns(l), l)
		}
		for _, code := range []string{"\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[32m", "\x1b[33m", "\x1b[1;31m"} {
			if s.Color {
				l = strings.ReplaceAll(l, code, "")
			}
		}
		if i := strings.IndexFunc(l, func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 }); i >= 0 || !utf8.ValidString(l) {
			t.Errorf("%+v: a control code in %q", s, l)
		}
	}
}

func TestFrameFitsEveryTerminal(t *testing.T) {
	for _, state := range []State{Learning, Alerting, Unknown} {
		for w := 1; w < 200; w += 7 {
			for h := 1; h < 60; h += 5 {
				for _, trouble := range []string{"", "no answer\x1b since"} {
					s := Style{Width: w, Height: h, Color: w%2 == 0}
					checkHeight(t, s, Frame(sample(state), s, trouble))
				}
			}
		}
	}
	checkHeight(t, Style{Width: 80, Height: 24}, Frame(&Dashboard{}, Style{Width: 80, Height: 24}, ""))
}

func checkHeight(t *testing.T, s Style, lines []string) {
	t.Helper()
	if len(lines) > s.Height {
		t.Errorf("%dx%d: %d lines", s.Width, s.Height, len(lines))
	}
	if s.Width >= 60 { // below, the numbers alone are wider; the terminal clips
		checkLines(t, s, lines)
	}
}

func TestTroubleIsFirstLine(t *testing.T) {
	lines := Frame(sample(Normal), Style{Width: 80, Height: 24}, "NO ANSWER since 12:00:00")
	if got, want := lines[0], "✖ NO ANSWER since 12:00:00"; got != want {
		t.Errorf("first line = %q, want %q", got, want)
	}
}

func TestDashboardForms(t *testing.T) {
	for _, f := range []Format{FormatTable, FormatWide, FormatJSON, FormatYAML, FormatCSV, FormatMarkdown} {
		var b bytes.Buffer
		if err := WriteDashboard(&b, f, Style{Width: 100}, sample(Alerting)); err != nil {
			t.Fatal(err)
		}
		golden.Check(t, "dashboard-"+string(f), b.String())
	}
}

func TestLists(t *testing.T) {
	d := sample(Alerting)
	s := Style{Now: noon}
	for name, write := range map[string]func(*bytes.Buffer, Format, Style) error{
		"alerts":   func(b *bytes.Buffer, f Format, s Style) error { return WriteAlerts(b, f, s, &d.Alerts) },
		"noalerts": func(b *bytes.Buffer, f Format, s Style) error { return WriteAlerts(b, f, s, &Alerts{}) },
		"hosts":    func(b *bytes.Buffer, f Format, s Style) error { return WriteHosts(b, f, s, d.Hosts) },
		"domain":   func(b *bytes.Buffer, f Format, s Style) error { return WriteTop(b, f, s, &d.Tops[1]) },
		"server":   func(b *bytes.Buffer, f Format, s Style) error { return WriteTop(b, f, s, &d.Tops[5]) },
		"dimensions": func(b *bytes.Buffer, f Format, s Style) error {
			return WriteDimensions(b, f, s, []Dimension{d.Tops[0].Dimension, {Name: "routes", Title: "Routes", Keys: []string{"domain", "status"}, Filters: []string{"status"}}})
		},
		"baseline": func(b *bytes.Buffer, f Format, s Style) error {
			return WriteBaseline(b, f, s, &Baseline{Alert: d.Status.Alert, From: at(-time.Hour), Until: at(-58 * time.Minute), Requests: 12000, CoveredSeconds: 120, Hosts: []string{"web-1", "web-2"}}, 2*time.Minute)
		},
	} {
		for _, f := range []Format{FormatTable, FormatWide, FormatJSON, FormatYAML, FormatCSV, FormatMarkdown} {
			var b bytes.Buffer
			if err := write(&b, f, s); err != nil {
				t.Fatal(err)
			}
			golden.Check(t, name+"-"+string(f), b.String())
		}
	}
}

func TestJSONHoldsNothingATerminalActsOn(t *testing.T) {
	in := "\x1b[31m \u009b31m \u202e \x7f \u2028 \U000e0041 é 日 <"
	var b bytes.Buffer
	if err := writeJSON(&b, in); err != nil {
		t.Fatal(err)
	}
	want := `"\u001b[31m \u009b31m \u202e \u007f \u2028 \udb40\udc41 é 日 <"` + "\n"
	if b.String() != want {
		t.Errorf("writeJSON(%q) = %s, want %s", in, &b, want)
	}
	var back string
	if err := json.Unmarshal(b.Bytes(), &back); err != nil || back != in {
		t.Errorf("%s reads back as %q, %v", &b, back, err)
	}
}

// TestFormsShowTheSameValues writes random lists in all forms and compares
// each cell: CSV with JSON exactly, wide with what the value looks like.
func TestFormsShowTheSameValues(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		top := randomTop(r)
		g := TopGrid(top)
		s := Style{Now: noon}
		var c, j, w, y, m bytes.Buffer
		if err := WriteTop(&c, FormatCSV, s, top); err != nil {
			t.Fatal(err)
		}
		if err := WriteTop(&j, FormatJSON, s, top); err != nil {
			t.Fatal(err)
		}
		if err := WriteTop(&w, FormatWide, s, top); err != nil {
			t.Fatal(err)
		}
		if err := WriteTop(&y, FormatYAML, s, top); err != nil {
			t.Fatal(err)
		}
		if err := WriteTop(&m, FormatMarkdown, s, top); err != nil {
			t.Fatal(err)
		}
		sameAsJSON(t, y.Bytes(), j.Bytes())
		cells := markdownCells(t, m.String())
		records, err := csv.NewReader(&c).ReadAll()
		if err != nil {
			t.Fatalf("CSV: %v", err)
		}
		var answer struct {
			Rows  []map[string]json.RawMessage
			Other map[string]json.RawMessage
		}
		if err := json.Unmarshal(j.Bytes(), &answer); err != nil {
			t.Fatalf("JSON: %v\n%s", err, &j)
		}
		objects := answer.Rows
		if answer.Other != nil {
			objects = append(objects, answer.Other)
		}
		lines := strings.Split(w.String(), "\n")[3:] // title, heading, rule
		if len(records) != len(objects)+1 || len(records) != len(g.all())+1 {
			t.Fatalf("%d CSV records, %d JSON objects, %d rows", len(records), len(objects), len(g.all()))
		}
		for i, o := range objects {
			if len(o) != len(g.Columns) {
				t.Errorf("JSON row %d has %d members, want %d: %v", i, len(o), len(g.Columns), o)
			}
			for k, col := range g.Columns {
				got, want := records[i+1][k], plainJSON(t, o[col.Name])
				if raw, ok := g.all()[i].Cells[k].(string); ok { // JSON escapes, CSV cannot
					if want != strings.ToValidUTF8(raw, "\uFFFD") {
						t.Errorf("row %d, %s: JSON %q, want %q", i, col.Name, want, raw)
					}
					want = Clean(raw)
				}
				if got != want {
					t.Errorf("row %d, %s: CSV %q, want %q", i, col.Name, got, want)
				}
				text := s.Human(col.Kind, g.all()[i].Cells[k])
				if got := cells[i][k]; got != strings.TrimSpace(text) {
					t.Errorf("row %d, %s: Markdown %q, want %q", i, col.Name, got, text)
				}
				if rest, ok := strings.CutPrefix(strings.TrimLeft(lines[i], " "), strings.TrimSpace(text)); !ok {
					t.Errorf("row %d, %s: wide has %q, want %q next", i, col.Name, lines[i], text)
				} else {
					lines[i] = rest
				}
			}
		}
	}
}

// sameAsJSON compares, with a YAML library, what a document holds with its JSON, and looks for
// what a terminal would act on.
func sameAsJSON(t *testing.T, document, want []byte) {
	t.Helper()
	if i := strings.IndexFunc(string(document), func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }); i >= 0 {
		t.Errorf("YAML has %q", document[i:min(i+8, len(document))])
	}
	var fromYAML, fromJSON any
	if err := yaml.Unmarshal(document, &fromYAML); err != nil {
		t.Fatalf("%v\n%s", err, document)
	}
	again, err := json.Marshal(fromYAML)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(json.Unmarshal(again, &fromYAML), json.Unmarshal(want, &fromJSON)); err != nil {
		t.Fatalf("%v\n%s", err, want)
	}
	if !reflect.DeepEqual(fromYAML, fromJSON) {
		t.Errorf("YAML\n%s\nreads as %v, want %v", document, fromYAML, fromJSON)
	}
}

// markdownCells returns the cells of the rows of a table, by a reading of its own.
func markdownCells(t *testing.T, text string) (rows [][]string) {
	t.Helper()
	for _, line := range strings.Split(text, "\n") {
		if !strings.HasPrefix(line, "|") {
			continue
		}
		var cells []string
		var cell strings.Builder
		escaped := false
		for _, r := range line[1:] {
			switch {
			case escaped:
				cell.WriteRune(r)
				escaped = false
			case r == '\\':
				escaped = true
			case r == '|':
				cells = append(cells, strings.TrimSpace(cell.String()))
				cell.Reset()
			case r == '<', r == '[', r == '`', r == '*', r == '&':
				t.Errorf("%q is not escaped in %s", r, line)
			default:
				cell.WriteRune(r)
			}
		}
		rows = append(rows, cells)
	}
	return rows[2:] // heading, rule
}

// TestYAML: what would be read as another type, or acted on by a terminal, is quoted or escaped.
func TestYAML(t *testing.T) {
	var b bytes.Buffer
	if err := writeYAML(&b, object{
		{"name", "no"}, {"number", "1e3"}, {"text", "\x1b[31m \u009b \u202e \U000e0041 é: \"\\\n"}, {"null", nil}, {"big", 1e21}, {"n", int64(1) << 60},
		{"flag", true}, {"none", []string{}}, {"empty", object{}}, {"a\u0085b", []object{{{"x", 0.5}}, {{"x", []string{"1"}}, {"z", 2}}}},
	}); err != nil {
		t.Fatal(err)
	}
	want := `---
name: "no"
number: "1e3"
text: "\u001b[31m \u009b \u202e \U000e0041 é: \"\\\u000a"
"null": null
big: 1.0e+21
"n": 1152921504606846976
flag: true
none: []
empty: {}
"a\u0085b":
  - x: 0.5
  - x:
      - "1"
    z: 2
`
	if b.String() != want {
		t.Errorf("writeYAML wrote\n%s\nwant\n%s", &b, want)
	}
}

// TestShape: columns and order are those asked for, in every form; what is absent comes last.
func TestShape(t *testing.T) {
	hosts := []Host{
		{Name: "b", Requests: 5, Counters: []Count{{"gap_bytes", 3}}},
		{Name: "a", Requests: 7, CoveredThrough: noon},
		{Name: "c", Requests: 6, CoveredThrough: noon.Add(time.Second), Counters: []Count{{"gap_bytes", 1}, {"resyncs", 4}}},
	}
	for _, c := range []struct{ sort, want string }{
		{"", "b a c"}, {"name", "a b c"}, {"-name", "c b a"}, {"requests", "b c a"}, {"-requests", "a c b"},
		{"covered_through", "a c b"}, {"-covered_through", "c a b"}, {"-loss", "c b a"}, {"connected", "b a c"},
	} {
		s := Style{SortBy: c.sort, Columns: []string{"id", "name"}}
		for _, f := range Formats {
			var b bytes.Buffer
			if err := WriteHosts(&b, Format(f), s, slices.Clone(hosts)); err != nil {
				t.Fatal(err)
			}
			if f != "csv" {
				continue
			}
			if want := "id,name\n," + strings.ReplaceAll(c.want, " ", "\n,") + "\n"; b.String() != want {
				t.Errorf("sorted by %q:\n%s\nwant\n%s", c.sort, &b, want)
			}
		}
	}
	for _, s := range []Style{{SortBy: "-color"}, {Columns: []string{"name", "color"}}} {
		var e *ColumnError
		if err := WriteHosts(io.Discard, FormatTable, s, hosts); !errors.As(err, &e) || e.Column != "color" || !slices.Contains(e.There, "health") {
			t.Errorf("WriteHosts(%+v) = %v, want a ColumnError", s, err)
		}
	}
}

// plainJSON is what CSV writes for a JSON value.
func plainJSON(t *testing.T, raw json.RawMessage) string {
	var v any
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	switch v := v.(type) {
	case nil:
		return ""
	case json.Number:
		if f, err := v.Float64(); err == nil && strings.ContainsAny(v.String(), "eE") {
			return csvText(f)
		}
		return v.String()
	case string:
		return v
	}
	return fmt.Sprint(v)
}

// TestSeriesSorts sorts a series with and without data by each of its columns, in each form.
func TestSeriesSorts(t *testing.T) {
	x := &Series{Step: "hour", Since: noon, Until: at(3 * time.Hour), Points: []SeriesPoint{
		{Start: noon, End: at(time.Hour), Requests: 1, Covered: time.Hour, Loss: []Count{{"gap_bytes", 7}}},
		{Start: at(time.Hour), End: at(2 * time.Hour)},
		{Start: at(2 * time.Hour), End: at(3 * time.Hour), Requests: 2, Covered: time.Hour, Loss: []Count{{"gap_bytes", 9}}},
	}}
	for _, f := range Formats {
		for _, c := range SeriesGrid(x).Columns {
			if err := WriteSeries(io.Discard, Format(f), Style{SortBy: "-" + c.Name}, x); err != nil {
				t.Errorf("%s by %s: %v", f, c.Name, err)
			}
		}
	}
	var b bytes.Buffer
	if err := WriteSeries(&b, FormatTable, Style{SortBy: "-loss"}, x); err != nil || !regexp.MustCompile(`(?s)9 gap bytes.*7 gap bytes.* 0s +0 +-\n`).Match(b.Bytes()) {
		t.Errorf("by what was not seen, %v:\n%s", err, &b)
	}
}

func randomTop(r *rand.Rand) *Top {
	words := []string{"a", "", "x y", "1,234", "\"quoted\"", "é\x1b[2J", "\xff", "日本", "<&>", "\u202e", "a\nb", "-"}
	t := &Top{Dimension: Dimension{Name: "d", Title: "T", Keys: []string{"domain", "status"}[:1+r.IntN(2)],
		Columns: []Measure{{"hits", "{request}", Sum}, {"volume", "By", Sum}, {"busy", "ns", Sum}, {"last_seen", "ns", Max}, {"ttfb", "ns", LatencyColumn}}[:1+r.IntN(5)]},
		Total: r.Int64N(3), Since: noon, Until: noon}
	addRows(r, t, words, func() *Latency {
		return &Latency{Count: uint64(r.IntN(3)), Average: time.Duration(r.Int64() >> r.IntN(63)), P99: time.Duration(r.IntN(1e9))}
	})
	return t
}

func TestColors(t *testing.T) {
	for _, c := range []struct {
		env      string
		terminal bool
		want     bool
	}{
		{"", true, true}, {"", false, false}, {"NO_COLOR=1", true, false}, {"NO_COLOR=", true, true}, {"TERM=dumb", true, false},
		{"FORCE_COLOR=1", false, true}, {"FORCE_COLOR=1 NO_COLOR=1", false, true}, {"FORCE_COLOR=0", true, false}, {"FORCE_COLOR=3 TERM=dumb", true, true},
	} {
		env := func(name string) string {
			for _, v := range strings.Fields(c.env) {
				if k, value, _ := strings.Cut(v, "="); k == name {
					return value
				}
			}
			return ""
		}
		if got := Colors(env, c.terminal); got != c.want {
			t.Errorf("Colors(%q, terminal %v) = %v, want %v", c.env, c.terminal, got, c.want)
		}
	}
	for value, want := range map[string]bool{"": false, "C": true, "en_US.UTF-8": false, "de_DE.utf8": false, "POSIX": true} {
		if got := ASCIIOnly(func(name string) string {
			if name == "LANG" {
				return value
			}
			return ""
		}); got != want {
			t.Errorf("ASCIIOnly(LANG=%s) = %v, want %v", value, got, want)
		}
	}
}

func TestText(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{number(int64(0)), "0"}, {number(int64(999)), "999"}, {number(int64(1000)), "1,000"}, {number(int64(-1234567)), "-1,234,567"},
		{number(uint64(1 << 63)), "9,223,372,036,854,775,808"},
		{byteSize(0), "0 B"}, {byteSize(1023), "1023 B"}, {byteSize(1024), "1.00 KiB"}, {byteSize(1048575), "1.00 MiB"}, {byteSize(15 << 20), "15.0 MiB"}, {byteSize(999 << 20), "999 MiB"},
		{Style{}.latency(0), "0ns"}, {Style{}.latency(1500), "1.50µs"}, {Style{ASCII: true}.latency(1500), "1.50us"}, {Style{}.latency(12345678), "12.3ms"}, {Style{}.latency(1200 * time.Millisecond), "1.20s"}, {Style{}.latency(90 * time.Second), "1m30s"}, {Style{}.latency(-5), "-5ns"},
		{span(59 * time.Second), "59s"}, {span(65 * time.Second), "1m05s"}, {span(3 * time.Hour), "3h00m"}, {span(76 * time.Hour), "3d4h"},
		{span(math.MinInt64), "-106751d23h"}, {Style{}.latency(math.MinInt64), "-106751d23h"},
		{Compact(2 * time.Minute), "2m"}, {Compact(time.Hour), "1h"}, {Compact(2 * time.Second), "2s"},
		{rate(0), "0/s"}, {rate(1.234), "1.23/s"}, {rate(1234.5), "1,235/s"}, {percent(0.1234), "12.3%"},
		{Cut("日本語", 5, "…"), "日本…"}, {Cut("日本語", 6, "…"), "日本語"}, {Cut("abc", 0, "…"), ""}, {Cut("abc", 1, "…"), "…"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}

// TestTablesFitTheTerminal: no line of a table, its title or its notes is wider than the terminal, and no word of them is lost.
func TestTablesFitTheTerminal(t *testing.T) {
	d := sample(Alerting)
	top := d.Tops[1]
	top.Title = "A title of several words that has no room on a narrow terminal"
	top.Coverage = &Coverage{Covered: 10 * time.Minute, First: at(-20 * time.Hour), Last: at(-time.Hour), GapCount: 7,
		Gaps: []TimeSpan{{at(-19 * time.Hour), at(-18 * time.Hour)}, {at(-9 * time.Hour), at(-8 * time.Hour)}}}
	words := func(text string) string { return strings.Join(strings.Fields(text), " ") }
	var whole bytes.Buffer
	if err := WriteTop(&whole, FormatWide, Style{Now: noon}, &top); err != nil {
		t.Fatal(err)
	}
	title, _, _ := strings.Cut(whole.String(), "\n")
	_, notes, _ := strings.Cut(whole.String(), "There is data")
	for width := 40; width < 120; width++ {
		var b bytes.Buffer
		s := Style{Now: noon, Width: width}
		if err := errors.Join(WriteTop(&b, FormatTable, s, &top), WriteHosts(&b, FormatTable, Style{Now: noon, Width: max(width, 78)}, d.Hosts)); err != nil {
			t.Fatal(err)
		}
		list, hosts, _ := strings.Cut(b.String(), "HOST ")
		for line := range strings.Lines(list) {
			if n := Width(strings.TrimSuffix(line, "\n")); n > width {
				t.Errorf("at %d columns a line has %d: %q", width, n, line)
			}
		}
		for line := range strings.Lines("HOST " + hosts) {
			if n := Width(strings.TrimSuffix(line, "\n")); n > max(width, 78) {
				t.Errorf("at %d columns a line of hosts has %d: %q", max(width, 78), n, line)
			}
		}
		if !strings.Contains(words(list), words(title)) || !strings.Contains(words(list), words("There is data"+notes)) {
			t.Errorf("at %d columns a word is lost:\n%s", width, list)
		}
	}
}

// TestHeaderCountsFromItsClock: a reader who subtracts the times of the header gets its durations.
func TestHeaderCountsFromItsClock(t *testing.T) {
	for _, part := range []time.Duration{0, 400 * time.Millisecond, 999 * time.Millisecond} {
		d := &Dashboard{Status: Status{Time: noon.Add(16*time.Second + part), Alert: AlertStatus{
			State: Normal, Since: noon.Add(10 * time.Second), WindowStart: noon.Add(10 * time.Second), WindowEnd: noon.Add(20 * time.Second),
			LearningEnd: noon.Add(30 * time.Second)}}}
		text := strings.Join(Frame(d, Style{Location: time.UTC}, ""), "\n")
		d.Status.Alert.State = Learning
		d.Alerts = Alerts{Time: d.Status.Time, Alerts: []Alert{{State: Alerting, Start: noon.Add(10 * time.Second)}}}
		text += strings.Join(Frame(d, Style{Location: time.UTC}, ""), "\n")
		for _, want := range []string{"12:00:16 UTC", "since 12:00:10 (6s)", "12:00:20   0 requests   next check in 4s", "14s left, until 12:00:30", "12:00:10    -        6s"} {
			if !strings.Contains(text, want) {
				t.Errorf("at %s the header has no %q:\n%s", part, want, text)
			}
		}
	}
}

// TestHeaderSaysWhereItsRangeEnds: with --until the requests are not those up to now.
func TestHeaderSaysWhereItsRangeEnds(t *testing.T) {
	for until, want := range map[time.Time]string{noon: "5 requests since 11:00:00\n", noon.Add(-time.Minute): "5 requests since 11:00:00 until 11:59:00\n"} {
		d := &Dashboard{Status: Status{Time: noon.Add(time.Millisecond), Requests: 5, Since: noon.Add(-time.Hour), Until: until}}
		if text := strings.Join(Frame(d, Style{Location: time.UTC}, ""), "\n"); !strings.Contains(text, want) {
			t.Errorf("until %s the header has no %q:\n%s", until, want, text)
		}
	}
}

// addRows gives a list up to three random rows, whose keys are of two words, and perhaps others.
func addRows(r *rand.Rand, t *Top, words []string, latency func() *Latency) {
	row := func() TopRow {
		x := TopRow{Error: r.Int64N(3) * r.Int64N(1e15)}
		for range t.Keys {
			x.Keys = append(x.Keys, words[r.IntN(len(words))]+words[r.IntN(len(words))])
		}
		for _, m := range t.Columns {
			v := Value{Number: r.Int64N(2) * r.Int64() >> r.IntN(63)}
			if m.Kind == LatencyColumn && r.IntN(2) > 0 {
				v.Latency = latency()
			}
			x.Values = append(x.Values, v)
		}
		return x
	}
	for range r.IntN(4) {
		t.Rows = append(t.Rows, row())
	}
	if r.IntN(2) > 0 {
		other := row()
		t.Other = &other
	}
}

// TestTopSaysWhatIsLeftOut: a list says that some buckets are not in it, for people and for programs, if there are some.
func TestTopSaysWhatIsLeftOut(t *testing.T) {
	list := &Top{Dimension: Dimension{Name: "teapots", Title: "Teapots", Keys: []string{"spout"}}, Coverage: &Coverage{}}
	for skipped, want := range map[uint64]bool{0: false, 3: true} {
		list.Skipped = skipped
		for format, part := range map[Format]string{FormatTable: "another version of this statistic: 3 buckets", FormatJSON: `"skipped_buckets": 3`} {
			var out strings.Builder
			if err := WriteTop(&out, format, Style{}, list); err != nil || strings.Contains(out.String(), part) != want {
				t.Errorf("with %d buckets left out, as %v: %s, %v, want %q in it: %t", skipped, format, out.String(), err, part, want)
			}
		}
	}
}
