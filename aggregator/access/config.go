package access

import (
	"fmt"
	"strings"

	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/config"
)

// Roles is the setting aggregator.roles: which certificates have which role. It is for certificates of
// a company's authority or of SPIFFE; those that `httpctl ca` makes say it themselves.
//
// An entry is the identity of a certificate: its first URI, else its first DNS name, else its common name. One * in
// it stands for one or more characters; unless it is the last character, for none that is a slash. An identity
// that several lists match has the roles of all of them.
type Roles struct {
	// Agent lists who may deliver buckets. An entry IDENTITY = HOSTID, with the 32 digits of the host's
	// id, may speak for that host only; without, a host id belongs to the identity that says it first.
	Agent []string `yaml:"agent" reload:"from the next call on"`
	// Viewer lists who may read.
	Viewer []string `yaml:"viewer" reload:"from the next call on"`
	// Admin lists who may read and change. A * alone is refused here.
	Admin []string `yaml:"admin" reload:"from the next call on"`
}

// IsZero reports whether nobody is named.
func (r *Roles) IsZero() bool { return len(r.Agent)+len(r.Viewer)+len(r.Admin) == 0 }

// Validate returns nil or [config.Faults].
func (r *Roles) Validate() error {
	var check config.Check
	named := map[bucket.ID]bool{}
	for _, l := range r.lists() {
		for i, text := range l.entries {
			key := fmt.Sprintf("%s[%d]", l.name, i)
			p, host, err := parseEntry(text)
			switch {
			case err != nil:
				check.That(false, key, text, err.Error())
			case l.role == Admin && p.before == "" && p.star && p.after == "":
				check.That(false, key, text, "who: with * everybody would be admin")
			case l.role != Agent && !host.IsZero():
				check.That(false, key, text, "an identity alone: only agents belong to a host")
			case named[host]:
				check.That(false, key, text, "each host once")
			case p.star && !host.IsZero():
				check.That(false, key, text, "an identity without *, as one agent speaks for a host")
			}
			if !host.IsZero() {
				named[host] = true
			}
		}
	}
	return check.Err()
}

type roleList struct {
	name    string
	role    Role
	entries []string
}

func (r *Roles) lists() [3]roleList {
	return [3]roleList{{"agent", Agent, r.Agent}, {"viewer", Viewer, r.Viewer}, {"admin", Admin, r.Admin}}
}

// maxIdentity bounds an identity, in bytes. It is SPIFFE's own bound of an id.
const maxIdentity = 2048

// pattern matches identities.
type pattern struct {
	before, after string
	star          bool
}

// parseEntry reads IDENTITY or IDENTITY = HOSTID.
func parseEntry(text string) (p pattern, host bucket.ID, err error) {
	identity, id, bound := strings.Cut(text, " = ")
	if bound {
		if host, err = bucket.ParseID(id); err != nil {
			return p, host, fmt.Errorf("IDENTITY = HOSTID with 32 hexadecimal digits")
		}
	}
	if identity == "" || len(identity) > maxIdentity || strings.Count(identity, "*") > 1 || strings.TrimSpace(identity) != identity {
		return p, host, fmt.Errorf("an identity of 1 to %d bytes, with one * at most", maxIdentity)
	}
	p.before, p.after, p.star = strings.Cut(identity, "*")
	return p, host, nil
}

func (p pattern) matches(identity string) bool {
	if !p.star {
		return identity == p.before
	}
	rest, ok := strings.CutPrefix(identity, p.before)
	if !ok {
		return false
	}
	middle, ok := strings.CutSuffix(rest, p.after)
	if !ok || middle == "" {
		return false
	}
	return p.after == "" || !strings.Contains(middle, "/")
}
