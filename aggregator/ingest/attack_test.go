package ingest

import (
	"bytes"
	"compress/flate"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"log/slog"
	"maps"
	"math"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/klauspost/compress/zstd"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/config"
	httpctlv1 "github.com/httpctl/httpctl/proto/httpctl/v1"
)

// journal is a log that tests read.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

func (j *journal) listen(s *Service) { s.log = slog.New(slog.NewTextHandler(j, nil)) }

// count is the value of a counter.
func count(t *testing.T, c prometheus.Counter) float64 {
	t.Helper()
	r := prometheus.NewRegistry()
	r.MustRegister(c)
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	return families[0].GetMetric()[0].GetCounter().GetValue()
}

// sealed gives bytes the checksum of a bucket, so that what is wrong with them is met behind it.
func sealed(data []byte) []byte {
	return binary.LittleEndian.AppendUint32(data, crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)))
}

// bomb is a bucket whose body of zeros is as large as the format allows, and packed 1000 to 1, or with zstd 20,000 to 1.
func bomb(t *testing.T, version byte, claimed int) []byte {
	t.Helper()
	plain := encode(t, sound(1))
	data := binary.AppendUvarint(plain[:len(plain)-4:len(plain)-4], uint64(claimed))
	if data[4] = version; version > 1 {
		w, err := zstd.NewWriter(nil)
		if err != nil {
			t.Fatal(err)
		}
		return sealed(w.EncodeAll(make([]byte, 32<<20), data))
	}
	var packed bytes.Buffer
	w, err := flate.NewWriter(&packed, flate.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(make([]byte, 32<<20)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return sealed(append(data, packed.Bytes()...))
}

// TestHostileBuckets sends, on one stream, everything that is wrong with a bucket, over and over,
// while another agent delivers. Each is refused with its reason and counted, the log tells once, and
// the other agent is answered for everything.
func TestHostileBuckets(t *testing.T) {
	var mu sync.Mutex
	stored := map[bucket.Name]int{}
	s, c := serve(t, DefaultConfig(), func(items []store.Item) ([]store.Result, error) {
		mu.Lock()
		defer mu.Unlock()
		for _, it := range items {
			stored[it.Header.Name]++
		}
		return storeAll(items)
	})
	var log journal
	log.listen(s)

	change := func(f func(*bucket.Bucket)) []byte { b := sound(1); f(b); return encode(t, b) }
	good := encode(t, sound(0))
	flipped := bytes.Clone(good)
	flipped[len(flipped)/2] ^= 1
	version := bytes.Clone(good[:len(good)-4])
	version[4] = bucket.FormatVersion + 1
	const tenSeconds = int64(10 * time.Second)
	table := func(f func(*bucket.Schema)) []byte {
		schema := ownTables()["section"]
		f(&schema)
		return change(func(b *bucket.Bucket) { b.Tables = []*bucket.Table{bucket.NewTable(schema, 10)} })
	}
	hostile := []struct {
		name string
		data []byte
		want string
	}{
		{"nothing", nil, "no bucket begins like this"},
		{"garbage", bytes.Repeat([]byte("GET / HTTP/1.1\r\n"), 100), "no bucket begins like this"},
		{"cut", good[:len(good)/2], "checksum"},
		{"a table of a newer version", table(func(s *bucket.Schema) { s.Version++ }), "upgrade the aggregator first"},
		{"a table of a version that never was", table(func(s *bucket.Schema) { s.Version, s.Keys, s.Views = 0, nil, nil }), "which there never was"},
		{"a table with other columns", table(func(s *bucket.Schema) { s.Keys = append([]string{"more"}, s.Keys...) }), "has other columns"},
		{"a table with another measure", table(func(s *bucket.Schema) {
			s.Measures = slices.Clone(s.Measures)
			s.Measures[1].Kind = bucket.Max - s.Measures[1].Kind
		}), "has other columns"},
		{"corrupted", flipped, "checksum"},
		{"newer format", sealed(version), "newer than this program"},
		{"decompression bomb", bomb(t, 1, 32<<20), "corrupt"},
		{"bomb beyond the format", bomb(t, 1, 1<<40), "size of the body"},
		{"decompression bomb, zstd", bomb(t, 2, 32<<20), "corrupt"},
		{"bomb beyond the format, zstd", bomb(t, 2, 1<<40), "size of the body"},
		{"another host", change(func(b *bucket.Bucket) { b.Host = hostB }), "the stream of"},
		{"no incarnation", change(func(b *bucket.Bucket) { b.Incarnation = bucket.ID{} }), "incarnation is zero"},
		{"unaligned", change(func(b *bucket.Bucket) { b.Start++ }), "no multiple of its width"},
		{"before time", change(func(b *bucket.Bucket) { b.Start = -b.Start }), "no multiple of its width"},
		{"no width", change(func(b *bucket.Bucket) { b.Width = 0 }), "does not divide one minute"},
		{"narrow", change(func(b *bucket.Bucket) { b.Width = time.Millisecond }), "does not divide one minute"},
		{"wide", change(func(b *bucket.Bucket) { b.Width = time.Hour; b.Start = int64(time.Hour) }), "does not divide one minute"},
		{"end of time", change(func(b *bucket.Bucket) { b.Start = math.MaxInt64 / tenSeconds * tenSeconds }), "a time after 2200"},
		{"closed to the end of time", change(func(b *bucket.Bucket) { b.ClosedThrough = math.MaxInt64 }), "a time after 2200"},
		{"unobserved for ever", change(func(b *bucket.Bucket) { b.Unobserved = []bucket.Span{{From: b.Start, To: math.MaxInt64}} }), "never ends"},
		{"empty span", change(func(b *bucket.Bucket) { b.Unobserved = []bucket.Span{{From: b.Start, To: b.Start}} }), "empty span"},
		{"long host name", change(func(b *bucket.Bucket) { b.HostName = strings.Repeat("x", 256) }), "host name"},
		{"host name of no characters", change(func(b *bucket.Bucket) { b.HostName = "a\xffb" }), "host name"},
		{"long host name, not final", change(func(b *bucket.Bucket) { b.Final, b.HostName = false, strings.Repeat("x", 256) }), "host name"},
	}

	const rounds, honest = 5, 100
	evil, other := connect(t, c, hostA, inc1), connect(t, c, hostB, inc2)
	var served sync.WaitGroup
	served.Go(func() {
		for i := range honest {
			b := sound(int64(i))
			b.Host, b.Incarnation = hostB, inc2
			if other.Send(&httpctlv1.DeliverRequest{Message: &httpctlv1.DeliverRequest_Bucket{Bucket: &httpctlv1.Bucket{Sequence: uint64(i + 1), Data: mustEncode(b)}}}) != nil {
				return // told by the answers that do not come
			}
		}
	})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for round := range rounds {
		for i, h := range hostile {
			send(t, evil, uint64(round*len(hostile)+i+1), h.data)
		}
	}
	got := answers(t, evil, rounds*len(hostile))
	runtime.ReadMemStats(&after)
	for i, h := range hostile {
		for round := range rounds {
			r := got[uint64(round*len(hostile)+i+1)]
			if r.GetStatus() != httpctlv1.BucketStatus_BUCKET_STATUS_REFUSED || !strings.Contains(r.GetReason(), h.want) {
				t.Errorf("%s: %v, want REFUSED because of %q", h.name, r, h.want)
			}
		}
	}
	for seq, r := range answers(t, other, honest) {
		if r.GetStatus() != httpctlv1.BucketStatus_BUCKET_STATUS_STORED {
			t.Errorf("bucket %d of the other agent: %v", seq, r)
		}
	}
	served.Wait()
	mu.Lock()
	defer mu.Unlock()
	if len(stored) != honest {
		t.Errorf("%d buckets are stored, want the %d of the honest agent", len(stored), honest)
	}
	if n := count(t, s.metrics.buckets.WithLabelValues("refused")); n != float64(rounds*len(hostile)) {
		t.Errorf("%v buckets are counted as refused, want %d", n, rounds*len(hostile))
	}
	if n := strings.Count(log.String(), "a bucket is refused"); n != 1 {
		t.Errorf("refusals are logged %d times, want once:\n%s", n, log.String())
	}
	if !strings.Contains(log.String(), hostA.String()) {
		t.Errorf("the log does not name the host:\n%s", log.String())
	}
	// A bomb takes 32 MiB, once at a time and processor, and none of it stays.
	t.Logf("heap taken from the system: %d MiB more for %d bombs", int64(after.HeapSys-before.HeapSys)>>20, rounds)
	if more := int64(after.HeapSys-before.HeapSys) >> 20; more > 256 {
		t.Errorf("%d MiB more for the bombs", more)
	}
}

// TestFarBuckets: what is merely old or early is stored; what is more than five minutes ahead, marked; and what is more
// than a day ahead is not, as no purge would reach it.
func TestFarBuckets(t *testing.T) {
	marks := map[int64]bool{}
	service, c := serve(t, DefaultConfig(), func(batch []store.Item) ([]store.Result, error) {
		for _, it := range batch {
			marks[it.Header.Start] = it.Skewed // one stream, and it waits for each answer
		}
		return storeAll(batch)
	})
	h := hello(hostA, inc1)
	h.Backlog = 5
	s := greet(t, c, h)
	if _, err := s.Recv(); err != nil { // the welcome
		t.Fatal(err)
	}
	now := time.Now().Truncate(10 * time.Second)
	near, skewed := now.Add(4*time.Minute), now.Add(24*time.Hour-time.Minute)
	defer func() {
		want := map[int64]bool{10e9: false, near.UnixNano(): false, skewed.UnixNano(): true}
		if !maps.Equal(marks, want) || count(t, service.metrics.skewed) != 1 {
			t.Errorf("marked as skewed: %v, %v counted, want %v", marks, count(t, service.metrics.skewed), want)
		}
	}()
	for i, start := range []time.Time{time.Unix(10, 0), near, skewed, now.Add(24*time.Hour + 10*time.Minute), time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)} {
		b := sound(0)
		b.Start = start.UnixNano()
		b.ClosedThrough = b.End()
		send(t, s, uint64(i+1), encode(t, b))
		want, reason := httpctlv1.BucketStatus_BUCKET_STATUS_STORED, ""
		if i > 2 {
			want, reason = httpctlv1.BucketStatus_BUCKET_STATUS_FUTURE, "it is dated "+start.UTC().Format(time.RFC3339)+", more than 24h0m0s after now"
		}
		if r := answers(t, s, 1)[uint64(i+1)]; r.GetStatus() != want || !strings.HasPrefix(r.GetReason(), reason) {
			t.Errorf("bucket of %s: %v, want %s, %q", start, r, want, reason)
		}
	}
	if n := count(t, service.metrics.buckets.WithLabelValues("future")); n != 2 {
		t.Errorf("%v buckets are counted as of the future, want 2", n)
	}
	if n := service.Agents()[0].Backlog; n != 2 {
		t.Errorf("%d of 5 buckets are left in the spool, want the 2 of the future", n)
	}
}

// TestTooNew: a bucket with a newer version of a statistic of the aggregator's own stays with its agent for a day, and is refused then.
func TestTooNew(t *testing.T) {
	service, c := serve(t, DefaultConfig(), storeAll)
	h := hello(hostA, inc1)
	h.Backlog = 4
	s := greet(t, c, h)
	if _, err := s.Recv(); err != nil { // the welcome
		t.Fatal(err)
	}
	newer, other := ownTables()["section"], ownTables()["section"]
	newer.Version++
	other.Keys = append([]string{"more"}, other.Keys...)
	const tooNew, refused = httpctlv1.BucketStatus_BUCKET_STATUS_TOO_NEW, httpctlv1.BucketStatus_BUCKET_STATUS_REFUSED
	for i, x := range []struct {
		schema bucket.Schema
		age    time.Duration
		want   httpctlv1.BucketStatus
	}{{newer, time.Minute, tooNew}, {newer, 24*time.Hour - time.Minute, tooNew}, {newer, 24*time.Hour + time.Minute, refused}, {other, time.Minute, refused},
		{newer, -25 * time.Hour, httpctlv1.BucketStatus_BUCKET_STATUS_FUTURE}} {
		b := sound(0)
		b.Start = time.Now().Add(-x.age).Truncate(10 * time.Second).UnixNano()
		b.ClosedThrough = b.End()
		b.Tables = []*bucket.Table{bucket.NewTable(x.schema, 10)}
		send(t, s, uint64(i+1), encode(t, b))
		r := answers(t, s, 1)[uint64(i+1)]
		if r.GetStatus() != x.want || x.want == tooNew && !strings.Contains(r.GetReason(), "upgrade the aggregator first") {
			t.Errorf("version %d of %s ago: %v, want %s", x.schema.Version, x.age, r, x.want)
		}
	}
	if n := count(t, service.metrics.buckets.WithLabelValues("too_new")); n != 2 {
		t.Errorf("%v buckets are counted as too new, want 2", n)
	}
	if n := service.Agents()[0].Backlog; n != 4 {
		t.Errorf("%d of 4 buckets are left in the spool, want all", n)
	}
}

// TestTooLarge: a message beyond the bound ends its stream only, under the code and text by which agents know it.
func TestTooLarge(t *testing.T) {
	cfg := DefaultConfig()
	cfg.MaxMessageSize = 64 * config.KiB
	s, c := serve(t, cfg, storeAll)
	var log journal
	log.listen(s)
	other := connect(t, c, hostB, inc2)
	for range 3 {
		evil := connect(t, c, hostA, inc1)
		send(t, evil, 1, make([]byte, 65<<10))
		if _, err := evil.Recv(); status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "larger than max") {
			t.Errorf("the stream ends with %v, want ResourceExhausted, larger than max", err)
		}
	}
	b := sound(0)
	b.Host = hostB
	send(t, other, 1, encode(t, b))
	if r := answers(t, other, 1)[1]; r.GetStatus() != httpctlv1.BucketStatus_BUCKET_STATUS_STORED {
		t.Errorf("the other agent's bucket: %v", r)
	}
	// gRPC itself tells the agent, perhaps before the service has counted and logged it.
	told := func() bool {
		return count(t, s.metrics.rejected.WithLabelValues("too_large")) >= 3 && strings.Contains(log.String(), "larger than max")
	}
	for end := time.Now().Add(3 * time.Minute); !told() && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if n := count(t, s.metrics.rejected.WithLabelValues("too_large")); n != 3 || strings.Count(log.String(), "larger than max") != 1 {
		t.Errorf("%v streams are counted, want 3, and one logged:\n%s", n, log.String())
	}
}

