package bolt

import (
	"sync"

	"github.com/httpctl/httpctl/pkg/lifecycle"
)

// faults counts panics in what is made of buckets that hosts have sent, outside of transactions. Each costs the sum that it was met
// in, and no question, bucket or program. The zero value has met none; it is safe for concurrent use.
type faults struct {
	mu     sync.Mutex
	met    uint64
	newest string
}

// guard runs f, and reports whether it came to its end.
func (x *faults) guard(f func()) bool {
	err := lifecycle.Guard(func() error { f(); return nil })
	if err == nil {
		return true
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.met++
	x.newest = err.Error()
	return false
}

// told returns how many there were, and the newest.
func (x *faults) told() (met uint64, newest string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.met, x.newest
}

// guard runs f, which changes the sum, and gives the sum up if that fails. The caller holds k.mu.
func (k *kept) guard(x *faults, f func()) {
	if !x.guard(f) {
		k.gone, k.collector, k.parts = true, nil, nil
	}
}
