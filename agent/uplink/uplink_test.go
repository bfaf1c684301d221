package uplink

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/httpctl/httpctl/pkg/bucket"
	httpctlv1 "github.com/httpctl/httpctl/proto/httpctl/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// queue is a Queue in memory; settled buckets keep their place as nil.
type queue struct {
	mu                       sync.Mutex
	data                     [][]byte
	stored, expired, refused []uint64
}

func (q *queue) Next(after uint64) (uint64, []byte, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i := after; i < uint64(len(q.data)); i++ {
		if q.data[i] != nil {
			return i + 1, q.data[i], nil
		}
	}
	return 0, nil, nil
}

func (q *queue) Newest() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return uint64(len(q.data))
}

func (q *queue) Replace(seq uint64, data []byte) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.data[seq-1] = data
	return nil
}

func (q *queue) Settle(stored, expired, refused []uint64) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.stored, q.expired, q.refused = append(q.stored, stored...), append(q.expired, expired...), append(q.refused, refused...)
	for _, list := range [][]uint64{stored, expired, refused} {
		for _, seq := range list {
			q.data[seq-1] = nil
		}
	}
	return nil
}

func (q *queue) Ready() <-chan struct{} { return nil }

func (q *queue) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.data) - len(q.stored) - len(q.expired) - len(q.refused)
}

func deps(q *queue) Deps {
	return Deps{Queue: q, Identity: func() Identity { return Identity{Host: bucket.ID{1}, Incarnation: bucket.ID{2}} }}
}

// TestHourOfAbsence: the aggregator is away for an hour, which is logged once and tried about twice a minute.
func TestHourOfAbsence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		tries := 0
		d := deps(&queue{})
		d.Log = slog.New(slog.NewTextHandler(&log, nil))
		d.Dial = func(context.Context) (net.Conn, error) { tries++; return nil, errors.New("connection refused") }
		u, err := New(DefaultConfig(), d)
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if err := u.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if err := u.Stop(context.Background()); err != nil {
			t.Fatal(err)
		}
		if tries < 120 || tries > 480 { // pauses of 0 to 30 s, so about 240
			t.Errorf("%d tries in an hour, want about 240", tries)
		}
		if n := strings.Count(log.String(), "the aggregator is away"); n != 1 || !strings.Contains(log.String(), "connection refused") {
			t.Errorf("the absence is logged %d times, want once with its reason:\n%s", n, log.String())
		}
		if st := u.Status(); st.Connected || st.Err == nil || st.Since.Sub(start) > time.Minute {
			t.Errorf("Status() = %+v, want away since the start", st)
		}
	})
}

// TestEachLongAbsenceIsTold: one that begins right after another is logged once it has lasted, with its begin; a short one is not.
func TestEachLongAbsenceIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		d := deps(&queue{})
		d.Log = slog.New(slog.NewTextHandler(&log, nil))
		u, err := New(DefaultConfig(), d)
		if err != nil {
			t.Fatal(err)
		}
		count := func(text string) int { return strings.Count(log.String(), text) }
		u.back("v1")
		u.away(errors.New("first"))
		time.Sleep(10 * time.Second)
		u.away(errors.New("first"))
		u.back("v1")
		if count("is away") != 1 || count("aggregator is back") != 1 {
			t.Fatalf("one absence:\n%s", &log)
		}
		time.Sleep(10 * time.Second)
		u.away(errors.New("short"))
		time.Sleep(time.Second)
		u.back("v1")
		if count("is away") != 1 || count("aggregator is back") != 1 {
			t.Errorf("a short absence right after another is told:\n%s", &log)
		}
		began := time.Now()
		for range 10 {
			u.away(errors.New("long"))
			time.Sleep(20 * time.Second)
		}
		if count("is away") != 2 || count(`err=long`) != 1 || count("since="+began.Format("2006-01-02T15:04:05")) != 1 {
			t.Errorf("a long absence right after another is not told once, with its begin:\n%s", &log)
		}
		u.back("v1")
		if count("aggregator is back") != 2 || count("away=3m20s") != 1 {
			t.Errorf("its end is not told:\n%s", &log)
		}
	})
}

