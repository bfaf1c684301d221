package ingest

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/httpctl/httpctl/aggregator/store/storetest"
	"github.com/httpctl/httpctl/pkg/bucket"
)

// plain is a directory without an index, which looks at all hosts whenever one connects.
type plain map[bucket.ID]*claim

func (d plain) connect(host bucket.ID, addresses []netip.Prefix) {
	d[host] = &claim{addresses, true}
	for _, c := range d {
		if !c.connected {
			c.addresses = slices.DeleteFunc(c.addresses, func(p netip.Prefix) bool {
				return slices.ContainsFunc(addresses, func(q netip.Prefix) bool { return p.Addr() == q.Addr() })
			})
		}
	}
}

func (d plain) disconnect(host bucket.ID) {
	if c := d[host]; c != nil {
		c.connected = false
	}
}

func (d plain) retain(known func(bucket.ID) bool) {
	maps.DeleteFunc(d, func(id bucket.ID, c *claim) bool { return !c.connected && !known(id) })
}

func (d plain) list() (out listing) {
	for id, c := range d {
		out = append(out, listed{id, c.addresses})
	}
	return out
}

// kept is what is stored of a listing and what agents are told of it.
func kept(t *testing.T, l listing) string {
	t.Helper()
	data, err := l.encode()
	if err != nil {
		t.Fatal(err)
	}
	fleet, shared := l.fleet()
	return fmt.Sprintf("%s\n%s (%d)", data, showFleet(fleet), shared)
}

// indexed lists who is found by which address: as the index has it, and as it follows from the claims.
func indexed(d *directory) (got, want map[netip.Addr]map[*claim]struct{}) {
	got, want = map[netip.Addr]map[*claim]struct{}{}, map[netip.Addr]map[*claim]struct{}{}
	note := func(m map[netip.Addr]map[*claim]struct{}, addr netip.Addr, c *claim) {
		if m[addr] == nil {
			m[addr] = map[*claim]struct{}{}
		}
		m[addr][c] = struct{}{}
	}
	for addr, c := range d.away {
		note(got, addr, c)
	}
	for addr, set := range d.beside {
		got[addr] = maps.Clone(got[addr])
		if len(set) == 0 {
			note(got, addr, nil) // is wanted nowhere
		}
		for c := range set {
			note(got, addr, c)
		}
	}
	for _, c := range d.hosts {
		if !c.connected {
			for _, p := range c.addresses {
				note(want, p.Addr(), c)
			}
		}
	}
	return got, want
}

// TestDirectoryIsAsWithoutIndex: whatever comes, goes, is forgotten and read again, the directory says what the plain
// one does, its index has the hosts that are away and nothing else, and what was listed before stays as it was.
func TestDirectoryIsAsWithoutIndex(t *testing.T) {
	for seed := range uint64(60) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		hosts, span := 2+rnd.IntN(12), 1+rnd.IntN(40) // from all in common to hardly any
		addresses := func() [][]byte {
			var out [][]byte
			for range rnd.IntN(6) {
				if n := rnd.IntN(span); rnd.IntN(8) == 0 {
					out = append(out, append(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 15: byte(n)}).AsSlice(), 64))
				} else {
					out = append(out, []byte{10, byte(n % 2), 0, byte(n), []byte{8, 16, 24, 32}[rnd.IntN(4)]})
				}
			}
			return out
		}
		d, p := newDirectory(), plain{}
		var before listing
		var was, op string
		for step := range 300 {
			host := storetest.ID(rnd.IntN(hosts))
			switch n := rnd.IntN(20); {
			case n < 9:
				list := addresses()
				op = fmt.Sprintf("%d connects with %v", host[15], list)
				d.connect(host, parseAddresses(list))
				p.connect(host, parseAddresses(list))
			case n < 18:
				op = fmt.Sprintf("%d disconnects", host[15])
				d.disconnect(host)
				p.disconnect(host)
			case n < 19:
				op = fmt.Sprintf("%d is forgotten, if away", host[15])
				known := func(id bucket.ID) bool { return id != host }
				d.retain(known)
				p.retain(known)
			default:
				op = "a start"
				data, err := d.list().encode()
				if err != nil {
					t.Fatal(err)
				}
				if d, err = decodeDirectory(data); err != nil {
					t.Fatal(err)
				}
				for _, c := range p {
					c.connected = false
				}
			}
			if got, want := kept(t, d.list()), kept(t, p.list()); got != want {
				t.Fatalf("seed %d, step %d, %s: the directory says\n%s\nwant\n%s", seed, step, op, got, want)
			}
			for host, c := range p {
				if got := d.hosts[host].connected; got != c.connected {
					t.Fatalf("seed %d, step %d, %s: host %d is connected: %t, want %t", seed, step, op, host[15], got, c.connected)
				}
			}
			if got, want := indexed(d); !maps.EqualFunc(got, want, maps.Equal) {
				t.Fatalf("seed %d, step %d, %s: the index has %v, want %v", seed, step, op, got, want)
			}
			if before != nil {
				if got := kept(t, before); got != was {
					t.Fatalf("seed %d, step %d, %s: what was listed before has become\n%s\nwant\n%s", seed, step, op, got, was)
				}
			}
			before = d.list()
			was = kept(t, before)
		}
	}
}

// crowd is a directory after a start: all of 10,000 hosts are away.
func crowd(addresses int) (d *directory, lists [][]netip.Prefix) {
	d = newDirectory()
	for h := range 10_000 {
		var list []netip.Prefix
		for i := range addresses {
			list = append(list, netip.PrefixFrom(netip.AddrFrom4([4]byte{10 + byte(i), byte(h >> 8), byte(h), 1}), 24))
		}
		lists = append(lists, list)
		d.connect(storetest.ID(h), list)
	}
	for h := range lists {
		d.disconnect(storetest.ID(h))
	}
	return d, lists
}

// BenchmarkDirectory measures what is done under the lock that every bucket needs (reconnect: a host comes back and goes
// again; list), and what is done of a listing without it (tell).
func BenchmarkDirectory(b *testing.B) {
	for _, addresses := range []int{1, 16, 64} {
		d, lists := crowd(addresses)
		at := func(name string) string { return fmt.Sprintf("%s/hosts=10k/addresses=%d", name, addresses) }
		b.Run(at("reconnect"), func(b *testing.B) {
			for n := 0; b.Loop(); n++ {
				h := n % len(lists)
				d.connect(storetest.ID(h), lists[h])
				d.disconnect(storetest.ID(h))
			}
		})
		b.Run(at("list"), func(b *testing.B) {
			for b.Loop() {
				d.list()
			}
		})
		b.Run(at("tell"), func(b *testing.B) {
			list := d.list()
			for b.Loop() {
				list.fleet()
				if _, err := list.encode(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
