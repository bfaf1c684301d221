package storetest

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/exchange"
)

// model is the naive engine: everything in a map, answers by looking at all of
// it. It shares no code with the engines it is compared with. It keeps what was purged,
// and knows which resolutions of it are left.
type model struct {
	buckets map[bucket.Name]modelBucket
	// floors holds for each resolution the time before which it is purged; that of the raw buckets is sealed.
	floors  [len(lengths)]int64
	expired uint64
}

// lengths of raw intervals and of roll-ups, nanoseconds.
var lengths = [...]int64{int64(Width), 60e9, 3600e9, 86400e9}

type modelBucket struct {
	data []byte
	b    *bucket.Bucket
}

func newModel() *model {
	return &model{buckets: map[bucket.Name]modelBucket{}}
}

func (m *model) append(it store.Item) store.Result {
	h := it.Header
	if h.Start < m.floors[0] {
		m.expired++
		return store.Expired
	}
	if old, ok := m.buckets[h.Name]; ok {
		if bytes.Equal(old.data, it.Data) {
			return store.Duplicate
		}
		return store.Mismatch
	}
	b, err := bucket.Decode(it.Data)
	if err != nil {
		panic(err)
	}
	m.buckets[h.Name] = modelBucket{it.Data, b}
	return store.Stored
}

// purge raises the floor of a resolution to t, rounded down to a whole step of the next
// coarser, and no further than that of the next finer. It returns how many steps go.
func (m *model) purge(resolution int, t int64) int {
	t = max(t, 0)
	if resolution > 0 {
		t = min(t, m.floors[resolution-1])
	}
	t -= t % lengths[min(resolution+1, len(lengths)-1)]
	gone := map[int64]bool{}
	for n := range m.buckets {
		if step := n.Start - n.Start%lengths[resolution]; step >= m.floors[resolution] && step < t {
			gone[step] = true
		}
	}
	m.floors[resolution] = max(m.floors[resolution], t)
	return len(gone)
}

// raw counts the buckets that are there as they came.
func (m *model) raw() (n uint64) {
	for name := range m.buckets {
		if name.Start >= m.floors[0] {
			n++
		}
	}
	return n
}

// answers reports whether a plan can tell of a bucket: some resolution that has it has
// a step around it that lies within the plan's range and within one of its steps.
func (m *model) answers(p *store.Plan, start int64) bool {
	for r, length := range lengths {
		from := start - start%length
		to := from + length
		if r == 0 {
			from, to = start, start+1
		}
		if from < m.floors[r] || from < p.From || to > p.To || r > 0 && p.Judged {
			continue
		}
		if p.Step == 0 || (from-p.From)/int64(p.Step) == (to-1-p.From)/int64(p.Step) {
			return true
		}
	}
	return false
}

// hosts counts those of which raw buckets are left, and those of which only roll-ups are.
func (m *model) hosts() (now, past int) {
	last := map[bucket.ID]int64{}
	for n, b := range m.buckets {
		last[n.Host] = max(last[n.Host], b.b.End())
	}
	for _, end := range last {
		switch {
		case end > m.floors[0]:
			now++
		case end > m.floors[3]:
			past++
		}
	}
	return now, past
}

// modelSlice is what the model says about a slice, reduced to what it can
// tell: the tables here are exact.
type modelSlice struct {
	start, end int64
	host       bucket.ID
	rows       map[string][]int64 // by keys, joined
	counters   exchange.Counters
	hosts      []bucket.ID
	buckets    int
	covered    int64 // nanoseconds covered by any bucket
}

func (m *model) query(p store.Plan) []modelSlice {
	type key struct {
		step int64
		host bucket.ID
	}
	slicesBy := map[key]*modelSlice{}
	starts := map[key]map[int64]bool{}
	for _, mb := range m.buckets {
		b := mb.b
		if !m.answers(&p, b.Start) || len(p.Hosts) > 0 && !slices.Contains(p.Hosts, b.Host) {
			continue
		}
		k := key{}
		if p.Step > 0 {
			k.step = (b.Start - p.From) / int64(p.Step)
		}
		if p.PerHost {
			k.host = b.Host
		}
		s := slicesBy[k]
		if s == nil {
			s = &modelSlice{start: p.From, end: p.To, host: k.host, rows: map[string][]int64{}}
			if p.Step > 0 {
				s.start = p.From + k.step*int64(p.Step)
				s.end = min(p.To, s.start+int64(p.Step))
			}
			slicesBy[k] = s
			starts[k] = map[int64]bool{}
		}
		s.buckets++
		s.counters.Add(&b.Counters)
		if !slices.Contains(s.hosts, b.Host) {
			s.hosts = append(s.hosts, b.Host)
		}
		if !starts[k][b.Start] {
			starts[k][b.Start] = true
			s.covered += int64(b.Width)
		}
		t := b.Table(p.Table)
		if t == nil {
			continue
		}
	rows:
		for _, r := range t.Rows {
			for _, c := range p.Where {
				if !c.Matches(r.Keys[slices.Index(t.Schema.Keys, c.Column)]) {
					continue rows
				}
			}
			by := p.By
			if by == nil {
				by = t.Schema.Keys
			}
			id := ""
			for _, column := range by {
				id += r.Keys[slices.Index(t.Schema.Keys, column)] + "\x00"
			}
			sum := s.rows[id]
			if sum == nil {
				sum = make([]int64, len(r.Values))
				s.rows[id] = sum
			}
			for i, measure := range t.Schema.Measures {
				switch measure.Kind {
				case bucket.Sum:
					sum[i] += r.Values[i]
				case bucket.Max:
					sum[i] = max(sum[i], r.Values[i])
				}
			}
		}
	}
	var out []modelSlice
	for _, s := range slicesBy {
		slices.SortFunc(s.hosts, bucket.ID.Compare)
		out = append(out, *s)
	}
	slices.SortFunc(out, func(x, y modelSlice) int {
		return cmp.Or(cmp.Compare(x.start, y.start), x.host.Compare(y.host))
	})
	return out
}
