package spool

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/bbolt"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/exchange"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const width = 10 * time.Second

func sec(n int64) int64 { return n * int64(time.Second) }

// testEncode stands in for the codec: the spool never looks into the encoding. Its
// size is 16 bytes and one for each open exchange.
func testEncode(dst []byte, b *bucket.Bucket) ([]byte, error) {
	dst = binary.BigEndian.AppendUint64(dst, uint64(b.Start))
	dst = binary.BigEndian.AppendUint64(dst, b.Ordinal)
	r := rand.New(rand.NewPCG(b.Ordinal, 1))
	for range b.Open {
		dst = append(dst, byte(r.Uint32()))
	}
	return dst, nil
}

func open(t *testing.T, dir string, cfg Config) *Spool {
	t.Helper()
	s, err := Open(dir, cfg, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	s.encode = testEncode
	t.Cleanup(func() {
		s.Close()
		check(t, dir)
	})
	return s
}

// check runs the library's consistency check over a closed spool.
func check(t *testing.T, dir string) {
	t.Helper()
	db, err := bbolt.Open(filepath.Join(dir, fileName), 0o600, &bbolt.Options{Timeout: time.Second, ReadOnly: true})
	if err != nil {
		return // tests that damage the file
	}
	defer db.Close()
	db.View(func(tx *bbolt.Tx) error {
		for err := range tx.Check() {
			t.Errorf("consistency check: %v", err)
		}
		return nil
	})
}

var inc = bucket.ID{1}

func make1(n int64, size int) *bucket.Bucket {
	b := &bucket.Bucket{}
	b.Incarnation, b.Start, b.Width, b.Ordinal, b.Final = inc, sec(10*n), width, uint64(n), true
	b.ClosedThrough, b.Open = b.End(), uint64(size)
	return b
}

func add(t *testing.T, s *Spool, from, to int64, size int) {
	t.Helper()
	for n := from; n < to; n++ {
		if err := s.Add(make1(n, size)); err != nil {
			t.Fatalf("Add(%d): %v", n, err)
		}
	}
}

// ordinals reads the whole queue.
func ordinals(t *testing.T, s *Spool) (ns []int64, seqs []uint64) {
	t.Helper()
	for after := uint64(0); ; {
		seq, data, err := s.Next(after)
		if err != nil {
			t.Fatalf("Next(%d): %v", after, err)
		}
		if seq == 0 {
			return ns, seqs
		}
		if seq <= after {
			t.Fatalf("Next(%d) = %d: order", after, seq)
		}
		n := int64(binary.BigEndian.Uint64(data[8:]))
		if want, _ := testEncode(nil, make1(n, len(data)-16)); !slices.Equal(data, want) {
			t.Fatalf("Next(%d): bucket %d has other bytes", after, n)
		}
		ns, seqs, after = append(ns, n), append(seqs, seq), seq
	}
}

// counted reads a counter.
func counted(t *testing.T, c prometheus.Collector) float64 {
	t.Helper()
	r := prometheus.NewRegistry()
	r.MustRegister(c)
	families, err := r.Gather()
	if err != nil || len(families) != 1 {
		t.Fatalf("Gather: %v, %d families", err, len(families))
	}
	return families[0].Metric[0].GetCounter().GetValue()
}

func seqOf(from, to int64) (ns []int64) {
	for n := from; n < to; n++ {
		ns = append(ns, n)
	}
	return ns
}

func span(from, to int64) bucket.Span { return bucket.Span{From: sec(from), To: sec(to)} }

func TestQueueSurvivesRestart(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, DefaultConfig())
	host := s.Host()
	if host.IsZero() {
		t.Error("no host id")
	}
	add(t, s, 0, 5, 100)
	_, seqs := ordinals(t, s)
	if err := s.Settle(seqs[:2], nil, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, f := range []func() error{
		func() error { return s.Add(make1(9, 1)) },
		func() error { _, _, err := s.Next(0); return err },
		func() error { return s.Settle(nil, nil, nil) },
		func() error { return s.Begin(inc, 0, width) },
	} {
		if err := f(); !errors.Is(err, ErrClosed) {
			t.Errorf("after Close: %v, want ErrClosed", err)
		}
	}

	s = open(t, dir, DefaultConfig())
	if s.Host() != host {
		t.Errorf("host id %v, want %v as before", s.Host(), host)
	}
	if ns, _ := ordinals(t, s); !slices.Equal(ns, seqOf(2, 5)) {
		t.Errorf("queue %v, want 2 to 4", ns)
	}
	if s.Len() != 3 {
		t.Errorf("Len() = %d, want 3", s.Len())
	}
	add(t, s, 5, 7, 10)
	if ns, _ := ordinals(t, s); !slices.Equal(ns, seqOf(2, 7)) {
		t.Errorf("queue %v, want 2 to 6", ns)
	}
}

func TestSecondAgentIsRefused(t *testing.T) {
	dir := t.TempDir()
	open(t, dir, DefaultConfig())
	_, err := Open(dir, DefaultConfig(), Deps{})
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "stop the other agent") {
		t.Errorf("second Open: %v, want ErrLocked, the path and what to do", err)
	}
}

