package judge

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/exchange"
)

// fake is a store in memory that outlives the judges that use it.
type fake struct {
	store.Store // nil: what the judge has no business to call

	mu      sync.Mutex
	hosts   map[bucket.ID]*store.Host
	buckets []sample
	keys    map[string]versioned
	clock   uint64
	damaged []int64
	// asker is a host that asks another host so many requests in each interval.
	asker string
	of    bucket.ID
	asks  int64
	// After failAfter writes every further one fails; -1 is never.
	failAfter int
	writes    int
	queries   int
	kept      int // queries of which a store may keep sums
	// fault is called, if set, with each call, and once more after a write; it may panic.
	fault func()
}

func (s *fake) setFault(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = f
}

// may is called by who holds the lock.
func (s *fake) may() {
	if s.fault != nil {
		s.fault()
	}
}

type sample struct {
	skewed           bool
	host             bucket.ID
	start, end       int64
	requests, mirror int64
	asked            int64  // requests that host asked of of
	of               string // a host, as the column mirror names it
	unobserved       []bucket.Span
}

type versioned struct {
	value   []byte
	version uint64
}

var errKilled = errors.New("killed here")

func newFake() *fake {
	return &fake{hosts: map[bucket.ID]*store.Host{}, keys: map[string]versioned{}, failAfter: -1}
}

// add stores a bucket of an interval and moves the host's coverage to its end.
func (s *fake) add(name string, start time.Time, width time.Duration, requests int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var id bucket.ID
	copy(id[:], name)
	b := sample{host: id, start: start.UnixNano(), end: start.Add(width).UnixNano(), requests: requests, mirror: 1000}
	if name == s.asker {
		b.asked, b.of = s.asks, s.of.String()
	}
	b.skewed = time.Until(start) > 5*time.Minute
	s.buckets = append(s.buckets, b)
	h := s.hosts[id]
	if h == nil {
		h = &store.Host{ID: id, Name: name, FirstStart: b.start}
		s.hosts[id] = h
	}
	h.CoveredThrough, h.LastEnd = max(h.CoveredThrough, b.end), max(h.LastEnd, b.end)
	h.CurrentThrough = b.end // as if each that is not later than the one before began an incarnation
}

func (s *fake) Query(_ context.Context, p store.Plan) (*store.Answer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.may()
	s.queries++
	if p.Table != "" && p.Step == 0 {
		s.kept++
	}
	type key struct {
		step int64
		host bucket.ID
	}
	found := map[key]*store.Slice{}
	for _, b := range s.buckets {
		if b.start < p.From || b.start >= p.To || p.Hosts != nil && !slices.Contains(p.Hosts, b.host) || p.Judged && b.skewed {
			continue
		}
		k := key{}
		if p.Step > 0 {
			k.step = (b.start - p.From) / int64(p.Step)
		}
		if p.PerHost {
			k.host = b.host
		}
		sl := found[k]
		if sl == nil {
			sl = &store.Slice{Start: p.From, End: p.To, Host: k.host}
			if p.Step > 0 {
				sl.Start = p.From + k.step*int64(p.Step)
				sl.End = sl.Start + int64(p.Step)
			}
			found[k] = sl
		}
		sl.Buckets++
		sl.Covered = append(sl.Covered, bucket.Span{From: b.start, To: b.end})
		slices.SortFunc(sl.Covered, func(a, b bucket.Span) int { return cmp.Compare(a.From, b.From) })
		sl.Unobserved = append(sl.Unobserved, b.unobserved...)
		sl.Counters[exchange.Requests] += uint64(b.requests + b.mirror)
		if p.Table == "totals" && b.requests > 0 {
			if sl.Table == nil {
				sl.Table = &bucket.Table{Schema: bucket.Schema{Name: "totals", Version: 1, Keys: []string{"mirror"},
					Measures: []bucket.Measure{{Name: "bytes"}, {Name: "requests"}}}}
			}
			for key, n := range map[string]int64{"1": b.mirror, "0": b.requests, b.of: b.asked} {
				if n > 0 && !slices.ContainsFunc(p.Where, func(c store.Condition) bool { return !c.Matches(key) }) {
					sl.Table.Rows = append(sl.Table.Rows, &bucket.Row{Keys: []string{key}, Values: []int64{99, n}})
				}
			}
		}
	}
	a := &store.Answer{}
	for _, sl := range found {
		a.Slices = append(a.Slices, *sl)
	}
	slices.SortFunc(a.Slices, func(x, y store.Slice) int {
		return cmp.Or(cmp.Compare(x.Start, y.Start), x.Host.Compare(y.Host))
	})
	for _, d := range s.damaged {
		if d >= p.From && d < p.To {
			a.Damaged = append(a.Damaged, d)
		}
	}
	return a, nil
}

func (s *fake) Hosts(context.Context) ([]store.Host, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.may()
	var out []store.Host
	for _, h := range s.hosts {
		out = append(out, *h)
	}
	slices.SortFunc(out, func(a, b store.Host) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

func (s *fake) Get(_ context.Context, key string) ([]byte, uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.keys[key]
	return v.value, v.version, nil
}

func (s *fake) CompareAndSwap(_ context.Context, key string, version uint64, value []byte) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.may()
	defer s.may()
	if s.failAfter >= 0 && s.writes >= s.failAfter {
		return 0, errKilled
	}
	if s.keys[key].version != version {
		return 0, store.ErrConflict
	}
	s.writes++
	if value == nil {
		delete(s.keys, key)
		return 0, nil
	}
	s.clock++
	s.keys[key] = versioned{value, s.clock}
	return s.clock, nil
}

func (s *fake) List(_ context.Context, from, to string, f func(string, []byte, uint64) error) error {
	s.mu.Lock()
	keys := maps.Clone(s.keys)
	s.mu.Unlock()
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		if k >= from && k < to {
			if err := f(k, keys[k].value, keys[k].version); err != nil {
				return err
			}
		}
	}
	return nil
}

var _ store.Store = (*fake)(nil)

// state returns the keys that are there and how many queries there were.
func (s *fake) state() (keys []string, queries int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.keys)), s.queries
}

// fail lets no write succeed after n, -1 for all.
func (s *fake) fail(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failAfter = n
}
