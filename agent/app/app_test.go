package app

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/httpctl/httpctl/agent/capture"
	"github.com/httpctl/httpctl/agent/spool"
	"github.com/httpctl/httpctl/agent/uplink"
	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/exchange"
	"github.com/httpctl/httpctl/pkg/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestLocalAddresses(t *testing.T) {
	l, err := newLocalAddresses([]string{"192.0.2.0/24", "2001:db8::7", "198.51.100.9"})
	if err != nil {
		t.Fatal(err)
	}
	check := func(addr string, want bool) {
		t.Helper()
		if got := l.contains(netip.MustParseAddr(addr)); got != want {
			t.Errorf("contains(%s) = %v, want %v", addr, got, want)
		}
	}
	check("192.0.2.1", true)
	check("::ffff:192.0.2.1", true)
	check("192.0.3.1", false)
	check("2001:db8::7", true)
	check("2001:db8::8", false)
	check("198.51.100.9", true)
	check("127.0.0.1", false) // a capture file's loopback is not this host's
	if err := l.refresh(); err != nil {
		t.Fatal(err)
	}
	check("127.0.0.1", true)
	check("127.0.0.2", true)
	check("192.0.2.1", true)
	check("203.0.113.1", false)
	addr := netip.MustParseAddr("203.0.113.1")
	if n := testing.AllocsPerRun(100, func() { l.contains(addr) }); n != 0 {
		t.Errorf("contains allocates %v times", n)
	}
	for _, bad := range []string{"", "192.0.2.0/33", "example.org", "192.0.2.1:80"} {
		if _, err := newLocalAddresses([]string{bad}); err == nil {
			t.Errorf("network %q was taken", bad)
		}
	}
}

// packets is a source that gives packets from memory.
type packets struct {
	times []int64
	most  int // at once, 0: all

	err    error
	onNext func()
}

func (p *packets) Next(out []capture.Packet) (int, error) {
	if p.onNext != nil {
		p.onNext()
	}
	if len(p.times) == 0 {
		return 0, p.err
	}
	n := min(len(p.times), len(out))
	if p.most > 0 {
		n = min(n, p.most)
	}
	for i := range n {
		out[i] = capture.Packet{Time: p.times[i]}
	}
	p.times = p.times[n:]
	return n, nil
}

func (p *packets) Stats() capture.Stats { return capture.Stats{} }
func (p *packets) Close() error         { return nil }

// TestReplay: packets come at the pace at which they were recorded, now.
func TestReplay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const recorded = int64(1e18)
		second := int64(time.Second)
		r := newReplay(&packets{times: []int64{recorded, recorded + second/4, recorded + 3*second}, err: io.EOF}, 100*time.Millisecond)
		begin := time.Now()
		var got []time.Duration
		idle := 0
		for len(got) < 3 {
			var ps [2]capture.Packet
			switch n, err := r.Next(ps[:]); {
			case err == nil:
				if n != 1 {
					t.Errorf("%d packets at once, whose times differ", n)
				}
				p := ps[0]
				if p.Time != time.Now().UnixNano() {
					t.Errorf("packet %d has time %v, want now", len(got), time.Unix(0, p.Time))
				}
				got = append(got, time.Since(begin))
			case errors.Is(err, capture.ErrIdle):
				idle++
			default:
				t.Fatal(err)
			}
		}
		if want := []time.Duration{0, 250 * time.Millisecond, 3 * time.Second}; !slices.Equal(got, want) {
			t.Errorf("packets came after %v, want %v", got, want)
		}
		if idle < 28 { // as a live source, for the clock to go on
			t.Errorf("idle %d times in 3 s, want one each 100ms", idle)
		}
		var p [1]capture.Packet
		if _, err := r.Next(p[:]); !errors.Is(err, capture.ErrIdle) {
			t.Errorf("after the last packet Next() = %v, want ErrIdle", err)
		}
		closed := make(chan error)
		go func() {
			_, err := r.Next(p[:])
			closed <- err
		}()
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if err := <-closed; !errors.Is(err, io.EOF) {
			t.Errorf("Next() of a closed replay = %v, want io.EOF", err)
		}
		if err := r.Close(); err != nil {
			t.Errorf("a second Close() = %v", err)
		}
	})
}

