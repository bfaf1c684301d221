package app

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/exchange"
	"github.com/httpctl/httpctl/pkg/testkit"
)

func TestAnnounced(t *testing.T) {
	var all []netip.Prefix
	for _, text := range []string{"127.0.0.1/8", "::1/128", "fe80::1/64", "169.254.3.4/16", "192.0.2.1/24", "192.0.2.1/24", "2001:db8::1/64", "fd00::1/8", "10.0.0.1/32"} {
		all = append(all, netip.MustParsePrefix(text))
	}
	if got, want := fmt.Sprint(announced(all)), "[10.0.0.1/32 192.0.2.1/24 2001:db8::1/64 fd00::1/8]"; got != want {
		t.Errorf("announced(%v) = %s, want %s", all, got, want)
	}
	for i := range 1000 {
		all = append(all, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), 32))
	}
	if got := len(announced(all)); got != maxAnnounced {
		t.Errorf("of a thousand addresses %d are announced, want %d", got, maxAnnounced)
	}
}

func TestFleetFile(t *testing.T) {
	dir := t.TempDir()
	if got, err := readFleet(dir); err != nil || len(got) != 0 {
		t.Errorf("without a file readFleet = %v, %v, want nothing", got, err)
	}
	want := map[bucket.ID][]netip.Addr{
		{1}: {netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")},
		{2}: {netip.MustParseAddr("192.0.2.2")},
	}
	if err := writeFleet(dir, want); err != nil {
		t.Fatal(err)
	}
	got, err := readFleet(dir)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("readFleet = %v, %v, want %v", got, err, want)
	}
	var o otherHosts
	o.set(got, bucket.ID{1})
	for addr, host := range map[string]string{"192.0.2.1": "", "192.0.2.2": bucket.ID{2}.String(), "192.0.2.3": ""} {
		if got := o.hostAt(netip.MustParseAddr(addr)); got != host {
			t.Errorf("on host 1, hostAt(%s) = %q, want %q", addr, got, host)
		}
	}
	for _, bad := range []string{"no id\n", bucket.ID{1}.String() + " nowhere\n"} {
		if err := os.WriteFile(filepath.Join(dir, fleetName), []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := readFleet(dir); err == nil || !strings.Contains(err.Error(), fleetName) {
			t.Errorf("readFleet of %q = %v, %v, want an error that names the file", bad, got, err)
		}
	}
}

// mirrors notes what exchanges say of the host that counts them, too.
type mirrors []string

func (m *mirrors) Observe(o *exchange.Observation) {
	if o.Event == exchange.Outcome {
		*m = append(*m, fmt.Sprintf("%s %s", o.Role, o.MirrorKey()))
	}
}

// TestMirrorOfExchanges: a connection that was there before the other host was known has its later exchanges mirrored,
// and what this host serves itself never is.
func TestMirrorOfExchanges(t *testing.T) {
	local, err := newLocalAddresses([]string{"192.0.2.1"})
	if err != nil {
		t.Fatal(err)
	}
	var got mirrors
	p := newPipeline(nil, DefaultConfig(), 1024, &got, local)
	other := bucket.ID{2}
	fleet := map[bucket.ID][]netip.Addr{other: {netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.1")}}
	out := testkit.NewConversation("192.0.2.1:40000", "192.0.2.2:80")
	in := testkit.NewConversation("192.0.2.9:40000", "192.0.2.1:80")
	exchanges := func(c *testkit.Conversation) {
		from := len(c.Frames)
		c.ToServer("GET /a HTTP/1.1\r\nHost: example.org\r\n\r\n")
		c.ToClient("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		p.take(packetsOf(c.Frames[from:]))
	}
	out.Open()
	in.Open()
	p.take(packetsOf(append(out.Frames[:len(out.Frames):len(out.Frames)], in.Frames...)))
	exchanges(out)
	local.fleet.set(fleet, bucket.ID{1})
	exchanges(out)
	exchanges(in)
	if want := (mirrors{"client 0", "client " + other.String(), "server 0"}); !reflect.DeepEqual(got, want) {
		t.Errorf("exchanges are %q, want %q", got, want)
	}
}
