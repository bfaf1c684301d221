// Package command holds the commands of httpctl, one file each.
package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/httpctl/httpctl/cmd/httpctl/client"
	"github.com/httpctl/httpctl/pkg/ask"
	"github.com/httpctl/httpctl/pkg/telemetry"
	"github.com/httpctl/httpctl/pkg/view"
)

// Exit codes of httpctl.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitUnreachable = 3
	exitFound       = 4 // --fail: what was asked about is there
)

// errFound makes the exit code exitFound, and says nothing.
var errFound = errors.New("there is one")

// world is what the commands take from outside; tests replace it.
type world struct {
	in       io.Reader
	out, err io.Writer
	getenv   func(string) string
	environ  []string
	uid      int
	now      func() time.Time
	location *time.Location
	// size returns the width and height of the terminal that out is, or ok false.
	size func() (width, height int, ok bool)
	// progress says that standard error is a terminal, which can show it.
	progress bool
	// patience is how long an answer is waited for that is asked for once; 0 is usual.
	patience time.Duration
	// resized receives when the terminal has another size.
	resized <-chan os.Signal
	// keys is where keys are typed, if that is a terminal; nil reads none.
	keys *os.File
	// dial replaces the network; nil is the network.
	dial func(context.Context, string) (net.Conn, error)
}

// Main runs httpctl with the arguments of the process and returns its exit code.
func Main() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the process at once
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, syscall.SIGWINCH)
	defer signal.Stop(resized)
	return run(ctx, os.Args[1:], &world{
		in: os.Stdin, out: os.Stdout, err: os.Stderr, keys: os.Stdin,
		getenv: os.Getenv, environ: os.Environ(), uid: os.Getuid(),
		now: time.Now, location: time.Local, resized: resized,
		progress: term.IsTerminal(int(os.Stderr.Fd())),
		size: func() (int, int, bool) {
			w, h, err := term.GetSize(int(os.Stdout.Fd()))
			return w, h, err == nil && w > 0 && h > 0
		},
	})
}

// run runs one command line and returns the exit code.
func run(ctx context.Context, args []string, w *world) int {
	started := false // whether a command's own code was reached
	root := newRootCommand(w, &started)
	root.SetArgs(args)
	cmd, err := root, unknownBeforeFlags(root, args)
	if err == nil {
		cmd, err = root.ExecuteContextC(ctx)
	}
	if err == nil {
		return exitDone
	}
	if errors.Is(err, errFound) {
		return exitFound
	}
	fmt.Fprintf(w.err, "httpctl: %s\n", errorText(err))
	var usage usageError
	var fault *ask.Fault
	var away *client.UnreachableError
	switch {
	case !started || errors.As(err, &usage) || errors.As(err, &fault) || errors.Is(err, client.ErrRefused):
		fmt.Fprintf(w.err, "See %s --help.\n", cmd.CommandPath())
		return exitUsage
	case errors.As(err, &away):
		return exitUnreachable
	}
	return exitFailed
}

// errorText cleans an error of what a server or file may have put into it,
// and keeps its lines.
func errorText(err error) string {
	lines := strings.Split(strings.TrimSpace(err.Error()), "\n")
	for i := range lines {
		lines[i] = view.Clean(strings.ReplaceAll(lines[i], "\t", "  "))
	}
	return strings.Join(lines, "\n")
}

// usageError is a command line that cannot be run: exit code 2.
type usageError struct{ message string }

func (u usageError) Error() string { return u.message }

func usagef(format string, args ...any) error { return usageError{fmt.Sprintf(format, args...)} }

// Commands returns the commands, to be described and not to be run: their defaults are those of root, with
// nothing in the environment.
func Commands() *cobra.Command {
	var started bool
	return newRootCommand(&world{
		in: strings.NewReader(""), out: io.Discard, err: io.Discard, now: time.Now, location: time.UTC,
		getenv: func(string) string { return "" }, size: func() (int, int, bool) { return 0, 0, false },
	}, &started)
}

func newRootCommand(w *world, started *bool) *cobra.Command {
	root := &cobra.Command{
		Use:   "httpctl COMMAND",
		Short: "Watch the HTTP traffic of one host or a fleet",
		Long: `httpctl shows the HTTP traffic that agents see on their hosts: rates, alerts,
and who asks whom for what, with what was not seen beside every number.`,
		Example: `  sudo httpctl up -i eth0          # watch this host: agent, aggregator and dashboard in one
  httpctl read capture.pcap        # read a capture file
  httpctl dashboard                # watch a fleet
  httpctl alerts --since 24h       # what happened`,
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRun: func(*cobra.Command, []string) {
			*started = true
		},
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.Version = telemetry.Version()
	root.SetVersionTemplate("{{.Name}} {{.Version}}\n")
	root.SetFlagErrorFunc(flagError)
	root.SetHelpCommand(newHelpCommand())
	root.SetIn(w.in)
	root.SetOut(w.out)
	root.SetErr(w.err)
	root.SetHelpTemplate(helpTemplate)
	root.AddCommand(
		newUpCommand(w),
		newReadCommand(w),
		newDashboardCommand(w),
		newAlertsCommand(w),
		newTopCommand(w),
		newSeriesCommand(w),
		newReportCommand(w),
		newHostsCommand(w),
		newCompareCommand(w),
		newExplainCommand(w),
		newTailCommand(w),
		newBaselineCommand(w),
		newCACommand(w),
		newEnrollCommand(w),
		newRevokeCommand(w),
		newConfigCommand(w),
		newContextCommand(w),
		newBenchCommand(w),
		newVersionCommand(w),
	)
	completeCompletion(root)
	noFiles(root)
	return root
}

// helpTemplate puts examples first: they are what most people look for.
const helpTemplate = `{{with (or .Long .Short)}}{{. | trimTrailingWhitespaces}}

{{end}}{{if .HasExample}}Examples:
{{.Example}}

{{end}}{{if .Runnable}}Usage:
  {{.UseLine}}

{{end}}{{if .HasAvailableSubCommands}}Commands:
{{range .Commands}}{{if .IsAvailableCommand}}  {{rpad .Name .NamePadding}} {{.Short}}
{{end}}{{end}}
{{end}}{{if .HasAvailableLocalFlags}}Flags:
{{flagsOf . false | trimTrailingWhitespaces}}
{{with flagsOf . true}}
Where the aggregator is:
{{. | trimTrailingWhitespaces}}
{{end}}{{end}}`

func init() { cobra.AddTemplateFunc("flagsOf", flagsOf) }

// flagsOf are a command's flags as help shows them: those that say where the aggregator is, which many commands share, or the others.
func flagsOf(cmd *cobra.Command, connection bool) string {
	set := pflag.NewFlagSet("", pflag.ContinueOnError)
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
		if _, is := f.Annotations[connectionFlag]; is == connection {
			set.AddFlag(f)
		}
	})
	return strings.ReplaceAll(set.FlagUsages(), "--watch TIME[=2s]", "--watch[=TIME]   ") // as it is written: a value after a space is an argument
}
