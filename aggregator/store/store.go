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
	// no-op, reported as Duplicate. What is appended is visible to the next
	// call of any method. results is parallel to batch. After an error nothing
	// may be acknowledged: the batch is on stable storage or not, and appending
	// it again tells which. When it was the commit that failed, results say all the same
	// what would have become of each item.
	Append(ctx context.Context, batch []Item) (results []Result, err error)

	// Query runs a plan. It does not hold up Append.
	Query(ctx context.Context, plan Plan) (*Answer, error)

	// Schemas returns the schema of each table in the buckets of [from, to), sorted by name: of each name the one that most
	// hosts have now, of equally many the older version. It reads from the newest
	// bucket back until it has seen MaxSchemaBuckets of them with tables, but not more than a quarter as many of one host, with tables or
	// without, so a statistic that only an old bucket has may be missing. Where it finds few, the newest roll-up tells of more.
	Schemas(ctx context.Context, from, to int64) ([]bucket.Schema, error)

	// Hosts returns what is known of every host, sorted by name, then id.
	Hosts(ctx context.Context) ([]Host, error)

	// Get returns the value of a key and its version. A missing key has
	// version 0 and a nil value, and is not an error.
	Get(ctx context.Context, key string) (value []byte, version uint64, err error)
	// CompareAndSwap durably sets key if its version is still the given one (0:
	// missing), and returns the new version. It returns ErrConflict otherwise.
	// A nil value deletes, and returns version 0. Versions are never used
	// twice, also not after a delete. Keys have 1 to 1024 bytes.
	CompareAndSwap(ctx context.Context, key string, version uint64, value []byte) (uint64, error)
	// List calls f for the keys in [from, to), sorted, until f returns an error,
	// which List returns; an empty to is no bound. value is borrowed for the
	// call. f may call the store; what it changes further on may or may not be seen.
	List(ctx context.Context, from, to string, f func(key string, value []byte, version uint64) error) error

	// Rollup brings roll-ups up to date: those that ended at or before ended (nanoseconds) and in
	// which something was appended since they were made, minutes first, then hours, then days. It
	// holds up neither Append nor Query, which does without those that are not up to date. When ctx
	// ends, what is done stays done.
	Rollup(ctx context.Context, ended int64) (Progress, error)

	// Purge drops the intervals that start before t (nanoseconds, rounded down to a whole minute),
	// and seals them: from then on what is appended there is Expired. Their roll-ups are
	// brought up to date first, so nothing goes that is in none. Hosts whose
	// last bucket goes become past hosts. It returns how many intervals went. The
	// floor never sinks: an earlier t changes nothing.
	Purge(ctx context.Context, t int64) (int, error)
	// PurgeRollups drops the roll-ups of a resolution that start before t, rounded down to a whole
	// one of the next coarser, which is brought up to date first. None is dropped before those that it
	// is made of. Past hosts of which no day is left are forgotten. It returns how many steps went.
	PurgeRollups(ctx context.Context, r Resolution, t int64) (int, error)
	// PastHosts returns the hosts of which only roll-ups are left, with ID, Name, FirstStart and
	// LastEnd, sorted as Hosts.
	PastHosts(ctx context.Context) ([]Host, error)

	// Stats describes the engine for operators.
	Stats() Stats
	Close() error
}

// Expecter is a Store that answers many plans of the same time faster when it is told of them before. Expect may take as long as
// they do, and is never needed; what fails there is told by the plan that it is about.
type Expecter interface {
	Expect(ctx context.Context, plans []Plan) error
}

// MaxSchemaBuckets is how many buckets Schemas reads: some hundred hosts' last,
// in tens of milliseconds.
const MaxSchemaBuckets = 256

// Item is one bucket to append: its encoding and the header decoded from it.
type Item struct {
	Header *bucket.Header
	Data   []byte
	// Skewed marks a bucket whose interval was more than five minutes ahead when it arrived
	// (DESIGN section 6): it is stored, and never judged. The first time that it is stored counts.
	Skewed bool
	// Ahead marks a bucket that its agent has sent before older ones, which will follow: what is
	// missing before it is not lost.
	Ahead bool
	// Outline is that of Data, from whoever has decoded it anyway; nil is fine. The engine may keep it.
	Outline *Outline
}

// Result is what became of an Item.
type Result uint8

// What becomes of an Item.
const (
	Stored    Result = iota
	Duplicate        // was there already
	Expired          // its interval is sealed
	// Mismatch: the name is there with other bytes. Nothing was changed for
	// this item: a final bucket never changes.
	Mismatch
	// Crowded: of its host and interval MaxBuckets are there. Nothing was changed for this item.
	Crowded
)

// MaxBuckets bounds the buckets of one host and interval. Of an interval of a minute, which is the longest, an agent that is started anew each second
// makes 60, and one to which things come late one more for each interval that closes meanwhile.
const MaxBuckets = 256

