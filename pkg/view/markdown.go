package view

import (
	"io"
	"strings"
)

// Markdown writes every column of the grid as a table of GitHub Flavored Markdown (section 4.10).
func (g *Grid) Markdown(w io.Writer, s Style) error {
	s.Color = false
	var b strings.Builder
	if g.Title != "" {
		b.WriteString("### " + MarkdownText(Clean(g.Title)) + "\n\n")
	}
	if len(g.Columns) > 0 {
		var head, rule strings.Builder
		for _, c := range g.Columns {
			head.WriteString(" " + MarkdownText(c.Head) + " |")
			if c.left() {
				rule.WriteString(" --- |")
			} else {
				rule.WriteString(" ---: |")
			}
		}
		b.WriteString("|" + head.String() + "\n|" + rule.String() + "\n")
	}
	for _, row := range g.all() {
		b.WriteString(g.markdownRow(s, row.Cells))
	}
	for _, n := range g.Notes {
		b.WriteString("\n" + MarkdownText(Clean(n)) + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// markdownRow writes one row of a table.
func (g *Grid) markdownRow(s Style, cells []any) string {
	var b strings.Builder
	b.WriteString("|")
	for i, cell := range cells {
		b.WriteString(" " + MarkdownText(s.Human(g.Columns[i].Kind, cell)) + " |")
	}
	b.WriteString("\n")
	return b.String()
}

// MarkdownText escapes what Markdown or HTML would act on, in text that is clean and has one line.
func MarkdownText(s string) string {
	var b strings.Builder
	for _, r := range s {
		if strings.ContainsRune("\\`*_{}[]<>#|~&!", r) {
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	return b.String()
}

// markdownItems writes lines as a list.
func markdownItems(w io.Writer, lines []string) error {
	var b strings.Builder
	for _, line := range lines {
		b.WriteString("- " + MarkdownText(line) + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}
