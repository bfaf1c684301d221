package view

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// object is a JSON object whose members keep their order.
type object []member

type member struct {
	key   string
	value any
}

// MarshalJSON implements json.Marshaler.
func (o object) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		for j, part := range []any{m.key, m.value} {
			if j > 0 {
				b.WriteByte(':')
			}
			e := json.NewEncoder(&b)
			e.SetEscapeHTML(false)
			if err := e.Encode(part); err != nil {
				return nil, err
			}
			b.Truncate(b.Len() - 1) // the encoder's newline
		}
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// writeJSON writes v indented, with a newline at its end.
func writeJSON(w io.Writer, v any) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return err
	}
	_, err := w.Write(escape(b.Bytes()))
	return err
}

// escape writes what a terminal would act on, and encoding/json leaves as it
// is, in the escapes of JSON: DEL, C1 controls, bidirectional and other format characters.
// The value stays the same. Outside of strings JSON is ASCII.
func escape(text []byte) []byte {
	out := make([]byte, 0, len(text))
	for len(text) > 0 {
		r, n := utf8.DecodeRune(text)
		switch {
		case r < 0x7f || unicode.IsPrint(r):
			out = append(out, text[:n]...)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
		text = text[n:]
	}
	return out
}

func valid(list []string) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = strings.ToValidUTF8(s, "\uFFFD")
	}
	return out
}

func counts(list []Count) object {
	o := object{}
	for _, c := range list {
		o = append(o, member{strings.ToValidUTF8(c.Name, "\uFFFD"), c.Value})
	}
	return o
}

func optional[N int64 | uint64](n *N) any {
	if n == nil {
		return nil
	}
	return *n
}

// latencyObject is the JSON of a latency summary; one of nothing has no times.
func latencyObject(l *Latency) object {
	o := object{{"count", l.Count}}
	for _, x := range []struct {
		name string
		d    time.Duration
	}{{"average", l.Average}, {"p50", l.P50}, {"p95", l.P95}, {"p99", l.P99}, {"max", l.Peak}} {
		m := member{x.name + "_seconds", nil}
		if l.Count > 0 {
			m.value = machine(x.d)
		}
		o = append(o, m)
	}
	return o
}

// topObject is the JSON of a top list.
func topObject(t *Top, g *Grid) object {
	var other any
	if g.Other != nil {
		other = g.objects([]Row{*g.Other})[0]
	}
	o := object{
		{"dimension", machine(t.Name)},
		{"title", machine(t.Title)},
		{"since", machine(t.Since)},
		{"until", machine(t.Until)},
		{"total", t.Total},
		{"floor", t.Floor},
		{"damaged_intervals", t.DamagedIntervals},
		{"rows", g.objects(g.Rows)},
		{"other", other},
	}
	if len(t.Classes) > 0 {
		o = append(o, member{"classes", counts(t.Classes)})
	}
	if t.Latency != nil {
		o = append(o, member{"latency", latencyObject(t.Latency)})
	}
	if t.Coverage != nil {
		o = append(o, member{"coverage", coverageObject(t.Coverage)}, member{"loss", counts(Loss(t.Loss))})
		if t.Skipped > 0 {
			o = append(o, member{"skipped_buckets", t.Skipped})
		}
	}
	return o
}

func entries(list []AlertEntry) []object {
	out := []object{}
	for _, e := range list {
		o := object{{"time", machine(e.Time)}, {"hits", e.Hits}}
		if e.LateHits > 0 {
			o = append(o, member{"late_hits", e.LateHits})
		}
		if e.Incomplete {
			o = append(o, member{"incomplete", true})
		}
		out = append(out, o)
	}
	return out
}

// alertObjects is the JSON of the alerts of a history.
func alertObjects(a *Alerts) []object {
	list := []object{}
	for i := range a.Alerts {
		e := &a.Alerts[i]
		o := object{
			{"scope", machine(e.Scope)},
			{"state", string(e.State)},
			{"start", machine(e.Start)},
			{"end", machine(e.End)},
			{"duration_seconds", e.Duration(a.Time).Seconds()},
			{"baseline", e.Baseline},
			{"threshold_percent", e.ThresholdPercent},
			{"entries", entries(e.Entries)},
		}
		if len(e.JoinedHosts) > 0 {
			o = append(o, member{"joined_hosts", valid(e.JoinedHosts)})
		}
		list = append(list, o)
	}
	return list
}