func TestUnobservedAfterKill(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, DefaultConfig())
	if _, ok := s.Previous(); ok {
		t.Error("a first start has a previous incarnation")
	}
	if err := s.Begin(inc, sec(3), width); err != nil {
		t.Fatal(err)
	}
	b := make1(0, 10)
	if err := s.Add(b); err != nil {
		t.Fatal(err)
	}
	if len(b.Unobserved) != 0 {
		t.Errorf("a first start declares %v", b.Unobserved)
	}
	s.Close() // as after a kill: nothing was flushed beyond Add

	s = open(t, dir, DefaultConfig())
	if prev, ok := s.Previous(); !ok || prev != (State{inc, sec(10), width}) {
		t.Errorf("Previous() = %v, %v", prev, ok)
	}
	if err := s.Begin(bucket.ID{2}, sec(95), width); err != nil {
		t.Fatal(err)
	}
	s.Close() // killed again before it closed a bucket

	s = open(t, dir, DefaultConfig())
	s.Begin(bucket.ID{3}, sec(120), width)
	b = make1(12, 10)
	if err := s.Add(b); err != nil {
		t.Fatal(err)
	}
	if want := []bucket.Span{span(10, 120)}; !slices.Equal(b.Unobserved, want) {
		t.Errorf("declared %v, want %v", b.Unobserved, want)
	}
	b = make1(13, 10)
	s.Add(b)
	if len(b.Unobserved) != 0 {
		t.Errorf("declared twice: %v", b.Unobserved)
	}
}

// TestKilledAndClockBehind: a host that lost power may start with a clock that is behind. What the
// open bucket held is declared all the same.
func TestKilledAndClockBehind(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, DefaultConfig())
	s.Begin(inc, sec(3), width)
	add(t, s, 0, 10, 10)
	s.Close() // as after a kill at 105 s

	s = open(t, dir, DefaultConfig())
	s.Begin(bucket.ID{2}, sec(52), width)
	b := make1(5, 10)
	s.Add(b)
	if want := []bucket.Span{span(100, 110)}; !slices.Equal(b.Unobserved, want) {
		t.Errorf("declared %v, want %v", b.Unobserved, want)
	}
	// A step of the clock under a running agent loses nothing.
	s.Begin(bucket.ID{3}, sec(12), width)
	b = make1(1, 10)
	s.Add(b)
	if len(b.Unobserved) != 0 {
		t.Errorf("after a step back %v is declared, want nothing", b.Unobserved)
	}
}

// TestClockWasAhead: of what a clock that was ahead has dated, only the time that has come is declared once it is set right, however its
// buckets are given up: else what is observed later would count as not observed, and beyond 2199 no aggregator took a bucket of this host again.
func TestClockWasAhead(t *testing.T) {
	const day = 24 * 3600 / 10
	for _, days := range []int64{3, 100_000} {
		for _, how := range []string{"refused while it is ahead", "refused when it is right", "full"} {
			for _, restart := range []bool{false, true} {
				t.Run(fmt.Sprintf("%d days/%s/restart=%v", days, how, restart), func(t *testing.T) {
					dir, cfg := t.TempDir(), Config{MaxSize: config.MiB, MaxMemory: config.MiB}
					s, size := open(t, dir, cfg), 10
					if how == "full" {
						size = 500 << 10 // two fit
					}
					s.Begin(bucket.ID{1}, sec(0), width)
					add(t, s, 0, 1, 10)
					s.Settle([]uint64{s.Newest()}, nil, nil)
					ahead := days * day
					s.Begin(bucket.ID{2}, sec(10*ahead), width)
					add(t, s, ahead, ahead+1, size) // declares all the time until then
					wrong := []uint64{s.Newest()}
					if how == "refused while it is ahead" {
						s.Settle(nil, nil, wrong)
					}
					want := []bucket.Span{span(10, 20)}
					if restart {
						s.Close()
						s = open(t, dir, cfg)
						if days == 3 { // which clock is right is not known, see TestKilledAndClockBehind
							want = append(want, span(10*ahead+10, 10*ahead+20))
						}
					}
					s.Begin(bucket.ID{3}, sec(20), width)
					if how == "refused when it is right" {
						s.Settle(nil, nil, wrong)
					}
					var declared []bucket.Span
					dropped := uint64(0)
					for n := int64(2); n < 6; n++ {
						b := make1(n, size)
						if err := s.Add(b); err != nil {
							t.Fatal(err)
						}
						declared = append(declared, b.Unobserved...)
						dropped += b.Counters[exchange.SpoolDropped]
						if n > 2 {
							s.Settle([]uint64{s.Newest() - 1}, nil, nil)
						}
					}
					if declared = mergeSpans(declared); !slices.Equal(declared, want) || dropped != 1 {
						t.Errorf("declared %v and %d dropped, want %v and 1", declared, dropped, want)
					}
				})
			}
		}
	}
}

