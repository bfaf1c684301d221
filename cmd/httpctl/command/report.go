package command

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/httpctl/httpctl/cmd/httpctl/client"
	"github.com/httpctl/httpctl/cmd/httpctl/report"
	"github.com/httpctl/httpctl/pkg/ask"
	"github.com/httpctl/httpctl/pkg/telemetry"
	"github.com/httpctl/httpctl/pkg/view"
)

// reportForms write what report -o takes.
var reportForms = map[string]func(io.Writer, *report.Input) error{"html": report.HTML, "md": report.Markdown, "markdown": report.Markdown}

// reportRange is how far back a report reaches without --since.
const reportRange = 24 * time.Hour

func newReportCommand(w *world) *cobra.Command {
	r := &reading{w: w}
	var form, file string
	var limit uint32
	cmd := &cobra.Command{
		Use:   "report",
		Short: "Write what happened as one file, to attach to an incident",
		Long: describe(`Write what happened over the range as one file: rate with baseline and alerts, what
was not seen, errors, response times, top lists and hosts. HTML has plots, no script,
and asks for nothing from anywhere, so it can be sent, archived and printed; md is
Markdown, for a ticket.`),
		Example: `  httpctl report --since 24h --file report.html
  httpctl report --since 2026-01-02T03:00 --until 2026-01-02T05:00 --file incident.html
  httpctl report --since 2h --host web-1 -o md
  httpctl report --since yesterday --until today -n 25 > yesterday.html`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			write := reportForms[form]
			if write == nil {
				return usagef("--output %s: want one of html, md", form)
			}
			if _, _, terminal := w.size(); terminal && file == "" && form == "html" {
				return usagef("a page of HTML is not for a terminal: name a file with --file, or take -o md")
			}
			q, err := r.question()
			if err != nil {
				return err
			}
			if q.Since.IsZero() {
				end := q.Until
				if end.IsZero() {
					end = w.now()
				}
				q.Since = end.Add(-reportRange)
			}
			q.Limit = ask.Rows(limit)
			c, err := r.connect()
			if err != nil {
				return err
			}
			defer c.Close()
			in, err := gather(cmd.Context(), c, q)
			if err != nil {
				return err
			}
			in.Made, in.Version, in.Style = w.now(), telemetry.Version(), view.Style{Location: w.location}
			in.Command = commandLine(cmd)
			var text bytes.Buffer
			if err := write(&text, in); err != nil {
				return err
			}
			if file == "" || file == "-" {
				_, err = w.out.Write(text.Bytes())
				return err
			}
			if err := replaceFile(file, text.Bytes()); err != nil {
				return err
			}
			_, err = fmt.Fprintf(w.err, "%s: %d KiB\n", file, (text.Len()+1023)/1024)
			return err
		},
	}
	r.addConnection(cmd)
	r.addRange(cmd, "a day before its end")
	r.addFilters(cmd)
	f := cmd.Flags()
	f.StringVarP(&form, "output", "o", "html", "`FORM`: html, md")
	f.StringVar(&file, "file", "", "write into `FILE`, which is replaced; - is standard output (default: standard output)")
	f.Uint32VarP(&limit, "limit", "n", 10, "`N` rows of each top list at most; 0 is all, up to 10000")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"html", "md"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// gather asks for what a report is made of. What only some aggregators or filters can answer is left out there.
func gather(ctx context.Context, c *client.Client, q client.Question) (*report.Input, error) {
	d, err := c.Dashboard(ctx, q)
	if err != nil {
		return nil, err
	}
	in := &report.Input{Dashboard: d, Filter: filterText(q)}
	if len(q.Filters) == 0 {
		in.Baseline = &d.Status.Alert
	}
	// All answers are of the same stretch of time.
	if q.Until.IsZero() {
		q.Until = d.Status.Time
	}
	d.Status.Since, d.Status.Until = q.Since, q.Until
	if in.Series, err = c.Series(ctx, fineStep(q.Until.Sub(q.Since)), q); err != nil {
		return nil, err
	}
	if covered(in.Series) < q.Until.Sub(q.Since)*9/10 { // finer steps may be gone, or there was no data at all
		if x, err := c.Series(ctx, "", q); err == nil && covered(x) > covered(in.Series) {
			in.Series = x
		}
	}
	failing := q
	failing.Filters = append(slices.Clone(q.Filters), client.Filter{Column: "status", Values: []string{"5xx"}})
	if slices.ContainsFunc(q.Filters, func(f client.Filter) bool { return f.Column == "status" }) {
		return in, nil // all of what is shown has that status
	}
	var refused error
	if in.Errors, refused = c.Series(ctx, in.Series.Step, failing); refused == nil {
		in.Failing, refused = c.Top(ctx, "routes", failing)
	}
	if refused != nil && !errors.Is(refused, client.ErrRefused) {
		return nil, refused
	}
	return in, nil
}

func covered(x *view.Series) time.Duration {
	if x.Coverage == nil {
		return 0
	}
	return x.Coverage.Covered
}

// fineStep gives a plot some hundreds of points.
func fineStep(length time.Duration) string {
	switch {
	case length <= 26*time.Hour:
		return "minute"
	case length <= 62*24*time.Hour:
		return "hour"
	}
	return "day"
}

// commandLine is the command as it can be typed again, without what says where the aggregator is.
func commandLine(cmd *cobra.Command) string {
	words := []string{cmd.CommandPath()}
	for _, name := range slices.Concat([]string{"since", "until"}, ask.FilterNames, []string{"filter", "limit"}) {
		f := cmd.Flags().Lookup(name)
		if f == nil || !f.Changed {
			continue
		}
		values := []string{f.Value.String()}
		if list, ok := f.Value.(pflag.SliceValue); ok {
			values = list.GetSlice()
		}
		for _, v := range values {
			words = append(words, "--"+name+" "+shellWord(v))
		}
	}
	return strings.Join(words, " ")
}

// shellWord quotes a word for a shell, if it needs that.
func shellWord(text string) string {
	if text != "" && strings.Trim(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_=.,:/@%+") == "" {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

// replaceFile writes a file so that it is there whole or as it was before, with the mode that it has. What is no file, such as a
// device, a pipe or a link, is not replaced, but written to.
func replaceFile(path string, text []byte) error {
	mode := fs.FileMode(0o644)
	switch info, err := os.Lstat(path); {
	case err == nil && !info.Mode().IsRegular():
		return os.WriteFile(path, text, mode)
	case err == nil:
		mode = info.Mode().Perm()
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if at := new(os.PathError); errors.As(err, &at) { // which names a file that nobody has asked for
		return fmt.Errorf("--file %s: %w; its directory has to be there, and writable for this user", path, at.Err)
	}
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // once it is renamed, there is none
	_, err = f.Write(text)
	err = errors.Join(err, f.Chmod(mode), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	return err
}
