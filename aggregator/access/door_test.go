package access

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/httpctl/httpctl/pkg/security"
	"github.com/httpctl/httpctl/pkg/testkit"
	httpctlv1 "github.com/httpctl/httpctl/proto/httpctl/v1"
)

// TestDoor: connections that have not greeted do not hold up a stop; one that has is dismissed with HTTP/2's goodbye.
func TestDoor(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	doors := NewDoors(DefaultLimits(), nil, nil)
	d := doors.Guard(l, true)
	server := grpc.NewServer(grpc.ConnectionTimeout(HandshakeWait))
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := server.Serve(d); err != nil {
			t.Error(err)
		}
	})
	dial := func(text string) net.Conn {
		t.Helper()
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if _, err := c.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		return c
	}
	const greeting = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + "\x00\x00\x00\x04\x00\x00\x00\x00\x00" // RFC 9113 section 3.4
	greeted := dial(greeting)
	for range 3 {
		dial("")
		dial(greeting[:10])
	}
	waiting := func() int { doors.mu.Lock(); defer doors.mu.Unlock(); return doors.local.Len() }
	for end := time.Now().Add(3 * time.Minute); waiting() != 6 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	// The one that greeted is settled when it has its answer to a ping.
	ping := []byte("\x00\x00\x08\x06\x00\x00\x00\x00\x0012345678")
	if _, err := greeted.Write(ping); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 0, 100)
	_ = greeted.SetReadDeadline(time.Now().Add(3 * time.Minute))
	for b := make([]byte, 100); !bytes.Contains(answer, ping[9:]); {
		n, err := greeted.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		answer = append(answer, b[:n]...)
	}
	if n := waiting(); n != 6 {
		t.Errorf("%d connections wait at the door, want 6", n)
	}
	begin := time.Now()
	wg.Go(server.GracefulStop)
	goodbye := make([]byte, 9+8)
	if _, err := io.ReadFull(greeted, goodbye); err != nil || goodbye[3] != 7 {
		t.Fatalf("whoever had greeted got %x, %v, want GOAWAY", goodbye, err)
	}
	if _, err := greeted.Write([]byte("\x00\x00\x08\x06\x01\x00\x00\x00\x00\x01\x06\x01\x08\x00\x03\x03\x09")); err != nil { // the ping that follows, answered
		t.Fatal(err)
	}
	wg.Wait()
	if took := time.Since(begin); took > 8*time.Second { // HandshakeWait without the door
		t.Errorf("the server stopped after %s", took)
	}
}

// arrive has a connection come to a door from an address at a time, without a network.
func arrive(d *Doors, at *door, address string, now time.Time) (c *caller, reason string, victim *caller) {
	near, far := net.Pipe()
	near.Close()
	c = &caller{Conn: from{far, net.TCPAddrFromAddrPort(netip.MustParseAddrPort(address))}, door: at}
	_, reason, victim = d.admit(c, now)
	return c, reason, victim
}

// from is a connection that seems to come from an address.
type from struct {
	net.Conn
	remote net.Addr
}

func (f from) RemoteAddr() net.Addr { return f.remote }

// showCertificate ends the handshake of a connection well.
func (c *caller) showCertificate() {
	c.trusted = true
	c.enter()
}

