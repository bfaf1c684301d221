package command

import (
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestEveryCommandHelps: each command says what it is for, then shows examples, and then how it is used.
func TestEveryCommandHelps(t *testing.T) {
	b := newBench(t)
	n := 0
	each(b.world, func(c *cobra.Command) {
		n++
		if c.Short == "" || c.Example == "" {
			t.Errorf("%s has no short help or example", c.CommandPath())
		}
		if strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: the short help %q ends in a full stop", c.CommandPath(), c.Short)
		}
		args := append(strings.Fields(c.CommandPath())[1:], "--help")
		out, stderr, code := b.run(t, args...)
		examples, usage, flags := strings.Index(out, "\nExamples:\n"), strings.Index(out, "\nUsage:\n"), strings.Index(out, "\nFlags:\n")
		if code != 0 || examples < 0 || examples > usage || usage > flags {
			t.Errorf("httpctl %s: exit %d %q, examples at %d, usage at %d, flags at %d:\n%s", strings.Join(args, " "), code, stderr, examples, usage, flags, out)
		}
	})
	if n < 25 {
		t.Errorf("%d commands, want at least 25", n)
	}
}

// TestExamplesAreAccepted: each example of a command's help has that command, and flags and arguments that are taken.
func TestExamplesAreAccepted(t *testing.T) {
	b := newBench(t)
	each(b.world, func(c *cobra.Command) {
		shown := 0
		for _, line := range strings.Split(strings.ReplaceAll(c.Example, "\\\n", " "), "\n") {
			for _, args := range calls(line) {
				var started bool
				root := newRootCommand(b.world, &started)
				of, rest, err := root.Find(args)
				if err == nil {
					err = of.ParseFlags(rest)
				}
				if err == nil {
					err = of.ValidateArgs(of.Flags().Args())
				}
				if err != nil {
					t.Errorf("%s: the example %q: %v", c.CommandPath(), line, err)
				}
				if strings.HasPrefix(of.CommandPath()+" ", c.CommandPath()+" ") {
					shown++
				}
			}
		}
		if shown == 0 {
			t.Errorf("%s: no example shows it", c.CommandPath())
		}
	})
	if got := calls(`  A=b sudo httpctl top 'a b' --x="c d" | jq '.httpctl top' || httpctl alerts # httpctl no`); len(got) != 2 ||
		strings.Join(got[0], ",") != "top,a b,--x=c d" || strings.Join(got[1], ",") != "alerts" {
		t.Errorf("calls = %q", got)
	}
}

// each calls f with every command but those that cobra makes.
func each(w *world, f func(*cobra.Command)) {
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Name() == "help" || c.Name() == "completion" {
			return
		}
		f(c)
		for _, below := range c.Commands() {
			walk(below)
		}
	}
	var started bool
	walk(newRootCommand(w, &started))
}

// calls returns the arguments of each call of httpctl in a line for a shell.
func calls(line string) (out [][]string) {
	line, _, _ = strings.Cut(line, " #")
	token := regexp.MustCompile(`\|\||&&|[|;>]|(?:[^\s|;>'"]|'[^']*'|"[^"]*")+`)
	var args []string
	ours := false
	end := func() {
		if ours {
			out = append(out, args)
		}
		args, ours = nil, false
	}
	begun := false
	for _, w := range token.FindAllString(line, -1) {
		switch {
		case regexp.MustCompile(`^(\|\||&&|[|;>])$`).MatchString(w):
			end()
			begun = false
		case !begun && (w == "sudo" || regexp.MustCompile(`^[A-Z_]+=`).MatchString(w)):
		case !begun:
			begun, ours = true, w == "httpctl"
		default:
			args = append(args, strings.NewReplacer("'", "", `"`, "").Replace(w))
		}
	}
	end()
	return out
}
