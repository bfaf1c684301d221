package access

import (
	"container/list"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

const (
	// HandshakeWait is how long a connection may take to greet (TLS and HTTP/2). gRPC's own 120 s
	// would keep as many connections of a peer that says nothing.
	HandshakeWait = 10 * time.Second
	// visitWait is how long a connection may stay that shows no certificate, where it may enrol without one.
	visitWait = 30 * time.Second
	// handshakeShare is how long a handshake has before it can be made to give way to a new one: many times what one
	// takes, so that those of good clients come to an end.
	handshakeShare = time.Second
	// burstTime is how many seconds' worth of a rate may come at once.
	burstTime = 10 * time.Second
	// maxLocal bounds the connections of this host's own programs, without TLS, that have not greeted.
	maxLocal = 4096
	// maxSources bounds the sources that are remembered, at some 100 bytes each.
	maxSources = 65536
	// knownFor is how long a source counts as one that has shown a certificate.
	knownFor = 24 * time.Hour
)

// The reasons why connections are refused, as labels.
const (
	tooManyHandshakes        = "handshakes"
	tooManyHandshakesOfOne   = "source_handshakes"
	tooFast                  = "rate"
	tooFastOfOne             = "source_rate"
	tooManyConnectionsOfOne  = "source_connections"
	tooManySources           = "sources"
	gaveWay, failedHandshake = "gave_way", "failed"
	struckOut                = "refused_calls"
)

// what the reasons mean, for the log.
var explained = map[string]string{
	tooManyHandshakes:       "aggregator.limits.max_handshakes are under way",
	tooManyHandshakesOfOne:  "a quarter of aggregator.limits.max_handshakes are under way from this address",
	tooFast:                 "more come than aggregator.limits.handshakes_per_second",
	tooFastOfOne:            "more come from this address than a tenth of aggregator.limits.handshakes_per_second",
	tooManyConnectionsOfOne: "this address has aggregator.limits.max_connections_per_source open",
	tooManySources:          "too many addresses come at a time",
	struckOut:               "1000 calls on it were refused",
	gaveWay:                 "it was the oldest that has shown no certificate, and gives way to a new one",
}

// Doors watches over the connections of all listeners until they have shown who they are. It is safe for
// concurrent use.
type Doors struct {
	log      *slog.Logger
	refusals refusals
	refused  *prometheus.CounterVec
	ended    *prometheus.CounterVec

	mu      sync.Mutex
	limits  Limits
	waiting list.List // of *caller: with TLS, that have shown no certificate, the oldest first
	// strangers counts those of them from sources that never have.
	strangers int
	local     list.List // of *caller: programs of this host that have not greeted
	open      int
	rate      bucketRate
	sources   map[netip.Addr]*source
	swept     time.Time
	callers   map[string]*caller // with TLS, by the other end's address
}

// source is where connections come from.
type source struct {
	waiting, open int
	rate          bucketRate
	known         time.Time // when it last showed a certificate
}

// bucketRate is a token bucket, as of a time. The zero value is full.
type bucketRate struct {
	used float64 // tokens
	at   time.Time
}

// take takes a token, if there is one of burst, which come back at a rate per second.
func (b *bucketRate) take(now time.Time, perSecond int) bool {
	b.settle(now, perSecond)
	if b.used+1 > float64(perSecond)*burstTime.Seconds() {
		return false
	}
	b.used++
	return true
}

func (b *bucketRate) settle(now time.Time, perSecond int) {
	if d := now.Sub(b.at); d > 0 {
		b.used = max(0, b.used-d.Seconds()*float64(perSecond))
	}
	b.at = now
}

// NewDoors returns Doors. limits must be valid.
func NewDoors(limits Limits, log *slog.Logger, registry prometheus.Registerer) *Doors {
	counter := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "httpctl", Subsystem: "access", Name: name, Help: help}, []string{"reason"})
	}
	d := &Doors{
		log: log, limits: limits, sources: map[netip.Addr]*source{}, callers: map[string]*caller{},
		refused: counter("refused_connections_total", "Connections that were closed before a handshake, by the limit that they would have exceeded."),
		ended:   counter("ended_connections_total", "Connections that failed or gave way before they had shown who they are, or were ended for calls that were refused."),
	}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	for _, reason := range []string{tooManyHandshakes, tooManyHandshakesOfOne, tooFast, tooFastOfOne, tooManyConnectionsOfOne, tooManySources} {
		d.refused.WithLabelValues(reason) // shown from the start, as 0
	}
	for _, reason := range []string{gaveWay, failedHandshake, struckOut} {
		d.ended.WithLabelValues(reason)
	}
	gauge := func(name, help string, value func() int) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "httpctl", Subsystem: "access", Name: name, Help: help}, func() float64 {
			d.mu.Lock()
			defer d.mu.Unlock()
			return float64(value())
		})
	}
	if registry != nil {
		registry.MustRegister(d.refused, d.ended,
			gauge("connections", "Connections that have shown who they are.", func() int { return d.open }),
			gauge("handshakes", "Connections that have not shown yet who they are.", func() int { return d.waiting.Len() + d.local.Len() }))
	}
	return d
}

