package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// resolveEvery is how often the names of interfaces are looked up again.
const resolveEvery = time.Second

// Live captures with one AF_PACKET ring (TPACKET_V3). Its packets are borrowed
// from memory shared with the kernel, which gets a block back once Next is called
// after the block's last packet: a reader that stalls costs drops, never memory.
//
// The socket is bound to no interface. Its filter selects interfaces by index,
// so that one that vanishes and returns needs no new socket and no capability; the names are
// looked up once a second, and until then the packets of a returned interface are not seen.
//
// VLAN tags that the kernel took off are not put back: they are not part of a flow.
type Live struct {
	fd        int
	file      *os.File           // around fd, for the runtime's poller
	conn      syscall.RawConn    // of file
	ready     func(uintptr) bool // whether Next need not wait; kept, as making it allocates
	alarm     time.Time          // when the wait under way ends at the latest
	looked    time.Time          // see Looked
	ring      []byte
	blocks    int
	blockSize int
	timeout   time.Duration
	namespace uint32
	space     *Namespace // nil: the agent's own
	names     []string   // nil: any
	resolved  time.Time

	block int    // the block in hand, or the next
	held  bool   // the block in hand is ours
	left  uint32 // packets in it
	at    uint32 // offset of the next packet in the ring
	// ahead is the packet that Ahead has loaded: its offset, and how many of the block in hand there are from it on;
	// 0 if Ahead has not begun with that block.
	ahead struct{ at, left uint32 }
	stats Stats

	closing  atomic.Bool
	mu       sync.Mutex // guards what follows
	released bool
	missing  []string
	indexes  []int // what the filter selects
	ports    []uint16
	own      []Connection
}

var _ Source = (*Live)(nil)

// OpenLive opens cfg.Rings rings that share the packets of cfg.Interfaces, and as many in
// each of cfg.Namespaces for all interfaces there. No packet is delivered before all of a namespace
// stand. cfg must be valid. The error is an *Error, with a hint when an interface or a
// namespace doesn't exist, or a privilege is missing.
func OpenLive(cfg Config) (rings []*Live, err error) {
	defer func() {
		if err != nil {
			for _, l := range rings {
				l.release()
			}
			rings = nil
		}
	}()
	if len(cfg.Interfaces) == 0 && len(cfg.Namespaces) == 0 {
		return nil, &Error{Op: "capture on", Path: "nothing", Err: errors.New("no interface is given, and no network namespace"), Hint: "name some in agent.capture.interfaces; there are: " + interfaceNames()}
	}
	if len(cfg.Interfaces) > 0 {
		if rings, err = openInterfaces(cfg); err != nil {
			return rings, err
		}
	}
	for _, name := range cfg.Namespaces {
		var opened []*Live
		space, err := openNamespace(name, func() (err error) {
			opened, err = openRings(cfg, nil, name)
			return err
		})
		for _, l := range opened {
			l.space = space
			space.hold()
		}
		if err != nil {
			return rings, err
		}
		for _, l := range rings {
			if o := l.space; o != nil && o.dev == space.dev && o.ino == space.ino {
				return append(rings, opened...), space.fail(errors.New("the same network namespace as "+o.name), "its packets would be counted twice")
			}
		}
		rings = append(rings, opened...)
	}
	return rings, nil
}

// openInterfaces opens the rings of the agent's own namespace.
func openInterfaces(cfg Config) ([]*Live, error) {
	names := slices.Compact(slices.Sorted(slices.Values(cfg.Interfaces)))
	if slices.Contains(names, Any) {
		names = nil
	}
	for _, name := range names {
		if _, err := net.InterfaceByName(name); err != nil {
			return nil, &Error{Op: "capture on", Path: name, Err: errors.New("no such interface"), Hint: "there are: " + interfaceNames()}
		}
	}
	return openRings(cfg, names, strings.Join(cfg.Interfaces, ","))
}

