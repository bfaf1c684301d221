package command

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/httpctl/httpctl/cmd/httpctl/client"
	"github.com/httpctl/httpctl/pkg/ask"
	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/security"
	"github.com/httpctl/httpctl/pkg/view"
)

// reading holds the flags that the reading commands share.
type reading struct {
	w            *world
	address      string
	context      string // name of one
	tls          security.TLS
	changes      bool   // the command changes something
	tokenFile    string // for that, over loopback
	output       string
	columns      []string
	sortBy       string
	watch        time.Duration // 0: once
	out          io.Writer     // of a list
	since, until string
	filters      map[string]*[]string
	others       []string      // KEY=VALUE of filters that have no flag of their own
	timeout      time.Duration // of a question; 0 is the world's patience
	again        bool          // the question is asked again and again, so that none but the first is waited for long
	name         string        // of the command
	only         []string      // filters that apply; nil is all
}

// filterColumns are the filters, in the order in which help and titles name them.
var filterColumns = []struct{ name, help string }{
	{"host", "only these monitored `HOST`s, by name or id"},
	{"domain", "only these `DOMAIN`s"},
	{"section", "only these `SECTION`s, such as example.org/cart"},
	{"method", "only these request `METHOD`s"},
	{"status", "only these `STATUS` codes: 503, or 5xx"},
	{"role", "only exchanges in which the host is `ROLE`: server, client or transit"},
}

// addConnection adds the flags that say where the aggregator is.
func (r *reading) addConnection(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&r.address, "aggregator", "", "`ADDR` of the aggregator: HOST:PORT or unix:PATH (default: that of the context, else $HTTPCTL_AGGREGATOR, else a socket in the data directories, else "+config.DefaultAddress+")")
	f.StringVar(&r.context, "context", "", "`NAME` of the context to use instead of $HTTPCTL_CONTEXT or the current one: see httpctl context")
	_ = cmd.RegisterFlagCompletionFunc("context", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return r.w.contextNames(), cobra.ShellCompDirectiveNoFileComp
	})
	f.StringVar(&r.tls.CAFile, "tls-ca", "", "`FILE` with the authorities that sign the aggregator's certificate, PEM")
	f.StringVar(&r.tls.CertFile, "tls-cert", "", "`FILE` with this client's certificate, PEM")
	f.StringVar(&r.tls.KeyFile, "tls-key", "", "`FILE` with the certificate's private key, PEM")
	f.StringVar(&r.tls.ServerName, "tls-server-name", "", "`NAME` that the aggregator's certificate carries (default: the host of its address)")
	for _, name := range []string{"aggregator", "context", "tls-ca", "tls-cert", "tls-key", "tls-server-name"} {
		_ = f.SetAnnotation(name, connectionFlag, nil) // the flag exists
	}
}

// connectionFlag annotates the flags of addConnection.
const connectionFlag = "httpctl_connection"

// addToken adds the flag of commands that change something.
func (r *reading) addToken(cmd *cobra.Command) {
	r.changes = true
	cmd.Flags().StringVar(&r.tokenFile, "token-file", "", "`FILE` with the aggregator's token, which changing something over loopback takes (default: "+filepath.Base(config.TokenPath(""))+" in the data directories, if this user may read it)")
}

func (r *reading) addOutput(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&r.output, "output", "o", "table", "`FORM`: "+strings.Join(view.Formats, ", "))
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(view.Formats, cobra.ShellCompDirectiveNoFileComp))
}

// addList adds what the commands that print one list share: its form, columns, order, and that it is watched.
func (r *reading) addList(cmd *cobra.Command) {
	r.addOutput(cmd)
	f := cmd.Flags()
	f.StringSliceVar(&r.columns, "columns", nil, "only these `COLUMNS`, in this order, by their names in JSON")
	f.StringVar(&r.sortBy, "sort-by", "", "sort the rows by `COLUMN`, its name in JSON; -COLUMN puts the largest first")
	f.Var((*durationFlag)(&r.watch), "watch", "show it again each `TIME`, the form table in place on a terminal, until q or Ctrl-C")
	f.Lookup("watch").NoOptDefVal = "2s"
	r.addColumnCompletion(cmd)
}

// durationFlag is a flag of a time longer than leastRefresh.
type durationFlag time.Duration

