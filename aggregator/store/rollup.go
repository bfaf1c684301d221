package store

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/sketch"
	"github.com/httpctl/httpctl/pkg/stat"
)

// Resolution is how much time one stored value sums up.
type Resolution uint8

// The resolutions, each made of the one before it. Their steps begin at
// multiples of their length since the epoch, so days are those of UTC.
const (
	Raw    Resolution = iota // buckets as the agents sent them
	Minute                   // roll-ups
	Hour
	Day
)

// Length of one roll-up; 0 for Raw.
func (r Resolution) Length() time.Duration {
	return [...]time.Duration{Raw: 0, Minute: time.Minute, Hour: time.Hour, Day: 24 * time.Hour}[r]
}

// Floor is the start of the roll-up in which a time (nanoseconds, not negative) lies.
func (r Resolution) Floor(t int64) int64 {
	if r == Raw {
		return t
	}
	return t - t%int64(r.Length())
}

func (r Resolution) String() string {
	return [...]string{Raw: "raw", Minute: "minute", Hour: "hour", Day: "day"}[r]
}

// Progress tells what Rollup did, and what is left to do.
type Progress struct {
	Rebuilt int // roll-ups of hosts and of the fleet
	Pending int // that ended and are still to be rebuilt
	// Oldest is the start of the oldest that is pending, 0 if none is.
	Oldest int64
}

// The bounds of a roll-up. Beyond them it says less, and never something wrong.
const (
	// maxRollupSpans: more gaps a day than that in what was covered, or declared
	// unobserved, and the shortest covered spans count as not covered, the shortest
	// gaps between unobserved ones as unobserved.
	maxRollupSpans = 512
	// maxRollupDamage bounds the intervals that a roll-up names as damaged.
	maxRollupDamage = 64
	// maxRollupAbsent bounds the tables that it tells of and does not have.
	maxRollupAbsent = 1024
	// maxRollupRows bounds the rows of each of its tables, however many keys an agent is let keep.
	maxRollupRows = 10_000
	// fleetRows is the least bound for a table of the fleet, which has the keys of many hosts: of 1,000 hosts
	// with 200 keys each of their own the largest 4,096 keep a row.
	fleetRows = 4096
	// maxRollupTables bounds its tables beside those of the statistics that this program knows: an agent may name others, and
	// new ones in each bucket. maxBuilderRows bounds the rows of all while they are added up: 4 tables of the most that one may have.
	maxRollupTables = 64
	maxBuilderRows  = 4 * maxSumRows
)

// A Rollup is the sum of the buckets of one host, or of all, over a minute, an
// hour or a day. Host is zero in that of the fleet, Width is the resolution's
// length. Only what the other fields name is set in the header.
type Rollup struct {
	bucket.Bucket
	// Buckets counts those summed up.
	Buckets int
	// Covered lists the spans of their intervals, merged.
	Covered []bucket.Span
	// Sums tells of each table of how many buckets it is the sum, by name.
	Sums []TableSum
	// Damaged lists the intervals (starts) of which something failed its checksum when
	// they were summed up; of many only the first.
	Damaged []int64
}

// TableSum says what a table of a roll-up holds.
type TableSum struct {
	Name string
	// Buckets had the table, Skipped more had it in another version, or in a sum that could not be kept.
	Buckets, Skipped int
}

// Sum returns what is known of a table, nil if no bucket had it.
func (r *Rollup) Sum(name string) *TableSum {
	for i := range r.Sums {
		if r.Sums[i].Name == name {
			return &r.Sums[i]
		}
	}
	return nil
}

// A RollupBuilder adds up buckets, or roll-ups of a finer resolution, to one
// roll-up. It is not safe for concurrent use.
type RollupBuilder struct {
	out    Rollup
	fleet  bool
	tables map[string]*tableSum    // by name; of the fleet by name and columns, and those of a name that most hosts have are its table
	names  map[string]int          // tables of that name
	others int                     // tables among them that no statistic here has
	rows   int                     // of all tables
	most   int                     // of them; maxBuilderRows but in tests
	absent map[string]int          // buckets skipped of tables that roll-ups added do not have, or that are left out here
	left   map[string]int          // roll-ups that had a table that is left out here
	spares map[string]*Accumulator // of roll-ups before this one, whose memory is used again
}

type tableSum struct {
	sum   *Accumulator
	max   int // rows, the largest bound of those added
	exact bool
	known bool // a statistic of this program has it
	name  string
	votes int // roll-ups that had it: of the fleet, hosts
}

