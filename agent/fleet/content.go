package fleet

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/httpctl/httpctl/agent/accumulate"
	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/exchange"
)

// services is how many kinds of hosts there are; the hosts of a kind share their names, as those behind one
// load balancer do.
const services = 16

// maxKeys is the agent's default.
const maxKeys = 1000

// body is what a bucket holds, ready to be sent under any name.
type body struct {
	version  byte   // of the format
	encoded  []byte // what follows the header, without the checksum
	requests uint64
	open     uint64
	counters exchange.Counters
	hits     map[string]int64 // sum of each top list
	rows     map[string]int   // of each table
}

// service is what the hosts of one kind have in common.
type service struct {
	domains  []string
	sections []section
	agents   []string
	clients  []netip.Addr // more than a host sees in an interval
	servers  []netip.AddrPort
}

type section struct {
	domain, name, method string
	latency              float64 // median, milliseconds
	size                 float64 // median of the response, bytes
}

// newService draws a service: as many sections and user agents as there are rows, on a twelfth as many domains, and 25 times
// as many clients.
func newService(r *rand.Rand, rows int) *service {
	s := &service{}
	mark := r.Uint32()
	for i := range max(1, rows/12) {
		s.domains = append(s.domains, fmt.Sprintf("%s-%08x.%s", pick(r, words), mark+uint32(i), pick(r, suffixes)))
	}
	for i := range rows {
		d := s.domains[zipf(r, len(s.domains))]
		s.sections = append(s.sections, section{
			domain: d, name: fmt.Sprintf("%s/%s-%x", d, pick(r, words), i), method: pick(r, methods),
			latency: 3 * math.Exp(1.2*r.NormFloat64()+1), size: 4000 * math.Exp(1.5*r.NormFloat64()),
		})
		s.agents = append(s.agents, fmt.Sprintf(pick(r, browsers), 70+r.IntN(80), r.IntN(7000), i))
	}
	for range 25 * rows {
		s.clients = append(s.clients, netip.AddrFrom4([4]byte{byte(1 + r.IntN(222)), byte(r.Uint32()), byte(r.Uint32()), byte(1 + r.IntN(254))}))
	}
	for range 3 {
		s.servers = append(s.servers, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(r.Uint32()), byte(r.Uint32()), byte(1 + r.IntN(254))}), 8080))
	}
	return s
}

var (
	words    = []string{"api", "shop", "static", "assets", "account", "search", "images", "cart", "login", "feed", "media", "user", "orders", "graphql", "health"}
	suffixes = []string{"example.org", "example.com", "example.net", "shop.example"}
	methods  = []string{"GET", "GET", "GET", "GET", "GET", "GET", "GET", "POST", "POST", "PUT", "HEAD", "DELETE"}
	browsers = []string{
		"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/%d.0.%d.%d Safari/537.36",
		"Mozilla/5.0 (X11; Linux x86_64; rv:109.0) Gecko/20100101 Firefox/%d.%d.%d",
		"Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/%d.%d Mobile/15E%d Safari/604.1",
		"okhttp/%d.%d.%d", "Go-http-client/%d.%d.%d", "python-requests/%d.%d.%d",
	}
)

func pick[T any](r *rand.Rand, list []T) T { return list[r.IntN(len(list))] }

// zipf draws from 0 to n-1 with a chance of about 1/(k+1) each: the first of 200 has 17%, the last 0.1%.
func zipf(r *rand.Rand, n int) int {
	return min(n-1, int(math.Exp(r.Float64()*math.Log(float64(n)+1)))-1)
}

// makeBodies makes the pool; body i is of service i%services.
func makeBodies(c *Config) ([]*body, error) {
	kinds := make([]*service, min(services, c.Bodies))
	for i := range kinds {
		kinds[i] = newService(rand.New(rand.NewPCG(c.Seed, uint64(i))), c.Rows)
	}
	bodies := make([]*body, c.Bodies)
	for i := range bodies {
		var err error
		if bodies[i], err = makeBody(rand.New(rand.NewPCG(c.Seed, 1<<32+uint64(i))), kinds[i%len(kinds)], c); err != nil {
			return nil, err
		}
	}
	return bodies, nil
}

// origin is the start of the bucket that bodies are encoded in. Times inside are relative to it.
const origin = int64(60e9) * 1_000_000

