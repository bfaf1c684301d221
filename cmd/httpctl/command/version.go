package command

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	agent "github.com/httpctl/httpctl/agent/app"
	aggregator "github.com/httpctl/httpctl/aggregator/app"
	"github.com/httpctl/httpctl/pkg/telemetry"
)

func newVersionCommand(w *world) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version, the commit it was built from, and the formats it knows",
		Example: "  httpctl version",
		Args:    noArguments,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprint(w.out, versionText(telemetry.ReadBuild()))
			return err
		},
	}
}

// versionText describes a build. `httpctl up` is agent and aggregator, so it knows the formats of both.
func versionText(b telemetry.Build) string {
	protocols := slices.Compact(slices.Sorted(slices.Values(slices.Concat(agent.Protocols(), aggregator.Protocols()))))
	formats := slices.Concat(agent.Formats(), aggregator.Formats())
	slices.SortFunc(formats, func(a, b telemetry.Format) int { return cmp.Compare(a.Name, b.Name) })
	return b.Text("httpctl", protocols, slices.Compact(formats))
}
