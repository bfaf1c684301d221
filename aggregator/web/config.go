package web

import (
	"net/netip"
	"strings"

	"github.com/httpctl/httpctl/pkg/config"
)

// Config is the section aggregator.web.
type Config struct {
	// Listen lists the addresses at which the web page and its API are served, as host:port. Anything but loopback
	// needs aggregator.tls, or an authority in the data directory, which then hold for all of them: browsers show a certificate
	// with the role viewer. Default: none.
	Listen []string `yaml:"listen"`
	// Hosts lists the names under which browsers reach it, without port, besides those of loopback, of the aggregator's
	// certificate, and the address itself. A request for any other is refused, as a page elsewhere could
	// have its own name lead here.
	Hosts []string `yaml:"hosts"`
	// Optional leaves out an address that something else has, with a warning, instead of failing. It is for addresses that
	// nobody has chosen.
	Optional bool `yaml:"-"`
}

// Validate returns nil or [config.Faults]. It does not look at the addresses, which depend on the settings of TLS.
func (c *Config) Validate() error {
	var check config.Check
	for _, h := range c.Hosts {
		_, err := netip.ParseAddr(h)
		check.That(err == nil || h != "" && len(h) <= 253 && !strings.ContainsAny(h, ":/@ \t\n*?#[]"), "hosts", h, "a name or an address, without port")
	}
	return check.Err()
}
