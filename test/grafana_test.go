package test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/httpctl/httpctl/pkg/exchange"
)

// panel is one of the dashboard deploy/grafana/httpctl.json.
type panel struct {
	Title, Type string
	Targets     []struct{ Expr string }
}

func grafanaPanels(t *testing.T) []panel {
	t.Helper()
	text, err := os.ReadFile("../deploy/grafana/httpctl.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct{ Panels []panel }
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	if len(dashboard.Panels) < 10 {
		t.Fatalf("%d panels, want at least 10", len(dashboard.Panels))
	}
	return dashboard.Panels
}

// answers evaluates a panel's queries as Grafana would, now or at a time in seconds since the epoch: values by the one label that they have.
func (p *prometheus) answers(panel panel, job string, rng time.Duration, at ...string) (out []map[string]float64, err error) {
	for _, target := range panel.Targets {
		results, err := p.query(strings.NewReplacer("$__range", fmt.Sprint(int(rng.Seconds()), "s"), "$__rate_interval", "15m", "$job", job, "$host", ".*", "$mirror", "0").Replace(target.Expr), at...)
		if err != nil {
			return nil, err
		}
		values := map[string]float64{}
		for _, r := range results {
			if len(r.labels) > 1 {
				return nil, fmt.Errorf("%s: a value has the labels %v", target.Expr, r.labels)
			}
			key := ""
			for _, v := range r.labels {
				key = v
			}
			if values[key], err = strconv.ParseFloat(r.value, 64); err != nil {
				return nil, err
			}
		}
		out = append(out, values)
	}
	return out, nil
}

// topRows is what a list of `httpctl top -o json` has of a measure, by key, and in all.
func topRows(list map[string]any, measure string) (rows map[string]float64, total float64) {
	rows = map[string]float64{}
	for _, r := range list["rows"].([]any) {
		row := r.(map[string]any)
		v, _ := row[measure].(float64)
		rows[fmt.Sprint(row["key"])] = v
		total += v
	}
	return rows, total
}

// grafana compares each query of the dashboard with what httpctl says of the same hour. Counts are equal, averages too but for
// the rounding to nanoseconds; percentiles lie between the same two bounds; rates have the keys of their lists.
func (p *prometheus) grafana(t *testing.T, job string, list func(args ...string) map[string]any) {
	t.Helper()
	same := func(got, want map[string]float64) error {
		if !maps.Equal(got, want) {
			return fmt.Errorf("%v, httpctl says %v", got, want)
		}
		return nil
	}
	keys := func(got, want map[string]float64) error {
		for k := range want {
			if got[k] <= 0 {
				return fmt.Errorf("%v, httpctl has %v", got, want)
			}
		}
		return nil
	}
	domains, requests := topRows(list("top", "domain"), "hits")
	statuses := list("top", "status")
	byStatus, responses := topRows(statuses, "hits")
	averages, _ := topRows(statuses, "ttfb_average_seconds")
	volume := list("top", "volume")
	upload, _ := topRows(volume, "upload_bytes")
	download, _ := topRows(volume, "download_bytes")
	methods, _ := topRows(list("top", "method"), "hits")
	hosts, lost, reasons := map[string]float64{}, 0.0, map[string]bool{}
	for _, h := range list("hosts")["hosts"].([]any) {
		host := h.(map[string]any)
		hosts[host["name"].(string)] = host["requests"].(float64)
		loss, _ := host["loss"].(map[string]any)
		for c := range exchange.NumCounters {
			if v, _ := loss[c.String()].(float64); c.Loss() && v > 0 {
				lost += v
				reasons[c.String()] = true
			}
		}
	}
	one := func(v float64) map[string]float64 { return map[string]float64{"": v} }
	checks := map[string]func(got []map[string]float64) error{
		"Requests":          func(got []map[string]float64) error { return same(got[0], one(requests)) },
		"Requests a second": func(got []map[string]float64) error { return keys(got[0], one(1)) },
		"Server errors":     func(got []map[string]float64) error { return same(got[0], one(byStatus["503"]/responses)) },
		"No answer":         func(got []map[string]float64) error { return same(got[0], one(requests-responses)) },
		"Not seen":          func(got []map[string]float64) error { return same(got[0], one(lost)) },
		"Hosts": func(got []map[string]float64) error {
			return same(got[0], map[string]float64{"reporting": float64(len(hosts)), "late": 0, "gone": 0})
		},
		"Requests a second by domain":  func(got []map[string]float64) error { return keys(got[0], domains) },
		"Responses a second by status": func(got []map[string]float64) error { return keys(got[0], byStatus) },
		"Response time": func(got []map[string]float64) error {
			latency := statuses["latency"].(map[string]any)
			for i, name := range []string{"p50_seconds", "p95_seconds", "p99_seconds"} {
				if g, w := got[i][""], latency[name].(float64); len(got[i]) != 1 || !together(g, w) {
					return fmt.Errorf("%s: %v, httpctl says %v", name, got[i], w)
				}
			}
			return nil
		},
		"Response time over time": func(got []map[string]float64) error {
			for _, g := range got {
				if len(g) != 1 || !(g[""] > 0) {
					return fmt.Errorf("%v, want a time", got)
				}
			}
			return nil
		},
		"Not seen, by reason": func(got []map[string]float64) error {
			for reason := range got[0] {
				if !reasons[reason] {
					return fmt.Errorf("%v, httpctl has %v", got[0], reasons)
				}
			}
			return nil
		},
		"Domains": func(got []map[string]float64) error { return same(got[0], domains) },
		"Status codes": func(got []map[string]float64) error {
			for k, want := range averages {
				if math.Abs(got[1][k]-want) > 2e-9 {
					return fmt.Errorf("averages %v, httpctl says %v", got[1], averages)
				}
			}
			return same(got[0], byStatus)
		},
		"Methods": func(got []map[string]float64) error { return same(got[0], methods) },
		"Volume by domain": func(got []map[string]float64) error {
			if err := same(got[0], upload); err != nil {
				return err
			}
			return same(got[1], download)
		},
		"Hosts by requests": func(got []map[string]float64) error {
			for name, behind := range got[1] {
				if behind < 0 || behind > 120 {
					return fmt.Errorf("%s is %v s behind", name, behind)
				}
			}
			return same(got[0], hosts)
		},
	}
	for _, panel := range grafanaPanels(t) {
		check := checks[panel.Title]
		if check == nil {
			t.Errorf("the panel %q is compared with nothing", panel.Title)
			continue
		}
		eventually(t, job+": panel "+panel.Title, func() error {
			got, err := p.answers(panel, job, time.Hour)
			if err != nil {
				return err
			}
			return check(got)
		})
	}
}

// together reports whether two response times lie between the same two bounds of the histogram, or within 1% of one of them.
func together(a, b float64) bool {
	low := 0.0
	for _, bound := range []float64{0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, math.Inf(1)} {
		if a >= low*0.98 && a <= bound*1.02 && b >= low*0.98 && b <= bound*1.02 {
			return true
		}
		low = bound
	}
	return false
}
