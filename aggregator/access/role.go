package access

import "strings"

// Role is a set of roles.
type Role uint8

// The roles. Admin includes Viewer, and not Agent: whoever may change the aggregator still
// cannot speak for a host.
const (
	// Agent delivers the buckets of one host.
	Agent Role = 1 << iota
	// Viewer reads.
	Viewer
	// Admin changes what the aggregator does or who may come.
	Admin

	// Anyone needs no role: for methods that check by themselves who calls.
	Anyone Role = 0
)

// Allows reports whether whoever has the roles r may do what needs the role need.
func (r Role) Allows(need Role) bool {
	if r&Admin != 0 {
		r |= Viewer
	}
	return r&need == need
}

// String names the roles: "agent and viewer"; "no role" for none.
func (r Role) String() string {
	var names []string
	for i, name := range [...]string{"agent", "viewer", "admin"} {
		if r&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return "no role"
	}
	return strings.Join(names, " and ")
}
