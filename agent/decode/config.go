package decode

import (
	"errors"
	"fmt"
	"time"

	"github.com/httpctl/httpctl/pkg/config"
)

// Config bounds what a decoder keeps. The zero value is not valid; start from
// [DefaultConfig].
type Config struct {
	// FragmentTimeout is how long, in packet time, the fragments of an IP
	// datagram wait for the rest. Default 30s, what Linux waits (net.ipv4.ipfrag_time).
	FragmentTimeout time.Duration `yaml:"fragment_timeout"`
	// FragmentedDatagrams bounds the incomplete datagrams. Above it the oldest
	// is given up and its fragments are counted in fragments_dropped. Default 1024.
	FragmentedDatagrams int `yaml:"fragmented_datagrams"`
	// FragmentMemory bounds the bytes of incomplete datagrams in the same way.
	// Default 4MiB, what Linux keeps (net.ipv4.ipfrag_high_thresh). At least 128KiB.
	FragmentMemory config.Size `yaml:"fragment_memory"`
	// Ports, if not empty, lets only the segments to or from these TCP ports
	// pass. It is set from the capture's ports: a kernel filter cannot see into tunnels.
	Ports []uint16 `yaml:"-"`
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{FragmentTimeout: 30 * time.Second, FragmentedDatagrams: 1024, FragmentMemory: 4 * config.MiB}
}

// Validate reports all faults at once, each with its key.
func (c *Config) Validate() error {
	var errs []error
	if c.FragmentTimeout < time.Second || c.FragmentTimeout > 10*time.Minute {
		errs = append(errs, fmt.Errorf("fragment_timeout: %v is not between 1s and 10m", c.FragmentTimeout))
	}
	if c.FragmentedDatagrams < 1 || c.FragmentedDatagrams > 1<<20 {
		errs = append(errs, fmt.Errorf("fragmented_datagrams: %d is not between 1 and 1048576", c.FragmentedDatagrams))
	}
	if c.FragmentMemory < 128*config.KiB {
		errs = append(errs, fmt.Errorf("fragment_memory: %d is below 128KiB, the size of two datagrams", c.FragmentMemory))
	}
	return errors.Join(errs...)
}
