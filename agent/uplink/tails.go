package uplink

import (
	"cmp"
	"strings"
	"time"

	"github.com/httpctl/httpctl/agent/tail"
	"github.com/httpctl/httpctl/pkg/exchange"
	"github.com/httpctl/httpctl/pkg/match"
	httpctlv1 "github.com/httpctl/httpctl/proto/httpctl/v1"
)

// Tails shows live exchanges to who asks for them: a [tail.Tailer], whose methods say more.
type Tails interface {
	Allowed() bool
	Set(wants []tail.Want, why string)
	Next(now time.Time) (tail.Report, bool)
}

// tailEvery is how often it is asked for what there is to show, while somebody tails.
const tailEvery = 100 * time.Millisecond

// tails hands over what the aggregator asks for.
func (s *session) tails(m *httpctlv1.Tails) {
	if s.u.deps.Tails == nil || !s.showsTails {
		return
	}
	var wants []tail.Want
	for _, w := range m.GetTails() {
		want := tail.Want{
			ID: w.GetId(), SlowerThan: time.Duration(w.GetFilter().GetSlowerThanNs()),
			Sample: w.GetSample(), PerSecond: w.GetPerSecond(), Who: w.GetWho(), Since: time.Unix(0, w.GetSinceUnixNs()),
		}
		for _, f := range w.GetFilter().GetFilters() {
			want.Columns = append(want.Columns, match.Column{Name: f.GetColumn(), Values: f.GetValues()})
		}
		wants = append(wants, want)
	}
	s.tailing = len(wants) > 0
	s.nextTail = time.Time{}
	s.u.deps.Tails.Set(wants, "it is over")
}

// samples returns the next message about tails, or nil, and then does not ask again for tailEvery.
func (s *session) samples(now time.Time) *httpctlv1.DeliverRequest {
	if !s.tailing || now.Before(s.nextTail) {
		return nil
	}
	r, ok := s.u.deps.Tails.Next(now)
	if !ok {
		s.nextTail = now.Add(tailEvery)
		return nil
	}
	m := &httpctlv1.Samples{Tail: r.ID, Refused: valid(r.Refused), Counts: &httpctlv1.TailCounts{
		Matched: r.Counts.Matched, SampledOut: r.Counts.SampledOut, OverRate: r.Counts.OverRate, Overflowed: r.Counts.Overflowed,
		KernelDrops: r.Counts.KernelDrops,
	}}
	for i := range r.Exchanges {
		m.Samples = append(m.Samples, sample(&r.Exchanges[i]))
	}
	s.u.metrics.samples.Add(float64(len(r.Exchanges)))
	return &httpctlv1.DeliverRequest{Message: &httpctlv1.DeliverRequest_Samples{Samples: m}}
}

// sample turns an exchange into a message.
func sample(x *exchange.Exchange) *httpctlv1.Sample {
	m := &httpctlv1.Sample{
		TimeUnixNs: x.RequestStart, Client: cmp.Or(x.ClientName, x.Client.String()), Server: x.Server.String(),
		Role: x.Role.String(), Protocol: x.Protocol, HasRequest: x.HasRequest, HasResponse: x.HasResponse,
		Method: valid(x.Method), Domain: valid(x.Domain), Section: valid(x.Section), Path: valid(x.Target), UserAgent: valid(x.UserAgent),
		Status: uint32(x.Status), RequestWireBytes: x.RequestWireBytes, ResponseWireBytes: x.ResponseWireBytes, End: x.End.String(),
	}
	if !x.HasRequest {
		m.TimeUnixNs = x.ResponseStart
	}
	if ttfb, _, ok := x.TTFB(); ok {
		m.TtfbNs = &ttfb
	}
	if d, ok := x.Duration(); ok {
		m.DurationNs = &d
	}
	return m
}

// valid makes a string one that a message may carry.
func valid(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
