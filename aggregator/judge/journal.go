package judge

import (
	"context"
	"fmt"
	"slices"

	"github.com/httpctl/httpctl/aggregator/alert"
	"github.com/httpctl/httpctl/aggregator/baseline"
	"github.com/httpctl/httpctl/pkg/bucket"
)

func baselineKey(s baseline.Scope) string { return "baseline/" + s.String() }

func journalPrefix(s baseline.Scope) string { return "verdict/" + s.String() + "/" }

// journalKey is where a record is stored; see the package's documentation. The
// keys sort as the steps happened.
func journalKey(r alert.Record) string {
	at, suffix := r.To, ""
	switch r.Kind {
	case alert.KindLearned:
		suffix = "/1-learned"
	case alert.KindGap:
		at, suffix = r.From, "/2-gap"
	case alert.KindRelearn:
		suffix = "/3-relearn"
	}
	return fmt.Sprintf("%s%019d%s", journalPrefix(r.Scope), max(at, 0), suffix)
}

// load reads the learning and the journal, replays it, and completes what a
// crash left half done.
func (j *Judge) load(ctx context.Context) error {
	j.loaded = false
	j.learning, j.journal, j.swept, j.settled, j.moment = baseline.Learning{}, nil, map[bucket.ID]int64{}, tally{}, live{}
	key := baselineKey(j.scope)
	data, version, err := j.st.Get(ctx, key)
	if err != nil {
		return fmt.Errorf("read %q: %w", key, err)
	}
	j.learningVersion = version
	if data != nil {
		if j.learning, err = baseline.Decode(data); err != nil {
			return fmt.Errorf("read %q: %w", key, err)
		}
	}

	prefix := journalPrefix(j.scope)
	var records []alert.Record
	var asked int64 // T0 of the last wish to relearn
	err = j.st.List(ctx, prefix, prefix+"~", func(key string, value []byte, version uint64) error {
		r, err := alert.Decode(value)
		if err != nil {
			return fmt.Errorf("read %q: %w", key, err)
		}
		if n := len(records); n > 0 && slices.Equal(records[n-1].Hosts, r.Hosts) {
			r.Hosts = records[n-1].Hosts // mostly the same fleet: keep one copy
		}
		if r.Kind == alert.KindRelearn {
			asked = r.To
		}
		records = append(records, r)
		j.journal = append(j.journal, line{key, version, r})
		return nil
	})
	if err != nil {
		return err
	}
	j.state = alert.Replay(j.scope, records)
	if err := j.complete(ctx, asked); err != nil {
		return err
	}
	j.loaded = true
	return nil
}

// complete finishes the steps that take two writes, and applies changed settings.
func (j *Judge) complete(ctx context.Context, asked int64) error {
	l, width := j.learning, int64(j.cfg.DashboardBucketSize)
	switch {
	case asked > l.Origin:
		return j.saveLearning(ctx, baseline.Begin(j.scope, asked, j.cfg.Learning(), j.cfg.AverageBucketSize))
	case !l.Begun() && len(j.journal) > 0:
		j.log.Warn("the baseline is missing, learning a new one", "key", baselineKey(j.scope))
		return j.relearn(ctx)
	case !l.Begun():
		return nil
	case l.Window != j.cfg.AverageBucketSize:
		j.log.Warn("average_bucket_size changed, learning a new baseline", "was", l.Window, "is", j.cfg.AverageBucketSize)
		return j.relearn(ctx)
	case !l.Enforced && l.From%width != 0 || l.Enforced && l.Until()%width != 0:
		j.log.Warn("dashboard_bucket_size changed and windows are no multiple of it, learning a new baseline",
			"is", j.cfg.DashboardBucketSize)
		return j.relearn(ctx)
	case !l.Enforced && l.Duration != j.cfg.Learning():
		l.Duration = j.cfg.Learning()
		return j.saveLearning(ctx, l)
	case l.Enforced && j.state.Status == alert.Learning && j.state.Until == 0:
		return j.step(ctx, alert.Learned, l.Until())
	}
	return nil
}

// step takes the machine over one of its simple steps: journal, then memory.
func (j *Judge) step(ctx context.Context, f func(alert.State, int64) (alert.State, alert.Record), t int64) error {
	state, r := f(j.state, t)
	if err := j.write(ctx, r); err != nil {
		return err
	}
	j.state = state
	return nil
}

// write makes a record durable: at the end of the journal, or in the place of
// the gap that it extends.
func (j *Judge) write(ctx context.Context, r alert.Record) error {
	n := len(j.journal)
	key := journalKey(r)
	if n > 0 {
		last := &j.journal[n-1]
		if last.key == key {
			return j.rewrite(ctx, last, r)
		}
		if slices.Equal(last.Hosts, r.Hosts) {
			r.Hosts = last.Hosts
		}
	}
	version, err := j.st.CompareAndSwap(ctx, key, 0, alert.Encode(r))
	if err != nil {
		return fmt.Errorf("write %q: %w", key, err)
	}
	j.journal = append(j.journal, line{key, version, r})
	return nil
}

func (j *Judge) rewrite(ctx context.Context, l *line, r alert.Record) error {
	version, err := j.st.CompareAndSwap(ctx, l.key, l.version, alert.Encode(r))
	if err != nil {
		return fmt.Errorf("write %q: %w", l.key, err)
	}
	l.version, l.Record = version, r
	return nil
}

func (j *Judge) saveLearning(ctx context.Context, l baseline.Learning) error {
	key := baselineKey(j.scope)
	version, err := j.st.CompareAndSwap(ctx, key, j.learningVersion, baseline.Encode(l))
	if err != nil {
		return fmt.Errorf("write %q: %w", key, err)
	}
	j.learning, j.learningVersion = l, version
	return nil
}

// purge forgets what ended max_retention_length ago, by the newest coverage and
// never past wall time. The newest record stays: it says where the machine is.
func (j *Judge) purge(ctx context.Context, f fleet) error {
	horizon := min(f.newest, f.now.UnixNano()) - int64(j.cfg.MaxRetentionLength)
	n := 0
	for n < len(j.journal)-1 && j.journal[n].To <= horizon {
		old := &j.journal[n]
		if _, err := j.st.CompareAndSwap(ctx, old.key, old.version, nil); err != nil {
			err = fmt.Errorf("delete %q: %w", old.key, err)
			j.journal = slices.Clone(j.journal[n:])
			return err
		}
		n++
	}
	if n > 0 {
		j.journal = slices.Clone(j.journal[n:])
	}
	j.state = alert.Trim(j.state, horizon)
	return nil
}
