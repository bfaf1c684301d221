package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/httpctl/httpctl/aggregator/export"
	"github.com/httpctl/httpctl/aggregator/export/push"
	"github.com/httpctl/httpctl/aggregator/ingest"
	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/lifecycle"
	"github.com/httpctl/httpctl/pkg/telemetry"
)

// traffic adds up what is exported, and pushes it. A nil one exports nothing.
type traffic struct {
	*export.Accumulator
	states  func() ([]export.HostState, error)
	pushers []*push.Pusher
	group   *lifecycle.Group

	mu      sync.Mutex
	readers map[string]reader // of the page, by name
}

// newTraffic returns nil when nothing is to be exported. states says how the hosts are.
func newTraffic(cfg export.Config, registry prometheus.Registerer, log *slog.Logger, states func() ([]export.HostState, error)) (*traffic, error) {
	if !cfg.Enabled() {
		return nil, nil
	}
	t := &traffic{Accumulator: export.New(cfg, time.Now()), states: states, readers: map[string]reader{}}
	t.register(registry)
	if !cfg.RemoteWrite.Enabled() && !cfg.OTLP.Enabled() {
		return t, nil
	}
	instance := cfg.Instance
	if instance == "" {
		name, err := os.Hostname()
		if err != nil {
			return nil, fmt.Errorf("find out the name of this host (or set aggregator.export.instance): %w", err)
		}
		instance = cmp.Or(name, "httpctl")
	}
	metrics := push.NewMetrics(registry)
	var since time.Time // up to which series have begun in remote write
	for _, r := range []struct {
		to     string
		cfg    export.Receiver
		encode push.Encode
	}{
		{export.ToRemoteWrite, cfg.RemoteWrite, func() []export.Request {
			list, before := t.snapshot(), since
			since = export.Newest(list, since)
			return export.RemoteWrite(list, time.Now(), before, instance)
		}},
		{export.ToOTLP, cfg.OTLP, func() []export.Request { return export.OTLP(t.snapshot(), time.Now(), instance, telemetry.Version()) }},
	} {
		if !r.cfg.Enabled() {
			continue
		}
		p, err := push.New(r.cfg, push.Deps{To: r.to, Encode: r.encode, Log: log, Metrics: metrics, Version: telemetry.Version()})
		if err != nil {
			return nil, err
		}
		t.pushers = append(t.pushers, p)
	}
	return t, nil
}

// start begins to push.
func (t *traffic) start(ctx context.Context) {
	if t == nil {
		return
	}
	t.group = lifecycle.NewGroup(ctx)
	for _, p := range t.pushers {
		p.Start(ctx)
		t.group.Go("export", func(ctx context.Context) error {
			select {
			case err := <-p.Failed():
				return err
			case <-ctx.Done():
				return nil
			}
		})
	}
}

// failed gives the error by which a pusher died.
func (t *traffic) failed() <-chan error {
	if t == nil {
		return nil
	}
	return t.group.Failed()
}

// Stop pushes what there is for a last time. Nothing is counted any more.
func (t *traffic) Stop(ctx context.Context) error {
	if t == nil {
		return nil
	}
	err := t.group.Stop(ctx)
	for _, p := range t.pushers {
		err = errors.Join(err, p.Stop(ctx))
	}
	return err
}

// extract is what the ingest service takes from buckets; nil is nothing.
func (t *traffic) extract() func(*bucket.Bucket) ingest.Extract {
	if t == nil {
		return nil
	}
	return func(b *bucket.Bucket) ingest.Extract { return t.Digest(b) }
}

// add counts what was stored.
func (t *traffic) add(fresh []ingest.Stored) {
	if t == nil {
		return
	}
	digests := make([]*export.Digest, 0, len(fresh))
	for _, s := range fresh {
		if d, ok := s.Extract.(*export.Digest); ok {
			digests = append(digests, d)
		}
	}
	t.Add(time.Now(), digests...)
}

// snapshot is what there is to export now. When the store cannot be asked, counters go on, and whoever reads
// misses the gauges of hosts.
func (t *traffic) snapshot() []export.Family {
	states, err := t.states()
	if err != nil {
		states = nil
	}
	return t.Snapshot(states)
}

// hostStates says how the hosts are.
func (a *App) hostStates(ctx context.Context) ([]export.HostState, error) {
	hosts, err := a.store.Hosts(ctx)
	if err != nil {
		return nil, err
	}
	now, states := time.Now().UnixNano(), make([]export.HostState, len(hosts))
	for i, health := range a.judge.get().Health(hosts) {
		states[i] = export.HostState{ID: hosts[i].ID, Name: hosts[i].Name, CoveredThrough: hosts[i].Covered(now), State: health.String()}
	}
	return states, nil
}

// register lets Prometheus see what the export holds and leaves together.
func (t *traffic) register(r prometheus.Registerer) {
	gauge := func(name, help string, f func(export.Stats) int) {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return float64(f(t.Stats())) }))
	}
	counter := func(name, help string, f func(export.Stats) uint64) {
		r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 { return float64(f(t.Stats())) }))
	}
	gauge("httpctl_export_domains", "Domains that have series of their own.", func(s export.Stats) int { return s.Domains })
	gauge("httpctl_export_hosts", "Hosts that have series of their own.", func(s export.Stats) int { return s.Hosts })
	gauge("httpctl_export_rows", "Rows in use of aggregator.export.max_rows.", func(s export.Stats) int { return s.Rows })
	counter("httpctl_export_buckets_total", "Buckets added up.", func(s export.Stats) uint64 { return s.Buckets })
	counter("httpctl_export_folded_domains_total", "Times that a domain in a bucket counted under _OTHER for want of a place.", func(s export.Stats) uint64 { return s.FoldedDomains })
	counter("httpctl_export_folded_hosts_total", "Buckets that counted under the host _OTHER for want of a place.", func(s export.Stats) uint64 { return s.FoldedHosts })
	counter("httpctl_export_folded_rows_total", "Times that something counted under _OTHER for want of a row.", func(s export.Stats) uint64 { return s.FoldedRows })
	counter("httpctl_export_ended_total", "Domains and hosts whose place was given to others after an hour without traffic.", func(s export.Stats) uint64 { return s.Ended })
}
