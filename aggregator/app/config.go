package app

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/httpctl/httpctl/aggregator/access"
	"github.com/httpctl/httpctl/aggregator/enroll"
	"github.com/httpctl/httpctl/aggregator/export"
	"github.com/httpctl/httpctl/aggregator/ingest"
	"github.com/httpctl/httpctl/aggregator/web"
	"github.com/httpctl/httpctl/pkg/authority"
	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/security"
	"github.com/httpctl/httpctl/pkg/telemetry"
)

// Config is the section `aggregator` of a configuration file.
type Config struct {
	// Data is the directory of the database and of the Unix socket, made if it is not there.
	// Default: /var/lib/httpctl for root, else httpctl in the user's state directory.
	Data string `yaml:"data"`
	// Listen lists the addresses served besides the Unix socket, as host:port. Anything but
	// loopback needs tls, or an authority in the data directory (httpctl ca init). Default
	// 127.0.0.1:7420; an empty list is the socket alone.
	Listen []string `yaml:"listen"`
	// TLS is used on every TCP address once it is set; agents and readers then
	// need a certificate of the same authority. The Unix socket stays plain: its file mode guards it.
	// Default: that of the authority in the data directory, if there is one.
	TLS security.TLS `yaml:"tls"`
	// Enroll are the settings of the authority in the data directory.
	Enroll enroll.Config `yaml:"enroll"`
	// Roles says which certificates may do what.
	Roles access.Roles `yaml:"roles"`
	// Limits bounds what strangers may cost.
	Limits access.Limits `yaml:"limits"`
	// Ingest bounds what agents may cost.
	Ingest ingest.Config `yaml:"ingest"`
	// Rollups says how long roll-ups are kept, beyond the intervals that they sum up.
	Rollups Rollups `yaml:"rollups"`
	// Web is the web page and the API behind it.
	Web web.Config `yaml:"web"`
	// Metrics is the loopback address of the page that Prometheus reads, such as 127.0.0.1:7421.
	// Default: none.
	Metrics string `yaml:"metrics"`
	// Export hands the counters of traffic to the monitoring that is there already.
	Export export.Config `yaml:"export"`
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{
		Data:    config.DataDir(os.Getuid(), os.Getenv),
		Listen:  []string{config.DefaultAddress},
		Enroll:  enroll.DefaultConfig(),
		Ingest:  ingest.DefaultConfig(),
		Rollups: DefaultRollups(),
		Limits:  access.DefaultLimits(),
		Export:  export.DefaultConfig(),
	}
}

// Validate returns nil or config.Faults.
func (c *Config) Validate() error {
	var check config.Check
	check.That(c.Data != "", "data", c.Data, "a directory (there is no home directory to choose one in)")
	for _, address := range c.Listen {
		check.In("listen", c.checkListen("aggregator.listen", address))
	}
	for _, address := range c.Web.Listen {
		err := c.checkListen("aggregator.web.listen", address)
		if err == nil && strings.HasPrefix(address, "unix:") {
			err = errors.New("want HOST:PORT, such as 127.0.0.1:7480: browsers know no Unix sockets")
		}
		check.In("web.listen", err)
	}
	check.In("web", c.Web.Validate())
	check.In("tls", c.TLS.Validate())
	check.That(c.TLS.ServerName == "", "tls.server_name", c.TLS.ServerName, "nothing: it is for agents and readers, which check the aggregator's name")
	check.In("enroll", c.Enroll.Validate())
	check.In("roles", c.Roles.Validate())
	check.That(c.Roles.IsZero() || !c.TLS.IsZero() || c.hasAuthority(), "roles", "", "tls too: without it nobody shows a certificate")
	check.In("limits", c.Limits.Validate())
	check.In("ingest", c.Ingest.Validate())
	check.In("rollups", c.Rollups.Validate())
	check.In("metrics", telemetry.CheckAddress(c.Metrics))
	check.In("export", c.Export.Validate())
	check.That(!c.Export.Scrape || c.Metrics != "", "export.scrape", c.Export.Scrape, "metrics too: the address where it is served")
	return check.Err()
}

// hasAuthority reports whether the authority in the data directory is used.
func (c *Config) hasAuthority() bool {
	return c.TLS.IsZero() && c.Data != "" && authority.Exists(authority.Dir(c.Data))
}

func (c *Config) checkListen(setting, address string) error {
	err := security.CheckAddress(setting, address, "aggregator.tls", c.TLS)
	if _, _, malformed := security.SplitAddress(address); err == nil || malformed != nil {
		return err
	}
	if c.hasAuthority() {
		return nil
	}
	return fmt.Errorf("%w; or have certificates made, see httpctl ca init", err)
}
