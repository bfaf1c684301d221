package privacy

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/httpctl/httpctl/pkg/exchange"
)

// sink keeps what it is shown last.
type sink struct{ o exchange.Observation }

func (s *sink) Observe(o *exchange.Observation) {
	x := *o.Exchange
	s.o, s.o.Exchange = *o, &x
}

// reference is the hash as docs/configuration.md says.
func reference(key, kind, text string) string {
	m := hmac.New(sha256.New, []byte(key))
	fmt.Fprintf(m, "%s\x00%s", kind, text)
	return kind[:1] + "-" + hex.EncodeToString(m.Sum(nil))[:16]
}

func TestVeil(t *testing.T) {
	const key = "0123456789abcdef"
	x := exchange.Exchange{
		Client: netip.MustParseAddrPort("[::ffff:203.0.113.7]:40000"), Server: netip.MustParseAddrPort("192.0.2.80:80"),
		HasRequest: true, Host: "Shop.example.net:80", Domain: "shop.example.net", Target: "/cart/7", Section: "shop.example.net/cart", Mirror: "0b",
	}
	domain := reference(key, "domain", "shop.example.net")
	for _, c := range []struct {
		clients, domains, others, domain string
		want                             string // client, domain, section, host, target
	}{
		{Keep, "", Fold, "", "203.0.113.7 shop.example.net shop.example.net/cart Shop.example.net:80 /cart/7"},
		{Hash, "", Fold, "", reference(key, "client", "203.0.113.7") + " shop.example.net shop.example.net/cart Shop.example.net:80 /cart/7"},
		{Drop, "", Fold, "", "- shop.example.net shop.example.net/cart Shop.example.net:80 /cart/7"},
		{Keep, "shop.example.net", Fold, "", "203.0.113.7 shop.example.net shop.example.net/cart Shop.example.net:80 /cart/7"},
		{Keep, "*.example.net", Hash, "", "203.0.113.7 shop.example.net shop.example.net/cart Shop.example.net:80 /cart/7"},
		{Keep, "*.net", Hash, "", "203.0.113.7 shop.example.net shop.example.net/cart Shop.example.net:80 /cart/7"},
		{Keep, "example.net *.shop.example.net *.ample.net", Fold, "", "203.0.113.7 (other) (other)  "},
		{Drop, "example.net", Hash, "", "- " + domain + " " + domain + "/" + reference(key, "section", "shop.example.net/cart") + "  "},
		{Keep, "example.net", Hash, exchange.Invalid, "203.0.113.7 (invalid) shop.example.net/cart Shop.example.net:80 /cart/7"},
	} {
		cfg := Config{Clients: c.clients, OtherDomains: c.others, Domains: strings.Fields(c.domains)}
		if err := cfg.Validate(); err != nil {
			t.Fatal(err)
		}
		var s sink
		v := New(cfg, []byte(key), &s)
		seen := x
		if c.domain != "" {
			seen.Domain = c.domain
		}
		before := seen
		for range 2 { // the second time from what it remembers
			v.Observe(&exchange.Observation{Event: exchange.Outcome, Time: 7, Exchange: &seen, NewRequestBytes: 9})
			o := s.o.Exchange
			if got := fmt.Sprint(o.ClientText(), " ", o.Domain, " ", o.Section, " ", o.Host, " ", o.Target); got != c.want {
				t.Errorf("%+v: %q, want %q", cfg, got, c.want)
			}
			if c.clients != Keep && o.Client.IsValid() {
				t.Errorf("%+v leaves the address %v", cfg, o.Client)
			}
			if s.o.Time != 7 || s.o.NewRequestBytes != 9 || o.Server != x.Server || o.Mirror != x.Mirror {
				t.Errorf("%+v changes what it need not: %+v", cfg, s.o)
			}
		}
		if seen != before {
			t.Errorf("%+v has changed the exchange itself", cfg)
		}
	}
	other := New(Config{Clients: Hash}, []byte("another key, as long"), &sink{})
	if got := other.client(netip.MustParseAddr("203.0.113.7")); got == reference(key, "client", "203.0.113.7") {
		t.Error("hashes of two keys are equal")
	}
}

// TestVeilIsBounded: names from the network do not pile up.
func TestVeilIsBounded(t *testing.T) {
	var s sink
	v := New(Config{Clients: Hash, Domains: []string{"example.org"}, OtherDomains: Hash}, []byte("0123456789abcdef"), &s)
	for i := range 3 * maxCached {
		domain := fmt.Sprintf("%d.example.net", i)
		v.Observe(&exchange.Observation{Exchange: &exchange.Exchange{Domain: domain, Section: domain + "/",
			Client: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 1)}})
	}
	for what, n := range map[string]int{"clients": len(v.clients), "domains": len(v.domains), "sections": len(v.parts)} {
		if n > maxCached {
			t.Errorf("%d %s are remembered, want at most %d", n, what, maxCached)
		}
	}
}

func TestVeilDoesNotAllocate(t *testing.T) {
	v := New(Config{Clients: Hash, Domains: []string{"*.example.org"}, OtherDomains: Hash}, []byte("0123456789abcdef"), &discard{})
	o := &exchange.Observation{Exchange: &exchange.Exchange{Domain: "a.example.net", Section: "a.example.net/x", Client: netip.MustParseAddrPort("203.0.113.7:1")}}
	v.Observe(o)
	// The hashed section is put together each time.
	if n := testing.AllocsPerRun(100, func() { v.Observe(o) }); n > 1 {
		t.Errorf("%v allocations for an exchange that was seen before, want at most 1", n)
	}
}

type discard struct{}

func (discard) Observe(*exchange.Observation) {}

func TestValidate(t *testing.T) {
	for _, c := range []struct {
		change func(*Config)
		want   string
	}{
		{func(*Config) {}, ""},
		{func(c *Config) { c.Clients = "none" }, `clients: "none" is not keep, hash or drop`},
		{func(c *Config) { c.OtherDomains = "drop" }, `other_domains: "drop" is not fold or hash`},
		{func(c *Config) { c.Domains = []string{"example.org", "*.example.org", "[2001:db8::1]", "192.0.2.1"} }, ""},
		{func(c *Config) { c.Domains = []string{"example.org", "Example.org"} }, `domains[1]: "Example.org" is not a domain`},
		{func(c *Config) { c.Domains = []string{"example.org:80"} }, "domains[0]"},
		{func(c *Config) { c.Domains = []string{"*."} }, "domains[0]"},
		{func(c *Config) { c.Domains = []string{"a/b"} }, "domains[0]"},
		{func(c *Config) { c.Domains = make([]string, maxDomains+1) }, "domains: 10001 of them"},
	} {
		cfg := DefaultConfig()
		c.change(&cfg)
		err := cfg.Validate()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("Validate of %.80v = %v, want %q", cfg, err, c.want)
		}
	}
}
