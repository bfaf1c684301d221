package spool

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	buckets, bytes, memory prometheus.Gauge
	added, errors          prometheus.Counter
	dropped                *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) *metrics {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "httpctl", Subsystem: "spool", Name: name, Help: help})
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "httpctl", Subsystem: "spool", Name: name, Help: help})
	}
	m := &metrics{
		buckets: gauge("buckets", "Closed buckets that wait for the aggregator."),
		bytes:   gauge("size_bytes", "Size of the closed buckets that wait."),
		memory:  gauge("memory_buckets", "Closed buckets kept in memory because the disk is full or broken."),
		added:   counter("added_buckets_total", "Closed buckets that came in."),
		errors:  counter("write_errors_total", "Writes to the spool's file that failed."),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "httpctl", Subsystem: "spool", Name: "dropped_buckets_total",
			Help: "Closed buckets given up, and declared unobserved, by reason."}, []string{"reason"}),
	}
	for _, reason := range []string{"full", "memory_full", "damaged", "refused", "oversized"} {
		m.dropped.WithLabelValues(reason) // shown from the start, as 0
	}
	if r != nil {
		r.MustRegister(m.buckets, m.bytes, m.memory, m.added, m.errors, m.dropped)
	}
	return m
}