// SetLimits changes the limits for connections from now on. limits must be valid.
func (d *Doors) SetLimits(limits Limits) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.limits = limits
}

// Guard returns a listener that accepts what the limits allow, and whose Close also ends the connections that have not
// greeted yet. gRPC waits for each of those when it stops, even when forced to, so that one peer that
// says nothing would hold up the end of the program. plain listeners are those without TLS, for programs of this host:
// for them only the number that has not greeted is bounded.
func (d *Doors) Guard(l net.Listener, plain bool) net.Listener {
	return &door{Listener: l, doors: d, plain: plain}
}

type door struct {
	net.Listener
	doors  *Doors
	plain  bool
	closed bool // guarded by doors.mu
}

// Accept implements net.Listener.
func (d *door) Accept() (net.Conn, error) {
	for {
		conn, err := d.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &caller{Conn: conn, door: d}
		closed, reason, victim := d.doors.admit(c, time.Now())
		switch {
		case closed:
			_ = conn.Close() // nobody is served any more
			return nil, net.ErrClosed
		case reason != "":
			d.doors.refused.WithLabelValues(reason).Inc()
			d.doors.tell(c, "a connection is refused before its handshake", reason)
			dismiss(conn)
			continue
		case victim != nil:
			d.doors.ended.WithLabelValues(gaveWay).Inc()
			d.doors.tell(victim, "a connection is ended", gaveWay)
			dismiss(victim.Conn) // whose handshake then fails
		}
		return c, nil
	}
}

// dismiss closes a connection at once, so that nothing of it stays with the kernel.
func dismiss(conn net.Conn) {
	if t, ok := conn.(*net.TCPConn); ok {
		_ = t.SetLinger(0) // or else it is closed the slow way
	}
	_ = conn.Close() // nothing was sent
}

func (d *Doors) tell(c *caller, what, reason string) {
	from := c.addr.String()
	if !c.addr.IsValid() { // on a Unix socket
		from = c.Conn.LocalAddr().String()
	}
	if held, ok := d.refusals.pass(time.Now(), reason+" "+from); ok {
		d.log.Warn(what, "peer", from, "reason", explained[reason], "others_since_last_logged", held)
	}
}

// admit decides about a new connection: whether the listener is closed, why it is refused, or who gives way to it.
func (d *Doors) admit(c *caller, now time.Time) (closed bool, reason string, victim *caller) {
	c.addr = sourceOf(c.Conn.RemoteAddr())
	c.since = now
	d.mu.Lock()
	defer d.mu.Unlock()
	if c.door.closed {
		return true, "", nil
	}
	if c.door.plain {
		if d.local.Len() >= maxLocal {
			victim = d.oldest(&d.local, now, func(o *caller) bool { return true })
			if victim == nil {
				return false, tooManyHandshakes, nil
			}
			victim.leave()
		}
		c.at, c.in = d.local.PushBack(c), &d.local
		return false, "", victim
	}
	s := d.source(c.addr, now)
	if s == nil {
		return false, tooManySources, nil
	}
	// Strangers never take all the room: a quarter is for who has shown a certificate before.
	c.known = !s.known.IsZero() && now.Sub(s.known) < knownFor
	full, match := d.waiting.Len() >= d.limits.MaxHandshakes, func(*caller) bool { return true }
	if !c.known {
		full, match = d.strangers >= d.limits.handshakesOfStrangers(), func(o *caller) bool { return !o.known }
	}
	switch {
	case s.open >= d.limits.MaxConnectionsPerSource:
		return false, tooManyConnectionsOfOne, nil
	case !s.rate.take(now, d.limits.rateOfSource()):
		return false, tooFastOfOne, nil
	case !c.known && !d.rate.take(now, d.limits.HandshakesPerSecond):
		return false, tooFast, nil
	case s.waiting >= d.limits.handshakesOfSource():
		if victim = d.oldest(&d.waiting, now, func(o *caller) bool { return o.addr == c.addr }); victim == nil {
			return false, tooManyHandshakesOfOne, nil
		}
	case full:
		if victim = d.oldest(&d.waiting, now, match); victim == nil {
			return false, tooManyHandshakes, nil
		}
	}
	if victim != nil {
		victim.leave()
	}
	c.at, c.in, c.source = d.waiting.PushBack(c), &d.waiting, s
	d.callers[c.Conn.RemoteAddr().String()] = c
	s.waiting++
	if !c.known {
		d.strangers++
	}
	return false, "", victim
}

// oldest returns the one in a list that waits longest and that match takes, if it had its time.
func (d *Doors) oldest(in *list.List, now time.Time, match func(*caller) bool) *caller {
	for e := in.Front(); e != nil; e = e.Next() {
		o := e.Value.(*caller)
		if now.Sub(o.since) < handshakeShare {
			return nil
		}
		if match(o) {
			return o
		}
	}
	return nil
}

// source returns what is known of an address, nil if there are too many.
func (d *Doors) source(addr netip.Addr, now time.Time) *source {
	s := d.sources[addr]
	if s != nil {
		return s
	}
	if len(d.sources) >= maxSources {
		d.sweep(now)
	}
	if len(d.sources) >= maxSources {
		return nil
	}
	s = &source{}
	d.sources[addr] = s
	return s
}