// TestDeclaredBeyondTime: a spool that holds a span which no aggregator takes, as one that an earlier version wrote, is rid of it with the next bucket.
func TestDeclaredBeyondTime(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, DefaultConfig())
	s.Begin(inc, sec(0), width)
	far := bucket.Span{From: sec(-50), To: bucket.MaxTime + 1}
	b := make1(0, 10)
	b.Unobserved = []bucket.Span{far}
	s.Add(b)
	s.lost, s.dirty = declaration{spans: []bucket.Span{{From: sec(-90), To: sec(-80)}, far}}, true
	s.Close()
	s = open(t, dir, DefaultConfig())
	s.Begin(bucket.ID{2}, sec(20), width)
	for n := int64(2); n < 4; n++ {
		want := []bucket.Span{span(-90, -80), span(-50, 30)}
		if n == 3 { // and of the first one, which is refused
			want = []bucket.Span{span(-50, 40)}
		}
		b := make1(n, 10)
		if err := s.Add(b); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(b.Unobserved, want) {
			t.Errorf("bucket %d declares %v, want %v", n, b.Unobserved, want)
		}
		s.Settle(nil, nil, []uint64{1})
	}
}

func TestFullSpoolDropsOldestAndDeclares(t *testing.T) {
	dir := t.TempDir()
	cfg := Config{MaxSize: config.MiB, MaxMemory: config.MiB}
	s := open(t, dir, cfg)
	const size = 100 << 10
	add(t, s, 0, 10, size) // 10 of 100 KiB fit in 1 MiB
	if ns, _ := ordinals(t, s); !slices.Equal(ns, seqOf(0, 10)) {
		t.Fatalf("queue %v before it is full", ns)
	}
	add(t, s, 10, 12, size) // drops 0, then 1; bucket 11 declares 0
	s.Close()
	s = open(t, dir, cfg) // what is still to be declared survives
	ns, seqs := ordinals(t, s)
	if !slices.Equal(ns, seqOf(2, 12)) {
		t.Errorf("queue %v, want 2 to 11", ns)
	}
	b := make1(12, size) // drops 2
	if err := s.Add(b); err != nil {
		t.Fatal(err)
	}
	if want := []bucket.Span{span(10, 20)}; !slices.Equal(b.Unobserved, want) || b.Counters[exchange.SpoolDropped] != 1 {
		t.Errorf("bucket 12 declares %v and %d dropped, want %v and 1", b.Unobserved, b.Counters[exchange.SpoolDropped], want)
	}
	// 11 and 12 carry declarations, so when they are dropped their declarations return.
	add(t, s, 13, 23, size)
	s.Settle(seqs, nil, nil) // a late answer for what is gone does no harm
	s.mu.Lock()
	lost := s.lost
	s.mu.Unlock()
	var dropped uint64 = lost.dropped
	covered := slices.Clone(lost.spans)
	_, seqs = ordinals(t, s)
	for _, seq := range seqs {
		e, _ := s.lookup(seq)
		dropped += e.dropped
		covered = append(covered, e.unobserved...)
	}
	if dropped != 13 {
		t.Errorf("%d dropped buckets are told of, want 13", dropped)
	}
	if want := []bucket.Span{span(0, 130)}; !slices.Equal(mergeSpans(covered), want) {
		t.Errorf("declared %v, want %v", mergeSpans(covered), want)
	}
	if got := counted(t, s.metrics.dropped.WithLabelValues("full")); got != 11 {
		t.Errorf("metric says %v dropped since the restart, want 11", got)
	}
}

