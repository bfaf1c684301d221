package capture

import (
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"time"

	"github.com/httpctl/httpctl/pkg/config"
)

// Machine is what rings follow from.
type Machine struct {
	// Cores is how many this process may use at once.
	Cores int
	// Hardware is what carries the interfaces captured, each device once: of a bond or a bridge its
	// members, of a VLAN what is below. Nil means that no interface was named.
	Hardware []Hardware
	// MaxFrame is the largest frame that an interface of this network namespace may hand over
	// (64 KiB, unless BIG TCP is on), or 0 if that is not known.
	MaxFrame config.Size
}

// Hardware is a device that carries packets.
type Hardware struct {
	// Name is "" for all that has no hardware, such as lo, veth and tun, together.
	Name string
	// Speed is that of its link in Mb/s, or 0 if it is not known.
	Speed int
}

const (
	// ringSpeed is the line rate, in Mb/s, that one ring is for. A pipeline takes 300 to 400 ns for a packet,
	// from its frame to the tables (BenchmarkFlows, 1,000 connections): 2.5 to 3 million packets a second,
	// which is 30 to 36 Gb/s of full frames of 1,514 bytes. The rest is left to acknowledgements and bursts.
	ringSpeed = 25_000
	// ordinarySpeed is what a link of unknown speed counts for.
	ordinarySpeed = 10_000
	// mostRings are chosen at most. Beyond, each has too small a share of memory to be of use.
	mostRings = 16
)

// Rings chooses how many rings share the packets: one for each 25 Gb/s of the links, not for more than half of
// the cores, as what is watched needs the rest, and not more than memory holds, which fits says. why is a
// remark for people, "" if there was nothing to choose from.
func (m Machine) Rings(fits func(rings int) bool) (rings int, why string) {
	if len(m.Hardware) == 0 {
		return 1, ""
	}
	speed := m.Speed()
	wanted := min(max((speed+ringSpeed-1)/ringSpeed, 1), mostRings)
	why = FormatSpeed(speed) + ", one for each " + FormatSpeed(ringSpeed)
	if !slices.ContainsFunc(m.Hardware, func(h Hardware) bool { return h.Speed > 0 }) {
		why = "link speed not known, taken for " + FormatSpeed(ordinarySpeed)
	}
	rings = min(wanted, max(m.Cores/2, 1))
	if rings < wanted {
		allow := fmt.Sprintf("%d cores allow", m.Cores)
		if m.Cores == 1 {
			allow = "1 core allows"
		}
		why = fmt.Sprintf("%s is worth %d, %s %d", FormatSpeed(speed), wanted, allow, rings)
	}
	for ; rings > 1 && !fits(rings); rings-- {
		why = fmt.Sprintf("%s is worth %d, memory holds %d", FormatSpeed(speed), wanted, rings-1)
	}
	return rings, why
}

// Speed adds up the links, in Mb/s. Those of unknown speed count as one ordinary link together:
// forty veths are not forty cables.
func (m Machine) Speed() (speed int) {
	unknown := 0
	for _, h := range m.Hardware {
		if speed += h.Speed; h.Speed == 0 {
			unknown = ordinarySpeed
		}
	}
	return speed + unknown
}

// Sizes of blocks. A frame has to fit into a block, else it is cut, and counted as truncated.
const (
	// leastBlock holds the frames that offloads make, of up to 65,549 bytes, and in most cases
	// two of them.
	leastBlock = 128 * config.KiB
	mostBlock  = 4 * config.MiB
	// fewBlocks are chosen: a block is the unit in which room is given back, so with fewer a large part of the
	// ring waits for its reader, and with more the reader wakes up more often for fewer packets each.
	fewBlocks = 8
)

// BlockSize chooses the size of a ring's blocks: an eighth of it, within bounds, and more where
// a frame would not fit.
func (m Machine) BlockSize(ring config.Size) config.Size {
	block := leastBlock
	for block < mostBlock && ring/(2*block) >= fewBlocks {
		block *= 2
	}
	if m.MaxFrame > 0 { // and the headers of block and frame
		block = max(block, 1<<bits.Len64(uint64(m.MaxFrame+1024-1)))
	}
	for block = min(block, mostBlock); block > leastBlock && (block > ring/2 || ring%block != 0); {
		block /= 2
	}
	return block
}

const (
	// stall is how long a reader may be held up while packets come few and far between.
	stall               = 3200 * time.Millisecond
	leastWait, mostWait = 100 * time.Millisecond, 400 * time.Millisecond
)

// PollTimeout chooses how long a block may be kept back. A full one is handed over at once, whatever the timeout;
// one with a single packet is after the timeout, and then it is taken until it was read. So where
// packets are few, blocks times timeout is how long the reader may be held up before the ring is full.
func PollTimeout(blocks int) time.Duration {
	wait := stall / time.Duration(max(blocks, 1))
	return min(max(wait.Truncate(10*time.Millisecond), leastWait), mostWait)
}

// FormatSpeed writes a speed given in Mb/s, such as "2.5 Gb/s".
func FormatSpeed(mbits int) string {
	if mbits < 1000 {
		return strconv.Itoa(mbits) + " Mb/s"
	}
	return strconv.FormatFloat(float64(mbits)/1000, 'g', 4, 64) + " Gb/s"
}
