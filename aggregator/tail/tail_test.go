package tail

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/httpctl/httpctl/pkg/bucket"
	httpctlv1 "github.com/httpctl/httpctl/proto/httpctl/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var hostA, hostB = bucket.ID{0xa}, bucket.ID{0xb}

// fleet is the agents of a test.
type fleet struct {
	mu     sync.Mutex
	agents []Agent
	of     func(bucket.ID, string) *httpctlv1.Tails
}

func (f *fleet) ask(of func(bucket.ID, string) *httpctlv1.Tails) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.of = of
	for _, a := range f.agents {
		if a.Allows {
			of(a.Host, a.Name)
		}
	}
}

// wanted is what a host is asked for now.
func (f *fleet) wanted(id bucket.ID, name string) []*httpctlv1.Tail {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.of == nil {
		return nil
	}
	return f.of(id, name).GetTails()
}

// serve runs a service and returns a client of it.
func serve(t *testing.T, d Deps, agents ...Agent) (*Service, *fleet, httpctlv1.TailServiceClient) {
	t.Helper()
	f := &fleet{agents: agents}
	d.Ask, d.Agents = f.ask, func() []Agent { return f.agents }
	s := New(d)
	lis := bufconn.Listen(1 << 16)
	server := grpc.NewServer()
	httpctlv1.RegisterTailServiceServer(server, s)
	var wg sync.WaitGroup
	wg.Go(func() { _ = server.Serve(lis) })
	conn, err := grpc.NewClient("passthrough:test", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(context.Background()); err != nil {
			t.Error(err)
		}
		server.GracefulStop()
		conn.Close()
		wg.Wait()
		if len(s.tails) > 0 {
			t.Errorf("%d tails are left", len(s.tails))
		}
		if wanted := f.wanted(hostA, "web-1"); len(wanted) > 0 {
			t.Errorf("host A is still asked for %v", wanted)
		}
	})
	return s, f, httpctlv1.NewTailServiceClient(conn)
}

var two = []Agent{{hostA, "web-1", true}, {hostB, "web-2", true}}

// tailed asks, and returns the stream after its first answer, and the tail's id.
func tailed(t *testing.T, f *fleet, c httpctlv1.TailServiceClient, q *httpctlv1.TailRequest) (grpc.ServerStreamingClient[httpctlv1.TailResponse], uint64, context.CancelFunc) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	stream, err := c.Tail(ctx, q)
	if err != nil {
		t.Fatal(err)
	}
	m, err := stream.Recv()
	if err != nil || m.GetSummary() == nil {
		t.Fatalf("Recv() = %v, %v, want a summary first", m, err)
	}
	all := f.wanted(hostA, "web-1")
	return stream, all[len(all)-1].GetId(), cancel
}

func samples(n int) (out []*httpctlv1.Sample) {
	for i := range n {
		out = append(out, &httpctlv1.Sample{Path: fmt.Sprintf("/%d", i), Host: "forged"})
	}
	return out
}

// rest reads until the stream ends.
func rest(s grpc.ServerStreamingClient[httpctlv1.TailResponse]) (shown []*httpctlv1.Sample, last *httpctlv1.TailSummary, err error) {
	for {
		m, err := s.Recv()
		if err != nil {
			return shown, last, err
		}
		shown = append(shown, m.GetSamples()...)
		if m.GetSummary() != nil {
			last = m.GetSummary()
		}
	}
}

