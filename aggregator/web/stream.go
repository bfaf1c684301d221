package web

import (
	"bytes"
	"compress/flate"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/httpctl/httpctl/pkg/view"
)

const (
	// streamEvery is how often a stream has a new picture at most.
	streamEvery = time.Second
	// heartbeat is how often something is sent at least, so that both ends, and what is between, see that the other is there.
	heartbeat = 15 * time.Second
	// maxStreams bounds the streams of all, maxStreamsOfOne those from one address. The pictures that many ask for
	// alike are made once.
	maxStreams      = 256
	maxStreamsOfOne = 64
	// maxFeeds bounds the different questions of streams, each of which is asked once a second.
	maxFeeds = 32
	// maxFeedsOfOne bounds those that one address has begun.
	maxFeedsOfOne = 8
	// retryAfter is how long a browser waits before it comes again.
	retryAfter = 2 * time.Second
)

// event is one event of a stream, in its form on the wire, plain and compressed.
type event struct {
	id            string
	plain, packed []byte
}

// streams are those that are open, and the feeds that they are of.
type streams struct {
	s   *Server
	ctx context.Context
	end context.CancelFunc
	wg  sync.WaitGroup // feeds
	// streamEvery and heartbeat, but in tests.
	every, beat time.Duration
	// begin is what each stream begins with, and still what says that it is there.
	begin, still event

	mu    sync.Mutex
	ended bool
	open  int
	from  map[string]int // by address
	feeds map[string]*feed
	begun map[string]int // feeds, by the address that began them
}

// feed asks one question again and again, as long as a stream of it is open.
type feed struct {
	end  context.CancelFunc
	from string // the address that began it
	last *event
	subs map[chan *event]struct{}
}

func newStreams(s *Server) *streams {
	x := &streams{s: s, every: streamEvery, beat: heartbeat, from: map[string]int{}, feeds: map[string]*feed{}, begun: map[string]int{}}
	x.ctx, x.end = context.WithCancel(context.Background())
	var packer packer
	x.begin.plain = fmt.Appendf(nil, "retry: %d\n\n", retryAfter.Milliseconds())
	x.begin.packed = append(bytes.Clone(packedHead), packer.pack(x.begin.plain)...)
	x.still.plain = []byte(": still here\nevent: still\ndata: \n\n") // a page is told of events, and of no comment
	x.still.packed = packer.pack(x.still.plain)
	return x
}

// stop ends all streams.
func (x *streams) stop() {
	x.mu.Lock()
	x.ended = true
	x.mu.Unlock()
	x.end()
}

// wait returns when no feed runs any more.
func (x *streams) wait(ctx context.Context) error {
	done := make(chan struct{})
	go func() { x.wg.Wait(); close(done) }() // ends with the last feed, whose questions end with x.ctx
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("a stream's question is still under way: %w", context.Cause(ctx))
	}
}

// join opens a stream of a question, from an address. events has the newest event that was not taken yet.
func (x *streams) join(e *endpoint, r *http.Request, given url.Values, from string) (events chan *event, leave func(), err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	key := given.Encode()
	f := x.feeds[key]
	full := ""
	switch {
	case x.ended:
		return nil, nil, fail(http.StatusServiceUnavailable, "", "", "the aggregator is stopping")
	case x.open >= maxStreams:
		full = fmt.Sprintf("%d streams are open, the most that there may be", maxStreams)
	case x.from[from] >= maxStreamsOfOne:
		full = fmt.Sprintf("%d streams are open from your address, the most that there may be", maxStreamsOfOne)
	case f == nil && len(x.feeds) >= maxFeeds:
		full = fmt.Sprintf("streams of %d different questions are open, the most that there may be", maxFeeds)
	case f == nil && x.begun[from] >= maxFeedsOfOne:
		full = fmt.Sprintf("streams of %d different questions are open from your address, the most that there may be", maxFeedsOfOne)
	}
	if full != "" {
		x.s.metrics.refused.WithLabelValues(tooManyStreams).Inc()
		return nil, nil, fail(http.StatusServiceUnavailable, "", "ask /api/v1/dashboard, or try again later", "%s", full)
	}
	if f == nil {
		f = &feed{from: from, subs: map[chan *event]struct{}{}}
		x.begun[from]++
		var ctx context.Context
		ctx, f.end = context.WithCancel(x.ctx)
		x.feeds[key] = f
		x.wg.Go(func() { x.run(ctx, f, e, r) })
	}
	events = make(chan *event, 1)
	if f.last != nil {
		events <- f.last
	}
	f.subs[events] = struct{}{}
	x.open++
	x.from[from]++
	x.s.metrics.streams.Set(float64(x.open))
	return events, func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		delete(f.subs, events)
		if len(f.subs) == 0 {
			f.end()
			delete(x.feeds, key)
			if x.begun[f.from]--; x.begun[f.from] == 0 {
				delete(x.begun, f.from)
			}
		}
		x.open--
		if x.from[from]--; x.from[from] == 0 {
			delete(x.from, from)
		}
		x.s.metrics.streams.Set(float64(x.open))
	}, nil
}

