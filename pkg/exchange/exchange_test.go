package exchange

import (
	"net/netip"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestDomain(t *testing.T) {
	v4, v6 := netip.MustParseAddr("::ffff:192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	for _, c := range []struct {
		method, target, host string
		server               netip.Addr
		want                 string
	}{
		{"GET", "/", "example.org", v4, "example.org"},
		{"GET", "/", "Example.ORG:8080", v4, "example.org"},
		{"GET", "/", "example.org.", v4, "example.org"},
		{"GET", "/", "example.org:", v4, "example.org"},
		{"GET", "/", "[2001:DB8::1]:80", v4, "[2001:db8::1]"},
		{"GET", "/", "[fe80::1%eth0]", v4, "[fe80::1]"},
		{"GET", "/", "", v4, "192.0.2.1"},
		{"GET", "/", "", v6, "[2001:db8::1]"},
		{"GET", "/", "", netip.Addr{}, Invalid},
		{"GET", "http://Other.example:81/a", "example.org", v4, "other.example"},
		{"GET", "http://user:pw@other.example?q", "example.org", v4, "other.example"},
		{"GET", "/?u=http://other.example/", "example.org", v4, "example.org"},
		{"CONNECT", "tunnel.example:443", "example.org", v4, "tunnel.example"},
		{"OPTIONS", "*", "example.org", v4, "example.org"},
		{"GET", "/", "exa mple.org", v4, Invalid},
		{"GET", "/", "example.org/x", v4, Invalid},
		{"GET", "/", "example.org:http", v4, Invalid},
		{"GET", "/", "\x1b[31m", v4, Invalid},
		{"GET", "/", "[::1", v4, Invalid},
		{"GET", "/", "[192.0.2.1]", v4, Invalid},
		{"GET", "/", ".", v4, Invalid},
		{"GET", "/", "bücher.example", v4, Invalid},
		{"GET", "/", strings.Repeat("a", 256), v4, Invalid},
	} {
		if got := Domain(c.method, c.target, c.host, c.server); got != c.want {
			t.Errorf("Domain(%s, %q, %q, %v) = %q, want %q", c.method, c.target, c.host, c.server, got, c.want)
		}
	}
}

func TestSection(t *testing.T) {
	for _, c := range []struct{ method, target, want string }{
		{"GET", "/", "d/"},
		{"GET", "", "d/"},
		{"GET", "/a", "d/a"},
		{"GET", "/a/b/c", "d/a"},
		{"GET", "//a//b", "d/a"},
		{"GET", "/a?b/c", "d/a"},
		{"GET", "/?a", "d/"},
		{"GET", "/a#b", "d/a"},
		{"GET", "/%61%7E%2f%2Fb/c", "d/a~%2f%2Fb"},
		{"GET", "/%zz%4", "d/%zz%4"},
		{"GET", "/A", "d/A"},
		{"GET", "http://d/x/y", "d/x"},
		{"GET", "http://d", "d/"},
		{"GET", "http://d?q=/x", "d/"},
		{"OPTIONS", "*", "d/*"},
		{"CONNECT", "d:443", "d/"},
	} {
		if got := Section("d", c.method, c.target); got != c.want {
			t.Errorf("Section(d, %s, %q) = %q, want %q", c.method, c.target, got, c.want)
		}
	}
}

func TestBound(t *testing.T) {
	for _, c := range []struct {
		in    string
		limit int
		same  bool
	}{
		{"", 16, true}, {strings.Repeat("a", 16), 16, true}, {strings.Repeat("a", 17), 16, false},
		{strings.Repeat("a", 17), 0, false}, {strings.Repeat("ü", 20), 19, false}, {strings.Repeat("€", 20), 20, false},
	} {
		got := Bound(c.in, c.limit)
		if (got == c.in) != c.same || len(got) > max(c.limit, 16) || !utf8.ValidString(got) {
			t.Errorf("Bound(%q, %d) = %q", c.in, c.limit, got)
		}
	}
	a, b := Bound(strings.Repeat("x", 50)+"1", 20), Bound(strings.Repeat("x", 50)+"2", 20)
	if a == b || a[:12] != b[:12] {
		t.Errorf("two long strings became %q and %q, want the same start and another end", a, b)
	}
	// Bytes that are no UTF-8 are cut all the same.
	if got := Bound(strings.Repeat("\x80", 100), 32); len(got) > 32 || len(got) < 20 {
		t.Errorf("Bound of continuation bytes has length %d, want 20 to 32", len(got))
	}
}

func FuzzNames(f *testing.F) {
	f.Add("GET", "/a/b", "example.org", 64)
	f.Add("CONNECT", "[::1]:443", "", 16)
	f.Add("GET", "http://u@h:1//%41%2f?x", "h", 20)
	f.Fuzz(func(t *testing.T, method, target, host string, limit int) {
		limit = min(max(limit, 16), 1<<16)
		d := Domain(method, target, host, netip.Addr{})
		if strings.ContainsAny(d, "/@ \x00\x1b\n") || d != strings.ToLower(d) || d == "" {
			t.Errorf("Domain(%q, %q, %q) = %q", method, target, host, d)
		}
		s := Section(d, method, target)
		rest, ok := strings.CutPrefix(s, d+"/")
		if !ok || strings.ContainsAny(rest, "/?#") && target != "*" {
			t.Errorf("Section(%q, %q, %q) = %q", d, method, target, s)
		}
		if b := Bound(s, limit); len(b) > limit {
			t.Errorf("Bound(%q, %d) has length %d", s, limit, len(b))
		}
	})
}

func TestTimes(t *testing.T) {
	for _, c := range []struct {
		name       string
		x          Exchange
		ttfb       int64
		early, ok  bool
		duration   int64
		durationOK bool
		unmatched  string
	}{
		{"whole", Exchange{HasRequest: true, HasResponse: true, RequestStart: 10, RequestEnd: 20, ResponseStart: 50, ResponseEnd: 90}, 30, false, true, 80, true, ""},
		{"early", Exchange{HasRequest: true, HasResponse: true, RequestStart: 10, RequestEnd: 60, ResponseStart: 50, ResponseEnd: 90}, 0, true, true, 80, true, ""},
		{"request never ended", Exchange{HasRequest: true, HasResponse: true, RequestStart: 10, ResponseStart: 50, ResponseEnd: 90}, 0, true, true, 80, true, ""},
		{"response not ended", Exchange{HasRequest: true, HasResponse: true, RequestStart: 10, RequestEnd: 20, ResponseStart: 50}, 30, false, true, 0, false, ""},
		{"clock went back", Exchange{HasRequest: true, HasResponse: true, RequestStart: 100, RequestEnd: 20, ResponseStart: 50, ResponseEnd: 90}, 30, false, true, 0, true, ""},
		{"no response", Exchange{HasRequest: true, RequestStart: 10, RequestEnd: 20}, 0, false, false, 0, false, "request"},
		{"no request", Exchange{HasResponse: true, ResponseStart: 10, ResponseEnd: 20}, 0, false, false, 0, false, "response"},
	} {
		if got, early, ok := c.x.TTFB(); got != c.ttfb || early != c.early || ok != c.ok {
			t.Errorf("%s: TTFB() = %d, %v, %v, want %d, %v, %v", c.name, got, early, ok, c.ttfb, c.early, c.ok)
		}
		if got, ok := c.x.Duration(); got != c.duration || ok != c.durationOK {
			t.Errorf("%s: Duration() = %d, %v, want %d, %v", c.name, got, ok, c.duration, c.durationOK)
		}
		if got := c.x.Unmatched(); got != c.unmatched {
			t.Errorf("%s: Unmatched() = %q, want %q", c.name, got, c.unmatched)
		}
	}
}

func TestText(t *testing.T) {
	x := Exchange{
		Method: "BREW", Host: "Example.org", Domain: "example.org", Section: "example.org/a", Target: "/a/b", UserAgent: "curl/8",
		Status: 418, Protocol: "http/1.1", Role: Server, Scheme: "http",
		Client: netip.MustParseAddrPort("[::ffff:192.0.2.1]:4000"), Server: netip.MustParseAddrPort("192.0.2.2:80"),
	}
	for f, want := range map[Field]string{
		FieldMethod: "_OTHER", FieldMethodRaw: "BREW", FieldHost: "Example.org", FieldDomain: "example.org",
		FieldSection: "example.org/a", FieldTarget: "/a/b", FieldUserAgent: "curl/8", FieldStatus: "418",
		FieldProtocol: "http/1.1", FieldRole: "server", FieldClientAddress: "192.0.2.1",
		FieldServerAddress: "192.0.2.2:80", FieldScheme: "http", 0: "", 200: "",
	} {
		if got := x.Text(f); got != want {
			t.Errorf("Text(%d) = %q, want %q", f, got, want)
		}
	}
}

func TestStatusText(t *testing.T) {
	for in, want := range map[int]string{0: "-", 200: "200", 999: "999", 1000: "1000", -1: "-1"} {
		if got := StatusText(in); got != want {
			t.Errorf("StatusText(%d) = %q, want %q", in, got, want)
		}
	}
	if n := testing.AllocsPerRun(100, func() { StatusText(503) }); n != 0 {
		t.Errorf("StatusText allocates %v times, want 0", n)
	}
}

func TestCounters(t *testing.T) {
	seen := map[string]Counter{}
	for c := range NumCounters {
		name := c.String()
		if other, dup := seen[name]; dup || name == "" {
			t.Errorf("counter %d is named %q, as is %d", c, name, other)
		}
		seen[name] = c
		if c.Loss() && c.OtherProtocol() {
			t.Errorf("%s is loss and another protocol", name)
		}
	}
	// The ids are part of the bucket format: never reorder.
	for c, want := range map[Counter]uint8{Packets: 0, Requests: 4, Upgrades: 11, KernelDrops: 12, SpoolDropped: 30, OtherTLS: 31, SmugglingSuspects: 38} {
		if uint8(c) != want {
			t.Errorf("id of %s = %d, want %d", c, c, want)
		}
	}
	var a, b Counters
	a[Packets], b[Packets] = 5, 3
	a.Add(&b)
	if d := a.Sub(&b); a[Packets] != 8 || d[Packets] != 5 {
		t.Errorf("5+3 = %d, 8-3 = %d", a[Packets], d[Packets])
	}
}

func TestNamesOfValues(t *testing.T) {
	for e := Open; e <= Drained; e++ {
		if e.String() == "" {
			t.Errorf("end %d has no name", e)
		}
	}
	for r := Transit; r <= Client; r++ {
		if r.String() == "" {
			t.Errorf("role %d has no name", r)
		}
	}
}

// TestSuspicion: every reason has a name and a counter of its own, in the same
// order, and a request is counted once for each.
func TestSuspicion(t *testing.T) {
	var n int
	for c := range NumCounters {
		if c.Suspicion() {
			n++
		}
	}
	if n != len(suspicionNames) || 1<<(n-1) != ChunkFraming {
		t.Errorf("%d counters, %d names, last reason %#x", n, len(suspicionNames), uint16(ChunkFraming))
	}
	if got, want := strings.Join((LengthAndCoding|DisguisedName).Names(), "; "), "content-length with transfer-encoding; disguised field name"; got != want {
		t.Errorf("Names() = %q, want %q", got, want)
	}
	var c, want Counters
	c.Suspect(0, 0)
	c.Suspect(LengthAndCoding|BareCR, 0)
	c.Suspect(ChunkFraming|BareCR, LengthAndCoding|BareCR)
	c.Suspect(ChunkFraming, 0)
	want[SmugglingSuspects], want[SuspectLengthAndCoding], want[SuspectBareCR], want[SuspectChunkFraming] = 2, 1, 1, 2
	if c != want {
		t.Errorf("counters = %v, want %v", c, want)
	}
}
