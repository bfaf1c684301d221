package live

import (
	"fmt"
	"time"

	"github.com/httpctl/httpctl/pkg/view"
)

var noon = time.Date(2026, 3, 4, 12, 0, 5, 0, time.UTC)

func ref[T any](v T) *T { return &v }

var (
	hits     = view.Measure{Name: "hits", Unit: "{request}"}
	lastSeen = view.Measure{Name: "last_seen", Unit: "ns", Kind: view.Max}
)

// list makes a top list of keys with hits that fall by half.
func list(name, title string, first int64, keys ...string) view.Top {
	t := view.Top{Dimension: view.Dimension{Name: name, Title: title, Keys: []string{name}, Filters: []string{name}, Columns: []view.Measure{hits, lastSeen}}}
	for i, k := range keys {
		n := first >> i
		t.Rows = append(t.Rows, view.TopRow{Keys: []string{k}, Values: []view.Value{{Number: n}, {Number: noon.Add(-time.Duration(i) * time.Second).UnixNano()}}})
		t.Total += n
	}
	return t
}

func host(i int, name string, rate float64, health view.Health) view.Host {
	return view.Host{ID: fmt.Sprintf("%02x", i), Name: name, Health: health, Rate: rate, Requests: uint64(rate * 3600), Connected: health == view.Reporting,
		CoveredThrough: noon.Add(-5 * time.Second), FirstSeen: noon.Add(-48 * time.Hour), Version: "v1",
		Counters: []view.Count{{Name: "packets", Value: 100000}, {Name: "kernel_drops", Value: uint64(i % 3)}}}
}