// TestHandshakeLimits: how many handshakes one source, strangers and all may have under way, and who gives way.
func TestHandshakeLimits(t *testing.T) {
	now := time.Unix(1e9, 0)
	d := NewDoors(Limits{MaxHandshakes: 16, HandshakesPerSecond: 1000, MaxConnectionsPerSource: 3}, nil, nil)
	at := &door{doors: d}
	come := func(address, want string) *caller {
		t.Helper()
		c, reason, victim := arrive(d, at, address, now)
		if victim != nil {
			reason = gaveWay + " " + victim.addr.String()
		}
		if reason != want {
			t.Errorf("a connection from %s: %q, want %q", address, reason, want)
		}
		return c
	}
	for range 4 {
		come("192.0.2.1:1", "")
	}
	come("192.0.2.1:1", tooManyHandshakesOfOne) // a quarter of 16 are its own
	come("[::ffff:192.0.2.1]:1", tooManyHandshakesOfOne)
	for i := range 4 {
		come([]string{"[2001:db8::1]:1", "[2001:db8::2]:1", "[2001:db8:0:0:ffff::]:1", "[2001:db8::1%eth0]:1"}[i], "")
	}
	come("[2001:db8::3]:1", tooManyHandshakesOfOne) // one network
	agent := come("198.51.100.1:1", "")
	agent.showCertificate()
	for range 4 {
		come("192.0.2.2:1", "")
	}
	come("192.0.2.3:1", tooManyHandshakes) // three quarters of 16 are strangers'
	for i := range 4 {                     // and the rest is for who has shown a certificate
		c := come("198.51.100.1:1", "")
		if i >= 2 {
			c.showCertificate()
		}
	}
	come("198.51.100.1:1", tooManyConnectionsOfOne)
	if d.open != 3 || d.waiting.Len() != 14 || d.strangers != 12 {
		t.Errorf("%d open, %d wait, %d of them strangers, want 3, 14, 12", d.open, d.waiting.Len(), d.strangers)
	}
	agent.Close()
	agent.Close()
	come("198.51.100.1:1", "")
	now = now.Add(handshakeShare)
	come("192.0.2.1:1", "gave_way 192.0.2.1")
	come("192.0.2.3:1", "gave_way 192.0.2.1")
	come("198.51.100.1:1", "")
	come("198.51.100.2:1", "gave_way 192.0.2.1")
	d.SetLimits(Limits{MaxHandshakes: 64, HandshakesPerSecond: 1000, MaxConnectionsPerSource: 3})
	come("192.0.2.4:1", "")
	if d.waiting.Len() > 18 || d.strangers > 14 {
		t.Errorf("%d wait, %d of them strangers", d.waiting.Len(), d.strangers)
	}
}

// TestHandshakeRates: new connections a second, of one source and of all that nobody knows.
func TestHandshakeRates(t *testing.T) {
	now := time.Unix(1e9, 0)
	d := NewDoors(Limits{MaxHandshakes: 1 << 20, HandshakesPerSecond: 100, MaxConnectionsPerSource: 1 << 20}, nil, nil)
	at := &door{doors: d}
	count := func(address func(i int) string, n int, want map[string]int) {
		t.Helper()
		got := map[string]int{}
		for i := range n {
			c, reason, _ := arrive(d, at, address(i), now)
			got[reason]++
			if reason == "" {
				c.Close()
			}
		}
		if !maps.Equal(got, want) {
			t.Errorf("at %s: %v, want %v", now.UTC().Format(time.TimeOnly), got, want)
		}
	}
	one := func(address string) func(int) string { return func(int) string { return address } }
	many := func(i int) string { return fmt.Sprintf("203.0.%d.%d:1", i/250%250, i%250) }
	agent, _, _ := arrive(d, at, "198.51.100.1:1", now)
	agent.showCertificate()
	count(one("192.0.2.1:1"), 200, map[string]int{"": 100, tooFastOfOne: 100}) // ten seconds' worth of a tenth
	count(many, 2000, map[string]int{"": 899, tooFast: 1101})                  // of all: 1000, less what came before
	count(one("192.0.2.2:1"), 10, map[string]int{tooFast: 10})
	count(one("198.51.100.1:1"), 200, map[string]int{"": 99, tooFastOfOne: 101}) // one that is known: as ever
	now = now.Add(time.Second)
	count(one("192.0.2.1:1"), 20, map[string]int{"": 10, tooFastOfOne: 10})
	count(many, 200, map[string]int{"": 90, tooFast: 110})
	now = now.Add(-time.Hour) // a clock set back lends nothing
	count(one("192.0.2.1:1"), 5, map[string]int{tooFastOfOne: 5})
}