// NewRollupBuilder returns a builder for the roll-up of a host, or of the fleet
// if host is zero, that begins at start.
func NewRollupBuilder(host bucket.ID, r Resolution, start int64) *RollupBuilder {
	b := new(RollupBuilder)
	b.Reset(host, r, start)
	return b
}

// Reset makes b, whatever it has added up, as NewRollupBuilder does, and uses its memory again: what Rollup has returned must not be
// used any more. The zero value may be reset.
func (b *RollupBuilder) Reset(host bucket.ID, r Resolution, start int64) {
	const most = 1 << 20 // bytes of a table whose memory is worth keeping; those of a busy host take a quarter
	spares := b.spares
	for key, sum := range b.tables {
		if sum.known && sum.sum.rows.bytes()+int64(cap(sum.sum.key)) <= most {
			if spares == nil {
				spares = map[string]*Accumulator{}
			}
			sum.sum.reset()
			spares[key] = sum.sum
		}
	}
	*b = RollupBuilder{fleet: host.IsZero(), tables: map[string]*tableSum{}, names: map[string]int{}, most: maxBuilderRows, spares: spares}
	b.out.Host, b.out.Start, b.out.Width, b.out.Final = host, start, r.Length(), true
}

// Add adds a bucket with all its tables.
func (b *RollupBuilder) Add(x *bucket.Bucket) error {
	r := Rollup{Bucket: *x, Buckets: 1, Covered: []bucket.Span{{From: x.Start, To: x.End()}}}
	return b.AddRollup(&r)
}

// AddRollup adds a roll-up with all its tables; its Sums may be left out where it is of one bucket.
func (b *RollupBuilder) AddRollup(r *Rollup) error {
	b.out.Buckets += r.Buckets
	b.out.Counters.Add(&r.Counters)
	for _, s := range r.Covered {
		b.out.Covered = extend(b.out.Covered, s)
	}
	for _, s := range r.Unobserved {
		if s.From < s.To {
			b.out.Unobserved = extend(b.out.Unobserved, s)
		}
	}
	// Fleets and days come to many spans, nearly all of them the same.
	if len(b.out.Covered) > 4*maxRollupSpans {
		b.out.Covered = bucket.MergeSpans(b.out.Covered)
	}
	if len(b.out.Unobserved) > 4*maxRollupSpans {
		b.out.Unobserved = bucket.MergeSpans(b.out.Unobserved)
	}
	for _, start := range r.Damaged {
		b.Damage(start)
	}
	if r.HostName != "" && !b.fleet {
		b.out.HostName = r.HostName
	}
	for _, t := range r.Tables {
		n, skipped := 1, 0
		if s := r.Sum(t.Schema.Name); s != nil {
			n, skipped = s.Buckets, s.Skipped
		}
		sum := b.table(&t.Schema, n, skipped)
		if sum == nil {
			continue
		}
		sum.votes++
		if t.Schema.Exact { // it may hold many more, and none is to be folded
			sum.exact, sum.sum.limit = true, maxSumRows
		}
		sum.max = max(sum.max, t.Max)
		b.rows -= sum.sum.rows.len()
		if err := sum.sum.AddSum(t, n, skipped); err != nil {
			return err
		}
		for b.rows += sum.sum.rows.len(); b.rows > b.most; {
			b.pruneLargest()
		}
	}
	if len(r.Sums) > len(r.Tables) {
		b.addAbsent(r)
	}
	return nil
}

// table returns the sum of a table, of which n more buckets come and skipped do not; nil if there are too many tables
// already, and it is left out.
func (b *RollupBuilder) table(s *bucket.Schema, n, skipped int) *tableSum {
	name, key := s.Name, s.Name
	if b.fleet {
		key += " " + s.Columns()
	}
	if sum := b.tables[key]; sum != nil {
		return sum
	}
	sum := &tableSum{sum: b.spares[key], name: name, known: stat.Known(name) && b.names[name] == 0}
	if delete(b.spares, key); sum.sum == nil {
		sum.sum = NewAccumulator(nil, nil)
	}
	if b.fleet {
		sum.sum.limit = 4 * fleetRows
	}
	if !sum.known {
		if b.others == maxRollupTables && !b.makeRoom(b.left[name]+1) {
			b.leave(name, n+skipped, 1)
			return nil
		}
		b.others++
	}
	b.tables[key] = sum
	b.names[name]++
	return sum
}

