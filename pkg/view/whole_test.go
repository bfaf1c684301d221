package view

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/httpctl/httpctl/pkg/exchange"
)

// valuesOf reads CSV that has a line for each value: by list, row, key and column.
func valuesOf(t *testing.T, text string) map[[4]string]string {
	t.Helper()
	records, err := csv.NewReader(strings.NewReader(text)).ReadAll()
	if err != nil || len(records) == 0 || strings.Join(records[0], ",") != "list,row,key,column,value" {
		t.Fatalf("CSV: %v in %q", err, text)
	}
	values := map[[4]string]string{}
	for _, r := range records[1:] {
		at := [4]string(r[:4])
		if _, twice := values[at]; twice {
			t.Errorf("CSV has %q twice", at)
		}
		values[at] = r[4]
	}
	return values
}

// expected are the values that CSV should have, taken from JSON.
type expected struct {
	t      *testing.T
	values map[[4]string]string
}

// members adds those of an object, but for some, the inner ones as outer.inner.
func (e expected) members(list, prefix string, o fields, but ...string) {
next:
	for key, raw := range o {
		for _, b := range but {
			if b == key {
				continue next
			}
		}
		e.value(list, prefix+key, raw)
	}
}

func (e expected) value(list, column string, raw json.RawMessage) {
	var inner fields
	var objects []fields
	switch {
	case raw[0] == '{' && json.Unmarshal(raw, &inner) == nil:
		e.members(list, column+".", inner)
	case raw[0] == '[' && json.Unmarshal(raw, &objects) == nil && len(objects) > 0:
		for i, o := range objects {
			e.members(list, fmt.Sprintf("%s.%d.", column, i+1), o)
		}
	case raw[0] == '[' && json.Unmarshal(raw, &objects) == nil && column == "coverage.gaps": // none
	default:
		e.values[[4]string{list, "", "", Clean(column)}] = csvOf(e.t, raw)
	}
}

// rows adds those of a list with the keys of each. rank says that the row's number is its rank.
func (e expected) rows(list, row string, keys []string, o fields) {
	var key []string
	for _, k := range keys {
		key = append(key, csvOf(e.t, o[k]))
	}
	for column, raw := range o {
		if column == "rank" || len(keys) == 1 && column == keys[0] {
			continue
		}
		e.values[[4]string{list, row, strings.Join(key, " "), column}] = csvOf(e.t, raw)
	}
}

func (e expected) texts(list, column string, texts []string) {
	for i, text := range texts {
		e.values[[4]string{list, fmt.Sprint(i + 1), "", column}] = Clean(text)
	}
}

// same compares them with CSV, which is empty where JSON has nothing.
func (e expected) same(got map[[4]string]string) {
	e.t.Helper()
	for at, value := range e.values {
		if have, there := got[at]; have != value || !there {
			e.t.Errorf("CSV has %q (%v) at %q, JSON %q", have, there, at, value)
		}
	}
	for at, value := range got {
		if _, there := e.values[at]; !there && value != "" {
			e.t.Errorf("CSV has %q at %q, and JSON nothing", value, at)
		}
	}
}

func keyNames(keys []string) []string {
	if len(keys) == 1 {
		return []string{"key"}
	}
	return keys
}

func columnNames(g *Grid) (names []string) {
	for _, c := range g.Columns {
		names = append(names, c.Name)
	}
	return names
}

// from returns the lines behind the first that begins with some text, without spaces at its begin.
func from(t *testing.T, lines []string, begin string) []string {
	t.Helper()
	for i, line := range lines {
		if strings.HasPrefix(strings.TrimLeft(line, " "), begin) {
			return lines[i+1:]
		}
	}
	t.Fatalf("no line begins with %q in\n%s", begin, strings.Join(lines, "\n"))
	return nil
}

// withOther are the rows of a top list, and the one of the rest.
func withOther(t *testing.T, o fields, rows []fields) []fields {
	if raw := o["other"]; raw != nil && string(raw) != "null" {
		rows = append(rows, fieldsOf(t, raw))
	}
	return rows
}

// topList reads what JSON, CSV, Markdown and the wide table have of one list.
func topList(t *testing.T, e expected, top *Top, o fields, rows []fields) {
	keys := keyNames(top.Keys)
	for i, row := range rows {
		e.rows(top.Name, fmt.Sprint(i+1), keys, row)
	}
	if raw := o["other"]; raw != nil && string(raw) != "null" {
		e.rows(top.Name, "other", keys, fieldsOf(t, raw))
	}
}

