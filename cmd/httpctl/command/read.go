package command

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	agent "github.com/httpctl/httpctl/agent/app"
	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/exchange"
	"github.com/httpctl/httpctl/pkg/stat"
	"github.com/httpctl/httpctl/pkg/view"
)

// readKeys is the least bound on the rows of a table when a file is read:
// there is one set of tables, not one per interval and host, so it may be larger than max_keys.
const readKeys = 10_000

// readKeyMemory is what one more key takes in the built-in tables together, with names and
// latencies as they usually are: fewer rows are better than many that fold each other.
const readKeyMemory = 4 * config.KiB

func newReadCommand(w *world) *cobra.Command {
	r := &reading{w: w}
	var exchanges bool
	var top int
	var local, ports []string
	var configFile string
	cmd := &cobra.Command{
		Use:   "read FILE...",
		Short: "Read capture files: counts, top lists, or every exchange",
		Long: `Read capture files (pcap or pcapng, gzipped or not; - is standard input) and
print what HTTP they hold. Nothing else needs to run. Several files are one
capture: their packets are taken in order of time. A damaged file gives what can
be read of it, and a warning.`,
		Example: `  httpctl read capture.pcap
  httpctl read -o json --top 0 monday.pcapng.gz tuesday.pcapng.gz
  httpctl read --exchanges capture.pcap | jq 'select(.status >= 500)'
  httpctl read --exchanges -o csv capture.pcap > exchanges.csv
  tcpdump -i eth0 -w - tcp | httpctl read -`,
		Args: arguments(1, -1, "the name of a capture file, or - for standard input"),
		RunE: func(cmd *cobra.Command, args []string) error {
			format, err := r.format()
			if err != nil {
				return err
			}
			if top < 0 {
				return usagef("--top %d: want 0 (all) or more", top)
			}
			cfg := agent.DefaultConfig()
			f, err := config.Load(configFile, w.environ, config.Section{Name: "agent", Into: &cfg})
			if err != nil {
				return usageError{err.Error()}
			}
			if !cmd.Flags().Changed("top") {
				top = f.Settings.MaxTopHits
			}
			if len(local) > 0 {
				if err := f.Set("agent.local_networks", strings.Join(local, ","), "flag --local"); err != nil {
					return usageError{err.Error()}
				}
			}
			if len(ports) > 0 {
				if err := f.Set("agent.capture.ports", strings.Join(ports, ","), "flag --ports"); err != nil {
					return usageError{err.Error()}
				}
			}
			if len(cfg.Capture.Interfaces) == 0 {
				cfg.Capture.Interfaces = []string{"any"} // not used, but a configuration must have one
			}
			if err := f.Validate(stat.Names()); err != nil {
				return usageError{err.Error()}
			}
			cfg.LimitMemory()
			keys := min(readKeys, int(cfg.TableMemory/readKeyMemory))
			options := agent.ReadOptions{Settings: f.Settings, Config: cfg, MaxKeys: max(f.Settings.MaxKeys, keys)}
			out := bufio.NewWriterSize(w.out, 64<<10)
			if exchanges {
				if !cmd.Flags().Changed("output") {
					format = view.FormatJSON
				}
				options.Exchange = w.exchanges(out, format)
			}
			done := func() {}
			if w.progress {
				options.Progress, done = w.progressLine()
			}
			report, err := agent.Read(cmd.Context(), args, options)
			done()
			if report == nil {
				return err
			}
			for _, warning := range report.Warnings {
				fmt.Fprintln(w.err, "httpctl: warning: "+errorText(errors.New(warning)))
			}
			if errors.Is(err, context.Canceled) {
				fmt.Fprintln(w.err, "httpctl: stopped early: what follows is of the part that was read")
				err = nil
			}
			if err == nil && !exchanges {
				err = view.WriteReport(out, format, w.style(), &view.Report{
					First: moment(report.First), Last: moment(report.Last), Counters: report.Counters,
					Tops: view.TopsOf(report.Tables, top), Warnings: report.Warnings,
				})
			}
			return errors.Join(err, out.Flush())
		},
	}
	r.addOutput(cmd)
	cmd.Flags().BoolVar(&exchanges, "exchanges", false, "print each exchange, in the order in which they ended (default: a line of JSON each)")
	cmd.Flags().IntVar(&top, "top", 0, "`N` rows of each top list; 0 is all (default: max_top_hits)")
	cmd.Flags().Lookup("top").DefValue = "0" // so that help says no other default
	cmd.Flags().StringSliceVar(&local, "local", nil, "`CIDR`s whose addresses are this host's, for the role of an exchange")
	cmd.Flags().StringSliceVar(&ports, "ports", nil, "only TCP `PORTS`, such as 80,8080 (default: HTTP on any port)")
	cmd.Flags().StringVar(&configFile, "config", "", "configuration `FILE`, for limits, statistics and privacy")
	return cmd
}

// exchanges writes exchanges as they end.
func (w *world) exchanges(out io.Writer, form view.Format) func(*exchange.Exchange) error {
	style := w.style()
	if form != view.FormatTable && form != view.FormatWide {
		return view.NewRecords(out, form, style).Exchange
	}
	lines := view.TailLines{Wide: form == view.FormatWide}
	return func(x *exchange.Exchange) error {
		_, err := io.WriteString(out, lines.Exchange(style, x)+"\n")
		return err
	}
}

func moment(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns)
}

// progressLine returns a function that draws how far reading is on the
// terminal of standard error, and one that clears it.
func (w *world) progressLine() (show func(read, total int64), clear func()) {
	drawn := false
	show = func(read, total int64) {
		drawn = true
		text := strconv.FormatInt(read>>20, 10) + " MiB"
		if total > 0 {
			text += fmt.Sprintf(" of %d MiB, %d%%", total>>20, 100*read/total)
		}
		fmt.Fprint(w.err, "\rread "+text+"\x1b[K")
	}
	return show, func() {
		if drawn {
			fmt.Fprint(w.err, "\r\x1b[K")
		}
	}
}
