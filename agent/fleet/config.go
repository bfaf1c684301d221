// Package fleet simulates a fleet of agents against a real aggregator, for `httpctl bench fleet`: each is a
// real uplink with a connection, an identity and a queue of its own. Only the content is made up: a pool
// of buckets, encoded once, that agents send under their own names. So an aggregator does for them all that it
// does for real ones, while thousands of them share its machine.
//
// What differs between two buckets: host, incarnation, start, ordinal, checksum, and which body of the pool it
// has. The bodies are what the built-in statistics make of made-up exchanges; see content.go.
package fleet

import (
	"errors"
	"fmt"
	"time"

	"github.com/httpctl/httpctl/pkg/security"
)

// NamePrefix begins the name of every simulated host.
const NamePrefix = "simulated-"

// Config says what fleet to simulate.
type Config struct {
	// Aggregator is a Unix socket or loopback address: elsewhere, each agent would need a certificate
	// of its own.
	Aggregator string
	// Width is the aggregator's interval.
	Width  time.Duration
	Agents int
	// Duration is how long they send, in whole intervals, once all are connected.
	Duration time.Duration
	// Past is how much they have in their spools when they first connect, as after an absence of the aggregator.
	Past time.Duration
	// Exchanges in each bucket, and Rows in its larger tables: so many sections, clients and user agents.
	Exchanges, Rows int
	// Bodies is the size of the pool.
	Bodies int
	// ConnectWithin is the time over which they start, evenly; 0 is all at once.
	ConnectWithin time.Duration
	// Spread is how far apart, at most, they close an interval, as clocks and ring timeouts differ.
	Spread time.Duration
	// CutAfter cuts all connections at once so long after the first interval began; 0 does not. The agents come back
	// as real ones do, after random pauses.
	CutAfter time.Duration
	// BackoffMax is that of the uplinks.
	BackoffMax time.Duration
	// Drain is how long to wait, after the last interval, for what is not acknowledged yet.
	Drain time.Duration
	// Seed decides every name, number and choice.
	Seed uint64
	// Made is called once the content is made, before the first agent connects. May be nil.
	Made func()
	// Observe is told how it goes at each interval's end, by one goroutine at a time. May be nil.
	Observe func(Sample)
}

// DefaultConfig returns a fleet of 10 with the content of a busy host.
func DefaultConfig() Config {
	return Config{
		Agents: 10, Duration: 10 * time.Minute, Exchanges: 1000, Rows: 200, Bodies: 256,
		ConnectWithin: 5 * time.Second, Spread: time.Second, BackoffMax: 30 * time.Second, Drain: time.Minute,
	}
}

// Validate reports every fault at once, by the names of the flags.
func (c *Config) Validate() error {
	var errs []error
	between := func(flag string, v, least, most int) {
		if v < least || v > most {
			errs = append(errs, fmt.Errorf("--%s %d: want %d to %d", flag, v, least, most))
		}
	}
	between("agents", c.Agents, 1, 50_000)
	between("exchanges", c.Exchanges, 1, 1_000_000)
	between("rows", c.Rows, 1, 1000) // max_keys
	between("bodies", c.Bodies, 1, 10_000)
	if !security.IsLocal(c.Aggregator) {
		errs = append(errs, fmt.Errorf("--aggregator %s: simulated agents speak plain text to a Unix socket or a loopback address", c.Aggregator))
	}
	if c.Width < time.Second || time.Minute%c.Width != 0 {
		errs = append(errs, fmt.Errorf("the aggregator's interval is %s; want a divisor of one minute", c.Width))
	} else if c.Duration < c.Width && c.Past < c.Width {
		errs = append(errs, fmt.Errorf("--duration %s: want at least one interval, %s", c.Duration, c.Width))
	} else if c.Spread < 0 || c.Spread > c.Width {
		errs = append(errs, fmt.Errorf("--spread %s: want 0 to one interval, %s", c.Spread, c.Width))
	} else if n := int64(c.Agents) * int64((c.Duration+c.Past)/c.Width); n > maxBuckets {
		errs = append(errs, fmt.Errorf("%d buckets in all: want at most %d, as each is remembered until it was found in the end", n, maxBuckets))
	}
	for _, d := range []struct {
		flag string
		d    time.Duration
	}{{"duration", c.Duration}, {"past", c.Past}, {"connect-within", c.ConnectWithin}, {"cut-after", c.CutAfter}, {"drain", c.Drain}} {
		if d.d < 0 {
			errs = append(errs, fmt.Errorf("--%s %s: want no negative time", d.flag, d.d))
		}
	}
	if c.CutAfter > 0 && c.CutAfter >= c.Duration {
		errs = append(errs, fmt.Errorf("--cut-after %s: want less than --duration %s", c.CutAfter, c.Duration))
	}
	return errors.Join(errs...)
}

// maxBuckets bounds the memory for what was sent: 32 bytes each.
const maxBuckets = 20_000_000
