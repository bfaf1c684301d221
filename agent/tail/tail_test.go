package tail

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/httpctl/httpctl/pkg/exchange"
	"github.com/httpctl/httpctl/pkg/match"
)

// counter counts what reaches it.
type counter struct{ events int }

func (c *counter) Observe(*exchange.Observation) { c.events++ }

func allowed() Config {
	c := DefaultConfig()
	c.Allow = true
	return c
}

const start = int64(1_700_000_000e9)

// outcome is the end of an exchange, n milliseconds after start.
func outcome(n int, target string) *exchange.Observation {
	at := start + int64(n)*1e6
	return &exchange.Observation{Event: exchange.Outcome, Time: at, Exchange: &exchange.Exchange{
		HasRequest: true, HasResponse: true, Method: "GET", Host: "shop.example.org:80", Domain: "shop.example.org", Section: "shop.example.org/cart", Target: target,
		UserAgent: "curl/8", Status: 200, RequestStart: at - 5, RequestEnd: at - 4, ResponseStart: at - 2, ResponseEnd: at,
		Client: netip.MustParseAddrPort("192.0.2.1:40000"), Server: netip.MustParseAddrPort("192.0.2.2:80"), End: exchange.Complete,
	}}
}

// all takes what is to be told now, by tail.
func all(t *Tailer, now time.Time) (shown map[uint64][]string, counts map[uint64]Counts, refused map[uint64]string) {
	shown, counts, refused = map[uint64][]string{}, map[uint64]Counts{}, map[uint64]string{}
	for {
		r, ok := t.Next(now)
		if !ok {
			return shown, counts, refused
		}
		for _, x := range r.Exchanges {
			shown[r.ID] = append(shown[r.ID], x.Target)
		}
		counts[r.ID] = r.Counts
		if r.Refused != "" {
			refused[r.ID] = r.Refused
		}
	}
}

// TestTail: what matches is shown once, in order, and counted; what comes while nobody tails is not.
func TestTail(t *testing.T) {
	var log bytes.Buffer
	drops := uint64(5)
	tails := New(allowed(), Deps{Drops: func() uint64 { return drops }, Log: slog.New(slog.NewTextHandler(&log, nil))})
	var behind counter
	sink := tails.Tap(&behind)
	now := time.Unix(0, start)

	sink.Observe(outcome(0, "/before"))
	tails.Set([]Want{
		{ID: 1, Who: "alice\x1b[2J", Since: now},
		{ID: 2, Columns: []match.Column{{Name: "status", Values: []string{"5xx"}}}, SlowerThan: time.Millisecond},
	}, "")
	o := outcome(1, "/a")
	o.Event = exchange.RequestSeen
	sink.Observe(o) // not ended
	sink.Observe(outcome(1, "/a"))
	sink.Observe(outcome(2, "/b"))
	o = outcome(3, "/c")
	o.Status, o.ResponseStart = 503, o.RequestEnd+1e6
	sink.Observe(o)
	drops = 7
	shown, counts, refused := all(tails, now)
	if got, want := fmt.Sprint(shown), "map[1:[/a /b /c] 2:[/c]]"; got != want {
		t.Errorf("shown %s, want %s", got, want)
	}
	if counts[1] != (Counts{Matched: 3, KernelDrops: 2}) || counts[2] != (Counts{Matched: 1, KernelDrops: 2}) || len(refused) > 0 {
		t.Errorf("counts %+v, refused %v", counts, refused)
	}
	if _, counts, _ = all(tails, now.Add(time.Hour)); len(counts) > 0 {
		t.Errorf("counts that have not changed are told again: %v", counts)
	}

	// One goes on, the other has ended.
	tails.Set([]Want{{ID: 2}}, "it is over")
	sink.Observe(o)
	if shown, counts, _ = all(tails, now); fmt.Sprint(shown) != "map[2:[/c]]" || counts[2].Matched != 2 {
		t.Errorf("after the end of 1: shown %v, counts %v", shown, counts)
	}
	tails.Set(nil, "")
	sink.Observe(outcome(4, "/after"))
	if shown, _, _ = all(tails, now); len(shown) > 0 {
		t.Errorf("shown to nobody: %v", shown)
	}
	if behind.events != 7 {
		t.Errorf("%d events went on, want 7", behind.events)
	}
	for _, want := range []string{`who=alice\x1b[2J`, "filter=all", `filter="status=5xx slower-than=1ms"`, `reason="it is over" matched=3 shown=3`} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log does not have %s:\n%s", want, log.String())
		}
	}
}

