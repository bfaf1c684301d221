package test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"go.etcd.io/bbolt"

	"github.com/httpctl/httpctl/agent/spool"
	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/aggregator/store/bolt"
	"github.com/httpctl/httpctl/aggregator/store/storetest"
	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/exchange"
)

// What follows reads files by docs/formats.md alone, with nothing of the code that writes them. Where a
// number of the page matters, the page is asked whether it still says so.

var crcTable = crc32.MakeTable(crc32.Castagnoli)

// fields takes a value apart; the test ends where it is too short.
type fields struct {
	t *testing.T
	b []byte
}

func (f *fields) take(n int) []byte {
	f.t.Helper()
	if n > len(f.b) {
		f.t.Fatalf("%d bytes are left, want %d", len(f.b), n)
	}
	v := f.b[:n]
	f.b = f.b[n:]
	return v
}

func (f *fields) u64() uint64 { f.t.Helper(); return binary.BigEndian.Uint64(f.take(8)) }
func (f *fields) u32() uint32 { f.t.Helper(); return binary.BigEndian.Uint32(f.take(4)) }

func (f *fields) uvarint() uint64 {
	f.t.Helper()
	v, n := binary.Uvarint(f.b)
	f.take(max(n, 1))
	return v
}

func (f *fields) varint() int64 {
	f.t.Helper()
	v, n := binary.Varint(f.b)
	f.take(max(n, 1))
	return v
}

func (f *fields) end(what string) {
	f.t.Helper()
	if len(f.b) != 0 {
		f.t.Errorf("%s: %d bytes are left", what, len(f.b))
	}
}

// sealed opens a sealed value: CRC32C over key and payload, 4 bytes, then the payload.
func sealed(t *testing.T, value []byte, key ...[]byte) *fields {
	t.Helper()
	if len(value) < 4 {
		t.Fatalf("a value of %d bytes", len(value))
	}
	crc := crc32.Checksum(bytes.Join(append(key, value[4:]), nil), crcTable)
	if binary.BigEndian.Uint32(value) != crc {
		t.Errorf("key %x: the checksum is %x, want %x", bytes.Join(key, nil), value[:4], crc)
	}
	return &fields{t, value[4:]}
}

// nameHash is FNV-1a of 64 bits, then the finaliser of MurmurHash3.
func nameHash(key []byte) uint64 {
	h := uint64(0xcbf29ce484222325)
	for _, c := range key {
		h = (h ^ uint64(c)) * 0x100000001b3
	}
	for _, m := range []uint64{0xff51afd7ed558ccd, 0xc4ceb9fe1a85ec53} {
		h = (h ^ h>>33) * m
	}
	return h ^ h>>33
}

// encodedBucket is the frame and header of a bucket.
type encodedBucket struct {
	host, incarnation string
	start             int64
	width             uint64
	part, ordinal     uint64
	final             bool
	closed, observed  int64
	open              uint64
	name              string
	unobserved        [][2]int64
	counters          []uint64
}

func readBucket(t *testing.T, data []byte) (b encodedBucket) {
	t.Helper()
	if string(data[:4]) != "HCTB" || data[4] != 1 {
		t.Fatalf("a bucket begins with %q", data[:5])
	}
	if sum := data[len(data)-4:]; binary.LittleEndian.Uint32(sum) != crc32.Checksum(data[:len(data)-4], crcTable) {
		t.Error("the checksum of a bucket does not hold")
	}
	f := &fields{t, data[5 : len(data)-4]}
	h := &fields{t, f.take(int(f.uvarint()))}
	b.host, b.incarnation = fmt.Sprintf("%x", h.take(16)), fmt.Sprintf("%x", h.take(16))
	b.start, b.width, b.part = h.varint(), h.uvarint(), h.uvarint()
	b.final = h.take(1)[0]&1 != 0
	h.uvarint() // revision
	b.ordinal = h.uvarint()
	b.closed, b.observed = b.start+h.varint(), b.start+h.varint()
	b.open = h.uvarint()
	b.name = string(h.take(int(h.uvarint())))
	for range h.uvarint() {
		from := b.start + h.varint()
		b.unobserved = append(b.unobserved, [2]int64{from, from + int64(h.uvarint())})
	}
	for range h.uvarint() {
		b.counters = append(b.counters, h.uvarint())
	}
	return b
}

