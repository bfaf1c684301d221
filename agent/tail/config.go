// Package tail shows exchanges as they end to who asks the aggregator for them: those that match, sampled and bounded. It stands
// behind what privacy takes away, before nothing: while nobody asks, an exchange costs one atomic load, and
// whoever asks never holds a pipeline up.
package tail

import (
	"fmt"
	"slices"
	"strings"

	"github.com/httpctl/httpctl/pkg/config"
)

// What of an exchange is shown besides host, server, role, method, domain, section, status, bytes and times.
const (
	FieldClient    = "client"
	FieldPath      = "path"
	FieldQuery     = "query"
	FieldUserAgent = "user_agent"
)

var fields = []string{FieldClient, FieldPath, FieldQuery, FieldUserAgent}

// Config is the section `agent.tail`. The zero value is not valid: start from [DefaultConfig].
type Config struct {
	// Allow lets admins see live exchanges of this host with httpctl tail. Default false: a table of counts is all that
	// leaves the host. Each tail is in the log of agent and aggregator, with who asked.
	Allow bool `yaml:"allow" reload:"at once: the agent connects anew"`
	// MaxPerSecond bounds the exchanges that are shown each second, in all tails together; the others are counted. Default 100, about
	// 30 KB/s. More costs the pipelines about a microsecond for each.
	MaxPerSecond int `yaml:"max_per_second" reload:"at once: the agent connects anew"`
	// Fields says what is shown of an exchange besides host, server, role, method, domain, section, status,
	// bytes and times: client (its address, as agent.privacy has it), path (without the query), query (with it, which often holds secrets) and
	// user_agent. Default [client, path, user_agent].
	Fields []string `yaml:"fields" reload:"at once: the agent connects anew"`
}

// DefaultConfig allows nothing.
func DefaultConfig() Config {
	return Config{MaxPerSecond: 100, Fields: []string{FieldClient, FieldPath, FieldUserAgent}}
}

// Validate returns nil or [config.Faults].
func (c *Config) Validate() error {
	var check config.Check
	check.That(c.MaxPerSecond >= 1 && c.MaxPerSecond <= maxPerSecond, "max_per_second", c.MaxPerSecond, fmt.Sprintf("1 to %d", maxPerSecond))
	for i, f := range c.Fields {
		check.That(slices.Contains(fields, f), fmt.Sprintf("fields[%d]", i), f, strings.Join(fields, ", "))
	}
	return check.Err()
}

func (c *Config) shows(field string) bool {
	return slices.Contains(c.Fields, field) || field == FieldPath && slices.Contains(c.Fields, FieldQuery)
}

const (
	// maxPerSecond leaves room in what waits: the uplink asks each 100 ms.
	maxPerSecond = 1000
	// maxTails bounds the tails at a time; the aggregator has no more.
	maxTails = 8
	// waiting bounds the exchanges of a tail that wait for the uplink, some 450 bytes each, with strings of at
	// most maxText.
	waiting = 256
	// batch bounds those of one message.
	batch = 64
	// maxText bounds each string that is shown.
	maxText = 1024
)
