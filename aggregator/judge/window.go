package judge

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"time"

	"github.com/httpctl/httpctl/aggregator/alert"
	"github.com/httpctl/httpctl/aggregator/baseline"
	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/exchange"
	"github.com/httpctl/httpctl/pkg/stat"
)

// tally is what the fleet saw from from to to.
type tally struct {
	from, to int64
	requests int64
	covered  time.Duration // by at least one host
	hosts    []hostTally   // by id
	damaged  bool          // something failed its checksum and is not in requests
}

type hostTally struct {
	id       bucket.ID
	requests int64
	cover    baseline.HostCoverage
	heads    bool // requests are the count of heads, so all of them
}

// read tallies n steps from from on.
func (j *Judge) read(ctx context.Context, f *fleet, from int64, step time.Duration, n int) ([]tally, error) {
	out := make([]tally, n)
	for i := range out {
		out[i].from = from + int64(i)*int64(step)
		out[i].to = out[i].from + int64(step)
	}
	if f.counted == 0 || n == 0 {
		return out, nil
	}
	plan := store.Plan{Table: "totals", From: from, To: out[n-1].to, Step: step, PerHost: true, Hosts: f.plan, Judged: true, By: []string{stat.KeyMirror}, Numbers: true}
	answer, err := j.st.Query(ctx, plan)
	if errors.Is(err, store.ErrColumn) { // a plug-in's table of that name: heads are counted all the same
		answer, err = j.st.Query(ctx, store.Plan{From: from, To: out[n-1].to, Step: step, PerHost: true, Hosts: f.plan, Judged: true})
	}
	if err != nil {
		return nil, fmt.Errorf("read requests from %d to %d: %w", from, out[n-1].to, err)
	}
	for i := range answer.Slices {
		s := &answer.Slices[i]
		t := &out[(s.Start-from)/int64(step)]
		h := hostTally{id: s.Host, requests: j.requests(s), cover: baseline.HostCoverage{Covered: s.Covered, Unobserved: s.Unobserved}, heads: s.Table == nil || s.Skipped > 0}
		t.hosts = append(t.hosts, h)
		t.requests = add(t.requests, h.requests)
	}
	if err := j.readAbsent(ctx, plan, answer, out); err != nil {
		return nil, err
	}
	for _, d := range answer.Damaged {
		if i := (d - from) / int64(step); d >= from && i < int64(n) {
			out[i].damaged = true
		}
	}
	for i := range out {
		t := &out[i]
		cover := make([]baseline.HostCoverage, len(t.hosts))
		for k := range t.hosts {
			cover[k] = t.hosts[k].cover
		}
		t.covered = baseline.Covered(cover, t.from, t.to)
	}
	return out, nil
}

// readAbsent adds what hosts counted of others for which there are no buckets: those that did not arrive in time,
// whose agent was away, or that do not count.
func (j *Judge) readAbsent(ctx context.Context, plan store.Plan, answer *store.Answer, out []tally) error {
	var named []bucket.ID
	for i := range answer.Slices {
		named = append(named, store.Mirrored(answer.Slices[i].Table)...)
	}
	if len(named) == 0 {
		return nil
	}
	sortIDs(named)
	from, step := plan.From, int64(plan.Step)
	absences := store.Absences(slices.Compact(named), store.Coverage(answer, nil), from, plan.To, plan.Step)
	for i := range absences {
		p := absences[i].Plan(plan)
		if p.Step == 0 { // within one: of what has no steps a store may keep sums, and nobody asks for this again
			p.Step = time.Duration(p.To - p.From)
		}
		answer, err := j.st.Query(ctx, p)
		if err != nil {
			return fmt.Errorf("read requests of hosts that were away, from %d to %d: %w", absences[i].From, absences[i].To, err)
		}
		for k := range answer.Slices {
			s := &answer.Slices[k]
			t := &out[(s.Start-from)/step]
			at := slices.IndexFunc(t.hosts, func(h hostTally) bool { return h.id == s.Host })
			if at < 0 || t.hosts[at].heads || s.Table == nil {
				continue
			}
			more := sumOf(s.Table, func(string) bool { return true })
			t.hosts[at].requests = add(t.hosts[at].requests, more)
			t.requests = add(t.requests, more)
		}
	}
	return nil
}

