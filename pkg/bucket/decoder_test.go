package bucket

import (
	"reflect"
	"testing"
)

// TestDecoderEqualsDecode: whatever a Decoder decoded before, it decodes what Decode does; headers and schemas
// that it returned stay as they were.
func TestDecoderEqualsDecode(t *testing.T) {
	var d Decoder
	type kept struct {
		header  Header
		schemas []Schema
		of      *Bucket
	}
	var all []kept
	for i := range uint64(200) {
		data, err := Encode(nil, randomBucket(i%50))
		if err != nil {
			t.Fatal(err)
		}
		want, err := Decode(data)
		if err != nil {
			t.Fatal(err)
		}
		if i%7 == 3 { // it fails in between, and goes on
			damaged := seal(append(append([]byte(nil), data[:len(data)*2/3]...), 0, 0, 0, 0))
			if _, err := d.Decode(damaged); err == nil && len(want.Tables) > 0 {
				t.Fatalf("bucket %d, cut short, decodes", i)
			}
		}
		got, err := d.Decode(data)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(canonical(got), canonical(want)) {
			t.Fatalf("bucket %d: Decoder.Decode =\n%+v, want\n%+v", i, got, want)
		}
		k := kept{header: got.Header, of: want}
		for _, table := range got.Tables {
			k.schemas = append(k.schemas, table.Schema)
			one, err := d.Decode(data, table.Schema.Name)
			if err != nil || len(one.Tables) != 1 {
				t.Fatalf("Decode(data, %q) = %v, %v", table.Schema.Name, one, err)
			}
		}
		all = append(all, k)
	}
	for i, k := range all {
		if !reflect.DeepEqual(k.header, k.of.Header) {
			t.Errorf("header %d is now %+v, want %+v", i, k.header, k.of.Header)
		}
		for j, s := range k.schemas {
			if !s.Equal(&k.of.Tables[j].Schema) {
				t.Errorf("schema %d of bucket %d is now %+v, want %+v", j, i, s, k.of.Tables[j].Schema)
			}
		}
	}
}

// TestDecoderKeepsItsMemory: in steady state only small things are made anew; what was large is not kept.
func TestDecoderKeepsItsMemory(t *testing.T) {
	b := randomBucket(6)
	for _, table := range b.Tables {
		table.Cut(5)
	}
	data, err := Encode(nil, b)
	if err != nil {
		t.Fatal(err)
	}
	var d Decoder
	decode := func() {
		if _, err := d.Decode(data); err != nil {
			t.Fatal(err)
		}
	}
	decode()
	if n := testing.AllocsPerRun(100, decode); n > float64(10+5*len(b.Tables)) {
		t.Errorf("%v allocations a bucket of %d tables", n, len(b.Tables))
	}
	large := &Bucket{Tables: []*Table{NewTable(Schema{Name: "large", Keys: []string{"key"}, Measures: []Measure{{Name: "hits"}}}, unbounded)}}
	for i := range keptBody {
		large.Tables[0].Add([]string{string(rune(0x10000+i/1000)) + string(rune(0x10000+i%1000))}, []int64{1})
	}
	if data, err = Encode(nil, large); err != nil {
		t.Fatal(err)
	}
	decode()
	if n := cap(d.m.body) + cap(d.m.rows); n > keptBody {
		t.Errorf("%d bytes and rows are kept of a large bucket", n)
	}
}
