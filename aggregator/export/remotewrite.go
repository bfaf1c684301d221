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
	// Begins: they are those with which series begin. No later request makes up for them.
	Begins bool
}

// maxSamples bounds one request of remote write: what Prometheus itself sends at most.
const maxSamples = 2000

// RemoteWrite returns requests of Prometheus remote write 1.0, compressed, with all that families have at a time. job and
// instance become labels, as a scrape would have them. A series that began after since, which is the Newest of the families that were
// written before, gets a sample of 0 at its beginning, so that increase() misses nothing of it; the requests with those come first.
func RemoteWrite(list []Family, now, since time.Time, instance string) []Request {
	common := []pair{{"instance", instance}, {"job", "httpctl"}}
	w, begin := remoteWriter{common: common}, remoteWriter{common: common, begins: true}
	at := now.UnixMilli()
	series := func(name string, p *Point, kind Kind, value float64, le string) {
		if kind != Gauge && p.Start.After(since) {
			begin.series(name, p, 0, min(p.Start.UnixMilli(), at-1), le)
		}
		w.series(name, p, value, at, le)
	}
	for i := range list {
		f := &list[i]
		name := f.Prometheus()
		w.metadata(f, name)
		for k := range f.Points {
			p := &f.Points[k]
			if f.Kind != Times {
				series(name, p, f.Kind, p.Value, "")
				continue
			}
			below := uint64(0)
			for b, n := range p.Times.Buckets {
				below = plus(below, n)
				series(name+"_bucket", p, Counter, float64(below), boundText[b])
			}
			series(name+"_sum", p, Counter, float64(p.Times.Sum)/nanoPerSecond, "")
			series(name+"_count", p, Counter, float64(p.Times.Count), "")
		}
	}
	begin.flush()
	w.flush()
	return append(begin.out, w.out...)
}

type pair struct{ name, value string }

type remoteWriter struct {
	common []pair
	begins bool

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

// series writes a series with one sample; at is in milliseconds since the epoch.
func (w *remoteWriter) series(name string, p *Point, value float64, at int64, le string) {
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
	w.part = appendUint(appendDouble(w.part[:0], fieldSample, value), fieldTimestamp, uint64(at))
	w.body = appendMessage(w.body, fieldSeries, appendMessage(w.one, fieldSamples, w.part))
	if w.points++; w.points >= maxSamples || len(w.body) >= maxBody {
		w.flush()
	}
}

func (w *remoteWriter) flush() {
	if len(w.body) > 0 {
		w.out = append(w.out, Request{Body: s2.EncodeSnappy(nil, w.body), Points: w.points, Begins: w.begins})
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
