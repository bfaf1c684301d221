// Package daemon is the shell around the long-running programs: flags,
// configuration, logger, signals, exit code.
package daemon

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/telemetry"
)

// stopWait bounds an orderly shutdown. systemd's default is 90 s.
const stopWait = 20 * time.Second

// Exit codes, as those of httpctl.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// Running is a program that was started.
type Running interface {
	// Failed gives the error by which a part of it ended unasked.
	Failed() <-chan error
	// Reload puts a configuration in force that was read anew, all of it or, with an error, nothing. It
	// differs from the one before in keys that have the tag `reload` only, and is valid.
	Reload(ctx context.Context, f *config.File) error
	// Reloads are the metrics that tell how the last one went.
	Reloads() *telemetry.Reloads
	// Stop ends it in the order of its data flow, within ctx.
	Stop(ctx context.Context) error
}

// Program describes a daemon.
type Program struct {
	Name string
	// Short, Long and Example are those of [Help].
	Short, Long, Example string
	// Section is the part of the configuration file that it reads. Fresh returns another of its kind, with the
	// defaults, that a reload reads into.
	Section config.Section
	Fresh   func() any
	// Statistics are the names that the setting may list. A program that does not
	// count leaves it nil: plug-ins need to be linked into those that do only.
	Statistics []string
	// Settings are flags besides those of every daemon; they go before file and environment.
	Settings []Setting
	// Tasks are flags that have the program do something once, and exit.
	Tasks []Task
	// Commands are words that have the program do something else than run, with a command line of their own.
	Commands []Command
	// Protocols and Formats are what --version says that the program speaks, reads and writes.
	Protocols []string
	Formats   []telemetry.Format
	// Start runs the program. The settings are valid.
	Start func(ctx context.Context, f *config.File, log *slog.Logger) (Running, error)
}

// Setting is a flag that sets a key of the configuration. Given several times, it makes a list.
type Setting struct{ Flag, Key, Usage string }

// Task is a flag that has something done instead of starting the program. The settings are valid,
// and what Run prints is the answer. With [ErrAnswered] the program fails and says no more.
type Task struct {
	Flag, Usage string
	Run         func(ctx context.Context, f *config.File, stdout io.Writer) error
}

// Command is a word that the command line may begin with. Run gets what follows it and
// returns the exit code. No configuration has been read.
type Command struct {
	Name string
	// Help is its own help.
	Help func() Help
	Run  func(ctx context.Context, args, env []string, stdout, stderr io.Writer) int
}

// ErrAnswered is returned by a [Task] that failed and has said why in its answer.
var ErrAnswered = errors.New("the answer says why")

// Main runs the program with the process's arguments until SIGINT or SIGTERM
// and returns its exit code: 0 done, 1 failed, 2 wrong usage or configuration.
func Main(p Program) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	hangups := make(chan os.Signal, 1) // one that comes while another is served, or before the start is done
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	return p.run(ctx, hangups, os.Args[1:], os.Environ(), os.Stdout, os.Stderr)
}

