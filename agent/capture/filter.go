package capture

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/net/bpf"
)

// What the kernel knows of a packet (linux/if_packet.h, linux/if_arp.h, linux/filter.h).
const (
	packetOutgoing = 4
	arphrdEther    = 1
	arphrdLoopback = 772
	// networkOffset, added to an offset, counts from the IP header.
	networkOffset = 0xfff00000
	// wholeFrame is what an accepted packet is cut to: nothing that exists.
	wholeFrame = 1 << 20
)

// tunnelPorts are the UDP ports behind which the decoder finds tunnels: VXLAN
// (with Linux's own port and the generic extension), GENEVE, GTP-U, Teredo,
// AYIYA, MPLS, L2TP, TZSP, LISP.
var tunnelPorts = []uint16{4789, 8472, 4790, 6081, 2152, 3544, 5072, 6635, 1701, 37008, 4341}

// Connection is a TCP connection of this program, known before it has an address of its own.
type Connection struct {
	// Remote is where it goes.
	Remote netip.AddrPort
	// LocalPort is where it comes from.
	LocalPort uint16
}

// maxOwn is how many connections are left out at a time: the one under way, those before it, whose
// last packets may still come, and tries at several addresses.
const maxOwn = 8

// selection is what a kernel filter passes.
type selection struct {
	indexes []int        // of interfaces; nil: all, empty: none
	ports   []uint16     // if any, only what may hold TCP to or from these
	own     []Connection // but nothing of these
}

// filterFor builds the kernel filter, which passes each packet on a loopback device once.
func filterFor(s selection) ([]bpf.RawInstruction, error) {
	program, err := filterProgram(s)
	if err != nil {
		return nil, err
	}
	return bpf.Assemble(program)
}

func filterProgram(s selection) ([]bpf.Instruction, error) {
	var a assembler
	if s.indexes != nil && len(s.indexes) == 0 {
		return []bpf.Instruction{bpf.RetConstant{Val: 0}}, nil
	}
	if s.indexes != nil {
		a.add(bpf.LoadExtension{Num: bpf.ExtInterfaceIndex})
		a.jumpIfAny(numbers(s.indexes), "interface")
		a.jump("drop")
		a.label("interface")
	}
	// A loopback device shows a packet when it is sent and when it arrives.
	a.add(bpf.LoadExtension{Num: bpf.ExtLinkLayerType})
	a.jumpUnless(arphrdLoopback, "once")
	a.add(bpf.LoadExtension{Num: bpf.ExtType})
	a.jumpIf(packetOutgoing, "drop")
	a.label("once")
	if len(s.own) > 0 || len(s.ports) > 0 {
		a.network()
	}
	if len(s.own) > 0 {
		a.withoutOwn(s.own)
	}
	if len(s.ports) > 0 {
		a.portFilter(s.ports)
	}
	a.label("accept")
	a.add(bpf.RetConstant{Val: wholeFrame})
	a.label("drop")
	a.add(bpf.RetConstant{Val: 0})
	return a.resolve()
}

// Where the program keeps what it needs again.
const (
	slotNetwork  = 1 + iota // where the IP header is
	slotProtocol            // its EtherType
	slotBefore              // bytes of the frame before it; 0 if that isn't known
	slotPorts
)

// network finds the IP header: X is where it is and A what it is.
func (a *assembler) network() {
	a.add(bpf.LoadExtension{Num: bpf.ExtLinkLayerType})
	a.jumpIf(arphrdEther, "ethernet")
	a.jumpIf(arphrdLoopback, "ethernet")
	// Other devices: PPP, tunnels, IP without a link layer. Wi-Fi monitors, whose
	// protocol is not IP, pass.
	a.add(bpf.LoadConstant{Dst: bpf.RegA, Val: 0}, bpf.StoreScratch{Src: bpf.RegA, N: slotBefore},
		bpf.LoadConstant{Dst: bpf.RegX, Val: networkOffset}, bpf.LoadExtension{Num: bpf.ExtProto})
	a.jump("network")

	a.label("ethernet")
	a.add(bpf.LoadConstant{Dst: bpf.RegX, Val: 14}, bpf.StoreScratch{Src: bpf.RegX, N: slotBefore}, bpf.LoadAbsolute{Off: 12, Size: 2})
	for _, tag := range vlanTags {
		a.jumpIf(tag, "tagged")
	}
	a.jump("network")
	a.label("tagged") // the first tag is usually in metadata: this is the second
	a.add(bpf.LoadConstant{Dst: bpf.RegX, Val: 18}, bpf.StoreScratch{Src: bpf.RegX, N: slotBefore}, bpf.LoadAbsolute{Off: 16, Size: 2})
	a.label("network")
}

