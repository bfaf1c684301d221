package accumulate

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/exchange"
	"github.com/httpctl/httpctl/pkg/stat"
)

const (
	second = int64(time.Second)
	origin = int64(1_700_000_000) * second // a multiple of 10 s
)

// faulty panics at every other observation.
type faulty struct{ n int }

func (*faulty) Tables() []bucket.Schema {
	return []bucket.Schema{{Name: "faulty", Version: 1, Keys: []string{"k"}, Measures: []bucket.Measure{{Name: "hits"}}}}
}

func (f *faulty) Observe(_ *exchange.Observation, tables []*bucket.Table) {
	f.n++
	if f.n%2 == 0 {
		panic("a fault")
	}
	tables[0].Add([]string{"x"}, []int64{1})
}

func init() { stat.Register("faulty", func() stat.Module { return new(faulty) }) }

type rig struct {
	*Accumulator
	out      []*bucket.Bucket
	p        []*Pipeline
	counters []exchange.Counters
	open     []uint64
}

func newRig(t testing.TB, pipelines int, cfg Config) *rig {
	t.Helper()
	r := &rig{counters: make([]exchange.Counters, pipelines), open: make([]uint64, pipelines)}
	if cfg.Width == 0 {
		cfg.Width = 10 * time.Second
	}
	cfg.MaxKeys = max(cfg.MaxKeys, 100)
	a, err := New(cfg, Deps{
		Host: bucket.ID{1}, HostName: "web-1", Incarnation: bucket.ID{2},
		Emit: func(b *bucket.Bucket) { r.out = append(r.out, b) },
	}, pipelines)
	if err != nil {
		t.Fatal(err)
	}
	r.Accumulator = a
	for i := range pipelines {
		r.p = append(r.p, a.Pipeline(i, &r.counters[i]))
	}
	return r
}

func observation(event exchange.Event, at int64) *exchange.Observation {
	x := &exchange.Exchange{
		Client: netip.MustParseAddrPort("192.0.2.1:4000"), Server: netip.MustParseAddrPort("192.0.2.2:80"),
		HasRequest: true, Method: "GET", Domain: "example.org", Section: "example.org/a", RequestEnd: at,
	}
	if event == exchange.Outcome {
		x.HasResponse, x.Status, x.ResponseStart, x.ResponseEnd = true, 200, at, at
	}
	return &exchange.Observation{Event: event, Time: at, Exchange: x}
}

// request and outcome happen on pipeline i, as the rooms before would tell.
func (r *rig) request(i int, at int64) {
	r.p[i].Advance(at)
	r.counters[i][exchange.Requests]++
	r.open[i]++
	r.p[i].Observe(observation(exchange.RequestSeen, at))
}

func (r *rig) outcome(i int, at int64) {
	r.p[i].Advance(at)
	r.counters[i][exchange.Outcomes]++
	r.open[i]--
	r.p[i].Observe(observation(exchange.Outcome, at))
}

func requests(b *bucket.Bucket) int64 {
	if t := b.Table("totals"); t != nil {
		return t.Total(t.Schema.Measure(stat.TotalRequests))
	}
	return 0
}

// summary is what most tests look at.
func (r *rig) summary() string {
	var s []string
	for _, b := range r.out {
		line := fmt.Sprintf("%d/%d:%d", (b.Start-origin)/second, b.Part, requests(b))
		if len(b.Tables) == 0 {
			line += " idle"
		}
		if b.Counters[exchange.LateEvents] > 0 {
			line += fmt.Sprintf(" late=%d", b.Counters[exchange.LateEvents])
		}
		s = append(s, line)
	}
	return strings.Join(s, ", ")
}

