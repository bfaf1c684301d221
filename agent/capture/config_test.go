package capture

import (
	"strings"
	"testing"
	"time"

	"github.com/httpctl/httpctl/pkg/config"
)

func TestValidate(t *testing.T) {
	good := DefaultConfig()
	if err := good.Validate(); err != nil {
		t.Errorf("DefaultConfig().Validate() = %v", err)
	}
	for _, c := range []struct {
		key    string
		change func(*Config)
	}{
		{"interfaces", func(c *Config) { c.Interfaces = []string{"a-name-that-is-too-long"} }},
		{"namespaces", func(c *Config) { c.Namespaces = []string{""} }},
		{"namespaces", func(c *Config) { c.Namespaces = []string{".."} }},
		{"namespaces", func(c *Config) { c.Namespaces = []string{"a/b"} }},
		{"namespaces", func(c *Config) { c.Namespaces = []string{"/proc/1\x00"} }},
		{"namespaces", func(c *Config) { c.Namespaces = []string{"blue", "green", "blue"} }},
		{"ports", func(c *Config) { c.Ports = []uint16{0} }},
		{"ports", func(c *Config) { c.Ports = make([]uint16, maxPorts+1) }},
		{"ring_size", func(c *Config) { c.RingSize = 32*config.MiB + 1 }},
		{"ring_size", func(c *Config) { c.RingSize = config.MiB }},
		{"block_size", func(c *Config) { c.BlockSize = 64 * config.KiB }},
		{"block_size", func(c *Config) { c.BlockSize = 384 * config.KiB }},
		{"block_size", func(c *Config) { c.BlockSize, c.RingSize = 4*config.MiB, 33*config.MiB }},
		{"block_size", func(c *Config) { c.BlockSize, c.RingSize = 4*config.MiB, 4*config.MiB }},
		{"rings", func(c *Config) { c.Rings = 0 }},
		{"poll_timeout", func(c *Config) { c.PollTimeout = time.Minute }},
	} {
		bad := DefaultConfig()
		c.change(&bad)
		if err := bad.Validate(); err == nil || !strings.Contains(err.Error(), c.key+": ") {
			t.Errorf("Validate() with a bad %s = %v", c.key, err)
		}
	}
	good.Namespaces = []string{"blue", "/proc/1234/ns/net"}
	if err := good.Validate(); err != nil {
		t.Errorf("Validate() with namespaces = %v", err)
	}
	// All faults at once.
	if err := (&Config{}).Validate(); err == nil || strings.Count(err.Error(), "\n") != 3 {
		t.Errorf("Config{}.Validate() = %v, want four faults", err)
	}
}

func TestAllRings(t *testing.T) {
	for _, c := range []struct {
		interfaces, namespaces []string
		rings, want            int
	}{
		{nil, nil, 2, 2},
		{[]string{"lo", "eth0"}, nil, 2, 2},
		{nil, []string{"blue"}, 2, 2},
		{[]string{"any"}, []string{"blue", "green"}, 2, 6},
		{nil, []string{"blue"}, 0, 1}, // not valid yet
	} {
		cfg := Config{Interfaces: c.interfaces, Namespaces: c.namespaces, Rings: c.rings}
		if got := cfg.AllRings(); got != c.want {
			t.Errorf("AllRings() of %+v = %d, want %d", c, got, c.want)
		}
	}
}
