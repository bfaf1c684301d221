package capture

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/httpctl/httpctl/pkg/config"
	"golang.org/x/sys/unix"
)

// openLive opens rings, or skips the test where that is not allowed.
func openLive(t *testing.T, cfg Config) []*Live {
	t.Helper()
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	if err != nil {
		t.Skipf("needs the capability CAP_NET_RAW: %v", err)
	}
	unix.Close(fd)
	cfg.PollTimeout = 20 * time.Millisecond
	if cfg.BlockSize == mostBlock { // a block is full after that time, however little is in it: so many last for a busy machine
		cfg.BlockSize = 256 * config.KiB
	}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	rings, err := OpenLive(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, l := range rings {
			if l.released {
				continue
			}
			l.Close()
			for err := error(nil); err != io.EOF; _, err = l.Next(make([]Packet, 64)) {
			}
		}
	})
	return rings
}

// until reads packets until done says so or nothing has come for idle timeouts in a row.
func until(t *testing.T, l *Live, idle int, done func(p *Packet) bool) {
	t.Helper()
	var ps [1]Packet // so that none is passed over
	for n := 0; n < idle; {
		switch _, err := l.Next(ps[:]); {
		case errors.Is(err, ErrIdle):
			n++
		case err != nil:
			t.Fatal(err)
		default:
			if done(&ps[0]) {
				return
			}
			l.Ahead() // changes nothing
		}
	}
}

// frame is what is kept of a packet: its first bytes.
type frame struct {
	head   []byte
	length int
	packet Packet
}

// record reads rings while a test goes on: a block that the kernel gives away after a timeout is lost to it until
// it is read, however little is in it. What it returns waits for silence, and gives what came by each ring.
func record(t *testing.T, rings []*Live) func() [][]frame {
	var stop atomic.Bool
	var readers sync.WaitGroup
	frames := make([][]frame, len(rings))
	for i, l := range rings {
		readers.Go(func() {
			ps := make([]Packet, 1)
			for idle := 0; idle < 25; {
				switch _, err := l.Next(ps); {
				case errors.Is(err, ErrIdle):
					if stop.Load() {
						idle++
					}
				case err != nil:
					t.Error(err)
					return
				default:
					p := &ps[0]
					f := frame{head: bytes.Clone(p.Data[:min(len(p.Data), 160)]), length: p.Length, packet: *p}
					f.packet.Data = nil
					frames[i] = append(frames[i], f)
				}
			}
		})
	}
	return func() [][]frame {
		stop.Store(true)
		readers.Wait()
		for i, l := range rings {
			if s := l.Stats(); s.Drops != 0 || s.Truncated != 0 {
				t.Errorf("ring %d: Stats() = %+v, want no drops", i, s)
			}
		}
		return frames
	}
}

// send sends n datagrams to address, each with mark and its number.
func send(t *testing.T, address, mark string, n int) {
	t.Helper()
	c, err := net.Dial("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i := range n {
		if _, err := fmt.Fprintf(c, "%s%06d", mark, i); err != nil {
			t.Fatal(err)
		}
	}
}

// sink returns the address of a socket that no one reads: what is sent there
// is not refused.
func sink(t *testing.T) string {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.LocalAddr().String()
}

// countOnce checks that each of n datagrams came exactly once.
func countOnce(t *testing.T, seen map[string]int, mark string, n int) {
	t.Helper()
	for i := range n {
		if got := seen[fmt.Sprintf("%s%06d", mark, i)]; got != 1 {
			t.Fatalf("datagram %d was captured %d times, want once", i, got)
		}
	}
}

func collect(mark string, n int, seen map[string]int) func(p *Packet) bool {
	total := 0
	return func(p *Packet) bool {
		if i := bytes.LastIndex(p.Data, []byte(mark)); i >= 0 && len(p.Data) == 14+20+8+len(mark)+6 {
			seen[string(p.Data[i:])]++
			total++
		}
		return total > n // never: what comes twice has to show
	}
}

func TestLiveLoopback(t *testing.T) {
	inNamespace(t)("link", "set", "lo", "up") // what other tests send on lo may fill the ring before it is read
	for _, name := range []string{"lo", Any} {
		cfg := DefaultConfig()
		cfg.Interfaces = []string{name}
		l := openLive(t, cfg)[0]
		const n = 500
		before := time.Now()
		send(t, sink(t), "loop", n)
		seen := map[string]int{}
		collected := collect("loop", n, seen)
		until(t, l, 25, func(p *Packet) bool {
			if at := time.Unix(0, p.Time); at.Before(before.Add(-time.Second)) || at.After(time.Now().Add(time.Second)) {
				t.Fatalf("captured at %v, sent at %v", at, before)
			}
			if p.Link != 1 || p.Length < len(p.Data) {
				t.Fatalf("packet %d has link %d, length %d of %d bytes", p.Number, p.Link, p.Length, len(p.Data))
			}
			return collected(p)
		})
		countOnce(t, seen, "loop", n)
		if s := l.Stats(); s.Drops != 0 || s.Packets < n {
			t.Errorf("%s: Stats() = %+v, want %d packets or more and no drops", name, s, n)
		}
	}
}

