package pairing

import (
	"bytes"
	"hash/maphash"
	"net/netip"
	"strings"

	"github.com/httpctl/httpctl/pkg/exchange"
)

// internSlots is the size of each table of strings: enough for the hosts,
// sections and user agents that make up a host's traffic. A slot holds one
// string of at most internLength bytes, so the tables hold at most 4 x 4096 of them, 8 MiB.
const (
	internSlots  = 4096
	internLength = 512 // above nearly every user agent and target
)

// names makes the strings of exchanges and keeps the latest of them, so that steady
// traffic allocates none. It is bounded: a string whose slot is taken replaces it.
type names struct {
	limit   int
	seed    maphash.Seed
	text    [internSlots]string
	targets [internSlots]string
	domains [internSlots]struct{ host, domain string }
	scratch []byte
}

func newNames(limit int) *names {
	return &names{limit: limit, seed: maphash.MakeSeed()}
}

// get returns b as a string bounded to the limit, without the line ends of
// folded lines.
func (n *names) get(b []byte) string { return n.in(&n.text, b) }

func (n *names) in(table *[internSlots]string, b []byte) string {
	if len(b) == 0 {
		return ""
	}
	if len(b) > n.limit || bytes.IndexByte(b, '\n') >= 0 {
		return exchange.Bound(unfold(b), n.limit)
	}
	if len(b) > internLength {
		return string(b)
	}
	slot := &table[maphash.Bytes(n.seed, b)%internSlots]
	if *slot != string(b) {
		*slot = string(b)
	}
	return *slot
}

// unfold joins the lines of a folded value with single spaces (RFC 9112
// section 5.2).
func unfold(b []byte) string {
	if bytes.IndexByte(b, '\n') < 0 {
		return string(b)
	}
	lines := strings.Split(string(b), "\n")
	for i, l := range lines {
		lines[i] = strings.Trim(l, " \t\r")
	}
	return strings.Join(lines, " ")
}

// target returns a request-target as a string. Targets have a table of their
// own, because they vary the most.
func (n *names) target(b []byte) string { return n.in(&n.targets, b) }

// domain is exchange.Domain with a memory.
func (n *names) domain(method, target, host string, server netip.Addr) string {
	if host == "" || len(host) > internLength || target == "" || target[0] != '/' || method == "CONNECT" {
		return n.bound(exchange.Domain(method, target, host, server))
	}
	slot := &n.domains[maphash.String(n.seed, host)%internSlots]
	if slot.host != host || slot.domain == "" {
		slot.host = host
		slot.domain = n.bound(exchange.Domain(method, target, host, server))
	}
	return slot.domain
}

// section is exchange.Section with a memory.
func (n *names) section(domain, method, target string) string {
	if target == "" || target[0] != '/' || method == "CONNECT" {
		return n.bound(exchange.Section(domain, method, target))
	}
	segment := strings.TrimLeft(target, "/")
	for i := range len(segment) {
		if c := segment[i]; c == '/' || c == '?' || c == '#' {
			segment = segment[:i]
			break
		}
	}
	if strings.IndexByte(segment, '%') >= 0 {
		return n.bound(exchange.Section(domain, method, target))
	}
	n.scratch = append(append(append(n.scratch[:0], domain...), '/'), segment...)
	return n.get(n.scratch)
}

func (n *names) bound(s string) string { return exchange.Bound(s, n.limit) }
