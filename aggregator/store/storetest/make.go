// Package storetest is what every engine of store.Store must pass, and the
// buckets that its tests are made of.
package storetest

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/exchange"
)

// Width is the interval of the buckets made here.
const Width = 10 * time.Second

// T0 is where their time begins: 2026-01-01 00:00:00 UTC.
const T0 = int64(1767225600e9)

// At returns the start of interval n.
func At(n int) int64 { return T0 + int64(n)*int64(Width) }

// ID returns an identity made of n.
func ID(n int) (id bucket.ID) {
	binary.BigEndian.PutUint64(id[8:], uint64(n))
	id[0] = 1
	return id
}

// Header returns the header of a final bucket of host n in the given interval,
// of incarnation 1, whose ordinals count from interval 0.
func Header(host, interval int) bucket.Header {
	return bucket.Header{
		Name:          bucket.Name{Host: ID(host), Start: At(interval), Incarnation: ID(1000*host + 1)},
		HostName:      "host" + string(rune('a'+host%26)),
		Width:         Width,
		Ordinal:       uint64(interval),
		Final:         true,
		ClosedThrough: At(interval + 1),
		ObservedFrom:  T0,
	}
}

// Totals is a schema like that of the built-in table `totals`.
func Totals() bucket.Schema {
	return bucket.Schema{
		Name: "totals", Version: 1, Exact: true,
		Keys: []string{"mirror", "role", "method", "status"},
		Measures: []bucket.Measure{
			{Name: "requests", Kind: bucket.Sum, Unit: "{request}"},
			{Name: "responses", Kind: bucket.Sum, Unit: "{response}"},
			{Name: "last_seen", Kind: bucket.Max, Unit: "ns"},
			{Name: "response_time", Kind: bucket.Latency, Unit: "ns"},
		},
		Views: []bucket.View{
			{Name: "method", Title: "Methods", By: []string{"method"}, Hits: "requests", Show: []string{"last_seen"}},
			{Name: "status", Title: "Status codes", By: []string{"status"}, Hits: "responses", Show: []string{"last_seen", "response_time"}},
		},
	}
}

// Bucket returns a bucket with a table of Totals, to which add may add, and
// with requests in its counters as add returns them.
func Bucket(h bucket.Header, add func(t *bucket.Table) uint64) *bucket.Bucket {
	b := &bucket.Bucket{Header: h}
	if add != nil {
		t := bucket.NewTable(Totals(), 1000)
		b.Counters[exchange.Requests] = add(t)
		b.Tables = append(b.Tables, t)
	}
	return b
}

// Item encodes a bucket.
func Item(t testing.TB, b *bucket.Bucket) store.Item {
	t.Helper()
	data, err := bucket.Encode(nil, b)
	if err != nil {
		t.Fatalf("encode bucket: %v", err)
	}
	h, err := bucket.DecodeHeader(data)
	if err != nil {
		t.Fatalf("decode header: %v", err)
	}
	return store.Item{Header: h, Data: data}
}