// TCP over loopback: every byte of the stream once, with the port filter in the kernel.
func TestLivePorts(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	cfg := DefaultConfig()
	cfg.Interfaces = []string{"lo"}
	cfg.Ports = []uint16{uint16(ln.Addr().(*net.TCPAddr).Port)}
	l := openLive(t, cfg)[0]
	send(t, sink(t), "other", 50)
	sent := bytes.Repeat([]byte("0123456789"), 30000)
	go func() {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			return
		}
		c.Write(sent)
		c.Close()
	}()
	c, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, c)
	c.Close()
	payload := 0
	until(t, l, 25, func(p *Packet) bool {
		if p.Data[23] != 6 {
			t.Errorf("a packet of IP protocol %d passed the filter", p.Data[23])
		}
		payload += p.Length - 14 - 20 - int(p.Data[14+20+12]>>4)*4
		return false
	})
	if payload != len(sent) {
		t.Errorf("captured %d bytes of TCP payload, %d were sent", payload, len(sent))
	}
}

// Both directions of a connection over loopback come to one ring, each byte once.
func TestLiveRings(t *testing.T) {
	inNamespace(t)("link", "set", "lo", "up")
	cfg := DefaultConfig()
	cfg.Interfaces = []string{"lo"}
	cfg.Rings = 2
	rings := openLive(t, cfg)
	recorded := record(t, rings)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	const up, down, flows = 150_000, 300_000, 30
	for range flows {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			c.Write(make([]byte, up))
			io.Copy(io.Discard, c)
			c.Close()
		}()
		server, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		io.CopyN(io.Discard, server, up)
		server.Write(make([]byte, down))
		server.Close()
	}
	port := uint16(ln.Addr().(*net.TCPAddr).Port)
	total := map[uint16]int{} // of a client's port
	for i, frames := range recorded() {
		mine := map[uint16]int{}
		next := map[[2]uint16]uint32{} // sequence number, by direction: what is sent again counts once
		for _, f := range frames {
			src, dst := binary.BigEndian.Uint16(f.head[34:]), binary.BigEndian.Uint16(f.head[36:])
			if f.head[23] != 6 || src != port && dst != port {
				continue
			}
			begin, size := binary.BigEndian.Uint32(f.head[38:]), f.length-14-20-int(f.head[46]>>4)*4
			key := [2]uint16{src, dst}
			if f.head[47]&2 != 0 { // SYN
				next[key] = begin + 1
			}
			end := begin + uint32(size)
			switch fresh := int32(end - next[key]); {
			case size > 0 && int32(begin-next[key]) > 0:
				t.Errorf("ring %d: bytes are missing", i)
			case size > 0 && fresh > 0:
				mine[src+dst-port] += int(fresh)
				next[key] = end
			}
		}
		for client, n := range mine {
			total[client] += n
			if n != up+down {
				t.Errorf("ring %d has %d bytes of a connection, want all %d or none", i, n, up+down)
			}
		}
		if len(mine) == 0 {
			t.Errorf("ring %d has nothing", i)
		}
	}
	if len(total) != flows {
		t.Errorf("%d connections, want %d", len(total), flows)
	}
}

// A reader that stalls loses packets and knows how many.
func TestLiveDrops(t *testing.T) {
	inNamespace(t)("link", "set", "lo", "up")
	cfg := DefaultConfig()
	cfg.RingSize, cfg.BlockSize = 4*config.MiB, config.MiB
	cfg.Interfaces = []string{"lo"}
	l := openLive(t, cfg)[0]
	const n = 600
	send(t, sink(t), strings.Repeat("x", 16000)+"drop", n) // 9.6 MB into a ring of 4 MiB
	got := 0
	until(t, l, 25, func(p *Packet) bool {
		if p.Length > 16000 && p.Data[23] == 17 {
			got++
		}
		return false
	})
	s := l.Stats()
	if got == n || s.Drops < uint64(n-got) || s.Freezes == 0 {
		t.Errorf("%d of %d large packets captured, Stats() = %+v: want some to be missing and all of these in Drops", got, n, s)
	}
}