// TestSourcesAreBounded: strangers from any number of addresses take no more memory, and those that are connected stay known.
func TestSourcesAreBounded(t *testing.T) {
	now := time.Unix(1e9, 0)
	d := NewDoors(Limits{MaxHandshakes: 1 << 20, HandshakesPerSecond: 1 << 20, MaxConnectionsPerSource: 10}, nil, nil)
	at := &door{doors: d}
	agent, _, _ := arrive(d, at, "198.51.100.1:1", now)
	agent.showCertificate()
	refused := 0
	for i := range 2*maxSources + 10 {
		c, reason, _ := arrive(d, at, fmt.Sprintf("10.%d.%d.%d:1", i>>16, i>>8&255, i&255), now)
		if reason == "" {
			c.Close()
		} else {
			refused++
		}
		if i%1000 == 0 {
			now = now.Add(time.Second)
		}
	}
	if len(d.sources) > maxSources || refused > 2000 {
		t.Errorf("%d sources are remembered, %d connections refused", len(d.sources), refused)
	}
	if s := d.sources[agent.addr]; s == nil || s.open != 1 {
		t.Error("the agent that is connected is forgotten")
	}
	for range 10 { // a full table of who may not be forgotten
		now = now.Add(time.Second)
	}
	for i := range maxSources + 10 {
		arrive(d, at, fmt.Sprintf("11.%d.%d.%d:1", i>>16, i>>8&255, i&255), now)
	}
	if _, reason, _ := arrive(d, at, "192.0.2.1:1", now); reason != tooManySources {
		t.Errorf("with too many sources that wait: %q, want %q", reason, tooManySources)
	}
}

// TestPlainDoor: programs of this host are held to the number that has not greeted only.
func TestPlainDoor(t *testing.T) {
	now := time.Unix(1e9, 0)
	d := NewDoors(Limits{MaxHandshakes: 4, HandshakesPerSecond: 10, MaxConnectionsPerSource: 1}, nil, nil)
	at := &door{doors: d, plain: true}
	var first *caller
	for range maxLocal {
		c, reason, victim := arrive(d, at, "127.0.0.1:1", now)
		if reason != "" || victim != nil {
			t.Fatalf("refused: %s, %v", reason, victim)
		}
		if first == nil {
			first = c
		}
	}
	if _, reason, _ := arrive(d, at, "127.0.0.1:1", now); reason != tooManyHandshakes {
		t.Errorf("one too many: %q, want %q", reason, tooManyHandshakes)
	}
	now = now.Add(handshakeShare)
	if _, reason, victim := arrive(d, at, "127.0.0.1:1", now); reason != "" || victim != first {
		t.Errorf("later: %q, want the oldest to give way", reason)
	}
}

// TestVisits: who has shown no certificate counts as a stranger's connection after its handshake, too, and may not stay.
func TestVisits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := NewDoors(DefaultLimits(), nil, nil)
		near, far := net.Pipe()
		c := &caller{Conn: from{far, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1)}}, door: &door{doors: d}}
		count := func() (waiting, open int) { d.mu.Lock(); defer d.mu.Unlock(); return d.waiting.Len(), d.open }
		d.admit(c, time.Now())
		c.enter()
		if waiting, open := count(); waiting != 1 || open != 0 {
			t.Errorf("%d wait, %d are open, want 1 and 0", waiting, open)
		}
		begin := time.Now()
		if _, err := near.Read(make([]byte, 1)); err != io.EOF || time.Since(begin) != visitWait {
			t.Errorf("the connection ended with %v after %s, want %s", err, time.Since(begin), visitWait)
		}
		synctest.Wait()
		if waiting, _ := count(); waiting != 0 {
			t.Errorf("%d wait, want 0", waiting)
		}
	})
}

