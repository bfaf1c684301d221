package app

import (
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/httpctl/httpctl/agent/capture"
	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/exchange"
	"github.com/httpctl/httpctl/pkg/testkit"
)

// readConfig reads a configuration of an agent.
func readConfig(t *testing.T, text string) *config.File {
	t.Helper()
	cfg := DefaultConfig()
	f, err := config.Parse("agent.yaml", []byte(text), nil, config.Section{Name: "agent", Into: &cfg})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestReload puts settings in force in an agent, and some that cannot be.
func TestReload(t *testing.T) {
	file := testkit.WriteFile(t, conversation(1)...)
	a, err := Start(t.Context(), settings(), testConfig(t), file, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer stopAgent(t, a)
	router := netip.MustParseAddr("198.51.100.7")
	if err := a.Reload(t.Context(), readConfig(t, "agent: {local_networks: [198.51.100.0/24], tls: {cert_file: none.pem, key_file: none.key, ca_file: none.pem}}")); err == nil || !strings.Contains(err.Error(), "none.pem") {
		t.Errorf("Reload with files that are not there = %v, want an error that names one", err)
	}
	if a.local.contains(router) {
		t.Error("a reload that failed has changed local_networks")
	}
	if err := a.Reload(t.Context(), readConfig(t, "agent: {local_networks: [198.51.100.0/24]}")); err != nil {
		t.Fatal(err)
	}
	if !a.local.contains(router) {
		t.Error("local_networks are not in force")
	}
}

// packetsOf are frames as a source gives them.
func packetsOf(frames []testkit.Frame) (out []capture.Packet) {
	for _, f := range frames {
		out = append(out, capture.Packet{Data: f.Data, Length: len(f.Data), Link: 1, Time: f.Time})
	}
	return out
}

// TestPipelineTakesSettingsOver asks on a connection before and after the ports change.
func TestPipelineTakesSettingsOver(t *testing.T) {
	local, _ := newLocalAddresses(nil)
	p := newPipeline(nil, DefaultConfig(), 1024, &exchangeSink{}, local)
	var got string
	at := time.Unix(1_700_000_000, 0)
	for _, ports := range [][]uint16{nil, {8080}, {80}} {
		cfg := DefaultConfig()
		cfg.Capture.Ports = ports
		p.changed.Store(&cfg)
		c := testkit.NewConversation("192.0.2.1:40000", "192.0.2.2:80")
		c.Open()
		before := p.counters[exchange.Segments]
		for i := range c.Frames {
			at = at.Add(time.Second) // over the step of the clock
			c.Frames[i].Time = at.UnixNano()
		}
		p.take(packetsOf(c.Frames))
		got += fmt.Sprintf("%v: %d ", ports, p.counters[exchange.Segments]-before)
	}
	if want := "[]: 3 [8080]: 0 [80]: 3 "; got != want {
		t.Errorf("segments by ports are %q, want %q", got, want)
	}
}
