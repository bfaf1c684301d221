// Command flows plots what `go test -bench Flows ./agent/app` prints, read from standard input, as an SVG
// on standard output: the cost of a packet by the number of concurrent connections.
package main

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

func main() {
	if err := run(os.Stdin, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "flows:", err)
		os.Exit(1)
	}
}

// point is the least cost of a packet with so many connections: what else runs on the machine only
// adds to it.
type point struct {
	flows int
	ns    float64
}

var line = regexp.MustCompile(`^BenchmarkFlows/burst=(\d+)/flows=(\d+)\S*\s+\d+\s+([0-9.]+) ns/op`)

func run(in io.Reader, out, log io.Writer) error {
	runs := map[int]map[int][]float64{} // burst -> flows -> ns of each run
	for lines := bufio.NewScanner(in); lines.Scan(); {
		m := line.FindStringSubmatch(lines.Text())
		if m == nil {
			continue
		}
		burst, _ := strconv.Atoi(m[1])
		flows, _ := strconv.Atoi(m[2])
		ns, err := strconv.ParseFloat(m[3], 64)
		if err != nil {
			return err
		}
		if runs[burst] == nil {
			runs[burst] = map[int][]float64{}
		}
		runs[burst][flows] = append(runs[burst][flows], ns)
	}
	curves := map[int][]point{}
	for burst, byFlows := range runs {
		for flows, ns := range byFlows {
			slices.Sort(ns)
			curves[burst] = append(curves[burst], point{flows, ns[0]})
		}
		slices.SortFunc(curves[burst], func(a, b point) int { return cmp.Compare(a.flows, b.flows) })
		fmt.Fprintf(log, "burst=%d:", burst)
		for _, p := range curves[burst] {
			fmt.Fprintf(log, "  %d flows %.0f ns %.2f", p.flows, p.ns, p.ns/curves[burst][0].ns)
		}
		fmt.Fprintln(log)
	}
	if len(curves[5]) < 2 || len(curves[1]) < 2 {
		return errors.New("no results of BenchmarkFlows on standard input")
	}
	_, err := io.WriteString(out, plot(curves))
	return err
}

// plot draws the curves, each relative to its first point, and the bar of 1.5.
func plot(curves map[int][]point) string {
	const left, top, width, height, most = 60, 50, 560, 260, 4.0
	var b strings.Builder
	x := func(flows int) float64 { return left + width*(math.Log10(float64(flows))-2)/(math.Log10(500_000)-2) }
	y := func(ratio float64) float64 { return top + height*(1-min(ratio, most)/most) }
	text := func(x, y float64, anchor, s string) {
		fmt.Fprintf(&b, "<text x=\"%.0f\" y=\"%.0f\" text-anchor=\"%s\">%s</text>\n", x, y, anchor, s)
	}
	fmt.Fprintf(&b, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 660 370\" font-family=\"sans-serif\" font-size=\"12\" fill=\"#333\">\n<rect width=\"660\" height=\"370\" fill=\"#fff\"/>\n")
	text(left, 24, "start", "Cost of a packet by concurrent connections, 100 = 1 (frame to tables)")
	for ratio := 0.0; ratio <= most; ratio++ {
		fmt.Fprintf(&b, "<path d=\"M%d %.0fh%d\" stroke=\"#ddd\"/>\n", left, y(ratio), width)
		text(left-8, y(ratio)+4, "end", strconv.FormatFloat(ratio, 'g', -1, 64))
	}
	fmt.Fprintf(&b, "<path d=\"M%d %.0fh%d\" stroke=\"#c33\" stroke-dasharray=\"4 4\"/>\n", left, y(1.5), width)
	text(left+4, y(1.5)-5, "start", "bar: 1.5")
	for _, p := range curves[5] {
		text(x(p.flows), top+height+18, "middle", strconv.Itoa(p.flows))
	}
	text(left+width/2, top+height+40, "middle", "connections, each carrying HTTP")
	for _, c := range []struct {
		burst       int
		color, what string
	}{{5, "#1668b8", "an exchange of five packets at a time"}, {1, "#888", "never two packets of one connection in a row"}} {
		points := curves[c.burst]
		var path []string
		for _, p := range points {
			path = append(path, fmt.Sprintf("%.1f %.1f", x(p.flows), y(p.ns/points[0].ns)))
			fmt.Fprintf(&b, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"%s\"/>\n", x(p.flows), y(p.ns/points[0].ns), c.color)
		}
		fmt.Fprintf(&b, "<path d=\"M%s\" fill=\"none\" stroke=\"%s\" stroke-width=\"2\"/>\n", strings.Join(path, "L"), c.color)
		last := points[len(points)-1]
		text(left+width, y(last.ns/points[0].ns)-10, "end", fmt.Sprintf("%s: %.2f", c.what, last.ns/points[0].ns))
	}
	return b.String() + "</svg>\n"
}