// TestReplayIsNotIdleLate: who gets the processor late does not take the time meanwhile for one without packets.
func TestReplayIsNotIdleLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const recorded, timeout = int64(1e18), 100 * time.Millisecond
		r := newReplay(&packets{times: []int64{recorded, recorded + int64(time.Second)}, err: io.EOF}, timeout)
		begin := time.Now()
		var p [1]capture.Packet
		if _, err := r.Next(p[:]); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Next(p[:]); !errors.Is(err, capture.ErrIdle) {
			t.Fatalf("Next() = %v, want ErrIdle", err)
		}
		time.Sleep(5 * time.Second)
		if got := idleClock(r, timeout)(); got > begin.UnixNano() {
			t.Errorf("the clock is %v after the beginning, want what was looked at, 0", time.Duration(got-begin.UnixNano()))
		}
		if _, err := r.Next(p[:]); err != nil || p[0].Time != begin.Add(time.Second).UnixNano() {
			t.Errorf("then Next() gives %v, of %v after the beginning, want the packet that was due", err, time.Duration(p[0].Time-begin.UnixNano()))
		}
	})
}

// TestClockStep sets the clock back an hour under a pipeline: the new
// incarnation begins with the next packet, not an hour later, and once.
func TestClockStep(t *testing.T) {
	const before = int64(1_700_000_000e9)
	after := before - int64(time.Hour)
	var steps, width atomic.Int64
	width.Store(int64(10 * time.Second))
	// The third packet was captured before the step and waited in the ring.
	source := &packets{times: []int64{before, before + 2e8, before + 3e8, after + 1e8, after + 3e8}, most: 1, err: io.EOF}
	wall := before + 5e8
	source.onNext = func() {
		if len(source.times) == 3 {
			steps.Store(1)
			wall = after
		}
	}
	local, _ := newLocalAddresses(nil)
	p := newPipeline(source, DefaultConfig(), 1024, &exchangeSink{}, local)
	var said []string
	p.live = &liveClock{
		idle: func() int64 { t.Error("idle"); return 0 }, wall: func() int64 { wall += 2e8; return wall },
		width: &width, steps: &steps,
		advance: func(now int64) { said = append(said, "advance "+time.Duration(now-before).String()) },
		stepped: func(step int64) { said = append(said, "stepped") },
	}
	if err := p.run(); err != nil {
		t.Fatal(err)
	}
	want := []string{"advance 0s", "advance 200ms", "stepped", "advance -59m59.8s", "advance -59m59.7s"}
	if !slices.Equal(said, want) {
		t.Errorf("the pipeline said %q, want %q", said, want)
	}

	// The same while nothing comes.
	steps.Store(0)
	said = nil
	idle := 0
	source = &packets{times: []int64{before}, err: capture.ErrIdle}
	p = newPipeline(source, DefaultConfig(), 1024, &exchangeSink{}, local)
	p.live = &liveClock{
		idle: func() int64 {
			if idle++; idle == 1 {
				steps.Store(1)
			}
			if idle == 3 {
				source.err = io.EOF
			}
			return after + int64(idle)*2e8
		},
		wall: func() int64 { return before }, width: &width, steps: &steps,
		advance: func(now int64) { said = append(said, "advance "+time.Duration(now-before).String()) },
		stepped: func(step int64) { said = append(said, "stepped") },
	}
	if err := p.run(); err != nil {
		t.Fatal(err)
	}
	want = []string{"advance 0s", "stepped", "advance -59m59.8s", "advance -59m59.6s", "advance -59m59.4s"}
	if !slices.Equal(said, want) {
		t.Errorf("while idle the pipeline said %q, want %q", said, want)
	}
}

func testConfig(t *testing.T) Config {
	c := DefaultConfig()
	c.State, c.Aggregator, c.HostName = t.TempDir(), "unix:"+filepath.Join(t.TempDir(), "nobody.sock"), "web-1.example.org"
	return c
}

func settings() config.Settings {
	s := config.DefaultSettings()
	s.DashboardBucketSize = time.Second
	return s
}

