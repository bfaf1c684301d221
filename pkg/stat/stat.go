// Package stat is the plug-in interface for statistics, and the statistics
// that come with the program, which use nothing else.
//
// A statistic is a [Module]: it names its tables, and is then shown every
// observation. To add one, implement Module in a package of your own, call
// [Register] from its init function, import that package in a main that calls
// the program's command package, and list its name under `statistics` in the
// configuration. docs/plugins.md walks through an example.
package stat

import (
	"fmt"
	"slices"
	"sync"

	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/exchange"
)

// Module is one statistic. Each pipeline has its own instance, which is used
// by one goroutine at a time. A Module has no clock and keeps no state about
// exchanges: what it learns goes into its tables. A panic costs this
// statistic that observation, is counted (statistic_panics), and nothing else.
type Module interface {
	// Tables returns the schemas of the module's tables. It is called once.
	Tables() []bucket.Schema
	// Observe is shown every observation, and adds to tables, which are
	// parallel to Tables(). Both arguments are borrowed for the call; tables
	// changes from one interval to the next.
	Observe(o *exchange.Observation, tables []*bucket.Table)
}

var (
	mu       sync.Mutex
	registry = map[string]func() Module{}
)

// Register makes a statistic available under a name, which is also how the
// configuration lists it. It panics if the name is taken, as that is a fault
// of whoever built the program. Call it from init.
func Register(name string, factory func() Module) {
	mu.Lock()
	defer mu.Unlock()
	if _, dup := registry[name]; dup || name == "" || factory == nil {
		panic(fmt.Sprintf("stat: Register(%q): name empty or taken, or factory nil", name))
	}
	registry[name] = factory
}

// Names returns the registered names, sorted.
func Names() []string {
	mu.Lock()
	defer mu.Unlock()
	names := make([]string, 0, len(registry))
	for n := range registry {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// Known reports whether a name is registered.
func Known(name string) bool {
	mu.Lock()
	defer mu.Unlock()
	return registry[name] != nil
}

// New returns a new instance of the named statistic.
func New(name string) (Module, error) {
	mu.Lock()
	factory := registry[name]
	mu.Unlock()
	if factory == nil {
		return nil, fmt.Errorf("no statistic %q; there are: %v", name, Names())
	}
	return factory(), nil
}

// Builtin lists the statistics that a configuration without `statistics` has.
var Builtin = []string{"totals", "section", "domain", "domain_bytes", "user_agent", "client_ip", "server", "routes"}
