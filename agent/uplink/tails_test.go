package uplink

import (
	"context"
	"fmt"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/httpctl/httpctl/agent/tail"
	"github.com/httpctl/httpctl/pkg/exchange"
	httpctlv1 "github.com/httpctl/httpctl/proto/httpctl/v1"
)

// tails has one report waiting, and counts how often it is asked.
type tails struct {
	wants  []tail.Want
	report *tail.Report
	asked  atomic.Int64
}

func (f *tails) Allowed() bool                     { return true }
func (f *tails) Set(wants []tail.Want, why string) { f.wants = wants }
func (f *tails) Next(time.Time) (tail.Report, bool) {
	f.asked.Add(1)
	if f.report == nil {
		return tail.Report{}, false
	}
	r := *f.report
	f.report = nil
	return r, true
}

// TestTailsGoLast: live exchanges go after the buckets that wait, ten times a second are looked for, and nobody looks when nobody tails.
func TestTailsGoLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &queue{data: [][]byte{{1}, {2}, {3}}}
		d := deps(q)
		f := &tails{report: &tail.Report{ID: 7, Exchanges: make([]exchange.Exchange, 2), Counts: tail.Counts{Matched: 5, SampledOut: 1, OverRate: 2, Overflowed: 3, KernelDrops: 4}}}
		d.Tails = f
		u, err := New(DefaultConfig(), d)
		if err != nil {
			t.Fatal(err)
		}
		s := &session{u: u, flight: map[uint64]flying{}, seqs: map[uint64]bool{}, showsTails: true}
		in, out, ended := make(chan *httpctlv1.DeliverResponse), make(chan *httpctlv1.DeliverRequest), make(chan error)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- s.deliver(ctx, in, out, ended) }()
		ask := func(m *httpctlv1.Tails) {
			in <- &httpctlv1.DeliverResponse{Message: &httpctlv1.DeliverResponse_Tails{Tails: m}}
		}
		ask(&httpctlv1.Tails{Tails: []*httpctlv1.Tail{{Id: 7, Sample: 2, PerSecond: 3, Who: "alice", SinceUnixNs: 4,
			Filter: &httpctlv1.TailFilter{SlowerThanNs: 5, Filters: []*httpctlv1.Filter{{Column: "status", Values: []string{"5xx"}}}}}}})
		var order []string
		for range 4 {
			m := <-out
			if x := m.GetSamples(); x != nil {
				c := x.GetCounts()
				order = append(order, fmt.Sprint("tail ", x.GetTail(), len(x.GetSamples()), c.GetMatched(), c.GetSampledOut(), c.GetOverRate(), c.GetOverflowed(), c.GetKernelDrops()))
			} else {
				order = append(order, fmt.Sprint("bucket ", m.GetBucket().GetData()[0]))
			}
		}
		if got, want := fmt.Sprint(order), "[bucket 1 bucket 2 bucket 3 tail 7 2 5 1 2 3 4]"; got != want {
			t.Errorf("sent %s, want %s", got, want)
		}
		if got, want := fmt.Sprint(f.wants), fmt.Sprint([]tail.Want{{ID: 7, Columns: f.wants[0].Columns, SlowerThan: 5, Sample: 2, PerSecond: 3, Who: "alice", Since: time.Unix(0, 4)}}); got != want || fmt.Sprint(f.wants[0].Columns) != "[{status [5xx]}]" {
			t.Errorf("wanted %s, want %s", got, want)
		}
		synctest.Wait()
		before := f.asked.Load()
		time.Sleep(time.Second + time.Millisecond)
		synctest.Wait()
		if n := f.asked.Load() - before; n != 10 {
			t.Errorf("asked %d times in a second, want 10", n)
		}
		ask(&httpctlv1.Tails{})
		synctest.Wait()
		before = f.asked.Load()
		time.Sleep(time.Minute)
		if f.asked.Load() != before || len(f.wants) > 0 {
			t.Errorf("while nobody tails, it is asked %d times, for %v", f.asked.Load()-before, f.wants)
		}
		cancel()
		<-done
	})
}

// TestSample: an exchange becomes a message that can be sent, whatever the traffic holds.
func TestSample(t *testing.T) {
	x := &exchange.Exchange{
		HasRequest: true, HasResponse: true, Method: "GET\xff", Domain: "example.org", Section: "example.org/\xfe", Target: "/\xc3\x28", UserAgent: "\xed\xa0\x80", Status: 200, Role: exchange.Client,
		RequestStart: 1, RequestEnd: 10, ResponseStart: 30, ResponseEnd: 50, RequestWireBytes: 7, ResponseWireBytes: 8, Protocol: "http/1.1", End: exchange.Closed,
		Client: netip.MustParseAddrPort("192.0.2.1:40000"), Server: netip.MustParseAddrPort("192.0.2.2:80"),
	}
	m := sample(x)
	if _, err := proto.Marshal(m); err != nil {
		t.Fatal(err)
	}
	if m.GetMethod() != "GET\uFFFD" || m.GetPath() != "/\uFFFD(" || m.GetTimeUnixNs() != 1 || m.GetTtfbNs() != 20 || m.GetDurationNs() != 49 || m.GetClient() != "192.0.2.1:40000" ||
		m.GetRole() != "client" || m.GetEnd() != "closed" || m.GetRequestWireBytes() != 7 || m.GetResponseWireBytes() != 8 {
		t.Errorf("sample() = %v", m)
	}
	x = &exchange.Exchange{HasResponse: true, ResponseStart: 30, ClientName: "c-1"}
	if m = sample(x); m.GetTimeUnixNs() != 30 || m.TtfbNs != nil || m.DurationNs != nil || m.GetClient() != "c-1" {
		t.Errorf("sample() of half an exchange = %v", m)
	}
}
