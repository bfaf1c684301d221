// Package config holds the settings that every program shares, and the strict
// reading of files, environment and flags.
package config

import "time"

// Settings are the traditional settings: one set for a whole fleet, decided by
// the aggregator. They stand at the top level of a configuration file.
type Settings struct {
	// Timeout is how often live views and provisional buckets are renewed.
	Timeout time.Duration `yaml:"timeout"`
	// DashboardBucketSize is the width of an interval: a divisor of one minute, at least 1s.
	DashboardBucketSize time.Duration `yaml:"dashboard_bucket_size"`
	// AverageBucketSize is the width of a window that the rule judges: a multiple of the interval.
	AverageBucketSize time.Duration `yaml:"average_bucket_size"`
	// AverageThreshold is how many percent above the baseline a window may have.
	AverageThreshold int64 `yaml:"average_threshold"`
	// AverageLearningDuration is how long the baseline is learned: a multiple of the interval; 0 is AverageBucketSize.
	AverageLearningDuration time.Duration `yaml:"average_learning_duration"`
	// MaxStrLength bounds every stored string, in bytes.
	MaxStrLength int `yaml:"max_str_length"`
	// MaxTopHits is how many rows a top list shows.
	MaxTopHits int `yaml:"max_top_hits"`
	// MaxRetentionLength is how long intervals and alert history are kept.
	MaxRetentionLength time.Duration `yaml:"max_retention_length"`
	// MaxLate is how late a bucket may arrive and still be stored.
	MaxLate time.Duration `yaml:"max_late"`
	// MaxKeys bounds the rows of each table of each host and interval.
	MaxKeys int `yaml:"max_keys"`
	// HostGoneAfter is the silence after which a host is no longer waited for.
	HostGoneAfter time.Duration `yaml:"host_gone_after"`
	// Statistics lists the statistics to keep, by name; empty is the built-in ones.
	Statistics []string `yaml:"statistics"`
}

// DefaultSettings returns the defaults of DESIGN section 8.
func DefaultSettings() Settings {
	return Settings{
		Timeout:             2 * time.Second,
		DashboardBucketSize: 10 * time.Second,
		AverageBucketSize:   2 * time.Minute,
		AverageThreshold:    10,
		MaxStrLength:        1024,
		MaxTopHits:          10,
		MaxRetentionLength:  24 * time.Hour,
		MaxLate:             24 * time.Hour,
		MaxKeys:             1000,
		HostGoneAfter:       5 * time.Minute,
	}
}

// Size is a number of bytes that files may write as "64KiB", "32MiB", "1GiB" or a plain number.
type Size int64

// Units of Size.
const (
	KiB Size = 1 << 10
	MiB Size = 1 << 20
	GiB Size = 1 << 30
)