func TestFileStaysNearItsBound(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 60 MiB")
	}
	dir := t.TempDir()
	cfg := Config{MaxSize: 16 * config.MiB, MaxMemory: config.MiB}
	s := open(t, dir, cfg)
	s.db.NoSync = true
	add(t, s, 0, 6000, 10<<10)
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(dir, fileName), &st); err != nil {
		t.Fatal(err)
	}
	used := st.Blocks * 512
	t.Logf("%d bytes on disk for a bound of %d", used, cfg.MaxSize)
	if used > int64(cfg.MaxSize)*3/2 {
		t.Errorf("the file takes %d bytes on disk, more than 1.5 times its bound of %d", used, cfg.MaxSize)
	}
}

func TestSettleRedeclares(t *testing.T) {
	s := open(t, t.TempDir(), DefaultConfig())
	b := make1(0, 10)
	b.Unobserved = []bucket.Span{span(-30, -20)}
	b.Counters[exchange.SpoolDropped] = 2
	s.Add(b)
	b = make1(1, 10)
	b.Unobserved = []bucket.Span{span(-60, -50)}
	s.Add(b)
	add(t, s, 2, 3, 10)
	_, seqs := ordinals(t, s)
	if err := s.Settle(seqs[2:], seqs[:1], seqs[1:2]); err != nil {
		t.Fatal(err)
	}
	if s.Len() != 0 {
		t.Errorf("Len() = %d after all were settled", s.Len())
	}
	b = make1(3, 10)
	s.Add(b)
	if want := []bucket.Span{span(-60, -50), span(-30, -20), span(10, 20)}; !slices.Equal(b.Unobserved, want) {
		t.Errorf("declared %v, want %v", b.Unobserved, want)
	}
	if got := b.Counters[exchange.SpoolDropped]; got != 3 {
		t.Errorf("dropped %d, want 3: two told of by the expired one, and the refused one", got)
	}
}

// corrupt changes the value of an entry behind the spool's back.
func corrupt(t *testing.T, s *Spool, seq uint64, f func(v []byte) []byte) {
	t.Helper()
	err := s.db.Update(func(tx *bbolt.Tx) error {
		q := tx.Bucket(bucketQueue)
		return q.Put(key(seq), f(slices.Clone(q.Get(key(seq)))))
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestDamagedEntryIsNeverSent(t *testing.T) {
	flip := func(i int) func([]byte) []byte {
		return func(v []byte) []byte {
			if i < 0 {
				i += len(v)
			}
			v[i] ^= 4
			return v
		}
	}
	for name, tt := range map[string]struct {
		f    func([]byte) []byte
		want []bucket.Span
	}{
		"data":            {flip(-1), []bucket.Span{span(20, 30)}},
		"data cut":        {func(v []byte) []byte { return v[:len(v)-3] }, []bucket.Span{span(20, 30)}},
		"meta":            {flip(crcSize + 25), []bucket.Span{span(10, 40)}},
		"number of spans": {flip(crcSize + 3), []bucket.Span{span(10, 40)}},
		"checksum":        {flip(0), []bucket.Span{span(10, 40)}},
		"empty":           {func([]byte) []byte { return []byte{} }, []bucket.Span{span(10, 40)}},
	} {
		for _, restart := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/restart=%v", name, restart), func(t *testing.T) {
				dir := t.TempDir()
				s := open(t, dir, DefaultConfig())
				add(t, s, 0, 5, 100)
				_, seqs := ordinals(t, s)
				corrupt(t, s, seqs[2], tt.f)
				if restart {
					s.Close()
					s = open(t, dir, DefaultConfig())
				}
				if ns, _ := ordinals(t, s); !slices.Equal(ns, []int64{0, 1, 3, 4}) {
					t.Errorf("queue %v, want all but 2", ns)
				}
				b := make1(5, 10)
				if err := s.Add(b); err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(b.Unobserved, tt.want) || b.Counters[exchange.SpoolDropped] != 1 {
					t.Errorf("declared %v and %d dropped, want %v and 1", b.Unobserved, b.Counters[exchange.SpoolDropped], tt.want)
				}
				if got := counted(t, s.metrics.dropped.WithLabelValues("damaged")); got != 1 {
					t.Errorf("metric says %v damaged, want 1", got)
				}
				if s.Len() != 5 {
					t.Errorf("Len() = %d, want 5", s.Len())
				}
			})
		}
	}
}

