package capture

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/httpctl/httpctl/pkg/config"
	"golang.org/x/sys/unix"
)

// namedNamespace makes a network namespace as `ip netns` does, with lo up, and removes it with the test.
func namedNamespace(t *testing.T, name string) (full string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root (CAP_SYS_ADMIN) to make a network namespace")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("needs the program ip (iproute2)")
	}
	full = fmt.Sprintf("hct%d-%s", os.Getpid(), name)
	run(t, "ip", "netns", "add", full)
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", full).Run() })
	run(t, "ip", "-n", full, "link", "set", "lo", "up")
	return full
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
}

// in runs f on a thread in a namespace, which ends with it.
func in(t *testing.T, namespace string, f func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		fd, err := unix.Open(namedNamespaces+"/"+namespace, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = unix.Setns(fd, unix.CLONE_NEWNET)
			unix.Close(fd)
		}
		defer func() { done <- err }() // also when f ends the goroutine, as t.Fatal does
		if err == nil {
			f()
		}
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// TestNamespaces captures in two other namespaces and not in the own one, with one ring and
// with two, and again with the own one.
func TestNamespaces(t *testing.T) {
	a, b := namedNamespace(t, "a"), namedNamespace(t, "b")
	inNamespace(t)("link", "set", "lo", "up")
	for _, c := range []struct {
		rings int
		own   bool
	}{{1, false}, {2, false}, {2, true}} {
		cfg := DefaultConfig()
		cfg.Rings, cfg.RingSize, cfg.BlockSize, cfg.Namespaces = c.rings, 4*config.MiB, config.MiB, []string{a, namedNamespaces + "/" + b}
		want := map[string]int{"a": 1, "b": 1, "own": 0}
		if c.own {
			cfg.Interfaces, want["own"] = []string{"lo"}, 1
		}
		rings := openLive(t, cfg)
		if len(rings) != cfg.AllRings() || len(rings) != c.rings*(2+want["own"]) {
			t.Fatalf("%d rings, AllRings() = %d", len(rings), cfg.AllRings())
		}
		if ns := currentNamespace(t); ns == rings[len(rings)-1].namespace {
			t.Error("the last ring is in the test's own namespace")
		}
		const n = 100
		for name, namespace := range map[string]string{"a": a, "b": b} {
			in(t, namespace, func() { send(t, sink(t), "net"+name+"-", n) })
		}
		send(t, sink(t), "netown-", n)
		seen, numbers := map[string]int{}, map[uint32]string{}
		for _, l := range rings {
			until(t, l, 25, func(p *Packet) bool {
				i := bytes.Index(p.Data, []byte("net"))
				if i != 14+20+8 {
					return false
				}
				name, number, _ := strings.Cut(string(p.Data[i+3:]), "-")
				seen[name+number]++
				if before := numbers[p.Namespace]; before != "" && before != name {
					t.Fatalf("packets of %s and %s have the namespace %d", before, name, p.Namespace)
				}
				numbers[p.Namespace] = name
				return false
			})
		}
		for name, each := range want {
			for i := range n {
				if got := seen[fmt.Sprintf("%s%06d", name, i)]; got != each {
					t.Fatalf("%+v: datagram %d of %s was captured %d times, want %d", c, i, name, got, each)
				}
			}
		}
	}
}

func currentNamespace(t *testing.T) uint32 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &st); err != nil {
		t.Fatal(err)
	}
	return uint32(st.Ino)
}

