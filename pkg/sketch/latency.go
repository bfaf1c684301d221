// Package sketch holds the bounded summaries that tables are made of.
package sketch

// Latency summarises durations in nanoseconds with a relative accuracy of 1%
// (DDSketch, Masson et al. 2019): any quantile it returns is within 1% of an
// observed value. The zero value is empty and ready to use. It is not safe
// for concurrent use.
type Latency struct {
	Count uint64
	Sum   uint64 // nanoseconds
	Min   int64
	Max   int64
	// Bins holds (index, count), by rising index, without zero counts.
	Bins []Bin
}

// Bin is one bin of a Latency sketch.
type Bin struct {
	Index int32
	Count uint64
}
