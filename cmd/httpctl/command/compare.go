package command

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/httpctl/httpctl/cmd/httpctl/client"
	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/view"
)

// comparedRows is how many rows of each side are joined: the more, the smaller what a key may have
// that one side does not show.
const comparedRows = 2000

// mostPeers is how many values a filter may have.
const mostPeers = 64

func newCompareCommand(w *world) *cobra.Command {
	r := &reading{w: w}
	var against string
	var peers bool
	var limit uint32
	cmd := &cobra.Command{
		Use:   "compare [DIMENSION]",
		Short: "What is different: this hour from yesterday's, or one host from its peers",
		Long: describe(`Hold a range against the same range a day before, or as long before as --against
says; or with --peers one host against the others at the same time, of which one
is taken on average. The keys that differ most come first, those whose
difference the error bounds explain not at all. Without a dimension, each list is
compared.

The range ends where every reporting host has come, so that both sides are whole.`),
		Example: `  httpctl compare
  httpctl compare section --since 15m --against 7d
  httpctl compare --host web-1 --peers
  httpctl compare status --domain shop.example.org -o json`,
		Args: arguments(0, 1, "one dimension at most"),
		RunE: func(cmd *cobra.Command, args []string) error {
			back, err := config.ParseDuration(strings.NewReplacer("yesterday", "24h", "last-week", "7d").Replace(against))
			switch {
			case err != nil || back <= 0:
				return usagef("--against %s: want how much earlier, such as 1h, yesterday, last-week or 7d", against)
			case peers && cmd.Flags().Changed("against"):
				return usagef("--peers and --against exclude each other")
			case peers && len(*r.filters["host"]) != 1:
				return usagef("--peers needs one --host, which is held against the others")
			}
			return r.list(cmd.Context(), func(ctx context.Context, c *client.Client, q client.Question, f view.Format) error {
				dimensions, err := c.Dimensions(ctx)
				if err != nil {
					return err
				}
				if len(args) > 0 {
					if err := knownDimension(args[0], dimensions); err != nil {
						return err
					}
				}
				hosts, err := c.Hosts(ctx, client.Question{Since: q.Since, Until: q.Until})
				if err != nil {
					return err
				}
				if q, err = wholeRange(q, hosts, r.w.now()); err != nil {
					return err
				}
				p, err := pairOf(q, hosts, back, peers, against)
				if err != nil {
					return err
				}
				then, err := c.Hosts(ctx, client.Question{Since: p.then.Since, Until: p.then.Until})
				if err != nil {
					return err
				}
				if hosts, err = c.Hosts(ctx, client.Question{Since: p.now.Since, Until: p.now.Until}); err != nil {
					return err
				}
				var list []*view.Comparison
				for _, d := range dimensions {
					if len(args) > 0 && d.Name != args[0] || len(args) == 0 && !answers(d, q) {
						continue
					}
					comparison, err := p.compare(ctx, c, d.Name, int(limit))
					if err != nil {
						return err
					}
					list = append(list, comparison)
				}
				return view.WriteComparisons(r.out, f, r.style(), list, p.notes(hosts, then))
			})
		},
		ValidArgsFunction: r.dimensionNames,
	}
	r.addConnection(cmd)
	r.addOutput(cmd)
	r.addRange(cmd, "an hour before its end")
	r.addFilters(cmd)
	cmd.Flags().StringVar(&against, "against", "yesterday", "how much earlier the other range is: `TIME` such as 1h, 7d, yesterday or last-week")
	cmd.Flags().BoolVar(&peers, "peers", false, "hold the one --host against the other hosts")
	cmd.Flags().Uint32VarP(&limit, "limit", "n", 5, "`N` keys of each list at most, 0 is all")
	return cmd
}

// answers reports whether a dimension takes the filters; without one named, those that do not are left out.
func answers(d view.Dimension, q client.Question) bool {
	return !slices.ContainsFunc(q.Filters, func(f client.Filter) bool {
		return f.Column != "host" && !slices.Contains(d.Filters, f.Column)
	})
}

