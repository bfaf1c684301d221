package test

import (
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gopacket/gopacket/pcapgo"

	agent "github.com/httpctl/httpctl/agent/app"
	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/exchange"
	"github.com/httpctl/httpctl/pkg/testkit"
)

var update = flag.Bool("update", false, "write the golden files anew")

// captures are recordings of real programs, see testdata/captures/README.md.
// The counts are what the clients did and the servers logged; NAME.txt beside
// each file has its exchanges.
var captures = []struct {
	name                                        string
	requests, responses, interim, noResp, noReq uint64
	upgrades, suspects, otherConnections        uint64
}{
	{name: "apache-proxy", requests: 7, responses: 7, upgrades: 1},
	{name: "auth", requests: 2, responses: 2},
	{name: "bench", requests: 32, responses: 32},
	{name: "bytewise", requests: 2, responses: 2},
	{name: "expect-refused", requests: 2, responses: 2},
	{name: "haproxy-lighttpd", requests: 6, responses: 6},
	{name: "http09", requests: 2, noResp: 1}, // an answer without status line is one only to HTTP/0.9
	{name: "icy", requests: 1, responses: 1},
	{name: "nginx-ipv6", requests: 3, responses: 3},
	{name: "nginx-keepalive", requests: 9, responses: 9},
	{name: "nginx-pipelined", requests: 24, responses: 24},
	{name: "nginx-proxy-protocol", requests: 2, responses: 2},
	{name: "nginx-ranges-gzip", requests: 5, responses: 5},
	{name: "nginx-uploads", requests: 5, responses: 5, interim: 3},
	{name: "nginx-wrong", requests: 6, responses: 5, noResp: 1, noReq: 1, suspects: 1},
	{name: "python-old", requests: 5, responses: 5},
	{name: "reset-in-body", requests: 2, responses: 1, noResp: 1},
	{name: "smtp", otherConnections: 1},
	{name: "tinyproxy-tunnel", requests: 4, responses: 4, upgrades: 1},
	{name: "trailers-hints", requests: 4, responses: 4, interim: 2},
	{name: "vxlan", requests: 2, responses: 2},
	{name: "websocket", requests: 1, responses: 1, upgrades: 1, otherConnections: 1},
}

// TestCaptures reads the recordings.
func TestCaptures(t *testing.T) {
	for _, tt := range captures {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join("testdata", "captures", tt.name)
			lines, r := readLines(t, path+".pcap")
			n := r.Counters
			for _, c := range []struct {
				name      string
				got, want uint64
			}{
				{"requests", n[exchange.Requests], tt.requests}, {"responses", n[exchange.Responses], tt.responses},
				{"interim responses", n[exchange.InterimResponses], tt.interim},
				{"unmatched requests", n[exchange.UnmatchedRequests], tt.noResp}, {"unmatched responses", n[exchange.UnmatchedResponses], tt.noReq},
				{"upgrades", n[exchange.Upgrades], tt.upgrades}, {"smuggling suspects", n[exchange.SmugglingSuspects], tt.suspects},
				{"gap bytes", n[exchange.GapBytes], 0}, {"truncated packets", n[exchange.TruncatedPackets], 0},
			} {
				if c.got != c.want {
					t.Errorf("%s = %d, want %d", c.name, c.got, c.want)
				}
			}
			var others uint64
			for c, v := range n {
				if exchange.Counter(c).OtherProtocol() {
					others += v
				}
			}
			if others != tt.otherConnections {
				t.Errorf("connections of other protocols = %d, want %d", others, tt.otherConnections)
			}
			got := strings.Join(lines, "")
			if *update {
				if err := os.WriteFile(path+".txt", []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path + ".txt")
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("exchanges:\n%swant\n%s", got, want)
			}
		})
	}
}

