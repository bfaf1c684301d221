package main

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// page is a manual page in mdoc(7), the language of manuals that groff and mandoc both read.
type page struct {
	name    string // "httpctl-top"
	section int
	about   string // one line without a full stop
	body    strings.Builder
	flags   []string // those that it describes
}

func (p *page) file() string { return fmt.Sprintf("%s.%d", p.name, p.section) }

func (p *page) text(date time.Time) string {
	return fmt.Sprintf(".\\\" Made by make man of the help and of docs/configuration.md: what is edited here is lost.\n.Dd %s\n.Dt %s %d\n.Os\n.Sh NAME\n.Nm %s\n.Nd %s\n%s",
		date.Format("January 2, 2006"), strings.ToUpper(p.name), p.section, p.name, escape(p.about), p.body.String())
}

// macro writes a line with a macro. Its arguments are escaped already.
func (p *page) macro(words ...string) {
	p.body.WriteString("." + strings.Join(words, " ") + "\n")
}

func (p *page) heading(text string)    { p.macro("Sh", arguments(strings.ToUpper(plain(text)))) }
func (p *page) subheading(text string) { p.macro("Ss", arguments(plain(text))) }

// paragraphs writes texts that empty lines separate. What is indented is printed as it is.
func (p *page) paragraphs(text string, first bool) {
	for _, part := range strings.Split(strings.TrimSpace(strings.ReplaceAll(text, "\n\n\n", "\n\n")), "\n\n") {
		lines := strings.Split(strings.TrimRight(part, "\n"), "\n")
		if part == "" {
			continue
		}
		if strings.HasPrefix(lines[0], "\t") || strings.HasPrefix(lines[0], "  ") {
			p.literal(lines)
			first = false
			continue
		}
		if !first {
			p.macro("Pp")
		}
		p.paragraph(strings.TrimLeft(strings.Join(lines, " "), "# "))
		first = false
	}
}

// sentenceEnd is where a sentence ends: the next one begins a line, so that formatters space them.
var sentenceEnd = regexp.MustCompile(`([^ ][^ .][.?]) +(\[?[A-Z])`)

// paragraph writes a text, which may have code in backquotes and links as Markdown has them.
func (p *page) paragraph(text string) {
	text = sentenceEnd.ReplaceAllString(strings.TrimSpace(text), "$1\n$2")
	for _, line := range strings.Split(text, "\n") {
		p.body.WriteString(escape(line) + "\n")
	}
}

// literal writes lines as they are, but for what they are all indented by.
func (p *page) literal(lines []string) {
	indent := 1000
	for _, l := range lines {
		if strings.TrimSpace(l) != "" {
			indent = min(indent, len(l)-len(strings.TrimLeft(l, " \t")))
		}
	}
	p.macro("Bd", "-literal -offset indent")
	for _, l := range lines {
		p.body.WriteString(verbatim(l[min(indent, len(l)):]) + "\n")
	}
	p.macro("Ed")
}

// list writes entries, each with a macro line that says of what and a text.
func (p *page) list(of string, texts ...[2]string) {
	if len(texts) == 0 {
		return
	}
	p.macro("Bl", of)
	for _, t := range texts {
		p.macro(strings.TrimSpace("It " + t[0]))
		p.paragraph(t[1])
	}
	p.macro("El")
}

const (
	tags    = "-tag -width Ds"
	bullets = "-bullet"
)

// seeAlso refers to the other pages: httpctl to all, a command to httpctl, a daemon to its own and the other.
func (p *page) seeAlso(pages []*page) {
	var others []*page
	for _, o := range pages {
		switch {
		case o == p:
		case p.name == "httpctl", o.name == "httpctl", p.section != 1 && o.section != 1:
			others = append(others, o)
		}
	}
	slices.SortFunc(others, func(a, b *page) int { return cmp.Or(cmp.Compare(a.section, b.section), cmp.Compare(a.name, b.name)) })
	p.heading("see also")
	for i, o := range others {
		comma := ""
		if i < len(others)-1 {
			comma = " ,"
		}
		p.macro("Xr", o.name, fmt.Sprint(o.section)+comma)
	}
}

var (
	code = regexp.MustCompile("`([^`]*)`")
	link = regexp.MustCompile(`\[([^]]*)\]\([^)]*\)`)
	// flagInText is a flag, whose dashes are to be those of a keyboard, so that it can be copied.
	flagInText = regexp.MustCompile(`(^|[\s(/|=,])(--?)([A-Za-z])`)
	emphasis   = regexp.MustCompile(`\*([A-Za-z *]+)\*`)
)

// plain is a text of Markdown without its marks.
func plain(text string) string {
	text = link.ReplaceAllString(text, "$1")
	return strings.NewReplacer("`", "", "**", "").Replace(text)
}

// escape makes text of Markdown, or without marks, a line of mdoc.
func escape(line string) string {
	line = link.ReplaceAllString(line, "$1")
	line = strings.ReplaceAll(line, `\`, `\e`)
	line = flagInText.ReplaceAllStringFunc(line, func(m string) string { return strings.ReplaceAll(m, "-", `\-`) })
	line = code.ReplaceAllStringFunc(line, func(m string) string {
		inner := strings.ReplaceAll(strings.Trim(m, "`"), `\-`, "-")
		return `\fB` + strings.ReplaceAll(inner, "-", `\-`) + `\fP`
	})
	line = emphasis.ReplaceAllString(line, `\fI$1\fP`)
	return guard(line)
}

// verbatim is a line of a literal block.
func verbatim(line string) string {
	return guard(strings.NewReplacer(`\`, `\e`, "-", `\-`, "\t", "    ", "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`).Replace(line))
}

// guard keeps a line from being a macro.
func guard(line string) string {
	if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
		return `\&` + line
	}
	return line
}

// argument makes a text one argument of a macro. A word that is a macro, or a delimiter, loses that meaning.
func argument(text string) string {
	text = strings.NewReplacer(`\`, `\e`, `"`, `\(dq`, "-", `\-`).Replace(text)
	if regexp.MustCompile(`^([A-Z][a-z]|[.,:;()\[\]?!|])$`).MatchString(text) {
		text = `\&` + text
	}
	if strings.ContainsAny(text, " ") || text == "" {
		return `"` + text + `"`
	}
	return text
}

// arguments makes each word of a text an argument.
func arguments(text string) string {
	words := strings.Fields(text)
	for i := range words {
		words[i] = argument(words[i])
	}
	return strings.Join(words, " ")
}
