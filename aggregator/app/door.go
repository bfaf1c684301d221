package app

import (
	"net"
	"sync"
	"time"
)

// handshakeWait is how long a connection may take to greet (TLS and HTTP/2). gRPC's own 120 s
// would keep as many connections of a peer that says nothing.
const handshakeWait = 10 * time.Second

// door is a listener whose Close also ends the connections that have not greeted yet. gRPC
// waits for each of those when it stops, even when forced to, so that one peer that says nothing
// would hold up the end of the program.
type door struct {
	net.Listener

	mu      sync.Mutex
	closed  bool
	waiting map[*caller]struct{}
}

func newDoor(l net.Listener) *door {
	return &door{Listener: l, waiting: map[*caller]struct{}{}}
}

func (d *door) Accept() (net.Conn, error) {
	conn, err := d.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &caller{Conn: conn, door: d}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		_ = conn.Close() // nobody is served any more
		return nil, net.ErrClosed
	}
	d.waiting[c] = struct{}{}
	return c, nil
}

// Close ends the listener and the connections at the door.
func (d *door) Close() error {
	err := d.Listener.Close()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	for c := range d.waiting {
		_ = c.Conn.Close() // whose greeting then fails
	}
	clear(d.waiting)
	return err
}

// caller is a connection that was accepted.
type caller struct {
	net.Conn
	door *door
}

// NetConn returns what was accepted.
func (c *caller) NetConn() net.Conn { return c.Conn }

// SetDeadline is called by gRPC before the greeting, and with no deadline once it is over.
func (c *caller) SetDeadline(t time.Time) error {
	if t.IsZero() {
		c.enter()
	}
	return c.Conn.SetDeadline(t)
}

// Close ends the connection.
func (c *caller) Close() error {
	c.enter()
	return c.Conn.Close()
}

// enter notes that the connection waits at the door no longer.
func (c *caller) enter() {
	c.door.mu.Lock()
	delete(c.door.waiting, c)
	c.door.mu.Unlock()
}
