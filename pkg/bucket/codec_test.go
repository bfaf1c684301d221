package bucket

import (
	"bytes"
	standard "compress/flate"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/httpctl/httpctl/pkg/exchange"
	"github.com/httpctl/httpctl/pkg/sketch"
)

// canonical puts b into the form in which Decode returns it, so that two
// buckets that say the same compare equal.
func canonical(b *Bucket) *Bucket {
	c := &Bucket{Header: b.Header}
	if len(c.Unobserved) == 0 {
		c.Unobserved = nil
	}
	for _, t := range b.Tables {
		u := t.Head(math.MaxInt)
		slices.SortFunc(u.Rows, func(a, b *Row) int { return slices.Compare(a.Keys, b.Keys) })
		for _, r := range append(slices.Clone(u.Rows), &u.Other) {
			for i, l := range r.Latency {
				if l != nil && l.Count == 0 {
					r.Latency[i] = nil
				}
			}
			if len(r.Keys) == 0 {
				r.Keys = nil
			}
		}
		c.Tables = append(c.Tables, u)
	}
	return c
}

func randomBucket(seed uint64) *Bucket {
	r := rand.New(rand.NewPCG(seed, 9))
	b := &Bucket{Header: Header{
		Name:     Name{Host: ID{1, byte(seed)}, Incarnation: ID{2}, Start: 1_700_000_000_000_000_000 + r.Int64N(1e9)*10, Part: r.Uint32N(3)},
		HostName: "web-1.example.org", Width: 10 * time.Second, Ordinal: r.Uint64N(1000), Final: r.IntN(2) == 0,
		Revision: r.Uint32N(4), Open: r.Uint64N(9),
	}}
	b.ClosedThrough, b.ObservedFrom = b.End(), b.Start-r.Int64N(1e12)
	for range r.IntN(3) {
		from := b.Start - r.Int64N(1e11)
		b.Unobserved = append(b.Unobserved, Span{from, from + r.Int64N(1e10)})
	}
	for i := range b.Counters {
		if i > int(exchange.SmugglingSuspects) { // later than testdata/v1.bucket, whose numbers must not change
			b.Counters[i] = uint64(i % 3 * i)
			continue
		}
		b.Counters[i] = r.Uint64N(3) * r.Uint64N(1e6)
	}
	for i := range r.IntN(4) {
		s := testSchema()
		s.Name += strings.Repeat("x", i)
		if i == 2 {
			s = Schema{Name: "plain", Exact: true, Measures: []Measure{{"n", Sum, ""}}}
		}
		table := NewTable(s, 1+r.IntN(60))
		scale := []int64{1, 1000, 1_000_000}[r.IntN(3)]
		for range r.IntN(1500) {
			if i == 2 {
				table.Add(nil, []int64{1})
				continue
			}
			k, v := draw(r, 3, 100)
			latency := r.Int64N(1e9)/scale*scale - 1e8
			table.Add(k[:], []int64{v[0], v[1], latency, b.Start + v[3]/scale*scale})
		}
		b.Tables = append(b.Tables, table)
	}
	return b
}

