package view

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/exchange"
	"github.com/httpctl/httpctl/pkg/sketch"
	"github.com/httpctl/httpctl/pkg/stat"
)

// Report is what capture files hold. Zero times are of a capture without packets.
type Report struct {
	First, Last time.Time
	Counters    exchange.Counters
	Tops        []Top
	Warnings    []string
}

// TopsOf returns the top lists that tables offer, each with at most limit rows
// (0: all), in the tables' order.
func TopsOf(tables []*bucket.Table, limit int) []Top {
	var tops []Top
	for _, t := range tables {
		for i := range t.Schema.Views {
			tops = append(tops, topOf(t, &t.Schema.Views[i], limit))
		}
	}
	return tops
}

// DimensionOf describes a top list that a table offers. The view is one of
// the schema, which is valid.
func DimensionOf(s *bucket.Schema, v *bucket.View) Dimension {
	d := Dimension{Name: v.Name, Title: v.Title, Keys: v.By}
	for i, name := range append([]string{v.Hits}, v.Show...) {
		m := s.Measures[s.Measure(name)]
		column := Measure{Name: m.Name, Unit: m.Unit}
		switch m.Kind {
		case bucket.Max:
			column.Kind = Max
		case bucket.Latency:
			column.Kind = LatencyColumn
		}
		if i == 0 && !slices.Contains(v.Show, stat.MeasureHits) {
			column.Name = stat.MeasureHits
		}
		d.Columns = append(d.Columns, column)
	}
	return d
}

// topOf makes one top list of a table. The view is one of the table's schema,
// which is valid.
func topOf(t *bucket.Table, v *bucket.View, limit int) Top {
	p, err := t.Project(v.By)
	if err != nil {
		panic(err) // a valid schema's view names its own columns
	}
	top := Top{Dimension: DimensionOf(&t.Schema, v), Floor: p.Floor}
	names := append([]string{v.Hits}, v.Show...)
	bytes := bytesOf(&t.Schema)
	ownBytes := slices.Contains(names, stat.MeasureBytes)
	if !ownBytes {
		top.Columns = append(top.Columns, Measure{Name: stat.MeasureBytes, Unit: "By"})
	}
	row := func(r *bucket.Row) TopRow {
		out := TopRow{Keys: r.Keys, Error: r.Err}
		for _, name := range names {
			i := t.Schema.Measure(name)
			var value Value
			if t.Schema.Measures[i].Kind == bucket.Latency {
				value.Latency = summary(r.Latency[t.Schema.LatencyIndex(i)])
			} else {
				value.Number = r.Values[i]
			}
			out.Values = append(out.Values, value)
		}
		if !ownBytes {
			var sum int64
			for _, i := range bytes {
				sum += r.Values[i]
			}
			out.Values = append(out.Values, Value{Number: sum})
		}
		return out
	}
	hits := t.Schema.Measure(v.Hits)
	top.Total = p.Total(hits)
	shown := p.Top(limit, hits)
	for _, r := range shown {
		top.Rows = append(top.Rows, row(r))
	}
	if other := restOf(p, shown); other.Values[hits] > 0 {
		r := row(other)
		top.Other = &r
	}
	return top
}

// restOf adds up what a table holds besides the rows shown.
func restOf(t *bucket.Table, shown []*bucket.Row) *bucket.Row {
	rest := bucket.NewTable(t.Schema, 1).Other
	add := func(r *bucket.Row) {
		for i, m := range t.Schema.Measures {
			l := t.Schema.LatencyIndex(i)
			switch {
			case l < 0 && m.Kind == bucket.Max:
				rest.Values[i] = max(rest.Values[i], r.Values[i])
			case l < 0:
				rest.Values[i] += r.Values[i]
			case r.Latency[l] != nil:
				if rest.Latency[l] == nil {
					rest.Latency[l] = new(sketch.Latency)
				}
				rest.Latency[l].Merge(r.Latency[l])
			}
		}
	}
	add(&t.Other)
	seen := make(map[*bucket.Row]bool, len(shown))
	for _, r := range shown {
		seen[r] = true
	}
	for _, r := range t.Rows {
		if !seen[r] {
			add(r)
		}
	}
	return &rest
}

