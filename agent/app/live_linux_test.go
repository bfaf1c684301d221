package app

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/httpctl/httpctl/agent/capture"
	"github.com/httpctl/httpctl/agent/inspect"
	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/exchange"
	"github.com/httpctl/httpctl/pkg/testkit"
)

// network makes two namespaces that a veth connects, 192.0.2.1 and 192.0.2.2, of which the first is that of
// the test's thread; both end with their threads. inside runs a function in the second.
func network(t *testing.T) (ip func(args ...string), inside func(func())) {
	t.Helper()
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("needs the program ip (iproute2)")
	}
	run := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
		}
	}
	calls, ready := make(chan func()), make(chan error)
	t.Cleanup(func() { close(calls) })
	tid := 0
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		tid = unix.Gettid()
		ready <- unix.Unshare(unix.CLONE_NEWNET)
		for f := range calls {
			f()
			ready <- nil
		}
	}()
	runtime.LockOSThread()
	if err := errors.Join(<-ready, unix.Unshare(unix.CLONE_NEWNET)); err != nil {
		t.Skipf("needs the capability CAP_SYS_ADMIN to make a network namespace: %v", err)
	}
	inside = func(f func()) { calls <- f; <-ready }
	run("link", "set", "lo", "up")
	run("link", "add", "v0", "type", "veth", "peer", "name", "v1")
	run("link", "set", "v1", "netns", fmt.Sprint(tid))
	run("addr", "add", "192.0.2.1/24", "dev", "v0")
	run("link", "set", "v0", "up")
	inside(func() {
		run("link", "set", "lo", "up")
		run("addr", "add", "192.0.2.2/24", "dev", "v1")
		run("link", "set", "v1", "up")
	})
	return run, inside
}

// seenFrames is what a live source shows before it is decoded.
type seenFrames struct {
	largest   int
	checksums int            // TCP checksums that are not those of the segment
	kinds     map[uint16]int // EtherTypes
}

// counting wraps a ring.
type counting struct {
	capture.Source
	mu   *sync.Mutex
	seen *seenFrames
}

func (c counting) Next(ps []capture.Packet) (int, error) {
	n, err := c.Source.Next(ps)
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range ps[:n] {
		c.seen.count(&ps[i])
	}
	return n, err
}

func (s *seenFrames) count(p *capture.Packet) {
	if p.Link != 1 || len(p.Data) < 54 {
		return
	}
	s.largest = max(s.largest, p.Length)
	s.kinds[binary.BigEndian.Uint16(p.Data[12:])]++
	if b := p.Data[14:]; b[0] == 0x45 && b[9] == 6 {
		size := int(binary.BigEndian.Uint16(b[2:]))
		if size <= len(b) && onesComplement(b[12:20], []byte{0, 6}, binary.BigEndian.AppendUint16(nil, uint16(size-20)), b[20:size]) != 0xffff {
			s.checksums++
		}
	}
}

func onesComplement(parts ...[]byte) uint32 {
	sum := uint32(0)
	for _, b := range parts {
		for i := 0; i+1 < len(b); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(b[i:]))
		}
		if len(b)%2 == 1 {
			sum += uint32(b[len(b)-1]) << 8
		}
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return sum
}

// volume adds up the wire bytes of exchanges.
type volume struct{ up, down atomic.Uint64 }

func (v *volume) Observe(o *exchange.Observation) {
	v.up.Add(o.NewRequestWireBytes)
	v.down.Add(o.NewResponseWireBytes)
}