func TestPauseIsBoundedAndJittered(t *testing.T) {
	u, err := New(DefaultConfig(), deps(&queue{}))
	if err != nil {
		t.Fatal(err)
	}
	for tries, bound := range map[int]time.Duration{0: 500 * time.Millisecond, 1: time.Second, 5: 16 * time.Second, 6: 30 * time.Second, 1000: 30 * time.Second} {
		var low, high bool
		for range 1000 {
			p := u.pause(tries)
			if p < 0 || p > bound {
				t.Fatalf("pause(%d) = %s, want 0 to %s", tries, p, bound)
			}
			low, high = low || p < bound/4, high || p > 3*bound/4
		}
		if !low || !high {
			t.Errorf("pause(%d) is not spread over 0 to %s", tries, bound)
		}
	}
}

func TestBackoffMax(t *testing.T) {
	cfg := DefaultConfig()
	cfg.BackoffMax = time.Second
	u, err := New(cfg, deps(&queue{}))
	if err != nil {
		t.Fatal(err)
	}
	longest := time.Duration(0)
	for range 1000 {
		longest = max(longest, u.pause(10))
	}
	if longest > time.Second || longest < 3*time.Second/4 {
		t.Errorf("pauses of up to %s, want up to backoff_max, 1s", longest)
	}
}