func checkDashboard(t *testing.T, d *Dashboard, texts map[Format]string) {
	sameAsJSON(t, []byte(texts[FormatYAML]), []byte(texts[FormatJSON]))
	whole := fieldsOf(t, []byte(texts[FormatJSON]))
	e := expected{t, map[[4]string]string{}}
	status, alerts := fieldsOf(t, whole["status"]), fieldsOf(t, whole["alerts"])
	e.members("status", "", status)
	tops, hosts := whole.list(t, "tops"), whole.list(t, "hosts")
	for i, o := range tops {
		e.members(d.Tops[i].Name, "", o, "dimension", "rows", "other")
		topList(t, e, &d.Tops[i], o, o.list(t, "rows"))
	}
	for i, o := range alerts.list(t, "alerts") {
		e.rows("alerts", fmt.Sprint(i+1), nil, o)
	}
	e.members("alerts", "", alerts, "alerts")
	for i, o := range hosts {
		e.rows("hosts", fmt.Sprint(i+1), []string{"name"}, o)
	}
	var history []json.Number
	if err := json.Unmarshal(whole["rate_history"], &history); err != nil {
		t.Fatal(err)
	}
	got := valuesOf(t, texts[FormatCSV])
	for i, n := range history {
		ago := Compact(time.Duration(len(history)-1-i)*d.Status.Interval) + " ago"
		e.values[[4]string{"rate_history", fmt.Sprint(i + 1), ago, "requests"}] = n.String()
	}
	e.texts("notes", "note", whole.texts(t, "notes"))
	e.same(got)

	// Tables: Markdown has alerts, hosts, lists; wide alerts where there are any, lists, and alerts where there are none, hosts.
	tables := tablesOf(t, texts[FormatMarkdown])
	if len(tables) != 2+len(tops) {
		t.Fatalf("%d tables of Markdown, want %d", len(tables), 2+len(tops))
	}
	lines := strings.Split(texts[FormatWide], "\n")
	header := lines
	if list := alerts.list(t, "alerts"); len(list) > 0 {
		lines = checkTable(t, columnNames(AlertsGrid(&Alerts{}, plain)), list, tables[0], from(t, lines, "ALERTS "))
	}
	for i, o := range tops {
		lines = checkTable(t, columnNames(TopGrid(&d.Tops[i])), withOther(t, o, o.list(t, "rows")), tables[2+i], from(t, lines, "# "))
		foot := strings.Join(lines, "\n")
		for _, want := range []string{plural(d.Tops[i].Total, "hit"), Clean(d.Tops[i].Title)} {
			if !strings.Contains(foot, want) {
				t.Errorf("list %d: nothing below it says %q", i, want)
			}
		}
	}
	checkTable(t, columnNames(HostsGrid(nil)), hosts, tables[1], from(t, lines, "HOST "))

	// What stands above the lists is read as text.
	packets := "-"
	if d.Status.Packets != nil {
		packets = number(*d.Status.Packets)
	}
	s, a := Style{Now: d.Status.Time}, &d.Status.Alert
	above, _, _ := strings.Cut(strings.Join(header, "\n"), "\n\n")
	listed, _, _ := strings.Cut(texts[FormatMarkdown], "\n### ")
	for key, want := range map[string]string{
		"time": d.Status.Time.UTC().Format(time.DateTime), "version": "httpctl " + Clean(d.Status.Version), "interval_seconds": "interval  " + Compact(d.Status.Interval),
		"window_seconds": "window " + Compact(d.Status.Window), "rate_now": "now " + rate(d.Status.RateNow), "interval_requests": plural(d.Status.IntervalRequests, "request") + " in that of",
		"interval_start": "in that of " + s.clock(d.Status.IntervalStart), "requests": number(d.Status.Requests) + " requests since", "since": "range " + s.clock(d.Status.Since) + " to " + s.clock(d.Status.Until),
		"hosts_reporting": fmt.Sprintf("%d reporting", d.Status.Fleet.Reporting), "hosts_late": fmt.Sprintf("%d late", d.Status.Fleet.Late), "hosts_gone": fmt.Sprintf("%d gone", d.Status.Fleet.Gone),
		"loss": countsText(Loss(d.Status.Loss)), "other_protocols": "other protocols " + countsText(d.Status.OtherProtocols),
		"packets": "packets   " + packets, "alert.scope": "httpctl  " + Clean(a.Scope), "alert.state": string(a.State) + " since " + s.clock(a.Since),
		"alert.threshold_percent": fmt.Sprintf("threshold +%d%%, %s requests", a.ThresholdPercent, s.Human(Number, optional(a.ThresholdRequests))),
		"alert.window_requests":   plural(a.WindowRequests, "request"), "alert.learning": s.clock(a.LearningStart) + " to " + s.clock(a.LearningEnd) + "   estimated " + number(a.EstimatedBaseline),
		"alert.last":         "last      " + s.Human(Number, optional(a.LastRequests)) + " requests until " + s.clock(a.LastWindowEnd),
		"alert.joined_hosts": Clean(strings.Join(a.JoinedHosts, ", ")), "warnings": Clean(strings.Join(d.Status.Warnings, "")), "notes": Clean(strings.Join(d.Notes, "")),
	} {
		switch {
		case key == "warnings" || key == "notes":
			for _, text := range append(d.Status.Warnings[:len(d.Status.Warnings):len(d.Status.Warnings)], d.Notes...) {
				if !strings.Contains(above, Clean(text)) || !strings.Contains(listed, MarkdownText(Clean(text))) {
					t.Errorf("the header does not say %q", text)
				}
			}
		case !strings.Contains(above, want):
			t.Errorf("%s: the wide header does not say %q:\n%s", key, want, above)
		case !strings.Contains(listed, MarkdownText(want)):
			t.Errorf("%s: the header of Markdown does not say %q:\n%s", key, want, listed)
		}
	}
	if a.Baseline != nil && !strings.Contains(above, "baseline  "+number(*a.Baseline)+" per ") || a.LastIncomplete != strings.Contains(above, "\nlast ") && a.LastIncomplete {
		t.Errorf("the header does not say the baseline %v:\n%s", a, above)
	}
	if !a.WindowEnd.IsZero() && !strings.Contains(above, s.clock(a.WindowStart)+" to "+s.clock(a.WindowEnd)) {
		t.Errorf("the header does not say the window:\n%s", above)
	}
	if most := slices.Max(append([]uint64{0}, d.RateHistory...)); most > 0 {
		bars := regexp.MustCompile("[▁▂▃▄▅▆▇█]+").FindString(above)
		levels := []rune("▁▂▃▄▅▆▇█")
		for i, r := range []rune(bars) {
			if want := float64(d.RateHistory[i]) / float64(most) * 7; math.Abs(float64(slices.Index(levels, r))-want) > .51 {
				t.Errorf("bar %d of %q is not of %d", i, bars, d.RateHistory)
			}
		}
		if len([]rune(bars)) != len(history) || !strings.Contains(listed, bars) {
			t.Errorf("the header has not a bar for each interval of %v: %q", history, bars)
		}
	}
}

