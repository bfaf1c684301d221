package stream

import (
	"errors"
	"fmt"
	"time"

	"github.com/httpctl/httpctl/pkg/config"
)

// Config bounds what one pipeline keeps of its connections.
type Config struct {
	// MaxFlows is how many connections are tracked at once, half-open and
	// just-closed ones included. Above it the least recently heard gives way: first
	// closed ones, then half-open, then those of no interest, then the others
	// (counter evicted_flows). Default 66560, from the agent's memory: 10 MiB if all are half-open, 55 MiB if
	// all carry HTTP. A connection costs about 150 bytes half-open, about 820 with bytes, of
	// which more than half are what pairing keeps of it.
	MaxFlows int `yaml:"max_flows"`
	// MaxBuffer is how many bytes are held in all while missing ones are waited
	// for (counter evicted_bytes when it cuts a wait short). Default 10.5MiB, from the agent's
	// memory: a second of loss-ridden traffic at 90 Mbit/s. Lower, and reordered or
	// retransmitted packets on a lossy link become gaps; raising it costs that memory.
	MaxBuffer config.Size `yaml:"max_buffer"`
	// MaxFlowBuffer is the part of MaxBuffer that one connection may take. Default
	// 2MiB: what is in flight at 1 Gbit/s and 16 ms, so that a packet lost in the
	// network is still waited for until its retransmission.
	MaxFlowBuffer config.Size `yaml:"max_flow_buffer"`
	// FlowIdleTimeout closes a connection of which nothing was heard. Default 10m:
	// longer than servers keep idle connections or slow answers take (nginx 75 s, most
	// proxies 60 s to 5 min). A connection that speaks again is joined in its middle.
	FlowIdleTimeout time.Duration `yaml:"flow_idle_timeout" reload:"at once"`
	// HalfOpenTimeout forgets a connection that carried no byte and whose handshake was
	// not completed. Default 5s: any handshake that succeeds at all at its second SYN. Raising it lets
	// floods of SYNs take more of the table.
	HalfOpenTimeout time.Duration `yaml:"half_open_timeout" reload:"at once"`
	// HoleTimeout is how long missing bytes are waited for. Default 2s: three
	// retransmissions of Linux (0.2 + 0.4 + 0.8 s) or the first of RFC 6298 (1 s).
	// Raising it delays what comes after lost packets, and needs more of MaxBuffer.
	HoleTimeout time.Duration `yaml:"hole_timeout" reload:"at once"`
}

// DefaultConfig returns the defaults that Config's fields give reasons for.
func DefaultConfig() Config {
	return Config{
		MaxFlows:        66560,
		MaxBuffer:       10*config.MiB + 512*config.KiB,
		MaxFlowBuffer:   2 * config.MiB,
		FlowIdleTimeout: 10 * time.Minute,
		HalfOpenTimeout: 5 * time.Second,
		HoleTimeout:     2 * time.Second,
	}
}

// Validate reports every field that is out of range, by its key.
func (c Config) Validate() error {
	var faults []error
	within := func(key string, got, low, high any, ok bool) {
		if !ok {
			faults = append(faults, fmt.Errorf("%s: %v is not between %v and %v", key, got, low, high))
		}
	}
	duration := func(key string, d, low, high time.Duration) {
		within(key, d, low, high, low <= d && d <= high)
	}
	within("max_flows", c.MaxFlows, 1, maxFlowsLimit, 1 <= c.MaxFlows && c.MaxFlows <= maxFlowsLimit)
	within("max_buffer", int64(c.MaxBuffer), int64(64*config.KiB), int64(64*config.GiB),
		64*config.KiB <= c.MaxBuffer && c.MaxBuffer <= 64*config.GiB)
	within("max_flow_buffer", int64(c.MaxFlowBuffer), int64(config.KiB), "max_buffer",
		config.KiB <= c.MaxFlowBuffer && c.MaxFlowBuffer <= c.MaxBuffer)
	duration("flow_idle_timeout", c.FlowIdleTimeout, time.Second, 24*time.Hour)
	duration("half_open_timeout", c.HalfOpenTimeout, 100*time.Millisecond, time.Hour)
	duration("hole_timeout", c.HoleTimeout, time.Millisecond, time.Minute)
	return errors.Join(faults...)
}

// maxFlowsLimit keeps indices of entries within 32 bits with room to spare.
const maxFlowsLimit = 1 << 26
