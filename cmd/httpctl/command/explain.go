package command

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/httpctl/httpctl/cmd/httpctl/client"
	"github.com/httpctl/httpctl/pkg/view"
)

func newExplainCommand(w *world) *cobra.Command {
	r := &reading{w: w}
	cmd := &cobra.Command{
		Use:   "explain DIMENSION [KEY...]",
		Short: "Where a number comes from: which hosts, which buckets, what was not seen",
		Long: describe(`Tell where a number of a top list comes from: what each host gives to it, how
much more it may be, of how many buckets, how much of the range they cover, what
the host declares unobserved, and what its agent did not see. A list with several
keys takes one value for each; without any, the list's total is explained.`),
		Example: `  httpctl explain section shop.example.org/cart --since 1h
  httpctl explain routes shop.example.org/cart GET 503
  httpctl explain method -o json | jq '.spans[].unobserved'`,
		Args: arguments(1, -1, "a dimension, and the key"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return r.list(cmd.Context(), func(ctx context.Context, c *client.Client, q client.Question, f view.Format) error {
				e, err := c.ExplainKnown(ctx, args[0], args[1:], q)
				if err != nil {
					return err
				}
				return view.WriteExplanation(r.out, f, r.style(), e)
			})
		},
		ValidArgsFunction: r.dimensionKeys,
	}
	r.addConnection(cmd)
	r.addList(cmd)
	r.addRange(cmd, "an hour before its end")
	r.addFilters(cmd)
	return cmd
}
