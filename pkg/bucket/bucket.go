// Package bucket holds what one host saw in one interval: the unit of
// transport, storage and exactly-once delivery (DESIGN sections 5 and 6).
//
// A Bucket is a header, counters and tables. Its encoding (see [Encode] and
// docs/formats.md) is made once, on the agent, and the same bytes with the same checksum go
// through spool, wire and store; for an aggregator that does not know the format, it is made anew before it is sent ([ForVersion]).
package bucket

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/httpctl/httpctl/pkg/exchange"
)

// ID is a random 128-bit identity: of a host, or of one incarnation of its agent.
type ID [16]byte

// String returns the identity as 32 lower-case hexadecimal digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// Compare orders identities by their bytes.
func (id ID) Compare(o ID) int { return bytes.Compare(id[:], o[:]) }

// IsZero reports whether id was never set.
func (id ID) IsZero() bool { return id == ID{} }

// ParseID reads what String wrote.
func ParseID(s string) (id ID, err error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(id) {
		return id, fmt.Errorf("identity %q: want 32 hexadecimal digits", s)
	}
	copy(id[:], b)
	return id, nil
}

// Name is the identity of a bucket. A final bucket never changes, so storing
// the same Name twice is a no-op.
type Name struct {
	Host ID
	// Start of the interval, nanoseconds since the Unix epoch, a multiple of the width.
	Start       int64
	Incarnation ID
	Part        uint32
}

// Header is everything in a bucket but its tables.
type Header struct {
	Name
	// HostName is for people; identity is Name.Host.
	HostName string
	// Width of the interval.
	Width time.Duration
	// Ordinal is dense within an incarnation, from 0, over final buckets in
	// the order in which they closed; so a missing bucket is known.
	Ordinal uint64
	// Final is false for a provisional bucket, which is cumulative for its part;
	// Revision then orders the provisional buckets of a part.
	Final    bool
	Revision uint32
	// ClosedThrough is the time up to which this incarnation has closed its
	// intervals: once every ordinal up to this one has arrived, all that
	// happened on this host before ClosedThrough is known, but for Unobserved.
	ClosedThrough int64
	// ObservedFrom is when this incarnation began to watch (nanoseconds): coverage
	// does not reach back before it.
	ObservedFrom int64
	// Unobserved lists spans that the agent declares it did not, or can no
	// longer, account for: the time of a kill, a full spool.
	Unobserved []Span
	// Counters holds what happened in this part: increases, not totals.
	Counters exchange.Counters
	// Open is a gauge: exchanges whose outcome is still to come. Over an
	// incarnation, requests + responses without request = outcomes + open.
	Open uint64
}

// End returns the end of the interval, exclusive.
func (h *Header) End() int64 { return h.Start + int64(h.Width) }

// Bucket is a header and its tables, at most one table of each name and
// version. A bucket of an idle interval has no tables.
type Bucket struct {
	Header
	Tables []*Table
}

// Table returns the table of that name, or nil.
func (b *Bucket) Table(name string) *Table {
	for _, t := range b.Tables {
		if t.Schema.Name == name {
			return t
		}
	}
	return nil
}

// Merge adds the tables and counters of o to b, as parts, incarnations,
// pipelines and hosts add up; the caller decides about the header's other
// fields. A table that b lacks is added with the same Max.
// b takes no memory of o. It returns an error that wraps ErrSchema if both
// have a table of one name that cannot be added up; then b holds the others.
func (b *Bucket) Merge(o *Bucket) error {
	b.Counters.Add(&o.Counters)
	var faults []error
	for _, ot := range o.Tables {
		t := b.Table(ot.Schema.Name)
		if t == nil {
			t = NewTable(ot.Schema, ot.Max)
			b.Tables = append(b.Tables, t)
		}
		if err := t.Merge(ot); err != nil {
			faults = append(faults, err)
		}
	}
	return errors.Join(faults...)
}
