package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	agent "github.com/httpctl/httpctl/agent/app"
	aggregator "github.com/httpctl/httpctl/aggregator/app"
	"github.com/httpctl/httpctl/cmd/httpctl/command"
	"github.com/httpctl/httpctl/pkg/daemon"
)

// programs makes the pages of httpctl, of each of its commands, and of the daemons.
func programs() (pages []*page) {
	root := command.Commands()
	pages = append(pages, overview(root))
	for _, c := range available(root) {
		pages = append(pages, commandPage(c))
	}
	for _, p := range []daemon.Program{agent.Program(), aggregator.Program()} {
		pages = append(pages, daemonPage(p))
	}
	return pages
}

func available(c *cobra.Command) []*cobra.Command {
	return slices.DeleteFunc(slices.Clone(c.Commands()), func(c *cobra.Command) bool { return !c.IsAvailableCommand() || c.Name() == "help" })
}

// overview is httpctl(1).
func overview(root *cobra.Command) *page {
	p := &page{name: "httpctl", section: 1, about: lower(root.Short)}
	p.heading("synopsis")
	p.usage("httpctl COMMAND [flags]")
	p.usage("httpctl COMMAND --help")
	p.heading("description")
	p.paragraphs(root.Long, true)
	p.macro("Pp")
	p.paragraph("The commands, each with a page of its own:")
	var list [][2]string
	for _, c := range available(root) {
		list = append(list, [2]string{"Xr httpctl-" + c.Name() + " 1", sentence(c.Short)})
	}
	p.list(tags, list...)
	p.environment()
	p.heading("files")
	p.list(tags,
		[2]string{"Pa $XDG_CONFIG_HOME/httpctl/contexts.yaml , Pa ~/.config/httpctl/contexts.yaml", "The aggregators that have a name: see `httpctl context`."},
		[2]string{"Pa /var/lib/httpctl/httpctl.sock", "The socket at which the aggregator of this host is looked for, after that of the user's state directory."})
	p.exitStatus()
	p.examples(root.Example)
	return p
}

// commandPage is the page of a command and those below it.
func commandPage(c *cobra.Command) *page {
	p := &page{name: "httpctl-" + c.Name(), section: 1, about: lower(c.Short)}
	below := available(c)
	p.heading("synopsis")
	if c.Runnable() {
		p.usage(c.UseLine())
	}
	for _, b := range below {
		p.usage(b.UseLine())
	}
	p.heading("description")
	p.paragraphs(long(c), true)
	p.options(c)
	for _, b := range below {
		p.subheading(strings.Join(strings.Fields(b.CommandPath()), " "))
		p.paragraphs(long(b), true)
		p.options(b)
		if b.Example != "" && c.Name() != "completion" {
			p.macro("Pp")
			p.paragraph("Examples:")
			p.literal(strings.Split(b.Example, "\n"))
		}
	}
	p.environment()
	p.exitStatus()
	if c.Example != "" {
		p.examples(c.Example)
	}
	return p
}

// daemonPage is the page of a daemon.
func daemonPage(d daemon.Program) *page {
	h := d.Help()
	p := &page{name: d.Name, section: 8, about: h.Short}
	p.heading("synopsis")
	for _, u := range h.Usage {
		p.usage(u)
	}
	p.heading("description")
	p.paragraphs(h.Long, true)
	p.entries(h.Flags)
	examples := []string{h.Example}
	for _, c := range d.Commands {
		of := c.Help()
		p.subheading(of.Name)
		p.paragraphs(of.Long, true)
		var list [][2]string
		for _, e := range of.Commands {
			list = append(list, [2]string{words("Cm", e.Name), sentence(e.Text)})
		}
		p.list(tags, list...)
		p.entries(of.Flags)
		p.macro("Pp")
		p.paragraph(of.End)
		examples = append(examples, of.Example)
	}
	name := strings.TrimPrefix(d.Name, "httpctl-")
	p.heading("environment")
	p.list(tags, [2]string{"Ev HTTPCTL_*", fmt.Sprintf("Settings, by their keys in capitals: see %s.yaml(5).", d.Name)})
	p.heading("files")
	p.list(tags,
		[2]string{"Pa /etc/httpctl/" + name + ".yaml", fmt.Sprintf("The configuration that the service is started with: see %s.yaml(5).", d.Name)},
		[2]string{"Pa /var/lib/httpctl", "What is kept on disk, unless the configuration says otherwise."})
	p.heading("exit status")
	p.list(tags, [2]string{"0", "Done, or ended by a signal."}, [2]string{"1", "Failed; the last message says why."},
		[2]string{"2", "The command line or the configuration is wrong."})
	p.examples(strings.Join(examples, "\n"))
	return p
}

