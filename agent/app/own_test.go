package app

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/httpctl/httpctl/agent/capture"
	"github.com/httpctl/httpctl/agent/decode"
	"github.com/httpctl/httpctl/agent/uplink"
	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/exchange"
)

// emptyQueue has nothing to deliver.
type emptyQueue struct{}

func (emptyQueue) Next(uint64) (uint64, []byte, error)            { return 0, nil, nil }
func (emptyQueue) Replace(seq uint64, data []byte) error          { return nil }
func (emptyQueue) Settle(stored, expired, refused []uint64) error { return nil }
func (emptyQueue) Ready() <-chan struct{}                         { return nil }
func (emptyQueue) Len() int                                       { return 0 }
func (emptyQueue) Newest() uint64                                 { return 0 }

// TestOwnConnectionsAreNotCaptured has an uplink connect again and again, over IPv4 and IPv6: not
// one packet of these connections is captured, on rings with and without a port filter, while one
// of another program to the same address is.
func TestOwnConnectionsAreNotCaptured(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		ln, err := net.Listen("tcp", address)
		if err != nil {
			t.Skipf("needs %s: %v", address, err)
		}
		defer ln.Close()
		var mu sync.Mutex
		clients := map[netip.AddrPort]bool{}
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				mu.Lock()
				clients[c.RemoteAddr().(*net.TCPAddr).AddrPort()] = true
				mu.Unlock()
				c.Write([]byte("no gRPC here"))
				io.CopyN(io.Discard, c, 24) // HTTP/2's preface
				c.Close()
			}
		}()
		server := ln.Addr().(*net.TCPAddr).AddrPort()
		cfg := DefaultConfig()
		cfg.Capture.Interfaces, cfg.Capture.PollTimeout = []string{capture.Any}, 20*time.Millisecond
		rings := openRings(t, cfg.Capture)
		cfg.Capture.Ports = []uint16{server.Port(), 80}
		rings = append(rings, openRings(t, cfg.Capture)...)
		// Read from the beginning: what else is on this host would fill them.
		var over atomic.Bool
		var readers sync.WaitGroup
		seen := make([]map[netip.AddrPort]int, len(rings))
		for i, ring := range rings {
			seen[i] = map[netip.AddrPort]int{}
			readers.Go(func() {
				decoder := decode.New(decode.DefaultConfig(), new(exchange.Counters))
				for left := 50; left > 0; { // timeouts without a packet, or with others' only
					var p [1]capture.Packet
					var s decode.Segment
					switch _, err := ring.Next(p[:]); {
					case errors.Is(err, capture.ErrIdle):
						if over.Load() {
							left--
						}
					case err != nil:
						t.Error(err)
						return
					case !decoder.Decode(&p[0], &s):
					case s.Source() == server:
						seen[i][s.Destination()]++
					case s.Destination() == server:
						seen[i][s.Source()]++
					}
				}
			})
		}
		a := &Agent{cfg: cfg, rings: rings}
		cfg.Aggregator, cfg.BackoffMax = ln.Addr().String(), 500*time.Millisecond
		u, err := uplink.New(cfg.Config, uplink.Deps{
			Queue: emptyQueue{}, Identity: func() uplink.Identity { return uplink.Identity{Host: bucket.ID{1}} }, Connecting: a.connecting,
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := u.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		const others = 3
		dialed := 0
		for n, deadline := 0, time.Now().Add(3*time.Minute); n < 10+others; {
			if time.Now().After(deadline) {
				t.Fatalf("%d connections within three minutes", n)
			}
			mu.Lock()
			n = len(clients)
			mu.Unlock()
			if dialed < others && n > 4+2*dialed {
				dialed++
				c, err := net.Dial("tcp", ln.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				io.ReadAll(io.LimitReader(c, 12))
				c.Close()
			}
			time.Sleep(20 * time.Millisecond)
		}
		if err := u.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		over.Store(true)
		readers.Wait()
		for i, seen := range seen {
			captured := 0
			for client := range clients {
				if seen[client] > 0 {
					captured++
				}
			}
			if captured != len(seen) || captured != others {
				t.Errorf("%s, ring %d: %d of %d connections captured, %d of them accepted: want only the %d of another program",
					address, i, len(seen), len(clients), captured, others)
			}
		}
	}
}

// openRings opens rings, or skips the test.
func openRings(t *testing.T, cfg capture.Config) []*capture.Live {
	t.Helper()
	rings, err := capture.OpenLive(cfg)
	if errors.Is(err, os.ErrPermission) {
		t.Skipf("needs the capability CAP_NET_RAW: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, r := range rings {
			r.Close()
			for err := error(nil); err != io.EOF; _, err = r.Next(make([]capture.Packet, 1)) {
			}
		}
	})
	return rings
}
