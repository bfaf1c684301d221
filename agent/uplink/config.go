// Package uplink carries closed buckets from the spool to the aggregator: one gRPC stream, a
// bounded window under way, every bucket sent until it is answered (DESIGN section 6;
// docs/protocol.md). The aggregator being away costs nothing but room in the spool.
package uplink

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/security"
)

// Config are the settings of the uplink.
type Config struct {
	// Aggregator is where the aggregator listens: host:port, or unix:/path. Default
	// 127.0.0.1:7420. An address that is not loopback needs tls.
	Aggregator string `yaml:"aggregator"`
	// TLS names the files of mutual TLS; default none, which only local addresses allow.
	TLS security.TLS `yaml:"tls" reload:"at once: the agent connects anew"`
	// BackoffMax bounds the pause between two tries to reach the aggregator; the pause doubles
	// from 500 ms, and each is drawn at random from 0 up to it, so that a fleet does not come
	// back all at once. Default 30s: an aggregator that returns has all agents back within that
	// time. A lower value finds it sooner and loads it more.
	BackoffMax time.Duration `yaml:"backoff_max" reload:"at once"`
	// MaxMessageSize bounds one bucket; a larger one is given up and declared, as the
	// aggregator would refuse it. Default 4MiB, the aggregator's own default; change both
	// together.
	MaxMessageSize config.Size `yaml:"max_message_size" reload:"at once"`
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{Aggregator: "127.0.0.1:7420", BackoffMax: 30 * time.Second, MaxMessageSize: 4 * config.MiB}
}

// Validate reports every fault at once.
func (c Config) Validate() error {
	var errs []error
	if err := security.CheckAddress("aggregator", c.Aggregator, "agent.tls", c.TLS); err != nil {
		errs = append(errs, err)
	}
	if err := c.TLS.Validate(); err != nil {
		errs = append(errs, fmt.Errorf("tls: %w", err))
	}
	if c.BackoffMax < backoffMin {
		errs = append(errs, fmt.Errorf("backoff_max: %s; want at least %s", c.BackoffMax, backoffMin))
	}
	if c.MaxMessageSize < 64*config.KiB || c.MaxMessageSize > config.GiB {
		errs = append(errs, fmt.Errorf("max_message_size: %d bytes; want 64KiB to 1GiB", c.MaxMessageSize))
	}
	return errors.Join(errs...)
}

const (
	backoffMin = 500 * time.Millisecond
	// window and windowBytes bound the buckets under way. At 100 ms of round trip 64 are 640
	// buckets a second, and the 64 KiB that the aggregator lets an agent send ahead 45 of the size of a busy host's: a
	// day of absence is caught up in three minutes at most.
	window      = 64
	windowBytes = 8 << 20
	// liveWindow is how much of the window a backlog leaves to the buckets of now: more than are closed while one is answered.
	liveWindow = 8
	// lastPause bounds the pause before a bucket is sent again while the agent waits for nothing else to end.
	lastPause = 100 * time.Millisecond
	// welcomeWait is how long connecting and the aggregator's first answer may take.
	welcomeWait = 20 * time.Second
	// answerWait is how long the oldest bucket under way may stay unanswered. The store's worst
	// pause is 5 s; the rest is for a queue of other agents before it.
	answerWait = 2 * time.Minute
	// pingEvery and pingWait find a dead connection, and keep open what forgets idle ones.
	pingEvery = 20 * time.Second
	pingWait  = 10 * time.Second
	// turnLook is how often the files are looked at once a stream's certificate is near its end.
	turnLook = 10 * time.Second
	// spoolWait is the pause after the spool could not be read.
	spoolWait = 5 * time.Second
	// maxProvisional bounds a provisional bucket's encoding: the aggregator leaves larger ones out.
	maxProvisional = 256 << 10
	// steady is how long a stream must have lasted for the pauses to begin anew.
	steady = 10 * time.Second
	// logEvery is the least time between two log lines about losing the aggregator.
	logEvery = time.Minute
)

// Settings are what the aggregator decides for its agents.
type Settings struct {
	// IntervalWidth is the width of an interval.
	IntervalWidth time.Duration
	// NextWidth takes effect at NextFrom (nanoseconds since the epoch); 0 if no change is planned.
	NextWidth time.Duration
	NextFrom  int64
}

// Identity is how the agent introduces itself.
type Identity struct {
	Host, Incarnation bucket.ID
	HostName, Version string
	// Addresses are those at which others reach the host, with their networks.
	Addresses []netip.Prefix

	tails bool // it shows live exchanges
}
