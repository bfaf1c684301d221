package capture

import (
	"testing"
	"time"

	"github.com/httpctl/httpctl/pkg/config"
)

func TestMachineRings(t *testing.T) {
	link := func(speeds ...int) (list []Hardware) {
		for i, s := range speeds {
			list = append(list, Hardware{Name: string(rune('a' + i)), Speed: s})
		}
		return list
	}
	for _, c := range []struct {
		cores    int
		hardware []Hardware
		holds    int // rings that memory has room for
		rings    int
		why      string
	}{
		{cores: 8, hardware: nil, holds: 64, rings: 1, why: ""},
		{cores: 1, hardware: link(10_000), holds: 64, rings: 1, why: "10 Gb/s, one for each 25 Gb/s"},
		{cores: 1, hardware: link(100_000), holds: 64, rings: 1, why: "100 Gb/s is worth 4, 1 core allows 1"},
		{cores: 2, hardware: link(10_000), holds: 64, rings: 1, why: "10 Gb/s, one for each 25 Gb/s"},
		{cores: 16, hardware: link(25_000), holds: 64, rings: 1, why: "25 Gb/s, one for each 25 Gb/s"},
		{cores: 16, hardware: link(40_000), holds: 64, rings: 2, why: "40 Gb/s, one for each 25 Gb/s"},
		{cores: 16, hardware: link(100_000), holds: 64, rings: 4, why: "100 Gb/s, one for each 25 Gb/s"},
		{cores: 4, hardware: link(100_000), holds: 64, rings: 2, why: "100 Gb/s is worth 4, 4 cores allow 2"},
		{cores: 64, hardware: link(100_000, 100_000), holds: 64, rings: 8, why: "200 Gb/s, one for each 25 Gb/s"},
		{cores: 256, hardware: link(400_000, 400_000), holds: 64, rings: 16, why: "800 Gb/s, one for each 25 Gb/s"},
		{cores: 16, hardware: link(100_000), holds: 1, rings: 1, why: "100 Gb/s is worth 4, memory holds 1"},
		{cores: 16, hardware: link(100_000), holds: 0, rings: 1, why: "100 Gb/s is worth 4, memory holds 1"},
		{cores: 16, hardware: link(0), holds: 64, rings: 1, why: "link speed not known, taken for 10 Gb/s"},
		{cores: 16, hardware: link(0, 0, 0), holds: 64, rings: 1, why: "link speed not known, taken for 10 Gb/s"},
		{cores: 16, hardware: link(25_000, 0), holds: 64, rings: 2, why: "35 Gb/s, one for each 25 Gb/s"},
	} {
		rings, why := Machine{Cores: c.cores, Hardware: c.hardware}.Rings(func(n int) bool { return n <= c.holds })
		if rings != c.rings || why != c.why {
			t.Errorf("Rings() with %d cores, %v, memory for %d = %d, %q, want %d, %q", c.cores, c.hardware, c.holds, rings, why, c.rings, c.why)
		}
	}
}

func TestMachineBlocks(t *testing.T) {
	const MiB, KiB = config.MiB, config.KiB
	for _, c := range []struct {
		ring, frame, block config.Size
		wait               time.Duration
	}{
		{32 * MiB, 0, 4 * MiB, 400 * time.Millisecond},
		{32 * MiB, 64 * KiB, 4 * MiB, 400 * time.Millisecond},
		{config.GiB, 64 * KiB, 4 * MiB, 100 * time.Millisecond},
		{64 * MiB, 64 * KiB, 4 * MiB, 200 * time.Millisecond},
		{12 * MiB, 64 * KiB, MiB, 260 * time.Millisecond},
		{8 * MiB, 512 * KiB, MiB, 400 * time.Millisecond},
		{7 * MiB, 64 * KiB, 512 * KiB, 220 * time.Millisecond},
		{2 * MiB, 64 * KiB, 256 * KiB, 400 * time.Millisecond},
		{4 * MiB, 185_000, 512 * KiB, 400 * time.Millisecond},
		{2 * MiB, 185_000, 256 * KiB, 400 * time.Millisecond},
		{3 * MiB, 512 * KiB, MiB, 400 * time.Millisecond},
		{2 * MiB, 16 * MiB, MiB, 400 * time.Millisecond},
	} {
		block := Machine{MaxFrame: c.frame}.BlockSize(c.ring)
		wait := PollTimeout(int(c.ring / block))
		if block != c.block || wait != c.wait {
			t.Errorf("a ring of %v for frames of %v: blocks of %v, %v, want %v, %v", c.ring, c.frame, block, wait, c.block, c.wait)
		}
		cfg := Config{RingSize: c.ring, BlockSize: block, Rings: 1, PollTimeout: wait}
		if err := cfg.Validate(); err != nil {
			t.Errorf("a ring of %v for frames of %v is not valid: %v", c.ring, c.frame, err)
		}
	}
}