func (d *durationFlag) String() string {
	if *d == 0 {
		return ""
	}
	return time.Duration(*d).String()
}
func (d *durationFlag) Type() string { return "duration" }
func (d *durationFlag) Set(text string) error {
	v, err := config.ParseDuration(text)
	if err != nil || v < leastRefresh {
		return fmt.Errorf("want a time of %s or more, such as 5s", leastRefresh)
	}
	*d = durationFlag(v)
	return nil
}

// style is how the command's list is drawn.
func (r *reading) style() view.Style {
	s := r.w.style()
	s.Columns, s.SortBy = r.columns, r.sortBy
	return s
}

// list checks the flags, connects, and calls f, which asks and writes the answer to r.out, once or
// again and again.
func (r *reading) list(ctx context.Context, f func(context.Context, *client.Client, client.Question, view.Format) error) error {
	format, err := r.format()
	if err != nil {
		return err
	}
	if _, err := r.question(); err != nil {
		return err
	}
	r.again = r.watch > 0
	c, err := r.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	ask := func(ctx context.Context) (string, error) {
		q, err := r.question() // again: --since 1h moves on
		if err != nil {
			return "", err
		}
		var text strings.Builder
		r.out = &text
		err = f(ctx, c, q, format)
		var column *view.ColumnError
		if errors.As(err, &column) && column.Column != "" { // none is asked by completion
			flag := "--columns"
			if strings.TrimPrefix(r.sortBy, "-") == column.Column {
				flag = "--sort-by"
			}
			if near := config.Nearest(column.Column, column.There); near != "" {
				return "", usagef("%s: there is no column %q; did you mean %q?", flag, column.Column, near)
			}
			return "", usagef("%s: %s", flag, column)
		}
		return text.String(), err
	}
	if r.watch == 0 {
		text, err := ask(ctx)
		if text != "" {
			_, e := io.WriteString(r.w.out, text)
			err = errors.Join(err, e)
		}
		return err
	}
	live := r.w.live(format, false)
	return show(ctx, live, func(ctx context.Context) (picture, error) {
		text, err := ask(ctx)
		if err != nil {
			return nil, err
		}
		c.Hurry()
		return &watched{text: text, at: r.w.now(), again: r.watch}, nil
	})
}

// watched is one answer of a list that is watched: a picture.
type watched struct {
	text  string
	at    time.Time
	again time.Duration
}

func (l *watched) frame(s view.Style, trouble string) []string {
	return view.ListFrame(l.text, s, l.again, l.at, trouble)
}

func (l *watched) write(w io.Writer, _ view.Format, _ view.Style) error {
	_, err := io.WriteString(w, l.text)
	return err
}

func (l *watched) every(bool) time.Duration { return l.again }

// addRange adds the range; begin says in words where it begins without --since.
func (r *reading) addRange(cmd *cobra.Command, begin string) {
	cmd.Flags().StringVar(&r.since, "since", "", "start of the range: how long ago (90m, 24h, 2d), yesterday, today, or a `TIME` such as 2026-01-02T15:04 (default: "+begin+")")
	cmd.Flags().StringVar(&r.until, "until", "", "end of the range, likewise a `TIME` (default: now)")
}

// addFilters adds the filters. With only, the others are accepted so that
// question can say which there are; name is the command's, for that message.
func (r *reading) addFilters(cmd *cobra.Command, only ...string) {
	r.filters = map[string]*[]string{}
	for _, c := range filterColumns {
		r.filters[c.name] = cmd.Flags().StringSlice(c.name, nil, c.help)
		if only != nil && !slices.Contains(only, c.name) {
			_ = cmd.Flags().MarkHidden(c.name) // the flag exists
		}
	}
	if only == nil {
		cmd.Flags().StringArrayVar(&r.others, "filter", nil, "only where a key has a value: `KEY=VALUE`, with a key that httpctl top names, such as user_agent or one of a plug-in's")
	}
	r.name, r.only = cmd.Name(), only
	r.addCompletion(cmd)
	_ = cmd.RegisterFlagCompletionFunc("role", cobra.FixedCompletions(ask.Roles, cobra.ShellCompDirectiveNoFileComp))
}

// patience is how long an answer is waited for that is asked for once: what has no roll-ups yet is read bucket by bucket, an hour of 100
// busy hosts in 10 to 20 s.
const patience = time.Minute