// TestFollowWidth tells an agent the aggregator's interval width before and
// after it began to count.
func TestFollowWidth(t *testing.T) {
	const s = time.Second
	hour := time.Now().Truncate(time.Hour).Add(time.Hour).UnixNano()
	start := func() *Agent {
		dir := t.TempDir()
		a := &Agent{cfg: testConfig(t), settings: settings(), log: slog.New(slog.DiscardHandler),
			write: make(chan func() error, 1000), told: make(chan struct{})}
		sp, err := spool.Open(dir, a.cfg.Spool, spool.Deps{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { sp.Close() })
		a.spool, a.interval = sp, 10*s
		a.incarnation = spool.NewID()
		return a
	}
	check := func(what string, a *Agent, interval time.Duration, step time.Duration) {
		t.Helper()
		if a.interval != interval || time.Duration(a.width.Load()) != step {
			t.Errorf("%s: interval %v, long exchanges report every %v, want %v and %v", what, a.interval, time.Duration(a.width.Load()), interval, step)
		}
	}
	// widthAt is what an event of a time falls into.
	widthAt := func(a *Agent, at int64) (w time.Duration) {
		acc := a.acc.Pipeline(0, nil)
		acc.Advance(at)
		if b := a.acc.Provisional(1); b != nil {
			w = b.Width
		}
		return w
	}

	a := start()
	a.onSettings(uplink.Settings{IntervalWidth: 5 * s})
	check("before counting, at once", a, 5*s, 5*s)
	a.onSettings(uplink.Settings{IntervalWidth: 7 * s})
	check("no divisor of a minute", a, 5*s, 5*s)
	a.onSettings(uplink.Settings{})
	check("no width at all", a, 5*s, 5*s)
	if _, err := a.accumulator(1); err != nil {
		t.Fatal(err)
	}
	if got := widthAt(a, hour-int64(time.Minute)); got != 5*s {
		t.Errorf("counts in intervals of %v, want 5s", got)
	}
	a.onSettings(uplink.Settings{IntervalWidth: 5 * s, NextWidth: 3 * s, NextFrom: hour})
	check("while counting, at the hour", a, 3*s, 1*s)
	a.onSettings(uplink.Settings{IntervalWidth: 5 * s, NextWidth: 7 * s, NextFrom: hour})
	check("no divisor, while counting", a, 3*s, 1*s)
	if got := widthAt(a, hour-int64(s)); got != 5*s {
		t.Errorf("before the hour intervals are %v, want 5s", got)
	}
	if got := widthAt(a, hour+int64(s)); got != 3*s {
		t.Errorf("after the hour intervals are %v, want 3s", got)
	}

	// A change that was planned before counting began takes place, too.
	a = start()
	a.onSettings(uplink.Settings{IntervalWidth: 10 * s, NextWidth: 2 * s, NextFrom: hour})
	if _, err := a.accumulator(1); err != nil {
		t.Fatal(err)
	}
	if got := widthAt(a, hour-int64(time.Minute)); got != 10*s {
		t.Errorf("before the hour intervals are %v, want 10s", got)
	}
	if got := widthAt(a, hour+int64(s)); got != 2*s {
		t.Errorf("after the hour intervals are %v, want 2s", got)
	}
}

func stopAgent(t *testing.T, a *Agent) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	if err := a.Stop(ctx); err != nil {
		t.Error(err)
	}
	if err := a.Stop(ctx); err != nil {
		t.Errorf("a second Stop: %v", err)
	}
}

