package ask

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/view"
)

// comparedRows is how many rows of each side are joined: the more, the smaller what a key may have
// that one side does not show.
const comparedRows = 2000

// mostPeers is how many values a filter may have.
const mostPeers = 64

// Comparing says what is held against what.
type Comparing struct {
	// Dimension is one list; "" is each that takes the filters.
	Dimension string
	// Against is how much earlier the other range is: a duration, yesterday (the default) or last-week.
	Against string
	// Peers holds the one host of the filters against the others, instead.
	Peers bool
	// Limit is how many keys of each list there are at most, 0 is all.
	Limit int
}

// Compare asks what is different, and returns for each list the keys that differ most, and what makes
// the sides unequal.
func (r *Reader) Compare(ctx context.Context, q Question, c Comparing, now time.Time) (list []*view.Comparison, notes []string, err error) {
	against := c.Against
	if against == "" {
		against = "yesterday"
	}
	back, err := config.ParseDuration(strings.NewReplacer("yesterday", "24h", "last-week", "7d").Replace(against))
	switch {
	case err != nil || back <= 0:
		return nil, nil, &Fault{Where: "against", Value: against, Hint: "want how much earlier, such as 1h, yesterday, last-week or 7d"}
	case c.Peers && c.Against != "":
		return nil, nil, &Fault{What: "--peers and --against exclude each other"}
	case c.Peers && oneHost(q) == "":
		return nil, nil, &Fault{Where: "peers", What: "it needs one --host, which is held against the others"}
	}
	dimensions, err := r.Dimensions(ctx)
	if err != nil {
		return nil, nil, err
	}
	if c.Dimension != "" {
		if err := KnownDimension(c.Dimension, dimensions); err != nil {
			return nil, nil, err
		}
	}
	hosts, err := r.Hosts(ctx, Question{Since: q.Since, Until: q.Until})
	if err != nil {
		return nil, nil, err
	}
	if q, err = wholeRange(q, hosts, now); err != nil {
		return nil, nil, err
	}
	p, err := pairOf(q, hosts, back, c.Peers, against)
	if err != nil {
		return nil, nil, err
	}
	then, err := r.Hosts(ctx, Question{Since: p.then.Since, Until: p.then.Until})
	if err != nil {
		return nil, nil, err
	}
	if hosts, err = r.Hosts(ctx, Question{Since: p.now.Since, Until: p.now.Until}); err != nil {
		return nil, nil, err
	}
	for _, d := range dimensions {
		if c.Dimension != "" && d.Name != c.Dimension || c.Dimension == "" && !answers(d, q) {
			continue
		}
		comparison, err := p.compare(ctx, r, d.Name, c.Limit)
		if err != nil {
			return nil, nil, err
		}
		comparison.Peers = p.peers
		_, comparison.Unwatched = p.unwatched(hosts)
		list = append(list, comparison)
	}
	return list, p.notes(hosts, then), nil
}

// oneHost is the only value of the filter by host, "" if there is not exactly one.
func oneHost(q Question) string {
	for _, f := range q.Filters {
		if f.Column == "host" && len(f.Values) == 1 {
			return f.Values[0]
		}
	}
	return ""
}

// answers reports whether a dimension takes the filters; without one named, those that do not are left out.
func answers(d view.Dimension, q Question) bool {
	return !slices.ContainsFunc(q.Filters, func(f Filter) bool {
		return f.Column != "host" && !slices.Contains(d.Filters, f.Column)
	})
}

// wholeRange sets both ends of a range: the end, if it is open, to where every reporting host has come.
func wholeRange(q Question, hosts []view.Host, now time.Time) (Question, error) {
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
		return q, &Fault{What: fmt.Sprintf("the reporting hosts have come to %s only, which is before the range begins", q.Until.UTC().Format(time.RFC3339))}
	}
	q.Limit = comparedRows
	return q, nil
}

// pair is two questions whose answers are compared.
type pair struct {
	now, then         Question
	nowName, thenName string
	of                int // what the second answer is divided by
	all               int // peers that there are
	peers             bool
}

func pairOf(q Question, hosts []view.Host, back time.Duration, peers bool, against string) (pair, error) {
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
		return p, &Fault{Where: "peers", What: one + " has none: no other host is there"}
	}
	p.then.Filters = append(p.then.Filters, Filter{Column: "host", Values: others})
	p.of, p.nowName, p.thenName = len(others), one, fmt.Sprintf("one of %d peers on average", len(others))
	if p.of == 1 {
		p.thenName = names[0]
	}
	return p, nil
}

func (p *pair) compare(ctx context.Context, r *Reader, dimension string, limit int) (*view.Comparison, error) {
	now, err := r.Top(ctx, dimension, p.now)
	if err != nil {
		return nil, err
	}
	then, err := r.Top(ctx, dimension, p.then)
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
	var since []string
	for _, h := range now {
		if (p.chosen(h) || p.peers) && !h.FirstSeen.IsZero() && h.FirstSeen.After(p.then.Since) {
			since = append(since, h.Name)
		}
	}
	begin, nobody := p.unwatched(now)
	switch {
	case nobody:
		notes = append(notes, fmt.Sprintf("There is nothing to compare with: data begins at %s, and the earlier range ends at %s. "+
			"A shorter range, or one that is less long before, may have something.", begin.UTC().Format(time.RFC3339), p.then.Until.UTC().Format(time.RFC3339)))
	case len(since) > 0 && p.peers:
		notes = append(notes, "Not watched for all of the range: "+some(since))
	case len(since) > 0:
		notes = append(notes, "Not watched for all of the earlier range: "+some(since))
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

// unwatched reports whether none of the hosts was watched in the earlier range, and when the first one was.
func (p *pair) unwatched(hosts []view.Host) (begin time.Time, nobody bool) {
	for _, h := range hosts {
		switch {
		case p.peers || !p.chosen(h):
		case h.FirstSeen.IsZero():
			return begin, false // not told
		case begin.IsZero() || h.FirstSeen.Before(begin):
			begin = h.FirstSeen
		}
	}
	return begin, !begin.IsZero() && !begin.Before(p.then.Until)
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
