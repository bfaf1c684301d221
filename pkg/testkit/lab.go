package testkit

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// Lab is a set of hosts on one machine: network namespaces, each with an eth0
// on a common switch, which is a namespace too. Nothing outside the lab can be
// reached from it, and the machine's own network is not touched.
type Lab struct {
	prefix string
	hosts  []string
	made   []string // namespaces to delete
}

// NewLab makes a namespace for each host. It needs root and `ip`; the error
// names what is missing. Close removes everything.
func NewLab(hosts ...string) (*Lab, error) {
	return newLab(hosts, (*Lab).joinBySwitch)
}

// NewPair is NewLab for two hosts whose eth0 are the ends of one veth pair.
func NewPair(a, b string) (*Lab, error) {
	return newLab([]string{a, b}, func(l *Lab) ([][]string, error) {
		return [][]string{{"-n", l.prefix + a, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", l.prefix + b}}, nil
	})
}

// labs counts those of this process, so that those of tests that run at a time do not meet.
var labs atomic.Int64

// newLab makes the hosts; join returns what joins them.
func newLab(hosts []string, join func(*Lab) (steps [][]string, err error)) (*Lab, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("network namespaces need root (CAP_SYS_ADMIN and CAP_NET_ADMIN)")
	}
	if _, err := lookPath("ip"); err != nil {
		return nil, errors.New("`ip` is not installed (Debian package iproute2)")
	}
	l := &Lab{prefix: fmt.Sprintf("hc%d-%d-", os.Getpid(), labs.Add(1)), hosts: hosts}
	if err := l.build(join); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

func (l *Lab) build(join func(*Lab) ([][]string, error)) error {
	for _, host := range l.hosts {
		if err := l.namespace(l.prefix + host); err != nil {
			return err
		}
	}
	steps, err := join(l)
	if err != nil {
		return err
	}
	for _, host := range l.hosts {
		ns := l.prefix + host
		steps = append(steps,
			[]string{"-n", ns, "addr", "add", l.Address(host).String() + "/24", "dev", "eth0"},
			[]string{"-n", ns, "link", "set", "lo", "up"},
			[]string{"-n", ns, "link", "set", "eth0", "up"},
		)
	}
	for _, args := range steps {
		if err := ip(args...); err != nil {
			return err
		}
	}
	return nil
}

func (l *Lab) joinBySwitch() ([][]string, error) {
	sw := l.prefix + "switch"
	if err := l.namespace(sw); err != nil {
		return nil, err
	}
	steps := [][]string{
		{"-n", sw, "link", "add", "br0", "type", "bridge"},
		{"-n", sw, "link", "set", "br0", "up"},
	}
	for i, host := range l.hosts {
		port := fmt.Sprintf("port%d", i)
		steps = append(steps,
			[]string{"-n", sw, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", l.prefix + host},
			[]string{"-n", sw, "link", "set", port, "master", "br0", "up"},
		)
	}
	return steps, nil
}

func (l *Lab) namespace(name string) (err error) {
	// The first ones of a machine may stand in each other's way, as /run/netns is mounted then.
	for range 5 {
		if err = ip("netns", "add", name); err == nil {
			l.made = append(l.made, name)
			return nil
		}
		_ = ip("netns", "del", name) // what is half made
		time.Sleep(200 * time.Millisecond)
	}
	return err
}

// Address returns the address of a host on the switch, of 192.0.2.0/24.
func (l *Lab) Address(host string) netip.Addr {
	for i, h := range l.hosts {
		if h == host {
			return netip.AddrFrom4([4]byte{192, 0, 2, byte(10 + i)})
		}
	}
	panic("testkit: no host " + host + " in the lab")
}

// Add makes another host, with lo but without a link to the switch.
func (l *Lab) Add(host string) error {
	if err := l.namespace(l.Namespace(host)); err != nil {
		return err
	}
	return l.IP(host, "link", "set", "lo", "up")
}

// IP runs `ip` on a host.
func (l *Lab) IP(host string, args ...string) error {
	return ip(append([]string{"-n", l.Namespace(host)}, args...)...)
}

// Namespace returns the name in /run/netns of a host, or of the switch.
func (l *Lab) Namespace(host string) string { return l.prefix + host }

// Delete removes a host's namespace before Close does.
func (l *Lab) Delete(host string) error {
	name := l.Namespace(host)
	l.made = slices.DeleteFunc(l.made, func(made string) bool { return made == name })
	return ip("netns", "del", name)
}

// Command prepares a command that runs on a host. It is killed when ctx ends.
func (l *Lab) Command(ctx context.Context, host, name string, args ...string) *exec.Cmd {
	if path, err := lookPath(name); err == nil {
		name = path
	}
	return exec.CommandContext(ctx, mustLookPath("ip"), append([]string{"netns", "exec", l.prefix + host, name}, args...)...)
}

// Close removes the namespaces, and with them their links. Stop what runs in
// them first: a namespace lives on, unnamed, while a process is in it.
func (l *Lab) Close() error {
	var errs []error
	for _, name := range l.made {
		errs = append(errs, ip("netns", "del", name))
	}
	l.made = nil
	return errors.Join(errs...)
}

func ip(args ...string) error {
	out, err := exec.Command(mustLookPath("ip"), args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// lookPath finds a program, also where Debian keeps those of root.
func lookPath(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if path := filepath.Join(dir, name); isProgram(path) {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is not installed", name)
}

func mustLookPath(name string) string {
	path, err := lookPath(name)
	if err != nil {
		return name
	}
	return path
}

func isProgram(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// Installed reports whether a program is on the path, or where Debian keeps
// those of root.
func Installed(name string) bool {
	_, err := lookPath(name)
	return err == nil
}
