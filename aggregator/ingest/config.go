// Package ingest takes the buckets of agents: it checks who sends and what, stores final
// buckets in group commits and acknowledges them after the store's fsync, and keeps the newest
// provisional bucket of each host in memory (DESIGN sections 5 and 6; docs/protocol.md).
package ingest

import (
	"errors"
	"fmt"
	"time"

	"github.com/httpctl/httpctl/pkg/config"
)

// Config are the settings of the ingest service.
type Config struct {
	// MaxMessageSize bounds one bucket on the wire. A larger one ends the stream, and agents
	// then give it up and declare it. Default 4MiB: a bucket of 8 full tables of 1,000 rows
	// takes 150 KB, so this allows max_keys to grow 25 times. Every connected agent can cost
	// this much memory for a moment.
	MaxMessageSize config.Size `yaml:"max_message_size"`
	// MaxPending bounds the bytes of buckets that wait for the store, over all agents. Beyond
	// it, streams are not read, and agents keep their buckets in their spools. Default 64MiB:
	// some 400 full buckets. A larger value costs memory.
	MaxPending config.Size `yaml:"max_pending" reload:"at once"`
	// MaxAgents bounds the hosts that are connected at the same time. Default 10000, at about
	// 60 KB each. Agents beyond it are told to come back later.
	MaxAgents int `yaml:"max_agents" reload:"at once"`
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{MaxMessageSize: 4 * config.MiB, MaxPending: 64 * config.MiB, MaxAgents: 10_000}
}

// Validate reports every fault at once.
func (c Config) Validate() error {
	var errs []error
	if c.MaxMessageSize < 64*config.KiB || c.MaxMessageSize > config.GiB {
		errs = append(errs, fmt.Errorf("max_message_size: %d bytes; want 64KiB to 1GiB", c.MaxMessageSize))
	}
	if c.MaxPending < c.MaxMessageSize {
		errs = append(errs, fmt.Errorf("max_pending: %d bytes; want at least max_message_size (%d bytes)", c.MaxPending, c.MaxMessageSize))
	}
	if c.MaxAgents < 1 {
		errs = append(errs, fmt.Errorf("max_agents: %d; want at least 1", c.MaxAgents))
	}
	return errors.Join(errs...)
}

// Settings are what the aggregator decides for its agents.
type Settings struct {
	// IntervalWidth is dashboard_bucket_size.
	IntervalWidth time.Duration
	// NextWidth takes effect at NextFrom (nanoseconds since the epoch); 0 if no change is planned.
	NextWidth time.Duration
	NextFrom  int64
	// ProvisionalEvery is how often provisional buckets come while someone watches (timeout).
	ProvisionalEvery time.Duration
}

const (
	// batchItems and batchBytes bound one transaction: 50 buckets in one reached 30 times the
	// rate of one by one (DESIGN section 10), and a transaction's pages are held in memory
	// until it commits.
	batchItems = 256
	batchBytes = 16 << 20
	// readBuffer is what each connection reads into; what is larger, such as a bucket, is read past it. gRPC's own
	// 32 KiB were a third of a connection's memory.
	readBuffer = 4 << 10
	// writeBuffer is what a connection gathers before it writes, gRPC's own 32 KiB: a dashboard of 200 hosts has 49 KiB, and each write wakes
	// its reader. Only who writes has one; those that a transaction answers do so at the same time, batchItems of them.
	writeBuffer = 32 << 10
	// receiveWindow is how far agents may send ahead of what is read of them: with max_pending, the memory that buckets
	// take before the store, however many agents have a day of them. Of its own accord gRPC lets each send up to 16 MiB.
	receiveWindow = 64 << 10
	// unackedPerStream bounds what one agent may have under way, and so the answers kept for an
	// agent that does not read them. Agents have at most 64 under way.
	unackedPerStream = 256
	// helloWait is how long a new stream may take to say who it is.
	helloWait = 10 * time.Second
	// maxUnsure bounds the names of buckets of which it is not known whether a failed transaction stored them, 44 bytes
	// each: what 100 transactions hold. They are sent again within seconds.
	maxUnsure = 100 * batchItems
	// storeWait bounds the pause after the store failed, which doubles from 100 ms.
	storeWait = 5 * time.Second
	// maxName bounds the strings of Hello: a host name has at most 255 bytes (RFC 1035 section
	// 2.3.4).
	maxName = 255
	// maxProvisional bounds a provisional bucket's encoding, as one per host is kept in memory.
	// With max_top_hits 10 it takes about 3 KB.
	maxProvisional = 256 << 10
	// maxAhead is how far ahead of the wall clock a bucket is not skewed (DESIGN section 6).
	maxAhead = 5 * time.Minute
	// maxFuture is how far ahead of the wall clock a bucket is stored. What is dated later would be out of the reach of
	// purges for as long as it is ahead. A day holds what a clock in the wrong time zone does, which is up to 14 hours.
	maxFuture = 24 * time.Hour
	// keptTooNew is how long agents keep what a newer aggregator could store: who has begun with the agents by mistake has a day to go on
	// with the aggregator. Who takes the agents back instead waits so long for the coverage of these hosts.
	keptTooNew = 24 * time.Hour
	// minWidth and maxWidth bound an interval (DESIGN section 8: a divisor of one minute, at
	// least 1s).
	minWidth = time.Second
	maxWidth = time.Minute
	// logEvery is how often one kind of refusal is logged; the others in between are counted.
	logEvery = time.Minute
)