// TestTailBounds: sampling, rate and room are bounds, and each exchange that they leave out is counted once.
func TestTailBounds(t *testing.T) {
	cfg := allowed()
	cfg.MaxPerSecond = 1000
	tails := New(cfg, Deps{})
	sink := tails.Tap(&counter{})
	now := time.Unix(0, start)
	tails.Set([]Want{{ID: 1, Sample: 10}, {ID: 2, PerSecond: 20}, {ID: 3}}, "")
	const n = 3000
	for i := range n { // in three seconds
		sink.Observe(outcome(i, fmt.Sprintf("/%d", i)))
	}
	shown, counts, _ := all(tails, now)
	check := func(id uint64, want Counts) {
		t.Helper()
		if counts[id] != want {
			t.Errorf("tail %d counts %+v, want %+v", id, counts[id], want)
		}
		if got, want := len(shown[id]), int(want.Matched-want.SampledOut-want.OverRate-want.Overflowed); got != want {
			t.Errorf("tail %d showed %d, want %d: what matched and was not left out", id, got, want)
		}
	}
	check(1, Counts{Matched: n, SampledOut: n * 9 / 10, Overflowed: n/10 - waiting})
	check(2, Counts{Matched: n, OverRate: n - 79}) // 20 at once, then one each 50 ms
	check(3, Counts{Matched: n, Overflowed: n - waiting})
	if want := []string{"/0", "/10", "/20"}; !slices.Equal(shown[1][:3], want) {
		t.Errorf("sampled %v, want %v", shown[1][:3], want)
	}

	// The bound of all tails holds for them together.
	cfg.MaxPerSecond = 10
	tails = New(cfg, Deps{})
	sink = tails.Tap(&counter{})
	tails.Set([]Want{{ID: 1, PerSecond: 500}, {ID: 2}}, "")
	for i := range 1000 {
		sink.Observe(outcome(i, "/"))
	}
	if shown, _, _ = all(tails, now); len(shown[1])+len(shown[2]) != 19 {
		t.Errorf("%d and %d were shown in a second, want 19 together", len(shown[1]), len(shown[2]))
	}
	// The clock was set back by an hour.
	sink.Observe(outcome(-3600_000, "/"))
	if shown, _, _ = all(tails, now); len(shown[1]) != 1 {
		t.Error("nothing is shown after the clock was set back")
	}
}

// TestTailIsRefused: each reason is told once, and nothing is shown.
func TestTailIsRefused(t *testing.T) {
	for _, c := range []struct {
		change func(*Config)
		want   Want
		reason string
	}{
		{func(c *Config) { c.Allow = false }, Want{}, "agent.tail.allow"},
		{func(c *Config) { c.Fields = nil }, Want{Columns: []match.Column{{Name: "user_agent", Values: []string{"curl"}}}}, "agent.tail.fields"},
		{func(*Config) {}, Want{Columns: []match.Column{{Name: "planet", Values: []string{"mars"}}}}, `no filter "planet"`},
		{func(*Config) {}, Want{SlowerThan: -1}, "0 or more"},
	} {
		cfg := allowed()
		c.change(&cfg)
		tails := New(cfg, Deps{})
		sink := tails.Tap(&counter{})
		c.want.ID = 9
		tails.Set([]Want{c.want}, "")
		if tails.plan.Load() != nil {
			t.Errorf("%s: exchanges are looked at", c.reason)
		}
		sink.Observe(outcome(1, "/"))
		shown, _, refused := all(tails, time.Unix(0, start))
		if len(shown) > 0 || !strings.Contains(refused[9], c.reason) {
			t.Errorf("shown %v, refused %v, want for %s", shown, refused, c.reason)
		}
		if _, again, _ := all(tails, time.Unix(0, start)); len(again) > 0 {
			t.Errorf("%s: it is told again", c.reason)
		}
	}
	var wants []Want
	for i := range 100 {
		wants = append(wants, Want{ID: uint64(i)})
	}
	tails := New(allowed(), Deps{})
	tails.Set(wants, "")
	_, counts, refused := all(tails, time.Unix(0, start))
	if len(counts) != 2*maxTails || len(refused) != maxTails {
		t.Errorf("of 100 tails %d are answered and %d refused, want %d and %d", len(counts), len(refused), 2*maxTails, maxTails)
	}
}