// TestStrangersDoNotKeepAgentsOut: while strangers of many addresses connect as fast as they can and say nothing, half of
// a handshake, or something else, an agent that is connected is answered, one that was comes back, and a new one comes in.
func TestStrangersDoNotKeepAgentsOut(t *testing.T) {
	certs := testkit.NamedCertificates(t, map[string]netip.Addr{"center": netip.MustParseAddr("127.0.0.1"), "bob": {}}, map[string]string{"bob": "spiffe://fleet/viewer/bob"})
	files := func(name string) security.TLS {
		return security.TLS{CertFile: certs + "/" + name + ".pem", KeyFile: certs + "/" + name + ".key", CAFile: certs + "/ca.pem"}
	}
	secure, err := security.ServerCredentials(files("center"), nil)
	if err != nil {
		t.Fatal(err)
	}
	var log lines
	limits := Limits{MaxHandshakes: 32, HandshakesPerSecond: 1000, MaxConnectionsPerSource: 10}
	d := NewDoors(limits, slog.New(slog.NewTextHandler(&log, nil)), prometheus.NewRegistry())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := New(Roles{}, Deps{TrustDomain: "fleet"})
	server := grpc.NewServer(append(g.ServerOptions(), grpc.Creds(Watch(secure)), grpc.ConnectionTimeout(HandshakeWait))...)
	httpctlv1.RegisterQueryServiceServer(server, &answering{})
	var wg sync.WaitGroup
	wg.Go(func() { _ = server.Serve(d.Guard(l, false)) })
	defer wg.Wait()
	defer server.Stop()

	dialFrom := func(ip string) func(context.Context, string) (net.Conn, error) {
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
		return func(ctx context.Context, address string) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", address)
		}
	}
	ask := func(ip string) (again func() error, done func()) {
		t.Helper()
		creds, err := security.ClientCredentials(files("bob"))
		if err != nil {
			t.Fatal(err)
		}
		conn, err := grpc.NewClient("passthrough:"+l.Addr().String(), grpc.WithTransportCredentials(creds), grpc.WithContextDialer(dialFrom(ip)),
			grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.2, MaxDelay: 300 * time.Millisecond}, MinConnectTimeout: 10 * time.Second}))
		if err != nil {
			t.Fatal(err)
		}
		c := httpctlv1.NewQueryServiceClient(conn)
		return func() error {
			ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
			defer cancel()
			_, err := c.GetStatus(ctx, &httpctlv1.GetStatusRequest{}, grpc.WaitForReady(true))
			return err
		}, func() { conn.Close() }
	}
	connected, done := ask("127.0.1.1")
	defer done()
	if err := connected(); err != nil {
		t.Fatal(err)
	}

	ctx, stop := context.WithCancel(t.Context())
	var strangers sync.WaitGroup
	defer strangers.Wait()
	defer stop()
	for i := range 40 {
		dial := dialFrom(fmt.Sprintf("127.0.2.%d", 1+i%20))
		strangers.Go(func() {
			var held []net.Conn
			defer func() {
				for _, c := range held {
					c.Close()
				}
			}()
			for n := 0; ctx.Err() == nil; n++ {
				c, err := dial(ctx, l.Addr().String())
				if err != nil {
					continue
				}
				switch i % 4 {
				case 0: // nothing
				case 1:
					_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
				case 2: // half of a handshake
					_, _ = c.Write([]byte{22, 3, 1, 2, 0, 1})
				case 3: // all of it, without a certificate
					_ = c.SetDeadline(time.Now().Add(time.Second))
					_ = tls.Client(c, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}).Handshake()
				}
				if held = append(held, c); len(held) > 30 {
					held[0].Close()
					held = held[1:]
				}
				select {
				case <-ctx.Done():
				case <-time.After(10 * time.Millisecond):
				}
			}
		})
	}
	waiting := func() int { d.mu.Lock(); defer d.mu.Unlock(); return d.waiting.Len() }
	for end := time.Now().Add(3 * time.Minute); waiting() < limits.handshakesOfStrangers() && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	for i := range 20 {
		if err := connected(); err != nil {
			t.Fatalf("who is connected asks: %v", err)
		}
		if n := waiting(); n > limits.MaxHandshakes {
			t.Errorf("%d handshakes are under way, want at most %d", n, limits.MaxHandshakes)
		}
		again, done := ask("127.0.1.1")
		if err := again(); err != nil {
			t.Fatalf("who was here before comes back: %v", err)
		}
		done()
		if i%10 == 0 {
			fresh, done := ask(fmt.Sprintf("127.0.3.%d", 1+i))
			if err := fresh(); err != nil {
				t.Fatalf("a new one comes: %v", err)
			}
			done()
		}
	}
	counted := func(v *prometheus.CounterVec, reason string) float64 {
		r := prometheus.NewRegistry()
		r.MustRegister(v.WithLabelValues(reason))
		families, err := r.Gather()
		if err != nil {
			t.Fatal(err)
		}
		return families[0].GetMetric()[0].GetCounter().GetValue()
	}
	if n := counted(d.refused, tooManyHandshakes) + counted(d.refused, tooManyHandshakesOfOne); n == 0 {
		t.Error("no connection was refused: the strangers are too slow for this test")
	}
	if n := counted(d.ended, failedHandshake); n == 0 {
		t.Error("no handshake has failed")
	}
	if n := strings.Count(log.String(), "\n"); n == 0 || n > logBurst+10 {
		t.Errorf("the log has %d lines, want a few", n)
	}
}
