package command

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/httpctl/httpctl/cmd/httpctl/live"
	"github.com/httpctl/httpctl/pkg/view"
)

func newDashboardCommand(w *world) *cobra.Command {
	r := &reading{w: w}
	var once bool
	cmd := &cobra.Command{
		Use:   "dashboard",
		Short: "Watch rate, alert, health of the fleet, and the top lists",
		Long: `Watch the fleet. On a terminal this is a view to work in: Enter goes into a host,
domain, section or status, Esc back, / filters, ? names all keys, q ends. On a pipe
one dashboard is printed each dashboard_bucket_size (10s). If the aggregator goes away, the last
picture stays, with since when and why, until it is back.` + readingLong,
		Example: `  httpctl dashboard
  httpctl dashboard --host web-1 --status 5xx
  httpctl dashboard --once -o json | jq .status.alert.state`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			format, err := r.format()
			if err != nil {
				return err
			}
			asked, err := r.question()
			if err != nil {
				return err
			}
			r.again = !once
			c, err := r.connect()
			if err != nil {
				return err
			}
			defer c.Close()
			shown := w.live(format, once)
			for _, f := range asked.Filters {
				shown.Filters = append(shown.Filters, f.Column)
			}
			shown.Hour = hourOf(c, asked)
			return RunDashboard(cmd.Context(), shown, func(ctx context.Context, more live.Request) (*view.Dashboard, error) {
				q, err := r.question() // again: --since 1h moves on
				if err != nil {
					return nil, err
				}
				q.Live = true
				filter := filterText(q)
				d, err := c.Dashboard(ctx, narrow(q, more))
				if err == nil {
					d.Filter = filter
					c.Hurry()
				}
				return d, err
			})
		},
	}
	r.addConnection(cmd)
	r.addOutput(cmd)
	r.addRange(cmd, "an hour; of alerts all that is kept")
	r.addFilters(cmd)
	cmd.Flags().BoolVar(&once, "once", false, "print one dashboard and exit")
	return cmd
}
