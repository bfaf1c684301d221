package torture

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/httpctl/httpctl/pkg/bucket"
)

// request is one request of the oracle: it passed the interface at some moment from before to
// after. Those of a host are numbered; every number is a section of its own.
type request struct {
	id            int
	before, after int64
	// either is by how much the host's clock may have been another, as it was being set: 0 else.
	either int64
}

// record is what the store has of a request in one interval.
type record struct {
	interval, at, hits int64
}

// outage is a time in which an agent was away by a kill: from before the signal until it was
// seen to watch again.
type outage struct{ from, to int64 }

// book is what is known of a host: what it was shown, and what the store has.
type book struct {
	host     string
	sent     []request // the oracle
	stored   map[int][]record
	declared []bucket.Span     // unobserved, merged
	lost     map[int64]counted // by interval
	outages  []outage
	// weak is when the disk of its agent does not take what the agent closes, or may not yet again: a kill
	// then takes all since, too.
	weak []outage
	// steps are what setting the clock of its host forward leaves out: the agent declares what its new clock
	// has not seen. Nothing may be lost there.
	steps []bucket.Span
}

// counted is what the buckets of an interval say themselves: the requests, and what was lost.
type counted struct {
	requests, other int64
	drops           int64
}

// fault is something that the script did.
type fault struct {
	at, end int64
	host    string // empty: all of them
	what    string
}

// ledger holds the books of all hosts against what was done to them.
type ledger struct {
	width int64
	// lag is how long after its end an interval may be open still, or not yet on disk: the agent's
	// poll timeout, and an fsync on a busy machine.
	lag int64
	// deep is how far the ring may be behind, a multiple of width.
	deep   int64
	books  []*book
	faults []fault
}

// row is one line of the ledger.
type row struct {
	host                               string
	interval                           int64
	oracle, inside, stored, lost, more int64 // inside: of the oracle, within declared spans
	wrong                              []string
}

// sums are the totals of an audit.
type sums struct {
	oracle, inside, stored, lost int64
	intervals, clean             int           // those, and those that no span touches
	spans, weak                  int           // declared, after merging; of those, with a weak disk
	longest                      time.Duration // how far a span reached beyond one interval and the time away
}

// audit holds every host and interval against the oracle. It returns the rows with something wrong, and
// what is wrong with the whole.
func (l *ledger) audit() (total sums, bad []row, wrong []string) {
	for _, b := range l.books {
		rows, ids := map[int64]*row{}, map[int]request{}
		at := func(interval int64) *row {
			if rows[interval] == nil {
				rows[interval] = &row{host: b.host, interval: interval}
			}
			return rows[interval]
		}
		kills, _ := l.killed(b)
		missing := map[int64]int64{} // outside declared spans
		for _, q := range b.sent {
			ids[q.id] = q
			r := at(q.before - q.before%l.width)
			r.oracle++
			inside := touches(b.declared, q.before, q.after) && touches(kills, q.before, q.after)
			if inside {
				r.inside++
			}
			if len(b.stored[q.id]) == 0 && !inside {
				missing[r.interval]++
			}
		}
		for id, records := range b.stored {
			q, known := ids[id]
			for i, c := range records {
				r := at(c.interval)
				r.stored += c.hits
				switch {
				case !known:
					r.wrong = append(r.wrong, fmt.Sprintf("request %d was never sent", id))
				case i > 0 || c.hits != 1:
					r.more += c.hits
					r.wrong = append(r.wrong, fmt.Sprintf("request %d is stored twice (%v)", id, records))
				case !l.within(c.interval, q.before, q.after) && !l.within(c.interval, q.before+q.either, q.after+q.either):
					r.wrong = append(r.wrong, fmt.Sprintf("request %d is stored at %s, want %s", id, clock(c.at), clock(q.before)))
				}
			}
		}
		counts, found := int64(0), int64(0)
		for interval, c := range b.lost {
			r := at(interval)
			r.lost = c.drops + c.other
			counts, found = counts+c.requests, found+r.stored+c.other
			if c.requests != r.stored+c.other && len(b.steps) == 0 {
				r.wrong = append(r.wrong, fmt.Sprintf("its buckets count %d requests, its rows %d and %d folded", c.requests, r.stored, c.other))
			}
		}
		if counts != found { // where a clock was set, a late event's row is in its interval, its count in that which was open
			wrong = append(wrong, fmt.Sprintf("%s: its buckets count %d requests, their rows %d", b.host, counts, found))
		}
		for interval, n := range missing {
			// The kernel counts what it drops without a time: the count is in the interval that the agent was at
			// when it looked, as far behind as its ring is deep.
			near := int64(0)
			for i := interval - l.deep; i <= interval+l.width; i += l.width {
				near += b.lost[i].drops
			}
			if r := at(interval); n > r.lost && n > near {
				r.wrong = append(r.wrong, fmt.Sprintf("%d are neither stored nor counted lost, outside any declared span", n-max(r.lost, near)))
			}
		}
		for interval, r := range rows {
			total.oracle += r.oracle
			total.inside += r.inside
			total.stored += r.stored
			total.lost += r.lost
			total.intervals++
			if !touches(b.declared, interval, interval+l.width-1) {
				total.clean++
			}
			if len(r.wrong) > 0 {
				slices.Sort(r.wrong)
				bad = append(bad, *r)
			}
		}
		total.spans += len(b.declared)
		beyond, weak, unexplained := l.spans(b)
		total.weak += weak
		total.longest = max(total.longest, beyond)
		wrong = append(wrong, unexplained...)
	}
	slices.SortFunc(bad, func(a, b row) int {
		if d := strings.Compare(a.host, b.host); d != 0 {
			return d
		}
		return int(a.interval - b.interval)
	})
	return total, bad, wrong
}