// sumOf adds up the requests of a totals table by the column mirror.
func sumOf(t *bucket.Table, counts func(mirror string) bool) (sum int64) {
	m := t.Schema.Measure(stat.TotalRequests)
	for _, row := range t.Rows {
		if m >= 0 && counts(row.Keys[0]) {
			sum = add(sum, row.Values[m])
		}
	}
	return sum
}

// requests counts the request events of a slice: those of the table totals
// that no other host counts. Where the statistic is not kept, or kept in
// versions that cannot be added up, the count of request heads stands in.
func (j *Judge) requests(s *store.Slice) int64 {
	kept := len(j.cfg.Statistics) == 0 || slices.Contains(j.cfg.Statistics, "totals")
	if s.Table == nil && kept && s.Skipped == 0 {
		return 0
	}
	if s.Table != nil && s.Skipped == 0 && s.Table.Schema.Measure(stat.TotalRequests) >= 0 {
		return sumOf(s.Table, func(mirror string) bool { return mirror == "0" })
	}
	return int64(min(s.Counters[exchange.Requests], math.MaxInt64))
}

// learn closes learning if its time has come. It returns true if there may be more to do.
func (j *Judge) learn(ctx context.Context, f fleet) (bool, error) {
	l := j.learning
	if !j.ready(&f, l.Until()) {
		return false, nil
	}
	ts, err := j.read(ctx, &f, l.From, l.Duration, 1)
	if err != nil {
		return false, err
	}
	t := ts[0]
	if t.covered == 0 {
		if f.held(l.Until()) {
			return false, nil
		}
		return true, j.saveLearning(ctx, j.skipDark(ctx, f, l))
	}
	o := baseline.Observed{Requests: t.requests, Covered: t.covered}
	for _, h := range t.hosts {
		o.Hosts = append(o.Hosts, h.id)
	}
	l = l.Close(o)
	if err := j.saveLearning(ctx, l); err != nil {
		return false, err
	}
	if !l.Enforced {
		j.log.Info("nothing to learn from, learning again", "requests", o.Requests, "until", time.Unix(0, l.Until()).UTC())
		return true, nil
	}
	j.log.Info("baseline learned", "requests_per_window", l.Result.Baseline, "hosts", len(l.Result.Hosts))
	return true, j.step(ctx, alert.Learned, l.Until())
}

// skipDark restarts learning through the time that nobody covered: up to the
// first coverage that there is, or to the last time that is over.
func (j *Judge) skipDark(ctx context.Context, f fleet, l baseline.Learning) baseline.Learning {
	to := l.Until()
	if first, ok := j.firstCovered(ctx, f, to); ok {
		return l.Skip(max(first, to))
	}
	return l.Skip(max(to, f.now.UnixNano()-j.grace()))
}

// firstCovered finds the first coverage at or after from. An error is no
// coverage found: the caller then takes smaller steps, and meets it again.
func (j *Judge) firstCovered(ctx context.Context, f fleet, from int64) (int64, bool) {
	if f.counted == 0 {
		return 0, false
	}
	answer, err := j.st.Query(ctx, store.Plan{From: from, To: f.now.Add(maxAhead).UnixNano(), Hosts: f.plan, Judged: true})
	if err != nil || len(answer.Slices) == 0 || len(answer.Slices[0].Covered) == 0 {
		return 0, false
	}
	return answer.Slices[0].Covered[0].From, true
}

// batch is how many windows are read at once.
func (j *Judge) batch(f *fleet) int { return min(max(j.slices/max(f.counted, 1), 1), maxBatch) }

