package app

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/httpctl/httpctl/agent/accumulate"
	"github.com/httpctl/httpctl/agent/capture"
	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/exchange"
	"github.com/httpctl/httpctl/pkg/testkit"
)

const width = int64(time.Second)

// few gives at most so many packets at a time, and others before the first one.
type few struct {
	capture.Source
	most   int
	before []testkit.Frame
	number uint64
	cut    int // how often it gave packets of two intervals
}

func (f *few) Next(ps []capture.Packet) (n int, err error) {
	ps = ps[:min(len(ps), f.most)]
	if len(f.before) > 0 {
		for n < len(ps) && len(f.before) > 0 {
			b := f.before[0]
			ps[n], f.before = capture.Packet{Time: b.Time, Data: b.Data, Length: len(b.Data), Link: 1}, f.before[1:]
			n++
		}
	} else if n, err = f.Source.Next(ps); err != nil {
		return n, err
	}
	for i := range ps[:n] {
		f.number++
		ps[i].Number = f.number
	}
	if ps[0].Time/width != ps[n-1].Time/width {
		f.cut++
	}
	return n, nil
}

// TestBatches reads captures a packet at a time and many at a time, as an agent does: every bucket,
// with its counters and rows, and every exchange is the same. So many connections are open that
// segments are looked at ahead, and intervals end between the packets of a batch.
func TestBatches(t *testing.T) {
	paths, err := filepath.Glob(filepath.Join(testkit.SharedCaptures(t), "*.pcap*"))
	if err != nil || len(paths) == 0 {
		t.Fatal(paths, err)
	}
	cut := 0
	for _, path := range paths {
		if info, err := os.Stat(path); err != nil || testing.Short() && info.Size() > 1<<20 {
			continue
		}
		t.Run(filepath.Base(path), func(t *testing.T) {
			one, _ := inBatches(t, path, 1)
			for _, most := range []int{batch, 7} {
				many, n := inBatches(t, path, most)
				cut += n
				if i := firstDifference(one, many); i >= 0 {
					t.Fatalf("with %d at a time line %d of %d is\n%s\nwant, as of one at a time,\n%s", most, i, len(one), line(many, i), line(one, i))
				}
			}
		})
	}
	if cut == 0 {
		t.Error("no batch had packets of two intervals")
	}
}

func firstDifference(a, b []string) int {
	for i := range max(len(a), len(b)) {
		if line(a, i) != line(b, i) {
			return i
		}
	}
	return -1
}

func line(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return "(none)"
}

// inBatches returns all that comes of a capture, and how many batches had packets of two intervals.
func inBatches(t *testing.T, path string, most int) (out []string, cut int) {
	t.Helper()
	start, err := capture.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var first [1]capture.Packet
	_, err = start.Next(first[:])
	start.Close()
	if err != nil {
		t.Skip("no packet")
	}
	files, err := capture.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	source := &few{Source: files, most: most}
	for i := range 1500 {
		c := testkit.NewConversation(fmt.Sprintf("203.0.113.1:%d", 10000+i), "203.0.113.2:80")
		c.Now, c.Step = time.Unix(0, first[0].Time), 0
		c.Open()
		source.before = append(source.before, c.Frames[0])
	}
	cfg := DefaultConfig()
	cfg.Stream.HalfOpenTimeout = time.Hour

	acc, err := accumulate.New(accumulate.Config{Width: time.Duration(width), MaxKeys: 100_000},
		accumulate.Deps{Emit: func(b *bucket.Bucket) { out = append(out, linesOf(b)...) }}, 1)
	if err != nil {
		t.Fatal(err)
	}
	local, err := newLocalAddresses(nil)
	if err != nil {
		t.Fatal(err)
	}
	sink := &exchangeSink{}
	p := newPipeline(source, cfg, 1024, sink, local)
	part := acc.Pipeline(0, p.counters)
	sink.Sink = sinkFunc(func(o *exchange.Observation) {
		if o.Event == exchange.Outcome {
			out = append(out, fmt.Sprintf("%+v", *o.Exchange))
		}
		part.Observe(o)
	})
	var steps, widths atomic.Int64
	widths.Store(width)
	p.live = &liveClock{wall: func() int64 { return 1 << 62 }, advance: part.Advance, width: &widths, steps: &steps}
	if err := p.run(); err != nil {
		t.Fatal(err)
	}
	acc.Close()
	if fault := p.table.Stats().Fault; fault != "" {
		t.Fatal(fault)
	}
	return append(out, fmt.Sprint(*p.counters)), source.cut
}

type sinkFunc func(*exchange.Observation)

func (f sinkFunc) Observe(o *exchange.Observation) { f(o) }

// linesOf has a line for the counters of a bucket, and one for each row, sorted.
func linesOf(b *bucket.Bucket) []string {
	out := []string{fmt.Sprint("bucket ", b.Start, " part ", b.Part, " open ", b.Open, " ", b.Counters)}
	for _, table := range b.Tables {
		var rows []string
		for _, r := range table.Rows {
			rows = append(rows, fmt.Sprintf("%s %q %v %v", table.Schema.Name, r.Keys, r.Values, r.Err))
		}
		slices.Sort(rows)
		out = append(out, strings.Join(rows, "\n"))
	}
	return out
}
