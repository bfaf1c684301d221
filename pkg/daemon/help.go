package daemon

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/httpctl/httpctl/pkg/config"
)

// Help describes a command line. --help prints it, and manual pages are made of it.
type Help struct {
	// Name is how it is called: "httpctl-agent", "httpctl-agent enroll".
	Name string
	// Short is what it is or does, in a line without a full stop; Long the same in paragraphs, in the
	// lines in which they are printed.
	Short, Long string
	// Example has lines that can be pasted into a shell.
	Example string
	// Usage are the forms that the command line has, each with the name.
	Usage []string
	// Commands and Flags are listed in this order.
	Commands, Flags []Entry
	// End are the paragraphs that come last.
	End string
}

// Entry is a command or a flag, such as "--config FILE", and what it does.
type Entry struct{ Name, Text string }

// Write prints the help: what it is, then examples, as they are what most people look for.
func (h Help) Write(w io.Writer) {
	var b strings.Builder
	b.WriteString(strings.TrimSpace(h.Long) + "\n")
	section := func(title string, lines []string) {
		if len(lines) == 0 {
			return
		}
		b.WriteString("\n" + title + ":\n")
		for _, l := range lines {
			b.WriteString("  " + l + "\n")
		}
	}
	if h.Example != "" {
		section("Examples", strings.Split(h.Example, "\n"))
	}
	section("Usage", h.Usage)
	section("Commands", columns(h.Commands))
	section("Flags", columns(h.Flags))
	if h.End != "" {
		b.WriteString("\n" + strings.TrimSpace(h.End) + "\n")
	}
	_, _ = io.WriteString(w, b.String()) // nobody is there to be told
}

// columns lays entries out, the texts below each other.
func columns(list []Entry) (lines []string) {
	width := 0
	for _, e := range list {
		width = max(width, len(e.Name))
	}
	for _, e := range list {
		lines = append(lines, fmt.Sprintf("%-*s  %s", width, e.Name, e.Text))
	}
	return lines
}

// Flags lists the flags of a set by name. What they take stands in backquotes in their usage; a name of
// one letter has one dash.
func Flags(set *flag.FlagSet) (list []Entry) {
	set.VisitAll(func(f *flag.Flag) {
		value, text := flag.UnquoteUsage(f)
		list = append(list, Entry{strings.TrimSuffix(dashes(f.Name)+" "+value, " "), text})
	})
	return list
}

func dashes(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

// FlagError says what is wrong with a command line, and proposes the flag of the set that may have been meant.
func FlagError(set *flag.FlagSet, err error) error {
	name, ok := strings.CutPrefix(err.Error(), "flag provided but not defined: -")
	if !ok {
		return err
	}
	name = strings.TrimLeft(name, "-")
	var names []string
	set.VisitAll(func(f *flag.Flag) { names = append(names, f.Name) })
	text := "unknown flag: " + dashes(name)
	if near := config.Nearest(name, names); near != "" {
		text += "; did you mean " + dashes(near) + "?"
	}
	return errors.New(text)
}

// Unknown says that there is no command name, and proposes one of those that there are.
func Unknown(name string, names []string) error {
	slices.Sort(names)
	if near := config.Nearest(name, names); near != "" {
		return fmt.Errorf("unknown command %q; did you mean %q?", name, near)
	}
	return fmt.Errorf("unknown command %q; there are: %s", name, strings.Join(names, ", "))
}

// Quiet makes a flag set that says nothing itself: its errors are for [FlagError], and the help is a [Help].
func Quiet(name string) *flag.FlagSet {
	set := flag.NewFlagSet(name, flag.ContinueOnError)
	set.SetOutput(io.Discard)
	return set
}
