package app

import (
	"math"
	"runtime/debug"

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
	return programMemory + config.Size(c.Capture.Rings)*(c.Capture.RingSize+stringMemory) + c.Spool.MaxMemory
}

// Derive computes from Memory what is not given. A ring has an eighth, shared out and at most 32 MiB,
// the spool a sixteenth, the program 32 MiB, names 8 MiB a ring. Of the rest, which the pipelines share, tables
// take a quarter, connections five sixteenths, open exchanges an eighth, out-of-order bytes and unfinished
// heads a sixteenth each, IP fragments a thirty-second, up to 4 MiB; what remains is for the garbage collector to
// work in. Shares of what is given itself are not shared out again.
func (c *Config) Derive(given func(key string) bool) (from string, keys []string) {
	set := func(key string, value func()) {
		if !given(key) {
			value()
			keys = append(keys, key)
		}
	}
	size := func(key string, into *config.Size, value, low, high config.Size) {
		set(key, func() { *into = min(max(value-value%(64*config.KiB), low), high) })
	}
	rings := config.Size(max(c.Capture.Rings, 1))
	ring := c.Memory / 8 / rings
	size("capture.ring_size", &c.Capture.RingSize, ring-ring%config.MiB, 2*config.MiB, 32*config.MiB)
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
	size("decode.fragment_memory", &c.Decode.FragmentMemory, part/32, 128*config.KiB, 4*config.MiB)
	return "memory", keys
}

// LimitMemory has the garbage collector hold this process below Memory, rings included, by collecting
// more often as it comes near. It is for a program that is the agent; a
// limit in the environment (GOMEMLIMIT) goes first.
func (c *Config) LimitMemory() {
	if debug.SetMemoryLimit(-1) == math.MaxInt64 {
		debug.SetMemoryLimit(int64(c.Memory - programText - config.Size(c.Capture.Rings)*c.Capture.RingSize))
	}
}

// tableMemory is the share of TableMemory of one interval's tables.
func (c *Config) tableMemory(pipelines int) int64 {
	return int64(c.TableMemory) / int64(pipelines+intervalsKept)
}