// watchLive counts what cfg captures while traffic runs, until it has seen so many requests and their outcomes.
func watchLive(t *testing.T, cfg capture.Config, requests uint64, traffic func()) (n exchange.Counters, v *volume, seen *seenFrames) {
	t.Helper()
	cfg.PollTimeout = 50 * time.Millisecond
	// A block is full after that time, however little is in it: so many last for a busy machine.
	cfg.RingSize, cfg.BlockSize = 64*config.MiB, 256*config.KiB
	rings := openRings(t, cfg)
	all := DefaultConfig()
	all.Capture = cfg
	local, err := newLocalAddresses(nil)
	if err != nil {
		t.Fatal(err)
	}
	seen, v = &seenFrames{kinds: map[uint16]int{}}, &volume{}
	var mu sync.Mutex
	var pipelines []*pipeline
	var running sync.WaitGroup
	var steps, width atomic.Int64
	width.Store(int64(time.Minute))
	for _, ring := range rings {
		p := newPipeline(counting{ring, &mu, seen}, all, 1024, v, local)
		p.live = &liveClock{
			idle: func() int64 { return time.Now().Add(-cfg.PollTimeout).UnixNano() }, wall: func() int64 { return time.Now().UnixNano() },
			advance: func(int64) {}, width: &width, steps: &steps,
		}
		pipelines = append(pipelines, p)
		running.Go(func() {
			if err := p.run(); err != nil {
				t.Error(err)
			}
		})
	}
	traffic()
	sum := func() (n exchange.Counters) {
		for _, p := range pipelines {
			if c := p.snapshot.Load(); c != nil {
				n.Add(c)
			}
		}
		return n
	}
	for deadline := time.Now().Add(3 * time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if n = sum(); n[exchange.Outcomes] >= requests {
			break
		}
	}
	time.Sleep(300 * time.Millisecond) // what is counted twice comes, too
	for _, ring := range rings {
		ring.Close()
	}
	running.Wait()
	n = sum()
	if n[exchange.Requests] != requests || n[exchange.Responses] != requests || n[exchange.Outcomes] != requests {
		t.Errorf("%d requests, %d responses, %d outcomes, want %d each", n[exchange.Requests], n[exchange.Responses], n[exchange.Outcomes], requests)
	}
	for c, count := range n {
		if c := exchange.Counter(c); count > 0 && (c.Loss() || c.OtherProtocol() || c == exchange.UnmatchedRequests || c == exchange.UnmatchedResponses) {
			t.Errorf("%s = %d, want 0", c, count)
		}
	}
	return n, v, seen
}

const (
	liveAsk    = "GET /large HTTP/1.1\r\nHost: example.org\r\n\r\n"
	liveAnswer = "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
)

// serve answers requests with bodies of a size, on a listener that listen makes.
func serve(t *testing.T, ln net.Listener, size int) {
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				request := make([]byte, len(liveAsk))
				for {
					if _, err := io.ReadFull(c, request); err != nil {
						return
					}
					if _, err := c.Write(append(fmt.Appendf(nil, liveAnswer, size), bytes.Repeat([]byte("x"), size)...)); err != nil {
						return
					}
				}
			}()
		}
	}()
}

// fetch makes connections, with so many requests on each, from the caller's thread.
func fetch(t *testing.T, address string, connections, requests, size int) {
	t.Helper()
	for range connections {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		for range requests {
			if _, err := io.WriteString(c, liveAsk); err != nil {
				t.Fatal(err)
			}
			if _, err := io.CopyN(io.Discard, c, int64(len(fmt.Sprintf(liveAnswer, size))+size)); err != nil {
				t.Fatal(err)
			}
		}
		c.Close()
	}
}