// TestTailShowsFields: what is not to be shown is taken away, and what is shown is bounded.
func TestTailShowsFields(t *testing.T) {
	long := "/" + strings.Repeat("a", 5000)
	for _, c := range []struct {
		fields                            []string
		method, target                    string
		wantTarget, wantAgent, wantClient string
	}{
		{DefaultConfig().Fields, "GET", "/a/b?token=1#x", "/a/b", "curl/8", "192.0.2.1"},
		{[]string{"query"}, "GET", "/a/b?token=1", "/a/b?token=1", "", "-"},
		{nil, "GET", "/a/b?token=1", "", "", "-"},
		{[]string{"path"}, "GET", "http://u:p@example.org/a?token=1", "/a", "", "-"},
		{[]string{"path"}, "GET", "http://u:p@example.org", "/", "", "-"},
		{[]string{"path"}, "GET", "http://example.org?token=1", "", "", "-"},
		{[]string{"path"}, "OPTIONS", "*", "*", "", "-"},
		{[]string{"path"}, "GET", "x?u=http://h/secret", "x", "", "-"},
		{[]string{"path"}, "CONNECT", "example.org:443", "", "", "-"},
		{[]string{"path"}, "GET", long, exchange.Bound(long, maxText), "", "-"},
	} {
		cfg := allowed()
		cfg.Fields = c.fields
		if err := cfg.Validate(); err != nil {
			t.Fatal(err)
		}
		tails := New(cfg, Deps{})
		tails.Set([]Want{{ID: 1}}, "")
		o := outcome(1, c.target)
		o.Method = c.method
		tails.Tap(&counter{}).Observe(o)
		r, _ := tails.Next(time.Unix(0, start))
		if len(r.Exchanges) != 1 {
			t.Fatalf("%d exchanges", len(r.Exchanges))
		}
		x := r.Exchanges[0]
		if x.Target != c.wantTarget || x.UserAgent != c.wantAgent || x.ClientText() != c.wantClient || x.Host != "" {
			t.Errorf("fields %v: %s %s shows target %q, user agent %q, client %q, host %q; want %q, %q, %q, none",
				c.fields, c.method, c.target, x.Target, x.UserAgent, x.ClientText(), x.Host, c.wantTarget, c.wantAgent, c.wantClient)
		}
		if o.Target != c.target || o.UserAgent == "" || !o.Client.IsValid() {
			t.Errorf("the exchange itself was changed: %+v", o.Exchange)
		}
	}
	bad := Config{MaxPerSecond: 0, Fields: []string{"cookies"}}
	if err := bad.Validate(); err == nil || !strings.Contains(err.Error(), "max_per_second") || !strings.Contains(err.Error(), "fields[0]") {
		t.Errorf("Validate() = %v, want both faults", err)
	}
}

// TestTailIsConfigured: other settings end what runs; the same ones do not.
func TestTailIsConfigured(t *testing.T) {
	tails := New(allowed(), Deps{})
	tails.Set([]Want{{ID: 1}}, "")
	if tails.Configure(allowed()) || tails.plan.Load() == nil {
		t.Error("the same settings have changed something")
	}
	if !tails.Configure(DefaultConfig()) || tails.plan.Load() != nil || tails.Allowed() {
		t.Error("a tail goes on that is not allowed any more")
	}
}

// TestTailCost: nobody who tails, or does not, has an exchange allocate.
func TestTailCost(t *testing.T) {
	tails := New(allowed(), Deps{})
	sink := tails.Tap(&counter{})
	o := outcome(1, "/a?b")
	observe := func() { o.Time += 1e6; sink.Observe(o) }
	if n := testing.AllocsPerRun(1000, observe); n != 0 {
		t.Errorf("while nobody tails, an exchange allocates %v times", n)
	}
	tails.Set([]Want{{ID: 1, Columns: []match.Column{{Name: "domain", Values: []string{"other.example.org"}}}}}, "")
	if n := testing.AllocsPerRun(1000, observe); n != 0 {
		t.Errorf("an exchange that does not match allocates %v times", n)
	}
	tails.Set([]Want{{ID: 2}}, "")
	if n := testing.AllocsPerRun(1000, observe); n != 0 {
		t.Errorf("an exchange that matches allocates %v times", n)
	}
}

// TestTailPipelines: several pipelines and the uplink at once count each exchange once.
func TestTailPipelines(t *testing.T) {
	cfg := allowed()
	cfg.MaxPerSecond = 1000
	tails := New(cfg, Deps{})
	tails.Set([]Want{{ID: 1}}, "")
	const pipelines, each = 4, 5000
	var running sync.WaitGroup
	for p := range pipelines {
		running.Go(func() {
			sink := tails.Tap(&counter{})
			for i := range each {
				sink.Observe(outcome(i, fmt.Sprintf("/%d/%d", p, i)))
			}
		})
	}
	done := make(chan struct{})
	go func() { running.Wait(); close(done) }()
	seen := map[string]int{}
	var counts Counts
	for ended := false; ; {
		shown, c, _ := all(tails, time.Now())
		for _, target := range shown[1] {
			seen[target]++
		}
		if len(c) > 0 {
			counts = c[1]
		}
		if ended {
			break
		}
		select {
		case <-done:
			ended = true
		default:
		}
	}
	for target, n := range seen {
		if n != 1 {
			t.Errorf("%s was shown %d times", target, n)
		}
	}
	if r, ok := tails.Next(time.Now().Add(time.Hour)); ok {
		counts = r.Counts
	}
	if left := counts.OverRate + counts.Overflowed; counts.Matched != pipelines*each || uint64(len(seen))+left != counts.Matched {
		t.Errorf("%d shown, %d left out, %d matched, want %d in all", len(seen), left, counts.Matched, pipelines*each)
	}
}
