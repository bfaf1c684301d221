package admin

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/httpctl/httpctl/aggregator/store/bolt"
	"github.com/httpctl/httpctl/pkg/lifecycle"
	httpctlv1 "github.com/httpctl/httpctl/proto/httpctl/v1"
)

// content is a store whose backup is these bytes, and then an error.
type content struct {
	data []byte
	err  error
}

func (c *content) Backup(_ context.Context, w io.Writer) (int64, error) {
	n, err := w.Write(c.data)
	return int64(n), errors.Join(err, c.err)
}

// stream is a caller that accepts messages as accept says.
type stream struct {
	grpc.ServerStream
	ctx    context.Context
	got    bytes.Buffer
	most   int
	accept func() error
}

func (s *stream) Context() context.Context { return s.ctx }

func (s *stream) Send(r *httpctlv1.BackupResponse) error {
	if s.accept != nil {
		if err := s.accept(); err != nil {
			return err
		}
	}
	s.most = max(s.most, len(r.Data))
	s.got.Write(r.Data)
	return nil
}

// faulty is a store of which a backup panics.
type faulty struct{}

func (faulty) Backup(_ context.Context, w io.Writer) (int64, error) {
	_, _ = w.Write(make([]byte, 2*chunkSize))
	panic("a fault")
}

// TestFaultCostsItsBackup: a fault while a backup is made is an error of that call, and the next one can be made.
func TestFaultCostsItsBackup(t *testing.T) {
	s := New(faulty{}, slog.New(slog.DiscardHandler))
	for range 2 {
		if err := s.Backup(nil, &stream{ctx: t.Context()}); !errors.Is(err, lifecycle.ErrPanic) {
			t.Errorf("Backup of a store that panics = %v, want that", err)
		}
	}
}

func TestBackup(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789"), 1_000_000)
	gone, broken := errors.New("the caller has gone"), errors.New("input/output error")
	// waits is a caller that takes so long for its first messages.
	waits := func(d time.Duration, messages int) func() error {
		return func() error {
			if messages--; messages >= 0 {
				time.Sleep(d)
			}
			return nil
		}
	}
	for name, tt := range map[string]struct {
		store  content
		accept func() error
		want   codes.Code
		whole  bool
	}{
		"whole":             {store: content{data: data}, want: codes.OK, whole: true},
		"a slow caller":     {store: content{data: data}, accept: waits(patience-time.Second, 1), want: codes.OK, whole: true},
		"one at the rate":   {store: content{data: data}, accept: waits(chunkSize*time.Second/leastRate, 1000), want: codes.OK, whole: true},
		"one that trickles": {store: content{data: data}, accept: waits(time.Second, 1000), want: codes.DeadlineExceeded},
		"one that sleeps":   {store: content{data: data}, accept: waits(patience+time.Second, 1), want: codes.DeadlineExceeded},
		"one that goes":     {store: content{data: data}, accept: func() error { return gone }, want: codes.Unknown},
		"a store's error":   {store: content{data: data[:100], err: broken}, want: codes.Unavailable},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := New(&tt.store, slog.New(slog.DiscardHandler))
			c := &stream{ctx: t.Context(), accept: tt.accept}
			err := s.Backup(nil, c)
			if status.Code(err) != tt.want || bytes.Equal(c.got.Bytes(), data) != tt.whole || c.most > chunkSize {
				t.Errorf("%s: Backup = %v, %d bytes, at most %d in a message, want %v, whole: %t", name, err, c.got.Len(), c.most, tt.want, tt.whole)
			}
			if !s.busy.TryLock() {
				t.Errorf("%s: no other backup can be made", name)
			}
		})
	}
}

// closing is a store that is closed while its backup is under way.
type closing struct{ took time.Duration }

func (c *closing) Backup(ctx context.Context, w io.Writer) (int64, error) {
	begun := time.Now()
	ctx, cancel := context.WithCancelCause(ctx)
	time.AfterFunc(time.Second, func() { cancel(errors.New("the store is being closed")) })
	n, err := w.(bolt.ContextWriter).WriteContext(ctx, make([]byte, 10*chunkSize))
	c.took = time.Since(begun)
	return int64(n), err
}

// TestStandingCaller: one that accepts nothing does not hold up the store.
func TestStandingCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &closing{}
		s := New(store, slog.New(slog.DiscardHandler))
		err := s.Backup(nil, &stream{ctx: t.Context(), accept: func() error { time.Sleep(patience); return nil }})
		if status.Code(err) != codes.Unavailable || store.took != time.Second {
			t.Errorf("Backup = %v, the store waited %s, want Unavailable, 1s", err, store.took)
		}
	})
}

func TestOneBackupAtATime(t *testing.T) {
	s := New(&content{data: []byte("x")}, slog.New(slog.DiscardHandler))
	c := &stream{ctx: t.Context()}
	c.accept = func() error {
		if err := s.Backup(nil, &stream{ctx: t.Context()}); status.Code(err) != codes.ResourceExhausted {
			t.Errorf("a second Backup = %v, want ResourceExhausted", err)
		}
		return nil
	}
	if err := s.Backup(nil, c); err != nil || c.got.String() != "x" {
		t.Errorf("Backup = %v, %q", err, c.got.String())
	}
}
