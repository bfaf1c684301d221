// Package admin serves whoever runs the aggregator: backups of the store.
package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/httpctl/httpctl/pkg/lifecycle"
	httpctlv1 "github.com/httpctl/httpctl/proto/httpctl/v1"
)

const (
	// chunkSize is how much of a backup one message holds.
	chunkSize = 128 << 10
	// patience is how long a caller may take to accept a message. A backup keeps pages of the
	// database from being used again, so one that stands still would make the file grow.
	patience = 30 * time.Second
	// leastRate is how much a caller has to accept on average, in bytes a second, beyond patience: one that trickles would
	// hold a read transaction for days. 8 Mbit/s is less than any network on which a backup is of use.
	leastRate = 1 << 20
)

// Store is what is backed up.
type Store interface {
	Backup(ctx context.Context, w io.Writer) (int64, error)
}

// Service implements the gRPC service.
type Service struct {
	httpctlv1.UnimplementedAdminServiceServer
	store    Store
	log      *slog.Logger
	patience time.Duration
	busy     sync.Mutex // held by the backup under way
}

// New returns a service.
func New(store Store, log *slog.Logger) *Service {
	return &Service{store: store, log: log, patience: patience}
}

var errSlow = fmt.Errorf("the caller is too slow: it has to accept some of the backup every %s, and %d bytes a second on average", patience, leastRate)

// Backup streams a backup. There is one at a time.
func (s *Service) Backup(_ *httpctlv1.BackupRequest, stream httpctlv1.AdminService_BackupServer) error {
	if !s.busy.TryLock() {
		return status.Error(codes.ResourceExhausted, "another backup is under way: try again when it is done")
	}
	defer s.busy.Unlock()
	begun := time.Now()
	ctx, cancel := context.WithCancel(stream.Context())
	chunks, done := make(chan []byte), make(chan error, 1)
	var size int64
	// The store is read in a goroutine of its own, as a Send that waits for the caller
	// cannot be ended: the transaction then ends all the same.
	go func() {
		defer close(chunks)
		w := &sender{ctx: ctx, chunks: chunks, patience: s.patience, left: s.patience}
		done <- lifecycle.Guard(func() (err error) {
			if size, err = s.store.Backup(ctx, w); err == nil {
				err = w.flush(ctx)
			}
			return err
		})
	}()
	var sending error
	for chunk := range chunks {
		if sending = stream.Send(&httpctlv1.BackupResponse{Data: chunk}); sending != nil {
			break
		}
	}
	cancel()
	err := <-done
	switch {
	case errors.Is(err, lifecycle.ErrPanic): // counted, logged and told by who answers calls
		return err
	case sending != nil:
		err = sending
	case errors.Is(err, errSlow):
		err = status.Error(codes.DeadlineExceeded, err.Error())
	case err != nil:
		err = status.Error(codes.Unavailable, fmt.Sprintf("the backup is not whole: %v", err))
	}
	if err != nil {
		s.log.Error("a backup was not finished", "err", err)
		return err
	}
	s.log.Info("backup made", "bytes", size, "took", time.Since(begun).Round(time.Millisecond))
	return nil
}

// sender hands what is written to it to a channel, in copies of chunkSize. It is a bolt.ContextWriter.
type sender struct {
	ctx      context.Context
	chunks   chan<- []byte
	patience time.Duration
	left     time.Duration // that the caller may still take, all in all
	pending  []byte
}

// Write implements io.Writer.
func (s *sender) Write(p []byte) (int, error) { return s.WriteContext(s.ctx, p) }

// WriteContext is Write until ctx ends.
func (s *sender) WriteContext(ctx context.Context, p []byte) (n int, err error) {
	for len(p) > 0 {
		if s.pending == nil {
			s.pending = make([]byte, 0, chunkSize)
		}
		k := min(len(p), chunkSize-len(s.pending))
		s.pending = append(s.pending, p[:k]...)
		p, n = p[k:], n+k
		if len(s.pending) == chunkSize {
			if err := s.flush(ctx); err != nil {
				return n, err
			}
		}
	}
	return n, nil
}

// flush hands over what is pending.
func (s *sender) flush(ctx context.Context) error {
	if len(s.pending) == 0 {
		return nil
	}
	begun := time.Now()
	timer := time.NewTimer(min(s.patience, s.left))
	defer timer.Stop()
	select {
	case s.chunks <- s.pending:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return errSlow
	}
	s.left += time.Duration(len(s.pending))*time.Second/leastRate - time.Since(begun)
	s.pending = nil
	return nil
}
