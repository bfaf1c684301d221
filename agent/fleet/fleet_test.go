package fleet

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/exchange"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func testConfig() Config {
	c := DefaultConfig()
	c.Aggregator, c.Width, c.Duration = "unix:/nonexistent/httpctl.sock", time.Second, time.Second
	c.Agents, c.Exchanges, c.Rows, c.Bodies, c.Seed = 3, 300, 50, 20, 1
	return c
}

// TestBucketsHoldWhatIsSaid decodes what a member would send.
func TestBucketsHoldWhatIsSaid(t *testing.T) {
	cfg := testConfig()
	bodies, err := makeBodies(&cfg)
	if err != nil {
		t.Fatal(err)
	}
	f := &fleet{cfg: cfg, bodies: bodies}
	m, err := newMember(f, 2)
	if err != nil {
		t.Fatal(err)
	}
	const start = 1_700_000_000e9
	for i := range int64(20) {
		m.add(start+i*int64(time.Second), 0)
	}
	variants := map[uint32]bool{}
	for after := uint64(0); ; {
		seq, data, err := m.Next(after)
		if err != nil {
			t.Fatal(err)
		}
		if seq == 0 {
			break
		}
		got, err := bucket.Decode(data)
		if err != nil {
			t.Fatalf("bucket %d: %v", seq, err)
		}
		sent := &m.buckets[seq-1]
		want := bodies[sent.body]
		variants[sent.body] = true
		if got.Host != m.host || got.HostName != "simulated-00002" || got.Start != start+int64(after)*int64(time.Second) || got.Ordinal != after || !got.Final {
			t.Errorf("bucket %d has the header %+v", seq, got.Header)
		}
		if got.Counters[exchange.Requests] != want.requests || want.requests != 300 {
			t.Errorf("bucket %d counts %d requests, the body %d, want 300", seq, got.Counters[exchange.Requests], want.requests)
		}
		hits := map[string]int64{}
		for _, table := range got.Tables {
			if n := len(table.Rows); n != want.rows[table.Schema.Name] {
				t.Errorf("table %s of %d rows, want %d", table.Schema.Name, n, want.rows[table.Schema.Name])
			}
			for _, v := range table.Schema.Views {
				hits[v.Name] = table.Total(table.Schema.Measure(v.Hits))
			}
			if i := table.Schema.Measure("last_seen"); i >= 0 {
				if last := table.Total(i); last < got.Start || last >= got.End() {
					t.Errorf("table %s was last seen at %d, outside of [%d, %d)", table.Schema.Name, last, got.Start, got.End())
				}
			}
		}
		if !maps.Equal(hits, want.hits) || hits["section"] != 300 || len(hits) < 9 {
			t.Errorf("totals of bucket %d are %v, want %v with 300 sections", seq, hits, want.hits)
		}
		for _, table := range []string{"section", "user_agent", "client_ip"} {
			if want.rows[table] != 50 {
				t.Errorf("table %s has %d rows, want 50", table, want.rows[table])
			}
		}
		after = seq
	}
	if m.Len() != 20 || len(variants) < 2 {
		t.Errorf("%d buckets of %d contents wait, want 20 of several", m.Len(), len(variants))
	}
	if err := m.Settle([]uint64{1, 2, 2}, []uint64{3}, []uint64{4}); err != nil {
		t.Fatal(err)
	}
	fates := []Fate{m.buckets[0].Fate, m.buckets[1].Fate, m.buckets[2].Fate, m.buckets[3].Fate, m.buckets[4].Fate}
	if want := []Fate{Acknowledged, Acknowledged, Expired, Refused, Waiting}; !slices.Equal(fates, want) || m.Len() != 16 || f.backlog.Load() != 16 {
		t.Errorf("after Settle: fates %v, %d wait, backlog %d; want %v, 16, 16", fates, m.Len(), f.backlog.Load(), want)
	}
}

// TestSeedDecides: the same seed makes the same names and bytes, another one others.
func TestSeedDecides(t *testing.T) {
	make := func(seed uint64) []byte {
		cfg := testConfig()
		cfg.Seed = seed
		bodies, err := makeBodies(&cfg)
		if err != nil {
			t.Fatal(err)
		}
		m, err := newMember(&fleet{cfg: cfg, bodies: bodies}, 0)
		if err != nil {
			t.Fatal(err)
		}
		m.add(1_700_000_000e9, 0)
		_, data, err := m.Next(0)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	if a, b := make(1), make(1); !slices.Equal(a, b) {
		t.Error("two runs of one seed differ")
	}
	if a, b := make(1), make(2); slices.Equal(a, b) {
		t.Error("runs of two seeds are equal")
	}
}

func TestValidate(t *testing.T) {
	c := testConfig()
	if err := c.Validate(); err != nil {
		t.Errorf("Validate() = %v, want nil", err)
	}
	c.Agents, c.Rows, c.Aggregator, c.CutAfter, c.Drain = 0, 1001, "192.0.2.1:7420", time.Minute, -1
	err := c.Validate()
	for _, want := range []string{"--agents 0", "--rows 1001", "192.0.2.1:7420", "--cut-after", "--drain"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Validate() = %v, want it to name %s", err, want)
		}
	}
	c = testConfig()
	c.Agents, c.Past = 50_000, 24*time.Hour
	if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "buckets in all") {
		t.Errorf("Validate() = %v, want a bound on all buckets", err)
	}
}

// TestRunEndsWithoutAggregator: nothing is left behind when a run is ended.
func TestRunEndsWithoutAggregator(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("enough")
	cfg := testConfig()
	cfg.Duration, cfg.ConnectWithin = time.Hour, 0
	made := 0
	cfg.Made = func() { made++ }
	cfg.Observe = func(Sample) { cancel(stop) }
	r, err := Run(ctx, cfg)
	if !errors.Is(err, stop) {
		t.Errorf("Run() = %v, want %v", err, stop)
	}
	if r == nil || len(r.Hosts) != 3 || r.Stored != 0 {
		t.Errorf("Run() = %+v, want 3 hosts and nothing stored", r)
	}
	if made != 1 {
		t.Errorf("that the content is made was told %d times", made)
	}
}
