package command

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/httpctl/httpctl/cmd/httpctl/client"
	"github.com/httpctl/httpctl/pkg/ask"
	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/view"
)

// tailSummaryEvery is how often it is said how complete a tail is.
const tailSummaryEvery = 10 * time.Second

func newTailCommand(w *world) *cobra.Command {
	r := &reading{w: w}
	var agents []string
	var slower, sample, rate, length string
	var limit uint64
	var utc bool
	cmd := &cobra.Command{
		Use:   "tail",
		Short: "Show live exchanges as they end, sampled and bounded",
		Long: `Show live exchanges as they end: those that match, of all hosts that allow it
(agent.tail.allow on the host), in the order in which they arrive. Hosts sample,
bound and filter; how many matched, were shown and were dropped is said on
standard error every 10 s and at the end, in JSON as a line {"summary": ...}.

This takes the role admin: on the aggregator's host root or its user, elsewhere
a certificate with that role. Who tails what is in the log of the aggregator and
of each host that is asked. The query of a path is shown by hosts that say so.` + tailLong,
		Example: `  sudo httpctl tail --domain shop.example.org --status 5xx
  sudo httpctl tail --host web-1 --slower-than 500ms
  sudo httpctl tail --user-agent 'curl*' --sample 1/10 --rate 20/s
  sudo httpctl tail -n 100 -o json | jq -r 'select(.status == 404) | .path'`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if r.output == "text" { // as it was called
				r.output = string(view.FormatTable)
			}
			format, err := r.format()
			if err != nil {
				return err
			}
			q, err := r.tailQuestion(agents, slower, sample, rate, length)
			if err != nil {
				return err
			}
			q.Limit = limit
			c, err := r.connect()
			if err != nil {
				return err
			}
			defer c.Close()
			return w.tail(cmd.Context(), c, q, format, utc)
		},
	}
	r.addConnection(cmd)
	r.addToken(cmd)
	f := cmd.Flags()
	r.addOutput(cmd)
	r.addFilters(cmd, ask.FilterNames...)
	f.StringArrayVar(&agents, "user-agent", nil, "only user agents with `PATTERN` in them, in any case; * stands for any characters")
	f.StringVar(&slower, "slower-than", "", "only response times (to the first byte) of at least `TIME`, such as 500ms")
	f.StringVar(&sample, "sample", "", "`1/N` of the exchanges of each host that match, such as 1/10 (default: all)")
	f.StringVar(&rate, "rate", "", "at most `N/s` of all hosts together, such as 20/s (default: 1000/s, and what each host allows)")
	f.Uint64VarP(&limit, "limit", "n", 0, "end after `N` exchanges; 0 is never (default: go on)")
	f.Lookup("limit").DefValue = "0" // so that help says no other default
	f.StringVar(&length, "for", "10m", "end after `TIME`, at most 24h")
	f.BoolVar(&utc, "utc", false, "times in UTC instead of the time zone of the terminal; JSON always has UTC")
	return cmd
}

// tailQuestion checks the flags of a tail.
func (r *reading) tailQuestion(agents []string, slower, sample, rate, length string) (q client.TailQuestion, err error) {
	filters, err := r.question()
	if err != nil {
		return q, err
	}
	for _, f := range filters.Filters {
		if f.Column == "host" {
			q.Hosts = f.Values
		} else {
			q.Filters = append(q.Filters, f)
		}
	}
	if slices.Contains(agents, "") {
		return q, usagef("--user-agent: an empty value")
	}
	if len(agents) > 0 {
		q.Filters = append(q.Filters, client.Filter{Column: "user_agent", Values: agents})
	}
	span := func(flag, text string, to *time.Duration) {
		d, wrong := config.ParseDuration(text)
		if err == nil && text != "" && (wrong != nil || d <= 0) {
			err = usagef("--%s %s: want a time such as 500ms or 10m", flag, text)
		}
		*to = d
	}
	span("slower-than", slower, &q.SlowerThan)
	span("for", length, &q.For)
	if err != nil {
		return q, err
	}
	if sample != "" {
		n, ok := strings.CutPrefix(sample, "1/")
		if q.Sample = positive(n); !ok || q.Sample == 0 {
			return q, usagef("--sample %s: want 1/N, such as 1/10", sample)
		}
	}
	if rate != "" {
		if q.PerSecond = positive(strings.TrimSuffix(rate, "/s")); q.PerSecond == 0 {
			return q, usagef("--rate %s: want a whole number a second, such as 20/s", rate)
		}
	}
	return q, nil
}

// positive reads a whole number; 0 is none.
func positive(text string) uint32 {
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return 0
	}
	return uint32(n)
}

// tail shows what the aggregator sends until it ends.
func (w *world) tail(ctx context.Context, c *client.Client, q client.TailQuestion, form view.Format, utc bool) error {
	out := bufio.NewWriter(w.out)
	style := w.style
	if utc {
		style = func() view.Style { // again and again: the terminal's width changes
			s := w.style()
			s.Location = time.UTC
			return s
		}
	}
	text := form == view.FormatTable || form == view.FormatWide
	lines, records := view.TailLines{Wide: form == view.FormatWide}, view.NewRecords(out, form, style())
	var last, said *view.TailSummary
	missing := uint32(0)
	tell := func(m *view.TailSummary) error {
		said = m
		if written, err := records.TailSummary(m); written || err != nil {
			return err
		}
		_, err := fmt.Fprintln(w.err, "httpctl tail: "+view.TailSummaryText(m))
		return err
	}
	next := w.now().Add(tailSummaryEvery)
	err := c.Tail(ctx, q, func(samples []view.Sample, m *view.TailSummary) error {
		var err error
		now := style()
		for i := range samples {
			if text {
				_, e := fmt.Fprintln(out, lines.Line(now, &samples[i]))
				err = errors.Join(err, e)
			} else {
				err = errors.Join(err, records.Sample(&samples[i]))
			}
		}
		if err == nil {
			err = out.Flush()
		}
		if m == nil || err != nil {
			return err
		}
		last = m
		if m.MissingCount != missing && form != view.FormatJSON && form != view.FormatYAML {
			for _, line := range view.TailMissingText(m) {
				fmt.Fprintln(w.err, "httpctl tail: not from "+line)
			}
		}
		missing = m.MissingCount
		if now := w.now(); m.End != "" || !now.Before(next) && (said == nil || !said.Same(m)) {
			next = now.Add(tailSummaryEvery)
			return errors.Join(tell(m), out.Flush())
		}
		return nil
	})
	if last != nil && last != said { // it ended otherwise than it said
		err = errors.Join(err, tell(last), out.Flush())
	}
	if errors.Is(err, context.Canceled) && ctx.Err() != nil { // Ctrl-C
		return nil
	}
	return err
}
