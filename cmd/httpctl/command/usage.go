package command

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/httpctl/httpctl/pkg/config"
)

// arguments returns a check that there are at least least and at most most
// arguments (most < 0: any number); want says what they are.
func arguments(least, most int, want string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if most == 1 && len(args) > 0 {
			if err := watchApart(cmd, args[len(args)-1]); err != nil {
				return err
			}
		}
		switch {
		case len(args) < least:
			return usagef("%s needs %s", commandName(cmd), want)
		case most >= 0 && len(args) > most:
			return usagef("%s takes %s: %q is too much", commandName(cmd), want, args[most])
		}
		return nil
	}
}

// noArguments is for commands that take none; one that has commands of its
// own takes an argument for a mistyped one of them.
func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if err := watchApart(cmd, args[len(args)-1]); err != nil {
		return err
	}
	var names []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	if len(names) == 0 {
		return usagef("%s takes no arguments: %q is too much", commandName(cmd), args[0])
	}
	return unknownCommand(cmd, args[0], names)
}

// watchApart is the error of a time that was written behind --watch, which takes one with = only, as it can be without.
func watchApart(cmd *cobra.Command, arg string) error {
	f := cmd.Flags().Lookup("watch")
	if _, err := config.ParseDuration(arg); err != nil || f == nil || !f.Changed {
		return nil
	}
	return usagef("%q: the time of --watch is written with it: --watch=%s", arg, arg)
}

// commandName is a command in messages, which begin with the program's name: "config check".
func commandName(cmd *cobra.Command) string {
	return strings.TrimPrefix(cmd.CommandPath(), cmd.Root().Name()+" ")
}

// commandPrefix is what stands before a command's own commands: "" for the root, "config ".
func commandPrefix(cmd *cobra.Command) string {
	if cmd.HasParent() {
		return commandName(cmd) + " "
	}
	return ""
}

func unknownCommand(cmd *cobra.Command, name string, names []string) error {
	if near := config.Nearest(name, names); near != "" {
		return usagef("unknown command %q; did you mean %q?", commandPrefix(cmd)+name, commandPrefix(cmd)+near)
	}
	return usagef("unknown command %q; there are: %s", commandPrefix(cmd)+name, strings.Join(names, ", "))
}

// unknownBeforeFlags is the error of a first word that is no command: cobra would complain of the flags behind it, as the root does not have them.
func unknownBeforeFlags(root *cobra.Command, args []string) error {
	if len(args) == 0 || strings.HasPrefix(args[0], "-") || strings.HasPrefix(args[0], cobra.ShellCompRequestCmd) {
		return nil
	}
	root.InitDefaultHelpCmd()
	if of, _, err := root.Find(args[:1]); err != nil || of != root {
		return nil
	}
	return noArguments(root, args[:1])
}

// flagError says what is wrong with a flag in the words of the other errors.
func flagError(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if errors.As(err, &unknown) {
		name := unknown.GetSpecifiedName()
		if unknown.GetSpecifiedShortnames() != "" { // one letter
			return usageError{err.Error()}
		}
		var names []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if !f.Hidden {
				names = append(names, f.Name)
			}
		})
		text := fmt.Sprintf("unknown flag: --%s", name)
		if near := config.Nearest(name, names); near != "" {
			text += fmt.Sprintf("; did you mean --%s?", near)
		}
		return usageError{text}
	}
	var invalid *pflag.InvalidValueError
	if errors.As(err, &invalid) {
		f := invalid.GetFlag()
		want := map[string]string{"int": "a whole number", "uint32": "a whole number of 0 or more", "bool": "true or false"}[f.Value.Type()]
		if want == "" {
			return usageError{err.Error()}
		}
		return usagef("--%s %s: want %s", f.Name, invalid.GetValue(), want)
	}
	return usageError{err.Error()}
}

// newHelpCommand replaces cobra's, which answers a command that is not there with exit code 0.
func newHelpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Help about any command",
		RunE: func(cmd *cobra.Command, args []string) error {
			of, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				var names []string
				for _, c := range of.Commands() {
					if c.IsAvailableCommand() {
						names = append(names, c.Name())
					}
				}
				if len(names) == 0 {
					return usagef("%s has no commands of its own: %q is too much", commandName(of), rest[0])
				}
				return unknownCommand(of, slices.Concat(rest, args)[0], names)
			}
			of.InitDefaultHelpFlag()
			return of.Help()
		},
	}
}

// completeCompletion makes cobra's command refuse a shell that it does not know.
func completeCompletion(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		if c.Name() != "completion" {
			continue
		}
		c.Short = "Print a completion script for a shell"
		c.Args = noArguments
		c.RunE = func(cmd *cobra.Command, _ []string) error {
			return usagef("completion needs a shell: bash, fish, powershell or zsh")
		}
		for _, shell := range c.Commands() {
			shell.Args = noArguments
		}
	}
}
