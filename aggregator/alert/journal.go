package alert

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/httpctl/httpctl/aggregator/baseline"
	"github.com/httpctl/httpctl/pkg/bucket"
)

// Kind says what a Record reports.
type Kind uint8

// The kinds of records.
const (
	KindVerdict Kind = iota // a window was judged
	KindGap                 // nobody was observed from From to To
	KindLearned             // the baseline is enforced from To on
	KindRelearn             // a new machine learns from To on
)

var kindNames = [...]string{"verdict", "gap", "learned", "relearn"}

// String returns "verdict", "gap", "learned" or "relearn".
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "unknown"
}

// Record is one step of the machine, as the journal keeps it.
type Record struct {
	Kind  Kind
	Scope baseline.Scope
	Window
	// Above is the verdict: the window was above the threshold.
	Above bool
	// LateHits arrived after the verdict, from LateHosts among others. They annotate it.
	LateHits  int64
	LateHosts []bucket.ID
	// After is the machine after this step, so that a journal whose beginning
	// was purged can be replayed.
	After Snapshot
}

// Snapshot is a State without its history.
type Snapshot struct {
	Status       Status
	Since, Until int64
	// EpisodeStart is when the alert that is open, or that this step closed,
	// began; else 0. EpisodeBaseline and EpisodeThreshold raised it.
	EpisodeStart, EpisodeBaseline, EpisodeThreshold int64
}

// Replay makes a State from the records of a scope in order. Where the
// journal begins in the middle, or has a hole, it goes on from the snapshot in
// the record.
func Replay(scope baseline.Scope, journal []Record) State {
	s := State{Scope: scope}
	for i := range journal {
		s.replay(&journal[i])
	}
	return s
}

func (s *State) replay(r *Record) {
	before := *s // history is shared: apply only appends to it
	s.apply(r)
	if s.snapshot() == r.After {
		return
	}
	*s = before
	if s.Open.Start != 0 && s.Open.Start != r.After.EpisodeStart {
		s.Open = Episode{} // its end is in the hole
	}
	s.Status, s.Since, s.Until, s.Through = r.After.Status, r.After.Since, r.After.Until, r.To
	switch s.Status {
	case Alert:
		s.resume(r.After)
		if r.Kind == KindVerdict {
			s.Open.Entries = append(s.Open.Entries, r.entry())
		}
	case Dismissed, Learning:
		if r.After.EpisodeStart != 0 && (r.Kind == KindVerdict || r.Kind == KindRelearn) {
			s.resume(r.After)
			s.close(r.To)
		}
	}
}

// resume takes the open episode from a snapshot, but for the entries it has.
func (s *State) resume(p Snapshot) {
	s.Open.Start, s.Open.Baseline, s.Open.Threshold = p.EpisodeStart, p.EpisodeBaseline, p.EpisodeThreshold
}

// apply takes s over a record in place. It decides by r.Above and never by r.After.
func (s *State) apply(r *Record) {
	switch r.Kind {
	case KindVerdict:
		s.judge(r)
	case KindGap:
		*s = Advance(*s, r.To)
	case KindLearned:
		if s.Status == Learning {
			s.Until = r.To
		}
	case KindRelearn:
		if s.Status == Alert {
			s.close(r.To)
		}
		s.Status, s.Since, s.Until = Learning, r.To, 0
	}
	s.Through = r.To
}

// judge is the table of transitions.
func (s *State) judge(r *Record) {
	*s = Advance(*s, r.From) // what event time alone did before this window
	switch {
	case r.Above && s.Status == Alert, s.Status == Alert && r.Incomplete():
		s.Open.Entries = append(s.Open.Entries, r.entry())
	case r.Above: // learning, normal, dismissed -> alert
		s.Status, s.Since, s.Until = Alert, r.To, 0
		s.Open = Episode{Start: r.To, Baseline: r.Baseline, Threshold: r.Threshold, Entries: []Entry{r.entry()}}
	case s.Status == Alert: // -> dismissed
		s.close(r.To)
		s.Status, s.Since, s.Until = Dismissed, r.To, NextBoundary(r.To, r.Interval)
	case s.Status == Dismissed: // -> normal, since the boundary that lies in this window
		*s = Advance(*s, max(r.To, s.Until))
	case s.Status == Learning: // -> normal
		if s.Until == 0 {
			s.Until = r.From
		}
		*s = Advance(*s, r.To)
	}
}

// close ends the open episode at t.
func (s *State) close(t int64) {
	e := s.Open
	e.End = max(t, e.Start)
	s.Closed = append(s.Closed, e)
	s.Open = Episode{}
}

func (r *Record) entry() Entry {
	return Entry{Time: r.To, Hits: r.Count, LateHits: r.LateHits, Incomplete: r.Incomplete(), Joined: r.Joined}
}

