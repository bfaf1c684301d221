package app

import (
	"fmt"
	"strings"
	"testing"

	"github.com/httpctl/httpctl/agent/capture"
	"github.com/httpctl/httpctl/pkg/config"
)

// TestHostName: a name that the aggregator would refuse is refused here, where its owner reads why.
func TestHostName(t *testing.T) {
	for name, want := range map[string]bool{"web-1.example.org": true, "\u65b0\u7ad9": true, strings.Repeat("x", 255): true,
		"": false, strings.Repeat("x", 256): false, "web\xff1": false} {
		c := DefaultConfig()
		c.HostName, c.State, c.Capture.Interfaces = name, t.TempDir(), []string{"lo"}
		err := c.Validate()
		if refused := err != nil && strings.Contains(err.Error(), "host_name"); refused == want {
			t.Errorf("Validate() with the host name %q = %v, want accepted: %v", name, err, want)
		}
	}
}

// TestDerive: sizes follow from memory, within it, unless they are given; rings share them.
func TestDerive(t *testing.T) {
	load := func(text string) *Config {
		t.Helper()
		cfg := DefaultConfig()
		f, err := config.Parse("agent.yaml", []byte(text), nil, config.Section{Name: "agent", Into: &cfg})
		if err == nil {
			cfg.Capture.Interfaces = []string{"lo"}
			err = f.Validate(nil)
		}
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		return &cfg
	}
	for _, text := range []string{
		"", "agent: {memory: 96MiB}", "agent: {memory: 512MiB}", "agent: {memory: 64GiB}",
		"agent: {memory: 1GiB, capture: {rings: 8}}", "agent: {memory: 1GiB, capture: {rings: 2, interfaces: [lo], namespaces: [blue, green, red]}}", "agent: {memory: 200MiB, capture: {ring_size: 64MiB}}",
	} {
		c := load(text)
		rings := config.Size(c.Capture.AllRings())
		sum := c.fixedMemory() + c.TableMemory + rings*(config.Size(c.Stream.MaxFlows)*flowMemory+
			c.Stream.MaxBuffer+c.HTTP.MaxHeadMemory+c.HTTP.MaxOpenMemory+c.Decode.FragmentMemory)
		if sum > c.Memory || c.Memory < 2*config.GiB && sum < c.Memory*3/4 {
			t.Errorf("%s: the sizes come to %v of %v", text, sum, c.Memory)
		}
	}
	if a, b := load(""), load("agent: {memory: 512MiB}"); b.Stream.MaxFlows < 2*a.Stream.MaxFlows || b.TableMemory < 2*a.TableMemory {
		t.Errorf("twice the memory: %d and %d connections, %v and %v for tables", a.Stream.MaxFlows, b.Stream.MaxFlows, a.TableMemory, b.TableMemory)
	}
	if c := load("agent: {memory: 96MiB, stream: {max_flows: 5}}"); c.Stream.MaxFlows != 5 {
		t.Errorf("max_flows: 5 gives %d", c.Stream.MaxFlows)
	}
	cfg := DefaultConfig()
	f, err := config.Parse("agent.yaml", []byte("agent: {memory: 96MiB, capture: {interfaces: [lo], rings: 8, ring_size: 8MiB}}"), nil, config.Section{Name: "agent", Into: &cfg})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Validate(nil); err == nil || !strings.Contains(err.Error(), "agent.memory") {
		t.Errorf("8 rings of 8 MiB in 96 MiB: %v, want a fault of agent.memory", err)
	}
	if err := f.Set("agent.memory", "2GiB", "flag"); err != nil || f.Validate(nil) != nil || cfg.TableMemory != 440*config.MiB {
		t.Errorf("with 2 GiB by a flag: %v, %v, table_memory %v", err, f.Validate(nil), cfg.TableMemory)
	}
}

// TestDeriveFromMachine: rings and blocks follow from the machine, within memory; what is given stays.
func TestDeriveFromMachine(t *testing.T) {
	for _, c := range []struct {
		text     string
		cores    int
		hardware []int
		want     string // rings, ring_size, block_size, poll_timeout
	}{
		{"", 1, []int{10_000}, "1 32MiB 4MiB 400ms"},
		{"", 2, []int{10_000}, "1 32MiB 4MiB 400ms"},
		{"", 16, []int{100_000}, "4 8MiB 1MiB 400ms"},
		{"memory: 1GiB", 16, []int{100_000}, "4 32MiB 4MiB 400ms"},
		{"", 64, []int{100_000, 100_000}, "7 4MiB 512KiB 400ms"},
		{"memory: 1GiB", 64, []int{100_000, 100_000}, "8 16MiB 2MiB 400ms"},
		{"memory: 4GiB", 256, []int{400_000, 400_000}, "16 32MiB 4MiB 400ms"},
		{"memory: 96MiB", 16, []int{100_000}, "1 12MiB 1MiB 260ms"},
		{"", 64, []int{0}, "1 32MiB 4MiB 400ms"}, // any, with 40 veths or none
		{"capture: {rings: 3}", 1, []int{10_000}, "3 10MiB 1MiB 320ms"},
		{"capture: {ring_size: 64MiB}", 16, []int{100_000}, "2 64MiB 4MiB 200ms"},
		{"capture: {ring_size: 128MiB}", 16, []int{100_000}, "1 128MiB 4MiB 100ms"},
		{"capture: {block_size: 4MiB, poll_timeout: 50ms}", 16, []int{100_000}, "4 8MiB 4MiB 50ms"},
		{"capture: {block_size: 4MiB}", 64, []int{100_000, 100_000}, "6 8MiB 4MiB 400ms"},
		{"memory: 1GiB, capture: {block_size: 128KiB}", 2, []int{100_000}, "1 32MiB 128KiB 100ms"},
		{"memory: 100MiB, capture: {block_size: 4MiB}", 2, []int{1000}, "1 12MiB 4MiB 400ms"},
		{"spool: {max_memory: 100MiB}", 64, []int{400_000}, "3 10MiB 1MiB 320ms"},
	} {
		cfg := DefaultConfig()
		f, err := config.Parse("agent.yaml", []byte("agent: {"+c.text+"}"), nil, config.Section{Name: "agent", Into: &cfg})
		if err != nil {
			t.Fatal(err)
		}
		m := capture.Machine{Cores: c.cores, MaxFrame: 64 * config.KiB}
		for i, speed := range c.hardware {
			m.Hardware = append(m.Hardware, capture.Hardware{Name: fmt.Sprint("eth", i), Speed: speed})
		}
		cfg.derive(func(key string) bool { return f.Where("agent."+key) != "" }, m)
		cfg.Capture.Interfaces = []string{"eth0"}
		p := cfg.Capture
		if got := fmt.Sprint(p.Rings, p.RingSize, p.BlockSize, p.PollTimeout); got != c.want {
			t.Errorf("%q with %d cores and %v: %s, want %s", c.text, c.cores, c.hardware, got, c.want)
		}
		if err := f.Validate(nil); err != nil {
			t.Errorf("%q with %d cores and %v is not valid: %v", c.text, c.cores, c.hardware, err)
		}
	}
}
