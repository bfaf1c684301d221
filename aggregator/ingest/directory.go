package ingest

import (
	"encoding/json"
	"maps"
	"net/netip"

	"github.com/httpctl/httpctl/pkg/bucket"
)

// directory knows at which addresses the hosts of the fleet say that they are reached. It is pure, and not safe
// for concurrent use. A host that comes or goes costs as much as it has addresses, not as many hosts as there
// are: after a start of the aggregator all of them are away, and come back at once.
type directory struct {
	hosts map[bucket.ID]*claim
	// The claims of hosts that are away, by address: one of them in away, and those beside it in beside. Nearly every
	// address is of one host, and needs no set. 10,000 hosts of 64 addresses take 40 MiB here, of one 0.6 MiB.
	away   map[netip.Addr]*claim
	beside map[netip.Addr]map[*claim]struct{}
}

// claim is what a host says.
type claim struct {
	addresses []netip.Prefix // sorted; each with its network; replaced, never written to: listings have it
	connected bool
}

// listing is what a directory said at a moment, in no order. It does not change when the directory does.
type listing []listed

type listed struct {
	host      bucket.ID
	addresses []netip.Prefix
}

func newDirectory() *directory {
	return &directory{hosts: map[bucket.ID]*claim{}, away: map[netip.Addr]*claim{}, beside: map[netip.Addr]map[*claim]struct{}{}}
}

// connect notes that a host is there and which addresses it has, which stay as they are from now on. They are no
// longer those of hosts that are away: addresses are given to other hosts.
func (d *directory) connect(host bucket.ID, addresses []netip.Prefix) {
	if c := d.hosts[host]; c != nil && !c.connected {
		d.drop(c)
	}
	d.hosts[host] = &claim{addresses, true}
	taken := make(map[netip.Addr]struct{}, len(addresses))
	losers := map[*claim]struct{}{}
	for _, p := range addresses {
		addr := p.Addr()
		taken[addr] = struct{}{}
		if c := d.away[addr]; c != nil {
			losers[c] = struct{}{}
		}
		maps.Copy(losers, d.beside[addr])
		delete(d.away, addr)
		delete(d.beside, addr)
	}
	for c := range losers {
		left := make([]netip.Prefix, 0, len(c.addresses)-1)
		for _, p := range c.addresses {
			if _, ok := taken[p.Addr()]; !ok {
				left = append(left, p)
			}
		}
		c.addresses = left
	}
}

// disconnect notes that a host is away. Its addresses stay its own: whether its buckets are there decides who
// counts what is asked of them.
func (d *directory) disconnect(host bucket.ID) {
	if c := d.hosts[host]; c != nil && c.connected {
		c.connected = false
		d.add(c)
	}
}

// retain forgets hosts that are away and not known.
func (d *directory) retain(known func(bucket.ID) bool) {
	for host, c := range d.hosts {
		if !c.connected && !known(host) {
			d.drop(c)
			delete(d.hosts, host)
		}
	}
}

// add notes under its addresses the claim of a host that is away.
func (d *directory) add(c *claim) {
	for _, p := range c.addresses {
		addr := p.Addr()
		switch first := d.away[addr]; {
		case first == nil:
			d.away[addr] = c
		case first == c: // it has the address in two networks
		case d.beside[addr] == nil:
			d.beside[addr] = map[*claim]struct{}{c: {}}
		default:
			d.beside[addr][c] = struct{}{}
		}
	}
}

// drop undoes add.
func (d *directory) drop(c *claim) {
	for _, p := range c.addresses {
		addr := p.Addr()
		if d.away[addr] == c {
			delete(d.away, addr)
		} else if others := d.beside[addr]; others != nil {
			if delete(others, c); len(others) == 0 {
				delete(d.beside, addr)
			}
		}
	}
}

// list says what is known now.
func (d *directory) list() listing {
	out := make(listing, 0, len(d.hosts))
	for host, c := range d.hosts {
		out = append(out, listed{host, c.addresses})
	}
	return out
}

// encode writes what is to be kept.
func (l listing) encode() ([]byte, error) {
	kept := make(map[string][]netip.Prefix, len(l))
	for _, h := range l {
		kept[h.host.String()] = h.addresses
	}
	return json.Marshal(kept)
}

// decodeDirectory reads what encode wrote. Nobody is connected.
func decodeDirectory(data []byte) (*directory, error) {
	d := newDirectory()
	if data == nil {
		return d, nil
	}
	var kept map[string][]netip.Prefix
	if err := json.Unmarshal(data, &kept); err != nil {
		return nil, err
	}
	for text, addresses := range kept {
		host, err := bucket.ParseID(text)
		if err != nil {
			return nil, err
		}
		if d.hosts[host] != nil {
			continue // written in two ways
		}
		c := &claim{addresses: addresses}
		d.hosts[host] = c
		d.add(c)
	}
	return d, nil
}