// NextBoundary returns the first multiple of the interval's width after t.
func NextBoundary(t int64, interval time.Duration) int64 {
	if interval <= 0 {
		return t + 1
	}
	return baseline.FirstWhole(t+1, interval)
}

func (s *State) snapshot() Snapshot {
	e := s.Open
	if n := len(s.Closed); e.Start == 0 && n > 0 && s.Closed[n-1].End == s.Through &&
		(s.Status == Dismissed || s.Status == Learning) {
		e = s.Closed[n-1]
	}
	return Snapshot{s.Status, s.Since, s.Until, e.Start, e.Baseline, e.Threshold}
}

// clone copies what the functions that follow change in place.
func (s State) clone() State {
	s.Closed = slices.Clone(s.Closed)
	s.Open.Entries = slices.Clone(s.Open.Entries)
	return s
}

// version of the encoding of a Record. The store checksums it.
const version = 1

// ErrVersion is wrapped by Decode's error for what a newer program wrote.
var ErrVersion = errors.New("written by a newer version of this program")

// stored is a Record in the store: JSON, times in nanoseconds, hosts 16 bytes
// each.
type stored struct {
	Version    int            `json:"v"`
	Kind       Kind           `json:"kind"`
	Scope      baseline.Scope `json:"scope"`
	From       int64          `json:"from"`
	To         int64          `json:"to"`
	Count      int64          `json:"count"`
	Baseline   int64          `json:"baseline,omitempty"`
	Threshold  int64          `json:"threshold,omitempty"`
	IntervalNS int64          `json:"interval,omitempty"`
	Above      bool           `json:"above,omitempty"`
	Damaged    bool           `json:"damaged,omitempty"`
	Hosts      []byte         `json:"hosts,omitempty"`
	Missing    []byte         `json:"missing,omitempty"`
	Joined     []byte         `json:"joined,omitempty"`
	LateHits   int64          `json:"late,omitempty"`
	LateHosts  []byte         `json:"late_hosts,omitempty"`
	Status     Status         `json:"status"`
	Since      int64          `json:"since"`
	Until      int64          `json:"until,omitempty"`
	Episode    int64          `json:"episode,omitempty"`
	EpBaseline int64          `json:"episode_baseline,omitempty"`
	EpPercent  int64          `json:"episode_threshold,omitempty"`
}

// Encode returns the durable form of r.
func Encode(r Record) []byte {
	data, err := json.Marshal(stored{version, r.Kind, r.Scope, r.From, r.To, r.Count, r.Baseline, r.Threshold,
		int64(r.Interval), r.Above, r.Damaged, join(r.Hosts), join(r.Missing), join(r.Joined), r.LateHits, join(r.LateHosts),
		r.After.Status, r.After.Since, r.After.Until, r.After.EpisodeStart, r.After.EpisodeBaseline, r.After.EpisodeThreshold})
	if err != nil { // the type has nothing that JSON cannot hold
		panic(err)
	}
	return data
}

// Decode reads what Encode wrote.
func Decode(data []byte) (Record, error) {
	var d stored
	if err := json.Unmarshal(data, &d); err != nil {
		return Record{}, fmt.Errorf("decode journal record: %w", err)
	}
	if d.Version > version {
		return Record{}, fmt.Errorf("decode journal record of version %d: %w", d.Version, ErrVersion)
	}
	if d.Version < 1 || d.Kind > KindRelearn || d.Status > Dismissed || d.From > d.To ||
		d.Status == Alert && d.Episode == 0 {
		return Record{}, fmt.Errorf("decode journal record: not what this program writes")
	}
	r := Record{Kind: d.Kind, Scope: d.Scope, Above: d.Above, LateHits: d.LateHits,
		Window: Window{From: d.From, To: d.To, Count: d.Count, Baseline: d.Baseline, Threshold: d.Threshold,
			Interval: time.Duration(d.IntervalNS), Damaged: d.Damaged},
		After: Snapshot{d.Status, d.Since, d.Until, d.Episode, d.EpBaseline, d.EpPercent}}
	for _, f := range []struct {
		from []byte
		to   *[]bucket.ID
	}{{d.Hosts, &r.Hosts}, {d.Missing, &r.Missing}, {d.Joined, &r.Joined}, {d.LateHosts, &r.LateHosts}} {
		if len(f.from)%16 != 0 {
			return Record{}, fmt.Errorf("decode journal record: %d bytes of host ids, want a multiple of 16", len(f.from))
		}
		for b := f.from; len(b) > 0; b = b[16:] {
			*f.to = append(*f.to, bucket.ID(b[:16]))
		}
	}
	return r, nil
}

func join(ids []bucket.ID) (out []byte) {
	for _, id := range ids {
		out = append(out, id[:]...)
	}
	return out
}