// A ring that fails says where it captures.
func TestLiveFault(t *testing.T) {
	for want, l := range map[string]*Live{
		"capture on any: broken":     {},
		"capture on eth0,lo: broken": {names: []string{"eth0", "lo"}},
		"capture in blue: broken":    {space: &Namespace{name: "blue"}},
	} {
		if got := l.fault(errors.New("broken")).Error(); got != want {
			t.Errorf("fault() = %q, want %q", got, want)
		}
	}
}

// A ring that no one has read is given back without a reader.
func TestLiveDiscard(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Interfaces = []string{"lo"}
	l := openLive(t, cfg)[0]
	l.Discard()
	if err := l.Close(); err != nil || l.ring != nil || !l.released {
		t.Errorf("after Discard, Close() = %v, and the ring is there: %v", err, l.ring != nil)
	}
}

func TestLiveClose(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Interfaces = []string{"lo"}
	cfg.Ports = []uint16{1} // nothing comes
	l := openLive(t, cfg)[0]
	l.timeout = time.Hour
	ended := make(chan error)
	go func() {
		for {
			if _, err := l.Next(make([]Packet, 1)); err != nil && err != ErrIdle {
				ended <- err
				return
			}
		}
	}()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err != io.EOF {
			t.Errorf("Next after Close = %v, want EOF", err)
		}
	case <-time.After(3 * time.Minute):
		t.Fatal("Close did not wake Next")
	}
	if err := l.Close(); err != nil {
		t.Errorf("second Close = %v", err)
	}
	if _, err := l.Next(make([]Packet, 1)); err != io.EOF {
		t.Errorf("Next after the end = %v, want EOF", err)
	}
}

// TestLiveLittleOptionMemory: where the kernel gives a socket's programs 20 KiB, as before Linux 6.7, as many
// ports as there may be can be set, and own connections are left out however often they are made anew.
func TestLiveLittleOptionMemory(t *testing.T) {
	inNamespace(t)("link", "set", "lo", "up")
	if err := os.WriteFile("/proc/sys/net/core/optmem_max", []byte("20480"), 0); err != nil { // of this namespace, since Linux 6.8
		t.Skipf("needs net.core.optmem_max of a network namespace: %v", err)
	}
	cfg := DefaultConfig()
	cfg.Interfaces, cfg.RingSize, cfg.BlockSize = []string{"lo"}, 2*config.MiB, config.MiB
	for i := range maxPorts {
		cfg.Ports = append(cfg.Ports, uint16(1000+i))
	}
	l := openLive(t, cfg)[0]
	for i := range 3 * maxOwn {
		c := Connection{Remote: netip.MustParseAddrPort("[2001:db8::1]:7420"), LocalPort: uint16(40000 + i)}
		if err := l.Exclude(c); err != nil || l.own[len(l.own)-1] != c || i > 0 && len(l.own) < 2 {
			t.Fatalf("connection %d: %v, %d are left out", i, err, len(l.own))
		}
	}
	if err := l.attach([]int{1, 2, 3}); err != nil {
		t.Errorf("other interfaces: %v", err)
	}
}

// TestLiveIsNotIdleLate: who comes back after the timeout is given the block that waits, and is not told that there is none, as the
// pipeline's clock would then go past its packets.
func TestLiveIsNotIdleLate(t *testing.T) {
	inNamespace(t)("link", "set", "lo", "up")
	cfg := DefaultConfig()
	cfg.Interfaces = []string{"lo"}
	l := openLive(t, cfg)[0]
	until(t, l, 2, func(*Packet) bool { return false }) // what the interface says as it comes up
	send(t, sink(t), "late", 1)
	sent := time.Now()
	for atomic.LoadUint32(l.status(l.block))&unix.TP_STATUS_USER == 0 {
		time.Sleep(time.Millisecond)
	}
	// As if it had stopped between setting its alarm and waiting.
	l.alarm = time.Now().Add(time.Minute)
	if err := l.file.SetReadDeadline(sent); err != nil {
		t.Fatal(err)
	}
	if err := l.wait(); err != nil {
		t.Errorf("wait() = %v with a block that waits, want nil", err)
	}
	l.alarm = time.Time{}
	n := 0
	until(t, l, 2, func(*Packet) bool { n++; return false })
	if n == 0 {
		t.Error("the block has no packets")
	}
	if since := time.Since(l.Looked()); l.Looked().Before(sent) || since < 0 {
		t.Errorf("it has looked %v ago", since)
	}
}

