package command

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/httpctl/httpctl/cmd/httpctl/client"
	"github.com/httpctl/httpctl/pkg/ask"
	"github.com/httpctl/httpctl/pkg/view"
)

func newAlertsCommand(w *world) *cobra.Command {
	r := &reading{w: w}
	var active, fail, quiet bool
	cmd := &cobra.Command{
		Use:   "alerts",
		Short: "List alerts: hits, start, end, duration",
		Long: `List the alerts that overlap the range, the newest first: each with the hits of
its windows above the threshold, and the maximum and average duration of those
that were dismissed. In a script, --fail says by the exit code whether there is one.`,
		Example: `  httpctl alerts --since 24h
  httpctl alerts --since 2026-01-02T03:00:00Z --until 2026-01-02T04:00:00Z
  httpctl alerts --active --fail --quiet || echo "above the baseline"
  httpctl alerts -o json | jq '.alerts[] | select(.end == null)'`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case quiet && !fail:
				return usagef("--quiet without --fail says nothing at all")
			case fail && r.watch > 0:
				return usagef("--fail and --watch exclude each other")
			}
			return r.list(cmd.Context(), func(ctx context.Context, c *client.Client, q client.Question, f view.Format) error {
				a, err := c.AlertsChosen(ctx, q, active)
				if err != nil {
					return err
				}
				if !quiet {
					err = view.WriteAlerts(r.out, f, r.style(), a)
				}
				if err == nil && fail && len(a.Alerts) > 0 {
					err = errFound
				}
				return err
			})
		},
	}
	r.addConnection(cmd)
	r.addList(cmd)
	r.addRange(cmd, "all that is kept")
	r.addFilters(cmd, []string{}...)
	cmd.Flags().BoolVar(&active, "active", false, "only the alert that is active now")
	cmd.Flags().BoolVar(&fail, "fail", false, "exit with code 4 if an alert is listed")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "with --fail: print nothing")
	return cmd
}

func newTopCommand(w *world) *cobra.Command {
	r := &reading{w: w}
	var limit uint32
	cmd := &cobra.Command{
		Use:   "top [DIMENSION]",
		Short: "Print one top list; without a dimension, which lists there are",
		Long: describe(`Print one top list over the range: hits, how much more they may be, share,
measures and last seen. Without a dimension, print which lists there are, and the
filters of each. The rows are those with most hits; --sort-by only puts them into
another order.`),
		Example: `  httpctl top
  httpctl top section --since 1h
  httpctl top routes --status 5xx --host web-1,web-2
  httpctl top user_agent -n 100 -o csv
  httpctl top server --watch=5s --sort-by=-ttfb_p99_seconds --columns key,hits,ttfb_p99_seconds
  httpctl top server --filter server=192.0.2.1:80`,
		Args: arguments(0, 1, "one dimension at most"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return r.list(cmd.Context(), func(ctx context.Context, c *client.Client, q client.Question, f view.Format) error {
				if len(args) == 0 {
					dimensions, err := c.Dimensions(ctx)
					if err != nil {
						return err
					}
					return view.WriteDimensions(r.out, f, r.style(), dimensions)
				}
				if cmd.Flags().Changed("limit") {
					q.Limit = ask.Rows(limit)
				}
				q.Live = q.Until.IsZero()
				t, err := c.List(ctx, args[0], q)
				if err != nil {
					return err
				}
				return view.WriteTop(r.out, f, r.style(), t)
			})
		},
		ValidArgsFunction: r.dimensionNames,
	}
	r.addConnection(cmd)
	r.addList(cmd)
	r.addRange(cmd, "an hour before its end")
	r.addFilters(cmd)
	cmd.Flags().Uint32VarP(&limit, "limit", "n", 0, "`N` rows at most; 0 is all, up to 10000 (default: the aggregator's max_top_hits)")
	return cmd
}

// dimensionNames completes the name of a top list.
func (r *reading) dimensionNames(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	c, err := r.connect()
	if err != nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(cmd.Context(), completeWait)
	defer cancel()
	dimensions, _ := c.Dimensions(ctx) // without an answer there is nothing to propose
	return ask.DimensionNames(dimensions), cobra.ShellCompDirectiveNoFileComp
}

func newHostsCommand(w *world) *cobra.Command {
	r := &reading{w: w}
	cmd := &cobra.Command{
		Use:   "hosts",
		Short: "List monitored hosts: health, rate, and what was not seen",
		Long: `List the hosts with their health: reporting, late (three intervals without
progress) or gone (host_gone_after), how far their buckets have come, and what
their agents could not see over the range.`,
		Example: `  httpctl hosts
  httpctl hosts --since 1h -o wide
  httpctl hosts --watch --sort-by=-loss
  httpctl hosts -o json | jq -r '.hosts[] | select(.health != "reporting") | .name'`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return r.list(cmd.Context(), func(ctx context.Context, c *client.Client, q client.Question, f view.Format) error {
				hosts, err := c.HostsChosen(ctx, q)
				if err != nil {
					return err
				}
				return view.WriteHosts(r.out, f, r.style(), hosts)
			})
		},
	}
	r.addConnection(cmd)
	r.addList(cmd)
	r.addRange(cmd, "an hour before its end")
	r.addFilters(cmd, "host")
	return cmd
}

func newBaselineCommand(w *world) *cobra.Command {
	r := &reading{w: w}
	show := func(cmd *cobra.Command, _ []string) error {
		return r.list(cmd.Context(), func(ctx context.Context, c *client.Client, _ client.Question, f view.Format) error {
			b, err := c.Baseline(ctx)
			if err != nil {
				return err
			}
			s, err := c.Status(ctx)
			if err != nil {
				return err
			}
			return view.WriteBaseline(r.out, f, r.style(), b, s.Window)
		})
	}
	cmd := &cobra.Command{
		Use:   "baseline [show]",
		Short: "Show what the aggregator learned as the normal rate, or learn anew",
		Long: `Show the baseline: the learned number of requests per window, when and from which
hosts it was learned, and above how many requests the rule alerts.`,
		Example: `  httpctl baseline
  httpctl baseline relearn`,
		Args: noArguments,
		RunE: show,
	}
	cmd.AddCommand(
		r.withFlags(&cobra.Command{Use: "show", Short: "Show the baseline", Example: "  httpctl baseline show -o json", Args: noArguments, RunE: show}, true),
		newRelearnCommand(w),
	)
	return r.withFlags(cmd, true)
}

func (r *reading) withFlags(cmd *cobra.Command, output bool) *cobra.Command {
	r.addConnection(cmd)
	if output {
		r.addOutput(cmd)
	}
	return cmd
}

func newRelearnCommand(w *world) *cobra.Command {
	r := &reading{w: w}
	cmd := r.withFlags(&cobra.Command{
		Use:   "relearn",
		Short: "Forget the baseline and learn a new one from now on",
		Long: `Forget the baseline and learn a new one from now on. Until it is learned nothing
alerts; an open alert ends. This takes the role admin: on the aggregator's host
root or its user, elsewhere a certificate with that role.`,
		Example: `  httpctl baseline relearn`,
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := r.connect()
			if err != nil {
				return err
			}
			defer c.Close()
			end, err := c.Relearn(cmd.Context())
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(w.out, "Learning a new baseline until %s.\n", end.In(w.location).Format(time.DateTime))
			return err
		},
	}, false)
	r.addToken(cmd)
	return cmd
}
