package pairing

import (
	"errors"
	"fmt"

	"github.com/httpctl/httpctl/agent/http1"
	"github.com/httpctl/httpctl/pkg/config"
)

// Config bounds what a pipeline's HTTP connections keep.
type Config struct {
	http1.Config `yaml:",inline"`
	// MaxPipelined is how many requests of one connection may wait for their
	// responses. A request beyond it is counted at once as one without a
	// response, and in pipeline_overflows; its response is counted as one without
	// request when it comes. Default 1024, but a thirty-second of MaxWaiting where that is less, and 128 at least: no common client
	// sends more than 100 ahead, load generators do. Each costs about
	// 500 bytes and its strings while it waits; MaxWaiting and MaxOpenMemory bound all of them together, so that a
	// higher one only lets fewer connections take all of that.
	MaxPipelined int `yaml:"max_pipelined" reload:"at once"`
	// MaxWaiting bounds the requests that wait behind another one of their connection, of all
	// connections together. One beyond it is treated like one beyond MaxPipelined, and counted in waiting_overflows; the first that waits
	// on a connection always has its place, so nobody who pipelines crowds out those who do not.
	// Default 48128, from max_open_memory: 47 connections that use all of max_pipelined. Where
	// only requests are captured, all keep-alive connections fill up to it.
	MaxWaiting int `yaml:"max_waiting"`
	// MaxOpenMemory bounds the exchanges that have begun and not ended, of all connections together,
	// with their strings. When it is full the oldest one is given up (counted in
	// evicted_exchanges, its outcome is `evicted`): one that is answered in time is never the oldest.
	// Default 21MiB, from the agent's memory: 48,000 requests that wait for answers, 5,000 if each has
	// strings of 4 KiB.
	MaxOpenMemory config.Size `yaml:"max_open_memory"`
	// SniffBytes is how much of a direction is looked through for the first message, on a
	// connection whose opening was seen, before the connection is counted as of an unknown
	// protocol and left alone. On one that was joined in the middle, where a long body may come
	// first, it is 256 times as much. Default 64KiB.
	SniffBytes config.Size `yaml:"sniff_bytes" reload:"at once"`
	// SniffStarts is how many possible starts in a direction may turn out not to be a
	// message before the connection is left alone; 256 times as many, like SniffBytes, once it was
	// HTTP or when it was joined in the middle. Default 16: a SOCKS
	// handshake with password takes 4.
	SniffStarts int `yaml:"sniff_starts" reload:"at once"`
	// MaxStrLength bounds every stored string, in bytes; the wiring sets it to the
	// fleet's max_str_length.
	MaxStrLength int `yaml:"-"`
}

// DefaultConfig returns the defaults named in the fields' comments.
func DefaultConfig() Config {
	return Config{
		Config:       http1.DefaultConfig(),
		MaxPipelined: 1024,
		MaxWaiting:   48128, MaxOpenMemory: 21 * config.MiB,
		SniffBytes:   64 * config.KiB,
		SniffStarts:  16,
		MaxStrLength: config.DefaultSettings().MaxStrLength,
	}
}

// Validate reports every setting that is out of range.
func (c Config) Validate() error {
	errs := []error{c.Config.Validate()}
	if c.MaxPipelined < 1 || c.MaxPipelined > 1<<16 {
		errs = append(errs, fmt.Errorf("max_pipelined: %d is outside 1 to 65536", c.MaxPipelined))
	}
	if c.MaxWaiting < 1 || c.MaxWaiting > 1<<26 {
		errs = append(errs, fmt.Errorf("max_waiting: %d is outside 1 to 67108864", c.MaxWaiting))
	}
	if c.MaxOpenMemory < 64*config.KiB || c.MaxOpenMemory > 64*config.GiB {
		errs = append(errs, fmt.Errorf("max_open_memory: %d is outside 64KiB to 64GiB", c.MaxOpenMemory))
	}
	if c.SniffBytes < 1*config.KiB || c.SniffBytes > 64*config.MiB {
		errs = append(errs, fmt.Errorf("sniff_bytes: %d is outside 1KiB to 64MiB", c.SniffBytes))
	}
	if c.SniffStarts < 1 || c.SniffStarts > 1<<14 {
		errs = append(errs, fmt.Errorf("sniff_starts: %d is outside 1 to 16384", c.SniffStarts))
	}
	if c.MaxStrLength < 16 {
		errs = append(errs, fmt.Errorf("max_str_length: %d is less than 16", c.MaxStrLength))
	}
	return errors.Join(errs...)
}
