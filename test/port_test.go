package test

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"testing"
)

// ports are those that freePort gives: one after another, of many below those that the kernel gives to whoever connects or
// does not say which. What was free would else be another's before it is used, or while it is not, as over a restart.
var ports = sync.OnceValue(func() *portRange {
	const span = 10_000
	r := &portRange{first: 20_000}
	var low, high int
	text, _ := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range") // 32768 to 60999, unless somebody has changed it
	if n, _ := fmt.Sscan(string(text), &low, &high); n == 2 && low < r.first+span {
		r.first = max(low-span, 1024)
		if high < 65_535-span {
			r.first = high + 1
		}
	}
	r.count = span
	r.next = rand.IntN(r.count) // other programs of tests do the same
	return r
})

type portRange struct {
	sync.Mutex
	first, count, next int
}

// freePort is a loopback address that nothing listens on, and that no other test of this program is given.
func freePort(t *testing.T) string {
	t.Helper()
	r := ports()
	r.Lock()
	defer r.Unlock()
	for range r.count {
		address := fmt.Sprintf("127.0.0.1:%d", r.first+r.next)
		r.next = (r.next + 1) % r.count
		if l, err := net.Listen("tcp", address); err == nil {
			l.Close()
			return address
		}
	}
	t.Fatal("no port is free")
	return ""
}