func TestCorruptFileIsRefused(t *testing.T) {
	for name, f := range map[string]func(t *testing.T, b []byte) []byte{
		"no spool":   func(_ *testing.T, b []byte) []byte { return []byte(strings.Repeat("not a spool\n", 3000)) },
		"truncated":  func(_ *testing.T, b []byte) []byte { return b[:len(b)/8] },
		"both metas": func(_ *testing.T, b []byte) []byte { clear(b[:2*os.Getpagesize()]); return b },
		"branches that name themselves": func(_ *testing.T, b []byte) []byte {
			// Without a look first, the library's own check runs out of stack, which ends the process.
			size := os.Getpagesize()
			for page := 2; (page+1)*size <= len(b); page++ {
				if p := b[page*size:]; binary.NativeEndian.Uint16(p[8:]) == 1 && binary.NativeEndian.Uint64(p) == uint64(page) {
					binary.NativeEndian.PutUint64(p[16+8:], uint64(page))
				}
			}
			return b
		},
		"pages": func(_ *testing.T, b []byte) []byte {
			for i := 2 * os.Getpagesize(); i < len(b); i++ {
				b[i] ^= 0x55
			}
			return b
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir, DefaultConfig())
			host := s.Host()
			add(t, s, 0, 50, 5000)
			s.Close()
			path := filepath.Join(dir, fileName)
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			os.WriteFile(path, f(t, b), 0o600)
			_, err = Open(dir, DefaultConfig(), Deps{})
			if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "mv "+path+" "+path+".damaged") {
				t.Fatalf("Open: %v, want ErrCorrupt and how to move the file aside", err)
			}
			os.Rename(path, path+".damaged")
			s = open(t, dir, DefaultConfig())
			if s.Host() != host {
				t.Error("the host's identity went with the damaged file")
			}
		})
	}
}

func TestFailedSyncIsVerifiedNotRetried(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, DefaultConfig())
	add(t, s, 0, 3, 100)
	s.fault = func() error { return syscall.EIO }
	b := make1(3, 100)
	err := s.Add(b)
	if !errors.Is(err, ErrKept) || !errors.Is(err, syscall.EIO) || !strings.Contains(err.Error(), "dmesg") {
		t.Fatalf("Add = %v, want ErrKept, EIO and a hint", err)
	}
	if s.db != nil {
		t.Error("the file is still in use after a failed commit")
	}
	if err := s.Add(make1(4, 100)); !errors.Is(err, ErrKept) {
		t.Errorf("Add = %v, want ErrKept", err)
	}
	s.tried = time.Now().Add(time.Hour) // however slow this machine is
	var ns []int64
	seq, data, err := s.Next(0)
	for ; seq != 0; seq, data, err = s.Next(seq) {
		ns = append(ns, int64(binary.BigEndian.Uint64(data[8:])))
	}
	if !slices.Contains(ns, 3) || !slices.Contains(ns, 4) || !errors.Is(err, syscall.EIO) {
		t.Errorf("queue %v, %v, want what is in memory, and that there is more", ns, err)
	}
	s.fault, s.tried = nil, time.Time{}
	add(t, s, 5, 6, 100)
	if len(s.mem) != 0 {
		t.Errorf("%d buckets still in memory", len(s.mem))
	}
	s.Close()
	s = open(t, dir, DefaultConfig())
	if ns, _ := ordinals(t, s); !slices.Equal(ns, seqOf(0, 6)) {
		t.Errorf("queue %v, want 0 to 5, each once", ns)
	}
}

