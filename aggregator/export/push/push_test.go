package push

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/httpctl/httpctl/aggregator/export"
	"github.com/httpctl/httpctl/pkg/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// receiver is one that these tests play: answer says what it makes of a message.
type receiver struct {
	mu     sync.Mutex // guards got until the pusher has stopped
	got    []string   // what it took, or refused, and when
	answer func(n int) (refused int, why string, err error)
	began  time.Time
	closed bool
}

func (r *receiver) send(_ context.Context, body []byte) (int, string, error) {
	r.mu.Lock()
	r.got = append(r.got, fmt.Sprintf("%s at %v", body, time.Since(r.began)))
	n := len(r.got) - 1
	r.mu.Unlock()
	if r.answer == nil {
		return 0, "", nil
	}
	return r.answer(n)
}

// took is got while the pusher runs.
func (r *receiver) took() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got)
}

func (r *receiver) close() { r.closed = true }

func (r *receiver) hide(text string) string { return strings.ReplaceAll(text, "s3cret", "(hidden)") }

// pusher sends numbered messages of 10 points to r.
func pusher(cfg export.Receiver, r *receiver) (*Pusher, *prometheus.Registry) {
	registry := prometheus.NewRegistry()
	n := 0
	p := &Pusher{cfg: cfg, sender: r, wake: make(chan struct{}, 1), deps: Deps{
		To: export.ToOTLP, Log: slog.New(slog.DiscardHandler), Metrics: NewMetrics(registry),
		Encode: func() []export.Request {
			n++
			return []export.Request{{Body: fmt.Appendf(nil, "message %d", n), Points: 10}}
		},
	}}
	r.began = time.Now()
	return p, registry
}

// counted are the metrics of a pusher that are not 0.
func counted(t *testing.T, r *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				if l.GetName() == "reason" {
					name += " " + l.GetValue()
				}
			}
			if v := m.GetCounter().GetValue() + m.GetGauge().GetValue(); v != 0 && f.GetName() != "httpctl_export_last_success_timestamp_seconds" {
				out[name] = v
			}
		}
	}
	return out
}

func want(t *testing.T, what string, got, want any) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s = %v, want %v", what, got, want)
	}
}

// TestEvery: all counters are sent every so often, and when the program stops.
func TestEvery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &receiver{}
		p, registry := pusher(export.Receiver{Every: 15 * time.Second, MaxPending: config.MiB}, r)
		p.Start(t.Context())
		time.Sleep(31 * time.Second)
		if err := p.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		want(t, "what came", r.got, []string{"message 1 at 15s", "message 2 at 30s", "message 3 at 31s"})
		want(t, "metrics", counted(t, registry), map[string]float64{"httpctl_export_sent_points_total": 30})
		if !r.closed {
			t.Error("the connection is not closed")
		}
	})
}

// TestTriesAgain: what a receiver cannot take now is sent again, in order, later and later, or when it says.
func TestTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &receiver{answer: func(n int) (int, string, error) {
			switch {
			case n < 2:
				return 0, "", errors.New("connection refused")
			case n == 2:
				return 0, "", &failure{err: errors.New("busy"), after: 20 * time.Second}
			}
			return 0, "", nil
		}}
		p, registry := pusher(export.Receiver{Every: 15 * time.Second, MaxPending: config.MiB}, r)
		p.Start(t.Context())
		time.Sleep(40 * time.Second)
		if err := p.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		want(t, "what came", r.got, []string{"message 1 at 15s", "message 1 at 16s", "message 1 at 18s", "message 1 at 38s", "message 2 at 38s", "message 3 at 40s"})
		want(t, "metrics", counted(t, registry), map[string]float64{"httpctl_export_sent_points_total": 30, "httpctl_export_failures_total": 3})
	})
}

// TestRefused: what a receiver will never take is given up and counted, be it all or a part.
func TestRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &receiver{answer: func(n int) (int, string, error) {
			switch n {
			case 0:
				return 0, "", &failure{err: errors.New("out of bounds"), final: true}
			case 1:
				return 4, "too old", nil
			}
			return 0, "", nil
		}}
		p, registry := pusher(export.Receiver{Every: time.Second, MaxPending: config.MiB}, r)
		p.Start(t.Context())
		time.Sleep(2500 * time.Millisecond)
		if err := p.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		want(t, "what came", r.got, []string{"message 1 at 1s", "message 2 at 2s", "message 3 at 2.5s"})
		want(t, "metrics", counted(t, registry), map[string]float64{"httpctl_export_sent_points_total": 16, "httpctl_export_failures_total": 1, "httpctl_export_dropped_points_total refused": 14})
	})
}

