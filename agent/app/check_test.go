package app

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"testing"

	"github.com/httpctl/httpctl/agent/capture"
	"github.com/httpctl/httpctl/agent/inspect"
)

func TestChooseLinks(t *testing.T) {
	names := func(links []inspect.Link) (text string) {
		for _, l := range links {
			text += l.Name + " "
		}
		return text
	}
	host := []capture.Link{{Name: "eth0", There: true, Up: true, Hardware: true}, {Name: "eth1", There: true, Hardware: true}, {Name: "lo", There: true, Up: true, Loopback: true}, {Name: "veth1", There: true, Up: true}}
	for _, c := range []struct {
		all           []capture.Link
		names         []string
		named, others string
	}{
		{host, []string{"eth1", "lo"}, "eth1 lo ", "eth0 veth1 "},
		{host, []string{"any"}, "eth0 ", ""},
		{host[2:], []string{"any"}, "veth1 ", ""},
		{host, []string{"eth7"}, "eth7 ", "eth0 eth1 lo veth1 "},
		{host, nil, "", "eth0 eth1 lo veth1 "},
	} {
		named, others := chooseLinks(c.all, c.names)
		if names(named) != c.named || names(others) != c.others {
			t.Errorf("chooseLinks(%v) = %s, %s, want %s, %s", c.names, names(named), names(others), c.named, c.others)
		}
	}
}

func TestFailureOf(t *testing.T) {
	wrap := func(err error) error {
		return &capture.Error{Op: "capture on", Path: "eth0", Err: fmt.Errorf("what was tried: %w", err), Hint: "a hint"}
	}
	on := func(names ...string) *inspect.Findings {
		f := &inspect.Findings{Interfaces: names}
		for _, name := range names {
			f.Links = append(f.Links, inspect.Link{Link: capture.Link{Name: name, There: name == "eth0"}})
		}
		return f
	}
	for _, c := range []struct {
		err    error
		f      *inspect.Findings
		want   inspect.Failure
		reason string
	}{
		{wrap(errors.New("no interface is given")), on(), inspect.NoInterface, "what was tried: no interface is given"},
		{wrap(errors.New("no such interface")), on("eth0", "eth7"), inspect.NoSuchInterface, "there is no interface eth7"},
		{wrap(syscall.EPERM), on("eth0"), inspect.NoPrivilege, "what was tried: operation not permitted"},
		{wrap(fs.ErrPermission), on("eth0"), inspect.NoPrivilege, "what was tried: permission denied"},
		{wrap(syscall.ENOMEM), on("eth0"), inspect.NoMemory, "what was tried: cannot allocate memory"},
		{wrap(errors.New("no such network namespace")), &inspect.Findings{Namespaces: []string{"blue", "eth0"}}, inspect.BadNamespace, "eth0: what was tried: no such network namespace"},
		{wrap(syscall.EPERM), &inspect.Findings{Namespaces: []string{"eth0"}}, inspect.NoPrivilege, "what was tried: operation not permitted"},
		{errors.New("something else"), on("eth0"), inspect.OtherFailure, "something else"},
	} {
		if got, reason := failureOf(c.err, c.f); got != c.want || reason != c.reason {
			t.Errorf("failureOf(%v) = %v, %q, want %v, %q", c.err, got, reason, c.want, c.reason)
		}
	}
}
