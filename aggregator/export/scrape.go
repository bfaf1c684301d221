package export

import (
	"time"

	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Scrape returns a list as a page for Prometheus has it.
func Scrape(list []Family) []*dto.MetricFamily {
	return scrape(list, func(kind Kind, p *Point) []*dto.Metric { return []*dto.Metric{metricOf(kind, p)} })
}

// ScrapeSince returns a list as a page has it that somebody reads again and again. A series that began after since, which is the Newest of
// the families that the same reader read before, comes with two samples: 0 at its beginning, and its value now. Without the first, increase() and
// rate() would miss all that it counted until it was read for the first time. Both have their times beside them, as
// Prometheus would take the second for a repetition otherwise; series of the page have none later on.
func ScrapeSince(list []Family, now, since time.Time) []*dto.MetricFamily {
	return scrape(list, func(kind Kind, p *Point) []*dto.Metric {
		value := metricOf(kind, p)
		if kind == Gauge || !p.Start.After(since) {
			return []*dto.Metric{value}
		}
		first := metricOf(kind, &Point{Attributes: p.Attributes, Start: p.Start, Times: new(Histogram)})
		at := now.UnixMilli()
		before := min(p.Start.UnixMilli(), at-1)
		first.TimestampMs, value.TimestampMs = &before, &at
		return []*dto.Metric{first, value}
	})
}

func scrape(list []Family, metrics func(Kind, *Point) []*dto.Metric) []*dto.MetricFamily {
	var out []*dto.MetricFamily
	for _, family := range list {
		name, help := family.Prometheus(), family.Help
		m := &dto.MetricFamily{Name: &name, Help: &help, Type: dtoTypes[family.Kind].Enum()}
		for i := range family.Points {
			m.Metric = append(m.Metric, metrics(family.Kind, &family.Points[i])...)
		}
		out = append(out, m)
	}
	return out
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
