// Package enroll lets hosts into the fleet with the aggregator's own authority: tokens, first
// certificates, renewal, revocation, and the certificate that the aggregator shows itself.
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
	CertificateLife time.Duration `yaml:"certificate_life"`
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config { return Config{CertificateLife: 24 * time.Hour} }

const (
	minLife = 10 * time.Second
	maxLife = 366 * 24 * time.Hour
	// logEvery is how often one kind of trouble is logged.
	logEvery = time.Minute
)

// Validate reports every fault at once.
func (c Config) Validate() error {
	var errs []error
	if c.CertificateLife < minLife || c.CertificateLife > maxLife {
		errs = append(errs, fmt.Errorf("certificate_life: %s; want %s to %s", config.FormatDuration(c.CertificateLife), config.FormatDuration(minLife), config.FormatDuration(maxLife)))
	}
	return errors.Join(errs...)
}
