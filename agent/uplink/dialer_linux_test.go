package uplink

import (
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// TestDialWithoutFreePort: where connections to elsewhere have every port of the kernel's choice, the aggregator is
// connected to all the same, and the two ends are told once.
func TestDialWithoutFreePort(t *testing.T) {
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("needs the program ip (iproute2)")
	}
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("needs the capability CAP_SYS_ADMIN to make a network namespace: %v", err)
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte("40000 40001"), 0); err != nil { // of this namespace
		t.Skipf("needs net.ipv4.ip_local_port_range: %v", err)
	}
	listen := func(address string) net.Listener {
		ln, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ln.Close() })
		return ln
	}
	elsewhere, aggregator := listen("127.0.0.1:7421"), listen("127.0.0.1:7420")
	type ends struct {
		remote netip.AddrPort
		port   int
	}
	var told []ends
	dial := Announcing(func(remote netip.AddrPort, localPort uint16) { told = append(told, ends{remote, int(localPort)}) })
	for free := 2; free >= 0; free-- {
		told = nil
		c, err := dial(t.Context(), aggregator.Addr().String())
		if err != nil {
			t.Fatalf("with %d ports free: %v", free, err)
		}
		want := []ends{{aggregator.Addr().(*net.TCPAddr).AddrPort(), c.LocalAddr().(*net.TCPAddr).Port}}
		if !slices.Equal(told, want) {
			t.Errorf("with %d ports free: told %v, want %v", free, told, want)
		}
		_ = c.(*net.TCPConn).SetLinger(0) // so that its port is free again
		c.Close()
		if free > 0 {
			c, err := net.Dial("tcp", elsewhere.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
		}
	}
}