// TestTailMerges: what two hosts send is shown as theirs, whatever they say, until as many as were asked for; the last answer adds
// up what they count.
func TestTailMerges(t *testing.T) {
	var log bytes.Buffer
	s, f, c := serve(t, Deps{Log: slog.New(slog.NewTextHandler(&log, nil)), Who: func(context.Context) string { return "alice\x1b[2J" }}, append(two, Agent{bucket.ID{0xc}, "old", false})...)
	stream, id, _ := tailed(t, f, c, &httpctlv1.TailRequest{Limit: 5, Sample: 2, PerSecond: 100_000, Filter: &httpctlv1.TailFilter{Filters: []*httpctlv1.Filter{{Column: "status", Values: []string{"5xx"}}}}})
	asked := f.wanted(hostB, "web-2")[0]
	if asked.GetSample() != 2 || asked.GetPerSecond() != maxPerSecond || asked.GetWho() != `alice\x1b[2J` || asked.GetFilter().GetFilters()[0].GetColumn() != "status" || time.Since(time.Unix(0, asked.GetSinceUnixNs())) > time.Minute {
		t.Errorf("agents are asked for %v", asked)
	}
	s.Take(hostA, 1, &httpctlv1.Samples{Tail: id, Samples: samples(2), Counts: &httpctlv1.TailCounts{Matched: 10, SampledOut: 5, OverRate: 2, Overflowed: 1, KernelDrops: 7}})
	s.Take(hostB, 2, &httpctlv1.Samples{Tail: id, Samples: samples(1), Counts: &httpctlv1.TailCounts{Matched: 1}})
	s.Take(bucket.ID{0xd}, 3, &httpctlv1.Samples{Tail: id, Samples: samples(9)}) // was not asked
	s.Take(hostA, 1, &httpctlv1.Samples{Tail: id + 1, Samples: samples(9)})      // there is no such tail
	s.Gone(hostA, 1)
	s.Take(hostA, 4, &httpctlv1.Samples{Tail: id, Samples: samples(9), Counts: &httpctlv1.TailCounts{Matched: 9}}) // it is back, and counts anew
	shown, last, err := rest(stream)
	if err.Error() != "EOF" {
		t.Errorf("the tail ends with %v", err)
	}
	var hosts []string
	for _, x := range shown {
		hosts = append(hosts, x.GetHost()+x.GetPath())
	}
	if got, want := fmt.Sprint(hosts), "[web-1/0 web-1/1 web-2/0 web-1/0 web-1/1]"; got != want {
		t.Errorf("shown %s, want %s", got, want)
	}
	counts := last.GetCounts()
	if counts.GetMatched() != 20 || counts.GetSampledOut() != 5 || counts.GetOverRate() != 2 || counts.GetOverflowed() != 1 || counts.GetKernelDrops() != 7 ||
		last.GetShown() != 5 || last.GetHostsAsked() != 2 || last.GetHostsAnswering() != 2 || last.GetMissingCount() != 2 || !strings.Contains(last.GetEnd(), "5 exchanges were shown") {
		t.Errorf("the last summary is %v", last)
	}
	for _, want := range []string{"filter=status=5xx", `who=alice\x1b[2J`, "matched=20 shown=5"} {
		if !strings.Contains(strings.ReplaceAll(log.String(), `"status=5xx"`, "status=5xx"), want) {
			t.Errorf("the log does not have %s:\n%s", want, log.String())
		}
	}
}

// TestTailIsRefused: what cannot be shown is said before anybody is asked.
func TestTailIsRefused(t *testing.T) {
	_, f, c := serve(t, Deps{}, append(two, Agent{bucket.ID{0xc}, "old\x1b[2J", false})...)
	for _, x := range []struct {
		q    *httpctlv1.TailRequest
		code codes.Code
		want string
	}{
		{&httpctlv1.TailRequest{Filter: &httpctlv1.TailFilter{Filters: []*httpctlv1.Filter{{Column: "status", Values: []string{"9"}}}}}, codes.InvalidArgument, `status "9"`},
		{&httpctlv1.TailRequest{DurationNs: int64(25 * time.Hour)}, codes.InvalidArgument, "at most 24h"},
		{&httpctlv1.TailRequest{DurationNs: -1}, codes.InvalidArgument, "at most 24h"},
		{&httpctlv1.TailRequest{Hosts: make([]string, maxHosts+1)}, codes.InvalidArgument, "257 hosts"},
		{&httpctlv1.TailRequest{Hosts: []string{"web-9"}}, codes.NotFound, `no host "web-9" is connected; there are: old\x1b[2J, web-1, web-2`},
		{&httpctlv1.TailRequest{Hosts: []string{bucket.ID{0xc}.String()}}, codes.FailedPrecondition, "agent.tail.allow: true"},
	} {
		stream, err := c.Tail(t.Context(), x.q)
		if err == nil {
			_, err = stream.Recv()
		}
		if status.Code(err) != x.code || !strings.Contains(status.Convert(err).Message(), x.want) {
			t.Errorf("Tail(%v) = %v, want %v with %q", x.q, err, x.code, x.want)
		}
	}
	if wanted := f.wanted(hostA, "web-1"); len(wanted) > 0 {
		t.Errorf("agents are asked for %v", wanted)
	}
}

