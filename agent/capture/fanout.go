package capture

import (
	"fmt"

	"golang.org/x/net/bpf"
)

// maxNested is how many tunnels inside one another the fanout program looks through.
const maxNested = 2

// Where the fanout program keeps what it knows of the innermost flow so far. Sums and
// exclusive ors are the same for both directions.
const (
	slotAddressSum = iota
	slotAddressXor
	slotPortSum
	slotPortXor
	slotNext // protocol that follows
)

// fanoutProgram computes a number that chooses the ring of a packet: a hash of the addresses
// and ports of the innermost TCP flow, the same for both directions. The kernel's own hash takes
// that of the outer packet, which splits a flow in a tunnel whose outer ports differ by direction,
// as VXLAN's do.
//
// It looks through VLAN tags, PPPoE, MPLS, IP in IP, GRE, VXLAN, GENEVE and GTP-U. Of
// what it can't look into, and of IP fragments, the addresses alone count. That a whole
// tunnel may then be on one ring costs speed only.
func fanoutProgram() ([]bpf.Instruction, error) {
	var a assembler
	a.add(bpf.LoadConstant{Dst: bpf.RegA, Val: 0})
	for slot := slotAddressSum; slot <= slotPortXor; slot++ {
		a.add(bpf.StoreScratch{Src: bpf.RegA, N: slot})
	}
	// Unlike in a filter, the packet begins with its IP header, but those sent with
	// the link layer's: after 14 bytes with the same EtherType, or a VLAN tag, which the kernel
	// has left there. Where the packet is in pages, offsets from the IP header would fail.
	a.add(bpf.LoadExtension{Num: bpf.ExtType})
	a.jumpIf(packetOutgoing, "sent")
	a.add(bpf.LoadConstant{Dst: bpf.RegX, Val: 0}, bpf.LoadExtension{Num: bpf.ExtProto})
	a.jump("0-ether")
	a.label("sent")
	a.add(bpf.LoadExtension{Num: bpf.ExtLinkLayerType})
	a.jumpUnless(arphrdEther, "sent raw")
	a.add(bpf.LoadExtension{Num: bpf.ExtProto}, bpf.TAX{}, bpf.LoadAbsolute{Off: 12, Size: 2})
	for _, tag := range vlanTags {
		a.jumpIf(tag, "sent ethernet")
	}
	a.add(bpf.JumpIfX{Cond: bpf.JumpEqual, SkipTrue: 1})
	a.jump("sent raw") // also what was put together from fragments: it begins with its IP header
	a.label("sent ethernet")
	a.add(bpf.LoadConstant{Dst: bpf.RegX, Val: 14})
	a.jump("0-ether")
	a.label("sent raw")
	a.add(bpf.LoadConstant{Dst: bpf.RegX, Val: networkOffset}, bpf.LoadExtension{Num: bpf.ExtProto})
	a.jump("0-ether")

	for level := 0; level <= maxNested; level++ {
		a.innermost(level)
	}

	a.label("hash")
	a.add(bpf.LoadConstant{Dst: bpf.RegX, Val: 0})
	for slot, factor := range [...]uint32{slotAddressSum: 0x9e3779b1, slotAddressXor: 0x85ebca77, slotPortSum: 0xc2b2ae3d, slotPortXor: 0x27d4eb2f} { // xxHash's primes
		a.add(bpf.LoadScratch{Dst: bpf.RegA, N: slot}, bpf.ALUOpConstant{Op: bpf.ALUOpMul, Val: factor}, bpf.ALUOpX{Op: bpf.ALUOpXor})
		a.mix(15)
		a.add(bpf.TAX{})
	}
	for _, factor := range [...]uint32{0x85ebca6b, 0xc2b2ae35} { // MurmurHash3's end
		a.add(bpf.ALUOpConstant{Op: bpf.ALUOpMul, Val: factor})
		a.mix(16)
	}
	a.add(bpf.RetA{})
	return a.resolve()
}

