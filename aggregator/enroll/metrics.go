package enroll

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Why a request is refused, as the label of a metric says.
const (
	badRequest = "request" // it does not have the form that it should
	badToken   = "token"   // unknown, ended, used up, or of another host
	tooMany    = "rate"    // too many bad tokens from there, or renewals of a host
	taken      = "taken"   // the host is enrolled already
	badCert    = "certificate"
	ended      = "ended" // the certificate ended too long ago
	revoked    = "revoked"
	failed     = "failed"
)

// over is why what is open with a certificate ends when that is not revoked.
const over = "over"

type metrics struct {
	enrolled, renewed prometheus.Counter
	refused, ended    *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer, ends func() time.Time, now func() time.Time) *metrics {
	const ns, sub = "httpctl", "enroll"
	m := &metrics{
		enrolled: prometheus.NewCounter(prometheus.CounterOpts{Namespace: ns, Subsystem: sub, Name: "hosts_total", Help: "Hosts enrolled."}),
		renewed:  prometheus.NewCounter(prometheus.CounterOpts{Namespace: ns, Subsystem: sub, Name: "renewed_total", Help: "Certificates of agents renewed."}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: ns, Subsystem: sub, Name: "refused_total",
			Help: "Requests for a certificate, and connections with a revoked one, that were refused, by reason."}, []string{"reason"}),
	}
	for _, reason := range []string{badRequest, badToken, tooMany, taken, badCert, ended, revoked, failed} {
		m.refused.WithLabelValues(reason) // shown from the start, as 0
	}
	m.ended = prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: ns, Subsystem: sub, Name: "ended_calls_total",
		Help: "Streams and calls ended together with the certificate of their connection, by reason."}, []string{"reason"})
	for _, reason := range []string{over, revoked} {
		m.ended.WithLabelValues(reason)
	}
	if r == nil {
		return m
	}
	r.MustRegister(m.enrolled, m.renewed, m.refused, m.ended, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "httpctl_certificate_expiry_seconds", Help: "Time until the certificate ends that the aggregator has made itself, negative afterwards; 0 without one.",
	}, func() float64 {
		if at := ends(); !at.IsZero() {
			return at.Sub(now()).Seconds()
		}
		return 0
	}))
	return m
}