// judgeBatch judges the windows that are ready, at most a batch of them. It returns true if there may
// be more.
func (j *Judge) judgeBatch(ctx context.Context, f fleet) (bool, error) {
	width, most := j.learning.Window, j.batch(&f)
	from, n := j.state.Through, 0
	for n < most && j.ready(&f, from+int64(n+1)*int64(width)) {
		n++
	}
	ts, err := j.read(ctx, &f, from, width, n)
	if err != nil {
		return false, err
	}
	dark := n > 0
	for i := range ts {
		t := &ts[i]
		if t.covered > 0 || t.damaged {
			dark = false
			if err := j.verdict(ctx, &f, t); err != nil {
				return false, err
			}
			continue
		}
		if f.held(t.to) {
			return false, nil
		}
		if i+1 < n && ts[i+1].covered == 0 && !ts[i+1].damaged && !f.held(ts[i+1].to) {
			continue // the gap goes on: one write for all of it
		}
		to := t.to
		if dark && n == most && i == n-1 {
			to = j.leap(ctx, &f, to)
		}
		if err := j.skip(ctx, to); err != nil {
			return false, err
		}
	}
	return n == most, nil
}

// leap returns the end of a long gap that reached to: the start of the window
// with the next coverage, or the end of the last window that is due.
func (j *Judge) leap(ctx context.Context, f *fleet, to int64) int64 {
	limit := to
	if now := f.now.UnixNano(); now >= j.started.UnixNano()+j.grace() {
		limit = now - j.grace()
	}
	if missing, some := f.waiting(f.newest); some && len(missing) == 0 {
		limit = max(limit, f.newest)
	}
	if first, ok := j.firstCovered(ctx, *f, to); ok {
		limit = min(limit, first)
	} else if f.held(limit) {
		limit = min(limit, f.newest)
	}
	width := int64(j.learning.Window)
	return to + max(limit-to, 0)/width*width
}

// skip journals that nobody was observed from the last window to to.
func (j *Judge) skip(ctx context.Context, to int64) error {
	from, told := j.state.Through, int64(0)
	if n := len(j.journal); n > 0 && j.journal[n-1].Kind == alert.KindGap {
		from = j.journal[n-1].From
		told = j.state.Through - from
	}
	state, r := alert.Skip(j.state, from, to)
	if err := j.write(ctx, r); err != nil {
		return err
	}
	j.state = state
	j.count(func(s *Stats) { s.Gaps++ })
	if length := uint64(to - from); bits.Len64(length) > bits.Len64(uint64(told)) { // a night without agents takes ten lines, not a line a window
		j.log.Warn(MessageUnobserved, "from", time.Unix(0, from).UTC(), "to", time.Unix(0, to).UTC())
	}
	return nil
}

// verdict judges a window, and makes it durable before anyone sees it.
func (j *Judge) verdict(ctx context.Context, f *fleet, t *tally) error {
	w := alert.Window{From: t.from, To: t.to, Count: t.requests, Damaged: t.damaged,
		Baseline: j.learning.Result.Baseline, Threshold: j.cfg.AverageThreshold, Interval: j.cfg.DashboardBucketSize}
	w.Missing, _ = f.waiting(t.to)
	for _, h := range f.hosts {
		if !h.ignored && h.FirstStart < t.to && h.CoveredThrough >= t.to {
			w.Hosts = append(w.Hosts, h.ID)
		}
	}
	sortIDs(w.Hosts)
	for _, h := range t.hosts {
		if h.requests > 0 && !j.learning.Knows(h.id) {
			w.Joined = append(w.Joined, h.id)
		}
	}
	sortIDs(w.Joined)
	before := j.state.Status
	state, r := alert.Judge(j.state, w)
	if err := j.write(ctx, r); err != nil {
		return err
	}
	j.state, j.recent = state, true
	j.count(func(s *Stats) {
		s.Verdicts++
		if w.Incomplete() {
			s.Incomplete++
		}
	})
	if state.Status != before && (state.Status == alert.Alert || state.Status == alert.Dismissed) {
		j.log.Warn(map[bool]string{true: MessageRaised, false: MessageDismissed}[state.Status == alert.Alert],
			"scope", j.scope, "requests", w.Count, "baseline", w.Baseline, "threshold_percent", w.Threshold,
			"window_end", time.Unix(0, w.To).UTC(), "incomplete", w.Incomplete())
	}
	return nil
}

