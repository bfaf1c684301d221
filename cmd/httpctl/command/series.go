package command

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/httpctl/httpctl/cmd/httpctl/client"
	"github.com/httpctl/httpctl/pkg/ask"
	"github.com/httpctl/httpctl/pkg/view"
)

func newSeriesCommand(w *world) *cobra.Command {
	r := &reading{w: w}
	var step string
	var outcomes bool
	cmd := &cobra.Command{
		Use:   "series",
		Short: "Print requests over time: by minute, hour, day, week or month",
		Long: `Print the requests and their rate in each step of the range, for how much of it
there is data, from how many hosts, and what they did not see. What is older than
the intervals comes from roll-ups. Days, weeks (from Monday) and months are those
of UTC. The interval under way is not in it. With --outcomes also how exchanges
ended and how long responses took.`,
		Example: `  httpctl series
  httpctl series --since 30d --step 1d
  httpctl series --since 7d --step 1h --host web-1 -o csv
  httpctl series --since 1h --outcomes --domain shop.example.org
  httpctl series --since 2026-01-01 --step 1mo --domain shop.example.org`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			name, err := ask.Step(step)
			if err != nil {
				return err
			}
			return r.list(cmd.Context(), func(ctx context.Context, c *client.Client, q client.Question, f view.Format) error {
				q.Outcomes = outcomes
				x, err := c.Series(ctx, name, q)
				if err == nil && r.since == "" && x.Coverage != nil && x.Coverage.First.Sub(x.Since) > x.Until.Sub(x.Since)/2 {
					q.Since = x.Coverage.First // of a day that is nearly empty the rest tells more, in shorter steps
					x, err = c.Series(ctx, name, q)
				}
				if err != nil {
					return err
				}
				return view.WriteSeries(r.out, f, r.style(), x)
			})
		},
	}
	r.addConnection(cmd)
	r.addList(cmd)
	r.addRange(cmd, "a day before its end, or where data begins if that is in its second half")
	r.addFilters(cmd)
	cmd.Flags().BoolVar(&outcomes, "outcomes", false, "also how exchanges ended, and how long responses took")
	cmd.Flags().StringVar(&step, "step", "", "`STEP` of a row: "+strings.Join(ask.StepTexts(), ", ")+" (default: by the length of the range)")
	_ = cmd.RegisterFlagCompletionFunc("step", cobra.FixedCompletions(ask.StepTexts(), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}
