package ingest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/stat"
	httpctlv1 "github.com/httpctl/httpctl/proto/httpctl/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type appender func([]store.Item) ([]store.Result, error)

func (f appender) Append(_ context.Context, batch []store.Item) ([]store.Result, error) {
	return f(batch)
}

func storeAll(batch []store.Item) ([]store.Result, error) {
	return make([]store.Result, len(batch)), nil
}

// serve runs a service and returns a client connection to it.
func serve(t *testing.T, cfg Config, f appender) (*Service, httpctlv1.IngestServiceClient) {
	t.Helper()
	return serveWith(t, cfg, Deps{Store: f})
}

func serveWith(t *testing.T, cfg Config, deps Deps) (*Service, httpctlv1.IngestServiceClient) {
	t.Helper()
	s, err := New(cfg, Settings{IntervalWidth: 10 * time.Second, ProvisionalEvery: time.Second}, deps)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	lis := bufconn.Listen(1 << 20)
	server := grpc.NewServer(s.ServerOptions()...)
	s.Register(server)
	var wg sync.WaitGroup
	wg.Go(func() { server.Serve(lis) })
	conn, err := grpc.NewClient("passthrough:test", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		if err := s.Stop(context.Background()); err != nil {
			t.Error(err)
		}
		server.Stop()
		wg.Wait()
		for _, a := range s.Agents() {
			if a.Connected {
				t.Errorf("agent %v is still connected after Stop", a.Host)
			}
		}
		if s.budget.used != 0 && len(s.queue) == 0 {
			t.Errorf("%d bytes are still accounted as waiting", s.budget.used)
		}
	})
	return s, httpctlv1.NewIngestServiceClient(conn)
}

type client = grpc.BidiStreamingClient[httpctlv1.DeliverRequest, httpctlv1.DeliverResponse]

var (
	hostA = bucket.ID{0xa}
	hostB = bucket.ID{0xb}
	inc1  = bucket.ID{1}
	inc2  = bucket.ID{2}
)

func greet(t *testing.T, c httpctlv1.IngestServiceClient, h *httpctlv1.Hello) client {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	stream, err := c.Deliver(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&httpctlv1.DeliverRequest{Message: &httpctlv1.DeliverRequest_Hello{Hello: h}}); err != nil {
		t.Fatal(err)
	}
	return stream
}

func hello(host, inc bucket.ID) *httpctlv1.Hello {
	return &httpctlv1.Hello{HostId: host[:], Incarnation: inc[:], HostName: "web-1.example.org", Version: "1"}
}

func connect(t *testing.T, c httpctlv1.IngestServiceClient, host, inc bucket.ID) client {
	t.Helper()
	stream := greet(t, c, hello(host, inc))
	m, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if w := m.GetWelcome(); w.GetSettings().GetIntervalWidthNs() != int64(10*time.Second) || w.GetBucketFormat() != bucket.FormatVersion {
		t.Fatalf("first message %v, want a welcome with the settings", m)
	}
	return stream
}

func sound(n int64) *bucket.Bucket {
	b := &bucket.Bucket{}
	b.Host, b.Incarnation, b.Start, b.Width, b.Final = hostA, inc1, (100+n)*int64(10*time.Second), 10*time.Second, true
	b.ClosedThrough, b.Ordinal = b.End(), uint64(n)
	return b
}

