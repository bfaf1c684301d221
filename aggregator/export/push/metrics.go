package push

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are what pushers tell of themselves, by receiver.
type Metrics struct {
	points, dropped, failures *prometheus.CounterVec
	bytes, success            *prometheus.GaugeVec
}

// NewMetrics registers them.
func NewMetrics(r prometheus.Registerer) *Metrics {
	opts := func(name, help string) prometheus.Opts {
		return prometheus.Opts{Namespace: "httpctl", Subsystem: "export", Name: name, Help: help}
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts(opts(name, help)), append([]string{"to"}, labels...))
	}
	gauge := func(name, help string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts(opts(name, help)), []string{"to"})
	}
	m := &Metrics{
		points:   counter("sent_points_total", "Values that a receiver took."),
		dropped:  counter("dropped_points_total", "Values given up, as the queue was full, the receiver refused them, or the program stopped. Later ones hold what they counted.", "reason"),
		failures: counter("failures_total", "Requests that a receiver did not take; most are tried again."),
		bytes:    gauge("pending_bytes", "Size of what waits for a receiver."),
		success:  gauge("last_success_timestamp_seconds", "When a receiver last took something; 0 if never."),
	}
	r.MustRegister(m.points, m.dropped, m.failures, m.bytes, m.success)
	return m
}

// begin shows all of a receiver's from the start, as 0.
func (m *Metrics) begin(to string) {
	for _, reason := range []string{"full", "refused", "stopped"} {
		m.dropped.WithLabelValues(to, reason)
	}
	m.points.WithLabelValues(to)
	m.failures.WithLabelValues(to)
	m.bytes.WithLabelValues(to)
	m.success.WithLabelValues(to)
}

func (m *Metrics) sent(to string, points int) {
	m.points.WithLabelValues(to).Add(float64(points))
	m.success.WithLabelValues(to).Set(float64(time.Now().UnixMilli()) / 1000)
}

func (m *Metrics) drop(to, reason string, points int) {
	m.dropped.WithLabelValues(to, reason).Add(float64(points))
}

func (m *Metrics) fail(to string) { m.failures.WithLabelValues(to).Inc() }

func (m *Metrics) pending(to string, bytes int) { m.bytes.WithLabelValues(to).Set(float64(bytes)) }