func checkComparisons(t *testing.T, list []*Comparison, texts map[Format]string) {
	sameAsJSON(t, []byte(texts[FormatYAML]), []byte(texts[FormatJSON]))
	whole := fieldsOf(t, []byte(texts[FormatJSON]))
	e := expected{t, map[[4]string]string{}}
	objects := whole.list(t, "comparisons")
	tables := tablesOf(t, texts[FormatMarkdown])
	if len(tables) != len(objects) {
		t.Fatalf("%d tables of Markdown, %d comparisons", len(tables), len(objects))
	}
	lines := strings.Split(texts[FormatWide], "\n")
	notes := whole.texts(t, "notes")
	for i, note := range notes {
		if lines[i] != Clean(note) {
			t.Errorf("line %d is %q, want the note %q before all else", i, lines[i], note)
		}
	}
	if lines = lines[len(notes):]; len(notes) > 0 && len(objects) > 0 {
		if lines[0] != "" {
			t.Errorf("behind the notes is %q, want an empty line", lines[0])
		}
		lines = lines[1:]
	}
	for i, o := range objects {
		c := list[i]
		e.members(c.Dimension.Name, "", o, "dimension", "rows")
		for k, row := range o.list(t, "rows") {
			e.rows(c.Dimension.Name, fmt.Sprint(k+1), keyNames(c.Dimension.Keys), row)
		}
		title := fmt.Sprintf("%s: %s, %s, against %s", Clean(c.Dimension.Title), Clean(c.Now), plain.stretch(c.Since, c.Until), Clean(c.Then))
		if !c.ThenSince.Equal(c.Since) {
			title += ", " + plain.stretch(c.ThenSince, c.ThenUntil)
		}
		if lines[0] != title {
			t.Errorf("the title is %q, want %q", lines[0], title)
		}
		rows := o.list(t, "rows")
		lines = lines[2:] // title, heading
		if len(rows) > 0 {
			lines = from(t, lines, "─")
		}
		lines = checkTable(t, columnNames(ComparisonGrid(c)), rows, tables[i], lines)
		total := fmt.Sprintf("In all %s, %s %s.", c.amount(c.Total), map[bool]string{true: "peers", false: "then"}[c.Peers], c.amount(c.ThenTotal))
		for lines[0] != "" && lines[0] != total {
			lines = lines[1:]
		}
		if len(lines) < 2 || lines[0] != total {
			t.Fatalf("no line says %q", total)
		}
		lines = lines[1:]
		if i < len(objects)-1 {
			lines = lines[1:]
		}
	}
	e.texts("notes", "note", notes)
	e.same(valuesOf(t, texts[FormatCSV]))
}