func (r *rig) want(t *testing.T, want string) {
	t.Helper()
	if got := r.summary(); got != want {
		t.Errorf("buckets = %s, want %s", got, want)
	}
	for i, b := range r.out {
		if b.Ordinal != uint64(i) || !b.Final || b.Host != (bucket.ID{1}) || b.HostName != "web-1" {
			t.Errorf("bucket %d has the header %+v", i, b.Header)
		}
		if i > 0 && b.ClosedThrough < r.out[i-1].ClosedThrough {
			t.Errorf("bucket %d: closed_through goes back", i)
		}
		if _, err := bucket.Encode(nil, b); err != nil {
			t.Errorf("bucket %d: %v", i, err)
		}
	}
}

func TestIntervalsCloseByTheClock(t *testing.T) {
	r := newRig(t, 1, Config{})
	r.request(0, origin+3*second)
	r.request(0, origin+9*second)
	r.outcome(0, origin+10*second)
	r.p[0].Advance(origin + 40*second)
	r.want(t, "0/0:2, 10/0:0, 20/0:0 idle, 30/0:0 idle")
	if b := r.out[0]; b.ObservedFrom != origin+3*second || b.ClosedThrough != origin+10*second || b.Open != 2 ||
		b.Counters[exchange.Requests] != 2 || b.Counters[exchange.Outcomes] != 0 {
		t.Errorf("first bucket: %+v", b.Header)
	}
	if b := r.out[1]; b.Open != 1 || b.Counters[exchange.Outcomes] != 1 {
		t.Errorf("second bucket: %+v", b.Header)
	}
	if b := r.out[2]; b.Open != 1 || b.ClosedThrough != origin+30*second {
		t.Errorf("idle bucket: %+v", b.Header)
	}
}

func TestPipelinesMerge(t *testing.T) {
	r := newRig(t, 2, Config{})
	r.request(0, origin+second)
	r.request(1, origin+2*second)
	r.request(0, origin+11*second) // pipeline 1 is still in the first interval
	r.want(t, "")
	r.request(1, origin+3*second)
	r.request(1, origin+12*second)
	r.want(t, "0/0:3")
	if b := r.out[0]; b.ObservedFrom != origin+2*second || b.Open != 3 {
		t.Errorf("header %+v, want observed from the last pipeline's begin, and 3 open", b.Header)
	}
	r.Close()
	r.want(t, "0/0:3, 10/0:2")
}

// TestConservation plays random traffic on several pipelines, with late
// events: every event is in exactly one bucket, and the gauge balances.
func TestConservation(t *testing.T) {
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		n := 1 + rnd.IntN(3)
		r := newRig(t, n, Config{MaxKeys: 100})
		clocks, total := make([]int64, n), 0
		for i := range clocks {
			clocks[i] = origin
		}
		for range 400 {
			i := rnd.IntN(n)
			clocks[i] += rnd.Int64N(4 * second)
			total++
			r.request(i, clocks[i])
			if rnd.IntN(3) == 0 {
				at := clocks[i] - rnd.Int64N(60*second)
				r.counters[i][exchange.Outcomes]++
				r.open[i]--
				r.p[i].Observe(observation(exchange.Outcome, at))
			}
		}
		r.Close()
		r.Close()
		var sum bucket.Bucket
		names := map[bucket.Name]bool{}
		for _, b := range r.out {
			if names[b.Name] {
				t.Fatalf("two buckets are named %+v", b.Name)
			}
			names[b.Name] = true
			if err := sum.Merge(b); err != nil {
				t.Fatal(err)
			}
		}
		totals := sum.Table("totals")
		outcomes := totals.Total(totals.Schema.Measure(stat.TotalOutcomes))
		c := sum.Counters
		if requests(&sum) != int64(total) || c[exchange.Requests] != uint64(total) || c[exchange.Outcomes] != uint64(outcomes) {
			t.Fatalf("seed %d: %d requests in tables, %d counted, want %d; %d outcomes in tables, %d counted",
				seed, requests(&sum), c[exchange.Requests], total, outcomes, c[exchange.Outcomes])
		}
		left := uint64(0)
		for _, open := range r.open {
			left += open
		}
		if open := r.out[len(r.out)-1].Open; open != left {
			t.Fatalf("seed %d: %d open at the end, want %d", seed, open, left)
		}
		// At each bucket, and not only at the end.
		c = exchange.Counters{}
		for _, b := range r.out {
			c.Add(&b.Counters)
			if c[exchange.Requests] != c[exchange.Outcomes]+b.Open {
				t.Fatalf("seed %d, bucket %d: %d requests != %d outcomes + %d open", seed, b.Ordinal, c[exchange.Requests], c[exchange.Outcomes], b.Open)
			}
		}
	}
}