// mix does A ^= A >> bits, and spoils X.
func (a *assembler) mix(bits uint32) {
	a.add(bpf.TAX{}, bpf.ALUOpConstant{Op: bpf.ALUOpShiftRight, Val: bits}, bpf.ALUOpX{Op: bpf.ALUOpXor})
}

// advance does X += A.
func (a *assembler) advance() { a.add(bpf.ALUOpX{Op: bpf.ALUOpAdd}, bpf.TAX{}) }

// skip does X += n, and spoils A.
func (a *assembler) skip(n uint32) {
	a.add(bpf.TXA{}, bpf.ALUOpConstant{Op: bpf.ALUOpAdd, Val: n}, bpf.TAX{})
}

// innermost reads one level of encapsulation, goes on with the next one, and leaves for "hash". It has the
// entries ethernet, ether (A is the EtherType of what is at X), ip4, ip6, and ip, which looks.
func (a *assembler) innermost(level int) {
	here := func(name string) string { return fmt.Sprintf("%d-%s", level, name) }
	inner := func(name string) string {
		if level == maxNested {
			return "hash"
		}
		return fmt.Sprintf("%d-%s", level+1, name)
	}
	load := func(off uint32, size int) { a.add(bpf.LoadIndirect{Off: off, Size: size}) }

	a.label(here("ethernet"))
	load(12, 2)
	a.add(bpf.StoreScratch{Src: bpf.RegA, N: slotNext})
	a.skip(14)
	a.add(bpf.LoadScratch{Dst: bpf.RegA, N: slotNext})
	a.label(here("ether"))
	for i, next := range []string{"tag1", "untagged"} {
		for _, tag := range vlanTags {
			a.jumpIf(tag, here(fmt.Sprint("tagged", i)))
		}
		a.jump(here("untagged"))
		a.label(here(fmt.Sprint("tagged", i)))
		load(2, 2)
		a.add(bpf.StoreScratch{Src: bpf.RegA, N: slotNext})
		a.skip(4)
		a.add(bpf.LoadScratch{Dst: bpf.RegA, N: slotNext})
		a.label(here(next))
	}
	a.jumpIf(0x0800, here("ip4"))
	a.jumpIf(0x86dd, here("ip6"))
	a.jumpIf(0x8847, here("mpls"))
	a.jumpUnless(0x8864, "hash")
	load(6, 2) // PPPoE (RFC 2516): the protocol of PPP
	a.add(bpf.StoreScratch{Src: bpf.RegA, N: slotNext})
	a.skip(8)
	a.add(bpf.LoadScratch{Dst: bpf.RegA, N: slotNext})
	a.jumpIf(0x0021, here("ip4"))
	a.jumpIf(0x0057, here("ip6"))
	a.jump("hash")
	a.label(here("mpls")) // RFC 3032
	for range 3 {
		load(2, 1)
		a.add(bpf.StoreScratch{Src: bpf.RegA, N: slotNext})
		a.skip(4)
		a.add(bpf.LoadScratch{Dst: bpf.RegA, N: slotNext}, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 1})
		a.jumpIf(1, here("ip"))
	}
	a.jump("hash")
	a.label(here("ip"))
	load(0, 1)
	a.add(bpf.ALUOpConstant{Op: bpf.ALUOpShiftRight, Val: 4})
	a.jumpIf(4, here("ip4"))
	a.jumpUnless(6, "hash")

	a.label(here("ip6"))
	a.addresses(8, 4)
	load(6, 1)
	a.add(bpf.StoreScratch{Src: bpf.RegA, N: slotNext})
	a.skip(40)
	for range 2 { // extension headers that may be before TCP
		a.add(bpf.LoadScratch{Dst: bpf.RegA, N: slotNext})
		next := fmt.Sprintf("%s%d", here("extension"), len(a.program))
		for _, header := range []uint32{0, 43, 60} {
			a.jumpIf(header, next)
		}
		a.jump(here("transport"))
		a.label(next)
		load(0, 1)
		a.add(bpf.StoreScratch{Src: bpf.RegA, N: slotNext})
		load(1, 1)
		a.add(bpf.ALUOpConstant{Op: bpf.ALUOpAdd, Val: 1}, bpf.ALUOpConstant{Op: bpf.ALUOpShiftLeft, Val: 3})
		a.advance()
	}
	a.jump(here("transport"))

	a.label(here("ip4"))
	a.addresses(12, 1)
	load(6, 2)
	a.add(bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0x3fff})
	a.jumpUnless(0, "hash") // a fragment
	load(9, 1)
	a.add(bpf.StoreScratch{Src: bpf.RegA, N: slotNext})
	load(0, 1)
	a.add(bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0x0f}, bpf.ALUOpConstant{Op: bpf.ALUOpShiftLeft, Val: 2})
	a.advance()

	a.label(here("transport"))
	a.add(bpf.LoadScratch{Dst: bpf.RegA, N: slotNext})
	a.jumpIf(17, here("udp"))
	a.jumpIf(4, inner("ip4"))
	a.jumpIf(41, inner("ip6"))
	a.jumpIf(47, here("gre"))
	a.jumpUnless(6, "hash")
	a.symmetric(0, 2, 2, 1, slotPortSum, slotPortXor)
	a.jump("hash")

	a.label(here("gre")) // RFC 2890
	load(0, 2)
	a.add(bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0x4007}) // source routes, version
	a.jumpUnless(0, "hash")
	load(2, 2)
	a.add(bpf.StoreScratch{Src: bpf.RegA, N: slotNext})
	for _, flag := range []uint32{0x80, 0x20, 0x10} { // checksum, key, sequence number: four bytes each
		// They are counted in the first four bytes, at X until the last one is.
		a.add(bpf.LoadIndirect{Off: 0, Size: 1}, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: flag})
		a.add(bpf.StoreScratch{Src: bpf.RegA, N: slotNext + 1 + int(flag>>5)})
	}
	a.skip(4)
	for _, flag := range []uint32{0x80, 0x20, 0x10} {
		next := here(fmt.Sprint("gre", flag))
		a.add(bpf.LoadScratch{Dst: bpf.RegA, N: slotNext + 1 + int(flag>>5)})
		a.jumpIf(0, next)
		a.skip(4)
		a.label(next)
	}
	a.add(bpf.LoadScratch{Dst: bpf.RegA, N: slotNext})
	a.jumpIf(0x6558, inner("ethernet"))
	a.jumpUnless(0x88be, inner("ether"))
	a.add(bpf.LoadScratch{Dst: bpf.RegA, N: slotNext + 1}) // ERSPAN: a header if there is a sequence number
	a.jumpIf(0, inner("ethernet"))
	a.skip(8)
	a.jump(inner("ethernet"))

	a.label(here("udp")) // the ports don't count: there are tunnels on any, see decode
	for off := uint32(0); off <= 2; off += 2 {
		load(off, 2)
		for _, port := range []uint32{4789, 8472, 4790} {
			a.jumpIf(port, here("vxlan"))
		}
		a.jumpIf(6081, here("geneve"))
		a.jumpIf(2152, here("gtp"))
	}
	a.jump("hash")

	a.label(here("vxlan")) // RFC 7348
	load(8, 1)
	a.add(bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0x0c})
	a.jumpIf(0x0c, here("gpe"))
	a.jumpUnless(0x08, "hash")
	a.skip(16)
	a.jump(inner("ethernet"))
	a.label(here("gpe")) // the protocol is given
	load(11, 1)
	a.add(bpf.StoreScratch{Src: bpf.RegA, N: slotNext})
	a.skip(16)
	a.add(bpf.LoadScratch{Dst: bpf.RegA, N: slotNext})
	a.jumpIf(1, inner("ip4"))
	a.jumpIf(2, inner("ip6"))
	a.jumpIf(3, inner("ethernet"))
	a.jump("hash")

	a.label(here("geneve")) // RFC 8926
	load(10, 2)
	a.add(bpf.StoreScratch{Src: bpf.RegA, N: slotNext})
	load(8, 1)
	a.add(bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0x3f}, bpf.ALUOpConstant{Op: bpf.ALUOpShiftLeft, Val: 2},
		bpf.ALUOpConstant{Op: bpf.ALUOpAdd, Val: 16})
	a.advance()
	a.add(bpf.LoadScratch{Dst: bpf.RegA, N: slotNext})
	a.jumpIf(0x6558, inner("ethernet"))
	a.jump(inner("ether"))

	a.label(here("gtp")) // 3GPP TS 29.281: version 1, and a packet in it
	load(8, 2)
	a.add(bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0xf0ff})
	a.jumpUnless(0x30ff, "hash")
	load(8, 1)
	a.add(bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 7})
	a.jumpUnless(0, here("gtp options"))
	a.skip(16)
	a.jump(inner("ip"))
	a.label(here("gtp options"))
	a.add(bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 4})
	a.jumpUnless(0, here("gtp extensions"))
	a.skip(20)
	a.jump(inner("ip"))
	a.label(here("gtp extensions")) // each ends in the type of the next one
	load(19, 1)
	a.add(bpf.StoreScratch{Src: bpf.RegA, N: slotNext})
	a.skip(20)
	for range 3 {
		a.add(bpf.LoadScratch{Dst: bpf.RegA, N: slotNext})
		a.jumpIf(0, inner("ip"))
		load(0, 1)
		a.jumpIf(0, "hash")
		a.add(bpf.ALUOpConstant{Op: bpf.ALUOpShiftLeft, Val: 2})
		a.advance()
		a.add(bpf.ALUOpConstant{Op: bpf.ALUOpSub, Val: 1}, bpf.TAX{})
		load(0, 1)
		a.add(bpf.StoreScratch{Src: bpf.RegA, N: slotNext})
		a.skip(1)
	}
	a.jump("hash")
}