// TestLiveBatch: the packets that one call gave stay as they are until the next.
func TestLiveBatch(t *testing.T) {
	inNamespace(t)("link", "set", "lo", "up")
	cfg := DefaultConfig()
	cfg.Interfaces = []string{"lo"}
	l := openLive(t, cfg)[0]
	const n = 500
	send(t, sink(t), "batch", n)
	seen, most := map[string]int{}, 0
	collected := collect("batch", n, seen)
	ps := make([]Packet, 32)
	for idle, number := 0, uint64(0); idle < 25; {
		k, err := l.Next(ps)
		if err == ErrIdle {
			idle++
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		most = max(most, k)
		for i := range ps[:k] {
			if number++; ps[i].Number != number {
				t.Fatalf("packet %d has number %d", number, ps[i].Number)
			}
			collected(&ps[i])
		}
	}
	countOnce(t, seen, "batch", n)
	if most != len(ps) {
		t.Errorf("at most %d packets at a time, want %d", most, len(ps))
	}
}

func TestLiveNoSuchInterface(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Interfaces = []string{"nosuch0"}
	_, err := OpenLive(cfg)
	var e *Error
	if !errors.As(err, &e) || e.Path != "nosuch0" || !strings.Contains(e.Hint, "lo") {
		t.Errorf("OpenLive(nosuch0) = %v, want an *Error that names the interface and lists those there are", err)
	}
}

// inNamespace runs the test on a thread in a network namespace of its own,
// which ends with the thread.
func inNamespace(t *testing.T) (ip func(args ...string)) {
	t.Helper()
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("needs the program ip (iproute2)")
	}
	runtime.LockOSThread() // never unlocked: the runtime ends the thread with the goroutine
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("needs the capability CAP_SYS_ADMIN to make a network namespace: %v", err)
	}
	// A command runs in the namespace of the thread that starts it.
	return func(args ...string) {
		t.Helper()
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			if bytes.Contains(out, []byte("not permitted")) || bytes.Contains(out, []byte("Unknown device type")) {
				t.Skipf("ip %s: %s", strings.Join(args, " "), out)
			}
			t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
		}
	}
}

// An interface that vanishes and returns with another index is captured on again.
func TestLiveInterfaceReturns(t *testing.T) {
	ip := inNamespace(t)
	create := func() {
		ip("link", "add", "veth0", "type", "veth", "peer", "name", "veth1")
		ip("addr", "add", "192.0.2.1/24", "dev", "veth0")
		ip("link", "set", "veth0", "up")
		ip("link", "set", "veth1", "up")
		ip("neigh", "add", "192.0.2.9", "lladdr", "02:00:00:00:00:09", "dev", "veth0")
	}
	create()
	ip("link", "add", "other", "type", "veth", "peer", "name", "other1") // takes indexes
	cfg := DefaultConfig()
	cfg.Interfaces = []string{"veth0"}
	l := openLive(t, cfg)[0]
	if l.namespace == 0 {
		t.Error("the namespace is not known")
	}
	check := func(mark string) {
		t.Helper()
		send(t, "192.0.2.9:9", mark, 100)
		seen := map[string]int{}
		until(t, l, 25, collect(mark, 100, seen))
		countOnce(t, seen, mark, 100)
	}
	check("first")
	ip("link", "del", "veth0")
	waitFor(t, l, func() bool { return len(l.Missing()) == 1 })
	create()
	waitFor(t, l, func() bool { return len(l.Missing()) == 0 })
	check("again")
}

// waitFor reads on until ok.
func waitFor(t *testing.T, l *Live, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(3 * time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatal("the interfaces were not looked up again")
		}
		if _, err := l.Next(make([]Packet, 1)); err != nil && !errors.Is(err, ErrIdle) {
			t.Fatal(err)
		}
	}
}

// Without the capability the error names it, and says how to grant it.
func TestLiveNoPrivilege(t *testing.T) {
	runtime.LockOSThread() // never unlocked: the thread is not to be used by others
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		t.Fatal(err)
	}
	data[0].Effective &^= 1 << unix.CAP_NET_RAW
	if err := unix.Capset(&header, &data[0]); err != nil {
		t.Fatal(err)
	}
	cfg := DefaultConfig()
	cfg.Interfaces = []string{"lo"}
	_, err := OpenLive(cfg)
	var e *Error
	if !errors.As(err, &e) || !errors.Is(err, unix.EPERM) || !strings.Contains(e.Hint, "CAP_NET_RAW") {
		t.Errorf("OpenLive without the capability = %v, want EPERM and a hint that names CAP_NET_RAW", err)
	}
}