func TestLateEventsMakeFurtherParts(t *testing.T) {
	r := newRig(t, 1, Config{})
	r.request(0, origin)
	r.request(0, origin+15*second)
	r.p[0].Observe(observation(exchange.RequestSeen, origin+5*second))
	r.p[0].Observe(observation(exchange.RequestSeen, origin+6*second))
	r.p[0].Advance(origin + 20*second)
	r.p[0].Observe(observation(exchange.RequestSeen, origin+7*second))
	r.p[0].Observe(observation(exchange.RequestSeen, origin-25*second))
	r.Close()
	r.want(t, "0/0:1, 10/0:1, 0/1:2 late=2, 20/0:0 idle, -30/1:1 late=1, 0/2:1 late=1")
}

func TestLatePartsAreBounded(t *testing.T) {
	r := newRig(t, 1, Config{})
	r.p[0].Advance(origin)
	r.p[0].Advance(origin + 10*second)
	n := int64(3 * maxNumbered)
	for i := range n {
		r.p[0].Observe(observation(exchange.RequestSeen, origin-(i%(n/2))*10*second))
	}
	if len(r.lateOnes) > maxLate || len(r.numbers) > maxNumbered+1 {
		t.Errorf("%d late parts and %d numbers are kept, want at most %d and %d", len(r.lateOnes), len(r.numbers), maxLate, maxNumbered)
	}
	r.Close()
	names, sum := map[bucket.Name]bool{}, int64(0)
	for _, b := range r.out {
		if names[b.Name] {
			t.Fatalf("two buckets are named %+v", b.Name)
		}
		names[b.Name] = true
		sum += requests(b)
	}
	if sum != n {
		t.Errorf("%d requests, want %d", sum, n)
	}
}

func TestJumpIsDeclared(t *testing.T) {
	r := newRig(t, 1, Config{})
	r.request(0, origin+second)
	year := 365 * 24 * 3600 * second
	r.request(0, origin+year)
	if len(r.out) != 1 {
		t.Fatalf("a jump of a year emitted %d buckets, want 1", len(r.out))
	}
	r.Close()
	last := r.out[len(r.out)-1]
	want := []bucket.Span{{From: origin + 10*second, To: origin + year}}
	if len(r.out) != 2 || !reflect.DeepEqual(last.Unobserved, want) || requests(last) != 1 {
		t.Errorf("after the jump: %d buckets, the last %+v, want 2 and %v unobserved", len(r.out), last.Header, want)
	}
}

func TestLaggingPipelineIsNotWaitedFor(t *testing.T) {
	r := newRig(t, 2, Config{})
	r.request(0, origin)
	r.request(1, origin)
	for i := range int64(30) {
		r.request(0, origin+i*10*second)
	}
	if len(r.pending) > maxSkew+1 {
		t.Errorf("%d parts are kept for a pipeline that lags, want at most %d", len(r.pending), maxSkew+1)
	}
	r.request(1, origin+second)
	r.Close()
	sum := int64(0)
	for _, b := range r.out {
		sum += requests(b)
	}
	if sum != 33 {
		t.Errorf("%d requests, want 33", sum)
	}
}

