package client

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/httpctl/httpctl/pkg/answer"
	"github.com/httpctl/httpctl/pkg/view"
	pb "github.com/httpctl/httpctl/proto/httpctl/v1"
)

// TailQuestion is what live exchanges are asked for.
type TailQuestion struct {
	Hosts   []string // names or ids; none is all
	Filters []Filter
	// SlowerThan is the least response time; 0 is any, or none.
	SlowerThan time.Duration
	// Sample shows one in so many of a host's; 0 is all.
	Sample uint32
	// PerSecond bounds what is shown; 0 is what the aggregator allows.
	PerSecond uint32
	// For is how long; 0 is what the aggregator says.
	For time.Duration
	// Limit ends it after so many exchanges; 0 does not.
	Limit uint64
}

// Tail asks for live exchanges and calls show with those that come, and how complete that is, until ctx ends, the tail
// does, or show returns an error.
func (c *Client) Tail(ctx context.Context, q TailQuestion, show func([]view.Sample, *view.TailSummary) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var filters []*pb.Filter
	for _, f := range q.Filters {
		filters = append(filters, &pb.Filter{Column: f.Column, Values: f.Values})
	}
	stream, err := pb.NewTailServiceClient(c.conn).Tail(c.changing(ctx), &pb.TailRequest{
		Hosts: q.Hosts, Filter: &pb.TailFilter{Filters: filters, SlowerThanNs: int64(q.SlowerThan)},
		Sample: q.Sample, PerSecond: q.PerSecond, DurationNs: int64(q.For), Limit: q.Limit,
	})
	if err != nil {
		return c.turned(ctx, err, c.timeout)
	}
	var missing []view.TailMissing
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return c.turned(ctx, err, c.timeout)
		}
		var samples []view.Sample
		for _, x := range m.GetSamples() {
			samples = append(samples, answer.Sample(x))
		}
		for i, x := range m.GetSummary().GetMissing() {
			if i == 0 {
				missing = nil
			}
			missing = append(missing, view.TailMissing{Host: x.GetHost(), Reason: x.GetReason()})
		}
		summary := answer.TailSummary(m.GetSummary())
		if summary != nil {
			summary.Missing = missing
		}
		if err := show(samples, summary); err != nil {
			return err
		}
	}
}
