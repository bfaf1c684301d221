package baseline

import (
	"errors"
	"math"
	"math/big"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/httpctl/httpctl/pkg/bucket"
)

const sec = int64(time.Second)

func TestRate(t *testing.T) {
	for _, c := range []struct {
		requests        int64
		window, covered time.Duration
		want            int64
	}{
		{0, time.Minute, time.Minute, 0},
		{100, time.Minute, 0, 0},
		{100, 2 * time.Minute, 2 * time.Minute, 100},
		{100, 2 * time.Minute, 4 * time.Minute, 50},
		{101, time.Minute, 2 * time.Minute, 51}, // 50.5: half rounds up
		{1, 10 * time.Second, 20 * time.Second, 1},
		{1, 10 * time.Second, 21 * time.Second, 0},
		{100, 2 * time.Minute, 110 * time.Second, 109}, // 109.09
		{math.MaxInt64, 24 * time.Hour, 24 * time.Hour, math.MaxInt64},
		{math.MaxInt64, 24 * time.Hour, time.Second, math.MaxInt64},
		{math.MaxInt64 / 2, 2, 2, math.MaxInt64 / 2},
	} {
		if got := Rate(c.requests, c.window, c.covered); got != c.want {
			t.Errorf("Rate(%d, %v, %v) = %d, want %d", c.requests, c.window, c.covered, got, c.want)
		}
	}
}

func TestRateAgainstBig(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 5000 {
		n, w, c := r.Int64()>>r.IntN(62), r.Int64N(int64(24*time.Hour))+1, r.Int64N(int64(31*24*time.Hour))+1
		// floor((2nw + c) / 2c)
		x := new(big.Int).Mul(big.NewInt(n), big.NewInt(w))
		x.Lsh(x, 1).Add(x, big.NewInt(c)).Div(x, new(big.Int).Lsh(big.NewInt(c), 1))
		want := int64(math.MaxInt64)
		if x.IsInt64() {
			want = x.Int64()
		}
		if got := Rate(n, time.Duration(w), time.Duration(c)); got != want {
			t.Fatalf("Rate(%d, %d, %d) = %d, want %d", n, w, c, got, want)
		}
	}
}

func TestClose(t *testing.T) {
	h1, h2 := bucket.ID{1}, bucket.ID{2}
	l := Begin(Fleet, 100*sec, 2*time.Minute, time.Minute)
	if l.Until() != 220*sec || !l.Begun() || (Learning{}).Begun() {
		t.Fatalf("Begin: until %d, begun %v", l.Until(), l.Begun())
	}

	idle := l.Close(Observed{Covered: 2 * time.Minute, Hosts: []bucket.ID{h1}})
	if idle.Enforced || idle.From != 220*sec || idle.Restarts != 1 || idle.Origin != 100*sec {
		t.Errorf("Close without requests = %+v, want a restart at T1", idle)
	}
	dark := idle.Close(Observed{Requests: 5})
	if dark.Enforced || dark.From != 340*sec || dark.Restarts != 2 {
		t.Errorf("Close without coverage = %+v, want a second restart", dark)
	}
	few := l.Close(Observed{Requests: 1, Covered: 121 * time.Second})
	if few.Enforced {
		t.Errorf("Close with a baseline that rounds to 0 = %+v, want a restart", few)
	}

	done := dark.Close(Observed{Requests: 100, Covered: time.Minute, Hosts: []bucket.ID{h2, h1, h2}})
	want := Result{Baseline: 100, Requests: 100, Covered: time.Minute, Hosts: []bucket.ID{h1, h2}}
	if !done.Enforced || done.Until() != 460*sec || !reflect.DeepEqual(done.Result, want) {
		t.Errorf("Close = %+v, want %+v enforced at 460s", done, want)
	}
	if !done.Knows(h1) || !done.Knows(h2) || done.Knows(bucket.ID{3}) {
		t.Errorf("Knows: hosts %v", done.Result.Hosts)
	}
	if again := done.Close(Observed{Requests: 1, Covered: time.Hour}); !reflect.DeepEqual(again, done) {
		t.Errorf("Close of an enforced baseline = %+v, want it unchanged", again)
	}
}