func TestRoundTrip(t *testing.T) {
	for seed := range uint64(200) {
		b, version := randomBucket(seed/2), byte(1+seed%2)
		data, err := encode([]byte("before"), b, version)
		if err != nil {
			t.Fatal(err)
		}
		data, ok := bytes.CutPrefix(data, []byte("before"))
		if !ok {
			t.Fatal("Encode did not append")
		}
		got, err := Decode(data)
		if err != nil {
			t.Fatal(err)
		}
		if want := canonical(b); !reflect.DeepEqual(canonical(got), want) {
			t.Fatalf("Decode(Encode(b)) =\n%+v, want\n%+v", got, want)
		}
		again, err := encode(nil, got, version)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again, data) {
			t.Fatal("encoding what was decoded gives other bytes")
		}
		h, err := DecodeHeader(data)
		if err != nil || !reflect.DeepEqual(*h, got.Header) {
			t.Fatalf("DecodeHeader = %+v, %v, want %+v", h, err, got.Header)
		}
		// What was decoded is a table like any other.
		for _, table := range got.Tables {
			if err := table.Merge(table.Head(5)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestDecodeSomeTables(t *testing.T) {
	b := randomBucket(3)
	b.Tables = nil
	for _, n := range []string{"one", "two", "three"} {
		s := testSchema()
		s.Name = n
		table := NewTable(s, 3)
		table.Add([]string{"server", n}, []int64{1, 2, 3, 4})
		b.Tables = append(b.Tables, table)
	}
	data, err := Encode(nil, b)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Decode(data, "three", "one", "none")
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Tables) != 2 || got.Table("one") == nil || got.Table("three") == nil || got.Table("three").Rows[0].Keys[1] != "three" {
		t.Errorf("Decode(one, three) has tables %v", got.Tables)
	}
}

func TestIdleBucketIsSmall(t *testing.T) {
	b := randomBucket(1)
	b.Tables, b.Counters = nil, exchange.Counters{}
	data, err := Encode(nil, b)
	if err != nil {
		t.Fatal(err)
	}
	if len(data) > 120 {
		t.Errorf("an idle bucket takes %d bytes, want at most 120", len(data))
	}
}

func TestDecodeRefusesChangedBytes(t *testing.T) {
	for _, version := range []byte{version1, formatVersion} {
		refusesChangedBytes(t, version)
	}
}

func refusesChangedBytes(t *testing.T, version byte) {
	data, err := encode(nil, randomBucket(2), version)
	if err != nil {
		t.Fatal(err)
	}
	for i := range data {
		for _, bit := range []byte{1, 0x80} {
			c := bytes.Clone(data)
			c[i] ^= bit
			if _, err := Decode(c); !errors.Is(err, ErrCorrupt) {
				t.Fatalf("byte %d changed: Decode = %v, want ErrCorrupt", i, err)
			}
			if _, err := DecodeHeader(c); !errors.Is(err, ErrCorrupt) {
				t.Fatalf("byte %d changed: DecodeHeader = %v, want ErrCorrupt", i, err)
			}
		}
	}
	for i := range data {
		if _, err := Decode(data[:i]); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("cut to %d bytes: Decode = %v, want ErrCorrupt", i, err)
		}
	}
	if _, err := Decode(append(bytes.Clone(data), 0)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("one byte more: Decode = %v, want ErrCorrupt", err)
	}
}

// seal replaces the trailer by the right checksum.
func seal(data []byte) []byte {
	data = data[:len(data)-trailerSize]
	return binary.LittleEndian.AppendUint32(data[:len(data):len(data)], crc32.Checksum(data, castagnoli))
}

func TestDecodeRefusesNewerFormats(t *testing.T) {
	data, err := encode(nil, randomBucket(2), formatVersion)
	if err != nil {
		t.Fatal(err)
	}
	data[len(magic)] = formatVersion + 1
	if _, err := Decode(seal(data)); !errors.Is(err, ErrVersion) {
		t.Errorf("Decode = %v, want ErrVersion", err)
	}
}

// TestNewerCounters: an agent newer than the aggregator has counters that the
// aggregator does not know, and fields after them.
func TestNewerCounters(t *testing.T) {
	b := randomBucket(4)
	b.Tables = nil
	for i := range b.Counters {
		b.Counters[i] = uint64(i) + 1
	}
	h := appendHeader(nil, &b.Header)
	// The number of counters stands before the counters, which take a byte each.
	h[len(h)-int(exchange.NumCounters)-1] += 2
	h = append(h, 7, 8, 0xff, 0xff)
	data := append([]byte(magic), formatVersion)
	data = binary.AppendUvarint(data, uint64(len(h)))
	data = seal(append(append(data, h...), 0, 0, 0, 0))
	got, err := Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	if got.Counters != b.Counters {
		t.Errorf("counters = %v, want %v", got.Counters, b.Counters)
	}
}

func TestEncodeRefuses(t *testing.T) {
	for name, f := range map[string]func(*Bucket){
		"schema":     func(b *Bucket) { b.Tables[0].Schema.Name = "No" },
		"twice":      func(b *Bucket) { b.Tables = append(b.Tables, b.Tables[0]) },
		"negative":   func(b *Bucket) { b.Tables[0].Rows[0].Values[1] = -1 },
		"sketch":     func(b *Bucket) { b.Tables[0].Rows[0].Latency[0] = &sketch.Latency{Count: 3} },
		"host name":  func(b *Bucket) { b.HostName = strings.Repeat("x", maxHostName+1) },
		"unobserved": func(b *Bucket) { b.Unobserved = []Span{{2, 1}} },
		"width":      func(b *Bucket) { b.Width = -1 },
	} {
		b := randomBucket(1)
		table := NewTable(testSchema(), 3)
		table.Add([]string{"server", "a"}, []int64{1, 2, 3, 4})
		b.Tables = []*Table{table}
		f(b)
		if data, err := Encode(nil, b); err == nil {
			t.Errorf("%s: Encode gave %d bytes, want an error", name, len(data))
		}
	}
}

func TestEncodeRefusesTooLarge(t *testing.T) {
	s := Schema{Name: "big", Keys: []string{"k"}, Measures: []Measure{{"n", Sum, ""}}}
	table := &Table{Schema: s, Max: math.MaxInt, Rows: make([]*Row, maxCost/costRow+1), Other: Row{Values: []int64{0}}}
	for i := range table.Rows {
		table.Rows[i] = &Row{Keys: []string{"same"}, Values: []int64{1}}
	}
	if _, err := Encode(nil, &Bucket{Tables: []*Table{table}}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("Encode of %d rows = %v, want ErrTooLarge", len(table.Rows), err)
	}
}

// TestDecompressionBomb: zeros, compressed, claim to be more than
// the limit, or are more than they claim, or claim what so few bytes cannot be. What is refused takes no more memory than it claims.
func TestDecompressionBomb(t *testing.T) {
	header := appendHeader(nil, &Header{})
	for version, compress := range map[byte]func(*encoder, []byte) []byte{version1: (*encoder).deflate, formatVersion: (*encoder).pack} {
		e := new(encoder)
		for _, bomb := range []struct {
			size, claimed int
			refused       string
		}{
			{maxBody, maxBody + 1, "size of the body"},
			{maxBody, 100, "corrupt"},
			{maxBody, maxBody - 1, "corrupt"},
			{maxBody, maxBody, "tables"}, // or a dictionary of nothing is followed by something
			{20, maxBody, "size of the body"},
			{20, 21, "corrupt"},
		} {
			e.body = make([]byte, bomb.size)
			data := append([]byte(magic), version)
			data = binary.AppendUvarint(data, uint64(len(header)))
			data = append(data, header...)
			data = binary.AppendUvarint(data, uint64(bomb.claimed))
			data = compress(e, data)
			data = seal(append(data, 0, 0, 0, 0))
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := Decode(data)
			runtime.ReadMemStats(&after)
			if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), bomb.refused) {
				t.Errorf("version %d, a bomb of %d that claims %d bytes: Decode = %v, want ErrCorrupt with %q", version, bomb.size, bomb.claimed, err, bomb.refused)
			}
			if took, most := after.TotalAlloc-before.TotalAlloc, uint64(2<<20+bomb.claimed); bomb.refused != "size of the body" && took > most || bomb.refused == "size of the body" && took > 1<<20 {
				t.Errorf("version %d, a bomb of %d that claims %d bytes takes %d", version, bomb.size, bomb.claimed, took)
			}
		}
	}
}

