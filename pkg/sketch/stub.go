package sketch

// Add records one duration in nanoseconds; a negative one counts as 0.
func (l *Latency) Add(ns int64) { panic("stub") }

// Merge adds o to l and takes no memory of it.
func (l *Latency) Merge(o *Latency) { panic("stub") }

// Quantile returns the q-quantile in nanoseconds (0 <= q <= 1), or 0 when empty.
func (l *Latency) Quantile(q float64) int64 { panic("stub") }

// Mean returns the exact average in nanoseconds, or 0 when empty.
func (l *Latency) Mean() int64 { panic("stub") }
