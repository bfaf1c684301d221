// Package push sends what export makes of the counters to receivers: every so often all of them, in order, and again
// when a receiver could not take them. It is apart from package export as that does no I/O.
package push

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/httpctl/httpctl/aggregator/export"
	"github.com/httpctl/httpctl/pkg/lifecycle"
	"github.com/httpctl/httpctl/pkg/security"
)

const (
	// sendWait bounds one request, as Prometheus's remote_timeout does.
	sendWait = 30 * time.Second
	// firstPause is that after the first failure in a row; each further one doubles it, up to longestPause. longestAsked
	// bounds what a receiver may ask for.
	firstPause, longestPause, longestAsked = time.Second, time.Minute, 5 * time.Minute
	// lastWait bounds what is sent when the program stops.
	lastWait = 5 * time.Second
	// logEvery is how often the same receiver's failures are logged.
	logEvery = time.Minute
)

// Encode makes requests of all that there is to send now. It is called by one goroutine at a time.
type Encode func() []export.Request

// Deps are what a Pusher needs from outside.
type Deps struct {
	// To names the receiver in logs and metrics: "remote_write" or "otlp".
	To      string
	Encode  Encode
	Log     *slog.Logger
	Metrics *Metrics
	// Version is told to the receiver.
	Version string
}

// Pusher sends to one receiver. New is inert; Start runs it.
type Pusher struct {
	cfg    export.Receiver
	deps   Deps
	sender sender
	group  *lifecycle.Group
	wake   chan struct{}

	mu      sync.Mutex
	queue   []export.Request
	bytes   int
	logged  time.Time
	failing bool
}

// sender sends one message, and knows what an answer means.
type sender interface {
	// send returns how many of its points the receiver refused, or a *failure.
	send(ctx context.Context, body []byte) (refused int, why string, err error)
	close()
	// hide takes what was shown as credentials out of a text for the log.
	hide(text string) string
}

// failure says why a message was not taken.
type failure struct {
	err   error
	final bool          // trying again will not help
	after time.Duration // how long the receiver asks to wait; 0 if it does not say
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// New checks what can be checked without the receiver, the authorities' file included.
func New(cfg export.Receiver, deps Deps) (*Pusher, error) {
	s, err := newSender(cfg, deps)
	if err != nil {
		return nil, fmt.Errorf("aggregator.export.%s: %w", deps.To, err)
	}
	return &Pusher{cfg: cfg, deps: deps, sender: s, wake: make(chan struct{}, 1)}, nil
}

// Start begins to send.
func (p *Pusher) Start(ctx context.Context) {
	p.deps.Metrics.begin(p.deps.To)
	p.group = lifecycle.NewGroup(context.WithoutCancel(ctx)) // ended by Stop
	p.group.Go("export: encode for "+p.deps.To, p.encode)
	p.group.Go("export: send to "+p.deps.To, p.deliver)
}

// Failed gives the error by which p died.
func (p *Pusher) Failed() <-chan error { return p.group.Failed() }

// Stop sends the counters as they are for a last time, and what waits, as far as the receiver takes it at once.
func (p *Pusher) Stop(ctx context.Context) error {
	if p.group == nil {
		return nil
	}
	if err := p.group.Stop(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, lastWait)
	defer cancel()
	p.add()
	for p.next() != nil {
		if pause := p.sendOne(ctx); pause > 0 {
			break
		}
	}
	p.mu.Lock()
	left := 0
	for _, r := range p.queue {
		left += r.Points
	}
	p.queue, p.bytes = nil, 0
	p.mu.Unlock()
	if left > 0 {
		p.deps.Metrics.drop(p.deps.To, "stopped", left)
		p.deps.Log.Warn("stopped before the receiver took all", "to", p.deps.To, "points", left)
	}
	p.sender.close()
	return nil
}

// encode queues all counters every so often.
func (p *Pusher) encode(ctx context.Context) error {
	ticker := time.NewTicker(p.cfg.Every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			p.add()
		}
	}
}