func (p *page) environment() {
	p.heading("environment")
	p.list(tags,
		[2]string{"Ev HTTPCTL_AGGREGATOR", "Where the aggregator is, unless `--aggregator` or `--context` says."},
		[2]string{"Ev HTTPCTL_CONTEXT", "The context to use instead of the current one: see `httpctl context`."},
		[2]string{"Ev NO_COLOR , Ev FORCE_COLOR", "Without colour if the first is set; with colour, or without, if the second is 1 or 0."},
		[2]string{"Ev LC_ALL , Ev LC_CTYPE , Ev LANG", "Lines and symbols are ASCII where the first that is set does not name UTF-8."})
}

func (p *page) exitStatus() {
	p.heading("exit status")
	p.list(tags, [2]string{"0", "Done."}, [2]string{"1", "Failed."}, [2]string{"2", "Wrong usage."},
		[2]string{"3", "The aggregator cannot be reached."}, [2]string{"4", "`httpctl alerts --fail` found an alert."})
}

func (p *page) examples(text string) {
	p.heading("examples")
	p.literal(strings.Split(text, "\n"))
}

// usage writes a form of the command line into the synopsis.
func (p *page) usage(line string) {
	name, rest, _ := strings.Cut(line, " ")
	p.macro("Nm", name)
	commands := true // words before anything else are commands
	for rest = strings.TrimSpace(rest); rest != ""; rest = strings.TrimSpace(rest) {
		if inner, after, ok := strings.Cut(strings.TrimPrefix(rest, "["), "]"); ok && strings.HasPrefix(rest, "[") {
			p.macro("Op", words("Ar", inner))
			rest, commands = after, false
			continue
		}
		word, after, _ := strings.Cut(rest, " ")
		switch {
		case commands && strings.ToLower(word) == word && !strings.HasPrefix(word, "-"):
			p.macro("Cm", argument(word))
		default:
			commands = false
			p.macro(words("Ar", word))
		}
		rest = after
	}
}

// words marks flags as such, words in small letters as commands, and the rest with the macro.
func words(macro, text string) string {
	var out []string
	for _, w := range strings.Fields(text) {
		more := strings.HasSuffix(w, "...")
		w = strings.TrimSuffix(w, "...")
		switch {
		case strings.HasPrefix(w, "-"):
			out = append(out, "Fl", argument(w[1:]))
		case strings.ToLower(w) == w && w != "flags" && !strings.HasPrefix(w, "["):
			out = append(out, "Cm", argument(w))
		case strings.HasPrefix(w, "["):
			out = append(out, "Op", "Ar", argument(strings.Trim(w, "[]")))
		default:
			if macro == "Cm" {
				macro = "Ar"
			}
			out = append(out, macro, argument(w))
		}
		if more {
			out = append(out, "...")
		}
	}
	return strings.Join(out, " ")
}

// options writes the flags of a command.
func (p *page) options(c *cobra.Command) {
	var list [][2]string
	c.LocalFlags().VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		value, text := pflag.UnquoteUsage(f)
		tag := "Fl " + argument("-"+f.Name)
		if f.Shorthand != "" {
			tag = "Fl " + f.Shorthand + " , " + tag
		}
		switch {
		case f.NoOptDefVal != "" && f.Value.Type() != "bool":
			tag += " Ns Op = Ns Ar " + argument(value)
		case value != "":
			tag += " Ar " + argument(value)
		}
		text = sentence(text)
		if !slices.Contains([]string{"", "0", "0s", "false", "[]"}, f.DefValue) {
			text += fmt.Sprintf("\nThe default is `%s`.", f.DefValue)
		}
		p.flags = append(p.flags, "--"+f.Name)
		list = append(list, [2]string{tag, text})
	})
	p.list(tags, list...)
}

// entries writes flags that are not those of a cobra command.
func (p *page) entries(flags []daemon.Entry) {
	var list [][2]string
	for _, e := range flags {
		name, _, _ := strings.Cut(e.Name, " ")
		p.flags = append(p.flags, name)
		list = append(list, [2]string{words("Ar", e.Name), sentence(e.Text)})
	}
	p.list(tags, list...)
}

func long(c *cobra.Command) string {
	if c.Long != "" {
		return c.Long
	}
	return sentence(c.Short)
}

// lower begins a line about a page with a small letter, as is usual.
func lower(text string) string {
	if strings.HasPrefix(text, "HTTP") {
		return text
	}
	return strings.ToLower(text[:1]) + text[1:]
}

// sentence makes a text one.
func sentence(text string) string {
	text = strings.ToUpper(text[:1]) + text[1:]
	if strings.HasSuffix(text, ".") || strings.HasSuffix(text, "?") {
		return text
	}
	return text + "."
}
