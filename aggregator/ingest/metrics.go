package ingest

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/httpctl/httpctl/aggregator/store"
)

type metrics struct {
	agents                          prometheus.Gauge
	pending                         prometheus.Gauge
	sharedAddresses                 prometheus.Gauge
	buckets, rejected               *prometheus.CounterVec
	bytes, provisional, storeErrors prometheus.Counter
	badProvisional, skewed, faults  prometheus.Counter
	crowded                         prometheus.Counter
	batch, appendSeconds            prometheus.Histogram
}

func newMetrics(r prometheus.Registerer, clones func() float64) *metrics {
	const ns, sub = "httpctl", "ingest"
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: ns, Subsystem: sub, Name: name, Help: help})
	}
	m := &metrics{
		agents:  prometheus.NewGauge(prometheus.GaugeOpts{Namespace: ns, Subsystem: sub, Name: "agents", Help: "Agents connected."}),
		pending: prometheus.NewGauge(prometheus.GaugeOpts{Namespace: ns, Subsystem: sub, Name: "pending_bytes", Help: "Size of the buckets that wait for the store."}),
		sharedAddresses: prometheus.NewGauge(prometheus.GaugeOpts{Namespace: ns, Subsystem: sub, Name: "shared_addresses",
			Help: "Addresses of hosts that do not tell the host, as another has them too, they lie in a network that several have of their own, or there are too many."}),
		buckets: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: ns, Subsystem: sub, Name: "buckets_total",
			Help: "Final buckets answered, by what became of them."}, []string{"result"}),
		rejected: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: ns, Subsystem: sub, Name: "rejected_streams_total",
			Help: "Streams of agents that were ended by the aggregator, by reason."}, []string{"reason"}),
		bytes:          counter("received_bytes_total", "Size of the buckets received."),
		provisional:    counter("provisional_buckets_total", "Provisional buckets received."),
		badProvisional: counter("bad_provisional_buckets_total", "Provisional buckets left out because they are too large."),
		skewed:         counter("skewed_buckets_total", "Final buckets whose interval was more than five minutes ahead, and at most a day: stored, and never judged."),
		crowded:        counter("crowded_buckets_total", fmt.Sprintf("Final buckets refused, as %d of their host and interval were stored.", store.MaxBuckets)),
		faults:         counter("faults_total", "Faults of this program with what agents have sent, which are in its log; each cost the bucket or the stream that it was met in."),
		storeErrors:    counter("store_errors_total", "Transactions that the store failed; their buckets are sent again."),
		batch: prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: ns, Subsystem: sub, Name: "batch_buckets",
			Help: "Buckets per transaction.", Buckets: prometheus.ExponentialBuckets(1, 2, 9)}),
		appendSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: ns, Subsystem: sub, Name: "append_seconds",
			Help: "Time a transaction took, with its fsync.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 14)}),
	}
	for _, result := range []string{"stored", "duplicate", "expired", "refused", "future", "retry", "too_new"} {
		m.buckets.WithLabelValues(result) // shown from the start, as 0
	}
	for _, reason := range []string{"hello", "full", "identity", "replaced", "protocol", "too_large", "samples"} {
		m.rejected.WithLabelValues(reason)
	}
	if r != nil {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: ns, Subsystem: sub, Name: "cloned_hosts",
			Help: "Host ids under which several agents have delivered in the last ten minutes."}, clones))
		r.MustRegister(m.agents, m.pending, m.sharedAddresses, m.buckets, m.rejected, m.bytes, m.provisional, m.badProvisional, m.skewed, m.crowded, m.faults, m.storeErrors, m.batch, m.appendSeconds)
	}
	return m
}