// TestTailsAreBounded: so many at a time; one that has gone makes room.
func TestTailsAreBounded(t *testing.T) {
	_, f, c := serve(t, Deps{}, two...)
	var cancel context.CancelFunc
	for range maxTails {
		_, _, cancel = tailed(t, f, c, &httpctlv1.TailRequest{Hosts: []string{"web-1"}})
	}
	more := func() error {
		stream, err := c.Tail(t.Context(), &httpctlv1.TailRequest{})
		if err == nil {
			_, err = stream.Recv()
		}
		return err
	}
	if err := more(); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("one more tail: %v, want ResourceExhausted", err)
	}
	if n := len(f.wanted(hostB, "web-2")); n != 0 {
		t.Errorf("host B is asked for %d tails that are about another", n)
	}
	cancel()
	for deadline := time.Now().Add(3 * time.Minute); more() != nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a tail that has gone makes no room")
		}
	}
}

// TestTailRate: all hosts together are bounded, and what that leaves out is counted.
func TestTailRate(t *testing.T) {
	s, f, c := serve(t, Deps{}, two...)
	stream, id, _ := tailed(t, f, c, &httpctlv1.TailRequest{PerSecond: 10, DurationNs: int64(3 * time.Second)})
	for i := range 10 {
		s.Take(hostA, 1, &httpctlv1.Samples{Tail: id, Samples: samples(10), Counts: &httpctlv1.TailCounts{Matched: uint64(10 * (i + 1))}})
	}
	shown, last, err := rest(stream)
	if n := uint64(len(shown)); err.Error() != "EOF" || n < 10 || n > 20 || last.GetShown() != n || n+last.GetOverTotalRate() != 100 || !strings.Contains(last.GetEnd(), "3s") {
		t.Errorf("%d shown, the last summary is %v, the end %v; want 10 or 20 shown and the others counted", n, last, err)
	}
}

// TestSlowReader: who accepts nothing costs a bounded queue, nobody waits for it, and it is told what it missed.
func TestSlowReader(t *testing.T) {
	s, f, c := serve(t, Deps{}, two...)
	slow, idSlow, _ := tailed(t, f, c, &httpctlv1.TailRequest{})
	other, idOther, _ := tailed(t, f, c, &httpctlv1.TailRequest{Limit: 3})
	s.mu.Lock()
	one := s.tails[idSlow]
	s.mu.Unlock()
	sent := uint64(0)
	for range 20 { // 8 MB
		one.mu.Lock()
		one.inSecond = 0 // as if a second had passed
		one.mu.Unlock()
		wide := samples(100)
		for _, x := range wide {
			x.UserAgent = strings.Repeat("a", 4000)
		}
		sent += 100
		s.Take(hostA, 1, &httpctlv1.Samples{Tail: idSlow, Samples: wide, Counts: &httpctlv1.TailCounts{Matched: sent}})
	}
	s.Take(hostA, 1, &httpctlv1.Samples{Tail: idOther, Samples: samples(3)})
	if shown, _, err := rest(other); len(shown) != 3 || err.Error() != "EOF" {
		t.Errorf("another reader has %d exchanges, %v, want 3 and an end", len(shown), err)
	}
	one.mu.Lock()
	waiting := len(one.queue)
	one.mu.Unlock()
	if m := one.now(); m.GetSlowReader() == 0 || waiting > queueLength {
		t.Errorf("%d wait, and %d were left out; want at most %d, and some", waiting, m.GetSlowReader(), queueLength)
	}
	one.finish("enough")
	shown, last, err := rest(slow)
	if uint64(len(shown))+last.GetSlowReader() != sent || last.GetShown() != uint64(len(shown)) || err.Error() != "EOF" {
		t.Errorf("%d were shown and %d left out of %d, the end is %v", len(shown), last.GetSlowReader(), sent, err)
	}
}

