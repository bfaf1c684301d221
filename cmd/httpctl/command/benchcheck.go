package command

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	agent "github.com/httpctl/httpctl/agent/app"
	"github.com/httpctl/httpctl/cmd/httpctl/client"
	"github.com/httpctl/httpctl/pkg/view"
)

// asker is what checking needs of a client.
type asker interface {
	Hosts(ctx context.Context, q client.Question) ([]view.Host, error)
	Top(ctx context.Context, dimension string, q client.Question) (*view.Top, error)
}

// benchChecked is what was compared in the end.
type benchChecked struct {
	// Intervals and Buckets that were asked for by host, and their requests.
	Intervals int    `json:"intervals"`
	Buckets   int    `json:"buckets"`
	Requests  uint64 `json:"requests"`
	// TopBuckets are those of which the top lists were compared, too.
	TopBuckets int `json:"top_buckets"`
	// Missing and Surplus are requests that the aggregator has too few and too many, by host and interval.
	Missing uint64 `json:"missing_requests"`
	Surplus uint64 `json:"surplus_requests"`
}

// topBuckets bounds how many buckets are read for each top list: the newest.
const topBuckets = 50_000

// checkFleet compares what the aggregator has with what was acknowledged, to the unit: requests of each host in each interval,
// then the totals of the top lists. A bucket without an answer may be there or not. The error says what differs.
func checkFleet(ctx context.Context, c asker, r *agent.FleetResult) (benchChecked, error) {
	var checked benchChecked
	at := map[int64]map[string]counted{} // interval -> host
	for i := range r.Hosts {
		h := &r.Hosts[i]
		for j := range h.Buckets {
			b := &h.Buckets[j]
			if at[b.Start] == nil {
				at[b.Start] = map[string]counted{}
			}
			n := at[b.Start][h.ID]
			switch b.Fate {
			case agent.FleetAcknowledged:
				n.surely += h.Requests(b)
				checked.Buckets++
			case agent.FleetWaiting:
				n.perhaps += h.Requests(b)
			}
			at[b.Start][h.ID] = n
		}
	}
	var faults []error
	fault := func(format string, args ...any) {
		if len(faults) < 10 {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	var others uint64
	for start := r.From; start < r.To; start += int64(r.Width) {
		hosts, err := c.Hosts(ctx, within(start, start+int64(r.Width)))
		if err != nil {
			return checked, err
		}
		checked.Intervals++
		want := at[start]
		for _, h := range hosts {
			n, ours := want[h.ID]
			if !ours {
				others += h.Requests
				continue
			}
			delete(want, h.ID)
			checked.Requests += h.Requests
			if h.Requests < n.surely {
				checked.Missing += n.surely - h.Requests
				fault("%s at %s: %d requests, %d were acknowledged", h.Name, text(start), h.Requests, n.surely)
			} else if h.Requests != n.surely && h.Requests != n.surely+n.perhaps {
				checked.Surplus += h.Requests - n.surely
				fault("%s at %s: %d requests, only %d were sent", h.Name, text(start), h.Requests, n.surely+n.perhaps)
			}
		}
		for id, n := range want {
			if n.surely > 0 {
				checked.Missing += n.surely
				fault("host %s at %s: the aggregator does not have it, %d requests were acknowledged", id, text(start), n.surely)
			}
		}
	}
	if others == 0 && r.Unanswered == 0 { // else nobody knows what the lists should have
		from := max(r.From, r.To-int64(max(1, topBuckets/len(r.Hosts)))*int64(r.Width))
		n, err := checkTops(ctx, c, r, from, fault)
		if err != nil {
			return checked, err
		}
		checked.TopBuckets = n
	}
	if len(faults) > 0 {
		return checked, fmt.Errorf("what the aggregator has differs from what it acknowledged:\n%w", errors.Join(faults...))
	}
	return checked, nil
}

// counted are requests.
type counted struct{ surely, perhaps uint64 }

// checkTops compares the totals of every top list from a time on.
func checkTops(ctx context.Context, c asker, r *agent.FleetResult, from int64, fault func(string, ...any)) (buckets int, err error) {
	want := map[string]int64{}
	for i := range r.Hosts {
		h := &r.Hosts[i]
		for j := range h.Buckets {
			if b := &h.Buckets[j]; b.Start >= from && b.Fate == agent.FleetAcknowledged {
				buckets++
				for list, n := range h.Hits(b) {
					want[list] += n
				}
			}
		}
	}
	var lists []string
	for list := range want {
		lists = append(lists, list)
	}
	slices.Sort(lists)
	for _, list := range lists {
		q := within(from, r.To)
		q.Limit = 1
		top, err := c.Top(ctx, list, q)
		if err != nil {
			return buckets, err
		}
		if top.Total != want[list] {
			fault("top list %s since %s: %d in all, %d were acknowledged", list, text(from), top.Total, want[list])
		}
	}
	return buckets, nil
}

func within(from, to int64) client.Question {
	return client.Question{Since: time.Unix(0, from), Until: time.Unix(0, to)}
}

func text(ns int64) string { return time.Unix(0, ns).UTC().Format(time.RFC3339) }