func (p Program) run(ctx context.Context, hangups <-chan os.Signal, args, env []string, stdout, stderr io.Writer) int {
	if len(args) > 0 {
		if i := slices.IndexFunc(p.Commands, func(c Command) bool { return c.Name == args[0] }); i >= 0 {
			return p.Commands[i].Run(ctx, args[1:], env, stdout, stderr)
		}
	}
	l := p.line()
	switch err := l.flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		p.help(l).Write(stdout)
		return exitDone
	case err != nil:
		return p.wrong(stderr, FlagError(l.flags, err))
	case l.flags.NArg() > 0:
		err := fmt.Errorf("unexpected argument %q", l.flags.Arg(0))
		if len(p.Commands) > 0 && l.flags.NFlag() == 0 {
			err = Unknown(l.flags.Arg(0), p.commandNames())
		}
		return p.wrong(stderr, err)
	}
	if l.version {
		fmt.Fprint(stdout, telemetry.ReadBuild().Text(p.Name, p.Protocols, p.Formats))
		return exitDone
	}
	load := func(section config.Section) (*config.File, error) {
		f, err := config.Load(l.path, env, section)
		for i, s := range p.Settings {
			if err == nil && len(l.values[i]) > 0 {
				err = f.Set(s.Key, strings.Join(l.values[i], ","), "flag --"+s.Flag)
			}
		}
		if err == nil {
			err = f.Validate(p.Statistics)
		}
		return f, err
	}
	f, err := load(p.Section)
	if err != nil {
		fmt.Fprintf(stderr, "%s: %v\n", p.Name, err)
		return exitUsage
	}
	task := slices.Index(l.tasks, true)
	if l.dump || l.check || task >= 0 {
		for _, w := range f.Warnings {
			fmt.Fprintf(stderr, "%s: %s\n", p.Name, w)
		}
	}
	if l.dump {
		if err := f.Dump(stdout); err != nil {
			fmt.Fprintf(stderr, "%s: %v\n", p.Name, err)
			return exitFailed
		}
		return exitDone
	}
	if l.check {
		fmt.Fprintln(stdout, "no faults")
		return exitDone
	}
	if task >= 0 {
		switch err := p.Tasks[task].Run(ctx, f, stdout); {
		case errors.Is(err, ErrAnswered):
			return exitFailed
		case err != nil:
			fmt.Fprintf(stderr, "%s: %v\n", p.Name, err)
			return exitFailed
		}
		return exitDone
	}
	log, setLevel := telemetry.NewLeveled(f.Log, stderr)
	for _, w := range f.Warnings {
		log.Warn(w)
	}
	r := reloader{statistics: p.Statistics, now: f, log: log, setLevel: setLevel, load: func() (*config.File, error) {
		return load(config.Section{Name: p.Section.Name, Into: p.Fresh()})
	}}
	if err := p.serve(ctx, hangups, f, &r, log); err != nil {
		log.Error(p.Name+" failed", "err", err)
		return exitFailed
	}
	return exitDone
}

// line is the command line of a program.
type line struct {
	flags                *flag.FlagSet
	path                 string
	check, dump, version bool
	values               [][]string // parallel to Settings
	tasks                []bool     // parallel to Tasks
}

func (p Program) line() *line {
	l := &line{flags: Quiet(p.Name), values: make([][]string, len(p.Settings)), tasks: make([]bool, len(p.Tasks))}
	l.flags.StringVar(&l.path, "config", "", "configuration `FILE`; without it the defaults and the environment count")
	l.flags.BoolVar(&l.check, "check", false, "check the configuration and exit: 0 without faults, 2 with")
	l.flags.BoolVar(&l.dump, "dump", false, "print the effective configuration and exit")
	l.flags.BoolVar(&l.version, "version", false, "print the version and exit")
	for i, s := range p.Settings {
		l.flags.Func(s.Flag, s.Usage, func(v string) error {
			l.values[i] = append(l.values[i], v)
			return nil
		})
	}
	for i, t := range p.Tasks {
		l.flags.BoolVar(&l.tasks[i], t.Flag, false, t.Usage)
	}
	return l
}

// Help is the program's help.
func (p Program) Help() Help { return p.help(p.line()) }

func (p Program) help(l *line) Help {
	h := Help{Name: p.Name, Short: p.Short, Long: p.Long, Example: p.Example, Usage: []string{p.Name + " [flags]"}, Flags: Flags(l.flags)}
	for _, c := range p.Commands {
		of := c.Help()
		h.Usage = append(h.Usage, of.Usage...)
		h.Commands = append(h.Commands, Entry{c.Name, of.Short + ": see " + of.Name + " --help"})
	}
	return h
}

func (p Program) commandNames() (names []string) {
	for _, c := range p.Commands {
		names = append(names, c.Name)
	}
	return names
}

// wrong tells what is wrong with a command line.
func (p Program) wrong(stderr io.Writer, err error) int {
	fmt.Fprintf(stderr, "%s: %v\nSee %s --help.\n", p.Name, err, p.Name)
	return exitUsage
}

// serve runs the program from start to end.
func (p Program) serve(ctx context.Context, hangups <-chan os.Signal, f *config.File, r *reloader, log *slog.Logger) error {
	running, err := p.Start(ctx, f, log)
	if err != nil {
		return err
	}
	for going := true; going; {
		select {
		case <-ctx.Done():
			log.Info("stopping")
			going = false
		case err = <-running.Failed():
			going = false
		case <-hangups:
			r.reload(ctx, running)
		}
	}
	stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopWait)
	defer cancel()
	return errors.Join(err, running.Stop(stopCtx))
}