// fixture is a fleet with all that can break a column: wide, combining and right-to-left letters, escapes, a
// list of an unknown plug-in, long names and empty lists.
func fixture() *view.Dashboard {
	d := &view.Dashboard{
		Status: view.Status{
			Time: noon, Version: "v1", Interval: 10 * time.Second, Window: 2 * time.Minute, Refresh: 2 * time.Second,
			RateNow: 143.2, RateAverage: 96.1, Requests: 345960, Since: noon.Add(-time.Hour), Until: noon,
			Fleet: view.Fleet{Reporting: 4, Late: 1, Gone: 1}, Loss: []view.Count{{Name: "kernel_drops", Value: 4}, {Name: "gap_bytes", Value: 1460}},
			Alert: view.AlertStatus{Scope: "fleet", State: view.Alerting, Since: noon.Add(-245 * time.Second), Baseline: ref[int64](11500), ThresholdPercent: 10,
				ThresholdRequests: ref[int64](12650), WindowStart: noon.Add(-65 * time.Second), WindowEnd: noon.Add(55 * time.Second), WindowRequests: 9001,
				LastRequests: ref[int64](16981), LastWindowEnd: noon.Add(-65 * time.Second), JoinedHosts: []string{"web-9"}},
		},
		Hosts: []view.Host{host(1, "web-1", 61.5, view.Reporting), host(2, "web-2", 30.2, view.Reporting), host(3, "東京-サーバー", 12.25, view.Reporting),
			host(4, "שרת-א", 4.5, view.Reporting), host(5, "cafe\u0301-5", 1.25, view.Late), host(6, "gone\x1b[31m", 0, view.Gone)},
		Alerts: view.Alerts{Time: noon, MaxDuration: 6 * time.Minute, AverageDuration: 5 * time.Minute, Alerts: []view.Alert{
			{Scope: "fleet", State: view.Alerting, Start: noon.Add(-245 * time.Second), Baseline: 11500, ThresholdPercent: 10, JoinedHosts: []string{"web-9"},
				Entries: []view.AlertEntry{{Time: noon.Add(-185 * time.Second), Hits: 15020}, {Time: noon.Add(-65 * time.Second), Hits: 16981, LateHits: 3}}},
			{Scope: "fleet", State: view.Dismissed, Start: noon.Add(-5 * time.Hour), End: noon.Add(-5*time.Hour + 6*time.Minute), Baseline: 11500, ThresholdPercent: 10,
				Entries: []view.AlertEntry{{Time: noon.Add(-5 * time.Hour), Hits: 20000, Incomplete: true}}},
		}},
	}
	for i := range 60 {
		n := uint64(900 + i*i%7*13)
		if i > 34 {
			n = 1300 + uint64(i%5)*40
		}
		d.RateHistory = append(d.RateHistory, n)
	}
	server := list("server", "Response time", 4000, "192.0.2.1:80", "192.0.2.2:8080", "[2001:db8::1]:80")
	server.Columns = []view.Measure{hits, {Name: "ttfb", Unit: "ns", Kind: view.LatencyColumn}}
	for i := range server.Rows {
		ms := time.Duration(i+1) * time.Millisecond
		server.Rows[i].Values = []view.Value{{Number: 4000 >> i}, {Latency: &view.Latency{Count: 9, Average: 2 * ms, P50: ms, P95: 5 * ms, P99: 9 * ms, Peak: 30 * ms}}}
	}
	volume := list("volume", "Volume", 7<<30, "example.org", "static.example.org")
	volume.Columns[0].Unit, volume.Keys, volume.Filters = "By", []string{"domain"}, []string{"domain"}
	routes := list("routes", "Routes", 5000, "x")
	routes.Keys, routes.Filters = []string{"domain", "section", "method", "status"}, []string{"role", "domain", "section", "method", "status"}
	routes.Rows[0].Keys = []string{"example.org", "example.org/cart", "POST", "503"}
	plugin := list("tld", "Top-level domains", 900, "org", "公司", "com")
	d.Tops = []view.Top{
		list("section", "Sections", 120000, "example.org/cart", "example.org/", "shop.example.org/ein-sehr-langer-abschnitt-der-nirgends-ganz-zu-lesen-ist-wo-es-eng-ist",
			"例え.テスト/買い物", "example.org/\x1b]0;title\x07", "example.org/e", "example.org/f", "example.org/g", "example.org/h", "example.org/i", "example.org/j", "example.org/k"),
		list("domain", "Domains", 300000, "example.org", "shop.example.org", "例え.テスト"),
		list("user_agent", "User agents", 90000, "curl/8.14.1", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36", "-"),
		list("method", "Methods", 300000, "GET", "POST"),
		list("status", "Status", 300000, "200", "404", "503", "-"),
		volume, server, list("client_ip", "Clients", 20), routes, plugin,
	}
	for i := range d.Tops {
		if d.Tops[i].Name == "status" {
			d.Tops[i].Classes = []view.Count{{Name: "-", Value: 37500}, {Name: "2xx", Value: 300000}, {Name: "4xx", Value: 150000}, {Name: "5xx", Value: 75000}}
			d.Tops[i].Latency = &view.Latency{Count: 9, Average: 3 * time.Millisecond, P50: 2 * time.Millisecond, P95: 40 * time.Millisecond, P99: 310 * time.Millisecond, Peak: time.Second}
		}
	}
	return d
}

// learning is a fleet of which it is not known yet what is normal.
func learningFixture() *view.Dashboard {
	d := fixture()
	d.Alerts.Alerts = nil
	d.Status.Alert = view.AlertStatus{Scope: "fleet", State: view.Learning, ThresholdPercent: 10, EstimatedBaseline: 11500,
		LearningStart: noon.Add(-48 * time.Second), LearningEnd: noon.Add(72 * time.Second), Since: noon.Add(-48 * time.Second)}
	return d
}

// at returns a model of the fixture on a screen.
func at(d *view.Dashboard, style view.Style) *Model {
	return New(Options{
		Ask:   func(Request) (*view.Dashboard, error) { return d, nil },
		Why:   func(err error) string { return err.Error() },
		Style: style,
	}, d, noon)
}
