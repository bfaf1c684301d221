package access

import (
	"fmt"

	"github.com/httpctl/httpctl/pkg/config"
)

// Limits is the setting aggregator.limits: what strangers may cost on an address with TLS, before they have shown a
// certificate, and how many connections one address may have. A source is an IPv4 address, or the /64 of an IPv6 one.
type Limits struct {
	// MaxHandshakes bounds the connections that have not shown a certificate yet, at a time; a source has a
	// quarter of them at most, and those that have never shown one three quarters together. Beyond it the oldest gives way once it took a second. Default 256: at some
	// 50 KB each, 13 MB. Raise it when good clients need seconds for a handshake.
	MaxHandshakes int `yaml:"max_handshakes" reload:"at once"`
	// HandshakesPerSecond bounds the new connections of sources that have never shown a certificate; each source, also
	// of those that have, may have a tenth of them, and ten seconds' worth at once. Default 500: half of what one core does. Raise
	// it where many hosts come from one address at a time.
	HandshakesPerSecond int `yaml:"handshakes_per_second" reload:"at once"`
	// MaxConnectionsPerSource bounds the connections that one source has open. Default 2000. Raise it where more
	// hosts than that are behind one address.
	MaxConnectionsPerSource int `yaml:"max_connections_per_source" reload:"at once"`
}

// DefaultLimits returns the defaults.
func DefaultLimits() Limits {
	return Limits{MaxHandshakes: 256, HandshakesPerSecond: 500, MaxConnectionsPerSource: 2000}
}

// Validate returns nil or [config.Faults].
func (l *Limits) Validate() error {
	var check config.Check
	within := func(key string, n, least, most int) {
		check.That(n >= least && n <= most, key, n, fmt.Sprintf("%d to %d", least, most))
	}
	within("max_handshakes", l.MaxHandshakes, 4, 100_000)
	within("handshakes_per_second", l.HandshakesPerSecond, 10, 1_000_000)
	within("max_connections_per_source", l.MaxConnectionsPerSource, 1, 1_000_000)
	return check.Err()
}

func (l *Limits) handshakesOfSource() int { return l.MaxHandshakes / 4 }

// handshakesOfStrangers leaves room for those who have shown a certificate before.
func (l *Limits) handshakesOfStrangers() int { return l.MaxHandshakes * 3 / 4 }

func (l *Limits) rateOfSource() int { return l.HandshakesPerSecond / 10 }