// TestDocsBucketStrings reads the strings of a bucket of version 2.
func TestDocsBucketStrings(t *testing.T) {
	says(t, "in version 2, for each the number of bytes that it shares with the one before, uvarint (0 for the first); the length of each, or of its rest, uvarint; then the bytes of all.")
	want := []string{"hits", "name", "names", ""}
	table := bucket.NewTable(bucket.Schema{Name: "names", Keys: []string{"name"}, Measures: []bucket.Measure{{Name: "hits"}}}, 1000)
	for i := range 500 {
		name := fmt.Sprintf("%x/a name that is long enough/%d", i%7, i)
		want = append(want, name)
		table.Add([]string{name}, []int64{1})
	}
	slices.Sort(want)
	data, err := bucket.Encode(nil, &bucket.Bucket{Tables: []*bucket.Table{table}})
	if err != nil {
		t.Fatal(err)
	}
	if data[4] != 2 {
		t.Fatalf("it has version %d, want 2", data[4])
	}
	f := &fields{t, data[5 : len(data)-4]}
	f.take(int(f.uvarint())) // the header
	size := f.uvarint()
	unpacked, err := zstd.NewReader(bytes.NewReader(f.b))
	if err != nil {
		t.Fatal(err)
	}
	defer unpacked.Close()
	body, err := io.ReadAll(unpacked)
	if err != nil || uint64(len(body)) != size {
		t.Fatalf("the body has %d bytes, %v, want %d", len(body), err, size)
	}
	f = &fields{t, body}
	shared, rest := make([]int, f.uvarint()), []int{}
	for i := range shared {
		shared[i] = int(f.uvarint())
	}
	for range shared {
		rest = append(rest, int(f.uvarint()))
	}
	var got []string
	last := ""
	for i, n := range shared {
		last = last[:n] + string(f.take(rest[i]))
		got = append(got, last)
	}
	if !slices.Equal(got, want) {
		t.Errorf("the strings are %q, want %q", got, want)
	}
	if n := f.uvarint(); n != 1 {
		t.Errorf("%d tables follow, want 1", n)
	}
}

// says fails unless docs/formats.md has that text: this test reads the files as it was when it said so.
func says(t *testing.T, text string) {
	t.Helper()
	if !strings.Contains(page(t, "docs/formats.md"), text) {
		t.Errorf("docs/formats.md does not say %q any more: see that this test still reads the files by it", text)
	}
}

