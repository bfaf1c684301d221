package fleet

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/httpctl/httpctl/agent/uplink"
	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/security"
	"github.com/httpctl/httpctl/pkg/telemetry"
)

// Fate is what became of a bucket.
type Fate uint8

// The fates of a bucket.
const (
	Waiting Fate = iota // not answered
	Acknowledged
	Expired
	Refused
)

// Bucket is one that a simulated host has closed.
type Bucket struct {
	Start int64 // nanoseconds since the epoch
	Fate  Fate
	body  uint32
	due   int64 // when it was closed; 0: before the agent began
}

// member is one simulated agent. It is the uplink.Queue of its uplink: a bucket is encoded when it is to be
// sent, so that one that waits takes 32 bytes.
type member struct {
	fleet       *fleet
	number      int
	host        bucket.ID
	incarnation bucket.ID
	from        int64         // observed since
	offset      time.Duration // within Spread
	uplink      *uplink.Uplink
	registry    *prometheus.Registry
	ready       chan struct{}

	mu      sync.Mutex
	buckets []Bucket // entry seq is buckets[seq-1]
	waiting int
	conn    net.Conn
}

var _ uplink.Queue = (*member)(nil)

func newMember(f *fleet, number int) (*member, error) {
	r := rand.New(rand.NewPCG(f.cfg.Seed, 2<<32+uint64(number)))
	m := &member{fleet: f, number: number, ready: make(chan struct{}, 1), registry: prometheus.NewRegistry()}
	for i := 0; i < 16; i += 8 {
		binary.BigEndian.PutUint64(m.host[i:], r.Uint64())
		binary.BigEndian.PutUint64(m.incarnation[i:], r.Uint64())
	}
	if f.cfg.Spread > 0 {
		m.offset = time.Duration(r.Int64N(int64(f.cfg.Spread)))
	}
	cfg := uplink.DefaultConfig()
	cfg.Aggregator, cfg.BackoffMax = f.cfg.Aggregator, f.cfg.BackoffMax
	var err error
	m.uplink, err = uplink.New(cfg, uplink.Deps{
		Queue: m, Registry: m.registry, Dial: m.dial,
		Identity: func() uplink.Identity {
			return uplink.Identity{Host: m.host, Incarnation: m.incarnation, HostName: m.name(), Version: telemetry.Version()}
		},
	})
	return m, err
}

func (m *member) name() string { return fmt.Sprintf("%s%05d", NamePrefix, m.number) }

// dial connects, and remembers the connection for cut.
func (m *member) dial(ctx context.Context) (net.Conn, error) {
	network, address, err := security.SplitAddress(m.fleet.cfg.Aggregator)
	if err != nil {
		return nil, err
	}
	d := net.Dialer{KeepAlive: -1} // gRPC's pings find a dead connection
	c, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	m.conn = c
	m.mu.Unlock()
	return c, nil
}

// cut ends the connection, as a network does.
func (m *member) cut() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.conn != nil {
		_ = m.conn.Close()
	}
}

// add closes the bucket of an interval.
func (m *member) add(start, due int64) {
	f := m.fleet
	kinds := min(services, len(f.bodies))
	kind := m.number % kinds
	variants := (len(f.bodies) - kind + kinds - 1) / kinds
	variant := (m.number/kinds*7 + int(start/int64(f.cfg.Width))) % variants
	m.mu.Lock()
	m.buckets = append(m.buckets, Bucket{Start: start, due: due, body: uint32(kind + kinds*variant)})
	m.waiting++
	m.mu.Unlock()
	f.backlog.Add(1)
	select {
	case m.ready <- struct{}{}:
	default: // the uplink is awake already
	}
}

// Next implements uplink.Queue.
func (m *member) Next(after uint64) (uint64, []byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := after; i < uint64(len(m.buckets)); i++ {
		if b := &m.buckets[i]; b.Fate == Waiting {
			data, err := m.encode(i, b)
			return i + 1, data, err
		}
	}
	return 0, nil, nil
}

func (m *member) encode(ordinal uint64, b *Bucket) ([]byte, error) {
	of := m.fleet.bodies[b.body]
	width := m.fleet.cfg.Width
	return encode(&bucket.Header{
		Name:     bucket.Name{Host: m.host, Start: b.Start, Incarnation: m.incarnation},
		HostName: m.name(), Width: width, Ordinal: ordinal, Final: true,
		ClosedThrough: b.Start + int64(width), ObservedFrom: m.from,
		Counters: of.counters, Open: of.open,
	}, of)
}

// Newest implements uplink.Queue.
func (m *member) Newest() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return uint64(len(m.buckets))
}

// Replace implements uplink.Queue. It has nothing to do: a bucket is encoded anew each time, and comes out the same.
func (m *member) Replace(uint64, []byte) error { return nil }

// Settle implements uplink.Queue.
func (m *member) Settle(stored, expired, refused []uint64) error {
	now := time.Now().UnixNano()
	m.mu.Lock()
	defer m.mu.Unlock()
	settled := 0
	note := func(seqs []uint64, fate Fate) {
		for _, seq := range seqs {
			if b := &m.buckets[seq-1]; b.Fate == Waiting {
				b.Fate = fate
				settled++
				if b.due != 0 && fate == Acknowledged {
					m.fleet.noteLatency(now - b.due)
				}
			}
		}
	}
	note(stored, Acknowledged)
	note(expired, Expired)
	note(refused, Refused)
	m.waiting -= settled
	m.fleet.backlog.Add(-int64(settled))
	return nil
}

// Ready implements uplink.Queue.
func (m *member) Ready() <-chan struct{} { return m.ready }

// Len implements uplink.Queue.
func (m *member) Len() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.waiting
}
