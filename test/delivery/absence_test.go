package delivery

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/httpctl/httpctl/agent/accumulate"
	"github.com/httpctl/httpctl/agent/spool"
	"github.com/httpctl/httpctl/agent/uplink"
	"github.com/httpctl/httpctl/aggregator/ingest"
	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/aggregator/store/bolt"
	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/exchange"
)

// day is how many intervals of 10 s a day has.
const day = 8640

// watched is a host whose clock the test moves: what it sees goes through an accumulator into its spool.
type watched struct {
	t      *testing.T
	spool  *spool.Spool
	acc    *accumulate.Accumulator
	p      *accumulate.Pipeline
	counts exchange.Counters
	r      *rand.Rand
	now    int64
	seen   map[int64]int64 // the oracle: requests by interval
	closed []int64         // starts of the intervals that were spooled, in order
}

func watch(t *testing.T, cfg spool.Config, from int64) *watched {
	t.Helper()
	s, err := spool.Open(t.TempDir(), cfg, spool.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	w := &watched{t: t, spool: s, r: rand.New(rand.NewPCG(5, 6)), now: from, seen: map[int64]int64{}}
	if err := s.Begin(inc, from, width); err != nil {
		t.Fatal(err)
	}
	w.acc, err = accumulate.New(accumulate.Config{Width: width, MaxKeys: 1000}, accumulate.Deps{
		Host: s.Host(), HostName: "web-1.example.org", Incarnation: inc,
		Emit: func(b *bucket.Bucket) {
			w.closed = append(w.closed, b.Start)
			if err := s.Add(b); err != nil {
				t.Errorf("interval %d: %v", b.Start, err)
			}
		},
	}, 1)
	if err != nil {
		t.Fatal(err)
	}
	w.p = w.acc.Pipeline(0, &w.counts)
	w.p.Advance(from)
	return w
}

// interval lets an interval pass, with some requests.
func (w *watched) interval() {
	step := int64(width) / 20
	for range 1 + w.r.IntN(19) {
		w.now += step / 2
		section := fmt.Sprintf("example.org/part-%d", w.r.IntN(300))
		x := &exchange.Exchange{
			Client: netip.MustParseAddrPort("192.0.2.1:4000"), Server: netip.MustParseAddrPort("192.0.2.2:80"),
			HasRequest: true, Method: "GET", Domain: "example.org", Section: section, UserAgent: "walker/1", RequestEnd: w.now,
		}
		w.p.Advance(w.now)
		w.counts[exchange.Requests]++
		w.p.Observe(&exchange.Observation{Event: exchange.RequestSeen, Time: w.now, Exchange: x})
		w.seen[w.now-w.now%int64(width)]++
	}
	w.now = w.now - w.now%int64(width) + int64(width)
	w.p.Advance(w.now)
}

// stored returns the requests of each interval of the store, and all that is declared.
func stored(t *testing.T, db store.Store, from, to int64) (requests map[int64]int64, sum store.Slice) {
	t.Helper()
	requests = map[int64]int64{}
	query := func(plan store.Plan) []store.Slice {
		plan.From, plan.To = from, to
		answer, err := db.Query(t.Context(), plan)
		if err != nil || len(answer.Damaged) > 0 {
			t.Fatalf("query: %v, damaged %v", err, answer)
		}
		return answer.Slices
	}
	for _, s := range query(store.Plan{Table: "section", By: []string{}, Step: width}) {
		if s.Buckets != 1 {
			t.Errorf("interval %d has %d buckets, want 1", s.Start, s.Buckets)
		}
		if s.Table != nil {
			for _, row := range s.Table.Rows {
				requests[s.Start] += row.Values[0]
			}
		}
	}
	for _, s := range query(store.Plan{}) {
		sum = s
	}
	return requests, sum
}

func storeAndAggregator(t *testing.T) (*bolt.DB, *aggregator) {
	t.Helper()
	db, err := bolt.Open(filepath.Join(t.TempDir(), "httpctl.db"), bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	a := &aggregator{t: t, append: db, cfg: ingest.DefaultConfig()}
	t.Cleanup(a.stop)
	return db, a
}

// TestDayOfAbsence keeps the aggregator away for a day of 10 s intervals, told by the packets' clock, and then has
// the backlog sent while more intervals close. Nothing is lost or counted twice, the spool stays within its
// bound, and what closes meanwhile does not wait for the backlog.
func TestDayOfAbsence(t *testing.T) {
	if testing.Short() {
		t.Skip("8,640 commits; left out with -short")
	}
	t.Parallel()
	db, a := storeAndAggregator(t)
	from := time.Now().Truncate(width).UnixNano() - day*int64(width)
	cfg := spool.DefaultConfig()
	w := watch(t, cfg, from)
	startUplink(t, w.spool, a.dial, func(c *uplink.Config, _ *uplink.Deps) { c.BackoffMax = 500 * time.Millisecond })
	for range day {
		w.interval()
	}
	if n := w.spool.Len(); n != day {
		t.Fatalf("%d buckets wait, want all %d of a day", n, day)
	}

	a.start()
	// While the backlog is sent, an interval closes for every few that are stored.
	storedSoFar := func() int { a.mu.Lock(); defer a.mu.Unlock(); return len(a.headers) }
	closedAt := map[int64]int{} // how many were stored when an interval of now closed
	eventually(t, "the backlog is on its way", func() bool { return storedSoFar() > 0 })
	for n := 0; w.spool.Len() > 400; {
		if storedSoFar() >= n {
			w.interval()
			at := storedSoFar() // its bucket may be one of these
			closedAt[w.closed[len(w.closed)-1]] = at
			n = at + 300
			hosts, err := db.Hosts(t.Context())
			if err != nil || len(hosts) != 1 || hosts[0].CoveredThrough > from+day*int64(width) {
				t.Errorf("while the backlog is sent Hosts() = %+v, %v, want coverage where it has come to", hosts, err)
			}
		}
		time.Sleep(time.Millisecond)
	}
	for end := time.Now().Add(5 * time.Minute); w.spool.Len() > 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d buckets wait still", w.spool.Len())
		}
	}
	a.stop()

	if len(closedAt) < 10 {
		t.Errorf("only %d intervals closed while the backlog was sent: this shows little", len(closedAt))
	}
	// Before one of now at most: what was under way or in a transaction, and on a busy machine what was sent before
	// the uplink had the processor to see it.
	const most = 2*64 + 300
	worst, before, last := 0, 0, int64(0)
	for i, h := range a.headers {
		at, now := closedAt[h.Start]
		switch {
		case now:
			worst = max(worst, i-at)
			before = len(a.headers) - i
		case h.Start < last:
			t.Fatalf("interval %d of the backlog is stored after %d: want oldest first", h.Start, last)
		default:
			last = h.Start
		}
	}
	if worst > most {
		t.Errorf("an interval that closed while the backlog was sent is stored after %d others, want at most %d", worst, most)
	}
	requests, sum := stored(t, db, from, w.now+int64(width))
	for start, want := range w.seen {
		if got := requests[start]; got != want {
			t.Errorf("interval %d: %d requests stored, want %d", start, got, want)
		}
	}
	if len(requests) != len(w.seen) || len(sum.Unobserved) > 0 || sum.Counters[exchange.SpoolDropped] > 0 || sum.Counters[exchange.Requests] != w.counts[exchange.Requests] {
		t.Errorf("%d intervals stored, want %d; declared %v; counters %v, %d requests seen", len(requests), len(w.seen), sum.Unobserved, sum.Counters, w.counts[exchange.Requests])
	}
	hosts, err := db.Hosts(t.Context())
	if err != nil || len(hosts) != 1 || hosts[0].CoveredThrough != w.now {
		t.Errorf("Hosts() = %+v, %v, want one covered through %d", hosts, err, w.now)
	}
	t.Logf("%d intervals of a day, then %d while they were sent: each stored after at most %d others, the last of them with %d to go", day, len(closedAt), worst, before)
}

