package app

import (
	"strings"
	"testing"

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
		"agent: {memory: 1GiB, capture: {rings: 8}}", "agent: {memory: 200MiB, capture: {ring_size: 64MiB}}",
	} {
		c := load(text)
		rings := config.Size(c.Capture.Rings)
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