// TestPipelineFarBehind: one that is further behind than the late parts that are
// kept makes them be emitted while it moves on, or in Close.
func TestPipelineFarBehind(t *testing.T) {
	r := newRig(t, 2, Config{})
	r.p[1].Advance(origin)
	r.request(0, origin)
	r.request(0, origin+100*10*second)
	for i := range int64(3 * maxLate) {
		r.request(1, origin+i*10*second)
	}
	r.Close()
	sum := int64(0)
	for i, b := range r.out {
		sum += requests(b)
		if b.Ordinal != uint64(i) {
			t.Fatalf("bucket %d has ordinal %d", i, b.Ordinal)
		}
	}
	if want := int64(2 + 3*maxLate); sum != want {
		t.Errorf("%d requests in buckets, want %d", sum, want)
	}
}

func TestCloseAndStartAgainInOneInterval(t *testing.T) {
	r := newRig(t, 1, Config{})
	r.request(0, origin+second)
	r.p[0].Advance(origin + 4*second)
	r.Close()
	first := r.out[0]
	if first.ClosedThrough != origin+4*second || first.End() != origin+10*second {
		t.Errorf("closed through %d of [%d, %d), want where the clock stood", first.ClosedThrough, first.Start, first.End())
	}
	again := newRig(t, 1, Config{})
	again.deps.Incarnation = bucket.ID{3}
	again.request(0, origin+7*second)
	again.Close()
	next := again.out[0]
	if next.Start != first.Start || next.Name == first.Name || next.ObservedFrom != origin+7*second {
		t.Errorf("the second bucket is %+v, want the same interval under another name", next.Header)
	}
}

func TestNewIncarnation(t *testing.T) {
	r := newRig(t, 1, Config{})
	r.request(0, origin+second)
	if !r.p[0].NewIncarnation(1, bucket.ID{9}) {
		t.Error("the only pipeline does not begin an incarnation")
	}
	r.request(0, origin-100*second)
	r.Close()
	if len(r.out) != 2 || r.out[1].Incarnation != (bucket.ID{9}) || r.out[1].Ordinal != 0 ||
		r.out[1].ObservedFrom != origin-100*second || requests(r.out[1]) != 1 {
		t.Errorf("%d buckets, the last %+v, want one of the new incarnation, ordinal 0", len(r.out), r.out[len(r.out)-1].Header)
	}
}

// TestNewIncarnationOfSeveral sets the clock back an hour under two pipelines,
// which notice it one after the other.
func TestNewIncarnationOfSeveral(t *testing.T) {
	const hour = 3600 * second
	r := newRig(t, 2, Config{})
	r.request(0, origin+second)
	r.request(1, origin+2*second)
	if r.p[0].NewIncarnation(1, bucket.ID{8}) {
		t.Fatal("an incarnation begins before every pipeline has noticed the step")
	}
	r.request(0, origin+2*second-hour) // is of the old one, if late
	r.outcome(1, origin+3*second)      // the other still reads what was captured before
	if !r.p[1].NewIncarnation(1, bucket.ID{9}) {
		t.Fatal("no incarnation begins although every pipeline has noticed the step")
	}
	for i := range int64(4) {
		r.request(0, origin+10*i*second+3*second-hour)
		r.request(1, origin+10*i*second+4*second-hour)
	}
	if n := len(r.out); n < 4 {
		t.Fatalf("%d buckets, want the new incarnation's closed by its own clocks", n)
	}
	r.Close()
	sum, open := int64(0), uint64(0)
	next := map[bucket.ID]uint64{}
	for _, b := range r.out {
		sum += requests(b)
		if b.Ordinal != next[b.Incarnation] {
			t.Errorf("ordinal %d of %s, want %d", b.Ordinal, b.Incarnation, next[b.Incarnation])
		}
		next[b.Incarnation]++
		open = b.Open
		if b.Incarnation == (bucket.ID{9}) && (b.Start >= origin || b.ClosedThrough >= origin) {
			t.Errorf("the new incarnation has a bucket at %d closed through %d, of before the step", b.Start, b.ClosedThrough)
		}
	}
	if sum != 11 || open != 10 || len(next) != 2 {
		t.Errorf("%d requests, %d open, of %d incarnations, want 11, 10, 2", sum, open, len(next))
	}
}