// add queues all counters as they are now. When there is no room the oldest that wait go: newer
// values say all that they did, but for the time in between. Those with which series begin go last.
func (p *Pusher) add() {
	requests := p.deps.Encode()
	p.mu.Lock()
	waited := len(p.queue)
	for _, r := range requests {
		p.queue = append(p.queue, r)
		p.bytes += len(r.Body)
	}
	dropped := 0
	for _, begins := range []bool{false, true} {
		for i := 0; i < waited && p.bytes > int(p.cfg.MaxPending); {
			if p.queue[i].Begins != begins {
				i++
				continue
			}
			dropped += p.queue[i].Points
			p.bytes -= len(p.queue[i].Body)
			p.queue = slices.Delete(p.queue, i, i+1)
			waited--
		}
	}
	p.deps.Metrics.pending(p.deps.To, p.bytes)
	p.mu.Unlock()
	if dropped > 0 {
		p.deps.Metrics.drop(p.deps.To, "full", dropped)
	}
	select {
	case p.wake <- struct{}{}:
	default: // it is awake already
	}
}

// next is the request that has waited longest, nil if none does.
func (p *Pusher) next() *export.Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.queue) == 0 {
		return nil
	}
	r := p.queue[0]
	return &r
}

// done takes a request off the queue, unless it went for want of room meanwhile.
func (p *Pusher) done(r *export.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.queue) > 0 && &p.queue[0].Body[0] == &r.Body[0] {
		p.bytes -= len(r.Body)
		p.queue[0] = export.Request{}
		p.queue = p.queue[1:]
	}
	p.deps.Metrics.pending(p.deps.To, p.bytes)
}

// deliver sends what waits, one after the other.
func (p *Pusher) deliver(ctx context.Context) error {
	failures := 0
	for {
		var pause <-chan time.Time
		if p.next() != nil {
			asked := p.sendOne(ctx)
			if asked == 0 {
				failures = 0
				if ctx.Err() == nil {
					continue
				}
				return nil
			}
			wait := min(longestPause, firstPause<<min(failures, 10))
			failures++
			pause = time.After(max(wait, min(asked, longestAsked)))
		}
		if pause != nil {
			select {
			case <-ctx.Done():
				return nil
			case <-pause:
			}
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-p.wake:
		}
	}
}

// sendOne sends the request that has waited longest. It returns 0 when that is done with, else how long to wait
// at least until it is tried again.
func (p *Pusher) sendOne(ctx context.Context) (pause time.Duration) {
	r := p.next()
	if r == nil {
		return 0
	}
	sending, cancel := context.WithTimeout(ctx, sendWait)
	defer cancel()
	refused, why, err := p.sender.send(sending, r.Body)
	var f *failure
	switch {
	case err == nil:
		p.done(r)
		refused = min(max(refused, 0), r.Points)
		p.deps.Metrics.sent(p.deps.To, r.Points-refused)
		if refused > 0 {
			p.deps.Metrics.drop(p.deps.To, "refused", refused)
			p.tell("the receiver of the export refuses a part of it", errors.New(why))
			return 0
		}
		p.recovered()
		return 0
	case ctx.Err() != nil:
		return 1 // stopped: tried again, or told, by who stops it
	case errors.As(err, &f) && f.final:
		p.done(r)
		p.deps.Metrics.fail(p.deps.To)
		p.deps.Metrics.drop(p.deps.To, "refused", r.Points)
		p.tell("the receiver of the export refuses it; what it says will not change by trying again", err)
		return 0
	}
	p.deps.Metrics.fail(p.deps.To)
	p.tell("the export is not taken, trying again", err)
	if f != nil && f.after > 0 {
		return f.after
	}
	return 1
}

// tell logs a failure, at most one a minute.
func (p *Pusher) tell(message string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failing = true
	if now := time.Now(); p.logged.IsZero() || now.Sub(p.logged) >= logEvery {
		p.logged = now
		p.deps.Log.Warn(message, "to", p.deps.To, "url", security.CleanText(withoutQuery(p.cfg.URL)), "err", security.CleanText(p.sender.hide(err.Error())))
	}
}

// withoutQuery leaves out of an address what some receivers want their keys in.
func withoutQuery(url string) string {
	before, _, found := strings.Cut(url, "?")
	if found {
		before += "?..."
	}
	return before
}

func (p *Pusher) recovered() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failing {
		p.failing, p.logged = false, time.Time{}
		p.deps.Log.Info("the export is taken again", "to", p.deps.To)
	}
}
