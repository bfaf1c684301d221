package view

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/httpctl/httpctl/pkg/exchange"
)

// Sample is one live exchange, as a host saw it.
type Sample struct {
	Host, HostID            string
	Time                    time.Time // first byte
	Client, Server          string
	Role, Protocol          string
	HasRequest, HasResponse bool
	Method, Domain, Section string
	// Path is empty where the host does not show it, as UserAgent is.
	Path, UserAgent             string
	Status                      int // 0: none
	RequestBytes, ResponseBytes uint64
	TTFB, Duration              *time.Duration // nil: not known
	End                         string
}

// TailSummary says how complete what was shown of a tail is.
type TailSummary struct {
	Matched, Shown uint64
	// Why others were not: by sampling, beyond a rate bound, since too many waited at a host, since this reader was slow.
	SampledOut, OverRate, Overflowed, SlowReader uint64
	// KernelDrops are packets that hosts did not see.
	KernelDrops                uint64
	HostsAsked, HostsAnswering uint32
	// Missing are hosts that show nothing, or not all the time: the first of MissingCount.
	Missing      []TailMissing
	MissingCount uint32
	// End says why the tail has ended, "" while it goes on.
	End string
}

// TailMissing is a host, and why it is missing.
type TailMissing struct{ Host, Reason string }

// Dropped is how many matched and will not be shown.
func (m *TailSummary) Dropped() uint64 {
	return m.SampledOut + m.OverRate + m.Overflowed + m.SlowReader
}

// Waiting is how many matched and are on their way.
func (m *TailSummary) Waiting() uint64 {
	if known := m.Shown + m.Dropped(); known < m.Matched {
		return m.Matched - known
	}
	return 0
}

// Same reports whether another summary counts the same.
func (m *TailSummary) Same(o *TailSummary) bool {
	return m.Matched == o.Matched && m.Shown == o.Shown && m.Dropped() == o.Dropped() && m.KernelDrops == o.KernelDrops && m.MissingCount == o.MissingCount
}

// TailLines draws exchanges as lines, whose columns are as wide as what they have had, within bounds. The zero value is ready.
type TailLines struct {
	// Wide lines have all that is told of an exchange, and nothing is cut.
	Wide       bool
	host, ends int
}

// Bounds of the columns of host, and of client and server.
const (
	maxTailHost = 24
	maxTailEnds = 44 // two IPv4 addresses with ports
)

// Line returns an exchange as a line of text without its end. Where the style has a width, the path is cut to it.
func (l *TailLines) Line(s Style, x *Sample) string { return l.line(s, x, sampleColumns, x.cells) }

// Exchange is Line for an exchange of a file, which has no host.
func (l *TailLines) Exchange(s Style, x *exchange.Exchange) string {
	return l.line(s, sampleOf(x), exchangeColumns, func() []any { return exchangeCells(x) })
}

func (l *TailLines) line(s Style, x *Sample, columns []Column, cells func() []any) string {
	host, ends := Clean(x.Host), Clean(x.Client)+" -> "+Clean(x.Server)
	if l.Wide {
		s.Width = 0
	} else {
		host = Cut(host, maxTailHost, s.ellipsis())
	}
	l.host = max(l.host, min(Width(host), maxTailHost))
	l.ends = max(l.ends, min(Width(ends), maxTailEnds))
	method := "-"
	if x.HasRequest {
		method = Clean(x.Method)
	}
	before := Pad(host, l.host)
	if l.host > 0 { // those of a file have none
		before += "  "
	}
	before += Pad(ends, l.ends) + "  " + Pad(method, 4) + " "
	what := Clean(x.Domain + x.Path)
	switch {
	case !x.HasRequest:
		what = "-"
	case x.Path == "" && x.Method != "CONNECT":
		what = Clean(x.Section) + s.ellipsis() // what follows is not shown
	}
	status := exchange.StatusText(x.Status)
	after := "  " + byteSize(int64(min(x.ResponseBytes, 1<<62)))
	if x.TTFB != nil {
		after += "  ttfb " + s.latency(*x.TTFB)
	}
	if x.Duration != nil {
		after += "  in " + s.latency(*x.Duration)
	}
	switch {
	case !x.HasRequest:
		after += "  no request seen"
	case !x.HasResponse:
		after += "  no response: " + Clean(x.End)
	case x.End != "complete" && x.End != "upgraded":
		after += "  " + Clean(x.End)
	}
	if l.Wide {
		after += rest(s, columns, cells(), what)
	}
	at := x.Time.In(s.location()).Format("15:04:05.000")
	if s.Width > 0 {
		used := len(at) + 2 + Width(before) + 2 + len(status) + Width(after)
		what = Cut(what, max(s.Width-used, 16), s.ellipsis())
	}
	return s.Paint(Faint, at) + "  " + before + s.Paint(Strong, what) + "  " + s.Paint(statusTone(x.Status), status) + after
}

// inLine are columns whose values each line has.
var inLine = []string{"time", "host", "client", "server", "method", "status", "response_wire_bytes", "ttfb_seconds", "duration_seconds"}

// rest is what only a wide line has: all that is told and is not in it.
func rest(s Style, columns []Column, cells []any, what string) string {
	var b strings.Builder
	for i, c := range columns {
		text := strings.TrimSpace(s.Human(c.Kind, cells[i]))
		if cells[i] == nil || text == "" || slices.Contains(inLine, c.Name) || c.Name != "section" && c.Kind == Text && strings.Contains(what, text) {
			continue
		}
		b.WriteString("  " + strings.ToLower(c.Head) + " " + text)
	}
	return b.String()
}

func statusTone(status int) Tone {
	switch {
	case status == 0 || status >= 500:
		return Bad
	case status >= 400:
		return Warn
	case status >= 200 && status < 300:
		return Good
	}
	return Plain
}

// sampleColumns are what is told of a live exchange.
var sampleColumns = []Column{
	{Name: "time", Head: "TIME", Kind: Instant}, {Name: "host", Head: "HOST"}, {Name: "host_id", Head: "ID"}, {Name: "client", Head: "CLIENT"}, {Name: "server", Head: "SERVER"},
	{Name: "role", Head: "ROLE"}, {Name: "protocol", Head: "PROTOCOL"}, {Name: "method", Head: "METHOD"}, {Name: "domain", Head: "DOMAIN"}, {Name: "section", Head: "SECTION"},
	{Name: "path", Head: "PATH"}, {Name: "user_agent", Head: "USER AGENT"}, {Name: "status", Head: "STATUS", Kind: Number},
	{Name: "request_wire_bytes", Head: "REQUEST", Kind: Bytes}, {Name: "response_wire_bytes", Head: "RESPONSE", Kind: Bytes},
	{Name: "ttfb_seconds", Head: "TTFB", Kind: Duration}, {Name: "duration_seconds", Head: "DURATION", Kind: Duration}, {Name: "end", Head: "END"},
}

// cells are parallel to sampleColumns. What is not shown, or of an absent half, is absent.
func (x *Sample) cells() []any {
	seconds := func(d *time.Duration) any {
		if d == nil {
			return nil
		}
		return *d
	}
	text := func(v string) any { return half(x.HasRequest && v != "", v) }
	return []any{
		x.Time, x.Host, x.HostID, x.Client, x.Server, x.Role, x.Protocol,
		text(x.Method), text(x.Domain), text(x.Section), text(x.Path), text(x.UserAgent),
		half(x.HasResponse && x.Status != 0, int64(x.Status)), half(x.HasRequest, clamp(x.RequestBytes)), half(x.HasResponse, clamp(x.ResponseBytes)),
		seconds(x.TTFB), seconds(x.Duration), x.End,
	}
}

// Sample writes a live exchange.
func (r *Records) Sample(x *Sample) error { return r.write(sampleColumns, x.cells()) }

func writeLine(w io.Writer, o object) error {
	b, err := o.MarshalJSON()
	if err != nil {
		return err
	}
	_, err = w.Write(append(escape(b), '\n'))
	return err
}

// summaryObject is the JSON of a summary.
func summaryObject(m *TailSummary) object {
	missing := []object{}
	for _, x := range m.Missing {
		missing = append(missing, object{{"host", machine(x.Host)}, {"reason", machine(x.Reason)}})
	}
	var end any
	if m.End != "" {
		end = machine(m.End)
	}
	return object{{"summary", object{
		{"matched", m.Matched}, {"shown", m.Shown}, {"dropped", m.Dropped()}, {"waiting", m.Waiting()},
		{"sampled_out", m.SampledOut}, {"over_rate", m.OverRate}, {"overflowed", m.Overflowed}, {"slow_reader", m.SlowReader},
		{"kernel_drops", m.KernelDrops}, {"hosts_asked", m.HostsAsked}, {"hosts_answering", m.HostsAnswering},
		{"missing", missing}, {"missing_count", m.MissingCount}, {"end", end},
	}}}
}

// TailSummary writes a summary, where the form has a place for what is no exchange: JSON and YAML
// have an object with the one member summary. It reports whether it did.
func (r *Records) TailSummary(m *TailSummary) (bool, error) {
	switch r.form {
	case FormatJSON:
		return true, writeLine(r.w, summaryObject(m))
	case FormatYAML:
		return true, writeYAML(r.w, summaryObject(m))
	}
	return false, nil
}

// TailSummaryText says a summary in a line without its end.
func TailSummaryText(m *TailSummary) string {
	text := fmt.Sprintf("%s matched, %s shown, %s dropped", number(m.Matched), number(m.Shown), number(m.Dropped()))
	var parts []string
	for _, p := range []struct {
		n   uint64
		why string
	}{
		{m.SampledOut, "by sampling"}, {m.OverRate, "over the rate"}, {m.Overflowed, "as too many waited on a host"}, {m.SlowReader, "as this reader was slow"},
	} {
		if p.n > 0 {
			parts = append(parts, number(p.n)+" "+p.why)
		}
	}
	if len(parts) > 0 {
		text += " (" + strings.Join(parts, ", ") + ")"
	}
	if n := m.Waiting(); n > 0 {
		text += ", " + number(n) + " on their way"
	}
	if m.KernelDrops > 0 {
		text += fmt.Sprintf("; %s packets were not seen", number(m.KernelDrops))
	}
	text += fmt.Sprintf("; %d of %s answered", m.HostsAnswering, plural(m.HostsAsked, "host"))
	if m.End != "" {
		text += "; ended: " + Clean(m.End)
	}
	return text
}

// TailMissingText says which hosts are missing in a tail, a line each without its end.
func TailMissingText(m *TailSummary) (lines []string) {
	for _, x := range m.Missing {
		lines = append(lines, Clean(x.Host)+": "+Clean(x.Reason))
	}
	if more := int(m.MissingCount) - len(m.Missing); more > 0 && len(m.Missing) > 0 {
		lines = append(lines, plural(more, "more host"))
	}
	return lines
}
