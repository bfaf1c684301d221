// Package confine has a program give up, once it has opened what it needs, what it does not need any
// more: capabilities, new privileges, most system calls, and files and ports that are not its own. It is for the
// case that a fault in the program lets a stranger run in it.
package confine

import (
	"strings"
)

// Needs is what a program still uses after it has started.
type Needs struct {
	// Write are directories whose files it makes, changes and removes.
	Write []string
	// Read are directories, or files, that it reads. What is not there is passed over.
	Read []string
	// Ports are the TCP ports that it may connect to, at any address: the kernel has no rule for addresses.
	Ports []uint16
}

// Parts are what [Apply] can do, in its order.
var Parts = []string{"landlock", "capabilities", "seccomp"}

// Result says what came of it.
type Result struct {
	// Landlock is the version of Landlock that is in force, 0 without. 1 to 3 know files
	// only; 4 knows TCP ports, too.
	Landlock int
	// Capabilities and Seccomp are true once they are given up, and in force. So are then no new privileges.
	Capabilities, Seccomp bool
}

// Has reports whether a part is in force.
func (r Result) Has(part string) bool {
	switch part {
	case "landlock":
		return r.Landlock > 0
	case "capabilities":
		return r.Capabilities
	case "seccomp":
		return r.Seccomp
	}
	return false
}

// Missing names what is not in force, for a log; empty when all is.
func (r Result) Missing() string {
	var missing []string
	switch {
	case r.Landlock == 0:
		missing = append(missing, "landlock: files and ports")
	case r.Landlock < 4:
		missing = append(missing, "landlock 4: ports")
	}
	if !r.Capabilities {
		missing = append(missing, "capabilities")
	}
	if !r.Seccomp {
		missing = append(missing, "seccomp")
	}
	return strings.Join(missing, ", ")
}