// wholeRange sets both ends of a range: the end, if it is open, to where every reporting host has come.
func wholeRange(q client.Question, hosts []view.Host, now time.Time) (client.Question, error) {
	if q.Until.IsZero() {
		for _, h := range hosts {
			if h.Health == view.Reporting && !h.CoveredThrough.IsZero() && (q.Until.IsZero() || h.CoveredThrough.Before(q.Until)) {
				q.Until = h.CoveredThrough
			}
		}
		if q.Until.IsZero() {
			q.Until = now
		}
	}
	if q.Since.IsZero() {
		q.Since = q.Until.Add(-time.Hour)
	}
	if !q.Since.Before(q.Until) {
		return q, usagef("the reporting hosts have come to %s only, which is before the range begins", q.Until.UTC().Format(time.RFC3339))
	}
	q.Limit = comparedRows
	return q, nil
}

// pair is two questions whose answers are compared.
type pair struct {
	now, then         client.Question
	nowName, thenName string
	of                int // what the second answer is divided by
	all               int // peers that there are
	peers             bool
}

func pairOf(q client.Question, hosts []view.Host, back time.Duration, peers bool, against string) (pair, error) {
	p := pair{now: q, then: q, nowName: "this range", thenName: against + " before", of: 1, peers: peers}
	if against == "yesterday" || against == "last-week" {
		p.thenName = against
	}
	if !peers {
		p.then.Since, p.then.Until = q.Since.Add(-back), q.Until.Add(-back)
		return p, nil
	}
	var one string
	var others, names []string
	p.then.Filters = nil
	for _, f := range q.Filters {
		if f.Column == "host" {
			one = f.Values[0]
			continue
		}
		p.then.Filters = append(p.then.Filters, f)
	}
	if err := knownHosts([]string{one}, hosts); err != nil {
		return p, err
	}
	for _, h := range hosts {
		if !h.Is(one) && h.Health != view.Gone {
			others, names = append(others, h.ID), append(names, h.Name)
		}
	}
	if p.all = len(others); p.all > mostPeers {
		others = others[:mostPeers]
	}
	if len(others) == 0 {
		return p, usagef("--peers: %s has none: no other host is there", one)
	}
	p.then.Filters = append(p.then.Filters, client.Filter{Column: "host", Values: others})
	p.of, p.nowName, p.thenName = len(others), one, fmt.Sprintf("one of %d peers on average", len(others))
	if p.of == 1 {
		p.thenName = names[0]
	}
	return p, nil
}

func (p *pair) compare(ctx context.Context, c *client.Client, dimension string, limit int) (*view.Comparison, error) {
	now, err := c.Top(ctx, dimension, p.now)
	if err != nil {
		return nil, err
	}
	then, err := c.Top(ctx, dimension, p.then)
	if err != nil {
		return nil, err
	}
	out := view.Compare(now, then, p.of, limit)
	out.Now, out.Then = p.nowName, p.thenName
	return out, nil
}

// notes say what makes the sides unequal: hosts that were not watched then, and what was not seen.
func (p *pair) notes(now, then []view.Host) (notes []string) {
	if p.all > p.of {
		notes = append(notes, fmt.Sprintf("The peers are the first %d by name of %d.", p.of, p.all))
	}
	if !p.peers {
		var since []string
		for _, h := range now {
			if p.chosen(h) && !h.FirstSeen.IsZero() && h.FirstSeen.After(p.then.Since) {
				since = append(since, h.Name)
			}
		}
		if len(since) > 0 {
			notes = append(notes, "Not watched for all of the earlier range: "+some(since))
		}
	}
	for _, side := range []struct {
		name  string
		hosts []view.Host
	}{{"now", now}, {"then", then}} {
		var lossy []string
		for _, h := range side.hosts {
			if (p.chosen(h) || p.peers) && len(view.Loss(h.Counters)) > 0 {
				lossy = append(lossy, h.Name)
			}
		}
		if len(lossy) > 0 && !(p.peers && side.name == "then") {
			notes = append(notes, fmt.Sprintf("Not all was seen %s by: %s (httpctl hosts says what)", side.name, some(lossy)))
		}
	}
	return notes
}

// chosen reports whether the filters keep a host.
func (p *pair) chosen(h view.Host) bool {
	for _, f := range p.now.Filters {
		if f.Column == "host" {
			return slices.ContainsFunc(f.Values, h.Is)
		}
	}
	return true
}

// some names ten at most.
func some(names []string) string {
	if len(names) > 10 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:10], ", "), len(names)-10)
	}
	return strings.Join(names, ", ")
}