// late annotates verdicts with requests that arrived after them: those of
// hosts whose coverage came to contain a window only later, and, each time a
// window is judged, those of the last few windows (late parts of closed intervals).
func (j *Judge) late(ctx context.Context, f fleet) error {
	due := make([]bool, len(j.journal))
	for _, h := range f.hosts {
		if h.ignored {
			continue
		}
		seen := j.swept[h.ID]
		if h.CoveredThrough <= seen {
			continue
		}
		i, _ := slices.BinarySearchFunc(j.journal, max(seen, h.FirstStart)+1, func(l line, t int64) int { return int(min(max(l.To-t, -1), 1)) })
		for ; i < len(j.journal) && j.journal[i].To <= h.CoveredThrough; i++ {
			l := &j.journal[i]
			_, counted := slices.BinarySearchFunc(l.Hosts, h.ID, bucket.ID.Compare)
			_, annotated := slices.BinarySearchFunc(l.LateHosts, h.ID, bucket.ID.Compare)
			due[i] = due[i] || l.Kind == alert.KindVerdict && !counted && !annotated
		}
	}
	for i := len(due) - 1; j.recent && i >= max(0, len(due)-recentWindows); i-- {
		due[i] = due[i] || j.journal[i].Kind == alert.KindVerdict
	}
	most := j.batch(&f)
	for i := 0; i < len(due); {
		if !due[i] {
			i++
			continue
		}
		n := 1 // windows that follow one another are read together
		for i+n < len(due) && n < most && due[i+n] && j.journal[i+n].From == j.journal[i+n-1].To &&
			j.journal[i+n].To-j.journal[i+n].From == j.journal[i].To-j.journal[i].From {
			n++
		}
		if err := j.annotate(ctx, &f, j.journal[i:i+n]); err != nil {
			return err
		}
		i += n
	}
	swept := make(map[bucket.ID]int64, len(f.hosts)) // without hosts that the store forgot
	for _, h := range f.hosts {
		if swept[h.ID] = h.CoveredThrough; h.ignored {
			swept[h.ID] = j.swept[h.ID]
		}
	}
	j.swept, j.recent = swept, false
	return nil
}

// annotate counts windows again and notes in their verdicts what is new. It never judges.
func (j *Judge) annotate(ctx context.Context, f *fleet, lines []line) error {
	ts, err := j.read(ctx, f, lines[0].From, time.Duration(lines[0].To-lines[0].From), len(lines))
	if err != nil {
		return err
	}
	for i := range lines {
		l, late := &lines[i], ts[i].requests-lines[i].Count
		if late <= l.LateHits {
			continue // nothing new, or less: damage since, which is reported elsewhere
		}
		r := l.Record
		r.LateHits, r.LateHosts = late, nil
		for _, h := range f.hosts {
			if _, counted := slices.BinarySearchFunc(r.Hosts, h.ID, bucket.ID.Compare); !counted && h.FirstStart < r.To && h.CoveredThrough >= r.To {
				r.LateHosts = append(r.LateHosts, h.ID)
			}
		}
		sortIDs(r.LateHosts)
		if err := j.rewrite(ctx, l, r); err != nil {
			return err
		}
		j.state = alert.Annotate(j.state, r.To, late)
		j.count(func(s *Stats) { s.Late++ })
	}
	return nil
}

func add(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}
