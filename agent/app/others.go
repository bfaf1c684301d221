package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/httpctl/httpctl/pkg/bucket"
)

const (
	// fleetName is the file of the state directory that keeps what the aggregator said of the fleet, for a
	// start while it is away.
	fleetName = "fleet"
	// maxFleetFile bounds it: 10,000 hosts of four IPv6 addresses take 2 MiB.
	maxFleetFile = 32 << 20
	// maxAnnounced is how many addresses a host tells of itself.
	maxAnnounced = 64
	// announceEvery is the least time between two connections that are made anew as the addresses have changed.
	announceEvery = time.Minute
)

// otherHosts says which monitored host has an address. hostAt is safe for concurrent use with set, and does not
// allocate. The zero value knows nobody.
type otherHosts struct {
	hosts atomic.Pointer[map[netip.Addr]string]
}

// hostAt returns the id, as text, of the monitored host with that address; "" if there is none.
func (o *otherHosts) hostAt(addr netip.Addr) string {
	if hosts := o.hosts.Load(); hosts != nil {
		return (*hosts)[addr]
	}
	return ""
}

// set replaces what is known. This host is left out.
func (o *otherHosts) set(fleet map[bucket.ID][]netip.Addr, self bucket.ID) {
	hosts := map[netip.Addr]string{}
	for id, addresses := range fleet {
		text := id.String()
		for _, a := range addresses {
			if id != self {
				hosts[a.Unmap()] = text
			}
		}
	}
	o.hosts.Store(&hosts)
}

// len is how many addresses are known.
func (o *otherHosts) len() int {
	if hosts := o.hosts.Load(); hosts != nil {
		return len(*hosts)
	}
	return 0
}

// writeFleet keeps what the aggregator said: a line for each host, its id and addresses, sorted.
func writeFleet(dir string, fleet map[bucket.ID][]netip.Addr) error {
	lines := make([]string, 0, len(fleet))
	for id, addresses := range fleet {
		line := id.String()
		for _, a := range addresses {
			line += " " + a.String()
		}
		lines = append(lines, line+"\n")
	}
	slices.Sort(lines)
	path := filepath.Join(dir, fleetName)
	if err := os.WriteFile(path+".new", []byte(strings.Join(lines, "")), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// readFleet reads what writeFleet wrote; a file that is not there is an empty fleet.
func readFleet(dir string) (map[bucket.ID][]netip.Addr, error) {
	path := filepath.Join(dir, fleetName)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if info.Size() > maxFleetFile {
		return nil, fmt.Errorf("%s has %d bytes, want at most %d", path, info.Size(), maxFleetFile)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	fleet := map[bucket.ID][]netip.Addr{}
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		id, err := bucket.ParseID(fields[0])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		for _, text := range fields[1:] {
			addr, err := netip.ParseAddr(text)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", path, err)
			}
			fleet[id] = append(fleet[id], addr)
		}
	}
	return fleet, nil
}

// announced picks, of a host's addresses, those at which others reach it, sorted.
func announced(all []netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range all {
		a := p.Addr()
		if a.IsGlobalUnicast() && !a.IsLoopback() && !a.IsLinkLocalUnicast() {
			out = append(out, netip.PrefixFrom(a.WithZone(""), p.Bits()))
		}
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	out = slices.Compact(out)
	return out[:min(len(out), maxAnnounced)]
}

// loadFleet knows the fleet as it was when the agent ended.
func (a *Agent) loadFleet() {
	fleet, err := readFleet(a.cfg.State)
	if err != nil {
		a.log.Warn("what the aggregator said of other hosts is not known until it says so again", "err", err)
	}
	a.local.fleet.set(fleet, a.spool.Host())
}

// onFleet takes over which addresses are those of monitored hosts. It is called by one goroutine at a time.
func (a *Agent) onFleet(fleet map[bucket.ID][]netip.Addr) {
	a.local.fleet.set(fleet, a.spool.Host())
	select {
	case a.fleets <- fleet:
	default: // the older one was not kept yet, and need not be
		select {
		case <-a.fleets:
		default:
		}
		a.fleets <- fleet
	}
}

// keepFleets writes what onFleet hands over, as a slow disk must not hold up the stream.
func (a *Agent) keepFleets(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case fleet := <-a.fleets:
			if err := writeFleet(a.cfg.State, fleet); err != nil {
				a.log.Warn("what the aggregator says of other hosts is not kept for the next start", "err", err)
			}
		}
	}
}

// announce has the agent connect anew when its addresses are others than those that it told last, at most
// once a minute.
func (a *Agent) announce() {
	now := a.local.announced()
	a.mu.Lock()
	due := !slices.Equal(now, a.addresses) && time.Since(a.toldAt) >= announceEvery
	a.mu.Unlock()
	if due {
		a.log.Info("the host's addresses have changed, and are told to the aggregator", "addresses", len(now))
		a.uplink.Renew()
	}
}

// registerOthers shows how many addresses of other hosts are known.
func registerOthers(r prometheus.Registerer, others *otherHosts) {
	r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "httpctl_fleet_addresses", Help: "Addresses of other monitored hosts that the agent knows: what is asked of them is counted as theirs.",
	}, func() float64 { return float64(others.len()) }))
}
