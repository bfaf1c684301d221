package command

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/httpctl/httpctl/cmd/httpctl/client"
	"github.com/httpctl/httpctl/pkg/view"
)

const (
	// completeWait bounds how long a shell waits for proposals.
	completeWait = 2 * time.Second
	// completeRows bounds the keys of a top list that are proposed.
	completeRows = 200
)

// proposals asks the aggregator for names to propose. Without an answer there are none, and never names of files.
func (r *reading) proposals(cmd *cobra.Command, ask func(context.Context, *client.Client) []string) (names []string) {
	c, err := r.connect()
	if err != nil {
		return nil
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(cmd.Context(), completeWait)
	defer cancel()
	for _, name := range ask(ctx, c) {
		if name == view.Clean(name) { // others cannot be typed, and a shell would print them
			names = append(names, name)
		}
	}
	return names
}

// afterComma proposes names behind what of a list with commas is typed already, but those that it has.
func afterComma(names []string, typed string) []string {
	i := strings.LastIndexByte(typed, ',')
	if i < 0 {
		return names
	}
	there := strings.Split(typed[:i], ",")
	var out []string
	for _, name := range names {
		if !slices.Contains(there, name) {
			out = append(out, typed[:i+1]+name)
		}
	}
	return out
}

// keysOf are the keys of a top list in a column, of the rows that begin with others.
func keysOf(ctx context.Context, c *client.Client, dimension string, begin ...string) (names []string) {
	t, err := c.Top(ctx, dimension, client.Question{Limit: completeRows})
	if err != nil {
		return nil
	}
	for _, row := range t.Rows {
		if n := len(begin); len(row.Keys) > n && slices.Equal(row.Keys[:n], begin) && !slices.Contains(names, row.Keys[n]) {
			names = append(names, row.Keys[n])
		}
	}
	return names
}

func hostNames(ctx context.Context, c *client.Client) (names []string) {
	hosts, _ := c.Hosts(ctx, client.Question{})
	for _, h := range hosts {
		names = append(names, h.Name)
	}
	return names
}

// addCompletion lets the shell propose what the aggregator knows: hosts, and the most frequent
// domains, sections, methods and statuses.
func (r *reading) addCompletion(cmd *cobra.Command) {
	propose := func(flag string, ask func(context.Context, *client.Client) []string) {
		_ = cmd.RegisterFlagCompletionFunc(flag, func(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
			return afterComma(r.proposals(cmd, ask), typed), cobra.ShellCompDirectiveNoFileComp
		})
	}
	propose("host", hostNames)
	for _, dimension := range []string{"domain", "section", "method", "status"} {
		propose(dimension, func(ctx context.Context, c *client.Client) []string {
			names := keysOf(ctx, c, dimension)
			if dimension == "status" {
				names = append(names, "2xx", "3xx", "4xx", "5xx")
			}
			return names
		})
	}
}

// addColumnCompletion lets the shell propose the columns of a list, which its command knows once it asks: it is run with a
// column that no list has, and says which there are.
func (r *reading) addColumnCompletion(cmd *cobra.Command) {
	for _, flag := range []string{"columns", "sort-by"} {
		_ = cmd.RegisterFlagCompletionFunc(flag, func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
			ctx, cancel := context.WithTimeout(cmd.Context(), completeWait)
			defer cancel()
			cmd.SetContext(ctx)
			r.columns, r.sortBy, r.watch = []string{""}, "", 0
			var column *view.ColumnError
			if !errors.As(cmd.RunE(cmd, args), &column) {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			names := column.There
			switch {
			case flag == "columns":
				names = afterComma(names, typed)
			case strings.HasPrefix(typed, "-"):
				for i := range names {
					names[i] = "-" + names[i]
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		})
	}
}

// dimensionKeys completes the name of a top list, and then the keys of one of its rows.
func (r *reading) dimensionKeys(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return r.dimensionNames(cmd, args, typed)
	}
	return r.proposals(cmd, func(ctx context.Context, c *client.Client) []string {
		return keysOf(ctx, c, args[0], args[1:]...)
	}), cobra.ShellCompDirectiveNoFileComp
}

// noFiles keeps shells from proposing files where none is wanted: commands and flags that take no file, and have no proposals of their own.
func noFiles(cmd *cobra.Command) {
	for _, c := range cmd.Commands() {
		noFiles(c)
	}
	if cmd.ValidArgsFunction == nil && !strings.Contains(cmd.Use, "FILE") {
		cmd.ValidArgsFunction = cobra.NoFileCompletions
	}
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
		what, _ := pflag.UnquoteUsage(f)
		if _, there := cmd.GetFlagCompletionFunc(f.Name); !there && what != "" && !strings.Contains(what, "FILE") && !strings.Contains(what, "DIR") {
			_ = cmd.RegisterFlagCompletionFunc(f.Name, cobra.NoFileCompletions)
		}
	})
}