// makeRoom leaves out the table that the fewest roll-ups have, if they are no more than n: what many hosts have stays beside
// what one makes up, in however many buckets.
func (b *RollupBuilder) makeRoom(n int) bool {
	least, found := "", (*tableSum)(nil)
	votes := func(sum *tableSum) int { return sum.votes + b.left[sum.name] }
	for key, sum := range b.tables {
		if !sum.known && (found == nil || cmp.Or(cmp.Compare(votes(sum), votes(found)), cmp.Compare(key, least)) < 0) {
			least, found = key, sum
		}
	}
	if votes(found) > n {
		return false
	}
	b.leave(found.name, found.sum.added+found.sum.skipped, found.votes)
	b.names[found.name]--
	b.rows -= found.sum.rows.len()
	delete(b.tables, least)
	b.others--
	return true
}

// leave notes that a table is left out, of so many buckets in so many roll-ups.
func (b *RollupBuilder) leave(name string, buckets, votes int) {
	b.skip(name, buckets)
	b.Damage(b.out.Start)
	if _, known := b.left[name]; !known && len(b.left) >= maxRollupAbsent {
		return
	}
	if b.left == nil {
		b.left = map[string]int{}
	}
	b.left[name] += votes
}

// skip counts buckets whose table is left out.
func (b *RollupBuilder) skip(name string, n int) {
	if _, known := b.absent[name]; n == 0 || !known && len(b.absent) >= maxRollupAbsent {
		return
	}
	if b.absent == nil {
		b.absent = map[string]int{}
	}
	b.absent[name] += n
}

// pruneLargest drops the smaller half of the rows of the largest table.
func (b *RollupBuilder) pruneLargest() {
	most, found := "", (*tableSum)(nil)
	for name, sum := range b.tables {
		if found == nil || cmp.Or(cmp.Compare(found.sum.rows.len(), sum.sum.rows.len()), cmp.Compare(name, most)) < 0 {
			most, found = name, sum
		}
	}
	b.rows -= found.sum.rows.len()
	found.sum.pruneTo(found.sum.rows.len() / 2) // most is more than one row a table
	b.rows += found.sum.rows.len()
}

// addAbsent counts what a roll-up skipped of the tables that it does not have.
func (b *RollupBuilder) addAbsent(r *Rollup) {
	there := make(map[string]bool, len(r.Tables))
	for _, t := range r.Tables {
		there[t.Schema.Name] = true
	}
	for _, s := range r.Sums {
		if !there[s.Name] {
			b.skip(s.Name, s.Skipped)
		}
	}
}

// Damage notes that something of an interval was left out.
func (b *RollupBuilder) Damage(start int64) { b.out.damage(start) }

func (r *Rollup) damage(start int64) {
	if len(r.Damaged) < maxRollupDamage && !slices.Contains(r.Damaged, start) {
		r.Damaged = append(r.Damaged, start)
	}
}

// Rollup returns the sum. The builder must not be used afterwards.
func (b *RollupBuilder) Rollup() *Rollup {
	out := &b.out
	out.Covered = fewerCovered(bucket.MergeSpans(out.Covered))
	out.Unobserved = fewerUnobserved(bucket.MergeSpans(out.Unobserved))
	slices.Sort(out.Damaged)
	for name, sum := range b.elected() {
		if sum.sum.added == 0 { // of tables without columns
			b.skip(name, sum.sum.skipped)
			continue
		}
		t, _ := sum.sum.table() // encoding sorts its rows
		keep := min(max(sum.max, 1), maxRollupRows)
		if b.fleet {
			keep = max(keep, fleetRows)
		}
		cutTo(t, keep)
		out.Tables = append(out.Tables, t)
		out.Sums = append(out.Sums, TableSum{Name: name, Buckets: sum.sum.added, Skipped: sum.sum.skipped + b.absent[name]})
		delete(b.absent, name)
	}
	for name, skipped := range b.absent {
		out.Sums = append(out.Sums, TableSum{Name: name, Skipped: skipped})
	}
	slices.SortFunc(out.Tables, func(x, y *bucket.Table) int { return cmp.Compare(x.Schema.Name, y.Schema.Name) })
	slices.SortFunc(out.Sums, func(x, y TableSum) int { return cmp.Compare(x.Name, y.Name) })
	return out
}

// elected returns for each name the table that most hosts have, of equally many that of the older version. The buckets of others are skipped.
func (b *RollupBuilder) elected() map[string]*tableSum {
	out := make(map[string]*tableSum, len(b.names))
	for _, key := range slices.Sorted(maps.Keys(b.tables)) {
		sum := b.tables[key]
		best := out[sum.name]
		switch {
		case best == nil:
			out[sum.name] = sum
			continue
		case cmp.Or(cmp.Compare(sum.votes, best.votes), cmp.Compare(best.sum.schema.Version, sum.sum.schema.Version)) > 0:
			sum, best = best, sum
			out[best.name] = best
		}
		best.sum.skipped += sum.sum.added + sum.sum.skipped
	}
	return out
}

