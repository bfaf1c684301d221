// Package enroll lets hosts into the fleet with the aggregator's own authority: tokens, first
// certificates, renewal, and the certificate that the aggregator shows itself.
package enroll

import (
	"errors"
	"fmt"
	"time"

	"github.com/httpctl/httpctl/pkg/config"
)

// Config are the settings of the built-in authority. They have no effect without one.
type Config struct {
	// CertificateLife is how long the certificates of agents and of the aggregator itself are
	// valid. Both renew them once two thirds are over. Default 24h. A shorter life limits what a stolen
	// one is good for; each renewal costs the aggregator an fsync.
	CertificateLife time.Duration `yaml:"certificate_life" reload:"for certificates made from then on"`
	// RenewGrace is how long after its end a certificate can still be renewed, and used for nothing
	// else. Default 7d: agents come back by themselves after the aggregator was away over a long weekend. 0
	// asks for a new token as soon as it has ended.
	RenewGrace time.Duration `yaml:"renew_grace" reload:"at once"`
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{CertificateLife: 24 * time.Hour, RenewGrace: 7 * 24 * time.Hour}
}

const (
	minLife  = 10 * time.Second
	maxLife  = 366 * 24 * time.Hour
	maxGrace = 366 * 24 * time.Hour
	// logEvery is how often one kind of trouble is logged.
	logEvery = time.Minute
	// renewPause is the least time between two renewals of a host, each of which costs an fsync, where certificates live long
	// enough: a twentieth of their life is the bound.
	renewPause = time.Minute
	// freeAnswers is how often a host that has lost the answer to its enrolment gets it again at once; then each waits for
	// renewPause, too. An agent asks three times within two seconds, and may be started anew.
	freeAnswers = 5
	// maxTokens bounds the tokens that can be used at a time.
	maxTokens = 1000
	// MaxUses bounds the hosts that can enrol with one token, and maxTTL the time in which they can: the nodes of a
	// cluster come with one token for as long as there is the cluster.
	MaxUses = 100_000
	maxTTL  = 366 * 24 * time.Hour
	minTTL  = time.Minute
	// keepEnded is how long a token is remembered after its end, to tell that it has ended.
	keepEnded = 24 * time.Hour
	// maxName bounds what a host says of itself: a host name has at most 255 bytes (RFC 1035 section 2.3.4).
	maxName = 255
)

// Validate reports every fault at once.
func (c Config) Validate() error {
	var errs []error
	if c.CertificateLife < minLife || c.CertificateLife > maxLife {
		errs = append(errs, fmt.Errorf("certificate_life: %s; want %s to %s", config.FormatDuration(c.CertificateLife), config.FormatDuration(minLife), config.FormatDuration(maxLife)))
	}
	if c.RenewGrace < 0 || c.RenewGrace > maxGrace {
		errs = append(errs, fmt.Errorf("renew_grace: %s; want 0s to %s", config.FormatDuration(c.RenewGrace), config.FormatDuration(maxGrace)))
	}
	return errors.Join(errs...)
}