func TestPrivilegeHint(t *testing.T) {
	program, err := os.Executable()
	if err != nil {
		t.Skip(err)
	}
	hint := privilegeHint()
	if !strings.Contains(hint, "CAP_NET_RAW") || !strings.Contains(hint, "setcap cap_net_raw+ep "+program) {
		t.Errorf("privilegeHint() = %q, want the capability and the command that grants it", hint)
	}
}

// TestLiveTunnel: the connections inside a VXLAN tunnel, whose outer ports differ by direction, are shared out
// among rings by their own addresses and ports: none is split, also where the tunnel's packets are fragments.
func TestLiveTunnel(t *testing.T) {
	other := namedNamespace(t, "tunnel")
	ip := inNamespace(t)
	ip("link", "add", "v0", "type", "veth", "peer", "name", "v0", "netns", other)
	there := func(args ...string) { ip(append([]string{"-n", other}, args...)...) }
	for i, in := range []func(...string){ip, there} {
		in("addr", "add", fmt.Sprintf("192.0.2.%d/24", i+1), "dev", "v0")
		in("link", "set", "v0", "up")
		in("link", "add", "x0", "type", "vxlan", "id", "7", "dstport", "4789", "local", fmt.Sprintf("192.0.2.%d", i+1), "remote", fmt.Sprintf("192.0.2.%d", 2-i))
		in("addr", "add", fmt.Sprintf("198.51.100.%d/24", i+1), "dev", "x0")
		in("link", "set", "x0", "up")
	}
	var ln net.Listener
	in(t, other, func() { ln, _ = net.Listen("tcp", "198.51.100.2:0") })
	if ln == nil {
		t.Fatal("no listener in the other namespace")
	}
	defer ln.Close()
	port := uint16(ln.Addr().(*net.TCPAddr).Port)
	for _, mtu := range []string{"1450", "1500"} { // 1500: with the tunnel's headers more than fits the link
		ip("link", "set", "x0", "mtu", mtu)
		there("link", "set", "x0", "mtu", mtu)
		cfg := DefaultConfig()
		cfg.Interfaces, cfg.Rings = []string{"v0"}, 2
		rings := openLive(t, cfg)
		recorded := record(t, rings)
		const flows, up, down = 400, 3_000, 20_000
		for range flows {
			c, err := net.Dial("tcp", ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			server, err := ln.Accept()
			if err != nil {
				t.Fatal(err)
			}
			go server.Write(make([]byte, down))
			c.Write(make([]byte, up))
			io.CopyN(io.Discard, c, down)
			io.CopyN(io.Discard, server, up)
			c.Close()
			server.Close()
		}
		type end struct{ client, from uint16 }
		ringOf, bytes, outer := map[uint16]int{}, map[end]map[uint32]bool{}, map[uint16]bool{}
		split, perRing := 0, make([]int, len(rings))
		for i, frames := range recorded() {
			for _, f := range frames {
				const inner = 14 + 20 + 8 + 8 + 14
				if f.head[23] != 17 || len(f.head) < inner+40 || binary.BigEndian.Uint16(f.head[36:]) != 4789 || f.head[inner+9] != 6 {
					continue
				}
				outer[binary.BigEndian.Uint16(f.head[34:])] = true
				tcp := f.head[inner+20:]
				src, dst := binary.BigEndian.Uint16(tcp), binary.BigEndian.Uint16(tcp[2:])
				client := src + dst - port
				if ring, ok := ringOf[client]; ok && ring != i {
					split++
				} else if !ok {
					ringOf[client] = i
					perRing[i]++
				}
				key := end{client, src}
				if bytes[key] == nil {
					bytes[key] = map[uint32]bool{}
				}
				seq, payload := binary.BigEndian.Uint32(tcp[4:]), f.length-inner-20-int(tcp[12]>>4)*4
				for k := range payload { // what is sent again counts once
					bytes[key][seq+uint32(k)] = true
				}
			}
		}
		if split != 0 || len(ringOf) != flows || perRing[0] < flows/3 || perRing[1] < flows/3 {
			t.Errorf("MTU %s: %d connections, %v on each ring, %d packets on another ring than the first; want %d, some on both, none split", mtu, len(ringOf), perRing, split, flows)
		}
		if len(outer) < 50 {
			t.Errorf("MTU %s: %d outer ports: the tunnel is no test", mtu, len(outer))
		}
		for key, seen := range bytes {
			want := up
			if key.from == port {
				want = down
			}
			if len(seen) != want {
				t.Fatalf("MTU %s: %d bytes of a connection were captured, want %d", mtu, len(seen), want)
			}
		}
		for _, l := range rings {
			l.Close()
		}
	}
}