// vlanTags are the EtherTypes of VLAN tags.
var vlanTags = []uint32{0x8100, 0x88a8, 0x9100}

// withoutOwn drops the packets of these connections, both directions, and leaves X and A as they
// were for others.
func (a *assembler) withoutOwn(own []Connection) {
	a.add(bpf.StoreScratch{Src: bpf.RegX, N: slotNetwork}, bpf.StoreScratch{Src: bpf.RegA, N: slotProtocol})
	// The kernel drops what is too short for a load; what is too short to be TCP has to pass.
	long := func(least uint32) {
		a.add(bpf.LoadScratch{Dst: bpf.RegX, N: slotBefore}, bpf.LoadExtension{Num: bpf.ExtLen}, bpf.ALUOpX{Op: bpf.ALUOpSub},
			bpf.LoadScratch{Dst: bpf.RegX, N: slotNetwork})
		a.add(bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: least, SkipTrue: 1})
		a.jump("others")
	}
	a.jumpIf(0x0800, "own4")
	a.jumpUnless(0x86dd, "others")

	// Linux sends TCP without extension headers, and without IP options below.
	long(40 + 4)
	a.add(bpf.LoadIndirect{Off: 6, Size: 1})
	a.jumpUnless(6, "others")
	a.add(bpf.LoadIndirect{Off: 40, Size: 4}, bpf.StoreScratch{Src: bpf.RegA, N: slotPorts})
	a.either(own, false, 8, 24)

	a.label("own4")
	long(20 + 4)
	a.add(bpf.LoadIndirect{Off: 0, Size: 1})
	a.jumpUnless(0x45, "others")
	a.add(bpf.LoadIndirect{Off: 9, Size: 1})
	a.jumpUnless(6, "others")
	a.add(bpf.LoadIndirect{Off: 6, Size: 2}, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0x1fff})
	a.jumpUnless(0, "others") // not the first fragment
	a.add(bpf.LoadIndirect{Off: 20, Size: 4}, bpf.StoreScratch{Src: bpf.RegA, N: slotPorts})
	a.either(own, true, 12, 16)

	a.label("others")
	a.add(bpf.LoadScratch{Dst: bpf.RegX, N: slotNetwork}, bpf.LoadScratch{Dst: bpf.RegA, N: slotProtocol})
}

// either drops what goes to or comes from one of the connections of a version of IP, whose addresses
// are at src and dst.
func (a *assembler) either(own []Connection, v4 bool, src, dst uint32) {
	for i, c := range own {
		addr := c.Remote.Addr().Unmap()
		if addr.Is4() != v4 {
			continue
		}
		bytes := addr.AsSlice()
		remote, local := uint32(c.Remote.Port()), uint32(c.LocalPort)
		for _, way := range []struct{ ports, at uint32 }{{remote<<16 | local, src}, {local<<16 | remote, dst}} {
			next := fmt.Sprintf("own%d-%v-%d", i, v4, way.at)
			a.add(bpf.LoadScratch{Dst: bpf.RegA, N: slotPorts})
			a.jumpUnless(way.ports, next)
			for k := 0; k < len(bytes); k += 4 {
				a.add(bpf.LoadIndirect{Off: way.at + uint32(k), Size: 4})
				a.jumpUnless(binary.BigEndian.Uint32(bytes[k:]), next)
			}
			a.jump("drop")
			a.label(next)
		}
	}
	a.jump("others")
}