// TestCapturesRewritten: what a capture holds does not depend on how its
// packets were wrapped, ordered or repeated on their way into the file.
func TestCapturesRewritten(t *testing.T) {
	outer, inner := netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("198.51.100.2")
	tunnel := func(port uint16, header string) func(frame []byte) []byte {
		return func(frame []byte) []byte {
			return testkit.Ethernet(testkit.EtherIPv4, testkit.UDPIP(netip.AddrPortFrom(outer, 40000), netip.AddrPortFrom(inner, port), append([]byte(header), frame...)))
		}
	}
	gre := func(header string) func(frame []byte) []byte {
		return func(frame []byte) []byte {
			return testkit.Ethernet(testkit.EtherIPv4, testkit.IPv4(outer, inner, 47, append([]byte(header), frame...)))
		}
	}
	each := func(f func(frame []byte) []byte) func([]testkit.Frame) []testkit.Frame {
		return func(in []testkit.Frame) (out []testkit.Frame) {
			for _, x := range in {
				out = append(out, testkit.Frame{Time: x.Time, Data: f(x.Data)})
			}
			return out
		}
	}
	rewrites := []struct {
		name string
		f    func([]testkit.Frame) []testkit.Frame
	}{
		{"vlan", each(func(b []byte) []byte { return slices.Concat(b[:12], []byte{0x81, 0, 0, 5}, b[12:]) })},
		{"qinq", each(func(b []byte) []byte { return slices.Concat(b[:12], []byte{0x88, 0xa8, 0, 5, 0x81, 0, 0, 6}, b[12:]) })},
		{"vxlan", each(tunnel(4789, "\x08\x00\x00\x00\x00\x00\x07\x00"))},
		{"geneve", each(tunnel(6081, "\x00\x00\x65\x58\x00\x00\x07\x00"))},
		{"gre", each(gre("\x00\x00\x65\x58"))},
		{"erspan", each(gre("\x10\x00\x88\xbe\x00\x00\x00\x01\x10\x05\x00\x07\x00\x00\x00\x00"))},
		{"mpls", each(func(b []byte) []byte { return slices.Concat(b[:12], []byte{0x88, 0x47, 0, 1, 0x11, 0x40}, b[14:]) })},
		{"fragments", func(in []testkit.Frame) (out []testkit.Frame) {
			for i, x := range in {
				b := x.Data
				if b[12] != 8 || b[23] != testkit.ProtoTCP {
					out = append(out, x)
					continue
				}
				payload := b[34 : 14+int(binary.BigEndian.Uint16(b[16:]))]
				src, dst := netip.AddrFrom4([4]byte(b[26:30])), netip.AddrFrom4([4]byte(b[30:34]))
				var parts []testkit.Frame
				for at := 0; at < len(payload); at += 256 {
					end := min(at+256, len(payload))
					p := testkit.IPv4Fragment(src, dst, testkit.ProtoTCP, uint16(i), at, end < len(payload), payload[at:end])
					parts = append(parts, testkit.Frame{Time: x.Time, Data: testkit.Ethernet(testkit.EtherIPv4, p)})
				}
				if i%2 == 1 {
					slices.Reverse(parts)
				}
				out = append(out, parts...)
			}
			return out
		}},
		{"every packet twice", func(in []testkit.Frame) (out []testkit.Frame) {
			for _, x := range in {
				out = append(out, x, x)
			}
			return out
		}},
	}
	for _, name := range captureNames(t) {
		frames := readFrames(t, name)
		want, _ := readLines(t, name)
		for _, rewrite := range rewrites {
			got, _ := readLines(t, testkit.WriteFile(t, rewrite.f(frames)...))
			if !slices.Equal(got, want) {
				t.Errorf("%s, %s:\n%swant\n%s", filepath.Base(name), rewrite.name, strings.Join(got, ""), strings.Join(want, ""))
			}
		}
	}
}

