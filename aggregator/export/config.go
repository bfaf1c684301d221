package export

import (
	"time"

	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/exchange"
)

// Other is the name of all that has no place of its own, as OpenTelemetry's semantic conventions have it.
const Other = exchange.Other

// Config is the section `aggregator.export` of a configuration file.
type Config struct {
	// Scrape serves the counters of traffic under /metrics/traffic on the address of aggregator.metrics. Default:
	// false, as the names of domains and hosts are for everybody on this host to read then.
	Scrape bool `yaml:"scrape"`
	// MaxDomains bounds the domains that have series of their own, of all hosts together; all others count under
	// _OTHER. Default 100.
	MaxDomains int `yaml:"max_domains"`
	// MaxHosts bounds the hosts that have series of their own; all others count under _OTHER. With 0 no series says of
	// which host it is: for fleets whose hosts times domains are more than a receiver wants to pay for. Default 1000.
	MaxHosts int `yaml:"max_hosts"`
	// MaxRows bounds what is counted apart in all: each domain of a host, and each of its methods with a status, is a
	// row. A row takes up to 17 series and 300 bytes. Default 20000.
	MaxRows int `yaml:"max_rows"`
}

// DefaultConfig returns the defaults: nothing is exported.
func DefaultConfig() Config {
	return Config{MaxDomains: 100, MaxHosts: 1000, MaxRows: 20_000}
}

// Enabled reports whether anything is exported.
func (c *Config) Enabled() bool { return c.Scrape }

// Validate returns nil or config.Faults.
func (c *Config) Validate() error {
	var check config.Check
	check.That(c.MaxDomains >= 1 && c.MaxDomains <= 10_000, "max_domains", c.MaxDomains, "1 to 10000")
	check.That(c.MaxHosts >= 0 && c.MaxHosts <= 100_000, "max_hosts", c.MaxHosts, "0 (no host has series of its own) to 100000")
	check.That(c.MaxRows >= 100 && c.MaxRows <= 1_000_000, "max_rows", c.MaxRows, "100 to 1000000")
	return check.Err()
}

const (
	// idleAfter is how long nothing was counted for a domain or host until its place is another's: longer than the ranges
	// over which rates are usually asked for, as its series end then.
	idleAfter = time.Hour
	// maxAnswers bounds the pairs of method and status of one domain on one host, so that a server that answers with every
	// number there is does not take the rows of all others. Sites in practice have about twenty.
	maxAnswers = 64
)
