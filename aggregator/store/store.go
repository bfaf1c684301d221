// Package store keeps buckets, verdicts and state durably. Store is the
// interface; package bolt below it is the default engine. No engine's type
// appears here.
package store

import (
	"context"
	"errors"
	"time"

	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/exchange"
)

// Store is what the aggregator keeps. All methods are safe for concurrent use.
type Store interface {
	// Append stores encoded final buckets, all or none, and returns after they
	// are on stable storage. Appending a Name that is there already is a
	// no-op, reported as Duplicate. What is appended is visible to the next call of any
	// method. results is parallel to batch.
	Append(ctx context.Context, batch []Item) (results []Result, err error)

	// Query runs a plan.
	Query(ctx context.Context, plan Plan) (*Answer, error)

	// Hosts returns what is known of every host, sorted by name, then id.
	Hosts(ctx context.Context) ([]Host, error)

	// Get returns the value of a key and its version. A missing key has
	// version 0 and a nil value, and is not an error.
	Get(ctx context.Context, key string) (value []byte, version uint64, err error)
	// CompareAndSwap durably sets key if its version is still the given one (0: missing), and
	// returns the new version. It returns ErrConflict otherwise. A nil value deletes.
	CompareAndSwap(ctx context.Context, key string, version uint64, value []byte) (uint64, error)
	// List calls f for the keys in [from, to), sorted, until f returns an error, which List returns.
	// value is borrowed for the call.
	List(ctx context.Context, from, to string, f func(key string, value []byte, version uint64) error) error

	// Purge drops whole intervals that ended at or before t (nanoseconds), and seals them: from then on
	// what is appended there is Expired. It returns how many intervals went.
	Purge(ctx context.Context, t int64) (int, error)

	// Stats describes the engine for operators.
	Stats() Stats
	Close() error
}

// Item is one bucket to append: its encoding and the header decoded from it.
type Item struct {
	Header *bucket.Header
	Data   []byte
}

// Result is what became of an Item.
type Result uint8

// What becomes of an Item.
const (
	Stored    Result = iota
	Duplicate        // was there already
	Expired          // its interval is sealed
	// Mismatch: the name is there with other bytes. Nothing was changed: a final bucket never changes.
	Mismatch
)

// Plan is a question. Engines push it down as far as they can.
type Plan struct {
	// Table to read; "" reads headers and counters only.
	Table string
	// From and To bound the intervals by their start: From <= start < To (nanoseconds).
	From, To int64
	// Hosts restricts to these hosts; empty is all.
	Hosts []bucket.ID
	// Where keeps the rows that match every condition.
	Where []Condition
	// By keeps these key columns, in order, and adds up rows that differ in others; nil keeps all.
	By []string
	// Step, a multiple of the interval's width, splits the answer by time; 0 gives one slice.
	Step time.Duration
	// PerHost splits the answer by host.
	PerHost bool
	// MaxRows bounds the rows of each slice; 0 is no bound.
	MaxRows int
}

// Condition holds when the key column has one of the values. A value ending in "*" matches by prefix, and
// in the column "status" also "5xx".
type Condition struct {
	Column string
	Values []string
}

// Answer is what a plan found.
type Answer struct {
	// Slices are sorted by start, then host id. Steps and hosts without buckets have none.
	Slices []Slice
	// Damaged lists the intervals (starts) of which something failed its checksum and was left out. It is never silent.
	Damaged []int64
}

// Slice is the sum over one step and host (or all).
type Slice struct {
	Start, End int64
	Host       bucket.ID // zero when not PerHost
	// Table is nil if no bucket of the slice had it.
	Table *bucket.Table
	// Schema conflicts: buckets whose table had another version and was left out.
	Skipped  int
	Counters exchange.Counters
	// Hosts names the hosts with at least one bucket in the slice. Covered lists the intervals' spans for which there are buckets, merged.
	Hosts   []bucket.ID
	Covered []bucket.Span
	// Unobserved is what the buckets of the slice declare, clipped to the slice, merged.
	Unobserved []bucket.Span
	// Last event time is the newest bucket end.
	Buckets int
}

// Host is what the store remembers of a host, kept in the same transaction as its buckets.
type Host struct {
	ID   bucket.ID
	Name string
	// FirstStart is the start of the first bucket ever stored, LastEnd the end of the newest.
	FirstStart, LastEnd int64
	// CoveredThrough: all that happened on the host before it has arrived or is declared unobserved. It comes from the
	// newest incarnation's ordinals without a hole, and rests while one is missing.
	CoveredThrough int64
	Incarnation    bucket.ID
	// LastOpen is the gauge of the newest bucket.
	LastOpen uint64
}

// Stats describes an engine.
type Stats struct {
	Path           string
	Bytes          int64 // size of the files
	Intervals      int
	Buckets        uint64
	OldestStart    int64
	NewestEnd      int64
	SealedThrough  int64 // intervals ending here or before are sealed
	Expired        uint64
	ChecksumErrors uint64
}

// ErrConflict is returned by CompareAndSwap when someone else was faster.
var ErrConflict = errors.New("the key has another version")

// ErrCorrupt is wrapped by errors about damaged files.
var ErrCorrupt = errors.New("the store is damaged")

// ErrColumn is wrapped by Query's error when a plan names a column that the table does not have.
var ErrColumn = errors.New("the table has no such column")