// Plan is a question. Engines push it down as far as they can, and answer it from
// roll-ups where whole ones lie within it. Numbers are the same; bounds of tables
// that are not exact may be wider, and where only coarser roll-ups are left than fit into
// its range or its steps, that time is not covered.
type Plan struct {
	// Table to read; "" reads headers and counters only.
	Table string
	// Schema, if set, is the version of the table, and its columns, that is added up; what differs is skipped, and no reason to fail. Nil
	// adds up the newest version that there is, of one version the columns that come first: it is for tables of which nobody can bring others.
	Schema *bucket.Schema
	// From and To bound the intervals by their start: From <= start < To (nanoseconds).
	From, To int64
	// Hosts restricts to these hosts; empty is all.
	Hosts []bucket.ID
	// Where keeps the rows that match every condition. As nobody knows which
	// folded rows match, the answer's Other then holds only what MaxRows cut,
	// and its errors and floor say how much may be hidden.
	Where []Condition
	// By keeps these key columns, in order, and adds up rows that differ in
	// others; nil keeps all, an empty list gives one row.
	By []string
	// Step, a multiple of the interval's width, splits the answer by time into
	// steps that tile from From; 0 gives one slice.
	Step time.Duration
	// Judged leaves out what is never judged: buckets marked as skewed.
	Judged bool
	// PerHost splits the answer by host.
	PerHost bool
	// MaxRows bounds the rows of each slice, the largest first measures being
	// kept; 0 is no bound but the engine's own.
	MaxRows int
	// Numbers leaves response times out: who asks reads none, and engines may leave the sketches of the answer empty.
	// Adding them up is most of the work of a table that has them.
	Numbers bool
	// Sum leaves tables under way, in Slice.Sum instead of Slice.Table, for those who want their first rows only, or add to them.
	// MaxRows is of no effect then.
	Sum bool
}

// Fits reports whether the intervals of [start, end) all belong to one slice of
// the plan, so that a sum of them can stand for them.
func (p *Plan) Fits(start, end int64) bool {
	if start < p.From || end > p.To || p.Judged {
		return false
	}
	return p.Step <= 0 || (start-p.From)/int64(p.Step) == (end-1-p.From)/int64(p.Step)
}

// Condition keeps the rows with one of the values in a key column.
type Condition = bucket.Condition

// Answer is what a plan found.
type Answer struct {
	// Slices are sorted by start, then host id. Steps and hosts without buckets have none.
	Slices []Slice
	// Damaged lists the intervals (starts) of which something failed its checksum and was left
	// out. It is never silent.
	Damaged []int64
}

// Slice is the sum over one step and host (or all).
type Slice struct {
	// Start and End bound the step, cut to the plan's From and To.
	Start, End int64
	Host       bucket.ID // zero when not PerHost
	// Table is nil if no bucket of the slice had it. When buckets have it in
	// several versions, it is the plan's, or the newest.
	Table *bucket.Table
	// Sum stands for Table where the plan asks for it, and is nil where it does not.
	Sum *Sum
	// Skipped counts the buckets whose table had another version, or other
	// columns, or a sum that no roll-up could keep, and was left out.
	Skipped  int
	Counters exchange.Counters
	// Hosts names the hosts with at least one bucket in the slice, sorted.
	Hosts []bucket.ID
	// Covered lists the spans of the intervals for which there are buckets, merged.
	Covered []bucket.Span
	// Unobserved is what the buckets of the slice declare, clipped to the slice, merged.
	Unobserved []bucket.Span
	Buckets    int
}

// Host is what the store remembers of a host, kept in the same transaction as its buckets.
type Host struct {
	ID   bucket.ID
	Name string
	// FirstStart is the start of the first bucket ever stored, LastEnd the end of the newest.
	FirstStart, LastEnd int64
	// CoveredThrough: all that happened on the host before it has arrived or is
	// declared unobserved. It comes from ordinals without a hole, and rests
	// while one is missing. It never goes back. HostRecord has the details.
	CoveredThrough int64
	// CurrentThrough is what Incarnation alone has covered without a hole, 0 if nothing. It is less than
	// CoveredThrough where an incarnation before it came further: see Covered.
	CurrentThrough int64
	// Incarnation is the one whose first bucket arrived last.
	Incarnation bucket.ID
	// LastOpen is the gauge of the newest bucket.
	LastOpen uint64
}

// Covered is CoveredThrough as far as it can be believed at a time (nanoseconds). Nothing has
// happened yet after now; where the host's coverage says otherwise, and its present incarnation
// has not come so far, the clock ran ahead and was set right since.
func (h *Host) Covered(now int64) int64 {
	if h.CoveredThrough > now && h.CurrentThrough > 0 {
		return min(h.CoveredThrough, h.CurrentThrough)
	}
	return h.CoveredThrough
}

// Stats describes an engine.
type Stats struct {
	Path        string
	Bytes       int64 // size of the files
	Intervals   int
	Buckets     uint64
	OldestStart int64 // 0 when the store is empty, as is NewestEnd
	NewestEnd   int64
	// SealedThrough: intervals that start before it are sealed.
	SealedThrough int64
	// Rollups counts the steps of each resolution (0 of Raw), of hosts and fleet together.
	Rollups [Day + 1]int
	// Dirty counts the roll-ups in which something was appended since they were made, those under way included.
	Dirty int
	// Expired counts what was appended to sealed intervals, since the store was made.
	Expired uint64
	// ChecksumErrors counts the failed checks that reads and appends met since
	// the store was opened; the same damage counts each time.
	ChecksumErrors uint64
	// SumBytes is what the sums that are kept for the next query take in memory; SumsUsed and SumsMade count those that were
	// there when a query needed them, and that it had to make.
	SumBytes           int64
	SumsUsed, SumsMade uint64
	// Reopened counts how often a failed commit made the engine open its files
	// again to see what is there, since the store was opened.
	Reopened uint64
	// Faults counts the faults of this program that cost it sums that were kept for the next query, since the store was opened.
	// The query adds up what they were made of.
	Faults uint64
}

// ErrConflict is returned by CompareAndSwap when someone else was faster.
var ErrConflict = errors.New("the key has another version")

// ErrCorrupt is wrapped by errors about damaged files.
var ErrCorrupt = errors.New("the store is damaged")

// ErrVersion is wrapped by errors about files of a newer program.
var ErrVersion = errors.New("the store was written by a newer version of this program")

// ErrColumn is wrapped by Query's error when a plan names a column that the
// table does not have.
var ErrColumn = bucket.ErrColumn
