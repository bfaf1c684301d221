package capture

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/httpctl/httpctl/pkg/config"
)

// Any is the interface name that stands for all interfaces of the network
// namespace, those to come included.
const Any = "any"

// Config says what a live source captures. Start from [DefaultConfig].
type Config struct {
	// Interfaces are the names of the interfaces to capture on; "any" is all of
	// them. There is no default: someone has to choose. An interface that
	// vanishes and returns is captured on again within a second and PollTimeout of its return.
	Interfaces []string `yaml:"interfaces"`
	// Namespaces are other network namespaces to capture in, on all their interfaces: names in
	// /run/netns, as `ip netns` makes them, or paths such as /proc/1234/ns/net. Default: none. Each costs
	// what the own one costs (Rings, RingSize), and the capability CAP_SYS_ADMIN at the start. One whose
	// name vanishes, or comes to stand for another, is captured in until then.
	Namespaces []string `yaml:"namespaces"`
	// Ports, if not empty, has the kernel pass only TCP segments to or from these ports, IP
	// fragments, and tunnels, into which it can't look. Tunnels over UDP are then known by
	// their usual ports only. Default: none, which captures everything and recognises HTTP on
	// any port; set it where traffic other than HTTP costs too much. At most 256.
	Ports []uint16 `yaml:"ports" reload:"at once"`
	// RingSize is the memory, locked in the kernel, in which packets wait for one
	// ring's reader: a multiple of 1MiB, from 2MiB to 1GiB. Default 32MiB, which
	// held 134,000 packets a second without a drop. Raise it when kernel_drops grows in bursts.
	RingSize config.Size `yaml:"ring_size"`
	// BlockSize is the unit in which a ring hands packets over and takes its room back: a power of two from
	// 128KiB to 4MiB, of which RingSize is a multiple, at least twice. Frames that are larger are cut. Default:
	// an eighth of the ring, or what the largest frame takes, see [Machine.BlockSize].
	BlockSize config.Size `yaml:"block_size"`
	// Rings is how many rings, each with a pipeline of its own, share the packets: 1 to 64.
	// Default: from the links' speed, the cores and memory, see [Machine.Rings]. They cost RingSize
	// each. Both directions of a connection come to the same ring, also inside tunnels.
	Rings int `yaml:"rings"`
	// PollTimeout is how long Next waits before it says that there is nothing,
	// and how long the kernel may keep packets back to hand over many at once:
	// from 10ms to 1s. Default: from the number of blocks, 400ms for 8, down to 100ms for 32 and more, see
	// [PollTimeout]. Lower costs more wake-ups, and with few packets a block each time.
	PollTimeout time.Duration `yaml:"poll_timeout"`
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{RingSize: 32 * config.MiB, BlockSize: mostBlock, Rings: 1, PollTimeout: mostWait}
}

// maxPorts keeps the kernel filter well below the 4096 instructions it may have.
const maxPorts = 256

// Validate reports all faults at once, each with its key. It does not look for
// the interfaces: [OpenLive] does.
func (c *Config) Validate() error {
	var errs []error
	for _, name := range c.Interfaces {
		if name == "" || len(name) > 15 {
			errs = append(errs, fmt.Errorf("interfaces: %q is not the name of an interface (1 to 15 bytes)", name))
		}
	}
	for i, name := range c.Namespaces {
		if !isNamespace(name) {
			errs = append(errs, fmt.Errorf("namespaces: %q is neither a name in /run/netns nor a path that begins with /", name))
		}
		if slices.Contains(c.Namespaces[:i], name) {
			errs = append(errs, fmt.Errorf("namespaces: %q is there twice", name))
		}
	}
	for _, port := range c.Ports {
		if port == 0 {
			errs = append(errs, errors.New("ports: 0 is not a port"))
		}
	}
	if len(c.Ports) > maxPorts {
		errs = append(errs, fmt.Errorf("ports: %d ports, at most %d", len(c.Ports), maxPorts))
	}
	if c.RingSize < 2*config.MiB || c.RingSize > config.GiB || c.RingSize%config.MiB != 0 {
		errs = append(errs, fmt.Errorf("ring_size: %d is not a multiple of 1MiB between 2MiB and 1GiB", c.RingSize))
	}
	switch b := c.BlockSize; {
	case b < leastBlock || b > mostBlock || b&(b-1) != 0:
		errs = append(errs, fmt.Errorf("block_size: %d is not a power of two between 128KiB and 4MiB", b))
	case c.RingSize < 2*b || c.RingSize%b != 0:
		errs = append(errs, fmt.Errorf("block_size: ring_size, %v, is not a multiple of %v, at least twice", c.RingSize, b))
	}
	if c.Rings < 1 || c.Rings > 64 {
		errs = append(errs, fmt.Errorf("rings: %d is not between 1 and 64", c.Rings))
	}
	if c.PollTimeout < 10*time.Millisecond || c.PollTimeout > time.Second {
		errs = append(errs, fmt.Errorf("poll_timeout: %v is not between 10ms and 1s", c.PollTimeout))
	}
	return errors.Join(errs...)
}

// isNamespace accepts a name without slashes, and an absolute path.
func isNamespace(s string) bool {
	if strings.HasPrefix(s, "/") {
		return len(s) < 4096 && !strings.Contains(s, "\x00")
	}
	return s != "" && len(s) <= 255 && s != "." && s != ".." && !strings.ContainsAny(s, "/\x00")
}

// AllRings is how many rings there are in all namespaces: at least 1.
func (c *Config) AllRings() int {
	namespaces := len(c.Namespaces)
	if len(c.Interfaces) > 0 || namespaces == 0 {
		namespaces++
	}
	return max(c.Rings, 1) * namespaces
}
