// Package delivery tests the way of a bucket as a whole: spool, uplink, ingest and a store.
package delivery

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"

	"github.com/httpctl/httpctl/agent/spool"
	"github.com/httpctl/httpctl/agent/uplink"
	"github.com/httpctl/httpctl/aggregator/ingest"
	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/exchange"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const width = 10 * time.Second

// base is a start that any test's buckets count from.
const base = int64(1_700_000_000) * int64(time.Second)

// memory is a store that holds names only, and fails when told to.
type memory struct {
	mu       sync.Mutex
	names    map[bucket.Name][]byte
	appends  int
	stored   int
	again    int // duplicates
	fail     func() error
	sealed   int64
	slow     time.Duration
	unobserv []bucket.Span
	dropped  uint64
}

func newMemory() *memory { return &memory{names: map[bucket.Name][]byte{}} }

func (m *memory) Append(ctx context.Context, batch []store.Item) ([]store.Result, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.appends++
	if m.slow > 0 {
		time.Sleep(m.slow)
	}
	if m.fail != nil {
		if err := m.fail(); err != nil {
			return nil, err
		}
	}
	results := make([]store.Result, len(batch))
	for i, it := range batch {
		switch old, ok := m.names[it.Header.Name]; {
		case ok && slices.Equal(old, it.Data):
			m.again++
			results[i] = store.Duplicate
		case ok:
			results[i] = store.Mismatch
		case it.Header.End() <= m.sealed:
			results[i] = store.Expired
		default:
			m.names[it.Header.Name] = slices.Clone(it.Data)
			m.stored++
			m.unobserv = append(m.unobserv, it.Header.Unobserved...)
			m.dropped += it.Header.Counters[exchange.SpoolDropped]
			results[i] = store.Stored
		}
	}
	return results, nil
}

func (m *memory) count() (stored, appends int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.stored, m.appends
}

// aggregator is an ingest service behind an in-memory listener, which can be stopped and started again on the same store.
type aggregator struct {
	t       *testing.T
	store   *memory // nil if it appends to another
	append  ingest.Appender
	cfg     ingest.Config
	mu      sync.Mutex
	lis     *bufconn.Listener
	server  *grpc.Server
	service *ingest.Service
	headers []*bucket.Header
	served  sync.WaitGroup
}

func newAggregator(t *testing.T, m *memory) *aggregator {
	a := &aggregator{t: t, store: m, append: m, cfg: ingest.DefaultConfig()}
	a.start()
	t.Cleanup(a.stop)
	return a
}

func (a *aggregator) start() {
	service, err := ingest.New(a.cfg, ingest.Settings{IntervalWidth: width, ProvisionalEvery: 200 * time.Millisecond}, ingest.Deps{
		Store: a.append, Version: "test",
		OnStored: func(fresh []ingest.Stored) {
			a.mu.Lock()
			for _, s := range fresh {
				a.headers = append(a.headers, s.Header)
			}
			a.mu.Unlock()
		},
	})
	if err != nil {
		a.t.Fatal(err)
	}
	if err := service.Start(a.t.Context()); err != nil {
		a.t.Fatal(err)
	}
	server := grpc.NewServer(service.ServerOptions()...)
	service.Register(server)
	lis := bufconn.Listen(256 << 10)
	a.served.Go(func() { server.Serve(lis) })
	a.mu.Lock()
	a.lis, a.server, a.service = lis, server, service
	a.mu.Unlock()
}

// stop ends the aggregator in order.
func (a *aggregator) stop() {
	a.mu.Lock()
	service, server := a.service, a.server
	a.lis, a.service, a.server = nil, nil, nil
	a.mu.Unlock()
	if service == nil {
		return
	}
	if err := service.Stop(context.Background()); err != nil {
		a.t.Error(err)
	}
	server.Stop()
	a.served.Wait()
}