// connect returns a client of the aggregator that the flags name.
func (r *reading) connect() (*client.Client, error) {
	if !r.tls.IsZero() {
		for _, f := range []struct{ flag, value string }{{"--tls-ca", r.tls.CAFile}, {"--tls-cert", r.tls.CertFile}, {"--tls-key", r.tls.KeyFile}} {
			if f.value == "" {
				return nil, usagef("%s is missing: TLS needs --tls-ca, --tls-cert and --tls-key together", f.flag)
			}
		}
	}
	address, tls, err := r.place()
	if err != nil {
		return nil, err
	}
	o := client.Options{Address: address, TLS: tls, Timeout: r.timeout, Dial: r.w.dial}
	if r.timeout == 0 {
		if o.First = cmp.Or(r.w.patience, patience); !r.again {
			o.Timeout = o.First
		}
		if r.w.progress {
			o.Waiting = func() {
				fmt.Fprintf(r.w.err, "httpctl: no answer yet, which may take up to %s; Ctrl-C ends it\n", config.FormatDuration(o.First))
			}
		}
	}
	if r.address == "" && r.w.getenv(config.EnvPrefix+"AGGREGATOR") == "" && o.Address == config.DefaultAddress { // nobody named it
		o.Hidden = config.HiddenDataDir(r.w.uid, r.w.getenv)
	}
	if r.changes {
		var err error
		if o.Token, err = r.token(o); err != nil {
			return nil, usageError{err.Error()}
		}
	}
	c, err := client.New(o)
	if err != nil {
		return nil, usageError{err.Error()}
	}
	return c, nil
}

// token returns the one to show: that of the flag, or over loopback the first that this user may read.
func (r *reading) token(o client.Options) (string, error) {
	if r.tokenFile != "" {
		token, err := security.ReadToken(r.tokenFile)
		if err != nil {
			return "", fmt.Errorf("--token-file: %w", err)
		}
		return token, nil
	}
	if o.TLS.IsZero() && security.IsLoopback(o.Address) {
		for _, path := range config.TokenPaths(r.w.uid, r.w.getenv) {
			if token, err := security.ReadToken(path); err == nil {
				return token, nil
			}
		}
	}
	return "", nil // the aggregator says what it takes, if anything
}

// format checks -o.
func (r *reading) format() (view.Format, error) {
	if !slices.Contains(view.Formats, r.output) {
		return "", usagef("--output %s: want one of %s", r.output, strings.Join(view.Formats, ", "))
	}
	return view.Format(r.output), nil
}

// question checks range and filters.
func (r *reading) question() (q client.Question, err error) {
	if err := q.SetRange(r.since, r.until, r.w.now(), r.w.location); err != nil {
		return q, err
	}
	for _, c := range filterColumns {
		if r.filters == nil || r.only == nil || len(*r.filters[c.name]) == 0 || slices.Contains(r.only, c.name) {
			continue
		}
		if len(r.only) == 0 {
			return q, usagef("--%s: %s speaks of the whole fleet and has no filters", c.name, r.name)
		}
		return q, usagef("--%s: %s can be filtered by %s only", c.name, r.name, strings.Join(r.only, ", "))
	}
	err = q.SetFilters(func(name string) []string {
		if r.filters == nil {
			return nil
		}
		return *r.filters[name]
	}, r.others)
	return q, err
}

// filterText says the filters in words for a title.
func filterText(q client.Question) string {
	var parts []string
	for _, f := range q.Filters {
		parts = append(parts, f.Column+"="+strings.Join(f.Values, ","))
	}
	return strings.Join(parts, " ")
}

// style is how lists are drawn on the output.
func (w *world) style() view.Style {
	width, height, terminal := w.size()
	s := view.Style{
		Color: view.Colors(w.getenv, terminal), ASCII: view.ASCIIOnly(w.getenv), Location: w.location, Now: w.now(),
	}
	if terminal {
		s.Width, s.Height = width, height
	}
	return s
}

// readingLong ends the help of commands with range and filters.
const readingLong = "\n\nFilters may be given several times or, but for --filter, with commas between values: any of them matches."

// tailLong ends that of the command with filters of its own.
const tailLong = "\n\nFilters may be given several times, those but --user-agent also with commas between values: any of them matches."

func describe(format string, args ...any) string { return fmt.Sprintf(format, args...) + readingLong }