// TestReplace: a bucket that has other bytes stays where it is, also over a restart, and a full spool gives up none for it.
func TestReplace(t *testing.T) {
	dir := t.TempDir()
	cfg := Config{MaxSize: config.MiB, MaxMemory: config.MiB}
	s := open(t, dir, cfg)
	const size = 100 << 10
	add(t, s, 0, 10, size) // all that fit
	_, seqs := ordinals(t, s)
	of := func(seq uint64) []byte {
		t.Helper()
		got, data, err := s.Next(seq - 1)
		if got != seq || err != nil {
			t.Fatalf("Next(%d) = %d, %v", seq-1, got, err)
		}
		return data
	}
	other := bytes.Repeat([]byte{7}, size)
	for _, seq := range []uint64{seqs[0], seqs[4]} {
		if err := s.Replace(seq, other); err != nil {
			t.Fatal(err)
		}
	}
	s.Settle(seqs[1:2], nil, nil)
	for _, gone := range []uint64{seqs[1], seqs[9] + 1, 0} {
		if err := s.Replace(gone, other); err != nil {
			t.Errorf("Replace(%d), which is not there: %v", gone, err)
		}
	}
	check := func(when string) {
		t.Helper()
		if s.Len() != 9 || counted(t, s.metrics.dropped.WithLabelValues("full")) != 0 {
			t.Errorf("%s %d wait, want 9 and none dropped", when, s.Len())
		}
		for i, seq := range seqs {
			if i == 1 {
				continue
			}
			want, _ := testEncode(nil, make1(int64(i), size))
			if i == 0 || i == 4 {
				want = other
			}
			if !bytes.Equal(of(seq), want) {
				t.Errorf("%s bucket %d has other bytes", when, i)
			}
		}
	}
	check("after it")
	s.Close()
	if err := s.Replace(seqs[2], other); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v, want ErrClosed", err)
	}
	s = open(t, dir, cfg)
	check("after a restart")

	// In memory, and while the file fails.
	s.fault = func() error { return syscall.EIO }
	if err := s.Add(make1(10, 100)); !errors.Is(err, ErrKept) {
		t.Fatal(err)
	}
	s.tried = time.Now().Add(time.Hour) // however slow this machine is
	kept := seqs[9] + 1
	if err := s.Replace(kept, []byte("other")); err == nil || string(of(kept)) != "other" {
		t.Errorf("in memory: %v, %q", err, of(kept))
	}
	if err := s.Replace(seqs[2], other); err == nil || len(s.mem) != 1 {
		t.Errorf("while the file is out of service: %v, %d in memory, want an error and 1", err, len(s.mem))
	}
	s.fault, s.tried = nil, time.Time{}
	add(t, s, 11, 12, 100)
	if string(of(kept)) != "other" || len(s.mem) != 0 {
		t.Errorf("written late: %q, %d in memory", of(kept), len(s.mem))
	}
	s.fault = func() error { return syscall.EIO } // a commit of which nobody knows
	if err := s.Replace(kept, []byte("another")); err == nil || len(s.mem) != 0 {
		t.Errorf("a commit fails: %v, %d in memory, want an error and none", err, len(s.mem))
	}
	s.fault, s.tried = nil, time.Time{}
	if got := string(of(kept)); got != "other" && got != "another" {
		t.Errorf("after it: %q", got)
	}
	if s.Len() != 11 {
		t.Errorf("%d wait, want 11", s.Len())
	}
}

// TestSyncWithoutRoom: a failed sync is a failed sync, also if it says that there is no room.
func TestSyncWithoutRoom(t *testing.T) {
	s := open(t, t.TempDir(), DefaultConfig())
	s.fault = func() error { return syscall.ENOSPC }
	if err := s.Add(make1(0, 100)); !errors.Is(err, ErrKept) || !strings.Contains(err.Error(), "free space") {
		t.Errorf("Add = %v, want ErrKept and what to do", err)
	}
	if s.db != nil {
		t.Error("the file is still in use after a failed sync")
	}
	s.fault = nil
	add(t, s, 1, 2, 100)
	if ns, _ := ordinals(t, s); !slices.Equal(ns, seqOf(0, 2)) {
		t.Errorf("queue %v, want 0 and 1, each once", ns)
	}
}

// TestFileFailsAgain: a file that fails again soon after it was put back into service is not tried
// all the time, and what is said of it meanwhile is why it failed.
func TestFileFailsAgain(t *testing.T) {
	s := open(t, t.TempDir(), DefaultConfig())
	add(t, s, 0, 3, 100)
	s.fault = func() error { return syscall.EIO }
	for n := range int64(4) {
		err := s.Add(make1(3+n, 100))
		if !errors.Is(err, ErrKept) || !errors.Is(err, syscall.EIO) || errors.Is(err, ErrCorrupt) {
			t.Errorf("Add = %v, want ErrKept and EIO each time", err)
		}
	}
	s.tried = time.Now().Add(time.Hour) // however slow this machine is
	if _, _, err := s.Next(s.seq); !errors.Is(err, syscall.EIO) {
		t.Errorf("Next = %v, want it to say that the file is out of service", err)
	}
	s.fault, s.tried = nil, time.Time{}
	add(t, s, 7, 8, 100)
	if ns, _ := ordinals(t, s); !slices.Equal(ns, seqOf(0, 8)) {
		t.Errorf("queue %v, want 0 to 7", ns)
	}
}

// TestRefusedWhileOutOfService: what is refused is declared, also when the file that holds it cannot
// be read at that moment: then it stays, and is refused again.
func TestRefusedWhileOutOfService(t *testing.T) {
	s := open(t, t.TempDir(), DefaultConfig())
	b := make1(0, 100)
	b.Unobserved = []bucket.Span{span(-30, -20)}
	s.Add(b)
	add(t, s, 1, 3, 100)
	_, seqs := ordinals(t, s)
	s.fault = func() error { return syscall.EIO }
	for n := range int64(2) {
		if err := s.Add(make1(3+n, 100)); !errors.Is(err, ErrKept) {
			t.Fatalf("Add = %v, want ErrKept", err)
		}
	}
	s.tried = time.Now().Add(time.Hour) // however slow this machine is
	if err := s.Settle(seqs[2:], seqs[:1], seqs[1:2]); !errors.Is(err, syscall.EIO) {
		t.Errorf("Settle = %v, want EIO", err)
	}
	s.fault, s.tried = nil, time.Time{}
	add(t, s, 5, 6, 100)
	if ns, _ := ordinals(t, s); !slices.Equal(ns, []int64{0, 1, 3, 4, 5}) {
		t.Errorf("queue %v, want 0, 1 and 3 to 5", ns)
	}
	if err := s.Settle(nil, seqs[:1], seqs[1:2]); err != nil {
		t.Fatal(err)
	}
	b = make1(6, 100)
	s.Add(b)
	if want := []bucket.Span{span(-30, -20), span(10, 20)}; !slices.Equal(b.Unobserved, want) {
		t.Errorf("declared %v, want %v", b.Unobserved, want)
	}
}