// TestNamespaceAddresses: the addresses of another namespace, as they are now.
func TestNamespaceAddresses(t *testing.T) {
	name := namedNamespace(t, "addr")
	run(t, "ip", "-n", name, "link", "add", "v0", "type", "veth", "peer", "name", "v1")
	run(t, "ip", "-n", name, "link", "set", "v0", "up")
	run(t, "ip", "-n", name, "addr", "add", "192.0.2.7/24", "dev", "v0")
	cfg := DefaultConfig()
	cfg.Namespaces = []string{name}
	n := openLive(t, cfg)[0].Namespace()
	check := func(addr string, want bool) {
		t.Helper()
		all, err := n.Addresses()
		if err != nil || slices.Contains(all, netip.MustParseAddr(addr)) != want {
			t.Errorf("Addresses() = %v, %v; want %s in it: %v", all, err, addr, want)
		}
	}
	check("127.0.0.1", true)
	check("::1", true)
	// What another program in the namespace says does not count.
	in(t, name, func() {
		to, err1 := unix.Getsockname(n.routes)
		fd, err2 := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
		if err := errors.Join(err1, err2); err != nil {
			t.Error(err)
			return
		}
		defer unix.Close(fd)
		done := make([]byte, unix.SizeofNlMsghdr+4) // the answer to the next request is over
		binary.NativeEndian.PutUint32(done[0:], uint32(len(done)))
		binary.NativeEndian.PutUint16(done[4:], unix.NLMSG_DONE)
		binary.NativeEndian.PutUint32(done[8:], n.seq+1)
		if err := unix.Sendto(fd, done, 0, to); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("a message to the namespace's socket: %v, want that it is refused", err)
		}
	})
	check("127.0.0.1", true)
	check("192.0.2.7", true)
	check("2001:db8::7", false)
	run(t, "ip", "-n", name, "addr", "add", "2001:db8::7/64", "dev", "v0", "nodad")
	check("2001:db8::7", true)
	run(t, "ip", "-n", name, "addr", "add", "192.0.2.9", "peer", "203.0.113.9", "dev", "v0")
	check("192.0.2.9", true)
	check("203.0.113.9", false)
	run(t, "ip", "-n", name, "addr", "del", "192.0.2.7/24", "dev", "v0")
	check("192.0.2.7", false)
	batch := ""
	for i := range 500 { // more than one answer of the kernel
		batch += fmt.Sprintf("addr add 198.51.%d.%d/32 dev v0\n", i/250, i%250+1)
	}
	many := exec.Command("ip", "-n", name, "-batch", "-")
	many.Stdin = strings.NewReader(batch)
	if out, err := many.CombinedOutput(); err != nil {
		t.Fatalf("ip -batch: %v: %s", err, out)
	}
	check("198.51.1.250", true)
	check("198.51.0.1", true)
}

// TestNamespaceGone: a namespace whose name vanishes, or becomes another's, is gone; once its rings are
// closed, so are its devices.
func TestNamespaceGone(t *testing.T) {
	own := inNamespace(t)
	open := func(name string) *Live {
		t.Helper()
		cfg := DefaultConfig()
		cfg.RingSize, cfg.BlockSize, cfg.Namespaces = 2*config.MiB, config.MiB, []string{name}
		l := openLive(t, cfg)[0]
		if l.Namespace().Gone() {
			t.Fatalf("%s is gone from the start", name)
		}
		return l
	}
	end := func(l *Live) {
		t.Helper()
		l.Close()
		for err := error(nil); err != io.EOF; _, err = l.Next(make([]Packet, 1)) {
		}
		if addresses, err := l.Namespace().Addresses(); len(addresses) != 0 || err != nil {
			t.Errorf("Addresses() after the end = %v, %v, want none", addresses, err)
		}
	}
	exists := func(device string) bool { return exec.Command("ip", "link", "show", device).Run() == nil }

	name := namedNamespace(t, "gone")
	own("link", "add", "hctgone", "type", "veth", "peer", "name", "eth0", "netns", name)
	l := open(name)
	run(t, "ip", "netns", "del", name)
	if !l.Namespace().Gone() {
		t.Error("a deleted namespace is not gone")
	}
	run(t, "ip", "netns", "add", name)
	if !l.Namespace().Gone() {
		t.Error("a namespace whose name is another's now is not gone")
	}
	if !exists("hctgone") {
		t.Fatal("the rings do not keep the namespace alive: this test shows nothing")
	}
	end(l)
	for deadline := time.Now().Add(3 * time.Minute); exists("hctgone"); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("with the rings closed, the namespace still lives")
		}
	}

	// A process's namespace, by its path: gone with the process.
	cmd := exec.Command("ip", "netns", "exec", name, "sleep", "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", cmd.Process.Pid)); string(text) == "sleep\n" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("sleep does not start")
		}
	}
	l = open(fmt.Sprintf("/proc/%d/ns/net", cmd.Process.Pid))
	cmd.Process.Kill()
	cmd.Wait()
	if !l.Namespace().Gone() {
		t.Error("the namespace of a process that has ended is not gone")
	}
	end(l)
}

