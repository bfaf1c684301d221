package command

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	agent "github.com/httpctl/httpctl/agent/app"
	"github.com/httpctl/httpctl/pkg/sketch"
)

// benchReport is what a run of bench fleet prints; docs/scaling.md has its meaning.
type benchReport struct {
	Seed            uint64             `json:"seed"`
	Agents          int                `json:"agents"`
	Intervals       int64              `json:"intervals"`
	Interval        float64            `json:"interval_seconds"`
	Seconds         float64            `json:"duration_seconds"`
	Exchanges       int                `json:"exchanges"`
	Bodies          int                `json:"bodies"`
	Rows            map[string]float64 `json:"rows"`
	BucketBytes     float64            `json:"bucket_bytes"`
	Sent            uint64             `json:"sent"`
	Stored          uint64             `json:"stored"`
	Duplicates      uint64             `json:"duplicates"`
	Expired         uint64             `json:"expired"`
	Refused         uint64             `json:"refused"`
	Retries         uint64             `json:"retries"`
	GivenUp         uint64             `json:"given_up"`
	Unanswered      int64              `json:"unanswered"`
	Disconnects     uint64             `json:"disconnects"`
	Connect         float64            `json:"connect_seconds"`
	Reconnect       float64            `json:"reconnect_seconds"`
	Caught          float64            `json:"caught_up_seconds"`
	Backlog         []int64            `json:"backlog"` // at each interval's end
	Ack             benchLatency       `json:"ack_seconds"`
	SimulatorCPU    float64            `json:"simulator_cores"`
	SimulatorRSS    int64              `json:"simulator_resident_bytes"`
	AggregatorCPU   float64            `json:"aggregator_cores"`
	AggregatorWhole float64            `json:"aggregator_cpu_seconds"`
	AggregatorRSS   int64              `json:"aggregator_resident_bytes"`
	AggregatorAnon  int64              `json:"aggregator_anonymous_bytes"`
	DiskBytes       float64            `json:"disk_bytes_per_bucket"`
	Hour            benchLatency       `json:"dashboard_hour_seconds"`
	Day             benchLatency       `json:"dashboard_day_seconds"`
	AskErrors       int                `json:"dashboard_errors"`
	AskError        string             `json:"dashboard_error,omitempty"`
	Checked         benchChecked       `json:"checked"`
	aggregator      bool               // whether its process is known
}

// benchLatency are quantiles in seconds.
type benchLatency struct {
	Count uint64  `json:"count"`
	P50   float64 `json:"p50"`
	P99   float64 `json:"p99"`
	Max   float64 `json:"max"`
}

func latencyOf(l *sketch.Latency) benchLatency {
	seconds := func(ns int64) float64 { return time.Duration(ns).Seconds() }
	return benchLatency{l.Count, seconds(l.Quantile(0.5)), seconds(l.Quantile(0.99)), seconds(l.Max)}
}

func newBenchReport(cfg *agent.FleetConfig, r *agent.FleetResult, u *usage, a *asked) *benchReport {
	b := &benchReport{
		Seed: r.Seed, Agents: cfg.Agents, Intervals: (r.To - r.From) / int64(r.Width), Interval: r.Width.Seconds(), Seconds: r.Elapsed.Seconds(),
		Exchanges: cfg.Exchanges, Bodies: cfg.Bodies, Rows: r.Rows, BucketBytes: r.BucketBytes,
		Sent: r.Sent, Stored: r.Stored, Duplicates: r.Duplicates, Expired: r.Expired, Refused: r.Refused, Retries: r.Retries, GivenUp: r.GivenUp,
		Unanswered: r.Unanswered, Disconnects: r.Disconnects,
		Connect: r.Connect.Seconds(), Reconnect: r.Reconnect.Seconds(), Caught: r.Caught.Seconds(), Ack: latencyOf(&r.Latency),
		SimulatorCPU: u.simulator.share(u.over), SimulatorRSS: u.simulator.resident,
		AggregatorCPU: u.aggregator.share(u.over), AggregatorWhole: u.aggregator.whole.Seconds(),
		AggregatorRSS: u.aggregator.resident, AggregatorAnon: u.aggregator.anonymous,
		Hour: latencyOf(&a.hour), Day: latencyOf(&a.day), AskErrors: a.errors, aggregator: u.aggregator.pid != 0,
	}
	if a.err != nil {
		b.AskError = a.err.Error()
	}
	for _, s := range r.Samples {
		b.Backlog = append(b.Backlog, s.Backlog)
	}
	if n := r.Stored + r.Duplicates; u.database != "" && n > 0 {
		b.DiskBytes = float64(u.after-u.before) / float64(n)
	}
	return b
}