func TestSkipIsManyCloses(t *testing.T) {
	l := Begin(Fleet, 0, time.Minute, time.Minute)
	for _, at := range []int64{0, 59, 60, 61, 119, 120, 3599, 3600} {
		want := l
		for want.Until() <= at*sec {
			want = want.Close(Observed{})
		}
		if got := l.Skip(at * sec); !reflect.DeepEqual(got, want) {
			t.Errorf("Skip(%ds) = %+v, want %+v", at, got, want)
		}
	}
}

func TestFirstWhole(t *testing.T) {
	for _, c := range [][2]int64{{0, 0}, {1, 10 * sec}, {10 * sec, 10 * sec}, {10*sec + 1, 20 * sec}, {-1, 0}, {-10 * sec, -10 * sec}} {
		if got := FirstWhole(c[0], 10*time.Second); got != c[1] {
			t.Errorf("FirstWhole(%d) = %d, want %d", c[0], got, c[1])
		}
	}
}

func TestCovered(t *testing.T) {
	span := func(a, b int64) bucket.Span { return bucket.Span{From: a * sec, To: b * sec} }
	for _, c := range []struct {
		name  string
		hosts []HostCoverage
		want  int64
	}{
		{"nothing", nil, 0},
		{"whole", []HostCoverage{{Covered: []bucket.Span{span(0, 100)}}}, 100},
		{"clipped", []HostCoverage{{Covered: []bucket.Span{span(-50, 10), span(90, 200)}}}, 20},
		{"union of hosts", []HostCoverage{{Covered: []bucket.Span{span(0, 60)}}, {Covered: []bucket.Span{span(40, 80)}}}, 80},
		{"unordered, overlapping", []HostCoverage{{Covered: []bucket.Span{span(50, 60), span(0, 30), span(20, 40)}}}, 50},
		{"one host unobserved", []HostCoverage{
			{Covered: []bucket.Span{span(0, 100)}, Unobserved: []bucket.Span{span(10, 20), span(30, 40)}}}, 80},
		{"another host watched", []HostCoverage{
			{Covered: []bucket.Span{span(0, 100)}, Unobserved: []bucket.Span{span(10, 40)}},
			{Covered: []bucket.Span{span(20, 30)}}}, 80},
		{"both unobserved", []HostCoverage{
			{Covered: []bucket.Span{span(0, 100)}, Unobserved: []bucket.Span{span(10, 40)}},
			{Covered: []bucket.Span{span(0, 100)}, Unobserved: []bucket.Span{span(30, 50)}}}, 90},
		{"all of it", []HostCoverage{{Covered: []bucket.Span{span(0, 100)}, Unobserved: []bucket.Span{span(-5, 105)}}}, 0},
	} {
		if got := Covered(c.hosts, 0, 100*sec); got != time.Duration(c.want*sec) {
			t.Errorf("%s: Covered = %v, want %ds", c.name, got, c.want)
		}
	}
}

func TestScope(t *testing.T) {
	for _, s := range []Scope{Fleet, {ScopeHost, "0102"}, {ScopeDomain, "example.org"}, {ScopeDomain, "[2001:db8::1]"}} {
		if got, err := ParseScope(s.String()); got != s || err != nil {
			t.Errorf("ParseScope(%q) = %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "fleet:x", "host:", "galaxy:x"} {
		if _, err := ParseScope(s); err == nil {
			t.Errorf("ParseScope(%q) succeeded", s)
		}
	}
}

func TestCodec(t *testing.T) {
	l := Begin(Scope{ScopeDomain, "example.org"}, 7, time.Minute, time.Hour)
	for _, want := range []Learning{l, l.Close(Observed{}), l.Close(Observed{Requests: 9, Covered: 1, Hosts: []bucket.ID{{1}, {2}}})} {
		if got, err := Decode(Encode(want)); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("Decode(Encode(%+v)) = %+v, %v", want, got, err)
		}
	}
	if _, err := Decode([]byte(`{"v":2}`)); !errors.Is(err, ErrVersion) {
		t.Errorf("Decode of version 2: %v, want ErrVersion", err)
	}
	for _, bad := range []string{``, `{}`, `[]`, `{"v":1}`, `{"v":1,"scope":"fleet","duration":1,"window":1,"enforced":true}`,
		`{"v":1,"scope":"x","duration":1,"window":1}`} {
		if _, err := Decode([]byte(bad)); err == nil {
			t.Errorf("Decode(%s) succeeded", bad)
		}
	}
}
