package web

import "github.com/prometheus/client_golang/prometheus"

// The reasons of refusals, as labels.
const (
	tooManyConnections = "connections"
	tooManyAnswers     = "questions"
	tooManyStreams     = "streams"
	unknownHost        = "host"
	otherSite          = "site"
)

type metrics struct {
	requests, refused *prometheus.CounterVec
	streams           prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) *metrics {
	opts := func(name, help string) prometheus.CounterOpts {
		return prometheus.CounterOpts{Namespace: "httpctl", Subsystem: "web", Name: name, Help: help}
	}
	m := &metrics{
		requests: prometheus.NewCounterVec(opts("requests_total", "Requests for the web page and its API, by class of the status code."), []string{"code"}),
		refused:  prometheus.NewCounterVec(opts("refused_total", "Requests and connections that were refused because of a limit, the name they were for, or the site they came from, by reason."), []string{"reason"}),
		streams:  prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "httpctl", Subsystem: "web", Name: "streams", Help: "Streams of pictures that are open."}),
	}
	for _, code := range []string{"2xx", "3xx", "4xx", "5xx"} {
		m.requests.WithLabelValues(code) // shown from the start, as 0
	}
	for _, reason := range []string{tooManyConnections, tooManyAnswers, tooManyStreams, unknownHost, otherSite} {
		m.refused.WithLabelValues(reason)
	}
	if r != nil {
		r.MustRegister(m.requests, m.refused, m.streams)
	}
	return m
}