func TestStopBeforeStart(t *testing.T) {
	u, err := New(DefaultConfig(), deps(&queue{}))
	if err != nil {
		t.Fatal(err)
	}
	if err := u.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestAnswers: every fate reaches the queue, an unknown one keeps the bucket, and answers to what was never sent are passed over.
func TestAnswers(t *testing.T) {
	q := &queue{data: [][]byte{{1}, {2}, {3}, {4}, {5}, {6}}}
	u, err := New(DefaultConfig(), deps(q))
	if err != nil {
		t.Fatal(err)
	}
	s := &session{u: u, flight: map[uint64]flying{}, seqs: map[uint64]bool{}}
	take := func() (sent []byte) {
		t.Helper()
		for {
			m, err := s.final(time.Now())
			if err != nil {
				t.Fatal(err)
			}
			if m == nil {
				return sent
			}
			sent = append(sent, m.GetBucket().GetData()[0])
		}
	}
	if got := take(); !bytes.Equal(got, []byte{1, 2, 3, 4, 5, 6}) {
		t.Errorf("sent %v, want all in order", got)
	}
	s.ack(&httpctlv1.Ack{Results: []*httpctlv1.BucketResult{
		{Sequence: 6, Status: httpctlv1.BucketStatus_BUCKET_STATUS_DUPLICATE},
		{Sequence: 1, Status: httpctlv1.BucketStatus_BUCKET_STATUS_STORED},
		{Sequence: 2, Status: httpctlv1.BucketStatus_BUCKET_STATUS_RETRY},
		{Sequence: 3, Status: httpctlv1.BucketStatus_BUCKET_STATUS_EXPIRED},
		{Sequence: 4, Status: 99},
		{Sequence: 5, Status: httpctlv1.BucketStatus_BUCKET_STATUS_REFUSED, Reason: "\x1b[31m"},
		{Sequence: 5, Status: httpctlv1.BucketStatus_BUCKET_STATUS_STORED},
		{Sequence: 77, Status: httpctlv1.BucketStatus_BUCKET_STATUS_STORED},
	}})
	if len(q.stored) != 2 || len(q.expired) != 1 || len(q.refused) != 1 {
		t.Errorf("settled %v stored, %v expired, %v refused", q.stored, q.expired, q.refused)
	}
	if !s.retryAt.After(time.Now().Add(-time.Second)) {
		t.Error("no pause after RETRY")
	}
	if got := take(); !bytes.Equal(got, []byte{2, 4}) {
		t.Errorf("sent again %v, want 2 and 4", got)
	}
	if s.bytes != 2 || len(s.flight) != 2 {
		t.Errorf("%d buckets, %d bytes under way, want 2 and 2", len(s.flight), s.bytes)
	}
}

// TestFuture: a bucket that the aggregator finds to be of the future is declared if it is by this host's clock, too, and kept
// if it is not.
func TestFuture(t *testing.T) {
	dated := func(at time.Time) []byte {
		b := &bucket.Bucket{}
		b.Host, b.Incarnation, b.Width, b.Final = bucket.ID{1}, bucket.ID{2}, 10*time.Second, true
		b.Start = at.Truncate(b.Width).UnixNano()
		data, err := bucket.Encode(nil, b)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	// The clock was a year ahead and has been set right; or the aggregator's is a year behind.
	q := &queue{data: [][]byte{dated(time.Now().AddDate(1, 0, 0)), dated(time.Now())}}
	var log bytes.Buffer
	d := deps(q)
	d.Log = slog.New(slog.NewTextHandler(&log, nil))
	u, err := New(DefaultConfig(), d)
	if err != nil {
		t.Fatal(err)
	}
	s := &session{u: u, flight: map[uint64]flying{}, seqs: map[uint64]bool{}}
	for range 3 {
		s.retryAt = time.Time{}
		var sent []*httpctlv1.BucketResult
		for m, err := s.final(time.Now()); m != nil || err != nil; m, err = s.final(time.Now()) {
			sent = append(sent, &httpctlv1.BucketResult{Sequence: m.GetBucket().GetSequence(), Status: httpctlv1.BucketStatus_BUCKET_STATUS_FUTURE, Reason: "set the \x1bclock"})
		}
		s.ack(&httpctlv1.Ack{Results: sent})
	}
	if len(q.stored)+len(q.expired) != 0 || !slices.Equal(q.refused, []uint64{1}) || q.data[1] == nil {
		t.Errorf("settled as refused: %v, want only the one that is of the future by this clock, too", q.refused)
	}
	if s.retryAt.IsZero() || len(s.flight) != 0 {
		t.Errorf("%d under way, next at %s: no pause", len(s.flight), s.retryAt)
	}
	if text := log.String(); strings.Count(text, "\n") != 2 || strings.Count(text, "buckets=1") != 1 || strings.Count(text, "is wrong, or its own") != 1 || strings.Contains(text, "\x1b") {
		t.Errorf("log: %q, want that one bucket is given up, and once that clocks are apart", text)
	}
}

// TestAggregatorIsOlder: what the aggregator is too old for is kept; one bucket of it at a time is tried again, while what closes meanwhile goes out, too;
// and what it refuses at last is declared.
func TestAggregatorIsOlder(t *testing.T) {
	const waiting = 100
	q := &queue{}
	for i := range waiting {
		q.data = append(q.data, []byte{byte(i + 1)})
	}
	var log bytes.Buffer
	d := deps(q)
	d.Log = slog.New(slog.NewTextHandler(&log, nil))
	u, err := New(DefaultConfig(), d)
	if err != nil {
		t.Fatal(err)
	}
	s := &session{u: u, flight: map[uint64]flying{}, seqs: map[uint64]bool{}, ahead: true}
	s.split()
	round := func(status httpctlv1.BucketStatus) (sent []byte) {
		s.retryAt = time.Time{}
		var results []*httpctlv1.BucketResult
		for m, err := s.final(time.Now()); m != nil || err != nil; m, err = s.final(time.Now()) {
			sent = append(sent, m.GetBucket().GetData()[0])
			results = append(results, &httpctlv1.BucketResult{Sequence: m.GetBucket().GetSequence(), Status: status, Reason: "it is too \x1bnew"})
		}
		s.ack(&httpctlv1.Ack{Results: results})
		return sent
	}
	const tooNew = httpctlv1.BucketStatus_BUCKET_STATUS_TOO_NEW
	if sent := round(tooNew); len(sent) != window-liveWindow {
		t.Errorf("%d buckets are sent at first, want %d", len(sent), window-liveWindow)
	}
	for range 3 {
		if sent := round(tooNew); !bytes.Equal(sent, []byte{1}) || !s.retryAt.After(time.Now().Add(-time.Second)) {
			t.Errorf("sent again: %v, next at %s, want the oldest alone, and a pause", sent, s.retryAt)
		}
	}
	q.data = append(q.data, []byte{101}, []byte{102})
	if sent := round(tooNew); !bytes.Equal(sent, []byte{101, 102}) {
		t.Errorf("sent %v, want the two that have closed", sent)
	}
	if len(q.stored)+len(q.expired)+len(q.refused) != 0 {
		t.Errorf("settled: %v, %v, %v, want none", q.stored, q.expired, q.refused)
	}
	round(httpctlv1.BucketStatus_BUCKET_STATUS_REFUSED)
	if !slices.Equal(q.refused, []uint64{1}) {
		t.Errorf("declared: %v, want the one that is a day old by now", q.refused)
	}
	again := &session{u: u, flight: map[uint64]flying{}, seqs: map[uint64]bool{}, ahead: true} // the aggregator was upgraded
	again.split()
	s = again
	for len(round(httpctlv1.BucketStatus_BUCKET_STATUS_STORED)) > 0 {
	}
	if len(q.stored) != waiting+1 {
		t.Errorf("%d buckets are stored after the upgrade, want %d", len(q.stored), waiting+1)
	}
	if text := log.String(); strings.Count(text, "the aggregator is older") != 1 || strings.Contains(text, "\x1b") {
		t.Errorf("log: %q, want once that the aggregator is older", text)
	}
}

// TestFormat: each aggregator is sent what it can read, final or not.
func TestFormat(t *testing.T) {
	b := &bucket.Bucket{Header: bucket.Header{Name: bucket.Name{Start: 1e18}, Width: 10 * time.Second, Final: true}}
	table := bucket.NewTable(bucket.Schema{Name: "names", Keys: []string{"name"}, Measures: []bucket.Measure{{Name: "n"}}}, 1000)
	for i := range 200 {
		table.Add([]string{fmt.Sprintf("a name of some length, %d", i)}, []int64{1})
	}
	b.Tables = []*bucket.Table{table}
	data, err := bucket.Encode(nil, b)
	if err != nil {
		t.Fatal(err)
	}
	q := &queue{data: [][]byte{data, {1, 2, 3}}}
	d := deps(q)
	d.Provisional = func(int) *bucket.Bucket { p := *b; p.Final = false; return &p }
	u, err := New(DefaultConfig(), d)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		format             int
		final, provisional byte // the versions of what is sent
	}{
		{bucket.FormatVersion + 1, bucket.FormatVersion, bucket.FormatVersion},
		{bucket.FormatVersion, bucket.FormatVersion, bucket.FormatVersion},
		{1, 1, 1},
		{bucket.FormatVersion, 1, bucket.FormatVersion}, // what was sent once keeps its bytes: they may be stored
	} {
		s := &session{u: u, flight: map[uint64]flying{}, seqs: map[uint64]bool{}, format: tt.format}
		final, err := s.final(time.Now())
		if err != nil {
			t.Fatal(err)
		}
		for what, m := range map[string]*httpctlv1.DeliverRequest{"final": final, "provisional": s.provisional()} {
			sent := m.GetBucket().GetData()
			got, err := bucket.Decode(sent)
			want := map[string]byte{"final": tt.final, "provisional": tt.provisional}[what]
			if err != nil || sent[4] != want || got.Tables[0].Total(0) != 200 {
				t.Errorf("an aggregator that reads %d is sent a %s bucket of version %d, %v; want %d", tt.format, what, sent[4], err, want)
			}
		}
		if m, err := s.final(time.Now()); err != nil || !bytes.Equal(m.GetBucket().GetData(), []byte{1, 2, 3}) {
			t.Errorf("what is no bucket is sent as %v, %v; the aggregator says what is wrong with it", m, err)
		}
	}
}

// TestDrainSendsAgainSoon: what is to be sent again after a long pause goes out as soon as the agent stops.
func TestDrainSendsAgainSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &queue{data: [][]byte{{1}}}
		u, err := New(DefaultConfig(), deps(q))
		if err != nil {
			t.Fatal(err)
		}
		s := &session{u: u, flight: map[uint64]flying{}, seqs: map[uint64]bool{}, retries: 20}
		in, out := make(chan *httpctlv1.DeliverResponse), make(chan *httpctlv1.DeliverRequest)
		ctx, end := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- s.deliver(ctx, in, out, nil) }()
		answer := func(status httpctlv1.BucketStatus) {
			in <- &httpctlv1.DeliverResponse{Message: &httpctlv1.DeliverResponse_Ack{Ack: &httpctlv1.Ack{Results: []*httpctlv1.BucketResult{{Sequence: s.sequence, Status: status}}}}}
		}
		<-out
		var longest time.Duration
		for range 8 { // pauses of up to 30 s each
			begin := time.Now()
			answer(httpctlv1.BucketStatus_BUCKET_STATUS_RETRY)
			<-out
			longest = max(longest, time.Since(begin))
		}
		if longest <= time.Second {
			t.Errorf("pauses of at most %s: nothing that Drain could shorten", longest)
		}
		answer(httpctlv1.BucketStatus_BUCKET_STATUS_RETRY)
		synctest.Wait()
		begin := time.Now()
		drained := make(chan bool)
		go func() { drained <- u.Drain(ctx) }()
		for range 8 {
			<-out
			answer(httpctlv1.BucketStatus_BUCKET_STATUS_RETRY)
		}
		if took := time.Since(begin); took > 8*lastPause {
			t.Errorf("eight tries of an agent that stops took %s, want at most %s", took, 8*lastPause)
		}
		<-out
		answer(httpctlv1.BucketStatus_BUCKET_STATUS_STORED)
		if !<-drained {
			t.Error("the stored bucket is still waited for")
		}
		end()
		<-ended
	})
}

