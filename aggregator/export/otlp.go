package export

import (
	"math"
	"strconv"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// maxDataPoints bounds one request of OTLP, and maxBody what it, or one of remote write, has in bytes before it is compressed: names may be
// long, and collectors take 4 MiB by default.
const maxDataPoints, maxBody = 5000, 1 << 20

// Field numbers of opentelemetry.proto.metrics.v1, resource.v1 and common.v1.
const (
	fieldResourceMetrics                                = 1
	fieldResource, fieldScopeMetrics                    = 1, 2
	fieldResourceAttributes                             = 1
	fieldScope, fieldMetrics                            = 1, 2
	fieldScopeName, fieldScopeVersion                   = 1, 2
	fieldMetricName, fieldDescription, fieldUnit        = 1, 2, 3
	fieldGauge, fieldSum, fieldHistogram                = 5, 7, 9
	fieldDataPoints, fieldTemporality, fieldIsMonotonic = 1, 2, 3
	fieldKey, fieldAnyValue                             = 1, 2
	fieldStringValue, fieldIntValue                     = 1, 3

	fieldStart, fieldTime                                = 2, 3
	fieldAsDouble, fieldAsInt, fieldAttributes           = 4, 6, 7
	fieldCount, fieldTimesSum                            = 4, 5
	fieldBucketCounts, fieldBounds, fieldTimesAttributes = 6, 7, 9 // the last are a histogram's attributes

	temporalityCumulative = 2
)

// OTLP returns requests to a MetricsService of OTLP 1.x with all that families have at a time, of cumulative temporality.
// What is said of a host is an attribute of each point, not of a resource: receivers that
// make Prometheus's series of it, the collector among them, would otherwise take those of different hosts for one.
func OTLP(list []Family, now time.Time, instance, version string) []Request {
	var resource []byte
	for _, a := range []Attribute{{"service.name", "httpctl"}, {"service.instance.id", instance}, {"service.version", version}} {
		resource = appendMessage(resource, fieldResourceAttributes, keyValue(a))
	}
	scope := appendText(appendText(nil, fieldScopeName, "github.com/httpctl/httpctl/aggregator/export"), fieldScopeVersion, version)

	var out []Request
	var metrics []byte
	points := 0
	flush := func() {
		if points == 0 {
			return
		}
		scoped := append(appendMessage(nil, fieldScope, scope), metrics...)
		of := appendMessage(appendMessage(nil, fieldResource, resource), fieldScopeMetrics, scoped)
		out = append(out, Request{Body: appendMessage(nil, fieldResourceMetrics, of), Points: points})
		metrics, points = nil, 0
	}
	for i := range list {
		f := &list[i]
		var data []byte
		for k := range f.Points {
			data = appendMessage(data, fieldDataPoints, dataPoint(f, &f.Points[k], uint64(now.UnixNano())))
			if points++; points >= maxDataPoints || len(metrics)+len(data) >= maxBody {
				metrics = appendMessage(metrics, fieldMetrics, metricOfOTLP(f, data))
				data = nil
				flush()
			}
		}
		if len(data) > 0 {
			metrics = appendMessage(metrics, fieldMetrics, metricOfOTLP(f, data))
		}
	}
	flush()
	return out
}

// metricOfOTLP encodes a metric with the points that data has.
func metricOfOTLP(f *Family, data []byte) []byte {
	kind := protowire.Number(fieldGauge)
	switch f.Kind {
	case Counter:
		kind = fieldSum
		data = appendUint(appendUint(data, fieldTemporality, temporalityCumulative), fieldIsMonotonic, 1)
	case Times:
		kind = fieldHistogram
		data = appendUint(data, fieldTemporality, temporalityCumulative)
	}
	m := appendText(appendText(appendText(nil, fieldMetricName, f.Name), fieldDescription, f.Help), fieldUnit, f.Unit)
	return appendMessage(m, kind, data)
}

func dataPoint(f *Family, p *Point, now uint64) []byte {
	var b []byte
	if !p.Start.IsZero() {
		b = appendFixed(b, fieldStart, uint64(p.Start.UnixNano()))
	}
	b = appendFixed(b, fieldTime, now)
	attributes := protowire.Number(fieldAttributes)
	switch {
	case f.Kind == Times:
		attributes = fieldTimesAttributes
		b = appendDouble(appendFixed(b, fieldCount, p.Times.Count), fieldTimesSum, float64(p.Times.Sum)/nanoPerSecond)
		var counts, bounds []byte
		for _, n := range p.Times.Buckets {
			counts = protowire.AppendFixed64(counts, n)
		}
		for _, bound := range Bounds {
			bounds = protowire.AppendFixed64(bounds, math.Float64bits(float64(bound)/nanoPerSecond))
		}
		b = appendMessage(appendMessage(b, fieldBucketCounts, counts), fieldBounds, bounds)
	case f.Kind == Counter && f.Unit != "s" && p.Value < 1<<63:
		b = appendFixed(b, fieldAsInt, uint64(p.Value))
	default:
		b = appendDouble(b, fieldAsDouble, p.Value)
	}
	for _, a := range p.Attributes {
		b = appendMessage(b, attributes, keyValue(a))
	}
	return b
}

// keyValue encodes an attribute. A status is a number, as the semantic conventions have it, unless it is Other.
func keyValue(a Attribute) []byte {
	var value []byte
	if n, err := strconv.ParseUint(a.Value, 10, 16); a.Key == attrStatus && err == nil {
		value = appendUint(nil, fieldIntValue, n)
	} else {
		value = appendText(nil, fieldStringValue, a.Value)
	}
	return appendMessage(appendText(nil, fieldKey, a.Key), fieldAnyValue, value)
}