func checkReport(t *testing.T, r *Report, texts map[Format]string) {
	sameAsJSON(t, []byte(texts[FormatYAML]), []byte(texts[FormatJSON]))
	whole := fieldsOf(t, []byte(texts[FormatJSON]))
	e := expected{t, map[[4]string]string{}}
	e.members("report", "", whole, "tops", "rest", "warnings")
	e.texts("warnings", "warning", whole.texts(t, "warnings"))
	tops, rest := fieldsOf(t, whole["tops"]), fieldsOf(t, whole["rest"])
	tables := tablesOf(t, texts[FormatMarkdown])
	lines := strings.Split(texts[FormatWide], "\n")
	above, _, _ := strings.Cut(texts[FormatWide], "\n\n")
	for i := range r.Tops {
		top := &r.Tops[i]
		o := fieldsOf(t, rest[top.Name])
		e.members(top.Name, "", o, "other")
		var rows []fields
		if err := json.Unmarshal(tops[top.Name], &rows); err != nil {
			t.Fatal(err)
		}
		if len(top.Keys) > 1 { // all in one, besides each
			for _, row := range rows {
				delete(row, "key")
			}
		}
		topList(t, e, top, o, rows)
		if len(rows) == 0 {
			continue // and no table
		}
		g := TopGrid(top)
		if g.Column("volume_bytes") >= 0 {
			g.remove(g.Column("bytes"))
		}
		if len(tables) == 0 {
			t.Fatal("too few tables of Markdown")
		}
		lines = checkTable(t, columnNames(g), withOther(t, o, rows), tables[0], from(t, lines, "─"))
		tables = tables[1:]
	}
	if len(tables) > 0 {
		t.Errorf("%d tables of Markdown are surplus", len(tables))
	}
	e.same(valuesOf(t, texts[FormatCSV]))
	n := &r.Counters
	wants := []string{plural(n[exchange.Packets], "packet"), byteSize(int64(n[exchange.PacketBytes])), plural(n[exchange.Requests], "request"), plural(n[exchange.Responses], "response"),
		plural(n[exchange.InterimResponses], "interim response"), plural(n[exchange.Segments], "segment"), plural(n[exchange.Connections], "connection"),
		plural(n[exchange.EarlyResponses], "early response"), plural(n[exchange.Upgrades], "upgrade")}
	if !r.First.IsZero() {
		wants = append(wants, r.First.Format(time.DateTime)+" to "+r.Last.Format(time.DateTime))
	}
	if n[exchange.UnmatchedRequests] > 0 || n[exchange.UnmatchedResponses] > 0 {
		wants = append(wants, plural(n[exchange.UnmatchedRequests], "request")+" without response, "+plural(n[exchange.UnmatchedResponses], "response")+" without request")
	}
	for c := range exchange.NumCounters {
		suspect := n[exchange.SmugglingSuspects] > 0
		if n[c] > 0 && (c.Loss() || c.OtherProtocol() || c.Suspicion() && suspect || c == exchange.SmugglingSuspects) {
			name := strings.ReplaceAll(strings.TrimPrefix(c.String(), "suspect_"), "_", " ")
			if c == exchange.SmugglingSuspects {
				wants = append(wants, "differently: "+number(n[c]))
			} else {
				wants = append(wants, number(n[c])+" "+name)
			}
		}
	}
	for _, w := range r.Warnings {
		wants = append(wants, "warning: "+Clean(w))
	}
	listed, _, _ := strings.Cut(texts[FormatMarkdown], "\n\n")
	for _, want := range wants {
		if !strings.Contains(above, want) || !strings.Contains(listed, MarkdownText(want)) {
			t.Errorf("the report does not say %q:\n%s\n%s", want, above, listed)
		}
	}
}

