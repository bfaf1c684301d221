package ingest

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/httpctl/httpctl/aggregator/store/storetest"
	"github.com/httpctl/httpctl/pkg/bucket"
	httpctlv1 "github.com/httpctl/httpctl/proto/httpctl/v1"
)

// addresses encodes what hello says.
func addresses(list ...string) (out [][]byte) {
	for _, text := range list {
		p := netip.MustParsePrefix(text)
		out = append(out, append(p.Addr().AsSlice(), byte(p.Bits())))
	}
	return out
}

// showFleet writes a message as "1: a b; 2: c", with the last byte of a host's id.
func showFleet(f *httpctlv1.Fleet) string {
	var hosts []string
	for _, h := range f.GetHosts() {
		line := fmt.Sprintf("%d:", h.HostId[15])
		for _, a := range h.Addresses {
			addr, _ := netip.AddrFromSlice(a)
			line += " " + addr.String()
		}
		hosts = append(hosts, line)
	}
	return strings.Join(hosts, "; ")
}

func TestDirectory(t *testing.T) {
	d := newDirectory()
	connect := func(host int, list ...string) { d.connect(storetest.ID(host), parseAddresses(addresses(list...))) }
	want := func(what, want string) {
		t.Helper()
		f, shared := d.list().fleet()
		if got := fmt.Sprintf("%s (%d)", showFleet(f), shared); got != want {
			t.Errorf("%s: the fleet is %s, want %s", what, got, want)
		}
	}
	connect(1, "192.0.2.1/24", "127.0.0.1/8", "::1/128", "fe80::1/64", "224.0.0.1/4", "0.0.0.0/0", "2001:db8::1/64")
	want("what nobody can reach is left out", "1: 192.0.2.1 2001:db8::1 (0)")
	connect(2, "192.0.2.2/24", "172.17.0.1/16", "172.17.0.2/16")
	connect(3, "192.0.2.3/24", "172.17.0.1/16", "172.17.0.9/32")
	want("Docker's network is another one on each host", "1: 192.0.2.1 2001:db8::1; 2: 192.0.2.2; 3: 192.0.2.3 (4)")
	connect(3, "192.0.2.3/24", "172.18.0.1/16")
	want("it has moved", "1: 192.0.2.1 2001:db8::1; 2: 172.17.0.1 172.17.0.2 192.0.2.2; 3: 172.18.0.1 192.0.2.3 (0)")
	connect(2, "192.0.2.2/24")
	connect(3, "192.0.2.3/24", "192.0.2.100/32")
	connect(1, "192.0.2.1/24", "192.0.2.100/32")
	want("two hosts have an address to share", "1: 192.0.2.1; 2: 192.0.2.2; 3: 192.0.2.3 (2)")
	d.disconnect(storetest.ID(2))
	want("a host that is away keeps its address", "1: 192.0.2.1; 2: 192.0.2.2; 3: 192.0.2.3 (2)")
	connect(4, "192.0.2.2/24")
	want("its address was given to another", "1: 192.0.2.1; 3: 192.0.2.3; 4: 192.0.2.2 (2)")
	data, err := d.list().encode()
	if err != nil {
		t.Fatal(err)
	}
	before, _ := d.list().fleet()
	if d, err = decodeDirectory(data); err != nil {
		t.Fatal(err)
	}
	if after, _ := d.list().fleet(); showFleet(after) != showFleet(before) {
		t.Errorf("kept and read again the fleet is %s, want %s", showFleet(after), showFleet(before))
	}
	connect(1, "192.0.2.1/24")
	d.retain(func(id bucket.ID) bool { return id == storetest.ID(4) })
	want("hosts that are away and not stored are forgotten", "1: 192.0.2.1; 4: 192.0.2.2 (0)")
	if _, err := decodeDirectory([]byte("{")); err == nil {
		t.Error("a damaged value is read without an error")
	}
}

func TestParseAddressesIsBounded(t *testing.T) {
	bad := [][]byte{nil, {1}, {1, 2, 3, 4}, {192, 0, 2, 1, 33}, slices.Repeat([]byte{1}, 18)}
	if got := parseAddresses(bad); got != nil {
		t.Errorf("parseAddresses(%v) = %v, want none", bad, got)
	}
	var many [][]byte
	for i := range 1000 {
		many = append(many, []byte{10, 0, byte(i >> 8), byte(i), 8})
	}
	if got := parseAddresses(many); len(got) != maxAddresses {
		t.Errorf("of 1000 addresses %d are taken, want %d", len(got), maxAddresses)
	}
}

// TestFleetFitsIntoAMessage: with too many addresses each host has fewer, and every host has some.
func TestFleetFitsIntoAMessage(t *testing.T) {
	d := newDirectory()
	const hosts = 5000
	for h := range hosts {
		var list []netip.Prefix
		for i := range maxAddresses {
			list = append(list, netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, byte(h >> 8), byte(h), 15: byte(i + 1)}), 64))
		}
		d.connect(storetest.ID(h), list)
	}
	f, left := d.list().fleet()
	if got := proto.Size(f); got > maxFleet || got < maxFleet/4 {
		t.Errorf("the message has %d bytes, want at most %d, and not much less", got, maxFleet)
	}
	told := 0
	for _, h := range f.Hosts {
		told += len(h.Addresses)
	}
	if len(f.Hosts) != hosts || told+left != hosts*maxAddresses {
		t.Errorf("%d hosts are told with %d addresses, %d are left out, want %d hosts and %d addresses in all", len(f.Hosts), told, left, hosts, hosts*maxAddresses)
	}
}

// TestFleetIsTold: each agent is told of the others, when it comes and when another does.
func TestFleetIsTold(t *testing.T) {
	_, c := serve(t, DefaultConfig(), storeAll)
	first := hello(hostA, inc1)
	first.Addresses = addresses("192.0.2.1/24")
	a := greet(t, c, first)
	until := func(want string) {
		t.Helper()
		for deadline := time.Now().Add(3 * time.Minute); ; {
			m, err := a.Recv()
			if err != nil {
				t.Fatal(err)
			}
			if f := m.GetFleet(); f != nil && showFleet(f) == want {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("not told of %s", want)
			}
		}
	}
	until(fmt.Sprintf("%d: 192.0.2.1", hostA[15]))
	second := hello(hostB, inc1)
	second.Addresses = addresses("192.0.2.2/24")
	greet(t, c, second)
	both := []string{fmt.Sprintf("%d: 192.0.2.1", hostA[15]), fmt.Sprintf("%d: 192.0.2.2", hostB[15])}
	if hostB.Compare(hostA) < 0 {
		slices.Reverse(both)
	}
	until(strings.Join(both, "; "))
	third := hello(bucket.ID{9}, inc1)
	welcome, err := greet(t, c, third).Recv()
	if err != nil {
		t.Fatal(err)
	}
	if got := showFleet(welcome.GetWelcome().GetFleet()); got != strings.Join(both, "; ") {
		t.Errorf("who comes later is welcomed with the fleet %s, want %s", got, strings.Join(both, "; "))
	}
}