// TestLenWhileOutOfService: what waits is counted right while buckets come and go in memory; who
// stops an agent waits for it.
func TestLenWhileOutOfService(t *testing.T) {
	s := open(t, t.TempDir(), DefaultConfig())
	add(t, s, 0, 1, 100)
	_, seqs := ordinals(t, s)
	s.Settle(seqs, nil, nil)
	s.closeFile()
	s.tried, s.why = time.Now().Add(time.Hour), syscall.EIO
	for n := range int64(5) {
		s.Add(make1(1+n, 100))
		if s.Len() != 1 {
			t.Errorf("Len() = %d with one bucket in memory and %d sent from there", s.Len(), n)
		}
		seq, _, err := s.Next(0)
		if seq == 0 || err != nil {
			t.Fatalf("Next = %d, %v", seq, err)
		}
		s.Settle([]uint64{seq}, nil, nil)
		if s.Len() != 0 {
			t.Errorf("Len() = %d after all was sent", s.Len())
		}
	}
	s.tried = time.Time{}
	add(t, s, 6, 8, 100)
	if ns, _ := ordinals(t, s); !slices.Equal(ns, seqOf(6, 8)) || s.Len() != 2 || len(s.settled) != 0 {
		t.Errorf("queue %v, Len() = %d, %d settled; want 6 and 7", ns, s.Len(), len(s.settled))
	}
}

func TestMemoryQueueIsBounded(t *testing.T) {
	s := open(t, t.TempDir(), Config{MaxSize: 4 * config.MiB, MaxMemory: config.MiB})
	s.fault = func() error { return syscall.EIO }
	for n := range int64(15) {
		if err := s.Add(make1(n, 100<<10)); !errors.Is(err, ErrKept) {
			t.Fatalf("Add(%d) = %v, want ErrKept", n, err)
		}
	}
	s.fault, s.tried = nil, time.Time{}
	// The first commit that "failed" had reached the disk; the rest never was tried.
	b := make1(15, 100)
	if err := s.Add(b); err != nil {
		t.Fatal(err)
	}
	ns, seqs := ordinals(t, s)
	told := b.Counters[exchange.SpoolDropped]
	covered := slices.Clone(b.Unobserved)
	for _, seq := range seqs {
		if e, _ := s.lookup(seq); e.ordinal != 15 {
			told += e.dropped
			covered = append(covered, e.unobserved...)
		}
	}
	missing := map[int64]bool{}
	for n := range int64(16) {
		missing[n] = !slices.Contains(ns, n)
	}
	for n, m := range missing {
		in := slices.ContainsFunc(mergeSpans(covered), func(s bucket.Span) bool { return s.From <= sec(10*n) && sec(10*n+10) <= s.To })
		if m && !in {
			t.Errorf("bucket %d is neither there nor declared (queue %v, declared %v)", n, ns, covered)
		}
	}
	if told == 0 || len(ns) < 10 {
		t.Errorf("queue %v with %d told of, want at least 10 and some dropped", ns, told)
	}
}

func TestOversizedBucketIsDeclared(t *testing.T) {
	s := open(t, t.TempDir(), Config{MaxSize: config.MiB, MaxMemory: config.MiB})
	if err := s.Add(make1(0, 2<<20)); err == nil || errors.Is(err, ErrKept) {
		t.Errorf("Add = %v, want an error that is not ErrKept", err)
	}
	b := make1(1, 1)
	if err := s.Add(b); err != nil {
		t.Fatal(err)
	}
	if want := []bucket.Span{span(0, 10)}; !slices.Equal(b.Unobserved, want) || b.Counters[exchange.SpoolDropped] != 1 {
		t.Errorf("declared %v, %d, want %v, 1", b.Unobserved, b.Counters[exchange.SpoolDropped], want)
	}
}