func encode(t *testing.T, b *bucket.Bucket) []byte {
	t.Helper()
	data, err := bucket.Encode(nil, b)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func send(t *testing.T, s client, sequence uint64, data []byte) {
	t.Helper()
	m := &httpctlv1.DeliverRequest{Message: &httpctlv1.DeliverRequest_Bucket{Bucket: &httpctlv1.Bucket{Sequence: sequence, Data: data}}}
	if err := s.Send(m); err != nil {
		t.Fatal(err)
	}
}

// answers reads the results of n buckets.
func answers(t *testing.T, s client, n int) map[uint64]*httpctlv1.BucketResult {
	t.Helper()
	got := map[uint64]*httpctlv1.BucketResult{}
	for len(got) < n {
		m, err := s.Recv()
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range m.GetAck().GetResults() {
			got[r.GetSequence()] = r
		}
	}
	return got
}

func TestBadHellos(t *testing.T) {
	_, c := serve(t, DefaultConfig(), storeAll)
	for name, tt := range map[string]struct {
		change func(*httpctlv1.Hello)
		want   codes.Code
	}{
		"short host id":     {func(h *httpctlv1.Hello) { h.HostId = h.HostId[:15] }, codes.InvalidArgument},
		"no incarnation":    {func(h *httpctlv1.Hello) { h.Incarnation = nil }, codes.InvalidArgument},
		"zero host id":      {func(h *httpctlv1.Hello) { h.HostId = make([]byte, 16) }, codes.InvalidArgument},
		"long name":         {func(h *httpctlv1.Hello) { h.HostName = strings.Repeat("x", 256) }, codes.InvalidArgument},
		"very long version": {func(h *httpctlv1.Hello) { h.Version = strings.Repeat("x", 100_000) }, codes.InvalidArgument},
	} {
		t.Run(name, func(t *testing.T) {
			h := hello(hostA, inc1)
			tt.change(h)
			if _, err := greet(t, c, h).Recv(); status.Code(err) != tt.want {
				t.Errorf("answer %v, want %v", err, tt.want)
			}
		})
	}
	t.Run("bucket first", func(t *testing.T) {
		stream, err := c.Deliver(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		send(t, stream, 1, encode(t, sound(0)))
		if _, err := stream.Recv(); status.Code(err) != codes.FailedPrecondition {
			t.Errorf("answer %v, want FailedPrecondition", err)
		}
	})
}

func TestBadBucketsAreRefusedAlone(t *testing.T) {
	stored := 0
	_, c := serve(t, DefaultConfig(), func(b []store.Item) ([]store.Result, error) { stored += len(b); return storeAll(b) })
	s := connect(t, c, hostA, inc1)
	change := func(f func(*bucket.Bucket)) []byte { b := sound(1); f(b); return encode(t, b) }
	flipped := encode(t, sound(0))
	flipped[len(flipped)/2] ^= 1
	bad := [][]byte{
		nil, []byte("garbage"), flipped,
		change(func(b *bucket.Bucket) { b.Host = hostB }),
		change(func(b *bucket.Bucket) { b.Start++ }),
		change(func(b *bucket.Bucket) { b.Start = -b.Start }),
		change(func(b *bucket.Bucket) { b.Width = 7 * time.Second; b.Start = 0 }),
		change(func(b *bucket.Bucket) { b.Width = 2 * time.Minute }),
	}
	for i, data := range bad {
		send(t, s, uint64(i+1), data)
	}
	send(t, s, 100, encode(t, sound(0)))
	got := answers(t, s, len(bad)+1)
	for i := range bad {
		if r := got[uint64(i+1)]; r.GetStatus() != httpctlv1.BucketStatus_BUCKET_STATUS_REFUSED || r.GetReason() == "" {
			t.Errorf("bad bucket %d: %v, want REFUSED with a reason", i, r)
		}
	}
	if got[100].GetStatus() != httpctlv1.BucketStatus_BUCKET_STATUS_STORED || stored != 1 {
		t.Errorf("the sound bucket: %v, %d stored", got[100], stored)
	}
}

func TestFates(t *testing.T) {
	srv, c := serve(t, DefaultConfig(), func(b []store.Item) ([]store.Result, error) {
		r := make([]store.Result, len(b))
		for i := range b {
			r[i] = store.Result(b[i].Header.Ordinal)
		}
		return r, nil
	})
	s := connect(t, c, hostA, inc1)
	want := []httpctlv1.BucketStatus{store.Stored: httpctlv1.BucketStatus_BUCKET_STATUS_STORED, store.Duplicate: httpctlv1.BucketStatus_BUCKET_STATUS_DUPLICATE,
		store.Expired: httpctlv1.BucketStatus_BUCKET_STATUS_EXPIRED, store.Mismatch: httpctlv1.BucketStatus_BUCKET_STATUS_REFUSED,
		store.Crowded: httpctlv1.BucketStatus_BUCKET_STATUS_REFUSED}
	var log journal
	log.listen(srv)
	for i := range want {
		send(t, s, uint64(i+1), encode(t, sound(int64(i))))
	}
	s.CloseSend() // everything is answered all the same
	got := answers(t, s, len(want))
	for i, w := range want {
		if got[uint64(i+1)].GetStatus() != w {
			t.Errorf("result %d of the store: %v, want %v", i, got[uint64(i+1)], w)
		}
	}
	if r := got[uint64(store.Crowded)+1].GetReason(); !strings.Contains(r, "256 buckets of its host and interval") {
		t.Errorf("the reason of one bucket too many is %q", r)
	}
	if n := count(t, srv.metrics.crowded); n != 1 {
		t.Errorf("%v buckets too many are counted, want 1", n)
	}
	if !strings.Contains(log.String(), "msg=\"a bucket is refused") || !strings.Contains(log.String(), hostA.String()) {
		t.Errorf("of what the store refuses the log says %q", log.String())
	}
}

func TestNewerStreamReplacesOlder(t *testing.T) {
	s, c := serve(t, DefaultConfig(), storeAll)
	old := connect(t, c, hostA, inc1)
	newer := connect(t, c, hostA, inc2)
	if _, err := old.Recv(); status.Code(err) != codes.Aborted {
		t.Errorf("the older stream ends with %v, want Aborted", err)
	}
	send(t, newer, 1, encode(t, sound(0)))
	answers(t, newer, 1)
	if a := s.Agents(); len(a) != 1 || !a[0].Connected || a[0].Incarnation != inc2 {
		t.Errorf("Agents() = %+v, want one, connected, of the newer incarnation", a)
	}
}

func TestMaxAgents(t *testing.T) {
	cfg := DefaultConfig()
	cfg.MaxAgents = 1
	s, c := serve(t, cfg, storeAll)
	first := connect(t, c, hostA, inc1)
	if _, err := greet(t, c, hello(hostB, inc1)).Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("an agent too many: %v, want Unavailable", err)
	}
	first.CloseSend()
	for _, err := first.Recv(); err == nil; _, err = first.Recv() {
	}
	for end := time.Now().Add(3 * time.Minute); s.Agents()[0].Connected && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	connect(t, c, hostB, inc1) // takes the place of the one that left
	if a := s.Agents(); len(a) != 1 || a[0].Host != hostB {
		t.Errorf("Agents() = %+v, want the second only", a)
	}
	cfg.MaxAgents = 2
	if err := s.SetLimits(cfg); err != nil {
		t.Fatal(err)
	}
	connect(t, c, hostA, inc1)
	if a := s.Agents(); len(a) != 2 {
		t.Errorf("with room for another, Agents() = %+v, want both", a)
	}
	if cfg.MaxPending = 1; s.SetLimits(cfg) == nil {
		t.Error("SetLimits takes a max_pending below max_message_size")
	}
}

// TestSlowStoreHoldsAgentsBack: buckets beyond max_pending are not read.
func TestSlowStoreHoldsAgentsBack(t *testing.T) {
	release := make(chan struct{})
	s, c := serve(t, DefaultConfig(), func(b []store.Item) ([]store.Result, error) { <-release; return storeAll(b) })
	st := connect(t, c, hostA, inc1)
	const n = 2 * unackedPerStream
	go func() {
		for i := range n {
			if st.Send(&httpctlv1.DeliverRequest{Message: &httpctlv1.DeliverRequest_Bucket{Bucket: &httpctlv1.Bucket{Sequence: uint64(i + 1), Data: mustEncode(sound(int64(i)))}}}) != nil {
				return
			}
		}
	}()
	waiting := func() int64 { s.budget.mu.Lock(); defer s.budget.mu.Unlock(); return s.budget.used }
	one := int64(len(encode(t, sound(0))))
	for end := time.Now().Add(3 * time.Minute); waiting() < one*(unackedPerStream-1) && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(20 * time.Millisecond)
	if got, limit := waiting(), (one+4+outlineOf(t, sound(0)).Bytes())*unackedPerStream; got > limit {
		t.Errorf("%d bytes were taken in, want at most %d", got, limit)
	}
	close(release)
	if got := answers(t, st, n); len(got) != n {
		t.Errorf("%d answers, want %d", len(got), n)
	}
}

func outlineOf(t *testing.T, b *bucket.Bucket) *store.Outline {
	t.Helper()
	data := encode(t, b)
	full, err := bucket.Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	return store.WholeOutlineOf(full, data)
}

// TestOutlinesAreHandedOn: the store gets the outline of each bucket, which is read once for all.
func TestOutlinesAreHandedOn(t *testing.T) {
	items := make(chan store.Item, 4)
	_, c := serve(t, DefaultConfig(), func(b []store.Item) ([]store.Result, error) {
		for _, it := range b {
			items <- it
		}
		return storeAll(b)
	})
	st := connect(t, c, hostA, inc1)
	idle, busy := sound(0), sound(1)
	schema := ownTables()["totals"]
	busy.Tables = []*bucket.Table{bucket.NewTable(schema, 10)}
	for i, status := range []string{"200", "404"} {
		values := make([]int64, len(schema.Measures))
		values[schema.Measure(stat.TotalRequests)] = int64(i + 1)
		busy.Tables[0].Add([]string{"0", "server", "GET", status}, values)
	}
	for i, b := range []*bucket.Bucket{idle, busy} {
		if err := st.Send(&httpctlv1.DeliverRequest{Message: &httpctlv1.DeliverRequest_Bucket{Bucket: &httpctlv1.Bucket{Sequence: uint64(i + 1), Data: encode(t, b)}}}); err != nil {
			t.Fatal(err)
		}
	}
	answers(t, st, 2)
	if it := <-items; it.Outline == nil || it.Outline.Table() != nil || !it.Outline.Of(it.Data) {
		t.Errorf("the outline of an idle bucket is %+v, want one without a table", it.Outline)
	}
	it := <-items
	if it.Outline == nil || !it.Outline.Of(it.Data) || len(it.Outline.Table().Rows) != 1 || it.Outline.Table().Rows[0].Values[schema.Measure(stat.TotalRequests)] != 3 {
		t.Errorf("the outline of a bucket with 3 requests is %+v", it.Outline)
	}
}

func mustEncode(b *bucket.Bucket) []byte {
	data, err := bucket.Encode(nil, b)
	if err != nil {
		panic(err)
	}
	return data
}

// TestMaxPending: while the store is busy, no more than max_pending is read from the agents.
func TestMaxPending(t *testing.T) {
	cfg := DefaultConfig()
	cfg.MaxMessageSize, cfg.MaxPending = 64*config.KiB, 64*config.KiB
	release := make(chan struct{})
	s, c := serve(t, cfg, func(b []store.Item) ([]store.Result, error) { <-release; return storeAll(b) })
	st := connect(t, c, hostA, inc1)
	const n = 40
	go func() {
		for i := range n {
			b := sound(int64(i))
			table := bucket.NewTable(bucket.Schema{Name: "noise", Version: 1, Keys: []string{"key"}, Measures: []bucket.Measure{{Name: "hits"}}}, 1000)
			for k := range 500 {
				table.Add([]string{fmt.Sprintf("%x", sha256.Sum256(fmt.Append(nil, i, k)))}, []int64{1})
			}
			b.Tables = []*bucket.Table{table}
			if st.Send(&httpctlv1.DeliverRequest{Message: &httpctlv1.DeliverRequest_Bucket{Bucket: &httpctlv1.Bucket{Sequence: uint64(i + 1), Data: mustEncode(b)}}}) != nil {
				return
			}
		}
	}()
	used := func() int64 { s.budget.mu.Lock(); defer s.budget.mu.Unlock(); return s.budget.used }
	for end := time.Now().Add(3 * time.Minute); used() < 32<<10 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(50 * time.Millisecond)
	if got := used(); got < 32<<10 || got > 64<<10 {
		t.Errorf("%d bytes wait, want nearly and at most 64 KiB", got)
	}
	close(release)
	if got := answers(t, st, n); len(got) != n {
		t.Errorf("%d answers, want %d", len(got), n)
	}
}

func TestStoreFailureAsksForRetry(t *testing.T) {
	calls := 0
	_, c := serve(t, DefaultConfig(), func(b []store.Item) ([]store.Result, error) {
		if calls++; calls == 1 {
			return nil, errors.New("no space left on device")
		}
		return storeAll(b)
	})
	s := connect(t, c, hostA, inc1)
	for sequence, want := range []httpctlv1.BucketStatus{httpctlv1.BucketStatus_BUCKET_STATUS_RETRY, httpctlv1.BucketStatus_BUCKET_STATUS_STORED} {
		send(t, s, uint64(sequence), encode(t, sound(0)))
		if got := answers(t, s, 1)[uint64(sequence)].GetStatus(); got != want {
			t.Errorf("try %d: %v, want %v", sequence, got, want)
		}
	}
}

// part is what these tests take from a bucket.
type part string

func (p part) Size() int { return len(p) }

// TestStoredOnce: OnStored gets what was taken from each bucket that is new, once, also when it is not known for a while
// whether a transaction that failed has stored it.
func TestStoredOnce(t *testing.T) {
	var got []string
	disk := map[bucket.Name]bool{}
	fail := false
	service, c := serveWith(t, DefaultConfig(), Deps{
		Store: appender(func(batch []store.Item) ([]store.Result, error) {
			results := make([]store.Result, len(batch))
			for i, it := range batch {
				if disk[it.Header.Name] {
					results[i] = store.Duplicate
				}
				disk[it.Header.Name] = true
			}
			if fail {
				return results, errors.New("input/output error") // of the commit: all has reached the disk
			}
			return results, nil
		}),
		Extract: func(b *bucket.Bucket) Extract { return part(fmt.Sprint("bucket ", b.Ordinal)) },
		OnStored: func(fresh []Stored) {
			for _, s := range fresh {
				got = append(got, fmt.Sprintf("%s of %s", s.Extract, s.Header.Host.String()[:2]))
			}
		},
	})
	s := connect(t, c, hostA, inc1)
	sequence := uint64(0)
	deliver := func(n int64, failing bool, want httpctlv1.BucketStatus) {
		t.Helper()
		fail = failing
		sequence++
		send(t, s, sequence, encode(t, sound(n)))
		if got := answers(t, s, 1)[sequence].GetStatus(); got != want {
			t.Fatalf("bucket %d: %v, want %v", n, got, want)
		}
	}
	const stored, duplicate, retry = httpctlv1.BucketStatus_BUCKET_STATUS_STORED, httpctlv1.BucketStatus_BUCKET_STATUS_DUPLICATE, httpctlv1.BucketStatus_BUCKET_STATUS_RETRY
	deliver(0, false, stored)
	deliver(0, false, duplicate)
	deliver(0, true, retry) // was on disk before
	deliver(0, false, duplicate)
	deliver(1, true, retry) // is on disk, and nobody was told
	deliver(1, false, duplicate)
	deliver(1, false, duplicate)
	deliver(2, false, stored)
	if err := service.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	if want := []string{"bucket 0 of 0a", "bucket 1 of 0a", "bucket 2 of 0a"}; !slices.Equal(got, want) {
		t.Errorf("OnStored got %q, want %q", got, want)
	}
}

func TestWatchExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := New(DefaultConfig(), Settings{IntervalWidth: 10 * time.Second, ProvisionalEvery: time.Second}, Deps{Store: appender(storeAll)})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		defer s.Stop(context.Background())
		told := func() (bool, uint32) {
			synctest.Wait()
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.current.GetWatched(), s.current.GetProvisionalRows()
		}
		s.Watch(5*time.Second, 10)
		s.Watch(2*time.Second, 20)
		if w, rows := told(); !w || rows != 20 {
			t.Errorf("watched %v with %d rows, want true, 20", w, rows)
		}
		time.Sleep(4 * time.Second)
		if w, _ := told(); !w {
			t.Error("the longer watch was cut short")
		}
		time.Sleep(2 * time.Second)
		if w, _ := told(); w {
			t.Error("watched for ever")
		}
	})
}