// TestStringBomb: strings of which each shares all but a byte with the one before are refused where all of them are more than a body may be, before
// they are made.
func TestStringBomb(t *testing.T) {
	const n = 12_000 // which are 72 MB, of which the body has 50 KB
	body := binary.AppendUvarint(nil, n)
	for i := range n {
		body = binary.AppendUvarint(body, uint64(i))
	}
	for range n {
		body = append(body, 1)
	}
	body = append(append(body, bytes.Repeat([]byte{'x'}, n)...), 0)
	if _, err := parseBody(body, formatVersion, &Header{}, new(memory), nil); !errors.Is(err, ErrCorrupt) {
		t.Errorf("parseBody of %d bytes that are 72 MB of strings = %v, want ErrCorrupt", len(body), err)
	}
}

// TestJoinedStringsAreNotKept: what a bucket with many strings takes is not kept for the next one.
func TestJoinedStringsAreNotKept(t *testing.T) {
	table := NewTable(testSchema(), 10_000)
	for i := range 3000 {
		table.Add([]string{"server", fmt.Sprintf("%01000d", i)}, []int64{1, 2, 3, 4})
	}
	large, err := Encode(nil, &Bucket{Tables: []*Table{table}})
	if err != nil {
		t.Fatal(err)
	}
	small, err := Encode(nil, randomBucket(6))
	if err != nil {
		t.Fatal(err)
	}
	d := new(Decoder)
	for range 2 {
		if b, err := d.Decode(large); err != nil || len(b.Tables[0].Rows) != 3000 {
			t.Fatal(err)
		}
		if _, err := d.Decode(small); err != nil {
			t.Fatal(err)
		}
	}
	kept := 0
	for _, s := range d.m.strings[:cap(d.m.strings)] {
		kept += len(s)
	}
	if kept > keptBody || cap(d.m.joined) > keptBody {
		t.Errorf("%d bytes of strings are kept, %d of joined ones", kept, cap(d.m.joined))
	}
}

