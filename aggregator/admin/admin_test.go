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

func TestBackup(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789"), 100_000)
	gone, broken := errors.New("the caller has gone"), errors.New("input/output error")
	for name, tt := range map[string]struct {
		store  content
		accept func() error
		want   codes.Code
		whole  bool
	}{
		"whole":           {store: content{data: data}, want: codes.OK, whole: true},
		"a slow caller":   {store: content{data: data}, accept: func() error { time.Sleep(patience - time.Second); return nil }, want: codes.OK, whole: true},
		"one that sleeps": {store: content{data: data}, accept: func() error { time.Sleep(patience + time.Second); return nil }, want: codes.DeadlineExceeded},
		"one that goes":   {store: content{data: data}, accept: func() error { return gone }, want: codes.Unknown},
		"a store's error": {store: content{data: data[:100], err: broken}, want: codes.Unavailable},
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
