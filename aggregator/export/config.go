package export

import (
	"net"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/exchange"
	"github.com/httpctl/httpctl/pkg/security"
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
	// Instance is what receivers that are pushed to call this aggregator: the label instance, or the
	// attribute service.instance.id. Default: the name of this host. Give each aggregator its own.
	Instance string `yaml:"instance"`
	// RemoteWrite is where to push with Prometheus remote write 1.0: http://127.0.0.1:9090/api/v1/write.
	RemoteWrite Receiver `yaml:"remote_write"`
	// OTLP is where to push with OpenTelemetry's protocol: over HTTP, https://otel.example.org:4318/v1/metrics, or over gRPC,
	// grpcs://otel.example.org:4317.
	OTLP Receiver `yaml:"otlp"`
}

// The names of receivers in logs and metrics.
const (
	ToRemoteWrite = "remote_write"
	ToOTLP        = "otlp"
)

// Receiver says where all counters are pushed to, how often, and what to show there. The files are read at each request, so
// that renewed ones need no restart.
type Receiver struct {
	// URL of the receiver; empty pushes nothing. Plain text (http, grpc) is for this host only, unless plain_text
	// allows it.
	URL string `yaml:"url"`
	// Every is how often; more often than dashboard_bucket_size says nothing more. Default 15s.
	Every time.Duration `yaml:"every"`
	// MaxPending bounds what waits while the receiver is away. Beyond it the oldest goes, which later
	// values make up for. Default 16MiB.
	MaxPending config.Size `yaml:"max_pending"`
	// BearerTokenFile holds a token to show, in one line.
	BearerTokenFile string `yaml:"bearer_token_file"`
	// Username and PasswordFile are those of basic authentication; the file has one line.
	Username     string `yaml:"username"`
	PasswordFile string `yaml:"password_file"`
	// CAFile holds in PEM the authorities of the receiver's certificate. Default: those of the system.
	CAFile string `yaml:"ca_file"`
	// PlainText lets url be http or grpc beyond this host, where everybody on the way reads the names of domains and
	// hosts: for networks that are private otherwise. Credentials are never sent so.
	PlainText bool `yaml:"plain_text"`
}

func defaultReceiver() Receiver {
	return Receiver{Every: 15 * time.Second, MaxPending: 16 * config.MiB}
}

// Enabled reports whether something is pushed.
func (r *Receiver) Enabled() bool { return r.URL != "" }

// validate returns nil or config.Faults. schemes are those of plain text, each of which with an s is that with TLS.
func (r *Receiver) validate(schemes ...string) error {
	var check config.Check
	check.That(r.Every >= time.Second && r.Every <= time.Hour, "every", r.Every, "1s to 1h")
	check.That(r.MaxPending >= config.MiB && r.MaxPending <= config.GiB, "max_pending", r.MaxPending, "1MiB to 1GiB")
	basic := r.Username != "" || r.PasswordFile != ""
	check.That(!basic || r.Username != "" && r.PasswordFile != "", "username", r.Username, "both username and password_file, or neither")
	check.That(!basic || r.BearerTokenFile == "", "bearer_token_file", r.BearerTokenFile, "it, or username and password_file, not both")
	check.That(!strings.Contains(r.Username, ":"), "username", r.Username, "a name without a colon")
	if r.URL == "" {
		return check.Err()
	}
	var both []string
	for _, s := range schemes {
		both = append(both, s+"s://", s+"://")
	}
	to, err := url.Parse(r.URL)
	if !check.That(err == nil && to.Hostname() != "" && slices.Contains(both, to.Scheme+"://") && to.Fragment == "", "url", r.URL, "HOST[:PORT] after "+strings.Join(both, ", ")) {
		return check.Err()
	}
	check.That(to.User == nil, "url", "with a user", "none in it: set username and password_file")
	grpc := strings.HasPrefix(to.Scheme, "grpc")
	check.That(!grpc || to.RawQuery == "" && (to.Path == "" || to.Path == "/"), "url", r.URL, "HOST[:PORT] alone after "+to.Scheme+"://")
	if !strings.HasSuffix(to.Scheme, "s") && !security.IsLocal(net.JoinHostPort(to.Hostname(), "1")) {
		check.That(r.PlainText, "url", r.URL, to.Scheme+"s://, as it goes beyond this host; or plain_text, if nobody is on the way")
		check.That(!basic && r.BearerTokenFile == "", "url", r.URL, to.Scheme+"s:// to show credentials: they are never sent in plain text beyond this host")
	}
	return check.Err()
}

// DefaultConfig returns the defaults: nothing is exported.
func DefaultConfig() Config {
	return Config{MaxDomains: 100, MaxHosts: 1000, MaxRows: 20_000, RemoteWrite: defaultReceiver(), OTLP: defaultReceiver()}
}

// Enabled reports whether anything is exported.
func (c *Config) Enabled() bool { return c.Scrape || c.RemoteWrite.Enabled() || c.OTLP.Enabled() }

// Validate returns nil or config.Faults.
func (c *Config) Validate() error {
	var check config.Check
	check.That(c.MaxDomains >= 1 && c.MaxDomains <= 10_000, "max_domains", c.MaxDomains, "1 to 10000")
	check.That(c.MaxHosts >= 0 && c.MaxHosts <= 100_000, "max_hosts", c.MaxHosts, "0 (no host has series of its own) to 100000")
	check.That(c.MaxRows >= 100 && c.MaxRows <= 1_000_000, "max_rows", c.MaxRows, "100 to 1000000")
	check.That(len(c.Instance) <= 255 && utf8.ValidString(c.Instance), "instance", c.Instance, "UTF-8 of at most 255 bytes")
	check.In(ToRemoteWrite, c.RemoteWrite.validate("http"))
	check.In(ToOTLP, c.OTLP.validate("http", "grpc"))
	return check.Err()
}

const (
	// idleAfter is how long nothing was counted for a domain or host until its place is another's: longer than the ranges
	// over which rates are usually asked for, as its series end then.
	idleAfter = time.Hour
	// maxRenames bounds how often a host has another name within idleAfter, as each name has series of its own.
	maxRenames = 4
	// maxAnswers bounds the pairs of method and status of one domain on one host, so that a server that answers with every
	// number there is does not take the rows of all others. Sites in practice have about twenty.
	maxAnswers = 64
)
