package command

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	agent "github.com/httpctl/httpctl/agent/app"
	aggregator "github.com/httpctl/httpctl/aggregator/app"
	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/stat"
)

// sections returns the sections of both daemons with their defaults, so that
// config check and dump speak for every program.
func sections() []config.Section {
	a, g := agent.DefaultConfig(), aggregator.DefaultConfig()
	return []config.Section{{Name: "agent", Into: &a}, {Name: "aggregator", Into: &g}}
}

func newConfigCommand(w *world) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Check a configuration file, or print the effective settings",
		Example: `  httpctl config check /etc/httpctl/httpctl.yaml
  httpctl config dump /etc/httpctl/httpctl.yaml
  httpctl config dump                     # the defaults, and what the environment sets`,
		Args: noArguments,
		RunE: func(*cobra.Command, []string) error { return usagef("config needs a command: check or dump") },
	}
	cmd.AddCommand(
		&cobra.Command{
			Use:   "check FILE",
			Short: "Report every fault of a configuration file",
			Long: `Report every fault of a configuration file, with line, key, value and what is
allowed. All sections are checked, whichever program they are for, and the
environment's HTTPCTL_ variables too.`,
			Example: "  httpctl config check /etc/httpctl/httpctl.yaml",
			Args:    arguments(1, 1, "one configuration file"),
			RunE: func(_ *cobra.Command, args []string) error {
				f, err := w.load(args[0])
				if err != nil {
					return err
				}
				_, err = fmt.Fprintf(w.out, "%s: no faults\n", f.Path)
				return err
			},
		},
		&cobra.Command{
			Use:   "dump [FILE]",
			Short: "Print the effective settings as a configuration file",
			Long: `Print the effective settings, of defaults, file and environment, as a
configuration file. A comment beside each value names what set it.`,
			Example: `  httpctl config dump /etc/httpctl/httpctl.yaml
  HTTPCTL_TIMEOUT=5s httpctl config dump`,
			Args: arguments(0, 1, "one file at most"),
			RunE: func(_ *cobra.Command, args []string) error {
				path := ""
				if len(args) > 0 {
					path = args[0]
				}
				f, err := w.load(path)
				if err != nil {
					return err
				}
				return f.Dump(w.out)
			},
		},
	)
	return cmd
}

// load reads and validates a file with every section, and prints its warnings.
func (w *world) load(path string) (*config.File, error) {
	f, err := config.Load(path, w.environ, sections()...)
	if err == nil {
		for _, warning := range f.Warnings {
			fmt.Fprintln(w.err, "httpctl: "+errorText(errors.New(warning)))
		}
		err = f.Validate(stat.Names())
	}
	return f, err
}