// run asks and sends until ctx ends. The question's times are those of each moment.
func (x *streams) run(ctx context.Context, f *feed, e *endpoint, r *http.Request) {
	var packer packer
	rest := time.NewTimer(x.every)
	defer rest.Stop()
	asked, failed := time.Time{}, false
	seen := uint64(0)
	for {
		changes, pause := x.s.deps.Changes(), x.every
		// With nothing new, ranges and states move on all the same.
		if asked.IsZero() || failed || changes != seen || time.Since(asked) >= x.s.deps.Interval() {
			asked, seen = time.Now(), changes
			data, err := x.ask(ctx, e, r)
			if ctx.Err() != nil {
				return
			}
			next := &event{id: fmt.Sprintf("%s-%d", x.s.run, changes)}
			if failed = err != nil; failed {
				next.id = ""
				next.plain = fmt.Appendf(nil, "event: failure\ndata: %s\n\n", failureOf(err).body())
			} else {
				next.plain = fmt.Appendf(nil, "id: %s\nevent: dashboard\ndata: %s\n\n", next.id, data)
			}
			next.packed = packer.pack(next.plain)
			x.publish(f, next)
			pause = max(x.every-time.Since(asked), 3*time.Since(asked)) // a question that takes long is not asked all the time
		}
		rest.Reset(pause)
		select {
		case <-rest.C:
		case <-ctx.Done():
			return
		}
	}
}

// ask makes one picture: JSON in one line.
func (x *streams) ask(ctx context.Context, e *endpoint, r *http.Request) (_ []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = x.s.panicked("/api/v1/stream", p)
		}
	}()
	q, err := e.parse(r, x.s.deps.Now())
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, answerWait)
	defer cancel()
	var b bytes.Buffer
	if err := x.s.make(ctx, func() error {
		d, err := x.s.dashboard(ctx, q)
		if err != nil {
			return err
		}
		return view.WriteDashboardLine(&b, d)
	}); err != nil {
		return nil, err
	}
	return harmless(bytes.TrimSuffix(b.Bytes(), []byte("\n"))), nil
}

// publish gives an event to every stream; one that has not taken the event before gets this one instead.
func (x *streams) publish(f *feed, e *event) {
	x.mu.Lock()
	defer x.mu.Unlock()
	f.last = e
	for events := range f.subs {
		select {
		case <-events:
		default:
		}
		events <- e // there is room: only this puts something in
	}
}

// packer compresses events one by one, so that streams that began at different times can share them: each is whole
// blocks of DEFLATE that refer to nothing before them.
type packer struct{ w *flate.Writer }

// packedHead begins a stream in the coding gzip (RFC 1952 section 2.3). Its end, with the checksum, never comes.
var packedHead = []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255}

func (p *packer) pack(plain []byte) []byte {
	var b bytes.Buffer
	if p.w == nil {
		p.w, _ = flate.NewWriter(&b, flate.BestSpeed) // the level is valid
	} else {
		p.w.Reset(&b)
	}
	_, _ = p.w.Write(plain) // a buffer takes all
	_ = p.w.Flush()         // to a whole byte
	return b.Bytes()
}

// stream sends pictures until the browser goes, the right to them ends, or the aggregator stops.
func (s *Server) stream(w http.ResponseWriter, r *http.Request, e *endpoint, q *question) error {
	// What is kept for the feed is the question alone.
	asked := &http.Request{URL: &url.URL{RawQuery: r.URL.RawQuery}}
	x := s.streams
	events, leave, err := x.join(e, asked, q.given, addressOf(r))
	if err != nil {
		return err
	}
	defer leave()
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Time{}) // its end is told by the browser's, or by what cannot be sent
	h := w.Header()
	h.Set("Content-Type", "text/event-stream; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // nginx in between passes each event on at once
	packed := accepts(r, "gzip")
	send := func(plain, compressed []byte) bool {
		if packed {
			plain = compressed
		}
		_ = rc.SetWriteDeadline(time.Now().Add(writeWait))
		_, err := w.Write(plain)
		return err == nil && rc.Flush() == nil
	}
	if packed {
		h.Set("Content-Encoding", "gzip")
	}
	if r.Method == http.MethodHead || !send(x.begin.plain, x.begin.packed) {
		return nil
	}
	have := r.Header.Get("Last-Event-ID") // who comes again with the newest picture needs no other
	entitled := func() bool {             // roles change while a stream is open
		return s.deps.Still == nil || s.deps.Still(r.Context(), methodPrefix+e.method) == nil
	}
	idle := time.NewTimer(x.beat)
	defer idle.Stop()
	for {
		ok := true
		select {
		case next := <-events:
			if again := have != "" && next.id == have; !again {
				ok = entitled() && send(next.plain, next.packed)
			}
			have = ""
		case <-idle.C:
			ok = entitled() && send(x.still.plain, x.still.packed)
		case <-r.Context().Done():
			return nil
		case <-x.ctx.Done():
			return nil
		}
		if !ok {
			return nil
		}
		idle.Reset(x.beat)
	}
}
