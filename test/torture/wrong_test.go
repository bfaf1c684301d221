package torture

import (
	"strings"
	"testing"
	"time"

	"github.com/httpctl/httpctl/pkg/bucket"
)

// TestLedger spoils a ledger that is right in every way that the torture looks for, and wants it told.
func TestLedger(t *testing.T) {
	const second = int64(1e9)
	// Ten seconds of ten requests each. A kill at 5.5 took what the open interval
	// had, and the agent was away until 6.2.
	make := func() (*ledger, *book) {
		b := &book{host: "host-0", stored: map[int][]record{}, lost: map[int64]counted{}}
		b.declared = []bucket.Span{{From: 5 * second, To: 61 * second / 10}}
		b.outages = []outage{{from: 55 * second / 10, to: 62 * second / 10}}
		for i := range 100 {
			at := int64(i) * second / 10
			b.sent = append(b.sent, request{id: i, before: at + 10, after: at + 20})
			interval := at - at%second
			if touches(b.declared, at, at+20) {
				continue
			}
			b.stored[i] = []record{{interval: interval, at: at + 15, hits: 1}}
			c := b.lost[interval]
			c.requests++
			b.lost[interval] = c
		}
		return &ledger{width: second, lag: second / 10, books: []*book{b}, faults: []fault{{at: 55 * second / 10, end: 56 * second / 10, host: "host-0", what: "its agent is killed"}}}, b
	}
	f := func(name, want string, spoil func(*ledger, *book)) {
		t.Helper()
		l, b := make()
		spoil(l, b)
		total, bad, wrong := l.audit()
		text := l.text(bad, wrong)
		if want == "" && text != "" || !strings.Contains(text, want) {
			t.Errorf("%s: the ledger says\n%swant %q", name, text, want)
		}
		if name == "right" && (total.oracle != 100 || total.intervals != 10 || total.clean != 8 || total.spans != 1) {
			t.Errorf("%s: %+v", name, total)
		}
	}
	drop := func(b *book, id int) {
		c := b.lost[b.stored[id][0].interval]
		c.requests--
		b.lost[b.stored[id][0].interval] = c
		delete(b.stored, id)
	}
	f("right", "", func(*ledger, *book) {})
	f("one is missing", "1 are neither stored nor counted lost", func(_ *ledger, b *book) { drop(b, 42) })
	f("the fault is named", "its agent is killed", func(_ *ledger, b *book) { drop(b, 42) })
	f("two are missing, one is counted lost", "1 are neither", func(_ *ledger, b *book) {
		drop(b, 42)
		drop(b, 43)
		c := b.lost[4*second]
		c.drops = 1
		b.lost[4*second] = c
	})
	f("one is missing and counted lost", "", func(_ *ledger, b *book) {
		drop(b, 42)
		c := b.lost[4*second]
		c.drops = 1
		b.lost[4*second] = c
	})
	f("one is missing, the kernel's drops were looked at late", "", func(l *ledger, b *book) {
		l.deep = 2 * second
		drop(b, 42)
		c := b.lost[2*second]
		c.drops = 1
		b.lost[2*second] = c
	})
	f("one is missing, and a drop is too long ago", "1 are neither", func(l *ledger, b *book) {
		l.deep = second
		drop(b, 42)
		c := b.lost[2*second]
		c.drops = 1
		b.lost[2*second] = c
	})
	f("one is stored twice in its interval", "request 42 is stored twice", func(_ *ledger, b *book) { b.stored[42][0].hits = 2 })
	f("one is stored in two intervals", "request 42 is stored twice", func(_ *ledger, b *book) {
		b.stored[42] = append(b.stored[42], record{interval: 5 * second, at: 5 * second, hits: 1})
	})
	f("one is in another interval", "request 42 is stored at", func(_ *ledger, b *book) { b.stored[42][0].interval = 3 * second })
	f("one was never sent", "request 4200 was never sent", func(_ *ledger, b *book) {
		b.stored[4200] = []record{{interval: 4 * second, at: 4 * second, hits: 1}}
	})
	f("rows and counters differ", "its buckets count 11 requests", func(_ *ledger, b *book) {
		c := b.lost[3*second]
		c.requests++
		b.lost[3*second] = c
	})
	f("a span without a kill", "declares 00:00:08.000 to 00:00:08.500 unobserved", func(_ *ledger, b *book) {
		b.declared = append(b.declared, bucket.Span{From: 8 * second, To: 85 * second / 10})
	})
	f("a span that begins too early", "declares 00:00:04.300 to", func(_ *ledger, b *book) { b.declared[0].From = 43 * second / 10 })
	f("a span that ends too late", "to 00:00:06.300 unobserved", func(_ *ledger, b *book) { b.declared[0].To = 63 * second / 10 })
	f("a span that begins with a disk that fails", "", func(_ *ledger, b *book) {
		b.weak = []outage{{from: 44 * second / 10, to: 56 * second / 10}}
		b.declared[0].From = 4 * second
	})
	f("a span that begins before a disk that fails", "declares 00:00:03.200 to", func(_ *ledger, b *book) {
		b.weak = []outage{{from: 44 * second / 10, to: 56 * second / 10}}
		b.declared[0].From = 32 * second / 10
	})
	forward := func(b *book) { // the clock is set forward from 8 to 9
		b.steps = []bucket.Span{{From: 75 * second / 10, To: 95 * second / 10}}
		b.declared = append(b.declared, bucket.Span{From: 8 * second, To: 9 * second})
	}
	f("a clock is set forward", "", func(_ *ledger, b *book) { forward(b) })
	f("and takes a request", "1 are neither", func(_ *ledger, b *book) {
		forward(b)
		drop(b, 85)
	})
	f("a request while a clock is set", "", func(_ *ledger, b *book) {
		forward(b)
		b.sent[79].either = second
		b.stored[79][0].interval = 8 * second
	})
	f("what a kill took is not declared", "10 are neither", func(_ *ledger, b *book) { b.declared = nil })
}

// TestLedgerAway: an agent that takes twenty seconds to start on a busy machine may close an interval in that time, be killed again before it is ready, and once
// more soon after it was: the span from that interval on lies within the time away, but for its last second.
func TestLedgerAway(t *testing.T) {
	const second = int64(1e9)
	b := &book{host: "host-0", declared: []bucket.Span{{From: 12 * second, To: 33 * second}},
		outages: []outage{{from: 10 * second, to: 315 * second / 10}, {from: 32 * second, to: 34 * second}}}
	l := &ledger{width: second, lag: 2 * second, books: []*book{b}}
	if beyond, _, wrong := l.spans(b); beyond != 0 || len(wrong) > 0 {
		t.Errorf("a span within the time away goes %v beyond it, %q", beyond, wrong)
	}
	b.outages[0].to = 30 * second // two seconds and a bit before the next kill, of which one is more than an interval
	if beyond, _, wrong := l.spans(b); beyond != time.Second || len(wrong) > 0 {
		t.Errorf("a span goes %v beyond an interval and the time away, want 1s; %q", beyond, wrong)
	}
	b.outages = b.outages[1:]
	if _, _, wrong := l.spans(b); len(wrong) != 1 {
		t.Errorf("a span of 20 s before a kill is taken for right: %q", wrong)
	}
}
