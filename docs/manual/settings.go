package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// settings is the page of the configuration of a daemon, "agent" or "aggregator": what docs/configuration.md says
// that concerns it, and the sample.
func settings(root, name string) (*page, error) {
	text, err := os.ReadFile(filepath.Join(root, "docs", "configuration.md"))
	if err != nil {
		return nil, err
	}
	sample, err := os.ReadFile(filepath.Join(root, "configs", name+".yaml"))
	if err != nil {
		return nil, err
	}
	p := &page{name: "httpctl-" + name + ".yaml", section: 5, about: "settings of httpctl-" + name}
	p.heading("synopsis")
	p.macro("Nm", "/etc/httpctl/"+name+".yaml")
	other := map[string]string{"agent": "Settings of the aggregator", "aggregator": "Settings of an agent"}[name]
	skip := false
	for i, b := range blocks(string(text)) {
		if b.kind == "heading" && b.level <= 2 {
			skip = b.text == other
		}
		switch {
		case skip:
		case i == 0:
			p.heading("description")
		case b.kind == "table":
			p.table(b.rows, map[string]string{"agent": "aggregator.", "aggregator": "agent."}[name])
		default:
			p.block(b)
		}
	}
	p.heading("files")
	p.list(tags, [2]string{"Pa /etc/httpctl/" + name + ".yaml", "The configuration that the service is started with."})
	p.heading("examples")
	p.literal(strings.Split(strings.TrimSpace(string(sample)), "\n"))
	return p, nil
}

// block is a part of a page in Markdown, of what these pages have of it.
type block struct {
	kind  string // heading, paragraph, literal, table, items
	level int
	text  string
	lines []string
	rows  [][]string
}

// blocks takes a page of Markdown apart.
func blocks(text string) (out []block) {
	lines := strings.Split(text, "\n")
	take := func(i int, while func(string) bool) (part []string) {
		for ; i < len(lines) && while(lines[i]); i++ {
			part = append(part, lines[i])
		}
		return part
	}
	for i := 0; i < len(lines); {
		line := lines[i]
		n := 1
		switch {
		case strings.TrimSpace(line) == "", strings.HasPrefix(line, "<!--"):
		case strings.HasPrefix(line, "#"):
			title := strings.TrimLeft(line, "#")
			out = append(out, block{kind: "heading", level: len(line) - len(title), text: strings.TrimSpace(title)})
		case strings.HasPrefix(line, "    "):
			part := take(i, func(l string) bool { return strings.HasPrefix(l, "    ") })
			out, n = append(out, block{kind: "literal", lines: part}), len(part)
		case strings.HasPrefix(line, "|"):
			part := take(i, func(l string) bool { return strings.HasPrefix(l, "|") })
			b := block{kind: "table"}
			for j, l := range part {
				if j == 1 { // the rule
					continue
				}
				b.rows = append(b.rows, cells(l))
			}
			out, n = append(out, b), len(part)
		case strings.HasPrefix(line, "- "):
			part := take(i, func(l string) bool { return strings.HasPrefix(l, "- ") || strings.HasPrefix(l, "  ") })
			b := block{kind: "items"}
			for _, l := range part {
				if item, ok := strings.CutPrefix(l, "- "); ok {
					b.lines = append(b.lines, item)
				} else {
					b.lines[len(b.lines)-1] += " " + strings.TrimSpace(l)
				}
			}
			out, n = append(out, b), len(part)
		default:
			part := take(i, func(l string) bool {
				return strings.TrimSpace(l) != "" && !strings.HasPrefix(l, "|") && !strings.HasPrefix(l, "- ") && !strings.HasPrefix(l, "#")
			})
			out, n = append(out, block{kind: "paragraph", text: strings.Join(part, " ")}), len(part)
		}
		i += n
	}
	return out
}

// cells are those of a row of a table. A bar in code is text.
func cells(row string) (out []string) {
	code, from := false, 1
	for i := 1; i < len(row); i++ {
		switch {
		case row[i] == '`':
			code = !code
		case row[i] == '|' && !code:
			out = append(out, strings.TrimSpace(row[from:i]))
			from = i + 1
		}
	}
	return out
}

func (p *page) block(b block) {
	switch b.kind {
	case "heading":
		if b.level <= 2 {
			p.heading(b.text)
		} else {
			p.subheading(b.text)
		}
	case "literal":
		p.literal(b.lines)
	case "items":
		var list [][2]string
		for _, l := range b.lines {
			list = append(list, [2]string{"", l})
		}
		p.list(bullets, list...)
	default:
		if text := p.body.String(); !regexp.MustCompile(`(^|\n)\.(Sh|Ss)[^\n]*\n$`).MatchString(text) {
			p.macro("Pp")
		}
		p.paragraph(b.text)
	}
}

// table writes a table as a list. Rows of keys that begin with other are left out.
func (p *page) table(rows [][]string, other string) {
	head := rows[0]
	var list [][2]string
	for _, r := range rows[1:] {
		for len(r) < len(head) {
			r = append(r, "")
		}
		switch {
		case head[0] == "key":
			text := sentence(r[3])
			if r[1] != "" {
				text += "\nDefault: " + r[1] + "."
			}
			if r[2] != "" {
				text += "\nAllowed: " + r[2] + "."
			}
			list = append(list, [2]string{"Sy " + argument(plain(r[0])), text})
		case head[1] == "of": // what several keys have in common stands once
			if strings.HasPrefix(plain(r[1]), other) {
				continue
			}
			if i := slices.IndexFunc(list, func(l [2]string) bool { return l[0] == arguments(plain(r[0])) }); i >= 0 {
				list[i][1] += ", " + r[1]
				continue
			}
			list = append(list, [2]string{arguments(plain(r[0])), r[1]})
		default:
			var parts []string
			for i, cell := range r[1:] {
				if len(head) > 2 {
					cell = fmt.Sprintf("%s: %s", head[i+1], cell)
				}
				parts = append(parts, cell)
			}
			list = append(list, [2]string{arguments(plain(r[0])), strings.Join(parts, "; ")})
		}
	}
	if head[1] == "of" {
		p.macro("Pp")
		p.paragraph("A changed value is in force")
	}
	p.list(tags, list...)
}