// TestManyStrings: a body of empty strings, as many as it has bytes, is refused before there is memory for them.
func TestManyStrings(t *testing.T) {
	for version := byte(1); version <= formatVersion; version++ {
		const n = 16 << 20
		body := append(binary.AppendUvarint(nil, n), make([]byte, maxBody-8)...)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := parseBody(body, version, &Header{}, new(memory), nil)
		runtime.ReadMemStats(&after)
		if more := after.TotalAlloc - before.TotalAlloc; !errors.Is(err, ErrCorrupt) || more > 1<<20 {
			t.Errorf("version %d: parseBody = %v, and took %d KiB, want ErrCorrupt and nearly nothing", version, err, more>>10)
		}
	}
}

// TestEncodeIsTheSameWhateverCameBefore: memory is used again, and of what was in it nothing shows, neither in the bytes nor in what is kept.
func TestEncodeIsTheSameWhateverCameBefore(t *testing.T) {
	encodeIn := func(e *encoder, b *Bucket, version byte) error {
		e.number(b)
		return e.encode(b, version)
	}
	var alone [2][][]byte
	for i := range alone {
		for seed := range uint64(41) {
			e := new(encoder)
			if err := encodeIn(e, randomBucket(seed), byte(1+i)); err != nil {
				t.Fatal(err)
			}
			alone[i] = append(alone[i], e.body)
		}
	}
	n := len(alone[0])
	e := new(encoder)
	first := make([][]byte, 2*n)
	for i := range 20 * n {
		seed, version := i*7%n, byte(1+i/3%2)
		b := randomBucket(uint64(seed))
		if err := encodeIn(e, b, version); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(e.body, alone[version-1][seed]) {
			t.Fatalf("round %d: bucket %d has another body than in memory of its own", i, seed)
		}
		var data, body []byte
		var err error
		if version == version1 {
			data = e.deflate(nil)
			body, err = io.ReadAll(standard.NewReaderDict(bytes.NewReader(data), []byte(preset)))
		} else {
			data, body = e.pack(nil), make([]byte, len(e.body))
			err = unpackZstd(data, body)
		}
		if at := 2*seed + int(version) - 1; first[at] == nil {
			first[at] = data
		} else if !bytes.Equal(data, first[at]) {
			t.Fatalf("round %d: bucket %d is compressed to other bytes than the first time", i, seed)
		}
		if err != nil || !bytes.Equal(body, e.body) {
			t.Fatalf("round %d: bucket %d becomes %d of %d bytes again, %v", i, seed, len(body), len(e.body), err)
		}
		if len(b.Tables) > 0 { // one that fails after its first table leaves nothing either
			b.Tables = append(b.Tables, b.Tables[0])
			if err := encodeIn(e, b, version); err == nil {
				t.Fatalf("bucket %d with a table twice is encoded", seed)
			}
		}
	}
}

// presetSum is what the CRC32C of preset must be for ever.
const presetSum = 0x07f2152c

// TestPresetNeverChanges: the preset dictionary is part of format version 1.
func TestPresetNeverChanges(t *testing.T) {
	if got := crc32.Checksum([]byte(preset), castagnoli); got != presetSum {
		t.Errorf("checksum of the preset dictionary = %#08x, want %#08x: a change needs a new format version", got, presetSum)
	}
}

