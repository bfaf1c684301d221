package capture

import (
	"fmt"

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

// filterFor builds the kernel filter: packets of these interface indexes (nil:
// of all; empty: of none), each packet on a loopback device once, and if
// there are ports, only what may hold TCP to or from them.
func filterFor(indexes []int, ports []uint16) ([]bpf.RawInstruction, error) {
	program, err := filterProgram(indexes, ports)
	if err != nil {
		return nil, err
	}
	return bpf.Assemble(program)
}

func filterProgram(indexes []int, ports []uint16) ([]bpf.Instruction, error) {
	var a assembler
	if indexes != nil {
		a.add(bpf.LoadExtension{Num: bpf.ExtInterfaceIndex})
		for _, index := range indexes {
			a.jumpIf(uint32(index), "interface")
		}
		a.jump("drop")
		a.label("interface")
	}
	// A loopback device shows a packet when it is sent and when it arrives.
	a.add(bpf.LoadExtension{Num: bpf.ExtLinkLayerType})
	a.jumpUnless(arphrdLoopback, "once")
	a.add(bpf.LoadExtension{Num: bpf.ExtType})
	a.jumpIf(packetOutgoing, "drop")
	a.label("once")
	if len(ports) > 0 {
		a.portFilter(ports)
	}
	a.label("accept")
	a.add(bpf.RetConstant{Val: wholeFrame})
	a.label("drop")
	a.add(bpf.RetConstant{Val: 0})
	return a.resolve()
}

// portFilter leaves for accept or drop. X is where the IP header is.
func (a *assembler) portFilter(ports []uint16) {
	const network = "network"
	a.add(bpf.LoadExtension{Num: bpf.ExtLinkLayerType})
	a.jumpIf(arphrdEther, "ethernet")
	a.jumpIf(arphrdLoopback, "ethernet")
	// Other devices: PPP, tunnels, IP without a link layer. Wi-Fi monitors, whose
	// protocol is not IP, pass.
	a.add(bpf.LoadConstant{Dst: bpf.RegX, Val: networkOffset}, bpf.LoadExtension{Num: bpf.ExtProto})
	a.jump(network)

	a.label("ethernet")
	a.add(bpf.LoadConstant{Dst: bpf.RegX, Val: 14}, bpf.LoadAbsolute{Off: 12, Size: 2})
	for _, tag := range []uint32{0x8100, 0x88a8, 0x9100} {
		a.jumpIf(tag, "tagged")
	}
	a.jump(network)
	a.label("tagged") // the first tag is usually in metadata: this is the second
	a.add(bpf.LoadConstant{Dst: bpf.RegX, Val: 18}, bpf.LoadAbsolute{Off: 16, Size: 2})

	a.label(network)
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
		for _, port := range ports {
			a.jumpIf(uint32(port), "accept")
		}
	}
	a.jump("drop")
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