// dial connects through pipe, which may cut the connection.
func (a *aggregator) dial(ctx context.Context) (net.Conn, error) {
	a.mu.Lock()
	lis := a.lis
	a.mu.Unlock()
	if lis == nil {
		return nil, errors.New("connection refused")
	}
	return lis.DialContext(ctx)
}

// cutter breaks the newest connection when told to.
type cutter struct {
	dial func(context.Context) (net.Conn, error)
	mu   sync.Mutex
	conn net.Conn
}

func (c *cutter) Dial(ctx context.Context) (net.Conn, error) {
	conn, err := c.dial(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conn = conn
	return conn, err
}

func (c *cutter) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil {
		c.conn.Close()
	}
}

func makeBucket(host, inc bucket.ID, n int, requests uint64) *bucket.Bucket {
	b := &bucket.Bucket{}
	b.Host, b.Incarnation, b.HostName = host, inc, "web-1.example.org"
	b.Start, b.Width, b.Ordinal, b.Final = base+int64(n)*int64(width), width, uint64(n), true
	b.ClosedThrough, b.ObservedFrom = b.End(), base
	b.Counters[exchange.Requests] = requests
	return b
}

func openSpool(t *testing.T, dir string) *spool.Spool {
	t.Helper()
	s, err := spool.Open(dir, spool.DefaultConfig(), spool.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

var inc = bucket.ID{1}

func startUplink(t *testing.T, s *spool.Spool, dial func(context.Context) (net.Conn, error), change func(*uplink.Config, *uplink.Deps)) *uplink.Uplink {
	t.Helper()
	cfg := uplink.DefaultConfig()
	cfg.BackoffMax = 500 * time.Millisecond
	deps := uplink.Deps{
		Queue: s, Dial: dial,
		Identity: func() uplink.Identity {
			return uplink.Identity{Host: s.Host(), Incarnation: inc, HostName: "web-1.example.org", Version: "test"}
		},
	}
	if change != nil {
		change(&cfg, &deps)
	}
	u, err := uplink.New(cfg, deps)
	if err != nil {
		t.Fatal(err)
	}
	if err := u.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := u.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return u
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(3 * time.Minute); !f(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// TestNothingLostNothingTwice cuts the connection, restarts the aggregator and fails the store at random points
// while buckets come in, and at the end every bucket is stored once.
func TestNothingLostNothingTwice(t *testing.T) {
	m := newMemory()
	r := rand.New(rand.NewPCG(1, 2))
	m.fail = func() error {
		if r.IntN(10) == 0 {
			return errors.New("the disk is on fire")
		}
		return nil
	}
	a := newAggregator(t, m)
	s := openSpool(t, t.TempDir())
	c := &cutter{dial: a.dial}
	startUplink(t, s, c.Dial, nil)
	const buckets = 400
	added := make(chan struct{})
	go func() {
		defer close(added)
		for n := range buckets {
			if err := s.Add(makeBucket(s.Host(), inc, n, uint64(n))); err != nil {
				t.Error(err)
			}
		}
	}()
	chaos := rand.New(rand.NewPCG(3, 4))
	for i := range 12 {
		time.Sleep(time.Duration(chaos.IntN(120)) * time.Millisecond)
		if i%4 == 3 {
			a.stop()
			time.Sleep(time.Duration(chaos.IntN(50)) * time.Millisecond)
			a.start()
		} else {
			c.cut()
		}
	}
	<-added
	eventually(t, "the spool is empty", func() bool { return s.Len() == 0 })
	if stored, _ := m.count(); stored != buckets || len(m.names) != buckets {
		t.Errorf("stored %d, %d names, want %d of both", stored, len(m.names), buckets)
	}
	for n := range buckets {
		want, err := bucket.Encode(nil, makeBucket(s.Host(), inc, n, uint64(n)))
		if err != nil {
			t.Fatal(err)
		}
		if got := m.names[makeBucket(s.Host(), inc, n, 0).Name]; !slices.Equal(got, want) {
			t.Errorf("bucket %d is not stored as it was made", n)
		}
	}
	if len(m.unobserv) != 0 || m.dropped != 0 {
		t.Errorf("declared %v and %d dropped, though nothing was", m.unobserv, m.dropped)
	}
	t.Logf("%d sent again and told apart", m.again)
}

// TestAgentRestart kills the agent between sending and the answer: its next run sends the rest, and
// declares the time in between.
func TestAgentRestart(t *testing.T) {
	m := newMemory()
	dir := t.TempDir()
	s := openSpool(t, dir)
	host := s.Host()
	s.Begin(inc, base, width)
	for n := range 5 {
		if err := s.Add(makeBucket(host, inc, n, 1)); err != nil {
			t.Fatal(err)
		}
	}
	s.Close()

	a := newAggregator(t, m)
	s = openSpool(t, dir)
	next := bucket.ID{2}
	s.Begin(next, base+100*int64(time.Second), width)
	b := makeBucket(host, next, 10, 1)
	b.Ordinal = 0
	if err := s.Add(b); err != nil {
		t.Fatal(err)
	}
	u := startUplink(t, s, a.dial, nil)
	if !u.Drain(t.Context()) {
		t.Error("Drain() = false with the aggregator there")
	}
	if len(m.names) != 6 {
		t.Errorf("%d buckets stored, want 6 of both incarnations", len(m.names))
	}
	if want := []bucket.Span{{From: base + 50*int64(time.Second), To: base + 100*int64(time.Second)}}; !slices.Equal(m.unobserv, want) {
		t.Errorf("declared %v, want %v", m.unobserv, want)
	}
}

func TestAbsence(t *testing.T) {
	m := newMemory()
	m.slow = 20 * time.Millisecond // while one transaction runs, buckets come for the next
	a := newAggregator(t, m)
	a.stop()
	s := openSpool(t, t.TempDir())
	u := startUplink(t, s, a.dial, nil)
	eventually(t, "the absence is known", func() bool { return u.Status().Err != nil })
	for n := range 30 {
		if err := s.Add(makeBucket(s.Host(), inc, n, 1)); err != nil {
			t.Fatal(err)
		}
	}
	if st := u.Status(); st.Connected || st.Since.IsZero() {
		t.Errorf("Status() = %+v, want away since a time", st)
	}
	if u.Drain(t.Context()) {
		t.Error("Drain() = true with the aggregator away")
	}
	a.start()
	eventually(t, "all is delivered", func() bool { return s.Len() == 0 })
	stored, appends := a.store.count()
	if stored != 30 {
		t.Errorf("stored %d, want 30", stored)
	}
	if appends > 20 {
		t.Errorf("%d transactions for a backlog of 30: it was not stored in groups", appends)
	}
	if st := u.Status(); !st.Connected || st.Err != nil || st.Version != "test" {
		t.Errorf("Status() = %+v, want connected to version test", st)
	}
}

func TestSealedRefusedAndTooLarge(t *testing.T) {
	m := newMemory()
	m.sealed = base + 2*int64(width)
	s := openSpool(t, t.TempDir())
	for n := range 4 {
		s.Add(makeBucket(s.Host(), inc, n, 1))
	}
	// The same name with other content: it can never be stored.
	s.Add(makeBucket(s.Host(), inc, 3, 2))
	// Larger than the aggregator takes, which the agent does not know.
	big := makeBucket(s.Host(), inc, 5, 1)
	table := bucket.NewTable(bucket.Schema{Name: "noise", Version: 1, Keys: []string{"key"}, Measures: []bucket.Measure{{Name: "hits"}}}, 1<<20)
	r := rand.New(rand.NewPCG(1, 1))
	for range 3000 {
		table.Add([]string{fmt.Sprintf("%x%x%x%x", r.Uint64(), r.Uint64(), r.Uint64(), r.Uint64())}, []int64{1})
	}
	big.Tables = []*bucket.Table{table}
	if data, err := bucket.Encode(nil, big); err != nil || len(data) <= 70<<10 {
		t.Fatalf("the large bucket takes %d bytes (%v), want more than 70 KiB", len(data), err)
	}
	s.Add(big)
	s.Add(makeBucket(s.Host(), inc, 6, 1))

	a := newAggregator(t, m)
	a.stop()
	a.cfg.MaxMessageSize, a.cfg.MaxPending = 64*config.KiB, 64*config.KiB
	a.start()
	startUplink(t, s, a.dial, nil)
	eventually(t, "the spool is empty", func() bool { return s.Len() == 0 })
	s.Add(makeBucket(s.Host(), inc, 7, 1))
	eventually(t, "the spool is empty", func() bool { return s.Len() == 0 })
	if len(m.names) != 4 { // 2, 3, 6 and 7
		t.Errorf("%d buckets stored, want 4", len(m.names))
	}
	at := func(n int) int64 { return base + int64(n)*int64(width) }
	if want := []bucket.Span{{From: at(3), To: at(4)}, {From: at(5), To: at(6)}}; !slices.Equal(m.unobserv, want) || m.dropped != 2 {
		t.Errorf("declared %v and %d dropped, want %v and 2", m.unobserv, m.dropped, want)
	}
}

func TestProvisionalWhileWatched(t *testing.T) {
	m := newMemory()
	a := newAggregator(t, m)
	s := openSpool(t, t.TempDir())
	var mu sync.Mutex
	asked, width0 := 0, time.Duration(0)
	n := 0
	startUplink(t, s, a.dial, func(_ *uplink.Config, d *uplink.Deps) {
		d.OnSettings = func(set uplink.Settings) { mu.Lock(); width0 = set.IntervalWidth; mu.Unlock() }
		d.Provisional = func(rows int) *bucket.Bucket {
			mu.Lock()
			defer mu.Unlock()
			asked = rows
			b := makeBucket(s.Host(), inc, n, uint64(rows))
			b.Final, b.Revision = false, 1
			return b
		}
	})
	eventually(t, "the settings arrive", func() bool { mu.Lock(); defer mu.Unlock(); return width0 == width })
	if got := a.service.Provisional(); len(got) != 0 {
		t.Errorf("%d provisional buckets though nobody watches", len(got))
	}
	var p *bucket.Bucket
	eventually(t, "a provisional bucket comes", func() bool {
		a.service.Watch(time.Second, 7)
		if all := a.service.Provisional(); len(all) == 1 {
			p = all[0].Bucket
		}
		return p != nil
	})
	if p.Final || p.Start != base || p.Counters[exchange.Requests] != 7 {
		t.Errorf("provisional bucket %+v", p.Header)
	}
	mu.Lock()
	if asked != 7 {
		t.Errorf("%d rows were asked for, want 7", asked)
	}
	n = 1
	mu.Unlock()
	// Its final replaces it, and a later one is another bucket.
	s.Add(makeBucket(s.Host(), inc, 0, 7))
	eventually(t, "the final is stored and the provisional one gone", func() bool {
		stored, _ := m.count()
		return stored == 1 && !slices.ContainsFunc(a.service.Provisional(), func(p ingest.Provisional) bool { return p.Bucket.Start == base })
	})
	eventually(t, "nobody watches, and the provisional bucket is dropped", func() bool { return len(a.service.Provisional()) == 0 })
	if stored, _ := m.count(); stored != 1 {
		t.Errorf("stored %d, want the final one only", stored)
	}
	agents := a.service.Agents()
	if len(agents) != 1 || !agents[0].Connected || agents[0].Host != s.Host() || agents[0].Name != "web-1.example.org" || agents[0].Version != "test" {
		t.Errorf("Agents() = %+v", agents)
	}
}
