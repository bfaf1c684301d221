package baseline

import (
	"fmt"
	"strings"
)

// ScopeKind says what a baseline is about.
type ScopeKind uint8

// The kinds of scopes. The zero value is the whole fleet.
const (
	ScopeFleet ScopeKind = iota
	ScopeHost
	ScopeDomain
)

var scopeNames = [...]string{"fleet", "host", "domain"}

// Scope is what a baseline and its alerts are about. The zero value is Fleet.
type Scope struct {
	Kind ScopeKind
	// Name is the host's id or the domain; empty for the fleet.
	Name string
}

// Fleet is the scope of all hosts together.
var Fleet = Scope{}

// String returns "fleet", "host:ID" or "domain:NAME". [ParseScope] reads it back.
func (s Scope) String() string {
	if s.Kind == ScopeFleet {
		return scopeNames[ScopeFleet]
	}
	if int(s.Kind) >= len(scopeNames) {
		return fmt.Sprintf("scope%d:%s", s.Kind, s.Name)
	}
	return scopeNames[s.Kind] + ":" + s.Name
}

// ParseScope reads what String wrote.
func ParseScope(text string) (Scope, error) {
	if text == scopeNames[ScopeFleet] {
		return Fleet, nil
	}
	kind, name, _ := strings.Cut(text, ":")
	for k := ScopeHost; int(k) < len(scopeNames); k++ {
		if kind == scopeNames[k] && name != "" {
			return Scope{Kind: k, Name: name}, nil
		}
	}
	return Scope{}, fmt.Errorf("scope %q: want fleet, host:ID or domain:NAME", text)
}

// MarshalText makes a Scope the text of String in journals.
func (s Scope) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (s *Scope) UnmarshalText(text []byte) (err error) {
	*s, err = ParseScope(string(text))
	return err
}
