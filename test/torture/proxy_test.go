package torture

import (
	"context"
	"net"
	"os"
	"sync"
	"testing"
	"time"
)

// proxy stands between an agent and the aggregator, on Unix sockets, and treats
// what passes badly when told to.
type proxy struct {
	listener net.Listener
	upstream string
	running  sync.WaitGroup
	// sent gives a value when a bucket begins to pass, unless nobody has taken the last one.
	sent chan struct{}

	mu    sync.Mutex
	links map[*link]bool
	// blocked: nothing passes, whatever else is done. Set while the disk of its agent is full, so that
	// it has to hold more than before.
	blocked bool
	mood    event // what is done now; lasts 0: nothing
	until   time.Time
}

// link is one connection through a proxy.
type link struct {
	p         *proxy
	near, far net.Conn // the agent's side, the aggregator's
	closing   sync.Once
	closed    chan struct{}

	mu   sync.Mutex
	left int    // bytes that pass before a cut
	held []byte // what the agent has sent and the aggregator shall get late
}

func newProxy(t *testing.T, path, upstream string, sent chan struct{}) *proxy {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: l, upstream: upstream, sent: sent, links: map[*link]bool{}}
	p.running.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			p.running.Go(func() { p.serve(near) })
		}
	})
	t.Cleanup(p.close)
	return p
}

func (p *proxy) close() {
	p.listener.Close()
	p.mu.Lock()
	for l := range p.links {
		l.close()
	}
	p.mu.Unlock()
	p.running.Wait()
}

func (l *link) close() {
	l.closing.Do(func() {
		close(l.closed)
		l.near.Close()
		l.far.Close()
	})
}

// now returns what is to be done at this moment.
func (p *proxy) now() event {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.blocked {
		return event{kind: stall}
	}
	if time.Now().After(p.until) {
		return event{kind: kinds}
	}
	return p.mood
}

func (p *proxy) serve(near net.Conn) {
	far, err := net.Dial("unix", p.upstream)
	if err != nil { // the aggregator is away
		near.Close()
		return
	}
	l := &link{p: p, near: near, far: far, closed: make(chan struct{})}
	p.mu.Lock()
	p.links[l] = true
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.links, l)
		p.mu.Unlock()
	}()
	var back sync.WaitGroup
	back.Go(func() {
		l.copy(far, near, false)
		l.close()
	})
	l.copy(near, far, true)
	l.late()
	l.close()
	back.Wait()
}

// late sends what was held back, when the agent has begun anew, and lets the aggregator take it.
func (l *link) late() {
	l.mu.Lock()
	held := l.held
	l.mu.Unlock()
	if len(held) == 0 {
		return
	}
	l.near.Close()
	l.sleep(700 * time.Millisecond)
	if _, err := l.far.Write(held); err == nil {
		l.sleep(300 * time.Millisecond)
	}
}

func (l *link) sleep(d time.Duration) {
	select {
	case <-l.closed:
	case <-time.After(d):
	}
}

// bucketBytes is more than anything takes that an agent sends besides buckets with requests.
const bucketBytes = 300

// copy passes bytes in one direction until it ends, or is made to.
func (l *link) copy(from, to net.Conn, toAggregator bool) {
	buffer := make([]byte, 16<<10)
	for {
		n, err := from.Read(buffer)
		data := buffer[:n]
		if toAggregator && n > bucketBytes {
			select {
			case l.p.sent <- struct{}{}:
			default:
			}
		}
		for l.p.now().kind == stall && err == nil {
			l.sleep(20 * time.Millisecond)
			select {
			case <-l.closed:
				return
			default:
			}
		}
		switch e := l.p.now(); e.kind {
		case cut:
			l.mu.Lock()
			l.left -= n
			over := l.left
			l.mu.Unlock()
			if over < 0 {
				_, _ = to.Write(data[:max(0, n+over)])
				return
			}
		case oneWay:
			if !toAggregator {
				if err != nil {
					return
				}
				continue // its end follows
			}
		case reorder:
			if toAggregator {
				l.mu.Lock()
				l.held = append(l.held, data...)
				over := len(l.held) > 1<<20
				l.mu.Unlock()
				if err != nil || over {
					return
				}
				continue
			}
		case dribble:
			for len(data) > 0 {
				k := min(len(data), 1+len(data)%7)
				if _, err := to.Write(data[:k]); err != nil {
					return
				}
				data = data[k:]
				l.sleep(time.Millisecond)
			}
		}
		if len(data) > 0 {
			if _, err := to.Write(data); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (p *proxy) block(blocked bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.blocked = blocked
}

// do has something done to all connections, until it is over.
func (p *proxy) do(ctx context.Context, e event) {
	p.mu.Lock()
	p.mood, p.until = e, time.Now().Add(e.lasts)
	for l := range p.links {
		l.mu.Lock()
		l.left = e.n
		l.mu.Unlock()
	}
	p.mu.Unlock()
	select {
	case <-ctx.Done():
	case <-time.After(e.lasts):
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.until = time.Time{}
	for l := range p.links {
		switch e.kind {
		case oneWay:
			l.close()
		case reorder:
			// Its reader ends, and sends what was held back.
			_ = l.near.SetReadDeadline(time.Now())
		}
	}
}