// TestSkewAndHostileNames: any version may say hello, and what agents call themselves is cleaned in the log.
func TestSkewAndHostileNames(t *testing.T) {
	s, c := serve(t, DefaultConfig(), storeAll)
	var log journal
	log.listen(s)
	h := hello(hostA, inc1)
	h.Version, h.HostName = "v99.0.0-rc1+\u202e", "web\x1b]0;owned\a\u202e"
	evil := greet(t, c, h)
	if m, err := evil.Recv(); err != nil || m.GetWelcome() == nil {
		t.Fatalf("the answer to another version is %v, %v, want a welcome", m, err)
	}
	send(t, evil, 1, []byte("garbage"))
	answers(t, evil, 1)
	for _, incarnation := range []bucket.ID{inc2, inc1} { // a second of that id, and the first comes back: logged
		h.Incarnation = incarnation[:]
		if m, err := greet(t, c, h).Recv(); err != nil || m.GetWelcome() == nil {
			t.Fatalf("the answer is %v, %v, want a welcome", m, err)
		}
	}
	const clean = `web\x1b]0;owned\x07\u202e`
	if text := log.String(); !strings.Contains(text, "name="+clean+" ") || strings.Count(strings.ReplaceAll(text, `\\`, `\`), clean+" at bufconn") != 2 {
		t.Errorf("the log does not name the agents, or not cleaned: %q", text)
	}
	if clones := s.Clones(); len(clones) != 1 || !slices.Equal(clones[0].Agents, []string{clean + " at bufconn", clean + " at bufconn"}) {
		t.Errorf("Clones() = %q, want the two, cleaned", clones)
	}
	if a := s.Agents(); len(a) != 1 || a[0].Name != h.HostName || a[0].Version != h.Version {
		t.Errorf("Agents() = %+v, want the names as they were said", a)
	}
}

// silent is a stream of a peer that says nothing until the stream ends.
type silent struct {
	grpc.ServerStream
	ctx context.Context
}

func (s silent) Context() context.Context { return s.ctx }
func (s silent) Recv() (*httpctlv1.DeliverRequest, error) {
	<-s.ctx.Done()
	return nil, status.FromContextError(s.ctx.Err()).Err()
}
func (s silent) Send(*httpctlv1.DeliverResponse) error { return nil }
func (s silent) SetHeader(metadata.MD) error           { return nil }

// TestNoHello: streams that never say who they are end after helloWait, counted each and logged once.
func TestNoHello(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := New(DefaultConfig(), Settings{IntervalWidth: 10 * time.Second}, Deps{Store: appender(storeAll)})
		if err != nil {
			t.Fatal(err)
		}
		var log journal
		log.listen(s)
		if err := s.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		const streams = 100
		begin := time.Now()
		var wg sync.WaitGroup
		for range streams {
			wg.Go(func() {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel() // as gRPC does when a handler returns
				if err := s.Deliver(silent{ctx: ctx}); status.Code(err) != codes.DeadlineExceeded {
					t.Errorf("Deliver() = %v, want DeadlineExceeded", err)
				}
			})
		}
		wg.Wait()
		if d := time.Since(begin); d != helloWait {
			t.Errorf("the streams ended after %s, want %s", d, helloWait)
		}
		if n := count(t, s.metrics.rejected.WithLabelValues("hello")); n != streams || strings.Count(log.String(), "no hello within 10s") != 1 {
			t.Errorf("%v are counted, want %d, and one logged:\n%s", n, streams, log.String())
		}
		time.Sleep(logEvery)
		s.reject(t.Context(), "hello", codes.InvalidArgument, "again")
		if !strings.Contains(log.String(), "others_since_last_logged=99") {
			t.Errorf("the next line does not say how many were held back:\n%s", log.String())
		}
		if err := s.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

// TestNoReader: an agent that never reads its answers is not read either once they fill its window, costs
// nobody else anything, and does not hold up Stop.
func TestNoReader(t *testing.T) {
	s, c := serve(t, DefaultConfig(), storeAll)
	evil, other := connect(t, c, hostA, inc1), connect(t, c, hostB, inc2)
	stuck := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := uint64(1); ; i++ {
			err := evil.Send(&httpctlv1.DeliverRequest{Message: &httpctlv1.DeliverRequest_Bucket{Bucket: &httpctlv1.Bucket{Sequence: i, Data: []byte("garbage")}}})
			if err != nil {
				if !errors.Is(err, io.EOF) {
					t.Error(err)
				}
				return
			}
			if i == 2000 {
				close(stuck) // the answers to these are more than a window of 64 KiB
			}
		}
	})
	<-stuck
	refused := func() float64 { return count(t, s.metrics.buckets.WithLabelValues("refused")) }
	last := -1.0
	for now := refused(); now != last; now = refused() {
		last = now
		time.Sleep(100 * time.Millisecond)
	}
	for i := range int64(50) {
		b := sound(i)
		b.Host = hostB
		send(t, other, uint64(i+1), encode(t, b))
	}
	if got := answers(t, other, 50); len(got) != 50 {
		t.Errorf("%d answers, want 50", len(got))
	}
	t.Logf("%v buckets were read of an agent that reads no answers", last)
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	begin := time.Now()
	if err := s.Stop(ctx); err != nil {
		t.Errorf("Stop with an agent that does not read: %v", err)
	}
	t.Logf("Stop took %s", time.Since(begin).Round(time.Millisecond))
	for _, err := evil.Recv(); err == nil; _, err = evil.Recv() {
	}
	wg.Wait()
}

// TestBytesThatAreNoGRPC: garbage and half a greeting cost nothing but their connection.
func TestBytesThatAreNoGRPC(t *testing.T) {
	s, err := New(DefaultConfig(), Settings{IntervalWidth: 10 * time.Second}, Deps{Store: appender(storeAll)})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(s.ServerOptions()...)
	s.Register(server)
	var wg sync.WaitGroup
	wg.Go(func() { _ = server.Serve(l) })
	defer wg.Wait()
	defer server.Stop()
	for _, text := range []string{"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
		strings.Repeat("\x00", 1<<16), "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff"} {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Write([]byte(text)) // may be ended meanwhile
		if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Logf("%q: %v", text[:5], err) // reset already
		}
		_ = conn.SetReadDeadline(time.Now().Add(3 * time.Minute))
		if _, err := io.Copy(io.Discard, conn); errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
			t.Errorf("%.10q: the connection is kept", text)
		}
		conn.Close()
	}
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}
