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
// string of at most internLength bytes, a domain has at most 255, and the sections beside the targets
// sectionLength, so the tables hold at most 8 MiB of them.
const (
	internSlots   = 4096
	internLength  = 512 // above nearly every user agent and target
	sectionLength = 128
)

// names makes the strings of exchanges and keeps the latest of them, so that steady
// traffic allocates none. It is bounded: a string whose slot is taken replaces it.
type names struct {
	limit   int
	seed    maphash.Seed
	text    [internSlots]string
	targets [internSlots]target
	domains [internSlots]struct{ host, domain string }
	scratch []byte
}

// A target is a request-target and the section that it has in a domain; that is "" until it was asked for.
type target struct{ text, domain, section string }

// words are the places in names of the host and the user agent of a connection's latest request: those of most others
// are the same, and are found there without being hashed.
type words struct{ host, agent uint16 }

func newNames(limit int) *names {
	return &names{limit: limit, seed: maphash.MakeSeed()}
}

// get returns b as a string bounded to the limit, without the line ends of
// folded lines.
func (n *names) get(b []byte) string {
	if !n.keeps(b) {
		return n.make(b)
	}
	return n.at(n.slot(b), b)
}

// again is get for what is probably in the place last, which it changes to where it is.
func (n *names) again(b []byte, last *uint16) string {
	if s := n.text[*last%internSlots]; s == string(b) {
		return s
	}
	if !n.keeps(b) {
		return n.make(b)
	}
	*last = uint16(n.slot(b))
	return n.at(uint64(*last), b)
}

// method is get for a method.
func (n *names) method(b []byte) string {
	switch string(b) {
	case "GET":
		return "GET"
	case "POST":
		return "POST"
	case "HEAD":
		return "HEAD"
	case "PUT":
		return "PUT"
	}
	return n.get(b)
}

// keeps reports whether b goes into a table as it is.
func (n *names) keeps(b []byte) bool {
	return len(b) > 0 && len(b) <= min(n.limit, internLength) && bytes.IndexByte(b, '\n') < 0
}

// make is get for what the tables do not keep.
func (n *names) make(b []byte) string {
	if len(b) > n.limit || bytes.IndexByte(b, '\n') >= 0 {
		return exchange.Bound(unfold(b), n.limit)
	}
	return string(b)
}

func (n *names) slot(b []byte) uint64 { return maphash.Bytes(n.seed, b) % internSlots }

func (n *names) at(slot uint64, b []byte) string {
	s := &n.text[slot]
	if *s != string(b) {
		*s = string(b)
	}
	return *s
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

// target returns a request-target as a string, and its place if it has one. Targets have a table of their
// own, because they vary the most.
func (n *names) target(b []byte) (string, *target) {
	if !n.keeps(b) {
		return n.make(b), nil
	}
	at := &n.targets[n.slot(b)]
	if at.text != string(b) {
		*at = target{text: string(b)}
	}
	return at.text, at
}

// domain is exchange.Domain with a memory. last is the place where host probably is.
func (n *names) domain(method, target, host string, last uint16, server netip.Addr) string {
	if host == "" || len(host) > internLength || target == "" || target[0] != '/' || method == "CONNECT" {
		return n.bound(exchange.Domain(method, target, host, server))
	}
	slot := &n.domains[last%internSlots]
	if slot.host != host {
		slot = &n.domains[maphash.String(n.seed, host)%internSlots]
	}
	if slot.host != host || slot.domain == "" {
		slot.host = host
		slot.domain = n.bound(exchange.Domain(method, target, host, server))
	}
	return slot.domain
}

// section is exchange.Section with a memory. at is the target's place, or nil.
func (n *names) section(domain, method, text string, at *target) string {
	if text == "" || text[0] != '/' || method == "CONNECT" {
		return n.bound(exchange.Section(domain, method, text))
	}
	if at != nil && at.section != "" && at.domain == domain {
		return at.section
	}
	segment := strings.TrimLeft(text, "/")
	for i := range len(segment) {
		if c := segment[i]; c == '/' || c == '?' || c == '#' {
			segment = segment[:i]
			break
		}
	}
	if strings.IndexByte(segment, '%') >= 0 {
		return n.bound(exchange.Section(domain, method, text))
	}
	n.scratch = append(append(append(n.scratch[:0], domain...), '/'), segment...)
	section := n.get(n.scratch)
	if at != nil && len(section) <= sectionLength {
		at.domain, at.section = domain, section
	}
	return section
}

func (n *names) bound(s string) string { return exchange.Bound(s, n.limit) }
