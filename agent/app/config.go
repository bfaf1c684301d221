package app

import (
	"fmt"
	"os"
	"path/filepath"
	"unicode/utf8"

	"github.com/httpctl/httpctl/agent/capture"
	"github.com/httpctl/httpctl/agent/decode"
	"github.com/httpctl/httpctl/agent/pairing"
	"github.com/httpctl/httpctl/agent/privacy"
	"github.com/httpctl/httpctl/agent/spool"
	"github.com/httpctl/httpctl/agent/stream"
	"github.com/httpctl/httpctl/agent/tail"
	"github.com/httpctl/httpctl/agent/uplink"
	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/telemetry"
)

// Config is the section `agent` of a configuration file.
type Config struct {
	uplink.Config `yaml:",inline"`
	// State is the directory of the spool and of the host's identity, made if it is not there; one
	// agent at a time uses it. Default: /var/lib/httpctl/agent for root, else
	// httpctl/agent in the user's state directory.
	State string `yaml:"state"`
	// HostName is the name that people see. Default: the host's own.
	HostName string `yaml:"host_name"`
	// LocalNetworks are networks, in CIDR notation, whose addresses count as this host's
	// besides those of its interfaces: for an agent on a router or a mirror port. Default:
	// none.
	LocalNetworks []string `yaml:"local_networks" reload:"at once"`
	// Memory is the most that the agent takes of resident memory, whatever the traffic:
	// 96MiB to 64GiB. Default 256MiB. From it follow, each unless it is set itself, the sizes of rings, flow
	// table, buffers and tables; see [Config.Derive]. Raise it when evicted_flows or
	// evicted_keys grow on a host with many clients; twice as much keeps about two and a half times as
	// many connections.
	Memory config.Size `yaml:"memory"`
	// TableMemory bounds the rows of all tables, of the interval under way and those that
	// wait for the disk; where they would take more, the largest table folds its smallest rows
	// (counter evicted_keys). It only acts where names are very long or latencies very many: max_keys
	// bounds the usual ones. Default: from Memory, 42MiB.
	TableMemory config.Size `yaml:"table_memory"`
	// Capture says where packets come from.
	Capture capture.Config `yaml:"capture"`
	// Decode bounds the IP fragments that wait for the rest.
	Decode decode.Config `yaml:"decode"`
	// Stream bounds the connections.
	Stream stream.Config `yaml:"stream"`
	// HTTP bounds the messages.
	HTTP pairing.Config `yaml:"http"`
	// Spool bounds what waits for the aggregator.
	Spool spool.Config `yaml:"spool"`
	// Privacy says what of clients and domains is not to be known outside this process.
	Privacy privacy.Config `yaml:"privacy"`
	// Tail says whether live exchanges are shown to who asks the aggregator for them, and what of them.
	Tail tail.Config `yaml:"tail"`
	// Metrics is the loopback address of the page that Prometheus reads, such as 127.0.0.1:7422.
	// Default: none.
	Metrics string `yaml:"metrics"`
	// Confine has the agent give up, once its sockets are open, what it does not need any more:
	// capabilities, most system calls, other files and ports. Default true; false is for debugging, as with
	// strace or a profiler. An agent inside `httpctl up` is not confined.
	Confine bool `yaml:"confine"`

	reasons map[string]string `yaml:"-"` // of what was chosen, for people
	chosen  uplink.Config     `yaml:"-"` // what the host's enrolment chose: Aggregator and TLS
}

// DefaultConfig returns the defaults. It leaves Capture.Interfaces empty:
// someone has to choose.
func DefaultConfig() Config {
	state := config.DataDir(os.Getuid(), os.Getenv)
	if state != "" {
		state = filepath.Join(state, "agent")
	}
	name, err := os.Hostname()
	if err != nil {
		name = "unnamed"
	}
	c := Config{
		Config:   uplink.DefaultConfig(),
		Memory:   256 * config.MiB,
		State:    state,
		HostName: name,
		Capture:  capture.DefaultConfig(),
		Decode:   decode.DefaultConfig(),
		Stream:   stream.DefaultConfig(),
		HTTP:     pairing.DefaultConfig(),
		Spool:    spool.DefaultConfig(),
		Privacy:  privacy.DefaultConfig(),
		Tail:     tail.DefaultConfig(),
		Confine:  true,
	}
	c.derive(func(string) bool { return false }, capture.Machine{})
	return c
}

// Validate returns nil or config.Faults.
func (c *Config) Validate() error {
	var check config.Check
	check.In("", c.Config.Validate())
	check.That(c.State != "", "state", c.State, "a directory (there is no home directory to choose one in)")
	check.That(c.HostName != "" && len(c.HostName) <= 255 && utf8.ValidString(c.HostName), "host_name", c.HostName, "1 to 255 bytes of UTF-8")
	if _, err := newLocalAddresses(c.LocalNetworks); err != nil {
		check.In("local_networks", err)
	}
	if check.That(c.Memory >= minMemory && c.Memory <= 64*config.GiB, "memory", c.Memory, "96MiB to 64GiB") {
		least := c.fixedMemory() + config.Size(c.Capture.AllRings())*minPipelineMemory
		check.That(c.Memory >= least, "memory", c.Memory, fmt.Sprintf("at least %v, as capture.rings, capture.ring_size, capture.namespaces and spool.max_memory are", least))
	}
	check.That(c.TableMemory >= config.MiB && c.TableMemory <= 64*config.GiB, "table_memory", c.TableMemory, "1MiB to 64GiB")
	check.In("capture", c.Capture.Validate())
	check.In("decode", c.Decode.Validate())
	check.In("stream", c.Stream.Validate())
	check.In("http", c.HTTP.Validate())
	check.In("spool", c.Spool.Validate())
	check.In("privacy", c.Privacy.Validate())
	check.In("tail", c.Tail.Validate())
	check.In("metrics", telemetry.CheckAddress(c.Metrics))
	return check.Err()
}