// sweep forgets the sources of which nothing has to be remembered; where that makes no room, those that have shown a
// certificate and are away, too. It looks at all of them, so it does once a second at most.
func (d *Doors) sweep(now time.Time) {
	if now.Sub(d.swept) < time.Second {
		return
	}
	d.swept = now
	for _, all := range []bool{false, true} {
		for addr, s := range d.sources {
			s.rate.settle(now, d.limits.rateOfSource())
			if s.waiting == 0 && s.open == 0 && s.rate.used == 0 && (all || s.known.IsZero() || now.Sub(s.known) >= knownFor) {
				delete(d.sources, addr)
			}
		}
		if len(d.sources) < maxSources {
			return
		}
	}
}

// sourceOf is the IPv4 address, or the network of an IPv6 address that one host commonly has to choose from.
func sourceOf(addr net.Addr) netip.Addr {
	t, ok := addr.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	ip := t.AddrPort().Addr().Unmap().WithZone("")
	if ip.Is6() {
		if p, err := ip.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return ip
}

// Close ends the listener and the connections at the door.
func (d *door) Close() error {
	err := d.Listener.Close()
	d.doors.mu.Lock()
	defer d.doors.mu.Unlock()
	d.closed = true
	for _, in := range []*list.List{&d.doors.waiting, &d.doors.local} {
		for e := in.Front(); e != nil; {
			c := e.Value.(*caller)
			if e = e.Next(); c.door == d {
				c.leave()
				_ = c.Conn.Close() // whose greeting then fails
			}
		}
	}
	return err
}

// caller is a connection that was accepted.
type caller struct {
	net.Conn
	door   *door
	addr   netip.Addr
	since  time.Time
	source *source // nil without TLS
	known  bool    // its source has shown a certificate before

	// Guarded by Doors.mu.
	at      *list.Element // nil once it waits no longer
	in      *list.List
	trusted bool // has shown a certificate
	open    bool
	strikes int // calls refused
	visit   *time.Timer
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

// enter notes that the connection has greeted. One that has shown no certificate goes on counting as a stranger's, and
// may not stay.
func (c *caller) enter() {
	d := c.door.doors
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case c.at == nil:
	case c.trusted || c.source == nil:
		c.leave()
		c.open = true
		d.open++
		if c.source != nil {
			c.source.open++
			c.source.known = time.Now()
		}
	case c.visit == nil:
		c.visit = time.AfterFunc(visitWait, func() { _ = c.Close() }) // its time is over
	}
}

// leave takes the connection off those that wait. The caller holds the lock.
func (c *caller) leave() {
	if c.at == nil {
		return
	}
	c.in.Remove(c.at)
	c.at = nil
	if c.source != nil {
		c.source.waiting--
		if !c.known {
			c.door.doors.strangers--
		}
	}
	if c.visit != nil {
		c.visit.Stop()
	}
}

// Close ends the connection.
func (c *caller) Close() error {
	d := c.door.doors
	d.mu.Lock()
	if c.at != nil && c.visit == nil {
		d.ended.WithLabelValues(failedHandshake).Inc()
	}
	if key := c.Conn.RemoteAddr().String(); d.callers[key] == c {
		delete(d.callers, key)
	}
	c.leave()
	if c.open {
		c.open = false
		d.open--
		if c.source != nil {
			c.source.open--
		}
	}
	d.mu.Unlock()
	return c.Conn.Close()
}

// strike notes that a call of a peer was refused, and ends its connection when there were too many.
func (d *Doors) strike(p *peer.Peer) {
	local, _ := p.AuthInfo.(localInfo) // whose address may be none: those on a Unix socket are all called the same
	d.mu.Lock()
	c := local.at
	if c == nil {
		c = d.callers[p.Addr.String()]
	}
	if c == nil {
		d.mu.Unlock()
		return
	}
	c.strikes++
	out := c.strikes == maxStrikes
	d.mu.Unlock()
	if out {
		d.ended.WithLabelValues(struckOut).Inc()
		d.tell(c, "a connection is ended", struckOut)
		dismiss(c.Conn) // gRPC sees its end, and closes it
	}
}

// Watch returns credentials that tell the door which connections have shown a certificate.
func Watch(creds credentials.TransportCredentials) credentials.TransportCredentials {
	return watched{creds}
}

type watched struct {
	credentials.TransportCredentials
}

// ServerHandshake implements credentials.TransportCredentials.
func (w watched) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	secure, info, err := w.TransportCredentials.ServerHandshake(conn)
	if err != nil {
		return secure, info, err
	}
	if c, ok := conn.(*caller); ok {
		t, ok := info.(credentials.TLSInfo)
		d := c.door.doors
		d.mu.Lock()
		c.trusted = ok && len(t.State.VerifiedChains) > 0
		d.mu.Unlock()
	}
	return secure, info, nil
}

// Clone implements credentials.TransportCredentials.
func (w watched) Clone() credentials.TransportCredentials {
	return watched{w.TransportCredentials.Clone()}
}
