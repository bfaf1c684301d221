// Package receivers has what tests need of other programs' own packages: an OpenTelemetry Collector, and Grafana's schema of dashboards. It is a
// module of its own, so that httpctl needs none of them.
package receivers

import (
	"encoding/json"
	"errors"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/table"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
	"github.com/grafana/grafana-foundation-sdk/go/units"
)

// TestDashboard holds the dashboard against Grafana's schema, where a field that is not known is a fault, and what is in it against itself:
// variables, units, places, and names that refer to queries. Its numbers are those of httpctl: TestExport.
func TestDashboard(t *testing.T) {
	runtime := cog.NewRuntime()
	runtime.RegisterPanelcfgVariant(stat.VariantConfig())
	runtime.RegisterPanelcfgVariant(table.VariantConfig())
	runtime.RegisterPanelcfgVariant(timeseries.VariantConfig())
	runtime.RegisterDataqueryVariant(prometheus.VariantConfig())
	text, err := os.ReadFile("../../deploy/grafana/httpctl.json")
	if err != nil {
		t.Fatal(err)
	}
	faults := func(text string) (list cog.BuildErrors) { // what the packages return may be an error without one
		var d dashboard.Dashboard
		for _, err := range []error{d.UnmarshalJSONStrict([]byte(text)), d.Validate()} {
			var of cog.BuildErrors
			if errors.As(err, &of) {
				list = append(list, of...)
			} else if err != nil {
				t.Fatal(err)
			}
		}
		return list
	}
	if list := faults(string(text)); len(list) > 0 {
		t.Error(list)
	}
	if list := faults(strings.Replace(string(text), `"colorMode"`, `"colourMode"`, 1)); len(list) != 2 {
		t.Errorf("a dashboard with a field that Grafana does not know, instead of one that it wants, has the faults %v, want 2", list)
	}

	var of struct {
		Templating struct{ List []struct{ Name string } }
		Panels     []struct {
			ID          int
			Title, Type string
			GridPos     struct{ X, Y, W, H int }
			FieldConfig struct {
				Defaults  struct{ Unit string }
				Overrides []struct {
					Matcher    struct{ Options string }
					Properties []struct {
						ID    string
						Value any
					}
				}
			}
			Targets         []struct{ RefID, Expr, LegendFormat, Format string }
			Transformations []struct {
				ID      string
				Options struct{ RenameByName map[string]string }
			}
		}
	}
	if err := json.Unmarshal(text, &of); err != nil {
		t.Fatal(err)
	}
	known := []string{"__range", "__rate_interval"}
	for _, v := range of.Templating.List {
		known = append(known, v.Name)
	}
	for _, m := range regexp.MustCompile(`\$\{?(\w+)`).FindAllStringSubmatch(string(text), -1) {
		if m[1] != "__all" && !slices.Contains(known, m[1]) {
			t.Errorf("the variable %s is not there, but %q", m[1], known)
		}
	}
	if len(of.Panels) < 10 {
		t.Fatalf("%d panels, want at least 10", len(of.Panels))
	}
	allowed := []any{units.LocaleFormat, units.Short, units.RequestsPerSecond, units.PercentUnit, units.Seconds, units.BytesIEC}
	taken, ids := map[[2]int]string{}, map[int]bool{}
	for _, p := range of.Panels {
		if ids[p.ID] {
			t.Errorf("%s: another panel has the id %d", p.Title, p.ID)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" || x >= 24 {
					t.Fatalf("%s is where %s is, or beyond the border", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		shown := []string{} // names that a table shows columns under
		for _, tr := range p.Transformations {
			for from, to := range tr.Options.RenameByName {
				shown = append(shown, to)
				want := "Value"
				if ref, ok := strings.CutPrefix(from, "Value #"); ok {
					want += " #" + ref
					if !slices.ContainsFunc(p.Targets, func(q struct{ RefID, Expr, LegendFormat, Format string }) bool { return q.RefID == ref }) || len(p.Targets) == 1 {
						t.Errorf("%s renames %s, and has no such query beside another", p.Title, from)
					}
				} else if from == "Value" && len(p.Targets) != 1 {
					t.Errorf("%s renames Value, and has %d queries", p.Title, len(p.Targets))
				}
				if from != want && !strings.Contains(p.Targets[0].Expr, "by ("+from+")") {
					t.Errorf("%s renames %s, which its query does not keep", p.Title, from)
				}
			}
		}
		unit := []any{p.FieldConfig.Defaults.Unit}
		for _, o := range p.FieldConfig.Overrides {
			if !slices.Contains(shown, o.Matcher.Options) {
				t.Errorf("%s changes %q, which it does not show", p.Title, o.Matcher.Options)
			}
			for _, property := range o.Properties {
				if property.ID == "unit" {
					unit = append(unit, property.Value)
				}
			}
		}
		for _, u := range unit {
			if !slices.Contains(allowed, u) {
				t.Errorf("%s has the unit %v, want one of %v", p.Title, u, allowed)
			}
		}
		for _, q := range p.Targets {
			for _, m := range regexp.MustCompile(`\{\{(\w+)\}\}`).FindAllStringSubmatch(q.LegendFormat, -1) {
				if !strings.Contains(q.Expr, "by ("+m[1]+")") {
					t.Errorf("%s: the legend names %s, which the query does not keep", p.Title, m[1])
				}
			}
			if p.Type == "table" && q.Format != "table" {
				t.Errorf("%s: a query of a table has the format %q", p.Title, q.Format)
			}
		}
	}
}
