package command

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	agent "github.com/httpctl/httpctl/agent/app"
	aggregator "github.com/httpctl/httpctl/aggregator/app"
	"github.com/httpctl/httpctl/cmd/httpctl/client"
	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/view"
)

// startAggregator runs an aggregator with intervals of a second, and returns its address.
func startAggregator(t *testing.T) string {
	t.Helper()
	file, err := config.Load("", []string{"HTTPCTL_DASHBOARD_BUCKET_SIZE=1s"})
	if err != nil {
		t.Fatal(err)
	}
	cfg := aggregator.DefaultConfig()
	cfg.Data, cfg.Listen = t.TempDir(), nil
	a, err := aggregator.Start(t.Context(), file.Settings, cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return "unix:" + filepath.Join(cfg.Data, "httpctl.sock")
}

// TestBenchFleet runs a fleet of 20 through an aggregator: history, a cut of all connections, and an account that is equal to the unit.
func TestBenchFleet(t *testing.T) {
	address := startAggregator(t)
	var stdout, stderr bytes.Buffer
	w := *newBench(t).world
	w.dial, w.now, w.out, w.err = nil, time.Now, &stdout, &stderr
	command := "bench fleet --agents 20 --duration 3s --past 5s --connect-within 0s --cut-after 1500ms --exchanges 60 --rows 20 --bodies 17 --ask 200ms -o json --aggregator "
	if code := run(t.Context(), strings.Fields(command+address), &w); code != exitDone {
		t.Fatalf("bench fleet: exit %d, %s%s", code, &stdout, &stderr)
	}
	var got benchReport
	if err := json.Unmarshal(stdout.Bytes(), &got); err != nil {
		t.Fatalf("%v in %s", err, &stdout)
	}
	if got.Stored+got.Duplicates != 160 || got.Checked != (benchChecked{Intervals: 8, Buckets: 160, Requests: 9600, TopBuckets: 160}) {
		t.Errorf("%d stored, %d duplicates, whose acknowledgement the cut took away, checked %+v; want 160 buckets of 9600 requests in 8 intervals", got.Stored, got.Duplicates, got.Checked)
	}
	if got.Disconnects < 20 || got.Unanswered != 0 || got.Refused+got.Expired+got.GivenUp != 0 || got.Sent < 160 {
		t.Errorf("report %+v, want 20 disconnects and nothing lost", got)
	}
	if got.Hour.Count+got.Day.Count == 0 || got.AskErrors != 0 || len(got.Backlog) != 3 || got.Ack.Count != 60 {
		t.Errorf("report %+v, want dashboards, three intervals and 60 latencies", got)
	}
	// Simulated hosts are no reason to refuse another run.
	stdout.Reset()
	if code := run(t.Context(), strings.Fields("bench fleet --agents 2 --duration 1s --rows 5 --exchanges 9 --bodies 1 --connect-within 0s --aggregator "+address), &w); code != exitDone {
		t.Errorf("the second run: exit %d, %s%s", code, &stdout, &stderr)
	}
	for _, want := range []string{"0 missing, 0 surplus", "2 acknowledged", "18 requests of 2 buckets"} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("the report has no %q:\n%s", want, &stdout)
		}
	}
}

// liar changes an aggregator's answers.
type liar struct {
	*client.Client
	hosts func([]view.Host) []view.Host
	top   func(*view.Top)
}

func (l liar) Hosts(ctx context.Context, q client.Question) ([]view.Host, error) {
	hosts, err := l.Client.Hosts(ctx, q)
	if l.hosts != nil {
		hosts = l.hosts(hosts)
	}
	return hosts, err
}

func (l liar) Top(ctx context.Context, list string, q client.Question) (*view.Top, error) {
	top, err := l.Client.Top(ctx, list, q)
	if l.top != nil && list == "section" {
		l.top(top)
	}
	return top, err
}

// TestBenchFleetFindsLoss: an aggregator that has lost, doubled or forgotten something is found out.
func TestBenchFleetFindsLoss(t *testing.T) {
	cfg := agent.DefaultFleet()
	cfg.Aggregator, cfg.Width, cfg.Duration, cfg.Past = startAggregator(t), time.Second, 0, 3*time.Second
	cfg.Agents, cfg.Exchanges, cfg.Rows, cfg.Bodies, cfg.ConnectWithin = 4, 50, 10, 4, 0
	r, err := agent.SimulateFleet(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(client.Options{Address: cfg.Aggregator})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	for want, l := range map[string]liar{
		"":                           {},
		"49 requests, 50 were":       {hosts: func(h []view.Host) []view.Host { h[1].Requests--; return h }},
		"100 requests, only 50 were": {hosts: func(h []view.Host) []view.Host { h[2].Requests *= 2; return h }},
		"does not have it":           {hosts: func(h []view.Host) []view.Host { return h[1:] }},
		"599 in all, 600 were":       {top: func(t *view.Top) { t.Total-- }},
	} {
		l.Client = c
		checked, err := checkFleet(t.Context(), l, r)
		if want == "" && (err != nil || checked.Requests != 600) || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("checkFleet() = %+v, %v, want %q", checked, err, want)
		}
	}
}

// TestBenchFleetRefusesOthers: a database with real hosts is left alone.
func TestBenchFleetRefusesOthers(t *testing.T) {
	_, stderr, code := newBench(t).run(t, "bench", "fleet", "--agents", "2")
	if code != exitUsage || !strings.Contains(stderr, "the aggregator has the host web-1") || !strings.Contains(stderr, "--force") {
		t.Errorf("bench fleet beside web-1: exit %d, %s", code, stderr)
	}
}
