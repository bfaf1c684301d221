package report

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"github.com/httpctl/httpctl/pkg/testkit/golden"
	"github.com/httpctl/httpctl/pkg/view"
)

var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

func at(d time.Duration) time.Time { return noon.Add(d) }

// evil are strings as a hostile client may send them.
var evil = []string{
	`<script>alert("pwned")</script>`, `"><img src=x onerror=alert(1)>`, `</style><svg onload=alert(1)>`, `'-alert(1)-'`,
	"javascript:alert(1)", "{{.Title}}", "<!--", "]]>", "&lt;b&gt;", "\x1b[31m\u202e", "\xff\x00", "| a | `b` **c**",
}

// sample is a day of a fleet of three, with two alerts and an hour without data.
func sample() *Input {
	n := func(v int64) *int64 { return &v }
	hits, seen := view.Measure{Name: "hits", Unit: "{request}"}, view.Measure{Name: "last_seen", Unit: "ns", Kind: view.Max}
	ttfb := view.Measure{Name: "ttfb", Unit: "ns", Kind: view.LatencyColumn}
	value := func(v int64) view.Value { return view.Value{Number: v} }
	latency := func(p50, p95, p99 time.Duration) view.Value {
		return view.Value{Latency: &view.Latency{Count: 10, Average: p50, P50: p50, P95: p95, P99: p99, Peak: 2 * p99}}
	}
	top := func(name, title string, measures []view.Measure, rows ...view.TopRow) view.Top {
		t := view.Top{Dimension: view.Dimension{Name: name, Title: title, Keys: []string{name}, Columns: append([]view.Measure{hits}, measures...)},
			Rows: rows, Since: at(-24 * time.Hour), Until: noon}
		for _, r := range rows {
			t.Total += r.Values[0].Number
		}
		return t
	}
	status := top("status", "Status codes", []view.Measure{ttfb, seen},
		view.TopRow{Keys: []string{"200"}, Values: []view.Value{value(9_000), latency(2e6, 2e7, 6e7), value(noon.UnixNano())}},
		view.TopRow{Keys: []string{"503"}, Values: []view.Value{value(300), latency(1e6, 1e7, 5e7), value(noon.UnixNano())}})
	status.Total, status.Classes = 9_400, []view.Count{{Name: "2xx", Value: 9_000}, {Name: "5xx", Value: 300}, {Name: "-", Value: 100}}
	status.Latency = &view.Latency{Count: 9_300, Average: 2e6, P50: 2e6, P95: 2e7, P99: 6e7, Peak: 3e9}
	section := top("section", "Sections", []view.Measure{seen},
		view.TopRow{Keys: []string{"shop.example.org/cart"}, Values: []view.Value{value(700), value(noon.UnixNano())}, Error: 12},
		view.TopRow{Keys: []string{"shop.example.org/" + evil[0]}, Values: []view.Value{value(200), value(noon.UnixNano())}})
	section.Floor, section.Other = 12, &view.TopRow{Values: []view.Value{value(50), value(noon.UnixNano())}}
	var agents []view.TopRow
	for _, e := range evil {
		agents = append(agents, view.TopRow{Keys: []string{e}, Values: []view.Value{value(10), value(noon.UnixNano())}})
	}
	d := &view.Dashboard{
		Status: view.Status{
			Time: noon, Version: "v1", Interval: 10 * time.Second, Window: 2 * time.Minute, RateAverage: 10, Requests: 864_000,
			Since: at(-24 * time.Hour), Until: noon, Fleet: view.Fleet{Reporting: 1, Late: 1, Gone: 1},
			Loss: []view.Count{{Name: "kernel_drops", Value: 12}, {Name: "gap_bytes", Value: 34_567}},
			Alert: view.AlertStatus{Scope: "fleet", State: view.Dismissed, Since: at(-3 * time.Minute), Baseline: n(1200), ThresholdPercent: 10,
				ThresholdRequests: n(1320)},
		},
		Alerts: view.Alerts{Time: noon, MaxDuration: 8 * time.Minute, AverageDuration: 6 * time.Minute, Alerts: []view.Alert{
			{Scope: "fleet", State: view.Dismissed, Start: at(-11 * time.Minute), End: at(-3 * time.Minute), Baseline: 1200, ThresholdPercent: 10,
				Entries: []view.AlertEntry{{Time: at(-11 * time.Minute), Hits: 2500}, {Time: at(-9 * time.Minute), Hits: 2600}}},
			{Scope: "fleet", State: view.Dismissed, Start: at(-10 * time.Hour), End: at(-10*time.Hour + 4*time.Minute), Baseline: 1200, ThresholdPercent: 10,
				Entries: []view.AlertEntry{{Time: at(-10 * time.Hour), Hits: 1400, Incomplete: true}}},
		}},
		Hosts: []view.Host{
			{Name: "web-1", ID: "0a", Health: view.Reporting, Connected: true, CoveredThrough: noon, Requests: 400_000, Rate: 6},
			{Name: "web-2", ID: "0b", Health: view.Late, Connected: true, CoveredThrough: at(-time.Minute), Requests: 464_000, Rate: 4, Counters: []view.Count{{Name: "kernel_drops", Value: 12}, {Name: "packets", Value: 99}}},
			{Name: "web-3" + evil[1], ID: "0c", Health: view.Gone, CoveredThrough: at(-time.Hour)},
		},
		Tops: []view.Top{section, status, top("user_agent", "User agents", []view.Measure{seen}, agents...),
			top("server", "Response times by server", []view.Measure{ttfb, seen},
				view.TopRow{Keys: []string{"192.0.2.1:80"}, Values: []view.Value{value(6_000), latency(2e6, 2e7, 6e7), value(noon.UnixNano())}},
				view.TopRow{Keys: []string{evil[2]}, Values: []view.Value{value(3_000), latency(5e5, 9e5, 3e9), value(noon.UnixNano())}})},
		Notes: []string{"volume: cannot be filtered by " + evil[3]},
	}
	x := &view.Series{Step: "hour", Since: at(-24 * time.Hour), Until: noon, Coverage: &view.Coverage{Covered: 23 * time.Hour, First: at(-24 * time.Hour), Last: noon, GapCount: 1,
		Gaps: []view.TimeSpan{{Since: at(-14 * time.Hour), Until: at(-13 * time.Hour)}}}}
	bad := &view.Series{Step: "hour", Since: x.Since, Until: x.Until}
	for i := range 24 {
		p := view.SeriesPoint{Start: at(time.Duration(i-24) * time.Hour), End: at(time.Duration(i-23) * time.Hour), Requests: uint64(30_000 + 3_000*(i%5)), Covered: time.Hour, Hosts: 3}
		if i == 10 {
			p.Requests, p.Covered = 0, 0
		}
		p.Rate = float64(p.Requests) / 3600
		x.Points = append(x.Points, p)
		p.Requests /= 50
		bad.Points = append(bad.Points, p)
	}
	failing := top("routes", "Routes", []view.Measure{seen}, view.TopRow{Keys: []string{"shop.example.org/" + evil[0]}, Values: []view.Value{value(300), value(noon.UnixNano())}})
	return &Input{Dashboard: d, Series: x, Errors: bad, Failing: &failing, Baseline: &d.Status.Alert, Filter: "domain=" + evil[1],
		Command: "httpctl report --since 24h --filter 'user_agent=" + evil[0] + "'", Version: "v1", Made: at(time.Minute)}
}