// portFilter leaves for accept or drop. X is where the IP header is, A what it is.
func (a *assembler) portFilter(ports []uint16) {
	a.jumpIf(0x0800, "ipv4")
	a.jumpIf(0x86dd, "ipv6")
	for _, other := range []uint32{0x0806, 0x8035, 0x88cc, 0x888e, 0x8863, 0x8808, 0x8809} {
		a.jumpIf(other, "drop") // ARP, discovery, authentication, flow control
	}
	a.jump("accept")

	a.label("ipv4")
	a.add(bpf.LoadIndirect{Off: 6, Size: 2}, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0x3fff})
	a.jumpUnless(0, "accept") // a fragment
	a.add(bpf.LoadIndirect{Off: 9, Size: 1}, bpf.StoreScratch{Src: bpf.RegA, N: 0},
		// X += header length
		bpf.LoadIndirect{Off: 0, Size: 1}, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0x0f},
		bpf.ALUOpConstant{Op: bpf.ALUOpShiftLeft, Val: 2}, bpf.ALUOpX{Op: bpf.ALUOpAdd}, bpf.TAX{},
		bpf.LoadScratch{Dst: bpf.RegA, N: 0})
	a.jump("transport")

	a.label("ipv6")
	a.add(bpf.LoadIndirect{Off: 6, Size: 1}, bpf.StoreScratch{Src: bpf.RegA, N: 0},
		bpf.TXA{}, bpf.ALUOpConstant{Op: bpf.ALUOpAdd, Val: 40}, bpf.TAX{},
		bpf.LoadScratch{Dst: bpf.RegA, N: 0})
	for _, extension := range []uint32{0, 43, 44, 60} {
		a.jumpIf(extension, "accept")
	}

	a.label("transport")
	a.jumpIf(6, "tcp")
	a.jumpIf(17, "udp")
	for _, tunnel := range []uint32{4, 41, 47, 51, 97, 137} {
		a.jumpIf(tunnel, "accept") // IP in IP, GRE, authentication, Ethernet, MPLS
	}
	a.jump("drop")

	a.label("tcp")
	a.eitherPort(ports)
	a.label("udp")
	a.eitherPort(tunnelPorts)
}

// eitherPort accepts if the source or the destination port, at X, is one of ports.
func (a *assembler) eitherPort(ports []uint16) {
	for off := uint32(0); off <= 2; off += 2 {
		a.add(bpf.LoadIndirect{Off: off, Size: 2})
		a.jumpIfAny(numbers(ports), "accept")
	}
	a.jump("drop")
}

func numbers[N int | uint16](list []N) (values []uint32) {
	for _, n := range list {
		values = append(values, uint32(n))
	}
	return values
}

// assembler resolves forward jumps to labels. A conditional jump reaches 255
// instructions only, so each is turned into one over an unconditional jump.
type assembler struct {
	program []bpf.Instruction
	jumps   map[int]string
	labels  map[string]int
}

func (a *assembler) add(ins ...bpf.Instruction) { a.program = append(a.program, ins...) }

func (a *assembler) jump(label string) {
	if a.jumps == nil {
		a.jumps = map[int]string{}
	}
	a.jumps[len(a.program)] = label
	a.add(bpf.Jump{})
}

func (a *assembler) jumpIf(v uint32, label string) {
	a.add(bpf.JumpIf{Cond: bpf.JumpEqual, Val: v, SkipFalse: 1})
	a.jump(label)
}

// jumpIfAny jumps if A is one of values, with one instruction for each: before Linux 6.7 a socket's program and
// the one that replaces it have 20 KiB together (net.core.optmem_max).
func (a *assembler) jumpIfAny(values []uint32, label string) {
	for part := range slices.Chunk(values, 255) {
		for i, v := range part {
			a.add(bpf.JumpIf{Cond: bpf.JumpEqual, Val: v, SkipTrue: uint8(len(part) - i)})
		}
		a.add(bpf.Jump{Skip: 1})
		a.jump(label)
	}
}

func (a *assembler) jumpUnless(v uint32, label string) {
	a.add(bpf.JumpIf{Cond: bpf.JumpEqual, Val: v, SkipTrue: 1})
	a.jump(label)
}

func (a *assembler) label(name string) {
	if a.labels == nil {
		a.labels = map[string]int{}
	}
	a.labels[name] = len(a.program)
}

func (a *assembler) resolve() ([]bpf.Instruction, error) {
	for at, label := range a.jumps {
		target, ok := a.labels[label]
		if !ok || target <= at {
			return nil, fmt.Errorf("filter: no label %q after instruction %d", label, at)
		}
		a.program[at] = bpf.Jump{Skip: uint32(target - at - 1)}
	}
	return a.program, nil
}