// TestLiveGoesFirst: what is closed while a backlog is sent goes before it, and is marked, where the
// aggregator knows that; and the backlog leaves room for it in the window.
func TestLiveGoesFirst(t *testing.T) {
	for _, knows := range []bool{true, false} {
		q := &queue{}
		add := func(n int) {
			for range n {
				q.data = append(q.data, []byte{byte(len(q.data) + 1)})
			}
		}
		u, err := New(DefaultConfig(), deps(q))
		if err != nil {
			t.Fatal(err)
		}
		s := &session{u: u, flight: map[uint64]flying{}, seqs: map[uint64]bool{}, ahead: knows}
		take := func(n int) (sent, ahead []byte) {
			t.Helper()
			for range n {
				m, err := s.final(time.Now())
				if err != nil {
					t.Fatal(err)
				}
				if m == nil {
					break
				}
				sent = append(sent, m.GetBucket().GetData()[0])
				if m.GetBucket().GetAhead() {
					ahead = append(ahead, m.GetBucket().GetData()[0])
				}
			}
			return sent, ahead
		}
		answer := func(status httpctlv1.BucketStatus) {
			ack := &httpctlv1.Ack{}
			for sequence := range s.flight {
				ack.Results = append(ack.Results, &httpctlv1.BucketResult{Sequence: sequence, Status: status})
			}
			s.ack(ack)
		}
		want := func(what string, n int, sent, ahead []byte) {
			t.Helper()
			if !knows {
				return
			}
			if got, marked := take(n); !bytes.Equal(got, sent) || !bytes.Equal(marked, ahead) {
				t.Errorf("%s: sent %v, %v as ahead, want %v and %v", what, got, marked, sent, ahead)
			}
		}
		add(4)
		s.split()
		if !knows {
			take(1)
			add(1)
			if got, marked := take(9); !bytes.Equal(got, []byte{2, 3, 4, 5}) || len(marked) > 0 {
				t.Errorf("sent %v, %v as ahead, to an aggregator that takes none", got, marked)
			}
			continue
		}
		want("the backlog", 2, []byte{1, 2}, nil)
		add(2)
		want("two of now", 3, []byte{5, 6, 3}, []byte{5, 6})
		add(1)
		want("the end of the backlog", 9, []byte{7, 4}, []byte{7})
		add(1)
		want("no backlog", 9, []byte{8}, nil)
		answer(httpctlv1.BucketStatus_BUCKET_STATUS_RETRY)
		add(1)
		want("what has to be sent again is a backlog", 9, []byte{9, 1, 2, 3, 4, 5, 6, 7, 8}, []byte{9})
		answer(httpctlv1.BucketStatus_BUCKET_STATUS_STORED)
		want("nothing waits", 9, nil, nil)
		add(1)
		want("all is answered", 9, []byte{10}, nil)
		answer(httpctlv1.BucketStatus_BUCKET_STATUS_STORED)

		add(3 * window)
		s.split()
		if got, _ := take(3 * window); len(got) != window-liveWindow {
			t.Errorf("%d of the backlog are under way, want %d", len(got), window-liveWindow)
		}
		add(1)
		if got, marked := take(3); len(got) != 1 || len(marked) != 1 {
			t.Errorf("with the backlog under way %d of now are sent, want 1", len(got))
		}
	}
}

func TestWindowIsBounded(t *testing.T) {
	q := &queue{}
	for range 3 * window {
		q.data = append(q.data, []byte{1})
	}
	u, _ := New(DefaultConfig(), deps(q))
	s := &session{u: u, flight: map[uint64]flying{}, seqs: map[uint64]bool{}}
	n := 0
	for m, _ := s.final(time.Now()); m != nil; m, _ = s.final(time.Now()) {
		n++
	}
	if n != window {
		t.Errorf("%d under way, want %d", n, window)
	}
}

func TestTooLarge(t *testing.T) {
	if !tooLarge(status.Error(codes.ResourceExhausted, "grpc: received message larger than max (71000 vs. 65600)")) {
		t.Error("gRPC's own error is not known")
	}
	for _, err := range []error{nil, errors.New("x"), status.Error(codes.ResourceExhausted, "quota"), status.Error(codes.Internal, "larger than max")} {
		if tooLarge(err) {
			t.Errorf("tooLarge(%v) = true", err)
		}
	}
}

func TestConfigValidate(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
	err := Config{Aggregator: "192.0.2.1:7420"}.Validate()
	for _, want := range []string{"tls.cert_file", "backoff_max", "max_message_size"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Validate() = %v, want %s named", err, want)
		}
	}
}
