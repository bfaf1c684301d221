package app

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/httpctl/httpctl/aggregator/alert"
	"github.com/httpctl/httpctl/aggregator/ingest"
	"github.com/httpctl/httpctl/aggregator/judge"
	"github.com/httpctl/httpctl/aggregator/query"
	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/pkg/bucket"
)

// currentJudge is the judge in force, as the query service sees it. It is
// replaced when a new interval width takes effect.
type currentJudge struct {
	mu sync.RWMutex
	j  *judge.Judge
}

var _ query.Judge = (*currentJudge)(nil)

func (c *currentJudge) get() *judge.Judge {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.j
}

func (c *currentJudge) set(j *judge.Judge) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.j = j
}

var states = map[alert.Status]query.State{
	alert.Learning:  query.Learning,
	alert.Normal:    query.Normal,
	alert.Alert:     query.Alerting,
	alert.Dismissed: query.Dismissed,
}

func (c *currentJudge) Status() query.Status {
	s := c.get().Status()
	out := query.Status{
		Scope: s.Scope.String(), State: states[s.Status], Since: s.Since,
		Baseline: s.Baseline, Limit: s.Limit, ThresholdPercent: s.ThresholdPercent,
		WindowStart: s.WindowStart, WindowEnd: s.WindowEnd, WindowRequests: s.WindowRequests,
		LearningStart: s.LearningStart, LearningEnd: s.LearningEnd, Estimate: s.Estimate,
		Joined: s.Joined,
	}
	if s.Judged {
		out.Last = &query.Last{Requests: s.Last.Requests, End: s.Last.To, Incomplete: s.Last.Incomplete}
	}
	return out
}

func (c *currentJudge) Alerts(from, to int64) []query.Alert {
	alerts, _, _ := c.get().History(from, to)
	out := make([]query.Alert, len(alerts))
	for i, a := range alerts {
		out[i] = query.Alert{
			Scope: a.Scope.String(), Start: a.Start, End: a.End,
			Baseline: a.Baseline, ThresholdPercent: a.Threshold, Joined: a.JoinedHosts,
		}
		for _, e := range a.Entries {
			out[i].Entries = append(out[i].Entries, query.AlertEntry{
				Time: e.Time, Hits: e.Hits, LateHits: e.LateHits, Incomplete: e.Incomplete,
			})
		}
	}
	return out
}

func (c *currentJudge) Baseline() query.Baseline {
	l := c.get().Baseline()
	return query.Baseline{
		From: l.From, Until: l.Until(), Requests: l.Result.Requests,
		CoveredSeconds: int64(l.Result.Covered / time.Second), Hosts: l.Hosts, Restarts: l.Restarts,
	}
}

func (c *currentJudge) Relearn(ctx context.Context) (time.Time, error) { return c.get().Relearn(ctx) }

var healths = map[judge.Health]query.Health{
	judge.Reporting: query.Reporting,
	judge.Late:      query.Late,
	judge.Gone:      query.Gone,
}

func (c *currentJudge) Health(hosts []store.Host) []query.Health {
	of := c.get().Health(hosts)
	out := make([]query.Health, len(of))
	for i, h := range of {
		out[i] = healths[h]
	}
	return out
}

// live is the ingest service as the query service sees it.
type live struct {
	*ingest.Service
}

var _ query.Live = live{}

func (l live) Agents() []query.Agent {
	var out []query.Agent
	for _, a := range l.Service.Agents() {
		if a.Connected {
			out = append(out, query.Agent{Host: a.Host, Name: a.Name, Version: a.Version, Backlog: a.Backlog, ObservedFrom: a.ObservedFrom})
		}
	}
	return out
}

func (l live) Clones() map[bucket.ID][]string {
	out := map[bucket.ID][]string{}
	for _, c := range l.Service.Clones() {
		out[c.Host] = c.Agents
	}
	return out
}

func (l live) Provisional() []query.Provisional {
	var out []query.Provisional
	for _, p := range l.Service.Provisional() {
		out = append(out, query.Provisional{Bucket: p.Bucket, Received: p.Received})
	}
	return out
}

// TellsHistory reports whether a log message tells what readers are shown too:
// alerts, and time in which nobody watched.
func TellsHistory(r slog.Record) bool {
	switch r.Message {
	case judge.MessageRaised, judge.MessageDismissed, judge.MessageUnobserved:
		return true
	}
	return false
}
