package app

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/httpctl/httpctl/aggregator/export"
	"github.com/httpctl/httpctl/aggregator/ingest"
	"github.com/httpctl/httpctl/pkg/bucket"
)

// traffic adds up what is exported. A nil one exports nothing.
type traffic struct{ *export.Accumulator }

// newTraffic returns nil when nothing is to be exported.
func newTraffic(cfg export.Config, registry prometheus.Registerer) *traffic {
	if !cfg.Enabled() {
		return nil
	}
	t := &traffic{export.New(cfg, time.Now())}
	t.register(registry)
	return t
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

// snapshot is what there is to export now.
func (t *traffic) snapshot(ctx context.Context, a *App) []export.Family {
	hosts, err := a.store.Hosts(ctx)
	if err != nil {
		return t.Snapshot(nil) // counters go on; whoever reads misses the gauges of hosts
	}
	now, states := time.Now().UnixNano(), make([]export.HostState, len(hosts))
	for i, health := range a.judge.get().Health(hosts) {
		states[i] = export.HostState{ID: hosts[i].ID, Name: hosts[i].Name, CoveredThrough: hosts[i].Covered(now), State: health.String()}
	}
	return t.Snapshot(states)
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
