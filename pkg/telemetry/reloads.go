package telemetry

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Reloads shows how the last reload of the configuration went. Its names are those of Prometheus's own
// metrics of the kind, so that the rules people have for those fit.
type Reloads struct{ ok, since prometheus.Gauge }

// NewReloads registers the metrics; the start counts as a reload that went well.
func NewReloads(r prometheus.Registerer) *Reloads {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "httpctl", Subsystem: "config", Name: name, Help: help})
	}
	m := &Reloads{
		ok:    gauge("last_reload_successful", "1 if the last reload of the configuration was valid and is in force, 0 if the settings before it still are."),
		since: gauge("last_reload_success_timestamp_seconds", "When the configuration was last read and put in force."),
	}
	r.MustRegister(m.ok, m.since)
	m.Done(nil)
	return m
}

// Done notes the end of a reload.
func (m *Reloads) Done(err error) {
	if err != nil {
		m.ok.Set(0)
		return
	}
	m.ok.Set(1)
	m.since.Set(float64(time.Now().UnixMilli()) / 1000)
}
