package main

import (
	"context"
	"fmt"
	"maps"
	"math"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/prometheus/otlptranslator"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
)

// sink keeps the newest value of each series, and records all.
type sink struct {
	file *os.File

	mu     sync.Mutex
	values map[string]float64 // by name and labels, as they stand on a page
}

func newSink(path string) (*sink, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	return &sink{file: file, values: map[string]float64{}}, err
}

func (s *sink) consume(_ context.Context, m pmetric.Metrics) error {
	line, err := new(pmetric.JSONMarshaler).MarshalMetrics(m)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.file.Write(append(line, '\n')); err != nil {
		return err
	}
	for _, resource := range m.ResourceMetrics().All() {
		for _, scope := range resource.ScopeMetrics().All() {
			for _, metric := range scope.Metrics().All() {
				if err := s.metric(metric); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (s *sink) metric(m pmetric.Metric) error {
	kinds := map[pmetric.MetricType]otlptranslator.MetricType{
		pmetric.MetricTypeGauge: otlptranslator.MetricTypeGauge, pmetric.MetricTypeSum: otlptranslator.MetricTypeMonotonicCounter, pmetric.MetricTypeHistogram: otlptranslator.MetricTypeHistogram,
	}
	namer := otlptranslator.NewMetricNamer("", otlptranslator.UnderscoreEscapingWithSuffixes)
	name, err := namer.Build(otlptranslator.Metric{Name: m.Name(), Unit: m.Unit(), Type: kinds[m.Type()]})
	if err != nil {
		return err
	}
	put := func(name string, of pcommon.Map, value float64, more ...string) {
		if err == nil {
			var text string
			if text, err = labels(of, more...); err == nil {
				s.values[name+text] = value
			}
		}
	}
	number := func(p pmetric.NumberDataPoint) {
		v := p.DoubleValue()
		if p.ValueType() == pmetric.NumberDataPointValueTypeInt {
			v = float64(p.IntValue())
		}
		put(name, p.Attributes(), v)
	}
	switch m.Type() {
	case pmetric.MetricTypeGauge:
		for _, p := range m.Gauge().DataPoints().All() {
			number(p)
		}
	case pmetric.MetricTypeSum:
		if !m.Sum().IsMonotonic() || m.Sum().AggregationTemporality() != pmetric.AggregationTemporalityCumulative {
			return fmt.Errorf("%s is not a counter of Prometheus", m.Name())
		}
		for _, p := range m.Sum().DataPoints().All() {
			number(p)
		}
	case pmetric.MetricTypeHistogram:
		if m.Histogram().AggregationTemporality() != pmetric.AggregationTemporalityCumulative {
			return fmt.Errorf("%s is not a histogram of Prometheus", m.Name())
		}
		for _, p := range m.Histogram().DataPoints().All() {
			put(name+"_count", p.Attributes(), float64(p.Count()))
			put(name+"_sum", p.Attributes(), p.Sum())
			below := uint64(0)
			bounds := append(p.ExplicitBounds().AsRaw(), math.Inf(1))
			for i, n := range p.BucketCounts().AsRaw() {
				below += n
				put(name+"_bucket", p.Attributes(), float64(below), "le", strconv.FormatFloat(bounds[i], 'g', -1, 64))
			}
		}
	default:
		return fmt.Errorf("%s is of a type that is not known here", m.Name())
	}
	return err
}

func labels(of pcommon.Map, more ...string) (string, error) {
	var list []string
	add := func(k, v string) {
		list = append(list, k+`="`+strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`).Replace(v)+`"`)
	}
	for k, v := range of.All() {
		name, err := (&otlptranslator.LabelNamer{}).Build(k)
		if err != nil {
			return "", err
		}
		add(name, v.AsString())
	}
	for i := 0; i < len(more); i += 2 {
		add(more[i], more[i+1])
	}
	slices.Sort(list)
	return "{" + strings.Join(list, ",") + "}", nil
}

// ServeHTTP serves the page.
func (s *sink) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, series := range slices.Sorted(maps.Keys(s.values)) {
		_, _ = fmt.Fprintf(w, "%s %v\n", series, s.values[series])
	}
}