func TestConfigValidate(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
	err := Config{MaxMessageSize: config.KiB}.Validate()
	for _, want := range []string{"max_message_size", "max_pending", "max_agents"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Validate() = %v, want %s named", err, want)
		}
	}
}

func TestBudgetIsFairAndBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(10, prometheus.NewGauge(prometheus.GaugeOpts{Name: "x"}))
		ctx, cancel := context.WithCancel(context.Background())
		if err := b.acquire(ctx, 6); err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var order []int64
		for _, n := range []int64{8, 1} {
			go func() {
				if b.acquire(ctx, n) == nil {
					mu.Lock()
					order = append(order, n)
					mu.Unlock()
				}
			}()
			synctest.Wait()
		}
		if len(order) != 0 {
			t.Errorf("%v were let in: one passed another, or the bound", order)
		}
		b.release(6)
		synctest.Wait()
		if len(order) != 2 || order[0] != 8 {
			t.Errorf("order %v, want 8 then 1", order)
		}
		b.setLimit(13)
		if err := b.acquire(ctx, 4); err != nil {
			t.Errorf("acquire within a bound that was raised = %v", err)
		}
		go func() {
			if b.acquire(ctx, 5) == nil {
				t.Error("acquire went beyond the bound")
			}
		}()
		synctest.Wait()
		cancel()
	})
}

// TestObservedFrom: since when an agent watches is the earliest time that its buckets tell, those of a spool included, over connections of one incarnation.
func TestObservedFrom(t *testing.T) {
	service, c := serve(t, DefaultConfig(), storeAll)
	number := int64(0)
	deliver := func(s client, observed ...int64) {
		t.Helper()
		for _, at := range observed {
			b := sound(number)
			b.ObservedFrom = at
			number++
			send(t, s, uint64(number), encode(t, b))
			answers(t, s, 1)
		}
	}
	check := func(what string, want int64) {
		t.Helper()
		if got := service.Agents()[0].ObservedFrom; got != want {
			t.Errorf("%s: observed from %d, want %d", what, got, want)
		}
	}
	s := connect(t, c, hostA, inc1)
	check("before a bucket", 0)
	deliver(s, 300, 200, 400)
	check("of three incarnations", 200)
	connect(t, c, hostA, inc1)
	check("connected again", 200)
	s = connect(t, c, hostA, inc2)
	check("started anew", 0)
	deliver(s, 500)
	check("started anew, with a bucket", 500)
}