// TestTailEnds: with its time also for a reader that accepts nothing, with the role, and with the aggregator.
func TestTailEnds(t *testing.T) {
	var may sync.Mutex
	var no error
	s, f, c := serve(t, Deps{Still: func(context.Context) error { may.Lock(); defer may.Unlock(); return no }}, two...)
	stream, id, _ := tailed(t, f, c, &httpctlv1.TailRequest{})
	s.Take(hostA, 1, &httpctlv1.Samples{Tail: id, Refused: "no user agents here"})
	may.Lock()
	no = status.Error(codes.PermissionDenied, "not any more")
	may.Unlock()
	_, last, err := rest(stream)
	if status.Code(err) != codes.PermissionDenied {
		t.Errorf("without the role the tail ends with %v", err)
	}
	if last != nil && last.GetMissingCount() != 1 {
		t.Errorf("the host that shows nothing is not told: %v", last)
	}
	may.Lock()
	no = nil
	may.Unlock()
	stream, _, _ = tailed(t, f, c, &httpctlv1.TailRequest{})
	if err := s.Stop(context.Background()); err != nil {
		t.Error(err)
	}
	if _, _, err := rest(stream); status.Code(err) != codes.Unavailable {
		t.Errorf("with the aggregator the tail ends with %v", err)
	}
	if stream, err := c.Tail(t.Context(), &httpctlv1.TailRequest{}); err == nil {
		if _, err = stream.Recv(); status.Code(err) != codes.Unavailable {
			t.Errorf("after Stop: %v, want Unavailable", err)
		}
	}
}

// TestHostileCounts: no count of a host makes those of the others wrap.
func TestHostileCounts(t *testing.T) {
	one := &tail{from: map[bucket.ID]*host{}, results: New(Deps{}).results, wake: make(chan struct{}, 1)}
	one.ask(hostA, "a")
	one.ask(hostB, "b")
	one.take(hostA, 1, &httpctlv1.Samples{Counts: &httpctlv1.TailCounts{Matched: 1<<64 - 1}})
	one.take(hostB, 1, &httpctlv1.Samples{Counts: &httpctlv1.TailCounts{Matched: 5}})
	if got := one.now().GetCounts().GetMatched(); got != most+5 {
		t.Errorf("%d matched, want %d", got, uint64(most+5))
	}
	for i := range 100 {
		one.gone(hostA, uint64(i))
		one.take(hostA, uint64(i+1), &httpctlv1.Samples{Counts: &httpctlv1.TailCounts{}})
	}
	if m := one.now(); len(m.GetMissing()) > maxMissing {
		t.Errorf("%d hosts are named as missing", len(m.GetMissing()))
	}
}

// TestMissingCountsHosts: a host that comes and goes is one that is missing, among those too that are not named.
func TestMissingCountsHosts(t *testing.T) {
	one := &tail{from: map[bucket.ID]*host{}, results: New(Deps{}).results, wake: make(chan struct{}, 1)}
	const hosts = maxMissing + 5
	for stream := uint64(1); stream < 4; stream++ {
		for i := range hosts {
			id := bucket.ID{byte(i + 1)}
			one.ask(id, fmt.Sprintf("web-%d", i))
			one.take(id, stream, &httpctlv1.Samples{Counts: &httpctlv1.TailCounts{}})
			one.gone(id, stream)
		}
	}
	if m := one.now(); m.GetMissingCount() != hosts || len(m.GetMissing()) != maxMissing {
		t.Errorf("%d hosts are missing, %d of them named, want %d and %d", m.GetMissingCount(), len(m.GetMissing()), hosts, maxMissing)
	}
}