// within reports whether something that happened from before to after belongs to an interval: on a busy machine
// that may be the one in which it began, or the next.
func (l *ledger) within(interval, before, after int64) bool {
	return interval >= before-before%l.width && interval <= after
}

// spans holds the declared spans of a host against its agent's kills: each lies within one
// interval before a kill and the moment the agent watches again. beyond is how much more than
// that a span took, at most, for what closing an interval takes; weakened counts those in which the disk had failed.
func (l *ledger) spans(b *book) (beyond time.Duration, weakened int, wrong []string) {
	allowed, weak := l.killed(b)
	allowed = bucket.MergeSpans(append(allowed, b.steps...))
	for _, s := range b.declared {
		ok := slices.ContainsFunc(allowed, func(a bucket.Span) bool { return s.From >= a.From && s.To <= a.To })
		if !ok {
			wrong = append(wrong, fmt.Sprintf("%s declares %s to %s unobserved, more than an interval and the time away by any kills of its agent%s",
				b.host, clock(s.From), clock(s.To), l.near(b.host, s.From, s.To)))
			continue
		}
		if touches(weak, s.From, s.To) {
			weakened++
		}
		for _, o := range b.outages {
			if s.From < o.from && o.from < s.To && !touches(weak, s.From, o.from) && !touches(b.steps, s.From, o.from) {
				// It was away before, too, where it had closed an interval and was killed before it was ready.
				beyond = max(beyond, time.Duration(o.from-s.From-b.away(s.From, o.from)-l.width))
				break // the first kill within it, where its beginning comes from
			}
		}
	}
	return beyond, weakened, wrong
}

// away is for how long of a time the host's agent was away.
func (b *book) away(from, to int64) (n int64) {
	var spans []bucket.Span
	for _, o := range b.outages {
		if o.from < to && o.to > from {
			spans = append(spans, bucket.Span{From: max(o.from, from), To: min(o.to, to)})
		}
	}
	for _, s := range bucket.MergeSpans(spans) {
		n += s.To - s.From
	}
	return n
}

// killed returns what kills of a host's agent may have taken, and when its disk was weak.
func (l *ledger) killed(b *book) (allowed, weak []bucket.Span) {
	for _, w := range b.weak {
		weak = append(weak, bucket.Span{From: w.from, To: w.to})
	}
	weak = bucket.MergeSpans(weak)
	for _, o := range b.outages {
		from := o.from
		for _, w := range weak {
			if w.From < o.from && o.from < w.To {
				from = w.From
			}
		}
		allowed = append(allowed, bucket.Span{From: from - l.width - l.lag, To: o.to})
	}
	return bucket.MergeSpans(allowed), weak
}

func touches(spans []bucket.Span, from, to int64) bool {
	return slices.ContainsFunc(spans, func(s bucket.Span) bool { return from < s.To && to >= s.From })
}

// near tells what was done to a host around a time.
func (l *ledger) near(host string, from, to int64) string {
	var b strings.Builder
	for _, f := range l.faults {
		if (f.host == "" || f.host == host) && f.at < to+2*l.width && f.end > from-2*l.width {
			fmt.Fprintf(&b, "\n      %s to %s  %s", clock(f.at), clock(f.end), f.what)
		}
	}
	return b.String()
}

// text is the ledger for people: the rows with something wrong, what is declared of them, and which faults were near.
func (l *ledger) text(bad []row, wrong []string) string {
	var b strings.Builder
	for _, w := range wrong {
		fmt.Fprintf(&b, "%s\n", w)
	}
	if len(bad) > 0 {
		fmt.Fprintf(&b, "%-8s %-15s %7s %7s %7s %7s %7s\n", "host", "interval", "oracle", "inside", "stored", "lost", "twice")
	}
	for i, r := range bad {
		if i == 20 {
			fmt.Fprintf(&b, "... and %d more intervals\n", len(bad)-i)
			break
		}
		fmt.Fprintf(&b, "%-8s %-15s %7d %7d %7d %7d %7d\n", r.host, clock(r.interval), r.oracle, r.inside, r.stored, r.lost, r.more)
		for j, w := range r.wrong {
			if j == 5 {
				fmt.Fprintf(&b, "    ... and %d more\n", len(r.wrong)-j)
				break
			}
			fmt.Fprintf(&b, "    %s\n", w)
		}
		for _, book := range l.books {
			if book.host != r.host {
				continue
			}
			for _, s := range book.declared {
				if s.From < r.interval+2*l.width && s.To > r.interval-2*l.width {
					fmt.Fprintf(&b, "    declared: %s to %s\n", clock(s.From), clock(s.To))
				}
			}
		}
		if n := l.near(r.host, r.interval, r.interval+l.width); n != "" {
			fmt.Fprintf(&b, "    done to it:%s\n", n)
		}
	}
	return b.String()
}

func clock(t int64) string { return time.Unix(0, t).UTC().Format("15:04:05.000") }
