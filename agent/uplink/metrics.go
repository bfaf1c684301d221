package uplink

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	connected, inFlight          prometheus.Gauge
	sent, sentBytes, provisional prometheus.Counter
	disconnects, spoolErrors     prometheus.Counter
	samples                      prometheus.Counter
	answers                      *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) *metrics {
	const ns, sub = "httpctl", "uplink"
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: ns, Subsystem: sub, Name: name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Namespace: ns, Subsystem: sub, Name: name, Help: help})
	}
	m := &metrics{
		connected:   gauge("connected", "1 while the aggregator is reached."),
		inFlight:    gauge("in_flight_buckets", "Final buckets sent and not yet answered."),
		sent:        counter("sent_buckets_total", "Final buckets sent, each time they are."),
		sentBytes:   counter("sent_bytes_total", "Size of the buckets sent, provisional ones included."),
		provisional: counter("provisional_buckets_total", "Provisional buckets sent."),
		samples:     counter("tail_exchanges_total", "Exchanges sent to tails."),
		disconnects: counter("disconnects_total", "Times the aggregator was lost or could not be reached."),
		spoolErrors: counter("spool_errors_total", "Times the spool could not be read or updated."),
		answers: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: ns, Subsystem: sub, Name: "answers_total",
			Help: "Answers to final buckets, by what became of them."}, []string{"result"}),
	}
	for _, result := range []string{"stored", "duplicate", "expired", "refused", "future", "retry", "too_large", "too_new"} {
		m.answers.WithLabelValues(result) // shown from the start, as 0
	}
	if r != nil {
		r.MustRegister(m.connected, m.inFlight, m.sent, m.sentBytes, m.provisional, m.samples, m.disconnects, m.spoolErrors, m.answers)
	}
	return m
}
