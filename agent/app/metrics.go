package app

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/httpctl/httpctl/pkg/exchange"
)

// exchangeSink is a sink that is known only after what feeds it.
type exchangeSink struct{ exchange.Sink }

// pipelineCollector shows the pipelines' counters to Prometheus, as
// httpctl_agent_NAME_total.
type pipelineCollector struct{ pipelines []*pipeline }

var counterDescriptions = func() (d [exchange.NumCounters]*prometheus.Desc) {
	for c := range exchange.NumCounters {
		d[c] = prometheus.NewDesc("httpctl_agent_"+c.String()+"_total", "Counter "+c.String()+" of docs/formats.md, since the start.", nil, nil)
	}
	return d
}()

// Describe implements prometheus.Collector.
func (pipelineCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range counterDescriptions {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (p pipelineCollector) Collect(ch chan<- prometheus.Metric) {
	var sum exchange.Counters
	for _, one := range p.pipelines {
		if c := one.snapshot.Load(); c != nil {
			sum.Add(c)
		}
	}
	for c, n := range sum {
		ch <- prometheus.MustNewConstMetric(counterDescriptions[c], prometheus.CounterValue, float64(n))
	}
}
