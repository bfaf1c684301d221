package bolt

import (
	"encoding/binary"
	"sync"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/pkg/bucket"
)

// What the judge asks of a bucket is a few numbers, and it asks for them again with each window under way, when the window ends, and
// for late ones: to inflate the bucket each time is most of its work. So they are taken from the bucket when it is decoded
// to be checked, and remembered for the newest intervals. What is not remembered is read as a whole: also what is skewed, which nobody
// judges, and which would outlast all others.

const (
	// maxOutlineBytes bounds the memory of outlines. One takes about 220 bytes: ten minutes of 1,000 hosts have 60,000.
	maxOutlineBytes = 32 << 20
	// outlineTime before the newest interval nobody is judged any more, with the windows that there are by default.
	outlineTime = int64(900e9)
	// outlineCost is what one takes in its map.
	outlineCost = 2 * blobKeyLen
	// maxOutlineSchemas bounds the versions of the table, of which each has its schema once. Outlines of more are not remembered. It also bounds
	// the different sets of tables, of which each takes at most maxTablesBytes; what is beyond is read from the bucket again.
	maxOutlineSchemas = 16
	maxTablesBytes    = 64 << 10
)

// outlines remembers those of the newest intervals. The zero value is empty and ready; it is safe for concurrent use.
type outlines struct {
	mu        sync.Mutex
	most      int64 // bytes; 0 is maxOutlineBytes
	intervals map[int64]map[blobName]*store.Outline
	newest    int64 // start of the newest interval of which buckets came
	bytes     int64
	schemas   shared[bucket.Schema]
	tables    shared[store.Schemas]
	used      uint64
}

// shared are what outlines have in common, each once, and of how many it is.
type shared[T any] []sharing[T]

type sharing[T any] struct {
	value    *T
	outlines int
}

// find returns which of them is equal to v, or the place of one that none has any more, which v takes; -1 if there is no such place.
func (s *shared[T]) find(v *T, equal func(x, y *T) bool) int {
	free := -1
	for i := range *s {
		if equal((*s)[i].value, v) {
			return i
		}
		if (*s)[i].outlines == 0 {
			free = i
		}
	}
	if len(*s) < maxOutlineSchemas {
		free = len(*s)
		*s = append(*s, sharing[T]{})
	}
	if free >= 0 {
		(*s)[free].value = v
	}
	return free
}

// release notes that one outline less has v.
func (s shared[T]) release(v *T) {
	for i := range s {
		if s[i].value == v {
			s[i].outlines--
		}
	}
}

// blobName is the key of a bucket within its interval.
type blobName [blobKeyLen]byte

// outlined is a bucket that was appended, and its outline.
type outlined struct {
	start   int64
	name    blobName
	outline *store.Outline // nil: it has none
}

// stored notes what a transaction has appended. now tells which buckets are ahead of their time: those do not make others old.
func (x *outlines) stored(now int64, added []outlined) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for i := range added {
		if start := added[i].start; start <= now {
			x.newest = max(x.newest, start)
		}
	}
	for start, names := range x.intervals {
		if start < x.newest-outlineTime {
			x.drop(start, names)
		}
	}
	for i := range added {
		x.add(added[i])
	}
}

// find returns the outline of a bucket with those bytes, nil if it is not remembered.
func (x *outlines) find(start int64, name []byte, data []byte) *store.Outline {
	x.mu.Lock()
	defer x.mu.Unlock()
	o := x.intervals[start][blobName(name)]
	if o == nil || !o.Of(data) {
		return nil
	}
	x.used++
	return o
}

// read notes the outline of a bucket that was read.
func (x *outlines) read(start int64, name []byte, o *store.Outline) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.add(outlined{start, blobName(name), o})
}

// add remembers an outline, in the place of older ones. The caller holds the lock.
func (x *outlines) add(added outlined) {
	names := x.intervals[added.start]
	if old := names[added.name]; old != nil {
		x.release(old)
		delete(names, added.name)
	}
	o := added.outline
	if o == nil || added.start < x.newest-outlineTime {
		if names != nil && len(names) == 0 {
			delete(x.intervals, added.start)
		}
		return
	}
	schema, tables := -1, -1
	if o.Schema() != nil {
		if schema = x.schemas.find(o.Schema(), (*bucket.Schema).Equal); schema < 0 {
			return
		}
	}
	if t := o.Tables(); t != nil && t.Bytes() <= maxTablesBytes {
		tables = x.tables.find(t, (*store.Schemas).Equal)
	}
	most := x.most
	if most == 0 {
		most = maxOutlineBytes
	}
	cost := o.Bytes() + outlineCost
	for x.bytes+cost > most {
		oldest := added.start
		for start := range x.intervals {
			oldest = min(oldest, start)
		}
		if oldest == added.start {
			return
		}
		x.drop(oldest, x.intervals[oldest])
	}
	if names == nil {
		names = map[blobName]*store.Outline{}
		if x.intervals == nil {
			x.intervals = map[int64]map[blobName]*store.Outline{}
		}
		x.intervals[added.start] = names
	}
	var own *bucket.Schema
	if schema >= 0 {
		own = x.schemas[schema].value
		x.schemas[schema].outlines++
	}
	var all *store.Schemas
	if tables >= 0 {
		all = x.tables[tables].value
		x.tables[tables].outlines++
	}
	names[added.name] = o.Sharing(own, all)
	x.bytes += cost
}

// release notes that an outline is not remembered any more. The caller holds the lock.
func (x *outlines) release(o *store.Outline) {
	x.bytes -= o.Bytes() + outlineCost
	x.schemas.release(o.Schema())
	x.tables.release(o.Tables())
}

// drop forgets an interval. The caller holds the lock.
func (x *outlines) drop(start int64, names map[blobName]*store.Outline) {
	for _, o := range names {
		x.release(o)
	}
	delete(x.intervals, start)
}

// forget drops the intervals that start before t.
func (x *outlines) forget(t int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for start, names := range x.intervals {
		if start < t {
			x.drop(start, names)
		}
	}
}

// outlined verifies a value and returns what its outline says, as decode does what it decodes. Where that is not remembered, the bucket is decoded.
func (s *DB) outlined(d *bucket.Decoder, start, key, value []byte) (b *bucket.Bucket, skewed bool, err error) {
	data, skewed, err := unsealBlob(start, key, value)
	if err != nil {
		return nil, false, err
	}
	at := int64(binary.BigEndian.Uint64(start))
	if o := s.outlines.find(at, key, data); o != nil {
		if b, err = decodeData(nil, start, key, data); err != nil {
			return nil, false, err
		}
		if t := o.Table(); t != nil {
			b.Tables = []*bucket.Table{t}
		}
		return b, skewed, nil
	}
	if b, err = decodeData(d, start, key, data, store.OutlineTable); err != nil {
		return nil, false, err
	}
	if o := store.OutlineOf(b, data); o != nil && !skewed {
		s.outlines.read(at, key, o)
	}
	return b, skewed, nil
}