func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("a full disk is simulated by a small tmpfs, which needs CAP_SYS_ADMIN: mount: %v", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	s, err := Open(dir, DefaultConfig(), Deps{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.encode = testEncode
	var full error
	n := int64(0)
	for ; full == nil && n < 100; n++ {
		full = s.Add(make1(n, 50<<10))
	}
	if !errors.Is(full, syscall.ENOSPC) || !errors.Is(full, ErrKept) || !strings.Contains(full.Error(), "free space") {
		t.Fatalf("Add on a full disk: %v, want ErrKept, ENOSPC and a hint", full)
	}
	for range 5 {
		if err := s.Add(make1(n, 50<<10)); !errors.Is(err, ErrKept) {
			t.Errorf("Add = %v, want ErrKept", err)
		}
		n++
	}
	ns, seqs := ordinals(t, s)
	if !slices.Equal(ns, seqOf(0, n)) {
		t.Errorf("queue %v, want all %d", ns, n)
	}
	// Delivery goes on, and makes room without anyone's help.
	for _, seq := range seqs {
		_ = s.Settle([]uint64{seq}, nil, nil) // may fail while there is no room
	}
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT, "size=8m"); err != nil {
		t.Fatal(err)
	}
	add(t, s, n, n+3, 50<<10)
	if ns, _ := ordinals(t, s); !slices.Equal(ns, seqOf(n, n+3)) {
		t.Errorf("queue %v, want only the last 3", ns)
	}
	if len(s.mem) != 0 || len(s.settled) != 0 {
		t.Errorf("%d in memory, %d settled and not deleted, want 0, 0", len(s.mem), len(s.settled))
	}
}

func TestReadyWakesReader(t *testing.T) {
	s := open(t, t.TempDir(), DefaultConfig())
	<-s.Ready() // at the start there may be something
	select {
	case <-s.Ready():
		t.Error("ready without a bucket")
	default:
	}
	add(t, s, 0, 2, 1)
	<-s.Ready()
}

func TestHostIDFile(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, DefaultConfig())
	s.Close()
	path := filepath.Join(dir, hostFile)
	text, err := os.ReadFile(path)
	if err != nil || string(text) != s.Host().String()+"\n" {
		t.Errorf("host id file holds %q (%v), want %v", text, err, s.Host())
	}
	os.WriteFile(path, []byte("garbage"), 0o600)
	if _, err := Open(dir, DefaultConfig(), Deps{}); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("Open with a bad host id: %v, want an error that names the file", err)
	}
}

func TestConfigValidate(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
	err := Config{MaxSize: 5, MaxMemory: 0}.Validate()
	if err == nil || !strings.Contains(err.Error(), "max_size") || !strings.Contains(err.Error(), "max_memory") {
		t.Errorf("Validate() = %v, want both faults", err)
	}
}

func TestMergeSpans(t *testing.T) {
	f := func(in, want []bucket.Span) {
		t.Helper()
		if got := mergeSpans(slices.Clone(in)); !slices.Equal(got, want) {
			t.Errorf("mergeSpans(%v) = %v, want %v", in, got, want)
		}
	}
	f(nil, nil)
	f([]bucket.Span{span(5, 5), span(7, 6)}, nil)
	f([]bucket.Span{span(20, 30), span(0, 10)}, []bucket.Span{span(0, 10), span(20, 30)})
	f([]bucket.Span{span(0, 10), span(10, 20), span(12, 15)}, []bucket.Span{span(0, 20)})
	var many []bucket.Span
	for i := range int64(maxSpans + 10) {
		many = append(many, span(i*(100+i), i*(100+i)+1))
	}
	got := mergeSpans(slices.Clone(many))
	if len(got) != maxSpans {
		t.Errorf("%d spans, want %d", len(got), maxSpans)
	}
	for _, m := range many {
		if !slices.ContainsFunc(got, func(s bucket.Span) bool { return s.From <= m.From && m.To <= s.To }) {
			t.Errorf("span %v is no longer covered", m)
		}
	}
}

func FuzzDecodeEntry(f *testing.F) {
	e := entry{seq: 7, incarnation: inc, start: 5, width: width, unobserved: []bucket.Span{span(1, 2)}, data: []byte("data")}
	f.Add(uint64(7), e.encode())
	f.Add(uint64(0), []byte{})
	f.Add(uint64(7), e.encode()[:40])
	f.Fuzz(func(t *testing.T, seq uint64, value []byte) {
		e, err := decodeEntry(seq, value)
		if err == nil && !slices.Equal(e.encode(), value) && value[crcSize+1] == 0 {
			t.Errorf("decodeEntry accepts %x, which encode would not write", value)
		}
	})
}