// TestMaxPending: while the receiver is away the oldest go, and what does not leave before the program stops is counted.
func TestMaxPending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var away atomic.Bool
		away.Store(true)
		r := &receiver{answer: func(int) (int, string, error) {
			if away.Load() {
				return 0, "", errors.New("no route to host")
			}
			return 0, "", nil
		}}
		// It is tried at 0.9 s, 1.9 s, 3.9 s, 7.9 s and 15.9 s, never when a message is added.
		p, registry := pusher(export.Receiver{Every: 900 * time.Millisecond, MaxPending: 3 * config.Size(len("message 1"))}, r)
		p.Start(t.Context())
		time.Sleep(8500 * time.Millisecond)
		if c := counted(t, registry); c["httpctl_export_pending_bytes"] != 27 || c["httpctl_export_dropped_points_total full"] != 60 {
			t.Errorf("metrics = %v, want 27 bytes pending and 60 points dropped", c)
		}
		away.Store(false)
		time.Sleep(20 * time.Second)
		got := r.took()
		if i := slices.Index(got, "message 16 at 15.9s"); i < 0 || !strings.HasPrefix(got[i-1], "message 6 at 7.9s") || got[i+1] != "message 17 at 15.9s" || got[i+2] != "message 18 at 16.2s" {
			t.Errorf("after the receiver was away until 8.5 s there came %q, want the newest that there is room for when it is tried at 15.9 s", got)
		}
		away.Store(true)
		time.Sleep(1500 * time.Millisecond)
		if err := p.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		if c := counted(t, registry); c["httpctl_export_dropped_points_total stopped"] == 0 {
			t.Errorf("metrics = %v, want what was left when the program stopped", c)
		}
	})
}

// TestBeginnings: what no later message makes up for is the last to go for want of room.
func TestBeginnings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &receiver{answer: func(n int) (int, string, error) {
			if n < 3 {
				return 0, "", errors.New("no route to host")
			}
			return 0, "", nil
		}}
		p, registry := pusher(export.Receiver{Every: 900 * time.Millisecond, MaxPending: 30}, r)
		n := 0
		p.deps.Encode = func() []export.Request {
			n++
			return []export.Request{{Body: fmt.Appendf(nil, "begins %d", n), Points: 1, Begins: true}, {Body: fmt.Appendf(nil, "values %d", n), Points: 10}}
		}
		p.Start(t.Context()) // tried at 0.9 s, 1.9 s, 3.9 s and, when it is taken, at 7.9 s
		time.Sleep(8200 * time.Millisecond)
		if err := p.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, g := range r.got[3:] {
			got = append(got, strings.Split(g, " at ")[0])
		}
		// There is room for two beginnings with the newest values.
		want(t, "what came", got, []string{"begins 7", "begins 8", "values 8", "begins 9", "values 9", "begins 10", "values 10"})
		if c := counted(t, registry); c["httpctl_export_dropped_points_total full"] != 6+70 {
			t.Errorf("metrics = %v, want 6 beginnings and 7 times 10 values dropped", c)
		}
	})
}

// TestTells: what is logged of a failure has neither what was shown as credentials, nor the address's query, in which some receivers
// want a key.
func TestTells(t *testing.T) {
	var log strings.Builder
	p, _ := pusher(export.Receiver{URL: "https://example.org/write?key=v3ry"}, &receiver{})
	p.deps.Log = slog.New(slog.NewTextHandler(&log, nil))
	p.tell("not taken", errors.New("it answers 500: you sent Authorization: Bearer s3cret"))
	if got := log.String(); strings.Contains(got, "s3cret") || strings.Contains(got, "v3ry") || !strings.Contains(got, "example.org/write?...") || !strings.Contains(got, "you sent") {
		t.Errorf("logged: %s", got)
	}
}