func FuzzDecode(f *testing.F) {
	for seed := range uint64(8) {
		for _, version := range []byte{version1, formatVersion} {
			data, err := encode(nil, randomBucket(seed), version)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data[:len(data)-trailerSize], byte(0))
			e := new(encoder)
			b := randomBucket(seed)
			e.number(b)
			if err := e.encode(b, version); err == nil {
				f.Add(e.body, version)
			}
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, body byte) {
		var b *Bucket
		var err error
		if version := body % (formatVersion + 1); version > 0 {
			// Past the compression, where mutations find more.
			b = &Bucket{Header: Header{Name: Name{Start: 1e18}}}
			b.Tables, err = parseBody(data, version, &b.Header, new(memory), nil)
		} else {
			b, err = Decode(seal(append(bytes.Clone(data), 0, 0, 0, 0)))
		}
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) {
				t.Fatalf("Decode = %v, want ErrCorrupt or ErrVersion", err)
			}
			return
		}
		once, err := encode(nil, b, version1+body/128)
		if err != nil {
			t.Fatalf("Encode of what was decoded: %v", err)
		}
		c, err := Decode(once)
		if err != nil {
			t.Fatalf("Decode of what was encoded: %v", err)
		}
		if !reflect.DeepEqual(canonical(b), canonical(c)) {
			t.Fatalf("Decode(Encode(b)) =\n%+v, want\n%+v", c, b)
		}
		twice, err := encode(nil, c, version1+body/128)
		if err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("encoding twice gives other bytes (%v)", err)
		}
		for _, table := range c.Tables {
			if err := NewTable(table.Schema, 3).Merge(table); err != nil {
				t.Fatal(err)
			}
		}
	})
}

var update = flag.Bool("update", false, "write testdata/v1.bucket anew")

// TestReadsEveryVersion decodes buckets that earlier builds wrote: spools and
// stores hold such bytes. They were made by this test with -update, each when its version was new.
func TestReadsEveryVersion(t *testing.T) {
	for version := byte(1); version <= formatVersion; version++ {
		path := fmt.Sprintf("testdata/v%d.bucket", version)
		want := randomBucket(6)
		clear(want.Counters[exchange.SmugglingSuspects+1:]) // they have none of these
		if *update && version == formatVersion {
			data, err := encode(nil, want, version)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Decode(data)
		if err != nil {
			t.Fatal(err)
		}
		if data[len(magic)] != version || len(got.Tables) == 0 || !reflect.DeepEqual(canonical(got), canonical(want)) {
			t.Errorf("%s of version %d holds %d tables and %+v, want %d and %+v", path, data[len(magic)], len(got.Tables), got.Header, len(want.Tables), want.Header)
		}
	}
}

// TestVersions: which one Encode chooses, and what a program that reads version 1 only is sent.
func TestVersions(t *testing.T) {
	b := randomBucket(6)
	encoded := func() []byte {
		t.Helper()
		data, err := Encode(nil, b)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	small := encoded()
	table := NewTable(testSchema(), 1000)
	for i := range 500 {
		table.Add([]string{"server", fmt.Sprintf("a name of some length, %d", i)}, []int64{1, 2, int64(i), b.Start + int64(i)})
	}
	b.Tables = []*Table{table}
	large := encoded()
	if small[len(magic)] != version1 || large[len(magic)] != formatVersion {
		t.Errorf("a small bucket has version %d and a large one %d, want %d and %d", small[len(magic)], large[len(magic)], version1, formatVersion)
	}
	for _, data := range [][]byte{small, large} {
		same, err := ForVersion(data, formatVersion)
		if err != nil || !bytes.Equal(same, data) {
			t.Errorf("for version %d it has other bytes (%v)", formatVersion, err)
		}
		older, err := ForVersion(data, version1)
		if err != nil || older[len(magic)] != version1 {
			t.Fatalf("for version 1 it has version %d, %v", older[len(magic)], err)
		}
		x, err := Decode(data)
		if err != nil {
			t.Fatal(err)
		}
		y, err := Decode(older)
		if err != nil || !reflect.DeepEqual(x, y) {
			t.Errorf("for version 1 it is another bucket: %v", err)
		}
	}
	large[len(large)/2]++
	if _, err := ForVersion(large, version1); !errors.Is(err, ErrCorrupt) {
		t.Errorf("ForVersion of a damaged bucket = %v, want ErrCorrupt", err)
	}
}
