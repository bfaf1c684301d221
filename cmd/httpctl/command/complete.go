package command

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/httpctl/httpctl/cmd/httpctl/client"
	"github.com/httpctl/httpctl/pkg/view"
)

const (
	// completeWait bounds how long a shell waits for proposals.
	completeWait = 2 * time.Second
	// completeRows bounds the keys of a top list that are proposed.
	completeRows = 200
)

// addCompletion lets the shell propose what the aggregator knows: hosts, and the most frequent
// domains, sections and methods. Without an answer there is nothing to propose.
func (r *reading) addCompletion(cmd *cobra.Command) {
	propose := func(flag string, ask func(context.Context, *client.Client) []string) {
		_ = cmd.RegisterFlagCompletionFunc(flag, func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
			c, err := r.connect()
			if err != nil {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			defer c.Close()
			ctx, cancel := context.WithTimeout(cmd.Context(), completeWait)
			defer cancel()
			var names []string
			for _, name := range ask(ctx, c) {
				if name == view.Clean(name) { // others cannot be typed, and a shell would print them
					names = append(names, name)
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		})
	}
	propose("host", func(ctx context.Context, c *client.Client) (names []string) {
		hosts, _ := c.Hosts(ctx, client.Question{})
		for _, h := range hosts {
			names = append(names, h.Name)
		}
		return names
	})
	for _, dimension := range []string{"domain", "section", "method"} {
		propose(dimension, func(ctx context.Context, c *client.Client) (names []string) {
			t, err := c.Top(ctx, dimension, client.Question{Limit: completeRows})
			if err != nil {
				return nil
			}
			for _, row := range t.Rows {
				if len(row.Keys) == 1 {
					names = append(names, row.Keys[0])
				}
			}
			return names
		})
	}
}
