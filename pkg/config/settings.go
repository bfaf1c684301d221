// Package config holds the settings that every program shares, and the strict
// reading of files, environment and flags, in that rising order.
//
// There is one file format for all programs: the traditional [Settings] at the
// top level, and the sections agent, aggregator and log. Every program accepts
// the whole file and reads its part. Unknown keys are errors.
package config

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Settings are the traditional settings: one set for a whole fleet, decided by
// the aggregator. They stand at the top level of a configuration file.
type Settings struct {
	// Timeout is how often live views and provisional buckets are renewed.
	// 100ms to 1m, default 2s. A shorter one costs each agent a message as often
	// while someone watches, and nothing otherwise.
	Timeout time.Duration `yaml:"timeout" by:"aggregator" reload:"at once"`
	// DashboardBucketSize is the width of an interval, the unit in which
	// everything is counted and sent: a whole number of seconds that divides
	// one minute. Default 10s. A shorter one multiplies messages and storage.
	DashboardBucketSize time.Duration `yaml:"dashboard_bucket_size"`
	// AverageBucketSize is the width of a window that the rule judges: a
	// multiple of the interval, at most 24h. Default 2m. A shorter one alerts sooner
	// and on smaller bursts.
	AverageBucketSize time.Duration `yaml:"average_bucket_size" by:"aggregator" reload:"at once: a new baseline is learned"`
	// AverageThreshold is how many percent above the baseline a window may
	// have without alert. 0 to 1000000, default 10.
	AverageThreshold int64 `yaml:"average_threshold" by:"aggregator" reload:"for the window under way and later ones"`
	// AverageLearningDuration is how long the baseline is learned: a multiple
	// of the interval, at most 31d and MaxRetentionLength + MaxLate, as what was counted before that is
	// gone when learning ends. 0, the default, is AverageBucketSize; see [Settings.Learning].
	AverageLearningDuration time.Duration `yaml:"average_learning_duration" by:"aggregator" reload:"at once while learning, else when the baseline is learned anew"`
	// MaxStrLength bounds every stored string, in bytes: 16 to 65536, default
	// 1024. Longer strings are cut and marked with a hash.
	MaxStrLength int `yaml:"max_str_length" by:"agent"`
	// MaxTopHits is how many rows a top list shows: 1 to MaxKeys, default 10.
	MaxTopHits int `yaml:"max_top_hits" by:"aggregator" reload:"at once"`
	// MaxRetentionLength is how long intervals and alert history are kept: a
	// multiple of the interval, at least one window, at most 366d. Default 24h. It sets
	// the size of the aggregator's database.
	MaxRetentionLength time.Duration `yaml:"max_retention_length" by:"aggregator" reload:"at once"`
	// MaxLate is how long after retention a late bucket may still arrive and be
	// stored: a multiple of the interval, 0 to 366d. Default 24h, a day's absence of an agent.
	MaxLate time.Duration `yaml:"max_late" by:"aggregator" reload:"at once"`
	// MaxKeys bounds the rows of each table of each host and interval: 10 to
	// 1000000, default 1000. Keys with a share above 1/MaxKeys are always present. It
	// sets the memory of agents and the size of messages.
	MaxKeys int `yaml:"max_keys" by:"agent"`
	// HostGoneAfter is the silence after which a host is no longer waited for:
	// at least three intervals, at most 31d. Default 5m.
	HostGoneAfter time.Duration `yaml:"host_gone_after" by:"aggregator" reload:"at once"`
	// Statistics lists the statistics to keep, by name. Empty, the default, is
	// the built-in ones.
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

// Learning returns AverageLearningDuration, or AverageBucketSize where it is 0.
func (s *Settings) Learning() time.Duration {
	if s.AverageLearningDuration == 0 {
		return s.AverageBucketSize
	}
	return s.AverageLearningDuration
}

const day = 24 * time.Hour

// Validate returns nil or [Faults], one for each value that is not allowed.
// statistics lists the names that Statistics may hold; nil leaves them unchecked.
func (s *Settings) Validate(statistics []string) error {
	var c Check
	duration := func(key string, d, low, high time.Duration) bool {
		return c.That(d >= low && d <= high, key, d,
			fmt.Sprintf("%s to %s", FormatDuration(low), FormatDuration(high)))
	}
	number := func(key string, n, low, high int64) bool {
		return c.That(n >= low && n <= high, key, n, fmt.Sprintf("%d to %d", low, high))
	}
	duration("timeout", s.Timeout, 100*time.Millisecond, time.Minute)

	width := s.DashboardBucketSize
	widthOK := c.That(width >= time.Second && width%time.Second == 0 && time.Minute%width == 0,
		"dashboard_bucket_size", width, "whole seconds that divide one minute: 1s, 2s, 3s, 4s, 5s, 6s, 10s, 12s, 15s, 20s, 30s or 1m")
	multiple := func(key string, d time.Duration) {
		if widthOK {
			c.That(d%width == 0, key, d, "a multiple of dashboard_bucket_size, "+FormatDuration(width))
		}
	}
	windowOK := duration("average_bucket_size", s.AverageBucketSize, time.Second, day)
	if windowOK {
		multiple("average_bucket_size", s.AverageBucketSize)
	}
	number("average_threshold", s.AverageThreshold, 0, 1_000_000)
	learningOK := duration("average_learning_duration", s.AverageLearningDuration, 0, 31*day)
	if learningOK {
		multiple("average_learning_duration", s.AverageLearningDuration)
	}
	number("max_str_length", int64(s.MaxStrLength), 16, 65536)
	keysOK := number("max_keys", int64(s.MaxKeys), 10, 1_000_000)
	if number("max_top_hits", int64(s.MaxTopHits), 1, 1_000_000) && keysOK {
		c.That(s.MaxTopHits <= s.MaxKeys, "max_top_hits", s.MaxTopHits, fmt.Sprintf("at most max_keys, %d", s.MaxKeys))
	}
	retentionOK := duration("max_retention_length", s.MaxRetentionLength, time.Second, 366*day)
	if retentionOK {
		multiple("max_retention_length", s.MaxRetentionLength)
		if windowOK {
			c.That(s.MaxRetentionLength >= s.AverageBucketSize, "max_retention_length", s.MaxRetentionLength,
				"at least average_bucket_size, "+FormatDuration(s.AverageBucketSize))
		}
	}
	lateOK := duration("max_late", s.MaxLate, 0, 366*day)
	if lateOK {
		multiple("max_late", s.MaxLate)
	}
	if kept := s.MaxRetentionLength + s.MaxLate; learningOK && retentionOK && lateOK {
		c.That(s.AverageLearningDuration <= kept, "average_learning_duration", s.AverageLearningDuration,
			"at most max_retention_length + max_late, "+FormatDuration(kept)+": what is older is not kept")
	}
	if duration("host_gone_after", s.HostGoneAfter, time.Second, 31*day) && widthOK {
		c.That(s.HostGoneAfter >= 3*width, "host_gone_after", s.HostGoneAfter,
			"at least three times dashboard_bucket_size, "+FormatDuration(3*width))
	}
	for i, name := range s.Statistics {
		key := fmt.Sprintf("statistics[%d]", i)
		c.That(!slices.Contains(s.Statistics[:i], name), key, name, "each statistic once")
		if statistics != nil && !slices.Contains(statistics, name) {
			c.That(false, key, name, "one of "+strings.Join(statistics, ", ")+didYouMean(name, statistics))
		}
	}
	return c.Err()
}

// Log is the section log: where a daemon's own messages go and which.
type Log struct {
	// Level is the least severe message written: debug, info (the default),
	// warn or error.
	Level string `yaml:"level" reload:"at once"`
	// Format is text (the default) or json. Messages go to standard error.
	Format string `yaml:"format"`
}

// DefaultLog returns level info, format text.
func DefaultLog() Log { return Log{Level: "info", Format: "text"} }

// Validate returns nil or [Faults].
func (l *Log) Validate() error {
	var c Check
	c.That(slices.Contains([]string{"debug", "info", "warn", "error"}, l.Level), "level", l.Level, "debug, info, warn or error")
	c.That(l.Format == "text" || l.Format == "json", "format", l.Format, "text or json")
	return c.Err()
}