// cutTo gives a table its bound; one that is exact may hold 16 times as many
// rows, as on the agent.
func cutTo(t *bucket.Table, keep int) {
	if t.Schema.Exact {
		t.Cut(16 * keep)
	} else {
		t.Cut(keep)
	}
	t.Max = keep
}

// fewerCovered drops the shortest spans beyond the bound.
func fewerCovered(spans []bucket.Span) []bucket.Span {
	if len(spans) <= maxRollupSpans {
		return spans
	}
	slices.SortStableFunc(spans, func(x, y bucket.Span) int { return cmp.Compare(y.To-y.From, x.To-x.From) })
	return bucket.MergeSpans(spans[:maxRollupSpans])
}

// fewerUnobserved closes the shortest gaps beyond the bound.
func fewerUnobserved(spans []bucket.Span) []bucket.Span {
	over := len(spans) - maxRollupSpans
	if over <= 0 {
		return spans
	}
	gaps := make([]bucket.Span, 0, len(spans)-1)
	for i := range spans[1:] {
		gaps = append(gaps, bucket.Span{From: spans[i].To, To: spans[i+1].From})
	}
	slices.SortStableFunc(gaps, func(x, y bucket.Span) int { return cmp.Compare(x.To-x.From, y.To-y.From) })
	return bucket.MergeSpans(append(spans, gaps[:over]...))
}

// Brief returns what r says without its tables but one, and of that one without response times. It shares memory with r.
func (r *Rollup) Brief(table string) *Rollup {
	out := &Rollup{Buckets: r.Buckets, Covered: r.Covered, Damaged: r.Damaged}
	out.Header = r.Header
	out.HostName = ""
	if s := r.Sum(table); s != nil {
		out.Sums = []TableSum{*s}
	}
	if t := r.Table(table); t != nil {
		short := bucket.NewTable(t.Schema, t.Max)
		short.Floor, short.Folded = t.Floor, t.Folded
		short.Other.Values = t.Other.Values
		for _, row := range t.Rows {
			short.Rows = append(short.Rows, &bucket.Row{Keys: row.Keys, Values: row.Values, Err: row.Err, Latency: make([]*sketch.Latency, len(short.Other.Latency))})
		}
		out.Tables = []*bucket.Table{short}
	}
	return out
}

// rollupVersion is the first byte of an encoded Rollup; engines may use 0 for
// one that is still to be rebuilt.
const rollupVersion = 1

// AppendBinary appends the encoding of r, described in docs/formats.md. Where
// tables are too large for it, they are cut until it fits; where that is not enough, or one
// cannot be encoded, they are left out as LeaveOut does. So no table is a reason to fail.
func (r *Rollup) AppendBinary(b []byte) ([]byte, error) {
	for {
		out, err := bucket.Encode(r.appendHead(b), &r.Bucket)
		switch {
		case err == nil:
			return out, nil
		case len(r.Tables) == 0:
			return nil, err
		case errors.Is(err, bucket.ErrTooLarge) && r.cutRows():
		default:
			r.LeaveOut(r.unfit()...)
		}
	}
}

// cutRows halves the tables, and reports whether there was a row to cut.
func (r *Rollup) cutRows() bool {
	cut := false
	for _, t := range r.Tables {
		if len(t.Rows) > 1 {
			cutTo(t, max(1, len(t.Rows)/2))
			t.Schema.Exact, cut = false, true
		}
	}
	return cut
}

// unfit names the tables that cannot be encoded, or the larger half of them if each can by itself.
func (r *Rollup) unfit() (names []string) {
	type sized struct {
		name string
		size int
	}
	var all []sized
	for _, t := range r.Tables {
		one := bucket.Bucket{Header: bucket.Header{Name: r.Name, Width: r.Width}, Tables: []*bucket.Table{t}}
		if _, err := bucket.Encode(nil, &one); err != nil {
			names = append(names, t.Schema.Name)
		}
		all = append(all, sized{t.Schema.Name, sizeOf(t)})
	}
	if names != nil {
		return names
	}
	slices.SortFunc(all, func(x, y sized) int { return cmp.Or(cmp.Compare(y.size, x.size), cmp.Compare(x.name, y.name)) })
	for _, t := range all[:(len(all)+1)/2] {
		names = append(names, t.name)
	}
	return names
}

