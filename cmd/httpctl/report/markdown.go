package report

import (
	"fmt"
	"io"
	"strings"

	"github.com/httpctl/httpctl/pkg/view"
)

// Markdown writes the report as GitHub Flavored Markdown, which can be read as text.
func Markdown(w io.Writer, in *Input) error {
	var b strings.Builder
	since, until := in.span()
	fmt.Fprintf(&b, "# HTTP traffic, %s to %s\n\n", in.moment(since), in.moment(until))
	fmt.Fprintf(&b, "Made %s by httpctl %s.\n", in.moment(in.Made), view.MarkdownText(view.Clean(in.Version)))
	for _, s := range in.sections() {
		fmt.Fprintf(&b, "\n## %s\n\n", view.MarkdownText(s.Title))
		for _, f := range s.Facts {
			text := view.MarkdownText(f.Text)
			if f.Name != "" {
				text = "**" + view.MarkdownText(f.Name) + "**: " + text
			}
			b.WriteString("- " + text + "\n")
		}
		if s.Spark != "" {
			fmt.Fprintf(&b, "```text\n%s\n%s\n```\n", s.Spark, strings.TrimSuffix(s.Legend, alertsInRed))
		}
		if s.Grid != nil {
			if len(s.Facts) > 0 {
				b.WriteString("\n")
			}
			if err := s.Grid.Markdown(&b, in.style()); err != nil {
				return err
			}
		}
		for _, n := range s.Notes {
			b.WriteString("\n" + view.MarkdownText(n) + "\n")
		}
	}
	if in.Command != "" {
		fmt.Fprintf(&b, "\n---\n\nMade with %s.\n", view.MarkdownText(view.Clean(in.Command)))
	}
	_, err := io.WriteString(w, b.String())
	return err
}