func TestNamespaceErrors(t *testing.T) {
	name := namedNamespace(t, "errors")
	file := t.TempDir() + "/file"
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		namespaces []string
		path, text string
	}{
		{[]string{"no-such"}, "no-such", name},
		{[]string{"/proc/4194999/ns/net"}, "/proc/4194999/ns/net", "no such network namespace"},
		{[]string{file}, file, "not a network namespace"},
		{[]string{"/proc/self/ns/mnt"}, "/proc/self/ns/mnt", "not a network namespace"},
		{[]string{"/proc/thread-self/ns/net"}, "/proc/thread-self/ns/net", "the agent's own"},
		{[]string{name, namedNamespaces + "/" + name}, namedNamespaces + "/" + name, "the same network namespace as " + name},
	} {
		cfg := DefaultConfig()
		cfg.RingSize, cfg.BlockSize, cfg.Namespaces = 2*config.MiB, config.MiB, c.namespaces
		before := descriptors(t)
		rings, err := OpenLive(cfg)
		var e *Error
		if !errors.As(err, &e) || e.Path != c.path || !strings.Contains(err.Error(), c.text) || len(rings) > 0 {
			t.Errorf("OpenLive in %q = %d rings, %v, want an *Error of %s with %q", c.namespaces, len(rings), err, c.path, c.text)
		}
		if after := descriptors(t); after != before {
			t.Errorf("OpenLive in %q: %d descriptors, %d before", c.namespaces, after, before)
		}
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// TestNamespaceNoPrivilege: without CAP_SYS_ADMIN interfaces are captured on all the same, and the
// error about a namespace names what it takes.
func TestNamespaceNoPrivilege(t *testing.T) {
	const variable = "HTTPCTL_TEST_NAMESPACE"
	if name := os.Getenv(variable); name != "" { // the child, which may not enter namespaces
		cfg := DefaultConfig()
		cfg.RingSize, cfg.BlockSize, cfg.Interfaces = 2*config.MiB, config.MiB, []string{"lo"}
		openLive(t, cfg)
		cfg.Namespaces = []string{name}
		_, err := OpenLive(cfg)
		var e *Error
		if !errors.As(err, &e) || !errors.Is(err, unix.EPERM) || e.Path != name || !strings.Contains(e.Hint, "CAP_SYS_ADMIN") {
			t.Errorf("OpenLive = %v, want EPERM for %s and a hint that names CAP_SYS_ADMIN", err, name)
		}
		return
	}
	name := namedNamespace(t, "forbidden")
	cmd := exec.Command(os.Args[0], "-test.run", "^TestNamespaceNoPrivilege$", "-test.v")
	cmd.Env = append(os.Environ(), variable+"="+name)
	var out []byte
	var dropped, err error
	done := make(chan bool)
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread has lost something
		if dropped = unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_SYS_ADMIN, 0, 0, 0); dropped == nil {
			out, err = cmd.CombinedOutput()
		}
	}()
	<-done
	if dropped != nil {
		t.Skipf("needs CAP_SETPCAP: %v", dropped)
	}
	if err != nil || !bytes.Contains(out, []byte("--- PASS")) {
		t.Errorf("without CAP_SYS_ADMIN: %v\n%s", err, out)
	}
}