// TestAbsenceTooLong: a spool that is too small for the absence gives up the oldest buckets and says which.
func TestAbsenceTooLong(t *testing.T) {
	t.Parallel()
	db, a := storeAndAggregator(t)
	const intervals = 2500
	from := time.Now().Truncate(width).UnixNano() - intervals*int64(width)
	w := watch(t, spool.Config{MaxSize: config.MiB, MaxMemory: config.MiB}, from)
	for range intervals {
		w.interval()
	}
	kept := w.spool.Len()
	if kept == 0 || kept > intervals*9/10 {
		t.Fatalf("%d of %d buckets wait: this spool is not too small", kept, intervals)
	}
	a.start()
	u := startUplink(t, w.spool, a.dial, nil)
	drained := func() {
		for !u.Drain(context.Background()) {
			time.Sleep(5 * time.Millisecond)
		}
	}
	drained()
	w.interval() // which tells what the last one pushed out
	drained()
	a.stop()

	requests, sum := stored(t, db, from, w.now)
	first := slices.Min(a.starts())
	if want := []bucket.Span{{From: from, To: first}}; !slices.Equal(sum.Unobserved, want) {
		t.Errorf("declared %v, want %v: the oldest, up to the first that is stored", sum.Unobserved, want)
	}
	dropped := int((first - from) / int64(width))
	if got := sum.Counters[exchange.SpoolDropped]; got != uint64(dropped) || len(a.headers) != intervals+1-dropped {
		t.Errorf("%d counted dropped, %d stored, want %d and %d", got, len(a.headers), dropped, intervals+1-dropped)
	}
	for start, want := range w.seen {
		if start < first {
			want = 0
		}
		if got := requests[start]; got != want {
			t.Errorf("interval %d: %d requests stored, want %d", start, got, want)
		}
	}
	hosts, err := db.Hosts(t.Context())
	if err != nil || len(hosts) != 1 || hosts[0].CoveredThrough != w.now {
		t.Errorf("Hosts() = %+v, %v, want one covered through %d", hosts, err, w.now)
	}
	t.Logf("of %d intervals %d are declared as given up", intervals, dropped)
}

func (a *aggregator) starts() (starts []int64) {
	for _, h := range a.headers {
		starts = append(starts, h.Start)
	}
	return starts
}
