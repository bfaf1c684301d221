package answer

import (
	"time"

	"github.com/httpctl/httpctl/pkg/view"
	pb "github.com/httpctl/httpctl/proto/httpctl/v1"
)

// Sample is a live exchange.
func Sample(x *pb.Sample) view.Sample {
	span := func(ns *int64) *time.Duration {
		if ns == nil {
			return nil
		}
		d := time.Duration(*ns)
		return &d
	}
	return view.Sample{
		Host: x.GetHost(), HostID: x.GetHostId(), Time: Moment(x.GetTimeUnixNs()), Client: x.GetClient(), Server: x.GetServer(),
		Role: x.GetRole(), Protocol: x.GetProtocol(), HasRequest: x.GetHasRequest(), HasResponse: x.GetHasResponse(),
		Method: x.GetMethod(), Domain: x.GetDomain(), Section: x.GetSection(), Path: x.GetPath(), UserAgent: x.GetUserAgent(),
		Status: int(x.GetStatus()), RequestBytes: x.GetRequestWireBytes(), ResponseBytes: x.GetResponseWireBytes(),
		TTFB: span(x.TtfbNs), Duration: span(x.DurationNs), End: x.GetEnd(),
	}
}

// TailSummary is how complete a tail is, but for the hosts that are missing; nil is nil.
func TailSummary(m *pb.TailSummary) *view.TailSummary {
	if m == nil {
		return nil
	}
	c := m.GetCounts()
	return &view.TailSummary{
		Matched: c.GetMatched(), Shown: m.GetShown(), SampledOut: c.GetSampledOut(), OverRate: c.GetOverRate() + m.GetOverTotalRate(),
		Overflowed: c.GetOverflowed(), SlowReader: m.GetSlowReader(), KernelDrops: c.GetKernelDrops(),
		HostsAsked: m.GetHostsAsked(), HostsAnswering: m.GetHostsAnswering(), MissingCount: m.GetMissingCount(), End: m.GetEnd(),
	}
}
