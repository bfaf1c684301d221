package command

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/spf13/cobra"

	agent "github.com/httpctl/httpctl/agent/app"
	"github.com/httpctl/httpctl/cmd/httpctl/client"
	"github.com/httpctl/httpctl/pkg/view"
)

func newBenchCommand(w *world) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "bench",
		Short:   "Measure an aggregator with a simulated fleet",
		Example: "  httpctl bench fleet --agents 1000 --aggregator unix:/tmp/bench/httpctl.sock",
		Args:    noArguments,
		RunE:    func(*cobra.Command, []string) error { return usagef("bench needs a command: fleet") },
	}
	cmd.AddCommand(newBenchFleetCommand(w))
	return cmd
}

// benchTimeout bounds a question about what has arrived: an hour of a large fleet may be read for it.
const benchTimeout = 10 * time.Minute

func newBenchFleetCommand(w *world) *cobra.Command {
	r := &reading{w: w}
	cfg := agent.DefaultFleet()
	b := &benchFleet{w: w}
	cmd := &cobra.Command{
		Use:   "fleet",
		Short: "Simulate a fleet of agents against an aggregator, and count what arrives",
		Long: `Simulate a fleet of agents against an aggregator. Each has a connection and an
identity of its own and delivers as a real one does; what it delivers is made up,
with a skew: a pool of buckets that are encoded once and sent under many names.
The aggregator's dashboard_bucket_size is how often each sends.

At the end the aggregator is asked for every interval, and for the top lists:
exit code 1 if anything that it has acknowledged is missing or counted twice.

The hosts, named simulated-00000 and so on, stay in the aggregator's database:
use one that was made for this. One with other hosts is refused.`,
		Example: `  httpctl bench fleet --agents 1000 --duration 2m --aggregator unix:/tmp/bench/httpctl.sock
  httpctl bench fleet --agents 10000 --cut-after 1m      # all reconnect at once
  httpctl bench fleet --agents 100 --past 24h --duration 0s`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r.timeout = benchTimeout
			c, err := r.connect()
			if err != nil {
				return err
			}
			defer c.Close()
			cfg.Aggregator = c.Address()
			if !cmd.Flags().Changed("seed") {
				cfg.Seed = rand.Uint64()
			}
			return b.run(cmd.Context(), c, cfg)
		},
	}
	f := cmd.Flags()
	f.StringVar(&r.address, "aggregator", "", "`ADDR` of the aggregator, on this machine: HOST:PORT or unix:PATH (default: as that of httpctl top)")
	f.IntVar(&cfg.Agents, "agents", cfg.Agents, "simulate `N` agents")
	f.DurationVar(&cfg.Duration, "duration", cfg.Duration, "send for so long, in whole intervals")
	f.DurationVar(&cfg.Past, "past", 0, "begin with so much in every agent's spool, as after an absence of the aggregator")
	f.IntVar(&cfg.Exchanges, "exchanges", cfg.Exchanges, "`N` exchanges in each bucket")
	f.IntVar(&cfg.Rows, "rows", cfg.Rows, "`N` sections, user agents and clients in each bucket")
	f.IntVar(&cfg.Bodies, "bodies", cfg.Bodies, "`N` different contents that buckets have")
	f.DurationVar(&cfg.ConnectWithin, "connect-within", cfg.ConnectWithin, "the agents start evenly within this time; 0s is all at once")
	f.DurationVar(&cfg.Spread, "spread", cfg.Spread, "agents close an interval within this time, as clocks differ")
	f.DurationVar(&cfg.CutAfter, "cut-after", 0, "cut all connections at once after this time; 0s is never")
	f.DurationVar(&cfg.Drain, "drain", cfg.Drain, "wait so long, at most, for what is not acknowledged in the end")
	f.DurationVar(&b.ask, "ask", 0, "ask for the dashboard so often meanwhile, of the last hour and of the last day in turn; 0s is never")
	f.Uint64Var(&cfg.Seed, "seed", 0, "`NUMBER` that decides all names and numbers (default: another each time; it is printed)")
	f.BoolVar(&b.force, "force", false, "also use an aggregator that has other hosts")
	f.IntVar(&b.pid, "aggregator-pid", 0, "the aggregator's process `ID`, to measure it (default: that of whoever serves the Unix socket)")
	f.StringVarP(&b.output, "output", "o", "table", "`FORM`: table, json")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// benchFleet is one run of bench fleet.
type benchFleet struct {
	w      *world
	force  bool
	pid    int
	ask    time.Duration
	output string
}

func (b *benchFleet) run(ctx context.Context, c *client.Client, cfg agent.FleetConfig) error {
	if b.output != "table" && b.output != "json" {
		return usagef("--output %s: want table or json", b.output)
	}
	if b.ask < 0 {
		return usagef("--ask %s: want no negative time", b.ask)
	}
	status, err := c.Status(ctx)
	if err != nil {
		return err
	}
	cfg.Width = status.Interval
	if err := cfg.Validate(); err != nil {
		return usageError{err.Error()}
	}
	if err := b.ours(ctx, c); err != nil {
		return err
	}
	if b.pid == 0 {
		b.pid = peerPID(cfg.Aggregator)
	}
	fmt.Fprintf(b.w.err, "httpctl: seed %d: %d agents, a bucket every %s\n", cfg.Seed, cfg.Agents, cfg.Width)

	u := newUsage(b.pid)
	cfg.Observe = func(s agent.FleetSample) {
		u.sample()
		if b.w.progress {
			fmt.Fprintf(b.w.err, "\r%s  %d of %d connected, %d buckets unanswered \x1b[K", s.At.Round(time.Second), s.Connected, cfg.Agents, s.Backlog)
		}
	}
	asking := func() *asked { return &asked{} }
	cfg.Made = func() { asking = askDashboards(ctx, c, b.ask) } // to make content takes the processors for seconds
	result, err := agent.SimulateFleet(ctx, cfg)
	asked := asking()
	if b.w.progress {
		fmt.Fprint(b.w.err, "\r\x1b[K")
	}
	if result == nil {
		return err
	}
	u.end()
	report := newBenchReport(&cfg, result, u, asked)
	if ctx.Err() == nil {
		var lost error
		report.Checked, lost = checkFleet(ctx, c, result)
		err = errors.Join(err, lost)
	}
	return errors.Join(err, report.write(b.w.out, b.output))
}

// ours refuses an aggregator that has hosts of another kind.
func (b *benchFleet) ours(ctx context.Context, c *client.Client) error {
	if b.force {
		return nil
	}
	now := b.w.now()
	hosts, err := c.Hosts(ctx, client.Question{Since: now.Add(-time.Second), Until: now}) // all, whatever the range
	if err != nil {
		return err
	}
	for _, h := range hosts {
		if !strings.HasPrefix(h.Name, agent.FleetNamePrefix) {
			return usagef("the aggregator has the host %s: simulated hosts would mix with it for as long as data is kept; start another "+
				"aggregator for this (with a data directory of its own), or say --force", view.Clean(h.Name))
		}
	}
	return nil
}