// TestNewIncarnationIsSafe: pipelines may count while another begins an incarnation.
func TestNewIncarnationIsSafe(t *testing.T) {
	r := newRig(t, 3, Config{})
	var running sync.WaitGroup
	for i := range r.p {
		running.Go(func() {
			for step := range int64(20) {
				for k := range int64(50) {
					r.request(i, origin+step*100*second+k*second)
				}
				r.p[i].NewIncarnation(step+1, bucket.ID{byte(step + 10)})
			}
		})
	}
	running.Wait()
	r.Close()
	sum := int64(0)
	for _, b := range r.out {
		sum += requests(b)
	}
	if sum != 3*20*50 {
		t.Errorf("%d requests in buckets, want %d", sum, 3*20*50)
	}
}

func TestProvisional(t *testing.T) {
	for n := 1; n <= 2; n++ {
		r := newRig(t, n, Config{})
		if b := r.Provisional(3); b != nil {
			t.Errorf("before the clock began: %+v, want nil", b)
		}
		for i := range n {
			r.request(i, origin+second)
		}
		for i := range n {
			for k := range 20 {
				o := observation(exchange.RequestSeen, origin+second)
				o.UserAgent = fmt.Sprint("agent", k)
				r.p[i].Observe(o)
			}
			r.counters[i][exchange.Packets] = 7
			r.p[i].Advance(origin + 2*second)
		}
		for revision := uint32(1); revision < 4; revision++ {
			b := r.Provisional(3)
			if b.Final || b.Revision != revision || b.Ordinal != 0 || requests(b) != int64(21*n) ||
				len(b.Table("user_agent").Rows) != 3 || b.Table("user_agent").Total(0) != int64(21*n) ||
				b.Counters[exchange.Packets] != uint64(7*n) || b.Open != uint64(n) {
				t.Fatalf("%d pipelines: provisional %+v with %d requests", n, b.Header, requests(b))
			}
		}
		r.Close()
		if requests(r.out[0]) != int64(21*n) || len(r.out[0].Table("user_agent").Rows) != 21 {
			t.Errorf("a provisional bucket changed the final one: %s", r.summary())
		}
		if r.Provisional(3) != nil {
			t.Error("after Close: a provisional bucket, want nil")
		}
	}
}

func TestSetWidth(t *testing.T) {
	r := newRig(t, 1, Config{})
	if err := r.SetWidth(7*time.Second, 0); err == nil {
		t.Error("a width of 7s was taken")
	}
	if err := r.SetWidth(20*time.Second, 0); err != nil {
		t.Fatal(err)
	}
	r.request(0, origin+25*second) // 1700000020 is a multiple of 20 s
	hour := ceil(origin, 3600*second)
	if err := r.SetWidth(30*time.Second, hour+second); err == nil {
		t.Error("a change off the boundary was taken")
	}
	if err := r.SetWidth(30*time.Second, origin); err == nil {
		t.Error("a change in the past was taken")
	}
	if err := r.SetWidth(30*time.Second, 0); err != nil {
		t.Fatal(err)
	}
	r.request(0, hour-second)
	r.request(0, hour+second)
	r.request(0, hour+29*second)
	r.Close()
	n := len(r.out)
	if w := r.out[0].Width; w != 20*time.Second {
		t.Errorf("first width %v, want 20s", w)
	}
	if before, after := r.out[n-2], r.out[n-1]; before.Width != 20*time.Second || before.End() != hour ||
		after.Width != 30*time.Second || after.Start != hour || requests(after) != 2 {
		t.Errorf("around the hour: %+v, %+v", before.Header, after.Header)
	}
}

