// Package view turns answers of the aggregator into rows, and rows into
// tables, JSON and CSV, and draws the dashboard. It is pure: it reads no clock
// and does no I/O but to the writer it is given. Strings in the model are as
// they came from the network; they are cleaned where they are drawn.
package view

import (
	"strings"
	"time"
)

// State is a state of the alert rule.
type State string

// The states of DESIGN section 7, and one for an answer without state.
const (
	Unknown   State = "unknown"
	Learning  State = "learning"
	Normal    State = "normal"
	Alerting  State = "alert"
	Dismissed State = "dismissed"
)

// Health says how current a host is.
type Health string

// The healths of a host.
const (
	HealthUnknown Health = "unknown"
	Reporting     Health = "reporting"
	Late          Health = "late"
	Gone          Health = "gone"
)

// Count is a named number.
type Count struct {
	Name  string
	Value uint64
}

// Dashboard is all that the dashboard shows, of one moment.
type Dashboard struct {
	Status Status
	Tops   []Top
	Alerts Alerts
	Hosts  []Host
	// RateHistory holds requests per interval, oldest first.
	RateHistory []uint64
	// Notes name lists that the filters do not apply to.
	Notes []string
	// Filter describes the filters in words, "" without.
	Filter string
}

// Status is where the fleet stands. Zero times are unknown.
type Status struct {
	Time             time.Time // by the aggregator's clock
	Version          string
	Interval, Window time.Duration
	Alert            AlertStatus
	RateNow          float64 // requests per second
	RateAverage      float64
	IntervalRequests uint64
	IntervalStart    time.Time
	Fleet            Fleet
	// Loss is what was not seen.
	Loss []Count
	// Packets is how many the agents read, nil if the aggregator does not tell. OtherProtocols are the connections, and
	// datagrams, that are not HTTP/1 and so not looked into.
	Packets        *uint64
	OtherProtocols []Count
	Refresh        time.Duration
	Requests       uint64
	Since, Until   time.Time // the range of RateAverage, Requests and Loss
	Warnings       []string
}

// Fleet counts hosts by health.
type Fleet struct{ Reporting, Late, Gone uint32 }

// AlertStatus is where the rule stands. Pointers are nil while learning.
type AlertStatus struct {
	Scope                      string
	State                      State
	Since                      time.Time
	Baseline                   *int64
	ThresholdPercent           int64
	ThresholdRequests          *int64
	WindowStart, WindowEnd     time.Time
	WindowRequests             uint64
	LearningStart, LearningEnd time.Time
	EstimatedBaseline          int64
	LastRequests               *int64
	LastWindowEnd              time.Time
	LastIncomplete             bool
	JoinedHosts                []string
}

// ColumnKind says what a value column of a top list holds.
type ColumnKind uint8

// The kinds of columns.
const (
	Sum ColumnKind = iota
	Max
	LatencyColumn
)

// Dimension describes a top list.
type Dimension struct {
	Name, Title string
	Keys        []string
	Columns     []Measure
	Filters     []string
}

// Measure is one value column of a top list; the first is hits.
type Measure struct {
	Name string
	// Unit is a UCUM unit: "By", "ns", "{request}".
	Unit string
	Kind ColumnKind
}

// Latency is a summary of durations.
type Latency struct {
	Count                        uint64
	Average, P50, P95, P99, Peak time.Duration
}

// Value is one cell of a top list.
type Value struct {
	Number  int64
	Latency *Latency
}

// TopRow is one row of a top list. Values are parallel to Dimension.Columns.
type TopRow struct {
	Keys   []string
	Values []Value
	// Error is how much larger the hits may be.
	Error int64
}

// Top is one top list.
type Top struct {
	Dimension
	Rows []TopRow
	// Other adds up what the rows do not show; nil if nothing is left.
	Other *TopRow
	// Total is the sum of hits, the 100% of share.
	Total int64
	// Floor bounds the hits of an absent key; 0: the list is exact.
	Floor            int64
	Since, Until     time.Time
	DamagedIntervals uint32
	Skipped          uint64 // buckets with the statistic in another version than most hosts have, which are left out
	// Latency is that of rows and Other together; nil for a list without.
	Latency *Latency
	// Classes say of a list by status how exchanges ended, by class: "5xx", and "-" without a response, which are no hits of such a list.
	Classes  []Count
	Coverage *Coverage // nil: not told
	Loss     []Count
}

// Alerts is the alert history.
type Alerts struct {
	Alerts                       []Alert // newest first
	MaxDuration, AverageDuration time.Duration
	// Time is when the answer was made: an open episode lasts until then.
	Time time.Time
	// Active says that only the one that is active was asked for.
	Active bool
}

// Alert is one episode. End is zero while it is open.
type Alert struct {
	Scope            string
	State            State
	Start, End       time.Time
	Baseline         int64
	ThresholdPercent int64
	Entries          []AlertEntry
	JoinedHosts      []string
}

// AlertEntry is one window above the threshold.
type AlertEntry struct {
	Time       time.Time
	Hits       int64
	Incomplete bool
	LateHits   int64
}

// Duration is the length of the episode; of an open one, up to now.
func (a *Alert) Duration(now time.Time) time.Duration {
	end := a.End
	if end.IsZero() {
		end = now
	}
	return max(end.Sub(a.Start), 0)
}

// Peak is the largest number of hits in one window.
func (a *Alert) Peak() (hits int64) {
	for _, e := range a.Entries {
		hits = max(hits, e.Hits)
	}
	return hits
}

// Host is one monitored host.
type Host struct {
	ID, Name       string
	Health         Health
	CoveredThrough time.Time
	FirstSeen      time.Time
	Version        string
	Connected      bool
	Backlog        uint64
	Requests       uint64
	Rate           float64
	Counters       []Count
	Open           uint64
	// SameID names the agents that deliver under this host's id, when there are several.
	SameID []string
}

// Is reports whether a filter means the host: its name or id, in any case.
func (h Host) Is(name string) bool {
	return strings.EqualFold(h.Name, name) || strings.EqualFold(h.ID, name)
}

// Baseline is what was learned.
type Baseline struct {
	Alert          AlertStatus
	From, Until    time.Time
	Requests       int64
	CoveredSeconds int64
	Hosts          []string
	Restarts       uint32
}