func (b *benchReport) write(w io.Writer, form string) error {
	if form == "json" {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(b)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(name, format string, args ...any) { fmt.Fprintf(t, "%s\t%s\n", name, fmt.Sprintf(format, args...)) }
	seconds := func(s float64) string { return time.Duration(s * 1e9).Round(100 * time.Microsecond).String() }
	var rows []string
	for table, n := range b.Rows {
		rows = append(rows, fmt.Sprintf("%s %.0f", table, n))
	}
	slices.Sort(rows)
	line("content", "%d exchanges a bucket, %.0f bytes, of %d different; rows: %s", b.Exchanges, b.BucketBytes, b.Bodies, strings.Join(rows, ", "))
	line("agents", "%d, connected in %s, %d disconnects", b.Agents, seconds(b.Connect), b.Disconnects)
	line("intervals", "%d of %s; in %s", b.Intervals, seconds(b.Interval), seconds(b.Seconds))
	line("buckets", "%d sent, %d acknowledged, %d duplicates, %d expired, %d refused, %d given up, %d retries, %d unanswered",
		b.Sent, b.Stored+b.Duplicates, b.Duplicates, b.Expired, b.Refused, b.GivenUp, b.Retries, b.Unanswered)
	if n := len(b.Backlog); n > 0 {
		line("backlog", "at the intervals' ends: first %d, most %d, last %d", b.Backlog[0], slices.Max(b.Backlog), b.Backlog[n-1])
	}
	if b.Ack.Count > 0 {
		line("acknowledged after", "p50 %s, p99 %s, at most %s", seconds(b.Ack.P50), seconds(b.Ack.P99), seconds(b.Ack.Max))
	}
	if b.Reconnect > 0 {
		line("reconnected", "all in %s, all answered after %s", seconds(b.Reconnect), seconds(b.Caught))
	}
	line("simulator", "%.1f%% of a core, %.0f MiB resident", 100*b.SimulatorCPU, mib(b.SimulatorRSS))
	if b.aggregator {
		line("aggregator", "%.1f%% of a core, %.1f s in all; %.0f MiB resident, %.0f without pages of files",
			100*b.AggregatorCPU, b.AggregatorWhole, mib(b.AggregatorRSS), mib(b.AggregatorAnon))
		line("disk", "%.0f bytes a host and interval", b.DiskBytes)
	} else {
		line("aggregator", "not measured: name its process with --aggregator-pid")
	}
	for _, d := range []struct {
		name string
		l    benchLatency
	}{{"dashboard, an hour", b.Hour}, {"dashboard, a day", b.Day}} {
		if d.l.Count > 0 {
			line(d.name, "p50 %s, p99 %s, at most %s; asked %d times", seconds(d.l.P50), seconds(d.l.P99), seconds(d.l.Max), d.l.Count)
		}
	}
	if b.AskErrors > 0 {
		line("dashboard", "%d questions failed: %s", b.AskErrors, errorText(fmt.Errorf("%s", b.AskError)))
	}
	c := &b.Checked
	line("found", "%d requests of %d buckets in %d intervals, top lists of %d buckets; %d missing, %d surplus",
		c.Requests, c.Buckets, c.Intervals, c.TopBuckets, c.Missing, c.Surplus)
	return t.Flush()
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }
