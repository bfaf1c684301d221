package app

import (
	"fmt"
	"math"
	"runtime/debug"

	"github.com/httpctl/httpctl/agent/capture"
	"github.com/httpctl/httpctl/pkg/config"
)

const (
	// programMemory is what the agent takes before the first packet: 18 MiB of its
	// program, stacks, gRPC and metrics, and room for them to grow.
	programMemory = 32 * config.MiB
	// programText is the part of it that Go's memory limit does not see.
	programText = 18 * config.MiB
	// stringMemory is what a pipeline remembers of names at most, see pairing.
	stringMemory = 8 * config.MiB
	// minPipelineMemory is the least of a pipeline beside them: 6,000 connections.
	minPipelineMemory = 16 * config.MiB
	minMemory         = 96 * config.MiB
	// flowMemory is what a connection takes that carries HTTP, without what waits on it: its
	// entry (128 bytes), its place in the index (up to 22), and what stream (128) and pairing (512 and a
	// queue of two, 32) keep of it.
	flowMemory = 824
	// openMemory is what a request takes that waits for its response, without its strings.
	openMemory = 450
	// intervalsKept are the tables that exist besides those of each pipeline: of buckets
	// that wait for the disk.
	intervalsKept = unwrittenBuckets + 1
)

// fixedMemory is what does not depend on the traffic.
func (c *Config) fixedMemory() config.Size {
	return programMemory + config.Size(c.Capture.AllRings())*(c.Capture.RingSize+stringMemory) + c.Spool.MaxMemory
}

// Derive computes what is not given: rings and their blocks from the machine that this process runs on and
// the interfaces named, sizes from Memory. The rings have an eighth, shared out and at most 32 MiB,
// the spool a sixteenth, the program 32 MiB, names 8 MiB a ring. Of the rest, which the pipelines of all namespaces share, tables
// take a quarter, connections five sixteenths, open exchanges an eighth, out-of-order bytes and unfinished
// heads a sixteenth each, IP fragments a thirty-second, up to 4 MiB; what remains is for the garbage collector to
// work in. Shares of what is given itself are not shared out again.
func (c *Config) Derive(given func(key string) bool) (from string, keys []string) {
	var m capture.Machine
	if len(c.Capture.Interfaces) > 0 {
		m = capture.ThisMachine(c.Capture.Interfaces)
	}
	from, keys = c.derive(given, m)
	return from, append(keys, c.enrolled(given)...)
}

// Reason says in a few words why Derive chose the value of a key, or "" when it follows from Memory alone.
func (c *Config) Reason(key string) string { return c.reasons[key] }

// derive is Derive on a machine.
func (c *Config) derive(given func(key string) bool, m capture.Machine) (from string, keys []string) {
	c.reasons = map[string]string{}
	set := func(key string, value func()) {
		if !given(key) {
			value()
			keys = append(keys, key)
		}
	}
	size := func(key string, into *config.Size, value, low, high config.Size) {
		set(key, func() { *into = min(max(value-value%(64*config.KiB), low), high) })
	}
	set("capture.rings", func() {
		c.Capture.Rings, c.reasons["capture.rings"] = m.Rings(func(rings int) bool { return c.holds(rings, given) })
	})
	rings := config.Size(c.Capture.AllRings())
	set("capture.ring_size", func() {
		c.Capture.RingSize = c.ringSize(int(rings), given)
		if rings > 1 {
			c.reasons["capture.ring_size"] = fmt.Sprintf("an eighth of memory for %d rings", rings)
		}
	})
	set("capture.block_size", func() {
		c.Capture.BlockSize = m.BlockSize(c.Capture.RingSize)
		if m.MaxFrame > 0 {
			c.reasons["capture.block_size"] = fmt.Sprintf("for a ring of %v and frames of up to %v", c.Capture.RingSize, m.MaxFrame)
		}
	})
	set("capture.poll_timeout", func() {
		blocks := int(c.Capture.RingSize / max(c.Capture.BlockSize, 1))
		if c.Capture.PollTimeout = capture.PollTimeout(blocks); len(m.Hardware) > 0 {
			c.reasons["capture.poll_timeout"] = fmt.Sprintf("for %d blocks", blocks)
		}
	})
	size("spool.max_memory", &c.Spool.MaxMemory, c.Memory/16, config.MiB, max(c.Spool.MaxSize, config.MiB))
	traffic := max(c.Memory-c.fixedMemory(), 0)
	size("table_memory", &c.TableMemory, traffic/4, config.MiB, 64*config.GiB)

	part := traffic / rings
	set("stream.max_flows", func() {
		n := int(part * 5 / 16 / flowMemory)
		c.Stream.MaxFlows = min(max(n-n%1024, 1024), 1<<26)
	})
	size("stream.max_buffer", &c.Stream.MaxBuffer, part/16, 64*config.KiB, 64*config.GiB)
	size("stream.max_flow_buffer", &c.Stream.MaxFlowBuffer, c.Stream.MaxBuffer/4, 64*config.KiB, 2*config.MiB)
	size("http.max_head_memory", &c.HTTP.MaxHeadMemory, part/16, c.HTTP.MaxHeaderBytes, 64*config.GiB)
	size("http.max_open_memory", &c.HTTP.MaxOpenMemory, part/8, 64*config.KiB, 64*config.GiB)
	set("http.max_waiting", func() {
		c.HTTP.MaxWaiting = min(max(int(c.HTTP.MaxOpenMemory/openMemory)/1024*1024, 1024), 1<<26)
	})
	set("http.max_pipelined", func() { c.HTTP.MaxPipelined = min(max(c.HTTP.MaxWaiting/32, 128), 1024) })
	size("decode.fragment_memory", &c.Decode.FragmentMemory, part/32, 128*config.KiB, 4*config.MiB)
	return "memory", keys
}

// ringSize is the share of Memory that one of several rings has, in whole blocks if their size is given.
func (c *Config) ringSize(rings int, given func(key string) bool) config.Size {
	ring := c.Memory / 8 / config.Size(max(rings, 1))
	ring = min(max(ring-ring%config.MiB, 2*config.MiB), 32*config.MiB)
	if given("capture.block_size") {
		block := max(c.Capture.BlockSize, config.MiB)
		ring = max(ring-ring%block, 2*block)
	}
	return ring
}

// holds reports whether so many rings and their pipelines are within Memory.
func (c *Config) holds(rings int, given func(key string) bool) bool {
	with := *c
	with.Capture.Rings = rings
	all := with.Capture.AllRings()
	if !given("capture.ring_size") {
		with.Capture.RingSize = c.ringSize(all, given)
	}
	if !given("spool.max_memory") {
		with.Spool.MaxMemory = c.Memory / 16
	}
	return with.fixedMemory()+config.Size(all)*minPipelineMemory <= c.Memory
}

// LimitMemory has the garbage collector hold this process below Memory, rings included, by collecting
// more often as it comes near. It is for a program that is the agent; a
// limit in the environment (GOMEMLIMIT) goes first.
func (c *Config) LimitMemory() {
	if debug.SetMemoryLimit(-1) == math.MaxInt64 {
		debug.SetMemoryLimit(int64(c.Memory - programText - config.Size(c.Capture.AllRings())*c.Capture.RingSize))
	}
}

// tableMemory is the share of TableMemory of one interval's tables.
func (c *Config) tableMemory(pipelines int) int64 {
	return int64(c.TableMemory) / int64(pipelines+intervalsKept)
}