// alertsObject is the JSON of an alert history of these alerts.
func alertsObject(a *Alerts, list []object) object {
	return object{
		{"alerts", list},
		{"max_duration_seconds", a.MaxDuration.Seconds()},
		{"average_duration_seconds", a.AverageDuration.Seconds()},
	}
}

// hostObjects is the JSON of hosts.
func hostObjects(hosts []Host) []object {
	g := HostsGrid(hosts)
	return g.objects(g.Rows)
}

// alertStatusObject is the JSON of where the rule stands.
func alertStatusObject(a *AlertStatus) object {
	return object{
		{"scope", machine(a.Scope)},
		{"state", string(a.State)},
		{"since", machine(a.Since)},
		{"baseline", optional(a.Baseline)},
		{"threshold_percent", a.ThresholdPercent},
		{"threshold_requests", optional(a.ThresholdRequests)},
		{"window_start", machine(a.WindowStart)},
		{"window_end", machine(a.WindowEnd)},
		{"window_requests", a.WindowRequests},
		{"learning_start", machine(a.LearningStart)},
		{"learning_end", machine(a.LearningEnd)},
		{"estimated_baseline", a.EstimatedBaseline},
		{"last_requests", optional(a.LastRequests)},
		{"last_window_end", machine(a.LastWindowEnd)},
		{"last_incomplete", a.LastIncomplete},
		{"joined_hosts", valid(a.JoinedHosts)},
	}
}

// statusObject is the JSON of the dashboard's header.
func statusObject(s *Status) object {
	return object{
		{"time", machine(s.Time)},
		{"version", machine(s.Version)},
		{"interval_seconds", s.Interval.Seconds()},
		{"window_seconds", s.Window.Seconds()},
		{"refresh_seconds", s.Refresh.Seconds()},
		{"rate_now", s.RateNow},
		{"rate_average", s.RateAverage},
		{"interval_requests", s.IntervalRequests},
		{"interval_start", machine(s.IntervalStart)},
		{"requests", s.Requests},
		{"since", machine(s.Since)},
		{"until", machine(s.Until)},
		{"hosts_reporting", s.Fleet.Reporting},
		{"hosts_late", s.Fleet.Late},
		{"hosts_gone", s.Fleet.Gone},
		{"loss", counts(s.Loss)},
		{"packets", optional(s.Packets)},
		{"other_protocols", counts(s.OtherProtocols)},
		{"alert", alertStatusObject(&s.Alert)},
		{"warnings", valid(s.Warnings)},
	}
}

// WriteDashboardLine writes what WriteDashboard does as JSON, in one line.
func WriteDashboardLine(w io.Writer, d *Dashboard) error { return writeLine(w, dashboardObject(d)) }

// dashboardObject is the JSON of the dashboard.
func dashboardObject(d *Dashboard) object {
	tops := []object{}
	for i := range d.Tops {
		tops = append(tops, topObject(&d.Tops[i], TopGrid(&d.Tops[i])))
	}
	history := d.RateHistory
	if history == nil {
		history = []uint64{}
	}
	return object{
		{"status", statusObject(&d.Status)},
		{"tops", tops},
		{"alerts", alertsObject(&d.Alerts, alertObjects(&d.Alerts))},
		{"hosts", hostObjects(d.Hosts)},
		{"rate_history", history},
		{"notes", valid(d.Notes)},
	}
}

// baselineObject is the JSON of the baseline.
func baselineObject(b *Baseline, window time.Duration) object {
	return object{
		{"alert", alertStatusObject(&b.Alert)},
		{"window_seconds", window.Seconds()},
		{"learned_from", machine(b.From)},
		{"learned_until", machine(b.Until)},
		{"learned_requests", b.Requests},
		{"covered_seconds", b.CoveredSeconds},
		{"learned_hosts", valid(b.Hosts)},
		{"restarts", b.Restarts},
	}
}

// WriteStatus writes the JSON of the dashboard's header alone.
func WriteStatus(w io.Writer, s *Status) error { return writeJSON(w, statusObject(s)) }