func conversation(requests int) []testkit.Frame {
	c := testkit.NewConversation("192.0.2.1:40000", "192.0.2.2:80")
	c.Open()
	for range requests {
		c.ToServer("GET /a HTTP/1.1\r\nHost: example.org\r\n\r\n")
		c.ToClient("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	}
	c.ToServer("GET /open HTTP/1.1\r\nHost: example.org\r\n\r\n")
	return c.Frames
}

// TestStopKeepsWhatWasCounted: with the aggregator away from start to end,
// what a replay counted is in the spool after Stop, the open exchange too.
func TestStopKeepsWhatWasCounted(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	file := testkit.WriteFile(t, conversation(20)...)
	a, err := Start(t.Context(), settings(), cfg, file, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(3 * time.Minute)
	for seen := uint64(0); seen < 21; {
		time.Sleep(10 * time.Millisecond)
		if c := a.pipelines[0].snapshot.Load(); c != nil {
			seen = c[exchange.Requests]
		}
		if time.Now().After(deadline) {
			t.Fatalf("saw %d of 21 requests", seen)
		}
	}
	if a.uplink.Status().Connected {
		t.Error("connected to nobody")
	}
	stopAgent(t, a)

	s, err := spool.Open(cfg.State, cfg.Spool, spool.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var counted exchange.Counters
	ordinal := uint64(0)
	for after := uint64(0); ; {
		seq, data, err := s.Next(after)
		if err != nil {
			t.Fatal(err)
		}
		if seq == 0 {
			break
		}
		after = seq
		b, err := bucket.Decode(data)
		if err != nil {
			t.Fatal(err)
		}
		if b.Ordinal != ordinal || b.HostName != cfg.HostName || b.Width != time.Second || !b.Final {
			t.Errorf("bucket %+v, want the final one of ordinal %d", b.Header, ordinal)
		}
		ordinal++
		counted.Add(&b.Counters)
	}
	if counted[exchange.Requests] != 21 || counted[exchange.Responses] != 20 || counted[exchange.UnmatchedRequests] != 1 {
		t.Errorf("spooled %d requests, %d responses, %d unmatched, want 21, 20, 1",
			counted[exchange.Requests], counted[exchange.Responses], counted[exchange.UnmatchedRequests])
	}
}

// TestStartFails: what is in the way is told, and nothing is left running (TestMain).
func TestStartFails(t *testing.T) {
	t.Parallel()
	file := testkit.WriteFile(t, conversation(1)...)
	for name, c := range map[string]struct {
		change func(t *testing.T, c *Config)
		replay string
		want   string
	}{
		"no such capture":    {func(*testing.T, *Config) {}, "/nonexistent/x.pcap", "no such file"},
		"no capture":         {func(*testing.T, *Config) {}, "app_test.go", "app_test.go"},
		"no such interface":  {func(_ *testing.T, c *Config) { c.Capture.Interfaces = []string{"nosuch0"} }, "", ""},
		"metrics port wrong": {func(_ *testing.T, c *Config) { c.Metrics = "127.0.0.1:99999" }, file, "metrics page"},
		"state is a file": {func(t *testing.T, c *Config) {
			c.State += "/file"
			if err := os.WriteFile(c.State, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}, file, "state directory"},
		"no certificate": {func(_ *testing.T, c *Config) { c.TLS.CertFile, c.TLS.KeyFile, c.TLS.CAFile = "/n", "/n", "/n" }, file, "/n"},
		"wrong network":  {func(_ *testing.T, c *Config) { c.LocalNetworks = []string{"x"} }, file, "network"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(t)
			c.change(t, &cfg)
			a, err := Start(t.Context(), settings(), cfg, c.replay, slog.New(slog.DiscardHandler))
			if err == nil {
				stopAgent(t, a)
				t.Fatal("it started")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %q does not say %q", err, c.want)
			}
		})
	}
}

// TestFailureIsTold: a part that dies ends the daemon, also when it died before
// anyone asked.
func TestFailureIsTold(t *testing.T) {
	t.Parallel()
	for range 2 {
		a, err := Start(t.Context(), settings(), testConfig(t), testkit.WriteFile(t, conversation(1)...), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		a.group.Go("test", func(context.Context) error { return errors.New("it broke") })
		<-a.group.Context().Done()
		if err := <-a.Failed(); err == nil || !strings.Contains(err.Error(), "it broke") {
			t.Errorf("Failed() gave %v", err)
		}
		stopAgent(t, a)
	}
}

// TestReadEnds: the reader's error and the context's end the reading, with
// what was read until then.
func TestReadEnds(t *testing.T) {
	file := testkit.WriteFile(t, conversation(20)...)
	o := ReadOptions{Settings: config.DefaultSettings(), Config: DefaultConfig()}
	r, err := Read(t.Context(), []string{file}, o)
	if err != nil || r.Counters[exchange.Requests] != 21 || r.First == 0 || r.Last <= r.First {
		t.Fatalf("Read() = %+v, %v, want 21 requests", r, err)
	}
	enough := errors.New("enough")
	n := 0
	o.Exchange = func(*exchange.Exchange) error {
		if n++; n == 3 {
			return enough
		}
		return nil
	}
	if r, err = Read(t.Context(), []string{file}, o); !errors.Is(err, enough) || n != 3 || r == nil {
		t.Errorf("Read() = %v after %d exchanges, want the reader's error after 3", err, n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if r, err = Read(ctx, []string{file}, ReadOptions{Settings: config.DefaultSettings(), Config: DefaultConfig()}); !errors.Is(err, context.Canceled) || r == nil {
		t.Errorf("Read() with an ended context = %v, %v", r, err)
	}
}
