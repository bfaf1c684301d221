// Package privacy leaves out of exchanges who asked, and for what, as far as the configuration says. It stands between
// pairing and the statistics, so that what it takes away is in no table, bucket, file or message.
package privacy

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"net/netip"
	"slices"
	"strings"

	"github.com/httpctl/httpctl/pkg/exchange"
)

// What becomes of client addresses, and of domains that are not listed.
const (
	Keep = "keep"
	Hash = "hash"
	Drop = "drop"
	Fold = "fold"
)

// Config is the section `agent.privacy`. The zero value is not valid: start from [DefaultConfig].
type Config struct {
	// Clients says what becomes of the addresses of clients: keep, hash (a keyed hash in place of each, so
	// that they can still be counted apart) or drop (one row for all). Default keep.
	Clients string `yaml:"clients"`
	// Domains are those that are kept by name; *.example.org stands for all below example.org. Empty, the
	// default, keeps all.
	Domains []string `yaml:"domains"`
	// OtherDomains says what becomes of the domains that Domains does not list, and of their
	// sections: fold (into the one domain "(other)", the default) or hash. Without Domains it does nothing.
	OtherDomains string `yaml:"other_domains"`
	// KeyFile holds the key of the hashes, 16 to 4096 bytes. Who has it can find out what a hash stands for by
	// trying. Hosts with the same key have the same hashes. Default: a random key in the state
	// directory, so each host has its own.
	KeyFile string `yaml:"key_file"`
}

// DefaultConfig keeps everything.
func DefaultConfig() Config { return Config{Clients: Keep, OtherDomains: Fold} }

// Bounds of a key: 16 bytes are what cannot be guessed.
const (
	MinKey = 16
	MaxKey = 4096
)

// maxDomains bounds the list.
const maxDomains = 10_000

// Validate reports every fault at once. It does not open the file.
func (c Config) Validate() error {
	var errs []error
	if !slices.Contains([]string{Keep, Hash, Drop}, c.Clients) {
		errs = append(errs, fmt.Errorf("clients: %q is not keep, hash or drop", c.Clients))
	}
	if c.OtherDomains != Fold && c.OtherDomains != Hash {
		errs = append(errs, fmt.Errorf("other_domains: %q is not fold or hash", c.OtherDomains))
	}
	if len(c.Domains) > maxDomains {
		errs = append(errs, fmt.Errorf("domains: %d of them, at most %d", len(c.Domains), maxDomains))
		return errors.Join(errs...)
	}
	for i, d := range c.Domains {
		name := strings.TrimPrefix(d, "*.")
		if want := exchange.Domain("GET", "/", name, netip.Addr{}); name == "" || want != name || want == exchange.Invalid {
			errs = append(errs, fmt.Errorf("domains[%d]: %q is not a domain as it is counted: lower-case, without port and final dot, such as example.org or *.example.org", i, d))
		}
	}
	return errors.Join(errs...)
}

// Hashes reports whether a key is needed.
func (c Config) Hashes() bool {
	return c.Clients == Hash || len(c.Domains) > 0 && c.OtherDomains == Hash
}

// Off reports whether everything is kept.
func (c Config) Off() bool { return c.Clients == Keep && len(c.Domains) == 0 }

// OtherName is the domain, and the section, of all domains that are folded.
const OtherName = "(other)"

// maxCached bounds the names and hashes that a Veil remembers of each kind; beyond it they are made anew.
const maxCached = 4096

// Veil is a sink that hands exchanges on without what is not to be known. It is not safe for concurrent use: each
// pipeline has its own.
type Veil struct {
	cfg     Config
	next    exchange.Sink
	mac     hash.Hash
	exact   map[string]bool
	below   map[string]bool // those listed as *.NAME
	clients map[netip.Addr]string
	domains map[string]string // what a domain becomes
	parts   map[string]string // what a section becomes
	x       exchange.Exchange
	o       exchange.Observation
}

// New returns a Veil before next. cfg must be valid; key may be nil where nothing is hashed.
func New(cfg Config, key []byte, next exchange.Sink) *Veil {
	v := &Veil{
		cfg: cfg, next: next, mac: hmac.New(sha256.New, key), exact: map[string]bool{}, below: map[string]bool{},
		clients: map[netip.Addr]string{}, domains: map[string]string{}, parts: map[string]string{},
	}
	for _, d := range cfg.Domains {
		if name, ok := strings.CutPrefix(d, "*."); ok {
			v.below[name] = true
		} else {
			v.exact[d] = true
		}
	}
	return v
}

// Observe implements exchange.Sink. The exchange itself stays as it is.
func (v *Veil) Observe(o *exchange.Observation) {
	v.o, v.x = *o, *o.Exchange
	v.o.Exchange = &v.x
	switch v.cfg.Clients {
	case Hash:
		v.x.ClientName = v.client(v.x.Client.Addr().Unmap())
		v.x.Client = netip.AddrPort{}
	case Drop:
		v.x.ClientName = "-"
		v.x.Client = netip.AddrPort{}
	}
	if v.x.Domain != "" && len(v.cfg.Domains) > 0 && !v.listed(v.x.Domain) {
		domain := v.x.Domain
		v.x.Host, v.x.Target = "", ""
		if v.x.Domain, v.x.Section = OtherName, OtherName; v.cfg.OtherDomains == Hash {
			v.x.Domain = v.hashed(v.domains, "domain", "d-", domain)
			v.x.Section = v.x.Domain + "/" + v.hashed(v.parts, "section", "s-", o.Section)
		}
	}
	v.next.Observe(&v.o)
}

// listed reports whether a domain is kept. What is no domain is.
func (v *Veil) listed(domain string) bool {
	if domain == exchange.Invalid || v.exact[domain] {
		return true
	}
	for rest := domain; ; {
		_, after, ok := strings.Cut(rest, ".")
		if !ok {
			return false
		}
		if v.below[after] {
			return true
		}
		rest = after
	}
}

func (v *Veil) client(a netip.Addr) string {
	if name, ok := v.clients[a]; ok {
		return name
	}
	name := v.hash("client", "c-", a.String())
	if len(v.clients) >= maxCached {
		clear(v.clients)
	}
	v.clients[a] = name
	return name
}

func (v *Veil) hashed(cache map[string]string, kind, prefix, text string) string {
	if name, ok := cache[text]; ok {
		return name
	}
	name := v.hash(kind, prefix, text)
	if len(cache) >= maxCached {
		clear(cache)
	}
	cache[strings.Clone(text)] = name
	return name
}

// hash is the first 64 bits of HMAC-SHA-256, which tell some 100 million names apart, of the kind and the text.
func (v *Veil) hash(kind, prefix, text string) string {
	v.mac.Reset()
	v.mac.Write([]byte(kind + "\x00" + text))
	return prefix + hex.EncodeToString(v.mac.Sum(nil)[:8])
}