// TestCapturesDamaged: whatever packet is missing, and wherever packets are
// cut, no message appears that was not there.
func TestCapturesDamaged(t *testing.T) {
	messages := func(path string) map[string]int {
		c, err := readCapture(path)
		if err != nil {
			t.Fatal(err)
		}
		return c.messages
	}
	for _, name := range captureNames(t) {
		frames := readFrames(t, name)
		whole := messages(name)
		check := func(how string, damaged []testkit.Frame) {
			for m, n := range messages(testkit.WriteFile(t, damaged...)) {
				if method, host, _ := strings.Cut(strings.TrimPrefix(m, "request "), " "); host == "" && strings.HasPrefix(m, "request ") {
					// The Host field may have been lost; then the method must be one that is there.
					known := false
					for k := range whole {
						known = known || strings.HasPrefix(k, "request "+method+" ")
					}
					if known {
						continue
					}
				}
				if n > whole[m] {
					t.Errorf("%s, %s: %q %d times, there are %d", filepath.Base(name), how, m, n, whole[m])
				}
			}
		}
		step := 1 + len(frames)/24
		for i := 0; i < len(frames); i += step {
			check(fmt.Sprintf("without packet %d", i+1), slices.Delete(slices.Clone(frames), i, i+1))
			check(fmt.Sprintf("from packet %d on", i+1), frames[i:])
		}
	}
}

func captureNames(t *testing.T) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join("testdata", "captures", "*.pcap"))
	if err != nil || len(names) != len(captures) {
		t.Fatalf("%d captures in testdata, want %d; %v", len(names), len(captures), err)
	}
	return names
}

// readFrames reads a classic Ethernet capture without the program's own reader.
func readFrames(t *testing.T, path string) (frames []testkit.Frame) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := pcapgo.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	for {
		data, info, err := r.ReadPacketData()
		if errors.Is(err, io.EOF) {
			return frames
		}
		if err != nil {
			t.Fatal(err)
		}
		frames = append(frames, testkit.Frame{Time: info.Timestamp.UnixNano(), Data: data})
	}
}

// readLines reads a capture and writes a line for each of its exchanges.
func readLines(t *testing.T, path string) (lines []string, r *agent.Report) {
	t.Helper()
	options := agent.ReadOptions{Settings: config.DefaultSettings(), Config: agent.DefaultConfig()}
	options.Exchange = func(x *exchange.Exchange) error {
		lines = append(lines, fmt.Sprintf("%s %q %s %q %s up %d of %d, down %d of %d, %s\n", x.Protocol, x.Method, x.Domain, x.Target,
			exchange.StatusText(x.Status), x.RequestBytes, x.RequestWireBytes, x.ResponseBytes, x.ResponseWireBytes, x.End))
		return nil
	}
	r, err := agent.Read(t.Context(), []string{path}, options)
	if err != nil {
		t.Fatal(err)
	}
	return lines, r
}

// TestReadTwice: one capture gives the same report each time, alone or as a
// part of several, and the same messages in every form of file.
func TestReadTwice(t *testing.T) {
	for _, name := range captureNames(t) {
		first, a := readLines(t, name)
		second, b := readLines(t, name)
		if !slices.Equal(first, second) || a.Counters != b.Counters || len(a.Tables) != len(b.Tables) {
			t.Errorf("%s: a second reading differs", name)
		}
	}
	names := captureNames(t)
	var sum exchange.Counters
	for _, name := range names {
		_, r := readLines(t, name)
		for c, v := range r.Counters {
			sum[c] += v
		}
	}
	options := agent.ReadOptions{Settings: config.DefaultSettings(), Config: agent.DefaultConfig()}
	r, err := agent.Read(t.Context(), names, options)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []exchange.Counter{exchange.Packets, exchange.PacketBytes, exchange.Requests, exchange.Responses, exchange.InterimResponses} {
		if r.Counters[c] != sum[c] {
			t.Errorf("%s of all captures at once = %d, want %d", c, r.Counters[c], sum[c])
		}
	}
}
