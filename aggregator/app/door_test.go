package app

import (
	"bytes"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
)

// TestDoor: connections that have not greeted do not hold up a stop; one that has is dismissed with HTTP/2's goodbye.
func TestDoor(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := newDoor(l)
	server := grpc.NewServer(grpc.ConnectionTimeout(handshakeWait))
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
	waiting := func() int { d.mu.Lock(); defer d.mu.Unlock(); return len(d.waiting) }
	for end := time.Now().Add(5 * time.Second); waiting() != 6 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	// The one that greeted is settled when it has its answer to a ping.
	ping := []byte("\x00\x00\x08\x06\x00\x00\x00\x00\x0012345678")
	if _, err := greeted.Write(ping); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 0, 100)
	_ = greeted.SetReadDeadline(time.Now().Add(5 * time.Second))
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
	if took := time.Since(begin); took > 4*time.Second { // handshakeWait without the door
		t.Errorf("the server stopped after %s", took)
	}
}
