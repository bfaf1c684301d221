package app

import (
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
)

// localAddresses tells which addresses are this host's: those of its
// interfaces, renewed by refresh, and the configured networks. contains is
// safe for concurrent use with refresh and setNetworks, and does not allocate.
type localAddresses struct {
	networks atomic.Pointer[[]netip.Prefix]
	own      atomic.Pointer[map[netip.Addr]struct{}]
	tell     atomic.Pointer[[]netip.Prefix] // see announced
	// fleet are the addresses of other monitored hosts.
	fleet otherHosts
	// others are the network namespaces whose addresses are this host's, too. It is set before
	// the first refresh.
	others []addresses
}

// addresses is a [capture.Namespace].
type addresses interface {
	Addresses() ([]netip.Addr, error)
}

// newLocalAddresses takes networks in CIDR notation; a plain address is itself.
func newLocalAddresses(networks []string) (*localAddresses, error) {
	l := &localAddresses{}
	if err := l.setNetworks(networks); err != nil {
		return nil, err
	}
	l.own.Store(&map[netip.Addr]struct{}{})
	return l, nil
}

// setNetworks replaces the networks, or none on an error.
func (l *localAddresses) setNetworks(networks []string) error {
	prefixes := make([]netip.Prefix, len(networks))
	for i, text := range networks {
		prefix, err := parseNetwork(text)
		if err != nil {
			return err
		}
		prefixes[i] = prefix
	}
	l.networks.Store(&prefixes)
	return nil
}

func parseNetwork(text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(text); err == nil {
		return netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("network %q: want an address or CIDR such as 192.0.2.0/24", text)
	}
	return prefix.Masked(), nil
}

// refresh reads the addresses of the interfaces of this network namespace and the others. On an
// error the addresses known so far stay.
func (l *localAddresses) refresh() error {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return fmt.Errorf("list local addresses: %w", err)
	}
	own := make(map[netip.Addr]struct{}, len(addrs))
	var all []netip.Prefix
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			if addr, ok := netip.AddrFromSlice(n.IP); ok {
				own[addr.Unmap()] = struct{}{}
				ones, _ := n.Mask.Size()
				all = append(all, netip.PrefixFrom(addr.Unmap(), ones))
			}
		}
	}
	for _, o := range l.others {
		addrs, err := o.Addresses()
		if err != nil {
			return err
		}
		for _, a := range addrs {
			own[a.Unmap()] = struct{}{}
			all = append(all, netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()))
		}
	}
	l.own.Store(&own)
	tell := announced(all)
	l.tell.Store(&tell)
	return nil
}

// announced are the addresses at which others reach this host, with their networks.
func (l *localAddresses) announced() []netip.Prefix {
	if tell := l.tell.Load(); tell != nil {
		return *tell
	}
	return nil
}

// contains reports whether addr is local. Loopback always is, once refresh
// has succeeded: 127.0.0.2 is as much this host as 127.0.0.1.
func (l *localAddresses) contains(addr netip.Addr) bool {
	addr = addr.Unmap()
	own := *l.own.Load()
	if _, ok := own[addr]; ok || len(own) > 0 && addr.IsLoopback() {
		return true
	}
	for _, n := range *l.networks.Load() {
		if n.Contains(addr) {
			return true
		}
	}
	return false
}
