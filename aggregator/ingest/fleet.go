package ingest

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/httpctl/httpctl/pkg/bucket"
	httpctlv1 "github.com/httpctl/httpctl/proto/httpctl/v1"
)

const (
	// fleetKey is where the addresses of the hosts are kept.
	fleetKey = "fleet/addresses"
	// maxAddresses bounds those of a host; agents tell 64 at most.
	maxAddresses = 64
	// maxFleet bounds the message about the fleet: agents take 4 MiB, as gRPC does. 10,000 hosts of 16 IPv4
	// addresses take 1.2 MiB.
	maxFleet = 3 << 20
	// fleetPause is the least time between two messages about the fleet, and fleetPauseEach what each connected
	// agent adds to it: every agent is told of every host, which with 10,000 of them takes 300 KB each.
	fleetPause     = 200 * time.Millisecond
	fleetPauseEach = 10 * time.Millisecond
)

// State keeps small values: a store.Store.
type State interface {
	Get(ctx context.Context, key string) (value []byte, version uint64, err error)
	CompareAndSwap(ctx context.Context, key string, version uint64, value []byte) (uint64, error)
}

// parseAddresses reads what hello says. What no other host can reach is left out, and so is what is too much.
func parseAddresses(list [][]byte) (out []netip.Prefix) {
	for _, b := range list[:min(len(list), maxAddresses)] {
		if len(b) < 1 {
			continue
		}
		addr, ok := netip.AddrFromSlice(b[:len(b)-1])
		if p := netip.PrefixFrom(addr, int(b[len(b)-1])); ok && p.IsValid() && addr.IsGlobalUnicast() {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return slices.Compact(out)
}

// fleet lists the addresses that tell a host, sorted, and counts those that do not. Where they are too many for a
// message, each host has fewer. What several hosts have
// tells none of them; if it has a network around it, such as 172.17.0.1/16 on every host with Docker, then that network is in each
// host another one, and none of those hosts' addresses there is told.
func (l listing) fleet() (out *httpctlv1.Fleet, shared int) {
	sorted := slices.SortedFunc(slices.Values(l), func(a, b listed) int { return a.host.Compare(b.host) })
	owners := map[netip.Addr]int{}
	for _, h := range sorted {
		for i, p := range h.addresses {
			if i == 0 || p.Addr() != h.addresses[i-1].Addr() {
				owners[p.Addr()]++
			}
		}
	}
	for most := maxAddresses; ; most /= 2 {
		if out, shared = told(sorted, owners, most); proto.Size(out) <= maxFleet {
			return out, shared
		}
	}
}

// told is fleet with at most so many addresses of each host, of hosts that are sorted. owners says how many hosts have
// an address.
func told(hosts listing, owners map[netip.Addr]int, most int) (out *httpctlv1.Fleet, shared int) {
	out = &httpctlv1.Fleet{}
	for _, l := range hosts {
		var inside []netip.Prefix // networks that are the host's own
		for _, p := range l.addresses {
			if owners[p.Addr()] > 1 {
				inside = append(inside, p.Masked())
			}
		}
		h := &httpctlv1.FleetHost{HostId: slices.Clone(l.host[:])}
		for i, p := range l.addresses {
			if i > 0 && p.Addr() == l.addresses[i-1].Addr() {
				continue
			}
			if slices.ContainsFunc(inside, func(n netip.Prefix) bool { return n.Contains(p.Addr()) }) {
				shared++
				continue
			}
			if len(h.Addresses) == most {
				shared++
				continue
			}
			h.Addresses = append(h.Addresses, p.Addr().AsSlice())
		}
		if len(h.Addresses) > 0 {
			out.Hosts = append(out.Hosts, h)
		}
	}
	return out, shared
}

// loadFleet reads the addresses that were known before the aggregator ended, so that the agents' knowledge does not
// shrink until all of them are back.
func (s *Service) loadFleet(ctx context.Context) error {
	if s.deps.State == nil {
		return nil
	}
	data, version, err := s.deps.State.Get(ctx, fleetKey)
	if err == nil {
		s.directory, err = decodeDirectory(data)
	}
	if err != nil {
		return fmt.Errorf("read the addresses of the fleet's hosts: %w", err)
	}
	s.kept, s.keptVersion = data, version
	s.fleet, _ = s.directory.list().fleet()
	return nil
}

// Retain forgets the addresses of hosts that are away and of which nothing is stored any more.
func (s *Service) Retain(known func(bucket.ID) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := len(s.directory.hosts)
	if s.directory.retain(known); len(s.directory.hosts) != before {
		s.wakeFleet()
	}
}

func (s *Service) wakeFleet() {
	select {
	case s.moved <- struct{}{}:
	default: // it is awake already
	}
}

// tellFleet sends the agents which addresses are those of monitored hosts, when they change.
func (s *Service) tellFleet(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.moved:
		}
		s.mu.Lock()
		list, told := s.directory.list(), s.fleet
		s.mu.Unlock()
		// Not under the lock, which every bucket needs: for 10,000 hosts this takes 20 ms with an address each, 0.8 s with 64.
		pause := fleetPause
		fleet, shared := list.fleet()
		data, err := list.encode()
		if !proto.Equal(fleet, told) { // nobody else changes what was told
			s.mu.Lock()
			s.fleet = fleet
			for _, a := range s.agents {
				if a.stream != nil {
					a.stream.setFleet(fleet)
					pause += fleetPauseEach
				}
			}
			s.mu.Unlock()
		}
		s.metrics.sharedAddresses.Set(float64(shared))
		if err == nil {
			err = s.keepFleet(ctx, data)
		}
		if err != nil && ctx.Err() == nil {
			s.log.Warn("the addresses of the fleet's hosts are not kept for the next start", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// keepFleet stores the directory if it is another than the one that is stored.
func (s *Service) keepFleet(ctx context.Context, data []byte) error {
	if s.deps.State == nil || string(data) == string(s.kept) {
		return nil
	}
	version, err := s.deps.State.CompareAndSwap(ctx, fleetKey, s.keptVersion, data)
	if err == nil {
		s.kept, s.keptVersion = data, version
	}
	return err
}