// checkBaseline: CSV, Markdown and the wide table have every value of JSON, those of alert beside the others.
func checkBaseline(t *testing.T, texts map[Format]string) {
	sameAsJSON(t, []byte(texts[FormatYAML]), []byte(texts[FormatJSON]))
	whole := fieldsOf(t, []byte(texts[FormatJSON]))
	for key, raw := range fieldsOf(t, whole["alert"]) {
		whole[key] = raw
	}
	delete(whole, "alert")
	records, err := csv.NewReader(strings.NewReader(texts[FormatCSV])).ReadAll()
	if err != nil || len(records) != 2 {
		t.Fatalf("CSV: %v, %q", err, records)
	}
	if len(records[0]) != len(whole) {
		t.Errorf("CSV has %q, JSON %d values", records[0], len(whole))
	}
	rows := tablesOf(t, texts[FormatMarkdown])[0]
	lines := from(t, strings.Split(texts[FormatWide], "\n"), "─")
	if len(rows) != len(whole) || len(lines) != len(whole)+1 {
		t.Fatalf("%d rows of Markdown, %d lines, %d values of JSON", len(rows), len(lines)-1, len(whole))
	}
	for i, name := range records[0] {
		raw := whole[name]
		if raw == nil {
			t.Fatalf("JSON has no %s", name)
		}
		if got, want := records[1][i], csvOf(t, raw); got != want {
			t.Errorf("%s: CSV %q, JSON %s", name, got, raw)
		}
		label, cell := rows[i][0], rows[i][1]
		rest, ok := strings.CutPrefix(lines[i], label)
		if !ok || strings.TrimSpace(rest) != cell {
			t.Errorf("%s: the wide table has %q, Markdown %q: %q", name, lines[i], label, cell)
		}
		if name == "state" {
			var state State
			_ = json.Unmarshal(raw, &state)
			if word, _ := StateWord(state, plain); cell != strings.TrimSpace(word) {
				t.Errorf("state: %q, want %q", cell, word)
			}
		} else if wrong := disagree(cell, name, raw); wrong != "" {
			t.Errorf("%s: Markdown %q, JSON %s: %s", name, cell, raw, wrong)
		}
	}
}

// checkRecords compares what comes one after another: a line of JSON each, a document of YAML, a record of CSV, a row of Markdown and a line of text.
func checkRecords(columns []Column) func(*testing.T, map[Format]string) {
	names := columnNames(&Grid{Columns: columns})
	return func(t *testing.T, texts map[Format]string) {
		documents := strings.Split(texts[FormatYAML], "---\n")[1:]
		var objects []fields
		for i, line := range strings.Split(strings.TrimSuffix(texts[FormatJSON], "\n"), "\n") {
			o := fieldsOf(t, []byte(line))
			sameAsJSON(t, []byte("---\n"+documents[i]), []byte(line))
			if o["summary"] == nil {
				objects = append(objects, o)
			}
		}
		records, err := csv.NewReader(strings.NewReader(texts[FormatCSV])).ReadAll()
		if err != nil || len(records) != len(objects)+1 || strings.Join(records[0], " ") != strings.Join(names, " ") {
			t.Fatalf("CSV: %v, %d records, %d objects", err, len(records), len(objects))
		}
		shown, lines := tablesOf(t, texts[FormatMarkdown])[0], strings.Split(texts[FormatWide], "\n")
		if len(shown) != len(objects) || len(lines) != len(objects)+1 {
			t.Fatalf("%d rows of Markdown, %d lines, %d objects", len(shown), len(lines), len(objects))
		}
		for i, o := range objects {
			if len(o) != len(names) {
				t.Errorf("JSON has %d members, want %q", len(o), names)
			}
			for k, name := range names {
				if got, want := records[i+1][k], csvOf(t, o[name]); got != want {
					t.Errorf("%s: CSV %q, JSON %s", name, got, o[name])
				}
				if wrong := disagree(shown[i][k], name, o[name]); wrong != "" {
					t.Errorf("%s: Markdown %q, JSON %s: %s", name, shown[i][k], o[name], wrong)
				}
				text := shown[i][k]
				switch name {
				case "status":
					text = strings.ReplaceAll(text, ",", "") // a name, more than a number
				case "time":
					text = text[strings.LastIndex(text, " ")+1:]
				}
				if string(o[name]) != "null" && !strings.Contains(lines[i], text) {
					t.Errorf("%s: the wide line has no %q: %s", name, shown[i][k], lines[i])
				}
			}
		}
	}
}
