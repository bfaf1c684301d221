package enroll

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	// burst is how many bad tokens in a row an address may show, and refill how long it then waits for each more.
	burst  = 5
	refill = 10 * time.Second
	// maxCallers bounds the addresses that are remembered.
	maxCallers = 10_000
)

// limiter bounds how many bad tokens come from an address. It is not what keeps them out, as nobody guesses
// 32 bytes, but it keeps their cost and their noise down. The zero value is ready; it is safe for concurrent use.
type limiter struct {
	mu      sync.Mutex
	callers map[netip.Prefix]caller
}

// caller is an address from which bad tokens came: how many it may still show, as of when.
type caller struct {
	left float64
	at   time.Time
}

func (c caller) now(now time.Time) caller {
	if d := now.Sub(c.at); d > 0 {
		c.left = min(burst, c.left+float64(d)/float64(refill))
	}
	c.at = now
	return c
}

// wait returns how long an address has to wait before it may show a token again.
func (l *limiter) wait(from net.Addr, now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	c, ok := l.callers[network(from)]
	if !ok {
		return 0
	}
	if c = c.now(now); c.left >= 1 {
		return 0
	}
	return time.Duration((1 - c.left) * float64(refill))
}

// failed notes that a bad token came from an address.
func (l *limiter) failed(from net.Addr, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.callers == nil {
		l.callers = map[netip.Prefix]caller{}
	}
	key := network(from)
	c, ok := l.callers[key]
	if !ok {
		l.makeRoom(now)
		c = caller{left: burst, at: now}
	}
	c = c.now(now)
	c.left = max(0, c.left-1)
	l.callers[key] = c
}

// makeRoom forgets those that may do all again and, where there are few of them, others: a
// quarter, so that it is seldom done.
func (l *limiter) makeRoom(now time.Time) {
	if len(l.callers) < maxCallers {
		return
	}
	for k, c := range l.callers {
		if c.now(now).left >= burst {
			delete(l.callers, k)
		}
	}
	for k := range l.callers {
		if len(l.callers) <= maxCallers*3/4 {
			return
		}
		delete(l.callers, k)
	}
}

// network is what counts as one address: of IPv6 a /64, as a host has all of it. Whatever has no
// address counts as one.
func network(from net.Addr) netip.Prefix {
	t, ok := from.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	ip := t.AddrPort().Addr().Unmap().WithZone("")
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	p, err := ip.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}