// openRings opens the rings of one namespace, that of the thread. where is for messages.
func openRings(cfg Config, names []string, where string) (rings []*Live, err error) {
	fail := func(err error, hint string) error {
		return &Error{Op: "capture on", Path: where, Err: err, Hint: hint}
	}
	defer func() {
		if err != nil {
			for _, l := range rings {
				l.release()
			}
			rings = nil
		}
	}()
	for range cfg.Rings {
		l, err := newRing(cfg, names)
		if err != nil {
			switch {
			case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
				return rings, fail(err, privilegeHint())
			case errors.Is(err, unix.ENOMEM):
				return rings, fail(err, "the ring does not fit into memory: lower ring_size or rings")
			}
			return rings, fail(err, "")
		}
		rings = append(rings, l)
	}
	if len(rings) > 1 {
		if err := fanOut(rings); err != nil {
			return rings, fail(err, "several rings need Linux 4.12 or newer; set rings to 1")
		}
	}
	for _, l := range rings {
		if err := l.resolve(true); err != nil {
			return rings, fail(err, "")
		}
	}
	return rings, nil
}

func privilegeHint() string {
	program, err := os.Executable()
	if err != nil {
		program = os.Args[0]
	}
	return "it needs the capability CAP_NET_RAW: run it as root, or once: sudo setcap cap_net_raw+ep " + program
}

func interfaceNames() string {
	all, err := net.Interfaces()
	if err != nil {
		return Any
	}
	names := []string{Any}
	for _, i := range all {
		names = append(names, i.Name)
		if len(names) == 50 {
			names = append(names, "...")
			break
		}
	}
	return strings.Join(names, ", ")
}

// newRing makes a bound socket with a ring, whose filter still drops everything.
func newRing(cfg Config, names []string) (_ *Live, err error) {
	l := &Live{fd: -1, names: names, ports: cfg.Ports, timeout: cfg.PollTimeout,
		blockSize: int(cfg.BlockSize), blocks: int(cfg.RingSize / cfg.BlockSize)}
	defer func() {
		if err != nil {
			l.release()
		}
	}()
	// With protocol 0 nothing arrives until bind, by when the filter is there.
	if l.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
		return nil, fmt.Errorf("open packet socket: %w", err)
	}
	l.file = os.NewFile(uintptr(l.fd), "packet socket")
	l.ready = func(uintptr) bool {
		return l.closing.Load() || atomic.LoadUint32(l.status(l.block))&unix.TP_STATUS_USER != 0
	}
	if l.conn, err = l.file.SyscallConn(); err != nil {
		return nil, fmt.Errorf("wait for packets: %w", err)
	}
	if err = l.attach([]int{}); err != nil {
		return nil, err
	}
	if err = unix.SetsockoptInt(l.fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V3); err != nil {
		return nil, fmt.Errorf("choose TPACKET_V3: %w", err)
	}
	const frame = 2048 // only its division of a block matters for TPACKET_V3
	req := unix.TpacketReq3{
		Block_size: uint32(l.blockSize), Block_nr: uint32(l.blocks),
		Frame_size: frame, Frame_nr: uint32(l.blockSize / frame * l.blocks),
		Retire_blk_tov: uint32(l.timeout / time.Millisecond),
	}
	if err = unix.SetsockoptTpacketReq3(l.fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &req); err != nil {
		return nil, fmt.Errorf("make a ring of %v: %w", cfg.RingSize, err)
	}
	if l.ring, err = unix.Mmap(l.fd, 0, l.blocks*l.blockSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return nil, fmt.Errorf("map a ring of %v: %w", cfg.RingSize, err)
	}
	if err = unix.Bind(l.fd, &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ALL)}); err != nil {
		return nil, fmt.Errorf("bind packet socket: %w", err)
	}
	var st unix.Stat_t
	if unix.Stat("/proc/thread-self/ns/net", &st) == nil {
		l.namespace = uint32(st.Ino)
	}
	return l, nil
}

func networkOrder(v uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], v)
	return binary.NativeEndian.Uint16(b[:])
}

