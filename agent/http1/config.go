package http1

import (
	"errors"
	"fmt"

	"github.com/httpctl/httpctl/pkg/config"
)

// Config bounds what the parsers of one pipeline keep.
type Config struct {
	// MaxHeaderBytes is the longest message head (start line and fields) that is
	// read; a longer one is counted in oversized_heads and its message skipped.
	// Default 64KiB: twice what nginx takes by default (4 buffers of 8 KiB), and
	// all that Node, Go and Apache accept in practice. Raising it costs memory
	// only for heads that are split over packets, within max_head_memory.
	MaxHeaderBytes config.Size `yaml:"max_header_bytes"`
	// MaxHeadMemory bounds the buffers of unfinished heads of all connections
	// together. When it is full the oldest unfinished head is given up, counted
	// in evicted_bytes: a head that arrives in time is never the oldest.
	// Default 10.5MiB, from the agent's memory: 10,000 heads half-way at once.
	MaxHeadMemory config.Size `yaml:"max_head_memory"`
}

// DefaultConfig returns the defaults named in the fields' comments.
func DefaultConfig() Config {
	return Config{MaxHeaderBytes: 64 * config.KiB, MaxHeadMemory: 10*config.MiB + 512*config.KiB}
}

// Validate reports every setting that is out of range.
func (c Config) Validate() error {
	var errs []error
	if c.MaxHeaderBytes < 1*config.KiB || c.MaxHeaderBytes > 16*config.MiB {
		errs = append(errs, fmt.Errorf("max_header_bytes: %d is outside 1KiB to 16MiB", c.MaxHeaderBytes))
	}
	if c.MaxHeadMemory < c.MaxHeaderBytes {
		errs = append(errs, fmt.Errorf("max_head_memory: %d is less than max_header_bytes (%d)", c.MaxHeadMemory, c.MaxHeaderBytes))
	}
	return errors.Join(errs...)
}