// addresses takes the addresses of so many words at off and after it for those of the flow, with no ports.
func (a *assembler) addresses(off uint32, words uint32) {
	a.symmetric(off, off+4*words, 4, words, slotAddressSum, slotAddressXor)
	a.add(bpf.LoadConstant{Dst: bpf.RegA, Val: 0}, bpf.StoreScratch{Src: bpf.RegA, N: slotPortSum}, bpf.StoreScratch{Src: bpf.RegA, N: slotPortXor})
}

// symmetric keeps sum and exclusive or of the values at one and other, which consist of so many words. X stays.
func (a *assembler) symmetric(one, other uint32, size int, words uint32, sum, xor int) {
	const (
		position = slotNext + 1 + iota
		first
		second
	)
	a.add(bpf.StoreScratch{Src: bpf.RegX, N: position})
	for i, off := range []uint32{one, other} {
		into := first + i
		a.add(bpf.LoadIndirect{Off: off, Size: size}, bpf.StoreScratch{Src: bpf.RegA, N: into})
		for k := uint32(1); k < words; k++ { // as the digits of a number
			a.add(bpf.LoadScratch{Dst: bpf.RegA, N: into}, bpf.ALUOpConstant{Op: bpf.ALUOpMul, Val: 0x9e3779b1}, bpf.StoreScratch{Src: bpf.RegA, N: into},
				bpf.LoadScratch{Dst: bpf.RegX, N: position}, bpf.LoadIndirect{Off: off + 4*k, Size: size},
				bpf.LoadScratch{Dst: bpf.RegX, N: into}, bpf.ALUOpX{Op: bpf.ALUOpAdd}, bpf.StoreScratch{Src: bpf.RegA, N: into},
				bpf.LoadScratch{Dst: bpf.RegX, N: position})
		}
	}
	a.add(bpf.LoadScratch{Dst: bpf.RegX, N: first},
		bpf.LoadScratch{Dst: bpf.RegA, N: second}, bpf.ALUOpX{Op: bpf.ALUOpAdd}, bpf.StoreScratch{Src: bpf.RegA, N: sum},
		bpf.LoadScratch{Dst: bpf.RegA, N: second}, bpf.ALUOpX{Op: bpf.ALUOpXor}, bpf.StoreScratch{Src: bpf.RegA, N: xor},
		bpf.LoadScratch{Dst: bpf.RegX, N: position})
}
