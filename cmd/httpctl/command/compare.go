package command

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/httpctl/httpctl/cmd/httpctl/client"
	"github.com/httpctl/httpctl/pkg/ask"
	"github.com/httpctl/httpctl/pkg/view"
)

func newCompareCommand(w *world) *cobra.Command {
	r := &reading{w: w}
	var against string
	var peers bool
	var limit uint32
	cmd := &cobra.Command{
		Use:   "compare [DIMENSION]",
		Short: "What is different: this hour from yesterday's, or one host from its peers",
		Long: describe(`Compare a range with the same range a day before, or as long before as --against
says; or with --peers one host with the others at the same time, one of them on
average. The keys that differ most come first; those whose difference the error
bounds explain are left out. Without a dimension, each list is compared.

The range ends where every reporting host has come, so that both sides are whole.`),
		Example: `  httpctl compare
  httpctl compare section --since 15m --against 7d
  httpctl compare --host web-1 --peers
  httpctl compare status --domain shop.example.org -o json`,
		Args: arguments(0, 1, "one dimension at most"),
		RunE: func(cmd *cobra.Command, args []string) error {
			how := ask.Comparing{Peers: peers, Limit: int(limit)}
			if len(args) > 0 {
				how.Dimension = args[0]
			}
			if cmd.Flags().Changed("against") {
				how.Against = against
			}
			return r.list(cmd.Context(), func(ctx context.Context, c *client.Client, q client.Question, f view.Format) error {
				list, notes, err := c.Compare(ctx, q, how, r.w.now())
				if err != nil {
					return err
				}
				return view.WriteComparisons(r.out, f, r.style(), list, notes)
			})
		},
		ValidArgsFunction: r.dimensionNames,
	}
	r.addConnection(cmd)
	r.addOutput(cmd)
	r.addRange(cmd, "an hour before its end")
	r.addFilters(cmd)
	cmd.Flags().StringVar(&against, "against", "yesterday", "how much earlier the other range is: `TIME` such as 1h, 7d, yesterday or last-week")
	cmd.Flags().BoolVar(&peers, "peers", false, "hold the one --host against the other hosts")
	cmd.Flags().Uint32VarP(&limit, "limit", "n", 5, "`N` keys of each list at most, 0 is all")
	return cmd
}
