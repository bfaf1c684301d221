package export

import (
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Gatherer makes a page for Prometheus of what a function returns at each scrape.
type Gatherer func() []Family

var _ prometheus.Gatherer = Gatherer(nil)

// Gather implements prometheus.Gatherer.
func (f Gatherer) Gather() ([]*dto.MetricFamily, error) {
	var out []*dto.MetricFamily
	for _, family := range f() {
		name, help := family.Prometheus(), family.Help
		m := &dto.MetricFamily{Name: &name, Help: &help, Type: dtoTypes[family.Kind].Enum()}
		for i := range family.Points {
			m.Metric = append(m.Metric, metricOf(family.Kind, &family.Points[i]))
		}
		out = append(out, m)
	}
	return out, nil
}

var dtoTypes = [...]dto.MetricType{Counter: dto.MetricType_COUNTER, Gauge: dto.MetricType_GAUGE, Times: dto.MetricType_HISTOGRAM}

func metricOf(kind Kind, p *Point) *dto.Metric {
	m := &dto.Metric{Label: make([]*dto.LabelPair, len(p.Attributes))}
	for i, attr := range p.Attributes {
		name, value := label(attr.Key), attr.Value
		m.Label[i] = &dto.LabelPair{Name: &name, Value: &value}
	}
	switch kind {
	case Counter:
		m.Counter = &dto.Counter{Value: &p.Value, CreatedTimestamp: timestamppb.New(p.Start)}
	case Gauge:
		m.Gauge = &dto.Gauge{Value: &p.Value}
	case Times:
		sum := float64(p.Times.Sum) / nanoPerSecond
		h := &dto.Histogram{SampleCount: &p.Times.Count, SampleSum: &sum, CreatedTimestamp: timestamppb.New(p.Start)}
		below := uint64(0)
		for i, bound := range Bounds {
			below = plus(below, p.Times.Buckets[i])
			upper, n := float64(bound)/nanoPerSecond, below
			h.Bucket = append(h.Bucket, &dto.Bucket{UpperBound: &upper, CumulativeCount: &n})
		}
		m.Histogram = h
	}
	return m
}