// fanOut has the kernel share packets among rings by a hash that is the same for both
// directions of a flow, see fanoutProgram. IPv4 fragments are put together first, since the later
// ones have no ports.
func fanOut(rings []*Live) error {
	program, err := fanoutProgram()
	if err != nil {
		return err
	}
	raw, err := bpf.Assemble(program)
	if err != nil {
		return fmt.Errorf("fanout program: %w", err)
	}
	const mode = unix.PACKET_FANOUT_CBPF | unix.PACKET_FANOUT_FLAG_DEFRAG
	group := 0
	for i, l := range rings {
		arg := group | mode<<16
		if i == 0 { // the kernel chooses a group that no one has
			arg |= unix.PACKET_FANOUT_FLAG_UNIQUEID << 16
		}
		if err := unix.SetsockoptInt(l.fd, unix.SOL_PACKET, unix.PACKET_FANOUT, arg); err != nil {
			return fmt.Errorf("join fanout group: %w", err)
		}
		if i == 0 {
			v, err := unix.GetsockoptInt(l.fd, unix.SOL_PACKET, unix.PACKET_FANOUT)
			if err != nil {
				return fmt.Errorf("read fanout group: %w", err)
			}
			group = v & 0xffff
			// It is the group's. Until here, the rings' filters drop everything.
			if err := setProgram(l.fd, unix.SOL_PACKET, unix.PACKET_FANOUT_DATA, raw); err != nil {
				return fmt.Errorf("set the fanout program: %w", err)
			}
		}
	}
	return nil
}

// resolve looks up the interfaces and changes the filter if their indexes did. It returns what
// the socket has to complain of, but for an interface that is down.
func (l *Live) resolve(first bool) error {
	l.resolved = time.Now()
	if errno, err := unix.GetsockoptInt(l.fd, unix.SOL_SOCKET, unix.SO_ERROR); err == nil && errno != 0 && unix.Errno(errno) != unix.ENETDOWN {
		return unix.Errno(errno)
	}
	if l.names == nil {
		if first {
			return l.attach(nil)
		}
		return nil
	}
	indexes := make([]int, 0, len(l.names))
	var missing []string
	for _, name := range l.names {
		request, err := unix.NewIfreq(name)
		if err == nil {
			err = unix.IoctlIfreq(l.fd, unix.SIOCGIFINDEX, request)
		}
		if err != nil {
			missing = append(missing, name)
			continue
		}
		indexes = append(indexes, int(request.Uint32()))
	}
	l.mu.Lock()
	l.missing = missing
	same := slices.Equal(indexes, l.indexes)
	l.mu.Unlock()
	if !first && same {
		return nil
	}
	return l.attach(indexes)
}

// Missing returns the interfaces that are not there now. It may be called by
// any goroutine.
func (l *Live) Missing() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.missing
}

// Namespace returns the network namespace that the ring is in, nil if that is the agent's own.
func (l *Live) Namespace() *Namespace { return l.space }

// attach has the filter select these interfaces.
func (l *Live) attach(indexes []int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.indexes = indexes
	return l.renew()
}

// renew replaces the filter in one step. The caller holds mu.
func (l *Live) renew() error {
	if l.released {
		return nil
	}
	raw, err := filterFor(selection{indexes: l.indexes, ports: l.ports, own: l.own})
	if err != nil {
		return err
	}
	return attachRaw(l.fd, raw)
}

// Exclude has the kernel pass no packet of a TCP connection of this program, from now on and until
// maxOwn others were named, or fewer where the kernel has no room for a program of that length. Call it
// before the connection's first packet. It may be called by any goroutine.
func (l *Live) Exclude(c Connection) error {
	if l.space != nil && c.Remote.Addr().IsLoopback() {
		return nil // another namespace's loopback
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.own = append(l.own[max(len(l.own)-maxOwn+1, 0):len(l.own):len(l.own)], c)
	err := l.renew()
	for errors.Is(err, unix.ENOMEM) && len(l.own) > 1 {
		l.own = l.own[len(l.own)/2:]
		err = l.renew()
	}
	return err
}

// SetPorts has the kernel pass these ports from now on, see [Config]. On an error the ports stay as they were. It
// may be called by any goroutine.
func (l *Live) SetPorts(ports []uint16) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := l.ports
	l.ports = ports
	err := l.renew()
	if err != nil {
		l.ports = before
	}
	return err
}

