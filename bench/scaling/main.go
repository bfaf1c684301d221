// Command scaling plots what `httpctl bench fleet -o json` prints, read from standard input, report after report, as an SVG on
// standard output: what an aggregator costs by the number of agents. The figures go to standard error, as a table for docs/scaling.md.
package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
)

func main() {
	if err := run(os.Stdin, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "scaling:", err)
		os.Exit(1)
	}
}

// report is what is read of a run.
type report struct {
	Agents     int     `json:"agents"`
	Interval   float64 `json:"interval_seconds"`
	Unanswered int64   `json:"unanswered"`
	Backlog    []int64 `json:"backlog"`
	Ack        struct {
		P99 float64 `json:"p99"`
	} `json:"ack_seconds"`
	Cores     float64 `json:"aggregator_cores"`
	Resident  int64   `json:"aggregator_resident_bytes"`
	Anonymous int64   `json:"aggregator_anonymous_bytes"`
	Disk      float64 `json:"disk_bytes_per_bucket"`
	Simulator float64 `json:"simulator_cores"`
}

// perDay is what the database grows by in a day.
func (r *report) perDay() float64 { return r.Disk * float64(r.Agents) * 86400 / r.Interval }

func run(in io.Reader, out, log io.Writer) error {
	var reports []report
	for d := json.NewDecoder(in); ; {
		var r report
		if err := d.Decode(&r); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
		if r.Agents < 1 || r.Interval <= 0 || r.Cores <= 0 || r.Anonymous <= 0 || r.Disk <= 0 {
			return fmt.Errorf("the report of %d agents lacks the aggregator's processor, memory or disk: run it on the aggregator's Unix socket", r.Agents)
		}
		reports = append(reports, r)
	}
	if len(reports) < 2 {
		return errors.New("want the reports of two numbers of agents at least")
	}
	slices.SortFunc(reports, func(a, b report) int { return cmp.Compare(a.Agents, b.Agents) })
	fmt.Fprintln(log, "| agents | core | MiB, without files | MiB, with | bytes a bucket | GiB a day | acknowledged, p99 | most unanswered at an interval's end | simulator, core |\n|---|---|---|---|---|---|---|---|---|")
	for _, r := range reports {
		most := int64(0)
		if len(r.Backlog) > 1 {
			most = slices.Max(r.Backlog[1:]) // what was in the spools before is not growth
		}
		fmt.Fprintf(log, "| %d | %.1f%% | %d | %d | %.0f | %.1f | %.2f s | %d | %.1f%% |\n", r.Agents, 100*r.Cores, r.Anonymous>>20, r.Resident>>20,
			r.Disk, r.perDay()/(1<<30), r.Ack.P99, most, 100*r.Simulator)
	}
	_, err := io.WriteString(out, plot(reports))
	return err
}

// curve is one cost.
type curve struct {
	name, color string
	of          func(*report) float64
}

var curves = []curve{
	{"processor, % of a core", "#1668b8", func(r *report) float64 { return 100 * r.Cores }},
	{"memory without pages of the database, MiB", "#c33", func(r *report) float64 { return float64(r.Anonymous) / (1 << 20) }},
	{"database, GiB a day", "#888", func(r *report) float64 { return r.perDay() / (1 << 30) }},
}

// plot draws the curves, both axes logarithmic.
func plot(reports []report) string {
	const left, top, width, height = 60, 50, 560, 300
	least, most := math.Inf(1), math.Inf(-1)
	for i := range reports {
		for _, c := range curves {
			v := math.Log10(c.of(&reports[i]))
			least, most = min(least, math.Floor(v)), max(most, math.Ceil(v))
		}
	}
	begin, end := math.Log10(float64(reports[0].Agents)), math.Log10(float64(reports[len(reports)-1].Agents))
	x := func(agents int) float64 { return left + width*(math.Log10(float64(agents))-begin)/(end-begin) }
	y := func(v float64) float64 { return top + height*(1-(math.Log10(v)-least)/(most-least)) }
	var b strings.Builder
	text := func(x, y float64, anchor, color, s string) {
		fmt.Fprintf(&b, "<text x=\"%.0f\" y=\"%.0f\" text-anchor=\"%s\" fill=\"%s\">%s</text>\n", x, y, anchor, color, s)
	}
	fmt.Fprintf(&b, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 660 460\" font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"660\" height=\"460\" fill=\"#fff\"/>\n")
	text(left, 24, "start", "#333", "Cost of an aggregator by agents, each with a bucket every 10 s")
	for e := least; e <= most; e++ {
		at := y(math.Pow(10, e))
		fmt.Fprintf(&b, "<path d=\"M%d %.0fh%d\" stroke=\"#ddd\"/>\n", left, at, width)
		text(left-8, at+4, "end", "#333", strconv.FormatFloat(math.Pow(10, e), 'g', -1, 64))
	}
	for i := range reports {
		text(x(reports[i].Agents), top+height+18, "middle", "#333", strconv.Itoa(reports[i].Agents))
	}
	text(left+width/2, top+height+38, "middle", "#333", "agents")
	for i, c := range curves {
		var path []string
		for j := range reports {
			r := &reports[j]
			px, py := x(r.Agents), y(c.of(r))
			path = append(path, fmt.Sprintf("%.1f %.1f", px, py))
			fmt.Fprintf(&b, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"%s\"/>\n", px, py, c.color)
		}
		fmt.Fprintf(&b, "<path d=\"M%s\" fill=\"none\" stroke=\"%s\" stroke-width=\"2\"/>\n", strings.Join(path, "L"), c.color)
		text(left, top+height+58+float64(16*i), "start", c.color, c.name)
	}
	return b.String() + "</svg>\n"
}