func TestStatisticPanics(t *testing.T) {
	r := newRig(t, 1, Config{Statistics: []string{"faulty", "totals"}})
	for range 10 {
		r.request(0, origin)
	}
	r.Close()
	b := r.out[0]
	if got := b.Counters[exchange.StatisticPanics]; got != 5 {
		t.Errorf("statistic_panics = %d, want 5", got)
	}
	if requests(b) != 10 || b.Table("faulty").Total(0) != 5 {
		t.Errorf("totals has %d requests, faulty %d, want 10 and 5", requests(b), b.Table("faulty").Total(0))
	}
}

func TestEvictedKeysAreCounted(t *testing.T) {
	r := newRig(t, 1, Config{Statistics: []string{"user_agent"}, MaxKeys: 100})
	for k := range 130 {
		o := observation(exchange.RequestSeen, origin)
		o.UserAgent = fmt.Sprint(k)
		r.p[0].Observe(o)
	}
	r.Close()
	if got := r.out[0].Counters[exchange.EvictedKeys]; got != 30 {
		t.Errorf("evicted_keys = %d, want 30", got)
	}
}

func TestNewCollectorRefuses(t *testing.T) {
	for _, c := range []struct {
		statistics []string
		maxKeys    int
		want       string
	}{
		{[]string{"nope"}, 1, "nope"},
		{[]string{"totals", "totals"}, 1, "twice"},
		{nil, 0, "max_keys"},
	} {
		if _, err := NewCollector(c.statistics, c.maxKeys, 0); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("NewCollector(%v, %d) = %v, want an error about %q", c.statistics, c.maxKeys, err, c.want)
		}
	}
	c, err := NewCollector(nil, 10, 0)
	if err != nil {
		t.Fatal(err)
	}
	c.Observe(observation(exchange.RequestSeen, origin))
	var names []string
	for _, table := range c.Tables() {
		names = append(names, table.Schema.Name)
	}
	if !slices.Equal(names, stat.Builtin) || c.Panics() != 0 {
		t.Errorf("tables %v, %d panics, want those of %v and none", names, c.Panics(), stat.Builtin)
	}
}

// TestConcurrentUse is for the race detector.
func TestConcurrentUse(t *testing.T) {
	r := newRig(t, 2, Config{})
	var pipelines sync.WaitGroup
	for i := range 2 {
		pipelines.Go(func() {
			for k := range int64(2000) {
				r.request(i, origin+k*second/10)
			}
		})
	}
	done := make(chan struct{})
	var readers sync.WaitGroup
	readers.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				r.Provisional(5)
			}
		}
	})
	pipelines.Wait()
	close(done)
	readers.Wait()
	r.Close()
	sum := int64(0)
	for _, b := range r.out {
		sum += requests(b)
	}
	if sum != 4000 {
		t.Errorf("%d requests, want 4000", sum)
	}
}

// TestBatch: a pipeline that keeps its lock for a batch counts the same, also what is late or of the next interval, and holds up
// nobody for longer than that.
func TestBatch(t *testing.T) {
	r := newRig(t, 2, Config{})
	var pipelines, readers sync.WaitGroup
	for i, p := range r.p {
		p.Batch()
		pipelines.Go(func() {
			for k := range int64(3000) {
				at := origin + k*second/10
				switch k % 50 {
				case 20:
					at -= 15 * second // late
				case 40:
					p.Advance(at + 1)
				}
				r.counters[i][exchange.Requests]++
				p.Observe(observation(exchange.RequestSeen, at))
				if k%7 == 0 {
					p.Release()
				}
			}
			p.Release()
			p.Release()
			if !p.mu.TryLock() {
				t.Error("Release does not give the lock back")
				return
			}
			p.mu.Unlock()
		})
	}
	done := make(chan struct{})
	readers.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				r.Provisional(5)
			}
		}
	})
	pipelines.Wait()
	close(done)
	readers.Wait()
	if got := requests(r.Provisional(5)); got == 0 {
		t.Error("nothing is known of the interval under way")
	}
	r.p[0].Observe(observation(exchange.RequestSeen, origin+3000*second/10))
	if r.p[0].mu.TryLock() {
		t.Error("Observe has not kept the lock")
	}
	r.p[0].Release()
	r.Close()
	sum := int64(0)
	for _, b := range r.out {
		sum += requests(b)
	}
	if sum != 6001 {
		t.Errorf("%d requests, want 6001", sum)
	}
}

