// Package admin serves whoever runs the aggregator: backups of the store.
package admin

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	httpctlv1 "github.com/httpctl/httpctl/proto/httpctl/v1"
)

const (
	// chunkSize is how much of a backup one message holds.
	chunkSize = 128 << 10
	// patience is how long a caller may take to accept a message. A backup keeps pages of the
	// database from being used again, so one that stands still would make the file grow.
	patience = 30 * time.Second
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

var errSlow = errors.New("the caller has accepted nothing for too long")

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
		w := bufio.NewWriterSize(&sender{ctx: ctx, chunks: chunks, patience: s.patience}, chunkSize)
		var err error
		if size, err = s.store.Backup(ctx, w); err == nil {
			err = w.Flush()
		}
		done <- err
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

// sender hands what is written to it to a channel, in copies.
type sender struct {
	ctx      context.Context
	chunks   chan<- []byte
	patience time.Duration
}

func (s *sender) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 { // bufio passes long writes through
		k := min(len(p), chunkSize)
		timer := time.NewTimer(s.patience)
		select {
		case s.chunks <- bytes.Clone(p[:k]):
		case <-s.ctx.Done():
			timer.Stop()
			return n - len(p), context.Cause(s.ctx)
		case <-timer.C:
			return n - len(p), errSlow
		}
		timer.Stop()
		p = p[k:]
	}
	return n, nil
}
