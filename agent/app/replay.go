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
	packets [batch]capture.Packet
	pending []capture.Packet // those of packets that were not due yet
	ended   bool
	looked  time.Time

	once   sync.Once
	closed chan struct{}
}

var _ capture.Source = (*replay)(nil)

// newReplay takes over source. idle is the longest that Next waits.
func newReplay(source capture.Source, idle time.Duration) *replay {
	return &replay{source: source, idle: idle, closed: make(chan struct{})}
}

func (r *replay) Next(ps []capture.Packet) (int, error) {
	if len(r.pending) == 0 && !r.ended {
		switch n, err := r.source.Next(r.packets[:]); {
		case err == io.EOF:
			r.ended = true
		case err != nil:
			return 0, err
		default:
			r.pending = r.packets[:n]
			if r.shift == 0 {
				r.shift = time.Now().UnixNano() - r.packets[0].Time
			}
		}
	}
	if n := r.due(ps); n > 0 {
		return n, nil
	}
	wait := r.idle
	if len(r.pending) > 0 {
		wait = min(wait, time.Duration(r.pending[0].Time+r.shift-r.looked.UnixNano()))
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-r.closed:
		return 0, io.EOF
	case <-timer.C: // perhaps long ago
		if n := r.due(ps); n > 0 {
			return n, nil
		}
		return 0, capture.ErrIdle
	}
}

// due takes the packets whose time has come.
func (r *replay) due(ps []capture.Packet) (n int) {
	r.looked = time.Now()
	now := r.looked.UnixNano()
	for n < min(len(ps), len(r.pending)) && r.pending[n].Time+r.shift <= now {
		ps[n] = r.pending[n]
		ps[n].Time += r.shift
		n++
	}
	r.pending = r.pending[n:]
	return n
}

// Looked is when Next looked last before it returned ErrIdle: nothing older is to come. It is called by who calls Next.
func (r *replay) Looked() time.Time { return r.looked }

func (r *replay) Stats() capture.Stats { return r.source.Stats() }

func (r *replay) Close() error {
	var err error
	r.once.Do(func() {
		close(r.closed)
		err = r.source.Close()
	})
	return err
}