func TestObserveDoesNotAllocate(t *testing.T) {
	r := newRig(t, 1, Config{})
	o := observation(exchange.Outcome, origin)
	r.p[0].Observe(o)
	if n := testing.AllocsPerRun(1000, func() { r.p[0].Advance(origin); r.p[0].Observe(o) }); n != 0 {
		t.Errorf("Observe allocates %v times, want 0", n)
	}
}

// TestEnd: intervals close without a pipeline that has ended, with all that it counted.
func TestEnd(t *testing.T) {
	r := newRig(t, 3, Config{})
	for i := range r.p {
		r.request(i, origin+second)
	}
	r.outcome(0, origin+2*second)
	r.p[0].End()
	if len(r.out) != 0 {
		t.Fatalf("the end of one pipeline closed %d intervals", len(r.out))
	}
	for i := 1; i < 3; i++ {
		r.outcome(i, origin+5*second)
		r.request(i, origin+11*second)
	}
	if len(r.out) != 1 || requests(r.out[0]) != 3 || r.out[0].Open != 0 {
		t.Fatalf("an interval past which all remaining clocks are: %s", r.summary())
	}
	// A step of the clock does not wait for it.
	if r.p[1].NewIncarnation(1, bucket.ID{8}) || !r.p[2].NewIncarnation(1, bucket.ID{9}) {
		t.Error("an incarnation does not begin when all that are left have noticed the step")
	}
	r.request(1, origin+second)
	r.p[1].End()
	r.request(2, origin+2*second)
	r.p[2].End() // the last: Close does the rest
	before := len(r.out)
	r.Close()
	if n := len(r.out) - before; n != 1 {
		t.Fatalf("Close after the last end emits %d buckets, want 1", n)
	}
	if b := r.out[len(r.out)-1]; requests(b) != 2 || b.ClosedThrough != origin+2*second || b.Incarnation != (bucket.ID{9}) {
		t.Errorf("the last bucket is %+v with %d requests, want 2 and the time reached", b.Header, requests(b))
	}
}

// TestEndBeforeTheOthersBegin: what ends first is in the first bucket.
func TestEndBeforeTheOthersBegin(t *testing.T) {
	r := newRig(t, 2, Config{})
	r.p[0].End()
	r.request(1, origin+second)
	r.request(1, origin+11*second)
	if len(r.out) != 1 || requests(r.out[0]) != 1 {
		t.Errorf("one ended before its clock began: %s", r.summary())
	}
	r = newRig(t, 2, Config{})
	r.request(0, origin+second)
	r.p[0].End()
	r.request(1, origin+2*second)
	r.request(1, origin+11*second)
	if len(r.out) != 1 || requests(r.out[0]) != 2 {
		t.Errorf("one ended before the other's clock began: %s", r.summary())
	}
}

// TestAllEndBeforeOneBegins: what was counted leaves though no clock is left, and no later one is claimed.
func TestAllEndBeforeOneBegins(t *testing.T) {
	r := newRig(t, 2, Config{})
	r.request(0, origin+second)
	r.p[0].End()
	r.p[1].End()
	r.Close()
	if len(r.out) != 1 || requests(r.out[0]) != 1 {
		t.Fatalf("of one request: %s", r.summary())
	}
	if b := r.out[0]; b.ObservedFrom != origin+second || b.ClosedThrough != origin+second {
		t.Errorf("observed from %d to %d, want %d alone", b.ObservedFrom, b.ClosedThrough, origin+second)
	}
}