// makeBody shows c.Exchanges exchanges to the built-in statistics. Each section, client and user agent comes once, the rest of
// the exchanges is drawn with a skew.
func makeBody(r *rand.Rand, s *service, c *Config) (*body, error) {
	collector, err := accumulate.NewCollector(nil, maxKeys, 0)
	if err != nil {
		return nil, err
	}
	b := &body{hits: map[string]int64{}, rows: map[string]int{}}
	first := r.IntN(len(s.clients) - c.Rows + 1)
	clients := s.clients[first : first+c.Rows]
	for i := range c.Exchanges {
		x := exchange.Exchange{Role: exchange.Server, Protocol: "http/1.1", Scheme: "http", HasRequest: true, HasResponse: true}
		draw := func() int {
			if i < c.Rows {
				return i
			}
			return zipf(r, c.Rows)
		}
		sec := s.sections[draw()]
		x.Domain, x.Section, x.Method = sec.domain, sec.name, sec.method
		x.UserAgent = s.agents[draw()]
		x.Client = netip.AddrPortFrom(clients[draw()], 40000)
		x.Server = s.servers[zipf(r, len(s.servers))]
		x.RequestBytes, x.RequestWireBytes = 0, uint64(300+r.IntN(600))
		if sec.method == "POST" || sec.method == "PUT" {
			x.RequestBytes = uint64(r.IntN(2000))
			x.RequestWireBytes += x.RequestBytes
		}
		x.Status = statusOf(r, sec.method)
		x.ResponseWireBytes = 250
		if x.Status == 200 && sec.method != "HEAD" {
			x.ResponseBytes = uint64(sec.size * math.Exp(0.5*r.NormFloat64()))
			x.ResponseWireBytes += x.ResponseBytes
		}
		at := origin + r.Int64N(int64(c.Width))
		x.RequestStart, x.RequestHead, x.RequestEnd = at, at, at
		x.ResponseStart = at + int64(sec.latency*math.Exp(0.6*r.NormFloat64())*1e6)
		x.ResponseHead, x.ResponseEnd, x.End = x.ResponseStart, x.ResponseStart, exchange.Complete
		collector.Observe(&exchange.Observation{Event: exchange.RequestSeen, Time: at, Exchange: &x})
		collector.Observe(&exchange.Observation{
			Event: exchange.Outcome, Time: min(x.ResponseEnd, origin+int64(c.Width)-1), Exchange: &x,
			NewRequestBytes: x.RequestBytes, NewRequestWireBytes: x.RequestWireBytes,
			NewResponseBytes: x.ResponseBytes, NewResponseWireBytes: x.ResponseWireBytes,
		})
		b.counters[exchange.Packets] += 6
		b.counters[exchange.PacketBytes] += 6*66 + x.RequestWireBytes + x.ResponseWireBytes
		b.counters[exchange.Segments] += 6
	}
	n := uint64(c.Exchanges)
	b.requests, b.open = n, 0
	b.counters[exchange.Connections] = n / 8
	b.counters[exchange.Requests], b.counters[exchange.Responses], b.counters[exchange.Outcomes] = n, n, n
	for _, t := range collector.Tables() {
		b.rows[t.Schema.Name] = len(t.Rows)
		for _, v := range t.Schema.Views {
			b.hits[v.Name] += t.Total(t.Schema.Measure(v.Hits))
		}
	}
	// The header of an encoding is the whole encoding of a bucket without tables, but for the checksum.
	h := bucket.Header{Name: bucket.Name{Start: origin}, Width: c.Width, Final: true}
	head, err := bucket.Encode(nil, &bucket.Bucket{Header: h})
	if err != nil {
		return nil, err
	}
	whole, err := bucket.Encode(nil, &bucket.Bucket{Header: h, Tables: collector.Tables()})
	if err != nil {
		return nil, err
	}
	b.version = whole[versionAt]
	b.encoded = whole[len(head)-checksumSize : len(whole)-checksumSize]
	return b, nil
}

// docs/formats.md
const (
	versionAt    = 4 // where the version is
	checksumSize = 4 // CRC32C, little-endian, over all before it
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encode returns the bucket of that header with the body.
func encode(h *bucket.Header, b *body) ([]byte, error) {
	data, err := bucket.Encode(make([]byte, 0, 256+len(b.encoded)), &bucket.Bucket{Header: *h})
	if err != nil {
		return nil, err
	}
	data[versionAt] = b.version
	data = append(data[:len(data)-checksumSize], b.encoded...)
	return binary.LittleEndian.AppendUint32(data, crc32.Checksum(data, castagnoli)), nil
}

// statusOf draws a status: 94% are what the method hopes for.
func statusOf(r *rand.Rand, method string) int {
	switch n := r.IntN(1000); {
	case n < 940:
		return 200
	case n < 965 && method == "GET":
		return 304
	case n < 985:
		return 404
	case n < 993:
		return 403
	case n < 998:
		return 500
	}
	return 503
}

// aligned is the start of the interval that t lies in.
func aligned(t time.Time, width time.Duration) int64 {
	ns := t.UnixNano()
	return ns - ns%int64(width)
}
