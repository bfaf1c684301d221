package app

import (
	"io"
	"sync"
	"time"

	"github.com/httpctl/httpctl/agent/capture"
)

// replay gives the packets of a capture at the pace at which they were
// recorded, with their times shifted so that the first one is now. To the
// pipeline it looks like a live source: it is idle between packets, and stays
// so after the last one until it is closed.
type replay struct {
	source capture.Source
	idle   time.Duration

	shift   int64 // added to packet times; 0 before the first packet
	next    capture.Packet
	pending bool // next holds a packet that is not due yet
	ended   bool

	once   sync.Once
	closed chan struct{}
}

var _ capture.Source = (*replay)(nil)

// newReplay takes over source. idle is the longest that Next waits.
func newReplay(source capture.Source, idle time.Duration) *replay {
	return &replay{source: source, idle: idle, closed: make(chan struct{})}
}

func (r *replay) Next(p *capture.Packet) error {
	if !r.pending && !r.ended {
		switch err := r.source.Next(&r.next); {
		case err == io.EOF:
			r.ended = true
		case err != nil:
			return err
		default:
			if r.shift == 0 {
				r.shift = time.Now().UnixNano() - r.next.Time
			}
			r.pending = true
		}
	}
	wait := r.idle
	if r.pending {
		due := time.Duration(r.next.Time + r.shift - time.Now().UnixNano())
		if due <= 0 {
			*p = r.next
			p.Time += r.shift
			r.pending = false
			return nil
		}
		wait = min(wait, due)
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-r.closed:
		return io.EOF
	case <-timer.C:
		return capture.ErrIdle
	}
}

func (r *replay) Stats() capture.Stats { return r.source.Stats() }

func (r *replay) Close() error {
	var err error
	r.once.Do(func() {
		close(r.closed)
		err = r.source.Close()
	})
	return err
}