func TestDocsStoreFile(t *testing.T) {
	says(t, "| `meta` | `format` | `httpctl store\\n`, version (4 bytes): 3.")
	says(t, "| record version | 1 byte: 1 |")
	path := filepath.Join(t.TempDir(), "store.db")
	made := time.Unix(0, storetest.T0).Add(-time.Hour)
	s, err := bolt.Open(path, bolt.Options{Now: func() time.Time { return made }})
	if err != nil {
		t.Fatal(err)
	}
	items := map[string]*bucket.Header{}
	const intervals, hosts = 20, 5
	for i := range intervals {
		for host := range hosts {
			h := storetest.Header(host, i)
			h.Unobserved = []bucket.Span{{From: h.Start + 1, To: h.Start + 5}}
			it := storetest.Item(t, storetest.Bucket(h, func(tb *bucket.Table) uint64 {
				tb.Add([]string{"0", "server", "GET", "200"}, []int64{7, 7, storetest.At(i), 1e6})
				return 7
			}))
			it.Skewed = host == 3
			if _, err := s.Append(context.Background(), []store.Item{it}); err != nil {
				t.Fatal(err)
			}
			items[fmt.Sprintf("%x %d", it.Header.Host[:], it.Header.Start)] = it.Header
		}
	}
	for i := range 3 {
		if _, err := s.CompareAndSwap(context.Background(), fmt.Sprint("key", i), 0, []byte("value")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Rollup(context.Background(), storetest.At(12)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Purge(context.Background(), storetest.At(6)); err != nil {
		t.Fatal(err)
	}
	want, err := s.Hosts(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	st := s.Stats()
	s.Close()

	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	_ = db.View(func(tx *bbolt.Tx) error {
		number := func(key string) int64 {
			v := tx.Bucket([]byte("meta")).Get([]byte(key))
			if v == nil {
				return 0
			}
			f := sealed(t, v, []byte(key))
			defer f.end(key)
			return int64(f.u64())
		}
		f := sealed(t, tx.Bucket([]byte("meta")).Get([]byte("format")), []byte("format"))
		if magic := string(f.take(14)); magic != "httpctl store\n" || f.u32() != 3 {
			t.Errorf("the format is %q", magic)
		}
		if number("created") != made.UnixNano() || number("sealed") != storetest.At(6) || number("expired") != 0 {
			t.Errorf("created %d, sealed %d, want %d, %d", number("created"), number("sealed"), made.UnixNano(), storetest.At(6))
		}

		n, buckets := 0, uint64(0)
		_ = tx.Bucket([]byte("manifests")).ForEach(func(start, v []byte) error {
			m := sealed(t, v, start)
			count, xor, end := m.u64(), m.u64(), int64(m.u64())
			m.end("manifest")
			latest := int64(0)
			entries := tx.Bucket([]byte("intervals")).Bucket(start)
			_ = entries.ForEach(func(k, v []byte) error {
				count--
				xor ^= nameHash(k)
				e := sealed(t, v, start, k)
				flags := e.take(1)[0]
				b := readBucket(t, e.b)
				h := items[fmt.Sprintf("%s %d", b.host, b.start)]
				key := &fields{t, k}
				if h == nil || fmt.Sprintf("%x", key.take(16)) != b.host || fmt.Sprintf("%x", key.take(16)) != b.incarnation || uint64(key.u32()) != b.part ||
					uint64(b.start) != binary.BigEndian.Uint64(start) || (flags == 1) != (h.Host == storetest.ID(3)) ||
					time.Duration(b.width) != h.Width || b.ordinal != h.Ordinal || !b.final || b.closed != h.ClosedThrough || b.observed != h.ObservedFrom ||
					b.open != h.Open || b.name != h.HostName || len(b.unobserved) != 1 || b.unobserved[0] != [2]int64{h.Start + 1, h.Start + 5} ||
					b.counters[exchange.Requests] != 7 {
					t.Errorf("a bucket reads as %+v, flags %d, want %+v", b, flags, h)
				}
				latest = max(latest, b.start+int64(b.width))
				buckets++
				return nil
			})
			n++
			if count != 0 || xor != 0 || end != latest {
				t.Errorf("the manifest of %x leaves %d, %x, and ends at %d, want 0, 0, %d", start, count, xor, end, latest)
			}
			return nil
		})
		if n != st.Intervals || buckets != st.Buckets || n != intervals-6 {
			t.Errorf("%d intervals with %d buckets, want %d, %d", n, buckets, st.Intervals, st.Buckets)
		}

		steps := map[byte]int{}
		_ = tx.Bucket([]byte("rollup-manifests")).ForEach(func(step, v []byte) error {
			m := sealed(t, v, step)
			count, xor, dirty := m.u64(), m.u64(), m.u64()
			_ = tx.Bucket([]byte("rollups")).Bucket(step).ForEach(func(k, v []byte) error {
				count--
				xor ^= nameHash(k)
				e := sealed(t, v, step, k)
				if len(e.b) == 1 && e.b[0] == 0 {
					dirty--
					return nil
				}
				if version := e.take(1)[0]; version != 1 {
					t.Errorf("a roll-up has version %d", version)
				}
				if k[0] == 1 && (step[0] == 1) {
					sums := e.uvarint()
					spans := e.uvarint()
					if sums != 6 || spans != 1 || e.varint() != 0 || e.uvarint() != uint64(time.Minute) {
						t.Errorf("the roll-up of host %x in step %x sums up %d buckets in %d spans", k[1:], step, sums, spans)
					}
					for range e.uvarint() {
						e.take(int(e.uvarint()))
						e.uvarint()
						e.uvarint()
					}
					for range e.uvarint() {
						e.varint()
					}
					b := readBucket(t, e.b)
					if uint64(b.start) != binary.BigEndian.Uint64(step[1:]) || b.width != uint64(time.Minute) || b.host != fmt.Sprintf("%x", k[1:]) || b.counters[exchange.Requests] != 42 {
						t.Errorf("the sum of host %x in step %x is %+v", k[1:], step, b)
					}
				}
				return nil
			})
			if count != 0 || xor != 0 || dirty != 0 {
				t.Errorf("the manifest of step %x leaves %d, %x, %d dirty", step, count, xor, dirty)
			}
			steps[step[0]]++
			return nil
		})
		if steps[1] != 4 || steps[2] != 1 || steps[3] != 1 {
			t.Errorf("steps by resolution: %v, want 4 minutes, an hour, a day", steps)
		}

		found := 0
		_ = tx.Bucket([]byte("hosts")).ForEach(func(k, v []byte) error {
			f := sealed(t, v, k)
			version := f.take(1)[0]
			h := store.Host{ID: bucket.ID(f.take(16)), Incarnation: bucket.ID(f.take(16))}
			h.Name = string(f.take(int(f.uvarint())))
			h.FirstStart, h.LastEnd, h.CoveredThrough, h.LastOpen = f.varint(), f.varint(), f.varint(), f.uvarint()
			for range f.uvarint() {
				f.varint()
				f.varint()
			}
			for range f.uvarint() {
				id := bucket.ID(f.take(16))
				_, next, top := f.varint(), f.uvarint(), f.uvarint()
				closed := f.varint()
				if id == h.Incarnation {
					h.CurrentThrough = closed
				}
				if next != intervals || top != intervals {
					t.Errorf("host %s: ordinals to %d, %d, want %d", h.Name, next, top, intervals)
				}
				for range f.uvarint() {
					f.uvarint()
					f.uvarint()
					f.varint()
					f.varint()
				}
			}
			if version != 1 {
				t.Errorf("a host record has version %d", version)
			}
			f.end("host record")
			for _, w := range want {
				if w.ID == h.ID {
					found++
					h.FirstStart = max(h.FirstStart, w.FirstStart)
					if w != h {
						t.Errorf("host record = %+v, want %+v", h, w)
					}
				}
			}
			return nil
		})
		if found != hosts {
			t.Errorf("%d hosts, want %d", found, hosts)
		}

		versions := uint64(0)
		_ = tx.Bucket([]byte("state")).ForEach(func(k, v []byte) error {
			f := sealed(t, v, k)
			versions += f.u64()
			if string(f.b) != "value" {
				t.Errorf("the state %q is %q", k, f.b)
			}
			return nil
		})
		if versions != 1+2+3 {
			t.Errorf("the versions of the state sum up to %d, want 6", versions)
		}
		return nil
	})
}

func TestDocsSpoolFile(t *testing.T) {
	says(t, "### spool.db, format 1")
	dir := t.TempDir()
	q, err := spool.Open(dir, spool.DefaultConfig(), spool.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	incarnation := storetest.ID(77)
	if err := q.Begin(incarnation, storetest.At(0), storetest.Width); err != nil {
		t.Fatal(err)
	}
	const n = 10
	for i := range n {
		h := storetest.Header(1, i)
		h.Incarnation, h.Part = incarnation, uint32(i%2)
		if i == 4 {
			h.Unobserved = []bucket.Span{{From: storetest.At(2), To: storetest.At(3)}}
		}
		if err := q.Add(storetest.Bucket(h, nil)); err != nil {
			t.Fatal(err)
		}
	}
	if err := q.Settle([]uint64{1}, nil, []uint64{2}); err != nil { // the second is given up
		t.Fatal(err)
	}
	q.Close()

	db, err := bbolt.Open(filepath.Join(dir, "spool.db"), 0o600, &bbolt.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if text, err := os.ReadFile(filepath.Join(dir, "host-id")); err != nil || !regexp.MustCompile(`^[0-9a-f]{32}\n$`).Match(text) {
		t.Errorf("host-id holds %q, %v", text, err)
	}
	_ = db.View(func(tx *bbolt.Tx) error {
		meta := tx.Bucket([]byte("meta"))
		if f := (&fields{t, meta.Get([]byte("format"))}); f.u32() != 1 {
			t.Error("the format is not 1")
		}
		// The checksum of these covers the rest, and no key.
		f := sealed(t, meta.Get([]byte("state")))
		if id, closed, width := bucket.ID(f.take(16)), int64(f.u64()), time.Duration(f.u64()); id != incarnation || closed != storetest.At(n) || width != storetest.Width {
			t.Errorf("the state is %s, %d, %v", id, closed, width)
		}
		f.end("state")
		f = sealed(t, meta.Get([]byte("lost")))
		if dropped, from, to := f.u64(), int64(f.u64()), int64(f.u64()); dropped != 1 || from != storetest.At(1) || to != storetest.At(2) {
			t.Errorf("lost is %d buckets, from %d to %d", dropped, from, to)
		}
		f.end("lost")
		i := 2
		_ = tx.Bucket([]byte("queue")).ForEach(func(k, v []byte) error {
			spans := int(binary.BigEndian.Uint16(v[6:8]))
			head := 76 + 16*spans
			f := sealed(t, v[:head], k)
			if version, reserved := f.take(1)[0], f.take(1)[0]; version != 1 || reserved != 0 {
				t.Errorf("entry %x has version %d", k, version)
			}
			f.take(2)
			id, start, width, part, ordinal, closed, dropped := bucket.ID(f.take(16)), int64(f.u64()), time.Duration(f.u64()), f.u32(), f.u64(), int64(f.u64()), f.u64()
			sum, length := f.u32(), int(f.u32())
			wantSpans := 0
			if i == 4 {
				wantSpans = 1
				if from, to := int64(f.u64()), int64(f.u64()); from != storetest.At(2) || to != storetest.At(3) {
					t.Errorf("entry %x declares %d to %d", k, from, to)
				}
			}
			data := v[head:]
			if binary.BigEndian.Uint64(k) != uint64(i+1) || id != incarnation || start != storetest.At(i) || width != storetest.Width || part != uint32(i%2) ||
				ordinal != uint64(i) || closed != storetest.At(i+1) || dropped != 0 || spans != wantSpans || length != len(data) || sum != crc32.Checksum(data, crcTable) {
				t.Errorf("entry %x = %s %d %v %d %d %d %d, %d spans, %d bytes of %d", k, id, start, width, part, ordinal, closed, dropped, spans, length, len(data))
			}
			if b := readBucket(t, data); b.start != start || b.ordinal != ordinal || b.incarnation != id.String() {
				t.Errorf("entry %x holds %+v", k, b)
			}
			i++
			return nil
		})
		if i != n {
			t.Errorf("the queue ends at %d, want %d", i, n)
		}
		return nil
	})
}