func attachRaw(fd int, raw []bpf.RawInstruction) error {
	return setProgram(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, raw)
}

func setProgram(fd, level, option int, raw []bpf.RawInstruction) error {
	filter := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		filter[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	if err := unix.SetsockoptSockFprog(fd, level, option, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}); err != nil {
		return fmt.Errorf("attach a program of %d instructions: %w", len(filter), err)
	}
	return nil
}

// Offsets in a block (struct tpacket_block_desc, linux/if_packet.h).
const (
	blockStatus  = 8
	blockPackets = 12
	blockFirst   = 16
)

// Next gives the next packets of the block in hand, those of one block at most: it goes
// back to the kernel with the call after its last packet.
func (l *Live) Next(ps []Packet) (int, error) {
	for {
		n := 0
		for l.left > 0 && n < len(ps) {
			l.left--
			if l.packet(&ps[n]) {
				n++
			}
		}
		if n > 0 {
			if a := &l.ahead; a.left == 0 || a.left > l.left {
				a.at, a.left = l.at, l.left
			}
			return n, nil
		}
		if l.held {
			l.held, l.ahead.left = false, 0
			atomic.StoreUint32(l.status(l.block), unix.TP_STATUS_KERNEL)
			l.block = (l.block + 1) % l.blocks
		}
		if l.closing.Load() {
			l.release()
			return 0, io.EOF
		}
		if time.Since(l.resolved) >= resolveEvery {
			if err := l.resolve(false); err != nil {
				return 0, l.fault(err)
			}
		}
		if atomic.LoadUint32(l.status(l.block))&unix.TP_STATUS_USER == 0 {
			if err := l.wait(); err != nil {
				return 0, err
			}
			continue
		}
		start := l.block * l.blockSize
		l.held = true
		l.left = binary.NativeEndian.Uint32(l.ring[start+blockPackets:])
		l.at = uint32(start) + binary.NativeEndian.Uint32(l.ring[start+blockFirst:])
	}
}

// Ahead has the processor load the beginning of a packet that Next gives later: the next one that
// was not loaded yet. Where a packet is stands in the one before, so they cannot be loaded all at once; what is called
// between two packets that Next gave has loaded as many by the time it is called again.
func (l *Live) Ahead() {
	if a := &l.ahead; a.left > 1 {
		a.left--
		a.at += binary.NativeEndian.Uint32(l.ring[a.at:])
		prefetch(&l.ring[a.at])
	}
}

func (l *Live) status(block int) *uint32 {
	return (*uint32)(unsafe.Pointer(&l.ring[block*l.blockSize+blockStatus]))
}

// wait waits for a block, about the timeout at most (ErrIdle), or for Close. It does so in the runtime's poller:
// a thread that blocks in a system call of its own keeps the runtime's monitor awake, which
// then looks after it every 20 us, and costs as much as the packets do.
func (l *Live) wait() error {
	// The kernel hands over what is older than the timeout, however long is waited here.
	if now := time.Now(); l.alarm.Sub(now) < l.timeout/2 {
		l.alarm = now.Add(l.timeout)
		if err := l.file.SetReadDeadline(l.alarm); err != nil {
			return l.fault(err)
		}
	}
	err := l.conn.Read(l.ready)
	switch {
	case err == nil, l.closing.Load():
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		// Who was not let run for longer than the timeout comes too late, and may find a block all the same.
		l.looked = time.Now()
		if atomic.LoadUint32(l.status(l.block))&unix.TP_STATUS_USER != 0 {
			return nil
		}
		return ErrIdle
	}
	return l.fault(err)
}

// Looked is when Next looked last before it returned ErrIdle: of what is older by the timeout there was nothing more. It is called by who calls Next.
func (l *Live) Looked() time.Time { return l.looked }