// TestLiveLoopbackOnce: each request on lo counts once, in frames of up to 64 KiB whose checksums nobody has
// filled in, by one ring and by two.
func TestLiveLoopbackOnce(t *testing.T) {
	network(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	const connections, each, size = 20, 5, 200_000
	serve(t, ln, size)
	for _, name := range []string{"lo", capture.Any} {
		for _, rings := range []int{1, 2} {
			cfg := capture.DefaultConfig()
			cfg.Interfaces, cfg.Rings = []string{name}, rings
			n, v, seen := watchLive(t, cfg, connections*each, func() { fetch(t, ln.Addr().String(), connections, each, size) })
			if up, down := v.up.Load(), v.down.Load(); up != connections*each*uint64(len(liveAsk)) || down != connections*each*uint64(len(fmt.Sprintf(liveAnswer, size))+size) {
				t.Errorf("%s, %d rings: %d bytes up, %d down", name, rings, up, down)
			}
			if n[exchange.Connections] != connections || seen.largest < 30_000 || seen.checksums == 0 {
				t.Errorf("%s, %d rings: %d connections, the largest frame has %d bytes, %d checksums are not filled in: want %d, large ones, some",
					name, rings, n[exchange.Connections], seen.largest, seen.checksums, connections)
			}
		}
	}
}

// TestLiveOffloads: a download over a veth in frames larger than its MTU, with checksums left to a device that
// isn't there, is whole, as it is in frames of one MTU.
func TestLiveOffloads(t *testing.T) {
	_, inside := network(t)
	var ln net.Listener
	var err error
	inside(func() { ln, err = net.Listen("tcp", "192.0.2.2:0") })
	if err != nil {
		t.Fatal(err)
	}
	const connections, each, size = 5, 4, 1_000_000
	serve(t, ln, size)
	for _, offload := range []bool{true, false} {
		if !offload {
			if _, err := exec.LookPath("ethtool"); err != nil {
				t.Skip("needs the program ethtool to turn offloads off")
			}
			off := func(device string) {
				if out, err := exec.Command("ethtool", "-K", device, "tso", "off", "gso", "off", "gro", "off", "tx", "off").CombinedOutput(); err != nil {
					t.Errorf("ethtool: %v: %s", err, out)
				}
			}
			off("v0")
			inside(func() { off("v1") })
		}
		for _, rings := range []int{1, 2} {
			cfg := capture.DefaultConfig()
			cfg.Interfaces, cfg.Rings = []string{"v0"}, rings
			_, v, seen := watchLive(t, cfg, connections*each, func() { fetch(t, ln.Addr().String(), connections, each, size) })
			if down := v.down.Load(); down != connections*each*uint64(len(fmt.Sprintf(liveAnswer, size))+size) {
				t.Errorf("offloads %v, %d rings: %d bytes down", offload, rings, down)
			}
			if offload != (seen.largest > 1514) || offload != (seen.checksums > 0) {
				t.Errorf("offloads %v, %d rings: the largest frame has %d bytes, %d checksums are not filled in", offload, rings, seen.largest, seen.checksums)
			}
		}
	}
}

// TestLiveTags: a connection in one or two VLAN tags, of which the kernel takes the first one off where they arrive and none
// where they are sent, is counted once, with and without a filter of ports, by one ring and by two.
func TestLiveTags(t *testing.T) {
	ip, _ := network(t)
	ip("link", "add", "t0", "type", "veth", "peer", "name", "t1") // both ends here: sent on one, arriving on the other
	ip("link", "set", "t0", "up")
	ip("link", "set", "t1", "up")
	device, err := net.InterfaceByName("t0")
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	const connections = 30
	port := uint16(10_000)
	for _, tags := range [][]byte{{0x81, 0, 0, 7}, {0x81, 0, 0x40, 7}, {0x88, 0xa8, 0, 5, 0x81, 0, 0, 7}} {
		for _, c := range []struct {
			rings int
			ports []uint16
		}{{1, nil}, {1, []uint16{80}}, {2, nil}, {2, []uint16{80}}} {
			sent := 0
			send := func() {
				for range connections {
					port++
					for _, v6 := range []bool{false, true} {
						client, server := netip.AddrPortFrom(netip.MustParseAddr("198.51.100.1"), port).String(), "198.51.100.2:80"
						if v6 {
							client, server = netip.AddrPortFrom(netip.MustParseAddr("2001:db8::1"), port).String(), "[2001:db8::2]:80"
						}
						talk := testkit.NewConversation(client, server)
						talk.MSS = 1400 // room for the tags
						talk.Open()
						talk.ToServer(liveAsk)
						talk.ToClient(fmt.Sprintf(liveAnswer, 3000) + strings.Repeat("x", 3000))
						talk.Close()
						for _, f := range talk.Frames {
							data := append(append(append([]byte{}, f.Data[:12]...), tags...), f.Data[12:]...)
							if err := unix.Sendto(fd, data, 0, &unix.SockaddrLinklayer{Ifindex: device.Index}); err != nil {
								t.Fatal(err)
							}
							sent++
						}
					}
				}
			}
			cfg := capture.DefaultConfig()
			cfg.Interfaces, cfg.Rings, cfg.Ports, cfg.RingSize = []string{"t0", "t1"}, c.rings, c.ports, 8*config.MiB
			_, v, seen := watchLive(t, cfg, 2*connections, send)
			if down := v.down.Load(); down != 2*connections*uint64(len(fmt.Sprintf(liveAnswer, 3000))+3000) {
				t.Errorf("tags %x, %+v: %d bytes down", tags, c, down)
			}
			outer := seen.kinds[binary.BigEndian.Uint16(tags)] // as sent
			arrived := seen.kinds[0x0800] + seen.kinds[0x86dd]
			if len(tags) > 4 {
				arrived = seen.kinds[0x8100]
			}
			if outer != sent || arrived < sent || arrived > sent+50 { // the devices say something of their own
				t.Errorf("tags %x, %+v: EtherTypes %v: want each of %d frames as sent, and without the first tag", tags, c, seen.kinds, sent)
			}
		}
	}
}

// TestInspectNamespaces: with another network namespace, what comes there counts, and its addresses are this host's.
func TestInspectNamespaces(t *testing.T) {
	_, inside := network(t)
	var ln net.Listener
	var err error
	path := ""
	inside(func() {
		path = fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid())
		ln, err = net.Listen("tcp", "192.0.2.2:0")
	})
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.NotFoundHandler()}
	var running sync.WaitGroup
	running.Go(func() { _ = server.Serve(ln) })
	stop := make(chan struct{})
	running.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
			inside(func() {
				if c, err := net.Dial("tcp", ln.Addr().String()); err == nil {
					fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: www.example.org\r\nConnection: close\r\n\r\n")
					_, _ = io.Copy(io.Discard, c)
					c.Close()
				}
			})
		}
	})
	defer func() {
		close(stop)
		server.Close()
		running.Wait()
	}()
	look := func(path string) *inspect.Findings {
		t.Helper()
		cfg := DefaultConfig()
		cfg.Capture.Interfaces, cfg.Capture.Namespaces, cfg.Capture.Rings = []string{"lo"}, []string{path}, 2
		cfg.Capture.RingSize, cfg.Capture.BlockSize, cfg.Capture.PollTimeout = 2*config.MiB, 256*config.KiB, 20*time.Millisecond
		f, err := Inspect(t.Context(), config.DefaultSettings(), cfg, 20*time.Millisecond, time.Second)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	f := look(path)
	for tries := 0; tries < 20 && f.Ended == 0; tries++ { // on a busy machine a second may pass without
		f = look(path)
	}
	if !f.Judge().Can || f.Counters[exchange.Requests] == 0 || f.Ended == 0 || f.Transit != 0 || !strings.Contains(f.Text(), "This host can capture on lo and in") {
		t.Errorf("%d requests, %d exchanges, %d of them between other hosts, want some and none:\n%s", f.Counters[exchange.Requests], f.Ended, f.Transit, f.Text())
	}
	if f := look("no-such"); f.Judge().Can || f.Failure != inspect.BadNamespace || f.Reason != "no-such: no such network namespace" {
		t.Errorf("a namespace that is not there:\n%s", f.Text())
	}
}