// sizeOf is about how much a table takes before compression.
func sizeOf(t *bucket.Table) (n int) {
	for _, r := range t.Rows {
		n += 8 * len(r.Values)
		for _, k := range r.Keys {
			n += len(k)
		}
		for _, l := range r.Latency {
			if l != nil {
				n += 8 * len(l.Bins)
			}
		}
	}
	return n
}

// LeaveOut drops tables: their buckets are skipped, and the roll-up is damaged.
func (r *Rollup) LeaveOut(names ...string) {
	gone := make(map[string]bool, len(names))
	for _, name := range names {
		gone[name] = true
		if s := r.Sum(name); s != nil {
			s.Skipped += s.Buckets
			s.Buckets = 0
		}
	}
	kept := make([]*bucket.Table, 0, len(r.Tables))
	for _, t := range r.Tables {
		if !gone[t.Schema.Name] {
			kept = append(kept, t)
		}
	}
	r.Tables = kept
	r.damage(r.Start)
	slices.Sort(r.Damaged)
}

// appendHead appends what comes before the bucket.
func (r *Rollup) appendHead(b []byte) []byte {
	b = append(b, rollupVersion)
	b = binary.AppendUvarint(b, uint64(r.Buckets))
	b = binary.AppendUvarint(b, uint64(len(r.Covered)))
	for _, s := range r.Covered {
		b = binary.AppendVarint(b, s.From-r.Start)
		b = binary.AppendUvarint(b, uint64(s.To-s.From))
	}
	b = binary.AppendUvarint(b, uint64(len(r.Sums)))
	for _, s := range r.Sums {
		b = binary.AppendUvarint(b, uint64(len(s.Name)))
		b = append(b, s.Name...)
		b = binary.AppendUvarint(b, uint64(s.Buckets))
		b = binary.AppendUvarint(b, uint64(s.Skipped))
	}
	b = binary.AppendUvarint(b, uint64(len(r.Damaged)))
	for _, start := range r.Damaged {
		b = binary.AppendVarint(b, start-r.Start)
	}
	return b
}

// UnmarshalRollup reads what AppendBinary wrote; given names, only the tables of
// those names, which lie in d. It takes no memory of data. Its error wraps ErrCorrupt or ErrVersion.
func UnmarshalRollup(d *bucket.Decoder, data []byte, names ...string) (*Rollup, error) {
	return unmarshalRollup(data, func(b []byte) (*bucket.Bucket, error) { return d.Decode(b, names...) })
}

// UnmarshalRollupHeader is UnmarshalRollup without any table, which is faster.
func UnmarshalRollupHeader(data []byte) (*Rollup, error) {
	return unmarshalRollup(data, func(b []byte) (*bucket.Bucket, error) {
		h, err := bucket.DecodeHeader(b)
		if err != nil {
			return nil, err
		}
		return &bucket.Bucket{Header: *h}, nil
	})
}

func unmarshalRollup(data []byte, decode func([]byte) (*bucket.Bucket, error)) (*Rollup, error) {
	d := recordReader{b: data}
	r := &Rollup{}
	if v := d.take(1); len(v) == 1 && v[0] != rollupVersion {
		return nil, fmt.Errorf("roll-up of version %d, this program knows %d: %w", v[0], rollupVersion, ErrVersion)
	}
	r.Buckets = d.count(math.MaxInt32)
	for range d.count(maxRollupSpans) {
		s := bucket.Span{From: d.varint()}
		s.To = s.From + int64(d.uvarint())
		r.Covered = append(r.Covered, s)
	}
	for range d.count(len(d.b)) {
		s := TableSum{Name: string(d.take(d.count(1024)))}
		s.Buckets, s.Skipped = d.count(math.MaxInt32), d.count(math.MaxInt32)
		r.Sums = append(r.Sums, s)
	}
	for range d.count(maxRollupDamage) {
		r.Damaged = append(r.Damaged, d.varint())
	}
	if d.bad {
		return nil, fmt.Errorf("roll-up of %d bytes cannot be read: %w", len(data), ErrCorrupt)
	}
	b, err := decode(d.b)
	if errors.Is(err, bucket.ErrVersion) {
		return nil, fmt.Errorf("roll-up: %v: %w", err, ErrVersion)
	}
	if err != nil {
		return nil, fmt.Errorf("roll-up: %v: %w", err, ErrCorrupt)
	}
	r.Bucket = *b
	for i := range r.Covered {
		r.Covered[i].From += r.Start
		r.Covered[i].To += r.Start
	}
	for i := range r.Damaged {
		r.Damaged[i] += r.Start
	}
	return r, nil
}
