package export

import (
	"math"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/s2"
	"google.golang.org/protobuf/encoding/protowire"
)

// Request is one message to push.
type Request struct {
	Body []byte
	// Points are how many values it carries: samples of remote write, data points of OTLP.
	Points int
}

// maxSamples bounds one request of remote write: what Prometheus itself sends at most.
const maxSamples = 2000

// RemoteWrite returns requests of Prometheus remote write 1.0, compressed, with all that families have at a time. job and
// instance become labels, as a scrape would have them. A series that began after since, when the snapshot
// before was taken, gets a sample of 0 at its beginning, so that increase() misses nothing of it.
func RemoteWrite(list []Family, now, since time.Time, instance string) []Request {
	w := remoteWriter{now: now.UnixMilli(), since: since, common: []pair{{"instance", instance}, {"job", "httpctl"}}}
	for i := range list {
		f := &list[i]
		name := f.Prometheus()
		w.metadata(f, name)
		for k := range f.Points {
			p := &f.Points[k]
			if f.Kind != Times {
				w.series(name, p, f.Kind, p.Value, "")
				continue
			}
			below := uint64(0)
			for b, n := range p.Times.Buckets {
				below = plus(below, n)
				w.series(name+"_bucket", p, Counter, float64(below), boundText[b])
			}
			w.series(name+"_sum", p, Counter, float64(p.Times.Sum)/nanoPerSecond, "")
			w.series(name+"_count", p, Counter, float64(p.Times.Count), "")
		}
	}
	w.flush()
	return w.out
}

type pair struct{ name, value string }

type remoteWriter struct {
	now    int64 // milliseconds since the epoch
	since  time.Time
	common []pair

	body   []byte
	points int
	out    []Request
	labels []pair
	one    []byte
	part   []byte
}

// Field numbers of prometheus.WriteRequest and what is in it.
const (
	fieldSeries, fieldMetadata                       = 1, 3
	fieldLabels, fieldSamples                        = 1, 2
	fieldName, fieldValue                            = 1, 2
	fieldSample, fieldTimestamp                      = 1, 2
	fieldType, fieldFamily, fieldHelp, fieldUnitName = 1, 2, 4, 5
)

// metadataTypes are those of prometheus.MetricMetadata.
var metadataTypes = [...]uint64{Counter: 1, Gauge: 2, Times: 3}

func (w *remoteWriter) metadata(f *Family, name string) {
	b := appendUint(w.one[:0], fieldType, metadataTypes[f.Kind])
	b = appendText(b, fieldFamily, strings.TrimSuffix(name, "_total"))
	w.one = appendText(b, fieldHelp, f.Help)
	w.body = appendMessage(w.body, fieldMetadata, w.one)
}

func (w *remoteWriter) series(name string, p *Point, kind Kind, value float64, le string) {
	w.labels = append(append(w.labels[:0], pair{"__name__", name}), w.common...)
	for _, a := range p.Attributes {
		w.labels = append(w.labels, pair{label(a.Key), a.Value})
	}
	if le != "" {
		w.labels = append(w.labels, pair{"le", le})
	}
	slices.SortFunc(w.labels, func(x, y pair) int { return strings.Compare(x.name, y.name) })
	w.one = w.one[:0]
	for _, l := range w.labels {
		w.part = appendText(appendText(w.part[:0], fieldName, l.name), fieldValue, l.value)
		w.one = appendMessage(w.one, fieldLabels, w.part)
	}
	if kind != Gauge && p.Start.After(w.since) {
		w.sample(0, min(p.Start.UnixMilli(), w.now-1))
	}
	w.sample(value, w.now)
	w.body = appendMessage(w.body, fieldSeries, w.one)
	if w.points >= maxSamples {
		w.flush()
	}
}

func (w *remoteWriter) sample(value float64, at int64) {
	w.part = appendUint(appendDouble(w.part[:0], fieldSample, value), fieldTimestamp, uint64(at))
	w.one = appendMessage(w.one, fieldSamples, w.part)
	w.points++
}

func (w *remoteWriter) flush() {
	if len(w.body) > 0 {
		w.out = append(w.out, Request{s2.EncodeSnappy(nil, w.body), w.points})
	}
	w.body, w.points = w.body[:0], 0
}

func appendMessage(dst []byte, field protowire.Number, body []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(dst, field, protowire.BytesType), body)
}

func appendText(dst []byte, field protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(dst, field, protowire.BytesType), s)
}

func appendUint(dst []byte, field protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(dst, field, protowire.VarintType), v)
}

func appendDouble(dst []byte, field protowire.Number, v float64) []byte {
	return appendFixed(dst, field, math.Float64bits(v))
}

func appendFixed(dst []byte, field protowire.Number, v uint64) []byte {
	return protowire.AppendFixed64(protowire.AppendTag(dst, field, protowire.Fixed64Type), v)
}