// bytesOf lists the measures that add up to the wire bytes of a row.
func bytesOf(s *bucket.Schema) []int {
	for _, names := range [][]string{{stat.MeasureBytes}, {"volume"}, {stat.TotalRequestWireBytes, stat.TotalResponseWireBytes}} {
		var found []int
		for _, name := range names {
			if i := s.Measure(name); i >= 0 && s.Measures[i].Kind == bucket.Sum {
				found = append(found, i)
			}
		}
		if len(found) == len(names) {
			return found
		}
	}
	return nil
}

func summary(l *sketch.Latency) *Latency {
	if l == nil || l.Count == 0 {
		return nil
	}
	return &Latency{
		Count: l.Count, Average: time.Duration(l.Mean()), Peak: time.Duration(l.Max),
		P50: time.Duration(l.Quantile(.5)), P95: time.Duration(l.Quantile(.95)), P99: time.Duration(l.Quantile(.99)),
	}
}

// WriteReport writes a report: a summary and its top lists.
func WriteReport(w io.Writer, f Format, s Style, r *Report) error {
	if f == FormatJSON {
		return writeJSON(w, reportObject(r))
	}
	if f == FormatYAML {
		return writeYAML(w, reportObject(r))
	}
	if f == FormatCSV {
		return reportCSV(w, r)
	}
	markdown := f == FormatMarkdown
	if markdown {
		s.Color = false
	}
	var b strings.Builder
	n := &r.Counters
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("%s, %s", plural(n[exchange.Packets], "packet"), byteSize(int64(n[exchange.PacketBytes])))
	if !r.First.IsZero() {
		first, last := r.First.In(s.location()), r.Last.In(s.location())
		s.Now = last // a capture reads the same on any day: what is of its last day needs no date
		line("%s to %s (%s)", first.Format(time.DateTime), last.Format(time.DateTime), span(last.Sub(first)))
	}
	line("%s, %s, %s", plural(n[exchange.Requests], "request"), plural(n[exchange.Responses], "response"), plural(n[exchange.InterimResponses], "interim response"))
	if f == FormatWide || markdown {
		line("%s, %s, %s, %s", plural(n[exchange.Segments], "segment"), plural(n[exchange.Connections], "connection"),
			plural(n[exchange.EarlyResponses], "early response"), plural(n[exchange.Upgrades], "upgrade"))
	}
	if n[exchange.UnmatchedRequests]+n[exchange.UnmatchedResponses] > 0 {
		line("%s", s.Paint(Warn, fmt.Sprintf("unmatched: %s without response, %s without request",
			plural(n[exchange.UnmatchedRequests], "request"), plural(n[exchange.UnmatchedResponses], "response"))))
	}
	if list := counters(n, exchange.Counter.Loss); len(list) > 0 {
		line("%s", s.Paint(Warn, "not seen: "+countsText(list)))
	}
	if list := counters(n, exchange.Counter.OtherProtocol); len(list) > 0 {
		line("other protocols (connections): %s", countsText(list))
	}
	if c := n[exchange.SmugglingSuspects]; c > 0 {
		reasons := counters(n, exchange.Counter.Suspicion)
		for i := range reasons {
			reasons[i].Name = strings.TrimPrefix(reasons[i].Name, "suspect_")
		}
		line("%s", s.Paint(Warn, fmt.Sprintf("requests that two servers could frame differently: %s (%s)", number(c), countsText(reasons))))
	}
	if f == FormatWide || markdown { // the terminal of a table has them on standard error
		for _, warning := range r.Warnings {
			line("%s", s.Paint(Warn, "warning: "+Clean(warning)))
		}
	}
	var err error
	if markdown {
		err = markdownItems(w, strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n"))
	} else {
		_, err = io.WriteString(w, b.String())
	}
	if err != nil {
		return err
	}
	for i := range r.Tops {
		t := &r.Tops[i]
		if len(t.Rows) == 0 {
			continue
		}
		g := TopGrid(t)
		if g.Column("volume_bytes") >= 0 { // the same as its bytes, which scripts find in every list
			g.remove(g.Column(stat.MeasureBytes))
		}
		if _, err := io.WriteString(w, "\n"); err != nil {
			return err
		}
		if markdown {
			err = g.Markdown(w, s)
		} else {
			err = g.Table(w, s, f == FormatWide)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// counters returns those of a kind that are not zero.
func counters(n *exchange.Counters, kind func(exchange.Counter) bool) []Count {
	var out []Count
	for c, v := range n {
		if c := exchange.Counter(c); v > 0 && kind(c) {
			out = append(out, Count{c.String(), v})
		}
	}
	return out
}

// reportCSV writes every value of the report on a line of its own.
func reportCSV(w io.Writer, r *Report) error {
	v := newValues(w)
	v.object("report", reportCounts(r))
	for i := range r.Tops {
		t := &r.Tops[i]
		v.grid(t.Name, len(t.Keys), TopGrid(t))
		v.put(t.Name, "", "", "total", t.Total)
		v.put(t.Name, "", "", "floor", t.Floor)
	}
	v.list("warnings", "warning", r.Warnings)
	return v.end()
}

// get returns the value of a member, nil if there is none.
func (o object) get(key string) any {
	for _, m := range o {
		if m.key == key {
			return m.value
		}
	}
	return nil
}

// topObjects are the rows of a report's top list. Besides the key columns each
// has key: the one key, or all of several, separated by spaces.
func topObjects(t *Top, g *Grid) []object {
	rows := g.objects(g.Rows)
	for i, o := range rows {
		if o.get("key") == nil {
			rows[i] = append(object{{"key", machine(strings.Join(t.Rows[i].Keys, " "))}}, o...)
		}
	}
	return rows
}

// reportCounts is what a report says of all packets.
func reportCounts(r *Report) object {
	n := &r.Counters
	all := func(kind func(exchange.Counter) bool) object {
		o := object{}
		for c, v := range n {
			if c := exchange.Counter(c); kind(c) {
				o = append(o, member{c.String(), v})
			}
		}
		return o
	}
	return object{
		{"packets", n[exchange.Packets]},
		{"bytes", n[exchange.PacketBytes]},
		{"first", machine(r.First)},
		{"last", machine(r.Last)},
		{"segments", n[exchange.Segments]},
		{"connections", n[exchange.Connections]},
		{"requests", n[exchange.Requests]},
		{"responses", n[exchange.Responses]},
		{"interim_responses", n[exchange.InterimResponses]},
		{"unmatched_requests", n[exchange.UnmatchedRequests]},
		{"unmatched_responses", n[exchange.UnmatchedResponses]},
		{"early_responses", n[exchange.EarlyResponses]},
		{"upgrades", n[exchange.Upgrades]},
		{"smuggling_suspects", n[exchange.SmugglingSuspects]},
		{"smuggling_reasons", all(exchange.Counter.Suspicion)},
		{"loss", all(exchange.Counter.Loss)},
		{"other_protocols", all(exchange.Counter.OtherProtocol)},
	}
}

// reportObject is the JSON of a report.
func reportObject(r *Report) object {
	tops, rest := object{}, object{}
	for i := range r.Tops {
		t := &r.Tops[i]
		g := TopGrid(t)
		tops = append(tops, member{t.Name, topObjects(t, g)})
		var other any
		if g.Other != nil {
			other = g.objects([]Row{*g.Other})[0]
		}
		rest = append(rest, member{t.Name, object{{"total", t.Total}, {"floor", t.Floor}, {"other", other}}})
	}
	return append(reportCounts(r), object{
		{"warnings", valid(r.Warnings)},
		{"tops", tops},
		{"rest", rest},
	}...)
}