func written(t *testing.T, write func(*bytes.Buffer, *Input) error, in *Input) string {
	t.Helper()
	var b bytes.Buffer
	if err := write(&b, in); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func asHTML(b *bytes.Buffer, in *Input) error     { return HTML(b, in) }
func asMarkdown(b *bytes.Buffer, in *Input) error { return Markdown(b, in) }

func TestGoldens(t *testing.T) {
	for name, write := range map[string]func(*bytes.Buffer, *Input) error{"report.html": asHTML, "report.md": asMarkdown} {
		golden.Check(t, name, written(t, write, sample()))
	}
}

// TestPageIsOnlyOurs reads the page as a browser does: whatever the strings, its elements and attributes are those of
// the template, nothing is fetched, and the strings are there as text.
func TestPageIsOnlyOurs(t *testing.T) {
	text := written(t, asHTML, sample())
	root, err := html.Parse(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	elements := strings.Fields("html head meta title style body main h1 h2 p code nav a section dl dt dd figure figcaption svg path rect text div table thead tbody tr th td span i footer")
	attributes := strings.Fields("lang charset http-equiv content name class href id aria-labelledby aria-label role style viewbox viewBox d x y width height text-anchor tabindex scope")
	var page strings.Builder
	ids := map[string]bool{}
	var links []string
	var walk func(*html.Node)
	walk = func(n *html.Node) {
		switch n.Type {
		case html.ElementNode:
			if !slices.Contains(elements, n.Data) {
				t.Errorf("the page has an element <%s> %v", n.Data, n.Attr)
			}
			for _, a := range n.Attr {
				if !slices.Contains(attributes, a.Key) {
					t.Errorf("<%s> has an attribute %s=%q", n.Data, a.Key, a.Val)
				}
				if a.Key == "id" {
					if ids[a.Val] {
						t.Errorf("two elements have the id %s", a.Val)
					}
					ids[a.Val] = true
				}
				if a.Key == "href" {
					links = append(links, a.Val)
				}
			}
		case html.TextNode:
			page.WriteString(n.Data + "\n")
		case html.CommentNode:
			t.Errorf("the page has a comment %q", n.Data)
		}
		for c := n.FirstChild; c != nil; c = c.NextSibling {
			walk(c)
		}
	}
	walk(root)
	for _, l := range links {
		if name, ok := strings.CutPrefix(l, "#"); !ok || !ids[name] {
			t.Errorf("the page links to %q", l)
		}
	}
	for _, e := range evil {
		if want := view.Clean(e); !strings.Contains(page.String(), want) {
			t.Errorf("the page does not show %q", want)
		}
	}
	for _, want := range []string{"2026-03-03 12:00:00 UTC to 2026-03-04 12:00:00 UTC", "2, the longest 8m00s", "There is data for 23h00m of the 1d0h asked for", "baseline 10.0/s", "alert above 11.0/s",
		"Dismissed alerts lasted 8m00s at most", "3.2% of 9,400", "web-2 is late", "kernel_drops", "a key not shown has at most 12"} {
		if !strings.Contains(page.String(), want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	if !strings.Contains(text, `content="default-src &#39;none&#39;; style-src &#39;unsafe-inline&#39;"`) && !strings.Contains(text, `content="default-src 'none'; style-src 'unsafe-inline'"`) {
		t.Error("the page has no policy")
	}
	if regexp.MustCompile(`(?i)(https?:)?//[a-z]|url\(|@import`).MatchString(text) {
		t.Error("the page refers to something elsewhere")
	}
	if got := strings.Count(text, `class="alert"`); got != 2 {
		t.Errorf("%d alerts are drawn, want 2", got)
	}
	if got := strings.Count(text, `class="nodata"`); got != 1 {
		t.Errorf("%d gaps are drawn, want 1", got)
	}
	if regexp.MustCompile(`NaN|Inf|%!`).MatchString(text) {
		t.Error("the page has a number that is none")
	}
}

// TestBaselineOfItsTime: a baseline is not drawn over the time before it was learned.
func TestBaselineOfItsTime(t *testing.T) {
	in := sample()
	in.Baseline.LearningEnd = in.Dashboard.Status.Time.Add(-6 * time.Hour) // of the last 24
	page := written(t, asHTML, in)
	left := fmt.Sprintf("%.1f", plotLeft+(plotWidth-plotLeft-plotRight)*0.75)
	for _, want := range []string{`<rect x="` + left + `" y="38.7"`, `<path d="M` + left + ` 56.6`, "The baseline is shown from"} {
		if !strings.Contains(page, want) {
			t.Errorf("with a baseline learned in the middle the page lacks %s", want)
		}
	}
	in.Baseline.LearningEnd = in.Dashboard.Status.Time.Add(time.Hour)
	page = written(t, asHTML, in)
	if strings.Contains(page, "alert above") || !strings.Contains(page, "learned after this range") {
		t.Error("a baseline that was learned later is shown")
	}
}

// TestInChromium: a browser makes of the page what the parser does, and runs nothing.
func TestInChromium(t *testing.T) {
	browser, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("chromium is not installed")
	}
	path := filepath.Join(t.TempDir(), "report.html")
	if err := os.WriteFile(path, []byte(written(t, asHTML, sample())), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", "file://"+path)
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir())
	out, err := cmd.Output()
	if err != nil {
		t.Skipf("chromium does not run here: %v", err)
	}
	dom := string(out)
	for _, no := range []string{"<script", "<img", "onerror=\"", "onload=\""} {
		if strings.Contains(strings.ToLower(dom), no) {
			t.Errorf("the browser has %s in the page", no)
		}
	}
	if !strings.Contains(dom, "<title>HTTP traffic, 2026-03-03") || strings.Count(dom, "<section") != 10 || strings.Count(dom, "<svg") != 3 {
		t.Errorf("the browser has %d sections and %d plots, want 10 and 3", strings.Count(dom, "<section"), strings.Count(dom, "<svg"))
	}
}

// TestMarkdownIsText: no line is read as anything but what it is, and the file has nothing a terminal acts on.
func TestMarkdownIsText(t *testing.T) {
	text := written(t, asMarkdown, sample())
	for i, line := range strings.Split(text, "\n") {
		if strings.ContainsAny(line, "\x1b\x00\u202e") {
			t.Errorf("line %d has a control character: %q", i+1, line)
		}
		if strings.HasPrefix(line, "|") {
			continue
		}
		if m := regexp.MustCompile(`(^|[^\\])[<>]`).FindString(line); m != "" {
			t.Errorf("line %d can be read as HTML: %q", i+1, line)
		}
	}
	for _, want := range []string{"# HTTP traffic, 2026-03-03 12:00:00 UTC to", "\n## Alerts\n", "\n```text\n", "**peak**: 11.7/s in the hour from"} {
		if !strings.Contains(text, want) {
			t.Errorf("it does not say %q:\n%s", want, text)
		}
	}
}

// TestFewFacts: an aggregator that has nothing makes a report that says so.
func TestFewFacts(t *testing.T) {
	in := &Input{Dashboard: &view.Dashboard{}, Made: noon}
	for _, text := range []string{written(t, asHTML, in), written(t, asMarkdown, in)} {
		for _, want := range []string{"There is no data for this range.", "No agent has reported yet.", "None in this range."} {
			if !strings.Contains(text, want) {
				t.Errorf("it does not say %q:\n%s", want, text)
			}
		}
	}
	in.Series = &view.Series{Step: "minute", Points: []view.SeriesPoint{{Start: noon, End: noon.Add(time.Minute), Covered: time.Minute}}}
	if text := written(t, asHTML, in); !strings.Contains(text, "<svg") || strings.Contains(text, "NaN") {
		t.Errorf("a series of zeros:\n%s", text)
	}
}

func TestScales(t *testing.T) {
	for in, want := range map[float64]float64{0.9: 1, 1: 1, 1.1: 2, 2.2: 2.5, 3: 5, 7: 10, 0.004: 0.005, 123: 200} {
		if got := step(in); math.Abs(got-want) > want*1e-9 {
			t.Errorf("step(%g) = %g, want %g", in, got, want)
		}
	}
	berlin := time.FixedZone("CET", 3600)
	for length, want := range map[time.Duration]string{
		10 * time.Minute:     "12:00 12:01 12:02 12:03 12:04 12:05 12:06 12:07 12:08 12:09 12:10",
		24 * time.Hour:       "12:00 14:00 16:00 18:00 20:00 22:00 00:00 02:00 04:00 06:00 08:00 10:00 12:00",
		7 * 24 * time.Hour:   "00:00 00:00 00:00 00:00 00:00 00:00 00:00",
		400 * 24 * time.Hour: "00:00",
	} {
		var got []string
		for _, x := range times(noon.Add(-time.Hour), noon.Add(-time.Hour+length), berlin) {
			got = append(got, x.Format("15:04"))
		}
		if strings.Join(got, " ") != want {
			t.Errorf("times of %s = %s, want %s", length, strings.Join(got, " "), want)
		}
	}
	if got, want := spark(sample().Series, 12), 12; len([]rune(got)) != want {
		t.Errorf("spark of 24 points = %q, want %d characters", got, want)
	}
	if got := spark(sample().Series, 24); !strings.Contains(got, "·") || !strings.Contains(got, "█") {
		t.Errorf("spark = %q, want a gap and a peak", got)
	}
}

func ExampleMarkdown() {
	var b bytes.Buffer
	in := &Input{Dashboard: &view.Dashboard{Status: view.Status{Since: at(-time.Hour), Until: noon}}, Made: noon, Version: "v1"}
	_ = Markdown(&b, in)
	fmt.Println(strings.Join(strings.Split(b.String(), "\n")[:7], "\n"))
	// Output:
	// # HTTP traffic, 2026-03-04 11:00:00 UTC to 2026-03-04 12:00:00 UTC
	//
	// Made 2026-03-04 12:00:00 UTC by httpctl v1.
	//
	// ## Summary
	//
	// - **range**: 2026-03-04 11:00:00 UTC to 2026-03-04 12:00:00 UTC (1h)
}