func (l *Live) fault(err error) error {
	if l.space != nil {
		return l.space.fail(err, "")
	}
	names := l.names
	if names == nil {
		names = []string{Any}
	}
	return &Error{Op: "capture on", Path: strings.Join(names, ","), Err: err}
}

// sizeofHeader is TPACKET_ALIGN(sizeof(struct tpacket3_hdr)): where the
// sockaddr_ll of a packet is.
const sizeofHeader = (unix.SizeofTpacket3Hdr + 15) &^ 15

// packet fills p from the next packet of the block in hand. It returns false
// for one that can't hold IP, such as a CAN frame.
func (l *Live) packet(p *Packet) bool {
	b := l.ring[l.at:]
	h := (*unix.Tpacket3Hdr)(unsafe.Pointer(&b[0]))
	address := (*unix.RawSockaddrLinklayer)(unsafe.Pointer(&b[sizeofHeader]))
	l.at += h.Next_offset
	start, end, length := uint32(h.Mac), uint32(h.Mac)+h.Snaplen, h.Len
	switch address.Hatype {
	case arphrdEther, arphrdLoopback:
		p.Link = 1
	case unix.ARPHRD_IEEE80211:
		p.Link = 105
	case unix.ARPHRD_IEEE80211_PRISM:
		p.Link = 119
	case unix.ARPHRD_IEEE80211_RADIOTAP:
		p.Link = 127
	default:
		// PPP, tun, WireGuard, IP in IP, InfiniBand: what stands before the IP
		// header differs, so it is left out.
		if proto := networkOrder(address.Protocol); proto != unix.ETH_P_IP && proto != unix.ETH_P_IPV6 || uint32(h.Net) < start || uint32(h.Net) > end {
			return false
		}
		length -= uint32(h.Net) - start
		start = uint32(h.Net)
		p.Link = 101
	}
	p.Data = b[start:end:end]
	p.Length = int(length)
	p.Time = int64(h.Sec)*1e9 + int64(h.Nsec)
	p.Interface = int(address.Ifindex)
	p.Namespace = l.namespace
	l.stats.Packets++
	l.stats.Bytes += uint64(length)
	if p.Length > len(p.Data) {
		l.stats.Truncated++
	}
	p.Number = l.stats.Packets
	return true
}

// Stats returns the counts since the ring was opened.
func (l *Live) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.released {
		l.readDrops()
	}
	return l.stats
}

// readDrops adds the kernel's counts, which start again at 0 with each reading.
func (l *Live) readDrops() {
	var s unix.TpacketStatsV3
	size := uint32(unsafe.Sizeof(s))
	// It never blocks, so the runtime need not be told of it, ten times a second.
	if _, _, err := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(l.fd), unix.SOL_PACKET, unix.PACKET_STATISTICS,
		uintptr(unsafe.Pointer(&s)), uintptr(unsafe.Pointer(&size)), 0); err == 0 {
		l.stats.Drops += uint64(s.Drops)
		l.stats.Freezes += uint64(s.Freeze_q_cnt)
	}
}

// Close makes Next return io.EOF once it has delivered the packets of the block in
// hand, at once when it waits. That call of Next gives the ring back to the kernel:
// the last packet is borrowed until then. It may be called by any goroutine, more than once.
func (l *Live) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.released {
		return nil
	}
	l.closing.Store(true)
	if err := l.file.SetReadDeadline(time.Unix(1, 0)); err != nil {
		return fmt.Errorf("wake the reader: %w", err)
	}
	return nil
}

// Discard gives back a ring that no one reads, nor will.
func (l *Live) Discard() { l.release() }

// release gives the ring and the socket back.
func (l *Live) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.released {
		return
	}
	l.released = true
	l.closing.Store(true)
	if l.ring != nil {
		l.readDrops()
		_ = unix.Munmap(l.ring)
		l.ring = nil
	}
	if l.file != nil {
		_ = l.file.Close()
	}
	if l.space != nil {
		l.space.release()
	}
}
